//! The cost of recording: cargo run --release -p telemetry --example record_cost

use std::hint::black_box;
use std::time::{Duration, Instant};

use api::session::Verb;
use telemetry::{Group, gather, metrics, text};

const ROUNDS: u32 = 10_000_000;

fn main() {
    let time = |what: &str, rounds: u32, f: &dyn Fn(u32)| {
        let began = Instant::now();
        (0..rounds).for_each(f);
        println!("{what}: {:?} each", began.elapsed() / rounds);
    };
    time("a counter", ROUNDS, &|_| metrics::QUORUM_COMMITTED.add(1));
    time("a histogram, by verb", ROUNDS, &|i| {
        metrics::REQUEST_DURATION.at(Verb::Set).record_n(Duration::from_micros(black_box(i).into()), 1);
    });
    time("the clock", ROUNDS, &|_| {
        black_box(Instant::now());
    });
    let page = || text::page(&[], &gather(&Group::ALL), text::Format::Plain);
    time("a page of all metrics", 1000, &|_| drop(black_box(page())));
}

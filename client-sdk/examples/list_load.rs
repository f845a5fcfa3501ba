//! `list_load ENDPOINT CHILDREN CLIENTS`: creates a znode with this many children, lets this many clients list it at once, and
//! prints how long another session waited at most for the answer to a small request meanwhile.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use client_sdk::{Client, Create, CreateMode, MultiOp, Options, Path};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (endpoint, children, clients) = (&args[0], args[1].parse().unwrap(), args[2].parse().unwrap());
    let options =
        || Options { session_timeout: Duration::from_secs(2), op_timeout: None, ..Options::default() };
    let other = Client::connect([endpoint], options()).await.unwrap();
    // Fails if it is there from an earlier run.
    let _ = other.create("/listed", "", CreateMode::default()).await;
    let create = |i: u32| {
        let path = Path::new(&format!("/listed/{i:08}")).unwrap();
        MultiOp::Create(Create::new(path, ""))
    };
    let numbers: Vec<u32> = (0..children).collect();
    for part in numbers.chunks(1000) {
        let _ = other.multi(part.iter().copied().map(create).collect()).await;
    }
    let mut listing = JoinSet::new();
    for _ in 0..clients {
        let client = Client::connect([endpoint], options()).await.unwrap();
        listing.spawn(async move { client.children("/listed").await.unwrap().0.len() });
    }
    let (began, session) = (Instant::now(), other.session());
    let mut waits = Vec::new();
    while !listing.is_empty() {
        let asked = Instant::now();
        other.exists("/").await.unwrap();
        waits.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
        while let Some(listed) = listing.try_join_next() {
            assert_eq!(listed.unwrap(), children as usize);
        }
    }
    waits.sort_unstable();
    println!(
        "{clients} lists of {children} children in {:.1?}; another session waited at most {:.1?}, half the time {:.1?}; its session {}",
        began.elapsed(),
        waits.last().unwrap(),
        waits[waits.len() / 2],
        if other.session() == session { "lives" } else { "is lost" }
    );
}

//! The same frames to a real ZooKeeper (Debian's package `zookeeper`) and to the gateway: replies, events and ends of connections are
//! compared, after zxids, times and sessions are made alike. What differs and has a reason is listed in `known.rs`, and in
//! docs/zookeeper-compatibility.md; anything else fails the test.
//!
//! `DIFFERENTIAL_FRAMES` says how many frames (2,000), `DIFFERENTIAL_SEED` which; with `DIFFERENTIAL_SHOW` all differences are
//! printed, and none fails it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod frames;
mod known;
mod servers;
mod wire;

#[path = "../../../tests/skipped.rs"]
mod skipped;

use std::collections::BTreeMap;

use api::chance::Chance;
use frames::{Frame, Maker};
use servers::{Ours, ZooKeeper};
use skipped::skipped;
use wire::{Connection, Seen};

#[test]
fn the_gateway_answers_as_zookeeper_does() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (frames, seed) = (number("DIFFERENTIAL_FRAMES", 2_000), number("DIFFERENTIAL_SEED", 1));
    let show = std::env::var_os("DIFFERENTIAL_SHOW").is_some();
    let theirs = match ZooKeeper::start() {
        Ok(zookeeper) => zookeeper,
        Err(why) => {
            return skipped(format!(
                "no ZooKeeper ({why}); install Debian's packages zookeeper and default-jre-headless"
            ));
        }
    };
    let ours = Ours::start();
    let mut tally = Tally::default();
    let mut round = 0;
    while tally.frames < frames {
        round += 1;
        play(Chance::stream(seed, round), round, [theirs.port(), ours.port()], &mut tally);
    }
    for (reason, count) in &tally.known {
        println!("{count:>7} known: {reason}");
    }
    println!(
        "{} frames in {round} rounds of seed {seed}, {} unknown differences",
        tally.frames,
        tally.unknown.len()
    );
    for (what, (count, example)) in &tally.unknown {
        println!("{count:>7} UNKNOWN {what}\n{example}");
    }
    ours.stop();
    assert!(show || tally.unknown.is_empty(), "the gateway answers otherwise than ZooKeeper; see above");
}

#[derive(Default)]
struct Tally {
    frames: u64,
    known: BTreeMap<&'static str, u64>,
    unknown: BTreeMap<String, (u64, String)>,
}

/// Two sessions on each server, and the same frames for both, until one answers otherwise.
fn play(mut chance: Chance, round: u64, ports: [u16; 2], tally: &mut Tally) {
    let base = format!("/r{round}");
    let mut sessions: Vec<[Connection; 2]> = (0..2).map(|_| ports.map(Connection::open)).collect();
    let ids = [0, 1].map(|server| [0, 1].map(|which: usize| sessions[which][server].session));
    let mut maker = Maker::new(&base);
    // Most rounds have no watches that stay or are set again: there ZooKeeper 3.8 differs from later ones.
    let with_staying = chance.below(4) == 0;
    let (mut past, mut stays) = (Vec::new(), false);
    for step in 0..STEPS {
        // One frame, or a few at once; the other session is asked something then, so that its events have come.
        let who = chance.index(2);
        let count = if chance.below(3) == 0 { 1 + chance.index(8) } else { 1 };
        let burst: Vec<Frame> = if step == 0 { vec![maker.first()] } else { maker.burst(&mut chance, count) };
        let sets = |frame: &Frame| frame.name.contains("AddWatch") || frame.name.contains("SetWatches");
        let burst: Vec<Frame> = burst.into_iter().filter(|frame| with_staying || !sets(frame)).collect();
        stays |= burst.iter().any(sets);
        tally.frames += burst.len() as u64;
        let barriers = [maker.barrier(), maker.barrier()];
        let mut seen: [Vec<Seen>; 2] = Default::default();
        for server in 0..2 {
            let connection = &mut sessions[who][server];
            seen[server].extend(connection.say(&burst, ids[server]));
            if !connection.is_closed() {
                seen[server].extend(connection.say(&barriers[..1], ids[server]));
            }
            let other = &mut sessions[1 - who][server];
            seen[server].extend(other.say(&barriers[1..], ids[server]));
        }
        past.push(format!("  session {who}: {burst:?}"));
        let [theirs, ours] = &seen;
        if theirs != ours {
            let place =
                theirs.iter().zip(ours).position(|(a, b)| a != b).unwrap_or(theirs.len().min(ours.len()));
            let (a, b) = (theirs.get(place), ours.get(place));
            match known::reason(&burst, stays, a, b) {
                Some(reason) => *tally.known.entry(reason).or_default() += 1,
                None => {
                    let what = format!("{:?}: {} / {}", kinds(&burst, a, b), short(a), short(b));
                    let from = past.len().saturating_sub(12);
                    let example = format!("{}\n    theirs {a:?}\n    ours   {b:?}", past[from..].join("\n"));
                    let entry = tally.unknown.entry(what).or_insert((0, example));
                    entry.0 += 1;
                }
            }
            // From here on the two trees may differ.
            return;
        }
        if sessions[who].iter().any(Connection::is_closed) {
            return;
        }
    }
}

/// The kind of the request that is answered otherwise.
fn kinds(burst: &[Frame], a: Option<&Seen>, b: Option<&Seen>) -> String {
    let xid = [a, b].into_iter().flatten().find_map(|seen| match seen {
        Seen::Reply { xid, .. } => Some(*xid),
        _ => None,
    });
    let asked = burst.iter().find(|frame| Some(frame.xid) == xid).or(burst.first());
    asked.map_or_else(String::new, |frame| frame.name.clone())
}

fn short(seen: Option<&Seen>) -> String {
    match seen {
        Some(Seen::Reply { err, .. }) => format!("reply {err}"),
        Some(Seen::Event { kind, .. }) => format!("event {kind}"),
        Some(other) => format!("{other:?}"),
        None => "nothing".to_owned(),
    }
}

/// Of a round.
const STEPS: usize = 60;

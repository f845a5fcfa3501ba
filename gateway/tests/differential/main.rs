//! The same frames to a real ZooKeeper (Debian's package `zookeeper`) and to the gateway: replies, events and ends of connections are
//! compared, after zxids, times and sessions are made alike. What differs and has a reason is listed in `known.rs`, and in
//! docs/zookeeper-compatibility.md; anything else fails the test.
//!
//! Environment:
//!
//! - `DIFFERENTIAL_FRAMES`: how many frames (2,000), `DIFFERENTIAL_SEED`: which; `DIFFERENTIAL_ROUND`: one round of them.
//! - `DIFFERENTIAL_JOBS`: rounds at the same time (4).
//! - `DIFFERENTIAL_SHOW`: prints all differences, and none fails the test.
//! - `DIFFERENTIAL_OURS`: addresses of a running ensemble with superuser super:test, instead of a gateway in this process. The two
//!   sessions of a round then have different nodes, also of a ZooKeeper with as many.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod frames;
mod known;
mod servers;
mod watched;
mod wire;

#[path = "../../../tests/skipped.rs"]
mod skipped;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use api::chance::Chance;
use frames::{Frame, Maker};
use known::Context;
use servers::{Ours, ZooKeeper};
use skipped::skipped;
use watched::Watched;
use wire::{Connection, Hello, Seen};
use zk_jute::Request;

#[test]
fn the_gateway_answers_as_zookeeper_does() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let (frames, seed) = (number("DIFFERENTIAL_FRAMES", 2_000), number("DIFFERENTIAL_SEED", 1));
    let only = number("DIFFERENTIAL_ROUND", 0);
    let show = std::env::var_os("DIFFERENTIAL_SHOW").is_some();
    let running: Vec<SocketAddr> = std::env::var("DIFFERENTIAL_OURS").map_or_else(
        |_| Vec::new(),
        |text| text.split(',').map(|place| place.parse().expect("an address")).collect(),
    );
    let theirs = match ZooKeeper::start(running.len().max(1)) {
        Ok(zookeeper) => zookeeper,
        Err(why) => {
            return skipped(format!(
                "no ZooKeeper ({why}); install Debian's packages zookeeper and default-jre-headless"
            ));
        }
    };
    let ours = running.is_empty().then(Ours::start);
    let places = [theirs.places().to_vec(), ours.as_ref().map_or(running, |ours| vec![ours.place()])];
    // An ensemble that runs has the znodes of earlier tests.
    let run = match &ours {
        Some(_) => 0,
        None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    };
    let (tally, next, started) = (Mutex::new(Tally::default()), AtomicU64::new(1), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..if only > 0 { 1 } else { number("DIFFERENTIAL_JOBS", 4) } {
            scope.spawn(|| {
                while tally.lock().unwrap().frames < frames {
                    let round = if only > 0 { only } else { next.fetch_add(1, Relaxed) };
                    let mut round = Round::new(seed, round, &places, run);
                    round.whole = only > 0;
                    let (count, end) = round.play();
                    tally.lock().unwrap().note(count, end);
                    if only > 0 {
                        return;
                    }
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    for (reason, count) in &tally.known {
        println!("{count:>7} known: {reason}");
    }
    println!(
        "{} frames in {} rounds of seed {seed}, {} s, {} unknown differences",
        tally.frames,
        tally.rounds,
        started.elapsed().as_secs(),
        tally.unknown.len()
    );
    for (what, (count, example)) in &tally.unknown {
        println!("{count:>7} UNKNOWN {what}\n{example}");
    }
    if let Some(ours) = ours {
        ours.stop();
    }
    assert!(show || tally.unknown.is_empty(), "the gateway answers otherwise than ZooKeeper; see above");
}

#[derive(Default)]
struct Tally {
    frames: u64,
    rounds: u64,
    known: BTreeMap<&'static str, u64>,
    unknown: BTreeMap<String, (u64, String)>,
}

impl Tally {
    fn note(&mut self, frames: u64, end: Result<(), Difference>) {
        self.frames += frames;
        self.rounds += 1;
        match end {
            Ok(()) => {}
            Err(Difference::Known(reason)) => *self.known.entry(reason).or_default() += 1,
            Err(Difference::Unknown { what, example }) => {
                self.unknown.entry(what).or_insert((0, example)).0 += 1;
            }
        }
    }
}

/// From here on the two trees may differ.
enum Difference {
    Known(&'static str),
    Unknown { what: String, example: String },
}

/// Two sessions on each server, and the same frames for both, until one answers otherwise.
struct Round<'a> {
    number: u64,
    chance: Chance,
    /// Of ZooKeeper, and of the gateway.
    places: &'a [Vec<SocketAddr>; 2],
    sessions: [Session; 2],
    /// The znode below which all happens.
    base: String,
    /// Each session has a part of the tree of its own, and may then ask at the same time as the other.
    apart: bool,
    /// One of them may have a watch that stays, or that was set again.
    stays: bool,
    past: Vec<String>,
    /// Prints all of it.
    whole: bool,
    frames: u64,
}

struct Session {
    /// To ZooKeeper, and to the gateway.
    connections: [Connection; 2],
    maker: Maker,
    own: String,
    watched: Watched,
    /// The node that it has.
    at: usize,
}

impl<'a> Round<'a> {
    fn new(seed: u64, number: u64, places: &'a [Vec<SocketAddr>; 2], run: u64) -> Round<'a> {
        let mut chance = Chance::stream(seed, number);
        let base = format!("/round-{run}-{number}");
        let apart = chance.below(3) == 0;
        // Most rounds have no watches that stay or are set again: there ZooKeeper 3.8 differs from later ones.
        let staying = chance.below(4) == 0;
        // Of the parents, each session has one: the numbers of sequential znodes there are its own.
        let sessions = [("/p/own", 0), ("/q/own", 1)].map(|(part, which)| {
            let own = if apart { format!("{base}{part}") } else { base.clone() };
            let at = which % places[0].len();
            let connections = [0, 1].map(|server| Connection::open(places[server][at]));
            Session { connections, maker: Maker::new(&own, staying), own, watched: Watched::default(), at }
        });
        let past = Vec::new();
        let (stays, whole, frames) = (false, false, 0);
        Round { number, chance, places, sessions, base, apart, stays, past, whole, frames }
    }

    fn play(mut self) -> (u64, Result<(), Difference>) {
        let end = self.steps();
        (self.frames, end)
    }

    fn steps(&mut self) -> Result<(), Difference> {
        let base = self.base.clone();
        let mut first = vec![self.sessions[0].maker.open(&base)];
        if self.apart {
            let own = [0, 1].map(|which| self.sessions[which].own.clone());
            let above = [format!("{base}/p"), format!("{base}/q")];
            first.extend(above.iter().chain(&own).map(|path| self.sessions[0].maker.open(path)));
        }
        let opened = self.step([Some(first), None], Compare::All)?;
        assert!(opened.iter().all(|seen| matches!(seen, Seen::Reply { err: 0, .. })), "{base}: {opened:?}");
        for _ in 0..STEPS {
            let who = self.chance.index(2);
            match self.chance.below(60) {
                0 => self.come_back(who)?,
                1..=20 if self.apart => {
                    let bursts = [0, 1].map(|who| Some(self.burst(who, 10, false)));
                    self.step(bursts, Compare::Apart)?;
                }
                _ => {
                    // Or what the other one has.
                    if self.apart && self.chance.below(4) == 0 {
                        self.sessions[who].maker.base = self.sessions[1 - who].own.clone();
                    }
                    let count = if self.chance.below(3) == 0 { 8 } else { 1 };
                    let burst = self.burst(who, count, true);
                    self.sessions[who].maker.base = self.sessions[who].own.clone();
                    let mut bursts = [None, None];
                    bursts[who] = Some(burst);
                    self.step(bursts, Compare::All)?;
                }
            }
            for who in 0..2 {
                if self.sessions[who].connections.iter().any(Connection::is_closed) {
                    self.take_up(who, Hello::Usual)?;
                }
            }
        }
        Ok(())
    }

    fn burst(&mut self, who: usize, most: usize, ends: bool) -> Vec<Frame> {
        let count = 1 + self.chance.index(most);
        self.sessions[who].maker.burst(&mut self.chance, count, ends)
    }

    /// Sends these, takes the answers and then the events that are on their way, and compares. Returns what came for the first
    /// session that asks, without its barrier.
    fn step(&mut self, bursts: [Option<Vec<Frame>>; 2], compare: Compare) -> Result<Vec<Seen>, Difference> {
        let ids = self.ids();
        let several = self.places[1].len() > 1;
        let barriers = [0, 1].map(|who| vec![self.sessions[who].maker.barrier(several)]);
        let mut seen: [[Vec<Seen>; 2]; 2] = Default::default();
        let mut answers = Vec::new();
        for server in 0..2 {
            for (who, burst) in bursts.iter().enumerate() {
                if let Some(burst) = burst {
                    self.sessions[who].connections[server].send(burst);
                }
            }
            for (who, burst) in bursts.iter().enumerate() {
                if let Some(burst) = burst {
                    let came = self.sessions[who].connections[server].receive(burst, ids[server]);
                    if server == 0 && answers.is_empty() {
                        answers.clone_from(&came);
                    }
                    seen[who][server].extend(came);
                }
            }
            for (who, barrier) in barriers.iter().enumerate() {
                let connection = &mut self.sessions[who].connections[server];
                if !connection.is_closed() {
                    connection.send(barrier);
                    seen[who][server].extend(connection.receive(barrier, ids[server]));
                }
            }
        }
        let sent: Vec<Frame> = bursts.iter().flatten().flatten().cloned().collect();
        self.frames += sent.len() as u64;
        self.stays |= sent.iter().any(|frame| match &frame.request {
            // What a client sets again on a new connection.
            Some(Request::SetWatches { .. }) => frame.zxid_at.is_none(),
            _ => frame.name.contains("AddWatch") || frame.name.contains("SetWatches"),
        });
        for (who, burst) in bursts.iter().enumerate() {
            if let Some(burst) = burst {
                self.past.push(format!("  session {who}: {burst:?}"));
            }
        }
        for who in 0..2 {
            let burst = bursts[who].as_deref().unwrap_or_default();
            let [mut theirs, mut ours] = std::mem::take(&mut seen[who]);
            if compare == Compare::Apart {
                let other = &self.sessions[1 - who].own;
                own_first(&mut theirs, other);
                own_first(&mut ours, other);
            }
            if compare == Compare::Again && who == self.asks(&bursts) {
                self.missed(&mut theirs, &mut ours)?;
            }
            self.compare(who, burst, &sent, &theirs, &ours)?;
            self.sessions[who].watched.follow(burst, &theirs);
        }
        Ok(answers)
    }

    fn asks(&self, bursts: &[Option<Vec<Frame>>; 2]) -> usize {
        usize::from(bursts[0].is_none())
    }

    fn ids(&self) -> [[i64; 2]; 2] {
        [0, 1].map(|server| [0, 1].map(|who: usize| self.sessions[who].connections[server].session))
    }

    /// Of all events before the reply to a setWatches, only their paths are compared: the kind is that of the first change that was
    /// missed, and ZooKeeper's that of a comparison. Takes them out.
    fn missed(&self, theirs: &mut Vec<Seen>, ours: &mut Vec<Seen>) -> Result<(), Difference> {
        let take = |all: &mut Vec<Seen>| {
            let mut paths = BTreeSet::new();
            all.retain(|seen| match seen {
                Seen::Event { path, .. } => {
                    paths.insert(path.clone());
                    false
                }
                _ => true,
            });
            paths
        };
        let (their_paths, our_paths) = (take(theirs), take(ours));
        match their_paths == our_paths {
            true => Ok(()),
            false if their_paths.is_subset(&our_paths) => Err(Difference::Known(known::CHANGED_BACK)),
            false => Err(self.unknown("missed events".to_owned(), &their_paths, &our_paths)),
        }
    }

    fn compare(
        &self,
        who: usize,
        burst: &[Frame],
        sent: &[Frame],
        theirs: &[Seen],
        ours: &[Seen],
    ) -> Result<(), Difference> {
        if theirs == ours {
            return Ok(());
        }
        let place = theirs.iter().zip(ours).position(|(a, b)| a != b).unwrap_or(theirs.len().min(ours.len()));
        let (a, b) = (theirs.get(place), ours.get(place));
        let others = &self.sessions[1 - who].watched;
        let context = Context { burst, sent, others, stays: self.stays };
        match known::reason(&context, a, b) {
            Some(reason) => Err(Difference::Known(reason)),
            None => {
                let what = format!("{}: {} / {}", kind(burst, a, b), short(a), short(b));
                Err(self.unknown(what, &(who, a), &b))
            }
        }
    }

    fn unknown(&self, what: String, theirs: &dyn std::fmt::Debug, ours: &dyn std::fmt::Debug) -> Difference {
        let from = if self.whole { 0 } else { self.past.len().saturating_sub(14) };
        let past = self.past[from..].join("\n");
        let example = format!("round {}\n{past}\n    theirs {theirs:?}\n    ours   {ours:?}", self.number);
        Difference::Unknown { what, example }
    }

    /// The connection breaks, the other session goes on, and then the client takes its session up and sets its watches again.
    fn come_back(&mut self, who: usize) -> Result<(), Difference> {
        let kinds = [
            Hello::WrongPassword,
            Hello::ShortPassword,
            Hello::NoPassword,
            Hello::UnknownSession,
            Hello::WithoutReadOnly,
            Hello::ReadOnly,
            Hello::Odd,
            Hello::Ahead,
            Hello::Short,
        ];
        let hello = if self.chance.below(3) == 0 { kinds[self.chance.index(9)] } else { Hello::Usual };
        self.take_up(who, hello)
    }

    fn take_up(&mut self, who: usize, hello: Hello) -> Result<(), Difference> {
        let nodes = self.places[0].len();
        let to = self.chance.index(nodes);
        let from = std::mem::replace(&mut self.sessions[who].at, to);
        let again = self.sessions[who].watched.take();
        let is_open = self.sessions[who].connections.iter().all(|connection| !connection.is_closed());
        // While the older connection is open.
        let moved = is_open && hello == Hello::Usual && self.chance.below(2) == 0;
        if !moved {
            self.sessions[who].connections.iter_mut().for_each(Connection::hang_up);
            // The other one changes what this one watches.
            let other = 1 - who;
            if self.sessions[other].connections.iter().all(|connection| !connection.is_closed()) {
                self.sessions[other].maker.base = self.sessions[who].own.clone();
                for _ in 0..self.chance.below(3) {
                    let mut bursts = [None, None];
                    bursts[other] = Some(self.burst(other, 4, false));
                    self.step(bursts, Compare::All)?;
                }
                self.sessions[other].maker.base = self.sessions[other].own.clone();
            }
        }
        self.past.push(format!("  session {who} comes back: {hello:?} from node {from} to {to}"));
        let late = vec![self.sessions[who].maker.open(&format!("{}/late", self.base))];
        for hello in if hello == Hello::Usual { vec![hello] } else { vec![hello, Hello::Usual] } {
            let ids = self.ids();
            let [theirs, ours] = [0, 1].map(|server| {
                let (place, older) = (self.places[server][to], &self.sessions[who].connections[server]);
                let (mut next, mut seen) = older.resume(place, hello);
                // A node that is behind closes the connection, and a client tries again.
                let end = Instant::now() + Duration::from_secs(10);
                while nodes > 1 && hello == Hello::Usual && seen == Seen::Closed && Instant::now() < end {
                    (next, seen) = older.resume(place, hello);
                }
                let mut older = std::mem::replace(&mut self.sessions[who].connections[server], next);
                let mut ended = Vec::new();
                if moved {
                    // ZooKeeper closes it when it is used, if the session has gone to another node.
                    if from != to {
                        older.send(&late);
                    }
                    ended = older.receive(&late, ids[server]);
                }
                (seen, ended)
            });
            if theirs != ours {
                return Err(self.unknown(format!("handshake {hello:?}"), &theirs, &ours));
            }
            if hello == Hello::Usual && matches!(theirs.0, Seen::Expired { .. }) {
                let fresh = [0, 1].map(|server| Connection::open(self.places[server][to]));
                self.sessions[who].connections = fresh;
                return Ok(());
            }
        }
        // Some clients forget them.
        if let Some(again) = again.filter(|_| self.chance.below(4) > 0) {
            let mut bursts = [None, None];
            bursts[who] = Some(vec![self.sessions[who].maker.again(again)]);
            self.step(bursts, Compare::Again)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Compare {
    All,
    /// Of two bursts at once, where events of the other session's part of the tree come at any time.
    Apart,
    /// Of a setWatches on a new connection.
    Again,
}

/// Moves the events of the other part of the tree behind all else.
fn own_first(all: &mut Vec<Seen>, other: &str) {
    let foreign = |seen: &Seen| matches!(seen, Seen::Event { path, .. } if path.starts_with(other));
    let (behind, mut first): (Vec<Seen>, Vec<Seen>) = std::mem::take(all).into_iter().partition(foreign);
    first.extend(behind);
    *all = first;
}

/// The kind of the request that is answered otherwise.
fn kind(burst: &[Frame], a: Option<&Seen>, b: Option<&Seen>) -> String {
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

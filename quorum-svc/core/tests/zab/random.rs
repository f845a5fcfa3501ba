//! Ensembles under random events: messages wait, links break, servers crash and lose what is not
//! durable, disks hang, elections fail. Every step checks the invariants (in `world`, by the crate
//! `invariants`). At the end the faults stop. Then all servers must come to rest with one log, and
//! every request must have an answer.
//!
//! `ZAB_SEEDS=50000 cargo test --release -p quorum-core --test zab random` runs more seeds,
//! `ZAB_SEED=77` runs one.

use std::collections::BTreeSet;
use std::time::Duration;

use api::chance::Chance;
use api::{PeerId, Roster};
use invariants::Answer;
use quorum_core::COMMIT_DELAY;

use crate::world::{PING, World};

const STEPS: usize = 1000;

#[test]
fn random_schedules_keep_every_invariant() {
    let number = |name: &str| std::env::var(name).ok().map(|s| s.parse::<u64>().expect("a number"));
    let seeds = match number("ZAB_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ZAB_SEEDS").unwrap_or(300),
    };
    let mut seen = Seen::default();
    for seed in seeds.clone() {
        let result = std::panic::catch_unwind(|| run(seed));
        match result {
            Ok(one) => seen.add(&one),
            Err(panic) => {
                eprintln!("the seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // A run without events proves nothing.
    if seeds.end - seeds.start >= 300 {
        assert!(seen.commits > 1000 && seen.reigns > 300, "{seen:?}");
        assert!(seen.changes > 100 && seen.unfinished > 10, "{seen:?}");
        assert!(seen.truncs > 10 && seen.snaps > 10 && seen.barriers > 100 && seen.refused > 10, "{seen:?}");
    }
}

#[derive(Default, Debug)]
struct Seen {
    commits: usize,
    reigns: usize,
    truncs: usize,
    snaps: usize,
    barriers: usize,
    refused: usize,
    /// Changes of the members, and how many of them did not end under the leader that began them.
    changes: usize,
    unfinished: usize,
}

impl Seen {
    fn of(w: &World) -> Seen {
        let sent = |word: &str| w.trace.iter().filter(|(_, _, text)| text.starts_with(word)).count();
        let rosters = || w.ghost.entries().iter().filter_map(|e| e.body.roster());
        let left = |a: &Roster, b: &Roster| a.is_joint() && a.since().epoch() != b.since().epoch();
        Seen {
            commits: w.committed().len(),
            reigns: w.ghost.reigns(),
            truncs: sent("TRUNC"),
            snaps: sent("SNAP"),
            barriers: sent("BARRIER 0x"),
            changes: rosters().filter(|roster| roster.is_joint()).count(),
            unfinished: rosters().zip(rosters().skip(1)).filter(|(a, b)| left(a, b)).count(),
            refused: w.ghost.answers().filter(|&answer| answer == Answer::Refused).count(),
        }
    }

    fn add(&mut self, other: &Seen) {
        self.commits += other.commits;
        self.reigns += other.reigns;
        self.truncs += other.truncs;
        self.snaps += other.snaps;
        self.barriers += other.barriers;
        self.refused += other.refused;
        self.changes += other.changes;
        self.unfinished += other.unfinished;
    }
}

fn run(seed: u64) -> Seen {
    let mut dice = Chance::new(seed);
    let voters = 1 + u32::try_from(dice.index(5)).unwrap();
    let observers = u32::try_from(dice.index(3)).unwrap();
    let requests_max = [4, 100][dice.index(2)];
    let mut w = World::with_limit(voters, observers, requests_max);
    // In some runs the delay is longer than the ping interval.
    w.delay_commits([Duration::ZERO, COMMIT_DELAY, 2 * PING][seed as usize % 3]);
    w.batch = 1 + dice.index(4);
    let skewed = dice.percent(50);
    // Few faults in some runs, many in others.
    let faults = [1, 4, 9][dice.index(3)];
    for id in w.ids() {
        if skewed {
            w.nodes.get_mut(&id).unwrap().wall_ms += i64::try_from(dice.index(100_000)).unwrap();
        }
    }
    // In some runs members change, and servers join.
    let changes = dice.percent(50);
    if changes {
        let last = voters + observers;
        w.add(last + 1..=last + u32::try_from(dice.index(3)).unwrap());
    }
    for _ in 0..STEPS {
        step(&mut w, &mut dice, faults);
        if changes && dice.percent(4) {
            reconfigure(&mut w, &mut dice);
        }
    }
    recover(&mut w);
    Seen::of(&w)
}

fn step(w: &mut World, dice: &mut Chance, faults: u64) {
    let ids = w.ids();
    let id = dice.pick(&ids).unwrap();
    let other = dice.pick(&ids).unwrap();
    w.lazy = dice.percent(30);
    if w.nodes[&id].left && w.up(id) {
        w.crash_with(id, usize::MAX, usize::MAX);
    }
    if w.up(id) && dice.percent(30) {
        w.poll(id);
    }
    match dice.index(100) {
        0..4 if w.up(id) => {
            let payloads: Vec<String> = (0..=dice.index(3)).map(|i| format!("{id}-{i}")).collect();
            let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
            w.submit_all(id, &payloads);
        }
        4..6 if w.up(id) => {
            w.barrier(id);
        }
        6..20 => election(w, dice),
        20..28 => {
            w.nodes.get_mut(&id).unwrap().wall_ms += i64::try_from(dice.index(50)).unwrap() - 10;
            let at = match dice.percent(70) {
                true => w.next_timeout().unwrap_or(w.now),
                false => w.now + Duration::from_millis(dice.below(700)),
            };
            w.pass_to(at);
        }
        28..30 if w.up(id) => w.save_snapshot(id),
        30..35 if !w.up(id) => {
            let trust_log = dice.percent(50);
            w.restart_with(id, trust_log);
        }
        35..40 => {
            let node = w.nodes.get_mut(&id).unwrap();
            node.disk.held = dice.percent(4 * faults);
        }
        40..45 if dice.percent(20) => w.unblock(id, other),
        40..45 => w.release(id, other),
        45..55 if dice.percent(faults * 6) => match dice.index(10) {
            0 | 1 if w.up(id) => {
                let (ops, entries) = (dice.index(4), dice.index(3));
                w.crash_with(id, ops, entries);
            }
            8 if w.up(id) => w.leave(id),
            // The disk loses the end of its log, and the server notices.
            9 if !w.up(id) && w.can_spare(id) => {
                let keep = dice.pick(&w.log(id)).unwrap_or_default();
                w.damage(id, keep);
            }
            2 if id != other => w.block(id, other),
            3 => w.hold(id, other),
            // Its messages reach no other server. If it leads, its log gets a tail of its own.
            4 if w.up(id) => {
                ids.iter().for_each(|&other| w.hold(id, other));
                w.submit(id, "unheard");
            }
            _ => {
                let links: Vec<_> = w.links.keys().copied().collect();
                if let Some(conn) = dice.pick(&links) {
                    w.break_link(conn);
                }
            }
        },
        _ => {
            for _ in 0..=dice.index(20) {
                if let Some(step) = dice.pick(&w.steps()) {
                    w.take(step);
                }
            }
        }
    }
}

/// Any server is asked for any members but former ones: mostly for one more or one less.
fn reconfigure(w: &mut World, dice: &mut Chance) {
    let up: Vec<u32> = w.ids().into_iter().filter(|&id| w.up(id)).collect();
    let Some(id) = dice.pick(&up) else { return };
    let newest = w.roster(id).newest().clone();
    let mut voters: BTreeSet<u32> = newest.ensemble.voters().map(|id| id.0).collect();
    let mut observers: BTreeSet<u32> = newest.ensemble.members().map(|(id, _)| id.0).collect();
    observers.retain(|id| !voters.contains(id));
    let able: Vec<u32> = w.ids().into_iter().filter(|&id| !newest.removed.contains(&PeerId(id))).collect();
    let Some(one) = dice.pick(&able) else { return };
    match dice.index(8) {
        0..3 if !voters.contains(&one) => drop(observers.insert(one)),
        3..5 if observers.remove(&one) => drop(voters.insert(one)),
        5 if voters.remove(&one) => drop(observers.insert(one)),
        6 if dice.percent(20) => {
            voters.remove(&one);
            observers.remove(&one);
        }
        _ => {
            observers.retain(|_| false);
            voters = able.iter().copied().filter(|_| dice.percent(80)).collect();
        }
    }
    if !voters.is_empty() {
        let (voters, observers): (Vec<u32>, Vec<u32>) =
            (voters.into_iter().collect(), observers.into_iter().collect());
        w.reconfigure_from(id, newest.version, &voters, &observers, dice.percent(5));
    }
}

/// The best candidate of some quorum wins, and some servers learn of it. Sometimes another server wins.
fn election(w: &mut World, dice: &mut Chance) {
    let looking: Vec<u32> =
        w.ids().into_iter().filter(|&id| w.up(id) && w.nodes[&id].candidate.is_some()).collect();
    let mut quorum = BTreeSet::new();
    for _ in 0..10 {
        quorum.extend(dice.pick(&looking).map(PeerId));
    }
    let best = w.best(&quorum);
    let (leader, who) = if dice.percent(15) {
        (dice.pick(&w.ids()), looking)
    } else if best.is_some() {
        (best, quorum.iter().map(|p| p.0).collect())
    } else {
        // Servers that begin their election later find a leader.
        let leading = w
            .ids()
            .into_iter()
            .filter(|&id| w.serving(id))
            .find(|&id| matches!(w.role(id), api::ports::Role::Leading));
        (leading, looking)
    };
    let able =
        |&l: &u32| w.up(l) && (w.roster(l).can_lead(PeerId(l)) || w.nodes[&l].candidate.flatten().is_some());
    if let Some(leader) = leader.filter(able) {
        // The servers learn of it in any order.
        let (first, second): (Vec<u32>, Vec<u32>) = who.into_iter().partition(|_| dice.percent(60));
        w.elect(leader, &first);
        if dice.percent(80) {
            w.elect(leader, &second);
        }
    }
}

/// The faults stop.
fn recover(w: &mut World) {
    w.lazy = false;
    w.blocked.clear();
    w.held.clear();
    for id in w.ids() {
        w.nodes.get_mut(&id).unwrap().disk.held = false;
        if w.up(id) && w.nodes[&id].leaving {
            w.crash(id);
        }
        if !w.up(id) {
            w.restart(id);
        }
    }
    come_to_rest(w);
    // The ensemble works.
    let tickets: Vec<_> =
        members(w).into_iter().map(|id| (id, w.submit(id, "last"), w.barrier(id))).collect();
    come_to_rest(w);
    for (id, write, barrier) in tickets {
        assert_eq!(w.answer(id, write), Some(Answer::Applied), "the write of server {id}");
        assert!(w.barrier_told(id, barrier), "the barrier of server {id}");
    }
    let first = w.ghost.entries().len();
    assert!(first > 0);
}

/// The servers that are members in the end. Former ones have nothing to wait for.
fn members(w: &World) -> Vec<u32> {
    let roster = w.members.last(|zxid| w.ghost.has(zxid));
    let is_member = |&id: &u32| match roster {
        Some(roster) => roster.membership(PeerId(id)).is_some(),
        None => w.config.ensemble.membership(PeerId(id)).is_some(),
    };
    w.ids().into_iter().filter(is_member).collect()
}

fn come_to_rest(w: &mut World) {
    // Well above the longest sequence: a leader waits for the whole init limit, then a second
    // election follows.
    for _ in 0..200 {
        w.settle();
        w.fair_election();
        w.settle();
        w.run(Duration::from_millis(25));
        let last = w.ghost.last();
        let members = members(w);
        let finished = w.members.last(|zxid| w.ghost.has(zxid)).is_none_or(|roster| !roster.is_joint());
        let one_log = members.iter().all(|&id| {
            let s = w.status(id);
            w.serving(id) && (s.last, s.committed, w.nodes[&id].applied) == (last, last, last)
        });
        let of_members = |origin: &api::Origin| members.contains(&origin.peer.0);
        let answered = !w.ghost.unanswered().iter().any(of_members);
        let open = members.len() == w.ids().len() && w.ghost.open_barriers() > 0;
        if one_log && finished && answered && !open {
            return;
        }
    }
    let states: Vec<_> = w.ids().into_iter().map(|id| (id, w.status(id), w.roster(id).to_string())).collect();
    panic!(
        "no rest after 5 s: {states:?}\nC ends with {}, unanswered {:?}, barriers {:?}",
        w.ghost.last(),
        w.ghost.unanswered(),
        w.ghost.open_barriers()
    );
}

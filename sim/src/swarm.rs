//! What a seed means. Every seed switches another set of faults on (swarm testing: Groce et al., ISSTA 2012), because
//! faults of one kind hide those of another.

use api::chance::Chance;

use crate::faults::{DISK_OPS, READ_LOG};
use crate::plan::{Fault, MemberPlan, Network, Plan, Sizes, TimedFault, Timing, Workload};

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
/// Kinds of faults that [`fault`] makes.
const KINDS: usize = 29;
const DISK_ERROR: usize = 12;
const WIPE: usize = 15;
const FLIP: usize = 20;
const OLDER_COPY: usize = 22;

/// The plan of this seed.
#[must_use]
pub fn draw(seed: u64) -> Plan {
    let mut rng = Chance::stream(seed, 1);
    let timing = timing(&mut rng);
    let members = members(&mut rng, timing);
    let clients = rng.between(1, 6) as u32;
    let active_us = rng.between(8, 40) * SECOND;
    let network = network(&mut rng, timing);
    let mut plan = Plan {
        seed,
        clients,
        active_us,
        timing,
        sizes: sizes(&mut rng),
        network,
        fsync_us: if rng.per_mille(800) {
            (50, rng.scale(100, 5 * MS))
        } else {
            (MS, rng.scale(2 * MS, 60 * MS))
        },
        workload: workload(&mut rng),
        faults: Vec::new(),
        reckless: false,
        members,
    };
    if rng.per_mille(30) {
        large(&mut rng, &mut plan);
    }
    // One in ten without any, so that what is wrong without faults is seen as that.
    if !rng.per_mille(100) {
        plan.faults = faults(&mut rng, &plan);
    }
    // From a sequence of its own, so that what a seed meant before it means still.
    upgrades(&mut Chance::stream(seed, 7), &mut plan);
    state_flips(&mut Chance::stream(seed, 8), &mut plan);
    newer_verbs(&mut Chance::stream(seed, 9), &mut plan);
    plan
}

/// The same, and a third of the seeds change the members.
#[must_use]
pub fn draw_with_changes(seed: u64) -> Plan {
    let mut plan = draw(seed);
    changes_of_members(&mut Chance::stream(seed, 10), &mut plan);
    plan
}

/// In some runs an operator adds, promotes, removes and replaces members, among nodes that are no members at first, too.
fn changes_of_members(rng: &mut Chance, plan: &mut Plan) {
    if plan.faults.is_empty() || !rng.per_mille(350) {
        return;
    }
    for _ in 0..rng.between(0, 3) {
        let joiner = MemberPlan { voter: Some((1, 0)), drift_ppm: 0, wall_ms: 0, joins: true };
        plan.members.push(joiner);
    }
    let nodes = plan.members.len() as u64;
    for _ in 0..rng.between(3, 24) {
        let node = if rng.per_mille(500) { 0 } else { rng.between(1, nodes) as u32 };
        let at = rng.below(plan.active_us);
        plan.faults.push(TimedFault { at, fault: Fault::Reconfigure { node, list: rng.draw() } });
    }
    plan.faults.sort_by_key(|fault| fault.at);
}

/// In some runs nodes are upgraded, and an operator asks for the newer level before and after the last of them is.
fn upgrades(rng: &mut Chance, plan: &mut Plan) {
    if plan.faults.is_empty() || !rng.per_mille(400) {
        return;
    }
    let nodes = plan.members.len() as u64;
    let whole = rng.per_mille(700);
    let at = |rng: &mut Chance, share: u64| rng.below(plan.active_us * share / 100);
    let mut more = Vec::new();
    for node in 1..=nodes as u32 {
        if whole || rng.per_mille(600) {
            let fault = Fault::Upgrade { node, down: rng.scale(MS, SECOND) };
            more.push(TimedFault { at: at(rng, 70), fault });
        }
    }
    for _ in 0..rng.between(2, 12) {
        let node = rng.between(0, nodes) as u32;
        more.push(TimedFault { at: at(rng, 100), fault: Fault::Raise { node } });
    }
    plan.faults.extend(more);
    plan.faults.sort_by_key(|fault| fault.at);
}

/// In some runs clients use the newer verbs. Not in all: the search without zxids knows little of znodes that a subtree took along.
fn newer_verbs(rng: &mut Chance, plan: &mut Plan) {
    if rng.per_mille(350) {
        plan.workload.verbs = rng.scale(20, 500);
    }
}

/// In some runs bits flip in the states of stores, early enough to be found.
fn state_flips(rng: &mut Chance, plan: &mut Plan) {
    if plan.faults.is_empty() || !rng.per_mille(250) {
        return;
    }
    for _ in 0..rng.between(1, 4) {
        let node = rng.between(1, plan.members.len() as u64) as u32;
        let at = rng.below(plan.active_us * 8 / 10);
        plan.faults.push(TimedFault { at, fault: Fault::StateFlip { node } });
    }
    plan.faults.sort_by_key(|fault| fault.at);
}

fn timing(rng: &mut Chance) -> Timing {
    let sync_limit = rng.between(400, 2_000);
    let ping = sync_limit / rng.between(4, 6);
    Timing {
        finalize_wait: rng.between(50, 300),
        init_limit: sync_limit + rng.between(500, 4_000),
        sync_limit,
        ping,
        park: rng.between(1_000, 6_000),
        session: rng.between(1_000, 6_000),
    }
}

fn members(rng: &mut Chance, timing: Timing) -> Vec<MemberPlan> {
    let count = [1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7][rng.index(14)];
    let drifting = rng.per_mille(400);
    // A clock that is too fast must still be slower than a third of the limits allows.
    let drift = if timing.ping * 4 <= timing.sync_limit { 100_000 } else { 50_000 };
    let observers = count > 1 && rng.per_mille(300);
    let (weights, groups) = (rng.per_mille(100), count >= 5 && rng.per_mille(120));
    let mut members: Vec<MemberPlan> = (0..count)
        .map(|i| MemberPlan {
            voter: Some((
                if weights { rng.between(0, 3) as u32 } else { 1 },
                if groups { (i % 3) as u32 } else { 0 },
            )),
            drift_ppm: if drifting { rng.between(0, 2 * drift) as i64 - drift as i64 } else { 0 },
            wall_ms: if rng.per_mille(200) { rng.between(0, 7_200_000) as i64 - 3_600_000 } else { 0 },
            joins: false,
        })
        .collect();
    if observers {
        for member in members.iter_mut().skip(1) {
            if rng.per_mille(300) {
                member.voter = None;
            }
        }
    }
    if members.iter().all(|m| m.voter.is_none_or(|(weight, _)| weight == 0)) {
        members[0].voter = Some((1, 0));
    }
    members
}

fn network(rng: &mut Chance, timing: Timing) -> Network {
    let max = rng.scale(200, 20 * MS);
    Network {
        min: max / rng.between(1, 10),
        max,
        spikes: if rng.per_mille(300) { rng.between(1, 30) } else { 0 },
        spike: timing.sync_limit * MS / rng.between(1, 8),
        turn: rng.scale(1, 500),
        bandwidth: 0,
    }
}

fn sizes(rng: &mut Chance) -> Sizes {
    let tiny = rng.per_mille(600);
    Sizes {
        segment: if tiny { rng.between(600, 3_000) } else { 64 << 10 },
        recent: if rng.per_mille(500) { rng.between(0, 1_000) as usize } else { 1 << 20 },
        batch: if rng.per_mille(500) { rng.between(1, 600) as usize } else { 64 << 10 },
        requests: if rng.per_mille(300) { rng.between(2, 12) as usize } else { 256 },
        request_bytes: if rng.per_mille(200) { rng.between(600, 3_000) as usize } else { 1 << 20 },
        snapshot_entries: if rng.per_mille(800) { rng.between(8, 80) } else { 1_000_000 },
        piece: rng.scale(64, 64 << 10) as usize,
        keep_entries: if rng.per_mille(600) { 0 } else { rng.between(1, 200) },
        snap_slack: if rng.per_mille(300) { rng.between(0, 4_000) } else { 16 << 20 },
        window: if rng.per_mille(300) { rng.between(1, 4) as usize } else { 256 },
        counter_max: if rng.per_mille(60) { rng.scale(20, 2_000) as u32 } else { u32::MAX },
    }
}

fn workload(rng: &mut Chance) -> Workload {
    Workload {
        // Some only ping.
        think: if rng.per_mille(150) {
            rng.between(SECOND, 20 * SECOND)
        } else {
            rng.scale(5 * MS, 400 * MS)
        },
        depth: if rng.per_mille(500) { 1 } else { rng.between(2, 10) as usize },
        znodes: rng.between(1, 12),
        data: rng.scale(1, 400),
        writes: rng.between(200, 900),
        fresh: rng.between(0, 600),
        unary: if rng.per_mille(300) { rng.between(1, 400) } else { 0 },
        closes: if rng.per_mille(400) { rng.between(1, 40) } else { 0 },
        doubles: if rng.per_mille(200) { rng.between(1, 60) } else { 0 },
        deadline: if rng.per_mille(300) { rng.between(100, 5_000) } else { 0 },
        large: 0,
        long: if rng.per_mille(60) { rng.scale(5, 300) } else { 0 },
        mute: if rng.per_mille(100) { rng.between(100, 1_000) } else { 0 },
        verbs: 0,
    }
}

/// Values near the limit. Few of them, because each is a million bytes.
fn large(rng: &mut Chance, plan: &mut Plan) {
    let workload = &mut plan.workload;
    (workload.large, workload.think) = (rng.between(20, 300), workload.think.max(200 * MS));
    // What takes in so much at once cannot be tiny.
    plan.sizes.batch = plan.sizes.batch.max(1_000);
    // Nor what sends so much: a snapshot in ten thousands of pieces takes longer than any limit.
    plan.sizes.piece = plan.sizes.piece.max(16 << 10);
    if rng.per_mille(500) {
        // The largest value takes up to half of the shortest limit. Where it takes longer, clients give up before it is
        // committed and send it again to others, for ever: no ensemble can help them.
        let millis = plan.timing.sync_limit.min(plan.timing.session) * rng.scale(5, 50) / 100;
        plan.network.bandwidth = (1 << 20) * 1_000 / millis.max(1);
    }
}

fn faults(rng: &mut Chance, plan: &Plan) -> Vec<TimedFault> {
    // Many kinds together, or one or two of them again and again.
    let mut on: Vec<usize> = (0..KINDS).filter(|_| rng.per_mille(350)).collect();
    if rng.per_mille(400) || on.is_empty() {
        on = vec![rng.index(KINDS), rng.index(KINDS)];
    }
    let pace = rng.scale(300 * MS, 6 * SECOND);
    let mut faults = Vec::new();
    let mut at = rng.below(pace);
    while at < plan.active_us {
        let kind = on[rng.index(on.len())];
        match kind {
            OLDER_COPY if plan.members.len() >= 3 && rng.per_mille(700) => {
                faults.extend(lag_and_put_back(rng, plan, at))
            }
            WIPE if plan.members.len() >= 3 && rng.per_mille(500) => {
                faults.extend(lag_and_wipe(rng, plan, at))
            }
            DISK_ERROR | FLIP if plan.members.len() >= 3 && rng.per_mille(500) => {
                faults.extend(lag_and_read(rng, plan, at, kind == FLIP))
            }
            _ => faults.push(TimedFault { at, fault: fault(rng, plan, kind) }),
        }
        // Now and then several at once.
        if !rng.per_mille(200) {
            at += rng.between(1, 2 * pace);
        }
    }
    faults
}

fn fault(rng: &mut Chance, plan: &Plan, kind: usize) -> Fault {
    let nodes = plan.members.len() as u64;
    // The leader is the most interesting one.
    let any = |rng: &mut Chance| if rng.per_mille(350) { 0 } else { rng.between(1, nodes) as u32 };
    let node = any(rng);
    let down = rng.scale(MS, 8 * SECOND);
    let limit = plan.timing.init_limit.max(plan.timing.session) * MS;
    let lasts = rng.scale(20 * MS, 2 * limit);
    match kind {
        0 => Fault::Kill { node, down },
        1 => Fault::PowerCut { node, down, table: rng.per_mille(200) },
        2 => Fault::PowerCutAll { down },
        3 => Fault::PowerCutAtStep { node, step: rng.below(40), down },
        4 => Fault::CrashInRecovery { node, step: rng.below(12), down },
        5 => Fault::Pause { node, lasts },
        6 => Fault::Partition { blocked: partition(rng, nodes as u32, plan.clients), lasts },
        // Long enough for the others to have another one, while the first may still believe in itself.
        7 => Fault::IsolateLeader {
            lasts: plan.timing.sync_limit * rng.between(MS, 3 * MS),
            hears: rng.per_mille(400),
        },
        8 => Fault::Break { a: node, b: any(rng) },
        9 => Fault::BlackHole { a: node, b: any(rng) },
        10 => Fault::Slow { a: node, b: any(rng), factor: rng.scale(2, 200), lasts },
        11 => Fault::SlowDisk { node, delay: rng.scale(10 * MS, 10 * SECOND), lasts },
        DISK_ERROR => Fault::DiskError {
            node,
            op: rng.below(DISK_OPS.len() as u64) as u8,
            skip: rng.below(8) as u32,
            down,
        },
        13 => Fault::DiskFull { node, lasts },
        14 => Fault::BitFlip { node, file: rng.draw(), place: rng.draw(), down },
        WIPE => Fault::Wipe { node, down },
        16 => Fault::LoseTable { node, down },
        17 => Fault::WallJump { node, ms: rng.between(0, 7_200_000) as i64 - 3_600_000 },
        18 => Fault::Leave { node, down },
        19 => Fault::ErrorInRecovery {
            node,
            op: rng.below(DISK_OPS.len() as u64) as u8,
            skip: rng.below(12) as u32,
            down,
        },
        OLDER_COPY => Fault::OlderCopy {
            node,
            later: rng.scale(500 * MS, 20 * SECOND),
            down,
            table: rng.per_mille(500),
        },
        23 => Fault::Suspend { client: rng.below(u64::from(plan.clients)) as u32, lasts },
        // Shorter steps are not told from a clock that drifts.
        24 => Fault::ClockJump { node, by: rng.scale(SECOND, 100 * 3_600 * SECOND) },
        25 => Fault::Thin { a: node, b: any(rng), bandwidth: rng.scale(1_000, 10_000_000), lasts },
        21 => Fault::DialAgain { a: node, b: any(rng) },
        FLIP => Fault::BitFlipRunning { node, file: rng.draw(), place: rng.draw() },
        28 => Fault::IsolateAtClose { lasts: plan.timing.sync_limit * rng.between(MS, 6 * MS) },
        26 => Fault::Stranger { node, members: rng.per_mille(500), lasts },
        _ => Fault::OtherMembers { node, list: rng.draw(), lasts },
    }
}

/// One node falls behind; when it is back, of two others one is away and one has lost its disk. What the first lacks is
/// then known to the one that is away alone.
fn lag_and_wipe(rng: &mut Chance, plan: &Plan, at: u64) -> [TimedFault; 3] {
    let nodes = plan.members.len() as u32;
    let first = rng.below(u64::from(nodes)) as u32;
    let [behind, away, wiped] = [0, 1, 2].map(|i| (first + i) % nodes + 1);
    let blocked = cut_off(behind, nodes);
    let lasts = rng.between(SECOND, 4 * SECOND);
    let timed = |at, fault| TimedFault { at, fault };
    [
        timed(at, Fault::Partition { blocked, lasts }),
        timed(
            at + lasts,
            Fault::Kill { node: away, down: rng.between(10 * MS, plan.timing.init_limit * MS) },
        ),
        timed(at + lasts, Fault::Wipe { node: wiped, down: rng.scale(MS, 100 * MS) }),
    ]
}

/// As [`lag_and_wipe`], but that the one has got an older copy of its disk, and all have met a later incarnation of it before.
fn lag_and_put_back(rng: &mut Chance, plan: &Plan, at: u64) -> [TimedFault; 4] {
    let nodes = plan.members.len() as u32;
    let first = rng.below(u64::from(nodes)) as u32;
    let [behind, away, older] = [0, 1, 2].map(|i| (first + i) % nodes + 1);
    let blocked = cut_off(behind, nodes);
    let restarts = at + rng.between(MS, SECOND);
    let falls_behind = restarts + rng.between(500 * MS, 3 * SECOND);
    let lasts = rng.between(SECOND, 4 * SECOND);
    let back = falls_behind + lasts;
    let timed = |at, fault| TimedFault { at, fault };
    let away_for = rng.between(10 * MS, plan.timing.init_limit * MS);
    [
        timed(
            at,
            Fault::OlderCopy {
                node: older,
                later: back - at,
                down: rng.scale(MS, 100 * MS),
                table: rng.per_mille(500),
            },
        ),
        timed(restarts, Fault::Kill { node: older, down: rng.scale(MS, 100 * MS) }),
        timed(falls_behind, Fault::Partition { blocked, lasts }),
        timed(back, Fault::Kill { node: away, down: away_for }),
    ]
}

/// One node falls behind; when it is back, what its leader reads for it fails, or is not what was written.
fn lag_and_read(rng: &mut Chance, plan: &Plan, at: u64, flip: bool) -> [TimedFault; 2] {
    let nodes = plan.members.len() as u32;
    let behind = rng.between(1, u64::from(nodes)) as u32;
    let blocked = cut_off(behind, nodes);
    let lasts = rng.between(SECOND, 6 * SECOND);
    let fault = if flip {
        Fault::BitFlipRunning { node: 0, file: rng.draw(), place: rng.draw() }
    } else {
        Fault::DiskError { node: 0, op: READ_LOG, skip: rng.below(3) as u32, down: 0 }
    };
    // A moment before, so that nothing else reads it.
    let then = at + lasts - rng.below(200 * MS);
    [TimedFault { at, fault: Fault::Partition { blocked, lasts } }, TimedFault { at: then, fault }]
}

/// A node and all others, both ways.
fn cut_off(node: u32, nodes: u32) -> Vec<(u32, u32)> {
    (1..=nodes).filter(|&n| n != node).flat_map(|n| [(node, n), (n, node)]).collect()
}

/// Pairs between which nothing passes, in one of the shapes that have brought systems down.
fn partition(rng: &mut Chance, nodes: u32, clients: u32) -> Vec<(u32, u32)> {
    let all: Vec<u32> = (1..=nodes + clients).collect();
    let side: Vec<bool> = all.iter().map(|_| rng.per_mille(500)).collect();
    let bridge = rng.between(1, u64::from(nodes)) as u32;
    let shape = rng.below(7);
    let lonely = nodes + 1 + rng.below(u64::from(clients.max(1))) as u32;
    let pairs = all.iter().flat_map(|&a| all.iter().map(move |&b| (a, b))).filter(|(a, b)| a != b);
    let of = |a: u32| side[a as usize - 1];
    let mut drawn = Vec::new();
    for (a, b) in pairs {
        let ring = a.abs_diff(b) != 1 && a.abs_diff(b) != nodes - 1;
        let blocked = match shape {
            // Two halves, or what one says is not heard by the other.
            0 => of(a) != of(b),
            1 => of(a) && !of(b),
            // Two halves that share one node.
            2 => of(a) != of(b) && a != bridge && b != bridge,
            // Each hears only its neighbours.
            3 => a <= nodes && b <= nodes && ring,
            // One that can only talk, or only listen.
            4 => a == bridge,
            5 => b == bridge,
            // A client without any node.
            _ => a == lonely || b == lonely,
        };
        if blocked {
            drawn.push((a, b));
        }
    }
    drawn
}

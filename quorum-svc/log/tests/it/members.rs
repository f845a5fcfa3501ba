//! The members are in the log and in its base, through cuts, purges, snapshots, resets and restarts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Body, Configuration, Ensemble, Entry, Level, Roster, Zxid};
use quorum_log::{Base, Log, LogError, LogOptions, MemDisk, Snapshots};

use crate::common::{DIR, entry, open, segments, tiny, z};

fn roster(since: Zxid, voters: u32) -> Arc<Roster> {
    let ensemble = Ensemble::of_voters(1..=voters).unwrap();
    Arc::new(Roster::settled(since, Configuration { version: since, ..Configuration::initial(ensemble) }))
}

fn members(zxid: Zxid, voters: u32) -> Entry {
    Entry { zxid, time_ms: 5, origin: None, body: Body::Members(roster(zxid, voters)), trace: None }
}

/// 1/6 says four members, 1/15 five; in segments of about four entries.
fn changed_twice() -> (MemDisk, Log) {
    let disk = MemDisk::new();
    let mut log = open(&disk, tiny()).unwrap();
    let mut all: Vec<Entry> = (0..24).map(|c| entry(z(1, c), 0, 36)).collect();
    all[6] = members(z(1, 6), 4);
    all[15] = members(z(1, 15), 5);
    log.append(&all).unwrap();
    log.sync().unwrap();
    (disk, log)
}

fn voters_at(log: &Log, zxid: Zxid) -> Option<usize> {
    Some(log.reader().roster_at(zxid)?.voters().count())
}

fn reopen(disk: &MemDisk) -> Log {
    open(disk, LogOptions { may_create: false, ..tiny() }).unwrap()
}

#[test]
fn r12_members_come_back_after_a_restart_a_cut_and_a_purge() {
    let (disk, log) = changed_twice();
    let check = |log: &Log, from: u32| {
        for (counter, voters) in [(5, None), (6, Some(4)), (14, Some(4)), (15, Some(5)), (23, Some(5))] {
            if counter >= from {
                assert_eq!(voters_at(log, z(1, counter)), voters, "{counter}");
            }
        }
    };
    check(&log, 0);
    drop(log);
    let mut log = reopen(&disk);
    check(&log, 0);
    log.purge(z(1, 14)).unwrap();
    let base = log.history().base();
    assert!(base >= z(1, 8), "the entry with the members is gone");
    assert_eq!(voters_at(&log, base), Some(4));
    drop(log);
    let mut log = reopen(&disk);
    assert_eq!(voters_at(&log, base), Some(4));
    check(&log, 15);
    log.truncate(z(1, 14)).unwrap();
    assert_eq!(log.rosters().last(), Some(&roster(z(1, 6), 4)));
    drop(log);
    assert_eq!(reopen(&disk).rosters().last(), Some(&roster(z(1, 6), 4)));
}

#[test]
fn r12_a_crash_at_any_step_of_a_purge_keeps_the_members() {
    for step in 0..40 {
        let (disk, mut log) = changed_twice();
        disk.power_off_after(step);
        let purged = log.purge(z(1, 20));
        drop(log);
        disk.crash(quorum_log::Crash::LoseUnsynced);
        let log = reopen(&disk);
        let base = log.history().base();
        let expected = if base >= z(1, 15) { 5 } else { 4 };
        if base >= z(1, 6) {
            assert_eq!(voters_at(&log, base), Some(expected), "step {step}, base {base}");
        }
        assert_eq!(log.rosters().last().map(|r| r.voters().count()), Some(5), "step {step}");
        if purged.is_ok() {
            return;
        }
    }
    panic!("the purge takes too many steps");
}

#[test]
fn r12_a_reset_and_a_snapshot_have_the_members_there() {
    let (disk, mut log) = changed_twice();
    let base = Base { zxid: z(7, 3), level: Some(Level(1)), roster: Some(roster(z(6, 2), 3)) };
    log.reset(base).unwrap();
    assert_eq!(log.rosters().last(), Some(&roster(z(6, 2), 3)));
    drop(log);
    assert_eq!(reopen(&disk).rosters().last(), Some(&roster(z(6, 2), 3)), "not those of the old log");

    let dir = Path::new("/data/snapshots");
    let open = || Snapshots::open(Arc::new(disk.clone()), dir).unwrap().0;
    let snapshots = open();
    snapshots.begin_with(z(7, 3), Level(1), Some(roster(z(6, 2), 3))).unwrap().finish().unwrap();
    let received = snapshots.begin_received_with(z(8, 1), Level(1), Some(roster(z(7, 9), 5))).unwrap();
    received.finish().unwrap();
    let snapshots = open();
    assert_eq!(snapshots.read(z(7, 3)).unwrap().roster(), Some(&roster(z(6, 2), 3)));
    let roster = Some(roster(z(7, 9), 5));
    assert_eq!(snapshots.received(), Some(Base { zxid: z(8, 1), level: Some(Level(1)), roster }));
}

/// Without the members at its base a log is worth no more than one without its beginning.
#[test]
fn damaged_members_are_damage_and_the_log_goes_on_behind_a_snapshot() {
    let (disk, mut log) = changed_twice();
    log.purge(z(1, 14)).unwrap();
    drop(log);
    let path = PathBuf::from(DIR).join("members");
    let mut bytes = disk.contents(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    disk.put(&path, &bytes);
    let before = disk.files();
    assert!(matches!(open(&disk, tiny()).err(), Some(LogError::Damaged { .. })));
    assert_eq!(disk.files(), before);
    let base = Base { zxid: z(1, 20), level: Some(Level(1)), roster: Some(roster(z(1, 15), 5)) };
    Log::salvage(&disk, Path::new(DIR), &tiny(), base).unwrap();
    let log = reopen(&disk);
    assert_eq!((log.history().base(), log.history().last()), (z(1, 20), z(1, 20)));
    assert_eq!(voters_at(&log, z(1, 20)), Some(5));
    assert_eq!(segments(&disk).len(), 1);
}

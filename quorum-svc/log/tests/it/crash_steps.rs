//! F1 and F2: a crash at every single step of everything that takes several, and again while recovering from it.

use std::path::Path;
use std::sync::Arc;

use api::{Entry, Epoch, PeerId, Zxid};
use quorum_log::{Crash, DataDir, EpochFile, Epochs, Log, LogError, MemDisk, Snapshots};

use crate::common::{contents, crashes, disk_with, entries, open, tiny, z};

/// 0, 1, 2 ..., until the test has seen something done without a crash.
fn steps_until_done() -> impl Iterator<Item = u64> {
    (0..).inspect(|&steps| assert!(steps < 200, "it fails without a crash"))
}

/// Runs `change` on a log, with a crash at each of its steps and of each kind, and `check`s what is found when it is
/// opened again: base and entries.
fn crash_at_each_step(
    change: impl Fn(&mut Log) -> Result<(), LogError>,
    check: impl Fn(Zxid, &[Entry], bool),
) {
    for crash in crashes() {
        for steps in steps_until_done() {
            let disk = disk_with(&entries(1, 0..14));
            let mut log = open(&disk, tiny()).unwrap();
            disk.power_off_after(steps);
            let done = change(&mut log).is_ok();
            drop(log);
            disk.crash(crash);
            let found = recover_with_crashes(&disk, crash);
            check(found.0, &found.1, done);
            if done {
                assert!(steps > 1, "there were steps to crash at");
                break;
            }
        }
    }
}

/// Crashes at each step of the recovery, then recovers, twice, and finds the same.
fn recover_with_crashes(disk: &MemDisk, crash: Crash) -> (Zxid, Vec<Entry>) {
    for steps in steps_until_done() {
        disk.power_off_after(steps);
        let opened = open(disk, tiny());
        let done = opened.is_ok();
        assert!(done || disk.is_off(), "{}", opened.err().unwrap());
        drop(opened);
        disk.crash(crash);
        if done {
            break;
        }
    }
    let log = open(disk, tiny()).unwrap();
    let first = (log.history().base(), contents(&log));
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let mut log = open(disk, tiny()).unwrap();
    assert_eq!((log.history().base(), contents(&log)), first, "what was recovered is durable");

    // And it can be written to.
    let next = entries(9, 0..5);
    log.append(&next).unwrap();
    log.sync().unwrap();
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let log = open(disk, tiny()).unwrap();
    assert_eq!(contents(&log), [&first.1[..], &next[..]].concat());
    first
}

#[test]
fn append_and_sync() {
    let old = entries(1, 0..14);
    let all = entries(1, 0..25);
    crash_at_each_step(
        |log| {
            log.append(&all[14..17])?;
            log.sync()?;
            log.append(&all[17..])?;
            log.sync().map(drop)
        },
        |base, found, done| {
            assert_eq!(base, Zxid::ZERO);
            assert!(all.starts_with(found) && found.len() >= if done { all.len() } else { old.len() });
        },
    );
}

#[test]
fn truncate() {
    let all = entries(1, 0..14);
    for keep in [0usize, 1, 3, 4, 6, 7, 12, 13] {
        crash_at_each_step(
            |log| log.truncate(keep.checked_sub(1).map_or(Zxid::ZERO, |i| all[i].zxid)),
            |base, found, done| {
                assert_eq!(base, Zxid::ZERO);
                assert!(all.starts_with(found) && found.len() >= keep, "{found:?}");
                assert!(!done || found.len() == keep, "{found:?}");
            },
        );
    }
}

#[test]
fn reset() {
    for base in [z(1, 5), z(4, 2), Zxid::ZERO] {
        crash_at_each_step(
            |log| log.reset(base),
            |found_base, found, done| {
                let is_new = found_base == base && found.is_empty();
                let is_old = found_base == Zxid::ZERO && found == entries(1, 0..14);
                assert!(is_new || (is_old && !done), "{found_base} {found:?}");
            },
        );
    }
}

#[test]
fn purge() {
    crash_at_each_step(
        |log| log.purge(z(1, 8)),
        |base, found, done| {
            assert!(base <= z(1, 8) && (base > Zxid::ZERO || !done));
            let from = if base == Zxid::ZERO { 0 } else { base.counter() + 1 };
            assert_eq!(found, entries(1, from..14));
        },
    );
}

#[test]
fn epochs() {
    let epochs = |accepted, current| Epochs { accepted: Epoch(accepted), current: Epoch(current) };
    let dir = Path::new("/data");
    for crash in crashes() {
        for steps in steps_until_done() {
            let disk = disk_with(&[]);
            let load = || EpochFile::load(Arc::new(disk.clone()), dir);
            load().unwrap().store(epochs(3, 2)).unwrap();
            disk.crash(Crash::LoseUnsynced);
            let mut file = load().unwrap();
            disk.power_off_after(steps);
            let done = file.store(epochs(4, 3)).is_ok();
            assert!(done || file.store(epochs(5, 5)).is_err(), "fail-stop");
            disk.crash(crash);
            let found = load().unwrap().epochs();
            assert!(found == epochs(4, 3) || (found == epochs(3, 2) && !done), "{found:?}");
            disk.crash(Crash::LoseUnsynced);
            assert_eq!(load().unwrap().epochs(), found, "once seen, it stays");
            if done {
                assert!(steps >= 4);
                break;
            }
        }
    }
}

#[test]
fn snapshot_finish() {
    let dir = Path::new("/data/snapshots");
    let write = |snapshots: &Snapshots, zxid: Zxid| {
        let mut writer = snapshots.begin(zxid)?;
        writer.chunk(&zxid.0.to_le_bytes())?;
        writer.chunk(&[7; 1500])?;
        writer.finish()
    };
    for crash in crashes() {
        for steps in steps_until_done() {
            let disk = MemDisk::new();
            let open = || Snapshots::open(Arc::new(disk.clone()), dir);
            let (snapshots, _) = open().unwrap();
            write(&snapshots, z(1, 1)).unwrap();
            write(&snapshots, z(1, 2)).unwrap();
            disk.power_off_after(steps);
            let done = write(&snapshots, z(1, 3)).is_ok();
            drop(snapshots);
            for crash in [crash, Crash::LoseUnsynced] {
                disk.crash(crash);
                let (snapshots, report) = open().unwrap();
                assert_eq!(report.skipped, [], "what has its name is sound");
                let found = (snapshots.older().unwrap(), snapshots.latest().unwrap());
                let is_old = found == (z(1, 1), z(1, 2));
                assert!(found == (z(1, 2), z(1, 3)) || (is_old && !done), "{found:?}");
                let chunks: Vec<_> = snapshots.read(found.1).unwrap().map(|c| c.unwrap().to_vec()).collect();
                assert_eq!(chunks, [found.1.0.to_le_bytes().to_vec(), vec![7; 1500]]);
            }
            if done {
                break;
            }
        }
    }
}

#[test]
fn claim() {
    let dir = Path::new("/srv/node/data");
    for crash in crashes() {
        for steps in steps_until_done() {
            let disk = MemDisk::new();
            disk.power_off_after(steps);
            let done = DataDir::claim(&disk, dir, "a", PeerId(3)).is_ok();
            disk.crash(crash);
            drop(DataDir::claim(&disk, dir, "a", PeerId(3)).unwrap());
            disk.crash(Crash::LoseUnsynced);
            assert!(!DataDir::claim(&disk, dir, "a", PeerId(3)).unwrap().is_new());
            if done {
                assert!(steps > 5);
                break;
            }
        }
    }
}

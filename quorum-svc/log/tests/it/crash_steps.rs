//! F1 and F2: a crash at every step of every operation with several steps, and again during the
//! recovery from it.

use std::path::Path;
use std::sync::Arc;

use api::{Build, Entry, Epoch, Level, PeerId, Zxid};
use quorum_log::{
    Crash, DataDir, Disk, DiskOp, EpochFile, Epochs, Fault, Log, LogError, LogOptions, MemDisk, Snapshots,
    Storage, StorageOptions,
};
use rustix::io::Errno;

use crate::common::{
    DURABLE, assert_its_end_is_guarded, contents, crashes, disk_with, entries, lose_last_record, on, open,
    segments, three, tiny, z,
};

/// 0, 1, 2 ..., until the test has completed the operation without a crash.
fn steps_until_done() -> impl Iterator<Item = u64> {
    (0..).inspect(|&steps| assert!(steps < 200, "it fails without a crash"))
}

/// Runs `change` on a log with a crash of each kind at each step. Then `check`s base and entries of the
/// reopened log.
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

/// Crashes at each step of the recovery, then recovers twice, and gets the same result.
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
    assert_eq!((log.history().base(), contents(&log)), first, "recovered entries are durable");
    assert_its_end_is_guarded(disk, &tiny());

    // The log accepts writes.
    let next = entries(9, 0..5);
    log.append(&next).unwrap();
    log.sync().unwrap();
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let log = open(disk, tiny()).unwrap();
    assert_eq!(contents(&log), [&first.1[..], &next[..]].concat());
    assert_its_end_is_guarded(disk, &tiny());
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
fn f2_f7_recovery_of_what_only_the_page_cache_has() {
    // The process ends before its sync, or because of a failed one. Then the power fails during the
    // recovery of the next process.
    let all = entries(1, 0..20);
    for sync_fails in [false, true] {
        for crash in crashes() {
            for steps in steps_until_done() {
                let disk = disk_with(&all[..14]);
                let mut log = open(&disk, tiny()).unwrap();
                log.append(&all[14..16]).unwrap();
                if sync_fails {
                    disk.fail(Fault { op: DiskOp::Sync, path: ".log".into(), skip: 0, errno: Errno::IO });
                    log.sync().unwrap_err();
                }
                drop(log);
                disk.crash(Crash::ProcessOnly);
                disk.power_off_after(steps);
                let done = open(&disk, tiny()).is_ok();
                disk.crash(crash);
                let (base, found) = recover_with_crashes(&disk, crash);
                assert_eq!(base, Zxid::ZERO);
                assert!(all.starts_with(&found) && found.len() >= if done { 16 } else { 14 }, "{found:?}");
                if done {
                    assert!(steps > 3);
                    break;
                }
            }
        }
    }
}

#[test]
fn truncate_what_is_not_durable() {
    let all = entries(1, 0..20);
    for (keep, before) in [(10, 8), (10, 10), (10, 12), (18, 16), (15, 20)] {
        crash_at_each_step(
            |log| {
                log.append(&all[14..16])?;
                log.sync()?;
                log.append(&all[16..20])?;
                log.truncate(all[before - 1].zxid)?;
                log.truncate(all[keep.min(before) - 1].zxid)
            },
            |base, found, done| {
                assert_eq!(base, Zxid::ZERO);
                let least = keep.min(before);
                assert!(all.starts_with(found) && found.len() >= least.min(14), "{found:?}");
                assert!(!done || found.len() == least, "{found:?}");
            },
        );
    }
}

#[test]
fn all_in_a_row() {
    let all = entries(1, 0..30);
    let newer = entries(2, 0..6);
    crash_at_each_step(
        |log| {
            log.append(&all[14..20])?;
            log.sync()?;
            log.truncate(all[9].zxid)?;
            log.append(&newer)?;
            log.sync()?;
            log.purge(all[5].zxid)?;
            log.truncate(all[7].zxid)?;
            log.reset(on(all[3].zxid))?;
            log.append(&all[4..9])?;
            log.sync()?;
            log.reset(on(newer[2].zxid))?;
            log.truncate(newer[2].zxid)
        },
        |base, found, done| {
            assert!(found.len() >= 8 || base > Zxid::ZERO, "{base} {found:?}");
            assert!(!done || (base == newer[2].zxid && found.is_empty()), "{base} {found:?}");
        },
    );
}

#[test]
fn f12_an_end_that_was_lost_is_noted_whatever_happens() {
    let dir = Path::new("/data");
    let options = StorageOptions {
        ensemble: "e".to_owned(),
        id: PeerId(1),
        log_dir: None,
        members: three(),
        segment_bytes: 400,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: true,
        secret: 5,
        run: 7,
        build: Build::this(),
    };
    let all = entries(1, 0..12);
    for lost in ["record", "segment", "all"] {
        for crash in crashes() {
            for steps in steps_until_done() {
                let disk = MemDisk::new();
                let d: Arc<dyn Disk> = Arc::new(disk.clone());
                let mut storage = Storage::open(&d, dir, &options).unwrap();
                let epochs = Epochs { accepted: Epoch(1), current: Epoch(1), ..Epochs::default() };
                storage.epochs.store(epochs).unwrap();
                for entry in &all {
                    storage.log.append(std::slice::from_ref(entry)).unwrap();
                    storage.log.sync().unwrap();
                }
                drop(storage);
                disk.crash(Crash::ProcessOnly);
                // The kernel has written it in the meantime.
                disk.put(Path::new(DURABLE), &disk.contents(Path::new(DURABLE)).unwrap());
                let paths = segments(&disk);
                match lost {
                    "record" => assert!(lose_last_record(&disk)),
                    "segment" => disk.remove(&paths[paths.len() - 1]).unwrap(),
                    _ => {
                        paths[1..].iter().for_each(|path| disk.remove(path).unwrap());
                        disk.put(&paths[0], &disk.contents(&paths[0]).unwrap()[..40]);
                    }
                }
                disk.sync_dir(Path::new("/data/log")).unwrap();
                disk.power_off_after(steps);
                let opened = Storage::open(&d, dir, &options);
                let done = opened.is_ok();
                assert!(done || disk.is_off(), "{}", opened.err().unwrap());
                drop(opened);
                for crash in [crash, Crash::LoseUnsynced] {
                    disk.crash(crash);
                    let storage = Storage::open(&d, dir, &options).unwrap();
                    assert!(
                        storage.promises.damage.is_some(),
                        "acknowledged entries are gone, and the node votes"
                    );
                    assert!(all.starts_with(&contents(&storage.log)));
                }
                if done {
                    assert!(steps > 10);
                    break;
                }
            }
        }
    }
}

#[test]
fn reset() {
    for base in [z(1, 5), z(4, 2), Zxid::ZERO] {
        crash_at_each_step(
            |log| log.reset(on(base)),
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
    let epochs = |accepted, current| Epochs {
        accepted: Epoch(accepted),
        current: Epoch(current),
        ..Epochs::default()
    };
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
        let mut writer = snapshots.begin(zxid, Level(1))?;
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

/// The steps of a node that receives a state.
fn take_over(snapshots: &Snapshots, log: &mut Log, zxid: Zxid) -> Result<(), Box<dyn std::error::Error>> {
    let mut writer = snapshots.begin_received(zxid, Level(1))?;
    writer.chunk(&zxid.0.to_le_bytes())?;
    writer.finish()?;
    log.reset(on(zxid))?;
    Ok(snapshots.adopt_received(zxid)?)
}

/// The steps of a starting node. It completes a log that has no own snapshot as its base with the
/// received one.
fn restart(disk: &MemDisk) -> Result<(Snapshots, Log), Box<dyn std::error::Error>> {
    let (snapshots, report) = Snapshots::open(Arc::new(disk.clone()), Path::new("/data/snapshots"))?;
    assert_eq!(report.skipped, [], "what has its name is sound");
    let mut log = open(disk, LogOptions { may_create: false, ..tiny() })?;
    let base = log.history().base();
    match snapshots.received() {
        Some(received) if base == received.zxid => snapshots.adopt_received(base)?,
        Some(_) if base == Zxid::ZERO => snapshots.discard_received()?,
        Some(received) => {
            let zxid = received.zxid;
            log.reset(received)?;
            snapshots.adopt_received(zxid)?;
        }
        None => {}
    }
    Ok((snapshots, log))
}

/// Crashes at each step of [`restart`] until it is done, and once more.
fn restart_with_crashes(disk: &MemDisk, crash: Crash) -> (Snapshots, Log) {
    for steps in steps_until_done() {
        disk.power_off_after(steps);
        let restarted = restart(disk);
        let done = restarted.is_ok();
        assert!(done || disk.is_off(), "{}", restarted.err().unwrap());
        drop(restarted);
        disk.crash(crash);
        if done {
            break;
        }
    }
    disk.crash(Crash::LoseUnsynced);
    restart(disk).unwrap()
}

/// A disk with a log of the entries (1, 0) to (1, 13) and snapshots of the node's own at (1, 5) and (1, 10).
fn disk_with_snapshots() -> MemDisk {
    let disk = disk_with(&entries(1, 0..14));
    let (snapshots, _) = Snapshots::open(Arc::new(disk.clone()), Path::new("/data/snapshots")).unwrap();
    for zxid in [z(1, 5), z(1, 10)] {
        snapshots.begin(zxid, Level(1)).unwrap().finish().unwrap();
    }
    disk
}

fn state_of(snapshots: &Snapshots) -> (Option<Zxid>, Option<Zxid>, Option<Zxid>) {
    (snapshots.older(), snapshots.latest(), snapshots.received().map(|received| received.zxid))
}

fn assert_taken_over(snapshots: &Snapshots, log: &Log, zxid: Zxid) {
    assert_eq!((log.history().base(), log.history().last()), (zxid, zxid));
    let older = [z(1, 10), z(1, 5)].into_iter().find(|&own| own < zxid);
    assert_eq!(state_of(snapshots), (older, Some(zxid), None));
    let chunks: Vec<_> = snapshots.read(zxid).unwrap().map(|c| c.unwrap().to_vec()).collect();
    assert_eq!(chunks, [zxid.0.to_le_bytes()]);
}

#[test]
fn a_received_snapshot_and_the_log_behind_it() {
    for zxid in [z(4, 2), z(1, 7), z(1, 2)] {
        for crash in crashes() {
            for steps in steps_until_done() {
                let disk = disk_with_snapshots();
                let (snapshots, mut log) = restart(&disk).unwrap();
                disk.power_off_after(steps);
                let done = take_over(&snapshots, &mut log, zxid).is_ok();
                drop((snapshots, log));
                disk.crash(crash);
                let (snapshots, log) = restart_with_crashes(&disk, crash);
                if log.history().base() == Zxid::ZERO {
                    assert!(!done);
                    assert_eq!(contents(&log), entries(1, 0..14));
                    assert_eq!(state_of(&snapshots), (Some(z(1, 5)), Some(z(1, 10)), None));
                } else {
                    assert_taken_over(&snapshots, &log, zxid);
                }
                if done {
                    assert!(steps > 15, "there were steps to crash at");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_received_snapshot_in_place_of_one_that_the_log_was_reset_to() {
    // The first snapshot was not adopted, so the log has no beginning without it. One of the two exists
    // at any time.
    for (first, second) in [(z(4, 2), z(5, 1)), (z(4, 2), z(4, 0)), (z(1, 7), z(1, 2))] {
        for crash in crashes() {
            for steps in steps_until_done() {
                let disk = disk_with_snapshots();
                let (snapshots, mut log) = restart(&disk).unwrap();
                let mut writer = snapshots.begin_received(first, Level(1)).unwrap();
                writer.chunk(&first.0.to_le_bytes()).unwrap();
                writer.finish().unwrap();
                log.reset(on(first)).unwrap();
                disk.power_off_after(steps);
                let done = take_over(&snapshots, &mut log, second).is_ok();
                drop((snapshots, log));
                disk.crash(crash);
                let (snapshots, log) = restart_with_crashes(&disk, crash);
                let base = log.history().base();
                assert!(base == second || (base == first && !done), "{base}");
                assert_taken_over(&snapshots, &log, base);
                if done {
                    break;
                }
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
            let done = DataDir::claim(&disk, dir, "a", PeerId(3), &three()).is_ok();
            disk.crash(crash);
            drop(DataDir::claim(&disk, dir, "a", PeerId(3), &three()).unwrap());
            disk.crash(Crash::LoseUnsynced);
            assert!(!DataDir::claim(&disk, dir, "a", PeerId(3), &three()).unwrap().is_new());
            if done {
                assert!(steps > 5);
                break;
            }
        }
    }
}

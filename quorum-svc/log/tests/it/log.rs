//! The log without faults, and the calls that it refuses.

use std::path::Path;

use api::{Entry, Zxid};
use quorum_log::{Crash, Disk, DiskOp, Fault, Log, LogError, LogOptions, MemDisk};
use rustix::io::Errno;

use crate::common::{contents, disk_with, entries, entry, on, open, segments, tiny, z};

#[test]
fn what_is_appended_is_read_also_after_a_restart() {
    let disk = MemDisk::new();
    let mut log = open(&disk, tiny()).unwrap();
    assert!(log.recovery().created);
    let all: Vec<Entry> = entries(1, 0..20).into_iter().chain(entries(3, 0..5)).collect();
    log.append(&all[..7]).unwrap();
    assert_eq!(contents(&log), all[..7]);
    log.append(&all[7..]).unwrap();
    assert_eq!(log.sync().unwrap(), z(3, 4));
    assert_eq!((log.history().base(), log.history().last(), log.durable()), (Zxid::ZERO, z(3, 4), z(3, 4)));
    assert!(segments(&disk).len() > 5);

    disk.crash(Crash::LoseUnsynced);
    let log = open(&disk, tiny()).unwrap();
    assert_eq!(contents(&log), all);
    assert_eq!((log.recovery().created, log.recovery().cut_bytes, log.recovery().entries), (false, 0, 25));
}

#[test]
fn entries_that_do_not_chain_are_refused_and_nothing_is_changed() {
    let mut log = open(&MemDisk::new(), tiny()).unwrap();
    log.append(&entries(1, 0..3)).unwrap();
    for wrong in [entries(1, [4]), entries(1, [3, 5]), entries(1, [2]), entries(2, [1]), entries(0, [1])] {
        assert!(matches!(log.append(&wrong), Err(LogError::NotChained { .. })), "{wrong:?}");
    }
    assert!(matches!(log.truncate(z(1, 9)), Err(LogError::NotInHistory { .. })));
    log.append(&entries(1, [3])).unwrap();
    assert_eq!(contents(&log), entries(1, 0..4));
}

#[test]
fn an_entry_larger_than_a_segment_gets_a_larger_one() {
    // ZOOKEEPER-2249: an entry larger than the preallocation ended the replay.
    let disk = MemDisk::new();
    let mut log = open(&disk, tiny()).unwrap();
    let all =
        vec![entry(z(1, 0), 0, 5000), entry(z(1, 1), 0, 10), entry(z(1, 2), 0, 3000), entry(z(1, 3), 0, 0)];
    log.append(&all).unwrap();
    log.sync().unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&open(&disk, tiny()).unwrap()), all);
}

#[test]
fn truncate_at_and_around_every_segment_border() {
    // ZOOKEEPER-1156 cut too much at a border; ZOOKEEPER-1489 lost later appends.
    let all = entries(1, 0..16);
    for keep in 0..=all.len() {
        let disk = disk_with(&all);
        let mut log = open(&disk, tiny()).unwrap();
        let last = keep.checked_sub(1).map_or(Zxid::ZERO, |i| all[i].zxid);
        log.truncate(last).unwrap();
        assert_eq!(contents(&log), all[..keep]);
        disk.crash(Crash::LoseUnsynced);
        let mut log = open(&disk, tiny()).unwrap();
        assert_eq!(contents(&log), all[..keep], "durable on return");
        assert_eq!(log.recovery().cut_bytes, 0);

        let new: Vec<Entry> = entries(2, 0..9);
        log.append(&new).unwrap();
        log.sync().unwrap();
        disk.crash(Crash::LoseUnsynced);
        let log = open(&disk, tiny()).unwrap();
        assert_eq!(contents(&log), [&all[..keep], &new[..]].concat());
    }
}

#[test]
fn records_from_before_a_truncate_do_not_come_back() {
    // The new record has exactly the position and length of an old one, and the old records behind it
    // would chain.
    let options = || LogOptions { segment_bytes: 4096, ..tiny() };
    let disk = MemDisk::new();
    let mut log = open(&disk, options()).unwrap();
    log.append(&entries(1, 0..10)).unwrap();
    log.sync().unwrap();
    log.truncate(z(1, 3)).unwrap();
    let replaced = entry(z(1, 4), 9, 36);
    log.append(std::slice::from_ref(&replaced)).unwrap();
    log.sync().unwrap();
    for crash in crate::common::crashes() {
        disk.crash(crash);
        let log = open(&disk, options()).unwrap();
        assert_eq!(contents(&log), [entries(1, 0..4), vec![replaced.clone()]].concat());
    }
}

#[test]
fn reset_and_purge() {
    let disk = disk_with(&entries(1, 0..20));
    let mut log = open(&disk, tiny()).unwrap();
    let before = segments(&disk).len();
    log.purge(z(1, 10)).unwrap();
    let base = log.history().base();
    assert!(base > Zxid::ZERO && base <= z(1, 10) && segments(&disk).len() < before);
    assert_eq!(contents(&log), entries(1, base.counter() + 1..20));
    log.purge(Zxid(u64::MAX)).unwrap();
    assert_eq!(segments(&disk).len(), 1, "the one that is written to stays");
    log.append(&entries(1, 20..22)).unwrap();

    // To a base before, inside and behind the present log.
    for base in [z(1, 2), z(1, 21), z(7, 3)] {
        log.reset(on(base)).unwrap();
        assert_eq!((log.history().base(), log.history().last(), log.durable()), (base, base, base));
        disk.crash(Crash::LoseUnsynced);
        log = open(&disk, tiny()).unwrap();
        assert_eq!((log.history().base(), log.history().last()), (base, base));
        log.append(&entries(8, 0..3)).unwrap();
        log.sync().unwrap();
        assert_eq!(contents(&log), entries(8, 0..3));
    }
}

#[test]
fn f5_f6_f7_after_an_error_of_the_disk_the_log_does_nothing_more() {
    let cases = [
        (DiskOp::Write, Errno::NOSPC, "free space"),
        (DiskOp::Write, Errno::IO, "replace it"),
        (DiskOp::Sync, Errno::IO, "replace it"),
        (DiskOp::Allocate, Errno::IO, "replace it"),
    ];
    for (op, errno, remedy) in cases {
        let disk = disk_with(&entries(1, 0..5));
        let mut log = open(&disk, tiny()).unwrap();
        disk.fail(Fault { op, path: "/data/log/".to_owned(), skip: 0, errno });
        let failed = log.append(&entries(1, 5..15)).and_then(|()| log.sync().map(drop));
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("/data/log/0000000100000") && message.contains(remedy), "{message}");
        assert!(matches!(log.append(&entries(1, [5])), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.truncate(z(1, 1)), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.reset(on(z(1, 1))), Err(LogError::Poisoned { .. })));
        assert!(matches!(log.purge(z(1, 1)), Err(LogError::Poisoned { .. })));
        drop(log);
        let log = open(&disk, tiny()).unwrap();
        let found = contents(&log);
        assert!(found.len() >= 5 && entries(1, 0..15).starts_with(&found));
    }
}

#[test]
fn f5_a_full_disk_stops_the_log_and_loses_nothing_durable() {
    let disk = disk_with(&entries(1, 0..5));
    disk.set_capacity(2000);
    let mut log = open(&disk, tiny()).unwrap();
    let error = (5..100).find_map(|c| log.append(&entries(1, [c])).and_then(|()| log.sync()).err()).unwrap();
    assert!(error.to_string().contains("free space on this file system"), "{error}");
    let durable = log.durable();
    disk.crash(Crash::LoseUnsynced);
    disk.set_capacity(1 << 20);
    let mut log = open(&disk, tiny()).unwrap();
    assert_eq!(log.history().last(), durable);
    log.append(&entries(1, [durable.counter() + 1])).unwrap();
}

#[test]
fn f7_entries_that_a_failed_fsync_left_in_the_page_cache_are_written_again() {
    // The next process reads them, and its fsync succeeds although the kernel dropped them (fsyncgate).
    let disk = MemDisk::new();
    let mut log = open(&disk, LogOptions { segment_bytes: 4096, ..tiny() }).unwrap();
    log.append(&entries(1, 0..5)).unwrap();
    log.sync().unwrap();
    disk.fail(Fault { op: DiskOp::Sync, path: ".log".to_owned(), skip: 0, errno: Errno::IO });
    log.append(&entries(1, 5..8)).unwrap();
    log.sync().unwrap_err();
    disk.crash(Crash::ProcessOnly);
    let log = open(&disk, tiny()).unwrap();
    let durable = contents(&log);
    assert_eq!(durable, entries(1, 0..8));
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&open(&disk, tiny()).unwrap()), durable);
}

#[test]
fn a_log_that_must_exist_is_not_created() {
    let strict = || LogOptions { may_create: false, ..tiny() };
    let is_missing = |disk: &MemDisk| {
        let error = open(disk, strict()).err().unwrap();
        assert!(error.to_string().contains("no log in /data/log: it is gone"), "{error}");
        matches!(error, LogError::Missing { .. })
    };
    // Repeated starts create neither a directory nor a file.
    let disk = MemDisk::new();
    for _ in 0..3 {
        assert!(is_missing(&disk));
        assert!(disk.files().is_empty() && !disk.exists(Path::new("/data")).unwrap());
    }
    // A directory alone is no log, nor is a segment that was never complete.
    let disk = disk_with(&[]);
    let path = segments(&disk).remove(0);
    disk.rename(&path, &path.with_extension("log.tmp")).unwrap();
    let before = disk.files();
    assert!(is_missing(&disk) && is_missing(&disk));
    assert_eq!(disk.files(), before);
    // An empty log is a log.
    disk.rename(&path.with_extension("log.tmp"), &path).unwrap();
    assert!(!open(&disk, strict()).unwrap().recovery().created);
    // So is a log in a reset after the removal of all its segments.
    let disk = disk_with(&entries(1, 0..5));
    let mut log = open(&disk, strict()).unwrap();
    disk.fail(Fault { op: DiskOp::Create, path: ".log".to_owned(), skip: 0, errno: Errno::IO });
    log.reset(on(z(2, 3))).unwrap_err();
    assert_eq!(segments(&disk).len(), 0);
    let log = open(&disk, strict()).unwrap();
    assert_eq!((log.history().base(), log.recovery().completed_reset), (z(2, 3), true));
}

#[test]
fn a_point_so_far_back() {
    // Segments of three entries with 96 bytes each; every second entry is indexed.
    let disk = disk_with(&entries(1, 0..30));
    let mut log = open(&disk, tiny()).unwrap();
    let back = |log: &Log, bytes, entries| log.reader().back_from(z(1, 29), bytes, entries);
    assert_eq!(back(&log, 1 << 20, 0), Zxid::ZERO, "the log has not so much");
    assert_eq!(back(&log, 0, 1 << 20), Zxid::ZERO);
    for want in [0, 1, 5, 12, 20] {
        let at = back(&log, 0, want);
        let have = log.history().count_between(at, z(1, 29));
        assert!((want..want + 4).contains(&have), "{have} entries for {want}");
    }
    for want in [100, 500, 1500] {
        let have = log.history().count_between(back(&log, want, 0), z(1, 29)) * 96;
        // Bytes of files include the headers of segments, which have three records each.
        let headers = (want / (3 * 96 + 40) + 1) * 40;
        assert!((want - headers.min(want)..want + 700).contains(&have), "{have} bytes for {want}");
    }
    log.purge(z(1, 14)).unwrap();
    assert_eq!(back(&log, 0, 1 << 20), log.history().base());
}

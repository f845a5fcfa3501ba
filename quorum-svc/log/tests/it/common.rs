use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Body, Ensemble, Entry, Epoch, Level, Origin, PeerId, Ticket, Zxid};
use quorum_log::{Base, Crash, Disk, Log, LogError, LogOptions, MemDisk};

pub(crate) const DIR: &str = "/data/log";
const SECRET: u64 = 0x0123_4567_89ab_cdef;

/// Small enough for a few entries each.
pub(crate) fn tiny() -> LogOptions {
    LogOptions {
        segment_bytes: 400,
        window_bytes: 300,
        index_interval_bytes: 100,
        may_create: true,
        secret: SECRET,
        ..LogOptions::default()
    }
}

pub(crate) fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// The base at `zxid` at the first level.
pub(crate) fn on(zxid: Zxid) -> Base {
    Base { zxid, level: Some(Level::FIRST), roster: None }
}

/// An entry with a payload that distinguishes it from any other entry with the same zxid.
pub(crate) fn entry(zxid: Zxid, generation: u8, size: usize) -> Entry {
    let byte = |i: usize| (zxid.0 as u8).wrapping_mul(31).wrapping_add(generation).wrapping_add(i as u8);
    Entry {
        zxid,
        time_ms: zxid.counter().into(),
        origin: (zxid.counter() > 0).then_some(Origin { peer: PeerId(1), ticket: Ticket(zxid.0) }),
        body: Body::Store((0..size).map(byte).collect::<Vec<u8>>().into()),
        trace: None,
    }
}

/// Entries of one epoch with these counters and 36 bytes of payload, so that each record has 96 bytes.
pub(crate) fn entries(epoch: u32, counters: impl IntoIterator<Item = u32>) -> Vec<Entry> {
    counters.into_iter().map(|c| entry(z(epoch, c), 0, 36)).collect()
}

pub(crate) fn open(disk: &MemDisk, options: LogOptions) -> Result<Log, LogError> {
    Log::open(Arc::new(disk.clone()), Path::new(DIR), options)
}

/// The usual members.
pub(crate) fn three() -> Ensemble {
    Ensemble::of_voters(1..=3).unwrap()
}

pub(crate) fn disk_with(entries: &[Entry]) -> MemDisk {
    let disk = MemDisk::new();
    let mut log = open(&disk, tiny()).unwrap();
    for entry in entries {
        log.append(std::slice::from_ref(entry)).unwrap();
        log.sync().unwrap();
    }
    disk
}

/// All entries of the log, read in small portions.
pub(crate) fn contents(log: &Log) -> Vec<Entry> {
    let reader = log.reader();
    let mut after = log.history().base();
    let mut all = Vec::new();
    loop {
        let portion = reader.read_after(after, Zxid(u64::MAX), 250).unwrap();
        let Some(last) = portion.last() else { break };
        after = last.zxid;
        all.extend(portion);
    }
    assert_eq!(after, log.history().last());
    all
}

/// The files of the log, ascending.
pub(crate) fn segments(disk: &MemDisk) -> Vec<PathBuf> {
    disk.files().into_keys().filter(|p| p.extension().is_some_and(|e| e == "log")).collect()
}

pub(crate) fn crashes() -> impl Iterator<Item = Crash> {
    [Crash::LoseUnsynced, Crash::ProcessOnly, Crash::KeepOnly(DURABLE), Crash::LoseOnly(DURABLE)]
        .into_iter()
        .chain((0..6).map(Crash::Random))
}

/// The file with the durable zxid.
pub(crate) const DURABLE: &str = "/data/log/durable";

/// Another disk with the same log.
pub(crate) fn copy(disk: &MemDisk) -> MemDisk {
    let copy = MemDisk::new();
    for dir in ["/data", DIR] {
        copy.create_dir(Path::new(dir)).unwrap();
    }
    for (path, contents) in disk.files() {
        copy.put(&path, &contents);
    }
    copy
}

/// The beginnings of the records of a segment, and the end of the last one.
pub(crate) fn records(segment: &[u8]) -> Vec<usize> {
    let mut ends = vec![40];
    loop {
        let at = ends[ends.len() - 1];
        let len = segment.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap()));
        // Half a mark may follow the last record.
        if len == 0 || at + 8 + len as usize > segment.len() {
            return ends;
        }
        ends.push(at + 8 + len as usize);
    }
}

/// Removes the last record and everything behind it, as if the disk had lost them. Returns false if
/// there is none.
pub(crate) fn lose_last_record(disk: &MemDisk) -> bool {
    for path in segments(disk).into_iter().rev() {
        let mut bytes = disk.contents(&path).unwrap();
        let ends = records(&bytes);
        if let [.., last, _] = ends[..] {
            bytes[last..].fill(0);
            disk.put(&path, &bytes);
            return true;
        }
        disk.remove(&path).unwrap();
    }
    false
}

/// The log is durable. Checks that a lost end would be noticed, and that the rest would then be usable.
pub(crate) fn assert_its_end_is_guarded(disk: &MemDisk, options: &LogOptions) {
    let whole = contents(&open(&copy(disk), options.clone()).unwrap());
    let damaged = copy(disk);
    if !lose_last_record(&damaged) {
        assert!(whole.is_empty());
        return;
    }
    let before = damaged.files();
    let opened = open(&damaged, options.clone());
    assert!(matches!(opened, Err(LogError::Damaged { .. })), "lost the last of {whole:?}, unnoticed");
    assert_eq!(damaged.files(), before);
    Log::salvage(&damaged, Path::new(DIR), options, Base::EMPTY).unwrap();
    for _ in 0..2 {
        assert_eq!(contents(&open(&damaged, options.clone()).unwrap()), whole[..whole.len() - 1]);
        damaged.crash(Crash::LoseUnsynced);
    }
}

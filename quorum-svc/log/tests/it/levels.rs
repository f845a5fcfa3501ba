//! The feature level is in the log and in its base, through cuts, purges, snapshots and restarts. The
//! log refuses unknown levels and records, and changes nothing.

use std::path::Path;
use std::sync::Arc;

use api::{Body, Build, Entry, Level, Levels, Zxid};
use quorum_log::{
    Base, Disk, Epochs, Log, LogError, LogOptions, MemDisk, Snapshots, Storage, StorageError, StorageOptions,
};

use crate::common::{DIR, contents, entry, open, records, segments, three, tiny, z};

fn knowing(min: u32, max: u32) -> Build {
    Build { version: "7.8.9".to_owned(), levels: Levels::new(Level(min), Level(max)).unwrap() }
}

fn options() -> LogOptions {
    LogOptions { build: knowing(1, 3), ..tiny() }
}

fn marker(epoch: u32, level: u32) -> Entry {
    Entry::marker(api::Epoch(epoch), Level(level), 5)
}

fn raise(zxid: Zxid, level: u32) -> Entry {
    Entry { zxid, time_ms: 5, origin: None, body: Body::Level(Level(level)), trace: None }
}

/// 1/0 sets level 1, 1/6 level 2, 2/0 repeats it, 2/3 sets level 3; in segments of about four entries.
fn raised_twice() -> Vec<Entry> {
    let mut all = vec![marker(1, 1)];
    all.extend((1..6).map(|c| entry(z(1, c), 0, 36)));
    all.push(raise(z(1, 6), 2));
    all.extend((7..12).map(|c| entry(z(1, c), 0, 36)));
    all.push(marker(2, 2));
    all.extend((1..3).map(|c| entry(z(2, c), 0, 36)));
    all.push(raise(z(2, 3), 3));
    all.extend((4..9).map(|c| entry(z(2, c), 0, 36)));
    all
}

fn with_raised_twice() -> (MemDisk, Log) {
    let disk = MemDisk::new();
    let mut log = open(&disk, options()).unwrap();
    log.append(&raised_twice()).unwrap();
    log.sync().unwrap();
    (disk, log)
}

fn level_at(log: &Log, zxid: Zxid) -> u32 {
    Level::number(log.reader().level_at(zxid))
}

#[test]
fn levels_come_back_after_a_restart_a_cut_and_a_purge() {
    let (disk, log) = with_raised_twice();
    assert!(segments(&disk).len() > 3, "so that some begin at each level");
    let check = |log: &Log, upto: Zxid| {
        let at = [(z(1, 5), 1), (z(1, 6), 2), (z(1, 9), 2), (z(2, 2), 2), (z(2, 3), 3), (z(2, 8), 3)];
        let (base, last) = (log.history().base(), log.history().last());
        for (zxid, level) in at.into_iter().filter(|&(zxid, _)| base <= zxid && zxid <= upto) {
            assert_eq!(level_at(log, zxid), level, "{zxid} of {base} to {last}");
        }
        assert_eq!(log.levels().last(), log.levels().at(last));
    };
    check(&log, z(2, 8));
    drop(log);
    let mut log = open(&disk, options()).unwrap();
    assert_eq!(contents(&log), raised_twice());
    check(&log, z(2, 8));
    // One segment at a time, each with a restart.
    for upto in [z(1, 4), z(1, 7), z(1, 11), z(2, 2)] {
        log.purge(upto).unwrap();
        check(&log, z(2, 8));
        drop(log);
        log = open(&disk, options()).unwrap();
        check(&log, z(2, 8));
    }
    assert!(log.history().base() > z(1, 6), "of the entry that raised it nothing is left");
    log.truncate(z(2, 2)).unwrap();
    check(&log, z(2, 2));
    assert_eq!(log.levels().last(), Some(Level(2)), "the uncommitted one is gone");
    drop(log);
    assert_eq!(open(&disk, options()).unwrap().levels().last(), Some(Level(2)));
}

#[test]
fn a_log_that_begins_anew_has_the_level_of_its_snapshot() {
    let (disk, mut log) = with_raised_twice();
    log.reset(Base { zxid: z(9, 4), level: Some(Level(2)), roster: None }).unwrap();
    assert_eq!(log.levels().last(), Some(Level(2)));
    drop(log);
    let log = open(&disk, options()).unwrap();
    assert_eq!((log.history().base(), log.levels().last()), (z(9, 4), Some(Level(2))));
    assert_eq!(open(&MemDisk::new(), options()).unwrap().levels().last(), None);
}

#[test]
fn a_snapshot_has_its_level_wherever_it_goes() {
    let disk = MemDisk::new();
    let open = || Snapshots::open(Arc::new(disk.clone()), Path::new("/data/snapshots")).unwrap().0;
    let snapshots = open();
    snapshots.begin(z(1, 3), Level(2)).unwrap().finish().unwrap();
    snapshots.begin_received(z(1, 9), Level(3)).unwrap().finish().unwrap();
    for snapshots in [snapshots, open()] {
        assert_eq!(snapshots.read(z(1, 3)).unwrap().level(), Level(2));
        assert_eq!(snapshots.received(), Some(Base { zxid: z(1, 9), level: Some(Level(3)), roster: None }));
    }
}

fn storage(disk: &MemDisk, build: Build) -> Result<Storage, StorageError> {
    let options = StorageOptions {
        ensemble: "e".to_owned(),
        id: api::PeerId(1),
        log_dir: None,
        members: three(),
        segment_bytes: 400,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: true,
        secret: 5,
        run: 7,
        build,
    };
    Storage::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new("/data"), &options)
}

/// A crash left a received state, and a log that has to continue after it.
#[test]
fn an_interrupted_synchronisation_goes_on_at_the_level_of_the_leader() {
    let disk = MemDisk::new();
    let mut first = storage(&disk, knowing(1, 3)).unwrap();
    let promised = Epochs { accepted: api::Epoch(9), current: api::Epoch(1), ..Epochs::default() };
    first.epochs.store(promised).unwrap();
    first.log.append(&[marker(1, 1), entry(z(1, 1), 0, 9)]).unwrap();
    first.log.sync().unwrap();
    first.snapshots.begin(z(1, 1), Level(1)).unwrap().finish().unwrap();
    first.log.reset(Base { zxid: z(1, 1), level: Some(Level(1)), roster: None }).unwrap();
    let mut writer = first.snapshots.begin_received(z(3, 3), Level(2)).unwrap();
    writer.chunk(b"state").unwrap();
    writer.finish().unwrap();
    // Without the own snapshot the received one is the only base.
    let own = disk.files().into_keys().find(|path| path.extension().is_some_and(|e| e == "snap")).unwrap();
    drop(first);
    disk.put(&own, b"damaged");
    let before = disk.contents(Path::new("/data/log/durable"));
    let refused = storage(&disk, knowing(1, 1)).map(drop).unwrap_err().to_string();
    assert!(refused.contains("level 2") && refused.contains("7.8.9"), "{refused}");
    assert_eq!(disk.contents(Path::new("/data/log/durable")), before, "the log was not begun anew");
    let second = storage(&disk, knowing(1, 3)).unwrap();
    assert_eq!((second.log.history().base(), second.log.levels().last()), (z(3, 3), Some(Level(2))));
    assert_eq!(second.snapshots.read(z(3, 3)).unwrap().level(), Level(2));
}

#[test]
fn a_build_that_does_not_know_the_level_of_the_log_changes_nothing() {
    let (disk, log) = with_raised_twice();
    drop(log);
    let before = disk.files();
    for build in [knowing(1, 2), knowing(4, 5)] {
        let refused = open(&disk, LogOptions { build, ..tiny() }).map(drop).unwrap_err();
        assert!(matches!(refused, LogError::Level { .. }), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains("feature level 3") && text.contains("7.8.9") && text.contains("run a"),
            "{text}"
        );
        assert!(text.contains(DIR), "{text}");
    }
    assert_eq!(disk.files(), before);
    assert!(open(&disk, LogOptions { build: knowing(3, 3), ..tiny() }).is_ok());
}

/// A later version wrote the record, anywhere in the log. It is no damage, so it is not cut, put aside
/// or healed.
#[test]
fn a_record_of_an_unknown_kind_stops_the_node() {
    const KIND: usize = 40;
    for n in [0, 1, 7] {
        let disk = MemDisk::new();
        let mut log = open(&disk, LogOptions { segment_bytes: 4096, ..options() }).unwrap();
        log.append(&raised_twice()[..8]).unwrap();
        log.sync().unwrap();
        drop(log);
        let path = segments(&disk).remove(0);
        let mut bytes = disk.contents(&path).unwrap();
        let at = records(&bytes)[n];
        bytes[at + KIND..at + KIND + 2].copy_from_slice(&3u16.to_le_bytes());
        let salt = &bytes[12..16];
        let crc = crc32c::crc32c_append(crc32c::crc32c(salt), &(at as u64).to_le_bytes());
        let crc =
            crc32c::crc32c_append(crc32c::crc32c_append(crc, &bytes[at..at + 4]), &bytes[at + 8..at + 60]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        disk.put(&path, &bytes);
        let before = disk.files();
        let refused = open(&disk, options()).map(drop).unwrap_err();
        assert!(matches!(&refused, LogError::Unknown { offset, .. } if *offset == at as u64), "{refused}");
        let text = refused.to_string();
        assert!(text.contains("kind 3") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        let salvaged = Log::salvage(&disk, Path::new(DIR), &options(), Base::EMPTY);
        assert!(matches!(salvaged, Err(LogError::Unknown { .. })), "{salvaged:?}");
        assert_eq!(disk.files(), before, "nothing was changed");
    }
}

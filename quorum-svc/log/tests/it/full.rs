//! F5: a full disk and the reserve; a log on a separate disk; damaged files put aside.

use std::path::Path;
use std::sync::Arc;

use api::{Build, EnsembleId, Epoch, Level, PeerId};
use quorum_log::{
    Crash, Disk, Epochs, Log, LogOptions, LogPlaceError, MemDisk, Offline, Snapshots, Space, Storage,
    StorageError, StorageOptions,
    reserve::{self, Reserve},
};

use crate::common::{contents, entries, open, segments, three, tiny, z};

const DATA: &str = "/data";

fn used(disk: &MemDisk) -> u64 {
    disk.set_capacity(1 << 40);
    let Space { free, total } = disk.space(Path::new("/")).unwrap();
    total - free
}

fn options(id: u32) -> StorageOptions {
    StorageOptions {
        ensemble: "a".into(),
        id: PeerId(id),
        members: three(),
        log_dir: None,
        segment_bytes: 4096,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: true,
        secret: 7,
        run: u64::from(id),
        build: Build::this(),
    }
}

fn storage(disk: &MemDisk, id: u32, data: &str, log_dir: Option<&str>) -> Result<Storage, StorageError> {
    let options = StorageOptions { log_dir: log_dir.map(Into::into), ..options(id) };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Storage::open(&disk, Path::new(data), &options)
}

/// Opens a directory, makes a promise, and appends.
fn used_storage(disk: &MemDisk, id: u32, data: &str, log_dir: Option<&str>) {
    let mut storage = storage(disk, id, data, log_dir).unwrap();
    if !storage.epochs.is_stored() {
        let ensemble = Some(EnsembleId(7));
        storage.epochs.store(Epochs { accepted: Epoch(1), ensemble, ..Epochs::default() }).unwrap();
        storage.log.append(&entries(1, 0..3)).unwrap();
        storage.log.sync().unwrap();
    }
    assert_eq!(contents(&storage.log), entries(1, 0..3));
}

#[test]
fn b18_the_reserve_is_used_for_what_has_to_be_written_when_the_disk_is_full() {
    let disk = MemDisk::new();
    let dir = Path::new("/data/log");
    let mut log = open(&disk, tiny()).unwrap();
    assert_eq!(reserve::keep(&disk, dir, 4000, 0).unwrap(), Reserve::Kept);
    assert_eq!(reserve::keep(&disk, dir, 4000, 0).unwrap(), Reserve::Kept, "once");
    disk.set_capacity(used(&disk));
    assert_eq!(disk.space(dir).unwrap().free, 0);
    // New segments use the reserve.
    for n in 0..20 {
        log.append(&entries(1, n..n + 1)).unwrap();
        log.sync().unwrap();
    }
    assert!(!reserve::release(&disk, dir).unwrap(), "it is gone");
    let error = (20..200).find_map(|n| log.append(&entries(1, n..n + 1)).err()).unwrap();
    assert!(error.to_string().contains("free space on this file system or enlarge it"), "{error}");
    drop(log);
    // No entry is lost, and the log opens without any free space.
    disk.crash(Crash::ProcessOnly);
    disk.set_capacity(used(&disk));
    let mut log = open(&disk, tiny()).unwrap();
    assert!(contents(&log).len() >= 20);
    log.purge(log.durable()).unwrap();
    let next = log.durable().next().unwrap();
    log.append(&entries(1, next.counter()..next.counter() + 1)).unwrap();
    log.sync().unwrap();
    let kept = reserve::keep(&disk, dir, 4000, 1 << 20).unwrap();
    assert_eq!(kept, Reserve::NoSpace, "not while there is too little");
}

#[test]
fn b18_b19_a_reserve_that_holds_too_little_is_made_anew() {
    let (dir, path) = (Path::new("/data"), Path::new("/data/reserve"));
    let with = |len: usize| {
        let disk = MemDisk::new();
        disk.create_dir(dir).unwrap();
        disk.put(path, &vec![0; len]);
        disk
    };
    // The process was killed between the creation of the file and its allocation.
    for len in [0, 1000] {
        let disk = with(len);
        assert_eq!(reserve::keep(&disk, dir, 4000, 0).unwrap(), Reserve::Kept);
        assert_eq!(disk.contents(path).unwrap().len(), 4000);
    }
    // The content of the file itself need not be free.
    let disk = with(3000);
    disk.set_capacity(6000);
    assert_eq!(reserve::keep(&disk, dir, 4000, 4000).unwrap(), Reserve::NoSpace);
    assert_eq!(disk.contents(path).unwrap().len(), 3000, "better than nothing");
    assert_eq!(reserve::keep(&disk, dir, 4000, 1000).unwrap(), Reserve::Kept);
    assert_eq!(disk.contents(path).unwrap().len(), 4000);
}

#[test]
fn b18_a_snapshot_leaves_the_space_that_the_log_needs() {
    let disk = MemDisk::new();
    let (snapshots, _) = Snapshots::open(Arc::new(disk.clone()), Path::new("/data/snapshots")).unwrap();
    let free = |disk: &MemDisk| disk.space(Path::new("/")).unwrap().free;
    let gone = |disk: &MemDisk| {
        disk.sync_dir(Path::new("/data/snapshots")).unwrap();
        assert!(disk.files().is_empty() && free(disk) == 10_000);
    };
    disk.set_capacity(10_000);
    // The snapshot cannot fit, and does not begin.
    let refused = snapshots.begin(z(1, 1), Level(1)).unwrap().leaving(1000, 9500).map(drop).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    gone(&disk);
    // The snapshot grows too large, and ends before it has taken all space.
    let mut writer = snapshots.begin(z(1, 1), Level(1)).unwrap().leaving(1000, 5000).unwrap();
    let refused = (0..100).find_map(|_| writer.chunk(&[7; 500]).err()).unwrap();
    assert!(refused.is_full() && free(&disk) >= 1000, "{} {refused}", free(&disk));
    drop(writer);
    gone(&disk);
    let mut writer = snapshots.begin(z(1, 1), Level(1)).unwrap().leaving(1000, 5000).unwrap();
    writer.chunk(&[7; 5000]).unwrap();
    writer.finish().unwrap();
    assert_eq!(snapshots.latest(), Some(z(1, 1)));
}

#[test]
fn b18_segments_become_small_before_the_disk_is_full() {
    let disk = MemDisk::new();
    disk.set_capacity(40 << 20);
    let options = LogOptions { segment_bytes: 64 << 20, ..tiny() };
    let log = open(&disk, options.clone()).unwrap();
    let len = |path: &Path| disk.contents(path).unwrap().len();
    assert_eq!(len(&segments(&disk)[0]), 10 << 20);
    drop(log);
    disk.set_capacity(15 << 20);
    let mut log = open(&disk, options).unwrap();
    for n in 0..3 {
        log.append(&[crate::common::entry(z(1, n), 0, 4 << 20)]).unwrap();
        log.sync().unwrap();
    }
    let [first, second, ..] = &segments(&disk)[..] else { panic!("one segment") };
    assert!(len(first) == 10 << 20 && len(second) < 5 << 20);
}

#[test]
fn b18_a_segment_takes_what_it_needs_when_there_is_no_more() {
    let disk = MemDisk::new();
    let mut log = open(&disk, LogOptions { segment_bytes: 4096, ..tiny() }).unwrap();
    let used: u64 = disk.files().values().map(|contents| contents.len() as u64).sum();
    disk.set_capacity(used + (300 << 10));
    for n in 0..2 {
        log.append(&[crate::common::entry(z(1, n), 0, 100 << 10)]).unwrap();
        log.sync().unwrap();
    }
    drop(log);
    assert_eq!(contents(&open(&disk, tiny()).unwrap()).len(), 2);
}

#[test]
fn b18_a_cut_that_cannot_have_its_space_back_leaves_a_full_segment() {
    let disk = MemDisk::new();
    let mut log = open(&disk, LogOptions { segment_bytes: 4096, ..tiny() }).unwrap();
    log.append(&entries(1, 0..10)).unwrap();
    log.sync().unwrap();
    disk.set_capacity(1000);
    log.truncate(z(1, 4)).unwrap();
    assert_eq!(contents(&log), entries(1, 0..5));
    disk.set_capacity(1 << 20);
    log.append(&entries(1, 5..9)).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(contents(&open(&disk, tiny()).unwrap()), entries(1, 0..9));
}

#[test]
fn b22_a_data_directory_is_used_with_its_own_log_only() {
    let disk = MemDisk::new();
    let refused = |id, data: &str, log_dir| match storage(&disk, id, data, log_dir).map(drop) {
        Err(StorageError::Place(e)) => e,
        other => panic!("{other:?}"),
    };
    used_storage(&disk, 1, "/data/1", Some("/log/1"));
    used_storage(&disk, 1, "/data/1", Some("/log/1"));
    used_storage(&disk, 2, "/data/2", Some("/log/2"));
    used_storage(&disk, 3, "/data/3", None);
    // The log of another node; none; an empty directory as of a file system that is not mounted; and
    // one besides the log in the data directory.
    assert!(matches!(refused(1, "/data/1", Some("/log/2")), LogPlaceError::NotThere { .. }));
    assert!(matches!(refused(1, "/data/1", None), LogPlaceError::Outside { .. }));
    assert!(matches!(refused(1, "/data/1", Some("/log/new")), LogPlaceError::NotThere { .. }));
    assert!(matches!(refused(3, "/data/3", Some("/log/3")), LogPlaceError::InDataDir { .. }));
    assert!(matches!(refused(4, "/data/4", Some("/log/1")), LogPlaceError::Foreign { .. }));
    assert!(matches!(refused(4, "/data/4", Some("/data/3/log")), LogPlaceError::Foreign { .. }));
    let text = refused(1, "/data/1", Some("/log/new")).to_string();
    assert!(text.contains("/log/1") && text.contains("is the file system mounted?"), "{text}");
    let owner = Path::new("/log/1/owner");
    let known = disk.contents(owner).unwrap();
    let body = "quorate owner 4\n";
    disk.put(owner, format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes());
    let text = refused(1, "/data/1", Some("/log/1")).to_string();
    assert!(text.contains("format version 4, but this program knows only version 3"), "{text}");
    disk.put(owner, &known);
    // Moves the whole log to another place, and one out of the data directory.
    let move_all = |from: &str, to: &str| {
        for (path, contents) in disk.files().into_iter().filter(|(path, _)| path.starts_with(from)) {
            disk.put(&Path::new(to).join(path.strip_prefix(from).unwrap()), &contents);
            disk.remove(&path).unwrap();
        }
        disk.sync_dir(Path::new(from)).unwrap();
    };
    disk.create_dir(Path::new("/log/moved")).unwrap();
    move_all("/log/1", "/log/moved");
    used_storage(&disk, 1, "/data/1", Some("/log/moved"));
    assert!(matches!(refused(1, "/data/1", Some("/log/1")), LogPlaceError::NotThere { .. }));
    disk.create_dir(Path::new("/log/3")).unwrap();
    move_all("/data/3/log", "/log/3");
    used_storage(&disk, 3, "/data/3", Some("/log/3"));
    used_storage(&disk, 3, "/data/3", Some("/log/3"));
}

#[test]
fn b22_a_crash_at_any_step_of_the_first_start_with_a_log_of_its_own_leaves_one_that_starts() {
    for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::Random(1), Crash::Random(2)] {
        for steps in 0.. {
            let disk = MemDisk::new();
            disk.power_off_after(steps);
            let done = storage(&disk, 1, DATA, Some("/log/1")).is_ok();
            disk.crash(crash);
            used_storage(&disk, 1, DATA, Some("/log/1"));
            if done {
                break;
            }
        }
    }
}

#[test]
fn b22_damaged_files_are_bounded() {
    let disk = MemDisk::new();
    used_storage(&disk, 1, DATA, None);
    let damaged = || -> Vec<String> {
        let names = disk.list(Path::new("/data/log")).unwrap();
        names.into_iter().filter(|name| name.contains(".damaged")).collect()
    };
    for n in 1..30 {
        disk.put(Path::new(&format!("/data/log/{n:016x}.log.damaged")), &[7; 100]);
    }
    // Not at a start, but at the next damage.
    used_storage(&disk, 1, DATA, None);
    assert_eq!(damaged().len(), 29);
    let segment = segments(&disk).pop().unwrap();
    assert!(disk.flip_bit(&segment, 40, 0));
    let salvaged = storage(&disk, 1, DATA, None).unwrap().salvaged.unwrap();
    assert_eq!((salvaged.aside.len(), salvaged.removed.len(), damaged().len()), (1, 22, 8));
    assert!(disk.contents(&salvaged.aside[0]).is_some());
    assert_eq!(damaged()[1], format!("{:016x}.log.damaged", 23), "the oldest go first");
    // The limit in bytes.
    let large = Path::new("/data/log/00000000000000ff.log.damaged");
    disk.put(large, &vec![7; 513 << 20]);
    let removed = Log::bound_damaged(&disk, Path::new("/data/log"), &salvaged.aside).unwrap();
    assert!(removed.contains(&large.to_owned()) && damaged().len() == 1);
}

#[test]
fn b22_a_refused_log_directory_is_not_made_and_its_fault_names_it() {
    let disk = MemDisk::new();
    used_storage(&disk, 1, "/data/1", Some("/log/1"));
    let refused = |id, data: &str, log_dir| storage(&disk, id, data, Some(log_dir)).map(drop).unwrap_err();
    // As of a file system that is not mounted.
    assert!(refused(1, "/data/1", "/log/new").to_string().contains("is the file system mounted?"));
    assert!(!disk.exists(Path::new("/log/new")).unwrap());
    for (id, data) in [(1, "/data/1"), (2, "/data/2")] {
        let text = refused(id, data, data).to_string();
        assert!(text.contains("`log_dir`") && text.contains("leave `log_dir` out"), "{text}");
    }
    let temp = tempfile::tempdir().unwrap();
    let real: Arc<dyn Disk> = Arc::new(quorum_log::FsDisk);
    for log_dir in ["/dev/null", "/proc/no-such-process"] {
        let options = StorageOptions { log_dir: Some(log_dir.into()), ..options(1) };
        let text = Storage::open(&real, temp.path(), &options).map(drop).unwrap_err().to_string();
        assert!(
            text.contains(log_dir) && text.contains("Name a directory") && !text.contains("data_dir"),
            "{text}"
        );
    }
}

#[test]
fn b22_an_operator_decides_about_a_data_directory_with_its_log_only() {
    let disk = MemDisk::new();
    used_storage(&disk, 1, "/data/1", Some("/log/1"));
    used_storage(&disk, 2, "/data/2", None);
    let before = disk.files();
    let find = |data: &str, log_dir: Option<&str>| {
        let directory = Offline::open(Arc::new(disk.clone()), Path::new(data)).unwrap();
        directory.find_log(log_dir.map(Path::new)).map_err(|e| e.to_string())
    };
    assert_eq!(find("/data/1", Some("/log/1")).unwrap(), Path::new("/log/1"));
    assert_eq!(find("/data/2", None).unwrap(), Path::new("/data/2/log"));
    for (data, log_dir, why) in [
        ("/data/1", Some("/log/other"), "is the file system mounted?"),
        ("/data/1", None, "set `log_dir` to it"),
        ("/data/2", Some("/log/1"), "of another node"),
        ("/data/2", Some("/log/other"), "leave `log_dir` out"),
    ] {
        let said = find(data, log_dir).unwrap_err();
        assert!(said.contains(why), "{data} {log_dir:?}: {said}");
    }
    assert_eq!(disk.files(), before);
    for (path, _) in before.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log")) {
        disk.remove(path).unwrap();
    }
    // Not mounted at the configured place, and gone from the data directory.
    assert!(find("/data/1", Some("/log/1")).is_err());
    assert!(find("/data/2", None).unwrap_err().contains("is not in /data/2/log"));
}

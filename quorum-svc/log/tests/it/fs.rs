//! The same tests on a real file system.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use api::Level;
use quorum_log::{
    Disk, DiskFile, DiskLock, FsDisk, Log, LogOptions, MemDisk, Snapshots, Space,
    reserve::{self, Reserve},
};

use crate::common::{contents, entries, on, tiny, z};

fn open(dir: &Path, options: LogOptions) -> Log {
    Log::open(Arc::new(FsDisk), dir, options).unwrap()
}

#[test]
fn a_log_in_real_files() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let all = entries(1, 0..30);
    let mut log = open(&dir, tiny());
    log.append(&all).unwrap();
    log.sync().unwrap();
    log.truncate(z(1, 17)).unwrap();
    log.purge(z(1, 9)).unwrap();
    let base = log.history().base();
    drop(log);
    let mut log = open(&dir, tiny());
    assert_eq!(contents(&log), entries(1, base.counter() + 1..18));
    log.append(&all[18..]).unwrap();
    drop(log);
    let mut log = open(&dir, tiny());
    assert_eq!(log.history().last(), z(1, 29));
    log.reset(on(z(4, 4))).unwrap();
    drop(log);
    assert_eq!(open(&dir, tiny()).history().base(), z(4, 4));

    let (snapshots, _) = Snapshots::open(Arc::new(FsDisk), &home.path().join("snapshots")).unwrap();
    let mut writer = snapshots.begin(z(4, 4), Level(1)).unwrap();
    writer.chunk(&[5; 100_000]).unwrap();
    writer.finish().unwrap();
    let (snapshots, _) = Snapshots::open(Arc::new(FsDisk), &home.path().join("snapshots")).unwrap();
    assert_eq!(snapshots.read(z(4, 4)).unwrap().next_chunk().unwrap().unwrap().len(), 100_000);
}

#[test]
fn segments_reserve_their_space() {
    use std::os::unix::fs::MetadataExt;
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path(), LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() }));
    let file = std::fs::metadata(home.path().join("0000000000000001.log")).unwrap();
    assert_eq!((file.len(), file.blocks() * 512 >= 1 << 20), (1 << 20, true));
}

#[test]
fn b18_a_reserve_holds_space_and_one_with_holes_is_made_anew() {
    use std::os::unix::fs::MetadataExt;
    const BYTES: u64 = 3 << 20;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("reserve");
    let sparse = std::fs::File::create(&path).unwrap();
    sparse.set_len(BYTES).unwrap();
    assert_eq!(sparse.metadata().unwrap().blocks(), 0);
    assert_eq!(reserve::keep(&FsDisk, home.path(), BYTES, 0).unwrap(), Reserve::Kept);
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.len(), file.blocks() * 512 >= BYTES), (BYTES, true));
    assert_eq!(reserve::keep(&FsDisk, home.path(), BYTES, 0).unwrap(), Reserve::Kept);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), file.ino(), "once");
}

/// Prints the times of append and sync: `cargo test --release -p quorum-log -- --ignored --nocapture
/// latency`.
#[test]
#[ignore = "a measurement"]
fn latency() {
    let home = tempfile::tempdir_in(".").unwrap();
    let mut log = open(home.path(), LogOptions::default());
    let mut counter = 0;
    println!("{:>6} {:>9} {:>9} {:>9} {:>9}", "batch", "p50 us", "p99 us", "append us", "entries/s");
    for batch in [1, 16, 64, 256] {
        let mut took = Vec::new();
        let mut append = 0;
        let begin = Instant::now();
        for _ in 0..1000 {
            let new = entries(1, counter..counter + batch);
            counter += batch;
            let start = Instant::now();
            log.append(&new).unwrap();
            append += start.elapsed().as_nanos();
            log.sync().unwrap();
            took.push(start.elapsed().as_micros());
        }
        let rate = f64::from(batch) * 1000.0 / begin.elapsed().as_secs_f64();
        took.sort_unstable();
        let append = append as f64 / 1e6;
        println!("{batch:>6} {:>9} {:>9} {append:>9.1} {rate:>9.0}", took[500], took[990]);
    }
    drop(log);
    let start = Instant::now();
    let log = open(home.path(), LogOptions::default());
    println!("opened {} entries in {:?}", log.recovery().entries, start.elapsed());
}

/// Prints the cost of the separate file `durable`. Two logs take turns, and one has that file in
/// memory. `cargo test --release -p quorum-log -- --ignored --nocapture cost_of_durable`
#[test]
#[ignore = "a measurement"]
fn cost_of_durable() {
    let home = tempfile::tempdir_in(".").unwrap();
    let memory = MemDisk::new();
    memory.create_dir(&home.path().join("without")).unwrap();
    let without: Arc<dyn Disk> = Arc::new(DurableElsewhere(memory));
    let mut logs = [("without", without), ("with", Arc::new(FsDisk))].map(|(name, disk)| {
        (name, Log::open(disk, &home.path().join(name), LogOptions::default()).unwrap(), Vec::new())
    });
    for counter in 0..4000 {
        for (_, log, took) in &mut logs {
            let start = Instant::now();
            log.append(&entries(1, [counter])).unwrap();
            log.sync().unwrap();
            took.push(start.elapsed().as_nanos());
        }
    }
    println!("{:>8} {:>9} {:>9} {:>9} {:>9}", "us", "p10", "p50", "p90", "p99");
    for (name, _, took) in &mut logs {
        took.sort_unstable();
        let [a, b, c, d] = [10, 50, 90, 99].map(|p| took[took.len() * p / 100] as f64 / 1e3);
        println!("{name:>8} {a:>9.1} {b:>9.1} {c:>9.1} {d:>9.1}");
    }
}

/// The file system, except for the file `durable`.
struct DurableElsewhere(MemDisk);

impl DurableElsewhere {
    fn of(&self, path: &Path) -> &dyn Disk {
        if path.ends_with("durable") { &self.0 } else { &FsDisk }
    }
}

impl Disk for DurableElsewhere {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        FsDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        FsDisk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        FsDisk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.of(path).exists(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.of(path).create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.of(path).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FsDisk.remove(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        FsDisk.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        FsDisk.lock(path)
    }
}

//! The same on a real file system.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use quorum_log::{FsDisk, Log, LogOptions, Snapshots};

use crate::common::{contents, entries, tiny, z};

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
    log.reset(z(4, 4)).unwrap();
    drop(log);
    assert_eq!(open(&dir, tiny()).history().base(), z(4, 4));

    let (snapshots, _) = Snapshots::open(Arc::new(FsDisk), &home.path().join("snapshots")).unwrap();
    let mut writer = snapshots.begin(z(4, 4)).unwrap();
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

/// Prints how long append and sync take: `cargo test --release -p quorum-log -- --ignored --nocapture latency`.
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

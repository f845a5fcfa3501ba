//! The cost of the search behind a torn record for any values of clients.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Body, Entry};
use bytes::Bytes;
use quorum_log::{FsDisk, Log, LogOptions};

use crate::common::z;

const VALUE: usize = (256 << 10) - 4096;

/// At each 24th byte, bytes that look like the head of a record of `len` bytes.
fn heads(len: u32) -> Bytes {
    let prev = (0x7fff_ffff_u64 << 32) | 1;
    let words = [u64::from(len), prev + 1, prev];
    (0..VALUE / 24).flat_map(|_| words).flat_map(u64::to_le_bytes).collect::<Vec<u8>>().into()
}

/// Writes a batch of values, tears its first record, and returns the duration of the recovery.
fn recover(dir: &Path, values: &[Bytes]) -> Duration {
    let options = LogOptions { secret: 77, ..LogOptions::default() };
    let open = || Log::open(Arc::new(FsDisk), dir, options.clone()).unwrap();
    let mut log = open();
    let entries: Vec<Entry> = (0..)
        .zip(values)
        .map(|(n, payload)| Entry {
            zxid: z(1, n),
            time_ms: 0,
            origin: None,
            body: Body::Store(payload.clone()),
            trace: None,
        })
        .collect();
    log.append(&entries).unwrap();
    drop(log);
    // The power failed before the sync: the first sector of the batch is missing.
    let segment = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let segment = segment.into_iter().find(|p| p.extension().is_some_and(|e| e == "log")).unwrap();
    OpenOptions::new().write(true).open(segment).unwrap().write_all_at(&[0; 480], 40).unwrap();
    let began = Instant::now();
    let log = open();
    assert!(log.recovery().cut_bytes as usize > values.len() * VALUE / 2);
    began.elapsed()
}

#[test]
fn b20_recovery_of_a_torn_tail_takes_no_longer_for_values_made_for_it() {
    // If the search checked whole records, 8 MiB of crafted values would take 148 s (optimised), and 2
    // MiB a sixteenth of it.
    const BATCH: usize = 8;
    let time = |value: Bytes| {
        let dir = tempfile::tempdir().unwrap();
        recover(dir.path(), &vec![value; BATCH])
    };
    let plain = time(vec![0x5a; VALUE].into());
    let marks = time(vec![0xff; VALUE].into());
    let crafted = time(heads((BATCH * VALUE / 2) as u32));
    println!("{} KiB: plain {plain:?}, marks {marks:?}, heads {crafted:?}", (BATCH * VALUE) >> 10);
    // The minimum cost of a byte is one inspection, the maximum is a checksum of 80 bytes.
    let bound = plain * 40 + Duration::from_secs(2);
    assert!(crafted.max(marks) < bound, "plain {plain:?}, marks {marks:?}, heads {crafted:?}");
}

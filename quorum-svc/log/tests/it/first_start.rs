//! F1, F2 and F5 on the first start of a node, before it has promised anything.

use std::path::Path;
use std::sync::Arc;

use api::{Build, Epoch, PeerId, Zxid};
use quorum_log::{Crash, Disk, Epochs, MemDisk, Storage, StorageError, StorageOptions};

use crate::common::{entries, three};

const SEGMENT: u64 = 4096;

fn open(disk: &MemDisk) -> Result<Storage, StorageError> {
    let options = StorageOptions {
        ensemble: "a".into(),
        id: PeerId(1),
        log_dir: None,
        members: three(),
        segment_bytes: SEGMENT,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: false,
        secret: 7,
        run: 8,
        build: Build::this(),
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Storage::open(&disk, Path::new("/srv/node/data"), &options)
}

/// Starts the node and takes part in the first election.
fn start(disk: &MemDisk) -> Result<(), Box<dyn std::error::Error>> {
    let mut storage = open(disk)?;
    if storage.log.history().last() == Zxid::ZERO {
        storage.epochs.store(Epochs { accepted: Epoch(1), ..Epochs::default() })?;
        storage.log.append(&entries(1, 0..3))?;
        storage.log.sync()?;
    }
    Ok(())
}

fn assert_starts(disk: &MemDisk, what: &str) {
    start(disk).unwrap_or_else(|e| panic!("{what}: the next start fails: {e}"));
}

#[test]
fn b19_a_crash_at_any_step_of_the_first_start_and_of_the_next_leaves_a_directory_that_starts() {
    for first in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::Random(1), Crash::Random(2)] {
        for second in [Crash::ProcessOnly, Crash::Random(3)] {
            for steps in 0.. {
                let disk = MemDisk::new();
                disk.power_off_after(steps);
                let done = start(&disk).is_ok();
                disk.crash(first);
                // Every third of the second crashes; each first crash uses another third.
                for again in (steps % 3..).step_by(3) {
                    let disk = disk.copy();
                    disk.power_off_after(again);
                    let done = start(&disk).is_ok();
                    disk.crash(second);
                    assert_starts(&disk, &format!("{first:?} at {steps}, {second:?} at {again}"));
                    if done {
                        break;
                    }
                }
                if done {
                    assert!(steps > 30, "there were steps to crash at");
                    break;
                }
            }
        }
    }
}

#[test]
fn b19_a_volume_that_was_too_small_at_first_starts_once_it_is_large_enough() {
    for capacity in (0..SEGMENT + 2000).step_by(7) {
        let disk = MemDisk::new();
        disk.set_capacity(capacity);
        let _ = start(&disk);
        disk.crash(Crash::ProcessOnly);
        disk.set_capacity(1 << 20);
        assert_starts(&disk, &format!("{capacity} bytes"));
    }
}

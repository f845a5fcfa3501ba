//! F11: snapshots, sound, damaged and half-written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::Zxid;
use quorum_log::{DiskOp, Fault, MemDisk, SnapshotError, SnapshotReport, Snapshots};
use rustix::io::Errno;

use crate::common::z;

fn open(disk: &MemDisk) -> (Snapshots, SnapshotReport) {
    Snapshots::open(Arc::new(disk.clone()), Path::new("/data/snapshots")).unwrap()
}

fn write(snapshots: &Snapshots, zxid: Zxid) -> Result<(), SnapshotError> {
    let mut writer = snapshots.begin(zxid)?;
    writer.chunk(b"first of ")?;
    writer.chunk(zxid.to_string().as_bytes())?;
    writer.finish()
}

fn read(snapshots: &Snapshots, zxid: Zxid) -> Result<Vec<u8>, SnapshotError> {
    let chunks: Result<Vec<_>, _> = snapshots.read(zxid)?.collect();
    Ok(chunks?.concat())
}

fn path(zxid: Zxid) -> PathBuf {
    format!("/data/snapshots/{:016x}.snap", zxid.0).into()
}

#[test]
fn the_two_newest_are_kept() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    assert_eq!((snapshots.latest(), snapshots.older()), (None, None));
    write(&snapshots, z(1, 5)).unwrap();
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(1, 5)), None));
    write(&snapshots, z(1, 9)).unwrap();
    let old_reader = snapshots.read(z(1, 5)).unwrap();
    write(&snapshots, z(2, 3)).unwrap();
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(2, 3)), Some(z(1, 9))));
    assert_eq!(disk.files().into_keys().collect::<Vec<_>>(), [path(z(1, 9)), path(z(2, 3))]);
    assert!(matches!(snapshots.read(z(1, 5)), Err(SnapshotError::NotThere { .. })));
    assert_eq!(old_reader.map(Result::unwrap).collect::<Vec<_>>().concat(), b"first of 0x100000005");

    let (snapshots, report) = open(&disk);
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(2, 3)), Some(z(1, 9))));
    assert_eq!(report, SnapshotReport::default());
    assert_eq!(read(&snapshots, z(2, 3)).unwrap(), b"first of 0x200000003");
    assert!(matches!(snapshots.begin(z(2, 2)), Err(SnapshotError::TooOld { .. })));
    write(&snapshots, z(2, 3)).unwrap();
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(2, 3)), Some(z(1, 9))), "again");
}

#[test]
fn an_unfinished_one_leaves_nothing_and_one_is_written_at_a_time() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    let writer = snapshots.begin(z(1, 1)).unwrap();
    assert!(matches!(snapshots.begin(z(1, 2)), Err(SnapshotError::Busy)));
    drop(writer);
    assert!(disk.files().is_empty());
    std::mem::forget(snapshots.begin(z(1, 1)).unwrap());
    let (snapshots, report) = open(&disk);
    assert_eq!((report.removed, disk.files().len()), (1, 0));
    snapshots.begin(z(0, 0)).unwrap().finish().unwrap();
    assert_eq!(read(&snapshots, Zxid::ZERO).unwrap(), b"", "the empty state");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found_and_the_older_one_taken() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    write(&snapshots, z(1, 1)).unwrap();
    write(&snapshots, z(1, 2)).unwrap();
    let path = path(z(1, 2));
    let good = disk.contents(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|cut| good[..cut].to_vec()).collect();
    damaged.push([&good[..], b"x"].concat());
    // The last four bytes of the header are not used.
    damaged.extend((0..good.len()).filter(|at| !(28..32).contains(at)).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    }));
    for bytes in damaged {
        disk.put(&path, &bytes);
        assert!(read(&snapshots, z(1, 2)).is_err());
        let (reopened, report) = open(&disk);
        assert_eq!((reopened.latest(), reopened.older()), (Some(z(1, 1)), None), "only sound ones count");
        assert_eq!(report.skipped[0].zxid, z(1, 2));
        assert!(report.skipped[0].why.contains("0000000100000002.snap is damaged at byte"));
    }
    // ZOOKEEPER-3231: the damaged one goes when there are two sound ones, not a sound one instead of it.
    let (reopened, _) = open(&disk);
    write(&reopened, z(1, 3)).unwrap();
    assert_eq!((reopened.latest(), reopened.older()), (Some(z(1, 3)), Some(z(1, 1))));
    assert_eq!(disk.contents(&path), None);
}

#[test]
fn a_failure_while_writing_leaves_the_older_ones() {
    for op in [DiskOp::Create, DiskOp::Write, DiskOp::Sync, DiskOp::Rename, DiskOp::SyncDir, DiskOp::Read] {
        let disk = MemDisk::new();
        let (snapshots, _) = open(&disk);
        write(&snapshots, z(1, 1)).unwrap();
        write(&snapshots, z(1, 2)).unwrap();
        disk.fail(Fault { op, path: String::new(), skip: 0, errno: Errno::NOSPC });
        let message = write(&snapshots, z(1, 3)).unwrap_err().to_string();
        assert!(message.contains("/data/snapshots") && message.contains("free space"), "{message}");
        assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(1, 2)), Some(z(1, 1))));
        assert_eq!(read(&snapshots, z(1, 2)).unwrap(), b"first of 0x100000002");
        write(&snapshots, z(1, 4)).unwrap();
    }
}

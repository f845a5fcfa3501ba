//! F11: sound, damaged and half-written snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Build, Level, PeerId, Zxid};
use quorum_log::{
    Disk, DiskOp, Epochs, Fault, MemDisk, SnapshotError, SnapshotReport, Snapshots, Storage, StorageError,
    StorageOptions,
};
use rustix::io::Errno;

use crate::common::{entries, on, three, z};

fn open(disk: &MemDisk) -> (Snapshots, SnapshotReport) {
    Snapshots::open(Arc::new(disk.clone()), Path::new("/data/snapshots")).unwrap()
}

fn write(snapshots: &Snapshots, zxid: Zxid) -> Result<(), SnapshotError> {
    let mut writer = snapshots.begin(zxid, Level(1))?;
    writer.chunk(b"first of ")?;
    writer.chunk(zxid.to_string().as_bytes())?;
    writer.finish()
}

fn receive(snapshots: &Snapshots, zxid: Zxid) -> Result<(), SnapshotError> {
    let mut writer = snapshots.begin_received(zxid, Level(1))?;
    writer.chunk(b"received ")?;
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

fn path_of_received(zxid: Zxid) -> PathBuf {
    path(zxid).with_extension("received")
}

/// The files of a disk.
fn paths(disk: &MemDisk) -> Vec<PathBuf> {
    disk.files().into_keys().collect()
}

/// Snapshots on disks must stay readable: a change here needs another version.
#[test]
fn the_bytes_of_a_snapshot_are_as_documented() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    write(&snapshots, z(1, 5)).unwrap();
    let bytes = disk.contents(&path(z(1, 5))).unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let header = "51524d534e500d0a 05000000 00000000 0500000001000000 685d5305 01000000 32186d51 00000000";
    let members = "00000000 00000000";
    let chunks = "09000000 63a8b28d 6669727374206f6620 0b000000 265d2968 3078313030303030303035";
    let trailer = "00000000 e2c248c2 020000000000000057ee4a5500000000";
    assert_eq!(hex, [header, members, chunks, trailer].concat().replace(' ', ""));
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
    assert!(matches!(snapshots.begin(z(2, 2), Level(1)), Err(SnapshotError::TooOld { .. })));
    write(&snapshots, z(2, 3)).unwrap();
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(2, 3)), Some(z(1, 9))), "again");
}

#[test]
fn an_unfinished_one_leaves_nothing_and_one_is_written_at_a_time() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    let writer = snapshots.begin(z(1, 1), Level(1)).unwrap();
    assert!(matches!(snapshots.begin(z(1, 2), Level(1)), Err(SnapshotError::Busy)));
    drop(writer);
    assert!(disk.files().is_empty());
    std::mem::forget(snapshots.begin(z(1, 1), Level(1)).unwrap());
    let (snapshots, report) = open(&disk);
    assert_eq!((report.removed, disk.files().len()), (1, 0));
    snapshots.begin(z(0, 0), Level(1)).unwrap().finish().unwrap();
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
    // The last four bytes of the header are unused.
    damaged.extend((0..good.len()).filter(|at| !(36..40).contains(at)).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    }));
    for bytes in damaged {
        disk.put(&path, &good);
        let (snapshots, _) = open(&disk);
        disk.put(&path, &bytes);
        assert_eq!(snapshots.latest(), Some(z(1, 2)));
        assert!(matches!(read(&snapshots, z(1, 2)), Err(SnapshotError::Damaged { .. })));
        assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(1, 1)), None), "no longer counts");
        assert_eq!(read(&snapshots, z(1, 1)).unwrap(), b"first of 0x100000001");
        let (reopened, report) = open(&disk);
        assert_eq!((reopened.latest(), reopened.older()), (Some(z(1, 1)), None), "only sound ones count");
        assert_eq!(report.skipped[0].zxid, z(1, 2));
        assert!(report.skipped[0].why.contains("0000000100000002.snap is damaged at byte"));
    }
    // ZOOKEEPER-3231: once there are two sound snapshots the damaged one is removed, and no sound one
    // in its place.
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

#[test]
fn a_received_one_is_apart_until_it_is_adopted() {
    // Newer than the node's own snapshots, between them, at one of them, older than both.
    let cases = [
        (z(2, 1), vec![z(1, 9), z(2, 1)]),
        (z(1, 7), vec![z(1, 5), z(1, 7)]),
        (z(1, 9), vec![z(1, 5), z(1, 9)]),
        (z(1, 2), vec![z(1, 2)]),
    ];
    for (zxid, after) in cases {
        let disk = MemDisk::new();
        let (snapshots, _) = open(&disk);
        write(&snapshots, z(1, 5)).unwrap();
        write(&snapshots, z(1, 9)).unwrap();
        let own = |s: &Snapshots| (s.latest(), s.older()) == (Some(z(1, 9)), Some(z(1, 5)));
        receive(&snapshots, zxid).unwrap();
        assert!(own(&snapshots) && snapshots.received() == Some(on(zxid)));
        assert!(disk.contents(&path_of_received(zxid)).is_some());
        assert!(matches!(snapshots.adopt_received(z(3, 3)), Err(SnapshotError::NotThere { .. })));
        if zxid != z(1, 9) {
            assert!(matches!(snapshots.read(zxid), Err(SnapshotError::NotThere { .. })));
        }

        let (snapshots, report) = open(&disk);
        assert!(own(&snapshots) && snapshots.received() == Some(on(zxid)));
        assert_eq!(report, SnapshotReport::default());
        snapshots.adopt_received(zxid).unwrap();
        for snapshots in [snapshots, open(&disk).0] {
            assert_eq!((snapshots.latest(), snapshots.received()), (Some(zxid), None));
            assert_eq!(snapshots.older(), (after.len() == 2).then(|| after[0]));
            assert_eq!(paths(&disk), after.iter().map(|&z| path(z)).collect::<Vec<_>>());
            assert_eq!(read(&snapshots, zxid).unwrap(), format!("received {zxid}").as_bytes());
        }
        assert!(matches!(open(&disk).0.adopt_received(zxid), Err(SnapshotError::NotThere { .. })));
    }
}

#[test]
fn a_received_one_replaces_an_earlier_one_and_can_be_discarded() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    for zxid in [z(2, 5), z(3, 1), z(2, 9), z(2, 9)] {
        receive(&snapshots, zxid).unwrap();
        assert_eq!(snapshots.received(), Some(on(zxid)));
        assert_eq!(paths(&disk), [path_of_received(zxid)]);
    }
    drop(snapshots.begin_received(z(4, 4), Level(1)).unwrap());
    assert_eq!(paths(&disk), [path_of_received(z(2, 9))], "an unfinished one leaves nothing");
    snapshots.discard_received().unwrap();
    assert_eq!((snapshots.received(), paths(&disk).len()), (None, 0));
    snapshots.discard_received().unwrap();
    assert_eq!(open(&disk).0.received(), None);
}

#[test]
fn a_damaged_received_one_is_left_out() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    receive(&snapshots, z(2, 5)).unwrap();
    assert!(disk.flip_bit(&path_of_received(z(2, 5)), 50, 3));
    let (snapshots, report) = open(&disk);
    assert_eq!((snapshots.received(), snapshots.latest()), (None, None));
    assert_eq!(report.skipped[0].zxid, z(2, 5));
    assert!(report.skipped[0].why.contains("0000000200000005.received is damaged at byte"));
    receive(&snapshots, z(2, 1)).unwrap();
    assert_eq!(paths(&disk), [path_of_received(z(2, 1))]);
}

#[test]
fn one_is_received_while_one_of_the_nodes_own_is_written() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    let own = snapshots.begin(z(1, 5), Level(1)).unwrap();
    let received = snapshots.begin_received(z(1, 5), Level(1)).unwrap();
    assert!(matches!(snapshots.begin(z(1, 6), Level(1)), Err(SnapshotError::Busy)));
    assert!(matches!(snapshots.begin_received(z(1, 6), Level(1)), Err(SnapshotError::Busy)));
    own.finish().unwrap();
    assert_eq!((snapshots.latest(), snapshots.received()), (Some(z(1, 5)), None));
    received.finish().unwrap();
    assert_eq!((snapshots.latest(), snapshots.received()), (Some(z(1, 5)), Some(on(z(1, 5)))));

    // After the adoption, the snapshot being written is a state of entries that the log does not have.
    let own = snapshots.begin(z(1, 8), Level(1)).unwrap();
    let next = snapshots.begin_received(z(1, 3), Level(1)).unwrap();
    snapshots.adopt_received(z(1, 5)).unwrap();
    assert!(matches!(own.finish(), Err(SnapshotError::Superseded { .. })));
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(1, 5)), None));
    next.finish().unwrap();
    assert_eq!(
        paths(&disk),
        [path_of_received(z(1, 3)), path(z(1, 5))],
        "a superseded snapshot leaves nothing"
    );
    write(&snapshots, z(1, 8)).unwrap();
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(1, 8)), Some(z(1, 5))));
}

#[test]
fn what_is_found_damaged_while_reading_no_longer_counts() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    for zxid in [z(1, 1), z(1, 2)] {
        let mut writer = snapshots.begin(zxid, Level(1)).unwrap();
        writer.chunk(&[1; 100]).unwrap();
        writer.chunk(&[2; 100]).unwrap();
        writer.finish().unwrap();
    }
    let mut reader = snapshots.read(z(1, 2)).unwrap();
    assert!(disk.flip_bit(&path(z(1, 2)), 200, 0));
    assert_eq!(reader.next_chunk().unwrap().unwrap(), [1; 100][..]);
    assert_eq!(snapshots.latest(), Some(z(1, 2)));
    assert!(matches!(reader.next_chunk(), Err(SnapshotError::Damaged { .. })));
    assert_eq!((snapshots.latest(), snapshots.older()), (Some(z(1, 1)), None));
    assert!(matches!(snapshots.read(z(1, 2)), Err(SnapshotError::NotThere { .. })));
    // An error of the disk proves nothing about the contents.
    disk.fail(Fault { op: DiskOp::Read, path: String::new(), skip: 0, errno: Errno::IO });
    assert!(matches!(read(&snapshots, z(1, 1)), Err(SnapshotError::Disk(_))));
    assert_eq!(snapshots.latest(), Some(z(1, 1)));
    // The state can be saved again in the place of the damaged one.
    write(&snapshots, z(1, 2)).unwrap();
    assert_eq!(read(&snapshots, z(1, 2)).unwrap(), b"first of 0x100000002");
}

#[test]
fn of_two_received_ones_that_a_crash_left_one_remains() {
    let disk = MemDisk::new();
    let (snapshots, _) = open(&disk);
    receive(&snapshots, z(2, 5)).unwrap();
    let earlier = disk.contents(&path_of_received(z(2, 5))).unwrap();
    receive(&snapshots, z(2, 9)).unwrap();
    disk.put(&path_of_received(z(2, 5)), &earlier);
    let (snapshots, report) = open(&disk);
    assert_eq!((snapshots.received(), report.skipped.len()), (Some(on(z(2, 9))), 0));
    assert_eq!(paths(&disk), [path_of_received(z(2, 9))]);
    snapshots.adopt_received(z(2, 9)).unwrap();
    assert_eq!(open(&disk).0.received(), None, "the earlier one does not come back");
}

/// A data directory with a whole log on a received snapshot at `base`, and an own snapshot before it.
fn standing_on(disk: &MemDisk, base: Zxid, behind: u32) -> Storage {
    let mut storage = storage(disk).unwrap();
    let epochs = Epochs { accepted: base.epoch(), current: base.epoch(), ..Epochs::default() };
    storage.epochs.store(epochs).unwrap();
    storage.log.append(&entries(1, 0..60)).unwrap();
    storage.log.sync().unwrap();
    write(&storage.snapshots, z(1, 50)).unwrap();
    receive(&storage.snapshots, base).unwrap();
    storage.log.reset(on(base)).unwrap();
    storage.snapshots.adopt_received(base).unwrap();
    storage.log.append(&entries(1, base.counter() + 1..=base.counter() + behind)).unwrap();
    storage.log.sync().unwrap();
    storage
}

fn storage(disk: &MemDisk) -> Result<Storage, StorageError> {
    let options = StorageOptions {
        ensemble: "e".to_owned(),
        id: PeerId(1),
        log_dir: None,
        members: three(),
        segment_bytes: 4096,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: true,
        secret: 5,
        run: 7,
        build: Build::this(),
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Storage::open(&disk, Path::new("/data"), &options)
}

/// A later leader sent a whole snapshot, and was lost. Another leader sent entries instead.
#[test]
fn a_received_snapshot_takes_no_entries_from_a_log_whose_own_one_is_damaged() {
    let disk = MemDisk::new();
    let before = standing_on(&disk, z(1, 100), 20);
    receive(&before.snapshots, z(1, 105)).unwrap();
    drop(before);
    assert!(disk.flip_bit(&path(z(1, 100)), 50, 0));
    let storage = storage(&disk).unwrap();
    assert_eq!(storage.log.history().last(), z(1, 120), "all of it was acknowledged");
    assert!(!storage.promises.damage.is_some());
    assert_eq!((storage.snapshots.latest(), storage.snapshots.received()), (Some(z(1, 105)), None));
}

#[test]
fn what_a_received_snapshot_does_take_is_noted() {
    let disk = MemDisk::new();
    let before = standing_on(&disk, z(1, 110), 10);
    // From a leader with less, which was deposed.
    receive(&before.snapshots, z(1, 105)).unwrap();
    drop(before);
    assert!(disk.flip_bit(&path(z(1, 110)), 50, 0));
    let storage = storage(&disk).unwrap();
    assert_eq!(storage.log.history().last(), z(1, 105));
    assert!(storage.promises.damage.is_some(), "entries are gone that were acknowledged");
}

#[test]
fn an_older_snapshot_is_not_taken_for_the_one_that_the_log_stands_on() {
    let disk = MemDisk::new();
    drop(standing_on(&disk, z(1, 100), 4));
    assert!(disk.flip_bit(&path(z(1, 100)), 50, 0));
    let storage = storage(&disk).unwrap();
    assert_eq!((storage.snapshots.latest(), storage.log.history().last()), (None, z(1, 104)));
    assert!(!storage.promises.damage.is_some(), "the log has all that it had");
}

#[test]
fn a_snapshot_that_the_disk_does_not_give_is_not_taken_for_a_damaged_one() {
    let disk = MemDisk::new();
    let before = standing_on(&disk, z(1, 100), 20);
    receive(&before.snapshots, z(1, 105)).unwrap();
    drop(before);
    let name = format!("{:016x}.snap", z(1, 100).0);
    disk.fail(Fault { op: DiskOp::Read, path: name, skip: 0, errno: Errno::IO });
    let refused = storage(&disk).err().unwrap();
    assert!(matches!(&refused, StorageError::Snapshots(SnapshotError::Disk(_))), "{refused}");
    let storage = storage(&disk).unwrap();
    assert_eq!((storage.snapshots.latest(), storage.log.history().last()), (Some(z(1, 100)), z(1, 120)));
    assert!(!storage.promises.damage.is_some());
}

#[test]
fn b18_the_newest_sound_snapshot_is_read_without_a_change_of_the_disk() {
    let (disk, dir) = (MemDisk::new(), Path::new("/data/snapshots"));
    assert!(Snapshots::newest_in(&disk, dir).unwrap().is_none(), "not even the directory");
    let (snapshots, _) = open(&disk);
    assert!(Snapshots::newest_in(&disk, dir).unwrap().is_none());
    write(&snapshots, z(1, 5)).unwrap();
    write(&snapshots, z(1, 9)).unwrap();
    // From a leader, and not adopted: the log does not stand on it yet.
    receive(&snapshots, z(2, 1)).unwrap();
    let before = disk.files();
    let newest = || {
        let reader = Snapshots::newest_in(&disk, dir).unwrap().unwrap();
        let zxid = reader.zxid();
        (zxid, reader.map(Result::unwrap).collect::<Vec<_>>().concat())
    };
    assert_eq!(newest(), (z(1, 9), format!("first of {}", z(1, 9)).into_bytes()));
    assert_eq!(disk.files(), before);
    assert!(disk.flip_bit(&path(z(1, 9)), 40, 0));
    assert_eq!(newest().0, z(1, 5), "an older one takes the place of a damaged one");
}

//! Recovery cuts torn tails, and never cuts damage.

use std::path::Path;

use api::{Body, Zxid};
use quorum_log::{Base, Crash, Log, LogError, LogOptions, MemDisk};

use crate::common::{
    DIR, DURABLE, assert_its_end_is_guarded, contents, copy, disk_with, entries, entry, on, open, segments,
    tiny, z,
};

/// A log in one segment; entries from `unsynced` on were never synced. Also the end of each record.
fn one_segment(count: u32, unsynced: u32) -> (MemDisk, Vec<usize>) {
    let disk = MemDisk::new();
    let mut log = open(&disk, large()).unwrap();
    log.append(&entries(1, 0..unsynced)).unwrap();
    log.sync().unwrap();
    log.append(&entries(1, unsynced..count)).unwrap();
    (disk, (0..=count as usize).map(|n| 40 + n * 96).collect())
}

fn large() -> LogOptions {
    LogOptions { segment_bytes: 4096, ..tiny() }
}

#[test]
fn f8_cut_at_every_byte_of_the_tail() {
    let (original, ends) = one_segment(6, 4);
    let path = segments(&original).remove(0);
    let bytes = original.contents(&path).unwrap();
    for cut in ends[4]..=ends[6] {
        let whole = ends.iter().rposition(|&end| end <= cut).unwrap();
        let mut zeroed = bytes.clone();
        zeroed[cut..].fill(0);
        let mut garbage = bytes.clone();
        garbage[cut..ends[6]].fill(0xa5);
        for torn in [bytes[..cut].to_vec(), zeroed, garbage] {
            let disk = disk_with(&[]);
            disk.put(&path, &torn);
            let mut log = open(&disk, large()).unwrap();
            assert_eq!(contents(&log), entries(1, 0..whole as u32), "cut at {cut}");
            let nonzero = torn.len() - torn.iter().rev().take_while(|&&b| b == 0).count();
            assert_eq!(
                log.recovery().cut_bytes as usize,
                nonzero.saturating_sub(ends[whole]),
                "cut at {cut}"
            );
            // Twice, then the log continues.
            log.append(&entries(1, whole as u32..whole as u32 + 3)).unwrap();
            log.sync().unwrap();
            disk.crash(Crash::LoseUnsynced);
            let log = open(&disk, large()).unwrap();
            assert_eq!(log.recovery().cut_bytes, 0);
            assert_eq!(contents(&log), entries(1, 0..whole as u32 + 3));
        }
    }
}

#[test]
fn a_batch_of_which_only_the_end_reached_the_disk_is_a_torn_tail() {
    // A disk writes sectors in any order. The valid records behind the hole were never reported as
    // durable.
    let (disk, ends) = one_segment(20, 4);
    let path = segments(&disk).remove(0);
    let mut bytes = disk.contents(&path).unwrap();
    bytes[ends[4]..ends[4] + 512].fill(0);
    disk.put(&path, &bytes);
    let log = open(&disk, large()).unwrap();
    assert_eq!(contents(&log), entries(1, 0..4));
    assert_eq!(log.recovery().cut_bytes as usize, ends[20] - ends[4]);
}

#[test]
fn f9_a_flipped_bit_in_anything_durable_is_damage_and_nothing_is_changed() {
    let disk = disk_with(&entries(1, 0..12));
    let paths = segments(&disk);
    assert!(paths.len() > 3);
    let mut flips = 0;
    for path in &paths {
        let bytes = disk.contents(path).unwrap();
        let written = bytes.len() - bytes.iter().rev().take_while(|&&b| b == 0).count();
        // The mark at the end is no entry: without it the log is equally sound.
        let records = 40 + (written - 40) / 96 * 96;
        for at in (0..records).filter(|at| !matches!(at, 36..40)) {
            assert!(disk.flip_bit(path, at as u64, (at % 8) as u8));
            let before = disk.files();
            let error = open(&disk, tiny()).err().unwrap_or_else(|| panic!("{} byte {at}", path.display()));
            let LogError::Damaged { segment, offset, .. } = &error else { panic!("{error}") };
            assert!(segment == path && *offset as usize <= at, "{error}");
            assert!(error.to_string().contains("heals from its leader"), "{error}");
            assert_eq!(disk.files(), before);
            assert!(disk.flip_bit(path, at as u64, (at % 8) as u8));
            flips += 1;
        }
    }
    assert!(flips > 1000);
    assert_eq!(contents(&open(&disk, tiny()).unwrap()), entries(1, 0..12));
}

#[test]
fn f10_f12_zeroed_blocks_lost_writes_and_missing_segments_are_damage() {
    let all = entries(1, 0..12);
    let paths = segments(&disk_with(&all));
    for (i, path) in paths.iter().enumerate() {
        let disk = disk_with(&all);
        let mut bytes = disk.contents(path).unwrap();
        bytes[40..136].fill(0);
        disk.put(path, &bytes);
        let error = open(&disk, tiny()).err().unwrap();
        assert!(
            matches!(&error, LogError::Damaged { segment, offset: 40, .. } if segment == path),
            "{error}"
        );

        let disk = disk_with(&all);
        quorum_log::Disk::remove(&disk, path).unwrap();
        let opened = open(&disk, tiny());
        if i == 0 {
            // Not visible here: the caller compares the base with its snapshots.
            assert_ne!(contents(&opened.unwrap()), all);
        } else {
            let error = opened.err().unwrap();
            assert!(
                matches!(&error, LogError::Damaged { segment, .. } if *segment == paths[i - 1]),
                "{error}"
            );
        }

        // The disk wrote this segment in the place of another one.
        let disk = disk_with(&all);
        disk.put(&paths[(i + 1) % paths.len()], &disk.contents(path).unwrap());
        assert!(matches!(open(&disk, tiny()), Err(LogError::Damaged { offset: 0, .. })));
    }
}

#[test]
fn f12_lost_last_writes_are_damage() {
    // The disk reported a sync and lost the last blocks: records, and the mark behind them.
    let (original, ends) = one_segment(6, 6);
    let path = segments(&original).remove(0);
    for left in 0..6 {
        for lost in [6, left + 1] {
            let disk = copy(&original);
            let mut bytes = disk.contents(&path).unwrap();
            bytes[ends[left]..ends[lost]].fill(0);
            bytes[ends[6]..].fill(0);
            disk.put(&path, &bytes);
            let before = disk.files();
            let error = open(&disk, large()).err().unwrap();
            let LogError::Damaged { offset, .. } = &error else { panic!("{error}") };
            assert_eq!(*offset as usize, ends[left], "{error}");
            assert_eq!(disk.files(), before);
            Log::salvage(&disk, Path::new(DIR), &large(), Base::EMPTY).unwrap();
            assert_eq!(contents(&open(&disk, large()).unwrap()), entries(1, 0..left as u32));
        }
    }
    // The whole log, but not the file that proves its existence.
    let disk = copy(&original);
    quorum_log::Disk::remove(&disk, &path).unwrap();
    assert!(matches!(open(&disk, large()), Err(LogError::Damaged { .. })));
    Log::salvage(&disk, Path::new(DIR), &large(), on(z(1, 3))).unwrap();
    assert_eq!(open(&disk, large()).unwrap().history().last(), z(1, 3));
}

#[test]
fn without_the_file_that_says_what_was_durable_an_end_is_an_end() {
    let (original, ends) = one_segment(6, 6);
    let path = segments(&original).remove(0);
    let good = original.contents(Path::new(DURABLE)).unwrap();
    let flips = (0..28 * 8).map(|bit| {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    for bad in flips.chain([Vec::new(), vec![0; 40], good[..39].to_vec(), b"rubbish".repeat(1000)]) {
        let disk = copy(&original);
        disk.put(Path::new(DURABLE), &bad);
        assert_eq!(contents(&open(&disk, large()).unwrap()), entries(1, 0..6), "no damage");
        assert_its_end_is_guarded(&disk, &large());

        disk.put(Path::new(DURABLE), &bad);
        let mut bytes = disk.contents(&path).unwrap();
        bytes[ends[4]..].fill(0);
        disk.put(&path, &bytes);
        assert_eq!(contents(&open(&disk, large()).unwrap()), entries(1, 0..4));
    }
    let disk = copy(&original);
    quorum_log::Disk::remove(&disk, Path::new(DURABLE)).unwrap();
    drop(open(&disk, large()).unwrap());
    disk.crash(Crash::LoseUnsynced);
    assert_its_end_is_guarded(&disk, &large());
}

#[test]
fn a_record_in_the_place_of_another_one_is_damage() {
    let (disk, ends) = one_segment(6, 6);
    let path = segments(&disk).remove(0);
    let mut bytes = disk.contents(&path).unwrap();
    bytes.copy_within(ends[0]..ends[1], ends[3]);
    disk.put(&path, &bytes);
    let error = open(&disk, large()).err().unwrap();
    let LogError::Damaged { offset, zxid_before, .. } = error else { panic!("{error}") };
    assert_eq!((offset as usize, zxid_before), (ends[3], z(1, 2)));
}

#[test]
fn a_client_cannot_forge_the_end_of_the_log() {
    // The payload is a copy of a record, which would count only in its original position.
    let (disk, ends) = one_segment(4, 4);
    let path = segments(&disk).remove(0);
    let stolen = disk.contents(&path).unwrap()[ends[2]..ends[4] + 16].to_vec();
    let mut log = open(&disk, large()).unwrap();
    let mut forged = entry(z(1, 4), 0, 0);
    forged.body = Body::Store([stolen, vec![1; 100]].concat().into());
    log.append(&[forged]).unwrap();
    drop(log);
    let mut bytes = disk.contents(&path).unwrap();
    bytes[ends[4] + 8] ^= 1;
    disk.put(&path, &bytes);
    let log = open(&disk, large()).unwrap();
    assert_eq!(contents(&log), entries(1, 0..4));
}

#[test]
fn a_client_cannot_forge_a_mark() {
    // A client knows the format but not the salt. It writes marks that claim the greatest possible
    // durable zxid, one for each possible position of its payload.
    let (disk, ends) = one_segment(4, 4);
    let path = segments(&disk).remove(0);
    let mut log = open(&disk, large()).unwrap();
    let payload_at = ends[4] + 60;
    let mut payload = Vec::new();
    for guess in (payload_at - 320..payload_at + 320).step_by(8) {
        for salted in [false, true] {
            let position = (guess + payload.len()) as u64;
            let crc = if salted { crc32c::crc32c(&[0; 4]) } else { 0 };
            let crc = crc32c::crc32c_append(crc, &position.to_le_bytes());
            let crc = crc32c::crc32c_append(crc, &[0xff; 12]);
            payload.extend_from_slice(&[0xff; 4]);
            payload.extend_from_slice(&crc.to_le_bytes());
            payload.extend_from_slice(&[0xff; 8]);
        }
    }
    let mut forged = entry(z(1, 4), 0, 0);
    forged.body = Body::Store(payload.into());
    log.append(&[forged]).unwrap();
    drop(log);
    // A power cut: the sector with the head of the record was not written.
    let mut bytes = disk.contents(&path).unwrap();
    bytes[ends[4] + 8] ^= 1;
    disk.put(&path, &bytes);
    let log = open(&disk, large()).unwrap();
    assert_eq!(contents(&log), entries(1, 0..4), "a torn tail, and no damage");
}

#[test]
fn a_record_of_another_segment_of_the_same_name_is_none() {
    // The disk returns an old block: position, chain and checksum are right except for the salt.
    let (disk, ends) = one_segment(6, 6);
    let path = segments(&disk).remove(0);
    let (other, _) = one_segment(6, 6);
    let mut bytes = disk.contents(&path).unwrap();
    let fresh = MemDisk::new();
    let mut log = open(&fresh, LogOptions { secret: 99, ..large() }).unwrap();
    log.append(&entries(1, 0..6)).unwrap();
    log.sync().unwrap();
    let old = fresh.contents(&path).unwrap();
    assert_eq!(bytes, other.contents(&path).unwrap(), "the same secret gives the same bytes");
    bytes[ends[2]..ends[3]].copy_from_slice(&old[ends[2]..ends[3]]);
    disk.put(&path, &bytes);
    let error = open(&disk, large()).err().unwrap();
    assert!(matches!(error, LogError::Damaged { offset, .. } if offset as usize == ends[2]), "{error}");
}

#[test]
fn another_format_is_named_as_such() {
    let disk = disk_with(&entries(1, 0..3));
    let path = segments(&disk).remove(0);
    let mut bytes = disk.contents(&path).unwrap();
    for other in [1, 2, 3, 4, 6] {
        bytes[8] = other;
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        disk.put(&path, &bytes);
        let before = disk.files();
        let error = open(&disk, tiny()).err().unwrap();
        assert!(
            matches!(error, LogError::Version { found, known: 5, .. } if found == other.into()),
            "{error}"
        );
        assert!(error.to_string().contains("start the version that wrote it"), "{error}");
        assert_eq!(disk.files(), before);
    }
}

#[test]
fn a_damaged_note_of_a_reset_is_damage() {
    let disk = disk_with(&entries(1, 0..3));
    disk.put(Path::new("/data/log/reset"), b"rubbish");
    assert!(matches!(open(&disk, tiny()), Err(LogError::Damaged { offset: 0, zxid_before: Zxid::ZERO, .. })));
}

//! Salvage of a damaged log.

use std::path::{Path, PathBuf};

use api::Entry;
use quorum_log::{Base, Crash, Log, LogError, LogOptions, MemDisk};

use crate::common::{DIR, contents, crashes, disk_with, entries, on, open, segments, tiny, z};

fn salvage(disk: &MemDisk) -> Result<Vec<PathBuf>, LogError> {
    Log::salvage(disk, Path::new(DIR), &tiny(), Base::EMPTY)
}

/// Salvages the log, and checks that the result is a sound beginning of `all` with at least this number
/// of entries.
fn salvaged(disk: &MemDisk, all: &[Entry], at_least: usize) -> Vec<PathBuf> {
    assert!(matches!(open(disk, tiny()), Err(LogError::Damaged { .. })));
    let aside = salvage(disk).unwrap();
    let mut log = open(disk, tiny()).unwrap();
    let kept = contents(&log);
    assert!(kept.len() >= at_least && all.starts_with(&kept), "{} entries are left", kept.len());
    // The log continues from there.
    log.append(&all[kept.len()..]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert_eq!(contents(&open(disk, tiny()).unwrap()), all);
    aside
}

#[test]
fn f9_whatever_stands_before_a_flipped_bit_is_kept_and_nothing_is_thrown_away() {
    let all = entries(1, 0..12);
    let paths = segments(&disk_with(&all));
    let mut before = 0;
    for path in &paths {
        let written = contents_of_segment(path, &all);
        for at in (0..40 + written * 96).filter(|at| !matches!(at, 36..40)).step_by(5) {
            let disk = disk_with(&all);
            let original = disk.files();
            assert!(disk.flip_bit(path, at as u64, (at % 8) as u8));
            let at_least = before + at.saturating_sub(40) / 96;
            let aside = salvaged(&disk, &all, if at < 40 { before } else { at_least });
            // The damaged file is among the files put aside, unchanged except for the flipped bit.
            let mut flipped = original[path].clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(aside.iter().any(|p| disk.contents(p) == Some(flipped.clone())), "{aside:?}");
        }
        before += written;
    }
}

fn contents_of_segment(path: &Path, all: &[Entry]) -> usize {
    let first = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
    // A segment of 400 bytes has room for three records of 96 bytes and a mark.
    all.iter().filter(|e| e.zxid.0 >= first).count().min(3)
}

#[test]
fn a_crash_in_the_middle_of_it_changes_nothing() {
    let all = entries(1, 0..12);
    let path = segments(&disk_with(&all)).remove(1);
    for step in 0.. {
        let disk = disk_with(&all);
        assert!(disk.flip_bit(&path, 40 + 96 + 20, 3));
        disk.power_off_after(step);
        let done = salvage(&disk).is_ok();
        disk.crash(Crash::Random(step));
        if matches!(open(&disk, tiny()), Err(LogError::Damaged { .. })) {
            salvage(&disk).unwrap();
        }
        let kept = contents(&open(&disk, tiny()).unwrap());
        assert!(kept.len() >= 4 && all.starts_with(&kept), "step {step}: {} entries are left", kept.len());
        if done {
            assert!(step > 5, "it takes several steps");
            return;
        }
    }
}

#[test]
fn a_crash_while_nothing_is_sound_leaves_a_log() {
    // A node with a promise refuses to start without a log.
    let strict = || LogOptions { may_create: false, ..tiny() };
    let all = entries(1, 0..12);
    let path = segments(&disk_with(&all)).remove(0);
    for crash in crashes() {
        for step in 0.. {
            let disk = disk_with(&all);
            assert!(disk.flip_bit(&path, 3, 3));
            disk.power_off_after(step);
            let done = salvage(&disk).is_ok();
            disk.crash(crash);
            if matches!(open(&disk, strict()), Err(LogError::Damaged { .. })) {
                salvage(&disk).unwrap();
            }
            let kept = contents(&open(&disk, strict()).unwrap_or_else(|e| panic!("step {step}: {e}")));
            assert_eq!(kept, [], "step {step}");
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_log_without_a_sound_beginning_goes_on_behind_the_snapshot() {
    let all = entries(1, 0..12);
    let disk = disk_with(&all);
    let path = segments(&disk).remove(0);
    assert!(disk.flip_bit(&path, 3, 3));
    Log::salvage(&disk, Path::new(DIR), &tiny(), on(z(1, 5))).unwrap();
    let log = open(&disk, tiny()).unwrap();
    assert_eq!((log.history().base(), log.history().last()), (z(1, 5), z(1, 5)));

    let disk = disk_with(&all);
    disk.put(&Path::new(DIR).join("reset"), b"rubbish");
    Log::salvage(&disk, Path::new(DIR), &tiny(), on(z(1, 9))).unwrap();
    assert_eq!(open(&disk, tiny()).unwrap().history().base(), z(1, 9));
    let aside = disk.files().into_keys().filter(|p| p.to_string_lossy().contains(".damaged")).count();
    assert!(aside > 3, "all segments");
}

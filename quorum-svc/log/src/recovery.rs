use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Body, Build, History, Level, LevelHistory, Roster, RosterHistory, Zxid};

use crate::disk::{self, Disk, DiskError, Doing};
use crate::durable_file::DurableFile;
use crate::error::LogError;
use crate::format::{self, BadHeader, HEADER_LEN, Header, Item, MARK_LEN, Magic, PREFIX_LEN, Salt, VERSION};
use crate::log::LogOptions;
use crate::members;
use crate::segment::{self, Segment};

/// The findings and actions of opening the log.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// There was no log, and [`LogOptions::may_create`] allowed to create an empty one.
    pub created: bool,
    /// Bytes of a torn tail that were cut: the remains of entries that were never reported as durable.
    pub cut_bytes: u64,
    /// A reset that a crash had interrupted was completed.
    pub completed_reset: bool,
    /// Number of files.
    pub segments: usize,
    /// Number of entries.
    pub entries: u64,
}

/// The recovered log.
pub(crate) struct Recovered {
    pub(crate) history: History,
    pub(crate) levels: LevelHistory,
    pub(crate) rosters: RosterHistory,
    /// All segments but the last, ascending.
    pub(crate) sealed: Vec<Segment>,
    /// The last segment.
    pub(crate) active: Segment,
    pub(crate) durable_file: DurableFile,
    pub(crate) report: Recovery,
}

/// Reads and checks the whole log, then makes its content durable. Changes nothing before the whole log
/// is known to be sound.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, options: &LogOptions) -> Result<Recovered, LogError> {
    if !options.may_create && !is_log(disk, dir)? {
        return Err(LogError::Missing { dir: dir.to_owned() });
    }
    disk::create_dirs(disk, dir)?;
    let mut report = Recovery::default();
    if let Some(reset) = interrupted_reset(disk, dir)? {
        check_level(dir, reset.level, &options.build)?;
        finish_reset(disk, dir, &reset, options)?;
        report.completed_reset = true;
    }
    let names = disk.list(dir).doing("list", dir)?;
    let mut scans: Vec<Scan> = Vec::new();
    for name in names.iter().filter(|n| segment::is_name(n)) {
        let scan = Scan::read(disk, dir, name, options)?;
        if let Some(before) = scans.last_mut() {
            before.check_border(&scan)?;
            // Only the last scan may need its contents again.
            before.contents = Vec::new();
        }
        scans.push(scan);
    }
    let known = DurableFile::read(disk, dir)?.unwrap_or(Zxid::ZERO);
    let last = scans.pop();
    match &last {
        Some(last) => last.check_tail(known)?,
        None if known > Zxid::ZERO => return Err(all_lost(dir, known)),
        None => {}
    }
    let mut levels =
        LevelHistory::from_base(scans.first().or(last.as_ref()).and_then(|scan| scan.segment.level));
    for &(zxid, level) in scans.iter().chain(&last).flat_map(|scan| &scan.levels) {
        levels.append(zxid, level);
    }
    check_level(dir, levels.last(), &options.build)?;
    let base = scans.first().or(last.as_ref()).map_or(Zxid::ZERO, |scan| scan.segment.prev);
    let mut rosters = RosterHistory::from_base(members::read(disk, dir, base)?);
    for roster in scans.iter().chain(&last).flat_map(|scan| &scan.rosters) {
        rosters.append(roster.clone());
    }

    for name in names.iter().filter(|n| n.ends_with(".tmp")) {
        let path = dir.join(name);
        disk.remove(&path).doing("remove", &path)?;
    }
    // The previous process may have ended between a change of names and its sync.
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    let mut last = match last {
        Some(last) => last,
        None => {
            report.created = true;
            Scan::of_new(new_segment(disk, dir, &Base::EMPTY, options)?)
        }
    };
    report.cut_bytes = last.make_durable()?;
    let durable_file = DurableFile::open(disk, dir, last.segment.last)?;
    report.segments = scans.len() + 1;
    let mut history = History::from_base(scans.first().unwrap_or(&last).segment.prev);
    for &(zxid, _) in scans.iter().chain([&last]).flat_map(|s| &s.records) {
        let chained = history.append(zxid);
        debug_assert!(chained, "the scan has checked it");
        report.entries += 1;
    }
    let sealed = scans.into_iter().map(|s| s.segment).collect();
    Ok(Recovered { history, levels, rosters, sealed, active: last.segment, durable_file, report })
}

/// Refuses a log at a level that this build does not know, whether that level is committed or not.
pub(crate) fn check_level(dir: &Path, level: Option<Level>, build: &Build) -> Result<(), LogError> {
    let checked = level.map_or(Ok(()), |level| build.check("this node", level));
    checked.map_err(|why| LogError::Level { dir: dir.to_owned(), why })
}

/// The base of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    /// Zxid of the state before the first entry.
    pub zxid: Zxid,
    /// The feature level of that state.
    pub level: Option<Level>,
    /// The members there; `None`: those of the first start.
    pub roster: Option<Arc<Roster>>,
}

impl Base {
    /// The base of a new log.
    pub const EMPTY: Base = Base { zxid: Zxid::ZERO, level: None, roster: None };
}

/// Stores that the log will be emptied and continue after `base`. After this call the reset completes
/// even if the process crashes.
pub(crate) fn begin_reset(disk: &dyn Disk, dir: &Path, base: &Base) -> Result<(), DiskError> {
    let mut note = format::encode_header(Magic::Reset, base.zxid, Salt::NONE, base.level).to_vec();
    format::encode_members(&mut note, base.roster.as_deref());
    disk::write_atomically(disk, dir, RESET, &note)
}

/// Executes the reset that [`begin_reset`] stored. May be repeated after a crash at any point.
pub(crate) fn finish_reset(
    disk: &dyn Disk,
    dir: &Path,
    base: &Base,
    options: &LogOptions,
) -> Result<Segment, DiskError> {
    for name in disk.list(dir).doing("list", dir)?.iter().filter(|n| segment::is_name(n)) {
        let path = dir.join(name);
        disk.remove(&path).doing("remove", &path)?;
    }
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    members::write(disk, dir, base.zxid, base.roster.iter())?;
    let segment = new_segment(disk, dir, base, options)?;
    // While the note exists, the content of this file does not matter.
    DurableFile::open(disk, dir, base.zxid)?;
    let note = dir.join(RESET);
    disk.remove(&note).doing("remove", &note)?;
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    Ok(segment)
}

/// Creates an empty segment, with the space of the reserve if needed.
fn new_segment(disk: &dyn Disk, dir: &Path, base: &Base, options: &LogOptions) -> Result<Segment, DiskError> {
    let least = (HEADER_LEN + MARK_LEN) as u64;
    Segment::with_room(disk, dir, options.segment_bytes, least, |len| {
        Segment::create(disk, dir, base, len, options.secret)
    })
}

/// Whether the directory has a log, or the note of a reset.
pub(crate) fn is_log(disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
    if !disk.exists(dir).doing("look for", dir)? {
        return Ok(false);
    }
    let names = disk.list(dir).doing("list", dir)?;
    Ok(names.iter().any(|name| segment::is_name(name) || name == RESET))
}

fn interrupted_reset(disk: &dyn Disk, dir: &Path) -> Result<Option<Base>, LogError> {
    let note = dir.join(RESET);
    if !disk.exists(&note).doing("look for", &note)? {
        return Ok(None);
    }
    let contents = disk::read_file(disk, &note)?;
    let header = format::decode_header(Magic::Reset, &contents).map_err(|e| bad_header(&note, e))?;
    // The previous process may have renamed the file without a sync.
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    let block = contents.get(HEADER_LEN..).unwrap_or_default();
    let (roster, _) = format::decode_members(block).map_err(|found| damaged(&note, 0, Zxid::ZERO, found))?;
    Ok(Some(Base { zxid: header.zxid, level: header.level, roster }))
}

/// Makes a log usable again that [`recover`] found damaged. It keeps the sound part before the damage
/// and puts everything else aside. Without a sound beginning the log continues empty after `base`.
/// Returns the moved or copied files. May be repeated after a crash at any point.
pub(crate) fn salvage(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
    base: Base,
) -> Result<Vec<PathBuf>, LogError> {
    let names: Vec<String> =
        disk.list(dir).doing("list", dir)?.into_iter().filter(|n| segment::is_name(n)).collect();
    let mut sound: Option<Scan> = None;
    let mut count = 0;
    let is_damaged = |read: Result<(), LogError>| match read {
        Ok(()) => Ok(false),
        Err(LogError::Damaged { .. }) => Ok(true),
        Err(other) => Err(other),
    };
    let half_emptied = is_damaged(interrupted_reset(disk, dir).map(drop))?;
    // A log whose base has unknown members is worth no more than one without its beginning.
    let half_emptied = is_damaged(members::read(disk, dir, Zxid::ZERO).map(drop))? || half_emptied;
    for name in names.iter().filter(|_| !half_emptied) {
        let scan = match Scan::read(disk, dir, name, options) {
            Ok(scan) => scan,
            Err(LogError::Damaged { .. }) => break,
            Err(other) => return Err(other),
        };
        if sound.as_ref().is_some_and(|before| before.check_border(&scan).is_err()) {
            break;
        }
        sound = Some(scan);
        count += 1;
    }
    let mut aside = Vec::new();
    // Moves them durably one by one, the last first, so a crash leaves no hole.
    for (n, name) in names.iter().enumerate().skip(count).rev() {
        if n == 0 {
            // A log exists at any time. A crash at this point costs at most this copy of the damaged
            // part.
            begin_reset(disk, dir, &base)?;
        }
        let (from, to) = (dir.join(name), free_name(disk, dir, name)?);
        disk.rename(&from, &to).doing("rename", &from)?;
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        aside.push(to);
    }
    let Some(mut last) = sound else {
        if names.is_empty() {
            begin_reset(disk, dir, &base)?;
        }
        return Ok(aside);
    };
    if last.garbage > 0 {
        let name = names.get(count - 1).map_or("", String::as_str);
        let copy = free_name(disk, dir, name)?;
        let file = disk.create(&copy).doing("create", &copy)?;
        file.write_at(&last.contents, 0).doing("write to", &copy)?;
        file.sync_all().doing("sync", &copy)?;
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        aside.push(copy);
        last.segment.cut()?;
    }
    // At the end, so that a crash before it repeats the whole procedure.
    if DurableFile::read(disk, dir)?.is_some_and(|known| known > last.segment.last) {
        DurableFile::open(disk, dir, last.segment.last)?;
    }
    Ok(aside)
}

/// Removes damaged files until at most [`DAMAGED_FILES`] and [`DAMAGED_BYTES`] are left: first older
/// files, the oldest first, then new ones, the part farthest behind the damage first. The first of
/// `aside` stays in any case. Returns the removed files.
pub(crate) fn bound_damaged(
    disk: &dyn Disk,
    dir: &Path,
    aside: &[PathBuf],
) -> Result<Vec<PathBuf>, DiskError> {
    let names = disk.list(dir).doing("list", dir)?;
    let damaged = names.iter().filter(|n| n.contains(".log.damaged")).map(|n| dir.join(n));
    let (mut now, mut before): (Vec<PathBuf>, Vec<PathBuf>) = damaged.partition(|path| aside.contains(path));
    // The most valuable first.
    now.sort_unstable();
    before.sort_unstable_by(|one, other| other.cmp(one));
    let (mut bytes, mut removed) = (0, Vec::new());
    for (n, path) in now.into_iter().chain(before).enumerate() {
        bytes += disk.open(&path).and_then(|file| file.len()).doing("find the length of", &path)?;
        if n > 0 && (n >= DAMAGED_FILES || bytes > DAMAGED_BYTES) {
            disk.remove(&path).doing("remove", &path)?;
            removed.push(path);
        }
    }
    disk.sync_dir(dir).doing("sync the directory", dir)?;
    Ok(removed)
}

/// A free name for the rest of a damaged segment.
fn free_name(disk: &dyn Disk, dir: &Path, segment: &str) -> Result<PathBuf, DiskError> {
    let mut path = dir.join(format!("{segment}.damaged"));
    let mut n = 1;
    while disk.exists(&path).doing("look for", &path)? {
        n += 1;
        path = dir.join(format!("{segment}.damaged-{n}"));
    }
    Ok(path)
}

/// The content of a segment.
struct Scan {
    segment: Segment,
    /// Zxid and position of each valid record of the chain.
    records: Vec<(Zxid, u64)>,
    /// The feature levels in its records.
    levels: Vec<(Zxid, Level)>,
    /// The members in its records.
    rosters: Vec<Arc<Roster>>,
    /// The greatest zxid that a part of the chain proves to have been durable.
    proven: Zxid,
    /// The greatest zxid that bytes after the end of the chain prove to have been durable.
    witness: Zxid,
    /// Bytes after the chain and its mark, before the final zeros.
    garbage: u64,
    contents: Vec<u8>,
}

impl Scan {
    fn read(disk: &dyn Disk, dir: &Path, name: &str, options: &LogOptions) -> Result<Scan, LogError> {
        let path = dir.join(name);
        let file: Arc<dyn disk::DiskFile> = disk.open(&path).doing("open", &path)?.into();
        let contents = disk::read_whole(file.as_ref(), &path)?;
        let header = format::decode_header(Magic::Segment, &contents).map_err(|e| bad_header(&path, e))?;
        let Header { zxid: prev, salt, level } = header;
        if segment::name(prev) != name {
            let found = format!("its header says that its name is {}", segment::name(prev));
            return Err(damaged(&path, 0, prev, &found));
        }
        let end = HEADER_LEN as u64;
        let len = contents.len() as u64;
        let mut scan = Scan {
            segment: Segment { path, file, salt, prev, level, last: prev, end, len, index: Vec::new() },
            records: Vec::new(),
            levels: Vec::new(),
            rosters: Vec::new(),
            proven: prev,
            witness: Zxid::ZERO,
            garbage: 0,
            contents,
        };
        scan.follow_chain(options.index_interval_bytes)?;
        Ok(scan)
    }

    fn of_new(segment: Segment) -> Scan {
        let proven = segment.prev;
        let (records, levels, rosters, contents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Scan { segment, records, levels, rosters, proven, witness: Zxid::ZERO, garbage: 0, contents }
    }

    /// # Errors
    /// This version does not know a record.
    fn follow_chain(&mut self, index_interval: u64) -> Result<(), LogError> {
        let contents = std::mem::take(&mut self.contents);
        let mut at = HEADER_LEN;
        loop {
            match format::decode(contents.get(at..).unwrap_or_default(), at as u64, self.segment.salt) {
                Item::Record(r) if r.prev == self.segment.last => {
                    let body =
                        r.own_body().map_err(|unknown| self.segment.unknown(at as u64, r.zxid, unknown))?;
                    let level = body.as_ref().and_then(Body::level);
                    self.levels.extend(level.map(|level| (r.zxid, level)));
                    self.rosters.extend(body.as_ref().and_then(Body::roster).cloned());
                    self.records.push((r.zxid, at as u64));
                    self.segment.note(r.zxid, at as u64, r.len() as u64, index_interval);
                    self.proven = self.proven.max(r.durable);
                    at += r.len();
                }
                Item::Mark { durable } if durable <= self.segment.last => {
                    self.proven = self.proven.max(durable);
                    at += MARK_LEN;
                    break;
                }
                _ => break,
            }
        }
        let behind = contents.get(at..).unwrap_or_default();
        self.garbage = nonzero_len(behind) as u64;
        self.witness = greatest_witness(behind, at as u64, self.segment.salt);
        self.contents = contents;
        Ok(())
    }

    /// Checks that the next segment begins at the end of this one: a segment is created only after all
    /// entries before it are durable.
    fn check_border(&self, next: &Scan) -> Result<(), LogError> {
        let (last, next_prev) = (self.segment.last, next.segment.prev);
        if last == next_prev {
            return Ok(());
        }
        let found = format!(
            "its records end with {last}, but the next segment, {}, goes on behind {next_prev}",
            next.segment.path.display()
        );
        Err(damaged(&self.segment.path, self.segment.end, last, &found))
    }

    /// Distinguishes a torn tail from damage; see [`crate::format`]. The log is known to have been
    /// durable up to `known`.
    fn check_tail(&self, known: Zxid) -> Result<(), LogError> {
        let last = self.segment.last;
        let found = if self.witness > last {
            format!("no valid record, though what lies behind says that {} was durable", self.witness)
        } else if known > last {
            format!("the log ends here, though the file `durable` says that {known} was durable")
        } else {
            return Ok(());
        };
        Err(damaged(&self.segment.path, self.segment.end, last, &found))
    }

    /// Cuts a torn tail and makes all entries durable. Returns the number of cut bytes.
    fn make_durable(&mut self) -> Result<u64, LogError> {
        if self.garbage > 0 {
            self.segment.cut()?;
        }
        let segment = &self.segment;
        // The previous process may have ended because of a failed fsync. Then its last writes are
        // readable from the page cache, but the kernel treats them as written. Only another write
        // brings them to the disk: the records without proof, and the zeros of a truncation up to the
        // end of their block.
        let from =
            self.records.iter().find(|&&(zxid, _)| zxid > self.proven).map_or(segment.end, |&(_, at)| at);
        let block_end = segment.end.next_multiple_of(BLOCK).min(segment.len);
        let range = |from, to| usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(0);
        let mut tail = self.contents.get(range(from, segment.end)).unwrap_or_default().to_vec();
        tail.resize(range(from, block_end).len(), 0);
        segment.file.write_at(&tail, from).doing("write to", &segment.path)?;
        segment.file.sync_all().doing("sync", &segment.path)?;
        segment.mark(segment.last)?;
        Ok(self.garbage)
    }
}

/// The greatest durable zxid in any head of a record or mark in these bytes, at any position. Linear in
/// the number of bytes for any content.
fn greatest_witness(bytes: &[u8], position: u64, salt: Salt) -> Zxid {
    let mut greatest = Zxid::ZERO;
    let mut at = 0;
    while bytes.len().saturating_sub(at) >= PREFIX_LEN {
        // Preallocated space is long and empty.
        if bytes[at..].starts_with(&ZEROS) {
            at += ZEROS.len() - PREFIX_LEN;
            continue;
        }
        greatest =
            greatest.max(format::witness(&bytes[at..], position + at as u64, salt).unwrap_or_default());
        at += 1;
    }
    greatest
}

/// Length of the bytes without their trailing zeros.
fn nonzero_len(bytes: &[u8]) -> usize {
    let mut len = bytes.len();
    while len > 0 {
        let from = len.saturating_sub(ZEROS.len());
        if bytes[from..len] != ZEROS[..len - from] {
            return from + bytes[from..len].iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
        }
        len = from;
    }
    0
}

fn all_lost(dir: &Path, known: Zxid) -> LogError {
    let found = format!("it is gone, though the file `durable` says that {known} was durable");
    damaged(&dir.join(segment::name(Zxid::ZERO)), 0, Zxid::ZERO, &found)
}

pub(crate) fn bad_header(path: &Path, bad: BadHeader) -> LogError {
    match bad {
        BadHeader::Version(found) => LogError::Version { path: path.to_owned(), found, known: VERSION },
        BadHeader::Damaged(found) => damaged(path, 0, Zxid::ZERO, found),
    }
}

pub(crate) fn damaged(path: &Path, offset: u64, zxid_before: Zxid, found: &str) -> LogError {
    LogError::Damaged { segment: path.to_owned(), offset, zxid_before, found: found.to_owned() }
}

/// Maximum number and total bytes of damaged files put aside. They are for inspection, not for use.
const DAMAGED_FILES: usize = 8;
const DAMAGED_BYTES: u64 = 512 << 20;

/// The note of a reset, with the new base.
const RESET: &str = "reset";

/// The largest block of the usual file systems.
const BLOCK: u64 = 4096;

/// The unit of skipped zeros.
static ZEROS: [u8; 4096] = [0; 4096];

use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::mutants::{Mutant, is_on};
use api::{Build, Entry, History, LevelHistory, RosterHistory, Zxid};

use crate::disk::{Disk, Doing};
use crate::durable_file::DurableFile;
use crate::error::LogError;
use crate::format::{self, HEADER_LEN, MARK_LEN, MAX_PAYLOAD};
use crate::members;
use crate::reader::{LogReader, Shared, State, Window};
use crate::recovery::{self, Base, Recovered, Recovery};
use crate::segment::Segment;

/// Settings of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// Space that each file reserves. A file for a larger entry is larger.
    pub segment_bytes: u64,
    /// Maximum weight of the newest entries kept in memory, by [`Entry::weight`].
    pub window_bytes: usize,
    /// The log remembers the position of one entry for every `index_interval_bytes` bytes. This bounds
    /// the extra bytes of a read from the middle.
    pub index_interval_bytes: u64,
    /// Whether to create an empty log if there is none. A node that has ever promised to keep entries
    /// must set `false`: its log was lost, and an empty one could undo commits of the ensemble.
    pub may_create: bool,
    /// A random number that is secret to the node. A client that knew it could write bytes that look
    /// like records of the log. It may differ between starts.
    pub secret: u64,
    /// The build of this program. It does not open a log at a level that it does not know.
    pub build: Build,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            window_bytes: 32 << 20,
            index_interval_bytes: 64 << 10,
            may_create: true,
            secret: 0,
            build: Build::this(),
        }
    }
}

/// The replicated log of one node, in the files that [`crate::format`] describes. One thread owns and
/// writes it; others read through a [`LogReader`].
///
/// After an error of the disk the log is poisoned: the content of the disk is unknown, and every later
/// call fails.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    shared: Arc<Shared>,
    /// As in `shared`, but readable without a lock.
    history: History,
    /// Zxid reached by the last successful sync; at most the last zxid.
    durable: Zxid,
    /// Stores `durable` on the disk.
    durable_file: DurableFile,
    recovery: Recovery,
    /// One encoded batch; kept for its capacity.
    buffer: Vec<u8>,
    poisoned: Option<String>,
}

impl Log {
    /// Opens the log in the directory `dir`, or creates an empty one after `Zxid::ZERO` if it
    /// [may](LogOptions::may_create). It reads and checks the whole log and cuts a torn tail; the rest is
    /// durable.
    ///
    /// # Errors
    /// Damage, a missing log that may not be created, another format version, an unknown record or
    /// feature level, or a failure of the disk. Nothing has changed then, except possibly after a
    /// failure of the disk.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: LogOptions) -> Result<Log, LogError> {
        let Recovered { history, levels, rosters, sealed, active, durable_file, report } =
            recovery::recover(disk.as_ref(), dir, &options)?;
        let last = history.last();
        let state = State {
            history: history.clone(),
            levels,
            rosters,
            sealed,
            active,
            window: Window::new(last, options.window_bytes),
            generation: 0,
        };
        Ok(Log {
            disk,
            dir: dir.to_owned(),
            options,
            shared: Arc::new(Shared::new(state)),
            history,
            durable: last,
            durable_file,
            recovery: report,
            buffer: Vec::new(),
            poisoned: None,
        })
    }

    /// Makes a log usable again that [`Log::open`] found [damaged](LogError::Damaged). The sound part
    /// before the damage stays. Everything else moves to files that end in `.damaged` and may be
    /// deleted; their paths are returned. Without a sound beginning the log continues empty after
    /// `base`, which a snapshot contains.
    ///
    /// The node must first store, [durably](crate::Epochs::damage), that it has lost promised entries.
    ///
    /// # Errors
    /// A failure of the disk, or another format version. The call may be repeated.
    pub fn salvage(
        disk: &dyn Disk,
        dir: &Path,
        options: &LogOptions,
        base: Base,
    ) -> Result<Vec<PathBuf>, LogError> {
        recovery::salvage(disk, dir, options, base)
    }

    /// Removes the oldest files that [`Log::salvage`] has put aside, if there are more than 8 or 512
    /// MiB of them. The first of the latest ones, `aside`, stays. Returns the removed files.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn bound_damaged(disk: &dyn Disk, dir: &Path, aside: &[PathBuf]) -> Result<Vec<PathBuf>, LogError> {
        Ok(recovery::bound_damaged(disk, dir, aside)?)
    }

    /// The findings of opening the log.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The content of the log, durable or not. The base is the zxid before its first entry.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The feature levels along the log.
    #[must_use]
    pub fn levels(&self) -> LevelHistory {
        self.shared.read().levels.clone()
    }

    /// The members along the log.
    #[must_use]
    pub fn rosters(&self) -> RosterHistory {
        self.shared.read().rosters.clone()
    }

    /// The last durable zxid.
    #[must_use]
    pub fn durable(&self) -> Zxid {
        self.durable
    }

    /// A reader of this log, for other threads.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader(self.shared.clone())
    }

    /// Appends entries. They are readable at once, and durable after the next [`Log::sync`].
    ///
    /// # Errors
    /// Entries that do not chain or are too large: the log refuses all of them and changes nothing.
    /// Otherwise a failure of the disk.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        self.check_poison()?;
        let mut last = self.history.last();
        for entry in entries {
            if !entry.zxid.follows(last) {
                return Err(LogError::NotChained { zxid: entry.zxid, last });
            }
            let bytes = entry.body.len();
            if bytes > MAX_PAYLOAD {
                return Err(LogError::TooLarge { zxid: entry.zxid, bytes, max: MAX_PAYLOAD });
            }
            last = entry.zxid;
        }
        let mut rest = entries;
        while !rest.is_empty() {
            let written = self.append_to_segment(rest);
            rest = &rest[self.poison_on_error(written)?..];
        }
        Ok(())
    }

    /// Makes all appended entries durable and returns the last durable zxid.
    ///
    /// # Errors
    /// A failure of the disk. Which entries since the last sync are durable is then unknown.
    pub fn sync(&mut self) -> Result<Zxid, LogError> {
        self.check_poison()?;
        let synced = self.sync_segment();
        self.poison_on_error(synced)?;
        Ok(self.durable)
    }

    /// Removes all entries after `zxid`, durably. Entries up to it are then durable, too.
    ///
    /// # Errors
    /// The log does not contain the zxid: nothing changes. Otherwise a failure of the disk.
    pub fn truncate(&mut self, zxid: Zxid) -> Result<(), LogError> {
        self.check_poison()?;
        if !self.history.contains(zxid) {
            let (base, last) = (self.history.base(), self.history.last());
            return Err(LogError::NotInHistory { zxid, base, last });
        }
        let truncated = if zxid == self.history.last() { self.sync_segment() } else { self.cut_behind(zxid) };
        self.poison_on_error(truncated)
    }

    /// Removes all entries. The log continues after `base`, which a durable snapshot contains. After a
    /// crash the old or the new log is there.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn reset(&mut self, base: Base) -> Result<(), LogError> {
        self.check_poison()?;
        self.history = History::from_base(base.zxid);
        {
            let mut state = self.shared.write();
            state.generation += 1;
            state.history = self.history.clone();
            state.levels = LevelHistory::from_base(base.level);
            state.rosters = RosterHistory::from_base(base.roster.clone());
            state.window = Window::new(base.zxid, self.options.window_bytes);
        }
        let reset = self.replace_segments(base);
        self.poison_on_error(reset)
    }

    /// Removes the files whose entries are all at or before `upto`. The active file stays.
    ///
    /// # Errors
    /// A failure of the disk.
    pub fn purge(&mut self, upto: Zxid) -> Result<(), LogError> {
        self.check_poison()?;
        let purged = self.purge_segments(upto);
        self.poison_on_error(purged)
    }

    /// Writes the entries that fit into the active segment, or makes room for the first one.
    fn append_to_segment(&mut self, entries: &[Entry]) -> Result<usize, LogError> {
        let (end, len, salt) = {
            let active = &self.shared.read().active;
            (active.end, active.len, active.salt)
        };
        self.buffer.clear();
        let mut prev = self.history.last();
        let mut count = 0;
        for entry in entries {
            if end + (self.buffer.len() + format::record_len(entry) + MARK_LEN) as u64 > len {
                break;
            }
            format::encode_record(&mut self.buffer, end, salt, entry, prev, self.durable);
            prev = entry.zxid;
            count += 1;
        }
        match entries.first() {
            Some(first) if count == 0 => self.make_room(first)?,
            _ => self.write_batch(&entries[..count])?,
        }
        Ok(count)
    }

    /// Continues in a new segment that has room for this entry.
    fn make_room(&mut self, entry: &Entry) -> Result<(), LogError> {
        let needs = (HEADER_LEN + format::record_len(entry) + MARK_LEN) as u64;
        let (disk, dir, usual) = (self.disk.as_ref(), &self.dir, self.options.segment_bytes);
        let (empty, file, path) = {
            let active = &self.shared.read().active;
            (active.is_empty(), active.file.clone(), active.path.clone())
        };
        if empty {
            // Another segment here would have the same name.
            let len = Segment::with_room(disk, dir, usual, needs, |len| {
                file.allocate(len).doing("reserve space for", &path).map(|()| len)
            })?;
            self.shared.write().active.len = len;
            return Ok(());
        }
        // A segment may exist only if all entries before it are durable. Otherwise a crash could leave
        // a hole.
        self.sync_segment()?;
        let zxid = self.history.last();
        let base = Base { zxid, level: self.shared.read().levels.last(), roster: None };
        let secret = self.options.secret;
        let (disk, dir) = (self.disk.as_ref(), &self.dir);
        let next = Segment::with_room(disk, dir, usual, needs, |len| {
            Segment::create(disk, dir, &base, len, secret)
        })?;
        let mut state = self.shared.write();
        let full = std::mem::replace(&mut state.active, next);
        state.sealed.push(full);
        Ok(())
    }

    /// Writes the batch in the buffer and makes it visible to readers.
    fn write_batch(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        {
            // The lock delays no reader: readers share it, and only this thread writes.
            let active = &self.shared.read().active;
            active.file.write_at(&self.buffer, active.end).doing("write to", &active.path)?;
        }
        self.buffer.shrink_to(BUFFER_KEPT);
        let interval = self.options.index_interval_bytes;
        let mut state = self.shared.write();
        for entry in entries {
            let chained = self.history.append(entry.zxid) && state.history.append(entry.zxid);
            debug_assert!(chained, "checked before anything was written");
            if let Some(level) = entry.body.level() {
                state.levels.append(entry.zxid, level);
            }
            if let Some(roster) = entry.body.roster() {
                state.rosters.append(roster.clone());
            }
            let offset = state.active.end;
            state.active.note(entry.zxid, offset, format::record_len(entry) as u64, interval);
            state.window.push(entry.clone());
        }
        Ok(())
    }

    fn sync_segment(&mut self) -> Result<(), LogError> {
        if self.durable == self.history.last() {
            return Ok(());
        }
        let active = &self.shared.read().active;
        if !is_on(Mutant::FsyncSkipped) {
            active.file.sync_data().doing("sync", &active.path)?;
        }
        self.durable = self.history.last();
        active.mark(self.durable)?;
        self.durable_file.raise(self.durable)?;
        Ok(())
    }

    /// Cuts the log after an entry that it contains and that is not its last one.
    fn cut_behind(&mut self, zxid: Zxid) -> Result<(), LogError> {
        let (mut target, position) = {
            let state = self.shared.read();
            let begins_before = |s: &Segment| s.prev <= zxid;
            let in_sealed = state.sealed.partition_point(begins_before).checked_sub(1);
            match in_sealed.and_then(|i| state.sealed.get(i)) {
                Some(segment) if !begins_before(&state.active) => (segment.clone(), in_sealed),
                _ => (state.active.clone(), None),
            }
        };
        if zxid < self.durable {
            // Without this, a crash after the cut would leave a log that seems to have lost its end.
            self.durable_file.store(zxid)?;
        }
        let must_cut = target.last > zxid;
        if must_cut {
            target.end = target.end_of(zxid)?;
            target.last = zxid;
            target.index.retain(|&(indexed, _)| indexed <= zxid);
        }
        let truncated = self.history.truncate(zxid);
        debug_assert!(truncated, "the caller has checked it");
        let removed = {
            let mut state = self.shared.write();
            state.generation += 1;
            state.history = self.history.clone();
            state.levels.truncate(zxid);
            state.rosters.truncate(zxid);
            state.window.truncate(zxid);
            let old_active = std::mem::replace(&mut state.active, target.clone());
            match position {
                None => Vec::new(),
                Some(i) => {
                    let mut removed = state.sealed.split_off(i + 1);
                    state.sealed.truncate(i);
                    removed.push(old_active);
                    removed
                }
            }
        };
        // Removes them durably one by one, the last first, so a crash leaves no hole.
        for segment in removed.iter().rev() {
            self.remove(&segment.path)?;
        }
        if must_cut {
            target.cut()?;
            self.shared.write().active.len = target.len;
        }
        self.durable = zxid;
        target.mark(zxid)?;
        self.durable_file.raise(zxid)?;
        Ok(())
    }

    fn replace_segments(&mut self, base: Base) -> Result<(), LogError> {
        recovery::begin_reset(self.disk.as_ref(), &self.dir, &base)?;
        let segment = recovery::finish_reset(self.disk.as_ref(), &self.dir, &base, &self.options)?;
        let mut state = self.shared.write();
        state.sealed = Vec::new();
        state.active = segment;
        self.durable = base.zxid;
        Ok(())
    }

    fn purge_segments(&mut self, upto: Zxid) -> Result<(), LogError> {
        // Before the base moves. A crash in between leaves the old base, whose members are there, too.
        {
            let state = self.shared.read();
            let base = state.sealed.iter().rev().find(|s| s.last <= upto).map(|s| s.last);
            if let Some(base) = base {
                let known = state.rosters.all().filter(|roster| roster.since() <= base);
                members::write(self.disk.as_ref(), &self.dir, base, known)?;
            }
        }
        let removed: Vec<Segment> = {
            let mut state = self.shared.write();
            let gone = state.sealed.partition_point(|s| s.last <= upto);
            let removed: Vec<Segment> = state.sealed.drain(..gone).collect();
            if let Some(last) = removed.last() {
                let purged = self.history.purge(last.last);
                debug_assert!(purged, "it is the zxid of an entry");
                state.history = self.history.clone();
                state.levels.purge(last.last);
                state.rosters.purge(last.last);
            }
            removed
        };
        // Removes them durably one by one, the first first, so a crash leaves no hole.
        for Segment { path, file, .. } in removed {
            // The space of an open file is not free.
            drop(file);
            self.remove(&path)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.disk.remove(path).doing("remove", path)?;
        self.disk.sync_dir(&self.dir).doing("sync the directory", &self.dir)?;
        Ok(())
    }

    fn check_poison(&self) -> Result<(), LogError> {
        match &self.poisoned {
            None => Ok(()),
            Some(first) => Err(LogError::Poisoned { first: first.clone() }),
        }
    }

    fn poison_on_error<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(e) = &result {
            self.poisoned = Some(e.to_string());
        }
        result
    }
}

/// Capacity that the buffer keeps between batches.
const BUFFER_KEPT: usize = 4 << 20;

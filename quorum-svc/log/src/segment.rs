use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Entry, Level, UnknownRecord, Zxid};

use crate::disk::{Disk, DiskError, DiskFile, Doing};
use crate::error::LogError;
use crate::format::{self, HEADER_LEN, Item, MARK_LEN, Magic, Salt};
use crate::recovery::Base;
use crate::reserve;

/// A file of the log and its known content. [`crate::format`] describes the format.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) salt: Salt,
    /// The zxid before its first entry.
    pub(crate) prev: Zxid,
    /// The feature level at `prev`.
    pub(crate) level: Option<Level>,
    /// Its last entry; `prev` if it has none.
    pub(crate) last: Zxid,
    /// End of the last record.
    pub(crate) end: u64,
    /// Length of the file.
    pub(crate) len: u64,
    /// Positions of some of its records, ascending.
    pub(crate) index: Vec<(Zxid, u64)>,
}

impl Segment {
    /// The size of a segment that must hold `needs` bytes. It is the usual size, but at most a quarter
    /// of the free space, so that the log leaves room for the snapshots that let it be purged.
    fn len_for(disk: &dyn Disk, dir: &Path, usual: u64, needs: u64) -> Result<u64, DiskError> {
        let free = disk.space(dir).doing("find the free space of", dir)?.free;
        Ok(usual.min((free / 4).max(LEAST)).max(needs))
    }

    /// Runs `change` with the [size](Segment::len_for) of a segment. If space is missing, because others
    /// have taken it in the meantime, releases the reserve and runs it again, and in the end with what
    /// the segment must hold.
    pub(crate) fn with_room<T>(
        disk: &dyn Disk,
        dir: &Path,
        usual: u64,
        needs: u64,
        mut change: impl FnMut(u64) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        match reserve::with(disk, dir, || change(Segment::len_for(disk, dir, usual, needs)?)) {
            Err(e) if e.is_full() => change(needs),
            other => other,
        }
    }

    /// Creates a segment for entries after a base, durably, under a temporary name until it is
    /// complete. Its salt derives from `secret`.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        &Base { zxid: prev, level, .. }: &Base,
        len: u64,
        secret: u64,
    ) -> Result<Segment, DiskError> {
        let salt = Salt::of_segment(secret, prev);
        let path = dir.join(name(prev));
        let temporary = dir.join(format!("{}.tmp", name(prev)));
        let file: Arc<dyn DiskFile> = disk.create(&temporary).doing("create", &temporary)?.into();
        file.allocate(len).doing("reserve space for", &temporary)?;
        let header = format::encode_header(Magic::Segment, prev, salt, level);
        file.write_at(&header, 0).doing("write to", &temporary)?;
        file.sync_all().doing("sync", &temporary)?;
        disk.rename(&temporary, &path).doing("rename a new segment to", &path)?;
        disk.sync_dir(dir).doing("sync the directory", dir)?;
        let (end, index) = (HEADER_LEN as u64, Vec::new());
        Ok(Segment { path, file, salt, prev, level, last: prev, end, len, index })
    }

    /// The error for the record of `zxid` at `offset`, which is of a later version.
    pub(crate) fn unknown(&self, offset: u64, zxid: Zxid, unknown: UnknownRecord) -> LogError {
        LogError::Unknown { segment: self.path.clone(), offset, zxid, unknown }
    }

    /// Whether the segment has no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.last == self.prev
    }

    /// Adds a record at `offset`.
    pub(crate) fn note(&mut self, zxid: Zxid, offset: u64, record_len: u64, index_interval: u64) {
        if self.index.last().is_none_or(|&(_, indexed)| offset - indexed >= index_interval) {
            self.index.push((zxid, offset));
        }
        self.last = zxid;
        self.end = offset + record_len;
    }

    /// Ends the file at the noted end, durably: old records after it are gone and read as zeros.
    ///
    /// The cut is one change of the length, so a crash leaves all or none of the old records.
    /// Overwriting them with zeros could leave the last ones after a hole.
    ///
    /// If others have taken the freed space, the segment is full.
    pub(crate) fn cut(&mut self) -> Result<(), DiskError> {
        self.file.set_len(self.end).doing("shorten", &self.path)?;
        match self.file.allocate(self.len).doing("reserve space for", &self.path) {
            Err(e) if e.is_full() => {
                self.file.set_len(self.end).doing("shorten", &self.path)?;
                self.len = self.end;
            }
            other => other?,
        }
        self.file.sync_all().doing("sync", &self.path)
    }

    /// Marks in the file, after the last record, that everything up to it is durable.
    pub(crate) fn mark(&self, durable: Zxid) -> Result<(), DiskError> {
        if self.end + MARK_LEN as u64 > self.len {
            return Ok(());
        }
        let mark = format::encode_mark(self.end, self.salt, durable);
        self.file.write_at(&mark, self.end).doing("write to", &self.path)
    }

    /// End of the record of `zxid`, one of its entries; end of the header for the zxid before them.
    pub(crate) fn end_of(&self, zxid: Zxid) -> Result<u64, LogError> {
        let mut records = self.records(zxid);
        while let Some((offset, entry)) = records.next()? {
            if entry.zxid > zxid {
                return Ok(offset);
            }
        }
        Ok(self.end)
    }

    /// The records of the segment. The first one is at or before the successor of `after`.
    pub(crate) fn records(&self, after: Zxid) -> Records {
        let indexed = self.index.partition_point(|&(zxid, _)| zxid <= after);
        let position = match indexed.checked_sub(1).and_then(|i| self.index.get(i)) {
            Some(&(_, offset)) => offset,
            None => HEADER_LEN as u64,
        };
        Records {
            file: self.file.clone(),
            path: self.path.clone(),
            salt: self.salt,
            position,
            end: self.end,
            buffer: Vec::new(),
            at: 0,
            last: self.prev,
        }
    }
}

/// Reads records one after the other.
pub(crate) struct Records {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    salt: Salt,
    /// Position of the next record in the file.
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Position of the next record in the buffer.
    at: usize,
    last: Zxid,
}

impl Records {
    /// The next entry and the position of its record; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Entry)>, LogError> {
        loop {
            if self.position >= self.end {
                return Ok(None);
            }
            match format::decode(&self.buffer[self.at..], self.position, self.salt) {
                Item::Record(record) => {
                    let (offset, len) = (self.position, record.len());
                    let zxid = record.zxid;
                    let entry = record.to_entry().map_err(|unknown| LogError::Unknown {
                        segment: self.path.clone(),
                        offset,
                        zxid,
                        unknown,
                    })?;
                    self.last = entry.zxid;
                    self.at += len;
                    self.position += len as u64;
                    return Ok(Some((offset, entry)));
                }
                Item::Partial { needs } if needs as u64 <= self.end - self.position => self.fill(needs)?,
                _ => {
                    return Err(LogError::Damaged {
                        segment: self.path.clone(),
                        offset: self.position,
                        zxid_before: self.last,
                        found: "no valid record where one was written or read before".to_owned(),
                    });
                }
            }
        }
    }

    /// Reads on until the buffer has at least `needs` bytes after the position.
    fn fill(&mut self, needs: usize) -> Result<(), LogError> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let have = self.buffer.len();
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        self.buffer.resize(needs.max(have + READ_BYTES).min(left), 0);
        let read = self
            .file
            .read_at(&mut self.buffer[have..], self.position + have as u64)
            .doing("read", &self.path)?;
        self.buffer.truncate(have + read);
        if self.buffer.len() < needs {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(DiskError { doing: "read", path: self.path.clone(), source }.into());
        }
        Ok(())
    }
}

/// The name of the segment for entries after `prev`.
pub(crate) fn name(prev: Zxid) -> String {
    format!("{:016x}.log", prev.0.wrapping_add(1))
}

/// Whether this is the name of a segment.
pub(crate) fn is_name(name: &str) -> bool {
    name.strip_suffix(".log").is_some_and(|hex| {
        hex.len() == 16 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// The minimum size of a segment, unless the usual one is smaller: many times the size of a small write and a
/// mark.
const LEAST: u64 = 1 << 20;

/// Bytes of one read.
const READ_BYTES: usize = 128 << 10;

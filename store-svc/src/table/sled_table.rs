//! The table in sled 0.34.7, with protection against known bugs of that version:
//!
//! - `flush` is `sync_file_range` on Linux, not fsync (spacejam/sled 1351, 1452): [`SledTable::sync`]
//!   adds one.
//! - Pages larger than a quarter of a segment go to files that are never synced: values are cut to
//!   [`CHUNK`] bytes and keys are at most [`KEY_MAX`] long, so no page gets that large; files there
//!   from elsewhere are taken for damage.
//! - A crash while sled writes a snapshot leaves `snap.*.generating`. sled later takes it for a
//!   snapshot and never opens again (1527, 1533), so such files are removed first.
//! - Its file stays locked until its threads have ended, which is after the table is dropped:
//!   [`wait_for_lock`].
//! - It panics where it should fail (1387, 1410): every call is made under `catch_unwind`.
//! - It needs gigabytes for a large batch: a large checkpoint goes through a [`redo`] file, in small batches.
//! - A flipped bit may make it lose acknowledged writes silently: the digest of the state detects this.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use api::{
    AclId, SessionId, WriteNumber, Zxid,
    record::{Header, Record},
};
use bytes::Bytes;
use proto::store::encode_record;
use sled::{Batch, Db};
use store_core::Changes;
use xxhash_rust::xxh3::xxh3_128;

use super::{
    Table, TableError,
    checkpointer::Parts,
    redo::{self, Change, SMALL},
};

/// Maximum size of a value, in bytes.
const CHUNK: usize = 4096;
/// A hash replaces longer paths in the key. The digest detects a collision.
const KEY_MAX: usize = 256;
/// Time for which a closed table may stay locked.
const CLOSING: Duration = Duration::from_secs(5);
/// sled's page cache, in bytes. Records are only read at the start and for snapshots.
const CACHE: u64 = 16 << 20;

/// See the [module](self).
pub(super) struct SledTable {
    dir: PathBuf,
    db: Db,
    /// sled's only data file, for our own fsync.
    file: File,
    /// Number of chunks of each record that has more than one.
    chunks: BTreeMap<Vec<u8>, u32>,
}

/// See [`SledTable::note_down`].
pub(super) enum Noted {
    /// The changes, which the caller applies at once.
    Few(Vec<Change>),
    /// Recorded in the [`redo`] file.
    Many,
}

impl SledTable {
    /// Opens the table in `dir`, or makes an empty one.
    pub(super) fn open(dir: &Path) -> Result<SledTable, TableError> {
        wait_for_lock(&dir.join("db"))?;
        remove_unfinished_snapshots(dir)?;
        redo::remove_unfinished(dir)?;
        if fs::read_dir(dir.join("blobs")).is_ok_and(|mut files| files.next().is_some()) {
            return Err(TableError::Damaged("it has blob files, which are never synced".into()));
        }
        let db = guarded(|| {
            sled::Config::new().path(dir).cache_capacity(CACHE).flush_every_ms(None).open().map_err(io_error)
        })?;
        let file = File::open(dir.join("db"))?;
        let table = SledTable { dir: dir.to_owned(), db, file, chunks: BTreeMap::new() };
        table.redo()?;
        Ok(table)
    }

    fn put(&mut self, batch: &mut Vec<Change>, key: Vec<u8>, value: &[u8]) -> Result<(), TableError> {
        let count = u32::try_from(value.len().div_ceil(CHUNK).max(1))
            .map_err(|_| TableError::Damaged(format!("a record of {} bytes", value.len())))?;
        for n in count..self.chunks_of(&key) {
            batch.push((chunk_key(&key, n), None));
        }
        for n in 0..count {
            let at = n as usize * CHUNK;
            let piece = &value[at..(at + CHUNK).min(value.len())];
            if n == 0 {
                // The first chunk starts with the number of chunks.
                batch.push((chunk_key(&key, 0), Some([&count.to_be_bytes()[..], piece].concat())));
            } else {
                batch.push((chunk_key(&key, n), Some(piece.to_vec())));
            }
        }
        if count > 1 {
            self.chunks.insert(key, count);
        } else {
            self.chunks.remove(&key);
        }
        Ok(())
    }

    fn remove(&mut self, batch: &mut Vec<Change>, key: Vec<u8>) {
        batch.extend((0..self.chunks_of(&key)).map(|n| (chunk_key(&key, n), None)));
        self.chunks.remove(&key);
    }

    fn chunks_of(&self, key: &[u8]) -> u32 {
        self.chunks.get(key).copied().unwrap_or(1)
    }

    /// Plans the application of `changes`. If they exceed one batch, they are recorded and will be
    /// applied even after a crash.
    pub(super) fn note_down(&mut self, changes: Changes) -> Result<Noted, TableError> {
        let (mut batch, mut redo) = (Vec::new(), None);
        for (key, record) in by_key(changes) {
            match record {
                Some(record) => self.put(&mut batch, key, &encode_record(record))?,
                None => self.remove(&mut batch, key),
            }
            if batch.len() > SMALL && redo.is_none() {
                redo = Some(redo::Writer::create(&self.dir)?);
            }
            if let Some(writer) = &mut redo {
                writer.append(&mut batch)?;
            }
        }
        let Some(writer) = redo else { return Ok(Noted::Few(batch)) };
        writer.finish(&self.dir)?;
        Ok(Noted::Many)
    }

    /// Removes everything and writes these records instead, if `whole` is true after the last.
    fn replace<P>(
        &mut self,
        parts: &mut P,
        mut next: impl FnMut(&mut P) -> Option<Vec<(Vec<u8>, Option<Record>)>>,
        whole: impl Fn(&P) -> bool,
    ) -> Result<(), TableError> {
        // A table without a header is empty, so neither the removal nor the rest has to be atomic.
        let mut batch = Vec::new();
        note(&self.dir, None);
        self.remove(&mut batch, HEADER_KEY.to_vec());
        self.apply(&mut batch)?;
        self.sync()?;
        tracing::debug!(dir = %self.dir.display(), "the checkpoint is written anew");
        guarded(|| self.db.clear().map_err(io_error))?;
        self.chunks.clear();
        let mut header = None;
        while let Some(records) = next(parts) {
            for (key, record) in records {
                match record {
                    Some(Record::Header(found)) => header = Some(found),
                    Some(record) => self.put(&mut batch, key, &encode_record(record))?,
                    None => {}
                }
                if batch.len() >= SMALL {
                    self.apply(&mut batch)?;
                }
            }
        }
        let Some(header) = header.filter(|_| whole(parts)) else { return Ok(()) };
        self.apply(&mut batch)?;
        self.sync()?;
        self.put(&mut batch, HEADER_KEY.to_vec(), &encode_record(Record::Header(header)))?;
        self.apply(&mut batch)?;
        self.sync()?;
        note(&self.dir, Some(header));
        Ok(())
    }

    /// Applies these changes, all or none.
    pub(super) fn apply(&self, changes: &mut Vec<Change>) -> Result<(), TableError> {
        let mut batch = Batch::default();
        for (key, value) in changes.drain(..) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        guarded(|| self.db.apply_batch(batch).map_err(io_error))
    }

    /// Applies the recorded changes, if there are any. Applying some of them twice is harmless.
    fn redo(&self) -> Result<(), TableError> {
        let Some(mut reader) = redo::Reader::open(&self.dir)? else { return Ok(()) };
        loop {
            let mut batch = reader.next_batch()?;
            if batch.is_empty() {
                break;
            }
            self.apply(&mut batch)?;
        }
        self.sync()?;
        Ok(redo::remove(&self.dir)?)
    }

    /// Makes applied changes durable.
    fn sync(&self) -> Result<(), TableError> {
        guarded(|| self.db.flush().map_err(io_error))?;
        self.file.sync_all()?;
        Ok(())
    }
}

impl Table for SledTable {
    fn size(&self) -> u64 {
        guarded(|| self.db.size_on_disk().map_err(io_error)).unwrap_or(0)
    }

    fn scan(&mut self, each: &mut dyn FnMut(Bytes) -> Result<(), TableError>) -> Result<(), TableError> {
        let mut items = self.db.iter();
        let mut next = || match guarded(|| items.next().transpose().map_err(io_error))? {
            None => Ok(None),
            Some((key, value)) => match key.split_last_chunk::<4>() {
                Some((key, n)) => Ok(Some((key.to_vec(), u32::from_be_bytes(*n), value))),
                None => Err(TableError::Damaged("a key without a number".into())),
            },
        };
        while let Some((key, n, first)) = next()? {
            let count = first.split_first_chunk::<4>().filter(|_| n == 0);
            let Some((count, piece)) = count.map(|(count, piece)| (u32::from_be_bytes(*count), piece)) else {
                return Err(TableError::Damaged("the beginning of a record is missing".into()));
            };
            let mut record = piece.to_vec();
            for expected in 1..count {
                match next()? {
                    Some((k, n, piece)) if k == key && n == expected => record.extend_from_slice(&piece),
                    _ => return Err(TableError::Damaged("a piece of a record is missing".into())),
                }
            }
            if count > 1 {
                self.chunks.insert(key, count);
            }
            each(record.into())?;
        }
        Ok(())
    }

    fn write(&mut self, changes: Changes) -> Result<(), TableError> {
        if changes.whole {
            let mut state = Some(by_key(changes).collect());
            return self.replace(&mut state, Option::take, |_| true);
        }
        let header = changes.header;
        match self.note_down(changes)? {
            Noted::Few(mut batch) => {
                self.apply(&mut batch)?;
                self.sync()?;
            }
            Noted::Many => self.redo()?,
        }
        note(&self.dir, Some(header));
        Ok(())
    }

    fn write_whole(&mut self, parts: &mut Parts<'_>) -> Result<(), TableError> {
        self.replace(parts, |parts| parts.next().map(sorted), |parts| parts.whole)
    }
}

/// Records with their keys, sorted. They arrive nearly in tree order; sorted, each page is written once
/// for all its records.
fn sorted(records: Vec<Record>) -> Vec<(Vec<u8>, Option<Record>)> {
    let mut records: Vec<_> = records.into_iter().map(|record| (key_of(&record), Some(record))).collect();
    records.sort_by(|(one, _), (other, _)| one.cmp(other));
    records
}

fn key_of(record: &Record) -> Vec<u8> {
    match record {
        Record::Header(_) => HEADER_KEY.to_vec(),
        Record::Znode(znode) => znode_key(znode.path.as_str()),
        Record::Acl(list) => acl_key(list.id),
        Record::Session(session) => session_key(session.id),
        Record::Result(result) => result_key(result.session, result.number),
    }
}

/// A file with the header, so that a start can learn the position of a large table before it opens it.
const NOTE: &str = "at";

/// Records the position of the table, or removes it while the table changes. A missing or old note
/// costs a slower start.
fn note(dir: &Path, header: Option<Header>) {
    let file = dir.join(NOTE);
    let _ = match header {
        Some(header) => fs::write(file, format!("{} {}\n", header.applied.0, header.znodes)),
        None => fs::remove_file(file),
    };
}

/// The last entry of the table in `dir` and its number of znodes, as far as known.
pub(super) fn noted(dir: &Path) -> Option<(Zxid, u64)> {
    let text = fs::read_to_string(dir.join(NOTE)).ok()?;
    let (applied, znodes) = text.trim_end().split_once(' ')?;
    Some((Zxid(applied.parse().ok()?), znodes.parse().ok()?))
}

/// Sorts before all other keys.
const HEADER_KEY: &[u8] = b"h";

/// Changes by their keys, the header last.
fn by_key(mut changes: Changes) -> impl Iterator<Item = (Vec<u8>, Option<Record>)> {
    // Sorted, so that a page is read and written once for all its records.
    changes.znodes.sort_by(|(one, _), (other, _)| one.cmp(other));
    let znodes = changes.znodes.into_iter();
    let znodes = znodes.map(|(path, znode)| (znode_key(path.as_str()), znode.map(Record::Znode)));
    let acls = changes.acls.into_iter();
    let acls = acls.map(|(id, list)| (acl_key(id), list.map(Record::Acl)));
    let sessions = changes.sessions.into_iter();
    let sessions = sessions.map(|(id, session)| (session_key(id), session.map(Record::Session)));
    let results = changes.results.into_iter();
    let results = results.map(|((id, number), kept)| (result_key(id, number), kept.map(Record::Result)));
    let header = (HEADER_KEY.to_vec(), Some(Record::Header(changes.header)));
    znodes.chain(acls).chain(sessions).chain(results).chain([header])
}

fn acl_key(id: AclId) -> Vec<u8> {
    [b"l", &id.0.to_be_bytes()[..]].concat()
}

fn session_key(id: SessionId) -> Vec<u8> {
    [b"s", &id.0.to_be_bytes()[..]].concat()
}

fn result_key(id: SessionId, number: WriteNumber) -> Vec<u8> {
    [b"r", &id.0.to_be_bytes()[..], &number.0.to_be_bytes()].concat()
}

fn znode_key(path: &str) -> Vec<u8> {
    if path.len() < KEY_MAX {
        // The NUL, which no path contains, keeps the chunks of one znode together.
        [b"z", path.as_bytes(), b"\0"].concat()
    } else {
        [b"y", &xxh3_128(path.as_bytes()).to_be_bytes()[..]].concat()
    }
}

fn chunk_key(key: &[u8], n: u32) -> Vec<u8> {
    [key, &n.to_be_bytes()].concat()
}

/// Waits until the previous owner of the table releases its file, as sled does in the background.
pub(super) fn wait_for_lock(path: &Path) -> Result<(), TableError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let start = Instant::now();
    loop {
        match file.try_lock() {
            // sled takes the lock itself.
            Ok(()) => return Ok(file.unlock()?),
            Err(fs::TryLockError::Error(e)) => return Err(e.into()),
            Err(fs::TryLockError::WouldBlock) if start.elapsed() > CLOSING => {
                return Err(TableError::InUse(path.display().to_string()));
            }
            Err(fs::TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn remove_unfinished_snapshots(dir: &Path) -> io::Result<()> {
    let files = match fs::read_dir(dir) {
        Ok(files) => files,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for file in files {
        let file = file?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

pub(super) fn io_error(e: sled::Error) -> TableError {
    match e {
        sled::Error::Io(e) => e.into(),
        e => TableError::Damaged(e.to_string()),
    }
}

/// Turns a panic into an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, TableError>) -> Result<T, TableError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(TableError::Panic(format!("sled panicked: {what}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint on a disk must stay readable: a change here needs another format of the state.
    #[test]
    fn the_keys_of_a_checkpoint_are_these() {
        let hex = |key: Vec<u8>| key.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(HEADER_KEY, b"h");
        assert_eq!(znode_key("/a"), b"z/a\0");
        assert_eq!(znode_key(&"/".repeat(KEY_MAX))[..1], *b"y");
        assert_eq!(znode_key(&"/".repeat(KEY_MAX)).len(), 17);
        assert_eq!(hex(session_key(SessionId(0x0102))), "730000000000000102");
        assert_eq!(hex(result_key(SessionId(0x0102), WriteNumber(3))), "7200000000000001020000000000000003");
        assert_eq!(hex(chunk_key(b"z/a\0", 1)), "7a2f610000000001");
    }
}

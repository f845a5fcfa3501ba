//! The changes of a large checkpoint, made durable before sled receives them in small batches.
//!
//! sled keeps a copy of a page for each change until the end of the batch: 400,000 new znodes in one
//! batch use 2.6 GB, in batches of [`SMALL`] next to nothing. But a crash between two batches would
//! leave neither the old state nor the new one. So a redo file records the changes first, and recovery
//! applies the file again.
//!
//! Format: [`MAGIC`], then changes, each `key length u16, value length u16, key, value`, with
//! big-endian lengths and [`REMOVED`] for a removed key; the XXH3-128 of all that at the end.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3Default;

use super::TableError;

/// Maximum number of changes in one batch.
pub(super) const SMALL: usize = 256;

/// A key and its new value; `None` removes it.
pub(super) type Change = (Vec<u8>, Option<Vec<u8>>);

const NAME: &str = "redo";
const UNFINISHED: &str = "redo.tmp";
const MAGIC: &[u8; 8] = b"qr-redo1";
/// Replaces the length of a value.
const REMOVED: u16 = u16::MAX;
const DIGEST_LEN: u64 = 16;

/// The file while it is written. It has no effect before [`Writer::finish`].
pub(super) struct Writer {
    file: BufWriter<File>,
    digest: Xxh3Default,
}

impl Writer {
    pub(super) fn create(dir: &Path) -> io::Result<Writer> {
        let file = BufWriter::new(File::create(dir.join(UNFINISHED))?);
        let mut writer = Writer { file, digest: Xxh3Default::new() };
        writer.write(MAGIC)?;
        Ok(writer)
    }

    /// Appends all of `changes`.
    pub(super) fn append(&mut self, changes: &mut Vec<Change>) -> Result<(), TableError> {
        for (key, value) in changes.drain(..) {
            let len = |bytes: &[u8]| {
                let len = u16::try_from(bytes.len()).ok().filter(|&len| len != REMOVED);
                len.ok_or_else(|| TableError::Damaged(format!("a piece of {} bytes", bytes.len())))
            };
            let key_len = len(&key)?;
            let value_len = value.as_deref().map_or(Ok(REMOVED), len)?;
            self.write(&key_len.to_be_bytes())?;
            self.write(&value_len.to_be_bytes())?;
            self.write(&key)?;
            self.write(value.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    /// Makes the file durable. From then on, the changes will be made, now or after a crash.
    pub(super) fn finish(mut self, dir: &Path) -> io::Result<()> {
        let digest = self.digest.digest128().to_be_bytes();
        self.file.write_all(&digest)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(dir.join(UNFINISHED), dir.join(NAME))?;
        sync_dir(dir)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes)
    }
}

/// A complete file.
pub(super) struct Reader {
    file: BufReader<File>,
    /// Bytes of the remaining changes.
    left: u64,
}

impl Reader {
    /// The verified file in the table's directory, if there is one. If there is none, none will appear
    /// after a crash.
    ///
    /// # Errors
    /// The file is damaged: a part of it may be in the table, which is then unusable.
    pub(super) fn open(dir: &Path) -> Result<Option<Reader>, TableError> {
        let mut file = match File::open(dir.join(NAME)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // A file that the last process removed just before its end must not reappear.
                sync_dir(dir)?;
                return Ok(None);
            }
            other => BufReader::new(other?),
        };
        let head = MAGIC.len() as u64;
        let len = file.get_ref().metadata()?.len();
        let left = len.checked_sub(head + DIGEST_LEN).ok_or_else(damaged)?;
        let mut digest = Xxh3Default::new();
        let mut unread = head + left;
        let mut buffer = [0; 8192];
        while unread > 0 {
            let room = buffer.len().min(usize::try_from(unread).unwrap_or(usize::MAX));
            let read = file.read(&mut buffer[..room])?;
            if read == 0 {
                return Err(damaged());
            }
            digest.update(&buffer[..read]);
            unread -= read as u64;
        }
        let mut stored = [0; DIGEST_LEN as usize];
        file.read_exact(&mut stored)?;
        file.rewind()?;
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic)?;
        if &magic != MAGIC || stored != digest.digest128().to_be_bytes() {
            return Err(damaged());
        }
        Ok(Some(Reader { file, left }))
    }

    /// Up to [`SMALL`] more changes; none at the end.
    pub(super) fn next_batch(&mut self) -> Result<Vec<Change>, TableError> {
        let mut batch = Vec::new();
        while self.left > 0 && batch.len() < SMALL {
            let (mut key_len, mut value_len) = ([0; 2], [0; 2]);
            self.file.read_exact(&mut key_len)?;
            self.file.read_exact(&mut value_len)?;
            let (key_len, value_len) = (u16::from_be_bytes(key_len), u16::from_be_bytes(value_len));
            let mut key = vec![0; key_len.into()];
            self.file.read_exact(&mut key)?;
            let value_len = Some(value_len).filter(|&len| len != REMOVED);
            let value = value_len.map(|len| -> io::Result<Vec<u8>> {
                let mut value = vec![0; len.into()];
                self.file.read_exact(&mut value)?;
                Ok(value)
            });
            let taken = 4 + u64::from(key_len) + u64::from(value_len.unwrap_or(0));
            self.left = self.left.checked_sub(taken).ok_or_else(damaged)?;
            batch.push((key, value.transpose()?));
        }
        Ok(batch)
    }
}

/// Removes an unfinished file that a crash or a full disk has left.
pub(super) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(UNFINISHED)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the file after its changes are durable.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    fs::remove_file(dir.join(NAME))?;
    // Otherwise it might reappear after a crash, and undo a later checkpoint.
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn damaged() -> TableError {
    TableError::Damaged(format!("the file {NAME:?} in it is not what was written"))
}

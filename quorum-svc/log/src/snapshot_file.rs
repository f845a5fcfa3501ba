use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{Level, Roster, Zxid};
use bytes::Bytes;

use crate::disk::{Disk, DiskFile, Doing};
use crate::format::{self, BadHeader, HEADER_LEN, Magic, PREFIX_LEN, Salt, TRAILER_LEN};
use crate::recovery::Base;
use crate::snapshots::{Inner, SnapshotError};

/// Reads one snapshot chunk by chunk, and checks each chunk. [`crate::format`] describes the format.
///
/// The state is sound only if the reader reaches the end without an error: it checks the checksum of
/// the whole there.
pub struct SnapshotReader {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    zxid: Zxid,
    level: Level,
    roster: Option<Arc<Roster>>,
    position: u64,
    chunks: u64,
    /// Checksum of everything before the position.
    crc: u32,
    ended: bool,
    /// The set of snapshots that has this file, if any. The reader reports damage to it.
    pub(crate) owner: Option<Arc<Inner>>,
}

impl SnapshotReader {
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf, zxid: Zxid) -> Result<SnapshotReader, SnapshotError> {
        let file = disk.open(&path).doing("open", &path)?;
        let mut header = [0; HEADER_LEN];
        let read = file.read_at(&mut header, 0).doing("read", &path)?;
        let level = match format::decode_header(Magic::Snapshot, &header[..read]) {
            Ok(found) if found.zxid == zxid => {
                found.level.ok_or_else(|| damaged(&path, 0, "it has no feature level"))?
            }
            Ok(found) => return Err(damaged(&path, 0, &format!("it is the state at {}", found.zxid))),
            Err(BadHeader::Damaged(found)) => return Err(damaged(&path, 0, found)),
            Err(BadHeader::Version(found)) => return Err(SnapshotError::Version { path, found }),
        };
        let (position, crc) = (HEADER_LEN as u64, crc32c::crc32c(&header));
        let (chunks, ended, owner, roster) = (0, false, None, None);
        let mut reader =
            SnapshotReader { file, path, zxid, level, roster, position, chunks, crc, ended, owner };
        let bad = |reader: &SnapshotReader, found: &str| reader.damaged(found);
        let prefix = reader.read_exact(PREFIX_LEN)?;
        let len = format::members_len(&prefix).map_err(|found| bad(&reader, found))?;
        let block = reader.read_exact(PREFIX_LEN + len)?;
        (reader.roster, _) = format::decode_members(&block).map_err(|found| bad(&reader, found))?;
        reader.crc = crc32c::crc32c_append(reader.crc, &block);
        reader.position += block.len() as u64;
        Ok(reader)
    }

    /// The exact zxid of the state.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The feature level of the state.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The members at the state; `None`: those of the first start.
    #[must_use]
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        self.roster.as_ref()
    }

    /// The next chunk as it was written; `None` at the end.
    ///
    /// # Errors
    /// Damage, or a failure of the disk; nothing after it is readable. A damaged snapshot no longer
    /// counts: an older one becomes the [latest](crate::Snapshots::latest).
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let chunk = self.check_next_chunk();
        if let (Err(SnapshotError::Damaged { .. }), Some(owner)) = (&chunk, &self.owner) {
            owner.forget(self.zxid);
        }
        chunk
    }

    fn check_next_chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let prefix = self.read_exact(PREFIX_LEN)?;
        let len = format::u32_at(&prefix, 0) as usize;
        if len == 0 {
            self.check_trailer()?;
            return Ok(None);
        }
        if len > MAX_CHUNK {
            return Err(self.damaged("a chunk is too long"));
        }
        let chunk = self.read_exact(PREFIX_LEN + len)?;
        if !format::is_sealed(&chunk, self.position, Salt::NONE) {
            return Err(self.damaged("the checksum of a chunk is wrong"));
        }
        self.crc = crc32c::crc32c_append(self.crc, &chunk);
        self.position += chunk.len() as u64;
        self.chunks += 1;
        self.ended = false;
        Ok(Some(Bytes::from(chunk).slice(PREFIX_LEN..)))
    }

    fn check_trailer(&self) -> Result<(), SnapshotError> {
        let trailer = self.read_exact(TRAILER_LEN)?;
        let whole = (format::u64_at(&trailer, 8), format::u32_at(&trailer, 16));
        let len = self.file.len().doing("find the length of", &self.path)?;
        if !format::is_sealed(&trailer, self.position, Salt::NONE) {
            return Err(self.damaged("the checksum of the trailer is wrong"));
        }
        if whole != (self.chunks, self.crc) {
            return Err(self.damaged("the checksum of the whole, or the number of chunks, is wrong"));
        }
        if len != self.position + TRAILER_LEN as u64 {
            return Err(self.damaged("there is something behind the trailer"));
        }
        Ok(())
    }

    fn read_exact(&self, len: usize) -> Result<Vec<u8>, SnapshotError> {
        let mut buf = vec![0; len];
        let read = self.file.read_at(&mut buf, self.position).doing("read", &self.path)?;
        if read < len { Err(self.damaged("the file ends too early")) } else { Ok(buf) }
    }

    fn damaged(&self, found: &str) -> SnapshotError {
        damaged(&self.path, self.position, found)
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Bytes, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_chunk().transpose()
    }
}

/// Reads a whole snapshot to check it. Returns it as a base for a log.
pub(crate) fn verify(disk: &dyn Disk, path: PathBuf, zxid: Zxid) -> Result<Base, SnapshotError> {
    let mut reader = SnapshotReader::open(disk, path, zxid)?;
    while reader.next_chunk()?.is_some() {}
    Ok(Base { zxid, level: Some(reader.level), roster: reader.roster })
}

/// Writes the parts of a snapshot into a file.
pub(crate) struct SnapshotEncoder {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    position: u64,
    chunks: u64,
    /// Checksum of everything before the position.
    crc: u32,
    buffer: Vec<u8>,
}

impl SnapshotEncoder {
    pub(crate) fn create(
        disk: &dyn Disk,
        path: PathBuf,
        zxid: Zxid,
        level: Level,
        roster: Option<&Roster>,
    ) -> Result<SnapshotEncoder, SnapshotError> {
        let file = disk.create(&path).doing("create", &path)?;
        let mut encoder = SnapshotEncoder { file, path, position: 0, chunks: 0, crc: 0, buffer: Vec::new() };
        let header = format::encode_header(Magic::Snapshot, zxid, Salt::NONE, Some(level));
        encoder.buffer.extend_from_slice(&header);
        format::encode_members(&mut encoder.buffer, roster);
        encoder.write_buffer()?;
        Ok(encoder)
    }

    pub(crate) fn chunk(&mut self, data: &[u8]) -> Result<(), SnapshotError> {
        for data in data.chunks(MAX_CHUNK) {
            self.buffer.extend_from_slice(&(data.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&[0; 4]);
            self.buffer.extend_from_slice(data);
            format::seal(&mut self.buffer, self.position, Salt::NONE);
            self.write_buffer()?;
            self.chunks += 1;
        }
        Ok(())
    }

    /// Writes the end and makes all of it durable.
    pub(crate) fn end(mut self) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(&[0; PREFIX_LEN]);
        self.buffer.extend_from_slice(&self.chunks.to_le_bytes());
        self.buffer.extend_from_slice(&self.crc.to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        format::seal(&mut self.buffer, self.position, Salt::NONE);
        self.write_buffer()?;
        self.file.sync_all().doing("sync", &self.path)?;
        Ok(())
    }

    fn write_buffer(&mut self) -> Result<(), SnapshotError> {
        self.file.write_at(&self.buffer, self.position).doing("write to", &self.path)?;
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer);
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn damaged(path: &Path, offset: u64, found: &str) -> SnapshotError {
    SnapshotError::Damaged { path: path.to_owned(), offset, found: found.to_owned() }
}

/// Maximum size of a chunk. Larger pieces are written as several chunks.
const MAX_CHUNK: usize = 16 << 20;

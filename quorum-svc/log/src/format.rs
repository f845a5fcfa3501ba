//! The format of log segments, byte by byte. All numbers are little-endian.
//!
//! A segment is `log/<name>.log`. The name is the least possible zxid in it, in 16 hex digits: one more
//! than the zxid before its first entry. It consists of a header, then records without gaps, then at
//! most one mark, then zeros.
//!
//! Header, 40 bytes. The first 28 have the same layout in every version, so an unknown version is
//! distinguishable from damage:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic, `QRMLOG\r\n` |
//! | 8 | 4 | format version, 5 |
//! | 12 | 4 | salt: random, and secret to the node |
//! | 16 | 8 | the zxid before the first entry |
//! | 24 | 4 | CRC-32C of bytes 0 to 23 |
//! | 28 | 4 | the feature level there; 0 if the log begins there and has none yet |
//! | 32 | 4 | CRC-32C of bytes 0 to 31 |
//! | 36 | 4 | zero |
//!
//! Record of an entry, a head of 60 bytes and the payload:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | length: bytes behind the checksum, 52 and the payload |
//! | 4 | 4 | checksum of the head |
//! | 8 | 8 | zxid |
//! | 16 | 8 | zxid of the entry before it: the chain |
//! | 24 | 8 | the last zxid that was known to be durable when this was written |
//! | 32 | 8 | time, milliseconds since the Unix epoch, signed |
//! | 40 | 2 | kind: 1 an entry of the store, 2 the marker of an epoch, 3 members, 4 a feature level |
//! | 42 | 2 | 1 if the entry has an origin, else 0 and the next two are 0 |
//! | 44 | 4 | origin: peer |
//! | 48 | 8 | origin: ticket |
//! | 56 | 4 | CRC-32C of the payload |
//! | 60 | | payload; of a marker and of a feature level: the level, 4 bytes; of members: as `api::Roster` encodes them |
//!
//! A sound record with an unknown kind, or with a payload that does not fit its kind, is not damage. A
//! later version wrote it, and this version does not open the log. The same holds for a log at a
//! feature level that the build does not know.
//!
//! Mark, 16 bytes. Each successful sync writes it after the last record, and the next record overwrites
//! it:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | 0xffffffff |
//! | 4 | 4 | checksum |
//! | 8 | 8 | the last durable zxid |
//!
//! A checksum is the CRC-32C of the file's salt (4 bytes), the position in the file (8 bytes), the
//! length field and everything after the checksum: of a record, the rest of its head. The position
//! reveals a block that the disk wrote to another place. The salt reveals a block of another file. It
//! also prevents forgery: without it a client could make payloads that look like records or marks, and
//! after a torn record the node would accept them.
//!
//! **Torn or damaged?** After a power cut any unsynced sectors may be missing, so valid records behind
//! a bad one prove nothing by themselves. But a record, mark or later segment header states a zxid z
//! that was durable when it was written. It proves that a bad record at or before z is damage. Recovery
//! cuts a tail only if nothing behind it proves damage. The mark makes that exact even for the last
//! batch before an idle time. It needs no sync of its own: wherever it is found, the sync before it had
//! succeeded. A head proves as much as a whole record. So the search behind a bad record reads at most
//! `RECORD_LEN` bytes for each byte of the tail, whatever lengths the values of clients contain: it is
//! linear in the tail.
//!
//! A tail that is lost completely proves nothing. This happens if the disk loses the last block after
//! it reported a sync, with the records and marks in it, or if the last segment is gone. The file
//! `log/durable` covers these cases. It is a header with magic `QRMDUR\r\n`, salt 0 and a zxid up to
//! which the log was durable; a log that ends before it is damaged. The file is written in place after
//! each successful sync and not synced itself. So after a power cut it may contain an earlier zxid than
//! the durable one, but never a later one. Before the log is cut on purpose, the file is lowered and
//! synced. A reset ends only when the file contains the new base. If it is missing or its header is
//! wrong, it proves nothing.
//!
//! The note of a reset, `log/reset`, is a header with magic `QRMRST\r\n`, salt 0, the new base and the
//! feature level at it, then a block with the members at it.
//!
//! The file `log/members` has the members at the base of the log, once they were changed: a header with magic
//! `QRMMBR\r\n`, salt 0 and the base, then blocks, the oldest first. The last one whose entry is not behind the base
//! counts. It is written before the base moves, with what counts at the old and at the new base.
//!
//! A block of members:
//!
//! | at | bytes | |
//! |---|---|---|
//! | 0 | 4 | length of the members; 0: those of the first start |
//! | 4 | 4 | CRC-32C of the members |
//! | 8 | | the members, as `api::Roster` encodes them |
//!
//! Snapshots are `snapshots/<zxid in 16 hex digits>.snap`: the same header with magic `QRMSNP\r\n`,
//! salt 0, the zxid of the state and its feature level, then a block with the members there, then chunks, then the
//! trailer at the end of the file. A received snapshot is `<zxid>.received` until it is adopted.
//!
//! | chunk at | bytes | |
//! |---|---|---|
//! | 0 | 4 | length of the data, at least 1 |
//! | 4 | 4 | checksum, as above |
//! | 8 | | data |
//!
//! | trailer at | bytes | |
//! |---|---|---|
//! | 0 | 4 | 0 |
//! | 4 | 4 | checksum, as above |
//! | 8 | 8 | number of chunks |
//! | 16 | 4 | CRC-32C of everything before the trailer |
//! | 20 | 4 | zero |

use api::chance::{STEP, mix};
use std::sync::Arc;

use api::{Body, Entry, Level, Origin, PeerId, Roster, Ticket, UnknownRecord, Zxid};
use bytes::Bytes;

/// Format version of segments and snapshots.
pub(crate) const VERSION: u32 = 5;
/// Length of the header of a file.
pub(crate) const HEADER_LEN: usize = 40;
/// Length of the part of the header that has the same layout in every version.
const ANY_HEADER_LEN: usize = 28;
/// Length of a record without its payload.
pub(crate) const RECORD_LEN: usize = 60;
/// Length of a mark.
pub(crate) const MARK_LEN: usize = 16;
/// Length of the trailer of a snapshot.
pub(crate) const TRAILER_LEN: usize = 24;
/// Length field and checksum, the beginning of everything except the header.
pub(crate) const PREFIX_LEN: usize = 8;
/// The largest payload of a record: far above any limit that a node sets for its clients.
pub(crate) const MAX_PAYLOAD: usize = 256 << 20;

/// The kind of a file, by its first eight bytes. The line ends show a transfer in text mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Magic {
    Segment,
    Reset,
    Durable,
    Snapshot,
    Members,
}

impl Magic {
    fn bytes(self) -> &'static [u8; 8] {
        match self {
            Magic::Segment => b"QRMLOG\r\n",
            Magic::Reset => b"QRMRST\r\n",
            Magic::Durable => b"QRMDUR\r\n",
            Magic::Snapshot => b"QRMSNP\r\n",
            Magic::Members => b"QRMMBR\r\n",
        }
    }
}

/// The reason why a header is invalid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BadHeader {
    Version(u32),
    Damaged(&'static str),
}

/// The content of a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) zxid: Zxid,
    pub(crate) salt: Salt,
    /// The feature level at `zxid`.
    pub(crate) level: Option<Level>,
}

/// The salt of every checksum of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Salt(pub(crate) u32);

impl Salt {
    /// The salt of files that are never searched.
    pub(crate) const NONE: Salt = Salt(0);

    /// The salt of the segment for entries after `prev`. Two segments hardly ever have the same one.
    /// Without the secret it is only guessable.
    pub(crate) fn of_segment(secret: u64, prev: Zxid) -> Salt {
        Salt((mix(secret ^ prev.0.wrapping_mul(STEP)) >> 32) as u32)
    }
}

pub(crate) fn encode_header(magic: Magic, zxid: Zxid, salt: Salt, level: Option<Level>) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(magic.bytes());
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&salt.0.to_le_bytes());
    out[16..24].copy_from_slice(&zxid.0.to_le_bytes());
    let crc = crc32c::crc32c(&out[..24]);
    out[24..28].copy_from_slice(&crc.to_le_bytes());
    out[28..32].copy_from_slice(&Level::number(level).to_le_bytes());
    let crc = crc32c::crc32c(&out[..32]);
    out[32..36].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn decode_header(magic: Magic, file: &[u8]) -> Result<Header, BadHeader> {
    let short = BadHeader::Damaged("the file is too short for its header");
    let Some(header) = file.get(..ANY_HEADER_LEN) else { return Err(short) };
    if header[..8] != magic.bytes()[..] {
        return Err(BadHeader::Damaged("the header does not begin with the magic bytes"));
    }
    if u32_at(header, 24) != crc32c::crc32c(&header[..24]) {
        return Err(BadHeader::Damaged("the checksum of the header is wrong"));
    }
    let version = u32_at(header, 8);
    if version != VERSION {
        return Err(BadHeader::Version(version));
    }
    let Some(header) = file.get(..HEADER_LEN) else { return Err(short) };
    if u32_at(header, 32) != crc32c::crc32c(&header[..32]) {
        return Err(BadHeader::Damaged("the checksum of the header is wrong"));
    }
    let (zxid, salt) = (Zxid(u64_at(header, 16)), Salt(u32_at(header, 12)));
    Ok(Header { zxid, salt, level: Level::known(u32_at(header, 28)) })
}

/// A block with members; `None`: those of the first start.
pub(crate) fn encode_members(out: &mut Vec<u8>, roster: Option<&Roster>) {
    let bytes = roster.map(Roster::encode).unwrap_or_default();
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// The longest block of members.
pub(crate) const MAX_MEMBERS: usize = 1 << 20;

/// The length of the members in a block that begins with these bytes.
pub(crate) fn members_len(prefix: &[u8]) -> Result<usize, &'static str> {
    match prefix.get(..PREFIX_LEN).map(|prefix| u32_at(prefix, 0) as usize) {
        Some(len) if len <= MAX_MEMBERS => Ok(len),
        _ => Err("the length of its members is wrong"),
    }
}

/// The members of the block at the beginning of `buf`, and its length.
pub(crate) fn decode_members(buf: &[u8]) -> Result<(Option<Arc<Roster>>, usize), &'static str> {
    let end = PREFIX_LEN + members_len(buf)?;
    let bytes = buf.get(PREFIX_LEN..end).ok_or("it ends in its members")?;
    if u32_at(buf, 4) != crc32c::crc32c(bytes) {
        return Err("the checksum of its members is wrong");
    }
    if bytes.is_empty() {
        return Ok((None, end));
    }
    let roster = Roster::decode(bytes).map_err(|_| "it has members that this version does not know")?;
    Ok((Some(Arc::new(roster)), end))
}

/// A record in a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) zxid: Zxid,
    /// The entry before it.
    pub(crate) prev: Zxid,
    /// The zxid known to be durable when the record was written.
    pub(crate) durable: Zxid,
    pub(crate) time_ms: i64,
    pub(crate) origin: Option<Origin>,
    pub(crate) kind: u16,
    pub(crate) payload: &'a [u8],
}

impl Record<'_> {
    /// The length of the record on disk.
    pub(crate) fn len(&self) -> usize {
        RECORD_LEN + self.payload.len()
    }

    /// What the record is, if it is not the store's.
    ///
    /// # Errors
    /// This version does not know such a record.
    pub(crate) fn own_body(&self) -> Result<Option<Body>, UnknownRecord> {
        // Avoids a copy of a large payload.
        if self.kind == Body::STORE { Ok(None) } else { self.body().map(Some) }
    }

    fn body(&self) -> Result<Body, UnknownRecord> {
        Body::from_parts(self.kind, Bytes::copy_from_slice(self.payload))
    }

    /// # Errors
    /// This version does not know such a record.
    pub(crate) fn to_entry(self) -> Result<Entry, UnknownRecord> {
        let body = self.body()?;
        Ok(Entry { zxid: self.zxid, time_ms: self.time_ms, origin: self.origin, body, trace: None })
    }
}

/// The content of a segment at some position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item<'a> {
    Record(Record<'a>),
    Mark {
        durable: Zxid,
    },
    /// The beginning of a possible record of `needs` bytes.
    Partial {
        needs: usize,
    },
    Nothing,
}

/// The length on disk of the record of an entry.
pub(crate) fn record_len(entry: &Entry) -> usize {
    RECORD_LEN + entry.body.len()
}

/// Appends the record of `entry` to a buffer that will be written at `base`. The payload is at most
/// [`MAX_PAYLOAD`].
pub(crate) fn encode_record(
    out: &mut Vec<u8>,
    base: u64,
    salt: Salt,
    entry: &Entry,
    prev: Zxid,
    durable: Zxid,
) {
    let start = out.len();
    let payload = entry.body.payload();
    let length = (record_len(entry) - PREFIX_LEN) as u32;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entry.zxid.0.to_le_bytes());
    out.extend_from_slice(&prev.0.to_le_bytes());
    out.extend_from_slice(&durable.0.to_le_bytes());
    out.extend_from_slice(&entry.time_ms.to_le_bytes());
    let (has, peer, ticket) = entry.origin.map_or((0u16, 0, 0), |o| (1, o.peer.0, o.ticket.0));
    out.extend_from_slice(&entry.body.kind().to_le_bytes());
    out.extend_from_slice(&has.to_le_bytes());
    out.extend_from_slice(&peer.to_le_bytes());
    out.extend_from_slice(&ticket.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
    seal(&mut out[start..], base + start as u64, salt);
    out.extend_from_slice(&payload);
}

/// The mark that states that everything up to `durable` is durable, to be written at `position`.
pub(crate) fn encode_mark(position: u64, salt: Salt, durable: Zxid) -> [u8; MARK_LEN] {
    let mut out = [0; MARK_LEN];
    out[..4].copy_from_slice(&MARK.to_le_bytes());
    out[8..].copy_from_slice(&durable.0.to_le_bytes());
    seal(&mut out, position, salt);
    out
}

/// Decodes the item at the beginning of `buf`, which is at `position` of its segment.
pub(crate) fn decode(buf: &[u8], position: u64, salt: Salt) -> Item<'_> {
    let Some(prefix) = buf.get(..PREFIX_LEN) else { return Item::Partial { needs: PREFIX_LEN } };
    let length = u32_at(prefix, 0);
    if length == MARK {
        return match buf.get(..MARK_LEN) {
            None => Item::Partial { needs: MARK_LEN },
            Some(mark) => {
                decode_mark(mark, position, salt).map_or(Item::Nothing, |durable| Item::Mark { durable })
            }
        };
    }
    let needs = length as usize + PREFIX_LEN;
    if !(RECORD_LEN..=RECORD_LEN + MAX_PAYLOAD).contains(&needs) {
        return Item::Nothing;
    }
    let Some(head) = buf.get(..RECORD_LEN) else { return Item::Partial { needs } };
    let Some(head) = decode_head(head, position, salt) else { return Item::Nothing };
    match buf.get(RECORD_LEN..needs) {
        None => Item::Partial { needs },
        Some(payload) if crc32c::crc32c(payload) == head.payload_crc => {
            let Head { zxid, prev, durable, time_ms, origin, kind, .. } = head;
            Item::Record(Record { zxid, prev, durable, time_ms, origin, kind, payload })
        }
        Some(_) => Item::Nothing,
    }
}

/// The durable zxid in a head of a record or in a mark at the beginning of `buf`, as of the time of its
/// writing. Reads at most [`RECORD_LEN`] bytes.
pub(crate) fn witness(buf: &[u8], position: u64, salt: Salt) -> Option<Zxid> {
    if u32_at(buf.get(..PREFIX_LEN)?, 0) == MARK {
        return decode_mark(buf.get(..MARK_LEN)?, position, salt);
    }
    decode_head(buf.get(..RECORD_LEN)?, position, salt).map(|head| head.durable)
}

/// A record without its payload.
struct Head {
    zxid: Zxid,
    prev: Zxid,
    durable: Zxid,
    time_ms: i64,
    origin: Option<Origin>,
    kind: u16,
    payload_crc: u32,
}

/// The head in these [`RECORD_LEN`] bytes, if they are a head for this position.
fn decode_head(head: &[u8], position: u64, salt: Salt) -> Option<Head> {
    let (zxid, prev, durable) = (Zxid(u64_at(head, 8)), Zxid(u64_at(head, 16)), Zxid(u64_at(head, 24)));
    let [kind, has_origin] = [40, 42].map(|at| u16_at(head, at));
    let origin = match (has_origin, u32_at(head, 44), u64_at(head, 48)) {
        (0, 0, 0) => None,
        (1, peer, ticket) => Some(Origin { peer: PeerId(peer), ticket: Ticket(ticket) }),
        _ => return None,
    };
    // The chain first: this check recognises random bytes at less cost than the checksum.
    if !zxid.follows(prev) || durable > prev || !is_sealed(head, position, salt) {
        return None;
    }
    let (time_ms, payload_crc) = (u64_at(head, 32).cast_signed(), u32_at(head, 56));
    Some(Head { zxid, prev, durable, time_ms, origin, kind, payload_crc })
}

fn decode_mark(mark: &[u8], position: u64, salt: Salt) -> Option<Zxid> {
    is_sealed(mark, position, salt).then(|| Zxid(u64_at(mark, 8)))
}

/// Fills in the checksum of an item that begins with length and checksum.
pub(crate) fn seal(item: &mut [u8], position: u64, salt: Salt) {
    let crc = checksum(item, position, salt);
    item[4..PREFIX_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// Whether the checksum is right.
pub(crate) fn is_sealed(item: &[u8], position: u64, salt: Salt) -> bool {
    u32_at(item, 4) == checksum(item, position, salt)
}

fn u16_at(buf: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([buf[at], buf[at + 1]])
}

pub(crate) fn u32_at(buf: &[u8], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&buf[at..at + 4]);
    u32::from_le_bytes(bytes)
}

pub(crate) fn u64_at(buf: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&buf[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn checksum(item: &[u8], position: u64, salt: Salt) -> u32 {
    let crc = crc32c::crc32c(&salt.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &item[..4]);
    crc32c::crc32c_append(crc, &item[PREFIX_LEN..])
}

/// The length field of a mark.
const MARK: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use api::Epoch;

    use super::*;

    const SALT: Salt = Salt(0x7654_3210);

    fn entry() -> Entry {
        Entry {
            zxid: Zxid::new(Epoch(3), 8),
            time_ms: -5,
            origin: Some(Origin { peer: PeerId(2), ticket: Ticket(77) }),
            body: Body::Store(Bytes::from_static(b"payload")),
            trace: None,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Files on disks must stay readable: a change here needs another version.
    #[test]
    fn the_bytes_of_records_of_each_kind_are_as_documented() {
        let z = |epoch, counter| Zxid::new(Epoch(epoch), counter);
        let level = Entry { body: Body::Level(Level(0x0102)), origin: None, ..entry() };
        let three = Roster::initial(api::Ensemble::of_voters(1..=3).unwrap());
        for (entry, prev, expected) in [
            (
                entry(),
                z(3, 7),
                "3b000000 99e42be2 0800000003000000 0700000003000000 0100000003000000 fbffffffffffffff \
                 0100 0100 02000000 4d00000000000000 7069e3f4 7061796c6f6164",
            ),
            (
                Entry::marker(Epoch(4), Level(1), 6),
                z(3, 7),
                "38000000 6a86db63 0000000004000000 0700000003000000 0100000003000000 0600000000000000 \
                 0200 0000 00000000 0000000000000000 7fe12295 01000000",
            ),
            (
                Entry { body: Body::Members(std::sync::Arc::new(three)), origin: None, ..entry() },
                z(3, 7),
                "77000000 e1071bc3 0800000003000000 0700000003000000 0100000003000000 fbffffffffffffff \
                 0300 0000 00000000 0000000000000000 20837a6b \
                 00000000000000000000000000000000000000000003000000010000000101000000000000000002000000 \
                 010100000000000000000300000001010000000000000000",
            ),
            (
                level,
                z(3, 7),
                "38000000 220c1434 0800000003000000 0700000003000000 0100000003000000 fbffffffffffffff \
                 0400 0000 00000000 0000000000000000 38fa4152 02010000",
            ),
        ] {
            let mut out = vec![0xaa];
            encode_record(&mut out, 99, SALT, &entry, prev, z(3, 1));
            assert_eq!(hex(&out[1..]), expected.replace(' ', ""));
            let Item::Record(r) = decode(&out[1..], 100, SALT) else { panic!("{entry:?}") };
            assert_eq!((r.prev, r.durable), (prev, z(3, 1)));
            assert_eq!(r.own_body().map(|b| b.and_then(|b| b.level())), Ok(entry.body.level()));
            assert_eq!(r.to_entry(), Ok(entry));
        }
    }

    #[test]
    fn a_sound_record_of_an_unknown_kind_is_no_damage() {
        let mut out = Vec::new();
        encode_record(&mut out, 0, SALT, &entry(), Zxid::new(Epoch(3), 7), Zxid::ZERO);
        for kind in [0u16, 3, 5, u16::MAX] {
            out[40..42].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(decode(&out, 0, SALT), Item::Nothing, "without the right checksum");
            seal(&mut out[..RECORD_LEN], 0, SALT);
            let Item::Record(r) = decode(&out, 0, SALT) else { panic!("{kind}") };
            let unknown = UnknownRecord { kind };
            assert_eq!((r.own_body(), r.to_entry()), (Err(unknown), Err(unknown)));
        }
    }

    #[test]
    fn a_record_is_valid_only_whole_unchanged_and_in_its_place() {
        let mut out = Vec::new();
        encode_record(&mut out, 4096, SALT, &entry(), Zxid::new(Epoch(3), 7), Zxid::ZERO);
        assert!(matches!(decode(&out, 4096, SALT), Item::Record(_)));
        assert_eq!(decode(&out, 8192, SALT), Item::Nothing, "misdirected");
        assert_eq!(decode(&out, 4096, Salt::NONE), Item::Nothing, "of another file");
        for cut in 0..out.len() {
            assert!(matches!(decode(&out[..cut], 4096, SALT), Item::Partial { .. }));
        }
        for bit in 0..out.len() * 8 {
            let mut flipped = out.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(decode(&flipped, 4096, SALT), Item::Record(_) | Item::Mark { .. }),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn marks_and_zeros_are_distinguished() {
        let mark = encode_mark(7, SALT, Zxid(9));
        assert_eq!(decode(&mark, 7, SALT), Item::Mark { durable: Zxid(9) });
        assert_eq!(decode(&mark, 8, SALT), Item::Nothing);
        assert_eq!(decode(&mark, 7, Salt::NONE), Item::Nothing);
        assert_eq!(decode(&[0; 100], 0, SALT), Item::Nothing);
    }

    #[test]
    fn the_bytes_of_a_header_are_as_documented() {
        let expected =
            "51524d4c4f470d0a 05000000 10325476 0700000003000000 00a97b2d 02000000 0b914f33 00000000";
        let header = encode_header(Magic::Segment, Zxid::new(Epoch(3), 7), SALT, Some(Level(2)));
        assert_eq!(hex(&header), expected.replace(' ', ""));
    }

    #[test]
    fn a_header_tells_a_new_version_from_damage() {
        let header = encode_header(Magic::Segment, Zxid(7), SALT, Some(Level(2)));
        let read = Header { zxid: Zxid(7), salt: SALT, level: Some(Level(2)) };
        assert_eq!(decode_header(Magic::Segment, &header), Ok(read));
        for bit in 0..36 * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode_header(Magic::Segment, &flipped), Err(BadHeader::Damaged(_))), "{bit}");
        }
        let bare = encode_header(Magic::Segment, Zxid::ZERO, SALT, None);
        assert_eq!(decode_header(Magic::Segment, &bare).map(|header| header.level), Ok(None));
        assert!(matches!(decode_header(Magic::Snapshot, &header), Err(BadHeader::Damaged(_))));
        let mut newer = header;
        newer[8] = 9;
        assert!(matches!(decode_header(Magic::Segment, &newer), Err(BadHeader::Damaged(_))));
        let crc = crc32c::crc32c(&newer[..24]);
        newer[24..28].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_header(Magic::Segment, &newer), Err(BadHeader::Version(9)));
        // Headers of the previous version had 32 bytes, the last four of them zero.
        newer[8] = 3;
        let crc = crc32c::crc32c(&newer[..24]);
        newer[24..28].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_header(Magic::Segment, &newer[..32]), Err(BadHeader::Version(3)));
    }
}

//! What store-svc keeps: the payloads of the log and the records of checkpoints and snapshots (`quorate.state.v1`).
//!
//! Written by one version and read by later ones, for ever. Decoding checks everything, because a disk or a peer may
//! have changed a byte.

use api::{
    Command, CommandBody, Create, CreateMode, Epoch, MultiOp, OpError, Path, RequestHash, SessionId,
    SessionToken, StreamId, Write, WriteNumber, Zxid,
    record::{self, Record},
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::{Malformed, state as wire};

/// The payload of a log entry.
#[must_use]
pub fn encode_command(command: Command) -> Bytes {
    wire::Command::from(command).encode_to_vec().into()
}

/// Reads the payload of a log entry; values stay pieces of `payload`.
///
/// # Errors
/// If these are not the bytes of a command that this version knows.
pub fn decode_command(payload: Bytes) -> Result<Command, Malformed> {
    strictly::<wire::Command>(payload)?.try_into()
}

/// A record by itself.
#[must_use]
pub fn encode_record(record: Record) -> Vec<u8> {
    wire::Record::from(record).encode_to_vec()
}

/// Reads a record by itself.
///
/// # Errors
/// If these are not the bytes of a record that this version knows.
pub fn decode_record(bytes: Bytes) -> Result<Record, Malformed> {
    strictly::<wire::Record>(bytes)?.try_into()
}

/// Appends an encoded record to a stream of them, as a snapshot is: each with its length before it.
pub fn append_record(stream: &mut BytesMut, record: &[u8]) {
    // The framing of `prost::Message::encode_length_delimited`.
    prost::encoding::encode_varint(record.len() as u64, stream);
    stream.extend_from_slice(record);
}

/// Reads such a stream, which may be cut into pieces anywhere.
#[derive(Default, Debug)]
pub struct RecordDecoder {
    /// What came and is not read yet.
    rest: BytesMut,
}

impl RecordDecoder {
    /// Adds the next piece. Read all that is [there](RecordDecoder::next_record) before the next one.
    pub fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next record, `None` if it is not all there yet.
    ///
    /// # Errors
    /// If the bytes are no record; nothing behind them can be told apart then.
    pub fn next_record(&mut self) -> Result<Option<Record>, Malformed> {
        let Some((length, framing)) = length(&self.rest)? else { return Ok(None) };
        if self.rest.len() < framing + length {
            return Ok(None);
        }
        let _ = self.rest.split_to(framing);
        decode_record(self.rest.split_to(length).freeze()).map(Some)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// If it ends within a record.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(Malformed(format!("the last record is cut off, after {n} bytes"))),
        }
    }
}

/// The length that stands first in `bytes` and how many bytes it takes up; `None` if it is not all there.
fn length(mut bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    const VARINT_MAX: usize = 10;
    let before = bytes.len();
    if before < VARINT_MAX && bytes.iter().all(|b| b & 0x80 != 0) {
        return Ok(None);
    }
    let length = prost::encoding::decode_varint(&mut bytes).map_err(malformed)?;
    match usize::try_from(length) {
        Ok(length) if length <= RECORD_MAX => Ok(Some((length, before - bytes.len()))),
        _ => Err(Malformed(format!("a record of {length} bytes, more than the {RECORD_MAX} possible"))),
    }
}

/// No record is larger: znodes and kept results are made by one entry each, and entries have limits far below.
const RECORD_MAX: usize = 256 << 20;

/// Of the records. Raised whenever a state that one version has written means something else to another.
const FORMAT: u32 = 3;

/// Decodes a message in which this version knows everything. What `prost` does not know it leaves out: then the message that it
/// gives is shorter than what it was given.
fn strictly<M: prost::Message + Default>(bytes: Bytes) -> Result<M, Malformed> {
    let length = bytes.len();
    let message = M::decode(bytes).map_err(malformed)?;
    if message.encoded_len() == length { Ok(message) } else { Err(unknown()) }
}

/// Another version of the program has written it.
fn unknown() -> Malformed {
    Malformed(format!(
        "something in it is not known to this version of Quorate, {}: run the version that wrote it, or a later one, on \
         all nodes",
        env!("CARGO_PKG_VERSION")
    ))
}

fn malformed(e: prost::DecodeError) -> Malformed {
    Malformed(e.to_string())
}

// ---- commands ----

impl From<Command> for wire::Command {
    fn from(c: Command) -> wire::Command {
        use wire::command::Body as Wire;
        let body = match c.body {
            CommandBody::Write(Write::Create(create)) => Wire::Create(create.into()),
            CommandBody::Write(Write::Set { path, data, version }) => {
                Wire::Set(wire::Set { path: text(&path), data, version })
            }
            CommandBody::Write(Write::Delete { path, version }) => {
                Wire::Delete(wire::Delete { path: text(&path), version })
            }
            CommandBody::Write(Write::Multi(parts)) => {
                Wire::Multi(wire::Multi { parts: parts.into_iter().map(Into::into).collect() })
            }
            CommandBody::Refuse { error, request } => {
                Wire::Refuse(wire::RefuseCommand { fault: Some(error.into()), request: request.0 })
            }
            CommandBody::OpenSession { token, timeout_ms, sessions_max } => {
                let token = Bytes::copy_from_slice(&token.0);
                Wire::OpenSession(wire::OpenSessionCommand { token, timeout_ms, sessions_max })
            }
            CommandBody::ResumeSession { session, stream } => {
                Wire::ResumeSession(wire::ResumeSessionCommand { session: session.0, stream: stream.0 })
            }
            CommandBody::CloseSession { session, expired } => {
                let expired_in_epoch = expired.map_or(0, |epoch| epoch.0);
                Wire::CloseSession(wire::CloseSessionCommand { session: session.0, expired_in_epoch })
            }
            CommandBody::Check { of, digest } => Wire::Check(wire::DigestCheck { of: of.0, digest }),
        };
        wire::Command {
            session: c.session.map_or(0, |s| s.0),
            stream: c.stream.0,
            number: c.number.map_or(0, |n| n.0),
            acked: c.acked.0,
            body: Some(body),
        }
    }
}

impl TryFrom<wire::Command> for Command {
    type Error = Malformed;

    fn try_from(c: wire::Command) -> Result<Command, Malformed> {
        use wire::command::Body as Wire;
        let body = match c.body {
            Some(Wire::Create(c)) => CommandBody::Write(Write::Create(c.try_into()?)),
            Some(Wire::Set(wire::Set { path: p, data, version })) => {
                CommandBody::Write(Write::Set { path: path(&p)?, data, version })
            }
            Some(Wire::Delete(wire::Delete { path: p, version })) => {
                CommandBody::Write(Write::Delete { path: path(&p)?, version })
            }
            Some(Wire::Multi(m)) => {
                let parts = m.parts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                CommandBody::Write(Write::Multi(parts))
            }
            Some(Wire::Refuse(r)) => CommandBody::Refuse {
                error: r.fault.ok_or_else(unknown)?.try_into()?,
                request: RequestHash(r.request),
            },
            Some(Wire::OpenSession(o)) => CommandBody::OpenSession {
                token: token(&o.token)?,
                timeout_ms: o.timeout_ms,
                sessions_max: o.sessions_max,
            },
            Some(Wire::ResumeSession(r)) => {
                CommandBody::ResumeSession { session: SessionId(r.session), stream: StreamId(r.stream) }
            }
            Some(Wire::CloseSession(c)) => {
                let expired = (c.expired_in_epoch != 0).then_some(Epoch(c.expired_in_epoch));
                CommandBody::CloseSession { session: SessionId(c.session), expired }
            }
            Some(Wire::Check(c)) => CommandBody::Check { of: Zxid(c.of), digest: c.digest },
            None => return Err(unknown()),
        };
        Ok(Command {
            session: (c.session != 0).then_some(SessionId(c.session)),
            stream: StreamId(c.stream),
            number: (c.number != 0).then_some(WriteNumber(c.number)),
            acked: WriteNumber(c.acked),
            body,
        })
    }
}

impl From<Create> for wire::Create {
    fn from(Create { path, data, mode }: Create) -> wire::Create {
        let CreateMode { ephemeral, sequential } = mode;
        wire::Create { path: text(&path), data, ephemeral, sequential }
    }
}

impl TryFrom<wire::Create> for Create {
    type Error = Malformed;

    fn try_from(c: wire::Create) -> Result<Create, Malformed> {
        let mode = CreateMode { ephemeral: c.ephemeral, sequential: c.sequential };
        let path = if c.sequential {
            Path::prefix(&c.path).map_err(|e| Malformed(e.to_string()))?
        } else {
            path(&c.path)?
        };
        Ok(Create { path, data: c.data, mode })
    }
}

impl From<MultiOp> for wire::Part {
    fn from(part: MultiOp) -> wire::Part {
        use wire::part::Kind;
        let kind = match part {
            MultiOp::Create(create) => Kind::Create(create.into()),
            MultiOp::Set { path, data, version } => Kind::Set(wire::Set { path: text(&path), data, version }),
            MultiOp::Delete { path, version } => Kind::Delete(wire::Delete { path: text(&path), version }),
            MultiOp::Check { path, version } => Kind::Check(wire::Check { path: text(&path), version }),
        };
        wire::Part { kind: Some(kind) }
    }
}

impl TryFrom<wire::Part> for MultiOp {
    type Error = Malformed;

    fn try_from(part: wire::Part) -> Result<MultiOp, Malformed> {
        use wire::part::Kind;
        Ok(match part.kind {
            Some(Kind::Create(c)) => MultiOp::Create(c.try_into()?),
            Some(Kind::Set(s)) => MultiOp::Set { path: path(&s.path)?, data: s.data, version: s.version },
            Some(Kind::Delete(d)) => MultiOp::Delete { path: path(&d.path)?, version: d.version },
            Some(Kind::Check(c)) => MultiOp::Check { path: path(&c.path)?, version: c.version },
            None => return Err(unknown()),
        })
    }
}

impl From<OpError> for wire::Fault {
    fn from(error: OpError) -> wire::Fault {
        use wire::fault::Kind;
        let kind = match error {
            OpError::TooLarge { size, limit } => Kind::TooLarge(wire::TooLarge { size, limit }),
            OpError::DiskFull => Kind::DiskFull(wire::DiskFull {}),
            OpError::Multi { index, cause } => {
                Kind::Part(Box::new(wire::FaultyPart { index, fault: Some(Box::new((*cause).into())) }))
            }
            other => Kind::BadArguments(other.to_string()),
        };
        wire::Fault { kind: Some(kind) }
    }
}

impl TryFrom<wire::Fault> for OpError {
    type Error = Malformed;

    fn try_from(fault: wire::Fault) -> Result<OpError, Malformed> {
        use wire::fault::Kind;
        Ok(match fault.kind.ok_or_else(unknown)? {
            Kind::TooLarge(wire::TooLarge { size, limit }) => OpError::TooLarge { size, limit },
            Kind::DiskFull(wire::DiskFull {}) => OpError::DiskFull,
            Kind::Part(part) => {
                let cause = OpError::try_from(*part.fault.ok_or_else(unknown)?)?;
                OpError::Multi { index: part.index, cause: Box::new(cause) }
            }
            Kind::BadArguments(text) => OpError::BadArguments(text),
        })
    }
}

fn text(path: &Path) -> String {
    path.as_str().to_owned()
}

fn path(text: &str) -> Result<Path, Malformed> {
    Path::new(text).map_err(|e| Malformed(e.to_string()))
}

fn token(bytes: &[u8]) -> Result<SessionToken, Malformed> {
    let token = bytes
        .try_into()
        .map_err(|_| Malformed(format!("a session token of {} bytes, not 16", bytes.len())))?;
    Ok(SessionToken(token))
}

// ---- records ----

impl From<Record> for wire::Record {
    fn from(record: Record) -> wire::Record {
        use wire::record::Kind;
        let kind = match record {
            Record::Header(h) => Kind::Header(wire::Header {
                applied: h.applied.0,
                digest: h.digest,
                znodes: h.znodes,
                sessions: h.sessions,
                time_ms: h.time_ms,
                format: FORMAT,
                level: h.level.0,
            }),
            Record::Znode(z) => Kind::Znode(wire::Znode {
                path: text(&z.path),
                data: z.data,
                czxid: z.czxid.0,
                mzxid: z.mzxid.0,
                pzxid: z.pzxid.0,
                ctime_ms: z.ctime_ms,
                mtime_ms: z.mtime_ms,
                version: z.version,
                cversion: z.cversion,
                aversion: z.aversion,
                ephemeral_owner: z.ephemeral_owner.map_or(0, |s| s.0),
                creates: z.creates,
            }),
            Record::Session(s) => Kind::Session(wire::Session {
                id: s.id.0,
                token: Bytes::copy_from_slice(&s.token.0),
                timeout_ms: s.timeout_ms,
                acked: s.acked.0,
                stream: s.stream.0,
            }),
            Record::Result(r) => Kind::Result(wire::KeptResult {
                session: r.session.0,
                number: r.number.0,
                zxid: r.zxid.0,
                request: r.request.0,
                outcome: r.outcome,
            }),
        };
        wire::Record { kind: Some(kind) }
    }
}

impl TryFrom<wire::Record> for Record {
    type Error = Malformed;

    fn try_from(record: wire::Record) -> Result<Record, Malformed> {
        use wire::record::Kind;
        Ok(match record.kind {
            Some(Kind::Header(h)) if h.format != FORMAT => {
                return Err(Malformed(format!(
                    "the state has the format {}, and this version of Quorate reads {FORMAT} only; let the version that wrote \
                     it export the tree, and import it into a new ensemble",
                    h.format
                )));
            }
            Some(Kind::Header(h)) => Record::Header(record::Header {
                applied: Zxid(h.applied),
                digest: h.digest,
                znodes: h.znodes,
                sessions: h.sessions,
                time_ms: h.time_ms,
                level: crate::quorum::level(h.level)?,
            }),
            Some(Kind::Znode(z)) => Record::Znode(record::Znode {
                path: path(&z.path)?,
                data: z.data,
                czxid: Zxid(z.czxid),
                mzxid: Zxid(z.mzxid),
                pzxid: Zxid(z.pzxid),
                ctime_ms: z.ctime_ms,
                mtime_ms: z.mtime_ms,
                version: z.version,
                cversion: z.cversion,
                aversion: z.aversion,
                ephemeral_owner: (z.ephemeral_owner != 0).then_some(SessionId(z.ephemeral_owner)),
                creates: z.creates,
            }),
            Some(Kind::Session(s)) => Record::Session(record::Session {
                id: SessionId(s.id),
                token: token(&s.token)?,
                timeout_ms: s.timeout_ms,
                acked: WriteNumber(s.acked),
                stream: StreamId(s.stream),
            }),
            Some(Kind::Result(r)) => Record::Result(record::KeptResult {
                session: SessionId(r.session),
                number: WriteNumber(r.number),
                zxid: Zxid(r.zxid),
                request: RequestHash(r.request),
                outcome: r.outcome,
            }),
            None => return Err(unknown()),
        })
    }
}

#[cfg(test)]
mod tests {
    use api::Level;

    use super::*;

    fn path(p: &str) -> Path {
        super::path(p).unwrap()
    }

    fn commands() -> Vec<Command> {
        let create = Create {
            path: path("/a/b"),
            data: Bytes::from_static(b"\0\xff"),
            mode: CreateMode { ephemeral: true, sequential: true },
        };
        let bodies = [
            CommandBody::Write(Write::Create(create.clone())),
            CommandBody::Write(Write::Set { path: Path::root(), data: Bytes::new(), version: Some(0) }),
            CommandBody::Write(Write::Delete { path: path("/ä"), version: None }),
            CommandBody::Write(Write::Multi(vec![
                MultiOp::Create(create),
                MultiOp::Set { path: path("/s"), data: Bytes::from_static(b"x"), version: None },
                MultiOp::Delete { path: path("/d"), version: Some(3) },
                MultiOp::Check { path: path("/c"), version: Some(0) },
            ])),
            CommandBody::Refuse {
                error: OpError::Multi { index: 3, cause: Box::new(OpError::BadArguments("no".into())) },
                request: RequestHash(1 << 63),
            },
            CommandBody::Refuse { error: OpError::TooLarge { size: 9, limit: 8 }, request: RequestHash(0) },
            CommandBody::Refuse { error: OpError::DiskFull, request: RequestHash(0) },
            CommandBody::OpenSession { token: SessionToken([3; 16]), timeout_ms: 4000, sessions_max: 5 },
            CommandBody::ResumeSession { session: SessionId(77), stream: StreamId(u64::MAX) },
            CommandBody::CloseSession { session: SessionId(77), expired: Some(Epoch(3)) },
            CommandBody::CloseSession { session: SessionId(78), expired: None },
            CommandBody::Check { of: Zxid(5), digest: u64::MAX },
        ];
        let numbered = |body| Command {
            session: Some(SessionId(1)),
            stream: StreamId(7),
            number: Some(WriteNumber(2)),
            acked: WriteNumber(1),
            body,
        };
        bodies.into_iter().flat_map(|body| [numbered(body.clone()), Command::outside(body)]).collect()
    }

    fn records() -> Vec<Record> {
        vec![
            Record::Header(record::Header {
                applied: Zxid(1),
                digest: u64::MAX,
                znodes: 3,
                sessions: 4,
                time_ms: 5,
                level: Level(2),
            }),
            Record::Znode(record::Znode {
                path: path("/a"),
                data: Bytes::from_static(b"value"),
                czxid: Zxid(1),
                mzxid: Zxid(2),
                pzxid: Zxid(3),
                ctime_ms: 4,
                mtime_ms: 5,
                version: 6,
                cversion: 7,
                aversion: 8,
                ephemeral_owner: Some(SessionId(9)),
                creates: 10,
            }),
            Record::Session(record::Session {
                id: SessionId(9),
                token: SessionToken([1; 16]),
                timeout_ms: 1000,
                acked: WriteNumber(5),
                stream: StreamId(3),
            }),
            Record::Result(record::KeptResult {
                session: SessionId(9),
                number: WriteNumber(6),
                zxid: Zxid(8),
                request: RequestHash(u64::MAX),
                outcome: Bytes::from_static(b"\x01\0"),
            }),
        ]
    }

    #[test]
    fn commands_come_back_as_they_were() {
        for command in commands() {
            assert_eq!(decode_command(encode_command(command.clone())), Ok(command));
        }
    }

    #[test]
    fn records_come_back_as_they_were_alone_and_in_streams_cut_anywhere() {
        let mut stream = BytesMut::new();
        for record in records() {
            let bytes = encode_record(record.clone());
            append_record(&mut stream, &bytes);
            assert_eq!(decode_record(bytes.into()), Ok(record));
        }
        for piece in [1, 7, 64, stream.len()] {
            let (mut decoder, mut read) = (RecordDecoder::default(), Vec::new());
            for piece in stream.chunks(piece) {
                decoder.push(piece);
                while let Some(record) = decoder.next_record().unwrap() {
                    read.push(record);
                }
            }
            decoder.finish().unwrap();
            assert_eq!(read, records(), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_state_of_another_format_is_refused_by_name() {
        let header = wire::Header { applied: 1, format: 1, level: 1, ..Default::default() };
        let record = wire::Record { kind: Some(wire::record::Kind::Header(header)) };
        let refused = decode_record(record.encode_to_vec().into()).unwrap_err().to_string();
        assert!(refused.contains("format 1") && refused.contains("export"), "{refused}");
    }

    #[test]
    fn what_a_later_version_has_added_is_refused_and_not_left_out() {
        let bodies: Vec<Vec<u32>> = (4..=11).chain([13]).map(|tag| vec![tag]).collect();
        let parts =
            (1..=4).map(|tag| vec![7, 1, tag]).chain([vec![10, 1], vec![10, 1, 4], vec![10, 1, 4, 2]]);
        for path in bodies.into_iter().chain(parts).chain([vec![], vec![7, 1]]) {
            let all = commands().into_iter().filter_map(|c| extended(&encode_command(c), &path));
            let refused: Vec<_> = all.map(|bytes| decode_command(bytes.into()).unwrap_err()).collect();
            assert!(!refused.is_empty(), "no command has {path:?}");
            assert!(refused.iter().all(|e| e.0.contains("not known to this version")), "{refused:?}");
        }
        for path in [vec![], vec![1], vec![2], vec![3], vec![4]] {
            let all = records().into_iter().filter_map(|r| extended(&encode_record(r), &path));
            assert!(all.map(|bytes| decode_record(bytes.into())).all(|decoded| decoded.is_err()));
        }
        let later = wire::Command { number: 1, ..Default::default() };
        let refused = decode_command(later.encode_to_vec().into()).unwrap_err();
        assert!(refused.0.contains("not known to this version"), "a body of a later version: {refused}");
    }

    /// `message` with an unknown field in the message that is found by these fields; `None` if it has none there.
    fn extended(message: &[u8], path: &[u32]) -> Option<Vec<u8>> {
        use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
        let Some((&wanted, path)) = path.split_first() else {
            return Some([message, &[0xc0, 0x3e, 1]].concat());
        };
        let mut rest = message;
        while !rest.is_empty() {
            let before = message.len() - rest.len();
            let (tag, kind) = decode_key(&mut rest).unwrap();
            match kind {
                WireType::Varint => drop(decode_varint(&mut rest).unwrap()),
                WireType::SixtyFourBit => drop(rest.split_off(..8)),
                _ => {
                    let length = decode_varint(&mut rest).unwrap() as usize;
                    let inner = rest.split_off(..length).unwrap();
                    if tag == wanted {
                        let Some(inner) = extended(inner, path) else { continue };
                        let mut all = message[..before].to_vec();
                        encode_key(tag, kind, &mut all);
                        encode_varint(inner.len() as u64, &mut all);
                        return Some([all, inner, rest.to_vec()].concat());
                    }
                }
            }
        }
        None
    }

    /// What is on disks must stay readable: a change here needs another format, and a way from the old one.
    #[test]
    fn the_bytes_of_commands_and_records_are_these() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let commands: Vec<String> = commands().into_iter().map(|c| hex(&encode_command(c))).collect();
        let records: Vec<String> = records().into_iter().map(|r| hex(&encode_record(r))).collect();
        let all = [commands, records].concat().join("\n") + "\n";
        assert_eq!(all, include_str!("store/golden.txt"), "the format has changed");
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic() {
        let mut decoder = RecordDecoder::default();
        decoder.push(&[200, 1, 0]);
        assert_eq!(decoder.next_record(), Ok(None));
        assert!(decoder.finish().is_err(), "cut off");
        for huge in [&[0xff; 11][..], &[0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0]] {
            let mut decoder = RecordDecoder::default();
            decoder.push(huge);
            assert!(decoder.next_record().is_err(), "{huge:?}");
        }
        for command in commands() {
            let bytes = encode_command(command);
            (0..bytes.len()).for_each(|end| drop(decode_command(bytes.slice(..end))));
        }
        assert!(decode_command(Bytes::new()).is_err(), "a command without a body");
        assert!(decode_record(Bytes::from_static(b"\xff\xff")).is_err());
    }
}

//! What store-svc keeps: the payloads of the log and the records of checkpoints and snapshots (`quorate.state.v1`).
//!
//! Written by one version and read by later ones, for ever. Decoding checks everything, because a disk or a peer may
//! have changed a byte.

use api::{
    Command, CommandBody, Epoch, OpError, Path, RequestHash, SessionId, SessionToken, StreamId, Write,
    WriteNumber, Zxid,
    record::{self, Record},
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::{Malformed, state as wire, v1};

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
    wire::Command::decode(payload).map_err(malformed)?.try_into()
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
    wire::Record::decode(bytes).map_err(malformed)?.try_into()
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
const FORMAT: u32 = 2;

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
                Wire::Set(v1::SetRequest { path: path.as_str().to_owned(), data, version })
            }
            CommandBody::Write(Write::Delete { path, version }) => {
                Wire::Delete(v1::DeleteRequest { path: path.as_str().to_owned(), version })
            }
            CommandBody::Write(Write::Multi(parts)) => {
                Wire::Multi(v1::MultiRequest { ops: parts.into_iter().map(Into::into).collect() })
            }
            CommandBody::Refuse { error, request } => {
                Wire::Refuse(wire::RefuseCommand { error: Some(error.into()), request: request.0 })
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
        let faulty = |e: OpError| Malformed(e.to_string());
        let body = match c.body {
            Some(Wire::Create(r)) => CommandBody::Write(r.try_into().map_err(faulty)?),
            Some(Wire::Set(r)) => CommandBody::Write(r.try_into().map_err(faulty)?),
            Some(Wire::Delete(r)) => CommandBody::Write(r.try_into().map_err(faulty)?),
            Some(Wire::Multi(r)) => CommandBody::Write(r.try_into().map_err(faulty)?),
            Some(Wire::Refuse(r)) => CommandBody::Refuse {
                error: r.error.ok_or_else(|| Malformed("RefuseCommand.error is missing".into()))?.into(),
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
            None => return Err(Malformed("Command.body is missing, or newer than this version".into())),
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
            }),
            Record::Znode(z) => Kind::Znode(wire::Znode {
                path: z.path.as_str().to_owned(),
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
            }),
            Some(Kind::Znode(z)) => Record::Znode(record::Znode {
                path: Path::new(&z.path).map_err(|e| Malformed(e.to_string()))?,
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
            None => return Err(Malformed("Record.kind is missing, or newer than this version".into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use api::{Create, CreateMode, MultiOp, PathError};

    use super::*;

    fn path(p: &str) -> Path {
        Path::new(p).unwrap()
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
                error: OpError::BadPath(PathError::TrailingSlash),
                request: RequestHash(1 << 63),
            },
            CommandBody::OpenSession { token: SessionToken([3; 16]), timeout_ms: 4000, sessions_max: 5 },
            CommandBody::ResumeSession { session: SessionId(77), stream: StreamId(u64::MAX) },
            CommandBody::CloseSession { session: SessionId(77), expired: Some(Epoch(3)) },
            CommandBody::CloseSession { session: SessionId(78), expired: None },
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
        let header = wire::Header { applied: 1, format: 1, ..Default::default() };
        let record = wire::Record { kind: Some(wire::record::Kind::Header(header)) };
        let refused = decode_record(record.encode_to_vec().into()).unwrap_err().to_string();
        assert!(refused.contains("format 1") && refused.contains("export"), "{refused}");
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

//! Records: of checkpoints and snapshots.

use api::{
    AclId, RequestHash, SessionId, StreamId, WriteNumber, Zxid,
    record::{self, Record},
};
use bytes::Bytes;

use super::parts::{
    acl, identities, kind, path, quota, text, to_entries, to_identities, to_kind, to_quota, token_hash,
};
use super::{FORMAT, unknown};
use crate::{Malformed, state as wire};

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
            Record::Znode(z) => Kind::Znode({
                let (kind, ttl_ms) = to_kind(z.kind);
                wire::Znode {
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
                    kind,
                    ttl_ms,
                    acl: z.acl.0,
                    quota: to_quota(&z.quota),
                }
            }),
            Record::Acl(list) => {
                Kind::Acl(wire::AccessList { id: list.id.0, entries: to_entries(&list.acl) })
            }
            Record::Session(s) => Kind::Session(wire::Session {
                id: s.id.0,
                token_hash: Bytes::copy_from_slice(&s.token_hash.0),
                timeout_ms: s.timeout_ms,
                acked: s.acked.0,
                stream: s.stream.0,
                owner: to_identities(&s.owner),
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
                kind: kind(z.kind, z.ttl_ms)?,
                acl: AclId(z.acl),
                quota: quota(z.quota)?,
            }),
            Some(Kind::Acl(list)) => {
                Record::Acl(record::AccessList { id: AclId(list.id), acl: acl(list.entries)? })
            }
            Some(Kind::Session(s)) => Record::Session(record::Session {
                id: SessionId(s.id),
                token_hash: token_hash(&s.token_hash)?,
                owner: identities(s.owner)?,
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

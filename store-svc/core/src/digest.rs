//! The contribution of each record to the digest of the state.
//!
//! The digest is the wrapping sum of one 64-bit XXH3 hash for each znode, access list, session and kept
//! result. A change updates the sum: subtract the old hash and add the new one. The sum does not depend
//! on the history of a state. It detects faults, not attacks: a client that chooses znodes freely can
//! make two states collide.
//!
//! The layout below never changes: it is part of the format of checkpoints and snapshots, which contain
//! the digest and the hashes of requests. A field that was added to a znode or a session later counts
//! only if it differs from its default, and has a tag. So the digest of an ensemble that does not use
//! the field stays the same.

use api::{
    Acl, AclId, CommandBody, Create, DeleteTree, Expected, Identities, Identity, Level, MultiOp, NodeKind,
    OpError, Path, RequestHash, Scheme, Write, record,
};
use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::tree::Znode;

/// Hash of a value. It is stored beside a large value, so that a change of a parent's counters does not
/// read the value again.
pub(crate) fn data(data: &[u8]) -> u64 {
    xxh3_64(data)
}

/// Hash of a znode: its path, its value and all fields of its Stat except the number of children, which
/// their own records determine.
pub(crate) fn znode(path: &str, z: &Znode<'_>) -> u64 {
    let fields: [u64; 12] = [
        xxh3_64(path.as_bytes()),
        z.data_hash(),
        z.data.map_or(0, <[u8]>::len) as u64,
        z.czxid.0,
        z.mzxid.0,
        z.pzxid.0,
        z.ctime_ms as u64,
        z.mtime_ms as u64,
        pair(z.version, z.cversion),
        z.aversion as u64,
        z.creates,
        z.life.owner().map_or(0, |s| s.0),
    ];
    // The owner identifies an ephemeral.
    let kind = match z.life.kind() {
        NodeKind::Persistent | NodeKind::Ephemeral => None,
        kind => Some((PART_KIND, kind_code(kind))),
    };
    let acl = (z.acl != AclId::OPEN).then_some((PART_ACL, z.acl.0.into()));
    let null = z.data.is_none().then_some((PART_NULL, 1));
    let parts = [kind, acl, null].into_iter().flatten().flat_map(|(tag, value)| [tag, value]);
    let quota = z.quota.map(|quota| {
        let bounds = [quota.soft.znodes, quota.soft.bytes, quota.hard.znodes, quota.hard.bytes];
        let present: u64 = (0..).zip(bounds).map(|(bit, bound)| u64::from(bound.is_some()) << bit).sum();
        [PART_QUOTA, present].into_iter().chain(bounds.map(Option::unwrap_or_default))
    });
    let mut bytes = [0u8; 8 * (12 + 2 * 3 + 6)];
    let mut length = 0;
    let all = fields.into_iter().chain(parts).chain(quota.into_iter().flatten());
    for (chunk, field) in bytes.chunks_exact_mut(8).zip(all) {
        chunk.copy_from_slice(&field.to_le_bytes());
        length += 8;
    }
    xxh3_64_with_seed(&bytes[..length], SEED_ZNODE)
}

/// A kind as a number, less than 2^40 + 3.
pub(crate) fn kind_code(kind: NodeKind) -> u64 {
    match kind {
        NodeKind::Persistent => 0,
        NodeKind::Ephemeral => 1,
        NodeKind::Container => 2,
        // At least 1.
        NodeKind::Ttl { ms } => ms.wrapping_add(2),
    }
}

/// The kind for a [code](kind_code).
pub(crate) fn kind_of(code: u64) -> NodeKind {
    match code {
        0 => NodeKind::Persistent,
        1 => NodeKind::Ephemeral,
        2 => NodeKind::Container,
        code => NodeKind::Ttl { ms: code - 2 },
    }
}

/// Hash of an access list.
pub(crate) fn access_list(id: AclId, acl: &Acl) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    put(&mut bytes, id.0.into());
    put_acl(&mut bytes, acl);
    xxh3_64_with_seed(&bytes, SEED_ACL)
}

/// Hash of a session without its kept results.
pub(crate) fn session(s: &record::Session) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&s.token_hash.0);
    for field in [s.id.0, u64::from(s.timeout_ms), s.acked.0, s.stream.0] {
        put(&mut bytes, field);
    }
    if s.owner != Identities::default() {
        put(&mut bytes, PART_OWNER);
        put(&mut bytes, s.owner.as_slice().len() as u64);
        s.owner.as_slice().iter().for_each(|identity| put_identity(&mut bytes, identity));
    }
    xxh3_64_with_seed(&bytes, SEED_SESSION)
}

/// The contribution of the feature level: nothing for the first one.
pub(crate) fn level(level: Level) -> u64 {
    if level == Level::FIRST { 0 } else { xxh3_64_with_seed(&level.0.to_le_bytes(), SEED_LEVEL) }
}

/// Hash of a kept result.
pub(crate) fn result(kept: &record::KeptResult) -> u64 {
    let mut bytes = Vec::with_capacity(32 + kept.outcome.len());
    for n in [kept.session.0, kept.number.0, kept.zxid.0, kept.request.0] {
        put(&mut bytes, n);
    }
    bytes.extend_from_slice(&kept.outcome);
    xxh3_64_with_seed(&bytes, SEED_RESULT)
}

/// Hash of a request. It binds a write number to its request.
pub(crate) fn request(body: &CommandBody) -> RequestHash {
    match body {
        CommandBody::Refuse { request, .. } => *request,
        CommandBody::Write(write) => request_of(write),
        // These requests have no numbers.
        CommandBody::OpenSession { .. }
        | CommandBody::ResumeSession { .. }
        | CommandBody::CloseSession { .. }
        | CommandBody::Check { .. }
        | CommandBody::Reap { .. } => RequestHash::default(),
    }
}

/// Hash of a write.
pub(crate) fn request_of(write: &Write) -> RequestHash {
    let mut bytes = Vec::with_capacity(128);
    match write {
        Write::Create(create) => put_create(&mut bytes, create),
        Write::Set { path, data, version } => put_set(&mut bytes, path, data, *version),
        Write::Delete { path, version } => put_other(&mut bytes, TAG_DELETE, path, *version),
        Write::SetAcl { path, acl, aversion } => put_set_acl(&mut bytes, path, acl, *aversion),
        Write::DeleteTree(DeleteTree { path, version, keep_root, max_znodes }) => {
            put_other(&mut bytes, TAG_DELETE_TREE, path, *version);
            put(&mut bytes, (*keep_root).into());
            put(&mut bytes, (*max_znodes).into());
        }
        Write::SetQuota { path, quota } => {
            put_other(&mut bytes, TAG_SET_QUOTA, path, None);
            for bound in [quota.soft.znodes, quota.soft.bytes, quota.hard.znodes, quota.hard.bytes] {
                put(&mut bytes, bound.is_some().into());
                put(&mut bytes, bound.unwrap_or_default());
            }
        }
        Write::Multi(parts) => {
            bytes.push(TAG_MULTI);
            put(&mut bytes, parts.len() as u64);
            for part in parts {
                match part {
                    MultiOp::Create(create) => put_create(&mut bytes, create),
                    MultiOp::Set { path, data, version } => put_set(&mut bytes, path, data, *version),
                    MultiOp::Delete { path, version } => put_other(&mut bytes, TAG_DELETE, path, *version),
                    MultiOp::SetAcl { path, acl, aversion } => {
                        put_set_acl(&mut bytes, path, acl, *aversion);
                    }
                    MultiOp::Check { path, version } => put_other(&mut bytes, TAG_CHECK, path, *version),
                    MultiOp::CheckAbsent { path } => put_other(&mut bytes, TAG_CHECK_ABSENT, path, None),
                }
            }
        }
    }
    RequestHash(xxh3_64_with_seed(&bytes, SEED_REQUEST))
}

/// Hash of a malformed request: all requests that are malformed in the same way have the same hash.
pub(crate) fn request_malformed(error: &OpError) -> RequestHash {
    RequestHash(xxh3_64_with_seed(error.to_string().as_bytes(), SEED_MALFORMED))
}

fn put_create(out: &mut Vec<u8>, create: &Create) {
    out.push(TAG_CREATE);
    let Create { path, data: value, kind, sequential, acl } = create;
    let other_kind = matches!(kind, NodeKind::Container | NodeKind::Ttl { .. });
    let flags = [*sequential, *kind == NodeKind::Ephemeral, value.is_none(), !acl.is_open(), other_kind];
    out.push(flags.into_iter().enumerate().map(|(bit, set)| u8::from(set) << bit).sum());
    put_text(out, path.as_str());
    put(out, data(value.as_deref().unwrap_or_default()));
    if other_kind {
        put(out, kind_code(*kind));
    }
    if !acl.is_open() {
        put_acl(out, acl);
    }
}

fn put_set(out: &mut Vec<u8>, path: &Path, value: &Option<Bytes>, version: Option<Expected>) {
    match value {
        Some(value) => {
            put_other(out, TAG_SET, path, version);
            put(out, data(value));
        }
        None => put_other(out, TAG_SET_NULL, path, version),
    }
}

fn put_set_acl(out: &mut Vec<u8>, path: &Path, acl: &Acl, aversion: Option<Expected>) {
    put_other(out, TAG_SET_ACL, path, aversion);
    put_acl(out, acl);
}

fn put_acl(out: &mut Vec<u8>, acl: &Acl) {
    put(out, acl.entries().len() as u64);
    for entry in acl.entries() {
        put_identity(out, &entry.identity);
        put(out, entry.permissions.bits().into());
    }
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.push(match identity.scheme() {
        Scheme::World => 1,
        Scheme::Digest => 2,
        Scheme::Ip => 3,
        Scheme::X509 => 4,
        Scheme::User => 5,
        Scheme::Role => 6,
    });
    put_text(out, identity.id());
}

fn put_other(out: &mut Vec<u8>, tag: u8, path: &Path, expected: Option<Expected>) {
    if let Some(czxid) = expected.and_then(Expected::czxid) {
        out.push(TAG_CZXID);
        put(out, czxid.0);
    }
    out.push(tag);
    put_text(out, path.as_str());
    let version = expected.and_then(Expected::version);
    put(out, version.map_or(u64::MAX, |version| u64::from(version as u32)));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

/// Combines two numbers of 32 bits into one of 64.
fn pair(high: i32, low: i32) -> u64 {
    u64::from(high as u32) << 32 | u64::from(low as u32)
}

const SEED_ZNODE: u64 = 1;
const SEED_SESSION: u64 = 2;
const SEED_RESULT: u64 = 3;
const SEED_REQUEST: u64 = 4;
const SEED_MALFORMED: u64 = 5;
const SEED_ACL: u64 = 6;
const SEED_LEVEL: u64 = 7;

/// Tags of fields that count only if they differ from their default.
const PART_KIND: u64 = 1;
const PART_ACL: u64 = 2;
const PART_NULL: u64 = 3;
const PART_QUOTA: u64 = 4;
const PART_OWNER: u64 = 1;

const TAG_CREATE: u8 = 1;
const TAG_SET: u8 = 2;
const TAG_DELETE: u8 = 3;
const TAG_MULTI: u8 = 4;
const TAG_CHECK: u8 = 5;
const TAG_SET_NULL: u8 = 6;
const TAG_SET_ACL: u8 = 7;
/// Precedes the tag of an operation.
const TAG_CZXID: u8 = 8;
const TAG_CHECK_ABSENT: u8 = 9;
const TAG_DELETE_TREE: u8 = 10;
const TAG_SET_QUOTA: u8 = 11;

#[cfg(test)]
mod tests {
    use api::{AclEntry, Permissions, SessionId, StreamId, TokenHash, WriteNumber, Zxid};

    use super::*;
    use crate::tree::Life;

    /// The input of a znode's hash before znodes had a kind, a list or a null value.
    fn as_before(path: &str, z: &Znode<'_>) -> u64 {
        let mut bytes = Vec::new();
        let value = z.data.unwrap_or_default();
        let fields =
            [xxh3_64(path.as_bytes()), xxh3_64(value), value.len() as u64, z.czxid.0, z.mzxid.0, z.pzxid.0];
        let times = [z.ctime_ms as u64, z.mtime_ms as u64];
        let versions = [(z.version as u64) << 32 | z.cversion as u64, z.aversion as u64, z.creates];
        let owner = [z.life.owner().map_or(0, |s| s.0)];
        let all = fields.into_iter().chain(times).chain(versions).chain(owner);
        all.for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        xxh3_64_with_seed(&bytes, 1)
    }

    fn znode_of(data: Option<&'static [u8]>, life: Life, acl: u32) -> Znode<'static> {
        let at = crate::At { zxid: Zxid(5), time_ms: 6 };
        Znode::new(data, at, life, AclId(acl))
    }

    #[test]
    fn a_part_of_a_znode_that_is_the_default_counts_as_if_there_were_no_such_part() {
        for life in [Life::Persistent, Life::Ephemeral(SessionId(9))] {
            for data in [&b""[..], b"v"] {
                let z = znode_of(Some(data), life, 0);
                assert_eq!(znode("/a", &z), as_before("/a", &z));
            }
        }
        // And a fixed hash, which must never change.
        assert_eq!(znode("/a", &znode_of(Some(b"v"), Life::Persistent, 0)), GOLDEN_ZNODE);
    }

    #[test]
    fn every_other_part_of_a_znode_counts() {
        let lives =
            [Life::Persistent, Life::Ephemeral(SessionId(9)), Life::Container, Life::Ttl(1), Life::Ttl(2)];
        let mut hashes = Vec::new();
        for life in lives {
            for data in [None, Some(&b""[..]), Some(b"v")] {
                hashes.extend([0, 1, 2].map(|acl| znode("/a", &znode_of(data, life, acl))));
            }
        }
        let all = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
    }

    #[test]
    fn everything_of_an_access_list_and_of_the_owner_of_a_session_counts() {
        let who = |scheme, id| Identity::new(scheme, id).unwrap();
        let entry = |identity, permissions| AclEntry { identity, permissions };
        let (ada, bob) = (who(Scheme::User, "ada"), who(Scheme::User, "bob"));
        let acl = |entries| Acl::new(entries).unwrap();
        let one = entry(ada.clone(), Permissions::READ);
        let hashes = [
            access_list(AclId(1), &acl(vec![one.clone()])),
            access_list(AclId(2), &acl(vec![one.clone()])),
            access_list(AclId(1), &acl(vec![one.clone(), one.clone()])),
            access_list(AclId(1), &acl(vec![entry(ada.clone(), Permissions::WRITE)])),
            access_list(AclId(1), &acl(vec![entry(bob.clone(), Permissions::READ)])),
            access_list(AclId(1), &acl(vec![entry(who(Scheme::Role, "ada"), Permissions::READ)])),
        ];
        let of = |owner: Vec<Identity>| {
            session(&record::Session {
                id: SessionId(1),
                token_hash: TokenHash([2; 32]),
                owner: Identities::new(owner).unwrap(),
                timeout_ms: 3,
                stream: StreamId(4),
                acked: WriteNumber(5),
            })
        };
        let owners = [of(vec![]), of(vec![ada.clone()]), of(vec![bob.clone()]), of(vec![ada, bob])];
        for hashes in [&hashes[..], &owners[..]] {
            let unlike = |(i, hash)| !hashes[..i].contains(hash);
            assert!(hashes.iter().enumerate().all(unlike), "{hashes:x?}");
        }
    }

    #[test]
    fn kinds_come_back_from_their_codes() {
        let ttls = [1, 2, NodeKind::TTL_MAX_MS].map(|ms| NodeKind::Ttl { ms });
        let others = [NodeKind::Persistent, NodeKind::Ephemeral, NodeKind::Container];
        for kind in others.into_iter().chain(ttls) {
            assert_eq!(kind_of(kind_code(kind)), kind);
        }
    }

    const GOLDEN_ZNODE: u64 = 0x17bd_45ef_8182_f418;
}

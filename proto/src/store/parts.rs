//! What commands and records share: paths, kinds, access lists, identities.

use api::{
    Acl, AclEntry, Expected, Identities, Identity, NodeKind, Path, Permissions, Quota, Scheme, TokenHash,
    Zxid, quota::Bounds,
};
use bytes::Bytes;

use super::unknown;
use crate::{Malformed, state as wire};

pub(super) fn text(path: &Path) -> String {
    path.as_str().to_owned()
}

pub(super) fn path(text: &str) -> Result<Path, Malformed> {
    Path::new(text).map_err(|e| Malformed(e.to_string()))
}

pub(super) fn token_hash(bytes: &[u8]) -> Result<TokenHash, Malformed> {
    let hash = bytes
        .try_into()
        .map_err(|_| Malformed(format!("the hash of a session token has {} bytes, not 32", bytes.len())))?;
    Ok(TokenHash(hash))
}

/// A kind and its TTL, which is 0 of all others.
pub(super) fn to_kind(kind: NodeKind) -> (i32, u64) {
    let (kind, ttl_ms) = match kind {
        NodeKind::Persistent => (wire::NodeKind::Persistent, 0),
        NodeKind::Ephemeral => (wire::NodeKind::Ephemeral, 0),
        NodeKind::Container => (wire::NodeKind::Container, 0),
        NodeKind::Ttl { ms } => (wire::NodeKind::Ttl, ms),
    };
    (kind.into(), ttl_ms)
}

/// Any TTL: its bounds are checked where commands are made and applied.
pub(super) fn kind(kind: i32, ttl_ms: u64) -> Result<NodeKind, Malformed> {
    Ok(match (wire::NodeKind::try_from(kind).map_err(|_| unknown())?, ttl_ms) {
        (wire::NodeKind::Unspecified, _) => return Err(unknown()),
        (wire::NodeKind::Persistent, 0) => NodeKind::Persistent,
        (wire::NodeKind::Ephemeral, 0) => NodeKind::Ephemeral,
        (wire::NodeKind::Container, 0) => NodeKind::Container,
        (wire::NodeKind::Ttl, ms) => NodeKind::Ttl { ms },
        (_, ms) => return Err(Malformed(format!("a TTL of {ms} ms of a znode of another kind"))),
    })
}

pub(super) fn to_set(path: &Path, data: Option<Bytes>, expected: Option<Expected>) -> wire::Set {
    let (version, czxid) = to_expected(expected);
    wire::Set { path: text(path), data, version, czxid }
}

pub(super) fn to_delete(path: &Path, expected: Option<Expected>) -> wire::Delete {
    let (version, czxid) = to_expected(expected);
    wire::Delete { path: text(path), version, czxid }
}

pub(super) fn to_set_acl(path: &Path, acl: &Acl, expected: Option<Expected>) -> wire::SetAcl {
    let (aversion, czxid) = to_expected(expected);
    wire::SetAcl { path: text(path), acl: to_entries_unless_open(acl), aversion, czxid }
}

pub(super) fn to_expected(expected: Option<Expected>) -> (Option<i32>, Option<u64>) {
    (expected.and_then(Expected::version), expected.and_then(Expected::czxid).map(|czxid| czxid.0))
}

pub(super) fn expected(version: Option<i32>, czxid: Option<u64>) -> Option<Expected> {
    Expected::new(version, czxid.map(Zxid))
}

/// `None` for none.
pub(super) fn to_quota(quota: &Quota) -> Option<wire::Quota> {
    let Quota { soft, hard } = quota;
    (!quota.is_none()).then_some(wire::Quota {
        soft_znodes: soft.znodes,
        soft_bytes: soft.bytes,
        hard_znodes: hard.znodes,
        hard_bytes: hard.bytes,
    })
}

pub(super) fn quota(wire: Option<wire::Quota>) -> Result<Quota, Malformed> {
    let Some(q) = wire else { return Ok(Quota::default()) };
    let soft = Bounds { znodes: q.soft_znodes, bytes: q.soft_bytes };
    let quota = Quota { soft, hard: Bounds { znodes: q.hard_znodes, bytes: q.hard_bytes } };
    if quota.is_none() { Err(Malformed("a quota without a bound".into())) } else { Ok(quota) }
}

pub(super) fn to_entries_unless_open(acl: &Acl) -> Vec<wire::AclEntry> {
    if acl.is_open() { Vec::new() } else { to_entries(acl) }
}

pub(super) fn acl_or_open(entries: Vec<wire::AclEntry>) -> Result<Acl, Malformed> {
    if entries.is_empty() { Ok(Acl::default()) } else { acl(entries) }
}

pub(super) fn to_entries(acl: &Acl) -> Vec<wire::AclEntry> {
    let entry = |e: &AclEntry| wire::AclEntry {
        identity: Some(to_identity(&e.identity)),
        permissions: e.permissions.bits(),
    };
    acl.entries().iter().map(entry).collect()
}

/// A list that is not the open one.
pub(super) fn acl(entries: Vec<wire::AclEntry>) -> Result<Acl, Malformed> {
    let entry = |e: wire::AclEntry| {
        let permissions = Permissions::from_bits(e.permissions).ok_or_else(unknown)?;
        Ok(AclEntry { identity: identity(e.identity.ok_or_else(unknown)?)?, permissions })
    };
    let entries = entries.into_iter().map(entry).collect::<Result<_, Malformed>>()?;
    match Acl::new(entries) {
        Ok(acl) if acl.is_open() => Err(Malformed("the open access list stands where it is left out".into())),
        Ok(acl) => Ok(acl),
        Err(e) => Err(Malformed(e.to_string())),
    }
}

pub(super) fn to_identities(identities: &Identities) -> Vec<wire::Identity> {
    identities.as_slice().iter().map(to_identity).collect()
}

pub(super) fn identities(wire: Vec<wire::Identity>) -> Result<Identities, Malformed> {
    let count = wire.len();
    let all = wire.into_iter().map(identity).collect::<Result<Vec<_>, _>>()?;
    let sorted = all.is_sorted();
    match Identities::new(all) {
        Ok(identities) if sorted && identities.as_slice().len() == count => Ok(identities),
        Ok(_) => Err(Malformed("identities out of order, or twice".into())),
        Err(e) => Err(Malformed(e.to_string())),
    }
}

pub(super) fn to_identity(identity: &Identity) -> wire::Identity {
    let scheme = match identity.scheme() {
        Scheme::World => wire::Scheme::World,
        Scheme::Digest => wire::Scheme::Digest,
        Scheme::Ip => wire::Scheme::Ip,
        Scheme::X509 => wire::Scheme::X509,
        Scheme::User => wire::Scheme::User,
        Scheme::Role => wire::Scheme::Role,
    };
    wire::Identity { scheme: scheme.into(), id: identity.id().to_owned() }
}

pub(super) fn identity(identity: wire::Identity) -> Result<Identity, Malformed> {
    let scheme = match wire::Scheme::try_from(identity.scheme).map_err(|_| unknown())? {
        wire::Scheme::Unspecified => return Err(unknown()),
        wire::Scheme::World => Scheme::World,
        wire::Scheme::Digest => Scheme::Digest,
        wire::Scheme::Ip => Scheme::Ip,
        wire::Scheme::X509 => Scheme::X509,
        wire::Scheme::User => Scheme::User,
        wire::Scheme::Role => Scheme::Role,
    };
    Identity::new(scheme, &identity.id).map_err(|e| Malformed(e.to_string()))
}

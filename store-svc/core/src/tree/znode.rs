//! The stored form of a znode.

use api::{AclId, Expected, NodeKind, OpError, Path, Quota, SessionId, Stat, Usage, Zxid, record};
use bytes::Bytes;

use super::{
    At,
    reap::Fate,
    slab::{NodeId, Slab},
};
use crate::{digest, sorted::Sorted};

/// Larger values have a separate allocation, which reads share. Smaller values are copied for each reader.
const SMALL: usize = 1024;

/// A znode as stored in the tree. There may be millions, so its size determines the memory of a node.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its current contribution to the digest.
    pub(super) hash: u64,
    pub(super) czxid: Zxid,
    pub(super) mzxid: Zxid,
    pub(super) ctime_ms: i64,
    pub(super) mtime_ms: i64,
    body: Body,
    /// Present only if the znode has or had a child, or if its loaded counters say so.
    dir: Option<Box<Dir>>,
    /// The owner of an ephemeral, or the TTL.
    of_kind: u64,
    pub(super) parent: NodeId,
    pub(super) acl: AclId,
    pub(super) version: i32,
    pub(super) aversion: i32,
    /// A name is never longer than a path.
    name_len: u16,
    kind: Kind,
    null: bool,
    /// Whether it is in the list of [changes](super::dirty::Dirty).
    pub(super) dirty: bool,
    /// See [`super::export`].
    pub(super) exported: bool,
    /// Only during a load: its own record is still missing, but not those of its children.
    pub(super) missing: bool,
}

/// Name and value.
#[derive(Debug)]
enum Body {
    /// The name, followed by the value.
    Small(Box<[u8]>),
    Large(Box<Large>),
}

#[derive(Debug)]
struct Large {
    name: Box<[u8]>,
    data: Bytes,
    /// Cached, so that a change of a counter does not read the value again.
    hash: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Persistent,
    Ephemeral,
    Container,
    Ttl,
}

/// Data of a parent only.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) pzxid: Zxid,
    /// Number of created children, plus skipped names: the number of the next sequential child, and
    /// [`api::SEQUENCE_END`] if none is left. This is ZooKeeper's internal cversion, which becomes
    /// negative instead.
    pub(super) creates: u64,
    pub(super) cversion: i32,
    pub(super) children: Sorted<NodeId>,
    /// Counts of the descendants, derived from the znodes.
    pub(super) below: Usage,
    /// Boxed, because few znodes have one.
    quota: Option<Box<Quota>>,
}

/// A kind with its data.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    Persistent,
    Ephemeral(SessionId),
    Container,
    /// In milliseconds.
    Ttl(u64),
}

/// All properties of a znode except its path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Znode<'a> {
    pub(crate) data: Option<&'a [u8]>,
    /// For a large value.
    data_hash: Option<u64>,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) pzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    pub(crate) cversion: i32,
    pub(crate) aversion: i32,
    /// See [`Dir::creates`].
    pub(crate) creates: u64,
    pub(crate) life: Life,
    pub(crate) acl: AclId,
    pub(crate) quota: Option<&'a Quota>,
    num_children: u32,
}

impl Life {
    /// `None` if it is an ephemeral without an owner.
    pub(super) fn new(kind: NodeKind, owner: Option<SessionId>) -> Option<Life> {
        Some(match kind {
            NodeKind::Persistent => Life::Persistent,
            NodeKind::Ephemeral => Life::Ephemeral(owner?),
            NodeKind::Container => Life::Container,
            NodeKind::Ttl { ms } => Life::Ttl(ms),
        })
    }

    pub(crate) fn kind(self) -> NodeKind {
        match self {
            Life::Persistent => NodeKind::Persistent,
            Life::Ephemeral(_) => NodeKind::Ephemeral,
            Life::Container => NodeKind::Container,
            Life::Ttl(ms) => NodeKind::Ttl { ms },
        }
    }

    pub(crate) fn owner(self) -> Option<SessionId> {
        match self {
            Life::Ephemeral(owner) => Some(owner),
            _ => None,
        }
    }

    fn parts(self) -> (Kind, u64) {
        match self {
            Life::Persistent => (Kind::Persistent, 0),
            Life::Ephemeral(owner) => (Kind::Ephemeral, owner.0),
            Life::Container => (Kind::Container, 0),
            Life::Ttl(ms) => (Kind::Ttl, ms),
        }
    }
}

impl Slot {
    /// A new znode, not in the digest yet.
    pub(super) fn new(
        name: &str,
        data: Option<&[u8]>,
        at: At,
        life: Life,
        acl: AclId,
        parent: NodeId,
    ) -> Slot {
        let (kind, of_kind) = life.parts();
        Slot {
            hash: 0,
            czxid: at.zxid,
            mzxid: at.zxid,
            ctime_ms: at.time_ms,
            mtime_ms: at.time_ms,
            body: Body::new(name.as_bytes(), data.unwrap_or_default()),
            dir: None,
            of_kind,
            parent,
            acl,
            version: 0,
            aversion: 0,
            name_len: name.len() as u16,
            kind,
            null: data.is_none(),
            dirty: false,
            exported: false,
            missing: false,
        }
    }

    /// A placeholder for a znode of which only children are known so far.
    pub(super) fn missing(name: &str, parent: NodeId) -> Slot {
        let at = At { zxid: Zxid::ZERO, time_ms: 0 };
        let slot = Slot::new(name, None, at, Life::Persistent, AclId::OPEN, parent);
        Slot { missing: true, ..slot }
    }

    /// The znode of a record. `dir` holds the data of its children that are already loaded.
    pub(super) fn of_record(z: &record::Znode, life: Life, parent: NodeId, dir: Option<Box<Dir>>) -> Slot {
        let at = At { zxid: z.czxid, time_ms: z.ctime_ms };
        let slot = Slot::new(z.path.name(), z.data.as_deref(), at, life, z.acl, parent);
        let (mzxid, mtime_ms) = (z.mzxid, z.mtime_ms);
        let mut slot = Slot { mzxid, mtime_ms, version: z.version, aversion: z.aversion, dir, ..slot };
        if slot.dir.is_some() || z.pzxid != z.czxid || z.cversion != 0 || z.creates != 0 || !z.quota.is_none()
        {
            let mut dir = slot.take_dir();
            (dir.pzxid, dir.cversion, dir.creates) = (z.pzxid, z.cversion, z.creates);
            slot.dir = Some(dir);
            slot.set_quota(z.quota);
        }
        slot
    }

    /// As bytes, which sort in the same order as the text.
    pub(super) fn name(&self) -> &[u8] {
        match &self.body {
            Body::Small(both) => &both[..usize::from(self.name_len)],
            Body::Large(large) => &large.name,
        }
    }

    pub(super) fn name_text(&self) -> String {
        String::from_utf8_lossy(self.name()).into_owned()
    }

    /// The bytes of the value; empty if there is none.
    fn value(&self) -> &[u8] {
        match &self.body {
            Body::Small(both) => &both[usize::from(self.name_len)..],
            Body::Large(large) => &large.data,
        }
    }

    pub(super) fn data_len(&self) -> usize {
        self.value().len()
    }

    /// The value, for use beyond the lifetime of the znode. Only a large value is shared.
    pub(super) fn data(&self) -> Option<Bytes> {
        let data = || match &self.body {
            Body::Small(_) => Bytes::copy_from_slice(self.value()),
            Body::Large(large) => large.data.clone(),
        };
        (!self.null).then(data)
    }

    pub(super) fn set_data(&mut self, data: Option<&[u8]>) {
        self.null = data.is_none();
        let data = data.unwrap_or_default();
        match &mut self.body {
            Body::Small(both) if both.len() - usize::from(self.name_len) == data.len() => {
                both[usize::from(self.name_len)..].copy_from_slice(data);
            }
            _ => self.body = Body::new(self.name(), data),
        }
    }

    fn life(&self) -> Life {
        match self.kind {
            Kind::Persistent => Life::Persistent,
            Kind::Ephemeral => Life::Ephemeral(SessionId(self.of_kind)),
            Kind::Container => Life::Container,
            Kind::Ttl => Life::Ttl(self.of_kind),
        }
    }

    pub(super) fn owner(&self) -> Option<SessionId> {
        self.life().owner()
    }

    /// The event that the znode waits for before it is reaped, with its start or end in log time.
    /// `None` if it is of another kind or has children.
    pub(super) fn fate(&self) -> Option<(Fate, i64)> {
        match self.kind {
            Kind::Persistent | Kind::Ephemeral => None,
            _ if self.num_children() > 0 => None,
            Kind::Container if self.creates() > 0 => Some((Fate::Emptied, 0)),
            Kind::Container => Some((Fate::Unused, self.ctime_ms)),
            Kind::Ttl => Some((Fate::Aging, self.mtime_ms.saturating_add_unsigned(self.of_kind))),
        }
    }

    pub(super) fn dir(&self) -> Option<&Dir> {
        self.dir.as_deref()
    }

    /// Takes out the data of a parent, even if it is empty. For changes that look at the names of the
    /// children; [put it back](Slot::put_dir) afterwards.
    pub(super) fn take_dir(&mut self) -> Box<Dir> {
        self.dir.take().unwrap_or_else(|| Box::new(Dir::new(self.czxid)))
    }

    /// The same in place.
    pub(super) fn dir_mut(&mut self) -> &mut Dir {
        let czxid = self.czxid;
        self.dir.get_or_insert_with(|| Box::new(Dir::new(czxid)))
    }

    /// Counts of the descendants.
    pub(super) fn below(&self) -> Usage {
        self.dir().map_or_else(Usage::default, |dir| dir.below)
    }

    pub(super) fn quota(&self) -> Option<Quota> {
        self.dir().and_then(|dir| dir.quota.as_deref().copied())
    }

    pub(super) fn set_quota(&mut self, quota: Quota) {
        if !quota.is_none() || self.quota().is_some() {
            self.dir_mut().quota = (!quota.is_none()).then(|| Box::new(quota));
        }
    }

    pub(super) fn put_dir(&mut self, dir: Box<Dir>) {
        self.dir = Some(dir);
    }

    pub(super) fn num_children(&self) -> u32 {
        self.dir().map_or(0, |dir| dir.children.len())
    }

    /// The number of the next sequential child.
    pub(super) fn creates(&self) -> u64 {
        self.dir().map_or(0, |dir| dir.creates)
    }

    pub(super) fn view(&self) -> Znode<'_> {
        let data = self.value();
        Znode {
            data: (!self.null).then_some(data),
            data_hash: match &self.body {
                Body::Small(_) => None,
                Body::Large(large) => Some(large.hash),
            },
            czxid: self.czxid,
            mzxid: self.mzxid,
            pzxid: self.dir().map_or(self.czxid, |dir| dir.pzxid),
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            cversion: self.dir().map_or(0, |dir| dir.cversion),
            aversion: self.aversion,
            creates: self.creates(),
            life: self.life(),
            acl: self.acl,
            quota: self.dir().and_then(|dir| dir.quota.as_deref()),
            num_children: self.num_children(),
        }
    }

    pub(super) fn stat(&self) -> Stat {
        let z = self.view();
        Stat {
            czxid: z.czxid,
            mzxid: z.mzxid,
            pzxid: z.pzxid,
            ctime_ms: z.ctime_ms,
            mtime_ms: z.mtime_ms,
            version: z.version,
            cversion: z.cversion,
            aversion: z.aversion,
            kind: z.life.kind(),
            ephemeral_owner: z.life.owner(),
            data_length: self.data_len() as u32,
            num_children: z.num_children,
        }
    }

    pub(super) fn record(&self, path: Path) -> record::Znode {
        let z = self.view();
        record::Znode {
            path,
            data: self.data(),
            czxid: z.czxid,
            mzxid: z.mzxid,
            pzxid: z.pzxid,
            ctime_ms: z.ctime_ms,
            mtime_ms: z.mtime_ms,
            version: z.version,
            cversion: z.cversion,
            aversion: z.aversion,
            kind: z.life.kind(),
            ephemeral_owner: z.life.owner(),
            acl: z.acl,
            creates: z.creates,
            quota: z.quota.copied().unwrap_or_default(),
        }
    }

    pub(super) fn check_version(&self, path: &Path, expected: Option<Expected>) -> Result<(), OpError> {
        expected.map_or(Ok(()), |expected| expected.check(path, self.version, self.czxid))
    }
}

impl Body {
    fn new(name: &[u8], data: &[u8]) -> Body {
        match data.len() {
            ..=SMALL => Body::Small([name, data].concat().into()),
            // A copy, because the value may be a slice of a much larger buffer.
            _ => Body::Large(Box::new(Large {
                name: name.into(),
                data: Bytes::copy_from_slice(data),
                hash: digest::data(data),
            })),
        }
    }
}

impl Dir {
    fn new(pzxid: Zxid) -> Dir {
        let (children, below) = (Sorted::default(), Usage::default());
        Dir { pzxid, creates: 0, cversion: 0, children, below, quota: None }
    }

    /// Adds a child.
    pub(super) fn link(&mut self, nodes: &Slab, id: NodeId) {
        let name = nodes[id].name();
        self.children.insert(id, |other| nodes[other].name().cmp(name));
    }

    /// Removes a child, which still exists.
    pub(super) fn unlink(&mut self, nodes: &Slab, id: NodeId) {
        let name = nodes[id].name();
        self.children.remove(id, |other| nodes[other].name().cmp(name));
    }
}

impl<'a> Znode<'a> {
    /// A znode that was just created.
    #[cfg(test)]
    pub(crate) fn new(data: Option<&'a [u8]>, at: At, life: Life, acl: AclId) -> Znode<'a> {
        Znode {
            data,
            data_hash: None,
            czxid: at.zxid,
            mzxid: at.zxid,
            pzxid: at.zxid,
            ctime_ms: at.time_ms,
            mtime_ms: at.time_ms,
            version: 0,
            cversion: 0,
            aversion: 0,
            creates: 0,
            life,
            acl,
            quota: None,
            num_children: 0,
        }
    }

    /// Hash of the value.
    pub(crate) fn data_hash(&self) -> u64 {
        self.data_hash.unwrap_or_else(|| digest::data(self.data.unwrap_or_default()))
    }
}

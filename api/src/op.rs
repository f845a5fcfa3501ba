use bytes::Bytes;

use crate::{Acl, Expected, OpError, Path, QuotaAt, SessionId, Usage, Zxid, quota::Quota};

/// The most bytes that any ensemble takes as one value, or as all values of one multi: `limits.data` can be set to no more,
/// because every write passes every node's memory.
pub const DATA_MAX: u64 = 3 << 20;

/// The first number that does not fit into the ten digits of a sequential znode. A parent that has counted to here makes no
/// more of them: with eleven digits their names would no longer sort as their numbers do, and locks would have two holders.
pub const SEQUENCE_END: u64 = 10_000_000_000;

/// How a znode is removed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub enum NodeKind {
    /// By a delete.
    #[default]
    Persistent,
    /// Also with the session that created it. It has no children.
    Ephemeral,
    /// Also some time after its last child is gone. One that never had a child stays, unless `timing.container_unused` says how
    /// long.
    Container,
    /// Also some time after it has had no children and its value has not changed for longer than this.
    Ttl {
        /// In milliseconds: 1 to [`NodeKind::TTL_MAX_MS`].
        ms: u64,
    },
}

impl NodeKind {
    /// The longest TTL, in milliseconds, as in ZooKeeper: about 35 years.
    pub const TTL_MAX_MS: u64 = (1 << 40) - 1;

    /// # Errors
    /// If a TTL is none of those that are possible.
    pub fn check(self) -> Result<(), OpError> {
        match self {
            NodeKind::Ttl { ms } if !(1..=NodeKind::TTL_MAX_MS).contains(&ms) => {
                Err(OpError::BadArguments(format!("a TTL of {ms} ms; give 1 to {} ms", NodeKind::TTL_MAX_MS)))
            }
            _ => Ok(()),
        }
    }
}

/// Makes a znode.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Create {
    /// Where; for a sequential one, what stands before the number, see [`Path::prefix`].
    pub path: Path,
    /// Its first value; `None` for none, which is another than an empty one.
    pub data: Option<Bytes>,
    /// Its kind.
    pub kind: NodeKind,
    /// The parent's counter of creates is put behind the name, ten digits wide.
    pub sequential: bool,
    /// Its access list.
    pub acl: Acl,
}

impl Create {
    /// Most ephemerals of one session. The end of a session removes them in one entry of the log, and no node may take long to
    /// apply an entry.
    pub const EPHEMERALS_MAX: usize = 100_000;

    /// Most bytes of the paths of these ephemerals, for the same reason: all nodes build each of them.
    pub const EPHEMERAL_PATHS_MAX: usize = 16 << 20;

    /// A persistent znode with this value and the open access list.
    #[must_use]
    pub fn new(path: Path, data: impl Into<Bytes>) -> Create {
        Create {
            path,
            data: Some(data.into()),
            kind: NodeKind::Persistent,
            sequential: false,
            acl: Acl::default(),
        }
    }

    /// Bytes of the value; 0 if there is none.
    #[must_use]
    pub fn data_len(&self) -> usize {
        data_len(&self.data)
    }
}

/// Bytes of a value; 0 if there is none.
#[must_use]
pub fn data_len(data: &Option<Bytes>) -> usize {
    data.as_ref().map_or(0, Bytes::len)
}

/// A change of the tree. Each one becomes an entry of the log, also when it fails.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Write {
    /// Makes a znode.
    Create(Create),
    /// Replaces the value.
    Set {
        /// Which znode.
        path: Path,
        /// The new value, or none.
        data: Option<Bytes>,
        /// Only if the znode is this one, with this `version`.
        version: Option<Expected>,
    },
    /// Removes a znode without children.
    Delete {
        /// Which znode.
        path: Path,
        /// Only if the znode is this one, with this `version`.
        version: Option<Expected>,
    },
    /// Replaces the access list.
    SetAcl {
        /// Which znode.
        path: Path,
        /// The new list.
        acl: Acl,
        /// Only if the znode is this one, with this `aversion`.
        aversion: Option<Expected>,
    },
    /// Removes a znode and all below it.
    DeleteTree(DeleteTree),
    /// Replaces the quota of a znode; see [`Quota`].
    SetQuota {
        /// Which znode.
        path: Path,
        /// The new one.
        quota: Quota,
    },
    /// All of these in order, or none of them.
    Multi(Vec<MultiOp>),
}

/// One part of a multi.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MultiOp {
    /// As [`Write::Create`].
    Create(Create),
    /// As [`Write::Set`].
    Set {
        /// Which znode.
        path: Path,
        /// The new value, or none.
        data: Option<Bytes>,
        /// As in [`Write::Set`].
        version: Option<Expected>,
    },
    /// As [`Write::Delete`].
    Delete {
        /// Which znode.
        path: Path,
        /// As in [`Write::Set`].
        version: Option<Expected>,
    },
    /// As [`Write::SetAcl`].
    SetAcl {
        /// Which znode.
        path: Path,
        /// The new list.
        acl: Acl,
        /// As in [`Write::SetAcl`].
        aversion: Option<Expected>,
    },
    /// Changes nothing; fails the multi unless the znode exists with this version.
    Check {
        /// Which znode.
        path: Path,
        /// As in [`Write::Set`]; `None` checks that it exists.
        version: Option<Expected>,
    },
    /// Changes nothing; fails the multi if the znode exists.
    CheckAbsent {
        /// Which znode.
        path: Path,
    },
}

/// Removes a znode and all below it, ephemerals of any session too: in one entry of the log, or not at all.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DeleteTree {
    /// The root of the subtree.
    pub path: Path,
    /// Only if the root is this one, with this `version`.
    pub version: Option<Expected>,
    /// The root stays.
    pub keep_root: bool,
    /// Fails if there are more znodes to remove; 0, and any number above, mean [`DeleteTree::ZNODES_MAX`].
    pub max_znodes: u32,
}

impl DeleteTree {
    /// Most znodes of one entry: so that no entry takes longer than some milliseconds to apply.
    pub const ZNODES_MAX: u32 = 10_000;

    /// How many znodes it removes at most.
    #[must_use]
    pub fn znodes_max(&self) -> u32 {
        match self.max_znodes {
            0 => DeleteTree::ZNODES_MAX,
            max => max.min(DeleteTree::ZNODES_MAX),
        }
    }
}

/// What a write did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum WriteOutcome {
    /// The znode made, by its full name.
    Created {
        /// With the number, if sequential.
        path: Path,
        /// Of the new znode.
        stat: Stat,
    },
    /// The value is replaced.
    Set {
        /// After the change.
        stat: Stat,
    },
    /// The znode is gone.
    Deleted,
    /// The access list is replaced.
    AclSet {
        /// After the change.
        stat: Stat,
    },
    /// The znode and all below it are gone.
    TreeDeleted {
        /// How many znodes were removed.
        znodes: u64,
    },
    /// The quota is replaced. This is the new one, and what it counts at present.
    QuotaSet(QuotaAt),
    /// One outcome for each part.
    Multi(Vec<MultiOutcome>),
    /// A session is open; its id is the zxid of this entry.
    SessionOpened,
    /// A session is taken up on a new stream.
    SessionResumed,
    /// States were compared.
    Checked,
    /// A session is closed and its ephemerals are gone.
    SessionClosed {
        /// How many ephemerals went with it.
        ephemerals: u32,
    },
}

/// What one part of a multi did.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MultiOutcome {
    /// As [`WriteOutcome::Created`].
    Created {
        /// With the number, if sequential.
        path: Path,
        /// Of the new znode.
        stat: Stat,
    },
    /// As [`WriteOutcome::Set`].
    Set {
        /// After the change.
        stat: Stat,
    },
    /// As [`WriteOutcome::Deleted`].
    Deleted,
    /// As [`WriteOutcome::AclSet`].
    AclSet {
        /// After the change.
        stat: Stat,
    },
    /// The check held.
    Checked,
}

/// How fresh the answer to a read has to be.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReadLevel {
    /// As far as the node that is asked has come, however long it has been without a leader: what there is to see while a quorum
    /// is lost, not what to decide by. The answer says whether the node has a leader. Behind it no session stands; on one it is
    /// [`ReadLevel::Local`].
    Stale,
    /// As far as the node that is asked has come; a session never sees less than it saw before, and always its own
    /// earlier writes (ZooKeeper's reads). Needs no leader, but a node that has had none for long sends its clients away.
    #[default]
    Local,
    /// The node has applied this entry.
    AtLeast(Zxid),
    /// Includes every write acknowledged before the read was issued. The leader confirms that it still leads
    /// by a round of its quorum, which many reads share.
    Linearizable,
}

/// A question that the tree of one node answers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Read {
    /// Value and Stat.
    Get {
        /// Which znode.
        path: Path,
    },
    /// Stat, or that there is none.
    Exists {
        /// Which znode.
        path: Path,
    },
    /// The access list and Stat.
    Acl {
        /// Of which znode.
        path: Path,
    },
    /// One page of the children, in order of their names.
    Children {
        /// Of which znode.
        path: Path,
        /// Which page.
        page: Page,
    },
    /// How many znodes are below a znode, and how many bytes they have.
    Count {
        /// Below which znode.
        path: Path,
    },
    /// The quotas at, above and below a znode, in order of their paths.
    Quotas {
        /// Which znode; it need not exist.
        path: Path,
        /// Which page: [`Page::after`] is a path.
        page: Page,
    },
}

/// Which part of a listing. The default is the first page.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Page {
    /// The page begins behind this name, whether a child has it or not; empty: with the first child.
    pub after: String,
    /// At most this many names. 0, and any number above [`Page::NAMES_MAX`], mean [`Page::NAMES_MAX`].
    pub size: u32,
    /// What of each child, besides its name.
    pub look: Look,
}

/// What a listing tells of each child, besides its name.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Look {
    /// Nothing.
    #[default]
    Name,
    /// Its Stat.
    Stat,
    /// Its Stat and its value.
    Data,
}

impl Page {
    /// Most names in a page.
    pub const NAMES_MAX: u32 = 1_000;
    /// A page ends before its names, Stats and values exceed this many bytes; a single child may have more.
    pub const BYTES_MAX: usize = 256 << 10;

    /// How many names fit at most.
    #[must_use]
    pub fn names_max(&self) -> usize {
        match self.size {
            0 => Page::NAMES_MAX as usize,
            size => size.min(Page::NAMES_MAX) as usize,
        }
    }
}

impl Read {
    /// The znode that is asked about.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Read::Get { path }
            | Read::Exists { path }
            | Read::Acl { path }
            | Read::Children { path, .. }
            | Read::Count { path }
            | Read::Quotas { path, .. } => path,
        }
    }
}

/// The answer to a [`Read`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ReadOutcome {
    /// To [`Read::Get`].
    Data {
        /// The value; `None` if it has none.
        data: Option<Bytes>,
        /// Of the znode.
        stat: Stat,
    },
    /// To [`Read::Exists`].
    Exists {
        /// Of the znode, `None` where there is none.
        stat: Option<Stat>,
    },
    /// To [`Read::Acl`].
    Acl {
        /// The list; without the hashes of digests for a caller that may not change it.
        acl: Acl,
        /// Of the znode.
        stat: Stat,
    },
    /// To [`Read::Children`].
    Children {
        /// Sorted by name.
        names: Vec<String>,
        /// [`Page::after`] of the next page; empty if this is the last.
        next: String,
        /// Of the parent, at the zxid of this page.
        stat: Stat,
    },
    /// To [`Read::Children`] with another [`Look`] than at names.
    Listed(Box<Listing>),
    /// To [`Read::Count`].
    Counted(Usage),
    /// To [`Read::Quotas`].
    Quotas {
        /// Sorted by path.
        quotas: Vec<QuotaAt>,
        /// As in [`ReadOutcome::Children`].
        next: String,
    },
}

/// A page of children with more than their names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Listing {
    /// Sorted by name.
    pub children: Vec<Child>,
    /// As in [`ReadOutcome::Children`].
    pub next: String,
    /// As in [`ReadOutcome::Children`].
    pub stat: Stat,
}

/// A child in a listing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// Its Stat; `None` if the caller may not read it.
    pub stat: Option<Stat>,
    /// Its value, if that was asked for, there is one, and the caller may read it.
    pub data: Option<Bytes>,
}

impl Child {
    /// What it takes in an answer besides its name and its value, about, in bytes.
    pub const SIZE: usize = std::mem::size_of::<Child>();

    /// What it takes in an answer.
    #[must_use]
    pub fn weight(&self) -> usize {
        Child::SIZE + self.name.len() + data_len(&self.data)
    }
}

/// What is known of a znode besides its value; fields and meaning as in ZooKeeper's `Stat`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Stat {
    /// The entry that created it.
    pub czxid: Zxid,
    /// The entry that last changed its value.
    pub mzxid: Zxid,
    /// The entry that last created or deleted a child; `czxid` if none did.
    pub pzxid: Zxid,
    /// Leader's time of `czxid`, in milliseconds since the Unix epoch.
    pub ctime_ms: i64,
    /// Leader's time of `mzxid`.
    pub mtime_ms: i64,
    /// Changes of the value; 0 when fresh, and 0 again behind the greatest number, so that it is never negative.
    pub version: i32,
    /// Creates and deletes of children; behind the greatest number as `version`.
    pub cversion: i32,
    /// Changes of the access list; behind the greatest number as `version`.
    pub aversion: i32,
    /// Its kind.
    pub kind: NodeKind,
    /// The session that an ephemeral belongs to.
    pub ephemeral_owner: Option<SessionId>,
    /// Bytes of the value; 0 if there is none.
    pub data_length: u32,
    /// Children now.
    pub num_children: u32,
}

/// The result of a write as its session sees it.
pub type WriteResult = Result<WriteOutcome, OpError>;

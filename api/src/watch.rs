//! The vocabulary of watches: the requests of clients, and the events. ZooKeeper's one-shot watches, its persistent and
//! its recursive ones are [`WatchSpec`]s with different fields; a watch that names a zxid gets the changes after it.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Acl, Identities, OpError, Path, Permissions, Stat, Zxid, data_len};

/// One watch, as a client asks for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchSpec {
    /// The client's name for it, unique among the open watches of the stream; not 0.
    pub id: u32,
    /// The znode, which need not exist.
    pub path: Path,
    /// Which znodes it sees.
    pub scope: WatchScope,
    /// It ends with the first group that concerns it.
    pub once: bool,
    /// What it sees of them; if empty, [`ChangeKinds::usual`].
    pub kinds: ChangeKinds,
    /// Values come with [`ChangeKind::Created`], [`ChangeKind::DataChanged`] and the state.
    pub with_data: bool,
    /// Begin with the changes after this entry. A node that has not applied it waits.
    pub from: Option<Zxid>,
    /// Whether the present state comes first.
    pub state: StateRule,
}

impl WatchSpec {
    /// A watch of this znode until it is cancelled, from now on.
    #[must_use]
    pub fn new(id: u32, path: Path, scope: WatchScope) -> WatchSpec {
        WatchSpec {
            id,
            path,
            scope,
            once: false,
            kinds: ChangeKinds::default(),
            with_data: false,
            from: None,
            state: StateRule::Never,
        }
    }

    /// What it sees, with the default filled in.
    #[must_use]
    pub fn effective_kinds(&self) -> ChangeKinds {
        if self.kinds.is_empty() { ChangeKinds::usual(self.scope) } else { self.kinds }
    }
}

/// Which znodes a watch sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WatchScope {
    /// The znode.
    Node,
    /// Its children, and its own [`ChangeKind::Deleted`].
    Children,
    /// The znode and all below.
    Tree,
}

/// Whether the present state comes before the events.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub enum StateRule {
    /// Never. Where [`WatchSpec::from`] is too old, the watch ends with [`OpError::Gone`].
    #[default]
    Never,
    /// Always, and without [`WatchSpec::from`].
    Always,
    /// Where [`WatchSpec::from`] is absent or too old.
    IfGone,
}

/// What happened to a znode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChangeKind {
    /// A change that is not known exactly: read the znode, and the names of its children.
    Touched,
    /// It is there.
    Created,
    /// It is gone.
    Deleted,
    /// Its value was set.
    DataChanged,
    /// Its access list was set.
    AclChanged,
    /// The right to read it is lost.
    Hidden,
}

/// A set of [`ChangeKind`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChangeKinds(u8);

impl ChangeKinds {
    /// What a watch of this scope sees if its client does not say.
    #[must_use]
    pub fn usual(scope: WatchScope) -> ChangeKinds {
        match scope {
            WatchScope::Children => [ChangeKind::Created, ChangeKind::Deleted].into_iter().collect(),
            WatchScope::Node | WatchScope::Tree => {
                [ChangeKind::Created, ChangeKind::Deleted, ChangeKind::DataChanged].into_iter().collect()
            }
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it has this one.
    #[must_use]
    pub fn contains(self, kind: ChangeKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// All that it has.
    pub fn iter(self) -> impl Iterator<Item = ChangeKind> {
        use ChangeKind::{AclChanged, Created, DataChanged, Deleted, Hidden, Touched};
        [Touched, Created, Deleted, DataChanged, AclChanged, Hidden]
            .into_iter()
            .filter(move |k| self.contains(*k))
    }
}

impl FromIterator<ChangeKind> for ChangeKinds {
    fn from_iter<I: IntoIterator<Item = ChangeKind>>(kinds: I) -> ChangeKinds {
        ChangeKinds(kinds.into_iter().fold(0, |bits, kind| bits | 1 << kind as u8))
    }
}

/// What one operation did to one znode.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// To which znode; never the path of a watch above it.
    pub path: Path,
    /// After the change; of a znode that is gone only `czxid`.
    pub stat: Stat,
    /// Its value after the change.
    pub data: Option<Bytes>,
    /// Its access list: after the change, or before it went. Stat and value are for clients that may read the znode by it.
    pub acl: Acl,
    /// The access list of its parent: it decides on the names of children.
    pub above: Acl,
}

impl Change {
    /// Whether a client may see what the znode has.
    #[must_use]
    pub fn shows(&self, caller: &Identities) -> bool {
        self.acl.gives(Permissions::READ, caller)
    }

    /// Whether a client may see that the parent has, or had, this child.
    #[must_use]
    pub fn names(&self, caller: &Identities) -> bool {
        self.above.gives(Permissions::READ, caller)
    }

    /// The same with no more than the name.
    #[must_use]
    pub fn without_content(&self) -> Change {
        let Change { kind, path, acl, above, .. } = self.clone();
        Change { kind, path, stat: Stat::default(), data: None, acl, above }
    }
}

/// A change, as one stream gets it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchEvent {
    /// The watches that it concerns, by the client's names.
    pub ids: Vec<u32>,
    /// The change, which all streams share.
    pub change: Arc<Change>,
    /// Whether the value goes along.
    pub with_data: bool,
}

/// What one entry of the log changed, as far as a stream watches it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchGroup {
    /// The entry.
    pub zxid: Zxid,
    /// In the order in which they happened; at least one.
    pub events: Vec<WatchEvent>,
    /// The group continues in the next item of this kind.
    pub more: bool,
}

/// A znode of a [`WatchState`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchedZnode {
    /// Its path.
    pub path: Path,
    /// Its Stat.
    pub stat: Stat,
    /// Its value, if the watch wants values.
    pub data: Option<Bytes>,
}

/// A part of the state that a watch begins with. Events of the watch come behind the part that is `done`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchState {
    /// Of which watch.
    pub id: u32,
    /// The entry behind which this is the state; the same for all parts.
    pub zxid: Zxid,
    /// Parents before their children.
    pub znodes: Vec<WatchedZnode>,
    /// Whether this is the last part.
    pub done: bool,
}

/// Watches that end without their client's doing.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchEnded {
    /// Which ones.
    pub ids: Vec<u32>,
    /// Why.
    pub error: OpError,
    /// All groups up to here were sent.
    pub last: Zxid,
    /// How far back the history of this node reaches: a watch from here on, or from later, misses nothing.
    pub oldest: Zxid,
}

/// Everything up to here was sent for all watches of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WatchMark {
    /// The entry.
    pub zxid: Zxid,
    /// The node has no leader at the moment, so it may be behind.
    pub leaderless: bool,
}

/// A watch that was not taken.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct WatchRefused {
    /// Which one.
    pub id: u32,
    /// Why.
    pub error: OpError,
}

/// Watches to be added together.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct AddWatches {
    /// Which ones.
    pub specs: Vec<WatchSpec>,
    /// Those that the edge could not read. They are refused, and the others stand.
    pub refused: Vec<WatchRefused>,
}

impl AddWatches {
    /// The entry that a node must have applied first.
    #[must_use]
    pub fn awaits(&self) -> Option<Zxid> {
        self.specs.iter().filter_map(|spec| spec.from).max()
    }

    /// Whether events come at once: earlier changes, or the state.
    #[must_use]
    pub fn catches_up(&self) -> bool {
        self.specs.iter().any(|spec| spec.from.is_some() || spec.state != StateRule::Never)
    }

    /// Bytes of its paths.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.specs.iter().map(|spec| spec.path.as_str().len()).sum()
    }
}

impl Change {
    /// About the bytes that it holds in memory.
    #[must_use]
    pub fn weight(&self) -> usize {
        EVENT + self.path.as_str().len() + data_len(&self.data) + self.acl.weight() + self.above.weight()
    }
}

impl WatchEvent {
    /// About the bytes that it takes on its way, and no less than in a message.
    #[must_use]
    pub fn weight(&self) -> usize {
        let data = if self.with_data { data_len(&self.change.data) } else { 0 };
        EVENT + ID * self.ids.len() + self.change.path.as_str().len() + data
    }
}

impl WatchGroup {
    /// The weight of its events.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.events.iter().map(WatchEvent::weight).sum()
    }
}

impl WatchedZnode {
    /// About the bytes that it takes on its way, and no less than in a message.
    #[must_use]
    pub fn weight(&self) -> usize {
        EVENT + self.path.as_str().len() + data_len(&self.data)
    }
}

impl WatchState {
    /// The weight of its znodes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.znodes.iter().map(WatchedZnode::weight).sum()
    }
}

/// What an event takes besides path, value and ids: most of it is the Stat.
const EVENT: usize = 224;
/// What an id takes at most.
const ID: usize = 5;

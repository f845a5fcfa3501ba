//! The tree against a simple model: a map from paths to fields, copied before every multi.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use api::{
    Acl, AclEntry, Child, Create, DeleteTree, Expected, Identities, Identity, Look, MultiOp, MultiOutcome,
    NodeKind, OpError, Page, Path, Permissions, Quota, QuotaAt, Read, ReadOutcome, Scheme, SessionId, Stat,
    Usage, Write, WriteOutcome, Zxid, quota::Bounds,
};
use bytes::Bytes;
use proptest::prelude::*;
use store_core::{At, By, Tree};

#[derive(Clone, Default)]
struct Model(BTreeMap<String, Node>);

#[derive(Clone, Default)]
struct Node {
    data: Option<Bytes>,
    acl: Acl,
    stat: Stat,
    creates: u64,
    /// Number of skipped names among `creates`.
    skipped: u64,
    quota: Quota,
}

/// The caller of the model.
#[derive(Clone, Copy)]
struct Who {
    session: Option<SessionId>,
    /// A user; `None` for an anonymous caller.
    user: Option<&'static str>,
    /// The store itself, which no list restricts.
    store: bool,
}

impl Model {
    /// An independent permission check.
    fn permit(&self, path: &Path, who: Who, permission: Permissions) -> Result<(), OpError> {
        let Some(node) = self.0.get(path.as_str()).filter(|_| !who.store) else { return Ok(()) };
        let given = node.acl.entries().iter().any(|entry| {
            let meant = match entry.identity.scheme() {
                Scheme::World => true,
                _ => who.user == Some(entry.identity.id()),
            };
            meant && entry.permissions.bits() & permission.bits() != 0
        });
        if given { Ok(()) } else { Err(OpError::NoAuth { path: path.clone(), permission }) }
    }

    fn new() -> Model {
        Model(BTreeMap::from([("/".to_owned(), Node { data: Some(Bytes::new()), ..Node::default() })]))
    }

    fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        self.0
            .keys()
            .filter_map(|p| p.strip_prefix(&prefix))
            .filter(|rest| !rest.is_empty() && !rest.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    fn stat(&self, path: &str) -> Option<Stat> {
        let node = self.0.get(path)?;
        let (data_length, num_children) =
            (node.data.as_ref().map_or(0, Bytes::len) as u32, self.children(path).len() as u32);
        Some(Stat { data_length, num_children, ..node.stat })
    }

    fn version(&self, path: &Path, expected: Option<Expected>) -> Result<(), OpError> {
        let node = self.0.get(path.as_str()).ok_or(OpError::NoNode(path.clone()))?;
        Model::expect(path, expected, node.stat.version, node.stat.czxid)
    }

    fn expect(path: &Path, expected: Option<Expected>, version: i32, czxid: Zxid) -> Result<(), OpError> {
        let path = path.clone();
        match expected {
            Some(Expected::Czxid(expected) | Expected::Both { czxid: expected, .. }) if expected != czxid => {
                Err(OpError::BadCzxid { path, expected, actual: czxid })
            }
            Some(Expected::Version(expected) | Expected::Both { version: expected, .. })
                if expected != version =>
            {
                Err(OpError::BadVersion { path, expected, actual: version })
            }
            _ => Ok(()),
        }
    }

    /// All descendants of a path.
    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a String, &'a Node)> {
        let prefix = if path.is_root() { "/".to_owned() } else { format!("{path}/") };
        self.0.iter().filter(move |(p, _)| p.len() > prefix.len() && p.starts_with(&prefix))
    }

    fn usage(&self, path: &Path) -> Usage {
        let bytes = |node: &Node| node.data.as_ref().map_or(0, Bytes::len) as u64;
        Usage {
            znodes: self.below(path).count() as u64,
            bytes: self.below(path).map(|(_, node)| bytes(node)).sum(),
        }
    }

    /// Checks the quotas from this znode to the root for this growth.
    fn room(&self, parent: &Path, znodes: u64, bytes: u64) -> Result<(), OpError> {
        for path in std::iter::successors(Some(parent.clone()), Path::parent) {
            let (hard, used) = (self.0[path.as_str()].quota.hard, self.usage(&path));
            let of = |counted, bound: Option<u64>, used: u64, more: u64| match bound {
                Some(limit) if more > 0 && used + more > limit => {
                    Err(OpError::QuotaExceeded { path: path.clone(), counted, limit, actual: used + more })
                }
                _ => Ok(()),
            };
            of(api::quota::Counted::Znodes, hard.znodes, used.znodes, znodes)?;
            of(api::quota::Counted::Bytes, hard.bytes, used.bytes, bytes)?;
        }
        Ok(())
    }

    /// The first znode that forbids the delete, the last children first.
    fn may_empty(&self, path: &Path, who: Who) -> Result<(), OpError> {
        let children = self.children(path.as_str());
        if !children.is_empty() {
            self.permit(path, who, Permissions::DELETE)?;
        }
        children.iter().rev().try_for_each(|name| self.may_empty(&path.child(name).unwrap(), who))
    }

    fn delete_tree(&mut self, at: At, who: Who, tree: &DeleteTree) -> Result<u64, OpError> {
        let path = &tree.path;
        let parent = path.parent().unwrap();
        if !tree.keep_root {
            self.permit(&parent, who, Permissions::DELETE)?;
        }
        if tree.keep_root && self.0.contains_key(path.as_str()) {
            self.permit(path, who, Permissions::DELETE)?;
        }
        self.version(path, tree.version)?;
        let actual = self.usage(path).znodes + u64::from(!tree.keep_root);
        let limit = if tree.max_znodes == 0 { 10_000 } else { u64::from(tree.max_znodes) };
        if actual > limit {
            return Err(OpError::LimitExceeded { what: String::new(), limit, actual, remedy: String::new() });
        }
        self.may_empty(path, who)?;
        let gone = self.children(path.as_str()).len() as i32;
        let below: Vec<String> = self.below(path).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| drop(self.0.remove(path)));
        let (counts, times) = if tree.keep_root { (path, gone) } else { (&parent, 1) };
        if !tree.keep_root {
            self.0.remove(path.as_str());
        }
        let counts = &mut self.0.get_mut(counts.as_str()).unwrap().stat;
        counts.cversion += times;
        counts.pzxid = if times > 0 { at.zxid } else { counts.pzxid };
        Ok(actual)
    }

    fn set_quota(&mut self, who: Who, path: &Path, quota: Quota) -> Result<QuotaAt, OpError> {
        self.version(path, None)?;
        self.permit(path, who, Permissions::ADMIN)?;
        self.0.get_mut(path.as_str()).unwrap().quota = quota;
        Ok(QuotaAt { path: path.clone(), quota, used: self.usage(path) })
    }

    fn one(&mut self, at: At, who: Who, op: &MultiOp) -> Result<MultiOutcome, OpError> {
        match op {
            MultiOp::Create(c) => {
                let Some(parent) = c.path.parent() else { return Err(OpError::NodeExists(c.path.clone())) };
                let Some(p) = self.0.get(parent.as_str()) else { return Err(OpError::NoNode(parent)) };
                self.permit(&parent, who, Permissions::CREATE)?;
                let ephemeral_parent = p.stat.ephemeral_owner.is_some();
                let mut path = c.path.clone();
                if c.sequential && !ephemeral_parent {
                    let name = |n| Path::new(&format!("{}{n:010}", c.path)).unwrap();
                    let free = (p.creates..).find(|n| !self.0.contains_key(name(*n).as_str())).unwrap();
                    let p = self.0.get_mut(parent.as_str()).unwrap();
                    p.skipped += free - p.creates;
                    p.creates = free;
                    path = name(free);
                }
                let p = &self.0[parent.as_str()];
                if self.0.contains_key(path.as_str()) {
                    return Err(OpError::NodeExists(path));
                }
                if p.stat.ephemeral_owner.is_some() {
                    return Err(OpError::NoChildrenForEphemerals(parent));
                }
                self.room(&parent, 1, c.data_len() as u64)?;
                let p = self.0.get_mut(parent.as_str()).unwrap();
                p.creates += 1;
                p.stat.cversion += 1;
                p.stat.pzxid = at.zxid;
                let stat = Stat {
                    czxid: at.zxid,
                    mzxid: at.zxid,
                    pzxid: at.zxid,
                    ctime_ms: at.time_ms,
                    mtime_ms: at.time_ms,
                    kind: c.kind,
                    ephemeral_owner: who.session.filter(|_| c.kind == NodeKind::Ephemeral),
                    ..Stat::default()
                };
                self.0.insert(
                    path.to_string(),
                    Node { data: c.data.clone(), acl: c.acl.clone(), stat, ..Node::default() },
                );
                Ok(MultiOutcome::Created { stat: self.stat(path.as_str()).unwrap(), path })
            }
            MultiOp::Set { path, data, version } => {
                self.permit(path, who, Permissions::WRITE)?;
                self.version(path, *version)?;
                let before = self.0[path.as_str()].data.as_ref().map_or(0, Bytes::len);
                let grows = data.as_ref().map_or(0, Bytes::len).saturating_sub(before) as u64;
                self.room(&path.parent().unwrap(), 0, grows)?;
                let node = self.0.get_mut(path.as_str()).unwrap();
                node.data = data.clone();
                node.stat.version += 1;
                node.stat.mzxid = at.zxid;
                node.stat.mtime_ms = at.time_ms;
                Ok(MultiOutcome::Set { stat: self.stat(path.as_str()).unwrap() })
            }
            MultiOp::Delete { path, version } => {
                self.permit(&path.parent().unwrap(), who, Permissions::DELETE)?;
                self.version(path, *version)?;
                let children = self.children(path.as_str()).len() as u32;
                if children > 0 {
                    return Err(OpError::NotEmpty { path: path.clone(), children });
                }
                self.0.remove(path.as_str());
                let p = self.0.get_mut(path.parent().unwrap().as_str()).unwrap();
                p.stat.cversion += 1;
                p.stat.pzxid = at.zxid;
                Ok(MultiOutcome::Deleted)
            }
            MultiOp::SetAcl { path, acl, aversion } => {
                self.version(path, None)?;
                self.permit(path, who, Permissions::ADMIN)?;
                let node = self.0.get_mut(path.as_str()).unwrap();
                Model::expect(path, *aversion, node.stat.aversion, node.stat.czxid)?;
                node.acl = acl.clone();
                node.stat.aversion += 1;
                Ok(MultiOutcome::AclSet { stat: self.stat(path.as_str()).unwrap() })
            }
            MultiOp::Check { path, version } => {
                self.permit(path, who, Permissions::READ)?;
                self.version(path, *version).map(|()| MultiOutcome::Checked)
            }
            MultiOp::CheckAbsent { path } => {
                self.permit(path, who, Permissions::READ)?;
                match self.0.get(path.as_str()) {
                    Some(node) => Err(OpError::Present { path: path.clone(), actual: node.stat.czxid }),
                    None => Ok(MultiOutcome::Checked),
                }
            }
        }
    }

    fn multi(&mut self, at: At, who: Who, ops: &[MultiOp]) -> Result<Vec<MultiOutcome>, OpError> {
        let before = self.clone();
        let mut outcomes = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            match self.one(at, who, op) {
                Ok(outcome) => outcomes.push(outcome),
                Err(cause) => {
                    let after = std::mem::replace(self, before);
                    // Skipped names stay skipped under every parent that existed before.
                    for (path, node) in &mut self.0 {
                        if let Some(after) = after.0.get(path).filter(|a| a.stat.czxid == node.stat.czxid) {
                            node.creates += after.skipped - node.skipped;
                            node.skipped = after.skipped;
                        }
                    }
                    return Err(OpError::Multi { index: index as u32, cause: Box::new(cause) });
                }
            }
        }
        Ok(outcomes)
    }
}

/// Few names, so that operations collide. Never the root, whose special rules have separate tests.
fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "a-b", "a0000000002", "a0000000003"]), 1..4)
        .prop_map(|names| Path::new(&format!("/{}", names.join("/"))).unwrap())
}

fn op() -> impl Strategy<Value = MultiOp> {
    let data = || prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..3).prop_map(Bytes::from));
    let kind = || {
        prop_oneof![
            2 => Just(NodeKind::Persistent),
            2 => Just(NodeKind::Ephemeral),
            1 => Just(NodeKind::Container),
            1 => (1..=NodeKind::TTL_MAX_MS).prop_map(|ms| NodeKind::Ttl { ms }),
        ]
    };
    let version = expected;
    let acl = || {
        let rights = || prop_oneof![2 => Just(31), 3 => 0..32u32];
        let named = (prop::sample::select(vec!["a", "b", "c"]), rights());
        let list = (named, prop::option::weighted(0.5, rights()));
        prop::option::weighted(0.4, list).prop_map(|list| {
            list.map_or_else(Acl::default, |((name, bits), world)| {
                let entry = |identity, bits| AclEntry {
                    identity,
                    permissions: Permissions::from_bits(bits).unwrap(),
                };
                let named = entry(Identity::new(Scheme::User, name).unwrap(), bits);
                let world = world.map(|bits| entry(Identity::anyone(), bits));
                Acl::new([named].into_iter().chain(world).collect()).unwrap()
            })
        })
    };
    prop_oneof![
        4 => (path(), data(), kind(), prop::bool::weighted(0.2), acl()).prop_map(|(path, data, kind, sequential, acl)| {
            let shallow = path.as_str().len() <= 2 && kind == NodeKind::Ephemeral;
            let kind = if shallow { NodeKind::Persistent } else { kind };
            MultiOp::Create(Create { path, data, kind, sequential, acl })
        }),
        3 => (path(), data(), version()).prop_map(|(path, data, version)| MultiOp::Set { path, data, version }),
        3 => (path(), version()).prop_map(|(path, version)| MultiOp::Delete { path, version }),
        1 => (path(), version()).prop_map(|(path, version)| MultiOp::Check { path, version }),
        1 => path().prop_map(|path| MultiOp::CheckAbsent { path }),
        2 => (path(), acl(), version()).prop_map(|(path, acl, aversion)| MultiOp::SetAcl { path, acl, aversion }),
    ]
}

/// The write for a multi of one part.
fn single(op: &MultiOp) -> Option<Write> {
    Some(match op.clone() {
        MultiOp::Create(c) => Write::Create(c),
        MultiOp::Set { path, data, version } => Write::Set { path, data, version },
        MultiOp::Delete { path, version } => Write::Delete { path, version },
        MultiOp::SetAcl { path, acl, aversion } => Write::SetAcl { path, acl, aversion },
        MultiOp::Check { .. } | MultiOp::CheckAbsent { .. } => return None,
    })
}

/// The creation zxid is [filled in](meant) later.
fn expected() -> impl Strategy<Value = Option<Expected>> {
    let version = || 0..3i32;
    let czxid = || prop_oneof![5 => Just(MEANT), 1 => Just(Zxid(7))];
    prop::option::weighted(
        0.4,
        prop_oneof![
            2 => version().prop_map(Expected::Version),
            2 => czxid().prop_map(Expected::Czxid),
            1 => (version(), czxid()).prop_map(|(version, czxid)| Expected::Both { version, czxid }),
        ],
    )
}

/// A placeholder for the present creation zxid.
const MEANT: Zxid = Zxid(u64::MAX);

fn meant(model: &Model, path: &Path, expected: &mut Option<Expected>) {
    let Some(node) = model.0.get(path.as_str()) else { return };
    if let Some(Expected::Czxid(czxid) | Expected::Both { czxid, .. }) = expected
        && *czxid == MEANT
    {
        *czxid = node.stat.czxid;
    }
}

/// The action of one entry.
#[derive(Clone, Debug)]
enum Act {
    Ops(Vec<MultiOp>),
    Tree(DeleteTree),
    Quota(Path, Quota),
}

impl Act {
    fn mean(&mut self, model: &Model) {
        match self {
            Act::Ops(ops) => ops.iter_mut().for_each(|op| match op {
                MultiOp::Set { path, version, .. }
                | MultiOp::Delete { path, version }
                | MultiOp::SetAcl { path, aversion: version, .. }
                | MultiOp::Check { path, version } => meant(model, path, version),
                MultiOp::Create(_) | MultiOp::CheckAbsent { .. } => {}
            }),
            Act::Tree(tree) => meant(model, &tree.path, &mut tree.version),
            Act::Quota(..) => {}
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let tree = (path(), expected(), any::<bool>(), prop_oneof![3 => Just(0), 1 => 1..4u32]);
    let bound = || prop::option::weighted(0.3, 0..6u64);
    let bounds = move || (bound(), bound()).prop_map(|(znodes, bytes)| Bounds { znodes, bytes });
    let quota = (bounds(), bounds()).prop_map(|(soft, hard)| Quota { soft, hard });
    let at = prop::option::weighted(0.7, path()).prop_map(|path| path.unwrap_or_else(Path::root));
    prop_oneof![
        10 => prop::collection::vec(op(), 1..5).prop_map(Act::Ops),
        1 => tree.prop_map(|(path, version, keep_root, max_znodes)| {
            Act::Tree(DeleteTree { path, version, keep_root, max_znodes })
        }),
        1 => (at, quota).prop_map(|(path, quota)| Act::Quota(path, quota)),
    ]
}

/// Without the texts of limits.
fn plain(result: Result<WriteOutcome, OpError>) -> Result<WriteOutcome, OpError> {
    result.map_err(|error| match error {
        OpError::LimitExceeded { limit, actual, .. } => {
            OpError::LimitExceeded { what: String::new(), limit, actual, remedy: String::new() }
        }
        other => other,
    })
}

/// All children of a znode, read in pages of three.
fn listing(tree: &Tree, path: &Path, look: Look, who: &Identities) -> (Vec<Child>, Stat) {
    let (mut listed, mut page) = (Vec::new(), Page { after: String::new(), size: 3, look });
    loop {
        let (children, next, stat) = match tree
            .read(&Read::Children { path: path.clone(), page: page.clone() }, who)
        {
            Ok(ReadOutcome::Children { names, next, stat }) if look == Look::Name => {
                (names.into_iter().map(|name| Child { name, stat: None, data: None }).collect(), next, stat)
            }
            Ok(ReadOutcome::Listed(listing)) if look != Look::Name => {
                (listing.children, listing.next, listing.stat)
            }
            other => panic!("{other:?}"),
        };
        assert!(children.len() <= 3);
        listed.extend(children);
        if next.is_empty() {
            return (listed, stat);
        }
        page.after = next;
    }
}

proptest! {
    #[test]
    fn the_tree_does_what_the_model_does(
        steps in prop::collection::vec((act(), 1..3u64, any::<bool>()), 1..60),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        for (n, (act, session, close)) in steps.iter().enumerate() {
            let at = At { zxid: Zxid(n as u64 + 1), time_ms: n as i64 * 10 };
            let owner = SessionId(*session);
            let session = Some(owner);
            let user = [None, Some("a"), Some("b")][n % 3];
            let identity = user.map(|user| Identity::new(Scheme::User, user).unwrap());
            let identities = &Identities::new(identity).unwrap();
            let (who, by) = (Who { session, user, store: false }, By { session, identities });
            let mut act = act.clone();
            act.mean(&model);
            match (&act, if let Act::Ops(ops) = &act { ops.first().and_then(single) } else { None }) {
                (Act::Tree(delete), _) => {
                    let expected = model.delete_tree(at, who, delete);
                    let expected = expected.map(|znodes| WriteOutcome::TreeDeleted { znodes });
                    prop_assert_eq!(plain(tree.write(at, by, &Write::DeleteTree(delete.clone()))), expected);
                }
                (Act::Quota(path, quota), _) => {
                    let expected = model.set_quota(who, path, *quota).map(WriteOutcome::QuotaSet);
                    let write = Write::SetQuota { path: path.clone(), quota: *quota };
                    prop_assert_eq!(tree.write(at, by, &write), expected);
                }
                (Act::Ops(ops), Some(write)) if ops.len() == 1 => {
                    let expected = model.one(at, who, &ops[0]).map(|outcome| match outcome {
                        MultiOutcome::Created { path, stat } => WriteOutcome::Created { path, stat },
                        MultiOutcome::Set { stat } => WriteOutcome::Set { stat },
                        MultiOutcome::AclSet { stat } => WriteOutcome::AclSet { stat },
                        MultiOutcome::Deleted | MultiOutcome::Checked => WriteOutcome::Deleted,
                    });
                    prop_assert_eq!(tree.write(at, by, &write), expected);
                }
                (Act::Ops(ops), _) => {
                    let expected = model.multi(at, who, ops).map(WriteOutcome::Multi);
                    prop_assert_eq!(tree.write(at, by, &Write::Multi(ops.clone())), expected);
                }
            }
            if *close && n % 5 == 0 {
                let owned: Vec<String> = model.0.iter()
                    .filter(|(_, n)| n.stat.ephemeral_owner == session).map(|(p, _)| p.clone()).collect();
                prop_assert_eq!(tree.remove_ephemerals(at, owner), owned.len() as u32);
                let store = Who { session: None, user: None, store: true };
                for path in owned {
                    model.one(at, store, &MultiOp::Delete { path: Path::new(&path).unwrap(), version: None }).unwrap();
                }
            }
            prop_assert_eq!(tree.digest(), tree.recompute_digest());
            prop_assert!(tree.counts_are_exact());
        }
        prop_assert_eq!(tree.len(), model.0.len());
        for (name, node) in &model.0 {
            let path = Path::new(name).unwrap();
            let stat = model.stat(name).unwrap();
            let superuser = &Identities::new([Identity::superuser()]).unwrap();
            let get = Read::Get { path: path.clone() };
            let found = Ok(ReadOutcome::Data { data: node.data.clone(), stat });
            prop_assert_eq!(tree.read(&get, superuser), found.clone());
            let anonymous = Who { session: None, user: None, store: false };
            let expected = model.permit(&path, anonymous, Permissions::READ).and(found);
            prop_assert_eq!(tree.read(&get, &Identities::NONE), expected);
            prop_assert_eq!(tree.acl(&path), Some(node.acl.clone()));
            let children = model.children(name);
            let all = |node: &Node, child: &Path, look: Look, who: Option<Who>| {
                let shown = who.is_none_or(|who| model.permit(child, who, Permissions::READ).is_ok());
                let data = node.data.clone().filter(|_| shown && look == Look::Data);
                let stat = model.stat(child.as_str()).filter(|_| shown && look != Look::Name);
                Child { name: child.name().to_owned(), stat, data }
            };
            let expected = |look, who| -> Vec<Child> {
                let children = children.iter().map(|name| path.child(name).unwrap());
                children.map(|child| all(&model.0[child.as_str()], &child, look, who)).collect()
            };
            // The pages of three together are all children, in order.
            for look in [Look::Name, Look::Stat, Look::Data] {
                prop_assert_eq!(listing(&tree, &path, look, superuser), (expected(look, None), stat));
                if model.permit(&path, anonymous, Permissions::READ).is_ok() {
                    let shown = listing(&tree, &path, look, &Identities::NONE);
                    prop_assert_eq!(shown, (expected(look, Some(anonymous)), stat));
                }
            }
            let counted = tree.read(&Read::Count { path: path.clone() }, superuser);
            prop_assert_eq!(counted, Ok(ReadOutcome::Counted(model.usage(&path))));
            let (mut quotas, mut page) = (Vec::new(), Page { size: 2, ..Page::default() });
            loop {
                let read = Read::Quotas { path: path.clone(), page: page.clone() };
                let Ok(ReadOutcome::Quotas { quotas: some, next }) = tree.read(&read, superuser) else { panic!("{read:?}") };
                quotas.extend(some);
                if next.is_empty() {
                    break;
                }
                page.after = next;
            }
            let expected: Vec<QuotaAt> = (model.0.iter())
                .map(|(name, node)| (Path::new(name).unwrap(), node.quota))
                .filter(|(at, quota)| !quota.is_none() && (at.is_within(&path) || path.is_within(at)))
                .map(|(at, quota)| QuotaAt { used: model.usage(&at), path: at, quota })
                .collect();
            prop_assert_eq!(quotas, expected);
        }
    }
}

#[test]
fn only_ephemerals_have_no_children_and_ttls_have_bounds() {
    let mut t = Writes::default();
    let create =
        |path: &str, kind| Write::Create(Create { kind, ..Create::new(Path::new(path).unwrap(), "") });
    let kinds = [NodeKind::Container, NodeKind::Ttl { ms: 1 }, NodeKind::Ttl { ms: NodeKind::TTL_MAX_MS }];
    for (n, kind) in kinds.into_iter().enumerate() {
        let made = t.write(&create(&format!("/{n}"), kind));
        let Ok(WriteOutcome::Created { stat, .. }) = made else { panic!("{made:?}") };
        assert_eq!((stat.kind, stat.ephemeral_owner), (kind, None));
        t.create(&format!("/{n}/child"));
    }
    for ms in [0, NodeKind::TTL_MAX_MS + 1, u64::MAX] {
        let refused = t.write(&create("/ttl", NodeKind::Ttl { ms }));
        let Err(OpError::BadArguments(why)) = refused else { panic!("{refused:?}") };
        assert!(why.contains("give 1 to 1099511627775 ms"), "{why}");
    }
}

#[test]
fn no_value_is_another_than_an_empty_one() {
    let mut t = Writes::default();
    let path = Path::new("/n").unwrap();
    t.write(&Write::Create(Create { data: None, ..Create::new(path.clone(), "") })).unwrap();
    let mut digests = vec![t.tree.digest()];
    let data = |tree: &Tree| match tree.read(&Read::Get { path: path.clone() }, &Identities::NONE) {
        Ok(ReadOutcome::Data { data, stat }) => (data, stat.data_length),
        other => panic!("{other:?}"),
    };
    assert_eq!(data(&t.tree), (None, 0));
    for value in [Some(Bytes::new()), None, Some(Bytes::from_static(b"x")), None] {
        t.write(&Write::Set { path: path.clone(), data: value.clone(), version: None }).unwrap();
        assert_eq!(data(&t.tree), (value.clone(), value.map_or(0, |v| v.len() as u32)));
        digests.push(t.tree.digest());
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 5);
    assert_eq!(t.tree.bytes(), "/".len() + "/n".len());
}

#[test]
fn the_root_stays() {
    let mut tree = Tree::default();
    let at = At { zxid: Zxid(1), time_ms: 1 };
    let root = Path::root();
    let create = |sequential| Write::Create(Create { sequential, ..Create::new(Path::root(), "") });
    assert_eq!(tree.write(at, By::anonymous(None), &create(false)), Err(OpError::NodeExists(root.clone())));
    assert!(matches!(
        tree.write(at, By::anonymous(None), &Write::Delete { path: root.clone(), version: None }),
        Err(OpError::BadArguments(_))
    ));
    let set = Write::Set { path: root, data: Some(Bytes::from_static(b"x")), version: Some(0.into()) };
    assert!(tree.write(at, By::anonymous(None), &set).is_ok());
    // The empty name with a number appended, as in ZooKeeper.
    let Ok(WriteOutcome::Created { path, .. }) = tree.write(at, By::anonymous(None), &create(true)) else {
        panic!("not created")
    };
    assert_eq!(path.as_str(), "/0000000000");
}

#[test]
fn sequence_numbers_count_every_create_under_the_parent() {
    let mut tree = Tree::default();
    let mut zxid = 0;
    let mut write = |w: Write| {
        zxid += 1;
        tree.write(At { zxid: Zxid(zxid), time_ms: 0 }, By::anonymous(None), &w)
    };
    let create = |path: &str, sequential| {
        Write::Create(Create { sequential, ..Create::new(Path::new(path).unwrap(), "") })
    };
    write(create("/a", false)).unwrap();
    write(create("/b", false)).unwrap();
    write(Write::Delete { path: Path::new("/a").unwrap(), version: None }).unwrap();
    let Ok(WriteOutcome::Created { path, .. }) = write(create("/s-", true)) else { panic!("not created") };
    assert_eq!(path.as_str(), "/s-0000000002");
    let Ok(ReadOutcome::Exists { stat: Some(stat) }) =
        tree.read(&Read::Exists { path: Path::root() }, &Identities::NONE)
    else {
        panic!("no root")
    };
    assert_eq!((stat.cversion, stat.num_children, stat.pzxid), (4, 2, Zxid(4)), "three creates and a delete");
}

#[test]
fn an_ephemeral_needs_a_session() {
    let create = Create::new(Path::new("/e").unwrap(), "");
    let create = Write::Create(Create { kind: NodeKind::Ephemeral, ..create });
    let result = Tree::default().write(At { zxid: Zxid(1), time_ms: 0 }, By::anonymous(None), &create);
    assert!(matches!(result, Err(OpError::BadArguments(_))), "{result:?}");
}

/// A tree, and successive writes to it.
#[derive(Default)]
struct Writes {
    tree: Tree,
    zxid: u64,
}

impl Writes {
    fn write(&mut self, write: &Write) -> Result<WriteOutcome, OpError> {
        self.zxid += 1;
        self.tree.write(At { zxid: Zxid(self.zxid), time_ms: 0 }, By::anonymous(None), write)
    }

    fn create(&mut self, path: &str) {
        let path = Path::new(path).unwrap();
        self.write(&Write::Create(Create::new(path, Bytes::new()))).unwrap();
    }

    fn sequential(&mut self, prefix: &str) -> Result<String, OpError> {
        match self.write(&Write::Create(sequential(prefix)))? {
            WriteOutcome::Created { path, .. } => Ok(path.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

fn sequential(prefix: &str) -> Create {
    Create { sequential: true, ..Create::new(Path::prefix(prefix).unwrap(), "") }
}

#[test]
fn b23_the_number_alone_is_a_name() {
    let mut t = Writes::default();
    t.create("/queue");
    assert_eq!(t.sequential("/queue/").unwrap(), "/queue/0000000000");
    assert_eq!(t.sequential("/queue/x-").unwrap(), "/queue/x-0000000001");
    assert_eq!(t.sequential("/").unwrap(), "/0000000001");
    let missing = t.sequential("/none/");
    assert_eq!(missing, Err(OpError::NoNode(Path::new("/none").unwrap())));
}

#[test]
fn b23_names_in_the_way_of_a_sequential_create_are_skipped_for_good() {
    let mut t = Writes::default();
    t.create("/q");
    for n in [1, 2, 3, 5] {
        t.create(&format!("/q/x-{n:010}"));
    }
    // Four creates so far: 4 is free, 5 is occupied.
    assert_eq!(t.sequential("/q/x-").unwrap(), "/q/x-0000000004");
    assert_eq!(t.sequential("/q/x-").unwrap(), "/q/x-0000000006");
    assert_eq!(t.sequential("/q/y-").unwrap(), "/q/y-0000000007");
}

#[test]
fn b23_one_create_skips_so_many_names_and_the_next_goes_on_there_also_behind_a_failed_multi() {
    let mut t = Writes::default();
    t.create("/q");
    // Each create also moves the counter by one, so the names begin at the counter's final position.
    let names = 10_005u64;
    for n in names..2 * names {
        t.create(&format!("/q/x-{n:010}"));
    }
    let failing = Write::Multi(vec![
        MultiOp::Create(sequential("/q/z-")),
        MultiOp::Create(sequential("/q/x-")),
        MultiOp::Check { path: Path::new("/none").unwrap(), version: None },
    ]);
    let blocked = t.write(&failing).unwrap_err();
    let OpError::Multi { index: 1, cause } = blocked else { panic!("{blocked:?}") };
    // The first part has used one number, and the undo returns it.
    assert_eq!(
        *cause,
        OpError::NoSequenceNumber { path: Path::new("/q/x-").unwrap(), next: names + 1 + 10_000 }
    );
    assert!(cause.to_string().contains("send the create again"), "{cause}");
    assert_eq!(t.sequential("/q/x-").unwrap(), format!("/q/x-{:010}", 2 * names));
    assert_eq!(t.tree.digest(), t.tree.recompute_digest());
}

//! Divides a history into objects that can be searched one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::{
    DeleteTree, Expected, MultiOp, MultiOutcome, NodeKind, Path, Read, ReadLevel, Write, WriteOutcome,
};

use super::model::{Object, Parent, Slot};
use crate::{Call, History, Outcome};

/// An object and the operations on it.
#[derive(Default)]
pub(super) struct Part {
    pub(super) object: Object,
    /// Index into the history, and the write with its full names; `None` for a read.
    pub(super) operations: Vec<(usize, Option<Write>)>,
    /// Something of unknown name may have happened to it.
    pub(super) blurred: bool,
}

/// Returns the parts and the number of operations that are in none of them.
pub(super) fn divide(history: &History) -> (Vec<Part>, usize) {
    let mut division = Division::default();
    let mut placed = Vec::new();
    let mut skipped = 0;
    for (index, operation) in history.operations.iter().enumerate() {
        match (&operation.call, &operation.outcome) {
            // Neither changes anything, nor says anything of one znode.
            (Call::Sync, _) | (_, Outcome::Refused(_)) | (Call::Read(..), Outcome::Unknown) => {}
            // It is there before anybody creates it.
            (Call::Read(read, _), _) if read.path().is_root() => skipped += 1,
            (Call::Read(Read::Children { .. } | Read::Count { .. } | Read::Quotas { .. }, _), _) => {
                skipped += 1
            }
            // From any state that ever was: to place it says nothing and makes the search longer.
            (Call::Read(_, ReadLevel::Stale | ReadLevel::Local | ReadLevel::AtLeast(_)), _)
                if operation.unary =>
            {
                skipped += 1;
            }
            (Call::Read(read, _), _) => {
                division.note(read.path(), operation.called);
                placed.push((index, read.path().clone(), None));
            }
            (Call::Write(write), outcome) => match full_names(write, outcome) {
                Named::Write(write) => {
                    division.write(&write, outcome, operation.called, operation.returned);
                    let named = paths(&write).next().cloned();
                    placed.extend(named.map(|path| (index, path, Some(write))));
                }
                Named::Nothing => skipped += 1,
                Named::Blur => {
                    skipped += 1;
                    division.blurs.extend(paths(write).cloned());
                }
            },
        }
    }
    (division.parts(placed), skipped)
}

/// A write that names all its znodes.
enum Named {
    Write(Write),
    /// It changed nothing.
    Nothing,
    /// It may have changed any znode whose name begins like this.
    Blur,
}

/// Puts the names that sequential creates were given in their places.
fn full_names(write: &Write, outcome: &Outcome) -> Named {
    let blurred = match write {
        // No znode has one.
        Write::SetQuota { .. } => return Named::Nothing,
        // What is below is not known; and objects have no creations.
        Write::DeleteTree(_) => true,
        write => names_a_creation(write),
    };
    if blurred {
        let failed = matches!(outcome, Outcome::Written { result: Err(_), .. });
        return if failed { Named::Nothing } else { Named::Blur };
    }
    let mut write = write.clone();
    let sequential = |part: &MultiOp| matches!(part, MultiOp::Create(c) if c.sequential);
    let known = match &mut write {
        Write::Create(create) if create.sequential => match outcome {
            Outcome::Written { result: Ok(WriteOutcome::Created { path, .. }), .. } => {
                create.path = path.clone();
                true
            }
            _ => false,
        },
        Write::Multi(parts) if parts.iter().any(sequential) => match outcome {
            Outcome::Written { result: Ok(WriteOutcome::Multi(outcomes)), .. } => {
                for (part, outcome) in parts.iter_mut().zip(outcomes) {
                    if let (MultiOp::Create(create), MultiOutcome::Created { path, .. }) = (part, outcome) {
                        create.path = path.clone();
                    }
                }
                true
            }
            _ => false,
        },
        _ => true,
    };
    match outcome {
        _ if known => Named::Write(write),
        Outcome::Written { result: Err(_), .. } => Named::Nothing,
        _ => Named::Blur,
    }
}

fn names_a_creation(write: &Write) -> bool {
    let by = |expected: &Option<Expected>| expected.is_some_and(|expected| expected.czxid().is_some());
    let part = |part: &MultiOp| match part {
        MultiOp::Set { version, .. } | MultiOp::Delete { version, .. } | MultiOp::Check { version, .. } => {
            by(version)
        }
        MultiOp::SetAcl { aversion, .. } => by(aversion),
        MultiOp::Create(_) | MultiOp::CheckAbsent { .. } => false,
    };
    match write {
        Write::Set { version, .. } | Write::Delete { version, .. } => by(version),
        Write::SetAcl { aversion, .. } => by(aversion),
        Write::Multi(parts) => parts.iter().any(part),
        Write::Create(_) | Write::DeleteTree(_) | Write::SetQuota { .. } => false,
    }
}

fn paths(write: &Write) -> Box<dyn Iterator<Item = &Path> + '_> {
    match write {
        Write::Create(create) => Box::new(std::iter::once(&create.path)),
        Write::Set { path, .. }
        | Write::Delete { path, .. }
        | Write::SetAcl { path, .. }
        | Write::DeleteTree(DeleteTree { path, .. })
        | Write::SetQuota { path, .. } => Box::new(std::iter::once(path)),
        Write::Multi(parts) => Box::new(parts.iter().map(|part| match part {
            MultiOp::Create(create) => &create.path,
            MultiOp::Set { path, .. }
            | MultiOp::Delete { path, .. }
            | MultiOp::SetAcl { path, .. }
            | MultiOp::Check { path, .. }
            | MultiOp::CheckAbsent { path } => path,
        })),
    }
}

/// The history's facts about one path.
#[derive(Default)]
struct Znode {
    first_called: u64,
    /// Calls that may have created it, and when the first that did returned.
    creates: usize,
    created: Option<u64>,
    /// It may have gone.
    deletable: bool,
    /// A sequential create was given this name, so no other one was.
    numbered: bool,
}

#[derive(Default)]
struct Division {
    /// Sorted, so that an object's slots are.
    znodes: BTreeMap<Path, Znode>,
    /// Paths that one write names together.
    tied: Vec<(Path, Path)>,
    blurs: Vec<Path>,
}

impl Division {
    fn note(&mut self, path: &Path, called: u64) -> &mut Znode {
        let znode =
            self.znodes.entry(path.clone()).or_insert(Znode { first_called: called, ..Znode::default() });
        znode.first_called = znode.first_called.min(called);
        znode
    }

    fn write(&mut self, write: &Write, outcome: &Outcome, called: u64, returned: Option<u64>) {
        let succeeded = matches!(outcome, Outcome::Written { result: Ok(_), .. });
        let failed = matches!(outcome, Outcome::Written { result: Err(_), .. });
        let create = |division: &mut Division, create: &api::Create| {
            let znode = division.note(&create.path, called);
            znode.numbered |= create.sequential && succeeded;
            znode.creates += usize::from(!failed);
            znode.deletable |= create.kind != NodeKind::Persistent;
            if succeeded {
                znode.created = znode.created.or(returned);
            }
        };
        // Also by one that failed: it may have failed because of children, which have to be looked at together with it.
        let delete = |division: &mut Division, path: &Path| division.note(path, called).deletable = true;
        match write {
            Write::Create(c) => create(self, c),
            Write::Set { path, .. } | Write::SetAcl { path, .. } => {
                self.note(path, called);
            }
            Write::Delete { path, .. } => delete(self, path),
            // Not placed.
            Write::DeleteTree(_) | Write::SetQuota { .. } => {}
            Write::Multi(parts) => {
                for part in parts {
                    match part {
                        MultiOp::Create(c) => {
                            create(self, c);
                            // It was there for the parts behind this one, also if one of them failed.
                            self.note(&c.path, called).creates += usize::from(failed);
                        }
                        MultiOp::Delete { path, .. } => delete(self, path),
                        MultiOp::Set { path, .. }
                        | MultiOp::SetAcl { path, .. }
                        | MultiOp::Check { path, .. }
                        | MultiOp::CheckAbsent { path } => {
                            self.note(path, called);
                        }
                    }
                }
            }
        }
        let mut named = paths(write);
        if let Some(first) = named.next() {
            self.tied.extend(named.map(|path| (first.clone(), path.clone())));
        }
    }

    /// What matters of the parent of `path` to it. A parent that is made once, before anything is asked of the child,
    /// and never deleted does not tie its children together.
    fn parent(&self, path: &Path, znode: &Znode) -> Option<Path> {
        let parent = path.parent().filter(|p| !p.is_root())?;
        let above = self.znodes.get(&parent)?;
        let before = above.created.is_some_and(|returned| returned < znode.first_called);
        let steady = above.creates == 1 && !above.deletable && before;
        (!steady && above.creates > 0).then_some(parent)
    }

    fn parts(self, placed: Vec<(usize, Path, Option<Write>)>) -> Vec<Part> {
        let index: HashMap<&Path, usize> =
            self.znodes.keys().enumerate().map(|(i, path)| (path, i)).collect();
        let mut groups = Groups((0..index.len()).collect());
        for (a, b) in &self.tied {
            groups.join(index[a], index[b]);
        }
        let parents: Vec<Option<Path>> = self.znodes.iter().map(|(path, z)| self.parent(path, z)).collect();
        for (i, parent) in parents.iter().enumerate() {
            if let Some(parent) = parent {
                groups.join(i, index[parent]);
            }
        }
        let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
        for (i, (path, znode)) in self.znodes.iter().enumerate() {
            let part = parts.entry(groups.find(i)).or_default();
            let may_be_it = |blur: &Path| !znode.numbered && path.as_str().starts_with(blur.as_str());
            // An unrecorded child prevents the deletion of a znode.
            let may_have_it = |blur: &Path| znode.deletable && blur.parent().as_ref() == Some(path);
            part.blurred |= self.blurs.iter().any(|blur| may_be_it(blur) || may_have_it(blur));
            part.object
                .slots
                .push(Slot { path: path.clone(), parent: Parent::Fixed { exists: self.fixed(path) } });
        }
        let roots: BTreeSet<usize> = parts.keys().copied().collect();
        for root in roots {
            let Some(part) = parts.get_mut(&root) else { continue };
            for place in 0..part.object.slots.len() {
                let above = parents[index[&part.object.slots[place].path]].as_ref();
                if let Some(parent) = above.and_then(|p| part.object.slot(p)) {
                    part.object.slots[place].parent = Parent::Slot(parent);
                }
            }
        }
        for (operation, path, write) in placed {
            if let Some(part) = parts.get_mut(&groups.find(index[&path])) {
                part.operations.push((operation, write));
            }
        }
        parts.into_values().collect()
    }

    /// Whether the parent is there, if it is always the same.
    fn fixed(&self, path: &Path) -> bool {
        match path.parent() {
            Some(parent) => parent.is_root() || self.znodes.get(&parent).is_some_and(|z| z.creates > 0),
            None => true,
        }
    }
}

/// Sets that can be joined.
struct Groups(Vec<usize>);

impl Groups {
    fn find(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

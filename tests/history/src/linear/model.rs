//! A znode as small as can be: the referee's own idea of what operations do.

use std::fmt;

use api::{
    Create, ErrorCode, Expected, MultiOp, MultiOutcome, NodeKind, OpError, Path, ReadOutcome, Stat, Write,
    WriteOutcome, WriteResult, data_len,
};
use bytes::Bytes;

/// The znodes of an object, by their slots.
pub(super) type State = Vec<Option<Node>>;

/// A znode that exists.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Node {
    data: Option<Bytes>,
    version: i32,
    aversion: i32,
    /// It may be removed at any time, with its session, which the history does not show.
    pub(super) ephemeral: bool,
    /// It may be removed by itself, at a time that the history does not show.
    pub(super) fleeting: bool,
}

/// A [`Slot`]'s knowledge of its parent znode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parent {
    /// Nothing that can happen to it matters: it is there all the time, or never.
    Fixed { exists: bool },
    /// It is in the object, too.
    Slot(usize),
}

/// The place of a znode in an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    pub(super) path: Path,
    pub(super) parent: Parent,
}

/// The smallest group of znodes that no operation ties to others.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Object {
    /// By path.
    pub(super) slots: Vec<Slot>,
}

/// Part of an outcome: an error of this kind, at this part of a multi.
type Failed = (usize, ErrorCode);

/// The effect of one part: the new state of the node, `None` if it is gone or was only read.
type Did = Option<Node>;

impl Object {
    pub(super) fn slot(&self, path: &Path) -> Option<usize> {
        self.slots.binary_search_by(|s| s.path.cmp(path)).ok()
    }

    /// The state after a write, `None` if it cannot have had this outcome. An unknown outcome is whatever comes.
    pub(super) fn write(&self, state: &State, write: &Write, outcome: Option<&WriteResult>) -> Option<State> {
        if let Some(Err(error)) = outcome
            && !modelled(error.code())
        {
            return Some(state.clone());
        }
        let mut after = state.clone();
        let did = match write {
            Write::Create(create) => self.create(&mut after, create).map(|d| vec![d]).map_err(|e| (0, e)),
            Write::Set { path, data, version } => {
                self.set(&mut after, path, data, *version).map(|d| vec![d]).map_err(|e| (0, e))
            }
            Write::Delete { path, version } => {
                self.delete(&mut after, path, *version).map(|d| vec![d]).map_err(|e| (0, e))
            }
            Write::SetAcl { path, aversion, .. } => {
                self.set_acl(&mut after, path, *aversion).map(|d| vec![d]).map_err(|e| (0, e))
            }
            Write::Multi(parts) => self.multi(&mut after, parts),
            // They are divided among no objects.
            Write::DeleteTree(_) | Write::SetQuota { .. } => return None,
        };
        if did.is_err() {
            after.clone_from(state);
        }
        let possible = match (outcome, &did) {
            (None, _) => true,
            (Some(Ok(outcome)), Ok(did)) => fits(outcome, did),
            (Some(Err(error)), Err(failed)) => fails_like(error, *failed),
            (Some(_), _) => false,
        };
        possible.then_some(after)
    }

    /// Whether a read may have had this outcome.
    pub(super) fn reads(&self, state: &State, path: &Path, outcome: &Result<ReadOutcome, OpError>) -> bool {
        let node = self.slot(path).and_then(|slot| state[slot].as_ref());
        match outcome {
            Ok(ReadOutcome::Data { data, stat }) => node.is_some_and(|n| n.data == *data && n.has(stat)),
            Ok(ReadOutcome::Exists { stat: Some(stat) }) => node.is_some_and(|n| n.has(stat)),
            Ok(ReadOutcome::Exists { stat: None }) => node.is_none(),
            Ok(ReadOutcome::Acl { stat, .. }) => node.is_some_and(|n| n.has(stat)),
            Ok(
                ReadOutcome::Children { .. }
                | ReadOutcome::Listed(_)
                | ReadOutcome::Counted(_)
                | ReadOutcome::Quotas { .. },
            ) => false,
            Err(error) => error.code() != ErrorCode::NoNode || node.is_none(),
        }
    }

    fn multi(&self, state: &mut State, parts: &[MultiOp]) -> Result<Vec<Did>, Failed> {
        let part = |(index, part): (usize, &MultiOp)| {
            let did = match part {
                MultiOp::Create(create) => self.create(state, create),
                MultiOp::Set { path, data, version } => self.set(state, path, data, *version),
                MultiOp::Delete { path, version } => self.delete(state, path, *version),
                MultiOp::SetAcl { path, aversion, .. } => self.set_acl(state, path, *aversion),
                MultiOp::Check { path, version } => self.find(state, path, *version).map(|_| None),
                MultiOp::CheckAbsent { path } => match self.find(state, path, None) {
                    Ok(_) => Err(ErrorCode::Present),
                    Err(_) => Ok(None),
                },
            };
            did.map_err(|code| (index, code))
        };
        parts.iter().enumerate().map(part).collect()
    }

    fn create(&self, state: &mut State, create: &Create) -> Result<Did, ErrorCode> {
        let slot = self.slot(&create.path).ok_or(ErrorCode::NodeExists)?;
        let parent_ephemeral = match self.slots[slot].parent {
            Parent::Fixed { exists: true } => false,
            Parent::Fixed { exists: false } => return Err(ErrorCode::NoNode),
            Parent::Slot(parent) => state[parent].as_ref().ok_or(ErrorCode::NoNode)?.ephemeral,
        };
        if state[slot].is_some() {
            return Err(ErrorCode::NodeExists);
        }
        if parent_ephemeral {
            return Err(ErrorCode::NoChildrenForEphemerals);
        }
        let (ephemeral, fleeting) = (create.kind == NodeKind::Ephemeral, create.kind != NodeKind::Persistent);
        let node = Node { data: create.data.clone(), version: 0, aversion: 0, ephemeral, fleeting };
        state[slot] = Some(node.clone());
        Ok(Some(node))
    }

    fn set(
        &self,
        state: &mut State,
        path: &Path,
        data: &Option<Bytes>,
        expected: Option<Expected>,
    ) -> Result<Did, ErrorCode> {
        let slot = self.find(state, path, expected)?;
        let node = state[slot].as_mut().ok_or(ErrorCode::NoNode)?;
        node.data = data.clone();
        node.version = node.version.checked_add(1).unwrap_or(0);
        Ok(Some(node.clone()))
    }

    /// Who may do what is no part of the model: NO_AUTH may come at any time.
    fn set_acl(&self, state: &mut State, path: &Path, aversion: Option<Expected>) -> Result<Did, ErrorCode> {
        let slot = self.find(state, path, None)?;
        let node = state[slot].as_mut().ok_or(ErrorCode::NoNode)?;
        if aversion.and_then(Expected::version).is_some_and(|aversion| aversion != node.aversion) {
            return Err(ErrorCode::BadVersion);
        }
        node.aversion = node.aversion.checked_add(1).unwrap_or(0);
        Ok(Some(node.clone()))
    }

    fn delete(&self, state: &mut State, path: &Path, expected: Option<Expected>) -> Result<Did, ErrorCode> {
        let slot = self.find(state, path, expected)?;
        if self.has_children(state, slot) {
            return Err(ErrorCode::NotEmpty);
        }
        state[slot] = None;
        Ok(None)
    }

    fn has_children(&self, state: &State, slot: usize) -> bool {
        let mut slots = self.slots.iter().zip(state.iter());
        slots.any(|(s, node)| s.parent == Parent::Slot(slot) && node.is_some())
    }

    /// The znodes that may go by themselves now.
    pub(super) fn vanishing<'a>(&'a self, state: &'a State) -> impl Iterator<Item = usize> + 'a {
        let fleeting = |&slot: &usize| state[slot].as_ref().is_some_and(|node| node.fleeting);
        (0..state.len()).filter(fleeting).filter(|&slot| !self.has_children(state, slot))
    }

    fn find(&self, state: &State, path: &Path, expected: Option<Expected>) -> Result<usize, ErrorCode> {
        let slot = self.slot(path).ok_or(ErrorCode::NoNode)?;
        let node = state[slot].as_ref().ok_or(ErrorCode::NoNode)?;
        // What asks for a creation is divided among no objects.
        if expected.and_then(Expected::version).is_some_and(|version| version != node.version) {
            Err(ErrorCode::BadVersion)
        } else {
            Ok(slot)
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (version {})", self.data, self.version)
    }
}

impl Node {
    fn has(&self, stat: &Stat) -> bool {
        stat.version == self.version
            && stat.aversion == self.aversion
            && stat.data_length as usize == data_len(&self.data)
            && stat.ephemeral_owner.is_some() == self.ephemeral
    }
}

/// Whether the model knows when there is such an error. Any other may come at any time and changes nothing.
pub(super) fn modelled(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoNode
            | ErrorCode::NodeExists
            | ErrorCode::NotEmpty
            | ErrorCode::BadVersion
            | ErrorCode::Present
            | ErrorCode::NoChildrenForEphemerals
    )
}

fn fits(outcome: &WriteOutcome, did: &[Did]) -> bool {
    let now =
        |did: Option<&Did>, stat: &Stat| did.is_some_and(|d| d.as_ref().is_some_and(|node| node.has(stat)));
    match outcome {
        WriteOutcome::Created { stat, .. } | WriteOutcome::Set { stat } | WriteOutcome::AclSet { stat } => {
            now(did.first(), stat)
        }
        WriteOutcome::Deleted => did == [None],
        WriteOutcome::Multi(outcomes) => {
            outcomes.len() == did.len()
                && outcomes.iter().zip(did).all(|(outcome, did)| match outcome {
                    MultiOutcome::Created { stat, .. }
                    | MultiOutcome::Set { stat }
                    | MultiOutcome::AclSet { stat } => now(Some(did), stat),
                    MultiOutcome::Deleted | MultiOutcome::Checked => did.is_none(),
                })
        }
        WriteOutcome::TreeDeleted { .. }
        | WriteOutcome::QuotaSet(_)
        | WriteOutcome::SessionOpened
        | WriteOutcome::SessionResumed
        | WriteOutcome::SessionClosed { .. }
        | WriteOutcome::Checked => false,
    }
}

fn fails_like(error: &OpError, (index, code): Failed) -> bool {
    let part = match error {
        OpError::Multi { index, .. } => *index as usize,
        _ => 0,
    };
    error.code() == code && part == index
}

//! Walks through subtrees, one part for each request.

use api::{
    Identities,
    walk::{WalkAsk, WalkId},
};

use super::*;

/// Maximum number of running walks on a node: each may save some megabytes of old versions.
const WALKS_MAX: usize = 16;
/// A walk ends after this time without a request.
const IDLE: Duration = Duration::from_secs(10);
/// After this time without a request a walk gives way to a new one, if there is no other place: so a
/// client cannot keep all places by a request now and then.
const GIVES_WAY: Duration = Duration::from_secs(1);
/// Maximum number of znodes that one part visits, and its approximate size in bytes: other requests
/// wait in the meantime.
const PART: (usize, usize) = (1_000, 256 << 10);

/// Running walks, by the time of their last request.
#[derive(Default, Debug)]
pub(super) struct Walks {
    last: BTreeMap<WalkId, Time>,
    /// Number of the last walk.
    number: u64,
}

impl Walks {
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.last.values().min().map(|last| *last + IDLE)
    }

    /// Drops all walks, because another state has replaced theirs.
    pub(super) fn forget(&mut self) {
        self.last.clear();
    }
}

impl Server {
    /// One step of a walk. Returns the zxid of its state.
    pub(super) fn walk(&mut self, ask: WalkAsk, caller: &Identities) -> (Zxid, Result<Outcome, OpError>) {
        let applied = self.state.applied();
        if matches!(ask, WalkAsk::Begin(..)) {
            self.make_place_for_walk();
        }
        let id = match ask {
            WalkAsk::Next(id) => id,
            WalkAsk::Begin(..) if self.walks.last.len() >= WALKS_MAX => {
                let error = OpError::LimitExceeded {
                    what: "walks of this node".to_owned(),
                    limit: WALKS_MAX as u64,
                    actual: WALKS_MAX as u64,
                    remedy: "walk at another node, or when others have come to their end".to_owned(),
                };
                return (applied, Err(error));
            }
            WalkAsk::Begin(walk, _) => {
                self.walks.number += 1;
                let id = WalkId(self.config.first_ticket.0.wrapping_add(self.walks.number));
                self.state.limit_walks(self.config.limits.walk_bytes);
                if let Err(error) = self.state.begin_walk(id, walk, caller) {
                    return (applied, Err(error));
                }
                id
            }
        };
        match self.state.walk_on(id, caller, PART) {
            Some(Ok(part)) => {
                match part.end {
                    Some(_) => self.walks.last.remove(&id),
                    None => self.walks.last.insert(id, self.now),
                };
                (part.zxid, Ok(Outcome::Walked(Box::new(part))))
            }
            Some(Err(error)) => {
                self.walks.last.remove(&id);
                (applied, Err(error))
            }
            None => (applied, Err(over())),
        }
    }

    /// Ends the walk that has waited longest for its next request, if all places are taken.
    fn make_place_for_walk(&mut self) {
        if self.walks.last.len() < WALKS_MAX {
            return;
        }
        let longest = self.walks.last.iter().min_by_key(|(_, last)| **last).map(|(id, last)| (*id, *last));
        if let Some((id, _)) = longest.filter(|(_, last)| self.now >= *last + GIVES_WAY) {
            self.walks.last.remove(&id);
            self.state.end_walk(id);
        }
    }

    /// Ends idle walks.
    pub(super) fn end_idle_walks(&mut self) {
        let idle = |last: &Time| self.now >= *last + IDLE;
        let ids: Vec<WalkId> =
            self.walks.last.iter().filter(|(_, last)| idle(last)).map(|(id, _)| *id).collect();
        for id in ids {
            self.walks.last.remove(&id);
            self.state.end_walk(id);
        }
    }
}

fn over() -> OpError {
    OpError::Unavailable(
        "the walk is over: its next part was not requested for some seconds, or for one second while others waited for its place, or the node has loaded another state; begin it again".to_owned(),
    )
}

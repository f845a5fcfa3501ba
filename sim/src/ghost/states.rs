//! The state behind each entry of C, and the states of the stores.

use std::collections::BTreeSet;

use api::{
    Command, CommandBody, NodeKind, OpError, Path, PeerId, Stat, WriteNumber, WriteResult, Zxid, record,
};
use proto::store::{decode_record, encode_record};
use store_core::State;

use super::Ghost;

/// Number of commits after which the whole state is encoded and loaded again.
const ENCODED_EVERY: usize = 64;

/// A bit flipped in the state of a store.
#[derive(Debug)]
pub(super) struct Flip {
    /// The last entry that the store had applied.
    behind: Zxid,
    /// The first entry behind which its state was that of C again.
    healed: Option<Zxid>,
}

/// The checks in C.
#[derive(Default, Debug)]
pub(super) struct Checks {
    last: Zxid,
    /// Those by which a store compares its state: each with the entry behind which it tells the digest.
    compared: Vec<(Zxid, Zxid)>,
}

impl Checks {
    /// A check is committed. A store keeps one digest, behind the last check: it compares only if this check tells that one. After a
    /// change of the leader two checks may tell the digest behind the same one, and no store compares at the second.
    fn committed(&mut self, zxid: Zxid, of: Zxid) {
        if of == self.last {
            self.compared.push((zxid, of));
        }
        self.last = zxid;
    }

    /// A check by which a store that has applied `zxid` has found that its state changed behind `behind`.
    fn shows(&self, behind: Zxid, zxid: Zxid) -> Option<(Zxid, Zxid)> {
        self.compared.iter().copied().find(|&(check, of)| of > behind && check <= zxid)
    }
}

impl Ghost {
    pub(super) fn apply(&mut self, zxid: Zxid, time_ms: i64, command: &Command) {
        let before = match command.body {
            CommandBody::CloseSession { session, expired: Some(_) } => self.state.session(session),
            _ => None,
        };
        let reaped = match &command.body {
            CommandBody::Reap { path, .. } => self.znode(path).map(|stat| (path, stat)),
            _ => None,
        };
        let applied = self.state.apply(zxid, time_ms, command);
        if let Some((path, stat)) = reaped
            && self.znode(path).is_none()
        {
            self.check_reaped(zxid, time_ms, path, &stat);
        }
        self.check_stream(zxid, command, &applied.result);
        if self.committed.len().is_multiple_of(ENCODED_EVERY) {
            self.check_encoding();
        }
        match command.body {
            CommandBody::Check { of, digest } => self.check_digest(zxid, of, digest),
            CommandBody::CloseSession { session, .. } if self.state.session(session).is_none() => {
                before.into_iter().for_each(|info| self.expired(session, info.timeout_ms));
                let left = self.state.tree().ephemerals(session).count();
                self.check(left == 0, "I16 ephemerals", || {
                    format!("{left} ephemerals of session {session} are left after its close at {zxid}")
                });
            }
            _ => {}
        }
    }

    /// A check in the log says that the state of its leader had this digest behind `of` (I15).
    fn check_digest(&mut self, zxid: Zxid, of: Zxid, digest: u64) {
        self.checks.committed(zxid, of);
        let Some(place) = self.ledger.place(of) else { return };
        let ours = self.digests[place];
        self.check(ours == digest, "I15 state determinism", || {
            format!("the check {zxid} says {digest:#x} of {of}, not {ours:#x}")
        });
    }

    fn znode(&self, path: &Path) -> Option<Stat> {
        self.state.tree().stat(path)
    }

    /// What goes by itself has no children, and its time is over (C14).
    fn check_reaped(&mut self, zxid: Zxid, time_ms: i64, path: &Path, stat: &Stat) {
        let unused_ms = self.container_unused_ms;
        let over = stat.num_children == 0
            && match stat.kind {
                NodeKind::Ttl { ms } => time_ms - stat.mtime_ms > ms as i64,
                // Children count twice: when they come and when they go.
                NodeKind::Container if stat.cversion > 1 => true,
                NodeKind::Container => unused_ms > 0 && time_ms - stat.ctime_ms > unused_ms as i64,
                NodeKind::Persistent | NodeKind::Ephemeral => false,
            };
        self.reaped += 1;
        self.check(over, "C14 reaped in time", || format!("{zxid} at {time_ms} ms removes {path}: {stat:?}"));
    }

    /// A znode that should be gone by itself, if there is one (C14). `wall_ms`: what the slowest clock of a node shows.
    pub(crate) fn overdue(&self, wall_ms: i64) -> Option<Path> {
        let last = self.committed.last()?;
        // The time of the log goes on between two entries, and faster clocks do not matter. It stands still while the leader's clock
        // is behind it, as after a jump back.
        let between = last.time_ms + (self.now.saturating_sub(self.committed_at) / 1_000) as i64;
        let time_ms = between.min(wall_ms).max(last.time_ms);
        let znodes: Vec<_> = self.state.tree().records().collect();
        let parents: BTreeSet<_> = znodes.iter().filter_map(|znode| znode.path.parent()).collect();
        let unused_ms = self.container_unused_ms as i64;
        let overdue = |znode: &record::Znode| match znode.kind {
            NodeKind::Ttl { ms } => time_ms - znode.mtime_ms > ms as i64,
            NodeKind::Container if znode.creates > 0 => true,
            NodeKind::Container => unused_ms > 0 && time_ms - znode.ctime_ms > unused_ms,
            NodeKind::Persistent | NodeKind::Ephemeral => false,
        };
        znodes.into_iter().filter(overdue).map(|znode| znode.path).find(|path| !parents.contains(path))
    }

    /// Behind the entry with which a session was taken up, nothing of its other streams is carried out (C12).
    fn check_stream(&mut self, zxid: Zxid, command: &Command, result: &WriteResult) {
        if let CommandBody::ResumeSession { session, stream } = command.body {
            self.streams.insert(session, stream);
        }
        let Some(session) = command.session else { return };
        let newest = self.streams.get(&session).copied().unwrap_or_default();
        let refused = matches!(result, Err(OpError::SessionMoved(_) | OpError::SessionExpired(_)));
        self.check(command.stream == newest || refused, "C12 one stream speaks for a session", || {
            format!(
                "{zxid} came on the stream {:?} of session {session}, which was taken up on {newest:?} before, and is \
                 carried out with {result:?}",
                command.stream
            )
        });
    }

    /// Every state can be kept, sent, and loaded again (I17).
    fn check_encoding(&mut self) {
        let records = self.state.records().map(|record| decode_record(encode_record(record).into()));
        let loaded = records.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string());
        let loaded = loaded.and_then(|records| State::load(records).map_err(|e| e.to_string()));
        let zxid = self.state.applied();
        let same = loaded.as_ref().is_ok_and(|state| state.records().eq(self.state.records()));
        self.check(same, "I17 every state can be kept", || {
            let why = loaded.err().unwrap_or_else(|| "it is another one".into());
            format!("the state at {zxid} does not come back from its records: {why}")
        });
    }

    /// Another user of a session has used a number of its client's for a request of its own, and was answered (C13).
    pub(crate) fn bound_to_its_request<T: std::fmt::Debug>(
        &mut self,
        number: WriteNumber,
        own: bool,
        answer: &T,
    ) {
        self.check(own, "C13 a number is bound to its request", || {
            format!(
                "a request with the number {} was answered with what came of another: {answer:?}",
                number.0
            )
        });
    }

    /// Whether a bit may flip in the state of a store: once before the next check that shows it.
    pub(crate) fn may_flip(&self, node: PeerId) -> bool {
        !self.flips.contains_key(&node)
    }

    /// Whether a bit of the state of a store is another one than in C.
    pub(crate) fn is_flipped(&self, node: PeerId) -> bool {
        self.flips.get(&node).is_some_and(|flip| flip.healed.is_none())
    }

    /// A bit has flipped in the state of a store that has applied this.
    pub(crate) fn flipped(&mut self, node: PeerId, behind: Zxid) {
        self.flips.insert(node, Flip { behind, healed: None });
    }

    /// The store of a node has this state (I3, I4, I15).
    pub(crate) fn applied(&mut self, node: PeerId, state: &State) {
        let zxid = state.applied();
        if zxid == Zxid::ZERO {
            return;
        }
        let Some(place) = self.ledger.place(zxid) else {
            return self.fail(
                "I4 agreement",
                format!("the store of node {node} has {zxid}, which is not committed"),
            );
        };
        let (ours, theirs) = (self.digests[place], state.digest());
        let Some(flip) = self.flips.get_mut(&node).filter(|flip| flip.healed.is_none()) else {
            return self.check(ours == theirs, "I15 state determinism", || {
                format!("at {zxid} the digest on node {node} is {theirs:#x}, not {ours:#x}")
            });
        };
        if ours == theirs {
            flip.healed = Some(zxid);
            return;
        }
        // The store compared what it had behind `of` when it applied the check.
        let missed = self.checks.shows(flip.behind, zxid);
        let what = missed.map(|(check, of)| {
            format!("node {node} goes on with another state, which the check {check} of {of} shows")
        });
        self.check(what.is_none(), "I15 a state that differs is found", || what.unwrap_or_default());
    }

    /// The store of a node has found that its state behind `at` was not the leader's, and throws it away (I15).
    pub(crate) fn diverged(&mut self, node: PeerId, at: Zxid, own: u64, leaders: u64) {
        let flip = self.flips.remove(&node);
        let holds = flip.is_some_and(|flip| at > flip.behind && flip.healed.is_none_or(|healed| at < healed));
        self.check(holds, "I15 state determinism", || {
            format!("behind {at} the digest of node {node} is {own:#x}, the leader's {leaders:#x}")
        });
    }
}

#[cfg(test)]
mod tests {
    use api::Epoch;

    use super::*;

    /// Found by seed 225 under `ConfirmedWithoutRound`.
    #[test]
    fn a_store_compares_only_at_a_check_that_follows_the_one_whose_digest_it_tells() {
        let at = |counter| Zxid::new(Epoch(3), counter);
        let mut checks = Checks::default();
        checks.committed(at(10), Zxid::ZERO);
        // Two leaders, and neither had applied the check of the other.
        checks.committed(at(20), at(10));
        checks.committed(at(30), at(10));
        checks.committed(at(40), at(20));
        checks.committed(at(50), at(40));
        assert_eq!(checks.shows(at(5), at(20)), Some((at(20), at(10))));
        // What changed behind 10 is in the digests behind 20 and 30. No check tells the latter, and a store has forgotten the former.
        assert_eq!(checks.shows(at(15), at(49)), None);
        assert_eq!(checks.shows(at(15), at(50)), Some((at(50), at(40))));
        assert_eq!(checks.shows(at(45), at(60)), None);
    }
}

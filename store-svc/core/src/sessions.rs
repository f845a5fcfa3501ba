//! The replicated part of sessions: who is open, and the results that make a write that is sent again harmless.

use std::collections::{BTreeMap, VecDeque};

use api::mutants::{Mutant, is_on};
use api::{
    MultiOutcome, OpError, SessionId, SessionToken, WriteNumber, WriteOutcome, WriteResult, Zxid, record,
};

use crate::digest;

/// Most results that are kept for one session. A client that does not acknowledge what it received cannot write on.
pub const KEPT_RESULTS_MAX: usize = 65_536;

/// Most bytes that the kept results of one session may take, as counted by their rough size in memory.
pub const KEPT_BYTES_MAX: usize = 16 << 20;

/// All open sessions of the ensemble.
#[derive(Default, Debug)]
pub(crate) struct Sessions {
    map: BTreeMap<SessionId, Session>,
    digest: u64,
    /// Changed since the last `take_dirty`. A session may be here twice after it was closed.
    dirty: Vec<SessionId>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Session {
    token: SessionToken,
    timeout_ms: u32,
    acked: WriteNumber,
    /// Of the writes `acked + 1 ..`, in order.
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// What the session adds to the digest, without its kept results.
    hash: u64,
    /// Whether it is in `Sessions::dirty`.
    dirty: bool,
}

#[derive(Debug)]
struct Kept {
    zxid: Zxid,
    result: WriteResult,
    bytes: usize,
    hash: u64,
}

/// Whether a write of a session may be carried out.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// It is due. If it was numbered, its result must be [kept](Sessions::keep).
    Due,
    /// It was carried out before, with this result.
    Again { zxid: Zxid, result: WriteResult },
    /// It must not be.
    Refused(OpError),
}

/// What a node needs to know of a session to let a client take it up again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its secret.
    pub token: SessionToken,
    /// After so much silence the leader closes it.
    pub timeout_ms: u32,
}

impl Sessions {
    pub(crate) fn open(&mut self, id: SessionId, token: SessionToken, timeout_ms: u32) {
        self.insert(id, token, timeout_ms, WriteNumber(0));
    }

    /// False if there is no such session.
    pub(crate) fn close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.map.remove(&id) else { return false };
        let kept = session.kept.iter().fold(0u64, |sum, k| sum.wrapping_add(k.hash));
        self.digest = self.digest.wrapping_sub(session.hash).wrapping_sub(kept);
        if !session.dirty {
            self.dirty.push(id);
        }
        true
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<SessionInfo> {
        self.map.get(&id).map(|s| SessionInfo { token: s.token, timeout_ms: s.timeout_ms })
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, SessionInfo)> + '_ {
        self.map.iter().map(|(&id, s)| (id, SessionInfo { token: s.token, timeout_ms: s.timeout_ms }))
    }

    /// Forgets what the client has `acked`, then decides about the write with this `number`.
    pub(crate) fn admit(
        &mut self,
        id: SessionId,
        acked: WriteNumber,
        number: Option<WriteNumber>,
    ) -> Admission {
        let Some(session) = self.map.get_mut(&id) else {
            return Admission::Refused(OpError::SessionExpired(id));
        };
        let acked = acked.min(session.last());
        if acked > session.acked {
            let gone = (acked.0 - session.acked.0) as usize;
            for kept in session.kept.drain(..gone) {
                session.kept_bytes -= kept.bytes;
                self.digest = self.digest.wrapping_sub(kept.hash);
            }
            session.acked = acked;
            session.rehash(id, &mut self.digest);
            if !is_on(Mutant::CheckpointIncomplete) {
                session.mark(id, &mut self.dirty);
            }
        }
        let Some(number) = number else { return Admission::Due };
        let due = WriteNumber(session.last().0 + 1);
        if number <= session.acked {
            return Admission::Refused(OpError::BadArguments(format!(
                "write {} of the session was already acknowledged, so its result is forgotten; do not send it again",
                number.0
            )));
        }
        if number < due && !is_on(Mutant::ReplayedTwice) {
            return match session.kept.get((number.0 - session.acked.0 - 1) as usize) {
                Some(kept) => Admission::Again { zxid: kept.zxid, result: kept.result.clone() },
                None => Admission::Refused(OpError::Internal(format!("no result of write {}", number.0))),
            };
        }
        if number > due {
            return Admission::Refused(OpError::OutOfOrder { expected: due, got: number });
        }
        if session.kept.len() >= KEPT_RESULTS_MAX || session.kept_bytes >= KEPT_BYTES_MAX {
            return Admission::Refused(OpError::Overloaded(format!(
                "the session has {} results that its client has not acknowledged; send acked_write with the number \
                 of the last write whose result arrived, then send this write again",
                session.kept.len()
            )));
        }
        Admission::Due
    }

    /// Keeps the result of the numbered write that was admitted last.
    pub(crate) fn keep(&mut self, id: SessionId, zxid: Zxid, result: WriteResult) {
        let Some(session) = self.map.get_mut(&id) else { return };
        let number = WriteNumber(session.last().0 + 1);
        let hash = digest::result(&mut self.scratch, id, number, zxid, &result);
        self.digest = self.digest.wrapping_add(hash);
        let bytes = size_of(&result);
        session.kept_bytes += bytes;
        session.kept.push_back(Kept { zxid, result, bytes, hash });
        session.mark(id, &mut self.dirty);
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn recompute_digest(&self) -> u64 {
        let mut scratch = Vec::new();
        let mut sum = 0u64;
        for (&id, s) in &self.map {
            sum = sum.wrapping_add(digest::session(id, &s.token, s.timeout_ms, s.acked));
            for (number, kept) in (s.acked.0 + 1..).zip(&s.kept) {
                let hash = digest::result(&mut scratch, id, WriteNumber(number), kept.zxid, &kept.result);
                sum = sum.wrapping_add(hash);
            }
        }
        sum
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = record::Session> + '_ {
        self.map.iter().map(|(&id, s)| s.record(id))
    }

    pub(crate) fn take_dirty(&mut self) -> Vec<(SessionId, Option<record::Session>)> {
        let mut changes = Vec::with_capacity(self.dirty.len());
        for id in std::mem::take(&mut self.dirty) {
            match self.map.get_mut(&id) {
                None => changes.push((id, None)),
                Some(session) if session.dirty => {
                    session.dirty = false;
                    changes.push((id, Some(session.record(id))));
                }
                Some(_) => {}
            }
        }
        changes
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Takes in one record of a complete state. False if there is a session of this id already.
    pub(crate) fn load(&mut self, record: record::Session) -> bool {
        if self.map.contains_key(&record.id) {
            return false;
        }
        self.insert(record.id, record.token, record.timeout_ms, record.acked);
        for kept in record.results {
            self.keep(record.id, kept.zxid, kept.result);
        }
        if let Some(session) = self.map.get_mut(&record.id) {
            session.dirty = false;
        }
        self.dirty.clear();
        true
    }

    fn insert(&mut self, id: SessionId, token: SessionToken, timeout_ms: u32, acked: WriteNumber) {
        let kept = VecDeque::new();
        let mut session = Session { token, timeout_ms, acked, kept, kept_bytes: 0, hash: 0, dirty: false };
        session.rehash(id, &mut self.digest);
        session.mark(id, &mut self.dirty);
        self.map.insert(id, session);
    }
}

impl Session {
    /// The last write that was carried out.
    fn last(&self) -> WriteNumber {
        WriteNumber(self.acked.0 + self.kept.len() as u64)
    }

    fn record(&self, id: SessionId) -> record::Session {
        record::Session {
            id,
            token: self.token,
            timeout_ms: self.timeout_ms,
            acked: self.acked,
            results: self
                .kept
                .iter()
                .map(|k| record::KeptResult { zxid: k.zxid, result: k.result.clone() })
                .collect(),
        }
    }

    fn rehash(&mut self, id: SessionId, digest: &mut u64) {
        let old = self.hash;
        self.hash = digest::session(id, &self.token, self.timeout_ms, self.acked);
        *digest = digest.wrapping_sub(old).wrapping_add(self.hash);
    }

    fn mark(&mut self, id: SessionId, dirty: &mut Vec<SessionId>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(id);
        }
    }
}

/// A result's rough size in memory. Part of the state machine, since [`KEPT_BYTES_MAX`] decides about writes: the
/// same on every node, whatever its word size.
fn size_of(result: &WriteResult) -> usize {
    const FIXED: usize = 192;
    match result {
        Ok(WriteOutcome::Created { path, .. }) => FIXED + path.as_str().len(),
        Ok(WriteOutcome::Multi(parts)) => parts.iter().fold(FIXED, |sum, part| match part {
            MultiOutcome::Created { path, .. } => sum + FIXED + path.as_str().len(),
            _ => sum + FIXED,
        }),
        Ok(_) => FIXED,
        // Two paths at most, or a short text.
        Err(_) => 2 * FIXED,
    }
}

//! The replicated part of sessions: the open sessions, and the results that make repeated writes idempotent.

use std::collections::{BTreeMap, VecDeque};

use api::mutants::{Mutant, is_on};
use api::{
    CommandBody, Identities, OpError, RequestHash, SessionId, SessionToken, StreamId, TokenHash, WriteNumber,
    WriteResult, Zxid, record,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{digest, kept, state::RECORD};

/// Maximum total cost of the kept results of one session, in bytes. A client that does not acknowledge
/// its results cannot write further. A result costs a fixed 64 bytes plus its encoded size.
pub const KEPT_BYTES_MAX: usize = 4 << 20;

/// Each session may keep results up to this many bytes on its own. Further results use [`KEPT_POOL`].
pub const KEPT_RESERVE: usize = 1 << 10;

/// Maximum total size that all sessions may keep beyond their [`KEPT_RESERVE`]. So clients that
/// acknowledge nothing can slow others down to the writes that fit into the reserve, but cannot stop
/// them.
pub const KEPT_POOL: usize = 32 << 20;

/// All open sessions of the ensemble.
#[derive(Default, Debug)]
pub(crate) struct Sessions {
    map: BTreeMap<SessionId, Session>,
    /// Used part of [`KEPT_POOL`].
    pool_used: usize,
    digest: u64,
    dirty: Dirty,
}

/// The changes since the last checkpoint.
#[derive(Default, Debug)]
struct Dirty {
    /// Everything counts as changed, and the lists stay empty: all sessions are marked as listed.
    untracked: bool,
    /// A session may occur twice after it was closed.
    sessions: Vec<SessionId>,
    /// Results in the checkpoint that belong to closed sessions.
    gone: Vec<(SessionId, Stored)>,
    /// Number of results to be written or removed.
    results: usize,
}

impl Dirty {
    /// The results of a session up to `last` are dropped. Those in the checkpoint have to be removed;
    /// the others need not be written any more.
    fn forget(&mut self, session: &Session, last: WriteNumber) {
        let (acked, last) = (session.acked.0, last.0);
        let stored = session.stored.to.clamp(acked, last);
        self.results += (stored - acked) as usize;
        self.results = self.results.saturating_sub((last - stored) as usize);
    }
}

#[derive(Debug)]
struct Session {
    token_hash: TokenHash,
    owner: Identities,
    timeout_ms: u32,
    stream: StreamId,
    acked: WriteNumber,
    /// Results of the writes `acked + 1 ..`, in order.
    kept: VecDeque<Kept>,
    /// Their total cost.
    bytes: usize,
    /// The session's contribution to the digest, without its kept results.
    hash: u64,
    /// Whether it is in `Dirty::sessions`.
    dirty: bool,
    stored: Stored,
}

/// Numbers of the results in the last checkpoint: greater than `after`, up to `to`.
#[derive(Clone, Copy, Default, Debug)]
struct Stored {
    after: u64,
    to: u64,
}

#[derive(Debug)]
struct Kept {
    zxid: Zxid,
    request: RequestHash,
    outcome: Bytes,
    hash: u64,
}

impl Kept {
    fn cost(&self) -> usize {
        kept::COST + self.outcome.len()
    }

    fn record(&self, session: SessionId, number: WriteNumber) -> record::KeptResult {
        let Kept { zxid, request, outcome, .. } = self;
        record::KeptResult { session, number, zxid: *zxid, request: *request, outcome: outcome.clone() }
    }
}

/// The decision whether a write of a session may be applied.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// It is the next write. If it is numbered, its result must be [kept](Sessions::keep).
    Due,
    /// It was applied before, with this result.
    Again { zxid: Zxid, result: WriteResult },
    /// It must not be applied.
    Refused(OpError),
}

/// The information that a node needs to let a client resume a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Hash of the session's secret.
    pub token_hash: TokenHash,
    /// Identities that opened the session.
    pub owner: Identities,
    /// Timeout after which the leader closes a silent session.
    pub timeout_ms: u32,
    /// The stream that resumed it last.
    pub stream: StreamId,
    /// Its last applied write.
    pub last_write: WriteNumber,
}

impl SessionInfo {
    /// Whether a client with this secret and these identities may resume the session. The secret must
    /// be the same, and the identities must include those that opened it; the client may have proven
    /// more since.
    #[must_use]
    pub fn admits(&self, token: &SessionToken, identities: &Identities) -> bool {
        (same(&self.token_hash, &hash_of(token)) || is_on(Mutant::TokenUnchecked))
            && (identities.include(&self.owner) || is_on(Mutant::OwnerUnchecked))
    }
}

/// The stored hash of a secret.
#[must_use]
pub fn hash_of(token: &SessionToken) -> TokenHash {
    TokenHash(Sha256::digest(token.0).into())
}

/// Constant time: independent of the position of the difference.
fn same(a: &TokenHash, b: &TokenHash) -> bool {
    a.0.iter().zip(&b.0).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

/// Changes of sessions and of kept results, `None` for removed ones.
pub(crate) type Changed =
    (Vec<(SessionId, Option<record::Session>)>, Vec<((SessionId, WriteNumber), Option<record::KeptResult>)>);

impl Sessions {
    pub(crate) fn open(&mut self, id: SessionId, token_hash: TokenHash, owner: Identities, timeout_ms: u32) {
        let (stream, acked) = (StreamId::FIRST, WriteNumber(0));
        self.insert(record::Session { id, token_hash, owner, timeout_ms, stream, acked });
    }

    /// Returns false if the session does not exist.
    pub(crate) fn resume(&mut self, id: SessionId, stream: StreamId) -> bool {
        let Some(session) = self.map.get_mut(&id) else { return false };
        session.stream = stream;
        session.rehash(id, &mut self.digest);
        session.mark(id, &mut self.dirty);
        true
    }

    /// Returns false if the session does not exist.
    pub(crate) fn close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.map.remove(&id) else { return false };
        let kept = session.kept.iter().fold(0u64, |sum, k| sum.wrapping_add(k.hash));
        self.digest = self.digest.wrapping_sub(session.hash).wrapping_sub(kept);
        self.pool_used -= session.pooled();
        if !session.dirty {
            self.dirty.sessions.push(id);
        }
        self.dirty.forget(&session, session.last());
        let stored = session.stored;
        if stored.to > stored.after {
            self.dirty.gone.push((id, stored));
        }
        true
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<SessionInfo> {
        self.map.get(&id).map(Session::info)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, SessionInfo)> + '_ {
        self.map.iter().map(|(&id, s)| (id, s.info()))
    }

    /// Whether the write with this number was applied.
    pub(crate) fn has_written(&self, id: SessionId, number: WriteNumber) -> bool {
        self.map.get(&id).is_some_and(|session| number <= session.last())
    }

    /// The error for requests on this stream, if it is not the newest of its session.
    pub(crate) fn moved(&self, id: SessionId, stream: StreamId) -> Option<OpError> {
        let moved = self.map.get(&id).is_some_and(|session| session.stream != stream);
        (moved && !is_on(Mutant::MovedWriteApplied)).then_some(OpError::SessionMoved(id))
    }

    /// Drops the results that the client has `acked`, then decides about the write with this `number`.
    pub(crate) fn admit(
        &mut self,
        id: SessionId,
        acked: WriteNumber,
        number: Option<WriteNumber>,
        body: &CommandBody,
    ) -> Admission {
        let Some(session) = self.map.get_mut(&id) else {
            return Admission::Refused(OpError::SessionExpired(id));
        };
        let acked = acked.min(session.last());
        if acked > session.acked {
            let before = session.pooled();
            for kept in session.kept.drain(..(acked.0 - session.acked.0) as usize) {
                session.bytes -= kept.cost();
                self.digest = self.digest.wrapping_sub(kept.hash);
            }
            self.pool_used -= before - session.pooled();
            self.dirty.forget(session, acked);
            session.acked = acked;
            session.rehash(id, &mut self.digest);
            if !is_on(Mutant::CheckpointIncomplete) {
                session.mark(id, &mut self.dirty);
            }
        }
        let Some(number) = number else { return Admission::Due };
        let due = WriteNumber(session.last().0 + 1);
        if number > due {
            return Admission::Refused(OpError::OutOfOrder { expected: due, got: number });
        }
        if number < due && !is_on(Mutant::ReplayedTwice) {
            let place = number.0.checked_sub(session.acked.0 + 1);
            return match place.and_then(|place| session.kept.get(place as usize)) {
                Some(kept)
                    if kept.request == digest::request(body) || is_on(Mutant::ReusedNumberAnswered) =>
                {
                    Admission::Again {
                        zxid: kept.zxid,
                        result: kept::decode(id, kept.zxid, body, &kept.outcome),
                    }
                }
                Some(_) => Admission::Refused(OpError::NumberReused(number)),
                None => Admission::Refused(OpError::ResultForgotten(number)),
            };
        }
        let after = session.bytes + kept::cost_max(body);
        let more_pooled = beyond_reserve(after) - session.pooled();
        if after > KEPT_BYTES_MAX || (more_pooled > 0 && self.pool_used + more_pooled > KEPT_POOL) {
            return Admission::Refused(OpError::Overloaded(format!(
                "the session keeps {} results in {} bytes that its client has not acknowledged, and all sessions keep {}, so \
                 this write was not carried out; send acked_write with the number of the last write whose result arrived, \
                 then send this write again under the same number",
                session.kept.len(),
                session.bytes,
                self.pool_used
            )));
        }
        Admission::Due
    }

    /// Keeps the result of the numbered write that was admitted last.
    pub(crate) fn keep(&mut self, id: SessionId, zxid: Zxid, body: &CommandBody, result: &WriteResult) {
        self.push(id, zxid, digest::request(body), kept::encode(body, result));
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn recompute_digest(&self) -> u64 {
        let mut sum = 0u64;
        for (&id, s) in &self.map {
            sum = sum.wrapping_add(digest::session(&s.record(id)));
            for (number, kept) in s.results() {
                sum = sum.wrapping_add(digest::result(&kept.record(id, number)));
            }
        }
        sum
    }

    /// All sessions, then all kept results, each in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = record::Record> + '_ {
        let sessions = self.map.iter().map(|(&id, s)| record::Record::Session(s.record(id)));
        let results = self.map.iter().flat_map(|(&id, s)| {
            s.results().map(move |(number, kept)| record::Record::Result(kept.record(id, number)))
        });
        sessions.chain(results)
    }

    pub(crate) fn take_dirty(&mut self) -> Changed {
        let Dirty { untracked, mut sessions, gone, results } = std::mem::take(&mut self.dirty);
        if untracked {
            sessions = self.map.keys().copied().collect();
        }
        let mut changes: Changed = (Vec::with_capacity(sessions.len()), Vec::with_capacity(results));
        let removed = |id, Stored { after, to }| (after + 1..=to).map(move |n| ((id, WriteNumber(n)), None));
        changes.1.extend(gone.into_iter().flat_map(|(id, stored)| removed(id, stored)));
        for id in sessions {
            match self.map.get_mut(&id) {
                None => changes.0.push((id, None)),
                Some(session) if session.dirty => {
                    let (acked, last, stored) = (session.acked.0, session.last().0, session.stored);
                    changes.1.extend(removed(id, Stored { after: stored.after, to: stored.to.min(acked) }));
                    let new = session.results().skip((stored.to.max(acked) - acked) as usize);
                    changes.1.extend(new.map(|(n, kept)| ((id, n), Some(kept.record(id, n)))));
                    changes.0.push((id, Some(session.record(id))));
                    session.dirty = false;
                    session.stored = Stored { after: acked, to: last };
                }
                Some(_) => {}
            }
        }
        changes
    }

    /// Marks everything as missing from the checkpoint.
    pub(crate) fn forget_checkpoint(&mut self) {
        let results = self.map.values().map(|session| session.kept.len()).sum();
        self.dirty = Dirty { untracked: true, results, ..Dirty::default() };
        for session in self.map.values_mut() {
            session.dirty = true;
            session.stored = Stored { after: session.acked.0, to: session.acked.0 };
        }
    }

    pub(crate) fn dirty_len(&self) -> usize {
        let sessions = if self.dirty.untracked { self.map.len() } else { self.dirty.sessions.len() };
        sessions + self.dirty.results
    }

    /// Approximate size of the records that [`Sessions::take_dirty`] would return. It is an upper
    /// bound: all results of a changed session count.
    pub(crate) fn dirty_bytes(&self) -> usize {
        if self.dirty.untracked {
            return self.record_bytes();
        }
        let removed = |Stored { after, to }: Stored| to.saturating_sub(after) as usize * RECORD;
        let gone: usize = self.dirty.gone.iter().map(|&(_, stored)| removed(stored)).sum();
        let changed = |session: &Session| {
            let Stored { after, to } = session.stored;
            session.bytes + session.owner.weight() + removed(Stored { after, to: to.min(session.acked.0) })
        };
        let sessions = self.dirty.sessions.iter();
        gone + sessions.map(|id| RECORD + self.map.get(id).map_or(0, changed)).sum::<usize>()
    }

    /// The same for all records.
    pub(crate) fn record_bytes(&self) -> usize {
        self.map.values().map(|session| RECORD + session.owner.weight() + session.bytes).sum()
    }

    /// Adds one record of a complete state. Returns false if a session with this id exists already.
    pub(crate) fn load(&mut self, record: record::Session) -> bool {
        let new = !self.map.contains_key(&record.id);
        if new {
            self.insert(record);
        }
        new
    }

    /// Adds the next kept result of an existing session. Returns false if it is not the next.
    pub(crate) fn load_result(&mut self, record: record::KeptResult) -> bool {
        let record::KeptResult { session, number, zxid, request, outcome } = record;
        let next = self.map.get(&session).is_some_and(|s| s.last().0 + 1 == number.0);
        if next {
            // Copied, because it may be a slice of a much larger buffer.
            self.push(session, zxid, request, Bytes::copy_from_slice(&outcome));
        }
        next
    }

    /// Marks the loaded content as the content of the checkpoint.
    pub(crate) fn finish_load(&mut self) {
        self.dirty = Dirty::default();
        for session in self.map.values_mut() {
            session.dirty = false;
            session.stored = Stored { after: session.acked.0, to: session.last().0 };
        }
    }

    fn push(&mut self, id: SessionId, zxid: Zxid, request: RequestHash, outcome: Bytes) {
        let Some(session) = self.map.get_mut(&id) else { return };
        let mut kept = Kept { zxid, request, outcome, hash: 0 };
        kept.hash = digest::result(&kept.record(id, WriteNumber(session.last().0 + 1)));
        self.digest = self.digest.wrapping_add(kept.hash);
        let before = session.pooled();
        session.bytes += kept.cost();
        self.pool_used += session.pooled() - before;
        session.kept.push_back(kept);
        session.mark(id, &mut self.dirty);
        self.dirty.results += 1;
    }

    fn insert(&mut self, record: record::Session) {
        let record::Session { id, token_hash, owner, timeout_ms, stream, acked } = record;
        let (kept, stored) = (VecDeque::new(), Stored { after: acked.0, to: acked.0 });
        let mut session = Session {
            token_hash,
            owner,
            timeout_ms,
            stream,
            acked,
            kept,
            bytes: 0,
            hash: 0,
            dirty: self.dirty.untracked,
            stored,
        };
        session.rehash(id, &mut self.digest);
        session.mark(id, &mut self.dirty);
        self.map.insert(id, session);
    }
}

impl Session {
    /// The last applied write.
    fn last(&self) -> WriteNumber {
        WriteNumber(self.acked.0 + self.kept.len() as u64)
    }

    fn results(&self) -> impl Iterator<Item = (WriteNumber, &Kept)> {
        (self.acked.0 + 1..).map(WriteNumber).zip(&self.kept)
    }

    fn pooled(&self) -> usize {
        beyond_reserve(self.bytes)
    }

    fn info(&self) -> SessionInfo {
        let Session { token_hash, timeout_ms, stream, .. } = *self;
        SessionInfo { token_hash, owner: self.owner.clone(), timeout_ms, stream, last_write: self.last() }
    }

    fn record(&self, id: SessionId) -> record::Session {
        let Session { token_hash, timeout_ms, stream, acked, .. } = *self;
        record::Session { id, token_hash, owner: self.owner.clone(), timeout_ms, stream, acked }
    }

    fn rehash(&mut self, id: SessionId, digest: &mut u64) {
        let old = self.hash;
        self.hash = digest::session(&self.record(id));
        *digest = digest.wrapping_sub(old).wrapping_add(self.hash);
    }

    fn mark(&mut self, id: SessionId, dirty: &mut Dirty) {
        if !self.dirty {
            self.dirty = true;
            dirty.sessions.push(id);
        }
    }
}

fn beyond_reserve(bytes: usize) -> usize {
    bytes.saturating_sub(KEPT_RESERVE)
}

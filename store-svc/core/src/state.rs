//! The replicated state: a function of the log only.

use std::sync::Arc;

use api::mutants::{Mutant, is_on};
use api::{
    AclId, Command, CommandBody, Identities, Level, OpError, Path, Read, ReadOutcome, SessionId, WriteNumber,
    WriteOutcome, WriteResult, Zxid,
    record::{self, Record},
    walk::{Walk, WalkId, WalkPart},
    watch::Change,
};

use crate::{
    digest,
    sessions::{Admission, SessionInfo, Sessions},
    tree::{At, By, Loading, Tree},
};

/// Tree and sessions after one entry of the log.
#[derive(Default, Debug)]
pub struct State {
    tree: Tree,
    sessions: Sessions,
    applied: Zxid,
    time_ms: i64,
    /// The feature level in the log: the meaning of an entry may depend on it.
    level: Level,
    /// The checkpoint does not contain the state reliably: the next one has to be whole.
    whole: bool,
}

/// The result of a command.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Applied {
    /// The entry that applied it: an earlier one if the command was sent before.
    pub zxid: Zxid,
    /// The outcome.
    pub result: WriteResult,
}

/// The changes since the last checkpoint, with the current records; `None` for removed ones. Applied to
/// that checkpoint they give the state of `header`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// The changes are all records of the state: the rest of the checkpoint is obsolete.
    pub whole: bool,
    /// The header of the current state.
    pub header: record::Header,
    /// A removed path may occur more than once.
    pub znodes: Vec<(Path, Option<record::Znode>)>,
    /// A removed list may never have been in the checkpoint.
    pub acls: Vec<(AclId, Option<record::AccessList>)>,
    /// A removed session may occur more than once.
    pub sessions: Vec<(SessionId, Option<record::Session>)>,
    /// Results of sessions that still exist or are removed as well.
    pub results: Vec<((SessionId, WriteNumber), Option<record::KeptResult>)>,
}

/// Why records do not form a state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// There is no header to verify the records.
    #[error("the header is missing")]
    NoHeader,
    /// Two records for the same item.
    #[error("the record of {0} comes twice")]
    Twice(String),
    /// A znode without its parent.
    #[error("the parent of the znode {0} is missing")]
    NoParent(Path),
    /// An ephemeral without an owner, or an owner of a znode of another kind.
    #[error("the kind of the znode {0} and its owner do not fit together")]
    Owner(Path),
    /// A znode without its access list, or an access list without a znode.
    #[error("the access list {} is missing, or no znode has it", .0.0)]
    Acl(AclId),
    /// A kept result without its session, or a session without all of its results.
    #[error("a result of the session {0} is missing, or the session itself")]
    Results(SessionId),
    /// An ephemeral without its session.
    #[error("the session {0} is missing, but has ephemerals")]
    NoOwner(SessionId),
    /// The records do not match a total in the header.
    #[error("the records are not those of the header: {what} is {actual:#x}, not {expected:#x}")]
    Mismatch {
        /// The name of the total.
        what: &'static str,
        /// The value in the header.
        expected: u64,
        /// The counted value.
        actual: u64,
    },
}

impl State {
    /// The empty state. The hashes of paths depend on `seed`, which influences only the duration of
    /// operations. A server draws it at random, so that no client can choose paths with equal hashes.
    #[must_use]
    pub fn seeded(seed: u64) -> State {
        State { tree: Tree::seeded(seed), ..State::default() }
    }

    /// See [`State::seeded`].
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.tree.seed()
    }

    /// Applies the command of entry `zxid`, which follows [`State::applied`]. A failure is a result
    /// like any other and consumes its zxid too, as in ZooKeeper.
    pub fn apply(&mut self, zxid: Zxid, time_ms: i64, command: &Command) -> Applied {
        self.apply_marker(zxid, time_ms);
        let at = At { zxid, time_ms };
        let result = match (&command.body, command.session) {
            (CommandBody::OpenSession { sessions_max, .. }, _)
                if self.sessions.len() >= *sessions_max as usize =>
            {
                Err(OpError::Overloaded(format!(
                    "the ensemble has {} open sessions, and its limit is {sessions_max}; close unused sessions, let \
                     them expire, or raise `limits.sessions` on all nodes",
                    self.sessions.len()
                )))
            }
            (CommandBody::OpenSession { token_hash, timeout_ms, .. }, _) => {
                self.sessions.open(SessionId(zxid.0), *token_hash, command.identities.clone(), *timeout_ms);
                Ok(WriteOutcome::SessionOpened)
            }
            (CommandBody::ResumeSession { session, stream }, _) => {
                match self.sessions.resume(*session, *stream) {
                    true => Ok(WriteOutcome::SessionResumed),
                    false => Err(OpError::SessionExpired(*session)),
                }
            }
            (CommandBody::CloseSession { expired: Some(epoch), .. }, _)
                if *epoch != zxid.epoch() && !is_on(Mutant::CloseOutlivesReign) =>
            {
                Err(OpError::Unavailable("the leader that found the session silent leads no more".into()))
            }
            (CommandBody::CloseSession { session, .. }, asked_by) => {
                if let Some(error) = asked_by.and_then(|id| self.sessions.moved(id, command.stream)) {
                    Err(error)
                } else if is_on(Mutant::EphemeralsLeft) && self.sessions.close(*session) {
                    Ok(WriteOutcome::SessionClosed { ephemerals: 0 })
                } else if self.sessions.close(*session) {
                    Ok(WriteOutcome::SessionClosed { ephemerals: self.tree.remove_ephemerals(at, *session) })
                } else {
                    Err(OpError::SessionExpired(*session))
                }
            }
            (CommandBody::Check { .. }, _) => Ok(WriteOutcome::Checked),
            (CommandBody::Reap { path, czxid, unused_ms }, _) => {
                self.tree.reap(at, path, *czxid, *unused_ms).map(|()| WriteOutcome::Deleted)
            }
            (body, None) => self.write(at, command, body),
            (body, Some(session)) => match self.sessions.moved(session, command.stream) {
                Some(error) => Err(error),
                None => match self.sessions.admit(session, command.acked, command.number, body) {
                    Admission::Due => {
                        let result = self.write(at, command, body);
                        if command.number.is_some() {
                            self.sessions.keep(session, zxid, body, &result);
                        }
                        result
                    }
                    Admission::Again { zxid, result } => return Applied { zxid, result },
                    Admission::Refused(error) => Err(error),
                },
            },
        };
        Applied { zxid, result }
    }

    /// Applies an entry without changes: the marker of an epoch.
    pub fn apply_marker(&mut self, zxid: Zxid, time_ms: i64) {
        debug_assert!(zxid > self.applied, "{zxid} is not behind {}", self.applied);
        self.applied = zxid;
        self.time_ms = time_ms;
        self.tree.forget_changes();
    }

    /// The changes of the last entry to znodes, in order. They are not part of the state.
    pub fn take_changes(&mut self) -> Vec<Arc<Change>> {
        self.tree.take_changes()
    }

    /// Leader's time of the last entry, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Applies an entry that sets the feature level.
    pub fn apply_level(&mut self, zxid: Zxid, time_ms: i64, level: Level) {
        self.apply_marker(zxid, time_ms);
        self.level = level;
    }

    /// Reads as an anonymous caller.
    ///
    /// # Errors
    /// As [`State::read_as`].
    pub fn read(&self, read: &Read) -> Result<ReadOutcome, OpError> {
        self.read_as(read, &Identities::NONE)
    }

    /// Reads as this caller.
    ///
    /// # Errors
    /// [`OpError::NoNode`], except for [`Read::Exists`], and [`OpError::NoAuth`].
    pub fn read_as(&self, read: &Read, identities: &Identities) -> Result<ReadOutcome, OpError> {
        self.tree.read(read, identities)
    }

    /// The last applied entry.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// The current feature level of the log.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The sum of the hashes of all znodes, access lists, sessions and kept results, and of the feature
    /// level. Equal states have equal digests, independent of their history.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.tree.digest().wrapping_add(self.sessions.digest()).wrapping_add(digest::level(self.level))
    }

    /// The same as [`State::digest`], computed from scratch.
    #[must_use]
    pub fn recompute_digest(&self) -> u64 {
        let records = self.tree.recompute_digest().wrapping_add(self.sessions.recompute_digest());
        records.wrapping_add(digest::level(self.level))
    }

    /// The header of a checkpoint of this state.
    #[must_use]
    pub fn header(&self) -> record::Header {
        record::Header {
            applied: self.applied,
            digest: self.digest(),
            znodes: self.tree.len() as u64,
            sessions: self.sessions.len() as u64,
            time_ms: self.time_ms,
            level: self.level,
        }
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// An open session, or `None`.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<SessionInfo> {
        self.sessions.get(id)
    }

    /// Whether the write of a session with this number was applied.
    #[must_use]
    pub fn has_written(&self, session: SessionId, number: WriteNumber) -> bool {
        self.sessions.has_written(session, number)
    }

    /// All open sessions, in order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, SessionInfo)> + '_ {
        self.sessions.iter()
    }

    /// The complete state: the header first, access lists before znodes, parents before their children,
    /// sessions before their results.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::once(Record::Header(self.header()))
            .chain(self.tree.acls().map(Record::Acl))
            .chain(self.tree.records().map(Record::Znode))
            .chain(self.sessions.records())
    }

    /// Changes since the last call, or since the state was made or loaded; everything, if the checkpoint was
    /// [forgotten](State::forget_checkpoint).
    pub fn take_dirty(&mut self) -> Changes {
        let (sessions, results) = self.sessions.take_dirty();
        let whole = std::mem::take(&mut self.whole);
        let (acls, znodes) = (self.tree.take_dirty_acls(), self.tree.take_dirty());
        Changes { whole, header: self.header(), znodes, acls, sessions, results }
    }

    /// Begins an export of the complete state as of now, in parts, while the state changes. Returns all
    /// records except those of znodes, the header first. Ends a running export. With `checkpoint` the
    /// export becomes the next checkpoint, and changes are tracked from now on.
    pub fn begin_export(&mut self, checkpoint: bool) -> Vec<Record> {
        if checkpoint {
            self.whole = false;
            self.tree.forget_dirty();
            self.sessions.take_dirty();
        }
        self.tree.begin_export();
        let header = std::iter::once(Record::Header(self.header()));
        header.chain(self.tree.acls().map(Record::Acl)).chain(self.sessions.records()).collect()
    }

    /// The next znodes of the export, in any order, and whether more follow; `None` if no export is
    /// running, for example because a new state has replaced this one. Visits at most `most` znodes,
    /// and stops when their values reach `bytes`.
    pub fn export(&mut self, most: usize, bytes: usize) -> Option<(Vec<record::Znode>, bool)> {
        self.tree.export(most, bytes)
    }

    /// Cancels the export: it saves no old versions any more.
    pub fn end_export(&mut self) {
        self.tree.end_export();
    }

    /// Bounds what all walks together save, in bytes. A walk that exceeds it ends.
    pub(crate) fn limit_walks(&mut self, bytes: usize) {
        self.tree.limit_walks(bytes);
    }

    /// Begins a walk through the state as of now; see [`Tree`]'s walks.
    ///
    /// # Errors
    /// [`OpError::NoNode`], [`OpError::NoAuth`].
    pub(crate) fn begin_walk(&mut self, id: WalkId, walk: Walk, caller: &Identities) -> Result<(), OpError> {
        self.tree.begin_walk(id, self.applied, walk, caller)
    }

    /// The next part of a walk, `None` if the caller has no walk of this name.
    pub(crate) fn walk_on(
        &mut self,
        id: WalkId,
        caller: &Identities,
        bounds: (usize, usize),
    ) -> Option<Result<WalkPart, OpError>> {
        self.tree.walk_on(id, caller, bounds)
    }

    /// Ends this walk.
    pub(crate) fn end_walk(&mut self, id: WalkId) {
        self.tree.end_walk(id);
    }

    /// Marks the checkpoint as missing or unusable: the next [`State::take_dirty`] returns everything.
    /// Until then, tracking changes costs nothing.
    pub fn forget_checkpoint(&mut self) {
        self.whole = true;
        self.tree.forget_checkpoint();
        self.sessions.forget_checkpoint();
    }

    /// Whether the next [`State::take_dirty`] returns everything.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Approximate number of records that [`State::take_dirty`] would return.
    #[must_use]
    pub fn dirty_len(&self) -> usize {
        self.tree.dirty_len() + self.sessions.dirty_len()
    }

    /// Total bytes of the paths in these records. They are built for the call; larger values are shared with
    /// the tree.
    #[must_use]
    pub fn dirty_path_bytes(&self) -> usize {
        self.tree.dirty_path_bytes()
    }

    /// Approximate size of these records. Computing it takes about as long as [`State::take_dirty`].
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.tree.dirty_bytes() + self.sessions.dirty_bytes()
    }

    /// Approximate size of the records of the complete state.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.tree.record_bytes() + self.sessions.record_bytes()
    }

    /// Rebuilds a state from its records, in any order.
    ///
    /// # Errors
    /// The records do not fit together or do not match the header.
    pub fn load(records: impl IntoIterator<Item = Record>) -> Result<State, LoadError> {
        let mut loader = Loader::default();
        for record in records {
            loader.take(record)?;
        }
        loader.finish()
    }
}

/// Approximate size of a record besides path and value, and of a removal, in bytes.
pub(crate) const RECORD: usize = 128;

/// Rebuilds a state from records that arrive in pieces.
#[derive(Debug)]
pub struct Loader {
    header: Option<record::Header>,
    tree: Tree,
    loading: Loading,
    sessions: Sessions,
    /// Held until all sessions are loaded.
    results: Vec<record::KeptResult>,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader::seeded(0)
    }
}

impl Loader {
    /// Creates a loader for a state with this [seed](State::seeded).
    #[must_use]
    pub fn seeded(seed: u64) -> Loader {
        Loader {
            header: None,
            tree: Tree::without_root(seed),
            loading: Loading::default(),
            sessions: Sessions::default(),
            results: Vec::new(),
        }
    }

    /// Adds one record, in any order, at its final place.
    ///
    /// # Errors
    /// The record is a duplicate, or contradicts earlier records.
    pub fn take(&mut self, record: Record) -> Result<(), LoadError> {
        match record {
            Record::Header(header) => {
                self.tree.expect(header.znodes);
                match self.header.replace(header) {
                    None => Ok(()),
                    Some(_) => Err(LoadError::Twice("the header".into())),
                }
            }
            Record::Znode(znode) => self.tree.load(&mut self.loading, znode),
            Record::Acl(list) => self.tree.load_acl(list),
            Record::Session(session) => {
                let id = session.id;
                if self.sessions.load(session) {
                    Ok(())
                } else {
                    Err(LoadError::Twice(format!("session {id}")))
                }
            }
            Record::Result(result) => {
                self.results.push(result);
                Ok(())
            }
        }
    }

    /// Verifies that the state is complete.
    ///
    /// # Errors
    /// The records do not fit together or do not match the header.
    pub fn finish(mut self) -> Result<State, LoadError> {
        let header = self.header.ok_or(LoadError::NoHeader)?;
        self.tree.finish_load()?;
        self.results.sort_unstable_by_key(|result| (result.session, result.number));
        for pair in self.results.windows(2) {
            if pair[0].session == pair[1].session && pair[0].number == pair[1].number {
                let twice = format!("result of write {} of session {}", pair[0].number.0, pair[0].session);
                return Err(LoadError::Twice(twice));
            }
        }
        for result in self.results {
            let session = result.session;
            if !self.sessions.load_result(result) {
                return Err(LoadError::Results(session));
            }
        }
        self.sessions.finish_load();
        if let Some(owner) = self.tree.owners().find(|&owner| self.sessions.get(owner).is_none()) {
            return Err(LoadError::NoOwner(owner));
        }
        let mut state = State {
            tree: self.tree,
            sessions: self.sessions,
            applied: header.applied,
            time_ms: header.time_ms,
            level: header.level,
            whole: false,
        };
        for (what, expected, actual) in [
            ("the number of znodes", header.znodes, state.tree.len() as u64),
            ("the number of sessions", header.sessions, state.sessions.len() as u64),
            ("the digest", header.digest, state.digest()),
        ] {
            if expected != actual {
                return Err(LoadError::Mismatch { what, expected, actual });
            }
        }
        state.tree.trust();
        Ok(state)
    }
}

impl State {
    fn write(&mut self, at: At, command: &Command, body: &CommandBody) -> WriteResult {
        let by = By { session: command.session, identities: &command.identities };
        match body {
            CommandBody::Write(write) => self.tree.write(at, by, write),
            CommandBody::Refuse { error, .. } => Err(error.clone()),
            // The match handles these before sessions and numbers.
            CommandBody::OpenSession { .. }
            | CommandBody::ResumeSession { .. }
            | CommandBody::CloseSession { .. }
            | CommandBody::Check { .. }
            | CommandBody::Reap { .. } => Err(OpError::Internal("a command of a store is no write".into())),
        }
    }
}

//! The replicated state: a function of the log and of nothing else.

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

/// Tree and sessions as they are after one entry of the log.
#[derive(Default, Debug)]
pub struct State {
    tree: Tree,
    sessions: Sessions,
    applied: Zxid,
    time_ms: i64,
    /// As the log says: what an entry means may depend on it.
    level: Level,
    /// Nothing of it is in a checkpoint, or not reliably: the next one has to be whole.
    whole: bool,
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Applied {
    /// The entry that carried it out: an earlier one if the command had been sent before.
    pub zxid: Zxid,
    /// What it did.
    pub result: WriteResult,
}

/// What changed since the last checkpoint, as the records are now; `None` for what is gone. Written on top of that
/// checkpoint it gives the state that `header` tells of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// These are all records of the state: whatever else the checkpoint has is gone.
    pub whole: bool,
    /// Of the state now.
    pub header: record::Header,
    /// A path that is gone may come more than once.
    pub znodes: Vec<(Path, Option<record::Znode>)>,
    /// One that is gone may not have been there.
    pub acls: Vec<(AclId, Option<record::AccessList>)>,
    /// A session that is gone may come more than once.
    pub sessions: Vec<(SessionId, Option<record::Session>)>,
    /// Of sessions that are still there, or are gone as well.
    pub results: Vec<((SessionId, WriteNumber), Option<record::KeptResult>)>,
}

/// Why records are no state.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing to check the records against.
    #[error("the header is missing")]
    NoHeader,
    /// Two records for the same thing.
    #[error("the record of {0} comes twice")]
    Twice(String),
    /// A znode without its parent.
    #[error("the parent of the znode {0} is missing")]
    NoParent(Path),
    /// An ephemeral without an owner, or an owner of a znode of another kind.
    #[error("the kind of the znode {0} and its owner do not fit together")]
    Owner(Path),
    /// A znode without its access list, or an access list that no znode has.
    #[error("the access list {} is missing, or no znode has it", .0.0)]
    Acl(AclId),
    /// A kept result without its session, or not all of its session's.
    #[error("a result of the session {0} is missing, or the session itself")]
    Results(SessionId),
    /// An ephemeral without its session.
    #[error("the session {0} is missing, but has ephemerals")]
    NoOwner(SessionId),
    /// The records do not add up to what the header says.
    #[error("the records are not those of the header: {what} is {actual:#x}, not {expected:#x}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// As the header says.
        expected: u64,
        /// As counted.
        actual: u64,
    },
}

impl State {
    /// The empty state, whose hashes of paths depend on `seed`. The seed decides how long operations take, and nothing else. A server
    /// draws it at random, so that no client can choose paths with equal hashes.
    #[must_use]
    pub fn seeded(seed: u64) -> State {
        State { tree: Tree::seeded(seed), ..State::default() }
    }

    /// See [`State::seeded`].
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.tree.seed()
    }

    /// Carries out the command of entry `zxid`, which lies behind [`State::applied`]. A failure is a result like any
    /// other and takes up its zxid too, as in ZooKeeper.
    pub fn apply(&mut self, zxid: Zxid, time_ms: i64, command: &Command) -> Applied {
        self.apply_marker(zxid, time_ms);
        let at = At { zxid, time_ms };
        let result = match (&command.body, command.session) {
            (CommandBody::OpenSession { sessions_max, .. }, _)
                if self.sessions.len() >= *sessions_max as usize =>
            {
                Err(OpError::Overloaded(format!(
                    "the ensemble has {} open sessions, and its limit is {sessions_max}; close those that nobody uses, let \
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

    /// Notes an entry that changes nothing: the marker of an epoch.
    pub fn apply_marker(&mut self, zxid: Zxid, time_ms: i64) {
        debug_assert!(zxid > self.applied, "{zxid} is not behind {}", self.applied);
        self.applied = zxid;
        self.time_ms = time_ms;
        self.tree.forget_changes();
    }

    /// What the entry that was applied last did to znodes, in the order in which it did it. Not part of the state.
    pub fn take_changes(&mut self) -> Vec<Arc<Change>> {
        self.tree.take_changes()
    }

    /// Leader's time of the last entry, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Notes an entry that says the feature level from here on.
    pub fn apply_level(&mut self, zxid: Zxid, time_ms: i64, level: Level) {
        self.apply_marker(zxid, time_ms);
        self.level = level;
    }

    /// Answers a question of an anonymous caller.
    ///
    /// # Errors
    /// As [`State::read_as`].
    pub fn read(&self, read: &Read) -> Result<ReadOutcome, OpError> {
        self.read_as(read, &Identities::NONE)
    }

    /// Answers a question of this caller.
    ///
    /// # Errors
    /// [`OpError::NoNode`], but for [`Read::Exists`], and [`OpError::NoAuth`].
    pub fn read_as(&self, read: &Read, identities: &Identities) -> Result<ReadOutcome, OpError> {
        self.tree.read(read, identities)
    }

    /// The last entry that was carried out.
    #[must_use]
    pub fn applied(&self) -> Zxid {
        self.applied
    }

    /// The feature level that the log has reached here.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The sum of the hashes of all znodes, access lists, sessions and kept results, and of the feature level: equal for equal
    /// states, whatever the path.
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

    /// What a checkpoint of this state says of itself.
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

    /// Whether the write of this number of a session was carried out.
    #[must_use]
    pub fn has_written(&self, session: SessionId, number: WriteNumber) -> bool {
        self.sessions.has_written(session, number)
    }

    /// All open sessions, in order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, SessionInfo)> + '_ {
        self.sessions.iter()
    }

    /// The complete state: the header first, access lists before znodes, parents before their children, sessions before their
    /// results.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::once(Record::Header(self.header()))
            .chain(self.tree.acls().map(Record::Acl))
            .chain(self.tree.records().map(Record::Znode))
            .chain(self.sessions.records())
    }

    /// What changed since the last call, or since the state was made or loaded; everything, if the checkpoint was
    /// [forgotten](State::forget_checkpoint).
    pub fn take_dirty(&mut self) -> Changes {
        let (sessions, results) = self.sessions.take_dirty();
        let whole = std::mem::take(&mut self.whole);
        let (acls, znodes) = (self.tree.take_dirty_acls(), self.tree.take_dirty());
        Changes { whole, header: self.header(), znodes, acls, sessions, results }
    }

    /// Begins an export of the complete state as it is now, to be handed out in pieces while the state goes on. Returns its
    /// records but those of znodes, the header first. One that was under way ends. With `checkpoint` it becomes the next checkpoint:
    /// changes are those since now.
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

    /// The next znodes of the export, in any order, and whether more are to come; `None` if none is under way, as after a new state
    /// has taken the place of this one. Looks at no more than `most` znodes, and goes no further when their values have `bytes`.
    pub fn export(&mut self, most: usize, bytes: usize) -> Option<(Vec<record::Znode>, bool)> {
        self.tree.export(most, bytes)
    }

    /// Nobody takes the rest of an export: it collects nothing any more.
    pub fn end_export(&mut self) {
        self.tree.end_export();
    }

    /// See [`Tree`]'s walks: begins one through the state as it is now.
    ///
    /// # Errors
    /// [`OpError::NoNode`], [`OpError::NoAuth`].
    pub(crate) fn begin_walk(&mut self, id: WalkId, walk: Walk, caller: &Identities) -> Result<(), OpError> {
        self.tree.begin_walk(id, self.applied, walk, caller)
    }

    /// The next part of a walk, `None` if the caller has none of this name.
    pub(crate) fn walk_on(
        &mut self,
        id: WalkId,
        caller: &Identities,
        bounds: (usize, usize),
    ) -> Option<Result<WalkPart, OpError>> {
        self.tree.walk_on(id, caller, bounds)
    }

    /// Nobody goes on with this walk.
    pub(crate) fn end_walk(&mut self, id: WalkId) {
        self.tree.end_walk(id);
    }

    /// There is no checkpoint of this state, or one that is of no use: the next [`State::take_dirty`] returns everything.
    /// Until then it costs nothing to remember what changes.
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

    /// About how many records [`State::take_dirty`] would return.
    #[must_use]
    pub fn dirty_len(&self) -> usize {
        self.tree.dirty_len() + self.sessions.dirty_len()
    }

    /// About how many bytes these records have. Counting them takes about as long as [`State::take_dirty`].
    #[must_use]
    pub fn dirty_bytes(&self) -> usize {
        self.tree.dirty_bytes() + self.sessions.dirty_bytes()
    }

    /// About how many bytes the records of the complete state have.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.tree.record_bytes() + self.sessions.record_bytes()
    }

    /// Rebuilds a state from its records, which may come in any order.
    ///
    /// # Errors
    /// If the records do not fit together or are not those that the header tells of.
    pub fn load(records: impl IntoIterator<Item = Record>) -> Result<State, LoadError> {
        let mut loader = Loader::default();
        for record in records {
            loader.take(record)?;
        }
        loader.finish()
    }
}

/// What a record takes besides path and value, about, in bytes; and what takes a record away.
pub(crate) const RECORD: usize = 128;

/// Rebuilds a state from records that come piece by piece.
#[derive(Debug)]
pub struct Loader {
    header: Option<record::Header>,
    tree: Tree,
    loading: Loading,
    sessions: Sessions,
    /// Until all sessions are there.
    results: Vec<record::KeptResult>,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader::seeded(0)
    }
}

impl Loader {
    /// Of a state with this [seed](State::seeded).
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

    /// Takes one record, in any order, and puts it in its place at once.
    ///
    /// # Errors
    /// If it comes twice, or cannot belong to any state together with those before it.
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

    /// Checks that everything is there.
    ///
    /// # Errors
    /// If the records do not fit together or are not those that the header tells of.
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
            // They are taken care of before sessions and numbers are looked at.
            CommandBody::OpenSession { .. }
            | CommandBody::ResumeSession { .. }
            | CommandBody::CloseSession { .. }
            | CommandBody::Check { .. }
            | CommandBody::Reap { .. } => Err(OpError::Internal("a command of a store is no write".into())),
        }
    }
}

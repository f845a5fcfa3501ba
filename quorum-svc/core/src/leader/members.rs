//! Changes of the members. The leader proposes them as entries of its log (`docs/protocol.md#members`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::mutants::{Mutant, is_on};
use api::{
    Body, Entry, Membership, PeerId, ROSTER_IDS_MAX, Reconfig, ReconfigRefusal, Roster, Ticket, Time, Zxid,
    votes_alike,
};

use super::{Leading, Learner, Stage};
use crate::{
    Conn, Output, ToLearner,
    zab::{Role, Zab},
};

/// A learner is in sync if it has acknowledged everything that was committed this long ago.
const IN_SYNC: Duration = Duration::from_secs(1);

/// Bounds of a configuration in the log.
const MEMBERS_MAX: usize = 1000;
const HOST_MAX: usize = 255;

/// A change of the members that this leader was asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Asked {
    /// The learner that requested it; `None` for this server.
    conn: Option<Conn>,
    ticket: Ticket,
}

/// The commit point at some time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct CommitMark {
    at: Time,
    committed: Zxid,
}

impl Leading {
    /// Notes the commit point, once in each interval of pings of an established leader.
    pub(super) fn mark_commit(&mut self, now: Time, committed: Zxid) {
        self.commit_marks.push_back(CommitMark { at: now, committed });
        while self.commit_marks.get(1).is_some_and(|mark| now.since(mark.at) >= IN_SYNC) {
            self.commit_marks.pop_front();
        }
    }

    /// The learner of this peer has acknowledged what was committed [`IN_SYNC`] ago. A leader that has noted no commit point
    /// yet cannot know that of any.
    fn is_in_sync(&self, peer: PeerId) -> bool {
        let Some(recent) = self.commit_marks.front().map(|mark| mark.committed) else { return false };
        self.learners.values().any(|l| l.peer == peer && l.stage == Stage::Synced && l.acked >= recent)
    }
}

impl Zab {
    /// Changes the members, unless there is a reason not to.
    pub(crate) fn leader_reconfigure(&mut self, conn: Option<Conn>, ticket: Ticket, reconfig: Reconfig) {
        match self.refuse_reconfig(&reconfig) {
            Err(refusal) => self.tell_reconfig(conn, ticket, Err(refusal)),
            Ok(()) => self.propose_members(conn, ticket, reconfig),
        }
    }

    fn refuse_reconfig(&self, reconfig: &Reconfig) -> Result<(), ReconfigRefusal> {
        let Role::Leading(leading) = &self.role else { return Ok(()) };
        // The marker of this epoch has to be committed before.
        if !leading.established() || !self.orders() {
            return Err(ReconfigRefusal::Unavailable(
                "the leader has no quorum yet, or hands over to another one; ask again".into(),
            ));
        }
        let roster = self.roster();
        let newest = roster.newest();
        let pending = roster.is_joint() || roster.since() > self.committed;
        if pending && !is_on(Mutant::ChangesOverlap) {
            let has = |id| leading.learners.values().any(|l| l.peer == id && l.acked >= roster.since());
            let missing =
                |&id: &PeerId| if id == self.config.me { self.durable < roster.since() } else { !has(id) };
            let waits_for = roster.voters().filter(missing).collect();
            return Err(ReconfigRefusal::InProgress { version: newest.version, waits_for });
        }
        let next = newest.changed_to(reconfig.ensemble.clone(), reconfig.contacts.clone());
        if newest.says_the_same(&next) {
            // A repeated request.
            return Ok(());
        }
        if reconfig.expected != newest.version {
            let (expected, actual) = (reconfig.expected, newest.version);
            return Err(ReconfigRefusal::VersionMoved { expected, actual });
        }
        let host = |host: &str| (1..=HOST_MAX).contains(&host.len());
        if next.ensemble.members().count() > MEMBERS_MAX || !next.contacts.values().all(|c| host(&c.host)) {
            return Err(ReconfigRefusal::Invalid(format!(
                "an ensemble has at most {MEMBERS_MAX} members, and a host 1 to {HOST_MAX} bytes: correct the request"
            )));
        }
        let ids = next.ensemble.members().map(|(id, _)| id);
        let reused: Vec<PeerId> = ids.filter(|id| newest.removed.contains(id)).collect();
        if !reused.is_empty() && !is_on(Mutant::RemovedIdReused) {
            return Err(ReconfigRefusal::IdReused { ids: reused });
        }
        // Both entries of the change have what this one has.
        if !Roster::joint(newest.version, newest.clone(), next.clone()).can_be_read() {
            return Err(ReconfigRefusal::Invalid(format!(
                "with {} former members the new configuration has more than the {ROSTER_IDS_MAX} that an ensemble remembers, or \
                 something else that no server could read: keep some of the members that the request leaves out",
                next.removed.len()
            )));
        }
        if votes_alike(&newest.ensemble, &next.ensemble) {
            return Ok(());
        }
        if leading.commit_marks.is_empty() {
            return Err(ReconfigRefusal::Unavailable(
                "the leader has just been established and does not know yet which members are in sync; ask again".into(),
            ));
        }
        let in_sync = |id: PeerId| id == self.config.me || leading.is_in_sync(id);
        let weighted = |&(_, m): &(PeerId, Membership)| matches!(m, Membership::Voter { weight: 1.., .. });
        let voters: Vec<PeerId> = next.ensemble.members().filter(weighted).map(|(id, _)| id).collect();
        // New voters learn before they count.
        let behind = |&id: &PeerId| {
            let learner = leading.learners.values().find(|l| l.peer == id && l.stage == Stage::Synced);
            let missing = learner.map(|l| self.history.count_between(l.acked, self.committed));
            (newest.ensemble.weight(id) == 0 && !in_sync(id)).then_some((id, missing))
        };
        let members: Vec<(PeerId, Option<u64>)> = voters.iter().filter_map(behind).collect();
        if !members.is_empty() {
            return Err(ReconfigRefusal::NotSynced { members });
        }
        let live: BTreeSet<PeerId> = voters.iter().copied().filter(|&id| in_sync(id)).collect();
        if !next.ensemble.is_quorum(&live) && !reconfig.force {
            return Err(ReconfigRefusal::WouldLoseQuorum {
                live: live.into_iter().collect(),
                of: voters.len(),
            });
        }
        Ok(())
    }

    /// Appends the first entry of a change. From here on a quorum is one of both lists. A change that leaves the votes as they
    /// are is this one entry.
    fn propose_members(&mut self, conn: Option<Conn>, ticket: Ticket, reconfig: Reconfig) {
        let current = self.roster().newest();
        let mut next = current.changed_to(reconfig.ensemble, reconfig.contacts);
        if current.says_the_same(&next) {
            let version = current.version;
            return self.tell_reconfig(conn, ticket, Ok(version));
        }
        let current = current.clone();
        let Some(zxid) = self.next_place() else { return };
        next.version = zxid;
        let roster = match votes_alike(&current.ensemble, &next.ensemble) {
            true => Roster::settled(zxid, next),
            false => Roster::joint(zxid, current, next),
        };
        let Role::Leading(leading) = &mut self.role else { return };
        leading.asked = Some(Asked { conn, ticket });
        self.push_members(zxid, roster);
        if is_on(Mutant::FinalBeforeJoint) {
            self.finish_change();
        }
    }

    fn push_members(&mut self, zxid: Zxid, roster: Roster) {
        let time_ms = self.stamp();
        let body = Body::Members(Arc::new(roster));
        self.push_entry(Entry { zxid, time_ms, origin: None, body, trace: None });
    }

    /// Continues a change of the members: its end follows once its beginning is committed, also for a leader that found it in
    /// its log. Answers the request once the end is committed.
    pub(super) fn continue_change(&mut self) {
        let Role::Leading(leading) = &self.role else { return };
        if !leading.changing || !leading.established() || self.roster().since() > self.committed {
            return;
        }
        if self.roster().is_joint() {
            if leading.asked.is_some() || !is_on(Mutant::ChangeLeftUnfinished) {
                self.finish_change();
            }
            return;
        }
        let version = self.roster().newest().version;
        let retired = !self.roster().can_lead(self.config.me);
        let Role::Leading(leading) = &mut self.role else { return };
        leading.retired = retired;
        if let Some(Asked { conn, ticket }) = leading.asked.take() {
            self.tell_reconfig(conn, ticket, Ok(version));
        }
        self.drop_strangers();
    }

    fn finish_change(&mut self) {
        if !self.roster().is_joint() {
            return;
        }
        let next = self.roster().newest().clone();
        // Without a place left in this epoch, the next leader finishes it.
        let Some(zxid) = self.next_place() else { return };
        self.push_members(zxid, Roster::settled(zxid, next));
    }

    /// Ends the connections of servers that are no members any more, once they have the end of the change.
    fn drop_strangers(&mut self) {
        let roster = self.roster().clone();
        let Role::Leading(leading) = &mut self.role else { return };
        let stranger =
            |l: &Learner| roster.membership(l.peer).is_none() && !is_on(Mutant::RemovedServerTaken);
        let strangers = || leading.learners.iter().filter(|(_, l)| stranger(l));
        let gone: Vec<Conn> =
            strangers().filter(|(_, l)| l.acked >= roster.since()).map(|(&conn, _)| conn).collect();
        leading.changing = strangers().count() > gone.len();
        for conn in gone {
            self.drop_learner(conn, "no member of the ensemble any more");
        }
    }

    /// Other members count from now on. A voter gets entries before they are committed.
    pub(crate) fn members_changed(&mut self) {
        let roster = self.roster().clone();
        if let Role::Leading(leading) = &mut self.role {
            leading.changing = true;
            leading.learners.values_mut().for_each(|l| l.voter = roster.is_voter(l.peer));
        }
    }

    fn tell_reconfig(&mut self, conn: Option<Conn>, ticket: Ticket, result: Result<Zxid, ReconfigRefusal>) {
        let Role::Leading(leading) = &self.role else { return };
        match conn {
            None => self.reconfigured(ticket, result),
            Some(conn) if leading.learners.contains_key(&conn) => {
                let message = ToLearner::Reconfigured { ticket, result };
                self.out.push_back(Output::ToLearner { conn, message });
            }
            // The learner has already reported the loss of its leader to the requester.
            Some(_) => {}
        }
    }
}

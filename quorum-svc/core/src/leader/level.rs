//! The feature level of the ensemble. The leader raises it on request.

use api::mutants::{Mutant, is_on};
use api::{Body, Entry, Level, LevelRefusal, PeerId, Ticket};

use super::{Learner, Raise, Stage};
use crate::{
    Conn, Output, ToLearner,
    zab::{Role, Zab},
};

impl Zab {
    /// Raises the feature level if every member is connected and knows it. An absent member may run any
    /// version.
    pub(crate) fn leader_set_level(
        &mut self,
        conn: Option<Conn>,
        ticket: Ticket,
        expected: Level,
        level: Level,
    ) {
        let result = match self.refuse_level(expected, level) {
            Err(refusal) => Err(refusal),
            // A repeated request.
            Ok(()) if self.levels.last() == Some(level) => Ok(level),
            Ok(()) => {
                let Some(zxid) = self.next_place() else { return };
                let time_ms = self.stamp();
                let Role::Leading(leading) = &mut self.role else { return };
                leading.raise = Some(Raise { zxid, level, conn, ticket });
                let body = Body::Level(level);
                return self.push_entry(Entry { zxid, time_ms, origin: None, body, trace: None });
            }
        };
        self.tell_level(conn, ticket, result);
    }

    fn refuse_level(&self, expected: Level, level: Level) -> Result<(), LevelRefusal> {
        let Role::Leading(leading) = &self.role else { return Ok(()) };
        let refuse = |why: String| Err(LevelRefusal::Refused(why));
        if leading.raise.is_some() || !self.orders() {
            let why = "a change of the feature level, or of the leader, is under way; ask again";
            return Err(LevelRefusal::Unavailable(why.into()));
        }
        let now = self.levels.last();
        if now == Some(level) {
            return Ok(());
        }
        if now != Some(expected) {
            let now = Level::number(now);
            return refuse(format!(
                "the ensemble is at feature level {now}, not {expected}: look at it again"
            ));
        }
        if level < expected {
            return refuse(format!("the feature level cannot go back from {expected} to {level}"));
        }
        let known = |peer: PeerId| match peer == self.config.me {
            true => Some(self.config.levels),
            false => {
                let here = |l: &&Learner| l.peer == peer && l.stage == Stage::Synced;
                leading.learners.values().find(here).and_then(|l| l.levels)
            }
        };
        let unable = |(peer, _)| match known(peer) {
            Some(levels) if levels.contains(level) => None,
            Some(levels) => Some(format!("member {peer} knows level {levels}")),
            None => Some(format!("member {peer} is not here, and may run anything")),
        };
        let unable: Vec<String> = self.roster().members().filter_map(unable).collect();
        if unable.is_empty() || is_on(Mutant::RaisedUnasked) {
            return Ok(());
        }
        refuse(format!(
            "not every member is known to be able to do feature level {level}: {}. Start a version that knows it on each, and \
             ask again",
            unable.join("; ")
        ))
    }

    /// Answers the pending request once its level is committed.
    pub(super) fn tell_raised(&mut self) {
        let committed = self.committed;
        let Role::Leading(leading) = &mut self.role else { return };
        if let Some(Raise { level, conn, ticket, .. }) =
            leading.raise.take_if(|raise| raise.zxid <= committed)
        {
            self.tell_level(conn, ticket, Ok(level));
        }
    }

    fn tell_level(&mut self, conn: Option<Conn>, ticket: Ticket, result: Result<Level, LevelRefusal>) {
        let Role::Leading(leading) = &self.role else { return };
        match conn {
            None => self.level_set(ticket, result),
            Some(conn) if leading.learners.contains_key(&conn) => {
                let message = ToLearner::LevelSet { ticket, result };
                self.out.push_back(Output::ToLearner { conn, message });
            }
            // The learner has already reported the loss of its leader to the requester.
            Some(_) => {}
        }
    }

    /// The level of the new epoch: that of the log. A new ensemble begins at the greatest level that
    /// this server and all connected learners know.
    pub(super) fn first_level(&self) -> Level {
        let Role::Leading(leading) = &self.role else { return self.config.levels.max() };
        let known = leading.learners.values().filter_map(|l| l.levels);
        let greatest = known.fold(self.config.levels.max(), |least, levels| least.min(levels.max()));
        self.levels.last().unwrap_or(greatest)
    }
}

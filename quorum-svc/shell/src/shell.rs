//! The core, its inputs, and the effects of its outputs.

use std::collections::VecDeque;
use std::time::Duration;

use api::mutants::{Mutant, is_on};
use api::peer::{Damage, Incarnation, ToLeader};
use api::ports::{Candidate, FeedItem, Sign};
use api::{Ensemble, Epoch, Level, LevelRefusal, Now, PeerId, Standing, Ticket, Zxid};
use quorum_core::{Conn, Input, Output, Zab};
use quorum_log::{Base, Epochs};

use crate::suspicion::Suspicion;
use crate::{Command, Failure, LogView, Task, Tell};

/// What this node says of itself to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// As in `Zab::standing`.
    pub standing: Standing,
    /// As in `Zab::damage`.
    pub damage: Damage,
    /// Whether it has a leader with a quorum.
    pub serving: bool,
    /// The leader that it follows, synchronised or not yet.
    pub leader: Option<PeerId>,
    /// As in `Zab::level`.
    pub level: Option<Level>,
    /// Raised when others say that this server has lost something.
    pub suspicion: u64,
}

/// Something to do, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Say this of this node from now on.
    Say(Said),
    /// Tell the election.
    Introduce(Standing),
    /// Ask the election; a newer question takes the place of an unanswered one.
    Elect(Option<Candidate>),
    /// Tell the election which leader this node follows, or that it leads.
    Settled {
        /// Whom.
        leader: PeerId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// Connect to the leader, after a pause.
    Dial {
        /// Whom.
        leader: PeerId,
        /// So long: while attempts lead nowhere they become rarer.
        delay: Duration,
    },
    /// End a connection.
    Disconnect {
        /// Which one.
        conn: Conn,
    },
    /// Send.
    ToLeader {
        /// On this connection.
        conn: Conn,
        /// This.
        message: ToLeader,
    },
    /// Send. A message [for control](api::peer::ToLearner::is_control) does not wait behind data.
    ToLearner {
        /// On this connection.
        conn: Conn,
        /// This.
        command: Command,
    },
    /// Do this on the disk, behind all else there.
    Disk(Task),
    /// Tell the store, behind all that it was told before.
    Tell(Tell),
    /// Tell the store at once; one for which there is no room is lost.
    Sign(Sign),
    /// Answer to [`Input::SetLevel`].
    LevelSet {
        /// From the question.
        ticket: Ticket,
        /// The level, once that is committed.
        result: Result<Level, LevelRefusal>,
    },
    /// The node may stop: see [`Input::Leave`].
    Left,
    /// Ask all others at once what they know and what they have lost.
    MeetAgain,
    /// The leader or the quorum is lost: no other server counts as reached before it answers.
    LostQuorum,
}

/// A core at work.
pub struct Shell {
    core: Zab,
    view: LogView,
    me: PeerId,
    members: Ensemble,
    effects: VecDeque<Effect>,
    /// The store may have the log up to here.
    committed: Zxid,
    said: Said,
    /// Attempts to reach a leader since this node last served.
    dials: u32,
    suspicion: Suspicion,
    left: bool,
}

impl Shell {
    /// Around this core. `base`: the log stands on a snapshot there, which is committed: also a store that has less is told so, if
    /// nothing is ever committed behind it.
    #[must_use]
    pub fn new(core: Zab, view: LogView, me: PeerId, members: Ensemble, base: Zxid) -> Shell {
        let suspicion = Suspicion::default();
        let said = said(&core, &suspicion);
        let effects = VecDeque::from([Effect::Introduce(said.standing)]);
        Shell { core, view, me, members, effects, committed: base, said, dials: 0, suspicion, left: false }
    }

    /// The core.
    #[must_use]
    pub fn core(&self) -> &Zab {
        &self.core
    }

    /// The log as its readers see it.
    #[must_use]
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// What this node says of itself.
    #[must_use]
    pub fn said(&self) -> Said {
        self.said
    }

    /// Whether there are other voters from which this node can heal.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        self.members.voters().any(|voter| voter != self.me)
    }

    /// [`Input::Leave`] is done.
    #[must_use]
    pub fn left(&self) -> bool {
        self.left
    }

    /// Takes in what happened. A store that attaches is an [own case](Shell::attach).
    pub fn handle(&mut self, now: Now, input: Input) {
        if let Input::Persisted { upto } = input {
            self.view.set_durable(upto);
        }
        self.core.handle(now, input);
    }

    /// A store attaches, which has applied everything up to there, in place of an older one. What it is told first.
    pub fn attach(&mut self, now: Now, applied: Zxid) -> [Tell; 2] {
        self.core.handle(now, Input::StoreAttached { applied });
        [
            // First, so that a store that comes back does not serve before it has caught up.
            Tell::Committed { upto: self.committed },
            // With the end of the log as it is now: a store that leads has to know the closes that are under way.
            Tell::Item(FeedItem::Status(self.core.status())),
        ]
    }

    /// There is little room: a snapshot would make the log shorter.
    pub fn want_snapshot(&mut self) {
        self.effects.push_back(Effect::Tell(Tell::Item(FeedItem::SnapshotWanted)));
    }

    /// See [`Task::Forsake`].
    pub fn forsake(&mut self) {
        self.effects.push_back(Effect::Disk(Task::Forsake { may_heal: self.may_heal() }));
    }

    /// Another server has met this one in an incarnation that its directory does not know. The node acts as damaged at once; it notes
    /// that only when it is known that the quorum does not depend on it. False if that was told before.
    ///
    /// # Errors
    /// There is no other to heal from.
    pub fn rolled_back(&mut self, now: Now, by: PeerId, met: Incarnation) -> Result<bool, Failure> {
        if !self.suspicion.told(met) {
            return Ok(false);
        }
        if !self.may_heal() {
            return Err(Failure::OlderCopy(format!(
                "server {by} has met this node in an incarnation that its data directory does not know: that is an older copy, and \
                 there is no other voter to heal from. Put the newest copy back or, to go on from this one, use \
                 `quorate recover trust-directory`"
            )));
        }
        if self.core.status().epoch == Epoch(0) {
            tracing::warn!(
                %by,
                "other servers have met this node before, but its data directory is new: what it had is lost, and comes back from \
                 the leader. It does not vote until then. If the whole ensemble is to begin anew, stop all of it, and give each \
                 node an empty directory, observers too"
            );
        } else {
            tracing::error!(
                %by,
                "another server has met this node in an incarnation that its data directory does not know: its data directory is an \
                 older copy. It does not vote until a leader has sent it what it lacks. If no other voter is left that has \
                 more, decide which directory is to be the truth, and use `quorate recover trust-directory` there"
            );
        }
        self.core.handle(now, Input::RolledBack { note: false });
        // In this order: a server that is asked from now on may count on what this node says of itself.
        self.say();
        self.effects.push_back(Effect::MeetAgain);
        Ok(true)
    }

    /// Another server says what it has lost, or does not answer (`None`), asked when this one said that it was
    /// [suspected](Said::suspicion) for so many times. Whether it is noted by this that the directory is an older copy.
    pub fn heard(&mut self, now: Now, peer: PeerId, damage: Option<Damage>, suspicion: u64) -> bool {
        let lost = damage.is_some_and(Damage::is_some);
        let noted = self.suspicion.heard(self.me, &self.members, peer, lost, suspicion);
        if noted {
            self.core.handle(now, Input::RolledBack { note: true });
        }
        noted
    }

    /// What is to be done next, in this order; `None` for nothing at present, and only then anything new may be taken in. `observe`
    /// sees what the core wants before it is carried out, and must not change more of it than a trace.
    ///
    /// # Errors
    /// The node has to stop.
    pub fn poll_effect(
        &mut self,
        mut observe: impl FnMut(&Zab, &mut Output),
    ) -> Result<Option<Effect>, Failure> {
        loop {
            if let Some(effect) = self.effects.pop_front() {
                return Ok(Some(effect));
            }
            let Some(mut output) = self.core.poll_output() else {
                self.settle();
                return Ok(self.effects.pop_front());
            };
            observe(&self.core, &mut output);
            self.carry_out(output)?;
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Failure> {
        let effect = match output {
            Output::Elect(candidate) => {
                // The election has to know first which servers are strangers.
                self.say();
                Effect::Elect(candidate)
            }
            Output::Settled { leader, epoch } => Effect::Settled { leader, epoch },
            Output::Connect { leader } => {
                let delay = dial_delay(self.dials);
                self.dials += 1;
                Effect::Dial { leader, delay }
            }
            Output::Disconnect { conn, .. } => Effect::Disconnect { conn },
            Output::ToLeader { conn, message } => Effect::ToLeader { conn, message },
            Output::ToLearner { conn, message } => {
                Effect::ToLearner { conn, command: Command::Message(message) }
            }
            Output::Replicate { conn, after, upto, commit } => {
                Effect::ToLearner { conn, command: Command::Entries { after, upto, commit } }
            }
            Output::SendSnapshot { conn, zxid } => {
                Effect::ToLearner { conn, command: Command::Snapshot(zxid) }
            }
            Output::Append(entries) => {
                self.view.push(&entries);
                Effect::Disk(Task::Append(entries))
            }
            Output::PersistEpochs { accepted, current, damage, ensemble, committed, last_stamp } => {
                let epochs = Epochs { accepted, current, damage, ensemble, committed, last_stamp };
                Effect::Disk(Task::Epochs(epochs))
            }
            Output::Truncate { to } => {
                if !is_on(Mutant::CutLogStillRead) {
                    self.view.cut(to);
                }
                Effect::Disk(Task::Truncate(to))
            }
            Output::InstallSnapshot { zxid, level } => {
                self.view.reset(zxid);
                Effect::Disk(Task::Reset(Base { zxid, level: Some(level) }))
            }
            Output::Purge { upto } => Effect::Disk(Task::Purge(upto)),
            Output::Committed { upto } => {
                self.committed = upto;
                Effect::Tell(Tell::Committed { upto })
            }
            Output::Tell(item) => {
                if matches!(&item, FeedItem::Status(status) if status.serving) {
                    self.dials = 0;
                }
                Effect::Tell(Tell::Item(item))
            }
            Output::Sign(sign) => Effect::Sign(sign),
            Output::LevelSet { ticket, result } => Effect::LevelSet { ticket, result },
            Output::Left => {
                self.left = true;
                Effect::Left
            }
            Output::Fatal(why) => return Err(Failure::Invariant(why)),
        };
        self.effects.push_back(effect);
        Ok(())
    }

    /// The core wants nothing more at present.
    fn settle(&mut self) {
        self.say();
        if !self.core.damage().is_some() {
            self.suspicion.healed();
        }
        // Behind the epochs, so that it is noted first what it means.
        let outlived = self.suspicion.outlived().into_iter();
        self.effects.extend(outlived.map(|met| Effect::Disk(Task::Outlive(met))));
    }

    /// Tells others what this node says of itself from now on.
    fn say(&mut self) {
        let now = said(&self.core, &self.suspicion);
        let before = std::mem::replace(&mut self.said, now);
        if now != before {
            self.effects.push_back(Effect::Say(now));
        }
        if now.standing != before.standing {
            self.effects.push_back(Effect::Introduce(now.standing));
        }
        if before.serving && !now.serving {
            self.effects.push_back(Effect::LostQuorum);
        }
    }
}

fn said(core: &Zab, suspicion: &Suspicion) -> Said {
    let status = core.status();
    Said {
        standing: core.standing(),
        damage: core.damage(),
        serving: status.serving,
        leader: status.leader,
        level: core.level(),
        suspicion: suspicion.number,
    }
}

/// The first attempt to reach a leader is made at once; while they lead nowhere they become rarer.
fn dial_delay(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => Duration::from_millis(25 << n.min(5)),
    }
}

//! The core, its inputs, and the effects of its outputs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::mutants::{Mutant, is_on};
use api::peer::{Damage, Incarnation, ToLeader};
use api::ports::{Candidate, FeedItem, Sign};
use api::{Epoch, Level, LevelRefusal, Now, PeerId, ReconfigRefusal, Roster, Standing, Ticket, Zxid};
use quorum_core::{Conn, Input, Output, Zab};
use quorum_log::{Base, Epochs};

use crate::suspicion::Suspicion;
use crate::{Command, Failure, LogView, Task, Tell};

/// This node's statement about itself to other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// As in `Zab::standing`.
    pub standing: Standing,
    /// As in `Zab::damage`.
    pub damage: Damage,
    /// Whether the node has a leader with a quorum.
    pub serving: bool,
    /// Its leader, synchronised or not yet.
    pub leader: Option<PeerId>,
    /// As in `Zab::level`.
    pub level: Option<Level>,
    /// Number of reports from other servers that this server has lost data.
    pub suspicion: u64,
}

/// An action. The driver carries out actions in their order.
#[derive(Debug)]
pub enum Effect {
    /// Send this statement about the node to others from now on.
    Say(Said),
    /// Report this standing, and the members that count, to the election.
    Introduce(Standing, Arc<Roster>),
    /// These members count from now on: say so to others.
    Members(Arc<Roster>),
    /// Start an election. A newer request replaces an unanswered one.
    Elect(Option<Candidate>),
    /// Report to the election that this node follows this leader, or leads.
    Settled {
        /// The leader.
        leader: PeerId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Connect to the leader after a pause.
    Dial {
        /// The leader.
        leader: PeerId,
        /// The pause. It grows while attempts fail.
        delay: Duration,
    },
    /// End a connection.
    Disconnect {
        /// The connection.
        conn: Conn,
    },
    /// Send a message to the leader.
    ToLeader {
        /// The connection.
        conn: Conn,
        /// The message.
        message: ToLeader,
    },
    /// Send a command to a learner. A message [for control](api::peer::ToLearner::is_control) does not
    /// wait behind data.
    ToLearner {
        /// The connection.
        conn: Conn,
        /// The command.
        command: Command,
    },
    /// Execute this task on the disk behind all earlier tasks.
    Disk(Task),
    /// Send this to the store behind all earlier items.
    Tell(Tell),
    /// Send this to the store at once. If there is no room, the sign is lost.
    Sign(Sign),
    /// Answer to [`Input::SetLevel`].
    LevelSet {
        /// From the request.
        ticket: Ticket,
        /// The level once it is committed, or the reason of the refusal.
        result: Result<Level, LevelRefusal>,
    },
    /// Answer to [`Input::Reconfigure`].
    Reconfigured {
        /// From the request.
        ticket: Ticket,
        /// The version of the new configuration, or the reason of the refusal.
        result: Result<Zxid, ReconfigRefusal>,
    },
    /// The node may stop: see [`Input::Leave`].
    Left,
    /// Ask all other nodes at once for their knowledge and their losses.
    MeetAgain,
    /// The leader or the quorum is lost. No other server counts as reachable before it answers.
    LostQuorum,
}

/// A core with its effects.
pub struct Shell {
    core: Zab,
    view: LogView,
    me: PeerId,
    /// The members that the election and others know of.
    roster: Arc<Roster>,
    effects: VecDeque<Effect>,
    /// The store may read the log up to here.
    committed: Zxid,
    said: Said,
    /// Attempts to reach a leader since this node last served.
    dials: u32,
    suspicion: Suspicion,
    left: bool,
}

impl Shell {
    /// Creates a shell around this core. `base` is the zxid of the snapshot below the log. It is
    /// committed, so a store with less learns of it even if nothing is ever committed behind it.
    #[must_use]
    pub fn new(core: Zab, view: LogView, me: PeerId, base: Zxid) -> Shell {
        let suspicion = Suspicion::default();
        let said = said(&core, &suspicion);
        let roster = core.roster().clone();
        let effects = VecDeque::from([Effect::Introduce(said.standing, roster.clone())]);
        Shell { core, view, me, roster, effects, committed: base, said, dials: 0, suspicion, left: false }
    }

    /// The core.
    #[must_use]
    pub fn core(&self) -> &Zab {
        &self.core
    }

    /// The log for its readers.
    #[must_use]
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// This node's present statement about itself.
    #[must_use]
    pub fn said(&self) -> Said {
        self.said
    }

    /// Whether other voters exist from which this node can heal.
    #[must_use]
    pub fn may_heal(&self) -> bool {
        self.core.roster().voters().any(|voter| voter != self.me)
    }

    /// Whether [`Input::Leave`] is done.
    #[must_use]
    pub fn left(&self) -> bool {
        self.left
    }

    /// Processes an input. For a store that attaches, call [`Shell::attach`].
    pub fn handle(&mut self, now: Now, input: Input) {
        if let Input::Persisted { upto } = input {
            self.view.set_durable(upto);
        }
        self.core.handle(now, input);
    }

    /// Attaches a store that has applied everything up to `applied`, in place of an older one. Returns
    /// its first items.
    pub fn attach(&mut self, now: Now, applied: Zxid) -> [Tell; 2] {
        self.core.handle(now, Input::StoreAttached { applied });
        [
            // First, so that a returning store does not serve before it has caught up.
            Tell::Committed { upto: self.committed },
            // The status has the present end of the log: a leading store has to know the pending closes
            // of sessions.
            Tell::Item(FeedItem::Status(self.core.status())),
        ]
    }

    /// Requests a snapshot for lack of space: the log can then be purged.
    pub fn want_snapshot(&mut self) {
        self.effects.push_back(Effect::Tell(Tell::Item(FeedItem::SnapshotWanted)));
    }

    /// See [`Task::Forsake`].
    pub fn forsake(&mut self) {
        self.effects.push_back(Effect::Disk(Task::Forsake { may_heal: self.may_heal() }));
    }

    /// Another server has met an incarnation of this node that its directory does not know. The node
    /// acts as damaged at once. It stores that only when the quorum is known not to depend on it.
    /// Returns false for a repeated report.
    ///
    /// # Errors
    /// No other voter exists to heal from.
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
        // This order is essential: a server that is asked from now on may rely on this node's new
        // statement.
        self.say();
        self.effects.push_back(Effect::MeetAgain);
        Ok(true)
    }

    /// Processes another server's report about its own loss; `None`: it did not answer. `suspicion` is
    /// the [number](Said::suspicion) that this node had when it asked. Returns whether the node now
    /// stores that its directory is an older copy.
    pub fn heard(&mut self, now: Now, peer: PeerId, damage: Option<Damage>, suspicion: u64) -> bool {
        let lost = damage.is_some_and(Damage::is_some);
        let noted = self.suspicion.heard(self.me, self.core.roster(), peer, lost, suspicion);
        if noted {
            self.core.handle(now, Input::RolledBack { note: true });
        }
        noted
    }

    /// The next action, or `None` if there is none at present. Handle new inputs only after `None`.
    /// `observe` sees each output of the core before it is carried out, and may change only its trace.
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
                // The election first has to know which servers are strangers.
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
            Output::SendSnapshot { conn, zxid, roster } => {
                Effect::ToLearner { conn, command: Command::Snapshot(zxid, roster) }
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
            Output::InstallSnapshot { zxid, level, roster } => {
                self.view.reset(zxid);
                Effect::Disk(Task::Reset(Base { zxid, level: Some(level), roster: Some(roster) }))
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
            Output::Reconfigured { ticket, result } => Effect::Reconfigured { ticket, result },
            Output::Left => {
                self.left = true;
                Effect::Left
            }
            Output::Fatal(why) => return Err(Failure::Invariant(why)),
        };
        self.effects.push_back(effect);
        Ok(())
    }

    /// Ends a turn: the core has no more outputs.
    fn settle(&mut self) {
        self.say();
        if !self.core.damage().is_some() {
            self.suspicion.healed();
        }
        // Behind the epochs, so that the damage is stored before the incarnation.
        let outlived = self.suspicion.outlived().into_iter();
        self.effects.extend(outlived.map(|met| Effect::Disk(Task::Outlive(met))));
    }

    /// Updates this node's statement to others.
    fn say(&mut self) {
        let now = said(&self.core, &self.suspicion);
        let before = std::mem::replace(&mut self.said, now);
        if now != before {
            self.effects.push_back(Effect::Say(now));
        }
        let others = !Arc::ptr_eq(&self.roster, self.core.roster());
        if others {
            self.roster = self.core.roster().clone();
            self.effects.push_back(Effect::Members(self.roster.clone()));
        }
        if others || now.standing != before.standing {
            self.effects.push_back(Effect::Introduce(now.standing, self.roster.clone()));
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

/// Pause before an attempt to reach a leader. The first attempt is immediate; later pauses grow.
fn dial_delay(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => Duration::from_millis(25 << n.min(5)),
    }
}

//! The core with its inputs from the quorum and its effects.

use api::{OpError, Time, Zxid, session::Item};
use store_core::{
    Server, State,
    server::{Ask, ConnId, Input, Output},
};

use crate::{Fault, FromQuorum};

/// A running core.
#[derive(Debug)]
pub struct Shell {
    /// The core.
    pub server: Server,
    /// The log that a snapshot made now would cover.
    pub since_snapshot: SinceSnapshot,
    /// The state was discarded because it differed from the leader's after this entry.
    diverged: Option<Zxid>,
    /// Replaced states, until the caller drops them where no other work waits.
    replaced: Vec<State>,
}

/// An effect to carry out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Send to the quorum, in this order and after all earlier requests. See [`encode`](crate::encode).
    Ask(Vec<Ask>),
    /// Send to a client, in this order.
    Send {
        /// The connection.
        conn: ConnId,
        /// The items.
        items: Vec<Item>,
    },
    /// End a connection. Nothing else follows for it.
    Close {
        /// The connection.
        conn: ConnId,
        /// `Ok` if the client closed its session.
        why: Result<(), OpError>,
    },
    /// The state differed from the leader's and was discarded. Stop reading the feed, cancel a running
    /// snapshot, and attach to the quorum from the beginning: it provides its snapshot, and the log
    /// after that.
    Attach {
        /// The entry after which the states were different.
        at: Zxid,
        /// The digest of this node's state there.
        own: u64,
        /// The digest of the leader's state there.
        leaders: u64,
    },
}

impl Shell {
    /// A shell around this core.
    #[must_use]
    pub fn new(server: Server) -> Shell {
        Shell { server, since_snapshot: SinceSnapshot::default(), diverged: None, replaced: Vec::new() }
    }

    /// Processes a message from the quorum.
    pub fn on_quorum(&mut self, now: Time, said: FromQuorum) {
        match said {
            FromQuorum::Feed { items, entries, log_bytes } => {
                self.since_snapshot.entries += entries;
                self.since_snapshot.log_bytes += log_bytes;
                items.into_iter().for_each(|item| self.server.handle(now, Input::Feed(item)));
            }
            FromQuorum::SnapshotWanted => self.since_snapshot.wanted = true,
            FromQuorum::State { state, bytes } => {
                self.replaced.push(self.server.replace_state(now, *state));
                let since = &mut self.since_snapshot;
                (since.entries, since.log_bytes, since.snapshot_bytes) = (0, 0, bytes);
            }
        }
    }

    /// The next effect, in this order; `None` if there is none now.
    ///
    /// # Errors
    /// The node has to stop.
    pub fn poll_effect(&mut self, now: Time) -> Result<Option<Effect>, Fault> {
        let Some(output) = self.server.poll_output() else { return Ok(None) };
        Ok(Some(match output {
            Output::Ask(asks) => Effect::Ask(asks),
            Output::Send { conn, items } => Effect::Send { conn, items },
            Output::Close { conn, why } => Effect::Close { conn, why },
            Output::Diverged { at, own, leaders } => {
                self.start_over(now, at, own, leaders)?;
                Effect::Attach { at, own, leaders }
            }
            Output::Stop { why } => return Err(Fault(why)),
        }))
    }

    /// Discards the state. If a state differs again before it has agreed with the leader's, a flipped
    /// bit is not the cause, so the node stops.
    fn start_over(&mut self, now: Time, at: Zxid, own: u64, leaders: u64) -> Result<(), Fault> {
        if self.diverged.is_some_and(|before| self.server.agreed() <= before) {
            return Err(Fault(format!(
                "behind {at} the digest of this node's state is {own:016x} and the leader's is {leaders:016x}, also after the \
                 state was built again from snapshot and log. Keep copies of the data directories of this node and of the leader \
                 and report it; then give this node an empty directory: the others will send it the state"
            )));
        }
        self.diverged = Some(at);
        tracing::error!(
            zxid = %at, own = format_args!("{own:016x}"), leaders = format_args!("{leaders:016x}"),
            "the state is not the leader's: serving stops until it is built again from snapshot and log; check memory and disk"
        );
        self.replaced.push(self.server.start_over(now));
        Ok(())
    }

    /// Returns states that are no longer in use. Dropping a large one takes long: do it where no other
    /// work waits.
    pub fn take_replaced(&mut self) -> Vec<State> {
        std::mem::take(&mut self.replaced)
    }
}

/// The log since the start of the last snapshot.
#[derive(Clone, Debug, Default)]
pub struct SinceSnapshot {
    /// Number of entries.
    pub entries: u64,
    /// Size of these entries in the log, in bytes.
    pub log_bytes: u64,
    /// The size of the last snapshot; 0 if there was none in this run.
    pub snapshot_bytes: u64,
    /// Whether the quorum needs a snapshot.
    pub wanted: bool,
}

impl SinceSnapshot {
    /// Whether the log has grown enough for a snapshot of a state with `znodes`: by as many entries as
    /// there are znodes, or as many bytes as the last snapshot had, but at least by the given minimum.
    /// `percent` scales the threshold, so that nodes that count the same entries do not all begin at
    /// the same one. So snapshots cost at most about as much as writing the log, for any size of the
    /// state.
    #[must_use]
    pub fn is_due(&self, znodes: u64, least_entries: u64, least_bytes: u64, percent: u64) -> bool {
        let part = |of: u64| (u128::from(of) * u128::from(percent) / 100) as u64;
        self.wanted
            || self.entries >= part(least_entries.max(znodes)).max(1)
            || self.log_bytes >= part(least_bytes.max(self.snapshot_bytes)).max(1)
    }

    /// A snapshot begins.
    pub fn begin(&mut self) {
        (self.entries, self.log_bytes, self.wanted) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests;

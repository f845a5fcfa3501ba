//! One server's election core, and a step of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use api::ports::{Candidate, Role};
use api::{PeerId, Time};
use election_core::{Config, Election, Input, Notification, Output};

/// All clocks stand still here; see [`Event::Decide`].
const STILL: Time = Time(0);
pub(crate) const FINALIZE_WAIT: Duration = Duration::from_millis(200);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    election: Election,
    up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Event {
    Elect(Option<Candidate>),
    Connected(PeerId),
    Disconnected(PeerId),
    Received(PeerId, Notification),
    /// For one moment the clock shows that the waiting time is over.
    Decide,
}

/// An output of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    To(PeerId, Notification),
    Elected(PeerId),
}

impl Node {
    pub(crate) fn down(config: &Config) -> Node {
        Node { election: Election::new(config.clone()), up: false }
    }

    pub(crate) fn up(&self) -> bool {
        self.up
    }

    pub(crate) fn says(&self) -> Option<Notification> {
        self.election.notification()
    }

    /// How long it waits for a better vote, if it does.
    pub(crate) fn waits(&self) -> Option<Duration> {
        let wait = self.election.next_timeout()?.since(STILL);
        (wait <= FINALIZE_WAIT * 2).then_some(wait)
    }
}

/// One step of one server.
pub(crate) struct Turn {
    pub(crate) node: Node,
    pub(crate) said: Vec<Said>,
}

impl Turn {
    pub(crate) fn new(node: Node) -> Turn {
        Turn { node, said: Vec::new() }
    }

    pub(crate) fn take(&mut self, event: Event) -> Result<(), String> {
        self.node.up = true;
        let (now, input) = match event {
            Event::Elect(candidate) => (STILL, Input::Elect(candidate)),
            Event::Connected(peer) => (STILL, Input::Connected(peer)),
            Event::Disconnected(peer) => (STILL, Input::Disconnected(peer)),
            Event::Received(from, notification) => (STILL, Input::Received { from, notification }),
            Event::Decide => (STILL + FINALIZE_WAIT * 2, Input::Timeout),
        };
        let election = &mut self.node.election;
        let outputs: Vec<Output> = catch_unwind(AssertUnwindSafe(|| {
            election.handle(now, input);
            std::iter::from_fn(|| election.poll_output()).collect()
        }))
        .map_err(|_| "the core panicked".to_owned())?;
        self.said.extend(outputs.into_iter().map(|output| match output {
            Output::Send { to, notification } => Said::To(to, notification),
            Output::Elected { leader, .. } => Said::Elected(leader),
        }));
        Ok(())
    }
}

/// A notification as text.
pub(crate) fn text(n: &Notification) -> String {
    let vote = n.vote.map_or("none".into(), |v| format!("{} ({})", v.leader, v.candidate.zxid));
    match n.state {
        Role::Looking => format!("round {}, I vote for {vote}", n.round),
        Role::Following | Role::Observing => format!("round {}, I follow {vote}", n.round),
        Role::Leading => format!("round {}, I lead, {vote}", n.round),
    }
}

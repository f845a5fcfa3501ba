use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::ports::PortClosed;
use api::{PeerId, Time};
use election_core::{Input, Notification};
use election_shell::{Effect, LinkEvent, Shell};
use spans::{KeyValue, Scope, Span, lines};
use telemetry::metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::dialer::Dialer;
use crate::handle::Command;
use crate::link::{Shared, Slot};

/// Owns the core in its shell: one loop that passes every event to it, and carries out its effects.
#[derive(Debug)]
pub struct Driver {
    shell: Shell<Slot>,
    shared: Arc<Shared>,
    dialers: Vec<Dialer>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<LinkEvent<Slot>>,
    /// The linked peers, for the status of this election.
    peers: watch::Sender<BTreeSet<PeerId>>,
    asked: Option<Asked>,
    /// The core's time 0.
    origin: Instant,
}

/// A pending [`api::ports::Election::elect`].
#[derive(Debug)]
struct Asked {
    since: Instant,
    span: Option<Span>,
    elected: oneshot::Sender<Result<PeerId, PortClosed>>,
}

impl Driver {
    pub(crate) fn new(
        core: election_core::Config,
        shared: Arc<Shared>,
        dialers: Vec<Dialer>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Receiver<LinkEvent<Slot>>,
    ) -> Driver {
        Driver {
            shell: Shell::new(core),
            shared,
            dialers,
            commands,
            events,
            peers: watch::Sender::default(),
            asked: None,
            origin: Instant::now(),
        }
    }

    pub(crate) fn peers(&self) -> watch::Receiver<BTreeSet<PeerId>> {
        self.peers.subscribe()
    }

    /// Takes part in elections until the service stops and all its tasks have ended.
    pub async fn run(mut self) {
        for dialer in std::mem::take(&mut self.dialers) {
            self.shared.tasks.spawn(dialer.run());
        }
        let shared = self.shared.clone();
        loop {
            let timeout = self.shell.next_timeout();
            tokio::select! {
                () = shared.shutdown.cancelled() => break,
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(event) = self.events.recv() => self.turn(|shell, now| shell.on_link(now, event)),
                () = at(self.origin, timeout) => self.input(Input::Timeout),
            }
        }
        // Links notice the end of their receiver, and callers that of their answer.
        drop(self);
        shared.tasks.close();
        shared.tasks.wait().await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Elect { candidate, elected } => {
                metrics::ELECTION_STARTED.add(1);
                let span = Span::root(Scope::Election, "election");
                let asked = Asked { since: Instant::now(), span, elected };
                if let Some(older) = self.asked.replace(asked) {
                    let _ = older.elected.send(Err(PortClosed("a newer election replaces this one".into())));
                }
                self.input(Input::Elect(candidate));
            }
            Command::Settled { leader, epoch } => self.input(Input::Settled { leader, epoch }),
            Command::Introduce(standing, roster) => {
                self.shared.greeting.send_modify(|greeting| {
                    (greeting.standing, greeting.roster) = (standing, roster.clone());
                });
                self.turn(|shell, now| shell.introduce(now, standing, roster));
            }
            Command::Withdraw => {
                self.asked = None;
                self.input(Input::Withdraw);
            }
        }
    }

    fn publish_links(&self) {
        let peers: BTreeSet<PeerId> = self.shell.links().map(|(peer, _)| peer).collect();
        metrics::ELECTION_LINKS.set(peers.len() as u64);
        self.peers.send_replace(peers);
    }

    /// Adds an event to the election's span when this server changes its vote or its round.
    fn note_vote(&mut self, before: Option<Notification>) {
        let Some(span) = self.asked.as_mut().and_then(|asked| asked.span.as_mut()) else { return };
        let Some(now) = self.shell.notification().filter(|now| Some(*now) != before) else { return };
        let Some(vote) = now.vote else { return };
        span.event(
            "vote",
            [
                KeyValue::new("quorate.leader", i64::from(vote.leader.0)),
                KeyValue::new("quorate.zxid", vote.candidate.zxid.to_string()),
                KeyValue::new("quorate.epoch", i64::from(vote.candidate.epoch.0)),
                KeyValue::new("quorate.election.round", now.round.0 as i64),
            ],
        );
    }

    fn input(&mut self, input: Input) {
        self.turn(|shell, now| shell.handle(now, input));
    }

    /// Passes one event to the shell and carries out its effects.
    fn turn(&mut self, event: impl FnOnce(&mut Shell<Slot>, Time)) {
        let now = Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX));
        let before = self.shell.notification();
        event(&mut self.shell, now);
        self.note_vote(before);
        let _lines = lines(self.asked.as_ref().and_then(|asked| asked.span.as_ref())).entered();
        while let Some(effect) = self.shell.poll_effect() {
            match effect {
                Effect::Links => self.publish_links(),
                // The link ends with its slot.
                Effect::Close(_, slot) => drop(slot),
                Effect::Send(to, notification) => {
                    if let Some(slot) = self.shell.link_mut(to) {
                        slot.send_replace(Some(notification));
                    }
                }
                Effect::Elected { leader, round } => {
                    let Some(mut asked) = self.asked.take() else { continue };
                    if let Some(span) = &mut asked.span {
                        span.set("quorate.leader", i64::from(leader.0));
                        span.set("quorate.election.round", round.0 as i64);
                    }
                    metrics::ELECTION_DURATION.record(asked.since.elapsed());
                    tracing::info!(%leader, %round, took = ?asked.since.elapsed(), "leader elected");
                    // The caller may be gone.
                    let _ = asked.elected.send(Ok(leader));
                }
            }
        }
    }
}

/// Waits until the core's `time`; for ever without one.
async fn at(origin: Instant, time: Option<Time>) {
    match time {
        Some(Time(micros)) => sleep_until(origin + Duration::from_micros(micros)).await,
        None => std::future::pending().await,
    }
}

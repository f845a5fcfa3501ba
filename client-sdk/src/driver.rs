//! The task behind a client: carries the outputs of the session machine out and feeds it what arrives.

use std::{future, pin::Pin, sync::Arc, time::Duration};

use api::{
    OpError, SessionId, Time, Trace,
    session::{Op, Request},
    watch::WatchSpec,
};
use client_core::{Connection, Event, Input, Machine, Output};
use proto::{client as wire, v1};
use spans::Span;
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::{Instant, Sleep},
};
use tonic::{Streaming, transport::Endpoint};

use crate::{
    SessionEvent,
    clock::Clock,
    listeners::{Listener, Listeners},
    transport::{self, Opened},
    waiters::{End, Space, Waiters},
};

/// What a [`Client`](crate::Client) asks of its task. Bounded by the room that each request takes before.
#[derive(Debug)]
pub(crate) enum Command {
    Request {
        op: Op,
        deadline: Option<Instant>,
        trace: Trace,
        space: Space,
        end: oneshot::Sender<End>,
        /// Ends with the request.
        span: Option<Span>,
    },
    Watch {
        spec: WatchSpec,
        listener: Listener,
    },
    Unwatch {
        id: u32,
    },
    /// See [`Input::Unpark`].
    Unpark {
        id: u32,
    },
    Close {
        end: oneshot::Sender<End>,
    },
}

/// The state of the session, for tasks that wait for a change.
#[derive(Clone, Default, Debug)]
pub(crate) struct Progress {
    /// The open session, even if no connection carries it at the moment.
    pub(crate) session: Option<SessionId>,
    /// The endpoint that carries it, `None` while there is no connection.
    pub(crate) endpoint: Option<usize>,
    /// Of each endpoint, why the last attempt failed.
    pub(crate) failures: Vec<Option<OpError>>,
    /// The client is at its end.
    pub(crate) closed: bool,
}

pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) waiters: Waiters,
    pub(crate) listeners: Listeners,
    pub(crate) endpoints: Arc<[(String, Endpoint)]>,
    /// Of each opening.
    pub(crate) credentials: Vec<v1::Credential>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) events: broadcast::Sender<SessionEvent>,
    pub(crate) progress: watch::Sender<Progress>,
    /// The machine's.
    pub(crate) clock: Clock,
}

/// The present connection.
enum Link {
    None,
    Dialing(Connection, Pin<Box<dyn Future<Output = Result<Opened, OpError>> + Send>>),
    Up(Connection, Box<Streaming<v1::SessionResponse>>),
}

/// What a [`Link`] brings.
enum Arrival {
    Opened(Connection, Opened),
    Message(Connection, v1::SessionResponse),
    Ended(Connection, OpError),
}

impl Driver {
    /// Runs until the last client is gone and the session is closed.
    pub(crate) async fn run(mut self) {
        let mut link = Link::None;
        let mut outgoing: Option<mpsc::Sender<v1::SessionRequest>> = None;
        let mut commands = Vec::with_capacity(COMMANDS_MAX);
        let mut clients_left = true;
        let mut alarm = Alarm::new();
        loop {
            self.carry_out(&mut link, &mut outgoing);
            let Some(timeout) = self.machine.next_timeout() else { break };
            alarm.set(self.clock.look_at(timeout));
            tokio::select! {
                count = self.commands.recv_many(&mut commands, COMMANDS_MAX), if clients_left => {
                    clients_left = count > 0;
                    for command in commands.drain(..) {
                        self.on_command(command);
                    }
                    if !clients_left {
                        self.give(Input::Close { ticket: None });
                    }
                }
                arrival = next(&mut link) => match arrival {
                    Arrival::Opened(connection, opened) => {
                        link = Link::Up(connection, opened.incoming);
                        outgoing = Some(opened.outgoing);
                        self.on_message(connection, opened.first);
                    }
                    Arrival::Message(connection, message) => self.on_message(connection, message),
                    Arrival::Ended(connection, error) => {
                        link = Link::None;
                        self.give(Input::Disconnected { connection, error });
                    }
                },
                // The machine is asked for a message only when there is a place for it: until then, more can join it.
                taken = has_place(&outgoing), if self.machine.wants_to_transmit() => {
                    let now = self.now();
                    if !taken {
                        // The stream takes no more; its reading side will say why.
                        outgoing = None;
                    } else if let (Some(outgoing), Some(batch)) = (&outgoing, self.machine.poll_transmit(now)) {
                        // Fails only if the stream ended just now; then it is all sent again.
                        let _ = outgoing.try_send(session_request(batch));
                    }
                }
                () = alarm.wait() => {
                    if self.now() >= timeout {
                        self.give(Input::Tick);
                    }
                }
            }
        }
        self.progress.send_modify(|p| (p.session, p.endpoint, p.closed) = (None, None, true));
        // Later requests fail with the reason of the end.
        while let Some(command) = self.commands.recv().await {
            self.on_command(command);
            self.carry_out(&mut link, &mut outgoing);
        }
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn give(&mut self, input: Input) {
        let now = self.now();
        self.machine.handle(now, input);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Request { op, deadline, trace, space, end, span } => {
                let ticket = self.waiters.add(end, Some(space), span);
                self.give(Input::Request {
                    ticket,
                    op,
                    deadline: deadline.map(|at| self.clock.at(at)),
                    trace,
                });
            }
            Command::Watch { spec, listener } => {
                self.listeners.add(spec.id, listener);
                self.give(Input::Watch { spec });
            }
            Command::Unwatch { id } => {
                self.listeners.remove(id);
                self.give(Input::Unwatch { id });
            }
            Command::Unpark { id } => self.give(Input::Unpark { id }),
            Command::Close { end } => {
                let ticket = self.waiters.add(end, None, None);
                self.give(Input::Close { ticket: Some(ticket) });
            }
        }
    }

    fn on_message(&mut self, connection: Connection, message: v1::SessionResponse) {
        let input = match wire::items(message) {
            Ok(items) => Input::Items { connection, items },
            Err(e) => {
                let error = OpError::Internal(format!("the node sent a {e}"));
                Input::Disconnected { connection, error }
            }
        };
        self.give(input);
    }

    fn carry_out(&mut self, link: &mut Link, outgoing: &mut Option<mpsc::Sender<v1::SessionRequest>>) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect { connection, endpoint, open } => {
                    let Some((name, endpoint)) = self.endpoints.get(endpoint) else { continue };
                    tracing::debug!(endpoint = %name, resume = open.resume.is_some(), "connecting");
                    let open = v1::OpenSession { credentials: self.credentials.clone(), ..open.into() };
                    let dial = transport::open(endpoint.clone(), open);
                    *outgoing = None;
                    *link = Link::Dialing(connection, Box::pin(dial));
                }
                Output::Disconnect { .. } => {
                    // There is only one at a time.
                    *outgoing = None;
                    *link = Link::None;
                }
                Output::AttemptFailed { endpoint, error } => {
                    tracing::debug!(endpoint = %self.name(endpoint), %error, "no session there");
                    self.progress.send_modify(|p| {
                        if let Some(slot) = p.failures.get_mut(endpoint) {
                            *slot = Some(error);
                        }
                    });
                }
                Output::Done { ticket, zxid, result } => self.waiters.end(ticket, End { zxid, result }),
                Output::Watch { id, news } => {
                    if self.listeners.tell(id, news) {
                        self.give(Input::Park { id });
                    }
                }
                Output::Event(event) => self.on_event(event),
            }
        }
        self.waiters.give_room_back();
    }

    fn on_event(&mut self, event: Event) {
        let event = match event {
            Event::Connected { session, endpoint, node } => {
                self.progress.send_modify(|p| (p.session, p.endpoint) = (Some(session), Some(endpoint)));
                SessionEvent::Connected { session, endpoint: self.name(endpoint), node }
            }
            Event::Disconnected { endpoint, error } => {
                self.progress.send_modify(|p| p.endpoint = None);
                SessionEvent::Disconnected { endpoint: self.name(endpoint), error }
            }
            Event::Suspended => SessionEvent::Suspended,
            Event::Resumed { endpoint, node } => {
                SessionEvent::Resumed { endpoint: self.name(endpoint), node }
            }
            Event::SessionLost { session } => {
                self.progress.send_modify(|p| (p.session, p.endpoint) = (None, None));
                SessionEvent::SessionLost { session }
            }
        };
        tracing::debug!(?event, "session");
        // Listeners are optional.
        let _ = self.events.send(event);
    }

    fn name(&self, endpoint: usize) -> String {
        self.endpoints.get(endpoint).map(|(name, _)| name.clone()).unwrap_or_default()
    }
}

/// Waits for ever if there is no connection. Nothing is lost if the waiting is given up.
async fn next(link: &mut Link) -> Arrival {
    match link {
        Link::None => future::pending().await,
        Link::Dialing(connection, dial) => match dial.await {
            Ok(opened) => Arrival::Opened(*connection, opened),
            Err(error) => Arrival::Ended(*connection, error),
        },
        Link::Up(connection, incoming) => match incoming.message().await {
            Ok(Some(message)) => Arrival::Message(*connection, message),
            Ok(None) => Arrival::Ended(*connection, transport::ended()),
            Err(status) => Arrival::Ended(*connection, transport::lost(&status)),
        },
    }
}

/// Waits until there is a place for one message. The place stays free, because this is the only sender. False when the stream takes no
/// more.
async fn has_place<T>(outgoing: &Option<mpsc::Sender<T>>) -> bool {
    match outgoing {
        Some(outgoing) => outgoing.reserve().await.is_ok(),
        None => future::pending().await,
    }
}

/// A timer that is set again with nearly every message, mostly to a later time. It only moves for an earlier one; if it
/// goes off too early, nothing is due and it is set again. That keeps the runtime's timer wheel out of the hot path.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new() -> Alarm {
        Alarm { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    fn set(&mut self, at: Instant) {
        if at < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(at);
        }
    }

    async fn wait(&mut self) {
        self.sleep.as_mut().await;
    }
}

fn session_request(batch: client_core::Batch) -> v1::SessionRequest {
    let requests: Vec<Request> = batch.requests;
    v1::SessionRequest {
        open: None,
        requests: requests.into_iter().filter_map(wire::request_to_wire).collect(),
        acked_write: batch.acked.0,
    }
}

/// Commands taken in one turn.
const COMMANDS_MAX: usize = 1024;

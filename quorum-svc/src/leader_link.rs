//! The leader's end of the streams to a learner.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::{
    Epoch, PeerId, Zxid,
    peer::{Acquaintance, ToLearner},
};
use proto::peer::{self as wire, quorum_server};
use proto::pieces::{Assembly, pieces};
use proto::quorum::{LeaderFrame, LearnerFrame};
use quorum_core::{Conn, Input};
use quorum_log::Snapshots;
use quorum_shell::{Command, Ended, Frame, Got, LogView, Outgoing, Read, Sent, ToSend};
use spans::{KeyValue, Lines, Scope, Span, lines};
use telemetry::{Mode, metrics};
use tls::Caller;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::acquaintances::Acquaintances;
use crate::driver::{Event, Links};
use crate::outbox::{Item, Lanes, Open, Outbox};
use crate::polled::{Polled, Source};

/// A message in its wire form.
type Message = Result<wire::LeaderMessage, Status>;
type Messages = Pin<Box<dyn Stream<Item = Message> + Send>>;

/// Interval of keep-alive messages on an idle data stream.
pub(crate) const IDLE: Duration = Duration::from_secs(1);
/// Maximum weight of the entries of one message: large enough to amortise the message. A single entry
/// may be larger.
const PROPOSE_BYTES: usize = 256 << 10;
/// Maximum number of queued commands for one learner. They merge, so only a learner that does not read
/// at all reaches it.
pub(crate) const OUTBOX_LIMIT: usize = 64 << 10;

impl Item for Command {
    fn merge(queue: &mut VecDeque<Command>, new: Command) -> Option<Command> {
        Command::merge(queue, new)
    }
}

impl Item for ToLearner {
    /// A later commit or ping covers an earlier one.
    fn merge(queue: &mut VecDeque<ToLearner>, new: ToLearner) -> Option<ToLearner> {
        use ToLearner::{Commit, Ping};
        let same = |item: &&mut ToLearner| {
            matches!((&new, &**item), (Commit(_), Commit(_)) | (Ping { .. }, Ping { .. }))
        };
        match queue.iter_mut().find(same) {
            Some(older) => {
                *older = new;
                None
            }
            None => Some(new),
        }
    }
}

/// The driver's queues for one learner.
pub(crate) type ToOneLearner = Lanes<Command, ToLearner>;

/// Links that wait for their second stream, by the link number that the first stream announced.
pub(crate) type Halves = Arc<Mutex<BTreeMap<u64, (PeerId, oneshot::Sender<Control>)>>>;

/// The header that assigns a stream to a link.
pub(crate) const LINK: &str = "quorate-link";

/// The second stream of a link.
pub(crate) struct Control {
    from_learner: Streaming<wire::LearnerMessage>,
    /// Receives the source of the opposite direction.
    commands: oneshot::Sender<Commands>,
}

/// The gRPC service `quorate.peer.v1.Quorum`: learners dial it.
pub struct LearnService {
    pub(crate) acquaintances: Acquaintances,
    pub(crate) links: Links,
    pub(crate) view: LogView,
    pub(crate) snapshots: Snapshots,
    pub(crate) halves: Halves,
    /// Timeout for silence of a learner on its first stream.
    pub(crate) silence: Duration,
}

#[tonic::async_trait]
impl quorum_server::Quorum for LearnService {
    type LearnStream = Messages;
    type ControlStream = Messages;

    async fn learn(
        &self,
        request: Request<Streaming<wire::LearnerMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let caller = Caller::of(&request)?;
        let mut from_learner = request.into_inner();
        let first =
            from_learner.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let Ok(LearnerFrame::Hello(hello)) = LearnerFrame::try_from(first) else {
            return Err(Status::invalid_argument("the first message must be a Hello"));
        };
        let (peer, said) = self.greet(hello, &caller).await?;
        let hello = LeaderFrame::Hello(self.acquaintances.hello(peer, said).await);
        let (to_learner, stream) = After::new(Some(hello.into()));
        let number = getrandom::u64().map_err(|e| Status::internal(format!("no random numbers: {e}")))?;
        let half = Half {
            conn: self.links.next_conn(),
            peer,
            number,
            from_learner,
            to_learner,
            view: self.view.clone(),
            snapshots: self.snapshots.clone(),
            silence: self.silence,
            acquaintances: self.acquaintances.clone(),
        };
        let (tell, control) = oneshot::channel();
        halves(&self.halves).insert(number, (peer, tell));
        self.links.spawn(half.run(self.halves.clone(), control));
        let mut response: Response<Messages> = Response::new(Box::pin(Polled::new(stream)));
        response.metadata_mut().insert(LINK, number.into());
        // The listener reserves a connection slot for this peer.
        response.extensions_mut().insert(peer);
        Ok(response)
    }

    async fn control(
        &self,
        request: Request<Streaming<wire::LearnerMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let number = request.metadata().get(LINK).and_then(|n| n.to_str().ok()?.parse().ok());
        let half = number.and_then(|number: u64| halves(&self.halves).remove(&number));
        let (peer, half) =
            half.ok_or_else(|| Status::failed_precondition("there is no such link; call Learn first"))?;
        Caller::of(&request)?.check_member(peer).map_err(Status::failed_precondition)?;
        let (commands, stream) = After::new(None);
        let control = Control { from_learner: request.into_inner(), commands };
        half.send(control).map_err(|_| Status::failed_precondition("the link is gone"))?;
        let mut response: Response<Messages> = Response::new(Box::pin(Polled::new(stream)));
        // This stream has a connection of its own, which needs a slot as well.
        response.extensions_mut().insert(peer);
        Ok(response)
    }

    async fn meet(&self, request: Request<wire::Hello>) -> Result<Response<wire::Hello>, Status> {
        let caller = Caller::of(&request)?;
        let (peer, said) = self.greet(request.into_inner(), &caller).await?;
        let mut response = Response::new(self.acquaintances.hello(peer, said).await);
        response.extensions_mut().insert(peer);
        Ok(response)
    }
}

impl LearnService {
    /// Processes the first message of a server that dialled: its id, which its certificate must name, and its
    /// incarnations.
    async fn greet(&self, hello: wire::Hello, caller: &Caller) -> Result<(PeerId, Acquaintance), Status> {
        if let Err(why) = caller.check_member(PeerId(hello.id)) {
            self.acquaintances.refused(PeerId(hello.id), &why);
            return Err(Status::failed_precondition(why));
        }
        let told = hello.clone();
        let peer = self.acquaintances.check(hello, None).map_err(Status::failed_precondition)?.id;
        let said = self.acquaintances.greeted(peer, &told).await.map_err(Status::unavailable)?;
        self.acquaintances.heard(peer);
        Ok((peer, said))
    }
}

fn halves(halves: &Halves) -> MutexGuard<'_, BTreeMap<u64, (PeerId, oneshot::Sender<Control>)>> {
    // No code under this lock panics half way.
    halves.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A learner that has called `Learn` and has not yet called `Control`.
struct Half {
    conn: Conn,
    peer: PeerId,
    number: u64,
    from_learner: Streaming<wire::LearnerMessage>,
    to_learner: oneshot::Sender<Sender>,
    acquaintances: Acquaintances,
    view: LogView,
    snapshots: Snapshots,
    silence: Duration,
}

impl Half {
    async fn run(self, waiting: Halves, control: oneshot::Receiver<Control>) {
        let control = tokio::time::timeout(self.acquaintances.open_limit, control).await;
        halves(&waiting).remove(&self.number);
        let Half {
            conn, peer, mut from_learner, to_learner, acquaintances, view, snapshots, silence, ..
        } = self;
        let links = acquaintances.links.clone();
        let Ok(Ok(Control { from_learner: mut control, commands })) = control else {
            return tracing::debug!(%peer, "a learner did not call `Control`");
        };
        let lanes = Open(Lanes::new(OUTBOX_LIMIT));
        if !links.send(Event::LearnerLink { conn, peer, lanes: lanes.0.clone() }).await {
            return;
        }
        let sender = Sender {
            peer,
            links: links.clone(),
            view,
            snapshots,
            outbox: lanes.0.data.clone(),
            sync: None,
            outgoing: Outgoing::default(),
            ready: VecDeque::new(),
        };
        // If a stream has ended in the meantime, its outbox is closed.
        drop(to_learner.send(sender));
        drop(commands.send(Commands { outbox: lanes.0.control.clone(), ready: VecDeque::new() }));
        tokio::select! {
            () = receive(&links, conn, peer, &mut from_learner, Some(silence)) => {}
            () = receive(&links, conn, peer, &mut control, None) => {}
            () = lanes.0.closed() => {}
        }
        drop(lanes);
        acquaintances.lost(peer);
        links.send(Event::Core(Input::Disconnected { conn })).await;
    }
}

/// Passes the learner's messages to the driver until the stream ends, or is silent for longer than the limit.
async fn receive(
    links: &Links,
    conn: Conn,
    peer: PeerId,
    stream: &mut Streaming<wire::LearnerMessage>,
    silence: Option<Duration>,
) {
    let mut assembly = Assembly::default();
    loop {
        let message = match within(silence, stream.message()).await {
            Some(Ok(Some(message))) => message,
            Some(Ok(None)) => return,
            Some(Err(status)) => {
                tracing::debug!(%peer, %status, "the stream from a learner broke");
                return;
            }
            None => return tracing::warn!(%peer, "nothing comes over the stream from a learner; dropped it"),
        };
        let message = match assembly.take(message) {
            Ok(Some(message)) => message,
            Ok(None) => continue,
            Err(error) => return tracing::warn!(%peer, %error, "dropped the learner"),
        };
        match LearnerFrame::try_from(message) {
            Ok(LearnerFrame::Message(message)) => {
                if !links.send(Event::Core(Input::FromLearner { conn, message })).await {
                    return;
                }
            }
            Ok(LearnerFrame::Idle) => {}
            Ok(LearnerFrame::Hello(_)) => return tracing::warn!(%peer, "a second Hello; dropped the learner"),
            Err(error) => return tracing::warn!(%peer, %error, "dropped the learner"),
        }
    }
}

/// Returns `None` on a timeout.
pub(crate) async fn within<T>(limit: Option<Duration>, what: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, what).await.ok(),
        None => Some(what.await),
    }
}

/// The messages of a stream to a learner: first an optional message, then those of a source that exists
/// once the link is complete.
struct After<S> {
    first: Option<wire::LeaderMessage>,
    awaited: Option<oneshot::Receiver<S>>,
    source: Option<S>,
}

impl<S> After<S> {
    /// Also returns the sender for the source. If it is dropped unused, the stream ends.
    fn new(first: Option<wire::LeaderMessage>) -> (oneshot::Sender<S>, After<S>) {
        let (source, awaited) = oneshot::channel();
        (source, After { first, awaited: Some(awaited), source: None })
    }
}

impl<S: Source<Message = wire::LeaderMessage>> Source for After<S> {
    type Message = Message;

    async fn next(&mut self) -> Option<Message> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        if let Some(awaited) = self.awaited.take() {
            self.source = awaited.await.ok();
        }
        self.source.as_mut()?.next().await.map(Ok)
    }
}

/// Commands that must not wait behind data.
struct Commands {
    outbox: Outbox<ToLearner>,
    ready: VecDeque<ToLearner>,
}

impl Source for Commands {
    type Message = wire::LeaderMessage;

    async fn next(&mut self) -> Option<wire::LeaderMessage> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(LeaderFrame::Message(message).into());
            }
            self.ready = self.outbox.take().await?;
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// Turns commands into messages as fast as the stream accepts them.
struct Sender {
    peer: PeerId,
    links: Links,
    view: LogView,
    snapshots: Snapshots,
    outbox: Outbox<Command>,
    outgoing: Outgoing,
    /// The current synchronisation of the learner.
    sync: Option<Sync>,
    /// Remaining pieces of the last item.
    ready: VecDeque<wire::LeaderMessage>,
}

/// A synchronisation in progress.
struct Sync {
    mode: Mode,
    since: Instant,
    bytes: usize,
    span: Option<Span>,
}

impl Sync {
    fn begin(peer: PeerId, mode: Mode, from: Zxid) -> Sync {
        let mut span = Span::root(Scope::Quorum, "quorum.synchronise");
        if let Some(span) = &mut span {
            span.set("quorate.peer", i64::from(peer.0));
            let chosen = [
                KeyValue::new("quorate.sync.mode", mode.name()),
                KeyValue::new("quorate.zxid", from.to_string()),
            ];
            span.event("mode chosen", chosen);
            span.set("quorate.sync.mode", mode.name());
        }
        Sync { mode, since: Instant::now(), bytes: 0, span }
    }

    /// All missing entries of the learner, up to `target`, are sent.
    fn end(mut self, epoch: Epoch, target: Zxid) {
        metrics::SYNC_DURATION.at(self.mode).record(self.since.elapsed());
        if let Some(span) = &mut self.span {
            span.set("quorate.epoch", i64::from(epoch.0));
            span.set("quorate.zxid", target.to_string());
            span.set("quorate.sync.bytes", self.bytes as i64);
        }
    }
}

impl Source for Sender {
    type Message = wire::LeaderMessage;

    async fn next(&mut self) -> Option<wire::LeaderMessage> {
        while self.ready.is_empty() {
            match self.next_frame().await {
                Ok(frame) => self.ready.extend(pieces(wire::LeaderMessage::from(frame))),
                Err(Ended(failure)) => {
                    if let Some(failure) = failure {
                        self.links.fail(failure.to_string());
                    }
                    return None;
                }
            }
        }
        // The driver may have dropped this learner in the middle of a large message.
        self.ready.pop_front().filter(|_| !self.outbox.is_closed())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

impl Sender {
    async fn next_frame(&mut self) -> Result<LeaderFrame, Ended> {
        loop {
            match self.outgoing.poll() {
                ToSend::Frame(frame) => return Ok(self.frame(frame)),
                ToSend::Read(what) => {
                    let got = read(what, &self.view, &self.snapshots, PROPOSE_BYTES).await;
                    let Sent { frame, tell } = self.outgoing.got(got, &self.snapshots);
                    if let Some(input) = tell {
                        self.links.send(Event::Core(input)).await;
                    }
                    return Ok(self.frame(frame?));
                }
                ToSend::Wait => match within(Some(IDLE), self.outbox.take()).await {
                    Some(commands) => {
                        let commands = commands.ok_or(Ended(None))?;
                        commands.into_iter().for_each(|command| self.outgoing.push(command));
                    }
                    None => return Ok(LeaderFrame::Idle),
                },
            }
        }
    }

    fn frame(&mut self, frame: Frame) -> LeaderFrame {
        self.observe(&frame);
        match frame {
            Frame::Message(message) => LeaderFrame::Message(message),
            Frame::SnapStart(zxid, level, roster) => LeaderFrame::SnapStart(zxid, level, roster),
            Frame::SnapChunk(chunk) => LeaderFrame::SnapChunk(chunk),
            Frame::SnapEnd => LeaderFrame::SnapEnd,
        }
    }

    /// Counts and times synchronisations.
    fn observe(&mut self, frame: &Frame) {
        let peer = self.peer;
        let (mode, from) = match frame {
            Frame::Message(ToLearner::Diff { after }) => (Mode::Diff, *after),
            Frame::Message(ToLearner::Trunc { to }) => (Mode::Trunc, *to),
            Frame::SnapStart(zxid, ..) => (Mode::Snap, *zxid),
            Frame::Message(ToLearner::NewLeader { epoch, target, .. }) => {
                if let Some(sync) = self.sync.take() {
                    sync.end(*epoch, *target);
                }
                return;
            }
            Frame::Message(ToLearner::Propose { entries, .. }) if self.sync.is_some() => {
                return self.count_sync(entries.iter().map(api::Entry::weight).sum());
            }
            Frame::SnapChunk(chunk) => return self.count_sync(chunk.len()),
            Frame::SnapEnd => return self.lines().in_scope(|| tracing::info!(%peer, "snapshot sent")),
            Frame::Message(_) => return,
        };
        metrics::SYNC_STARTED.at(mode).add(1);
        self.sync = Some(Sync::begin(peer, mode, from));
        if let Frame::SnapStart(zxid, ..) = frame {
            self.lines().in_scope(|| tracing::info!(%peer, %zxid, "sending a snapshot"));
        }
    }

    fn count_sync(&mut self, bytes: usize) {
        if let Some(sync) = &mut self.sync {
            sync.bytes += bytes;
            metrics::SYNC_IO.at(sync.mode).add(bytes as u64);
        }
    }

    /// A span for log lines about the synchronisation.
    fn lines(&self) -> Lines {
        lines(self.sync.as_ref().and_then(|sync| sync.span.as_ref()))
    }
}

/// Reads entries that are not in memory, outside of the tasks.
pub(crate) async fn read(what: Read, view: &LogView, snapshots: &Snapshots, max_bytes: usize) -> Got {
    match what.from_memory(view, max_bytes) {
        Ok(got) => got,
        Err(what) => {
            let (view, snapshots) = (view.clone(), snapshots.clone());
            blocking(move || what.carry_out(&view, &snapshots, max_bytes)).await
        }
    }
}

/// Runs disk work outside of the tasks; a panic in it continues in the caller.
pub(crate) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_much_is_proposed_a_slow_learner_costs_three_commands() {
        let lanes = ToOneLearner::new(10);
        for i in 0..1000 {
            assert!(lanes.data.push(Command::Entries { after: Zxid(i), upto: Zxid(i + 1), commit: None }));
            assert!(lanes.control.push(ToLearner::Commit(Zxid(i))));
            assert!(lanes.control.push(ToLearner::Ping { round: i, quorum_ms: 0 }));
        }
        assert_eq!((lanes.data.len(), lanes.control.len()), (1, 2));
    }
}

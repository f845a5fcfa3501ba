//! The leader's end of the stream to a learner.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Instant;

use api::{
    Epoch, PeerId, Zxid,
    peer::{Acquaintance, ToLearner},
};
use proto::peer::{self as wire, quorum_server};
use proto::quorum::{LeaderFrame, LearnerFrame};
use quorum_core::{Conn, Input};
use quorum_log::{ReadError, SnapshotError, Snapshots};
use telemetry::{
    Mode, metrics,
    trace::{Scope, Span, lines},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::acquaintances::Acquaintances;
use crate::driver::{Event, Links};
use crate::outbox::{Item, Outbox};
use crate::view::LogView;

/// Entries of one message, by weight: large enough to amortise the message, small enough to keep pings moving.
const PROPOSE_BYTES: usize = 256 << 10;
/// Messages between the sender task and the socket.
const SEND_QUEUE: usize = 8;
/// Commands for one learner. They merge, so only a learner that does not read at all gets here.
pub(crate) const OUTBOX_LIMIT: usize = 64 << 10;

/// What the leader's driver wants sent to one learner. A slow learner costs a few of these, whatever the load: entries
/// stay in the log until the stream has room.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Send {
    Message(ToLearner),
    Entries { after: Zxid, upto: Zxid },
    Snapshot(Zxid),
}

impl Item for Send {
    fn merge(queue: &mut VecDeque<Send>, new: Send) -> Option<Send> {
        use ToLearner::{Commit, Ping};
        match new {
            // Entries may overtake a commit or a ping that waits behind the entries before them.
            Send::Entries { after, upto } => {
                let last =
                    queue.iter_mut().rev().find(|s| !matches!(s, Send::Message(Commit(_) | Ping { .. })));
                match last {
                    Some(Send::Entries { upto: end, .. }) if *end == after => {
                        *end = upto;
                        None
                    }
                    _ => Some(new),
                }
            }
            // A learner keeps a commit in mind until it has the entries.
            Send::Message(Commit(zxid)) => {
                let last = queue
                    .iter_mut()
                    .rev()
                    .find(|s| !matches!(s, Send::Entries { .. } | Send::Message(Ping { .. })));
                match last {
                    Some(Send::Message(Commit(last))) => {
                        *last = zxid;
                        None
                    }
                    _ => Some(new),
                }
            }
            // The answer to a later ping answers the earlier ones too.
            Send::Message(Ping { .. }) => {
                queue.retain(|s| !matches!(s, Send::Message(Ping { .. })));
                Some(new)
            }
            _ => Some(new),
        }
    }
}

/// The gRPC service `quorate.peer.v1.Quorum`: learners dial it.
pub struct LearnService {
    pub(crate) acquaintances: Acquaintances,
    pub(crate) links: Links,
    pub(crate) view: LogView,
    pub(crate) snapshots: Snapshots,
}

#[tonic::async_trait]
impl quorum_server::Quorum for LearnService {
    type LearnStream = Pin<Box<dyn Stream<Item = Result<wire::LeaderMessage, Status>> + std::marker::Send>>;

    async fn learn(
        &self,
        request: Request<Streaming<wire::LearnerMessage>>,
    ) -> Result<Response<Self::LearnStream>, Status> {
        let mut from_learner = request.into_inner();
        let first =
            from_learner.message().await?.ok_or_else(|| Status::invalid_argument("an empty stream"))?;
        let Ok(LearnerFrame::Hello(hello)) = LearnerFrame::try_from(first) else {
            return Err(Status::invalid_argument("the first message must be a Hello"));
        };
        let (peer, said) = self.greet(hello).await?;
        let conn = self.links.next_conn();
        let outbox = Outbox::new(OUTBOX_LIMIT);
        let (to_learner, stream) = mpsc::channel(SEND_QUEUE);
        let hello = LeaderFrame::Hello(self.acquaintances.hello(peer, said).await);
        // The queue is empty, so this cannot wait.
        let _ = to_learner.send(Ok(hello.into())).await;
        if !self.links.send(Event::LearnerLink { conn, peer, outbox: outbox.clone() }).await {
            return Err(Status::unavailable("shutting down"));
        }

        let (view, snapshots) = (self.view.clone(), self.snapshots.clone());
        let links = self.links.clone();
        let commands = outbox.clone();
        let sender =
            Sender { links: links.clone(), view, snapshots, to_learner, outbox: commands, sync: None };
        self.links.spawn(sender.run(peer));
        self.links.spawn(async move {
            tokio::select! {
                () = receive(&links, conn, peer, &mut from_learner) => outbox.close(),
                () = outbox.closed() => {}
            }
            links.send(Event::Core(Input::Disconnected { conn })).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn meet(&self, request: Request<wire::Hello>) -> Result<Response<wire::Hello>, Status> {
        let (peer, said) = self.greet(request.into_inner()).await?;
        Ok(Response::new(self.acquaintances.hello(peer, said).await))
    }
}

impl LearnService {
    /// Takes in the first message of somebody who dialled: who it is, and what it says of incarnations.
    async fn greet(&self, hello: wire::Hello) -> Result<(PeerId, Acquaintance), Status> {
        let told = hello.clone();
        let peer = self.acquaintances.check(hello, None).map_err(Status::failed_precondition)?;
        let said = self.acquaintances.greeted(peer, &told).await.map_err(Status::unavailable)?;
        Ok((peer, said))
    }
}

/// Hands the learner's messages to the driver, until the stream ends.
async fn receive(links: &Links, conn: Conn, peer: PeerId, stream: &mut Streaming<wire::LearnerMessage>) {
    loop {
        let message = match stream.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(status) => {
                tracing::debug!(%peer, %status, "the stream from a learner broke");
                return;
            }
        };
        match LearnerFrame::try_from(message) {
            Ok(LearnerFrame::Message(message)) => {
                if !links.send(Event::Core(Input::FromLearner { conn, message })).await {
                    return;
                }
            }
            Ok(LearnerFrame::Hello(_)) => return tracing::warn!(%peer, "a second Hello; dropped the learner"),
            Err(error) => return tracing::warn!(%peer, %error, "dropped the learner"),
        }
    }
}

/// Turns commands into messages as fast as the stream takes them.
struct Sender {
    links: Links,
    view: LogView,
    snapshots: Snapshots,
    to_learner: mpsc::Sender<Result<wire::LeaderMessage, Status>>,
    outbox: Outbox<Send>,
    /// How the learner is brought up to date at present.
    sync: Option<Sync>,
}

/// A synchronisation that is under way.
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
            let said = [("quorate.sync.mode", mode.name().into()), ("quorate.zxid", from.to_string().into())];
            span.event("mode chosen", said);
            span.set("quorate.sync.mode", mode.name());
        }
        Sync { mode, since: Instant::now(), bytes: 0, span }
    }

    /// The learner has been sent all that it lacks, up to `target`.
    fn end(mut self, epoch: Epoch, target: Zxid) {
        metrics::SYNC_DURATION.at(self.mode).record(self.since.elapsed());
        if let Some(span) = &mut self.span {
            span.set("quorate.epoch", i64::from(epoch.0));
            span.set("quorate.zxid", target);
            span.set("quorate.sync.bytes", self.bytes as i64);
        }
    }
}

/// The stream is over; no more to say than that.
struct Ended;

impl Sender {
    async fn run(mut self, peer: PeerId) {
        loop {
            let commands = tokio::select! {
                commands = self.outbox.take() => commands,
                // The learner went away: nothing can be sent any more.
                () = self.to_learner.closed() => None,
            };
            let Some(commands) = commands else { break };
            for command in commands {
                if self.carry_out(peer, command).await.is_err() {
                    self.outbox.close();
                    return;
                }
            }
        }
        self.outbox.close();
    }

    /// Counts and times synchronisations.
    fn observe(&mut self, peer: PeerId, command: &Send) {
        let (mode, from) = match command {
            Send::Message(ToLearner::Diff { after }) => (Mode::Diff, *after),
            Send::Message(ToLearner::Trunc { to }) => (Mode::Trunc, *to),
            Send::Snapshot(zxid) => (Mode::Snap, *zxid),
            Send::Message(ToLearner::NewLeader { epoch, target, .. }) => {
                if let Some(sync) = self.sync.take() {
                    sync.end(*epoch, *target);
                }
                return;
            }
            Send::Message(_) | Send::Entries { .. } => return,
        };
        metrics::SYNC_STARTED.at(mode).add(1);
        self.sync = Some(Sync::begin(peer, mode, from));
    }

    fn count_sync(&mut self, bytes: usize) {
        if let Some(sync) = &mut self.sync {
            sync.bytes += bytes;
            metrics::SYNC_IO.at(sync.mode).add(bytes as u64);
        }
    }

    async fn carry_out(&mut self, peer: PeerId, command: Send) -> Result<(), Ended> {
        self.observe(peer, &command);
        match command {
            Send::Message(message) => self.send(LeaderFrame::Message(message)).await,
            Send::Entries { mut after, upto } => {
                while after < upto {
                    let entries =
                        self.view.read_after(after, upto, PROPOSE_BYTES).await.map_err(|error| {
                            // If a purge overtook this learner it will come back and get a snapshot. Damage would keep it
                            // coming back for ever: this node stops, and heals when it is started again.
                            tracing::warn!(%peer, %error, "cannot read the log for a learner; dropped it");
                            if let ReadError::Log(error) = error {
                                self.links.fail(error.to_string());
                            }
                            Ended
                        })?;
                    let Some(last) = entries.last() else { return Err(Ended) };
                    let prev = std::mem::replace(&mut after, last.zxid);
                    if self.sync.is_some() {
                        self.count_sync(entries.iter().map(api::Entry::weight).sum());
                    }
                    self.send(LeaderFrame::Message(ToLearner::Propose { prev, entries })).await?;
                }
                Ok(())
            }
            Send::Snapshot(zxid) => {
                let sent = self.send_snapshot(peer, zxid).await;
                // A damaged one no longer counts; the next attempt is made with what is left.
                if self.snapshots.latest() != Some(zxid) {
                    let left = self.snapshots.latest();
                    self.links.send(Event::Core(Input::SnapshotsLeft { newest: left })).await;
                }
                sent
            }
        }
    }

    /// A span for lines about the synchronisation.
    fn lines(&self) -> tracing::Span {
        lines(self.sync.as_ref().and_then(|sync| sync.span.as_ref()))
    }

    async fn send_snapshot(&mut self, peer: PeerId, zxid: Zxid) -> Result<(), Ended> {
        let links = self.links.clone();
        let failed = |error: SnapshotError| {
            tracing::warn!(%peer, %zxid, %error, "cannot read the snapshot for a learner; dropped it");
            if let SnapshotError::Disk(_) = error {
                links.fail(error.to_string());
            }
            Ended
        };
        self.lines().in_scope(|| tracing::info!(%peer, %zxid, "sending a snapshot"));
        let snapshots = self.snapshots.clone();
        let mut reader = blocking(move || snapshots.read(zxid)).await.map_err(&failed)?;
        self.send(LeaderFrame::SnapStart(zxid)).await?;
        let mut bytes = 0;
        loop {
            let (back, chunk) = blocking(move || {
                let chunk = reader.next_chunk();
                (reader, chunk)
            })
            .await;
            reader = back;
            let Some(chunk) = chunk.map_err(&failed)? else { break };
            bytes += chunk.len();
            self.count_sync(chunk.len());
            self.send(LeaderFrame::SnapChunk(chunk)).await?;
        }
        self.lines().in_scope(|| tracing::info!(%peer, %zxid, bytes, "snapshot sent"));
        self.send(LeaderFrame::SnapEnd).await
    }

    async fn send(&self, frame: LeaderFrame) -> Result<(), Ended> {
        tokio::select! {
            sent = self.to_learner.send(Ok(frame.into())) => sent.map_err(|_| Ended),
            // The driver has dropped this learner, which may be why it does not read.
            () = self.outbox.closed() => Err(Ended),
        }
    }
}

/// Runs disk work off the tasks; a panic there goes on here.
pub(crate) async fn blocking<T: std::marker::Send + 'static>(
    f: impl FnOnce() -> T + std::marker::Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_much_is_proposed_a_slow_learner_costs_three_commands() {
        let outbox = Outbox::new(10);
        for i in 0..1000 {
            assert!(outbox.push(Send::Entries { after: Zxid(i), upto: Zxid(i + 1) }));
            assert!(outbox.push(Send::Message(ToLearner::Commit(Zxid(i)))));
            assert!(outbox.push(Send::Message(ToLearner::Ping { round: i })));
        }
        assert_eq!(outbox.len(), 3);
    }

    #[test]
    fn other_messages_keep_their_place() {
        let mut queue = VecDeque::new();
        for item in [
            Send::Entries { after: Zxid(0), upto: Zxid(1) },
            Send::Message(ToLearner::UpToDate { commit: Zxid(1) }),
            Send::Entries { after: Zxid(1), upto: Zxid(2) },
            Send::Entries { after: Zxid(5), upto: Zxid(6) },
        ] {
            let left = Send::merge(&mut queue, item);
            queue.extend(left);
        }
        assert_eq!(queue.len(), 4);
    }
}

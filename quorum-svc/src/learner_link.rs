//! The learner's end of the streams to its leader.

use std::collections::VecDeque;
use std::time::Duration;

use api::PeerId;
use api::peer::{Acquaintance, ToLeader};
use proto::peer::{self as wire, quorum_client::QuorumClient};
use proto::pieces::{Assembly, pieces};
use proto::quorum::{LeaderFrame, LearnerFrame};
use quorum_core::{Conn, Input};
use quorum_log::Snapshots;
use quorum_shell::{Incoming, Part};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use crate::acquaintances::Acquaintances;
use crate::backlog::Backlog;
use crate::driver::{Event, Links};
use crate::leader_link::{IDLE, LINK, OUTBOX_LIMIT, blocking, within};
use crate::outbox::{Item, Lanes, Open, Outbox};
use crate::polled::{Polled, Source};

/// Time limit for a connection attempt, after which it is retried.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Interval of progress messages to the leader while a snapshot is processed.
const PROGRESS: Duration = Duration::from_millis(500);
/// HTTP/2 windows: one batch of entries in flight and one being read.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Payload limit of one message with writes for the leader; a single write may be larger.
const FORWARD_BYTES: usize = 256 << 10;

impl Item for ToLeader {
    fn merge(queue: &mut VecDeque<ToLeader>, new: ToLeader) -> Option<ToLeader> {
        match (new, queue.back_mut()) {
            (ToLeader::Ack(zxid), Some(ToLeader::Ack(last))) => {
                *last = zxid;
                None
            }
            (ToLeader::Forward(mut more), Some(ToLeader::Forward(batch))) => {
                batch.append(&mut more);
                None
            }
            (new, _) => Some(new),
        }
    }
}

/// The dependencies of a link to a leader, without its address.
#[derive(Clone)]
pub(crate) struct LearnerSide {
    pub(crate) acquaintances: Acquaintances,
    pub(crate) links: Links,
    pub(crate) snapshots: Snapshots,
    pub(crate) backlog: Backlog,
    /// Timeout for silence of the leader on the first stream.
    pub(crate) silence: Duration,
}

/// The driver's queues for the leader.
pub(crate) type ToItsLeader = Lanes<ToLeader, ToLeader>;

/// Both streams to a leader.
struct Link {
    /// The opposite direction.
    lanes: Open<ToLeader, ToLeader>,
    from_leader: Streaming<wire::LeaderMessage>,
    control: Streaming<wire::LeaderMessage>,
}

impl LearnerSide {
    /// One attempt, after a delay; the driver receives a link or a failure.
    pub(crate) async fn connect(self, leader: PeerId, address: String, delay: Duration) {
        tokio::time::sleep(delay).await;
        let attempt = tokio::time::timeout(self.acquaintances.open_limit, self.open(leader, &address)).await;
        match attempt {
            Ok(Ok(link)) => self.run(leader, link).await,
            Ok(Err(error)) => {
                tracing::debug!(%leader, address, error, "cannot connect to the leader");
                self.acquaintances.lost(leader);
                self.links.send(Event::Core(Input::ConnectFailed { leader })).await;
            }
            Err(_) => {
                tracing::warn!(
                    %leader, address,
                    "no link to the leader within timing.sync_limit; raise it if the members are that far apart"
                );
                self.acquaintances.lost(leader);
                self.links.send(Event::Core(Input::ConnectFailed { leader })).await;
            }
        }
    }

    async fn open(&self, leader: PeerId, address: &str) -> Result<Link, String> {
        let channel = self.dial(leader, address).await?;
        // The leader must know this incarnation before this server acknowledges anything in it.
        self.acquaintances.meet_over(leader, channel.clone()).await?;
        let lanes = Open(ToItsLeader::new(OUTBOX_LIMIT));
        let hello = LearnerFrame::Hello(self.acquaintances.hello(leader, Acquaintance::default()).await);
        let ready = VecDeque::from([hello.into()]);
        let data = ToLeaderSource { outbox: lanes.0.data.clone(), idle: Some(IDLE), ready };
        let response = client(channel).learn(Polled::new(data)).await.map_err(|status| {
            if status.code() == tonic::Code::FailedPrecondition {
                self.acquaintances.refused(leader, status.message());
            }
            status.to_string()
        })?;
        let number =
            response.metadata().get(LINK).cloned().ok_or("a leader that does not number the link")?;
        let mut from_leader = response.into_inner();
        let first = from_leader.message().await.map_err(|s| s.to_string())?.ok_or("an empty stream")?;
        match LeaderFrame::try_from(first) {
            Ok(LeaderFrame::Hello(hello)) => {
                let told = hello.clone();
                self.acquaintances.check(hello, Some(leader))?;
                self.acquaintances.greeted(leader, &told).await?;
            }
            _ => return Err("the first message was no Hello".into()),
        }
        // On a separate connection, because data in the buffers of the first one would delay it.
        let urgent = ToLeaderSource { outbox: lanes.0.control.clone(), idle: None, ready: VecDeque::new() };
        let mut request = tonic::Request::new(Polled::new(urgent));
        request.metadata_mut().insert(LINK, number);
        let control =
            client(self.dial(leader, address).await?).control(request).await.map_err(|s| s.to_string())?;
        Ok(Link { lanes, from_leader, control: control.into_inner() })
    }

    async fn dial(&self, leader: PeerId, address: &str) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| format!("{address} is no host:port: {e}"))?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_LIMIT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        self.acquaintances.dialer.connect(&endpoint, leader).await.map_err(|e| chain(&e))
    }

    async fn run(self, leader: PeerId, link: Link) {
        let conn = self.links.next_conn();
        let Link { lanes, mut from_leader, mut control } = link;
        if !self.links.send(Event::LeaderLink { conn, leader, lanes: lanes.0.clone() }).await {
            return;
        }
        let ended = tokio::select! {
            ended = self.receive(conn, leader, &mut from_leader) => ended,
            ended = self.receive_control(conn, &mut control) => ended,
            () = lanes.0.closed() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::info!(%leader, error, "the stream from the leader ended");
        }
        drop(lanes);
        self.acquaintances.lost(leader);
        self.links.send(Event::Core(Input::Disconnected { conn })).await;
    }

    async fn receive_control(
        &self,
        conn: Conn,
        stream: &mut Streaming<wire::LeaderMessage>,
    ) -> Result<(), String> {
        while let Some(message) = stream.message().await.map_err(|s| s.to_string())? {
            let LeaderFrame::Message(message) = LeaderFrame::try_from(message).map_err(|e| e.to_string())?
            else {
                return Err("what is no control message on the stream for them".into());
            };
            if !self.links.send(Event::Core(Input::FromLeader { conn, message })).await {
                return Ok(());
            }
        }
        Err("closed by the leader".into())
    }

    async fn receive(
        &self,
        conn: Conn,
        leader: PeerId,
        stream: &mut Streaming<wire::LeaderMessage>,
    ) -> Result<(), String> {
        // As with an entry of an unknown version: the learner must not skip it, and a retry does not help.
        let refused = |e: proto::Malformed| {
            self.acquaintances.refused(leader, &e.0);
            e.to_string()
        };
        let mut snapshot = Incoming::default();
        let mut assembly = Assembly::default();
        loop {
            // A slow disk delays only the stream from the leader to this learner.
            self.backlog.room().await;
            let message = within(Some(self.silence), stream.message()).await.ok_or("no byte for too long")?;
            let message = message.map_err(|s| s.to_string())?.ok_or("closed by the leader")?;
            let input = match assembly.take(message).map_err(|e| e.to_string())? {
                None => Input::SnapshotProgress { conn },
                Some(message) => match LeaderFrame::try_from(message).map_err(refused)? {
                    LeaderFrame::Hello(_) => return Err("a second Hello".into()),
                    LeaderFrame::Idle => continue,
                    LeaderFrame::Message(message) => Input::FromLeader { conn, message },
                    LeaderFrame::SnapStart(zxid, level, roster) => {
                        self.take(conn, &mut snapshot, Part::Start(zxid, level, roster)).await?
                    }
                    LeaderFrame::SnapChunk(chunk) => {
                        self.take(conn, &mut snapshot, Part::Chunk(chunk)).await?
                    }
                    LeaderFrame::SnapEnd => self.take(conn, &mut snapshot, Part::End).await?,
                },
            };
            if !self.links.send(Event::Core(input)).await {
                return Ok(());
            }
        }
    }

    async fn take(&self, conn: Conn, snapshot: &mut Incoming, part: Part) -> Result<Input, String> {
        let (mut incoming, snapshots) = (std::mem::take(snapshot), self.snapshots.clone());
        let taking = blocking(move || {
            let taken = incoming.take(&snapshots, part);
            (incoming, taken)
        });
        tokio::pin!(taking);
        // The last part writes the snapshot and reads it again. That takes time if the snapshot is large.
        let (incoming, taken) = loop {
            tokio::select! {
                taken = &mut taking => break taken,
                () = tokio::time::sleep(PROGRESS) => {
                    self.links.send(Event::Core(Input::SnapshotProgress { conn })).await;
                }
            }
        };
        *snapshot = incoming;
        match taken {
            Ok(Some(message)) => Ok(Input::FromLeader { conn, message }),
            Ok(None) => Ok(Input::SnapshotProgress { conn }),
            Err(broken) => {
                if let Some(failure) = broken.failure {
                    self.links.fail(failure.to_string());
                }
                Err(broken.why)
            }
        }
    }
}

fn client(channel: Channel) -> QuorumClient<Channel> {
    QuorumClient::new(channel)
        .max_decoding_message_size(proto::PEER_MESSAGE_MAX)
        .max_encoding_message_size(proto::PEER_MESSAGE_MAX)
}

/// The messages of one stream: everything that the driver queues, until either side ends.
struct ToLeaderSource {
    outbox: Outbox<ToLeader>,
    /// Interval of keep-alive messages on an idle stream.
    idle: Option<Duration>,
    ready: VecDeque<wire::LearnerMessage>,
}

impl Source for ToLeaderSource {
    type Message = wire::LearnerMessage;

    async fn next(&mut self) -> Option<wire::LearnerMessage> {
        while self.ready.is_empty() {
            let frames: Vec<LearnerFrame> = match within(self.idle, self.outbox.take()).await {
                Some(messages) => {
                    messages?.into_iter().flat_map(batches).map(LearnerFrame::Message).collect()
                }
                None => vec![LearnerFrame::Idle],
            };
            self.ready.extend(frames.into_iter().flat_map(|frame| pieces(wire::LearnerMessage::from(frame))));
        }
        // The driver may have abandoned this leader in the middle of a large message.
        self.ready.pop_front().filter(|_| !self.outbox.is_closed())
    }
}

impl Drop for ToLeaderSource {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

/// Writes that waited for this leader may exceed one message.
fn batches(message: ToLeader) -> Vec<ToLeader> {
    let ToLeader::Forward(submissions) = message else { return vec![message] };
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for submission in submissions {
        // A large write has its own message: it may fill it.
        if bytes + submission.payload.len() > FORWARD_BYTES && !piece.is_empty() {
            pieces.push(ToLeader::Forward(std::mem::take(&mut piece)));
            bytes = 0;
        }
        bytes += submission.payload.len();
        piece.push(submission);
    }
    if !piece.is_empty() {
        pieces.push(ToLeader::Forward(piece));
    }
    pieces
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Ticket, ports::PAYLOAD_MAX};
    use bytes::Bytes;
    use quorum_core::Submission;

    #[test]
    fn many_writes_leave_in_several_messages_and_in_their_order() {
        let write =
            |t| Submission { ticket: Ticket(t), payload: Bytes::from(vec![0; 100 << 10]), trace: None };
        let pieces = batches(ToLeader::Forward((0..10).map(write).collect()));
        assert!(pieces.len() >= 3, "{}", pieces.len());
        let tickets: Vec<u64> = pieces
            .iter()
            .flat_map(|p| match p {
                ToLeader::Forward(s) => s.iter().map(|s| s.ticket.0).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(tickets, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_write_that_may_fill_a_message_goes_alone() {
        let write =
            |t, size| Submission { ticket: Ticket(t), payload: Bytes::from(vec![0; size]), trace: None };
        let pieces =
            batches(ToLeader::Forward(vec![write(1, 200 << 10), write(2, PAYLOAD_MAX), write(3, 1)]));
        assert_eq!(pieces.len(), 3);
    }
}

//! The learner's end of the stream to its leader.

use std::collections::VecDeque;
use std::time::Duration;

use api::PeerId;
use api::peer::{Acquaintance, ToLeader, ToLearner};
use proto::peer::{self as wire, quorum_client::QuorumClient};
use proto::quorum::{LeaderFrame, LearnerFrame};
use quorum_core::{Conn, Input};
use quorum_log::{SnapshotError, SnapshotWriter, Snapshots};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use crate::acquaintances::Acquaintances;
use crate::backlog::Backlog;
use crate::driver::{Event, Links};
use crate::leader_link::{OUTBOX_LIMIT, blocking};
use crate::outbox::{Item, Outbox};

/// An attempt to connect takes this long at most; then it is tried anew.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How often the leader hears that work on its snapshot goes on.
const PROGRESS: Duration = Duration::from_millis(500);
/// HTTP/2 windows: a batch of entries in flight and one being read.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Payload of one message with writes for the leader; one write may be larger.
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

/// Everything a link to a leader needs besides its address.
#[derive(Clone)]
pub(crate) struct LearnerSide {
    pub(crate) acquaintances: Acquaintances,
    pub(crate) links: Links,
    pub(crate) snapshots: Snapshots,
    pub(crate) backlog: Backlog,
}

impl LearnerSide {
    /// One attempt, after a delay; the driver hears of a link or of a failure.
    pub(crate) async fn connect(self, leader: PeerId, address: String, delay: Duration) {
        tokio::time::sleep(delay).await;
        let attempt = tokio::time::timeout(CONNECT_LIMIT, self.open(leader, &address)).await;
        match attempt {
            Ok(Ok((outbox, to_leader, stream))) => self.run(leader, outbox, to_leader, stream).await,
            Ok(Err(error)) => {
                tracing::debug!(%leader, address, error, "cannot connect to the leader");
                self.links.send(Event::Core(Input::ConnectFailed { leader })).await;
            }
            Err(_) => {
                tracing::debug!(%leader, address, "connecting to the leader takes too long");
                self.links.send(Event::Core(Input::ConnectFailed { leader })).await;
            }
        }
    }

    async fn open(
        &self,
        leader: PeerId,
        address: &str,
    ) -> Result<(Outbox<ToLeader>, mpsc::Sender<wire::LearnerMessage>, Streaming<wire::LeaderMessage>), String>
    {
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| format!("{address} is no host:port: {e}"))?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_LIMIT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect()
            .await
            .map_err(|e| chain(&e))?;
        // Who acknowledges something in this incarnation has been met in it.
        self.acquaintances.meet_over(leader, channel.clone()).await?;
        let (to_leader, requests) = mpsc::channel(8);
        // The queue is empty, so this cannot wait.
        let hello = LearnerFrame::Hello(self.acquaintances.hello(leader, Acquaintance::default()).await);
        let _ = to_leader.send(hello.into()).await;
        let mut stream = QuorumClient::new(channel)
            .max_decoding_message_size(proto::PEER_MESSAGE_MAX)
            .max_encoding_message_size(proto::PEER_MESSAGE_MAX)
            .learn(ReceiverStream::new(requests))
            .await
            .map_err(|status| {
                if status.code() == tonic::Code::FailedPrecondition {
                    self.acquaintances.refused(leader, status.message());
                }
                status.to_string()
            })?
            .into_inner();
        let first = stream.message().await.map_err(|s| s.to_string())?.ok_or("an empty stream")?;
        match LeaderFrame::try_from(first) {
            Ok(LeaderFrame::Hello(hello)) => {
                let told = hello.clone();
                self.acquaintances.check(hello, Some(leader))?;
                self.acquaintances.greeted(leader, &told).await?;
            }
            _ => return Err("the first message was no Hello".into()),
        }
        Ok((Outbox::new(OUTBOX_LIMIT), to_leader, stream))
    }

    async fn run(
        self,
        leader: PeerId,
        outbox: Outbox<ToLeader>,
        to_leader: mpsc::Sender<wire::LearnerMessage>,
        mut stream: Streaming<wire::LeaderMessage>,
    ) {
        let conn = self.links.next_conn();
        if !self.links.send(Event::LeaderLink { conn, leader, outbox: outbox.clone() }).await {
            return;
        }
        let sending = outbox.clone();
        self.links.spawn(async move {
            while let Some(messages) = sending.take().await {
                for message in messages.into_iter().flat_map(pieces) {
                    let sent = tokio::select! {
                        sent = to_leader.send(LearnerFrame::Message(message).into()) => sent.is_ok(),
                        () = sending.closed() => false,
                    };
                    if !sent {
                        sending.close();
                        return;
                    }
                }
            }
        });
        if let Err(error) = self.receive(conn, &outbox, &mut stream).await {
            tracing::info!(%leader, error, "the stream from the leader ended");
        }
        outbox.close();
        self.links.send(Event::Core(Input::Disconnected { conn })).await;
    }

    async fn receive(
        &self,
        conn: Conn,
        outbox: &Outbox<ToLeader>,
        stream: &mut Streaming<wire::LeaderMessage>,
    ) -> Result<(), String> {
        let mut snapshot: Option<SnapshotWriter> = None;
        loop {
            // A slow disk here holds back the leader's stream to this learner, and nothing else.
            self.backlog.room().await;
            let message = tokio::select! {
                message = stream.message() => message.map_err(|s| s.to_string())?.ok_or("closed by the leader")?,
                () = outbox.closed() => return Ok(()),
            };
            let input = match LeaderFrame::try_from(message).map_err(|e| e.to_string())? {
                LeaderFrame::Hello(_) => return Err("a second Hello".into()),
                LeaderFrame::Message(message) => Input::FromLeader { conn, message },
                LeaderFrame::SnapStart(zxid) => {
                    tracing::info!(%zxid, "receiving a snapshot");
                    let snapshots = self.snapshots.clone();
                    snapshot = Some(
                        blocking(move || snapshots.begin_received(zxid)).await.map_err(|e| self.fatal(&e))?,
                    );
                    Input::SnapshotProgress { conn }
                }
                LeaderFrame::SnapChunk(chunk) => {
                    let mut writer = snapshot.take().ok_or("a piece of a snapshot that did not begin")?;
                    let (writer, result) = blocking(move || {
                        let result = writer.chunk(&chunk);
                        (writer, result)
                    })
                    .await;
                    result.map_err(|e| self.fatal(&e))?;
                    snapshot = Some(writer);
                    Input::SnapshotProgress { conn }
                }
                LeaderFrame::SnapEnd => {
                    let writer = snapshot.take().ok_or("the end of a snapshot that did not begin")?;
                    let zxid = writer.zxid();
                    let finish = blocking(move || writer.finish());
                    tokio::pin!(finish);
                    // It is written out and read again, which takes its time for a large one.
                    let finished = loop {
                        tokio::select! {
                            finished = &mut finish => break finished,
                            () = tokio::time::sleep(PROGRESS) => {
                                self.links.send(Event::Core(Input::SnapshotProgress { conn })).await;
                            }
                        }
                    };
                    finished.map_err(|e| self.fatal(&e))?;
                    tracing::info!(%zxid, "snapshot received");
                    Input::FromLeader { conn, message: ToLearner::Snap { zxid } }
                }
            };
            if !self.links.send(Event::Core(input)).await {
                return Ok(());
            }
        }
    }

    /// If it is the disk that failed, the node stops.
    fn fatal(&self, error: &SnapshotError) -> String {
        if error.is_full() {
            tracing::error!(
                "there is no space for the state that the leader sends; it is tried again: {error}"
            );
        } else if let SnapshotError::Disk(_) | SnapshotError::Damaged { .. } = error {
            self.links.fail(error.to_string());
        }
        error.to_string()
    }
}

/// Writes that waited for this leader may be too many for one message, and pongs and acks must not wait behind them.
fn pieces(message: ToLeader) -> Vec<ToLeader> {
    let ToLeader::Forward(submissions) = message else { return vec![message] };
    let mut pieces = Vec::new();
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for submission in submissions {
        // A large one goes alone: it may fill a message.
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
        let pieces = pieces(ToLeader::Forward((0..10).map(write).collect()));
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
        let pieces = pieces(ToLeader::Forward(vec![write(1, 200 << 10), write(2, PAYLOAD_MAX), write(3, 1)]));
        assert_eq!(pieces.len(), 3);
    }
}

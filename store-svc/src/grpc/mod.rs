//! The client API: `quorate.v1` over gRPC.

mod cluster;
mod coordination;
mod node;
mod rate;
mod session;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use api::{
    OpError, PeerId, Trace,
    budget::{Budget, Charge, Share, Slot},
};
use spans::Ratio;
use store_core::server::{Answer, ConnId, Op};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    Bounds,
    driver::{Answered, Aside, FromClient},
    lane::{Lane, REQUEST_MIN},
    trace,
};

pub use cluster::ClusterService;
pub use coordination::CoordinationService;
pub use node::NodeService;
pub(crate) use rate::OpenRate;

/// The way to the driver.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) me: PeerId,
    pub(crate) inputs: mpsc::Sender<FromClient>,
    /// Unbounded, because its senders are drops and polls, which cannot wait. At most one for each call under way and one
    /// for each message of answers, and both are bounded by what clients may have unanswered.
    pub(crate) asides: mpsc::UnboundedSender<Aside>,
    pub(crate) next_conn: Arc<AtomicU64>,
    /// For requests that come without the share of a connection.
    pub(crate) held: Budget,
    /// How fast sessions may be opened.
    pub(crate) opens: Arc<OpenRate>,
    pub(crate) bounds: Bounds,
    /// For requests that come without a trace.
    pub(crate) ratio: Arc<Ratio>,
    pub(crate) tasks: TaskTracker,
}

impl Front {
    /// A number for a new connection.
    fn connect(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    fn lane(&self, conn: ConnId, share: Share) -> Arc<Lane> {
        Arc::new(Lane::new(conn, self.bounds, share, self.asides.clone()))
    }

    /// What the connection says of a request that came on it.
    fn origin<R>(&self, request: &tonic::Request<R>) -> Origin {
        let extensions = request.extensions();
        Origin {
            share: extensions.get().cloned().unwrap_or_else(|| self.held.share()),
            decoded: extensions.get().cloned().unwrap_or_default(),
        }
    }

    /// Tells the driver.
    async fn tell(&self, what: FromClient) -> Result<(), OpError> {
        self.inputs.send(what).await.map_err(|_| self.stopping())
    }

    /// Asks one thing without a session. `trace` is what the client said. What is returned with the answer is to be held until
    /// the client has it.
    async fn call(&self, op: Op, mut trace: Trace, from: &Origin) -> Result<(Answered, Held), OpError> {
        let received = Instant::now();
        let traced = trace::begin(&op, &mut trace, received, &self.ratio);
        let result = self.ask(op, trace, received, from).await;
        if let Some(traced) = traced {
            trace::end(traced, result.as_ref().ok().map(|(a, _)| a.zxid), result.as_ref().err());
        }
        result
    }

    async fn ask(
        &self,
        op: Op,
        trace: Trace,
        received: Instant,
        from: &Origin,
    ) -> Result<(Answered, Held), OpError> {
        let Origin { share, decoded } = from;
        let bytes = weight(&op);
        // Until there is room for it, it counts as a message.
        decoded.shrink_to(bytes);
        let taken = timeout(ROOM_WITHIN, share.take(bytes)).await;
        let request = taken.map_err(|_| no_room("request"))?;
        decoded.set(None);
        let (reply, answer) = oneshot::channel();
        let conn = self.connect();
        let mut call = Call { conn, answer, asides: &self.asides };
        self.tell(FromClient::Unary { conn, op, trace, reply, received }).await?;
        let answered = (&mut call.answer).await.unwrap_or_else(|_| Err(self.stopping()))?;
        // Made already, and shared with the tree; it must not be encoded before there is room.
        let weight = match &answered.answer {
            Answer::Read(outcome) => store_core::server::weight(outcome),
            _ => 0,
        };
        let answer = share.try_take(weight).ok_or_else(|| no_room("answer"))?;
        Ok((answered, Held { _charges: Arc::new((request, answer)) }))
    }

    fn stopping(&self) -> OpError {
        OpError::Unavailable(format!("node {} is shutting down; connect to another node", self.me))
    }
}

/// Where a request came from.
struct Origin {
    /// What its connection may have under way.
    share: Share,
    /// What the message that was decoded last holds of what the connection may send.
    decoded: Slot,
}

/// What a call holds until its client has the answer: to be put into the extensions of the answer.
#[derive(Clone)]
pub(crate) struct Held {
    _charges: Arc<(Charge, Charge)>,
}

fn no_room(for_what: &str) -> OpError {
    OpError::Overloaded(format!(
        "the node has no room for this {for_what} at the moment; read the answers that have come, slow down and try again, here or \
         at another node"
    ))
}

/// A call waits for room for so long.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// A call that waits for its answer. If it is dropped before, because the client has hung up, the driver is told.
struct Call<'a> {
    conn: ConnId,
    answer: oneshot::Receiver<Result<Answered, OpError>>,
    asides: &'a mpsc::UnboundedSender<Aside>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.answer.is_terminated() {
            return;
        }
        // First, so that a driver that learns of it before it has the call finds nobody waiting for that.
        self.answer.close();
        // Without a driver nobody needs to know.
        let _ = self.asides.send(Aside::GivenUp { conn: self.conn });
    }
}

/// Bytes that a request holds while it is under way.
fn weight(op: &Op) -> usize {
    use api::{MultiOp, Read, Write};
    const FIXED: usize = REQUEST_MIN;
    match op {
        Op::Write(Write::Create(c)) => FIXED + c.data.len() + c.path.as_str().len(),
        Op::Write(Write::Set { path, data, .. }) => FIXED + data.len() + path.as_str().len(),
        Op::Write(Write::Delete { path, .. }) => FIXED + path.as_str().len(),
        Op::Write(Write::Multi(parts)) => parts.iter().fold(FIXED, |sum, part| match part {
            MultiOp::Create(c) => sum + FIXED + c.data.len() + c.path.as_str().len(),
            MultiOp::Set { path, data, .. } => sum + FIXED + data.len() + path.as_str().len(),
            MultiOp::Delete { path, .. } | MultiOp::Check { path, .. } => sum + FIXED + path.as_str().len(),
        }),
        Op::Read(Read::Children { path, page }, _) => FIXED + path.as_str().len() + page.after.len(),
        Op::Read(read, _) => FIXED + read.path().as_str().len(),
        Op::Sync | Op::Invalid(_) => FIXED,
        // Whatever others do: they keep and end sessions. A lane bounds how many.
        Op::Ping | Op::Close => 0,
    }
}

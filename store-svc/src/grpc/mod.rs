//! The client API: `quorate.v1` over gRPC.

mod coordination;
mod node;
mod session;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use api::{OpError, PeerId, Trace};
use store_core::server::{ConnId, Op};
use telemetry::trace::Ratio;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    Bounds,
    driver::{Answered, Aside, FromClient},
    lane::Lane,
    trace,
};

pub use coordination::CoordinationService;
pub use node::NodeService;

/// The way to the driver.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) me: PeerId,
    pub(crate) inputs: mpsc::Sender<FromClient>,
    /// Unbounded, because its senders are drops and polls, which cannot wait. At most one for each call under way and one
    /// for each message of answers, and both are bounded by what clients may have unanswered.
    pub(crate) asides: mpsc::UnboundedSender<Aside>,
    pub(crate) next_conn: Arc<AtomicU64>,
    pub(crate) total: Arc<Semaphore>,
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

    fn lane(&self, conn: ConnId) -> Arc<Lane> {
        Arc::new(Lane::new(conn, self.bounds, self.total.clone(), self.asides.clone()))
    }

    /// Tells the driver.
    async fn tell(&self, what: FromClient) -> Result<(), OpError> {
        self.inputs.send(what).await.map_err(|_| self.stopping())
    }

    /// Asks one thing without a session. `trace` is what the client said.
    async fn call(&self, op: Op, mut trace: Trace) -> Result<Answered, OpError> {
        let received = Instant::now();
        let traced = trace::begin(&op, &mut trace, received, &self.ratio);
        let result = self.ask(op, trace, received).await;
        if let Some(traced) = traced {
            trace::end(traced, result.as_ref().ok().map(|a| a.zxid), result.as_ref().err());
        }
        result
    }

    async fn ask(&self, op: Op, trace: Trace, received: Instant) -> Result<Answered, OpError> {
        let bytes = weight(&op).min(self.bounds.total_bytes).min(u32::MAX as usize);
        let room = self.total.clone().acquire_many_owned(bytes as u32).await.map_err(|_| self.stopping())?;
        let (reply, answer) = oneshot::channel();
        let conn = self.connect();
        let mut call = Call { conn, answer, asides: &self.asides };
        self.tell(FromClient::Unary { conn, op, trace, reply, room, received }).await?;
        (&mut call.answer).await.unwrap_or_else(|_| Err(self.stopping()))
    }

    fn stopping(&self) -> OpError {
        OpError::Unavailable(format!("node {} is shutting down; connect to another node", self.me))
    }
}

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
    use api::{MultiOp, Write};
    const FIXED: usize = 128;
    match op {
        Op::Write(Write::Create(c)) => FIXED + c.data.len() + c.path.as_str().len(),
        Op::Write(Write::Set { path, data, .. }) => FIXED + data.len() + path.as_str().len(),
        Op::Write(Write::Delete { path, .. }) => FIXED + path.as_str().len(),
        Op::Write(Write::Multi(parts)) => parts.iter().fold(FIXED, |sum, part| match part {
            MultiOp::Create(c) => sum + FIXED + c.data.len() + c.path.as_str().len(),
            MultiOp::Set { path, data, .. } => sum + FIXED + data.len() + path.as_str().len(),
            MultiOp::Delete { path, .. } | MultiOp::Check { path, .. } => sum + FIXED + path.as_str().len(),
        }),
        Op::Read(read, _) => FIXED + read.path().as_str().len(),
        Op::Sync | Op::Ping | Op::Close | Op::Invalid(_) => FIXED,
    }
}

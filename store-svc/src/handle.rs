//! The port of the store for edges in the same process.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use ::audit::Log;
use api::{
    Identities, OpError, PeerId, SessionToken, StreamId, WriteNumber,
    budget::{Budget, Held},
    ports::{Caller, Coordination, Items, Requests},
    session::{Item, Open, Request, Response},
};
use spans::Ratio;
use store_core::server::{ConnId, Drawn};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    Bounds, audit,
    driver::{Aside, Facts, FromClient},
    lane::{Lane, Load},
    rate::OpenRate,
    trace::{self, Traced},
};

/// The channels to the driver. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    me: PeerId,
    inputs: mpsc::Sender<FromClient>,
    /// Unbounded, because its senders are drops and polls, which cannot wait. There are at most two
    /// messages for each stream or call and one for each message of answers, and the limits of
    /// unanswered requests bound these.
    asides: mpsc::UnboundedSender<Aside>,
    next_conn: Arc<AtomicU64>,
    /// For callers without a share of their own.
    held: Budget,
    opens: Arc<OpenRate>,
    bounds: Bounds,
    /// Samples requests that arrive without a trace.
    ratio: Arc<Ratio>,
    audit: Log,
}

impl Handle {
    pub(crate) fn new(
        me: PeerId,
        bounds: Bounds,
        trace_ratio: f64,
        audit: Log,
        inputs: mpsc::Sender<FromClient>,
        asides: mpsc::UnboundedSender<Aside>,
    ) -> Handle {
        Handle {
            me,
            inputs,
            asides,
            next_conn: Arc::new(AtomicU64::new(1)),
            held: Budget::new(bounds.total_bytes),
            opens: Arc::new(OpenRate::new(bounds.opens_per_second)),
            bounds,
            ratio: Arc::new(Ratio::new(trace_ratio)),
            audit,
        }
    }

    /// Id of the node that answers.
    pub(crate) fn me(&self) -> PeerId {
        self.me
    }

    /// The current state of the store.
    pub(crate) async fn facts(&self) -> Result<Facts, OpError> {
        let (reply, facts) = oneshot::channel();
        self.tell(FromClient::Facts(reply)).await?;
        facts.await.map_err(|_| self.stopping())
    }

    pub(crate) fn stopping(&self) -> OpError {
        OpError::Unavailable(format!("node {} is shutting down; connect to another node", self.me))
    }

    fn connect(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    async fn tell(&self, what: FromClient) -> Result<(), OpError> {
        self.inputs.send(what).await.map_err(|_| self.stopping())
    }

    async fn ask(
        &self,
        caller: Caller,
        request: Request,
        received: Instant,
    ) -> Result<(Response, Held), OpError> {
        let share = caller.share.unwrap_or_else(|| self.held.share());
        let bytes = request.op.weight();
        // Until its capacity is admitted, it counts as a message.
        caller.message.shrink_to(bytes);
        let taken = timeout(ROOM_WITHIN, share.take(bytes)).await;
        let asked = taken.map_err(|_| no_room("request"))?;
        caller.message.set(None);
        let (reply, answer) = oneshot::channel();
        let conn = self.connect();
        let mut call = Call { conn, answer, asides: &self.asides };
        let identities = caller.identities;
        self.tell(FromClient::Unary { conn, request, identities, reply, received }).await?;
        let response = (&mut call.answer).await.unwrap_or_else(|_| Err(self.stopping()))?;
        // The answer exists already and is shared with the tree; it must not be encoded before there is
        // capacity for it.
        let weight = response.result.as_ref().map_or(0, |outcome| outcome.weight());
        let answer = share.try_take(weight).ok_or_else(|| no_room("answer"))?;
        Ok((response, Held::new(vec![asked, answer])))
    }
}

impl Coordination for Handle {
    type Requests = LocalRequests;
    type Items = LocalItems;

    fn stream(&self, caller: Caller) -> (LocalRequests, LocalItems) {
        let conn = self.connect();
        let audit = audit::Stream::new(&self.audit, &caller).map(Arc::new);
        let share = caller.share.unwrap_or_else(|| self.held.share());
        let lane = Arc::new(Lane::new(conn, self.bounds, share, self.asides.clone()));
        let Caller { identities, address, .. } = caller;
        let (handle, items) = (self.clone(), LocalItems { lane: lane.clone(), audit: audit.clone() });
        (LocalRequests { handle, conn, lane, address, identities, audit }, items)
    }

    async fn call(&self, caller: Caller, mut request: Request) -> Result<(Response, Held), OpError> {
        let received = Instant::now();
        request.op = request.op.sessionless()?;
        let traced = trace::begin(&request.op, &mut request.trace, received, &self.ratio);
        let audited = audit::call(&self.audit, &caller, &request.op, &request.trace);
        let result = self.ask(caller, request, received).await;
        if let (Some((who, asked)), Ok((response, _))) = (audited, &result) {
            audit::record(&self.audit, &who, None, asked.as_ref(), response);
        }
        if let Some(traced) = traced {
            let (zxid, error) = match &result {
                Ok((response, _)) => (Some(response.zxid), response.result.as_ref().err()),
                Err(error) => (None, Some(error)),
            };
            trace::end(traced, zxid, error);
        }
        result
    }
}

/// The requests of a client on one stream.
pub struct LocalRequests {
    handle: Handle,
    conn: ConnId,
    lane: Arc<Lane>,
    address: Option<IpAddr>,
    identities: Identities,
    /// If its requests are recorded.
    audit: Option<Arc<audit::Stream>>,
}

impl LocalRequests {
    /// The spans of the traced requests, with their index.
    fn begin_spans(&self, requests: &mut [Request], received: Instant) -> Vec<(usize, Traced)> {
        let begin = |r: &mut Request| trace::begin(&r.op, &mut r.trace, received, &self.handle.ratio);
        requests.iter_mut().enumerate().filter_map(|(i, r)| Some((i, begin(r)?))).collect()
    }
}

impl Requests for LocalRequests {
    async fn open(&mut self, open: Open) -> Result<(), OpError> {
        if open.resume.is_none() {
            let address = self.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
            self.handle.opens.take(address, Instant::now())?;
        }
        let stream = StreamId(u64::from_le_bytes(random()?));
        let drawn = Drawn { token: SessionToken(random()?), stream };
        // Counts like a request: a client without further requests still learns whether the session is open.
        self.lane.admit(Load { requests: 1, ..Load::default() }).await;
        let (lane, identities) = (self.lane.clone(), self.identities.clone());
        self.handle.tell(FromClient::Open { conn: self.conn, open, drawn, identities, lane }).await
    }

    fn identify(&mut self, identities: Identities) {
        self.identities = identities;
    }

    async fn submit(&mut self, acked: WriteNumber, requests: Vec<Request>) -> Result<(), OpError> {
        let received = Instant::now();
        if let Some(audit) = &self.audit {
            audit.asked(&requests);
        }
        let at_once = AT_ONCE.min(self.handle.bounds.stream_requests);
        let mut rest = requests.into_iter();
        loop {
            let mut requests: Vec<Request> = match rest.len() <= at_once {
                true => std::mem::take(&mut rest).collect(),
                false => rest.by_ref().take(at_once).collect(),
            };
            let load = Load::of(&requests);
            if !self.lane.try_admit(load) {
                tokio::select! {
                    () = self.lane.admit(load) => {}
                    () = self.lane.over() => return Ok(()),
                }
            }
            let spans = self.begin_spans(&mut requests, received);
            let conn = self.conn;
            self.handle.tell(FromClient::Requests { conn, acked, requests, spans, received }).await?;
            if rest.len() == 0 {
                return Ok(());
            }
        }
    }

    async fn settled(&self) {
        tokio::select! {
            () = self.lane.settled() => {}
            () = self.over() => {}
        }
    }

    async fn over(&self) {
        tokio::select! {
            () = self.lane.over() => {}
            // The driver did not know this stream yet.
            () = self.handle.inputs.closed() => self.lane.end(Err(self.handle.stopping())),
        }
    }

    fn end(self, why: Result<(), OpError>) {
        self.lane.end(why);
    }
}

impl Drop for LocalRequests {
    fn drop(&mut self) {
        // Before the notification, so that a driver that receives it before it has the stream finds the
        // stream closed.
        self.lane.end(Ok(()));
        // This fails only if the driver has ended.
        let _ = self.handle.asides.send(Aside::GivenUp { conn: self.conn });
    }
}

/// The answers of one stream.
pub struct LocalItems {
    lane: Arc<Lane>,
    /// If its answers are recorded.
    audit: Option<Arc<audit::Stream>>,
}

impl Items for LocalItems {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        into: &mut VecDeque<Item>,
    ) -> Poll<Option<Result<(), OpError>>> {
        let before = into.len();
        let taken = self.lane.poll_take(cx, max, into);
        if let (Some(audit), Poll::Ready(end)) = (&self.audit, &taken) {
            audit.leaves(into.iter().skip(before), end.as_ref());
        }
        taken
    }

    fn taken(&mut self, answers: usize, weight: usize) {
        self.lane.took(answers, weight);
    }
}

impl Drop for LocalItems {
    fn drop(&mut self) {
        // The client is gone, whatever its reader believes.
        self.lane.end(Ok(()));
    }
}

/// A call that waits for its answer. If the client cancels it, the drop notifies the driver.
struct Call<'a> {
    conn: ConnId,
    answer: oneshot::Receiver<Result<Response, OpError>>,
    asides: &'a mpsc::UnboundedSender<Aside>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.answer.is_terminated() {
            return;
        }
        // Before the notification, so that a driver that receives it before it has the call finds no
        // receiver.
        self.answer.close();
        // Without a driver, the notification is not needed.
        let _ = self.asides.send(Aside::GivenUp { conn: self.conn });
    }
}

fn random<const N: usize>() -> Result<[u8; N], OpError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| OpError::Internal(format!("the system has no random numbers: {e}")))?;
    Ok(bytes)
}

fn no_room(for_what: &str) -> OpError {
    OpError::Overloaded(format!(
        "the node has no room for this {for_what} at the moment; read the answers that have come, slow down and try again, here or \
         at another node"
    ))
}

/// Timeout of a call that waits for capacity.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// Maximum number of requests submitted at once.
const AT_ONCE: usize = 512;

//! Writes replies and events to a client.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::pin,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use api::{
    OpError,
    budget::{Charge, Share},
    ports::Items,
    session::{Item, Response},
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use zk_jute::{Body, Code, Event, OpCode, ReplyHeader, xid};

use crate::{
    answers,
    connection::{End, FIRST_PING},
    ledger::{Ledger, Pending, Reply, Wants},
    stats::Listed,
};

/// The half of a connection that writes.
pub(crate) struct Writer<'a, S, I> {
    pub(crate) stream: S,
    pub(crate) items: I,
    pub(crate) ledger: &'a Ledger,
    pub(crate) stats: &'a Listed<'a>,
    /// Bytes that are being sent.
    pub(crate) share: Share,
    /// A third of the session timeout: the writer sends nothing later than this after the last counted request.
    pub(crate) third: Duration,
    /// Items taken from the store but not processed.
    pub(crate) next: VecDeque<Item>,
    /// Encoded but not sent.
    pub(crate) out: BytesMut,
    /// Number of answers in it, and their weight.
    pub(crate) taken: (usize, usize),
    /// Pings that wait for their count: the store's xid, and the arrival time.
    pub(crate) pings: VecDeque<(u64, Instant)>,
    /// The greatest zxid that was sent to the client.
    pub(crate) zxid: i64,
    /// Held for large replies in `out`.
    pub(crate) charges: Vec<Charge>,
    /// The session is closed, so signs of life do not matter.
    pub(crate) closed: bool,
    /// The connection ends after the content of `out`.
    pub(crate) last: bool,
}

impl<S: AsyncWrite + Unpin, I: Items> Writer<'_, S, I> {
    /// Writes until the connection ends.
    pub(crate) async fn run(&mut self) -> Result<End, OpError> {
        loop {
            for reply in self.ledger.take_replies() {
                self.reply(reply);
            }
            while let Some(item) = self.next.pop_front() {
                self.item(item).await?;
                if self.out.len() >= MESSAGE || self.last {
                    break;
                }
            }
            if !self.out.is_empty() || self.taken != (0, 0) {
                self.flush().await?;
            }
            if self.last {
                // The peer may not have read all of it.
                let _ = self.stream.shutdown().await;
                return Ok(End::Closed);
            }
            if self.next.is_empty()
                && let Some(end) = self.more().await
            {
                return end.map(|()| End::Closed);
            }
        }
    }

    /// Waits for items, or for the reader; `Some` at the end of the stream.
    async fn more(&mut self) -> Option<Result<(), OpError>> {
        let Writer { items, next, ledger, .. } = self;
        let mut told = pin!(ledger.for_writer.notified());
        tokio::select! {
            end = poll_fn(|cx| items.poll_take(cx, AT_ONCE, next)) => end,
            () = told.as_mut() => None,
        }
    }

    async fn item(&mut self, item: Item) -> Result<(), OpError> {
        let weight = item.weight();
        match item {
            Item::Response(response) => {
                // The answer to a step belongs to the reader, which reserves room for it.
                if weight > LARGE && !self.ledger.is_step_next() {
                    self.make_room(weight).await?;
                }
                self.response(response, weight)?;
            }
            Item::Confirmed { xid } => self.counted(xid),
            Item::Opened(_) => return Err(OpError::Internal("the session was opened twice".into())),
            // ZooKeeper has no code for it: the client receives nothing, and moves to another server in time.
            Item::Notice(_) | Item::State(_) => {}
            Item::Events(group) => {
                let events = self.ledger.watches.tell(&group);
                self.events(events);
                self.taken.1 += weight;
            }
            Item::Mark(mark) => {
                self.zxid = self.zxid.max(mark.zxid.0.cast_signed());
                self.taken.1 += weight;
            }
            // The client sets its watches again on another connection, and receives the missed events.
            Item::Ended(ended) => return Err(ended.error),
        }
        Ok(())
    }

    /// Reserves room for an answer. The writer first sends everything that it has encoded, and waits for a limited time
    /// only: the reader may hold room that depends on this answer.
    async fn make_room(&mut self, bytes: usize) -> Result<(), OpError> {
        let charge = match self.share.try_take(bytes) {
            Some(charge) => charge,
            None => {
                self.flush().await?;
                if self.last {
                    return Ok(());
                }
                let none = || OpError::Overloaded("there is no room for an answer".into());
                timeout(ROOM_WITHIN, self.share.take(bytes)).await.map_err(|_| none())?
            }
        };
        self.charges.push(charge);
        Ok(())
    }

    fn events(&mut self, events: Vec<Event>) {
        self.stats.told(events.len() as u64);
        for event in events {
            self.zxid = self.zxid.max(event.zxid);
            event.encode(&mut self.out);
        }
    }

    fn response(&mut self, response: Response, weight: usize) -> Result<(), OpError> {
        if response.xid <= FIRST_PING {
            // This answer resumed the session.
            self.items.taken(1, 0);
            return Ok(());
        }
        let Some(Pending { xid, op, wants, since, watch, number }) = self.ledger.pop() else {
            return Err(OpError::Internal("the store has answered what it was not asked".into()));
        };
        // Its number is not consumed, so the store would reject all later writes.
        if number.is_some() && matches!(response.result, Err(OpError::Overloaded(_))) {
            return response.result.map(|_| ());
        }
        match wants {
            Wants::Step => {
                self.items.taken(1, weight);
                self.ledger.give_step(response);
                return Ok(());
            }
            Wants::Ping if response.result.is_ok() => {
                self.zxid = self.zxid.max(response.zxid.0.cast_signed());
                self.pings.push_back((response.xid, since));
                return Ok(());
            }
            Wants::Quiet | Wants::SetAgain | Wants::Added => {
                for (id, error) in answers::refused(&response) {
                    self.ledger.watches.refused([id], answers::code_of(&error)?);
                }
                if matches!(wants, Wants::Quiet) {
                    self.taken.0 += 1;
                    self.taken.1 += weight;
                    return response.result.map(|_| ());
                }
            }
            Wants::Close => (self.closed, self.last) = (true, true),
            Wants::Fixed(ref fixed) if fixed.close => self.last = true,
            _ => {}
        }
        let (zxid, code, body) = answers::reply(wants, response)?;
        self.reply(Reply { xid, op, zxid, code, body, since, watch, room: Vec::new() });
        self.taken.0 += 1;
        self.taken.1 += weight;
        Ok(())
    }

    fn reply(&mut self, reply: Reply) {
        let Reply { xid, op, zxid, mut code, mut body, since, watch, room } = reply;
        self.charges.extend(room);
        let mut seen = Vec::new();
        if let Some(id) = watch {
            // Only exists can watch a missing znode.
            let keep = code == Code::OK || code == Code::NO_NODE && op == OpCode::EXISTS;
            match self.ledger.watches.settle(id, keep) {
                Ok(events) => seen = events,
                Err(refused) => (code, body) = (refused, Body::Nothing),
            }
        }
        self.zxid = self.zxid.max(zxid);
        ReplyHeader { xid, zxid, err: code.0 }.encode(&body, &mut self.out);
        self.stats.answered(xid, zxid, op.0, since);
        self.events(seen);
    }

    /// The leader has counted requests up to this one.
    fn counted(&mut self, last: u64) {
        self.ledger.counted(last);
        while let Some(&(ping, since)) = self.pings.front()
            && ping <= last
        {
            self.pings.pop_front();
            let (xid, op, zxid) = (xid::PING, OpCode::PING, self.zxid);
            let (body, room) = (Body::Nothing, Vec::new());
            self.reply(Reply { xid, op, zxid, code: Code::OK, body, since, watch: None, room });
            self.taken.0 += 1;
        }
    }

    /// Sends the encoded bytes, as soon as that is allowed.
    async fn flush(&mut self) -> Result<(), OpError> {
        let mut later = VecDeque::new();
        while !self.out.is_empty() && !self.may_speak() {
            let Writer { items, .. } = self;
            if let Some(end) = poll_fn(|cx| items.poll_take(cx, AT_ONCE, &mut later)).await {
                return end;
            }
            for item in later.drain(..) {
                match item {
                    Item::Confirmed { xid } => self.counted(xid),
                    item => self.next.push_back(item),
                }
            }
        }
        if self.stream.write_all(&self.out).await.is_err() || self.stream.flush().await.is_err() {
            // The client is gone, or reads nothing.
            self.last = true;
            return Ok(());
        }
        let (answers, weight) = std::mem::take(&mut self.taken);
        if (answers, weight) != (0, 0) {
            self.items.taken(answers, weight);
        }
        self.charges.clear();
        // An idle connection has no buffer.
        self.out = BytesMut::new();
        Ok(())
    }

    fn may_speak(&self) -> bool {
        self.closed || self.ledger.last_counted().is_some_and(|at| at.elapsed() <= self.third)
    }
}

impl<S, I> Drop for Writer<'_, S, I> {
    fn drop(&mut self) {
        self.stats.connection.queued.store(0, Relaxed);
    }
}

/// Maximum number of items taken at once.
const AT_ONCE: usize = 512;

/// The writer sends the encoded bytes at about this size; a single reply may be larger.
const MESSAGE: usize = 256 << 10;

/// Timeout of an answer that waits for room; then the connection ends.
const ROOM_WITHIN: Duration = Duration::from_secs(10);

/// Answers above this size in bytes are charged while they are sent.
const LARGE: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        task::{Context, Poll},
    };

    use api::{WriteNumber, Zxid, budget::Budget};

    use super::*;
    use crate::stats::Stats;

    struct Never;

    impl Items for Never {
        fn poll_take(
            &mut self,
            _: &mut Context<'_>,
            _: usize,
            _: &mut VecDeque<Item>,
        ) -> Poll<Option<Result<(), OpError>>> {
            Poll::Pending
        }

        fn taken(&mut self, _: usize, _: usize) {}
    }

    #[test]
    fn a_numbered_write_for_which_there_is_no_room_ends_the_connection() {
        let (stats, ledger) = (Stats::new(), Ledger::default());
        let listed = stats.enter(SocketAddr::from(([192, 0, 2, 1], 4000)));
        let mut writer = Writer {
            stream: tokio::io::sink(),
            items: Never,
            ledger: &ledger,
            stats: &listed,
            share: Budget::new(1 << 20).share(),
            third: Duration::from_secs(1),
            next: VecDeque::new(),
            out: BytesMut::new(),
            taken: (0, 0),
            pings: VecDeque::new(),
            zxid: 0,
            charges: Vec::new(),
            closed: false,
            last: false,
        };
        for number in [None, Some(WriteNumber(1))] {
            let (op, since) = (OpCode::SET_DATA, Instant::now());
            ledger.push(Pending { xid: 1, op, wants: Wants::Set, since, number, watch: None });
            let result = Err(OpError::Overloaded("full".into()));
            let response = Response { xid: FIRST_PING + 1, zxid: Zxid(1), result, leaderless: false };
            // Without a number, other writes may follow.
            assert_eq!(writer.response(response, 0).is_err(), number.is_some());
        }
    }
}

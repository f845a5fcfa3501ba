//! Calls of their own, outside of any session: one request, one answer, and no second attempt.

use std::collections::BTreeMap;

use api::session::{Item, Op, Outcome as Answered, Response};
use api::{OpError, Zxid};
use history::Call;

use crate::context::Context;
use crate::net::{End, Kind, LinkId, Packet};

/// What one client has asked this way and not been told yet.
#[derive(Default)]
pub(crate) struct Calls {
    waiting: BTreeMap<LinkId, Waiting>,
}

struct Waiting {
    /// Of its operation in the history.
    place: usize,
    /// Until it is sent.
    op: Option<Op>,
    write: bool,
}

/// A call is over.
pub(crate) struct Over {
    /// Of its operation in the history.
    pub(crate) place: usize,
    pub(crate) outcome: history::Outcome,
}

impl Calls {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Asks this node. Returns what the call can be given up by.
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context,
        me: End,
        node: usize,
        call: &Call,
        place: usize,
    ) -> LinkId {
        let op = match call {
            Call::Write(write) => Op::Write(write.clone()),
            Call::Read(read, level) => Op::Read(read.clone(), *level),
            Call::Sync => Op::Sync,
        };
        let link = cx.dial(Kind::Client, me, End::Node(node));
        let write = matches!(op, Op::Write(_));
        self.waiting.insert(link, Waiting { place, op: Some(op), write });
        link
    }

    /// Whether this connection is of a call.
    pub(crate) fn has(&self, link: LinkId) -> bool {
        self.waiting.contains_key(&link)
    }

    pub(crate) fn on_dialed(
        &mut self,
        cx: &mut Context,
        me: End,
        link: LinkId,
        connected: bool,
    ) -> Option<Over> {
        match self.waiting.get_mut(&link)?.op.take() {
            Some(op) if connected => {
                cx.send(link, me, Packet::Unary(op));
                None
            }
            _ => {
                cx.ended(link, me);
                let waiting = self.waiting.remove(&link)?;
                let outcome = history::Outcome::Refused(OpError::Unavailable("no answer".into()));
                Some(Over { place: waiting.place, outcome })
            }
        }
    }

    pub(crate) fn on_packet(
        &mut self,
        cx: &mut Context,
        me: End,
        link: LinkId,
        packet: Packet,
    ) -> Option<Over> {
        let (zxid, result) = match packet {
            Packet::Items(items) => items.into_iter().find_map(|item| match item {
                Item::Response(Response { zxid, result, .. }) => Some((zxid, result)),
                _ => None,
            })?,
            Packet::Fin(Some(why)) => (Zxid::ZERO, Err(why)),
            _ => return self.lose(cx, me, link),
        };
        cx.close(link, me, None);
        let Waiting { place, write, .. } = self.waiting.remove(&link)?;
        Some(Over { place, outcome: outcome(zxid, result, write) })
    }

    /// There will be no answer, because the connection is broken or the caller waits no longer.
    pub(crate) fn lose(&mut self, cx: &mut Context, me: End, link: LinkId) -> Option<Over> {
        let Waiting { place, op, write } = self.waiting.remove(&link)?;
        cx.close(link, me, None);
        let outcome = match write && op.is_none() {
            true => history::Outcome::Unknown,
            false => history::Outcome::Refused(OpError::Unavailable("no answer".into())),
        };
        Some(Over { place, outcome })
    }
}

fn outcome(zxid: Zxid, result: Result<Answered, OpError>, write: bool) -> history::Outcome {
    match result {
        Ok(Answered::Write(outcome)) => history::Outcome::Written { zxid, result: Ok(outcome) },
        Ok(Answered::Read(outcome)) => history::Outcome::Read { zxid, result: Ok(outcome) },
        Ok(_) => history::Outcome::Synced { zxid },
        Err(OpError::Unknown(_)) if write => history::Outcome::Unknown,
        Err(error @ OpError::NoNode(_)) if !write => history::Outcome::Read { zxid, result: Err(error) },
        // What the tree says to a write is said behind its place in the log.
        Err(
            error @ (OpError::NoNode(_)
            | OpError::NodeExists(_)
            | OpError::NotEmpty { .. }
            | OpError::BadVersion { .. }
            | OpError::BadCzxid { .. }
            | OpError::Present { .. }
            | OpError::QuotaExceeded { .. }
            | OpError::NoChildrenForEphemerals(_)
            | OpError::NoAuth { .. }
            | OpError::Multi { .. }),
        ) if write => history::Outcome::Written { zxid, result: Err(error) },
        Err(error) => history::Outcome::Refused(error),
    }
}

//! Spans of traced writes in the quorum, and of the time without a leader. The core forwards trace
//! contexts; this module begins and ends spans as inputs and outputs pass.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use api::peer::ToLeader;
use api::ports::{FeedItem, QuorumStatus, Request, Role};
use api::{Entry, PeerId, Ticket, Zxid};
use spans::{KeyValue, Kind, Scope, Span};

/// Maximum number of open spans of each kind. Above it, a write continues without a span.
const OPEN: usize = 1024;

/// See the [module](self).
pub(crate) struct Traces {
    me: PeerId,
    /// Writes of this node's store.
    submits: BTreeMap<Ticket, Submit>,
    /// Proposals of this node as a leader, in log order.
    proposals: VecDeque<(Zxid, Span)>,
    /// The recovery span, while this node does not serve.
    recovery: Option<Span>,
}

/// A write of this node's store, from its submission until its commit is known.
struct Submit {
    span: Span,
    /// Open while the write travels to the leader and back into the log.
    forward: Option<Span>,
    logged: Option<Zxid>,
}

impl Traces {
    pub(crate) fn new(me: PeerId) -> Traces {
        Traces { me, submits: BTreeMap::new(), proposals: VecDeque::new(), recovery: None }
    }

    /// Begins the spans of traced writes that the store submits.
    pub(crate) fn requests(&mut self, batch: &mut [Request]) {
        for request in batch {
            let Request::Submit { ticket, trace, .. } = request else { continue };
            let Some(parent) = trace.as_deref().filter(|_| self.submits.len() < OPEN) else { continue };
            let span = Span::below(parent, Scope::Quorum, "quorum.submit", Kind::Internal);
            *trace = span.trace();
            self.submits.insert(*ticket, Submit { span, forward: None, logged: None });
        }
    }

    /// Processes a message to the leader just before it is sent.
    pub(crate) fn sent_to_leader(&mut self, message: &mut ToLeader) {
        let ToLeader::Forward(submissions) = message else { return };
        for s in submissions {
            let (Some(parent), Some(submit)) = (s.trace.as_deref(), self.submits.get_mut(&s.ticket)) else {
                continue;
            };
            let span = Span::below(parent, Scope::Quorum, "quorum.forward", Kind::Client);
            s.trace = span.trace();
            submit.forward = Some(span);
        }
    }

    /// Entries are in this node's log. On a leader, they become proposals.
    pub(crate) fn appended(&mut self, entries: &mut [Entry], leading: bool) {
        for entry in entries {
            let Some(parent) = entry.trace.as_deref() else { continue };
            let own = entry.origin.filter(|origin| origin.peer == self.me);
            if let Some(submit) = own.and_then(|origin| self.submits.get_mut(&origin.ticket)) {
                submit.forward = None;
                submit.logged = Some(entry.zxid);
            }
            if leading && self.proposals.len() < OPEN {
                let kind = if own.is_some() { Kind::Internal } else { Kind::Server };
                let mut span = Span::below(parent, Scope::Quorum, "quorum.propose", kind);
                span.set("quorate.zxid", entry.zxid.to_string());
                entry.trace = span.trace();
                self.proposals.push_back((entry.zxid, span));
            }
        }
    }

    /// The log was truncated after `to`: later writes are no longer in it.
    pub(crate) fn truncated(&mut self, to: Zxid) {
        for submit in self.submits.values_mut() {
            submit.logged.take_if(|zxid| *zxid > to);
        }
    }

    /// Ends the spans of all committed entries, at the end of a turn.
    pub(crate) fn committed(&mut self, upto: Zxid) {
        while self.proposals.pop_front_if(|(zxid, _)| *zxid <= upto).is_some() {}
        if !self.submits.is_empty() {
            self.submits.retain(|_, submit| submit.logged.is_none_or(|zxid| zxid > upto));
        }
    }

    /// Processes a message for the store, which may reject one of its writes.
    pub(crate) fn told(&mut self, item: &FeedItem) {
        let (ticket, why) = match item {
            FeedItem::Refused { ticket, why } => (ticket, format!("refused: {why:?}")),
            FeedItem::Lost { ticket } => (ticket, "a snapshot took the place of the log".to_owned()),
            FeedItem::Status(status) => return self.status(status),
            _ => return,
        };
        if let Some(mut submit) = self.submits.remove(ticket) {
            submit.span.fail(why);
        }
    }

    /// Begins the recovery span, when this node starts to look for a leader.
    pub(crate) fn looking(&mut self) {
        let span = self.recovery.take().or_else(|| Span::root(Scope::Quorum, "quorum.recovery"));
        self.recovery = span;
        if let Some(span) = &mut self.recovery {
            span.event("looking", []);
        }
    }

    /// The span of the time without a leader, if one is open.
    pub(crate) fn recovery(&self) -> Option<&Span> {
        self.recovery.as_ref()
    }

    fn status(&mut self, status: &QuorumStatus) {
        if status.role != Role::Leading {
            for (_, mut span) in self.proposals.drain(..) {
                span.fail("this server leads no more");
            }
        }
        let leader = status.leader.map_or(0, |leader| i64::from(leader.0));
        let said =
            [KeyValue::new("quorate.role", role(status.role)), KeyValue::new("quorate.leader", leader)];
        if let Some(span) = &mut self.recovery {
            span.event("status", said);
        }
        if status.serving
            && let Some(mut span) = self.recovery.take()
        {
            span.set("quorate.role", role(status.role));
            span.set("quorate.leader", leader);
            span.set("quorate.epoch", i64::from(status.epoch.0));
        }
    }
}

/// Spans for traced entries that a learner writes to its disk. The log thread ends them.
pub(crate) fn appends(entries: &[Entry], leading: bool) -> Vec<Span> {
    let kind = if leading { Kind::Internal } else { Kind::Consumer };
    let traced = entries.iter().filter_map(|entry| Some((entry.zxid, entry.trace.as_deref()?)));
    let span = |(zxid, parent): (Zxid, &api::TraceContext)| {
        let mut span = Span::below(parent, Scope::Quorum, "quorum.append", kind.clone());
        span.set("quorate.zxid", zxid.to_string());
        span
    };
    traced.map(span).collect()
}

/// Ends the spans of entries that one fsync, begun at `began`, made durable.
pub(crate) fn synced(appends: &mut Vec<Span>, began: SystemTime, entries: usize) {
    if appends.is_empty() {
        return;
    }
    let ended = SystemTime::now();
    for append in appends.drain(..) {
        if let Some(parent) = append.trace() {
            let mut span = Span::below_since(&parent, Scope::Quorum, "quorum.fsync", Kind::Internal, began);
            span.set("quorate.batch.entries", entries as i64);
            span.end_at(ended);
        }
        append.end_at(ended);
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Looking => "looking",
        Role::Following => "follower",
        Role::Leading => "leader",
        Role::Observing => "observer",
    }
}

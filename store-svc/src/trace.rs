//! The spans of requests, from their arrival to their answer.

use std::{collections::VecDeque, time::Instant};

use api::{
    OpError, ReadLevel, Trace, Zxid,
    session::{Item, Op, Request, Response, Verb},
};
use spans::{Ratio, Scope, Span};
use telemetry::metrics;

/// The span of a traced request.
pub(crate) struct Traced {
    span: Span,
    verb: Verb,
    /// Arrival time of the request.
    received: Instant,
}

/// Begins the span of a traced request that arrived at `received`, and makes it the parent of the request.
pub(crate) fn begin(op: &Op, trace: &mut Trace, received: Instant, ratio: &Ratio) -> Option<Traced> {
    let asked = trace.take();
    let verb = op.verb();
    let name = match verb {
        Verb::Create => "store.create",
        Verb::Set => "store.set",
        Verb::Delete => "store.delete",
        Verb::SetAcl => "store.set_acl",
        Verb::GetAcl => "store.get_acl",
        Verb::DeleteTree => "store.delete_tree",
        Verb::SetQuota => "store.set_quota",
        Verb::CountTree => "store.count_tree",
        Verb::ListQuotas => "store.list_quotas",
        Verb::MultiRead => "store.multi_read",
        Verb::Walk => "store.walk",
        Verb::Multi => "store.multi",
        Verb::Get => "store.get",
        Verb::Exists => "store.exists",
        Verb::Children => "store.children",
        Verb::Sync => "store.sync",
        Verb::Ephemerals => "store.ephemerals",
        Verb::AddWatches => "store.add_watches",
        Verb::CancelWatches => "store.cancel_watches",
        Verb::Authenticate | Verb::WhoAmI | Verb::Ping | Verb::Close | Verb::Invalid => return None,
    };
    let mut span = Span::of_server(asked.as_deref(), Scope::Store, name, ratio)?;
    if let Op::Read(_, level) | Op::MultiRead(_, level) = op {
        span.set("quorate.read.level", level_name(level));
    }
    *trace = span.trace();
    Some(Traced { span, verb, received })
}

/// Ends the span of a request that was answered.
pub(crate) fn end(traced: Traced, zxid: Option<Zxid>, error: Option<&OpError>) {
    let Traced { mut span, verb, received } = traced;
    // Only requests that the driver has answered, and therefore timed.
    if let Some(trace) = span.trace().filter(|_| zxid.is_some()) {
        metrics::REQUEST_DURATION.at(verb).exemplify(received.elapsed(), &trace);
    }
    if let Some(zxid) = zxid {
        span.set("quorate.zxid", zxid.to_string());
    }
    if let Some(error) = error {
        span.set("error.type", format!("{:?}", error.code()));
        span.fail(error.to_string());
    }
    let _lines = span.lines().entered();
    tracing::debug!(error = error.map(ToString::to_string), "a traced request is answered");
}

fn level_name(level: &ReadLevel) -> &'static str {
    match level {
        ReadLevel::Stale => "stale",
        ReadLevel::Local => "local",
        ReadLevel::AtLeast(_) => "at_least",
        ReadLevel::Linearizable => "linearizable",
    }
}

/// The open spans of one stream. Requests are answered in order, so a count finds their spans. The
/// number of requests bounds the number of spans.
#[derive(Default)]
pub(crate) struct Open {
    taken: u64,
    answered: u64,
    /// By the position of the request in the stream.
    spans: VecDeque<(u64, Traced)>,
}

impl Open {
    /// Adds requests that the driver accepts; `spans` belong to some of them, by their index.
    pub(crate) fn take_up(&mut self, requests: &[Request], spans: Vec<(usize, Traced)>) {
        let taken = self.taken;
        self.spans.extend(spans.into_iter().map(|(index, traced)| (taken + index as u64, traced)));
        self.taken += requests.len() as u64;
    }

    /// Ends the spans of these answers.
    pub(crate) fn answered(&mut self, items: &[Item]) {
        for item in items {
            let Item::Response(Response { zxid, result, .. }) = item else { continue };
            let place = self.answered;
            self.answered += 1;
            if let Some((_, traced)) = self.spans.pop_front_if(|(of, _)| *of == place) {
                end(traced, Some(*zxid), result.as_ref().err());
            }
        }
    }
}

/// Requests without an answer at the end of the stream: their client sends them again elsewhere.
impl Drop for Open {
    fn drop(&mut self) {
        for (_, traced) in &mut self.spans {
            traced.span.fail("the connection ended before the answer");
        }
    }
}

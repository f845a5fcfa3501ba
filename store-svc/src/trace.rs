//! The spans of requests: from when they came in until they are answered.

use std::collections::VecDeque;

use api::{OpError, Read, ReadLevel, Trace, Write, Zxid};
use store_core::server::{Op, Request, ToClient};
use telemetry::trace::{Ratio, Scope, Span};

/// Begins the span of a request, if it is traced; from then on the request belongs to that.
pub(crate) fn begin(op: &Op, trace: &mut Trace, ratio: &Ratio) -> Option<Span> {
    let name = match op {
        Op::Write(Write::Create(_)) => "store.create",
        Op::Write(Write::Set { .. }) => "store.set",
        Op::Write(Write::Delete { .. }) => "store.delete",
        Op::Write(Write::Multi(_)) => "store.multi",
        Op::Read(Read::Get { .. }, _) => "store.get",
        Op::Read(Read::Exists { .. }, _) => "store.exists",
        Op::Read(Read::Children { .. }, _) => "store.children",
        Op::Sync => "store.sync",
        Op::Ping | Op::Close | Op::Invalid(_) => {
            *trace = None;
            return None;
        }
    };
    let asked = trace.take();
    let mut span = Span::of_server(asked.as_deref(), Scope::Store, name, ratio)?;
    if let Op::Read(_, level) = op {
        span.set("quorate.read.level", level_name(level));
    }
    *trace = span.trace();
    Some(span)
}

/// Ends the span of a request that was answered.
pub(crate) fn end(mut span: Span, zxid: Option<Zxid>, error: Option<&OpError>) {
    if let Some(zxid) = zxid {
        span.set("quorate.zxid", zxid);
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

/// The open spans of one stream. Its requests are answered in their order, so a count finds them; and their number bounds
/// that of the spans.
#[derive(Default)]
pub(crate) struct Open {
    taken: u64,
    answered: u64,
    /// By the place of the request among all of the stream.
    spans: VecDeque<(u64, Span)>,
}

impl Open {
    /// The driver takes up requests, of which some have spans, by their index among these.
    pub(crate) fn take_up(&mut self, requests: &[Request], spans: Vec<(usize, Span)>) {
        let taken = self.taken;
        self.spans.extend(spans.into_iter().map(|(index, span)| (taken + index as u64, span)));
        self.taken += requests.len() as u64;
    }

    /// These answers are on their way.
    pub(crate) fn answered(&mut self, items: &[ToClient]) {
        for item in items {
            let ToClient::Reply { zxid, result, .. } = item else { continue };
            let place = self.answered;
            self.answered += 1;
            if let Some((_, span)) = self.spans.pop_front_if(|(of, _)| *of == place) {
                end(span, Some(*zxid), result.as_ref().err());
            }
        }
    }
}

/// What the stream ends without an answer for: its client sends it again elsewhere.
impl Drop for Open {
    fn drop(&mut self) {
        for (_, span) in &mut self.spans {
            span.fail("the connection ended before the answer");
        }
    }
}

//! The operations on an object, and what stands before what.

use std::collections::HashMap;

use api::{OpError, Path, Read, ReadLevel, ReadOutcome, SessionId, Write, WriteResult};

use crate::{Call as Asked, History, Operation, Outcome};

/// An operation on an object.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Index into the history.
    pub(super) operation: usize,
    /// It takes effect behind this ...
    pub(super) from: u64,
    /// ... and before this.
    pub(super) to: u64,
    pub(super) what: What<'a>,
    /// Indexes of calls that take effect before it.
    pub(super) behind: Vec<usize>,
    /// Of a write of unknown outcome: if this later write of its session has taken effect, it will not any more.
    pub(super) unless: Option<usize>,
    /// Of a write of unknown outcome: the one before it in its session.
    pub(super) after_unknown: Option<usize>,
}

#[derive(Debug)]
pub(super) enum What<'a> {
    Write {
        write: &'a Write,
        /// `None` if it is unknown.
        outcome: Option<&'a WriteResult>,
    },
    Read {
        path: &'a Path,
        outcome: &'a Result<ReadOutcome, OpError>,
    },
}

impl Call<'_> {
    /// Whether it has taken effect for certain.
    pub(super) fn definite(&self) -> bool {
        !matches!(self.what, What::Write { outcome: None, .. })
    }
}

/// The calls on an object, by [`Call::from`].
pub(super) fn of<'a>(history: &'a History, operations: &'a [(usize, Option<Write>)]) -> Vec<Call<'a>> {
    let mut calls: Vec<Call<'a>> =
        operations.iter().filter_map(|(index, write)| call(history, *index, write.as_ref())).collect();
    order_by_client(history, &mut calls);
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|&i| (calls[i].from, i));
    let mut place = vec![0; calls.len()];
    for (new, &old) in order.iter().enumerate() {
        place[old] = new;
    }
    for call in &mut calls {
        let others = call.behind.iter_mut().chain(&mut call.unless).chain(&mut call.after_unknown);
        others.for_each(|i| *i = place[*i]);
    }
    let mut placed: Vec<(usize, Call<'a>)> = place.into_iter().zip(calls).collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, call)| call).collect()
}

fn call<'a>(history: &'a History, index: usize, write: Option<&'a Write>) -> Option<Call<'a>> {
    let operation = &history.operations[index];
    let what = match (&operation.call, &operation.outcome, write) {
        (_, Outcome::Written { result, .. }, Some(write)) => What::Write { write, outcome: Some(result) },
        (_, Outcome::Unknown, Some(write)) => What::Write { write, outcome: None },
        (Asked::Read(Read::Get { path } | Read::Exists { path }, _), Outcome::Read { result, .. }, None) => {
            What::Read { path, outcome: result }
        }
        _ => return None,
    };
    let unknown = matches!(what, What::Write { outcome: None, .. });
    let to = if unknown { u64::MAX } else { operation.returned.unwrap_or(u64::MAX) };
    Some(Call {
        operation: index,
        from: operation.called,
        to,
        what,
        behind: Vec::new(),
        unless: None,
        after_unknown: None,
    })
}

/// Adds the order within sessions, and lets reads that are not linearizable go back in time as far as their clients may.
fn order_by_client(history: &History, calls: &mut [Call<'_>]) {
    let mut before: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut unknown: HashMap<(u32, SessionId), Vec<usize>> = HashMap::new();
    for i in 0..calls.len() {
        let operation = &history.operations[calls[i].operation];
        let earlier = before.entry(operation.client).or_default();
        let must_be_before = |&&e: &&usize| {
            let before = &history.operations[calls[e].operation];
            let overtaken = is_write(operation) && !is_write(before);
            let same_session = operation.session.is_some() && operation.session == before.session;
            before.returned.is_some_and(|returned| returned < operation.called)
                || (same_session && !overtaken)
        };
        let last = |write: bool| {
            let kind = |e: &&usize| is_write(&history.operations[calls[**e].operation]) == write;
            earlier.iter().rev().filter(kind).find(must_be_before).copied()
        };
        calls[i].behind = last(true).into_iter().chain(last(false)).collect();
        if matches!(
            &operation.call,
            Asked::Read(_, ReadLevel::Stale | ReadLevel::Local | ReadLevel::AtLeast(_))
        ) {
            calls[i].from = calls[i].behind.iter().map(|&b| calls[b].from).max().unwrap_or(0);
        }
        let definite = calls[i].definite();
        if definite {
            earlier.push(i);
        }
        if let Some(session) = operation.session
            && is_write(operation)
        {
            let waiting = unknown.entry((operation.client, session)).or_default();
            if definite {
                waiting.drain(..).for_each(|u| calls[u].unless = Some(i));
            } else {
                calls[i].after_unknown = waiting.last().copied();
                waiting.push(i);
            }
        }
    }
}

fn is_write(operation: &Operation) -> bool {
    matches!(operation.call, Asked::Write(_))
}

//! Calls of their own, outside of any session: one request, one answer, and no second attempt. Only a walk goes on, with another
//! request to the same node for each part.

use std::collections::BTreeMap;

use api::session::{Item, Op, Outcome as Answered, Response};
use api::walk::{Walk, WalkAsk, WalkPart};
use api::watch::WatchedZnode;
use api::{OpError, ReadLevel, ReadOutcome, Zxid};
use history::{Call, Outcome};

use crate::asked::{Asked, walked};
use crate::context::{ClientEvent, Context, Event};
use crate::net::{End, Kind, LinkId, Packet};

/// What one client has asked this way and not been told yet.
#[derive(Default)]
pub(crate) struct Calls {
    waiting: BTreeMap<LinkId, Waiting>,
}

struct Waiting {
    /// Of its first operation in the history, and how many it has there.
    place: usize,
    count: usize,
    /// Until it is sent.
    op: Option<Op>,
    write: bool,
    walking: Option<Walking>,
}

struct Walking {
    node: usize,
    walk: Walk,
    level: ReadLevel,
    /// Of the state, once it is known.
    zxid: Option<Zxid>,
    znodes: Vec<WatchedZnode>,
    /// How long the caller waits for a part, in microseconds.
    patience: u64,
}

/// A call is over.
pub(crate) struct Over {
    /// Of its first operation in the history.
    pub(crate) place: usize,
    pub(crate) outcomes: Vec<Outcome>,
    /// Operations that stand for more of its answer, called and answered at the same times.
    pub(crate) more: Vec<(Call, Outcome)>,
}

impl Calls {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Asks this node. The caller waits this long, in microseconds.
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context,
        me: End,
        (node, patience): (usize, u64),
        asked: &Asked,
        place: usize,
    ) {
        let walking = match asked {
            Asked::Walk(walk, level) => {
                let (walk, level, znodes) = (walk.clone(), *level, Vec::new());
                Some(Walking { node, walk, level, zxid: None, znodes, patience })
            }
            _ => None,
        };
        let (count, write) = (asked.calls().len(), asked.is_write());
        let waiting = Waiting { place, count, op: Some(asked.op()), write, walking };
        self.dial(cx, me, (node, patience), waiting);
    }

    fn dial(&mut self, cx: &mut Context, me: End, (node, patience): (usize, u64), waiting: Waiting) {
        let link = cx.dial(Kind::Client, me, End::Node(node));
        self.waiting.insert(link, waiting);
        if let End::Client(client) = me {
            let at = cx.now + patience;
            cx.schedule(at, Event::Client { client, what: ClientEvent::GiveUp { link } });
        }
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
                Some(self.waiting.remove(&link)?.without_answer())
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
        let waiting = self.waiting.remove(&link)?;
        let outcomes = match result {
            Ok(Answered::Walked(part)) if waiting.walking.is_some() => {
                return self.on_part(cx, me, waiting, *part);
            }
            Ok(Answered::MultiRead(results)) => {
                if results.len() != waiting.count {
                    let (told, asked) = (results.len(), waiting.count);
                    cx.ghost.fail("C16 one state", format!("{asked} reads were answered {told} times"));
                }
                let each = results.into_iter().map(|result| result.map(Answered::Read));
                each.map(|result| outcome(zxid, result, false)).collect()
            }
            // A walk without values is a question whether its root is there.
            Err(OpError::NoNode(_)) if waiting.walking.as_ref().is_some_and(|w| !w.walk.with_data) => {
                vec![Outcome::Read { zxid, result: Ok(ReadOutcome::Exists { stat: None }) }]
            }
            result => vec![outcome(zxid, result, waiting.write); waiting.count],
        };
        Some(Over { place: waiting.place, outcomes, more: Vec::new() })
    }

    /// A part of a walk: there is another one, or the walk is over.
    fn on_part(&mut self, cx: &mut Context, me: End, mut waiting: Waiting, part: WalkPart) -> Option<Over> {
        let walking = waiting.walking.as_mut()?;
        let zxid = *walking.zxid.get_or_insert(part.zxid);
        if part.zxid != zxid {
            let what = format!("a walk at {zxid} goes on at {}", part.zxid);
            cx.ghost.fail("C16 one state", what);
        }
        walking.znodes.extend(part.znodes);
        cx.stats.count("parts of walks");
        let Some(end) = part.end else {
            let whom = (walking.node, walking.patience);
            waiting.op = Some(Op::Walk(WalkAsk::Next(part.id)));
            self.dial(cx, me, whom, waiting);
            return None;
        };
        let znodes = std::mem::take(&mut walking.znodes);
        let mut reads = match walked((&walking.walk, walking.level), zxid, znodes, end) {
            Ok(reads) => reads.into_iter(),
            Err(what) => {
                cx.ghost.fail("C16 one state", what);
                return Some(waiting.without_answer());
            }
        };
        cx.stats.count("walks");
        let outcomes = reads.next().into_iter().map(|(_, outcome)| outcome).collect();
        Some(Over { place: waiting.place, outcomes, more: reads.collect() })
    }

    /// There will be no answer, because the connection is broken or the caller waits no longer.
    pub(crate) fn lose(&mut self, cx: &mut Context, me: End, link: LinkId) -> Option<Over> {
        let waiting = self.waiting.remove(&link)?;
        cx.close(link, me, None);
        Some(waiting.without_answer())
    }
}

impl Waiting {
    fn without_answer(self) -> Over {
        let outcome = match self.write && self.op.is_none() {
            true => Outcome::Unknown,
            false => Outcome::Refused(OpError::Unavailable("no answer".into())),
        };
        Over { place: self.place, outcomes: vec![outcome; self.count], more: Vec::new() }
    }
}

fn outcome(zxid: Zxid, result: Result<Answered, OpError>, write: bool) -> Outcome {
    match result {
        Ok(Answered::Write(outcome)) => Outcome::Written { zxid, result: Ok(outcome) },
        Ok(Answered::Read(outcome)) => Outcome::Read { zxid, result: Ok(outcome) },
        Ok(_) => Outcome::Synced { zxid },
        Err(OpError::Unknown(_)) if write => Outcome::Unknown,
        Err(error @ (OpError::NoNode(_) | OpError::NoAuth { .. })) if !write => {
            Outcome::Read { zxid, result: Err(error) }
        }
        // What the tree says to a write is said behind its place in the log.
        Err(
            error @ (OpError::NoNode(_)
            | OpError::NodeExists(_)
            | OpError::NotEmpty { .. }
            | OpError::BadVersion { .. }
            | OpError::BadCzxid { .. }
            | OpError::Present { .. }
            | OpError::QuotaExceeded { .. }
            | OpError::LimitExceeded { .. }
            | OpError::NoChildrenForEphemerals(_)
            | OpError::NoAuth { .. }
            | OpError::Multi { .. }),
        ) if write => Outcome::Written { zxid, result: Err(error) },
        Err(error) => Outcome::Refused(error),
    }
}

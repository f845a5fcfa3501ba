//! A second user of a client's session: a copy of its process, say, that went on from what both knew. It takes the session up
//! on some node, asks for something else under a number that the client has used, and goes.

use api::session::{Item, Op, Open, Request, Response};
use api::{OpError, SessionId, SessionToken, StreamId, WriteNumber, Zxid};
use store_core::server::Drawn;

use crate::context::Context;
use crate::net::{End, Kind, LinkId, Packet};

/// One double at a time.
#[derive(Default)]
pub(crate) struct Double {
    under_way: Option<UnderWay>,
}

struct UnderWay {
    link: LinkId,
    open: Open,
    drawn: Drawn,
    number: WriteNumber,
}

/// What it asks for: nothing that changes the tree, so that the history of the clients stays complete.
const ASKED: &str = "the request of a double";

impl Double {
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context,
        me: End,
        node: usize,
        session: (SessionId, SessionToken),
        stream: StreamId,
        number: WriteNumber,
    ) {
        if self.under_way.is_none() {
            let link = cx.dial(Kind::Client, me, End::Node(node));
            let open = Open {
                resume: Some(session),
                timeout_ms: 0,
                last_zxid: Zxid::ZERO,
                wait_ms: None,
                ensemble: None,
            };
            let drawn = Drawn { token: session.1, stream };
            self.under_way = Some(UnderWay { link, open, drawn, number });
            cx.stats.count("sessions taken up by a double");
        }
    }

    /// Whether this connection is its own.
    pub(crate) fn has(&self, link: LinkId) -> bool {
        self.under_way.as_ref().is_some_and(|u| u.link == link)
    }

    pub(crate) fn on_dialed(&mut self, cx: &mut Context, me: End, link: LinkId, connected: bool) {
        match &self.under_way {
            Some(under_way) if connected => {
                cx.send(link, me, Packet::Open(under_way.open.clone(), under_way.drawn))
            }
            _ => self.end(cx, me),
        }
    }

    pub(crate) fn on_packet(&mut self, cx: &mut Context, me: End, packet: Packet) {
        let Some(UnderWay { link, number, .. }) = self.under_way else { return };
        let Packet::Items(items) = packet else { return self.end(cx, me) };
        for item in items {
            match item {
                Item::Opened(_) => {
                    let op = Op::Invalid(OpError::BadArguments(ASKED.into()));
                    let requests = vec![Request { xid: 1, number: Some(number), op, trace: None }];
                    cx.send(link, me, Packet::Requests { acked: WriteNumber(0), requests });
                }
                Item::Response(Response { result, .. }) => {
                    let own = match &result {
                        Err(OpError::NumberReused(n) | OpError::ResultForgotten(n)) => *n == number,
                        Err(OpError::BadArguments(text)) => text == ASKED,
                        _ => false,
                    };
                    cx.ghost.bound_to_its_request(number, own, &result);
                    return self.end(cx, me);
                }
                _ => {}
            }
        }
    }

    /// It goes, whatever it was waiting for.
    pub(crate) fn end(&mut self, cx: &mut Context, me: End) {
        if let Some(under_way) = self.under_way.take() {
            cx.close(under_way.link, me, None);
        }
    }
}

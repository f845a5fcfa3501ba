//! A second user of a client's session. A double is a copy of the client's process, say, that went on from what both knew: it takes the
//! session up on some node, asks for something else under a number that the client has used, and goes. An impostor lacks the token,
//! or the identities of the client, and must not get the session.

use api::session::{Item, Op, Open, Request, Response};
use api::{Identities, Identity, OpError, Scheme, SessionId, SessionToken, StreamId, WriteNumber, Zxid};
use store_core::server::Drawn;

use crate::context::Context;
use crate::net::{End, Kind, LinkId, Packet};

/// One second user at a time.
#[derive(Default)]
pub(crate) struct Double {
    under_way: Option<UnderWay>,
}

struct UnderWay {
    link: LinkId,
    open: Open,
    drawn: Drawn,
    identities: Identities,
    number: WriteNumber,
    /// What an impostor lacks.
    lacks: Option<&'static str>,
}

/// What it asks for: nothing that changes the tree, so that the history of the clients stays complete.
const ASKED: &str = "the request of a double";

/// What is proven of a client: of every other one that it is itself.
pub(crate) fn identities(client: usize) -> Identities {
    let own = (client % 2 == 1).then(|| Identity::new(Scheme::User, &format!("client-{client}")));
    own.and_then(Result::ok).and_then(|own| Identities::new([own]).ok()).unwrap_or_default()
}

impl Double {
    pub(crate) fn begin(
        &mut self,
        cx: &mut Context,
        client: usize,
        node: usize,
        (session, mut token): (SessionId, SessionToken),
        stream: StreamId,
        number: WriteNumber,
    ) {
        if self.under_way.is_some() {
            return;
        }
        let link = cx.dial(Kind::Client, End::Client(client), End::Node(node));
        let (mut identities, mut lacks) = (identities(client), None);
        // From what was drawn already, so that seeds mean what they meant before.
        match stream.0 % 4 {
            0 => {
                token.0[0] ^= 1;
                lacks = Some("without its token");
            }
            1 if identities != Identities::NONE => {
                identities = Identities::NONE;
                lacks = Some("without the identities of its client");
            }
            _ => {}
        }
        cx.stats.count(if lacks.is_some() { "impostors" } else { "sessions taken up by a double" });
        let open = Open {
            resume: Some((session, token)),
            timeout_ms: 0,
            last_zxid: Zxid::ZERO,
            wait_ms: None,
            ensemble: None,
            purpose: Default::default(),
        };
        let drawn = Drawn { token, stream };
        self.under_way = Some(UnderWay { link, open, drawn, identities, number, lacks });
    }

    /// Whether this connection is its own.
    pub(crate) fn has(&self, link: LinkId) -> bool {
        self.under_way.as_ref().is_some_and(|u| u.link == link)
    }

    pub(crate) fn on_dialed(&mut self, cx: &mut Context, me: End, link: LinkId, connected: bool) {
        match &self.under_way {
            Some(u) if connected => {
                cx.send(link, me, Packet::Open(u.open.clone(), u.drawn, u.identities.clone()))
            }
            _ => self.end(cx, me),
        }
    }

    pub(crate) fn on_packet(&mut self, cx: &mut Context, me: End, packet: Packet) {
        let Some(UnderWay { link, number, lacks, .. }) = self.under_way else { return };
        let Packet::Items(items) = packet else { return self.end(cx, me) };
        for item in items {
            match item {
                Item::Opened(opened) => {
                    if let Some(lacks) = lacks {
                        cx.ghost.taken_over(opened.session, lacks);
                    }
                    let op = Op::Invalid(OpError::BadArguments(ASKED.into()));
                    let requests = vec![Request { number: Some(number), ..Request::new(1, op) }];
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

    /// It goes, even if it waits for an answer.
    pub(crate) fn end(&mut self, cx: &mut Context, me: End) {
        if let Some(under_way) = self.under_way.take() {
            cx.close(under_way.link, me, None);
        }
    }
}

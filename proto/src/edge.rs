//! What an edge and a store in different processes say to each other: `api::ports::Coordination` <-> `quorate.internal.v1`.

use std::net::IpAddr;

use api::{
    EnsembleId, Level, SessionId, SessionToken, WriteNumber, Zxid,
    ports::Caller,
    session::{Op, Open, Outcome, Purpose, Request, Response},
    walk::{WalkAsk, WalkId},
};
use bytes::Bytes;

use crate::{
    Malformed, PEER_PROTOCOL,
    client::{
        identities_off_wire, identities_to_wire, min_level_to_wire, op, op_to_wire, refused, refused_to_wire,
        response, response_to_wire, traceparent, walk, walk_part, walk_part_to_wire, walk_to_wire,
    },
    internal, peer,
    quorum::{empty, ensemble, ensemble_to_wire},
    v1,
};

/// What is wrong with an edge that introduces itself so. The text names the remedy. Returns the id of the ensemble that the sessions
/// of its clients are of, if it knows.
///
/// # Errors
/// Another name of the ensemble, another version, or no word at all.
pub fn check_edge(hello: Option<peer::Hello>, name: &str) -> Result<Option<EnsembleId>, Malformed> {
    let Some(peer::Hello { ensemble: theirs, protocol, standing, .. }) = hello else {
        return Err(Malformed("the edge does not introduce itself".into()));
    };
    if theirs != name {
        return Err(Malformed(format!(
            "the edge belongs to ensemble {theirs:?}, and this store to {name:?}: correct its `ensemble`, or the address of its \
             store"
        )));
    }
    if protocol != PEER_PROTOCOL {
        return Err(Malformed(format!(
            "the edge speaks protocol {protocol} and this store {PEER_PROTOCOL}: run the same version of Quorate for both"
        )));
    }
    ensemble(&standing.unwrap_or_default().ensemble)
}

/// For the wire.
#[must_use]
pub fn caller_to_wire(caller: &Caller) -> internal::Caller {
    let address = match caller.address {
        Some(IpAddr::V4(address)) => Bytes::copy_from_slice(&address.octets()),
        Some(IpAddr::V6(address)) => Bytes::copy_from_slice(&address.octets()),
        None => Bytes::new(),
    };
    internal::Caller { address, identities: identities_to_wire(&caller.identities) }
}

/// From the wire.
///
/// # Errors
/// If the address or an identity is none.
pub fn caller(wire: Option<internal::Caller>) -> Result<Caller, Malformed> {
    let internal::Caller { address, identities } = wire.unwrap_or_default();
    let identities = identities_off_wire(identities)?;
    let address = match (<[u8; 4]>::try_from(&address[..]), <[u8; 16]>::try_from(&address[..])) {
        (Ok(v4), _) => Some(IpAddr::from(v4)),
        (_, Ok(v6)) => Some(IpAddr::from(v6)),
        _ if address.is_empty() => None,
        _ => return Err(Malformed(format!("an address of {} bytes", address.len()))),
    };
    Ok(Caller { address, identities, ..Caller::default() })
}

/// For the wire.
#[must_use]
pub fn open_to_wire(open: Open) -> internal::Open {
    let resume = open
        .resume
        .map(|(id, token)| v1::SessionRef { session_id: id.0, token: Bytes::copy_from_slice(&token.0) });
    let (timeout_ms, last_zxid, wait_ms) = (open.timeout_ms, open.last_zxid.0, open.wait_ms);
    let ensemble_id = ensemble_to_wire(open.ensemble);
    let purpose = match open.purpose {
        Purpose::Session => internal::Purpose::Session,
        Purpose::SessionOrReads => internal::Purpose::SessionOrReads,
        Purpose::Watches => internal::Purpose::Watches,
    };
    internal::Open { resume, timeout_ms, last_zxid, wait_ms, ensemble_id, purpose: purpose.into() }
}

/// From the wire.
///
/// # Errors
/// If a token is none.
pub fn open(wire: internal::Open) -> Result<Open, Malformed> {
    let internal::Open { resume, timeout_ms, last_zxid, wait_ms, ensemble_id, purpose } = wire;
    let resume = match resume {
        None => None,
        Some(v1::SessionRef { session_id, token }) => {
            let token = <[u8; 16]>::try_from(&token[..])
                .map_err(|_| Malformed(format!("a token of {} bytes", token.len())))?;
            Some((SessionId(session_id), SessionToken(token)))
        }
    };
    let ensemble = ensemble(&ensemble_id)?;
    let purpose = match internal::Purpose::try_from(purpose) {
        Ok(internal::Purpose::Session) => Purpose::Session,
        Ok(internal::Purpose::SessionOrReads) => Purpose::SessionOrReads,
        Ok(internal::Purpose::Watches) => Purpose::Watches,
        Ok(internal::Purpose::Unspecified) | Err(_) => return Err(empty("Open.purpose")),
    };
    Ok(Open { resume, timeout_ms, last_zxid: Zxid(last_zxid), wait_ms, ensemble, purpose })
}

/// For the wire.
#[must_use]
pub fn request_to_wire(request: Request) -> internal::EdgeRequest {
    let Request { xid, number, op, trace, timeout_ms, min_level } = request;
    let mut wire = v1::Request {
        xid,
        write_number: number.map_or(0, |number| number.0),
        traceparent: trace.map(|context| context.to_string()).unwrap_or_default(),
        timeout_ms,
        min_level: min_level_to_wire(min_level),
        ..v1::Request::default()
    };
    match op {
        Op::Invalid(error) => {
            let (request, invalid) = (Some(wire), Some(error.into()));
            internal::EdgeRequest { request, invalid, ..internal::EdgeRequest::default() }
        }
        Op::Walk(ask) => {
            use internal::walk_step::Step;
            let step = match ask {
                WalkAsk::Begin(walk, level) => Step::Begin(walk_to_wire(&walk, level)),
                WalkAsk::Next(id) => Step::Next(id.0),
            };
            let walk = Some(internal::WalkStep { step: Some(step) });
            internal::EdgeRequest { request: Some(wire), walk, ..internal::EdgeRequest::default() }
        }
        mut op => {
            let (mut refused, mut identities, mut starts) = (Vec::new(), Vec::new(), None);
            match &mut op {
                Op::Ephemerals { prefix, .. } => starts = Some(std::mem::take(prefix)),
                Op::AddWatches(add) => refused = refused_to_wire(std::mem::take(&mut add.refused)),
                Op::Authenticate(proven) => identities = identities_to_wire(&*proven),
                _ => {}
            }
            wire.op = op_to_wire(op);
            internal::EdgeRequest {
                request: Some(wire),
                refused,
                identities,
                prefix: starts,
                ..internal::EdgeRequest::default()
            }
        }
    }
}

/// From the wire.
///
/// # Errors
/// If it says nothing that this version knows.
pub fn request(wire: internal::EdgeRequest) -> Result<Request, Malformed> {
    let v1::Request { xid, write_number, op: wire_op, traceparent: text, timeout_ms, min_level } =
        wire.request.ok_or_else(|| empty("EdgeRequest"))?;
    let mut op = match (wire.invalid, wire_op) {
        (Some(error), _) => Op::Invalid(error.into()),
        (None, None) if wire.walk.is_some() => {
            use internal::walk_step::Step;
            match wire.walk.and_then(|walk| walk.step).ok_or_else(|| empty("WalkStep"))? {
                Step::Begin(asked) => {
                    let (walk, level) = walk(asked).map_err(|e| Malformed(e.to_string()))?;
                    Op::Walk(WalkAsk::Begin(walk, level))
                }
                Step::Next(id) => Op::Walk(WalkAsk::Next(WalkId(id))),
            }
        }
        (None, Some(wire)) => op(wire).map_err(|e| Malformed(e.to_string()))?,
        (None, None) => return Err(empty("EdgeRequest")),
    };
    match &mut op {
        Op::AddWatches(add) => add.refused.extend(refused(wire.refused)?),
        Op::Authenticate(proven) => *proven = identities_off_wire(wire.identities)?,
        Op::Ephemerals { prefix, .. } => *prefix = wire.prefix.unwrap_or_default(),
        _ => {}
    }
    let number = (write_number != 0).then_some(WriteNumber(write_number));
    let min_level = Level::known(min_level).unwrap_or_default();
    Ok(Request { xid, number, op, trace: traceparent(&text), timeout_ms, min_level })
}

/// For the wire.
#[must_use]
pub fn answer_to_wire(answer: Response) -> internal::EdgeAnswer {
    let Response { xid, zxid, result: Ok(Outcome::Walked(part)), leaderless } = answer else {
        return internal::EdgeAnswer { response: Some(response_to_wire(answer)), walk: None };
    };
    let response = v1::Response { xid, zxid: zxid.0, result: None, leaderless };
    let walk = internal::WalkPart { id: part.id.0, part: Some(walk_part_to_wire(*part)) };
    internal::EdgeAnswer { response: Some(response), walk: Some(walk) }
}

/// From the wire.
///
/// # Errors
/// If it lacks what its kind needs.
pub fn answer(wire: internal::EdgeAnswer) -> Result<Response, Malformed> {
    let answered = wire.response.ok_or_else(|| empty("EdgeAnswer"))?;
    let Some(walk) = wire.walk else { return response(answered) };
    let part = walk_part(WalkId(walk.id), walk.part.ok_or_else(|| empty("WalkPart"))?)?;
    let v1::Response { xid, zxid, leaderless, .. } = answered;
    let result = Ok(Outcome::Walked(Box::new(part)));
    Ok(Response { xid, zxid: Zxid(zxid), result, leaderless })
}

#[cfg(test)]
mod tests {
    use api::{
        EnsembleId, Identities, Identity, OpError, Path, Read, ReadLevel, Scheme, Stat, Write,
        walk::{Walk, WalkEnd, WalkPart},
        watch::{AddWatches, WatchRefused, WatchScope, WatchSpec, WatchedZnode},
    };
    use prost::Message;

    use super::*;

    fn reencode<M: Message + Default>(message: &M) -> M {
        M::decode(message.encode_to_vec().as_slice()).unwrap()
    }

    #[test]
    fn what_edges_say_survives_the_wire() {
        for address in [None, Some(IpAddr::from([1, 2, 3, 4])), Some(IpAddr::from([7; 16]))] {
            let ids = ["1.2.3.4", "::1"].map(|id| Identity::new(Scheme::Ip, id).unwrap());
            let sent = Caller { address, identities: Identities::new(ids).unwrap(), ..Caller::default() };
            let got = caller(Some(reencode(&caller_to_wire(&sent)))).unwrap();
            assert_eq!((got.address, got.identities), (sent.address, sent.identities));
        }
        let strange = internal::Caller { address: Bytes::from_static(b"12345"), ..Default::default() };
        assert!(caller(Some(strange)).is_err());
        let identities = vec![v1::Identity { scheme: "of a later version".into(), id: "x".into() }];
        assert!(caller(Some(internal::Caller { identities, ..Default::default() })).is_err());
        for resume in [None, Some((SessionId(5), SessionToken([1; 16])))] {
            let ensemble = resume.map(|_| EnsembleId(6));
            for purpose in [Purpose::Session, Purpose::SessionOrReads, Purpose::Watches] {
                let sent =
                    Open { resume, timeout_ms: 3, last_zxid: Zxid(4), wait_ms: Some(5), ensemble, purpose };
                assert_eq!(open(reencode(&open_to_wire(sent.clone()))), Ok(sent));
            }
        }
        let path = Path::new("/a").unwrap();
        let ops = [
            Op::Write(Write::Delete { path: path.clone(), version: None }),
            Op::Read(Read::Get { path }, ReadLevel::Linearizable),
            Op::Ping,
            Op::WhoAmI,
            Op::Ephemerals { prefix: "no//path".into(), after: "/b".into(), size: 3 },
            Op::Authenticate(Identities::new([Identity::superuser()]).unwrap()),
            Op::AddWatches(AddWatches {
                specs: vec![WatchSpec::new(1, Path::root(), WatchScope::Tree)],
                refused: vec![WatchRefused { id: 2, error: OpError::BadArguments("no".into()) }],
            }),
            Op::Walk(WalkAsk::Begin(
                Walk { path: Path::root(), max_depth: 2, with_data: true },
                ReadLevel::AtLeast(Zxid(3)),
            )),
            Op::Walk(WalkAsk::Next(WalkId(u64::MAX))),
            Op::Invalid(OpError::BadArguments("no".into())),
        ];
        for op in ops {
            let number = matches!(op, Op::Invalid(_)).then_some(WriteNumber(3));
            let sent = Request { xid: 9, number, op, trace: None, timeout_ms: 77, min_level: Level(3) };
            assert_eq!(request(reencode(&request_to_wire(sent.clone()))), Ok(sent));
        }
        assert!(request(internal::EdgeRequest::default()).is_err());
        let znode = WatchedZnode { path: Path::root(), stat: Stat::default(), data: Some(Bytes::new()) };
        for end in [None, Some(WalkEnd { znodes: 1, hidden: 2 })] {
            let part = WalkPart { id: WalkId(7), zxid: Zxid(8), znodes: vec![znode.clone()], end };
            let result = Ok(Outcome::Walked(Box::new(part)));
            let sent = Response { xid: 0, zxid: Zxid(8), result, leaderless: true };
            assert_eq!(answer(reencode(&answer_to_wire(sent.clone()))), Ok(sent));
        }
    }

    #[test]
    fn edges_of_another_ensemble_or_version_are_refused() {
        let hello = |ensemble: &str, protocol| {
            Some(peer::Hello { ensemble: ensemble.into(), protocol, ..Default::default() })
        };
        assert_eq!(check_edge(hello("a", PEER_PROTOCOL), "a"), Ok(None));
        for (hello, word) in
            [(None, "introduce"), (hello("b", PEER_PROTOCOL), "address"), (hello("a", 0), "same version")]
        {
            let Malformed(why) = check_edge(hello, "a").unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}

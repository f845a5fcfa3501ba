//! The cost of one write in the core: `cargo run --release -p store-core --example cost`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Instant;

use api::{
    Command, CommandBody, Create, Epoch, Identities, Origin, Path, PeerId, SessionId, SessionToken, Ticket,
    Time, Write, WriteNumber, Zxid,
    ports::{QuorumStatus, Role},
    session::{Op, Open, Request},
};
use bytes::Bytes;
use store_core::{
    Server, State, hash_of,
    server::{Ask, Committed, Config, ConnId, Drawn, Feed, Input, Limits, Output},
};

const ZNODES: u32 = 10_000;
const WRITES: u32 = 1_000_000;
const BATCH: u32 = 64;

fn path(i: u32) -> Path {
    Path::new(&format!("/bench/node-{:06}", i % ZNODES)).unwrap()
}

fn main() {
    let z = |counter| Zxid::new(Epoch(1), counter);
    let none = WriteNumber(0);
    let mut state = State::default();
    let write = |session, number, acked, write| Command {
        session,
        number,
        acked,
        ..Command::outside(CommandBody::Write(write))
    };
    let create = |path| Write::Create(Create::new(path, Bytes::from(vec![0; 100])));
    let session = SessionId(z(1).0);
    let body = CommandBody::OpenSession {
        token_hash: hash_of(&SessionToken([0; 16])),
        timeout_ms: 1000,
        sessions_max: u32::MAX,
    };
    state.apply(z(1), 0, &Command::outside(body));
    state.apply(z(2), 0, &write(None, None, none, create(Path::new("/bench").unwrap())));

    let creates: Vec<Command> = (0..ZNODES).map(|i| write(None, None, none, create(path(i)))).collect();
    let start = Instant::now();
    for (i, command) in creates.iter().enumerate() {
        state.apply(z(3 + i as u32), 0, command);
    }
    println!("create, 100 B:                          {:>6.0} ns", nanos(start, ZNODES));

    let data = Bytes::from(vec![7; 100]);
    let sets: Vec<Command> = (0..WRITES)
        .map(|i| {
            let set = Write::Set { path: path(i * 7919), data: Some(data.clone()), version: None };
            let acked = WriteNumber(u64::from(i.saturating_sub(1024)));
            write(Some(session), Some(WriteNumber(u64::from(i) + 1)), acked, set)
        })
        .collect();
    let start = Instant::now();
    for (i, command) in sets.iter().enumerate() {
        state.apply(z(3 + ZNODES + i as u32), 0, command).result.unwrap();
    }
    println!("set, 100 B, numbered, 1,024 unacked:    {:>6.0} ns", nanos(start, WRITES));
    let start = Instant::now();
    let dirty = state.take_dirty();
    println!("take_dirty, for each of {:>6} records: {:>6.0} ns", dirty.znodes.len(), nanos(start, ZNODES));
    assert_eq!(state.digest(), state.recompute_digest());

    // The same through the front: requests and entries in, submissions and answers out.
    let config = Config { me: PeerId(1), first_ticket: Ticket(0), limits: Limits::default() };
    let now = Time(0);
    let next = state.applied().counter() + 1;
    let mut server = Server::new(now, config, state);
    let status = QuorumStatus { role: Role::Following, serving: true, ..QuorumStatus::default() };
    server.handle(now, Input::Feed(Feed::Status(status)));
    let conn = ConnId(1);
    let token = SessionToken([0; 16]);
    let open = Open {
        resume: Some((session, token)),
        timeout_ms: 0,
        last_zxid: Zxid::ZERO,
        wait_ms: None,
        ensemble: None,
        purpose: Default::default(),
    };
    let drawn = Drawn { token, stream: api::StreamId(1) };
    server.handle(now, Input::Open { conn, open, drawn, identities: Identities::default() });
    let mut batches = Vec::new();
    for b in 0..WRITES / BATCH {
        let first = WRITES + b * BATCH;
        let requests = (first..first + BATCH)
            .map(|i| {
                let op = Write::Set { path: path(i * 7919), data: Some(data.clone()), version: None };
                let number = Some(WriteNumber(u64::from(i) + 1));
                Request { number, ..Request::new(u64::from(i), Op::Write(op)) }
            })
            .collect();
        let acked = WriteNumber(u64::from(first));
        batches.push(Input::Requests { conn, acked, requests });
    }
    let (mut next, mut replies) = (next, 0);
    let start = Instant::now();
    for input in batches {
        server.handle(now, input);
        let mut entries = Vec::new();
        while let Some(output) = server.poll_output() {
            match output {
                Output::Ask(asks) => {
                    for ask in asks {
                        let Ask::Submit { ticket, command, .. } = ask else { continue };
                        let origin = Some(Origin { peer: PeerId(1), ticket });
                        entries.push(Committed {
                            zxid: z(next),
                            time_ms: 0,
                            origin,
                            level: None,
                            command: Some(command),
                        });
                        next += 1;
                    }
                }
                Output::Send { items, .. } => replies += items.len(),
                Output::Close { why, .. } => panic!("closed: {why:?}"),
                Output::Diverged { at, .. } => panic!("diverged behind {at}"),
                Output::Stop { why } => panic!("stopped: {why}"),
            }
        }
        server.handle(now, Input::Feed(Feed::Committed(entries)));
    }
    while let Some(output) = server.poll_output() {
        if let Output::Send { items, .. } = output {
            replies += items.len();
        }
    }
    println!("set through the front, batches of {BATCH}:    {:>6.0} ns", nanos(start, WRITES));
    assert_eq!(replies as u32, WRITES / BATCH * BATCH + 1);
}

fn nanos(start: Instant, n: u32) -> f64 {
    start.elapsed().as_nanos() as f64 / f64::from(n)
}

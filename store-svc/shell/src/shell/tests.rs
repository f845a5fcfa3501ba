use api::{
    Body, Command, CommandBody, Create, Entry, Epoch, Level, PeerId, Ticket, Write, Zxid,
    ports::{FeedItem, QuorumStatus, Role},
};
use bytes::{Bytes, BytesMut};
use proto::store::{append_record, encode_command, encode_record};
use store_core::{
    State,
    server::{Config, Limits},
};

use super::*;
use crate::Decoder;

#[test]
fn a_snapshot_is_due_when_the_log_has_grown_as_much_as_the_state() {
    let mut since = SinceSnapshot { entries: 100, ..SinceSnapshot::default() };
    assert!(since.is_due(100, 10, 1000, 100));
    assert!(!since.is_due(101, 10, 1000, 100), "fewer entries than znodes");
    (since.entries, since.log_bytes) = (0, 1000);
    assert!(since.is_due(0, 10, 1000, 100));
    since.snapshot_bytes = 5000;
    assert!(!since.is_due(0, 10, 1000, 100), "fewer bytes than the last snapshot had");
    since.log_bytes = 5000;
    assert!(since.is_due(0, 10, 1000, 100));
    since.begin();
    assert!(!since.is_due(0, 10, 1000, 100));
    since.wanted = true;
    assert!(since.is_due(0, 10, 1000, 100));
    // Different nodes begin at different entries.
    let since = SinceSnapshot { entries: 100, ..SinceSnapshot::default() };
    assert!(since.is_due(0, 160, 1000, 60) && !since.is_due(0, 100, 1000, 125));
    assert!(!SinceSnapshot::default().is_due(0, 1, 1, 40), "nothing to spare");
}

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn entry(counter: u32, body: CommandBody) -> Entry {
    let body = Body::Store(encode_command(Command::outside(body)));
    Entry { zxid: z(counter), time_ms: 1, origin: None, body, trace: None }
}

fn create(counter: u32, path: &str) -> Entry {
    entry(counter, CommandBody::Write(Write::Create(Create::new(path.parse().unwrap(), "value"))))
}

/// A shell and its feed.
struct Store {
    shell: Shell,
    decoder: Decoder,
}

impl Store {
    fn new() -> Store {
        let config = Config { me: PeerId(1), first_ticket: Ticket(1), limits: Limits::default() };
        let shell = Shell::new(Server::new(Time(0), config, State::default()));
        Store { shell, decoder: Decoder::new(0) }
    }

    fn feed(&mut self, items: Vec<FeedItem>) -> Result<Vec<Effect>, Fault> {
        for said in self.decoder.decode(items)? {
            self.shell.on_quorum(Time(0), said);
        }
        let mut effects = Vec::new();
        while let Some(effect) = self.shell.poll_effect(Time(0))? {
            effects.push(effect);
        }
        Ok(effects)
    }
}

/// The snapshot of `state`, cut into pieces of 7 bytes.
fn snapshot(state: &State) -> Vec<FeedItem> {
    let mut stream = BytesMut::new();
    for record in state.records() {
        append_record(&mut stream, &encode_record(record));
    }
    let start = [FeedItem::SnapshotStart { zxid: state.applied() }];
    let pieces = stream.chunks(7).map(|piece| FeedItem::SnapshotChunk(Bytes::copy_from_slice(piece)));
    start.into_iter().chain(pieces).chain([FeedItem::SnapshotEnd]).collect()
}

#[test]
fn what_is_said_at_once_is_taken_in_its_order_and_a_snapshot_begun_anew_takes_the_place_of_the_first() {
    let mut leader = Store::new();
    let log = [Entry::marker(Epoch(1), Level::FIRST, 1), create(1, "/a"), create(2, "/b"), create(3, "/c")];
    leader.feed(vec![FeedItem::Committed(log[..3].to_vec())]).unwrap();

    let mut store = Store::new();
    let whole = snapshot(leader.shell.server.state());
    let status = QuorumStatus { role: Role::Following, serving: true, ..QuorumStatus::default() };
    // The damaged snapshot starts again.
    let mut items = whole[..3].to_vec();
    items.extend(whole);
    items.extend([
        FeedItem::Committed(log[3..].to_vec()),
        FeedItem::Status(status),
        FeedItem::SnapshotWanted,
    ]);
    store.feed(items).unwrap();
    leader.feed(vec![FeedItem::Committed(log[3..].to_vec())]).unwrap();
    assert_eq!(store.shell.server.state().header(), leader.shell.server.state().header());
    assert!(store.shell.server.ready() && store.shell.since_snapshot.wanted);
    assert_eq!(store.shell.since_snapshot.entries, 1, "behind the snapshot");
}

#[test]
fn what_cannot_be_read_stops_the_store() {
    let strange = Entry { body: Body::Store(Bytes::from_static(b"\xff")), ..create(1, "/a") };
    let marker = Entry::marker(Epoch(1), Level::FIRST, 1);
    let Fault(why) = Store::new().feed(vec![FeedItem::Committed(vec![marker, strange])]).unwrap_err();
    assert!(why.contains("upgrade"), "{why}");
    let alone = FeedItem::SnapshotChunk(Bytes::from_static(b"piece"));
    assert!(Store::new().feed(vec![alone]).is_err());
    let short = [FeedItem::SnapshotStart { zxid: z(1) }, FeedItem::SnapshotEnd];
    assert!(Store::new().feed(short.to_vec()).unwrap_err().0.contains("damaged"));
}

#[test]
fn a_state_that_is_not_the_leaders_is_built_again_once_and_stops_the_node_if_it_differs_again() {
    let mut leader = Store::new();
    leader
        .feed(vec![FeedItem::Committed(vec![Entry::marker(Epoch(1), Level::FIRST, 1), create(1, "/a")])])
        .unwrap();
    let digest = leader.shell.server.state().digest();
    let check = |counter, of, digest| entry(counter, CommandBody::Check { of, digest });
    let log = |path| {
        let checks = [check(2, Zxid::ZERO, 0), check(3, z(2), digest)];
        let log = [Entry::marker(Epoch(1), Level::FIRST, 1), create(1, path)].into_iter().chain(checks);
        vec![FeedItem::Committed(log.collect())]
    };
    let mut store = Store::new();
    let diverged = store.feed(log("/b")).unwrap();
    assert!(matches!(diverged[..], [Effect::Attach { at, leaders, .. }] if at == z(2) && leaders == digest));
    assert_eq!(store.shell.server.state().applied(), Zxid::ZERO);
    let again = store.feed(log("/b")).unwrap_err();
    assert!(again.0.contains("built again"), "{again}");

    let mut store = Store::new();
    store.feed(log("/b")).unwrap();
    assert_eq!(store.feed(log("/a")).unwrap(), []);
    assert_eq!(store.shell.server.agreed(), z(2));
}

#[test]
fn a_message_ends_behind_an_entry_that_may_take_long() {
    let close =
        |counter| entry(counter, CommandBody::CloseSession { session: api::SessionId(1), expired: None });
    let log = vec![create(1, "/a"), close(2), close(3), create(4, "/b"), create(5, "/c")];
    let status = FeedItem::Status(Default::default());
    let decoded = Decoder::new(0).decode(vec![FeedItem::Committed(log), status]).unwrap();
    let entries: Vec<(u64, usize)> = decoded
        .iter()
        .map(|said| match said {
            FromQuorum::Feed { items, entries, .. } => (*entries, items.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(entries, [(2, 1), (1, 1), (2, 2)]);
}

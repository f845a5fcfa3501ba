use api::{Command, CommandBody, Create, Epoch, PeerId, Ticket, Write, Zxid, session::Op};
use bytes::Bytes;
use store_core::{
    Server,
    server::{Committed, Config, Feed, Limits},
};

use super::{
    schedule::{RETRY_MAX, RETRY_MIN},
    *,
};
use crate::{
    table::{self, TableError},
    testing::MemoryQuorum,
};

/// A driver; the test fills its feed and inputs.
struct Harness {
    running: Running<MemoryQuorum>,
    inputs: mpsc::Sender<FromClient>,
    /// The other channel ends that the driver needs open.
    _ends: (mpsc::UnboundedSender<Aside>, mpsc::Sender<Sign>, tempfile::TempDir),
}

impl Harness {
    fn new() -> Harness {
        let dir = tempfile::tempdir().unwrap();
        let table::Opened { table, state } = table::open(dir.path()).unwrap();
        let place = dir.path().to_owned();
        let me = PeerId(1);
        let core = Config { me, first_ticket: Ticket(1), limits: Limits::default() };
        let (to_driver, inputs) = mpsc::channel(8);
        let (to_driver_aside, asides) = mpsc::unbounded_channel();
        let (signs_in, signs) = mpsc::channel(1);
        let now = Instant::now();
        let driver = Driver {
            shell: Shell::new(Server::new(Time(0), core, state)),
            origin: now,
            quorum: MemoryQuorum::new(me),
            inputs,
            asides,
            checkpointer: Checkpointer::start(table, Box::new(move || table::anew(&place))).unwrap(),
            data_dir: dir.path().to_owned(),
            snapshot_entries: u64::MAX,
            snapshot_bytes: u64::MAX,
            ready: watch::channel(false).0,
            ensemble: watch::Sender::default(),
            shutdown: CancellationToken::new(),
        };
        let running = Running {
            driver,
            sinks: HashMap::new(),
            feed: Attached::giving([]),
            signs,
            asks: Vec::new(),
            asking: Asking::nothing(),
            tasks: JoinSet::new(),
            schedule: Schedule::new(now, me),
            exporting: None,
            turn: Turn::new(),
        };
        Harness { running, inputs: to_driver, _ends: (to_driver_aside, signs_in, dir) }
    }
}

#[tokio::test]
async fn clients_have_their_turn_while_the_feed_has_more() {
    let mut harness = Harness::new();
    let said = (1..=4).map(|epoch| {
        let zxid = Zxid::marker(Epoch(epoch));
        let marker = Committed { zxid, time_ms: 1, origin: None, level: None, command: None };
        FromQuorum::Feed { items: vec![Feed::Committed(vec![marker])], entries: 1, log_bytes: 1 }
    });
    harness.running.feed = Attached::giving(said);
    let (reply, facts) = oneshot::channel();
    harness.inputs.try_send(FromClient::Facts(reply)).ok().unwrap();
    let facts = tokio::select! {
        facts = facts => facts.unwrap(),
        ended = harness.running.serve() => panic!("{ended:?}"),
    };
    assert_eq!(facts.state.applied, Zxid::marker(Epoch(1)), "behind the first message, not behind all");
}

#[tokio::test]
async fn b18_a_checkpoint_that_fails_is_tried_again_from_the_whole_state_and_ends_nothing() {
    let mut harness = Harness::new();
    let running = &mut harness.running;
    let full = || TableError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
    for pause in [RETRY_MIN, 2 * RETRY_MIN, 4 * RETRY_MIN] {
        running.on_checkpoint(Err(full()));
        let (at, paused) = running.schedule.failed.unwrap();
        assert_eq!((running.checkpoint_due(), paused), (Some(at), pause));
        running.keep();
        assert!(!running.driver.checkpointer.busy(), "not before");
    }
    running.schedule.failed = Some((Instant::now(), RETRY_MAX));
    running.keep();
    let done = running.driver.checkpointer.done().await;
    assert!(done.is_ok(), "{done:?}");
    running.on_checkpoint(done);
    assert!(running.schedule.failed.is_none());
    assert_eq!(running.driver.shell.server.state().dirty_len(), 0);
}

#[tokio::test]
async fn b18_a_checkpoint_does_not_wait_for_more_space_than_it_takes() {
    const MIB: u64 = 1 << 20;
    let mut harness = Harness::new();
    let running = &mut harness.running;
    let mut counter = 0;
    let mut apply = |running: &mut Running<MemoryQuorum>, write: Write| {
        let zxid = if counter == 0 { Zxid::marker(Epoch(1)) } else { Zxid::new(Epoch(1), counter) };
        counter += 1;
        let body = CommandBody::Write(write);
        let command = Command::outside(body);
        let command = (zxid.counter() > 0).then_some(command);
        let entry = Committed { zxid, time_ms: 1, origin: None, level: None, command };
        running.handle(Input::Feed(Feed::Committed(vec![entry])));
        assert_eq!(running.driver.shell.server.state().applied(), zxid);
    };
    let path = |path: &str| api::Path::new(path).unwrap();
    let create = |name: &str, bytes: u64| {
        let data = vec![1; bytes as usize];
        Write::Create(Create::new(path(name), data))
    };
    let set = |name: &str| Write::Set { path: path(name), data: Some(Bytes::new()), version: None };
    let delete = |name: &str| Write::Delete { path: path(name), version: None };
    apply(running, set("/"));
    for n in 0..32 {
        apply(running, create(&format!("/large-{n}"), MIB));
    }
    assert!(!running.fits(70 * MIB, 100 * MIB) && running.schedule.no_space.is_some());
    assert!(running.fits(90 * MIB, 100 * MIB) && running.schedule.no_space.is_none());
    running.driver.shell.server.take_dirty();

    // Many small changes.
    for n in 0..1000 {
        apply(running, create(&format!("/small-{n}"), 1));
        apply(running, delete(&format!("/small-{n}")));
    }
    assert!(running.fits(MIB, 100 * MIB), "{} bytes", running.driver.shell.server.state().dirty_bytes());

    // More changes than records of the state: the driver writes the whole state, and tracks no more
    // changes.
    for n in 0..32 {
        apply(running, delete(&format!("/large-{n}")));
    }
    assert!(running.driver.shell.server.state().dirty_len() > 1000);
    assert!(running.fits(MIB / 8, 100 * MIB));
    assert_eq!(running.driver.shell.server.state().dirty_len(), 1, "the root");
    assert!(running.driver.shell.server.take_dirty().whole);
}

#[tokio::test]
async fn a_call_that_is_given_up_is_forgotten() {
    let mut harness = Harness::new();
    let (reply, waiting) = oneshot::channel();
    // The call waits in the core: there is no quorum yet.
    harness.running.on_client(FromClient::Unary {
        conn: ConnId(1),
        request: Request::new(0, Op::Sync),
        identities: api::Identities::default(),
        reply,
        received: Instant::now(),
    });
    harness.running.carry_out().unwrap();
    assert_eq!(harness.running.sinks.len(), 1);
    drop(waiting);
    harness.running.on_aside(Aside::GivenUp { conn: ConnId(1) });
    assert!(harness.running.sinks.is_empty());

    // This input may overtake the call.
    let (reply, answer) = oneshot::channel();
    drop(answer);
    harness.running.on_aside(Aside::GivenUp { conn: ConnId(2) });
    harness.running.on_client(FromClient::Unary {
        conn: ConnId(2),
        request: Request::new(0, Op::Sync),
        identities: api::Identities::default(),
        reply,
        received: Instant::now(),
    });
    assert!(harness.running.sinks.is_empty());
}

#[tokio::test]
async fn b08_the_driver_pauses_when_its_turn_is_over_whoever_has_work_for_it() {
    let mut harness = Harness::new();
    let mut facts = Vec::new();
    for _ in 0..4 {
        let (reply, answer) = oneshot::channel();
        harness.inputs.try_send(FromClient::Facts(reply)).ok().unwrap();
        facts.push(answer);
    }
    let waiting = |harness: &Harness| harness.inputs.max_capacity() - harness.inputs.capacity();
    harness.running.turn.began -= TURN;
    harness.running.on_clients_waiting();
    assert_eq!(waiting(&harness), 3, "one in any case");
    let inputs = harness.inputs.clone();
    let mut serving = std::pin::pin!(harness.running.serve());
    let mut poll = || serving.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(poll().is_pending());
    assert_eq!(inputs.max_capacity() - inputs.capacity(), 3, "other tasks go first");
    // In one turn, or in a few if this thread stands still meanwhile.
    for _ in 0..100 {
        assert!(poll().is_pending());
    }
    assert_eq!(inputs.capacity(), inputs.max_capacity());
    for answer in facts {
        answer.await.unwrap();
    }
}

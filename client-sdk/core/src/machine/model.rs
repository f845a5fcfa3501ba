//! Random schedules against a small model of an ensemble: connections break at any point, nodes stop, refuse,
//! forget nothing; sessions expire. In every schedule each write happens at most once, in the order of the
//! requests, and every result that the caller gets is true.

use std::collections::BTreeMap;

use api::{Path, PeerId, Read, ReadLevel, ReadOutcome, Stat, Write, WriteOutcome, chance::Chance};
use bytes::Bytes;

use super::*;

const ENDPOINTS: usize = 3;

type Answer = Result<Outcome, OpError>;

/// The state that all nodes agree on: one register, and its writer.
#[derive(Default)]
struct Ensemble {
    sessions: BTreeMap<SessionId, Vec<(Zxid, Answer)>>,
    /// The tickets of the writes, in the order in which they were carried out; the zxid is the place.
    log: Vec<u64>,
}

enum ToServer {
    Open { resume: Option<(SessionId, SessionToken)>, last_zxid: Zxid },
    Batch(Batch),
}

enum ToClient {
    Items(Vec<Item>),
    End(OpError),
}

struct Link {
    connection: Connection,
    session: Option<SessionId>,
    to_server: VecDeque<ToServer>,
    to_client: VecDeque<ToClient>,
}

struct World {
    machine: Machine,
    now: Time,
    chance: Chance,
    ensemble: Ensemble,
    link: Option<Link>,
    /// From connections that are gone, still on their way through their nodes.
    strays: Vec<(SessionId, Batch)>,
    down: [bool; ENDPOINTS],
    faults: bool,
    expiry: bool,
    /// Of each ticket: whether it is a write, and how it ended.
    asked: Vec<(bool, Option<Result<Outcome, Failure>>)>,
    lost: usize,
}

impl World {
    fn new(seed: u64, expiry: bool) -> World {
        let config = Config { endpoints: ENDPOINTS, requests_max: 24, ..Config::default() };
        World {
            machine: Machine::new(config, seed),
            now: Time(0),
            chance: Chance::new(seed),
            ensemble: Ensemble::default(),
            link: None,
            strays: Vec::new(),
            down: [false; ENDPOINTS],
            faults: true,
            expiry,
            asked: Vec::new(),
            lost: 0,
        }
    }

    fn give(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect { connection, endpoint, open } => {
                    let OpenSession { resume, last_zxid, .. } = open;
                    assert!(self.link.is_none(), "one connection at a time");
                    let mut to_client = VecDeque::new();
                    if self.down[endpoint] {
                        to_client.push_back(ToClient::End(OpError::Unavailable("refused".into())));
                    }
                    let to_server = VecDeque::from([ToServer::Open { resume, last_zxid }]);
                    self.link = Some(Link { connection, session: None, to_server, to_client });
                }
                Output::Disconnect { connection } => {
                    if let Some(link) = self.link.take_if(|link| link.connection == connection) {
                        self.leave(link);
                    }
                }
                Output::Done { ticket, result, .. } => {
                    let slot = &mut self.asked[ticket.0 as usize].1;
                    assert_eq!(slot.replace(result), None, "an end only once");
                }
                Output::Watch { .. } => unreachable!("the model has no watches"),
                Output::Event(Event::SessionLost { .. }) => self.lost += 1,
                Output::AttemptFailed { .. } | Output::Event(_) => {}
            }
        }
    }

    fn step(&mut self) {
        match if self.faults { self.chance.below(100) } else { 20 + self.chance.below(70) } {
            0..20 => self.ask(),
            20..35 => {
                if let Some(batch) = self.machine.poll_transmit(self.now) {
                    let link = self.link.as_mut().unwrap();
                    assert_eq!(link.connection, batch.connection);
                    link.to_server.push_back(ToServer::Batch(batch));
                }
            }
            35..55 => self.serve(),
            55..75 => {
                let Some(link) = &mut self.link else { return };
                let connection = link.connection;
                match link.to_client.pop_front() {
                    Some(ToClient::Items(items)) => self.give(Input::Items { connection, items }),
                    Some(ToClient::End(error)) => {
                        self.give(Input::Disconnected { connection, error });
                    }
                    None => {}
                }
            }
            75..90 => {
                let pause = self.chance.below(200_000);
                self.now.0 += pause;
                if self.machine.next_timeout().is_some_and(|t| t <= self.now) {
                    self.give(Input::Tick);
                }
            }
            90..95 => {
                if let Some(connection) = self.link.as_ref().map(|link| link.connection) {
                    let error = OpError::Unavailable("reset".into());
                    self.give(Input::Disconnected { connection, error });
                }
            }
            95..99 => {
                let node = self.chance.below(ENDPOINTS as u64) as usize;
                self.down[node] = !self.down[node];
            }
            _ => {
                if self.expiry && self.chance.below(8) == 0 {
                    self.ensemble.sessions.clear();
                }
            }
        }
    }

    fn ask(&mut self) {
        let ticket = self.asked.len() as u64;
        let write = self.chance.below(3) > 0;
        let path = Path::root();
        let op = if write {
            let data = Bytes::copy_from_slice(&ticket.to_be_bytes());
            Op::Write(Write::Set { path, data: Some(data), version: None })
        } else {
            Op::Read(Read::Get { path }, self.level())
        };
        let deadline = (self.chance.below(4) == 0).then(|| self.now + self.chance.millis(0..700));
        self.asked.push((write, None));
        self.give(Input::Request { ticket: Ticket(ticket), op, deadline, trace: None });
    }

    /// Sometimes of a zxid that is still to come.
    fn level(&mut self) -> ReadLevel {
        match self.chance.below(3) {
            0 => ReadLevel::Local,
            1 => ReadLevel::Linearizable,
            _ => ReadLevel::AtLeast(Zxid(self.chance.below(self.ensemble.log.len() as u64 + 2))),
        }
    }

    /// The answers are lost, and what is on its way to the node may or may not be.
    fn leave(&mut self, link: Link) {
        for message in link.to_server {
            if let (ToServer::Batch(batch), Some(session), 0) = (message, link.session, self.chance.below(2))
            {
                self.strays.push((session, batch));
            }
        }
    }

    /// A node takes one message in.
    fn serve(&mut self) {
        if !self.strays.is_empty() && self.chance.below(4) == 0 {
            let (session, batch) = self.strays.remove(0);
            for request in batch.requests {
                self.respond(session, request);
            }
        }
        let Some(link) = &mut self.link else { return };
        let message = link.to_server.pop_front();
        let session = link.session;
        let answer = match message {
            None => return,
            Some(ToServer::Open { resume, last_zxid }) => {
                assert!(last_zxid.0 <= self.ensemble.log.len() as u64);
                self.open(resume)
            }
            Some(ToServer::Batch(batch)) => {
                let Some(session) = session else { panic!("a request before the session was open") };
                let respond = |request| Item::Response(self.respond(session, request));
                ToClient::Items(batch.requests.into_iter().map(respond).collect())
            }
        };
        let Some(link) = &mut self.link else { return };
        if let ToClient::Items(items) = &answer
            && let Some(Item::Opened(opened)) = items.first()
        {
            link.session = Some(opened.session);
        }
        link.to_client.push_back(answer);
    }

    fn open(&mut self, resume: Option<(SessionId, SessionToken)>) -> ToClient {
        let session = match resume {
            None => {
                let id = SessionId(1 + self.chance.below(1 << 30));
                self.ensemble.sessions.insert(id, Vec::new());
                id
            }
            Some((id, token)) => {
                assert_eq!(token, SessionToken([id.0 as u8; 16]));
                if !self.ensemble.sessions.contains_key(&id) {
                    return ToClient::End(OpError::SessionExpired(id));
                }
                id
            }
        };
        ToClient::Items(vec![Item::Opened(Opened {
            session,
            token: SessionToken([session.0 as u8; 16]),
            timeout_ms: 4_000,
            node: PeerId(1),
            leaderless: false,
            resumed: resume.is_some(),
            zxid: Zxid(self.ensemble.log.len() as u64),
            last_write: WriteNumber(0),
            level: api::Level::FIRST,
            limits: Default::default(),
            identities: Default::default(),
            ensemble: None,
            read_only: false,
        })])
    }

    fn respond(&mut self, id: SessionId, request: api::session::Request) -> Response {
        let answer = |zxid, result| Response { xid: request.xid, zxid, result, leaderless: false };
        let mood = if self.faults { self.chance.below(60) } else { 60 };
        let last = Zxid(self.ensemble.log.len() as u64);
        let Some(results) = self.ensemble.sessions.get_mut(&id) else {
            return answer(last, Err(OpError::SessionExpired(id)));
        };
        match (&request.op, request.number) {
            // The node does not take it; it may be the first or a repeated one.
            _ if mood == 0 => answer(last, Err(OpError::Overloaded("full".into()))),
            (Op::Write(Write::Set { data: Some(data), .. }), Some(number)) => {
                let ticket = u64::from_be_bytes(data[..].try_into().unwrap());
                let due = results.len() as u64 + 1;
                if number.0 > due {
                    let error = OpError::OutOfOrder { expected: WriteNumber(due), got: number };
                    return answer(last, Err(error));
                }
                if number.0 == due {
                    let zxid = Zxid(last.0 + 1);
                    self.ensemble.log.push(ticket);
                    // Some fail, and use their numbers up all the same.
                    let result = match ticket % 5 {
                        0 => Err(OpError::NoNode(Path::root())),
                        _ => {
                            let stat = Stat { mzxid: zxid, ..Stat::default() };
                            Ok(Outcome::Write(WriteOutcome::Set { stat }))
                        }
                    };
                    results.push((zxid, result));
                }
                let (zxid, result) = results[number.0 as usize - 1].clone();
                answer(zxid, result)
            }
            (Op::Read(_, ReadLevel::AtLeast(zxid)), None) if *zxid > last => {
                answer(last, Err(OpError::Unavailable("behind".into())))
            }
            (Op::Read(..), None) => {
                let stat = Stat { mzxid: last, ..Stat::default() };
                answer(last, Ok(Outcome::Read(ReadOutcome::Data { data: None, stat })))
            }
            (Op::Ping, None) => answer(last, Ok(Outcome::Ping)),
            (Op::Close, None) => {
                self.ensemble.sessions.remove(&id);
                answer(last, Ok(Outcome::Close))
            }
            (op, number) => panic!("{op:?} numbered {number:?}"),
        }
    }

    /// Everything works again and the caller sends no more requests; run until nothing waits.
    fn heal(&mut self) {
        self.faults = false;
        self.down = [false; ENDPOINTS];
        for _ in 0..20_000 {
            if self.asked.iter().all(|(_, end)| end.is_some()) {
                return;
            }
            self.step();
        }
        let waiting = self.asked.iter().filter(|(_, end)| end.is_none()).count();
        panic!("{waiting} requests never ended: {:?}", self.machine);
    }

    fn check(&self) {
        let log = &self.ensemble.log;
        let place: BTreeMap<u64, usize> = log.iter().enumerate().map(|(i, &ticket)| (ticket, i)).collect();
        assert_eq!(place.len(), log.len(), "a write was carried out twice");
        assert!(log.is_sorted(), "the order of effects is not the order of requests");
        let mut newest_write = Zxid::ZERO;
        for (ticket, (write, end)) in self.asked.iter().enumerate() {
            let carried_out = place.get(&(ticket as u64));
            match end.as_ref().unwrap() {
                Ok(Outcome::Write(WriteOutcome::Set { stat })) if *write => {
                    assert_eq!(carried_out.map(|&i| Zxid(i as u64 + 1)), Some(stat.mzxid), "{ticket}");
                    newest_write = stat.mzxid;
                }
                Ok(Outcome::Read(ReadOutcome::Data { stat, .. })) if !write => {
                    assert!(stat.mzxid >= newest_write, "{ticket} does not see the writes before it");
                }
                Ok(other) => panic!("{ticket} ended with {other:?}"),
                Err(Failure::Refused(OpError::NoNode(_))) => {
                    assert!(carried_out.is_some() && ticket % 5 == 0)
                }
                Err(failure) => match failure.fate() {
                    Fate::NotDone => assert_eq!(carried_out, None, "{ticket}: {failure}"),
                    Fate::Unknown => assert!(*write, "{ticket}: {failure}"),
                    Fate::Done => panic!("{ticket}: {failure}"),
                },
            }
        }
    }
}

#[test]
fn each_write_happens_once_and_in_order_on_random_schedules() {
    let (mut ok, mut in_doubt, mut lost, mut refused) = (0, 0, 0, 0);
    for seed in 0..400 {
        let world = run(seed, true);
        let ends = || world.asked.iter().filter_map(|(_, end)| end.as_ref());
        ok += ends().filter(|end| end.is_ok()).count();
        in_doubt += ends().filter(|end| end.as_ref().is_err_and(|f| f.fate() == Fate::Unknown)).count();
        refused += ends().filter(|end| matches!(end, Err(Failure::Refused(OpError::NoNode(_))))).count();
        lost += world.lost;
    }
    // The schedules reach what they are made for.
    assert!(ok > 10_000 && in_doubt > 100 && refused > 500 && lost > 100, "{ok} {in_doubt} {refused} {lost}");
}

#[test]
fn while_the_session_lives_only_deadlines_leave_an_outcome_unknown() {
    let mut timed_out = 0;
    for seed in 1000..1200 {
        let world = run(seed, false);
        assert_eq!(world.lost, 0, "nothing but expiry ends a session");
        for failure in world.asked.iter().filter_map(|(_, end)| end.as_ref()?.as_ref().err()) {
            if failure.fate() == Fate::Unknown {
                assert_eq!(*failure, Failure::TimedOut { fate: Fate::Unknown });
                timed_out += 1;
            }
        }
    }
    assert!(timed_out > 100, "{timed_out}");
}

fn run(seed: u64, expiry: bool) -> World {
    let mut world = World::new(seed, expiry);
    for _ in 0..1500 {
        world.step();
    }
    world.heal();
    world.check();
    world
}

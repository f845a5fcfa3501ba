//! A pretended ensemble: it carries operations out one after another and gives them times that overlap. It
//! can do one thing wrong on purpose.

use std::collections::BTreeMap;

use api::{
    Command, CommandBody, Create, Epoch, MultiOp, OpError, Page, Path, Read, ReadLevel, SessionId, TokenHash,
    Write, WriteNumber, WriteOutcome, Zxid,
};
use history::{Call, Committed, History, Operation, Outcome};
use proptest::prelude::*;
use store_core::State;

pub(crate) const CLIENTS: u32 = 4;
const KEYS: usize = 3;
const STEP: u64 = 100;

/// One operation of a client.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    client: u32,
    kind: Kind,
    key: usize,
    /// Time from the call to the effect; `after`: from the effect to the answer.
    before: u64,
    after: u64,
    fate: Fate,
    /// The number of entries that a local read is behind, if its client may see that.
    lag: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Create,
    Set,
    SetVersion(i32),
    Delete,
    Multi,
    Local,
    Linearizable,
    Exists,
    Children,
    Sync,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Answered,
    UnknownDone,
    UnknownNever,
    Refused,
}

/// Everything that clients do.
pub(crate) fn anything() -> impl Strategy<Value = Vec<Step>> {
    use Kind::*;
    let kind = prop_oneof![
        3 => Just(Create),
        6 => Just(Set),
        3 => (0..4).prop_map(SetVersion),
        2 => Just(Delete),
        2 => Just(Multi),
        6 => Just(Local),
        4 => Just(Linearizable),
        1 => Just(Exists),
        1 => Just(Children),
        2 => Just(Sync),
    ];
    let fate = prop_oneof![
        12 => Just(Fate::Answered),
        1 => Just(Fate::UnknownDone),
        1 => Just(Fate::UnknownNever),
        1 => Just(Fate::Refused),
    ];
    steps(kind.boxed(), fate.boxed())
}

/// Only operations with a certain order: sets and reads of one znode each, all answered. An error in such a
/// history is an error for a checker without zxids as well.
pub(crate) fn plain() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![4 => Just(Kind::Set), 2 => Just(Kind::Local), 2 => Just(Kind::Linearizable), 1 => Just(Kind::Sync)];
    steps(kind.boxed(), Just(Fate::Answered).boxed())
}

fn steps(kind: BoxedStrategy<Kind>, fate: BoxedStrategy<Fate>) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..CLIENTS, kind, 0..KEYS, 0..4 * STEP, 0..4 * STEP, fate, 0..5usize).prop_map(
        |(client, kind, key, before, after, fate, lag)| Step { client, kind, key, before, after, fate, lag },
    );
    prop::collection::vec(step, 20..80)
}

/// One thing that goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Anomaly {
    /// A set is answered, and then forgotten.
    LostWrite,
    /// A read at level linearizable is answered from before a write that had been answered.
    StaleRead,
    /// A sync is answered too early.
    StaleSync,
    /// A set is carried out twice.
    AppliedTwice,
    /// Two pipelined sets of a session take effect in the wrong order.
    ReorderedSession,
    /// The Stat of a set is wrong.
    WrongResult,
    /// The value of a read is wrong.
    WrongValue,
    /// A local read is answered from before something that its client knew.
    BackInTime,
    /// A set is refused, and yet carried out.
    RefusedButApplied,
    /// Two sets of different clients, one after the other, take effect in the wrong order.
    WrongOrder,
}

/// The outcome of a step.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) log: Vec<Committed>,
}

/// Carries all steps out as they should be.
pub(crate) fn good(steps: &[Step]) -> Run {
    Pretender::new(steps).run(None).unwrap()
}

/// Carries all steps out and does one thing wrong: that which stands at `pick` among all those that could go wrong in this
/// way, `None` if there are none.
pub(crate) fn bad(steps: &[Step], anomaly: Anomaly, pick: usize) -> Option<Run> {
    Pretender::new(steps).run(Some((anomaly, pick)))
}

struct Pretender {
    operations: Vec<Operation>,
    fates: Vec<Fate>,
    lags: Vec<usize>,
    state: State,
    log: Vec<Committed>,
    numbers: BTreeMap<u32, u64>,
    sessions: BTreeMap<u32, SessionId>,
}

pub(crate) fn key(i: usize) -> Path {
    Path::new(&format!("/t/k{i}")).unwrap()
}

fn create(path: Path, data: String) -> Create {
    Create::new(path, data)
}

fn call(step: &Step, unique: usize) -> Call {
    let path = key(step.key);
    let data = format!("v{unique}");
    let set =
        |version| Call::Write(Write::Set { path: path.clone(), data: Some(data.clone().into()), version });
    match step.kind {
        Kind::Create => Call::Write(Write::Create(create(path, data))),
        Kind::Set => set(None),
        Kind::SetVersion(version) => set(Some(version.into())),
        Kind::Delete => Call::Write(Write::Delete { path, version: None }),
        Kind::Multi => Call::Write(Write::Multi(vec![
            MultiOp::Set {
                path: key((step.key + 1) % KEYS),
                data: Some(format!("m{unique}").into()),
                version: None,
            },
            MultiOp::Create(create(path, data)),
        ])),
        Kind::Local => Call::Read(Read::Get { path }, ReadLevel::Local),
        Kind::Linearizable => Call::Read(Read::Get { path }, ReadLevel::Linearizable),
        Kind::Exists => Call::Read(Read::Exists { path }, ReadLevel::Local),
        Kind::Children => Call::Read(
            Read::Children { path: path.parent().unwrap(), page: Page::default() },
            ReadLevel::Local,
        ),
        Kind::Sync => Call::Sync,
    }
}

impl Pretender {
    /// Znodes are made first, by client 0, and read last, by a client of its own.
    fn new(steps: &[Step]) -> Pretender {
        let mut pretender = Pretender {
            operations: Vec::new(),
            fates: Vec::new(),
            lags: Vec::new(),
            state: State::default(),
            log: Vec::new(),
            numbers: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        pretender.marker(1);
        for client in 0..=CLIENTS {
            let token_hash = TokenHash([client as u8; 32]);
            let body = CommandBody::OpenSession { token_hash, timeout_ms: 1000, sessions_max: u32::MAX };
            let zxid = pretender.append(None, None, body);
            pretender.apply_last().unwrap();
            pretender.sessions.insert(client, SessionId(zxid.0));
        }
        let mut time = 10 * STEP;
        let paths = std::iter::once(Path::new("/t").unwrap()).chain((0..KEYS).map(key));
        for (i, path) in paths.enumerate() {
            time += STEP;
            pretender.plan(
                0,
                time - 10,
                time + 10,
                Call::Write(Write::Create(create(path, format!("c{i}")))),
            );
        }
        time += 10 * STEP;
        let mut last: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (i, step) in steps.iter().enumerate() {
            time += STEP;
            let (called, returned) = last.get(&step.client).copied().unwrap_or_default();
            let (called, returned) =
                ((time - step.before).max(called + 1), (time + step.after).max(returned + 1));
            last.insert(step.client, (called, returned));
            pretender.plan(step.client, called, returned, call(step, i));
            *pretender.fates.last_mut().unwrap() = step.fate;
            *pretender.lags.last_mut().unwrap() = step.lag;
        }
        time += 100 * STEP;
        for i in 0..KEYS {
            time += STEP;
            let read = Call::Read(Read::Get { path: key(i) }, ReadLevel::Linearizable);
            pretender.plan(CLIENTS, time - 10, time + 10, read);
        }
        pretender
    }

    fn plan(&mut self, client: u32, called: u64, returned: u64, call: Call) {
        self.operations.push(Operation {
            client,
            session: self.sessions.get(&client).copied(),
            unary: false,
            node: None,
            called,
            returned: Some(returned),
            call,
            outcome: Outcome::Unknown,
        });
        self.fates.push(Fate::Answered);
        self.lags.push(0);
    }

    fn run(mut self, anomaly: Option<(Anomaly, usize)>) -> Option<Run> {
        let mut order: Vec<usize> = (0..self.operations.len()).collect();
        let mut target = None;
        if let Some((anomaly, pick)) = anomaly {
            match anomaly {
                Anomaly::ReorderedSession | Anomaly::WrongOrder => {
                    let (a, b) = nth(self.pairs(anomaly == Anomaly::ReorderedSession), pick)?;
                    // The later one takes effect directly before the earlier one.
                    order.remove(b);
                    order.insert(a, b);
                }
                Anomaly::LostWrite
                | Anomaly::AppliedTwice
                | Anomaly::RefusedButApplied
                | Anomaly::WrongResult => {
                    target = Some((anomaly, nth(self.sets(), pick)?));
                }
                _ => {}
            }
        }
        for index in order {
            let wrong = target.filter(|&(_, t)| t == index).map(|(anomaly, _)| anomaly);
            self.carry_out(index, wrong);
        }
        if let Some((anomaly @ (Anomaly::StaleRead | Anomaly::StaleSync | Anomaly::BackInTime), pick)) =
            anomaly
        {
            let (index, zxid) = nth(self.too_old(anomaly), pick)?;
            self.set_zxid(index, zxid);
        }
        self.answer_reads();
        if let Some((Anomaly::WrongValue, pick)) = anomaly {
            let reads =
                (0..self.operations.len()).filter(|&i| self.sets_before(i).next().is_some()).collect();
            let index = nth(reads, pick)?;
            let Outcome::Read { result: Ok(api::ReadOutcome::Data { data, .. }), .. } =
                &mut self.operations[index].outcome
            else {
                return None;
            };
            *data = Some("never written".into());
        }
        Some(Run { history: History { operations: self.operations }, log: self.log })
    }

    fn marker(&mut self, epoch: u32) {
        let zxid = Zxid::marker(Epoch(epoch));
        self.state.apply_marker(zxid, 0);
        self.log.push(Committed { zxid, time_ms: 0, origin: None, level: None, command: None });
    }

    fn append(&mut self, session: Option<SessionId>, number: Option<u64>, body: CommandBody) -> Zxid {
        if self.log.len() % 17 == 16 {
            self.marker(self.state.applied().epoch().0 + 1);
        }
        let zxid = self.state.applied().next().unwrap();
        let time_ms = self.log.len() as i64;
        let number = number.map(WriteNumber);
        let command = Command { session, number, ..Command::outside(body) };
        self.log.push(Committed { zxid, time_ms, origin: None, level: None, command: Some(command) });
        zxid
    }

    /// Appends and applies.
    fn write(&mut self, client: u32, write: &Write) -> (Zxid, api::WriteResult) {
        let number = self.numbers.entry(client).or_default();
        *number += 1;
        let number = *number;
        let zxid =
            self.append(self.sessions.get(&client).copied(), Some(number), CommandBody::Write(write.clone()));
        (zxid, self.apply_last())
    }

    fn apply_last(&mut self) -> api::WriteResult {
        let entry = self.log.last().unwrap();
        self.state.apply(entry.zxid, entry.time_ms, entry.command.as_ref().unwrap()).result
    }

    fn carry_out(&mut self, index: usize, wrong: Option<Anomaly>) {
        let (client, fate) = (self.operations[index].client, self.fates[index]);
        let outcome = match (self.operations[index].call.clone(), fate) {
            (_, Fate::Refused) => Outcome::Refused(OpError::Unavailable("busy".into())),
            (_, Fate::UnknownNever) => Outcome::Unknown,
            (Call::Write(write), _) => self.carry_out_write(client, &write, fate, wrong),
            (Call::Read(_, ReadLevel::Local), _) => {
                let zxid = self.lagging(index);
                Outcome::Read { zxid, result: Err(OpError::Internal("to be answered".into())) }
            }
            (Call::Read(..), _) => {
                let result = Err(OpError::Internal("to be answered".into()));
                Outcome::Read { zxid: self.state.applied(), result }
            }
            (Call::Sync, _) => Outcome::Synced { zxid: self.state.applied() },
        };
        if outcome == Outcome::Unknown {
            self.operations[index].returned = None;
        }
        self.operations[index].outcome = outcome;
    }

    fn carry_out_write(&mut self, client: u32, write: &Write, fate: Fate, wrong: Option<Anomaly>) -> Outcome {
        if wrong == Some(Anomaly::LostWrite) {
            let (kept, number, log) =
                (self.state.records().collect::<Vec<_>>(), self.numbers.clone(), self.log.clone());
            let (zxid, result) = self.write(client, write);
            (self.state, self.numbers, self.log) = (State::load(kept).unwrap(), number, log);
            return Outcome::Written { zxid, result };
        }
        let (zxid, mut result) = self.write(client, write);
        match wrong {
            Some(Anomaly::AppliedTwice) => drop(self.write(client, write)),
            Some(Anomaly::RefusedButApplied) => return Outcome::Refused(OpError::Unavailable("busy".into())),
            Some(Anomaly::WrongResult) => match &mut result {
                Ok(WriteOutcome::Set { stat }) => stat.version += 1,
                _ => result = Ok(WriteOutcome::Deleted),
            },
            _ => {}
        }
        if fate == Fate::Answered { Outcome::Written { zxid, result } } else { Outcome::Unknown }
    }

    /// As old a state as the client may still be shown.
    fn lagging(&self, index: usize) -> Zxid {
        let client = self.operations[index].client;
        let own = |entry: &&Committed| {
            let session = entry.command.as_ref().and_then(|c| c.session);
            session.is_some() && session == self.sessions.get(&client).copied()
        };
        let seen =
            self.operations[..index].iter().filter(|o| o.client == client).filter_map(|o| o.outcome.zxid());
        let floor = seen.chain(self.log.iter().filter(own).map(|e| e.zxid)).max().unwrap_or(Zxid::ZERO);
        let behind = self.log.len().saturating_sub(1 + self.lags[index]);
        self.log[behind].zxid.max(floor)
    }

    fn set_zxid(&mut self, index: usize, to: Zxid) {
        match &mut self.operations[index].outcome {
            Outcome::Read { zxid, .. } | Outcome::Synced { zxid } => *zxid = to,
            _ => panic!("no read"),
        }
    }

    fn answer_reads(&mut self) {
        let mut state = State::default();
        let mut log = self.log.iter().peekable();
        let mut reads: Vec<(Zxid, usize)> = (0..self.operations.len())
            .filter(|&i| matches!(self.operations[i].outcome, Outcome::Read { .. }))
            .map(|i| (self.operations[i].outcome.zxid().unwrap(), i))
            .collect();
        reads.sort_unstable();
        for (upto, index) in reads {
            while let Some(entry) = log.next_if(|e| e.zxid <= upto) {
                match &entry.command {
                    Some(command) => drop(state.apply(entry.zxid, entry.time_ms, command)),
                    None => state.apply_marker(entry.zxid, entry.time_ms),
                }
            }
            let Operation { call: Call::Read(read, _), outcome: Outcome::Read { result, .. }, .. } =
                &mut self.operations[index]
            else {
                panic!("no read")
            };
            *result = state.read(read);
        }
    }

    // ---- what can go wrong ----

    /// Answered sets without a condition.
    fn sets(&self) -> Vec<usize> {
        (0..self.operations.len()).filter(|&i| self.set_key(i).is_some()).collect()
    }

    fn set_key(&self, index: usize) -> Option<&Path> {
        match &self.operations[index].call {
            Call::Write(Write::Set { path, version: None, .. }) if self.fates[index] == Fate::Answered => {
                Some(path)
            }
            _ => None,
        }
    }

    /// Sets of one znode: of one session and overlapping, or of two clients and one after the other. Nothing that would
    /// be moved along stands between them.
    fn pairs(&self, one_session: bool) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for a in self.sets() {
            for b in self.sets().into_iter().filter(|&b| b > a) {
                let (first, second) = (&self.operations[a], &self.operations[b]);
                let fits = if one_session {
                    let own_between = self.operations[a + 1..b].iter().any(|o| o.client == first.client);
                    first.client == second.client && first.returned.unwrap() >= second.called && !own_between
                } else {
                    first.client != second.client && first.returned.unwrap() < second.called
                };
                if fits && self.set_key(a) == self.set_key(b) {
                    pairs.push((a, b));
                }
            }
        }
        pairs
    }

    /// Successful sets of the znode that the operation reads; of any, if it is a sync.
    fn sets_before(&self, index: usize) -> impl Iterator<Item = &Operation> + '_ {
        let operation = &self.operations[index];
        let path = match &operation.call {
            Call::Read(Read::Get { path }, _) => Some(path),
            Call::Sync => None,
            _ => return Vec::new().into_iter(),
        };
        let answered = matches!(operation.outcome, Outcome::Read { .. } | Outcome::Synced { .. });
        self.sets()
            .into_iter()
            .filter(|&s| answered && (path.is_none() || self.set_key(s) == path))
            .map(|s| &self.operations[s])
            .filter(|s| matches!(s.outcome, Outcome::Written { result: Ok(_), .. }))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Reads, and a state for each that is too old.
    fn too_old(&self, anomaly: Anomaly) -> Vec<(usize, Zxid)> {
        (0..self.operations.len()).filter_map(|i| Some((i, self.state_too_old(anomaly, i)?))).collect()
    }

    fn state_too_old(&self, anomaly: Anomaly, index: usize) -> Option<Zxid> {
        let operation = &self.operations[index];
        let earlier = |o: &&Operation| o.returned.is_some_and(|returned| returned < operation.called);
        let fits = match anomaly {
            Anomaly::StaleRead => matches!(operation.call, Call::Read(_, ReadLevel::Linearizable)),
            Anomaly::StaleSync => operation.call == Call::Sync,
            _ => matches!(operation.call, Call::Read(_, ReadLevel::Local)),
        };
        let known = if anomaly == Anomaly::BackInTime {
            let path = |o: &Operation| match &o.call {
                Call::Read(read, _) => Some(read.path().clone()),
                Call::Write(Write::Set { path, .. }) => Some(path.clone()),
                _ => None,
            };
            let own = self.operations.iter().filter(earlier).filter(|o| o.client == operation.client);
            own.filter(|o| path(o) == path(operation)).filter_map(|o| o.outcome.zxid()).max()?
        } else {
            self.sets_before(index).filter(earlier).filter_map(|o| o.outcome.zxid()).max()?
        };
        let missed =
            self.sets_before(index).filter_map(|o| o.outcome.zxid()).filter(|&z| z <= known).max()?;
        let before = self.log.iter().rfind(|e| e.zxid < missed)?.zxid;
        fits.then_some(before)
    }
}

fn nth<T>(candidates: Vec<T>, pick: usize) -> Option<T> {
    let len = candidates.len();
    candidates.into_iter().nth(pick.checked_rem(len)?)
}

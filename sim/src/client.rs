//! Clients: the production session machine, and an application that asks at random and writes down what it sees.

use std::collections::BTreeMap;
use std::time::Duration;

use api::chance::Chance;
use api::mutants::{Mutant, is_on};
use api::session::{Item, Open, Outcome, Response};
use api::watch::{StateRule, WatchGroup, WatchScope, WatchSpec};
use api::{
    Acl, AclEntry, Create, DeleteTree, Expected, Fate, Identity, Look, MultiOp, MultiOutcome, NodeKind,
    OpError, Page, Path, Permissions, Quota, Read, ReadLevel, ReadOutcome, Scheme, SessionId, SessionToken,
    Stat, StreamId, Ticket, Time, Write, WriteNumber, WriteOutcome, Zxid, quota::Bounds, walk::Walk,
};
use bytes::Bytes;
use client_core::{Config, Connection, Event as SessionEvent, Failure, Input, Machine, Output, WatchNews};
use history::{Call, Operation};
use store_core::server::Drawn;

use crate::asked::Asked;
use crate::calls::{Calls, Over};
use crate::context::{ClientEvent, Context, Event};
use crate::double::{Double, identities};
use crate::net::{End, Kind, LinkId, Packet};
use crate::plan::Workload;

/// Most bytes of a value, as `server::Limits` has it by default.
pub(crate) const DATA_MAX: usize = 1 << 20;

/// Operations outside of sessions have client numbers from here on.
const UNARY: u32 = 1 << 24;

/// A connection to a node.
struct Wire {
    link: LinkId,
    connection: Connection,
    open: Open,
    drawn: Drawn,
}

pub(crate) struct Client {
    index: usize,
    /// Another one for each machine, as one for each process of an application.
    number: u32,
    machine: Machine,
    wire: Option<Wire>,
    session: Option<SessionId>,
    /// Open requests, by ticket: the place of their first operation in the history, and how many they have there.
    open: BTreeMap<Ticket, (usize, usize)>,
    calls: Calls,
    double: Double,
    /// Of the session, as a double knows it, and the last number that was used.
    token: Option<(SessionId, SessionToken)>,
    number_used: WriteNumber,
    tickets: u64,
    armed: super::node::Armed,
    closing: bool,
    /// Its machine has said that the session is there, and nothing else since.
    believes: bool,
    /// It acknowledges nothing.
    mute: bool,
    /// The whole machine stands still until then.
    paused_until: u64,
    /// What happened meanwhile.
    held: Vec<ClientEvent>,
    /// How long it has stood still without a clock that counts that.
    uncounted: u64,
    rng: Chance,
    values: u64,
    /// Of watches alone, so that seeds mean what they meant before.
    watch_rng: Chance,
    next_watch: u32,
    /// Of the newer verbs alone, for the same reason.
    verb_rng: Chance,
    /// The creations of znodes that it has seen of late.
    creations: BTreeMap<Path, Zxid>,
    /// On the present connection: up to where each watch was told, and whether that group goes on.
    told: BTreeMap<u32, (Zxid, bool)>,
    /// The greatest zxid of an answer.
    seen: Zxid,
}

impl Client {
    pub(crate) fn new(index: usize, cx: &mut Context) -> Client {
        let mut rng = Chance::stream(cx.plan.seed, 100 + index as u64);
        let mute = rng.per_mille(cx.plan.workload.mute);
        let mut client = Client {
            index,
            number: index as u32,
            machine: machine(cx, &mut rng),
            wire: None,
            session: None,
            open: BTreeMap::new(),
            calls: Calls::default(),
            double: Double::default(),
            token: None,
            number_used: WriteNumber(0),
            tickets: 0,
            armed: super::node::Armed::default(),
            closing: false,
            believes: false,
            mute,
            paused_until: 0,
            held: Vec::new(),
            uncounted: 0,
            rng,
            values: 0,
            watch_rng: Chance::stream(cx.plan.seed, 50_000 + index as u64),
            next_watch: 1,
            verb_rng: Chance::stream(cx.plan.seed, 60_000 + index as u64),
            creations: BTreeMap::new(),
            told: BTreeMap::new(),
            seen: Zxid::ZERO,
        };
        client.watch_some(cx);
        client.schedule(cx, 1, ClientEvent::Timer);
        client.schedule(cx, 2, ClientEvent::Think);
        client
    }

    fn schedule(&self, cx: &mut Context, after: u64, what: ClientEvent) {
        let at = cx.now + after;
        cx.schedule(at, Event::Client { client: self.index, what });
    }

    fn end(&self) -> End {
        End::Client(self.index)
    }

    fn name(&self) -> String {
        format!("client {}", self.number)
    }

    /// No caller waits for an answer.
    pub(crate) fn at_rest(&self) -> bool {
        self.unanswered() == 0
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.open.len() + self.calls.len()
    }

    /// The machine on which it runs is suspended.
    pub(crate) fn pause(&mut self, cx: &mut Context, lasts: u64) {
        let until = cx.now + lasts;
        if is_on(Mutant::SuspensionUncounted) {
            self.uncounted += until.saturating_sub(self.paused_until.max(cx.now));
        }
        self.paused_until = self.paused_until.max(until);
        // A client that stands still neither says nor does anything.
        self.session.into_iter().for_each(|session| cx.ghost.doubts(session));
        cx.schedule(until, Event::ResumeClient { client: self.index });
    }

    /// It goes on before its time.
    pub(crate) fn wake(&mut self, cx: &mut Context, operations: &mut Vec<Operation>) {
        if is_on(Mutant::SuspensionUncounted) {
            self.uncounted -= self.paused_until.saturating_sub(cx.now);
        }
        self.paused_until = self.paused_until.min(cx.now);
        self.resume(cx, operations);
    }

    /// It goes on. Its time comes first: the shell looks at its clock before it acts on what came long ago.
    pub(crate) fn resume(&mut self, cx: &mut Context, operations: &mut Vec<Operation>) {
        if self.paused_until > cx.now || self.paused_until == 0 {
            return;
        }
        self.paused_until = 0;
        self.machine.handle(self.time(cx), Input::Tick);
        self.settle(cx, operations);
        if self.believes && !self.closing {
            self.session.into_iter().for_each(|session| cx.ghost.still_believes(session));
        }
        for event in std::mem::take(&mut self.held) {
            self.on(cx, operations, event);
        }
    }

    /// Its own clock, which is right as long as it counts.
    fn time(&self, cx: &Context) -> Time {
        Time(cx.now - self.uncounted)
    }

    pub(crate) fn on(&mut self, cx: &mut Context, operations: &mut Vec<Operation>, event: ClientEvent) {
        if self.paused_until > cx.now {
            return self.held.push(event);
        }
        let now = self.time(cx);
        match event {
            ClientEvent::Timer => {
                if self.armed.fired(cx.now) || cx.now <= 1 {
                    self.machine.handle(now, Input::Tick);
                }
            }
            ClientEvent::Think => self.think(cx, operations),
            ClientEvent::Dialed { link, connected } if self.double.has(link) => {
                self.double.on_dialed(cx, self.end(), link, connected);
            }
            ClientEvent::Packet { link, packet } if self.double.has(link) => {
                self.double.on_packet(cx, self.end(), packet);
            }
            ClientEvent::Broken { link } | ClientEvent::GiveUp { link } if self.double.has(link) => {
                self.double.end(cx, self.end());
            }
            ClientEvent::Dialed { link, connected } if self.calls.has(link) => {
                let over = self.calls.on_dialed(cx, self.end(), link, connected);
                self.call_over(cx, operations, over);
            }
            ClientEvent::Packet { link, packet } if self.calls.has(link) => {
                let over = self.calls.on_packet(cx, self.end(), link, packet);
                self.call_over(cx, operations, over);
            }
            ClientEvent::Broken { link } | ClientEvent::GiveUp { link } if self.calls.has(link) => {
                let over = self.calls.lose(cx, self.end(), link);
                self.call_over(cx, operations, over);
            }
            ClientEvent::GiveUp { .. } => {}
            ClientEvent::Dialed { link, connected } => self.on_dialed(cx, link, connected),
            ClientEvent::Packet { link, packet } => self.on_packet(cx, operations, link, packet),
            ClientEvent::Broken { link } => self.on_over(cx, link, None),
        }
        self.settle(cx, operations);
    }

    /// Carries out what the machine wants, and wakes up again when it has to.
    fn settle(&mut self, cx: &mut Context, operations: &mut [Operation]) {
        self.carry_out(cx, operations, Zxid::ZERO);
        if self.machine.is_closed() {
            self.session.into_iter().for_each(|session| cx.ghost.doubts(session));
        }
        self.transmit(cx);
        if let Some(at) = self.machine.next_timeout()
            && self.armed.arm(at.0 + self.uncounted)
        {
            self.schedule(cx, (at.0 + self.uncounted).saturating_sub(cx.now), ClientEvent::Timer);
        }
    }

    // ---- the connection ----

    fn on_dialed(&mut self, cx: &mut Context, link: LinkId, connected: bool) {
        match self.wire.as_ref().filter(|w| w.link == link) {
            None => cx.close(link, self.end(), None),
            Some(wire) if connected => {
                let packet = Packet::Open(wire.open.clone(), wire.drawn, identities(self.index));
                cx.send(link, self.end(), packet);
            }
            Some(_) => self.on_over(cx, link, Some(OpError::Unavailable("no answer".into()))),
        }
    }

    fn on_over(&mut self, cx: &mut Context, link: LinkId, why: Option<OpError>) {
        cx.ended(link, self.end());
        if let Some(wire) = self.wire.take_if(|w| w.link == link) {
            let error = why.unwrap_or_else(|| OpError::Unavailable("the node ended the connection".into()));
            let connection = wire.connection;
            self.machine.handle(self.time(cx), Input::Disconnected { connection, error });
        }
    }

    fn on_packet(&mut self, cx: &mut Context, operations: &mut [Operation], link: LinkId, packet: Packet) {
        let items = match packet {
            Packet::Items(items) => items,
            Packet::Fin(why) => return self.on_over(cx, link, why),
            _ => return,
        };
        for item in items {
            let Some(connection) = self.wire.as_ref().filter(|w| w.link == link).map(|w| w.connection) else {
                return;
            };
            let mut seen = Zxid::ZERO;
            match &item {
                Item::Opened(opened) if self.token != Some((opened.session, opened.token)) => {
                    self.token = Some((opened.session, opened.token));
                    self.number_used = WriteNumber(0);
                }
                Item::Response(Response { zxid, .. }) => seen = *zxid,
                Item::Events(group) => self.look_at(cx, group),
                _ => {}
            }
            let input = Input::Items { connection, items: vec![item] };
            self.machine.handle(self.time(cx), input);
            // One by one, so that it is known to which answer an end belongs.
            self.carry_out(cx, operations, seen);
        }
    }

    fn transmit(&mut self, cx: &mut Context) {
        while self.machine.wants_to_transmit() {
            let Some(batch) = self.machine.poll_transmit(self.time(cx)) else { return };
            let numbers = batch.requests.iter().filter_map(|r| r.number);
            self.number_used = numbers.max().unwrap_or_default().max(self.number_used);
            let requests = batch.requests;
            if let Some(wire) = &self.wire {
                let acked = if self.mute && !cx.healed { WriteNumber(0) } else { batch.acked };
                cx.send(wire.link, self.end(), Packet::Requests { acked, requests });
            }
        }
    }

    fn carry_out(&mut self, cx: &mut Context, operations: &mut [Operation], zxid: Zxid) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect { connection, endpoint, open } => {
                    if let Some(older) = self.wire.take() {
                        cx.close(older.link, self.end(), None);
                    }
                    let mut drawn = Drawn { token: SessionToken([0; 16]), stream: StreamId::FIRST };
                    match open.resume {
                        Some(_) => drawn.stream = StreamId(self.rng.draw()),
                        None => drawn.token = SessionToken(std::array::from_fn(|_| self.rng.draw() as u8)),
                    }
                    let link = cx.dial(Kind::Client, self.end(), End::Node(endpoint));
                    self.told.clear();
                    self.wire = Some(Wire { link, connection, open, drawn });
                }
                Output::Disconnect { .. } => {
                    if let Some(wire) = self.wire.take() {
                        cx.close(wire.link, self.end(), None);
                    }
                }
                Output::AttemptFailed { .. } => {}
                Output::Done { ticket, result, zxid: answered } => {
                    if let (Ok(_), Some(answered)) = (&result, answered) {
                        self.seen = self.seen.max(answered);
                        let said = cx.ghost.watchers.answered(self.number, answered);
                        cx.ghost.watched(said);
                    }
                    self.done(cx, operations, ticket, result, zxid);
                }
                Output::Watch { id, news } => {
                    cx.stats.count(match &news {
                        WatchNews::Stands { .. } => "watches that stand",
                        WatchNews::State { .. } => "states of watches",
                        WatchNews::Group { .. } => "events of watches",
                        WatchNews::Ended(Some(_)) => "watches that are gone",
                        WatchNews::Ended(None) => "watches that are over",
                    });
                    let said = cx.ghost.watchers.told(self.number, id, &news);
                    cx.ghost.watched(said);
                }
                Output::Event(event) => self.on_event(cx, &event),
            }
        }
    }

    fn on_event(&mut self, cx: &mut Context, event: &SessionEvent) {
        cx.note(self.name(), || format!("{event:?}"));
        match event {
            SessionEvent::Connected { session, .. } => {
                (self.session, self.believes) = (Some(*session), true);
                cx.ghost.believes(*session);
            }
            SessionEvent::Resumed { .. } if !self.closing => {
                self.believes = true;
                self.session.into_iter().for_each(|session| cx.ghost.believes(session));
            }
            SessionEvent::Suspended => {
                self.believes = false;
                self.session.into_iter().for_each(|session| cx.ghost.doubts(session));
            }
            SessionEvent::SessionLost { session } => {
                cx.stats.count("sessions lost");
                cx.ghost.doubts(*session);
                (self.session, self.believes) = (None, false);
            }
            SessionEvent::Resumed { .. } | SessionEvent::Disconnected { .. } => {}
        }
    }

    fn done(
        &mut self,
        cx: &mut Context,
        operations: &mut [Operation],
        ticket: Ticket,
        result: Result<Outcome, Failure>,
        zxid: Zxid,
    ) {
        let Some((place, count)) = self.open.remove(&ticket) else { return };
        let results = match result {
            Ok(Outcome::MultiRead(results)) => {
                if results.len() != count {
                    let what = format!("{count} reads were answered {} times", results.len());
                    cx.ghost.fail("C16 one state", what);
                }
                let each = results.into_iter();
                each.map(|read| read.map(Outcome::Read).map_err(Failure::Refused)).collect()
            }
            result => vec![result; count],
        };
        for (operation, result) in operations.iter_mut().skip(place).zip(results) {
            self.part_done(cx, operation, result, zxid);
        }
    }

    fn part_done(
        &mut self,
        cx: &mut Context,
        operation: &mut Operation,
        result: Result<Outcome, Failure>,
        zxid: Zxid,
    ) {
        operation.session = self.session;
        let answered = zxid != Zxid::ZERO;
        let outcome = match (result, &operation.call) {
            (Ok(Outcome::Write(outcome)), _) => history::Outcome::Written { zxid, result: Ok(outcome) },
            (Ok(Outcome::Read(outcome)), _) => history::Outcome::Read { zxid, result: Ok(outcome) },
            (Ok(_), _) => history::Outcome::Synced { zxid },
            // Not kept, so its place in the log is another one whenever it is sent again.
            (
                Err(Failure::Refused(error @ (OpError::NumberReused(_) | OpError::ResultForgotten(_)))),
                Call::Write(_),
            ) => history::Outcome::Refused(error),
            // Any other answer to a write stands in the log.
            (Err(Failure::Refused(error)), Call::Write(_)) if answered => {
                history::Outcome::Written { zxid, result: Err(error) }
            }
            (
                Err(Failure::Refused(error @ (OpError::NoNode(_) | OpError::NoAuth { .. }))),
                Call::Read(..),
            ) if answered => history::Outcome::Read { zxid, result: Err(error) },
            (Err(failure), Call::Write(_)) if failure.fate() == Fate::Unknown => history::Outcome::Unknown,
            (Err(failure), _) => history::Outcome::Refused(OpError::Unavailable(failure.to_string())),
        };
        if outcome.zxid().is_none() {
            operation.session = None;
        }
        self.note_creations(&operation.call, &outcome);
        returned(cx, operation, outcome);
    }

    /// Keeps in mind which creation of a znode it has seen.
    fn note_creations(&mut self, call: &Call, outcome: &history::Outcome) {
        let mut note = |path: &Path, stat: &Stat| {
            self.creations.insert(path.clone(), stat.czxid);
        };
        match (call, outcome) {
            (_, history::Outcome::Written { result: Ok(WriteOutcome::Created { path, stat }), .. }) => {
                note(path, stat)
            }
            (_, history::Outcome::Written { result: Ok(WriteOutcome::Multi(outcomes)), .. }) => {
                for outcome in outcomes {
                    if let MultiOutcome::Created { path, stat } = outcome {
                        note(path, stat);
                    }
                }
            }
            (
                Call::Read(read, _),
                history::Outcome::Read {
                    result: Ok(ReadOutcome::Data { stat, .. } | ReadOutcome::Exists { stat: Some(stat) }),
                    ..
                },
            ) => note(read.path(), stat),
            _ => {}
        }
    }

    fn call_over(&mut self, cx: &mut Context, operations: &mut Vec<Operation>, over: Option<Over>) {
        let Some(Over { place, outcomes, more }) = over else { return };
        cx.stats.count("calls outside of sessions");
        for (operation, outcome) in operations.iter_mut().skip(place).zip(outcomes) {
            returned(cx, operation, outcome);
        }
        let Some(called) = operations.get(place).map(|operation| operation.called) else { return };
        for (call, outcome) in more {
            let mut operation = Operation { called, ..outside(cx, operations.len(), call) };
            returned(cx, &mut operation, outcome);
            operations.push(operation);
        }
    }

    // ---- the application ----

    fn think(&mut self, cx: &mut Context, operations: &mut Vec<Operation>) {
        let workload = cx.plan.workload;
        let pause = self.rng.between(1, workload.think.max(1));
        self.schedule(cx, pause, ClientEvent::Think);
        if self.machine.is_closed() {
            // Another process of the same application.
            if self.open.is_empty() && !cx.healed {
                self.number += cx.plan.clients;
                self.machine = machine(cx, &mut self.rng);
                (self.closing, self.session) = (false, None);
                self.seen = Zxid::ZERO;
                self.watch_some(cx);
                self.machine.handle(self.time(cx), Input::Tick);
            }
            return;
        }
        if cx.healed || self.closing || self.open.len() >= workload.depth {
            return;
        }
        if self.watch_rng.per_mille(20) && cx.ghost.watchers.count(self.number) < 6 {
            self.watch(cx);
        }
        if workload.doubles > 0
            && self.rng.per_mille(workload.doubles)
            && let Some(session) = self.token
            && self.number_used > WriteNumber(0)
        {
            let node = self.rng.index(cx.plan.members.len());
            let number = WriteNumber(self.number_used.0 - self.rng.below(self.number_used.0.min(4)));
            let stream = StreamId(self.rng.draw());
            self.double.begin(cx, self.index, node, session, stream, number);
        }
        if self.rng.per_mille(workload.closes) {
            self.closing = true;
            self.session.into_iter().for_each(|session| cx.ghost.doubts(session));
            cx.stats.count("sessions closed");
            return self.machine.handle(self.time(cx), Input::Close { ticket: None });
        }
        if self.rng.per_mille(workload.unary) {
            return self.call(cx, operations);
        }
        let asked = self.invent(cx);
        if let Asked::Walk(..) = asked {
            return self.call_for(cx, operations, &asked);
        }
        let (op, calls) = (asked.op(), asked.calls());
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.open.insert(ticket, (operations.len(), calls.len()));
        operations.extend(calls.into_iter().map(|call| Operation {
            client: self.number,
            session: None,
            unary: false,
            node: None,
            called: cx.now,
            returned: None,
            call,
            outcome: history::Outcome::Unknown,
        }));
        let patience = Duration::from_millis(workload.deadline);
        let deadline = (workload.deadline > 0).then(|| self.time(cx) + patience);
        self.machine.handle(self.time(cx), Input::Request { ticket, op, deadline, trace: None });
    }

    /// A new process watches a few things from its beginning on.
    fn watch_some(&mut self, cx: &mut Context) {
        (0..self.watch_rng.below(4)).for_each(|_| self.watch(cx));
    }

    fn watch(&mut self, cx: &mut Context) {
        let rng = &mut self.watch_rng;
        let scope = [WatchScope::Node, WatchScope::Children, WatchScope::Tree][rng.index(3)];
        let path = if rng.below(3) == 0 {
            "/".to_owned()
        } else {
            format!("/n{}", rng.below(cx.plan.workload.znodes))
        };
        let mut spec =
            WatchSpec::new(self.next_watch, Path::new(&path).unwrap_or_else(|_| Path::root()), scope);
        self.next_watch += 1;
        let older = cx.ghost.committed().partition_point(|c| c.zxid <= self.seen);
        match rng.below(4) {
            0 => spec.once = true,
            1 => spec.state = StateRule::Always,
            2 if older > 0 => {
                // Mostly near; now and then so far back that a node has taken a snapshot since.
                let back = if rng.per_mille(300) { rng.scale(30, 1_000) } else { rng.below(30) };
                let at = older - 1 - (back as usize).min(older - 1);
                spec.from = cx.ghost.committed().get(at).map(|c| c.zxid);
            }
            _ => {}
        }
        cx.stats.count("watches");
        cx.ghost.watchers.begins(self.number, spec.clone());
        let now = self.time(cx);
        self.machine.handle(now, Input::Watch { spec });
    }

    /// No node tells a watch twice on one connection.
    fn look_at(&mut self, cx: &mut Context, group: &WatchGroup) {
        for id in group.events.iter().flat_map(|event| &event.ids) {
            let before = self.told.get(id).copied();
            let again = before.is_some_and(|(zxid, more)| group.zxid < zxid || (group.zxid == zxid && !more));
            if again {
                let what = format!(
                    "client {}: the node tells watch {id} of {} behind {before:?}",
                    self.number, group.zxid
                );
                cx.ghost.watched(Err(what));
            }
        }
        for id in group.events.iter().flat_map(|event| &event.ids) {
            self.told.insert(*id, (group.zxid, group.more));
        }
    }

    /// Asks outside of the session.
    fn call(&mut self, cx: &mut Context, operations: &mut Vec<Operation>) {
        let mut asked = self.invent(cx);
        match &mut asked {
            Asked::One(Call::Write(write)) => persistent(write),
            Asked::One(Call::Read(_, level)) | Asked::Several(_, level) | Asked::Walk(_, level)
                if *level == ReadLevel::Local && self.rng.per_mille(500) =>
            {
                *level = ReadLevel::Stale;
            }
            _ => {}
        }
        self.call_for(cx, operations, &asked);
    }

    fn call_for(&mut self, cx: &mut Context, operations: &mut Vec<Operation>, asked: &Asked) {
        let node = self.rng.index(cx.plan.members.len());
        let patience = match cx.plan.workload.deadline {
            0 => 2 * cx.plan.timing.park,
            deadline => deadline,
        };
        self.calls.begin(cx, self.end(), (node, patience * 1_000), asked, operations.len());
        for call in asked.calls() {
            operations.push(outside(cx, operations.len(), call));
        }
    }

    fn invent(&mut self, cx: &Context) -> Asked {
        let workload = cx.plan.workload;
        if workload.verbs > 0 && self.verb_rng.per_mille(workload.verbs) {
            return self.invent_newer(cx);
        }
        if self.rng.per_mille(workload.writes) {
            return Asked::One(Call::Write(self.invent_write(workload)));
        }
        let level = match self.rng.per_mille(workload.fresh).then(|| self.rng.below(10)) {
            None => ReadLevel::Local,
            Some(0..=2) => return Asked::One(Call::Sync),
            // What another client has seen; now and then what no client has seen yet.
            Some(3..=5) => {
                let ahead = if self.rng.per_mille(100) { self.rng.below(30) } else { 0 };
                ReadLevel::AtLeast(Zxid(cx.seen.0.saturating_add(ahead)))
            }
            Some(_) => ReadLevel::Linearizable,
        };
        let path = self.path(workload);
        let read = match self.rng.below(3) {
            0 => Read::Exists { path },
            1 => Read::Children { path, page: Page::default() },
            _ => Read::Get { path },
        };
        Asked::One(Call::Read(read, level))
    }

    /// Of the verbs that are newer than the other ones.
    fn invent_newer(&mut self, cx: &Context) -> Asked {
        let workload = cx.plan.workload;
        let path = self.path(workload);
        let expected = self.expected(&path);
        if self.verb_rng.per_mille(500) {
            let level = match self.verb_rng.below(4) {
                0 => ReadLevel::Linearizable,
                1 => ReadLevel::AtLeast(cx.seen),
                _ => ReadLevel::Local,
            };
            return match self.verb_rng.below(3) {
                0 => Asked::One(Call::Read(self.question(path), level)),
                1 => {
                    let reads = (0..self.verb_rng.between(1, 4)).map(|_| {
                        let path = self.path(workload);
                        match self.verb_rng.below(3) {
                            0 => Read::Exists { path },
                            1 => Read::Children { path, page: Page::default() },
                            _ => Read::Get { path },
                        }
                    });
                    Asked::Several(reads.collect(), level)
                }
                _ => {
                    let path = if self.verb_rng.per_mille(300) { Path::root() } else { path };
                    let (max_depth, with_data) =
                        (self.verb_rng.below(3) as u32, self.verb_rng.per_mille(500));
                    Asked::Walk(Walk { path, max_depth, with_data }, level)
                }
            };
        }
        let write = match self.verb_rng.below(6) {
            0 => {
                let max_znodes = self.verb_rng.below(4) as u32;
                let keep_root = self.verb_rng.per_mille(500);
                Write::DeleteTree(DeleteTree { path, version: expected, keep_root, max_znodes })
            }
            1 => Write::SetQuota { path, quota: self.quota() },
            2 => Write::Set { path, data: Some(self.value(workload)), version: expected },
            3 => Write::Delete { path, version: expected },
            4 => Write::SetAcl { path, acl: list(self.verb_rng.below(3)), aversion: expected },
            _ => {
                let parts = (0..self.verb_rng.between(1, 3)).map(|_| {
                    let path = self.path(workload);
                    let version = self.expected(&path);
                    match self.verb_rng.below(4) {
                        0 => MultiOp::CheckAbsent { path },
                        1 => MultiOp::Check { path, version },
                        2 => MultiOp::Delete { path, version },
                        _ => MultiOp::Set { path, data: Some(self.value(workload)), version },
                    }
                });
                let mut parts: Vec<MultiOp> = parts.collect();
                parts.push(self.part(workload));
                Write::Multi(parts)
            }
        };
        Asked::One(Call::Write(write))
    }

    fn question(&mut self, path: Path) -> Read {
        match self.verb_rng.below(4) {
            0 => Read::Count { path },
            1 => Read::Acl { path },
            2 => Read::Quotas { path, page: Page::default() },
            _ => {
                let look = if self.verb_rng.per_mille(500) { Look::Stat } else { Look::Data };
                let size = self.verb_rng.below(3) as u32;
                Read::Children { path, page: Page { size, look, ..Page::default() } }
            }
        }
    }

    /// The creation that it has seen last, or another one; with a version or without.
    fn expected(&mut self, path: &Path) -> Option<Expected> {
        let seen = self.creations.get(path).copied().unwrap_or(self.seen);
        let czxid = if self.verb_rng.per_mille(800) { seen } else { Zxid(seen.0 + 1) };
        match self.verb_rng.below(4) {
            0 => None,
            1 => Some(Expected::Both { version: self.verb_rng.below(3) as i32, czxid }),
            _ => Some(Expected::Czxid(czxid)),
        }
    }

    /// So small that some writes are refused; now and then none.
    fn quota(&mut self) -> Quota {
        let rng = &mut self.verb_rng;
        let mut bounds = || Bounds {
            znodes: rng.per_mille(500).then(|| rng.below(5)),
            bytes: rng.per_mille(500).then(|| rng.below(1_000)),
        };
        Quota { soft: bounds(), hard: bounds() }
    }

    fn invent_write(&mut self, workload: Workload) -> Write {
        let path = self.path(workload);
        let version = self.rng.per_mille(300).then(|| Expected::Version(self.rng.below(4) as i32));
        match self.rng.below(10) {
            0..=2 => Write::Create(self.create(path, workload)),
            3..=6 => Write::Set { path, data: Some(self.value(workload)), version },
            7 if self.values.is_multiple_of(5) => {
                Write::SetAcl { path, acl: list(self.values % 3), aversion: version }
            }
            7 | 8 => Write::Delete { path, version },
            _ => {
                let parts = (0..self.rng.between(1, 4)).map(|_| self.part(workload)).collect();
                Write::Multi(parts)
            }
        }
    }

    fn part(&mut self, workload: Workload) -> MultiOp {
        let path = self.path(workload);
        let version = self.rng.per_mille(200).then(|| Expected::Version(self.rng.below(4) as i32));
        match self.rng.below(4) {
            0 => MultiOp::Create(self.create(path, workload)),
            1 => MultiOp::Set { path, data: Some(self.value(workload)), version },
            2 => MultiOp::Delete { path, version },
            _ => MultiOp::Check { path, version },
        }
    }

    fn create(&mut self, path: Path, workload: Workload) -> Create {
        let (ephemeral, sequential) = (self.rng.per_mille(300), self.rng.per_mille(150));
        let value = self.value(workload);
        // What follows is drawn from the count of values, so that seeds mean what they meant before.
        let n = self.values;
        let kind = match n % 4 {
            _ if ephemeral => NodeKind::Ephemeral,
            1 => NodeKind::Container,
            2 => NodeKind::Ttl { ms: n },
            _ => NodeKind::Persistent,
        };
        let acl = if n % 5 < 3 { list(n % 5) } else { Acl::default() };
        Create { path, data: (n % 7 != 3).then_some(value), kind, sequential, acl }
    }

    /// Different from every other value, and of some length.
    fn value(&mut self, workload: Workload) -> Bytes {
        self.values += 1;
        let mut value = format!("{}.{}", self.number, self.values).into_bytes();
        let length = match self.rng.per_mille(workload.large) {
            true => DATA_MAX - self.rng.index(DATA_MAX / 4),
            false => value.len() + self.rng.below(workload.data) as usize,
        };
        value.resize(length, b'.');
        value.into()
    }

    fn path(&mut self, workload: Workload) -> Path {
        let top = self.rng.below(workload.znodes);
        let name = match self.rng.below(4) {
            _ if self.rng.per_mille(workload.long) => {
                // Room for the number of a sequential one.
                let length = Path::MAX_BYTES - 20 - self.rng.below(100) as usize;
                format!("/n{top}/{}", "l".repeat(length))
            }
            0 => format!("/n{top}/c{}", self.rng.below(3)),
            _ => format!("/n{top}"),
        };
        Path::new(&name).unwrap_or_else(|_| Path::root())
    }
}

/// One of a few access lists. Clients are anonymous, so the world's entry says what they may do: nearly everything, or all but one.
fn list(n: u64) -> Acl {
    let named = Identity::new(Scheme::User, &n.to_string());
    let entry = |identity, permissions| AclEntry { identity, permissions };
    let world = match n {
        0 => Permissions::from_bits(Permissions::ALL.bits() & !Permissions::WRITE.bits()),
        1 => Permissions::from_bits(Permissions::ALL.bits() & !Permissions::READ.bits()),
        _ => Some(Permissions::ALL),
    };
    let world = world.map(|permissions| entry(Identity::anyone(), permissions));
    let named = named.ok().map(|named| entry(named, Permissions::ALL));
    Acl::new(named.into_iter().chain(world).collect()).unwrap_or_default()
}

/// Without what only a session can have.
fn persistent(write: &mut Write) {
    let creates: Vec<&mut Create> = match write {
        Write::Create(create) => vec![create],
        Write::Multi(parts) => parts
            .iter_mut()
            .filter_map(|part| if let MultiOp::Create(create) = part { Some(create) } else { None })
            .collect(),
        _ => Vec::new(),
    };
    for create in creates {
        if create.kind == NodeKind::Ephemeral {
            create.kind = NodeKind::Persistent;
        }
    }
}

fn machine(cx: &Context, rng: &mut Chance) -> Machine {
    let config = Config {
        endpoints: cx.plan.members.len(),
        session_timeout: Duration::from_millis(cx.plan.timing.session),
        window_max: cx.plan.sizes.window,
        ..Config::default()
    };
    Machine::new(config, rng.draw())
}

/// An operation outside of any session, the next of the history. Nothing orders it but time, so each is a client of its own.
fn outside(cx: &Context, place: usize, call: Call) -> Operation {
    Operation {
        client: UNARY + place as u32,
        session: None,
        unary: true,
        node: None,
        called: cx.now,
        returned: None,
        call,
        outcome: history::Outcome::Unknown,
    }
}

/// Writes down what came of an operation.
fn returned(cx: &mut Context, operation: &mut Operation, outcome: history::Outcome) {
    operation.returned = Some(cx.now);
    operation.outcome = outcome;
    cx.seen = cx.seen.max(operation.outcome.zxid().unwrap_or_default());
    cx.stats.count(match operation.outcome {
        history::Outcome::Written { result: Ok(_), .. } => "writes carried out",
        history::Outcome::Written { .. } => "writes that failed",
        history::Outcome::Read { .. } => "reads answered",
        history::Outcome::Synced { .. } => "syncs answered",
        history::Outcome::Refused(_) => "requests refused",
        history::Outcome::Unknown => "writes of unknown outcome",
    });
    let name = format!("client {}", operation.client);
    cx.note(name, || format!("{:?} -> {:?}", operation.call, operation.outcome));
}

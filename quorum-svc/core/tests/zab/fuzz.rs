//! Peers that send arbitrary messages: the core drops the connection or accepts the message, and never
//! panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::peer::{Damage, Submission, ToLeader, ToLearner};
use api::ports::{Refusal, Request, Room};
use api::{
    Body, Configuration, Ensemble, EnsembleId, Entry, Epoch, EpochSpan, History, Level, LevelRefusal, Levels,
    Now, Origin, PeerId, ROSTER_IDS_MAX, Reconfig, Roster, Stamp, Ticket, Time, Zxid,
};
use bytes::Bytes;
use proptest::prelude::*;
use quorum_core::{Conn, Input, Output, Zab};

use crate::world::World;

fn epoch() -> impl Strategy<Value = Epoch> {
    prop_oneof![8 => 0..5u32, 1 => Just(u32::MAX), 1 => Just(u32::MAX - 1)].prop_map(Epoch)
}

fn zxid() -> impl Strategy<Value = Zxid> {
    let counter = prop_oneof![8 => 0..5u32, 1 => Just(u32::MAX)];
    (epoch(), counter).prop_map(|(e, c)| Zxid::new(e, c))
}

fn history() -> impl Strategy<Value = History> {
    let span = (epoch(), 0..5u32).prop_map(|(epoch, last)| EpochSpan { epoch, last });
    (zxid(), prop::collection::vec(span, 0..3))
        .prop_map(|(base, spans)| History::from_parts(base, spans).unwrap_or_default())
}

fn ticket() -> impl Strategy<Value = Ticket> {
    (0..6u64).prop_map(Ticket)
}

fn payload() -> impl Strategy<Value = Bytes> {
    (0..600usize).prop_map(|n| Bytes::from(vec![b'x'; n]))
}

fn entry() -> impl Strategy<Value = Entry> {
    let origin =
        prop::option::of((1..5u32, ticket()).prop_map(|(p, ticket)| Origin { peer: PeerId(p), ticket }));
    let body = prop_oneof![
        3 => payload().prop_map(Body::Store),
        1 => level().prop_map(Body::Marker),
        1 => level().prop_map(Body::Level),
        1 => roster().prop_map(|roster| Body::Members(Arc::new(roster))),
    ];
    (zxid(), any::<i64>(), origin, body).prop_map(|(zxid, time_ms, origin, body)| Entry {
        zxid,
        time_ms,
        origin,
        body,
        trace: None,
    })
}

fn level() -> impl Strategy<Value = Level> {
    (1..4u32).prop_map(Level)
}

fn levels() -> impl Strategy<Value = Levels> {
    (level(), level()).prop_filter_map("a range", |(min, max)| Levels::new(min, max))
}

fn level_set() -> impl Strategy<Value = Result<Level, LevelRefusal>> {
    prop_oneof![level().prop_map(Ok), Just(Err(LevelRefusal::Refused("no".into())))]
}

fn room() -> impl Strategy<Value = Room> {
    prop_oneof![Just(Room::Ample), Just(Room::Low), Just(Room::Short)]
}

fn ensemble() -> impl Strategy<Value = EnsembleId> {
    (0..3u128).prop_map(EnsembleId)
}

fn to_leader() -> impl Strategy<Value = ToLeader> {
    let submission =
        (ticket(), payload()).prop_map(|(ticket, payload)| Submission { ticket, payload, trace: None });
    prop_oneof![
        (epoch(), levels())
            .prop_map(|(accepted_epoch, levels)| ToLeader::LearnerInfo { accepted_epoch, levels }),
        (epoch(), epoch(), history(), any::<(bool, u8)>(), prop::option::of(ensemble()), zxid()).prop_map(
            |(epoch, current_epoch, history, (counts, damage), ensemble, committed)| {
                let damage = match damage {
                    0..128 => Damage::None,
                    128..192 => Damage::Log,
                    192.. => Damage::Directory,
                };
                ToLeader::AckEpoch {
                    epoch,
                    current_epoch,
                    history,
                    counts,
                    damage,
                    last_stamp: Stamp::default(),
                    ensemble,
                    committed,
                    wall_ms: 5,
                }
            }
        ),
        zxid().prop_map(ToLeader::Ack),
        prop::collection::vec(submission, 0..4).prop_map(ToLeader::Forward),
        prop_oneof![0..4u64, Just(u64::MAX)].prop_map(|round| ToLeader::Pong { round, wall_ms: 5 }),
        ticket().prop_map(|ticket| ToLeader::Barrier { ticket }),
        payload().prop_map(ToLeader::Report),
        room().prop_map(ToLeader::Disk),
        (ticket(), level(), level()).prop_map(|(ticket, expected, level)| ToLeader::SetLevel {
            ticket,
            expected,
            level
        }),
        (ticket(), zxid(), members(), any::<bool>()).prop_map(|(ticket, expected, ensemble, force)| {
            let reconfig = Reconfig { expected, ensemble, contacts: BTreeMap::new(), force };
            ToLeader::Reconfigure { ticket, reconfig }
        }),
    ]
}

fn members() -> impl Strategy<Value = Ensemble> {
    prop::collection::btree_set(1..5u32, 1..4).prop_map(|ids| Ensemble::of_voters(ids).unwrap())
}

fn roster() -> impl Strategy<Value = Roster> {
    (zxid(), members(), removed(), prop::option::of(members())).prop_map(|(since, current, removed, next)| {
        let current = Configuration { version: since, removed, ..Configuration::initial(current) };
        match next {
            Some(next) => Roster::joint(since, current, Configuration::initial(next)),
            None => Roster::settled(since, current),
        }
    })
}

/// Former members: a few, or about as many as a roster may have.
fn removed() -> impl Strategy<Value = BTreeSet<PeerId>> {
    let many = (ROSTER_IDS_MAX - 3..=ROSTER_IDS_MAX).prop_map(|n| (10..10 + n).map(PeerId).collect());
    prop_oneof![5 => prop::collection::btree_set((1..9u32).prop_map(PeerId), 0..3), 1 => many]
}

fn to_learner() -> impl Strategy<Value = ToLearner> {
    prop_oneof![
        (epoch(), ensemble(), prop::option::of(level()))
            .prop_map(|(epoch, ensemble, level)| { ToLearner::LeaderInfo { epoch, ensemble, level } }),
        zxid().prop_map(|after| ToLearner::Diff { after }),
        zxid().prop_map(|to| ToLearner::Trunc { to }),
        (zxid(), level(), roster()).prop_map(|(zxid, level, roster)| {
            let roster = Arc::new(roster);
            ToLearner::Snap { zxid, level, roster }
        }),
        (zxid(), prop::collection::vec(entry(), 0..3), prop::option::weighted(0.2, zxid()))
            .prop_map(|(prev, entries, commit)| ToLearner::Propose { prev, entries, commit }),
        (epoch(), zxid()).prop_map(|(epoch, target)| ToLearner::NewLeader {
            epoch,
            target,
            last_stamp: Stamp::default()
        }),
        zxid().prop_map(|commit| ToLearner::UpToDate { commit }),
        zxid().prop_map(ToLearner::Commit),
        any::<u64>().prop_map(|round| ToLearner::Ping { round, quorum_ms: 5 }),
        (ticket(), zxid()).prop_map(|(ticket, zxid)| ToLearner::Barrier { ticket, zxid }),
        payload().prop_map(ToLearner::Confirm),
        ticket().prop_map(|ticket| ToLearner::Refused { ticket, why: Refusal::Full }),
        room().prop_map(ToLearner::Room),
        (ticket(), level_set()).prop_map(|(ticket, result)| ToLearner::LevelSet { ticket, result }),
        (ticket(), zxid()).prop_map(|(ticket, zxid)| ToLearner::Reconfigured { ticket, result: Ok(zxid) }),
    ]
}

#[derive(Clone, Debug)]
enum Event {
    /// Any message, or one that fits the core's last output and so passes the first check.
    Leader(ToLearner, bool),
    Learner(u32, ToLeader, bool),
    Connect(u32),
    Disconnect,
    Elected(u32),
    Disk,
    Request(Ticket),
    Time(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (to_learner(), any::<bool>()).prop_map(|(m, fits)| Event::Leader(m, fits)),
        4 => (1..5u32, to_leader(), any::<bool>()).prop_map(|(p, m, fits)| Event::Learner(p, m, fits)),
        2 => (1..5u32).prop_map(Event::Connect),
        1 => Just(Event::Disconnect),
        2 => (1..5u32).prop_map(Event::Elected),
        6 => Just(Event::Disk),
        2 => (0..1000u64).prop_map(|t| Event::Request(Ticket(t))),
        1 => (0..400u64).prop_map(Event::Time),
    ]
}

/// One core and its disk among peers that send arbitrary messages.
struct Alone {
    core: Zab,
    disk: Vec<Input>,
    appended: Zxid,
    leader: Option<(PeerId, Conn)>,
    learners: Vec<(u32, Conn)>,
    dialing: Option<PeerId>,
    conns: u64,
    now: u64,
    ticket: u64,
    promised: Epoch,
}

impl Alone {
    fn new() -> Alone {
        let w = World::new(3, 1);
        let appended = Zxid::ZERO;
        let (core, disk, learners) = (w.core(1).clone(), Vec::new(), Vec::new());
        let promised = Epoch(0);
        let (leader, dialing, conns, now, ticket) = (None, None, 1, 0, 0);
        Alone { core, disk, appended, leader, learners, dialing, conns, now, ticket, promised }
    }

    fn handle(&mut self, input: Input) {
        let now = Now { mono: Time(self.now * 1000), wall_ms: 5 };
        self.core.handle(now, input);
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Append(entries) => {
                    let mut rosters = entries.iter().filter_map(|e| e.body.roster());
                    assert!(rosters.all(|roster| roster.can_be_read()), "an entry that no server can read");
                    self.appended = entries.last().unwrap().zxid;
                    self.disk.push(Input::Persisted { upto: self.appended });
                }
                Output::PersistEpochs { accepted, .. } => {
                    self.promised = accepted;
                    self.disk.push(Input::EpochsPersisted);
                }
                Output::Truncate { .. } => self.disk.push(Input::Truncated),
                Output::InstallSnapshot { .. } => self.disk.push(Input::SnapshotInstalled),
                Output::Connect { leader } => self.dialing = Some(leader),
                Output::Disconnect { conn, .. } => {
                    self.leader.take_if(|(_, c)| *c == conn);
                    self.learners.retain(|(_, c)| *c != conn);
                }
                _ => {}
            }
        }
        assert!(self.learners.len() <= 3, "one connection of each peer");
    }

    fn conn(&mut self) -> Conn {
        self.conns += 1;
        Conn(self.conns)
    }

    fn take(&mut self, event: Event) {
        let last = self.core.history().last();
        match event {
            Event::Leader(message, fits) => {
                if let Some(leader) = self.dialing.take() {
                    let conn = self.conn();
                    self.leader = Some((leader, conn));
                    self.handle(Input::LeaderConnected { conn, leader });
                }
                let Some((_, conn)) = self.leader else { return };
                let message = if fits { self.fit_leader(message, last) } else { message };
                self.handle(Input::FromLeader { conn, message });
            }
            Event::Learner(peer, message, fits) => {
                let Some(&(_, conn)) = self.learners.iter().find(|(p, _)| *p == peer) else { return };
                let message = match message {
                    ToLeader::AckEpoch {
                        current_epoch,
                        history,
                        counts,
                        damage,
                        ensemble,
                        committed,
                        ..
                    } if fits => ToLeader::AckEpoch {
                        epoch: self.promised,
                        current_epoch,
                        history,
                        counts,
                        damage,
                        last_stamp: Stamp::default(),
                        ensemble,
                        committed,
                        wall_ms: 5,
                    },
                    ToLeader::Ack(_) if fits => ToLeader::Ack(last),
                    other => other,
                };
                self.handle(Input::FromLearner { conn, message });
            }
            Event::Connect(peer) => {
                let conn = self.conn();
                self.learners.push((peer, conn));
                self.handle(Input::LearnerConnected { conn, peer: PeerId(peer) });
            }
            Event::Disconnect => {
                let conn = self.leader.take().map(|(_, c)| c).or_else(|| Some(self.learners.pop()?.1));
                if let Some(conn) = conn {
                    self.handle(Input::Disconnected { conn });
                }
            }
            Event::Elected(leader) => self.handle(Input::Elected { leader: PeerId(leader) }),
            Event::Disk => {
                for input in std::mem::take(&mut self.disk) {
                    self.handle(input);
                }
            }
            Event::Request(Ticket(add)) => {
                self.ticket += 1 + add;
                let ticket = Ticket(self.ticket);
                let payload = Bytes::from_static(b"w");
                self.handle(Input::Requests(vec![
                    Request::Submit { ticket, payload, trace: None },
                    Request::Barrier { ticket: Ticket(self.ticket + 1) },
                ]));
                self.ticket += 1;
            }
            Event::Time(ms) => {
                self.now += ms;
                self.handle(Input::Timeout);
                let next = self.core.next_timeout();
                assert!(
                    next.is_none_or(|t| t > Time(self.now * 1000)),
                    "wants to be woken at once: {next:?}"
                );
            }
        }
    }

    fn fit_leader(&self, message: ToLearner, last: Zxid) -> ToLearner {
        match message {
            ToLearner::LeaderInfo { epoch, ensemble, level } if epoch < self.promised => {
                ToLearner::LeaderInfo { epoch: self.promised, ensemble, level }
            }
            ToLearner::Diff { .. } => ToLearner::Diff { after: last },
            ToLearner::Propose { mut entries, commit, .. } => {
                let mut end = last;
                for e in &mut entries {
                    e.zxid = if end.epoch() < self.promised {
                        Zxid::marker(self.promised)
                    } else {
                        Zxid(end.0.saturating_add(1))
                    };
                    end = e.zxid;
                    e.body = match (&e.body, e.zxid.counter()) {
                        (_, 0) => Body::Marker(self.core.standing().level.unwrap_or_default()),
                        (Body::Marker(_), _) => Body::Store(Bytes::new()),
                        (body, _) => body.clone(),
                    };
                }
                ToLearner::Propose { prev: last, entries, commit }
            }
            ToLearner::NewLeader { last_stamp, .. } => {
                ToLearner::NewLeader { epoch: self.promised, target: last, last_stamp }
            }
            other => other,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_makes_the_core_panic(events in prop::collection::vec(event(), 1..60)) {
        let mut alone = Alone::new();
        for event in events {
            alone.take(event);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_running_ensemble_survives_one_liar(
        from in 1..4u32, to in 1..4u32, up in to_leader(), down in to_learner(),
    ) {
        let mut w = World::new(3, 0);
        w.elect_all(3);
        w.submit(1, "a");
        w.settle();
        let honest = w.core(to).clone();
        let Some((&conn, link)) =
            w.links.iter().find(|(_, l)| (l.learner, l.leader) == (from, to) || (l.leader, l.learner) == (from, to))
        else {
            return Ok(());
        };
        let input = match link.leader == to {
            true => Input::FromLearner { conn, message: up },
            false => Input::FromLeader { conn, message: down },
        };
        let mut core = honest;
        core.handle(Now { mono: w.now, wall_ms: 0 }, input);
        while let Some(output) = core.poll_output() {
            prop_assert!(!matches!(output, Output::Fatal(_)), "{output:?}");
        }
    }
}

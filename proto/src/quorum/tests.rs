use api::{
    Body, Build, Contact, Ensemble, EnsembleId, Entry, Greeting, History, LevelRefusal, Member, Membership,
    Origin, PeerId, Reconfig, ReconfigRefusal, Roster, Stamp, Standing, Trace, TraceContext,
    peer::{Acquaintance, Damage, Incarnation, Submission},
    ports::{Refusal, Room},
};
use prost::Message as _;

use super::*;
use crate::PEER_PROTOCOL;

fn traced() -> Trace {
    TraceContext::new([7; 16], [9; 8], true).map(Box::new)
}

/// One of each message.
fn messages() -> (Vec<LearnerFrame>, Vec<LeaderFrame>) {
    let mut history = History::default();
    assert!(history.append(Zxid::new(Epoch(1), 0)) && history.append(Zxid::new(Epoch(1), 1)));
    let entries = vec![
        Entry::marker(Epoch(2), Level(3), 5),
        Entry {
            zxid: Zxid::new(Epoch(2), 1),
            time_ms: 6,
            origin: Some(Origin { peer: PeerId(3), ticket: Ticket(9) }),
            body: Body::Store(Bytes::from_static(b"abc")),
            trace: traced(),
        },
        Entry {
            zxid: Zxid::new(Epoch(2), 2),
            time_ms: 7,
            origin: None,
            body: Body::Level(Level(4)),
            trace: None,
        },
    ];
    let to_leader = [
        ToLeader::LearnerInfo { accepted_epoch: Epoch(3), levels: levels(2, 3).unwrap() },
        ToLeader::AckEpoch {
            epoch: Epoch(4),
            current_epoch: Epoch(3),
            history,
            counts: true,
            damage: Damage::Log,
            last_stamp: Stamp { zxid: Zxid(2), time_ms: 9 },
            ensemble: Some(EnsembleId(u128::MAX)),
            committed: Zxid(4),
            wall_ms: 8,
        },
        ToLeader::Ack(Zxid(7)),
        ToLeader::Forward(vec![Submission {
            ticket: Ticket(1),
            payload: Bytes::from_static(b"x"),
            trace: traced(),
        }]),
        ToLeader::Pong { round: 8, wall_ms: 7 },
        ToLeader::Barrier { ticket: Ticket(2) },
        ToLeader::Report(Bytes::from_static(b"r")),
        ToLeader::Disk(Room::Low),
        ToLeader::SetLevel { ticket: Ticket(5), expected: Level(1), level: Level(2) },
        ToLeader::Reconfigure {
            ticket: Ticket(5),
            reconfig: Reconfig {
                expected: Zxid(7),
                ensemble: members(),
                contacts: [(PeerId(2), contact())].into(),
                force: true,
            },
        },
    ];
    let to_learner = [
        ToLearner::LeaderInfo { epoch: Epoch(3), ensemble: EnsembleId(5), level: None },
        ToLearner::LeaderInfo { epoch: Epoch(3), ensemble: EnsembleId(5), level: Some(Level(2)) },
        ToLearner::Diff { after: Zxid(1) },
        ToLearner::Trunc { to: Zxid(1) },
        ToLearner::Propose { prev: Zxid(1), entries: entries.clone(), commit: None },
        ToLearner::Propose { prev: Zxid(1), entries, commit: Some(Zxid(1)) },
        ToLearner::NewLeader {
            epoch: Epoch(1),
            target: Zxid(2),
            last_stamp: Stamp { zxid: Zxid(2), time_ms: 8 },
        },
        ToLearner::UpToDate { commit: Zxid(4) },
        ToLearner::Commit(Zxid(5)),
        ToLearner::Ping { round: 1, quorum_ms: 2 },
        ToLearner::Barrier { ticket: Ticket(1), zxid: Zxid(2) },
        ToLearner::Confirm(Bytes::from_static(b"c")),
        ToLearner::Refused { ticket: Ticket(1), why: Refusal::Full },
        ToLearner::Room(Room::Short),
        ToLearner::LevelSet { ticket: Ticket(5), result: Ok(Level(2)) },
        ToLearner::LevelSet { ticket: Ticket(6), result: Err(LevelRefusal::Refused("no".into())) },
        ToLearner::LevelSet { ticket: Ticket(7), result: Err(LevelRefusal::Unavailable("away".into())) },
        ToLearner::Snap { zxid: Zxid(5), level: Level(2), roster: Arc::new(Roster::initial(members())) },
        ToLearner::Reconfigured { ticket: Ticket(5), result: Ok(Zxid(8)) },
    ]
    .into_iter()
    .chain(refusals().map(|r| ToLearner::Reconfigured { ticket: Ticket(6), result: Err(r) }))
    .map(|message| match message {
        // The core gets it when the whole snapshot is there.
        ToLearner::Snap { zxid, level, roster } => LeaderFrame::SnapStart(zxid, level, roster),
        message => LeaderFrame::Message(message),
    });
    (to_leader.map(LearnerFrame::Message).into(), to_learner.collect())
}

#[test]
fn every_message_survives_the_wire() {
    let (to_leader, to_learner) = messages();
    for frame in to_leader {
        assert_eq!(LearnerFrame::try_from(peer::LearnerMessage::from(frame.clone())), Ok(frame));
    }
    for frame in to_learner {
        assert_eq!(LeaderFrame::try_from(peer::LeaderMessage::from(frame.clone())), Ok(frame));
    }
}

/// Two versions that follow each other run in one ensemble: these bytes may change only with [`PEER_PROTOCOL`].
#[test]
fn the_bytes_of_messages_between_servers_are_these() {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    let (to_leader, to_learner) = messages();
    let to_leader = to_leader.into_iter().map(|frame| hex(peer::LearnerMessage::from(frame).encode_to_vec()));
    let to_learner =
        to_learner.into_iter().map(|frame| hex(peer::LeaderMessage::from(frame).encode_to_vec()));
    let hello = hex(Hello::to_peer(&greeting("e", 1)).encode_to_vec());
    let all: String = to_leader.chain(to_learner).chain([hello]).collect();
    assert_eq!(all, include_str!("golden.txt"), "the protocol has changed");
}

#[test]
fn a_message_of_no_known_kind_is_refused() {
    // What prost does not know it leaves out.
    assert!(LearnerFrame::try_from(peer::LearnerMessage { kind: None }).is_err());
    assert!(LeaderFrame::try_from(peer::LeaderMessage { kind: None }).is_err());
}

fn members() -> Ensemble {
    Ensemble::of_voters(1..=3).unwrap()
}

fn contact() -> Contact {
    Contact { host: "q".into(), client_port: 1, quorum_port: 2, election_port: 3 }
}

fn refusals() -> [ReconfigRefusal; 7] {
    let two = vec![PeerId(2), PeerId(3)];
    [
        ReconfigRefusal::Unavailable("away".into()),
        ReconfigRefusal::Invalid("no".into()),
        ReconfigRefusal::InProgress { version: Zxid(4), waits_for: two.clone() },
        ReconfigRefusal::VersionMoved { expected: Zxid(3), actual: Zxid(4) },
        ReconfigRefusal::NotSynced { members: vec![(PeerId(4), Some(0)), (PeerId(5), None)] },
        ReconfigRefusal::WouldLoseQuorum { live: two.clone(), of: 5 },
        ReconfigRefusal::IdReused { ids: two },
    ]
}

/// Two versions that follow each other run in one ensemble: what is here may be added to, and never changes its meaning.
#[test]
fn the_bytes_of_entries_are_these_and_no_unknown_kind_is_left_out() {
    let entry = |zxid, origin, body| Entry { zxid, time_ms: 6, origin, body, trace: None };
    let origin = Some(Origin { peer: PeerId(3), ticket: Ticket(9) });
    for (one, bytes) in [
        (Entry::marker(Epoch(2), Level(3), 5), "0880808080201005 2a0403000000 3802"),
        (
            entry(Zxid::new(Epoch(2), 1), origin, Body::Store(Bytes::from_static(b"abc"))),
            "0881808080201006 1803 2009 2a03616263 3801",
        ),
        (entry(Zxid::new(Epoch(2), 2), None, Body::Level(Level(4))), "0882808080201006 2a0404000000 3804"),
    ] {
        let wire = entry_to_wire(one.clone());
        let hex: String = wire.encode_to_vec().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, bytes.replace(' ', ""), "{one:?}");
        assert_eq!(super::entry(wire.clone()), Ok(one.clone()));
        for kind in [0, 5, 6, 1 << 16 | 1, u32::MAX] {
            let entries = vec![entry_to_wire(one.clone()), peer::Entry { kind, ..wire.clone() }];
            let propose = peer::leader_message::Kind::Propose(peer::Propose { prev: 1, entries, commit: 0 });
            let refused = LeaderFrame::try_from(peer::LeaderMessage { kind: Some(propose) }).unwrap_err();
            let named = if kind > 6 { "kind 65535".into() } else { format!("kind {kind}") };
            assert!(refused.0.contains(&named) && refused.0.contains("run the version"), "{refused}");
        }
    }
    for payload in [&b""[..], b"\0\0\0\0", b"\x01\0\0"] {
        let short = peer::Entry { payload: Bytes::from_static(payload), kind: 4, ..Default::default() };
        assert!(super::entry(short).is_err());
    }
}

fn greeting(name: &str, id: u32) -> Greeting {
    let observer = Member { id: PeerId(4), membership: Membership::Observer };
    let voter =
        |id, weight, group| Member { id: PeerId(id), membership: Membership::Voter { weight, group } };
    Greeting {
        name: name.to_owned(),
        id: PeerId(id),
        roster: Arc::new(Roster::initial(
            Ensemble::new([voter(1, 1, 0), voter(2, 3, 1), voter(3, 1, 0), observer]).unwrap(),
        )),
        standing: Standing {
            ensemble: Some(EnsembleId(7)),
            epoch: Epoch(5),
            bound: true,
            level: Some(Level(2)),
        },
        build: Build { version: "1.2.3".into(), levels: levels(2, 3).unwrap() },
        settings: [("timing.tick".to_owned(), "200ms".to_owned())].into(),
    }
}

#[test]
fn incarnations_survive_the_wire() {
    let [own, met, confirmed] =
        [(u64::MAX, 7), (1, 0), (2, 1)].map(|(number, run)| Some(Incarnation { number, run }));
    let none = Acquaintance::default();
    for said in [Acquaintance { own, met, confirmed }, Acquaintance { own, ..none }, none] {
        for damage in [Damage::None, Damage::Log, Damage::Directory] {
            let hello = Hello::to_quorum(&greeting("e", 1), said, damage);
            assert_eq!((Hello::acquaintance(&hello), Hello::damage(&hello)), (said, damage));
        }
    }
}

#[test]
fn the_refusal_of_another_server_names_the_remedy() {
    let this = greeting("a", 1);
    let hello = |name: &str, id| Hello::to_peer(&greeting(name, id));
    let two = Some(PeerId(2));
    assert_eq!(Hello::check(hello("a", 2), &this, two), Ok(greeting("a", 2)));
    let other = peer::Standing { ensemble: Bytes::from_static(&[1; 16]), epoch: 9, bound: true, level: 2 };
    let runs = |min_level, max_level| peer::Build { version: "9.9".into(), min_level, max_level };
    let fewer = Roster::initial(members()).encode().into();
    for (h, word) in [
        (hello("b", 2), "ensemble"),
        (hello("a", 3), "members"),
        (peer::Hello { protocol: PEER_PROTOCOL + 1, ..hello("a", 2) }, "versions"),
        (peer::Hello { standing: Some(other), ..hello("a", 2) }, "another ensemble"),
        (peer::Hello { members: fewer, ..hello("a", 2) }, "other members"),
        (peer::Hello { build: Some(runs(1, 1)), ..hello("a", 2) }, "9.9, which knows level 1: run a newer"),
        (
            peer::Hello { build: Some(runs(3, 4)), ..hello("a", 2) },
            "9.9, which knows level 3 to 4: run an older",
        ),
        (peer::Hello { build: None, ..hello("a", 2) }, "feature levels from 0 to 0"),
        (peer::Hello { members: Bytes::new(), ..hello("a", 2) }, "no ensemble"),
        (Hello::to_wire("a", PeerId(2), Standing::default()), "no ensemble"),
    ] {
        let why = Hello::check(h, &this, two).unwrap_err().0;
        assert!(why.contains(word), "{why}");
    }
}

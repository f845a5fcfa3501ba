//! The checks find what they are there for.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use api::{Body, Ensemble, Entry, Epoch, Level, Membership, Origin, PeerId, Ticket, Zxid};
use bytes::Bytes;
use invariants::{Answer, Ledger, Proposals, Quorums, Verdict, Votes};

const ONE: PeerId = PeerId(1);
const TWO: PeerId = PeerId(2);

fn z(epoch: u32, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

fn marker(epoch: u32) -> Entry {
    Entry::marker(Epoch(epoch), Level::FIRST, 0)
}

/// The submission `ticket` of server 1.
fn write(zxid: Zxid, ticket: u64) -> Entry {
    let origin = Some(Origin { peer: ONE, ticket: Ticket(ticket) });
    Entry { zxid, time_ms: 0, origin, body: Body::Store(Bytes::from(ticket.to_string())), trace: None }
}

/// Server 1 has led in epoch 1 and committed its marker; it has submitted 1 and 2.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.opens(Epoch(1), ONE).unwrap();
    ledger.established(ONE, Epoch(1), |_| true).unwrap();
    ledger.append(marker(1), 0).unwrap();
    for ticket in 1..=2 {
        ledger.submits(ONE, Ticket(ticket), Bytes::from(ticket.to_string()));
    }
    ledger
}

fn rule(verdict: Verdict) -> &'static str {
    verdict.unwrap_err().rule
}

#[test]
fn an_epoch_has_one_leader_and_the_leader_has_all_that_is_committed() {
    let mut ledger = ledger();
    ledger.append(write(z(1, 1), 1), 0).unwrap();
    assert_eq!(rule(ledger.opens(Epoch(1), TWO)), "I8 one leader per epoch");
    let mut ledger = self::ledger();
    ledger.append(write(z(1, 1), 1), 0).unwrap();
    assert_eq!(rule(ledger.serves_under(TWO, Epoch(1))), "I8 one leader per epoch");
    let lacks = |e: &Entry| e.zxid < z(1, 1);
    assert_eq!(rule(ledger.begins(TWO, Epoch(2), lacks)), "I12 leader completeness");
    ledger.begins(TWO, Epoch(2), |_| true).unwrap();
    ledger.opens(Epoch(2), TWO).unwrap();
    assert_eq!(rule(ledger.established(TWO, Epoch(2), lacks)), "I12 leader completeness");
    ledger.established(TWO, Epoch(2), |_| true).unwrap();
    let log = |_| vec![write(z(1, 2), 2)];
    assert_eq!(rule(ledger.commits(ONE, z(1, 2), log, || Ok(()), 0)), "I8 no commit of an old reign");
}

#[test]
fn a_commit_is_durable_submitted_and_in_order() {
    let commits = |entries: Vec<Entry>, durable: Result<(), String>| {
        let (mut ledger, upto) = (ledger(), entries.last().unwrap().zxid);
        ledger.commits(TWO, upto, |_| entries, || durable, 5)
    };
    let wrote = |counter, ticket| write(z(1, counter), ticket);
    commits(vec![wrote(1, 1), wrote(2, 2)], Ok(())).unwrap();
    assert_eq!(rule(commits(vec![wrote(1, 1)], Err("[1]".into()))), "I11 committed log durability");
    assert_eq!(rule(commits(vec![wrote(2, 1)], Ok(()))), "I5 primary order");
    assert_eq!(rule(commits(vec![wrote(1, 3)], Ok(()))), "I1 integrity");
    assert_eq!(rule(commits(vec![wrote(1, 1), wrote(2, 1)], Ok(()))), "C10 at most once");
    assert_eq!(rule(commits(vec![wrote(1, 2), wrote(2, 1)], Ok(()))), "C2 order of a store");
    let early = |ms| vec![Entry { time_ms: ms, ..wrote(1, 1) }];
    assert_eq!(rule(commits(early(-5), Ok(()))), "I17 times");
    commits(early(-6), Ok(())).unwrap();
    let mut other = wrote(1, 1);
    other.body = Body::Store(Bytes::from("2"));
    assert_eq!(rule(commits(vec![other], Ok(()))), "I1 integrity");
    assert_eq!(rule(ledger().commits(TWO, z(1, 1), |_| Vec::new(), || Ok(()), 0)), "I1 integrity");
}

#[test]
fn what_is_committed_stays_and_is_the_same_everywhere() {
    let mut ledger = ledger();
    ledger.append(write(z(1, 1), 1), 0).unwrap();
    assert_eq!(rule(ledger.knows(TWO, z(1, 9))), "I2 committed prefix");
    let log = [marker(1), write(z(1, 1), 2)];
    assert_eq!(rule(ledger.agrees(TWO, Zxid::ZERO, z(1, 1), log.iter())), "I2 committed prefix");
    ledger.agrees(TWO, Zxid::ZERO, z(1, 0), log.iter()).unwrap();
    ledger.agrees(TWO, z(1, 1), z(1, 1), [].iter()).unwrap();
    assert_eq!(rule(ledger.truncates(TWO, z(1, 0), |_| true)), "I11 nothing committed is truncated");
    ledger.truncates(TWO, z(1, 0), |_| false).unwrap();
}

#[test]
fn a_store_gets_one_true_answer() {
    let answers = |before: Option<Answer>, answer, committed: bool| {
        let mut ledger = ledger();
        if committed {
            ledger.append(write(z(1, 1), 1), 0).unwrap();
        }
        before.map_or(Ok(()), |before| ledger.answers_to(ONE, Ticket(1), before)).unwrap();
        ledger.answers_to(ONE, Ticket(1), answer)
    };
    use Answer::{Applied, Lost, Refused};
    answers(Some(Lost), Applied, true).unwrap();
    assert_eq!(rule(answers(None, Applied, false)), "I4 agreement");
    assert_eq!(rule(answers(None, Refused, true)), "C10 refused means never");
    assert_eq!(rule(answers(Some(Lost), Refused, false)), "C10 one answer");
    assert_eq!(rule(answers(Some(Applied), Applied, true)), "C10 one answer");
    let mut ledger = ledger();
    assert_eq!(rule(ledger.answers_to(TWO, Ticket(1), Lost)), "C10 one answer");
    ledger.refuses(ONE, Ticket(1)).unwrap();
    assert_eq!(rule(ledger.append(write(z(1, 1), 1), 0)), "C10 refused means never");
    assert_eq!(ledger.unanswered(), [Origin { peer: ONE, ticket: Ticket(2) }]);
    ledger.died(ONE);
    assert_eq!(ledger.unanswered(), []);
}

#[test]
fn a_barrier_is_behind_all_that_was_committed_before_it() {
    let mut ledger = ledger();
    ledger.asks_barrier(TWO, Ticket(7));
    assert_eq!(rule(ledger.barrier_told(TWO, Ticket(7), Zxid::ZERO)), "C9 barrier");
    assert_eq!(rule(ledger.barrier_told(TWO, Ticket(7), z(1, 0))), "C9 barrier");
    ledger.asks_barrier(TWO, Ticket(8));
    ledger.barrier_told(TWO, Ticket(8), z(1, 0)).unwrap();
}

#[test]
fn a_zxid_is_one_entry_in_one_place() {
    let mut proposals = Proposals::default();
    assert!(proposals.appends(ONE, Zxid::ZERO, &marker(1)).unwrap());
    assert!(!proposals.appends(TWO, Zxid::ZERO, &marker(1)).unwrap());
    let rule = |result: Result<bool, invariants::Broken>| result.unwrap_err().rule;
    assert_eq!(rule(proposals.appends(ONE, z(1, 0), &write(z(1, 2), 1))), "I14 no holes");
    proposals.appends(ONE, z(1, 0), &write(z(1, 1), 1)).unwrap();
    assert_eq!(rule(proposals.appends(TWO, z(1, 0), &write(z(1, 1), 2))), "I13 zxid uniqueness");
    proposals.appends(ONE, z(1, 1), &marker(2)).unwrap();
    assert_eq!(rule(proposals.appends(TWO, z(1, 0), &marker(2))), "I13 zxid uniqueness");
}

#[test]
fn a_leader_has_the_votes_of_a_quorum() {
    let voters = (1..=3).map(|id| api::Member { id: PeerId(id), membership: Membership::VOTER });
    let quorums = Quorums::of(&Ensemble::new(voters).unwrap());
    let mut votes = Votes::default();
    votes.holds(1, 'a', ONE);
    assert_eq!(rule(votes.elected(ONE, ONE, 1, 'a', &quorums)), "S7 elected by a quorum");
    votes.holds(1, 'a', TWO);
    votes.holds(2, 'a', TWO);
    votes.elected(ONE, ONE, 1, 'a', &quorums).unwrap();
    assert_eq!(votes.other_leader(1, TWO), Some(ONE));
    // Of a leader that was elected, a follower need not know every vote.
    votes.elected(TWO, ONE, 1, 'b', &quorums).unwrap();
    assert_eq!(rule(votes.elected(TWO, ONE, 2, 'a', &quorums)), "S7 elected by a quorum");
}

#[test]
fn quorums_are_those_of_the_ensemble() {
    let voter = |weight, group| Membership::Voter { weight, group };
    let observer = Membership::Observer;
    for members in [
        vec![voter(1, 0), voter(1, 0), voter(1, 0)],
        vec![voter(1, 0), observer, voter(1, 0), voter(1, 0), voter(1, 0)],
        vec![voter(3, 0), voter(0, 0), voter(2, 0), observer],
        vec![voter(1, 0), voter(1, 1), voter(1, 2), voter(1, 0), voter(2, 1), voter(0, 2)],
        vec![voter(1, 0), voter(0, 1), voter(1, 0)],
    ] {
        let nodes = members.len();
        let ensemble = Ensemble::new(
            (1..).zip(members).map(|(id, membership)| api::Member { id: PeerId(id), membership }),
        )
        .unwrap();
        let quorums = Quorums::of(&ensemble);
        for set in 0..1u32 << nodes {
            let chosen: BTreeSet<PeerId> =
                (0..nodes as u32).filter(|i| set >> i & 1 == 1).map(|i| PeerId(i + 1)).collect();
            let ours = quorums.has(|id| chosen.contains(&id));
            assert_eq!(ours, ensemble.is_quorum(&chosen), "{chosen:?} of {ensemble:?}");
        }
    }
}

use std::sync::Arc;

use super::*;
use crate::Epoch;

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

fn configuration(ids: &[u32]) -> Configuration {
    Configuration::initial(Ensemble::of_voters(ids.iter().copied()).unwrap())
}

fn joint(old: &[u32], new: &[u32]) -> Roster {
    let old = configuration(old);
    let next = old.changed_to(Ensemble::of_voters(new.iter().copied()).unwrap(), BTreeMap::new());
    Roster::joint(z(5), old, next)
}

fn set(ids: &[u32]) -> BTreeSet<PeerId> {
    ids.iter().map(|&id| PeerId(id)).collect()
}

#[test]
fn r10_a_quorum_of_a_change_is_one_of_each_list() {
    let roster = joint(&[1, 2, 3], &[3, 4, 5]);
    for (ids, quorum) in [
        (&[1, 2, 3][..], false),
        (&[3, 4, 5], false),
        (&[1, 2, 4, 5], true),
        (&[1, 3, 4], true),
        (&[3, 9], false),
    ] {
        assert_eq!(roster.is_quorum(&set(ids)), quorum, "{ids:?}");
    }
    let reached = |values: &[(u32, u32)]| {
        roster.quorum_value(values.iter().map(|&(id, value)| (PeerId(id), value)).collect::<Vec<_>>())
    };
    assert_eq!(reached(&[(1, 9), (2, 8), (3, 1), (4, 7), (5, 3)]), Some(3));
    assert_eq!(reached(&[(1, 9), (2, 8)]), None);
    assert!(roster.leaves_no_quorum(&set(&[1, 2, 4, 5])) && !roster.leaves_no_quorum(&set(&[1, 2, 4])));
    assert_eq!(roster.voters().collect::<BTreeSet<_>>(), set(&[1, 2, 3, 4, 5]));
    assert_eq!(roster.newest().removed, set(&[1, 2]));
}

#[test]
fn r09_a_member_of_either_list_takes_part_with_its_greater_part() {
    let old = configuration(&[1, 2, 3]);
    let observer = |id| Member { id: PeerId(id), membership: Membership::Observer };
    let voter = |id| Member { id: PeerId(id), membership: Membership::VOTER };
    let next = old.changed_to(Ensemble::new([observer(1), voter(2), voter(4)]).unwrap(), BTreeMap::new());
    let roster = Roster::joint(z(1), old, next);
    assert!([1, 2, 3, 4].iter().all(|&id| roster.is_voter(PeerId(id)) && roster.can_lead(PeerId(id))));
    let settled = Roster::settled(z(2), roster.newest().clone());
    assert_eq!(settled.membership(PeerId(1)), Some(Membership::Observer));
    assert_eq!(settled.membership(PeerId(3)), None);
    assert_eq!(roster.members().count(), 4);
}

#[test]
fn a_member_that_is_back_is_no_former_one() {
    let three = configuration(&[1, 2, 3]);
    let change = |from: &Configuration, ids: &[u32]| {
        from.changed_to(Ensemble::of_voters(ids.iter().copied()).unwrap(), BTreeMap::new())
    };
    let without = change(&three, &[1]);
    assert_eq!(without.removed, set(&[2, 3]));
    let back = change(&without, &[1, 2]);
    assert_eq!(back.removed, set(&[3]));
    assert_eq!(change(&back, &[1, 2, 4]).removed, set(&[3]), "the next change keeps it");
}

#[test]
fn a_roster_survives_as_bytes_and_any_part_of_it_is_refused() {
    let mut roster = joint(&[1, 2, 3], &[2, 3, 4]);
    let contact =
        Contact { host: "q-4.example".into(), client_port: 1, quorum_port: 2, election_port: 65535 };
    roster.next.as_mut().unwrap().contacts.insert(PeerId(4), contact.clone());
    assert_eq!(roster.contact(PeerId(4)), Some(&contact));
    let bytes = roster.encode();
    assert_eq!(Roster::decode(&bytes), Ok(roster));
    for end in 0..bytes.len() {
        assert_eq!(Roster::decode(&bytes[..end]), Err(BadRoster), "{end}");
    }
    assert_eq!(Roster::decode(&[bytes, vec![0]].concat()), Err(BadRoster));
}

#[test]
fn a_roster_that_no_server_could_read_is_known_before_it_is_written() {
    let with = |removed: u32| {
        let removed = (10..10 + removed).map(PeerId).collect();
        Roster::settled(z(5), Configuration { removed, ..configuration(&[1, 2, 3]) })
    };
    assert!(with(ROSTER_IDS_MAX).can_be_read());
    assert!(!with(ROSTER_IDS_MAX + 1).can_be_read());
    let host = |len: usize| {
        let mut roster = with(0);
        let contact = Contact { host: "h".repeat(len), client_port: 1, quorum_port: 2, election_port: 3 };
        roster.current.contacts.insert(PeerId(1), contact);
        roster.can_be_read()
    };
    assert!(host(255) && !host(256) && !host(0));
}

#[test]
fn r03_a_change_follows_no_other_and_ends_with_its_own_list() {
    let first = Roster::initial(Ensemble::of_voters(1..=3).unwrap());
    let change = joint(&[1, 2, 3], &[2, 3, 4]);
    assert!(change.follows(&first, z(5)) && !change.follows(&first, z(6)));
    let end = Roster::settled(z(6), change.newest().clone());
    assert!(end.follows(&change, z(6)) && !end.follows(&first, z(6)));
    let again = Roster::joint(z(6), change.current.clone(), change.newest().clone());
    assert!(!again.follows(&change, z(6)), "one change at a time");
    let other = Roster::settled(z(6), first.current.clone());
    assert!(!other.follows(&change, z(6)), "no way back");
}

#[test]
fn r16_observers_and_voters_without_weight_are_no_part_of_a_quorum() {
    let before = Roster::initial(Ensemble::of_voters(1..=3).unwrap());
    let voters = || before.current.ensemble.members().map(|(id, membership)| Member { id, membership });
    let with = |membership| {
        let ensemble = Ensemble::new(voters().chain([Member { id: PeerId(4), membership }])).unwrap();
        votes_alike(&before.current.ensemble, &ensemble)
    };
    assert!(with(Membership::Observer));
    assert!(with(Membership::Voter { weight: 0, group: 7 }));
    assert!(!with(Membership::VOTER));
}

#[test]
fn r12_the_roster_follows_the_log_through_cuts_and_purges() {
    let at = |counter| Arc::new(Roster::settled(z(counter), configuration(&[counter])));
    let mut history = RosterHistory::default();
    assert_eq!(history.last(), None);
    [2, 5, 9].into_iter().for_each(|counter| history.append(at(counter)));
    for (counter, found) in [(1, None), (2, Some(2)), (8, Some(5)), (20, Some(9))] {
        assert_eq!(history.at(z(counter)).map(|r| r.since()), found.map(z), "{counter}");
    }
    let mut cut = history.clone();
    cut.truncate(z(8));
    assert_eq!(cut.last(), Some(&at(5)));
    cut.truncate(z(1));
    assert_eq!(cut.last(), None);
    history.purge(z(6));
    assert_eq!((history.at(z(6)), history.last()), (Some(&at(5)), Some(&at(9))));
    history.truncate(z(6));
    assert_eq!(history, RosterHistory::from_base(Some(at(5))));
}

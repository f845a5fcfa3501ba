use api::ports::Candidate;
use api::{Ensemble, EnsembleId, Epoch, Member, Membership, Zxid};
use election_core::Vote;

use super::*;

const PEER: PeerId = PeerId(2);

/// Server 1 of two; its links are letters.
fn shell() -> Shell<char> {
    let member = |id| Member { id: PeerId(id), membership: Membership::VOTER };
    Shell::new(Config::new(PeerId(1), Ensemble::new([member(1), member(2)]).unwrap()))
}

fn of_ensemble(id: u128) -> Standing {
    Standing { ensemble: Some(EnsembleId(id)), epoch: Epoch(1), bound: true, level: None }
}

fn up(shell: &mut Shell<char>, number: u64, link: char, standing: Standing) -> Vec<Effect<char>> {
    shell.on_link(Time(0), LinkEvent::Up { peer: PEER, number, link, standing });
    effects(shell)
}

fn effects(shell: &mut Shell<char>) -> Vec<Effect<char>> {
    std::iter::from_fn(|| shell.poll_effect()).collect()
}

fn linked(shell: &Shell<char>) -> Vec<(PeerId, char)> {
    shell.links().map(|(peer, &link)| (peer, link)).collect()
}

#[test]
fn the_newest_link_counts_in_whichever_order_links_come_up() {
    let mut shell = shell();
    up(&mut shell, 2, 'b', Standing::default());
    assert!(matches!(up(&mut shell, 1, 'a', Standing::default())[..], [Effect::Close(PEER, 'a')]));
    assert_eq!(linked(&shell), [(PEER, 'b')]);
    let effects = up(&mut shell, 3, 'c', Standing::default());
    assert!(matches!(effects[..], [Effect::Links, Effect::Close(PEER, 'b')]), "{effects:?}");
    // The end of a replaced link changes nothing.
    shell.on_link(Time(0), LinkEvent::Down { peer: PEER, number: 2 });
    assert_eq!(linked(&shell), [(PEER, 'c')]);
    shell.on_link(Time(0), LinkEvent::Down { peer: PEER, number: 3 });
    assert_eq!(linked(&shell), []);
}

#[test]
fn a_server_of_another_ensemble_loses_its_link_and_gets_no_other() {
    let mut shell = shell();
    up(&mut shell, 1, 'a', of_ensemble(7));
    let roster = Roster::initial(Ensemble::of_voters([1, 2]).unwrap());
    shell.introduce(Time(0), of_ensemble(8), Arc::new(roster));
    assert!(matches!(effects(&mut shell)[..], [Effect::Links, Effect::Close(PEER, 'a')]));
    assert!(matches!(up(&mut shell, 2, 'b', of_ensemble(7))[..], [Effect::Close(PEER, 'b')]));
    assert_eq!(linked(&shell), []);
    up(&mut shell, 3, 'c', of_ensemble(8));
    assert_eq!(linked(&shell), [(PEER, 'c')]);
}

#[test]
fn a_notification_of_a_replaced_link_does_not_count() {
    let mut shell = shell();
    up(&mut shell, 1, 'a', Standing::default());
    up(&mut shell, 2, 'b', Standing::default());
    let candidate = Candidate { epoch: Epoch(1), zxid: Zxid::marker(Epoch(1)) };
    shell.handle(Time(0), Input::Elect(Some(Candidate { epoch: Epoch(0), zxid: Zxid::ZERO })));
    let vote = Some(Vote { candidate, leader: PEER });
    let notification =
        Notification { vote, round: Round(1), state: api::ports::Role::Looking, members: Zxid::ZERO };
    let own = shell.notification();
    let mut hear = |number| {
        shell.on_link(
            Time(0),
            LinkEvent::Heard { peer: PEER, number, notification, standing: Standing::default() },
        );
        shell.notification()
    };
    assert_eq!(hear(1), own);
    assert_eq!(hear(2).and_then(|n| n.vote), vote);
}

#[test]
fn an_outcome_goes_to_a_caller_that_waits_and_once() {
    let mut shell = shell();
    up(&mut shell, 1, 'a', Standing::default());
    let elected = |shell: &mut Shell<char>| {
        let at = Time(u64::MAX / 2);
        shell.handle(at, Input::Timeout);
        effects(shell).iter().filter(|effect| matches!(effect, Effect::Elected { .. })).count()
    };
    let candidate = Candidate { epoch: Epoch(0), zxid: Zxid::ZERO };
    let vote = Some(Vote { candidate, leader: PEER });
    let notification =
        Notification { vote, round: Round(1), state: api::ports::Role::Looking, members: Zxid::ZERO };
    let hear = |shell: &mut Shell<char>| {
        let standing = Standing::default();
        shell.on_link(Time(0), LinkEvent::Heard { peer: PEER, number: 1, notification, standing });
    };
    shell.handle(Time(0), Input::Elect(Some(candidate)));
    hear(&mut shell);
    assert_eq!(elected(&mut shell), 1);
    assert!(!shell.is_asked());
    shell.handle(Time(0), Input::Elect(Some(candidate)));
    shell.handle(Time(0), Input::Withdraw);
    hear(&mut shell);
    assert_eq!(elected(&mut shell), 0);
}

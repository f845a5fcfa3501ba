//! The leader's store removes expired znodes.

use api::NodeKind;

use super::*;

fn create_as(p: &str, kind: NodeKind) -> Op {
    Op::Write(Write::Create(Create { kind, ..Create::new(path(p), Bytes::new()) }))
}

fn delete(p: &str) -> Op {
    Op::Write(Write::Delete { path: path(p), version: None })
}

/// The removals that a node requests within this time.
fn reaps(node: &mut Node, within: Duration) -> Vec<String> {
    node.pass(within);
    let reap = |ask: &Ask| match ask {
        Ask::Submit { command: Command { body: CommandBody::Reap { path, .. }, .. }, .. } => {
            Some(path.to_string())
        }
        _ => None,
    };
    node.asks.iter().filter_map(reap).collect()
}

fn exists(node: &Node, p: &str) -> bool {
    node.server.state().read(&Read::Exists { path: path(p) }) != Ok(ReadOutcome::Exists { stat: None })
}

const INTERVAL: Duration = Duration::from_secs(10);

#[test]
fn only_the_leader_reaps_and_asks_once_while_an_entry_is_under_way() {
    let (mut leader, mut follower, mut log, _) = leader_and_follower();
    follower.ask(1, 1, vec![create_as("/c", NodeKind::Container), create("/c/x"), delete("/c/x")]);
    log.accept(&mut follower);
    log.feed(&mut leader);
    log.feed(&mut follower);
    assert_eq!(reaps(&mut leader, INTERVAL), ["/c"]);
    assert!(reaps(&mut follower, INTERVAL).is_empty());
    assert_eq!(reaps(&mut leader, INTERVAL), ["/c"], "asked for, and not again");
    log.accept(&mut leader);
    log.feed(&mut leader);
    log.feed(&mut follower);
    assert!(!exists(&leader, "/c") && !exists(&follower, "/c"));
    assert!(reaps(&mut leader, INTERVAL).is_empty());
    assert_eq!(leader.server.state().digest(), follower.server.state().digest());
}

#[test]
fn what_is_lost_or_refused_is_asked_for_again() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.ask(1, 1, vec![create_as("/c", NodeKind::Container), create("/c/x"), delete("/c/x")]);
    log.round(&mut node);
    for end in [Feed::Lost, |ticket| Feed::Refused { ticket, why: Refusal::Full }] {
        assert_eq!(reaps(&mut node, INTERVAL), ["/c"]);
        let ticket = node.asks.drain(..).find_map(|ask| match ask {
            Ask::Submit { ticket, command, .. } if matches!(command.body, CommandBody::Reap { .. }) => {
                Some(ticket)
            }
            _ => None,
        });
        node.input(Input::Feed(end(ticket.unwrap())));
    }
    assert_eq!(reaps(&mut node, INTERVAL), ["/c"]);
}

#[test]
fn a_child_that_comes_first_keeps_its_container() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    node.ask(1, 1, vec![create_as("/c", NodeKind::Container), create("/c/x"), delete("/c/x")]);
    log.round(&mut node);
    assert_eq!(reaps(&mut node, INTERVAL), ["/c"]);
    let late = std::mem::take(&mut node.asks);
    node.ask(1, 4, vec![create("/c/y")]);
    log.accept(&mut node);
    node.asks = late;
    log.round(&mut node);
    assert!(exists(&node, "/c/y"));
    node.ask(1, 5, vec![delete("/c/y")]);
    log.round(&mut node);
    assert_eq!(reaps(&mut node, INTERVAL), ["/c"], "the entry that came to nothing is settled");
}

#[test]
fn the_time_of_a_ttl_is_that_of_the_log() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    log.time_ms = 1_000_000;
    let ttl = |ms| NodeKind::Ttl { ms };
    node.ask(1, 1, vec![create_as("/t", ttl(15_000)), create_as("/u", ttl(100_000))]);
    log.round(&mut node);
    assert!(reaps(&mut node, Duration::from_secs(14)).is_empty());
    // Between two entries the node's own clock advances the time.
    assert_eq!(reaps(&mut node, INTERVAL), ["/t"]);
    // The leader's clock has advanced less, so the entry is too early, and is requested again.
    log.time_ms += 15_000;
    log.round(&mut node);
    assert!(exists(&node, "/t"));
    assert_eq!(reaps(&mut node, INTERVAL), ["/t"]);
    log.time_ms += 1;
    log.round(&mut node);
    assert!(!exists(&node, "/t") && exists(&node, "/u"));
    // The next entry advances the time by this much.
    log.time_ms += 100_000;
    node.ask(1, 3, vec![create("/other")]);
    log.round(&mut node);
    assert_eq!(reaps(&mut node, INTERVAL), ["/u"]);
}

#[test]
fn many_go_a_few_at_a_time() {
    let (mut node, mut log, _) = with_session(Role::Leading);
    let mut ops = Vec::new();
    for n in 0..250 {
        let c = format!("/c{n}");
        ops.extend([
            create_as(&c, NodeKind::Container),
            create(&format!("{c}/x")),
            delete(&format!("{c}/x")),
        ]);
    }
    node.ask(1, 1, ops);
    log.round(&mut node);
    let mut rounds = Vec::new();
    for within in [INTERVAL, Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(1)] {
        rounds.push(reaps(&mut node, within).len());
        log.round(&mut node);
    }
    assert_eq!(rounds, [100, 100, 50, 0]);
    assert_eq!(node.server.state().tree().len(), 1);
    assert_eq!(node.server.next_timeout(), None, "nothing is left to look for");
}

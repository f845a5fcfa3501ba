//! The state of a store after a restart, and its source.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path, time::Duration};

use api::{
    Command, CommandBody, PeerId, Ticket, Zxid,
    ports::{Quorum as _, Request},
};
use common::*;
use proto::v1::{self, request::Op};
use store_svc::{StopReason, testing::MemoryQuorum};
use tonic::Code;

/// Makes some writes. Returns the resulting digest, and the session.
async fn fill(node: &Node, n: usize) -> (u64, Session) {
    let mut session = Session::open(node).await;
    let name = format!("/s{:x}", session.id());
    session.ask(vec![create(&name, "")]).await;
    let ops = (0..n).map(|i| create(&format!("{name}/{i}"), vec![i as u8; i * 13 % 9000])).collect();
    assert!(session.ask(ops).await.iter().all(is_ok));
    session.ask(vec![ephemeral(&format!("{name}-e"))]).await;
    (node.status().await.digest, session)
}

async fn digest_at_end(node: &Node, quorum: &MemoryQuorum) -> u64 {
    // A read behind a barrier: the store has then applied the whole log.
    let mut client = node.client().await;
    client.sync(v1::SyncRequest {}).await.unwrap();
    let status = node.status().await;
    assert_eq!(status.applied_zxid, quorum.log().last().unwrap().zxid.0);
    status.digest
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let (digest, session) = fill(&node, 300).await;
    let applied = node.status().await.applied_zxid;
    node.stop().await;
    let end = session.answers;
    drop(end);
    // The store replays nothing: the earlier log does not even exist.
    let node = Node::start(dir.path(), &quorum).await;
    assert_eq!(digest_at_end(&node, &quorum).await, digest);
    assert_eq!(node.status().await.applied_zxid, applied);
    node.stop().await;
}

#[tokio::test]
async fn a_session_survives_a_restart_of_its_node() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let (_, mut session) = fill(&node, 10).await;
    node.stop().await;
    let status = session.answers.message().await.unwrap_err();
    assert!(status.code() == Code::Unavailable && status.message().contains("shutting down"), "{status:?}");
    let node = Node::start(dir.path(), &quorum).await;
    let mut session = session.resume(&node).await.unwrap();
    assert!(is_ok(&session.ask(vec![create("/after", "")]).await[0]));
    node.stop().await;
}

#[tokio::test]
async fn a_kill_loses_nothing_that_the_log_has() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let mut digest = 0;
    for round in 0..3 {
        let node = Node::start(dir.path(), &quorum).await;
        if round > 0 {
            assert_eq!(digest_at_end(&node, &quorum).await, digest, "round {round}");
        }
        digest = fill(&node, 200).await.0;
        node.kill().await;
    }
}

/// Submits an entry that makes stores compare their states.
async fn check(node: &Node, quorum: &MemoryQuorum, of: Zxid, digest: u64) -> Zxid {
    let command = Command::outside(CommandBody::Check { of, digest });
    let payload = proto::store::encode_command(command);
    let submit = Request::Submit { ticket: Ticket(u64::MAX), payload, trace: None };
    quorum.request(vec![submit]).await.unwrap();
    let zxid = quorum.log().last().unwrap().zxid;
    while node.status().await.applied_zxid < zxid.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    zxid
}

#[tokio::test]
async fn a_state_that_is_not_the_leaders_is_built_again_and_if_that_does_not_help_the_node_stops() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let quorums = [(); 2].map(|()| MemoryQuorum::new(PeerId(1)));
    let mut digests = Vec::new();
    for (i, (dir, quorum)) in dirs.iter().zip(&quorums).enumerate() {
        let node = Node::start(dir.path(), quorum).await;
        let mut session = Session::open(&node).await;
        session.ask(vec![create("/a", i.to_string()), Op::Close(v1::CloseSessionRequest {})]).await;
        digests.push(node.status().await.digest);
        node.stop().await;
    }
    let [(right, wrong), ..] = [(digests[0], digests[1])];
    assert_ne!(right, wrong);

    // The checkpoint of one node with the log of the other.
    let (dir, quorum) = (dirs[1].path(), &quorums[0]);
    let node = Node::start(dir, quorum).await;
    assert_eq!(node.status().await.digest, wrong);
    let noted = check(&node, quorum, Zxid::ZERO, 0).await;
    assert_eq!(node.status().await.digest, wrong);
    check(&node, quorum, noted, right).await;
    assert_eq!(digest_at_end(&node, quorum).await, right);
    let mut session = Session::open(&node).await;
    assert!(is_ok(&session.ask(vec![create("/b", "")]).await[0]), "it serves again");
    node.stop().await;

    // Its checkpoint is right now. If a leader still differs, the program has a fault.
    let node = Node::start(dir, quorum).await;
    let noted = check(&node, quorum, Zxid::ZERO, 0).await;
    let payload = proto::store::encode_command(Command::outside(CommandBody::Check { of: noted, digest: 7 }));
    quorum.request(vec![Request::Submit { ticket: Ticket(u64::MAX), payload, trace: None }]).await.unwrap();
    let StopReason::Invariant(why) = node.stopped().await else { panic!("another reason") };
    assert!(why.contains("built again") && why.contains("empty directory"), "{why}");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_moved_aside_and_rebuilt_from_the_log() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let (digest, _) = fill(&node, 200).await;
    node.stop().await;
    damage(dir.path());
    let node = Node::start(dir.path(), &quorum).await;
    assert_eq!(digest_at_end(&node, &quorum).await, digest);
    node.stop().await;
    assert!(dir.path().join("table.damaged-1").exists());
    // The rebuilt checkpoint is good.
    let node = Node::start(dir.path(), &quorum).await;
    assert_eq!(digest_at_end(&node, &quorum).await, digest);
    node.stop().await;
    assert!(!dir.path().join("table.damaged-2").exists());
}

#[tokio::test]
async fn snapshots_go_out_exact_and_come_in_where_the_log_is_gone() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let small = |c: &mut store_svc::Config| c.snapshot_entries = 100;
    let node = Node::start_with(dir.path(), &quorum, small).await;
    let (_, mut session) = fill(&node, 1000).await;
    while quorum.snapshot().is_none() {
        session.ask(vec![set("/", "once more")]).await;
    }
    fill(&node, 20).await;
    let digest = digest_at_end(&node, &quorum).await;
    node.stop().await;
    assert!(quorum.purge());
    // A node that has lost its checkpoint, and one that is far behind.
    let far_behind = MemoryQuorum::new(PeerId(1));
    let other = tempfile::tempdir().unwrap();
    let node = Node::start(other.path(), &far_behind).await;
    fill(&node, 50).await;
    node.stop().await;
    damage(dir.path());
    for dir in [dir.path(), other.path()] {
        let node = Node::start(dir, &quorum).await;
        assert_eq!(digest_at_end(&node, &quorum).await, digest);
        node.stop().await;
        // The received snapshot becomes a good checkpoint.
        let node = Node::start(dir, &quorum).await;
        assert_eq!(digest_at_end(&node, &quorum).await, digest);
        node.stop().await;
    }
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_stops_the_node_with_a_reason() {
    let (dir, quorum) = (tempfile::tempdir().unwrap(), MemoryQuorum::new(PeerId(1)));
    let node = Node::start(dir.path(), &quorum).await;
    let session = Session::open(&node).await;
    let payload = bytes::Bytes::from_static(b"\xff\xff from the future");
    let submit = api::ports::Request::Submit { ticket: api::Ticket(1), payload, trace: None };
    api::ports::Quorum::request(&quorum, vec![submit]).await.unwrap();
    let reason = node.stopped().await;
    assert!(matches!(&reason, StopReason::Invariant(m) if m.contains("newer version")), "{reason}");
    assert_eq!(session.end().await.unwrap_err().code(), Code::Unavailable);
}

/// Damages the whole checkpoint.
fn damage(dir: &Path) {
    let file = dir.join("table/db");
    let size = fs::metadata(&file).unwrap().len() as usize;
    fs::write(&file, vec![0xa5; size]).unwrap();
}

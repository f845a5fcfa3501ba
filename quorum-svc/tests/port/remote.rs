//! Either side may disappear and return.

use std::collections::BTreeSet;
use std::time::Duration;

use api::ports::{Chunks, FeedItem, Quorum, Refusal, Role};
use api::{PeerId, Standing, Zxid};
use bytes::Bytes;
use proto::internal::{self, quorum_port_client::QuorumPortClient, snapshot_message, store_message};
use proto::ports::request_to_wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::fixture::{Node, OTHER, OWN, PARK, REQUESTS_MAX, Store, barrier, payload, soon, submit};

#[tokio::test]
async fn a_quorum_that_is_restarted_goes_on_with_the_feed_where_it_was() {
    let node = Node::start(true).await;
    let port = node.remote();
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request((1..=100).map(submit).collect()).await.unwrap();
    store.read(100).await;
    soon(port.linked(true)).await;

    let down = async {
        store
            .until(|item| matches!(item, FeedItem::Status(s) if !s.serving && s.role == Role::Looking))
            .await;
        soon(port.linked(false)).await;
        let status = soon(port.status()).await.unwrap();
        assert_eq!((status.role, status.serving, status.leader), (Role::Looking, false, None));
        // The client keeps requests in order until the quorum is back.
        port.request(vec![submit(101), barrier(102)]).await.unwrap();
        port.request(vec![submit(103)]).await.unwrap();
    };
    let node = node.restart(down).await;
    store.read(102).await;
    assert_eq!(store.tickets(), (1..=101).chain([103]).collect::<Vec<u64>>());
    drop(node);
}

#[tokio::test]
async fn whatever_was_under_way_is_lost_or_comes_back_and_never_both() {
    let mut node = Node::start(true).await;
    let port = node.remote();
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    let (mut next, mut fates) = (1, Fates::default());
    for _ in 0..5 {
        port.request((next..next + 300).map(submit).collect()).await.unwrap();
        next += 300;
        // Until the result of some requests is known; that of others is not.
        let known = store.tickets().len() + fates.len();
        soon(async {
            while store.tickets().len() + fates.len() < known + 5 {
                fates.note(&store.step().await);
            }
        })
        .await;
        node = node.restart(async {}).await;
    }
    // Once one write is answered, no more results of earlier ones follow.
    soon(async {
        port.request(vec![submit(next)]).await.unwrap();
        while store.tickets().last() != Some(&next) {
            fates.note(&store.step().await);
            if fates.knows(next) {
                next += 1;
                port.request(vec![submit(next)]).await.unwrap();
            }
        }
    })
    .await;
    let answered: BTreeSet<u64> = store.tickets().into_iter().collect();
    assert_eq!(answered.len(), store.tickets().len(), "none twice");
    let all: Vec<u64> = answered.iter().chain(&fates.lost).chain(&fates.refused).copied().collect();
    assert_eq!(all.len() as u64, next, "each has one fate");
    assert_eq!(all.into_iter().collect::<BTreeSet<u64>>(), (1..=next).collect());
    // A lost write may still be in the log. But no write is in it twice, and no refused one is in it.
    let logged: Vec<&Bytes> = store.entries.iter().filter_map(|e| e.payload()).collect();
    assert_eq!(logged.iter().collect::<BTreeSet<_>>().len(), logged.len());
    assert!(!fates.refused.iter().any(|&ticket| logged.contains(&&payload(ticket))));
}

/// Results of unanswered requests.
#[derive(Default)]
struct Fates {
    lost: BTreeSet<u64>,
    refused: BTreeSet<u64>,
}

impl Fates {
    fn note(&mut self, items: &[FeedItem]) {
        for item in items {
            match item {
                FeedItem::Lost { ticket } => assert!(self.lost.insert(ticket.0), "{ticket:?} twice"),
                FeedItem::Refused { ticket, .. } => {
                    assert!(self.refused.insert(ticket.0), "{ticket:?} twice");
                }
                _ => {}
            }
        }
    }

    fn knows(&self, ticket: u64) -> bool {
        self.lost.contains(&ticket) || self.refused.contains(&ticket)
    }

    fn len(&self) -> usize {
        self.lost.len() + self.refused.len()
    }
}

#[tokio::test]
async fn without_a_quorum_requests_wait_within_bounds() {
    let node = Node::start(true).await;
    let port = node.remote();
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    store.until(|item| matches!(item, FeedItem::Status(s) if s.serving)).await;
    let max = REQUESTS_MAX as u64;
    let (mut full, mut late) = (BTreeSet::new(), BTreeSet::new());
    let began = std::time::Instant::now();
    let down = async {
        soon(port.linked(false)).await;
        port.request((1..=max + 3).map(submit).collect()).await.unwrap();
        soon(async {
            while full.len() + late.len() < REQUESTS_MAX + 3 {
                for item in store.step().await {
                    match item {
                        FeedItem::Refused { ticket, why: Refusal::Full } => assert!(full.insert(ticket.0)),
                        FeedItem::Refused { ticket, why: Refusal::NoLeader } => {
                            assert!(late.insert(ticket.0));
                        }
                        _ => {}
                    }
                }
            }
        })
        .await;
    };
    let node = node.restart(down).await;
    assert!(began.elapsed() >= PARK);
    assert_eq!((full, late), ((max + 1..=max + 3).collect(), (1..=max).collect()));
    port.request(vec![submit(max + 4)]).await.unwrap();
    store.read(1).await;
    assert_eq!(store.tickets(), [max + 4], "what was refused is never carried out");
    drop(node);
}

#[tokio::test]
async fn a_store_whose_clock_went_back_is_answered_under_its_own_tickets() {
    let node = Node::start(true).await;
    let before = node.remote();
    let mut store = Store::attach(&before, Zxid::ZERO).await;
    before.request(vec![submit(5000), submit(5001)]).await.unwrap();
    store.read(2).await;
    let place = store.last();
    drop((store, before));
    let after = node.remote();
    let mut store = Store::attach(&after, place).await;
    after.request(vec![submit(10), barrier(11), submit(5001)]).await.unwrap();
    store.read(2).await;
    assert_eq!(store.tickets(), [10, 5001]);
    store.pass_barrier(11).await;
}

/// Yields this number of chunks and then blocks for ever.
struct Stuck(usize);

impl Chunks for Stuck {
    async fn next(&mut self) -> Option<Bytes> {
        if self.0 == 0 {
            std::future::pending::<()>().await;
        }
        self.0 -= 1;
        Some(Bytes::from_static(b"half of it"))
    }
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_is_not_kept() {
    let node = Node::start(true).await;
    let port = node.remote();
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![submit(1)]).await.unwrap();
    store.read(1).await;
    let zxid = store.last();
    let halfway = tokio::time::timeout(Duration::from_millis(300), port.save_snapshot(zxid, Stuck(2))).await;
    assert!(halfway.is_err(), "it has not ended");

    // The client ends the stream without the message for the end.
    let mut client = QuorumPortClient::connect(format!("http://{}", node.port)).await.unwrap();
    let hello = Some(proto::quorum::Hello::to_wire("test", PeerId(1), Standing::default()));
    let head = snapshot_message::Kind::Head(internal::SnapshotHead { hello, zxid: zxid.0 });
    let chunk = snapshot_message::Kind::Chunk(Bytes::from_static(b"half of it"));
    let messages = [head, chunk].map(|kind| internal::SnapshotMessage { kind: Some(kind) });
    let status = soon(client.save_snapshot(tokio_stream::iter(messages))).await.unwrap_err();
    assert!(status.message().contains("before its end"), "{status}");

    struct Whole(Option<Bytes>);
    impl Chunks for Whole {
        async fn next(&mut self) -> Option<Bytes> {
            self.0.take()
        }
    }
    soon(port.save_snapshot(zxid, Whole(Some(Bytes::from_static(b"all of it"))))).await.unwrap();
    let far = Zxid(u64::MAX);
    drop(store);
    // A store that is ahead of the quorum starts over from the newest snapshot.
    let mut store = Store::attach(&port, far).await;
    store.until(|item| *item == FeedItem::SnapshotEnd).await;
    assert_eq!(store.snapshot, Some((zxid, b"all of it".to_vec())));
}

#[tokio::test]
async fn garbage_and_stores_of_other_nodes_do_no_harm() {
    let node = Node::start(true).await;
    let mut client = QuorumPortClient::connect(format!("http://{}", node.port)).await.unwrap();
    let store = |kind| internal::StoreMessage { kind: Some(kind) };
    let attach = |ensemble: &str, id| {
        let hello = Some(proto::quorum::Hello::to_wire(ensemble, PeerId(id), Standing::default()));
        store(store_message::Kind::Attach(internal::AttachRequest { hello, after: 0 }))
    };
    for (first, words) in [
        (attach("other", 1), "services.quorum"),
        (attach("test", 2), "services.quorum"),
        (internal::StoreMessage { kind: None }, "attach first"),
    ] {
        let status = soon(client.attach(tokio_stream::once(first))).await.unwrap_err();
        assert!(status.message().contains(words), "{status}");
    }
    // Tickets that do not ascend would stop the quorum if it trusted them.
    let batch = |ticket| {
        let requests = vec![request_to_wire(submit(ticket))];
        store(store_message::Kind::Requests(internal::Requests { requests }))
    };
    let (out, messages) = mpsc::channel(8);
    for message in [attach("test", 1), batch(7), batch(7)] {
        out.send(message).await.unwrap();
    }
    let mut answers = soon(client.attach(ReceiverStream::new(messages))).await.unwrap().into_inner();
    let status = soon(async {
        loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => break status,
            }
        }
    })
    .await;
    assert!(status.message().contains("ascend"), "{status}");

    let port = node.remote();
    let mut store = Store::attach(&port, Zxid::ZERO).await;
    port.request(vec![submit(8)]).await.unwrap();
    store.read(2).await;
    assert_eq!(store.tickets(), [8]);
}

#[tokio::test]
async fn b01_a_store_with_entries_of_another_ensemble_takes_nobodys_place() {
    let node = Node::start(true).await;
    let (own, ids) = node.remote_of(None);
    let mut store = Store::attach(&own, Zxid::ZERO).await;
    own.request(vec![submit(1)]).await.unwrap();
    store.read(1).await;
    assert_eq!(ids.try_iter().collect::<Vec<_>>(), [OWN], "before the first entry");
    let (strange, kept) = node.remote_of(Some(OTHER));
    let mut stranger = Store::attach(&strange, Zxid::ZERO).await;
    let told = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            stranger.step().await;
        }
    });
    assert!(told.await.is_err() && !strange.is_linked() && stranger.entries.is_empty());
    assert!(stranger.snapshot.is_none() && kept.try_recv().is_err());
    own.request(vec![submit(2)]).await.unwrap();
    store.read(2).await;
    assert_eq!(store.tickets(), [1, 2], "the link goes on");

    let standing = Standing { ensemble: Some(OTHER), bound: true, ..Standing::default() };
    let hello = Some(proto::quorum::Hello::to_wire("test", PeerId(1), standing));
    let mut client = QuorumPortClient::connect(format!("http://{}", node.port)).await.unwrap();
    let level = internal::SetLevelRequest { hello: hello.clone(), expected: 1, level: 2 };
    let head = snapshot_message::Kind::Head(internal::SnapshotHead { hello: hello.clone(), zxid: 1 });
    let head = internal::SnapshotMessage { kind: Some(head) };
    let attach = store_message::Kind::Attach(internal::AttachRequest { hello: hello.clone(), after: 0 });
    let attach = internal::StoreMessage { kind: Some(attach) };
    let reconfigure = internal::ReconfigureRequest { hello: hello.clone(), reconfig: None };
    for refused in [
        soon(client.attach(tokio_stream::once(attach))).await.map(drop),
        soon(client.signs(internal::SignsRequest { hello })).await.map(drop),
        soon(client.save_snapshot(tokio_stream::once(head))).await.map(drop),
        soon(client.set_level(level)).await.map(drop),
        soon(client.reconfigure(reconfigure)).await.map(drop),
    ] {
        let why = refused.unwrap_err();
        let named = [OWN, OTHER].iter().all(|id| why.message().contains(&id.to_string()));
        assert!(named && why.message().contains("services.quorum"), "{why}");
    }
}

#[tokio::test]
async fn b01_a_store_takes_nothing_from_another_ensemble_in_the_place_of_its_own() {
    // Its id is known when the store attaches, or only later.
    for leads in [true, false] {
        let node = Node::start(true).await;
        let (port, ids) = node.remote_of(None);
        let mut store = Store::attach(&port, Zxid::ZERO).await;
        port.request(vec![submit(1)]).await.unwrap();
        store.read(1).await;
        let before = store.last();
        let other = node.replace(leads).await;
        if !leads {
            // Without a log it would have the store start over.
            let told = tokio::time::timeout(Duration::from_millis(500), async {
                loop {
                    store.step().await;
                }
            });
            assert!(told.await.is_err() && !port.is_linked());
            assert_eq!((store.last(), store.snapshot.as_ref()), (before, None));
            other.elect();
        }
        soon(async {
            while other.handle.surroundings().await.unwrap().ensemble != Some(OTHER) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        // The next attempt is refused, so another store keeps its place.
        soon(port.linked(false)).await;
        let mut theirs = Store::attach(&other.handle, Zxid::ZERO).await;
        other.handle.request(vec![submit(1), submit(2), submit(3)]).await.unwrap();
        theirs.read(3).await;
        let told = tokio::time::timeout(Duration::from_secs(2), async {
            loop {
                let items = store.step().await;
                let foreign =
                    |item: &FeedItem| matches!(item, FeedItem::Status(s) if s.ensemble == Some(OTHER));
                assert!(!items.iter().any(foreign), "{items:?}");
            }
        });
        assert!(told.await.is_err());
        assert_eq!((store.last(), store.snapshot.as_ref(), port.is_linked()), (before, None, false));
        assert_eq!(soon(port.status()).await.unwrap().ensemble, Some(OWN), "nor its status");
        assert_eq!(ids.try_iter().collect::<Vec<_>>(), [OWN]);
    }
}

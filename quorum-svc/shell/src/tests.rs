use std::path::Path;
use std::sync::Arc;

use api::peer::Incarnation;
use api::ports::FeedItem;
use api::{Body, Build, Ensemble, Entry, Epoch, Level, PeerId, Roster, Zxid};
use bytes::Bytes;
use quorum_core::Input;
use quorum_log::{Base, MemDisk, Storage, StorageOptions};

use crate::suspicion::Suspicion;
use crate::{Done, Feed, LogView, LogWorker, Met, Step, Task, Tell};

fn members() -> Ensemble {
    Ensemble::of_voters(1..=3).unwrap()
}

fn storage() -> Storage {
    let options = StorageOptions {
        ensemble: "test".into(),
        id: PeerId(1),
        log_dir: None,
        members: members(),
        segment_bytes: 1 << 16,
        window_bytes: 0,
        index_interval_bytes: 256,
        may_heal: true,
        secret: 1,
        run: 1,
        build: Build::this(),
    };
    Storage::open(&(Arc::new(MemDisk::new()) as Arc<_>), Path::new("/node"), &options).unwrap()
}

/// The first entries of epoch 1.
fn entries(counters: std::ops::Range<u64>) -> Vec<Entry> {
    let body = |counter| match counter {
        0 => Body::Marker(Level::FIRST),
        _ => Body::Store(Bytes::from_static(b"a write")),
    };
    let entry = |counter| Entry {
        zxid: Zxid(Zxid::marker(Epoch(1)).0 + counter),
        time_ms: 0,
        origin: None,
        body: body(counter),
        trace: None,
    };
    counters.map(entry).collect()
}

fn last(entries: &[Entry]) -> Zxid {
    entries.last().unwrap().zxid
}

fn append(worker: &mut LogWorker, entries: Vec<Entry>) {
    worker.push(Task::Append(entries));
    assert!(worker.begin().unwrap());
    worker.finish().unwrap();
}

#[test]
fn entries_that_wait_in_a_row_share_an_fsync_and_epochs_keep_their_place() {
    let Storage { log, epochs, incarnations, snapshots, .. } = storage();
    let promised = epochs.epochs();
    let mut worker = LogWorker::new(log, epochs, snapshots, Met::new(incarnations));
    let (first, second, third) = (entries(0..2), entries(2..3), entries(3..4));
    let (shared, alone) = (last(&second), last(&third));
    for task in [first, second].map(Task::Append) {
        worker.push(task);
    }
    worker.push(Task::Epochs(promised));
    worker.push(Task::Append(third));
    let mut done = Vec::new();
    while worker.begin().unwrap() {
        assert!(!worker.begin().unwrap(), "one thing after the other");
        match worker.finish().unwrap() {
            Some(Done::Told(input)) => done.push(input),
            other => panic!("{:?}", other.is_none()),
        }
    }
    let expected =
        [Input::Persisted { upto: shared }, Input::EpochsPersisted, Input::Persisted { upto: alone }];
    assert_eq!(done, expected);
    assert!(worker.is_idle());
}

#[test]
fn a_store_that_has_what_the_log_does_not_starts_over_from_what_there_is() {
    let Storage { log, epochs, incarnations, snapshots, .. } = storage();
    let view = LogView::new(log.reader(), log.history().last(), 0);
    let mut worker = LogWorker::new(log, epochs, snapshots.clone(), Met::new(incarnations));
    append(&mut worker, entries(0..3));
    // As after a restart: the memory is empty.
    let view = LogView::new(view.reader, last(&entries(0..3)), 0);

    let mut feed = Feed::new(Zxid(Zxid::marker(Epoch(1)).0 + 7));
    assert!(matches!(feed.poll(&view, &snapshots), Step::Wait));
    feed.told(Tell::Committed { upto: Zxid::marker(Epoch(1)) });
    feed.told(Tell::Committed { upto: last(&entries(0..3)) });
    let mut given = Vec::new();
    let mut step = feed.poll(&view, &snapshots);
    loop {
        step = match step {
            Step::Wait => break,
            Step::Give(items) => {
                given.extend(items);
                feed.poll(&view, &snapshots)
            }
            Step::Read(what) => {
                let got = what.carry_out(&view, &snapshots, usize::MAX);
                feed.got(got, &view, &snapshots).unwrap()
            }
            Step::Forsake => panic!("the log has its beginning"),
        };
    }
    let start = FeedItem::SnapshotStart { zxid: Zxid::ZERO };
    assert_eq!(given, [start, FeedItem::SnapshotEnd, FeedItem::Committed(entries(0..3))]);
    assert_eq!(feed.position(), last(&entries(0..3)));
}

/// The newest snapshot was damaged, and the log began behind it. The feed handed the older one over
/// again and again.
#[test]
fn a_store_does_not_get_a_snapshot_that_does_not_reach_the_log() {
    let Storage { log, epochs, incarnations, snapshots, .. } = storage();
    let mut worker = LogWorker::new(log, epochs, snapshots.clone(), Met::new(incarnations));
    let (older, base) = (last(&entries(0..3)), last(&entries(0..6)));
    append(&mut worker, entries(0..6));
    let mut writer = snapshots.begin(older, Level::FIRST).unwrap();
    writer.chunk(b"a state").unwrap();
    writer.finish().unwrap();
    worker.push(Task::Reset(Base { zxid: base, level: Some(Level::FIRST), roster: None }));
    assert!(worker.begin().unwrap());
    worker.finish().unwrap();
    let view = LogView::new(worker.log().reader(), base, 0);

    let mut feed = Feed::new(last(&entries(0..5)));
    feed.told(Tell::Committed { upto: base });
    let Step::Read(what) = feed.poll(&view, &snapshots) else { panic!("there is something to read") };
    let got = what.carry_out(&view, &snapshots, usize::MAX);
    let step = feed.got(got, &view, &snapshots).unwrap();
    assert!(matches!(step, Step::Forsake));
}

#[test]
fn an_older_copy_is_noted_once_all_were_asked_and_a_quorum_has_lost_nothing() {
    let me = PeerId(1);
    let mut suspicion = Suspicion::default();
    let heard = |suspicion: &mut Suspicion, peer, lost, number| {
        suspicion.heard(me, &Roster::initial(members()), PeerId(peer), lost, number)
    };
    assert!(!heard(&mut suspicion, 2, false, 0), "there is no suspicion");
    let met = |number| Incarnation { number, run: 1 };
    assert!(suspicion.told(met(5)));
    assert!(!suspicion.told(met(5)), "once is enough");
    assert!(!heard(&mut suspicion, 2, false, 1));
    assert!(!heard(&mut suspicion, 3, true, 1), "2 alone is no quorum");
    assert!(!heard(&mut suspicion, 3, false, 0), "it was asked before");
    assert!(suspicion.outlived().is_empty());
    assert!(heard(&mut suspicion, 3, false, 1));
    assert_eq!(suspicion.outlived(), [met(5)]);

    assert!(suspicion.told(met(6)));
    assert!(!heard(&mut suspicion, 2, false, 2), "all are asked anew");
    suspicion.healed();
    assert_eq!(suspicion.outlived(), [met(6)], "a leader has sent what was lost");
}

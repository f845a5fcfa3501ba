//! The table by itself: what is written comes back, and what is damaged is found.

use std::{fs, path::Path};

use api::{
    Command, CommandBody, Create, CreateMode, Epoch, SessionId, SessionToken, Write, WriteNumber, Zxid,
    record::Record,
};

use super::{
    redo,
    sled_table::{self, Noted, SledTable, wait_for_lock},
    *,
};

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// Writes `n` znodes with values of all sizes, a long path, and a session, behind what is there.
fn grow(state: &mut State, n: u32) {
    let mut next = state.applied().counter() + 1;
    let mut apply = |body, session: Option<SessionId>, number| {
        let command = Command { session, number, acked: WriteNumber(0), body };
        next += 1;
        state.apply(z(next - 1), 5, &command)
    };
    let open = CommandBody::OpenSession { token: SessionToken([1; 16]), timeout_ms: 1000 };
    let session = SessionId(apply(open, None, None).zxid.0);
    for i in 0..n {
        let name = if i % 10 == 3 {
            format!("/{}{}", "long".repeat(100), session)
        } else {
            format!("/n{}", i * 7 % n)
        };
        let size = [0, 1, 100, 4094, 4095, 8190, 100_000][i as usize % 7];
        let path = api::Path::new(&name).unwrap();
        let data = Bytes::from(vec![i as u8; size]);
        let body = match i % 5 {
            4 => CommandBody::Write(Write::Delete { path, version: None }),
            3 => CommandBody::Write(Write::Set { path, data, version: None }),
            _ => CommandBody::Write(Write::Create(Create { path, data, mode: CreateMode::default() })),
        };
        apply(body, Some(session), Some(WriteNumber(u64::from(i) + 1)));
    }
}

fn records(state: &State) -> Vec<Record> {
    state.records().collect()
}

#[test]
fn what_was_written_comes_back_after_every_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    for _ in 0..4 {
        grow(&mut state, 60);
        {
            let (mut table, _) = open(dir.path()).unwrap();
            table.write(state.take_dirty()).unwrap();
        }
        let (_table, loaded) = open(dir.path()).unwrap();
        assert_eq!(records(&loaded), records(&state));
    }
    assert!(!dir.path().join("table.damaged-1").exists());
}

/// A state of more records than fit into one batch is in the table, and `grow` has changed all of it and more since; a crash
/// comes when that is written down and `batches` of it are done.
fn crash_in_a_large_checkpoint(dir: &Path, batches: usize) -> State {
    let mut state = State::default();
    grow(&mut state, 1000);
    let (mut table, _) = open(dir).unwrap();
    table.write(state.take_dirty()).unwrap();
    drop(table);
    grow(&mut state, 1500);
    let table = dir.join("table");
    wait_for_lock(&table.join("db")).unwrap();
    let mut sled = SledTable::open(&table).unwrap();
    // A table knows what it has from reading it.
    load(&mut sled).unwrap();
    assert!(matches!(sled.note_down(state.take_dirty()).unwrap(), Noted::Many));
    let mut reader = redo::Reader::open(&table).unwrap().unwrap();
    for _ in 0..batches {
        let mut batch = reader.next_batch().unwrap();
        assert!(!batch.is_empty());
        sled.apply(&mut batch).unwrap();
    }
    state
}

#[test]
fn a_crash_in_the_middle_of_a_large_checkpoint_leaves_the_new_state() {
    for batches in [0, 1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let state = crash_in_a_large_checkpoint(dir.path(), batches);
        // Twice: what was found is done, and not found again.
        for _ in 0..2 {
            let (_table, loaded) = open(dir.path()).unwrap();
            assert_eq!(records(&loaded), records(&state), "after {batches} batches");
            assert!(!dir.path().join("table/redo").exists());
        }
        assert!(!dir.path().join("table.damaged-1").exists());
    }
}

#[test]
fn a_crash_before_a_large_checkpoint_is_written_down_leaves_the_old_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 1000);
    open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
    fs::write(dir.path().join("table/redo.tmp"), b"qr-redo1 and no more").unwrap();
    let (mut table, loaded) = open(dir.path()).unwrap();
    assert_eq!(records(&loaded), records(&state));
    assert!(!dir.path().join("table/redo.tmp").exists());
    grow(&mut state, 1000);
    table.write(state.take_dirty()).unwrap();
    drop(table);
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

#[test]
fn a_damaged_large_checkpoint_is_found_and_moved_aside() {
    let whole = tempfile::tempdir().unwrap();
    crash_in_a_large_checkpoint(whole.path(), 1);
    let bytes = fs::read(whole.path().join("table/redo")).unwrap();
    let last = bytes.len() - 1;
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cut = |len: usize| bytes[..len].to_vec();
    for damaged in [
        flipped(0),
        flipped(9),
        flipped(last / 2),
        flipped(last),
        cut(last),
        cut(9),
        cut(0),
        [&bytes[..], b"x"].concat(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        crash_in_a_large_checkpoint(dir.path(), 1);
        fs::write(dir.path().join("table/redo"), damaged).unwrap();
        let (_table, loaded) = open(dir.path()).unwrap();
        assert_eq!(loaded.digest(), State::default().digest());
        assert!(dir.path().join("table.damaged-1").exists());
    }
}

#[test]
fn a_full_disk_is_no_damage() {
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    for error in [TableError::from(full()), sled_table::io_error(sled::Error::Io(full()))] {
        assert!(matches!(error, TableError::Full(_)), "{error}");
        assert!(error.to_string().contains("free space"), "{error}");
    }
    // A file of the size 0 that nothing can be written to takes the place of the disk.
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 100);
    open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
    let table = dir.path().join("table");
    wait_for_lock(&table.join("db")).unwrap();
    std::os::unix::fs::symlink("/dev/full", table.join("redo.tmp")).unwrap();
    let mut sled = SledTable::open(&table).unwrap();
    std::os::unix::fs::symlink("/dev/full", table.join("redo.tmp")).unwrap();
    grow(&mut state, 1000);
    let failed = sled.write(state.take_dirty()).unwrap_err();
    assert!(matches!(failed, TableError::Full(_)), "{failed}");
}

#[test]
fn a_snapshot_is_exact_and_takes_the_place_of_everything_where_it_is_loaded() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut state = State::default();
    grow(&mut state, 100);
    let (table, _) = open(one.path()).unwrap();
    let mut checkpointer = Checkpointer::start(table).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (pieces, mut rest) = tokio::sync::mpsc::channel(1);
    let got = runtime.block_on(async {
        checkpointer.begin(Job::Checkpoint { changes: state.take_dirty(), export: Some(pieces) });
        let mut got = Vec::new();
        while let Some(piece) = rest.recv().await {
            assert!(piece.len() <= 1 << 20);
            got.push(piece);
        }
        checkpointer.done().await.unwrap();
        checkpointer.stop().await;
        got
    });
    assert!(got.len() > 1, "{} pieces", got.len());
    let mut other = State::default();
    grow(&mut other, 30);
    let (mut table, _) = open(two.path()).unwrap();
    table.write(other.take_dirty()).unwrap();
    let mut checkpointer = Checkpointer::start(table).unwrap();
    runtime.block_on(async {
        checkpointer.begin(Job::Rewrite(got));
        checkpointer.done().await.unwrap();
        checkpointer.stop().await;
    });
    let (_table, loaded) = open(two.path()).unwrap();
    assert_eq!(records(&loaded), records(&state));
}

#[test]
fn an_export_that_nobody_wants_is_called_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 200);
    let (table, _) = open(dir.path()).unwrap();
    let mut checkpointer = Checkpointer::start(table).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (pieces, rest) = tokio::sync::mpsc::channel(1);
        drop(rest);
        checkpointer.begin(Job::Checkpoint { changes: state.take_dirty(), export: Some(pieces) });
        checkpointer.done().await.unwrap();
        assert!(!checkpointer.busy());
        checkpointer.stop().await;
    });
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

#[test]
fn damage_leaves_an_earlier_state_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 100);
    open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
    let file = dir.path().join("table/db");
    let bytes = fs::read(&file).unwrap();
    // sled may take the damage for a torn end and go back to an earlier batch; that is an earlier state, and whole.
    for start in (0..10).map(|i| i * bytes.len() / 10) {
        let mut damaged = bytes.clone();
        damaged.iter_mut().skip(start).step_by(997).for_each(|b| *b ^= 0x10);
        fs::write(&file, damaged).unwrap();
        let (_table, loaded) = open(dir.path()).unwrap();
        assert_eq!(loaded.digest(), State::default().digest(), "damaged from byte {start}");
    }
}

#[test]
fn a_damaged_table_is_moved_aside_and_the_last_one_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for n in 1..=3 {
        let mut state = State::default();
        grow(&mut state, 10);
        open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
        fs::write(dir.path().join("table/db"), vec![0xa5; 1 << 20]).unwrap();
        assert_eq!(open(dir.path()).unwrap().1.applied(), Zxid::ZERO);
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["table".to_owned(), format!("table.damaged-{n}")]);
    }
}

#[test]
fn a_record_that_is_wrong_or_missing_is_found_by_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 50);
    open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
    // As sled does when a bit flips: one key is gone, and nothing says so.
    wait_for_lock(&dir.path().join("table/db")).unwrap();
    let db = sled::open(dir.path().join("table")).unwrap();
    let key = db.iter().keys().nth(5).unwrap().unwrap();
    db.remove(key).unwrap();
    db.flush().unwrap();
    drop(db);
    let mut table = SledTable::open(&dir.path().join("table")).unwrap();
    assert!(matches!(load(&mut table), Err(TableError::Load(_) | TableError::Damaged(_))));
}

#[test]
fn what_a_crash_of_sled_leaves_is_removed_before_it_opens() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 50);
    open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
    let left = dir.path().join("table/snap.00000000FFFFFFFF.generating");
    fs::write(&left, b"half").unwrap();
    let (_table, loaded) = open(dir.path()).unwrap();
    assert_eq!(loaded.applied(), state.applied());
    assert!(!left.exists());
}

#[test]
fn no_value_is_large_enough_for_a_blob_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    let data = Bytes::from(vec![7; 1 << 20]);
    for i in 1..=20 {
        let path = api::Path::new(&format!("/{i}-{}", "p".repeat(i as usize * 100))).unwrap();
        let write = Write::Create(Create { path, data: data.clone(), mode: CreateMode::default() });
        let body = CommandBody::Write(write);
        state.apply(z(i), 1, &Command { session: None, number: None, acked: WriteNumber(0), body });
    }
    let (mut table, _) = open(dir.path()).unwrap();
    table.write(state.take_dirty()).unwrap();
    drop(table);
    let blobs = dir.path().join("table/blobs");
    assert_eq!(fs::read_dir(blobs).map_or(0, Iterator::count), 0);
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

#[test]
fn an_interrupted_rewrite_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 50);
    let (mut table, _) = open(dir.path()).unwrap();
    table.write(state.take_dirty()).unwrap();
    let cut = || Err(TableError::Damaged("cut".into()));
    let mut records = state
        .records()
        .take(20)
        .map(|r| Ok(Bytes::from(proto::store::encode_record(r))))
        .chain(std::iter::once_with(cut));
    assert!(table.rewrite(&mut records).is_err());
    drop(table);
    let (_table, loaded) = open(dir.path()).unwrap();
    assert_eq!(loaded.applied(), Zxid::ZERO);
    assert!(Path::new(dir.path()).join("table").exists());
}

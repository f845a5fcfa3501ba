//! Tests of the table alone: it returns what was written, and detects damage.

use std::{fs, path::Path};

use api::{
    Acl, AclEntry, Command, CommandBody, Create, Epoch, Identity, NodeKind, Permissions, Scheme, SessionId,
    TokenHash, Write, WriteNumber, Zxid, record::Record,
};

use super::{
    redo,
    sled_table::{self, Noted, SledTable, wait_for_lock},
    *,
};

fn z(counter: u32) -> Zxid {
    Zxid::new(Epoch(1), counter)
}

/// The open list, or a list that is larger than a page.
fn list(n: u32) -> Acl {
    let entry = |i| AclEntry {
        identity: Identity::new(Scheme::User, &format!("{n} {i} {}", "x".repeat(1000))).unwrap(),
        permissions: Permissions::ALL,
    };
    if n == 0 { Acl::default() } else { Acl::new((0..5).map(entry).collect()).unwrap() }
}

/// Adds `n` znodes of all kinds with values of all sizes and lists, a long path, and a session to the
/// state.
fn grow(state: &mut State, n: u32) {
    let mut next = state.applied().counter() + 1;
    let mut apply = |body, session: Option<SessionId>, number| {
        let command = Command { session, number, ..Command::outside(body) };
        next += 1;
        state.apply(z(next - 1), 5, &command)
    };
    let open =
        CommandBody::OpenSession { token_hash: TokenHash([1; 32]), timeout_ms: 1000, sessions_max: u32::MAX };
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
            3 => CommandBody::Write(Write::Set { path, data: Some(data), version: None }),
            _ => {
                let data = Some(data).filter(|_| i % 4 > 0);
                let kind = match i % 3 {
                    0 => NodeKind::Container,
                    1 => NodeKind::Ttl { ms: 1 << 39 },
                    _ => NodeKind::Ephemeral,
                };
                CommandBody::Write(Write::Create(Create {
                    data,
                    kind,
                    acl: list(i % 6),
                    ..Create::new(path, "")
                }))
            }
        };
        apply(body, Some(session), Some(WriteNumber(u64::from(i) + 1)));
    }
}

/// The table and its state.
fn open(dir: &Path) -> Result<(Box<dyn Table>, State), TableError> {
    let Opened { table, state } = super::open(dir)?;
    Ok((table.unwrap(), state))
}

fn checkpointer(dir: &Path) -> Checkpointer {
    let dir = dir.to_owned();
    let (table, _) = open(&dir).unwrap();
    Checkpointer::start(Some(table), Box::new(move || anew(&dir))).unwrap()
}

/// The job for the checkpoint thread: the changes or the whole state.
fn job(state: &mut State) -> Job {
    Job::Changes(state.take_dirty())
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

/// The table has a state with more records than fit into one batch, and `grow` has changed all of it
/// and added more. The crash comes after the changes are recorded and `batches` of them are applied.
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
    // A table learns its content by reading it.
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
        // Twice: after the first opening the recorded changes are applied, and gone.
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
    // A file of size 0 that rejects writes replaces the disk.
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

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

#[test]
fn a_snapshot_is_exact_and_what_was_loaded_from_it_takes_the_place_of_everything() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut state = State::default();
    grow(&mut state, 300);
    let mut from = checkpointer(one.path());
    let (pieces, mut rest) = tokio::sync::mpsc::channel(1);
    let parts = parts(&mut state, false, usize::MAX);
    let got = runtime().block_on(async {
        from.begin(Job::Snapshot { parts, pieces });
        let mut got = Vec::new();
        while let Some(Some(piece)) = rest.recv().await {
            assert!(piece.len() <= 1 << 20);
            got.push(piece);
        }
        from.done().await.unwrap();
        from.stop().await;
        got
    });
    assert!(got.len() > 1, "{} pieces", got.len());
    let (mut decoder, mut loader) = (proto::store::RecordDecoder::default(), Loader::default());
    for piece in got {
        decoder.push(&piece);
        while let Some(record) = decoder.next_record().unwrap() {
            loader.take(record).unwrap();
        }
    }
    let mut loaded = loader.finish().unwrap();
    assert_eq!(records(&loaded), records(&state));
    let mut other = State::default();
    grow(&mut other, 30);
    let (mut table, _) = open(two.path()).unwrap();
    table.write(other.take_dirty()).unwrap();
    drop(table);
    loaded.forget_checkpoint();
    let mut to = checkpointer(two.path());
    runtime().block_on(async {
        to.begin(job(&mut loaded));
        to.done().await.unwrap();
        to.stop().await;
    });
    assert_eq!(records(&open(two.path()).unwrap().1), records(&state));
}

#[test]
fn an_export_that_nobody_wants_is_called_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 200);
    let mut checkpointer = checkpointer(dir.path());
    runtime().block_on(async {
        let (pieces, rest) = tokio::sync::mpsc::channel(1);
        drop(rest);
        checkpointer.begin(Job::Snapshot { parts: parts(&mut state, false, usize::MAX), pieces });
        checkpointer.done().await.unwrap();
        assert!(!checkpointer.busy());
        // A snapshot that is cancelled has no end.
        let (pieces, mut rest) = tokio::sync::mpsc::channel(8);
        checkpointer.begin(Job::Snapshot { parts: parts(&mut state, false, 2), pieces });
        checkpointer.done().await.unwrap();
        while let Some(piece) = rest.recv().await {
            assert!(piece.is_some());
        }
        checkpointer.begin(job(&mut state));
        checkpointer.done().await.unwrap();
        checkpointer.stop().await;
    });
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

/// A state in parts, as the driver sends it; at most `most` of them.
fn parts(state: &mut State, checkpoint: bool, most: usize) -> tokio::sync::mpsc::Receiver<Part> {
    let (sender, parts) = tokio::sync::mpsc::channel(10_000);
    let mut records = state.begin_export(checkpoint);
    for _ in 0..most {
        let Some((znodes, more)) = state.export(16, usize::MAX) else { break };
        records.extend(znodes.into_iter().map(Record::Znode));
        sender.try_send(Part { records: std::mem::take(&mut records), last: !more }).ok().unwrap();
    }
    parts
}

#[test]
fn a_whole_checkpoint_in_parts_takes_the_place_of_everything_or_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = State::default();
    grow(&mut before, 300);
    open(dir.path()).unwrap().0.write(before.take_dirty()).unwrap();
    let mut state = State::default();
    grow(&mut state, 1000);
    let mut thread = checkpointer(dir.path());
    assert!(!slower_than(dir.path(), state.applied()), "few znodes");
    runtime().block_on(async {
        thread.begin(Job::Whole(parts(&mut state, true, usize::MAX)));
        thread.done().await.unwrap();
        // Later changes are applied to it.
        grow(&mut state, 20);
        let changes = state.take_dirty();
        assert!(!changes.whole);
        thread.begin(Job::Changes(changes));
        thread.done().await.unwrap();
        thread.stop().await;
    });
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));

    let mut thread = checkpointer(dir.path());
    runtime().block_on(async {
        thread.begin(Job::Whole(parts(&mut state, true, 3)));
        thread.done().await.unwrap();
        thread.stop().await;
    });
    assert!(slower_than(dir.path(), Zxid::ZERO), "there is no table");
    assert_eq!(open(dir.path()).unwrap().1.applied(), Zxid::ZERO);
}

#[test]
fn a_start_reads_the_snapshot_of_a_large_state_unless_the_table_is_far_ahead() {
    let dir = tempfile::tempdir().unwrap();
    assert!(slower_than(dir.path(), z(7)), "there is no table");
    fs::create_dir(dir.path().join("table")).unwrap();
    let note = |applied: Zxid, znodes| {
        fs::write(dir.path().join("table/at"), format!("{} {znodes}\n", applied.0)).unwrap();
    };
    for (applied, znodes, at, slower) in [
        (z(400_000), 1_000_000, z(1), true),
        (z(600_000), 1_000_000, z(1), false),
        (z(600_000), 1_000_000, z(200_000), true),
        (z(600_000), 1_000_000, z(700_000), true),
        (z(10), 1000, z(9), false),
        (z(10), 1000, z(100), false),
        // The table has not been written yet.
        (z(0), 1, z(600_000), true),
        (z(10), 1000, Zxid::new(Epoch(2), 0), true),
        (Zxid::new(Epoch(2), 5), 1_000_000, z(700_000), true),
    ] {
        note(applied, znodes);
        assert_eq!(slower_than(dir.path(), at), slower, "{znodes} at {applied}, snapshot at {at}");
    }
    fs::write(dir.path().join("table/at"), "no number").unwrap();
    assert!(slower_than(dir.path(), z(7)));
}

#[test]
fn b18_after_a_checkpoint_that_failed_a_whole_one_is_written_to_a_new_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 100);
    let mut checkpointer = checkpointer(dir.path());
    let file = dir.path().join("table/redo.tmp");
    runtime().block_on(async {
        checkpointer.begin(job(&mut state));
        checkpointer.done().await.unwrap();
        // A disk without space, as a large checkpoint sees it.
        std::os::unix::fs::symlink("/dev/full", &file).unwrap();
        grow(&mut state, 1000);
        checkpointer.begin(job(&mut state));
        let failed = checkpointer.done().await.unwrap_err();
        assert!(matches!(failed, TableError::Full(_)), "{failed}");
        // The changes alone are useless now, and have no effect.
        grow(&mut state, 10);
        checkpointer.begin(job(&mut state));
        assert!(checkpointer.done().await.is_err());
        state.forget_checkpoint();
        grow(&mut state, 10);
        checkpointer.begin(job(&mut state));
        checkpointer.done().await.unwrap();
        grow(&mut state, 10);
        checkpointer.begin(job(&mut state));
        checkpointer.done().await.unwrap();
        checkpointer.stop().await;
    });
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

#[test]
fn b18_a_node_whose_checkpoint_cannot_be_made_starts_without_one() {
    // Not a directory, so no table can be created in it.
    let Opened { table, mut state } = super::open(Path::new("/dev/full")).unwrap();
    assert!(table.is_none());
    assert_eq!(state.applied(), Zxid::ZERO);
    assert!(state.take_dirty().whole, "the first checkpoint will be of everything");
}

#[test]
fn damage_leaves_an_earlier_state_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 100);
    open(dir.path()).unwrap().0.write(state.take_dirty()).unwrap();
    let file = dir.path().join("table/db");
    let bytes = fs::read(&file).unwrap();
    // sled may treat the damage as a torn end and return to an earlier batch; that is an earlier,
    // complete state.
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
    // As sled does after a bit flip: a key is lost without an error.
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
        let write = Write::Create(Create::new(path, data.clone()));
        let body = CommandBody::Write(write);
        state.apply(z(i), 1, &Command::outside(body));
    }
    let (mut table, _) = open(dir.path()).unwrap();
    table.write(state.take_dirty()).unwrap();
    drop(table);
    let blobs = dir.path().join("table/blobs");
    assert_eq!(fs::read_dir(blobs).map_or(0, Iterator::count), 0);
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

#[test]
fn an_interrupted_whole_checkpoint_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    grow(&mut state, 50);
    let (mut table, _) = open(dir.path()).unwrap();
    table.write(state.take_dirty()).unwrap();
    drop(table);
    wait_for_lock(&dir.path().join("table/db")).unwrap();
    // The content in the middle of the write: some records of the new state, and no header.
    let db = sled::open(dir.path().join("table")).unwrap();
    let header = db.iter().keys().next().unwrap().unwrap();
    db.remove(header).unwrap();
    db.flush().unwrap();
    drop(db);
    let (_table, loaded) = open(dir.path()).unwrap();
    assert_eq!(loaded.applied(), Zxid::ZERO);
    assert!(dir.path().join("table.damaged-1").exists());
}

#[test]
fn b05_a_write_costs_the_checkpoint_what_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = State::default();
    let mut next = 1;
    let mut apply = |state: &mut State, body, session, number: u64| {
        let number = (number > 0).then_some(WriteNumber(number));
        next += 1;
        let command = Command { session, number, ..Command::outside(body) };
        state.apply(z(next - 1), 5, &command)
    };
    let (token_hash, timeout_ms) = (TokenHash([1; 32]), 1000);
    let open_session = CommandBody::OpenSession { token_hash, timeout_ms, sessions_max: 1 };
    let session = Some(SessionId(apply(&mut state, open_session, None, 0).zxid.0));
    let path = api::Path::new(&format!("/{}", "x".repeat(8191))).unwrap();
    let delete = || CommandBody::Write(Write::Delete { path: path.clone(), version: None });
    for n in 1..=15_000 {
        apply(&mut state, delete(), session, n);
    }
    let (mut table, _) = open(dir.path()).unwrap();
    table.write(state.take_dirty()).unwrap();
    for n in 15_001..=15_020 {
        apply(&mut state, delete(), session, n);
        let changes = state.take_dirty();
        // Its own result, its session without the other results, and the header.
        assert_eq!((changes.znodes.len(), changes.sessions.len(), changes.results.len()), (0, 1, 1));
        let mut written = encoded(Record::Header(changes.header));
        written += changes
            .sessions
            .iter()
            .flat_map(|(_, s)| s.clone())
            .map(|s| encoded(Record::Session(s)))
            .sum::<usize>();
        written += changes
            .results
            .iter()
            .flat_map(|(_, r)| r.clone())
            .map(|r| encoded(Record::Result(r)))
            .sum::<usize>();
        assert!(written < 250, "{written} bytes");
        table.write(changes).unwrap();
    }
    drop(table);
    assert_eq!(records(&open(dir.path()).unwrap().1), records(&state));
}

fn encoded(record: Record) -> usize {
    proto::store::encode_record(record).len()
}

//! Epochs, identity and incarnations.

use std::path::Path;
use std::sync::Arc;

use api::peer::{Acquaintance, Damage, Incarnation};
use api::{Build, Ensemble, EnsembleId, Epoch, PeerId};
use quorum_log::{
    Crash, DataDir, Disk, DiskOp, EpochError, EpochFile, Epochs, Fault, FsDisk, IdentityError,
    IncarnationError, Incarnations, MemDisk, Offline, Storage, StorageError, StorageOptions,
};
use rustix::io::Errno;

use crate::common::{disk_with, three};

fn epochs(accepted: u32, current: u32) -> Epochs {
    Epochs { accepted: Epoch(accepted), current: Epoch(current), ..Epochs::default() }
}

fn load(disk: &MemDisk) -> Result<EpochFile, EpochError> {
    EpochFile::load(Arc::new(disk.clone()), Path::new("/data"))
}

#[test]
fn epochs_are_kept_and_never_go_back() {
    let disk = disk_with(&[]);
    let mut file = load(&disk).unwrap();
    assert_eq!((file.epochs(), file.is_stored()), (epochs(0, 0), false));
    file.store(epochs(5, 4)).unwrap();
    let mut file = load(&disk).unwrap();
    assert_eq!((file.epochs(), file.is_stored()), (epochs(5, 4), true));
    assert!(matches!(file.store(epochs(4, 4)), Err(EpochError::Backwards { .. })));
    assert!(matches!(file.store(epochs(5, 3)), Err(EpochError::Backwards { .. })));
    assert!(matches!(file.store(epochs(5, 6)), Err(EpochError::Inconsistent { .. })));
    file.store(epochs(5, 5)).unwrap();
}

#[test]
fn epochs_that_cannot_be_are_refused() {
    let disk = disk_with(&[]);
    let path = Path::new("/data/epochs");
    load(&disk).unwrap().store(epochs(7, 6)).unwrap();
    let text = String::from_utf8(disk.contents(path).unwrap()).unwrap();
    assert!(
        text.starts_with(
            "quorate epochs 3\naccepted 7\ncurrent 6\ndamage none\nensemble none\ncommitted 0x0\nlast-stamped 0x0\nlast-time-ms 0\n"
        ),
        "{text}"
    );
    disk.flip_bit(path, 26, 0);
    assert!(matches!(load(&disk), Err(EpochError::Damaged { .. })));
    disk.put(path, b"");
    assert!(matches!(load(&disk), Err(EpochError::Damaged { .. })));
    let body = "quorate epochs 3\naccepted 7\ncurrent 8\ndamage none\nensemble none\ncommitted 0x0\nlast-stamped 0x0\nlast-time-ms 0\n";
    disk.put(path, format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes());
    let message = load(&disk).err().unwrap().to_string();
    assert!(message.contains("/data/epochs: the current epoch 8 is above the accepted epoch 7"), "{message}");
}

#[test]
fn storing_epochs_fails_for_good() {
    let disk = disk_with(&[]);
    let mut file = load(&disk).unwrap();
    file.store(epochs(1, 0)).unwrap();
    disk.fail(Fault { op: DiskOp::Sync, path: "epochs".to_owned(), skip: 0, errno: Errno::IO });
    let message = file.store(epochs(2, 0)).unwrap_err().to_string();
    assert!(message.contains("cannot sync /data/epochs.tmp") && message.contains("replace it"), "{message}");
    assert!(matches!(file.store(epochs(2, 0)), Err(EpochError::Poisoned { .. })));
    assert_eq!(file.epochs(), epochs(1, 0));
}

#[test]
fn a_data_directory_belongs_to_one_node_and_one_process() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("node-3/data");
    let claim = |ensemble, id| DataDir::claim(&FsDisk, &dir, ensemble, PeerId(id), &three());
    let claimed = claim("alpha beta", 3).unwrap();
    assert!(claimed.is_new() && claimed.path() == dir);

    let message = claim("alpha beta", 3).unwrap_err().to_string();
    assert!(message.contains("in use by another process") && message.contains("data/lock"), "{message}");
    drop(claimed);
    assert!(!claim("alpha beta", 3).unwrap().is_new());
    for (ensemble, id) in [("alpha beta", 1), ("b", 3), ("b", 1)] {
        let message = claim(ensemble, id).unwrap_err().to_string();
        let expected = format!(
            "the data directory {} belongs to node 3 of ensemble \"alpha beta\"; this is node {id} of ensemble \
             {ensemble:?}: point data_dir elsewhere or, to restore a copy of another node, put this node's own file identity there",
            dir.display()
        );
        assert_eq!(message, expected);
    }
    std::fs::write(dir.join("identity"), "quorate identity 3\nensemble a\nnode 3\n").unwrap();
    assert!(matches!(claim("alpha beta", 3), Err(IdentityError::Damaged { .. })));
}

fn storage(disk: &MemDisk, members: Ensemble) -> Result<Storage, StorageError> {
    let options = StorageOptions {
        ensemble: "e".to_owned(),
        id: PeerId(1),
        members,
        log_dir: None,
        segment_bytes: 4096,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: true,
        secret: 5,
        run: 7,
        build: Build::this(),
    };
    Storage::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new("/data"), &options)
}

#[test]
fn b02_a_directory_knows_its_members_from_its_first_promise_on() {
    let disk = MemDisk::new();
    let alone = Ensemble::of_voters([1]).unwrap();
    drop(storage(&disk, alone.clone()).unwrap());
    // A configuration error that is corrected at once.
    let mut opened = storage(&disk, three()).unwrap();
    opened.epochs.store(epochs(1, 0)).unwrap();
    drop(opened);
    // Settings do not change them any more.
    let opened = storage(&disk, alone).unwrap();
    assert_eq!(opened.data_dir.members(), &three());
}

#[test]
fn b02_an_operator_begins_another_ensemble_from_a_directory_and_hands_a_copy_on() {
    let disk = MemDisk::new();
    let offline = |disk: &MemDisk| Offline::open(Arc::new(disk.clone()), Path::new("/data"));
    assert!(offline(&disk).is_err(), "there is no directory");
    drop(storage(&disk, three()).unwrap());
    let message = offline(&disk).err().unwrap().to_string();
    assert!(message.contains("never had any data"), "{message}");
    let mut opened = storage(&disk, three()).unwrap();
    let [old, new] = [EnsembleId(1), EnsembleId(2)];
    opened.epochs.store(Epochs { ensemble: Some(old), damage: Damage::Log, ..epochs(3, 0) }).unwrap();
    assert!(offline(&disk).is_err(), "in use");
    drop(opened);

    let two = Ensemble::of_voters(1..=2).unwrap();
    let directory = offline(&disk).unwrap();
    let log = directory.find_log(None).unwrap();
    directory.found(&log, two.clone(), new, 5).unwrap();
    let opened = storage(&disk, two.clone()).unwrap();
    assert_eq!(opened.promises, Epochs { ensemble: Some(new), ..epochs(3, 0) });
    drop(opened);
    assert_eq!(storage(&disk, three()).unwrap().data_dir.members(), &two);
    offline(&disk).unwrap().hand_to(PeerId(2), 6).unwrap();
    let owner = offline(&disk).unwrap().owner().clone();
    assert_eq!((owner.id, owner.members), (PeerId(2), two));
}

#[test]
fn b01_a_note_that_the_directory_is_an_older_copy_can_be_taken_back() {
    let disk = MemDisk::new();
    let mut opened = storage(&disk, three()).unwrap();
    let ensemble = Some(EnsembleId(1));
    let met = Incarnation { number: 70, run: 99 };
    opened.epochs.store(Epochs { ensemble, damage: Damage::Directory, ..epochs(3, 0) }).unwrap();
    assert!(!opened.incarnations.knows(met));
    drop(opened);
    let offline = Offline::open(Arc::new(disk.clone()), Path::new("/data")).unwrap();
    assert_eq!(offline.epochs().damage, Damage::Directory);
    offline.trust(5).unwrap();
    let opened = storage(&disk, three()).unwrap();
    assert_eq!(opened.promises, Epochs { ensemble, ..epochs(3, 0) });
    assert!(opened.incarnations.knows(met), "another report of the same incarnation has no effect");
}

#[test]
fn a_store_that_was_quicker_is_not_something_else() {
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("store");
    let claimed = DataDir::claim(&FsDisk, &store, "a", PeerId(1), &three()).unwrap();
    assert!(DataDir::claim(&FsDisk, home.path(), "a", PeerId(1), &three()).unwrap().is_new());
    drop(claimed);
    let message = DataDir::claim(&FsDisk, &store, "a", PeerId(2), &three()).unwrap_err().to_string();
    assert!(message.contains("belongs to node 1"), "{message}");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("thesis.tex"), "").unwrap();
    let message = DataDir::claim(&FsDisk, home.path(), "a", PeerId(1), &three()).unwrap_err().to_string();
    assert!(message.contains("thesis.tex") && message.contains("no identity file"), "{message}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "not even a lock");
    for name in ["", "a\nnode 7"] {
        let refused = DataDir::claim(&FsDisk, &home.path().join("new"), name, PeerId(1), &three());
        assert!(matches!(refused, Err(IdentityError::BadName { .. })));
    }
}

fn begin(disk: &MemDisk, id: u32, run: u64) -> Incarnations {
    Incarnations::begin(Arc::new(disk.clone()), Path::new("/data"), PeerId(id), run).unwrap()
}

fn incarnation(number: u64, run: u64) -> Incarnation {
    Incarnation { number, run }
}

/// The caller repeats its call as `quorum-svc` does. Returns an incarnation that its owner does not
/// know, if one was reported.
fn call(caller: &mut Incarnations, id: u32, called: &mut Incarnations, other: u32) -> Option<Incarnation> {
    let mut said = Acquaintance::default();
    for _ in 0..2 {
        let call = caller.acquaintance(PeerId(other), said);
        if let Some(unknown) = call.met.filter(|&met| !called.knows(met)) {
            return Some(unknown);
        }
        called.meet(PeerId(id), call).unwrap();
        said = called.acquaintance(PeerId(id), call);
        caller.meet(PeerId(other), said).unwrap();
        if let Some(unknown) = said.met.filter(|&met| !caller.knows(met)) {
            return Some(unknown);
        }
    }
    assert_eq!((called.met(PeerId(id)), caller.met(PeerId(other))), (Some(caller.own()), Some(called.own())));
    None
}

#[test]
fn a_directory_knows_all_its_incarnations() {
    let disk = disk_with(&[]);
    assert_eq!(begin(&disk, 1, 70).own(), incarnation(1, 70));
    disk.crash(Crash::LoseUnsynced);
    let mut file = begin(&disk, 1, 71);
    assert_eq!(file.own(), incarnation(2, 71));
    file.grow().unwrap();
    assert_eq!(file.own(), incarnation(3, 71));
    disk.crash(Crash::LoseUnsynced);
    let file = begin(&disk, 1, 72);
    assert_eq!(file.own(), incarnation(4, 72));
    assert!([(1, 70), (2, 71), (3, 71), (4, 72)].into_iter().all(|(n, run)| file.knows(incarnation(n, run))));
    let never = [(2, 70), (4, 71), (5, 72), (1, 71), (3, 72), (4, 73)];
    assert!(never.into_iter().all(|(n, run)| !file.knows(incarnation(n, run))));
    for run in 100..1100 {
        begin(&disk, 1, run);
    }
    let file = begin(&disk, 1, 1100);
    assert!(file.knows(incarnation(6, 101)) && !file.knows(incarnation(5, 100)), "it does not grow for ever");
}

#[test]
fn f15_a_server_that_has_met_the_directory_since_recognises_an_older_copy() {
    let path = Path::new("/data/incarnations");
    let (disk, other) = (disk_with(&[]), disk_with(&[]));
    let mut judge = begin(&other, 2, 5);
    let mut file = begin(&disk, 1, 70);
    assert_eq!(call(&mut file, 1, &mut judge, 2), None);
    assert_eq!(call(&mut file, 1, &mut judge, 2), None, "as often as it likes");
    let copy = disk_with(&[]);
    copy.put(path, &disk.contents(path).unwrap());
    file.grow().unwrap();
    assert_eq!(call(&mut judge, 2, &mut file, 1), None, "for either direction of the call");
    other.crash(Crash::LoseUnsynced);
    let mut judge = begin(&other, 2, 6);
    assert_eq!(judge.met(PeerId(1)), Some(incarnation(2, 70)), "it is remembered");

    // Independent of the number of its starts and of the direction of the calls.
    for run in 71..80 {
        begin(&copy, 1, run);
    }
    let mut older = begin(&copy, 1, 80);
    assert_eq!(call(&mut older, 1, &mut judge, 2), Some(incarnation(2, 70)));
    judge
        .meet(
            PeerId(1),
            older.acquaintance(PeerId(2), judge.acquaintance(PeerId(1), Acquaintance::default())),
        )
        .unwrap();
    assert_eq!(
        judge.met(PeerId(1)),
        Some(incarnation(2, 70)),
        "its incarnation is not taken for a later one"
    );
    older.outlive(incarnation(2, 70)).unwrap();
    copy.crash(Crash::LoseUnsynced);
    let mut older = begin(&copy, 1, 81);
    assert_eq!(call(&mut older, 1, &mut judge, 2), None);
    let own = older.own();
    older.outlive(incarnation(2, 70)).unwrap();
    assert_eq!(older.own(), own, "a late report of the same loss has no effect");
    // The original of the copy is now the older one.
    file.grow().unwrap();
    assert_eq!(call(&mut file, 1, &mut judge, 2), Some(own));
    // An empty directory is an older copy, too, for either direction of the call.
    let mut empty = begin(&disk_with(&[]), 1, 90);
    assert_eq!(call(&mut judge, 2, &mut empty, 1), Some(own));
    empty.outlive(own).unwrap();
    assert_eq!(empty.own(), incarnation(own.number + 1001, 90));
    assert_eq!(call(&mut judge, 2, &mut empty, 1), None);
    // A server that itself runs on an older copy has met an earlier incarnation; that loss is stored
    // already.
    let mut older_judge = begin(&disk_with(&[]), 3, 7);
    older_judge
        .meet(PeerId(1), Acquaintance { own: Some(incarnation(1, 70)), ..Acquaintance::default() })
        .unwrap();
    assert_eq!(call(&mut empty, 1, &mut older_judge, 3), None);
}

#[test]
fn without_a_sound_file_of_its_own_a_node_begins_anew() {
    let disk = disk_with(&[]);
    let path = Path::new("/data/incarnations");
    let mut file = begin(&disk, 1, 0x70);
    let said = |number, run| Acquaintance { own: Some(incarnation(number, run)), ..Acquaintance::default() };
    file.meet(PeerId(12), said(3, u64::MAX)).unwrap();
    file.meet(PeerId(2), said((1 << 62) - 1, 0)).unwrap();
    file.meet(PeerId(3), said(1 << 62, 0)).unwrap();
    assert_eq!(file.met(PeerId(3)), None, "that cannot be");
    let text = String::from_utf8(disk.contents(path).unwrap()).unwrap();
    let body = "quorate incarnations 3\nnode 1\nnumber 1\noutlived 0\nruns 1:0000000000000070\n\
                met 2:4611686018427387903:0000000000000000 12:3:ffffffffffffffff\n";
    assert!(text.starts_with(body), "{text}");
    let again = begin(&disk, 1, 0x71);
    assert_eq!((again.met(PeerId(12)), again.made_anew()), (Some(incarnation(3, u64::MAX)), None));

    let foreign = begin(&disk, 3, 0x72);
    assert!(!foreign.knows(incarnation(1, 0x70)) && foreign.met(PeerId(2)).is_none());
    assert_eq!(foreign.made_anew(), Some("it was another node's"));
    disk.flip_bit(path, 40, 0);
    assert_eq!(begin(&disk, 3, 0x73).made_anew(), Some("it was damaged"));
    for (runs, met) in [
        ("1:1", "x"),
        ("1:1", "1:2"),
        ("1:1", "1:2:zz"),
        ("1:1", "1:2:3:4"),
        ("1:1 3:2", ""),
        ("0:1", ""),
        ("2:1 1:2", ""),
        ("9223372036854775808:1", ""),
    ] {
        let body = format!("quorate incarnations 3\nnode 3\nnumber 2\noutlived 0\nruns {runs}\nmet {met}\n");
        disk.put(path, format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes());
        assert_eq!(begin(&disk, 3, 0x74).made_anew(), Some("it was damaged"), "{runs}, {met}");
    }
    let body = "quorate incarnations 4\n";
    disk.put(path, format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes());
    let newer = Incarnations::begin(Arc::new(disk.clone()), Path::new("/data"), PeerId(3), 0x75);
    assert!(matches!(newer, Err(IncarnationError::Version { .. })));
}

#[test]
fn storing_incarnations_fails_for_good() {
    let disk = disk_with(&[]);
    let mut file = begin(&disk, 1, 70);
    disk.fail(Fault { op: DiskOp::Sync, path: "incarnations".to_owned(), skip: 0, errno: Errno::IO });
    let said = Acquaintance { own: Some(incarnation(1, 1)), ..Acquaintance::default() };
    assert!(matches!(file.meet(PeerId(2), said), Err(IncarnationError::Disk(_))));
    assert!(matches!(file.grow(), Err(IncarnationError::Poisoned { .. })));
}

#[test]
fn an_incarnation_that_is_not_stored_does_not_leave() {
    let disk = disk_with(&[]);
    let mut file = begin(&disk, 1, 70);
    let mut judge = begin(&disk_with(&[]), 2, 5);
    assert_eq!(call(&mut file, 1, &mut judge, 2), None);
    disk.fail(Fault { op: DiskOp::Sync, path: "incarnations".to_owned(), skip: 0, errno: Errno::IO });
    assert!(file.grow().is_err());
    assert_eq!(call(&mut file, 1, &mut judge, 2), None);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(call(&mut begin(&disk, 1, 71), 1, &mut judge, 2), None);
}

#[test]
fn no_number_that_a_peer_says_uses_the_numbers_up() {
    let disk = disk_with(&[]);
    let mut file = begin(&disk, 1, 70);
    assert!(
        file.knows(incarnation(1 << 62, 9)) && file.knows(incarnation(u64::MAX, 9)),
        "that cannot be, so it is no news"
    );
    file.outlive(incarnation((1 << 62) - 1, 9)).unwrap();
    file.grow().unwrap();
    let number = file.own().number;
    let again = begin(&disk, 1, 71);
    assert_eq!((again.made_anew(), again.own()), (None, incarnation(number + 1, 71)));
}

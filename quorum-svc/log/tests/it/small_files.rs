//! Epochs, identity and incarnations.

use std::path::Path;
use std::sync::Arc;

use api::peer::Incarnation;
use api::{Epoch, PeerId};
use quorum_log::{
    Crash, DataDir, DiskOp, EpochError, EpochFile, Epochs, Fault, FsDisk, IdentityError, IncarnationError,
    Incarnations, MemDisk,
};
use rustix::io::Errno;

use crate::common::disk_with;

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
        text.starts_with("quorate epochs 1\naccepted 7\ncurrent 6\ndamaged false\nlast-time-ms 0\n"),
        "{text}"
    );
    disk.flip_bit(path, 26, 0);
    assert!(matches!(load(&disk), Err(EpochError::Damaged { .. })));
    disk.put(path, b"");
    assert!(matches!(load(&disk), Err(EpochError::Damaged { .. })));
    let body = "quorate epochs 1\naccepted 7\ncurrent 8\ndamaged false\nlast-time-ms 0\n";
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
    let claim = |ensemble, id| DataDir::claim(&FsDisk, &dir, ensemble, PeerId(id));
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
    std::fs::write(dir.join("identity"), "quorate identity 1\nensemble a\nnode 3\n").unwrap();
    assert!(matches!(claim("alpha beta", 3), Err(IdentityError::Damaged { .. })));
}

#[test]
fn a_store_that_was_quicker_is_not_something_else() {
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("store");
    let claimed = DataDir::claim(&FsDisk, &store, "a", PeerId(1)).unwrap();
    assert!(DataDir::claim(&FsDisk, home.path(), "a", PeerId(1)).unwrap().is_new());
    drop(claimed);
    let message = DataDir::claim(&FsDisk, &store, "a", PeerId(2)).unwrap_err().to_string();
    assert!(message.contains("belongs to node 1"), "{message}");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("thesis.tex"), "").unwrap();
    let message = DataDir::claim(&FsDisk, home.path(), "a", PeerId(1)).unwrap_err().to_string();
    assert!(message.contains("thesis.tex") && message.contains("no identity file"), "{message}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "not even a lock");
    for name in ["", "a\nnode 7"] {
        let refused = DataDir::claim(&FsDisk, &home.path().join("new"), name, PeerId(1));
        assert!(matches!(refused, Err(IdentityError::BadName { .. })));
    }
}

fn begin(disk: &MemDisk, id: u32, run: u64) -> Incarnations {
    Incarnations::begin(Arc::new(disk.clone()), Path::new("/data"), PeerId(id), run).unwrap()
}

fn life(number: u64, run: u64) -> Incarnation {
    Incarnation { number, run }
}

#[test]
fn each_start_is_a_new_life_and_so_is_a_while() {
    let disk = disk_with(&[]);
    assert_eq!(begin(&disk, 1, 70).own(), life(1, 70));
    disk.crash(Crash::LoseUnsynced);
    let mut file = begin(&disk, 1, 71);
    assert_eq!(file.own(), life(2, 71));
    file.advance().unwrap();
    assert_eq!(file.own(), life(3, 71));
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(begin(&disk, 1, 72).own(), life(4, 72));
}

#[test]
fn f15_an_older_copy_is_told_from_the_directory_by_whoever_has_met_it_since() {
    let (disk, other) = (disk_with(&[]), disk_with(&[]));
    let mut judge = begin(&other, 2, 5);
    let mut file = begin(&disk, 1, 70);
    assert_eq!(judge.meet(PeerId(1), file.own()).unwrap(), None);
    assert_eq!(judge.meet(PeerId(1), file.own()).unwrap(), None, "as often as it likes");
    let copy = disk_with(&[]);
    copy.put(Path::new("/data/incarnations"), &disk.contents(Path::new("/data/incarnations")).unwrap());
    file.advance().unwrap();
    assert_eq!(judge.meet(PeerId(1), file.own()).unwrap(), None);
    other.crash(Crash::LoseUnsynced);
    let mut judge = begin(&other, 2, 6);
    assert_eq!(judge.met(PeerId(1)), Some(life(2, 70)), "it is remembered");

    // The same number, but of another run; a smaller one would be worse.
    let mut older = begin(&copy, 1, 71);
    assert_eq!(older.own(), life(2, 71));
    assert_eq!(judge.meet(PeerId(1), older.own()).unwrap(), Some(life(2, 70)));
    assert_eq!(judge.meet(PeerId(1), life(1, 70)).unwrap(), Some(life(2, 70)));
    assert_eq!(judge.met(PeerId(1)), Some(life(2, 70)));
    older.outlive(life(2, 70)).unwrap();
    assert_eq!(older.own(), life(3, 71));
    assert_eq!(judge.meet(PeerId(1), older.own()).unwrap(), None);
    older.outlive(life(2, 70)).unwrap();
    assert_eq!(older.own(), life(3, 71), "told once more by somebody who was slow");
    copy.crash(Crash::LoseUnsynced);
    assert_eq!(begin(&copy, 1, 72).own(), life(4, 72));
    // The one that the copy was made of is the older one now.
    file.advance().unwrap();
    assert_eq!(judge.meet(PeerId(1), file.own()).unwrap(), Some(life(3, 71)));
}

#[test]
fn without_a_sound_file_of_its_own_a_node_begins_anew() {
    let disk = disk_with(&[]);
    let path = Path::new("/data/incarnations");
    let mut file = begin(&disk, 1, 70);
    file.meet(PeerId(12), life(3, u64::MAX)).unwrap();
    file.meet(PeerId(2), life(u64::MAX, 0)).unwrap();
    let text = String::from_utf8(disk.contents(path).unwrap()).unwrap();
    let body = "quorate incarnations 1\nnode 1\nnumber 1\nmet 2:18446744073709551615:0000000000000000 12:3:ffffffffffffffff\n";
    assert!(text.starts_with(body), "{text}");
    let again = begin(&disk, 1, 71);
    assert_eq!((again.met(PeerId(12)), again.made_anew()), (Some(life(3, u64::MAX)), None));

    let foreign = begin(&disk, 3, 72);
    assert_eq!((foreign.own(), foreign.met(PeerId(2))), (life(1, 72), None));
    assert_eq!(foreign.made_anew(), Some("it was another node's"));
    disk.flip_bit(path, 40, 0);
    let anew = begin(&disk, 3, 73);
    assert_eq!((anew.own(), anew.made_anew()), (life(1, 73), Some("it was damaged")));
    for met in ["x", "1:2", "1:2:zz", "1:2:3:4"] {
        let body = format!("quorate incarnations 1\nnode 3\nnumber 1\nmet {met}\n");
        disk.put(path, format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes());
        assert_eq!(begin(&disk, 3, 74).made_anew(), Some("it was damaged"), "{met}");
    }
    let body = "quorate incarnations 2\n";
    disk.put(path, format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).as_bytes());
    let newer = Incarnations::begin(Arc::new(disk.clone()), Path::new("/data"), PeerId(3), 75);
    assert!(matches!(newer, Err(IncarnationError::Version { .. })));
}

#[test]
fn storing_incarnations_fails_for_good() {
    let disk = disk_with(&[]);
    let mut file = begin(&disk, 1, 70);
    disk.fail(Fault { op: DiskOp::Sync, path: "incarnations".to_owned(), skip: 0, errno: Errno::IO });
    assert!(matches!(file.meet(PeerId(2), life(1, 1)), Err(IncarnationError::Disk(_))));
    assert!(matches!(file.advance(), Err(IncarnationError::Poisoned { .. })));
}

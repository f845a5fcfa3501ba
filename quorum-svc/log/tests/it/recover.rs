//! `recover members` on a log that names members itself.

use std::path::Path;
use std::sync::Arc;

use api::{
    Body, Build, Configuration, Ensemble, EnsembleId, Entry, Epoch, PeerId, ROSTER_IDS_MAX, Roster, Zxid,
};
use quorum_log::{Base, Crash, Disk, Epochs, MemDisk, Offline, Storage, StorageError, StorageOptions};

use crate::common::{crashes, entry, three, z};

const OLD: EnsembleId = EnsembleId(1);
const NEW: EnsembleId = EnsembleId(2);

fn storage(disk: &MemDisk) -> Storage {
    let options = StorageOptions {
        ensemble: "e".to_owned(),
        id: PeerId(1),
        members: three(),
        log_dir: None,
        segment_bytes: 4096,
        window_bytes: 0,
        index_interval_bytes: 100,
        may_heal: true,
        secret: 5,
        run: 7,
        build: Build::this(),
    };
    Storage::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new("/data"), &options).unwrap()
}

fn roster(since: Zxid, voters: u32) -> Arc<Roster> {
    let ensemble = Ensemble::of_voters(1..=voters).unwrap();
    Arc::new(Roster::settled(since, Configuration { version: since, ..Configuration::initial(ensemble) }))
}

/// The directory of a server of the ensemble [`OLD`] that has grown to five voters.
fn grown() -> MemDisk {
    grown_with(0)
}

/// The same with so many former members.
fn grown_with(former: u32) -> MemDisk {
    let disk = MemDisk::new();
    let mut opened = storage(&disk);
    let epochs = Epochs { accepted: Epoch(3), current: Epoch(3), ensemble: Some(OLD), ..Epochs::default() };
    opened.epochs.store(epochs).unwrap();
    let removed = (10..10 + former).map(PeerId).collect();
    let current = Configuration { removed, ..roster(z(3, 1), 5).current().clone() };
    let body = Body::Members(Arc::new(Roster::settled(z(3, 1), current)));
    let members = Entry { zxid: z(3, 1), time_ms: 5, origin: None, body, trace: None };
    opened.log.append(&[entry(z(3, 0), 0, 36), members, entry(z(3, 2), 0, 36)]).unwrap();
    opened.log.sync().unwrap();
    disk
}

/// This server alone.
fn alone() -> Ensemble {
    Ensemble::of_voters([1]).unwrap()
}

fn found(disk: &MemDisk, id: EnsembleId) -> Result<(), StorageError> {
    let directory = Offline::open(Arc::new(disk.clone()), Path::new("/data"))?;
    let log = directory.find_log(None)?;
    directory.found(&log, alone(), id, 6)
}

/// The id of the ensemble, the members in the log, and those of the directory.
fn facts(disk: &MemDisk) -> (Option<EnsembleId>, Ensemble, Ensemble) {
    let opened = storage(disk);
    let roster = opened.log.rosters().last().unwrap().clone();
    assert!(!roster.is_joint());
    (opened.promises.ensemble, roster.current().ensemble.clone(), opened.data_dir.members().clone())
}

#[test]
fn b02_no_crash_leaves_new_members_under_the_id_of_the_old_ensemble() {
    for crash in crashes() {
        for steps in 0.. {
            assert!(steps < 200, "it fails without a crash");
            let disk = grown();
            disk.power_off_after(steps);
            let done = found(&disk, NEW).is_ok();
            disk.crash(crash);
            let (id, in_log, of_directory) = facts(&disk);
            if id == Some(OLD) {
                assert!(!done && in_log != alone() && of_directory != alone(), "step {steps}");
            }
            assert!(!done || (id, &in_log, &of_directory) == (Some(NEW), &alone(), &alone()), "step {steps}");
            // The operator repeats the command.
            disk.crash(Crash::LoseUnsynced);
            let again = EnsembleId(3);
            found(&disk, again).unwrap();
            disk.crash(Crash::LoseUnsynced);
            assert_eq!(facts(&disk), (Some(again), alone(), alone()), "step {steps}");
            if done {
                assert!(steps > 10, "there were steps to crash at");
                break;
            }
        }
    }
}

#[test]
fn b02_a_log_without_a_place_for_the_new_members_is_refused_and_nothing_changes() {
    let disk = grown();
    let mut opened = storage(&disk);
    let zxid = z(3, u32::MAX);
    let base = Base { roster: Some(roster(z(3, 1), 5)), ..crate::common::on(zxid) };
    let mut snapshot =
        opened.snapshots.begin_received_with(zxid, api::Level::FIRST, base.roster.clone()).unwrap();
    snapshot.chunk(b"state").unwrap();
    snapshot.finish().unwrap();
    opened.log.reset(base).unwrap();
    opened.snapshots.adopt_received(zxid).unwrap();
    drop(opened);
    let before = facts(&disk);
    let message = found(&disk, NEW).unwrap_err().to_string();
    assert!(message.contains("last place of its epoch") && message.contains("another node"), "{message}");
    assert_eq!(facts(&disk), before);
}

#[test]
fn b02_more_former_members_than_a_log_may_name_are_refused_and_nothing_changes() {
    // Four of the five voters are left out.
    let full = grown_with(ROSTER_IDS_MAX - 4);
    found(&full, NEW).unwrap();
    assert_eq!(facts(&full), (Some(NEW), alone(), alone()));
    let disk = grown_with(ROSTER_IDS_MAX - 3);
    let before = facts(&disk);
    let message = found(&disk, NEW).unwrap_err().to_string();
    assert!(message.contains("1025 former members") && message.contains("keep some"), "{message}");
    assert_eq!(facts(&disk), before);
}

//! Sequences of all possible operations against a model, a list of entries.

use api::{Entry, Zxid};
use proptest::prelude::*;
use quorum_log::{Crash, DiskOp, Fault, Log, LogError, LogOptions, MemDisk};
use rustix::io::Errno;

use crate::common::{DURABLE, assert_its_end_is_guarded, contents, entry, on, open, z};

#[derive(Clone, Debug)]
enum Step {
    Append {
        sizes: Vec<usize>,
        new_epoch: bool,
    },
    Sync,
    /// Truncates to the entry this number before the last.
    Truncate(usize),
    Reset(u32),
    Purge(usize),
}

/// One step, and possibly a fault in it.
#[derive(Clone, Debug)]
struct Act {
    step: Step,
    trouble: Option<Trouble>,
}

#[derive(Clone, Debug)]
enum Trouble {
    /// The power fails after this number of changes, or at the end of the step.
    Crash(u64, Crash),
    /// The next sync fails, and the process ends. Then the power may fail.
    FailedSync(Crash),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let step = prop_oneof![
        6 => (prop::collection::vec(0..300usize, 1..8), prop::bool::weighted(0.2))
            .prop_map(|(sizes, new_epoch)| Step::Append { sizes, new_epoch }),
        4 => Just(Step::Sync),
        2 => (0..12usize).prop_map(Step::Truncate),
        1 => (0..3u32).prop_map(Step::Reset),
        1 => (0..12usize).prop_map(Step::Purge),
    ];
    let crash = prop_oneof![
        Just(Crash::LoseUnsynced),
        Just(Crash::ProcessOnly),
        Just(Crash::KeepOnly(DURABLE)),
        Just(Crash::LoseOnly(DURABLE)),
        any::<u64>().prop_map(Crash::Random)
    ];
    let trouble = prop_oneof![
        3 => (0..12u64, crash.clone()).prop_map(|(steps, crash)| Trouble::Crash(steps, crash)),
        1 => crash.prop_map(Trouble::FailedSync),
    ];
    let act = (step, prop::option::weighted(0.3, trouble)).prop_map(|(step, trouble)| Act { step, trouble });
    prop::collection::vec(act, 1..25)
}

fn options() -> impl Strategy<Value = LogOptions> {
    (64..3000u64, 0..1500usize, 1..600u64).prop_map(|(segment_bytes, window_bytes, index_interval_bytes)| {
        LogOptions {
            segment_bytes,
            window_bytes,
            index_interval_bytes,
            may_create: true,
            secret: segment_bytes,
            ..LogOptions::default()
        }
    })
}

struct Model {
    base: Zxid,
    entries: Vec<Entry>,
    /// Number of entries that must survive.
    synced: usize,
    generation: u8,
}

impl Model {
    fn last(&self) -> Zxid {
        self.entries.last().map_or(self.base, |e| e.zxid)
    }

    fn zxid_before_last(&self, n: usize) -> (usize, Zxid) {
        let keep = self.entries.len().saturating_sub(n);
        (keep, keep.checked_sub(1).map_or(self.base, |i| self.entries[i].zxid))
    }

    /// Runs the step on the log. On success it runs on the model, too. Otherwise returns the states
    /// that the next opening may find besides the model.
    fn act(&mut self, log: &mut Log, step: &Step) -> Result<(), (LogError, Vec<Allowed>)> {
        self.generation = self.generation.wrapping_add(1);
        let as_before = Allowed { base: self.base, entries: self.entries.clone(), at_least: self.synced };
        match step {
            Step::Append { sizes, new_epoch } => {
                let mut new = Vec::new();
                let mut last = self.last();
                for (i, &size) in sizes.iter().enumerate() {
                    let marker = last == Zxid::ZERO || (i == 0 && *new_epoch);
                    last = if marker { z(last.epoch().0 + 1, 0) } else { last.next().unwrap() };
                    new.push(entry(last, self.generation, size));
                }
                self.entries.extend_from_slice(&new);
                let partly = Allowed { entries: self.entries.clone(), ..as_before };
                log.append(&new).map_err(|e| (e, vec![partly]))
            }
            Step::Sync => {
                let durable = log.sync().map_err(|e| (e, vec![as_before]))?;
                assert_eq!(durable, self.last());
                self.synced = self.entries.len();
                Ok(())
            }
            Step::Truncate(n) => {
                let (keep, zxid) = self.zxid_before_last(*n);
                let partly = Allowed { at_least: self.synced.min(keep), ..as_before };
                log.truncate(zxid).map_err(|e| (e, vec![partly]))?;
                self.entries.truncate(keep);
                self.synced = keep;
                Ok(())
            }
            Step::Reset(epoch) => {
                let base = z(self.last().epoch().0 + epoch, 1 + self.last().counter());
                let empty = Allowed { base, entries: Vec::new(), at_least: 0 };
                log.reset(on(base)).map_err(|e| (e, vec![as_before, empty]))?;
                (self.base, self.entries, self.synced) = (base, Vec::new(), 0);
                Ok(())
            }
            Step::Purge(n) => {
                let (keep, upto) = self.zxid_before_last(*n);
                let partly = (0..=keep).map(|gone| as_before.without_first(gone)).collect();
                log.purge(upto).map_err(|e| (e, partly))?;
                assert!(log.history().base() <= upto);
                let gone = self.entries.iter().take_while(|e| e.zxid <= log.history().base()).count();
                let left = as_before.without_first(gone);
                (self.base, self.entries, self.synced) = (left.base, left.entries, left.at_least);
                Ok(())
            }
        }
    }
}

/// A log that begins like `entries` and has at least this number of them.
#[derive(Clone, Debug)]
struct Allowed {
    base: Zxid,
    entries: Vec<Entry>,
    at_least: usize,
}

impl Allowed {
    fn permits(&self, base: Zxid, found: &[Entry]) -> bool {
        base == self.base && found.len() >= self.at_least && self.entries.starts_with(found)
    }

    fn without_first(&self, gone: usize) -> Allowed {
        let base = gone.checked_sub(1).map_or(self.base, |i| self.entries[i].zxid);
        Allowed { base, entries: self.entries[gone..].to_vec(), at_least: self.at_least.saturating_sub(gone) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn f1_f3_f7_nothing_durable_is_lost_and_nothing_else_comes_back(acts in acts(), options in options()) {
        let disk = MemDisk::new();
        let mut log = open(&disk, options.clone()).unwrap();
        let mut model = Model { base: Zxid::ZERO, entries: Vec::new(), synced: 0, generation: 0 };
        for act in acts {
            match &act.trouble {
                Some(Trouble::Crash(steps, _)) => disk.power_off_after(*steps),
                Some(Trouble::FailedSync(_)) => {
                    disk.fail(Fault { op: DiskOp::Sync, path: String::new(), skip: 0, errno: Errno::IO });
                }
                None => {}
            }
            let done = model.act(&mut log, &act.step);
            let Some(trouble) = act.trouble else {
                prop_assert!(done.is_ok(), "{:?}", done.err());
                prop_assert_eq!(log.history().base(), model.base);
                prop_assert_eq!(contents(&log), &model.entries[..]);
                if model.synced == model.entries.len() {
                    assert_its_end_is_guarded(&disk, &options);
                }
                continue;
            };
            let as_modelled =
                Allowed { base: model.base, entries: model.entries.clone(), at_least: model.synced };
            let allowed = done.map_or_else(|(_, allowed)| allowed, |()| vec![as_modelled]);
            drop(log);
            let crash = match trouble {
                Trouble::Crash(_, crash) => crash,
                Trouble::FailedSync(crash) => {
                    disk.crash(Crash::ProcessOnly);
                    drop(open(&disk, options.clone()).unwrap());
                    crash
                }
            };
            disk.crash(crash);
            log = match open(&disk, options.clone()) {
                Ok(log) => log,
                Err(e) => panic!("{e}"),
            };
            let (base, found) = (log.history().base(), contents(&log));
            let is_allowed = allowed.iter().any(|a| a.permits(base, &found));
            prop_assert!(is_allowed, "found {base} {found:?}\nallowed {allowed:?}");
            // The state after opening must stay, even if the power fails at once.
            drop(log);
            disk.crash(Crash::LoseUnsynced);
            log = open(&disk, options.clone()).unwrap();
            prop_assert_eq!((log.history().base(), contents(&log)), (base, found.clone()));
            assert_its_end_is_guarded(&disk, &options);
            (model.base, model.synced, model.entries) = (base, found.len(), found);
        }
    }
}

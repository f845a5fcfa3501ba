//! The operations of clients.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use api::chance::Chance;
use api::{Create, MultiOp, NodeKind, Page, Path, PathError, Read, ReadLevel, Write, WriteOutcome};
use history::{Call, Outcome};

/// Under which all that clients do takes place.
pub(crate) const TOP: &str = "/torture";

/// Few, so that clients get in each other's way.
const KEYS: usize = 4;
/// Bytes of one value in a hundred; the others have some ten.
const LARGE: usize = 20_000;

/// Operations that share a set of znodes, before the next set. It bounds the work of the search.
const ERA_OPERATIONS: u64 = 400;

/// The clients' shared knowledge of each other's operations.
#[derive(Default)]
pub(crate) struct Board {
    /// The folder in use.
    era: AtomicU64,
    /// Operations in it so far.
    asked: AtomicU64,
    /// The versions seen last, so that conditions have a chance to hold.
    versions: [AtomicI32; KEYS],
}

impl Board {
    /// The folder of an era.
    pub(crate) fn folder(era: u64) -> Result<Path, PathError> {
        Path::new(&format!("{TOP}/e{era}"))
    }

    /// The next era, if it is time for it.
    pub(crate) fn due(&self) -> Option<u64> {
        (self.asked.load(Relaxed) >= ERA_OPERATIONS).then(|| self.era.load(Relaxed) + 1)
    }

    /// The folder of this era is there now.
    pub(crate) fn begin(&self, era: u64) {
        self.versions.iter().for_each(|v| v.store(0, Relaxed));
        self.asked.store(0, Relaxed);
        self.era.store(era, Relaxed);
    }

    /// Records an answer.
    pub(crate) fn note(&self, key: Option<usize>, outcome: &Outcome) {
        if let (Some(version), Outcome::Written { result: Ok(WriteOutcome::Set { stat }), .. }) =
            (key.and_then(|key| self.versions.get(key)), outcome)
        {
            version.store(stat.version, Relaxed);
        }
    }
}

/// One client's choices.
pub(crate) struct Chooser {
    client: u32,
    chance: Chance,
    /// Makes values unique.
    count: u64,
}

/// The requests to send, in this order.
pub(crate) struct Choice {
    pub(crate) calls: Vec<Call>,
    /// The key that a set is about.
    pub(crate) key: Option<usize>,
}

impl Chooser {
    pub(crate) fn new(client: u32, chance: Chance) -> Chooser {
        Chooser { client, chance, count: 0 }
    }

    /// For whatever else the client has to choose.
    pub(crate) fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// Never fails: all paths are well formed.
    pub(crate) fn next(&mut self, board: &Board) -> Result<Choice, PathError> {
        board.asked.fetch_add(1, Relaxed);
        self.count += 1;
        let folder = Board::folder(board.era.load(Relaxed))?;
        let key = usize::try_from(self.chance.below(KEYS as u64)).unwrap_or(0);
        let path = folder.child(&format!("k{key}"))?;
        let other = folder.child(&format!("k{}", (key + 1) % KEYS))?;
        let mut value = format!("{}-{}", self.client, self.count);
        if self.chance.below(100) == 0 {
            // As large as many configurations are, so that a node needs room to decode it.
            value += &"-".repeat(LARGE);
        }
        let seen = board.versions[key].load(Relaxed);
        let call = match self.chance.below(100) {
            0..26 => Call::Write(Write::Set { path, data: Some(value.into()), version: None }),
            26..40 => Call::Write(Write::Set { path, data: Some(value.into()), version: Some(seen.into()) }),
            40..52 => Call::Write(Write::Create(create(path, value, false, false))),
            52..56 => Call::Write(Write::Delete { path, version: None }),
            56..58 => Call::Write(Write::Delete { path, version: Some(seen.into()) }),
            58..65 => Call::Write(self.multi(path, other, value, seen)),
            65..67 => {
                let ephemeral = self.chance.percent(50);
                Call::Write(Write::Create(create(folder.child("s-")?, value, ephemeral, true)))
            }
            67..81 => Call::Read(Read::Get { path }, ReadLevel::Local),
            81..90 => Call::Read(Read::Get { path }, ReadLevel::Linearizable),
            90..92 => Call::Read(Read::Exists { path }, ReadLevel::Local),
            92..94 => Call::Read(Read::Children { path: folder, page: Page::default() }, ReadLevel::Local),
            _ => {
                let read = Call::Read(Read::Get { path }, ReadLevel::Local);
                return Ok(Choice { calls: vec![Call::Sync, read], key: None });
            }
        };
        let key = matches!(call, Call::Write(Write::Set { .. })).then_some(key);
        Ok(Choice { calls: vec![call], key })
    }

    fn multi(&mut self, path: Path, other: Path, value: String, seen: i32) -> Write {
        let set =
            MultiOp::Set { path: other.clone(), data: Some(format!("{value}-other").into()), version: None };
        Write::Multi(match self.chance.below(3) {
            0 => vec![MultiOp::Check { path, version: Some(seen.into()) }, set],
            1 => vec![set, MultiOp::Set { path, data: Some(value.into()), version: None }],
            _ => vec![
                MultiOp::Delete { path: path.clone(), version: None },
                MultiOp::Create(create(path, value, false, false)),
                set,
            ],
        })
    }
}

fn create(path: Path, value: String, ephemeral: bool, sequential: bool) -> Create {
    let kind = if ephemeral { NodeKind::Ephemeral } else { NodeKind::Persistent };
    Create { kind, sequential, ..Create::new(path, value) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_value_is_written_once_and_every_kind_of_call_comes_up() {
        let board = Board::default();
        let mut values = BTreeSet::new();
        let mut kinds = BTreeSet::new();
        let mut note = |data: &Option<bytes::Bytes>| assert!(values.insert(data.clone()), "{data:?} twice");
        for client in 1..3 {
            let mut chooser = Chooser::new(client, Chance::new(u64::from(client)));
            for call in (0..2000).flat_map(|_| chooser.next(&board).unwrap().calls) {
                let kind = format!("{call:?}");
                kinds.insert(kind.split([' ', '{', '[']).next().unwrap_or_default().to_owned());
                match call {
                    Call::Write(Write::Set { data, .. }) => note(&data),
                    Call::Write(Write::Create(create)) => note(&create.data),
                    Call::Write(Write::Multi(parts)) => parts.iter().for_each(|part| match part {
                        MultiOp::Set { data, .. } => note(data),
                        MultiOp::Create(create) => note(&create.data),
                        MultiOp::SetAcl { .. }
                        | MultiOp::Delete { .. }
                        | MultiOp::Check { .. }
                        | MultiOp::CheckAbsent { .. } => {}
                    }),
                    _ => {}
                }
            }
        }
        let expected =
            ["Read(Children", "Read(Exists", "Read(Get", "Sync", "Write(Create(Create", "Write(Delete"];
        assert!(expected.iter().all(|kind| kinds.contains(*kind)), "{kinds:?}");
        assert!(kinds.contains("Write(Set") && kinds.contains("Write(Multi("), "{kinds:?}");
    }

    #[test]
    fn an_era_ends_after_its_operations() {
        let board = Board::default();
        let mut chooser = Chooser::new(1, Chance::new(1));
        for _ in 0..ERA_OPERATIONS {
            assert_eq!(board.due(), None);
            chooser.next(&board).unwrap();
        }
        assert_eq!(board.due(), Some(1));
        board.begin(1);
        assert_eq!(board.due(), None);
    }
}

//! The feature level: what the records, fields and rules of an ensemble may be.
//!
//! An ensemble has one level. It is in the log: each marker says it, and an entry of its own raises it. A build knows a range of
//! levels. What came with a level is used at that level and above only, so a server may follow, lead and start where its range has
//! the level, and nowhere else.

use std::fmt;

use crate::Zxid;

/// A feature level, from 1 on. Version 1.0 is level 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Level(pub u32);

impl Level {
    /// Of what was written before any other level.
    pub const FIRST: Level = Level(1);

    /// From a number on the wire or on disk, where 0 means none.
    #[must_use]
    pub fn known(number: u32) -> Option<Level> {
        (number != 0).then_some(Level(number))
    }

    /// For the wire and for disks: 0 means none.
    #[must_use]
    pub fn number(level: Option<Level>) -> u32 {
        level.map_or(0, |level| level.0)
    }
}

/// The first.
impl Default for Level {
    fn default() -> Level {
        Level::FIRST
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels that a build knows, all from `min` to `max`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Levels {
    min: Level,
    max: Level,
}

impl Levels {
    /// Of this build.
    pub const BUILD: Levels = Levels { min: Level::FIRST, max: Level(1) };

    /// Of a build that knows one level more: for tests of upgrades.
    #[must_use]
    pub const fn and_next(self) -> Levels {
        Levels { min: self.min, max: Level(self.max.0 + 1) }
    }

    /// `None` unless `1 <= min <= max`.
    #[must_use]
    pub fn new(min: Level, max: Level) -> Option<Levels> {
        (Level::FIRST <= min && min <= max).then_some(Levels { min, max })
    }

    /// The least.
    #[must_use]
    pub fn min(self) -> Level {
        self.min
    }

    /// The greatest.
    #[must_use]
    pub const fn max(self) -> Level {
        self.max
    }

    /// Whether `level` is one of them.
    #[must_use]
    pub fn contains(self, level: Level) -> bool {
        self.min <= level && level <= self.max
    }

    /// Whether there is a level that both have.
    #[must_use]
    pub fn overlaps(self, other: Levels) -> bool {
        self.min <= other.max && other.min <= self.max
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { self.min.fmt(f) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// A build, as one server tells others of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Build {
    /// The version of Quorate: for people.
    pub version: String,
    /// The levels that it knows.
    pub levels: Levels,
}

impl Build {
    /// The one that this is part of.
    #[must_use]
    pub fn this() -> Build {
        Build { version: env!("CARGO_PKG_VERSION").to_owned(), levels: Levels::BUILD }
    }

    /// What is wrong if a server of this build, which `who` names, meets a log of this level; with the remedy.
    ///
    /// # Errors
    /// The level is not one of the build's.
    pub fn check(&self, who: &str, level: Level) -> Result<(), String> {
        let Build { version, levels } = self;
        if levels.contains(level) {
            return Ok(());
        }
        let remedy = if level > levels.max { "a newer version" } else { "an older version" };
        Err(format!(
            "the ensemble is at feature level {level}, and {who} runs Quorate {version}, which knows level {levels}: run {remedy} \
             there, one that knows level {level}"
        ))
    }
}

/// The level at each place of a log, as far as the log tells it.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct LevelHistory {
    /// Behind the base of the log; `None` if the log has no beginning before its first marker.
    base: Option<Level>,
    /// Where the level changed behind that, ascending.
    changes: Vec<(Zxid, Level)>,
}

impl LevelHistory {
    /// Of a log that has nothing behind its base, where the level is this.
    #[must_use]
    pub fn from_base(base: Option<Level>) -> LevelHistory {
        LevelHistory { base, changes: Vec::new() }
    }

    /// At the end of the log; `None` if the log is empty.
    #[must_use]
    pub fn last(&self) -> Option<Level> {
        self.changes.last().map(|&(_, level)| level).or(self.base)
    }

    /// Behind the entry `zxid`, which is in the log or is its base.
    #[must_use]
    pub fn at(&self, zxid: Zxid) -> Option<Level> {
        let passed = self.changes.partition_point(|&(at, _)| at <= zxid);
        passed.checked_sub(1).and_then(|i| self.changes.get(i)).map(|&(_, level)| level).or(self.base)
    }

    /// Notes what the entry `zxid`, appended to the log, says of the level.
    pub fn append(&mut self, zxid: Zxid, level: Level) {
        if self.last() != Some(level) {
            self.changes.push((zxid, level));
        }
    }

    /// The log was cut behind `zxid`.
    pub fn truncate(&mut self, zxid: Zxid) {
        self.changes.retain(|&(at, _)| at <= zxid);
    }

    /// The base of the log moved up to `zxid`.
    pub fn purge(&mut self, zxid: Zxid) {
        self.base = self.at(zxid);
        self.changes.retain(|&(at, _)| at > zxid);
    }
}

/// Why the level of an ensemble is not changed; with the remedy.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum LevelRefusal {
    /// It is unknown whether it was changed, or can be. A retry is safe.
    #[error("{0}")]
    Unavailable(String),
    /// It was not.
    #[error("{0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Epoch;

    fn z(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(Epoch(epoch), counter)
    }

    fn levels(min: u32, max: u32) -> Levels {
        Levels::new(Level(min), Level(max)).unwrap()
    }

    #[test]
    fn a_range_has_its_ends_and_no_level_0() {
        assert!(Levels::new(Level(0), Level(1)).is_none() && Levels::new(Level(2), Level(1)).is_none());
        let range = levels(2, 4);
        assert_eq!([1, 2, 4, 5].map(|l| range.contains(Level(l))), [false, true, true, false]);
        assert!(range.overlaps(levels(4, 9)) && range.overlaps(levels(1, 2)));
        assert!(!range.overlaps(levels(5, 9)) && !range.overlaps(levels(1, 1)));
        assert_eq!((range.to_string(), levels(3, 3).to_string()), ("2 to 4".into(), "3".into()));
    }

    #[test]
    fn a_build_that_lacks_the_level_is_told_both_and_what_to_run() {
        let build = Build { version: "1.2.3".into(), levels: levels(2, 3) };
        assert_eq!(build.check("this node", Level(2)), Ok(()));
        for (level, remedy) in [(1, "an older version"), (4, "a newer version")] {
            let why = build.check("this node", Level(level)).unwrap_err();
            assert!(why.contains("1.2.3") && why.contains("2 to 3") && why.contains(remedy), "{why}");
            assert!(why.contains(&format!("level {level},")), "{why}");
        }
    }

    #[test]
    fn the_level_follows_the_log_through_cuts_and_purges() {
        let mut history = LevelHistory::default();
        assert_eq!((history.last(), history.at(z(1, 0))), (None, None));
        history.append(z(1, 0), Level(1));
        history.append(z(2, 0), Level(1));
        history.append(z(2, 5), Level(2));
        history.append(z(3, 0), Level(2));
        history.append(z(3, 4), Level(3));
        for (zxid, level) in [(z(1, 0), 1), (z(2, 4), 1), (z(2, 5), 2), (z(3, 3), 2), (z(3, 9), 3)] {
            assert_eq!(history.at(zxid), Some(Level(level)), "{zxid}");
        }
        history.truncate(z(3, 3));
        assert_eq!(history.last(), Some(Level(2)));
        let mut purged = history.clone();
        purged.purge(z(2, 5));
        assert_eq!(
            (purged.clone(), purged.last()),
            (LevelHistory::from_base(Some(Level(2))), Some(Level(2)))
        );
        history.purge(z(2, 4));
        assert_eq!((history.at(z(2, 4)), history.last()), (Some(Level(1)), Some(Level(2))));
        history.truncate(z(2, 4));
        assert_eq!(history.last(), Some(Level(1)));
    }
}

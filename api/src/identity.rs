//! How servers know that they belong together: the id of their ensemble, its name, and its members.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::mutants::{Mutant, is_on};
use crate::{Build, Epoch, History, Level, PeerId, Roster};

/// Tells an ensemble from all others. Drawn at random by the leader of its first epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EnsembleId(pub u128);

impl fmt::Display for EnsembleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// No 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no id of an ensemble: expected 32 hexadecimal digits")]
pub struct BadEnsembleId;

impl FromStr for EnsembleId {
    type Err = BadEnsembleId;
    fn from_str(text: &str) -> Result<EnsembleId, BadEnsembleId> {
        if text.len() != 32 {
            return Err(BadEnsembleId);
        }
        u128::from_str_radix(text, 16).map(EnsembleId).map_err(|_| BadEnsembleId)
    }
}

/// What the data directory of a server says of the ensemble that it belongs to.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Standing {
    /// `None` before the server has synchronised for the first time.
    pub ensemble: Option<EnsembleId>,
    /// Of the last leader that it synchronised with, or of its last entry if that is greater.
    pub epoch: Epoch,
    /// Whether the directory has, or had, more than markers. Then its id never changes. One that is not bound may take over
    /// the id of a leader: it never acknowledged a write, and got its id in a first start that came to nothing.
    pub bound: bool,
    /// The feature level at the end of its log; `None` while that is empty.
    pub level: Option<Level>,
}

impl Standing {
    /// Of a server with this id, current epoch and log, of which no level is known. `lost`: it knows that it has lost something.
    #[must_use]
    pub fn new(ensemble: Option<EnsembleId>, current: Epoch, history: &History, lost: bool) -> Standing {
        let bound = ensemble.is_some() && (lost || !history.is_blank());
        Standing { ensemble, epoch: current.max(history.last().epoch()), bound, level: None }
    }

    /// Whether two servers may be of one ensemble. Two ids in one ensemble come from a first start that failed half way: then
    /// the one with the lower epoch has nothing but markers (`docs/protocol.md` says why).
    #[must_use]
    pub fn fits(&self, other: &Standing) -> bool {
        if self.ensemble.is_none()
            || other.ensemble.is_none()
            || self.ensemble == other.ensemble
            || is_on(Mutant::ForeignEnsembleTrusted)
        {
            return true;
        }
        match self.epoch.cmp(&other.epoch) {
            std::cmp::Ordering::Less => !self.bound,
            std::cmp::Ordering::Equal => !self.bound && !other.bound,
            std::cmp::Ordering::Greater => !other.bound,
        }
    }
}

/// What a server says of itself before anything else, on every stream between servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Name of the ensemble.
    pub name: String,
    /// The server.
    pub id: PeerId,
    /// The members that count for this server: the last ones in its log, committed or not.
    pub roster: Arc<Roster>,
    /// What its data directory says.
    pub standing: Standing,
    /// What it runs.
    pub build: Build,
    /// Its settings that concern the others, by their keys, as an operator writes them.
    pub settings: BTreeMap<String, String>,
}

impl Greeting {
    /// Compares the greeting of another server with its own, before it uses anything else from it. `expected`: the server that was dialled.
    ///
    /// # Errors
    /// The reason why the two cannot work together, with the remedy.
    pub fn check(&self, theirs: &Greeting, expected: Option<PeerId>) -> Result<(), String> {
        let id = theirs.id;
        if theirs.name != self.name {
            return Err(format!(
                "server {id} belongs to ensemble {:?} and this one to {:?}: correct the address of the member, or \
                 `ensemble` in one of the two configurations",
                theirs.name, self.name
            ));
        }
        self.check_standing(id, &theirs.standing)?;
        if let Some(expected) = expected.filter(|&expected| expected != id) {
            return Err(format!(
                "the server at this address says it is {id}, not {expected}: correct the addresses in `members`, or the \
                 `id` of that server"
            ));
        }
        let (ours, members) = (&self.roster, &theirs.roster);
        if members.since() == ours.since() && members != ours && !is_on(Mutant::OtherMembersTrusted) {
            return Err(format!(
                "server {id} has other members than this one: {}. Before the first change of the members, give both the same \
                 `members`; later ones come from the log, so one of the two belongs to another ensemble",
                members.newest().ensemble.difference(&ours.newest().ensemble)
            ));
        }
        if id == self.id {
            return Err(format!(
                "another server says it is {id}, which is this one: give every server an `id` of its own"
            ));
        }
        // A server that knows of a later change may be one of its new members.
        let knows_more = members.since() > ours.since();
        if ours.membership(id).is_none() && !knows_more && !is_on(Mutant::RemovedServerTaken) {
            return Err(format!(
                "server {id} is not a member of the ensemble (configuration {}, members {ours}): if it was removed, stop it and \
                 give its directory away; if it is new, add it with `quorate member add`; else correct its `id`",
                ours.newest().version
            ));
        }
        if let Some(level) = self.standing.level {
            theirs.build.check(&format!("server {id}"), level)?;
        }
        let [(their, theirs), (own, ours)] = [theirs, self].map(|g| (&g.build.version, g.build.levels));
        if !theirs.overlaps(ours) {
            return Err(format!(
                "server {id} runs Quorate {their}, which knows feature level {theirs}, and this one {own}, which knows level \
                 {ours}: run versions that have a level in common"
            ));
        }
        Ok(())
    }

    /// The settings that another server has otherwise, with both values; `None` if all are the same. Servers with other settings work
    /// together: during a change of a setting there are always some.
    #[must_use]
    pub fn differences(&self, theirs: &Greeting) -> Option<String> {
        let differ = self.settings.iter().filter_map(|(key, here)| {
            let there = theirs.settings.get(key).filter(|there| *there != here)?;
            // The other server chooses this text.
            let there: String = there.chars().filter(|c| !c.is_control()).take(SETTING_SHOWN).collect();
            Some(format!("`{key}` is {there} there and {here} here"))
        });
        let all: Vec<String> = differ.collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// The part of [`Greeting::check`] that can change while there is a stream.
    ///
    /// # Errors
    /// As there.
    pub fn check_standing(&self, id: PeerId, theirs: &Standing) -> Result<(), String> {
        if let Some(level) = theirs.level {
            self.build.check("this server", level)?;
        }
        let (Some(their), Some(own)) = (theirs.ensemble, self.standing.ensemble) else { return Ok(()) };
        if self.standing.fits(theirs) {
            return Ok(());
        }
        Err(format!(
            "server {id} belongs to another ensemble of the name {:?}: its id is {their}, and the id of this one {own}. Correct \
             the address of the member, and give each ensemble a name of its own. If the data directory of server {id} is \
             an old one that is not needed, give that server an empty one",
            self.name
        ))
    }
}

/// Characters of another server's setting that a message shows.
const SETTING_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ensemble, Levels, Zxid};

    fn standing(id: u128, epoch: u32, bound: bool) -> Standing {
        Standing { ensemble: Some(EnsembleId(id)), epoch: Epoch(epoch), bound, level: None }
    }

    fn build(min: u32, max: u32) -> Build {
        Build { version: format!("{max}.0.0"), levels: Levels::new(Level(min), Level(max)).unwrap() }
    }

    fn greeting(id: u32, members: Ensemble, standing: Standing) -> Greeting {
        let roster = Arc::new(Roster::initial(members));
        let settings = BTreeMap::new();
        Greeting { name: "a".into(), id: PeerId(id), roster, standing, build: build(1, 1), settings }
    }

    #[test]
    fn b13_other_settings_are_named_with_both_values_and_refuse_nobody() {
        let members = Ensemble::of_voters(1..=3).unwrap();
        let with = |id, settings: &[(&str, &str)]| {
            let settings =
                settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            Greeting { settings, ..greeting(id, members.clone(), Standing::default()) }
        };
        let here = with(1, &[("limits.data", "1MiB"), ("timing.sync_limit", "2s"), ("timing.tick", "200ms")]);
        let there = with(2, &[("limits.data", "1MiB"), ("new", "x"), ("timing.tick", "5\n0s")]);
        assert_eq!(here.differences(&there).as_deref(), Some("`timing.tick` is 50s there and 200ms here"));
        assert_eq!(here.differences(&Greeting { id: PeerId(2), ..here.clone() }), None);
        assert_eq!(here.check(&there, None), Ok(()));
    }

    #[test]
    fn b01_two_ids_fit_only_where_the_lower_epoch_has_nothing_but_markers() {
        for (a, b, fits) in [
            (standing(1, 5, true), standing(1, 3, true), true),
            (standing(1, 5, true), Standing::default(), true),
            (standing(1, 5, true), standing(2, 3, true), false),
            (standing(1, 5, true), standing(2, 3, false), true),
            (standing(1, 5, false), standing(2, 3, true), false),
            (standing(1, 3, false), standing(2, 3, false), true),
            (standing(1, 3, true), standing(2, 3, false), false),
        ] {
            assert_eq!((a.fits(&b), b.fits(&a)), (fits, fits), "{a:?} {b:?}");
        }
    }

    #[test]
    fn b01_the_refusal_names_both_ids() {
        let members = Ensemble::of_voters(1..=3).unwrap();
        let [a, b] = [standing(1, 5, true), standing(2, 3, true)].map(|s| greeting(1, members.clone(), s));
        let b = Greeting { id: PeerId(2), ..b };
        let why = a.check(&b, None).unwrap_err();
        assert!(
            why.contains(&EnsembleId(1).to_string()) && why.contains(&EnsembleId(2).to_string()),
            "{why}"
        );
        assert!(b.check(&a, None).is_err());
    }

    #[test]
    fn b02_other_members_are_refused_with_the_difference() {
        let [three, five] = [3, 5].map(|n| Ensemble::of_voters(1..=n).unwrap());
        let a = greeting(1, three, Standing::default());
        let b = greeting(2, five, Standing::default());
        let why = a.check(&b, Some(PeerId(2))).unwrap_err();
        assert!(why.contains("member 4 is a voter there and none here"), "{why}");
        assert!(b.check(&a, None).unwrap_err().contains("member 4 is a voter here and none there"));
        let same = Greeting { roster: a.roster.clone(), ..b };
        assert_eq!(a.check(&same, Some(PeerId(2))), Ok(()));
        assert!(a.check(&same, Some(PeerId(3))).is_err());
        assert!(a.check(&Greeting { id: PeerId(1), ..same.clone() }, None).is_err());
        assert!(a.check(&Greeting { id: PeerId(9), ..same }, None).is_err());
    }

    #[test]
    fn r13_servers_with_members_of_other_places_of_the_log_take_each_other_in_unless_one_was_removed() {
        let three = greeting(1, Ensemble::of_voters(1..=3).unwrap(), Standing::default());
        let grown = |id, ids: &[u32]| {
            let ensemble = Ensemble::of_voters(ids.iter().copied()).unwrap();
            let current = three.roster.current().changed_to(ensemble, Default::default());
            let roster = Arc::new(Roster::settled(Zxid::new(Epoch(1), 7), current));
            Greeting { id: PeerId(id), roster, ..three.clone() }
        };
        let (new, lagging) = (grown(4, &[2, 3, 4]), Greeting { id: PeerId(3), ..three.clone() });
        assert_eq!(new.check(&lagging, None), Ok(()));
        assert_eq!(lagging.check(&new, None), Ok(()), "it knows more");
        let removed = three.clone();
        let why = new.check(&removed, None).unwrap_err();
        assert!(why.contains("server 1 is not a member") && why.contains("2:1:0 3:1:0 4:1:0"), "{why}");
        let other = grown(2, &[2, 3, 5]);
        assert!(new.check(&other, None).unwrap_err().contains("other members"), "one place has one list");
    }

    #[test]
    fn builds_that_do_not_have_the_level_of_the_ensemble_are_refused_by_either_side() {
        let members = Ensemble::of_voters(1..=3).unwrap();
        let of = |id, build, level: u32| {
            let standing = Standing { level: Level::known(level), ..Standing::default() };
            Greeting { build, ..greeting(id, members.clone(), standing) }
        };
        // Ranges and the levels of their logs, 0 for an empty one.
        for (ours, our_level, theirs, their_level, fits) in [
            ((1, 1), 1, (1, 2), 1, true),
            ((1, 1), 0, (1, 2), 1, true),
            ((1, 1), 0, (1, 2), 2, false),
            ((1, 2), 2, (1, 1), 1, false),
            ((2, 3), 0, (1, 2), 1, false),
            ((2, 3), 2, (1, 2), 2, true),
            ((1, 1), 0, (2, 2), 0, false),
        ] {
            let one = of(1, build(ours.0, ours.1), our_level);
            let other = of(2, build(theirs.0, theirs.1), their_level);
            for (here, there) in [(&one, &other), (&other, &one)] {
                let checked = here.check(there, None);
                assert_eq!(checked.is_ok(), fits, "{ours:?} at {our_level}, {theirs:?} at {their_level}");
                let Err(why) = checked else { continue };
                // It says which version is wrong, what that knows, and what to do.
                assert!(why.contains(".0.0") && why.contains("knows") && why.contains("run "), "{why}");
            }
        }
        let old = of(1, build(1, 1), 1);
        let raised = Standing { level: Some(Level(2)), ..Standing::default() };
        let why = old.check_standing(PeerId(2), &raised).unwrap_err();
        assert!(why.contains("level 2") && why.contains("1.0.0"), "{why}");
    }

    #[test]
    fn an_id_survives_as_text() {
        let id = EnsembleId(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "abc", "zz000000000000000000000000000000"] {
            assert_eq!(bad.parse::<EnsembleId>(), Err(BadEnsembleId));
        }
    }
}

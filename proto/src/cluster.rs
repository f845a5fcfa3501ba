//! The ensemble, for operators: `quorate.v1.Cluster`.

use api::{Build, Level, LevelRefusal, OpError, PeerId};
use tonic::{Code, Status};

use crate::{
    Malformed,
    client::{details, to_status},
    quorum, v1,
};

/// The status that says why the level is not set. What it could not find out may have happened: [`OpError::Unknown`].
#[must_use]
pub fn refusal_to_status(refusal: &LevelRefusal) -> Status {
    to_status(&match refusal {
        LevelRefusal::Unavailable(why) => OpError::Unknown(why.clone()),
        LevelRefusal::Refused(why) => OpError::Level(why.clone()),
    })
}

/// The refusal of a status.
#[must_use]
pub fn refusal(status: &Status) -> LevelRefusal {
    match details(status) {
        Some(OpError::Level(why) | OpError::BadArguments(why)) => LevelRefusal::Refused(why),
        Some(error) => LevelRefusal::Unavailable(error.to_string()),
        None if status.code() == Code::Unimplemented => LevelRefusal::Refused(format!(
            "that node runs a version without feature levels: {}",
            status.message()
        )),
        None => LevelRefusal::Unavailable(status.message().to_owned()),
    }
}

/// What a node knows of the feature levels of its ensemble.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// Committed; `None`: the ensemble has not begun yet.
    pub level: Option<Level>,
    /// What each member runs, in order of their ids; `None`: it was not heard of.
    pub members: Vec<(PeerId, Option<Build>)>,
}

impl Upgrade {
    /// The greatest level that all members know; `None` if some member was not heard of, or there is none.
    #[must_use]
    pub fn max_level(&self) -> Option<Level> {
        let builds: Option<Vec<&Build>> = self.members.iter().map(|(_, build)| build.as_ref()).collect();
        let max = builds.as_ref()?.iter().map(|build| build.levels.max()).min()?;
        builds?.iter().all(|build| build.levels.contains(max)).then_some(max)
    }
}

impl From<Upgrade> for v1::GetUpgradeResponse {
    fn from(upgrade: Upgrade) -> v1::GetUpgradeResponse {
        let member = |(id, build): &(PeerId, Option<Build>)| {
            let build = build.as_ref().map(quorum::build_to_wire).unwrap_or_default();
            let (min_level, max_level) = (build.min_level, build.max_level);
            v1::MemberLevels { id: id.0, min_level, max_level, version: build.version }
        };
        v1::GetUpgradeResponse {
            level: Level::number(upgrade.level),
            max_level: Level::number(upgrade.max_level()),
            members: upgrade.members.iter().map(member).collect(),
        }
    }
}

impl TryFrom<v1::GetUpgradeResponse> for Upgrade {
    type Error = Malformed;
    fn try_from(response: v1::GetUpgradeResponse) -> Result<Upgrade, Malformed> {
        let member = |member: v1::MemberLevels| {
            let v1::MemberLevels { id, min_level, max_level, version } = member;
            let wire = crate::peer::Build { version, min_level, max_level };
            let build = if (min_level, max_level) == (0, 0) { None } else { Some(quorum::build(wire)?) };
            Ok((PeerId(id), build))
        };
        let members = response.members.into_iter().map(member).collect::<Result<_, Malformed>>()?;
        Ok(Upgrade { level: Level::known(response.level), members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Levels;

    fn build(min: u32, max: u32) -> Option<Build> {
        Levels::new(Level(min), Level(max)).map(|levels| Build { version: "1.2".into(), levels })
    }

    #[test]
    fn a_refusal_survives_as_a_status() {
        for refused in [LevelRefusal::Refused("no".into()), LevelRefusal::Unavailable("away".into())] {
            assert_eq!(refusal(&refusal_to_status(&refused)), refused);
        }
        let long = refusal_to_status(&LevelRefusal::Refused("ä".repeat(2000)));
        assert!(long.message().len() + long.details().len() < 4096, "it has to fit into trailers");
    }

    #[test]
    fn what_all_members_know_is_known_only_if_all_were_heard_of() {
        for (builds, max) in [
            (vec![build(1, 3), build(2, 2), build(1, 4)], 2),
            (vec![build(1, 3), None, build(1, 3)], 0),
            (vec![build(1, 2), build(3, 3)], 0),
        ] {
            let members = (1..).map(PeerId).zip(builds).collect();
            let upgrade = Upgrade { level: Some(Level(1)), members };
            let wire = v1::GetUpgradeResponse::from(upgrade.clone());
            assert_eq!(wire.max_level, max);
            assert_eq!(Upgrade::try_from(wire), Ok(upgrade));
        }
        let bad = v1::MemberLevels { id: 1, min_level: 3, max_level: 2, version: String::new() };
        assert!(
            Upgrade::try_from(v1::GetUpgradeResponse { members: vec![bad], ..Default::default() }).is_err()
        );
    }
}

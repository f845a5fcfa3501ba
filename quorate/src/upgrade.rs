//! `quorate upgrade`: the feature level of the ensemble.

use std::time::Duration;

use api::{Build, Level, LevelRefusal, PeerId};
use client_sdk::{Tls, Upgrade, set_level, upgrade_status};
use serde_json::{Value, json};

use crate::{
    args::{self, Format, UpgradeFinalize, UpgradeStatus},
    exit::{Exit, Failure},
    output,
};

pub(crate) async fn run(command: &args::Upgrade) -> Result<(), Failure> {
    match command {
        args::Upgrade::Status(args) => status(args).await,
        args::Upgrade::Finalize(args) => finalize(args).await,
    }
}

async fn status(args: &UpgradeStatus) -> Result<(), Failure> {
    let nodes = &args.nodes;
    let upgrade = ask(&nodes.endpoints.addresses(), nodes.timeout, nodes.tls.read()?.as_ref()).await?;
    match args.output.output {
        Format::Json => output::print_json(&as_json(&upgrade)),
        Format::Table => {
            let rows = upgrade.members.iter().map(|(id, build)| cells(*id, build.as_ref()));
            output::print(&output::table(&["ID", "VERSION", "LEVELS"], rows, &[0]))?;
            output::print(&summary(&upgrade))
        }
    }
}

async fn finalize(args: &UpgradeFinalize) -> Result<(), Failure> {
    let endpoints = args.endpoints.addresses();
    let tls = args.tls.read()?;
    let upgrade = ask(&endpoints, args.timeout, tls.as_ref()).await?;
    let Some(now) = upgrade.level else {
        return Err(Failure::new(
            Exit::Unavailable,
            "the ensemble has not begun yet: it has no leader; try again",
        ));
    };
    let level = match (args.level, upgrade.max_level()) {
        (Some(level), _) => Level(level),
        (None, Some(level)) => level,
        (None, None) => return Err(Failure::refused(unknown(&upgrade))),
    };
    if level <= now && args.level.is_none() {
        return output::print(&format!(
            "the ensemble is at feature level {now} already, the greatest that all members know"
        ));
    }
    let mut last = None;
    for endpoint in &endpoints {
        match set_level(endpoint, args.timeout, tls.as_ref(), now, level).await {
            Ok(level) => return output::print(&format!("the ensemble is at feature level {level}")),
            Err(LevelRefusal::Refused(why)) => return Err(Failure::refused(why)),
            Err(LevelRefusal::Unavailable(why)) => last = Some(why),
        }
    }
    let why = last.unwrap_or_default();
    Err(Failure::new(
        Exit::Unavailable,
        format!("it is not known whether the level was raised: {why}. Ask again"),
    ))
}

/// The first answer.
async fn ask(endpoints: &[String], timeout: Duration, tls: Option<&Tls>) -> Result<Upgrade, Failure> {
    let mut last = String::new();
    for endpoint in endpoints {
        match upgrade_status(endpoint, timeout, tls).await {
            Ok(upgrade) => return Ok(upgrade),
            Err(e) => last = e.to_string(),
        }
    }
    Err(Failure::new(Exit::Unavailable, format!("no node answers; the last one asked: {last}")))
}

fn cells(id: PeerId, build: Option<&Build>) -> Vec<String> {
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let (version, levels) = (build.map(|b| b.version.clone()), build.map(|b| b.levels.to_string()));
    vec![id.to_string(), known(version), known(levels)]
}

fn summary(upgrade: &Upgrade) -> String {
    let now = match upgrade.level {
        Some(level) => format!("the ensemble is at feature level {level}"),
        None => "the ensemble has no feature level yet: it has not begun".to_owned(),
    };
    match upgrade.max_level() {
        None => format!("{now}; {}", unknown(upgrade)),
        Some(max) if Some(max) == upgrade.level => format!("{now}, the greatest that all members know"),
        Some(max) => format!(
            "{now}; all members know level {max}: once none is to go back to an older version, use `quorate upgrade finalize`"
        ),
    }
}

/// Why there is no greatest level.
fn unknown(upgrade: &Upgrade) -> String {
    let away: Vec<String> =
        upgrade.members.iter().filter(|(_, build)| build.is_none()).map(|(id, _)| id.to_string()).collect();
    match away.is_empty() {
        true => "the members have no feature level in common: run versions that do".to_owned(),
        false => format!(
            "it is not known what these members run, which the node that was asked does not reach: {}. Start them, and ask again",
            away.join(", ")
        ),
    }
}

fn as_json(upgrade: &Upgrade) -> Value {
    let member = |(id, build): &(PeerId, Option<Build>)| {
        let build = build.as_ref();
        json!({
            "id": id.0,
            "version": build.map(|b| &b.version),
            "min_level": build.map(|b| b.levels.min().0),
            "max_level": build.map(|b| b.levels.max().0),
        })
    };
    json!({
        "level": upgrade.level.map(|level| level.0),
        "max_level": upgrade.max_level().map(|level| level.0),
        "members": upgrade.members.iter().map(member).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Levels;

    fn upgrade(level: u32, builds: &[Option<(u32, u32)>]) -> Upgrade {
        let build = |&(min, max): &(u32, u32)| Build {
            version: "1.2".into(),
            levels: Levels::new(Level(min), Level(max)).unwrap(),
        };
        let members = (1..).map(PeerId).zip(builds.iter().map(|b| b.as_ref().map(build))).collect();
        Upgrade { level: Level::known(level), members }
    }

    #[test]
    fn the_summary_says_what_to_do_next() {
        let both = Some((1, 2));
        for (upgrade, word) in [
            (upgrade(1, &[both, both]), "all members know level 2: once none is to go back"),
            (upgrade(2, &[both, both]), "the greatest that all members know"),
            (upgrade(1, &[both, None]), "does not reach: 2. Start them"),
            (upgrade(1, &[Some((1, 1)), Some((2, 2))]), "no feature level in common"),
            (upgrade(0, &[both, both]), "it has not begun"),
        ] {
            assert!(summary(&upgrade).contains(word), "{}", summary(&upgrade));
        }
    }

    #[test]
    fn the_json_has_the_members_that_scripts_rely_on() {
        let json = as_json(&upgrade(1, &[Some((1, 2)), None]));
        let expected = json!({
            "level": 1, "max_level": null,
            "members": [
                {"id": 1, "version": "1.2", "min_level": 1, "max_level": 2},
                {"id": 2, "version": null, "min_level": null, "max_level": null},
            ],
        });
        assert_eq!(json, expected);
    }
}

//! The hunt for planted bugs: torture has to find each of them, or one of its faults or checks is blind.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use api::mutants::Mutant;

use crate::{args::Args, run};

/// What finds a planted bug.
struct Hunt {
    mutant: Mutant,
    faults: &'static [&'static str],
    small_logs: bool,
    seconds: u64,
}

const HUNTS: [Hunt; 7] = [
    // Clients that read nothing, and the limit of memory.
    Hunt { mutant: Mutant::AnswersUncounted, faults: &["reads-nothing"], small_logs: false, seconds: 40 },
    // Clients that grant no window.
    Hunt { mutant: Mutant::RequestsKept, faults: &["zero-window"], small_logs: false, seconds: 40 },
    // Half a message.
    Hunt { mutant: Mutant::HalfMessagesKept, faults: &["half-messages"], small_logs: false, seconds: 40 },
    // Clients that open and vanish.
    Hunt { mutant: Mutant::PlacesKept, faults: &["vanishes"], small_logs: false, seconds: 40 },
    // A full disk.
    Hunt { mutant: Mutant::CheckpointEndsNode, faults: &["full-disk"], small_logs: true, seconds: 60 },
    // The time to recover. A client's fault begins only when all nodes serve again.
    Hunt {
        mutant: Mutant::RedialsLate,
        faults: &["isolate", "isolate-leader", "vanishes"],
        small_logs: false,
        seconds: 60,
    },
    // Holders of locks.
    Hunt {
        mutant: Mutant::ExpiredEarly,
        faults: &["pause", "black-hole", "mute", "deaf"],
        small_logs: false,
        seconds: 60,
    },
];

/// Whether all were found.
pub(crate) async fn hunt(args: &Args) -> Result<bool> {
    let wanted = |hunt: &&Hunt| args.mutant.as_deref().is_none_or(|name| name == hunt.mutant.name());
    let hunts: Vec<&Hunt> = HUNTS.iter().filter(wanted).collect();
    if hunts.is_empty() {
        let all: Vec<&str> = HUNTS.iter().map(|hunt| hunt.mutant.name()).collect();
        bail!("torture hunts no such mutant; there are {}", all.join(", "));
    }
    let mut lines = Vec::new();
    let mut all_found = true;
    for Hunt { mutant, faults, small_logs, seconds } in hunts {
        // What is wrong is wanted, so it is not kept.
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let run = Args {
            duration: Duration::from_secs(*seconds),
            faults: Some(faults.iter().map(|&fault| fault.to_owned()).collect()),
            small_logs: *small_logs,
            mutants: false,
            mutant: Some(mutant.name().to_owned()),
            keep: Some(place.path().to_owned()),
            ..*args
        };
        let began = Instant::now();
        let ended = run::run(&run).await;
        let took = began.elapsed().as_secs_f64();
        let verdict = match &ended {
            Ok(false) => "found",
            Ok(true) => "**survived**",
            Err(_) => "broke down",
        };
        all_found &= matches!(ended, Ok(false));
        let line = format!("{:<20} {verdict} within {took:.0} s: {}", mutant.name(), faults.join(", "));
        println!("{line}\n");
        if let Err(error) = ended {
            println!("{error:#}");
        }
        lines.push(line);
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(all_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bug_of_processes_is_hunted() {
        for mutant in Mutant::OF_PROCESSES {
            assert!(HUNTS.iter().any(|hunt| hunt.mutant == *mutant), "{}", mutant.name());
        }
    }
}

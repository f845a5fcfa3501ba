//! The hunt for planted faults: each must be found, or the simulator is blind where it should not be.

use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use api::mutants::{Mutant, plant};
use sim::{Violation, run};

use crate::args::Args;

/// What came of one mutant: the seed that found it.
struct Found {
    seed: u64,
    violation: Violation,
}

/// Hunts all mutants, or the one that was asked for. Whether all were found.
pub(crate) fn hunt(args: &Args) -> anyhow::Result<bool> {
    let mutants: Vec<Mutant> = Mutant::ALL
        .iter()
        .copied()
        .filter(|m| args.mutant.as_deref().is_none_or(|n| n == m.name()))
        .collect();
    if mutants.is_empty() {
        let all: Vec<&str> = Mutant::ALL.iter().map(|m| m.name()).collect();
        bail!("there is no such mutant; there are {}", all.join(", "));
    }
    let mut table = String::from("| mutant | what it does | caught by | seeds |\n|---|---|---|---|\n");
    let mut survivors = 0;
    for mutant in mutants {
        let found = search(mutant, args);
        let (caught, seeds) = match &found {
            Some(Found { seed, violation }) => (violation.invariant.clone(), (seed + 1).to_string()),
            None => ("**survived**".into(), format!("not in {}", args.mutant_seeds)),
        };
        survivors += usize::from(found.is_none());
        println!("{:<24} {caught:<36} {seeds}", mutant.name());
        writeln!(table, "| {} | {} | {caught} | {seeds} |", mutant.name(), mutant.meaning().trim())?;
    }
    if let Some(file) = &args.write_docs {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = between_markers(&text, &table).context("the file has no markers for the table")?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    println!("{survivors} survived");
    Ok(survivors == 0)
}

/// The first seed that finds it, on all cores.
fn search(mutant: Mutant, args: &Args) -> Option<Found> {
    let (next, end) = (AtomicU64::new(0), AtomicU64::new(args.mutant_seeds));
    let found: Mutex<Option<Found>> = Mutex::new(None);
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                plant(Some(mutant));
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        return;
                    }
                    let Some(violation) = run(&args.draw(seed), None).violation else { continue };
                    // What fails without the mutant as well says nothing about it.
                    plant(None);
                    let sound = run(&args.draw(seed), None).violation.is_none();
                    plant(Some(mutant));
                    if !sound {
                        eprintln!("seed {seed} fails without any mutant");
                        continue;
                    }
                    // Smaller ones that are under way may still find it.
                    end.fetch_min(seed, Ordering::Relaxed);
                    let Ok(mut found) = found.lock() else { return };
                    if found.as_ref().is_none_or(|f| f.seed > seed) {
                        *found = Some(Found { seed, violation });
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_default()
}

fn between_markers(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once("<!-- mutants -->")?;
    let (_, after) = rest.split_once("<!-- end of mutants -->")?;
    Some(format!("{before}<!-- mutants -->\n{table}<!-- end of mutants -->{after}"))
}

//! One run, from the first node to the verdict.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use history::Summary;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::Args,
    chance::{Chance, fresh_seed},
    clients::{Clients, PATIENCE},
    ensemble::{Ensemble, Part},
    evidence::{self, Place},
    faults::{Fault, Tormentor, leader},
    verdict::{self, Checked},
};

/// Whether everything was as it should be.
pub(crate) async fn run(args: &Args) -> Result<bool> {
    let faults = Fault::named(args.faults.as_deref(), args.split)?;
    let seed = args.seed.unwrap_or_else(fresh_seed);
    let mut place = Place::new(args.keep.as_deref())?;
    println!(
        "torture: {} nodes{}, {} clients, {}, seed {seed}, in {}",
        args.nodes,
        if args.split { " of three processes each" } else { "" },
        args.clients,
        humantime::format_duration(args.duration),
        place.path().display()
    );
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    // Whatever ends this, dropping the ensemble kills the nodes; if we are killed ourselves, the kernel does.
    tokio::select! {
        good = whole(args, seed, faults, &mut place) => good,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}

async fn whole(args: &Args, seed: u64, faults: Vec<Fault>, place: &mut Place) -> Result<bool> {
    let mut chance = Chance::new(seed);
    let segment_mib = SEGMENT_MIB * (1 + args.duration.as_secs() / SEGMENT_SECONDS);
    let log = if args.small_logs {
        "segment_size = \"1MiB\"\nsnapshot_every = 500\nkeep_size = 0\nkeep_entries = 0\n".to_owned()
    } else {
        format!("segment_size = \"{segment_mib}MiB\"\nsnapshot_every = 20000\n")
    };
    let mut ensemble = Ensemble::prepare(place.path(), args.nodes, Part::of_node(args.split), &log).await?;
    ensemble.start_all()?;
    let start = Instant::now();
    let mut clients = Clients::start(&ensemble.endpoints(), args.clients, &mut chance, start).await?;
    let mut tormentor = Tormentor::new(faults, chance.fork());
    torment(args.duration, &mut ensemble, &clients, &mut tormentor).await?;

    let mut problems = Vec::new();
    tormentor.relent(&mut ensemble)?;
    let serves = note(clients.probe(&ensemble.endpoints()).await, &mut problems);
    // With nothing in their way for a while.
    tokio::time::sleep(AFTERMATH).await;
    let seen = clients.finish().await;
    if seen.hanging > 0 {
        problems.push(format!(
            "{} clients still wait for an answer {PATIENCE:?} after their last call",
            seen.hanging
        ));
    }
    problems.extend(seen.broken.iter().map(|why| format!("a client broke down: {why}")));
    let agrees = note(verdict::agrees(&ensemble).await, &mut problems);
    tormentor.deaths.extend(ensemble.deaths());
    let epoch = ensemble.status().await.iter().flatten().map(|s| s.epoch.0).max().unwrap_or(0);
    for id in ensemble.ids() {
        if !ensemble.stop(id, ensemble.parts(), TERMINATION_LIMIT).await {
            problems.push(format!("node {id} did not end in order at the end"));
        }
    }
    problems.extend(tormentor.deaths.iter().map(|d| format!("{} ended by itself: {}", d.who, d.report)));

    let logs: Vec<_> = ensemble.ids().into_iter().map(|id| ensemble.log_dir(id)).collect();
    let history = seen.history;
    println!("checking {} operations ...", history.operations.len());
    let checking = Instant::now();
    // Takes a while, in which Ctrl-C shall work.
    let whole = !args.small_logs;
    let check = move || (verdict::check(&history, &logs, whole), history);
    let (checked, history) = tokio::task::spawn_blocking(check).await.context("the checkers broke down")?;
    problems.extend(checked.problems.iter().cloned());
    let report = Report { seed, epoch, serves, agrees, checked: &checked, tormentor: &tormentor };
    report.print(&history, checking.elapsed());

    let good = problems.is_empty() && checked.violations.is_empty();
    if !good {
        place.keep();
        println!();
        checked.violations.iter().for_each(|violation| println!("VIOLATION  {violation}"));
        problems.iter().for_each(|problem| println!("PROBLEM    {problem}"));
    }
    if place.stays() {
        let files = place.write(&history, &checked.violations, &tormentor.diary, start)?;
        println!();
        files.iter().for_each(|file| println!("written    {}", file.display()));
        println!("kept       {}", place.path().display());
    }
    println!("{}", if good { "passed" } else { "FAILED" });
    Ok(good)
}

fn note<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// Faults until the time is up, with a line that says what is going on.
async fn torment(
    duration: Duration,
    ensemble: &mut Ensemble,
    clients: &Clients,
    tormentor: &mut Tormentor,
) -> Result<()> {
    let begin = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { Duration::from_millis(250) } else { Duration::from_secs(10) };
    let mut next_line = begin + every;
    while begin.elapsed() < duration && tormentor.deaths.is_empty() {
        tormentor.turn(ensemble).await?;
        if Instant::now() >= next_line {
            next_line = Instant::now() + every;
            let line = format!(
                "{:6.1} s  {} answers, {} faults, now: {}",
                begin.elapsed().as_secs_f64(),
                clients.answered(),
                tormentor.counts.values().sum::<usize>(),
                tormentor.describe()
            );
            let mut stderr = std::io::stderr().lock();
            // Nobody has to look.
            let _ = if terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
            let _ = stderr.flush();
        }
        tokio::time::sleep(TURN).await;
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    if leader(ensemble).await.is_none() {
        tormentor.diary.push((Instant::now(), "the faults end while there is no leader".to_owned()));
    }
    Ok(())
}

/// The figures at the end.
struct Report<'a> {
    seed: u64,
    epoch: u32,
    serves: Option<Duration>,
    agrees: Option<Duration>,
    checked: &'a Checked,
    tormentor: &'a Tormentor,
}

impl Report<'_> {
    fn print(&self, history: &history::History, checking: Duration) {
        let Summary { operations, written, read, refused, unknown, .. } = Summary::of(history);
        println!(
            "operations {operations}: {written} writes and {read} reads answered, {refused} refused, {unknown} unknown"
        );
        let counts: Vec<String> =
            self.tormentor.counts.iter().map(|(fault, n)| format!("{n} {fault}")).collect();
        println!("faults     {}: {}", self.tormentor.counts.values().sum::<usize>(), counts.join(", "));
        let (stall, at) = evidence::longest_stall(history);
        println!("elections  {}; longest time without a write {stall:.2} s, from {at:.2} s on", self.epoch);
        let after =
            |time: Option<Duration>| time.map_or("not".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
        println!("afterwards served after {}, agreed after {}", after(self.serves), after(self.agrees));
        if let Some(order) = &self.checked.order {
            let log = self
                .checked
                .log
                .as_ref()
                .map_or("without the log".to_owned(), |l| format!("{} entries", l.len()));
            println!(
                "by zxid    {log}; {} unknown writes found carried out, {} reads overtaken",
                order.unknown_found, order.overtaken_reads
            );
        }
        if let Some(search) = &self.checked.search {
            println!(
                "by search  {} groups of znodes, {} undecided, {} steps, {} operations skipped",
                search.objects, search.undecided, search.steps, search.skipped
            );
        }
        println!("checked    in {:.1} s; again with --seed {}", checking.as_secs_f64(), self.seed);
    }
}

/// Between two looks at what is due.
const TURN: Duration = Duration::from_millis(20);

/// Clients go on for so long after the last fault.
const AFTERMATH: Duration = Duration::from_secs(2);

const TERMINATION_LIMIT: Duration = Duration::from_secs(12);

/// All entries shall fit into one file of the log, so that none is purged: for so long this is enough.
const SEGMENT_MIB: u64 = 64;
const SEGMENT_SECONDS: u64 = 180;

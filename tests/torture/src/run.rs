//! One run, from the first node to the verdict.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use api::{PeerId, chance::Chance};
use history::{History, Outcome, Summary};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::Args,
    clients::{Clients, PATIENCE, ZooKeeper},
    ensemble::{Ensemble, Part},
    evidence::{self, Place},
    faults::{Fault, Tormentor, leader},
    lookout::{self, Lookout},
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
    let mut signals = Signals::new()?;
    // Whatever ends this, dropping the ensemble kills the nodes; if we are killed ourselves, the kernel does.
    let ended = whole(args, seed, faults, &mut place, &mut signals).await;
    keep_on_error(&mut place, ended)
}

/// Why torture broke down is in what it leaves behind, or nowhere.
fn keep_on_error<T>(place: &mut Place, ended: Result<T>) -> Result<T> {
    if ended.is_err() {
        place.keep();
        println!("kept       {}", place.path().display());
    }
    ended
}

/// The signals that end the run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for signals")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for signals")?,
        })
    }

    async fn next(&mut self) -> anyhow::Error {
        tokio::select! {
            _ = self.interrupt.recv() => anyhow::anyhow!("interrupted"),
            _ = self.terminate.recv() => anyhow::anyhow!("terminated"),
        }
    }
}

async fn whole(
    args: &Args,
    seed: u64,
    faults: Vec<Fault>,
    place: &mut Place,
    signals: &mut Signals,
) -> Result<bool> {
    let mut chance = Chance::new(seed);
    let segment_mib = SEGMENT_MIB * (1 + args.duration.as_secs() / SEGMENT_SECONDS);
    let log = if args.small_logs {
        "segment_size = \"1MiB\"\nsnapshot_every = 500\nkeep_size = 0\nkeep_entries = 0\n".to_owned()
    } else {
        format!("segment_size = \"{segment_mib}MiB\"\nsnapshot_every = 20000\n")
    };
    let small_disks = faults.contains(&Fault::FullDisk);
    if small_disks && !args.small_logs {
        bail!("full-disk needs logs that fit on small disks: add --small-logs");
    }
    let parts = Part::of_node(args.split);
    let mut ensemble = Ensemble::prepare(place.path(), args.nodes, parts, &log, small_disks).await?;
    if let Some(mutant) = args.planted() {
        ensemble.plant(mutant);
    }
    ensemble.start_all()?;
    let start = Instant::now();
    let endpoints = ensemble.endpoints();
    // An entry of the log without a recorded call would be a violation.
    let large = faults.iter().any(|fault| matches!(fault, Fault::Clients(_)));
    let nodes = ensemble.ids().into_iter().map(|id| (ensemble.zookeeper_port(id), PeerId(id))).collect();
    let zookeeper = ZooKeeper { clients: args.zookeeper, nodes };
    let starting = Clients::start(&endpoints, args.clients, &zookeeper, large, &mut chance, start);
    let clients = tokio::select! {
        clients = starting => clients?,
        why = signals.next() => return Err(why),
    };
    let lookout =
        Lookout::begin(ensemble.ids().into_iter().map(|id| (id, ensemble.endpoint(id), ensemble.http(id))));
    let mut tormentor = Tormentor::new(faults, chance.fork());
    let tormented = async {
        torment(args, &mut ensemble, &clients, &mut tormentor).await?;
        tormentor.relent(&mut ensemble)
    };
    let tormented = tokio::select! {
        done = tormented => done,
        why = signals.next() => Err(why),
    };
    if let Err(why) = tormented {
        for file in place.write_record(&clients.abandon(), &tormentor.diary, start)? {
            println!("written    {}", file.display());
        }
        return Err(why);
    }
    tokio::select! {
        good = conclude(args, seed, place, ensemble, clients, tormentor, lookout) => good,
        why = signals.next() => Err(why),
    }
}

/// After the faults: whether all is well again, and was well all the time.
async fn conclude(
    args: &Args,
    seed: u64,
    place: &mut Place,
    mut ensemble: Ensemble,
    mut clients: Clients,
    mut tormentor: Tormentor,
    lookout: Lookout,
) -> Result<bool> {
    let start = clients.start;
    let mut problems = Vec::new();
    let serves = note(clients.probe(&ensemble.endpoints()).await, &mut problems);
    // With nothing in their way for a while.
    tokio::time::sleep(AFTERMATH).await;
    tormentor.end_calm();
    let (lies, looks) = lookout.judge(&tormentor.rude);
    drop(lookout);
    problems.extend(summed(lies));
    for endpoint in ensemble.endpoints() {
        note(clients.write_large(&endpoint).await, &mut problems);
    }
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
    tormentor.look_at_memory(&ensemble);
    let epoch = ensemble.status().await.iter().flatten().map(|s| s.epoch.0).max().unwrap_or(0);
    for id in ensemble.ids() {
        if !ensemble.stop(id, ensemble.parts(), TERMINATION_LIMIT).await {
            problems.push(format!("node {id} did not end in order at the end"));
        }
    }
    problems.extend(tormentor.deaths.iter().map(|d| format!("{} ended by itself: {}", d.who, d.report)));

    let logs: Vec<_> = ensemble.ids().into_iter().map(|id| ensemble.log_dir(id)).collect();
    println!("checking {} operations ...", seen.history.operations.len());
    let checking = Instant::now();
    // The files are written before the checkers run: a history that breaks the checkers is worth a look.
    let mut files = place.write_record(&seen.history, &tormentor.diary, start)?;
    let whole = !args.small_logs;
    let (slowest, slow) = lookout::others_go_on(&seen.history, start, &tormentor.rude);
    problems.extend(summed(slow));
    let most = tormentor.memory.iter().max_by_key(|(_, bytes)| **bytes);
    let too_much = tormentor.memory.iter().filter(|(_, bytes)| **bytes > args.memory_max << 20);
    problems.extend(too_much.map(|(who, bytes)| {
        format!("{who} took {} MiB of memory, more than the {} of --memory-max", bytes >> 20, args.memory_max)
    }));
    let recovery = slowest_recovery(&tormentor, &seen.history, start);
    if recovery.is_some_and(|took| took > RECOVERS_WITHIN) {
        problems.push(format!("{recovery:?} after the end of all faults nothing was written"));
    }
    let beliefs = seen.beliefs.clone();
    println!(
        "rude       {} times, nodes looked at {looks} times; longest call of others {:.3} s",
        tormentor.rude.len(),
        slowest as f64 / 1e6
    );
    if let Some((who, bytes)) = most {
        println!("memory     at most {} MiB, {who}", bytes >> 20);
    }
    if let Some(took) = recovery {
        println!(
            "recovery   at most {:.2} s from the end of all faults to the next write",
            took.as_secs_f64()
        );
    }
    let (checked, history) =
        judge(seen.history, move |history| verdict::check(history, &logs, whole)).await?;
    problems.extend(checked.problems.iter().cloned());
    if let Some(log) = &checked.log {
        problems.extend(summed(beliefs.check(log)));
        println!("sessions   {} expired, and their clients knew before", beliefs.expired_in(log));
    }
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
        files.extend(place.write_pages(&history, &checked.violations)?);
        println!();
        files.iter().for_each(|file| println!("written    {}", file.display()));
        println!("kept       {}", place.path().display());
    }
    println!("{}", if good { "passed" } else { "FAILED" });
    Ok(good)
}

/// Asks the checkers, on a thread of their own: that takes a while, in which Ctrl-C shall work.
async fn judge(
    history: History,
    check: impl FnOnce(&History) -> Checked + Send + 'static,
) -> Result<(Checked, History)> {
    let check = move || (check(&history), history);
    tokio::task::spawn_blocking(check).await.context("the checkers broke down")
}

/// The first of many sentences, and how many there are.
fn summed(problems: Vec<String>) -> Vec<String> {
    let more = problems.len().saturating_sub(SENTENCES);
    let rest = (more > 0).then(|| format!("... and {more} more like these"));
    problems.into_iter().take(SENTENCES).chain(rest).collect()
}

/// The longest time from the end of all faults to the next write; see [`lookout::slowest_recovery`].
fn slowest_recovery(tormentor: &Tormentor, history: &History, start: Instant) -> Option<Duration> {
    let us = |at: Instant| at.saturating_duration_since(start).as_micros() as u64;
    let calms: Vec<(u64, u64)> = tormentor.calms.iter().map(|w| (us(w.from), us(w.to))).collect();
    let written = history.operations.iter().filter(|o| matches!(o.outcome, Outcome::Written { .. }));
    let writes: Vec<u64> = written.filter_map(|o| o.returned).collect();
    lookout::slowest_recovery(&calms, &writes).map(Duration::from_micros)
}

fn note<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// Faults until the time is up or a process has ended or takes too much memory, with a line that says what is going on.
async fn torment(
    args: &Args,
    ensemble: &mut Ensemble,
    clients: &Clients,
    tormentor: &mut Tormentor,
) -> Result<()> {
    let begin = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { Duration::from_millis(250) } else { Duration::from_secs(10) };
    let mut next_line = begin + every;
    let too_much = |bytes: &u64| *bytes > args.memory_max << 20;
    while begin.elapsed() < args.duration
        && tormentor.deaths.is_empty()
        && !tormentor.memory.values().any(too_much)
    {
        tormentor.turn(ensemble).await?;
        tormentor.look_at_memory(ensemble);
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
            // A failed write of progress has no effect.
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

/// Maximum of printed violations of one kind.
const SENTENCES: usize = 5;

/// So soon after the end of all faults something is written.
const RECOVERS_WITHIN: Duration = Duration::from_secs(10);

/// Time that clients continue after the last fault.
const AFTERMATH: Duration = Duration::from_secs(2);

const TERMINATION_LIMIT: Duration = Duration::from_secs(12);

/// All entries must fit into one file of the log, so that none is purged: this size is enough for that time.
const SEGMENT_MIB: u64 = 64;
const SEGMENT_SECONDS: u64 = 180;

/// A random seed: the standard library seeds its hash maps from the system's generator.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish() % 1_000_000
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The checkers break down: what the clients saw is there all the same, and stays.
    #[tokio::test]
    async fn recorded_history_outlives_a_broken_checker() {
        let mut place = Place::new(None).unwrap();
        let start = Instant::now();
        let diary = [(start, "kill of node 2".to_owned())];
        place.write_record(&History::default(), &diary, start).unwrap();
        let judged = judge(History::default(), |_| panic!("a checker that breaks down")).await;
        let error = keep_on_error(&mut place, judged.map(|_| true)).unwrap_err();
        assert!(error.to_string().contains("broke down"), "{error}");
        let path = place.path().to_owned();
        drop(place);
        assert!(path.join("history.jsonl").is_file());
        assert!(fs::read_to_string(path.join("faults.txt")).unwrap().contains("kill of node 2"));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_run_that_breaks_down_with_a_panic_keeps_its_directory() {
        let (told, path) = std::sync::mpsc::channel();
        let broken = std::thread::spawn(move || {
            let place = Place::new(None).unwrap();
            told.send(place.path().to_owned()).unwrap();
            std::panic::resume_unwind(Box::new("broken"));
        });
        assert!(broken.join().is_err());
        let path = path.recv().unwrap();
        assert!(path.is_dir());
        fs::remove_dir_all(path).unwrap();
    }
}

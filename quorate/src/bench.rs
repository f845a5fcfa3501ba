//! `quorate bench`: sessions that keep a fixed number of operations in flight.

mod cpu;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use api::{Create, DATA_MAX, Path, Read, Write, WriteOutcome};
use bytes::Bytes;
use client_sdk::{Client, ClientError, CreateMode, Pending, ReadOutcome};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{Bench, BenchLoad, Format, Operation},
    exit::{Doing as _, Failure},
    output,
    session::{self, Pipeline},
    verbs::delete_tree,
};

pub(crate) async fn run(bench: &Bench) -> Result<(), Failure> {
    let (name, operation, args) = bench.parts();
    if args.size.0 > DATA_MAX {
        return Err(Failure::usage(format!(
            "--size {} is more than the {DATA_MAX} bytes that a value can have; store larger data elsewhere and its address here",
            args.size
        )));
    }
    let interrupted = host::shutdown::on_signals().doing("listen for signals")?;
    let measured = session::with(&args.connection, async |client| {
        let parent = make_parent(client).await?;
        let measured = async {
            let znodes = make_znodes(client, &parent, args).await?;
            load(&parent, &znodes, operation, args, &interrupted).await
        }
        .await;
        // Also after a failure: what the run made is of no use to anyone.
        let removed = delete_tree(client, &parent).await;
        let measured = measured?;
        removed?;
        Ok(measured)
    })
    .await?;
    if measured.latency.is_empty() {
        return Err(Failure::refused("interrupted before anything was measured"));
    }
    report(name, args, &measured)
}

struct Measured {
    /// Microseconds.
    latency: Histogram<u64>,
    /// Operations answered in each second; the last may be a part of one.
    seconds: Vec<u64>,
    elapsed: Duration,
    longest_gap: Duration,
    /// Of the nodes on this machine, for each operation.
    server_cpu: Option<Duration>,
}

impl Measured {
    /// Of whole seconds.
    fn lowest_second(&self) -> Option<u64> {
        self.seconds.iter().take(self.elapsed.as_secs() as usize).min().copied()
    }
}

async fn make_parent(client: &Client) -> Result<Path, Failure> {
    let mode = CreateMode::default().sequential();
    let (path, _) = client.create("/quorate-bench-", Bytes::new(), mode).await?;
    Ok(path)
}

fn value(args: &BenchLoad) -> Bytes {
    Bytes::from(vec![b'q'; args.size.bytes()])
}

async fn make_znodes(client: &Client, parent: &Path, args: &BenchLoad) -> Result<Arc<[Path]>, Failure> {
    let child = |i| parent.child(&format!("{i:07}")).map_err(ClientError::from);
    let znodes = (0..args.znodes).map(child).collect::<Result<Arc<[Path]>, ClientError>>()?;
    let mut pipeline = Pipeline::new(client, args.in_flight);
    for path in znodes.iter().cloned() {
        pipeline.write(Write::Create(Create::new(path, value(args)))).await?;
    }
    pipeline.finish().await?;
    Ok(znodes)
}

/// Runs all sessions at once. The time before `from` warms up and is not counted.
async fn load(
    parent: &Path,
    znodes: &Arc<[Path]>,
    operation: Operation,
    args: &BenchLoad,
    interrupted: &CancellationToken,
) -> Result<Measured, Failure> {
    let clients = connect_all(args).await?;
    let servers = cpu::Servers::listening_at(&args.connection.endpoints.addresses());
    let seconds = Duration::from_secs(args.seconds.into());
    let from = Instant::now() + WARM_UP.max(seconds / 10);
    let until = from + seconds;
    let latest = Arc::new(Gaps::new(from, until));
    let mut sessions = JoinSet::new();
    for (n, client) in clients.iter().enumerate() {
        let session = Session {
            client: client.clone(),
            parent: parent.clone(),
            znodes: Arc::clone(znodes),
            number: n,
            // Sessions begin at different znodes.
            next: n * znodes.len() / clients.len(),
            operation,
            value: value(args),
            in_flight: args.in_flight as usize,
            gaps: Arc::clone(&latest),
        };
        sessions.spawn(session.run(from, until, interrupted.clone()));
    }
    tokio::time::sleep_until(from.into()).await;
    let before = servers.time();
    let mut measured = Measured {
        latency: histogram()?,
        seconds: vec![0; args.seconds as usize],
        elapsed: Duration::ZERO,
        longest_gap: Duration::ZERO,
        server_cpu: None,
    };
    let end = async {
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = interrupted.cancelled() => {}
        }
        (Instant::now().min(until), servers.time())
    };
    let ((ended, after), results) = tokio::join!(end, sessions.join_all());
    for result in results {
        let (latency, seconds) = result?;
        measured.latency.add(&latency).doing("add up what was measured")?;
        measured.seconds.iter_mut().zip(seconds).for_each(|(sum, one)| *sum += one);
    }
    for client in clients {
        // The session that made the znodes ends later; these have nothing left to lose.
        let _ = client.close().await;
    }
    measured.elapsed = ended - from.min(ended);
    measured.longest_gap = latest.longest(ended);
    let operations = u32::try_from(measured.latency.len()).unwrap_or(u32::MAX);
    measured.server_cpu =
        before.zip(after).and_then(|(before, after)| (after - before).checked_div(operations));
    Ok(measured)
}

/// One client for each session.
async fn connect_all(args: &BenchLoad) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for _ in 0..args.sessions {
        clients.push(session::connect(&args.connection, false).await?);
    }
    Ok(clients)
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).doing("make a histogram")
}

/// The longest time in which no session got an answer.
struct Gaps {
    from: Instant,
    until: Instant,
    /// Microseconds behind `from`.
    last: AtomicU64,
    longest: AtomicU64,
}

impl Gaps {
    fn new(from: Instant, until: Instant) -> Gaps {
        Gaps { from, until, last: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }

    fn answered(&self, at: Instant) {
        if at >= self.from && at < self.until {
            let at = micros(at - self.from);
            let last = self.last.fetch_max(at, Ordering::Relaxed);
            self.longest.fetch_max(at.saturating_sub(last), Ordering::Relaxed);
        }
    }

    /// With the time from the last answer to the end.
    fn longest(&self, end: Instant) -> Duration {
        self.answered(end - Duration::from_micros(1));
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }
}

struct Session {
    client: Client,
    parent: Path,
    znodes: Arc<[Path]>,
    number: usize,
    next: usize,
    operation: Operation,
    value: Bytes,
    in_flight: usize,
    gaps: Arc<Gaps>,
}

enum Answer {
    Write(Pending<WriteOutcome>),
    Read(Pending<ReadOutcome>),
}

impl Session {
    /// Keeps operations in flight until the time is up, then waits for the last of them. Answers come in the order of the
    /// operations, so waiting for the oldest sees each answer as it comes.
    async fn run(
        mut self,
        from: Instant,
        until: Instant,
        interrupted: CancellationToken,
    ) -> Result<(Histogram<u64>, Vec<u64>), Failure> {
        let (mut latency, mut seconds) = (histogram()?, vec![0; (until - from).as_secs() as usize]);
        let mut under_way: VecDeque<(Instant, Answer)> = VecDeque::with_capacity(self.in_flight);
        let mut last = Instant::now();
        loop {
            while last < until && !interrupted.is_cancelled() && under_way.len() < self.in_flight {
                under_way.push_back((Instant::now(), self.begin().await?));
            }
            let Some((sent, answer)) = under_way.pop_front() else { break };
            match answer {
                Answer::Write(pending) => drop(pending.await?),
                Answer::Read(pending) => drop(pending.await?),
            }
            last = Instant::now();
            self.gaps.answered(last);
            if last >= from && last < until {
                latency.saturating_record(micros(last - sent));
                if let Some(second) = seconds.get_mut((last - from).as_secs() as usize) {
                    *second += 1;
                }
            }
        }
        Ok((latency, seconds))
    }

    async fn begin(&mut self) -> Result<Answer, Failure> {
        let n = self.next;
        self.next += 1;
        let path = self.znodes[n % self.znodes.len()].clone();
        let write = match self.operation {
            // 37 and 100 have no common divisor: reads and sets are spread evenly.
            Operation::Mix(reads, level) if ((n * 37 % 100) as u32) < reads => {
                return Ok(Answer::Read(self.client.read_with(Read::Get { path }, level).await));
            }
            Operation::Mix(..) | Operation::Set => {
                Write::Set { path, data: Some(self.value.clone()), version: None }
            }
            Operation::Create => {
                let name = format!("c{}-{n}", self.number);
                let path = self.parent.child(&name).map_err(ClientError::from)?;
                Write::Create(Create::new(path, self.value.clone()))
            }
        };
        Ok(Answer::Write(self.client.submit(write).await))
    }
}

fn report(name: &str, args: &BenchLoad, m: &Measured) -> Result<(), Failure> {
    let ops = m.latency.len();
    let seconds = m.elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { ops as f64 / seconds } else { 0.0 };
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| m.latency.value_at_quantile(q));
    let max = m.latency.max();
    let lowest = m.lowest_second();
    let cpu = m.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6);
    match args.output.output {
        Format::Json => output::print_json(&json!({
            "operation": name,
            "ops": ops,
            "seconds": seconds,
            "ops_per_second": rate,
            "lowest_second": lowest,
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
            "max_us": max,
            "longest_gap_us": micros(m.longest_gap),
            "server_cpu_us": cpu,
            "sessions": args.sessions,
            "in_flight": args.in_flight,
            "size": args.size.0,
            "znodes": args.znodes,
        })),
        Format::Table => {
            let ms = |us: u64| format!("{:.2} ms", us as f64 / 1000.0);
            let mut steady = format!("longest gap {}", ms(micros(m.longest_gap)));
            if let Some(lowest) = lowest {
                steady = format!("lowest second {lowest}   {steady}");
            }
            if let Some(cpu) = cpu {
                steady = format!("{steady}   CPU of the local nodes {cpu:.1} us each");
            }
            output::print(&format!(
                "{rate:.0} {name}/s   p50 {}   p99 {}   p99.9 {}   max {}\n{steady}\n({ops} operations of {} in {seconds:.1} s, \
                 {} x {} in flight, {} znodes)",
                ms(p50),
                ms(p99),
                ms(p999),
                ms(max),
                args.size,
                args.sessions,
                args.in_flight,
                args.znodes
            ))
        }
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// The load runs for this long at least before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

//! Load over ZooKeeper's client protocol, with a number of requests in flight, spread evenly over some sessions. A session has a
//! thread and a blocking socket: what comes in one read is answered by as many requests in one write, so the client costs
//! little, and does the same work for each kind of server. Prints one line of JSON.

mod session;

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use session::{Session, followers_first};
use zk_jute::{Acl, Create, Id, Request};

/// Puts load on servers that speak ZooKeeper's client protocol.
///
/// Creates znodes, sets or reads them for a while, deletes them, and prints throughput and latency as JSON.
/// Sessions go to the followers first, then to the leader, in turn (four letter word `srvr`).
#[derive(Parser, Debug)]
#[command(name = "zk-load", version, max_term_width = 110)]
struct Args {
    /// Servers, separated by commas.
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT")]
    hosts: Vec<String>,
    /// What to ask for.
    #[arg(long, value_enum)]
    op: Op,
    /// Requests under way at any time, in all sessions together.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "N")]
    in_flight: u32,
    /// Sessions, no more than requests in flight.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256), value_name = "N")]
    sessions: u32,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000), value_name = "BYTES")]
    size: u32,
    /// Znodes that are set or read.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    znodes: u32,
    /// How long to measure.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400), value_name = "SECONDS")]
    seconds: u64,
    /// How long the load runs before that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=3_600), value_name = "SECONDS")]
    warm_up: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Op {
    /// setData.
    Set,
    /// getData.
    Get,
}

/// What a session has measured.
struct Measured {
    latency_us: Histogram<u64>,
    failed: u64,
    /// All requests, also those outside the time that counts.
    all: u64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let hosts = followers_first(&args.hosts);
    let root = format!("/load-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    let paths: Vec<String> = (0..args.znodes).map(|n| format!("{root}/{n}")).collect();
    let value = Bytes::from(vec![b'v'; args.size as usize]);
    let mut owner = Session::open(&hosts[0])?;
    let folder = vec![create(&root, Bytes::new())];
    owner.all(folder.into_iter().chain(paths.iter().map(|path| create(path, value.clone()))))?;

    let sessions = args.sessions.min(args.in_flight) as usize;
    let (ready, in_flight) = (Barrier::new(sessions), args.in_flight as usize);
    let measured = thread::scope(|scope| {
        let (args, paths, value, ready) = (&args, &paths, &value, &ready);
        let run = |n: usize| {
            let host = &hosts[n % hosts.len()];
            // The first ones have one more, if the number does not divide.
            let window = in_flight / sessions + usize::from(n < in_flight % sessions);
            let request = move |i: usize| {
                let path = paths[(n * 7919 + i) % paths.len()].clone();
                match args.op {
                    Op::Set => Request::SetData { path, data: Some(value.clone()), version: -1 },
                    Op::Get => Request::GetData { path, watch: false },
                }
            };
            scope.spawn(move || load(host, window, request, args, ready))
        };
        let running: Vec<_> = (0..sessions).map(run).collect();
        let ended =
            running.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a session broke down"))?);
        ended.collect::<Result<Vec<Measured>>>()
    })?;
    owner.all(paths.iter().chain([&root]).map(|path| Request::Delete { path: path.clone(), version: -1 }))?;
    owner.close()?;

    let mut latency = Histogram::<u64>::new(3)?;
    measured.iter().try_for_each(|one| latency.add(&one.latency_us))?;
    let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let line = serde_json::json!({
        "op": args.op.to_possible_value().map(|op| op.get_name().to_owned()),
        "in_flight": in_flight,
        "sessions": sessions,
        "ops_per_second": latency.len() / args.seconds,
        "p50_ms": ms(0.5),
        "p99_ms": ms(0.99),
        "p999_ms": ms(0.999),
        "max_ms": ms(1.0),
        "failed": measured.iter().map(|one| one.failed).sum::<u64>(),
        "all": measured.iter().map(|one| one.all).sum::<u64>(),
    });
    println!("{line}");
    Ok(())
}

fn create(path: &str, data: Bytes) -> Request {
    let anyone = Acl { perms: 31, id: Id { scheme: "world".to_owned(), id: "anyone".to_owned() } };
    let path = path.to_owned();
    Request::Create { create: Create { path, data: Some(data), acl: Some(vec![anyone]), flags: 0 } }
}

/// One session: `window` requests under way until the time is up.
fn load(
    host: &str,
    window: usize,
    mut request: impl FnMut(usize) -> Request,
    args: &Args,
    ready: &Barrier,
) -> Result<Measured> {
    let opened = Session::open(host).and_then(|mut session| {
        // Its server may be behind the one that made the znodes.
        session.all([Request::Sync { path: "/".to_owned() }]).map(|()| session)
    });
    // All of them come here, also those that fail, or the others would wait forever.
    ready.wait();
    let mut session = opened.with_context(|| format!("no session at {host}"))?;
    let from = Instant::now() + Duration::from_secs(args.warm_up);
    let end = from + Duration::from_secs(args.seconds);
    let mut measured = Measured { latency_us: Histogram::new(3)?, failed: 0, all: 0 };
    let mut next = 0;
    for _ in 0..window {
        session.ask(&request(next));
        next += 1;
    }
    while session.under_way() > 0 {
        session.flush()?;
        let now = session.receive()?;
        while let Some((asked, code)) = session.answer()? {
            measured.all += 1;
            if code != 0 {
                measured.failed += 1;
            } else if (from..end).contains(&now) {
                let us = u64::try_from((now - asked).as_micros()).unwrap_or(u64::MAX);
                measured.latency_us.record(us.max(1))?;
            }
            if now < end {
                session.ask(&request(next));
                next += 1;
            }
        }
    }
    session.close()?;
    Ok(measured)
}

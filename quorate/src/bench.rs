//! `quorate bench write`: one client, one session, a fixed number of writes under way.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use api::{Create, DATA_MAX, Path, Write, WriteOutcome};
use bytes::Bytes;
use client_sdk::{Client, ClientError, CreateMode, Pending};
use hdrhistogram::Histogram;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{BenchWrite, Format},
    exit::{Doing as _, Failure},
    output,
    session::{self, Pipeline},
    verbs::delete_tree,
};

pub(crate) async fn write(args: &BenchWrite) -> Result<(), Failure> {
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
            load(client, &znodes, args, &interrupted).await
        }
        .await;
        // Also when it failed: what it made is nobody's.
        let removed = delete_tree(client, &parent).await;
        let measured = measured?;
        removed?;
        Ok(measured)
    })
    .await?;
    if measured.latency.is_empty() {
        return Err(Failure::refused("interrupted before anything was measured"));
    }
    report(args, &measured)
}

struct Measured {
    /// Microseconds.
    latency: Histogram<u64>,
    elapsed: Duration,
}

async fn make_parent(client: &Client) -> Result<Path, Failure> {
    let mode = CreateMode::default().sequential();
    let (path, _) = client.create("/quorate-bench-", Bytes::new(), mode).await?;
    Ok(path)
}

async fn make_znodes(client: &Client, parent: &Path, args: &BenchWrite) -> Result<Vec<Path>, Failure> {
    let child = |i| parent.child(&format!("{i:07}")).map_err(ClientError::from);
    let znodes = (0..args.znodes).map(child).collect::<Result<Vec<Path>, ClientError>>()?;
    let mut pipeline = Pipeline::new(client, args.in_flight);
    for path in znodes.iter().cloned() {
        let create = Create::new(path, Bytes::new());
        pipeline.write(Write::Create(create)).await?;
    }
    pipeline.finish().await?;
    Ok(znodes)
}

/// Keeps `in_flight` writes under way until the time is up, then waits for the last of them. Answers come in the order of
/// the writes, so waiting for the oldest sees each answer as it comes.
async fn load(
    client: &Client,
    znodes: &[Path],
    args: &BenchWrite,
    interrupted: &CancellationToken,
) -> Result<Measured, Failure> {
    let data = Bytes::from(vec![b'q'; args.size.bytes()]);
    let seconds = Duration::from_secs(args.seconds.into());
    let mut latency = Histogram::new_with_bounds(1, 3_600_000_000, 3).doing("make a histogram")?;
    let mut under_way: VecDeque<(Instant, Pending<WriteOutcome>)> =
        VecDeque::with_capacity(args.in_flight as usize);
    let mut targets = znodes.iter().cycle();
    let from = Instant::now() + WARM_UP.max(seconds / 10);
    let until = from + seconds;
    let mut last = from;
    loop {
        let running = last < until && !interrupted.is_cancelled();
        while running
            && under_way.len() < args.in_flight as usize
            && let Some(path) = targets.next()
        {
            let write = Write::Set { path: path.clone(), data: Some(data.clone()), version: None };
            under_way.push_back((Instant::now(), client.submit(write).await));
        }
        let Some((sent, answer)) = under_way.pop_front() else {
            break;
        };
        answer.await?;
        let now = Instant::now();
        if now >= from && now < until {
            latency.saturating_record(u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX));
        }
        last = last.max(now);
    }
    Ok(Measured { latency, elapsed: last.min(until) - from })
}

fn report(args: &BenchWrite, m: &Measured) -> Result<(), Failure> {
    let ops = m.latency.len();
    let seconds = m.elapsed.as_secs_f64();
    let rate = if seconds > 0.0 { ops as f64 / seconds } else { 0.0 };
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| m.latency.value_at_quantile(q));
    let max = m.latency.max();
    match args.output.output {
        Format::Json => output::print_json(&json!({
            "ops": ops,
            "seconds": seconds,
            "ops_per_second": rate,
            "p50_us": p50,
            "p99_us": p99,
            "p999_us": p999,
            "max_us": max,
            "in_flight": args.in_flight,
            "size": args.size.0,
            "znodes": args.znodes,
        })),
        Format::Table => {
            let ms = |us: u64| format!("{:.2} ms", us as f64 / 1000.0);
            output::print(&format!(
                "{rate:.0} writes/s   p50 {}   p99 {}   p99.9 {}   max {}\n({ops} writes of {} in {seconds:.1} s, {} under \
                 way, {} znodes)",
                ms(p50),
                ms(p99),
                ms(p999),
                ms(max),
                args.size,
                args.in_flight,
                args.znodes
            ))
        }
    }
}

/// At least so long the load runs before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

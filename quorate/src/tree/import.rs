//! `quorate import`.

use std::{
    fs,
    io::Read as _,
    time::{Duration, Instant},
};

use api::{Create, CreateMode, OpError, Path, Write};
use bytes::Bytes;
use client_sdk::{Client, ClientError};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::{
    scan::{Item, Scan, Skip},
    value,
};
use crate::{
    args::Import,
    exit::{Doing as _, Exit, Failure},
    output,
    session::{self, Pipeline},
    verbs::{create_parents, parse},
};

pub(crate) async fn run(args: &Import) -> Result<(), Failure> {
    let root = parse(&args.path)?;
    let max_size = args.max_size.0;
    let skip = Skip { special: args.skip_special, large: args.skip_large };
    let scan = Scan::of(&args.directory, &root, max_size, skip)?;
    scan.check(max_size)?;
    for line in &scan.left_out {
        output::say(format_args!("left out {line}"));
    }

    let started = Instant::now();
    let total = scan.items.len();
    let (directories, bytes) = session::with(&args.connection, async |client| {
        create_parents(client, &root).await?;
        write_all(client, &root, scan.items, args).await
    })
    .await?;
    output::print(&format!(
        "imported {} files and {directories} directories, {}, in {:.1} s",
        total - directories,
        HumanBytes(bytes),
        started.elapsed().as_secs_f64()
    ))
}

/// Returns how many of the items were directories, and the bytes of all files.
async fn write_all(
    client: &Client,
    root: &Path,
    items: Vec<Item>,
    args: &Import,
) -> Result<(usize, u64), Failure> {
    let bar = ProgressBar::new(items.len() as u64).with_style(style("{bar:30} {pos}/{len} {per_sec} {msg}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut values = read_ahead(items, args.max_size.0);
    let mut pipeline = Pipeline::new(client, args.in_flight);
    let (mut directories, mut bytes) = (0, 0);
    while let Some(next) = values.recv().await {
        let (item, data) = next?;
        if item.is_directory {
            directories += 1;
            if item.znode.is_root() {
                continue;
            }
        } else {
            bytes += data.len() as u64;
        }
        let create = Create { path: item.znode, data, mode: CreateMode::default() };
        pipeline.write(Write::Create(create)).await.map_err(|e| explain(e, root))?;
        bar.inc(1);
    }
    pipeline.finish().await.map_err(|e| explain(e, root))?;
    bar.finish_and_clear();
    Ok((directories, bytes))
}

/// Reads the files in order, on a thread of its own, a few ahead of their use.
fn read_ahead(items: Vec<Item>, max_size: u64) -> mpsc::Receiver<Result<(Item, Bytes), Failure>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        for item in items {
            let data = content(&item, max_size);
            let last = data.is_err();
            // Nobody listens any more when the import has failed.
            if sender.blocking_send(data.map(|data| (item, data))).is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn content(item: &Item, max_size: u64) -> Result<Bytes, Failure> {
    if item.is_directory {
        return Ok(Bytes::from_static(value::DIRECTORY));
    }
    let reading = || format!("read {}", item.source.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(&item.source).doing(reading())?;
    file.take(max_size + 1).read_to_end(&mut bytes).doing(reading())?;
    if bytes.len() as u64 > max_size {
        return Err(Failure::refused(format!(
            "{} has grown beyond --max-size since the import began; a part of the tree is imported",
            item.source.display()
        )));
    }
    Ok(value::of_file(bytes))
}

fn explain(e: ClientError, root: &Path) -> Failure {
    if let Some(OpError::NodeExists(path)) = e.refusal()
        && path == root
    {
        return Failure::refused(format!(
            "the znode {path} exists already; delete it (quorate delete -r {path}) or import to another one"
        ));
    }
    let failure = Failure::from(e);
    // What is before it may have been written: that is not "nothing was done".
    let exit = if failure.exit == Exit::Usage { Exit::Refused } else { failure.exit };
    let remedy = format!("a part of the tree may be imported: `quorate delete -r {root}` removes it");
    Failure::new(exit, format!("{failure}\n{remedy}"))
}

pub(super) fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a wrong one would only look plain.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Files read and not yet sent.
const READ_AHEAD: usize = 32;

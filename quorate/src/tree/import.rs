//! `quorate import`.

use std::{
    fs,
    io::Read as _,
    path::{Path as FilePath, PathBuf},
    time::{Duration, Instant},
};

use api::{
    Create, ErrorCode, MultiOp, NodeKind, OpError, Path, Read, ReadLevel, ReadOutcome, Stat, Write, data_len,
};
use bytes::Bytes;
use client_sdk::{Client, ClientError};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::{
    Znode,
    archive::{self, Entry, Reader},
    scan::{Item, Scan, Skip},
    value,
};
use crate::{
    args::Import,
    exit::{Doing as _, Exit, Failure},
    output,
    session::{self, Created, Pipeline},
    znode::{create_parents, parse},
};

pub(crate) async fn run(args: &Import) -> Result<(), Failure> {
    let root = parse(&args.path)?;
    let skip = Skip { special: args.skip_special, large: args.skip_large };
    let source = Source::open(&args.directory, &root, args.max_size.0, skip)?;
    let started = Instant::now();
    let what = source.what();
    let bytes = session::with(&args.connection, async |client| {
        create_parents(client, &root).await?;
        write_all(client, &root, source, args).await
    })
    .await?;
    output::print(&format!(
        "imported {what}, {}, in {:.1} s",
        HumanBytes(bytes),
        started.elapsed().as_secs_f64()
    ))
}

/// What is imported, looked at and found to be whole.
pub(super) enum Source {
    Directory(Vec<Item>),
    Archive(PathBuf, u64),
}

impl Source {
    /// An archive if it is a file.
    pub(super) fn open(path: &FilePath, root: &Path, max_size: u64, skip: Skip) -> Result<Source, Failure> {
        if path.is_file() {
            return Source::archive(path, root, max_size);
        }
        let scan = Scan::of(path, root, max_size, skip)?;
        scan.check(max_size)?;
        for line in &scan.left_out {
            output::say(format_args!("left out {line}"));
        }
        Ok(Source::Directory(scan.items))
    }

    fn archive(path: &FilePath, root: &Path, max_size: u64) -> Result<Source, Failure> {
        let mut reader = Reader::open(path)?;
        let mut znodes = 0;
        while let Some(Entry { path, znode }) = reader.next()? {
            let bytes = data_len(&znode.data);
            if bytes as u64 > max_size {
                return Err(Failure::usage(format!(
                    "nothing was imported: {bytes} bytes of {path} are more than --max-size; raise it, and `limits.data` of all \
                     nodes"
                )));
            }
            if root.is_root() && path.is_empty() && znode.kind != NodeKind::Persistent {
                return Err(Failure::usage(
                    "nothing was imported: the root of the ensemble cannot become a container or get a TTL, as the first znode of \
                     the archive has; import to another znode, as in `quorate import ARCHIVE /new`",
                ));
            }
            znodes += 1;
        }
        Ok(Source::Archive(path.to_owned(), znodes))
    }

    fn znodes(&self) -> u64 {
        match self {
            Source::Directory(items) => items.len() as u64,
            Source::Archive(_, znodes) => *znodes,
        }
    }

    fn what(&self) -> String {
        match self {
            Source::Directory(items) => {
                let directories = items.iter().filter(|item| item.is_directory).count();
                format!("{} files and {directories} directories", items.len() - directories)
            }
            Source::Archive(_, znodes) => format!("{znodes} znodes"),
        }
    }

    /// Hands over all znodes, parents before children.
    pub(super) fn read(self, root: &Path, max_size: u64, mut each: impl FnMut(Result<New, Failure>) -> bool) {
        match self {
            Source::Directory(items) => {
                for item in items {
                    let new = content(&item, max_size).map(|data| {
                        // A directory is no reason to give the root a value.
                        let plain = item.znode.is_root() && data == value::DIRECTORY;
                        let data = Some(if plain { Bytes::new() } else { data });
                        New { path: item.znode, znode: Znode { data, ..Znode::default() } }
                    });
                    if !each(new) {
                        return;
                    }
                }
            }
            Source::Archive(path, _) => {
                let mut reader = match Reader::open(&path) {
                    Ok(reader) => reader,
                    Err(e) => {
                        each(Err(e));
                        return;
                    }
                };
                loop {
                    let new = match reader.next() {
                        Ok(None) => return,
                        Ok(Some(Entry { path, znode })) => match archive::znode(root, &path) {
                            Some(path) => Ok(New { path, znode }),
                            None => Err(Failure::refused(format!(
                                "{root}{path} is too long for a znode, or no path of one; import to a znode with a shorter path"
                            ))),
                        },
                        Err(e) => Err(e),
                    };
                    if !each(new) {
                        return;
                    }
                }
            }
        }
    }
}

/// A znode to make.
pub(super) struct New {
    pub(super) path: Path,
    pub(super) znode: Znode,
}

impl New {
    /// What makes it, without its counter and its quota, which follow when all of its children are there. The root exists already: it
    /// gets what is not as in a fresh ensemble.
    pub(super) fn writes(self) -> Vec<Write> {
        let New { path, znode: Znode { data, kind, acl, quota: _, sequence: _ } } = self;
        if !path.is_root() {
            return vec![Write::Create(Create { data, kind, acl, ..Create::new(path, Bytes::new()) })];
        }
        let mut writes = Vec::new();
        if data.as_deref() != Some(&[]) {
            writes.push(Write::Set { path: path.clone(), data, version: None });
        }
        if !acl.is_open() {
            writes.push(Write::SetAcl { path, acl, aversion: None });
        }
        writes
    }
}

/// Returns the bytes of all values.
async fn write_all(client: &Client, root: &Path, source: Source, args: &Import) -> Result<u64, Failure> {
    let mut pipeline = Pipeline::new(client, args.in_flight);
    match write_each(client, root, source, args, &mut pipeline).await {
        Ok(bytes) => Ok(bytes),
        Err(failure) => Err(in_part(&failure, root, &pipeline.created().await)),
    }
}

async fn write_each(
    client: &Client,
    root: &Path,
    source: Source,
    args: &Import,
    pipeline: &mut Pipeline<'_>,
) -> Result<u64, Failure> {
    let bar = ProgressBar::new(source.znodes()).with_style(style("{bar:30} {pos}/{len} {per_sec} {msg}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut values = read_ahead(source, root.clone(), args.max_size.0);
    let mut bytes = 0;
    let (mut counters, mut quotas) = (Vec::new(), Vec::new());
    while let Some(next) = values.recv().await {
        let new = next?;
        let (path, Znode { data, quota, sequence, .. }) = (&new.path, &new.znode);
        if *sequence > 0 {
            counters.push((path.clone(), *sequence));
        }
        if !quota.is_none() {
            quotas.push((path.clone(), *quota));
        }
        if data.as_deref() != Some(value::DIRECTORY) {
            bytes += data_len(data) as u64;
        }
        let is_target = path == root;
        for write in new.writes() {
            pipeline.write(write).await.map_err(explain)?;
        }
        if is_target {
            // If it exists, nothing may be made below it.
            pipeline.finish().await.map_err(explain)?;
        }
        bar.inc(1);
    }
    pipeline.finish().await.map_err(explain)?;
    bar.set_message("counters of sequential znodes");
    let in_part = |e: ClientError, what: &str, path: &Path, done: usize, all: usize| {
        let failure = explain(e);
        let message = format!("cannot restore the {what} of {path}: {failure}; {done} of {all} are restored");
        Failure::new(failure.exit, message)
    };
    let (mut gone, all) = (0, counters.len());
    for (done, (path, sequence)) in counters.into_iter().enumerate() {
        match count_to(client, &path, sequence).await {
            Err(e) if e.code() == ErrorCode::NoNode => gone += 1,
            counted => counted.map_err(|e| in_part(e, "counter", &path, done, all))?,
        }
    }
    bar.set_message("quotas");
    // The last: a tree may be beyond its quotas.
    let all = quotas.len();
    for (done, (path, quota)) in quotas.into_iter().enumerate() {
        match client.set_quota(path.as_str(), quota).await {
            Err(e) if e.code() == ErrorCode::NoNode => gone += 1,
            Err(e) => return Err(in_part(e, "quota", &path, done, all)),
            Ok(_) => {}
        }
    }
    bar.finish_and_clear();
    if gone > 0 {
        output::say(format_args!(
            "{gone} counters or quotas are not restored: their znodes are deleted already, or their TTL is over"
        ));
    }
    Ok(bytes)
}

/// Makes `sequence` the number of the next sequential child of a znode. Only creates count it on: those of one child that comes and
/// goes, thousands in a write.
async fn count_to(client: &Client, path: &Path, sequence: u64) -> Result<(), ClientError> {
    let read = Read::Exists { path: path.clone() };
    let ReadOutcome::Exists { stat: Some(stat) } = client.read_with(read, ReadLevel::Local).await.await?
    else {
        return Err(OpError::NoNode(path.clone()).into());
    };
    for parts in counting(path, missing(&stat, sequence)) {
        client.submit(Write::Multi(parts)).await.await?;
    }
    Ok(())
}

/// The creates that a znode lacks. A container without children gets none: once it had a child, it would be removed, and the counter
/// with it.
pub(super) fn missing(stat: &Stat, sequence: u64) -> u64 {
    match stat.kind == NodeKind::Container && stat.num_children == 0 {
        true => 0,
        false => sequence.saturating_sub(super::creates(stat)),
    }
}

/// Writes that raise the counter of a znode by `creates`.
pub(super) fn counting(path: &Path, mut creates: u64) -> impl Iterator<Item = Vec<MultiOp>> {
    // As long as the number of a sequential child: where it does not fit, there can be no such child, so the counter is never
    // visible.
    let name = format!("i{:09x}", getrandom::u64().unwrap_or_default() & 0xf_ffff_ffff);
    let child = path.child(&name).ok();
    std::iter::from_fn(move || {
        let child = child.as_ref().filter(|_| creates > 0)?;
        let fit = MULTI_BYTES / (2 * (child.as_str().len() + PART));
        let pairs = creates.min(PAIRS).min(fit as u64);
        creates -= pairs;
        let pair = || {
            let create = Create::new(child.clone(), Bytes::new());
            [MultiOp::Create(create), MultiOp::Delete { path: child.clone(), version: None }]
        };
        Some((0..pairs).flat_map(|_| pair()).collect())
    })
}

/// Reads values in order, on a thread of its own, a few ahead of their use.
fn read_ahead(source: Source, root: Path, max_size: u64) -> mpsc::Receiver<Result<New, Failure>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        source.read(&root, max_size, |new| {
            let last = new.is_err();
            // The receiver is gone when the import has failed.
            sender.blocking_send(new).is_ok() && !last
        });
    });
    receiver
}

fn content(item: &Item, max_size: u64) -> Result<Bytes, Failure> {
    let source = match (item.is_directory, &item.value) {
        (true, None) => return Ok(Bytes::from_static(value::DIRECTORY)),
        (true, Some(source)) => source,
        (false, _) => &item.source,
    };
    let reading = || format!("read {}", source.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(source).doing(reading())?;
    file.take(max_size + 1).read_to_end(&mut bytes).doing(reading())?;
    if bytes.len() as u64 > max_size {
        return Err(Failure::refused(format!(
            "{} has grown beyond --max-size since the import began",
            source.display()
        )));
    }
    Ok(if item.is_directory { bytes.into() } else { value::of_file(bytes) })
}

fn explain(e: ClientError) -> Failure {
    match e.refusal() {
        Some(OpError::NodeExists(path)) => Failure::refused(format!("the znode {path} exists already")),
        Some(OpError::NoAuth { .. }) => Failure::refused(format!(
            "{e}; access lists hold as soon as they are imported: import as somebody whom they let create, delete and administer, or \
             as the superuser (--auth)"
        )),
        _ => e.into(),
    }
}

/// Why an import has ended before its end, and what is left of it. It names nothing to delete that it has not made.
fn in_part(failure: &Failure, root: &Path, created: &Created) -> Failure {
    // What is before it may have been written: that is not "nothing was done".
    let exit = if failure.exit == Exit::Usage { Exit::Refused } else { failure.exit };
    let Created { znodes, first, last } = created;
    let made = match last {
        None if exit == Exit::Unknown => "no znode is known to be created".to_owned(),
        None => "no znode was created".to_owned(),
        Some(last) => format!("{znodes} znodes were created, the last is {last}"),
    };
    let remedy = match first {
        Some(first) if first == root => {
            format!("`quorate delete -r {root}` removes them, {root} was not there before")
        }
        _ => "import to a znode that does not exist yet, as in `quorate import DIR /new`".to_owned(),
    };
    Failure::new(exit, format!("{failure}\n{made}: {remedy}"))
}

pub(super) fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a wrong one would only look plain.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Creates and deletes in one write: as many as a multi may have parts.
const PAIRS: u64 = 5000;
/// Most bytes of such a write, by what its parts take at most besides their paths. That is less than nodes take.
const MULTI_BYTES: usize = 3 << 20;
const PART: usize = 256;

/// Files read and not yet sent.
const READ_AHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::new(text).unwrap()
    }

    fn created(paths: &[&str]) -> Created {
        let mut created = Created::default();
        paths.iter().for_each(|text| created.add(path(text)));
        created
    }

    #[test]
    fn b21_an_import_that_fails_names_nothing_to_delete_that_it_has_not_created() {
        let exists = || explain(OpError::NodeExists(path("/taken")).into());
        let said = |root: &str, paths: &[&str]| in_part(&exists(), &path(root), &created(paths)).to_string();
        for (root, paths) in [("/", &["/a", "/a/b"][..]), ("/", &[]), ("/taken", &[])] {
            let said = said(root, paths);
            assert!(!said.contains("delete") && said.contains("that does not exist yet"), "{said}");
        }
        let said = [said("/", &["/a", "/a/b"]), said("/", &[]), said("/new", &["/new", "/new/a", "/new/b"])];
        assert!(said[0].contains("2 znodes were created, the last is /a/b"), "{said:?}");
        assert!(said[1].contains("no znode was created"), "{said:?}");
        assert!(
            said[2].contains("3 znodes were created, the last is /new/b: `quorate delete -r /new`"),
            "{said:?}"
        );
    }

    #[test]
    fn b21_an_import_without_an_answer_does_not_say_that_nothing_was_created() {
        let unknown = Failure::new(Exit::Unknown, "no answer");
        let said = in_part(&unknown, &path("/new"), &Created::default()).to_string();
        assert!(said.contains("no znode is known to be created") && !said.contains("delete"), "{said}");
        let wrong = in_part(&Failure::usage("too large"), &path("/new"), &created(&["/new"]));
        assert_eq!(wrong.exit, Exit::Refused, "something was done");
    }
}

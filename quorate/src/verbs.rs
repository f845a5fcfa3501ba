//! The commands that do one thing to the tree: create, get, set, delete, stat, ls, sync.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path as FilePath,
};

use api::{
    DATA_MAX, DeleteTree, Look, NodeKind, OpError, Page, Path, Read, ReadLevel, ReadOutcome, Stat, Write,
    WriteOutcome,
};
use bytes::Bytes;
use client_sdk::{Client, CreateMode, Found, SessionEvent, Walked};
use serde_json::json;
use tokio::sync::broadcast;

use crate::{
    args::{Create, Delete, Format, Get, Ls, Set, StatArgs, SyncArgs, TreeArgs, Value},
    exit::{Doing as _, Exit, Failure},
    output,
    session::{self, Pipeline},
    stale, tree,
    tree::walk::walk,
    znode::{create_parents, no_node, parse},
};

pub(crate) async fn create(args: &Create) -> Result<(), Failure> {
    let path = match args.sequential {
        true => Path::prefix(&args.path).map_err(|e| Failure::usage(format!("{:?}: {e}", args.path)))?,
        false => parse(&args.path)?,
    };
    let data = value(&args.value)?.unwrap_or_default();
    let mode = match (args.ephemeral, args.container, args.ttl) {
        (true, ..) => CreateMode::EPHEMERAL,
        (_, true, _) => CreateMode::CONTAINER,
        (.., Some(ttl)) => CreateMode::ttl(ttl),
        (.., None) => CreateMode::default(),
    };
    let mode = CreateMode { sequential: args.sequential, ..mode };
    session::with(&args.connection, async |client| {
        let events = client.events();
        if args.parents {
            create_parents(client, &path).await?;
        }
        let (path, stat) = client.create(path.as_str(), data, mode).await.map_err(|e| match e.refusal() {
            Some(OpError::NoNode(parent)) => Failure::refused(format!(
                "no znode {parent}, the parent of {path}; create it first, or use --parents"
            )),
            _ => e.into(),
        })?;
        args.output.print(
            || path.to_string(),
            || json!({"path": path.as_str(), "stat": output::stat_json(&stat)}),
        )?;
        if args.ephemeral {
            hold(&path, events).await?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn get(args: &Get) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    if args.read_level() == ReadLevel::Stale {
        let found = stale::ask(&args.connection, Read::Get { path: path.clone() }).await?;
        return match &found.outcome {
            ReadOutcome::Data { data, stat } => {
                print_value(args, &path, data.as_deref().unwrap_or_default(), stat, Some(&found))
            }
            other => Err(stale::foreign(other)),
        };
    }
    session::with(&args.connection, async |client| {
        let (data, stat) = client.get_with(path.as_str(), args.read_level()).await?;
        print_value(args, &path, &data, &stat, None)
    })
    .await
    .map_err(stale::remedy)
}

fn print_value(
    args: &Get,
    path: &Path,
    data: &[u8],
    stat: &Stat,
    stale: Option<&Found>,
) -> Result<(), Failure> {
    match args.output.output {
        Format::Table => output::print_bytes(data),
        Format::Json => {
            let mut object = serde_json::Map::new();
            object.insert("path".to_owned(), path.as_str().into());
            output::value_json(&mut object, data);
            object.insert("stat".to_owned(), output::stat_json(stat));
            if let Some(found) = stale {
                object.insert("as_of".to_owned(), stale::as_of_json(found));
            }
            output::print_json(&object.into())
        }
    }
}

pub(crate) async fn set(args: &Set) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let data = value(&args.value)?.ok_or_else(|| {
        Failure::usage("no value: write it behind the path, name a --file, or write - to read standard input")
    })?;
    session::with(&args.connection, async |client| {
        let stat = client.set(path.as_str(), data, args.only_if.expected()).await?;
        args.output.print(|| format!("version {}", stat.version), || output::stat_json(&stat))
    })
    .await
}

pub(crate) async fn delete(args: &Delete) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    session::with(&args.connection, async |client| {
        if args.in_parts {
            let deleted = delete_tree(client, &path).await?;
            output::print(&format!("deleted {deleted} znodes"))?;
        } else if args.recursive {
            let version = args.only_if.expected();
            let tree = DeleteTree { path: path.clone(), version, keep_root: args.keep_root, max_znodes: 0 };
            match client.submit(Write::DeleteTree(tree)).await.await? {
                WriteOutcome::TreeDeleted { znodes } => output::print(&format!("deleted {znodes} znodes"))?,
                other => {
                    return Err(Failure::refused(format!("the node answered something else: {other:?}")));
                }
            }
        } else {
            client.delete(path.as_str(), args.only_if.expected()).await.map_err(|e| match e.refusal() {
                Some(OpError::NotEmpty { .. }) => {
                    Failure::refused(format!("{e}, or use `quorate delete -r {path}`"))
                }
                _ => e.into(),
            })?;
        }
        Ok(())
    })
    .await
}

pub(crate) async fn stat(args: &StatArgs) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let level = args.query.freshness.read_level();
    let stat = if level == ReadLevel::Stale {
        match stale::ask(&args.query.connection, Read::Exists { path: path.clone() }).await?.outcome {
            ReadOutcome::Exists { stat } => stat,
            other => return Err(stale::foreign(&other)),
        }
    } else {
        session::with(&args.query.connection, async |client| {
            Ok(client.exists_with(path.as_str(), level).await?)
        })
        .await
        .map_err(stale::remedy)?
    };
    let stat = stat.ok_or_else(|| no_node(&path))?;
    args.query.output.print(|| output::stat_text(&stat), || output::stat_json(&stat))
}

pub(crate) async fn ls(args: &Ls) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    if args.query.freshness.read_level() == ReadLevel::Stale {
        if args.long || args.recursive {
            return Err(Failure::usage("--level stale reads one znode; leave --long and --recursive out"));
        }
        let (mut found, mut page) = (Vec::new(), Page::default());
        loop {
            let read = Read::Children { path: path.clone(), page: page.clone() };
            match stale::ask(&args.query.connection, read).await?.outcome {
                ReadOutcome::Children { names, next, .. } => {
                    found.extend(names.into_iter().map(|name| (name, None)));
                    if next.is_empty() {
                        return print_list(&found, false, args.query.output.output);
                    }
                    page.after = next;
                }
                other => return Err(stale::foreign(&other)),
            }
        }
    }
    session::with(&args.query.connection, async |client| {
        let level = args.query.freshness.read_level();
        let mut found: Vec<(String, Option<Stat>)> = Vec::new();
        if args.recursive {
            let mut walked = client.walk(path.as_str()).level(level).await?;
            while let Some(znode) = walked.next().await? {
                if znode.path != path {
                    found.push((znode.path.to_string(), Some(znode.stat)));
                }
            }
            note_hidden(&walked);
        } else {
            let look = if args.long { Look::Stat } else { Look::Name };
            let (children, _) = client.list(path.as_str(), look, level).await?;
            found.extend(children.into_iter().map(|child| (child.name, child.stat)));
        }
        print_list(&found, args.long, args.query.output.output)?;
        Ok(())
    })
    .await
    .map_err(stale::remedy)
}

pub(crate) async fn tree(args: &TreeArgs) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let level = args.freshness.read_level();
    session::with(&args.connection, async |client| draw(client, &path, args.depth, level).await)
        .await
        .map_err(stale::remedy)
}

/// Prints a subtree, indented.
pub(crate) async fn draw(
    client: &Client,
    path: &Path,
    max_depth: u32,
    level: ReadLevel,
) -> Result<(), Failure> {
    let mut walked = client.walk(path.as_str()).max_depth(max_depth).level(level).await?;
    let depth = |path: &Path| std::iter::successors(path.parent(), Path::parent).count();
    while let Some(znode) = walked.next().await? {
        let (below, name) = match depth(&znode.path) - depth(path) {
            0 => (0, path.as_str()),
            below => (below, znode.path.name()),
        };
        output::print(&format!("{:indent$}{name}", "", indent = 2 * below))?;
    }
    note_hidden(&walked);
    Ok(())
}

/// Prints a note if a walk omits subtrees.
fn note_hidden(walked: &Walked) {
    let hidden = walked.end().map_or(0, |end| end.hidden);
    if hidden > 0 {
        output::say(format_args!("quorate: {hidden} subtrees are omitted, because you may not read them"));
    }
}

pub(crate) async fn sync(args: &SyncArgs) -> Result<(), Failure> {
    session::with(&args.connection, async |client| {
        client.sync().await?;
        Ok(())
    })
    .await
}

/// Deletes `root` and everything below it, and says how many znodes that were.
pub(crate) async fn delete_tree(client: &Client, root: &Path) -> Result<usize, Failure> {
    let mut paths = Vec::new();
    walk(client, root, ReadLevel::Local, tree::walk::Look::Stat, IN_FLIGHT, |path, _| {
        paths.push(path.clone());
        Ok(())
    })
    .await?;
    paths.retain(|p| !p.is_root());
    let count = paths.len();
    let mut pipeline = Pipeline::new(client, IN_FLIGHT);
    // The walk names parents before children.
    for path in paths.into_iter().rev() {
        pipeline.write(Write::Delete { path, version: None }).await?;
    }
    pipeline.finish().await?;
    Ok(count)
}

/// Waits for Ctrl-C, or for the end of the session that an ephemeral lives by.
async fn hold(path: &Path, mut events: broadcast::Receiver<SessionEvent>) -> Result<(), Failure> {
    output::say(format_args!("{path} lives as long as this command; Ctrl-C ends both"));
    let interrupted = host::shutdown::on_signals().doing("listen for signals")?;
    let lost = async {
        loop {
            match events.recv().await {
                Ok(SessionEvent::SessionLost { .. }) | Err(broadcast::error::RecvError::Closed) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = interrupted.cancelled() => Ok(()),
        () = lost => {
            Err(Failure::new(Exit::Unavailable, format!("the session is lost, and {path} with it; create it again")))
        }
    }
}

pub(crate) fn print_list(
    found: &[(String, Option<Stat>)],
    long: bool,
    format: Format,
) -> Result<(), Failure> {
    match format {
        Format::Json if long => {
            let object = |(name, stat): &(String, Option<Stat>)| json!({"name": name, "stat": stat.as_ref().map(output::stat_json)});
            output::print_json(&found.iter().map(object).collect())
        }
        Format::Json => output::print_json(&found.iter().map(|(name, _)| name.as_str()).collect()),
        Format::Table if found.is_empty() => Ok(()),
        Format::Table if long => {
            let rows = found.iter().filter_map(|(name, stat)| {
                let stat = stat.as_ref()?;
                let kind = output::kind(stat.kind);
                let numbers =
                    [stat.version.to_string(), stat.data_length.to_string(), stat.num_children.to_string()];
                let [version, bytes, children] = numbers;
                Some(vec![
                    version,
                    bytes,
                    children,
                    output::time(stat.mtime_ms),
                    if stat.kind == NodeKind::Persistent { "-".to_owned() } else { kind },
                    name.clone(),
                ])
            });
            let header = ["VERSION", "BYTES", "CHILDREN", "CHANGED", "KIND", "NAME"];
            output::print(&output::table(&header, rows, &[0, 1, 2]))
        }
        Format::Table => {
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            output::print(&names.join("\n"))
        }
    }
}

/// The value from wherever the arguments say; `None` if they say nothing.
fn value(args: &Value) -> Result<Option<Bytes>, Failure> {
    fn read(from: impl io::Read, name: &str) -> Result<Option<Bytes>, Failure> {
        let mut bytes = Vec::new();
        from.take(DATA_MAX + 1).read_to_end(&mut bytes).doing(format_args!("read {name}"))?;
        if bytes.len() as u64 > DATA_MAX {
            return Err(Failure::usage(format!(
                "{name} has more than the {DATA_MAX} bytes that a value can have; store larger data elsewhere and its address here"
            )));
        }
        Ok(Some(bytes.into()))
    }
    fn open(path: &FilePath) -> Result<File, Failure> {
        File::open(path).doing(format_args!("open {}", path.display()))
    }
    match (&args.value, &args.file) {
        (_, Some(path)) => read(open(path)?, &path.display().to_string()),
        (Some(text), None) if text == "-" => read(io::stdin().lock(), "standard input"),
        (Some(text), None) => Ok(Some(text.clone().into())),
        (None, None) => Ok(None),
    }
}

/// Requests under way in walks and in recursive deletion.
const IN_FLIGHT: u32 = 256;

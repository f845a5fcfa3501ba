//! `quorate watch`: prints what happens to znodes, until it is interrupted.

use std::sync::Arc;

use api::{
    Path, Zxid,
    watch::{Change, ChangeKind, WatchedZnode},
};
use client_sdk::WatchEvent;
use serde_json::{Map, Value};

use crate::{
    args::{Format, WatchArgs},
    exit::{Doing as _, Failure},
    output, session,
};

pub(crate) async fn run(args: &WatchArgs) -> Result<(), Failure> {
    let path = Path::new(&args.path).map_err(|e| Failure::usage(format!("{:?}: {e}", args.path)))?;
    let interrupted = host::shutdown::on_signals().doing("listen for signals")?;
    session::lasting(&args.connection, async |client| {
        let mut watch = client.watch(path.as_str());
        if args.recursive {
            watch = watch.tree();
        } else if args.children {
            watch = watch.children();
        }
        if args.once {
            watch = watch.once();
        }
        if args.values {
            watch = watch.values();
        }
        if args.initial {
            watch = watch.with_state();
        }
        if let Some(zxid) = args.from {
            watch = watch.from(zxid);
        }
        let mut watch = watch.await?;
        if let Some(zxid) = watch.known().filter(|_| !args.quiet) {
            output::say(format_args!("watching {path} from {zxid} on; Ctrl-C ends it"));
        }
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                () = interrupted.cancelled() => return Ok(()),
            };
            match event.transpose()? {
                None => return Ok(()),
                Some(WatchEvent::State { zxid, znodes }) => {
                    znodes.iter().try_for_each(|znode| print_znode(args, zxid, znode))?;
                }
                Some(WatchEvent::Changes { zxid, changes }) => {
                    changes.iter().try_for_each(|change| print_change(args, zxid, change))?;
                }
            }
        }
    })
    .await
}

fn print_znode(args: &WatchArgs, zxid: Zxid, znode: &WatchedZnode) -> Result<(), Failure> {
    let WatchedZnode { path, stat, data } = znode;
    let line = Line { zxid, word: "state", path, stat: Some(stat), data: data.as_deref() };
    line.print(args)
}

fn print_change(args: &WatchArgs, zxid: Zxid, change: &Arc<Change>) -> Result<(), Failure> {
    let word = match change.kind {
        ChangeKind::Touched => "touched",
        ChangeKind::Created => "created",
        ChangeKind::Deleted => "deleted",
        ChangeKind::DataChanged => "changed",
        ChangeKind::AclChanged => "acl_changed",
        ChangeKind::Hidden => "hidden",
    };
    let stat =
        Some(&change.stat).filter(|_| !matches!(change.kind, ChangeKind::Deleted | ChangeKind::Hidden));
    Line { zxid, word, path: &change.path, stat, data: change.data.as_deref() }.print(args)
}

/// One line, whatever the format: so a program can read it as it comes.
struct Line<'a> {
    zxid: Zxid,
    word: &'a str,
    path: &'a Path,
    stat: Option<&'a api::Stat>,
    data: Option<&'a [u8]>,
}

impl Line<'_> {
    fn print(&self, args: &WatchArgs) -> Result<(), Failure> {
        let Line { zxid, word, path, stat, data } = *self;
        let data = data.filter(|_| args.values);
        match args.output.output {
            Format::Table => {
                let value = data.map(|data| format!("  {}", String::from_utf8_lossy(data).escape_debug()));
                output::print(&format!("{zxid}  {word:8}  {path}{}", value.unwrap_or_default()))
            }
            Format::Json => {
                let mut object = Map::new();
                object.insert("zxid".to_owned(), zxid.to_string().into());
                object.insert("event".to_owned(), word.into());
                object.insert("path".to_owned(), path.as_str().into());
                if let Some(data) = data {
                    output::value_json(&mut object, data);
                }
                if let Some(stat) = stat {
                    object.insert("stat".to_owned(), output::stat_json(stat));
                }
                output::print(&Value::from(object).to_string())
            }
        }
    }
}

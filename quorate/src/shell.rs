//! `quorate shell`: commands on the tree, line by line, in one session.

use api::{DeleteTree, Look, Path, ReadLevel, Write, WriteOutcome};
use clap::{Parser as _, error::ErrorKind};
use client_sdk::{Client, CreateMode, SessionEvent};
use tokio::{runtime::Handle, sync::broadcast, task::spawn_blocking};

use crate::{
    acl,
    args::{Format, ShellArgs, ShellCommand, ShellCreate, ShellLine},
    exit::{Doing as _, Failure},
    multi::in_one_line,
    output, session, verbs,
    znode::{create_parents, no_node},
};

mod complete;
mod input;
mod place;

use complete::Names;
use input::{Input, Typed};
use place::{resolve, resolve_prefix};

pub(crate) async fn run(args: &ShellArgs) -> Result<(), Failure> {
    let here = resolve(&Path::root(), &args.path)?;
    // A lost session takes its ephemerals with it, which is said; the next commands get another one.
    session::lasting(&args.connection, async |client| {
        let names = Names { client: client.clone(), runtime: Handle::current(), here: here.clone() };
        let mut input = Input::open(names, !args.no_history)?;
        let mut shell = Shell { client, here: here.clone() };
        shell.enter(&here).await?;
        let mut events = client.events();
        loop {
            let here = shell.here.clone();
            // A terminal blocks its thread.
            let (back, typed) = spawn_blocking(move || {
                let typed = input.line(&here);
                (input, typed)
            })
            .await
            .doing("wait for a line")?;
            input = back;
            tell(&mut events);
            let done = match typed? {
                Typed::End => return Ok(()),
                Typed::Dropped => continue,
                Typed::Line(line) => tokio::select! {
                    done = shell.line(&line) => done,
                    interrupted = tokio::signal::ctrl_c() => {
                        interrupted.doing("listen for signals")?;
                        Err(Failure::refused("interrupted; a write that was under way may be carried out all the same"))
                    }
                },
            };
            match done {
                Ok(Next::Line) => {}
                Ok(Next::End) => return Ok(()),
                Err(failure) if input.is_script() => return Err(failure),
                Err(failure) => output::say(failure),
            }
            tell(&mut events);
        }
    })
    .await
}

/// Tells what happened to the session meanwhile.
fn tell(events: &mut broadcast::Receiver<SessionEvent>) {
    loop {
        match events.try_recv() {
            Ok(SessionEvent::SessionLost { session }) => output::say(format_args!(
                "the session {session} is lost, and its ephemerals with it; the next commands use a new session"
            )),
            Ok(_) | Err(broadcast::error::TryRecvError::Lagged(_)) => {}
            Err(_) => return,
        }
    }
}

/// What comes behind a command.
enum Next {
    Line,
    End,
}

struct Shell<'a> {
    client: &'a Client,
    /// The current znode.
    here: Path,
}

impl Shell<'_> {
    async fn line(&mut self, line: &str) -> Result<Next, Failure> {
        let words = shlex::split(line).ok_or_else(|| {
            Failure::usage("a quote or a backslash at the end is not closed; a command is one line")
        })?;
        if words.is_empty() {
            return Ok(Next::Line);
        }
        let command = match ShellLine::try_parse_from(words) {
            Ok(parsed) => parsed.command,
            Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                output::print(e.to_string().trim_end())?;
                return Ok(Next::Line);
            }
            Err(e) => return Err(Failure::usage(in_one_line(&e))),
        };
        match command {
            ShellCommand::Exit => return Ok(Next::End),
            ShellCommand::Pwd => output::print(self.here.as_str())?,
            ShellCommand::Cd { path } => {
                let path = self.path(&path)?;
                self.enter(&path).await?;
            }
            ShellCommand::Ls { path, long } => self.ls(&self.path(&path)?, long).await?,
            ShellCommand::Tree { path, depth } => {
                verbs::draw(self.client, &self.path(&path)?, depth, ReadLevel::Local).await?;
            }
            ShellCommand::Get { path } => self.get(&self.path(&path)?).await?,
            ShellCommand::Stat { path } => {
                let path = self.path(&path)?;
                let stat = self.client.exists(path.as_str()).await?.ok_or_else(|| no_node(&path))?;
                output::print(&output::stat_text(&stat))?;
            }
            ShellCommand::Create(create) => self.create(create).await?,
            ShellCommand::Set { path, value, only_if } => {
                let stat = self.client.set(self.path(&path)?.as_str(), value, only_if.expected()).await?;
                output::print(&format!("version {}", stat.version))?;
            }
            ShellCommand::Delete { path, recursive: false, only_if } => {
                self.client.delete(self.path(&path)?.as_str(), only_if.expected()).await?;
            }
            ShellCommand::Delete { path, recursive: true, only_if } => {
                let (path, version) = (self.path(&path)?, only_if.expected());
                let tree = DeleteTree { path, version, keep_root: false, max_znodes: 0 };
                if let WriteOutcome::TreeDeleted { znodes } =
                    self.client.submit(Write::DeleteTree(tree)).await.await?
                {
                    output::print(&format!("deleted {znodes} znodes"))?;
                }
            }
            ShellCommand::Acl { path } => {
                let (list, _) = self.client.acl(self.path(&path)?.as_str()).await?;
                output::print(&list.entries().iter().map(acl::text).collect::<Vec<_>>().join("\n"))?;
            }
            ShellCommand::Whoami => {
                let all = self.client.who_am_i().await?;
                let lines: Vec<String> = all
                    .as_slice()
                    .iter()
                    .map(|identity| format!("{}:{}", identity.scheme(), identity.id()))
                    .collect();
                output::print(&lines.join("\n"))?;
            }
            ShellCommand::Sync => self.client.sync().await?,
        }
        Ok(Next::Line)
    }

    fn path(&self, text: &str) -> Result<Path, Failure> {
        resolve(&self.here, text)
    }

    /// Makes an existing znode the current one.
    async fn enter(&mut self, path: &Path) -> Result<(), Failure> {
        self.client.exists(path.as_str()).await?.ok_or_else(|| no_node(path))?;
        self.here = path.clone();
        Ok(())
    }

    async fn ls(&self, path: &Path, long: bool) -> Result<(), Failure> {
        let look = if long { Look::Stat } else { Look::Name };
        let (children, _) = self.client.list(path.as_str(), look, ReadLevel::Local).await?;
        let found: Vec<_> = children.into_iter().map(|child| (child.name, child.stat)).collect();
        verbs::print_list(&found, long, Format::Table)
    }

    async fn get(&self, path: &Path) -> Result<(), Failure> {
        let (data, _) = self.client.get(path.as_str()).await?;
        match std::str::from_utf8(&data) {
            // What a terminal takes for commands would be no value.
            Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) => {
                output::print(text)
            }
            _ => output::print(&data.escape_ascii().to_string()),
        }
    }

    async fn create(&self, create: ShellCreate) -> Result<(), Failure> {
        let path = match create.sequential {
            true => resolve_prefix(&self.here, &create.path)?,
            false => self.path(&create.path)?,
        };
        let mode = match (create.ephemeral, create.container, create.ttl) {
            (true, ..) => CreateMode::EPHEMERAL,
            (_, true, _) => CreateMode::CONTAINER,
            (.., Some(ttl)) => CreateMode::ttl(ttl),
            (.., None) => CreateMode::default(),
        };
        let mode = CreateMode { sequential: create.sequential, ..mode };
        if create.parents {
            create_parents(self.client, &path).await?;
        }
        let (path, _) = self.client.create(path.as_str(), create.value.unwrap_or_default(), mode).await?;
        output::print(path.as_str())
    }
}

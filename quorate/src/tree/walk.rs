//! Looking at a whole tree of znodes, many reads under way at once.

use std::collections::VecDeque;

use api::{ErrorCode, Page, Path, Read, ReadLevel, ReadOutcome, Stat};
use bytes::Bytes;
use client_sdk::{Client, ClientError, Pending};

use crate::{exit::Failure, znode::no_node};

/// What is wanted of each znode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Its Stat; the value that is given is empty.
    Stat,
    /// Its value and Stat, of one moment.
    Value,
}

/// Calls `visit` for `root` and for what is below it, parents before children, each read as fresh as `level` says. Others
/// may write meanwhile: a znode that vanishes between being listed and being looked at is left out.
pub(crate) async fn walk(
    client: &Client,
    root: &Path,
    level: ReadLevel,
    look: Look,
    in_flight: u32,
    mut visit: impl FnMut(&Path, Bytes, Stat) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut to_look_at = VecDeque::from([root.clone()]);
    let mut asked: VecDeque<(Path, Pending<ReadOutcome>)> = VecDeque::new();
    let list = async |path: Path, after: String| {
        let page = Page { after, ..Page::default() };
        let children = client.read_with(Read::Children { path: path.clone(), page }, level).await;
        (path, children)
    };
    loop {
        while asked.len() < in_flight as usize
            && let Some(path) = to_look_at.pop_front()
        {
            let read = match look {
                Look::Stat => Read::Exists { path: path.clone() },
                Look::Value => Read::Get { path: path.clone() },
            };
            asked.push_back((path, client.read_with(read, level).await));
        }
        let Some((path, answer)) = asked.pop_front() else {
            return Ok(());
        };
        let (data, stat) = match answer.await {
            // Nothing here asks for it.
            Ok(
                ReadOutcome::Acl { .. }
                | ReadOutcome::Listed(_)
                | ReadOutcome::Counted(_)
                | ReadOutcome::Quotas { .. },
            ) => continue,
            Ok(ReadOutcome::Data { data, stat }) => (data.unwrap_or_default(), stat),
            Ok(ReadOutcome::Exists { stat: Some(stat) }) => (Bytes::new(), stat),
            Ok(ReadOutcome::Children { names, next, .. }) => {
                for name in &names {
                    let child = path.child(name).map_err(ClientError::from)?;
                    to_look_at.push_back(child);
                }
                if !next.is_empty() {
                    asked.push_back(list(path, next).await);
                }
                continue;
            }
            Ok(ReadOutcome::Exists { stat: None }) if path == *root => {
                return Err(no_node(root));
            }
            Ok(ReadOutcome::Exists { stat: None }) => continue,
            Err(e) if e.code() == ErrorCode::NoNode && path != *root => continue,
            Err(e) => return Err(e.into()),
        };
        visit(&path, data, stat)?;
        if stat.num_children > 0 {
            asked.push_back(list(path, String::new()).await);
        }
    }
}

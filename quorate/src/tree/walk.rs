//! Looking at a whole tree of znodes, many reads under way at once.

use std::collections::VecDeque;

use api::{Acl, ErrorCode, Page, Path, Read, ReadLevel, ReadOutcome, Stat};
use bytes::Bytes;
use client_sdk::{Client, ClientError, Pending};

use crate::{exit::Failure, znode::no_node};

/// What is wanted of each znode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Its Stat.
    Stat,
    /// Its value and Stat, of one moment, and its access list.
    Whole,
}

/// What was found of a znode. With [`Look::Stat`] the rest is the default.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) stat: Stat,
    pub(crate) data: Option<Bytes>,
    pub(crate) acl: Acl,
}

/// Calls `visit` for `root` and for what is below it, parents before children and soon before them, each read as fresh as `level`
/// says. Others may write meanwhile: a znode that vanishes between being listed and being looked at is left out.
pub(crate) async fn walk(
    client: &Client,
    root: &Path,
    level: ReadLevel,
    look: Look,
    in_flight: u32,
    mut visit: impl FnMut(&Path, Found) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut to_look_at = VecDeque::from([root.clone()]);
    // With the access list, if that is wanted as well.
    let mut asked: VecDeque<(Path, Pending<ReadOutcome>, Option<Pending<ReadOutcome>>)> = VecDeque::new();
    let list = async |path: Path, after: String| {
        let page = Page { after, ..Page::default() };
        let children = client.read_with(Read::Children { path: path.clone(), page }, level).await;
        (path, children, None)
    };
    loop {
        while asked.len() < in_flight as usize
            && let Some(path) = to_look_at.pop_front()
        {
            let read = match look {
                Look::Stat => Read::Exists { path: path.clone() },
                Look::Whole => Read::Get { path: path.clone() },
            };
            let answer = client.read_with(read, level).await;
            let acl = match look {
                Look::Stat => None,
                Look::Whole => Some(client.read_with(Read::Acl { path: path.clone() }, level).await),
            };
            asked.push_back((path, answer, acl));
        }
        let Some((path, answer, acl)) = asked.pop_front() else {
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
            Ok(ReadOutcome::Data { data, stat }) => (data, stat),
            Ok(ReadOutcome::Exists { stat: Some(stat) }) => (None, stat),
            Ok(ReadOutcome::Children { names, next, .. }) => {
                for name in names.iter().rev() {
                    let child = path.child(name).map_err(ClientError::from)?;
                    to_look_at.push_front(child);
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
        let acl = match acl {
            None => Acl::default(),
            Some(acl) => match acl.await {
                Ok(ReadOutcome::Acl { acl, stat: later }) if later.czxid == stat.czxid => acl,
                Ok(_) => {
                    // Of another znode of this name, made meanwhile.
                    to_look_at.push_front(path);
                    continue;
                }
                Err(e) if e.code() == ErrorCode::NoNode && path != *root => continue,
                Err(e) => return Err(e.into()),
            },
        };
        visit(&path, Found { stat, data, acl })?;
        if stat.num_children > 0 {
            asked.push_back(list(path, String::new()).await);
        }
    }
}

//! What an application asks for in one request, and the operations that stand for it in the history.
//!
//! The checkers of the history know writes, single reads and syncs. A read of several parts is as many reads that are called together
//! and answered at one zxid. A walk is a read of each znode that it told, and one of how many there are.

use std::collections::BTreeSet;

use api::session::Op;
use api::walk::{Walk, WalkAsk, WalkEnd};
use api::watch::WatchedZnode;
use api::{Page, Path, Read, ReadLevel, ReadOutcome, Usage, Zxid};
use history::{Call, Outcome};

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    One(Call),
    Several(Vec<Read>, ReadLevel),
    Walk(Walk, ReadLevel),
}

impl Asked {
    pub(crate) fn op(&self) -> Op {
        match self {
            Asked::One(Call::Write(write)) => Op::Write(write.clone()),
            Asked::One(Call::Read(read, level)) => Op::Read(read.clone(), *level),
            Asked::One(Call::Sync) => Op::Sync,
            Asked::Several(reads, level) => Op::MultiRead(reads.clone(), *level),
            Asked::Walk(walk, level) => Op::Walk(WalkAsk::Begin(walk.clone(), *level)),
        }
    }

    /// The operations of the history when it is called. Of a walk, that is the read of its root.
    pub(crate) fn calls(&self) -> Vec<Call> {
        match self {
            Asked::One(call) => vec![call.clone()],
            Asked::Several(reads, level) => {
                reads.iter().map(|read| Call::Read(read.clone(), *level)).collect()
            }
            Asked::Walk(walk, level) => vec![Call::Read(read_of(walk, &walk.path), *level)],
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Asked::One(Call::Write(_)))
    }
}

fn read_of(walk: &Walk, path: &Path) -> Read {
    let path = path.clone();
    if walk.with_data { Read::Get { path } } else { Read::Exists { path } }
}

/// A walk that has come to its end, as reads of the state at `zxid`: first that of its root.
///
/// # Errors
/// What no walk tells.
pub(crate) fn walked(
    (walk, level): (&Walk, ReadLevel),
    zxid: Zxid,
    znodes: Vec<WatchedZnode>,
    end: WalkEnd,
) -> Result<Vec<(Call, Outcome)>, String> {
    if end.znodes != znodes.len() as u64 {
        return Err(format!("{walk:?} has told {} znodes, and says that it told {end:?}", znodes.len()));
    }
    let Some(root) = znodes.first().filter(|root| root.path == walk.path) else {
        return Err(format!("{walk:?} does not begin with its root"));
    };
    let mut told = BTreeSet::new();
    for WatchedZnode { path, .. } in &znodes {
        let above = *path == walk.path || path.parent().is_some_and(|parent| told.contains(&parent));
        if !above || !told.insert(path.clone()) {
            return Err(format!("{walk:?} tells {path} without its parent before it, or twice"));
        }
    }
    let read = |read, result| (Call::Read(read, level), Outcome::Read { zxid, result: Ok(result) });
    // What is hidden is not told, but counted.
    let whole = (end.hidden == 0).then(|| match walk.max_depth {
        0 => {
            let bytes = znodes[1..].iter().map(|znode| u64::from(znode.stat.data_length)).sum();
            let used = Usage { znodes: end.znodes - 1, bytes };
            Some(read(Read::Count { path: walk.path.clone() }, ReadOutcome::Counted(used)))
        }
        1 => {
            let names: Vec<_> = znodes[1..].iter().map(|znode| znode.path.name().to_owned()).collect();
            // More do not fit into one page.
            let fits = names.iter().map(String::len).sum::<usize>() < Page::BYTES_MAX / 4;
            let children = ReadOutcome::Children { names, next: String::new(), stat: root.stat };
            fits.then(|| read(Read::Children { path: walk.path.clone(), page: Page::default() }, children))
        }
        _ => None,
    });
    let whole = whole.flatten();
    let each = znodes.into_iter().map(|WatchedZnode { path, stat, data }| {
        let outcome = match walk.with_data {
            true => ReadOutcome::Data { data, stat },
            false => ReadOutcome::Exists { stat: Some(stat) },
        };
        read(read_of(walk, &path), outcome)
    });
    Ok(each.chain(whole).collect())
}

#[cfg(test)]
mod tests {
    use api::Stat;

    use super::*;

    #[test]
    fn a_walk_without_its_root_or_with_an_orphan_is_none() {
        let znode = |path: &str| WatchedZnode {
            path: Path::new(path).unwrap_or_else(|_| Path::root()),
            stat: Stat::default(),
            data: None,
        };
        let walk = Walk { path: znode("/a").path, max_depth: 0, with_data: false };
        let told = |paths: &[&str]| {
            let znodes: Vec<_> = paths.iter().map(|path| znode(path)).collect();
            let end = WalkEnd { znodes: znodes.len() as u64, hidden: 0 };
            walked((&walk, ReadLevel::Local), Zxid(7), znodes, end)
        };
        // Each znode, and how many there are.
        assert_eq!(told(&["/a", "/a/b", "/a/b/c", "/a/d"]).map(|reads| reads.len()), Ok(5));
        assert!(told(&[]).is_err());
        assert!(told(&["/a/b"]).is_err());
        assert!(told(&["/a", "/a/b/c", "/a/b"]).is_err());
        assert!(told(&["/a", "/a/b", "/a/b"]).is_err());
    }
}

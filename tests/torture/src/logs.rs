//! The committed entries, read from the disks of stopped nodes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use api::{Body, Entry, Zxid};
use history::Committed;
use quorum_log::{FsDisk, Log, LogOptions};

/// The longest log of those in these directories, decoded, if it begins with the first entry of all. `Ok(None)` if none
/// does: their beginnings were purged.
///
/// # Errors
/// A log that cannot be read, or two that contradict each other: a sentence for people.
pub(crate) fn union(dirs: &[PathBuf]) -> Result<Option<Vec<Committed>>, String> {
    let mut longest: Option<(&PathBuf, Kept)> = None;
    for dir in dirs {
        let kept = read(dir).map_err(|e| format!("the log in {} cannot be read: {e}", dir.display()))?;
        let Some((other_dir, other)) = &longest else {
            longest = Some((dir, kept));
            continue;
        };
        contradiction(&kept.entries, &other.entries).map_or(Ok(()), |zxid| {
            Err(format!(
                "the logs in {} and {} both have {zxid}, and differ in it",
                dir.display(),
                other_dir.display()
            ))
        })?;
        if kept.whole && (!other.whole || kept.entries.len() > other.entries.len()) {
            longest = Some((dir, kept));
        }
    }
    match longest {
        Some((_, kept)) if kept.whole => {
            kept.entries.into_iter().map(decode).collect::<Result<_, _>>().map(Some)
        }
        _ => Ok(None),
    }
}

/// The remaining content of a log.
struct Kept {
    /// Nothing is purged. The first entry does not tell: what is left may begin with the marker of an epoch.
    whole: bool,
    entries: Vec<Entry>,
}

/// The first zxid that both have with something else in it.
fn contradiction(a: &[Entry], b: &[Entry]) -> Option<Zxid> {
    let mut b = b.iter().peekable();
    a.iter().find_map(|entry| {
        while b.next_if(|other| other.zxid < entry.zxid).is_some() {}
        let other = b.next_if(|other| other.zxid == entry.zxid)?;
        (other != entry).then_some(entry.zxid)
    })
}

fn read(dir: &Path) -> Result<Kept, String> {
    let options = LogOptions { may_create: false, ..LogOptions::default() };
    let log = Log::open(Arc::new(FsDisk), dir, options).map_err(|e| e.to_string())?;
    let (reader, history) = (log.reader(), log.history().clone());
    let mut entries: Vec<Entry> = Vec::new();
    let mut after = history.base();
    while after < history.last() {
        let more = reader.read_after(after, history.last(), PIECE).map_err(|e| e.to_string())?;
        after = more.last().ok_or("it ends early")?.zxid;
        entries.extend(more);
    }
    Ok(Kept { whole: history.base() == Zxid::ZERO, entries })
}

fn decode(entry: Entry) -> Result<Committed, String> {
    let Entry { zxid, time_ms, origin, body, .. } = entry;
    let (level, command) = match body {
        Body::Members(_) => (None, None),
        Body::Marker(level) | Body::Level(level) => (Some(level), None),
        Body::Store(payload) => {
            let command = proto::store::decode_command(payload);
            (None, Some(command.map_err(|e| format!("the entry {zxid} makes no sense: {e}"))?))
        }
    };
    Ok(Committed { zxid, time_ms, origin, level, command })
}

/// Bytes read at once.
const PIECE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(zxid: u64, time_ms: i64) -> Entry {
        Entry { zxid: Zxid(zxid), time_ms, origin: None, body: Body::Store(bytes::Bytes::new()), trace: None }
    }

    #[test]
    fn logs_may_differ_in_length_and_in_nothing_else() {
        let a = [entry(1 << 32, 1), entry((1 << 32) + 1, 2), entry(2 << 32, 3)];
        assert_eq!(contradiction(&a, &a[1..]), None);
        assert_eq!(contradiction(&a[..2], &a), None);
        let b = [entry(1 << 32, 1), entry((1 << 32) + 1, 9)];
        assert_eq!(contradiction(&a, &b), Some(Zxid((1 << 32) + 1)));
    }

    #[test]
    fn a_log_whose_rest_begins_with_a_marker_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let mut log = Log::open(Arc::new(FsDisk), dir.path(), options.clone()).unwrap();
        let marker = [Entry::marker(api::Epoch(2), api::Level::FIRST, 3)];
        log.append(&marker).unwrap();
        log.sync().unwrap();
        drop(log);
        let dirs = [dir.path().to_owned()];
        assert_eq!(union(&dirs).unwrap().map(|entries| entries.len()), Some(1));
        let mut log = Log::open(Arc::new(FsDisk), dir.path(), options.clone()).unwrap();
        log.reset(quorum_log::Base {
            zxid: Zxid((1 << 32) + 7),
            level: Some(api::Level::FIRST),
            roster: None,
        })
        .unwrap();
        log.append(&marker).unwrap();
        log.sync().unwrap();
        drop(log);
        assert_eq!(union(&dirs).unwrap().map(|entries| entries.len()), None);
    }
}

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use api::{Entry, PeerId, Zxid};

use crate::{Broken, Verdict, check};

/// All entries that ever entered a log, each as it was first seen.
#[derive(Clone, Default, Debug)]
pub struct Proposals {
    entries: BTreeMap<Zxid, (Zxid, Entry)>,
    bytes: u64,
}

/// Whether two entries are equal. A trace is no part of an entry.
#[must_use]
pub fn same(a: &Entry, b: &Entry) -> bool {
    (a.zxid, a.time_ms, a.origin) == (b.zxid, b.time_ms, b.origin) && a.body == b.body
}

impl Proposals {
    /// Whether any server has appended an entry with this zxid.
    #[must_use]
    pub fn has(&self, zxid: Zxid) -> bool {
        self.entries.contains_key(&zxid)
    }

    /// The entries of a range.
    pub fn range(&self, zxids: RangeInclusive<Zxid>) -> impl Iterator<Item = &Entry> {
        self.entries.range(zxids).map(|(_, (_, entry))| entry)
    }

    /// The bytes of all entries together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A server appends an entry behind `prev`. Whether it is the first to do so.
    ///
    /// # Errors
    /// I13: another entry has this zxid, or the same entry stands behind another one. I14: the log has a hole.
    pub fn appends(&mut self, server: PeerId, prev: Zxid, entry: &Entry) -> Result<bool, Broken> {
        let zxid = entry.zxid;
        check(zxid.follows(prev), "I14 no holes", || {
            format!("server {server} appends {zxid} behind {prev}")
        })?;
        let Some((before, known)) = self.entries.get(&zxid) else {
            self.bytes += entry.weight() as u64;
            self.entries.insert(zxid, (prev, entry.clone()));
            return Ok(true);
        };
        unique(server, *before == prev && same(known, entry), zxid)?;
        Ok(false)
    }
}

fn unique(server: PeerId, holds: bool, zxid: Zxid) -> Verdict {
    check(holds, "I13 zxid uniqueness", || format!("server {server} appends another entry {zxid}"))
}

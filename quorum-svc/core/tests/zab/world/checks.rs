//! The invariants that need the whole world; all others are in the crate `invariants`.

use super::*;

impl World {
    pub(super) fn check(&mut self, id: u32) {
        let node = &self.nodes[&id];
        let core = node.core.as_ref().unwrap();
        let last = node.log.last().map_or(node.base, |e| e.zxid);
        assert_eq!(core.history().last(), last, "core and log of server {id} part");
        let status = core.status();
        assert!(node.applied <= status.committed && status.committed <= last, "applied <= committed <= last");
        self.extend_committed(id, status.committed);
    }

    /// The first server that knows of a commit adds it to C, the committed sequence.
    pub(super) fn extend_committed(&mut self, id: u32, committed: Zxid) {
        let World { ghost, nodes, members, .. } = self;
        let node = &nodes[&id];
        let log = |known| {
            assert!(known >= node.base, "server {id} has purged entries that no server knew to be committed");
            node.log.iter().filter(|e| e.zxid > known && e.zxid <= committed).cloned().collect()
        };
        let durable = || {
            // A server with the entry but without the epoch could lose an election to one that lacks
            // the entry.
            let has = |id: PeerId, zxid: Zxid| {
                let stored = &nodes[&id.0].disk.stored;
                stored.has(zxid) && stored.current >= zxid.epoch() && !stored.damage.is_some()
            };
            let holders = || nodes.keys().filter(|&&id| has(PeerId(id), committed)).collect::<Vec<_>>();
            let in_log = |zxid| zxid <= node.base || node.log.iter().any(|e| e.zxid == zxid);
            let known = |zxid| zxid <= ghost.last();
            match members.committed(committed, in_log, known, has) {
                true => Ok(()),
                false => Err(format!("{:?}", holders())),
            }
        };
        let durable = if committed > ghost.last() { durable() } else { Ok(()) };
        hold(ghost.commits(PeerId(id), committed, log, || durable, CLOCK_BOUND_MS));
    }

    /// The feature level of the state at `zxid`.
    pub(super) fn level_at(&self, zxid: Zxid) -> Level {
        let upto = self.ghost.entries().iter().take_while(|e| e.zxid <= zxid);
        upto.filter_map(|e| e.body.level()).last().unwrap_or_default()
    }

    /// Number of entries of C on a disk.
    pub(super) fn committed_on_disk(&self, id: u32) -> usize {
        let stored = &self.nodes[&id].disk.stored;
        self.ghost.entries().partition_point(|e| stored.has(e.zxid))
    }
}

//! The invariants that a step of one server can break, among several servers.

use api::{Entry, PeerId};
use invariants::same;

use super::disk::Stored;
use super::net::peer;
use super::{State, World, Zab};

impl Zab {
    /// I2, I4, I11: the committed part of a log is a prefix of C, which grows when this server is the first to know.
    pub(super) fn extend_committed(&self, world: &mut World, i: usize) -> Result<(), String> {
        let facts = self.facts(&world.state, i);
        world.ghost.agrees(peer(i), facts.base, facts.committed, facts.view.iter())?;
        if facts.committed <= world.ghost.last() {
            return Ok(world.ghost.knows(peer(i), facts.committed)?);
        }
        let upto = facts.committed;
        let log = |known| {
            let fresh = facts.view.iter().filter(|e| e.zxid > known && e.zxid <= upto);
            fresh.cloned().collect()
        };
        // With the entry but without its epoch a server might lose an election to one that lacks the entry.
        let has = |stored: &Stored| stored.has(upto) && stored.recovered_epoch() >= upto.epoch();
        let durable = self.on_quorum(world, has);
        Ok(world.ghost_mut().commits(peer(i), upto, log, || durable, quorum_core::CLOCK_BOUND_MS)?)
    }

    /// Whether a quorum of disks `has` something. A disk that was wiped counts: its server may have had it when it acknowledged it.
    /// The error names the servers that count.
    fn on_quorum(&self, world: &World, has: impl Fn(&Stored) -> bool) -> Result<(), String> {
        let counts = |id: PeerId| {
            let i = id.0 as usize - 1;
            world.left.wiped >> i & 1 == 1 || has(&self.server(&world.state, i).disk.stored)
        };
        if self.quorums.has(counts) {
            return Ok(());
        }
        let holders: Vec<PeerId> = (0..self.count()).map(peer).filter(|&id| counts(id)).collect();
        Err(format!("{holders:?}"))
    }

    /// The invariants that a step of server `i` can break.
    pub(super) fn judge(&self, world: &mut World, i: usize, before: u32, wiped: bool) -> Result<(), String> {
        let (old, new) = (&self.facts[before as usize], self.facts(&world.state, i));
        if (old.committed, old.log) != (new.committed, new.log) {
            self.extend_committed(world, i)?;
        }
        if old.log != new.log {
            self.check_same(&world.state, i)?;
        }
        if old.stored != new.stored {
            self.check_kept(world, i, old.stored, wiped)?;
        }
        Ok(())
    }

    /// I13: one zxid, one entry.
    fn check_same(&self, state: &State, i: usize) -> Result<(), String> {
        let mine = self.facts(state, i);
        for j in (0..self.count()).filter(|&j| j != i) {
            let theirs = &self.facts(state, j).view;
            let differs = |e: &&Entry| theirs.iter().any(|t| t.zxid == e.zxid && !same(t, e));
            if let Some(e) = mine.view.iter().find(differs) {
                return Err(format!("I13: {} differs on servers {} and {}", e.zxid, peer(i), peer(j)));
            }
        }
        Ok(())
    }

    /// I11: no disk loses what is committed, and so a quorum of them has it.
    fn check_kept(&self, world: &World, i: usize, old: u32, wiped: bool) -> Result<(), String> {
        let on = |stored: &Stored| world.ghost.entries().iter().filter(|e| stored.has_entry(e)).count();
        if !wiped && on(&self.server(&world.state, i).disk.stored) < on(self.stored.get(old)) {
            return Err(format!("I11: server {} cuts off what is committed", peer(i)));
        }
        for entry in world.ghost.entries() {
            self.on_quorum(world, |stored| stored.has_entry(entry)).map_err(|holders| {
                format!("I11: {} was committed and is only on the disks of {holders} now", entry.zxid)
            })?;
        }
        Ok(())
    }
}

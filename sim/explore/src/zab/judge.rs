//! The invariants that a step of one server can break, among several servers.

use std::collections::BTreeSet;
use std::rc::Rc;

use api::{Entry, PeerId};

use super::disk::{Stored, same};
use super::net::peer;
use super::server::Server;
use super::{State, World, Zab};

impl Zab {
    pub(super) fn extend_committed(&self, world: &mut World, i: usize) -> Result<(), String> {
        let facts = self.facts(&world.state, i);
        let servers: Vec<&Rc<Server>> = (0..self.count()).map(|j| self.server(&world.state, j)).collect();
        let disks: Vec<&Stored> = servers.iter().map(|s| &s.disk.stored).collect();
        let wiped = self.wiped(world);
        world.ghost_mut().commit(&self.seen(facts, i), &disks, &wiped, &self.ensemble)
    }

    fn wiped(&self, world: &World) -> BTreeSet<PeerId> {
        (0..self.count()).filter(|j| world.left.wiped >> j & 1 == 1).map(peer).collect()
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
        let on = |stored: &Stored| world.ghost.committed.iter().filter(|e| stored.has_entry(e)).count();
        if !wiped && on(&self.server(&world.state, i).disk.stored) < on(self.stored.get(old)) {
            return Err(format!("I11: server {} cuts off what is committed", peer(i)));
        }
        let servers: Vec<&Rc<Server>> = (0..self.count()).map(|j| self.server(&world.state, j)).collect();
        let disks: Vec<&Stored> = servers.iter().map(|s| &s.disk.stored).collect();
        world.ghost.kept(&disks, &self.wiped(world), &self.ensemble)
    }
}

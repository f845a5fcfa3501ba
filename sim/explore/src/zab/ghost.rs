//! The observer's knowledge: the committed entries, the leaders of the epochs, the answers to stores. And the
//! invariants that need it.

use std::collections::BTreeSet;

use api::{Ensemble, Entry, Epoch, PeerId, Ticket, Zxid};

use super::disk::{Stored, same};
use super::net::peer;
use super::server::Answer;

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Ghost {
    /// C, extended by the first server that knows of a commit.
    pub(crate) committed: Vec<Entry>,
    /// Whose marker opened which epoch, ascending.
    pub(crate) opened: Vec<(Epoch, PeerId)>,
    /// The greatest epoch that a leader established.
    pub(crate) established: Epoch,
    /// Writes by their tickets, from 1.
    pub(crate) writes: Vec<Write>,
    /// Open barriers: the server, and the last zxid committed anywhere at the time of the request.
    pub(crate) barriers: Vec<(PeerId, Ticket, Zxid)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Write {
    pub(crate) asker: PeerId,
    pub(crate) answer: Option<Answer>,
    /// The store that asked is gone.
    pub(crate) gone: bool,
}

/// A server as the checks see it.
pub(crate) struct Seen<'a> {
    pub(crate) who: usize,
    pub(crate) base: Zxid,
    /// Its log after `base`, durable or not.
    pub(crate) view: &'a [Entry],
    /// The zxid that it knows to be committed.
    pub(crate) committed: Zxid,
}

impl Ghost {
    pub(crate) fn last(&self) -> Zxid {
        self.committed.last().map_or(Zxid::ZERO, |e| e.zxid)
    }

    /// I8: an epoch has one leader; only one server ever begins to write in it.
    pub(crate) fn opened(&mut self, epoch: Epoch, who: PeerId) -> Result<(), String> {
        match self.opened.iter().find(|(e, _)| *e == epoch) {
            Some((_, first)) => Err(format!("I8: servers {first} and {who} both open epoch {epoch}")),
            None => {
                let at = self.opened.partition_point(|(e, _)| *e < epoch);
                self.opened.insert(at, (epoch, who));
                Ok(())
            }
        }
    }

    /// I7, I8, I12: a leader that serves has all entries that earlier epochs committed, and is the leader
    /// that opened its own epoch. (It may learn that it is established after a later one is; then it commits
    /// nothing new.)
    pub(crate) fn settled(&mut self, leader: PeerId, epoch: Epoch, seen: &Seen<'_>) -> Result<(), String> {
        if !self.opened.contains(&(epoch, leader)) {
            return Err(format!("I8: server {leader} serves in epoch {epoch} without having opened it"));
        }
        if peer(seen.who) == leader {
            let earlier = self.committed.iter().filter(|e| e.zxid > seen.base && e.zxid.epoch() < epoch);
            if let Some(lacks) = earlier.into_iter().find(|e| !seen.view.iter().any(|v| same(v, e))) {
                return Err(format!("I12: leader {leader} of epoch {epoch} lacks {}", lacks.zxid));
            }
            self.established = self.established.max(epoch);
        }
        Ok(())
    }

    /// I2, I4, I13: the committed part of a log is a prefix of C, which grows when this server is the first to know.
    pub(crate) fn commit(
        &mut self,
        seen: &Seen<'_>,
        disks: &[&Stored],
        wiped: &BTreeSet<PeerId>,
        ensemble: &Ensemble,
    ) -> Result<(), String> {
        let known = self.last();
        let common = seen.committed.min(known);
        let theirs = seen.view.iter().filter(|e| e.zxid <= common);
        let ours = self.committed.iter().filter(|e| e.zxid > seen.base && e.zxid <= common);
        let theirs: Vec<&Entry> = theirs.collect();
        let ours: Vec<&Entry> = ours.collect();
        if theirs.len() != ours.len() || !theirs.iter().zip(&ours).all(|(a, b)| same(a, b)) {
            return Err(format!(
                "I2: server {} takes other entries for committed than the ensemble",
                peer(seen.who)
            ));
        }
        if seen.committed <= known {
            return Ok(());
        }
        if seen.base > known {
            return Err(format!(
                "I2: server {} stands on {}, which no server committed",
                peer(seen.who),
                seen.base
            ));
        }
        if seen.committed.epoch() < self.established {
            return Err(format!(
                "I8: {} is committed in the reign of epoch {}",
                seen.committed, self.established
            ));
        }
        let holders: BTreeSet<PeerId> = (0..disks.len())
            // With the entry but without its epoch it might lose an election to a server that lacks the
            // entry.
            .filter(|&i| disks[i].has(seen.committed) && disks[i].recovered_epoch() >= seen.committed.epoch())
            .map(peer)
            // A wiped server may have had it when it acknowledged it.
            .chain(wiped.iter().copied())
            .collect();
        if !ensemble.is_quorum(&holders) {
            return Err(format!(
                "I11: {} is committed, but only {holders:?} have it on disk",
                seen.committed
            ));
        }
        for entry in seen.view.iter().filter(|e| e.zxid > known && e.zxid <= seen.committed) {
            self.append(entry)?;
        }
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<(), String> {
        if !entry.zxid.follows(self.last()) {
            return Err(format!("I5, I6: {} is committed behind {}", entry.zxid, self.last()));
        }
        if let Some(origin) = entry.origin {
            let place = usize::try_from(origin.ticket.0 - 1).ok();
            let Some(write) = place.and_then(|i| self.writes.get(i)).filter(|w| w.asker == origin.peer)
            else {
                return Err(format!("I1: {} was never submitted", entry.zxid));
            };
            if write.answer == Some(Answer::Refused) {
                return Err(format!("C10: {} was refused, and is committed", entry.zxid));
            }
            let same_store = self.committed.iter().filter_map(|e| e.origin).filter(|o| o.peer == origin.peer);
            if let Some(other) = same_store.map(|o| o.ticket).find(|&t| t >= origin.ticket) {
                return Err(format!("C2: ticket {} is committed behind ticket {}", origin.ticket.0, other.0));
            }
        }
        self.committed.push(entry.clone());
        Ok(())
    }

    /// C10: a store gets the outcome of its write once.
    pub(crate) fn answer(&mut self, who: PeerId, ticket: Ticket, answer: Answer) -> Result<(), String> {
        let place = usize::try_from(ticket.0 - 1).ok();
        let Some(write) = place.and_then(|i| self.writes.get_mut(i)).filter(|w| w.asker == who) else {
            return Err(format!("C10: server {who} answers ticket {}, which is not its own", ticket.0));
        };
        if write.gone {
            return Ok(());
        }
        match (write.answer, answer) {
            (None, _) => write.answer = Some(answer),
            // "Lost" means that the outcome is unknown; the entry may still come.
            (Some(Answer::Lost), Answer::Applied) => return Ok(()),
            (Some(before), _) => {
                return Err(format!("C10: ticket {} is answered {before:?} and {answer:?}", ticket.0));
            }
        }
        let committed = self.committed.iter().filter_map(|e| e.origin).any(|o| o.ticket == ticket);
        match answer {
            Answer::Applied if !committed => {
                Err(format!("I2: ticket {} is applied, not committed", ticket.0))
            }
            Answer::Refused if committed => {
                Err(format!("C10: ticket {} is refused, but committed", ticket.0))
            }
            _ => Ok(()),
        }
    }

    /// C9: a server with an answered barrier has every entry that was committed anywhere before its request.
    pub(crate) fn barrier_told(&mut self, who: PeerId, ticket: Ticket, applied: Zxid) -> Result<(), String> {
        let Some(at) = self.barriers.iter().position(|b| (b.0, b.1) == (who, ticket)) else {
            return Err(format!("C9: server {who} gets a barrier that it did not request"));
        };
        let (_, _, asked) = self.barriers.remove(at);
        if applied < asked {
            return Err(format!(
                "C9: barrier of server {who} at {applied}, but {asked} was committed before"
            ));
        }
        Ok(())
    }

    /// The store of a server is gone with it.
    pub(crate) fn died(&mut self, who: PeerId) {
        self.writes.iter_mut().filter(|w| w.asker == who).for_each(|w| w.gone = true);
        self.barriers.retain(|b| b.0 != who);
    }

    /// I11: what is committed stays on the disks of a quorum. Disks that were wiped are counted as if they had it.
    pub(crate) fn kept(
        &self,
        disks: &[&Stored],
        wiped: &BTreeSet<PeerId>,
        ensemble: &Ensemble,
    ) -> Result<(), String> {
        for entry in &self.committed {
            let holders: BTreeSet<PeerId> = (0..disks.len())
                .filter(|&i| disks[i].has_entry(entry))
                .map(peer)
                .chain(wiped.iter().copied())
                .collect();
            if !ensemble.is_quorum(&holders) {
                return Err(format!(
                    "I11: {} was committed and is no longer on a quorum's disks",
                    entry.zxid
                ));
            }
        }
        Ok(())
    }
}

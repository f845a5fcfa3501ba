//! The observer's knowledge: every entry that was proposed or committed, every promise to a store; and the
//! checks on it.

use std::collections::BTreeMap;

use api::{Entry, Epoch, Level, PeerId, Ticket, Zxid, ports::Refusal};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Applied,
    Refused(Refusal),
    Lost,
    /// The node died before it could answer.
    Died,
}

#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) payload: Vec<u8>,
    pub(crate) committed: Option<Zxid>,
    pub(crate) answer: Option<Answer>,
    /// The store that submitted it is gone.
    pub(crate) gone: bool,
}

#[derive(Default)]
pub(crate) struct Ghost {
    /// I1, I13.
    pub(crate) proposed: BTreeMap<Zxid, Entry>,
    /// C: the committed sequence, extended by the first server that knows of a commit.
    pub(crate) committed: Vec<Entry>,
    /// I8.
    pub(crate) leaders: BTreeMap<Epoch, u32>,
    pub(crate) writes: BTreeMap<(PeerId, Ticket), Write>,
    /// Open barriers, and the last zxid committed anywhere at the time of their requests.
    pub(crate) barriers: BTreeMap<(u32, Ticket), Zxid>,
    last_of_origin: BTreeMap<PeerId, Ticket>,
}

impl Ghost {
    pub(crate) fn last(&self) -> Zxid {
        self.committed.last().map_or(Zxid::ZERO, |e| e.zxid)
    }

    pub(crate) fn has(&self, zxid: Zxid) -> bool {
        zxid == Zxid::ZERO || self.committed.binary_search_by_key(&zxid, |e| e.zxid).is_ok()
    }

    /// The feature level of the state at `zxid`.
    pub(crate) fn level_at(&self, zxid: Zxid) -> Level {
        let upto = self.committed.iter().take_while(|e| e.zxid <= zxid);
        upto.filter_map(|e| e.body.level()).last().unwrap_or_default()
    }

    /// An entry enters a log.
    pub(crate) fn propose(&mut self, entry: &Entry) {
        if let Some(same) = self.proposed.get(&entry.zxid) {
            assert_eq!(same, entry, "I13: two entries with one zxid");
            return;
        }
        if let Some(origin) = entry.origin
            && let Some(write) = self.writes.get(&(origin.peer, origin.ticket))
        {
            assert_eq!(
                entry.payload().map(|p| &p[..]),
                Some(&write.payload[..]),
                "I1: {} differs from the submitted write",
                entry.zxid
            );
        }
        self.proposed.insert(entry.zxid, entry.clone());
    }

    pub(crate) fn commit(&mut self, entry: &Entry) {
        let last = self.last();
        assert!(entry.zxid.follows(last), "I5, I6: {} committed behind {last}", entry.zxid);
        assert_eq!(self.proposed.get(&entry.zxid), Some(entry), "I1");
        let time = self.committed.last().map_or(i64::MIN, |e| e.time_ms);
        let steps_back = entry.time_ms.saturating_add(quorum_core::CLOCK_BOUND_MS) < time;
        assert!(entry.time_ms >= time || steps_back, "the log's time goes back at {}", entry.zxid);
        if let Some(origin) = entry.origin {
            if let Some(write) = self.writes.get_mut(&(origin.peer, origin.ticket)) {
                assert_eq!(write.committed, None, "{origin:?} is committed twice, again at {}", entry.zxid);
                assert!(!matches!(write.answer, Some(Answer::Refused(_))), "{origin:?} was refused");
                write.committed = Some(entry.zxid);
            }
            let before = self.last_of_origin.insert(origin.peer, origin.ticket);
            assert!(before < Some(origin.ticket), "{origin:?} is committed behind {before:?}");
        }
        self.committed.push(entry.clone());
    }

    pub(crate) fn settled(&mut self, epoch: Epoch, leader: u32) {
        let known = *self.leaders.entry(epoch).or_insert(leader);
        assert_eq!(known, leader, "I8: two leaders in epoch {epoch}");
    }

    pub(crate) fn answer(&mut self, peer: PeerId, ticket: Ticket, answer: Answer) {
        let write = self.writes.get_mut(&(peer, ticket)).expect("a ticket that was handed out");
        match (write.answer, answer) {
            (None, _) => {}
            // "Lost" means that the outcome is unknown; the entry may still come.
            (Some(Answer::Lost), Answer::Applied) => return,
            (before, now) => panic!("{peer}/{ticket:?} is answered twice: {before:?}, {now:?}"),
        }
        if let Answer::Refused(_) = answer {
            assert_eq!(write.committed, None, "{peer}/{ticket:?} is refused, but it is committed");
        }
        write.answer = Some(answer);
    }

    pub(crate) fn died(&mut self, id: u32) {
        for (_, write) in self.writes.iter_mut().filter(|((peer, _), _)| peer.0 == id) {
            write.answer.get_or_insert(Answer::Died);
            write.gone = true;
        }
        self.barriers.retain(|(peer, _), _| *peer != id);
    }

    pub(crate) fn unanswered(&self) -> Vec<(PeerId, Ticket)> {
        self.writes.iter().filter(|(_, w)| w.answer.is_none()).map(|(&k, _)| k).collect()
    }
}

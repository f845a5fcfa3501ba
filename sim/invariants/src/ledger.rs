use std::collections::BTreeMap;

use api::{Entry, Epoch, Origin, PeerId, Ticket, Zxid};
use bytes::Bytes;

use crate::{Broken, Verdict, check, same};

/// The outcome of a submission, as its store is told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// It is committed, and the store has applied it.
    Applied,
    /// It will never be committed.
    Refused,
    /// Its outcome is unknown.
    Lost,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Submission {
    payload: Bytes,
    answer: Option<Answer>,
    committed: bool,
    /// The store that submitted it is gone, and takes no answer.
    gone: bool,
}

/// C, the committed sequence, as the first server that knows of a commit extends it; the reigns; and what stores submit and are told.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Ledger {
    /// C.
    entries: Vec<Entry>,
    /// The server whose marker opened an epoch.
    leaders: BTreeMap<Epoch, PeerId>,
    /// The greatest epoch with an established leader.
    established: Epoch,
    submissions: BTreeMap<Origin, Submission>,
    /// The last submission in C of each store that is there.
    last_of: BTreeMap<PeerId, Ticket>,
    /// Open barriers, with the end of C at the time of the request.
    barriers: BTreeMap<(PeerId, Ticket), Zxid>,
}

impl Ledger {
    /// C.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last zxid of C.
    #[must_use]
    pub fn last(&self) -> Zxid {
        self.entries.last().map_or(Zxid::ZERO, |e| e.zxid)
    }

    /// The place of an entry in C.
    #[must_use]
    pub fn place(&self, zxid: Zxid) -> Option<usize> {
        self.entries.binary_search_by_key(&zxid, |e| e.zxid).ok()
    }

    /// Whether C has this zxid, or it is the one before the first entry.
    #[must_use]
    pub fn has(&self, zxid: Zxid) -> bool {
        zxid == Zxid::ZERO || self.place(zxid).is_some()
    }

    /// How many epochs were opened.
    #[must_use]
    pub fn reigns(&self) -> usize {
        self.leaders.len()
    }

    // ---- reigns ----

    /// A leader appends the marker of an epoch.
    ///
    /// # Errors
    /// I8: the epoch was opened before.
    pub fn opens(&mut self, epoch: Epoch, leader: PeerId) -> Verdict {
        let before = self.leaders.insert(epoch, leader);
        check(before.is_none(), "I8 one leader per epoch", || {
            format!("servers {before:?} and {leader} both open epoch {epoch}")
        })
    }

    /// A server serves under `leader`, or is the leader.
    ///
    /// # Errors
    /// I8: another server, or none, opened the epoch.
    pub fn serves_under(&self, leader: PeerId, epoch: Epoch) -> Verdict {
        let first = self.leaders.get(&epoch);
        check(first == Some(&leader), "I8 one leader per epoch", || {
            format!("{leader} leads in epoch {epoch}, which was opened by {first:?}")
        })
    }

    /// A leader begins to serve, whose log `has` these entries. It may learn of its quorum after a newer reign was established; then
    /// it commits nothing new, so entries of newer epochs do not count.
    ///
    /// # Errors
    /// I8: another server opened the epoch. I12: an entry that was committed up to this epoch is not in the log.
    pub fn established(&mut self, leader: PeerId, epoch: Epoch, has: impl Fn(&Entry) -> bool) -> Verdict {
        self.serves_under(leader, epoch)?;
        self.complete(leader, |e| e.zxid.epoch() <= epoch, has)?;
        self.established = self.established.max(epoch);
        Ok(())
    }

    /// A leader makes its log the one of an epoch.
    ///
    /// # Errors
    /// I12: an entry that was committed in an earlier epoch is not in the log.
    pub fn begins(&self, leader: PeerId, epoch: Epoch, has: impl Fn(&Entry) -> bool) -> Verdict {
        self.complete(leader, |e| e.zxid.epoch() < epoch, has)
    }

    fn complete(
        &self,
        leader: PeerId,
        counts: impl Fn(&Entry) -> bool,
        has: impl Fn(&Entry) -> bool,
    ) -> Verdict {
        let end = self.entries.partition_point(counts);
        // Newest first: a log usually lacks its end.
        let lacks = self.entries[..end].iter().rev().find(|e| !has(e));
        check(lacks.is_none(), "I12 leader completeness", || {
            format!("leader {leader} lacks {:?}", lacks.map(|e| e.zxid))
        })
    }

    /// The last committed entry up to this epoch.
    #[must_use]
    pub fn last_upto(&self, epoch: Epoch) -> Zxid {
        let end = self.entries.partition_point(|e| e.zxid.epoch() <= epoch);
        end.checked_sub(1).map_or(Zxid::ZERO, |i| self.entries[i].zxid)
    }

    // ---- commits ----

    /// A server takes everything up to `upto` for committed. If it is the first to know, `log` gives its entries behind the end of
    /// C up to there, and `durable` says whether a quorum has `upto` on disk; an error names the servers that have it. The new
    /// entries of C are the last ones of [`Ledger::entries`].
    ///
    /// # Errors
    /// I2: `upto` is not in C. I8: it is a commit of an old reign. I11: it is not on the disks of a quorum. I1, I5, I17, C2, C10: see
    /// the messages.
    pub fn commits(
        &mut self,
        server: PeerId,
        upto: Zxid,
        log: impl FnOnce(Zxid) -> Vec<Entry>,
        durable: impl FnOnce() -> Result<(), String>,
        clock_bound_ms: i64,
    ) -> Verdict {
        let known = self.last();
        if upto <= known {
            return self.knows(server, upto);
        }
        check(upto.epoch() >= self.established, "I8 no commit of an old reign", || {
            format!("server {server} commits {upto} although epoch {} is established", self.established)
        })?;
        durable().map_err(|holders| Broken {
            rule: "I11 committed log durability",
            what: format!("{upto} is committed, but durable on {holders} only"),
        })?;
        for entry in log(known) {
            self.append(entry, clock_bound_ms)?;
        }
        check(self.last() == upto, "I1 integrity", || {
            format!("server {server} commits {upto}, which its log does not have")
        })
    }

    /// A server takes everything up to `upto` for committed, which others know to be committed.
    ///
    /// # Errors
    /// I2: it is not in C.
    pub fn knows(&self, server: PeerId, upto: Zxid) -> Verdict {
        check(self.has(upto), "I2 committed prefix", || {
            let last = self.last();
            format!("server {server} takes {upto} for committed; it is not in C, which ends with {last}")
        })
    }

    /// Extends C.
    ///
    /// # Errors
    /// I5: an entry is missing before it. I1: no store submitted it. I17: its time goes back. C2: it overtook a submission of the
    /// same store, or is one that was committed before. C10: it was refused.
    pub fn append(&mut self, entry: Entry, clock_bound_ms: i64) -> Verdict {
        let (zxid, last) = (entry.zxid, self.last());
        check(zxid.follows(last), "I5 primary order", || format!("{zxid} is committed behind {last}"))?;
        let time = self.entries.last().map_or(i64::MIN, |e| e.time_ms);
        let steps_back = entry.time_ms.saturating_add(clock_bound_ms) < time;
        check(entry.time_ms >= time || steps_back, "I17 times", || {
            format!("{zxid} is stamped {} behind {time}", entry.time_ms)
        })?;
        if let Some(origin) = entry.origin {
            self.submission_commits(&entry, origin)?;
        }
        self.entries.push(entry);
        Ok(())
    }

    fn submission_commits(&mut self, entry: &Entry, origin: Origin) -> Verdict {
        let zxid = entry.zxid;
        let submission = self.submissions.get_mut(&origin).filter(|s| entry.payload() == Some(&s.payload));
        let Some(submission) = submission else {
            return check(false, "I1 integrity", || format!("{zxid} was never submitted"));
        };
        check(!submission.committed, "C10 at most once", || {
            format!("the submission {origin:?} is committed twice, again at {zxid}")
        })?;
        let refused = submission.answer == Some(Answer::Refused);
        check(!refused, "C10 refused means never", || format!("{zxid} was refused before"))?;
        submission.committed = true;
        // A store that comes back after its clock went back begins with smaller tickets.
        if !submission.gone {
            let last = self.last_of.insert(origin.peer, origin.ticket);
            check(last < Some(origin.ticket), "C2 order of a store", || {
                format!("{zxid} is the submission {origin:?}, committed behind {last:?}")
            })?;
        }
        Ok(())
    }

    /// The entries that a server holds for committed, those behind `base` up to `upto`, are those of C.
    ///
    /// # Errors
    /// I2.
    pub fn agrees<'a>(
        &self,
        server: PeerId,
        base: Zxid,
        upto: Zxid,
        log: impl Iterator<Item = &'a Entry>,
    ) -> Verdict {
        let upto = upto.min(self.last());
        let within = |e: &&Entry| e.zxid > base && e.zxid <= upto;
        let (mut theirs, mut ours) = (log.filter(within), self.entries.iter().filter(within));
        let agree = loop {
            match (theirs.next(), ours.next()) {
                (None, None) => break true,
                (Some(a), Some(b)) if same(a, b) => {}
                _ => break false,
            }
        };
        check(agree, "I2 committed prefix", || {
            format!("server {server} takes other entries for committed than the ensemble")
        })
    }

    /// A server cuts its log, which `has` some entries, behind `to`.
    ///
    /// # Errors
    /// I11: an entry of C is lost.
    pub fn truncates(&self, server: PeerId, to: Zxid, has: impl Fn(Zxid) -> bool) -> Verdict {
        let next = self.entries.partition_point(|e| e.zxid <= to);
        let lost = self.entries.get(next).map(|e| e.zxid).filter(|&zxid| has(zxid));
        check(lost.is_none(), "I11 nothing committed is truncated", || {
            format!("server {server} cuts its log back to {to} and loses {lost:?}")
        })
    }

    // ---- stores ----

    /// A store submits this.
    pub fn submits(&mut self, store: PeerId, ticket: Ticket, payload: Bytes) {
        let submission = Submission { payload, answer: None, committed: false, gone: false };
        self.submissions.insert(Origin { peer: store, ticket }, submission);
    }

    /// How many submissions there were.
    #[must_use]
    pub fn submissions(&self) -> usize {
        self.submissions.len()
    }

    /// The answer to a submission so far.
    #[must_use]
    pub fn answer(&self, store: PeerId, ticket: Ticket) -> Option<Answer> {
        self.submissions.get(&Origin { peer: store, ticket })?.answer
    }

    /// The answers that stores were given.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        self.submissions.values().filter_map(|s| s.answer)
    }

    /// The submissions without an answer, of stores that are there.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Origin> {
        let open = self.submissions.iter().filter(|(_, s)| s.answer.is_none() && !s.gone);
        open.map(|(&origin, _)| origin).collect()
    }

    /// A store is told the outcome of its submission.
    ///
    /// # Errors
    /// C10: it did not submit it, has an answer already, or the answer is wrong.
    pub fn answers_to(&mut self, store: PeerId, ticket: Ticket, answer: Answer) -> Verdict {
        let origin = Origin { peer: store, ticket };
        let Some(submission) = self.submissions.get_mut(&origin) else {
            return check(false, "C10 one answer", || format!("{origin:?} was never submitted"));
        };
        if submission.gone {
            return Ok(());
        }
        let committed = submission.committed;
        match (submission.answer, answer) {
            (None, _) => submission.answer = Some(answer),
            // The outcome was unknown; the entry may still come.
            (Some(Answer::Lost), Answer::Applied) => {}
            (Some(before), _) => {
                return check(false, "C10 one answer", || {
                    format!("{origin:?} is answered {before:?} and {answer:?}")
                });
            }
        }
        check(answer != Answer::Applied || committed, "I4 agreement", || {
            format!("{origin:?} is applied, but not committed")
        })?;
        check(answer != Answer::Refused || !committed, "C10 refused means never", || {
            format!("{origin:?} is refused, but committed")
        })
    }

    /// A store asks for a barrier.
    pub fn asks_barrier(&mut self, store: PeerId, ticket: Ticket) {
        self.barriers.insert((store, ticket), self.last());
    }

    /// How many barriers have no answer.
    #[must_use]
    pub fn open_barriers(&self) -> usize {
        self.barriers.len()
    }

    /// A store that has everything up to `applied` is told its barrier.
    ///
    /// # Errors
    /// C9: it did not ask for it, or lacks an entry that was committed before it asked.
    pub fn barrier_told(&mut self, store: PeerId, ticket: Ticket, applied: Zxid) -> Verdict {
        let asked = self.barriers.remove(&(store, ticket));
        check(asked.is_some_and(|asked| applied >= asked), "C9 barrier", || {
            format!(
                "a barrier of server {store} is told at {applied}; the end of C at its request was {asked:?}"
            )
        })
    }

    /// A store is refused a submission or a barrier.
    ///
    /// # Errors
    /// As of [`Ledger::answers_to`].
    pub fn refuses(&mut self, store: PeerId, ticket: Ticket) -> Verdict {
        match self.barriers.remove(&(store, ticket)) {
            Some(_) => Ok(()),
            None => self.answers_to(store, ticket, Answer::Refused),
        }
    }

    /// A store is gone: it takes no answer any more.
    pub fn died(&mut self, store: PeerId) {
        self.last_of.remove(&store);
        self.submissions
            .iter_mut()
            .filter(|(origin, _)| origin.peer == store)
            .for_each(|(_, s)| s.gone = true);
        self.barriers.retain(|(peer, _), _| *peer != store);
    }
}

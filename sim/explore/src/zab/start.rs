//! Where the servers stand at first.

use api::{Body, EnsembleId, Entry, Epoch, Level, Origin, Ticket, Zxid};
use bytes::Bytes;
use invariants::{Broken, Ledger};

use super::disk::Stored;
use super::net::peer;
use super::{Start, Zab};

impl Zab {
    /// The first state of each disk, and the committed part of it.
    pub(super) fn first_disks(&self) -> (Vec<Stored>, Ledger) {
        let mut disks = vec![Stored::default(); self.count()];
        if self.setup.start == Start::Fresh {
            return (disks, Ledger::default());
        }
        let epoch = Epoch(1);
        let marker = Entry::marker(epoch, Level::FIRST, 0);
        let write = |n: u32| {
            let origin = Some(Origin { peer: peer(0), ticket: Ticket(u64::from(n)) });
            Entry {
                zxid: Zxid::new(epoch, n),
                time_ms: 0,
                origin,
                body: Body::Store(Bytes::new()),
                trace: None,
            }
        };
        let (writes, behind) = match self.setup.start {
            Start::Behind | Start::Purged => (2, 2),
            Start::Blank => (1, 1),
            Start::Written | Start::Fresh => (1, 2),
        };
        let log: Vec<Entry> = [marker].into_iter().chain((1..=writes).map(write)).collect();
        for (i, disk) in disks.iter_mut().enumerate() {
            (disk.accepted, disk.current) = (epoch, epoch);
            disk.entries = log.clone();
            disk.ensemble = Some(EnsembleId(1));
            if i == 2 {
                disk.entries.truncate(behind);
            } else if self.setup.start == Start::Purged {
                disk.base = Zxid::new(epoch, writes);
                disk.snapshots.push(disk.base);
                disk.entries.clear();
            }
        }
        match first_ledger(epoch, log) {
            Ok(ledger) => (disks, ledger),
            Err(why) => panic!("the first state is no state: {why}"),
        }
    }
}

/// Server 1 has led in this epoch, and this log is committed. The store that submitted it is gone.
fn first_ledger(epoch: Epoch, log: Vec<Entry>) -> Result<Ledger, Broken> {
    let mut ledger = Ledger::default();
    ledger.opens(epoch, peer(0))?;
    for entry in log {
        if let Some(Origin { peer, ticket }) = entry.origin {
            ledger.submits(peer, ticket, Bytes::new());
        }
        ledger.append(entry, 0)?;
    }
    ledger.established(peer(0), epoch, |_| true)?;
    ledger.died(peer(0));
    Ok(ledger)
}

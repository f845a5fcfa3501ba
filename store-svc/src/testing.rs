//! A quorum of one server in memory, so that tests of stores need no other service.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::{
    Body, EnsembleId, Entry, Epoch, Level, LevelRefusal, Origin, PeerId, Reconfig, ReconfigRefusal, Zxid,
    ports::{
        Chunks, Feed, FeedItem, PortClosed, Quorum, QuorumStatus, Request, Role, Room, Sign, Signs,
        Surroundings,
    },
};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

/// Commits requests at once. Survives the store, like a real quorum.
#[derive(Clone)]
pub struct MemoryQuorum {
    me: PeerId,
    ensemble: EnsembleId,
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

struct Inner {
    log: Vec<Entry>,
    /// Entries up to this one are no longer available.
    purged: usize,
    snapshot: Option<(Zxid, Vec<Bytes>)>,
    /// Item to deliver once this entry is reached.
    told: VecDeque<(usize, FeedItem)>,
    /// Requests that arrived without a leader.
    parked: Vec<Request>,
    serving: bool,
    /// Number of the current feed.
    attached: u64,
    /// Signs of life for the attached store.
    signs: Option<mpsc::UnboundedSender<Sign>>,
}

impl MemoryQuorum {
    /// A quorum that leads; its log contains only the marker of its epoch.
    #[must_use]
    pub fn new(me: PeerId) -> MemoryQuorum {
        let inner = Inner {
            log: vec![Entry::marker(Epoch(1), Level::FIRST, 1)],
            purged: 0,
            snapshot: None,
            told: VecDeque::new(),
            parked: Vec::new(),
            serving: true,
            attached: 0,
            signs: None,
        };
        let (inner, changed) = (Arc::new(Mutex::new(inner)), Arc::new(Notify::new()));
        MemoryQuorum { me, ensemble: EnsembleId(1), inner, changed }
    }

    /// The quorum of this ensemble.
    #[must_use]
    pub fn of(self, ensemble: EnsembleId) -> MemoryQuorum {
        MemoryQuorum { ensemble, ..self }
    }

    /// Sets whether there is a leader. Without one, requests are parked.
    pub fn set_serving(&self, serving: bool) {
        let mut inner = self.lock();
        inner.serving = serving;
        let status = self.status_of(&inner);
        inner.tell(FeedItem::Status(status));
        let parked = std::mem::take(&mut inner.parked);
        drop(inner);
        self.take(parked);
        self.changed.notify_waiters();
    }

    /// Purges the log below the snapshot. Returns false if there is none.
    #[must_use]
    pub fn purge(&self) -> bool {
        let mut inner = self.lock();
        let Some(zxid) = inner.snapshot.as_ref().map(|(zxid, _)| *zxid) else { return false };
        inner.purged = inner.upto(zxid);
        true
    }

    /// The entry of the last snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Option<Zxid> {
        self.lock().snapshot.as_ref().map(|(zxid, _)| *zxid)
    }

    /// Number of requests that wait for a leader.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.lock().parked.len()
    }

    /// All entries so far.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        self.lock().log.clone()
    }

    fn take(&self, batch: Vec<Request>) {
        let mut inner = self.lock();
        for request in batch {
            match request {
                request if !inner.serving => inner.parked.push(request),
                Request::Submit { ticket, payload, trace } => {
                    let zxid = inner.last().next().unwrap_or(Zxid::marker(Epoch(2)));
                    let origin = Some(Origin { peer: self.me, ticket });
                    let time_ms = inner.log.len() as i64;
                    inner.log.push(Entry { zxid, time_ms, origin, body: Body::Store(payload), trace });
                }
                Request::Barrier { ticket } => inner.tell(FeedItem::Barrier { ticket }),
                Request::Report(report) => inner.sign(Sign::Report { from: self.me, report }),
                Request::Confirm { report, .. } => inner.sign(Sign::Confirmed(report)),
            }
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    fn status_of(&self, inner: &Inner) -> QuorumStatus {
        let (last, serving) = (inner.last(), inner.serving);
        QuorumStatus {
            role: if serving { Role::Leading } else { Role::Looking },
            serving,
            leader: serving.then_some(self.me),
            epoch: Epoch(1),
            last,
            committed: last,
            disk: Room::Ample,
            room: Room::Ample,
            ensemble: Some(self.ensemble),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn last(&self) -> Zxid {
        self.log.last().map_or(Zxid::ZERO, |e| e.zxid)
    }

    fn upto(&self, zxid: Zxid) -> usize {
        self.log.partition_point(|e| e.zxid <= zxid)
    }

    fn tell(&mut self, item: FeedItem) {
        let behind = self.log.len();
        self.told.push_back((behind, item));
    }

    fn sign(&self, sign: Sign) {
        if let Some(signs) = &self.signs {
            // The store may be gone.
            let _ = signs.send(sign);
        }
    }
}

impl Quorum for MemoryQuorum {
    type Feed = MemoryFeed;
    type Signs = MemorySigns;

    async fn attach(&self, after: Zxid) -> Result<(MemoryFeed, MemorySigns), PortClosed> {
        let mut inner = self.lock();
        let (to_store, signs) = mpsc::unbounded_channel();
        inner.signs = Some(to_store);
        inner.attached += 1;
        inner.told.clear();
        let mut position = inner.upto(after);
        let known =
            after == Zxid::ZERO || position.checked_sub(1).is_some_and(|i| inner.log[i].zxid == after);
        let mut first = Vec::new();
        if position < inner.purged || !known {
            let (zxid, pieces) = inner.snapshot.clone().unwrap_or_default();
            position = inner.upto(zxid);
            first.push(FeedItem::SnapshotStart { zxid });
            first.extend(pieces.into_iter().map(FeedItem::SnapshotChunk));
            first.push(FeedItem::SnapshotEnd);
        }
        first.push(FeedItem::Status(self.status_of(&inner)));
        let feed = MemoryFeed { quorum: self.clone(), number: inner.attached, first, position };
        Ok((feed, MemorySigns(signs)))
    }

    async fn request(&self, batch: Vec<Request>) -> Result<(), PortClosed> {
        self.take(batch);
        Ok(())
    }

    async fn surroundings(&self) -> Result<Surroundings, PortClosed> {
        Ok(Surroundings::default())
    }

    async fn save_snapshot(&self, zxid: Zxid, mut chunks: impl Chunks + 'static) -> Result<(), PortClosed> {
        let mut pieces = Vec::new();
        while let Some(piece) = chunks.next().await {
            assert!(piece.len() <= 1 << 20, "a piece of {} bytes", piece.len());
            pieces.push(piece);
        }
        self.lock().snapshot = Some((zxid, pieces));
        Ok(())
    }

    async fn set_level(&self, expected: Level, level: Level) -> Result<Level, LevelRefusal> {
        Err(LevelRefusal::Refused(format!("this is no ensemble: from {expected} to {level}")))
    }

    async fn reconfigure(&self, _: Reconfig) -> Result<Zxid, ReconfigRefusal> {
        Err(ReconfigRefusal::Invalid("this is no ensemble".into()))
    }

    async fn status(&self) -> Result<QuorumStatus, PortClosed> {
        Ok(self.status_of(&self.lock()))
    }
}

/// The signs of life of a [`MemoryQuorum`].
pub struct MemorySigns(mpsc::UnboundedReceiver<Sign>);

impl Signs for MemorySigns {
    async fn next(&mut self) -> Option<Sign> {
        self.0.recv().await
    }
}

/// The feed of a [`MemoryQuorum`].
pub struct MemoryFeed {
    quorum: MemoryQuorum,
    number: u64,
    first: Vec<FeedItem>,
    position: usize,
}

impl MemoryFeed {
    fn ready(&mut self) -> Result<Vec<FeedItem>, PortClosed> {
        if !self.first.is_empty() {
            return Ok(std::mem::take(&mut self.first));
        }
        let mut inner = self.quorum.lock();
        if inner.attached != self.number {
            return Err(PortClosed("a newer store has attached".into()));
        }
        let mut items = Vec::new();
        loop {
            let until = inner.told.front().map_or(inner.log.len(), |(behind, _)| *behind);
            if self.position < until {
                items.push(FeedItem::Committed(inner.log[self.position..until].to_vec()));
                self.position = until;
            }
            match inner.told.pop_front() {
                Some((_, item)) => items.push(item),
                None => return Ok(items),
            }
        }
    }
}

impl Feed for MemoryFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, PortClosed> {
        loop {
            let changed = self.quorum.changed.clone();
            let changed = changed.notified();
            let mut changed = std::pin::pin!(changed);
            // After this no notification is missed.
            changed.as_mut().enable();
            let items = self.ready()?;
            if !items.is_empty() {
                return Ok(items);
            }
            changed.await;
        }
    }
}

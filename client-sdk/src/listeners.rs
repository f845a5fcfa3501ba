//! The task's ends of watches.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use api::watch::WatchedZnode;
use client_core::WatchNews;
use tokio::sync::mpsc;

/// Bytes of news that wait for their reader; one more item may come on top. The node keeps the rest, as far as its history reaches.
const HELD_MAX: usize = 4 << 20;

/// The state that a watch shares with the task.
#[derive(Default, Debug)]
pub(crate) struct Shared {
    /// Bytes of news that wait for the reader.
    held: AtomicUsize,
    /// No more news come until the reader requests them.
    parked: AtomicBool,
}

impl Shared {
    /// The reader has taken some bytes. Whether it has to request more.
    pub(crate) fn taken(&self, bytes: usize) -> bool {
        let before = self.held.fetch_sub(bytes, Ordering::SeqCst);
        before.saturating_sub(bytes) <= HELD_MAX / 2 && self.parked.swap(false, Ordering::SeqCst)
    }

    /// Whether news are held back until the reader requests them.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }

    /// Some bytes more wait for the reader. Whether the watch has to be parked.
    fn put(&self, bytes: usize) -> bool {
        if self.held.fetch_add(bytes, Ordering::SeqCst) + bytes <= HELD_MAX
            || self.parked.swap(true, Ordering::SeqCst)
        {
            return false;
        }
        // The reader may have taken all of it meanwhile, and then it requests nothing.
        self.held.load(Ordering::SeqCst) > HELD_MAX / 2 || !self.parked.swap(false, Ordering::SeqCst)
    }
}

/// The task's end of a watch.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) sender: mpsc::UnboundedSender<WatchNews>,
    pub(crate) shared: Arc<Shared>,
}

/// The task's ends of all watches.
#[derive(Default, Debug)]
pub(crate) struct Listeners(HashMap<u32, Listener>);

impl Listeners {
    pub(crate) fn add(&mut self, id: u32, listener: Listener) {
        self.0.insert(id, listener);
    }

    pub(crate) fn remove(&mut self, id: u32) {
        self.0.remove(&id);
    }

    /// Passes news on. Whether the watch has to be parked, because its reader takes nothing.
    pub(crate) fn tell(&mut self, id: u32, news: WatchNews) -> bool {
        let Some(Listener { sender, shared }) = self.0.get(&id) else { return false };
        let park = shared.put(weight(&news));
        let over = matches!(news, WatchNews::Ended(_));
        // Its reader may have gone.
        let _ = sender.send(news);
        if over {
            self.0.remove(&id);
        }
        park && !over
    }
}

/// Bytes of news in memory.
pub(crate) fn weight(news: &WatchNews) -> usize {
    match news {
        WatchNews::Group { changes, .. } => changes.iter().map(|change| change.weight()).sum(),
        WatchNews::State { znodes, .. } => znodes.iter().map(WatchedZnode::weight).sum(),
        WatchNews::Stands { .. } | WatchNews::Ended(_) => 0,
    }
}

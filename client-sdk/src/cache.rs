//! Znodes kept in memory, as a watch tells of them.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use api::{
    Path, Read, Zxid,
    watch::{Change, ChangeKind, WatchScope, WatchedZnode},
};
use tokio::{
    sync::{broadcast, watch},
    task::JoinHandle,
    time::sleep,
};
use tokio_stream::{Stream, wrappers::WatchStream};

use crate::{Client, ClientError, SessionEvent, Watch, WatchEvent};

/// A copy of a znode, its children or its subtree, kept up to date by a [`Watch`](crate::Watch): reads of it cost no request.
///
/// It shows the state behind one entry of the log, [`Cache::as_of`], never a part of an entry. A cache can be behind: use a
/// [linearizable read](crate::ReadLevel::Linearizable) for what must not be. While its client has no connection it is
/// [stale](Cache::is_stale); it then keeps what it has, and catches up without a gap. Dropped, it ends its watch.
///
/// A state has at most 10,000 znodes. Numbers in a Stat that children change (`pzxid`, `cversion`, `num_children`) are those of the last
/// event of the znode itself. A child that the client may not read has an empty Stat and no value.
///
/// ```no_run
/// # async fn example(client: client_sdk::Client) -> Result<(), client_sdk::ClientError> {
/// use client_sdk::Cache;
/// use tokio_stream::StreamExt as _;
///
/// let config = Cache::node(&client, "/app/config").await?;
/// let workers = Cache::children(&client, "/workers").await?;
/// if let Some(znode) = config.get("/app/config") {
///     println!("{:?}, as of {}", znode.data, config.as_of());
/// }
/// let mut changes = workers.changes();
/// while let Some(zxid) = changes.next().await {
///     let names: Vec<String> = workers.iter().map(|znode| znode.path.name().to_owned()).collect();
///     println!("{zxid}: {names:?}, stale: {}", workers.is_stale());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cache {
    cached: Arc<Mutex<Cached>>,
    moved: watch::Receiver<Zxid>,
    task: JoinHandle<()>,
}

impl Cache {
    /// Of one znode, which need not exist. Returns with its first state.
    ///
    /// # Errors
    /// As [`Client::watch`].
    pub async fn node(client: &Client, path: &str) -> Result<Cache, ClientError> {
        Cache::start(client, path, WatchScope::Node).await
    }

    /// Of the children of a znode, with their values, without the znode itself.
    ///
    /// # Errors
    /// As [`Cache::node`].
    pub async fn children(client: &Client, path: &str) -> Result<Cache, ClientError> {
        Cache::start(client, path, WatchScope::Children).await
    }

    /// Of a znode and all below it.
    ///
    /// # Errors
    /// As [`Cache::node`].
    pub async fn tree(client: &Client, path: &str) -> Result<Cache, ClientError> {
        Cache::start(client, path, WatchScope::Tree).await
    }

    /// A znode; `None` if there is none, or it is none of this cache.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<Arc<WatchedZnode>> {
        self.cached().znodes.get(path).cloned()
    }

    /// All znodes behind one entry, in the order of their paths. Changes that come later do not show in it.
    pub fn iter(&self) -> impl Iterator<Item = Arc<WatchedZnode>> + use<> {
        self.cached().znodes.values().cloned().collect::<Vec<_>>().into_iter()
    }

    /// The entry behind which it shows the state. It moves with events, and after a fail-over; so it can be older than the log of an
    /// ensemble in which nothing happens here.
    #[must_use]
    pub fn as_of(&self) -> Zxid {
        self.cached().as_of
    }

    /// Whether the client has no connection, or has not caught up since it got one again: others may have gone on. Also once the
    /// cache has [ended](Cache::error).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.cached().stale
    }

    /// Why it does not follow the changes any more; `None` as long as it does.
    #[must_use]
    pub fn error(&self) -> Option<ClientError> {
        self.cached().error.clone()
    }

    /// Its present [`Cache::as_of`], and then each later one that is there when it is looked for: a slow reader skips some. The stream
    /// ends with the cache.
    pub fn changes(&self) -> impl Stream<Item = Zxid> + Send + Unpin + use<> {
        WatchStream::new(self.moved.clone())
    }

    fn cached(&self) -> MutexGuard<'_, Cached> {
        lock(&self.cached)
    }

    async fn start(client: &Client, path: &str, scope: WatchScope) -> Result<Cache, ClientError> {
        let path = Path::new(path)?;
        // Before the watch, so that no loss of the connection is missed.
        let events = client.events();
        let mut watch = begin(client, &path, scope).await?;
        let children_of = (scope == WatchScope::Children).then(|| path.clone());
        let cached = Arc::new(Mutex::new(Cached { children_of, ..Cached::default() }));
        let (moved, watched) = watch::channel(Zxid::ZERO);
        let keeper = Keeper { client: client.clone(), path, scope, cached: Arc::clone(&cached), moved };
        match watch.next().await {
            Some(event) => drop(keeper.take(event?)),
            None => return Err(api::OpError::Unavailable("the client is closed".to_owned()).into()),
        }
        let task = tokio::spawn(async move { keeper.run(watch, events).await });
        Ok(Cache { cached, moved: watched, task })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a cache has.
#[derive(Default, Debug)]
struct Cached {
    /// The parent, if only its children are cached.
    children_of: Option<Path>,
    znodes: BTreeMap<Path, Arc<WatchedZnode>>,
    as_of: Zxid,
    stale: bool,
    error: Option<ClientError>,
}

impl Cached {
    /// Takes an event in. False if it says too little: the state has to be read again.
    fn apply(&mut self, event: WatchEvent) -> bool {
        self.as_of = event.zxid();
        match event {
            WatchEvent::State { znodes, .. } => {
                let parent = self.children_of.clone();
                let znodes = znodes.into_iter().filter(|znode| Some(&znode.path) != parent.as_ref());
                self.znodes = znodes.map(|znode| (znode.path.clone(), Arc::new(znode))).collect();
                true
            }
            WatchEvent::Changes { changes, .. } => {
                // All of them, also behind one that says too little.
                let mut enough = true;
                changes.iter().for_each(|change| enough &= self.change(change));
                enough
            }
        }
    }

    fn change(&mut self, change: &Change) -> bool {
        let Change { kind, path, stat, data, .. } = change;
        if Some(path) == self.children_of.as_ref() {
            // Its children are gone before it.
            return true;
        }
        let data = match kind {
            ChangeKind::Touched => return false,
            ChangeKind::Deleted | ChangeKind::Hidden => {
                self.znodes.remove(path);
                return true;
            }
            ChangeKind::Created | ChangeKind::DataChanged => data.clone(),
            // It comes without the value, which is as it was; unless the client may not read it any more.
            ChangeKind::AclChanged if stat.czxid == Zxid::ZERO => None,
            ChangeKind::AclChanged => self.znodes.get(path).and_then(|znode| znode.data.clone()),
        };
        self.znodes.insert(path.clone(), Arc::new(WatchedZnode { path: path.clone(), stat: *stat, data }));
        true
    }
}

/// The task of a cache.
struct Keeper {
    client: Client,
    path: Path,
    scope: WatchScope,
    cached: Arc<Mutex<Cached>>,
    moved: watch::Sender<Zxid>,
}

/// The zxid of an answer that came on the present connection.
type Probe = Pin<Box<dyn Future<Output = Zxid> + Send>>;

impl Keeper {
    async fn run(self, mut watch: Watch, mut events: broadcast::Receiver<SessionEvent>) {
        let mut probe: Option<Probe> = None;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(SessionEvent::Connected { .. } | SessionEvent::Resumed { .. }) => probe = Some(self.probe()),
                    Ok(_) => {
                        lock(&self.cached).stale = true;
                        probe = None;
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        lock(&self.cached).stale = true;
                        probe = Some(self.probe());
                    }
                    // The client is closed, and the watch says so.
                    Err(broadcast::error::RecvError::Closed) => return self.end(None),
                },
                event = watch.next() => match event {
                    Some(Ok(event)) => {
                        if !self.take(event) {
                            match self.begin_again().await {
                                Ok(again) => watch = again,
                                Err(error) => return self.end(Some(error)),
                            }
                        }
                    }
                    Some(Err(error)) => return self.end(Some(error)),
                    None => return self.end(None),
                },
                zxid = answered(&mut probe) => {
                    probe = match self.caught_up(&mut watch, zxid).await {
                        Ok(true) => None,
                        Ok(false) => Some(self.probe()),
                        Err(error) => return self.end(Some(error)),
                    };
                }
            }
        }
    }

    /// Takes an event in, see [`Cached::apply`].
    fn take(&self, event: WatchEvent) -> bool {
        let (enough, as_of) = {
            let mut cached = lock(&self.cached);
            (cached.apply(event), cached.as_of)
        };
        self.moved.send_replace(as_of);
        enough
    }

    /// An answer at `zxid` came behind all events up to there. Takes those that have come in, and says whether that was all.
    async fn caught_up(&self, watch: &mut Watch, zxid: Zxid) -> Result<bool, ClientError> {
        while let Poll::Ready(Some(event)) = poll_fn(|cx| Poll::Ready(watch.poll_event(cx))).await {
            if !self.take(event?) {
                *watch = self.begin_again().await?;
                return Ok(false);
            }
        }
        // More waits at the node.
        if watch.is_parked() {
            return Ok(false);
        }
        let as_of = {
            let mut cached = lock(&self.cached);
            cached.stale = false;
            cached.as_of = cached.as_of.max(zxid);
            cached.as_of
        };
        self.moved.send_replace(as_of);
        Ok(true)
    }

    /// Any read on the session: it is asked behind the watch.
    fn probe(&self) -> Probe {
        let (client, path) = (self.client.clone(), self.path.clone());
        Box::pin(async move {
            loop {
                let read = client.read(Read::Exists { path: path.clone() }).await;
                if let (Some(zxid), Ok(_)) = read.with_zxid().await {
                    return zxid;
                }
                sleep(PAUSE).await;
            }
        })
    }

    /// Another watch, with a new state.
    async fn begin_again(&self) -> Result<Watch, ClientError> {
        begin(&self.client, &self.path, self.scope).await
    }

    fn end(self, error: Option<ClientError>) {
        let mut cached = lock(&self.cached);
        cached.stale = true;
        let closed = || api::OpError::Unavailable("the client is closed".to_owned()).into();
        cached.error = Some(error.unwrap_or_else(closed));
    }
}

async fn begin(client: &Client, path: &Path, scope: WatchScope) -> Result<Watch, ClientError> {
    let watch = client.watch(path.as_str()).with_state().values();
    let watch = match scope {
        WatchScope::Node => watch,
        WatchScope::Children => watch.children(),
        WatchScope::Tree => watch.tree(),
    };
    let kinds = [ChangeKind::Created, ChangeKind::Deleted, ChangeKind::DataChanged, ChangeKind::AclChanged];
    watch.kinds(kinds).await
}

/// For ever, without one.
async fn answered(probe: &mut Option<Probe>) -> Zxid {
    match probe {
        Some(probe) => probe.await,
        None => std::future::pending().await,
    }
}

/// No code under this lock panics half way.
fn lock(cached: &Mutex<Cached>) -> MutexGuard<'_, Cached> {
    cached.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two probes that fail.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use api::Stat;

    use super::*;

    fn znode(path: &str, value: &'static str) -> WatchedZnode {
        let stat = Stat { czxid: Zxid(1), ..Stat::default() };
        WatchedZnode { path: Path::new(path).unwrap(), stat, data: Some(value.into()) }
    }

    fn change(kind: ChangeKind, path: &str, value: Option<&'static str>) -> Arc<Change> {
        let stat = Stat { czxid: Zxid(1), aversion: 7, ..Stat::default() };
        Arc::new(Change {
            kind,
            path: Path::new(path).unwrap(),
            stat,
            data: value.map(Into::into),
            acl: Default::default(),
            above: Default::default(),
        })
    }

    fn values(cached: &Cached) -> Vec<(&str, Option<&[u8]>)> {
        cached.znodes.values().map(|znode| (znode.path.as_str(), znode.data.as_deref())).collect()
    }

    #[test]
    fn a_state_replaces_all_and_changes_follow_it() {
        let mut cached = Cached::default();
        let znodes = vec![znode("/a", "1"), znode("/a/b", "2")];
        assert!(cached.apply(WatchEvent::State { zxid: Zxid(5), znodes }));
        let changes = vec![
            change(ChangeKind::DataChanged, "/a", Some("3")),
            change(ChangeKind::Deleted, "/a/b", None),
            change(ChangeKind::Created, "/a/c", Some("4")),
            change(ChangeKind::AclChanged, "/a/c", None),
        ];
        assert!(cached.apply(WatchEvent::Changes { zxid: Zxid(6), changes }));
        assert_eq!(values(&cached), [("/a", Some(&b"3"[..])), ("/a/c", Some(b"4"))]);
        assert_eq!((cached.as_of, cached.znodes["/a/c"].stat.aversion), (Zxid(6), 7));
        assert!(cached.apply(WatchEvent::State { zxid: Zxid(9), znodes: vec![znode("/a", "5")] }));
        assert_eq!(values(&cached), [("/a", Some(&b"5"[..]))]);
        let unknown = vec![change(ChangeKind::Touched, "/a", None), change(ChangeKind::Deleted, "/a", None)];
        assert!(!cached.apply(WatchEvent::Changes { zxid: Zxid(10), changes: unknown }));
        assert_eq!(values(&cached), []);
    }

    #[test]
    fn a_cache_of_children_has_no_parent() {
        let mut cached = Cached { children_of: Some(Path::new("/a").unwrap()), ..Cached::default() };
        let znodes = vec![znode("/a", "1"), znode("/a/b", "2")];
        cached.apply(WatchEvent::State { zxid: Zxid(5), znodes });
        assert_eq!(values(&cached), [("/a/b", Some(&b"2"[..]))]);
        let changes =
            vec![change(ChangeKind::Deleted, "/a/b", None), change(ChangeKind::Deleted, "/a", None)];
        assert!(cached.apply(WatchEvent::Changes { zxid: Zxid(6), changes }));
        assert_eq!(values(&cached), []);
    }
}

//! Watches as streams.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use api::{
    Path, Zxid,
    watch::{Change, ChangeKind, ChangeKinds, StateRule, WatchScope, WatchSpec, WatchedZnode},
};
use client_core::{Failure, WatchNews};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::Stream;

use crate::{
    Client, ClientError,
    driver::Command,
    listeners::{Listener, Shared, weight},
};

/// The events of a [`Watch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// The state behind an entry: what the watch begins with if [`WatchBuilder::with_state`] asks for it, and begins again with where the
    /// nodes do not know any more what happened in between. A cache takes it in the place of all that it has.
    State {
        /// The entry.
        zxid: Zxid,
        /// Parents before their children. A watch of children has the parent first.
        znodes: Vec<WatchedZnode>,
    },
    /// What one entry of the log changed, as far as the watch sees it: never a part of a multi.
    Changes {
        /// The entry. Each comes once, and in ascending order.
        zxid: Zxid,
        /// In the order in which they happened.
        changes: Vec<Arc<Change>>,
    },
}

impl WatchEvent {
    /// The entry up to which the watch knows everything.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        match self {
            WatchEvent::State { zxid, .. } | WatchEvent::Changes { zxid, .. } => *zxid,
        }
    }
}

/// A watch that is about to begin: see [`Client::watch`].
#[must_use = "a watch begins when this is awaited"]
#[derive(Debug)]
pub struct WatchBuilder<'a> {
    client: &'a Client,
    path: String,
    scope: WatchScope,
    once: bool,
    kinds: ChangeKinds,
    with_data: bool,
    from: Option<Zxid>,
    state: StateRule,
}

impl<'a> WatchBuilder<'a> {
    pub(crate) fn new(client: &'a Client, path: &str) -> WatchBuilder<'a> {
        WatchBuilder {
            client,
            path: path.to_owned(),
            scope: WatchScope::Node,
            once: false,
            kinds: ChangeKinds::default(),
            with_data: false,
            from: None,
            state: StateRule::Never,
        }
    }

    /// Watches the children of the znode, and its own end.
    pub fn children(mut self) -> Self {
        self.scope = WatchScope::Children;
        self
    }

    /// Watches the znode and all below it.
    pub fn tree(mut self) -> Self {
        self.scope = WatchScope::Tree;
        self
    }

    /// Ends with the first change.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Sees only changes of these kinds. The default are creations, ends and new values; of children not their values.
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = ChangeKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Values come with the changes and the state.
    pub fn values(mut self) -> Self {
        self.with_data = true;
        self
    }

    /// The present state comes first, and then all that happens behind it, without a gap between the two. With
    /// [`WatchBuilder::from`] it comes only if the nodes do not know any more what happened behind that entry.
    pub fn with_state(mut self) -> Self {
        self.state = StateRule::Always;
        self
    }

    /// Goes on behind this entry, for instance that of a read, or of the [last event](Watch::known) of another process.
    pub fn from(mut self, zxid: Zxid) -> Self {
        self.from = Some(zxid);
        self
    }

    async fn begin(self) -> Result<Watch, ClientError> {
        let state = match (self.state, self.from) {
            (StateRule::Always, Some(_)) => StateRule::IfGone,
            (state, _) => state,
        };
        let id = self.client.watch_id();
        let spec = WatchSpec {
            once: self.once,
            kinds: self.kinds,
            with_data: self.with_data,
            from: self.from,
            state,
            ..WatchSpec::new(id, Path::new(&self.path)?, self.scope)
        };
        // Bounded by `HELD_MAX` in `listeners`: with more than that the watch is parked, and the node keeps the rest.
        let (sender, news) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let (commands, limit) = self.client.watching();
        let listener = Listener { sender, shared: shared.clone() };
        let mut watch = Watch { id, news, shared, commands, first: None, known: self.from, over: false };
        if watch.commands.send(Command::Watch { spec, listener }).is_err() {
            watch.over = true;
        }
        let first = watch.news.recv();
        let first = match limit {
            Some(limit) => {
                timeout(limit, first).await.map_err(|_| Failure::TimedOut { fate: api::Fate::NotDone })?
            }
            None => first.await,
        };
        match first {
            Some(WatchNews::Stands { zxid }) => watch.known = watch.known.max(Some(zxid)),
            Some(news @ (WatchNews::State { .. } | WatchNews::Group { .. })) => watch.first = Some(news),
            Some(WatchNews::Ended(Some(error))) => return Err(Failure::Refused(error).into()),
            Some(WatchNews::Ended(None)) | None => {
                return Err(Failure::Closed { fate: api::Fate::NotDone }.into());
            }
        }
        Ok(watch)
    }
}

impl<'a> IntoFuture for WatchBuilder<'a> {
    type Output = Result<Watch, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

/// What happens to znodes, in the order of the log and each change once, whatever happens to connections, nodes and sessions. It is
/// made by [`Client::watch`], and ends when it is dropped.
///
/// A slow reader costs other clients nothing: a few megabytes wait here, and the rest with the nodes, as far as their history reaches.
/// If it does not reach back, a watch with [state](WatchBuilder::with_state) gets a new state, and any other one ends with
/// [`OpError::Gone`](crate::OpError).
///
/// It keeps its client alive.
#[derive(Debug)]
pub struct Watch {
    id: u32,
    news: mpsc::UnboundedReceiver<WatchNews>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    first: Option<WatchNews>,
    known: Option<Zxid>,
    over: bool,
}

impl Watch {
    /// The next event; `None` behind the last: the watch has fired once, or the client is closed.
    ///
    /// # Errors
    /// Why the watch has ended. Nothing comes behind it.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, ClientError>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Everything up to here was delivered: the zxid for [`WatchBuilder::from`]. `None` before the first event.
    #[must_use]
    pub fn known(&self) -> Option<Zxid> {
        self.known
    }

    /// Whether more events wait at the node, because too many waited here.
    pub(crate) fn is_parked(&self) -> bool {
        self.shared.is_parked()
    }

    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<WatchEvent, ClientError>>> {
        loop {
            let news = match self.first.take() {
                Some(news) => news,
                None if self.over => return Poll::Ready(None),
                None => match ready!(self.news.poll_recv(cx)) {
                    Some(news) => news,
                    None => {
                        self.over = true;
                        continue;
                    }
                },
            };
            if self.shared.taken(weight(&news)) {
                // Without the task nothing comes any more.
                let _ = self.commands.send(Command::Unpark { id: self.id });
            }
            let event = match news {
                WatchNews::Stands { .. } => continue,
                WatchNews::State { zxid, znodes } => WatchEvent::State { zxid, znodes },
                WatchNews::Group { zxid, changes } => WatchEvent::Changes { zxid, changes },
                WatchNews::Ended(error) => {
                    self.over = true;
                    return Poll::Ready(error.map(|error| Err(Failure::Refused(error).into())));
                }
            };
            self.known = self.known.max(Some(event.zxid()));
            return Poll::Ready(Some(Ok(event)));
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_event(cx)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without the task there is nothing to end.
        let _ = self.commands.send(Command::Unwatch { id: self.id });
    }
}

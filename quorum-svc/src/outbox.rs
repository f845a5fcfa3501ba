//! A queue with a writer that never waits: its items are small and merge.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// An item of an [`Outbox`].
pub(crate) trait Item: Sized {
    /// Merges `new` into the end of the queue, so that the queue does not grow; returns it if that is
    /// impossible.
    fn merge(queue: &mut VecDeque<Self>, new: Self) -> Option<Self>;
}

/// A queue with one writer and one reader. At `limit` items the queue closes: the reader is too slow
/// and has to start again.
pub(crate) struct Outbox<T>(Arc<Inner<T>>);

struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    closed: CancellationToken,
    limit: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    closed: bool,
}

impl<T> State<T> {
    fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Outbox<T> {
        Outbox(self.0.clone())
    }
}

impl<T: Item> Outbox<T> {
    pub(crate) fn new(limit: usize) -> Outbox<T> {
        let state = Mutex::new(State { queue: VecDeque::new(), closed: false });
        Outbox(Arc::new(Inner { state, wake: Notify::new(), closed: CancellationToken::new(), limit }))
    }

    /// Appends an item. Returns false if the queue is closed, or closes now because it is full.
    pub(crate) fn push(&self, item: T) -> bool {
        let mut state = self.state();
        if state.closed {
            return false;
        }
        if let Some(item) = T::merge(&mut state.queue, item) {
            if state.queue.len() >= self.0.limit {
                state.close();
                self.0.closed.cancel();
            } else {
                state.queue.push_back(item);
            }
        }
        let open = !state.closed;
        drop(state);
        self.0.wake.notify_one();
        open
    }

    /// Takes all items, at least one; waits for the first. Returns `None` once the queue is closed.
    pub(crate) async fn take(&self) -> Option<VecDeque<T>> {
        loop {
            {
                let mut state = self.state();
                if state.closed {
                    return None;
                }
                if !state.queue.is_empty() {
                    return Some(std::mem::take(&mut state.queue));
                }
            }
            self.0.wake.notified().await;
        }
    }

    /// Closes both ends and drops the remaining items.
    pub(crate) fn close(&self) {
        self.state().close();
        self.0.closed.cancel();
        self.0.wake.notify_one();
    }

    /// Resolves when the queue is closed.
    pub(crate) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    /// Whether the queue is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Number of items in the queue.
    pub(crate) fn len(&self) -> usize {
        self.state().queue.len()
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lanes that close when this value is dropped, and with them the streams that read from them.
pub(crate) struct Open<D: Item, C: Item>(pub(crate) Lanes<D, C>);

impl<D: Item, C: Item> Drop for Open<D, C> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Two queues to one peer: one for large messages, one for urgent messages that must not wait for them.
/// They close together.
#[derive(Clone)]
pub(crate) struct Lanes<D: Item, C: Item> {
    pub(crate) data: Outbox<D>,
    pub(crate) control: Outbox<C>,
}

impl<D: Item, C: Item> Lanes<D, C> {
    pub(crate) fn new(limit: usize) -> Lanes<D, C> {
        Lanes { data: Outbox::new(limit), control: Outbox::new(limit) }
    }

    pub(crate) fn close(&self) {
        self.data.close();
        self.control.close();
    }

    /// Resolves when either queue is closed.
    pub(crate) async fn closed(&self) {
        tokio::select! {
            () = self.data.closed() => {}
            () = self.control.closed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(PartialEq, Debug)]
    struct Sum(u32);

    impl Item for Sum {
        fn merge(queue: &mut VecDeque<Sum>, new: Sum) -> Option<Sum> {
            match queue.back_mut() {
                Some(last) if last.0 + new.0 < 10 => {
                    last.0 += new.0;
                    None
                }
                _ => Some(new),
            }
        }
    }

    #[tokio::test]
    async fn items_merge_and_a_full_queue_closes() {
        let outbox = Outbox::new(2);
        assert!(outbox.push(Sum(4)) && outbox.push(Sum(5)) && outbox.push(Sum(5)));
        assert_eq!(outbox.len(), 2);
        assert_eq!(outbox.take().await, Some(VecDeque::from([Sum(9), Sum(5)])));
        assert!(outbox.push(Sum(9)) && outbox.push(Sum(9)) && !outbox.push(Sum(9)));
        assert_eq!(outbox.take().await, None);
        assert!(!outbox.push(Sum(1)));
    }
}

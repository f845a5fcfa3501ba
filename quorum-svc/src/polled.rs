//! Streams that the transport polls directly: no task and no queue between an outbox and its connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;

/// Produces the messages of a stream. It is dropped with the stream when the connection ends.
pub(crate) trait Source: Send + Unpin + 'static {
    /// The items of the stream.
    type Message: Send;

    /// The next item; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Self::Message>> + Send;
}

/// The stream of a source.
pub(crate) struct Polled<S: Source> {
    /// The source, between two messages.
    idle: Option<S>,
    turn: Option<Turn<S>>,
}

/// Owns the source until its message is ready.
type Turn<S> = Pin<Box<dyn Future<Output = (S, Option<<S as Source>::Message>)> + Send>>;

impl<S: Source> Polled<S> {
    pub(crate) fn new(source: S) -> Polled<S> {
        Polled { idle: Some(source), turn: None }
    }
}

impl<S: Source> Stream for Polled<S> {
    type Item = S::Message;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Message>> {
        let this = self.get_mut();
        if let Some(mut source) = this.idle.take() {
            this.turn = Some(Box::pin(async move {
                // A source that is always ready yields to other tasks.
                tokio::task::consume_budget().await;
                let message = source.next().await;
                (source, message)
            }));
        }
        let Some(turn) = &mut this.turn else { return Poll::Ready(None) };
        let (source, message) = ready!(turn.as_mut().poll(cx));
        this.turn = None;
        this.idle = message.is_some().then_some(source);
        Poll::Ready(message)
    }
}

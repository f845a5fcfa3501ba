//! Streams that are polled where their messages are sent: no task and no queue stands between an outbox and its connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio_stream::Stream;

/// What makes the messages of a stream. It is dropped with the stream, when the connection is gone.
pub(crate) trait Source: Send + Unpin + 'static {
    /// Of which the stream consists.
    type Message: Send;

    /// The next one; `None` behind the last.
    fn next(&mut self) -> impl Future<Output = Option<Self::Message>> + Send;
}

/// The stream of a source.
pub(crate) struct Polled<S: Source> {
    /// Between two messages.
    idle: Option<S>,
    turn: Option<Turn<S>>,
}

/// Has the source until the message is there.
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
                // A source that always has more lets others have their turn.
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

//! The clients' beliefs about their sessions, compared with the log: until a client has got the report that
//! its session may be gone, the log must not have expired it (C11).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use api::{CommandBody, SessionId};
use client_sdk::{Client, SessionEvent};
use history::Committed;
use tokio::sync::broadcast::error::RecvError;

/// A time in which a client took its session for alive, in milliseconds since 1970, by the clock that the nodes use, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Belief {
    session: SessionId,
    /// `None`: it still does.
    until: Option<i64>,
}

/// Of all clients of a run.
#[derive(Clone, Default)]
pub(crate) struct Beliefs(Arc<Mutex<Vec<Belief>>>);

impl Beliefs {
    /// Records the session events of this client until it ends.
    pub(crate) fn watch(&self, client: &Client) -> impl Future<Output = ()> + Send + use<> {
        let (beliefs, mut events) = (self.clone(), client.events());
        let mut session = client.session();
        session.into_iter().for_each(|session| beliefs.begin(session));
        async move {
            loop {
                match events.recv().await {
                    Ok(SessionEvent::Connected { session: new, .. }) => {
                        session = Some(new);
                        beliefs.begin(new);
                    }
                    Ok(SessionEvent::Resumed { .. }) => session.into_iter().for_each(|s| beliefs.begin(s)),
                    Ok(SessionEvent::Suspended | SessionEvent::SessionLost { .. })
                    | Err(RecvError::Lagged(_)) => {
                        session.into_iter().for_each(|s| beliefs.end(s));
                    }
                    Ok(SessionEvent::Disconnected { .. }) => {}
                    Err(RecvError::Closed) => return session.into_iter().for_each(|s| beliefs.end(s)),
                }
            }
        }
    }

    /// All clients are about to end: no belief counts any more.
    pub(crate) fn end_all(&self) {
        let now = now_ms();
        for belief in self.lock().iter_mut() {
            belief.until.get_or_insert(now);
        }
    }

    fn begin(&self, session: SessionId) {
        self.end(session);
        self.lock().push(Belief { session, until: None });
    }

    fn end(&self, session: SessionId) {
        let now = now_ms();
        let mut beliefs = self.lock();
        let open = beliefs.iter_mut().filter(|belief| belief.session == session && belief.until.is_none());
        open.for_each(|belief| belief.until = Some(now));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Belief>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sessions that were expired in this log while their clients took them for alive, or before they did: a sentence for each.
    pub(crate) fn check(&self, log: &[Committed]) -> Vec<String> {
        let beliefs = self.lock();
        let expired = log.iter().filter_map(|entry| Some((expired(entry)?, entry)));
        let mut problems = Vec::new();
        for (session, entry) in expired {
            let wrong = beliefs.iter().filter(|belief| {
                belief.session == session && belief.until.is_none_or(|until| until > entry.time_ms + SLACK_MS)
            });
            problems.extend(wrong.map(|belief| {
                let late = belief.until.map(|until| format!("{} ms later", until - entry.time_ms));
                format!(
                    "C11: session {session} is expired by {}, and its client took it for alive until {}",
                    entry.zxid,
                    late.unwrap_or_else(|| "the end".into())
                )
            }));
        }
        problems
    }

    /// How many sessions this log expires that clients of ours had.
    pub(crate) fn expired_in(&self, log: &[Committed]) -> usize {
        let beliefs = self.lock();
        log.iter().filter_map(expired).filter(|s| beliefs.iter().any(|b| b.session == *s)).count()
    }
}

/// The session that this entry closes because of its silence.
fn expired(entry: &Committed) -> Option<SessionId> {
    match entry.command.as_ref()?.body {
        // In any other epoch it closes nothing.
        CommandBody::CloseSession { session, expired: Some(epoch) } if epoch == entry.zxid.epoch() => {
            Some(session)
        }
        _ => None,
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An entry is stamped when it is proposed, and takes effect when it is committed; and a client gets its
/// event late on a busy processor.
const SLACK_MS: i64 = 400;

#[cfg(test)]
mod tests {
    use api::{Command, Epoch, Zxid};

    use super::*;

    fn closes(time_ms: i64, expired: Option<Epoch>) -> Committed {
        let body = CommandBody::CloseSession { session: SessionId(7), expired };
        let command = Some(Command::outside(body));
        Committed { zxid: Zxid(1 << 32 | 9), time_ms, origin: None, level: None, command }
    }

    fn believed(until: Option<i64>) -> Beliefs {
        let of = |id, until| Belief { session: SessionId(id), until };
        Beliefs(Arc::new(Mutex::new(vec![of(7, Some(100)), of(8, None), of(7, until)])))
    }

    #[test]
    fn b13_a_session_that_is_expired_before_its_client_knows_is_found() {
        let found = |until, entry| believed(until).check(&[entry]).len();
        assert_eq!(found(Some(5_000), closes(5_000, Some(Epoch(1)))), 0, "told in time");
        assert_eq!(found(Some(5_500), closes(5_000, Some(Epoch(1)))), 1, "told too late");
        assert_eq!(found(None, closes(5_000, Some(Epoch(1)))), 1, "never told");
        assert_eq!(found(None, closes(5_000, None)), 0, "it asked for that itself");
        assert_eq!(found(None, closes(5_000, Some(Epoch(2)))), 0, "of a reign that was over");
        assert_eq!(believed(None).expired_in(&[closes(1, Some(Epoch(1))), closes(2, None)]), 1);
    }
}

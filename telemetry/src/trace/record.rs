//! Spans as data, from their end until they are pushed.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use api::Zxid;

use super::Scope;

/// A span that has ended.
#[derive(Debug)]
pub struct Record {
    /// Whose it is.
    pub scope: Scope,
    /// What it is of.
    pub name: &'static str,
    /// On which side of a call.
    pub kind: Kind,
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The span that it is a part of.
    pub parent: Option<[u8; 8]>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
    /// More about it.
    pub attributes: Vec<Attribute>,
    /// What happened during it, up to [`EVENTS_MAX`].
    pub events: Vec<Event>,
    /// How much more happened.
    pub dropped_events: u32,
    /// Why it did not do what it was for, in at most [`MESSAGE_MAX`] characters.
    pub error: Option<Cow<'static, str>>,
}

/// Most events of a span, as in the OpenTelemetry SDK.
pub const EVENTS_MAX: usize = 128;

/// Most characters of [`Record::error`].
pub const MESSAGE_MAX: usize = 256;

/// An error may name a path of 8 KiB, and many spans wait: not more of it is kept than is pushed.
pub(super) fn shortened(why: Cow<'static, str>) -> Cow<'static, str> {
    match why.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => why[..end].to_owned().into(),
        None => why,
    }
}

/// Something that is said of a span or an event.
pub type Attribute = (&'static str, Value);

/// Something that happened during a span.
#[derive(Debug)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// What.
    pub name: &'static str,
    /// More about it.
    pub attributes: Vec<Attribute>,
}

/// On which side of a call, or of a message, a span is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Within a process or an ensemble.
    Internal,
    /// A client's.
    Client,
    /// A server's.
    Server,
    /// Of whoever got a message that its sender need not see answered.
    Consumer,
}

/// The value of an [`Attribute`]. Made into text where it is pushed, not where it is noted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text.
    Text(Cow<'static, str>),
    /// As a text with its usual notation.
    Zxid(Zxid),
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Value {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

impl From<Zxid> for Value {
    fn from(zxid: Zxid) -> Value {
        Value::Zxid(zxid)
    }
}

/// Keeps the spans that have ended in this process until somebody takes them.
#[derive(Debug)]
pub struct Recorder {
    ended: Mutex<Vec<Record>>,
    capacity: usize,
    dropped: AtomicU64,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

impl Recorder {
    /// From now on spans of this process are kept, up to `capacity` of them; further ones are dropped and counted. The first
    /// call decides.
    pub fn install(capacity: usize) -> &'static Recorder {
        RECORDER.get_or_init(|| Recorder::new(capacity))
    }

    pub(super) fn installed() -> Option<&'static Recorder> {
        RECORDER.get()
    }

    fn new(capacity: usize) -> Recorder {
        Recorder { ended: Mutex::default(), capacity, dropped: AtomicU64::new(0) }
    }

    pub(super) fn keep(&self, record: Record) {
        // Nobody leaves the list half changed.
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() < self.capacity {
            ended.push(record);
        } else {
            drop(ended);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The spans that have ended since the last call, and how many more were dropped.
    pub fn take(&self) -> (Vec<Record>, u64) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // As large again, so that it does not grow from nothing under the lock.
        let room = Vec::with_capacity(ended.len());
        (std::mem::replace(&mut ended, room), self.dropped.swap(0, Ordering::Relaxed))
    }
}

/// Nanoseconds since 1970.
pub(crate) fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Numbers without a visible pattern, each but once: SplitMix64 (Steele, Lea, Flood 2014) behind a random beginning.
#[derive(Debug)]
pub(super) struct Numbers(AtomicU64);

impl Numbers {
    pub(super) fn new() -> Numbers {
        // Randomness of the standard library, which it uses for its hash tables.
        Numbers(AtomicU64::new(RandomState::new().hash_one(0)))
    }

    pub(super) fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            scope: Scope::Store,
            name: "x",
            kind: Kind::Internal,
            trace_id: [1; 16],
            span_id: [1; 8],
            parent: None,
            start: 1,
            end: 2,
            attributes: Vec::new(),
            events: Vec::new(),
            dropped_events: 0,
            error: None,
        }
    }

    #[test]
    fn of_a_long_error_only_the_beginning_is_kept() {
        let Cow::Owned(kept) = shortened("\u{e9}".repeat(8192).into()) else { panic!("a copy") };
        assert_eq!(kept, "\u{e9}".repeat(MESSAGE_MAX));
        assert!(kept.capacity() < 2 * kept.len());
        assert_eq!(shortened("short".into()), "short");
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let recorder = Recorder::new(2);
        (0..5).for_each(|_| recorder.keep(record()));
        let (kept, dropped) = recorder.take();
        assert_eq!((kept.len(), dropped), (2, 3));
        recorder.keep(record());
        let (kept, dropped) = recorder.take();
        assert_eq!((kept.len(), dropped), (1, 0));
    }
}

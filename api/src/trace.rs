//! Which trace something belongs to: the W3C trace context, as data.

use std::fmt;
use std::str::FromStr;

/// The place of a span in a trace, as in the header `traceparent` of the
/// [W3C recommendation](https://www.w3.org/TR/trace-context/). Neither id is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

/// What travels with a request: the span that it is part of, if it is traced. A null pointer for nearly all of them.
/// Inside an ensemble only sampled contexts travel.
pub type Trace = Option<Box<TraceContext>>;

/// A text that is no `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no traceparent; expected version, trace id, span id and flags as in 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)]
pub struct BadTraceparent;

impl TraceContext {
    /// `None` if an id is zero, which means none.
    #[must_use]
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> Option<TraceContext> {
        let valid = trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(TraceContext { trace_id, span_id, sampled })
    }

    /// Of the trace.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// Of the span, within its trace.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the trace is recorded. If not, no receiver begins a trace of its own either.
    #[must_use]
    pub fn sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceContext {
    /// As a `traceparent` of version 00.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

impl FromStr for TraceContext {
    type Err = BadTraceparent;

    /// Reads a `traceparent`. One of a later version may be longer, and what is behind the flags is not looked at, as the
    /// recommendation wants it.
    fn from_str(text: &str) -> Result<TraceContext, BadTraceparent> {
        let bytes = text.as_bytes();
        let version: [u8; 1] = hex(bytes, 0)?;
        let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
        let length = match (version, bytes.len()) {
            ([0xff], _) => false,
            ([0], length) => length == 55,
            (_, length) => length == 55 || (length > 55 && bytes.get(55) == Some(&b'-')),
        };
        if !dashes || !length {
            return Err(BadTraceparent);
        }
        let flags: [u8; 1] = hex(bytes, 53)?;
        TraceContext::new(hex(bytes, 3)?, hex(bytes, 36)?, flags[0] & SAMPLED != 0).ok_or(BadTraceparent)
    }
}

/// `N` bytes, each two lower-case digits, from `at` on.
fn hex<const N: usize>(text: &[u8], at: usize) -> Result<[u8; N], BadTraceparent> {
    let digits = text.get(at..at + 2 * N).ok_or(BadTraceparent)?;
    let digit = |d: u8| match d {
        b'0'..=b'9' => Ok(d - b'0'),
        b'a'..=b'f' => Ok(d - b'a' + 10),
        _ => Err(BadTraceparent),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

/// The one flag that there is.
const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_printed() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!((context.trace_id()[0], context.span_id()[7], context.sampled()), (0x0a, 0x31, true));
        assert_eq!(context.to_string(), GOOD);
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!unsampled.parse::<TraceContext>().unwrap().sampled());
        assert_eq!(unsampled.parse::<TraceContext>().unwrap().to_string(), unsampled);
    }

    #[test]
    fn later_versions_may_say_more_and_other_flags_are_not_looked_at() {
        let later = GOOD.replacen("00", "cc", 1);
        for text in
            [later.clone(), format!("{later}-what-the-future-will-be-like"), GOOD.replace("-01", "-ff")]
        {
            assert_eq!(text.parse::<TraceContext>().map(|c| c.to_string()), Ok(GOOD.to_owned()), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let later = GOOD.replacen("00", "cc", 1);
        let bad = [
            String::new(),
            "00".into(),
            GOOD[..54].into(),
            format!("{GOOD}-"),
            format!("{GOOD}-00"),
            format!("{later}0"),
            format!(" {GOOD}"),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace('-', "_"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("b7ad", "b7äd"),
            GOOD.replace("b7ad", "b7g0"),
        ];
        for text in bad {
            assert_eq!(text.parse::<TraceContext>(), Err(BadTraceparent), "{text}");
        }
    }
}

use bytes::Bytes;

use crate::Level;

/// What an entry of the log is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Of the store: opaque to quorum-svc.
    Store(Bytes),
    /// Opens an epoch, and says the level at which it begins.
    Marker(Level),
    /// From here on the ensemble is at this level.
    Level(Level),
}

/// No record that this version knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a record of kind {kind}, which Quorate {} does not know: run the version that wrote it, or a later one, on all nodes",
    env!("CARGO_PKG_VERSION")
)]
pub struct UnknownRecord {
    /// As it is numbered.
    pub kind: u16,
}

impl Body {
    /// The number of [`Body::Store`]. These numbers are on disks and on the wire, for ever; 3 is kept for changes of the
    /// members.
    pub const STORE: u16 = 1;
    const MARKER: u16 = 2;
    const LEVEL: u16 = 4;

    /// The number of its kind.
    #[must_use]
    pub fn kind(&self) -> u16 {
        match self {
            Body::Store(_) => Self::STORE,
            Body::Marker(_) => Self::MARKER,
            Body::Level(_) => Self::LEVEL,
        }
    }

    /// The rest of its record, after the head: the payload of the store, or the level as four bytes, little-endian.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match self {
            Body::Store(payload) => payload.clone(),
            Body::Marker(level) | Body::Level(level) => Bytes::copy_from_slice(&level.0.to_le_bytes()),
        }
    }

    /// From kind and payload.
    ///
    /// # Errors
    /// A kind that this version does not know, or a payload that none of this kind has.
    pub fn from_parts(kind: u16, payload: Bytes) -> Result<Body, UnknownRecord> {
        let level = |payload: &[u8]| {
            let number: Option<[u8; 4]> = payload.try_into().ok();
            number.and_then(|bytes| Level::known(u32::from_le_bytes(bytes))).ok_or(UnknownRecord { kind })
        };
        match kind {
            Self::STORE => Ok(Body::Store(payload)),
            Self::MARKER => Ok(Body::Marker(level(&payload)?)),
            Self::LEVEL => Ok(Body::Level(level(&payload)?)),
            _ => Err(UnknownRecord { kind }),
        }
    }

    /// The level that it says, if it says one.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match self {
            Body::Store(_) => None,
            Body::Marker(level) | Body::Level(level) => Some(*level),
        }
    }

    /// Bytes of [`Body::payload`].
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Body::Store(payload) => payload.len(),
            Body::Marker(_) | Body::Level(_) => 4,
        }
    }

    /// Whether the payload has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Old logs are read for ever: a number that has once meant a kind never means another.
    #[test]
    fn kinds_have_these_numbers_and_all_others_are_refused_by_name() {
        let bodies =
            [Body::Store(Bytes::from_static(b"x")), Body::Marker(Level(7)), Body::Level(Level(0x0102))];
        let parts: Vec<(u16, Vec<u8>)> = bodies.iter().map(|b| (b.kind(), b.payload().to_vec())).collect();
        assert_eq!(parts, [(1, vec![b'x']), (2, vec![7, 0, 0, 0]), (4, vec![2, 1, 0, 0])]);
        for body in bodies {
            assert_eq!(body.len(), body.payload().len());
            assert_eq!(Body::from_parts(body.kind(), body.payload()), Ok(body));
        }
        for kind in (0..=u16::MAX).filter(|kind| ![1, 2, 4].contains(kind)) {
            let refused = Body::from_parts(kind, Bytes::from_static(&[1, 0, 0, 0])).unwrap_err();
            assert_eq!(refused, UnknownRecord { kind });
        }
        for (kind, payload) in [(2, &[][..]), (2, &[0, 0, 0, 0]), (4, &[1, 0, 0]), (4, &[1, 0, 0, 0, 0])] {
            assert!(Body::from_parts(kind, Bytes::copy_from_slice(payload)).is_err());
        }
        let text = UnknownRecord { kind: 3 }.to_string();
        assert!(text.contains("kind 3") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    }
}

use std::sync::Arc;

use bytes::Bytes;

use crate::{Level, Roster};

/// What an entry of the log is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Body {
    /// Of the store: opaque to quorum-svc.
    Store(Bytes),
    /// Opens an epoch, and says the level at which it begins.
    Marker(Level),
    /// From here on the ensemble is at this level.
    Level(Level),
    /// From here on the ensemble has these members.
    Members(Arc<Roster>),
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
    /// The number of [`Body::Store`]. These numbers are on disks and on the wire, for ever.
    pub const STORE: u16 = 1;
    const MARKER: u16 = 2;
    const MEMBERS: u16 = 3;
    const LEVEL: u16 = 4;

    /// The number of its kind.
    #[must_use]
    pub fn kind(&self) -> u16 {
        match self {
            Body::Store(_) => Self::STORE,
            Body::Marker(_) => Self::MARKER,
            Body::Level(_) => Self::LEVEL,
            Body::Members(_) => Self::MEMBERS,
        }
    }

    /// The rest of its record, after the head: the payload of the store, the level as four bytes, little-endian, or
    /// [`Roster::encode`].
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match self {
            Body::Store(payload) => payload.clone(),
            Body::Marker(level) | Body::Level(level) => Bytes::copy_from_slice(&level.0.to_le_bytes()),
            Body::Members(roster) => roster.encode().into(),
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
            Self::MEMBERS => match Roster::decode(&payload) {
                Ok(roster) => Ok(Body::Members(Arc::new(roster))),
                Err(_) => Err(UnknownRecord { kind }),
            },
            _ => Err(UnknownRecord { kind }),
        }
    }

    /// The level that it says, if it says one.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match self {
            Body::Store(_) | Body::Members(_) => None,
            Body::Marker(level) | Body::Level(level) => Some(*level),
        }
    }

    /// The members that it says, if it says any.
    #[must_use]
    pub fn roster(&self) -> Option<&Arc<Roster>> {
        if let Body::Members(roster) = self { Some(roster) } else { None }
    }

    /// Bytes of [`Body::payload`].
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Body::Store(payload) => payload.len(),
            Body::Marker(_) | Body::Level(_) => 4,
            Body::Members(roster) => roster.encode().len(),
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
        let roster = Roster::initial(crate::Ensemble::of_voters([2]).unwrap());
        let bodies = [
            Body::Store(Bytes::from_static(b"x")),
            Body::Marker(Level(7)),
            Body::Level(Level(0x0102)),
            Body::Members(Arc::new(roster)),
        ];
        let parts: Vec<(u16, Vec<u8>)> = bodies.iter().map(|b| (b.kind(), b.payload().to_vec())).collect();
        let mut members = vec![0; 39];
        // One member, id 2, a voter of weight 1.
        (members[21], members[25], members[29], members[30]) = (1, 2, 1, 1);
        let expected = [(1, vec![b'x']), (2, vec![7, 0, 0, 0]), (4, vec![2, 1, 0, 0]), (3, members)];
        assert_eq!(parts, expected);
        for body in bodies {
            assert_eq!(body.len(), body.payload().len());
            assert_eq!(Body::from_parts(body.kind(), body.payload()), Ok(body));
        }
        for kind in (0..=u16::MAX).filter(|kind| ![1, 2, 3, 4].contains(kind)) {
            let refused = Body::from_parts(kind, Bytes::from_static(&[1, 0, 0, 0])).unwrap_err();
            assert_eq!(refused, UnknownRecord { kind });
        }
        for (kind, payload) in [
            (3, &[][..]),
            (3, &[0; 38]),
            (2, &[][..]),
            (2, &[0, 0, 0, 0]),
            (4, &[1, 0, 0]),
            (4, &[1, 0, 0, 0, 0]),
        ] {
            assert!(Body::from_parts(kind, Bytes::copy_from_slice(payload)).is_err());
        }
        let text = UnknownRecord { kind: 5 }.to_string();
        assert!(text.contains("kind 5") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    }
}

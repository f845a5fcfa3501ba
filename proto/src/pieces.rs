//! Large messages between servers, in pieces: so the other side sees that a slow connection gets on, and a message is never
//! larger than what is read at once.

use bytes::{Bytes, BytesMut};
use prost::Message;

use crate::{Malformed, PEER_MESSAGE_MAX, peer};

/// Bytes of a piece; a message of up to twice as much goes whole.
pub const PIECE: usize = 256 << 10;

/// A message that can be sent in pieces.
pub trait InPieces: Message + Default {
    /// A piece of a message; `last` completes it.
    fn piece(bytes: Bytes, last: bool) -> Self;

    /// Takes a message that is a piece apart; `Err` with any other.
    ///
    /// # Errors
    /// It is no piece.
    fn into_piece(self) -> Result<(Bytes, bool), Self>;
}

macro_rules! in_pieces {
    ($message:ident, $module:ident) => {
        impl InPieces for peer::$message {
            fn piece(bytes: Bytes, last: bool) -> Self {
                use peer::$module::Kind;
                Self { kind: Some(if last { Kind::LastPiece(bytes) } else { Kind::Piece(bytes) }) }
            }

            fn into_piece(self) -> Result<(Bytes, bool), Self> {
                use peer::$module::Kind;
                match self.kind {
                    Some(Kind::Piece(bytes)) => Ok((bytes, false)),
                    Some(Kind::LastPiece(bytes)) => Ok((bytes, true)),
                    kind => Err(Self { kind }),
                }
            }
        }
    };
}

in_pieces!(LeaderMessage, leader_message);
in_pieces!(LearnerMessage, learner_message);

/// The messages to send for this one: itself, or its pieces.
pub fn pieces<M: InPieces>(message: M) -> impl Iterator<Item = M> {
    let (mut whole, mut rest) = match message.encoded_len() > 2 * PIECE {
        true => (None, Bytes::from(message.encode_to_vec())),
        false => (Some(message), Bytes::new()),
    };
    std::iter::from_fn(move || {
        if let Some(message) = whole.take() {
            return Some(message);
        }
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then(|| M::piece(piece, rest.is_empty()))
    })
}

/// Puts messages together again.
#[derive(Default, Debug)]
pub struct Assembly {
    bytes: BytesMut,
}

impl Assembly {
    /// Takes the next message off the wire; `None` if it is a piece and more are to come.
    ///
    /// # Errors
    /// The pieces are no message, or become larger than any may be.
    pub fn take<M: InPieces>(&mut self, message: M) -> Result<Option<M>, Malformed> {
        let (piece, last) = match message.into_piece() {
            Ok(piece) => piece,
            Err(whole) if self.bytes.is_empty() => return Ok(Some(whole)),
            Err(_) => return Err(Malformed("a message between the pieces of another".into())),
        };
        if self.bytes.len() + piece.len() > PEER_MESSAGE_MAX {
            return Err(Malformed("the pieces of a message are more than any message may have".into()));
        }
        self.bytes.extend_from_slice(&piece);
        if !last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.bytes).freeze();
        M::decode(whole).map(Some).map_err(|e| Malformed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{LearnerMessage, learner_message::Kind};

    fn report(len: usize) -> LearnerMessage {
        LearnerMessage { kind: Some(Kind::Report(vec![7; len].into())) }
    }

    #[test]
    fn b16_large_messages_are_sent_in_pieces_and_come_back_as_they_were() {
        for (len, count) in [(0, 1), (PIECE, 1), (2 * PIECE - 8, 1), (2 * PIECE, 3), (8 * PIECE, 9)] {
            let mut assembly = Assembly::default();
            let sent: Vec<LearnerMessage> = pieces(report(len)).collect();
            assert_eq!(sent.len(), count, "{len}");
            let mut whole = Vec::new();
            for message in sent {
                assert!(message.encoded_len() < 2 * PIECE + 16);
                whole.extend(assembly.take(message).unwrap());
            }
            assert_eq!(whole, [report(len)]);
        }
    }

    #[test]
    fn pieces_that_are_no_message_are_refused() {
        let piece = |len, last| LearnerMessage::piece(vec![7; len].into(), last);
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(piece(5, false)), Ok(None));
        assert!(assembly.take(report(1)).is_err(), "a message in between");
        assert!(Assembly::default().take(piece(5, true)).is_err(), "no message");
        let mut assembly = Assembly::default();
        let taken = (0..=PEER_MESSAGE_MAX / PIECE).map(|_| assembly.take(piece(PIECE, false)));
        assert!(taken.last().is_some_and(|r| r.is_err()), "too many");
    }
}

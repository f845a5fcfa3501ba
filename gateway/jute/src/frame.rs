//! Frames: a length of four bytes, and that many bytes.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// ZooKeeper's `jute.maxbuffer` by default: no longer frame is taken.
pub const FRAME_MAX: usize = 0xf_ffff;

/// A frame has a length that is negative or above the limit: there is no use in reading on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of {length} bytes, with a limit of {limit}")]
pub struct FrameError {
    /// What the other side said.
    pub length: i32,
    /// In bytes.
    pub limit: usize,
}

/// What a connection has received and is not taken yet.
#[derive(Debug)]
pub struct Frames {
    received: BytesMut,
    limit: usize,
}

impl Frames {
    /// Takes frames of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Frames {
        Frames { received: BytesMut::new(), limit }
    }

    /// From now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Where to put what is received.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.received
    }

    /// The bytes that are not taken yet.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.received
    }

    /// Gives memory back, if nothing has been received beyond the last frame.
    pub fn release(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    /// The length of the next frame, if it has begun.
    ///
    /// # Errors
    /// If it is none that is taken.
    pub fn expected(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.received.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        match usize::try_from(length) {
            Ok(length) if length <= self.limit => Ok(Some(length)),
            _ => Err(FrameError { length, limit: self.limit }),
        }
    }

    /// The next frame that is there as a whole, without its length.
    ///
    /// # Errors
    /// If its length is none that is taken.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        match self.expected()? {
            Some(length) if self.received.len() >= 4 + length => {
                self.received.advance(4);
                Ok(Some(self.received.split_to(length).freeze()))
            }
            _ => Ok(None),
        }
    }
}

/// Puts a frame behind what is there, with what `fill` writes.
pub fn frame(to: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let start = to.len();
    to.put_i32(0);
    fill(to);
    let length = i32::try_from(to.len() - start - 4).unwrap_or(i32::MAX);
    if let Some(place) = to.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_in_pieces() {
        let mut sent = BytesMut::new();
        frame(&mut sent, |to| to.extend_from_slice(b"one"));
        frame(&mut sent, |_| {});
        frame(&mut sent, |to| to.extend_from_slice(b"three"));
        let mut frames = Frames::new(5);
        let mut taken = Vec::new();
        for byte in &sent {
            frames.buffer().put_u8(*byte);
            while let Some(frame) = frames.next_frame().unwrap() {
                taken.push(frame);
            }
        }
        assert_eq!(taken, [&b"one"[..], b"", b"three"]);
        assert!(frames.rest().is_empty());
    }

    #[test]
    fn a_length_that_is_not_taken_is_refused_before_its_bytes_come() {
        for (length, taken) in [(5, true), (6, false), (-1, false), (i32::MIN, false)] {
            let mut frames = Frames::new(5);
            frames.buffer().put_i32(length);
            assert_eq!(frames.next_frame().is_ok(), taken, "{length}");
        }
    }
}

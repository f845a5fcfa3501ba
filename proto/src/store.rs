//! What store-svc keeps: the payloads of the log and the records of checkpoints and snapshots (`quorate.state.v1`).
//!
//! Written by one version and read by later ones, for ever. Decoding checks everything, because a disk or a peer may
//! have changed a byte.

mod command;
mod parts;
mod record;
#[cfg(test)]
mod tests;

use api::{Command, record::Record};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::{Malformed, state as wire};

/// The payload of a log entry.
#[must_use]
pub fn encode_command(command: Command) -> Bytes {
    wire::Command::from(command).encode_to_vec().into()
}

/// Reads the payload of a log entry; values stay pieces of `payload`.
///
/// # Errors
/// If these are not the bytes of a command that this version knows.
pub fn decode_command(payload: Bytes) -> Result<Command, Malformed> {
    strictly::<wire::Command>(payload)?.try_into()
}

/// A record by itself.
#[must_use]
pub fn encode_record(record: Record) -> Vec<u8> {
    wire::Record::from(record).encode_to_vec()
}

/// Reads a record by itself.
///
/// # Errors
/// If these are not the bytes of a record that this version knows.
pub fn decode_record(bytes: Bytes) -> Result<Record, Malformed> {
    strictly::<wire::Record>(bytes)?.try_into()
}

/// Appends an encoded record to a stream of them, as a snapshot is: each with its length before it.
pub fn append_record(stream: &mut BytesMut, record: &[u8]) {
    // The framing of `prost::Message::encode_length_delimited`.
    prost::encoding::encode_varint(record.len() as u64, stream);
    stream.extend_from_slice(record);
}

/// Reads such a stream, which may be cut into pieces anywhere.
#[derive(Default, Debug)]
pub struct RecordDecoder {
    /// What came and is not read yet.
    rest: BytesMut,
}

impl RecordDecoder {
    /// Adds the next piece. Read all that is [there](RecordDecoder::next_record) before the next one.
    pub fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next record, `None` if it is not all there yet.
    ///
    /// # Errors
    /// If the bytes are no record; the records after them cannot be found then.
    pub fn next_record(&mut self) -> Result<Option<Record>, Malformed> {
        let Some((length, framing)) = length(&self.rest)? else { return Ok(None) };
        if self.rest.len() < framing + length {
            return Ok(None);
        }
        let _ = self.rest.split_to(framing);
        decode_record(self.rest.split_to(length).freeze()).map(Some)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// If it ends within a record.
    pub fn finish(self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            n => Err(Malformed(format!("the last record is cut off, after {n} bytes"))),
        }
    }
}

/// The length that stands first in `bytes` and how many bytes it takes up; `None` if it is not all there.
fn length(mut bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    const VARINT_MAX: usize = 10;
    let before = bytes.len();
    if before < VARINT_MAX && bytes.iter().all(|b| b & 0x80 != 0) {
        return Ok(None);
    }
    let length = prost::encoding::decode_varint(&mut bytes).map_err(malformed)?;
    match usize::try_from(length) {
        Ok(length) if length <= RECORD_MAX => Ok(Some((length, before - bytes.len()))),
        _ => Err(Malformed(format!("a record of {length} bytes, more than the {RECORD_MAX} possible"))),
    }
}

/// No record is larger: znodes and kept results are made by one entry each, and entries have limits far below.
const RECORD_MAX: usize = 256 << 20;

/// Of the records. Raised whenever a state that one version has written means something else to another.
const FORMAT: u32 = 4;

/// Decodes a message in which this version knows everything. What `prost` does not know it leaves out: then the message that it
/// gives is shorter than what it was given.
fn strictly<M: prost::Message + Default>(bytes: Bytes) -> Result<M, Malformed> {
    let length = bytes.len();
    let message = M::decode(bytes).map_err(malformed)?;
    if message.encoded_len() == length { Ok(message) } else { Err(unknown()) }
}

/// Another version of the program has written it.
fn unknown() -> Malformed {
    Malformed(format!(
        "something in it is not known to this version of Quorate, {}: run the version that wrote it, or a later one, on \
         all nodes",
        env!("CARGO_PKG_VERSION")
    ))
}

fn malformed(e: prost::DecodeError) -> Malformed {
    Malformed(e.to_string())
}

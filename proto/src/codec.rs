//! How messages are decoded: as prost does, but not before their parts are counted.
//!
//! Two bytes on the wire can be a request that has a hundred in memory. The number of parts of a message is bounded, and found
//! out without decoding it.

use std::{any::TypeId, marker::PhantomData};

use api::OpError;
use bytes::{Buf as _, Bytes};
use prost::Message;
use tonic::{
    Status,
    codec::{
        BufferSettings, Codec as TonicCodec, DecodeBuf, Decoder as TonicDecoder, EncodeBuf,
        Encoder as TonicEncoder,
    },
};
use tonic_prost::ProstCodec;

use crate::{client::to_status, v1};

/// Most repeated parts, such as requests and parts of multis, in one message of a client.
pub const PARTS_MAX: usize = 16_384;

/// Put into the generated code by `build.rs`.
#[derive(Clone, Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Codec<T, U> {
        Codec(PhantomData)
    }
}

impl<T, U> TonicCodec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Encoder<T>;
    type Decoder = Decoder<<ProstCodec<T, U> as TonicCodec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
    }
}

/// As prost's. A buffer that grows by itself takes up to twice as much as the message.
#[derive(Clone, Debug)]
pub struct Encoder<T>(PhantomData<T>);

impl<T: Message> TonicEncoder for Encoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(message.encoded_len());
        message.encode(buf).map_err(|e| Status::internal(e.to_string()))
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Decoder<D>(D);

impl<D> TonicDecoder for Decoder<D>
where
    D: TonicDecoder<Error = Status>,
    D::Item: 'static,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<D::Item>, Status> {
        // The whole message is in one piece.
        check_parts::<D::Item>(buf.chunk())?;
        self.0.decode(buf)
    }
}

/// The message in `bytes`.
///
/// # Errors
/// Its parts are too many, or it is no message of this kind.
pub(crate) fn decode<M: Message + Default + 'static>(bytes: Bytes) -> Result<M, Status> {
    check_parts::<M>(&bytes)?;
    M::decode(bytes).map_err(|e| Status::internal(e.to_string()))
}

fn check_parts<M: 'static>(message: &[u8]) -> Result<(), Status> {
    let mut left = PARTS_MAX;
    if shape_of::<M>().is_none_or(|shape| fits(message, shape, &mut left)) {
        return Ok(());
    }
    Err(to_status(&OpError::BadArguments(format!(
        "a message of more than {PARTS_MAX} requests, parts of multis and other repeated fields; send several messages"
    ))))
}

/// A field of a message that repeats, or that is a message.
struct Field {
    number: u64,
    repeated: Repeated,
    /// In [`SHAPES`]: what it is.
    within: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeated {
    No,
    /// Each of its occurrences is a part.
    Whole,
    /// Numbers, of which one occurrence has many.
    Packed,
}

// Made by `build.rs` from the schemas: the fields of all messages of `quorate.v1`, and which of them a client sends.
include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// Takes the repeated parts of a message off `left`; false if there are more. What is malformed is left to the decoder.
fn fits(mut message: &[u8], shape: &[Field], left: &mut usize) -> bool {
    while let Some(key) = varint(&mut message) {
        let number = key >> 3;
        let length = match key & 7 {
            0 if varint(&mut message).is_some() => 0,
            1 => 8,
            5 => 4,
            2 => match varint(&mut message).map(usize::try_from) {
                Some(Ok(length)) => length,
                _ => return true,
            },
            _ => return true,
        };
        let Some(part) = message.split_off(..length) else { return true };
        let Some(field) = shape.iter().find(|field| field.number == number) else { continue };
        let parts = match field.repeated {
            Repeated::No => 0,
            Repeated::Packed if key & 7 == 2 => part.iter().filter(|byte| **byte < 0x80).count(),
            Repeated::Whole | Repeated::Packed => 1,
        };
        match left.checked_sub(parts) {
            Some(rest) => *left = rest,
            None => return false,
        }
        let within = field.within.filter(|_| key & 7 == 2).and_then(|index| SHAPES.get(index));
        if within.is_some_and(|shape| !fits(part, shape, left)) {
            return false;
        }
    }
    true
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count<M: Message + 'static>(message: &M) -> usize {
        let mut left = PARTS_MAX;
        assert!(fits(&message.encode_to_vec(), shape_of::<M>().unwrap(), &mut left));
        PARTS_MAX - left
    }

    #[test]
    fn b07_the_parts_of_a_message_are_counted_before_it_is_decoded() {
        let part = v1::MultiOp { op: Some(v1::multi_op::Op::Check(v1::CheckRequest::default())) };
        let multi = v1::MultiRequest { ops: vec![part; 7] };
        assert_eq!(count(&multi), 7);
        let op = Some(v1::request::Op::Multi(multi));
        let request =
            v1::Request { xid: u64::MAX, write_number: 3, op, traceparent: "x".into(), ..Default::default() };
        let message = v1::SessionRequest { open: None, requests: vec![request; 5], acked_write: u64::MAX };
        assert_eq!(count(&message), 5 * 8);

        let session = shape_of::<v1::SessionRequest>().unwrap();
        let many = [0x12, 0].repeat(PARTS_MAX + 1);
        assert!(!fits(&many, session, &mut PARTS_MAX.clone()));
        assert!(fits(&many[2..], session, &mut PARTS_MAX.clone()));
        assert!(fits(&[0x12, 0xff], session, &mut 0), "malformed: the decoder says so");
    }

    #[test]
    fn b07_whatever_repeats_is_counted_strings_and_packed_numbers_too() {
        let watch = v1::WatchSpec { changes: vec![1; 9], ..Default::default() };
        let watches = v1::AddWatchesRequest { watches: vec![watch; 2], from_zxid: None };
        let entry = v1::AclEntry { permissions: vec![1, 2], ..Default::default() };
        let acl = Some(v1::Acl { entries: vec![entry; 3] });
        let create = v1::CreateRequest { acl, ..Default::default() };
        let cancel = v1::CancelWatchesRequest { ids: vec![1 << 20; 5] };
        let request = |op| v1::Request { op: Some(op), ..Default::default() };
        let requests = vec![
            request(v1::request::Op::AddWatches(watches)),
            request(v1::request::Op::Create(create.clone())),
            request(v1::request::Op::CancelWatches(cancel)),
        ];
        let open = v1::OpenSession { credentials: vec![v1::Credential::default(); 4], ..Default::default() };
        let message = v1::SessionRequest { open: Some(open), requests, acked_write: 0 };
        assert_eq!(count(&message), 3 + 2 * 10 + 3 * 3 + 5 + 4);
        assert_eq!(count(&create), 3 * 3);
        assert!(shape_of::<v1::SessionResponse>().is_none(), "servers are trusted");
    }
}

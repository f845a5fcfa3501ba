//! How messages are decoded: as prost does, but not before their parts are counted.
//!
//! Two bytes on the wire can be a request that has a hundred in memory. The number of parts of a message is bounded, and found
//! out without decoding it.

use std::{any::TypeId, marker::PhantomData};

use api::OpError;
use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec as TonicCodec, DecodeBuf, Decoder as TonicDecoder},
};
use tonic_prost::ProstCodec;

use crate::{client::to_status, v1};

/// Most requests and parts of multis in one message of a client.
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
    type Encoder = <ProstCodec<T, U> as TonicCodec>::Encoder;
    type Decoder = Decoder<<ProstCodec<T, U> as TonicCodec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        Decoder(ProstCodec::<T, U>::raw_decoder(BufferSettings::default()))
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
        let mut left = PARTS_MAX;
        // The whole message is in one piece.
        if shape_of::<D::Item>().is_some_and(|shape| !fits(buf.chunk(), shape, &mut left)) {
            return Err(to_status(&OpError::BadArguments(format!(
                "a message of more than {PARTS_MAX} requests and parts of multis; send several messages"
            ))));
        }
        self.0.decode(buf)
    }
}

/// Which field of a message repeats, and where to look for more.
struct Shape {
    repeated: u64,
    within: &'static [(u64, Shape)],
}

const MULTI: Shape = Shape { repeated: 1, within: &[] };
const SESSION: Shape = Shape { repeated: 2, within: &[(2, Shape { repeated: 0, within: &[(6, MULTI)] })] };

/// Of the messages that clients send and whose parts repeat.
fn shape_of<M: 'static>() -> Option<&'static Shape> {
    if TypeId::of::<M>() == TypeId::of::<v1::SessionRequest>() {
        Some(&SESSION)
    } else if TypeId::of::<M>() == TypeId::of::<v1::MultiRequest>() {
        Some(&MULTI)
    } else {
        None
    }
}

/// Takes the repeated parts of a message off `left`; false if there are more. What is malformed is left to the decoder.
fn fits(mut message: &[u8], shape: &Shape, left: &mut usize) -> bool {
    while let Some(key) = varint(&mut message) {
        let (field, skip) = match (key >> 3, key & 7) {
            (_, 0) => match varint(&mut message) {
                Some(_) => continue,
                None => return true,
            },
            (_, 1) => (0, 8),
            (_, 5) => (0, 4),
            (field, 2) => match varint(&mut message).map(usize::try_from) {
                Some(Ok(len)) => (field, len),
                _ => return true,
            },
            _ => return true,
        };
        let Some(part) = message.split_off(..skip) else { return true };
        if field != 0 && field == shape.repeated {
            match left.checked_sub(1) {
                Some(rest) => *left = rest,
                None => return false,
            }
        }
        let within = shape.within.iter().find(|(of, _)| *of == field);
        if within.is_some_and(|(_, shape)| !fits(part, shape, left)) {
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
        let request = v1::Request { xid: u64::MAX, write_number: 3, op, traceparent: "x".into() };
        let message = v1::SessionRequest { open: None, requests: vec![request; 5], acked_write: u64::MAX };
        assert_eq!(count(&message), 5 * 8);

        let many = [0x12, 0].repeat(PARTS_MAX + 1);
        assert!(!fits(&many, &SESSION, &mut PARTS_MAX.clone()));
        assert!(fits(&many[2..], &SESSION, &mut PARTS_MAX.clone()));
        assert!(fits(&[0x12, 0xff], &SESSION, &mut 0), "malformed: the decoder says so");
    }
}

//! Jute's types.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::text;

/// The bytes are no such record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// A field ends behind the frame, or a vector has more elements than there are bytes for.
    #[error("the record ends before its last field")]
    Short,
    /// A length or count below -1.
    #[error("a field has the length {0}")]
    Length(i32),
    /// A field that must not be null is.
    #[error("a field is null that must not be")]
    Null,
    /// An operation that a multi cannot have, or reads beside writes.
    #[error("a multi has a part of the type {0}")]
    Part(i32),
    /// A reply that does not fit its request.
    #[error("a multi is answered by a result of the type {0}")]
    Result(i32),
}

/// What is left of a frame. Values that are taken from it share its memory.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Of a frame, without its length.
    #[must_use]
    pub fn new(frame: Bytes) -> Reader {
        Reader { rest: frame }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next field.
    ///
    /// # Errors
    /// If there is none of this type.
    pub fn take<T: Field>(&mut self) -> Result<T, Malformed> {
        T::read(self)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut bytes = [0; N];
        self.rest.try_copy_to_slice(&mut bytes).map_err(|_| Malformed::Short)?;
        Ok(bytes)
    }

    /// The length of a string or buffer, or a count; `None` for null.
    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        let length = i32::read(self)?;
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(Malformed::Length(length)),
        }
    }

    fn bytes(&mut self) -> Result<Option<Bytes>, Malformed> {
        match self.length()? {
            Some(length) if length > self.rest.len() => Err(Malformed::Short),
            Some(length) => Ok(Some(self.rest.split_to(length))),
            None => Ok(None),
        }
    }
}

/// A value that a record can have.
pub trait Field: Sized {
    /// The fewest bytes that it takes: it bounds the elements of a vector.
    const LEAST: usize;

    /// From the front of what is left.
    ///
    /// # Errors
    /// If it is not there.
    fn read(from: &mut Reader) -> Result<Self, Malformed>;

    /// Behind what is there.
    fn write(&self, to: &mut BytesMut);
}

impl Field for i32 {
    const LEAST: usize = 4;

    fn read(from: &mut Reader) -> Result<i32, Malformed> {
        from.number().map(i32::from_be_bytes)
    }

    fn write(&self, to: &mut BytesMut) {
        to.put_i32(*self);
    }
}

impl Field for i64 {
    const LEAST: usize = 8;

    fn read(from: &mut Reader) -> Result<i64, Malformed> {
        from.number().map(i64::from_be_bytes)
    }

    fn write(&self, to: &mut BytesMut) {
        to.put_i64(*self);
    }
}

impl Field for bool {
    const LEAST: usize = 1;

    fn read(from: &mut Reader) -> Result<bool, Malformed> {
        from.number().map(|[byte]| byte != 0)
    }

    fn write(&self, to: &mut BytesMut) {
        to.put_u8((*self).into());
    }
}

/// A buffer. It shares the memory of its frame.
impl Field for Option<Bytes> {
    const LEAST: usize = 4;

    fn read(from: &mut Reader) -> Result<Option<Bytes>, Malformed> {
        from.bytes()
    }

    fn write(&self, to: &mut BytesMut) {
        match self {
            Some(bytes) => {
                put_length(bytes.len(), to);
                to.extend_from_slice(bytes);
            }
            None => to.put_i32(-1),
        }
    }
}

impl Field for Option<String> {
    const LEAST: usize = 4;

    fn read(from: &mut Reader) -> Result<Option<String>, Malformed> {
        Ok(from.bytes()?.map(|bytes| text::decode(&bytes)))
    }

    fn write(&self, to: &mut BytesMut) {
        match self {
            Some(text) => text.write(to),
            None => to.put_i32(-1),
        }
    }
}

/// One that is not null.
impl Field for String {
    const LEAST: usize = 4;

    fn read(from: &mut Reader) -> Result<String, Malformed> {
        Option::<String>::read(from)?.ok_or(Malformed::Null)
    }

    fn write(&self, to: &mut BytesMut) {
        put_length(self.len(), to);
        to.extend_from_slice(self.as_bytes());
    }
}

impl<T: Field> Field for Option<Vec<T>> {
    const LEAST: usize = 4;

    fn read(from: &mut Reader) -> Result<Option<Vec<T>>, Malformed> {
        match from.length()? {
            Some(count) if count > from.left() / T::LEAST => Err(Malformed::Short),
            Some(count) => (0..count).map(|_| T::read(from)).collect::<Result<_, _>>().map(Some),
            None => Ok(None),
        }
    }

    fn write(&self, to: &mut BytesMut) {
        match self {
            Some(elements) => elements.write(to),
            None => to.put_i32(-1),
        }
    }
}

/// One that is not null.
impl<T: Field> Field for Vec<T> {
    const LEAST: usize = 4;

    fn read(from: &mut Reader) -> Result<Vec<T>, Malformed> {
        Option::<Vec<T>>::read(from)?.ok_or(Malformed::Null)
    }

    fn write(&self, to: &mut BytesMut) {
        put_length(self.len(), to);
        self.iter().for_each(|element| element.write(to));
    }
}

/// A length that does not fit is of something that no frame can hold; [`frame`](crate::frame) refuses it.
fn put_length(length: usize, to: &mut BytesMut) {
    to.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}

/// A struct whose fields are those of a record, in their order.
macro_rules! records {
    ($($(#[$meta:meta])* $vis:vis $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)+ })+) => {
        $(
            $(#[$meta])*
            $vis struct $name {
                $($(#[$of_field])* $vis $field: $type,)+
            }

            impl $crate::Field for $name {
                const LEAST: usize = 0 $(+ <$type as $crate::Field>::LEAST)+;

                fn read(from: &mut $crate::Reader) -> Result<$name, $crate::Malformed> {
                    Ok($name { $($field: from.take()?,)+ })
                }

                fn write(&self, to: &mut bytes::BytesMut) {
                    $($crate::Field::write(&self.$field, to);)+
                }
            }
        )+
    };
}

pub(crate) use records;

//! The first frame of each side.

use bytes::{Bytes, BytesMut};

use crate::{Field as _, Malformed, Reader, frame};

/// Bytes of a session's password.
pub const PASSWORD: usize = 16;

/// What a client says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectRequest {
    /// 0.
    pub protocol_version: i32,
    /// The greatest zxid that it has seen.
    pub last_zxid_seen: i64,
    /// The time-out that it wants, in milliseconds.
    pub timeout_ms: i32,
    /// The session to take up, or 0 for a new one.
    pub session_id: i64,
    /// Of that session.
    pub password: Option<Bytes>,
    /// Whether it is content with a server that only reads; `None` if it does not know the question (before 3.4), and then the
    /// answer has no such field either.
    pub read_only: Option<bool>,
}

/// What the server says first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectResponse {
    /// 0.
    pub protocol_version: i32,
    /// The time-out in force, in milliseconds; 0 if the session has expired.
    pub timeout_ms: i32,
    /// 0 if it has expired.
    pub session_id: i64,
    /// With this the session can be taken up.
    pub password: [u8; PASSWORD],
    /// Whether this server only reads; `None` for a client that does not know the question.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// From a frame.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(frame: Bytes) -> Result<ConnectRequest, Malformed> {
        let mut from = Reader::new(frame);
        Ok(ConnectRequest {
            protocol_version: from.take()?,
            last_zxid_seen: from.take()?,
            timeout_ms: from.take()?,
            session_id: from.take()?,
            password: from.take()?,
            read_only: read_only(&mut from)?,
        })
    }

    /// As a frame behind what is there.
    pub fn encode(&self, to: &mut BytesMut) {
        frame(to, |to| {
            self.protocol_version.write(to);
            self.last_zxid_seen.write(to);
            self.timeout_ms.write(to);
            self.session_id.write(to);
            self.password.write(to);
            self.read_only.iter().for_each(|field| field.write(to));
        });
    }
}

impl ConnectResponse {
    /// The session is closed, or expired, or the password is not its own.
    #[must_use]
    pub fn expired(read_only: Option<bool>) -> ConnectResponse {
        ConnectResponse {
            protocol_version: 0,
            timeout_ms: 0,
            session_id: 0,
            password: [0; PASSWORD],
            read_only: read_only.map(|_| false),
        }
    }

    /// From a frame.
    ///
    /// # Errors
    /// If it is none.
    pub fn decode(frame: Bytes) -> Result<ConnectResponse, Malformed> {
        let mut from = Reader::new(frame);
        Ok(ConnectResponse {
            protocol_version: from.take()?,
            timeout_ms: from.take()?,
            session_id: from.take()?,
            password: {
                let password = from.take::<Option<Bytes>>()?.ok_or(Malformed::Null)?;
                password.as_ref().try_into().map_err(|_| Malformed::Short)?
            },
            read_only: read_only(&mut from)?,
        })
    }

    /// As a frame behind what is there.
    pub fn encode(&self, to: &mut BytesMut) {
        frame(to, |to| {
            self.protocol_version.write(to);
            self.timeout_ms.write(to);
            self.session_id.write(to);
            Some(Bytes::copy_from_slice(&self.password)).write(to);
            self.read_only.iter().for_each(|field| field.write(to));
        });
    }
}

fn read_only(from: &mut Reader) -> Result<Option<bool>, Malformed> {
    if from.left() == 0 { Ok(None) } else { from.take().map(Some) }
}

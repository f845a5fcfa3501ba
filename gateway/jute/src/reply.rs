//! What a server answers, and what it says by itself.

use bytes::{Bytes, BytesMut};

use crate::{
    Acl, ClientInfo, Code, Field as _, Malformed, MultiResult, OpCode, Reader, Stat, WatcherEvent,
    field::records, frame, multi, xid,
};

records! {
    /// What stands before each reply.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub ReplyHeader {
        /// Of the request.
        xid: i32,
        /// How far the server has come.
        zxid: i64,
        /// See [`Code`]. Behind an error there is no body.
        err: i32,
    }
}

macro_rules! bodies {
    ($($(#[$meta:meta])* $name:ident $(($($field:ident: $type:ty),+))?,)+) => {
        /// What stands behind a reply that says success.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Body {
            $($(#[$meta])* $name $(($($type),+))?,)+
            /// Of the parts of a multi.
            Multi(Vec<MultiResult>),
        }

        /// What a reply carries; its request says which.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[allow(missing_docs, reason = "the names are those of the bodies")]
        pub enum Shape {
            $($name,)+
            Multi,
        }

        impl Body {
            /// Which one it is.
            #[must_use]
            pub fn shape(&self) -> Shape {
                match self {
                    $(Body::$name $(($($field),+))? => { $($(let _ = $field;)+)? Shape::$name })+
                    Body::Multi(_) => Shape::Multi,
                }
            }

            fn read(shape: Shape, from: &mut Reader) -> Result<Body, Malformed> {
                Ok(match shape {
                    $(Shape::$name => Body::$name $(($(from.take::<$type>()?),+))?,)+
                    Shape::Multi => Body::Multi(multi::read_results(from)?),
                })
            }

            fn write(&self, to: &mut BytesMut) {
                match self {
                    $(Body::$name $(($($field),+))? => { $($($field.write(to);)+)? })+
                    Body::Multi(results) => multi::write_results(results, to),
                }
            }
        }
    };
}

bodies! {
    /// Nothing.
    Nothing,
    /// The name of a new znode.
    Path(path: String),
    /// The same, and its Stat.
    PathStat(path: String, stat: Stat),
    /// A Stat.
    Stat(stat: Stat),
    /// A value.
    Data(data: Option<Bytes>, stat: Stat),
    /// Names of children.
    Children(names: Vec<String>),
    /// The same, and the Stat of the parent.
    ChildrenStat(names: Vec<String>, stat: Stat),
    /// An access list.
    Acl(acl: Vec<Acl>, stat: Stat),
    /// Paths of ephemerals.
    Ephemerals(paths: Vec<String>),
    /// A count.
    Number(number: i32),
    /// Identities.
    Infos(infos: Vec<ClientInfo>),
    /// A step of SASL.
    Token(token: Option<Bytes>),
}

impl Shape {
    /// What the reply to a request of this kind carries.
    #[must_use]
    pub fn of(op: OpCode) -> Shape {
        match op {
            OpCode::CREATE | OpCode::SYNC => Shape::Path,
            OpCode::CREATE2 | OpCode::CREATE_CONTAINER | OpCode::CREATE_TTL => Shape::PathStat,
            OpCode::EXISTS | OpCode::SET_DATA | OpCode::SET_ACL => Shape::Stat,
            OpCode::GET_DATA | OpCode::RECONFIG => Shape::Data,
            OpCode::GET_CHILDREN => Shape::Children,
            OpCode::GET_CHILDREN2 => Shape::ChildrenStat,
            OpCode::GET_ACL => Shape::Acl,
            OpCode::GET_EPHEMERALS => Shape::Ephemerals,
            OpCode::GET_ALL_CHILDREN_NUMBER | OpCode::ADD_WATCH => Shape::Number,
            OpCode::WHO_AM_I => Shape::Infos,
            OpCode::SASL => Shape::Token,
            OpCode::MULTI | OpCode::MULTI_READ => Shape::Multi,
            _ => Shape::Nothing,
        }
    }
}

impl ReplyHeader {
    /// As a frame behind what is there, with a body if it says success.
    pub fn encode(&self, body: &Body, to: &mut BytesMut) {
        frame(to, |to| {
            crate::Field::write(self, to);
            if self.err == Code::OK.0 {
                body.write(to);
            }
        });
    }

    /// The header of a frame, and what is behind it: an [`Event`] if the xid is [`xid::EVENT`], else a body.
    ///
    /// # Errors
    /// If there is none.
    pub fn decode(frame: Bytes) -> Result<(ReplyHeader, Reader), Malformed> {
        let mut from = Reader::new(frame);
        Ok((from.take()?, from))
    }

    /// What is behind it, in reply to a request with such an answer; nothing behind an error.
    ///
    /// # Errors
    /// If it is not there.
    pub fn body(&self, shape: Shape, mut from: Reader) -> Result<Body, Malformed> {
        if self.err == Code::OK.0 { Body::read(shape, &mut from) } else { Ok(Body::Nothing) }
    }
}

/// Something that a watch has seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The transaction that caused it; -1 if it is told late.
    pub zxid: i64,
    /// What.
    pub event: WatcherEvent,
}

impl Event {
    /// As a frame behind what is there.
    pub fn encode(&self, to: &mut BytesMut) {
        frame(to, |to| {
            crate::Field::write(&ReplyHeader { xid: xid::EVENT, zxid: self.zxid, err: 0 }, to);
            self.event.write(to);
        });
    }
}

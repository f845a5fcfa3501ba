//! What a client asks.

use bytes::{Bytes, BytesMut};

use crate::{
    Create, Field as _, Malformed, OpCode, Reader, SetWatches,
    field::records,
    frame,
    multi::{self, Parts},
};

records! {
    /// What stands before each request.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub RequestHeader {
        /// The client's number for it; comes back with the reply.
        xid: i32,
        /// See [`OpCode`].
        kind: i32,
    }

    /// A change of the members.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub Reconfig {
        /// Servers to add.
        joining: Option<String>,
        /// Servers to take out.
        leaving: Option<String>,
        /// All servers, instead of those two.
        members: Option<String>,
        /// The version of the configuration that is to be changed; -1 for any.
        version: i64,
    }
}

/// A request that cannot be carried out, because it cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Bad {
    /// No operation that a client may ask for.
    #[error("there is no operation {0}")]
    Unknown(i32),
    /// Its record is malformed.
    #[error("a request of the type {0} is malformed: {1}")]
    Malformed(i32, Malformed),
    /// A multi with more parts than the reader takes.
    #[error("a multi has more than {0} parts")]
    TooMany(usize),
}

macro_rules! requests {
    ($($(#[$meta:meta])* $name:ident = $code:ident $({ $($(#[$of_field:meta])* $field:ident: $type:ty,)+ })?,)+) => {
        /// A request. Multis have parts that are requests, too, but never multis.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Request {
            $($(#[$meta])* $name $({ $($(#[$of_field])* $field: $type,)+ })?,)+
            /// Changes: all of them, or none.
            Multi(Vec<Request>),
            /// Reads, each with a result of its own.
            MultiRead(Vec<Request>),
        }

        impl Request {
            /// Its number.
            #[must_use]
            pub fn code(&self) -> OpCode {
                match self {
                    $(Request::$name $({ $($field: _,)+ })? => OpCode::$code,)+
                    Request::Multi(_) => OpCode::MULTI,
                    Request::MultiRead(_) => OpCode::MULTI_READ,
                }
            }

            /// `None` for a number that is none, or that of a multi.
            pub(crate) fn read_record(op: OpCode, from: &mut Reader) -> Result<Option<Request>, Malformed> {
                let _ = &from;
                Ok(Some(match op {
                    $(OpCode::$code => Request::$name $({ $($field: from.take()?,)+ })?,)+
                    _ => return Ok(None),
                }))
            }

            pub(crate) fn write_record(&self, to: &mut BytesMut) {
                match self {
                    $(Request::$name $({ $($field,)+ })? => { $($($field.write(to);)+)? })+
                    Request::Multi(ops) | Request::MultiRead(ops) => multi::write(ops, to),
                }
            }
        }
    };
}

requests! {
    /// Makes a znode.
    Create = CREATE {
        /// What.
        create: Create,
    },
    /// The same, answered with its Stat.
    Create2 = CREATE2 {
        /// What.
        create: Create,
    },
    /// Makes a container, whatever the flags say.
    CreateContainer = CREATE_CONTAINER {
        /// What.
        create: Create,
    },
    /// Makes a znode with a time to live.
    CreateTtl = CREATE_TTL {
        /// What.
        create: Create,
        /// In milliseconds.
        ttl: i64,
    },
    /// Removes a znode.
    Delete = DELETE {
        /// Which.
        path: String,
        /// Only if it has this version; -1 for any.
        version: i32,
    },
    /// Asks for a Stat.
    Exists = EXISTS {
        /// Which.
        path: String,
        /// Whether to watch for the next change.
        watch: bool,
    },
    /// Asks for value and Stat.
    GetData = GET_DATA {
        /// Which.
        path: String,
        /// Whether to watch for the next change.
        watch: bool,
    },
    /// Replaces the value.
    SetData = SET_DATA {
        /// Which.
        path: String,
        /// The new one, or none.
        data: Option<Bytes>,
        /// Only if it has this version; -1 for any.
        version: i32,
    },
    /// Asks for the access list.
    GetAcl = GET_ACL {
        /// Which.
        path: String,
    },
    /// Replaces the access list.
    SetAcl = SET_ACL {
        /// Which.
        path: String,
        /// The new one.
        acl: Option<Vec<crate::Acl>>,
        /// Only if the list has this version; -1 for any.
        version: i32,
    },
    /// Asks for the names of the children.
    GetChildren = GET_CHILDREN {
        /// Of which.
        path: String,
        /// Whether to watch for the next change.
        watch: bool,
    },
    /// The same, with the Stat of the parent.
    GetChildren2 = GET_CHILDREN2 {
        /// Of which.
        path: String,
        /// Whether to watch for the next change.
        watch: bool,
    },
    /// Later reads see everything that was committed before.
    Sync = SYNC {
        /// Comes back.
        path: String,
    },
    /// A sign of life.
    Ping = PING,
    /// A part of a multi: fails unless the znode has this version.
    Check = CHECK {
        /// Which.
        path: String,
        /// -1: it only has to exist.
        version: i32,
    },
    /// Changes the members.
    Reconfig = RECONFIG {
        /// How.
        reconfig: Reconfig,
    },
    /// Asks whether there is such a watch.
    CheckWatches = CHECK_WATCHES {
        /// On which znode.
        path: String,
        /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent and recursive.
        kind: i32,
    },
    /// Takes watches away.
    RemoveWatches = REMOVE_WATCHES {
        /// From which znode.
        path: String,
        /// As above.
        kind: i32,
    },
    /// Proves an identity.
    Auth = AUTH {
        /// 0.
        kind: i32,
        /// How.
        scheme: Option<String>,
        /// With what.
        auth: Option<Bytes>,
    },
    /// Sets watches again behind a new connection.
    SetWatches = SET_WATCHES {
        /// Which.
        watches: SetWatches,
    },
    /// The same, with watches that stay.
    SetWatches2 = SET_WATCHES2 {
        /// Which.
        watches: SetWatches,
        /// On single znodes.
        persistent: Vec<String>,
        /// On whole trees.
        recursive: Vec<String>,
    },
    /// A step of SASL.
    Sasl = SASL {
        /// From the client's library.
        token: Option<Bytes>,
    },
    /// Asks for the ephemerals of the session.
    GetEphemerals = GET_EPHEMERALS {
        /// Under which path; all if there is none.
        prefix: Option<String>,
    },
    /// Asks how many znodes are below one.
    GetAllChildrenNumber = GET_ALL_CHILDREN_NUMBER {
        /// Which.
        path: String,
    },
    /// Sets a watch that stays.
    AddWatch = ADD_WATCH {
        /// On which znode.
        path: String,
        /// 0 persistent, 1 persistent and recursive.
        mode: i32,
    },
    /// Asks for the identities of the connection.
    WhoAmI = WHO_AM_I,
    /// Ends the session.
    CloseSession = CLOSE_SESSION,
}

impl Request {
    /// What stands in a frame behind its header. Bytes behind the record are ignored.
    ///
    /// # Errors
    /// If there is no such operation, or if its record is malformed.
    pub fn decode(header: RequestHeader, from: Reader) -> Result<Request, Bad> {
        Request::decode_bounded(header, from, usize::MAX)
    }

    /// The same; multis have at most `parts` parts, and further ones are not decoded.
    ///
    /// # Errors
    /// As there, and [`Bad::TooMany`].
    pub fn decode_bounded(header: RequestHeader, mut from: Reader, parts: usize) -> Result<Request, Bad> {
        let malformed = |e| Bad::Malformed(header.kind, e);
        let mut ops =
            |kind| multi::read(&mut from, kind, parts).map_err(malformed)?.ok_or(Bad::TooMany(parts));
        match OpCode(header.kind) {
            OpCode::MULTI => ops(Parts::Writes).map(Request::Multi),
            OpCode::MULTI_READ => ops(Parts::Reads).map(Request::MultiRead),
            op => {
                let request = Request::read_record(op, &mut from).map_err(malformed)?;
                request.ok_or(Bad::Unknown(header.kind))
            }
        }
    }

    /// As a frame behind what is there.
    pub fn encode(&self, xid: i32, to: &mut BytesMut) {
        frame(to, |to| {
            RequestHeader { xid, kind: self.code().0 }.write(to);
            self.write_record(to);
        });
    }
}

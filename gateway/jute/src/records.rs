//! Records that others are made of.

use bytes::{Bytes, BytesMut};

use crate::{Field, Malformed, Reader, field::records};

/// An identity of a scheme.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Id {
    /// `world`, `digest`, `ip` ...
    pub scheme: String,
    /// Within the scheme.
    pub id: String,
}

/// Null counts as the empty text: some libraries write no other, as for the scheme `auth`, whose id says nothing.
impl Field for Id {
    const LEAST: usize = 2 * <Option<String> as Field>::LEAST;

    fn read(from: &mut Reader) -> Result<Id, Malformed> {
        let mut text = || Ok(from.take::<Option<String>>()?.unwrap_or_default());
        Ok(Id { scheme: text()?, id: text()? })
    }

    fn write(&self, to: &mut BytesMut) {
        self.scheme.write(to);
        self.id.write(to);
    }
}

records! {
    /// What is known of a znode besides its value.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
    pub Stat {
        /// The transaction that created it.
        czxid: i64,
        /// The one that last changed its value.
        mzxid: i64,
        /// When it was created, in milliseconds since the Unix epoch.
        ctime: i64,
        /// When its value last changed.
        mtime: i64,
        /// Changes of the value.
        version: i32,
        /// Creates and deletes of children.
        cversion: i32,
        /// Changes of the access list.
        aversion: i32,
        /// The session of an ephemeral, else 0.
        ephemeral_owner: i64,
        /// Bytes of the value.
        data_length: i32,
        /// Children now.
        num_children: i32,
        /// The transaction that last created or deleted a child.
        pzxid: i64,
    }

    /// An entry of an access list.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub Acl {
        /// The bits of what they may do.
        perms: i32,
        /// Whom it means.
        id: Id,
    }

    /// What a create asks for.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub Create {
        /// Where; of a sequential one, what stands before the number.
        path: String,
        /// The value, or none.
        data: Option<Bytes>,
        /// The access list.
        acl: Option<Vec<Acl>>,
        /// 0 persistent, 1 ephemeral, 2 and 3 the same with a number, 4 container, 5 with a TTL, 6 with both.
        flags: i32,
    }

    /// Watches that a client had on an earlier connection.
    #[derive(Clone, Default, PartialEq, Eq, Debug)]
    pub SetWatches {
        /// What the client has seen: it wants to be told of later changes.
        relative_zxid: i64,
        /// For the values of these.
        data: Vec<String>,
        /// For the creation of these.
        exist: Vec<String>,
        /// For the children of these.
        child: Vec<String>,
    }

    /// What a watch has seen.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub WatcherEvent {
        /// See [`EventType`](crate::EventType).
        kind: i32,
        /// See [`KeeperState`](crate::KeeperState).
        state: i32,
        /// Of the znode that changed.
        path: String,
    }

    /// An identity of a connection.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub ClientInfo {
        /// How it was proven.
        scheme: String,
        /// Its name; secrets are left out.
        user: String,
    }
}

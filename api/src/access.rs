//! Who asks, and who may do what: identities and access lists. Nothing enforces lists yet.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, LazyLock},
};

/// How an identity is proven, or matched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// Everybody: the only id is `anyone`.
    World,
    /// ZooKeeper's `user:hash`. It proves nothing, it matches lists.
    Digest,
    /// The address of the client.
    Ip,
    /// The distinguished name of a client's certificate.
    X509,
    /// A user that the ensemble knows.
    User,
    /// A role that the ensemble knows.
    Role,
}

impl Scheme {
    /// All of them. `auth` is none of them: an edge replaces it by the identities of the caller.
    pub const ALL: [Scheme; 6] =
        [Scheme::World, Scheme::Digest, Scheme::Ip, Scheme::X509, Scheme::User, Scheme::Role];

    /// As ZooKeeper writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::World => "world",
            Scheme::Digest => "digest",
            Scheme::Ip => "ip",
            Scheme::X509 => "x509",
            Scheme::User => "user",
            Scheme::Role => "role",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scheme {
    type Err = BadAccess;

    fn from_str(text: &str) -> Result<Scheme, BadAccess> {
        let known = Scheme::ALL.into_iter().find(|scheme| scheme.as_str() == text);
        known.ok_or_else(|| BadAccess::UnknownScheme(text.chars().take(32).collect()))
    }
}

/// An identity of a caller, or the one that an entry of a list names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    scheme: Scheme,
    id: Box<str>,
}

impl Identity {
    /// Most bytes of an id.
    pub const ID_MAX: usize = 1024;

    /// # Errors
    /// If the id is empty, longer than [`Identity::ID_MAX`] bytes or has control characters, or is another than `anyone` in the
    /// world.
    pub fn new(scheme: Scheme, id: &str) -> Result<Identity, BadAccess> {
        match id.len() {
            0 => return Err(BadAccess::EmptyId(scheme)),
            1..=Identity::ID_MAX => {}
            length => return Err(BadAccess::LongId { scheme, length }),
        }
        if id.chars().any(char::is_control) {
            return Err(BadAccess::ControlCharacter(scheme));
        }
        if scheme == Scheme::World && id != ANYONE {
            return Err(BadAccess::OtherWorld);
        }
        Ok(Identity { scheme, id: id.into() })
    }

    /// Everybody.
    #[must_use]
    pub fn anyone() -> Identity {
        Identity { scheme: Scheme::World, id: ANYONE.into() }
    }

    /// How it is proven, or matched.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its name within the scheme: 1 to [`Identity::ID_MAX`] bytes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

const ANYONE: &str = "anyone";

/// More than an identity, or an entry of a list, is encoded to besides its id.
const ENTRY: usize = 24;

/// The identities of a caller that an edge has proven: a set, empty for an anonymous caller. A copy costs a reference.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Identities(Option<Arc<[Identity]>>);

impl Identities {
    /// Most of them. Every write carries them, and an entry of the log has room for so many of [`Identity::ID_MAX`].
    pub const MAX: usize = 32;

    /// As a set: the order, and what comes twice, do not matter.
    ///
    /// # Errors
    /// If there are more than [`Identities::MAX`].
    pub fn new(identities: impl IntoIterator<Item = Identity>) -> Result<Identities, BadAccess> {
        let mut all: Vec<Identity> = identities.into_iter().take(Identities::MAX + 1).collect();
        if all.len() > Identities::MAX {
            return Err(BadAccess::ManyIdentities);
        }
        all.sort_unstable();
        all.dedup();
        Ok(Identities((!all.is_empty()).then(|| all.into())))
    }

    /// All of them, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Identity] {
        self.0.as_deref().unwrap_or_default()
    }

    /// About how many bytes they take, in memory or where they are encoded.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.as_slice().iter().map(|identity| ENTRY + identity.id.len()).sum()
    }

    /// Whether all of `others` are among them.
    #[must_use]
    pub fn include(&self, others: &Identities) -> bool {
        others.as_slice().iter().all(|other| self.as_slice().binary_search(other).is_ok())
    }
}

/// What one may do with a znode; bits as in ZooKeeper.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Permissions(u8);

impl Permissions {
    /// Read its value and list its children.
    pub const READ: Permissions = Permissions(1);
    /// Set its value.
    pub const WRITE: Permissions = Permissions(2);
    /// Create children.
    pub const CREATE: Permissions = Permissions(4);
    /// Delete children.
    pub const DELETE: Permissions = Permissions(8);
    /// Set its access list.
    pub const ADMIN: Permissions = Permissions(16);
    /// All of these.
    pub const ALL: Permissions = Permissions(31);

    /// Of ZooKeeper's number; `None` if a bit is unknown.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Permissions> {
        u8::try_from(bits).ok().filter(|bits| bits & !Permissions::ALL.0 == 0).map(Permissions)
    }

    /// ZooKeeper's number.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0.into()
    }
}

/// One entry of an access list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AclEntry {
    /// Whom it means.
    pub identity: Identity,
    /// What they may do.
    pub permissions: Permissions,
}

/// An access list: who may do what with a znode. A copy costs a reference. The default is the open list, with which anyone may do
/// everything.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Acl(
    /// `None` for the open list, and only for that.
    Option<Arc<[AclEntry]>>,
);

impl Acl {
    /// Most entries.
    pub const ENTRIES_MAX: usize = 64;

    /// # Errors
    /// If there is no entry, or more than [`Acl::ENTRIES_MAX`].
    pub fn new(entries: Vec<AclEntry>) -> Result<Acl, BadAccess> {
        match entries.len() {
            1 if entries == *OPEN => Ok(Acl::default()),
            1..=Acl::ENTRIES_MAX => Ok(Acl(Some(entries.into()))),
            entries => Err(BadAccess::Entries(entries)),
        }
    }

    /// Whether it is the open list.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Its entries, in the order in which they were given.
    #[must_use]
    pub fn entries(&self) -> &[AclEntry] {
        self.0.as_deref().unwrap_or(&*OPEN)
    }

    /// About how many bytes it takes, in memory or where it is encoded; none for the open list.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.0.iter().flat_map(|entries| entries.iter()).map(|e| ENTRY + e.identity.id.len()).sum()
    }
}

static OPEN: LazyLock<[AclEntry; 1]> =
    LazyLock::new(|| [AclEntry { identity: Identity::anyone(), permissions: Permissions::ALL }]);

/// The place of an access list in the table of its state: znodes that have the same list share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct AclId(pub u32);

impl AclId {
    /// Of the open list, which is not in the table.
    pub const OPEN: AclId = AclId(0);
}

/// Why something is no identity or access list.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadAccess {
    /// A word that is no scheme.
    #[error("the scheme {0:?} is unknown; give one of world, digest, ip, x509, user, role")]
    UnknownScheme(String),
    /// An identity without a name.
    #[error("an identity of the scheme {0} has an empty id; give it one")]
    EmptyId(Scheme),
    /// An identity with too long a name.
    #[error("an id of the scheme {scheme} has {length} bytes, more than the {max} allowed", max = Identity::ID_MAX)]
    LongId {
        /// Of the identity.
        scheme: Scheme,
        /// In bytes.
        length: usize,
    },
    /// An identity whose name cannot be printed.
    #[error("an id of the scheme {0} has a control character; leave it out")]
    ControlCharacter(Scheme),
    /// An identity of the world with another name.
    #[error("the only id of the scheme world is \"anyone\"")]
    OtherWorld,
    /// Too many identities at once.
    #[error("more than the {} identities allowed on one connection; prove fewer", Identities::MAX)]
    ManyIdentities,
    /// A list without entries, or with too many.
    #[error("an access list of {0} entries; give it 1 to {max}", max = Acl::ENTRIES_MAX)]
    Entries(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> Identity {
        Identity::new(Scheme::User, id).unwrap()
    }

    fn entry(id: &str, permissions: Permissions) -> AclEntry {
        AclEntry { identity: user(id), permissions }
    }

    #[test]
    fn schemes_are_read_as_they_are_written_and_others_are_refused() {
        for scheme in Scheme::ALL {
            assert_eq!(scheme.to_string().parse(), Ok(scheme));
        }
        assert!(Scheme::from_str("auth").unwrap_err().to_string().contains("\"auth\" is unknown"));
    }

    #[test]
    fn ids_have_bounds() {
        assert_eq!(Identity::new(Scheme::World, "anyone"), Ok(Identity::anyone()));
        assert_eq!(Identity::new(Scheme::World, "any"), Err(BadAccess::OtherWorld));
        assert_eq!(Identity::new(Scheme::User, ""), Err(BadAccess::EmptyId(Scheme::User)));
        assert_eq!(Identity::new(Scheme::Ip, "::1\n"), Err(BadAccess::ControlCharacter(Scheme::Ip)));
        assert!(Identity::new(Scheme::X509, &"x".repeat(Identity::ID_MAX)).is_ok());
        let long = Identity::new(Scheme::X509, &"x".repeat(Identity::ID_MAX + 1)).unwrap_err();
        assert!(long.to_string().contains("1025 bytes"), "{long}");
    }

    #[test]
    fn identities_are_a_set_with_a_bound() {
        let (a, b) = (user("a"), user("b"));
        let both = Identities::new([b.clone(), a.clone(), b.clone()]).unwrap();
        assert_eq!(both.as_slice(), [a.clone(), b.clone()]);
        let only_b = Identities::new([b]).unwrap();
        assert!(both.include(&only_b) && both.include(&both) && both.include(&Identities::default()));
        assert!(!only_b.include(&both) && !Identities::default().include(&only_b));
        assert_eq!(Identities::new([]), Ok(Identities::default()));
        let many = |n: usize| Identities::new((0..n).map(|n| user(&n.to_string())));
        assert!(many(Identities::MAX).is_ok());
        assert_eq!(many(Identities::MAX + 1), Err(BadAccess::ManyIdentities));
    }

    #[test]
    fn unknown_permissions_are_refused() {
        assert_eq!(Permissions::from_bits(31), Some(Permissions::ALL));
        assert_eq!(Permissions::from_bits(0).map(Permissions::bits), Some(0));
        assert_eq!(Permissions::from_bits(32), None);
        assert_eq!(Permissions::from_bits(256 + 1), None);
    }

    #[test]
    fn lists_have_bounds_and_the_open_one_has_one_form() {
        assert_eq!(Acl::new(Acl::default().entries().to_vec()), Ok(Acl::default()));
        assert!(Acl::default().is_open());
        let anyone_reads =
            AclEntry { identity: Identity::anyone(), permissions: Permissions::from_bits(1).unwrap() };
        let list = Acl::new(vec![anyone_reads.clone()]).unwrap();
        assert!(!list.is_open());
        assert_eq!(list.entries(), [anyone_reads]);
        assert_eq!(Acl::new(vec![]), Err(BadAccess::Entries(0)));
        let many = |n| Acl::new(vec![entry("a", Permissions::ALL); n]);
        assert_eq!(many(Acl::ENTRIES_MAX).unwrap().entries().len(), Acl::ENTRIES_MAX);
        assert_eq!(many(Acl::ENTRIES_MAX + 1), Err(BadAccess::Entries(Acl::ENTRIES_MAX + 1)));
    }
}

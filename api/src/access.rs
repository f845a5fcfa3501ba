//! Identities of callers, and the access lists that grant them permissions.

use std::{
    collections::BTreeSet,
    fmt,
    net::IpAddr,
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

    /// Of a client at this address.
    pub(crate) fn of_address(address: IpAddr) -> Identity {
        Identity { scheme: Scheme::Ip, id: address.to_string().into() }
    }

    /// How it is proven, or matched.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The identity that has every permission, whatever the lists say. It is an identity like any other, so that no rule is local to a node.
    #[must_use]
    pub fn superuser() -> Identity {
        Identity { scheme: Scheme::Role, id: SUPERUSER.into() }
    }

    /// Whether it, in an entry of a list, means this caller. All match by equality, but for the world, which matches every caller, and
    /// addresses, of which an entry may name a network, as in `10.0.0.0/8`.
    fn means(&self, caller: &Identity) -> bool {
        match self.scheme {
            Scheme::World => true,
            Scheme::Ip if caller.scheme == Scheme::Ip => match (network(&self.id), network(&caller.id)) {
                (Some((net, bits)), Some((address, _))) => same_network(net, address, bits),
                _ => false,
            },
            _ => self == caller,
        }
    }

    /// Whether it can stand in a list: of the schemes with a form, in that form.
    fn check_entry(&self) -> Result<(), BadAccess> {
        let well_formed = match self.scheme {
            Scheme::Ip => network(&self.id).is_some(),
            Scheme::Digest => {
                let parts: Vec<&str> = self.id.split(':').collect();
                // ZooKeeper takes one without a user.
                parts.len() == 2 && !parts[1].is_empty()
            }
            Scheme::World | Scheme::X509 | Scheme::User | Scheme::Role => true,
        };
        if well_formed { Ok(()) } else { Err(BadAccess::Form(self.scheme)) }
    }

    /// Its name within the scheme: 1 to [`Identity::ID_MAX`] bytes.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

const ANYONE: &str = "anyone";
const SUPERUSER: &str = "super";

/// An address and how many of its bits count; all of them where that is not said. An IPv4 address that is written as one of IPv6
/// is the IPv4 address.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    let most = if address.is_ipv4() { 32 } else { 128 };
    Some((address, bits.unwrap_or(most))).filter(|(_, bits)| *bits <= most)
}

fn same_network(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

/// More than an identity, or an entry of a list, is encoded to besides its id.
const ENTRY: usize = 24;

/// The identities of a caller that an edge has proven: a set, empty for an anonymous caller. A copy costs a reference.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Identities(Option<Arc<[Identity]>>);

impl Identities {
    /// Of an anonymous caller.
    pub const NONE: Identities = Identities(None);

    /// Most of them. Every write carries them, and an entry of the log has room for this many of [`Identity::ID_MAX`].
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

    /// These and `others`.
    ///
    /// # Errors
    /// If there are more than [`Identities::MAX`].
    pub fn with(&self, others: &Identities) -> Result<Identities, BadAccess> {
        if self.include(others) {
            return Ok(self.clone());
        }
        Identities::new(self.as_slice().iter().chain(others.as_slice()).cloned().collect::<BTreeSet<_>>())
    }

    /// Those that an entry of the scheme `auth` stands for: what the caller has proven, and not where it is or what follows from that.
    pub fn proven(&self) -> impl Iterator<Item = &Identity> {
        let proven =
            |identity: &&Identity| matches!(identity.scheme, Scheme::Digest | Scheme::X509 | Scheme::User);
        self.as_slice().iter().filter(proven)
    }

    /// The identities that a client needs to resume the caller's session: those that the caller has proven. Its address may change, and
    /// a role follows from a setting, which may differ between nodes.
    #[must_use]
    pub fn owner(&self) -> Identities {
        let all: Arc<[Identity]> = self.proven().cloned().collect();
        Identities((!all.is_empty()).then_some(all))
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

impl<'a> IntoIterator for &'a Identities {
    type Item = &'a Identity;
    type IntoIter = std::slice::Iter<'a, Identity>;

    fn into_iter(self) -> std::slice::Iter<'a, Identity> {
        self.as_slice().iter()
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

    /// The five of them with their names.
    pub const NAMES: [(Permissions, &str); 5] = [
        (Permissions::READ, "READ"),
        (Permissions::WRITE, "WRITE"),
        (Permissions::CREATE, "CREATE"),
        (Permissions::DELETE, "DELETE"),
        (Permissions::ADMIN, "ADMIN"),
    ];

    /// Whether any of `others` is among them.
    #[must_use]
    pub fn intersect(self, others: Permissions) -> bool {
        self.0 & others.0 != 0
    }

    /// These and `others`.
    #[must_use]
    pub const fn or(self, others: Permissions) -> Permissions {
        Permissions(self.0 | others.0)
    }

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

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Permissions::NAMES.into_iter().filter(|(bit, _)| self.intersect(*bit));
        f.write_str(&names.map(|(_, name)| name).collect::<Vec<_>>().join("|"))
    }
}

impl FromStr for Permissions {
    type Err = BadAccess;

    /// As [`Permissions`] are displayed.
    fn from_str(text: &str) -> Result<Permissions, BadAccess> {
        text.split('|').try_fold(Permissions(0), |all, name| {
            let known = Permissions::NAMES.into_iter().find(|(_, known)| *known == name);
            let (bit, _) =
                known.ok_or_else(|| BadAccess::UnknownPermission(name.chars().take(32).collect()))?;
            Ok(all.or(bit))
        })
    }
}

/// One entry of an access list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AclEntry {
    /// The callers that it matches.
    pub identity: Identity,
    /// Their permissions.
    pub permissions: Permissions,
}

/// An access list: the permissions of identities on a znode. A copy costs a reference. The default is the open list, which permits
/// everything to every caller.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Acl(
    /// `None` for the open list, and only for that.
    Option<Arc<[AclEntry]>>,
);

impl Acl {
    /// Most entries.
    pub const ENTRIES_MAX: usize = 64;

    /// # Errors
    /// If there is no entry, or more than [`Acl::ENTRIES_MAX`], or one has not the form of its scheme: `user:hash` for digest, an
    /// address or a network for ip.
    pub fn new(entries: Vec<AclEntry>) -> Result<Acl, BadAccess> {
        entries.iter().try_for_each(|entry| entry.identity.check_entry())?;
        match entries.len() {
            1 if entries == *OPEN => Ok(Acl::default()),
            1..=Acl::ENTRIES_MAX => Ok(Acl(Some(entries.into()))),
            entries => Err(BadAccess::Entries(entries)),
        }
    }

    /// Whether it gives a caller any of these permissions. ZooKeeper's rule: entries only give, the order does not matter.
    #[must_use]
    pub fn gives(&self, any_of: Permissions, caller: &Identities) -> bool {
        let Some(entries) = &self.0 else { return true };
        let means = |entry: &AclEntry| {
            let world = entry.identity.scheme == Scheme::World;
            world || caller.as_slice().iter().any(|identity| entry.identity.means(identity))
        };
        let given = entries.iter().any(|entry| entry.permissions.intersect(any_of) && means(entry));
        given || caller.as_slice().contains(&Identity::superuser())
    }

    /// The list for callers that may read the znode and not change the list: without the hashes of digests.
    #[must_use]
    pub fn masked(&self) -> Acl {
        let Some(entries) = &self.0 else { return self.clone() };
        let masked = |entry: &AclEntry| match (entry.identity.scheme, entry.identity.id.split_once(':')) {
            (Scheme::Digest, Some((user, _))) => {
                let id = format!("{user}:x").into();
                AclEntry { identity: Identity { scheme: Scheme::Digest, id }, ..entry.clone() }
            }
            _ => entry.clone(),
        };
        Acl(Some(entries.iter().map(masked).collect()))
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
    /// What a client shows is too long.
    #[error("a credential of {0} bytes, more than the {max} allowed; show a shorter one", max = crate::proof::Credential::MAX)]
    LongCredential(usize),
    /// Too many identities at once.
    #[error("more than the {} identities allowed on one connection; prove fewer", Identities::MAX)]
    ManyIdentities,
    /// An entry that is not as its scheme wants it.
    #[error(
        "an entry of the scheme {0} has another form; give digest as user:hash, ip as an address or a network such as 10.0.0.0/8"
    )]
    Form(Scheme),
    /// A word that is no permission.
    #[error("the permission {0:?} is unknown; give READ, WRITE, CREATE, DELETE or ADMIN")]
    UnknownPermission(String),
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

    fn list(entries: &[(Scheme, &str, u32)]) -> Acl {
        let entry = |&(scheme, id, bits): &(Scheme, &str, u32)| AclEntry {
            identity: Identity::new(scheme, id).unwrap(),
            permissions: Permissions::from_bits(bits).unwrap(),
        };
        Acl::new(entries.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn entries_only_give_and_only_to_those_whom_they_mean() {
        use Permissions as P;
        let of = |scheme, id| Identities::new([Identity::new(scheme, id).unwrap()]).unwrap();
        let none = Identities::default();
        let acl = list(&[(Scheme::World, "anyone", 1), (Scheme::User, "ada", 2), (Scheme::Digest, "a:h", 4)]);
        assert!(acl.gives(P::READ, &none) && !acl.gives(P::WRITE, &none));
        assert!(
            acl.gives(P::WRITE, &of(Scheme::User, "ada")) && !acl.gives(P::WRITE, &of(Scheme::Role, "ada"))
        );
        assert!(acl.gives(P::READ.or(P::ADMIN), &none), "any of them");
        assert!(
            acl.gives(P::CREATE, &of(Scheme::Digest, "a:h"))
                && !acl.gives(P::CREATE, &of(Scheme::Digest, "a:g"))
        );
        assert!(Acl::default().gives(P::ADMIN, &none));
        let superuser = Identities::new([Identity::superuser()]).unwrap();
        assert!(acl.gives(P::ADMIN, &superuser));
        assert_eq!(acl.masked().entries()[2].identity.id(), "a:x");
        assert_eq!(acl.masked().entries()[..2], acl.entries()[..2]);
    }

    #[test]
    fn an_address_is_in_its_network() {
        let ip = |id: &str| Identities::new([Identity::new(Scheme::Ip, id).unwrap()]).unwrap();
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.200.1.2", "11.0.0.1"),
            ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.1", "::ffff:10.0.0.1", "::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("fd00::/16", "fd00:1::2", "fd01::"),
            ("192.168.1.130/25", "192.168.1.200", "192.168.1.100"),
        ] {
            let acl = list(&[(Scheme::Ip, network, 31)]);
            assert!(acl.gives(Permissions::READ, &ip(inside)), "{network} {inside}");
            assert!(!acl.gives(Permissions::READ, &ip(outside)), "{network} {outside}");
        }
        for wrong in ["10.0.0.0/33", "10.0.0", "::/129", "10.0.0.0/x", "10.0.0.0/-1", "host"] {
            let identity = Identity::new(Scheme::Ip, wrong).unwrap();
            let entry = AclEntry { identity, permissions: Permissions::READ };
            assert_eq!(Acl::new(vec![entry]), Err(BadAccess::Form(Scheme::Ip)), "{wrong}");
        }
        let digest = |id: &str| AclEntry {
            identity: Identity::new(Scheme::Digest, id).unwrap(),
            permissions: Permissions::READ,
        };
        for wrong in ["user", "user:", "a:b:c"] {
            assert_eq!(Acl::new(vec![digest(wrong)]), Err(BadAccess::Form(Scheme::Digest)), "{wrong}");
        }
    }

    #[test]
    fn permissions_are_read_as_they_are_written() {
        for bits in 1..=31 {
            let permissions = Permissions::from_bits(bits).unwrap();
            assert_eq!(permissions.to_string().parse(), Ok(permissions));
        }
        assert!("READ|EAT".parse::<Permissions>().unwrap_err().to_string().contains("\"EAT\" is unknown"));
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

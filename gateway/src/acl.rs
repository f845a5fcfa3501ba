//! Access lists in ZooKeeper's wire format.

use api::{Acl, AclEntry, Identities, Identity, Permissions, Scheme};
use zk_jute::Code;

/// Decodes a list from a client with these proven identities. ZooKeeper's rules: duplicate entries count once, `auth`
/// stands for the client's proven identities, and an entry of another form makes the list invalid.
pub(crate) fn read(entries: Option<&[zk_jute::Acl]>, own: &Identities) -> Result<Acl, Code> {
    let mut all: Vec<AclEntry> = Vec::new();
    for zk_jute::Acl { perms, id } in entries.unwrap_or_default() {
        let bits = u32::try_from(*perms).ok().and_then(Permissions::from_bits);
        let permissions = bits.ok_or(Code::INVALID_ACL)?;
        let mut add = |identity| {
            let entry = AclEntry { identity, permissions };
            if !all.contains(&entry) {
                all.push(entry);
            }
        };
        if id.scheme == "auth" {
            if own.proven().next().is_none() {
                return Err(Code::INVALID_ACL);
            }
            own.proven().cloned().for_each(add);
        } else {
            let scheme: Result<Scheme, _> = id.scheme.parse();
            add(scheme.and_then(|scheme| Identity::new(scheme, &id.id)).map_err(|_| Code::INVALID_ACL)?);
        }
    }
    // Also rejects a list without entries.
    Acl::new(all).map_err(|_| Code::INVALID_ACL)
}

/// Encodes a list.
pub(crate) fn to_wire(acl: &Acl) -> Vec<zk_jute::Acl> {
    let entry = |e: &AclEntry| zk_jute::Acl {
        perms: i32::try_from(e.permissions.bits()).unwrap_or(0),
        id: zk_jute::Id { scheme: e.identity.scheme().as_str().to_owned(), id: e.identity.id().to_owned() },
    };
    acl.entries().iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(perms: i32, scheme: &str, id: &str) -> zk_jute::Acl {
        zk_jute::Acl { perms, id: zk_jute::Id { scheme: scheme.to_owned(), id: id.to_owned() } }
    }

    fn read(list: &[zk_jute::Acl], own: &Identities) -> Result<Vec<zk_jute::Acl>, Code> {
        super::read(Some(list), own).map(|acl| to_wire(&acl))
    }

    #[test]
    fn lists_come_back_as_they_were_set_without_what_comes_twice() {
        let list = [
            entry(31, "world", "anyone"),
            entry(1, "digest", "ada:hash"),
            entry(1, "digest", "ada:hash"),
            entry(3, "ip", "10.0.0.0/8"),
            entry(0, "x509", "CN=a"),
        ];
        let kept = [0, 1, 3, 4].map(|i: usize| list[i].clone());
        assert_eq!(read(&list, &Identities::NONE), Ok(kept.to_vec()));
    }

    #[test]
    fn auth_stands_for_what_is_proven_and_is_invalid_without() {
        let own = |all: &[(Scheme, &str)]| {
            Identities::new(all.iter().map(|(scheme, id)| Identity::new(*scheme, id).unwrap())).unwrap()
        };
        let place = (Scheme::Ip, "127.0.0.1");
        assert_eq!(read(&[entry(31, "auth", "")], &own(&[place])), Err(Code::INVALID_ACL));
        let proven = own(&[place, (Scheme::Digest, "ada:hash"), (Scheme::Role, "super")]);
        assert_eq!(
            read(&[entry(31, "auth", "whatever")], &proven),
            Ok(vec![entry(31, "digest", "ada:hash")])
        );
    }

    #[test]
    fn entries_of_another_form_are_invalid() {
        for (scheme, id) in [
            ("world", "some"),
            ("digest", "ada"),
            ("digest", "ada:"),
            ("digest", "a:b:c"),
            ("ip", "10.0.0.0/33"),
            ("ip", "host"),
            ("sasl", "ada"),
            ("", ""),
        ] {
            assert_eq!(
                read(&[entry(1, scheme, id)], &Identities::NONE),
                Err(Code::INVALID_ACL),
                "{scheme}:{id}"
            );
        }
        assert_eq!(super::read(None, &Identities::NONE), Err(Code::INVALID_ACL));
        assert_eq!(read(&[], &Identities::NONE), Err(Code::INVALID_ACL));
        assert_eq!(read(&[entry(32, "world", "anyone")], &Identities::NONE), Err(Code::INVALID_ACL));
    }
}

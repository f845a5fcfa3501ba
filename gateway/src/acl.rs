//! Access lists on the wire.

use api::{Acl, AclEntry, Identity, Permissions};
use zk_jute::Code;

/// A list that a client sets.
pub(crate) fn read(entries: Option<&[zk_jute::Acl]>) -> Result<Acl, Code> {
    let Some(entries @ [_, ..]) = entries else { return Err(Code::INVALID_ACL) };
    for zk_jute::Acl { id, .. } in entries {
        let known = match id.scheme.as_str() {
            "world" => id.id == "anyone",
            "digest" => id.id.split(':').count() == 2,
            "auth" | "ip" | "x509" => true,
            _ => false,
        };
        if !known {
            return Err(Code::INVALID_ACL);
        }
    }
    let open = entries.iter().any(|entry| entry.perms & ALL == ALL && entry.id.scheme == "world");
    if open {
        return Ok(Acl::default());
    }
    // No client proves an identity here: a list that means one would shut out the client that sets it as well.
    if entries.iter().any(|entry| entry.id.scheme != "world") {
        return Err(Code::UNIMPLEMENTED);
    }
    let world = |entry: &zk_jute::Acl| {
        let bits = u32::try_from(entry.perms).ok().and_then(Permissions::from_bits);
        bits.map(|permissions| AclEntry { identity: Identity::anyone(), permissions })
    };
    let entries = entries.iter().map(world).collect::<Option<Vec<_>>>().ok_or(Code::INVALID_ACL)?;
    Acl::new(entries).map_err(|_| Code::INVALID_ACL)
}

/// For the wire.
pub(crate) fn to_wire(acl: &Acl) -> Vec<zk_jute::Acl> {
    let entry = |perms, scheme: &str, id: &str| zk_jute::Acl {
        perms,
        id: zk_jute::Id { scheme: scheme.to_owned(), id: id.to_owned() },
    };
    if acl.is_open() {
        return vec![entry(ALL, "world", "anyone")];
    }
    let entries = acl.entries().iter();
    entries
        .map(|e| {
            let perms = i32::try_from(e.permissions.bits()).unwrap_or(0);
            entry(perms, e.identity.scheme().as_str(), e.identity.id())
        })
        .collect()
}

/// READ, WRITE, CREATE, DELETE and ADMIN.
const ALL: i32 = 31;

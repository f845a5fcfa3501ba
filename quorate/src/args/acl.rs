//! `quorate acl`.

use std::str::FromStr;

use api::{AclEntry, Identity, Permissions};
use clap::{Args, Subcommand};

use super::{Connection, Output};

/// Show or replace the access list of a znode.
#[derive(Subcommand, Debug)]
pub(crate) enum Acl {
    /// Print the access list of a znode, one entry a line.
    ///
    /// Omits the hashes of digests, unless you may change the list.
    #[command(after_help = "\
Examples:
  quorate acl get /app/config
  quorate acl get /app/config -o json      {acl: [{scheme, id, permissions}], aversion}")]
    Get(AclGet),

    /// Replace the access list of a znode.
    ///
    /// Each ENTRY is SCHEME:ID:PERMISSIONS. Schemes are world (the id is anyone), digest (user:hash), ip (an address or a network),
    /// x509, user and role; `auth::PERMISSIONS` stands for the identities that --auth proves. Permissions are letters of rwcda:
    /// read, write, create children, delete children, admin. Only a superuser can change a list without an entry that gives admin.
    #[command(after_help = "\
Examples:
  quorate acl set /app/config world:anyone:r ip:10.0.0.0/8:rwcda
  quorate acl set /app/config auth::rwcda --auth-file ~/.quorate-auth      only your own identity
  quorate acl set /app/config world:anyone:rwcda --version 3")]
    Set(AclSet),

    /// Print your identities, as the ensemble sees them: your address, and what --auth proves.
    Whoami(AclWhoAmI),
}

#[derive(Args, Debug)]
pub(crate) struct AclWhoAmI {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct AclGet {
    /// Path of the znode.
    pub(crate) path: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Args, Debug)]
pub(crate) struct AclSet {
    /// Path of the znode.
    pub(crate) path: String,
    /// The new list.
    #[arg(required = true, value_name = "ENTRY")]
    pub(crate) entries: Vec<Entry>,
    /// Only if the list has this version (`aversion` in `quorate stat -o json`).
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<i32>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// One ENTRY of the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// An entry.
    Of(AclEntry),
    /// One for each identity that the client proves.
    Own(Permissions),
}

impl FromStr for Entry {
    type Err = String;

    /// SCHEME:ID:PERMISSIONS. The id may have colons.
    fn from_str(text: &str) -> Result<Entry, String> {
        let parts = text.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once(':')?)));
        let (scheme, (id, letters)) =
            parts.ok_or("expected SCHEME:ID:PERMISSIONS, as in world:anyone:r or user:ada:rwcda")?;
        let permissions = from_letters(letters).filter(|permissions| permissions.bits() != 0);
        let permissions =
            permissions.ok_or("expected letters of rwcda as permissions, as in world:anyone:r")?;
        if scheme == "auth" {
            return match id {
                "" => Ok(Entry::Own(permissions)),
                _ => {
                    Err("auth has no id, as in auth::rwcda: it stands for the identities that --auth proves"
                        .to_owned())
                }
            };
        }
        let scheme = scheme.parse().map_err(|e: api::BadAccess| e.to_string())?;
        let identity = Identity::new(scheme, id).map_err(|e| e.to_string())?;
        Ok(Entry::Of(AclEntry { identity, permissions }))
    }
}

/// Permissions by their letters; without any, none.
pub(crate) fn from_letters(letters: &str) -> Option<Permissions> {
    let bit = |letter| LETTERS.find(letter).map(|bit| 1 << bit);
    let bits = letters.chars().try_fold(0, |all, letter| Some(all | bit(letter)?));
    bits.and_then(Permissions::from_bits)
}

/// As in ZooKeeper's command line, each at the place of its bit.
pub(crate) const LETTERS: &str = "rwcda";

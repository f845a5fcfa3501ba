//! `quorate acl`: access lists.

use api::{Acl, AclEntry, Identity, Permissions};
use serde_json::json;

use crate::{
    args::{self, AclGet, AclSet, Format},
    exit::Failure,
    output, session,
    verbs::parse,
};

pub(crate) async fn run(command: &args::Acl) -> Result<(), Failure> {
    match command {
        args::Acl::Get(args) => get(args).await,
        args::Acl::Set(args) => set(args).await,
    }
}

async fn get(args: &AclGet) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    session::with(&args.connection, async |client| {
        let (acl, stat) = client.acl(path.as_str()).await?;
        match args.output.output {
            Format::Table => output::print(&acl.entries().iter().map(text).collect::<Vec<_>>().join("\n")),
            Format::Json => {
                let entry = |entry: &AclEntry| {
                    json!({
                        "scheme": entry.identity.scheme().as_str(),
                        "id": entry.identity.id(),
                        "permissions": letters(entry.permissions),
                    })
                };
                let entries: Vec<_> = acl.entries().iter().map(entry).collect();
                output::print_json(&json!({"acl": entries, "aversion": stat.aversion}))
            }
        }
    })
    .await
}

async fn set(args: &AclSet) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let acl = Acl::new(args.entries.clone()).map_err(|e| Failure::usage(e.to_string()))?;
    session::with(&args.connection, async |client| {
        let stat = client.set_acl(path.as_str(), acl, args.version.map(Into::into)).await?;
        match args.output.output {
            Format::Table => output::print(&format!("aversion {}", stat.aversion)),
            Format::Json => output::print_json(&output::stat_json(&stat)),
        }
    })
    .await
}

/// An entry from the command line: SCHEME:ID:PERMISSIONS. The id may have colons.
pub(crate) fn entry(text: &str) -> Result<AclEntry, String> {
    let parts = text.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once(':')?)));
    let (scheme, (id, letters)) =
        parts.ok_or("expected SCHEME:ID:PERMISSIONS, as in world:anyone:r or user:ada:rwcda")?;
    let scheme = scheme.parse().map_err(|e: api::BadAccess| e.to_string())?;
    let identity = Identity::new(scheme, id).map_err(|e| e.to_string())?;
    let bit = |letter| LETTERS.find(letter).map(|bit| 1 << bit);
    let bits = letters.chars().try_fold(0, |all, letter| Some(all | bit(letter)?));
    let permissions = bits.filter(|bits| *bits != 0).and_then(Permissions::from_bits);
    let permissions = permissions.ok_or("expected letters of rwcda as permissions, as in world:anyone:r")?;
    Ok(AclEntry { identity, permissions })
}

fn text(entry: &AclEntry) -> String {
    format!("{}:{}:{}", entry.identity.scheme(), entry.identity.id(), letters(entry.permissions))
}

fn letters(permissions: Permissions) -> String {
    let given = |bit: &usize| permissions.bits() & (1 << bit) != 0;
    (0..LETTERS.len()).filter(given).filter_map(|bit| LETTERS.get(bit..=bit)).collect()
}

/// As in ZooKeeper's command line, each at the place of its bit.
const LETTERS: &str = "rwcda";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_are_written() {
        for given in ["world:anyone:r", "digest:ada:hash=:rwcda", "ip:fd00::/16:cd", "x509:CN=a,O=b:a"] {
            assert_eq!(text(&entry(given).unwrap()), given);
        }
        for (given, words) in [
            ("world:anyone", "SCHEME:ID:PERMISSIONS"),
            ("world:anyone:", "letters of rwcda"),
            ("world:anyone:rx", "letters of rwcda"),
            ("auth::r", "is unknown"),
            ("world:some:r", "the only id"),
        ] {
            let refused = entry(given).unwrap_err();
            assert!(refused.contains(words), "{given}: {refused}");
        }
    }
}

//! `quorate acl`: access lists.

use api::{Acl, AclEntry, Identities, Identity, Permissions};
use serde_json::json;

use crate::{
    args::{self, AclGet, AclSet, AclWhoAmI, Entry, LETTERS},
    exit::{Doing as _, Failure},
    output, session,
    znode::parse,
};

pub(crate) async fn run(command: &args::Acl) -> Result<(), Failure> {
    match command {
        args::Acl::Get(args) => get(args).await,
        args::Acl::Set(args) => set(args).await,
        args::Acl::Whoami(args) => who_am_i(args).await,
    }
}

async fn get(args: &AclGet) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    session::with(&args.connection, async |client| {
        let (acl, stat) = client.acl(path.as_str()).await?;
        let table = || acl.entries().iter().map(text).collect::<Vec<_>>().join("\n");
        let object = |entry: &AclEntry| {
            json!({
                "scheme": entry.identity.scheme().as_str(),
                "id": entry.identity.id(),
                "permissions": letters(entry.permissions),
            })
        };
        let objects = || acl.entries().iter().map(object).collect::<Vec<_>>();
        args.output.print(table, || json!({"acl": objects(), "aversion": stat.aversion}))
    })
    .await
}

async fn set(args: &AclSet) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    session::with(&args.connection, async |client| {
        let own = match args.entries.iter().any(|entry| matches!(entry, Entry::Own(_))) {
            true => client.who_am_i().await?,
            false => Identities::NONE,
        };
        let acl = list(&args.entries, &own)?;
        let stat = client.set_acl(path.as_str(), acl, args.version.map(Into::into)).await?;
        args.output.print(|| format!("aversion {}", stat.aversion), || output::stat_json(&stat))
    })
    .await
}

async fn who_am_i(args: &AclWhoAmI) -> Result<(), Failure> {
    session::with(&args.connection, async |client| {
        let all = client.who_am_i().await?;
        let all = all.as_slice().iter();
        let line = |i: &Identity| format!("{}:{}", i.scheme(), i.id());
        let object = |i: &Identity| json!({"scheme": i.scheme().as_str(), "id": i.id()});
        args.output.print(
            || all.clone().map(line).collect::<Vec<_>>().join("\n"),
            || json!({"identities": all.clone().map(object).collect::<Vec<_>>()}),
        )
    })
    .await
}

pub(crate) fn list(entries: &[Entry], own: &Identities) -> Result<Acl, Failure> {
    let mut all = Vec::new();
    for entry in entries {
        match entry {
            Entry::Of(entry) => all.push(entry.clone()),
            Entry::Own(_) if own.proven().next().is_none() => {
                return Err(Failure::usage(
                    "auth stands for the identities that you prove, and you prove none: give --auth",
                ));
            }
            Entry::Own(permissions) => all.extend(
                own.proven()
                    .map(|identity| AclEntry { identity: identity.clone(), permissions: *permissions }),
            ),
        }
    }
    Acl::new(all).or_usage()
}

pub(crate) fn text(entry: &AclEntry) -> String {
    format!("{}:{}:{}", entry.identity.scheme(), entry.identity.id(), letters(entry.permissions))
}

pub(crate) fn letters(permissions: Permissions) -> String {
    let given = |bit: &usize| permissions.bits() & (1 << bit) != 0;
    (0..LETTERS.len()).filter(given).filter_map(|bit| LETTERS.get(bit..=bit)).collect()
}

#[cfg(test)]
mod tests {
    use api::Scheme;

    use super::*;

    fn entry(text: &str) -> Result<Entry, String> {
        text.parse()
    }

    #[test]
    fn auth_stands_for_what_is_proven_and_for_nothing_else() {
        let address = Identity::new(Scheme::Ip, "127.0.0.1").unwrap();
        let digest = Identity::new(Scheme::Digest, "ada:hash").unwrap();
        let own = Identities::new([address.clone(), digest]).unwrap();
        let entries = [entry("auth::rw").unwrap(), entry("world:anyone:r").unwrap()];
        let acl = list(&entries, &own).unwrap();
        let texts: Vec<_> = acl.entries().iter().map(text).collect();
        assert_eq!(texts, ["digest:ada:hash:rw", "world:anyone:r"]);
        let refused = list(&entries, &Identities::new([address]).unwrap()).unwrap_err().to_string();
        assert!(refused.contains("--auth"), "{refused}");
    }

    #[test]
    fn entries_are_read_as_they_are_written() {
        for given in ["world:anyone:r", "digest:ada:hash=:rwcda", "ip:fd00::/16:cd", "x509:CN=a,O=b:a"] {
            let Entry::Of(read) = entry(given).unwrap() else { panic!("{given}") };
            assert_eq!(text(&read), given);
        }
        assert_eq!(entry("auth::r"), Ok(Entry::Own(Permissions::READ)));
        for (given, words) in [
            ("world:anyone", "SCHEME:ID:PERMISSIONS"),
            ("world:anyone:", "letters of rwcda"),
            ("world:anyone:rx", "letters of rwcda"),
            ("auth:ada:r", "has no id"),
            ("sasl:ada:r", "is unknown"),
            ("world:some:r", "the only id"),
        ] {
            let refused = entry(given).unwrap_err();
            assert!(refused.contains(words), "{given}: {refused}");
        }
    }
}

//! The identity of a client: its edge proves it, and attaches it to the client's requests.

use std::fmt;

use api::{
    Identities, OpError,
    proof::{Credential, Prover},
    session::{Op, Request},
};

use super::{identities_to_wire, op, request};
use crate::v1;

/// What an edge knows of one client.
#[derive(Clone, Default, Debug)]
pub struct Who {
    prover: Prover,
    identities: Identities,
}

impl Who {
    /// A client of whom the edge has proven this.
    #[must_use]
    pub fn new(prover: Prover, identities: Identities) -> Who {
        Who { prover, identities }
    }

    /// What is proven so far.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Proves more.
    ///
    /// # Errors
    /// If one of the credentials proves nothing; then none of them counts. No error has a part of a secret.
    pub fn prove(&mut self, credentials: Vec<v1::Credential>) -> Result<Identities, OpError> {
        let bad = |e: api::BadAccess| OpError::BadArguments(e.to_string());
        let mut proven = Identities::NONE;
        for credential in credentials {
            let identities = self.prover.prove(&credential_off_wire(credential)?).map_err(bad)?;
            proven = proven.with(&identities).map_err(bad)?;
        }
        self.identities = self.identities.with(&proven).map_err(bad)?;
        Ok(proven)
    }

    /// A request of a session, with what is proven put in for the scheme `auth`.
    pub fn request(&mut self, mut wire: v1::Request) -> Request {
        let credentials = match &mut wire.op {
            Some(v1::request::Op::Authenticate(asked)) => std::mem::take(&mut asked.credentials),
            Some(other) => {
                self.expand(other);
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut request = request(wire);
        if matches!(request.op, Op::Authenticate(_)) {
            request.op = self.prove(credentials).map_or_else(Op::Invalid, Op::Authenticate);
        }
        request
    }

    /// The operation of a call without a session.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn op(&self, wire: impl Into<v1::request::Op>) -> Result<Op, OpError> {
        let mut wire = wire.into();
        self.expand(&mut wire);
        op(wire)
    }

    fn expand(&self, op: &mut v1::request::Op) {
        use v1::{multi_op::Op as Part, request::Op as Wire};
        match op {
            Wire::Create(v1::CreateRequest { acl: Some(acl), .. })
            | Wire::SetAcl(v1::SetAclRequest { acl: Some(acl), .. }) => self.expand_acl(acl),
            Wire::Multi(multi) => {
                for part in &mut multi.ops {
                    if let Some(
                        Part::Create(v1::CreateRequest { acl: Some(acl), .. })
                        | Part::SetAcl(v1::SetAclRequest { acl: Some(acl), .. }),
                    ) = &mut part.op
                    {
                        self.expand_acl(acl);
                    }
                }
            }
            _ => {}
        }
    }

    /// Without anything proven the entry stays, and is refused.
    fn expand_acl(&self, acl: &mut v1::Acl) {
        let is_auth = |entry: &v1::AclEntry| entry.identity.as_ref().is_some_and(|id| id.scheme == "auth");
        if !acl.entries.iter().any(is_auth) || self.identities.proven().next().is_none() {
            return;
        }
        let proven = identities_to_wire(self.identities.proven());
        acl.entries = std::mem::take(&mut acl.entries)
            .into_iter()
            .flat_map(|entry| match is_auth(&entry) {
                true => {
                    let with = |identity: &v1::Identity| v1::AclEntry {
                        identity: Some(identity.clone()),
                        permissions: entry.permissions.clone(),
                    };
                    proven.iter().map(with).collect()
                }
                false => vec![entry],
            })
            .collect();
    }
}

fn credential_off_wire(wire: v1::Credential) -> Result<Credential, OpError> {
    use v1::credential::Credential as Wire;
    match wire.credential {
        Some(Wire::Digest(secret)) => Ok(Credential::Digest(secret)),
        other => {
            let kind = match other {
                Some(Wire::User(_)) => "Credential.user",
                Some(Wire::Bearer(_)) => "Credential.bearer",
                _ => "Credential.credential",
            };
            Err(super::requests::unknown(kind))
        }
    }
}

/// For the wire.
#[must_use]
pub fn credential_to_wire(credential: &Credential) -> v1::Credential {
    let Credential::Digest(secret) = credential;
    v1::Credential { credential: Some(v1::credential::Credential::Digest(secret.clone())) }
}

/// `Debug` of what has a secret says no more than that it is there.
macro_rules! hidden {
    ($($type:ty),+) => {
        $(impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Credential(..)")
            }
        })+
    };
}

hidden!(v1::Credential, v1::credential::Credential, v1::UserPassword);

#[cfg(test)]
mod tests {
    use api::{Acl, Permissions, Scheme, Write};

    use super::*;

    fn digest(secret: &str) -> v1::Credential {
        credential_to_wire(&Credential::Digest(secret.into()))
    }

    fn set_acl(schemes: &[(&str, &str)]) -> v1::SetAclRequest {
        let entry = |&(scheme, id): &(&str, &str)| v1::AclEntry {
            identity: Some(v1::Identity { scheme: scheme.into(), id: id.into() }),
            permissions: vec![v1::Permission::Read.into()],
        };
        let acl = Some(v1::Acl { entries: schemes.iter().map(entry).collect() });
        v1::SetAclRequest { path: "/a".into(), acl, ..Default::default() }
    }

    fn acl(op: Op) -> Acl {
        match op {
            Op::Write(Write::SetAcl { acl, .. }) => acl,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn auth_stands_for_what_is_proven_at_this_place_in_the_order() {
        let address = api::proof::address([127, 0, 0, 1].into());
        let mut who = Who::new(Prover::default(), Identities::new([address]).unwrap());
        let mut ask =
            |op: v1::request::Op| who.request(v1::Request { xid: 1, op: Some(op), ..Default::default() }).op;
        let own = || v1::request::Op::SetAcl(set_acl(&[("auth", ""), ("world", "anyone")]));
        let numbered = |op| v1::Request { write_number: 1, op: Some(op), ..Default::default() };
        assert!(
            matches!(ask(own()), Op::Invalid(OpError::BadAcl(_) | OpError::BadArguments(_))),
            "an address is not proven"
        );
        let proven =
            ask(v1::AuthenticateRequest { credentials: vec![digest("ada:x"), digest("bob:y")] }.into());
        assert!(matches!(proven, Op::Authenticate(proven) if proven.as_slice().len() == 2));
        let list = acl(who.request(numbered(own())).op);
        let schemes: Vec<_> = list.entries().iter().map(|e| (e.identity.scheme(), e.permissions)).collect();
        assert_eq!(
            schemes,
            [
                (Scheme::Digest, Permissions::READ),
                (Scheme::Digest, Permissions::READ),
                (Scheme::World, Permissions::READ)
            ]
        );
        assert_eq!(who.identities().as_slice().len(), 3);
    }

    #[test]
    fn a_credential_that_proves_nothing_is_refused_without_its_secret() {
        let mut who = Who::default();
        let user = v1::UserPassword { user: "ada".into(), password: "hidden".into() };
        let of = |credential| v1::Credential { credential: Some(credential) };
        for bad in [
            of(v1::credential::Credential::User(user)),
            of(v1::credential::Credential::Bearer("hidden".into())),
            digest(&"hidden".repeat(1000)),
            v1::Credential::default(),
        ] {
            let refused = who.prove(vec![digest("ada:hidden"), bad.clone()]).unwrap_err();
            assert!(!refused.to_string().contains("hidden"), "{refused}");
            assert!(!format!("{bad:?}").contains("hidden"));
            assert_eq!(who.identities(), &Identities::NONE, "all or none");
        }
    }
}

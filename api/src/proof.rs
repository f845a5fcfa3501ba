//! How an edge proves the identity of a client. The secret is needed only here: the result are [`Identities`], and no error contains
//! a part of the secret.

use std::{fmt, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

use crate::{BadAccess, Identities, Identity, Scheme};

/// What a client shows. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// ZooKeeper's `user:password`. It proves nothing to others: access lists match its hash.
    Digest(String),
}

impl Credential {
    /// Most bytes of one.
    pub const MAX: usize = 4096;
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Digest(_) => f.write_str("Digest(..)"),
        }
    }
}

/// The means by which the edges of a node prove identities.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Prover {
    superuser: Option<Identity>,
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("superuser", &self.superuser.is_some()).finish()
    }
}

impl Prover {
    /// A client that proves `super_digest`, as in `super:base64(sha1(super:password))`, is the [superuser](Identity::superuser) as well.
    /// `None`: there is no superuser. It is ZooKeeper's `zookeeper.DigestAuthenticationProvider.superDigest`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn new(super_digest: Option<&str>) -> Result<Prover, BadAccess> {
        let digest = |text: &str| {
            let well_formed = text.split_once(':').and_then(|(_, hash)| STANDARD.decode(hash).ok());
            if well_formed.is_none_or(|hash| hash.len() != SHA1) {
                return Err(BadAccess::Form(Scheme::Digest));
            }
            Identity::new(Scheme::Digest, text)
        };
        Ok(Prover { superuser: super_digest.map(digest).transpose()? })
    }

    /// The identities that this proves.
    ///
    /// # Errors
    /// If it is empty or too long, or if the name of the user can be no part of an identity.
    pub fn prove(&self, credential: &Credential) -> Result<Identities, BadAccess> {
        let Credential::Digest(secret) = credential;
        if secret.len() > Credential::MAX {
            return Err(BadAccess::LongCredential(secret.len()));
        }
        let identity = digest(secret)?;
        let superuser = (self.superuser.as_ref() == Some(&identity)).then(Identity::superuser);
        Identities::new([identity].into_iter().chain(superuser))
    }
}

/// The identity of `user:password`: the user, and the hash of all of it. Without a colon all of it is the user.
///
/// # Errors
/// If the user can be no part of an identity.
pub fn digest(secret: &str) -> Result<Identity, BadAccess> {
    let user = secret.split(':').next().unwrap_or_default();
    Identity::new(Scheme::Digest, &format!("{user}:{}", STANDARD.encode(Sha1::digest(secret.as_bytes()))))
}

/// The identity of an address. An IPv4 address that is written as one of IPv6 is the IPv4 address.
#[must_use]
pub fn address(address: IpAddr) -> Identity {
    Identity::of_address(address.to_canonical())
}

/// The identity of a certificate whose subject is written as RFC 2253 has it.
///
/// # Errors
/// If the subject is too long.
pub fn certificate(subject: &str) -> Result<Identity, BadAccess> {
    Identity::new(Scheme::X509, subject)
}

/// Bytes of a hash.
const SHA1: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_that_of_zookeeper() {
        // As `DigestAuthenticationProvider` prints them.
        assert_eq!(digest("super:test").unwrap().id(), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
        assert_eq!(
            digest("a:b:c").unwrap().id().split(':').next(),
            Some("a"),
            "the password may have colons"
        );
        assert!(digest("alone").unwrap().id().starts_with("alone:"));
        assert!(digest(":word").unwrap().id().starts_with(':'));
    }

    #[test]
    fn the_super_digest_makes_the_superuser_and_other_passwords_do_not() {
        let prover = Prover::new(Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=")).unwrap();
        let is_super = |prover: &Prover, secret: &str| {
            let proven = prover.prove(&Credential::Digest(secret.into())).unwrap();
            proven.as_slice().contains(&Identity::superuser())
        };
        assert!(is_super(&prover, "super:test"));
        assert!(!is_super(&prover, "super:other"));
        assert!(!is_super(&Prover::default(), "super:test"), "without the setting there is no superuser");
        for bad in ["super", "super:test", "super:", ""] {
            assert_eq!(Prover::new(Some(bad)), Err(BadAccess::Form(Scheme::Digest)), "{bad}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let credential = Credential::Digest("ada:hidden".into());
        let prover = Prover::new(Some("super:D/InIHSb7yEEbrWz8b9l71RjZJU=")).unwrap();
        let long = prover.prove(&Credential::Digest("hidden".repeat(1000))).unwrap_err();
        let control = prover.prove(&Credential::Digest("hidden\u{1}:x".into())).unwrap_err();
        for text in [format!("{credential:?}"), format!("{prover:?}"), long.to_string(), control.to_string()]
        {
            assert!(!text.contains("hidden") && !text.contains("D/In"), "{text}");
        }
    }

    #[test]
    fn an_address_is_canonical() {
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(address(mapped).id(), "10.1.2.3");
        assert_eq!(address("fd00::1".parse().unwrap()).id(), "fd00::1");
    }
}

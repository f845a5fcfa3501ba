//! What is read from disk.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{prelude::FromDer as _, revocation_list::CertificateRevocationList};

/// The files of one set of ports, all PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Files {
    /// The certificate, and behind it those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key. Nobody but its owner and group may read it.
    pub key: PathBuf,
    /// The authorities that issue the certificates of the other side; several during a change from one to the next. `None`: the other
    /// side needs no certificate.
    pub authorities: Option<PathBuf>,
    /// Revocation lists, one of each authority that has revoked something. A certificate of an authority without one is then refused.
    pub revoked: Option<PathBuf>,
}

/// Why files cannot be used. The message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or unreadable.
    #[error("cannot read {file}: {cause}")]
    Read {
        /// Which.
        file: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// Others may read the key.
    #[error(
        "{file} holds a private key and others may read it: run `chmod o-rwx {file}` (in Kubernetes: defaultMode 0440)"
    )]
    Open {
        /// Which.
        file: PathBuf,
    },
    /// Not PEM, or not what belongs there.
    #[error("{file} has no {what}: {why}")]
    Malformed {
        /// Which.
        file: PathBuf,
        /// What is expected.
        what: &'static str,
        /// The parser's words.
        why: String,
    },
    /// Key and certificate are of different pairs, or rustls cannot use them.
    #[error("the certificate {certificate} and the key {key} do not work together: {why}")]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// In rustls' words.
        why: String,
    },
    /// The certificate does not name this member, or gateway.
    #[error(
        "the certificate {certificate} has another name than this process needs: its alternative names need the DNS name {name}; `quorate certs` \
         issues such certificates"
    )]
    Name {
        /// The certificate.
        certificate: PathBuf,
        /// What it should say.
        name: String,
    },
    /// The authorities do not vouch for this member's own certificate.
    #[error(
        "other members would refuse the certificate {certificate}: {why}. It needs an authority of `authorities`, with the \
         certificates between the two, and the extended key usages of servers and of clients"
    )]
    Useless {
        /// The certificate.
        certificate: PathBuf,
        /// In rustls' words.
        why: String,
    },
    /// A certificate cannot name a member of such an ensemble.
    #[error(
        "no certificate can name a member of the ensemble {0:?}: use lower-case letters, digits and hyphens in its name"
    )]
    Ensemble(String),
    /// The lists of authorities or of what they revoked make no sense.
    #[error("the authorities of {file} cannot be used: {why}")]
    Authorities {
        /// Which.
        file: PathBuf,
        /// In rustls' words.
        why: String,
    },
}

/// What the files hold at one moment.
pub(crate) struct Loaded {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) authorities: Option<Arc<RootCertStore>>,
    pub(crate) revoked: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them has to be replaced, in seconds since 1970.
    pub(crate) revoked_until: Option<i64>,
    /// The bytes of all files, to notice a change.
    pub(crate) bytes: Vec<Vec<u8>>,
}

impl Files {
    pub(crate) fn load(&self, provider: &CryptoProvider) -> Result<Loaded, TlsError> {
        let bytes = self.bytes()?;
        let [certificate, key, ..] = &bytes[..] else { unreachable!("two files are always read") };
        let chain: Vec<CertificateDer<'static>> = all(&self.certificate, "certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| TlsError::Malformed {
            file: self.key.clone(),
            what: "private key",
            why: e.to_string(),
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|e| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            why: e.to_string(),
        })?;
        let mut more = bytes.iter().skip(2);
        let authorities = match (&self.authorities, more.next()) {
            (Some(file), Some(bytes)) => Some(Arc::new(roots(file, bytes)?)),
            _ => None,
        };
        let revoked = match (&self.revoked, bytes.last()) {
            (Some(file), Some(bytes)) => all(file, "revocation list", bytes)?,
            _ => Vec::new(),
        };
        let revoked_until = self.check_revoked(&revoked)?;
        Ok(Loaded { key: Arc::new(key), authorities, revoked, revoked_until, bytes })
    }

    /// When the first of these lists has to be replaced. Of two lists of one authority the first would count, and might be the older.
    fn check_revoked(&self, lists: &[CertificateRevocationListDer<'_>]) -> Result<Option<i64>, TlsError> {
        let file = || self.revoked.clone().unwrap_or_default();
        let (mut issuers, mut until) = (BTreeSet::new(), None);
        for list in lists {
            let (_, parsed) = CertificateRevocationList::from_der(list).map_err(|e| TlsError::Malformed {
                file: file(),
                what: "revocation list",
                why: e.to_string(),
            })?;
            let issuer = parsed.issuer().to_string();
            if !issuers.insert(issuer.clone()) {
                let why = format!("there are two revocation lists of {issuer:?}; keep the newest");
                return Err(TlsError::Authorities { file: file(), why });
            }
            let next = parsed.next_update().map(|time| time.timestamp());
            until = until.into_iter().chain(next).min();
        }
        Ok(until)
    }

    /// What is in the files now, in the order of the fields.
    pub(crate) fn bytes(&self) -> Result<Vec<Vec<u8>>, TlsError> {
        let private = fs::metadata(&self.key).map_err(|cause| unreadable(&self.key, cause))?;
        if private.permissions().mode() & 0o007 != 0 {
            return Err(TlsError::Open { file: self.key.clone() });
        }
        let files =
            [Some(&self.certificate), Some(&self.key), self.authorities.as_ref(), self.revoked.as_ref()];
        files
            .into_iter()
            .flatten()
            .map(|file| fs::read(file).map_err(|cause| unreadable(file, cause)))
            .collect()
    }
}

fn roots(file: &Path, bytes: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in all::<CertificateDer<'static>>(file, "certificate", bytes)? {
        roots
            .add(authority)
            .map_err(|e| TlsError::Authorities { file: file.to_owned(), why: e.to_string() })?;
    }
    Ok(roots)
}

fn all<T: PemObject>(file: &Path, what: &'static str, bytes: &[u8]) -> Result<Vec<T>, TlsError> {
    let malformed = |why: String| TlsError::Malformed { file: file.to_owned(), what, why };
    let found =
        T::pem_slice_iter(bytes).collect::<Result<Vec<T>, _>>().map_err(|e| malformed(e.to_string()))?;
    match found.is_empty() {
        true => Err(malformed(format!("it has no PEM section of a {what}"))),
        false => Ok(found),
    }
}

fn unreadable(file: &Path, cause: io::Error) -> TlsError {
    TlsError::Read { file: file.to_owned(), cause }
}

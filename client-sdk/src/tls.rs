//! TLS to the nodes.

use std::{fmt, fs, io, path::PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Connects by TLS. The certificate of a node has to name the host of the endpoint, as it was given.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    authorities: Option<String>,
    /// Certificate and key.
    identity: Option<(String, String)>,
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {cause}", file.display())]
pub struct TlsFileError {
    /// Which.
    pub file: PathBuf,
    /// The system's error, or that it is not PEM.
    pub cause: io::Error,
}

impl Tls {
    /// Trusts the authorities that browsers trust.
    #[must_use]
    pub fn new() -> Tls {
        Tls::default()
    }

    /// Trusts these authorities only, PEM.
    #[must_use]
    pub fn authorities(self, pem: impl Into<String>) -> Tls {
        Tls { authorities: Some(pem.into()), ..self }
    }

    /// Proves the identity of the client to the nodes by this certificate. Both PEM.
    #[must_use]
    pub fn identity(self, certificate: impl Into<String>, key: impl Into<String>) -> Tls {
        Tls { identity: Some((certificate.into(), key.into())), ..self }
    }

    /// Reads PEM files: the authorities, and certificate and key of the client.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn read(
        authorities: Option<PathBuf>,
        identity: Option<(PathBuf, PathBuf)>,
    ) -> Result<Tls, TlsFileError> {
        let read = |file: PathBuf| match fs::read_to_string(&file) {
            Ok(text) if text.contains("-----BEGIN ") => Ok(text),
            Ok(_) => Err(TlsFileError { file, cause: io::Error::other("it is not PEM") }),
            Err(cause) => Err(TlsFileError { file, cause }),
        };
        let identity = match identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok(Tls { authorities: authorities.map(read).transpose()?, identity })
    }

    pub(crate) fn config(&self) -> ClientTlsConfig {
        let config = match &self.authorities {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

/// Without the key.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("own_authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

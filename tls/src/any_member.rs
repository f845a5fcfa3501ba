//! Who answers where a gateway dials: some member of the ensemble, it does not know which.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::names::{member_name, members_named};

/// Checks everything that webpki checks, for a name that the certificate itself has to carry: that of any member of the ensemble.
#[derive(Debug)]
pub(crate) struct AnyMember {
    inner: Arc<WebPkiServerVerifier>,
    ensemble: String,
}

impl AnyMember {
    pub(crate) fn new(inner: Arc<WebPkiServerVerifier>, ensemble: String) -> AnyMember {
        AnyMember { inner, ensemble }
    }
}

/// The name of the member that a certificate speaks for; of the first, if of several.
pub(crate) fn member_of(leaf: &CertificateDer<'_>, ensemble: &str) -> Option<ServerName<'static>> {
    let member = *members_named(leaf, ensemble).first()?;
    ServerName::try_from(member_name(ensemble, member)).ok()
}

impl ServerCertVerifier for AnyMember {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = member_of(leaf, &self.ensemble);
        let name = name.ok_or(Error::InvalidCertificate(CertificateError::NotValidForName))?;
        self.inner.verify_server_cert(leaf, between, &name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

//! An authority of one's own: `quorate certs`.

use std::time::{Duration, SystemTime};

use api::PeerId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    gateway_name, member_name,
    names::{Validity, validity},
};

/// Issues certificates for an ensemble and its clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: String,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
#[error("cannot issue the certificate: {0}")]
pub struct IssueError(#[from] rcgen::Error);

/// A certificate and its private key, both PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The key: for its owner alone.
    pub key: String,
}

impl Authority {
    /// A new authority of this name, valid for `life`.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new(name: &str, life: Duration) -> Result<Authority, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = params(name, life)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok(Authority { issuer: Issuer::new(params, key), certificate, key: pem })
    }

    /// One that was written before.
    ///
    /// # Errors
    /// If the PEM texts are not those of an authority.
    pub fn read(certificate: &str, key: &str) -> Result<Authority, IssueError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        Ok(Authority { issuer, certificate: certificate.to_owned(), key: key.to_owned() })
    }

    /// Its certificate, PEM: what others have to trust.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its private key, PEM. It issues any certificate: keep it away from the nodes.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// For a member's port of members, and to dial others. `hosts`: further names and addresses.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn issue_member(
        &self,
        ensemble: &str,
        id: PeerId,
        hosts: &[String],
        life: Duration,
    ) -> Result<Issued, IssueError> {
        let name = member_name(ensemble, id);
        let names: Vec<String> = [&name].into_iter().chain(hosts).cloned().collect();
        self.issue(&name, names, vec![Purpose::ServerAuth, Purpose::ClientAuth], life)
    }

    /// For a gateway, to dial stores.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn issue_gateway(&self, ensemble: &str, life: Duration) -> Result<Issued, IssueError> {
        let name = gateway_name(ensemble);
        self.issue(&name, vec![name.clone()], vec![Purpose::ClientAuth], life)
    }

    /// For a port of clients that is reached by these names and addresses.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn issue_server(&self, name: &str, hosts: &[String], life: Duration) -> Result<Issued, IssueError> {
        self.issue(name, hosts.to_vec(), vec![Purpose::ServerAuth], life)
    }

    /// For a client of this name.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn issue_client(&self, name: &str, life: Duration) -> Result<Issued, IssueError> {
        self.issue(name, Vec::new(), vec![Purpose::ClientAuth], life)
    }

    fn issue(
        &self,
        name: &str,
        names: Vec<String>,
        purposes: Vec<Purpose>,
        life: Duration,
    ) -> Result<Issued, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = params(name, life)?;
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into()?),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Whether a certificate, PEM, is in the second half of its life, or none that can be read.
#[must_use]
pub fn is_due(certificate: &str, now: SystemTime) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(certificate.as_bytes()) else { return true };
    let Validity { from, until } = validity(&der);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    until - now < (until - from) / 2
}

fn params(name: &str, life: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    // Clocks of other machines may be a little behind.
    params.not_before = (now - CLOCKS).into();
    params.not_after = (now + life).into();
    Ok(params)
}

/// How far clocks may differ.
const CLOCKS: Duration = Duration::from_secs(300);

//! The certificates of one set of ports, as they are now.

use std::{
    fmt, io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use api::PeerId;
use rustls::{
    ClientConfig, ServerConfig,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use telemetry::{TlsUse, metrics};
use tokio_util::sync::CancellationToken;

use crate::{
    Files, TlsError,
    files::Loaded,
    names::{Validity, member_name, members_named, validity},
};

/// Whose certificates the other side has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Certificates {
    /// Members of this ensemble, on both sides. TLS 1.3.
    Members {
        /// Its name.
        ensemble: String,
        /// This member.
        me: PeerId,
    },
    /// Clients: theirs are checked if the files have authorities. TLS 1.2 or 1.3.
    Clients {
        /// Whether a client without one is refused.
        required: bool,
    },
}

/// Reads the files of one set of ports, and reads them again when they change.
pub struct Keeper {
    files: Files,
    certificates: Certificates,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Current>>,
    /// Grows with each change of the files.
    generation: AtomicU64,
}

/// Everything that follows from the files. A reload makes all of it anew, so that nothing old is resumed.
pub(crate) struct Current {
    bytes: Vec<Vec<u8>>,
    pub(crate) server: Arc<ServerConfig>,
    /// For those who dial other members.
    pub(crate) client: Option<Arc<ClientConfig>>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    validity: Validity,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper")
            .field("files", &self.files)
            .field("certificates", &self.certificates)
            .finish()
    }
}

impl Keeper {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be used, with the remedy.
    pub fn load(files: Files, certificates: Certificates) -> Result<Arc<Keeper>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let loaded = files.load(&provider)?;
        let current = RwLock::new(Arc::new(make(&files, &certificates, &provider, loaded)?));
        let keeper = Keeper { files, certificates, provider, current, generation: AtomicU64::new(0) };
        keeper.report();
        Ok(Arc::new(keeper))
    }

    /// Looks at the files now and then, until `shutdown` is cancelled. A change that cannot be used is reported and the certificates
    /// before it stay.
    pub async fn keep(self: Arc<Keeper>, shutdown: CancellationToken) {
        let mut complaint = String::new();
        let look = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let this = self.clone();
                let read = tokio::task::spawn_blocking(move || this.reload()).await;
                match read.unwrap_or_else(|e| Err(self.unreadable(e))) {
                    Ok(false) => {}
                    Ok(true) => {
                        complaint.clear();
                        tracing::info!(certificate = %self.files.certificate.display(), "certificates changed; in use now");
                    }
                    Err(why) => {
                        let why = why.to_string();
                        if why != complaint {
                            tracing::warn!(
                                reason = why,
                                "changed certificates cannot be used; those before stay"
                            );
                            complaint = why;
                        }
                    }
                }
                self.report();
            }
        };
        shutdown.run_until_cancelled(look).await;
    }

    /// Reads the files again, and says whether they have changed.
    ///
    /// # Errors
    /// A file that cannot be used: the certificates before it stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        if self.files.bytes()? == self.current().bytes {
            return Ok(false);
        }
        let loaded = self.files.load(&self.provider)?;
        let made = make(&self.files, &self.certificates, &self.provider, loaded)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
        self.generation.fetch_add(1, SeqCst);
        Ok(true)
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same with another side for dialling.
    #[cfg(test)]
    pub(crate) fn with_client(&self, client: ClientConfig) -> Arc<Keeper> {
        let now = self.current();
        let current = Current {
            bytes: now.bytes.clone(),
            server: now.server.clone(),
            client: Some(Arc::new(client)),
            verifier: now.verifier.clone(),
            validity: now.validity,
        };
        Arc::new(Keeper {
            files: self.files.clone(),
            certificates: self.certificates.clone(),
            provider: self.provider.clone(),
            current: RwLock::new(Arc::new(current)),
            generation: AtomicU64::new(0),
        })
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    pub(crate) fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Whether a chain that was good when its connection began is good now: not expired, not revoked, of a present authority.
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let current = self.current();
        match (&current.verifier, chain.split_first()) {
            (Some(verifier), Some((leaf, between))) => {
                verifier.verify_client_cert(leaf, between, UnixTime::now()).is_ok()
            }
            _ => true,
        }
    }

    /// Tells metrics, and the log in time, when the certificate expires.
    fn report(&self) {
        let (Validity { from, until }, ports) = (self.current().validity, self.ports());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let left = until - now;
        let expires = Duration::from_secs(until.try_into().unwrap_or(0));
        metrics::TLS_CERTIFICATE_EXPIRES.at(ports).set_time(expires);
        let life = (until - from).max(1);
        if left * 3 < life {
            let (file, hours) = (self.files.certificate.display(), left / 3600);
            tracing::warn!(certificate = %file, hours_left = hours, "certificate expires; renew it (`quorate certs renew`)");
        }
    }

    fn ports(&self) -> TlsUse {
        match self.certificates {
            Certificates::Members { .. } => TlsUse::Members,
            Certificates::Clients { .. } => TlsUse::Clients,
        }
    }

    fn unreadable(&self, e: tokio::task::JoinError) -> TlsError {
        TlsError::Read { file: self.files.certificate.clone(), cause: io::Error::other(e) }
    }
}

fn make(
    files: &Files,
    certificates: &Certificates,
    provider: &Arc<CryptoProvider>,
    loaded: Loaded,
) -> Result<Current, TlsError> {
    let Loaded { key, authorities, revoked, bytes } = loaded;
    let pair = |e: rustls::Error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        why: e.to_string(),
    };
    let authority = |why: String| TlsError::Authorities {
        file: files.authorities.clone().unwrap_or_else(|| files.certificate.clone()),
        why,
    };
    let leaf = key.cert.first().ok_or_else(|| pair(rustls::Error::NoCertificatesPresented))?;
    let validity = validity(leaf);
    let (versions, required, dials) = match certificates {
        Certificates::Members { ensemble, me } => {
            let name = member_name(ensemble, *me);
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(TlsError::Ensemble(ensemble.clone()));
            }
            if !members_named(leaf, ensemble).contains(me) {
                return Err(TlsError::Name { certificate: files.certificate.clone(), name });
            }
            if authorities.is_none() {
                return Err(authority("members need the authority that issues their certificates".into()));
            }
            (&[&TLS13][..], true, true)
        }
        Certificates::Clients { required } => {
            if *required && authorities.is_none() {
                return Err(authority("certificates of clients are required and no authority is set".into()));
            }
            (&[&TLS13, &TLS12][..], *required, false)
        }
    };
    let verifier = match &authorities {
        None => None,
        Some(roots) => {
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                .with_crls(revoked.clone())
                .enforce_revocation_expiration();
            if !required {
                verifier = verifier.allow_unauthenticated();
            }
            Some(verifier.build().map_err(|e| authority(e.to_string()))?)
        }
    };
    let own = Arc::new(SingleCertAndKey::from(key));
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(pair)?;
    let server = match &verifier {
        Some(verifier) => server.with_client_cert_verifier(verifier.clone()),
        None => server.with_no_client_auth(),
    };
    let mut server = server.with_cert_resolver(own.clone());
    // A resumed connection skips the check of its certificate.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.alpn_protocols = vec![HTTP2.to_vec()];
    let client = match (dials, authorities) {
        (true, Some(roots)) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .with_crls(revoked)
                .enforce_revocation_expiration()
                .build()
                .map_err(|e| authority(e.to_string()))?;
            let mut client = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(versions)
                .map_err(pair)?
                .with_webpki_verifier(verifier)
                .with_client_cert_resolver(own);
            client.resumption = rustls::client::Resumption::disabled();
            client.alpn_protocols = vec![HTTP2.to_vec()];
            Some(Arc::new(client))
        }
        _ => None,
    };
    Ok(Current { bytes, server: Arc::new(server), client, verifier, validity })
}

/// What gRPC says in the handshake that it speaks (RFC 7301, RFC 9113).
pub(crate) const HTTP2: &[u8] = b"h2";
/// How often the files are looked at. Kubernetes swaps a link when a secret changes, which no watch of a file sees.
const LOOK_EVERY: Duration = Duration::from_secs(30);

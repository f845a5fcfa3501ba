//! The certificates of one set of ports, as they are now.

use std::{
    fmt, io,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use api::PeerId;
use rustls::{
    ClientConfig, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
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
    any_member::AnyMember,
    files::Loaded,
    names::{Validity, carries, gateway_name, member_name, validity},
    trust::Side,
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
    /// Whoever reads probes and metrics, which need certificates if the files have authorities. TLS 1.2 or 1.3.
    Readers,
    /// Stores of this ensemble, which a gateway dials. TLS 1.3.
    Stores {
        /// Its name.
        ensemble: String,
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

/// Everything that follows from the files. A reload makes all of it again, so that nothing old is resumed.
pub(crate) struct Current {
    bytes: Vec<Vec<u8>>,
    /// For ports whose clients have to say that they speak HTTP/2, ...
    pub(crate) http2: Arc<ServerConfig>,
    /// ... and for those whose clients say nothing of the kind.
    pub(crate) any: Arc<ServerConfig>,
    /// For those who dial other members.
    pub(crate) client: Option<Arc<ClientConfig>>,
    of_clients: Option<Arc<dyn ClientCertVerifier>>,
    of_servers: Option<Arc<WebPkiServerVerifier>>,
    validity: Validity,
    /// When the first of the revocation lists is good no more, in seconds since 1970.
    lists_until: Option<i64>,
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
        let (mut complaint, mut warned) = (String::new(), None);
        let look = async {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let this = self.clone();
                let read = tokio::task::spawn_blocking(move || this.reload()).await;
                match read.unwrap_or_else(|e| Err(self.unreadable(e))) {
                    Ok(false) => complaint.clear(),
                    Ok(true) => {
                        complaint.clear();
                        tracing::info!(certificate = %self.files.certificate.display(), "certificates changed; in use now");
                    }
                    Err(why) => {
                        let why = why.to_string();
                        metrics::TLS_RELOAD_FAILURES.add(1);
                        if why != complaint {
                            tracing::warn!(
                                reason = why,
                                "changed certificates cannot be used; the previous ones stay in use"
                            );
                            complaint = why;
                        }
                    }
                }
                self.report();
                if warned.is_none_or(|at: Instant| at.elapsed() > WARN_EVERY) && self.warn() {
                    warned = Some(Instant::now());
                }
            }
        };
        shutdown.run_until_cancelled(look).await;
    }

    /// Reads the files again, and says whether they have changed.
    ///
    /// # Errors
    /// A file that cannot be used: the certificates before it stay.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let bytes = self.files.bytes()?;
        if bytes == self.current().bytes {
            return Ok(false);
        }
        // A file that is being written may look whole between two writes.
        std::thread::sleep(SETTLED);
        if self.files.bytes()? != bytes {
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
            http2: now.http2.clone(),
            any: now.any.clone(),
            client: Some(Arc::new(client)),
            of_clients: now.of_clients.clone(),
            of_servers: now.of_servers.clone(),
            validity: now.validity,
            lists_until: now.lists_until,
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
    pub(crate) fn trusts(&self, chain: &[CertificateDer<'static>], side: &Side) -> bool {
        let current = self.current();
        let Some((leaf, between)) = chain.split_first() else { return false };
        let now = UnixTime::now();
        match (side, &current.of_clients, &current.of_servers) {
            (Side::Client, Some(verifier), _) => verifier.verify_client_cert(leaf, between, now).is_ok(),
            (Side::Server(name), _, Some(verifier)) => {
                verifier.verify_server_cert(leaf, between, name, &[], now).is_ok()
            }
            // The authorities were taken away: clients need no certificate any more.
            (Side::Client, None, _) => true,
            (Side::Server(_), _, None) => false,
        }
    }

    /// Tells metrics when the certificate and the revocation lists expire.
    fn report(&self) {
        let (current, ports) = (self.current(), self.ports());
        let time = |at: i64| Duration::from_secs(at.try_into().unwrap_or(0));
        metrics::TLS_CERTIFICATE_EXPIRES.at(ports).set_time(time(current.validity.until));
        metrics::TLS_REVOCATIONS_EXPIRE.at(ports).set_time(time(current.lists_until.unwrap_or(0)));
    }

    /// Warns in the last third of the certificate's life, and in the last hours of a revocation list.
    fn warn(&self) -> bool {
        let current = self.current();
        let Validity { from, until } = current.validity;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
        let (file, certificate_due) =
            (self.files.certificate.display(), (until - now) * 3 < (until - from).max(1));
        if certificate_due {
            tracing::warn!(certificate = %file, hours_left = (until - now) / HOUR, "certificate expires; renew it");
        }
        let lists = current.lists_until.map(|until| (until - now) / HOUR).filter(|hours| *hours < LIST_HOURS);
        if let Some(hours_left) = lists {
            tracing::warn!(certificate = %file, hours_left, "revocation list expires; put a newer one in its place");
        }
        certificate_due || lists.is_some()
    }

    fn ports(&self) -> TlsUse {
        match self.certificates {
            Certificates::Members { .. } => TlsUse::Members,
            Certificates::Clients { .. } => TlsUse::Clients,
            Certificates::Readers => TlsUse::Http,
            Certificates::Stores { .. } => TlsUse::Gateway,
        }
    }

    fn unreadable(&self, e: tokio::task::JoinError) -> TlsError {
        TlsError::Read { file: self.files.certificate.clone(), cause: io::Error::other(e) }
    }
}

/// Everything that follows from what the files hold.
fn make(
    files: &Files,
    certificates: &Certificates,
    provider: &Arc<CryptoProvider>,
    loaded: Loaded,
) -> Result<Current, TlsError> {
    let Loaded { key, authorities, revoked, revoked_until, bytes } = loaded;
    let pair = |e: rustls::Error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        why: e.to_string(),
    };
    let authority = |why: String| TlsError::Authorities {
        file: files.authorities.clone().unwrap_or_else(|| files.certificate.clone()),
        why,
    };
    let chain = key.cert.clone();
    let leaf = chain.first().ok_or_else(|| pair(rustls::Error::NoCertificatesPresented))?;
    let validity = validity(leaf);
    let (versions, required, name) = match certificates {
        Certificates::Members { ensemble, me } => {
            if authorities.is_none() {
                return Err(authority("members need the authority that issues their certificates".into()));
            }
            (&[&TLS13][..], true, Some(own_name(files, ensemble, member_name(ensemble, *me), leaf)?))
        }
        Certificates::Clients { required } => {
            if *required && authorities.is_none() {
                return Err(authority("certificates of clients are required and no authority is set".into()));
            }
            (&[&TLS13, &TLS12][..], *required, None)
        }
        Certificates::Readers => (&[&TLS13, &TLS12][..], authorities.is_some(), None),
        Certificates::Stores { ensemble } => {
            if authorities.is_none() {
                return Err(authority(
                    "a gateway needs the authority that issues members' certificates".into(),
                ));
            }
            (&[&TLS13][..], true, Some(own_name(files, ensemble, gateway_name(ensemble), leaf)?))
        }
    };
    let dials_any = match certificates {
        Certificates::Stores { ensemble } => Some(ensemble.clone()),
        _ => None,
    };
    let of_clients = |revoked, required: bool| {
        let Some(roots) = &authorities else { return Ok(None) };
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls(revoked)
            .enforce_revocation_expiration();
        if !required {
            verifier = verifier.allow_unauthenticated();
        }
        verifier.build().map(Some).map_err(|e| authority(e.to_string()))
    };
    let of_servers = |revoked| {
        let Some(roots) = authorities.as_ref().filter(|_| name.is_some()) else { return Ok(None) };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .with_crls(revoked)
            .enforce_revocation_expiration();
        verifier.build().map(Some).map_err(|e| authority(e.to_string()))
    };
    if let (Some(name), Some((leaf, between))) = (&name, chain.split_first()) {
        // Others would refuse it. Whether it was revoked is left out: a list that says so has to come into effect all the same.
        let now = UnixTime::now();
        let client =
            of_clients(Vec::new(), true)?.map(|v| v.verify_client_cert(leaf, between, now).map(drop));
        // A gateway only dials.
        let server = of_servers(Vec::new())?
            .filter(|_| dials_any.is_none())
            .map(|v| v.verify_server_cert(leaf, between, name, &[], now).map(drop));
        if let Some(Err(e)) = client.into_iter().chain(server).find(Result::is_err) {
            return Err(TlsError::Useless { certificate: files.certificate.clone(), why: e.to_string() });
        }
    }
    let (of_clients, of_servers) = (of_clients(revoked.clone(), required)?, of_servers(revoked)?);
    let own = Arc::new(SingleCertAndKey::from(key));
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(pair)?;
    let server = match &of_clients {
        Some(verifier) => server.with_client_cert_verifier(verifier.clone()),
        None => server.with_no_client_auth(),
    };
    let mut any = server.with_cert_resolver(own.clone());
    // A resumed connection skips the check of its certificate.
    any.session_storage = Arc::new(NoServerSessionStorage {});
    any.send_tls13_tickets = 0;
    let mut http2 = any.clone();
    http2.alpn_protocols = vec![HTTP2.to_vec()];
    let client = match &of_servers {
        Some(verifier) => {
            let client = ClientConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(versions)
                .map_err(pair)?;
            let client = match dials_any {
                Some(ensemble) => client
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyMember::new(verifier.clone(), ensemble))),
                None => client.with_webpki_verifier(verifier.clone()),
            };
            let mut client = client.with_client_cert_resolver(own);
            client.resumption = rustls::client::Resumption::disabled();
            client.alpn_protocols = vec![HTTP2.to_vec()];
            Some(Arc::new(client))
        }
        None => None,
    };
    let (http2, any) = (Arc::new(http2), Arc::new(any));
    Ok(Current { bytes, http2, any, client, of_clients, of_servers, validity, lists_until: revoked_until })
}

/// The own name, which the certificate has to carry.
fn own_name(
    files: &Files,
    ensemble: &str,
    name: String,
    leaf: &CertificateDer<'_>,
) -> Result<ServerName<'static>, TlsError> {
    // Names of hosts know no upper case: two ensembles could not be told apart.
    let server = ServerName::try_from(name.clone()).ok().filter(|_| !ensemble.contains(char::is_uppercase));
    let server = server.ok_or_else(|| TlsError::Ensemble(ensemble.to_owned()))?;
    if !carries(leaf, &name) {
        return Err(TlsError::Name { certificate: files.certificate.clone(), name });
    }
    Ok(server)
}

/// What gRPC says in the handshake that it speaks (RFC 7301, RFC 9113).
pub(crate) const HTTP2: &[u8] = b"h2";
/// How often the files are looked at. Kubernetes swaps a link when a secret changes, which no watch of a file sees.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Time without a change after which a file counts as written.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two warnings that a certificate expires.
const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// A revocation list is replaced with more hours left than this.
const LIST_HOURS: i64 = 6;
/// In seconds.
const HOUR: i64 = 3_600;

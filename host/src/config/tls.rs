//! The settings of TLS.

use std::path::PathBuf;

use ::tls::{Files, Mode};
use api::PeerId;

use super::{Layers, Setting};

/// TLS of all ports of a node.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Tls {
    /// The ports of quorum-svc and election-svc, and connections to those of others; also those of the internal ports that other
    /// machines reach.
    pub members: Secured,
    /// The client API and ZooKeeper's port.
    pub clients: Secured,
    /// Whether a client without a certificate is refused.
    pub client_certificates: bool,
    /// Probes and metrics. With authorities, whoever asks from another machine needs a certificate of theirs.
    pub http: Secured,
}

/// One set of ports.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Secured {
    /// Plaintext, TLS, or both.
    pub mode: Mode,
    /// `None` if the mode is off.
    pub files: Option<Files>,
}

impl Setting for Mode {
    const EXPECTED: &'static str = "\"off\", \"accept\", \"prefer\" or \"require\"";

    fn parse(text: &str) -> Option<Mode> {
        [Mode::Off, Mode::Accept, Mode::Prefer, Mode::Require].into_iter().find(|mode| name(*mode) == text)
    }

    fn to_toml(&self) -> String {
        format!("\"{}\"", name(*self))
    }
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Accept => "accept",
        Mode::Prefer => "prefer",
        Mode::Require => "require",
    }
}

/// The keys of one set of ports.
struct Keys {
    mode: &'static str,
    certificate: &'static str,
    key: &'static str,
    authorities: &'static str,
    revoked: &'static str,
}

const MEMBERS: Keys = Keys {
    mode: "tls.members.mode",
    certificate: "tls.members.certificate",
    key: "tls.members.key",
    authorities: "tls.members.authorities",
    revoked: "tls.members.revoked",
};

const CLIENTS: Keys = Keys {
    mode: "tls.clients.mode",
    certificate: "tls.clients.certificate",
    key: "tls.clients.key",
    authorities: "tls.clients.authorities",
    revoked: "tls.clients.revoked",
};

const HTTP: Keys = Keys {
    mode: "tls.http.mode",
    certificate: "tls.http.certificate",
    key: "tls.http.key",
    authorities: "tls.http.authorities",
    revoked: "tls.http.revoked",
};

/// Key of the setting that demands certificates of clients.
const CLIENT_CERTIFICATES: &str = "tls.clients.require_certificates";

/// In the path of a file, this stands for the id of the node, so that all nodes can have one configuration.
const ID: &str = "{id}";

impl Tls {
    pub(super) fn read(r: &mut Layers, id: PeerId) -> Tls {
        let members = secured(
            r,
            &MEMBERS,
            None,
            [
                "TLS between members: off, accept (TLS and plaintext), prefer (the same, and dials by TLS), require; restart all \
                 members with one after the other to change without downtime",
                "PEM file of this member's certificate; its DNS name is member-ID.ENSEMBLE.quorate; {id} in the path is its id",
                "PEM file of its private key; {id} in the path is its id",
                "PEM file of the authorities of all members' certificates",
                "PEM file of the authorities' revocation lists; empty for none",
            ],
        )
        .of_node(id);
        if members.mode != Mode::Off && members.files.as_ref().is_some_and(|f| f.authorities.is_none()) {
            r.missing::<()>(MEMBERS.authorities, "the file with the authorities of members' certificates");
        }
        let (clients, client_certificates) = Tls::clients(r);
        let http = Tls::http(r, &clients).of_node(id);
        let clients = clients.of_node(id);
        Tls { members, clients, client_certificates, http }
    }

    /// Of the ports for clients, and whether they need a certificate.
    pub(super) fn clients(r: &mut Layers) -> (Secured, bool) {
        let clients = secured(
            r,
            &CLIENTS,
            None,
            [
                "TLS of the client API and of ZooKeeper's port: off, accept (TLS and plaintext), require",
                "PEM file of the certificate that clients see, with those between it and its authority",
                "PEM file of its private key",
                "PEM file of the authorities of clients' certificates; empty: clients need none",
                "PEM file of these authorities' revocation lists; empty for none",
            ],
        );
        let client_certificates =
            r.get(CLIENT_CERTIFICATES, "whether clients without a certificate are refused", false);
        if client_certificates && clients.mode != Mode::Require {
            r.refuse(
                CLIENT_CERTIFICATES,
                "false while tls.clients.mode is not \"require\": plaintext has no certificates",
            );
        }
        if clients.mode == Mode::Prefer {
            r.refuse(CLIENTS.mode, NO_DIALLING);
        }
        if let Some(files) = &clients.files
            && client_certificates
            && files.authorities.is_none()
        {
            r.missing::<()>(CLIENTS.authorities, "the file with the authorities of clients' certificates");
        }
        (clients, client_certificates)
    }

    /// Of the port of probes and metrics, which follows that of clients.
    pub(super) fn http(r: &mut Layers, clients: &Secured) -> Secured {
        let http = secured(
            r,
            &HTTP,
            Some(clients),
            [
                "TLS of probes and metrics: off, accept (TLS and plaintext), require; left out: as tls.clients.mode. From this machine \
                 plaintext is always accepted",
                "PEM file of the certificate that probes and monitoring see; left out: that of tls.clients",
                "PEM file of its private key; left out: that of tls.clients",
                "PEM file of the authorities of the certificates that other machines need; empty: they need none",
                "PEM file of these authorities' revocation lists; empty for none",
            ],
        );
        if http.mode == Mode::Prefer {
            r.refuse(HTTP.mode, NO_DIALLING);
        }
        http
    }
}

impl Secured {
    /// With the files of this node, where their paths leave its id open.
    fn of_node(self, id: PeerId) -> Secured {
        let of = |path: PathBuf| match path.to_str() {
            Some(text) if text.contains(ID) => PathBuf::from(text.replace(ID, &id.to_string())),
            _ => path,
        };
        let files = self.files.map(|Files { certificate, key, authorities, revoked }| Files {
            certificate: of(certificate),
            key: of(key),
            authorities: authorities.map(of),
            revoked: revoked.map(of),
        });
        Secured { files, ..self }
    }
}

/// `like`: the ports whose mode and certificate count where these have none of their own.
fn secured(r: &mut Layers, keys: &Keys, like: Option<&Secured>, meanings: [&'static str; 5]) -> Secured {
    let [mode, certificate, key, authorities, revoked] = meanings;
    let mode = match like {
        Some(like) => r.get_following(keys.mode, mode, like.mode, CLIENTS.mode),
        None => r.get(keys.mode, mode, Mode::Off),
    };
    let certificate = r.path(keys.certificate, certificate);
    let key = r.path(keys.key, key);
    let (authorities, revoked) = (r.path(keys.authorities, authorities), r.path(keys.revoked, revoked));
    if revoked.is_some() && authorities.is_none() {
        r.missing::<()>(keys.authorities, "the file with the authorities whose lists these are");
    }
    if mode == Mode::Off {
        let files = [&certificate, &key, &authorities, &revoked];
        if !r.is_given(keys.mode) && files.into_iter().any(Option::is_some) {
            r.missing::<()>(keys.mode, "`require`, or `off` to leave the certificates unused,");
        }
        return Secured::default();
    }
    let theirs = like.and_then(|like| like.files.clone()).filter(|_| certificate.is_none() && key.is_none());
    let (certificate, key) = match theirs {
        Some(files) => (Some(files.certificate), Some(files.key)),
        None => (certificate, key),
    };
    let mut required = |key, file: Option<PathBuf>| {
        file.unwrap_or_else(|| r.missing(key, "the path of a PEM file (`quorate certs` makes some)"))
    };
    let (certificate, key) = (required(keys.certificate, certificate), required(keys.key, key));
    Secured { mode, files: Some(Files { certificate, key, authorities, revoked }) }
}

const NO_DIALLING: &str = "\"off\", \"accept\" or \"require\": nothing dials clients";

//! The settings of a gateway in a process of its own.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use ::tls::Files;
use api::proof::Prover;

use super::{
    ConfigError, Effective, HOST_KEY, HTTP_KEY, Layers, OptionalPort, Secured, Size, Tls, ZOOKEEPER_KEY,
    ZOOKEEPER_PORT, ZooKeeper, check, plaintext,
    read::{drain, memory, prover, words},
};

/// The checked configuration of a gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct GatewayConfig {
    /// Name of the ensemble; stores of another one refuse the gateway.
    pub ensemble: String,
    /// The internal ports of the stores, as `http://host:port`, `https://host:port` or `unix:/path`; at least one.
    pub stores: Vec<String>,
    /// Where ZooKeeper's clients come.
    pub zookeeper: SocketAddr,
    /// Probes, metrics and commands; `None` for off.
    pub http: Option<SocketAddr>,
    /// Whether ports outside the loopback interface may accept plaintext.
    pub insecure: bool,
    /// TLS of ZooKeeper's port.
    pub clients: Secured,
    /// Whether a client without a certificate is refused.
    pub client_certificates: bool,
    /// TLS of probes, metrics and commands.
    pub http_tls: Secured,
    /// The certificate that the gateway shows to stores at `https://` addresses.
    pub store_files: Option<Files>,
    /// What ZooKeeper's clients may ask besides their protocol.
    pub words: ZooKeeper,
    /// What clients prove their identities with.
    pub prover: Prover,
    /// What this process should not exceed.
    pub memory: Size,
    /// How long connections may take to end on shutdown.
    pub drain: Duration,
}

/// Default port of plain HTTP of a gateway: the next after those of a node's services.
const GATEWAY_HTTP_PORT: u16 = 9467;

/// Reads and checks the settings of a gateway, as [`load`](super::load) does those of a node.
///
/// # Errors
/// As there.
pub fn load_gateway(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<(GatewayConfig, Vec<Effective>), ConfigError> {
    let mut layers = Layers::new(file, env, flags)?;
    let config = GatewayConfig::read(&mut layers);
    Ok((config, layers.finish()?))
}

impl GatewayConfig {
    fn read(r: &mut Layers) -> GatewayConfig {
        const STORES: &str = "gateway.stores";
        let ensemble = r.require("ensemble", "name of the ensemble", String::new(), "ensemble = \"NAME\"");
        let stores = r.require(
            STORES,
            "internal ports of the stores (`listen.internal_store_port` of the nodes), with commas between them",
            String::new(),
            "stores = \"https://q1.example:2189,https://q2.example:2189\" below [gateway]",
        );
        let stores: Vec<String> =
            stores.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        let host = r.get(HOST_KEY, "IP address to listen on", IpAddr::from([0; 4]));
        let port = r.get(ZOOKEEPER_KEY, "port for ZooKeeper's clients; 0: any", ZOOKEEPER_PORT);
        let http = r.get(
            HTTP_KEY,
            "port of probes, metrics and commands; 0: any, off: none",
            OptionalPort(Some(GATEWAY_HTTP_PORT)),
        );
        let insecure = plaintext::insecure(r);
        let (clients, client_certificates) = Tls::clients(r);
        let http_tls = Tls::http(r, &clients);
        let store_files = store_files(r);
        if let Some(wrong) = stores.iter().find(|url| !check::service(url, store_files.is_some())) {
            r.problem(&format!(
                "`{STORES}` has {wrong:?}; expected an address such as \"https://q1.example:2189\", for which [tls.stores] needs \
                 certificate, key and authorities, \"http://127.0.0.1:2189\" or \"unix:/run/quorate/store.sock\""
            ));
        }
        let config = GatewayConfig {
            ensemble,
            stores,
            zookeeper: SocketAddr::new(host, port),
            http: http.0.map(|port| SocketAddr::new(host, port)),
            words: words(r),
            prover: prover(r),
            memory: memory(r),
            drain: drain(r),
            insecure,
            clients,
            client_certificates,
            http_tls,
            store_files,
        };
        config.check_plaintext(r);
        config
    }
}

/// All or none.
fn store_files(r: &mut Layers) -> Option<Files> {
    const KEYS: [(&str, &str); 3] = [
        (
            "tls.stores.certificate",
            "PEM file of the certificate that stores see; its DNS name is gateway.ENSEMBLE.quorate",
        ),
        ("tls.stores.key", "PEM file of its private key"),
        ("tls.stores.authorities", "PEM file of the authorities of members' certificates"),
    ];
    let files = KEYS.map(|(key, meaning)| r.path(key, meaning));
    if files.iter().all(Option::is_none) {
        return None;
    }
    for ((key, _), _) in KEYS.iter().zip(&files).filter(|(_, file)| file.is_none()) {
        r.missing::<()>(key, "the path of a PEM file (`quorate certs` makes gateway.pem and gateway.key)");
    }
    let [certificate, key, authorities] = files;
    Some(Files { certificate: certificate?, key: key?, authorities: Some(authorities?), revoked: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_gateway_needs_an_ensemble_and_stores() {
        let set = [
            ("ensemble", "orders"),
            ("gateway.stores", "http://a:1, http://b:2"),
            ("listen.http_port", "off"),
            ("listen.host", "127.0.0.1"),
        ];
        let (config, _) = load_gateway(None, [], &flags(&set)).unwrap();
        assert_eq!(config.stores, ["http://a:1", "http://b:2"]);
        assert_eq!((config.zookeeper.port(), config.http), (2181, None));
        let missing = load_gateway(None, [], &[]).unwrap_err().to_string();
        assert!(
            missing.contains("`ensemble` is not set") && missing.contains("`gateway.stores` is not set"),
            "{missing}"
        );
    }

    #[test]
    fn the_super_digest_is_checked_and_not_shown() {
        let of = |digest: &str| {
            let set = [
                ("ensemble", "a"),
                ("gateway.stores", "http://a:1"),
                ("access.super_digest", digest),
                ("insecure", "true"),
            ];
            load_gateway(None, [], &flags(&set))
        };
        let (config, effective) = of("super:D/InIHSb7yEEbrWz8b9l71RjZJU=").unwrap();
        assert!(config.prover != Prover::default());
        assert!(effective.iter().all(|setting| !setting.value.contains("D/In")), "{effective:?}");
        let wrong = of("super:swordfish").unwrap_err().to_string();
        assert!(wrong.contains("access.super_digest") && !wrong.contains("swordfish"), "{wrong}");
    }

    #[test]
    fn d1_a_gateway_needs_tls_or_a_decision_where_other_machines_reach_it() {
        let set = [("ensemble", "a"), ("gateway.stores", "https://a:1")];
        let refused = load_gateway(None, [], &flags(&set)).unwrap_err().to_string();
        assert!(
            refused.contains("ZooKeeper 0.0.0.0:2181") && refused.contains("`insecure = true`"),
            "{refused}"
        );
        assert!(refused.contains("[tls.stores]"), "https needs a certificate: {refused}");
        let secured = [
            ("tls.stores.certificate", "g.pem"),
            ("tls.stores.key", "g.key"),
            ("tls.stores.authorities", "ca.pem"),
            ("tls.clients.mode", "require"),
            ("tls.clients.certificate", "s.pem"),
            ("tls.clients.key", "s.key"),
        ];
        let (config, _) = load_gateway(None, [], &flags(&[&set[..], &secured[..]].concat())).unwrap();
        assert_eq!(config.plaintext_ports(), []);
        assert!(config.store_files.is_some());
    }
}

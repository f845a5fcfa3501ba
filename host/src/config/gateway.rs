//! The settings of a gateway in a process of its own.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use api::proof::Prover;

use super::{
    ConfigError, Effective, HOST_KEY, HTTP_KEY, Layers, OptionalPort, Size, ZOOKEEPER_KEY, ZOOKEEPER_PORT,
    ZooKeeper,
    read::{drain, memory, prover, words},
};

/// The checked configuration of a gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct GatewayConfig {
    /// Name of the ensemble; stores of another one refuse the gateway.
    pub ensemble: String,
    /// The internal ports of the stores, as `http://host:port`; at least one.
    pub stores: Vec<String>,
    /// Where ZooKeeper's clients come.
    pub zookeeper: SocketAddr,
    /// Probes, metrics and commands; `None` for off.
    pub http: Option<SocketAddr>,
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
            "stores = \"http://q1.example:2189,http://q2.example:2189\" below [gateway]",
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
        GatewayConfig {
            ensemble,
            stores,
            zookeeper: SocketAddr::new(host, port),
            http: http.0.map(|port| SocketAddr::new(host, port)),
            words: words(r),
            prover: prover(r),
            memory: memory(r),
            drain: drain(r),
        }
    }
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
            let set = [("ensemble", "a"), ("gateway.stores", "http://a:1"), ("access.super_digest", digest)];
            load_gateway(None, [], &flags(&set))
        };
        let (config, effective) = of("super:D/InIHSb7yEEbrWz8b9l71RjZJU=").unwrap();
        assert!(config.prover != Prover::default());
        assert!(effective.iter().all(|setting| !setting.value.contains("D/In")), "{effective:?}");
        let wrong = of("super:swordfish").unwrap_err().to_string();
        assert!(wrong.contains("access.super_digest") && !wrong.contains("swordfish"), "{wrong}");
    }
}

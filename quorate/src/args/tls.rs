//! TLS of the commands that connect to nodes, and `quorate certs`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use client_sdk::Tls;

use super::limit;
use crate::exit::Failure;

/// The certificates of the command line.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct TlsFiles {
    /// Connect by TLS and trust the authorities in this PEM file. An endpoint https://host:port without it trusts those of browsers.
    #[arg(long, env = "QUORATE_TLS_CA", value_name = "FILE", hide_env_values = true, help_heading = "TLS")]
    tls_ca: Option<PathBuf>,
    /// The client's certificate, PEM.
    #[arg(
        long,
        env = "QUORATE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key",
        hide_env_values = true,
        help_heading = "TLS"
    )]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        env = "QUORATE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert",
        hide_env_values = true,
        help_heading = "TLS"
    )]
    tls_key: Option<PathBuf>,
}

impl TlsFiles {
    /// Reads them, if there are any.
    pub(crate) fn read(&self) -> Result<Option<Tls>, Failure> {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        if self.tls_ca.is_none() && identity.is_none() {
            return Ok(None);
        }
        Tls::read(self.tls_ca.clone(), identity).map(Some).map_err(|e| Failure::usage(e.to_string()))
    }
}

#[derive(Subcommand, Debug)]
pub(crate) enum Certs {
    /// Make a certificate authority and certificates for all members, for the ports of clients, and for a client.
    ///
    /// The directory then has ca.pem, ca.key, member-N.pem and .key, server.pem and .key, client.pem and .key. Keep ca.key away from
    /// the nodes: it issues certificates for any member.
    #[command(after_help = "\
Examples:
  quorate certs init --ensemble orders --members 3 --host q1.example.net,q2.example.net,q3.example.net
  quorate status --endpoints q1.example.net:2188 --tls-ca certs/ca.pem")]
    Init(CertsInit),
    /// Issue all certificates of a directory again, with new keys, by the same authority. Nodes load them within 30 seconds.
    #[command(after_help = "\
Examples:
  quorate certs renew --dir certs --ensemble orders --members 3 --host q1.example.net,q2.example.net,q3.example.net")]
    Renew(CertsInit),
}

#[derive(Args, Debug)]
pub(crate) struct CertsInit {
    /// Where to write the files; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Name of the ensemble: the setting `ensemble` of the nodes.
    #[arg(long, value_name = "NAME")]
    pub(crate) ensemble: String,
    /// For the members 1 to N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) members: u32,
    /// Names and addresses under which clients reach the nodes.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',', required = true)]
    pub(crate) host: Vec<String>,
    /// Name in the client's certificate.
    #[arg(long, value_name = "NAME", default_value = "client")]
    pub(crate) client: String,
    /// How long the certificates are good; the authority is for ten times as long.
    #[arg(long, value_name = "DURATION", value_parser = life, default_value = "30days")]
    pub(crate) life: Duration,
}

impl CertsInit {
    /// For the members of an ensemble on this machine. Nobody is there to renew them.
    pub(crate) fn local(dir: PathBuf, ensemble: &str, members: usize) -> CertsInit {
        CertsInit {
            dir,
            ensemble: ensemble.to_owned(),
            members: u32::try_from(members).unwrap_or(u32::MAX),
            host: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into(),
            client: "client".to_owned(),
            life: Duration::from_secs(10 * 365 * 86_400),
        }
    }
}

/// The authority is for ten times as long, and a certificate says the year in four digits.
fn life(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
    let life = limit(text)?;
    if life > MAX { Err("expected at most 100 years".to_owned()) } else { Ok(life) }
}

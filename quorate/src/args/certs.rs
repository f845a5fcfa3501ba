//! `quorate certs`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::parse::limit;

/// Make certificates for TLS.
#[derive(Subcommand, Debug)]
pub(crate) enum Certs {
    /// Make a certificate authority and certificates for all members, for the ports of clients, and for a client.
    ///
    /// Writes ca.pem, ca.key, member-N.pem and .key, server.pem and .key, gateway.pem and .key (for `quorate gateway`), client.pem
    /// and .key. Keep ca.key away from the nodes: it issues certificates for any member.
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
    /// Make what is missing in a directory, and issue again what is in the second half of its life.
    ///
    /// As `init` in a directory without an authority. For a job that runs once a day: nodes load new certificates within 30 seconds.
    /// It does not replace the authority: docs/security.md tells how.
    #[command(after_help = "\
Examples:
  quorate certs keep --dir certs --ensemble orders --members 3 --host q1.example.net,q2.example.net,q3.example.net")]
    Keep(CertsInit),
}

#[derive(Args, Debug)]
pub(crate) struct CertsInit {
    /// Directory of the files; created if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Name of the ensemble: the setting `ensemble` of the nodes.
    #[arg(long, value_name = "NAME")]
    pub(crate) ensemble: String,
    /// Number of members; their ids are 1 to N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) members: u32,
    /// Names and addresses under which clients reach the nodes.
    #[arg(long, value_name = "HOST,...", value_delimiter = ',', required = true)]
    pub(crate) host: Vec<String>,
    /// Name in the client's certificate.
    #[arg(long, value_name = "NAME", default_value = "client")]
    pub(crate) client: String,
    /// Validity of the certificates; that of the authority is ten times as long.
    #[arg(long, value_name = "DURATION", value_parser = validity, default_value = "30days")]
    pub(crate) life: Duration,
}

impl CertsInit {
    /// For the members of an ensemble on this machine. They are never renewed.
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

/// The authority is valid ten times as long, and the year in a certificate has four digits.
fn validity(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
    let validity = limit(text)?;
    if validity > MAX { Err("expected at most 100 years".to_owned()) } else { Ok(validity) }
}

//! The identity of a command.

use std::{convert::Infallible, os::unix::fs::PermissionsExt as _, path::PathBuf};

use clap::Args;
use client_sdk::Credential;

use crate::exit::Failure;

/// The identities of the client, for access lists.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Identity")]
pub(crate) struct Auth {
    /// Prove the identity `digest` of ZooKeeper with this name and password; may be repeated. Others on this machine can see
    /// command lines; the environment and --auth-file are safer.
    #[arg(
        long = "auth",
        env = "QUORATE_AUTH",
        value_name = "USER:PASSWORD",
        value_parser = taken,
        hide_env_values = true
    )]
    pub(crate) shown: Vec<Credential>,

    /// File with a USER:PASSWORD in each line; only its owner may have permission to read it.
    #[arg(long, value_name = "FILE")]
    pub(crate) auth_file: Option<PathBuf>,
}

/// Checked later, because clap prints the value with an error of this parser.
fn taken(text: &str) -> Result<Credential, Infallible> {
    Ok(Credential::Digest(text.to_owned()))
}

impl Auth {
    /// The credentials of command line, environment and file. No error names a part of a secret.
    pub(crate) fn credentials(&self) -> Result<Vec<Credential>, Failure> {
        let mut all = self.shown.clone();
        if !all.iter().all(is_whole) {
            return Err(Failure::usage("--auth, or QUORATE_AUTH: expected USER:PASSWORD"));
        }
        let Some(path) = &self.auth_file else { return Ok(all) };
        let at = path.display();
        let cannot = |e: std::io::Error| Failure::usage(format!("cannot read {at}: {e}"));
        if std::fs::metadata(path).map_err(cannot)?.permissions().mode() & 0o077 != 0 {
            return Err(Failure::usage(format!(
                "{at} has passwords, and others may read it: chmod 600 {at}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let credential = Credential::Digest(line.trim().to_owned());
            if !is_whole(&credential) {
                return Err(Failure::usage(format!("{at}:{number}: expected USER:PASSWORD")));
            }
            all.push(credential);
        }
        Ok(all)
    }
}

fn is_whole(Credential::Digest(text): &Credential) -> bool {
    text.split_once(':').is_some_and(|(user, _)| !user.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_credentials_is_refused_if_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth");
        std::fs::write(&path, "ada:secret\n\nbob:a:b\n").unwrap();
        let auth = Auth { shown: vec![Credential::Digest("eve:x".into())], auth_file: Some(path.clone()) };
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o644);
        assert!(auth.credentials().unwrap_err().to_string().contains("chmod 600"));
        set(0o600);
        let digest = |text: &str| Credential::Digest(text.into());
        assert_eq!(
            auth.credentials().ok(),
            Some(vec![digest("eve:x"), digest("ada:secret"), digest("bob:a:b")])
        );
        std::fs::write(&path, "ada:secret\nhidden\n").unwrap();
        let fault = auth.credentials().unwrap_err().to_string();
        assert!(fault.contains(":2: expected USER:PASSWORD") && !fault.contains("hidden"), "{fault}");
        let auth = Auth { shown: vec![digest("hidden")], auth_file: None };
        assert!(!auth.credentials().unwrap_err().to_string().contains("hidden"));
    }
}

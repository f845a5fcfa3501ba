//! `quorate certs`: certificates for a trial, or for an ensemble without an authority of its own.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::SystemTime,
};

use api::PeerId;
use tls::{Authority, IssueError, Issued};

use crate::{
    args::{Certs, CertsInit},
    exit::{Doing as _, Failure},
    output,
};

pub(crate) fn run(certs: &Certs) -> Result<(), Failure> {
    match certs {
        Certs::Init(args) => {
            init(args)?;
            report(args)
        }
        Certs::Renew(args) => {
            issue_all(args, &authority(&args.dir)?, |_| true)?;
            report(args)
        }
        Certs::Keep(args) => keep(args),
    }
}

/// Makes what is missing, and issues again what is due.
fn keep(args: &CertsInit) -> Result<(), Failure> {
    if !args.dir.join(CA).exists() && !args.dir.join(CA_KEY).exists() {
        init(args)?;
        return report(args);
    }
    let now = SystemTime::now();
    // A certificate without its key is of an interrupted run.
    let due = |name: &str| {
        let read = |suffix: &str| fs::read_to_string(args.dir.join(format!("{name}.{suffix}")));
        read("key").is_err() || read("pem").map_or(true, |certificate| tls::is_due(&certificate, now))
    };
    let authority = authority(&args.dir)?;
    let issued = issue_all(args, &authority, due)?;
    if tls::is_due(authority.certificate(), now) {
        output::say(format_args!(
            "the authority {} is in the second half of its life: replace it before it expires (docs/security.md, \"Certificates that change\")",
            args.dir.join(CA).display()
        ));
    }
    match issued[..] {
        [] => Ok(()),
        _ => output::print(&format!("issued in {}: {}", args.dir.display(), issued.join(", "))),
    }
}

fn authority(dir: &Path) -> Result<Authority, Failure> {
    let read = |name: &str| {
        let file = dir.join(name);
        fs::read_to_string(&file).doing(format_args!("read {}", file.display()))
    };
    Authority::read(&read(CA)?, &read(CA_KEY)?).map_err(refused)
}

/// An authority and certificates by it, in a directory that has none.
pub(crate) fn init(args: &CertsInit) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&args.dir);
    made.doing(format_args!("make {}", args.dir.display()))?;
    if let Some(ca) = [CA, CA_KEY].map(|name| args.dir.join(name)).into_iter().find(|file| file.exists()) {
        return Err(Failure::usage(format!(
            "{} is there already: `quorate certs renew` issues new certificates by that authority, --dir names another directory",
            ca.display()
        )));
    }
    let ca = args.dir.join(CA);
    // Revocation lists could not distinguish authorities of one name.
    let name = format!("Quorate {} {:08x}", args.ensemble, crate::serve::random_id()?.0 >> 96);
    let authority = Authority::new(&name, args.life * 10).map_err(refused)?;
    write(&args.dir.join(CA_KEY), authority.key(), SECRET)?;
    write(&ca, authority.certificate(), OPEN)?;
    issue_all(args, &authority, |_| true).map(drop)
}

/// Issues those certificates that are `due`, and returns their names.
fn issue_all(
    args: &CertsInit,
    authority: &Authority,
    due: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Failure> {
    let CertsInit { dir, ensemble, members, host, client, life } = args;
    let mut issued = Vec::new();
    let mut put = |name: String, issue: &dyn Fn() -> Result<Issued, IssueError>| {
        if due(&name) {
            put(dir, &name, &issue().map_err(refused)?)?;
            issued.push(name);
        }
        Ok::<(), Failure>(())
    };
    for id in 1..=*members {
        put(format!("member-{id}"), &|| authority.issue_member(ensemble, PeerId(id), &[], *life))?;
    }
    put("server".to_owned(), &|| authority.issue_server(ensemble, host, *life))?;
    put("gateway".to_owned(), &|| authority.issue_gateway(ensemble, *life))?;
    put("client".to_owned(), &|| authority.issue_client(client, *life))?;
    Ok(issued)
}

fn report(args: &CertsInit) -> Result<(), Failure> {
    let CertsInit { dir, members, host, life, .. } = args;
    output::print(&format!(
        "{dir} has an authority (ca.pem), certificates of members 1 to {members}, of the client ports (server.pem) for {hosts}, of a \
         gateway, and of a client, valid for {life}",
        dir = dir.display(),
        hosts = host.join(", "),
        life = humantime::format_duration(*life),
    ))
}

fn put(dir: &Path, name: &str, issued: &Issued) -> Result<(), Failure> {
    write(&dir.join(format!("{name}.key")), &issued.key, SECRET)?;
    write(&dir.join(format!("{name}.pem")), &issued.certificate, OPEN)
}

/// A node that reads the file meanwhile sees the old one or the new one.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let written = (|| {
        // An existing file is left over from an interrupted run.
        let _ = fs::remove_file(&beside);
        let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, file)
    })();
    written.doing(format_args!("write {}", file.display()))
}

fn refused(e: IssueError) -> Failure {
    Failure::usage(e.to_string())
}

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// Private keys are for their owner.
const SECRET: u32 = 0o600;
const OPEN: u32 = 0o644;

//! `quorate certs`: certificates for a trial, or for an ensemble without an authority of its own.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
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
            let read = |name: &str| {
                let file = args.dir.join(name);
                fs::read_to_string(&file).doing(format_args!("read {}", file.display()))
            };
            let authority = Authority::read(&read(CA)?, &read(CA_KEY)?).map_err(refused)?;
            issue_all(args, &authority)?;
            report(args)
        }
    }
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
    issue_all(args, &authority)
}

fn issue_all(args: &CertsInit, authority: &Authority) -> Result<(), Failure> {
    let CertsInit { dir, ensemble, members, host, client, life } = args;
    for id in 1..=*members {
        let issued = authority.issue_member(ensemble, PeerId(id), &[], *life).map_err(refused)?;
        put(dir, &format!("member-{id}"), &issued)?;
    }
    put(dir, "server", &authority.issue_server(ensemble, host, *life).map_err(refused)?)?;
    put(dir, "client", &authority.issue_client(client, *life).map_err(refused)?)
}

fn report(args: &CertsInit) -> Result<(), Failure> {
    let CertsInit { dir, members, host, life, .. } = args;
    output::print(&format!(
        "{dir} has an authority (ca.pem), certificates of members 1 to {members}, of the client ports (server.pem) for {hosts}, and of \
         a client, valid for {life}",
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

//! `quorate count` and `quorate quota`: what is below a znode, and how much may be.

use api::{Quota, QuotaAt, ReadLevel, Usage, quota::Bounds};
use serde_json::json;

use crate::{
    args::{self, CountArgs, Format, QuotaGet, QuotaSet},
    exit::Failure,
    output, session, stale,
    znode::parse,
};

pub(crate) async fn count(args: &CountArgs) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let level = level(args.query.freshness.read_level())?;
    session::with(&args.query.connection, async |client| {
        let Usage { znodes, bytes } = client.count(path.as_str(), level).await?;
        args.query
            .output
            .print(|| format!("{znodes} znodes, {bytes} bytes"), || json!({"znodes": znodes, "bytes": bytes}))
    })
    .await
    .map_err(stale::remedy)
}

pub(crate) async fn run(command: &args::Quota) -> Result<(), Failure> {
    match command {
        args::Quota::Get(args) => get(args).await,
        args::Quota::Set(args) => set(args).await,
    }
}

async fn get(args: &QuotaGet) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let level = level(args.query.freshness.read_level())?;
    session::with(&args.query.connection, async |client| {
        print(&client.quotas(path.as_str(), level).await?, args.query.output.output)
    })
    .await
    .map_err(stale::remedy)
}

async fn set(args: &QuotaSet) -> Result<(), Failure> {
    let path = parse(&args.path)?;
    let soft = Bounds { znodes: args.soft_znodes, bytes: args.soft_bytes };
    let quota = Quota { soft, hard: Bounds { znodes: args.znodes, bytes: args.bytes } };
    session::with(&args.connection, async |client| {
        let at = client.set_quota(path.as_str(), quota).await?;
        match args.output.output {
            Format::Table if quota.is_none() => output::print(&format!("{path} has no quota")),
            format => print(&[at], format),
        }
    })
    .await
}

fn print(quotas: &[QuotaAt], format: Format) -> Result<(), Failure> {
    match format {
        Format::Table if quotas.is_empty() => Ok(()),
        Format::Table => {
            let header = ["ZNODES", "SOFT", "HARD", "BYTES", "SOFT", "HARD", "", "PATH"];
            output::print(&output::table(&header, quotas.iter().map(row), &[0, 1, 2, 3, 4, 5]))
        }
        Format::Json => output::print_json(&quotas.iter().map(object).collect()),
    }
}

fn row(at: &QuotaAt) -> Vec<String> {
    let bound = |bound: Option<u64>| bound.map_or_else(|| "-".to_owned(), |bound| bound.to_string());
    let Quota { soft, hard } = at.quota;
    vec![
        at.used.znodes.to_string(),
        bound(soft.znodes),
        bound(hard.znodes),
        at.used.bytes.to_string(),
        bound(soft.bytes),
        bound(hard.bytes),
        if soft.exceeded(at.used).is_some() { "!".to_owned() } else { String::new() },
        at.path.to_string(),
    ]
}

fn object(at: &QuotaAt) -> serde_json::Value {
    let bounds = |bounds: Bounds| json!({"znodes": bounds.znodes, "bytes": bounds.bytes});
    json!({
        "path": at.path.as_str(),
        "used": {"znodes": at.used.znodes, "bytes": at.used.bytes},
        "soft": bounds(at.quota.soft),
        "hard": bounds(at.quota.hard),
        "soft_exceeded": at.quota.soft.exceeded(at.used).is_some(),
    })
}

/// Stale reads have no session.
fn level(level: ReadLevel) -> Result<ReadLevel, Failure> {
    match level {
        ReadLevel::Stale => Err(Failure::usage("--level stale reads one znode; use another level here")),
        level => Ok(level),
    }
}

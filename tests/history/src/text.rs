//! Operations as text.

use std::fmt::{self, Write as _};

use api::{
    Acl, Create, Expected, MultiOp, MultiOutcome, NodeKind, OpError, Read, ReadLevel, ReadOutcome, Stat,
    Write, WriteOutcome,
};
use bytes::Bytes;
use serde_json::json;

use crate::{Call, History, Operation, Outcome};

/// One line of JSON for each operation, in the order of the history: `index`, `client`, `session`, `node`, `called_us`,
/// `returned_us`, `kind`, `call`, `outcome`, `zxid`, `answer`. Zxids and sessions are in hex, as everywhere; what is not
/// known is `null`.
#[must_use]
pub fn json_lines(history: &History) -> String {
    let mut text = String::new();
    for (index, operation) in history.operations.iter().enumerate() {
        let line = json!({
            "index": index,
            "client": operation.client,
            "session": operation.session.map(|s| s.to_string()),
            "node": operation.node.map(|n| n.0),
            "called_us": operation.called,
            "returned_us": operation.returned,
            "kind": kind(operation),
            "call": call(operation),
            "outcome": outcome(operation),
            "zxid": operation.outcome.zxid().map(|z| z.to_string()),
            "answer": answer(operation),
        });
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}

/// `write`, `local read`, `linearizable read` or `sync`.
pub(crate) fn kind(operation: &Operation) -> &'static str {
    match &operation.call {
        Call::Write(_) => "write",
        Call::Read(_, ReadLevel::Linearizable) => "linearizable read",
        Call::Read(_, ReadLevel::Stale | ReadLevel::Local | ReadLevel::AtLeast(_)) => "local read",
        Call::Sync => "sync",
    }
}

/// As one would type it.
pub(crate) fn call(operation: &Operation) -> String {
    match &operation.call {
        Call::Write(Write::Multi(parts)) => {
            let parts: Vec<String> = parts.iter().map(part).collect();
            format!("multi [{}]", parts.join(", "))
        }
        Call::Write(Write::Create(create)) => part(&MultiOp::Create(create.clone())),
        Call::Write(Write::Set { path, data, version }) => {
            part(&MultiOp::Set { path: path.clone(), data: data.clone(), version: *version })
        }
        Call::Write(Write::Delete { path, version }) => {
            part(&MultiOp::Delete { path: path.clone(), version: *version })
        }
        Call::Write(Write::SetAcl { path, acl, aversion }) => {
            part(&MultiOp::SetAcl { path: path.clone(), acl: acl.clone(), aversion: *aversion })
        }
        Call::Write(Write::DeleteTree(tree)) => {
            let keep = if tree.keep_root { " but the root" } else { "" };
            format!("delete tree {}{keep}{}", tree.path, conditions(&tree.version))
        }
        Call::Write(Write::SetQuota { path, quota }) => format!("set quota {path} {quota:?}"),
        Call::Read(read, level) => {
            let verb = match read {
                Read::Get { .. } => "get",
                Read::Exists { .. } => "exists",
                Read::Acl { .. } => "acl",
                Read::Children { .. } => "children",
                Read::Count { .. } => "count",
                Read::Quotas { .. } => "quotas",
            };
            match level {
                ReadLevel::Stale => format!("{verb} {} stale", read.path()),
                ReadLevel::Local => format!("{verb} {}", read.path()),
                ReadLevel::AtLeast(zxid) => format!("{verb} {} at least {zxid}", read.path()),
                ReadLevel::Linearizable => format!("{verb} {} linearizable", read.path()),
            }
        }
        Call::Sync => "sync".to_owned(),
    }
}

/// `written`, `failed` (carried out, to no effect), `read`, `synced`, `refused` or `unknown`.
pub(crate) fn outcome(operation: &Operation) -> &'static str {
    match &operation.outcome {
        Outcome::Written { result: Ok(_), .. } => "written",
        Outcome::Written { result: Err(_), .. } => "failed",
        Outcome::Read { .. } => "read",
        Outcome::Synced { .. } => "synced",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown => "unknown",
    }
}

/// The client's answer; empty if there is none.
pub(crate) fn answer(operation: &Operation) -> String {
    match &operation.outcome {
        Outcome::Written { result: Ok(outcome), .. } => written(outcome),
        Outcome::Read { result: Ok(outcome), .. } => match outcome {
            ReadOutcome::Data { data, stat } => format!("{data:?} {}", Brief(stat)),
            ReadOutcome::Exists { stat: Some(stat) } => format!("there, {}", Brief(stat)),
            ReadOutcome::Exists { stat: None } => "not there".to_owned(),
            ReadOutcome::Acl { acl, stat } => format!("{} {}", List(acl), Brief(stat)),
            ReadOutcome::Children { names, .. } => format!("[{}]", names.join(" ")),
            ReadOutcome::Listed(listing) => {
                let names: Vec<&str> = listing.children.iter().map(|child| child.name.as_str()).collect();
                format!("[{}]", names.join(" "))
            }
            ReadOutcome::Counted(used) => format!("{} znodes, {} bytes", used.znodes, used.bytes),
            ReadOutcome::Quotas { quotas, .. } => format!("{quotas:?}"),
        },
        Outcome::Written { result: Err(error), .. }
        | Outcome::Read { result: Err(error), .. }
        | Outcome::Refused(error) => error_text(error),
        Outcome::Synced { .. } | Outcome::Unknown => String::new(),
    }
}

fn error_text(error: &OpError) -> String {
    format!("{}: {error}", error.code().as_str())
}

fn written(outcome: &WriteOutcome) -> String {
    match outcome {
        WriteOutcome::Created { path, stat } => format!("{path} {}", Brief(stat)),
        WriteOutcome::Set { stat } | WriteOutcome::AclSet { stat } => Brief(stat).to_string(),
        WriteOutcome::Multi(outcomes) => {
            let each: Vec<String> = outcomes
                .iter()
                .map(|outcome| match outcome {
                    MultiOutcome::Created { path, stat } => format!("{path} {}", Brief(stat)),
                    MultiOutcome::Set { stat } | MultiOutcome::AclSet { stat } => Brief(stat).to_string(),
                    MultiOutcome::Deleted => "deleted".to_owned(),
                    MultiOutcome::Checked => "checked".to_owned(),
                })
                .collect();
            format!("[{}]", each.join(", "))
        }
        WriteOutcome::Deleted => "deleted".to_owned(),
        WriteOutcome::TreeDeleted { znodes } => format!("{znodes} deleted"),
        WriteOutcome::QuotaSet(at) => format!("{:?}", at.quota),
        WriteOutcome::SessionOpened => "session opened".to_owned(),
        WriteOutcome::SessionResumed => "session taken up".to_owned(),
        WriteOutcome::Checked => "states compared".to_owned(),
        WriteOutcome::SessionClosed { ephemerals } => format!("session closed, {ephemerals} ephemerals gone"),
    }
}

fn conditions(expected: &Option<Expected>) -> String {
    let version = expected.and_then(Expected::version).map(|v| format!(" if version {v}"));
    let czxid = expected.and_then(Expected::czxid).map(|z| format!(" if created by {z}"));
    version.into_iter().chain(czxid).collect()
}

fn part(part: &MultiOp) -> String {
    match part {
        MultiOp::Create(Create { path, data, kind, sequential, .. }) => {
            let kind = match kind {
                NodeKind::Persistent => String::new(),
                NodeKind::Ephemeral => " ephemeral".to_owned(),
                NodeKind::Container => " container".to_owned(),
                NodeKind::Ttl { ms } => format!(" ttl {ms} ms"),
            };
            let sequential = if *sequential { " sequential" } else { "" };
            format!("create{kind}{sequential} {path} {}", Value(data))
        }
        MultiOp::Set { path, data, version } => format!("set {path} {}{}", Value(data), conditions(version)),
        MultiOp::Delete { path, version } => format!("delete {path}{}", conditions(version)),
        MultiOp::SetAcl { path, acl, aversion } => {
            format!("set acl {path} {}{}", List(acl), conditions(aversion))
        }
        MultiOp::CheckAbsent { path } => format!("check that there is no {path}"),
        MultiOp::Check { path, version } => format!("check {path}{}", conditions(version)),
    }
}

struct List<'a>(&'a Acl);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.entries().iter();
        f.debug_list()
            .entries(
                entries.map(|e| format!("{}:{} {}", e.identity.scheme(), e.identity.id(), e.permissions)),
            )
            .finish()
    }
}

struct Value<'a>(&'a Option<Bytes>);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{:?}", String::from_utf8_lossy(value)),
            None => f.write_str("null"),
        }
    }
}

/// The fields that distinguish one state of a znode from another.
struct Brief<'a>(&'a Stat);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {} of {} by {}", self.0.version, self.0.czxid, self.0.mzxid)
    }
}

//! The audit log of whole nodes.

use std::path::Path;

use crate::harness::{Ensemble, eventually};

/// The records in a file.
fn records(file: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// A node with an audit log, and its file.
fn audited(settings: &[(&str, &str)]) -> (Ensemble, std::path::PathBuf) {
    let mut ensemble = Ensemble::down(1);
    let file = ensemble.dir.join("audit.log");
    ensemble.set_env(1, "QUORATE_AUDIT_FILE", file.to_str().unwrap());
    for (key, value) in settings {
        ensemble.set_env(1, key, value);
    }
    ensemble.start_node(1);
    ensemble.all_serve();
    let split = std::env::var_os("TEST_SPLIT").is_some();
    (ensemble, if split { file.with_extension("log.store") } else { file })
}

#[test]
fn s20_each_refusal_and_each_change_of_rights_is_recorded_once_and_no_secret_is() {
    let (ensemble, file) = audited(&[]);
    let ann = ["--auth", "ann:swordfish"];
    ensemble.ok(&[&["create", "/a", "canary-value"][..], &ann].concat());
    ensemble.ok(&[&["acl", "set", "/a", "auth::rwcda"][..], &ann].concat());
    for refused in
        [&["get", "/a"][..], &["set", "/a", "canary-other"], &["acl", "set", "/a", "world:anyone:r"]]
    {
        assert!(
            !ensemble.run(&[refused, &["--auth", "bob:hunter2"]].concat()).status.success(),
            "{refused:?}"
        );
    }
    ensemble.ok(&[&["get", "/a"][..], &ann].concat());
    ensemble.ok(&["create", "/b", "1"]);
    let of = |all: &[serde_json::Value], event: &str| -> Vec<serde_json::Value> {
        all.iter().filter(|record| record["event"] == event).cloned().collect()
    };
    // The last command has closed its session, or made none.
    eventually("the records are in the file", || of(&records(&file), "request").len() >= 4);
    let all = records(&file);
    let requests = of(&all, "request");
    assert_eq!(requests.len(), 4, "one change of rights and three refusals: {requests:#?}");
    let changed = &requests[0];
    assert_eq!((&changed["op"], &changed["result"]), (&"set_acl".into(), &"ok".into()));
    assert_eq!(changed["paths"], serde_json::json!(["/a"]));
    assert!(changed["zxid"].is_string() && changed["time"].is_string(), "{changed}");
    let by = |record: &serde_json::Value, who: &str| {
        record["identities"].as_array().unwrap().contains(&who.into())
    };
    assert!(by(changed, "digest:ann") && by(changed, "ip:127.0.0.1"), "{changed}");
    for (refused, missing) in requests[1..].iter().zip(["READ", "WRITE", "ADMIN"]) {
        assert_eq!(
            (&refused["result"], &refused["missing"]),
            (&"NO_AUTH".into(), &missing.into()),
            "{refused}"
        );
        assert!(by(refused, "digest:bob"), "{refused}");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    for secret in ["swordfish", "hunter2", "canary", "digest:ann:"] {
        assert!(!text.contains(secret), "{secret} is in the audit log: {text}");
    }
}

#[test]
fn sessions_writes_and_commands_of_operators_are_recorded() {
    let (ensemble, file) = audited(&[("QUORATE_AUDIT_WRITES", "true")]);
    ensemble.ok(&["create", "/a", "1"]);
    ensemble.ok(&["set", "/a", "2", "--version", "0"]);
    assert!(!ensemble.run(&["set", "/a", "3", "--version", "0"]).status.success());
    let http = ensemble.http(1, "store");
    ensemble.ok(&["loglevel", "info", "--endpoint", &http]);
    let found = |what: &dyn Fn(&serde_json::Value) -> bool| records(&file).iter().any(what);
    eventually("the records are in the file", || found(&|r| r["op"] == "loglevel"));
    assert!(found(&|r| r["op"] == "create" && r["result"] == "ok"));
    assert!(found(&|r| r["op"] == "set" && r["result"] == "ok" && r["conditional"] == true));
    assert!(found(&|r| r["op"] == "set" && r["result"] == "BAD_VERSION"));
    assert!(found(&|r| r["event"] == "session_opened" && r["session"].is_string()));
    assert!(found(&|r| r["event"] == "session_closed" && r["session"].is_string()));
}

#[test]
fn an_audit_log_that_cannot_be_written_stops_the_start_with_the_remedy() {
    let mut ensemble = Ensemble::down(1);
    ensemble.set_env(1, "QUORATE_AUDIT_FILE", "/nonexistent/audit.log");
    ensemble.start_node(1);
    ensemble.reap(1);
    let log = ensemble.log(1);
    assert!(log.contains("/nonexistent/audit.log") && log.contains("`audit.file`"), "{log}");
}

//! Znodes that go by themselves, and access lists, with real processes.

use serde_json::Value;

use crate::harness::{Ensemble, eventually};

fn exists(ensemble: &Ensemble, path: &str) -> bool {
    ensemble.run(&["stat", path, "--level", "linearizable"]).status.success()
}

#[test]
fn containers_and_znodes_with_a_ttl_go_by_themselves_also_under_the_next_leader() {
    let settings = [("QUORATE_TIMING_REAP_INTERVAL", "100ms"), ("QUORATE_TIMING_CONTAINER_UNUSED", "0ms")];
    let mut ensemble = Ensemble::start_with(3, 0, &settings);
    ensemble.all_serve();
    ensemble.ok(&["create", "--container", "/unused"]);
    ensemble.ok(&["create", "--ttl", "1h", "/long", "value"]);
    ensemble.ok(&["create", "--container", "/locks"]);
    ensemble.ok(&["create", "--sequential", "/locks/l-"]);
    ensemble.ok(&["create", "--ttl", "300ms", "/short", "value"]);
    let stat: Value = serde_json::from_str(&ensemble.ok(&["stat", "/long", "-o", "json"])).unwrap();
    assert_eq!((&stat["kind"], &stat["ttl_ms"]), (&"ttl".into(), &3_600_000.into()), "{stat}");
    assert!(ensemble.ok(&["stat", "/long"]).contains("ttl 1h"));
    assert!(ensemble.ok(&["ls", "-l", "/"]).contains("container"));
    eventually("the short one goes", || !exists(&ensemble, "/short"));
    // The next leader knows what there is from its own state, which it may have from a checkpoint.
    ensemble.ok(&["create", "--ttl", "3s", "/next", "value"]);
    let leader = ensemble.leader();
    ensemble.kill9(leader);
    eventually("the next leader ends it", || !exists(&ensemble, "/next"));
    ensemble.start_node(leader);
    ensemble.all_serve();
    assert!(exists(&ensemble, "/locks"), "it has a child");
    ensemble.ok(&["delete", "/locks/l-0000000000"]);
    eventually("the container goes", || !exists(&ensemble, "/locks"));
    assert!(exists(&ensemble, "/unused") && exists(&ensemble, "/long"));
    ensemble.agree();
    let refused = ensemble.run(&["create", "--container", "--ttl", "1s", "/both"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    ensemble.stop();
}

#[test]
fn access_lists_are_kept_and_enforced_on_every_node() {
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    ensemble.ok(&["create", "/a", "value"]);
    assert_eq!(ensemble.ok(&["acl", "get", "/a"]).trim(), "world:anyone:rwcda");
    ensemble.ok(&["acl", "set", "/a", "world:anyone:ra", "user:ada:rwcda", "--version", "0"]);
    let list: Value = serde_json::from_str(&ensemble.ok(&["acl", "get", "/a", "-o", "json"])).unwrap();
    assert_eq!(list["aversion"], 1, "{list}");
    assert_eq!(list["acl"][1]["id"], "ada", "{list}");
    let refused = |args: &[&str], words: &str| {
        let output = ensemble.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(words), "{args:?}: {said}");
    };
    refused(&["set", "/a", "other"], "does not give you WRITE");
    refused(&["create", "/a/b"], "does not give you CREATE");
    refused(&["acl", "set", "/a", "world:anyone:r", "--version", "0"], "has version 1, not 0");
    assert_eq!(ensemble.ok(&["get", "/a"]), "value");
    ensemble.ok(&["acl", "set", "/a", "world:anyone:a"]);
    refused(&["get", "/a"], "does not give you READ");
    refused(&["get", "/a", "--level", "stale"], "does not give you READ");
    refused(&["ls", "/a"], "does not give you READ");
    ensemble.agree();
    ensemble.ok(&["acl", "set", "/a", "world:anyone:rwcda"]);
    ensemble.ok(&["set", "/a", "other"]);
    ensemble.stop();
}

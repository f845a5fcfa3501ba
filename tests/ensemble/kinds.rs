//! Znodes that go by themselves, with real processes.

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

//! Conditions, subtrees and quotas on the command line, with real processes.

use proto::v1::{self, coordination_client::CoordinationClient};
use serde_json::Value;

use crate::harness::Ensemble;

fn json(ensemble: &Ensemble, args: &[&str]) -> Value {
    serde_json::from_str(&ensemble.ok(&[args, &["-o", "json"]].concat())).unwrap()
}

/// The command fails with exit code 1, and says these words.
fn refused(ensemble: &Ensemble, args: &[&str], words: &str) {
    let output = ensemble.run(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(words), "{args:?}: {said}");
}

#[test]
fn writes_can_ask_for_a_creation_and_trees_go_in_one_step() {
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    ensemble.ok(&["create", "/a", "1"]);
    let stat = ensemble.ok(&["stat", "/a"]);
    let first = json(&ensemble, &["stat", "/a"])["czxid"].as_str().unwrap().to_owned();
    assert!(stat.contains(&first), "{stat}");
    ensemble.ok(&["set", "/a", "2", "--czxid", &first, "--version", "0"]);
    ensemble.ok(&["delete", "/a"]);
    ensemble.ok(&["create", "/a", "again"]);
    refused(&ensemble, &["set", "/a", "3", "--czxid", &first], "another one");
    refused(&ensemble, &["delete", "/a", "--czxid", &first], "another one");
    refused(&ensemble, &["delete", "-r", "/a", "--czxid", &first], "another one");
    for path in ["/a/b", "/a/b/c", "/a/d"] {
        ensemble.ok(&["create", path, "four"]);
    }
    assert_eq!(ensemble.ok(&["count", "/a"]).trim(), "3 znodes, 12 bytes");
    assert_eq!(json(&ensemble, &["count", "/a"])["znodes"], 3);
    assert!(ensemble.ok(&["ls", "-l", "/a"]).contains("VERSION"));
    refused(&ensemble, &["count", "/none"], "no znode /none");
    refused(&ensemble, &["delete", "/a"], "delete -r");
    assert_eq!(ensemble.ok(&["delete", "-r", "--keep-root", "/a"]).trim(), "deleted 3 znodes");
    assert_eq!(ensemble.ok(&["delete", "-r", "/a"]).trim(), "deleted 1 znodes");
    ensemble.ok(&["create", "--parents", "/p/q/r"]);
    ensemble.ok(&["create", "/p/s"]);
    assert_eq!(ensemble.ok(&["tree", "/p"]), "/p\n  q\n    r\n  s\n");
    assert_eq!(ensemble.ok(&["tree", "/p", "--depth", "1"]), "/p\n  q\n  s\n");
    assert_eq!(ensemble.ok(&["ls", "-R", "/p"]), "/p/q\n/p/q/r\n/p/s\n");
    assert!(ensemble.ok(&["ls", "-R", "--stat", "/p"]).contains("CHILDREN"));
    refused(&ensemble, &["tree", "/none"], "no znode /none");
    ensemble.ok(&["acl", "set", "/p/q", "world:anyone:cdwa"]);
    assert_eq!(ensemble.ok(&["tree", "/p"]), "/p\n  s\n");
    ensemble.ok(&["acl", "set", "/p/q", "world:anyone:rwcda"]);
    assert_eq!(ensemble.ok(&["delete", "-r", "--in-parts", "/p"]).trim(), "deleted 4 znodes");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn quotas_are_enforced_on_every_node_and_survive_restarts() {
    let mut ensemble = Ensemble::start();
    ensemble.all_serve();
    ensemble.ok(&["create", "/q", "root"]);
    ensemble.ok(&["create", "/q/a", "four"]);
    ensemble.ok(&["quota", "set", "/q", "--soft-znodes", "0", "--znodes", "2", "--bytes", "8"]);
    let check = |ensemble: &Ensemble, znodes: u64, bytes: u64| {
        let quotas = json(ensemble, &["quota", "get", "/q/a/b", "--level", "linearizable"]);
        assert_eq!(quotas[0]["path"], "/q", "{quotas}");
        assert_eq!(
            (&quotas[0]["used"]["znodes"], &quotas[0]["used"]["bytes"]),
            (&znodes.into(), &bytes.into())
        );
        assert_eq!(quotas[0]["soft_exceeded"], true, "{quotas}");
    };
    check(&ensemble, 1, 4);
    assert!(ensemble.ok(&["quota", "get"]).contains('!'));
    refused(&ensemble, &["set", "/q/a", "nine long"], "the quota of /q allows 8 bytes");
    ensemble.ok(&["create", "/q/b"]);
    refused(&ensemble, &["create", "/q/b/c"], "allows 2 znodes");
    // The next leader has it from its own state, and a node that was away from the log.
    let leader = ensemble.leader();
    ensemble.kill9(leader);
    refused(&ensemble, &["create", "/q/c"], "allows 2 znodes");
    ensemble.ok(&["delete", "/q/b"]);
    ensemble.start_node(leader);
    ensemble.all_serve();
    ensemble.agree();
    check(&ensemble, 1, 4);
    assert_eq!(ensemble.ok(&["quota", "set", "/q"]).trim(), "/q has no quota");
    ensemble.ok(&["create", "/q/b/c", "--parents"]);
    assert_eq!(json(&ensemble, &["quota", "get"]), Value::Array(Vec::new()));
    ensemble.stop();
}

#[tokio::test]
async fn any_client_can_use_these_verbs_as_calls() {
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    let mut client = CoordinationClient::connect(format!("http://{}", ensemble.endpoint(1))).await.unwrap();
    let path = |path: &str| path.to_owned();
    for name in ["/t", "/t/a", "/t/b"] {
        let create = v1::CreateRequest { path: path(name), data: Some("four".into()), ..Default::default() };
        client.create(create).await.unwrap();
    }
    let count =
        client.count_tree(v1::CountTreeRequest { path: path("/t"), read: None }).await.unwrap().into_inner();
    assert_eq!((count.znodes, count.bytes), (2, 8));
    assert!(count.as_of.is_some());
    let listing =
        v1::ChildrenRequest { path: path("/t"), with_stat: true, with_data: true, ..Default::default() };
    let listed = client.children(listing.clone()).await.unwrap().into_inner();
    assert_eq!(listed.children[1].data(), b"four");
    let get = v1::read_op::Op::Get(v1::GetRequest { path: path("/none"), read: None });
    let ops = vec![v1::ReadOp { op: Some(get) }, v1::ReadOp { op: Some(v1::read_op::Op::Children(listing)) }];
    let read = client.multi_read(v1::MultiReadRequest { ops, read: None }).await.unwrap().into_inner();
    assert!(
        matches!(&read.results[0].result, Some(v1::read_result::Result::Error(e)) if e.code() == v1::ErrorCode::NoNode)
    );
    assert!(
        matches!(&read.results[1].result, Some(v1::read_result::Result::Children(c)) if c.children.len() == 2)
    );
    let quota = v1::Quota { path: path("/t"), hard_znodes: Some(2), ..Default::default() };
    let set = client.set_quota(v1::SetQuotaRequest { quota: Some(quota) }).await.unwrap().into_inner();
    assert_eq!(set.quota.unwrap().used_bytes, 8);
    let create = v1::CreateRequest { path: path("/t/c"), ..Default::default() };
    let full = client.create(create).await.unwrap_err();
    assert_eq!(full.code(), tonic::Code::ResourceExhausted);
    let listed =
        client.list_quotas(v1::ListQuotasRequest { path: path("/"), ..Default::default() }).await.unwrap();
    assert_eq!(listed.into_inner().quotas.len(), 1);
    let wrong = v1::DeleteTreeRequest { path: path("/t"), czxid: Some(1), ..Default::default() };
    assert_eq!(client.delete_tree(wrong).await.unwrap_err().code(), tonic::Code::Aborted);
    let walk = v1::WalkRequest { path: path("/t"), with_data: true, ..Default::default() };
    let mut parts = client.walk(walk).await.unwrap().into_inner();
    let part = parts.message().await.unwrap().unwrap();
    assert_eq!(part.znodes.iter().map(|z| z.path.as_str()).collect::<Vec<_>>(), ["/t", "/t/a", "/t/b"]);
    assert_eq!((part.end, part.znodes[2].data()), (Some(v1::WalkEnd { znodes: 3, hidden: 0 }), &b"four"[..]));
    assert!(parts.message().await.unwrap().is_none());
    let tree = v1::DeleteTreeRequest { path: path("/t"), ..Default::default() };
    assert_eq!(client.delete_tree(tree).await.unwrap().into_inner().deleted, 3);
    ensemble.stop();
}

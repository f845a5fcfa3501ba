//! Nodes with services in processes of their own: each can be away alone.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client_sdk::{Client, CreateMode, Options};
use proto::v1;
use proto::v1::coordination_client::CoordinationClient;
use proto::v1::item::Item;
use proto::v1::request::Op;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::durability::{Ledger, ZNODES, check, path, write};
use crate::harness::{Ensemble, PATIENCE, blocking, eventually, http_get, run_at, succeed};

async fn connect(ensemble: &Ensemble) -> Client {
    Client::connect(ensemble.endpoints.clone(), Options::default()).await.unwrap()
}

/// A node that does not lead.
fn follower(ensemble: &Ensemble) -> usize {
    let leader = ensemble.leader();
    (1..=3).find(|&id| id != leader).unwrap()
}

/// The result of a health probe.
async fn serves(ensemble: &Ensemble, id: usize) -> bool {
    let endpoint = Endpoint::from_shared(format!("http://{}", ensemble.endpoint(id))).unwrap();
    let Ok(channel) = endpoint.connect().await else { return false };
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|a| a.into_inner().status() == ServingStatus::Serving)
}

async fn until_serves(ensemble: &Ensemble, id: usize, wanted: bool) {
    let so = async {
        while serves(ensemble, id).await != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("node {id} serves: not {wanted}"));
}

/// Sets `/count` again and again, each time expecting the version that the write before left: one that is lost or carried
/// out twice is an error. Counts what is acknowledged.
async fn count(client: Client, acknowledged: Arc<AtomicI32>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let version = acknowledged.load(Ordering::Relaxed);
        client.set("/count", version.to_string(), Some(version.into())).await.unwrap();
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Kills every service of every node, one after the other, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_is_killed_and_restarted_alone_and_nothing_acknowledged_is_lost() {
    let mut ensemble = Ensemble::start_split(&[]);
    let client = connect(&ensemble).await;
    client.create("/count", "", CreateMode::default()).await.unwrap();
    client.create("/ledger", "", CreateMode::default()).await.unwrap();
    for znode in 0..ZNODES {
        client.create(path(znode).as_str(), "0", CreateMode::default()).await.unwrap();
    }
    let (ledger, next) = (Arc::new(Mutex::new(Ledger::default())), Arc::new(Mutex::new(0)));
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
    let counter = tokio::spawn(count(client.clone(), counted.clone(), stop.clone()));
    let writer = tokio::spawn(write(connect(&ensemble).await, ledger.clone(), next.clone(), stop.clone()));
    for part in ["store", "election", "quorum"] {
        for round in 0..3 {
            let before = counted.load(Ordering::Relaxed);
            ensemble = blocking(ensemble, move |e| {
                // The leader's first.
                let victim = (e.leader() + round - 1) % 3 + 1;
                e.kill9_part(victim, part);
                std::thread::sleep(Duration::from_millis(200));
                e.start_part(victim, part);
                e.all_serve();
            })
            .await;
            let progress = async {
                while counted.load(Ordering::Relaxed) < before + 20 {
                    assert!(!counter.is_finished(), "a write was lost or carried out twice");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, progress).await.expect("writes go on");
        }
    }
    stop.store(true, Ordering::Relaxed);
    tokio::time::timeout(PATIENCE, counter).await.expect("the last write ends").unwrap();
    tokio::time::timeout(PATIENCE, writer).await.expect("the last writes end").unwrap();
    let (_, stat) = client.get("/count").await.unwrap();
    assert_eq!(stat.version, counted.load(Ordering::Relaxed));
    check(&client, &ledger).await;
    drop(client);
    blocking(ensemble, |e| e.agree()).await.stop();
}

#[test]
fn with_its_store_down_a_quorum_votes_and_logs_and_the_store_catches_up() {
    let mut ensemble = Ensemble::start_split(&[]);
    ensemble.ok(&["create", "/a", ""]);
    let leader = ensemble.leader();
    let [storeless, other] = *(1..=3).filter(|&id| id != leader).collect::<Vec<_>>() else { panic!() };
    ensemble.kill9_part(storeless, "store");
    ensemble.kill9(other);
    // Of the quorums, the leader's and that one are left: it has to log what is acknowledged.
    for i in 0..20 {
        ensemble.ok(&["create", &format!("/a/{i}"), "value"]);
    }
    // And to vote for the next leader, or to be it.
    ensemble.kill9_part(leader, "election");
    ensemble.kill9_part(leader, "quorum");
    ensemble.start_part(leader, "election");
    ensemble.start_part(leader, "quorum");
    ensemble.ok(&["create", "/b", ""]);
    ensemble.start_part(storeless, "store");
    ensemble.start_node(other);
    ensemble.agree();
    let args = ["get", "/a/19"];
    assert_eq!(succeed(&run_at(ensemble.endpoint(storeless), &args), &args), "value");
    ensemble.stop();
}

#[test]
fn with_their_elections_down_a_leader_goes_on_and_the_next_one_has_to_wait() {
    let mut ensemble = Ensemble::start_split(&[]);
    let leader = ensemble.leader();
    let epoch = ensemble.status()[leader - 1]["epoch"].clone();
    for id in 1..=3 {
        ensemble.kill9_part(id, "election");
    }
    ensemble.ok(&["create", "/without-elections", ""]);
    assert_eq!(ensemble.leader(), leader);
    assert_eq!(ensemble.status()[leader - 1]["epoch"], epoch);

    ensemble.kill9_part(leader, "quorum");
    ensemble.start_part(leader, "quorum");
    eventually("no node leads", || ensemble.status().iter().all(|n| n["role"] == "looking"));
    assert!(!ensemble.run(&["create", "/no-leader", "", "--timeout", "1s"]).status.success());
    for id in 1..=3 {
        ensemble.start_part(id, "election");
    }
    ensemble.ok(&["create", "/with-elections", ""]);
    assert_ne!(ensemble.status()[0]["epoch"], epoch);
    ensemble.agree();

    // All restarted under a leader: they must learn the leader from their quorums, for servers that join
    // later.
    let epoch = ensemble.status()[0]["epoch"].clone();
    for id in 1..=3 {
        ensemble.kill9_part(id, "election");
        ensemble.start_part(id, "election");
    }
    let late = follower(&ensemble);
    ensemble.kill9(late);
    ensemble.start_node(late);
    ensemble.agree();
    assert_eq!(ensemble.status()[0]["epoch"], epoch, "the late node has joined the leader that there was");
    ensemble.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_quorum_down_a_store_marks_its_reads_as_leaderless() {
    let mut ensemble = Ensemble::start_split(&[("QUORATE_TIMING_PARK_LIMIT", "4s")]);
    let client = connect(&ensemble).await;
    client.create("/known", "value", CreateMode::default()).await.unwrap();
    let id = tokio::task::block_in_place(|| follower(&ensemble));
    let mut session = Session::open(&ensemble, id).await;
    assert!(!session.leaderless);
    assert_eq!(session.get("/known").await.unwrap(), (b"value".to_vec(), false));
    until_serves(&ensemble, id, true).await;

    ensemble = blocking(ensemble, move |e| e.kill9_part(id, "quorum")).await;
    until_serves(&ensemble, id, false).await;
    assert_eq!(session.get("/known").await.unwrap(), (b"value".to_vec(), true), "what it has, and marked");
    let status = tokio::task::block_in_place(|| ensemble.status())[id - 1].clone();
    assert_eq!(status["role"], "looking", "{status:#}");
    client.set("/known", "newer", None).await.unwrap();

    let sent_away = async {
        loop {
            if let Err(status) = session.get("/known").await {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let status = tokio::time::timeout(PATIENCE, sent_away).await.expect("its patience has an end");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");

    ensemble = blocking(ensemble, move |e| e.start_part(id, "quorum")).await;
    until_serves(&ensemble, id, true).await;
    let mut session = Session::open(&ensemble, id).await;
    let read = async { while session.get("/known").await.unwrap() != (b"newer".to_vec(), false) {} };
    tokio::time::timeout(PATIENCE, read).await.expect("it catches up");
    blocking(ensemble, |e| e.agree()).await;
}

#[test]
fn with_its_quorum_down_a_store_is_not_ready_and_serves_only_stale_reads() {
    let mut ensemble = Ensemble::start_split(&[("QUORATE_TIMING_PARK_LIMIT", "1s")]);
    ensemble.ok(&["create", "/known", "old"]);
    ensemble.ok(&["create", "/known/child", ""]);
    ensemble.agree();
    let id = follower(&ensemble);
    let at = |ensemble: &Ensemble, args: &[&str]| run_at(ensemble.endpoint(id), args);
    let stale = ["get", "/known", "--level", "stale"];
    let fresh = at(&ensemble, &stale);
    assert_eq!((succeed(&fresh, &stale).as_str(), fresh.stderr.as_slice()), ("old", &b""[..]), "not marked");

    ensemble.kill9_part(id, "quorum");
    let store = ensemble.http(id, "store");
    let mut said = String::new();
    eventually("it is not ready", || {
        let (status, text) = http_get(&store, "/readyz");
        said = text;
        status == 503
    });
    assert!(said.contains("[-]store serves no clients; the quorum is looking, no leader"), "{said}");
    assert_eq!(http_get(&store, "/livez").0, 200, "to restart it would not help");
    let mut health = std::process::Command::new(crate::harness::QUORATE);
    assert_eq!(health.args(["health", "--endpoint", &store]).output().unwrap().status.code(), Some(1));
    ensemble.ok(&["set", "/known", "new"]);

    // After its patience it sends away all others.
    let local = ["get", "/known", "--timeout", "2s"];
    eventually("it serves no other reads", || at(&ensemble, &local).status.code() == Some(3));
    let marked = at(&ensemble, &stale);
    assert_eq!(succeed(&marked, &stale), "old");
    let is_note = |output: &std::process::Output| {
        let note = String::from_utf8_lossy(&output.stderr);
        assert!(note.contains("stale: the node at") && note.contains("has no leader"), "{note}");
    };
    is_note(&marked);
    let json = at(&ensemble, &["get", "/known", "--level", "stale", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["value"], &json["as_of"]["leaderless"]), (&"old".into(), &true.into()), "{json:#}");
    let listed = at(&ensemble, &["ls", "/known", "--level", "stale"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), "child");
    let none = at(&ensemble, &["stat", "/nowhere", "--level", "stale"]);
    assert_eq!(none.status.code(), Some(1), "{none:?}");
    // Also after a restart, with what its checkpoint has.
    ensemble.kill9_part(id, "store");
    ensemble.start_part(id, "store");
    let root = ["ls", "/", "--level", "stale"];
    eventually("it answers", || at(&ensemble, &root).status.success());
    is_note(&at(&ensemble, &root));

    ensemble.start_part(id, "quorum");
    eventually("it is ready", || http_get(&store, "/readyz").0 == 200);
    eventually("it catches up", || at(&ensemble, &["get", "/known"]).stdout == b"new");
    assert_eq!(at(&ensemble, &stale).stderr, b"", "no longer marked");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn a_leading_quorum_hands_over_when_it_stops() {
    let mut ensemble = Ensemble::start_split(&[]);
    ensemble.ok(&["create", "/a", ""]);
    // Otherwise no node may be able to take over yet.
    ensemble.agree();
    let leader = ensemble.leader();
    let pid = ensemble.pid(leader, "quorum");
    crate::harness::signal(pid, "TERM");
    eventually("it ends by itself", || ensemble.gone(&[pid]));
    let log = ensemble.log(leader);
    assert!(log.contains("this server is about to stop"), "it did not hand over:\n{log}");
    assert!(!log.contains("no other node took over"), "no node took over in time:\n{log}");
    assert_ne!(ensemble.leader(), leader);
    ensemble.start_part(leader, "quorum");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn the_same_directory_serves_both_packagings() {
    let temp = tempfile::tempdir().unwrap();
    let mut names = BTreeSet::new();
    for (round, split) in [true, false, true, false].into_iter().enumerate() {
        let ensemble = Ensemble::start_packaged_in(temp.path(), split);
        names.insert(format!("n{round}"));
        ensemble.ok(&["create", &format!("/n{round}"), ""]);
        let listed: BTreeSet<String> =
            ensemble.ok(&["ls", "/"]).split_whitespace().map(str::to_owned).collect();
        assert_eq!(listed, names);
        ensemble.agree();
        ensemble.stop();
    }
}

/// A session with one node, spoken by hand: the client library would go elsewhere.
struct Session {
    out: mpsc::Sender<v1::SessionRequest>,
    answers: tonic::Streaming<v1::SessionResponse>,
    leaderless: bool,
}

impl Session {
    async fn open(ensemble: &Ensemble, id: usize) -> Session {
        let (out, requests) = mpsc::channel(8);
        let open = v1::OpenSession { timeout_ms: 30_000, ..Default::default() };
        out.send(v1::SessionRequest { open: Some(open), ..Default::default() }).await.unwrap();
        let mut client =
            CoordinationClient::connect(format!("http://{}", ensemble.endpoint(id))).await.unwrap();
        let mut answers = client.session(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let first = answers.message().await.unwrap().unwrap();
        let Some(v1::Item { item: Some(Item::Opened(opened)) }) = first.items.into_iter().next() else {
            panic!("no session was opened");
        };
        Session { out, answers, leaderless: opened.leaderless }
    }

    /// The value, and whether the answer was marked as leaderless.
    async fn get(&mut self, path: &str) -> Result<(Vec<u8>, bool), tonic::Status> {
        let op = Op::Get(v1::GetRequest { path: path.to_owned(), ..Default::default() });
        let request = v1::Request { xid: 1, op: Some(op), ..Default::default() };
        // If the stream has ended, its status names the reason.
        let _ = self.out.send(v1::SessionRequest { requests: vec![request], ..Default::default() }).await;
        loop {
            let Some(message) = self.answers.message().await? else {
                return Err(tonic::Status::unavailable("the stream ended"));
            };
            if let Some(v1::Item {
                item: Some(Item::Response(v1::Response { leaderless, result: Some(result), .. })),
            }) = message.items.into_iter().next()
            {
                let v1::response::Result::Get(got) = result else { panic!("{result:?}") };
                return Ok((got.data().to_vec(), leaderless));
            }
        }
    }
}

/// Two ensembles of one name: the address of a quorum, and of an election, leads to a node of the other that has the same id.
#[test]
fn b01_services_of_another_ensemble_of_the_same_name_have_no_link_and_do_no_harm() {
    let [mut ours, mut theirs] = [Ensemble::down_split(3), Ensemble::down_split(3)];
    for (ensemble, value) in [(&mut ours, "ours"), (&mut theirs, "theirs")] {
        for id in 1..=3 {
            let file = ensemble.config(id);
            let text = std::fs::read_to_string(&file).unwrap();
            let name = text.lines().find(|line| line.starts_with("ensemble = ")).unwrap().to_owned();
            std::fs::write(&file, text.replace(&name, "ensemble = \"same\"")).unwrap();
            std::fs::remove_dir_all(ensemble.dir.join(format!("node-{id}/data"))).unwrap();
        }
        (1..=3).for_each(|id| ensemble.start_node(id));
        ensemble.ok(&["create", "/whose", value]);
        ensemble.agree();
    }
    let services =
        |ensemble: &Ensemble| host::config::load(Some(&ensemble.config(1)), [], &[]).unwrap().node.services;
    let (right, wrong) = (services(&ours), services(&theirs));
    let ids = [&ours, &theirs].map(|ensemble| {
        let epochs = std::fs::read_to_string(ensemble.dir.join("node-1/data/store/epochs")).unwrap();
        let id = epochs.lines().find_map(|line| line.strip_prefix("ensemble ")).unwrap().to_owned();
        let of_quorum = std::fs::read_to_string(ensemble.dir.join("node-1/data/epochs")).unwrap();
        assert!(of_quorum.contains(&id), "the store keeps the id of its quorum: {epochs}{of_quorum}");
        id
    });
    for (part, key) in [("store", "QUORUM"), ("quorum", "ELECTION")] {
        let key = format!("QUORATE_SERVICES_{key}");
        let (right, wrong) = match part {
            "store" => (&right.quorum, &wrong.quorum),
            _ => (&right.election, &wrong.election),
        };
        let refusals = |ensemble: &Ensemble| {
            let refused =
                |line: &&str| line.contains("refuses the link") && ids.iter().all(|id| line.contains(id));
            ensemble.log(1).lines().filter(refused).count()
        };
        let before = refusals(&ours);
        ours.kill9_part(1, part);
        ours.set_env(1, &key, wrong);
        ours.start_part(1, part);
        eventually("it is refused", || refusals(&ours) > before);
        std::thread::sleep(Duration::from_secs(1));
        theirs.ok(&["set", "/whose", "theirs"]);
        let at_first = |ensemble: &Ensemble| run_at(ensemble.endpoint(1), &["get", "/whose"]).stdout;
        assert_eq!(at_first(&theirs), b"theirs", "its services keep their links");
        assert!(!theirs.log(1).contains("has taken this one's place"), "{}", theirs.log(1));
        ours.kill9_part(1, part);
        ours.set_env(1, &key, right);
        ours.start_part(1, part);
        ours.agree();
        assert_eq!(at_first(&ours), b"ours");
    }
    theirs.agree();
}

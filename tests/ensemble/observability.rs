//! Logs, metrics and probes of nodes, and that dashboards, alerts and documents name only what exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Ensemble, PATIENCE, QUORATE, eventually, http_get as get};
use crate::skipped::skipped;

/// The sum of all points of a metric, or of those with these labels.
fn value(page: &str, name: &str) -> f64 {
    let points = page.lines().filter(|l| !l.starts_with('#'));
    let point = points.filter(|l| l.starts_with(&format!("{name} ")) || l.starts_with(&format!("{name}{{")));
    point.map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All names of metrics in a text: of ours, and of the conventions that we follow.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| ["quorate_", "process_", "rpc_server_"].iter().any(|p| word.starts_with(p));
    words.filter(ours).map(str::to_owned).collect()
}

/// All names that may stand in a query over this page.
fn names_on(page: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in page.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let ends: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        names.extend(ends.iter().map(|end| format!("{name}{end}")));
    }
    names
}

/// A metric by which the dashboards find all processes.
const OF_EVERY_PROCESS: &str = "quorate_process_file_descriptor_limit";

#[test]
fn every_metric_of_dashboards_alerts_and_docs_exists() {
    let ensemble = Ensemble::start();
    ensemble.ok(&["create", "/a", "x"]);
    let mut page = String::new();
    for id in 1..=3 {
        page += &ensemble.metrics(id);
    }
    let there = names_on(&page);
    assert!(there.len() > 50, "{there:?}");
    assert!(!there.contains("quorate_nothing_total"), "the comparison finds nothing");

    let mut files = vec!["deploy/observability/alerts.yaml".to_owned()];
    for name in ["overview", "node", "replication", "clients"] {
        let file = format!("deploy/observability/dashboards/{name}.json");
        let dashboard: serde_json::Value = serde_json::from_str(&read(&file)).unwrap();
        assert!(dashboard["panels"].as_array().unwrap().len() > 5, "{file}");
        // Every process can be selected, and all of them are at first.
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        for name in ["job", "instance"] {
            let variable = variables.iter().find(|v| v["name"] == name).unwrap();
            let query = variable["query"]["query"].as_str().unwrap();
            assert!(query.starts_with(&format!("label_values({OF_EVERY_PROCESS}")), "{file}: {query}");
        }
        assert!(variables.iter().any(|v| v["name"] == "instance" && v["allValue"] == ".*"), "{file}");
        files.push(file);
    }
    for file in files {
        let named = names_in(&read(&file));
        assert!(!named.is_empty(), "{file} names no metric");
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(missing.is_empty(), "{file} names what no node has: {missing:?}");
    }
    // The page of the reference is compared with the code elsewhere; here, the code with what nodes say.
    let explained = read("docs/metrics.md");
    for line in page.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let name = line.split_once(' ').unwrap().0;
        assert!(explained.contains(&format!("`{name}`")), "docs/metrics.md does not explain {name}");
    }
}

#[test]
fn every_alert_has_a_section_that_says_what_to_do() {
    let operations = read("docs/operations.md");
    let rules = read("deploy/observability/alerts.yaml");
    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(operations.contains(&format!("\n### {alert}\n")), "docs/operations.md lacks {alert}");
        assert!(rules.contains(&format!("docs/operations.md#{}", alert.to_lowercase())), "{alert}: runbook");
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
    let rules = repository().join("deploy/observability");
    // As Compose puts them into the container.
    let container = tempfile::tempdir().unwrap();
    let config = repository().join("deploy/compose/observability/prometheus.yaml");
    std::fs::copy(config, container.path().join("prometheus.yml")).unwrap();
    std::fs::copy(rules.join("alerts.yaml"), container.path().join("alerts.yaml")).unwrap();
    // The second plays what should, and what should not, raise an alert.
    for (args, dir) in [
        (["check", "rules", "alerts.yaml"], &*rules),
        (["test", "rules", "alerts_test.yaml"], &*rules),
        (["check", "config", "prometheus.yml"], container.path()),
    ] {
        match Command::new(&promtool).args(args).current_dir(dir).output() {
            Err(e) => skipped(format!("cannot run {promtool} (Debian package prometheus): {e}")),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
}

#[test]
fn what_is_written_is_counted_on_the_nodes_that_did_it() {
    let ensemble = Ensemble::start();
    let (leader, follower) = (ensemble.leader(), 1 + ensemble.leader() % 3);
    // Through the follower alone.
    let at_follower = |args: &[&str]| {
        let output = crate::harness::run_at(ensemble.endpoint(follower), args);
        crate::harness::succeed(&output, args)
    };
    at_follower(&["create", "/a", "0123456789"]);
    for _ in 0..5 {
        at_follower(&["set", "/a", "0123456789"]);
    }
    let on = |id: usize, name: &str| value(&ensemble.metrics(id), name);
    assert_eq!(on(follower, "quorate_request_duration_seconds_count{verb=\"set\"}"), 5.0);
    assert_eq!(on(leader, "quorate_request_duration_seconds_count{verb=\"set\"}"), 0.0);
    // Two phases.
    let serve = "quorate_request_phase_duration_seconds_count{verb=\"set\",phase=\"serve\"}";
    assert_eq!(on(follower, serve), 5.0);
    assert!(on(follower, "quorate_proposal_duration_seconds_count") >= 6.0);
    assert!(on(leader, "quorate_commit_duration_seconds_count") >= 6.0);
    // Each of two followers acknowledges each entry, if perhaps a moment later.
    eventually("both followers have acknowledged", || {
        on(leader, "quorate_ack_duration_seconds_count") >= 12.0
    });
    assert_eq!(on(leader, "quorate_quorum_role{role=\"leader\"}"), 1.0);
    assert_eq!(on(follower, "quorate_quorum_role{role=\"follower\"}"), 1.0);
    // More, if one stood still for longer than `timing.sync_limit`.
    assert!(on(leader, "quorate_sync_started_total") >= 2.0);
    assert_eq!(on(leader, "quorate_learners"), 2.0);
    for id in 1..=3 {
        eventually("the tree is counted", || {
            on(id, "quorate_znodes") == 2.0 && on(id, "quorate_data_size_bytes") == 13.0
        });
        assert!(on(id, "quorate_log_fsync_duration_seconds_count") >= 1.0);
        assert!(on(id, "process_memory_usage_bytes") > 1e6);
        assert_eq!(on(id, "quorate_election_links"), 2.0);
    }
}

#[test]
fn a_node_without_a_quorum_is_live_and_not_ready() {
    let mut ensemble = Ensemble::start_with(3, 0, &[("QUORATE_TIMING_PARK_LIMIT", "1s")]);
    let endpoint = ensemble.http(1, "store");
    let health = |args: &[&str]| {
        Command::new(QUORATE).arg("health").args(args).args(["--endpoint", &endpoint]).output().unwrap()
    };
    for args in [&[][..], &["--live"], &["--startup"]] {
        assert_eq!(health(args).status.code(), Some(0), "{args:?}");
    }
    ensemble.kill9(2);
    ensemble.kill9(3);
    eventually("it turns clients away", || health(&[]).status.code() == Some(1));
    let said = String::from_utf8(health(&["-v"]).stderr).unwrap();
    assert!(said.contains("[-]store serves no clients") && said.contains("[+]startup ok"), "{said}");
    assert_eq!(health(&["--live"]).status.code(), Some(0), "to restart it would not help");
    assert_eq!(value(&get(&endpoint, "/metrics").1, "quorate_store_ready"), 0.0);

    ensemble.start_node(2);
    eventually("it takes clients again", || health(&[]).status.code() == Some(0));
    ensemble.kill9(1);
    assert_eq!(health(&["--live"]).status.code(), Some(1), "no process answers");
}

#[test]
fn metrics_go_to_the_collector_that_the_environment_names() {
    use std::io::Read as _;
    // Only the beginning of the stream: `host` tests the content of exports.
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut words = [0; 24];
        let (mut stream, _) = collector.accept().unwrap();
        stream.read_exact(&mut words).unwrap();
        said.send(words).unwrap();
    });
    let _ensemble = Ensemble::start_with(1, 0, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    assert_eq!(&heard.recv_timeout(PATIENCE).unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

#[test]
fn the_log_level_of_a_running_node_changes() {
    let ensemble = Ensemble::start();
    let endpoint = ensemble.http(1, "store");
    let loglevel = |args: &[&str]| {
        Command::new(QUORATE).arg("loglevel").args(args).args(["--endpoint", &endpoint]).output().unwrap()
    };
    let text = |output: std::process::Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert_eq!(text(loglevel(&[])), "h2=error,info");
    assert_eq!(loglevel(&["info,quorum_svc=trace"]).status.code(), Some(0));
    assert_eq!(text(loglevel(&[])), "quorum_svc=trace,h2=error,info");
    assert_eq!(loglevel(&["=x="]).status.code(), Some(2));
    let log = ensemble.log(1);
    assert!(log.contains("log filter changed filter="), "{log}");
    assert!(log.contains("before=h2=error,info"), "{log}");
}

/// The exit code and the output of `quorate health` for one process of a node.
fn health(ensemble: &Ensemble, id: usize, part: &str, probe: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(QUORATE);
    command.args(["health", "-v", "--service", part, "--config"]).arg(ensemble.config(id)).args(probe);
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn each_service_in_a_process_of_its_own_shows_itself() {
    let mut ensemble = Ensemble::start_split(&[]);
    ensemble.ok(&["create", "/a", ""]);
    ensemble.agree();
    for part in ["election", "quorum", "store"] {
        for probe in [&[][..], &["--live"], &["--startup"]] {
            eventually("it is well", || health(&ensemble, 1, part, probe).0 == Some(0));
        }
        let page = get(&ensemble.http(1, part), "/metrics").1;
        assert!(page.contains(&format!("service_name=\"quorate-{part}\"")), "{page}");
        assert!(value(&page, "process_uptime_seconds") > 0.0, "{page}");
        assert!(value(&page, OF_EVERY_PROCESS) > 0.0, "the dashboards do not find it: {page}");
        let disk = value(&page, "quorate_disk_capacity_bytes");
        assert_eq!(disk > 0.0, part != "election", "{disk}");
        assert!(value(&page, "quorate_disk_available_bytes") <= disk);
        let of = |prefix: &str| page.lines().any(|line| line.starts_with(prefix));
        assert_eq!(of("quorate_election_links"), part == "election", "{part}");
        assert_eq!(of("quorate_log_size_bytes"), part == "quorum", "{part}");
        assert_eq!(of("quorate_znodes"), part == "store", "{part}");
    }
    let election = get(&ensemble.http(1, "election"), "/metrics").1;
    assert_eq!(value(&election, "quorate_election_links"), 2.0);
    assert!(value(&election, "quorate_election_duration_seconds_count") >= 1.0);
    let (_, said) = health(&ensemble, 1, "election", &[]);
    assert!(said.contains("[+]peers linked to 2 of 2 other members: 2, 3"), "{said}");
    let (_, said) = health(&ensemble, 1, "quorum", &[]);
    for check in ["[+]quorum ", "[+]election linked", "[+]disk the log has "] {
        assert!(said.contains(check), "{said}");
    }

    // Each says what it misses, and that is no reason to restart it.
    let says = |ensemble: &Ensemble, part: &str, wanted: &str| {
        let mut said = (None, String::new());
        eventually(wanted, || {
            said = health(ensemble, 1, part, &[]);
            said.0 == Some(1) && said.1.contains(wanted)
        });
        assert_eq!(health(ensemble, 1, part, &["--live"]).0, Some(0));
        assert_eq!(get(&ensemble.http(1, part), "/readyz").0, 503);
    };
    let stores =
        |ensemble: &Ensemble| value(&get(&ensemble.http(1, "quorum"), "/metrics").1, "quorate_quorum_stores");
    assert_eq!(stores(&ensemble), 1.0);
    ensemble.kill9_part(1, "store");
    eventually("the quorum has lost its store", || stores(&ensemble) == 0.0);
    assert_eq!(health(&ensemble, 1, "quorum", &[]).0, Some(0), "it votes and logs");
    ensemble.start_part(1, "store");
    eventually("the store is back", || stores(&ensemble) == 1.0);

    ensemble.kill9_part(1, "election");
    says(&ensemble, "quorum", "[-]election cannot reach the election of this node");
    assert_eq!(health(&ensemble, 1, "store", &[]).0, Some(0), "a leader goes on, and so do its followers");
    ensemble.start_part(1, "election");
    ensemble.kill9_part(1, "quorum");
    says(&ensemble, "election", "[-]quorum the quorum of this node is not linked");
    ensemble.start_part(1, "quorum");
    for id in [2, 3] {
        ensemble.kill9_part(id, "election");
    }
    says(&ensemble, "election", "[-]peers linked to none of 2 other members");
    for id in [2, 3] {
        ensemble.start_part(id, "election");
    }
    ensemble.agree();
    for part in ["election", "quorum", "store"] {
        eventually("it is well again", || health(&ensemble, 1, part, &[]).0 == Some(0));
    }
    ensemble.stop();
}

//! The dashboards over a real Prometheus that scrapes a real ensemble: each panel shows something.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{Ensemble, eventually, http_get};
use crate::skipped::skipped;

/// A Prometheus that ends with the test.
struct Prometheus {
    process: Child,
    address: String,
}

impl Prometheus {
    /// `None` where there is none.
    fn start(dir: &Path, targets: &[String]) -> Option<Prometheus> {
        let program = std::env::var("PROMETHEUS").unwrap_or_else(|_| "prometheus".into());
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s" },
            "scrape_configs": [{ "job_name": "quorate", "static_configs": [{ "targets": targets }] }],
        });
        std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
        let address = {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().to_string()
        };
        let process = Command::new(&program)
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(Prometheus { process, address }),
            Err(e) => {
                skipped(format!("cannot run {program} (Debian package prometheus): {e}"));
                None
            }
        }
    }

    /// The `data` of an answer of its API; `None` before it is up.
    fn ask(&self, path: &str, parameter: &str, text: &str) -> Option<Value> {
        let encoded: String = text.bytes().map(|b| format!("%{b:02x}")).collect();
        let url = format!("{path}?{parameter}={encoded}");
        std::net::TcpStream::connect(&self.address).ok()?;
        let (status, body) = http_get(&self.address, &url);
        let mut answer: Value = serde_json::from_str(&body).ok()?;
        assert!(status != 400, "{text}: {body}");
        (answer["status"] == "success").then(|| answer["data"].take())
    }

    /// Whether a query finds anything.
    fn finds(&self, query: &str) -> bool {
        let data = self.ask("/api/v1/query", "query", query);
        data.is_some_and(|data| !data["result"].as_array().unwrap().is_empty())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Grafana's value of a variable with every option selected.
fn everything(prometheus: &Prometheus, dashboard: &Value, name: &str, job: &str) -> String {
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variable = variables.iter().find(|v| v["name"] == name).unwrap();
    if let Some(all) = variable["allValue"].as_str() {
        return all.to_owned();
    }
    let query = variable["query"]["query"].as_str().unwrap();
    let arguments = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')')).unwrap();
    let (series, label) = arguments.rsplit_once(", ").unwrap();
    let path = format!("/api/v1/label/{label}/values");
    let values = prometheus.ask(&path, "match[]", &series.replace("$job", job)).unwrap();
    let values: Vec<&str> = values.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(!values.is_empty(), "nothing to choose for {name}");
    format!("({})", values.join("|"))
}

#[test]
fn each_panel_of_each_dashboard_shows_something_of_split_services() {
    let mut ensemble = Ensemble::start_split(&[]);
    let parts = ["store", "quorum", "election"];
    let targets: Vec<String> = (1..=3)
        .flat_map(|id| parts.map(|part| (id, part)))
        .map(|(id, part)| ensemble.http(id, part))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let Some(prometheus) = Prometheus::start(dir.path(), &targets) else { return };
    eventually("everything is scraped", || {
        let up = prometheus.ask("/api/v1/query", "query", "sum(up)");
        up.is_some_and(|up| up["result"][0]["value"][1] == "9")
    });

    // Something of everything, behind the first scrape.
    let follower = ensemble.leader() % 3 + 1;
    ensemble.kill9_part(follower, "quorum");
    ensemble.start_part(follower, "quorum");
    ensemble.all_serve();
    ensemble.ok(&["create", "/a", "x"]);
    for id in 1..=3 {
        let at = |args: &[&str]| crate::harness::run_at(ensemble.endpoint(id), args);
        for args in [&["set", "/a", "y"][..], &["get", "/a"], &["sync"], &["ls", "/"], &["get", "/nothing"]] {
            at(args);
        }
    }
    let mut seen = BTreeSet::new();
    for name in ["overview", "node", "replication", "clients"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../deploy/observability/dashboards/{name}.json"));
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let job = everything(&prometheus, &dashboard, "job", "");
        let instance = everything(&prometheus, &dashboard, "instance", &job);
        let variables = [("$job", job), ("$instance", instance)];
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
                for (variable, all) in &variables {
                    query = query.replace(variable, all);
                }
                let title = panel["title"].as_str().unwrap();
                eventually(&format!("{name}, {title}: {query}"), || prometheus.finds(&query));
                seen.insert((name, title.to_owned()));
            }
        }
    }
    assert!(seen.len() > 40, "{seen:?}");
    let processes = "count(process_uptime_seconds)";
    let count = prometheus.ask("/api/v1/query", "query", processes).unwrap();
    assert_eq!(count["result"][0]["value"][1], "9");
}

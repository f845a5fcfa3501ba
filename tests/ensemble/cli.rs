//! The command line, as in the README.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Ensemble, QUORATE, alive, eventually, free_ports, run_at, signal};

/// 2,000 files of all sizes, some deep, some empty, some not text.
fn make_tree(root: &Path) {
    for i in 0..2000u32 {
        let dir = root.join(format!("d{}/e{}", i % 17, i % 5));
        std::fs::create_dir_all(&dir).unwrap();
        let len = (i * 7919 % 9000) as usize;
        let contents: Vec<u8> = (0..len).map(|b| (b as u32 * 31 + i) as u8).collect();
        std::fs::write(dir.join(format!("file {i}.rs")), contents).unwrap();
    }
    std::fs::create_dir_all(root.join("empty/deeper")).unwrap();
    std::fs::write(root.join("100% &sure"), "odd name").unwrap();
    std::fs::write(root.join(".hidden"), "").unwrap();
}

#[test]
fn a_tree_survives_the_death_of_the_leader_in_the_middle_of_its_import() {
    let mut ensemble = Ensemble::start();
    let temp = tempfile::tempdir().unwrap();
    let (tree, back) = (temp.path().join("tree"), temp.path().join("back"));
    make_tree(&tree);
    let leader = ensemble.leader();
    let import = Command::new(QUORATE)
        .args(["import", tree.to_str().unwrap(), "/sources"])
        .env("QUORATE_ENDPOINTS", ensemble.all())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the import has begun", || {
        ensemble.status().iter().any(|n| n["znodes"].as_u64().is_some_and(|n| n > 20))
    });
    ensemble.kill9(leader);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let survivor = (1..=3).find(|id| *id != leader).unwrap();
    let args = ["export", "/sources", back.to_str().unwrap()];
    crate::harness::succeed(&crate::harness::run_at(ensemble.endpoint(survivor), &args), &args);
    let diff = Command::new("diff").arg("-r").args([&tree, &back]).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));

    ensemble.start_node(leader);
    ensemble.agree();
}

#[test]
fn the_verbs_do_what_their_help_says() {
    let ensemble = Ensemble::start();
    ensemble.ok(&["create", "/app", "one"]);
    assert_eq!(ensemble.ok(&["get", "/app"]).trim_end(), "one");
    ensemble.ok(&["set", "/app", "two", "--version", "0"]);
    assert!(ensemble.ok(&["stat", "/app"]).contains("version"));
    for fresh in [&["--level", "linearizable"][..], &["--sync"], &["--at-least", "0x100000001"]] {
        assert_eq!(ensemble.ok(&[&["get", "/app"], fresh].concat()).trim_end(), "two", "{fresh:?}");
    }
    ensemble.ok(&["create", "/app/a", ""]);
    assert_eq!(ensemble.ok(&["ls", "-l", "/app", "--level", "linearizable"]).lines().count(), 2);
    let never = ensemble.run(&["stat", "/app", "--at-least", "0xffffffff00000000"]);
    let text = String::from_utf8_lossy(&never.stderr).into_owned();
    assert!(never.status.code() == Some(3) && text.contains("ask another node"), "{text}");
    ensemble.ok(&["create", "--sequential", "/app/n-", ""]);
    let names = ensemble.ok(&["ls", "/app"]);
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["a", "n-0000000001"]);
    // b23: the number alone, and a name in the way.
    assert_eq!(ensemble.ok(&["create", "--sequential", "/app/", ""]).trim_end(), "/app/0000000002");
    ensemble.ok(&["create", "/app/n-0000000004", ""]);
    assert_eq!(ensemble.ok(&["create", "--sequential", "/app/n-", ""]).trim_end(), "/app/n-0000000005");

    let stale = ensemble.run(&["set", "/app", "three", "--version", "0"]);
    let text = String::from_utf8_lossy(&stale.stderr).into_owned();
    assert_eq!(stale.status.code(), Some(1));
    assert!(text.contains("version 1") && text.contains("read it again"), "{text}");
    let full = ensemble.run(&["delete", "/app"]);
    assert!(!full.status.success() && String::from_utf8_lossy(&full.stderr).contains("children"));
    ensemble.ok(&["delete", "--recursive", "/app"]);
    let gone = ensemble.run(&["get", "/app"]);
    assert!(!gone.status.success() && String::from_utf8_lossy(&gone.stderr).contains("no znode /app"));
    ensemble.stop();
}

#[test]
fn each_bench_measures_what_it_names_and_leaves_nothing() {
    let ensemble = Ensemble::start();
    for load in [&["set"][..], &["get"], &["get", "--linearizable"], &["mix", "--reads", "50"], &["create"]] {
        let args =
            [&["bench"], load, &["--sessions", "3", "--in-flight", "8", "--seconds", "1", "-o", "json"]];
        let found: serde_json::Value = serde_json::from_str(&ensemble.ok(&args.concat())).unwrap();
        let number = |field: &str| found[field].as_f64().unwrap_or_else(|| panic!("{field} of {found}"));
        assert_eq!(found["operation"], load[0]);
        assert_eq!((number("sessions"), number("in_flight")), (3.0, 8.0));
        let ops = number("ops");
        assert!(ops > 0.0 && number("lowest_second") == ops, "one second was measured: {found}");
        assert!(number("p50_us") <= number("p99_us") && number("p99_us") <= number("max_us"), "{found}");
        assert!(number("longest_gap_us") > 0.0 && number("longest_gap_us") <= 1e6, "{found}");
        assert!(number("server_cpu_us") > 0.0, "the nodes are on this machine: {found}");
    }
    assert_eq!(ensemble.ok(&["ls"]).trim_end(), "");
}

#[test]
fn up_started_again_on_its_directory_goes_on_with_the_data() {
    let temp = tempfile::tempdir().unwrap();
    let ensemble = Ensemble::start_in(temp.path(), 3);
    ensemble.ok(&["create", "/kept", "across restarts"]);
    ensemble.stop();
    let ensemble = Ensemble::start_in(temp.path(), 3);
    assert_eq!(ensemble.ok(&["get", "/kept"]).trim_end(), "across restarts");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn status_tells_of_a_missing_node() {
    let mut ensemble = Ensemble::start();
    let nodes = ensemble.status();
    for member in [
        "id",
        "endpoint",
        "role",
        "epoch",
        "zxid",
        "applied",
        "lag",
        "sessions",
        "znodes",
        "digest",
        "uptime",
        "disk",
        "clock_offset_ms",
        "plaintext_ports",
    ] {
        assert!(nodes[0].get(member).is_some(), "no {member} in {:#}", nodes[0]);
    }
    assert!(ensemble.run(&["status"]).status.success());
    let victim = ensemble.leader() % 3 + 1;
    ensemble.kill9(victim);
    assert!(!ensemble.run(&["status"]).status.success());
    assert_eq!(ensemble.status()[victim - 1]["role"], "unreachable");
}

/// A local ensemble of one node. Killed when it is dropped.
struct Up(std::process::Child);

impl Up {
    /// `hang_up` says what becomes of SIGHUP: the process that runs this may ignore it, and would hand that on.
    fn start(hang_up: &str, base: &str, temp: &Path) -> Up {
        let up = Command::new("env")
            .args([hang_up, QUORATE, "up", "--nodes", "1", "--base-port", base])
            .env("TMPDIR", temp)
            .stdout(std::process::Stdio::null())
            .spawn();
        Up(up.unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Where the test has failed.
        let _ = self.0.kill();
    }
}

#[test]
fn nothing_is_left_when_the_terminal_is_closed() {
    let temp = tempfile::tempdir().unwrap();
    let base = free_ports(1).to_string();
    let mut up = Up::start("--default-signal=HUP", &base, temp.path());
    let endpoint = format!("127.0.0.1:{base}");
    eventually("it serves", || run_at(&endpoint, &["get", "/"]).status.success());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    signal(up.0.id(), "HUP");
    assert!(up.0.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn b25_what_nohup_has_started_goes_on_when_the_terminal_is_closed() {
    let temp = tempfile::tempdir().unwrap();
    let base = free_ports(1).to_string();
    let mut up = Up::start("--ignore-signal=HUP", &base, temp.path());
    let endpoint = format!("127.0.0.1:{base}");
    eventually("it serves", || run_at(&endpoint, &["get", "/"]).status.success());
    signal(up.0.id(), "HUP");
    std::thread::sleep(Duration::from_millis(500));
    assert!(up.0.try_wait().unwrap().is_none());
    assert!(run_at(&endpoint, &["get", "/"]).status.success());
    signal(up.0.id(), "TERM");
    assert!(up.0.wait().unwrap().success());
}

#[test]
fn nothing_is_left_when_up_itself_is_killed() {
    let mut ensemble = Ensemble::start();
    let pids = ensemble.all_pids();
    ensemble.kill9_up();
    eventually("the nodes follow", || pids.iter().all(|pid| !alive(*pid)));
    for pid in pids {
        // Were one left, the test must not leave it either.
        if alive(pid) {
            signal(pid, "KILL");
        }
    }
}

//! Whatever comes in, the answer names the remedy and nothing is harmed.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Ensemble, QUORATE, eventually};
use crate::skipped::skipped;

fn refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it was not refused; expected {words:?}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn serve(config: &Path) -> Output {
    Command::new(QUORATE).args(["serve", "--config"]).arg(config).output().unwrap()
}

#[test]
fn requests_are_refused_with_a_remedy_and_the_ensemble_goes_on() {
    let ensemble = Ensemble::start();
    for (path, word) in
        [("/a/", "last slash"), ("//a", "one slash"), ("/a/../b", "full path"), ("a", "start with /")]
    {
        refused(&ensemble.run(&["create", path, "x"]), &[word]);
    }
    refused(&ensemble.run(&["create", "/no/parent", "x"]), &["/no", "create it first"]);
    refused(&ensemble.run(&["set", "/", "x", "--version=-5"]), &["version"]);
    refused(&ensemble.run(&["delete", "/"]), &["/"]);

    let temp = tempfile::tempdir().unwrap();
    let big = temp.path().join("big");
    std::fs::write(&big, vec![7u8; (1 << 20) + 1]).unwrap();
    refused(&ensemble.run(&["create", "/big", "--file", big.to_str().unwrap()]), &["1048576", "limit"]);
    std::fs::write(&big, vec![7u8; 1 << 20]).unwrap();
    ensemble.ok(&["create", "/big", "--file", big.to_str().unwrap()]);
    // Also what is far too large is refused by name, and takes no connection with it.
    std::fs::write(&big, vec![7u8; 10 << 20]).unwrap();
    refused(&ensemble.run(&["set", "/big", "--file", big.to_str().unwrap()]), &["3145728", "elsewhere"]);
    refused(
        &ensemble.run(&["bench", "write", "--size", "10MiB", "--seconds", "1"]),
        &["3145728", "elsewhere"],
    );
    assert_eq!(ensemble.ok(&["ls"]).trim_end(), "big", "the bench leaves nothing");

    // Every port of every node.
    for endpoint in &ensemble.endpoints {
        let client: u16 = endpoint.rsplit(':').next().unwrap().parse().unwrap();
        for port in [client, client + 1, client + 2] {
            for garbage in [&b"\xff\x00\xfe\x01garbage"[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 70_000]] {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                // The node may hang up in the middle of it.
                let _ = socket.write_all(garbage);
            }
        }
    }
    ensemble.ok(&["create", "/after", "still here"]);
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn files_that_are_too_large_are_left_out_of_an_import_or_end_it() {
    let ensemble = Ensemble::start();
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("small"), "x").unwrap();
    std::fs::write(temp.path().join("large"), vec![7u8; 2 << 20]).unwrap();
    let tree = temp.path().to_str().unwrap();
    refused(
        &ensemble.run(&["import", tree, "/a"]),
        &["large (2097152 bytes)", "--skip-large", "limits.data"],
    );
    ensemble.ok(&["import", tree, "/a", "--skip-large"]);
    assert_eq!(ensemble.ok(&["ls", "/a"]).trim_end(), "small");
    // The nodes have not been asked for their limit before. Something was written: that is another exit code.
    let begun = ensemble.run(&["import", tree, "/b", "--max-size", "2MiB"]);
    let said = String::from_utf8_lossy(&begun.stderr);
    assert_eq!(begun.status.code(), Some(1), "{said}");
    assert!(said.contains("limits.data") && said.contains("quorate delete -r /b"), "{said}");
    ensemble.stop();
}

#[test]
fn a_wrong_configuration_is_explained() {
    let ensemble = Ensemble::down(3);
    let config = ensemble.dir.join("node-1/quorate.toml");
    let good = std::fs::read_to_string(&config).unwrap();

    std::fs::write(&config, good.replacen("data_dir", "data_dri", 1)).unwrap();
    refused(&serve(&config), &["data_dri", "data_dir"]);
    std::fs::write(&config, format!("{good}\n[limits]\ndata = \"lots\"\n")).unwrap();
    refused(&serve(&config), &["data", "lots"]);
    std::fs::write(&config, good.replacen("id = 1", "id = 9", 1)).unwrap();
    refused(&serve(&config), &["9", "members"]);
    refused(&serve(&ensemble.dir.join("nowhere.toml")), &["nowhere.toml"]);

    // The directory of node 1, for node 2 and for another ensemble.
    let stolen = good.replacen("id = 1", "id = 2", 1);
    std::fs::write(&config, stolen).unwrap();
    refused(&serve(&config), &["node 1", "data_dir"]);
    std::fs::write(&config, good.replacen("ensemble = \"local-", "ensemble = \"other-", 1)).unwrap();
    refused(&serve(&config), &["local-", "other-", "data_dir"]);
}

#[test]
fn a_port_or_a_directory_in_use_is_named() {
    let ensemble = Ensemble::start();
    let config = ensemble.dir.join("node-1/quorate.toml");
    refused(&serve(&config), &["in use"]);
    let other = tempfile::tempdir().unwrap();
    let port = ensemble.endpoint(1).rsplit(':').next().unwrap();
    let up =
        Command::new(QUORATE).args(["up", "--base-port", port, "--data"]).arg(other.path()).output().unwrap();
    refused(&up, &["in use", port]);
}

#[test]
fn a_full_disk_stops_the_node_and_loses_nothing() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(mount.path())
        .output()
        .is_ok_and(|o| o.status.success());
    if !mounted {
        skipped("a small file system cannot be mounted here (needs root)");
        return;
    }
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(self.0).status();
        }
    }
    let _unmount = Unmount(mount.path());

    let mut ensemble = Ensemble::down(3);
    // Node 1 writes to the small disk, in small segments so that the others need little space too.
    let config = ensemble.dir.join("node-1/quorate.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::remove_dir_all(ensemble.dir.join("node-1/data")).unwrap();
    let text =
        text.replacen("data_dir = \"data\"", &format!("data_dir = {:?}", mount.path().join("data")), 1);
    std::fs::write(&config, format!("{text}\n[log]\nsegment_size = \"4MiB\"\n")).unwrap();
    for id in 1..=3 {
        ensemble.start_node(id);
    }
    eventually("all serve", || ensemble.run(&["status"]).status.success());

    let temp = tempfile::tempdir().unwrap();
    let value = temp.path().join("value");
    std::fs::write(&value, vec![1u8; 900_000]).unwrap();
    for i in 0..40 {
        ensemble.ok(&["create", &format!("/v{i}"), "--file", value.to_str().unwrap()]);
    }
    eventually("node 1 stops, and says why", || {
        let log = ensemble.log(1);
        ensemble.status()[0]["role"] == "unreachable" && log.contains("space")
    });
    assert_eq!(ensemble.ok(&["ls", "/"]).split_whitespace().count(), 40, "the others went on");
}

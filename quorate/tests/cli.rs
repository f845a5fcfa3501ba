//! The command line without an ensemble: help, refusals, exit codes.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its report")]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output},
};

fn quorate(args: &[&str]) -> Output {
    quorate_with(args, &[])
}

/// With these settings in the environment, and no others.
fn quorate_with(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUORATE_")) {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Ports without a listener, all different: given by the system and closed again.
fn closed_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

fn config(dir: &std::path::Path, extra: &str) -> String {
    let path = dir.join("quorate.toml");
    let ports = closed_ports();
    let text = format!(
        "ensemble = \"cli\"\nid = 1\ndata_dir = \"data\"\n{extra}[listen]\nhost = \"127.0.0.1\"\n[[members]]\nid = 1\nhost = \
         \"127.0.0.1\"\nclient_port = {}\nquorum_port = {}\nelection_port = {}\n",
        ports[0], ports[1], ports[2]
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_documents_the_exit_codes_and_every_command() {
    let help = quorate(&["--help"]);
    assert!(help.status.success());
    for word in ["up", "serve", "import", "export", "status", "Exit codes:", "QUORATE_ENDPOINTS"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
}

#[test]
fn completion_scripts_know_the_commands_and_are_read_by_their_shells() {
    for (shell, words) in [
        ("bash", &["complete -F _quorate", "multi", "--czxid"][..]),
        ("zsh", &["#compdef quorate", "multi", "--czxid"]),
        ("fish", &["complete -c quorate", "multi", "-l czxid"]),
    ] {
        let script = quorate(&["completion", shell]);
        assert!(script.status.success(), "{shell}: {}", text(&script.stderr));
        let script = text(&script.stdout);
        for word in words {
            assert!(script.contains(word), "{shell}: no {word}");
        }
        // Reads it without running it. Not every machine has every shell.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        std::fs::write(&path, &script).unwrap();
        match Command::new(shell).arg("-n").arg(&path).output() {
            Ok(read) => assert!(read.status.success(), "{shell}: {}", text(&read.stderr)),
            Err(e) => eprintln!("{shell} does not read its script here: {e}"),
        }
    }
    assert_eq!(quorate(&["completion", "tcsh"]).status.code(), Some(2));
}

#[test]
fn wrong_paths_and_arguments_end_with_2_before_anything_is_dialled() {
    for (args, expected) in [
        (&["get", "relative"][..], "does not start with /"),
        (&["create", "/a/", "x"], "ends with /"),
        (&["set", "/a"], "no value"),
        (&["get", "/a", "--endpoints", "nowhere"], "expected host:port"),
        (&["import", "/nonexistent", "/a"], "is not a directory"),
        (&["up", "--nodes", "6"], "--base-port"),
        (&["multi"], "standard input has no operation"),
        (&["shell", "/a\u{1}"], "\\u{1}"),
    ] {
        let refused = quorate(args);
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(expected), "{args:?}: {}", text(&refused.stderr));
        assert_eq!(text(&refused.stdout), "");
    }
}

#[test]
fn no_ensemble_ends_with_3_and_says_what_to_do() {
    let endpoint = format!("127.0.0.1:{}", closed_ports()[0]);
    let status = quorate(&["status", "--endpoints", &endpoint, "-o", "json"]);
    assert_eq!(status.status.code(), Some(3));
    let rows: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&rows[0]["role"], &rows[0]["endpoint"]), (&"unreachable".into(), &endpoint.clone().into()));
    assert!(text(&status.stderr).contains("quorate up"), "{}", text(&status.stderr));

    let get = quorate(&["get", "/a", "--endpoints", &endpoint, "--timeout", "100ms"]);
    assert_eq!(get.status.code(), Some(3), "{}", text(&get.stderr));
    assert!(text(&get.stderr).contains(&endpoint), "{}", text(&get.stderr));
}

#[test]
fn a_wrong_key_in_a_configuration_ends_with_2_and_names_the_nearest_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "timing.tikc = \"1s\"\n");
    for args in [&["serve", "--config", &path][..], &["config", "show", "--config", &path]] {
        let refused = quorate(args);
        assert_eq!(refused.status.code(), Some(2));
        let expected = format!("{path}:4: there is no key `timing.tikc`; did you mean `timing.tick`?");
        assert!(text(&refused.stderr).contains(&expected), "{}", text(&refused.stderr));
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn config_show_names_the_source_of_each_setting_and_can_be_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "timing.tick = \"100ms\"\n");
    let shown = quorate(&["config", "show", "--config", &path, "--set", "limits.data=2MiB", "--explain"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    let line = |key: &str| shown.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("timing.tick = \"100ms\"").ends_with(&format!("# {path}:4")), "{shown}");
    assert!(line("limits.data = \"2MiB\"").ends_with("# flag"), "{shown}");
    assert!(line("timing.sync_limit").ends_with("# default"), "{shown}");
    assert!(shown.contains("QUORATE_TIMING_TICK"), "{shown}");

    std::fs::write(&path, &shown).unwrap();
    let again = text(&quorate(&["config", "show", "--config", &path]).stdout);
    let settings = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|l| !l.starts_with('#'));
        lines.map(|l| l.rsplit_once("  # ").unwrap().0.trim_end().to_owned()).collect()
    };
    assert_eq!(settings(&again), settings(&shown));
}

#[test]
fn serve_on_a_port_in_use_ends_with_2_and_touches_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let refused = quorate(&["serve", "--config", &path, "--set", &format!("listen.client_port={port}")]);
    assert_eq!(refused.status.code(), Some(2));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains(&format!("client address 127.0.0.1:{port} is in use")), "{stderr}");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn health_finds_the_port_of_each_process_in_the_environment_or_in_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let [port, ..] = closed_ports();
    // No process listens there: the message names the address that was asked.
    let asked = |args: &[&str], env: &[(&str, &str)]| {
        let output = quorate_with(&[&["health"], args].concat(), env);
        (output.status.code(), text(&output.stderr))
    };
    let path = config(dir.path(), "");
    let set =
        std::fs::read_to_string(&path).unwrap().replace("[listen]", &format!("[listen]\nhttp_port = {port}"));
    std::fs::write(&path, set).unwrap();
    let file = ["--config", &path];
    for (service, behind) in [("node", 0), ("store", 0), ("quorum", 1), ("election", 2)] {
        let here = format!("http://127.0.0.1:{}", port + behind);
        let (code, said) = asked(&[&["--service", service][..], &file].concat(), &[]);
        assert!(code == Some(1) && said.contains(&here), "{service}: {said}");
        let (code, said) =
            asked(&["--service", service], &[("QUORATE_LISTEN_HTTP_PORT", port.to_string().as_str())]);
        assert!(code == Some(1) && said.contains(&here), "{service}: {said}");
    }
    let elsewhere = [("QUORATE_LISTEN_HOST", "127.0.0.2"), ("QUORATE_LISTEN_HTTP_PORT", &port.to_string())];
    let (code, said) = asked(&["--live"], &elsewhere);
    assert!(code == Some(1) && said.contains(&format!("http://127.0.0.2:{port}: ")), "{said}");
    let (code, said) = asked(&["--service", "election"], &[("QUORATE_LISTEN_ELECTION_HTTP_PORT", "1")]);
    assert!(code == Some(1) && said.contains("`listen.election_http_port`"), "{said}");

    // An image does not know which of the services it runs.
    let one = TcpListener::bind("127.0.0.1:0").unwrap();
    let its = one.local_addr().unwrap().port().to_string();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = one.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nit works").unwrap();
    });
    let ports =
        [("QUORATE_LISTEN_HTTP_PORT", &*port.to_string()), ("QUORATE_LISTEN_ELECTION_HTTP_PORT", &its)];
    let any = ["--live", "--service", "any"];
    assert_eq!(asked(&any, &ports).0, Some(0));
    answering.join().unwrap();
    assert_eq!(asked(&any, &ports).0, Some(1), "none is left");

    let own = [("QUORATE_LISTEN_QUORUM_HTTP_PORT", "off")];
    for args in [&["--service", "quorum"][..], &[&["--service", "quorum"][..], &file].concat()] {
        let (code, said) = asked(args, &own);
        assert!(code == Some(2) && said.contains("names no port") && said.contains("--endpoint"), "{said}");
    }
    let (code, said) = asked(&["--service", "quorum", "--endpoint", "127.0.0.1:1"], &[]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
}

#[test]
fn the_level_is_asked_for_and_raised_by_a_command_that_says_what_is_wrong() {
    let help = text(&quorate(&["upgrade", "finalize", "--help"]).stdout);
    assert!(help.contains("Refused unless every member, observers included, is connected"), "{help}");
    let all = text(&quorate(&["--help"]).stdout);
    assert!(all.contains("upgrade") && !all.contains("TEST_QUORATE_BUILD"), "{all}");
    let [port, ..] = closed_ports();
    let closed = [("QUORATE_ENDPOINTS", &*format!("127.0.0.1:{port}"))];
    for args in [&["upgrade", "status"][..], &["upgrade", "finalize"]] {
        let output = quorate_with(args, &closed);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(text(&output.stderr).contains("no node answers"), "{output:?}");
    }
    for level in ["0", "-1", "x"] {
        assert_eq!(quorate(&["upgrade", "finalize", "--level", level]).status.code(), Some(2), "{level}");
    }
}

#[test]
fn a_build_that_is_pretended_badly_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    for bad in ["", "1.0.0", "1.0.0:1", "1.0.0:2:1", "1.0.0:0:1", "1.0.0:a:b"] {
        let output = quorate_with(&["serve", "--config", &config], &[("TEST_QUORATE_BUILD", bad)]);
        assert_eq!(output.status.code(), Some(2), "{bad}: {output:?}");
        assert!(text(&output.stderr).contains("TEST_QUORATE_BUILD is not"), "{output:?}");
    }
}

#[test]
fn d1_a_node_that_other_machines_reach_in_plaintext_does_not_start_without_a_decision() {
    let dir = tempfile::tempdir().unwrap();
    let path = config(dir.path(), "");
    let open =
        std::fs::read_to_string(&path).unwrap().replace("host = \"127.0.0.1\"\n[[", "host = \"0.0.0.0\"\n[[");
    std::fs::write(&path, open).unwrap();
    let refused = quorate(&["serve", "--config", &path]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.contains("`insecure = true`") && said.contains("[tls.members]"), "{said}");
    assert!(!dir.path().join("data").exists());
    let decided = quorate(&["config", "show", "--config", &path, "--insecure"]);
    assert!(text(&decided.stdout).contains("insecure = true"), "{}", text(&decided.stderr));
}

#[test]
fn certificates_are_kept_until_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let keep = |life: &str| {
        let at = certs.to_str().unwrap();
        let args = [
            "certs",
            "keep",
            "--dir",
            at,
            "--ensemble",
            "e",
            "--members",
            "1",
            "--host",
            "a",
            "--life",
            life,
        ];
        let kept = quorate(&args);
        assert!(kept.status.success(), "{}", text(&kept.stderr));
        text(&kept.stdout)
    };
    let read = |name: &str| std::fs::read_to_string(certs.join(name)).unwrap();
    assert!(keep("30days").contains("an authority (ca.pem)"));
    let (ca, member) = (read("ca.pem"), read("member-1.pem"));
    assert_eq!(keep("30days"), "", "nothing is due");
    assert_eq!((read("ca.pem"), read("member-1.pem")), (ca.clone(), member));
    std::fs::remove_file(certs.join("gateway.key")).unwrap();
    assert!(keep("1s").contains("gateway"), "what is missing is made");
    // A certificate begins some minutes in the past, for clocks that are behind: this one is in the second half of its life.
    assert!(keep("30days").contains("gateway"));
    assert_eq!(keep("30days"), "");
    assert_eq!(read("ca.pem"), ca);
}

//! The commands for a terminal, at a terminal: `script` of util-linux makes one. And the same commands without one.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    harness::{Ensemble, PATIENCE, QUORATE, command_at, eventually, succeed, within},
    skipped::skipped,
};

/// A command that runs in a terminal of 40 rows and 160 columns.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    /// All that was written to the terminal.
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// `None`, with a message, where there is no `script`.
    fn open(ensemble: &Ensemble, args: &[&str], state: &std::path::Path) -> Option<Terminal> {
        let command = format!("stty rows 40 cols 160; exec {QUORATE} {}", args.join(" "));
        let started = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
            .env("QUORATE_ENDPOINTS", ensemble.all())
            .env("XDG_STATE_HOME", state)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            skipped("there is no `script` here (util-linux, bsdutils), so no terminal");
            return None;
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut out, to) = (child.stdout.take().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut part) {
                to.lock().unwrap().extend_from_slice(&part[..read]);
            }
        });
        let keys = child.stdin.take();
        Some(Terminal { child, keys, seen })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the terminal has shown this text, and forgets all up to there.
    fn expect(&mut self, text: &str) {
        let found = |seen: &mut Vec<u8>| {
            let at = match text.len() {
                0 => Some(0),
                length => seen.windows(length).position(|part| part == text.as_bytes()),
            };
            at.inspect(|at| drop(seen.drain(..at + text.len()))).is_some()
        };
        let shown = within(PATIENCE, || found(&mut self.seen.lock().unwrap()));
        assert!(shown, "the terminal does not show {text:?}, but {:?}", self.text());
    }

    /// Types a line for the shell, which shows this, and waits until it is ready for the next one. Without waiting, Ctrl-C would end the
    /// command that runs, and keys would be lost.
    fn enter(&mut self, keys: &str, shown: &str) {
        self.press(keys);
        // The editor lets the terminal go, and takes it again: bracketed paste goes off and on.
        for text in ["\x1b[?2004l", shown, "\x1b[?2004h"] {
            self.expect(text);
        }
    }

    /// The exit code of the command.
    fn end(mut self) -> (Option<i32>, String) {
        let mut code = None;
        eventually("the command ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        (code.unwrap().code(), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command with this standard input.
fn with_input(ensemble: &Ensemble, args: &[&str], input: &str) -> Output {
    let mut command = command_at(&ensemble.all(), args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_shell_completes_paths_keeps_ephemerals_and_a_history() {
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    for path in ["/app", "/app/workers", "/app/workers/one", "'/app/a name'"] {
        ensemble.ok(&["create", path.trim_matches('\''), ""]);
    }
    let state = tempfile::tempdir().unwrap();
    let Some(mut shell) = Terminal::open(&ensemble, &["shell"], state.path()) else { return };
    shell.expect("/> ");
    shell.enter("cd /ap\twor\t\r", "");
    shell.expect("/app/workers> ");
    shell.enter("pwd\r", "/app/workers\r\n");
    shell.enter("cre\t-e member here\r", "/app/workers/member\r\n");
    assert_eq!(ensemble.ok(&["get", "/app/workers/member"]), "here");
    shell.enter("ls\r", "member\r\n");
    shell.enter("get nothing\r", "no znode /app/workers/nothing");
    shell.press("get ../a\t");
    shell.expect("'../a name'");
    shell.enter("\r", "");
    shell.enter("half a line\x03", "");
    shell.press("exit\r");
    let (code, text) = shell.end();
    assert_eq!(code, Some(0), "{text}");
    let history = std::fs::read_to_string(state.path().join("quorate/history")).unwrap();
    assert!(history.contains("create -e member here") && !history.contains("half a line"), "{history}");
    eventually("the ephemeral is gone with the shell", || {
        !ensemble.run(&["stat", "/app/workers/member"]).status.success()
    });
    ensemble.stop();
}

#[test]
fn a_shell_without_a_terminal_runs_a_script_up_to_the_first_error() {
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    let script = "create -p app/config 'x = 1'\ncd app\nset config 'x = 2' --version 0\nget config\n# nothing\nls -l\ncreate -s q-\n\
                  stat config\ntree /\nacl config\nwhoami\nsync\ndelete q-0000000001\ncd ..\npwd\nhelp\ndelete -r app\n";
    let done = with_input(&ensemble, &["shell", "/"], script);
    let text = succeed(&done, &["shell"]);
    for words in [
        "/app/config\n",
        "version 1\n",
        "x = 2\n",
        "VERSION",
        "/app/q-0000000001\n",
        "world:anyone:rwcda",
        "ip:127.0.0.1",
        "\n/\n",
        "Print the current znode",
        "deleted 2 znodes",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let failed = with_input(&ensemble, &["shell"], "create /a\nget /b\ncreate /c\n");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("no znode /b"), "{failed:?}");
    assert_eq!(ensemble.ok(&["ls", "/"]).split_whitespace().collect::<Vec<_>>(), ["a"]);
    let wrong = with_input(&ensemble, &["shell"], "ls 'x\n");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let nowhere = with_input(&ensemble, &["shell", "/none"], "");
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    ensemble.stop();
}

#[test]
fn a_multi_is_done_as_a_whole_or_not_at_all() {
    let ensemble = Ensemble::start();
    ensemble.all_serve();
    let input = "# two znodes and a queue\ncreate /app 'x = 1'\ncreate /app/blob --base64 /wA=\ncreate /app/q- -s\ncheck /none --absent\n\
                 set /app 'x = 2' --version 0\nacl /app world:anyone:rwcda auth::r\n";
    let refused = with_input(&ensemble, &["multi"], input);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("standard input:7: auth stands for") && text.contains("--auth"), "{text}");
    let input = input.replace(" auth::r", "");
    let done = with_input(&ensemble, &["multi", "-", "-o", "json"], &input);
    let json: serde_json::Value = serde_json::from_str(&succeed(&done, &["multi"])).unwrap();
    let results = json["results"].as_array().unwrap();
    let ops: Vec<_> =
        results.iter().map(|r| (r["op"].as_str().unwrap(), r["path"].as_str().unwrap())).collect();
    let expected = [
        ("create", "/app"),
        ("create", "/app/blob"),
        ("create", "/app/q-0000000001"),
        ("check", "/none"),
        ("set", "/app"),
        ("acl", "/app"),
    ];
    assert_eq!(ops, expected);
    assert_eq!((&results[4]["stat"]["version"], &results[5]["stat"]["aversion"]), (&1.into(), &1.into()));
    assert_eq!(json["zxid"], results[0]["stat"]["czxid"], "one entry of the log");

    let dir = tempfile::tempdir().unwrap();
    let (file, value) = (dir.path().join("changes"), dir.path().join("value"));
    std::fs::write(&value, b"\xffbytes").unwrap();
    std::fs::write(&file, format!("set /app --file {}\n\ndelete /app --version 7\n", value.display()))
        .unwrap();
    let file = file.to_str().unwrap();
    let failed = ensemble.run(&["multi", file]);
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("{file}:3: ")) && text.contains("nothing was changed"), "{text}");
    assert_eq!(ensemble.ok(&["get", "/app"]), "x = 2");
    std::fs::write(file, format!("set /app --file {}\ndelete /app/blob\n", value.display())).unwrap();
    assert_eq!(ensemble.ok(&["multi", file]), "set /app version 2\ndeleted /app/blob\n");
    ensemble.agree();
    ensemble.stop();
}

#[test]
fn top_shows_roles_and_rates_on_a_screen_and_as_text() {
    let mut ensemble = Ensemble::start();
    ensemble.all_serve();
    let load = command_at(
        &ensemble.all(),
        &["bench", "set", "--seconds", "5", "--sessions", "2", "--in-flight", "4", "--timeout", "60s"],
    )
    .stdout(Stdio::null())
    .spawn();
    let mut load = load.unwrap();
    // The load begins after a moment.
    eventually("top shows writes", || {
        let text = ensemble.ok(&["top", "--once", "--interval", "300ms"]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip_while(|l| !l.trim_start().starts_with("ID"))
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 4, "{text}");
        assert_eq!(rows[1..].iter().filter(|row| row[2] == "leader").count(), 1, "{text}");
        let column = 5;
        let writes = rows[1..].iter().any(|row| row[column].parse::<f64>().is_ok_and(|rate| rate > 10.0));
        // The wide columns have names of two words.
        writes && rows[1..].iter().any(|row| row[9].ends_with("ms") || row[9].ends_with('s'))
    });
    assert!(load.wait().unwrap().success());

    let state = tempfile::tempdir().unwrap();
    if let Some(mut top) = Terminal::open(&ensemble, &["top", "--interval", "200ms"], state.path()) {
        top.expect("\x1b[?1049h");
        top.expect("leader");
        let follower = (1..=3).find(|id| *id != ensemble.leader()).unwrap();
        ensemble.kill9(follower);
        top.expect("unreachable");
        top.press(" ");
        top.expect("paused; ");
        top.press("q");
        let (code, text) = top.end();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("\x1b[?1049l"), "the terminal is as before: {text:?}");
        ensemble.start_node(follower);
        ensemble.all_serve();
    }
    let piped = ensemble.run(&["top"]);
    assert!(
        piped.status.code() == Some(2) && String::from_utf8_lossy(&piped.stderr).contains("--once"),
        "{piped:?}"
    );
    ensemble.stop();
}

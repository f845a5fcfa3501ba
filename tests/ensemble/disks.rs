//! Disks that are full, too small at first, of their own, or read-only; and trees that no file system can hold.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{QUORATE, eventually, http_get, run_at, signal, succeed};
use crate::skipped::skipped;

/// The program with the configuration of a node in `dir`.
fn configured(dir: &Path) -> Command {
    let mut command = Command::new(QUORATE);
    command
        .env("QUORATE_ENSEMBLE", "disks")
        .env("QUORATE_ID", "1")
        .env("QUORATE_DATA_DIR", dir.join("data"))
        .env("QUORATE_MEMBERS", "[{ id = 1, host = \"127.0.0.1\" }]");
    command
}

/// A node that is an ensemble of its own. Dropping it kills it.
struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    /// On ports that the system chooses.
    fn start(dir: &Path, settings: &[(&str, &str)]) -> Node {
        let log = dir.join(format!("log-of-{:x}", RandomState::new().hash_one(0)));
        let file = File::create(&log).unwrap();
        let mut command = configured(dir);
        command.arg("serve").env("QUORATE_LISTEN_HOST", "127.0.0.1").env("QUORATE_LOG", "info");
        for port in ["CLIENT", "ZOOKEEPER", "QUORUM", "ELECTION", "HTTP"] {
            command.env(format!("QUORATE_LISTEN_{port}_PORT"), "0");
        }
        let child = command
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Node { child, log }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// An address that it says it listens on.
    fn address(&self, of: &str) -> String {
        let word = format!("{of}=");
        let mut found = None;
        eventually("it listens", || {
            let text = plain(&self.text());
            let line = text.lines().find(|line| line.contains("listening")).map(str::to_owned);
            found = line.and_then(|line| {
                let rest = line.split(&word).nth(1)?.trim_start_matches("Some(").trim_matches('"').to_owned();
                let end =
                    rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
                Some(rest[..end].to_owned())
            });
            found.is_some()
        });
        found.unwrap()
    }

    fn ready(&self) -> (bool, String) {
        let (code, text) = http_get(&self.address("http"), "/readyz?verbose");
        (code == 200, text)
    }

    fn serves(&self) {
        eventually("it serves", || self.ready().0);
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = run_at(&self.address("client"), args);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    fn ok(&self, args: &[&str]) -> String {
        succeed(&run_at(&self.address("client"), args), args)
    }

    /// Stops it in order, so that its checkpoint has everything.
    fn stop(mut self) {
        signal(self.child.id(), "TERM");
        eventually("it stops", || self.child.try_wait().unwrap().is_some());
    }

    /// Waits until the process ends by itself, and returns its output.
    fn ended(mut self) -> String {
        let mut code = None;
        eventually("it ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        assert!(!code.unwrap().success());
        plain(&self.text())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without the colours.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&rest[..at]);
        rest = rest[at..].split_once('m').map_or("", |(_, behind)| behind);
    }
    out + rest
}

/// A small file system at `dir`; unmounted when dropped. `None` where that is not permitted.
struct Mount(PathBuf);

impl Mount {
    fn at(dir: &Path, size: &str) -> Option<Mount> {
        std::fs::create_dir_all(dir).unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Mount(dir.to_owned()));
        }
        skipped("no right to mount a file system, which a test of full disks needs");
        None
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// `FIRST_START_KILLS=500 cargo test -p quorate --test ensemble b19_` is the same at more points.
#[test]
fn b19_a_node_that_is_killed_again_and_again_in_its_first_start_comes_up() {
    let kills = std::env::var("FIRST_START_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let mut killed = 0;
    while killed < kills {
        let temp = tempfile::tempdir().unwrap();
        let chance = RandomState::new().hash_one(killed);
        for n in 0..=chance % 3 {
            let node = Node::start(temp.path(), &[]);
            std::thread::sleep(Duration::from_micros((chance >> (8 * n + 8)) % 60_000));
            drop(node);
            killed += 1;
        }
        let node = Node::start(temp.path(), &[]);
        node.serves();
        node.ok(&["create", "/a", "x"]);
    }
}

#[test]
fn b18_below_the_mark_what_grows_is_refused_and_deletes_are_taken() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::start(temp.path(), &[]);
    node.serves();
    node.ok(&["create", "/a", "x"]);
    drop(node);
    // As if the disk were nearly full.
    let node = Node::start(temp.path(), &[("QUORATE_LOG_MIN_FREE", "1000000GiB")]);
    node.serves();
    eventually("it looks at its disk", || node.ready().1.contains("short,"));
    let (code, text) = node.run(&["create", "/b", "x"]);
    assert!(code == Some(1) && text.contains("delete znodes, or free or add space"), "{code:?} {text}");
    assert_eq!(node.run(&["set", "/a", "yz"]).0, Some(1));
    assert_eq!(node.ok(&["get", "/a"]).trim_end(), "x");
    let (code, text) = node.run(&["status"]);
    assert!(code == Some(4) && text.contains("the disk of node 1 is nearly full"), "{code:?} {text}");
    assert!(http_get(&node.address("http"), "/metrics").1.contains("quorate_disk_room 2"));
    node.ok(&["delete", "/a"]);
    drop(node);
    let node = Node::start(temp.path(), &[]);
    node.serves();
    node.ok(&["create", "/b", "x"]);
}

/// A stopped node with a znode `/a` on a small file system; then another file takes all the space.
fn full(temp: &Path, size: &str) -> Option<Mount> {
    let mount = Mount::at(&temp.join("data"), size)?;
    let node = Node::start(temp, &SMALL);
    node.serves();
    node.ok(&["create", "/a", "x"]);
    eventually("it keeps a reserve", || temp.join("data/log/reserve").exists());
    node.stop();
    fill(&temp.join("data/others"));
    Some(mount)
}

/// Takes all the space that there is.
fn fill(file: &Path) {
    let mut file = File::create(file).unwrap();
    for size in [1 << 20, 4096] {
        while std::io::Write::write_all(&mut file, &vec![1; size]).is_ok() {}
    }
}

const SMALL: [(&str, &str); 1] = [("QUORATE_LOG_SEGMENT_SIZE", "1MiB")];

#[test]
fn b18_a_node_with_too_little_space_answers_stale_reads_and_takes_part_when_there_is_more() {
    let temp = tempfile::tempdir().unwrap();
    let Some(mount) = full(temp.path(), "24m") else { return };
    let node = Node::start(temp.path(), &SMALL);
    eventually("it answers stale reads", || node.run(&["get", "/a", "--level", "stale"]).1.contains('x'));
    let (ready, text) = node.ready();
    assert!(!ready && text.contains("takes no part until there is space on its disk"), "{text}");
    let (code, text) = node.run(&["status"]);
    assert!(code == Some(4) && text.contains("free or add space"), "{code:?} {text}");
    std::fs::remove_file(mount.0.join("others")).unwrap();
    node.serves();
    node.ok(&["create", "/b", "y"]);
    assert!(plain(&node.text()).contains("disk has space again"));
    drop(node);
    // A read-only file system is called what it is.
    mount.remount("ro");
    let text = Node::start(temp.path(), &SMALL).ended();
    assert!(text.contains("mounted read-only") && text.contains("mount it for writing"), "{text}");
}

#[test]
fn b18_a_stale_reader_without_a_checkpoint_reads_its_newest_snapshot_and_without_one_refuses() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let Some(_mount) = Mount::at(&data, "24m") else { return };
    let settings = [SMALL[0], ("QUORATE_LOG_SNAPSHOT_EVERY", "1")];
    let node = Node::start(temp.path(), &settings);
    node.serves();
    node.ok(&["create", "/a", "x"]);
    let snapshots = || std::fs::read_dir(data.join("snapshots")).unwrap().flatten().count();
    eventually("there are two snapshots", || {
        node.ok(&["set", "/a", "x"]);
        snapshots() > 1
    });
    node.stop();
    // A node that looks for space removes these files.
    std::fs::remove_dir_all(data.join("table")).unwrap();
    for reserve in ["reserve", "log/reserve"] {
        // There may be none.
        let _ = std::fs::remove_file(data.join(reserve));
    }
    fill(&data.join("others"));
    let stale = |node: &Node, what: &[&str]| node.run(&[what, &["--level", "stale"]].concat());
    let node = Node::start(temp.path(), &settings);
    let marked = |text: &str| text.contains("has no leader, this is its state of 0x1");
    for what in [&["get", "/a"][..], &["ls", "/"], &["stat", "/a"]] {
        let (code, text) = stale(&node, what);
        assert!(code == Some(0) && marked(&text), "{what:?}: {code:?} {text}\n{}", node.text());
    }
    for what in ["get", "stat", "ls"] {
        let (code, text) = stale(&node, &[what, "/none"]);
        assert!(code == Some(1) && text.contains("no znode /none") && marked(&text), "{what}: {text}");
    }
    drop(node);
    std::fs::remove_dir_all(data.join("snapshots")).unwrap();
    fill(&data.join("others-2"));
    let node = Node::start(temp.path(), &settings);
    for what in [&["get", "/a"][..], &["ls", "/"], &["stat", "/a"]] {
        let (code, text) = stale(&node, what);
        assert!(code == Some(3) && text.contains("no state"), "{what:?}: {code:?} {text}\n{}", node.text());
    }
}

#[test]
fn b18_a_node_on_a_full_disk_starts_from_its_reserve_and_deletes_make_room() {
    let temp = tempfile::tempdir().unwrap();
    let Some(_mount) = full(temp.path(), "64m") else { return };
    let node = Node::start(temp.path(), &SMALL);
    node.serves();
    eventually("it looks at its disk", || node.ready().1.contains("short,"));
    assert_eq!(node.run(&["create", "/b", "x"]).0, Some(1));
    node.ok(&["delete", "/a"]);
    std::fs::remove_file(temp.path().join("data/others")).unwrap();
    eventually("writes are taken again", || node.run(&["create", "/b", "x"]).0 == Some(0));
    assert!(plain(&node.text()).contains("the disk has room again"));
}

#[test]
fn b22_the_log_has_a_directory_of_its_own_and_a_wrong_one_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let log = temp.path().join("other-disk/log");
    let moved = temp.path().join("moved");
    let at = |log: &Path| [("QUORATE_LOG_DIR", log.to_str().unwrap().to_owned())];
    let start = |settings: &[(&str, String)]| {
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        Node::start(temp.path(), &settings)
    };
    let node = start(&at(&log));
    node.serves();
    node.ok(&["create", "/a", "x"]);
    assert!(!temp.path().join("data/log").exists() && log.join("durable").exists());
    drop(node);
    let text = start(&[]).ended();
    assert!(text.contains("the log of this node is in") && text.contains("set `log_dir` to it"), "{text}");
    let text = start(&at(&moved)).ended();
    assert!(text.contains("is the file system mounted?"), "{text}");
    assert!(!moved.exists(), "a refused start makes no directory");
    std::fs::rename(&log, &moved).unwrap();
    let node = start(&at(&moved));
    node.serves();
    assert_eq!(node.ok(&["get", "/a"]).trim_end(), "x");
}

#[test]
fn b22_an_operator_begins_a_new_ensemble_only_where_the_log_is() {
    let temp = tempfile::tempdir().unwrap();
    let (log, other) = (temp.path().join("other-disk"), temp.path().join("not-mounted"));
    let log_dir = log.to_str().unwrap();
    let node = Node::start(temp.path(), &[("QUORATE_LOG_DIR", log_dir)]);
    node.serves();
    node.ok(&["create", "/a", "x"]);
    node.stop();
    let recover = |log_dir: Option<&Path>, members: &str| {
        let mut command = configured(temp.path());
        command.args(["recover", "members", "--yes"]).env("QUORATE_MEMBERS", members);
        command.env("QUORATE_LISTEN_HOST", "127.0.0.1");
        log_dir.into_iter().for_each(|dir| _ = command.env("QUORATE_LOG_DIR", dir));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let alone = "[{ id = 1, host = \"127.0.0.1\" }]";
    let epochs = || std::fs::read(temp.path().join("data/epochs")).unwrap();
    let before = epochs();
    for (log_dir, why) in
        [(Some(other.as_path()), "is the file system mounted?"), (None, "set `log_dir` to it")]
    {
        let (code, text) = recover(log_dir, alone);
        assert!(
            code == Some(1) && text.contains("nothing was changed") && text.contains(why),
            "{code:?} {text}"
        );
    }
    assert!(epochs() == before && !other.exists());
    let (code, text) = recover(Some(&log), "[{ id = 1, host = \"q{1}\", count = 3 }]");
    assert!(code == Some(0) && text.contains(&format!("one of\n{log_dir}, which has the log")), "{text}");
    let (code, text) = recover(Some(&log), alone);
    assert_eq!(code, Some(0), "{text}");
    let node = Node::start(temp.path(), &[("QUORATE_LOG_DIR", log_dir)]);
    node.serves();
    assert_eq!(node.ok(&["get", "/a"]).trim_end(), "x");
}

#[test]
fn b21_a_tree_that_no_file_system_can_hold_comes_back_with_its_counters() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::start(temp.path(), &[]);
    node.serves();
    let long = format!("/t/{}", "x".repeat(256));
    let mut deep = "/t/deep".to_owned();
    for (path, value) in [("/t", ""), ("/t/100%", "a"), ("/t/100%25", "b"), ("/t/%value", "c"), (&long, "d")]
    {
        node.ok(&["create", path, value]);
    }
    node.ok(&["create", &deep, ""]);
    for _ in 0..20 {
        deep = format!("{deep}/{}", "y".repeat(250));
        node.ok(&["create", &deep, "z"]);
    }
    // Three jobs of which none is left.
    node.ok(&["create", "/t/q", ""]);
    for _ in 0..3 {
        let made = node.ok(&["create", "-s", "/t/q/job-", "x"]);
        node.ok(&["delete", made.split_whitespace().find(|word| word.starts_with('/')).unwrap()]);
    }
    let file = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (code, text) = node.run(&["export", "/t", &file("dir")]);
    assert!(code == Some(1) && text.contains("--archive"), "{code:?} {text}");
    assert!(!temp.path().join("dir").exists() && text.contains("is removed"), "{text}");
    node.ok(&["export", "--archive", "/t", &file("one")]);
    node.ok(&["import", &file("one"), "/copy"]);
    node.ok(&["export", "--archive", "/copy", &file("two")]);
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    assert_eq!(read("one"), read("two"));
    assert!(node.ok(&["create", "-s", "/copy/q/job-", "x"]).contains("job-0000000003"));
    // A part of an archive is none.
    let whole = read("one");
    std::fs::write(file("part"), &whole[..whole.len() - 60]).unwrap();
    let (code, text) = node.run(&["import", &file("part"), "/part"]);
    assert!(code != Some(0) && text.contains("damaged or incomplete"), "{code:?} {text}");
}

#[test]
fn b21_kinds_access_lists_quotas_and_absent_values_come_back_or_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::start(temp.path(), &[]);
    node.serves();
    let file = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    for (create, lost) in [
        (&["create", "--container", "/k"][..], "container"),
        (&["create", "--ttl", "1h", "/k"], "TTL"),
        (&["create", "/k"], "access list"),
        (&["create", "/k"], "quota"),
    ] {
        node.ok(create);
        match lost {
            "access list" => drop(node.ok(&["acl", "set", "/k", "ip:127.0.0.1:rwcda"])),
            "quota" => drop(node.ok(&["quota", "set", "/k", "--soft-bytes", "9"])),
            _ => {}
        }
        let (code, text) = node.run(&["export", "/k", &file("dir")]);
        assert!(
            code == Some(1)
                && text.contains(lost)
                && text.contains("would be lost")
                && text.contains("--archive"),
            "{code:?} {text}"
        );
        assert!(!temp.path().join("dir").exists());
        node.ok(&["delete", "/k"]);
    }
    for words in [
        "create /t v",
        "create --container /t/locks",
        "create -s /t/locks/lock- x",
        "create -s --ttl 1h /t/job- x",
        "create /t/full v",
        "create /t/full/a 12345",
        // Less than there is.
        "quota set /t/full --znodes 0 --bytes 2 --soft-znodes 7",
        "quota set /t --soft-bytes 1000000",
        "acl set /t world:anyone:rcd ip:127.0.0.0/8:rwcda",
        "acl set /t/full/a world:anyone:r",
    ] {
        node.ok(&words.split(' ').collect::<Vec<_>>());
    }
    node.ok(&["export", "--archive", "/t", &file("first")]);
    // One without a value, as clients of ZooKeeper make them.
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let text = read("first").replace("{\"path\":\"/locks\",\"data\":\"\"", "{\"path\":\"/locks\"");
    let body = &text[..text.rfind("{\"end\"").unwrap()];
    let znodes = body.lines().count() - 1;
    let crc = crc32c::crc32c(body.as_bytes());
    std::fs::write(file("one"), format!("{body}{{\"end\":{znodes},\"crc32c\":\"{crc:08x}\"}}\n")).unwrap();
    node.ok(&["import", &file("one"), "/copy"]);
    node.ok(&["export", "--archive", "/copy", &file("two")]);
    assert!(read("one") == read("two") && read("one") != read("first"), "{}\n{}", read("one"), read("two"));
    let (code, text) = node.run(&["export", "/copy/locks", &file("dir")]);
    assert!(code == Some(1) && text.contains("--archive"), "{code:?} {text}");

    // What the importer may not do fails, and says how far it came.
    node.ok(&["create", "/shut"]);
    node.ok(&["create", "/shut/a"]);
    node.ok(&["acl", "set", "/shut", "world:anyone:r"]);
    node.ok(&["export", "--archive", "/shut", &file("shut")]);
    let (code, text) = node.run(&["import", &file("shut"), "/opened"]);
    assert!(
        code == Some(1) && text.contains("as the superuser") && text.contains("1 znodes were created"),
        "{text}"
    );
    // Hashes that the exporter may not read would be lost.
    node.ok(&["create", "/digest"]);
    node.ok(&["acl", "set", "/digest", "digest:ada:hash:rwcda", "world:anyone:r"]);
    let (code, text) = node.run(&["export", "--archive", "/digest", &file("masked")]);
    assert!(code == Some(1) && text.contains("hashes you may not read"), "{code:?} {text}");
    assert!(!temp.path().join("masked").exists() && !temp.path().join("masked.part").exists());
}

#[test]
fn b21_an_import_that_meets_an_existing_znode_changes_nothing_below_it_and_advises_no_deletion() {
    let temp = tempfile::tempdir().unwrap();
    let node = Node::start(temp.path(), &[]);
    node.serves();
    node.ok(&["create", "/taken", "ours"]);
    let tree = temp.path().join("tree");
    for name in ["a", "taken"] {
        std::fs::create_dir_all(tree.join(name)).unwrap();
        std::fs::write(tree.join(name).join("file"), "theirs").unwrap();
    }
    let tree = tree.to_str().unwrap();
    let (code, text) = node.run(&["import", tree, "/taken"]);
    assert!(code == Some(1) && text.contains("/taken exists already"), "{code:?} {text}");
    assert!(text.contains("no znode was created") && !text.contains("delete"), "{text}");
    assert_eq!(node.ok(&["ls", "/taken"]).trim_end(), "", "nothing came below it");
    let (code, text) = node.run(&["import", tree, "/"]);
    assert!(code == Some(1) && text.contains("/taken exists already"), "{code:?} {text}");
    assert!(text.contains("znodes were created, the last is /") && !text.contains("delete"), "{text}");
    assert_eq!(node.ok(&["get", "/taken"]).trim_end(), "ours");
}

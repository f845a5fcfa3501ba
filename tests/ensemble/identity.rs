//! Who belongs to an ensemble: wrong addresses, wrong lists of members, and what an operator can decide.

use std::time::Duration;

use crate::harness::{Ensemble, alive, copy_dir, eventually, http_get};

fn config(ensemble: &Ensemble, id: usize) -> String {
    std::fs::read_to_string(ensemble.config(id)).unwrap()
}

fn configure(ensemble: &Ensemble, id: usize, text: &str) {
    std::fs::write(ensemble.config(id), text).unwrap();
}

/// The text before the list of members, and each member.
fn members(text: &str) -> (&str, Vec<&str>) {
    let mut parts = text.split("\n[[members]]\n");
    let head = parts.next().unwrap();
    (head, parts.collect())
}

/// The configuration with only these members, by their places.
fn with_members(text: &str, places: &[usize]) -> String {
    let (head, all) = members(text);
    let chosen = places.iter().map(|&place| format!("\n[[members]]\n{}", all[place]));
    std::iter::once(head.to_owned()).chain(chosen).collect()
}

/// Three nodes that run.
fn three() -> Ensemble {
    let mut ensemble = Ensemble::down(3);
    (1..=3).for_each(|id| ensemble.start_node(id));
    ensemble.ok(&["create", "/keep", "acknowledged"]);
    ensemble.agree();
    ensemble
}

/// Node 3 of one ensemble gets the addresses of another one of the same name.
#[test]
fn b01_a_node_of_another_ensemble_of_the_same_name_does_no_harm() {
    let [mut ours, mut theirs] = [Ensemble::down(3), Ensemble::down(3)];
    for ensemble in [&mut ours, &mut theirs] {
        for id in 1..=3 {
            let text = config(ensemble, id);
            let name = text.lines().find(|line| line.starts_with("ensemble = ")).unwrap().to_owned();
            assert!(name.starts_with("ensemble = \"local-"), "a name of its own: {name}");
            configure(ensemble, id, &text.replace(&name, "ensemble = \"same\""));
            std::fs::remove_dir_all(ensemble.dir.join(format!("node-{id}/data"))).unwrap();
        }
        (1..=3).for_each(|id| ensemble.start_node(id));
        ensemble.ok(&["create", "/important", "data"]);
        ensemble.agree();
    }
    // It is ahead of the ensemble that it comes to.
    for _ in 0..2 {
        let leader = theirs.leader();
        theirs.kill9(leader);
        theirs.start_node(leader);
        theirs.agree();
    }
    theirs.kill9_all();
    let text = config(&theirs, 3);
    let (head, mine) = members(&text);
    let other = config(&ours, 3);
    let (_, others) = members(&other);
    let mixed: Vec<&str> = vec![others[0], others[1], mine[2]];
    configure(&theirs, 3, &format!("{head}\n[[members]]\n{}", mixed.join("\n[[members]]\n")));
    theirs.start_node(3);
    eventually("both sides refuse", || {
        let refuses = |log: &str| log.contains("belongs to another ensemble of the name");
        refuses(&theirs.log(3)) && (refuses(&ours.log(1)) || refuses(&ours.log(2)))
    });
    std::thread::sleep(Duration::from_secs(3));
    ours.ok(&["set", "/important", "new"]);
    theirs.kill9_all();
    for id in 1..=3 {
        let epochs = std::fs::read_to_string(ours.dir.join(format!("node-{id}/data/epochs"))).unwrap();
        assert!(epochs.contains("damage none"), "{epochs}");
        ours.kill9(id);
        ours.start_node(id);
    }
    ours.agree();
    assert_eq!(ours.ok(&["get", "/important"]).trim_end(), "new");
}

#[test]
fn b02_other_members_in_the_settings_of_a_node_change_nothing() {
    let mut ensemble = three();
    let right = config(&ensemble, 3);
    for (text, difference) in [
        (with_members(&right, &[2]), "member 1 is a voter here and none there"),
        (
            format!("{right}\n[[members]]\nid = 4\nhost = \"127.0.0.1\"\n"),
            "member 4 is a voter there and none here",
        ),
        (format!("{right}weight = 2\n"), "member 3 is a voter of weight 2 there and a voter here"),
        (format!("{right}group = 1\n"), "member 3 is a voter of weight 1 in group 1 there and a voter here"),
    ] {
        ensemble.kill9(3);
        configure(&ensemble, 3, &text);
        ensemble.start_node(3);
        eventually("it warns", || {
            let log = ensemble.log(3);
            log.contains(difference) && log.contains("Settings count for the first start only")
        });
        ensemble.ok(&["set", "/keep", "still", "--endpoints", ensemble.endpoint(1)]);
    }
    ensemble.kill9(3);
    // Addresses may change.
    configure(
        &ensemble,
        3,
        &right.replacen("host = \"127.0.0.1\"\nclient", "host = \"localhost\"\nclient", 1),
    );
    ensemble.start_node(3);
    ensemble.agree();
}

/// Two lists, and directories that do not know them yet: each side refuses the other.
#[test]
fn b02_servers_with_different_members_have_no_link() {
    let mut ensemble = Ensemble::down(3);
    for id in 1..=3 {
        std::fs::remove_dir_all(ensemble.dir.join(format!("node-{id}/data"))).unwrap();
    }
    let weighed = format!("{}weight = 5\n", config(&ensemble, 3));
    configure(&ensemble, 3, &weighed);
    (1..=3).for_each(|id| ensemble.start_node(id));
    eventually("both sides log it", || {
        let said = |id: usize, here: &str, there: &str| {
            ensemble.log(id).contains(&format!("member 3 is {there} there and {here} here"))
        };
        let five = "a voter of weight 5";
        said(3, five, "a voter") && (said(1, "a voter", five) || said(2, "a voter", five))
    });
    eventually("status shows it", || {
        let status = ensemble.run(&["status"]);
        status.status.code() == Some(4)
            && String::from_utf8_lossy(&status.stderr).contains("have different members")
    });
}

#[test]
fn b13_a_setting_that_differs_between_members_is_told_with_both_values() {
    let mut ensemble = three();
    let warned = |ensemble: &Ensemble| {
        let output = ensemble.run(&["status"]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(warned(&ensemble).0, Some(0));
    assert!(!warned(&ensemble).1.contains("other settings"));
    ensemble.kill9(3);
    ensemble.set_env(3, "QUORATE_LIMITS_DATA", "2MiB");
    ensemble.set_env(3, "QUORATE_TIMING_TICK", "100ms");
    ensemble.start_node(3);
    let told = |tick: [&str; 2], data: [&str; 2]| {
        let said = |key: &str, [there, here]: [&str; 2]| format!("`{key}` is {there} there and {here} here");
        format!("{}, {}", said("limits.data", data), said("timing.tick", tick))
    };
    eventually("both sides log it", || {
        let others = told(["100ms", "200ms"], ["2MiB", "1MiB"]);
        let own = told(["200ms", "100ms"], ["1MiB", "2MiB"]);
        ensemble.log(3).contains(&own)
            && ensemble.log(1).contains(&others)
            && ensemble.log(2).contains(&others)
    });
    eventually("status tells it, and that all is well", || {
        let (code, said) = warned(&ensemble);
        code == Some(0)
            && said
                .contains("the nodes 1 and 3 have other settings: `limits.data` is 2MiB there and 1MiB here")
            && said.contains("the nodes 2 and 3 have other settings")
            && !said.contains("the nodes 1 and 2 ")
            && said.contains("give all nodes the same")
    });
}

/// Two of three are lost; an operator goes on from the third, first alone and then with copies.
#[test]
fn b02_an_operator_begins_a_new_ensemble_from_one_directory() {
    let mut ensemble = three();
    ensemble.kill9_all();
    let whole = config(&ensemble, 1);
    configure(&ensemble, 1, &with_members(&whole, &[0]));
    let file = ensemble.config(1);
    let file = file.to_str().unwrap();
    let asked = ensemble.run(&["recover", "members", "--config", file]);
    assert_eq!(asked.status.code(), Some(1));
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.contains("nothing was changed; add --yes"), "{said}");
    assert!(ensemble.ok(&["recover", "members", "--config", file, "--yes"]).contains("has the id"));
    ensemble.start_node(1);
    let alone = ensemble.endpoint(1).to_owned();
    let ok = |ensemble: &Ensemble, args: &[&str]| ensemble.ok(&[args, &["--endpoints", &alone]].concat());
    assert_eq!(ok(&ensemble, &["get", "/keep"]).trim_end(), "acknowledged");
    ok(&ensemble, &["create", "/alone", ""]);
    // The others of the old ensemble have nothing to do with it.
    ensemble.start_node(2);
    ensemble.start_node(3);
    eventually("they refuse it", || ensemble.log(2).contains("belongs to another ensemble of the name"));
    ensemble.kill9_all();

    configure(&ensemble, 1, &whole);
    ensemble.ok(&["recover", "members", "--config", file, "--yes"]);
    let data = |id: usize| ensemble.dir.join(format!("node-{id}/data"));
    for id in [2, 3] {
        std::fs::remove_dir_all(data(id)).unwrap();
    }
    copy_dir(&data(1), &data(2));
    ensemble.ok(&["recover", "copy", "--config", ensemble.config(2).to_str().unwrap(), "--yes"]);
    (1..=3).for_each(|id| ensemble.start_node(id));
    ensemble.agree();
    assert_eq!(ensemble.ok(&["get", "/keep"]).trim_end(), "acknowledged");
    ensemble.ok(&["stat", "/alone"]);
}

#[test]
fn b25_a_node_without_a_quorum_says_which_peer_fails_and_why() {
    let mut ensemble = Ensemble::down(3);
    ensemble.start_node(1);
    eventually("it logs it", || {
        let log = ensemble.log(1);
        log.contains("no quorum: this node has no leader")
            && log.contains("2 at 127.0.0.1:")
            && log.contains("refused")
    });
    let part = if std::env::var_os("TEST_SPLIT").is_some() { "quorum" } else { "serve" };
    let (status, text) = http_get(&ensemble.http(1, part), "/readyz?verbose");
    assert_eq!(status, 503);
    assert!(text.contains("peers: 2 ") && text.contains(", 3 ") && text.contains("refused"), "{text}");
}

#[test]
fn b25_the_first_warning_calls_neither_the_killed_nor_the_stopped_reached() {
    let mut ensemble = three();
    let part = if std::env::var_os("TEST_SPLIT").is_some() { "quorum" } else { "serve" };
    let peers = |ensemble: &Ensemble| http_get(&ensemble.http(1, part), "/readyz?verbose").1;
    eventually("node 1 has met the others", || peers(&ensemble).contains("peers: 2 reached, 3 reached"));
    let warnings = |ensemble: &Ensemble| -> Vec<String> {
        let warns = |line: &&str| line.contains("3 at 127.0.0.1:");
        ensemble.log(1).lines().filter(warns).map(str::to_owned).collect()
    };
    let before = warnings(&ensemble).len();
    ensemble.kill9(2);
    ensemble.signal(3, "STOP");
    eventually("node 1 warns", || warnings(&ensemble).len() > before);
    let first = &warnings(&ensemble)[before];
    assert!(!first.contains(": reached ("), "{first}");
    let text = peers(&ensemble);
    assert!(!text.contains("2 reached,") && text.contains("3 no answer"), "{text}");
    ensemble.signal(3, "CONT");
}

#[test]
fn b25_a_leader_hands_over_on_sighup() {
    let mut ensemble = three();
    let leader = ensemble.leader();
    let pids = ensemble.pids(leader);
    for name in ["USR1", "USR2"] {
        ensemble.signal(leader, name);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(pids.iter().all(|&pid| alive(pid)), "these signals do nothing");
    ensemble.signal(leader, "HUP");
    eventually("it ends", || ensemble.gone(&pids));
    assert!(ensemble.log(leader).contains("shutting down; a second signal stops at once signal=\"SIGHUP\""));
    assert!(!ensemble.log(leader).contains("no other node took over"), "{}", ensemble.log(leader));
    ensemble.ok(&["set", "/keep", "led by another one"]);
}

use std::{collections::BTreeMap, fs, time::Duration};

use api::PeerId;

use super::*;

const THREE: &str = r#"
ensemble = "test"
id = 2
data_dir = "data"
insecure = true

[[members]]
id = 1
host = "a"
[[members]]
id = 3
host = "c"
role = "observer"
[[members]]
id = 2
host = "b"
quorum_port = 12888

[timing]
init_limit = "3s"
"#;

fn load_text(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load_text_on("a-machine", text, env, flags)
}

fn load_text_on(
    host_name: &str,
    text: &str,
    env: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quorate.toml");
    fs::write(&path, text).unwrap();
    let own = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let mut result = load_on(host_name, Some(&path), own(env), &own(flags));
    if let Err(e) = &mut result {
        let prefix = format!("{}/", dir.path().display());
        e.problems.iter_mut().for_each(|p| *p = p.replace(&prefix, ""));
    }
    result
}

fn problems(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    load_text(text, env, flags).unwrap_err().problems
}

fn with(extra: &str) -> String {
    format!("{THREE}{extra}")
}

#[test]
fn a_file_is_read_and_defaults_fill_the_rest() {
    let c = load_text(THREE, &[], &[]).unwrap().node;
    assert_eq!((c.ensemble.as_str(), c.id), ("test", PeerId(2)));
    assert!(
        c.data_dir.is_absolute() && c.data_dir.ends_with("data"),
        "relative to the file: {:?}",
        c.data_dir
    );
    assert_eq!(c.members.iter().map(|m| m.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(c.listen.quorum.to_string(), "0.0.0.0:12888", "own ports come from the own member");
    assert_eq!(c.listen.client.port(), CLIENT_PORT);
    assert_eq!(c.members[0].client_address(), "a:2188");
    assert_eq!(c.members[2].role, MemberRole::Observer);
    assert_eq!(c.timing.init_limit, Duration::from_secs(3));
    assert_eq!(c.limits.data, Size::mib(1));
    assert_eq!(c.ensemble_of_members().unwrap().voters().count(), 2);
}

#[test]
fn services_of_a_node_find_each_other_on_loopback_by_default() {
    let node = load_text(THREE, &[], &[]).unwrap().node;
    assert_eq!(node.services.quorum, "http://127.0.0.1:2889");
    assert_eq!(node.services.election, "http://127.0.0.1:3889");
    assert!(!node.listen.internal_quorum.is_open() && !node.listen.internal_election.is_open());
    let moved = load_text(THREE, &[("QUORATE_LISTEN_INTERNAL_QUORUM_PORT", "7")], &[]).unwrap().node;
    assert_eq!(
        (moved.services.quorum.as_str(), moved.listen.internal_quorum.port()),
        ("http://127.0.0.1:7", Some(7))
    );
    let elsewhere =
        [("QUORATE_SERVICES_QUORUM", "http://quorum-1:2889"), ("QUORATE_LISTEN_INTERNAL_HOST", "::")];
    let elsewhere = load_text(THREE, &elsewhere, &[]).unwrap().node;
    assert_eq!(elsewhere.services.quorum, "http://quorum-1:2889");
    assert_eq!(elsewhere.listen.internal_quorum.to_string(), "[::]:2889");
    let wrong = problems(THREE, &[("QUORATE_SERVICES_ELECTION", "election-1:3889")], &[]);
    assert!(wrong[0].contains("`services.election`") && wrong[0].contains("http://"), "{wrong:?}");
}

#[test]
fn a_collector_is_also_taken_from_the_variable_that_all_know() {
    let standard = |address: &'static str| ("OTEL_EXPORTER_OTLP_ENDPOINT", address);
    let of = |env: &[(&str, &str)], flags: &[(&str, &str)]| {
        let loaded = load_text(THREE, env, flags).unwrap();
        let setting = loaded.effective.iter().find(|e| e.key == "telemetry.otlp_endpoint").unwrap();
        (loaded.node.telemetry.otlp_endpoint, setting.source.to_string())
    };
    assert_eq!(of(&[], &[]), (None, "default".into()));
    let http = "http://c:4317";
    let named = "environment OTEL_EXPORTER_OTLP_ENDPOINT".to_owned();
    assert_eq!(of(&[standard(http)], &[]), (Some(http.to_owned()), named));
    let ours = ("QUORATE_TELEMETRY_OTLP_ENDPOINT", "http://d:4317");
    assert_eq!(of(&[standard(http), ours], &[]).0.as_deref(), Some("http://d:4317"));
    assert_eq!(of(&[standard(http)], &[("telemetry.otlp_endpoint", "")]), (None, "flag".into()));
    assert_eq!(of(&[standard("https://c:4317")], &[]).0.as_deref(), Some("https://c:4317"));
    let wrong = problems(THREE, &[standard("c:4317")], &[]);
    assert!(wrong[0].contains("OTEL_EXPORTER_OTLP_ENDPOINT") && wrong[0].contains("https://"), "{wrong:?}");
}

#[test]
fn the_sampler_is_also_taken_from_the_variables_of_opentelemetry() {
    let ratio = |env: &[(&str, &str)]| load_text(THREE, env, &[]).unwrap().node.telemetry.trace_ratio;
    let sampler = |name: &'static str| ("OTEL_TRACES_SAMPLER", name);
    let arg = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
    assert_eq!(ratio(&[]), 0.01);
    assert_eq!(ratio(&[sampler("always_off")]), 0.0);
    assert_eq!(ratio(&[sampler("parentbased_always_on"), arg]), 1.0);
    assert_eq!(ratio(&[sampler("parentbased_traceidratio"), arg]), 0.25);
    assert_eq!(ratio(&[sampler("traceidratio"), arg, ("QUORATE_TELEMETRY_TRACE_RATIO", "0.5")]), 0.5);
    for unknown in
        [&[sampler("jaeger_remote")][..], &[sampler("traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "x")]]
    {
        let wrong = problems(THREE, unknown, &[]);
        assert!(wrong[0].contains("OTEL_TRACES_SAMPLER") && wrong[0].contains("traceidratio"), "{wrong:?}");
    }
}

#[test]
fn each_process_of_a_node_has_probes_on_a_port_of_its_own() {
    let ports = |env: &[(&str, &str)]| {
        let Listen { http, quorum_http, election_http, .. } = load_text(THREE, env, &[]).unwrap().node.listen;
        [http, quorum_http, election_http].map(|address| address.map(|address| address.port()))
    };
    assert_eq!(ports(&[]), [Some(9464), Some(9465), Some(9466)]);
    let all = "QUORATE_LISTEN_HTTP_PORT";
    assert_eq!(ports(&[(all, "7000")]), [Some(7000), Some(7001), Some(7002)]);
    assert_eq!(ports(&[(all, "off")]), [None; 3]);
    assert_eq!(ports(&[(all, "0")]), [Some(0); 3]);
    let quorum = [(all, "off"), ("QUORATE_LISTEN_QUORUM_HTTP_PORT", "7")];
    assert_eq!(ports(&quorum), [None, Some(7), None]);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let env =
        [("QUORATE_TIMING_INIT_LIMIT", "4s"), ("QUORATE_TIMING_TICK", "50ms"), ("QUORATE_LOG", "debug")];
    let loaded = load_text(THREE, &env, &[("timing.tick", "60ms")]).unwrap();
    assert_eq!(loaded.node.timing.init_limit, Duration::from_secs(4));
    assert_eq!(loaded.node.timing.tick, Duration::from_millis(60));
    let by_key: BTreeMap<&str, &Effective> = loaded.effective.iter().map(|e| (e.key.as_str(), e)).collect();
    assert_eq!(by_key["timing.tick"].source, Source::Flag);
    assert_eq!(by_key["timing.tick"].value, "\"60ms\"");
    assert_eq!(by_key["timing.init_limit"].source, Source::Env("QUORATE_TIMING_INIT_LIMIT".into()));
    assert_eq!(by_key["limits.data"].source, Source::Default);
    assert_eq!(by_key["listen.quorum_http_port"].source.to_string(), "follows from listen.http_port");
    assert!(matches!(by_key["id"].source, Source::File { line: 3, .. }));
}

#[test]
fn what_config_show_prints_can_be_read_back() {
    let loaded = load_text(THREE, &[], &[]).unwrap();
    let text: String = loaded.effective.iter().map(|e| format!("{} = {}\n", e.key, e.value)).collect();
    assert_eq!(load_text(&text, &[], &[]).unwrap().node, loaded.node);
}

#[test]
fn a_wrong_key_names_key_line_and_the_nearest_right_one() {
    assert_eq!(
        problems(&with("init_limt = \"3s\"\n"), &[], &[]),
        ["quorate.toml:21: there is no key `timing.init_limt`; did you mean `timing.init_limit`?"]
    );
    assert_eq!(
        problems(&format!("sync_limit = \"1s\"\n{THREE}"), &[], &[]),
        ["quorate.toml:1: there is no key `sync_limit`; did you mean `timing.sync_limit`?"],
        "a right key in the wrong place"
    );
    assert_eq!(
        problems(&with("[[members]]\nid = 4\nhots = \"d\"\nhost = \"d\"\n"), &[], &[]),
        ["quorate.toml:23, in a member: there is no key `hots`; did you mean `host`?"]
    );
    assert_eq!(
        problems(&with("[zzz]\nqqqqqqqqqqqq = 1\n"), &[], &[]),
        ["quorate.toml:22: there is no key `zzz.qqqqqqqqqqqq`; `quorate config show` lists the keys"]
    );
    assert_eq!(
        problems(THREE, &[("QUORATE_TIMING_TIK", "1s")], &[("limits.dat", "1")]),
        [
            "flag: there is no key `limits.dat`; did you mean `limits.data`?",
            "environment: QUORATE_TIMING_TIK is no setting; did you mean QUORATE_TIMING_TICK?"
        ]
    );
}

#[test]
fn a_wrong_value_names_key_value_and_what_is_expected() {
    assert_eq!(
        problems(&with("tick = 200\n"), &[], &[]),
        [
            "quorate.toml:21: `timing.tick` is \"200\"; expected a duration such as \"200ms\", \"2s\" or \"1m 30s\""
        ]
    );
    assert_eq!(
        problems(&with("tick = [1]\n"), &[], &[("id", "-1")])[..2],
        [
            "flag: `id` is \"-1\"; expected a number from 1 to 4294967295, or \"hostname\"",
            "quorate.toml:21: `timing.tick` is a table or list; expected a duration such as \"200ms\", \"2s\" or \
             \"1m 30s\"",
        ]
    );
    assert_eq!(
        problems(THREE, &[("QUORATE_LIMITS_DATA", "17MiB")], &[]),
        [
            "environment QUORATE_LIMITS_DATA: `limits.data` is \"17MiB\"; expected a size from 1B to 3MiB: with \
          its path a value has to fit into one entry of the log, which is 4MiB at most"
        ]
    );
}

#[test]
fn members_must_make_an_ensemble_with_this_node_in_it() {
    assert_eq!(
        problems(THREE, &[], &[("id", "7")]),
        ["flag: `id` is 7; expected the id of one of the members, which are 1, 2, 3"]
    );
    assert_eq!(
        problems(THREE, &[], &[("id", "0")]),
        ["flag: `id` is \"0\"; expected a number from 1 to 4294967295, or \"hostname\""]
    );
    let members = |list: &str| problems(THREE, &[("QUORATE_MEMBERS", list)], &[]).join("|");
    assert!(members("[{id=2,host=\"a\"},{id=2,host=\"b\"}]").contains("member id 2 appears twice"));
    assert!(members("[{id=2,host=\"a\",role=\"observer\"}]").contains("no voter"));
    assert!(
        members("[{id=1,host=\"a\"},{id=2,host=\"a\"}]")
            .contains("client of member 1 and client of member 2 both have the address a:2188")
    );
    assert!(members("[{id=2}]").contains("a member has no `host`"));
    assert!(members("[{id=2,host=\"a\",client_port=0}]").contains("port 0"));
    assert!(members("nonsense").contains("expected a list such as"));
    let none = problems("ensemble = \"e\"\nid = 1\ndata_dir = \"d\"\n", &[], &[]);
    assert!(none.len() == 1 && none[0].starts_with("no members"), "{none:?}");
}

#[test]
fn b01_there_is_no_default_name_of_an_ensemble() {
    let unnamed = THREE.replacen("ensemble = \"test\"\n", "", 1);
    for text in [unnamed.clone(), format!("ensemble = \"\"\n{unnamed}")] {
        let said = problems(&text, &[], &[]);
        assert!(
            said[0].starts_with("`ensemble` is not set; write a name that no other ensemble has"),
            "{said:?}"
        );
    }
    assert_eq!(load_text(&unnamed, &[("QUORATE_ENSEMBLE", "e")], &[]).unwrap().node.ensemble, "e");
}

#[test]
fn b24_a_host_is_a_name_or_an_address_and_nothing_else() {
    let members = |host: &str| format!("[{{id=2,host={host:?}}}]");
    let longest = [&"x".repeat(63), &"y".repeat(63), &"z".repeat(63), "a".repeat(61).as_str()].join(".");
    for host in
        ["a", "a-b.example", "a.example.", "127.0.0.1", "::1", "fe80::1", "node_1", "1a", "1.a", &longest]
    {
        assert!(load_text(THREE, &[("QUORATE_MEMBERS", &members(host))], &[]).is_ok(), "{host}");
    }
    let (long, long_part) = (["x".repeat(63).as_str(); 4].join("."), "x".repeat(64));
    let no_names = ["999.1.1.1", "1", "1.2.3", "a.7", "-a", "a-", "a.-b", "a..b", ".a", ".", "\u{e4}", &long];
    let wrong = ["127.0.0.1:2888", "a:2888", "[::1]", "[::1]:2888", "http://a", "a b", "a@b", "", &long_part];
    for host in wrong.into_iter().chain(no_names) {
        let said = problems(THREE, &[("QUORATE_MEMBERS", &members(host))], &[]).join("|");
        assert!(said.contains("expected a name or an IP address, without port"), "{host}: {said}");
    }
}

#[test]
fn b24_a_host_that_is_every_address_is_refused() {
    for host in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
        let members = format!("[{{id=2,host={host:?}}}]");
        let said = problems(THREE, &[("QUORATE_MEMBERS", &members)], &[]).join("|");
        assert!(
            said.contains("at which the others reach this member") && said.contains("listen.host"),
            "{said}"
        );
    }
    for host in ["224.0.0.1", "ff02::1", "255.255.255.255"] {
        let members = format!("[{{id=2,host={host:?}}}]");
        let said = problems(THREE, &[("QUORATE_MEMBERS", &members)], &[]).join("|");
        assert!(said.contains("the address of one machine"), "{said}");
    }
}

#[test]
fn b24_a_number_in_braces_needs_a_count() {
    let said = |members: &str| problems(THREE, &[("QUORATE_MEMBERS", members)], &[]).join("|");
    let wrong = said(r#"[{id=2,host="q{0}"}]"#);
    assert!(wrong.contains("no `count`") && wrong.contains("leave the braces out"), "{wrong}");
    assert!(load_text(THREE, &[("QUORATE_MEMBERS", r#"[{id=2,host="q{0}",count=1}]"#)], &[]).is_ok());
    // The host after the expansion of the count must be valid, too.
    let wrong = said(r#"[{id=1,host="10.0.0.{255}",count=2}]"#);
    assert!(
        wrong.contains("member 2 has the host \"10.0.0.256\"; expected a name or an IP address"),
        "{wrong}"
    );
}

#[test]
fn b24_the_scheme_of_an_address_is_taken_in_any_case() {
    for key in ["QUORATE_SERVICES_QUORUM", "QUORATE_SERVICES_ELECTION", "QUORATE_TELEMETRY_OTLP_ENDPOINT"] {
        assert!(load_text(THREE, &[(key, "HTTP://a:4317")], &[]).is_ok(), "{key}");
        let said = problems(THREE, &[(key, "http://user@a:4317")], &[]).join("|");
        assert!(said.contains("such as"), "{key}: {said}");
    }
}

#[test]
fn b24_a_node_listens_where_others_dial_it() {
    let listens = |host: &str, listen: Option<&str>| {
        let members = format!("[{{id=2,host={host:?}}}]");
        let env: Vec<(&str, &str)> = [("QUORATE_MEMBERS", members.as_str())]
            .into_iter()
            .chain(listen.map(|l| ("QUORATE_LISTEN_HOST", l)))
            .collect();
        load_text(THREE, &env, &[]).map(|loaded| loaded.node.listen.client.ip().to_string())
    };
    for (host, listen, expected) in [
        ("a", None, "0.0.0.0"),
        ("127.0.0.1", None, "0.0.0.0"),
        ("::1", None, "::"),
        ("::1", Some("::1"), "::1"),
        ("127.0.0.1", Some("::"), "::"),
        ("a", Some("::1"), "::1"),
        ("127.0.0.1", Some("127.0.0.2"), "127.0.0.2"),
        // An address that a NAT translates to this host.
        ("203.0.113.1", Some("10.0.0.1"), "10.0.0.1"),
        ("10.0.0.1", Some("0.0.0.0"), "0.0.0.0"),
        ("fd00::1", Some("fd00::1"), "fd00::1"),
    ] {
        assert_eq!(listens(host, listen).unwrap(), expected, "{host} {listen:?}");
    }
    for (host, listen) in [
        ("::1", "0.0.0.0"),
        ("::1", "127.0.0.1"),
        ("127.0.0.1", "::1"),
        ("10.0.0.1", "127.0.0.1"),
        ("fd00::1", "::1"),
        ("127.0.0.1", "10.0.0.1"),
    ] {
        let said = listens(host, Some(listen)).unwrap_err().problems.join("|");
        assert!(said.contains("at which others reach"), "{said}");
    }
}

#[test]
fn b24_services_find_each_other_where_they_listen() {
    for (listen, found) in [
        ("::1", "http://[::1]:2889"),
        ("127.0.0.2", "http://127.0.0.2:2889"),
        ("0.0.0.0", "http://127.0.0.1:2889"),
        ("::", "http://127.0.0.1:2889"),
    ] {
        let node = load_text(THREE, &[("QUORATE_LISTEN_INTERNAL_HOST", listen)], &[]).unwrap().node;
        assert_eq!(node.services.quorum, found);
        assert_eq!(node.services.election, found.replace("2889", "3889"));
    }
}

#[test]
fn members_can_come_from_the_environment() {
    let env = [("QUORATE_MEMBERS", "[{id=2,host=\"::1\",weight=3}]"), ("QUORATE_LISTEN_CLIENT_PORT", "0")];
    let c = load_text(THREE, &env, &[]).unwrap().node;
    assert_eq!(c.members.len(), 1);
    assert_eq!((c.members[0].quorum_address().as_str(), c.members[0].weight), ("[::1]:2888", 3));
    assert_eq!(c.listen.client.port(), 0);
}

#[test]
fn one_entry_can_stand_for_several_members() {
    let members = r#"[{id=1,host="q-{0}.nodes",count=3},{id=9,host="o-{7}",count=2,role="observer"}]"#;
    let loaded = load_text(THREE, &[("QUORATE_MEMBERS", members)], &[]).unwrap();
    let hosts: Vec<(u32, &str)> = loaded.node.members.iter().map(|m| (m.id.0, m.host.as_str())).collect();
    assert_eq!(hosts, [(1, "q-0.nodes"), (2, "q-1.nodes"), (3, "q-2.nodes"), (9, "o-7"), (10, "o-8")]);
    assert_eq!(loaded.node.members[4].role, MemberRole::Observer);

    let wrong = |members: &str| problems(THREE, &[("QUORATE_MEMBERS", members)], &[]).join("|");
    for members in
        [r#"[{id=2,host="q",count=3}]"#, r#"[{id=2,host="q-{0}-{1}"}]"#, r#"[{id=2,host="q-{x}"}]"#]
    {
        assert!(wrong(members).contains("into braces, once, as in \"quorate-{0}.example\""), "{members}");
    }
    assert!(wrong(r#"[{id=2,host="q-{0}",count=0}]"#).contains("count 0; expected a number from 1 to 255"));
    assert!(wrong(r#"[{id=2,host="q-{0}",count=4000000000}]"#).contains("expected a number from 1 to 255"));
    assert!(wrong(r#"[{id=2,host="q-{4294967295}",count=2}]"#).contains("too large"));
    assert!(wrong(r#"[{id=1,host="q-{0}",count=3},{id=3,host="r"}]"#).contains("member id 3 appears twice"));
    assert!(wrong(r#"[{id=4294967295,host="q-{0}",count=3}]"#).contains("too large"));
}

#[test]
fn a_node_can_be_the_member_whose_host_is_its_machine() {
    let id_on = |host_name: &str, members: &str| {
        let env = [("QUORATE_ID", "hostname"), ("QUORATE_MEMBERS", members)];
        load_text_on(host_name, THREE, &env, &[]).map(|loaded| loaded.node.id.0)
    };
    let pods = r#"[{id=1,host="quorate-{0}.quorate",count=12}]"#;
    assert_eq!(id_on("quorate-1", pods).unwrap(), 2, "and not quorate-10 or -11");
    assert_eq!(id_on("quorate-11", pods).unwrap(), 12);
    assert_eq!(id_on("Quorate-3.quorate.default.svc", pods).unwrap(), 4, "either may leave its domain out");
    let machines = r#"[{id=1,host="q"},{id=2,host="q.b"}]"#;
    assert_eq!(id_on("q", machines).unwrap(), 1, "the whole name goes first");

    let wrong = |host_name, members| id_on(host_name, members).unwrap_err().to_string();
    let three = r#"[{id=1,host="quorate-{0}.quorate",count=3}]"#;
    assert_eq!(
        wrong("quorate-3", three),
        "environment QUORATE_ID: `id` is \"hostname\"; expected a member whose host is this machine, \"quorate-3\", \
         with or without a domain; the members' hosts are quorate-0.quorate, quorate-1.quorate, quorate-2.quorate"
    );
    assert!(wrong("", three).contains("this machine, \"\""));
    let ports = r#"[{id=1,host="q"},{id=2,host="q",client_port=1,quorum_port=2,election_port=3}]"#;
    assert!(wrong("q", ports).contains("a number, because the members 1, 2 are all on this machine, \"q\""));
}

#[test]
fn missing_settings_and_broken_files_are_reported() {
    let empty = problems("", &[], &[]);
    assert!(empty[1].starts_with("`id` is not set; write `id = 1`"), "{empty:?}");
    assert!(empty[2].starts_with("`data_dir` is not set"), "{empty:?}");
    assert!(problems("id = \n", &[], &[])[0].starts_with("quorate.toml is not valid TOML"));
    let gone = load(Some(Path::new("/nonexistent/q.toml")), [], &[]).unwrap_err();
    assert!(gone.to_string().starts_with("cannot read the configuration /nonexistent/q.toml"), "{gone}");
}

#[test]
fn service_links_of_kubernetes_are_no_settings() {
    let env = [
        ("QUORATE_SERVICE_HOST", "10.0.0.1"),
        ("QUORATE_SERVICE_PORT_CLIENT", "2188"),
        ("QUORATE_PORT", "tcp://10.0.0.1:2188"),
        ("QUORATE_PORT_2188_TCP_ADDR", "10.0.0.1"),
    ];
    load_text(THREE, &env, &[]).unwrap();
    assert_eq!(problems(THREE, &[("QUORATE_PORT", "2188")], &[]).len(), 1);
}

#[test]
fn sizes_are_read_and_written_as_people_do() {
    for (text, bytes) in
        [("0", 0), ("7", 7), ("7B", 7), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("2MB", 2_000_000)]
    {
        assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        assert_eq!(Size::parse(&Size(bytes).to_string()), Some(Size(bytes)));
    }
    for text in ["", "MiB", "-1", "1.5MiB", "1mib", "99999999999GiB", "1MiBé"] {
        assert_eq!(Size::parse(text), None, "{text}");
    }
    assert_eq!(Size(3 << 30).to_string(), "3GiB");
}

/// TLS with files of these paths.
const SECURED: &str = r#"
[tls.members]
mode = "require"
certificate = "member-{id}.pem"
key = "member-{id}.key"
authorities = "ca.pem"
[tls.clients]
mode = "require"
certificate = "server.pem"
key = "server.key"
"#;

#[test]
fn d1_plaintext_that_other_machines_reach_takes_a_decision() {
    let open = THREE.replace("insecure = true\n", "");
    let refused = problems(&open, &[], &[]).join("|");
    for part in [
        "client 0.0.0.0:2188",
        "election 0.0.0.0:3888",
        "[tls.members]",
        "`insecure = true`",
        "HTTP 0.0.0.0:9464",
    ] {
        assert!(refused.contains(part), "no {part} in {refused}");
    }
    type Pairs = &'static [(&'static str, &'static str)];
    let decided: [(Pairs, Pairs); 2] =
        [(&[("QUORATE_INSECURE", "true")], &[]), (&[], &[("insecure", "true")])];
    for (env, flags) in decided {
        let node = load_text(&open, env, flags).unwrap().node;
        assert_eq!(node.plaintext_ports().len(), 5, "{:?}", node.plaintext_ports());
    }
    let alone = load_text(&open, &[("QUORATE_LISTEN_HOST", "127.0.0.1")], &[]).unwrap().node;
    assert_eq!(alone.plaintext_ports(), []);
    let secured = load_text(&format!("{open}{SECURED}"), &[], &[]).unwrap().node;
    assert_eq!(secured.plaintext_ports(), []);
    // Ports that accept both accept plaintext.
    for mode in ["accept", "prefer"] {
        let both =
            problems(&format!("{open}{SECURED}"), &[("QUORATE_TLS_MEMBERS_MODE", mode)], &[]).join("|");
        assert!(both.contains("quorum 0.0.0.0:12888") && !both.contains("client 0"), "{both}");
    }
    let probes = problems(&format!("{open}{SECURED}"), &[("QUORATE_TLS_HTTP_MODE", "off")], &[]).join("|");
    assert!(probes.contains("HTTP 0.0.0.0:9464") && !probes.contains("quorum"), "{probes}");
    let internal = [("QUORATE_LISTEN_HOST", "127.0.0.1"), ("QUORATE_LISTEN_INTERNAL_HOST", "10.0.0.1")];
    assert!(problems(&open, &internal, &[])[0].contains("internal quorum 10.0.0.1:2889"));
}

#[test]
fn all_nodes_can_have_one_configuration_of_their_certificates() {
    let node = load_text(&with(SECURED), &[], &[]).unwrap().node;
    let files = node.tls.members.files.unwrap();
    assert!(files.certificate.ends_with("member-2.pem") && files.key.ends_with("member-2.key"), "{files:?}");
}

#[test]
fn probes_have_the_certificate_of_clients_unless_they_have_their_own() {
    let http = |env: &[(&str, &str)]| load_text(&with(SECURED), env, &[]).unwrap().node.tls.http;
    let follows = http(&[]);
    assert_eq!(follows.mode, ::tls::Mode::Require);
    let files = follows.files.unwrap();
    assert!(files.certificate.ends_with("server.pem") && files.authorities.is_none(), "{files:?}");
    let own = [
        ("QUORATE_TLS_HTTP_CERTIFICATE", "http.pem"),
        ("QUORATE_TLS_HTTP_KEY", "http.key"),
        ("QUORATE_TLS_HTTP_AUTHORITIES", "monitoring.pem"),
    ];
    let files = http(&own).files.unwrap();
    assert!(files.certificate.ends_with("http.pem") && files.authorities.is_some(), "{files:?}");
    assert_eq!(http(&[("QUORATE_TLS_HTTP_MODE", "off")]), Secured::default());
}

#[test]
fn internal_ports_are_unix_sockets_or_have_tls_where_others_reach_them() {
    let node = |env: &[(&str, &str)]| load_text(&with(SECURED), env, &[]).unwrap().node;
    let sockets = node(&[("QUORATE_LISTEN_INTERNAL_DIR", "/run/quorate")]);
    assert_eq!(sockets.services.quorum, "unix:/run/quorate/quorum.sock");
    assert_eq!(sockets.services.election, "unix:/run/quorate/election.sock");
    let store = Internal::Unix("/run/quorate/store.sock".into());
    assert_eq!(sockets.listen.internal_store, Some(store));
    let open = node(&[("QUORATE_LISTEN_INTERNAL_HOST", "10.0.0.1")]);
    assert_eq!(open.services.quorum, "https://10.0.0.1:2889");
    assert!(open.plaintext_ports().is_empty());
    assert_eq!(node(&[]).services.quorum, "http://127.0.0.1:2889", "loopback needs none");
    let wrong = problems(THREE, &[("QUORATE_SERVICES_QUORUM", "https://q:2889")], &[]);
    assert!(wrong[0].contains("needs `tls.members.mode`"), "{wrong:?}");
}

//! TLS on the ports of whole ensembles.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use crate::harness::{Ensemble, command_at, eventually, free_ports, run_at, signal, succeed};

/// Certificates of the ensemble's members, of its client ports and of a client.
pub(crate) fn certificates(ensemble: &Ensemble) -> std::path::PathBuf {
    let dir = ensemble.dir.join("certs");
    let name = name(ensemble);
    let args = [
        "certs",
        "init",
        "--dir",
        dir.to_str().unwrap(),
        "--ensemble",
        &name,
        "--members",
        "3",
        "--host",
        "127.0.0.1",
    ];
    succeed(&run_at("127.0.0.1:1", &args), &args);
    dir
}

fn name(ensemble: &Ensemble) -> String {
    let config = std::fs::read_to_string(ensemble.config(1)).unwrap();
    let line = config.lines().find_map(|line| line.strip_prefix("ensemble = ")).unwrap();
    line.trim_matches('"').to_owned()
}

/// The environment of a node with these modes.
pub(crate) fn set(ensemble: &mut Ensemble, dir: &Path, id: usize, members: &str, clients: &str) {
    let file = |name: String| dir.join(name).to_str().unwrap().to_owned();
    for (key, value) in [
        ("QUORATE_TLS_MEMBERS_MODE", members.to_owned()),
        ("QUORATE_TLS_MEMBERS_CERTIFICATE", file(format!("member-{id}.pem"))),
        ("QUORATE_TLS_MEMBERS_KEY", file(format!("member-{id}.key"))),
        ("QUORATE_TLS_MEMBERS_AUTHORITIES", file("ca.pem".into())),
        ("QUORATE_TLS_CLIENTS_MODE", clients.to_owned()),
        ("QUORATE_TLS_CLIENTS_CERTIFICATE", file("server.pem".into())),
        ("QUORATE_TLS_CLIENTS_KEY", file("server.key".into())),
        ("QUORATE_TLS_CLIENTS_AUTHORITIES", file("ca.pem".into())),
    ] {
        ensemble.set_env(id, key, &value);
    }
}

/// A command with the certificates of the client.
pub(crate) fn secured(ensemble: &Ensemble, dir: &Path, args: &[&str]) -> std::process::Output {
    let [ca, certificate, key] = ["ca.pem", "client.pem", "client.key"].map(|name| dir.join(name));
    let tls = ["--tls-ca", ca.to_str().unwrap(), "--tls-cert", certificate.to_str().unwrap(), "--tls-key"];
    ensemble.run(&[args, &tls, &[key.to_str().unwrap()]].concat())
}

/// The number of nodes that serve, by the output of `status -o json`.
pub(crate) fn serving(output: &std::process::Output) -> usize {
    let nodes: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    nodes
        .iter()
        .filter(|node| ["leader", "follower"].contains(&node["role"].as_str().unwrap_or_default()))
        .count()
}

/// S18: at each step the nodes that are restarted already and those that are not yet form one ensemble.
#[test]
fn s18_plaintext_turns_into_tls_by_restarting_one_node_after_the_other() {
    let mut ensemble = Ensemble::down(3);
    let dir = certificates(&ensemble);
    for id in 1..=3 {
        ensemble.start_node(id);
    }
    eventually("all nodes serve", || serving(&ensemble.run(&["status", "-o", "json"])) == 3);
    ensemble.ok(&["create", "/steps", "0"]);
    let mut written = 0;
    for (members, clients) in [("accept", "accept"), ("prefer", "accept"), ("require", "require")] {
        for id in 1..=3 {
            ensemble.kill9(id);
            set(&mut ensemble, &dir, id, members, clients);
            ensemble.start_node(id);
            let everywhere = (members, clients) != ("require", "require");
            eventually("all nodes serve again", || {
                let plain = serving(&ensemble.run(&["status", "-o", "json"]));
                let tls = serving(&secured(&ensemble, &dir, &["status", "-o", "json"]));
                // Before the first round is over some take plaintext only, and in the last one some take TLS only.
                if everywhere { plain == 3 } else { plain + tls >= 3 && tls >= id }
            });
            written += 1;
            let text = written.to_string();
            // A client goes to a node that speaks as it does.
            match everywhere {
                true => drop(ensemble.ok(&["set", "/steps", &text, "--timeout", "30s"])),
                false => {
                    let args = ["set", "/steps", &text, "--timeout", "30s"];
                    succeed(&secured(&ensemble, &dir, &args), &args);
                }
            }
        }
    }
    let args = ["get", "/steps", "--level", "linearizable"];
    assert_eq!(succeed(&secured(&ensemble, &dir, &args), &args).trim(), written.to_string());
    // Plaintext is over, and the error says so.
    let refused = ensemble.run(&["get", "/steps", "--timeout", "2s"]);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("--tls-ca"), "{text}");
    // So is trust in an authority that is not the ensemble's.
    let other = ensemble.dir.join("others");
    let args = [
        "certs",
        "init",
        "--dir",
        other.to_str().unwrap(),
        "--ensemble",
        "x",
        "--members",
        "1",
        "--host",
        "y",
    ];
    succeed(&run_at("127.0.0.1:1", &args), &args);
    let refused = secured(&ensemble, &other, &["get", "/steps", "--timeout", "2s"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("UnknownIssuer"), "{text}");

    strangers(&ensemble, &dir);

    // S5: a node with the certificate of another member does not start, and says why.
    ensemble.kill9(3);
    for (key, value) in [("CERTIFICATE", "member-2.pem"), ("KEY", "member-2.key")] {
        ensemble.set_env(3, &format!("QUORATE_TLS_MEMBERS_{key}"), dir.join(value).to_str().unwrap());
    }
    ensemble.start_node(3);
    ensemble.reap(3);
    assert!(
        ensemble.log(3).contains(&format!("member-3.{}.quorate", name(&ensemble))),
        "{}",
        ensemble.log(3)
    );
}

/// S5: a member of this ensemble that says it is another one is refused at its first message, on each method of the ports of members.
fn strangers(ensemble: &Ensemble, dir: &Path) {
    use proto::peer::{election_client::ElectionClient, quorum_client::QuorumClient};
    let file = |name: &str| dir.join(name);
    let files = tls::Files {
        certificate: file("member-2.pem"),
        key: file("member-2.key"),
        authorities: Some(file("ca.pem")),
        revoked: None,
    };
    let ensemble_name = name(ensemble);
    let two = tls::Certificates::Members { ensemble: ensemble_name.clone(), me: api::PeerId(2) };
    let dialer = tls::Dialer::new(&tls::Keeper::load(files, two).unwrap(), tls::Mode::Require);
    let config = host::config::load(Some(&ensemble.config(1)), [], &[]).unwrap().node;
    let (quorum, election) = (config.listen.quorum, config.listen.election);
    let three = proto::quorum::Hello::to_wire(&ensemble_name, api::PeerId(3), api::Standing::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = |status: tonic::Status| {
        assert!(status.message().contains("its certificate names member 2"), "{status}");
    };
    runtime.block_on(async {
        let connect = async |address: std::net::SocketAddr| {
            let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
            dialer.connect(&endpoint, api::PeerId(1)).await.unwrap()
        };
        let mut client = QuorumClient::new(connect(quorum).await);
        refused(client.meet(three.clone()).await.unwrap_err());
        let hello = proto::quorum::LearnerFrame::Hello(three.clone()).into();
        refused(client.learn(tokio_stream::iter([hello])).await.unwrap_err());
        let hello = proto::election::ElectionFrame::Hello(three.clone()).into();
        let mut client = ElectionClient::new(connect(election).await);
        refused(client.exchange(tokio_stream::iter([hello])).await.unwrap_err());
    });
}

/// The address of this machine that is not the loopback interface's; `None` if it has no network.
fn own_address() -> Option<std::net::IpAddr> {
    // Nothing is sent: the system only says from where it would be.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn d1_plaintext_that_other_machines_reach_shows_in_log_status_and_metrics() {
    let mut ensemble = Ensemble::down(1);
    ensemble.set_env(1, "QUORATE_LISTEN_HOST", "0.0.0.0");
    ensemble.set_env(1, "QUORATE_INSECURE", "true");
    ensemble.start_node(1);
    ensemble.all_serve();
    assert!(ensemble.log(1).contains("`insecure` is set"), "{}", ensemble.log(1));
    let status = ensemble.run(&["status", "-o", "json"]);
    let nodes: Vec<serde_json::Value> = serde_json::from_slice(&status.stdout).unwrap();
    let ports = nodes[0]["plaintext_ports"].as_array().unwrap();
    assert!(
        ports.iter().any(|port| port == "client") && ports.iter().any(|port| port == "HTTP"),
        "{ports:?}"
    );
    assert!(String::from_utf8_lossy(&status.stderr).contains("warning: ports accept plaintext"));
    let open = ensemble.metrics(1);
    assert!(open.contains(&format!("quorate_port_plaintext {}", ports.len())), "{open}");
}

/// Probes and metrics by TLS, and from this machine without it.
#[test]
fn d5_the_http_port_has_tls_for_other_machines() {
    let Some(own) = own_address() else {
        return crate::skipped::skipped("this machine has no address but the loopback interface's");
    };
    let mut ensemble = Ensemble::down(1);
    let dir = certificates(&ensemble);
    set(&mut ensemble, &dir, 1, "require", "require");
    ensemble.set_env(1, "QUORATE_LISTEN_HOST", "0.0.0.0");
    ensemble.start_node(1);
    let local = ensemble.http(1, "node");
    eventually("the node serves", || {
        std::net::TcpStream::connect(&local).is_ok() && crate::harness::http_get(&local, "/readyz").0 == 200
    });
    assert!(ensemble.metrics(1).contains("quorate_tls_certificate_expires_seconds{use=\"http\"} 1"));
    // The same from another address gets no answer in plaintext, and one by TLS.
    let elsewhere = std::net::SocketAddr::new(own, local.parse::<std::net::SocketAddr>().unwrap().port());
    let mut plain = std::net::TcpStream::connect(elsewhere).unwrap();
    let (mut answer, ask) = (Vec::new(), b"GET /readyz HTTP/1.0\r\n\r\n");
    use std::io::{Read as _, Write as _};
    plain.write_all(ask).unwrap();
    // A reset is as good an end as any.
    let _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    let Ok(mut client) = std::process::Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile"])
        .arg(dir.join("ca.pem"))
        .args(["-connect", &elsewhere.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return crate::skipped::skipped("no openssl");
    };
    client.stdin.as_mut().unwrap().write_all(ask).unwrap();
    let mut said = String::new();
    client.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let _ = client.kill();
    let _ = client.wait();
    assert!(said.starts_with("HTTP/1.0 200"), "{said}");
}

/// Three nodes of three processes each, which find each other at Unix sockets.
#[test]
fn the_services_of_a_node_meet_at_unix_sockets() {
    let mut ensemble = Ensemble::down_split(3);
    let run = tempfile::tempdir().unwrap();
    for id in 1..=3 {
        let dir = run.path().join(id.to_string());
        ensemble.set_env(id, "QUORATE_LISTEN_INTERNAL_DIR", dir.to_str().unwrap());
        for part in ["election", "quorum", "store"] {
            ensemble.start_part(id, part);
        }
    }
    ensemble.all_serve();
    ensemble.ok(&["create", "/a", "1"]);
    for socket in ["election", "quorum", "store"] {
        let file = run.path().join("1").join(format!("{socket}.sock"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    // A part that was killed leaves its socket behind, and comes back.
    ensemble.kill9_part(1, "quorum");
    ensemble.start_part(1, "quorum");
    ensemble.all_serve();
    ensemble.ok(&["set", "/a", "2", "--timeout", "30s"]);
}

/// The same with TLS on internal ports that other machines reach, and a gateway that has to show its certificate.
#[test]
fn internal_ports_that_other_machines_reach_have_tls() {
    let Some(own) = own_address() else {
        return crate::skipped::skipped("this machine has no address but the loopback interface's");
    };
    let mut ensemble = Ensemble::down_split(1);
    let dir = certificates(&ensemble);
    set(&mut ensemble, &dir, 1, "require", "require");
    ensemble.set_env(1, "QUORATE_LISTEN_INTERNAL_HOST", &own.to_string());
    let base = free_ports(1);
    ensemble.set_env(1, "QUORATE_LISTEN_INTERNAL_STORE_PORT", &base.to_string());
    for part in ["election", "quorum", "store"] {
        ensemble.start_part(1, part);
    }
    eventually("the node serves", || serving(&secured(&ensemble, &dir, &["status", "-o", "json"])) == 1);
    let (client, http) = (base + 1, format!("127.0.0.1:{}", base + 2));
    let gateway = |scheme: &str, certificate: &str| {
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let set = [
            format!("ensemble={}", name(&ensemble)),
            "listen.host=127.0.0.1".to_owned(),
            format!("listen.zookeeper_port={client}"),
            format!("listen.http_port={}", base + 2),
            format!("tls.stores.certificate={}", file(&format!("{certificate}.pem"))),
            format!("tls.stores.key={}", file(&format!("{certificate}.key"))),
            format!("tls.stores.authorities={}", file("ca.pem")),
        ];
        let mut command = command_at("", &["gateway", "--stores", &format!("{scheme}://{own}:{base}")]);
        command.args(set.iter().flat_map(|setting| ["--set", setting]));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let ready =
        || std::net::TcpStream::connect(&http).is_ok() && crate::harness::http_get(&http, "/readyz").0 == 200;
    let mut good = gateway("https", "gateway");
    eventually("the gateway reaches the store", ready);
    signal(good.id(), "TERM");
    assert!(good.wait().unwrap().success());
    // Without TLS it reaches nothing; with the certificate of a client it does not start.
    let mut plain = gateway("http", "gateway");
    eventually("the gateway listens", || std::net::TcpStream::connect(&http).is_ok());
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(!ready(), "a gateway without TLS");
    signal(plain.id(), "TERM");
    assert!(plain.wait().unwrap().success());
    let refused = gateway("https", "client").wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("gateway."), "{said}");
}

#[test]
fn up_makes_certificates_and_says_what_clients_need() {
    let temp = tempfile::tempdir().unwrap();
    let base = free_ports(1).to_string();
    let data = temp.path().join("ensemble");
    let args = ["up", "--tls", "--nodes", "1", "--base-port", &base, "--data", data.to_str().unwrap()];
    let mut up = command_at("", &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = |begin: &str| lines.find_map(|l| l.trim().strip_prefix(begin).map(str::to_owned)).unwrap();
    let endpoints = said("export QUORATE_ENDPOINTS=");
    let authority = said("export QUORATE_TLS_CA=");
    std::thread::spawn(move || lines.for_each(drop));
    for (command, wanted) in [(&["create", "/a", "1"][..], "/a"), (&["get", "/a"], "1")] {
        let output = command_at(&endpoints, command).env("QUORATE_TLS_CA", &authority).output().unwrap();
        assert_eq!(succeed(&output, command).trim(), wanted);
    }
    assert!(!run_at(&endpoints, &["get", "/a", "--timeout", "2s"]).status.success());
    signal(up.id(), "TERM");
    assert!(up.wait().unwrap().success());
}

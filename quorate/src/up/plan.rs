//! What `quorate up` is about to start: folders, ports, configurations.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use host::config::{self, MemberRole, Setting as _};

use crate::{
    args::CertsInit,
    certs,
    exit::{Doing as _, Failure},
};

/// A local ensemble that is on disk, whether new or from an earlier run.
#[derive(Debug)]
pub(super) struct Plan {
    /// Of the ensemble: no other has it.
    name: String,
    /// In the order of their ids, from 1.
    pub(super) nodes: Vec<Planned>,
    /// Whether it was there already.
    pub(super) continued: bool,
    /// The folder of its certificates, if it has TLS.
    pub(super) certificates: Option<PathBuf>,
}

/// One node of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Planned {
    pub(super) id: u8,
    /// DIR/node-N, absolute.
    pub(super) folder: PathBuf,
    pub(super) ports: Ports,
    pub(super) role: MemberRole,
}

/// What the user asked for; what is left open is as before, or usual.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wanted {
    /// Voters and observers.
    pub(super) nodes: Option<u8>,
    /// The last ones among them.
    pub(super) observers: Option<u8>,
    pub(super) base_port: Option<u16>,
    /// TLS between members and to clients, with new certificates.
    pub(super) tls: bool,
}

/// Where a node listens, on 127.0.0.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ports {
    pub(super) client: u16,
    pub(super) quorum: u16,
    pub(super) election: u16,
    /// Of the quorum for the store of the node.
    pub(super) internal_quorum: u16,
    /// Of the election for the quorum of the node.
    pub(super) internal_election: u16,
    /// ZooKeeper's clients; `None` if it is off.
    pub(super) zookeeper: Option<u16>,
    /// Plain HTTP, for metrics and probes; `None` if it is off.
    pub(super) http: Option<u16>,
    /// The same of the quorum, if it is a process of its own.
    pub(super) quorum_http: Option<u16>,
    /// The same of the election, if it is a process of its own.
    pub(super) election_http: Option<u16>,
}

impl Ports {
    /// All that are on, by name.
    fn named(&self) -> impl Iterator<Item = (&'static str, u16)> {
        let always = [
            ("client", self.client),
            ("quorum", self.quorum),
            ("election", self.election),
            ("internal quorum", self.internal_quorum),
            ("internal election", self.internal_election),
        ];
        let http = [
            ("ZooKeeper", self.zookeeper),
            ("HTTP", self.http),
            ("quorum's HTTP", self.quorum_http),
            ("election's HTTP", self.election_http),
        ];
        always.into_iter().chain(http.into_iter().filter_map(|(what, port)| Some((what, port?))))
    }
}

/// What one process of a node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Whole,
    Election,
    Quorum,
    Store,
}

impl Part {
    /// The processes of a node, in the order in which they are started.
    pub(super) fn all(split: bool) -> &'static [Part] {
        if split { &[Part::Election, Part::Quorum, Part::Store] } else { &[Part::Whole] }
    }

    /// What it is started with.
    pub(super) fn command(self) -> &'static str {
        match self {
            Part::Whole => "serve",
            Part::Election => "election",
            Part::Quorum => "quorum",
            Part::Store => "store",
        }
    }

    /// `base` for a whole node, `base.store` for a store.
    fn file(self, base: &str) -> String {
        match self {
            Part::Whole => base.to_owned(),
            part => format!("{base}.{}", part.command()),
        }
    }
}

impl Planned {
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("quorate.toml")
    }

    pub(super) fn log(&self, part: Part) -> PathBuf {
        self.folder.join(part.file("log"))
    }

    pub(super) fn pid_file(&self, part: Part) -> PathBuf {
        self.folder.join(part.file("pid"))
    }

    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.ports.client)
    }
}

impl Plan {
    /// Takes up the ensemble in `dir` if there is one, or makes the folders of a new one there.
    pub(super) fn prepare(dir: &Path, wanted: Wanted) -> Result<Plan, Failure> {
        let made = !dir.exists();
        std::fs::create_dir_all(dir)
            .doing(format_args!("make the directory {} (--data DIR names another)", dir.display()))?;
        let plan = Plan::prepare_in(dir, wanted);
        if made && plan.is_err() {
            // Only if it is empty.
            let _ = std::fs::remove_dir(dir);
        }
        plan
    }

    fn prepare_in(dir: &Path, wanted: Wanted) -> Result<Plan, Failure> {
        let dir = dir.canonicalize().doing(format_args!("find the directory {}", dir.display()))?;
        if folder(&dir, 1).join("quorate.toml").exists() {
            let found = Plan::found(&dir)?;
            found.must_match(&dir, wanted)?;
            return Ok(found);
        }
        let nodes = wanted.nodes.unwrap_or(DEFAULT_NODES);
        let Some(voters @ 1..) = nodes.checked_sub(wanted.observers.unwrap_or(0)) else {
            return Err(Failure::usage(format!(
                "--observers {} of {nodes} nodes leaves no voter; raise --nodes, which includes the observers",
                wanted.observers.unwrap_or(0)
            )));
        };
        let planned = |id| {
            let role = if id <= voters { MemberRole::Voter } else { MemberRole::Observer };
            Ok(Planned { id, folder: folder(&dir, id), ports: ports(id, wanted.base_port)?, role })
        };
        let nodes = (1..=nodes).map(planned).collect::<Result<_, Failure>>()?;
        let name = format!("local-{:012x}", crate::serve::random_id()?.0 >> 80);
        let certificates = wanted.tls.then(|| dir.join(CERTIFICATES));
        let plan = Plan { name, nodes, continued: false, certificates };
        plan.ports_must_be_free()?;
        if let Some(dir) = plan.certificates.clone() {
            // Without a configuration beside them they are of an attempt that was interrupted.
            let _ = std::fs::remove_dir_all(&dir);
            certs::init(&CertsInit::local(dir, &plan.name, plan.nodes.len()))?;
        }
        // The first node's configuration comes last: only with it is there an ensemble to continue.
        for node in plan.nodes.iter().rev() {
            std::fs::create_dir_all(&node.folder).doing(format_args!("make {}", node.folder.display()))?;
            let config = node.config();
            std::fs::write(&config, plan.toml(node)).doing(format_args!("write {}", config.display()))?;
        }
        Ok(plan)
    }

    /// Names every port that another process listens on.
    pub(super) fn ports_must_be_free(&self) -> Result<(), Failure> {
        let taken: Vec<String> = self
            .nodes
            .iter()
            .flat_map(|n| n.ports.named().map(|(what, port)| (n.id, what, port)))
            .filter(|&(_, _, port)| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_err())
            .map(|(id, what, port)| format!("127.0.0.1:{port} ({what} port of node {id})"))
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        let remedy = if self.continued {
            "stop the process that listens there (`ss -ltnp` shows it); perhaps this ensemble runs already"
        } else {
            "stop the process that listens there (`ss -ltnp` shows it), or choose other ports with --base-port N"
        };
        Err(Failure::usage(format!("in use: {}; {remedy}", taken.join(", "))))
    }

    fn found(dir: &Path) -> Result<Plan, Failure> {
        let mut nodes = Vec::new();
        let (mut name, mut secured) = (String::new(), false);
        for id in 1..=MAX_NODES {
            let folder = folder(dir, id);
            let file = folder.join("quorate.toml");
            if !file.exists() {
                break;
            }
            let loaded = config::load(Some(&file), [], &[])?;
            let config::NodeConfig { ensemble, listen, members, tls, .. } = loaded.node;
            // All nodes would have the same, in folders of a time before there was this setting.
            let default = |setting: &config::Effective| {
                setting.key == config::ZOOKEEPER_KEY && setting.source == config::Source::Default
            };
            let zookeeper = listen.zookeeper.filter(|_| !loaded.effective.iter().any(default));
            (name, secured) = (ensemble, tls.clients.files.is_some());
            let member = members.iter().find(|m| m.id.0 == u32::from(id));
            let role = member.map_or(MemberRole::Voter, |m| m.role);
            let ports = Ports {
                client: listen.client.port(),
                quorum: listen.quorum.port(),
                election: listen.election.port(),
                internal_quorum: listen.internal_quorum.port().unwrap_or_default(),
                internal_election: listen.internal_election.port().unwrap_or_default(),
                zookeeper: zookeeper.map(|port| port.port()),
                http: listen.http.map(|http| http.port()),
                quorum_http: listen.quorum_http.map(|http| http.port()),
                election_http: listen.election_http.map(|http| http.port()),
            };
            nodes.push(Planned { id, folder, ports, role });
        }
        let certificates = secured.then(|| dir.join(CERTIFICATES));
        Ok(Plan { name, nodes, continued: true, certificates })
    }

    fn must_match(&self, dir: &Path, wanted: Wanted) -> Result<(), Failure> {
        let dir = dir.display();
        let have = self.nodes.len();
        let observers = self.nodes.iter().filter(|n| n.role == MemberRole::Observer).count();
        if let Some(n) = wanted.observers
            && usize::from(n) != observers
        {
            return Err(Failure::usage(format!(
                "{dir} has an ensemble with {observers} observers, not {n}; omit --observers to continue it, or \
                 name another directory with --data"
            )));
        }
        if let Some(n) = wanted.nodes
            && usize::from(n) != have
        {
            return Err(Failure::usage(format!(
                "{dir} has an ensemble of {have} nodes, not {n}; omit --nodes to continue it, or name another \
                 directory with --data"
            )));
        }
        if wanted.tls && self.certificates.is_none() {
            return Err(Failure::usage(format!(
                "{dir} has an ensemble without TLS; omit --tls to continue it (docs/security.md says how to change its \
                 configurations), or name another directory with --data"
            )));
        }
        if let (Some(base), Some(first)) = (wanted.base_port, self.nodes.first())
            && ports(1, Some(base))?.client != first.ports.client
        {
            return Err(Failure::usage(format!(
                "{dir} has an ensemble on ports from {}, not {base}; omit --base-port to continue it, or name \
                 another directory with --data",
                first.ports.client
            )));
        }
        Ok(())
    }

    fn toml(&self, node: &Planned) -> String {
        let mut text = format!(
            "# A node of a local ensemble, written by `quorate up`. To start it by hand:\n\
             #   quorate serve --config {}\n\
             ensemble = {}\n\
             id = {}\n\
             data_dir = \"data\"\n\
             pid_file = \"pid\"\n\n\
             [listen]\n\
             host = {}\n\
             zookeeper_port = {}\n\
             http_port = {}\n\
             quorum_http_port = {}\n\
             election_http_port = {}\n\
             internal_quorum_port = {}\n\
             internal_election_port = {}\n",
            node.config().display(),
            self.name.to_toml(),
            node.id,
            std::net::IpAddr::from([127, 0, 0, 1]).to_toml(),
            config::OptionalPort(node.ports.zookeeper).to_toml(),
            config::OptionalPort(node.ports.http).to_toml(),
            config::OptionalPort(node.ports.quorum_http).to_toml(),
            config::OptionalPort(node.ports.election_http).to_toml(),
            node.ports.internal_quorum,
            node.ports.internal_election,
        );
        for Planned { id, ports, role, .. } in &self.nodes {
            text += &format!(
                "\n[[members]]\nid = {id}\nhost = \"127.0.0.1\"\nclient_port = {}\nquorum_port = {}\nelection_port = {}\n",
                ports.client, ports.quorum, ports.election
            );
            if *role == MemberRole::Observer {
                text += &format!("role = {}\n", role.to_toml());
            }
        }
        if let Some(certificates) = &self.certificates {
            let file = |name: String| certificates.join(name).to_toml();
            for (ports, own) in [("members", format!("member-{}", node.id)), ("clients", "server".to_owned())]
            {
                text += &format!(
                    "\n[tls.{ports}]\nmode = \"require\"\ncertificate = {}\nkey = {}\nauthorities = {}\n",
                    file(format!("{own}.pem")),
                    file(format!("{own}.key")),
                    file("ca.pem".to_owned()),
                );
            }
        }
        text
    }
}

fn folder(dir: &Path, id: u8) -> PathBuf {
    dir.join(format!("node-{id}"))
}

/// The ports of node `id`: packed from `base` upward, or the usual ones behind 10000 times the id.
fn ports(id: u8, base: Option<u16>) -> Result<Ports, Failure> {
    let id = u32::from(id);
    let wanted = match base {
        Some(base) => {
            let first = u32::from(base) + PORTS_PER_NODE * (id - 1);
            // In the order in which they came to be.
            [first, first + 1, first + 2, first + 4, first + 5, first + 3, first + 6, first + 7, first + 8]
        }
        None => {
            let usual = [
                config::CLIENT_PORT,
                config::QUORUM_PORT,
                config::ELECTION_PORT,
                config::INTERNAL_QUORUM_PORT,
                config::INTERNAL_ELECTION_PORT,
                config::HTTP_PORT,
                config::HTTP_PORT + 1,
                config::HTTP_PORT + 2,
                config::ZOOKEEPER_PORT,
            ];
            usual.map(|port| 10_000 * id + u32::from(port))
        }
    };
    match wanted.map(u16::try_from) {
        [
            Ok(client),
            Ok(quorum),
            Ok(election),
            Ok(internal_quorum),
            Ok(internal_election),
            Ok(http),
            Ok(quorum_http),
            Ok(election_http),
            Ok(zookeeper),
        ] if client > 0 => Ok(Ports {
            client,
            quorum,
            election,
            internal_quorum,
            internal_election,
            zookeeper: Some(zookeeper),
            http: Some(http),
            quorum_http: Some(quorum_http),
            election_http: Some(election_http),
        }),
        _ => Err(Failure::usage(match base {
            Some(base) => format!(
                "--base-port {base} leaves no room for node {id}: ports end at 65535 and each node takes \
                 {PORTS_PER_NODE}; choose a base from 1024 to 65000"
            ),
            None => format!(
                "node {id} would need port {}, but ports end at 65535; pack them with --base-port, as in --base-port \
                 7000",
                wanted[5]
            ),
        })),
    }
}

/// The folder of the certificates.
const CERTIFICATES: &str = "certs";
const DEFAULT_NODES: u8 = 3;
const MAX_NODES: u8 = 9;
const PORTS_PER_NODE: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_usual_ones_or_packed() {
        let usual = Ports {
            client: 22_188,
            quorum: 22_888,
            election: 23_888,
            internal_quorum: 22_889,
            internal_election: 23_889,
            zookeeper: Some(22_181),
            http: Some(29_464),
            quorum_http: Some(29_465),
            election_http: Some(29_466),
        };
        assert_eq!(ports(2, None).unwrap(), usual);
        let packed = Ports {
            client: 7040,
            quorum: 7041,
            election: 7042,
            internal_quorum: 7044,
            internal_election: 7045,
            zookeeper: Some(7048),
            http: Some(7043),
            quorum_http: Some(7046),
            election_http: Some(7047),
        };
        assert_eq!(ports(3, Some(7000)).unwrap(), packed);
        assert!(ports(5, None).is_ok());
        assert!(ports(6, None).unwrap_err().to_string().contains("--base-port"));
        assert!(ports(3, Some(65_500)).unwrap_err().to_string().contains("no room for node 3"));
        assert!(ports(1, Some(0)).is_err());
    }

    fn wanted(nodes: Option<u8>, base_port: Option<u16>) -> Wanted {
        Wanted { nodes, base_port, ..Wanted::default() }
    }

    #[test]
    fn the_last_nodes_observe() {
        let dir = tempfile::tempdir().unwrap();
        let observers =
            |n| Wanted { nodes: Some(3), observers: Some(n), base_port: Some(free_base()), tls: false };
        let none_votes = Plan::prepare(dir.path(), observers(3)).unwrap_err().to_string();
        assert!(none_votes.contains("leaves no voter"), "{none_votes}");
        let plan = Plan::prepare(dir.path(), observers(1)).unwrap();
        let loaded = config::load(Some(&plan.nodes[0].config()), [], &[]).unwrap().node;
        let roles: Vec<MemberRole> = loaded.members.iter().map(|m| m.role).collect();
        assert_eq!(roles, [MemberRole::Voter, MemberRole::Voter, MemberRole::Observer]);
        let again = Plan::prepare(dir.path(), Wanted::default()).unwrap();
        assert_eq!((again.nodes, again.continued), (plan.nodes, true));
        let other = Plan::prepare(dir.path(), Wanted { observers: Some(2), ..Wanted::default() });
        assert!(other.unwrap_err().to_string().contains("with 1 observers, not 2"));
    }

    /// A base whose first 60 ports are free at the moment, because the system has just given one of them away.
    fn free_base() -> u16 {
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let free = |p: u16| TcpListener::bind(("127.0.0.1", p)).is_ok();
            if port < 65_000 && (port..port + 60).all(free) {
                return port;
            }
        }
    }

    #[test]
    fn an_ensemble_is_made_once_and_then_continued() {
        let dir = tempfile::tempdir().unwrap();
        let base = free_base();
        let new = Plan::prepare(dir.path(), wanted(Some(2), Some(base))).unwrap();
        assert!(!new.continued);
        let loaded = config::load(Some(&new.nodes[1].config()), [], &[]).unwrap().node;
        assert_eq!((loaded.id.0, loaded.members.len()), (2, 2));
        assert_eq!(loaded.listen.client.to_string(), format!("127.0.0.1:{}", base + 20));
        assert_eq!(loaded.listen.zookeeper.map(|port| port.port()), Some(base + 28));
        assert_eq!(loaded.listen.http.map(|http| http.port()), Some(base + 23));
        assert_eq!(loaded.listen.quorum_http.map(|http| http.port()), Some(base + 26));
        assert_eq!(loaded.listen.election_http.map(|http| http.port()), Some(base + 27));
        assert_eq!(loaded.pid_file, Some(new.nodes[1].pid_file(Part::Whole)));
        assert_eq!(loaded.services.quorum, format!("http://127.0.0.1:{}", base + 24));
        assert_eq!(loaded.services.election, format!("http://127.0.0.1:{}", base + 25));

        for (nodes, base_port) in [(None, None), (Some(2), Some(base))] {
            let again = Plan::prepare(dir.path(), wanted(nodes, base_port)).unwrap();
            assert!(again.continued);
            assert_eq!(again.nodes, new.nodes);
        }
        let other = Plan::prepare(dir.path(), wanted(Some(3), None)).unwrap_err().to_string();
        assert!(other.contains("an ensemble of 2 nodes, not 3"), "{other}");
        let other = Plan::prepare(dir.path(), wanted(None, Some(base + 1))).unwrap_err().to_string();
        assert!(other.contains(&format!("on ports from {base}, not {}", base + 1)), "{other}");
    }

    #[test]
    fn nodes_of_a_folder_without_the_zookeeper_port_do_not_all_take_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let new = Plan::prepare(dir.path(), wanted(Some(2), Some(free_base()))).unwrap();
        for node in &new.nodes {
            let text = std::fs::read_to_string(node.config()).unwrap();
            let older: String =
                text.lines().filter(|l| !l.starts_with("zookeeper_port")).map(|l| format!("{l}\n")).collect();
            assert_ne!(older, text);
            std::fs::write(node.config(), older).unwrap();
        }
        let again = Plan::prepare(dir.path(), Wanted::default()).unwrap();
        assert!(again.nodes.iter().all(|node| node.ports.zookeeper.is_none()));
    }

    #[test]
    fn ports_in_use_are_named_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let base = free_base();
        let _taken = TcpListener::bind(("127.0.0.1", base + 21)).unwrap();
        let text = Plan::prepare(dir.path(), wanted(Some(2), Some(base))).unwrap_err().to_string();
        assert!(text.contains(&format!("127.0.0.1:{} (quorum port of node 2)", base + 21)), "{text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let new = dir.path().join("new");
        Plan::prepare(&new, wanted(Some(2), Some(base))).unwrap_err();
        assert!(!new.exists() && dir.path().exists(), "what was there stays");
    }
}

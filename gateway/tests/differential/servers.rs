//! The two servers.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use api::{Identities, PeerId, budget::Budget, proof::Prover};
use gateway::{Config, Gateway, Guest};
use store_svc::{StoreService, testing::MemoryQuorum};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Of super:test.
const SUPER: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

/// Debian's, alone or an ensemble, each node in a directory of its own. They are killed with this.
pub(crate) struct ZooKeeper {
    nodes: Vec<(Child, tempfile::TempDir)>,
    places: Vec<SocketAddr>,
}

impl ZooKeeper {
    /// # Errors
    /// What is missing.
    pub(crate) fn start(count: usize) -> Result<ZooKeeper, String> {
        let jar = Path::new("/usr/share/java/zookeeper.jar");
        if !jar.exists() {
            return Err(format!("{} is missing", jar.display()));
        }
        // Bound all at once, so that no two are the same.
        let bound: Vec<TcpListener> = (0..3 * count)
            .map(|_| TcpListener::bind(("127.0.0.1", 0)))
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        let ports: Vec<u16> = bound
            .iter()
            .map(|listener| listener.local_addr().map(|address| address.port()))
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        drop(bound);
        let members: String = match count {
            1 => String::new(),
            _ => (1..=count)
                .map(|id| format!("server.{id}=127.0.0.1:{}:{}\n", ports[3 * id - 2], ports[3 * id - 1]))
                .collect(),
        };
        let mut zookeeper = ZooKeeper { nodes: Vec::new(), places: Vec::new() };
        for id in 1..=count {
            let port = ports[3 * id - 3];
            zookeeper.nodes.push(start_node(jar, id, port, &members)?);
            zookeeper.places.push(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        let end = Instant::now() + Duration::from_secs(60);
        while !zookeeper.places.iter().all(|place| serves(*place)) {
            for (child, _) in &mut zookeeper.nodes {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!("java ends with {status}"));
                }
            }
            if Instant::now() > end {
                return Err("it does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(zookeeper)
    }

    pub(crate) fn places(&self) -> &[SocketAddr] {
        &self.places
    }
}

fn start_node(jar: &Path, id: usize, port: u16, members: &str) -> Result<(Child, tempfile::TempDir), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let settings = format!(
        "dataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n\
         maxClientCnxns=0\nadmin.enableServer=false\n{members}",
        dir.path().display()
    );
    let file = dir.path().join("zoo.cfg");
    std::fs::write(&file, settings).map_err(|e| e.to_string())?;
    std::fs::write(dir.path().join("myid"), id.to_string()).map_err(|e| e.to_string())?;
    // What the manifest of Debian's jar does not name.
    let also = "/usr/share/java/slf4j-nop.jar:/usr/share/java/snappy-java.jar:/usr/share/java/metrics-core.jar:/usr/share/java/commons-cli.jar";
    let child = Command::new("java")
        .args(["-Xmx256m", "-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.forceSync=no"])
        .arg(format!("-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER}"))
        .args([
            "-cp",
            &format!("{}:{also}", jar.display()),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        ])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("java: {e}"))?;
    Ok((child, dir))
}

/// It listens before that.
fn serves(place: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(place)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"srvr")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text.contains("Mode:"))
    };
    ask().unwrap_or(false)
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        // An error: it has ended.
        for (child, _) in &mut self.nodes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A store on a quorum in memory, behind a gateway on a socket.
pub(crate) struct Ours {
    runtime: Runtime,
    place: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Ours {
    pub(crate) fn start() -> Ours {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let entered = runtime.enter();
        let mut config = store_svc::Config::new(PeerId(1), dir.path().to_owned());
        config.bounds.opens_per_second = 1_000_000;
        let store = StoreService::open(config, MemoryQuorum::new(PeerId(1)), shutdown.clone()).unwrap();
        let config = Config { prover: Prover::new(Some(SUPER)).unwrap(), ..Config::default() };
        let gateway = Gateway::new(store.handle(), config, None);
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let place = listener.local_addr().unwrap();
        let (budget, stop) = (Budget::new(64 << 20), shutdown.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let (stream, address): (_, SocketAddr) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                let guest = Guest {
                    address,
                    identities: Identities::NONE,
                    certificate: None,
                    held: budget.share(),
                    traffic: budget.share(),
                };
                let gateway = gateway.clone();
                tokio::spawn(async move { gateway.serve(stream, guest, || {}).await });
            }
        });
        let running = tokio::spawn(async move { store.run().await.unwrap() });
        drop(entered);
        Ours { runtime, place, shutdown, running, _dir: dir }
    }

    pub(crate) fn place(&self) -> SocketAddr {
        self.place
    }

    pub(crate) fn stop(self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.running).unwrap();
    }
}

//! Debian's ZooKeeper: three servers, against which clients of ZooKeeper run in the same way.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::harness::{eventually, free_ports};

const JAR: &str = "/usr/share/java/zookeeper.jar";

/// Its servers are killed with this.
pub(crate) struct ZooKeeper {
    servers: Vec<Child>,
    base: u16,
    dir: tempfile::TempDir,
}

impl ZooKeeper {
    /// What is missing here to start one.
    pub(crate) fn missing() -> Option<String> {
        if !Path::new(JAR).exists() {
            return Some(format!("{JAR} (Debian package zookeeper)"));
        }
        let java = Command::new("java").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        (!java.is_ok_and(|status| status.success())).then(|| "Java (Debian package default-jre)".to_owned())
    }

    pub(crate) fn start() -> ZooKeeper {
        let base = free_ports(3);
        let dir = tempfile::tempdir().unwrap();
        let servers: String = (1..=3)
            .map(|id| format!("server.{id}=127.0.0.1:{}:{}\n", base + 10 + id, base + 20 + id))
            .collect();
        for id in 1..=3 {
            let data = dir.path().join(id.to_string());
            std::fs::create_dir(&data).unwrap();
            std::fs::write(data.join("myid"), id.to_string()).unwrap();
            let config = format!(
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort={}\n\
                 clientPortAddress=127.0.0.1\nmaxClientCnxns=0\nadmin.enableServer=false\n{servers}",
                data.display(),
                base + id
            );
            std::fs::write(data.join("zoo.cfg"), config).unwrap();
        }
        let mut zookeeper = ZooKeeper { servers: Vec::new(), base, dir };
        zookeeper.servers = (1..=3).map(|id| zookeeper.start_server(id)).collect();
        zookeeper.all_serve();
        zookeeper
    }

    fn start_server(&self, id: u16) -> Child {
        // The disk is nobody's subject here.
        let flags = ["-Xmx256m", "-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.forceSync=no"];
        Command::new("java")
            .args(flags)
            .args(["-cp", &format!("/usr/share/java/slf4j-nop.jar:{JAR}")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.dir.path().join(format!("{id}/zoo.cfg")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// `leader` or `follower`, of a server that serves.
    fn mode(&self, id: u16) -> Option<String> {
        let ask = || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.base + id))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"srvr")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        let text: String = ask().ok()?;
        text.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
    }

    fn all_serve(&self) {
        eventually("all servers of ZooKeeper serve", || (1..=3).all(|id| self.mode(id).is_some()));
    }

    pub(crate) fn hosts(&self) -> String {
        let hosts: Vec<String> = (1..=3).map(|id| format!("127.0.0.1:{}", self.base + id)).collect();
        hosts.join(",")
    }

    /// kill -9, and starts it again.
    pub(crate) fn kill_leader(&mut self) {
        let mut leader = None;
        eventually("ZooKeeper has a leader", || {
            leader = (1..=3).find(|id| self.mode(*id).as_deref() == Some("leader"));
            leader.is_some()
        });
        let id = leader.unwrap();
        let server = &mut self.servers[usize::from(id) - 1];
        server.kill().unwrap();
        server.wait().unwrap();
        self.servers[usize::from(id) - 1] = self.start_server(id);
        self.all_serve();
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // An error: it has ended.
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

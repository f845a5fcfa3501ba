//! Ports for the nodes, which have to find the same ones again whenever they are started.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context as _, Result, bail};

/// Reserved ports, below the range from which the system picks ports, until this is dropped. Test ensembles
/// use the same locks.
pub(crate) struct Ports {
    first: u16,
    _lock: File,
}

impl Ports {
    /// Takes the first free slot.
    pub(crate) fn reserve() -> Result<Ports> {
        let locks = std::env::temp_dir().join("quorate-test-ports");
        fs::create_dir_all(&locks).with_context(|| format!("cannot make {}", locks.display()))?;
        for first in (10_000..30_000).step_by(usize::from(SLOT)) {
            let file = locks.join(first.to_string());
            let lock = File::create(&file).with_context(|| format!("cannot open {}", file.display()))?;
            let free =
                || (first..first + SLOT).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
            if lock.try_lock().is_ok() && free() {
                return Ok(Ports { first, _lock: lock });
            }
        }
        bail!("no {SLOT} free ports in a row from 10000 to 30000; end other test runs on this machine")
    }

    /// Of node `id`, from 1: client, quorum, election, those of quorum and election for the other services of the node, and the one
    /// for probes, behind which those of its other services are.
    pub(crate) fn of(&self, id: u32) -> [u16; 6] {
        let node = self.first + 20 * u16::try_from(id - 1).unwrap_or(u16::MAX);
        [node, node + 1, node + 2, node + 3, node + 4, node + 5]
    }

    /// The one of node `id` for clients of ZooKeeper.
    pub(crate) fn zookeeper(&self, id: u32) -> u16 {
        self.of(id)[0] + 10
    }
}

/// As much as five nodes need.
const SLOT: u16 = 100;

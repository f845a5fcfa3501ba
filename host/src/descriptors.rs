//! File descriptors: the limit of this process, and its split among files and ports.
//!
//! Without bounds, idle connections take all descriptors, and the log cannot open its next segment: any
//! client that reaches a port could stop the node. So files get their share first, and each port has its own
//! share, so that clients cannot lock out members.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::listen;

/// How many connections the ports of a node may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connections {
    /// The client port: what the others leave, as far as memory reaches.
    pub client: usize,
    /// The port for ZooKeeper's clients, if there is one: half of what would be the client port's, and more of the memory, because
    /// such a connection takes less of it.
    pub zookeeper: usize,
}

impl Connections {
    /// Shares out `descriptors` and a quarter of `memory` bytes, at least one connection for each port that clients connect to:
    /// the client port, and that of ZooKeeper's clients if there is one.
    #[must_use]
    pub fn sharing(descriptors: u64, memory: usize, zookeeper: bool) -> Connections {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let spare = descriptors.saturating_sub(KEPT_FOR_FILES + KEPT_FOR_PEERS);
        let ports = if zookeeper { 2 } else { 1 };
        let of = |each: usize| (spare / ports).min(memory / 4 / ports / each).max(1);
        Connections {
            client: of(PER_CONNECTION),
            zookeeper: if zookeeper { of(PER_ZOOKEEPER_CONNECTION) } else { 0 },
        }
    }
}

/// Raises the number of descriptors that this process may have to what the system allows it, and returns it. If the
/// system refuses, it stays as it is.
#[must_use]
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(e) => {
            let current = current.unwrap_or(u64::MAX);
            tracing::warn!(current, error = %e, "cannot raise the limit of open files");
            current
        }
    }
}

/// Descriptors that no connection may take: segments of the log, snapshots, the table, the connections that the node
/// itself opens to others, and what the runtime needs.
const KEPT_FOR_FILES: usize = 256;
/// And what the ports of members take at most: each member has one or a few connections, strangers share some more.
const KEPT_FOR_PEERS: usize = 192;
/// Maximum of memory for a connection of the client port, besides its share of the budgets: bytes that arrive
/// before they are read, and the state of TLS, HTTP/2 and its tasks.
const PER_CONNECTION: usize = listen::CLIENT_WINDOW as usize + (32 << 10);
/// The same of a connection of ZooKeeper's clients: what is received before it is read, and its task. A frame above
/// this is charged to the budgets.
const PER_ZOOKEEPER_CONNECTION: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_then_members_then_clients_and_all_fit_into_memory() {
        let sharing = |descriptors, mib: usize| Connections::sharing(descriptors, mib << 20, false).client;
        assert_eq!(sharing(1024, 1024), 576);
        assert_eq!(sharing(u64::MAX, 1024), 1638);
        assert_eq!(sharing(u64::MAX, 8192), 13_107);
        assert_eq!(sharing(0, 1024), 1, "it works, if barely");
        let both = |descriptors, mib: usize| Connections::sharing(descriptors, mib << 20, true);
        assert_eq!(both(1024, 1024), Connections { client: 288, zookeeper: 288 });
        assert_eq!(both(u64::MAX, 1024), Connections { client: 819, zookeeper: 4096 });
        assert_eq!(both(0, 1024), Connections { client: 1, zookeeper: 1 });
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let limit = raise_limit();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(limit, now.maximum.unwrap_or(u64::MAX));
    }
}

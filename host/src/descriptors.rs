//! File descriptors: how many this process may have, and who may use them.
//!
//! Without bounds, idle connections take them all, and the log cannot open its next segment: anybody who reaches a port
//! could stop the node. So files have their share first, and each port has its own, so that clients cannot keep the
//! members from one another.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many connections each port of a node may have open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connections {
    /// The client port: what the others leave.
    pub client: usize,
    /// The quorum port and the election port, each.
    pub peer: usize,
}

impl Connections {
    /// Shares out `descriptors`, at least one connection for each port.
    #[must_use]
    pub fn sharing(descriptors: u64) -> Connections {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let all = descriptors.saturating_sub(KEPT_FOR_FILES);
        let peer = (all / 8).clamp(1, PEER_MAX);
        let client = all.saturating_sub(2 * peer).clamp(1, CLIENT_MAX);
        Connections { client, peer }
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
            tracing::warn!("cannot raise the limit of open files from {current}: {e}");
            current
        }
    }
}

/// Descriptors that no connection may take: segments of the log, snapshots, the table, the connections that the node
/// itself opens to others, and what the runtime needs.
const KEPT_FOR_FILES: usize = 256;
/// Connections of a port that only members use: each has one or a few, also while an old one is not yet given up.
const PEER_MAX: usize = 128;
/// Connections of the client port, where descriptors are plenty: each costs memory as well.
const CLIENT_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_then_members_then_clients() {
        assert_eq!(Connections::sharing(1024), Connections { client: 576, peer: 96 });
        assert_eq!(Connections::sharing(4096), Connections { client: 3584, peer: 128 });
        assert_eq!(Connections::sharing(u64::MAX), Connections { client: 65_536, peer: 128 });
        assert_eq!(Connections::sharing(0), Connections { client: 1, peer: 1 }, "it works, if barely");
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let limit = raise_limit();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(limit, now.maximum.unwrap_or(u64::MAX));
    }
}

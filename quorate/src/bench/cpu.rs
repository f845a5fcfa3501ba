//! The processor time of nodes on this machine.

use std::{
    collections::HashSet,
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use procfs::{
    net::TcpState,
    process::{FDTarget, Process, all_processes},
};

/// Processes of this machine that serve clients.
pub(super) struct Servers(Vec<Process>);

impl Servers {
    /// Those that listen at addresses of the loopback interface among these. None where the system does not tell.
    pub(super) fn listening_at(endpoints: &[String]) -> Servers {
        let resolved = endpoints.iter().filter_map(|endpoint| endpoint.to_socket_addrs().ok()).flatten();
        let local: HashSet<SocketAddr> = resolved.filter(|address| address.ip().is_loopback()).collect();
        let tables = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
        let inodes: HashSet<u64> = tables
            .filter(|entry| entry.state == TcpState::Listen)
            .filter(|entry| {
                let listens = entry.local_address;
                let everywhere = listens.ip().is_unspecified();
                local.iter().any(|a| a.port() == listens.port() && (everywhere || a.ip() == listens.ip()))
            })
            .map(|entry| entry.inode)
            .collect();
        let listens = |process: &Process| {
            let files = process.fd().into_iter().flatten().flatten();
            files
                .into_iter()
                .any(|file| matches!(file.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
        };
        Servers(all_processes().into_iter().flatten().flatten().filter(listens).collect())
    }

    /// What all of them have used so far; `None` without any.
    pub(super) fn time(&self) -> Option<Duration> {
        let ticks: u64 =
            self.0.iter().filter_map(|p| p.stat().ok()).map(|stat| stat.utime + stat.stime).sum();
        let per_second = procfs::ticks_per_second();
        (!self.0.is_empty()).then(|| Duration::from_secs_f64(ticks as f64 / per_second as f64))
    }
}

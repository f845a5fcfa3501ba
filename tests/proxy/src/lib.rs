//! A bad network between servers of one machine.
//!
//! Every server gets, instead of the address of each other server, that of a [`Proxy`] port made for this
//! pair ([`Proxy::link`]). So all messages between two servers go through the proxy, and can be
//!
//! - **cut** ([`Proxy::cut`]): the connections that one server has made to the other break, and new ones are
//!   refused, as by a firewall that rejects. The other one may still connect in its own direction.
//! - **stalled** ([`Proxy::stall`]): the proxy holds bytes in one direction, in all connections between the
//!   two, without an error or an end. They arrive, in order, when it is over, as TCP would send them again.
//! - **slowed** ([`Proxy::delay`]): bytes in one direction arrive later, as on a long line.
//!
//! Directions are independent of each other. Servers are known by their numbers.
//!
//! ```
//! # async fn example(server_2: std::net::SocketAddr) -> std::io::Result<()> {
//! let proxy = proxy::Proxy::new();
//! // To be written into the configuration of server 1, as the address of server 2.
//! let address_of_2_for_1 = proxy.link(1, 2, server_2).await?;
//! proxy.stall(2, 1); // 2 hears 1, but 1 does not hear 2
//! proxy.heal_all();
//! # Ok(())
//! # }
//! ```

mod pump;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// The network between some servers. Dropping it breaks all connections.
///
/// Needs a tokio runtime. All methods may be called from any task; what they say holds for bytes that arrive after they
/// return, and for those that are held at that time.
#[derive(Debug, Default)]
pub struct Proxy {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The faults of bytes from one server to another, for pairs that ever had one.
    flows: BTreeMap<(u32, u32), watch::Sender<Flow>>,
    /// One listener for each link, with its connections.
    links: JoinSet<()>,
}

/// The faults of one direction between two servers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Flow {
    /// Connections made in this direction break.
    cut: bool,
    /// Bytes in this direction do not arrive.
    stalled: bool,
    /// Bytes in this direction arrive so much later.
    delay: Duration,
}

impl Proxy {
    /// A network without links.
    #[must_use]
    pub fn new() -> Proxy {
        Proxy::default()
    }

    /// Makes a port at which server `from` reaches `to`, which listens at `target`. There may be several for a pair, one
    /// for each of its services.
    ///
    /// # Errors
    /// If the system has no free port.
    pub async fn link(&self, from: u32, to: u32, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut state = self.lock();
        let there = state.flow(from, to).subscribe();
        let back = state.flow(to, from).subscribe();
        state.links.spawn(serve(listener, target, there, back));
        Ok(address)
    }

    /// Breaks the connections that `from` has made to `to`, and refuses new ones, until healed.
    pub fn cut(&self, from: u32, to: u32) {
        self.change(from, to, |flow| flow.cut = true);
    }

    /// Holds what `from` says to `to`, until healed.
    pub fn stall(&self, from: u32, to: u32) {
        self.change(from, to, |flow| flow.stalled = true);
    }

    /// Delays bytes from `from` to `to` by this time, until the next call or until healed.
    pub fn delay(&self, from: u32, to: u32, by: Duration) {
        self.change(from, to, |flow| flow.delay = by);
    }

    /// Ends everything that was asked for bytes and connections from `from` to `to`. The other direction stays as it is.
    pub fn heal(&self, from: u32, to: u32) {
        self.change(from, to, |flow| *flow = Flow::default());
    }

    /// Ends everything that was asked for.
    pub fn heal_all(&self) {
        for flow in self.lock().flows.values() {
            flow.send_replace(Flow::default());
        }
    }

    /// Cuts the servers of each group off from all of the others, in both directions. Those in no group are left alone.
    pub fn partition(&self, groups: &[BTreeSet<u32>]) {
        for (a, group) in groups.iter().enumerate() {
            for other in groups.iter().enumerate().filter(|&(b, _)| a != b).map(|(_, other)| other) {
                for (&from, &to) in group.iter().flat_map(|from| other.iter().map(move |to| (from, to))) {
                    self.cut(from, to);
                }
            }
        }
    }

    fn change(&self, from: u32, to: u32, change: impl FnOnce(&mut Flow)) {
        self.lock().flow(from, to).send_modify(change);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in there is ever half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn flow(&mut self, from: u32, to: u32) -> &watch::Sender<Flow> {
        self.flows.entry((from, to)).or_insert_with(|| watch::Sender::new(Flow::default()))
    }
}

/// Takes connections until it is aborted, and its connections with it.
async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                // While it is cut it ends at once.
                Ok((stream, _)) => drop(connections.spawn(carry(stream, target, there.clone(), back.clone()))),
                // Out of descriptors: some will be free again.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until either side ends it, or it is cut.
async fn carry(
    from: TcpStream,
    target: SocketAddr,
    there: watch::Receiver<Flow>,
    back: watch::Receiver<Flow>,
) {
    let mut cut = there.clone();
    let both_ways = async {
        let to = TcpStream::connect(target).await?;
        // As the servers themselves do: many small messages that must not wait for each other.
        from.set_nodelay(true)?;
        to.set_nodelay(true)?;
        let (from_read, from_write) = from.into_split();
        let (to_read, to_write) = to.into_split();
        tokio::try_join!(pump::pump(from_read, to_write, there), pump::pump(to_read, from_write, back))?;
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        // Whatever the error, both ends learn of it by the end of their connection.
        _ = both_ways => {}
        _ = cut.wait_for(|flow| flow.cut) => {}
    }
}

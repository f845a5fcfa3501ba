//! The edge for ZooKeeper's clients: their protocol in front of any [`Coordination`]. It knows the store by that port alone.
//!
//! A connection is one task, with a reader and a writer that know of each other by a `ledger`:
//!
//! - The reader cuts what comes into frames, turns each request into one of the store's (`translate`), and submits them in batches.
//!   What takes several steps, such as a long listing, holds what comes behind it (`script`).
//! - The writer takes items as they leave the store, which come in the order of the requests, and encodes replies.
//!
//! A reply that has no counterpart in the store travels as a ping, so that it keeps its place and its bounds.
//!
//! **Signs of life.** ZooKeeper's clients take every reply for a sign that their session lives, and believe in that for two thirds of
//! the time-out. A node's answer is not the ensemble's. So a ping is answered when the leader has counted it
//! ([`Item::Confirmed`](api::session::Item::Confirmed)), and nothing at all is said later than a third of the time-out behind the
//! request that was counted last: what a client believes ends before the leader may expire its session.
//!
//! **Writes.** A client of ZooKeeper cannot send a write again. The gateway numbers the writes of a session, so that the store may
//! send them again by itself, and acknowledges each result when it has it. On a connection that takes a session up they have no
//! numbers, because the last one is not known; then one that the store loses sight of ends the connection. A connection that is lost
//! leaves the client with the doubt that it has with ZooKeeper.

mod acl;
mod answers;
mod commands;
mod connection;
mod ledger;
mod reader;
mod script;
mod stats;
mod translate;
mod watches;
mod words;
mod writer;

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use api::{Identities, budget::Share, ports::Coordination, proof::Prover};
use tokio::io::{AsyncRead, AsyncWrite};

pub use commands::Answer;
pub use connection::End;
use stats::Stats;
pub use words::{Facts, Words, WordsError};

/// What a gateway is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The four letter words that are answered.
    pub words: Words,
    /// Bytes of a frame before its session is open; then as the node says in [`Limits`](api::session::Limits).
    pub frame_max: usize,
    /// What clients prove their identities with.
    pub prover: Prover,
    /// What `conf` says besides: names and values, in this order.
    pub settings: Vec<(String, String)>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            words: Words::default(),
            frame_max: zk_jute::FRAME_MAX,
            prover: Prover::default(),
            settings: Vec::new(),
        }
    }
}

/// How to ask for what only the node knows.
pub type About = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Facts> + Send>> + Send + Sync>;

/// ZooKeeper's protocol in front of a store. Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway<C> {
    store: C,
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    stats: Stats,
    about: Option<About>,
}

/// A client that has connected, and what it may hold.
#[derive(Clone)]
pub struct Guest {
    /// Where it is.
    pub address: SocketAddr,
    /// What its connection proves besides its address, as the subject of a certificate.
    pub identities: Identities,
    /// Bytes of its requests under way.
    pub held: Share,
    /// Bytes that are being received and sent.
    pub traffic: Share,
}

impl<C: Coordination> Gateway<C> {
    /// In front of `store`. `about` answers the four letter words; without it, they say what the port tells.
    pub fn new(store: C, config: Config, about: Option<About>) -> Gateway<C> {
        Gateway { store, shared: Arc::new(Shared { config, stats: Stats::new(), about }) }
    }

    /// Serves one connection until it ends, and says why. `spoke` is called once the client has opened a session. If this is dropped,
    /// the connection ends; what the store has of it goes on.
    pub async fn serve<S>(&self, stream: S, guest: Guest, spoke: impl FnOnce() + Send) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        connection::serve(self, stream, guest, spoke).await
    }
}

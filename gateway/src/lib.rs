//! The edge for ZooKeeper's clients: their protocol on top of any [`Coordination`]. It uses only that port of the
//! store.
//!
//! A connection is one task with a reader and a writer, which share a `ledger`:
//!
//! - The reader splits the input into frames, translates each request into one for the store (`translate`), and submits
//!   them in batches. A request of several steps, such as a long listing, delays the requests after it (`script`).
//! - The writer takes items from the store, which arrive in request order, and encodes replies.
//!
//! A reply without a counterpart in the store travels as a ping, so that it keeps its position and its bounds.
//!
//! **Signs of life.** ZooKeeper's clients take every reply as a sign that their session is alive, and rely on it for
//! two thirds of the timeout. But an answer of a node is not an answer of the ensemble. So the gateway answers a ping
//! when the leader has counted it ([`Item::Confirmed`](api::session::Item::Confirmed)), and sends nothing later than a
//! third of the timeout after the request that was counted last. So the client gives up its session before the leader
//! may expire it.
//!
//! **Writes.** A ZooKeeper client cannot send a write again. The gateway numbers the writes of a session, so that the
//! store can repeat them by itself, and acknowledges each result that it receives. On a connection that resumes a
//! session, writes have no numbers, because the last number is not known; if the store loses such a write, the
//! connection ends. A lost connection leaves the outcome of pending writes unknown, as with ZooKeeper.

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

use api::{
    Identities,
    budget::Share,
    ports::{Coordination, Fingerprint},
    proof::Prover,
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use commands::Answer;
pub use connection::End;
use stats::Stats;
pub use words::{Facts, Words, WordsError};

/// The configuration of a gateway.
#[derive(Clone, Debug)]
pub struct Config {
    /// The enabled four letter words.
    pub words: Words,
    /// Maximum frame size before a session is open, in bytes; after that, [`Limits`](api::session::Limits) of the node
    /// apply.
    pub frame_max: usize,
    /// Settings with which clients prove their identities.
    pub prover: Prover,
    /// Additional output of `conf`: names and values, in this order.
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

/// Asks for information that only the node has.
pub type About = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Facts> + Send>> + Send + Sync>;

/// ZooKeeper's protocol on top of a store. Clones share the same gateway.
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

/// A connected client and its resource shares.
#[derive(Clone)]
pub struct Guest {
    /// Its address.
    pub address: SocketAddr,
    /// The identities that its connection proves besides its address, such as the subject of a certificate.
    pub identities: Identities,
    /// Its certificate, for the audit log.
    pub certificate: Option<Fingerprint>,
    /// Bytes of its requests in flight.
    pub held: Share,
    /// Bytes that are being received and sent.
    pub traffic: Share,
}

impl<C: Coordination> Gateway<C> {
    /// A gateway for `store`. `about` provides node data for the four letter words; without it, they report what the
    /// port provides.
    pub fn new(store: C, config: Config, about: Option<About>) -> Gateway<C> {
        Gateway { store, shared: Arc::new(Shared { config, stats: Stats::new(), about }) }
    }

    /// Serves one connection until it ends, and returns the reason. Calls `spoke` once the client has opened a session.
    /// If the future is dropped, the connection ends; its requests in the store continue.
    pub async fn serve<S>(&self, stream: S, guest: Guest, spoke: impl FnOnce() + Send) -> End
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        connection::serve(self, stream, guest, spoke).await
    }
}

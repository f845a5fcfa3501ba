//! Clients that are a fault: each does to one node what no library does.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use proto::v1::{ChildrenRequest, GetRequest, PingRequest, SessionRequest, SetRequest, request::Op};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::raw;

/// The kinds of rude clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rude {
    /// Asks and takes no answer from the socket.
    ReadsNothing,
    /// Takes a kilobyte a second.
    ReadsSlowly,
    /// Grants streams no window, so that no answer can be sent.
    ZeroWindow,
    /// Sends a call's first half.
    HalfMessages,
    /// Sends whole calls and never says that there is no more to come.
    EndlessCalls,
    /// Watches the health of the node, as often as it can.
    FloodsWatches,
    /// Pings five hundred times in one message and takes no answer.
    FloodsPings,
    /// Opens a session and is gone with a reset.
    Vanishes,
    /// Connects and says nothing, as often as it can.
    FloodsConnections,
    /// Opens sessions, as many as it can.
    FloodsSessions,
    /// Lists a large znode, all calls at once.
    FloodsLists,
}

impl Rude {
    pub(crate) const ALL: [Rude; 11] = [
        Rude::ReadsNothing,
        Rude::ReadsSlowly,
        Rude::ZeroWindow,
        Rude::HalfMessages,
        Rude::EndlessCalls,
        Rude::FloodsWatches,
        Rude::FloodsPings,
        Rude::Vanishes,
        Rude::FloodsConnections,
        Rude::FloodsSessions,
        Rude::FloodsLists,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Rude::ReadsNothing => "reads-nothing",
            Rude::ReadsSlowly => "reads-slowly",
            Rude::ZeroWindow => "zero-window",
            Rude::HalfMessages => "half-messages",
            Rude::EndlessCalls => "endless-calls",
            Rude::FloodsWatches => "floods-watches",
            Rude::FloodsPings => "floods-pings",
            Rude::Vanishes => "vanishes",
            Rude::FloodsConnections => "floods-connections",
            Rude::FloodsSessions => "floods-sessions",
            Rude::FloodsLists => "floods-lists",
        }
    }

    /// Attacks the client port `port`, with the znode `large` where one is needed, until it is dropped.
    pub(crate) fn begin(self, port: u16, large: &str) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        let count = match self {
            Rude::FloodsConnections => CONNECTIONS,
            Rude::ReadsNothing | Rude::ReadsSlowly | Rude::FloodsWatches | Rude::FloodsPings => READERS,
            _ => CALLERS,
        };
        for _ in 0..count {
            let large = large.to_owned();
            clients.spawn(async move {
                // Again and again: a node may end the connection, which is its right.
                loop {
                    let pause = if self.once(port, &large).await.is_ok() { GRACE } else { REFUSED };
                    sleep(pause).await;
                }
            });
        }
        clients
    }

    /// One connection, to its end.
    async fn once(self, port: u16, large: &str) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let window = match self {
            Rude::ZeroWindow | Rude::FloodsPings => 0,
            _ => i32::MAX as u32,
        };
        match self {
            Rude::FloodsConnections => {}
            Rude::HalfMessages => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..CALLS {
                    stream.write_all(&raw::call(2 * call + 1, "Set")).await?;
                    let whole = raw::framed(&set(large, HALF));
                    stream.write_all(&raw::data(2 * call + 1, &whole[..8 << 10], false)).await?;
                }
            }
            Rude::EndlessCalls => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..CALLS {
                    stream.write_all(&raw::call(2 * call + 1, "Set")).await?;
                    let whole = raw::framed(&set("/none", WHOLE));
                    stream.write_all(&raw::data(2 * call + 1, &whole, false)).await?;
                }
            }
            Rude::FloodsWatches => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..WATCHES {
                    stream.write_all(&raw::call_of(2 * call + 1, "/grpc.health.v1.Health/Watch")).await?;
                    stream.write_all(&raw::data(2 * call + 1, &raw::framed(&()), true)).await?;
                }
            }
            Rude::FloodsPings => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..CALLS / 2 {
                    stream.write_all(&raw::call(2 * call + 1, "Session")).await?;
                    let ping = |xid| raw::request(xid, Op::Ping(PingRequest {}));
                    let requests = (1..=PINGS).map(ping).collect();
                    let pings = SessionRequest { requests, ..raw::open_session(30_000) };
                    stream.write_all(&raw::data(2 * call + 1, &raw::framed(&pings), false)).await?;
                }
            }
            Rude::Vanishes => {
                stream.write_all(&raw::hello(window)).await?;
                stream.write_all(&raw::call(1, "Session")).await?;
                stream.write_all(&raw::data(1, &raw::framed(&raw::open_session(4_000)), false)).await?;
                stream.set_zero_linger()?;
                return Ok(());
            }
            Rude::FloodsSessions => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..CALLS {
                    stream.write_all(&raw::call(2 * call + 1, "Session")).await?;
                    stream
                        .write_all(&raw::data(2 * call + 1, &raw::framed(&raw::open_session(4_000)), false))
                        .await?;
                }
            }
            Rude::FloodsLists => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..CALLS {
                    stream.write_all(&raw::call(2 * call + 1, "Children")).await?;
                    stream.write_all(&raw::data(2 * call + 1, &raw::framed(&children(large)), true)).await?;
                }
            }
            Rude::ReadsNothing | Rude::ReadsSlowly | Rude::ZeroWindow => {
                stream.write_all(&raw::hello(window)).await?;
                for call in 0..CALLS {
                    let stream_id = 2 * call + 1;
                    stream.write_all(&raw::call(stream_id, "Session")).await?;
                    stream
                        .write_all(&raw::data(stream_id, &raw::framed(&raw::open_session(30_000)), false))
                        .await?;
                    for xid in 1..=REQUESTS {
                        let path = large.to_owned();
                        let op = match xid % 2 {
                            0 => Op::Get(GetRequest { path, ..GetRequest::default() }),
                            _ => Op::Children(children(large)),
                        };
                        let asked = SessionRequest {
                            requests: vec![raw::request(xid, op)],
                            ..SessionRequest::default()
                        };
                        stream.write_all(&raw::data(stream_id, &raw::framed(&asked), false)).await?;
                    }
                }
            }
        }
        self.listen(stream).await
    }

    /// Until the node ends the connection.
    async fn listen(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut bytes = vec![0; 1 << 10];
        loop {
            match self {
                Rude::ReadsNothing => std::future::pending().await,
                Rude::ReadsSlowly => sleep(Duration::from_secs(1)).await,
                _ => {}
            }
            if stream.read(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
    }
}

fn set(path: &str, size: usize) -> SetRequest {
    SetRequest { path: path.to_owned(), data: Some(vec![b'x'; size].into()), ..SetRequest::default() }
}

fn children(path: &str) -> ChildrenRequest {
    ChildrenRequest { path: path.to_owned(), ..ChildrenRequest::default() }
}

impl fmt::Display for Rude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Connections that say nothing; files are bounded for us as for the node.
const CONNECTIONS: usize = 600;
const READERS: usize = 24;
const CALLERS: usize = 8;
/// Calls of one connection.
const CALLS: u32 = 24;
/// Requests of one call.
const REQUESTS: u64 = 200;
/// Calls of one connection that last: as many as there may be, nearly.
const WATCHES: u32 = 120;
/// Pings of one message. A dozen of these fit into the 64 KiB that a client may send before it hears of more.
const PINGS: u64 = 500;
/// Of a value; two dozen of them fit in the same way.
const WHOLE: usize = 2 << 10;
/// Size of a value whose second half never comes.
const HALF: usize = 1 << 20;
/// Before the next connection.
const GRACE: Duration = Duration::from_millis(2);
/// The same behind one that was refused.
const REFUSED: Duration = Duration::from_millis(50);

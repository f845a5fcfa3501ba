//! The network's effects on connections, as both ends see them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is the report")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use proxy::Proxy;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// Long enough to see that nothing comes.
const NOTHING: Duration = Duration::from_millis(150);

struct Two {
    proxy: Proxy,
    /// Where 1 reaches 2.
    address: SocketAddr,
    server: TcpListener,
}

impl Two {
    async fn new() -> Two {
        let proxy = Proxy::new();
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = proxy.link(1, 2, server.local_addr().unwrap()).await.unwrap();
        Two { proxy, address, server }
    }

    /// The ends of a connection that 1 makes to 2.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let one = TcpStream::connect(self.address).await.unwrap();
        (one, self.server.accept().await.unwrap().0)
    }
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// The next text, `None` if nothing arrives; "" is the end.
async fn hear(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = [0; 64];
    let count = timeout(NOTHING, stream.read(&mut bytes)).await.ok()?.unwrap_or(0);
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

#[tokio::test]
async fn bytes_and_ends_pass_in_both_directions() {
    let two = Two::new().await;
    let (mut one, mut other) = two.connect().await;
    say(&mut one, "hello").await;
    assert_eq!(hear(&mut other).await.unwrap(), "hello");
    one.shutdown().await.unwrap();
    assert_eq!(hear(&mut other).await.unwrap(), "");
    say(&mut other, "still here").await;
    assert_eq!(hear(&mut one).await.unwrap(), "still here", "the other half stays open");
    drop(other);
    assert_eq!(hear(&mut one).await.unwrap(), "");
}

#[tokio::test]
async fn a_cut_breaks_what_is_there_and_refuses_what_comes_in_its_direction_only() {
    let two = Two::new().await;
    let (mut one, mut other) = two.connect().await;
    two.proxy.cut(2, 1);
    say(&mut one, "a").await;
    assert_eq!(hear(&mut other).await.unwrap(), "a", "2 cannot connect to 1; this is not what that is about");
    two.proxy.cut(1, 2);
    assert_eq!(hear(&mut one).await.unwrap(), "");
    assert_eq!(hear(&mut other).await.unwrap(), "");
    let mut refused = TcpStream::connect(two.address).await.unwrap();
    assert_eq!(hear(&mut refused).await.unwrap(), "");
    two.proxy.heal(1, 2);
    // The refused connection may have reached 2 before it broke.
    let (mut one, mut other) = two.connect().await;
    say(&mut one, "again").await;
    while let Some(heard) = hear(&mut other).await {
        if heard == "again" {
            return;
        }
        other = two.server.accept().await.unwrap().0;
    }
    panic!("healed, and nothing comes");
}

#[tokio::test]
async fn a_stall_holds_bytes_and_ends_in_one_direction_and_loses_none() {
    let two = Two::new().await;
    let (mut one, mut other) = two.connect().await;
    two.proxy.stall(1, 2);
    say(&mut one, "held").await;
    say(&mut other, "not held").await;
    assert_eq!(hear(&mut one).await.unwrap(), "not held");
    assert_eq!(hear(&mut other).await, None);
    let (mut third, mut fourth) = two.connect().await;
    say(&mut third, "new").await;
    assert_eq!(hear(&mut fourth).await, None, "new connections are made, and are as mute");
    drop(one);
    assert_eq!(hear(&mut other).await, None, "no error, no end");
    two.proxy.heal_all();
    assert_eq!(hear(&mut other).await.unwrap(), "held");
    assert_eq!(hear(&mut other).await.unwrap(), "");
    assert_eq!(hear(&mut fourth).await.unwrap(), "new");
}

#[tokio::test]
async fn a_delay_moves_everything_by_the_same_time() {
    let two = Two::new().await;
    let (mut one, mut other) = two.connect().await;
    two.proxy.delay(1, 2, 2 * NOTHING);
    let start = Instant::now();
    say(&mut one, "late").await;
    say(&mut other, "at once").await;
    assert_eq!(hear(&mut one).await.unwrap(), "at once");
    assert!(start.elapsed() < 2 * NOTHING);
    let mut bytes = [0; 4];
    other.read_exact(&mut bytes).await.unwrap();
    assert!(start.elapsed() >= 2 * NOTHING);
    two.proxy.delay(1, 2, Duration::from_secs(3600));
    say(&mut one, "on its way").await;
    assert_eq!(hear(&mut other).await, None);
    two.proxy.heal(1, 2);
    assert_eq!(hear(&mut other).await.unwrap(), "on its way");
}

#[tokio::test]
async fn groups_are_cut_off_from_each_other() {
    let two = Two::new().await;
    two.proxy.partition(&[[1, 3].into(), [4].into()]);
    let (mut one, mut other) = two.connect().await;
    say(&mut one, "2 is in no group").await;
    assert_eq!(hear(&mut other).await.unwrap(), "2 is in no group");
    two.proxy.partition(&[[1, 3].into(), [2].into()]);
    assert_eq!(hear(&mut one).await.unwrap(), "");
}

#[tokio::test]
async fn a_dropped_network_breaks_everything() {
    let Two { proxy, address, server } = Two::new().await;
    let mut one = TcpStream::connect(address).await.unwrap();
    let mut other = server.accept().await.unwrap().0;
    drop(proxy);
    assert_eq!(hear(&mut one).await.unwrap(), "");
    assert_eq!(hear(&mut other).await.unwrap(), "");
    assert!(TcpStream::connect(address).await.is_err());
}

//! `large_answers ENDPOINT COUNT`: makes a znode with COUNT children whose names have 8,106 bytes. A session with an ephemeral lists them
//! and sends a request above the limit of a message. Prints what becomes of both, and of the session.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use client_sdk::{Client, Create, CreateMode, Options, Path, Write};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (endpoint, count) = (&args[0], args[1].parse::<usize>().unwrap());
    let maker = Client::connect([endpoint], Options::default()).await.unwrap();
    maker.create("/large", "", CreateMode::default()).await.unwrap();
    let mut pending = Vec::new();
    for i in 0..count {
        let path = Path::new(&format!("/large/{i:06}{}", "n".repeat(8100))).unwrap();
        pending.push(maker.submit(Write::Create(Create::new(path, ""))).await);
    }
    for made in pending {
        made.await.unwrap();
    }
    let reader = Client::connect([endpoint], Options::default()).await.unwrap();
    reader.create("/lock", "", CreateMode::EPHEMERAL).await.unwrap();
    // Behind the event that it is open.
    let (mut events, before) = (reader.events(), reader.session());
    let set = Write::Set { path: Path::new("/large").unwrap(), data: Some("x".into()), version: None };
    let write = reader.submit(set).await;
    println!("listed: {}", reader.children("/large").await.unwrap().0.len());
    println!("large request: {:?}", reader.set("/large", vec![0; 20 << 20], None).await.map(|_| ()));
    println!("write: {}", if write.await.is_ok() { "done" } else { "failed" });
    println!("session: {}", if reader.session() == before { "the same" } else { "another" });
    match tokio::time::timeout(Duration::from_secs(1), events.recv()).await {
        Ok(event) => println!("events: {event:?}"),
        Err(_) => println!("events: none"),
    }
}

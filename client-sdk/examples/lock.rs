//! `lock SECONDS PATH ENDPOINT...`: holds an ephemeral with a session time-out of SECONDS, and prints what its session is told. Each line
//! begins with the time since 1970 in seconds.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client_sdk::{Client, CreateMode, Options};

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let session_timeout = Duration::from_secs_f64(args[0].parse().unwrap());
    let options = Options { session_timeout, ..Options::default() };
    let client = Client::connect(&args[2..], options).await.unwrap();
    let mut events = client.events();
    client.create(&args[1], "held", CreateMode::EPHEMERAL).await.unwrap();
    println!("{:.3} created", now());
    while let Ok(event) = events.recv().await {
        println!("{:.3} {event:?}", now());
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

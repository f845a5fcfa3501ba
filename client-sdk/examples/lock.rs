//! Holds a lock, the simplest one: an ephemeral. Prints what its session is told, with times.
//!
//! ```text
//! cargo run -p client-sdk --example lock -- SECONDS PATH ENDPOINT...
//! ```
//!
//! Whoever gets `Suspended` has to stop acting on the lock: the ensemble may give it to another client from then on, and not
//! before.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use client_sdk::{Client, CreateMode, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: lock SECONDS PATH ENDPOINT...";
    let session_timeout = Duration::from_secs_f64(args.next().ok_or(usage)?.parse()?);
    let path = args.next().ok_or(usage)?;
    let client =
        Client::connect(args.collect::<Vec<_>>(), Options { session_timeout, ..Options::default() }).await?;
    let mut events = client.events();
    let mode = CreateMode { ephemeral: true, sequential: false };
    let (made, _) = client.create(path.as_str(), "held", mode).await?;
    let start = Instant::now();
    println!("0.000 created {made} session {:?}", client.session());
    loop {
        let event = events.recv().await?;
        println!("{:.3} {event:?}", start.elapsed().as_secs_f64());
    }
}

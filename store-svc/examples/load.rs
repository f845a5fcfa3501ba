//! The cost of one write in a store without its neighbours: `cargo run --release -p store-svc --example
//! load`.
//!
//! One stream with 1,024 writes of 100 B in flight, over loopback, on a quorum in memory. Prints writes
//! per second and the CPU time per write of the whole process, client included.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use api::PeerId;
use proto::v1::{self, coordination_client::CoordinationClient, request::Op};
use store_svc::{Config, StoreService, testing::MemoryQuorum};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;

const IN_FLIGHT: u64 = 1024;
const BATCH: u64 = 64;
const TIME: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let quorum = MemoryQuorum::new(PeerId(1));
    let store =
        StoreService::open(Config::new(PeerId(1), dir.path().to_owned()), quorum, shutdown.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(1 << 20)
        .add_service(store.coordination())
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let running = tokio::spawn(store.run());

    let mut client = CoordinationClient::connect(format!("http://{address}")).await.unwrap();
    let (out, requests) = mpsc::channel(64);
    let open = Some(v1::OpenSession { timeout_ms: 10_000, ..Default::default() });
    out.send(v1::SessionRequest { open, ..Default::default() }).await.unwrap();
    let mut answers = client.session(ReceiverStream::new(requests)).await.unwrap().into_inner();
    answers.message().await.unwrap();

    let data = bytes::Bytes::from(vec![7; 100]);
    let (start, cpu) = (Instant::now(), cpu_time());
    let (mut sent, mut answered) = (0u64, 0u64);
    loop {
        while sent + BATCH <= answered + IN_FLIGHT && start.elapsed() < TIME {
            let requests = (sent..sent + BATCH)
                .map(|n| {
                    let (path, data) = (format!("/node-{:04}", n % 1000), data.clone());
                    let op = match n {
                        0..1000 => {
                            Op::Create(v1::CreateRequest { path, data: Some(data), ..Default::default() })
                        }
                        _ => Op::Set(v1::SetRequest { path, data: Some(data), ..Default::default() }),
                    };
                    v1::Request { xid: n, write_number: n + 1, op: Some(op), ..Default::default() }
                })
                .collect();
            sent += BATCH;
            out.send(v1::SessionRequest { open: None, requests, acked_write: answered }).await.unwrap();
        }
        if sent == answered {
            break;
        }
        answered += answers.message().await.unwrap().unwrap().items.len() as u64;
    }
    let (time, cpu) = (start.elapsed(), cpu_time() - cpu);
    println!(
        "{:.0} writes/s, {:.2} us of CPU per write",
        answered as f64 / time.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / answered as f64
    );
    drop(out);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// CPU time of this process in user and system mode.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

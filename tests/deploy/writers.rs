//! Clients that write all the while, and know what has been acknowledged to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use api::ReadLevel;
use client_sdk::{Client, CreateMode, Options};
use tokio::task::JoinSet;

/// One znode for each writer, which alone writes there: so the version is the number of its writes that were carried out,
/// and has to be the number of those that were acknowledged. One lost, or carried out twice, shows.
pub(crate) struct Writers {
    acknowledged: Arc<[AtomicU64; 4]>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), String>>,
    reads: Arc<AtomicU64>,
}

impl Writers {
    /// Begins, with a session over all these endpoints.
    pub(crate) async fn start(endpoints: &[String]) -> Writers {
        let connect = async || {
            let options = Options { session_timeout: Duration::from_secs(30), ..Options::default() };
            Client::connect(endpoints.iter().cloned(), options).await.unwrap()
        };
        let mut writers = Writers {
            acknowledged: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
            reads: Arc::default(),
        };
        let client = connect().await;
        for key in 0..writers.acknowledged.len() {
            client.create(&path(key), "", CreateMode::default()).await.unwrap();
            writers.tasks.spawn(write(
                client.clone(),
                key,
                writers.acknowledged.clone(),
                writers.stop.clone(),
            ));
        }
        writers.tasks.spawn(read(
            connect().await,
            writers.acknowledged.clone(),
            writers.reads.clone(),
            writers.stop.clone(),
        ));
        writers
    }

    /// How many writes have been acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).sum()
    }

    /// Ends all; none may have seen a fault. Returns the number of acknowledged writes of each writer.
    pub(crate) async fn finish(mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap_or_else(|e| panic!("{e}"));
        }
        assert!(self.reads.load(Ordering::SeqCst) > 0, "nothing was read");
        self.acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect()
    }
}

/// Checks that this node has exactly the acknowledged writes.
pub(crate) async fn check(endpoint: &str, acknowledged: &[u64]) {
    let client = Client::connect([endpoint], Options::default()).await.unwrap();
    client.sync().await.unwrap();
    for (key, &writes) in acknowledged.iter().enumerate() {
        let (value, stat) = client.get(&path(key)).await.unwrap();
        let seen = (String::from_utf8_lossy(&value).into_owned(), u64::try_from(stat.version).unwrap());
        assert_eq!(seen, (writes.to_string(), writes), "{} at {endpoint}", path(key));
    }
    client.close().await.unwrap();
}

async fn write(
    client: Client,
    key: usize,
    acknowledged: Arc<[AtomicU64; 4]>,
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    let path = path(key);
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let stat = client.set(&path, n.to_string(), None).await.map_err(|e| format!("write {n}: {e}"))?;
        if i64::from(stat.version) != n {
            return Err(format!("write {n} to {path} made version {}", stat.version));
        }
        acknowledged[key].fetch_add(1, Ordering::SeqCst);
        // Many elections fit into the history, not many gigabytes.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A linearizable read is not older than any write that was acknowledged before the read was issued.
async fn read(
    client: Client,
    acknowledged: Arc<[AtomicU64; 4]>,
    reads: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Result<(), String> {
    let path = path(0);
    while !stop.load(Ordering::SeqCst) {
        let least = acknowledged[0].load(Ordering::SeqCst);
        // No answer is no fault of a read: there is no leader at times.
        if let Ok((_, stat)) = client.get_with(&path, ReadLevel::Linearizable).await {
            if u64::try_from(stat.version).is_ok_and(|version| version < least) {
                return Err(format!(
                    "read version {} of {path} after {least} was acknowledged",
                    stat.version
                ));
            }
            reads.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn path(key: usize) -> String {
    format!("/history-{key}")
}

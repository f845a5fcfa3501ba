//! What an application does with the crate zookeeper-client, against the hosts of the first argument. Prints what each step led to,
//! without what differs from one ensemble to the next (session ids, zxids, times), so that two ensembles can be compared by it.
//!
//! The line "kill leader" asks for that; a line comes back when the ensemble serves again.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};
use zookeeper_client::{
    Acls, AddWatchMode, Client, CreateMode, CreateOptions, Error, LockPrefix, MultiReadResult, Stat,
    WatchedEvent,
};

const PATIENCE: Duration = Duration::from_secs(60);
const OPEN: &CreateOptions<'static> = &CreateMode::Persistent.with_acls(Acls::anyone_all());
const EPHEMERAL: &CreateOptions<'static> = &CreateMode::Ephemeral.with_acls(Acls::anyone_all());

#[tokio::main]
async fn main() {
    let hosts = std::env::args().nth(1).expect("usage: tour HOSTS");
    timeout(4 * PATIENCE, tour(&hosts)).await.expect("the tour takes too long");
}

async fn tour(hosts: &str) {
    let (zk, other) = (open(hosts).await, open(hosts).await);
    basics(&zk).await;
    multis(&zk).await;
    watches(&zk, &other).await;
    access(hosts, &other).await;
    locks(hosts, &zk).await;
    sessions(hosts, &other).await;
}

async fn open(hosts: &str) -> Client {
    Client::connector().with_session_timeout(Duration::from_secs(15)).connect(hosts).await.expect("a session")
}

fn show(stat: &Stat) -> String {
    format!(
        "v{} c{} a{} length {} children {} ephemeral {} made==set {} made==listed {}",
        stat.version,
        stat.cversion,
        stat.aversion,
        stat.data_length,
        stat.num_children,
        stat.ephemeral_owner != 0,
        stat.czxid == stat.mzxid,
        stat.czxid == stat.pzxid
    )
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

fn stat(result: Result<Stat, Error>) -> Result<String, Error> {
    result.map(|stat| show(&stat))
}

async fn basics(zk: &Client) {
    println!("create: {:?}", stat(zk.create("/r", b"x", OPEN).await.map(|made| made.0)));
    println!("create again: {:?}", stat(zk.create("/r", b"x", OPEN).await.map(|made| made.0)));
    println!("create below nothing: {:?}", stat(zk.create("/none/a", b"x", OPEN).await.map(|made| made.0)));
    let sequential = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
    let (made, number) = zk.create("/r/s-", b"", &sequential).await.expect("a sequential znode");
    println!("sequential: {number} {}", show(&made));
    println!("ephemeral: {:?}", stat(zk.create("/r/e", b"", EPHEMERAL).await.map(|made| made.0)));
    println!("below an ephemeral: {:?}", stat(zk.create("/r/e/a", b"", OPEN).await.map(|made| made.0)));
    let container = CreateMode::Container.with_acls(Acls::anyone_all());
    println!("container: {:?}", stat(zk.create("/r/k", b"", &container).await.map(|made| made.0)));
    let ttl = CreateMode::Persistent.with_acls(Acls::anyone_all()).with_ttl(Duration::from_secs(600));
    println!("ttl: {:?}", stat(zk.create("/r/ttl", b"", &ttl).await.map(|made| made.0)));
    println!("directories: {:?}", zk.mkdir("/r/c/d/e", OPEN).await);
    println!("get: {:?}", zk.get_data("/r").await.map(|(data, stat)| (data, show(&stat))));
    println!("get nothing: {:?}", zk.get_data("/none").await.map(|(data, _)| data));
    println!("exists: {:?}", zk.check_stat("/r").await.map(|stat| stat.map(|stat| show(&stat))));
    println!("exists not: {:?}", zk.check_stat("/none").await.map(|stat| stat.is_some()));
    println!("set: {:?}", stat(zk.set_data("/r", b"yy", Some(0)).await));
    println!("set with an old version: {:?}", stat(zk.set_data("/r", b"z", Some(0)).await));
    println!("list: {:?}", zk.list_children("/r").await.map(sorted));
    println!("children: {:?}", zk.get_children("/r").await.map(|(names, stat)| (sorted(names), show(&stat))));
    println!("all below: {:?}", zk.count_descendants_number("/r").await);
    println!("ephemerals: {:?}", zk.list_ephemerals("/r").await);
    println!("sync: {:?}", zk.sync("/r").await);
    println!("delete with children: {:?}", zk.delete("/r", None).await);
    println!("delete with an old version: {:?}", zk.delete("/r/e", Some(7)).await);
    println!("delete nothing: {:?}", zk.delete("/none", None).await);
    let below = zk.clone().chroot("/r/c").expect("a root of its own");
    println!("with a root of its own: {:?}", below.list_children("/").await);
    let pipelined: Vec<_> = (0..1000).map(|_| zk.set_data("/r", b"p", None)).collect();
    let mut versions = Vec::new();
    for set in pipelined {
        versions.push(set.await.expect("a set").version);
    }
    println!("pipelined: {} in order {}", versions.len(), versions.is_sorted());
}

async fn multis(zk: &Client) {
    let mut writer = zk.new_multi_writer();
    writer.add_create("/m", b"1", OPEN).expect("a part");
    writer.add_check_version("/m", 0).expect("a part");
    writer.add_set_data("/m", b"2", Some(0)).expect("a part");
    writer.add_create("/m/a", b"", EPHEMERAL).expect("a part");
    writer.add_delete("/m/a", None).expect("a part");
    println!("multi: {:?}", writer.commit().await.map(|results| results.len()));
    let mut writer = zk.new_multi_writer();
    writer.add_set_data("/m", b"3", None).expect("a part");
    writer.add_check_version("/m", 7).expect("a part");
    writer.add_delete("/m", None).expect("a part");
    println!("multi that fails: {:?}", writer.commit().await.map(|results| results.len()));
    println!("nothing of it is done: {:?}", zk.get_data("/m").await.map(|(data, stat)| (data, show(&stat))));
    let mut reader = zk.new_multi_reader();
    reader.add_get_data("/m").expect("a part");
    reader.add_get_data("/none").expect("a part");
    reader.add_get_children("/m").expect("a part");
    let results = reader.commit().await.expect("a reply");
    for result in results {
        match result {
            MultiReadResult::Data { data, stat } => println!("read: {data:?} {}", show(&stat)),
            MultiReadResult::Children { children } => println!("read: {children:?}"),
            MultiReadResult::Error { err } => println!("read: {err:?}"),
            _ => println!("read: something else"),
        }
    }
}

fn seen(event: &WatchedEvent) -> String {
    format!("{:?} {:?} {}", event.event_type, event.session_state, event.path)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

async fn watches(zk: &Client, other: &Client) {
    let (none, exists) = zk.check_and_watch_stat("/w").await.expect("a reply");
    println!("watch nothing: {}", none.is_none());
    other.create("/w", b"1", OPEN).await.expect("a create");
    println!("event: {}", seen(&soon(exists.changed()).await));
    let (_, _, data) = zk.get_and_watch_data("/w").await.expect("a reply");
    other.set_data("/w", b"2", None).await.expect("a set");
    println!("event: {}", seen(&soon(data.changed()).await));
    let (_, _, children) = zk.get_and_watch_children("/w").await.expect("a reply");
    other.create("/w/a", b"", OPEN).await.expect("a create");
    println!("event: {}", seen(&soon(children.changed()).await));
    let mut below = zk.watch("/w", AddWatchMode::PersistentRecursive).await.expect("a watch");
    other.set_data("/w/a", b"1", None).await.expect("a set");
    other.create("/w/a/b", b"", OPEN).await.expect("a create");
    other.delete("/w/a/b", None).await.expect("a delete");
    other.set_data("/w", b"3", None).await.expect("a set");
    for _ in 0..4 {
        println!("event below: {}", seen(&soon(below.changed()).await));
    }
    drop(below);
    other.set_data("/w", b"4", None).await.expect("a set");
}

async fn access(hosts: &str, other: &Client) {
    let ann = open(hosts).await;
    println!("identity: {:?}", ann.auth("digest", b"ann:x").await);
    let mine = CreateMode::Persistent.with_acls(Acls::creator_all());
    println!("mine: {:?}", stat(ann.create("/a", b"mine", &mine).await.map(|made| made.0)));
    let list = ann.get_acl("/a").await.map(|(acl, stat)| (format!("{acl:?}"), show(&stat)));
    println!("list: {list:?}");
    other.sync("/a").await.expect("a sync");
    println!("get without rights: {:?}", other.get_data("/a").await.map(|(data, _)| data));
    println!("set without rights: {:?}", stat(other.set_data("/a", b"", None).await));
    println!("nobody: {:?}", stat(other.create("/a2", b"", &mine).await.map(|made| made.0)));
    println!("read by all: {:?}", stat(ann.set_acl("/a", &Acls::anyone_read(), Some(0)).await));
    other.sync("/a").await.expect("a sync");
    println!("get with rights: {:?}", other.get_data("/a").await.map(|(data, _)| data));
    println!("delete: {:?}", ann.delete("/a", None).await);
}

async fn locks(hosts: &str, zk: &Client) {
    zk.mkdir("/locks", OPEN).await.expect("a directory");
    zk.create("/count", b"0", OPEN).await.expect("a create");
    let held = Arc::new(AtomicBool::new(false));
    let mut all = Vec::new();
    for _ in 0..4 {
        let (client, held) = (open(hosts).await, Arc::clone(&held));
        all.push(tokio::spawn(async move {
            for _ in 0..5 {
                let prefix = LockPrefix::new_curator("/locks", "lock-").expect("a prefix");
                let lock = soon(client.lock(prefix, b"", Acls::anyone_all())).await.expect("a lock");
                assert!(!held.swap(true, SeqCst), "only one holds the lock");
                let count: u32 = read_count(&client).await;
                client.set_data("/count", (count + 1).to_string().as_bytes(), None).await.expect("a set");
                held.store(false, SeqCst);
                drop(lock);
            }
        }));
    }
    for one in all {
        one.await.expect("a client with locks");
    }
    println!("counted under a lock: {}", read_count(zk).await);
}

async fn read_count(client: &Client) -> u32 {
    client.sync("/count").await.expect("a sync");
    let (data, _) = client.get_data("/count").await.expect("a get");
    String::from_utf8(data).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// Until the outcome is known, as the connection may be lost.
async fn retried<T, F: Future<Output = Result<T, Error>>>(mut call: impl FnMut() -> F) -> Result<T, Error> {
    loop {
        match call().await {
            Err(Error::ConnectionLoss) => sleep(Duration::from_millis(50)).await,
            known => return known,
        }
    }
}

async fn sessions(hosts: &str, other: &Client) {
    let zk = open(hosts).await;
    zk.create("/f", b"", OPEN).await.expect("a create");
    zk.create("/f/e", b"", EPHEMERAL).await.expect("a create");
    let id = zk.session_id().to_string();
    for kill in 0..2 {
        println!("kill leader");
        let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
        assert!(line.is_ok_and(|line| line.is_ok_and(|length| length > 0)), "nobody kills");
        for n in 0..50 {
            let path = format!("/f/{kill}-{n:02}");
            match retried(|| zk.create(&path, b"", OPEN)).await {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(e) => println!("create: {e:?}"),
            }
        }
    }
    println!("children: {:?}", retried(|| zk.list_children("/f")).await.map(|names| names.len()));
    let owner = retried(|| zk.check_stat("/f/e")).await.map(|stat| stat.map(|stat| stat.ephemeral_owner));
    let owner = owner.ok().flatten().map(|owner| format!("{owner:#x}"));
    println!(
        "the ephemeral of the session: {}",
        owner.as_ref() == Some(&id) && id == zk.session_id().to_string()
    );
    drop(zk);
    while retried(|| other.check_stat("/f/e")).await.expect("a reply").is_some() {
        sleep(Duration::from_millis(50)).await;
    }
    println!("closed, and its ephemeral is gone");
}

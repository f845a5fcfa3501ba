//! The cost of many znodes in the core, in memory and time:
//! `cargo run --release -p store-core --example million [ZNODES] [in-order|shuffled|one-parent]`.
//!
//! Creates znodes of 100 B with paths of 31 bytes, as from a log. Changes all of them, lists them, and
//! writes the records to a file. Loads that file in a process of its own, as a starting node does.
//! Times are CPU time of the thread, which other work on the machine disturbs least.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    env, fs,
    io::{Read as _, Write as _},
    process,
    time::Duration,
};

use api::{Command, CommandBody, Create, Epoch, Page, Path, Read, ReadOutcome, Write, Zxid, record::Record};
use bytes::{Bytes, BytesMut};
use proto::store::{RecordDecoder, append_record, encode_record};
use rustix::time::{ClockId, clock_gettime};
use store_core::{Loader, State};

/// Number of children of one parent, except in the shape `one-parent`.
const GROUP: u32 = 1000;
/// Number of writes between two checkpoints.
const CHECKPOINT: u32 = 100_000;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let arg = |n: usize, default: &str| args.get(n).cloned().unwrap_or(default.into());
    if arg(0, "") == "load" {
        return load(&arg(1, ""));
    }
    let (znodes, shape) = (arg(0, "1000000").parse().unwrap(), arg(1, "in-order"));
    println!("{znodes} znodes, {shape}");
    let file = env::temp_dir().join(format!("quorate-million-{}", process::id()));
    grow(znodes, &shape, &file);
    let loaded = process::Command::new(env::current_exe().unwrap()).arg("load").arg(&file).status();
    fs::remove_file(&file).unwrap();
    assert!(loaded.unwrap().success());
}

fn grow(znodes: u32, shape: &str, file: &std::path::Path) {
    let path = |n: u32| {
        let n = if shape == "shuffled" { (u64::from(n) * 7_368_787 % u64::from(znodes)) as u32 } else { n };
        let group = if shape == "one-parent" { 0 } else { n / GROUP };
        Path::new(&format!("/bench/group-{group:07}/node-{n:09}")).unwrap()
    };
    let create = |path| Write::Create(Create::new(path, vec![b'x'; 100]));
    let mut log = Log { state: State::default(), zxid: 0, times: Vec::with_capacity(znodes as usize) };
    log.write(create(Path::new("/bench").unwrap()));
    let groups = if shape == "one-parent" { 1 } else { znodes.div_ceil(GROUP) };
    for group in 0..groups {
        log.write(create(Path::new(&format!("/bench/group-{group:07}")).unwrap()));
    }
    log.times.clear();
    let before = rss();
    for n in 0..znodes {
        log.write(create(path(n)));
        if n % CHECKPOINT == 0 {
            drop(log.state.take_dirty());
        }
    }
    let grown = rss();
    log.report("create", znodes);
    println!(
        "memory:    {:>6.1} MiB, {:.0} B a znode; {:.0} of them are path and value",
        mib(grown),
        (grown - before) as f64 / f64::from(znodes),
        log.state.tree().bytes() as f64 / f64::from(znodes)
    );

    let values = [vec![b'y'; 100], vec![b'z'; 101]].map(Bytes::from);
    for n in 0..znodes {
        let data = Some(values[n as usize % 2].clone());
        log.write(Write::Set { path: path(n), data, version: None });
        if n % CHECKPOINT == 0 {
            drop(log.state.take_dirty());
        }
    }
    log.report("set", znodes);

    let began = now();
    for n in 0..znodes {
        log.state.read(&Read::Get { path: path(n) }).unwrap();
    }
    println!("get:       {:>6.0} ns", (now() - began).as_nanos() as f64 / f64::from(znodes));

    let (began, mut listed) = (now(), 0);
    for group in 0..groups {
        let parent = Path::new(&format!("/bench/group-{group:07}")).unwrap();
        let mut page = Page::default();
        loop {
            let read = Read::Children { path: parent.clone(), page: page.clone() };
            let Ok(ReadOutcome::Children { names, next, .. }) = log.state.read(&read) else { panic!() };
            listed += names.len();
            if next.is_empty() {
                break;
            }
            page.after = next;
        }
    }
    assert_eq!(listed, znodes as usize);
    println!("list:      {:>6.0} ns a name", (now() - began).as_nanos() as f64 / f64::from(znodes));

    let (began, mut out) = (now(), fs::File::create(file).unwrap());
    let mut piece = BytesMut::new();
    for record in log.state.records() {
        append_record(&mut piece, &encode_record(record));
        if piece.len() >= 1 << 20 {
            out.write_all(&piece.split()).unwrap();
        }
    }
    out.write_all(&piece).unwrap();
    println!("export:    {:>6.2} s, {:.1} MiB afterwards", (now() - began).as_secs_f64(), mib(rss()));

    for n in 0..znodes {
        log.write(Write::Delete { path: path(n), version: None });
        if n % CHECKPOINT == 0 {
            drop(log.state.take_dirty());
        }
    }
    drop(log.state.take_dirty());
    log.report("delete", znodes);
    println!("memory:    {:>6.1} MiB with nothing left", mib(rss()));
}

fn load(file: &str) {
    let (before, began) = (rss(), now());
    let (mut decoder, mut loader) = (RecordDecoder::default(), Loader::default());
    let (mut file, mut piece) = (fs::File::open(file).unwrap(), vec![0; 1 << 20]);
    // The time of the loader alone.
    let mut taking = Duration::ZERO;
    loop {
        let read = file.read(&mut piece).unwrap();
        decoder.push(&piece[..read]);
        let mut records: Vec<Record> = Vec::new();
        while let Some(record) = decoder.next_record().unwrap() {
            records.push(record);
        }
        let began = now();
        records.into_iter().for_each(|record| loader.take(record).unwrap());
        taking += now() - began;
        if read == 0 {
            break;
        }
    }
    let finishing = now();
    let state = loader.finish().unwrap();
    println!(
        "load:      {:>6.2} s, {:.2} s of them the tree's; {:.1} MiB, {:.0} B a znode",
        (now() - began).as_secs_f64(),
        (taking + now() - finishing).as_secs_f64(),
        mib(rss()),
        (rss() - before) as f64 / state.tree().len() as f64
    );
}

/// A state, and the duration of each write.
struct Log {
    state: State,
    zxid: u32,
    times: Vec<Duration>,
}

impl Log {
    fn write(&mut self, write: Write) {
        self.zxid += 1;
        let command = Command::outside(CommandBody::Write(write));
        let began = now();
        let applied = self.state.apply(Zxid::new(Epoch(1), self.zxid), 0, &command);
        self.times.push(now() - began);
        applied.result.unwrap();
    }

    fn report(&mut self, what: &str, count: u32) {
        let total: Duration = self.times.iter().sum();
        self.times.sort_unstable();
        println!(
            "{:<10} {:>6.0} ns, {:.0}/s; longest {:.2} ms, then {:.2} ms",
            format!("{what}:"),
            total.as_nanos() as f64 / f64::from(count),
            f64::from(count) / total.as_secs_f64(),
            self.times[self.times.len() - 1].as_secs_f64() * 1e3,
            self.times[self.times.len() - 2].as_secs_f64() * 1e3,
        );
        self.times.clear();
    }
}

/// CPU time used by this thread.
fn now() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Resident memory of this process in bytes.
fn rss() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

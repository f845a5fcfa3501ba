//! ZooKeeper's four letter words: a client that sends one instead of a first frame receives a text, and the connection
//! closes. The field names are ZooKeeper's, so that existing monitors work.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    str::FromStr,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use api::{
    Path, Read, ReadLevel,
    ports::{Caller, Coordination},
    session::{Op, Request},
};
use serde_json::{Value, json};
use telemetry::metrics;

use crate::{Gateway, stats::Connection};

/// Data of a node that the port does not provide. The output omits fields that are `None`.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Facts {
    /// `leader`, `follower`, `observer` or `standalone`.
    pub mode: Option<&'static str>,
    /// Whether the node serves clients.
    pub serving: bool,
    /// The last applied zxid.
    pub zxid: u64,
    /// Number of znodes.
    pub znodes: Option<u64>,
    /// Open sessions of the ensemble.
    pub sessions: Option<u64>,
    /// Bytes of the state on disk, and of the log.
    pub on_disk: Option<(u64, u64)>,
    /// The digest of the state.
    pub digest: Option<u64>,
    /// The leader, and its address for clients.
    pub leader: Option<(u32, String)>,
    /// Additional names and values for `mntr`.
    pub more: Vec<(String, String)>,
}

/// The enabled words; others are rejected by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Words(Vec<&'static str>);

/// The error for a list with an unknown word.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no four letter word that is known; give some of {known}, with commas between them, or *", known = ALL.join(", "))]
pub struct WordsError(String);

impl Default for Words {
    /// The words that reveal nothing about clients or files.
    fn default() -> Words {
        Words(vec!["envi", "isro", "ruok", "srvr"])
    }
}

impl FromStr for Words {
    type Err = WordsError;

    /// Parses words separated by commas; `*` enables all.
    fn from_str(text: &str) -> Result<Words, WordsError> {
        if text.trim() == "*" {
            return Ok(Words(ALL.to_vec()));
        }
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let known = |word: &str| {
            ALL.into_iter().find(|known| *known == word).ok_or_else(|| WordsError(word.to_owned()))
        };
        words.map(known).collect::<Result<_, _>>().map(Words)
    }
}

impl Words {
    /// Whether the word is enabled.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Whether these first bytes of a connection ask for a text.
pub(crate) fn is_word(first: [u8; 4]) -> bool {
    ALL.iter().any(|word| word.as_bytes() == first)
}

/// The answer to a word. `mask` is the argument of `stmk`, which no other word has.
pub(crate) async fn answer<C: Coordination>(gateway: &Gateway<C>, word: &str, mask: Option<i64>) -> String {
    metrics::GATEWAY_WORDS.add(1);
    let shared = &gateway.shared;
    if !shared.config.words.has(word) {
        return format!("{word} is not executed because it is not in the whitelist.\n");
    }
    let stats = &shared.stats;
    match word {
        "ruok" => "imok".to_owned(),
        "gtmk" => stats.trace_mask.load(Relaxed).to_string(),
        "stmk" => {
            let mask = mask.unwrap_or(TRACE_MASK);
            stats.trace_mask.store(mask, Relaxed);
            mask.to_string()
        }
        "crst" => {
            stats.connections().iter().for_each(|connection| connection.traffic.reset());
            "Connection stats reset.\n".to_owned()
        }
        "srst" => {
            stats.all.reset();
            "Server stats reset.\n".to_owned()
        }
        "conf" => lines(shared.config.settings.iter().map(|(name, value)| format!("{name}={value}"))),
        "envi" => {
            "Environment:\n".to_owned() + &lines(environment().map(|(name, value)| format!("{name}={value}")))
        }
        "wchs" => {
            let (watched, count) = stats.watched();
            let paths: BTreeSet<&String> = watched.values().flatten().collect();
            let (sessions, paths) = (watched.len(), paths.len());
            format!("{sessions} connections watching {paths} paths\nTotal watches:{count}\n")
        }
        "wchc" => {
            grouped(stats.watched().0.into_iter().map(|(session, paths)| (format!("0x{session:x}"), paths)))
        }
        "wchp" => grouped(by_path(stats.watched().0, |session| format!("0x{session:x}"))),
        "cons" => lines(stats.connections().iter().map(|connection| long(connection))) + "\n",
        _ => match facts(gateway).await {
            Some(facts) => of_facts(gateway, word, &facts),
            None if word == "isro" => "null".to_owned(),
            None => "This ZooKeeper instance is not currently serving requests\n".to_owned(),
        },
    }
}

/// Returns `None` while clients are not served.
pub(crate) async fn facts<C: Coordination>(gateway: &Gateway<C>) -> Option<Facts> {
    if let Some(about) = &gateway.shared.about {
        return Some(about().await).filter(|facts| facts.serving);
    }
    let read = Op::Read(Read::Exists { path: Path::root() }, ReadLevel::Stale);
    let (response, _held) = gateway.store.call(Caller::default(), Request::new(0, read)).await.ok()?;
    let serving = !response.leaderless;
    Some(Facts { serving, zxid: response.zxid.0, ..Facts::default() }).filter(|facts| facts.serving)
}

fn of_facts<C>(gateway: &Gateway<C>, word: &str, facts: &Facts) -> String {
    let stats = &gateway.shared.stats;
    match word {
        "isro" => "rw".to_owned(),
        "srvr" => format!("Zookeeper version: {VERSION}\n") + &server(gateway, facts),
        "stat" => {
            let clients = lines(stats.connections().iter().map(|connection| short(connection)));
            format!("Zookeeper version: {VERSION}\nClients:\n{clients}\n") + &server(gateway, facts)
        }
        "mntr" => {
            lines(monitored(gateway, facts).into_iter().map(|(name, value)| format!("zk_{name}\t{value}")))
        }
        "hash" => match facts.digest {
            Some(digest) => format!("zxid: 0x{:x}, digest: {digest}\n", facts.zxid),
            None => String::new(),
        },
        "dirs" => {
            let (data, log) = facts.on_disk.unwrap_or_default();
            format!("datadir_size: {data}\nlogdir_size: {log}\n")
        }
        _ => dump(&stats.connections()),
    }
}

fn server<C>(gateway: &Gateway<C>, facts: &Facts) -> String {
    let stats = &gateway.shared.stats;
    let latency = stats.all.latency();
    let (alive, outstanding) = stats.alive();
    let mut text = format!(
        "Latency min/avg/max: {}/{:.4}/{}\nReceived: {}\nSent: {}\nConnections: {alive}\nOutstanding: {outstanding}\nZxid: 0x{:x}\n",
        latency.min,
        latency.average,
        latency.max,
        stats.all.received.load(Relaxed),
        stats.all.sent.load(Relaxed),
        facts.zxid
    );
    // Writing to a string does not fail.
    let _ = writeln!(text, "Mode: {}", facts.mode.unwrap_or("follower"));
    if let Some(znodes) = facts.znodes {
        let _ = writeln!(text, "Node count: {znodes}");
    }
    text
}

/// Names and values of `mntr`.
pub(crate) fn monitored<C>(gateway: &Gateway<C>, facts: &Facts) -> Vec<(String, Value)> {
    let stats = &gateway.shared.stats;
    let latency = stats.all.latency();
    let (alive, outstanding) = stats.alive();
    let uptime = u64::try_from(stats.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let always = [
        ("version", json!(VERSION)),
        ("server_state", json!(facts.mode.unwrap_or("follower"))),
        ("avg_latency", json!((latency.average * 1e4).round() / 1e4)),
        ("min_latency", json!(latency.min)),
        ("max_latency", json!(latency.max)),
        ("packets_received", json!(stats.all.received.load(Relaxed))),
        ("packets_sent", json!(stats.all.sent.load(Relaxed))),
        ("num_alive_connections", json!(alive)),
        ("outstanding_requests", json!(outstanding)),
        ("watch_count", json!(stats.watched().1)),
        ("uptime", json!(uptime)),
    ];
    let known = [("znode_count", facts.znodes), ("global_sessions", facts.sessions)];
    let known = known.into_iter().filter_map(|(name, value)| Some((name, json!(value?))));
    let all = always.into_iter().chain(known).map(|(name, value)| (name.to_owned(), value));
    all.chain(facts.more.iter().map(|(name, value)| (name.clone(), json!(value)))).collect()
}

/// The watchers of each path.
pub(crate) fn by_path<T>(
    watched: BTreeMap<i64, BTreeSet<String>>,
    session: impl Fn(i64) -> T,
) -> BTreeMap<String, Vec<T>> {
    let mut all: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (id, paths) in watched {
        paths.into_iter().for_each(|path| all.entry(path).or_default().push(session(id)));
    }
    all
}

fn grouped<I: IntoIterator<Item = String>>(groups: impl IntoIterator<Item = (String, I)>) -> String {
    let text = |(head, items): (String, I)| {
        items.into_iter().fold(head + "\n", |text, item| text + "\t" + &item + "\n")
    };
    groups.into_iter().map(text).collect()
}

fn dump(connections: &[std::sync::Arc<Connection>]) -> String {
    let sessions = connections.iter().filter(|connection| connection.session.load(Relaxed) != 0);
    let sessions = lines(sessions.map(|connection| {
        let timeout = Duration::from_millis(connection.timeout_ms.load(Relaxed));
        format!("0x{:x}\t{}ms", connection.session.load(Relaxed), timeout.as_millis())
    }));
    let all = lines(connections.iter().map(|connection| short(connection)));
    format!("Sessions of this server's connections:\n{sessions}Connections dump:\n{all}")
}

/// Names and values of `envi`.
pub(crate) fn environment() -> [(&'static str, &'static str); 3] {
    [("zookeeper.version", VERSION), ("os.name", std::env::consts::OS), ("os.arch", std::env::consts::ARCH)]
}

fn short(connection: &Connection) -> String {
    let Connection { address, traffic, queued, .. } = connection;
    let [queued, received, sent] = [queued, &traffic.received, &traffic.sent].map(|n| n.load(Relaxed));
    format!(" /{address}[1](queued={queued},recved={received},sent={sent})")
}

fn long(connection: &Connection) -> String {
    let session = connection.session.load(Relaxed);
    let text = short(connection);
    if session == 0 {
        return text;
    }
    let latency = connection.traffic.latency();
    format!(
        "{},sid=0x{session:x},lop={},est={},to={},lcxid=0x{:x},lzxid=0x{:x},lresp={},llat={},minlat={},avglat={:.0},maxlat={})",
        text.trim_end_matches(')'),
        name(connection.last_op.load(Relaxed)),
        connection.established_ms,
        connection.timeout_ms.load(Relaxed),
        connection.last_xid.load(Relaxed),
        connection.last_zxid.load(Relaxed),
        connection.last_answer_ms.load(Relaxed),
        connection.last_latency_ms.load(Relaxed),
        latency.min,
        latency.average,
        latency.max
    )
}

/// The name of an operation in `cons`.
pub(crate) fn name(op: i64) -> &'static str {
    match op {
        1 | 15 | 19 | 21 => "CREA",
        2 => "DELE",
        3 => "EXIS",
        4 => "GETD",
        5 => "SETD",
        6 => "GETA",
        7 => "SETA",
        8 => "GETC",
        9 => "SYNC",
        11 => "PING",
        12 => "GETC",
        14 | 22 => "MULT",
        101 | 105 => "SETW",
        -10 => "SESS",
        -11 => "CLOS",
        _ => "NA",
    }
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

/// A ZooKeeper version that has these words, because monitors check it.
pub(crate) const VERSION: &str =
    concat!("3.9.5-quorate-", env!("CARGO_PKG_VERSION"), ", built on 01/01/2026 00:00 UTC");

/// ZooKeeper's default mask of trace lines: requests, packets of servers, sessions and warnings. Quorate has no such
/// lines; it only keeps the mask for `gtmk`.
pub(crate) const TRACE_MASK: i64 = 0b1_0011_0010;

const ALL: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst", "srvr",
    "stat", "stmk", "wchc", "wchp", "wchs",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_others_are_refused_by_name() {
        assert_eq!("ruok, srvr".parse::<Words>().map(|w| w.to_string()), Ok("ruok,srvr".to_owned()));
        assert_eq!("".parse(), Ok(Words(vec![])));
        assert_eq!("*".parse(), Ok(Words(ALL.to_vec())));
        let e = "ruok,kill".parse::<Words>().unwrap_err().to_string();
        assert!(e.contains("\"kill\" is no") && e.contains("mntr"), "{e}");
    }
}

//! The commands of ZooKeeper's AdminServer under `/commands/NAME`: the data of the four letter words as JSON with the
//! same names.

use std::sync::atomic::Ordering::Relaxed;

use api::ports::Coordination;
use serde_json::{Map, Value, json};

use crate::{
    Gateway,
    stats::Connection,
    words::{self, Facts, VERSION, by_path, environment, facts, monitored},
};

/// The answer to a command.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON; HTML for the list of commands.
    pub text: String,
}

/// Commands, their short name, and the four letter word that enables them.
const COMMANDS: [(&str, &str, &str); 17] = [
    ("configuration", "conf", "conf"),
    ("connection_stat_reset", "crst", "crst"),
    ("connections", "cons", "cons"),
    ("dirs", "dirs", "dirs"),
    ("dump", "dump", "dump"),
    ("environment", "envi", "envi"),
    ("get_trace_mask", "gtmk", "gtmk"),
    ("hash", "hash", "hash"),
    ("is_read_only", "isro", "isro"),
    ("leader", "lead", "srvr"),
    ("monitor", "mntr", "mntr"),
    ("ruok", "ruok", "ruok"),
    ("server_stats", "srvr", "srvr"),
    ("stat_reset", "srst", "srst"),
    ("stats", "stat", "stat"),
    ("watch_summary", "wchs", "wchs"),
    ("watches", "wchc", "wchc"),
];
const BY_PATH: (&str, &str, &str) = ("watches_by_path", "wchp", "wchp");

impl<C: Coordination> Gateway<C> {
    /// Answers a command by its name; lists all for the empty name. A command is enabled if its word is.
    pub async fn command(&self, name: &str) -> Answer {
        if name.is_empty() {
            let link =
                |(name, ..): (&str, &str, &str)| format!("<a href=\"/commands/{name}\">{name}</a>\n<br/>\n");
            return Answer { status: 200, text: all().map(link).collect() };
        }
        let Some((name, _, word)) = all().find(|(long, short, _)| *long == name || *short == name) else {
            // The answer does not repeat text of the client.
            return json_of(
                404,
                "unknown",
                Map::new(),
                Some("Unknown command; /commands lists them".to_owned()),
            );
        };
        if !self.shared.config.words.has(word) {
            let why = format!("not allowed; add {word} to `zookeeper.words`");
            return json_of(403, name, Map::new(), Some(why));
        }
        let facts = facts(self).await;
        match self.fields(name, facts.as_ref()) {
            Some(fields) => json_of(200, name, fields, None),
            None => json_of(
                503,
                name,
                Map::new(),
                Some("This ZooKeeper instance is not currently serving requests".to_owned()),
            ),
        }
    }

    /// Returns `None` for data that only a serving node has.
    fn fields(&self, name: &str, facts: Option<&Facts>) -> Option<Map<String, Value>> {
        let stats = &self.shared.stats;
        let fields = match name {
            "ruok" => json!({}),
            "get_trace_mask" => json!({"tracemask": stats.trace_mask.load(Relaxed)}),
            "stat_reset" => {
                stats.all.reset();
                json!({})
            }
            "connection_stat_reset" => {
                stats.connections().iter().for_each(|connection| connection.traffic.reset());
                json!({})
            }
            "configuration" => {
                self.shared.config.settings.iter().map(|(name, value)| setting(name, value)).collect()
            }
            "environment" => {
                environment().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
            }
            "connections" => self.connections(),
            "watch_summary" => {
                let (watched, count) = stats.watched();
                let paths: std::collections::BTreeSet<&String> = watched.values().flatten().collect();
                json!({"num_connections": watched.len(), "num_paths": paths.len(), "num_total_watches": count})
            }
            "watches" => json!({"session_id_to_watched_paths": stats.watched().0}),
            "watches_by_path" => {
                json!({"path_to_session_ids": by_path(stats.watched().0, |session| session)})
            }
            "dump" => {
                let all = stats.connections();
                let sessions: Vec<i64> =
                    all.iter().map(|c| c.session.load(Relaxed)).filter(|id| *id != 0).collect();
                json!({"sessions_of_connections": sessions})
            }
            "is_read_only" => json!({"read_only": facts.is_none()}),
            _ => self.of_facts(name, facts?),
        };
        match fields {
            Value::Object(fields) => Some(fields),
            _ => None,
        }
    }

    fn of_facts(&self, name: &str, facts: &Facts) -> Value {
        match name {
            "monitor" => monitored(self, facts).into_iter().collect(),
            "dirs" => {
                let (data, log) = facts.on_disk.unwrap_or_default();
                json!({"datadir_size": data, "logdir_size": log})
            }
            "hash" => {
                let digest = facts.digest.map(|digest| json!({"zxid": facts.zxid, "digest": digest}));
                json!({"digests": digest.into_iter().collect::<Vec<_>>()})
            }
            "leader" => {
                let is_leader = matches!(facts.mode, Some("leader" | "standalone"));
                let (id, address) = facts.leader.clone().unzip();
                json!({"is_leader": is_leader, "leader_id": id, "leader_ip": address})
            }
            "stats" => {
                let Value::Object(mut fields) = self.server(facts) else { return Value::Null };
                if let Value::Object(connections) = self.connections() {
                    fields.extend(connections);
                }
                Value::Object(fields)
            }
            _ => self.server(facts),
        }
    }

    fn server(&self, facts: &Facts) -> Value {
        let stats = &self.shared.stats;
        let (latency, (alive, outstanding)) = (stats.all.latency(), stats.alive());
        json!({
            "version": VERSION,
            "read_only": false,
            "server_stats": {
                "packets_sent": stats.all.sent.load(Relaxed),
                "packets_received": stats.all.received.load(Relaxed),
                "uptime": u64::try_from(stats.started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "server_state": facts.mode.unwrap_or("follower"),
                "last_processed_zxid": facts.zxid,
                "outstanding_requests": outstanding,
                "avg_latency": latency.average,
                "max_latency": latency.max,
                "min_latency": latency.min,
                "num_alive_client_connections": alive,
            },
            "node_count": facts.znodes,
        })
    }

    fn connections(&self) -> Value {
        let all: Vec<Value> =
            self.shared.stats.connections().iter().map(|connection| described(connection)).collect();
        json!({"connections": all, "secure_connections": []})
    }
}

fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    COMMANDS.into_iter().chain([BY_PATH])
}

/// ZooKeeper ends each answer like this.
fn json_of(status: u16, name: &str, mut fields: Map<String, Value>, error: Option<String>) -> Answer {
    fields.insert("command".to_owned(), json!(name));
    fields.insert("error".to_owned(), json!(error));
    // This fails only for a map with keys that are not text.
    let text = serde_json::to_string_pretty(&fields).unwrap_or_default();
    Answer { status, text: text + "\n" }
}

/// `conf` writes `clientPort`, the AdminServer `client_port`; numbers become JSON numbers.
fn setting(name: &str, value: &str) -> (String, Value) {
    let mut key = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            key.push('_');
        }
        key.push(c.to_ascii_lowercase());
    }
    (key, value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number)))
}

fn described(connection: &Connection) -> Value {
    let Connection { address, traffic, queued, .. } = connection;
    let latency = traffic.latency();
    let mut fields = json!({
        "remote_socket_address": address.to_string(),
        "outstanding_requests": queued.load(Relaxed),
        "packets_received": traffic.received.load(Relaxed),
        "packets_sent": traffic.sent.load(Relaxed),
    });
    let session = connection.session.load(Relaxed);
    if session != 0
        && let Value::Object(fields) = &mut fields
    {
        let more = [
            ("session_id", json!(session)),
            ("last_operation", json!(words::name(connection.last_op.load(Relaxed)))),
            ("established", json!(connection.established_ms)),
            ("session_timeout", json!(connection.timeout_ms.load(Relaxed))),
            ("last_cxid", json!(connection.last_xid.load(Relaxed))),
            ("last_zxid", json!(connection.last_zxid.load(Relaxed))),
            ("last_response_time", json!(connection.last_answer_ms.load(Relaxed))),
            ("last_latency", json!(connection.last_latency_ms.load(Relaxed))),
            ("min_latency", json!(latency.min)),
            ("avg_latency", json!(latency.average)),
            ("max_latency", json!(latency.max)),
        ];
        fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    fields
}

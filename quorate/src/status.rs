//! `quorate status`: every member about itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use api::{
    Ensemble, EnsembleId, Member, PeerId, Zxid,
    ports::{Role, Room},
};
use client_sdk::{NodeMember, NodeStatus};
use quorum_core::CLOCK_BOUND_MS;
use serde::Serialize;

use crate::{
    args::{Format, Status},
    exit::{Doing as _, Exit, Failure},
    output,
};

mod answers;

pub(crate) use answers::Found;

pub(crate) async fn run(args: &Status) -> Result<(), Failure> {
    let Some(Found { answers, members }) = Found::ask(&args.nodes).await? else { return none_answers(args) };
    let leader = answers.all().find(|s| leads(s)).map(|s| s.zxid);
    let row = |m: &NodeMember| match answers.of(m.id)[..] {
        [] => vec![Row::unreachable(Some(m.id.0), m.client_address.clone())],
        [(_, status)] => vec![Row::of(status, m.client_address.clone(), leader)],
        ref several => several.iter().map(|(at, status)| Row::of(status, at.clone(), leader)).collect(),
    };
    let rows: Vec<Row> = members.iter().flat_map(row).collect();
    print(&rows, args.output.output)?;
    plaintext(&rows).into_iter().chain(differences(&answers.all().collect::<Vec<_>>())).for_each(output::say);
    let mut contradictions = contradictions(&answers.all().collect::<Vec<_>>());
    contradictions.splice(0..0, answers.doubles());
    if !contradictions.is_empty() {
        return Err(Failure::new(Exit::Degraded, contradictions.join("\n")));
    }
    let behind: BTreeSet<u32> = answers.all().filter(|s| !serves(s)).map(|s| s.id.0).collect();
    verdict(&rows, &behind, leader.is_some())
}

/// Whether a node serves clients, from a tree that has everything from before the leader's time.
pub(crate) fn serves(status: &NodeStatus) -> bool {
    status.serving
}

/// Whether a node is an established leader: its marker is committed. It may yet have to apply that to its own tree.
pub(crate) fn leads(status: &NodeStatus) -> bool {
    status.role == Role::Leading && status.committed.epoch() == status.epoch
}

/// What cannot be in one ensemble, a sentence each.
fn contradictions(answers: &[&NodeStatus]) -> Vec<String> {
    let mut found = Vec::new();
    let leaders: Vec<&&NodeStatus> = answers.iter().filter(|s| leads(s) && s.serving).collect();
    if let [_, _, ..] = leaders.as_slice() {
        let leaders: Vec<String> = leaders.iter().map(|s| format!("{} in epoch {}", s.id, s.epoch)).collect();
        found.push(format!(
            "two nodes lead: {}; ask again, and if both still lead, stop the one of the lower epoch and compare the `members` of \
             all nodes",
            leaders.join(", ")
        ));
    }
    let ids: BTreeMap<EnsembleId, PeerId> =
        answers.iter().filter_map(|s| Some((s.ensemble_id?, s.id))).collect();
    if ids.len() > 1 {
        let ids: Vec<String> = ids.iter().map(|(id, node)| format!("node {node} has {id}")).collect();
        found.push(format!(
            "the nodes belong to ensembles with different ids: {}; correct the addresses, or give the nodes that are not of this \
             ensemble empty data directories",
            ids.join(", ")
        ));
    }
    let list = |s: &NodeStatus| {
        Ensemble::new(s.members.iter().map(|m| Member { id: m.id, membership: m.membership })).ok()
    };
    let lists: Vec<(PeerId, Ensemble)> = answers.iter().filter_map(|s| Some((s.id, list(s)?))).collect();
    if let Some((here, list)) = lists.first() {
        for (there, other) in lists.iter().filter(|(_, other)| other != list) {
            found.push(format!(
                "the nodes {here} and {there} have different members: {} (\"there\" is node {there}); give all nodes the same \
                 `members`",
                other.difference(list)
            ));
        }
    }
    let mut digests: BTreeMap<Zxid, (PeerId, u64)> = BTreeMap::new();
    for s in answers {
        let (first, digest) = *digests.entry(s.applied).or_insert((s.id, s.digest));
        if digest != s.digest {
            found.push(format!(
                "the nodes {first} and {} have applied {} and have different digests, 0x{digest:016x} and 0x{:016x}: their trees \
                 differ. Keep copies of both data directories, and give the one that is wrong an empty one",
                s.id, s.applied, s.digest
            ));
        }
    }
    // What two nodes will have nothing to do with each other for; one that is only away is in the table.
    for s in answers {
        for peer in s.peers.iter().filter(|peer| peer.refused) {
            let fault = peer.fault.as_deref().unwrap_or_default();
            found.push(format!("node {} and node {} have no link: {fault}", s.id, peer.id));
        }
    }
    found
}

/// Settings that two nodes have otherwise, a sentence for each pair. An ensemble works with them, but not as its operator expects.
fn differences(answers: &[&NodeStatus]) -> Vec<String> {
    let mut pairs = BTreeMap::new();
    for s in answers {
        for peer in &s.peers {
            let Some(differs) = &peer.differs else { continue };
            let pair = (s.id.min(peer.id), s.id.max(peer.id));
            pairs.entry(pair).or_insert_with(|| {
                format!(
                    "warning: the nodes {} and {} have other settings: {differs} (\"there\" is node {}); give all nodes the same, \
                     and restart those that change",
                    s.id, peer.id, peer.id
                )
            });
        }
    }
    pairs.into_values().collect()
}

/// One line of the table, one object of the array.
#[derive(Serialize, PartialEq, Debug)]
struct Row {
    id: Option<u32>,
    endpoint: String,
    role: &'static str,
    epoch: Option<u32>,
    zxid: Option<String>,
    applied: Option<String>,
    lag: Option<u64>,
    sessions: Option<u64>,
    znodes: Option<u64>,
    digest: Option<String>,
    uptime: Option<u64>,
    disk: Option<&'static str>,
    clock_offset_ms: Option<i64>,
    plaintext_ports: Option<Vec<String>>,
}

const UNREACHABLE: &str = "unreachable";
const LOOKING: &str = "looking";
const LOW: &str = "low";
const SHORT: &str = "short";

impl Row {
    fn of(s: &NodeStatus, endpoint: String, leader: Option<Zxid>) -> Row {
        Row {
            id: Some(s.id.0),
            endpoint,
            role: role_name(s.role),
            epoch: Some(s.epoch.0),
            zxid: Some(s.zxid.to_string()),
            applied: Some(s.applied.to_string()),
            lag: leader.and_then(|last| lag(last, s.applied)),
            sessions: Some(s.sessions),
            znodes: Some(s.znodes),
            digest: Some(format!("0x{:016x}", s.digest)),
            uptime: Some(s.uptime.as_secs()),
            disk: Some(match s.disk {
                Room::Ample => "ample",
                Room::Low => LOW,
                Room::Short => SHORT,
            }),
            clock_offset_ms: s.clock_offset_ms,
            plaintext_ports: Some(s.plaintext_ports.clone()),
        }
    }

    fn unreachable(id: Option<u32>, endpoint: String) -> Row {
        Row {
            id,
            endpoint,
            role: UNREACHABLE,
            epoch: None,
            zxid: None,
            applied: None,
            lag: None,
            sessions: None,
            znodes: None,
            digest: None,
            uptime: None,
            disk: None,
            clock_offset_ms: None,
            plaintext_ports: None,
        }
    }

    fn cells(&self) -> Vec<String> {
        fn cell<T: ToString>(value: Option<&T>) -> String {
            value.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        let uptime = self.uptime.map(|s| humantime::format_duration(Duration::from_secs(s)));
        vec![
            cell(self.id.as_ref()),
            self.endpoint.clone(),
            self.role.to_owned(),
            cell(self.epoch.as_ref()),
            cell(self.zxid.as_ref()),
            cell(self.applied.as_ref()),
            cell(self.lag.as_ref()),
            cell(self.sessions.as_ref()),
            cell(self.znodes.as_ref()),
            cell(self.digest.as_ref()),
            cell(uptime.as_ref()),
        ]
    }
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Looking => LOOKING,
        Role::Following => "follower",
        Role::Leading => "leader",
        Role::Observing => "observer",
    }
}

/// Which nodes accept plaintext from other machines, for people.
fn plaintext(rows: &[Row]) -> Option<String> {
    let open = |row: &Row| {
        let ports = row.plaintext_ports.as_ref().filter(|ports| !ports.is_empty())?;
        Some(format!("node {} ({})", row.id.unwrap_or_default(), ports.join(", ")))
    };
    let open: Vec<String> = rows.iter().filter_map(open).collect();
    let warning = format!(
        "warning: ports accept plaintext from other machines, because `insecure` is set: {}; docs/security.md tells how to change to \
         TLS without downtime",
        open.join(", ")
    );
    (!open.is_empty()).then_some(warning)
}

/// Entries between what a node has applied and the last one of the leader's log; unknown across epochs, because only
/// the leader knows how long the older one was. Answers come from different moments: a node that seems ahead is level.
pub(crate) fn lag(leader: Zxid, applied: Zxid) -> Option<u64> {
    (leader.epoch() == applied.epoch())
        .then(|| u64::from(leader.counter()).saturating_sub(applied.counter().into()))
}

fn print(rows: &[Row], format: Format) -> Result<(), Failure> {
    const HEADER: [&str; 11] = [
        "ID", "ENDPOINT", "ROLE", "EPOCH", "ZXID", "APPLIED", "LAG", "SESSIONS", "ZNODES", "DIGEST", "UPTIME",
    ];
    match format {
        Format::Json => output::print_json(&serde_json::to_value(rows).doing("write JSON")?),
        Format::Table => {
            output::print(&output::table(&HEADER, rows.iter().map(Row::cells), &[0, 3, 6, 7, 8]))
        }
    }
}

fn none_answers(args: &Status) -> Result<(), Failure> {
    let endpoints = args.nodes.endpoints.addresses();
    let rows: Vec<Row> = endpoints.iter().map(|e| Row::unreachable(None, e.clone())).collect();
    print(&rows, args.output.output)?;
    Err(unavailable(&endpoints))
}

/// The failure of a command that no node answers.
pub(crate) fn unavailable(endpoints: &[String]) -> Failure {
    Failure::new(
        Exit::Unavailable,
        format!(
            "no node answers at {}; is the ensemble running (`quorate up` starts one here), are these its client \
             addresses, and do they need TLS (--tls-ca)? QUORATE_LOG=info says more",
            endpoints.join(", ")
        ),
    )
}

/// Whether all is well; `behind` are the nodes that answer but do not serve clients yet.
fn verdict(rows: &[Row], behind: &BTreeSet<u32>, led: bool) -> Result<(), Failure> {
    let fault = |row: &Row| {
        let id = row.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        match row.role {
            LOOKING if row.disk == Some(SHORT) => {
                Some(format!("node {id} is looking, and has no space on its disk: free or add space"))
            }
            UNREACHABLE | LOOKING => Some(format!("node {id} is {}", row.role)),
            _ if row.id.is_some_and(|id| behind.contains(&id)) => {
                Some(format!("node {id} is still catching up"))
            }
            _ if row.disk == Some(LOW) => Some(format!(
                "the disk of node {id} fills up: writes that grow may be refused; free or add space"
            )),
            _ if row.disk == Some(SHORT) => Some(format!(
                "the disk of node {id} is nearly full: clients may only delete; free or add space"
            )),
            _ => wrong_clock(row.clock_offset_ms?, &id),
        }
    };
    let bad: Vec<String> = rows.iter().filter_map(fault).collect();
    let fault = match (led, bad.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => bad.join(", "),
        (false, true) => "no node leads yet: an election is under way; ask again".to_owned(),
        (false, false) => {
            format!(
                "no leader: {}; writes wait for one, which takes more than half of the voters",
                bad.join(", ")
            )
        }
    };
    Err(Failure::new(Exit::Degraded, fault))
}

/// What to say of a clock that is so far ahead of those of a quorum.
fn wrong_clock(offset_ms: i64, id: &str) -> Option<String> {
    if offset_ms.unsigned_abs() <= CLOCK_BOUND_MS.unsigned_abs() {
        return None;
    }
    let off = humantime::format_duration(Duration::from_secs(offset_ms.unsigned_abs() / 1000));
    let side = if offset_ms > 0 { "ahead of" } else { "behind" };
    Some(format!(
        "the clock of node {id} is {off} {side} those of a quorum: set it, or those of the others, and keep them with NTP"
    ))
}

#[cfg(test)]
mod tests {
    use api::Epoch;
    use client_sdk::Load;

    use super::{answers::Answers, *};

    #[test]
    fn lag_counts_entries_within_an_epoch() {
        let z = |e, c| Zxid::new(Epoch(e), c);
        assert_eq!(lag(z(2, 10), z(2, 7)), Some(3));
        assert_eq!(lag(z(2, 10), z(2, 12)), Some(0));
        assert_eq!(lag(z(2, 10), z(1, 7)), None);
    }

    #[test]
    fn missing_nodes_and_missing_leaders_are_told() {
        let row = |id, role| Row { role, ..Row::unreachable(Some(id), String::new()) };
        let none_behind = BTreeSet::new();
        let all = [row(1, "leader"), row(2, "follower"), row(3, "observer")];
        assert!(verdict(&all, &none_behind, true).is_ok());
        let behind = verdict(&all, &BTreeSet::from([2]), true).unwrap_err();
        assert_eq!(
            (behind.exit, behind.to_string()),
            (Exit::Degraded, "node 2 is still catching up".to_owned())
        );
        let one = verdict(&[row(1, "leader"), row(2, UNREACHABLE)], &none_behind, true).unwrap_err();
        assert_eq!((one.exit, one.to_string()), (Exit::Degraded, "node 2 is unreachable".to_owned()));
        let none = verdict(&[row(1, LOOKING), row(2, UNREACHABLE)], &none_behind, false).unwrap_err();
        assert!(
            none.to_string().starts_with("no leader: node 1 is looking, node 2 is unreachable"),
            "{none}"
        );
        assert!(verdict(&[row(1, "follower")], &none_behind, false).is_err());
    }

    #[test]
    fn b15_a_wrong_clock_is_told() {
        let said = |offset_ms| {
            let wrong = NodeStatus { clock_offset_ms: Some(offset_ms), ..status(2, 2, Role::Following) };
            let row = |s: &NodeStatus| Row::of(s, String::new(), None);
            let rows = [row(&status(1, 2, Role::Leading)), row(&wrong)];
            verdict(&rows, &BTreeSet::new(), true).map_err(|e| (e.exit, e.to_string()))
        };
        assert!(said(10_000).is_ok() && said(-10_000).is_ok(), "that much does no harm");
        let (exit, ahead) = said(3_600_500).unwrap_err();
        assert_eq!(exit, Exit::Degraded);
        assert!(ahead.starts_with("the clock of node 2 is 1h ahead of those of a quorum: set it"), "{ahead}");
        assert!(said(-11_000).unwrap_err().1.contains("11s behind those"));
    }

    fn status(id: u32, epoch: u32, role: Role) -> NodeStatus {
        let member = |id| NodeMember {
            id: PeerId(id),
            client_address: format!("h:{id}"),
            membership: api::Membership::VOTER,
        };
        let marker = Zxid::marker(Epoch(epoch));
        NodeStatus {
            id: PeerId(id),
            version: "1".into(),
            ensemble: "e".into(),
            role,
            serving: true,
            leader: None,
            epoch: Epoch(epoch),
            zxid: marker,
            committed: marker,
            applied: Zxid::new(Epoch(epoch), id),
            sessions: 0,
            znodes: 1,
            digest: 7,
            uptime: Duration::from_secs(1),
            members: (1..=3).map(member).collect(),
            disk: Room::Ample,
            ensemble_id: Some(EnsembleId(1)),
            peers: Vec::new(),
            clock_offset_ms: Some(3),
            plaintext_ports: Vec::new(),
            watches: 0,
            connections: 0,
            load: Load::default(),
        }
    }

    #[test]
    fn b03_what_cannot_be_in_one_ensemble_is_said() {
        let (one, two) = (status(1, 2, Role::Leading), status(2, 2, Role::Following));
        assert_eq!(contradictions(&[&one, &two]), Vec::<String>::new());
        let said = |other: &NodeStatus| contradictions(&[&one, other]).join("\n");
        let leads = NodeStatus { role: Role::Leading, ..status(2, 3, Role::Leading) };
        assert!(said(&leads).starts_with("two nodes lead: 1 in epoch 2, 2 in epoch 3"), "{}", said(&leads));
        let foreign = NodeStatus { ensemble_id: Some(EnsembleId(2)), ..two.clone() };
        assert!(
            said(&foreign).contains("different ids: node 1 has 00000000000000000000000000000001, node 2")
        );
        let fewer = NodeStatus { members: two.members[1..].to_vec(), ..two.clone() };
        assert!(said(&fewer).contains("member 1 is a voter here and none there"), "{}", said(&fewer));
        let differs = NodeStatus { applied: one.applied, digest: 8, ..two.clone() };
        assert!(said(&differs).contains("0x0000000000000007 and 0x0000000000000008"), "{}", said(&differs));
        let fault = Some("server 1 has other members".to_owned());
        let refused = api::ports::PeerReport {
            id: PeerId(1),
            address: "h:9".into(),
            fault,
            refused: true,
            since: Duration::ZERO,
            build: None,
            differs: None,
        };
        let differs = |id, text: &str| {
            let differs = Some(text.to_owned());
            api::ports::PeerReport { id: PeerId(id), differs, fault: None, refused: false, ..refused.clone() }
        };
        let [here, there] =
            [(2, "`timing.tick` is 5s there and 1s here"), (1, "`timing.tick` is 1s there and 5s here")]
                .map(|(id, text)| vec![differs(id, text)]);
        let pair = [NodeStatus { peers: here, ..one.clone() }, NodeStatus { peers: there, ..two.clone() }];
        let told = differences(&pair.iter().collect::<Vec<_>>());
        let [sentence] = &told[..] else { panic!("one for each pair: {told:?}") };
        assert!(
            sentence.contains("nodes 1 and 2") && sentence.contains("`timing.tick` is 5s there and 1s here")
        );
        let refuses = NodeStatus { peers: vec![refused], ..two };
        assert!(said(&refuses).contains("node 2 and node 1 have no link: server 1"), "{}", said(&refuses));
    }

    #[test]
    fn b03_two_nodes_with_one_id_are_told_and_one_node_with_two_endpoints_is_not() {
        let one = status(1, 2, Role::Leading);
        let with = |other: NodeStatus| {
            let mut answers = Answers::default();
            answers.add([("a:1".to_owned(), Some(one.clone())), ("b:1".to_owned(), Some(other))].into());
            answers
        };
        let later = NodeStatus { uptime: one.uptime + Duration::from_secs(2), sessions: 5, ..one.clone() };
        let same = with(later);
        assert_eq!((same.0.len(), same.doubles()), (1, Vec::new()));
        let foreign = NodeStatus { ensemble_id: Some(EnsembleId(2)), ..one.clone() };
        let copy = NodeStatus { uptime: Duration::from_secs(3600), ..one.clone() };
        let other_members = NodeStatus { members: one.members[..1].to_vec(), ..one.clone() };
        for other in [foreign, copy, other_members] {
            let answers = with(other);
            assert_eq!(answers.of(PeerId(1)).len(), 2, "none takes the place of another");
            let said = answers.doubles().join("\n");
            assert!(said.starts_with("several nodes are node 1: those at a:1 and b:1"), "{said}");
        }
        assert_eq!(with(status(2, 2, Role::Following)).doubles(), Vec::<String>::new());
    }

    #[test]
    fn the_json_has_the_members_that_scripts_rely_on() {
        let row = serde_json::to_value(Row::unreachable(Some(1), "a:1".to_owned())).unwrap();
        let mut members: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        let mut expected = [
            "id",
            "endpoint",
            "role",
            "epoch",
            "zxid",
            "applied",
            "lag",
            "sessions",
            "znodes",
            "digest",
            "uptime",
            "disk",
            "clock_offset_ms",
            "plaintext_ports",
        ];
        expected.sort_unstable();
        assert_eq!(members, expected);
        assert_eq!(row["epoch"], serde_json::Value::Null);
    }
}

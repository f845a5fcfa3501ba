//! Random watches on nodes that lag, drop connections, lose history and install snapshots. Clients take
//! items late or never. The expected events come from a list of all changes, which is built from
//! requests and results alone.
//!
//! The test checks nine properties, named as in etcd's robustness tests. A watch receives only events
//! that it covers (*filter*), in log order (*ordered*), once (*unique*), in whole entries (*atomic*),
//! complete up to each mark and response (*bookmarkable*), from its start (*resumable*), without a loss
//! (*reliable*), with the value that the entry wrote (*value*), and a new znode is a creation
//! (*is-create*). If the node cannot fulfil these, it ends the watch with an error, and only then.

use api::{
    chance::Chance,
    watch::{Change, ChangeKind, StateRule, WatchScope, WatchSpec},
};

use super::{watches::*, *};
use crate::Applied;

/// The changes by entry: kind, path, value.
type Truth = BTreeMap<Zxid, Vec<(ChangeKind, Path, Option<Bytes>)>>;

/// A watch as its client knows it.
struct Watched {
    spec: WatchSpec,
    /// The client knows all events up to this entry.
    known: Zxid,
    /// Events of an incomplete group.
    part: Vec<(ChangeKind, Path, Option<Bytes>)>,
    stands: bool,
}

struct Client {
    node: usize,
    conn: u64,
    session: (SessionId, u8),
    watches: BTreeMap<u32, Watched>,
    next_id: u32,
    number: u64,
    open: bool,
    last: Zxid,
    /// Watch ids of requests to add or cancel watches that are not answered yet.
    asked: std::collections::VecDeque<Vec<u32>>,
}

struct World {
    chance: Chance,
    nodes: Vec<(Node, Limits)>,
    log: Log,
    truth: Truth,
    known: usize,
    reference: State,
    clients: Vec<Client>,
    next_conn: u64,
    /// Number of occurrences of each case, so that a run without them fails.
    seen: BTreeMap<&'static str, u32>,
}

const PATHS: [&str; 7] = ["/a", "/b", "/a/x", "/a/y", "/b/x", "/a/x/1", "/a/x/2"];

fn sees(spec: &WatchSpec, kind: ChangeKind, path: &Path) -> bool {
    let own = spec.path == *path;
    let child = path.parent().is_some_and(|parent| parent == spec.path);
    let below = spec.path.is_root() || path.as_str().starts_with(&format!("{}/", spec.path));
    let scope = match spec.scope {
        WatchScope::Node => own,
        WatchScope::Children => child || (own && kind == ChangeKind::Deleted),
        WatchScope::Tree => own || below,
    };
    let usual = match spec.scope {
        WatchScope::Children => matches!(kind, ChangeKind::Created | ChangeKind::Deleted),
        _ => true,
    };
    scope && if spec.kinds.is_empty() { usual } else { spec.kinds.contains(kind) }
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Chance::new(seed);
        let nodes = (1..=3).map(|id| {
            let limits = Limits {
                history_entries: chance.between(10, 60) as usize,
                events_max: 16 << 10,
                catch_up: Duration::from_secs(5),
                ..Limits::default()
            };
            let config = Config { me: PeerId(id), first_ticket: Ticket(1000), limits: limits.clone() };
            let server = Server::new(Time(0), config, State::default());
            let mut node = Node { server, ..Node::new(id) };
            node.status(Role::Following, true);
            (node, limits)
        });
        let nodes: Vec<_> = nodes.collect();
        let mut world = World {
            chance,
            nodes,
            log: Log::default(),
            truth: Truth::new(),
            known: 0,
            reference: State::default(),
            clients: Vec::new(),
            next_conn: 100,
            seen: BTreeMap::new(),
        };
        for at in 0..4 {
            world.next_conn += 1;
            let (node, conn) = (at % 3, world.next_conn);
            world.nodes[node].0.open(conn);
            world.log.accept(&mut world.nodes[node].0);
            world.feed_all();
            let session = world.nodes[node].0.session_of(conn).expect("opened");
            let (session, last) = ((session, conn as u8), Zxid(session.0));
            let watches = BTreeMap::new();
            world.clients.push(Client {
                node,
                conn,
                session,
                watches,
                next_id: 1,
                number: 0,
                open: true,
                last,
                asked: Default::default(),
            });
        }
        world
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn feed_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.feed(node));
    }

    fn feed(&mut self, node: usize) {
        self.learn();
        self.log.feed(&mut self.nodes[node].0);
    }

    /// Adds the changes of new entries to the list.
    fn learn(&mut self) {
        if self.known == 0 {
            self.reference.apply_marker(z(0), 0);
        }
        for entry in &self.log.entries[self.known..] {
            let command = entry.command.as_ref().expect("a command");
            let ephemerals: Vec<Path> = match command.body {
                CommandBody::CloseSession { session, .. } => {
                    self.reference.tree().ephemerals(session).collect()
                }
                _ => Vec::new(),
            };
            let Applied { zxid, result } = self.reference.apply(entry.zxid, 0, command);
            if zxid != entry.zxid {
                // The write was applied before.
                continue;
            }
            let mut changes: Vec<_> =
                ephemerals.into_iter().map(|p| (ChangeKind::Deleted, p, None)).collect();
            match (&command.body, result) {
                (CommandBody::Write(Write::Multi(parts)), Ok(WriteOutcome::Multi(_))) => {
                    changes.extend(parts.iter().filter_map(|part| match part {
                        MultiOp::Create(c) => Some((ChangeKind::Created, c.path.clone(), c.data.clone())),
                        MultiOp::Set { path, data, .. } => {
                            Some((ChangeKind::DataChanged, path.clone(), data.clone()))
                        }
                        MultiOp::Delete { path, .. } => Some((ChangeKind::Deleted, path.clone(), None)),
                        MultiOp::SetAcl { path, .. } => Some((ChangeKind::AclChanged, path.clone(), None)),
                        MultiOp::Check { .. } | MultiOp::CheckAbsent { .. } => None,
                    }));
                }
                (CommandBody::Write(Write::Create(c)), Ok(_)) => {
                    changes.push((ChangeKind::Created, c.path.clone(), c.data.clone()));
                }
                (CommandBody::Write(Write::Set { path, data, .. }), Ok(_)) => {
                    changes.push((ChangeKind::DataChanged, path.clone(), data.clone()));
                }
                (CommandBody::Write(Write::Delete { path, .. }), Ok(_)) => {
                    changes.push((ChangeKind::Deleted, path.clone(), None));
                }
                _ => {}
            }
            if !changes.is_empty() {
                self.truth.insert(entry.zxid, changes);
            }
        }
        self.known = self.log.entries.len();
    }

    fn a_path(&mut self) -> &'static str {
        PATHS[self.chance.index(PATHS.len())]
    }

    fn a_write(&mut self) -> Op {
        let (p, size) = (self.a_path(), self.chance.below(600) as usize);
        let value = Bytes::from(vec![self.chance.below(256) as u8; size]);
        match self.chance.below(8) {
            0..3 => Op::Write(Write::Create(Create {
                kind: if self.chance.below(4) == 0 {
                    api::NodeKind::Ephemeral
                } else {
                    api::NodeKind::Persistent
                },
                ..Create::new(path(p), value)
            })),
            3..5 => Op::Write(Write::Set { path: path(p), data: Some(value), version: None }),
            5..7 => delete(p),
            _ => {
                let q = self.a_path();
                Op::Write(Write::Multi(vec![
                    MultiOp::Delete { path: path(p), version: None },
                    MultiOp::Create(Create::new(path(p), value.clone())),
                    MultiOp::Set { path: path(q), data: Some(value), version: None },
                ]))
            }
        }
    }

    fn a_spec(&mut self, at: usize) -> WatchSpec {
        let scope = [WatchScope::Node, WatchScope::Children, WatchScope::Tree][self.chance.index(3)];
        let p = if self.chance.below(4) == 0 { "/" } else { self.a_path() };
        let client = &mut self.clients[at];
        let mut spec = watch(client.next_id, p, scope);
        client.next_id += 1;
        spec.with_data = self.chance.below(2) == 0;
        spec.once = self.chance.below(4) == 0;
        match self.chance.below(3) {
            0 => {}
            1 => spec.from = Some(self.clients[at].last),
            _ if spec.once => {}
            _ => spec.state = StateRule::Always,
        }
        if !spec.once && self.chance.below(4) == 0 {
            spec.kinds = [ChangeKind::Deleted, ChangeKind::DataChanged].into_iter().collect();
        }
        spec
    }

    fn step(&mut self) {
        let at = self.chance.index(self.clients.len());
        let (node, conn, open) = (self.clients[at].node, self.clients[at].conn, self.clients[at].open);
        match self.chance.below(20) {
            0..6 => {
                let writes: Vec<Op> = (0..self.chance.below(6)).map(|_| self.a_write()).collect();
                let by = self.chance.index(3);
                writes.into_iter().for_each(|op| self.nodes[by].0.input(call(9999, op)));
                self.log.accept(&mut self.nodes[by].0);
                self.learn();
            }
            6..11 => self.feed(node),
            11 if open => {
                // Reads between the client's own writes.
                let (p, w) = (self.a_path(), self.a_write());
                let first = self.clients[at].number + 1;
                self.clients[at].number += 1;
                self.nodes[node].0.ask(conn, first, vec![get(p), w, get(p), Op::Ping]);
                self.log.accept(&mut self.nodes[node].0);
                self.learn();
            }
            12 | 13 if open && self.clients[at].watches.len() < 12 => {
                let specs: Vec<_> = (0..self.chance.between(1, 3)).map(|_| self.a_spec(at)).collect();
                self.add(at, specs);
            }
            14 if open => {
                if let Some(&id) = self.clients[at].watches.keys().next() {
                    // Events before the answer are valid; later ones are not.
                    self.clients[at].asked.push_back(vec![id]);
                    self.nodes[node].0.ask(conn, 1, vec![Op::CancelWatches(vec![id])]);
                }
            }
            15 => self.move_on(at),
            16 => self.snapshot(node),
            _ if open => self.take(at),
            _ => {}
        }
        self.drop_closed();
    }

    fn add(&mut self, at: usize, specs: Vec<WatchSpec>) {
        let client = &mut self.clients[at];
        for spec in &specs {
            let watched = Watched {
                spec: spec.clone(),
                known: spec.from.unwrap_or_default(),
                part: Vec::new(),
                stands: false,
            };
            client.watches.insert(spec.id, watched);
        }
        client.asked.push_back(specs.iter().map(|spec| spec.id).collect());
        self.nodes[client.node].0.ask(client.conn, 1, vec![add(specs)]);
    }

    /// Connects again, possibly to another node, and resumes the session and its watches.
    fn move_on(&mut self, at: usize) {
        let (node, conn) = (self.clients[at].node, self.clients[at].conn);
        self.nodes[node].0.input(Input::Closed { conn: ConnId(conn) });
        self.nodes[node].0.sent.retain(|(c, _)| *c != ConnId(conn));
        self.next_conn += 1;
        let client = &mut self.clients[at];
        (client.node, client.conn, client.open) = (self.chance.index(3), self.next_conn, true);
        let (session, token) = client.session;
        let seen = client.watches.values().map(|w| w.known).max().unwrap_or_default().max(client.last);
        let (node, conn) = (client.node, client.conn);
        let specs = client.watches.values_mut().filter_map(|watched| {
            watched.part.clear();
            let spec = watched.spec.clone();
            match watched.stands {
                true => Some(WatchSpec { from: Some(watched.known), state: StateRule::Never, ..spec }),
                false => None,
            }
        });
        let specs: Vec<_> = specs.collect();
        client.watches.retain(|_, watched| watched.stands);
        client.watches.values_mut().for_each(|watched| watched.stands = false);
        self.nodes[node].0.resume(conn, session, token, seen);
        self.log.accept(&mut self.nodes[node].0);
        self.learn();
        self.clients[at].asked.clear();
        if !specs.is_empty() {
            self.clients[at].asked.push_back(specs.iter().map(|spec| spec.id).collect());
            self.nodes[node].0.ask(conn, 1, vec![add(specs)]);
        }
        self.count("connections");
    }

    /// The node installs a snapshot of the committed state.
    fn snapshot(&mut self, node: usize) {
        self.learn();
        if self.reference.applied() > self.nodes[node].0.server.state().applied() && self.chance.below(4) == 0
        {
            let state = State::load(self.reference.records()).expect("a state");
            let (node, _) = &mut self.nodes[node];
            let (me, before) = (node.server.me(), node.server.state().applied());
            let own = self.log.entries.iter().filter(|e| e.zxid > before).filter_map(|e| e.origin);
            let lost: Vec<Ticket> =
                own.filter(|origin| origin.peer == me).map(|origin| origin.ticket).collect();
            node.server.replace_state(node.now, state);
            lost.into_iter().for_each(|ticket| node.input(Input::Feed(Feed::Lost(ticket))));
            node.input(Input::Tick);
            self.count("snapshots");
        }
    }

    fn drop_closed(&mut self) {
        for node in 0..self.nodes.len() {
            for (conn, _) in std::mem::take(&mut self.nodes[node].0.closed) {
                let found = self.clients.iter_mut().find(|c| c.node == node && c.conn == conn.0);
                found.into_iter().for_each(|client| client.open = false);
            }
        }
        for at in 0..self.clients.len() {
            if !self.clients[at].open {
                self.move_on(at);
            }
        }
    }

    fn take(&mut self, at: usize) {
        let (node, conn) = (self.clients[at].node, self.clients[at].conn);
        let few = self.chance.below(3) == 0;
        self.nodes[node].0.input(Input::Tick);
        let mut items = self.nodes[node].0.take(conn);
        if few && items.len() > 1 {
            // The remaining items are lost with the connection.
            items.truncate(self.chance.index(items.len()));
            items.into_iter().for_each(|item| self.look_at(at, item));
            return self.move_on(at);
        }
        items.into_iter().for_each(|item| self.look_at(at, item));
    }

    fn look_at(&mut self, at: usize, item: Item) {
        let World { clients, truth, nodes, seen, .. } = self;
        let client = &mut clients[at];
        let mut count = |what| *seen.entry(what).or_default() += 1;
        match item {
            Item::Events(group) => {
                count("groups");
                let mut over = Vec::new();
                for (&id, watched) in &mut client.watches {
                    let mine = group.events.iter().filter(|event| event.ids.contains(&id));
                    let mine: Vec<(&Change, bool)> = mine.map(|e| (&*e.change, e.with_data)).collect();
                    if mine.is_empty() && watched.part.is_empty() {
                        continue;
                    }
                    // A comparison is less precise, and may fire needlessly.
                    let exact = truth.get(&group.zxid).is_some_and(|changes| {
                        mine.iter().all(|(c, _)| changes.iter().any(|(k, p, _)| *k == c.kind && *p == c.path))
                    });
                    let floor = nodes[client.node].0.server.watch_figures().history_floor;
                    if watched.spec.once && (!exact || floor > watched.known) {
                        count("comparisons");
                        over.push(id);
                        continue;
                    }
                    assert!(
                        group.zxid > watched.known,
                        "unique, ordered: {} after {}: {group:?}",
                        group.zxid,
                        watched.known
                    );
                    let missed = truth.range(Zxid(watched.known.0 + 1)..group.zxid).find(|(_, changes)| {
                        changes.iter().any(|(kind, path, _)| sees(&watched.spec, *kind, path))
                    });
                    assert_eq!(
                        missed, None,
                        "reliable: {:?} was told of {} and not of this",
                        watched.spec, group.zxid
                    );
                    watched.part.extend(mine.iter().map(|(c, with)| {
                        assert!(!watched.spec.with_data || *with);
                        (c.kind, c.path.clone(), c.data.clone())
                    }));
                    if !group.more {
                        let all = truth.get(&group.zxid).map(|c| &c[..]).unwrap_or_default();
                        let all: Vec<_> =
                            all.iter().filter(|(k, p, _)| sees(&watched.spec, *k, p)).cloned().collect();
                        assert_eq!(watched.part, all, "filter, atomic, value, is-create: {:?}", watched.spec);
                        watched.known = group.zxid;
                        watched.part.clear();
                        if watched.spec.once {
                            over.push(id);
                        }
                    }
                }
                client.last = client.last.max(group.zxid);
                over.iter().for_each(|id| drop(client.watches.remove(id)));
                let known = |id| client.watches.contains_key(id) || over.contains(id);
                let strange = group.events.iter().flat_map(|e| &e.ids).find(|id| !known(id));
                assert_eq!(strange, None, "filter: an event for a watch that is over");
            }
            Item::State(state) => {
                count("states");
                let watched = client.watches.get_mut(&state.id).expect("a watch of this id");
                watched.known = state.zxid;
                // The znodes according to the log up to this entry.
                let mut there = BTreeMap::new();
                for (kind, path, data) in truth.range(..=state.zxid).flat_map(|(_, changes)| changes) {
                    match kind {
                        ChangeKind::Deleted => drop(there.remove(path)),
                        _ => drop(there.insert(path.clone(), data.clone())),
                    }
                }
                let root = there.insert(Path::root(), Some(Bytes::new()));
                assert_eq!(root, None);
                let spec = &watched.spec;
                let wanted = |p: &Path| match spec.scope {
                    WatchScope::Node => *p == spec.path,
                    WatchScope::Children => {
                        there.contains_key(&spec.path)
                            && (*p == spec.path || p.parent().is_some_and(|q| q == spec.path))
                    }
                    WatchScope::Tree => {
                        sees(&WatchSpec::new(1, spec.path.clone(), spec.scope), ChangeKind::Created, p)
                    }
                };
                let want: Vec<&Path> = there.keys().filter(|p| wanted(p)).collect();
                let mut got: Vec<_> = state.znodes.iter().map(|z| &z.path).collect();
                got.sort_unstable();
                assert_eq!(got, want, "the state at {} for {spec:?}", state.zxid);
                let with_data = state.znodes.iter().filter(|z| spec.with_data && z.path != spec.path);
                with_data.for_each(|z| assert_eq!(&z.data, &there[&z.path], "value at {}", state.zxid));
            }
            Item::Ended(ended) => {
                count("ends");
                for id in &ended.ids {
                    let watched = client.watches.remove(id).expect("a watch of this id");
                    let limit = &nodes[client.node].1;
                    assert!(
                        ended.oldest > watched.known,
                        "resumable: gone, though {} is in the history",
                        watched.known
                    );
                    assert!(limit.history_entries < 100 && matches!(ended.error, OpError::Gone { .. }));
                }
            }
            Item::Mark(mark) => Self::passed(client, truth, mark.zxid),
            Item::Response(Response { zxid, result, .. }) => {
                if let Ok(Outcome::Watching(refused)) = &result {
                    assert!(refused.is_empty(), "{refused:?}");
                    for id in client.asked.pop_front().expect("asked") {
                        // The watch may have fired or ended already.
                        let Some(watched) = client.watches.get_mut(&id) else { continue };
                        watched.stands = true;
                        if watched.spec.from.is_none() && watched.known == Zxid::ZERO {
                            watched.known = zxid;
                        }
                    }
                }
                if let Ok(Outcome::Cancelled(unknown)) = &result {
                    for id in client.asked.pop_front().expect("asked") {
                        let removed = client.watches.remove(&id);
                        assert_eq!(removed.is_none(), unknown.contains(&id), "{id}");
                    }
                }
                if !matches!(result, Ok(Outcome::Write(_)) | Err(_)) {
                    client.last = client.last.max(zxid);
                }
                Self::passed(client, truth, zxid);
            }
            Item::Opened(opened) => client.number = opened.last_write.0.max(client.number),
            Item::Confirmed { .. } | Item::Notice(_) => {}
        }
    }

    /// All active watches have received everything up to this entry.
    fn passed(client: &mut Client, truth: &Truth, zxid: Zxid) {
        for watched in client.watches.values_mut().filter(|w| w.stands && w.known < zxid) {
            let missed = truth
                .range(Zxid(watched.known.0 + 1)..=zxid)
                .find(|(_, changes)| changes.iter().any(|(kind, path, _)| sees(&watched.spec, *kind, path)));
            assert_eq!(
                missed, None,
                "bookmarkable: {:?} knows {} and was told it knows {zxid}",
                watched.spec, watched.known
            );
            watched.known = zxid;
        }
    }
}

#[test]
fn the_nine_properties_hold_for_random_watches() {
    let mut seen = BTreeMap::new();
    for seed in 0..60 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        // At the end all clients learn all changes.
        for _ in 0..50 {
            world.feed_all();
            world.drop_closed();
            for at in 0..world.clients.len() {
                let (node, conn) = (world.clients[at].node, world.clients[at].conn);
                world.nodes[node].0.input(Input::Tick);
                let items = world.nodes[node].0.take(conn);
                items.into_iter().for_each(|item| world.look_at(at, item));
                world.log.accept(&mut world.nodes[node].0);
            }
        }
        for client in &mut world.clients {
            let end = world.nodes[client.node].0.server.state().applied();
            assert!(
                client.asked.is_empty(),
                "client {} waits: {:?} {:?} {:?}",
                client.conn,
                client.asked,
                world.nodes[client.node].0.server.conns.get(&ConnId(client.conn)),
                world.nodes[client.node].0.server.answers,
            );
            World::passed(client, &world.truth, end);
        }
        let lags = world.nodes.iter().map(|(node, _)| node.server.watch_figures().counted.lags as u32).sum();
        world.seen.insert("lags", lags);
        for (what, count) in world.seen {
            *seen.entry(what).or_insert(0) += count;
        }
    }
    for what in ["groups", "states", "ends", "comparisons", "snapshots", "connections", "lags"] {
        assert!(seen.get(what).is_some_and(|&count| count > 20), "{what}: {seen:?}");
    }
}

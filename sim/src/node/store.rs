//! The store's loop: what the quorum feeds, what clients ask, and what the core says to both.

use std::collections::BTreeMap;

use api::ports::{FeedItem, Role, Sign};
use api::record::Record;
use api::session::{self, Item, Open};
use api::{CommandBody, Identities, PeerId, SessionId, Time, WriteNumber, Zxid};
use bytes::Bytes;
use quorum_core::Input as QuorumInput;
use quorum_log::SnapshotWriter;
use quorum_shell::{Feed as QuorumFeed, Keep, Step, Unsaved, saved, unsaved};
use store_core::server::{Ask, ConnId, Drawn, Feed, Input};
use store_core::{Changes, LoadError, Server, State};
use store_shell::{Decoder, Effect, Export, Fault, FromQuorum, PieceEncoder, Shell, encode};

use super::quorum::Happened;
use super::table::Table;
use super::{Armed, ByLink, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{LinkId, Packet};

impl From<Fault> for Stop {
    fn from(Fault(why): Fault) -> Stop {
        Stop::Invariant(why)
    }
}

/// A job of the checkpoint thread.
enum Job {
    Checkpoint(Changes),
    /// A snapshot of the state at this zxid, which goes on meanwhile.
    Snapshot {
        zxid: Zxid,
        export: Export,
        encoder: PieceEncoder,
        pieces: Vec<Bytes>,
    },
}

pub(crate) struct StoreShell {
    pub(crate) shell: Shell,
    decoder: Decoder,
    turn: bool,
    pub(super) armed: Armed,
    /// Of the quorum.
    pub(super) feed: QuorumFeed,
    /// Which session a connection speaks for.
    sessions: ByLink<SessionId>,
    /// Bytes that were sent on a connection, and that the store is not told of yet.
    undrained: ByLink<usize>,
    /// For C8: when this node heard a session last, and since when it leads.
    heard: BTreeMap<SessionId, Time>,
    leads_since: Option<Time>,
    /// The reign, by its start, in which this node decided to close a session: a later sign of life does not count, and a close that
    /// did not get through is sent again.
    closing: BTreeMap<SessionId, Option<Time>>,
    epoch: api::Epoch,
    job: Option<Job>,
    saving: Option<SnapshotWriter>,
}

impl StoreShell {
    pub(super) fn new(server: Server, position: Zxid) -> StoreShell {
        StoreShell {
            decoder: Decoder::new(server.state().seed()),
            shell: Shell::new(server),
            turn: false,
            armed: Armed::default(),
            feed: QuorumFeed::new(position),
            sessions: ByLink::new(),
            undrained: ByLink::new(),
            heard: BTreeMap::new(),
            leads_since: None,
            closing: BTreeMap::new(),
            epoch: api::Epoch(0),
            job: None,
            saving: None,
        }
    }
}

impl StoreShell {
    /// For the checks: what the store is about to take in.
    fn note(&mut self, cx: &mut Context, me: PeerId, now: Time, item: &Feed) {
        match item {
            Feed::Committed(entries) => {
                for entry in entries {
                    if let Some(CommandBody::OpenSession { .. }) = entry.command.as_ref().map(|c| &c.body) {
                        self.heard.insert(SessionId(entry.zxid.0), now);
                    }
                }
            }
            Feed::Status(status) => {
                let leads = status.serving && status.role == Role::Leading;
                if !leads {
                    self.leads_since = None;
                } else if self.leads_since.is_none() || self.epoch != status.epoch {
                    self.leads_since = Some(now);
                }
                self.epoch = status.epoch;
            }
            Feed::Barrier(ticket) => cx.ghost.barrier_told(me, *ticket, self.feed.position()),
            Feed::Refused { .. } | Feed::Lost(_) => {}
        }
    }
}

impl Node {
    pub(super) fn wake_store(&mut self, cx: &mut Context) {
        if self.up.as_mut().is_some_and(|p| !std::mem::replace(&mut p.store.turn, true)) {
            let at = self.turn_delay(cx);
            self.schedule(cx, at, NodeEvent::StoreTurn);
        }
    }

    pub(super) fn on_store_timer(&mut self, cx: &mut Context) {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        if process.store.armed.fired(cx.now) {
            if process.store.shell.server.next_timeout().is_some_and(|at| at <= now) {
                process.store.shell.server.handle(now, Input::Tick);
            }
            self.wake_store(cx);
        }
    }

    /// One round: one item of the feed, then what the core wants.
    pub(super) fn store_turn(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        process.store.turn = false;
        let signs: Vec<Sign> = process.quorum.signs.drain(..).collect();
        signs.into_iter().for_each(|sign| self.take_sign(cx, sign));
        while let Some(items) = self.next_of_feed(cx)? {
            self.take_items(cx, items)?;
            self.carry_out_store(cx)?;
        }
        self.carry_out_store(cx)?;
        if let Some(process) = &self.up {
            cx.ghost.applied(self.id, process.store.shell.server.state());
            if let Some(timeout) = process.store.shell.server.next_timeout() {
                let at = self.when(timeout);
                if self.up.as_mut().is_some_and(|p| p.store.armed.arm(at)) {
                    self.schedule(cx, at, NodeEvent::StoreTimer);
                }
            }
        }
        Ok(())
    }

    /// What the quorum hands over next; `None` if there is nothing.
    fn next_of_feed(&mut self, cx: &mut Context) -> Result<Option<Vec<FeedItem>>, Stop> {
        let Some(process) = &mut self.up else { return Ok(None) };
        let (feed, view) = (&mut process.store.feed, process.quorum.shell.view());
        let mut step = feed.poll(view, &process.snapshots);
        loop {
            step = match step {
                Step::Wait => return Ok(None),
                Step::Give(items) => {
                    if let Some(FeedItem::SnapshotStart { .. }) = items.first() {
                        cx.stats.count("stores started over");
                    }
                    return Ok(Some(items));
                }
                Step::Read(what) => {
                    let got = what.carry_out(view, &process.snapshots, cx.plan.sizes.batch);
                    feed.got(got, view, &process.snapshots)?
                }
                Step::Forsake => {
                    cx.stats.count("no snapshot left");
                    process.quorum.attached = false;
                    *feed = QuorumFeed::new(feed.position());
                    self.happened(cx, Happened::Forsaken);
                    return Ok(None);
                }
            }
        }
    }

    fn take_items(&mut self, cx: &mut Context, items: Vec<FeedItem>) -> Result<(), Stop> {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return Ok(()) };
        for said in process.store.decoder.decode(items)? {
            let Some(process) = &mut self.up else { return Ok(()) };
            let store = &mut process.store;
            if let FromQuorum::Feed { items, .. } = &said {
                items.iter().for_each(|item| store.note(cx, self.id, now, item));
            }
            store.shell.on_quorum(now, said);
            if self.carry_out_store(cx)? {
                // The rest belongs to the feed before.
                return Ok(());
            }
        }
        Ok(())
    }

    fn take_sign(&mut self, cx: &mut Context, sign: Sign) {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        if let Sign::Report { report, .. } = &sign {
            // Behind the number of the report.
            for id in report.as_chunks::<8>().0.iter().skip(1) {
                process.store.heard.insert(SessionId(u64::from_be_bytes(*id)), now);
            }
        }
        process.store.shell.server.handle(now, Input::Sign(sign));
    }

    /// Whether log and snapshots have the whole state, so that the table may be lost.
    pub(crate) fn can_restore(&self) -> bool {
        self.up
            .as_ref()
            .is_some_and(|p| p.snapshots.latest().is_some() || p.quorum.shell.view().contains(Zxid::ZERO))
    }

    /// Returns true if the store has a new feed.
    fn carry_out_store(&mut self, cx: &mut Context) -> Result<bool, Stop> {
        let (now, me) = (self.time(cx), self.end());
        let (mut requests, mut attached) = (Vec::new(), false);
        while let Some(process) = &mut self.up
            && let Some(effect) = process.store.shell.poll_effect(now)?
        {
            let store = &mut process.store;
            match effect {
                Effect::Ask(asks) => {
                    for ask in &asks {
                        if let Ask::Submit { command, .. } = ask {
                            self.check_expiry(cx, &command.body);
                        }
                    }
                    requests.extend(encode(asks));
                }
                Effect::Send { conn, items } => {
                    for item in &items {
                        if let Item::Opened(opened) = item {
                            // That a client takes a session up again counts once its node has reported it.
                            store.sessions.insert(conn.0, opened.session);
                        }
                    }
                    let bytes: usize = items.iter().map(Item::weight).sum();
                    cx.send(conn.0, me, Packet::Items(items));
                    let waits = store.undrained.entry(conn.0).or_default();
                    *waits += bytes;
                    // Every other client is slow: what it was sent is taken when it says something, or when it is much; in some runs
                    // only now and then.
                    let most = if cx.plan.takes_slowly() { 16 * SLOW } else { SLOW };
                    if conn.0.is_multiple_of(2) || cx.healed || *waits >= most {
                        let bytes = std::mem::take(waits);
                        store.shell.server.handle(now, Input::Drained { conn, bytes });
                    }
                }
                Effect::Close { conn, why } => {
                    store.sessions.remove(&conn.0);
                    store.undrained.remove(&conn.0);
                    cx.close(conn.0, me, why.err());
                }
                Effect::Attach { at, own, leaders } => {
                    cx.ghost.diverged(self.id, at, own, leaders);
                    self.attach_anew(cx);
                    attached = true;
                }
            }
        }
        self.up.iter_mut().for_each(|process| drop(process.store.shell.take_replaced()));
        if !requests.is_empty() {
            self.tell_quorum(cx, QuorumInput::Requests(requests));
        }
        Ok(attached)
    }

    /// The state was thrown away: the quorum gives another one, to a feed that begins again.
    fn attach_anew(&mut self, cx: &mut Context) {
        let Some(process) = &mut self.up else { return };
        let store = &mut process.store;
        store.decoder = Decoder::new(store.shell.server.state().seed());
        (store.feed, store.saving) = (QuorumFeed::new(Zxid::ZERO), None);
        store.job.take_if(|job| matches!(job, Job::Snapshot { .. }));
        process.quorum.signs.clear();
        process.quorum.attached = false;
        self.happened(cx, Happened::Attach { applied: Zxid::ZERO });
        cx.stats.count("states built again");
    }

    /// A bit of the state flips, in the time-out of a session, and with it the digest. Not in the state of a leader, which is taken for
    /// the truth, nor in one that may be flipped already. The time-out becomes shorter: no client may rely on a longer one.
    pub(crate) fn flip_state(&mut self, cx: &mut Context) {
        let now = self.time(cx);
        if self.leads() || !cx.ghost.may_flip(self.id) {
            return;
        }
        let Some(process) = &mut self.up else { return };
        let server = &mut process.store.shell.server;
        let mut records: Vec<Record> = server.state().records().collect();
        let session = records.iter_mut().find_map(|record| match record {
            Record::Session(session) if session.timeout_ms.count_ones() > 1 => Some(session),
            _ => None,
        });
        let Some(session) = session else { return };
        session.timeout_ms &= session.timeout_ms - 1;
        let mut load = |digest: Option<u64>| {
            for record in &mut records {
                if let (Record::Header(header), Some(digest)) = (record, digest) {
                    header.digest = digest;
                }
            }
            State::load(records.clone())
        };
        // What does not fit yet says what would.
        let Err(LoadError::Mismatch { actual, .. }) = load(None) else { return };
        let Ok(mut state) = load(Some(actual)) else { return };
        state.forget_checkpoint();
        server.replace_state(now, state);
        cx.ghost.flipped(self.id, server.state().applied());
        cx.stats.count("states flipped");
        self.wake_store(cx);
    }

    fn check_expiry(&mut self, cx: &mut Context, body: &CommandBody) {
        let CommandBody::CloseSession { session, expired: Some(_) } = *body else { return };
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        let store = &mut process.store;
        let Some(info) = store.shell.server.state().session(session) else { return };
        if store.closing.insert(session, store.leads_since) == Some(store.leads_since) {
            return;
        }
        cx.stats.count("sessions expired");
        if let Some(lasts) = cx.cut_at_close.take() {
            cx.cut_off(self.index, false, lasts);
        }
        let since = store.heard.get(&session).copied().max(store.leads_since).unwrap_or_default();
        let silent = now.0 - since.0;
        cx.ghost.expires(self.id, session, silent, u64::from(info.timeout_ms) * 1000);
    }

    // ---- clients ----

    pub(super) fn client_opens(
        &mut self,
        cx: &mut Context,
        link: LinkId,
        open: Open,
        drawn: Drawn,
        identities: Identities,
    ) {
        self.tell_store(cx, Input::Open { conn: ConnId(link), open, drawn, identities });
    }

    pub(super) fn client_asks(
        &mut self,
        cx: &mut Context,
        link: LinkId,
        acked: WriteNumber,
        requests: Vec<session::Request>,
    ) {
        if cx.healed || !cx.plan.takes_slowly() {
            self.client_takes(cx, link);
        }
        self.tell_store(cx, Input::Requests { conn: ConnId(link), acked, requests });
    }

    /// A client takes all that it was sent.
    fn client_takes(&mut self, cx: &mut Context, link: LinkId) {
        let bytes = self.up.as_mut().and_then(|process| process.store.undrained.remove(&link));
        if let Some(bytes) = bytes {
            self.tell_store(cx, Input::Drained { conn: ConnId(link), bytes });
        }
    }

    /// In some runs slow clients take something only now and then.
    fn slow_clients(&mut self, cx: &mut Context) {
        if !cx.plan.takes_slowly() {
            return;
        }
        let links: Vec<LinkId> =
            self.up.iter().flat_map(|process| process.store.undrained.keys().copied()).collect();
        for link in links {
            if cx.healed || cx.rng.per_mille(200) {
                self.client_takes(cx, link);
            }
        }
    }

    pub(super) fn client_calls(&mut self, cx: &mut Context, link: LinkId, op: session::Op) {
        self.tell_store(
            cx,
            Input::Unary {
                conn: ConnId(link),
                request: session::Request::new(0, op),
                identities: Identities::default(),
            },
        );
    }

    pub(super) fn client_over(&mut self, cx: &mut Context, link: LinkId) {
        if let Some(process) = &mut self.up {
            process.store.sessions.remove(&link);
            process.store.undrained.remove(&link);
        }
        self.tell_store(cx, Input::Closed { conn: ConnId(link) });
    }

    fn tell_store(&mut self, cx: &mut Context, input: Input) {
        let now = self.time(cx);
        if let Some(process) = &mut self.up {
            process.store.shell.server.handle(now, input);
            self.wake_store(cx);
        }
    }

    // ---- checkpoints and snapshots ----

    /// Begins a checkpoint or a snapshot if one is due.
    pub(super) fn keep(&mut self, cx: &mut Context) {
        let at = cx.now + super::KEEP_EVERY;
        self.schedule(cx, at, NodeEvent::Keep);
        self.slow_clients(cx);
        let restorable = self.can_restore();
        let Some(process) = &mut self.up else { return };
        let store = &mut process.store;
        // What is kept of a wrong state cannot heal it: that takes an operator.
        if store.job.is_some() || store.saving.is_some() || cx.ghost.is_flipped(self.id) {
            return;
        }
        // As often as the plan says, however large the state is.
        let export = store.shell.since_snapshot.is_due(0, cx.plan.sizes.snapshot_entries, u64::MAX, 100);
        if !export && store.shell.server.state().dirty_len() == 0 {
            return;
        }
        if export {
            let server = &mut store.shell.server;
            let zxid = server.state().applied();
            let (export, encoder) = (Export::begin(server, false), PieceEncoder::new(cx.plan.sizes.piece));
            store.shell.since_snapshot.begin();
            store.job = Some(Job::Snapshot { zxid, export, encoder, pieces: Vec::new() });
        } else if restorable && cx.rng.per_mille(20) {
            // Now and then the disk does not take it, and the next one has to bring everything.
            drop(store.shell.server.take_dirty());
            store.shell.server.forget_checkpoint();
            self.table = None;
            cx.stats.count("checkpoints lost");
            return;
        } else {
            store.job = Some(Job::Checkpoint(store.shell.server.take_dirty()));
        }
        let at = cx.now + cx.rng.between(100, 50_000);
        self.schedule(cx, at, NodeEvent::Checkpointed);
    }

    /// The checkpoint is written, or it is time for the next part of the snapshot.
    pub(super) fn on_checkpointed(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        let store = &mut process.store;
        match store.job.take() {
            None => Ok(()),
            Some(Job::Checkpoint(changes)) => {
                self.table.get_or_insert_with(Table::new).write(changes);
                Ok(())
            }
            Some(Job::Snapshot { zxid, mut export, mut encoder, mut pieces }) => {
                // As a node that stops writing it: what comes next must not miss anything.
                if cx.rng.per_mille(2) {
                    store.shell.server.end_export();
                    cx.stats.count("snapshots given up");
                    return Ok(());
                }
                let most = cx.rng.between(1, PART) as usize;
                let Some((records, last)) = export.part(&mut store.shell.server, most, usize::MAX) else {
                    cx.stats.count("snapshots given up");
                    return Ok(());
                };
                records.into_iter().for_each(|record| encoder.push(record));
                pieces.extend(std::iter::from_fn(|| encoder.piece()));
                if last {
                    pieces.extend(encoder.rest());
                    return self.begin_snapshot(cx, zxid, &pieces);
                }
                store.job = Some(Job::Snapshot { zxid, export, encoder, pieces });
                let at = cx.now + cx.rng.between(20, 2_000);
                self.schedule(cx, at, NodeEvent::Checkpointed);
                Ok(())
            }
        }
    }

    fn begin_snapshot(&mut self, cx: &mut Context, zxid: Zxid, pieces: &[Bytes]) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        let view = process.quorum.shell.view();
        if !view.contains(zxid) {
            return Ok(());
        }
        let level = view.reader.level_at(zxid).unwrap_or_default();
        let roster = view.reader.roster_at(zxid);
        let mut writer = match process.snapshots.begin_with(zxid, level, roster) {
            Ok(writer) => writer,
            Err(error) if unsaved(&error) != Unsaved::Stop => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for piece in pieces {
            writer.chunk(piece)?;
        }
        process.store.saving = Some(writer);
        let at = cx.now + cx.rng.scale(1_000, 500_000);
        self.schedule(cx, at, NodeEvent::SnapshotWritten);
        Ok(())
    }

    pub(super) fn on_snapshot_written(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let sizes = cx.plan.sizes;
        let Some(process) = &mut self.up else { return Ok(()) };
        let Some(writer) = process.store.saving.take() else { return Ok(()) };
        let zxid = writer.zxid();
        match writer.finish() {
            Ok(()) => {}
            Err(error) if unsaved(&error) != Unsaved::Stop => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        cx.stats.count("snapshots");
        let keep =
            Keep { bytes: 0, entries: sizes.keep_entries, held: 16 * sizes.segment, slack: sizes.snap_slack };
        let saved = saved(&process.quorum.shell.view().reader, &process.snapshots, zxid, keep, false);
        self.tell_quorum(cx, saved);
        Ok(())
    }
}

/// Maximum number of znodes in a part of a snapshot.
const PART: u64 = 8;
/// A slow client takes at least this many bytes at once.
const SLOW: usize = 24 << 10;

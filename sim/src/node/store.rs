//! The store's loop: what the quorum feeds, what clients ask, and what the core says to both.

use std::collections::BTreeMap;

use api::ports::{FeedItem, Request, Role, Sign};
use api::session::{self, Item, Open};
use api::{CommandBody, Entry, SessionId, Time, WriteNumber, Zxid};
use bytes::Bytes;
use proto::store::{RecordDecoder, decode_command, encode_command};
use quorum_core::Input as QuorumInput;
use quorum_log::{ReadError, SnapshotError, SnapshotReader, SnapshotWriter};
use store_core::server::{Ask, Committed, ConnId, Drawn, Feed, Input, Output};
use store_core::{Changes, Server, State};

use super::disk::Task;
use super::quorum::{Tell, snap_before};
use super::table::Table;
use super::{Armed, ByLink, Node, Stop};
use crate::context::{Context, NodeEvent};
use crate::net::{LinkId, Packet};

/// A job of the checkpoint thread.
struct Job {
    changes: Changes,
    export: bool,
}

pub(crate) struct StoreShell {
    pub(crate) server: Server,
    turn: bool,
    pub(super) armed: Armed,
    /// Everything up to here was handed over.
    position: Zxid,
    /// A snapshot that is being handed over, with what came of it so far.
    incoming: Option<(SnapshotReader, RecordDecoder, Vec<api::record::Record>)>,
    /// Which session a connection speaks for.
    sessions: ByLink<SessionId>,
    /// For C8: when this node heard a session last, and since when it leads.
    heard: BTreeMap<SessionId, Time>,
    leads_since: Option<Time>,
    /// The reign, by its start, in which this node decided to close a session: a later sign of life does not count, and a close that
    /// did not get through is sent again.
    closing: BTreeMap<SessionId, Option<Time>>,
    epoch: api::Epoch,
    job: Option<Job>,
    saving: Option<SnapshotWriter>,
    /// The quorum needs a snapshot.
    wanted: bool,
    entries: u64,
}

impl StoreShell {
    pub(super) fn new(server: Server, position: Zxid) -> StoreShell {
        StoreShell {
            server,
            turn: false,
            armed: Armed::default(),
            position,
            incoming: None,
            sessions: ByLink::new(),
            heard: BTreeMap::new(),
            leads_since: None,
            closing: BTreeMap::new(),
            epoch: api::Epoch(0),
            job: None,
            saving: None,
            wanted: false,
            entries: 0,
        }
    }
}

fn decode(entry: Entry) -> Result<Committed, Stop> {
    let Entry { zxid, time_ms, origin, .. } = entry;
    let command = match entry.is_marker() {
        true => None,
        false => Some(decode_command(entry.payload).map_err(|e| Stop::Invariant(format!("{zxid}: {e}")))?),
    };
    Ok(Committed { zxid, time_ms, origin, command })
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
            if process.store.server.next_timeout().is_some_and(|at| at <= now) {
                process.store.server.handle(now, Input::Tick);
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
        while self.feed(cx)? {
            self.carry_out_store(cx)?;
        }
        self.carry_out_store(cx)?;
        if let Some(process) = &self.up {
            cx.ghost.applied(self.id, process.store.server.state());
            if let Some(timeout) = process.store.server.next_timeout() {
                let at = self.when(timeout);
                if self.up.as_mut().is_some_and(|p| p.store.armed.arm(at)) {
                    self.schedule(cx, at, NodeEvent::StoreTimer);
                }
            }
        }
        Ok(())
    }

    /// Hands over what is next; false if there is nothing.
    fn feed(&mut self, cx: &mut Context) -> Result<bool, Stop> {
        let Some(process) = &mut self.up else { return Ok(false) };
        if process.store.incoming.is_some() {
            return self.take_piece(cx).map(|()| true);
        }
        let upto = match process.quorum.tells.front() {
            None => return Ok(false),
            Some(Tell::Committed(upto)) => *upto,
            Some(Tell::Item(_)) => {
                if let Some(Tell::Item(item)) = process.quorum.tells.pop_front() {
                    self.take_item(cx, item);
                }
                return Ok(true);
            }
        };
        let store = &mut process.store;
        let view = &process.quorum.view;
        if store.position >= upto {
            if view.contains(store.position) || store.position == upto {
                process.quorum.tells.pop_front();
                return Ok(true);
            }
            return self.start_over(cx);
        }
        match view.read_after(store.position, upto, cx.plan.sizes.batch) {
            Ok(entries) => {
                let Some(last) = entries.last().map(|e| e.zxid) else {
                    return Err(Stop::Invariant(format!("the log ends before {upto}, which is committed")));
                };
                store.position = last;
                self.take_entries(cx, entries)?;
                Ok(true)
            }
            Err(ReadError::Purged { .. } | ReadError::NotThere { .. }) => self.start_over(cx),
            Err(ReadError::Log(error)) => Err(error.into()),
        }
    }

    fn take_entries(&mut self, cx: &mut Context, entries: Vec<Entry>) -> Result<(), Stop> {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return Ok(()) };
        let store = &mut process.store;
        store.entries += entries.len() as u64;
        let committed = entries.into_iter().map(decode).collect::<Result<Vec<_>, _>>()?;
        for entry in &committed {
            if let Some(CommandBody::OpenSession { .. }) = entry.command.as_ref().map(|c| &c.body) {
                store.heard.insert(SessionId(entry.zxid.0), now);
            }
        }
        store.server.handle(now, Input::Feed(Feed::Committed(committed)));
        Ok(())
    }

    fn take_item(&mut self, cx: &mut Context, item: FeedItem) {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        let store = &mut process.store;
        let feed = match item {
            FeedItem::Status(status) => {
                let leads = status.serving && status.role == Role::Leading;
                if !leads {
                    store.leads_since = None;
                } else if store.leads_since.is_none() || store.epoch != status.epoch {
                    store.leads_since = Some(now);
                }
                store.epoch = status.epoch;
                Feed::Status(status)
            }
            FeedItem::Barrier { ticket } => {
                cx.ghost.barrier_answered(self.id, ticket, store.position);
                Feed::Barrier(ticket)
            }
            FeedItem::Refused { ticket, why } => Feed::Refused { ticket, why },
            FeedItem::Lost { ticket } => Feed::Lost(ticket),
            FeedItem::SnapshotWanted => {
                store.wanted = true;
                return;
            }
            // The driver never makes these: the feed does.
            FeedItem::Committed(_)
            | FeedItem::SnapshotStart { .. }
            | FeedItem::SnapshotChunk(_)
            | FeedItem::SnapshotEnd => return,
        };
        store.server.handle(now, Input::Feed(feed));
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
        process.store.server.handle(now, Input::Sign(sign));
    }

    /// Whether log and snapshots have the whole state, so that the table may be lost.
    pub(crate) fn can_restore(&self) -> bool {
        self.up.as_ref().is_some_and(|p| p.snapshots.latest().is_some() || p.quorum.view.contains(Zxid::ZERO))
    }

    /// The store's state does not connect to the log: it gets a whole one.
    fn start_over(&mut self, cx: &mut Context) -> Result<bool, Stop> {
        loop {
            let Some(process) = &mut self.up else { return Ok(false) };
            let zxid = process.snapshots.latest().unwrap_or(Zxid::ZERO);
            cx.stats.count("stores started over");
            if zxid == Zxid::ZERO && !process.quorum.view.contains(zxid) {
                cx.stats.count("no snapshot left");
                process.quorum.tells.clear();
                return self.ask_disk(cx, Task::Forsake).map(|()| false);
            }
            if zxid == Zxid::ZERO {
                process.store.position = zxid;
                self.replace_state(cx, State::default());
                return Ok(true);
            }
            match process.snapshots.read(zxid) {
                Ok(reader) => {
                    process.store.position = zxid;
                    process.store.incoming = Some((reader, RecordDecoder::default(), Vec::new()));
                    return Ok(true);
                }
                Err(SnapshotError::Damaged { .. } | SnapshotError::NotThere { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take_piece(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        let Some((reader, decoder, records)) = &mut process.store.incoming else { return Ok(()) };
        let damaged = |e: &dyn std::fmt::Display| Stop::Invariant(format!("a snapshot is no state: {e}"));
        match reader.next_chunk() {
            Ok(Some(chunk)) => {
                decoder.push(&chunk);
                while let Some(record) = decoder.next_record().map_err(|e| damaged(&e))? {
                    records.push(record);
                }
            }
            Ok(None) => {
                let Some((_, decoder, records)) = process.store.incoming.take() else { return Ok(()) };
                decoder.finish().map_err(|e| damaged(&e))?;
                let state = State::load(records).map_err(|e| damaged(&e))?;
                self.replace_state(cx, state);
            }
            Err(SnapshotError::Damaged { .. }) => {
                process.store.incoming = None;
                self.start_over(cx)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn replace_state(&mut self, cx: &mut Context, mut state: State) {
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        state.forget_checkpoint();
        process.store.server.replace_state(now, state);
        process.store.entries = 0;
    }

    fn carry_out_store(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let (now, me) = (self.time(cx), self.end());
        let mut requests = Vec::new();
        while let Some(process) = &mut self.up
            && let Some(output) = process.store.server.poll_output()
        {
            let store = &mut process.store;
            match output {
                Output::Ask(asks) => {
                    for ask in asks {
                        requests.push(match ask {
                            Ask::Submit { ticket, command, trace } => {
                                self.check_expiry(cx, &command.body);
                                Request::Submit { ticket, payload: encode_command(command), trace }
                            }
                            Ask::Barrier { ticket } => Request::Barrier { ticket },
                            Ask::Report(report) => Request::Report(report),
                            Ask::Confirm { to, epoch, report } => Request::Confirm { to, epoch, report },
                        });
                    }
                }
                Output::Send { conn, items } => {
                    for item in &items {
                        if let Item::Opened(opened) = item {
                            // That a client takes a session up again counts once its node has reported it.
                            store.sessions.insert(conn.0, opened.session);
                        }
                    }
                    let bytes = items.iter().map(Item::weight).sum();
                    cx.send(conn.0, me, Packet::Items(items));
                    store.server.handle(now, Input::Drained { conn, bytes });
                }
                Output::Close { conn, why } => {
                    store.sessions.remove(&conn.0);
                    cx.close(conn.0, me, why.err());
                }
                Output::Diverged { at, own, leaders } => {
                    return Err(Stop::Invariant(format!(
                        "the digest behind {at} is {own:#x}, the leader's {leaders:#x}"
                    )));
                }
                Output::Stop { why } => return Err(Stop::Invariant(why)),
            }
        }
        if !requests.is_empty() {
            self.tell_quorum(cx, QuorumInput::Requests(requests));
        }
        Ok(())
    }

    fn check_expiry(&mut self, cx: &mut Context, body: &CommandBody) {
        let CommandBody::CloseSession { session, expired: Some(_) } = *body else { return };
        let now = self.time(cx);
        let Some(process) = &mut self.up else { return };
        let store = &mut process.store;
        let Some(info) = store.server.state().session(session) else { return };
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

    pub(super) fn client_opens(&mut self, cx: &mut Context, link: LinkId, open: Open, drawn: Drawn) {
        self.tell_store(cx, Input::Open { conn: ConnId(link), open, drawn });
    }

    pub(super) fn client_asks(
        &mut self,
        cx: &mut Context,
        link: LinkId,
        acked: WriteNumber,
        requests: Vec<session::Request>,
    ) {
        self.tell_store(cx, Input::Requests { conn: ConnId(link), acked, requests });
    }

    pub(super) fn client_calls(&mut self, cx: &mut Context, link: LinkId, op: session::Op) {
        self.tell_store(cx, Input::Unary { conn: ConnId(link), op, trace: None });
    }

    pub(super) fn client_over(&mut self, cx: &mut Context, link: LinkId) {
        if let Some(process) = &mut self.up {
            process.store.sessions.remove(&link);
        }
        self.tell_store(cx, Input::Closed { conn: ConnId(link) });
    }

    fn tell_store(&mut self, cx: &mut Context, input: Input) {
        let now = self.time(cx);
        if let Some(process) = &mut self.up {
            process.store.server.handle(now, input);
            self.wake_store(cx);
        }
    }

    // ---- checkpoints and snapshots ----

    /// Begins a checkpoint or a snapshot if one is due.
    pub(super) fn keep(&mut self, cx: &mut Context) {
        let at = cx.now + super::KEEP_EVERY;
        self.schedule(cx, at, NodeEvent::Keep);
        let restorable = self.can_restore();
        let Some(process) = &mut self.up else { return };
        let store = &mut process.store;
        if store.job.is_some() || store.saving.is_some() {
            return;
        }
        let export = store.entries >= cx.plan.sizes.snapshot_entries || store.wanted;
        if !export && store.server.state().dirty_len() == 0 {
            return;
        }
        store.entries = if export { 0 } else { store.entries };
        store.wanted &= !export;
        // Now and then the disk does not take it, and the next one has to bring everything.
        if restorable && cx.rng.per_mille(20) {
            drop(store.server.take_dirty());
            store.server.forget_checkpoint();
            self.table = None;
            cx.stats.count("checkpoints lost");
            return;
        }
        store.job = Some(Job { changes: store.server.take_dirty(), export });
        let at = cx.now + cx.rng.between(100, 50_000);
        self.schedule(cx, at, NodeEvent::Checkpointed);
    }

    pub(super) fn on_checkpointed(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let piece = cx.plan.sizes.piece;
        let Some(process) = &mut self.up else { return Ok(()) };
        let Some(Job { changes, export }) = process.store.job.take() else { return Ok(()) };
        let table = self.table.get_or_insert_with(Table::new);
        table.write(changes);
        if export {
            let (zxid, pieces) = (table.header.applied, table.pieces(piece));
            return self.begin_snapshot(cx, zxid, &pieces);
        }
        Ok(())
    }

    fn begin_snapshot(&mut self, cx: &mut Context, zxid: Zxid, pieces: &[Bytes]) -> Result<(), Stop> {
        let Some(process) = &mut self.up else { return Ok(()) };
        if !process.quorum.view.contains(zxid) {
            return Ok(());
        }
        let mut writer = match process.snapshots.begin(zxid) {
            Ok(writer) => writer,
            Err(SnapshotError::Busy | SnapshotError::TooOld { .. }) => return Ok(()),
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
            Err(SnapshotError::Superseded { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        cx.stats.count("snapshots");
        let reader = &process.quorum.view.reader;
        let kept = reader.back_from(zxid, 0, sizes.keep_entries);
        let purge_to = process.snapshots.older().map(|older| older.min(kept));
        let snap_before = snap_before(reader, &process.snapshots, zxid, sizes.snap_slack);
        let hold_from = reader.back_from(zxid, 16 * sizes.segment, 0);
        let saved = QuorumInput::SnapshotSaved { zxid, purge_to, hold_from, snap_before };
        self.tell_quorum(cx, saved);
        Ok(())
    }
}

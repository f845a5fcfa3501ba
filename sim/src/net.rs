//! The network: connections with two directions, each of which keeps its order.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use api::peer::{Acquaintance, Damage};
use api::session::{Item, Op, Open, Request};
use api::{Entry, Greeting, Identities, Level, OpError, Roster, WriteNumber, Zxid};
use bytes::Bytes;
use election_core::Notification;
use quorum_core::{ToLeader, ToLearner};
use store_core::server::Drawn;

use crate::context::{Context, Event};

/// A process at an end of a connection: an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum End {
    Node(usize),
    Client(usize),
}

/// A connection; never used twice.
pub(crate) type LinkId = u64;

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Election,
    Quorum,
    /// Of two quorums that tell each other which incarnation of their directories they are.
    Meeting,
    Client,
}

/// What two quorums say to each other first.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) greeting: Rc<Greeting>,
    pub(crate) said: Acquaintance,
    pub(crate) damage: Damage,
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// `None`: still here.
    Election(Option<Notification>, Rc<Greeting>),
    /// The first message of each side, for a quorum or a meeting, and later ones of a meeting.
    Hello(Hello),
    ToLeader(ToLeader),
    ToLearner(ToLearner),
    SnapStart(Zxid, Level, Arc<Roster>),
    SnapChunk(Bytes),
    SnapEnd,
    /// This many bytes of the message that follows the pieces.
    Piece(u64),
    Open(Open, Drawn, Identities),
    Requests {
        acked: WriteNumber,
        requests: Vec<Request>,
    },
    /// One request of a client without a session.
    Unary(Op),
    Items(Vec<Item>),
    /// The end of the connection, and why.
    Fin(Option<OpError>),
}

impl Packet {
    /// What it is on the wire, roughly, in bytes. What clients say and hear counts for nothing: their links are never thin.
    fn size(&self) -> u64 {
        let contents = match self {
            Packet::ToLeader(ToLeader::Forward(batch)) => batch.iter().map(|s| s.payload.len()).sum(),
            Packet::ToLeader(ToLeader::Report(report)) => report.len(),
            Packet::ToLearner(ToLearner::Propose { entries, .. }) => entries.iter().map(Entry::weight).sum(),
            Packet::SnapChunk(chunk) => chunk.len(),
            Packet::Piece(bytes) => return *bytes,
            _ => 0,
        };
        64 + contents as u64
    }

    /// Whether it goes in pieces if it is large.
    fn is_divided(&self) -> bool {
        matches!(self, Packet::ToLeader(ToLeader::Forward(_)) | Packet::ToLearner(ToLearner::Propose { .. }))
    }

    /// Whether it goes on a connection of its own beside the data, so that it may overtake that.
    fn is_control(&self) -> bool {
        match self {
            Packet::ToLeader(message) => message.is_control(),
            Packet::ToLearner(message) => message.is_control(),
            _ => false,
        }
    }
}

/// One direction.
#[derive(Default, Debug)]
struct Direction {
    /// With the times of arrival.
    queue: VecDeque<(u64, Packet)>,
    last: u64,
    /// When the last byte of the last packet is on the line.
    sent: u64,
    /// The same two of what goes beside the data.
    last_control: u64,
    sent_control: u64,
    /// Whether the arrival of the first is in the event queue; if not, it is held up by a partition.
    scheduled: bool,
    /// Swallows everything.
    black: bool,
}

/// A connection. End 0 is the one that dialled.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) kind: Kind,
    pub(crate) ends: [End; 2],
    /// Which end knows it as open.
    pub(crate) open: [bool; 2],
    /// Until then an end that has let go of it still takes in what arrives: tasks of a real node end a little later.
    lingers: [u64; 2],
    began: u64,
    directions: [Direction; 2],
}

/// All connections, and what is wrong with them.
#[derive(Default, Debug)]
pub(crate) struct Net {
    pub(crate) links: BTreeMap<LinkId, Link>,
    last: LinkId,
    nodes: usize,
    ends: usize,
    /// How many partitions cut this way.
    blocked: Vec<u32>,
    /// How many times longer this way takes.
    slow: Vec<u64>,
    /// Bytes per second that pass this way on each connection, where a fault says so.
    thin: Vec<Option<u64>>,
}

/// See [`Link::lingers`].
const LINGER: u64 = 50_000;

/// An attempt to connect takes this long at most.
pub(crate) const CONNECT_LIMIT: u64 = 1_000_000;

impl Net {
    pub(crate) fn new(nodes: usize, clients: usize) -> Net {
        let ends = nodes + clients;
        Net {
            nodes,
            ends,
            blocked: vec![0; ends * ends],
            slow: vec![1; ends * ends],
            thin: vec![None; ends * ends],
            ..Net::default()
        }
    }

    fn place(&self, from: End, to: End) -> usize {
        let index = |end| match end {
            End::Node(i) => i,
            End::Client(i) => self.nodes + i,
        };
        index(from) * self.ends + index(to)
    }

    pub(crate) fn is_blocked(&self, from: End, to: End) -> bool {
        self.blocked[self.place(from, to)] > 0
    }

    /// Cuts a way, or undoes one cut of it.
    pub(crate) fn block(&mut self, from: End, to: End, cut: bool) {
        let place = self.place(from, to);
        self.blocked[place] =
            if cut { self.blocked[place] + 1 } else { self.blocked[place].saturating_sub(1) };
    }

    pub(crate) fn slow_down(&mut self, from: End, to: End, factor: u64) {
        let place = self.place(from, to);
        self.slow[place] = factor;
    }

    /// At most `bandwidth` bytes per second pass from now on; `None`: as many as the plan says.
    pub(crate) fn make_thin(&mut self, from: End, to: End, bandwidth: Option<u64>) {
        let place = self.place(from, to);
        self.thin[place] = bandwidth;
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.fill(0);
        self.slow.fill(1);
    }

    /// Connections that `end` is at.
    pub(crate) fn links_of(&self, end: End) -> Vec<LinkId> {
        self.links.iter().filter(|(_, l)| l.ends.contains(&end)).map(|(&id, _)| id).collect()
    }

    /// Connections between the two.
    pub(crate) fn links_between(&self, a: End, b: End) -> Vec<LinkId> {
        let between = |l: &Link| l.ends == [a, b] || l.ends == [b, a];
        self.links.iter().filter(|(_, l)| between(l)).map(|(&id, _)| id).collect()
    }

    /// What a connection between two nodes is for, and its ends, the one that dialled first; `None` if one of them no longer has it.
    pub(crate) fn dialled(&self, link: LinkId) -> Option<(Kind, End, End)> {
        let link = self.links.get(&link).filter(|l| l.open == [true, true] && l.kind != Kind::Client)?;
        Some((link.kind, link.ends[0], link.ends[1]))
    }

    /// The number of this end; `None` if the connection is gone.
    pub(crate) fn side(&self, link: LinkId, end: End) -> Option<usize> {
        self.links.get(&link)?.ends.iter().position(|&e| e == end)
    }

    /// Whether this end knows the connection as open.
    pub(crate) fn is_open(&self, link: LinkId, end: End) -> bool {
        self.side(link, end).is_some_and(|side| self.links[&link].open[side])
    }

    /// No process is left at this end that could take in what arrives late.
    pub(crate) fn end_lingers(&mut self, link: LinkId, end: End) {
        if let Some(side) = self.side(link, end)
            && let Some(link) = self.links.get_mut(&link)
        {
            link.lingers[side] = 0;
        }
    }

    /// Whether packets that arrive at this end are taken in.
    pub(crate) fn takes(&self, link: LinkId, side: usize, now: u64) -> bool {
        self.links.get(&link).is_some_and(|l| l.open[side] || now < l.lingers[side])
    }

    /// Packets of `end` with data that are on their way.
    pub(crate) fn in_flight(&self, link: LinkId, end: End) -> usize {
        let data =
            |side: usize| self.links[&link].directions[side].queue.iter().filter(|(_, p)| !p.is_control());
        self.side(link, end).map_or(0, |side| data(side).count())
    }
}

impl Context {
    /// What a message takes.
    pub(crate) fn latency(&mut self, from: End, to: End) -> u64 {
        let network = self.plan.network;
        let takes = if network.spikes > 0 && self.rng.per_mille(network.spikes) {
            self.rng.between(network.max, network.spike.max(network.max))
        } else {
            self.rng.between(network.min, network.max)
        };
        takes * self.net.slow[self.net.place(from, to)]
    }

    /// How long a message is on its way onto the line, after those before it on the same connection.
    fn transmission(&self, from: End, to: End, bytes: u64) -> u64 {
        let (End::Node(_), End::Node(_)) = (from, to) else { return 0 };
        let usual = self.plan.network.bandwidth;
        let bandwidth = self.net.thin[self.net.place(from, to)].unwrap_or(usual);
        (bytes * 1_000_000).checked_div(bandwidth).unwrap_or_default()
    }

    /// Begins to connect. Both ends hear of it by events.
    pub(crate) fn dial(&mut self, kind: Kind, from: End, to: End) -> LinkId {
        self.net.last += 1;
        let link = self.net.last;
        let directions = [Direction::default(), Direction::default()];
        let began = self.now;
        let ends = [from, to];
        self.net
            .links
            .insert(link, Link { kind, ends, open: [true, false], lingers: [0; 2], began, directions });
        // The end that dials gives up in time, however slow the way is.
        let arrives = self.now + self.latency(from, to).min(CONNECT_LIMIT);
        self.schedule(arrives, Event::Dialing { link });
        link
    }

    /// The other end of `link` answers, or there is no answer: `listening` says whether there is a process (`None`: one that
    /// does not react).
    pub(crate) fn on_dialing(&mut self, link: LinkId, listening: Option<bool>) -> bool {
        let Some(&Link { ends: [from, to], began, .. }) = self.net.links.get(&link) else { return false };
        let cut = self.net.is_blocked(from, to) || self.net.is_blocked(to, from);
        let back = self.now + self.latency(to, from);
        let in_time = back < began + CONNECT_LIMIT;
        match listening {
            Some(true) if !cut && in_time => {
                if let Some(link) = self.net.links.get_mut(&link) {
                    link.open[1] = true;
                    link.directions[1].last = back;
                }
                self.schedule(back, Event::Dialed { link, connected: true });
                true
            }
            _ => {
                let refused = listening == Some(false) && !cut && in_time;
                let at = if refused { back } else { began + CONNECT_LIMIT };
                self.schedule(at.max(self.now), Event::Dialed { link, connected: false });
                false
            }
        }
    }

    /// Sends, if this end still has the connection.
    pub(crate) fn send(&mut self, link: LinkId, from: End, packet: Packet) {
        let Some(side) = self.net.side(link, from) else { return };
        if !self.net.links[&link].open[side] {
            return;
        }
        let (mut bytes, piece) = (packet.size(), self.plan.sizes.piece as u64);
        // Where the line is fast this makes no difference.
        if packet.is_divided() && self.transmission(from, self.net.links[&link].ends[1 - side], bytes) > 0 {
            while bytes > 2 * piece {
                self.push(link, side, Packet::Piece(piece), piece);
                bytes -= piece;
            }
        }
        self.push(link, side, packet, bytes);
    }

    fn push(&mut self, id: LinkId, side: usize, packet: Packet, bytes: u64) {
        let Some(&Link { ends, .. }) = self.net.links.get(&id) else { return };
        let takes = self.latency(ends[side], ends[1 - side]);
        let transmission = self.transmission(ends[side], ends[1 - side], bytes);
        let now = self.now;
        let Some(link) = self.net.links.get_mut(&id) else { return };
        let direction = &mut link.directions[side];
        if direction.black {
            return;
        }
        let control = packet.is_control();
        let sent = if control { &mut direction.sent_control } else { &mut direction.sent };
        *sent = (*sent).max(now) + transmission;
        let arrives = *sent + takes;
        let at = match packet {
            Packet::Fin(_) => arrives.max(direction.last).max(direction.last_control),
            _ if control => arrives.max(direction.last_control),
            _ => arrives.max(direction.last),
        };
        *(if control { &mut direction.last_control } else { &mut direction.last }) = at;
        let place = direction.queue.partition_point(|(arrives, _)| *arrives <= at);
        direction.queue.insert(place, (at, packet));
        if !std::mem::replace(&mut direction.scheduled, true) || place == 0 {
            self.schedule(at, Event::Arrival { link: id, side });
        }
    }

    /// A way is no longer thin: what has queued up before it arrives now.
    pub(crate) fn widen(&mut self, from: End, to: End) {
        self.net.make_thin(from, to, None);
        for link in self.net.links_between(from, to) {
            let Some(side) = self.net.side(link, from) else { continue };
            let now = self.now;
            let Some(direction) = self.net.links.get_mut(&link).map(|l| &mut l.directions[side]) else {
                continue;
            };
            direction.queue.iter_mut().for_each(|(at, _)| *at = now.min(*at));
            (direction.sent, direction.sent_control) = (now, now);
            (direction.last, direction.last_control) = (now, now);
            if !direction.queue.is_empty() {
                direction.scheduled = true;
                self.schedule(now, Event::Arrival { link, side });
            }
        }
    }

    /// The packets of this direction that arrive now.
    pub(crate) fn arrivals(&mut self, id: LinkId, side: usize) -> Vec<Packet> {
        let Some(link) = self.net.links.get(&id) else { return Vec::new() };
        let cut = self.net.is_blocked(link.ends[side], link.ends[1 - side]);
        let now = self.now;
        let Some(link) = self.net.links.get_mut(&id) else { return Vec::new() };
        let direction = &mut link.directions[side];
        direction.scheduled = false;
        if cut {
            return Vec::new();
        }
        let count = direction.queue.iter().take_while(|(at, _)| *at <= now).count();
        let arrived: Vec<Packet> = direction.queue.drain(..count).map(|(_, packet)| packet).collect();
        if let Some(&(at, _)) = direction.queue.front() {
            direction.scheduled = true;
            self.schedule(at, Event::Arrival { link: id, side });
        }
        arrived
    }

    /// The process at this end is about to end the connection, and the task that reads from it hears of that a moment later.
    pub(crate) fn linger(&mut self, id: LinkId, at: End) {
        let until = self.now + self.rng.below(LINGER);
        if let Some(side) = self.net.side(id, at)
            && let Some(link) = self.net.links.get_mut(&id)
        {
            link.lingers[side] = until;
        }
    }

    /// This end ends the connection; the other hears of it behind everything that was sent.
    pub(crate) fn close(&mut self, id: LinkId, from: End, why: Option<OpError>) {
        let Some(side) = self.net.side(id, from) else { return };
        let Some(link) = self.net.links.get_mut(&id) else { return };
        if std::mem::replace(&mut link.open[side], false) {
            self.push(id, side, Packet::Fin(why), 0);
        }
        self.forget_if_over(id);
    }

    /// This end has heard that the connection is over.
    pub(crate) fn ended(&mut self, id: LinkId, at: End) {
        if let Some(side) = self.net.side(id, at)
            && let Some(link) = self.net.links.get_mut(&id)
        {
            (link.open[side], link.lingers[side]) = (false, 0);
            self.forget_if_over(id);
        }
    }

    pub(crate) fn forget_if_over(&mut self, id: LinkId) {
        let Some(link) = self.net.links.get(&id).filter(|l| l.open == [false, false]) else { return };
        let until = link.lingers[0].max(link.lingers[1]);
        if until > self.now {
            self.schedule(until, Event::Forget { link: id });
        } else {
            self.net.links.remove(&id);
        }
    }

    /// A connection breaks. Each end hears of it within `within`; some of what is under way may still arrive, before or after:
    /// then no end takes it any more. Now and then it is late, so that there may be a newer connection by then.
    pub(crate) fn break_link(&mut self, id: LinkId, within: u64) {
        let Some(link) = self.net.links.get_mut(&id) else { return };
        let open = link.open;
        for direction in &mut link.directions {
            direction.black = true;
        }
        for (side, open) in open.into_iter().enumerate() {
            let late = self.rng.per_mille(300);
            let kept = self.rng.below(if late { 16 } else { 4 }) as usize;
            let delay = if late { self.rng.below(within + 1) } else { 0 };
            if let Some(link) = self.net.links.get_mut(&id) {
                let direction = &mut link.directions[side];
                direction.queue.truncate(kept);
                for (arrives, _) in &mut direction.queue {
                    *arrives += delay;
                }
                direction.last += delay;
                direction.last_control += delay;
            }
            if open {
                let at = self.now + self.rng.below(within + 1);
                self.schedule(at, Event::Broken { link: id, side });
            }
        }
    }

    /// From now on, what one end says over its present connections vanishes.
    pub(crate) fn swallow(&mut self, from: End, to: End) {
        for id in self.net.links_between(from, to) {
            if let Some(side) = self.net.side(id, from)
                && let Some(link) = self.net.links.get_mut(&id)
            {
                link.directions[side].black = true;
            }
        }
    }

    /// Lets go on what was held up by a partition that is over.
    pub(crate) fn resume_links(&mut self) {
        let held: Vec<(LinkId, usize)> = (self.net.links.iter())
            .flat_map(|(&id, link)| (0..2).map(move |side| (id, side, &link.directions[side])))
            .filter(|(_, _, d)| !d.scheduled && !d.queue.is_empty())
            .map(|(id, side, _)| (id, side))
            .collect();
        for (id, side) in held {
            let at = self.now + self.rng.between(1, 200_000);
            if let Some(link) = self.net.links.get_mut(&id) {
                let direction = &mut link.directions[side];
                direction.scheduled = true;
                direction.last = direction.last.max(at);
                direction.last_control = direction.last_control.max(at);
                for (arrives, _) in &mut direction.queue {
                    *arrives = (*arrives).max(at);
                }
            }
            self.schedule(at, Event::Arrival { link: id, side });
        }
    }
}

//! The connections between learners and leaders, each with what is under way on it, in its order.

use api::PeerId;
use quorum_core::Conn;

/// The number of a message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Message(pub(crate) u32);

/// A connection. Both ends know it by the same number, and a number is free again when both have forgotten it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Link {
    pub(crate) conn: Conn,
    pub(crate) learner: usize,
    pub(crate) leader: usize,
    /// Messages under way, the oldest first.
    pub(crate) up: Vec<Message>,
    pub(crate) down: Vec<Message>,
    /// This end still listens.
    pub(crate) learner_open: bool,
    pub(crate) leader_open: bool,
    /// This direction carries no more messages, and the receiver may notice at any time: a connection that
    /// breaks loses any part of the messages under way, from some point on.
    pub(crate) up_ended: bool,
    pub(crate) down_ended: bool,
}

/// All connections, by their numbers.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Net {
    pub(crate) links: Vec<Link>,
}

/// Server number `i` of a model is this member.
pub(crate) fn peer(i: usize) -> PeerId {
    PeerId(i as u32 + 1)
}

impl Net {
    /// Connects a learner. The numbers depend on the pair and on what is left of older connections of this pair only,
    /// so that the order in which servers connect does not show.
    pub(crate) fn connect(&mut self, learner: usize, leader: usize) -> Conn {
        let first = (learner as u64 * 10 + leader as u64) * 10;
        let mut conn = Conn(first);
        while self.links.iter().any(|l| l.conn == conn) {
            conn.0 += 1;
        }
        let link = Link {
            conn,
            learner,
            leader,
            up: Vec::new(),
            down: Vec::new(),
            learner_open: true,
            leader_open: true,
            up_ended: false,
            down_ended: false,
        };
        let at = self.links.partition_point(|l| l.conn < conn);
        self.links.insert(at, link);
        conn
    }

    pub(crate) fn link(&mut self, conn: Conn) -> Option<&mut Link> {
        self.links.iter_mut().find(|l| l.conn == conn)
    }

    /// One end leaves.
    pub(crate) fn close(&mut self, conn: Conn, who: usize) {
        let Some(link) = self.link(conn) else { return };
        if link.learner == who {
            link.learner_open = false;
            link.up_ended = true;
            link.down.clear();
        } else {
            link.leader_open = false;
            link.down_ended = true;
            link.up.clear();
        }
        self.links.retain(|l| l.learner_open || l.leader_open);
    }

    /// Neither end can say anything more; each will hear of it.
    pub(crate) fn cut(&mut self, conn: Conn) {
        if let Some(link) = self.link(conn) {
            (link.up_ended, link.down_ended) = (true, true);
        }
    }

    /// Both ends of a server's connections that were its own are gone.
    pub(crate) fn died(&mut self, who: usize) {
        let conns: Vec<Conn> =
            self.links.iter().filter(|l| l.learner == who || l.leader == who).map(|l| l.conn).collect();
        conns.into_iter().for_each(|conn| self.close(conn, who));
    }

    pub(crate) fn send_up(&mut self, conn: Conn, message: Message) {
        if let Some(link) = self.link(conn)
            && link.leader_open
            && !link.up_ended
        {
            link.up.push(message);
        }
    }

    pub(crate) fn send_down(&mut self, conn: Conn, message: Message) {
        if let Some(link) = self.link(conn)
            && link.learner_open
            && !link.down_ended
        {
            link.down.push(message);
        }
    }
}

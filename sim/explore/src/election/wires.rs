//! The links between servers, one for each pair, with what is under way in each direction.

/// The number of a notification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Message(pub(crate) u32);

/// One direction of a link.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
struct Wire {
    /// The oldest first.
    under_way: Vec<Message>,
    /// The sender believes that the link stands.
    known: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Wires {
    count: usize,
    /// From `i` to `j` at `i * count + j`.
    wires: Vec<Wire>,
    /// Whether the link stands, at the same place for both directions.
    stands: Vec<bool>,
}

impl Wires {
    pub(crate) fn new(count: usize) -> Wires {
        Wires { count, wires: vec![Wire::default(); count * count], stands: vec![false; count * count] }
    }

    fn at(&self, i: usize, j: usize) -> usize {
        i * self.count + j
    }

    pub(crate) fn linked(&self, i: usize, j: usize) -> bool {
        self.stands[self.at(i, j)]
    }

    pub(crate) fn quiet(&self) -> bool {
        self.wires.iter().all(|w| w.under_way.is_empty())
    }

    pub(crate) fn waiting(&self, from: usize, to: usize) -> bool {
        !self.wires[self.at(from, to)].under_way.is_empty()
    }

    pub(crate) fn next(&self, from: usize, to: usize) -> Option<Message> {
        self.wires[self.at(from, to)].under_way.first().copied()
    }

    /// The link is gone, and this end of it does not know.
    pub(crate) fn unnoticed(&self, i: usize, j: usize) -> bool {
        self.wires[self.at(i, j)].known && !self.linked(i, j)
    }

    /// Both ends have a new link.
    pub(crate) fn connect(&mut self, i: usize, j: usize) {
        for (from, to) in [(i, j), (j, i)] {
            let at = self.at(from, to);
            self.wires[at] = Wire { under_way: Vec::new(), known: true };
            self.stands[at] = true;
        }
    }

    /// Messages under way are lost.
    pub(crate) fn cut(&mut self, i: usize, j: usize) {
        for (from, to) in [(i, j), (j, i)] {
            let at = self.at(from, to);
            self.wires[at].under_way.clear();
            self.stands[at] = false;
        }
    }

    pub(crate) fn died(&mut self, who: usize) {
        for other in (0..self.count).filter(|&j| j != who) {
            self.cut(who, other);
            let at = self.at(who, other);
            self.wires[at].known = false;
        }
    }

    pub(crate) fn notice(&mut self, i: usize, j: usize) {
        let at = self.at(i, j);
        self.wires[at].known = false;
    }

    /// Over a link that stands; where too much waits, the newest takes the place of the one before it.
    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message, most: usize) {
        if !self.linked(from, to) {
            return;
        }
        let at = self.at(from, to);
        let wire = &mut self.wires[at].under_way;
        if wire.len() == most {
            wire.pop();
        }
        wire.push(message);
    }

    pub(crate) fn take(&mut self, from: usize, to: usize) -> Option<Message> {
        let at = self.at(from, to);
        let wire = &mut self.wires[at].under_way;
        (!wire.is_empty()).then(|| wire.remove(0))
    }
}

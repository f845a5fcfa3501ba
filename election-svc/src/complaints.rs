use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use api::PeerId;

/// Logged faults. A fault of every retry is logged only once.
#[derive(Default, Debug)]
pub(crate) struct Complaints {
    made: Mutex<BTreeMap<String, PeerId>>,
}

impl Complaints {
    /// Whether to log `text` about `peer`: it is new since the last [`Complaints::settle`] of that
    /// peer.
    pub(crate) fn is_new(&self, peer: PeerId, text: &str) -> bool {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.contains_key(text) {
            return false;
        }
        if made.len() >= REMEMBERED {
            made.clear();
        }
        made.insert(text.to_owned(), peer);
        true
    }

    /// Forgets the faults of `peer`, because a link to it exists now.
    pub(crate) fn settle(&self, peer: PeerId) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, about| *about != peer);
    }
}

/// Maximum number of remembered faults. Beyond it all are forgotten, and may be logged again.
const REMEMBERED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_made_once_until_there_is_a_link() {
        let complaints = Complaints::default();
        assert!(complaints.is_new(PeerId(1), "1 is down"));
        assert!(complaints.is_new(PeerId(2), "2 is down"));
        assert!(!complaints.is_new(PeerId(1), "1 is down"));
        complaints.settle(PeerId(1));
        assert!(complaints.is_new(PeerId(1), "1 is down"));
        assert!(!complaints.is_new(PeerId(2), "2 is down"));
    }

    #[test]
    fn the_memory_for_complaints_is_bounded() {
        let complaints = Complaints::default();
        for i in 0..10 * REMEMBERED {
            assert!(complaints.is_new(PeerId(1), &i.to_string()));
            assert!(complaints.made.lock().unwrap().len() <= REMEMBERED);
        }
    }
}

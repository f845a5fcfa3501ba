//! The order of votes.

use api::ports::Candidate;
use api::{Epoch, PeerId, Zxid};
use election_core::Vote;
use proptest::prelude::*;

fn votes() -> impl Strategy<Value = Vote> {
    // Small numbers make ties in each field common.
    (0u32..3, 0u64..3, 1u32..4).prop_map(|(epoch, zxid, id)| Vote {
        candidate: Candidate { epoch: Epoch(epoch), zxid: Zxid(zxid) },
        leader: PeerId(id),
    })
}

proptest! {
    #[test]
    fn s4_votes_are_ordered_by_epoch_then_zxid_then_id(a in votes(), b in votes()) {
        let better = a.candidate.epoch > b.candidate.epoch
            || (a.candidate.epoch == b.candidate.epoch
                && (a.candidate.zxid > b.candidate.zxid
                    || (a.candidate.zxid == b.candidate.zxid && a.leader > b.leader)));
        prop_assert_eq!(a > b, better);
        prop_assert!(Some(a) > None);
    }

    #[test]
    fn s4_the_best_vote_does_not_depend_on_the_order_of_arrival(
        (arrived, shuffled) in prop::collection::vec(votes(), 1..8)
            .prop_flat_map(|v| (Just(v.clone()), Just(v).prop_shuffle())),
    ) {
        prop_assert_eq!(arrived.iter().max(), shuffled.iter().max());
    }
}

#[test]
fn a_reign_is_a_leader_in_an_epoch() {
    let vote = |id, epoch, zxid| Vote {
        candidate: Candidate { epoch: Epoch(epoch), zxid: Zxid(zxid) },
        leader: PeerId(id),
    };
    assert!(vote(1, 5, 7).same_reign(&vote(1, 5, 9)));
    assert!(!vote(1, 5, 7).same_reign(&vote(1, 6, 7)));
    assert!(!vote(1, 5, 7).same_reign(&vote(2, 5, 7)));
}

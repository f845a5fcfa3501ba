//! Answers to reads: how large they will be, and several in one.

use super::connection::LISTED_AT_ONCE;
use api::{DATA_MAX, Identities, Page, Read, ReadOutcome};

use super::*;

/// Most bytes of the answer to a read of several parts: the largest value fits, and all of it into a message.
const ANSWER_MAX: usize = DATA_MAX as usize + (256 << 10);

/// Most names that the parts of one read list together, but for one name of each part: others wait meanwhile.
const NAMES_MAX: usize = 2 * Page::NAMES_MAX as usize;

/// About how many bytes the answer to a read will have.
pub(super) fn expected(op: &Op, state: &State) -> usize {
    match op {
        Op::Read(read, _) => state.tree().weight_of(read),
        Op::MultiRead(reads, _) => {
            let each = |read| Request::WEIGHT / 2 + state.tree().weight_of(read);
            reads.iter().map(each).sum::<usize>().min(ANSWER_MAX)
        }
        Op::Ephemerals { .. } => Page::BYTES_MAX,
        _ => 0,
    }
}

/// Answers several questions at once. Those whose answers do not fit any more fail, each on its own; pages become shorter before.
pub(super) fn read_all(
    reads: &[Read],
    state: &State,
    identities: &Identities,
) -> Vec<Result<ReadOutcome, OpError>> {
    let (mut bytes, mut names) = (0, 0);
    let answer = |read: &Read| {
        let shorter = match read {
            Read::Children { path, page } => {
                let left = NAMES_MAX.saturating_sub(names).clamp(1, page.names_max());
                let page = Page { size: left as u32, ..page.clone() };
                Some(Read::Children { path: path.clone(), page })
            }
            _ => None,
        };
        let read = shorter.as_ref().unwrap_or(read);
        let weight = Request::WEIGHT / 2 + state.tree().weight_of(read);
        if bytes + weight > ANSWER_MAX {
            return Err(OpError::AnswerTooLarge { size: (bytes + weight) as u64, limit: ANSWER_MAX as u64 });
        }
        let answer = state.read_as(read, identities);
        bytes += Request::WEIGHT / 2 + answer.as_ref().map_or(0, ReadOutcome::weight);
        names += answer.as_ref().map_or(0, names_of);
        answer
    };
    reads.iter().map(answer).collect()
}

/// Names and znodes that an answer lists.
pub(super) fn listed(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Read(read) => names_of(read),
        Outcome::MultiRead(reads) => reads.iter().flatten().map(|read| 1 + names_of(read)).sum(),
        // All of the session were looked at.
        Outcome::Ephemerals { .. } => LISTED_AT_ONCE,
        _ => 0,
    }
}

fn names_of(read: &ReadOutcome) -> usize {
    match read {
        ReadOutcome::Children { names, .. } => names.len(),
        ReadOutcome::Listed(listing) => listing.children.len(),
        ReadOutcome::Quotas { quotas, .. } => quotas.len(),
        _ => 0,
    }
}

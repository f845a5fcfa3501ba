//! Answers to reads: how large they will be, and several in one.

use super::connection::LISTED_AT_ONCE;
use api::{DATA_MAX, Identities, Page, Read, ReadOutcome};

use super::*;

/// Most bytes of the answer to a read of several parts: the largest value fits, and all of it into a message.
const ANSWER_MAX: usize = DATA_MAX as usize + (256 << 10);

/// A part that is too large takes no more than this: every part has so much room.
const REFUSED: usize = 160;

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
    let answer = |(i, read): (usize, &Read)| {
        let rest = (reads.len() - i) * REFUSED;
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
        if bytes + weight + rest > ANSWER_MAX {
            bytes += REFUSED;
            return too_large(bytes + weight);
        }
        let answer = state.read_as(read, identities);
        // An error names the path twice: to people and to programs.
        let weight = match &answer {
            Ok(answer) => Request::WEIGHT / 2 + answer.weight(),
            Err(_) => 2 * REFUSED + 2 * read.path().as_str().len(),
        };
        if bytes + weight + rest > ANSWER_MAX {
            bytes += REFUSED;
            return too_large(bytes + weight);
        }
        bytes += weight;
        names += answer.as_ref().map_or(0, names_of);
        answer
    };
    reads.iter().enumerate().map(answer).collect()
}

fn too_large(size: usize) -> Result<ReadOutcome, OpError> {
    Err(OpError::AnswerTooLarge { size: size as u64, limit: ANSWER_MAX as u64 })
}

/// Names and znodes that an answer lists.
pub(super) fn listed(outcome: &Outcome) -> usize {
    match outcome {
        // All of the ensemble were looked at.
        Outcome::Read(ReadOutcome::Quotas { .. }) => LISTED_AT_ONCE,
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

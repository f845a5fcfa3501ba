//! Answers to reads: their expected size, and multi-part reads.

use api::{DATA_MAX, Identities, Page, Read, ReadOutcome};

use super::*;

/// Maximum size of the answer to a read of several parts, in bytes: the largest value fits, and the
/// answer fits into a message.
const ANSWER_MAX: usize = DATA_MAX as usize + (256 << 10);

/// Maximum size of the error for a part that is too large: every part has this much room.
const REFUSED: usize = 160;

/// Maximum number of names that the parts of one read list together, plus one name for each part: other
/// requests wait in the meantime.
const NAMES_MAX: usize = 2 * Page::NAMES_MAX as usize;

/// Approximate size of the answer to a read, in bytes.
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

/// Answers several reads at once. A part whose answer does not fit any more fails on its own; before
/// that, pages become shorter.
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
        // An error contains the path twice: in the text and in the field.
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

/// Whether a request waits for a turn when others have done much work.
pub(super) fn has_turns(op: &Op) -> bool {
    matches!(
        op,
        Op::Read(..) | Op::MultiRead(..) | Op::Ephemerals { .. } | Op::AddWatches(_) | Op::CancelWatches(_)
    )
}

/// Whether the work for a request is small.
pub(super) fn is_light(op: &Op) -> bool {
    match op {
        Op::Read(Read::Children { .. } | Read::Quotas { .. }, _) => false,
        Op::Read(read, _) => read.path().as_str().len() <= 256,
        Op::AddWatches(add) => add.specs.len() == 1,
        Op::CancelWatches(ids) => ids.len() == 1,
        _ => false,
    }
}

/// Work for a request besides its answer, in the units of [`Answers::worked`].
pub(super) fn work_of(op: &Op) -> usize {
    let of_path = |path: &str| EACH + path.len() / 32;
    match op {
        Op::Read(read, _) => of_path(read.path().as_str()),
        Op::MultiRead(reads, _) => reads.iter().map(|read| of_path(read.path().as_str())).sum(),
        Op::AddWatches(add) => add.specs.iter().map(|spec| of_path(spec.path.as_str())).sum(),
        Op::CancelWatches(ids) => EACH * ids.len(),
        _ => EACH,
    }
}

/// Work for a request or one of its parts: about a microsecond.
const EACH: usize = 16;

/// Names and znodes in an answer.
pub(super) fn listed(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Read(read) => names_of(read),
        Outcome::MultiRead(reads) => reads.iter().flatten().map(|read| 1 + names_of(read)).sum(),
        Outcome::Ephemerals { paths, .. } => paths.len(),
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

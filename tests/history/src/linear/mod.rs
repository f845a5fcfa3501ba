//! The referee that believes no zxid.

mod calls;
mod model;
mod objects;
mod search;

use crate::{History, Rule, Summary, Violation};
use search::Verdict;

/// See [`check_linearizable`].
const LARGE: u64 = 32;

/// Searches for an order of the operations that explains all answers (Wing and Gong, with Lowe's memory of what was
/// tried), for each group of znodes that operations tie together:
///
/// - writes, and reads at level linearizable, take effect at some time between call and return; those of unknown outcome
///   at any time after the call, or never;
/// - writes of one session take effect in the order of their calls;
/// - other reads are answered from a state that there was before they returned, and not from an older one than earlier
///   operations of the same client: they are sequentially consistent.
///
/// The tree must be empty when the history begins. Versions, values and existence are compared; zxids, times
/// and counts of children are not. [`check_order`](crate::check_order) checks syncs, lists of children, and
/// sequential creates of unknown outcome. A znode that goes by itself may vanish at any time when it has no children:
/// the history contains neither the end of an ephemeral's session nor the reaping of a container or a znode with a TTL.
///
/// `steps_max` bounds the search of each group, in steps; 1,000,000 take seconds. A group of more than 32 znodes gets fewer
/// in proportion. A group whose search is given up counts as [`Summary::undecided`].
///
/// # Errors
/// An operation that could be placed nowhere, of a group that cannot be explained.
pub fn check_linearizable(history: &History, steps_max: u64) -> Result<Summary, Violation> {
    let mut summary = Summary::of(history);
    let (parts, skipped) = objects::divide(history);
    summary.skipped = skipped;
    let mut first: Option<(u64, Violation)> = None;
    for part in parts.iter().filter(|part| !part.operations.is_empty()) {
        summary.objects += 1;
        if part.blurred {
            summary.undecided += 1;
            continue;
        }
        let calls = calls::of(history, &part.operations);
        // Every step looks at the whole object and remembers it.
        let steps_max = steps_max * LARGE / LARGE.max(part.object.slots.len() as u64);
        let searched = search::search(&part.object, &calls, steps_max);
        summary.steps += searched.steps;
        match searched.verdict {
            Verdict::Explained => {}
            Verdict::GivenUp => summary.undecided += 1,
            Verdict::Impossible { call, state } => {
                let operation = calls[call].operation;
                let returned = history.operations[operation].returned.unwrap_or(u64::MAX);
                if first.as_ref().is_none_or(|(at, _)| returned < *at) {
                    first = Some((returned, violation(history, operation, &part.object, &state)));
                }
            }
        }
    }
    first.map_or(Ok(summary), |(_, violation)| Err(violation))
}

fn violation(history: &History, operation: usize, object: &model::Object, state: &model::State) -> Violation {
    let answer = &history.operations[operation].outcome;
    let znodes: Vec<String> = object
        .slots
        .iter()
        .zip(state)
        .map(|(slot, node)| match node {
            Some(node) => format!("{} is {node}", slot.path),
            None => format!("{} is not there", slot.path),
        })
        .collect();
    let explanation = format!(
        "no order of the operations explains the answer {answer:?}. In the order that explains most, {}",
        znodes.join(", ")
    );
    Violation { rule: Rule::Linearizable, operation: Some(operation), explanation }
}

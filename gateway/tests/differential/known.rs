//! Differences that have a reason. Each stands in docs/zookeeper-compatibility.md.

use crate::{frames::Frame, wire::Seen};

/// Why this difference is as it should be.
/// `stays`: one of the sessions may have a watch that stays, or that was set again.
pub(crate) fn reason(
    burst: &[Frame],
    stays: bool,
    theirs: Option<&Seen>,
    ours: Option<&Seen>,
) -> Option<&'static str> {
    let asked = |seen: Option<&Seen>| match seen {
        Some(Seen::Reply { xid, .. }) => burst.iter().find(|frame| frame.xid == *xid),
        _ => None,
    };
    let name = asked(ours).or(asked(theirs)).map_or("", |frame| frame.name.as_str());
    let has = |kind: &str| burst.iter().any(|frame| frame.name.contains(kind));
    let err = |seen: Option<&Seen>| match seen {
        Some(Seen::Reply { err, .. }) => Some(*err),
        _ => None,
    };
    Some(match (name, theirs, ours) {
        // Debian has ZooKeeper 3.8.
        ("Check" | "damaged Check" | "kind 13", ..) => {
            "a check outside a multi is refused since ZooKeeper 3.9, and ends the connection"
        }
        ("CheckWatches" | "RemoveWatches" | "damaged CheckWatches" | "damaged RemoveWatches", ..)
            if err(theirs) == Some(-5) && matches!(err(ours), Some(0 | -121)) =>
        {
            "checkWatches and removeWatches know persistent watches since ZooKeeper 3.9"
        }
        (_, Some(Seen::Event { .. }), _) | (_, _, Some(Seen::Event { .. })) if has("SetWatches") => {
            "setWatches is answered with the first change that was missed, in the order of the log, and not with a comparison"
        }
        ("CheckWatches" | "RemoveWatches", ..) if stays && err(theirs) == Some(0) => {
            "checkWatches finds recursive watches from above before ZooKeeper 3.9; a path in two lists of a setWatches counts once"
        }
        (_, Some(Seen::Event { .. }), _) | (_, _, Some(Seen::Event { .. })) if stays => {
            "a path has one kind of watch before ZooKeeper 3.9: a later one takes the place of one that stays"
        }
        ("Exists" | "damaged Exists", ..) if err(theirs) == Some(0) && err(ours) == Some(-102) => {
            "exists asks for READ since ZooKeeper 3.9"
        }
        ("Delete" | "damaged Delete", ..) if err(theirs) == Some(-102) && err(ours) == Some(-101) => {
            "delete reports a missing znode also to a client without DELETE on the parent"
        }
        _ if has("SetAcl")
            && matches!((err(theirs), err(ours)), (Some(0), Some(-102)) | (Some(-102), Some(0))) =>
        {
            "a list counts for all that comes behind it; ZooKeeper checks pipelined writes before it is applied"
        }
        (damaged, ..) if damaged.starts_with("damaged") && err(ours) == Some(-114) => {
            "a list with unknown permissions is refused"
        }
        (create, ..)
            if create.contains("Create")
                && err(theirs) == Some(-102)
                && matches!(err(ours), Some(-110 | -8)) =>
        {
            "create reports an invalid name also to a client without CREATE on the parent"
        }
        ("kind -10" | "kind 20", ..) => "createSession and deleteContainer are refused since ZooKeeper 3.9",
        ("Multi" | "damaged Multi", ..) if err(theirs) == Some(0) && err(ours) == Some(-5) => {
            "a multi with a create that lacks its time to live fails as a whole, also behind a part that the tree refuses"
        }
        ("Multi" | "damaged Multi", ..) if err(theirs) == err(ours) => {
            "a part of a multi that cannot be right fails before parts that the tree refuses"
        }
        _ => return None,
    })
}

//! Differences that have a reason. Each stands in docs/zookeeper-compatibility.md.

use crate::{frames::Frame, watched::Watched, wire::Seen};

/// What was going on.
pub(crate) struct Context<'a> {
    /// The frames of the session that is answered otherwise.
    pub(crate) burst: &'a [Frame],
    /// Those of both sessions.
    pub(crate) sent: &'a [Frame],
    /// The watches of the other session.
    pub(crate) others: &'a Watched,
    /// One of the sessions may have a watch that stays, or that was set again.
    pub(crate) stays: bool,
}

/// A client that sets its watches again is told of a znode that is again as it was.
pub(crate) const CHANGED_BACK: &str =
    "setWatches is answered with the first change that was missed, also if a later one has undone it";

const LOST_PARTS: &str =
    "ZooKeeper 3.8 keeps for a moment what the parts of a multi would have done that fails as a whole";

/// The watch stays until the client may read the znode again.
const UNREADABLE: &str = "a watch of one event stays behind a change that the client may not read; ZooKeeper removes it without an event";

/// Why this difference is as it should be.
pub(crate) fn reason(
    context: &Context<'_>,
    theirs: Option<&Seen>,
    ours: Option<&Seen>,
) -> Option<&'static str> {
    let Context { burst, sent, others, stays } = *context;
    let asked = |seen: Option<&Seen>| match seen {
        Some(Seen::Reply { xid, .. }) => burst.iter().find(|frame| frame.xid == *xid),
        _ => None,
    };
    let asked = asked(ours).or(asked(theirs));
    let name = asked.map_or("", |frame| frame.name.as_str());
    let has = |kind: &str| sent.iter().any(|frame| frame.name.contains(kind));
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
        (check, ..)
            if check.ends_with("CheckWatches")
                && (err(theirs), err(ours)) == (Some(0), Some(-121))
                && asked.is_some_and(|frame| others.may_have(frame.request.as_ref())) =>
        {
            "checkWatches finds watches of other sessions before ZooKeeper 3.9"
        }
        ("CheckWatches" | "RemoveWatches", ..)
            if (err(theirs), err(ours)) == (Some(-121), Some(0))
                && asked.is_some_and(|frame| frame.text.contains("path: \"/\"")) =>
        {
            "a watch on the empty path is one on the root"
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
        ("Sasl" | "damaged Sasl", ..) => "SASL is refused; ZooKeeper without SASL answers with no token",
        (damaged, ..)
            if damaged.starts_with("damaged")
                && err(ours) == Some(-5)
                && matches!(err(theirs), Some(-8 | -114)) =>
        {
            "a list with a negative count is none; ZooKeeper takes it for an empty one"
        }
        _ if lost_parts(burst) && matches!(err(theirs), Some(-103 | -108 | -110 | -111)) => LOST_PARTS,
        (create, ..) if lost_parts(burst) && create.contains("Create") && err(theirs) == err(ours) => {
            LOST_PARTS
        }
        ("damaged GetAllChildrenNumber", ..) if err(theirs) == Some(0) && err(ours) == Some(0) => {
            "the root has other znodes on each server"
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
        (_, None | Some(Seen::Reply { .. }), Some(Seen::Event { .. })) => UNREADABLE,
        (check, ..)
            if check.ends_with("CheckWatches") && (err(theirs), err(ours)) == (Some(-121), Some(0)) =>
        {
            UNREADABLE
        }
        _ if asked.is_some_and(|frame| frame.text.contains("\"/zookeeper")) => "there is no /zookeeper",
        _ => return None,
    })
}

/// There is a multi that ZooKeeper cannot decode, behind parts that it has checked.
fn lost_parts(burst: &[Frame]) -> bool {
    burst.iter().any(|frame| {
        let of = |flags: &str| frame.text.contains(flags);
        frame.name.ends_with("Multi") && (of("flags: 5") || of("flags: 6"))
    })
}

//! Walks through subtrees.

use api::{
    OpError, Path, ReadLevel, Zxid,
    walk::{Walk, WalkEnd, WalkId, WalkPart},
    watch::WatchedZnode,
};

use super::requests::{options, read_level};
use crate::{Malformed, v1};

/// What a client asks.
///
/// # Errors
/// What is wrong with it.
pub fn walk(wire: v1::WalkRequest) -> Result<(Walk, ReadLevel), OpError> {
    let v1::WalkRequest { path, read, max_depth, with_data } = wire;
    Ok((Walk { path: Path::new(&path)?, max_depth, with_data }, read_level(read)?))
}

/// For the wire.
#[must_use]
pub fn walk_to_wire(walk: &Walk, level: ReadLevel) -> v1::WalkRequest {
    let Walk { path, max_depth, with_data } = walk;
    let (path, read) = (path.as_str().to_owned(), options(level));
    v1::WalkRequest { path, read, max_depth: *max_depth, with_data: *with_data }
}

/// For the wire, without its id.
#[must_use]
pub fn walk_part_to_wire(part: WalkPart) -> v1::WalkResponse {
    let znode = |WatchedZnode { path, stat, data }| v1::Znode {
        path: path.as_str().to_owned(),
        stat: Some(stat.into()),
        data,
    };
    let end = part.end.map(|WalkEnd { znodes, hidden }| v1::WalkEnd { znodes, hidden });
    v1::WalkResponse { zxid: part.zxid.0, znodes: part.znodes.into_iter().map(znode).collect(), end }
}

/// From the wire.
///
/// # Errors
/// If a znode has no path or no Stat.
pub fn walk_part(id: WalkId, wire: v1::WalkResponse) -> Result<WalkPart, Malformed> {
    let znode = |v1::Znode { path, stat, data }| {
        let path = Path::new(&path).map_err(|e| Malformed(format!("Znode.path: {e}")))?;
        let stat = stat.ok_or_else(|| Malformed("a Znode without its Stat".to_owned()))?.into();
        Ok(WatchedZnode { path, stat, data })
    };
    let znodes = wire.znodes.into_iter().map(znode).collect::<Result<_, Malformed>>()?;
    let end = wire.end.map(|v1::WalkEnd { znodes, hidden }| WalkEnd { znodes, hidden });
    Ok(WalkPart { id, zxid: Zxid(wire.zxid), znodes, end })
}

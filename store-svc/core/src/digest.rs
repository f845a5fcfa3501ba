//! What a record adds to the digest of the state.
//!
//! The digest is the wrapping sum of one 64-bit XXH3 hash for each znode, session and kept result. A sum can be kept
//! up to date by subtracting the old and adding the new hash of what changed, and does not depend on the path that
//! led to a state. It finds faults, not forgers: whoever can choose znodes at will can make two states collide.
//!
//! The layout below is part of the format of checkpoints and snapshots, which carry the digest: it never changes.

use api::{
    MultiOutcome, OpError, SessionId, SessionToken, Stat, WriteNumber, WriteOutcome, WriteResult, Zxid,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::tree::Znode;

/// Hash of a value; kept beside it, so that a change of a parent's counters does not read its value again.
pub(crate) fn data(data: &[u8]) -> u64 {
    xxh3_64(data)
}

/// Hash of a znode: its path, its value and everything that its Stat shows, but for the number of children, which
/// their own records tell.
pub(crate) fn znode(path: &str, z: &Znode) -> u64 {
    let fields: [u64; 12] = [
        xxh3_64(path.as_bytes()),
        z.data_hash,
        z.data.len() as u64,
        z.czxid.0,
        z.mzxid.0,
        z.pzxid.0,
        z.ctime_ms as u64,
        z.mtime_ms as u64,
        pair(z.version, z.cversion),
        z.aversion as u64,
        u64::from(z.creates),
        z.owner.map_or(0, |s| s.0),
    ];
    let mut bytes = [0u8; 96];
    for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
        chunk.copy_from_slice(&field.to_le_bytes());
    }
    xxh3_64_with_seed(&bytes, SEED_ZNODE)
}

/// Hash of a session without its kept results.
pub(crate) fn session(id: SessionId, token: &SessionToken, timeout_ms: u32, acked: WriteNumber) -> u64 {
    let mut bytes = [0u8; 40];
    bytes[..16].copy_from_slice(&token.0);
    bytes[16..24].copy_from_slice(&id.0.to_le_bytes());
    bytes[24..32].copy_from_slice(&u64::from(timeout_ms).to_le_bytes());
    bytes[32..40].copy_from_slice(&acked.0.to_le_bytes());
    xxh3_64_with_seed(&bytes, SEED_SESSION)
}

/// Hash of a kept result. `scratch` is overwritten; it only saves the allocation.
pub(crate) fn result(
    scratch: &mut Vec<u8>,
    id: SessionId,
    number: WriteNumber,
    zxid: Zxid,
    result: &WriteResult,
) -> u64 {
    scratch.clear();
    for n in [id.0, number.0, zxid.0] {
        put(scratch, n);
    }
    match result {
        Ok(outcome) => put_outcome(scratch, outcome),
        Err(error) => put_error(scratch, error),
    }
    xxh3_64_with_seed(scratch, SEED_RESULT)
}

fn put_outcome(out: &mut Vec<u8>, outcome: &WriteOutcome) {
    match outcome {
        WriteOutcome::Created { path, stat } => put_created(out, path.as_str(), stat),
        WriteOutcome::Set { stat } => put_set(out, stat),
        WriteOutcome::Deleted => out.push(TAG_DELETED),
        WriteOutcome::Multi(parts) => {
            out.push(TAG_MULTI);
            put(out, parts.len() as u64);
            for part in parts {
                match part {
                    MultiOutcome::Created { path, stat } => put_created(out, path.as_str(), stat),
                    MultiOutcome::Set { stat } => put_set(out, stat),
                    MultiOutcome::Deleted => out.push(TAG_DELETED),
                    MultiOutcome::Checked => out.push(TAG_CHECKED),
                }
            }
        }
        WriteOutcome::SessionOpened => out.push(TAG_OPENED),
        WriteOutcome::SessionClosed { ephemerals } => {
            out.push(TAG_CLOSED);
            put(out, u64::from(*ephemerals));
        }
    }
}

/// The code and the fields of an error, not its text: the wording may change between versions.
fn put_error(out: &mut Vec<u8>, error: &OpError) {
    out.push(TAG_ERROR);
    put_text(out, error.code().as_str());
    match error {
        OpError::NoNode(p) | OpError::NodeExists(p) | OpError::NoChildrenForEphemerals(p) => {
            put_text(out, p.as_str())
        }
        OpError::NotEmpty { path, children } => {
            put_text(out, path.as_str());
            put(out, u64::from(*children));
        }
        OpError::BadVersion { path, expected, actual } => {
            put_text(out, path.as_str());
            put(out, pair(*expected, *actual));
        }
        OpError::TooLarge { size, limit } => {
            put(out, *size);
            put(out, *limit);
        }
        OpError::SessionExpired(session) => put(out, session.0),
        OpError::OutOfOrder { expected, got } => {
            put(out, expected.0);
            put(out, got.0);
        }
        OpError::Multi { index, cause } => {
            out.push(TAG_MULTI);
            put(out, u64::from(*index));
            put_error(out, cause);
        }
        OpError::BadPath(_)
        | OpError::BadArguments(_)
        | OpError::Unavailable(_)
        | OpError::Overloaded(_)
        | OpError::DiskFull
        | OpError::Unknown(_)
        | OpError::Internal(_) => {}
    }
}

fn put_created(out: &mut Vec<u8>, path: &str, stat: &Stat) {
    out.push(TAG_CREATED);
    put_text(out, path);
    put_stat(out, stat);
}

fn put_set(out: &mut Vec<u8>, stat: &Stat) {
    out.push(TAG_SET);
    put_stat(out, stat);
}

fn put_stat(out: &mut Vec<u8>, s: &Stat) {
    for n in [
        s.czxid.0,
        s.mzxid.0,
        s.pzxid.0,
        s.ctime_ms as u64,
        s.mtime_ms as u64,
        pair(s.version, s.cversion),
        s.aversion as u64,
        s.ephemeral_owner.map_or(0, |s| s.0),
        u64::from(s.data_length),
        u64::from(s.num_children),
    ] {
        put(out, n);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

/// Two numbers of 32 bits in one of 64.
fn pair(high: i32, low: i32) -> u64 {
    u64::from(high as u32) << 32 | u64::from(low as u32)
}

const SEED_ZNODE: u64 = 1;
const SEED_SESSION: u64 = 2;
const SEED_RESULT: u64 = 3;

const TAG_CREATED: u8 = 1;
const TAG_SET: u8 = 2;
const TAG_DELETED: u8 = 3;
const TAG_MULTI: u8 = 4;
const TAG_CHECKED: u8 = 5;
const TAG_OPENED: u8 = 6;
const TAG_CLOSED: u8 = 7;
const TAG_ERROR: u8 = 8;

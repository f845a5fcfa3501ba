//! What a record adds to the digest of the state.
//!
//! The digest is the wrapping sum of one 64-bit XXH3 hash for each znode, session and kept result. A sum can be kept
//! up to date by subtracting the old and adding the new hash of what changed, and does not depend on the path that
//! led to a state. It finds faults, not forgers: whoever can choose znodes at will can make two states collide.
//!
//! The layout below is part of the format of checkpoints and snapshots, which carry the digest and the hashes of requests:
//! it never changes.

use api::{CommandBody, Create, Level, MultiOp, OpError, Path, RequestHash, Write, record};
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
        z.creates,
        z.owner.map_or(0, |s| s.0),
    ];
    let mut bytes = [0u8; 96];
    for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
        chunk.copy_from_slice(&field.to_le_bytes());
    }
    xxh3_64_with_seed(&bytes, SEED_ZNODE)
}

/// Hash of a session without its kept results.
pub(crate) fn session(s: &record::Session) -> u64 {
    let mut bytes = [0u8; 48];
    bytes[..16].copy_from_slice(&s.token.0);
    let fields = [s.id.0, u64::from(s.timeout_ms), s.acked.0, s.stream.0];
    for (chunk, field) in bytes[16..].chunks_exact_mut(8).zip(fields) {
        chunk.copy_from_slice(&field.to_le_bytes());
    }
    xxh3_64_with_seed(&bytes, SEED_SESSION)
}

/// What the feature level adds: nothing at the first one.
pub(crate) fn level(level: Level) -> u64 {
    if level == Level::FIRST { 0 } else { xxh3_64_with_seed(&level.0.to_le_bytes(), SEED_LEVEL) }
}

/// Hash of a kept result.
pub(crate) fn result(kept: &record::KeptResult) -> u64 {
    let mut bytes = Vec::with_capacity(32 + kept.outcome.len());
    for n in [kept.session.0, kept.number.0, kept.zxid.0, kept.request.0] {
        put(&mut bytes, n);
    }
    bytes.extend_from_slice(&kept.outcome);
    xxh3_64_with_seed(&bytes, SEED_RESULT)
}

/// What binds a write number to its request.
pub(crate) fn request(body: &CommandBody) -> RequestHash {
    match body {
        CommandBody::Refuse { request, .. } => *request,
        CommandBody::Write(write) => request_of(write),
        // They have no numbers.
        CommandBody::OpenSession { .. }
        | CommandBody::ResumeSession { .. }
        | CommandBody::CloseSession { .. }
        | CommandBody::Check { .. } => RequestHash::default(),
    }
}

/// Of a write.
pub(crate) fn request_of(write: &Write) -> RequestHash {
    let mut bytes = Vec::with_capacity(128);
    match write {
        Write::Create(create) => put_create(&mut bytes, create),
        Write::Set { path, data, version } => put_set(&mut bytes, path, data, *version),
        Write::Delete { path, version } => put_other(&mut bytes, TAG_DELETE, path, *version),
        Write::Multi(parts) => {
            bytes.push(TAG_MULTI);
            put(&mut bytes, parts.len() as u64);
            for part in parts {
                match part {
                    MultiOp::Create(create) => put_create(&mut bytes, create),
                    MultiOp::Set { path, data, version } => put_set(&mut bytes, path, data, *version),
                    MultiOp::Delete { path, version } => put_other(&mut bytes, TAG_DELETE, path, *version),
                    MultiOp::Check { path, version } => put_other(&mut bytes, TAG_CHECK, path, *version),
                }
            }
        }
    }
    RequestHash(xxh3_64_with_seed(&bytes, SEED_REQUEST))
}

/// Of a request that its node cannot make out: all of them that are malformed in the same way are the same.
pub(crate) fn request_malformed(error: &OpError) -> RequestHash {
    RequestHash(xxh3_64_with_seed(error.to_string().as_bytes(), SEED_MALFORMED))
}

fn put_create(out: &mut Vec<u8>, create: &Create) {
    out.push(TAG_CREATE);
    out.push(u8::from(create.mode.ephemeral) << 1 | u8::from(create.mode.sequential));
    put_text(out, create.path.as_str());
    put(out, data(&create.data));
}

fn put_set(out: &mut Vec<u8>, path: &Path, value: &[u8], version: Option<i32>) {
    put_other(out, TAG_SET, path, version);
    put(out, data(value));
}

fn put_other(out: &mut Vec<u8>, tag: u8, path: &Path, version: Option<i32>) {
    out.push(tag);
    put_text(out, path.as_str());
    put(out, version.map_or(u64::MAX, |version| u64::from(version as u32)));
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
const SEED_REQUEST: u64 = 4;
const SEED_MALFORMED: u64 = 5;
const SEED_LEVEL: u64 = 6;

const TAG_CREATE: u8 = 1;
const TAG_SET: u8 = 2;
const TAG_DELETE: u8 = 3;
const TAG_MULTI: u8 = 4;
const TAG_CHECK: u8 = 5;

//! Several operations in one request.

use bytes::{Bytes, BytesMut};

use crate::{Code, Field, Malformed, OpCode, Reader, Request, Stat, field::records};

records! {
    /// What stands before each part.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    Header {
        kind: i32,
        done: bool,
        err: i32,
    }
}

impl Header {
    const END: Header = Header { kind: -1, done: true, err: -1 };
}

/// Whether its parts change something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Parts {
    Writes,
    Reads,
}

impl Parts {
    fn of(op: OpCode) -> Option<Parts> {
        match op {
            OpCode::CREATE
            | OpCode::CREATE2
            | OpCode::CREATE_CONTAINER
            | OpCode::CREATE_TTL
            | OpCode::DELETE
            | OpCode::SET_DATA
            | OpCode::CHECK => Some(Parts::Writes),
            OpCode::GET_DATA | OpCode::GET_CHILDREN => Some(Parts::Reads),
            _ => None,
        }
    }
}

/// The parts of a multi, none of which is a multi. Up to the end of the frame a part takes nine bytes at least, so there are no more
/// of them than the frame has room for. `None` if there are more than `most`.
pub(crate) fn read(from: &mut Reader, parts: Parts, most: usize) -> Result<Option<Vec<Request>>, Malformed> {
    let mut ops = Vec::new();
    loop {
        let header: Header = from.take()?;
        if header.done {
            return Ok(Some(ops));
        }
        if ops.len() == most {
            return Ok(None);
        }
        let op = OpCode(header.kind);
        if Parts::of(op) != Some(parts) {
            return Err(Malformed::Part(header.kind));
        }
        ops.push(Request::read_record(op, from)?.ok_or(Malformed::Part(header.kind))?);
    }
}

pub(crate) fn write(ops: &[Request], to: &mut BytesMut) {
    for op in ops {
        Header { kind: op.code().0, done: false, err: -1 }.write(to);
        op.write_record(to);
    }
    Header::END.write(to);
}

/// What came of one part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MultiResult {
    /// Of a create: the name of the znode.
    Create(String),
    /// Of the creates that are answered with a Stat.
    Create2(String, Stat),
    /// Of a delete.
    Delete,
    /// Of a set.
    SetData(Stat),
    /// Of a check.
    Check,
    /// Of a read: the value.
    GetData(Option<Bytes>, Stat),
    /// Of a read: the names of the children.
    GetChildren(Vec<String>),
    /// It failed, or was not tried because another part failed; [`Code::OK`] of one that came before that.
    Error(Code),
}

impl MultiResult {
    fn code(&self) -> OpCode {
        match self {
            MultiResult::Create(_) => OpCode::CREATE,
            MultiResult::Create2(..) => OpCode::CREATE2,
            MultiResult::Delete => OpCode::DELETE,
            MultiResult::SetData(_) => OpCode::SET_DATA,
            MultiResult::Check => OpCode::CHECK,
            MultiResult::GetData(..) => OpCode::GET_DATA,
            MultiResult::GetChildren(_) => OpCode::GET_CHILDREN,
            MultiResult::Error(_) => OpCode::ERROR,
        }
    }

    fn write_record(&self, to: &mut BytesMut) {
        match self {
            MultiResult::Create(path) => path.write(to),
            MultiResult::Create2(path, stat) => {
                path.write(to);
                stat.write(to);
            }
            MultiResult::Delete | MultiResult::Check => {}
            MultiResult::SetData(stat) => stat.write(to),
            MultiResult::GetData(data, stat) => {
                data.write(to);
                stat.write(to);
            }
            MultiResult::GetChildren(names) => names.write(to),
            MultiResult::Error(code) => code.0.write(to),
        }
    }
}

pub(crate) fn read_results(from: &mut Reader) -> Result<Vec<MultiResult>, Malformed> {
    let mut results = Vec::new();
    loop {
        let header: Header = from.take()?;
        if header.done {
            return Ok(results);
        }
        results.push(match OpCode(header.kind) {
            OpCode::CREATE => MultiResult::Create(from.take()?),
            OpCode::CREATE2 => MultiResult::Create2(from.take()?, from.take()?),
            OpCode::DELETE => MultiResult::Delete,
            OpCode::SET_DATA => MultiResult::SetData(from.take()?),
            OpCode::CHECK => MultiResult::Check,
            OpCode::GET_DATA => MultiResult::GetData(from.take()?, from.take()?),
            OpCode::GET_CHILDREN => MultiResult::GetChildren(from.take()?),
            OpCode::ERROR => MultiResult::Error(Code(from.take()?)),
            _ => return Err(Malformed::Result(header.kind)),
        });
    }
}

pub(crate) fn write_results(results: &[MultiResult], to: &mut BytesMut) {
    for result in results {
        let err = match result {
            MultiResult::Error(code) => code.0,
            _ => 0,
        };
        Header { kind: result.code().0, done: false, err }.write(to);
        result.write_record(to);
    }
    Header::END.write(to);
}

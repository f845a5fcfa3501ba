//! The numbers of the protocol.

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpCode(pub i32);

#[allow(missing_docs, reason = "the names are ZooKeeper's")]
impl OpCode {
    pub const NOTIFICATION: OpCode = OpCode(0);
    pub const CREATE: OpCode = OpCode(1);
    pub const DELETE: OpCode = OpCode(2);
    pub const EXISTS: OpCode = OpCode(3);
    pub const GET_DATA: OpCode = OpCode(4);
    pub const SET_DATA: OpCode = OpCode(5);
    pub const GET_ACL: OpCode = OpCode(6);
    pub const SET_ACL: OpCode = OpCode(7);
    pub const GET_CHILDREN: OpCode = OpCode(8);
    pub const SYNC: OpCode = OpCode(9);
    pub const PING: OpCode = OpCode(11);
    pub const GET_CHILDREN2: OpCode = OpCode(12);
    pub const CHECK: OpCode = OpCode(13);
    pub const MULTI: OpCode = OpCode(14);
    pub const CREATE2: OpCode = OpCode(15);
    pub const RECONFIG: OpCode = OpCode(16);
    pub const CHECK_WATCHES: OpCode = OpCode(17);
    pub const REMOVE_WATCHES: OpCode = OpCode(18);
    pub const CREATE_CONTAINER: OpCode = OpCode(19);
    pub const DELETE_CONTAINER: OpCode = OpCode(20);
    pub const CREATE_TTL: OpCode = OpCode(21);
    pub const MULTI_READ: OpCode = OpCode(22);
    pub const AUTH: OpCode = OpCode(100);
    pub const SET_WATCHES: OpCode = OpCode(101);
    pub const SASL: OpCode = OpCode(102);
    pub const GET_EPHEMERALS: OpCode = OpCode(103);
    pub const GET_ALL_CHILDREN_NUMBER: OpCode = OpCode(104);
    pub const SET_WATCHES2: OpCode = OpCode(105);
    pub const ADD_WATCH: OpCode = OpCode(106);
    pub const WHO_AM_I: OpCode = OpCode(107);
    pub const CREATE_SESSION: OpCode = OpCode(-10);
    pub const CLOSE_SESSION: OpCode = OpCode(-11);
    pub const ERROR: OpCode = OpCode(-1);
}

/// What came of a request; 0 is success.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Code(pub i32);

#[allow(missing_docs, reason = "the names are ZooKeeper's")]
impl Code {
    pub const OK: Code = Code(0);
    pub const SYSTEM_ERROR: Code = Code(-1);
    pub const RUNTIME_INCONSISTENCY: Code = Code(-2);
    pub const CONNECTION_LOSS: Code = Code(-4);
    pub const MARSHALLING_ERROR: Code = Code(-5);
    pub const UNIMPLEMENTED: Code = Code(-6);
    pub const BAD_ARGUMENTS: Code = Code(-8);
    pub const NO_NODE: Code = Code(-101);
    pub const NO_AUTH: Code = Code(-102);
    pub const BAD_VERSION: Code = Code(-103);
    pub const NO_CHILDREN_FOR_EPHEMERALS: Code = Code(-108);
    pub const NODE_EXISTS: Code = Code(-110);
    pub const NOT_EMPTY: Code = Code(-111);
    pub const SESSION_EXPIRED: Code = Code(-112);
    pub const INVALID_ACL: Code = Code(-114);
    pub const AUTH_FAILED: Code = Code(-115);
    pub const SESSION_MOVED: Code = Code(-118);
    pub const NOT_READ_ONLY: Code = Code(-119);
    pub const NO_WATCHER: Code = Code(-121);
    pub const REQUEST_TIMEOUT: Code = Code(-122);
    pub const RECONFIG_DISABLED: Code = Code(-123);
    pub const QUOTA_EXCEEDED: Code = Code(-125);
    pub const THROTTLED_OP: Code = Code(-127);
}

/// What a watch has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventType(pub i32);

#[allow(missing_docs, reason = "the names are ZooKeeper's")]
impl EventType {
    pub const NONE: EventType = EventType(-1);
    pub const NODE_CREATED: EventType = EventType(1);
    pub const NODE_DELETED: EventType = EventType(2);
    pub const NODE_DATA_CHANGED: EventType = EventType(3);
    pub const NODE_CHILDREN_CHANGED: EventType = EventType(4);
}

/// The state of a session, in an event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeeperState(pub i32);

#[allow(missing_docs, reason = "the names are ZooKeeper's")]
impl KeeperState {
    pub const DISCONNECTED: KeeperState = KeeperState(0);
    pub const SYNC_CONNECTED: KeeperState = KeeperState(3);
}

/// Numbers of requests that are none of the client's own.
pub mod xid {
    /// Of an event.
    pub const EVENT: i32 = -1;
    /// Of a ping, and of its answer whatever the ping had.
    pub const PING: i32 = -2;
    /// Of an authentication.
    pub const AUTH: i32 = -4;
    /// Of watches that are set again.
    pub const SET_WATCHES: i32 = -8;
}

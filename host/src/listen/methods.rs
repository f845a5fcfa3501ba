//! Properties of a method that a port needs before the service sees the call.

/// A method of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Method {
    /// It takes a stream of messages. All others take one, unknown methods included.
    pub(super) streamed: bool,
    /// A call stays open until its client ends it, and no work of ours depends on it.
    pub(super) watching: bool,
}

impl Method {
    pub(super) fn of(path: &str) -> Method {
        let reflection = REFLECTION.contains(&path);
        Method {
            streamed: reflection || proto::STREAMED.contains(&path),
            watching: reflection || path == HEALTH_WATCH || path == WATCH,
        }
    }
}

const WATCH: &str = "/quorate.v1.Coordination/Watch";
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b07_methods_that_take_a_stream_are_known() {
        for path in [
            "/quorate.v1.Coordination/Session",
            "/quorate.peer.v1.Quorum/Learn",
            "/quorate.internal.v1.QuorumPort/SaveSnapshot",
            REFLECTION[0],
        ] {
            assert!(Method::of(path).streamed, "{path}");
        }
        for path in
            ["/quorate.v1.Coordination/Set", "/quorate.internal.v1.QuorumPort/Signs", HEALTH_WATCH, "/x"]
        {
            assert!(!Method::of(path).streamed, "{path}");
        }
    }
}

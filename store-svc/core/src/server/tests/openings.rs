//! The messages of client and node when a session opens.

use api::EnsembleId;

use super::*;

#[test]
fn a_client_of_another_ensemble_is_refused_before_its_session_is_looked_for() {
    let (own, other) = (EnsembleId(7), EnsembleId(8));
    let mut node = Node::serving(1, Role::Leading);
    let ensemble = Some(own);
    let known =
        QuorumStatus { role: Role::Leading, serving: true, epoch: Epoch(1), ensemble, ..Default::default() };
    node.input(Input::Feed(Feed::Status(known)));
    let mut log = Log::default();
    log.round(&mut node);

    let token = SessionToken([9; 16]);
    for (conn, resume) in [(1, None), (2, Some((SessionId(77), token)))] {
        let drawn = Drawn { token, stream: StreamId(conn) };
        let open = Open {
            resume,
            timeout_ms: 4000,
            last_zxid: z(9),
            wait_ms: None,
            ensemble: Some(other),
            purpose: Default::default(),
        };
        let identities = api::Identities::default();
        node.input(Input::Open { conn: ConnId(conn), open, drawn, identities });
        let refused = Err(OpError::WrongEnsemble { expected: other, actual: own });
        assert_eq!(std::mem::take(&mut node.closed), [(ConnId(conn), refused)]);
    }

    let open = Open {
        resume: None,
        timeout_ms: 4000,
        last_zxid: Zxid::ZERO,
        wait_ms: None,
        ensemble,
        purpose: Default::default(),
    };
    let drawn = Drawn { token, stream: StreamId(3) };
    node.input(Input::Open { conn: ConnId(3), open, drawn, identities: api::Identities::default() });
    log.round(&mut node);
    let opened = node.sent.iter().find_map(|(_, item)| match item {
        Item::Opened(opened) => Some(opened.ensemble),
        _ => None,
    });
    assert_eq!(opened, Some(ensemble), "a client learns which ensemble it is");
}

use std::time::Duration;

use api::peer::ToLearner;
use api::ports::{FeedItem, PAYLOAD_MAX, Refusal, Request};
use api::{Ensemble, EpochSpan};
use bytes::Bytes;

use super::*;

/// Carries out the outputs of a single server: its disk is perfect, and it elects itself.
fn turn(core: &mut Zab) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(output) = core.poll_output() {
        let done = match &output {
            Output::Append(entries) => Input::Persisted { upto: entries.last().unwrap().zxid },
            Output::PersistEpochs { .. } => Input::EpochsPersisted,
            Output::Elect(_) => Input::Elected { leader: core.config.me },
            _ => Input::Timeout,
        };
        core.handle(Now::default(), done);
        all.push(output);
    }
    all
}

fn config(voters: impl IntoIterator<Item = u32>) -> Config {
    let second = Duration::from_secs(1);
    Config {
        me: PeerId(1),
        ensemble: Ensemble::of_voters(voters).unwrap(),
        draw: EnsembleId(1),
        init_limit: second,
        sync_limit: second,
        ping_interval: second,
        commit_delay: Duration::ZERO,
        park_limit: second,
        requests_max: 100,
        request_bytes_max: 100,
        levels: api::Levels::BUILD,
        counter_max: u32::MAX,
    }
}

/// Two voters lost everything and started again before the third connected. They would cut its log back
/// to the marker, which both reigns have.
#[test]
fn b02_what_the_store_has_or_was_told_is_not_cut_off_the_log_for_an_ensemble_that_was_started_anew() {
    let z = |counter| Zxid::new(Epoch(1), counter);
    let spans = vec![EpochSpan { epoch: Epoch(1), last: 9 }];
    let history = History::from_parts(Zxid::ZERO, spans).unwrap();
    let (accepted_epoch, current_epoch) = (Epoch(1), Epoch(1));
    let ensemble = Some(EnsembleId(1));
    let durable = Durable { accepted_epoch, current_epoch, ensemble, history, ..Durable::default() };
    let (leader, conn) = (PeerId(3), Conn(1));
    for (applied, noted, to, refused) in [
        (z(4), Zxid::ZERO, z(0), true),
        (Zxid::ZERO, z(4), z(0), true),
        (z(4), Zxid::ZERO, z(4), false),
        (Zxid::ZERO, z(4), z(4), false),
        (Zxid::ZERO, Zxid::ZERO, z(0), false),
    ] {
        let mut core = Zab::new(config(1..=3), Durable { committed: noted, ..durable.clone() });
        let mut outputs = Vec::new();
        for input in [
            Input::StoreAttached { applied },
            Input::Elected { leader },
            Input::LeaderConnected { conn, leader },
            Input::FromLeader {
                conn,
                message: ToLearner::LeaderInfo { epoch: Epoch(1), ensemble: EnsembleId(1), level: None },
            },
            Input::FromLeader { conn, message: ToLearner::Trunc { to } },
        ] {
            core.handle(Now::default(), input);
            while let Some(output) = core.poll_output() {
                if let Output::PersistEpochs { .. } = output {
                    core.handle(Now::default(), Input::EpochsPersisted);
                }
                outputs.push(output);
            }
        }
        let fatal = |o: &Output| matches!(o, Output::Fatal(why) if why.contains("0x100000004 is committed"));
        assert_eq!(outputs.iter().any(fatal), refused, "{applied}, {noted}, {to}: {outputs:?}");
        assert_eq!(outputs.contains(&Output::Truncate { to }), !refused);
    }
}

#[test]
fn a_payload_that_does_not_fit_into_a_message_is_refused_under_any_limits() {
    let mut core = Zab::new(Config { request_bytes_max: usize::MAX, ..config([1]) }, Durable::default());
    let _ = turn(&mut core);
    for (ticket, size, refused) in [(1, PAYLOAD_MAX, false), (2, PAYLOAD_MAX + 1, true)] {
        let payload = Bytes::from(vec![0; size]);
        let submit = Request::Submit { ticket: Ticket(ticket), payload, trace: None };
        core.handle(Now::default(), Input::Requests(vec![submit]));
        let told = FeedItem::Refused { ticket: Ticket(ticket), why: Refusal::TooLarge };
        assert_eq!(turn(&mut core).contains(&Output::Tell(told)), refused, "{size}");
    }
}

#[test]
fn s27_when_the_counter_is_used_up_the_writes_go_on_in_a_new_epoch() {
    let mut core = Zab::new(config([1]), Durable::default());
    let _ = turn(&mut core);
    // Four billion writes later: room for two more.
    let epoch = core.current;
    let spans = vec![EpochSpan { epoch, last: u32::MAX - 2 }];
    core.history = History::from_parts(Zxid::ZERO, spans).unwrap();
    (core.durable, core.committed, core.delivered) =
        (core.history.last(), core.history.last(), core.history.last());

    let submit = |t| Request::Submit { ticket: Ticket(t), payload: Bytes::from_static(b"w"), trace: None };
    core.handle(Now::default(), Input::Requests((1..=4).map(submit).collect()));
    let outputs = turn(&mut core);
    let entries: Vec<(Zxid, Option<u64>)> = outputs
        .iter()
        .filter_map(|o| if let Output::Append(entries) = o { Some(entries) } else { None })
        .flatten()
        .map(|e| (e.zxid, e.origin.map(|o| o.ticket.0)))
        .collect();
    let next = epoch.next().unwrap();
    let expected = [
        (Zxid::new(epoch, u32::MAX - 1), Some(1)),
        (Zxid::new(epoch, u32::MAX), Some(2)),
        (Zxid::marker(next), None),
        (Zxid::new(next, 1), Some(3)),
        (Zxid::new(next, 2), Some(4)),
    ];
    assert_eq!(entries, expected);
    assert_eq!(core.status().committed, Zxid::new(next, 2));
    assert_eq!(core.pending.len(), 0);
}

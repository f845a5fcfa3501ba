//! What a client makes of what nodes say: each change once, whatever happens to connections.

use api::{
    Path, Stat,
    watch::{ChangeKind, WatchEvent, WatchScope},
};

use super::*;

fn spec(id: u32) -> WatchSpec {
    WatchSpec::new(id, Path::root(), WatchScope::Tree)
}

fn group(zxid: u64, ids: &[u32], more: bool) -> WatchGroup {
    let change = Change {
        kind: ChangeKind::DataChanged,
        path: Path::root(),
        stat: Stat::default(),
        data: None,
        acl: Default::default(),
        above: Default::default(),
    };
    let event = WatchEvent { ids: ids.to_vec(), change: Arc::new(change), with_data: false };
    WatchGroup { zxid: Zxid(zxid), events: vec![event], more }
}

fn state(id: u32, zxid: u64, done: bool) -> WatchState {
    WatchState { id, zxid: Zxid(zxid), znodes: Vec::new(), done }
}

fn ended(id: u32, error: OpError, last: u64) -> WatchEnded {
    WatchEnded { ids: vec![id], error, last: Zxid(last), oldest: Zxid(last + 1) }
}

/// Watches, and what came of them: the id with the zxid of a group, or a word.
#[derive(Default)]
struct Script {
    watching: Watching,
    outputs: Vec<Output>,
}

impl Script {
    /// A watch that stands from this entry on.
    fn standing(spec: WatchSpec, zxid: u64) -> Script {
        let mut s = Script::default();
        let asked = s.watching.add(spec, true);
        s.added(asked, zxid);
        s.news();
        s
    }

    fn added(&mut self, op: Option<Op>, zxid: u64) {
        let Some(Op::AddWatches(add)) = op else { panic!("{op:?}") };
        self.watching.on_added(&add.specs, Zxid(zxid), Ok(Vec::new()), &mut self.outputs);
        self.watching.on_passed(Zxid(zxid));
    }

    fn group(&mut self, zxid: u64, ids: &[u32]) {
        self.watching.on_events(group(zxid, ids, false), &mut self.outputs);
    }

    fn news(&mut self) -> Vec<(u32, String)> {
        let word = |output| match output {
            Output::Watch { id, news: WatchNews::Group { zxid, changes } } => {
                (id, format!("{}x{}", zxid.0, changes.len()))
            }
            Output::Watch { id, news: WatchNews::State { zxid, .. } } => (id, format!("state {}", zxid.0)),
            Output::Watch { id, news: WatchNews::Stands { zxid } } => (id, format!("stands {}", zxid.0)),
            Output::Watch { id, news: WatchNews::Ended(None) } => (id, "over".to_owned()),
            Output::Watch { id, news: WatchNews::Ended(Some(error)) } => (id, format!("{:?}", error.code())),
            other => panic!("{other:?}"),
        };
        std::mem::take(&mut self.outputs).into_iter().map(word).collect()
    }

    /// Another connection: the zxid from which each watch resumes.
    fn reconnect(&mut self) -> (Vec<(u32, Option<u64>)>, Option<Op>) {
        self.watching.on_lost();
        let mut ops = self.watching.on_opened();
        assert!(ops.len() <= 1);
        let op = ops.pop();
        let from = match &op {
            Some(Op::AddWatches(add)) => add.specs.iter().map(|s| (s.id, s.from.map(|z| z.0))).collect(),
            _ => Vec::new(),
        };
        (from, op)
    }
}

fn words(news: &[(u32, &str)]) -> Vec<(u32, String)> {
    news.iter().map(|(id, word)| (*id, (*word).to_owned())).collect()
}

#[test]
fn a_watch_goes_on_behind_what_its_owner_was_given() {
    let mut s = Script::standing(spec(1), 10);
    s.group(12, &[1]);
    s.watching.on_passed(Zxid(15));
    assert_eq!(s.news(), words(&[(1, "12x1")]));
    let (from, op) = s.reconnect();
    assert_eq!(from, [(1, Some(15))], "the mark counts");
    // The node tells of 16 before it answers, and the connection breaks; the next one tells it again.
    s.group(16, &[1]);
    assert_eq!(s.reconnect().0, [(1, Some(16))]);
    s.group(16, &[1]);
    s.added(op, 20);
    assert_eq!(s.news(), words(&[(1, "16x1")]), "once");
    assert_eq!(s.reconnect().0, [(1, Some(20))]);
}

#[test]
fn v11_a_group_that_was_cut_by_the_end_of_a_connection_is_told_whole_on_the_next() {
    let mut s = Script::standing(spec(1), 10);
    s.watching.on_events(group(12, &[1], true), &mut s.outputs);
    assert_eq!(s.news(), [], "a part is not given out");
    assert_eq!(s.reconnect().0, [(1, Some(10))]);
    s.watching.on_events(group(12, &[1], true), &mut s.outputs);
    s.group(12, &[1]);
    assert_eq!(s.news(), words(&[(1, "12x2")]));
}

#[test]
fn what_a_watch_has_not_been_answered_for_does_not_count_as_passed() {
    let mut s = Script::standing(spec(1), 10);
    let asked = s.watching.add(WatchSpec { from: Some(Zxid(5)), ..spec(2) }, true);
    // An answer to something before it.
    s.watching.on_passed(Zxid(30));
    assert_eq!(s.reconnect().0, [(1, Some(30)), (2, Some(5))]);
    s.added(asked, 40);
    assert_eq!(s.news(), words(&[(2, "stands 40")]));
}

#[test]
fn a_watch_that_fires_once_is_over() {
    let mut s = Script::standing(WatchSpec { once: true, ..spec(1) }, 10);
    s.group(11, &[1]);
    s.group(12, &[1]);
    assert_eq!(s.news(), words(&[(1, "11x1"), (1, "over")]));
    assert_eq!(s.reconnect().0, []);
}

#[test]
fn an_owner_that_takes_nothing_costs_nothing_and_misses_nothing() {
    let mut s = Script::standing(spec(1), 10);
    s.group(11, &[1]);
    let cancel = s.watching.park(1, true);
    assert_eq!(cancel, Some(Op::CancelWatches(vec![1])));
    // Sent before the node had the cancel.
    s.group(12, &[1]);
    let again = s.watching.unpark(1, true);
    s.group(13, &[1]);
    assert_eq!(s.news(), words(&[(1, "11x1")]));
    s.watching.on_cancelled(&[1]);
    let Some(Op::AddWatches(add)) = &again else { panic!("{again:?}") };
    assert_eq!(add.specs[0].from, Some(Zxid(11)));
    for zxid in [12, 13] {
        s.group(zxid, &[1]);
    }
    s.added(again, 13);
    assert_eq!(s.news(), words(&[(1, "12x1"), (1, "13x1")]));
    // The same over a change of connections.
    s.watching.park(1, true);
    assert_eq!(s.reconnect().0, []);
    assert!(s.watching.unpark(1, true).is_some());
}

#[test]
fn the_state_comes_whole_and_takes_the_place_of_what_is_not_known_any_more() {
    let mut s = Script::default();
    let asked = s.watching.add(WatchSpec { state: StateRule::Always, ..spec(1) }, true);
    s.watching.on_state(state(1, 10, false), &mut s.outputs);
    let (from, again) = s.reconnect();
    assert_eq!((from, &again), (vec![(1, None)], &asked), "from the beginning");
    s.watching.on_state(state(1, 12, false), &mut s.outputs);
    s.watching.on_state(state(1, 12, true), &mut s.outputs);
    s.added(again, 12);
    s.group(13, &[1]);
    assert_eq!(s.news(), words(&[(1, "state 12"), (1, "13x1")]));
    let gone = OpError::Gone { oldest: Zxid(50) };
    let again = s.watching.on_ended(ended(1, gone.clone(), 13), &mut s.outputs);
    let [Op::AddWatches(add)] = &again[..] else { panic!("{again:?}") };
    assert_eq!((add.specs[0].from, add.specs[0].state), (Some(Zxid(13)), StateRule::IfGone));
    assert_eq!(s.news(), []);
    // Without a state its owner has to know.
    let mut s = Script::standing(spec(1), 10);
    assert!(s.watching.on_ended(ended(1, gone, 10), &mut s.outputs).is_empty());
    assert_eq!(s.news(), words(&[(1, "Gone")]));
}

#[test]
fn v21_many_watches_are_added_in_several_requests() {
    let mut s = Script::default();
    for id in 1..=5_000 {
        s.watching.add(spec(id), false);
    }
    let ops = s.watching.on_opened();
    let counts: Vec<usize> =
        ops.iter().map(|op| if let Op::AddWatches(add) = op { add.specs.len() } else { 0 }).collect();
    assert_eq!(counts, [2_000, 2_000, 1_000]);
}

#[test]
fn a_watch_that_is_refused_is_over_with_the_reason() {
    let mut s = Script::default();
    let Some(Op::AddWatches(add)) = s.watching.add(spec(1), true) else { panic!() };
    let error = OpError::BadArguments("no".into());
    s.watching.on_added(&add.specs, Zxid(1), Ok(vec![WatchRefused { id: 1, error }]), &mut s.outputs);
    assert_eq!(s.news(), words(&[(1, "BadArguments")]));
}

//! The watches of a client over connections and sessions: each resumes after the last whole group that its owner got.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use api::{
    OpError, Zxid,
    session::Op,
    watch::{
        AddWatches, Change, StateRule, WatchEnded, WatchGroup, WatchRefused, WatchSpec, WatchState,
        WatchedZnode,
    },
};

use crate::{Output, WatchNews};

/// Most watches, and about most bytes of their paths, that are added by one request.
const SPECS_MAX: usize = 2_000;
const SPECS_BYTES: usize = 128 << 10;

/// All watches, by their ids.
#[derive(Default, Debug)]
pub(crate) struct Watching {
    watches: BTreeMap<u32, Watch>,
    /// The active ones have got everything up to here on the present connection.
    passed: Zxid,
    /// Those that have a part of a group.
    touched: BTreeSet<u32>,
}

#[derive(Debug)]
struct Watch {
    /// As its owner wants it.
    spec: WatchSpec,
    /// Its owner has got everything up to here; `None` until it is active for the first time.
    known: Option<Zxid>,
    /// The node has said that it stands, on the present connection: what it passes, this passes.
    stands: bool,
    /// Its owner takes no more for a while.
    parked: bool,
    /// Requests on the present connection that add it and that cancel it, without an answer. What comes before the cancel is
    /// answered is of no use.
    adds: u32,
    cancels: u32,
    /// Of a group that is not whole.
    part: Vec<Arc<Change>>,
    /// Of a state that is not whole.
    state: Vec<WatchedZnode>,
}

impl Watch {
    /// What to ask of the next node.
    fn again(&self) -> WatchSpec {
        let state = match (self.known, self.spec.state) {
            (Some(_), StateRule::Always) => StateRule::IfGone,
            (_, state) => state,
        };
        WatchSpec { from: self.known.or(self.spec.from), state, ..self.spec.clone() }
    }
}

impl Watching {
    /// A new watch. Returns what to ask on an open connection.
    pub(crate) fn add(&mut self, spec: WatchSpec, open: bool) -> Option<Op> {
        let watch = Watch {
            known: spec.from,
            spec,
            stands: false,
            parked: false,
            adds: 0,
            cancels: 0,
            part: Vec::new(),
            state: Vec::new(),
        };
        let id = watch.spec.id;
        self.watches.insert(id, watch);
        self.ask(id, open)
    }

    /// Its owner has gone.
    pub(crate) fn remove(&mut self, id: u32, open: bool) -> Option<Op> {
        let watch = self.watches.remove(&id)?;
        (open && !watch.parked).then(|| Op::CancelWatches(vec![id]))
    }

    /// Its owner takes no more: nothing is given to it until [`Watching::unpark`], and nothing is lost.
    pub(crate) fn park(&mut self, id: u32, open: bool) -> Option<Op> {
        let passed = self.passed;
        let watch = self.watches.get_mut(&id).filter(|watch| !watch.parked)?;
        watch.settle(passed);
        (watch.parked, watch.stands) = (true, false);
        watch.part.clear();
        watch.state.clear();
        watch.cancels += u32::from(open);
        open.then(|| Op::CancelWatches(vec![id]))
    }

    /// Its owner reads again.
    pub(crate) fn unpark(&mut self, id: u32, open: bool) -> Option<Op> {
        let watch = self.watches.get_mut(&id).filter(|watch| watch.parked)?;
        watch.parked = false;
        self.ask(id, open)
    }

    fn ask(&mut self, id: u32, open: bool) -> Option<Op> {
        let watch = self.watches.get_mut(&id).filter(|_| open)?;
        watch.adds += 1;
        Some(Op::AddWatches(AddWatches { specs: vec![watch.again()], refused: Vec::new() }))
    }

    /// A connection is open: what to ask on it before anything else.
    pub(crate) fn on_opened(&mut self) -> Vec<Op> {
        let (mut ops, mut specs, mut bytes) = (Vec::new(), Vec::new(), 0);
        for watch in self.watches.values_mut().filter(|watch| !watch.parked) {
            watch.adds += 1;
            let spec = watch.again();
            bytes += spec.path.as_str().len();
            specs.push(spec);
            if specs.len() >= SPECS_MAX || bytes >= SPECS_BYTES {
                bytes = 0;
                ops.push(specs_op(&mut specs));
            }
        }
        if !specs.is_empty() {
            ops.push(specs_op(&mut specs));
        }
        ops
    }

    /// A connection is gone.
    pub(crate) fn on_lost(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        self.touched.clear();
        for watch in self.watches.values_mut() {
            watch.settle(passed);
            (watch.stands, watch.adds, watch.cancels) = (false, 0, 0);
            watch.part.clear();
            watch.state.clear();
        }
    }

    /// Everything up to here was delivered.
    pub(crate) fn on_passed(&mut self, zxid: Zxid) {
        self.passed = self.passed.max(zxid);
    }

    pub(crate) fn on_events(&mut self, group: WatchGroup, outputs: &mut impl Extend<Output>) {
        let WatchGroup { zxid, events, more } = group;
        for event in events {
            for id in &event.ids {
                let Some(watch) = self.watches.get_mut(id).filter(|w| !w.parked && w.cancels == 0) else {
                    continue;
                };
                if watch.known.is_none_or(|known| zxid > known) {
                    watch.part.push(event.change.clone());
                    self.touched.insert(*id);
                }
            }
        }
        if more {
            return;
        }
        self.on_passed(zxid);
        for id in std::mem::take(&mut self.touched) {
            let Some(watch) = self.watches.get_mut(&id).filter(|watch| !watch.part.is_empty()) else {
                continue;
            };
            let changes = std::mem::take(&mut watch.part);
            watch.known = Some(zxid);
            outputs.extend([Output::Watch { id, news: WatchNews::Group { zxid, changes } }]);
            if watch.spec.once {
                self.watches.remove(&id);
                outputs.extend([Output::Watch { id, news: WatchNews::Ended(None) }]);
            }
        }
    }

    pub(crate) fn on_state(&mut self, state: WatchState, outputs: &mut impl Extend<Output>) {
        let WatchState { id, zxid, znodes, done } = state;
        let Some(watch) = self.watches.get_mut(&id).filter(|w| !w.parked && w.cancels == 0) else { return };
        watch.state.extend(znodes);
        if done {
            watch.known = Some(zxid);
            let znodes = std::mem::take(&mut watch.state);
            outputs.extend([Output::Watch { id, news: WatchNews::State { zxid, znodes } }]);
        }
    }

    /// Some have ended. Returns what to ask for those that begin again with the state.
    pub(crate) fn on_ended(&mut self, ended: WatchEnded, outputs: &mut impl Extend<Output>) -> Vec<Op> {
        let gone = matches!(ended.error, OpError::Gone { .. });
        let mut again = Vec::new();
        for id in ended.ids {
            let Some(watch) = self.watches.get_mut(&id).filter(|w| !w.parked && w.cancels == 0) else {
                continue;
            };
            watch.part.clear();
            if gone && watch.spec.state != StateRule::Never {
                watch.settle(ended.last);
                watch.stands = false;
                again.extend(self.ask(id, true));
            } else {
                self.watches.remove(&id);
                outputs.extend([Output::Watch { id, news: WatchNews::Ended(Some(ended.error.clone())) }]);
            }
        }
        again
    }

    /// A request to add watches was answered.
    pub(crate) fn on_added(
        &mut self,
        specs: &[WatchSpec],
        zxid: Zxid,
        refused: Result<Vec<WatchRefused>, OpError>,
        outputs: &mut impl Extend<Output>,
    ) {
        let refused = match refused {
            Ok(refused) => refused,
            Err(error) => {
                specs.iter().map(|spec| WatchRefused { id: spec.id, error: error.clone() }).collect()
            }
        };
        let errors: BTreeMap<u32, OpError> = refused.into_iter().map(|r| (r.id, r.error)).collect();
        for spec in specs {
            let Some(watch) = self.watches.get_mut(&spec.id) else { continue };
            watch.adds = watch.adds.saturating_sub(1);
            if watch.adds > 0 || watch.parked {
                continue;
            }
            if let Some(error) = errors.get(&spec.id) {
                self.watches.remove(&spec.id);
                let news = WatchNews::Ended(Some(error.clone()));
                outputs.extend([Output::Watch { id: spec.id, news }]);
            } else {
                let first = watch.known.is_none() || watch.known == watch.spec.from;
                watch.known = watch.known.max(Some(zxid));
                watch.stands = true;
                if first {
                    outputs.extend([Output::Watch { id: spec.id, news: WatchNews::Stands { zxid } }]);
                }
            }
        }
    }

    /// A request to cancel watches was answered.
    pub(crate) fn on_cancelled(&mut self, ids: &[u32]) {
        for id in ids {
            if let Some(watch) = self.watches.get_mut(id) {
                watch.cancels = watch.cancels.saturating_sub(1);
            }
        }
    }

    /// There will be no more connections.
    pub(crate) fn finish(&mut self, outputs: &mut impl Extend<Output>) {
        for id in std::mem::take(&mut self.watches).into_keys() {
            outputs.extend([Output::Watch { id, news: WatchNews::Ended(None) }]);
        }
    }
}

impl Watch {
    /// What the connection has passed, it has passed.
    fn settle(&mut self, passed: Zxid) {
        if self.stands {
            self.known = self.known.max(Some(passed));
        }
    }
}

fn specs_op(specs: &mut Vec<WatchSpec>) -> Op {
    Op::AddWatches(AddWatches { specs: std::mem::take(specs), refused: Vec::new() })
}

#[cfg(test)]
mod tests;

//! The watches that a client knows, as ZooKeeper's Java library keeps them, to set them again on another connection.

use std::collections::BTreeSet;

use zk_jute::{EventType, Request, SetWatches};

use crate::{frames::Frame, wire::Seen};

#[derive(Default)]
pub(crate) struct Watched {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watched {
    /// What came behind these frames.
    pub(crate) fn follow(&mut self, burst: &[Frame], seen: &[Seen]) {
        for seen in seen {
            match seen {
                Seen::Event { kind, path, .. } => self.fired(EventType(*kind), path),
                Seen::Reply { xid, err, .. } => {
                    let asked = burst.iter().find(|frame| frame.xid == *xid);
                    if let Some(request) = asked.and_then(|frame| frame.request.as_ref()) {
                        self.answered(request, *err);
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether there is a watch at the path of this checkWatches; also if it is not known.
    pub(crate) fn may_have(&self, check: Option<&Request>) -> bool {
        let Some(Request::CheckWatches { path, .. }) = check else { return true };
        [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive]
            .into_iter()
            .any(|list| list.contains(path))
    }

    fn answered(&mut self, request: &Request, err: i32) {
        let Watched { data, exist, child, persistent, recursive } = self;
        match (request, err) {
            (Request::GetData { path, watch: true } | Request::Exists { path, watch: true }, 0) => {
                data.insert(path.clone());
            }
            (Request::Exists { path, watch: true }, -101) => {
                exist.insert(path.clone());
            }
            (Request::GetChildren { path, watch: true } | Request::GetChildren2 { path, watch: true }, 0) => {
                child.insert(path.clone());
            }
            (Request::AddWatch { path, mode: 0 }, 0) => {
                persistent.insert(path.clone());
            }
            (Request::AddWatch { path, mode: 1 }, 0) => {
                recursive.insert(path.clone());
            }
            (Request::RemoveWatches { path, kind }, 0) => {
                let lists: &mut [&mut BTreeSet<String>] = match kind {
                    1 => &mut [child],
                    2 => &mut [data, exist],
                    3 => &mut [child, data, exist, persistent, recursive],
                    4 => &mut [persistent],
                    _ => &mut [recursive],
                };
                for list in lists {
                    list.remove(path);
                }
            }
            (Request::SetWatches { watches }, 0) => self.set_again(watches),
            (Request::SetWatches2 { watches, persistent, recursive }, 0) => {
                self.persistent.extend(persistent.iter().cloned());
                self.recursive.extend(recursive.iter().cloned());
                self.set_again(watches);
            }
            _ => {}
        }
    }

    fn set_again(&mut self, watches: &SetWatches) {
        self.data.extend(watches.data.iter().cloned());
        self.exist.extend(watches.exist.iter().cloned());
        self.child.extend(watches.child.iter().cloned());
    }

    fn fired(&mut self, kind: EventType, path: &str) {
        if kind != EventType::NODE_CHILDREN_CHANGED {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if matches!(kind, EventType::NODE_CHILDREN_CHANGED | EventType::NODE_DELETED) {
            self.child.remove(path);
        }
    }

    /// Takes all of them, for the next connection; `None` if there are none.
    pub(crate) fn take(&mut self) -> Option<Request> {
        let Watched { data, exist, child, persistent, recursive } = std::mem::take(self);
        let list = |set: BTreeSet<String>| set.into_iter().collect::<Vec<String>>();
        let watches =
            SetWatches { relative_zxid: 0, data: list(data), exist: list(exist), child: list(child) };
        let (persistent, recursive) = (list(persistent), list(recursive));
        let stay = !persistent.is_empty() || !recursive.is_empty();
        let some = [&watches.data, &watches.exist, &watches.child].into_iter().any(|list| !list.is_empty());
        match stay {
            true => Some(Request::SetWatches2 { watches, persistent, recursive }),
            false => some.then_some(Request::SetWatches { watches }),
        }
    }
}

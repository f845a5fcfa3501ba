//! All znodes as they were at one moment, handed out in pieces while the tree goes on, without a second tree.
//!
//! A walk goes through the tree in order. A znode that changes, or goes, before the walk has come to it is set aside first, as it
//! was; one that is new since is not part of it. Which ones are still to come, each slot says: its mark is not that of the tree.
//! Outside of an export all marks are that of the tree, so an export begins by turning that, whatever the size of the tree.

use api::{Path, record};

use super::{Tree, slab::NodeId};

/// An export under way.
#[derive(Default, Debug)]
pub(super) struct Export {
    /// The walk has come to this path.
    at: Option<Path>,
    /// Znodes that changed before the walk came to them, as they were: each at most once, and as many as change between two calls of
    /// [`Tree::export`] and those that it has not yet taken.
    aside: Vec<record::Znode>,
    /// Nobody takes the rest. The marks stay as they are until the next one begins.
    given_up: bool,
}

impl Tree {
    /// Begins an export of all znodes as they are now. One that was under way ends.
    pub(crate) fn begin_export(&mut self) {
        if self.export.take().is_some() {
            // It has not come to all of them, and never will.
            let mark = self.exported;
            self.nodes.iter_mut().for_each(|slot| slot.exported = mark);
        }
        self.exported = !self.exported;
        self.export = Some(Box::default());
    }

    /// Nobody takes the rest of the export: what changes is not set aside any more.
    pub(crate) fn end_export(&mut self) {
        if let Some(export) = &mut self.export {
            (export.aside, export.given_up) = (Vec::new(), true);
        }
    }

    /// The next znodes of the export, and whether more are to come; `None` if none is under way. Looks at no more than `most`
    /// znodes, and goes no further when their values have `bytes`. Those that were set aside come first.
    pub(crate) fn export(&mut self, most: usize, bytes: usize) -> Option<(Vec<record::Znode>, bool)> {
        let mut export = self.export.take_if(|export| !export.given_up)?;
        let mut records = export.aside.split_off(export.aside.len().saturating_sub(most));
        let (mut done, mut looked_at, mut size) = (Vec::new(), records.len(), 0);
        let mut more = false;
        for (id, path, node) in self.walk_after(export.at.as_ref()) {
            if looked_at >= most || size >= bytes {
                more = true;
                break;
            }
            looked_at += 1;
            if node.exported != self.exported {
                size += node.data_len();
                records.push(node.record(path.clone()));
                done.push(id);
            }
            export.at = Some(path);
        }
        for id in done {
            self.nodes[id].exported = self.exported;
        }
        more |= !export.aside.is_empty();
        if more {
            self.export = Some(export);
        }
        Some((records, more))
    }

    /// To be called before a znode changes or goes.
    pub(super) fn before_change(&mut self, id: NodeId, path: &str) {
        if !self.walks.is_empty() {
            self.set_aside(id, path);
        }
        let slot = &self.nodes[id];
        if slot.exported == self.exported {
            return;
        }
        if let Some(export) = self.export.as_mut().filter(|export| !export.given_up) {
            export.aside.push(slot.record(super::path_of(path)));
        }
        self.nodes[id].exported = self.exported;
    }
}

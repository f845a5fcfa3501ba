//! An export of all znodes as of one moment, in parts while the tree changes, without a second tree.
//!
//! The export visits the tree in order. Before a znode that it has not visited changes or is removed,
//! the export saves its old version. New znodes are not part of the export. The mark of a slot tells
//! whether the export still has to visit it: then it differs from the mark of the tree. Without an
//! export all marks equal that of the tree, so an export begins by flipping the mark of the tree, in
//! constant time.

use api::{Path, record};

use super::{Tree, slab::NodeId};

/// A running export.
#[derive(Default, Debug)]
pub(super) struct Export {
    /// The export has reached this path.
    at: Option<Path>,
    /// Old versions of znodes that changed before the export visited them: each at most once. Bounded
    /// by the changes between two calls of [`Tree::export`], plus the ones not yet taken.
    aside: Vec<record::Znode>,
    /// The export was cancelled. The marks stay until the next one begins.
    given_up: bool,
}

impl Tree {
    /// Begins an export of all znodes as of now. Ends a running export.
    pub(crate) fn begin_export(&mut self) {
        if self.export.take().is_some() {
            // The old export has not visited all znodes, and never will.
            let mark = self.exported;
            self.nodes.iter_mut().for_each(|slot| slot.exported = mark);
        }
        self.exported = !self.exported;
        self.export = Some(Box::default());
    }

    /// Cancels the export: changes no longer save old versions.
    pub(crate) fn end_export(&mut self) {
        if let Some(export) = &mut self.export {
            (export.aside, export.given_up) = (Vec::new(), true);
        }
    }

    /// The next znodes of the export, and whether more follow; `None` if no export is running. Visits
    /// at most `most` znodes, and stops when their values reach `bytes`. Saved versions come first.
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

    /// Must be called before a znode changes or is removed.
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

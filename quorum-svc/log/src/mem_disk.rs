use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::chance::SplitMix;
use rustix::io::Errno;

use crate::disk::{Disk, DiskFile, DiskLock, Space};

/// A simulated disk with a volatile cache, for tests and simulations. Clones share the disk.
///
/// The model promises only what POSIX promises, with two additions of journalling file systems: changes
/// of the length of one file reach the disk in their order, and directories are durable at once.
/// - An unsynced write may survive a [`crash`](MemDisk::crash) whole, in some of its 512-byte sectors,
///   or not at all.
/// - Names are separate from contents. Each unsynced creation, rename and removal may survive or not,
///   independently.
/// - After a failed sync, reads still return the new contents, but no later sync makes them durable.
///   Only a new length stays pending.
/// - The caller decides time and order of all calls, and chance comes from the seed alone, so every run
///   is repeatable.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

/// The effect of a power cut on unsynced data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Crash {
    /// All unsynced data is lost.
    LoseUnsynced,
    /// The power stays on and only the process dies: all data is still there, but none becomes durable
    /// by that.
    ProcessOnly,
    /// Chance decides for each sector and each name; the same seed gives the same result.
    Random(u64),
    /// All unsynced data is lost, except files and names whose path contains this.
    KeepOnly(&'static str),
    /// No unsynced data is lost, except files and names whose path contains this.
    LoseOnly(&'static str),
}

/// The calls that can fail.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DiskOp {
    /// [`Disk::create`].
    Create,
    /// [`DiskFile::read_at`].
    Read,
    /// [`DiskFile::write_at`]; the first half is written.
    Write,
    /// [`DiskFile::sync_data`] and [`DiskFile::sync_all`].
    Sync,
    /// [`DiskFile::allocate`].
    Allocate,
    /// [`DiskFile::set_len`].
    SetLen,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
}

/// A planned failure.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// The call that fails.
    pub op: DiskOp,
    /// Only on paths that contain this.
    pub path: String,
    /// Number of such calls that succeed before it.
    pub skip: u32,
    /// The error of the call.
    pub errno: Errno,
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// The power fails and comes back, or only the process dies. Open files, locks and planned faults
    /// are gone.
    pub fn crash(&self, crash: Crash) {
        self.state().crash(crash);
    }

    /// After `changes` more calls that change something (syncs included), all calls fail without effect
    /// until [`MemDisk::crash`]. So a test can crash at each step of an operation in turn.
    pub fn power_off_after(&self, changes: u64) {
        self.state().power_off_after = Some(changes);
    }

    /// Whether the power went off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// Plans a failure that happens once.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Bounds the bytes of all files together; further writes fail with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = Some(bytes);
    }

    /// Inverts one bit of a file on the disk itself. Returns false if there is no such bit.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut state = self.state();
        let Some(inode) = state.inode_at(path) else { return false };
        let Ok(at) = usize::try_from(offset) else { return false };
        if at >= inode.cache.len() || bit > 7 {
            return false;
        }
        inode.cache[at] ^= 1 << bit;
        if let Some(byte) = inode.durable.get_mut(at) {
            *byte ^= 1 << bit;
        }
        true
    }

    /// Sets the contents of a file, durably; creates it if needed.
    pub fn put(&self, path: &Path, contents: &[u8]) {
        let mut state = self.state();
        let id = state.new_inode();
        if let Some(inode) = state.inodes.get_mut(&id) {
            inode.cache = contents.to_vec();
            inode.durable = contents.to_vec();
        }
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
    }

    /// The content that a reader sees now.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().inode_at(path).map(|inode| inode.cache.clone())
    }

    /// All files with the contents that readers see now.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        let contents = |id| state.inodes.get(id).map(|i: &Inode| i.cache.clone()).unwrap_or_default();
        state.names.iter().map(|(path, id)| (path.clone(), contents(id))).collect()
    }

    /// A separate disk with the same content, durable or not.
    #[must_use]
    pub fn copy(&self) -> MemDisk {
        MemDisk(Arc::new(Mutex::new(self.state().clone())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, state: &mut State, id: u64, path: &Path) -> Box<dyn DiskFile> {
        if let Some(inode) = state.inodes.get_mut(&id) {
            inode.handles += 1;
        }
        Box::new(MemFile { disk: self.clone(), id, path: path.to_owned(), incarnation: state.incarnation })
    }
}

impl Disk for MemDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(None, dir)?;
        state.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(Some(DiskOp::SyncDir), dir)?;
        let (synced, rest) = std::mem::take(&mut state.pending_names)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.path().parent() == Some(dir));
        state.pending_names = rest;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        state.forget_unreachable();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check()?;
        if !state.dirs.contains(dir) {
            return Err(Errno::NOENT.into());
        }
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
        let names: BTreeSet<String> =
            state.names.keys().chain(&state.dirs).filter(inside).filter_map(name).collect();
        Ok(names.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state();
        state.check()?;
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.change(Some(DiskOp::Create), path)?;
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(Errno::NOENT.into());
        }
        if let Some(&id) = state.names.get(path) {
            if let Some(inode) = state.inodes.get_mut(&id) {
                inode.set_len(0);
            }
            return Ok(self.file(&mut state, id, path));
        }
        let id = state.new_inode();
        state.change_name(NameChange::Link(path.to_owned(), id));
        Ok(self.file(&mut state, id, path))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.check()?;
        let id = *state.names.get(path).ok_or(Errno::NOENT)?;
        Ok(self.file(&mut state, id, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(Some(DiskOp::Rename), to)?;
        let id = *state.names.get(from).ok_or(Errno::NOENT)?;
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change(Some(DiskOp::Remove), path)?;
        if !state.names.contains_key(path) {
            return Err(Errno::NOENT.into());
        }
        state.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let state = self.state();
        state.check()?;
        let total = state.capacity.unwrap_or(ENDLESS);
        let used: usize = state.inodes.values().map(|inode| inode.cache.len()).sum();
        Ok(Space { free: total.saturating_sub(used as u64), total })
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let mut state = self.state();
        state.check()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(Errno::WOULDBLOCK.into());
        }
        if !state.names.contains_key(path) {
            let id = state.new_inode();
            state.change_name(NameChange::Link(path.to_owned(), id));
        }
        let guard = MemLock { disk: self.clone(), path: path.to_owned(), incarnation: state.incarnation };
        Ok(DiskLock::new(guard))
    }
}

struct MemFile {
    disk: MemDisk,
    id: u64,
    path: PathBuf,
    incarnation: u64,
}

impl MemFile {
    /// Runs a call on the file, unless the file was opened before the last crash.
    fn on<T>(
        &self,
        op: Option<DiskOp>,
        call: impl FnOnce(&mut State, Result<(), Errno>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.incarnation != self.incarnation {
            return Err(io::Error::other("this file was opened before the crash"));
        }
        let permit = match op {
            None => state.check(),
            Some(DiskOp::Read) => state.check().and_then(|()| state.planned(DiskOp::Read, &self.path)),
            Some(op) => state.change(Some(op), &self.path),
        };
        if state.off {
            permit?;
        }
        call(&mut state, permit)
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.on(Some(DiskOp::Read), |state, permit| {
            permit?;
            let contents = &state.inode(self.id)?.cache;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
            let read = buf.len().min(contents.len() - from);
            buf[..read].copy_from_slice(&contents[from..from + read]);
            Ok(read)
        })
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.on(Some(DiskOp::Write), |state, permit| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let permit = permit.and_then(|()| state.check_capacity(self.id, offset + data.len()));
            let written = if permit.is_ok() { data } else { &data[..data.len() / 2] };
            state.inode(self.id)?.write(written, offset);
            Ok(permit?)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.on(Some(DiskOp::Sync), |state, permit| {
            let inode = state.inode(self.id)?;
            let pending = std::mem::take(&mut inode.pending);
            if permit.is_err() {
                // The kernel marks the pages clean anyway, so their contents are never written again.
                // Lengths are in the journal.
                inode.pending = pending.into_iter().filter(|c| matches!(c, Change::SetLen(_))).collect();
                return Ok(permit?);
            }
            inode.pending = pending;
            inode.make_durable();
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.on(Some(DiskOp::Allocate), |state, permit| {
            permit?;
            let len = usize::try_from(len).map_err(io::Error::other)?;
            state.check_capacity(self.id, len)?;
            let inode = state.inode(self.id)?;
            if len > inode.cache.len() {
                inode.set_len(len);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.on(Some(DiskOp::SetLen), |state, permit| {
            permit?;
            let len = usize::try_from(len).map_err(io::Error::other)?;
            state.inode(self.id)?.set_len(len);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.on(None, |state, permit| {
            permit?;
            Ok(state.inode(self.id)?.cache.len() as u64)
        })
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.incarnation == self.incarnation
            && let Ok(inode) = state.inode(self.id)
        {
            inode.handles -= 1;
        }
    }
}

struct MemLock {
    disk: MemDisk,
    path: PathBuf,
    incarnation: u64,
}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.incarnation == self.incarnation {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Clone, Default)]
struct State {
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    locks: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    capacity: Option<u64>,
    power_off_after: Option<u64>,
    off: bool,
    /// Number of crashes; handles from before the last crash are dead.
    incarnation: u64,
}

impl State {
    fn check(&self) -> Result<(), Errno> {
        if self.off { Err(Errno::IO) } else { Ok(()) }
    }

    /// Permits a changing call, or returns its error.
    fn change(&mut self, op: Option<DiskOp>, path: &Path) -> Result<(), Errno> {
        match &mut self.power_off_after {
            Some(0) => self.off = true,
            Some(left) => *left -= 1,
            None => {}
        }
        self.check()?;
        op.map_or(Ok(()), |op| self.planned(op, path))
    }

    fn planned(&mut self, op: DiskOp, path: &Path) -> Result<(), Errno> {
        let name = path.to_string_lossy();
        for i in 0..self.faults.len() {
            let fault = &mut self.faults[i];
            if fault.op == op && name.contains(&fault.path) {
                if fault.skip == 0 {
                    return Err(self.faults.remove(i).errno);
                }
                fault.skip -= 1;
            }
        }
        Ok(())
    }

    /// Whether the file may grow to `len`.
    fn check_capacity(&self, id: u64, len: usize) -> Result<(), Errno> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let others: usize = self.inodes.iter().filter(|&(&i, _)| i != id).map(|(_, n)| n.cache.len()).sum();
        let now = self.inodes.get(&id).map_or(0, |n| n.cache.len());
        let fits = len <= now || (others + len) as u64 <= capacity;
        if fits { Ok(()) } else { Err(Errno::NOSPC) }
    }

    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.next_inode
    }

    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| Errno::BADF.into())
    }

    fn inode_at(&mut self, path: &Path) -> Option<&mut Inode> {
        let id = self.names.get(path)?;
        self.inodes.get_mut(id)
    }

    fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn crash(&mut self, crash: Crash) {
        let mut chance = SplitMix(match crash {
            Crash::Random(seed) => seed,
            _ => 0,
        });
        let contains = |path: &Path, part: &str| path.to_string_lossy().contains(part);
        let is_kept = |path: &Path| match crash {
            Crash::KeepOnly(part) => contains(path, part),
            Crash::LoseOnly(part) => !contains(path, part),
            _ => false,
        };
        let kept: BTreeSet<u64> =
            self.names.iter().filter(|(path, _)| is_kept(path)).map(|(_, &id)| id).collect();
        if crash != Crash::ProcessOnly {
            for change in std::mem::take(&mut self.pending_names) {
                let survives = match crash {
                    Crash::Random(_) => chance.draw().is_multiple_of(2),
                    _ => is_kept(change.path()),
                };
                if survives {
                    change.apply(&mut self.durable_names);
                }
            }
            self.names = self.durable_names.clone();
        }
        for (id, inode) in &mut self.inodes {
            inode.handles = 0;
            match crash {
                Crash::ProcessOnly => {}
                Crash::Random(_) => inode.lose_power(Some(&mut chance)),
                _ if kept.contains(id) => {
                    inode.make_durable();
                    inode.lose_power(None);
                }
                _ => inode.lose_power(None),
            }
        }
        self.incarnation += 1;
        self.locks.clear();
        self.faults.clear();
        self.power_off_after = None;
        self.off = false;
        self.forget_unreachable();
    }

    /// Removes contents that no name reaches, now or after any crash, and that have no open handle.
    fn forget_unreachable(&mut self) {
        let mut reachable: BTreeSet<u64> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        reachable.extend(self.pending_names.iter().filter_map(NameChange::inode));
        self.inodes.retain(|id, inode| inode.handles > 0 || reachable.contains(id));
    }
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Link(path, id) => {
                names.insert(path, id);
            }
            NameChange::Unlink(path) => {
                names.remove(&path);
            }
            NameChange::Rename(from, to, id) => {
                names.remove(&from);
                names.insert(to, id);
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, _, _) => path,
        }
    }

    fn inode(&self) -> Option<u64> {
        match self {
            NameChange::Link(_, id) | NameChange::Rename(_, _, id) => Some(*id),
            NameChange::Unlink(_) => None,
        }
    }
}

/// Contents of a file: for readers, on the disk, and the changes between them.
#[derive(Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    handles: usize,
}

impl Inode {
    fn write(&mut self, data: &[u8], offset: usize) {
        let change = Change::Write(offset, data.to_vec());
        change.apply(&mut self.cache);
        self.pending.push(change);
    }

    fn set_len(&mut self, len: usize) {
        let change = Change::SetLen(len);
        change.apply(&mut self.cache);
        self.pending.push(change);
    }

    /// All unsynced changes reach the disk.
    fn make_durable(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.durable);
        }
    }

    /// Loses unsynced data: all of it, or the part that `chance` decides.
    fn lose_power(&mut self, chance: Option<&mut SplitMix>) {
        let pending = std::mem::take(&mut self.pending);
        if let Some(chance) = chance {
            // Changes of length are in the journal and survive in order, up to some point.
            let mut lengths = chance.draw() % (pending.len() as u64 + 1);
            for change in &pending {
                match change {
                    Change::SetLen(_) if lengths > 0 => {
                        lengths -= 1;
                        change.apply(&mut self.durable);
                    }
                    Change::SetLen(_) => {}
                    Change::Write(offset, data) => tear(&mut self.durable, *offset, data, chance),
                }
            }
        }
        self.cache = self.durable.clone();
    }
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Change::SetLen(len) => contents.resize(*len, 0),
            Change::Write(offset, data) => {
                let end = offset + data.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(data);
            }
        }
    }
}

/// Writes all, some or none of the sectors of `data`.
fn tear(contents: &mut Vec<u8>, offset: usize, data: &[u8], chance: &mut SplitMix) {
    let fate = chance.draw() % 3;
    let mut from = 0;
    while from < data.len() {
        let to = data.len().min(from + SECTOR - (offset + from) % SECTOR);
        let keep = match fate {
            0 => true,
            1 => false,
            _ => chance.draw().is_multiple_of(2),
        };
        if keep {
            Change::Write(offset + from, data[from..to].to_vec()).apply(contents);
        }
        from = to;
    }
}

/// The size of a disk without a capacity.
const ENDLESS: u64 = 1 << 50;

/// The unit that a disk writes as a whole or not at all.
const SECTOR: usize = 512;

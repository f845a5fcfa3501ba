//! A disk that can be made slow while a node runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quorum_log::{Disk, DiskFile, DiskLock, FsDisk, Space};

/// The file system, where every sync first takes as many milliseconds as the control file says; without the file, or
/// with anything else in it, none.
pub(crate) struct SlowDisk {
    disk: FsDisk,
    slowness: Arc<PathBuf>,
}

impl SlowDisk {
    pub(crate) fn new(slowness: PathBuf) -> SlowDisk {
        SlowDisk { disk: FsDisk, slowness: Arc::new(slowness) }
    }

    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(SlowFile { file, slowness: Arc::clone(&self.slowness) })
    }
}

/// The delay in the control file.
fn asked(slowness: &Path) -> Duration {
    let millis = std::fs::read_to_string(slowness).ok().and_then(|text| text.trim().parse().ok());
    Duration::from_millis(millis.unwrap_or(0))
}

fn wait(slowness: &Path) {
    std::thread::sleep(asked(slowness));
}

impl Disk for SlowDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        wait(&self.slowness);
        self.disk.sync_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(self.disk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        self.disk.lock(path)
    }
}

struct SlowFile {
    file: Box<dyn DiskFile>,
    slowness: Arc<PathBuf>,
}

impl DiskFile for SlowFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(data, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        wait(&self.slowness);
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        wait(&self.slowness);
        self.file.sync_all()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.file.allocated()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn syncs_take_at_least_as_long_as_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let slowness = dir.path().join("slowness");
        let disk = SlowDisk::new(slowness.clone());
        let file = disk.create(&dir.path().join("file")).unwrap();
        let slow = Duration::from_millis(300);
        let took = |work: &dyn Fn() -> io::Result<()>| {
            let start = Instant::now();
            work().unwrap();
            start.elapsed()
        };
        assert_eq!(asked(&slowness), Duration::ZERO);
        std::fs::write(&slowness, "300").unwrap();
        assert!(took(&|| file.sync_data()) >= slow);
        assert!(took(&|| file.sync_all()) >= slow);
        assert!(took(&|| disk.sync_dir(dir.path())) >= slow);
        std::fs::write(&slowness, "soon").unwrap();
        assert_eq!(asked(&slowness), Duration::ZERO);
    }
}

//! Numbers of the system about this process. On other systems than Linux they stay 0.

use std::path::PathBuf;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use crate::labels::CpuMode;
use crate::metrics;

static DATA_DIR: OnceLock<PathBuf> = OnceLock::new();

/// Sets the directory whose file system the disk metrics report. The first call counts; the directory may not
/// exist yet.
pub fn set_data_dir(dir: PathBuf) {
    let _ = DATA_DIR.set(dir);
}

/// Reads everything again. An unreadable number keeps its value.
pub fn refresh() {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    metrics::PROCESS_UPTIME.set_time(STARTED.elapsed());
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some(stat) = Stat::parse(&stat)
    {
        metrics::PROCESS_CPU_TIME.at(CpuMode::User).raise_to(stat.user);
        metrics::PROCESS_CPU_TIME.at(CpuMode::System).raise_to(stat.system);
        metrics::PROCESS_THREAD_COUNT.set(stat.threads);
    }
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        set_kib(&status, "VmRSS:", |bytes| metrics::PROCESS_MEMORY_USAGE.set(bytes));
        set_kib(&status, "VmSize:", |bytes| metrics::PROCESS_MEMORY_VIRTUAL.set(bytes));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        metrics::PROCESS_FD_COUNT.set(files.count() as u64);
    }
    if let Ok(limits) = std::fs::read_to_string("/proc/self/limits")
        && let Some(limit) = fd_limit(&limits)
    {
        metrics::PROCESS_FD_LIMIT.set(limit);
    }
    if let Some(dir) = DATA_DIR.get()
        && let Ok(disk) = rustix::fs::statvfs(dir)
    {
        metrics::DISK_AVAILABLE.set(disk.f_bavail.saturating_mul(disk.f_frsize));
        metrics::DISK_CAPACITY.set(disk.f_blocks.saturating_mul(disk.f_frsize));
    }
}

struct Stat {
    user: Duration,
    system: Duration,
    threads: u64,
}

impl Stat {
    /// proc(5): the name of the program, in brackets, may contain anything.
    fn parse(text: &str) -> Option<Stat> {
        // The kernel's USER_HZ is 100 on every Linux.
        const TICK: Duration = Duration::from_millis(10);
        let (_, rest) = text.rsplit_once(") ")?;
        // The first of these is field 3.
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let time = |field| Some(TICK * u32::try_from(number(field)?).ok()?);
        Some(Stat { user: time(14)?, system: time(15)?, threads: number(20)? })
    }
}

fn set_kib(status: &str, key: &str, set: impl Fn(u64)) {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    if let Some(kib) = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()) {
        set(kib * 1024);
    }
}

fn fd_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_no_harm() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 150 25 0 0 20 0 9 0 100 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat.user, Duration::from_millis(1500));
        assert_eq!(stat.system, Duration::from_millis(250));
        assert_eq!(stat.threads, 9);
        assert!(Stat::parse("nonsense").is_none());
    }

    #[test]
    fn the_disk_is_that_of_the_data_directory() {
        set_data_dir(std::env::temp_dir());
        refresh();
        let number = |gauge: &crate::value::Gauge| {
            use crate::value::One as _;
            match gauge.value(crate::define::Unit::Bytes) {
                crate::reading::Value::Number(number) => number,
                crate::reading::Value::Distribution(_) => panic!("a gauge"),
            }
        };
        let (available, capacity) = (number(&metrics::DISK_AVAILABLE), number(&metrics::DISK_CAPACITY));
        assert!(capacity > 1e6 && available <= capacity, "{available} of {capacity}");
    }

    #[test]
    fn the_limit_is_the_soft_one() {
        let text = "Limit   Soft  Hard Units\nMax open files            1024                 4096    files\n";
        assert_eq!(fd_limit(text), Some(1024));
        assert_eq!(fd_limit("Max open files unlimited unlimited files"), None);
    }
}

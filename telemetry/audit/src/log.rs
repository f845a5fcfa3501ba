use std::{
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use telemetry::metrics;

use crate::{Event, File, OpenError, Record, Who};

/// What happens to a record for which there is no room, because the disk is too slow or gives errors.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Full {
    /// It is lost, and counted. Clients notice nothing.
    #[default]
    Count,
    /// Whoever makes it waits, and with it the clients that this thread serves. Nothing is done without a record for long.
    Block,
}

/// Where records go, and which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// Its bytes, at which another one is begun.
    pub max: u64,
    /// How many full ones stay.
    pub keep: u32,
    /// Whether all writes are recorded; otherwise changes of access lists and quotas only.
    pub writes: bool,
    /// For lack of room.
    pub full: Full,
    /// The node that records.
    pub node: u32,
}

/// Takes records. Clones are the same log; by default it takes none.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Inner>>);

struct Inner {
    node: u32,
    writes: bool,
    full: Full,
    queue: SyncSender<Message>,
    strangers: Mutex<Strangers>,
}

enum Message {
    Line(String),
    /// Everything before it is written: reports that by being dropped.
    Flush(#[allow(dead_code, reason = "its drop is the message")] SyncSender<()>),
}

/// Bounds how many records of one second strangers can cause.
#[derive(Default)]
struct Strangers {
    second: Option<Instant>,
    count: u32,
    omitted: u64,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Log").field(&self.is_on()).finish()
    }
}

impl Log {
    /// Opens the file and starts the thread that writes it.
    ///
    /// # Errors
    /// The file cannot be written, or the system has no thread.
    pub fn open(settings: Settings) -> Result<Log, OpenError> {
        let Settings { file: path, max, keep, writes, full, node } = settings;
        let file = File::open(&path, max, keep)?;
        let (queue, messages) = sync_channel(QUEUE);
        let writer = Writer { file, full, said: None };
        let started = thread::Builder::new().name("audit".into()).spawn(move || writer.run(&messages));
        started.map_err(|cause| OpenError { path, cause })?;
        let strangers = Mutex::default();
        Ok(Log(Some(Arc::new(Inner { node, writes, full, queue, strangers }))))
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether all writes are recorded.
    #[must_use]
    pub fn has_writes(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.writes)
    }

    /// Records this.
    pub fn record(&self, record: &Record<'_>) {
        let Some(inner) = &self.0 else { return };
        let line = Message::Line(record.line(inner.node, SystemTime::now()));
        metrics::AUDIT_RECORDS.add(1);
        let lost = match inner.full {
            Full::Block => inner.queue.send(line).is_err(),
            Full::Count => matches!(
                inner.queue.try_send(line),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            ),
        };
        if lost {
            metrics::AUDIT_LOST.add(1);
        }
    }

    /// Records that a connection was refused before its first request. Of many in one second only some are: strangers must not
    /// push out what others did. The next record has the number of those left out.
    pub fn record_stranger(&self, port: &str, address: IpAddr, why: &dyn std::fmt::Display) {
        let Some(inner) = &self.0 else { return };
        let omitted = {
            let mut strangers = inner.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            if strangers.second.is_none_or(|began| began.elapsed() >= Duration::from_secs(1)) {
                (strangers.second, strangers.count) = (Some(Instant::now()), 0);
            }
            strangers.count += 1;
            if strangers.count > STRANGERS {
                strangers.omitted += 1;
                return;
            }
            std::mem::take(&mut strangers.omitted)
        };
        let who = Who::new(&api::Identities::NONE, Some(address), None);
        let detail = match omitted {
            0 => format!("{port} port: {why}"),
            omitted => format!("{port} port: {why}; {omitted} more before this one are left out"),
        };
        self.record(&Record { detail: Some(detail), ..Record::new(Event::ConnectionRefused, &who) });
    }

    /// Waits until everything recorded so far is in the file, but no longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let Some(inner) = &self.0 else { return };
        let (done, written) = sync_channel(1);
        if inner.queue.try_send(Message::Flush(done)).is_ok()
            && written.recv_timeout(limit) == Err(RecvTimeoutError::Timeout)
        {
            tracing::warn!("the last records of the audit log are not written yet, and may be lost");
        }
    }
}

struct Writer {
    file: File,
    full: Full,
    /// When an error was logged last.
    said: Option<Instant>,
}

impl Writer {
    /// Until the last [`Log`] is gone.
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(first) = messages.recv() {
            let (mut lines, mut count, mut flushes) = (Vec::new(), 0, Vec::new());
            for message in std::iter::once(first).chain(messages.try_iter()) {
                match message {
                    Message::Line(line) => {
                        lines.extend_from_slice(line.as_bytes());
                        lines.push(b'\n');
                        count += 1;
                    }
                    Message::Flush(done) => flushes.push(done),
                }
                if lines.len() >= BATCH {
                    break;
                }
            }
            if count > 0 {
                self.write(&lines, count);
            }
        }
    }

    fn write(&mut self, lines: &[u8], count: u64) {
        loop {
            let Err(e) = self.file.write(lines) else { return };
            self.say(&e);
            match self.full {
                Full::Count => return metrics::AUDIT_LOST.add(count),
                Full::Block => {
                    metrics::AUDIT_STALLED.add(1);
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn say(&mut self, error: &io::Error) {
        if self.said.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        self.said = Some(Instant::now());
        let file = self.file.path().display();
        match self.full {
            Full::Count => {
                tracing::error!(%file, %error, "cannot write the audit log: records are lost until this is repaired");
            }
            Full::Block => tracing::error!(
                %file, %error,
                "cannot write the audit log: clients wait until this is repaired (`audit.full` is \"block\")"
            ),
        }
    }
}

/// Records that may wait for the disk, of some 300 bytes each.
const QUEUE: usize = 16_384;
/// Bytes that are written at once.
const BATCH: usize = 256 << 10;
/// Between two attempts to write what must not be lost.
const RETRY: Duration = Duration::from_secs(1);
/// Between two complaints.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Records that strangers can cause in one second.
const STRANGERS: u32 = 10;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn settings(file: &Path, full: Full) -> Settings {
        Settings { file: file.to_owned(), max: 1 << 20, keep: 2, writes: false, full, node: 1 }
    }

    fn lines(file: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_was_recorded_is_in_the_file_after_a_flush() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("audit.log");
        let log = Log::open(settings(&file, Full::Count)).unwrap();
        let who = Who::default();
        for _ in 0..1000 {
            log.record(&Record::new(Event::Admin, &who));
        }
        log.flush(Duration::from_secs(10));
        assert_eq!(lines(&file).len(), 1000);
        Log::default().record(&Record::new(Event::Admin, &who));
        assert!(!Log::default().is_on());
    }

    #[test]
    fn strangers_cannot_fill_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("audit.log");
        let log = Log::open(settings(&file, Full::Count)).unwrap();
        for _ in 0..1000 {
            log.record_stranger("client", IpAddr::from([192, 0, 2, 1]), &"no good certificate");
        }
        log.flush(Duration::from_secs(10));
        let records = lines(&file).len();
        assert!((1..=2 * STRANGERS as usize).contains(&records), "{records}");
        std::thread::sleep(Duration::from_secs(1));
        log.record_stranger("client", IpAddr::from([192, 0, 2, 1]), &"no good certificate");
        log.flush(Duration::from_secs(10));
        let last = lines(&file).pop().unwrap();
        assert!(last["detail"].as_str().unwrap().contains("more before this one are left out"), "{last}");
    }

    /// The directory goes and comes back: whoever must not lose a record waits meanwhile.
    #[test]
    fn an_error_of_the_disk_costs_records_or_time_as_the_operator_wants() {
        for full in [Full::Count, Full::Block] {
            let dir = tempfile::tempdir().unwrap();
            let within = dir.path().join("logs");
            fs::create_dir(&within).unwrap();
            let file = within.join("audit.log");
            // Each record begins a file, which needs the directory.
            let log = Log::open(Settings { max: 1, ..settings(&file, full) }).unwrap();
            let record = || log.record(&Record::new(Event::Admin, &Who::default()));
            record();
            log.flush(Duration::from_secs(10));
            fs::rename(&within, dir.path().join("away")).unwrap();
            record();
            std::thread::sleep(Duration::from_millis(300));
            fs::rename(dir.path().join("away"), &within).unwrap();
            log.flush(Duration::from_secs(10));
            let found = fs::read_dir(&within).unwrap().count();
            match full {
                Full::Count => assert_eq!(found, 1, "the second record is lost"),
                Full::Block => assert_eq!(found, 2, "the second record is late"),
            }
        }
    }
}

//! The evidence of a run, for people.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use history::{History, Outcome, Violation, json_lines, page};

/// Where a run keeps its files: a directory that the user named, or one that is removed if nothing is wrong.
pub(crate) struct Place {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new(keep: Option<&Path>) -> Result<Place> {
        if let Some(path) = keep {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
            let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            let used = fs::read_dir(&path).is_ok_and(|mut names| names.next().is_some());
            anyhow::ensure!(!used, "{} is not empty; name a directory that is, or none", path.display());
            return Ok(Place { path, temporary: None });
        }
        let temporary =
            tempfile::Builder::new().prefix("torture-").tempdir().context("cannot make a directory")?;
        Ok(Place { path: temporary.path().to_owned(), temporary: Some(temporary) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does not remove the directory at the end.
    pub(crate) fn keep(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            self.path = temporary.keep();
        }
    }

    /// Whether the directory stays.
    pub(crate) fn stays(&self) -> bool {
        self.temporary.is_none()
    }

    /// Writes the history as lines of JSON, and the diary of faults. Returns the files.
    pub(crate) fn write_record(
        &self,
        history: &History,
        diary: &[(Instant, String)],
        start: Instant,
    ) -> Result<Vec<PathBuf>> {
        let mut faults = String::new();
        for (at, what) in diary {
            let _ = writeln!(faults, "{:9.3} s  {what}", at.saturating_duration_since(start).as_secs_f64());
        }
        self.write([("history.jsonl".to_owned(), json_lines(history)), ("faults.txt".to_owned(), faults)])
    }

    /// Writes the history as a page for each violation, or as one if there is none. Returns the files.
    pub(crate) fn write_pages(&self, history: &History, violations: &[Violation]) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        if violations.is_empty() {
            files.push(("history.html".to_owned(), page(history, None)));
        }
        for (i, violation) in violations.iter().enumerate() {
            let name = if i == 0 { "history.html".to_owned() } else { format!("history-{}.html", i + 1) };
            files.push((name, page(history, Some(violation))));
        }
        self.write(files)
    }

    fn write(&self, files: impl IntoIterator<Item = (String, String)>) -> Result<Vec<PathBuf>> {
        files
            .into_iter()
            .map(|(name, text)| {
                let file = self.path.join(name);
                fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
                Ok(file)
            })
            .collect()
    }
}

impl Drop for Place {
    /// If it is torture itself that breaks down, what it has gathered is worth more than a clean disk.
    fn drop(&mut self) {
        if std::thread::panicking() && !self.stays() {
            self.keep();
            eprintln!("kept       {}", self.path.display());
        }
    }
}

/// The longest time without any write that was carried out, and when it began, both in seconds.
pub(crate) fn longest_stall(history: &History) -> (f64, f64) {
    let mut times: Vec<u64> = history
        .operations
        .iter()
        .filter(|o| matches!(o.outcome, Outcome::Written { .. }))
        .filter_map(|o| o.returned)
        .collect();
    times.sort_unstable();
    let longest = times.windows(2).map(|w| (w[1] - w[0], w[0])).max().unwrap_or_default();
    (longest.0 as f64 / 1e6, longest.1 as f64 / 1e6)
}

//! The counts and times of a node. Every metric is defined once, in [`metrics`], as a static that the
//! services record into. [`gather`] reads them all, and exporters (Prometheus text: [`text`]; OTLP: the crate
//! `host`) work from that reading.
//!
//! Recording is a few relaxed atomic additions and never a lock on the path of a write; frequent events are
//! recorded once for a batch ([`Histogram::record_n`]). The statics belong to the process: several nodes in
//! one process, as in tests, give the sum of them. Spans are in the crate `spans`.
//!
//! ```
//! use std::time::Duration;
//! use telemetry::{Group, gather, metrics};
//!
//! metrics::LOG_FSYNC_DURATION.record(Duration::from_micros(700));
//! let text = telemetry::text::page(&[], &gather(&[Group::Quorum]), telemetry::text::Format::Plain);
//! assert!(text.contains("quorate_log_fsync_duration_seconds_count 1"));
//! ```

mod define;
mod labels;
mod metric;
mod process;
mod reading;
mod value;

pub mod metrics;
pub mod reference;
pub mod text;

pub use define::{Definition, Group, Kind, Unit};
pub use labels::{Closed, CpuMode, Label, Mode, Phase, Port, RoleLabel, TlsUse};
pub use metric::Metric;
pub use process::{refresh as refresh_process, set_data_dir};
pub use reading::{Distribution, Exemplar, Point, Reading, Value};
pub use value::{By, ByName, ByPeer, Counter, Gauge, Histogram, UpDown};

/// Reads all metrics of these groups, those of the process as they are now.
#[must_use]
pub fn gather(groups: &[Group]) -> Vec<Reading> {
    process::refresh();
    let sources = metrics::all().iter().filter(|source| groups.contains(&source.definition().group));
    sources.map(|s| Reading { definition: s.definition(), kind: s.kind(), points: s.points() }).collect()
}

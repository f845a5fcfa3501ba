//! Renders the reference of all metrics, `docs/metrics.md`.

use std::fmt::Write as _;

use crate::define::{Group, Kind};
use crate::metrics;

/// The Markdown page.
#[must_use]
pub fn page() -> String {
    let mut text = HEAD.to_owned();
    for (group, title) in [
        (Group::Process, "Every process"),
        (Group::Election, "Election"),
        (Group::Quorum, "Quorum"),
        (Group::Store, "Store"),
        (Group::Gateway, "Gateway"),
    ] {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n## {title}\n\n| Prometheus | OpenTelemetry | kind, unit | labels | meaning |\n|---|---|---|---|---|\n"
        );
        for source in metrics::all().iter().filter(|s| s.definition().group == group) {
            let (definition, kind) = (source.definition(), source.kind());
            let kind_name = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::UpDown => "gauge (UpDownCounter)",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = source.labels().iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(
                text,
                "| `{}` | `{}` | {kind_name}, {} | {} | {} |",
                definition.prometheus_name(kind),
                definition.name,
                definition.unit.ucum(),
                labels.join(", "),
                definition.help
            );
        }
    }
    text
}

const HEAD: &str = "\
# Metrics

<!-- Made from telemetry/src/metrics.rs; a test compares. To make it anew: cargo run -p telemetry --example reference > docs/metrics.md -->

Each process of a node serves its metrics as Prometheus text under `/metrics` on its HTTP port
(`listen.http_port`, 9464). A quorum and an election in processes of their own use
`listen.quorum_http_port`, 9465, and `listen.election_http_port`, 9466. If
`OTEL_EXPORTER_OTLP_ENDPOINT` is set, the process also pushes them by OTLP/gRPC. A node in one
process has all metrics; a service in a process of its own has those of `Every process` and its own.

Names follow OpenTelemetry's semantic conventions where these exist. A histogram adds `_bucket`,
`_sum` and `_count` to its Prometheus name. Times are in seconds, sizes in bytes.

`quorate_request_duration_seconds` carries exemplars for collectors and for scrapers that accept
OpenMetrics, as Prometheus does: for each bucket the last traced request in it
([tracing.md](tracing.md)). Prometheus keeps them with `--enable-feature=exemplar-storage`, and
Grafana shows them as points that lead to the trace.

`target_info` identifies the process: `service_name`, `service_version`, `service_instance_id` (the
node's id), `service_namespace` (the ensemble).
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(
            kept == page(),
            "docs/metrics.md is not up to date: cargo run -p telemetry --example reference > docs/metrics.md"
        );
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for source in metrics::all() {
            let name = source.definition().prometheus_name(source.kind());
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert!(seen.insert(name.clone()), "{name} twice");
            assert!(source.definition().help.ends_with('.'), "{name}");
            assert!(!source.definition().help.contains('|'), "{name}: breaks the table");
        }
    }
}

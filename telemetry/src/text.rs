//! The text that Prometheus scrapes.

use std::fmt::Write as _;

use crate::define::Kind;
use crate::reading::{Distribution, Exemplar, Reading, Value};

/// How it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus's own, version 0.0.4.
    Plain,
    /// [OpenMetrics 1.0](https://prometheus.io/docs/specs/om/open_metrics_spec/), which also has exemplars.
    OpenMetrics,
}

impl Format {
    /// Chooses the format for a request with this header `accept`: OpenMetrics if the header names it.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Plain }
    }

    /// The header `content-type` for it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The name in `# HELP` and `# TYPE` of a metric whose points are called `name`.
    fn family(self, name: &str) -> &str {
        let suffix = if name == TARGET_INFO { "_info" } else { "_total" };
        match self {
            Format::Plain => name,
            Format::OpenMetrics => name.strip_suffix(suffix).unwrap_or(name),
        }
    }

    fn head(self, text: &mut String, name: &str, kind: &str, help: &str) {
        let family = self.family(name);
        let help = escaped(help, self == Format::OpenMetrics);
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
    }
}

const TARGET_INFO: &str = "target_info";

/// A whole page: facts about the process, as the labels of OpenTelemetry's `target_info`, and readings. Metrics without a point at
/// the moment are named all the same.
#[must_use]
pub fn page(facts: &[(&'static str, String)], readings: &[Reading], format: Format) -> String {
    let mut text = String::new();
    let kind = if format == Format::OpenMetrics { "info" } else { "gauge" };
    format.head(&mut text, TARGET_INFO, kind, "What this process is.");
    line(&mut text, TARGET_INFO, facts, None, 1.0);
    for reading in readings {
        let name = reading.definition.prometheus_name(reading.kind);
        let kind = match reading.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::UpDown => "gauge",
            Kind::Histogram => "histogram",
        };
        format.head(&mut text, &name, kind, reading.definition.help);
        for point in &reading.points {
            match &point.value {
                Value::Number(number) => line(&mut text, &name, &point.labels, None, *number),
                Value::Distribution(d) => distribution(&mut text, &name, &point.labels, d, format),
            }
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn distribution(
    text: &mut String,
    name: &str,
    labels: &[(&'static str, String)],
    d: &Distribution,
    format: Format,
) {
    let mut below = 0;
    let ends = d.bounds.iter().map(|bound| bound.to_string()).chain(["+Inf".to_owned()]);
    for (range, (end, count)) in ends.zip(&d.counts).enumerate() {
        below += count;
        line(text, &format!("{name}_bucket"), labels, Some(&end), below as f64);
        let exemplar = d.exemplars.iter().find(|e| e.range == range && format == Format::OpenMetrics);
        if let Some(Exemplar { value, at, span, .. }) = exemplar {
            // It belongs to the line above.
            text.pop();
            let (trace, id) = (u128::from_be_bytes(span.trace_id()), u64::from_be_bytes(span.span_id()));
            let at = *at as f64 / 1e9;
            let _ = writeln!(text, " # {{trace_id=\"{trace:032x}\",span_id=\"{id:016x}\"}} {value} {at:.3}");
        }
    }
    line(text, &format!("{name}_sum"), labels, None, d.sum);
    line(text, &format!("{name}_count"), labels, None, below as f64);
}

fn line(text: &mut String, name: &str, labels: &[(&'static str, String)], le: Option<&str>, value: f64) {
    text.push_str(name);
    let labels = labels.iter().map(|(key, value)| (*key, value.as_str())).chain(le.map(|le| ("le", le)));
    let labels: Vec<String> =
        labels.map(|(key, value)| format!("{key}=\"{}\"", escaped(value, true))).collect();
    if !labels.is_empty() {
        let _ = write!(text, "{{{}}}", labels.join(","));
    }
    let _ = writeln!(text, " {value}");
}

fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use api::TraceContext;

    use super::*;
    use crate::define::{Definition, Group, Unit};
    use crate::reading::Point;

    fn readings() -> [Reading; 2] {
        let definition = |name, unit| Definition { name, unit, help: "Two\nlines.", group: Group::Store };
        let span = TraceContext::new([0xab; 16], [1; 8], true).unwrap();
        let exemplars = vec![Exemplar { range: 1, value: 0.5, at: 1_700_000_000_250_000_000, span }];
        let d = Distribution { bounds: vec![0.001, 1.0], counts: vec![1, 2, 3], sum: 9.5, exemplars };
        let point = |value| vec![Point { labels: vec![("a", "x\"y".into())], value }];
        [
            Reading {
                definition: definition("quorate.some.duration", Unit::Seconds),
                kind: Kind::Histogram,
                points: point(Value::Distribution(d)),
            },
            Reading {
                definition: definition("quorate.some.things", Unit::Count("{thing}")),
                kind: Kind::Counter,
                points: point(Value::Number(3.0)),
            },
        ]
    }

    #[test]
    fn histograms_add_up_and_labels_are_escaped() {
        assert_eq!(
            page(&[("b", "c".into())], &readings(), Format::Plain),
            "# HELP target_info What this process is.\n\
             # TYPE target_info gauge\n\
             target_info{b=\"c\"} 1\n\
             # HELP quorate_some_duration_seconds Two\\nlines.\n\
             # TYPE quorate_some_duration_seconds histogram\n\
             quorate_some_duration_seconds_bucket{a=\"x\\\"y\",le=\"0.001\"} 1\n\
             quorate_some_duration_seconds_bucket{a=\"x\\\"y\",le=\"1\"} 3\n\
             quorate_some_duration_seconds_bucket{a=\"x\\\"y\",le=\"+Inf\"} 6\n\
             quorate_some_duration_seconds_sum{a=\"x\\\"y\"} 9.5\n\
             quorate_some_duration_seconds_count{a=\"x\\\"y\"} 6\n\
             # HELP quorate_some_things_total Two\\nlines.\n\
             # TYPE quorate_some_things_total counter\n\
             quorate_some_things_total{a=\"x\\\"y\"} 3\n"
        );
    }

    #[test]
    fn open_metrics_has_exemplars_and_an_end() {
        let traced = " # {trace_id=\"abababababababababababababababab\",span_id=\"0101010101010101\"} 0.5 1700000000.250";
        assert_eq!(
            page(&[("b", "c".into())], &readings(), Format::OpenMetrics),
            format!(
                "# HELP target What this process is.\n\
                 # TYPE target info\n\
                 target_info{{b=\"c\"}} 1\n\
                 # HELP quorate_some_duration_seconds Two\\nlines.\n\
                 # TYPE quorate_some_duration_seconds histogram\n\
                 quorate_some_duration_seconds_bucket{{a=\"x\\\"y\",le=\"0.001\"}} 1\n\
                 quorate_some_duration_seconds_bucket{{a=\"x\\\"y\",le=\"1\"}} 3{traced}\n\
                 quorate_some_duration_seconds_bucket{{a=\"x\\\"y\",le=\"+Inf\"}} 6\n\
                 quorate_some_duration_seconds_sum{{a=\"x\\\"y\"}} 9.5\n\
                 quorate_some_duration_seconds_count{{a=\"x\\\"y\"}} 6\n\
                 # HELP quorate_some_things Two\\nlines.\n\
                 # TYPE quorate_some_things counter\n\
                 quorate_some_things_total{{a=\"x\\\"y\"}} 3\n\
                 # EOF\n"
            )
        );
    }

    #[test]
    fn a_client_that_accepts_open_metrics_gets_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("text/plain"), Format::Plain);
        assert_eq!(Format::accepted(""), Format::Plain);
    }
}

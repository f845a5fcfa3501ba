//! The text that Prometheus scrapes, version 0.0.4.

use std::fmt::Write as _;

use crate::define::Kind;
use crate::reading::{Distribution, Reading, Value};

/// What the content type of [`render`] is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes readings as Prometheus reads them. Metrics without a point at the moment are named all the same.
#[must_use]
pub fn render(readings: &[Reading]) -> String {
    let mut text = String::new();
    for reading in readings {
        let name = reading.definition.prometheus_name(reading.kind);
        let kind = match reading.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {}", escaped(reading.definition.help, false));
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for point in &reading.points {
            match &point.value {
                Value::Number(number) => line(&mut text, &name, &point.labels, None, *number),
                Value::Distribution(d) => distribution(&mut text, &name, &point.labels, d),
            }
        }
    }
    text
}

/// One gauge with the value 1 that carries facts about the process as labels, as OpenTelemetry's `target_info`.
#[must_use]
pub fn info(facts: &[(&'static str, String)]) -> String {
    let mut text = String::from("# HELP target_info What this process is.\n# TYPE target_info gauge\n");
    line(&mut text, "target_info", facts, None, 1.0);
    text
}

fn distribution(text: &mut String, name: &str, labels: &[(&'static str, String)], d: &Distribution) {
    let mut below = 0;
    let ends = d.bounds.iter().map(|bound| bound.to_string()).chain(["+Inf".to_owned()]);
    for (end, count) in ends.zip(&d.counts) {
        below += count;
        line(text, &format!("{name}_bucket"), labels, Some(&end), below as f64);
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
    use super::*;
    use crate::define::{Definition, Group, Unit};
    use crate::reading::Point;

    #[test]
    fn histograms_add_up_and_labels_are_escaped() {
        let definition = Definition {
            name: "quorate.some.duration",
            unit: Unit::Seconds,
            help: "Two\nlines.",
            group: Group::Store,
        };
        let d = Distribution { bounds: vec![0.001, 1.0], counts: vec![1, 2, 3], sum: 9.5 };
        let points = vec![Point { labels: vec![("a", "x\"y".into())], value: Value::Distribution(d) }];
        let text = render(&[Reading { definition, kind: Kind::Histogram, points }]);
        assert_eq!(
            text,
            "# HELP quorate_some_duration_seconds Two\\nlines.\n\
             # TYPE quorate_some_duration_seconds histogram\n\
             quorate_some_duration_seconds_bucket{a=\"x\\\"y\",le=\"0.001\"} 1\n\
             quorate_some_duration_seconds_bucket{a=\"x\\\"y\",le=\"1\"} 3\n\
             quorate_some_duration_seconds_bucket{a=\"x\\\"y\",le=\"+Inf\"} 6\n\
             quorate_some_duration_seconds_sum{a=\"x\\\"y\"} 9.5\n\
             quorate_some_duration_seconds_count{a=\"x\\\"y\"} 6\n"
        );
    }
}

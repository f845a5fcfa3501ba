//! A history drawn for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::{Call, History, Operation, Outcome, Violation, text};

/// A self-contained page of HTML: a row for each client, a bar for each operation from its call to its
/// return, coloured by kind and outcome, with all its details under the pointer. With a violation, its
/// explanation is at the top, and the page is scrolled to the first impossible operation, which is marked.
///
/// Of a long history the page draws only the operations around the impossible one, or the last ones if there
/// is none: a number that a browser can show. The page states this.
#[must_use]
pub fn page(history: &History, violation: Option<&Violation>) -> String {
    let bad = violation.and_then(|v| v.operation);
    let shown = window(history, bad);
    let drawing = Drawing::of(history, &shown, bad);
    let mut html = String::from(HEAD);
    match violation {
        Some(violation) => {
            let _ = write!(
                html,
                "<h1 class=\"broken\">Impossible: {}</h1><p>{}</p>",
                escape(violation.rule.name()),
                escape(&violation.explanation)
            );
            if let Some(operation) = bad.and_then(|i| history.operations.get(i)) {
                let _ = write!(html, "<pre>{}</pre>", escape(&details(bad.unwrap_or_default(), operation)));
            }
        }
        None => html.push_str("<h1>No violation found</h1>"),
    }
    let _ = write!(
        html,
        "<p>{} of {} operations, {:.3} s to {:.3} s. Point at a bar for details.</p>{LEGEND}",
        shown.len(),
        history.operations.len(),
        seconds(drawing.from),
        seconds(drawing.to)
    );
    drawing.draw(history, &mut html);
    html.push_str(TAIL);
    html
}

/// As many bars as browsers show without pain.
const SHOWN_MAX: usize = 6000;

/// The operations to be shown, by the times of their calls.
fn window(history: &History, bad: Option<usize>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..history.operations.len()).collect();
    order.sort_by_key(|&i| (history.operations[i].called, i));
    let middle = bad.and_then(|bad| order.iter().position(|&i| i == bad)).unwrap_or(order.len());
    let from = middle.saturating_sub(SHOWN_MAX / 2).min(order.len().saturating_sub(SHOWN_MAX));
    order.into_iter().skip(from).take(SHOWN_MAX).collect()
}

struct Drawing {
    from: u64,
    to: u64,
    /// Pixels for a microsecond.
    scale: f64,
    /// Of each lane: whose it is, and its bars, each with its row within the lane.
    lanes: BTreeMap<u32, Vec<(usize, usize)>>,
    bad: Option<usize>,
}

impl Drawing {
    fn of(history: &History, shown: &[usize], bad: Option<usize>) -> Drawing {
        let operations = || shown.iter().map(|&i| &history.operations[i]);
        let from = operations().map(|o| o.called).min().unwrap_or(0);
        let to = operations().map(|o| o.returned.unwrap_or(o.called)).max().unwrap_or(0).max(from + 1);
        // A typical operation shall be wide enough to be pointed at.
        let mut lengths: Vec<u64> = operations().filter_map(|o| Some(o.returned? - o.called)).collect();
        lengths.sort_unstable();
        let typical = lengths.get(lengths.len() / 2).copied().unwrap_or(1).max(1);
        let scale = (TYPICAL_WIDTH / typical as f64).min(WIDTH_MAX / (to - from) as f64);
        let mut drawing = Drawing { from, to, scale, lanes: BTreeMap::new(), bad };
        for &i in shown {
            let bars = drawing.lanes.entry(history.operations[i].client).or_default();
            bars.push((i, 0));
        }
        let end = |o: &Operation| o.returned.unwrap_or(o.called);
        let gap = (GAP / drawing.scale) as u64;
        for bars in drawing.lanes.values_mut() {
            let mut rows: Vec<u64> = Vec::new();
            for (i, row) in bars {
                let operation = &history.operations[*i];
                *row = rows.iter().position(|&busy| busy < operation.called).unwrap_or(rows.len());
                if *row == rows.len() {
                    rows.push(0);
                }
                rows[*row] = end(operation).max(operation.called + gap);
            }
        }
        drawing
    }

    fn x(&self, time: u64) -> f64 {
        MARGIN + (time - self.from) as f64 * self.scale
    }

    fn draw(&self, history: &History, html: &mut String) {
        let rows = |bars: &[(usize, usize)]| bars.iter().map(|&(_, row)| row + 1).max().unwrap_or(1) as f64;
        let height: f64 = self.lanes.values().map(|bars| rows(bars) * ROW + LANE_GAP).sum::<f64>() + AXIS;
        let width = self.x(self.to) + MARGIN;
        let _ = write!(html, "<div id=\"lanes\"><svg width=\"{width:.0}\" height=\"{height:.0}\">");
        self.axis(height, html);
        let mut top = AXIS;
        for (client, bars) in &self.lanes {
            let _ = write!(
                html,
                "<line class=\"lane\" x1=\"0\" x2=\"{width:.0}\" y1=\"{top:.0}\" y2=\"{top:.0}\"/>"
            );
            let _ =
                write!(html, "<text class=\"client\" x=\"4\" y=\"{:.0}\">client {client}</text>", top + ROW);
            for &(i, row) in bars {
                self.bar(i, &history.operations[i], top + LANE_GAP / 2.0 + row as f64 * ROW, html);
            }
            top += rows(bars) * ROW + LANE_GAP;
        }
        html.push_str("</svg></div>");
    }

    fn axis(&self, height: f64, html: &mut String) {
        let step = [1u64, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000]
            .into_iter()
            .find(|&step| step as f64 * self.scale >= TICK_WIDTH)
            .unwrap_or(100_000_000);
        let mut time = self.from.next_multiple_of(step);
        while time <= self.to {
            let x = self.x(time);
            let _ = write!(
                html,
                "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height:.0}\"/>"
            );
            let _ = write!(html, "<text x=\"{:.1}\" y=\"12\">{:.6} s</text>", x + 3.0, seconds(time));
            time += step;
        }
    }

    fn bar(&self, index: usize, operation: &Operation, y: f64, html: &mut String) {
        let x = self.x(operation.called);
        let end = operation.returned.map_or(x + OPEN_WIDTH, |returned| self.x(returned));
        let bad = self.bad == Some(index);
        let width = (end - x).max(if bad { BAD_WIDTH } else { 2.0 });
        let (id, mark) = if bad { (" id=\"bad\"", " bad") } else { ("", "") };
        let _ = write!(
            html,
            "<g{id}><rect class=\"{}{mark}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/><title>{}</title></g>",
            class(operation),
            ROW - 3.0,
            escape(&details(index, operation))
        );
    }
}

fn class(operation: &Operation) -> &'static str {
    match (&operation.call, &operation.outcome) {
        (_, Outcome::Refused(_)) => "refused",
        (_, Outcome::Unknown) => "unknown",
        (Call::Write(_), Outcome::Written { result: Err(_), .. }) => "failed",
        (Call::Write(_), _) => "write",
        (Call::Read(_, api::ReadLevel::Linearizable), _) => "linearizable",
        (Call::Read(..), _) => "read",
        (Call::Sync, _) => "sync",
    }
}

fn details(index: usize, operation: &Operation) -> String {
    let mut text = format!("operation {index} of client {}: {}\n", operation.client, text::call(operation));
    let _ = write!(text, "{}, {}", text::kind(operation), text::outcome(operation));
    if let Some(zxid) = operation.outcome.zxid() {
        let _ = write!(text, " at {zxid}");
    }
    let answer = text::answer(operation);
    if !answer.is_empty() {
        let _ = write!(text, "\n{answer}");
    }
    let _ = write!(text, "\ncalled {:.6} s", seconds(operation.called));
    match operation.returned {
        Some(returned) => {
            let _ =
                write!(text, ", returned {:.6} s ({} us)", seconds(returned), returned - operation.called);
        }
        None => text.push_str(", never returned"),
    }
    if let Some(session) = operation.session {
        let _ = write!(text, "\nsession {session}");
    }
    if let Some(node) = operation.node {
        let _ = write!(text, ", answered by node {node}");
    }
    text
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Pixels.
const ROW: f64 = 13.0;
const LANE_GAP: f64 = 10.0;
const AXIS: f64 = 18.0;
const MARGIN: f64 = 70.0;
const GAP: f64 = 2.0;
const OPEN_WIDTH: f64 = 40.0;
const BAD_WIDTH: f64 = 8.0;
const TYPICAL_WIDTH: f64 = 24.0;
const TICK_WIDTH: f64 = 110.0;
const WIDTH_MAX: f64 = 400_000.0;

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>History</title><style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 16px; color: #1c2330; background: #fff; }
h1 { font-size: 20px; margin: 0 0 8px; } h1.broken { color: #b3001b; }
pre { background: #f3f5f8; padding: 8px; border-left: 4px solid #b3001b; white-space: pre-wrap; }
#lanes { overflow: auto; max-height: 78vh; border: 1px solid #ccd3dd; }
svg { display: block; } svg text { font: 11px system-ui, sans-serif; fill: #5b6675; }
text.client { font-weight: 600; fill: #1c2330; }
.lane { stroke: #ccd3dd; } .tick { stroke: #eceff3; }
rect { stroke: #fff; stroke-width: .5; } rect:hover { stroke: #000; stroke-width: 1.5; }
.write { fill: #2f6fde; } .failed { fill: #9dbdf5; } .read { fill: #6bbf7b; } .linearizable { fill: #1d7f3a; }
.sync { fill: #8a63d2; } .unknown { fill: #f2a33c; } .refused { fill: #b6bec9; }
rect.bad { fill: #e0002a; stroke: #600; stroke-width: 2; }
.key span { display: inline-block; padding: 0 6px; margin-right: 6px; color: #fff; border-radius: 3px; }
</style></head><body>";

const LEGEND: &str = "<p class=\"key\"><span style=\"background:#2f6fde\">write</span>\
<span style=\"background:#9dbdf5\">write that failed</span><span style=\"background:#6bbf7b\">local read</span>\
<span style=\"background:#1d7f3a\">linearizable read</span><span style=\"background:#8a63d2\">sync</span>\
<span style=\"background:#f2a33c\">unknown</span><span style=\"background:#b6bec9\">refused</span>\
<span style=\"background:#e0002a\">impossible</span></p>";

const TAIL: &str = "<script>
const bad = document.getElementById('bad');
if (bad) { bad.scrollIntoView({ block: 'center', inline: 'center' }); window.scrollTo(0, 0); }
</script></body></html>
";

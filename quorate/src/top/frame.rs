//! The text of one frame.

use std::time::Duration;

use api::Zxid;
use client_sdk::{NodeMember, NodeStatus};

use super::{
    Sample,
    load::{Activity, Times, activity},
};
use crate::{
    output,
    status::{lag, leads, role_name},
};

/// A line, and how it stands out.
pub(super) struct Line {
    pub(super) text: String,
    pub(super) look: Look,
}

/// How a line stands out on a screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    Plain,
    Title,
    Header,
    Leader,
    /// A node that does not serve.
    Bad,
}

const HEADER: [&str; 13] = [
    "ID",
    "ENDPOINT",
    "ROLE",
    "LAG",
    "READ/S",
    "WRITE/S",
    "ERR/S",
    "READ P50",
    "READ P99",
    "WRITE P50",
    "WRITE P99",
    "CONNS",
    "WATCHES",
];

/// The frame of a sample. Rates are those since `before`.
pub(super) fn frame(now: &Sample, before: Option<&Sample>) -> Vec<Line> {
    let leader = now.found.all().find(|status| leads(status));
    let mut lines = title(now, before, leader);
    let (rows, looks): (Vec<Vec<String>>, Vec<Look>) =
        now.found.members.iter().map(|member| row(member, now, before, leader)).unzip();
    let table = output::table(&HEADER, rows, &[0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let looks = [Look::Header].into_iter().chain(looks);
    lines.extend(table.lines().zip(looks).map(|(text, look)| Line { text: text.to_owned(), look }));
    lines
}

/// The last line of a screen.
pub(super) fn footer(paused: bool, silent: bool) -> Line {
    let state = match (paused, silent) {
        (true, _) => "paused; ",
        (false, true) => "no node answers, this is the last known state; ",
        (false, false) => "",
    };
    Line { text: format!("{state}q ends, Space pauses"), look: if silent { Look::Bad } else { Look::Plain } }
}

fn title(now: &Sample, before: Option<&Sample>, leader: Option<&NodeStatus>) -> Vec<Line> {
    let Some(any) = leader.or_else(|| now.found.all().next()) else { return Vec::new() };
    let led = match leader {
        Some(leader) => format!("leader {}, epoch {}", leader.id, leader.epoch),
        None => "no leader".to_owned(),
    };
    let entries = before.and_then(|before| {
        let earlier = before.found.all().find(|status| leads(status))?;
        entries_per_second(earlier.committed, leader?.committed, now.at.duration_since(before.at))
    });
    let text = format!("{}  {}  {led}", output::clock(), any.ensemble);
    let counts = format!(
        "znodes {}  sessions {}  committed {}  entries/s {}",
        any.znodes,
        any.sessions,
        any.committed,
        entries.map_or_else(|| "-".to_owned(), number),
    );
    let look = if leader.is_some() { Look::Title } else { Look::Bad };
    vec![
        Line { text, look },
        Line { text: counts, look: Look::Plain },
        Line { text: String::new(), look: Look::Plain },
    ]
}

/// Entries that were committed per second; unknown over a change of the epoch, where counters begin again.
fn entries_per_second(before: Zxid, now: Zxid, elapsed: Duration) -> Option<f64> {
    let same = before.epoch() == now.epoch() && !elapsed.is_zero();
    same.then(|| f64::from(now.counter().saturating_sub(before.counter())) / elapsed.as_secs_f64())
}

fn row(
    member: &NodeMember,
    now: &Sample,
    before: Option<&Sample>,
    leader: Option<&NodeStatus>,
) -> (Vec<String>, Look) {
    let none = || "-".to_owned();
    let Some(status) = now.found.status(member.id) else {
        let mut cells = vec![member.id.to_string(), member.client_address.clone(), "unreachable".to_owned()];
        cells.resize_with(HEADER.len(), none);
        return (cells, Look::Bad);
    };
    let activity = before.and_then(|before| {
        activity(before.found.status(member.id)?, status, now.at.duration_since(before.at))
    });
    let rate = |of: fn(&Activity) -> f64| activity.as_ref().map_or_else(none, |a| number(of(a)));
    let time = |of: fn(&Activity) -> &Times, which: fn(&Times) -> Option<Duration>| {
        activity.as_ref().and_then(|a| which(of(a))).map_or_else(none, latency)
    };
    let cells = vec![
        member.id.to_string(),
        member.client_address.clone(),
        role_name(status.role).to_owned(),
        leader.and_then(|leader| lag(leader.zxid, status.applied)).map_or_else(none, |lag| lag.to_string()),
        rate(|a| a.reads.rate),
        rate(|a| a.writes.rate),
        rate(|a| a.errors),
        time(|a| &a.reads, |t| t.p50),
        time(|a| &a.reads, |t| t.p99),
        time(|a| &a.writes, |t| t.p50),
        time(|a| &a.writes, |t| t.p99),
        status.connections.to_string(),
        status.watches.to_string(),
    ];
    let look = match status.serving {
        false => Look::Bad,
        true if leads(status) => Look::Leader,
        true => Look::Plain,
    };
    (cells, look)
}

/// A rate with about three digits.
fn number(rate: f64) -> String {
    match rate {
        rate if rate >= 10.0 || rate == 0.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

fn latency(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        ms if ms >= 1000.0 => format!("{:.1}s", ms / 1000.0),
        ms if ms >= 10.0 => format!("{ms:.0}ms"),
        ms => format!("{ms:.1}ms"),
    }
}

#[cfg(test)]
mod tests {
    use api::Epoch;

    use super::*;

    #[test]
    fn entries_are_counted_within_an_epoch() {
        let z = |epoch, counter| Zxid::new(Epoch(epoch), counter);
        assert_eq!(entries_per_second(z(2, 10), z(2, 30), Duration::from_secs(2)), Some(10.0));
        assert_eq!(entries_per_second(z(2, 10), z(3, 1), Duration::from_secs(2)), None);
        assert_eq!(entries_per_second(z(2, 10), z(2, 10), Duration::ZERO), None);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.25, 9.94, 1234.5].map(number), ["0", "0.2", "9.9", "1234"]);
        let ms = |ms: f64| latency(Duration::from_secs_f64(ms / 1000.0));
        assert_eq!([ms(0.25), ms(3.81), ms(42.4), ms(2_500.0)], ["0.2ms", "3.8ms", "42ms", "2.5s"]);
    }
}

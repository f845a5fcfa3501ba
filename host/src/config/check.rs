//! The rules that involve several settings, or that are narrower than a type.

use std::{collections::BTreeMap, time::Duration};

use api::{DATA_MAX, PeerId};

use super::{NodeConfig, Size, behind_scheme, layers::Layers};

impl NodeConfig {
    pub(super) fn check(&self, r: &mut Layers) {
        if self.ensemble.len() > 64 {
            r.refuse("ensemble", "a name of 1 to 64 bytes");
        }
        self.check_members(r);
        let (t, session, limits, log) = (&self.timing, &self.session, &self.limits, &self.log);
        let short = |time: Duration| time < Duration::from_millis(1);
        let by_tls = self.tls.members.mode.dials();
        let service = |url: &str| service(url, by_tls);
        let collector = |url: &str| {
            let rest = behind_scheme(url, "http://").or_else(|| behind_scheme(url, "https://"));
            // A user has no name there.
            rest.is_some_and(|rest| !rest.contains('@'))
        };
        let rules = [
            ("timing.tick", short(t.tick), SHORT),
            ("timing.init_limit", short(t.init_limit), SHORT),
            ("timing.sync_limit", short(t.sync_limit), SHORT),
            ("timing.reap_interval", short(t.reap_interval), SHORT),
            ("session.timeout_min", short(session.timeout_min), SHORT),
            (
                "timing.sync_limit",
                t.sync_limit < 2 * t.tick,
                "at least twice `timing.tick`, or one late ping costs a leader its follower",
            ),
            (
                "session.timeout_max",
                session.timeout_max < session.timeout_min,
                "at least `session.timeout_min`",
            ),
            ("session.opens_per_second", session.opens_per_second == 0, NONE),
            (
                "session.timeout_max",
                session.timeout_max > Duration::from_millis(u32::MAX.into()),
                "less than 49 days",
            ),
            ("services.election", !service(&self.services.election), SERVICE),
            ("services.quorum", !service(&self.services.quorum), SERVICE),
            (
                "limits.data",
                limits.data > Size(DATA_MAX) || limits.data == Size(0),
                "a size from 1B to 3MiB: with its path a value has to fit into one entry of the log, which is 4MiB at most",
            ),
            ("limits.memory", limits.memory < Size::mib(256), "at least 256MiB"),
            ("limits.in_flight", limits.in_flight == 0, NONE),
            ("limits.sessions", limits.sessions == 0, NONE),
            (
                "limits.in_flight_bytes",
                limits.in_flight_bytes < limits.data,
                "at least `limits.data`, or the largest write could never be taken",
            ),
            (
                "log.segment_size",
                log.segment_size < Size::mib(1) || log.segment_size > Size::mib(4096),
                "a size from 1MiB to 4GiB",
            ),
            (
                "telemetry.metrics_interval",
                self.telemetry.metrics_interval < Duration::from_millis(100),
                "a duration of at least 100ms",
            ),
            (
                "telemetry.trace_ratio",
                !(0.0..=1.0).contains(&self.telemetry.trace_ratio),
                "a number from 0 to 1, as 0.01 for one request in a hundred (OTEL_TRACES_SAMPLER: always_on, always_off, \
                 traceidratio or parentbased_ and one of them, with the number in OTEL_TRACES_SAMPLER_ARG)",
            ),
            (
                "telemetry.otlp_endpoint",
                self.telemetry.otlp_endpoint.as_deref().is_some_and(|url| !collector(url)),
                "an address such as \"http://127.0.0.1:4317\" or \"https://...\"",
            ),
            ("log.snapshot_every", log.snapshot_every == 0, NONE),
            ("log.snapshot_bytes", log.snapshot_bytes < Size::mib(1), "at least 1MiB"),
        ];
        if !self.members.is_empty() {
            self.check_plaintext(r);
        }
        for (key, _, expected) in rules.into_iter().filter(|(_, broken, _)| *broken) {
            r.refuse(key, expected);
        }
    }

    fn check_members(&self, r: &mut Layers) {
        if self.members.is_empty() {
            r.problem(
                "no members: write a [[members]] section with id and host for each server, this one included; for a \
                 server alone: [[members]] id = 1, host = \"127.0.0.1\"",
            );
            return;
        }
        if self.own().is_none() && self.id != PeerId(0) {
            let ids: Vec<String> = self.members.iter().map(|m| m.id.to_string()).collect();
            r.refuse("id", &format!("the id of one of the members, which are {}", ids.join(", ")));
        }
        if let Err(e) = self.ensemble_of_members() {
            r.problem(&format!("members: {e}"));
        }
        let mut taken: BTreeMap<(&str, u16), String> = BTreeMap::new();
        for m in &self.members {
            for (what, port) in
                [("client", m.client_port), ("quorum", m.quorum_port), ("election", m.election_port)]
            {
                let who = format!("{what} of member {}", m.id);
                if let Some(other) = taken.get(&(m.host.as_str(), port)) {
                    r.problem(&format!(
                        "members: {other} and {who} both have the address {}:{port}; give one of them another port",
                        m.host
                    ));
                } else {
                    taken.insert((&m.host, port), who);
                }
            }
        }
    }
}

const SHORT: &str = "a duration of at least 1ms";
const NONE: &str = "at least 1";
const SERVICE: &str = "the address of a service such as \"http://127.0.0.1:2889\" or \"unix:/run/quorate/quorum.sock\"; \"https://\" needs \
                       `tls.members.mode` \"prefer\" or \"require\"";

/// Whether this is an address of a service. `tls`: whether there are certificates for it.
pub(super) fn service(url: &str, tls: bool) -> bool {
    if let Some(path) = url.strip_prefix("unix:") {
        return path.starts_with('/');
    }
    let secured = behind_scheme(url, "https://").filter(|_| tls);
    let rest = behind_scheme(url, "http://").or(secured);
    rest.is_some_and(|rest| rest.contains(':') && !rest.contains('@'))
}

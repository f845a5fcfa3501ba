//! The definition of a metric: name, unit, kind, and the group that exports it.

/// Which process of a node exports a metric: with the services in processes of their own, each has its own groups.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// Every process.
    Process,
    /// The election service.
    Election,
    /// The quorum service.
    Quorum,
    /// The store service.
    Store,
    /// The gateway for ZooKeeper's clients.
    Gateway,
}

impl Group {
    /// All of them: a node in one process.
    pub const ALL: [Group; 5] =
        [Group::Process, Group::Election, Group::Quorum, Group::Store, Group::Gateway];
}

/// Unit of a metric's numbers. Seconds are kept as whole nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unit {
    /// Time.
    Seconds,
    /// Sizes.
    Bytes,
    /// Pure numbers of things; UCUM's annotation names them, as in `{entry}`.
    Count(&'static str),
}

impl Unit {
    /// As UCUM writes it, which is what OTLP wants.
    #[must_use]
    pub fn ucum(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Bytes => "By",
            Unit::Count(what) => what,
        }
    }

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
            Unit::Count(_) => "",
        }
    }
}

/// How a metric behaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// As it is now, and of no use added up.
    Gauge,
    /// As it is now, and the same added up over processes: OpenTelemetry's UpDownCounter, Prometheus's gauge.
    UpDown,
    /// How many values fell into which range.
    Histogram,
}

/// Name and meaning of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Definition {
    /// OpenTelemetry's name, with dots.
    pub name: &'static str,
    /// Of its numbers.
    pub unit: Unit,
    /// One sentence.
    pub help: &'static str,
    /// The processes that export it.
    pub group: Group,
}

impl Definition {
    /// Prometheus's name: underscores, the unit, and `_total` for a counter.
    #[must_use]
    pub fn prometheus_name(&self, kind: Kind) -> String {
        let mut name = self.name.replace('.', "_") + self.unit.suffix();
        if kind == Kind::Counter {
            name += "_total";
        }
        name
    }
}

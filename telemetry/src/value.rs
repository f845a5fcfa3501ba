use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use api::TraceContext;

use crate::define::{Kind, Unit};
use crate::labels::Label;
use crate::reading::{Distribution, Exemplar, Point, Value};

/// Something that can be read out as points.
pub(crate) trait Read {
    const KIND: Kind;

    fn label_names(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn points(&self, unit: Unit) -> Vec<Point>;
}

/// A single value without labels.
pub(crate) trait One {
    const KIND: Kind;

    fn value(&self, unit: Unit) -> Value;
}

impl<V: One> Read for V {
    const KIND: Kind = V::KIND;

    fn points(&self, unit: Unit) -> Vec<Point> {
        vec![Point { labels: Vec::new(), value: self.value(unit) }]
    }
}

/// Seconds are kept as nanoseconds.
fn scaled(number: u64, unit: Unit) -> f64 {
    match unit {
        Unit::Seconds => number as f64 / 1e9,
        Unit::Bytes | Unit::Count(_) => number as f64,
    }
}

/// Nanoseconds since 1970.
fn unix_nanos(time: SystemTime) -> u64 {
    nanos(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// For a number that is counted elsewhere: raises it to `n`.
    pub fn raise(&self, n: u64) {
        self.0.fetch_max(n, Relaxed);
    }

    /// The same for a time.
    pub(crate) fn raise_to(&self, time: Duration) {
        self.0.fetch_max(nanos(time), Relaxed);
    }
}

impl Counter {
    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl One for Counter {
    const KIND: Kind = Kind::Counter;

    fn value(&self, unit: Unit) -> Value {
        Value::Number(scaled(self.0.load(Relaxed), unit))
    }
}

/// A number as it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) const fn new() -> Gauge {
        Gauge(AtomicU64::new(0))
    }

    /// Replaces the number.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The same for a time.
    pub fn set_time(&self, time: Duration) {
        self.set(nanos(time));
    }

    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// One less; to be paired with [`Gauge::inc`].
    pub fn dec(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl One for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn value(&self, unit: Unit) -> Value {
        Value::Number(scaled(self.0.load(Relaxed), unit))
    }
}

/// A [`Gauge`] that the conventions call an UpDownCounter.
#[derive(Debug, Default)]
pub struct UpDown(Gauge);

impl UpDown {
    pub(crate) const fn new() -> UpDown {
        UpDown(Gauge::new())
    }
}

impl Deref for UpDown {
    type Target = Gauge;

    fn deref(&self) -> &Gauge {
        &self.0
    }
}

impl One for UpDown {
    const KIND: Kind = Kind::UpDown;

    fn value(&self, unit: Unit) -> Value {
        self.0.value(unit)
    }
}

/// How many values fell into which range, and their sum. One kind of range for times, one for numbers of things.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64; BOUNDS],
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
    /// The last one of a range: value, time, span.
    exemplars: Mutex<BTreeMap<usize, (u64, SystemTime, TraceContext)>>,
}

const BOUNDS: usize = 16;

/// In nanoseconds: from 100 us, below which nothing that touches disk or network happens, to 10 s, after which everything
/// has run into a limit.
const TIMES: [u64; BOUNDS] = {
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    [
        100 * US,
        250 * US,
        500 * US,
        MS,
        2_500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        1_000 * MS,
        2_500 * MS,
        5_000 * MS,
        10_000 * MS,
    ]
};

/// Powers of two up to 32,768.
const NUMBERS: [u64; BOUNDS] = {
    let mut bounds = [1; BOUNDS];
    let mut i = 1;
    while i < BOUNDS {
        bounds[i] = bounds[i - 1] * 2;
        i += 1;
    }
    bounds
};

impl Histogram {
    /// Of times.
    pub(crate) const fn times() -> Histogram {
        Histogram::with(&TIMES)
    }

    /// Of numbers of things.
    pub(crate) const fn numbers() -> Histogram {
        Histogram::with(&NUMBERS)
    }

    const fn with(bounds: &'static [u64; BOUNDS]) -> Histogram {
        Histogram {
            bounds,
            counts: [const { AtomicU64::new(0) }; BOUNDS + 1],
            sum: AtomicU64::new(0),
            exemplars: Mutex::new(BTreeMap::new()),
        }
    }

    /// One value.
    pub fn record(&self, time: Duration) {
        self.record_n(time, 1);
    }

    /// `n` equal values: the elements of one batch.
    pub fn record_n(&self, time: Duration, n: u64) {
        self.add(nanos(time), n);
    }

    /// One value of a histogram of numbers.
    pub fn record_number(&self, number: u64) {
        self.add(number, 1);
    }

    /// The ranges of a histogram of times with how many values fell into them so far: the upper end of each, `None` for the last.
    pub fn ranges(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let ends = self.bounds.iter().map(|&bound| Some(Duration::from_nanos(bound))).chain([None]);
        ends.zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }

    /// Links one of the recorded values, or nearly that value, to this span, so that a reader of a bucket
    /// finds a trace of it. It takes a lock, so it is for traced requests only.
    pub fn exemplify(&self, time: Duration, span: &TraceContext) {
        let value = nanos(time);
        lock(&self.exemplars).insert(self.range(value), (value, SystemTime::now(), *span));
    }

    fn range(&self, value: u64) -> usize {
        // A bound belongs to the range below it, as `le` in Prometheus.
        self.bounds.partition_point(|&bound| bound < value)
    }

    fn add(&self, value: u64, n: u64) {
        if n == 0 {
            return;
        }
        self.counts[self.range(value)].fetch_add(n, Relaxed);
        self.sum.fetch_add(value.saturating_mul(n), Relaxed);
    }
}

impl One for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn value(&self, unit: Unit) -> Value {
        let counts = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let bounds = self.bounds.iter().map(|&bound| scaled(bound, unit)).collect();
        let exemplar = |(&range, &(value, at, span)): (&usize, &(u64, SystemTime, TraceContext))| Exemplar {
            range,
            value: scaled(value, unit),
            at: unix_nanos(at),
            span,
        };
        let exemplars = lock(&self.exemplars).iter().map(exemplar).collect();
        let sum = scaled(self.sum.load(Relaxed), unit);
        Value::Distribution(Distribution { bounds, counts, sum, exemplars })
    }
}

/// One value for each of a fixed set of labels; `N` is the label's [`Label::COUNT`].
#[derive(Debug)]
pub struct By<L, V, const N: usize> {
    slots: [V; N],
    labels: PhantomData<L>,
}

impl<L: Label, V, const N: usize> By<L, V, N> {
    pub(crate) const fn new(slots: [V; N]) -> By<L, V, N> {
        assert!(N == L::COUNT, "a slot for each label");
        By { slots, labels: PhantomData }
    }

    /// The value of one label.
    pub fn at(&self, label: L) -> &V {
        &self.slots[label.index()]
    }

    /// All values.
    pub fn all(&self) -> impl Iterator<Item = &V> {
        self.slots.iter()
    }
}

impl<L: Label, V: One, const N: usize> Read for By<L, V, N> {
    const KIND: Kind = V::KIND;

    fn label_names(&self) -> Vec<&'static str> {
        L::KEYS.to_vec()
    }

    fn points(&self, unit: Unit) -> Vec<Point> {
        let point = |(index, value): (usize, &V)| Point {
            labels: L::KEYS
                .iter()
                .zip(L::values(index))
                .map(|(&key, value)| (key, value.to_owned()))
                .collect(),
            value: value.value(unit),
        };
        self.slots.iter().enumerate().map(point).collect()
    }
}

/// A gauge for each of the other members that matter at the moment. Not for the path of a write: it takes a lock.
#[derive(Debug, Default)]
pub struct ByPeer(Mutex<BTreeMap<u32, u64>>);

impl ByPeer {
    pub(crate) const fn new() -> ByPeer {
        ByPeer(Mutex::new(BTreeMap::new()))
    }

    /// Replaces the numbers of all members; a member that is not named has none any more.
    pub fn set_all(&self, numbers: impl IntoIterator<Item = (u32, u64)>) {
        *lock(&self.0) = numbers.into_iter().collect();
    }
}

impl Read for ByPeer {
    const KIND: Kind = Kind::Gauge;

    fn label_names(&self) -> Vec<&'static str> {
        vec!["peer"]
    }

    fn points(&self, unit: Unit) -> Vec<Point> {
        let point = |(peer, &number): (&u32, &u64)| Point {
            labels: vec![("peer", peer.to_string())],
            value: Value::Number(scaled(number, unit)),
        };
        lock(&self.0).iter().map(point).collect()
    }
}

/// A histogram of times for each pair of names, as they come up. Takes a lock for each value, so it is for whole calls and
/// connections.
#[derive(Debug)]
pub struct ByName {
    /// A label with the same value for all.
    always: (&'static str, &'static str),
    keys: [&'static str; 2],
    times: Mutex<BTreeMap<[String; 2], Arc<Histogram>>>,
}

/// A client that invents names must not fill the memory.
const NAMES_MAX: usize = 512;

impl ByName {
    pub(crate) const fn new(always: (&'static str, &'static str), keys: [&'static str; 2]) -> ByName {
        ByName { always, keys, times: Mutex::new(BTreeMap::new()) }
    }

    /// One value. If there are too many pairs already, a new one is counted as `_OTHER`.
    pub fn record(&self, names: [&str; 2], time: Duration) {
        let mut times = lock(&self.times);
        let mut names = names.map(str::to_owned);
        if times.len() >= NAMES_MAX && !times.contains_key(&names) {
            names = ["_OTHER".to_owned(), "_OTHER".to_owned()];
        }
        let histogram = times.entry(names).or_insert_with(|| Arc::new(Histogram::times())).clone();
        drop(times);
        histogram.record(time);
    }
}

impl Read for ByName {
    const KIND: Kind = Kind::Histogram;

    fn label_names(&self) -> Vec<&'static str> {
        [self.always.0].into_iter().chain(self.keys).collect()
    }

    fn points(&self, unit: Unit) -> Vec<Point> {
        let always = (self.always.0, self.always.1.to_owned());
        let point = |(names, histogram): (&[String; 2], &Arc<Histogram>)| Point {
            labels: [always.clone()].into_iter().chain(self.keys.into_iter().zip(names.clone())).collect(),
            value: histogram.value(unit),
        };
        lock(&self.times).iter().map(point).collect()
    }
}

/// A panic elsewhere leaves numbers, which are as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::session::Verb;

    use crate::labels::{Mode, Phase};

    fn distribution(histogram: &Histogram) -> Distribution {
        match histogram.value(Unit::Seconds) {
            Value::Distribution(d) => d,
            Value::Number(_) => panic!("a histogram"),
        }
    }

    #[test]
    fn a_value_falls_into_the_range_that_ends_with_it() {
        let histogram = Histogram::times();
        histogram.record(Duration::from_micros(100));
        histogram.record_n(Duration::from_micros(101), 3);
        histogram.record(Duration::from_secs(11));
        let d = distribution(&histogram);
        assert_eq!((d.counts[0], d.counts[1], d.counts[16]), (1, 3, 1));
        assert_eq!(d.counts.iter().sum::<u64>(), 5);
        let ranges: Vec<_> = histogram.ranges().collect();
        assert_eq!((ranges[0], ranges[16]), ((Some(Duration::from_micros(100)), 1), (None, 1)));
        assert!((d.sum - (0.000_1 + 0.000_303 + 11.0)).abs() < 1e-9);
    }

    #[test]
    fn the_last_traced_value_of_a_range_is_its_exemplar() {
        let histogram = Histogram::times();
        let span = |id| TraceContext::new([id; 16], [id; 8], true).unwrap();
        for (micros, id) in [(100, 1), (90, 2), (101, 3), (20_000_000, 4)] {
            histogram.exemplify(Duration::from_micros(micros), &span(id));
        }
        let d = distribution(&histogram);
        let got: Vec<_> = d.exemplars.iter().map(|e| (e.range, e.value, e.span)).collect();
        assert_eq!(got, [(0, 90e-6, span(2)), (1, 101e-6, span(3)), (16, 20.0, span(4))]);
        assert_eq!(d.counts.iter().sum::<u64>(), 0, "to name one is not to count it");
    }

    #[test]
    fn each_label_and_each_pair_has_its_slot() {
        let by: By<(Verb, Phase), Counter, { <(Verb, Phase)>::COUNT }> =
            By::new([const { Counter::new() }; <(Verb, Phase)>::COUNT]);
        by.at((Verb::Get, Phase::Serve)).add(7);
        let points = by.points(Unit::Count("{x}"));
        assert_eq!(points.len(), Verb::COUNT * Phase::COUNT);
        let hit: Vec<_> = points.iter().filter(|p| p.value == Value::Number(7.0)).collect();
        assert_eq!(hit.len(), 1);
        assert_eq!(hit[0].labels, [("verb", "get".to_owned()), ("phase", "serve".to_owned())]);
        assert_eq!(Mode::values(2), ["snap"]);
    }

    #[test]
    fn invented_names_do_not_fill_the_memory() {
        let by = ByName::new(("all", "same"), ["a", "b"]);
        for i in 0..2 * NAMES_MAX {
            by.record([&i.to_string(), "x"], Duration::ZERO);
        }
        let points = by.points(Unit::Seconds);
        assert_eq!(points.len(), NAMES_MAX + 1);
        let other = points.iter().find(|p| p.labels[1].1 == "_OTHER").unwrap();
        let Value::Distribution(d) = &other.value else { panic!() };
        assert_eq!(d.counts[0], NAMES_MAX as u64);
        assert!(points.iter().all(|p| p.labels[0] == ("all", "same".to_owned())));
    }
}

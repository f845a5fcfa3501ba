use api::TraceContext;

use crate::define::{Definition, Kind};

/// The reading of one metric at a moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// Definition of the metric.
    pub definition: Definition,
    /// How it behaves.
    pub kind: Kind,
    /// One for each combination of labels.
    pub points: Vec<Point>,
}

/// One number, or one distribution, and what it belongs to.
#[derive(Clone, PartialEq, Debug)]
pub struct Point {
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
    /// Of a counter or gauge a number, of a histogram a distribution.
    pub value: Value,
}

/// The measured value, in the unit of the metric.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution(Distribution),
}

/// How many values fell into which range.
#[derive(Clone, PartialEq, Debug)]
pub struct Distribution {
    /// Upper ends of the ranges; a value that is equal to one belongs below.
    pub bounds: Vec<f64>,
    /// One more than there are bounds. Not added up.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: f64,
    /// Of some ranges, one of the values that were traced.
    pub exemplars: Vec<Exemplar>,
}

/// A value of a histogram of which there is a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Exemplar {
    /// The place of its range in [`Distribution::counts`].
    pub range: usize,
    /// In the unit of the metric.
    pub value: f64,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The span that took it.
    pub span: TraceContext,
}

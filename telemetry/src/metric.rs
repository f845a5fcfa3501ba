use std::ops::Deref;

use crate::define::{Definition, Kind};
use crate::reading::Point;
use crate::value::Read;

/// A metric: its definition, and the value to record into.
#[derive(Debug)]
pub struct Metric<V> {
    definition: Definition,
    value: V,
}

impl<V> Metric<V> {
    pub(crate) const fn new(definition: Definition, value: V) -> Metric<V> {
        Metric { definition, value }
    }
}

impl<V> Deref for Metric<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// A readable metric of any kind.
pub(crate) trait Source: Sync {
    fn definition(&self) -> Definition;
    fn kind(&self) -> Kind;
    fn labels(&self) -> Vec<&'static str>;
    fn points(&self) -> Vec<Point>;
}

impl<V: Read + Sync> Source for Metric<V> {
    fn definition(&self) -> Definition {
        self.definition
    }

    fn kind(&self) -> Kind {
        V::KIND
    }

    fn labels(&self) -> Vec<&'static str> {
        self.value.label_names()
    }

    fn points(&self) -> Vec<Point> {
        self.value.points(self.definition.unit)
    }
}

//! Every distinct value once, by number: this reduces a state of a whole ensemble to a few words.

use std::hash::Hash;
use std::rc::Rc;

use crate::hash::FastMap;

/// Values that were seen, numbered from 0 in the order of their first appearance.
#[derive(Debug)]
pub(crate) struct Pool<T> {
    values: Vec<Rc<T>>,
    numbers: FastMap<Rc<T>, u32>,
}

impl<T: Eq + Hash> Pool<T> {
    pub(crate) fn new() -> Pool<T> {
        Pool { values: Vec::new(), numbers: FastMap::default() }
    }

    /// The number of a value, a new one if it was never seen.
    ///
    /// # Panics
    /// With more than 2^32 different values; memory ends long before.
    pub(crate) fn number(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            return number;
        }
        let Ok(number) = u32::try_from(self.values.len()) else { panic!("more values than numbers") };
        let value = Rc::new(value);
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    pub(crate) fn get(&self, number: u32) -> &Rc<T> {
        &self.values[number as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

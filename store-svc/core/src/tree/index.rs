//! An index of znodes by path: a hash table that grows and shrinks by one bucket at a time (linear
//! hashing), so that no write waits for the move of a large table.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::slab::NodeId;

/// Average number of entries per bucket at which a bucket is added. Buckets have up to twice as many,
/// and some more by chance.
const FILL: usize = 12;
/// Average number of entries per bucket at which a bucket is removed. Far from [`FILL`], so that the
/// two do not alternate.
const SPARSE: usize = 6;
/// Buckets per chunk: the table of chunks is as small as a kernel's page table.
const CHUNK: usize = 1024;
/// Initial capacity of a bucket, and its increment.
const FIRST: usize = 8;
const STEP: usize = 4;

/// A hash in the high half, a node id in the low half.
type Bucket = Vec<u64>;

/// Ids by hashes of paths. The index does not know the paths: the caller identifies the right id.
#[derive(Debug)]
pub(super) struct Index {
    /// Never empty.
    chunks: Vec<Vec<Bucket>>,
    buckets: usize,
    len: usize,
    /// Seed of the hashes. It influences only the duration of operations. A secret seed prevents
    /// clients from choosing paths that share a bucket.
    seed: u64,
    /// Number of entries that moved from one bucket to another.
    #[cfg(test)]
    moved: usize,
}

impl Index {
    /// An empty index.
    pub(super) fn new(seed: u64) -> Index {
        let mut index = Index {
            chunks: Vec::new(),
            buckets: 0,
            len: 0,
            seed,
            #[cfg(test)]
            moved: 0,
        };
        index.push(Bucket::new());
        index
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// The hash of a path, for the other calls.
    pub(super) fn hash(&self, path: &str) -> u32 {
        xxh3_64_with_seed(path.as_bytes(), self.seed) as u32
    }

    /// The id with this hash for which `is_it` returns true.
    pub(super) fn find(&self, hash: u32, mut is_it: impl FnMut(NodeId) -> bool) -> Option<NodeId> {
        let entries = self.bucket(self.place(hash)).iter();
        entries.filter(|&&entry| hash_of(entry) == hash).map(|&entry| id_of(entry)).find(|&id| is_it(id))
    }

    /// Inserts an id that is not present.
    pub(super) fn insert(&mut self, hash: u32, id: NodeId) {
        let place = self.place(hash);
        put(self.bucket_mut(place), u64::from(hash) << 32 | u64::from(id.number()));
        self.len += 1;
        if self.len > self.buckets * FILL {
            self.split();
        }
    }

    /// Grows the table for this many entries, which will follow.
    pub(super) fn expect(&mut self, entries: usize) {
        while entries > self.buckets * FILL {
            self.split();
        }
    }

    /// Removes an id, if it is present.
    pub(super) fn remove(&mut self, hash: u32, id: NodeId) {
        let place = self.place(hash);
        let bucket = self.bucket_mut(place);
        let entry = u64::from(hash) << 32 | u64::from(id.number());
        let Some(at) = bucket.iter().position(|&other| other == entry) else { return };
        bucket.swap_remove(at);
        self.len -= 1;
        if self.buckets > 1 && self.len < self.buckets * SPARSE {
            self.merge();
        }
    }

    /// Splits the entries of one bucket between it and a new one.
    fn split(&mut self) {
        let source = Index::source(self.buckets);
        self.push(Bucket::new());
        let entries = std::mem::take(self.bucket_mut(source));
        for entry in entries {
            let place = self.place(hash_of(entry));
            put(self.bucket_mut(place), entry);
            self.count_moved(usize::from(place != source));
        }
    }

    /// Returns the entries of the last bucket to the bucket that it was split from.
    fn merge(&mut self) {
        let last = self.chunks.last_mut().and_then(Vec::pop).unwrap_or_default();
        if self.chunks.len() > 1 && self.chunks.last().is_some_and(Vec::is_empty) {
            self.chunks.pop();
        }
        self.buckets -= 1;
        self.count_moved(last.len());
        let target = Index::source(self.buckets);
        let target = self.bucket_mut(target);
        target.reserve_exact(last.len());
        target.extend(last);
    }

    /// The bucket that the bucket with this number splits off.
    fn source(number: usize) -> usize {
        number & !(1 << number.ilog2())
    }

    /// The bucket of a hash: the low bits of the hash, as many as the number of buckets has; one bit
    /// less if that bucket does not exist yet.
    fn place(&self, hash: u32) -> usize {
        let mask = self.buckets.next_power_of_two() - 1;
        let place = hash as usize & mask;
        if place < self.buckets { place } else { place & (mask >> 1) }
    }

    fn bucket(&self, place: usize) -> &Bucket {
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    fn bucket_mut(&mut self, place: usize) -> &mut Bucket {
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }

    fn push(&mut self, bucket: Bucket) {
        if self.buckets.is_multiple_of(CHUNK) {
            // The memory of the first chunk is touched only bucket by bucket, too.
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(bucket);
        }
        self.buckets += 1;
    }

    fn count_moved(&mut self, _entries: usize) {
        #[cfg(test)]
        {
            self.moved += _entries;
        }
    }
}

fn put(bucket: &mut Bucket, entry: u64) {
    if bucket.len() == bucket.capacity() {
        bucket.reserve_exact(if bucket.is_empty() { FIRST } else { STEP });
    }
    bucket.push(entry);
}

fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

fn id_of(entry: u64) -> NodeId {
    NodeId::of_number(entry as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn get(index: &Index, path: u32) -> Option<u32> {
        let id = index.find(index.hash(&path.to_string()), |id| id.number() % 1000 == path);
        id.map(NodeId::number)
    }

    proptest! {
        /// Few paths, so that most exist at times; in some runs few hashes, so that they collide.
        #[test]
        fn the_index_does_what_a_map_does(
            steps in prop::collection::vec((0..1000u32, any::<bool>()), 0..4000),
            bits in prop::sample::select(vec![0, 3, 32]),
            seed in any::<u64>(),
        ) {
            let (mut index, mut model) = (Index::new(seed), BTreeMap::new());
            let cut = |hash: u32| if bits == 32 { hash } else { hash & ((1 << bits) - 1) };
            for (n, &(path, insert)) in steps.iter().enumerate() {
                let hash = cut(index.hash(&path.to_string()));
                let id = NodeId::of_number(n as u32 * 1000 + path);
                if let Some(id) = model.remove(&path) {
                    index.remove(hash, id);
                }
                index.remove(hash, id);
                if insert {
                    model.insert(path, id);
                    index.insert(hash, id);
                }
            }
            prop_assert_eq!(index.len, model.len());
            for path in 0..1000 {
                let hash = cut(index.hash(&path.to_string()));
                let found = index.find(hash, |id| id.number() % 1000 == path);
                prop_assert_eq!(found, model.get(&path).copied());
            }
        }
    }

    #[test]
    fn no_operation_moves_more_than_a_few_entries_and_an_empty_index_is_small_again() {
        const PATHS: u32 = 300_000;
        let mut index = Index::new(7);
        let (mut most, mut longest) = (0, 0);
        let mut count = |index: &mut Index, hash: u32| {
            most = most.max(std::mem::take(&mut index.moved));
            longest = longest.max(index.bucket(index.place(hash)).len());
        };
        for n in 0..PATHS {
            let hash = index.hash(&n.to_string());
            index.insert(hash, NodeId::of_number(n));
            count(&mut index, hash);
        }
        assert!(index.buckets >= PATHS as usize / FILL);
        assert_eq!(get(&index, 999), Some(999));
        for n in 0..PATHS {
            let hash = index.hash(&n.to_string());
            index.remove(hash, NodeId::of_number(n));
            count(&mut index, hash);
        }
        // By chance: 24 entries are expected in a bucket before its split.
        assert!(most > 0 && most <= 8 * FILL, "{most} entries moved at once");
        assert!(longest <= 8 * FILL, "{longest} entries in one bucket");
        assert_eq!((index.len, index.buckets, index.chunks.len()), (0, 1, 1));
    }
}

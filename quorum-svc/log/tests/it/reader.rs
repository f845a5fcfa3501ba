//! Reads during writes.

use std::sync::atomic::{AtomicBool, Ordering};

use api::Zxid;
use quorum_log::{LogOptions, LogReader, MemDisk, ReadError};

use crate::common::{entries, entry, on, open, tiny, z};

#[test]
fn bounds_are_exact_in_memory_and_on_disk() {
    for window_bytes in [0, 500, 1 << 20] {
        let mut log = open(&MemDisk::new(), LogOptions { window_bytes, ..tiny() }).unwrap();
        log.append(&entries(1, 0..20)).unwrap();
        let reader = log.reader();
        let counters = |after, upto, max| -> Vec<u32> {
            reader.read_after(after, upto, max).unwrap().iter().map(|e| e.zxid.counter()).collect()
        };
        assert_eq!(counters(z(1, 4), z(1, 5), 9999), [5]);
        assert_eq!(counters(z(1, 19), z(1, 30), 9999), []);
        assert_eq!(counters(z(1, 5), z(1, 5), 9999), []);
        assert_eq!(counters(z(1, 5), z(1, 3), 9999), []);
        assert_eq!(counters(Zxid::ZERO, z(1, 30), 0), [0], "one, however large");
        assert_eq!(counters(z(1, 17), z(1, 30), 9999).last(), Some(&19));
        // 84 is the weight of one entry.
        assert!(counters(z(1, 2), z(1, 30), 84 * 2).len() <= 2);
        let last_two = counters(z(1, 17), z(1, 30), 84 * 2 - 1);
        assert_eq!(last_two, [18]);
    }
}

#[test]
fn a_missing_entry_is_distinguished_from_a_purged_one() {
    let mut log = open(&MemDisk::new(), tiny()).unwrap();
    log.append(&entries(1, 0..20)).unwrap();
    log.append(&entries(3, 0..2)).unwrap();
    log.purge(z(1, 10)).unwrap();
    let base = log.history().base();
    let reader = log.reader();
    let read = |after| reader.read_after(after, Zxid(u64::MAX), 9999);
    assert!(matches!(read(z(1, 1)), Err(ReadError::Purged { .. })));
    assert!(matches!(read(Zxid::ZERO), Err(ReadError::Purged { .. })));
    assert!(matches!(read(z(1, 20)), Err(ReadError::NotThere { .. })));
    assert!(matches!(read(z(2, 0)), Err(ReadError::NotThere { .. })));
    assert!(matches!(read(z(3, 2)), Err(ReadError::NotThere { .. })));
    assert_eq!(read(base).unwrap()[0].zxid, base.next().unwrap());
    assert_eq!(read(z(1, 19)).unwrap(), entries(3, 0..2));
    log.truncate(z(1, 15)).unwrap();
    assert!(matches!(read(z(1, 16)), Err(ReadError::NotThere { .. })));
    log.reset(on(z(5, 5))).unwrap();
    assert_eq!(read(z(5, 5)).unwrap(), []);
    assert!(matches!(read(z(1, 15)), Err(ReadError::Purged { .. })));
    log.append(&entries(6, 0..2)).unwrap();
    assert_eq!(read(z(5, 5)).unwrap(), entries(6, 0..2));
}

#[test]
fn readers_never_see_a_mixture_while_the_log_is_cut_and_written_anew() {
    fn is_send_and_sync(_: &(impl Clone + Send + Sync)) {}
    let mut log = open(&MemDisk::new(), LogOptions { window_bytes: 0, ..tiny() }).unwrap();
    log.append(&entries(1, 0..4)).unwrap();
    let reader = log.reader();
    is_send_and_sync(&reader);
    let stop = AtomicBool::new(false);
    let read_all = |reader: LogReader| {
        let mut reads = 0u64;
        while !stop.load(Ordering::Relaxed) || reads < 100 {
            // All entries of one read are of one generation: that of the first payload.
            match reader.read_after(z(1, 3), Zxid(u64::MAX), 100_000) {
                Ok(read) => {
                    let generation = |e: &api::Entry| {
                        e.payload().unwrap()[0].wrapping_sub((e.zxid.0 as u8).wrapping_mul(31))
                    };
                    for (i, e) in read.iter().enumerate() {
                        assert_eq!(e.zxid, z(1, 4 + i as u32));
                        assert_eq!(generation(e), generation(&read[0]));
                    }
                }
                Err(e) => assert!(matches!(e, ReadError::Purged { .. }), "{e}"),
            }
            reads += 1;
        }
    };
    struct StopAtDrop<'a>(&'a AtomicBool);
    impl Drop for StopAtDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        // Even if the writer panics.
        let stop_readers = StopAtDrop(&stop);
        let readers = [scope.spawn(|| read_all(reader.clone())), scope.spawn(|| read_all(reader.clone()))];
        for generation in 0..200u8 {
            let new: Vec<_> = (4..20).map(|c| entry(z(1, c), generation, 36)).collect();
            log.append(&new[..5]).unwrap();
            log.append(&new[5..]).unwrap();
            log.truncate(z(1, 3)).unwrap();
        }
        log.append(&entries(1, 4..20)).unwrap();
        log.purge(z(1, 20)).unwrap();
        log.reset(on(z(2, 0))).unwrap();
        drop(stop_readers);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

//! Limits how fast one address may open sessions. Each session costs the whole ensemble an entry of the
//! log, and a record until it expires.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::OpError;

/// A token bucket for each address.
pub(crate) struct OpenRate {
    /// Sessions per second.
    rate: u32,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    /// Sessions that may be opened now.
    left: f64,
    at: Instant,
}

impl OpenRate {
    pub(crate) fn new(rate: u32) -> OpenRate {
        OpenRate { rate: rate.max(1), buckets: Mutex::default() }
    }

    /// Takes one token from the bucket of `address`.
    ///
    /// # Errors
    /// The bucket is empty.
    pub(crate) fn take(&self, address: IpAddr, now: Instant) -> Result<(), OpError> {
        let most = f64::from(self.rate) * BURST;
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * f64::from(self.rate)).min(most)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES {
            buckets.retain(|_, bucket| filled(bucket) < most);
        }
        // Beyond the limit of addresses, all further addresses share one bucket.
        let address = if buckets.len() >= ADDRESSES { IpAddr::from([0, 0, 0, 0]) } else { network(address) };
        let bucket = buckets.entry(address).or_insert(Bucket { left: most, at: now });
        *bucket = Bucket { left: filled(bucket), at: now };
        if bucket.left >= 1.0 {
            bucket.left -= 1.0;
            return Ok(());
        }
        let wait =
            Duration::from_secs_f64((1.0 - bucket.left) / f64::from(self.rate)).max(Duration::from_millis(1));
        Err(OpError::Overloaded(format!(
            "{address} opens more than {} sessions a second; try again in {} ms. Keep sessions open and share them, or raise \
             `session.opens_per_second`",
            self.rate,
            wait.as_millis()
        )))
    }
}

/// An IPv6 address counts as its 64-bit network, because one machine can use all of it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// Burst size in seconds of the rate, for example after a fail-over.
const BURST: f64 = 10.0;
/// Maximum number of distinct addresses.
const ADDRESSES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b11_an_address_opens_sessions_at_a_rate_and_others_do_not_suffer() {
        let (rate, mut now) = (OpenRate::new(100), Instant::now());
        let [one, two] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        assert_eq!((0..5000).filter(|_| rate.take(one, now).is_ok()).count(), 1000);
        let text = rate.take(one, now).unwrap_err().to_string();
        assert!(text.contains("more than 100 sessions a second; try again in 10 ms"), "{text}");
        assert!(rate.take(two, now).is_ok());
        now += Duration::from_secs(2);
        assert_eq!((0..5000).filter(|_| rate.take(one, now).is_ok()).count(), 200);
        for n in 0..20_000u32 {
            let _ = rate.take(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(rate.buckets.lock().unwrap().len() <= ADDRESSES + 1);
    }
}

//! How often one address may ask: the generic cell rate algorithm of `governor`.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use wharf_kernel::settings;

/// Checks after which addresses that have not asked for long are forgotten.
const SWEEP: u32 = 16 * 1024;

/// A limit for each address.
pub(super) struct Rate {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    checks: AtomicU32,
}

impl Rate {
    pub(super) fn new(settings: &settings::Rate) -> Result<Self, String> {
        let some = |n| NonZeroU32::new(n).ok_or("protect.rate: numbers must be more than 0");
        let each = settings.per / some(settings.requests)?.get();
        let quota =
            Quota::with_period(each).ok_or("protect.rate: so many requests in so short a time can't be counted")?;
        let quota = quota.allow_burst(some(settings.burst.unwrap_or(settings.requests))?);
        Ok(Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default(), checks: AtomicU32::new(0) })
    }

    /// Counts a request; where it is one too many, after how many seconds to come again.
    pub(super) fn check(&self, address: IpAddr) -> Option<u64> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let refused = self.limiter.check_key(&key(address)).err()?;
        Some(refused.wait_time_from(self.clock.now()).as_secs() + 1)
    }
}

/// One customer's addresses count as one: of IPv6 everybody has a whole /64.
pub(super) fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_address_has_its_own_limit() {
        let settings = settings::Rate { requests: 3, per: Duration::from_secs(3600), burst: None, shared: None };
        let rate = Rate::new(&settings).unwrap();
        let check = |address: &str| rate.check(address.parse().unwrap());
        assert_eq!([(); 3].map(|()| check("192.0.2.1")), [None; 3]);
        assert!(check("192.0.2.1").is_some_and(|s| (1100..=1201).contains(&s)));
        assert!(check("::ffff:192.0.2.1").is_some());
        assert_eq!(check("192.0.2.2"), None);
        assert_eq!([(); 3].map(|()| check("2001:db8::1")), [None; 3]);
        assert!(check("2001:db8::2").is_some(), "the same network");
        assert_eq!(check("2001:db8:0:1::2"), None);
    }
}

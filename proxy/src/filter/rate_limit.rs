//! A rate that requests may come at.
//!
//! Guarantees: within any time T no more than `burst + T × rate` requests pass, whatever the number of workers (generic cell rate
//! algorithm, ITU-T I.371, as the crate `governor` has it); a reload that leaves the filter as it is leaves its rate as it is.
//! Callers are remembered only while they have used some of their rate, and at most [`MOST_CALLERS`] of them: the others share one
//! rate meanwhile.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use http::{HeaderValue, Request, header::RETRY_AFTER};

use super::{
    Refused,
    chain::{Asking, Filter, Flow, Step, WayBack},
};
use crate::{
    body::RequestBody,
    config::{RateLimitConfig, RateLimitKey},
    telemetry::Source,
};

/// Callers with a rate of their own.
const MOST_CALLERS: usize = 10_000;

type OfCallers = RateLimiter<Source, HashMapStateStore<Source>, DefaultClock>;

/// What has passed, for all workers.
#[derive(Debug)]
pub(crate) struct Rate {
    all: DefaultDirectRateLimiter,
    callers: Option<OfCallers>,
}

impl Rate {
    pub(super) fn new(config: &RateLimitConfig) -> Rate {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let each = Duration::from_secs(config.per_seconds.into()) / config.requests.max(1);
        let quota = Quota::with_period(each.max(Duration::from_nanos(1))).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        let quota = quota.allow_burst(at_least_one(config.burst.unwrap_or(config.requests)));
        let of_callers = || RateLimiter::new(quota, HashMapStateStore::default(), DefaultClock::default());
        Rate {
            all: RateLimiter::direct(quota),
            callers: (config.each == RateLimitKey::Caller).then(of_callers),
        }
    }

    /// Lets one pass, or says how long it would have to wait.
    fn pass(&self, caller: Source) -> Result<(), Duration> {
        let wait = |not_until: NotUntil<Instant>| not_until.wait_time_from(DefaultClock::default().now());
        let Some(callers) = &self.callers else {
            return self.all.check().map_err(wait);
        };
        if callers.len() >= MOST_CALLERS {
            callers.retain_recent();
            if callers.len() >= MOST_CALLERS {
                return self.all.check().map_err(wait);
            }
        }
        callers.check_key(&caller).map_err(wait)
    }
}

/// Refuses what comes too fast.
#[derive(Debug)]
pub(crate) struct RateLimit(pub(super) Arc<Rate>);

impl Filter for RateLimit {
    fn on_request<'a>(
        &'a self,
        asking: Asking<'a>,
        _request: &'a mut Request<RequestBody>,
        back: &'a mut WayBack,
    ) -> Step<'a, Flow> {
        let Err(wait) = self.0.pass(asking.exchange.source) else {
            return Step::Done(Flow::Continue);
        };
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        back.then(move |response| {
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        });
        Step::Done(Flow::Answer(Refused::RATE_LIMITED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::lasting::Lasting;

    fn filter(rates: &Lasting<RateLimitConfig, Rate>, place: &str, config: &RateLimitConfig) -> RateLimit {
        RateLimit(rates.get(place, 0, config, Rate::new))
    }

    fn config(requests: u32, burst: u32, each: RateLimitKey) -> RateLimitConfig {
        RateLimitConfig {
            requests,
            per_seconds: 3_600,
            burst: Some(burst),
            each,
        }
    }

    fn passed(rate: &RateLimit, caller: Source, times: usize) -> usize {
        (0..times).filter(|_| rate.0.pass(caller).is_ok()).count()
    }

    fn caller(n: u8) -> Source {
        Source::of_caller(std::net::IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn workers_share_a_rate_and_a_reload_keeps_it() {
        let rates = Lasting::default();
        let of = |config: &RateLimitConfig| filter(&rates, "outbound 127.0.0.1:1 cart", config);
        let first = of(&config(10, 5, RateLimitKey::All));
        assert_eq!(passed(&first, caller(1), 9), 5);
        let again = of(&config(10, 5, RateLimitKey::All));
        assert_eq!(passed(&again, caller(2), 9), 0);
        drop((first, again));
        let anew = of(&config(10, 5, RateLimitKey::All));
        assert_eq!(passed(&anew, caller(2), 9), 5, "nobody held it");
        let changed = of(&config(10, 7, RateLimitKey::All));
        assert_eq!(passed(&changed, caller(2), 9), 7, "another rate");
    }

    #[test]
    fn each_caller_has_its_own_and_too_many_share_one() {
        let rate = RateLimit(Arc::new(Rate::new(&config(1, 3, RateLimitKey::Caller))));
        for n in 1..4 {
            assert_eq!(passed(&rate, caller(n), 9), 3);
        }
        let many = |n: usize| Source::of_caller(std::net::Ipv6Addr::from((n as u128 + (1 << 20)) << 64).into());
        let all: usize = (0..2 * MOST_CALLERS).map(|n| passed(&rate, many(n), 1)).sum();
        assert!(all < MOST_CALLERS + 3, "{all}");
        assert_eq!(passed(&rate, caller(1), 9), 0, "used up still");
    }

    #[test]
    fn who_has_to_wait_is_told_how_long() {
        let rate = RateLimit(Arc::new(Rate::new(&config(60, 1, RateLimitKey::All))));
        assert_eq!(rate.0.pass(caller(1)), Ok(()));
        let wait = rate.0.pass(caller(1)).unwrap_err();
        assert!(
            wait > Duration::from_secs(50) && wait <= Duration::from_secs(60),
            "{wait:?}"
        );
    }
}

//! The maximum age of connections.

use std::time::{Duration, Instant};

use crate::trace::random;

/// When a connection that is opened now retires: at its maximum age, give or take a tenth, so that connections opened
/// together do not all end together.
pub(crate) fn retires(age: Duration) -> Instant {
    let share = 0.9 + 0.2 * (random() >> 32) as f64 / 4_294_967_296.0;
    Instant::now() + age.mul_f64(share)
}

/// Whether it is due to retire.
pub(crate) fn is_over(retires: Option<Instant>) -> bool {
    retires.is_some_and(|at| at <= Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_retire_within_a_tenth_of_their_age_and_not_together() {
        let (age, begun) = (Duration::from_secs(1_000), Instant::now());
        let at: Vec<f64> = (0..200).map(|_| (retires(age) - begun).as_secs_f64()).collect();
        assert!(at.iter().all(|at| (899.0..1_101.0).contains(at)), "{at:?}");
        let (low, high) = at
            .iter()
            .fold((f64::MAX, 0f64), |(low, high), &at| (low.min(at), high.max(at)));
        assert!(high - low > 150.0, "{low} {high}");
        assert!(!is_over(None) && !is_over(Some(retires(age))) && is_over(Some(begun)));
    }
}

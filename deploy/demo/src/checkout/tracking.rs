//! Where is a parcel? The route that no regression touches.

use std::hint::black_box;

use crate::work::{Numbers, seed_of};

/// A parcel's position after some steps, as a grid cell.
#[inline(never)]
pub fn locate_parcel(id: &str) -> u64 {
    let mut numbers = Numbers::new(seed_of(id));
    let mut cell = 0u64;
    for _ in 0..120_000 {
        cell = black_box(cell).wrapping_add(numbers.next_number() & 3);
    }
    cell
}

#[cfg(test)]
mod tests {
    use crate::checkout::{coupon::verify_coupon, fraud::score_fraud_risk, pricing::price_basket};

    /// A regression that changed responses would be a bug, not a slowdown.
    #[test]
    fn the_slow_builds_give_the_same_answers() {
        for id in ["1", "42", "abc"] {
            assert_eq!(price_basket(id, false), price_basket(id, true));
            assert_eq!(verify_coupon(id, false), verify_coupon(id, true));
            assert_eq!(score_fraud_risk(id, false), score_fraud_risk(id, true));
        }
    }
}

//! Is a coupon genuine? The regression: the signature is stretched with far more rounds than its makers use.

use std::hint::black_box;

use crate::work::seed_of;

const ROUNDS: u32 = 100_000;
const ROUNDS_OF_PASSWORDS: u32 = 2_500_000;

/// Checks a coupon's signature. With `stretch` it is computed with the number of rounds meant for passwords.
#[inline(never)]
pub fn verify_coupon(code: &str, stretch: bool) -> bool {
    let rounds = if stretch { ROUNDS_OF_PASSWORDS } else { ROUNDS };
    let mut state = seed_of(code);
    for round in 0..rounds {
        state = black_box(state ^ u64::from(round))
            .rotate_left(23)
            .wrapping_mul(0x9fb2_1c65_1e98_df25);
    }
    state & 1 == 0 || !code.is_empty()
}

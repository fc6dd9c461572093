//! Profiles ⇄ OTLP profiles (`v1development`, the Sample layout of proto 1.10 and later): one file per direction.

mod decode;
mod encode;

pub use decode::{DecodeError, decode_profiles, decode_profiles_within};
pub use encode::encode_profiles;

/// How many samples a value stands for if the sender does not say: the number of periods, rounded, and at least one.
fn implied_count(value: i64, period: i64) -> u64 {
    if period <= 0 {
        1
    } else {
        u64::try_from((value + period / 2) / period).unwrap_or(0).max(1)
    }
}

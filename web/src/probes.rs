//! What machines that watch this server ask for: whether it lives, whether it can answer, what it counts.

pub(crate) mod health;
pub(crate) mod metrics;

//! Endpoints for monitoring: liveness, readiness, metrics.

pub(crate) mod health;
pub(crate) mod metrics;

//! From what the configuration lists to filters.

use std::sync::Arc;

use super::{
    buffer::Buffer,
    chain::Filter,
    concurrency_limit::{ConcurrencyLimit, Places},
    cors::Cors,
    ext_authz::ExtAuthz,
    fault::Fault,
    header_edits::EditHeaders,
    lasting::Lasting,
    rate_limit::{Rate, RateLimit},
    rate_limit_service::RateLimitService,
    remote::Reach,
};
use crate::config::{ConcurrencyConfig, FilterConfig, RateLimitConfig};

/// What the filters of a process share among workers, and keep over reloads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    rates: Lasting<RateLimitConfig, Rate>,
    places: Lasting<ConcurrencyConfig, Places>,
}

/// What filters are made of.
pub(crate) struct Made<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) reach: Reach<'a>,
}

/// Makes a list; `place` says whose it is, for what lasts beyond it.
pub(crate) fn filters(configs: &[FilterConfig], place: &str, made: &Made<'_>) -> Arc<[Arc<dyn Filter>]> {
    let mut list: Vec<Arc<dyn Filter>> = Vec::new();
    for (at, config) in configs.iter().enumerate() {
        if let Some(config) = &config.rate_limit {
            let rate = made.shared.rates.get(place, at, config, Rate::new);
            list.push(Arc::new(RateLimit(rate)));
        }
        if let Some(config) = &config.concurrency_limit {
            let places = made.shared.places.get(place, at, config, Places::new);
            list.push(Arc::new(ConcurrencyLimit(places)));
        }
        if let Some(config) = &config.rate_limit_service {
            list.push(Arc::new(RateLimitService::new(config, &made.reach)));
        }
        if let Some(config) = &config.ext_authz {
            list.push(Arc::new(ExtAuthz::new(config, &made.reach)));
        }
        if let Some(config) = &config.fault {
            list.push(Arc::new(Fault::new(config)));
        }
        if let Some(config) = &config.headers {
            list.push(Arc::new(EditHeaders::new(config)));
        }
        if let Some(config) = &config.cors {
            list.push(Arc::new(Cors::new(config)));
        }
        if let Some(config) = &config.buffer {
            list.push(Arc::new(Buffer::new(config)));
        }
    }
    list.into()
}

//! From what the configuration lists to filters.

use std::sync::Arc;

use super::{buffer::Buffer, chain::Filter, cors::Cors, fault::Fault, header_edits::EditHeaders, rate_limit::Rates};
use crate::config::FilterConfig;

/// Makes a list; `place` says whose it is, for what lasts beyond it.
pub(crate) fn filters(configs: &[FilterConfig], place: &str, rates: &Rates) -> Arc<[Arc<dyn Filter>]> {
    let mut list: Vec<Arc<dyn Filter>> = Vec::new();
    for (at, config) in configs.iter().enumerate() {
        if let Some(config) = &config.rate_limit {
            list.push(Arc::new(rates.filter(place, at, config)));
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

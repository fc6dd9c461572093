//! Telling others about alerts: Alertmanager and webhooks.
//!
//! Guarantees: at least once: a message is repeated until its receiver takes it or refuses it for good; each receiver
//! has its own task, so a slow one delays neither the others nor the verdict runner. What a receiver answers is read up
//! to 64 KiB, redirects are not followed, an attempt takes at most ten seconds.
//!
//! Wrong on purpose: what was delivered is not remembered across a restart, so receivers may hear of an alert twice
//! (they must know it by its id or its labels), and of one that was resolved while this process was down not at all
//! after five minutes. Only `http:` is spoken; put a TLS client proxy in between where `https:` is needed.

mod alertmanager;
mod delivery;
mod http_post;
mod rfc3339;
mod webhook;

pub(crate) use delivery::{Notifier, Receiver};
pub use http_post::InvalidUrl;

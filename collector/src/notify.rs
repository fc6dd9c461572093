//! Telling others about alerts: Alertmanager and webhooks.
//!
//! Guarantees: at least once: a message is repeated until its receiver takes it or refuses it for good; each receiver
//! has its own task, so a slow one delays neither the others nor the verdict runner. What a receiver answers is read up
//! to 64 KiB, redirects are not followed, an attempt takes at most ten seconds.
//!
//! What was delivered is remembered across a restart ([`crate::alert_book`]), so that the end of each alert is told too.
//!
//! Wrong on purpose: a message whose delivery was interrupted is sent again, so receivers must know an alert by its id or
//! its labels. A receiver whose address changed (host, port or path) is another one, and does not hear of the end
//! of what the old one heard.

mod alertmanager;
mod delivery;
mod event;
mod http_post;
pub(crate) mod rfc3339;
mod webhook;

pub use delivery::InvalidReceiver;
pub(crate) use delivery::{Notifier, Receiver};

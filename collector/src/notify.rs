//! Notifying others about alerts: Alertmanager and webhooks.
//!
//! Guarantees: at least once: a message is repeated until its receiver accepts it or refuses it for good; each receiver
//! has its own task, so a slow one delays neither the others nor the verdict runner. At most 64 KiB of a response are
//! read, redirects are not followed, and an attempt takes at most ten seconds.
//!
//! Deliveries are remembered across a restart ([`crate::alert_book`]), so that the end of each alert is delivered, too.
//!
//! Wrong on purpose: a message whose delivery was interrupted is sent again, so receivers must identify an alert by its
//! id or its labels. A receiver whose address changed (host, port or path) is a new one, and is not notified of the end
//! of alerts that the old one received.

mod alertmanager;
mod delivery;
mod event;
mod http_post;
pub(crate) mod rfc3339;
mod webhook;

pub use delivery::InvalidReceiver;
pub(crate) use delivery::{Notifier, Receiver};

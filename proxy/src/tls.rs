//! TLS of the data path: towards callers ([`server`]) and towards endpoints ([`client`]).
//!
//! Guarantees: TLS 1.3, and 1.2 with forward secrecy, as rustls offers them with `ring`; changed files are reread
//! within about a second, never by a worker; unusable files leave the previous certificate in effect, and are logged
//! and counted; open connections keep what they began with. Equal settings are one object for all workers and reloads.
//!
//! Wrong on purpose: sessions are not resumed, so that each connection is verified against the current CAs; connections
//! are few and long-lived. Certificates are not checked for revocation: short lifetimes take its place.

mod certificate;
mod client;
mod server;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Weak},
};

use emberline_client::{Refreshed, TlsError};
use parking_lot::Mutex;

pub(crate) use certificate::Certificate;
pub(crate) use client::Outbound;
pub(crate) use server::{Begun, Inbound};

use crate::{
    config::{InboundTls, OutboundTls, Protocol},
    counters::Counters,
};

/// The certificates of a process.
#[derive(Debug)]
pub(crate) struct Certificates {
    inbound: Mutex<Vec<Weak<Inbound>>>,
    outbound: Mutex<Vec<Weak<Outbound>>>,
    counters: Arc<Counters>,
}

impl Certificates {
    pub(crate) fn new(counters: &Arc<Counters>) -> Certificates {
        Certificates {
            inbound: Mutex::default(),
            outbound: Mutex::default(),
            counters: Arc::clone(counters),
        }
    }

    /// TLS of an inbound listener that speaks a protocol.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(crate) fn inbound(&self, settings: &InboundTls, protocol: Protocol) -> Result<Arc<Inbound>, TlsError> {
        let is_same = |known: &Inbound| known.is_of(settings, protocol);
        find_or_make(&self.inbound, is_same, || Inbound::new(settings, protocol))
    }

    /// TLS towards the endpoints of an outbound listener.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(crate) fn outbound(&self, settings: &OutboundTls) -> Result<Arc<Outbound>, TlsError> {
        let is_same = |known: &Outbound| known.settings() == settings;
        find_or_make(&self.outbound, is_same, || Outbound::new(settings))
    }

    /// Rereads files that have changed.
    pub(crate) fn refresh(&self) {
        let (inbound, outbound) = (living(&self.inbound), living(&self.outbound));
        for refreshed in inbound
            .iter()
            .map(|tls| tls.refresh())
            .chain(outbound.iter().map(|tls| tls.refresh()))
        {
            match refreshed {
                Ok(Refreshed::Unchanged) => {}
                Ok(Refreshed::Read) => self.counters.tls_reloads.add(),
                Ok(Refreshed::Unusable) | Err(_) => self.counters.tls_reloads_refused.add(),
            }
        }
        self.note_ends();
    }

    /// Updates the expiry times of certificates in the metrics.
    pub(crate) fn note_ends(&self) {
        let mut ends = BTreeMap::new();
        let mut note = |file: Option<&Path>, at: Option<u64>| {
            if let (Some(file), Some(at)) = (file, at) {
                ends.insert(file.display().to_string(), at);
            }
        };
        for tls in living(&self.inbound) {
            note(Some(tls.cert_file()), tls.not_after());
        }
        for tls in living(&self.outbound) {
            note(tls.settings().cert_file.as_deref(), tls.not_after());
        }
        self.counters.certificates_end(ends);
    }
}

fn living<T>(known: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    known.lock().iter().filter_map(Weak::upgrade).collect()
}

fn find_or_make<T>(
    known: &Mutex<Vec<Weak<T>>>,
    is_same: impl Fn(&T) -> bool,
    make: impl FnOnce() -> Result<T, TlsError>,
) -> Result<Arc<T>, TlsError> {
    if let Some(found) = living(known).into_iter().find(|tls| is_same(tls)) {
        return Ok(found);
    }
    let made = Arc::new(make()?);
    let mut known = known.lock();
    known.retain(|tls| tls.strong_count() > 0);
    known.push(Arc::downgrade(&made));
    Ok(made)
}

//! The system's trusted CAs.
//!
//! The certificates that OpenSSL would use, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Wrong on purpose: they are
//! read once, when the first connection needs them; a CA installed later counts after a restart.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::RootCertStore;

/// The system's roots, or why there are none, as far as known. If none are found, the next call looks again.
pub(crate) fn of_the_system() -> Result<Arc<RootCertStore>, Option<String>> {
    static READ: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    let mut read = READ.lock();
    if let Some(roots) = &*read {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(found.errors.first().map(ToString::to_string));
    }
    let roots = Arc::new(roots);
    *read = Some(Arc::clone(&roots));
    Ok(roots)
}

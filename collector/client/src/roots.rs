//! Whom the system trusts.
//!
//! The certificates that OpenSSL would use, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`. Wrong on purpose: they are read once,
//! when the first connection needs them; a CA that is installed later counts after a restart.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::RootCertStore;

use crate::tls::TlsError;

/// The system's roots. Where none are found, the next call looks again.
pub(crate) fn of_the_system() -> Result<Arc<RootCertStore>, TlsError> {
    static READ: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    let mut read = READ.lock();
    if let Some(roots) = &*read {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        return Err(TlsError::NoSystemRoots(
            why.map(|why| format!(" ({why})")).unwrap_or_default(),
        ));
    }
    let roots = Arc::new(roots);
    *read = Some(Arc::clone(&roots));
    Ok(roots)
}

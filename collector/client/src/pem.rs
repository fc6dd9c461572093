//! Reading certificates and private keys (PEM).
//!
//! Guarantees: an error names the setting and the path, and says what is wrong and what to do; a private key is never
//! shown; no more of a file is read than the size of a bundle of all public CAs.

use std::{io::Read, path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, InconsistentKeys, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use crate::settings::TlsError;

/// The largest certificate file read; bundles of all public CAs have a quarter of a megabyte.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// A time when no certificate is valid: the year 10000, beyond what X.509 can express.
const AFTER_ALL: Duration = Duration::from_secs(253_402_300_800);

/// The cryptography provider.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// When a certificate expires, in seconds since 1970; `None` if it cannot be read.
pub fn not_after(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<u64> {
    let certificate = ParsedCertificate::try_from(certificate).ok()?;
    let algorithms = provider.signature_verification_algorithms.all;
    // The library reports the expiry of an expired certificate before it looks for its issuer.
    let at = UnixTime::since_unix_epoch(AFTER_ALL);
    let judged = verify_server_cert_signed_by_trust_anchor(&certificate, &RootCertStore::empty(), &[], at, algorithms);
    match judged {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            Some(not_after.as_secs())
        }
        _ => None,
    }
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |why| TlsError::Unreadable {
        setting,
        path: path.to_owned(),
        why,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(contents(
            setting,
            path,
            "is too large for a certificate file; is it the right file?",
        ));
    }
    Ok(bytes)
}

fn contents(setting: &'static str, path: &Path, why: impl Into<String>) -> TlsError {
    TlsError::Contents {
        setting,
        path: path.to_owned(),
        why: why.into(),
    }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(setting, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|_| contents(setting, path, "is damaged: part of it is not PEM"))?;
    if read.is_empty() {
        let why =
            "contains no PEM certificate (`-----BEGIN CERTIFICATE-----`); convert DER with `openssl x509 -inform der`";
        return Err(contents(setting, path, why));
    }
    Ok(read)
}

/// The CA certificates in the file that a setting names.
///
/// # Errors
/// When the file cannot be read or contains anything else.
pub fn cas(setting: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        let added = roots.add(certificate);
        added.map_err(|error| contents(setting, path, format!("contains an unreadable certificate ({error})")))?;
    }
    Ok(roots)
}

/// Our own certificate with its intermediates and its key, from `cert_file` and `key_file`.
///
/// # Errors
/// When a file cannot be read or used, or the two do not match.
pub fn own(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("cert_file", cert)?;
    // The reader's message could quote the key.
    let private = PrivateKeyDer::from_pem_slice(&read("key_file", key)?).map_err(|_| {
        let why = "contains no readable PEM private key; decrypt an encrypted one with `openssl pkey`";
        contents("key_file", key, why)
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let why = format!(
                "does not match `cert_file` {}: use the key of that certificate",
                cert.display()
            );
            contents("key_file", key, why)
        }
        rustls::Error::InvalidCertificate(_) => contents("cert_file", cert, "begins with an unreadable certificate"),
        _ => contents(
            "key_file",
            key,
            "has an unsupported key type: use RSA, ECDSA P-256 or P-384, or Ed25519",
        ),
    })
}

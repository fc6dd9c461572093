//! SPIFFE: workloads identified by a URI in their certificate.
//!
//! Guarantees: an id is what the standard allows (`spiffe://` trust domain, path of non-empty segments, no query); a
//! certificate has the id of its only URI, and one with several has none; a peer with an expected id is verified like
//! any other peer, but by its id instead of its name.
//!
//! Source: SPIFFE-ID.md and X509-SVID.md of the SPIFFE standard.

use std::{fmt, str::FromStr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use serde::{Deserialize, Serialize};

/// The longest id.
const MAX_BYTES: usize = 2048;

/// The id of a workload, such as `spiffe://example.org/ns/shop/sa/cart`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(String);

impl SpiffeId {
    /// The namespace, if the path is `/ns/NAMESPACE/sa/ACCOUNT`.
    pub fn namespace(&self) -> Option<&str> {
        let mut parts = self.0.split('/').skip(3);
        let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        match parts {
            [Some("ns"), Some(namespace), Some("sa"), Some(_), None] => Some(namespace),
            _ => None,
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = String;

    fn try_from(text: String) -> Result<SpiffeId, String> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.0
    }
}

impl FromStr for SpiffeId {
    type Err = String;

    fn from_str(text: &str) -> Result<SpiffeId, String> {
        let is_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        let is_segment = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let parts = text.strip_prefix("spiffe://").filter(|_| text.len() <= MAX_BYTES);
        let mut parts = parts.unwrap_or_default().split('/');
        let has_domain = parts
            .next()
            .is_some_and(|domain| !domain.is_empty() && domain.bytes().all(is_domain));
        let mut segments = parts;
        if has_domain && segments.all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_segment))
        {
            Ok(SpiffeId(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is not a SPIFFE id: use, for example, `spiffe://cluster.local/ns/shop/sa/cart`"
            ))
        }
    }
}

/// The names in a certificate. Whether it can be trusted is not checked here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Its SPIFFE id.
    pub id: Option<SpiffeId>,
    /// Its DNS names.
    pub dns: Vec<String>,
}

impl Names {
    /// The names of a certificate; none if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Names {
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
            return Names::default();
        };
        let mut uris = certificate.valid_uri_names();
        let id = match (uris.next(), uris.next()) {
            (Some(only), None) => only.parse().ok(),
            _ => None,
        };
        Names {
            id,
            dns: certificate.valid_dns_names().map(str::to_owned).collect(),
        }
    }
}

/// Verifies a server by its id.
#[derive(Debug)]
pub(crate) struct OfId {
    id: SpiffeId,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl OfId {
    pub(crate) fn new(id: SpiffeId, roots: Arc<RootCertStore>, provider: &CryptoProvider) -> OfId {
        OfId {
            id,
            roots,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for OfId {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let names = Names::of(certificate);
        if names.id.as_ref() == Some(&self.id) {
            return Ok(ServerCertVerified::assertion());
        }
        let presented = names.id.map(|id| id.to_string()).into_iter().chain(names.dns);
        Err(CertificateError::NotValidForNameContext {
            expected: name.to_owned(),
            presented: presented.collect(),
        }
        .into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_the_standard_are_ids_and_only_one_form_has_a_namespace() {
        for (text, namespace) in [
            ("spiffe://cluster.local/ns/shop/sa/cart", Some("shop")),
            ("spiffe://cluster.local/ns/shop/sa/cart/x", None),
            ("spiffe://cluster.local/ns/shop", None),
            ("spiffe://a/workload/ns/shop/sa/b", None),
            ("spiffe://a", None),
        ] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().namespace(), namespace, "{text}");
        }
        for wrong in [
            "",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "https://a/ns/b/sa/c",
            "spiffe://A/x",
            "spiffe://a/",
            "spiffe://a//ns/b/sa/c",
            "spiffe://a/../b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%6e",
            "spiffe://a:1/b",
        ] {
            assert!(wrong.parse::<SpiffeId>().is_err(), "{wrong}");
        }
    }
}

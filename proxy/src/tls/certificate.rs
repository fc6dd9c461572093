//! What a caller's verified certificate says about it, and whether its identity header fits that.
//!
//! Guarantees: a header fits only what the certificate names: the namespace of a SPIFFE id
//! (`spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`), or, without a SPIFFE id, service and namespace of a DNS name
//! (`SERVICE.NAMESPACE`, `SERVICE.NAMESPACE.svc.cluster.local`). A certificate that names neither fits no header.
//!
//! Wrong on purpose: within a namespace, any workload with a SPIFFE id can claim to be any service, because accounts
//! need not be named after services; versions and instances are claims.

use emberline_client::Names;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::telemetry::parse_peer;

/// The names in a verified certificate.
#[derive(Debug)]
pub(crate) struct Certificate(Names);

impl Certificate {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Certificate {
        Certificate(Names::of(certificate))
    }

    /// Its SPIFFE id, or its first DNS name.
    pub(crate) fn principal(&self) -> Option<String> {
        let id = self.0.id.as_ref().map(ToString::to_string);
        id.or_else(|| self.0.dns.first().cloned())
    }

    /// Whether the certificate allows the identity that a header claims; without a header nothing is claimed.
    pub(crate) fn fits(&self, header: Option<&HeaderValue>) -> bool {
        let Some(header) = header else { return true };
        let Ok(claimed) = parse_peer(header.as_bytes()) else {
            return false;
        };
        match &self.0.id {
            Some(id) => id.namespace() == Some(claimed.namespace.as_str()),
            None => self.0.dns.iter().any(|name| {
                let mut labels = name.split('.');
                (labels.next(), labels.next()) == (Some(claimed.service.as_str()), Some(claimed.namespace.as_str()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_fits_what_the_certificate_names_and_nothing_else() {
        let spiffe = |id: &str| Names {
            id: Some(id.parse().unwrap()),
            dns: vec!["cart.other".to_owned()],
        };
        let dns = |name: &str| Names {
            id: None,
            dns: vec![name.to_owned()],
        };
        for (names, header, fits) in [
            (spiffe("spiffe://a/ns/shop/sa/x"), "v1;shop;cart;v1;c-1", true),
            (spiffe("spiffe://a/ns/shop/sa/x"), "v1;bank;cart;v1;c-1", false),
            (spiffe("spiffe://a/ns/shop/sa/x"), "v1;other;cart;v1;c-1", false),
            (spiffe("spiffe://a/ns/shop/sa/x"), "v1;;cart;v1;c-1", false),
            (spiffe("spiffe://a/ns/shop/sa/x"), "nonsense", false),
            (spiffe("spiffe://a/workload"), "v1;shop;cart;v1;c-1", false),
            (dns("cart.shop"), "v1;shop;cart;v1;c-1", true),
            (dns("cart.shop.svc.cluster.local"), "v1;shop;cart;v1;c-1", true),
            (dns("cart.shop"), "v1;shop;checkout;v1;c-1", false),
            (dns("cart"), "v1;;cart;v1;c-1", false),
            (dns("*.shop"), "v1;shop;cart;v1;c-1", false),
            (Names::default(), "v1;shop;cart;v1;c-1", false),
        ] {
            let header = HeaderValue::from_str(header).unwrap();
            assert_eq!(Certificate(names).fits(Some(&header)), fits, "{header:?}");
        }
        assert!(Certificate(Names::default()).fits(None));
    }
}

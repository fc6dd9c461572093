//! Who may change something: not the pages of other sites.
//!
//! Guarantee: a browser that was led here by a page of another site changes nothing, whatever that page sends: browsers say
//! where a request comes from (`Sec-Fetch-Site`; older ones `Origin`), and pages cannot say it differently. Programs that
//! are no browsers say nothing and are let through: there are no users yet, so who reaches the port may change it.
//!
//! Wrong on purpose: a name of another site that leads to this server's address (DNS rebinding) looks like this server.
//! Whoever lets browsers reach the port has to check names in front of it.

use http::{HeaderMap, StatusCode, Uri, header};

use crate::error::ApiError;

/// Refuses what a page of another site asked for.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_ours = match (text("sec-fetch-site"), text(header::ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            // `null` would be the name of a host.
            let uri = origin.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some());
            let authority = uri.and_then(|uri| uri.authority().cloned());
            let host = text(header::HOST.as_str());
            authority.is_some_and(|authority| host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str())))
        }
        (None, None) => true,
    };
    if is_ours {
        return Ok(());
    }
    Err(ApiError {
        status: StatusCode::FORBIDDEN,
        code: "cross_site",
        message: "this request comes from a page of another site (`Sec-Fetch-Site`, `Origin`), which may not change anything here; send it from this server's own pages or from a command line".to_owned(),
        retry: false,
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused_and_programs_are_not() {
        for (headers, is_allowed) in [
            (vec![], true),
            (vec![("host", "here:4040")], true),
            (vec![("sec-fetch-site", "same-origin")], true),
            (vec![("sec-fetch-site", "none")], true),
            (vec![("sec-fetch-site", "same-site")], false),
            (vec![("sec-fetch-site", "cross-site")], false),
            (vec![("sec-fetch-site", "")], false),
            (
                vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://here:4040"),
                    ("host", "here:4040"),
                ],
                false,
            ),
            (vec![("origin", "http://here:4040"), ("host", "here:4040")], true),
            (vec![("origin", "http://here:4041"), ("host", "here:4040")], false),
            (vec![("origin", "http://evil.example"), ("host", "here:4040")], false),
            (vec![("origin", "null"), ("host", "here:4040")], false),
            (vec![("origin", "null"), ("host", "null")], false),
            (vec![("origin", "http://here:4040")], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            let checked = check(&map);
            assert_eq!(checked.is_ok(), is_allowed, "{headers:?}: {checked:?}");
        }
    }
}

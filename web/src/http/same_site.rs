//! Cross-site protection: the one layer in front of every port that speaks HTTP to browsers.
//!
//! Guarantees: a page of another site neither changes nor learns anything. Its requests are refused before anything is
//! read or computed: browsers say where a request comes from (`Sec-Fetch-Site`, or `Origin` if the former is not sent,
//! which is the case on plain HTTP to anything but this machine), and pages cannot forge that. Only following a link to
//! a page is allowed. A name of another site that resolves to this server's address (DNS rebinding) is refused by its
//! `Host`. Every response, even an error, is for pages of this server only (`Cross-Origin-Resource-Policy`), so that
//! requests that no header distinguishes from a link, such as a picture over plain HTTP, load nothing there; no
//! response is interpreted as another type than its own.
//!
//! Programs are not browsers: they send none of these headers, and a page cannot imitate them. SDKs, proxies, `curl`
//! and Grafana's server are allowed whatever name they use for this server (`emberline:4318`,
//! `emberline.monitoring.svc`), so a request counts as a browser's by `Sec-Fetch-*`, `Origin` or a `User-Agent` that
//! begins with `Mozilla/`.
//!
//! Host names: addresses, `localhost`, and names that nobody can register publicly (one label; `.svc`,
//! `.cluster.local`) are allowed in addition to the configured ones. There are no users yet: anyone who can reach the
//! port may query.
//!
//! Sources: Fetch Metadata Request Headers (W3C), sections 2.1 to 2.4; Fetch (WHATWG), `Cross-Origin-Resource-Policy`
//! and `Origin`; RFC 9110, section 15.5.20 (421).

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, uri::Authority};

use crate::http::error::{ApiError, shorten};

/// On every response.
const HEADERS: [(HeaderName, &str); 3] = [
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// Paths without pages, to which no link may lead.
const NO_PAGES: [&str; 6] = ["/api/", "/-/", "/metrics", "/pyroscope/", "/querier.", "/v1"];

/// Suffixes of names that no public name server answers for.
const NAMES_OF_CLUSTERS: [&str; 2] = [".svc", ".cluster.local"];

/// Names by which browsers may call this server, in addition to addresses and names that cannot be anyone else's.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts(BTreeSet<String>);

impl AllowedHosts {
    /// From host names (`--allowed-host`) and the public URL (`--external-url`). Fails with the text that is neither.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>, url: Option<&str>) -> Result<AllowedHosts, String> {
        let mut hosts = BTreeSet::new();
        for name in names {
            let authority: Authority = name.parse().map_err(|_| name.to_owned())?;
            hosts.insert(authority.host().to_ascii_lowercase());
        }
        // A path or a scheme alone names no host, but is good enough for links.
        let of_url = url.and_then(|url| url.parse::<Uri>().ok());
        hosts.extend(of_url.and_then(|uri| uri.host().map(str::to_ascii_lowercase)));
        Ok(AllowedHosts(hosts))
    }

    fn is_set(&self, host: &str) -> bool {
        self.0.contains(&host.to_ascii_lowercase())
    }

    fn allows(&self, host: &str) -> bool {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let cannot_be_another = || {
            let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
            let is_local = name == "localhost" || name.ends_with(".localhost");
            is_address || is_local || !name.contains('.') || NAMES_OF_CLUSTERS.iter().any(|end| name.ends_with(end))
        };
        self.0.contains(&name) || cannot_be_another()
    }
}

/// Puts the layer in front of all routes.
pub fn protect(router: Router, hosts: Arc<AllowedHosts>) -> Router {
    router.layer(middleware::from_fn_with_state(hosts, guard))
}

async fn guard(State(hosts): State<Arc<AllowedHosts>>, request: Request, next: Next) -> Response {
    let mut response = match check(request.method(), request.uri(), request.headers(), &hosts) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Refuses requests from pages of other sites, and those meant for another host.
fn check(method: &Method, uri: &Uri, headers: &HeaderMap, hosts: &AllowedHosts) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (site, origin) = (text("sec-fetch-site"), text("origin"));
    let (mode, dest) = (text("sec-fetch-mode"), text("sec-fetch-dest"));
    let is_browser = site.or(origin).or(mode).or(dest).is_some()
        || text("user-agent").is_some_and(|agent| agent.starts_with("Mozilla/"));
    if !is_browser {
        return Ok(());
    }
    // In HTTP/2 it is in the URI.
    let named = uri.authority().map(Authority::as_str).or_else(|| text("host"));
    if let Some(named) = named {
        let host = named.parse::<Authority>().ok();
        if !host.as_ref().is_some_and(|authority| hosts.allows(authority.host())) {
            return Err(wrong_host(named));
        }
    }
    let follows_link = || {
        let is_page = !NO_PAGES.iter().any(|start| uri.path().starts_with(start));
        let reads = method == Method::GET || method == Method::HEAD;
        reads && is_page && mode == Some("navigate") && dest == Some("document")
    };
    let is_ours = match (site, origin) {
        (Some(site), _) => matches!(site, "same-origin" | "none") || follows_link(),
        (None, Some(origin)) => {
            // `null` would parse as a host name.
            let uri = origin.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some());
            let authority = uri.and_then(|uri| uri.authority().cloned());
            // Behind an authenticating proxy, pages come from the configured URL.
            authority.is_some_and(|authority| {
                named.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str()))
                    || hosts.is_set(authority.host())
            })
        }
        (None, None) => true,
    };
    if is_ours {
        return Ok(());
    }
    Err(ApiError {
        status: StatusCode::FORBIDDEN,
        code: "cross_site",
        message: "cross-site request refused (`Sec-Fetch-Site`, `Origin`): send it from this server's own pages or from the command line".to_owned(),
        retry: false,
    })
}

fn wrong_host(host: &str) -> ApiError {
    ApiError {
        status: StatusCode::MISDIRECTED_REQUEST,
        code: "unknown_host",
        message: format!(
            "unknown host name `{}` in a browser's request: if it belongs to this server, allow it with `--allowed-host` (EMBERLINE_ALLOWED_HOST) or set `--external-url`",
            shorten(host)
        ),
        retry: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &str, address: &'static str, headers: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let hosts = AllowedHosts::new(["prof.example.org"], Some("https://emberline.example.com/x")).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_static(value));
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let refused = check(&method, &Uri::from_static(address), &map, &hosts).err();
        refused.map(|refused| refused.code)
    }

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
            // A proxy in front that uses another name for this server than people do.
            (
                vec![("origin", "https://emberline.example.com"), ("host", "127.0.0.1:4040")],
                true,
            ),
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let refused = checked(method, "/api/v1/services", &headers);
                assert_eq!(refused.is_none(), is_allowed, "{method} {headers:?}: {refused:?}");
            }
        }
    }

    #[test]
    fn links_from_other_sites_lead_to_pages_and_to_nothing_else() {
        let link = |mode, dest| {
            [
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ]
        };
        for page in ["/", "/compare?service=a", "/index.html"] {
            assert_eq!(checked("GET", page, &link("navigate", "document")), None, "{page}");
            assert!(checked("POST", page, &link("navigate", "document")).is_some(), "{page}");
            assert!(checked("GET", page, &link("navigate", "iframe")).is_some(), "{page}");
            assert!(checked("GET", page, &link("no-cors", "image")).is_some(), "{page}");
        }
        for other in [
            "/api/v1/profile?format=svg",
            "/metrics",
            "/-/ready",
            "/pyroscope/render",
            "/querier.v1.QuerierService/Diff",
        ] {
            assert!(
                checked("GET", other, &link("navigate", "document")).is_some(),
                "{other}"
            );
        }
    }

    #[test]
    fn browsers_call_the_server_by_its_own_name_and_programs_by_any() {
        for host in [
            "127.0.0.1:4040",
            "[::1]:4040",
            "localhost:4040",
            "a.localhost",
            "emberline:4040",
            "emberline.monitoring.svc:4040",
            "emberline.monitoring.svc.cluster.local",
            "prof.example.org:8443",
            "PROF.example.org.",
            "emberline.example.com",
        ] {
            assert_eq!(
                checked("GET", "/", &[("host", host), ("sec-fetch-site", "none")]),
                None,
                "{host}"
            );
        }
        for host in [
            "evil.example:4040",
            "127.0.0.1.evil.example",
            "example.org",
            "svc.evil.example",
            "a b",
        ] {
            for browser in [
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-mode", "navigate"),
                ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
            ] {
                let refused = checked("GET", "/api/v1/status", &[("host", host), browser]);
                assert_eq!(refused, Some("unknown_host"), "{host} {browser:?}");
            }
            assert_eq!(
                checked("POST", "/v1/metrics", &[("host", host), ("user-agent", "otel")]),
                None,
                "{host}"
            );
        }
        assert!(wrong_host("x").message.contains("--allowed-host"));
        assert!(AllowedHosts::new(["a b"], None).is_err());
    }
}

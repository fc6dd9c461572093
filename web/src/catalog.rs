//! What is known: services, their releases and routes. Guarantee: a name that is not known is refused with the
//! nearest known ones, so that a typo is never an empty answer.

use std::cmp::Ordering;

use emberline_model::{Release, time::WINDOW_SECONDS, workload::Component};
use emberline_storage::{QueryError, Range, ReleaseInfo, ServiceInfo, Store};

use crate::{
    error::ApiError,
    names::suggestion,
    params::{NAMESPACE, NONE, Params, SERVICE, shorten},
};

/// A release counts as live while its newest window ended at most this long ago: the window under way (10 s), the
/// time a batch takes to arrive, and one late batch.
const LIVE_SECONDS: i64 = 35;

/// One service and the releases that were seen in a range, the newest first.
#[derive(Debug, Clone)]
pub(crate) struct KnownService {
    /// Its namespace; may be empty.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) service: String,
    /// Releases seen in the range, the one first seen last in front.
    pub(crate) releases: Vec<ReleaseInfo>,
}

impl From<ServiceInfo> for KnownService {
    fn from(info: ServiceInfo) -> KnownService {
        let mut releases = info.releases;
        releases.sort_by(|a, b| newest_first((a.first_seen_s, &a.version), (b.first_seen_s, &b.version)));
        KnownService {
            namespace: info.namespace,
            service: info.service,
            releases,
        }
    }
}

/// Newest first: by when a release was first seen; where two were first seen in the same window, by version.
fn newest_first(a: (i64, &str), b: (i64, &str)) -> Ordering {
    b.0.cmp(&a.0).then_with(|| compare_versions(b.1, a.1))
}

/// Compares versions as people read them: runs of digits by value (`v9` before `v10`), the rest as text.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a, b);
    while !a_rest.is_empty() && !b_rest.is_empty() {
        let (a_run, b_run) = (run(a_rest), run(b_rest));
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = match (digits(a_run), digits(b_run)) {
            (true, true) => {
                let (a_value, b_value) = (a_run.trim_start_matches('0'), b_run.trim_start_matches('0'));
                a_value.len().cmp(&b_value.len()).then_with(|| a_value.cmp(b_value))
            }
            _ => a_run.cmp(b_run),
        };
        if order != Ordering::Equal {
            return order;
        }
        a_rest = &a_rest[a_run.len()..];
        b_rest = &b_rest[b_run.len()..];
    }
    // Equal by value: the text decides, so that the order is total.
    a_rest.len().cmp(&b_rest.len()).then_with(|| a.cmp(b))
}

/// The leading characters that are all digits or all something else.
fn run(text: &str) -> &str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    &text[..end]
}

/// True for a release that still reported at the end of a range (or now, when the range ends later).
pub(crate) fn is_live(release: &ReleaseInfo, range: Range, now_s: i64) -> bool {
    release.last_seen_s + LIVE_SECONDS >= range.to_unix_s.min(now_s)
}

/// The part of a range that any of the releases reported in, from the first window to the end of the last. At least one
/// window.
pub(crate) fn observed<'a>(releases: impl IntoIterator<Item = &'a ReleaseInfo>, range: Range) -> Range {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for release in releases {
        first = first.min(release.first_seen_s.max(range.from_unix_s));
        last = last.max(release.last_seen_s);
    }
    // Of no releases nothing: `first` is the greatest number then.
    let from_unix_s = first.min(range.to_unix_s);
    Range {
        from_unix_s,
        to_unix_s: last.max(from_unix_s.saturating_add(i64::from(WINDOW_SECONDS))),
    }
}

/// Its seconds: what rates are divided by, so that a service that started a minute ago does not look idle over an hour.
pub(crate) fn observed_seconds<'a>(releases: impl IntoIterator<Item = &'a ReleaseInfo>, range: Range) -> f64 {
    let observed = observed(releases, range);
    (observed.to_unix_s - observed.from_unix_s) as f64
}

/// All services seen in a range, by namespace and name.
pub(crate) async fn all_services(store: &Store, range: Range) -> Result<Vec<KnownService>, QueryError> {
    let mut services: Vec<KnownService> = store
        .services(range)
        .await?
        .into_iter()
        .map(KnownService::from)
        .collect();
    services.sort_by(|a, b| (&a.namespace, &a.service).cmp(&(&b.namespace, &b.service)));
    Ok(services)
}

/// The service a question names.
pub(crate) async fn find_service(store: &Store, params: &Params, range: Range) -> Result<KnownService, ApiError> {
    let wanted = params.text(&SERVICE).unwrap_or_default();
    let namespace = params.text(&NAMESPACE).map(|text| if text == NONE { "" } else { text });
    let services = all_services(store, range).await?;
    choose(store, wanted, namespace, &services).await
}

/// A service that anything is stored of.
pub(crate) async fn find_stored_service(
    store: &Store,
    wanted: &str,
    namespace: Option<&str>,
) -> Result<KnownService, ApiError> {
    let services = all_services(store, Range::ALL).await?;
    choose(store, wanted, namespace, &services).await
}

/// The one service of a name.
async fn choose(
    store: &Store,
    wanted: &str,
    namespace: Option<&str>,
    services: &[KnownService],
) -> Result<KnownService, ApiError> {
    let mut matching: Vec<KnownService> = services
        .iter()
        .filter(|s| s.service == wanted && namespace.is_none_or(|n| s.namespace == n))
        .cloned()
        .collect();
    match matching.len() {
        1 => Ok(matching.remove(0)),
        0 => Err(unknown_service(store, wanted, namespace, services).await),
        _ => {
            let namespaces: Vec<&str> = matching
                .iter()
                .map(|s| {
                    if s.namespace.is_empty() {
                        NONE
                    } else {
                        s.namespace.as_str()
                    }
                })
                .collect();
            let message = format!(
                "service `{}` exists in several namespaces; add `namespace=` with one of: {}",
                shorten(wanted),
                namespaces.join(", ")
            );
            Err(ApiError::bad_request("ambiguous_service", message))
        }
    }
}

/// Tells a name that never reported from one that did not report in the range.
async fn unknown_service(store: &Store, wanted: &str, namespace: Option<&str>, services: &[KnownService]) -> ApiError {
    let ever = all_services(store, Range::ALL).await.unwrap_or_default();
    let silent = ever
        .iter()
        .find(|s| s.service == wanted && namespace.is_none_or(|n| s.namespace == n));
    if let Some(silent) = silent {
        let first = silent.releases.iter().map(|r| r.first_seen_s).min().unwrap_or_default();
        let last = silent.releases.iter().map(|r| r.last_seen_s).max().unwrap_or_default();
        let message = format!(
            "service `{}` reported nothing in this range, but did between {first} and {last} (unix seconds): choose another `from` and `to`",
            shorten(wanted)
        );
        return ApiError::not_found("unknown_service", message);
    }
    let place = match namespace {
        Some(namespace) => format!(" in namespace `{}`", shorten(namespace)),
        None => String::new(),
    };
    let known = services.iter().chain(&ever).map(|s| s.service.as_str());
    ApiError::not_found(
        "unknown_service",
        format!(
            "service `{}` is not known{place}{}",
            shorten(wanted),
            suggestion(wanted, known)
        ),
    )
}

impl KnownService {
    /// A release of this service.
    pub(crate) fn release(&self, version: &str) -> Release {
        Release {
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            version: version.to_owned(),
        }
    }

    /// The release that a version names.
    pub(crate) fn version(&self, version: &str) -> Result<&ReleaseInfo, ApiError> {
        self.releases.iter().find(|r| r.version == version).ok_or_else(|| {
            let known = self.releases.iter().map(|r| r.version.as_str());
            let message = format!(
                "version `{}` of service `{}` reported nothing in this range{}",
                shorten(version),
                self.service,
                suggestion(version, known)
            );
            ApiError::not_found("unknown_version", message)
        })
    }

    /// The newest release.
    pub(crate) fn newest(&self) -> Result<&ReleaseInfo, ApiError> {
        self.releases.first().ok_or_else(|| {
            ApiError::not_found(
                "unknown_version",
                format!("service `{}` has no release in this range", self.service),
            )
        })
    }

    /// The two versions of a comparison: the candidate is the newest release and the baseline the one before it,
    /// unless they are named.
    pub(crate) fn pair(&self, baseline: Option<&str>, candidate: Option<&str>) -> Result<(String, String), ApiError> {
        let alone = |version: &str| {
            let message = format!(
                "a comparison needs two releases, and service `{}` has none besides `{}` that could stand on the other side in this range: choose a longer range, or name `baseline` and `candidate`",
                self.service,
                shorten(version)
            );
            ApiError::not_found("no_baseline", message)
        };
        let (baseline, candidate) = match (baseline, candidate) {
            (Some(baseline), Some(candidate)) => (self.version(baseline)?, self.version(candidate)?),
            (Some(baseline), None) => {
                let baseline = self.version(baseline)?;
                let other = self.releases.iter().find(|r| r.version != baseline.version);
                (baseline, other.ok_or_else(|| alone(&baseline.version))?)
            }
            (None, candidate) => {
                let candidate = match candidate {
                    Some(version) => self.version(version)?,
                    None => self.newest()?,
                };
                let older = self
                    .releases
                    .iter()
                    .skip_while(|r| r.version != candidate.version)
                    .nth(1);
                (older.ok_or_else(|| alone(&candidate.version))?, candidate)
            }
        };
        Ok((baseline.version.clone(), candidate.version.clone()))
    }

    /// Whose CPU is shown when nothing is said: the application's where any of the releases profiles it.
    pub(crate) fn default_component<'a>(&self, versions: impl IntoIterator<Item = &'a str>) -> Component {
        let versions: Vec<&str> = versions.into_iter().collect();
        let mut seen = self
            .releases
            .iter()
            .filter(|r| versions.contains(&r.version.as_str()))
            .flat_map(|r| &r.components);
        match seen.any(|c| *c == Component::Application) {
            true => Component::Application,
            false => Component::Proxy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_compare_as_people_read_them() {
        let mut versions = ["v10", "v9", "v9.10", "v9.9", "1", "v2", "v02"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["1", "v02", "v2", "v9", "v9.9", "v9.10", "v10"]);
    }

    proptest! {
        #[test]
        fn comparing_versions_is_a_total_order(a in "[v0-9.é]{0,6}", b in "[v0-9.é]{0,6}", c in "[v0-9.é]{0,6}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            prop_assert_eq!(compare_versions(&a, &b) == Ordering::Equal, a == b);
            if compare_versions(&a, &b).is_le() && compare_versions(&b, &c).is_le() {
                prop_assert!(compare_versions(&a, &c).is_le());
            }
        }
    }
}

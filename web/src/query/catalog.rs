//! The known services, with their releases and routes. Guarantee: an unknown name is refused with the nearest known
//! ones, so that a typo never gives an empty response.

use emberline_model::{Release, time::WINDOW_SECONDS, workload::Component};
use emberline_storage::{
    QueryError, Range, ReleaseInfo, ServiceInfo, ServiceName, ServicesQuery, Store, WorkloadFilter, baseline_of,
};

use crate::{
    http::error::{ApiError, shorten},
    query::{
        names::suggestion,
        params::{NAMESPACE, NONE, Params, SERVICE},
    },
};

/// A release counts as live if its newest window ended at most this long ago: the current window (10 s), the time a
/// batch takes to arrive, and one late batch.
const LIVE_SECONDS: i64 = 35;

/// One service and the releases seen in a range, newest first.
#[derive(Debug, Clone)]
pub(crate) struct KnownService {
    /// Its namespace; may be empty.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) service: String,
    /// Releases seen in the range, newest first, in the order kept by the store.
    pub(crate) releases: Vec<ReleaseInfo>,
}

impl From<ServiceInfo> for KnownService {
    fn from(info: ServiceInfo) -> KnownService {
        KnownService {
            namespace: info.namespace,
            service: info.service,
            releases: info.releases,
        }
    }
}

/// True for a release that still reported at the end of a range (or now, if the range ends later).
pub(crate) fn is_live(release: &ReleaseInfo, range: Range, now_s: i64) -> bool {
    release.last_seen_s + LIVE_SECONDS >= range.to_unix_s.min(now_s)
}

/// The part of a range in which any of the releases reported, from the first window to the end of the last. At least
/// one window.
pub(crate) fn observed<'a>(releases: impl IntoIterator<Item = &'a ReleaseInfo>, range: Range) -> Range {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for release in releases {
        first = first.min(release.first_window_s.max(range.from_unix_s));
        last = last.max(release.last_seen_s);
    }
    // Without releases, nothing: `first` is then the greatest number.
    let from_unix_s = first.min(range.to_unix_s);
    Range {
        from_unix_s,
        to_unix_s: last.max(from_unix_s.saturating_add(i64::from(WINDOW_SECONDS))),
    }
}

/// Its length in seconds, the divisor of rates, so that a service that started a minute ago does not look idle over an
/// hour.
pub(crate) fn observed_seconds<'a>(releases: impl IntoIterator<Item = &'a ReleaseInfo>, range: Range) -> f64 {
    let observed = observed(releases, range);
    (observed.to_unix_s - observed.from_unix_s) as f64
}

/// Services seen in a range, by namespace and name, and how many more there are.
pub(crate) async fn services(store: &Store, query: ServicesQuery) -> Result<(Vec<KnownService>, u64), QueryError> {
    let found = store.ask(query).await?;
    let services = found.services.into_iter().map(KnownService::from);
    Ok((services.collect(), found.left_out))
}

/// Selects the workloads of the services found; all workloads if no service was left out.
pub(crate) fn workloads_of(services: &[KnownService], left_out: u64) -> WorkloadFilter {
    if left_out == 0 {
        return WorkloadFilter::default();
    }
    let names = services.iter().map(|of| ServiceName {
        namespace: of.namespace.clone(),
        service: of.service.clone(),
    });
    WorkloadFilter::among(names.collect())
}

/// The service that a query names.
pub(crate) async fn find_service(store: &Store, params: &Params, range: Range) -> Result<KnownService, ApiError> {
    let wanted = params.text(&SERVICE).unwrap_or_default();
    let namespace = params.text(&NAMESPACE).map(|text| if text == NONE { "" } else { text });
    choose(store, wanted, namespace, range).await
}

/// A service with any stored data.
pub(crate) async fn find_stored_service(
    store: &Store,
    wanted: &str,
    namespace: Option<&str>,
) -> Result<KnownService, ApiError> {
    choose(store, wanted, namespace, Range::ALL).await
}

/// The one service with this name.
async fn choose(store: &Store, wanted: &str, namespace: Option<&str>, range: Range) -> Result<KnownService, ApiError> {
    let who = WorkloadFilter {
        namespace: namespace.map(str::to_owned),
        ..WorkloadFilter::service(wanted)
    };
    let query = ServicesQuery {
        who,
        ..ServicesQuery::new(range)
    };
    let (mut matching, _) = services(store, query).await?;
    match matching.len() {
        1 => Ok(matching.remove(0)),
        0 => Err(unknown_service(store, wanted, namespace).await),
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
                "service `{}` exists in several namespaces; set `namespace` to one of: {}",
                shorten(wanted),
                namespaces.join(", ")
            );
            Err(ApiError::bad_request("ambiguous_service", message))
        }
    }
}

/// Distinguishes a name that never reported from one that did not report in the range.
async fn unknown_service(store: &Store, wanted: &str, namespace: Option<&str>) -> ApiError {
    let (ever, _) = services(store, ServicesQuery::new(Range::ALL))
        .await
        .unwrap_or_default();
    let silent = ever
        .iter()
        .find(|s| s.service == wanted && namespace.is_none_or(|n| s.namespace == n));
    if let Some(silent) = silent {
        let first = silent
            .releases
            .iter()
            .map(|r| r.first_window_s)
            .min()
            .unwrap_or_default();
        let last = silent.releases.iter().map(|r| r.last_seen_s).max().unwrap_or_default();
        let message = format!(
            "service `{}` reported nothing in this range, but did between {first} and {last} (Unix seconds): choose another `from` and `to`",
            shorten(wanted)
        );
        return ApiError::not_found("unknown_service", message);
    }
    let place = match namespace {
        Some(namespace) => format!(" in namespace `{}`", shorten(namespace)),
        None => String::new(),
    };
    let known = ever.iter().map(|s| s.service.as_str());
    ApiError::not_found(
        "unknown_service",
        format!(
            "unknown service `{}`{place}{}",
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

    /// The release with this version.
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

    /// The two versions of a comparison: by default, the candidate is the newest release and the baseline the one that
    /// it replaces ([`baseline_of`]).
    pub(crate) fn pair(&self, baseline: Option<&str>, candidate: Option<&str>) -> Result<(String, String), ApiError> {
        let alone = |version: &str| {
            let message = format!(
                "a comparison needs two releases, but service `{}` has only `{}` in this range: choose a longer range, or set `baseline` and `candidate`",
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
                let baseline = baseline_of(&self.releases, &candidate.version);
                (baseline.ok_or_else(|| alone(&candidate.version))?, candidate)
            }
        };
        Ok((baseline.version.clone(), candidate.version.clone()))
    }

    /// The component whose CPU is shown by default: the application if any of the releases profiles it.
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

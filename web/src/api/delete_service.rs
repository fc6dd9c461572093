//! `DELETE /api/v1/services/{service}`: deletes everything that a service reported. The only call that deletes
//! anything.
//!
//! Guarantees: nothing is deleted unless deleting is allowed, nor without `confirm`, which repeats the name; a deletion
//! continues if the caller leaves, and is answered with 202 and its progress if it takes long: the same call then waits
//! for the same deletion.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, RawQuery, State},
};
use emberline_storage::{DeleteError, DeleteProgress, Deleted, ServiceName};
use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::error::{ApiError, ErrorBody, shorten},
    query::{
        catalog,
        params::{CONFIRM, NAMESPACE, NONE, Parameter, Params},
    },
    state::Web,
};

pub(super) const PARAMETERS: &[Parameter] = &[NAMESPACE, CONFIRM];

/// What was deleted, or how far that has come.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceDeletion {
    namespace: String,
    service: String,
    /// False while the deletion is in progress; the numbers of what was deleted are 0 until its end.
    finished: bool,
    /// Windows, requests, samples and exemplars.
    rows: u64,
    /// Sealed files rewritten or removed.
    files: u64,
    /// Bytes by which sealed files are smaller.
    bytes_freed: u64,
    /// Bytes of sealed files that are done.
    done_bytes: u64,
    /// Bytes of all sealed files that contained data of the service; 0 while they are being looked for.
    all_bytes: u64,
}

/// Deletes everything that a service reported so far; what it reports later is stored.
///
/// Off (403) unless the server runs with `--allow-delete`: there is no login yet, and anyone who can reach the port may
/// call it. Cannot be undone.
#[utoipa::path(delete, path = "/api/v1/services/{service}",
    params(("service" = String, Path, description = "Name of the service.")),
    responses(
        (status = 200, body = ServiceDeletion, description = "The service was deleted."),
        (status = 202, body = ServiceDeletion, description = "Deletion is in progress and continues; repeat the call to wait for it."),
        (status = "default", body = ErrorBody),
    ),
)]
pub(crate) async fn delete_service(
    State(web): State<Web>,
    Path(service): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Json<ServiceDeletion>), ApiError> {
    if !web.allow_delete {
        return Err(ApiError {
            status: StatusCode::FORBIDDEN,
            code: "deleting_is_off",
            message: "deletion is disabled: start the server with `--allow-delete` (EMBERLINE_ALLOW_DELETE=true), or stop it and use `emberline store delete`".to_owned(),
            retry: false,
        });
    }
    let params = Params::read(query.as_deref(), PARAMETERS, web.clock.now_unix_ns())?;
    let confirmed = params.text(&CONFIRM).unwrap_or_default();
    if confirmed != service {
        let message = format!(
            "`confirm={}` does not match the service name `{}`: repeat the name to delete everything it reported",
            shorten(confirmed),
            shorten(&service)
        );
        return Err(ApiError::bad_request("not_confirmed", message));
    }
    let namespace = params.text(&NAMESPACE).map(|text| if text == NONE { "" } else { text });
    let (namespace, service) = match catalog::find_stored_service(&web.store, &service, namespace).await {
        Ok(known) => (known.namespace, known.service),
        // If a deletion is in progress, the service may have no windows left.
        Err(error) => {
            let mut under_way = web.store.services_being_deleted().into_iter();
            let is_it = |who: &ServiceName| who.service == service && namespace.is_none_or(|n| n == who.namespace);
            let who = under_way.find(is_it).ok_or(error)?;
            (who.namespace, who.service)
        }
    };

    let progress: Arc<Mutex<DeleteProgress>> = Arc::default();
    // A task of its own: the response may be sent before the end.
    let deleting = tokio::spawn({
        let (store, progress) = (web.store.clone(), progress.clone());
        let (namespace, service) = (namespace.clone(), service.clone());
        async move {
            let mut note = |step| *progress.lock() = step;
            store.delete_service(&namespace, &service, &mut note).await
        }
    });
    let patience = Duration::from_secs(web.max_request_seconds) / 2;
    let answer = |status: StatusCode, deleted: Deleted| {
        let progress = *progress.lock();
        let body = ServiceDeletion {
            namespace,
            service,
            finished: status == StatusCode::OK,
            rows: deleted.rows,
            files: deleted.files,
            bytes_freed: deleted.bytes_freed,
            done_bytes: progress.done_bytes,
            all_bytes: progress.all_bytes,
        };
        (status, Json(body))
    };
    match tokio::time::timeout(patience, deleting).await {
        Ok(Ok(deleted)) => Ok(answer(StatusCode::OK, deleted?)),
        Ok(Err(error)) => Err(ApiError::internal(format!("deletion ended early: {error}"))),
        Err(_) => Ok(answer(StatusCode::ACCEPTED, Deleted::default())),
    }
}

impl From<DeleteError> for ApiError {
    fn from(error: DeleteError) -> ApiError {
        let (status, code, retry) = match &error {
            DeleteError::UnknownService { .. } => (StatusCode::NOT_FOUND, "unknown_service", false),
            DeleteError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", true),
            DeleteError::Unfinished { .. } => (StatusCode::SERVICE_UNAVAILABLE, "deletion_unfinished", true),
            DeleteError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "store_closed", true),
        };
        ApiError {
            status,
            code,
            message: error.to_string(),
            retry,
        }
    }
}

//! Deleting a service from a store that no process has open.
//!
//! Guarantees: nothing else changes, whatever the retention settings; an interrupted deletion is finished by the next
//! process that opens the store, or by a second call.

use std::{sync::Arc, time::Duration};

use emberline_model::time::Clock;

use super::{Layout, keeping_everything};
use crate::{
    deletions::{DeleteProgress, Deleted},
    disk::{Disk, RealDisk},
    error::{DeleteError, OpenError, QueryError},
    options::Options,
    questions::services::ServicesQuery,
    range::Range,
    store::Store,
};

/// Why a service of a closed store was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteFromError {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The query engine could not catch up with what is stored.
    #[error("cannot bring the query engine up to date: {0}")]
    Engine(#[from] QueryError),
    /// Services in several namespaces have this name.
    #[error("service `{service}` exists in several namespaces: pass one of {namespaces:?}")]
    Ambiguous {
        /// The name.
        service: String,
        /// The namespaces.
        namespaces: Vec<String>,
    },
    /// It was not deleted, or not completely.
    #[error(transparent)]
    Delete(#[from] DeleteError),
}

/// Deletes a service; returns its namespace, which can be omitted if only one namespace has the name.
pub async fn delete(
    options: Options,
    clock: Arc<dyn Clock>,
    namespace: Option<&str>,
    service: &str,
    on_progress: &mut (dyn FnMut(DeleteProgress) + Send),
) -> Result<(String, Deleted), DeleteFromError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    // A mistyped folder must not become a store.
    Layout::read(&*disk, &options.data_dir)?;
    let options = Options {
        seal_after: Duration::MAX,
        ..keeping_everything(options)
    };
    let store = Store::open_on(options, clock, disk)?;
    let outcome = delete_from(&store, namespace, service, on_progress).await;
    store.close();
    outcome
}

async fn delete_from(
    store: &Store,
    namespace: Option<&str>,
    service: &str,
    on_progress: &mut (dyn FnMut(DeleteProgress) + Send),
) -> Result<(String, Deleted), DeleteFromError> {
    store.flush_applied().await?;
    let namespace = match namespace {
        Some(namespace) => namespace.to_owned(),
        None => {
            let services = store.ask(ServicesQuery::new(Range::ALL)).await?.services;
            let known = services.into_iter().map(|info| (info.namespace, info.service));
            // What is left after an interrupted deletion may have no windows any more.
            let known = known.chain(
                store
                    .services_being_deleted()
                    .into_iter()
                    .map(|who| (who.namespace, who.service)),
            );
            let named = known.filter(|(_, name)| name == service);
            let mut namespaces: Vec<String> = named.map(|(namespace, _)| namespace).collect();
            namespaces.sort();
            namespaces.dedup();
            if namespaces.len() > 1 {
                let service = service.to_owned();
                return Err(DeleteFromError::Ambiguous { service, namespaces });
            }
            namespaces.pop().unwrap_or_default()
        }
    };
    let deleted = store.delete_service(&namespace, service, on_progress).await?;
    Ok((namespace, deleted))
}

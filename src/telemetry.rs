//! Logs (to standard output, as text or JSON) and the HTTP endpoint with `/healthz`, `/readyz` and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};
use crate::leader::Leadership;
use crate::metrics::Metrics;

/// Starts the log. `LOG_FORMAT=json` makes it machine-readable; `RUST_LOG` filters.
pub fn start_log() {
    // kube logs every 5xx answer as an error by itself; ours says which object it was about
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,kube_runtime=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    if std::env::var("LOG_FORMAT").is_ok_and(|format| format == "json") {
        log.json().init();
    } else {
        log.init();
    }
}

/// Serves until the process ends. `synced` turns true when the caches are complete: then the replica is ready, leader or not.
pub async fn serve(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    synced: watch::Receiver<bool>,
) -> Result<()> {
    let text = move || {
        metrics.leader(leadership.holds());
        async move { metrics.text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR) }
    };
    let ready = move || {
        let ready = *synced.borrow();
        async move {
            if ready {
                (StatusCode::OK, "ok")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "the caches are not complete yet")
            }
        }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text));
    let failed = |source| Error::Serve {
        address: address.to_string(),
        source,
    };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    axum::serve(listener, router).await.map_err(failed)
}

//! The endpoint with probes and metrics, without TLS and authentication. It shows no run and no
//! secret.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use podbeat_interface::own_process;

use super::metrics::{self, Reading};
use super::readings::Readings;
use crate::api::Api;
use crate::data;
use crate::service::Service;
use crate::settings::Config;
use podbeat_runs::Status;

/// The limit for the store's answer to a probe or a scrape, less than the kubelet's and
/// Prometheus's usual timeouts.
const STORE: Duration = Duration::from_secs(5);

/// What the endpoint shows.
#[derive(Debug)]
pub struct Admin {
    api: Arc<Api>,
    readings: Arc<Readings>,
    connections: Arc<AtomicUsize>,
    data: PathBuf,
    heartbeat_timeout: Duration,
    stopping: AtomicBool,
    process_started: Option<f64>,
}

impl Admin {
    /// The endpoint of a server. `connections` is the number of its open connections.
    #[must_use]
    pub fn new(
        config: &Config,
        api: Arc<Api>,
        readings: Arc<Readings>,
        connections: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            api,
            readings,
            connections,
            data: config.data.clone(),
            heartbeat_timeout: config.rules.heartbeat_timeout,
            stopping: AtomicBool::new(false),
            process_started: own_process::started_at(),
        }
    }

    /// From now on the server is not ready, because it stops.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/", get(list))
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(show))
            .with_state(self)
    }

    /// Why the server is not ready.
    async fn reason(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("the server is stopping");
        }
        let Some(service) = self.api.service() else {
            return Some("the server is starting");
        };
        let checked = tokio::time::timeout(STORE, service.store().check());
        match checked.await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some("the store fails; the log has the reason"),
            Err(_) => Some("the store does not answer"),
        }
    }

    async fn reading(&self) -> Reading {
        let service = self.api.service();
        Reading {
            readings: Arc::clone(&self.readings),
            is_ready: self.reason().await.is_none(),
            runs: match service {
                Some(service) => counts(service).await,
                None => None,
            },
            live_runs: service.map(|service| service.live_runs()),
            heartbeat_lag: service.and_then(|service| service.longest_silence()),
            heartbeat_timeout: self.heartbeat_timeout,
            disk_free: disk_free(self.data.clone()).await,
            connections: self.connections.load(Ordering::Relaxed),
            process_started: self.process_started,
        }
    }
}

async fn counts(service: &Service) -> Option<Vec<(Status, u64)>> {
    let counted = tokio::time::timeout(STORE, service.store().counts()).await;
    counted.ok()?.ok()
}

/// In a thread of its own, because the file system of a network may hang.
async fn disk_free(data: PathBuf) -> Option<u64> {
    let asked = tokio::task::spawn_blocking(move || data::disk_free(&data));
    tokio::time::timeout(STORE, asked).await.ok()?.ok()?
}

async fn list() -> &'static str {
    "/livez\t200 while the process runs\n\
     /readyz\t200 while the server answers requests, otherwise 503 with the reason\n\
     /metrics\tmetrics, as OpenMetrics\n"
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.reason().await {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn show(State(admin): State<Arc<Admin>>) -> Response {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics::text(admin.reading().await) {
        Ok(text) => ([(header::CONTENT_TYPE, TYPE)], text).into_response(),
        // Cannot happen: the data is always printable.
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

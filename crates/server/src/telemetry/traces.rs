//! Traces: the server's part of the traces that its clients record, sent to a collector.
//!
//! The server begins no trace of its own, and adds a span only to requests whose `traceparent` says
//! that the caller records the trace. So heartbeats cost nothing, unless somebody wants to see those
//! of one pod (docs/logs.md).

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::api::Answered;

/// The limit for one request to the collector.
const EXPORT: Duration = Duration::from_secs(10);

/// How long the last spans may take when the server stops.
const LAST: Duration = Duration::from_secs(3);

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client for the collector.
    #[error("cannot create a client for the collector {endpoint}")]
    Client {
        /// The collector's base URL.
        endpoint: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Sends spans to a collector over OTLP/HTTP, in a thread of its own. At most 2048 spans wait;
    /// others are dropped. `endpoint` is the collector's base URL.
    ///
    /// # Errors
    /// There is no client for this URL.
    pub fn to(endpoint: &str) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Client {
            endpoint: endpoint.to_owned(),
            source,
        };
        // The client uses the provider of the process. An error means that it is installed already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(EXPORT)
            .build()
            .map_err(|error| failed(error.into()))?;
        let resource = Resource::builder()
            .with_service_name("podbeat-server")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .build();
        Ok(Self(provider))
    }

    /// Adds a span for a request, if its caller records the trace.
    pub fn add(&self, answered: &Answered<'_>) {
        let Some(parent) = answered.parent.filter(|parent| parent.sampled) else {
            return;
        };
        let now = SystemTime::now();
        let remote = SpanContext::new(
            parent.trace_id.bits().into(),
            parent.span_id.bits().into(),
            TraceFlags::SAMPLED,
            true,
            TraceState::NONE,
        );
        // The names of OpenTelemetry's semantic conventions for HTTP servers.
        let mut attributes = vec![
            KeyValue::new("http.request.method", answered.method.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(answered.status)),
        ];
        attributes.extend(
            answered
                .run
                .map(|run| KeyValue::new("podbeat.run", run.to_owned())),
        );
        let tracer = self.0.tracer("podbeat-server");
        let mut span = SpanBuilder::from_name(answered.operation)
            .with_kind(SpanKind::Server)
            .with_start_time(now.checked_sub(answered.took).unwrap_or(now))
            .with_attributes(attributes)
            .start_with_context(&tracer, &Context::new().with_remote_span_context(remote));
        if answered.status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(now);
    }

    /// Sends the last spans.
    pub async fn close(&self) {
        let provider = self.0.clone();
        let closing = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST));
        // A collector that is gone is no reason to wait, or to fail.
        let _ = tokio::time::timeout(LAST + Duration::from_secs(1), closing).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::routing::post;
    use tokio::net::TcpListener;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0";

    fn answered<'run>(sampled: u8, run: &'run str) -> Answered<'run> {
        Answered {
            operation: "heartbeat",
            run: Some(run),
            method: "POST",
            status: 503,
            took: Duration::from_millis(7),
            parent: Some(format!("{PARENT}{sampled}").parse().expect("a traceparent")),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_recorded_trace_gets_a_span_with_its_parent_and_others_get_none() {
        let bodies: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let keep = async |State(bodies): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| {
            bodies.lock().expect("not poisoned").push(body);
        };
        let router = Router::new()
            .route("/v1/traces", post(keep))
            .with_state(Arc::clone(&bodies));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let collector = tokio::spawn(async move { axum::serve(listener, router).await });
        let traces = Traces::to(&format!("http://{address}/")).expect("a client");
        traces.add(&answered(0, "trn.silent"));
        traces.add(&answered(1, "trn.recorded"));
        traces.close().await;
        collector.abort();
        let all = bodies.lock().expect("not poisoned").concat();
        let has = |wanted: &[u8]| all.windows(wanted.len()).any(|part| part == wanted);
        assert!(has(b"heartbeat") && has(b"podbeat-server") && has(b"trn.recorded"));
        assert!(has(
            &0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()
        ));
        assert!(has(&0xb7ad_6b71_6920_3331_u64.to_be_bytes()), "the parent");
        assert!(!has(b"trn.silent"), "its caller records nothing");
    }
}

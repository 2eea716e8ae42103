//! The values of fields, and groups of fields that several messages have.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_task_runs::trace::{SpanId, TraceId, TraceParent};
use tracing::field::{Value, display};

use super::form::Form;

/// A type of a field's value.
pub trait Shown {
    /// Its form in the log.
    const FORM: Form;

    /// The value for tracing.
    fn shown(&self) -> impl Value;
}

macro_rules! shown {
    ($($type:ty: $form:ident, $value:ident => $shown:expr;)+) => {$(
        impl Shown for $type {
            const FORM: Form = Form::$form;

            fn shown(&self) -> impl Value {
                let $value = self;
                $shown
            }
        }
    )+};
}

shown! {
    bool: Flag, value => *value;
    u8: Number, value => *value;
    u16: Number, value => *value;
    u32: Number, value => *value;
    u64: Number, value => *value;
    usize: Number, value => *value;
    i32: Number, value => *value;
    &str: Text, value => *value;
    Text<'_>: Text, value => display(*value);
    Cut<'_>: Text, value => display(value);
    &Path: Text, value => display(value.display());
    SocketAddr: Text, value => display(value);
    TraceId: Text, value => display(value);
    SpanId: Text, value => display(value);
    Timestamp: Time, value => display(value);
    Since: Time, value => display(value);
    Seconds: Seconds, value => value.with_milliseconds();
}

impl<T: Shown> Shown for Option<T> {
    const FORM: Form = T::FORM;

    fn shown(&self) -> impl Value {
        self.as_ref().map(T::shown)
    }
}

/// The form of a group's member.
#[must_use]
pub const fn form_of<G, T: Shown>(_: fn(&G) -> &T) -> Form {
    T::FORM
}

/// A text that is formatted when the line is logged.
pub type Text<'a> = &'a dyn fmt::Display;

/// The beginning of a text, and `…` if the text has more.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    text: &'a str,
    most: usize,
}

impl<'a> Cut<'a> {
    /// `most` is in characters.
    #[must_use]
    pub fn new(text: &'a str, most: usize) -> Self {
        Self { text, most }
    }
}

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.char_indices().nth(self.most) {
            Some((end, _)) => write!(f, "{}…", self.text.get(..end).unwrap_or_default()),
            None => f.write_str(self.text),
        }
    }
}

/// A time that is logged with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Since(pub Timestamp);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

/// A duration that is logged as seconds with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Seconds {
    fn with_milliseconds(self) -> f64 {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(milliseconds).as_secs_f64()
    }
}

/// Which heartbeat a line is about.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// Its number.
    pub heartbeat: u64,
    /// Its kind, in one word.
    pub kind: &'static str,
}

/// Which attempt a line is about.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The trace of this process. `None` in a dry run, and before the first attempt.
    pub trace_id: Option<TraceId>,
    /// The span of the attempt.
    pub span_id: Option<SpanId>,
}

impl From<Option<TraceParent>> for Span {
    fn from(trace: Option<TraceParent>) -> Self {
        Self {
            trace_id: trace.map(|trace| trace.trace_id),
            span_id: trace.map(|trace| trace.span_id),
        }
    }
}

/// A failure that podbeat logs.
#[derive(Clone, Copy)]
pub struct Outage<'a> {
    /// The number of failures, including this one.
    pub repeats: u64,
    /// The time of the first failure.
    pub since: Since,
    /// This failure.
    pub error: Text<'a>,
}

/// The end of an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over {
    /// The number of failures.
    pub failures: u64,
    /// The time since the first failure.
    pub lasted_seconds: Seconds,
}

/// The effective settings. [`field_of`](super::field_of) gives the name of each member.
#[allow(missing_docs, reason = "docs/configuration.md has their meaning")]
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// The trace of this process. `None` in a dry run.
    pub trace_id: Option<TraceId>,
    pub task_run_id: &'a str,
    pub job_completion_index: Option<u32>,
    pub pod_name: &'a str,
    pub pod_namespace: Option<&'a str>,
    pub pod_uid: Option<&'a str>,
    pub job_retry_count: Option<i32>,
    pub pod_hardware_details: Option<Cut<'a>>,
    pub service_url: Option<Text<'a>>,
    pub token_file: Option<&'a Path>,
    pub token: Option<Text<'a>>,
    pub ca_file: Option<&'a Path>,
    pub client_cert_file: Option<&'a Path>,
    pub client_key_file: Option<&'a Path>,
    pub nonce: Option<Text<'a>>,
    pub nonce_file: Option<&'a Path>,
    pub interval: Text<'a>,
    pub timeout: Text<'a>,
    pub container_name: &'a str,
    pub task_containers: Option<&'a str>,
    pub ignored_containers: Option<&'a str>,
    pub report: &'a str,
    pub state_dir: Option<&'a Path>,
    pub marker_dir: Option<&'a Path>,
    pub renewed_token_file: Option<&'a Path>,
    pub listen: Option<SocketAddr>,
    pub max_status_age: Text<'a>,
    pub reconnect_spread: Text<'a>,
    pub log: Text<'a>,
    pub log_format: &'a str,
    pub traceparent: Option<Text<'a>>,
    pub dry_run: bool,
    /// The API server's host and port. `None` outside a pod.
    pub kubernetes_api: Option<&'a str>,
    pub service_account_dir: Option<&'a Path>,
    pub kubeconfig: Option<&'a Path>,
    pub context: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let cut = |text: &str| Cut::new(text, 3).to_string();
        assert_eq!(cut("ü"), "ü");
        assert_eq!(cut("üüü"), "üüü");
        assert_eq!(cut("üüüü"), "üüü…");
    }

    #[test]
    fn seconds_have_milliseconds() {
        let shown = Seconds(Duration::from_micros(1_234_999)).with_milliseconds();
        assert_eq!(shown, 1.234);
    }
}

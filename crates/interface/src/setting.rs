//! Each setting, defined once: variable, flag, default, parser and documentation. Help texts and
//! documents print these definitions, and a `Reader` reads values with them.

use std::borrow::Cow;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_heartbeat::marker::{ContainerName, PODBEAT};
use podbeat_heartbeat::report::Report;
use podbeat_kubernetes::watch::SPREAD;
use podbeat_task_runs::Secret;

pub use self::Parse::{Raw, Text, Within};
use crate::parse::{self, LogFormat};

/// A setting with a value of type `T`. `D` is `T` if the default is a value. It is `()` if the
/// default is only described, because there is none or because it depends on something.
#[derive(Debug)]
pub struct Setting<T: 'static, D: 'static = ()> {
    /// The setting as users see it.
    pub row: Row,
    pub(crate) parse: Parse<T>,
    pub(crate) default: D,
}

/// How a value is read.
#[derive(Clone, Copy, Debug)]
pub enum Parse<T> {
    /// Unchanged.
    Raw(fn(OsString) -> Result<T, &'static str>),
    /// As a text without surrounding white space.
    Text(fn(&str) -> Result<T, String>),
    /// Like `Text`, within bounds.
    Within(Bounds, fn(&str, Bounds) -> Result<T, String>),
}

/// The shortest and the longest duration.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The shortest.
    pub least: Duration,
    /// The longest. [`Duration::MAX`] for no bound.
    pub most: Duration,
}

/// A setting as users see it, whatever its type.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The environment variable.
    pub variable: &'static str,
    /// The flag, without its dashes. Empty if there is none.
    pub flag: &'static str,
    /// How its flag and its value are treated.
    pub kind: Kind,
    default: Shown,
    meaning: &'static str,
    bounds: Option<Bounds>,
}

/// How the flag and the value of a setting are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The flag has a value.
    Value,
    /// The flag has a value, which is never shown.
    Secret,
    /// The flag has no value.
    Switch,
}

#[derive(Clone, Copy, Debug)]
enum Shown {
    Text(&'static str),
    Duration(Duration),
}

impl Row {
    /// The default, or what makes the setting required.
    #[must_use]
    pub fn default(&self) -> Cow<'static, str> {
        match self.default {
            Shown::Text(text) => text.into(),
            Shown::Duration(duration) => in_words(duration).into(),
        }
    }

    /// What the setting means, with its bounds.
    #[must_use]
    pub fn meaning(&self) -> Cow<'static, str> {
        let meaning = self.meaning.trim_start();
        match self.bounds {
            None => meaning.into(),
            Some(Bounds { least, most }) if most == Duration::MAX => {
                format!("{meaning}; at least {}", in_words(least)).into()
            }
            Some(Bounds { least, most }) => {
                format!("{meaning}; {} to {}", in_words(least), in_words(most)).into()
            }
        }
    }

    /// The same setting, with another flag.
    #[must_use]
    pub const fn with_flag(self, flag: &'static str) -> Self {
        Self { flag, ..self }
    }

    /// The same setting, with another description of its default.
    #[must_use]
    pub const fn with_default(self, words: &'static str) -> Self {
        let default = Shown::Text(words);
        Self { default, ..self }
    }

    /// The same setting, with another text.
    #[must_use]
    pub const fn with_meaning(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }
}

/// A duration as users write it.
pub(crate) fn in_words(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

impl<T> Setting<T, &'static str> {
    /// The default, as users write it.
    #[must_use]
    pub const fn default_text(&self) -> &'static str {
        self.default
    }
}

/// The parts that each definition in [`settings!`](crate::settings) has.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// The environment variable.
    pub variable: &'static str,
    /// The flag, without its dashes. Empty if there is none.
    pub flag: &'static str,
    /// The documentation for users.
    pub meaning: &'static str,
}

const fn new<T, D>(
    names: Names,
    kind: Kind,
    default: D,
    shown: Shown,
    parse: Parse<T>,
) -> Setting<T, D> {
    Setting {
        row: Row {
            variable: names.variable,
            flag: names.flag,
            kind,
            default: shown,
            meaning: names.meaning,
            bounds: match parse {
                Within(bounds, _) => Some(bounds),
                Raw(_) | Text(_) => None,
            },
        },
        parse,
        default,
    }
}

/// A setting whose default is only described.
#[must_use]
pub const fn setting<T>(names: Names, words: &'static str, parse: Parse<T>) -> Setting<T> {
    new(names, Kind::Value, (), Shown::Text(words), parse)
}

/// A setting with a path, whose default is only described.
#[must_use]
pub const fn path(names: Names, words: &'static str) -> Setting<PathBuf> {
    setting(names, words, Raw(parse::path))
}

/// A setting whose value is never shown.
#[must_use]
pub const fn secret(names: Names, words: &'static str, parse: Parse<Secret>) -> Setting<Secret> {
    new(names, Kind::Secret, (), Shown::Text(words), parse)
}

/// A setting that is `false` by default, and whose flag has no value.
#[must_use]
pub const fn switch(names: Names) -> Setting<bool, bool> {
    let shown = Shown::Text("false");
    new(names, Kind::Switch, false, shown, Text(parse::boolean))
}

/// A setting with a duration.
#[must_use]
pub const fn duration(
    names: Names,
    default: Duration,
    bounds: Bounds,
) -> Setting<Duration, Duration> {
    let shown = Shown::Duration(default);
    let parse = Within(bounds, parse::duration);
    new(names, Kind::Value, default, shown, parse)
}

/// A setting whose default is a value. `words` is its form for users.
#[must_use]
pub const fn valued<T, D>(
    names: Names,
    default: D,
    words: &'static str,
    parse: Parse<T>,
) -> Setting<T, D> {
    new(names, Kind::Value, default, Shown::Text(words), parse)
}

/// Bounds of a duration.
#[must_use]
pub const fn bounds(least: Duration, most: Duration) -> Bounds {
    Bounds { least, most }
}

/// The bounds of the timeout of one attempt or one request.
const TIMEOUTS: Bounds = bounds(millis(100), secs(300));
const INFO: &str = "info";
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Defines settings and their table. The comment of each setting is its documentation for users.
/// The constructor after the `=`, such as `setting`, must be in scope.
#[macro_export]
macro_rules! settings {
    ($(#[$doc:meta])* $table:ident: $(
        $(#[doc = $meaning:literal])+
        $name:ident: $type:ty = $kind:ident($variable:literal, $flag:literal $(, $part:expr)*);
    )+) => {
        $(
            #[doc = concat!("`", $variable, "`.")]
            pub static $name: $type = {
                let names = $crate::setting::Names {
                    variable: $variable,
                    flag: $flag,
                    meaning: concat!($($meaning),+),
                };
                $kind(names $(, $part)*)
            };
        )+

        $(#[$doc])*
        pub static $table: &[$crate::setting::Row] = &[$($name.row),+];
    };
}

settings! {
    /// Every setting of the agent, in the order of the documents.
    SETTINGS:

    /// ID of the run that this pod executes; podbeat replaces {index} with JOB_COMPLETION_INDEX
    TASK_RUN_ID: Setting<String> =
        setting("TASK_RUN_ID", "task-run-id", "required", Text(parse::text));

    /// the pod's index in its Indexed Job: the annotation
    /// batch.kubernetes.io/job-completion-index (downward API)
    JOB_COMPLETION_INDEX: Setting<u32> =
        setting("JOB_COMPLETION_INDEX", "job-completion-index", "absent", Text(parse::index));

    /// metadata.name of the pod (downward API)
    POD_NAME: Setting<String> = setting("POD_NAME", "pod-name", "required", Text(parse::dns_name));

    /// metadata.namespace of the pod (downward API)
    POD_NAMESPACE: Setting<String> = setting(
        "POD_NAMESPACE", "pod-namespace", "required in a pod; elsewhere the context's namespace",
        Text(parse::dns_name)
    );

    /// metadata.uid of the pod (downward API)
    POD_UID: Setting<String> = setting(
        "POD_UID", "pod-uid",
        "required in a pod; elsewhere the UID of the pod that podbeat finds first",
        Text(parse::printable)
    );

    /// number of the Job's retries before this pod; sent as jobRetryCount
    JOB_RETRY_COUNT: Setting<i32> = setting(
        "JOB_RETRY_COUNT", "job-retry-count",
        "the annotation batch.kubernetes.io/job-index-failure-count, or the number of the Job's \
         pods that failed before this pod",
        Text(parse::count)
    );

    /// free text about the hardware; sent as podHardwareDetails
    POD_HARDWARE_DETAILS: Setting<String> = setting(
        "POD_HARDWARE_DETAILS", "pod-hardware-details",
        "node, instance type, zone, GPU model, devices and claims, as far as the pod shows them",
        Raw(parse::utf8)
    );

    /// base URL of the task-run service; must be https, unless the host is loopback or
    /// PODBEAT_ALLOW_HTTP is true
    SERVICE_URL: Setting<String> = setting(
        "PODBEAT_SERVICE_URL", "service-url", "required, except with --dry-run", Text(parse::text)
    );

    /// file with the bearer token; podbeat reads it again when it changes
    TOKEN_FILE: Setting<PathBuf> = path(
        "PODBEAT_TOKEN_FILE", "token-file",
        "this or PODBEAT_TOKEN is required, except with --dry-run"
    );

    /// the bearer token itself; prefer a file, because more users and programs can see flags and
    /// variables
    TOKEN: Setting<Secret> = secret(
        "PODBEAT_TOKEN", "token", "this or PODBEAT_TOKEN_FILE is required, except with --dry-run",
        Text(parse::header_text)
    );

    /// CA certificates to verify the service (PEM); they replace the system's roots
    CA_FILE: Setting<PathBuf> = path("PODBEAT_CA_FILE", "ca-file", "the system's roots");

    /// client certificate chain for mutual TLS with the service (PEM); requires
    /// PODBEAT_CLIENT_KEY_FILE
    CLIENT_CERT_FILE: Setting<PathBuf> =
        path("PODBEAT_CLIENT_CERT_FILE", "client-cert-file", "none");

    /// private key of the client certificate (PEM)
    CLIENT_KEY_FILE: Setting<PathBuf> = path("PODBEAT_CLIENT_KEY_FILE", "client-key-file", "none");

    /// nonce that the service issued when the run was checked out; sent in each heartbeat
    NONCE: Setting<Secret> =
        secret("PODBEAT_NONCE", "nonce", "a random nonce for each heartbeat", Text(parse::nonce));

    /// file with that nonce; podbeat reads it once, at the start
    NONCE_FILE: Setting<PathBuf> = path("PODBEAT_NONCE_FILE", "nonce-file", "none");

    /// time between heartbeats if nothing changes, with ±10 % jitter
    INTERVAL: Setting<Duration, Duration> =
        duration("PODBEAT_INTERVAL", "interval", secs(30), bounds(millis(100), secs(3600)));

    /// timeout of one attempt
    TIMEOUT: Setting<Duration, Duration> =
        duration("PODBEAT_TIMEOUT", "timeout", secs(10), TIMEOUTS);

    /// name of podbeat's own container; podbeat does not report it
    CONTAINER_NAME: Setting<ContainerName, ContainerName> = valued(
        "PODBEAT_CONTAINER_NAME", "container-name", ContainerName::PODBEAT, PODBEAT,
        Text(parse::container_name)
    );

    /// names of the regular containers of the task, comma-separated: podbeat sends the last
    /// heartbeat when these have ended; the pod's annotation podbeat.dev/task-containers takes
    /// precedence
    TASK_CONTAINERS: Setting<Vec<ContainerName>> = setting(
        "PODBEAT_TASK_CONTAINERS", "task-containers", "all regular containers except podbeat's",
        Text(parse::container_names)
    );

    /// names of regular containers that do not belong to the task, comma-separated, such as a
    /// service mesh proxy that never ends; the pod's annotation podbeat.dev/ignored-containers
    /// takes precedence
    IGNORED_CONTAINERS: Setting<Vec<ContainerName>> = setting(
        "PODBEAT_IGNORED_CONTAINERS", "ignored-containers", "none", Text(parse::container_names)
    );

    /// which containers to report; task: regular containers; all: also init containers and other
    /// sidecars
    REPORT: Setting<Report, Report> =
        valued("PODBEAT_REPORT", "report", Report::Task, Report::Task.name(), Text(parse::report));

    /// directory (emptyDir) for the journal, which lets podbeat resume after a restart; only
    /// podbeat's container may use it
    STATE_DIR: Setting<PathBuf> = path("PODBEAT_STATE_DIR", "state-dir", "none");

    /// directory (emptyDir) of exit markers, written by `podbeat exec` or by the task's own
    /// wrapper; mount it read-only in podbeat's container
    MARKER_DIR: Setting<PathBuf> = path("PODBEAT_MARKER_DIR", "marker-dir", "none");

    /// file to which podbeat writes a token that the service renewed, for the task's containers
    RENEWED_TOKEN_FILE: Setting<PathBuf> =
        path("PODBEAT_RENEWED_TOKEN_FILE", "renewed-token-file", "none");

    /// address and port for /livez, /readyz, /startupz, /metrics and /status, without TLS or
    /// authentication: 0.0.0.0:9808 for the kubelet and scrapers over IPv4, [::]:9808 for IPv4 and
    /// IPv6, 127.0.0.1:9808 for the pod only
    LISTEN: Setting<SocketAddr> = setting("PODBEAT_LISTEN", "listen", "off", Text(parse::address));

    /// heartbeats omit container states that the Kubernetes API has not confirmed for this long
    MAX_STATUS_AGE: Setting<Duration, Duration> = duration(
        "PODBEAT_MAX_STATUS_AGE", "max-status-age", secs(300), bounds(secs(1), Duration::MAX)
    );

    /// maximum random wait before podbeat reconnects to the Kubernetes API, so that the copies in
    /// a cluster do not reconnect together; the first attempt after a watch broke off waits at
    /// most a ninth of it; SIGTERM ends the wait
    RECONNECT_SPREAD: Setting<Duration, Duration> = duration(
        "PODBEAT_RECONNECT_SPREAD", "reconnect-spread", SPREAD, bounds(Duration::ZERO, secs(600))
    );

    /// log level, or comma-separated target=level pairs; levels: error, warn, info, debug, trace,
    /// off
    LOG: Setting<String, &'static str> =
        valued("PODBEAT_LOG", "log", INFO, INFO, Text(parse::text));

    /// log format: json or text
    LOG_FORMAT: Setting<LogFormat> = setting(
        "PODBEAT_LOG_FORMAT", "log-format", "json in a pod, text elsewhere",
        Text(parse::log_format)
    );

    /// trace for the heartbeats, as a W3C traceparent from the creator of the pod; podbeat ignores
    /// an invalid value with a warning
    TRACEPARENT: Setting<OsString> =
        setting("TRACEPARENT", "traceparent", "a new trace, not sampled", Raw(Ok));

    /// allow plain HTTP to a host other than loopback; this sends the token unencrypted
    ALLOW_HTTP: Setting<bool, bool> = switch("PODBEAT_ALLOW_HTTP", "allow-http");

    /// log each heartbeat instead of sending it
    DRY_RUN: Setting<bool, bool> = switch("PODBEAT_DRY_RUN", "dry-run");

    /// directory with the service account's token and ca.crt
    SERVICE_ACCOUNT_DIR: Setting<PathBuf, &'static str> = valued(
        "PODBEAT_SERVICE_ACCOUNT_DIR", "service-account-dir", SERVICE_ACCOUNT, SERVICE_ACCOUNT,
        Raw(parse::path)
    );

    /// kubeconfig file, or a list of files, as for kubectl; if set, podbeat uses it in a pod, too;
    /// only in the laptop build
    KUBECONFIG: Setting<PathBuf> =
        path("KUBECONFIG", "kubeconfig", "none in a pod; ~/.kube/config elsewhere");

    /// context in the kubeconfig; only in the laptop build
    KUBE_CONTEXT: Setting<String> =
        setting("PODBEAT_KUBE_CONTEXT", "context", "the current context", Raw(parse::utf8));
}

settings! {
    /// Settings that the agent does not read, and variables that it reads but documents elsewhere.
    OTHERS:

    /// timeout of one request
    REQUEST_TIMEOUT: Setting<Duration, Duration> =
        duration("PODBEAT_TIMEOUT", "request-timeout", secs(30), TIMEOUTS);

    /// name of the container that runs the command
    EXEC_CONTAINER_NAME: Setting<ContainerName> = setting(
        "PODBEAT_CONTAINER_NAME", "container-name", "required", Text(parse::container_name)
    );

    /// profile with the settings of the service; flags and variables take precedence
    PROFILE: Setting<String> =
        setting("PODBEAT_PROFILE", "profile", "the default in the file", Text(parse::text));

    /// file with the profiles
    PROFILES_FILE: Setting<PathBuf> =
        path("PODBEAT_CONFIG", "config", "podbeat/config.yaml in $XDG_CONFIG_HOME or ~/.config");

    /// the shell that asks for completions; it sets this itself
    COMPLETE: Setting<String> = setting("PODBEAT_COMPLETE", "", "none", Text(parse::text));

    /// the API server's host, from the kubelet
    KUBERNETES_SERVICE_HOST: Setting<String> =
        setting("KUBERNETES_SERVICE_HOST", "", "none", Raw(parse::utf8));

    /// the API server's port, from the kubelet
    KUBERNETES_SERVICE_PORT: Setting<u16, u16> =
        valued("KUBERNETES_SERVICE_PORT", "", 443, "443", Text(parse::port));
}

/// How a command reaches the task-run service: all settings of `podbeat runs`, and the first ones
/// of `podbeat reap`.
pub static SERVICE_SETTINGS: &[Row] = &[
    SERVICE_URL.row.with_default("required"),
    TOKEN_FILE
        .row
        .with_default("this or PODBEAT_TOKEN is required")
        .with_meaning("file with the bearer token; podbeat reads it again for each request"),
    TOKEN
        .row
        .with_default("this or PODBEAT_TOKEN_FILE is required"),
    CA_FILE.row,
    CLIENT_CERT_FILE.row,
    CLIENT_KEY_FILE.row,
    REQUEST_TIMEOUT.row,
    ALLOW_HTTP.row,
];

/// A duration in seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A duration in milliseconds.
#[must_use]
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

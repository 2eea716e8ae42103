//! The settings: read once, checked all together, typed.
//!
//! Each has a variable and a flag; the flag wins, and a value that is empty or white space counts
//! as unset. [`SETTINGS`] is the one table from which the help texts and `docs/configuration.md`
//! are made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_files::trimmed;
use podbeat_heartbeat::marker::is_container_name;
use podbeat_http_client::route::{self, PlainHttp, Proxies, Route};
use podbeat_task_runs::Secret;
use podbeat_task_runs::trace::{self, TraceParent};
use tracing_subscriber::filter::{LevelFilter, Targets};
use url::Url;

use crate::indexed;

/// One setting, as users see it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// The default, or what makes it required.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Whether the flag takes no value.
    pub switch: bool,
}

const fn setting(
    variable: &'static str,
    flag: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting {
        variable,
        flag,
        default,
        meaning,
        secret: false,
        switch: false,
    }
}

const fn secret(setting: Setting) -> Setting {
    Setting {
        secret: true,
        ..setting
    }
}

const fn switch(setting: Setting) -> Setting {
    Setting {
        switch: true,
        ..setting
    }
}

const CA_FILE: Setting = setting(
    "PODBEAT_CA_FILE",
    "ca-file",
    "the system's roots",
    "CA certificates to verify the service (PEM); they replace the system's roots",
);

const CLIENT_CERT_FILE: Setting = setting(
    "PODBEAT_CLIENT_CERT_FILE",
    "client-cert-file",
    "none",
    "client certificate chain for mutual TLS with the service (PEM); requires PODBEAT_CLIENT_KEY_FILE",
);

const CLIENT_KEY_FILE: Setting = setting(
    "PODBEAT_CLIENT_KEY_FILE",
    "client-key-file",
    "none",
    "private key of the client certificate (PEM)",
);

const ALLOW_HTTP: Setting = switch(setting(
    "PODBEAT_ALLOW_HTTP",
    "allow-http",
    "false",
    "allow plain HTTP to a host other than loopback; this sends the token unencrypted",
));

const JOB_RETRY_COUNT: Setting = setting(
    "JOB_RETRY_COUNT",
    "job-retry-count",
    "the annotation batch.kubernetes.io/job-index-failure-count, or the number of the Job's pods that failed before this pod",
    "number of the Job's retries before this pod; sent as jobRetryCount",
);

const INTERVAL: Setting = setting(
    "PODBEAT_INTERVAL",
    "interval",
    "30s",
    "time between heartbeats if nothing changes, with ±10 % jitter; 100ms to 1h",
);

const CONTAINER_NAME: Setting = setting(
    "PODBEAT_CONTAINER_NAME",
    "container-name",
    "podbeat",
    "name of podbeat's own container; podbeat does not report it",
);

const TASK_CONTAINERS: Setting = setting(
    "PODBEAT_TASK_CONTAINERS",
    "task-containers",
    "all regular containers except podbeat's",
    "names of the regular containers of the task, comma-separated: podbeat sends the last heartbeat when these have ended; \
     the pod's annotation podbeat.dev/task-containers takes precedence",
);

const IGNORED_CONTAINERS: Setting = setting(
    "PODBEAT_IGNORED_CONTAINERS",
    "ignored-containers",
    "none",
    "names of regular containers that do not belong to the task, comma-separated, such as a service mesh proxy that never \
     ends; the pod's annotation podbeat.dev/ignored-containers takes precedence",
);

const REPORT: Setting = setting(
    "PODBEAT_REPORT",
    "report",
    "task",
    "which containers to report; task: regular containers; all: also init containers and other sidecars",
);

const MAX_STATUS_AGE: Setting = setting(
    "PODBEAT_MAX_STATUS_AGE",
    "max-status-age",
    "5m",
    "heartbeats omit container states that the Kubernetes API has not confirmed for this long; at least 1s",
);

const KUBECONFIG: Setting = setting(
    "KUBECONFIG",
    "kubeconfig",
    "none in a pod; ~/.kube/config elsewhere",
    "kubeconfig file, or a list of files, as for kubectl; if set, podbeat uses it in a pod, too; only in the laptop build",
);

const KUBE_CONTEXT: Setting = setting(
    "PODBEAT_KUBE_CONTEXT",
    "context",
    "the current context",
    "context in the kubeconfig; only in the laptop build",
);

/// For one attempt of the agent's, unless it is told otherwise.
pub const DEFAULT_TIMEOUT: Duration = secs(10);

/// Every setting of the agent, in the order of the documents.
pub const SETTINGS: &[Setting] = &[
    setting(
        "TASK_RUN_ID",
        "task-run-id",
        "required",
        "ID of the run that this pod executes; podbeat replaces {index} with JOB_COMPLETION_INDEX",
    ),
    setting(
        "JOB_COMPLETION_INDEX",
        "job-completion-index",
        "absent",
        "the pod's index in its Indexed Job: the annotation batch.kubernetes.io/job-completion-index (downward API)",
    ),
    setting(
        "POD_NAME",
        "pod-name",
        "required",
        "metadata.name of the pod (downward API)",
    ),
    setting(
        "POD_NAMESPACE",
        "pod-namespace",
        "required in a pod; elsewhere the context's namespace",
        "metadata.namespace of the pod (downward API)",
    ),
    setting(
        "POD_UID",
        "pod-uid",
        "required in a pod; elsewhere the UID of the pod that podbeat finds first",
        "metadata.uid of the pod (downward API)",
    ),
    JOB_RETRY_COUNT,
    setting(
        "POD_HARDWARE_DETAILS",
        "pod-hardware-details",
        "node name, instance type and devices, if the pod shows them",
        "free text about the hardware; sent as podHardwareDetails",
    ),
    setting(
        "PODBEAT_SERVICE_URL",
        "service-url",
        "required, except with --dry-run",
        "base URL of the task-run service; must be https, unless the host is loopback or PODBEAT_ALLOW_HTTP is true",
    ),
    setting(
        "PODBEAT_TOKEN_FILE",
        "token-file",
        "this or PODBEAT_TOKEN is required, except with --dry-run",
        "file with the bearer token; podbeat reads it again when it changes",
    ),
    secret(setting(
        "PODBEAT_TOKEN",
        "token",
        "this or PODBEAT_TOKEN_FILE is required, except with --dry-run",
        "the bearer token itself; prefer a file, because more users and programs can see flags and variables",
    )),
    CA_FILE,
    CLIENT_CERT_FILE,
    CLIENT_KEY_FILE,
    secret(setting(
        "PODBEAT_NONCE",
        "nonce",
        "a random nonce for each heartbeat",
        "nonce that the service issued when the run was checked out; sent in each heartbeat",
    )),
    setting(
        "PODBEAT_NONCE_FILE",
        "nonce-file",
        "none",
        "file with that nonce; podbeat reads it once, at the start",
    ),
    INTERVAL,
    setting(
        "PODBEAT_TIMEOUT",
        "timeout",
        "10s",
        "timeout of one attempt; 100ms to 5m",
    ),
    CONTAINER_NAME,
    TASK_CONTAINERS,
    IGNORED_CONTAINERS,
    REPORT,
    setting(
        "PODBEAT_STATE_DIR",
        "state-dir",
        "none",
        "directory (emptyDir) for the journal, which lets podbeat resume after a restart; only podbeat's container may use it",
    ),
    setting(
        "PODBEAT_MARKER_DIR",
        "marker-dir",
        "none",
        "directory (emptyDir) of exit markers, written by `podbeat exec` or by the task's own wrapper; mount it read-only in \
         podbeat's container",
    ),
    setting(
        "PODBEAT_RENEWED_TOKEN_FILE",
        "renewed-token-file",
        "none",
        "file to which podbeat writes a token that the service renewed, for the task's containers",
    ),
    setting(
        "PODBEAT_LISTEN",
        "listen",
        "off",
        "address and port for /livez, /readyz, /startupz, /metrics and /status, without TLS or authentication: 0.0.0.0:9808 for \
         the kubelet and scrapers over IPv4, [::]:9808 for IPv4 and IPv6, 127.0.0.1:9808 for the pod only",
    ),
    MAX_STATUS_AGE,
    setting(
        "PODBEAT_RECONNECT_SPREAD",
        "reconnect-spread",
        "35s",
        "spreads reconnects to the Kubernetes API, so that the cluster's copies of podbeat do not all reconnect at once: after a \
         watch breaks off, podbeat reopens it within a ninth of this time; if that fails, after a random wait up to this time; \
         SIGTERM ends the wait; 0s to 10m",
    ),
    setting(
        "PODBEAT_LOG",
        "log",
        "info",
        "log level, or comma-separated target=level pairs; levels: error, warn, info, debug, trace, off",
    ),
    setting(
        "PODBEAT_LOG_FORMAT",
        "log-format",
        "json in a pod, text elsewhere",
        "log format: json or text",
    ),
    setting(
        "TRACEPARENT",
        "traceparent",
        "a new trace, not sampled",
        "trace for the heartbeats, as a W3C traceparent from the creator of the pod; podbeat ignores an invalid value with a \
         warning",
    ),
    ALLOW_HTTP,
    switch(setting(
        "PODBEAT_DRY_RUN",
        "dry-run",
        "false",
        "log each heartbeat instead of sending it",
    )),
    SERVICE_ACCOUNT_DIR,
    KUBECONFIG,
    KUBE_CONTEXT,
];

/// Every setting of `podbeat exec`. The names are the agent's, the container is the command's own.
pub const EXEC_SETTINGS: &[Setting] = &[
    setting(
        "PODBEAT_CONTAINER_NAME",
        "container-name",
        "required",
        "name of the container that runs the command",
    ),
    setting(
        "PODBEAT_MARKER_DIR",
        "marker-dir",
        "required",
        "directory (emptyDir) for the exit marker",
    ),
];

/// How a command reaches the task-run service: all settings of `podbeat runs`, and the first ones of `podbeat reap`. The names
/// are the agent's, and so are the values that suit it.
pub const SERVICE_SETTINGS: &[Setting] = &[
    setting(
        "PODBEAT_SERVICE_URL",
        "service-url",
        "required",
        "base URL of the task-run service; must be https, unless the host is loopback or PODBEAT_ALLOW_HTTP is true",
    ),
    setting(
        "PODBEAT_TOKEN_FILE",
        "token-file",
        "this or PODBEAT_TOKEN is required",
        "file with the bearer token; podbeat reads it again for each request",
    ),
    secret(setting(
        "PODBEAT_TOKEN",
        "token",
        "this or PODBEAT_TOKEN_FILE is required",
        "the bearer token itself; prefer a file, because more users and programs can see flags and variables",
    )),
    CA_FILE,
    CLIENT_CERT_FILE,
    CLIENT_KEY_FILE,
    setting(
        "PODBEAT_TIMEOUT",
        "request-timeout",
        "30s",
        "timeout of one request; 100ms to 5m",
    ),
    ALLOW_HTTP,
];

/// The settings that choose a profile, for commands that people run. The agent has none of them.
#[cfg(feature = "laptop")]
pub const PROFILE_SETTINGS: &[Setting] = &[
    setting(
        "PODBEAT_PROFILE",
        "profile",
        "the default in the file",
        "profile with the settings of the service; flags and variables take precedence",
    ),
    setting(
        "PODBEAT_CONFIG",
        "config",
        "podbeat/config.yaml in $XDG_CONFIG_HOME or ~/.config",
        "file with the profiles",
    ),
];

const SERVICE_ACCOUNT_DIR: Setting = setting(
    "PODBEAT_SERVICE_ACCOUNT_DIR",
    "service-account-dir",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "directory with the service account's token and ca.crt",
);

/// The settings of `podbeat reap` beside [`SERVICE_SETTINGS`].
pub const REAP_SETTINGS: &[Setting] = &[
    setting(
        "POD_NAMESPACE",
        "namespace",
        "required in a pod; elsewhere the context's namespace",
        "namespace of the pods",
    ),
    setting(
        "PODBEAT_CONTAINER_NAME",
        "container-name",
        "podbeat",
        "name of podbeat's container in the pods",
    ),
    setting(
        "PODBEAT_TASK_CONTAINERS",
        "task-containers",
        "all regular containers except podbeat's",
        "names of the regular containers of the task, comma-separated; the pod's own setting and its annotation \
         podbeat.dev/task-containers take precedence",
    ),
    setting(
        "PODBEAT_IGNORED_CONTAINERS",
        "ignored-containers",
        "none",
        "names of regular containers that do not belong to the task, comma-separated; the pod's own setting and its annotation \
         podbeat.dev/ignored-containers take precedence",
    ),
    setting(
        "PODBEAT_REPORT",
        "report",
        "task",
        "which containers to report; task: regular containers; all: also init containers and other sidecars; the pod's own \
         setting takes precedence",
    ),
    setting(
        "PODBEAT_NONCE_FILE",
        "nonce-file",
        "a nonce derived from the pod's UID",
        "file with the nonce that the service issued for the run; the pod's own PODBEAT_NONCE takes precedence",
    ),
    SERVICE_ACCOUNT_DIR,
    KUBECONFIG,
    KUBE_CONTEXT,
];

/// Every setting of `podbeat observe`. The variables are the agent's, the flags of the cluster are kubectl's.
#[cfg(feature = "laptop")]
pub const OBSERVE_SETTINGS: &[Setting] = &[
    setting(
        "POD_NAMESPACE",
        "namespace",
        "the context's namespace",
        "namespace of the pod",
    ),
    KUBECONFIG,
    KUBE_CONTEXT,
    INTERVAL,
    REPORT,
    CONTAINER_NAME,
    TASK_CONTAINERS,
    IGNORED_CONTAINERS,
    JOB_RETRY_COUNT,
    MAX_STATUS_AGE,
];

/// Reads environment variables. A trait, so that tests pass a map.
pub trait Environment {
    /// The variable's value, if it is set.
    fn get(&self, variable: &str) -> Option<OsString>;

    /// The profile that gives what no variable gives, and its file, in words.
    #[cfg(feature = "laptop")]
    fn profile(&self) -> Option<String> {
        None
    }
}

/// The environment of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    fn get(&self, variable: &str) -> Option<OsString> {
        std::env::var_os(variable)
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, variable: &str) -> Option<OsString> {
        self.get(variable).map(OsString::from)
    }
}

/// Values of flags, by the variable that each stands for.
#[derive(Clone, Default)]
pub struct Flags(pub BTreeMap<&'static str, OsString>);

/// The agent's settings, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The run; the index has taken its place in it.
    pub task_run_id: String,
    /// The pod's index in its Indexed Job.
    pub job_completion_index: Option<u32>,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace; `None` for the kubeconfig's own.
    pub pod_namespace: Option<String>,
    /// The pod's UID; `None` if it is to be learned.
    pub pod_uid: Option<String>,
    /// Sent as jobRetryCount; not negative.
    pub job_retry_count: Option<i32>,
    /// Sent as podHardwareDetails.
    pub pod_hardware_details: Option<String>,
    /// The service; `None` only in a dry run.
    pub service_url: Option<ServiceUrl>,
    /// The token's source; `None` only in a dry run.
    pub token: Option<TokenSource>,
    /// More roots for the service.
    pub ca_file: Option<PathBuf>,
    /// For mutual TLS; set together with the key.
    pub client_cert_file: Option<PathBuf>,
    /// For mutual TLS; set together with the certificate.
    pub client_key_file: Option<PathBuf>,
    /// The service's nonce.
    pub nonce: Option<NonceSource>,
    /// Between heartbeats; 100 ms to 1 h.
    pub interval: Duration,
    /// For one attempt; 100 ms to 5 min.
    pub timeout: Duration,
    /// Our own container.
    pub container_name: String,
    /// The regular containers that are the task's; empty for all but those that are ignored.
    pub task_containers: Vec<String>,
    /// Regular containers that are not the task's.
    pub ignored_containers: Vec<String>,
    /// Which containers are reported.
    pub report: Report,
    /// Directory of the journal.
    pub state_dir: Option<PathBuf>,
    /// Directory of exit markers.
    pub marker_dir: Option<PathBuf>,
    /// Where a renewed token is handed on.
    pub renewed_token_file: Option<PathBuf>,
    /// Address of the admin endpoint.
    pub listen: Option<SocketAddr>,
    /// How long states that nobody confirms are still sent; at least 1 s.
    pub max_status_age: Duration,
    /// How widely reconnects to the Kubernetes API are spread; up to 10 min.
    pub reconnect_spread: Duration,
    /// Which events are logged.
    pub log: Targets,
    /// How they are written.
    pub log_format: LogFormat,
    /// Whether a terminal may be shown colours: not with `NO_COLOR` (<https://no-color.org>).
    pub colours: bool,
    /// In which trace heartbeats are sent.
    pub trace: Trace,
    /// Nothing is sent.
    pub dry_run: bool,
    /// How the Kubernetes API is reached.
    pub kubernetes: Kubernetes,
    /// By which proxies.
    pub proxies: Proxies,
}

/// The settings of `podbeat exec`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecConfig {
    /// The container in which the command runs: a DNS label.
    pub container_name: String,
    /// Directory of exit markers. Whether it is there is seen when it is used.
    pub marker_dir: PathBuf,
}

/// How a command reaches the task-run service, checked.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// The service.
    pub service_url: ServiceUrl,
    /// The token's source.
    pub token: TokenSource,
    /// More roots for the service.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// For one request; 100 ms to 5 min.
    pub timeout: Duration,
}

/// The settings of `podbeat reap`, checked.
#[derive(Clone, Debug)]
pub struct ReapConfig {
    /// How the service is reached.
    pub service: ServiceConfig,
    /// The pods' namespace; `None` for the kubeconfig's own.
    pub namespace: Option<String>,
    /// How the Kubernetes API is reached.
    pub kubernetes: Kubernetes,
    /// By which proxies.
    pub proxies: Proxies,
    /// Podbeat's container in the pods.
    pub container_name: String,
    /// The regular containers that are the task's; empty for all but those that are ignored.
    pub task_containers: Vec<String>,
    /// Regular containers that are not the task's.
    pub ignored_containers: Vec<String>,
    /// Which containers are reported.
    pub report: Report,
    /// File with the nonce.
    pub nonce_file: Option<PathBuf>,
}

/// The settings of `podbeat observe`, checked.
#[cfg(feature = "laptop")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObserveConfig {
    /// The pod's namespace; `None` for the kubeconfig's own.
    pub namespace: Option<String>,
    /// How the Kubernetes API is reached.
    pub kubernetes: Kubernetes,
    /// By which proxies.
    pub proxies: Proxies,
    /// Between heartbeats; 100 ms to 1 h.
    pub interval: Duration,
    /// Which containers are reported.
    pub report: Report,
    /// podbeat's own container.
    pub container_name: String,
    /// The regular containers that are the task's; empty for all but those that are ignored.
    pub task_containers: Vec<String>,
    /// Regular containers that are not the task's.
    pub ignored_containers: Vec<String>,
    /// Sent as jobRetryCount; not negative.
    pub job_retry_count: Option<i32>,
    /// How long states that nobody confirms are still sent; at least 1 s.
    pub max_status_age: Duration,
    /// What may be shown on a terminal.
    pub terminal: Terminal,
}

/// What the environment says of the terminal.
#[cfg(feature = "laptop")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Whether it can place text where it wants: `TERM` names a terminal, and not `dumb`.
    pub draws: bool,
    /// Whether colours are wanted: `NO_COLOR` is unset or empty (no-color.org).
    pub colours: bool,
}

#[cfg(feature = "laptop")]
impl Terminal {
    /// Reads what the environment says.
    #[must_use]
    pub fn load(environment: &impl Environment) -> Self {
        let set = |variable| environment.get(variable).filter(|value| !value.is_empty());
        Self {
            draws: set("TERM").is_some_and(|term| term != "dumb"),
            colours: set("NO_COLOR").is_none(),
        }
    }
}

/// The service's base URL, and the way there: https or allowed http, without credentials, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(Route);

impl ServiceUrl {
    /// The way to it.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.0
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.url().fmt(f)
    }
}

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// A file.
    File(PathBuf),
    /// The settings themselves.
    Inline(Secret),
}

/// Where the nonce comes from.
#[derive(Clone, Debug)]
pub enum NonceSource {
    /// A file.
    File(PathBuf),
    /// The settings themselves.
    Inline(Secret),
}

/// Which containers are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Regular containers.
    Task,
    /// Init containers and other sidecars too.
    All,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For eyes.
    Text,
}

/// In which trace heartbeats are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// One of its own.
    New,
    /// That of whoever made the pod.
    GoOn(TraceParent),
    /// What was given is none. The standard says to begin a new one then; no run fails for it.
    Unfit(trace::Unfit),
}

/// How the Kubernetes API is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kubernetes {
    /// As from a pod.
    InCluster {
        /// `KUBERNETES_SERVICE_HOST`.
        host: String,
        /// `KUBERNETES_SERVICE_PORT`.
        port: u16,
        /// Holds `token` and `ca.crt`.
        service_account_dir: PathBuf,
    },
    /// As from a laptop.
    Kubeconfig {
        /// The file; `None` for the default one.
        path: Option<PathBuf>,
        /// The context; `None` for the current one.
        context: Option<String>,
    },
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Errors(Vec<Fault>);

/// One setting that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its variable.
    pub variable: &'static str,
    /// Its flag, without its dashes; empty if it has none.
    pub flag: &'static str,
    /// What is wrong, and what to do about it. No value of a secret is part of it.
    pub problem: String,
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, verb) = match self.0.len() {
            1 => ("one setting".to_owned(), "is"),
            count => (format!("{count} settings"), "are"),
        };
        write!(f, "{count} {verb} missing or invalid:")?;
        for fault in &self.0 {
            match fault.flag {
                "" => write!(f, "\n  {}: {}", fault.variable, fault.problem)?,
                flag => write!(f, "\n  {} (--{flag}): {}", fault.variable, fault.problem)?,
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads and checks every setting.
    ///
    /// # Errors
    /// All that are missing or malformed, by name, together. No value of a secret is part of it.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(SETTINGS, flags, environment);
        let config = Self::read(&mut read);
        read.done(config)
    }

    /// Every setting that is well-formed. In the place of one that isn't stands its default, or nothing.
    fn read(read: &mut Reader<'_, impl Environment>) -> Self {
        let host = read.text("KUBERNETES_SERVICE_HOST");
        let in_pod = host.is_some();
        let dry_run = read.switch("PODBEAT_DRY_RUN");

        let index = read.optional("JOB_COMPLETION_INDEX", |text| {
            text.parse().map_err(|_| "must be a whole number".to_owned())
        });
        let task_run_id = read.required(
            "TASK_RUN_ID",
            "the ID of the run that this pod executes",
            |text| run_id(text, index),
        );
        let pod_name = read.required(
            "POD_NAME",
            "the pod's name, from the downward API (metadata.name)",
            dns_name,
        );
        let pod_namespace = read.required_if(
            in_pod,
            "POD_NAMESPACE",
            "the pod's namespace, from the downward API (metadata.namespace)",
            dns_name,
        );
        let pod_uid = read.required_if(
            in_pod,
            "POD_UID",
            "the pod's UID, from the downward API (metadata.uid)",
            printable,
        );
        let service_url = read.service_url(!dry_run);
        let token = read.token(dry_run);
        let (client_cert_file, client_key_file) = read.identity();
        let kubernetes = read.kubernetes(host);
        let log_format = read.optional("PODBEAT_LOG_FORMAT", |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("must be json or text".to_owned()),
        });
        let (task_containers, ignored_containers) = read.task_containers();
        Self {
            // Empty only if missing or malformed, and then there is a fault.
            task_run_id: task_run_id.unwrap_or_default(),
            job_completion_index: index,
            pod_name: pod_name.unwrap_or_default(),
            pod_namespace,
            pod_uid,
            job_retry_count: read.job_retry_count(),
            pod_hardware_details: read.text("POD_HARDWARE_DETAILS"),
            service_url,
            token,
            ca_file: read.path("PODBEAT_CA_FILE"),
            client_cert_file,
            client_key_file,
            nonce: read.nonce(),
            interval: read.interval(),
            timeout: read.duration("PODBEAT_TIMEOUT", DEFAULT_TIMEOUT, millis(100), secs(300)),
            container_name: read.own_container(),
            task_containers,
            ignored_containers,
            report: read.report(),
            state_dir: read.path("PODBEAT_STATE_DIR"),
            marker_dir: read.path("PODBEAT_MARKER_DIR"),
            renewed_token_file: read.path("PODBEAT_RENEWED_TOKEN_FILE"),
            listen: read.optional("PODBEAT_LISTEN", |text| {
                text.parse()
                    .map_err(|_| "must be an address and port, such as 0.0.0.0:9808 or [::]:9808".to_owned())
            }),
            max_status_age: read.max_status_age(),
            reconnect_spread: read.duration("PODBEAT_RECONNECT_SPREAD", secs(35), Duration::ZERO, secs(600)),
            log: read
                .optional("PODBEAT_LOG", log_filter)
                .unwrap_or_else(|| Targets::new().with_default(tracing::Level::INFO)),
            log_format: log_format.unwrap_or(if in_pod { LogFormat::Json } else { LogFormat::Text }),
            colours: read.raw("NO_COLOR").is_none(),
            trace: read.trace(),
            dry_run,
            kubernetes,
            proxies: read.proxies(),
        }
    }
}

/// The agent's settings as far as they are well-formed, for `podbeat check`.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The settings. In the place of one that is missing or malformed stands its default, or nothing: an empty text, or `None`.
    pub config: Config,
    /// All that is missing or malformed, in the order of the documents.
    pub faults: Vec<Fault>,
    /// The profile that is used, and its file, in words.
    #[cfg(feature = "laptop")]
    pub profile: Option<String>,
}

impl Partial {
    /// Reads and checks every setting of the agent.
    #[must_use]
    pub fn load(flags: &Flags, environment: &impl Environment) -> Self {
        let settings = check_settings();
        let mut read = Reader::new(&settings, flags, environment);
        let config = Config::read(&mut read);
        let Errors(faults) = read.errors();
        Self {
            config,
            faults,
            #[cfg(feature = "laptop")]
            profile: environment.profile(),
        }
    }

    /// Whether something is wrong with this setting.
    #[must_use]
    pub fn is_wrong(&self, variable: &str) -> bool {
        self.faults.iter().any(|fault| fault.variable == variable)
    }
}

/// Every setting of `podbeat check`: the agent's. Its `--timeout` is that of one check, and the agent's is spelt as in `podbeat
/// runs`.
#[must_use]
pub fn check_settings() -> Vec<Setting> {
    let flag = |setting: &Setting| match setting.flag {
        "timeout" => "request-timeout",
        flag => flag,
    };
    let settings = SETTINGS.iter().map(|setting| Setting {
        flag: flag(setting),
        ..*setting
    });
    settings.collect()
}

impl ExecConfig {
    /// Reads and checks the settings of `podbeat exec`.
    ///
    /// # Errors
    /// All that are missing or malformed, by name, together.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(EXEC_SETTINGS, flags, environment);
        let container_name = read.required(
            "PODBEAT_CONTAINER_NAME",
            "the name of the container that runs the command",
            container_name,
        );
        let marker_dir = read.path("PODBEAT_MARKER_DIR");
        if marker_dir.is_none() {
            read.fault(
                "PODBEAT_MARKER_DIR",
                "missing; set it to the directory (emptyDir) for the exit marker",
            );
        }
        let config = Self {
            container_name: container_name.unwrap_or_default(),
            marker_dir: marker_dir.unwrap_or_default(),
        };
        read.done(config)
    }
}

impl ServiceConfig {
    /// Reads and checks the settings of `podbeat runs`.
    ///
    /// # Errors
    /// All that are missing or malformed, by name, together. No value of a secret is part of it.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(SERVICE_SETTINGS, flags, environment);
        match read.service() {
            Some(config) => read.done(config),
            // What is missing is among the faults.
            None => Err(read.errors()),
        }
    }
}

impl ReapConfig {
    /// Reads and checks the settings of `podbeat reap`.
    ///
    /// # Errors
    /// All that are missing or malformed, by name, together. No value of a secret is part of it.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let settings = [SERVICE_SETTINGS, REAP_SETTINGS].concat();
        let mut read = Reader::new(&settings, flags, environment);
        let service = read.service();
        let host = read.text("KUBERNETES_SERVICE_HOST");
        let namespace = read.required_if(
            host.is_some(),
            "POD_NAMESPACE",
            "the namespace of the pods, or this pod's namespace from the downward API (metadata.namespace)",
            dns_name,
        );
        let (kubernetes, proxies) = (read.kubernetes(host), read.proxies());
        let (container_name, report) = (read.own_container(), read.report());
        let (task_containers, ignored_containers) = read.task_containers();
        let nonce_file = read.path("PODBEAT_NONCE_FILE");
        match service {
            Some(service) => read.done(Self {
                service,
                namespace,
                kubernetes,
                proxies,
                container_name,
                task_containers,
                ignored_containers,
                report,
                nonce_file,
            }),
            // What is missing is among the faults.
            None => Err(read.errors()),
        }
    }
}

#[cfg(feature = "laptop")]
impl ObserveConfig {
    /// Reads and checks the settings of `podbeat observe`.
    ///
    /// # Errors
    /// All that are malformed, by name, together.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(OBSERVE_SETTINGS, flags, environment);
        let host = read.text("KUBERNETES_SERVICE_HOST");
        let (task_containers, ignored_containers) = read.task_containers();
        let config = Self {
            namespace: read.optional("POD_NAMESPACE", dns_name),
            kubernetes: read.kubernetes(host),
            proxies: read.proxies(),
            interval: read.interval(),
            report: read.report(),
            container_name: read.own_container(),
            task_containers,
            ignored_containers,
            job_retry_count: read.job_retry_count(),
            max_status_age: read.max_status_age(),
            terminal: Terminal::load(environment),
        };
        read.done(config)
    }
}

/// Reads settings and gathers what is wrong with them.
struct Reader<'read, E> {
    settings: &'read [Setting],
    flags: &'read Flags,
    environment: &'read E,
    faults: Vec<Fault>,
}

impl<'read, E: Environment> Reader<'read, E> {
    fn new(settings: &'read [Setting], flags: &'read Flags, environment: &'read E) -> Self {
        Self {
            settings,
            flags,
            environment,
            faults: Vec::new(),
        }
    }

    /// The settings if nothing is wrong with them, else all that is, in the order of the documents.
    fn done<T>(self, config: T) -> Result<T, Errors> {
        if self.faults.is_empty() {
            return Ok(config);
        }
        Err(self.errors())
    }

    fn errors(mut self) -> Errors {
        let place = |fault: &Fault| {
            self.settings
                .iter()
                .position(|setting| setting.variable == fault.variable)
        };
        self.faults.sort_by_key(place);
        Errors(self.faults)
    }

    fn setting(&self, variable: &'static str) -> Option<&'read Setting> {
        self.settings.iter().find(|setting| setting.variable == variable)
    }

    fn fault(&mut self, variable: &'static str, problem: impl Into<String>) {
        let flag = self.setting(variable).map_or("", |setting| setting.flag);
        self.faults.push(Fault {
            variable,
            flag,
            problem: problem.into(),
        });
    }

    fn raw(&self, variable: &'static str) -> Option<OsString> {
        let flag = self.flags.0.get(variable).cloned();
        flag.or_else(|| self.environment.get(variable))
            .filter(|value| !value.is_empty())
    }

    fn os(&self, variable: &'static str) -> Option<OsString> {
        self.raw(variable)
            .filter(|value| value.to_str().is_none_or(|text| !trimmed::text(text).is_empty()))
    }

    fn text(&mut self, variable: &'static str) -> Option<String> {
        let text = self.os(variable)?.into_string();
        if text.is_err() {
            self.fault(variable, "not valid UTF-8");
        }
        text.ok()
    }

    fn path(&self, variable: &'static str) -> Option<PathBuf> {
        self.os(variable).map(PathBuf::from)
    }

    /// A setting that may be absent. What is wrong with it is told with its value, unless that is a secret.
    fn optional<T>(
        &mut self,
        variable: &'static str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        match check(trimmed::text(&text)) {
            Ok(value) => Some(value),
            Err(problem) => {
                // A URL may carry a password before an @, or a key behind a ? or #.
                let hidden = text.contains(['@', '?', '#'])
                    || self.setting(variable).is_some_and(|setting| setting.secret);
                let shown = if hidden {
                    String::new()
                } else {
                    format!("; the value is {}", quoted(&text))
                };
                self.fault(variable, format!("{problem}{shown}"));
                None
            }
        }
    }

    fn required_if<T>(
        &mut self,
        required: bool,
        variable: &'static str,
        wanted: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if required && self.os(variable).is_none() {
            self.fault(variable, format!("missing; set it to {wanted}"));
            return None;
        }
        self.optional(variable, check)
    }

    fn required<T>(
        &mut self,
        variable: &'static str,
        wanted: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.required_if(true, variable, wanted, check)
    }

    fn switch(&mut self, variable: &'static str) -> bool {
        self.optional(variable, |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
        .unwrap_or(false)
    }

    fn duration(
        &mut self,
        variable: &'static str,
        default: Duration,
        least: Duration,
        most: Duration,
    ) -> Duration {
        self.optional(variable, |text| {
            let duration = humantime::parse_duration(text)
                .map_err(|_| "must be a duration such as 500ms, 30s or 2m".to_owned())?;
            if duration < least {
                return Err(format!("must be at least {}", humantime::format_duration(least)));
            }
            if duration > most {
                return Err(format!("must be at most {}", humantime::format_duration(most)));
            }
            Ok(duration)
        })
        .unwrap_or(default)
    }

    fn job_retry_count(&mut self) -> Option<i32> {
        self.optional("JOB_RETRY_COUNT", |text| match text.parse::<i32>() {
            Ok(count) if count >= 0 => Ok(count),
            Ok(_) | Err(_) => Err("must be a whole number from 0 to 2147483647".to_owned()),
        })
    }

    fn interval(&mut self) -> Duration {
        self.duration("PODBEAT_INTERVAL", secs(30), millis(100), secs(3600))
    }

    fn own_container(&mut self) -> String {
        self.optional("PODBEAT_CONTAINER_NAME", dns_name)
            .unwrap_or_else(|| "podbeat".to_owned())
    }

    /// Those that are the task's, and those that are not.
    fn task_containers(&mut self) -> (Vec<String>, Vec<String>) {
        let tasks = self.optional("PODBEAT_TASK_CONTAINERS", container_names);
        let ignored = self.optional("PODBEAT_IGNORED_CONTAINERS", container_names);
        if tasks.is_some() && ignored.is_some() {
            self.fault(
                "PODBEAT_IGNORED_CONTAINERS",
                "conflicts with PODBEAT_TASK_CONTAINERS; unset one of them",
            );
        }
        (tasks.unwrap_or_default(), ignored.unwrap_or_default())
    }

    fn report(&mut self) -> Report {
        self.optional("PODBEAT_REPORT", |text| match text {
            "task" => Ok(Report::Task),
            "all" => Ok(Report::All),
            _ => Err("must be task or all".to_owned()),
        })
        .unwrap_or(Report::Task)
    }

    fn max_status_age(&mut self) -> Duration {
        self.duration("PODBEAT_MAX_STATUS_AGE", secs(300), secs(1), Duration::MAX)
    }

    fn proxies(&self) -> Proxies {
        Proxies::read(|variable| self.environment.get(variable))
    }

    fn service_url(&mut self, required: bool) -> Option<ServiceUrl> {
        let allow_http = self.switch("PODBEAT_ALLOW_HTTP");
        let url = self.required_if(
            required,
            "PODBEAT_SERVICE_URL",
            "the base URL of the task-run service, such as https://ica.example.com",
            |text| service_url(text, allow_http),
        )?;
        let plain_http = match allow_http {
            true => PlainHttp::Anywhere,
            false => PlainHttp::Loopback,
        };
        match self.proxies().route(url, plain_http) {
            Ok(route) => Some(ServiceUrl(route)),
            Err(error) => {
                let (variable, problem) = match error {
                    route::Error::Proxy { named_by, problem } => (named_by, problem.to_string()),
                    route::Error::NotAUrl => ("PODBEAT_SERVICE_URL", error.to_string()),
                };
                self.fault(variable, problem);
                None
            }
        }
    }

    /// How a command reaches the service; `None` if URL or token is missing or malformed.
    fn service(&mut self) -> Option<ServiceConfig> {
        let (service_url, token) = (self.service_url(true), self.token(false));
        let (certificate, key) = self.identity();
        let timeout = self.duration("PODBEAT_TIMEOUT", secs(30), millis(100), secs(300));
        Some(ServiceConfig {
            service_url: service_url?,
            token: token?,
            ca_file: self.path("PODBEAT_CA_FILE"),
            identity: certificate.zip(key),
            timeout,
        })
    }

    /// Certificate and key for mutual TLS: both or neither.
    fn identity(&mut self) -> (Option<PathBuf>, Option<PathBuf>) {
        let certificate = self.path("PODBEAT_CLIENT_CERT_FILE");
        let key = self.path("PODBEAT_CLIENT_KEY_FILE");
        match (&certificate, &key) {
            (Some(_), None) => self.fault(
                "PODBEAT_CLIENT_KEY_FILE",
                "missing; required with PODBEAT_CLIENT_CERT_FILE",
            ),
            (None, Some(_)) => self.fault(
                "PODBEAT_CLIENT_CERT_FILE",
                "missing; required with PODBEAT_CLIENT_KEY_FILE",
            ),
            (Some(_), Some(_)) | (None, None) => {}
        }
        (certificate, key)
    }

    fn token(&mut self, dry_run: bool) -> Option<TokenSource> {
        let file = self.path("PODBEAT_TOKEN_FILE");
        let given = self.os("PODBEAT_TOKEN").is_some();
        let inline = self.optional("PODBEAT_TOKEN", header_text);
        match (file, inline) {
            (Some(_), _) if given => {
                self.fault(
                    "PODBEAT_TOKEN",
                    "conflicts with PODBEAT_TOKEN_FILE; unset one of them",
                );
                None
            }
            (Some(file), _) => Some(TokenSource::File(file)),
            (None, Some(token)) => Some(TokenSource::Inline(token)),
            (None, None) => {
                if !dry_run && !given {
                    self.fault(
                        "PODBEAT_TOKEN_FILE",
                        "missing; set it to a file with the bearer token, or set PODBEAT_TOKEN",
                    );
                }
                None
            }
        }
    }

    fn nonce(&mut self) -> Option<NonceSource> {
        let file = self.path("PODBEAT_NONCE_FILE");
        let given = self.os("PODBEAT_NONCE").is_some();
        let inline = self.optional("PODBEAT_NONCE", |text| printable(text).map(Secret::new));
        if file.is_some() && given {
            self.fault(
                "PODBEAT_NONCE",
                "conflicts with PODBEAT_NONCE_FILE; unset one of them",
            );
        }
        file.map(NonceSource::File)
            .or_else(|| inline.map(NonceSource::Inline))
    }

    fn trace(&self) -> Trace {
        let Some(text) = self.os("TRACEPARENT") else {
            return Trace::New;
        };
        match text
            .to_str()
            .ok_or(trace::Unfit::Form)
            .and_then(|text| trimmed::text(text).parse())
        {
            Ok(parent) => Trace::GoOn(parent),
            Err(unfit) => Trace::Unfit(unfit),
        }
    }

    /// The image's build goes by the pod's service account alone.
    fn no_kubeconfig(&mut self, file: bool, context: bool) {
        const PROBLEM: &str = "only the build for a laptop reads a kubeconfig (cargo feature `laptop`); unset it to use the pod's \
                               service account";
        if file {
            self.fault("KUBECONFIG", PROBLEM);
        }
        if context {
            self.fault("PODBEAT_KUBE_CONTEXT", PROBLEM);
        }
        if !file && !context {
            self.fault(
                "KUBERNETES_SERVICE_HOST",
                "missing; the kubelet sets it in every pod; outside a pod, use the build for a laptop",
            );
        }
    }

    fn kubernetes(&mut self, host: Option<String>) -> Kubernetes {
        let path = self.path("KUBECONFIG");
        let context = self.text("PODBEAT_KUBE_CONTEXT");
        let Some(host) = host.filter(|_| path.is_none() && context.is_none()) else {
            if cfg!(not(feature = "laptop")) {
                self.no_kubeconfig(path.is_some(), context.is_some());
            }
            return Kubernetes::Kubeconfig { path, context };
        };
        let port = self.optional("KUBERNETES_SERVICE_PORT", |text| {
            text.parse::<u16>()
                .map_err(|_| "must be a port number".to_owned())
        });
        Kubernetes::InCluster {
            host,
            port: port.unwrap_or(443),
            service_account_dir: self
                .path("PODBEAT_SERVICE_ACCOUNT_DIR")
                .unwrap_or_else(|| PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount")),
        }
    }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A value as it is shown in a message: shortened, with what doesn't print escaped.
fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let short: String = text.chars().take(MOST).collect();
    let more = if text.chars().count() > MOST { "…" } else { "" };
    format!("{short:?}{more}")
}

fn printable(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("contains control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn run_id(text: &str, index: Option<u32>) -> Result<String, String> {
    const LONGEST: usize = 256;
    let id = indexed::run_id(text, index).ok_or_else(|| {
        "contains {index}, but JOB_COMPLETION_INDEX is not set: only pods of an Indexed Job have an index, in the annotation \
         batch.kubernetes.io/job-completion-index"
            .to_owned()
    })?;
    if id.chars().count() > LONGEST {
        return Err(format!("must have at most {LONGEST} characters"));
    }
    printable(&id)
}

/// Levels and target=level pairs.
fn log_filter(text: &str) -> Result<Targets, String> {
    let mut filter = Targets::new();
    for directive in text.split(',') {
        filter = match log_directive(directive.trim()) {
            Some((Some(target), level)) => filter.with_target(target, level),
            Some((None, level)) => filter.with_default(level),
            None => {
                let levels = LEVELS.join(", ");
                return Err(format!(
                    "must be a level ({levels}), or comma-separated target=level pairs"
                ));
            }
        };
    }
    Ok(filter)
}

/// The library itself takes a word that is no level for a target, which silences everything else,
/// and an empty one for `error`.
fn log_directive(text: &str) -> Option<(Option<&str>, LevelFilter)> {
    let (target, level) = match text.rsplit_once('=') {
        Some((target, level)) => (Some(target), level),
        None => (None, text),
    };
    let is_of_target = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.-".contains(&byte);
    let is_target = |target: &str| !target.is_empty() && target.bytes().all(is_of_target);
    let is_level = LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known));
    if !is_level || !target.is_none_or(is_target) {
        return None;
    }
    Some((target, level.parse().ok()?))
}

/// What `PODBEAT_LOG` takes, in capitals, too.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A DNS subdomain (RFC 1123), as Kubernetes demands of names.
pub(crate) fn dns_name(text: &str) -> Result<String, String> {
    const LONGEST: usize = 253;
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() <= LONGEST && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err("must be a Kubernetes name (at most 253 lower-case letters, digits, '-' and '.')".to_owned())
}

/// A DNS label (RFC 1123), as Kubernetes demands of a container's name.
fn container_names(text: &str) -> Result<Vec<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.is_empty() {
        return Err("must be comma-separated names of containers".to_owned());
    }
    match names.iter().find(|name| !is_container_name(name)) {
        Some(name) => Err(format!("{} is not a valid container name", quoted(name))),
        None => Ok(names),
    }
}

fn container_name(text: &str) -> Result<String, String> {
    if is_container_name(text) {
        return Ok(text.to_owned());
    }
    Err("must be a container name (at most 63 lower-case letters, digits and '-')".to_owned())
}

fn header_text(text: &str) -> Result<Secret, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Secret::new(text));
    }
    Err(
        "not valid in a header: a token must have only visible ASCII characters, without spaces (the value is not shown)"
            .to_owned(),
    )
}

/// A base URL of the service.
///
/// # Errors
/// What is wrong with it. It is repeated nowhere.
pub(crate) fn service_url(text: &str, allow_http: bool) -> Result<Url, String> {
    // A URL with credentials is a secret as a whole: what is wrong with it is told without it.
    let has_credentials = text.split(['/', '?', '#']).any(|part| part.contains('@'));
    if has_credentials {
        return Err(NO_CREDENTIALS.to_owned());
    }
    let url: Url = text.parse().map_err(|_| route::Error::NotAUrl.to_string())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http || route::is_loopback(&url) => {}
        "http" => {
            return Err(format!(
                "must be https; http would send the token unencrypted{HTTP_IS_ALLOWED_BY}"
            ));
        }
        _ => return Err("must be an https URL".to_owned()),
    }
    Ok(url)
}

/// What allows plain HTTP, where settings are read.
pub(crate) const HTTP_IS_ALLOWED_BY: &str = " (PODBEAT_ALLOW_HTTP=true allows it)";

const NO_CREDENTIALS: &str =
    "contains credentials; remove the user and the password, and use PODBEAT_TOKEN_FILE";

#[cfg(test)]
mod tests {
    use super::*;

    fn load(settings: &[(&str, &str)]) -> Result<Config, Errors> {
        let map: BTreeMap<String, String> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(&Flags::default(), &map)
    }

    const LEAST: [(&str, &str); 4] = [
        ("TASK_RUN_ID", "trn.1"),
        ("POD_NAME", "p"),
        ("PODBEAT_SERVICE_URL", "https://ica.example"),
        ("PODBEAT_TOKEN", "hunter2"),
    ];

    fn with(more: &[(&str, &str)]) -> Result<Config, Errors> {
        load(&[&LEAST, more].concat())
    }

    fn wrong(more: &[(&str, &str)]) -> String {
        with(more).expect_err("wrong settings").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = with(&[]).expect("enough");
        let default = |variable: &str| {
            SETTINGS
                .iter()
                .find(|setting| setting.variable == variable)
                .expect("in the table")
                .default
        };
        let duration = |variable: &str| humantime::parse_duration(default(variable)).expect("a duration");
        assert_eq!(config.interval, duration("PODBEAT_INTERVAL"));
        assert_eq!(config.timeout, duration("PODBEAT_TIMEOUT"));
        assert_eq!(config.max_status_age, duration("PODBEAT_MAX_STATUS_AGE"));
        assert_eq!(config.reconnect_spread, duration("PODBEAT_RECONNECT_SPREAD"));
        assert_eq!(config.container_name, default("PODBEAT_CONTAINER_NAME"));
        assert_eq!(config.report, Report::Task);
        assert_eq!(config.log_format, LogFormat::Text);
        assert_eq!(
            config.kubernetes,
            Kubernetes::Kubeconfig {
                path: None,
                context: None
            }
        );
    }

    #[test]
    fn all_that_is_missing_in_a_pod_is_told_at_once() {
        let errors = load(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")])
            .expect_err("nothing is set")
            .to_string();
        for variable in [
            "TASK_RUN_ID",
            "POD_NAME",
            "POD_NAMESPACE",
            "POD_UID",
            "PODBEAT_SERVICE_URL",
            "PODBEAT_TOKEN_FILE",
        ] {
            assert!(
                errors.contains(&format!("\n  {variable} (--")),
                "{variable} in {errors}"
            );
        }
    }

    #[test]
    fn all_that_is_malformed_is_told_at_once_with_its_value() {
        let errors = wrong(&[
            ("PODBEAT_INTERVAL", "soon"),
            ("PODBEAT_TIMEOUT", "1h"),
            ("PODBEAT_REPORT", "some"),
            ("JOB_RETRY_COUNT", "-1"),
            ("PODBEAT_LISTEN", "8080"),
            ("PODBEAT_LOG", "loud"),
            ("PODBEAT_LOG_FORMAT", "xml"),
            ("PODBEAT_ALLOW_HTTP", "perhaps"),
            ("PODBEAT_CLIENT_KEY_FILE", "/k"),
            ("PODBEAT_CONTAINER_NAME", "Pod_Beat"),
        ]);
        for (variable, value) in [
            ("PODBEAT_INTERVAL", "\"soon\""),
            ("PODBEAT_TIMEOUT", "at most 5m"),
            ("PODBEAT_REPORT", "\"some\""),
            ("JOB_RETRY_COUNT", "\"-1\""),
            ("PODBEAT_LISTEN", "\"8080\""),
            ("PODBEAT_LOG", "\"loud\""),
            ("PODBEAT_LOG_FORMAT", "\"xml\""),
            ("PODBEAT_ALLOW_HTTP", "\"perhaps\""),
            ("PODBEAT_CLIENT_CERT_FILE", "missing"),
            ("PODBEAT_CONTAINER_NAME", "Pod_Beat"),
        ] {
            let line = errors
                .lines()
                .find(|line| line.contains(&format!("  {variable} (")));
            assert!(
                line.is_some_and(|line| line.contains(value)),
                "{variable}: {errors}"
            );
        }
        assert!(errors.starts_with("10 settings are"), "{errors}");
    }

    #[test]
    fn no_value_of_a_secret_is_shown() {
        for settings in [
            vec![("PODBEAT_TOKEN", "hunter2 hunter2")],
            vec![("PODBEAT_TOKEN_FILE", "/t")],
            vec![("PODBEAT_NONCE", "hunter2\u{7}")],
            vec![("PODBEAT_NONCE", "hunter2"), ("PODBEAT_NONCE_FILE", "/n")],
            vec![("PODBEAT_SERVICE_URL", "https://user:hunter2@h")],
            vec![("PODBEAT_SERVICE_URL", "https://hunter2@h/x?y")],
            vec![("PODBEAT_SERVICE_URL", "ftp:hunter2@h")],
        ] {
            let errors = with(&settings).expect_err("wrong");
            assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors:?}");
        }
        let config = with(&[("PODBEAT_NONCE", "hunter2")]).expect("right");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_settings_of_exec_are_checked_all_together_too() {
        let exec = |settings: &[(&str, &str)]| {
            let map: BTreeMap<String, String> = settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            ExecConfig::load(&Flags::default(), &map)
        };
        let errors = exec(&[]).expect_err("nothing is set").to_string();
        assert!(
            errors.contains("PODBEAT_CONTAINER_NAME (--container-name): missing")
                && errors.contains("PODBEAT_MARKER_DIR (--marker-dir): missing"),
            "{errors}"
        );
        for name in ["../main", "a.b", "Main", "-a"] {
            let errors = exec(&[("PODBEAT_CONTAINER_NAME", name), ("PODBEAT_MARKER_DIR", "/m")])
                .expect_err("no container's name")
                .to_string();
            assert!(errors.starts_with("one setting is"), "{errors}");
        }
        let config =
            exec(&[("PODBEAT_CONTAINER_NAME", "main"), ("PODBEAT_MARKER_DIR", "/m")]).expect("right");
        assert_eq!(
            (config.container_name.as_str(), config.marker_dir),
            ("main", "/m".into())
        );
    }

    #[test]
    fn the_index_of_a_pod_takes_its_place_in_the_runs_id() {
        let run = |settings: &[(&str, &str)]| with(settings).map(|config| config.task_run_id);
        let pattern = ("TASK_RUN_ID", "trn.1234-{index}");
        let indexed = [pattern, ("JOB_COMPLETION_INDEX", "7")];
        assert_eq!(run(&indexed), Ok("trn.1234-7".to_owned()));
        // An index without a place for it changes nothing, and what the downward API gives for an
        // absent annotation is empty.
        assert_eq!(run(&[("JOB_COMPLETION_INDEX", "7")]), Ok("trn.1".to_owned()));
        assert_eq!(run(&[("JOB_COMPLETION_INDEX", "")]), Ok("trn.1".to_owned()));
        for none in [&[pattern][..], &[pattern, ("JOB_COMPLETION_INDEX", "")]] {
            let errors = wrong(none);
            assert!(
                errors.starts_with("one setting is")
                    && errors.contains("TASK_RUN_ID (--task-run-id): contains {index}")
                    && errors.contains("JOB_COMPLETION_INDEX is not set")
                    && errors.ends_with("the value is \"trn.1234-{index}\""),
                "{errors}"
            );
        }
        for index in ["-1", "1.5", "one", "4294967296"] {
            let errors = wrong(&[("JOB_COMPLETION_INDEX", index)]);
            assert!(
                errors.contains("JOB_COMPLETION_INDEX (--job-completion-index): must be a whole number"),
                "{errors}"
            );
        }
        // What is sent is measured, not the pattern.
        let long = "r".repeat(250) + "{index}";
        let fits = [("TASK_RUN_ID", long.as_str()), ("JOB_COMPLETION_INDEX", "123456")];
        assert_eq!(run(&fits).map(|run| run.len()), Ok(256));
        let too_long = [
            ("TASK_RUN_ID", long.as_str()),
            ("JOB_COMPLETION_INDEX", "1234567"),
        ];
        assert!(wrong(&too_long).contains("at most 256"));
    }

    #[test]
    fn a_log_filter_is_levels_and_targets_and_nothing_else() {
        for (text, shown) in [
            ("info", "info"),
            (" WARN ", "warn"),
            ("off", "off"),
            (" ", "info"),
            ("warn, podbeat::agent=Debug", "podbeat::agent=debug,warn"),
            ("hyper-util=trace", "hyper-util=trace"),
        ] {
            let filter = with(&[("PODBEAT_LOG", text)]).expect(text).log;
            assert_eq!(filter.to_string(), shown, "{text}");
        }
        // The library takes each of these.
        for text in [
            "loud",
            "3",
            "info,",
            "info,,warn",
            "podbeat=",
            "podbeat=5",
            "=info",
            "a b=info",
            "podbeat[{field}]=info",
            "podbeat==info",
        ] {
            assert!(wrong(&[("PODBEAT_LOG", text)]).contains("PODBEAT_LOG"), "{text}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_or_by_leave() {
        for url in [
            "http://localhost:1",
            "http://a.localhost",
            "http://127.0.0.9:1/x",
            "http://[::1]:1",
        ] {
            with(&[("PODBEAT_SERVICE_URL", url)]).expect(url);
        }
        assert!(wrong(&[("PODBEAT_SERVICE_URL", "http://ica.example")]).contains("PODBEAT_ALLOW_HTTP"));
        with(&[
            ("PODBEAT_SERVICE_URL", "http://ica.example"),
            ("PODBEAT_ALLOW_HTTP", "true"),
        ])
        .expect("by leave");
    }

    #[test]
    fn a_dry_run_needs_neither_service_nor_token() {
        let config =
            load(&[("TASK_RUN_ID", "r"), ("POD_NAME", "p"), ("PODBEAT_DRY_RUN", "1")]).expect("enough");
        assert!(config.dry_run && config.service_url.is_none() && config.token.is_none());
    }

    #[test]
    fn a_trace_is_gone_on_in_and_one_that_isnt_valid_is_no_error() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = |text: &str| with(&[("TRACEPARENT", text)]).expect("right").trace;
        assert_eq!(trace(""), Trace::New);
        assert_eq!(
            trace(&format!(" {given}\n")),
            Trace::GoOn(given.parse().expect("valid"))
        );
        assert_eq!(trace("none"), Trace::Unfit(trace::Unfit::Form));
        assert_eq!(
            trace(&given.replace("00-", "ff-")),
            Trace::Unfit(trace::Unfit::Version)
        );
    }

    #[test]
    fn no_color_is_any_text_but_an_empty_one() {
        let colours = |text: &str| with(&[("NO_COLOR", text)]).expect("right").colours;
        assert_eq!([colours(""), colours("1"), colours("0")], [true, false, false]);
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_empty_is_unset() {
        let map: BTreeMap<String, String> = LEAST
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let flags = Flags([("PODBEAT_INTERVAL", "5s".into()), ("TASK_RUN_ID", "".into())].into());
        let error = Config::load(&flags, &map)
            .expect_err("the run id is empty")
            .to_string();
        assert!(error.contains("TASK_RUN_ID"), "{error}");
        let flags = Flags([("PODBEAT_INTERVAL", "5s".into())].into());
        assert_eq!(Config::load(&flags, &map).expect("right").interval, secs(5));
    }

    #[test]
    fn what_editors_put_around_a_value_is_no_part_of_it_and_alone_it_is_none() {
        let config = with(&[
            ("TASK_RUN_ID", "\u{feff}trn.1\r\n"),
            ("PODBEAT_NONCE", " issued-7\n"),
            ("PODBEAT_INTERVAL", "\u{feff}5s\n"),
        ])
        .expect("right");
        assert_eq!((config.task_run_id.as_str(), config.interval), ("trn.1", secs(5)));
        assert!(matches!(config.nonce, Some(NonceSource::Inline(nonce)) if nonce.expose() == "issued-7"));
        for blank in ["\n", "\u{feff}\r\n", " "] {
            let error = with(&[("PODBEAT_TOKEN", blank)])
                .expect_err("no token")
                .to_string();
            assert!(error.contains("PODBEAT_TOKEN_FILE"), "{error}");
            assert!(with(&[("PODBEAT_NONCE", blank)]).expect("right").nonce.is_none());
        }
    }

    #[test]
    fn in_a_pod_the_service_account_is_used_unless_a_kubeconfig_is_named() {
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
            ("POD_NAMESPACE", "n"),
            ("POD_UID", "u"),
        ];
        let config = with(&pod).expect("enough");
        assert_eq!(
            config.kubernetes,
            Kubernetes::InCluster {
                host: "10.96.0.1".to_owned(),
                port: 6443,
                service_account_dir: "/var/run/secrets/kubernetes.io/serviceaccount".into()
            }
        );
        assert_eq!(config.log_format, LogFormat::Json);
        let named = with(&[&pod[..], &[("KUBECONFIG", "/k")]].concat()).expect("enough");
        assert_eq!(
            named.kubernetes,
            Kubernetes::Kubeconfig {
                path: Some("/k".into()),
                context: None
            }
        );
    }

    #[test]
    #[cfg(unix)]
    fn what_isnt_utf8_is_an_error_and_no_crash() {
        use std::os::unix::ffi::OsStringExt;
        let map: BTreeMap<String, String> = LEAST
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let flags = Flags([("POD_NAME", OsString::from_vec(vec![0xff, b'x']))].into());
        let error = Config::load(&flags, &map).expect_err("not UTF-8").to_string();
        assert!(
            error.contains("POD_NAME (--pod-name): not valid UTF-8"),
            "{error}"
        );
    }
}

//! Settings as users see them: each has a variable, a flag, and the texts for help and documents.
//!
//! This module has the type and the settings that several commands share.

/// One setting, as users see it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The flag, without the dashes.
    pub flag: &'static str,
    /// The default, or when the setting is required.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether podbeat never shows the value.
    pub secret: bool,
    /// Whether the flag takes no value.
    pub switch: bool,
}

/// A setting with a value that is not a secret.
#[must_use]
pub const fn setting(
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

/// The same setting, with a value that podbeat never shows.
#[must_use]
pub const fn secret(setting: Setting) -> Setting {
    Setting {
        secret: true,
        ..setting
    }
}

/// The same setting, with a flag that takes no value.
#[must_use]
pub const fn switch(setting: Setting) -> Setting {
    Setting {
        switch: true,
        ..setting
    }
}

/// `PODBEAT_CA_FILE`.
pub const CA_FILE: Setting = setting(
    "PODBEAT_CA_FILE",
    "ca-file",
    "the system's roots",
    "CA certificates to verify the service (PEM); they replace the system's roots",
);

/// `PODBEAT_CLIENT_CERT_FILE`.
pub const CLIENT_CERT_FILE: Setting = setting(
    "PODBEAT_CLIENT_CERT_FILE",
    "client-cert-file",
    "none",
    "client certificate chain for mutual TLS with the service (PEM); requires PODBEAT_CLIENT_KEY_FILE",
);

/// `PODBEAT_CLIENT_KEY_FILE`.
pub const CLIENT_KEY_FILE: Setting = setting(
    "PODBEAT_CLIENT_KEY_FILE",
    "client-key-file",
    "none",
    "private key of the client certificate (PEM)",
);

/// `PODBEAT_ALLOW_HTTP`.
pub const ALLOW_HTTP: Setting = switch(setting(
    "PODBEAT_ALLOW_HTTP",
    "allow-http",
    "false",
    "allow plain HTTP to a host other than loopback; this sends the token unencrypted",
));

/// `JOB_RETRY_COUNT`.
pub const JOB_RETRY_COUNT: Setting = setting(
    "JOB_RETRY_COUNT",
    "job-retry-count",
    "the annotation batch.kubernetes.io/job-index-failure-count, or the number of the Job's pods that failed before this pod",
    "number of the Job's retries before this pod; sent as jobRetryCount",
);

/// `PODBEAT_INTERVAL`.
pub const INTERVAL: Setting = setting(
    "PODBEAT_INTERVAL",
    "interval",
    "30s",
    "time between heartbeats if nothing changes, with ±10 % jitter; 100ms to 1h",
);

/// `PODBEAT_CONTAINER_NAME`.
pub const CONTAINER_NAME: Setting = setting(
    "PODBEAT_CONTAINER_NAME",
    "container-name",
    "podbeat",
    "name of podbeat's own container; podbeat does not report it",
);

/// `PODBEAT_TASK_CONTAINERS`.
pub const TASK_CONTAINERS: Setting = setting(
    "PODBEAT_TASK_CONTAINERS",
    "task-containers",
    "all regular containers except podbeat's",
    "names of the regular containers of the task, comma-separated: podbeat sends the last heartbeat when these have ended; \
     the pod's annotation podbeat.dev/task-containers takes precedence",
);

/// `PODBEAT_IGNORED_CONTAINERS`.
pub const IGNORED_CONTAINERS: Setting = setting(
    "PODBEAT_IGNORED_CONTAINERS",
    "ignored-containers",
    "none",
    "names of regular containers that do not belong to the task, comma-separated, such as a service mesh proxy that never \
     ends; the pod's annotation podbeat.dev/ignored-containers takes precedence",
);

/// `PODBEAT_REPORT`.
pub const REPORT: Setting = setting(
    "PODBEAT_REPORT",
    "report",
    "task",
    "which containers to report; task: regular containers; all: also init containers and other sidecars",
);

/// `PODBEAT_MAX_STATUS_AGE`.
pub const MAX_STATUS_AGE: Setting = setting(
    "PODBEAT_MAX_STATUS_AGE",
    "max-status-age",
    "5m",
    "heartbeats omit container states that the Kubernetes API has not confirmed for this long; at least 1s",
);

/// `KUBECONFIG`.
pub const KUBECONFIG: Setting = setting(
    "KUBECONFIG",
    "kubeconfig",
    "none in a pod; ~/.kube/config elsewhere",
    "kubeconfig file, or a list of files, as for kubectl; if set, podbeat uses it in a pod, too; only in the laptop build",
);

/// `PODBEAT_KUBE_CONTEXT`.
pub const KUBE_CONTEXT: Setting = setting(
    "PODBEAT_KUBE_CONTEXT",
    "context",
    "the current context",
    "context in the kubeconfig; only in the laptop build",
);

/// `PODBEAT_SERVICE_ACCOUNT_DIR`.
pub const SERVICE_ACCOUNT_DIR: Setting = setting(
    "PODBEAT_SERVICE_ACCOUNT_DIR",
    "service-account-dir",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "directory with the service account's token and ca.crt",
);

/// How a command reaches the task-run service: all settings of `podbeat runs`, and the first ones
/// of `podbeat reap`. They have the same names as the agent's settings and accept the same values.
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

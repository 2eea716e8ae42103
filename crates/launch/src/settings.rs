//! The launch file: how podbeat-server launches runs. It is JSON, because the chart makes it from its
//! values.

use std::collections::BTreeMap;
use std::time::Duration;

use podbeat_runs::ExitCodes;
use serde::Deserialize;
use serde_json::Value;

use crate::limiter::doubled;
use crate::placement::Table;

/// The shortest time that Kubernetes keeps an ended Job, in seconds. It is only for Jobs that the
/// server could not delete, and must be longer than an outage of the server.
pub const SHORTEST_TTL: i32 = 3600;

/// The settings for launching runs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The name of this server in the label of its objects. Two servers that launch in the same
    /// namespace need different names.
    pub instance: String,
    /// The namespace of all tenants that have none of their own.
    pub namespace: String,
    /// The tenants with a namespace or a queue of their own.
    pub tenants: BTreeMap<String, Tenant>,
    /// Kueue's local queue for all tenants that have none of their own.
    pub queue: Option<String>,
    /// podbeat's container.
    pub podbeat: Podbeat,
    /// The base URL at which podbeat reaches this service. Without it, that in the ConfigMap.
    pub service_url: Option<String>,
    /// Secrets with credentials for podbeat's image, in the namespaces of the runs.
    pub image_pull_secrets: Vec<String>,
    /// What the names in `resources` of a run mean.
    pub resources: Table,
    /// The security context of the task's container. The default is that of the restricted profile
    /// of the Pod Security Standards.
    pub security_context: Option<Value>,
    /// The time between SIGTERM and SIGKILL, in seconds.
    pub termination_grace_period_seconds: i64,
    /// How long Kubernetes keeps an ended Job that the server could not delete, in seconds. At least
    /// [`SHORTEST_TTL`].
    pub ttl_seconds_after_finished: i32,
    /// How fast Jobs are created.
    pub limits: Limits,
    /// When a run is retried.
    pub retries: Retries,
    /// When a pod that does not start fails its attempt.
    pub pending: Pending,
}

/// A tenant with a namespace or a queue of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tenant {
    /// The namespace.
    pub namespace: Option<String>,
    /// Kueue's local queue.
    pub queue: Option<String>,
}

/// podbeat's container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Podbeat {
    /// The image.
    pub image: String,
    /// `imagePullPolicy`.
    pub image_pull_policy: Option<String>,
    /// The service account of the pods. It may get, list and watch its pod.
    pub service_account_name: String,
    /// Replaces the container's resources.
    pub resources: Option<Value>,
}

/// How fast Jobs are created.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Jobs created in a second, on average.
    pub creates_per_second: u32,
    /// Jobs created at once after a pause.
    pub create_burst: u32,
    /// Attempts that exist at the same time. Other runs wait.
    pub attempts: usize,
}

/// When a run is retried.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retries {
    /// The wait before the first retry, in seconds. It doubles with each further one.
    pub backoff_seconds: u64,
    /// The longest wait before a retry, in seconds.
    pub max_backoff_seconds: u64,
    /// How many disrupted attempts of a run do not count toward its retry limit: eviction,
    /// preemption, the loss of a node.
    pub disruptions: u32,
    /// After these exit codes, a run is not retried.
    pub final_exit_codes: Vec<u8>,
}

/// When a pod that does not start fails its attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pending {
    /// After this time with an image that cannot be pulled, in seconds.
    pub image_pull_seconds: u64,
    /// After this time without a suitable node, in seconds. Without it, never.
    pub unschedulable_seconds: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instance: "podbeat-server".to_owned(),
            namespace: "tasks".to_owned(),
            tenants: BTreeMap::new(),
            queue: None,
            podbeat: Podbeat::default(),
            service_url: None,
            image_pull_secrets: Vec::new(),
            resources: Table::default(),
            security_context: None,
            termination_grace_period_seconds: 30,
            ttl_seconds_after_finished: 24 * 3600,
            limits: Limits::default(),
            retries: Retries::default(),
            pending: Pending::default(),
        }
    }
}

impl Default for Podbeat {
    fn default() -> Self {
        Self {
            image: podbeat_published::image("podbeat"),
            image_pull_policy: None,
            service_account_name: "podbeat".to_owned(),
            resources: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            creates_per_second: 20,
            create_burst: 40,
            attempts: 10_000,
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            backoff_seconds: 10,
            max_backoff_seconds: 300,
            disruptions: podbeat_runs::Rules::DEFAULT.disruptions,
            final_exit_codes: Vec::new(),
        }
    }
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            image_pull_seconds: 15 * 60,
            unschedulable_seconds: None,
        }
    }
}

/// Why the launch file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON of this form.
    #[error("at {path}")]
    Malformed {
        /// The member.
        path: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Some values are wrong.
    #[error("{}", .0.join("; "))]
    Wrong(Vec<String>),
}

impl Settings {
    /// Reads and checks the file's contents.
    ///
    /// # Errors
    /// It is not JSON of this form, or values are wrong, all of them by name.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        let parser = &mut serde_json::Deserializer::from_slice(json);
        let settings: Self =
            serde_path_to_error::deserialize(parser).map_err(|error| Error::Malformed {
                path: error.path().to_string(),
                source: error.into_inner(),
            })?;
        let problems = settings.problems();
        match problems.is_empty() {
            true => Ok(settings),
            false => Err(Error::Wrong(problems)),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut label = |member: &str, text: &str| {
            if !is_label(text) {
                problems.push(format!(
                    "{member}: must have 1 to 63 lower-case letters, digits and hyphens, and begin and end with a letter or digit"
                ));
            }
        };
        label("instance", &self.instance);
        label("namespace", &self.namespace);
        for (tenant, own) in &self.tenants {
            if let Some(namespace) = &own.namespace {
                label(&format!("tenants.{tenant}.namespace"), namespace);
            }
            if let Some(queue) = &own.queue {
                label(&format!("tenants.{tenant}.queue"), queue);
            }
        }
        if let Some(queue) = &self.queue {
            label("queue", queue);
        }
        label(
            "podbeat.serviceAccountName",
            &self.podbeat.service_account_name,
        );
        if self.podbeat.image.trim().is_empty() {
            problems.push("podbeat.image: must not be empty".to_owned());
        }
        if self.ttl_seconds_after_finished < SHORTEST_TTL {
            problems.push(format!(
                "ttlSecondsAfterFinished: must be at least {SHORTEST_TTL}"
            ));
        }
        if self.termination_grace_period_seconds < 1 {
            problems.push("terminationGracePeriodSeconds: must be at least 1".to_owned());
        }
        for (member, is_wrong) in [
            ("createsPerSecond", self.limits.creates_per_second == 0),
            ("createBurst", self.limits.create_burst == 0),
            ("attempts", self.limits.attempts == 0),
        ] {
            if is_wrong {
                problems.push(format!("limits.{member}: must be at least 1"));
            }
        }
        if self.retries.max_backoff_seconds < self.retries.backoff_seconds {
            problems.push("retries.maxBackoffSeconds: must be at least backoffSeconds".to_owned());
        }
        problems
    }

    /// The namespace of a tenant's runs.
    #[must_use]
    pub fn namespace_of(&self, tenant: &str) -> &str {
        let own = self
            .tenants
            .get(tenant)
            .and_then(|own| own.namespace.as_deref());
        own.unwrap_or(&self.namespace)
    }

    /// Kueue's local queue of a tenant's runs.
    #[must_use]
    pub fn queue_of(&self, tenant: &str) -> Option<&str> {
        let own = self
            .tenants
            .get(tenant)
            .and_then(|own| own.queue.as_deref());
        own.or(self.queue.as_deref())
    }

    /// All namespaces in which runs are launched, each once.
    #[must_use]
    pub fn namespaces(&self) -> Vec<&str> {
        let mut all = vec![self.namespace.as_str()];
        for namespace in self
            .tenants
            .values()
            .filter_map(|own| own.namespace.as_deref())
        {
            if !all.contains(&namespace) {
                all.push(namespace);
            }
        }
        all
    }

    /// The wait before the attempt after this many ended ones.
    #[must_use]
    pub fn backoff(&self, ended: u32) -> Duration {
        let Retries {
            backoff_seconds,
            max_backoff_seconds,
            ..
        } = self.retries;
        let limits = [backoff_seconds, max_backoff_seconds].map(Duration::from_secs);
        doubled(limits.into(), ended)
    }

    /// The exit codes after which a run is not retried.
    #[must_use]
    pub fn final_exit_codes(&self) -> ExitCodes {
        let codes = self.retries.final_exit_codes.iter();
        codes.fold(ExitCodes::NONE, |codes, code| codes.with(*code))
    }
}

/// Whether a text can be the name of a namespace, and the value of a label (RFC 1123).
fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        let settings = Settings::read(b"{}").expect("right");
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.namespaces(), ["tasks"]);
        assert_eq!(settings.queue_of("acme"), None);
    }

    #[test]
    fn tenants_have_their_own_namespace_and_queue() {
        let json = br#"{"namespace": "shared", "queue": "all", "tenants": {
            "acme": {"namespace": "acme", "queue": "fast"}, "other": {"namespace": "acme"}}}"#;
        let settings = Settings::read(json).expect("right");
        assert_eq!(settings.namespaces(), ["shared", "acme"]);
        let of = |tenant| (settings.namespace_of(tenant), settings.queue_of(tenant));
        assert_eq!(of("acme"), ("acme", Some("fast")));
        assert_eq!(of("other"), ("acme", Some("all")));
        assert_eq!(of("nobody"), ("shared", Some("all")));
    }

    #[test]
    fn every_fault_is_named() {
        let json = br#"{"instance": "", "namespace": "A", "ttlSecondsAfterFinished": 60,
            "limits": {"createBurst": 0}, "retries": {"backoffSeconds": 9, "maxBackoffSeconds": 8},
            "tenants": {"t": {"queue": "-"}}, "podbeat": {"image": " "}}"#;
        let text = Settings::read(json).expect_err("wrong").to_string();
        for member in [
            "instance:",
            "namespace:",
            "ttlSecondsAfterFinished:",
            "limits.createBurst:",
            "retries.maxBackoffSeconds:",
            "tenants.t.queue:",
            "podbeat.image:",
        ] {
            assert!(text.contains(member), "{member} in {text}");
        }
        let error = Settings::read(br#"{"limits": {"createBursts": 1}}"#).expect_err("unknown");
        assert_eq!(error.to_string(), "at limits.createBursts");
    }

    #[test]
    fn the_backoff_doubles_up_to_its_limit() {
        let settings = Settings::default();
        let waits = [0, 1, 2, 3, 6, 1000].map(|ended| settings.backoff(ended).as_secs());
        assert_eq!(waits, [10, 10, 20, 40, 300, 300]);
    }
}

//! Reads settings and collects everything that is wrong with them.
//!
//! A flag takes precedence over its variable. An empty value and one of only white space count as
//! unset.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_files::trimmed;
use podbeat_heartbeat::marker::is_container_name;
use podbeat_heartbeat::report::Report;
use podbeat_http_client::route::Proxies;
use podbeat_kubernetes::access::Access;

use crate::environment::{Environment, Flags};
use crate::setting::Setting;

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Fault>);

/// One setting that is missing or invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its variable.
    pub variable: &'static str,
    /// Its flag, without the dashes. Empty if it has none.
    pub flag: &'static str,
    /// What is wrong, and how to fix it. It never contains the value of a secret.
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

/// Reads settings and collects what is wrong with them.
pub struct Reader<'read, E> {
    settings: &'read [Setting],
    flags: &'read Flags,
    environment: &'read E,
    faults: Vec<Fault>,
}

impl<'read, E: Environment> Reader<'read, E> {
    /// Reads these settings. It can also read other variables, such as `KUBERNETES_SERVICE_HOST`.
    #[must_use]
    pub fn new(settings: &'read [Setting], flags: &'read Flags, environment: &'read E) -> Self {
        Self {
            settings,
            flags,
            environment,
            faults: Vec::new(),
        }
    }

    /// Returns `config` if all settings are valid.
    ///
    /// # Errors
    /// All missing or malformed settings, in the order of the documents.
    pub fn done<T>(self, config: T) -> Result<T, Errors> {
        if self.faults.is_empty() {
            return Ok(config);
        }
        Err(self.errors())
    }

    /// All missing or malformed settings, in the order of the documents.
    #[must_use]
    pub fn errors(mut self) -> Errors {
        let place = |fault: &Fault| {
            self.settings
                .iter()
                .position(|setting| setting.variable == fault.variable)
        };
        self.faults.sort_by_key(place);
        Errors(self.faults)
    }

    fn setting(&self, variable: &'static str) -> Option<&'read Setting> {
        self.settings
            .iter()
            .find(|setting| setting.variable == variable)
    }

    /// Adds a fault of a setting. `problem` must not contain the value of a secret.
    pub fn fault(&mut self, variable: &'static str, problem: impl Into<String>) {
        let flag = self.setting(variable).map_or("", |setting| setting.flag);
        self.faults.push(Fault {
            variable,
            flag,
            problem: problem.into(),
        });
    }

    /// The unchanged value, unless it is empty.
    #[must_use]
    pub fn raw(&self, variable: &'static str) -> Option<OsString> {
        let flag = self.flags.0.get(variable).cloned();
        flag.or_else(|| self.environment.get(variable))
            .filter(|value| !value.is_empty())
    }

    /// The unchanged value, unless it is empty or only white space.
    #[must_use]
    pub fn os(&self, variable: &'static str) -> Option<OsString> {
        self.raw(variable).filter(|value| {
            value
                .to_str()
                .is_none_or(|text| !trimmed::text(text).is_empty())
        })
    }

    /// A text. Invalid UTF-8 is a fault.
    pub fn text(&mut self, variable: &'static str) -> Option<String> {
        let text = self.os(variable)?.into_string();
        if text.is_err() {
            self.fault(variable, "not valid UTF-8");
        }
        text.ok()
    }

    /// A path.
    #[must_use]
    pub fn path(&self, variable: &'static str) -> Option<PathBuf> {
        self.os(variable).map(PathBuf::from)
    }

    /// An optional setting. A fault shows the value, unless the value is a secret.
    pub fn optional<T>(
        &mut self,
        variable: &'static str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(variable)?;
        match check(trimmed::text(&text)) {
            Ok(value) => Some(value),
            Err(problem) => {
                // A URL can have a password before an @, or a key after a ? or #.
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

    /// A setting that is mandatory if `required`. `wanted` says what to set it to.
    pub fn required_if<T>(
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

    /// A mandatory setting. `wanted` says what to set it to.
    pub fn required<T>(
        &mut self,
        variable: &'static str,
        wanted: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.required_if(true, variable, wanted, check)
    }

    /// Whether a switch is on.
    pub fn switch(&mut self, variable: &'static str) -> bool {
        self.optional(variable, |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
        .unwrap_or(false)
    }

    /// A duration from `least` to `most`.
    pub fn duration(
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
                return Err(format!(
                    "must be at least {}",
                    humantime::format_duration(least)
                ));
            }
            if duration > most {
                return Err(format!(
                    "must be at most {}",
                    humantime::format_duration(most)
                ));
            }
            Ok(duration)
        })
        .unwrap_or(default)
    }

    /// The name of podbeat's own container.
    pub fn own_container(&mut self) -> String {
        self.optional("PODBEAT_CONTAINER_NAME", dns_name)
            .unwrap_or_else(|| "podbeat".to_owned())
    }

    /// The names of the task's regular containers, and of the ignored ones. A setting that is unset
    /// gives no names.
    pub fn task_containers(&mut self) -> (Vec<String>, Vec<String>) {
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

    /// Which containers are reported.
    pub fn report(&mut self) -> Report {
        self.optional("PODBEAT_REPORT", |text| match text {
            "task" => Ok(Report::Task),
            "all" => Ok(Report::All),
            _ => Err("must be task or all".to_owned()),
        })
        .unwrap_or(Report::Task)
    }

    /// The proxies that the environment names.
    #[must_use]
    pub fn proxies(&self) -> Proxies {
        Proxies::read(|variable| self.environment.get(variable))
    }

    /// The image's build uses only the pod's service account.
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

    /// How to reach the Kubernetes API. `host` is `KUBERNETES_SERVICE_HOST`.
    pub fn kubernetes(&mut self, host: Option<String>) -> Access {
        let path = self.path("KUBECONFIG");
        let context = self.text("PODBEAT_KUBE_CONTEXT");
        let Some(host) = host.filter(|_| path.is_none() && context.is_none()) else {
            if !Access::READS_KUBECONFIGS {
                self.no_kubeconfig(path.is_some(), context.is_some());
            }
            return Access::Kubeconfig {
                path,
                context,
                proxies: self.proxies(),
            };
        };
        let port = self.optional("KUBERNETES_SERVICE_PORT", |text| {
            text.parse::<u16>()
                .map_err(|_| "must be a port number".to_owned())
        });
        Access::InCluster {
            host,
            port: port.unwrap_or(443),
            service_account_dir: self
                .path("PODBEAT_SERVICE_ACCOUNT_DIR")
                .unwrap_or_else(|| PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount")),
            proxies: self.proxies(),
        }
    }
}

/// A number of seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A number of milliseconds.
#[must_use]
pub const fn millis(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A value for a message: shortened, with unprintable characters escaped.
fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let short: String = text.chars().take(MOST).collect();
    let more = if text.chars().count() > MOST {
        "…"
    } else {
        ""
    };
    format!("{short:?}{more}")
}

/// Accepts a text without control characters.
///
/// # Errors
/// The text has control characters.
pub fn printable(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("contains control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// Accepts a DNS subdomain (RFC 1123). Kubernetes requires this form for most names.
///
/// # Errors
/// The text is not a DNS subdomain.
pub fn dns_name(text: &str) -> Result<String, String> {
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
    Err(
        "must be a Kubernetes name (at most 253 lower-case letters, digits, '-' and '.')"
            .to_owned(),
    )
}

fn container_names(text: &str) -> Result<Vec<String>, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.is_empty() {
        return Err("must be comma-separated names of containers".to_owned());
    }
    match names.iter().find(|name| !is_container_name(name)) {
        Some(name) => Err(format!("{} is not a valid container name", quoted(name))),
        None => Ok(names),
    }
}

/// Accepts a DNS label (RFC 1123). Kubernetes requires this form for the name of a container.
///
/// # Errors
/// The text is not a DNS label.
pub fn container_name(text: &str) -> Result<String, String> {
    if is_container_name(text) {
        return Ok(text.to_owned());
    }
    Err("must be a container name (at most 63 lower-case letters, digits and '-')".to_owned())
}

//! Reads settings and collects everything that is wrong with them.
//!
//! A flag takes precedence over its variable. An empty value and one of only white space count as
//! unset.

use std::ffi::OsString;
use std::fmt;

use podbeat_files::trimmed;
use podbeat_heartbeat::marker::ContainerName;
use podbeat_http_client::route::Proxies;
use podbeat_kubernetes::access::Access;

use crate::environment::{Environment, Flags};
use crate::parse::{NOT_UTF8, quoted};
use crate::setting::{
    IGNORED_CONTAINERS, KUBE_CONTEXT, KUBECONFIG, KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT,
    Kind, Parse, Row, SERVICE_ACCOUNT_DIR, Setting, TASK_CONTAINERS,
};
use crate::terminal::Terminal;
use crate::unknown::Unknown;

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
    rows: &'read [Row],
    flags: &'read Flags,
    environment: &'read E,
    faults: Vec<Fault>,
}

impl<'read, E: Environment> Reader<'read, E> {
    /// A reader for the settings of a command. `rows` has their flags in this command.
    #[must_use]
    pub fn new(rows: &'read [Row], flags: &'read Flags, environment: &'read E) -> Self {
        Self {
            rows,
            flags,
            environment,
            faults: Vec::new(),
        }
    }

    /// Returns `config` if all settings are valid.
    ///
    /// # Errors
    /// All that are missing or malformed, in the order of the documents.
    pub fn done<T>(self, config: T) -> Result<T, Errors> {
        if self.faults.is_empty() {
            return Ok(config);
        }
        Err(self.errors())
    }

    /// All missing or malformed settings, in the order of the documents.
    #[must_use]
    pub fn errors(self) -> Errors {
        Errors(self.faults)
    }

    /// Adds a fault of a variable, which may be one without a setting, such as `HTTPS_PROXY`. The
    /// problem must not repeat the value of a secret.
    pub fn fault_of(&mut self, variable: &'static str, problem: impl Into<String>) {
        let place = |variable| self.rows.iter().position(|row| row.variable == variable);
        let own = place(variable);
        let row = own.and_then(|at| self.rows.get(at));
        let fault = Fault {
            variable,
            flag: row.map_or("", |row| row.flag),
            problem: problem.into(),
        };
        let before = |other: &Fault| place(other.variable) <= own;
        self.faults
            .insert(self.faults.partition_point(before), fault);
    }

    /// Adds a fault of a setting. The problem must not repeat the value of a secret.
    pub fn fault<T, D>(&mut self, setting: &Setting<T, D>, problem: impl Into<String>) {
        self.fault_of(setting.row.variable, problem);
    }

    /// A value as it was given, unless it is empty or white space.
    fn given(&self, row: &Row) -> Option<OsString> {
        let flag = self.flags.0.get(row.variable).cloned();
        flag.or_else(|| self.environment.get(row.variable))
            .filter(|value| {
                value
                    .to_str()
                    .is_none_or(|text| !trimmed::text(text).is_empty())
            })
    }

    /// Whether the setting has a value, valid or not.
    #[must_use]
    pub fn is_set<T, D>(&self, setting: &Setting<T, D>) -> bool {
        self.given(&setting.row).is_some()
    }

    /// A setting that may be absent. A fault shows the value, unless it is a secret.
    pub fn optional<T, D>(&mut self, setting: &Setting<T, D>) -> Option<T> {
        self.optional_with(setting, Ok)
    }

    /// Like [`optional`](Self::optional), with another check. `None` if the value is malformed,
    /// which adds a fault.
    pub fn optional_with<T, D, U>(
        &mut self,
        setting: &Setting<T, D>,
        check: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        let row = &setting.row;
        let value = self.given(row)?;
        let parsed = match setting.parse {
            Parse::Raw(make) => make(value).map_err(str::to_owned).and_then(check),
            Parse::Text(parse) => of_text(row, value, |text| parse(text).and_then(check)),
            Parse::Within(bounds, parse) => {
                of_text(row, value, |text| parse(text, bounds).and_then(check))
            }
        };
        parsed
            .map_err(|problem| self.fault_of(row.variable, problem))
            .ok()
    }

    /// Two settings of which one requires the other.
    pub fn both_or_neither<T>(
        &mut self,
        one: &Setting<T>,
        other: &Setting<T>,
    ) -> (Option<T>, Option<T>) {
        let values = (self.optional(one), self.optional(other));
        let (missing, present) = match &values {
            (Some(_), None) => (other, one),
            (None, Some(_)) => (one, other),
            (Some(_), Some(_)) | (None, None) => return values,
        };
        self.fault(
            missing,
            format!("missing; required with {}", present.row.variable),
        );
        values
    }

    /// A setting with a default.
    pub fn get<T: Clone>(&mut self, setting: &Setting<T, T>) -> T {
        self.optional(setting)
            .unwrap_or_else(|| setting.default.clone())
    }

    /// A required setting. `wanted` says what to set it to.
    pub fn required<T>(&mut self, setting: &Setting<T>, wanted: &str) -> Option<T> {
        self.required_if(true, setting, wanted, Ok)
    }

    /// A setting that is required under a condition, with another check. `wanted` says what to set
    /// it to.
    pub fn required_if<T, U>(
        &mut self,
        required: bool,
        setting: &Setting<T>,
        wanted: &str,
        check: impl FnOnce(T) -> Result<U, String>,
    ) -> Option<U> {
        if required && !self.is_set(setting) {
            self.fault(setting, format!("missing; set it to {wanted}"));
            return None;
        }
        self.optional_with(setting, check)
    }

    /// The names of the regular containers that are the task's, and of those that are not. Both are
    /// empty if no setting names any.
    pub fn task_containers(&mut self) -> (Vec<ContainerName>, Vec<ContainerName>) {
        let tasks = self.optional(&TASK_CONTAINERS);
        let ignored = self.optional(&IGNORED_CONTAINERS);
        if tasks.is_some() && ignored.is_some() {
            self.fault(
                &IGNORED_CONTAINERS,
                "conflicts with PODBEAT_TASK_CONTAINERS; unset one of them",
            );
        }
        (tasks.unwrap_or_default(), ignored.unwrap_or_default())
    }

    /// Variables with podbeat's prefix that are not settings.
    #[must_use]
    pub fn unknown(&self) -> Option<Unknown> {
        Unknown::load(self.environment)
    }

    /// The proxies of the environment.
    #[must_use]
    pub fn proxies(&self) -> Proxies {
        Proxies::read(|variable| self.environment.get(variable))
    }

    /// What the terminal can show, by the environment.
    #[must_use]
    pub fn terminal(&self) -> Terminal {
        Terminal::load(self.environment)
    }

    /// The image's build uses only the pod's service account.
    fn no_kubeconfig(&mut self, file: bool, context: bool) {
        const PROBLEM: &str = "only the build for a laptop reads a kubeconfig (cargo feature `laptop`); unset it to use the pod's \
                               service account";
        if file {
            self.fault(&KUBECONFIG, PROBLEM);
        }
        if context {
            self.fault(&KUBE_CONTEXT, PROBLEM);
        }
        if !file && !context {
            self.fault(
                &KUBERNETES_SERVICE_HOST,
                "missing; the kubelet sets it in every pod; outside a pod, use the build for a laptop",
            );
        }
    }

    /// How the Kubernetes API is reached. `host` is [`KUBERNETES_SERVICE_HOST`].
    pub fn kubernetes(&mut self, host: Option<String>) -> Access {
        let path = self.optional(&KUBECONFIG);
        let context = self.optional(&KUBE_CONTEXT);
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
        let service_account_dir = self.optional(&SERVICE_ACCOUNT_DIR);
        Access::InCluster {
            host,
            port: self.get(&KUBERNETES_SERVICE_PORT),
            service_account_dir: service_account_dir
                .unwrap_or_else(|| SERVICE_ACCOUNT_DIR.default.into()),
            proxies: self.proxies(),
        }
    }
}

/// Parses a text. An error repeats the text, unless it may contain a secret.
fn of_text<T>(
    row: &Row,
    value: OsString,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, String> {
    let text = value.into_string().map_err(|_| NOT_UTF8.to_owned())?;
    parse(trimmed::text(&text)).map_err(|problem| {
        // A URL may contain a password before an @, or a key behind a ? or #.
        if row.kind == Kind::Secret || text.contains(['@', '?', '#']) {
            return problem;
        }
        format!("{problem}; the value is {}", quoted(&text))
    })
}

//! Environment variables that look like settings, but are not.

use std::fmt;

use crate::environment::Environment;
use crate::nearest::nearest;
use crate::setting::{OTHERS, Row, SETTINGS};

/// The prefix of variables that only podbeat and podbeat-server read.
const PREFIX: &str = "PODBEAT_";

/// The prefix of variables that only podbeat-server reads.
pub const SERVER_PREFIX: &str = "PODBEAT_SERVER_";

/// The maximum number of variables that are named.
const NAMED: usize = 5;

/// The maximum length of a name, in characters. The longest setting has half of it.
const LONGEST: usize = 64;

/// Environment variables with the prefix of settings that are not settings. `Display` names the first
/// ones, without their values, each with the setting that the user probably meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    variables: Vec<Variable>,
    more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    name: String,
    /// The setting that the user probably meant.
    meant: Option<&'static str>,
}

impl Unknown {
    /// Finds those with podbeat's prefix, except podbeat-server's. `None` if there are none.
    #[must_use]
    pub fn load(environment: &impl Environment) -> Option<Self> {
        let is_own = |name: &str| name.starts_with(PREFIX) && !name.starts_with(SERVER_PREFIX);
        Self::among(environment, is_own, &[SETTINGS, OTHERS])
    }

    /// Finds those with podbeat-server's prefix that are not among `settings`. `None` if there are
    /// none.
    #[must_use]
    pub fn of_server(environment: &impl Environment, settings: &'static [Row]) -> Option<Self> {
        let is_own = |name: &str| name.starts_with(SERVER_PREFIX);
        Self::among(environment, is_own, &[settings])
    }

    /// Skips the variables that the kubelet sets for a Service of the namespace with a name such as
    /// `podbeat`
    /// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
    fn among(
        environment: &impl Environment,
        is_own: impl Fn(&str) -> bool,
        tables: &[&'static [Row]],
    ) -> Option<Self> {
        let names = environment.names();
        let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        let services = names
            .iter()
            .filter_map(|name| name.strip_suffix("_SERVICE_HOST"));
        let mut unknown = Self::default();
        for name in &names {
            let is_known = !is_own(name)
                || settings(tables).any(|row| row.variable == name)
                || services.clone().any(|service| is_of(service, name));
            if !is_known {
                unknown.add(Variable {
                    name: name.to_string(),
                    meant: meant(name, tables),
                });
            }
        }
        (!unknown.variables.is_empty()).then_some(unknown)
    }

    /// Keeps the first names of the alphabet.
    fn add(&mut self, variable: Variable) {
        let at = self
            .variables
            .partition_point(|other| other.name < variable.name);
        self.variables.insert(at, variable);
        if self.variables.len() > NAMED {
            self.variables.pop();
            self.more += 1;
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, variable) in self.variables.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let shown: String = variable.name.chars().take(LONGEST).collect();
            let cut = if shown.len() < variable.name.len() {
                "…"
            } else {
                ""
            };
            write!(f, "{comma}{shown}{cut}")?;
            if let Some(meant) = variable.meant {
                write!(f, " (did you mean {meant}?)")?;
            }
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

fn settings(tables: &[&'static [Row]]) -> impl Iterator<Item = &'static Row> {
    tables.iter().copied().flatten()
}

/// The variable of the most similar setting. The prefix does not count: it would make short names
/// similar to each other. Some settings do not have it.
fn meant(unknown: &str, tables: &[&'static [Row]]) -> Option<&'static str> {
    let rest = |name: &'static str| rest_of(name).unwrap_or(name);
    let rests: Vec<&str> = settings(tables).map(|row| rest(row.variable)).collect();
    let near = nearest(rest_of(unknown)?, &rests)?;
    settings(tables)
        .map(|row| row.variable)
        .find(|variable| rest(variable) == near)
}

/// The part of a name after its prefix.
fn rest_of(name: &str) -> Option<&str> {
    let of_server = name.strip_prefix(SERVER_PREFIX);
    of_server.or_else(|| name.strip_prefix(PREFIX))
}

/// Whether the kubelet sets this variable for a Service, whose name it writes as `service`.
fn is_of(service: &str, name: &str) -> bool {
    let rest = name.strip_prefix(service);
    rest.is_some_and(|rest| {
        ["_SERVICE_PORT", "_PORT"].iter().any(|part| {
            let after = rest.strip_prefix(part);
            after.is_some_and(|after| after.is_empty() || after.starts_with('_'))
        }) || rest == "_SERVICE_HOST"
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn of(names: &[&str]) -> Option<String> {
        let environment: BTreeMap<String, String> = names
            .iter()
            .map(|name| ((*name).to_owned(), "hunter2".to_owned()))
            .collect();
        Unknown::load(&environment).map(|unknown| unknown.to_string())
    }

    #[test]
    fn every_setting_is_known() {
        let names: Vec<&str> = settings(&[SETTINGS, OTHERS])
            .map(|row| row.variable)
            .collect();
        assert!(names.len() > 40);
        assert_eq!(of(&names), None);
        assert_eq!(of(&["HOME", "PODBEAT", "MY_PODBEAT_LOG"]), None);
    }

    #[test]
    fn a_misspelt_setting_is_named_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("PODBEAT_INTERVALL", Some("PODBEAT_INTERVAL")),
            ("PODBEAT_TASK_CONTAINER", Some("PODBEAT_TASK_CONTAINERS")),
            ("PODBEAT_TASKCONTAINERS", Some("PODBEAT_TASK_CONTAINERS")),
            ("PODBEAT_SERVICE_URI", Some("PODBEAT_SERVICE_URL")),
            ("PODBEAT_log_format", Some("PODBEAT_LOG_FORMAT")),
            // These settings have no prefix.
            ("PODBEAT_TASK_RUN_ID", Some("TASK_RUN_ID")),
            ("PODBEAT_JOB_RETRYCOUNT", Some("JOB_RETRY_COUNT")),
            ("PODBEAT_WEATHER", None),
            ("PODBEAT_", None),
        ] {
            let expected = match meant {
                Some(meant) => format!("{name} (did you mean {meant}?)"),
                None => name.to_owned(),
            };
            assert_eq!(of(&[name]), Some(expected));
        }
    }

    #[test]
    fn variables_of_services_are_skipped() {
        let of_services = [
            "PODBEAT_SERVICE_HOST",
            "PODBEAT_SERVICE_PORT",
            "PODBEAT_SERVICE_PORT_METRICS",
            "PODBEAT_PORT",
            "PODBEAT_PORT_9808_TCP",
            "PODBEAT_PORT_9808_TCP_ADDR",
            "PODBEAT_SERVER_SERVICE_HOST",
            "PODBEAT_SERVER_SERVICE_PORT",
            "PODBEAT_SERVER_PORT_443_TCP_PROTO",
        ];
        assert_eq!(of(&of_services), None);
        let all: Vec<&str> = of_services.into_iter().chain(["PODBEAT_PORTS"]).collect();
        assert_eq!(of(&all).as_deref(), Some("PODBEAT_PORTS"));
        // Without the Service, it is not the Service's.
        assert!(of(&["PODBEAT_PORT"]).is_some());
    }

    #[test]
    fn each_program_knows_its_own_settings() {
        let environment: BTreeMap<String, String> = [
            "PODBEAT_SERVER_LISTN",
            "PODBEAT_TOKEN_FIEL",
            "PODBEAT_SERVER_INTERVAL",
        ]
        .map(|name| (name.to_owned(), "hunter2".to_owned()))
        .into();
        let of_podbeat = Unknown::load(&environment).map(|unknown| unknown.to_string());
        assert_eq!(
            of_podbeat.as_deref(),
            Some("PODBEAT_TOKEN_FIEL (did you mean PODBEAT_TOKEN_FILE?)")
        );
        // Any table will do.
        let of_server = Unknown::of_server(&environment, SETTINGS).map(|it| it.to_string());
        assert_eq!(
            of_server.as_deref(),
            Some(
                "PODBEAT_SERVER_INTERVAL (did you mean PODBEAT_INTERVAL?), \
                 PODBEAT_SERVER_LISTN (did you mean PODBEAT_LISTEN?)"
            )
        );
    }

    #[test]
    fn at_most_five_are_named_and_long_names_are_cut() {
        let names: Vec<String> = (1..=7)
            .map(|number| format!("PODBEAT_ODD{number}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(
            of(&names).as_deref(),
            Some(
                "PODBEAT_ODD1, PODBEAT_ODD2, PODBEAT_ODD3, PODBEAT_ODD4, PODBEAT_ODD5, and 2 more"
            )
        );
        let long = of(&[&format!("PODBEAT_{}", "Ä".repeat(100_000))]).expect("unknown");
        assert_eq!(
            long,
            format!("PODBEAT_{}…", "Ä".repeat(LONGEST - PREFIX.len()))
        );
    }

    proptest! {
        #[test]
        fn values_are_never_shown_and_the_text_is_short(
            names in prop::collection::vec("(PODBEAT_)?[A-Z_\\PC\u{0}-\u{1f}]{0,80}", 0..20)
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let text = of(&names).unwrap_or_default();
            prop_assert!(!text.contains("hunter2"));
            prop_assert!(text.chars().count() < NAMED * (LONGEST + 60) + 30);
        }
    }
}

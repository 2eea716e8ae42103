//! The input of a command: environment variables and flags.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Reads environment variables. It is a trait, so that tests can pass a map.
pub trait Environment {
    /// The variable's value, if the variable is set.
    fn get(&self, variable: &str) -> Option<OsString>;

    /// The names of all variables that are set, in any order.
    fn names(&self) -> Vec<OsString>;

    /// The profile that supplies values for unset variables, and its file, as text for people.
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

    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    fn names(&self) -> Vec<OsString> {
        std::env::vars_os().map(|(name, _)| name).collect()
    }
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, variable: &str) -> Option<OsString> {
        self.get(variable).map(OsString::from)
    }

    fn names(&self) -> Vec<OsString> {
        self.keys().map(OsString::from).collect()
    }
}

/// The values of flags. The key is the variable of the flag's setting.
#[derive(Clone, Default)]
pub struct Flags(pub BTreeMap<&'static str, OsString>);

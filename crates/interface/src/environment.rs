//! The input of a command: environment variables and flags.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Reads environment variables. It is a trait, so that tests can pass a map.
pub trait Environment {
    /// The variable's value, if the variable is set.
    fn get(&self, variable: &str) -> Option<OsString>;

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
}

impl Environment for BTreeMap<String, String> {
    fn get(&self, variable: &str) -> Option<OsString> {
        self.get(variable).map(OsString::from)
    }
}

/// The values of flags. The key is the variable of the flag's setting.
#[derive(Clone, Default)]
pub struct Flags(pub BTreeMap<&'static str, OsString>);

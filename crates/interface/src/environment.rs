//! What a command is given: environment variables, and the values of flags.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Reads environment variables. A trait, so that tests pass a map.
pub trait Environment {
    /// The variable's value, if it is set.
    fn get(&self, variable: &str) -> Option<OsString>;

    /// The profile that gives what no variable gives, and its file, in words.
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

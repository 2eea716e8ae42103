//! What can be asked for, typed.

use std::path::PathBuf;
use std::time::Duration;

use podbeat_task_runs::model::{
    ContainerStatus, CreateTaskRunRequest, HeartbeatTaskRunRequest, ListTaskRunsQuery,
};

use super::wait_condition::WaitCondition;

/// One call of `podbeat runs`.
#[derive(Debug)]
pub struct Invocation {
    /// What is to be done.
    pub command: Command,
    /// How the outcome is shown; `None` for what suits the command: a table, or a line that says
    /// what was done.
    pub format: Option<Format>,
    /// Whether a table has a line of headers.
    pub headers: bool,
    /// What the user should know of the command line before anything is done.
    pub notes: Vec<String>,
}

impl Invocation {
    /// Whether a terminal shows what is waited for.
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        matches!(self.command, Command::Wait { quiet: false, .. })
    }

    /// Whether the service is asked at all.
    #[must_use]
    pub fn needs_service(&self) -> bool {
        !matches!(self.command, Command::Create { dry_run: true, .. })
    }
}

/// How outcomes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, for programs.
    Json,
    /// YAML, for people.
    Yaml,
    /// Ids alone, one a line.
    Name,
    /// A table with more columns.
    Wide,
}

impl Format {
    /// All, with the word that each goes by.
    pub const ALL: [(&'static str, Self); 4] = [
        ("json", Self::Json),
        ("yaml", Self::Yaml),
        ("name", Self::Name),
        ("wide", Self::Wide),
    ];
}

/// What is to be done.
#[derive(Debug)]
pub enum Command {
    /// Create task runs.
    Create {
        /// What is asked for.
        from: RequestSource<CreateTaskRunRequest>,
        /// Show the requests, and send none.
        dry_run: bool,
    },
    /// Get task runs.
    Get {
        /// Their ids.
        runs: Vec<String>,
    },
    /// List task runs, all pages.
    List {
        /// Which, in which order, how many a page.
        query: ListTaskRunsQuery,
        /// How many at most; `None` for all.
        limit: Option<usize>,
    },
    /// List task runs, and show what comes and changes.
    WatchList {
        /// Which, in which order, how many a page.
        query: ListTaskRunsQuery,
        /// Between two looks.
        interval: Duration,
    },
    /// Abort task runs.
    Abort {
        /// Their ids.
        runs: Vec<String>,
    },
    /// Send one heartbeat.
    Heartbeat {
        /// The run.
        run: String,
        /// What it tells.
        from: RequestSource<HeartbeatTaskRunRequest>,
    },
    /// Wait until runs have a status.
    Wait {
        /// Their ids.
        runs: Vec<String>,
        /// Which status.
        condition: WaitCondition,
        /// For how long at most; zero to look once.
        timeout: Duration,
        /// Between two looks.
        interval: Duration,
        /// Show nothing on a terminal of what is waited for.
        quiet: bool,
    },
    /// Show what changes until the runs have ended.
    Watch {
        /// Their ids.
        runs: Vec<String>,
        /// The command that was typed: `get --watch` is one.
        is_get: bool,
        /// Between two looks.
        interval: Duration,
    },
}

impl Command {
    /// The command as it is typed, without flags.
    #[must_use]
    pub fn called(&self) -> &'static str {
        match self {
            Self::Create { .. } => "podbeat runs create",
            Self::Get { .. } | Self::Watch { is_get: true, .. } => "podbeat runs get",
            Self::List { .. } | Self::WatchList { .. } => "podbeat runs list",
            Self::Abort { .. } => "podbeat runs abort",
            Self::Heartbeat { .. } => "podbeat runs heartbeat",
            Self::Wait { .. } => "podbeat runs wait",
            Self::Watch { .. } => "podbeat runs watch",
        }
    }
}

/// Where a request comes from.
#[derive(Debug)]
pub enum RequestSource<T> {
    /// The command line.
    Flags(Box<T>),
    /// A file; `-` is standard input.
    File(PathBuf),
}

/// A container's status as a flag tells it: `NAME=waiting[:REASON]`, `NAME=running` or
/// `NAME=terminated:CODE[:REASON]`.
///
/// # Errors
/// What is wrong with it. It is repeated nowhere.
pub fn container_status(text: &str) -> Result<ContainerStatus, &'static str> {
    use podbeat_task_runs::model::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    };
    const WRONG: &str =
        "must be NAME=waiting[:REASON], NAME=running or NAME=terminated:CODE[:REASON]";
    let (name, state) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or(WRONG)?;
    let mut parts = state.splitn(3, ':');
    let state = match (parts.next(), parts.next(), parts.next()) {
        (Some("running"), None, None) => ContainerState::Running(ContainerStateRunning::default()),
        (Some("waiting"), reason, None) => ContainerState::Waiting(ContainerStateWaiting {
            reason: reason.map(str::to_owned),
            message: None,
        }),
        (Some("terminated"), Some(code), reason) => {
            ContainerState::Terminated(ContainerStateTerminated {
                exit_code: Some(
                    code.parse()
                        .map_err(|_| "the exit code must be a whole number")?,
                ),
                reason: reason.map(str::to_owned),
                ..ContainerStateTerminated::default()
            })
        }
        _ => return Err(WRONG),
    };
    Ok(ContainerStatus {
        name: Some(name.to_owned()),
        state: Some(state),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_as_flags_tell_them() {
        let json = |text: &str| {
            container_status(text).map(|status| serde_json::to_string(&status).expect("JSON"))
        };
        for (text, expected) in [
            ("main=running", r#"{"name":"main","state":{"running":{}}}"#),
            ("main=waiting", r#"{"name":"main","state":{"waiting":{}}}"#),
            (
                "main=waiting:ImagePullBackOff",
                r#"{"name":"main","state":{"waiting":{"reason":"ImagePullBackOff"}}}"#,
            ),
            (
                "main=terminated:-1",
                r#"{"name":"main","state":{"terminated":{"exitCode":-1}}}"#,
            ),
            (
                "main=terminated:137:OOMKilled",
                r#"{"name":"main","state":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}}"#,
            ),
        ] {
            assert_eq!(json(text).as_deref(), Ok(expected), "{text}");
        }
        for wrong in [
            "main",
            "=running",
            "main=",
            "main=Running",
            "main=running:now",
            "main=waiting:a:b",
            "main=terminated",
            "main=terminated:x",
        ] {
            assert!(json(wrong).is_err(), "{wrong}");
        }
    }
}

//! The commands of `podbeat runs` as types.

use std::path::PathBuf;
use std::time::Duration;

use podbeat_task_runs::model::{
    ContainerStatus, CreateTaskRunRequest, HeartbeatTaskRunRequest, ListTaskRunsQuery,
};

use super::wait_condition::WaitCondition;

/// One call of `podbeat runs`.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// The output format. `None` for the command's default: a table, or a line that says what was
    /// done.
    pub format: Option<Format>,
    /// Whether a table has a line of headers.
    pub headers: bool,
    /// Notes about the command line, shown before the command runs.
    pub notes: Vec<String>,
}

impl Invocation {
    /// Whether a terminal shows what podbeat waits for.
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        matches!(self.command, Command::Wait { quiet: false, .. })
    }

    /// Whether the command sends requests to the service.
    #[must_use]
    pub fn needs_service(&self) -> bool {
        !matches!(self.command, Command::Create { dry_run: true, .. })
    }
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, for programs.
    Json,
    /// YAML, for people.
    Yaml,
    /// Only IDs, one per line.
    Name,
    /// A table with more columns.
    Wide,
}

impl Format {
    /// All formats, each with its name on the command line.
    pub const ALL: [(&'static str, Self); 4] = [
        ("json", Self::Json),
        ("yaml", Self::Yaml),
        ("name", Self::Name),
        ("wide", Self::Wide),
    ];
}

/// A command with its arguments.
#[derive(Debug)]
pub enum Command {
    /// Create task runs.
    Create {
        /// The source of the requests.
        from: RequestSource<CreateTaskRunRequest>,
        /// Show the requests, but do not send them.
        dry_run: bool,
    },
    /// Get task runs.
    Get {
        /// The runs' IDs.
        runs: Vec<String>,
    },
    /// List task runs, all pages.
    List {
        /// Which runs, in which order, and how many per page.
        query: ListTaskRunsQuery,
        /// The maximum number of runs. `None` for all.
        limit: Option<usize>,
    },
    /// List the task runs of one page.
    ListPage {
        /// Which page: a token, or which runs in which order for the first page.
        query: ListTaskRunsQuery,
    },
    /// List task runs, then show new and changed ones.
    WatchList {
        /// Which runs, in which order, and how many per page.
        query: ListTaskRunsQuery,
        /// The time between two requests.
        interval: Duration,
    },
    /// Abort task runs.
    Abort {
        /// The runs' IDs.
        runs: Vec<String>,
    },
    /// Send one heartbeat.
    Heartbeat {
        /// The run's ID.
        run: String,
        /// The source of the heartbeat.
        from: RequestSource<HeartbeatTaskRunRequest>,
    },
    /// Wait until runs have a status.
    Wait {
        /// The runs' IDs.
        runs: Vec<String>,
        /// The status to wait for.
        condition: WaitCondition,
        /// The maximum time to wait. Zero checks once.
        timeout: Duration,
        /// The time between two requests.
        interval: Duration,
        /// Do not show on a terminal what podbeat waits for.
        quiet: bool,
    },
    /// Show runs and their changes until they have ended.
    Watch {
        /// The runs' IDs.
        runs: Vec<String>,
        /// Whether the user typed `get --watch`.
        is_get: bool,
        /// The time between two requests.
        interval: Duration,
    },
}

impl Command {
    /// The command as the user typed it, without flags.
    #[must_use]
    pub fn called(&self) -> &'static str {
        match self {
            Self::Create { .. } => "podbeat runs create",
            Self::Get { .. } | Self::Watch { is_get: true, .. } => "podbeat runs get",
            Self::List { .. } | Self::ListPage { .. } | Self::WatchList { .. } => {
                "podbeat runs list"
            }
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

/// Parses a container's status from a flag: `NAME=waiting[:REASON]`, `NAME=running` or
/// `NAME=terminated:CODE[:REASON]`.
///
/// # Errors
/// The reason why the text is invalid. The reason never repeats the text.
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
        (Some("running"), None, None) => ContainerState::from(ContainerStateRunning::default()),
        (Some("waiting"), reason, None) => ContainerState::from(ContainerStateWaiting {
            reason: reason.map(str::to_owned),
            message: None,
        }),
        (Some("terminated"), Some(code), reason) => {
            ContainerState::from(ContainerStateTerminated {
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
    fn states_are_parsed_from_flags() {
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

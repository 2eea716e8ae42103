//! `podbeat runs`: the operations of the task-run service from a terminal. This module decides
//! which requests each command sends, how long it continues, and how it shows the result.
//!
//! It contains no flags (`cli`), no wire format (`task_runs`), and no part of the agent.

pub mod candidates;
pub mod command;
mod console;
pub mod image_reference;
pub(crate) mod manifest;
mod poll;
mod printer;
mod status_line;
pub mod wait_condition;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use podbeat_interface::exit::Ending;
use podbeat_interface::service::ServiceConfig;
use podbeat_interface::service::{self, Service};
use podbeat_interface::terminal::one_line;
use podbeat_task_runs::error;
use podbeat_task_runs::model::{
    CreateTaskRunRequest, HeartbeatTaskRunRequest, ListTaskRunsQuery, TaskRun, TaskRunStatus,
    TaskRunSummary,
};
use tokio::time::{Instant, sleep};

use self::command::{Command, Invocation, RequestSource};
pub use self::console::Streams;
use self::console::{Console, Others};
use self::poll::Poll;
use self::printer::{Printer, Shape};
pub use self::status_line::StatusLine;
use self::wait_condition::{Verdict, WaitCondition};
use crate::show::age::age;

/// The minimum timeout of the last request, which is sent when the time to wait is over.
const LAST_LOOK: Duration = Duration::from_secs(2);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the service failed, or could not be sent.
    #[error(transparent)]
    Service(#[from] error::Error),
    /// A file cannot be read.
    #[error("cannot read the request from {from}")]
    Read {
        /// The file, or standard input.
        from: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The text is not a valid request.
    #[error("{from}: invalid request:\n  {}", problems.join("\n  "))]
    Malformed {
        /// The source of the text.
        from: String,
        /// What is wrong, each with its place.
        problems: Vec<String>,
    },
    /// The run ended in another status.
    #[error("task run {run} has ended with status {status}; it cannot become {condition}")]
    Unmet {
        /// The run's ID.
        run: String,
        /// The run's status.
        status: String,
        /// The status that the command waited for.
        condition: WaitCondition,
    },
    /// The time to wait is over.
    #[error(
        "timed out after {} waiting for task run {run} to be {condition}: {seen}",
        humantime::format_duration(*timeout)
    )]
    Overdue {
        /// The run's ID.
        run: String,
        /// The status that the command waited for.
        condition: WaitCondition,
        /// The time to wait.
        timeout: Duration,
        /// The last known status of the run.
        seen: String,
    },
    /// More runs match than podbeat can watch.
    #[error(
        "more than {} task runs match; narrow the list, for example with --status",
        Known::MOST
    )]
    TooMany,
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl Error {
    /// How the process ends with this error.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Service(error) => service::ending(error),
            Self::Read { .. } => Ending::Unread,
            Self::Malformed { .. } | Self::TooMany => Ending::Refused,
            Self::Unmet { .. } => Ending::Unmet,
            Self::Overdue { .. } => Ending::Overdue,
            Self::Write(_) => Ending::Unwritten,
        }
    }
}

/// Runs a command. `config` is required if [`Invocation::needs_service`] is true. `seed` determines
/// nonces and jitter.
///
/// If several runs are named and one fails, podbeat continues with the others, unless they would
/// fail in the same way. The first error determines the exit code.
pub async fn run(
    config: Option<&ServiceConfig>,
    invocation: &Invocation,
    streams: Streams<'_>,
    seed: u64,
) -> Ending {
    let mut console = Console::new(streams, invocation.format, invocation.headers);
    for note in &invocation.notes {
        console.note(note);
    }
    let done = match (config, &invocation.command) {
        (
            _,
            Command::Create {
                from,
                dry_run: true,
            },
        ) => console.dry_run(from),
        (Some(config), command) => match Service::new(config) {
            Ok(service) => {
                let rng = fastrand::Rng::with_seed(seed);
                Session {
                    service,
                    rng,
                    console: &mut console,
                }
                .command(command)
                .await
            }
            Err(error) => Err(error.into()),
        },
        // Every other command needs the service.
        (None, _) => return Ending::Usage,
    };
    match done {
        Ok(()) => console.ending(),
        // The reader, such as `head`, has read enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => console.ending(),
        Err(error) => console.failed(&error),
    }
}

struct Session<'run, 'streams> {
    service: Service,
    rng: fastrand::Rng,
    console: &'run mut Console<'streams>,
}

impl Session<'_, '_> {
    async fn command(&mut self, command: &Command) -> Result<(), Error> {
        match command {
            Command::Create { from, .. } => self.create(from).await,
            Command::Get { runs } => self.get(runs).await,
            Command::List { query, limit } => self.list(query, *limit).await,
            Command::WatchList { query, interval } => self.watch_list(query, *interval).await,
            Command::Abort { runs } => self.abort(runs).await,
            Command::Heartbeat { run, from } => self.heartbeat(run, from).await,
            Command::Wait {
                runs,
                condition,
                timeout,
                interval,
                ..
            } => self.wait(runs, condition, *timeout, *interval).await,
            Command::Watch { runs, interval, .. } => self.watch(runs, *interval).await,
        }
    }

    /// Asks for each in turn, and passes over what fails, unless the others would fail alike.
    /// Returns what succeeded. `done` says in words what was done, for a terminal.
    ///
    /// # Errors
    /// Standard output cannot be written.
    async fn each<T, R>(
        &mut self,
        all: &[T],
        mut ask: impl AsyncFnMut(&mut Self, &T) -> Result<R, Error>,
        done: impl Fn(&T, &R) -> Option<String>,
    ) -> Result<Vec<R>, Error> {
        let mut succeeded = Vec::new();
        for (nth, one) in all.iter().enumerate() {
            match ask(self, one).await {
                Ok(result) => {
                    if self.console.talks()
                        && let Some(words) = done(one, &result)
                    {
                        self.console.say(format_args!("{words}"))?;
                    }
                    succeeded.push(result);
                }
                Err(error) => {
                    let left = all.len() - nth - 1;
                    if self.console.failed_of_some(&error, left) == Others::WouldFailToo {
                        break;
                    }
                }
            }
        }
        Ok(succeeded)
    }

    async fn create(&mut self, from: &RequestSource<CreateTaskRunRequest>) -> Result<(), Error> {
        let requests = self.console.new_runs(from)?;
        let created = self
            .each(
                &requests,
                async |session, request| Ok(session.service.create(request).await?),
                |_, run| {
                    let id = run.id.as_deref();
                    let id = id.map_or_else(|| "(without an ID)".to_owned(), one_line);
                    Some(format!("task run {id} created"))
                },
            )
            .await?;
        self.console.show_done(&created, requests.len())
    }

    async fn get(&mut self, runs: &[String]) -> Result<(), Error> {
        let found = self
            .each(
                runs,
                async |session, run| Ok(session.service.get(run, Duration::MAX).await?),
                |_, _| None,
            )
            .await?;
        self.console.show(&found, runs.len())
    }

    async fn list(&mut self, query: &ListTaskRunsQuery, limit: Option<usize>) -> Result<(), Error> {
        let token = self.service.token()?;
        let (client, timeout) = (self.service.client(), self.service.timeout());
        let mut runs = client.list_all(query.clone(), &token, timeout);
        let mut printer = self.console.printer(Shape::Many);
        let (mut shown, mut failure) = (0_usize, None);
        while limit.is_none_or(|limit| shown < limit) {
            match runs.next().await {
                Some(Ok(run)) => {
                    let out = self.console.out();
                    printer
                        .run(out, &run, Timestamp::now())
                        .map_err(Error::Write)?;
                }
                Some(Err(error)) => {
                    failure = Some(error);
                    break;
                }
                None => break,
            }
            shown += 1;
        }
        printer.end(self.console.out()).map_err(Error::Write)?;
        if let Some(error) = failure {
            if shown > 0 {
                let note = format!("the list is incomplete: it ends after {shown} task runs");
                self.console.note(&note);
            }
            return Err(error.into());
        }
        if shown == 0 && self.console.draws() {
            self.console.note("no task runs found");
        }
        Ok(())
    }

    async fn abort(&mut self, runs: &[String]) -> Result<(), Error> {
        // An unusable token is one error, however many runs there are.
        self.service.token()?;
        let aborted = self
            .each(
                runs,
                async |session, run| {
                    let token = session.service.token()?;
                    let (client, timeout) = (session.service.client(), session.service.timeout());
                    Ok(client.abort(run, &token, timeout).await?)
                },
                |run, _| Some(format!("task run {} aborted", one_line(run))),
            )
            .await?;
        self.console.show_done(&aborted, runs.len())
    }

    async fn heartbeat(
        &mut self,
        run: &str,
        from: &RequestSource<HeartbeatTaskRunRequest>,
    ) -> Result<(), Error> {
        let mut requests = self.console.requests(from)?;
        let (Some(mut request), true) = (requests.pop(), requests.is_empty()) else {
            return Err(Error::Malformed {
                from: from.to_string(),
                problems: vec!["more than one heartbeat; send them one by one".to_owned()],
            });
        };
        if request.nonce.is_none() {
            // A random nonce, as the agent uses it: it identifies repetitions of a heartbeat.
            request.nonce = Some(format!("{:032x}", self.rng.u128(..)));
        }
        let token = self.service.token()?;
        let (client, timeout) = (self.service.client(), self.service.timeout());
        let accepted = client.heartbeat(run, &request, &token, timeout).await?;
        if let Some(problem) = accepted.unreadable {
            let note = format!("the service accepted the heartbeat, but its response is {problem}");
            self.console.note(&note);
        }
        if accepted.jwt.is_some() {
            self.console.note(
                "the service sent a new token with its response; podbeat runs does not store it",
            );
        }
        if self.console.draws() {
            let which = match request.last_heartbeat {
                Some(true) => "last heartbeat",
                Some(false) | None => "heartbeat",
            };
            let run = one_line(run);
            return self
                .console
                .say(format_args!("{which} of task run {run} accepted"));
        }
        // The nonce is a secret if the service issued it.
        request.nonce = None;
        self.console.show_sent(run, &request)
    }

    async fn wait(
        &mut self,
        runs: &[String],
        condition: &WaitCondition,
        timeout: Duration,
        interval: Duration,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let met = self
            .each(
                runs,
                async |session, run| {
                    session
                        .wait_for(run, condition, began, timeout, interval)
                        .await
                },
                |run, seen| {
                    let (run, status) = (one_line(run), told(seen.status.as_ref()));
                    Some(format!("task run {run} is {status}"))
                },
            )
            .await?;
        self.console.show_done(&met, runs.len())
    }

    async fn wait_for(
        &mut self,
        run: &str,
        condition: &WaitCondition,
        began: Instant,
        timeout: Duration,
        interval: Duration,
    ) -> Result<TaskRun, Error> {
        let left = || timeout.saturating_sub(began.elapsed());
        let (mut poll, mut seen) = (Poll::default(), None::<TaskRun>);
        let mut is_last = timeout.is_zero();
        let waiting = |seen: Option<&TaskRun>| Waiting {
            run: one_line(run),
            condition,
            status: seen.map(|seen| told(seen.status.as_ref())),
            since: seen.and_then(|seen| seen.time_modified.as_ref()?.timestamp()),
            elapsed: began.elapsed(),
            timeout,
        };
        loop {
            // The first request has the full timeout. The last one is sent when the time to wait is
            // over.
            let limit = if poll.is_first() {
                Duration::MAX
            } else {
                left().max(LAST_LOOK)
            };
            let look = self.service.get(run, limit);
            let status = self.console.status();
            let look = status.while_waiting(|| waiting(seen.as_ref()).text(Timestamp::now()), look);
            let pause = match look.await {
                Ok(found) => match condition.judge(found.status.as_ref()) {
                    Verdict::Met => return Ok(found),
                    Verdict::Vain => {
                        return Err(Error::Unmet {
                            run: one_line(run),
                            status: told(found.status.as_ref()),
                            condition: condition.clone(),
                        });
                    }
                    Verdict::Open => {
                        seen = Some(found);
                        poll.seen(interval, &mut self.rng)
                    }
                },
                Err(error) => self.passing(&mut poll, error, !is_last)?,
            };
            if is_last {
                return Err(Error::Overdue {
                    run: one_line(run),
                    condition: condition.clone(),
                    timeout,
                    seen: match seen {
                        Some(seen) => format!("it is {}", told(seen.status.as_ref())),
                        None => "the service did not report its status".to_owned(),
                    },
                });
            }
            let left = left();
            is_last = pause >= left;
            let status = self.console.status();
            let pause = sleep(pause.min(left));
            status
                .while_waiting(|| waiting(seen.as_ref()).text(Timestamp::now()), pause)
                .await;
        }
    }

    /// Shows runs and their changes until all of them have ended.
    async fn watch(&mut self, runs: &[String], interval: Duration) -> Result<(), Error> {
        let mut printer = self.console.printer(Shape::Stream);
        let mut poll = Poll::default();
        let mut open: Vec<(&String, Option<TaskRun>)> =
            runs.iter().map(|run| (run, None)).collect();
        loop {
            let (mut still_open, mut failed) = (Vec::new(), None);
            let mut left = open.into_iter();
            for (run, last) in left.by_ref() {
                match self.service.get(run, Duration::MAX).await {
                    Ok(found) => {
                        if last.as_ref() != Some(&found) {
                            let out = self.console.out();
                            printer
                                .run(out, &found, Timestamp::now())
                                .map_err(Error::Write)?;
                        }
                        if !found.status.as_ref().is_some_and(TaskRunStatus::is_over) {
                            still_open.push((run, Some(found)));
                        }
                    }
                    Err(error) => {
                        failed = Some(self.passing(&mut poll, error, true)?);
                        still_open.push((run, last));
                        break;
                    }
                }
            }
            // The others are requested again when the service can be reached.
            still_open.extend(left);
            if still_open.is_empty() {
                return Ok(());
            }
            open = still_open;
            let pause = failed.unwrap_or_else(|| poll.seen(interval, &mut self.rng));
            sleep(pause).await;
        }
    }

    /// Shows a list, then each new or changed run, until a signal ends the command.
    async fn watch_list(
        &mut self,
        query: &ListTaskRunsQuery,
        interval: Duration,
    ) -> Result<(), Error> {
        let mut printer = self.console.printer(Shape::Stream);
        let (mut poll, mut known) = (Poll::default(), Known::default());
        loop {
            let pause = match self.look_at_list(query, &mut printer, &mut known).await {
                Ok(()) => poll.seen(interval, &mut self.rng),
                Err(Error::Service(error)) => self.passing(&mut poll, error, true)?,
                Err(error) => return Err(error),
            };
            sleep(pause).await;
        }
    }

    async fn look_at_list(
        &mut self,
        query: &ListTaskRunsQuery,
        printer: &mut Printer,
        known: &mut Known,
    ) -> Result<(), Error> {
        let token = self.service.token()?;
        let (client, timeout) = (self.service.client(), self.service.timeout());
        let mut runs = client.list_all(query.clone(), &token, timeout);
        while let Some(run) = runs.next().await {
            let run = run?;
            if known.is_news(&run)? {
                let out = self.console.out();
                printer
                    .run(out, &run, Timestamp::now())
                    .map_err(Error::Write)?;
            }
        }
        Ok(())
    }

    /// The pause after an error that may be temporary. Of several such errors in a row, podbeat
    /// reports only the first, and only if it will try again.
    ///
    /// # Errors
    /// The error itself, if it is permanent.
    fn passing(
        &mut self,
        poll: &mut Poll,
        error: error::Error,
        goes_on: bool,
    ) -> Result<Duration, Error> {
        if service::ending(&error) != Ending::Unavailable {
            return Err(error.into());
        }
        if goes_on && poll.is_news() {
            self.console.note(&format!(
                "{}; retrying",
                podbeat_interface::exit::with_causes(&error)
            ));
        }
        let retry_after = match error {
            error::Error::Status { retry_after, .. } => retry_after,
            _ => None,
        };
        Ok(poll.failed(retry_after, &mut self.rng))
    }
}

/// The runs of a list that were already shown, at 16 bytes each.
#[derive(Debug, Default)]
struct Known {
    shown: HashMap<u64, u64>,
    hashes: RandomState,
}

impl Known {
    /// The maximum number of runs to watch for changes. They take about 4 MiB.
    const MOST: usize = 100_000;

    /// Whether the run is new or changed since it was last shown.
    fn is_news(&mut self, run: &TaskRunSummary) -> Result<bool, Error> {
        let whole = serde_json::to_string(run).unwrap_or_default();
        let (id, state) = (self.hashes.hash_one(&run.id), self.hashes.hash_one(whole));
        if self.shown.len() >= Self::MOST && !self.shown.contains_key(&id) {
            return Err(Error::TooMany);
        }
        Ok(self.shown.insert(id, state) != Some(state))
    }
}

/// What podbeat waits for, for the status line.
struct Waiting<'wait> {
    run: String,
    condition: &'wait WaitCondition,
    /// The run's last known status.
    status: Option<String>,
    /// The time of the run's last change.
    since: Option<Timestamp>,
    elapsed: Duration,
    timeout: Duration,
}

impl Waiting<'_> {
    fn text(&self, now: Timestamp) -> String {
        let seconds = |duration: Duration| {
            humantime::format_duration(Duration::from_secs(duration.as_secs()))
        };
        let status = match (&self.status, self.since) {
            (Some(status), Some(since)) => format!("{status} for {}", age(since, now)),
            (Some(status), None) => status.clone(),
            (None, _) => "not seen yet".to_owned(),
        };
        format!(
            "waiting for task run {} to be {}: {status}; {} of {}",
            self.run,
            self.condition,
            seconds(self.elapsed),
            seconds(self.timeout)
        )
    }
}

fn told(status: Option<&TaskRunStatus>) -> String {
    status.map_or_else(
        || "without a status".to_owned(),
        |status| one_line(status.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_says_what_is_waited_for() {
        let (condition, _) = WaitCondition::parse("Completed").expect("right");
        let mut waiting = Waiting {
            run: "trn.1".to_owned(),
            condition: &condition,
            status: None,
            since: None,
            elapsed: Duration::from_millis(12_900),
            timeout: Duration::from_secs(7200),
        };
        let now: Timestamp = "2026-01-01T00:05:07Z".parse().expect("a time");
        assert_eq!(
            waiting.text(now),
            "waiting for task run trn.1 to be Completed: not seen yet; 12s of 2h"
        );
        waiting.status = Some("Running".to_owned());
        waiting.since = Some("2026-01-01T00:00:00Z".parse().expect("a time"));
        assert_eq!(
            waiting.text(now),
            "waiting for task run trn.1 to be Completed: Running for 5m7s; 12s of 2h"
        );
    }

    #[test]
    fn a_run_is_news_when_it_comes_and_when_it_changes() {
        let run = |status: &str| -> TaskRunSummary {
            serde_json::from_value(serde_json::json!({"id": "trn.1", "status": status}))
                .expect("a run")
        };
        let mut known = Known::default();
        let mut is_news = |status| known.is_news(&run(status)).expect("room");
        assert_eq!(
            ["Pending", "Pending", "Running", "Running", "Pending"].map(&mut is_news),
            [true, false, true, false, true]
        );
    }
}

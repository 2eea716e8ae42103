//! `podbeat runs`: the operations of the task-run service from a terminal. This module sends the
//! requests of each command and shows the result. `wait` and `watch` repeat their requests.
//!
//! It contains no flags (`cli`), no wire format (`task_runs`), and no part of the agent.

pub mod candidates;
pub mod command;
mod console;
pub mod credentials_file;
mod error;
pub mod image_reference;
mod known;
pub(crate) mod manifest;
mod poll;
mod printer;
mod session;
mod status_line;
mod wait;
pub mod wait_condition;
mod watch;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use podbeat_interface::exit::Ending;
use podbeat_interface::service::{Service, ServiceConfig};
use podbeat_interface::terminal::one_line;
use podbeat_task_runs::model::{
    CreateTaskRunRequest, HeartbeatTaskRunRequest, ListTaskRunsQuery, PageSize,
};

use self::command::{Command, Invocation, RequestSource};
use self::console::Console;
pub use self::console::Streams;
use self::error::Error;
use self::printer::Shape;
use self::session::Session;
pub use self::status_line::StatusLine;

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

impl Session<'_, '_> {
    async fn command(&mut self, command: &Command) -> Result<(), Error> {
        match command {
            Command::Create { from, .. } => self.create(from).await,
            Command::Get { runs } => self.get(runs).await,
            Command::List { query, limit } => self.list(query, *limit).await,
            Command::ListPage { query } => self.list_page(query).await,
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

    async fn list_page(&mut self, query: &ListTaskRunsQuery) -> Result<(), Error> {
        let mut query = query.clone();
        if query.page_token.is_none() {
            query.page_size.get_or_insert(PageSize::LARGEST);
        }
        let token = self.service.token()?;
        let (client, timeout) = (self.service.client(), self.service.timeout());
        let page = client.list(&query, &token, timeout).await?;
        self.console.show_page(&page)
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
}

//! `podbeat runs watch`, `get --watch` and `list --watch`: shows runs again after each change.

use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use podbeat_task_runs::model::{ListTaskRunsQuery, TaskRun, TaskRunStatus};
use tokio::time::sleep;

use super::error::Error;
use super::known::Known;
use super::poll::Poll;
use super::printer::{Printer, Shape};
use super::session::Session;

impl Session<'_, '_> {
    /// Shows runs and their changes until all of them have ended.
    pub(super) async fn watch(&mut self, runs: &[String], interval: Duration) -> Result<(), Error> {
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
    pub(super) async fn watch_list(
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
}

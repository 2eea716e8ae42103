//! `podbeat runs wait`: asks for runs until they have a status, and shows meanwhile what podbeat
//! waits for.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_interface::terminal::one_line;
use podbeat_task_runs::model::{TaskRun, TaskRunStatus};
use tokio::time::{Instant, sleep};

use super::error::Error;
use super::poll::Poll;
use super::session::Session;
use super::wait_condition::{Verdict, WaitCondition};
use crate::show::age::age;

/// The minimum timeout of the last request, which is sent when the time to wait is over.
const LAST_LOOK: Duration = Duration::from_secs(2);

impl Session<'_, '_> {
    pub(super) async fn wait(
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
}

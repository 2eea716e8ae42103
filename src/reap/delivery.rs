//! Asks the service whether it waits for a last heartbeat, and sends it at most once.

use podbeat_heartbeat::answer::LastAnswer;
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::service::{self, Service};
use podbeat_kubernetes::listed::Pods;
use podbeat_task_runs::error;
use podbeat_task_runs::model::TaskRunStatus;

use super::error::Error;
use super::outcome::{Case, Outcome, Said};
use podbeat_reap::{Missing, OwnWord, waits};

/// The service, and what a heartbeat for it may still lack.
pub(super) struct Delivery {
    pub(super) service: Service,
    /// The cluster's pods, unless the target is a journal.
    pub(super) pods: Option<Pods>,
    /// Send nothing.
    pub(super) dry_run: bool,
}

impl Delivery {
    /// Sends a missing heartbeat, if the service still waits for it.
    pub(super) async fn deliver(&mut self, missing: &mut Missing) -> Result<Case, Error> {
        if let Some(case) = self.is_waited_for(missing).await? {
            return Ok(case);
        }
        // Without a retry count, the service would attribute the heartbeat to the Job's first pod.
        if let (Some(pods), Some(uncounted)) = (&self.pods, missing.uncounted.take()) {
            let count = pods
                .failed_before(&uncounted.namespace, &uncounted.pod)
                .await?;
            missing.request.job_retry_count = count;
        }
        if self.dry_run {
            let message = format!("would send the last heartbeat: {}", Said(missing));
            return Ok(Case::new(Outcome::WouldSend, message));
        }
        Ok(self.send(missing).await?)
    }

    /// Asks the service for the run's status. Returns `None` if it waits for this last heartbeat.
    async fn is_waited_for(&mut self, missing: &Missing) -> Result<Option<Case>, error::Error> {
        let status = match self.service.status(&missing.run).await {
            Ok(status) => status,
            Err(error) => {
                return match (service::ending(&error), missing.own_word) {
                    (Ending::NoSuchRun, _) => Ok(Some(disowned(&error))),
                    // Such a token may still be valid for heartbeats, and podbeat itself reported
                    // that this heartbeat is missing.
                    (Ending::Denied, OwnWord::Undelivered) => Ok(None),
                    _ => Err(error),
                };
            }
        };
        let status = status.as_ref();
        let word = status.map_or("(none)", TaskRunStatus::as_str);
        Ok(match status.and_then(waits) {
            Some(true) => None,
            Some(false) if missing.own_word == OwnWord::Delivered => Some(Case::new(
                Outcome::Settled,
                format!(
                    "podbeat delivered a last heartbeat, and the service knows how the run ended: {word}"
                ),
            )),
            Some(false) => Some(Case::new(
                Outcome::Known,
                format!("the service already knows how the run ended: {word}"),
            )),
            None => Some(Case::new(
                Outcome::Unclear,
                format!("its run has a status that this version of podbeat does not know: {word}"),
            )),
        })
    }

    async fn send(&mut self, missing: &Missing) -> Result<Case, error::Error> {
        let mut request = missing.request.clone();
        loop {
            let token = self.service.token()?;
            let (client, timeout) = (self.service.client(), self.service.timeout());
            let answer = client
                .heartbeat(&missing.run, &request, &token, timeout)
                .await;
            let Err(error) = answer else {
                let message = format!("sent the last heartbeat: {}", Said(missing));
                return Ok(Case::new(Outcome::Sent, message));
            };
            let stripped = request.container_status.is_none();
            match service::answer(&error).of_last_heartbeat(stripped, false) {
                LastAnswer::NotOurs => return Ok(disowned(&error)),
                LastAnswer::WithoutStates => request.container_status = None,
                LastAnswer::Accepted | LastAnswer::Refused | LastAnswer::TryAgain => {
                    return Err(error);
                }
            }
        }
    }
}

fn disowned(error: &error::Error) -> Case {
    let message = format!("nothing to send: {}", with_causes(error));
    Case::new(Outcome::Disowned, message)
}

//! Carries an attempt to the service and its answer back, and keeps the token.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::handover;
use super::trouble::{Chain, Repeats};
use crate::config::{Config, TokenSource};
use crate::heartbeat::answer::{self, Answer};
use crate::heartbeat::machine::{Attempt, Event};
use crate::task_runs::client::{Accepted, Client};
use crate::task_runs::credentials::{Credentials, Source};
use crate::task_runs::error::{Error, RetryAfter};

/// Where heartbeats go.
pub(super) struct Delivery {
    destination: Destination,
    failures: Repeats,
}

enum Destination {
    Service(Box<Service>),
    /// `--dry-run`: each heartbeat is logged and taken as accepted.
    Nowhere,
}

struct Service {
    client: Client,
    credentials: Credentials,
    run_id: String,
    renewed_token_file: Option<PathBuf>,
}

/// What became of one attempt.
pub(super) struct Outcome {
    attempt: u64,
    kind: &'static str,
    result: Result<Accepted, Error>,
    took: Duration,
}

impl Delivery {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let destination = match (&config.service_url, &config.token) {
            (Some(url), Some(token)) if !config.dry_run => Destination::Service(Box::new(Service {
                client: Client::new(url.url().clone(), &super::tls(config))?,
                credentials: Credentials::new(match token {
                    TokenSource::File(path) => Source::File(path.clone()),
                    TokenSource::Inline(token) => Source::Inline(token.clone()),
                }),
                run_id: config.task_run_id.clone(),
                renewed_token_file: config.renewed_token_file.clone(),
            })),
            // The settings demand both unless it is a dry run.
            _ => Destination::Nowhere,
        };
        Ok(Self {
            destination,
            failures: Repeats::default(),
        })
    }

    /// Begins an attempt. The future does nothing but the exchange itself.
    pub(super) fn begin(&mut self, attempt: Attempt) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let number = attempt.number;
        let (beat, kind) = (attempt.beat.0, attempt.beat.1.name());
        debug!(
            heartbeat = beat,
            kind,
            attempt = number,
            retries = attempt.retries,
            "sending a heartbeat"
        );
        let conclude = move |result, took| Outcome {
            attempt: number,
            kind,
            result,
            took,
        };
        match &mut self.destination {
            Destination::Nowhere => {
                let body = serde_json::to_string(&attempt.request).unwrap_or_default();
                info!(heartbeat = beat, kind, %body, "dry run: this heartbeat would be sent");
                Box::pin(async move { conclude(Ok(Accepted::default()), Duration::ZERO) })
            }
            Destination::Service(service) => {
                if attempt.reread_token {
                    service.credentials.reread();
                }
                let token = service.credentials.token();
                let (client, run_id) = (service.client.clone(), service.run_id.clone());
                Box::pin(async move {
                    let begun = tokio::time::Instant::now();
                    let result = match token {
                        Ok(token) => {
                            client
                                .heartbeat(&run_id, &attempt.request, &token, attempt.timeout)
                                .await
                        }
                        Err(error) => Err(error.into()),
                    };
                    conclude(result, begun.elapsed())
                })
            }
        }
    }

    /// Takes the answer in and says what it means to the core.
    pub(super) fn conclude(&mut self, outcome: Outcome) -> Event {
        let Outcome {
            attempt,
            kind,
            result,
            took,
        } = outcome;
        let answer = match result {
            Ok(accepted) => {
                if let Some(failed) = self.failures.over() {
                    info!(
                        kind,
                        failed_before = failed,
                        "the service accepts heartbeats again"
                    );
                }
                debug!(kind, ?took, "accepted");
                if let Some(unreadable) = accepted.unreadable {
                    warn!(
                        kind,
                        "the heartbeat was accepted, but the answer's body is {unreadable}: a new token in it would be lost"
                    );
                }
                self.renew(accepted);
                Answer::Accepted
            }
            Err(error) => {
                if let Some(repeats) = self.failures.worth_telling(&error.to_string()) {
                    warn!(kind, repeats, error = %Chain(&error), "a heartbeat was not accepted");
                }
                answer_of(&error)
            }
        };
        Event::Answered { attempt, answer }
    }

    fn renew(&mut self, accepted: Accepted) {
        let (Some(jwt), Destination::Service(service)) = (accepted.jwt, &mut self.destination) else {
            return;
        };
        if let Err(error) = service.credentials.renew(jwt.clone()) {
            warn!(error = %Chain(&error), "the service sent a token that can't be used");
            return;
        }
        info!("the service renewed the token");
        if let Some(path) = &service.renewed_token_file
            && let Err(error) = handover::hand_on(path, &jwt)
        {
            warn!(error = %Chain(&error), "the renewed token could not be handed on; podbeat itself uses it");
        }
    }
}

fn answer_of(error: &Error) -> Answer {
    match error {
        Error::Status {
            status, retry_after, ..
        } => {
            let retry_after = retry_after.map(|asked| match asked {
                RetryAfter::Delay(delay) => answer::RetryAfter::Delay(delay),
                RetryAfter::At(date) => answer::RetryAfter::At(date),
            });
            Answer::from_status(*status, retry_after)
        }
        Error::Ambiguous(_) => Answer::Ambiguous,
        Error::Token(_) | Error::Connect(_) => Answer::NotSent,
        // These end the process before anything is sent; should one come later, nothing was sent either.
        Error::Setup(_) | Error::File { .. } | Error::NoCertificate { .. } => Answer::NotSent,
    }
}

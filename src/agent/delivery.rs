//! Carries an attempt to the service and its answer back, and keeps the token.

use std::pin::Pin;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};

use super::journal::Journal;
use super::keeper::{Keeper, Written};
use super::trouble::{Chain, Repeats};
use crate::config::{Config, TokenSource};
use crate::heartbeat::answer::{self, Answer};
use crate::heartbeat::machine::{Attempt, Event};
use crate::task_runs::Secret;
use crate::task_runs::client::{Accepted, Client};
use crate::task_runs::credentials::{self, Credentials, Renewed, Source};
use crate::task_runs::error::{Error, RetryAfter};
use crate::telemetry::instruments::{Instruments, Reply};

/// A renewed token is readable for the pod's group (`fsGroup`), for nobody else.
const HANDED_ON: u32 = 0o640;

/// The longest that an attempt waits for the journal. A disk that takes longer must not hold a heartbeat up; what is
/// lost then is only that a restart in this very moment would send it under another nonce.
const JOURNAL: Duration = Duration::from_millis(500);

/// How long before its end a token's expiry is worth a warning.
const EXPIRY_IS_NEAR: SignedDuration = SignedDuration::from_mins(10);

/// Where heartbeats go.
pub(super) struct Delivery {
    destination: Destination,
    failures: Repeats,
    instruments: Instruments,
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
    hands_on: Option<Keeper>,
    expiry: Expiry,
}

/// Warns of a token whose end is near, once, and once more when it has come.
#[derive(Default)]
struct Expiry {
    token: Option<Secret>,
    at: Option<Timestamp>,
    told_near: bool,
    told_over: bool,
}

impl Expiry {
    fn watch(&mut self, token: &Secret, now: Timestamp) {
        if self.token.as_ref() != Some(token) {
            *self = Self {
                at: credentials::expires_at(token),
                token: Some(token.clone()),
                ..Self::default()
            };
        }
        let Some(at) = self.at else { return };
        let left = at.duration_since(now);
        if left <= SignedDuration::ZERO && !std::mem::replace(&mut self.told_over, true) {
            warn!(expired_at = %at, "the bearer token has expired; the service is asked with it all the same");
        } else if left > SignedDuration::ZERO
            && left <= EXPIRY_IS_NEAR
            && !std::mem::replace(&mut self.told_near, true)
        {
            warn!(expires_at = %at, "the bearer token will expire soon, and no newer one is at hand");
        }
    }
}

/// What became of one attempt.
pub(super) struct Outcome {
    attempt: u64,
    kind: &'static str,
    result: Result<Accepted, Error>,
    took: Duration,
}

impl Delivery {
    pub(super) fn new(
        config: &Config,
        renewed: Option<Renewed>,
        rng: fastrand::Rng,
        instruments: &Instruments,
    ) -> Result<Self, Error> {
        let destination = match (&config.service_url, &config.token) {
            (Some(url), Some(token)) if !config.dry_run => {
                let client = Client::new(url.url().clone(), &super::tls(config))?;
                let source = match token {
                    TokenSource::File(path) => Source::File(path.clone()),
                    TokenSource::Inline(token) => Source::Inline(token.clone()),
                };
                let mut hands_on = config
                    .renewed_token_file
                    .clone()
                    .map(|path| Keeper::new("the renewed token", path, HANDED_ON, rng, instruments));
                if let (Some(hands_on), Some(renewed)) = (&mut hands_on, &renewed) {
                    // The earlier process may have ended between the journal and this.
                    hands_on.put(renewed.token().expose().into());
                }
                Destination::Service(Box::new(Service {
                    client,
                    credentials: Credentials::new(source, renewed),
                    run_id: config.task_run_id.clone(),
                    hands_on,
                    expiry: Expiry::default(),
                }))
            }
            // The settings demand both unless it is a dry run.
            _ => Destination::Nowhere,
        };
        Ok(Self {
            destination,
            failures: Repeats::default(),
            instruments: instruments.clone(),
        })
    }

    /// Begins an attempt. The future does nothing but wait for the journal and the exchange itself.
    pub(super) fn begin(
        &mut self,
        attempt: Attempt,
        journal: &mut Journal,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
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
                self.instruments.begun();
                Box::pin(async move { conclude(Ok(Accepted::default()), Duration::ZERO) })
            }
            Destination::Service(service) => {
                if attempt.reread_token {
                    service.credentials.reread();
                }
                let token = service.credentials.token();
                if let Ok(token) = &token {
                    service.expiry.watch(token, Timestamp::now());
                    self.instruments.token_expires(service.expiry.at);
                }
                journal.keep_token(service.credentials.renewed());
                let written = journal.written();
                let (client, run_id) = (service.client.clone(), service.run_id.clone());
                let instruments = self.instruments.clone();
                Box::pin(async move {
                    let begun = tokio::time::Instant::now();
                    if let Some(written) = written {
                        written.within(JOURNAL.min(attempt.timeout / 4)).await;
                    }
                    instruments.begun();
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
    pub(super) fn conclude(&mut self, outcome: Outcome, journal: &mut Journal) -> Event {
        let Outcome {
            attempt,
            kind,
            result,
            took,
        } = outcome;
        // What is only logged is no request.
        if matches!(self.destination, Destination::Service(_)) {
            self.instruments.replied(reply_of(&result), took);
        }
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
                self.renew(accepted, journal);
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

    /// For whoever must not end before a renewed token was handed on.
    pub(super) fn handed_on(&self) -> Option<Written> {
        match &self.destination {
            Destination::Service(service) => service.hands_on.as_ref().map(Keeper::written),
            Destination::Nowhere => None,
        }
    }

    fn renew(&mut self, accepted: Accepted, journal: &mut Journal) {
        let (Some(jwt), Destination::Service(service)) = (accepted.jwt, &mut self.destination) else {
            return;
        };
        if let Err(error) = service.credentials.renew(jwt.clone()) {
            warn!(error = %Chain(&error), "the service sent a token that can't be used");
            return;
        }
        info!("the service renewed the token");
        journal.keep_token(service.credentials.renewed());
        if let Some(hands_on) = &mut service.hands_on {
            hands_on.put(jwt.expose().into());
        }
    }
}

fn reply_of(result: &Result<Accepted, Error>) -> Reply {
    match result {
        Ok(_) => Reply::Success,
        Err(Error::Status { status, .. }) => Reply::from_status(*status),
        Err(Error::Ambiguous { .. }) => Reply::Ambiguous,
        Err(
            Error::Token(_)
            | Error::Unfit { .. }
            | Error::Connect { .. }
            | Error::Setup(_)
            | Error::File { .. }
            | Error::NoCertificate { .. },
        ) => Reply::NotSent,
        // Not of heartbeats, of which an unreadable answer is one.
        Err(Error::Unreadable { .. } | Error::Endless { .. }) => Reply::Ambiguous,
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
        Error::Ambiguous { .. } => Answer::Ambiguous,
        Error::Token(_) | Error::Unfit { .. } | Error::Connect { .. } => Answer::NotSent,
        // These end the process before anything is sent; should one come later, nothing was sent either.
        Error::Setup(_) | Error::File { .. } | Error::NoCertificate { .. } => Answer::NotSent,
        // Not of heartbeats, of which an unreadable answer is one.
        Error::Unreadable { .. } | Error::Endless { .. } => Answer::Ambiguous,
    }
}

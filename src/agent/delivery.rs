//! Sends attempts to the service, processes its answers, and keeps the token and the trace.

use std::num::{NonZeroU64, NonZeroU128};
use std::pin::Pin;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use podbeat_heartbeat::answer::Answer;
use podbeat_heartbeat::machine::{Attempt, Event};
use podbeat_task_runs::client::{Accepted, Client};
use podbeat_task_runs::credentials::{self, Credentials};
use podbeat_task_runs::error::{Error, Operation, TimedOut};
use podbeat_task_runs::trace::{SpanId, TraceId, TraceParent};
use podbeat_task_runs::{Renewed, Secret};
use tracing::debug;

use super::durable_file::{DurableFile, Written};
use super::journal::Journal;
use super::report::body;
use crate::config::{Config, Trace};
use crate::telemetry::instruments::Instruments;
use crate::telemetry::readings::Reply;
use podbeat_interface::messages::{Beat, Message};
use podbeat_interface::service;
use podbeat_interface::throttle::{Chain, Throttle};

/// The pod's group (`fsGroup`) can read a renewed token. Other users cannot.
const HANDED_ON: u32 = 0o640;

/// The longest time that an attempt waits for the journal, so that a slow disk does not delay a
/// heartbeat. After this time, the only risk is a restart at this moment: the next process would
/// send the heartbeat with another nonce.
const JOURNAL: Duration = Duration::from_millis(500);

/// A token that expires within this time causes a warning.
const EXPIRY_IS_NEAR: SignedDuration = SignedDuration::from_mins(10);

/// Sends heartbeats to the service, or only logs them in a dry run.
pub(super) struct Delivery {
    destination: Destination,
    /// Failed attempts.
    refusals: Throttle,
    /// Accepted heartbeats whose answer had unusable content.
    oddities: Throttle,
    hides_nonce: bool,
    /// The trace, and the span of the last attempt. `None` in a dry run.
    trace: Option<TraceParent>,
    /// Creates span IDs.
    rng: fastrand::Rng,
    instruments: Instruments,
}

enum Destination {
    Service(Box<Service>),
    /// `--dry-run`: log each heartbeat and treat it as accepted.
    Nowhere,
}

struct Service {
    client: Client,
    credentials: Credentials,
    run_id: String,
    hands_on: Option<DurableFile>,
    expiry: Expiry,
    in_flight: Option<Sent>,
}

/// An attempt, as log lines identify it.
#[derive(Clone, Copy)]
struct Sent {
    beat: Beat,
    /// `None` in a dry run.
    trace: Option<TraceParent>,
}

/// Warns once when a token is about to expire, and once when it has expired. It warns again only
/// after a token with a later expiry. Without that rule there would be many warnings: a service may
/// renew the token with each answer, for only minutes, and after a 401 podbeat alternates between
/// two tokens that may both have expired.
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
            self.at = credentials::expires_at(token);
            self.token = Some(token.clone());
        }
        let left = self
            .at
            .map_or(SignedDuration::MAX, |at| at.duration_since(now));
        self.told_over &= left <= SignedDuration::ZERO;
        self.told_near &= left <= EXPIRY_IS_NEAR;
        let Some(at) = self.at else { return };
        if left <= SignedDuration::ZERO && !std::mem::replace(&mut self.told_over, true) {
            Message::TokenExpired { expired_at: at }.emit();
        } else if left > SignedDuration::ZERO
            && left <= EXPIRY_IS_NEAR
            && !std::mem::replace(&mut self.told_near, true)
        {
            Message::TokenExpires { expires_at: at }.emit();
        }
    }
}

/// The result of one attempt.
pub(super) struct Outcome {
    attempt: u64,
    sent: Sent,
    result: Result<Accepted, Error>,
    took: Duration,
}

impl Delivery {
    pub(super) fn new(
        config: &Config,
        renewed: Option<Renewed>,
        trace: Option<TraceParent>,
        mut rng: fastrand::Rng,
        instruments: &Instruments,
    ) -> Result<Self, Error> {
        let destination = match (&config.service_url, &config.token) {
            (Some(url), Some(token)) if !config.dry_run => {
                let client = Client::new(url.route().clone(), &super::tls(config), config.timeout)?;
                let mut hands_on = config.renewed_token_file.clone().map(|path| {
                    DurableFile::new(
                        "the renewed token",
                        path,
                        HANDED_ON,
                        rng.fork(),
                        instruments,
                    )
                });
                if let (Some(hands_on), Some(renewed)) = (&mut hands_on, &renewed) {
                    // The earlier process may have written the journal, but not this file.
                    hands_on.put(renewed.token().clone());
                }
                Destination::Service(Box::new(Service {
                    client,
                    credentials: Credentials::new(token.clone(), renewed),
                    run_id: config.task_run_id.clone(),
                    hands_on,
                    expiry: Expiry::default(),
                    in_flight: None,
                }))
            }
            // The settings require both, except in a dry run.
            _ => Destination::Nowhere,
        };
        Ok(Self {
            destination,
            refusals: Throttle::default(),
            oddities: Throttle::default(),
            hides_nonce: config.nonce.is_some(),
            trace,
            rng,
            instruments: instruments.clone(),
        })
    }

    /// Returns the span for the next attempt.
    pub(super) fn new_span(&mut self) -> Option<TraceParent> {
        self.trace = self.trace.map(|trace| trace.with_span(span(&mut self.rng)));
        self.trace
    }

    /// Begins an attempt. The future only waits for the journal and for the exchange with the
    /// service.
    pub(super) fn begin(
        &mut self,
        attempt: Attempt,
        journal: &mut Journal,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let number = attempt.number;
        let (heartbeat, kind) = attempt.beat;
        let beat = Beat {
            heartbeat,
            kind: kind.name(),
        };
        let sent = Sent {
            beat,
            trace: self.trace,
        };
        debug!(
            heartbeat = beat.heartbeat,
            kind = beat.kind,
            attempt = number,
            retries = attempt.retries,
            trace_id = sent.trace_id().map(display),
            span_id = sent.span_id().map(display),
            "sending a heartbeat"
        );
        let conclude = move |result, took| Outcome {
            attempt: number,
            sent,
            result,
            took,
        };
        match &mut self.destination {
            Destination::Nowhere => {
                Message::DryRun {
                    beat,
                    body: &body(&attempt.request, self.hides_nonce),
                }
                .emit();
                self.instruments.begun();
                Box::pin(async move { conclude(Ok(Accepted::default()), Duration::ZERO) })
            }
            Destination::Service(service) => {
                if attempt.token_was_refused {
                    service.credentials.refused();
                }
                let token = service.credentials.token();
                if let Ok(token) = &token {
                    service.expiry.watch(token, Timestamp::now());
                    self.instruments.token_expires(service.expiry.at);
                }
                journal.keep_token(service.credentials.renewed());
                let written = journal.written();
                service.in_flight = Some(sent);
                let client = match sent.trace {
                    Some(trace) => service.client.traced(trace),
                    None => service.client.clone(),
                };
                let run_id = service.run_id.clone();
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

    /// Processes the result of an attempt and translates it for the core.
    pub(super) fn conclude(&mut self, outcome: Outcome, journal: &mut Journal) -> Event {
        let Outcome {
            attempt,
            sent,
            result,
            took,
        } = outcome;
        // A dry run sends no requests, so there is nothing to count.
        if let Destination::Service(service) = &mut self.destination {
            service.in_flight = None;
            self.instruments.replied(reply_of(&result), took);
        }
        let answer = match result {
            Ok(accepted) => {
                if let Some(over) = self.refusals.over() {
                    Message::AcceptedAgain {
                        beat: sent.beat,
                        over,
                        span: sent.trace.into(),
                    }
                    .emit();
                }
                debug!(
                    heartbeat = sent.beat.heartbeat,
                    kind = sent.beat.kind,
                    ?took,
                    trace_id = sent.trace_id().map(display),
                    span_id = sent.span_id().map(display),
                    "answered"
                );
                self.take_in(accepted, sent, journal);
                Answer::Accepted
            }
            Err(error) => {
                self.not_accepted(sent, &error);
                service::answer(&error)
            }
        };
        Event::Answered { attempt, answer }
    }

    /// Logs an attempt that the core aborted before the answer came.
    pub(super) fn gave_up(&mut self, after: Duration) {
        let Destination::Service(service) = &mut self.destination else {
            return;
        };
        let Some(sent) = service.in_flight.take() else {
            return;
        };
        let run_id = service.run_id.clone();
        let after = Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let error = Error::Ambiguous {
            operation: Operation::Heartbeat { run_id },
            source: Box::new(TimedOut(after)),
        };
        self.not_accepted(sent, &error);
    }

    /// For callers that must wait until the renewed token is in its file.
    pub(super) fn handed_on(&self) -> Option<Written> {
        match &self.destination {
            Destination::Service(service) => service.hands_on.as_ref().map(DurableFile::written),
            Destination::Nowhere => None,
        }
    }

    fn not_accepted(&mut self, sent: Sent, error: &Error) {
        let (status, code) = match error {
            Error::Status {
                status, response, ..
            } => (
                Some(*status),
                response
                    .as_ref()
                    .and_then(|response| response.code.as_deref()),
            ),
            _ => (None, None),
        };
        // The service's message may differ each time, for example because it contains a request ID.
        // The code is one of a few.
        let kind = match status {
            Some(status) => format!("{status} {}", code.unwrap_or_default()),
            None => error.to_string(),
        };
        if let Some(outage) = self.refusals.failed(&kind, &Chain(error)) {
            Message::NotAccepted {
                beat: sent.beat,
                status,
                outage,
                span: sent.trace.into(),
            }
            .emit();
        }
    }

    /// Processes the answer to an accepted heartbeat.
    fn take_in(&mut self, accepted: Accepted, sent: Sent, journal: &mut Journal) {
        let Destination::Service(service) = &mut self.destination else {
            return;
        };
        if let Some(unreadable) = accepted.unreadable {
            if let Some(outage) = self.oddities.failed(unreadable, &unreadable) {
                Message::UnreadableResponse {
                    beat: sent.beat,
                    outage,
                    span: sent.trace.into(),
                }
                .emit();
            }
            return;
        }
        let renewed = match accepted.jwt {
            Some(jwt) => service.credentials.renew(jwt.clone()).map(|()| Some(jwt)),
            None => Ok(None),
        };
        let jwt = match renewed {
            Ok(jwt) => jwt,
            Err(error) => {
                let chain = Chain(&error).to_string();
                if let Some(outage) = self.oddities.failed(&chain, &chain) {
                    let span = sent.trace.into();
                    Message::UnusableToken { outage, span }.emit();
                }
                return;
            }
        };
        if let Some(over) = self.oddities.over() {
            Message::ResponsesUsableAgain { over }.emit();
        }
        let Some(jwt) = jwt else { return };
        debug!("the service renewed the token");
        journal.keep_token(service.credentials.renewed());
        if let Some(hands_on) = &mut service.hands_on {
            hands_on.put(jwt);
        }
    }
}

impl Sent {
    fn trace_id(self) -> Option<TraceId> {
        self.trace.map(|trace| trace.trace_id)
    }

    fn span_id(self) -> Option<SpanId> {
        self.trace.map(|trace| trace.span_id)
    }
}

/// Creates the trace that all heartbeats of this process share, so that the trace ID in podbeat's
/// first log line finds all of the service's records for a pod.
///
/// podbeat never marks its own trace as sampled: it records no spans, and a service that samples by
/// its callers' flag would record every heartbeat of ten thousand pods. To record the heartbeats of
/// one pod, set `TRACEPARENT` to a sampled trace. podbeat keeps that flag, as W3C Trace Context
/// (3.2.2.5.1) asks of participants that make no sampling decision.
///
/// podbeat does not forward a `tracestate`. Only systems that record spans need it, its grammar
/// would need validation, and the standard makes it optional.
///
/// Returns `None` in a dry run, which sends nothing.
pub(super) fn trace(config: &Config, rng: &mut fastrand::Rng) -> Option<TraceParent> {
    let trace = match config.trace {
        Trace::GoOn(parent) => parent,
        Trace::New | Trace::Unfit(_) => TraceParent {
            trace_id: TraceId::new(NonZeroU128::new(rng.u128(1..)).unwrap_or(NonZeroU128::MIN)),
            span_id: span(rng),
            sampled: false,
        },
    };
    (!config.dry_run).then_some(trace)
}

/// Creates a span for one attempt, so that the service records two attempts of one heartbeat
/// separately.
fn span(rng: &mut fastrand::Rng) -> SpanId {
    SpanId::new(NonZeroU64::new(rng.u64(1..)).unwrap_or(NonZeroU64::MIN))
}

fn reply_of(result: &Result<Accepted, Error>) -> Reply {
    match result {
        Ok(_) => Reply::Success,
        Err(Error::Status { status, .. }) => Reply::from_status(*status),
        Err(error) if service::answer(error) == Answer::NotSent => Reply::NotSent,
        Err(_) => Reply::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn of_tokens_that_are_all_near_their_end_is_told_once_and_again_after_a_better_one() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let token = |minutes: i64, nth: u32| {
            let at = now.as_second() + minutes * 60;
            let claims = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{at},"jti":"{nth}"}}"#));
            Secret::new(format!("e30.{claims}.s"))
        };
        let mut expiry = Expiry::default();
        let mut told = |minutes, nth| {
            let before = (expiry.told_near, expiry.told_over);
            expiry.watch(&token(minutes, nth), now);
            (!before.0 && expiry.told_near, !before.1 && expiry.told_over)
        };
        assert_eq!(told(60, 1), (false, false));
        assert_eq!(told(5, 2), (true, false));
        assert_eq!(told(5, 3), (false, false), "the next of its kind");
        assert_eq!(told(-1, 4), (false, true));
        assert_eq!(
            told(-1, 5),
            (false, false),
            "the other of two that have expired"
        );
        assert_eq!(told(-1, 4), (false, false));
        assert_eq!(told(60, 6), (false, false));
        assert_eq!(
            told(5, 7),
            (true, false),
            "after a better one it is news again"
        );
    }

    #[test]
    fn no_two_attempts_have_one_span_and_no_two_processes_one_trace() {
        let config = |traceparent: &str| {
            let settings = [
                ("TASK_RUN_ID", "r"),
                ("POD_NAME", "p"),
                ("PODBEAT_SERVICE_URL", "https://h"),
                ("PODBEAT_TOKEN", "t"),
                ("TRACEPARENT", traceparent),
            ];
            let map: std::collections::BTreeMap<String, String> = settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
            Config::load(&podbeat_interface::environment::Flags::default(), &map).expect("right")
        };
        let mut rng = fastrand::Rng::with_seed(1);
        let mut trace = |traceparent| trace(&config(traceparent), &mut rng).expect("not a dry run");
        let (one, two) = (trace(""), trace("none"));
        assert!(one.trace_id != two.trace_id && one.span_id != two.span_id);
        assert!(!one.sampled && !two.sampled);
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(given).to_string(), given);
        assert_ne!(span(&mut rng), span(&mut rng));
    }
}

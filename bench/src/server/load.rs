//! Load: requests at a fixed rate, or as many as the server answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::client::{Call, Client, Target};
use crate::Error;

/// The number of requests that wait for one connection. Above it, the server is far too slow.
const WAITING: usize = 256;

/// How long requests may take after the last one was due.
const REST: Duration = Duration::from_secs(20);

/// From this time before a request is due, the sender does not sleep: timers are too inexact.
const EXACT: Duration = Duration::from_millis(2);

/// The number of connections that are opened at the same time.
const OPENING: usize = 32;

/// A request to send.
pub struct Due {
    /// The place of its connection.
    pub connection: usize,
    /// The request.
    pub call: Call,
    /// Whether the answer waits for the disk.
    pub is_durable: bool,
}

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The time of each answered request, from when it was due, in milliseconds.
    pub milliseconds: Vec<f64>,
    /// The times of those whose answers waited for the disk.
    pub durable: Vec<f64>,
    /// The failures.
    pub failures: Vec<String>,
}

struct Job {
    due: Instant,
    call: Call,
    is_durable: bool,
    outcome: Arc<Mutex<Outcome>>,
}

/// Connections that stay open.
pub struct Connections(Vec<mpsc::Sender<Job>>);

fn lock(outcome: &Mutex<Outcome>) -> MutexGuard<'_, Outcome> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outcome {
    /// The number of requests with an answer or a failure.
    #[must_use]
    pub fn all(&self) -> usize {
        self.milliseconds.len() + self.failures.len()
    }

    /// The times, if no request failed.
    ///
    /// # Errors
    /// A request failed.
    pub fn times(self, what: &'static str) -> Result<Vec<f64>, Error> {
        let (failed, all) = (self.failures.len(), self.all());
        match self.failures.into_iter().next() {
            None => Ok(self.milliseconds),
            Some(example) => Err(Error::Failures {
                what,
                failed,
                all,
                example,
            }),
        }
    }

    fn add(&mut self, due: Instant, result: Result<(), String>) {
        match result {
            Ok(()) => self.milliseconds.push(due.elapsed().as_secs_f64() * 1000.0),
            Err(failure) => self.failures.push(failure),
        }
    }
}

async fn send(client: &mut Client, call: Call, wanted: StatusCode) -> Result<(), String> {
    match client.expect("a request", call, wanted).await {
        Ok(_) => Ok(()),
        Err(error) => Err(crate::chain(&error)),
    }
}

impl Connections {
    /// Opens connections.
    ///
    /// # Errors
    /// The server refuses one.
    pub async fn open(target: &Target, count: usize) -> Result<Self, Error> {
        use futures_util::{StreamExt, TryStreamExt, stream};
        let clients: Vec<Client> = stream::iter(0..count)
            .map(|_| target.client())
            .buffer_unordered(OPENING)
            .try_collect()
            .await?;
        let serve = |mut client: Client| {
            let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
            tokio::spawn(async move {
                while let Some(job) = waiting.recv().await {
                    let result = send(&mut client, job.call, StatusCode::OK).await;
                    let is_answered = result.is_ok();
                    let mut outcome = lock(&job.outcome);
                    outcome.add(job.due, result);
                    if job.is_durable && is_answered {
                        let last = outcome.milliseconds.last().copied();
                        outcome.durable.extend(last);
                    }
                }
            });
            jobs
        };
        Ok(Self(clients.into_iter().map(serve).collect()))
    }

    /// Sends requests at a fixed rate, whether or not the server keeps up. `next` makes a request,
    /// whose answer must have the status 200. A time counts from when the request was due.
    pub async fn at_rate(
        &self,
        rate: f64,
        length: Duration,
        mut next: impl FnMut() -> Due,
    ) -> Outcome {
        let outcome: Arc<Mutex<Outcome>> = Arc::default();
        let begin = Instant::now();
        let mut sent = 0_u32;
        loop {
            let after = Duration::from_secs_f64(f64::from(sent) / rate);
            if after >= length {
                break;
            }
            let due = begin + after;
            let Due {
                connection,
                call,
                is_durable,
            } = next();
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                match left.checked_sub(EXACT) {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => tokio::task::yield_now().await,
                }
            }
            // The answers are read between two requests.
            tokio::task::yield_now().await;
            sent += 1;
            let job = Job {
                due,
                call,
                is_durable,
                outcome: Arc::clone(&outcome),
            };
            let jobs = self.0.get(connection % self.0.len().max(1));
            if jobs.is_none_or(|jobs| jobs.try_send(job).is_err()) {
                lock(&outcome).add(
                    due,
                    Err("its connection was closed or far too slow".to_owned()),
                );
            }
        }
        let expected = usize::try_from(sent).unwrap_or(usize::MAX);
        let end = Instant::now() + REST;
        while lock(&outcome).all() < expected && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut outcome = std::mem::take(&mut *lock(&outcome));
        let unanswered = expected.saturating_sub(outcome.all());
        outcome
            .failures
            .extend((0..unanswered).map(|_| "it was not answered".to_owned()));
        outcome
    }
}

/// Each connection sends a request as soon as it has the answer to the one before. Returns their
/// times, and how many were answered a second.
///
/// # Errors
/// A request failed.
pub async fn as_many_as_possible(
    target: &Target,
    connections: usize,
    length: Duration,
    what: &'static str,
    wanted: StatusCode,
    next: impl Fn(u64) -> Call,
) -> Result<(f64, Vec<f64>), Error> {
    use futures_util::future::try_join_all;
    let clients = try_join_all((0..connections).map(|_| target.client())).await?;
    let begin = Instant::now();
    let number = std::sync::atomic::AtomicU64::new(0);
    let (number, next) = (&number, &next);
    let working = clients.into_iter().map(|mut client| async move {
        let mut outcome = Outcome::default();
        while begin.elapsed() < length {
            let call = next(number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            let due = Instant::now();
            let result = send(&mut client, call, wanted).await;
            outcome.add(due, result);
        }
        outcome
    });
    let outcomes = futures_util::future::join_all(working).await;
    let took = begin.elapsed();
    let mut all = Outcome::default();
    for outcome in outcomes {
        all.milliseconds.extend(outcome.milliseconds);
        all.failures.extend(outcome.failures);
    }
    let times = all.times(what)?;
    Ok((per_second(times.len(), took), times))
}

/// Full TLS handshakes a second, of so many clients at the same time.
///
/// # Errors
/// The server refuses one.
pub async fn handshakes(target: &Target, clients: usize, length: Duration) -> Result<f64, Error> {
    let begin = Instant::now();
    let working = (0..clients).map(|_| async {
        let mut count = 0_usize;
        while begin.elapsed() < length {
            let stream = target.connect().await?;
            // Without it, closed connections would occupy all ports for a minute.
            let _ = stream.get_ref().0.set_zero_linger();
            count += 1;
        }
        Ok::<usize, Error>(count)
    });
    let counts = futures_util::future::try_join_all(working).await?;
    Ok(per_second(counts.into_iter().sum(), begin.elapsed()))
}

fn per_second(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

//! A fleet's stand-in Kubernetes API in a separate process, because ten thousand watches need as
//! many connections.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use super::process::raise_file_limit;
use super::scenario::{Member, STEPS};
use super::workers::Worker;
use crate::fault::Faults;
use crate::kube_api::{KubeApi, Options};
use crate::pki::Authority;
use crate::{Error, io};

/// The bearer token that it accepts.
const TOKEN: &str = "fleet-kube-token";

/// An order to the process, as a line of JSON on its standard input. The process answers each order
/// with a [`State`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Starts with this many pods, and writes a service account's directory. This order comes
    /// first.
    Begin {
        /// The directory.
        service_account_dir: PathBuf,
        /// The number of pods.
        pods: usize,
    },
    /// Moves every pod to a step of its life, one after the other within this time.
    Step {
        /// The step.
        step: usize,
        /// The time, in milliseconds.
        over_ms: u64,
    },
    /// Only answers.
    Tell,
}

/// The stand-in's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Its port on loopback.
    pub port: u16,
    /// Open watches.
    pub watches: usize,
    /// The requests so far, by verb.
    pub requests: BTreeMap<String, usize>,
}

/// Sends an order and waits until it is done.
///
/// # Errors
/// The process ended or takes too long.
pub async fn order(worker: &mut Worker, order: &Order) -> Result<State, Error> {
    worker
        .tell(&serde_json::to_string(order).unwrap_or_default())
        .await?;
    let work = match order {
        Order::Step { over_ms, .. } => Duration::from_millis(*over_ms),
        Order::Begin { .. } | Order::Tell => Duration::ZERO,
    };
    worker.answer_of(work).await
}

/// Serves and follows the orders on standard input, until it ends.
///
/// # Errors
/// An order can't be read, or the stand-in can't start.
pub async fn serve() -> Result<(), Error> {
    use std::io::Write;
    raise_file_limit()?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut begun: Option<(KubeApi, usize)> = None;
    loop {
        let line = orders
            .next_line()
            .await
            .map_err(io("reading the next order"))?;
        let Some(line) = line else { return Ok(()) };
        let order = serde_json::from_str(&line)
            .map_err(|error| io(format!("parsing the order {line}"))(error.into()))?;
        match (order, &begun) {
            (
                Order::Begin {
                    service_account_dir,
                    pods,
                },
                _,
            ) => {
                let authority = Authority::new()?;
                let options = Options {
                    token: TOKEN.to_owned(),
                    // The history keeps all events. A watch without news of its own is behind by
                    // the events of all other pods.
                    history: pods * (STEPS + 1) + 100,
                    ..Options::default()
                };
                let api = KubeApi::start(&authority, Faults::default(), options).await?;
                KubeApi::write_service_account(&authority, TOKEN, &service_account_dir)?;
                for nth in 0..pods {
                    api.apply(Member { nth }.at(0));
                }
                begun = Some((api, pods));
            }
            (Order::Step { step, over_ms }, Some((api, pods))) => {
                let start = Instant::now();
                let gap = Duration::from_millis(over_ms)
                    / u32::try_from((*pods).max(1)).unwrap_or(u32::MAX);
                for nth in 0..*pods {
                    api.apply(Member { nth }.at(step));
                    tokio::time::sleep_until(start + gap * u32::try_from(nth).unwrap_or(u32::MAX))
                        .await;
                }
            }
            (Order::Step { .. } | Order::Tell, _) => {}
        }
        let state = begun.as_ref().map(|(api, _)| {
            let mut requests = BTreeMap::new();
            for seen in api.seen() {
                *requests.entry(seen.verb.to_owned()).or_insert(0) += 1;
            }
            State {
                port: api.port(),
                watches: api.open_watches(),
                requests,
            }
        });
        let answer = serde_json::to_string(&state.unwrap_or_default()).unwrap_or_default();
        let mut out = std::io::stdout();
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .map_err(io("answering"))?;
    }
}

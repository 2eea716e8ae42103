//! `podbeat reap`: sends the last heartbeat of pods that ended without one. This module finds these
//! pods, builds their last heartbeats, and sends each at most once. It does not watch, wait or
//! retry; users run it again.

mod delivery;
mod error;
mod journal;
mod listing;
mod outcome;
mod output;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::nonce::NonceSource;
use podbeat_interface::service::Service;
use podbeat_kubernetes::listed::{Pods, Where};
use podbeat_kubernetes::tasks::Tasks;

use self::delivery::Delivery;
use self::error::Error;
use self::outcome::{Case, Outcome};
use self::output::Output;
use crate::config::ReapConfig;
use podbeat_reap::{Missing, Rules, Verdict};

/// One call of `podbeat reap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The pods to look at.
    pub target: Target,
    /// Print what podbeat would send, and send nothing.
    pub dry_run: bool,
    /// Print one JSON object per pod instead of text.
    pub json: bool,
    /// Skip pods that ended more recently than this.
    pub older_than: Duration,
}

/// The pods to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The pods that match a label selector, or all pods.
    Pods {
        /// In all namespaces.
        everywhere: bool,
        /// The label selector, in kubectl's syntax.
        labels: Option<String>,
    },
    /// One pod.
    Pod(String),
    /// A pod whose journal was saved.
    Journal(PathBuf),
}

impl Target {
    fn is_one_pod(&self) -> bool {
        matches!(self, Self::Pod(_) | Self::Journal(_))
    }
}

/// Runs the command. Writes the outcome for each pod to `out`, and errors and notes to `notes`.
/// podbeat retries nothing. Users can run the command again, and it then does not repeat accepted
/// heartbeats.
pub async fn run(
    config: &ReapConfig,
    invocation: &Invocation,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Ending {
    let is_one_pod = invocation.target.is_one_pod();
    let mut output = Output::new(out, notes, invocation.json, is_one_pod);
    let service = match Service::new(&config.service) {
        Ok(service) => service,
        Err(error) => return failed(&error.into(), &mut output),
    };
    let mut reaper = Reaper {
        config,
        older_than: invocation.older_than,
        delivery: Delivery {
            service,
            pods: None,
            dry_run: invocation.dry_run,
        },
        output,
        first: None,
    };
    let namespace = config.namespace.clone();
    let here = || namespace.map_or(Where::Default, Where::Namespace);
    let done = match &invocation.target {
        Target::Journal(path) => reaper.journal(path).await,
        Target::Pods { everywhere, labels } => {
            let place = if *everywhere {
                Where::Everywhere
            } else {
                here()
            };
            reaper.pods(&place, labels.as_deref(), None).await
        }
        Target::Pod(name) => reaper.pods(&here(), None, Some(name)).await,
    };
    match done {
        Ok(()) => reaper.first.unwrap_or(Ending::Done),
        // Whoever reads has seen enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            reaper.first.unwrap_or(Ending::Done)
        }
        Err(error) => failed(&error, &mut reaper.output),
    }
}

fn failed(error: &Error, output: &mut Output<'_>) -> Ending {
    output.note(&with_causes(error));
    error.ending()
}

struct Reaper<'run> {
    config: &'run ReapConfig,
    older_than: Duration,
    delivery: Delivery,
    output: Output<'run>,
    /// The ending for the first error.
    first: Option<Ending>,
}

impl Reaper<'_> {
    async fn pods(
        &mut self,
        place: &Where,
        labels: Option<&str>,
        only: Option<&str>,
    ) -> Result<(), Error> {
        let config = self.config;
        let rules = Rules {
            container_name: config.container_name.to_string(),
            tasks: Tasks::new(&config.task_containers, &config.ignored_containers),
            report: config.report,
            older_than: self.older_than,
            nonce: self.nonce()?,
        };
        let pods = Pods::reach(&config.kubernetes).await?;
        let pods = &*self.delivery.pods.insert(pods);
        let docket = listing::docket(pods, rules, place, labels, only).await?;
        let Some(verdicts) = docket.verdicts() else {
            let name = only.unwrap_or_default().to_owned();
            return Err(Error::NoSuchPod { name });
        };
        for (name, verdict) in verdicts {
            if !self.pod(&name, verdict).await? {
                break;
            }
        }
        self.output.summarize()
    }

    /// Processes one pod. Returns `false` if the remaining pods would fail in the same way.
    async fn pod(&mut self, name: &str, verdict: Verdict) -> Result<bool, Error> {
        match outcome::of_verdict(verdict) {
            Ok((run, case)) => {
                self.output.tell(name, run.as_deref(), &case, None)?;
                Ok(true)
            }
            Err(missing) => self.missing(name, *missing).await,
        }
    }

    /// Sends the missing heartbeat, if the service still waits for it. Returns `false` if the
    /// remaining pods would fail in the same way.
    async fn missing(&mut self, pod: &str, mut missing: Missing) -> Result<bool, Error> {
        let error = match self.delivery.deliver(&mut missing).await {
            Ok(case) => {
                let (run, request) = (Some(missing.run.as_str()), Some(&missing.request));
                self.output.tell(pod, run, &case, request)?;
                return Ok(true);
            }
            Err(error) => error,
        };
        let ending = error.ending();
        self.first.get_or_insert(ending);
        let case = Case::new(Outcome::Failed, with_causes(&error));
        self.output.tell(pod, Some(&missing.run), &case, None)?;
        let goes_on = !matches!(ending, Ending::Denied | Ending::Unavailable | Ending::Usage);
        if !goes_on {
            self.output.note(
                "the remaining pods would fail in the same way; they are left for the next time",
            );
        }
        Ok(goes_on)
    }

    /// Sends the last heartbeat of a pod whose journal was saved.
    async fn journal(&mut self, path: &Path) -> Result<(), Error> {
        let contents = journal::read(path)?;
        let pod = &contents.machine.identity.pod_name;
        match journal::settled(&contents) {
            Some(case) => {
                let run = Some(contents.task_run_id.as_str());
                self.output.tell(pod, run, &case, None)?;
            }
            None => {
                let missing = journal::missing(&contents, self.nonce()?);
                self.missing(pod, missing).await?;
            }
        }
        self.output.summarize()
    }

    fn nonce(&self) -> Result<Option<String>, Error> {
        let nonce = self.config.nonce.as_ref().map(NonceSource::nonce);
        Ok(nonce.transpose()?)
    }
}

//! `podbeat reap`: sends the last heartbeat of pods that ended without one. This module finds these
//! pods, builds their last heartbeats, and sends each at most once. It does not watch, wait or
//! retry; users run it again.

mod verdict;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use podbeat_heartbeat::answer::LastAnswer;
use podbeat_heartbeat::outbox::Kind;
use podbeat_heartbeat::saved::{Contents, LastHeartbeat, Malformed};
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::nonce::{self, NonceSource};
use podbeat_interface::service::{self, Service};
use podbeat_interface::terminal::{escaped, one_line};
use podbeat_kubernetes::listed::{Pods, Where};
use podbeat_kubernetes::retries::COMPLETION_INDEX;
use podbeat_kubernetes::tasks::Tasks;
use podbeat_task_runs::error;
use podbeat_task_runs::model::{ContainerState, HeartbeatTaskRunRequest, TaskRunStatus};
use serde::Serialize;

use self::verdict::{Chosen, Docket, Missing, Names, OwnWord, Rules, TooMany, Verdict, waits};
use crate::config::ReapConfig;
use crate::journal;

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

/// Why the command failed, or could not process all pods.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service rejected a request, or cannot be reached.
    #[error(transparent)]
    Service(#[from] error::Error),
    /// The Kubernetes API rejected a request, or cannot be reached.
    #[error(transparent)]
    Kubernetes(#[from] podbeat_kubernetes::error::Error),
    /// There are too many pods to keep in memory.
    #[error(
        "too many pods with podbeat to keep in memory; choose fewer with a namespace or a label selector"
    )]
    TooMany,
    /// The pod does not exist.
    #[error(
        "pod {name} not found; only the journal of a deleted pod shows how the pod ended (--journal)"
    )]
    NoSuchPod {
        /// The pod's name.
        name: String,
    },
    /// The journal is not usable.
    #[error("cannot use the journal {}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Malformed,
    },
    /// The journal does not exist.
    #[error("journal {} not found", path.display())]
    NoJournal {
        /// The file.
        path: PathBuf,
    },
    /// The nonce file has no usable nonce.
    #[error(transparent)]
    Nonce(#[from] nonce::Unusable),
    /// The output cannot be written.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
}

impl Error {
    /// The ending of the process for this error.
    #[must_use]
    pub fn ending(&self) -> Ending {
        match self {
            Self::Service(error) => service::ending(error),
            Self::Kubernetes(podbeat_kubernetes::error::Error::Access(_)) | Self::Nonce(_) => {
                Ending::Usage
            }
            Self::Kubernetes(error) => match error.status() {
                Some(401 | 403) => Ending::Denied,
                Some(400 | 404 | 422) => Ending::Refused,
                Some(_) | None => Ending::Unavailable,
            },
            Self::TooMany => Ending::Refused,
            Self::NoSuchPod { .. } => Ending::NoSuchPod,
            Self::Journal { .. } | Self::NoJournal { .. } => Ending::Unread,
            Self::Write(_) => Ending::Unwritten,
        }
    }
}

/// The outcome for one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    /// The service accepted the last heartbeat.
    Sent,
    /// podbeat would have sent the last heartbeat, but this is a dry run.
    WouldSend,
    /// The pod has not ended.
    Open,
    /// podbeat itself delivered the last heartbeat.
    Settled,
    /// The pod ended too recently.
    Young,
    /// A later pod executes the run.
    Superseded,
    /// Another pod of the run has not ended.
    Held,
    /// The service already knows how the run ended.
    Known,
    /// The service does not know the run, or says that it belongs to another pod.
    Disowned,
    /// There was not enough memory for it.
    Left,
    /// podbeat did nothing, because it cannot know whether a last heartbeat would be right.
    Unclear,
    /// It failed.
    Failed,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::WouldSend => "to be sent",
            Self::Open => "not ended",
            Self::Settled => "delivered",
            Self::Young => "ended just now",
            Self::Superseded => "superseded",
            Self::Held => "held back",
            Self::Known => "known",
            Self::Disowned => "disowned",
            Self::Left => "left for the next time",
            Self::Unclear => "unclear",
            Self::Failed => "failed",
        }
    }
}

/// A pod and its outcome, for `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'case> {
    pod: &'case str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_run: Option<&'case str>,
    outcome: Outcome,
    message: &'case str,
    #[serde(skip_serializing_if = "Option::is_none")]
    heartbeat: Option<&'case HeartbeatTaskRunRequest>,
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
    let mut reaper = Reaper {
        service: match Service::new(&config.service) {
            Ok(service) => service,
            Err(error) => return failed(&error.into(), notes),
        },
        invocation,
        out,
        notes,
        pods: None,
        counts: std::collections::BTreeMap::new(),
        first: None,
    };
    let done = match &invocation.target {
        Target::Journal(path) => reaper.journal(path, config).await,
        Target::Pods { everywhere, labels } => {
            let place = match (everywhere, &config.namespace) {
                (true, _) => Where::Everywhere,
                (false, Some(namespace)) => Where::Namespace(namespace.clone()),
                (false, None) => Where::Default,
            };
            reaper.pods(config, &place, labels.as_deref(), None).await
        }
        Target::Pod(name) => {
            let place = config
                .namespace
                .clone()
                .map_or(Where::Default, Where::Namespace);
            reaper.pods(config, &place, None, Some(name)).await
        }
    };
    match done {
        Ok(()) => reaper.first.unwrap_or(Ending::Done),
        // Whoever reads has seen enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            reaper.first.unwrap_or(Ending::Done)
        }
        Err(error) => failed(&error, reaper.notes),
    }
}

fn failed(error: &Error, notes: &mut dyn Write) -> Ending {
    let _ = writeln!(notes, "podbeat: {}", with_causes(error));
    error.ending()
}

struct Reaper<'run> {
    service: Service,
    invocation: &'run Invocation,
    out: &'run mut dyn Write,
    notes: &'run mut dyn Write,
    /// The cluster's pods, unless the target is a journal.
    pods: Option<Pods>,
    counts: std::collections::BTreeMap<Outcome, usize>,
    /// The ending for the first error.
    first: Option<Ending>,
}

/// The outcome for one pod, and its description.
struct Case {
    outcome: Outcome,
    message: String,
}

impl Case {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
        }
    }
}

impl Reaper<'_> {
    async fn pods(
        &mut self,
        config: &ReapConfig,
        place: &Where,
        labels: Option<&str>,
        only: Option<&str>,
    ) -> Result<(), Error> {
        let rules = Rules {
            container_name: config.container_name.to_string(),
            tasks: Tasks::new(&config.task_containers, &config.ignored_containers),
            report: config.report,
            older_than: self.invocation.older_than,
            nonce: nonce(config)?,
        };
        let pods = &*self.pods.insert(Pods::reach(&config.kubernetes).await?);
        let chosen = match (only, labels) {
            (Some(name), _) => Chosen::Named(name.to_owned()),
            (None, Some(labels)) => {
                let mut names = Names::default();
                let mut added = Ok(());
                pods.list(place, Some(labels), |pod| {
                    if added.is_ok() && pod.has_container(&rules.container_name) {
                        added = names.add(pod.name());
                    }
                })
                .await?;
                added.map_err(|TooMany| Error::TooMany)?;
                Chosen::These(names)
            }
            (None, None) => Chosen::All,
        };
        let mut docket = Docket::new(rules, Timestamp::now(), chosen);
        let mut taken = Ok(());
        // List all pods, not only the chosen ones, because others may belong to the same runs.
        pods.list(place, None, |pod| {
            if taken.is_ok() {
                taken = docket.take(&pod);
            }
        })
        .await?;
        taken.map_err(|TooMany| Error::TooMany)?;
        let Some(verdicts) = docket.verdicts() else {
            let name = only.unwrap_or_default().to_owned();
            return Err(Error::NoSuchPod { name });
        };
        for (name, verdict) in verdicts {
            if !self.pod(&name, verdict).await? {
                break;
            }
        }
        self.summarize()
    }

    /// Processes one pod. Returns `false` if the remaining pods would fail in the same way.
    async fn pod(&mut self, name: &str, verdict: Verdict) -> Result<bool, Error> {
        let (run, case) = match verdict {
            Verdict::Unnamed => {
                let case = Case::new(
                    Outcome::Unclear,
                    "cannot find its run: the pod has neither the annotation podbeat.dev/task-run-id nor TASK_RUN_ID in its spec",
                );
                (None, case)
            }
            Verdict::Unindexed { pattern } => {
                let message = format!(
                    "cannot find its run: {} needs an index, but the pod has no annotation {COMPLETION_INDEX}",
                    pattern
                );
                (None, Case::new(Outcome::Unclear, message))
            }
            Verdict::Overlong => {
                let message = "cannot find its run: the run's ID is longer than 1 KiB";
                (None, Case::new(Outcome::Unclear, message))
            }
            Verdict::Unread { run, why } => {
                let message = format!("cannot read its containers: {why}");
                (Some(run), Case::new(Outcome::Unclear, message))
            }
            Verdict::Left { run } => {
                let message =
                    "too many last heartbeats are missing at once; left for the next time";
                (Some(run), Case::new(Outcome::Left, message))
            }
            Verdict::Open => (None, Case::new(Outcome::Open, "it has not ended")),
            Verdict::Settled { run } => {
                let case = Case::new(
                    Outcome::Settled,
                    "podbeat itself delivered the last heartbeat",
                );
                (Some(run), case)
            }
            Verdict::Young { run } => {
                let case = Case::new(Outcome::Young, "it ended just now; left for the next time");
                (Some(run), case)
            }
            Verdict::Superseded { run, by } => {
                let message = format!("pod {by} is a later pod of the same run");
                (Some(run), Case::new(Outcome::Superseded, message))
            }
            Verdict::Held { run, by } => {
                let message = format!("pod {by} of the same run has not ended");
                (Some(run), Case::new(Outcome::Held, message))
            }
            Verdict::Contested { run, pods, more } => {
                let more = match more {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let message = format!(
                    "pods with different owners, or in different namespaces, claim the run: {}{more}; podbeat sends nothing, because the run may belong to any of them",
                    pods.join(", ")
                );
                (Some(run), Case::new(Outcome::Unclear, message))
            }
            Verdict::Missing(missing) => return self.missing(name, *missing).await,
        };
        self.tell(name, run.as_deref(), &case, None)?;
        Ok(true)
    }

    /// Sends the missing heartbeat, if the service still waits for it. Returns `false` if the
    /// remaining pods would fail in the same way.
    async fn missing(&mut self, pod: &str, mut missing: Missing) -> Result<bool, Error> {
        let case = match self.deal_with(&mut missing).await {
            Ok(case) => case,
            Err(error) => return self.failure(pod, &missing, &error),
        };
        self.tell(pod, Some(&missing.run), &case, Some(&missing.request))?;
        Ok(true)
    }

    async fn deal_with(&mut self, missing: &mut Missing) -> Result<Case, Error> {
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
        if self.invocation.dry_run {
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

    fn failure(&mut self, pod: &str, missing: &Missing, error: &Error) -> Result<bool, Error> {
        let ending = error.ending();
        self.first.get_or_insert(ending);
        let case = Case::new(Outcome::Failed, with_causes(error));
        self.tell(pod, Some(&missing.run), &case, None)?;
        let goes_on = !matches!(ending, Ending::Denied | Ending::Unavailable | Ending::Usage);
        if !goes_on {
            let _ = writeln!(
                self.notes,
                "podbeat: the remaining pods would fail in the same way; they are left for the next time"
            );
        }
        Ok(goes_on)
    }

    fn tell(
        &mut self,
        pod: &str,
        run: Option<&str>,
        case: &Case,
        heartbeat: Option<&HeartbeatTaskRunRequest>,
    ) -> Result<(), Error> {
        *self.counts.entry(case.outcome).or_default() += 1;
        // Text output shows only pods that need attention, and counts the others.
        let is_quiet = matches!(case.outcome, Outcome::Open | Outcome::Settled) && !self.is_alone();
        let line = if self.invocation.json {
            let is_shown = matches!(case.outcome, Outcome::Sent | Outcome::WouldSend);
            // A nonce from the service is a secret.
            let mut heartbeat = heartbeat.filter(|_| is_shown).cloned();
            if let Some(heartbeat) = &mut heartbeat {
                heartbeat.nonce = None;
            }
            let told = Told {
                pod,
                task_run: run,
                outcome: case.outcome,
                message: &case.message,
                heartbeat: heartbeat.as_ref(),
            };
            escaped(&serde_json::to_string(&told).map_err(|error| Error::Write(error.into()))?)
        } else if is_quiet {
            return Ok(());
        } else {
            let run = run.map_or_else(String::new, |run| format!(" (task run {run})"));
            one_line(&format!("pod {pod}{run}: {}", case.message))
        };
        writeln!(self.out, "{line}").map_err(Error::Write)
    }

    fn is_alone(&self) -> bool {
        matches!(self.invocation.target, Target::Pod(_) | Target::Journal(_))
    }

    fn summarize(&mut self) -> Result<(), Error> {
        if self.invocation.json || self.is_alone() {
            return self.out.flush().map_err(Error::Write);
        }
        let all: usize = self.counts.values().sum();
        let parts: Vec<String> = self
            .counts
            .iter()
            .map(|(outcome, count)| format!("{count} {}", outcome.word()))
            .collect();
        let of_which = if parts.is_empty() {
            String::new()
        } else {
            format!(": {}", parts.join(", "))
        };
        let pods = if all == 1 { "pod" } else { "pods" };
        writeln!(self.out, "{all} {pods} with podbeat{of_which}")
            .and_then(|()| self.out.flush())
            .map_err(Error::Write)
    }

    /// Sends the last heartbeat of a pod whose journal was saved.
    async fn journal(&mut self, path: &std::path::Path, config: &ReapConfig) -> Result<(), Error> {
        let contents = journal::read(path)
            .map_err(|source| Error::Journal {
                path: path.to_owned(),
                source,
            })?
            .ok_or_else(|| Error::NoJournal {
                path: path.to_owned(),
            })?;
        let machine = &contents.machine;
        let pod = &machine.identity.pod_name;
        let settled = match machine.last_heartbeat {
            LastHeartbeat::Open => None,
            // It may have reported a task that continued.
            LastHeartbeat::Accepted if machine.is_by_signal_alone() => None,
            LastHeartbeat::Accepted => Some((
                Outcome::Settled,
                "podbeat itself delivered the last heartbeat",
            )),
            LastHeartbeat::Refused => Some((
                Outcome::Disowned,
                "the service permanently rejected its last heartbeat",
            )),
            LastHeartbeat::Orphaned => Some((
                Outcome::Disowned,
                "the service said that the run does not belong to this pod",
            )),
        };
        match settled {
            Some((outcome, message)) => {
                let case = Case::new(outcome, message);
                self.tell(pod, Some(&contents.task_run_id), &case, None)?;
            }
            None => {
                let missing = of_journal(&contents, nonce(config)?);
                self.missing(pod, missing).await?;
            }
        }
        self.summarize()
    }
}

/// Returns the last heartbeat in a journal. If none was due yet, builds one from the last known
/// states.
fn of_journal(contents: &Contents, nonce: Option<String>) -> Missing {
    let machine = &contents.machine;
    let decided = machine.outbox.iter().rfind(|beat| beat.kind == Kind::Final);
    let request = match decided {
        Some(beat) => beat.request.clone(),
        None => {
            let uid = machine.identity.pod_uid.as_deref().unwrap_or_default();
            let nonce = nonce.unwrap_or_else(|| format!("reap-{uid}"));
            let told = (!machine.statuses.is_empty()).then(|| machine.statuses.clone());
            let mut request = machine.identity.request(nonce, told);
            request.last_heartbeat = Some(true);
            request
        }
    };
    Missing {
        run: contents.task_run_id.clone(),
        request,
        uncounted: None,
        own_word: match machine.last_heartbeat {
            LastHeartbeat::Accepted => OwnWord::Delivered,
            LastHeartbeat::Open | LastHeartbeat::Refused | LastHeartbeat::Orphaned => match decided
            {
                Some(_) => OwnWord::Undelivered,
                None => OwnWord::Nothing,
            },
        },
    }
}

fn disowned(error: &error::Error) -> Case {
    let message = format!("nothing to send: {}", with_causes(error));
    Case::new(Outcome::Disowned, message)
}

fn nonce(config: &ReapConfig) -> Result<Option<String>, Error> {
    Ok(config.nonce.as_ref().map(NonceSource::nonce).transpose()?)
}

/// Summarizes the states of the containers in a last heartbeat.
struct Said<'case>(&'case Missing);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(statuses) = &self.0.request.container_status else {
            return f.write_str("no container states are known");
        };
        for (nth, status) in statuses.iter().enumerate() {
            let name = status.name.as_deref().unwrap_or_default();
            let state = status.state.as_ref();
            let before = if nth == 0 { "" } else { ", " };
            write!(
                f,
                "{before}{name} {}",
                state.map_or("unknown", ContainerState::name)
            )?;
            if let Some(ContainerState::Terminated(exit)) = state {
                if let Some(code) = exit.exit_code {
                    write!(f, " with exit code {code}")?;
                }
                if let Some(reason) = &exit.reason {
                    write!(f, " ({reason})")?;
                }
            }
        }
        Ok(())
    }
}

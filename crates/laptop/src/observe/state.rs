//! What is currently known: the API's view, the requests that the machine would send, and the next
//! due time. Pure: `now` is an argument.

use std::time::Duration;

use podbeat_heartbeat::Now;
use podbeat_heartbeat::machine::{Attempt, Snapshot};
use podbeat_heartbeat::observation::{Role, Sidecar};
use podbeat_heartbeat::report::Report;
use podbeat_kubernetes::resource;
use podbeat_kubernetes::status::{self};
use podbeat_kubernetes::tasks::Tasks;

use super::diagnosis::Diagnosis;
use super::event::{Api, Beat, Container, Event, Note, Pod, Shown, What};

/// What is currently known.
#[derive(Debug)]
pub(super) struct State {
    own_container: String,
    tasks: Tasks,
    report: Report,
    namespace: String,
    name: String,
    pub(super) pod: Option<Pod>,
    pub(super) containers: Vec<Container>,
    /// When the API last showed or confirmed the pod.
    pub(super) confirmed: Option<Duration>,
    pub(super) diagnosis: Option<Failing>,
    /// The last heartbeat that the agent would have sent, and its time.
    pub(super) last: Option<(Beat, Duration)>,
    /// When the next heartbeat is due.
    pub(super) due: Option<Duration>,
    /// How many heartbeats wait for that time.
    pub(super) waiting: usize,
    pub(super) notes: Vec<Note>,
    pub(super) end: Option<super::event::End>,
}

/// The Kubernetes API fails.
#[derive(Debug)]
pub(super) struct Failing {
    pub(super) since: Duration,
    failures: u64,
    pub(super) diagnosis: Diagnosis,
}

impl State {
    pub(super) fn new(
        namespace: &str,
        name: &str,
        own_container: &str,
        tasks: &Tasks,
        report: Report,
    ) -> Self {
        Self {
            own_container: own_container.to_owned(),
            tasks: tasks.clone(),
            report,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            pod: None,
            containers: Vec::new(),
            confirmed: None,
            diagnosis: None,
            last: None,
            due: None,
            waiting: 0,
            notes: Vec::new(),
            end: None,
        }
    }

    /// The pod's name, with its namespace.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The API shows the pod. If `gone`, this is its final state.
    pub(super) fn saw(&mut self, shown: &resource::Pod, gone: bool, now: Now) -> Vec<Event> {
        // A list can show the pod even if a watch is not allowed, so this does not end a failure.
        self.confirmed = Some(now.elapsed);
        let mut news = Vec::new();
        // No container is podbeat's own here, so that the result includes podbeat's container.
        let all = status::observe_with(shown, "", &self.tasks);
        let sidecar = status::observe(shown, &self.own_container).sidecar;
        let pod = Pod {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: all.uid,
            node: shown.spec.node_name.clone(),
            phase: shown.status.phase.clone(),
            // Events of containers show the other reasons.
            reasons: all
                .why
                .into_iter()
                .filter(|why| why.container.is_none())
                .collect(),
            sidecar: match sidecar {
                Sidecar::Native => "native",
                Sidecar::Plain => "plain",
                Sidecar::Elsewhere => "none",
            },
            deletion_timestamp: all.deletion.map(|deletion| deletion.at),
            gone,
        };
        let mut what = Vec::new();
        if self.pod.as_ref() != Some(&pod) {
            what.push(What::Pod(pod.clone()));
        }
        for (note, holds) in [
            (Note::NoSidecar, sidecar == Sidecar::Elsewhere),
            (Note::Deletion, pod.deletion_timestamp.is_some()),
        ] {
            if holds && !self.notes.contains(&note) {
                self.notes.push(note);
                what.push(What::Note(note));
            }
        }
        self.pod = Some(pod);
        let before = std::mem::take(&mut self.containers);
        for seen in &all.containers {
            let earlier = before.iter().find(|earlier| earlier.name == seen.name);
            let mut container = self.container(seen);
            let changed = earlier.is_none_or(|earlier| {
                (&earlier.shown, earlier.restart_count)
                    != (&container.shown, container.restart_count)
            });
            if changed {
                container.from = earlier.and_then(|earlier| earlier.shown.state);
                what.push(What::Container(container.clone()));
                container.from = None;
            }
            self.containers.push(container);
        }
        news.extend(what.into_iter().map(|what| event(what, now)));
        news
    }

    fn container(&self, seen: &podbeat_heartbeat::observation::Container) -> Container {
        let own = seen.name == self.own_container;
        Container {
            name: seen.name.clone(),
            kind: match seen.role {
                _ if own => "podbeat",
                Role::Task => "task",
                Role::Init => "init",
                Role::Sidecar => "sidecar",
            },
            reported: !own && self.report.includes(seen.role),
            shown: seen.state.as_ref().map(Shown::of).unwrap_or_default(),
            from: None,
            restart_count: seen.restart_count,
            last_exit: seen.last_exit.as_ref().map(Shown::of_exit),
        }
    }

    /// The pod is gone, and the API did not show its final state.
    pub(super) fn vanished(&mut self, now: Now) -> Vec<Event> {
        let mut news = self.confirmed(now);
        if let Some(pod) = self.pod.as_mut().filter(|pod| !pod.gone) {
            pod.gone = true;
            news.push(event(What::Pod(pod.clone()), now));
        }
        news
    }

    /// The API confirmed that nothing changed.
    pub(super) fn confirmed(&mut self, now: Now) -> Vec<Event> {
        self.confirmed = Some(now.elapsed);
        self.answered(now).into_iter().collect()
    }

    /// The API reports changes again.
    pub(super) fn answered(&mut self, now: Now) -> Option<Event> {
        self.diagnosis.take().map(|failing| {
            let after = now.elapsed.saturating_sub(failing.since);
            let back = Api::Back {
                after_seconds: after.as_secs(),
                failures: failing.failures,
            };
            event(What::Api(back), now)
        })
    }

    /// The Kubernetes API failed. This is an event only for the first failure, or if the problem is
    /// another one.
    pub(super) fn failed(&mut self, diagnosis: Diagnosis, now: Now) -> Option<Event> {
        let (since, failures, known) = match self.diagnosis.take() {
            Some(failing) => (
                failing.since,
                failing.failures,
                failing.diagnosis == diagnosis,
            ),
            None => (now.elapsed, 0, false),
        };
        let news = What::Api(Api::Trouble {
            message: diagnosis.what.clone(),
            remedy: diagnosis.remedy,
            kubectl_apply: diagnosis.role.clone(),
        });
        self.diagnosis = Some(Failing {
            since,
            failures: failures.saturating_add(1),
            diagnosis,
        });
        (!known).then(|| event(news, now))
    }

    /// The agent would send a heartbeat.
    pub(super) fn sent(&mut self, attempt: Attempt, now: Now) -> Event {
        let (number, kind) = attempt.beat;
        let mut body = Box::new(attempt.request);
        body.nonce = None;
        let beat = Beat { number, kind, body };
        self.last = Some((beat.clone(), now.elapsed));
        event(What::Heartbeat(beat), now)
    }

    /// Updates the machine's state, and when to wake it.
    pub(super) fn turned(&mut self, snapshot: Snapshot, wake: Option<Duration>) {
        self.waiting = snapshot.backlog;
        self.due = wake;
    }

    /// The observation is over.
    pub(super) fn ended(&mut self, end: super::event::End, now: Now) -> Event {
        self.end = Some(end);
        self.due = None;
        event(What::End(end), now)
    }
}

fn event(what: What, now: Now) -> Event {
    Event {
        time: now.wall,
        what,
    }
}

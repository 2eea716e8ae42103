//! The pod's events: from an observation to the heartbeats that report it.

use std::time::Duration;

use podbeat_task_runs::model::ContainerStatus;

use super::resume::Reconsidered;
use super::{Action, COLLECT, Look, Machine, Note, Stage};
use crate::Now;
use crate::completion::is_finished;
use crate::observation::{Observation, Sidecar, State};
use crate::outbox::{Kind, shows_new_exit};
use crate::report;

impl Machine {
    pub(super) fn observe(&mut self, mut pod: Observation, now: Now, actions: &mut Vec<Action>) {
        if self.pod.gone {
            return;
        }
        let ours = self.settings.identity.pod_uid.as_ref();
        if ours.is_some() && ours != pod.uid.as_ref() {
            if self.pod.replaced() {
                actions.push(Action::Note(Note::OtherPod(pod.uid)));
            }
            return;
        }
        self.settings.identity.learn(&pod);
        if self.settings.identity.job_retry_count.is_none()
            && let Some(job) = &pod.job
            && self.pod.begins_counting_retries()
        {
            actions.push(Action::CountRetries(job.clone()));
        }
        self.pod.confirm(now.elapsed);
        self.pod.restore_known_exits(&mut pod);
        if matches!(self.stage, Stage::Reconsidering { .. }) {
            match self.reconsidered(&pod) {
                Reconsidered::Continues => self.reopen(actions),
                Reconsidered::Over => self.uphold(now.elapsed, actions),
                Reconsidered::Unknown => {
                    // None of its exits counts as reported, so that none is missing once heartbeats
                    // continue.
                    self.pod.statuses = report::statuses(&pod, self.settings.report);
                    self.pod.seen = Some(pod);
                    return;
                }
            }
        }
        self.pod
            .observe_deletion(&pod, self.ending.signalled.is_some(), now);
        let open = matches!(
            self.stage,
            Stage::Running | Stage::Settling | Stage::Looking { .. }
        );
        let begins = !self.pod.is_deleted();
        self.unsaved |= self.pod.reasons.observe(&pod, begins, open, actions);
        if open {
            self.queue_lost_exits(&pod, now.elapsed, actions);
        }
        let statuses = report::statuses(&pod, self.settings.report);
        if statuses != self.pod.statuses {
            self.unsaved = true;
            note_transitions(&self.pod.statuses, &statuses, &pod, actions);
            let new_exit = shows_new_exit(&self.pod.statuses, &statuses);
            // The last heartbeat itself reports the change that completes the task: one request,
            // and no wait between two.
            if open && !is_finished(&pod) {
                self.queue_change(&statuses, new_exit, now.elapsed, actions);
            }
            self.pod.statuses = statuses;
        }
        self.unsaved |= self.pod.observed(pod, open);
    }

    pub(super) fn count_retries(&mut self, count: Option<i32>) {
        let known = &mut self.settings.identity.job_retry_count;
        *known = known.or(count);
        self.unsaved |= count.is_some();
    }

    /// Queues a heartbeat for each exit that `state` no longer shows and that was never reported
    /// (docs/kubernetes-facts.md).
    fn queue_lost_exits(&mut self, pod: &Observation, now: Duration, actions: &mut Vec<Action>) {
        let report = self.settings.report;
        for container in pod
            .containers
            .iter()
            .filter(|container| report.includes(container.role))
        {
            let Some(lost) = &container.last_exit else {
                continue;
            };
            let current = container.state.as_ref().and_then(|state| state.exit());
            if self.pod.is_reported(&container.name, lost)
                || current.is_some_and(|exit| exit.is_same_as(lost))
            {
                continue;
            }
            self.pod.report_exit(&container.name, lost);
            let exit = report::status(container, &State::Terminated(lost.clone()));
            // The other containers as last reported: their states at the time of this exit.
            let before = &self.pod.statuses;
            let mut statuses = report::statuses(pod, report);
            for status in &mut statuses {
                if status.name == exit.name {
                    *status = exit.clone();
                } else if let Some(before) = before.iter().find(|before| before.name == status.name)
                {
                    *status = before.clone();
                }
            }
            if !statuses.contains(&exit) {
                statuses.push(exit);
            }
            note_transitions(before, &statuses, pod, actions);
            self.pod.statuses.clone_from(&statuses);
            self.queue(Kind::LostExit, Some(statuses), true, now, actions);
        }
    }

    fn queue_change(
        &mut self,
        statuses: &[ContainerStatus],
        new_exit: bool,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if let Some(tail) = self.sending.outbox.tail_mut()
            && tail.kind == Kind::Change
            && tail.attempts == 0
            && !tail.tells_exit
            && now < tail.hold_until.max(tail.queued_at + COLLECT)
        {
            tail.request.container_status = Some(statuses.to_vec());
            self.unsaved = true;
            if new_exit {
                tail.tells_exit = true;
                tail.hold_until = now;
            }
            return;
        }
        self.queue(
            Kind::Change,
            Some(statuses.to_vec()),
            new_exit,
            now,
            actions,
        );
    }

    pub(super) fn pod_gone(
        &mut self,
        last: Option<Observation>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        if let Some(last) = last {
            self.observe(last, now, actions);
        }
        if self.pod.missing() {
            actions.push(Action::Note(Note::NeverSeen));
        }
    }

    pub(super) fn looked(&mut self, look: Look, now: Now, actions: &mut Vec<Action>) {
        if !matches!(self.stage, Stage::Looking { .. }) {
            return;
        }
        let first_look = self.pod.seen.is_none();
        match look {
            Look::Found(pod) => self.observe(pod, now, actions),
            Look::Gone => self.pod_gone(None, now, actions),
            Look::Failed => {}
        }
        // The look is over, whatever it returned. But if only now podbeat learns that it is a plain
        // sidecar, which gets its SIGTERM together with the task, time may be left to wait for
        // final states.
        let waits = first_look
            && self.pod.sidecar() == Sidecar::Plain
            && self.settled_at() > Some(now.elapsed);
        self.stage = if waits {
            Stage::Settling
        } else {
            Stage::Looking { until: now.elapsed }
        };
    }
}

fn note_transitions(
    before: &[ContainerStatus],
    now: &[ContainerStatus],
    seen: &Observation,
    actions: &mut Vec<Action>,
) {
    for status in now.iter().filter(|status| !before.contains(status)) {
        let earlier = before.iter().find(|earlier| earlier.name == status.name);
        actions.push(Action::Note(Note::Transition {
            container: status.name.clone().unwrap_or_default(),
            from: earlier.and_then(ContainerStatus::state_name),
            to: Box::new(status.clone()),
            restart_count: seen
                .containers
                .iter()
                .find(|container| Some(&container.name) == status.name.as_ref())
                .map_or(0, |container| container.restart_count),
        }));
    }
}

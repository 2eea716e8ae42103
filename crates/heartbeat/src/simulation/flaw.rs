//! Machines that break a guarantee on purpose, to show that the simulation notices. The machine
//! itself is whole: a flaw changes what goes in or what comes out.

use std::time::Duration;

use crate::Now;
use crate::answer::Answer;
use crate::machine::{Action, Attempt, Cause, Event, Look, Losses, Machine, Note, Settings};
use crate::marker::Found;
use crate::observation::{Exit, Observation, Restart, RestartPolicy, State};
use crate::outbox::Kind;
use crate::saved::Saved;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Forgets a heartbeat that got no answer (G1).
    Forgets,
    /// Regards all exits without a container ID as one, whichever run they end (G1).
    Alike,
    /// Regards a last heartbeat that got no answer as accepted (G2).
    Credulous,
    /// Does not withdraw a last heartbeat that was due because only podbeat was stopped (G2).
    Alone,
    /// Continues after the last heartbeat was accepted (G3).
    Continues,
    /// Regards a request that got no answer as not sent (G3).
    Early,
    /// Sends while a request is in flight (G4).
    Twice,
    /// Waits three intervals (G5).
    Slow,
    /// A secret that prints itself (G6). The machine never sees one.
    Secret,
    /// Reports an end of a container that still runs (G7).
    Invents,
    /// Regards the marker of an earlier run as one of the current run (G7).
    Stale,
    /// Never reads markers (G7).
    Silent,
    /// Does not see that the pod is being deleted, and waits for the API although markers show the
    /// end (G7).
    Patient,
    /// Regards an exit that restarts all containers as the end (G7).
    Restart,
}

/// Each flaw by the guarantee that it breaks, and a word if the guarantee has more than one.
pub(super) const FLAWS: [(&str, Flaw); 14] = [
    ("G1", Flaw::Forgets),
    ("G1-alike", Flaw::Alike),
    ("G2", Flaw::Credulous),
    ("G2-alone", Flaw::Alone),
    ("G3", Flaw::Continues),
    ("G3-early", Flaw::Early),
    ("G4", Flaw::Twice),
    ("G5", Flaw::Slow),
    ("G6", Flaw::Secret),
    ("G7", Flaw::Invents),
    ("G7-stale", Flaw::Stale),
    ("G7-silent", Flaw::Silent),
    ("G7-patient", Flaw::Patient),
    ("G7-restart", Flaw::Restart),
];

/// A machine, with a flaw or without.
pub(super) struct Subject {
    machine: Machine,
    flaw: Option<Flaw>,
    in_flight: Option<(Attempt, Duration)>,
}

impl Subject {
    pub(super) fn new(
        mut settings: Settings,
        seed: u64,
        saved: Option<Saved>,
        flaw: Option<Flaw>,
        now: Now,
    ) -> Self {
        if flaw == Some(Flaw::Slow) {
            settings.interval *= 3;
        }
        let machine = match saved {
            Some(mut saved) => {
                if flaw == Some(Flaw::Alone) && saved.cause.is_some() {
                    saved.cause = Some(Cause::Completed);
                }
                Machine::resume(settings, seed, saved, now)
            }
            None => Machine::new(settings, seed),
        };
        Self {
            machine,
            flaw,
            in_flight: None,
        }
    }

    pub(super) fn losses(&self) -> Losses {
        self.machine.losses()
    }

    pub(super) fn on(&mut self, event: Event, now: Now) -> Vec<Action> {
        let Some(flaw) = self.flaw else {
            return self.machine.on(event, now);
        };
        let mut actions = self.without_answer(flaw, now);
        actions.extend(self.machine.on(changed_event(flaw, event, now), now));
        self.change_actions(flaw, &mut actions, now);
        actions
    }

    /// Puts an answer in the place of one that never came.
    fn without_answer(&mut self, flaw: Flaw, now: Now) -> Vec<Action> {
        let timed_out = |(attempt, started): &mut (Attempt, Duration)| {
            *started + attempt.timeout <= now.elapsed
        };
        let Some((attempt, _)) = self.in_flight.take_if(timed_out) else {
            return vec![];
        };
        let is_final = attempt.beat.1 == Kind::Final;
        let answer = match flaw {
            Flaw::Forgets if !is_final => Answer::Accepted,
            Flaw::Credulous if is_final => Answer::Accepted,
            Flaw::Early if !is_final => Answer::NotSent,
            _ => return vec![],
        };
        let attempt = attempt.number;
        let mut actions = vec![Action::Abort];
        actions.extend(self.machine.on(Event::Answered { attempt, answer }, now));
        actions
    }

    fn change_actions(&mut self, flaw: Flaw, actions: &mut Vec<Action>, now: Now) {
        let mut extra = None;
        for action in &mut *actions {
            match action {
                Action::Send(attempt) => {
                    if flaw == Flaw::Twice {
                        extra = Some(Attempt {
                            number: attempt.number + 1_000_000,
                            ..attempt.clone()
                        });
                    }
                    let statuses = attempt.request.container_status.iter_mut().flatten();
                    if flaw == Flaw::Invents && attempt.beat.1 == Kind::Final {
                        statuses.for_each(|status| {
                            let exit = podbeat_task_runs::model::ContainerStateTerminated {
                                exit_code: Some(143),
                                ..Default::default()
                            };
                            status.state = Some(exit.into());
                        });
                    }
                    self.in_flight = Some((attempt.clone(), now.elapsed));
                }
                Action::Note(Note::Accepted(_, Kind::Final)) if flaw == Flaw::Continues => {
                    extra = self.in_flight.as_ref().map(|(last, _)| {
                        let mut next = last.clone();
                        next.number += 1;
                        next.beat = (last.beat.0 + 1, Kind::Periodic);
                        next.request.last_heartbeat = None;
                        next
                    });
                }
                _ => {}
            }
        }
        let over =
            |action: &Action| matches!(action, Action::End(_) | Action::Note(Note::Barrier { .. }));
        if let Some(attempt) = extra.filter(|_| !actions.iter().any(over)) {
            actions.push(Action::Send(attempt));
        }
    }
}

fn changed_event(flaw: Flaw, event: Event, now: Now) -> Event {
    let changed = |mut pod: Observation| {
        change_pod(flaw, &mut pod);
        pod
    };
    match event {
        Event::Observed(pod) => Event::Observed(changed(pod)),
        Event::Gone(last) => Event::Gone(last.map(changed)),
        Event::Looked(Look::Found(pod)) => Event::Looked(Look::Found(changed(pod))),
        Event::Markers(_) if flaw == Flaw::Silent => Event::Markers(vec![]),
        Event::Markers(found) if flaw == Flaw::Stale => {
            let of_this_run = |mut found: Found| {
                found.marker.finished_at = Some(crate::marker::whole_seconds(now.wall));
                found
            };
            Event::Markers(found.into_iter().map(of_this_run).collect())
        }
        event => event,
    }
}

fn change_pod(flaw: Flaw, pod: &mut Observation) {
    if flaw == Flaw::Patient {
        pod.deletion = None;
    }
    if flaw == Flaw::Restart {
        pod.all_restarting = false;
    }
    for container in &mut pod.containers {
        let by_rule = (0..=255).any(|code| container.restart.restarts_all(Some(code)));
        if flaw == Flaw::Restart && by_rule {
            container.restart = Restart::new(RestartPolicy::Never, container.role, None, vec![]);
        }
        if flaw == Flaw::Alike {
            container.last_exit.iter_mut().for_each(as_first_run);
            if let Some(State::Terminated(exit)) = &mut container.state {
                as_first_run(exit);
            }
        }
    }
}

fn as_first_run(exit: &mut Exit) {
    if exit.container_id.is_none() {
        exit.run = Some(0);
    }
}

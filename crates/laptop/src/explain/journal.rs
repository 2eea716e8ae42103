//! Explains a journal: podbeat's state when it last wrote the journal.

use jiff::Timestamp;
use podbeat_heartbeat::outbox::Kind;
use podbeat_heartbeat::saved::{Contents, LastHeartbeat, Saved, SavedBeat};
use podbeat_task_runs::model::ContainerStatus;

use super::cause::Facts;
use super::story::{Event, Outcome, Story, Verdict, at, in_order, listed};
use super::watch::reason;

pub(super) fn story(contents: &Contents) -> Story {
    let machine = &contents.machine;
    let mut events = Vec::new();
    for (container, exit) in &machine.exits {
        let code = exit
            .exit_code
            .map_or_else(String::new, |code| format!(" with exit code {code}"));
        events.push(Event::new(
            exit.finished_at,
            format!("{container} terminated{code}: an exit that podbeat reported"),
        ));
    }
    if !machine.statuses.is_empty() {
        let text = format!(
            "the API last showed or confirmed: {}",
            states(&machine.statuses)
        );
        events.push(Event::new(machine.confirmed_at, text));
    }
    if let Some(at) = machine.deletion_at {
        let text = format!("the pod is being deleted; its grace period ends at {at}");
        events.push(Event::new(None::<Timestamp>, text));
    }
    let reasons = machine.why.iter().map(reason);
    events.extend(reasons.map(|text| Event::new(None::<Timestamp>, text)));
    events.extend(machine.outbox.iter().map(waiting));
    Story {
        source: "journal",
        task_run: Some(contents.task_run_id.clone()),
        pod: Some(machine.identity.pod_name.clone()).filter(|name| !name.is_empty()),
        events: in_order(events),
        verdict: verdict(contents),
    }
}

/// The cause, from the last states. The journal keeps nothing that happened after the last
/// heartbeat was due.
fn cause(machine: &Saved) -> Option<String> {
    let mut facts = Facts::default();
    facts.begun();
    for status in &machine.statuses {
        let name = status.name.as_deref().unwrap_or_default();
        let Some(state) = &status.state else { continue };
        if let Some(exit) = &state.terminated {
            let code = exit.exit_code.map(i64::from);
            facts.ended(name, code, exit.reason.as_deref(), exit.message.as_deref());
        } else if state.running.is_some() {
            facts.runs(name);
        } else if let Some(waits) = &state.waiting {
            facts.waits(name, waits.reason.as_deref(), waits.message.as_deref());
        }
    }
    facts.replace(&machine.why);
    if machine.deletion_at.is_some() {
        facts.deleted();
    }
    facts.cause()
}

fn waiting(beat: &SavedBeat) -> Event {
    let mut text = format!(
        "heartbeat {} ({}) waits to be accepted",
        beat.number,
        beat.kind.name()
    );
    if beat.may_have_arrived {
        text += "; an attempt may have arrived";
    }
    if beat.stripped {
        text += "; the service rejected it with containerStatus";
    }
    if let Some(told) = &beat.request.container_status {
        text += &format!("; it reports: {}", states(told));
    }
    Event::new(Some(beat.queued_at), text)
}

fn states(statuses: &[ContainerStatus]) -> String {
    let told = statuses.iter().map(|status| {
        let name = status.name.as_deref().unwrap_or_default();
        let state = status.state_name();
        let code = status.terminated().and_then(|exit| exit.exit_code);
        match (state, code) {
            (Some(state), Some(code)) => format!("{name} {state} with exit code {code}"),
            (Some(state), None) => format!("{name} {state}"),
            (None, _) => format!("{name} without a state"),
        }
    });
    listed(&told.collect::<Vec<_>>())
}

fn verdict(contents: &Contents) -> Verdict {
    let (machine, run) = (&contents.machine, &contents.task_run_id);
    let decided = machine.outbox.iter().rfind(|beat| beat.kind == Kind::Final);
    let waits = machine
        .outbox
        .iter()
        .filter(|beat| beat.kind != Kind::Final)
        .count();
    let before = match waits {
        0 => String::new(),
        1 => " One heartbeat with container changes waits before it.".to_owned(),
        count => format!(" {count} heartbeats with container changes wait before it."),
    };
    let (outcome, text) = match (machine.last_heartbeat, decided) {
        (LastHeartbeat::Accepted, _) => (
            Outcome::Delivered,
            format!("The service knows how task run {run} ended: it accepted the last heartbeat."),
        ),
        (LastHeartbeat::Refused, _) => (
            Outcome::Refused,
            format!(
                "The service does not know how task run {run} ended: it permanently rejected the last heartbeat."
            ),
        ),
        (LastHeartbeat::Orphaned, _) => (
            Outcome::Orphaned,
            format!(
                "The service said that task run {run} does not belong to this pod; podbeat sent nothing more."
            ),
        ),
        (LastHeartbeat::Open, Some(last)) => (
            Outcome::Due,
            format!(
                "The last heartbeat of task run {run} was due at {}, and the journal does not show that the service accepted \
                 it.{before} If podbeat no longer runs, podbeat reap --journal sends it, with the same nonce.",
                at(last.queued_at)
            ),
        ),
        (LastHeartbeat::Open, None) => (
            Outcome::Open,
            format!(
                "The last heartbeat of task run {run} was not due when the journal was written, after {} heartbeats.{before} If \
                 podbeat no longer runs and the task has ended, podbeat reap --journal reports the last states above.",
                machine.beats
            ),
        ),
    };
    Verdict::new(outcome, cause(machine), &text)
}

//! The pages for one step: sign in, abort, a heartbeat's body, a refusal.

use maud::html;

use super::super::view::{Heartbeat, Log, Reader, Run};
use super::run::answer;
use super::{
    Frame, badge, document, fact, fixed, foreign, form_token, id_text, or_nothing, run_href,
};

/// The page to sign in. `next` is the page that was asked for.
pub(crate) fn sign_in(next: &str, problem: Option<&str>) -> String {
    let main = html! {
        h1 { "Sign in" }
        @if let Some(problem) = problem { p.problem #problem role="alert" { (problem) } }
        form.sign-in method="post" action="sign-in" {
            // Password managers expect a name before it, and no name is needed.
            input type="text" name="username" value="podbeat-server" autocomplete="username" hidden;
            label for="token" { "Token" }
            input #token type="password" name="token" required autocomplete="current-password" spellcheck="false"
                aria-describedby=[problem.map(|_| "problem")] aria-invalid=[problem.map(|_| "true")];
            input type="hidden" name="next" value=(next);
            button type="submit" { "Sign in" }
        }
        p { "Use a token of " code { "podbeat-server token create" } ". You stay signed in for 12 hours." }
    };
    let frame = Frame {
        title: "Sign in",
        ..Frame::default()
    };
    document(frame, &main)
}

/// The page that asks whether to abort a run.
pub(crate) fn abort(run: &Run, reader: &Reader) -> String {
    let back = run_href("../", &run.line.id);
    let main = html! {
        p.back { a href=(back) { "Back to the run" } }
        h1 { "Abort this run?" }
        dl {
            (fact("Run", &foreign(&run.title())))
            (fact("ID", &id_text(&run.line.id)))
            (fact("Status", &badge(run.line.status)))
        }
        @if run.may_abort {
            p { "The run becomes Aborted, and that can't be undone." }
            form method="post" action="abort" {
                input type="hidden" name="id" value=(run.line.id);
                (form_token(reader))
                button.danger type="submit" { "Abort the run" }
                " " a href=(back) { "Cancel" }
            }
        } @else {
            p { "The run has ended, so there is nothing to abort." }
        }
    };
    let frame = Frame {
        title: "Abort this run?",
        reader: Some(reader),
        up: "../",
        ..Frame::default()
    };
    document(frame, &main)
}

/// The page of a heartbeat's body.
pub(crate) fn heartbeat(id: &str, beat: &Heartbeat, body: &str, reader: &Reader) -> String {
    let main = html! {
        p.back { a href=(run_href("../", id)) { "Back to the run" } }
        h1 { "Heartbeat" }
        dl {
            (fact("Run", &id_text(id)))
            (fact("Time", &fixed(beat.at)))
            (fact("Answer", &answer(beat.accepted)))
            @if let Some(trace) = &beat.trace_id { (fact("Trace ID", &html! { code.copy { (foreign(trace)) } })) }
            (fact("Size", &html! { (beat.size) " bytes" }))
        }
        h2 { "Body" }
        @if beat.is_cut { p { "The body is large. Only its beginning is kept." } }
        @if body.is_empty() { p { "The body was empty." } } @else { pre { code { (body) } } }
    };
    let frame = Frame {
        title: "Heartbeat",
        reader: Some(reader),
        up: "../",
        ..Frame::default()
    };
    document(frame, &main)
}

/// The page of the log of a run's pod. `None` if the service does not launch the run.
pub(crate) fn log(id: &str, log: Option<&Log>, reader: &Reader) -> String {
    let main = html! {
        p.back { a href=(run_href("../", id)) { "Back to the run" } }
        h1 { "Log" }
        dl {
            (fact("Run", &id_text(id)))
            @if let Some(log) = log {
                (fact("Namespace", &foreign(&log.namespace)))
                (fact("Pod", &or_nothing(log.pod.as_deref())))
            }
        }
        @match log.map(|log| &log.lines) {
            None => p { "Others created the pod of this run, so this service cannot read its log." },
            Some(Some(lines)) if lines.is_empty() => p { "The task has written nothing yet." },
            Some(Some(lines)) => {
                p { "The last lines of the task's container. Load the page again for newer ones." }
                pre tabindex="0" { code { @for line in lines { (line) "\n" } } }
            }
            Some(None) => p {
                "There is no log now: the task has not started, or its pod is gone. The log of a pod is deleted with the pod. "
                "If your cluster collects logs, look there for this namespace and pod."
            },
        }
    };
    let frame = Frame {
        title: "Log",
        reader: Some(reader),
        up: "../",
        ..Frame::default()
    };
    document(frame, &main)
}

/// A page that explains why there is no other. `reader` is the one who is signed in.
pub(crate) fn refusal(title: &str, text: &str, reader: Option<&Reader>, up: &str) -> String {
    let frame = Frame {
        title,
        reader,
        up,
        ..Frame::default()
    };
    let main = html! { h1 { (title) } p { (text) } p { a href={ (up) "./" } { "All runs" } } };
    document(frame, &main)
}

/// A page that goes to `address` at once. The browser sends the session's cookie only from one of
/// our own pages, so a link on another site leads here first.
pub(crate) fn elsewhere(address: &str, up: &str) -> String {
    let frame = Frame {
        title: "Task runs",
        up,
        refresh: Some(address),
        ..Frame::default()
    };
    let main = html! { h1 { "Task runs" } p { a href=(address) { "Continue" } } };
    document(frame, &main)
}

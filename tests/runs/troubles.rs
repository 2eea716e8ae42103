//! What can fail on the way to a service, and the message and exit code of the process.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::server::{Answer, Server, TOKEN, error, json_answer, raw, with_header};

use super::runs;
use crate::harness::binary::{ended, podbeat};

async fn code_and_notes(url: &str, line: &str) -> (i32, String) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let ended = ended(&mut runs(url, &arguments)).await;
    assert_eq!(ended.out, "", "{line}");
    (ended.code, ended.notes)
}

#[tokio::test]
async fn each_error_has_its_exit_code_and_the_services_message() {
    let server = Server::start(|received| {
        let status = received
            .path_and_query
            .split(['/', ':'])
            .find_map(|part| part.strip_prefix("run-"));
        match status {
            Some("cut") => Answer::Cut,
            Some("hang") => Answer::Hang,
            Some("garbage") => raw(200, "<html>"),
            Some(status) => error(status.parse().expect("a status")),
            None => error(403),
        }
    })
    .await;
    for (line, code, said) in [
        ("get run-400", 65, "correct the request"),
        ("abort run-400", 65, "only a Pending or Running run"),
        (
            "get run-401",
            77,
            "check that the token belongs to this service and is still valid",
        ),
        ("heartbeat run-403", 77, "the token lacks permission"),
        ("get run-404", 67, "check the run ID"),
        ("abort run-410", 67, "check the run ID"),
        (
            "heartbeat run-409",
            65,
            "sending a heartbeat of task run run-409",
        ),
        ("get run-307", 65, "does not follow redirects"),
        ("get run-429", 69, "try again later"),
        ("abort run-500", 69, "try again later"),
    ] {
        let (ended, notes) = code_and_notes(&server.url(), line).await;
        assert_eq!(ended, code, "{line}: {notes}");
        for expected in [said, "TheCode: the message (details: {\"a\":1}, \"b\")"] {
            assert!(notes.contains(expected), "{line}: {notes}");
        }
    }
    for (line, code) in [
        ("get run-cut", 69),
        ("get run-hang --request-timeout 200ms", 69),
        ("get run-garbage", 76),
        ("list", 77),
        ("get ..", 65),
        ("get run-404 --token-file /nowhere/token", 64),
        ("get run-404 --ca-file /nowhere/ca.pem", 64),
    ] {
        let (ended, notes) = code_and_notes(&server.url(), line).await;
        assert_eq!(ended, code, "{line}: {notes}");
        assert!(
            notes.starts_with("podbeat: ") && !notes.contains(TOKEN),
            "{line}: {notes}"
        );
    }
    drop(server);
    let (code, notes) = code_and_notes("http://127.0.0.1:9", "get trn.1").await;
    assert_eq!(code, 69);
    assert!(
        notes.contains("check its URL") && notes.contains("refused"),
        "{notes}"
    );
}

#[tokio::test]
async fn missing_settings_are_named_together_with_this_commands_flags() {
    let missing = ended(podbeat().args(["runs", "list", "--request-timeout", "1h"])).await;
    assert_eq!(missing.code, 64);
    for expected in [
        "PODBEAT_SERVICE_URL (--service-url)",
        "PODBEAT_TOKEN_FILE (--token-file)",
        "PODBEAT_TIMEOUT (--request-timeout): must be at most 5m",
    ] {
        assert!(missing.notes.contains(expected), "{}", missing.notes);
    }
}

#[tokio::test]
async fn after_a_common_error_other_runs_are_not_tried() {
    let server = Server::start(|_| error(401)).await;
    let (code, notes) = code_and_notes(&server.url(), "abort a b c").await;
    assert_eq!(code, 77);
    assert!(
        notes.ends_with(
            "podbeat: skipped the remaining 2, because they would fail in the same way\n"
        ),
        "{notes}"
    );
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn waiting_survives_an_outage_and_reports_it_once() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => json_answer(200, &json!({"id": "trn.1", "status": "Running"})),
        1 => with_header(error(503), "retry-after", "1"),
        2 => Answer::Cut,
        3 => error(500),
        _ => json_answer(200, &json!({"id": "trn.1", "status": "Completed"})),
    })
    .await;
    let mut command = runs(
        &server.url(),
        &[
            "wait",
            "trn.1",
            "--for",
            "completed",
            "--timeout",
            "50s",
            "--interval",
            "100ms",
        ],
    );
    let waited = ended(&mut command).await;
    assert_eq!(
        (waited.code, waited.out.as_str()),
        (0, "task run trn.1 is Completed\n")
    );
    assert_eq!(waited.notes.lines().count(), 1, "{}", waited.notes);
    assert!(waited.notes.contains("answered 503") && waited.notes.ends_with("; retrying\n"));
    assert_eq!(server.received().len(), 5);
}

#[tokio::test]
async fn waiting_has_a_timeout() {
    let server = Server::start(|received| match received.path_and_query.ends_with("odd") {
        true => json_answer(200, &json!({"id": "odd", "status": "Hibernating\u{1b}"})),
        false => error(503),
    })
    .await;
    let (code, notes) = code_and_notes(&server.url(), "wait odd --for end --timeout 0s").await;
    assert_eq!(code, 75);
    assert_eq!(
        notes,
        "podbeat: timed out after 0s waiting for task run odd to be in a final status: it is Hibernating\u{fffd}\n"
    );
    assert_eq!(server.received().len(), 1, "it looks once");
    let (code, notes) = code_and_notes(
        &server.url(),
        "wait trn.1 trn.2 --for failed --timeout 300ms",
    )
    .await;
    assert_eq!(code, 75);
    assert!(
        notes.contains("to be Failed: the service did not report its status"),
        "{notes}"
    );
    assert!(
        notes.ends_with(
            "podbeat: skipped the remaining 1, because they would fail in the same way\n"
        ),
        "{notes}"
    );
    // podbeat does not wait if the error will not pass by itself.
    let server = Server::start(|_| error(404)).await;
    let (code, _) = code_and_notes(&server.url(), "wait trn.1 --for end --timeout 1h").await;
    assert_eq!((code, server.received().len()), (67, 1));
}

#[tokio::test]
async fn an_incomplete_list_is_reported() {
    let server = Server::start(|received| match received.path_and_query.contains("next") {
        true => error(500),
        false => json_answer(
            200,
            &json!({"items": [{"id": "a"}, {"id": "b"}], "nextPageToken": "next"}),
        ),
    })
    .await;
    let listed = ended(&mut runs(&server.url(), &["list", "-o", "json"])).await;
    assert_eq!(listed.code, 69);
    let json: Value = serde_json::from_str(&listed.out).expect("whole JSON all the same");
    assert_eq!(json["items"].as_array().map(Vec::len), Some(2));
    assert!(
        listed
            .notes
            .starts_with("podbeat: the list is incomplete: it ends after 2 task runs\n")
    );
}

#[tokio::test]
async fn a_closed_output_is_no_error() {
    let items: Vec<Value> = (0..1000)
        .map(|nth| json!({"id": format!("trn.{nth}"), "name": "n".repeat(200)}))
        .collect();
    let server =
        Server::start(move |_| json_answer(200, &json!({"items": items, "nextPageToken": "on"})))
            .await;
    let mut command = runs(&server.url(), &["list", "-o", "json", "--limit", "1000"]);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().await.expect("waited for");
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[tokio::test]
async fn secrets_that_a_service_repeats_are_redacted() {
    let server = Server::start(|received| {
        let token = received
            .headers
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let body = String::from_utf8_lossy(&received.body).into_owned();
        json_answer(
            400,
            &json!({"code": "No", "message": format!("{token} {body}"), "details": [token]}),
        )
    })
    .await;
    let line = "create --image i --env KEY=hunter2-and-more";
    let (code, notes) = code_and_notes(&server.url(), line).await;
    assert_eq!(code, 65);
    assert!(
        notes.contains("[redacted]") && !notes.contains(TOKEN) && !notes.contains("hunter2"),
        "{notes}"
    );
}

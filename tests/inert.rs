//! Whatever containers, the service and the API server send, no output of any command acts on a
//! terminal, neither results nor errors. JSON and YAML keep the exact text.

use std::collections::BTreeMap;

use podbeat_interface::terminal::acts;
use podbeat_lab::hostile::SAMPLE;
use podbeat_lab::pod::{Pod, terminated, waiting};
use podbeat_lab::world::World;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::binary::{Ended, Podbeat, ended, ended_with_input, podbeat};
use crate::harness::server::{Server, TOKEN, json_answer};
use crate::harness::{LIMIT, settings, text};

/// Whether any text in the value contains the hostile text.
fn holds_the_sample(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(SAMPLE),
        Value::Array(items) => items.iter().any(holds_the_sample),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains(SAMPLE) || holds_the_sample(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[track_caller]
fn is_inert(what: &str, text: &str) {
    let found = text.chars().find(|c| acts(*c) && !matches!(c, '\n' | '\t'));
    assert_eq!(found, None, "{what}: {text:?}");
}

/// Checks both outputs, and that one of them shows the text.
#[track_caller]
fn both_are_inert(what: &str, ended: &Ended) {
    is_inert(what, &ended.out);
    is_inert(what, &ended.notes);
    let shown = format!("{}{}", ended.out, ended.notes);
    assert!(shown.contains("]0;owned"), "{what}: {shown}");
}

/// A pod that ended, with the hostile text from its container.
fn pod() -> Value {
    let mut over = terminated(3, SAMPLE, "1");
    over["state"]["terminated"]["message"] = json!(SAMPLE);
    let mut pod = Pod::new("p", "u1").showing(&over);
    pod["metadata"]["annotations"] = json!({"podbeat.dev/task-run-id": "trn.1"});
    pod["spec"]["nodeName"] = json!(SAMPLE);
    pod["status"]["phase"] = json!("Failed");
    pod["status"]["reason"] = json!(SAMPLE);
    pod["status"]["message"] = json!(SAMPLE);
    pod
}

#[tokio::test]
async fn explain() {
    let journal = json!({"version": 1, "taskRunId": SAMPLE, "machine": {
        "identity": {"podName": SAMPLE}, "statuses": [{"name": SAMPLE, "state": {"waiting": {"reason": SAMPLE}}}],
    }});
    let line = |message: &str, fields: Value| {
        let mut line = json!({"timestamp": "2026-11-24T01:00:00Z", "level": "INFO", "message": message, "target": "podbeat"});
        let members = line.as_object_mut().expect("an object");
        members.extend(fields.as_object().expect("an object").clone());
        line.to_string()
    };
    let log = [
        line(
            "podbeat started",
            json!({"task_run_id": SAMPLE, "pod_name": SAMPLE, "version": SAMPLE}),
        ),
        line(
            "container state changed",
            json!({"container": SAMPLE, "to": "waiting", "reason": SAMPLE, "container_message": SAMPLE}),
        ),
        line("a heartbeat was not accepted", json!({"error": SAMPLE})),
        line("the last heartbeat is due", json!({"cause": SAMPLE})),
        line(SAMPLE, json!({"error": SAMPLE})),
    ];
    let record = json!({"type": "ADDED", "object": pod()}).to_string();
    let trouble = json!({"type": "ERROR", "object": {"message": SAMPLE}}).to_string();
    for (what, input) in [
        ("a journal", journal.to_string()),
        ("a log", log.join("\n")),
        ("a record", record),
        ("an error in a record", trouble),
    ] {
        let shown = ended_with_input(podbeat().arg("explain"), &input).await;
        assert_eq!(shown.code, 0, "{what}: {shown:?}");
        both_are_inert(what, &shown);
        let shown = ended_with_input(podbeat().args(["explain", "-o", "json"]), &input).await;
        both_are_inert(what, &shown);
        let story: Value = serde_json::from_str(&shown.out).expect("JSON");
        assert!(holds_the_sample(&story), "{what}: {story:#}");
    }
    let nowhere = format!("/nowhere/{SAMPLE}");
    let refused = ended(podbeat().args(["explain", &nowhere])).await;
    assert_eq!(refused.code, 66);
    both_are_inert("no such file", &refused);
}

#[tokio::test]
async fn runs() {
    let run = json!({"id": SAMPLE, "name": SAMPLE, "status": SAMPLE, "statusDetails": SAMPLE, "timeCreated": SAMPLE,
                     "createdBy": SAMPLE});
    let answer = run.clone();
    let server = Server::start(move |received| match received.path_and_query.as_str() {
        path if path.contains("refused") => {
            json_answer(400, &json!({"code": SAMPLE, "message": SAMPLE}))
        }
        path if path.contains("/runs?") || path.ends_with("/runs") => {
            json_answer(200, &json!({"items": [answer]}))
        }
        _ => json_answer(200, &answer),
    })
    .await;
    let runs = async |line: &str| {
        let mut command = podbeat();
        command
            .env("PODBEAT_SERVICE_URL", server.url())
            .env("PODBEAT_TOKEN", TOKEN)
            .arg("runs")
            .args(line.split(' '));
        ended(&mut command).await
    };
    for line in ["get trn.1", "list", "abort trn.1"] {
        for format in ["", " -o wide", " -o name", " -o json", " -o yaml"] {
            let line = format!("{line}{format}");
            let shown = runs(&line).await;
            assert_eq!(shown.code, 0, "{line}: {shown:?}");
            if line == "abort trn.1" {
                continue;
            }
            both_are_inert(&line, &shown);
            let read: Value = match format {
                " -o json" => serde_json::from_str(&shown.out).expect("JSON"),
                " -o yaml" => serde_saphyr::from_str(&shown.out).expect("YAML"),
                _ => continue,
            };
            let read = if line.starts_with("list") {
                &read["items"][0]
            } else {
                &read
            };
            assert_eq!(*read, run, "{line}");
        }
    }
    let waited = runs("wait trn.1 --for Completed --timeout 0s").await;
    both_are_inert("wait", &waited);
    for line in [
        "get refused",
        "abort refused",
        "heartbeat refused",
        "get refused -o json",
    ] {
        let refused = runs(line).await;
        assert_eq!(refused.code, 65, "{line}");
        both_are_inert(line, &refused);
    }
    let refused = runs(&format!("create -f /nowhere/{}", SAMPLE.replace(' ', ""))).await;
    both_are_inert("no such file", &refused);
}

#[tokio::test]
async fn reap_and_check() {
    let world = World::start().await.expect("a world");
    world.kube.apply(pod());
    let server = Server::start(|received| match received.method.as_str() {
        "GET" => json_answer(200, &json!({"id": "trn.1", "status": "Running"})),
        _ => json_answer(400, &json!({"code": SAMPLE, "message": SAMPLE})),
    })
    .await;
    let mut settings = settings(&world, &[("PODBEAT_SERVICE_URL", &server.url())]);
    settings.remove("PODBEAT_CA_FILE");
    for (line, is_json) in [
        ("reap --all --dry-run", false),
        ("reap --all --dry-run -o json", true),
        ("reap --all", false),
        ("reap --all -o json", true),
        ("reap p", false),
    ] {
        let shown = ended(podbeat().envs(&settings).args(line.split(' '))).await;
        both_are_inert(line, &shown);
        if is_json {
            let read: Value = serde_json::from_str(&shown.out).expect("JSON");
            let said = read["message"].as_str().expect("a text");
            assert!(said.contains("]0;owned"), "{read:#}");
        }
    }
    let nowhere = format!("/nowhere/{SAMPLE}");
    let refused = ended(
        podbeat()
            .envs(&settings)
            .args(["reap", "--journal", &nowhere]),
    )
    .await;
    both_are_inert("no such journal", &refused);

    let server =
        Server::start(|_| json_answer(403, &json!({"code": SAMPLE, "message": SAMPLE}))).await;
    settings.insert("PODBEAT_SERVICE_URL".to_owned(), server.url());
    settings.insert("PODBEAT_STATE_DIR".to_owned(), nowhere);
    for line in ["check", "check -o json"] {
        let shown = ended(podbeat().envs(&settings).args(line.split(' '))).await;
        both_are_inert(line, &shown);
        if line != "check" {
            let read: Value = serde_json::from_str(&shown.out).expect("JSON");
            assert!(holds_the_sample(&read), "{read:#}");
        }
    }
}

#[tokio::test]
async fn observe() {
    let world = World::start().await.expect("a world");
    world.kube.apply(pod());
    let record = world.path("record.jsonl");
    for (line, is_json) in [("observe p", false), ("observe p -o json", true)] {
        let mut command = podbeat();
        command
            .env("KUBECONFIG", world.path("kubeconfig"))
            .args(line.split(' '))
            .args(["--force", "--record", &text(&record)]);
        let shown = ended(&mut command).await;
        assert_eq!(shown.code, 0, "{shown:?}");
        both_are_inert(line, &shown);
        for told in shown.out.lines().filter(|_| is_json) {
            serde_json::from_str::<Value>(told).expect("JSON");
        }
        let kept = std::fs::read_to_string(&record).expect("a record");
        is_inert("the record", &kept);
        let kept: Value = serde_json::from_str(&kept).expect("one line");
        assert!(holds_the_sample(&kept), "{kept:#}");
    }
    let mut command = podbeat();
    command
        .env("KUBECONFIG", world.path(&format!("nowhere-{SAMPLE}")))
        .args(["observe", "p"]);
    let refused = ended(&mut command).await;
    both_are_inert("no such kubeconfig", &refused);
}

#[tokio::test]
async fn the_agent_and_exec() {
    let world = World::start().await.expect("a world");
    let server =
        Server::start(|_| json_answer(503, &json!({"code": SAMPLE, "message": SAMPLE}))).await;
    for format in ["json", "text"] {
        let mut waits = waiting(SAMPLE);
        waits["state"]["waiting"]["message"] = json!(SAMPLE);
        world.kube.apply(Pod::new("p", "u1").showing(&waits));
        let mut settings = settings(
            &world,
            &[
                ("PODBEAT_SERVICE_URL", &server.url()),
                ("PODBEAT_LOG_FORMAT", format),
                ("POD_HARDWARE_DETAILS", SAMPLE),
                ("PODBEAT_LISTEN", "127.0.0.1:0"),
            ],
        );
        settings.remove("PODBEAT_CA_FILE");
        let mut agent = Podbeat::with(&world, format, &settings, &[]);
        until_text(&agent, "container state changed").await;
        until_text(&agent, "a heartbeat was not accepted").await;
        let status = status_of(&agent, format).await;
        agent.kill();
        is_inert("the status", &status);
        assert!(status.contains("]0;owned"), "{status}");
        let log = agent.text();
        is_inert(format, &log);
        assert!(log.contains("]0;owned"), "{log}");
    }

    let dir = tempfile::tempdir().expect("a directory");
    let dir = text(dir.path());
    let arguments = [
        "exec",
        "--container-name",
        "main",
        "--marker-dir",
        &dir,
        "--",
    ];
    let nowhere = format!("/nowhere/{SAMPLE}");
    let not_run = ended(podbeat().args(arguments).arg(&nowhere)).await;
    assert_eq!(not_run.code, 127);
    both_are_inert("exec", &not_run);
    let usage = ended(podbeat().arg(format!("--{SAMPLE}"))).await;
    assert_eq!(usage.code, 64);
    is_inert("usage", &usage.notes);
    let wrong = BTreeMap::from([("PODBEAT_LOG", SAMPLE), ("PODBEAT_SERVICE_URL", SAMPLE)]);
    let usage = ended(podbeat().envs(wrong)).await;
    assert_eq!(usage.code, 64);
    is_inert("settings", &usage.notes);
}

/// The answer of the agent's admin endpoint to a request for its status.
async fn status_of(agent: &Podbeat, format: &str) -> String {
    let (before, after) = if format == "json" {
        ("\"address\":\"", '"')
    } else {
        ("address=", '\n')
    };
    let log = agent.text();
    let address = log.split_once(before).expect("where it listens").1;
    let address = address.split(after).next().expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}

async fn until_text(agent: &Podbeat, text: &str) {
    let found = async {
        while !agent.text().contains(text) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, found)
        .await
        .unwrap_or_else(|_| panic!("no {text:?}: {}", agent.text()));
}

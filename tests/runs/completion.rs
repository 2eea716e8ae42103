//! Dynamic completion, as shells request it.

use serde_json::json;
use tokio::process::Command;

use crate::harness::binary::{Ended, ended, podbeat};
use crate::harness::server::{Answer, Server, TOKEN, error, json_answer, raw};

/// podbeat as fish calls it to complete the last of these words.
fn asked(url: &str, line: &str) -> Command {
    let mut command = podbeat();
    command
        .env("PODBEAT_COMPLETE", "fish")
        .env("PODBEAT_SERVICE_URL", url)
        .env("PODBEAT_TOKEN", TOKEN)
        .arg("--")
        .args(line.split(' '));
    command
}

/// The offered words, without their descriptions. A person who pressed a key sees no error.
#[track_caller]
fn offered(ended: Ended) -> Vec<String> {
    let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    ended.done().lines().map(word).collect()
}

#[tokio::test]
async fn ids_of_runs_come_from_one_page_of_the_service() {
    let server = Server::start(|_| {
        json_answer(
            200,
            &json!({
                "items": [
                    {"id": "trn.2", "name": "align\u{1b}[2J", "status": "Running"},
                    {"id": "trn.1", "status": "Completed"},
                    {"id": "other"},
                    {"id": "trn.$(touch /tmp/x)"},
                    {"id": "trn.a b"},
                    {"id": "trn.\u{1b}[2J"},
                ],
                "nextPageToken": "more",
            }),
        )
    })
    .await;
    let url = server.url();
    for line in [
        "podbeat runs get tr",
        "podbeat runs get -o json trn.1 tr",
        "podbeat runs abort tr",
        "podbeat runs wait --for Completed tr",
        "podbeat runs watch tr",
        "podbeat runs heartbeat tr",
    ] {
        let ended = ended(&mut asked(&url, line)).await;
        assert!(!ended.out.contains('\u{1b}'), "{line}: {:?}", ended.out);
        assert_eq!(offered(ended), ["trn.2", "trn.1"], "{line}");
    }
    let received = server.received();
    assert_eq!(received.len(), 6, "one page each");
    for request in received {
        let query = &request.path_and_query;
        assert!(
            query.contains("pageSize=200") && query.contains("timeModified"),
            "{query}"
        );
    }
    // A flag on the command line has priority over the variable.
    let line = format!("podbeat runs get --service-url {url} tr");
    let typed = ended(&mut asked("http://127.0.0.1:9", &line)).await;
    assert_eq!(offered(typed), ["trn.2", "trn.1"]);
}

#[tokio::test]
async fn keys_of_inputs_and_outputs_need_no_service() {
    for (typed, expected) in [
        ("--input-mount u", vec!["url=", "urn="]),
        (
            "--input-mount path=/a,cre",
            vec!["path=/a,credentials-file="],
        ),
        ("--output-mount se", vec!["service-url="]),
        ("--system-files p", vec![]),
    ] {
        let line = format!("podbeat runs create {typed}");
        let ended = ended(&mut asked("http://127.0.0.1:9", &line)).await;
        assert_eq!(offered(ended), expected, "{typed}");
    }
}

#[tokio::test]
async fn completion_ignores_errors_of_the_service() {
    let server = Server::start(|received| match received.path_and_query.split('/').nth(1) {
        Some("hang") => Answer::Hang,
        Some("garbage") => raw(200, "<html>"),
        _ => error(403),
    })
    .await;
    let base = server.url();
    let base = base.trim_end_matches("/ica");
    for url in [
        &format!("{base}/hang"),
        &format!("{base}/garbage"),
        &format!("{base}/denied"),
        "http://127.0.0.1:9",
        "not a URL",
    ] {
        let ended = ended(&mut asked(url, "podbeat runs get trn.")).await;
        assert_eq!(offered(ended), [""; 0], "{url}");
    }
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn completions_without_a_service_are_offered() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join(".config/podbeat");
    std::fs::create_dir_all(&dir).expect("made");
    let profiles = "profiles: {staging: {url: https://s}, stable: {url: https://t}, 'st$(x)': {url: https://u}}";
    std::fs::write(dir.join("config.yaml"), profiles).expect("written");
    for (line, expected) in [
        ("podbeat runs --profile st", &["stable", "staging"][..]),
        ("podbeat check --profile sta", &["stable", "staging"]),
        ("podbeat runs wai", &["wait"]),
        ("podbeat runs list --page-s", &["--page-size"]),
        ("podbeat runs list --status Runni", &["Running"]),
    ] {
        let mut command = asked("http://127.0.0.1:9", line);
        let ended = ended(command.env("HOME", home.path())).await;
        assert_eq!(offered(ended), expected, "{line}");
    }
}

#[tokio::test]
async fn shells_get_the_script_that_asks_and_an_unknown_one_an_error() {
    for shell in ["bash", "zsh", "fish"] {
        let script = ended(podbeat().env("PODBEAT_COMPLETE", shell)).await.done();
        assert!(script.contains("PODBEAT_COMPLETE"), "{shell}: {script}");
    }
    let unknown = ended(podbeat().env("PODBEAT_COMPLETE", "tcsh")).await;
    assert_eq!(
        (unknown.code, unknown.out.as_str()),
        (64, ""),
        "{unknown:?}"
    );
    // An empty value or 0 turns it off.
    for off in ["", "0"] {
        let help = ended(podbeat().env("PODBEAT_COMPLETE", off).arg("--version")).await;
        assert!(help.done().starts_with("podbeat "));
    }
}

#[tokio::test]
async fn bash_offers_ids() {
    let server =
        Server::start(|_| json_answer(200, &json!({"items": [{"id": "trn.1"}, {"id": "trn.2"}]})))
            .await;
    let script = ended(podbeat().env("PODBEAT_COMPLETE", "bash"))
        .await
        .done();
    let ask = format!(
        "{script}\nCOMP_WORDS=(podbeat runs get trn); COMP_CWORD=3; COMP_TYPE=9; _clap_complete_podbeat podbeat trn get; printf \
         '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut bash = Command::new("bash");
    let bash = bash
        .args(["--norc", "-c", &ask])
        .env_clear()
        .env("PODBEAT_SERVICE_URL", server.url())
        .env("PODBEAT_TOKEN", TOKEN)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    assert_eq!(ended(bash).await.done(), "trn.1\ntrn.2\n");
}

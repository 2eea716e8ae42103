//! Profiles: a person's file, for commands that people run, and never for the agent.

use std::collections::BTreeSet;
use std::path::Path;

use podbeat_lab::service::{Options, Service};
use tokio::process::Command;

use crate::harness::binary::{ended, podbeat};
use crate::harness::plain_service;
use crate::harness::server::TOKEN;

async fn service() -> Service {
    plain_service(Options {
        runs: Some(BTreeSet::from(["trn.7".to_owned()])),
        ..Options::with_token(TOKEN)
    })
    .await
}

/// A home directory with a token and this file of profiles.
fn home(text: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join(".config/podbeat");
    std::fs::create_dir_all(&dir).expect("made");
    std::fs::write(dir.join("token"), TOKEN).expect("written");
    std::fs::write(dir.join("config.yaml"), text).expect("written");
    home
}

fn at(home: &Path, line: &str) -> Command {
    let mut command = podbeat();
    command.env("HOME", home).args(line.split(' '));
    command
}

#[tokio::test]
async fn a_profile_has_the_services_address() {
    let service = service().await;
    let home = home(&format!(
        "default: here\nprofiles:\n  here: {{url: '{}', tokenFile: token}}\n  away: {{url: 'https://127.0.0.1:9'}}\n",
        service.url()
    ));
    for line in [
        "runs get trn.7 -o name",
        "runs --profile here get trn.7 -o name",
        "runs get trn.7 -o name --profile here",
    ] {
        assert_eq!(
            ended(&mut at(home.path(), line)).await.done(),
            "trn.7\n",
            "{line}"
        );
    }
    let mut other = at(home.path(), "runs get trn.7 -o name");
    let away = ended(
        other
            .env("PODBEAT_PROFILE", "away")
            .env("PODBEAT_TOKEN", TOKEN),
    )
    .await;
    assert_eq!(away.code, 69, "{away:?}");
    let unknown = ended(&mut at(home.path(), "runs list --profile heer")).await;
    assert_eq!(unknown.code, 64);
    assert!(
        unknown
            .notes
            .contains(".config/podbeat/config.yaml: unknown profile \"heer\"; the file has"),
        "{}",
        unknown.notes
    );
}

#[tokio::test]
async fn check_names_the_profile_that_it_uses() {
    let service = service().await;
    let home = home(&format!(
        "profiles:\n  here: {{url: '{}', tokenFile: token}}\n",
        service.url()
    ));
    let line = "check --profile here --task-run-id trn.7 --pod-name p --timeout 2s -o json";
    let checked = ended(&mut at(home.path(), line)).await;
    let json: serde_json::Value = serde_json::from_str(&checked.out).expect("JSON");
    let finding = |id: &str| {
        let checks = json["checks"].as_array().expect("checks").iter();
        checks
            .clone()
            .find(|check| check["id"] == id)
            .cloned()
            .unwrap_or_default()
    };
    let seen = finding("settings.profile").to_string();
    assert!(
        seen.contains("here, from ") && seen.contains("config.yaml"),
        "{json}"
    );
    assert_eq!(finding("service.run")["state"], "ok", "{json}");
}

#[tokio::test]
async fn the_agent_reads_no_profile() {
    let service = service().await;
    let home = home(&format!(
        "default: here\nprofiles:\n  here: {{url: '{}', tokenFile: token}}\n",
        service.url()
    ));
    let agent = ended(
        at(home.path(), "agent --task-run-id trn.7 --pod-name p").env("PODBEAT_PROFILE", "here"),
    )
    .await;
    assert_eq!(agent.code, 64, "{agent:?}");
    assert!(
        agent
            .notes
            .contains("PODBEAT_SERVICE_URL (--service-url): missing"),
        "{}",
        agent.notes
    );
    let flag = ended(&mut at(home.path(), "agent --profile here")).await;
    assert_eq!(flag.code, 64, "{flag:?}");
}

//! Completions in a real shell, and manual pages.

use std::path::Path;

use crate::harness::binary::{ended, podbeat};

/// How bash would complete the last of these words.
async fn completed(words: &str) -> Vec<String> {
    let script = ended(podbeat().args(["completion", "bash"])).await.done();
    let count = words.split(' ').count();
    let ask = format!(
        "{script}\nCOMP_WORDS=({words}); COMP_CWORD={}; _podbeat podbeat '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        count - 1,
        words.rsplit(' ').next().unwrap_or_default(),
        words.rsplit(' ').nth(1).unwrap_or_default(),
    );
    let mut bash = tokio::process::Command::new("bash");
    let bash = bash
        .args(["--norc", "-c", &ask])
        .env_clear()
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    ended(bash)
        .await
        .done()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn bash_completes_commands_flags_and_statuses() {
    assert_eq!(completed("podbeat ru").await, ["runs"]);
    assert_eq!(completed("podbeat runs he").await, ["heartbeat"]);
    assert_eq!(
        completed("podbeat runs list --page-s").await,
        ["--page-size"]
    );
    assert_eq!(
        completed("podbeat runs list --status Fai").await,
        ["FailedRestartable", "Failed"]
    );
    assert_eq!(completed("podbeat runs wait trn.1 --for en").await, ["end"]);
    assert_eq!(completed("podbeat runs get trn.1 -o y").await, ["yaml"]);
}

#[tokio::test]
async fn every_shell_has_its_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ended(podbeat().args(["completion", shell])).await.done();
        assert!(
            script.contains("heartbeat") && script.contains("page-size"),
            "{shell}"
        );
    }
    let unknown = ended(podbeat().args(["completion", "tcsh"])).await;
    assert_eq!(unknown.code, 64);
    assert!(
        unknown
            .notes
            .contains("bash, elvish, fish, powershell, zsh"),
        "{}",
        unknown.notes
    );
}

#[tokio::test]
async fn every_command_has_a_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let pages = dir.path().join("man1");
    ended(podbeat().arg("man").arg(&pages)).await.done();
    let mut names: Vec<String> = std::fs::read_dir(&pages)
        .expect("pages")
        .map(|page| {
            page.expect("a page")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    names.sort_unstable();
    let mut expected = vec!["podbeat.1".to_owned()];
    let mut open = vec![("podbeat".to_owned(), podbeat::cli::command())];
    while let Some((name, command)) = open.pop() {
        for subcommand in command.get_subcommands() {
            let name = format!("{name}-{}", subcommand.get_name());
            expected.push(format!("{name}.1"));
            open.push((name, subcommand.clone()));
        }
    }
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(names.contains(&"podbeat-runs-list.1".to_owned()));
    for name in &names {
        let page = read(&pages.join(name));
        assert!(
            page.contains(".TH") && page.contains(".SH SYNOPSIS"),
            "{name}"
        );
    }
    let list = read(&pages.join("podbeat-runs-list.1"));
    assert!(
        list.contains("podbeat runs list \\-o wide"),
        "with its examples: {list}"
    );
    let mut refused = podbeat();
    let refused = ended(refused.arg("man").arg(pages.join("podbeat.1"))).await;
    assert_eq!(refused.code, 73);
    assert!(
        refused
            .notes
            .contains("check that it is a writable directory"),
        "{refused:?}"
    );
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("readable")
}

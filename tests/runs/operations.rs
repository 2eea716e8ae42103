//! The operations, against the stand-in service.

use std::collections::BTreeSet;
use std::time::Duration;

use podbeat_lab::service::{Options, Service};
use serde_json::{Value, json};

use crate::harness::server::TOKEN;

use super::runs;
use crate::harness::binary::{Ended, ended, ended_with_input, podbeat};
use crate::harness::{LIMIT, plain_service};

/// A service that knows no run yet.
async fn empty() -> Service {
    plain_service(Options {
        runs: Some(BTreeSet::new()),
        ..Options::with_token(TOKEN)
    })
    .await
}

/// A service that knows these runs.
pub(super) async fn with_runs(ids: impl IntoIterator<Item = String>) -> Service {
    plain_service(Options {
        runs: Some(ids.into_iter().collect()),
        ..Options::with_token(TOKEN)
    })
    .await
}

pub(super) async fn run(service: &Service, line: &str) -> Ended {
    let arguments: Vec<&str> = line.split(' ').collect();
    ended(&mut runs(&service.url(), &arguments)).await
}

/// The columns of a table, line by line.
fn columns(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| {
            line.split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect()
}

#[tokio::test]
async fn a_run_from_its_creation_to_its_end() {
    let service = empty().await;
    let line = "create --name align --image registry.example/align:2.1 --env KEY=hunter2 --cpu-cores 0.5 -- align --threads 4";
    let created = run(&service, line).await.done();
    let id = created
        .strip_prefix("task run ")
        .and_then(|rest| rest.strip_suffix(" created\n"))
        .expect(&created);

    let got = run(&service, &format!("get {id}")).await.done();
    let table = columns(&got);
    assert_eq!(table[0], ["ID", "NAME", "STATUS", "AGE"]);
    assert_eq!(table[1][..3], [id, "align", "Pending"]);
    let bare = run(&service, &format!("get {id} --no-headers"))
        .await
        .done();
    assert!(bare.starts_with(id) && bare.lines().count() == 1, "{bare}");

    let whole = run(&service, &format!("get {id} -o json")).await.done();
    let json: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(
        json["execution"],
        json!({
            "image": {"name": "registry.example/align", "tag": "2.1"},
            "command": "align", "args": ["--threads", "4"],
            "environment": {"variables": {"KEY": "[redacted]"}, "resources": {"cpuCores": 0.5}}
        })
    );
    let yaml = run(&service, &format!("get {id} -o yaml")).await.done();
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).expect("YAML"), json);
    assert!(
        !format!("{whole}{yaml}").contains("hunter2"),
        "{whole}{yaml}"
    );

    let beat = format!(
        "heartbeat {id} --container main=running --nonce n-1 --job-retry-count 1 --pod-name p --pod-uid u"
    );
    assert_eq!(
        run(&service, &beat).await.done(),
        format!("heartbeat of task run {id} accepted\n")
    );
    let received = service.heartbeats();
    assert_eq!(
        received[0].body,
        json!({
            "containerStatus": [{"name": "main", "state": {"running": {}}}], "jobRetryCount": 1, "nonce": "n-1",
            "podName": "p", "podUID": "u"
        })
    );
    let status = format!("wait {id} --for running -o name");
    assert_eq!(run(&service, &status).await.done(), format!("{id}\n"));

    let last = format!("heartbeat {id} --container main=terminated:0:Completed --last -o json");
    let sent: Value = serde_json::from_str(&run(&service, &last).await.done()).expect("JSON");
    let mut received = service.heartbeats().pop().expect("a heartbeat").body;
    let nonce = received
        .as_object_mut()
        .and_then(|body| body.remove("nonce"));
    assert_eq!(sent, received, "as sent, except for the nonce");
    assert_eq!(
        nonce.expect("a random one").as_str().map(str::len),
        Some(32)
    );
    assert_eq!(
        run(&service, &format!("wait {id} --for Completed"))
            .await
            .done(),
        format!("task run {id} is Completed\n")
    );
    assert_eq!(service.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn a_run_that_has_ended_can_not_be_aborted() {
    let service = with_runs(["trn.open", "trn.done"].map(String::from)).await;
    run(
        &service,
        "heartbeat trn.done --container main=terminated:0 --last",
    )
    .await
    .done();

    let refused = run(&service, "abort trn.done").await;
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (65, ""),
        "{}",
        refused.notes
    );
    assert_eq!(
        refused.notes,
        "podbeat: aborting task run trn.done: the task-run service answered 409: Conflict: the run is already Completed; \
         only a Pending or Running run can be aborted (`get` shows its status)\n"
    );

    // An error for one run does not stop the others.
    let some = run(&service, "abort trn.done trn.nowhere trn.open").await;
    assert_eq!(
        (some.code, some.out.as_str()),
        (65, "task run trn.open aborted\n")
    );
    assert_eq!(some.notes.lines().count(), 2, "{}", some.notes);
    assert!(
        some.notes
            .contains("aborting task run trn.nowhere: the task-run service answered 404")
    );
    let some = run(&service, "get trn.nowhere trn.open -o json").await;
    assert_eq!(some.code, 67);
    let json: Value = serde_json::from_str(&some.out).expect("JSON");
    assert_eq!(json["items"][0]["status"], "Aborted");
}

#[tokio::test]
async fn all_pages_of_a_long_list_are_shown() {
    const RUNS: usize = 2500;
    let ids: Vec<String> = (0..RUNS).map(|nth| format!("trn.{nth:04}")).collect();
    let service = with_runs(ids.iter().cloned()).await;
    for line in [
        "list -o wide",
        "list -o wide --page-size 77",
        "list -o wide --sort name:desc",
    ] {
        let listed = run(&service, line).await.done();
        let table = columns(&listed);
        assert_eq!(
            table[0],
            [
                "ID",
                "NAME",
                "STATUS",
                "AGE",
                "MODIFIED",
                "VERSION",
                "CREATED BY",
                "TYPE",
                "SIZE",
                "TIER",
                "DETAILS"
            ]
        );
        let mut shown: Vec<&str> = table[1..].iter().map(|row| row[0]).collect();
        assert_eq!(
            shown.first() < shown.last(),
            !line.ends_with("desc"),
            "{line}"
        );
        shown.sort_unstable();
        assert_eq!(shown, ids, "{line}");
        assert!(table.iter().all(|row| row.len() == 11), "{line}");
    }
    let json: Value =
        serde_json::from_str(&run(&service, "list -o json").await.done()).expect("JSON");
    assert_eq!(json["items"].as_array().map(Vec::len), Some(RUNS));
    let yaml: Value =
        serde_saphyr::from_str(&run(&service, "list -o yaml").await.done()).expect("YAML");
    assert_eq!(yaml, json);
    assert_eq!(
        run(&service, "list -o name --limit 1234")
            .await
            .done()
            .lines()
            .count(),
        1234
    );
}

#[tokio::test]
async fn lists_are_filtered_and_may_be_empty() {
    let service = with_runs(["trn.a", "trn.b", "trn.c"].map(String::from)).await;
    run(&service, "abort trn.b").await.done();
    let names = async |line: &str| run(&service, line).await.done();
    assert_eq!(names("list -o name --status aborted").await, "trn.b\n");
    assert_eq!(
        names("ls -o name --names trn.c,trn.a --sort-by name:desc").await,
        "trn.c\ntrn.a\n"
    );
    assert_eq!(
        names("list -o json --names nobody").await,
        "{\n    \"items\": []\n}\n"
    );
    assert_eq!(names("list -o yaml --names nobody").await, "items: []\n");
    let none = run(&service, "list --names nobody").await;
    assert_eq!(
        (none.code, none.out.as_str(), none.notes.as_str()),
        (0, "", "podbeat: no task runs found\n")
    );
    let odd = run(&service, "list --status Hibernating").await;
    assert_eq!((odd.code, odd.out.as_str()), (64, ""), "{odd:?}");
    // A newer service may know the status, and answers by itself.
    let odd = run(&service, "list --status Hibernating --allow-unknown-status").await;
    assert!(
        odd.notes
            .starts_with("podbeat: unknown status \"Hibernating\"; using it unchanged\n"),
        "{odd:?}"
    );
}

#[tokio::test]
async fn requests_come_from_files_and_from_standard_input() {
    let service = empty().await;
    let dir = tempfile::tempdir().expect("a directory");
    let yaml = "name: from-yaml\nexecution:\n  image: {name: i}\n---\nname: second\nexecution: {image: {name: i}}\n";
    let path = dir.path().join("run.yaml");
    std::fs::write(&path, yaml).expect("written");
    let path = path.to_str().expect("text");
    let created = ended(&mut runs(
        &service.url(),
        &["create", "-f", path, "-o", "json"],
    ))
    .await
    .done();
    let json: Value = serde_json::from_str(&created).expect("JSON");
    let names: Vec<_> = json["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|run| &run["name"])
        .collect();
    assert_eq!(names, ["from-yaml", "second"]);

    let input = r#"{"name": "from-input", "execution": {"image": {"name": "i"}, "retryLimit": 0}}"#;
    let mut command = runs(&service.url(), &["create", "-f", "-", "-o", "name"]);
    let id = ended_with_input(&mut command, input).await.done();
    assert!(
        run(&service, &format!("get {}", id.trim()))
            .await
            .done()
            .contains("from-input")
    );

    let beat = r#"{"lastHeartbeat": true, "nonce": "n", "containerStatus": [{"name": "m", "state": {"terminated": {"exitCode": 3}}}]}"#;
    let mut command = runs(&service.url(), &["heartbeat", id.trim(), "-f", "-"]);
    ended_with_input(&mut command, beat).await.done();
    assert_eq!(
        service.heartbeats()[0].body,
        serde_json::from_str::<Value>(beat).expect("JSON")
    );
    let unmet = run(
        &service,
        &format!("wait {} --for Completed --timeout 1h", id.trim()),
    )
    .await;
    assert_eq!(unmet.code, 1);
    assert_eq!(
        unmet.notes,
        format!(
            "podbeat: task run {} has ended with status Failed; it cannot become Completed\n",
            id.trim()
        )
    );

    // If a file has a mistake, podbeat sends nothing of it.
    let mut command = runs(&service.url(), &["create", "-f", "-"]);
    let wrong = ended_with_input(&mut command, "name: ok\n---\nnmae: hunter2\n").await;
    assert_eq!((wrong.code, wrong.out.as_str()), (65, ""));
    assert_eq!(
        wrong.notes,
        "podbeat: standard input: invalid request:\n  document 2: nmae: unknown member; the contract does not define it\n"
    );
    let image = "execution: {image: {name: i}}\n---\nexecution: {image: {name: Registry/UPPER, tag: ':x'}}\n";
    let mut command = runs(&service.url(), &["create", "-f", "-"]);
    let wrong = ended_with_input(&mut command, image).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (65, ""));
    assert!(
        wrong
            .notes
            .contains("document 2: execution.image: the image's repository has upper-case letters"),
        "{wrong:?}"
    );
    let missing = run(&service, "create -f /nowhere/run.yaml").await;
    assert_eq!(missing.code, 66);
    assert!(
        missing
            .notes
            .starts_with("podbeat: cannot read the request from /nowhere/run.yaml: "),
        "{missing:?}"
    );
    assert_eq!(
        run(&service, "list -o name").await.done().lines().count(),
        3
    );
}

#[tokio::test]
async fn a_dry_run_needs_no_service_and_shows_no_secret() {
    let mut command = podbeat();
    command.args("runs create --image i --env KEY=hunter2 --name n --dry-run -o yaml".split(' '));
    let shown = ended(&mut command).await;
    assert_eq!(shown.code, 0);
    let yaml: Value = serde_saphyr::from_str(&shown.out).expect("YAML");
    assert_eq!(
        yaml["execution"]["environment"]["variables"]["KEY"],
        "[redacted]"
    );
    assert_eq!(
        shown.notes,
        "podbeat: secrets are shown as [redacted]; replace them before you use this request\npodbeat: dry run: nothing was created\n"
    );
    let mut command = podbeat();
    let name = "n".repeat(256);
    command.args([
        "runs",
        "create",
        "--image",
        "i",
        "--dry-run",
        "--name",
        &name,
    ]);
    let refused = ended(&mut command).await;
    assert_eq!(refused.code, 65);
    assert!(
        refused
            .notes
            .contains("name must have at most 255 characters"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn inputs_and_credentials_from_flags_are_sent_and_not_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("registry.yaml");
    std::fs::write(&path, "{username: u, password: hunter2}").expect("written");
    let flags = format!(
        "--image i --registry-credentials-file {0} --input-mount path=/a,url=s3://b/a?x=hunter2 --output-mount path=/o",
        path.display()
    );
    let service = empty().await;
    let created = run(&service, &format!("create {flags} -o json"))
        .await
        .done();
    let created: Value = serde_json::from_str(&created).expect("JSON");
    let execution = &created["execution"];
    assert_eq!(execution["inputs"][0]["url"], "s3://b/a?[redacted]");
    assert_eq!(execution["outputs"], json!([{"path": "/o"}]));
    let shown = run(&service, &format!("create {flags} --dry-run"))
        .await
        .out;
    let shown: Value = serde_saphyr::from_str(&shown).expect("YAML");
    assert_eq!(
        shown["execution"]["image"]["credentials"],
        json!({"username": "u", "password": "[redacted]"})
    );
    let range = run(&service, "create --image i --input-stream cache-size-gb=1").await;
    assert_eq!(range.code, 65, "{range:?}");
    let member = "execution.environment.inputStreamSettings.cacheSizeGB must be from 50 to 10000";
    assert!(range.notes.contains(member), "{range:?}");
    // As with any other file that a flag names.
    std::fs::write(&path, "{usrname: hunter2}").expect("written");
    let refused = run(&service, &format!("create {flags}")).await;
    assert_eq!(refused.code, 64, "{refused:?}");
    assert!(
        refused.notes.contains("usrname: unknown member") && !refused.notes.contains("hunter2"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_watch_shows_each_change_until_the_end() {
    let service = with_runs(["trn.1".to_owned()]).await;
    let url = service.url();
    let mut watch = runs(
        &url,
        &["watch", "trn.1", "-o", "json", "--interval", "100ms"],
    );
    let mut child = watch.spawn().expect("the binary runs");
    let mut lines = {
        use tokio::io::{AsyncBufReadExt, BufReader};
        BufReader::new(child.stdout.take().expect("its output")).lines()
    };
    let mut next = async || -> String {
        let line = tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .expect("in time");
        let line = line.expect("read").expect("one more line");
        let run: Value = serde_json::from_str(&line).expect("JSON");
        run["status"].as_str().expect("a status").to_owned()
    };
    assert_eq!(next().await, "Pending");
    run(&service, "heartbeat trn.1 --container main=running")
        .await
        .done();
    assert_eq!(next().await, "Running");
    run(
        &service,
        "heartbeat trn.1 --container main=terminated:0 --last",
    )
    .await
    .done();
    assert_eq!(next().await, "Completed");
    let status = tokio::time::timeout(LIMIT, child.wait())
        .await
        .expect("it ends");
    assert!(status.expect("waited for").success());
}

/// The documents of a command that continues, one per line.
async fn statuses(
    url: &str,
    line: &str,
) -> (
    tokio::process::Child,
    impl AsyncFnMut() -> Option<(String, String)> + use<>,
) {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut child = runs(url, &arguments).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let next = async move || -> Option<(String, String)> {
        let line = tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .expect("in time");
        let run: Value = serde_json::from_str(&line.expect("read")?).expect("JSON");
        let text = |name: &str| run[name].as_str().expect("text").to_owned();
        Some((text("id"), text("status")))
    };
    (child, next)
}

fn seen(id: &str, status: &str) -> Option<(String, String)> {
    Some((id.to_owned(), status.to_owned()))
}

#[tokio::test]
async fn get_with_watch_shows_several_runs_until_the_last_one_has_ended() {
    let service = with_runs(["trn.1".to_owned(), "trn.2".to_owned()]).await;
    let (mut child, mut next) = statuses(
        &service.url(),
        "get trn.1 trn.2 -w -o json --interval 100ms",
    )
    .await;
    assert_eq!(next().await, seen("trn.1", "Pending"));
    assert_eq!(next().await, seen("trn.2", "Pending"));
    run(
        &service,
        "heartbeat trn.1 --container main=terminated:0 --last",
    )
    .await
    .done();
    assert_eq!(next().await, seen("trn.1", "Completed"));
    run(&service, "abort trn.2").await.done();
    assert_eq!(next().await, seen("trn.2", "Aborted"));
    assert_eq!(next().await, None);
    assert!(child.wait().await.expect("waited for").success());
}

#[tokio::test]
async fn list_with_watch_shows_new_and_changed_runs() {
    let service = with_runs(["trn.1".to_owned()]).await;
    let (_child, mut next) =
        statuses(&service.url(), "list --watch -o json --interval 100ms").await;
    assert_eq!(next().await, seen("trn.1", "Pending"));
    run(&service, "heartbeat trn.1 --container main=running")
        .await
        .done();
    assert_eq!(next().await, seen("trn.1", "Running"));
    let created = run(&service, "create --image i -o name").await.done();
    assert_eq!(next().await, seen(created.trim(), "Pending"));
    // Nothing else came: the next change is the next line.
    run(&service, "abort trn.1").await.done();
    assert_eq!(next().await, seen("trn.1", "Aborted"));
    let wrong = run(&service, "list -w --limit 3").await;
    assert_eq!(wrong.code, 64);
    assert!(
        wrong.notes.contains("--watch cannot be used with --limit"),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn waiting_for_a_silent_run_ends_when_it_is_timed_out() {
    let service = plain_service(Options {
        runs: Some(BTreeSet::from(["trn.1".to_owned()])),
        heartbeat_timeout: Some(Duration::from_millis(300)),
        ..Options::with_token(TOKEN)
    })
    .await;
    run(&service, "heartbeat trn.1 --container main=running")
        .await
        .done();
    let line = "wait trn.1 --for end --timeout 1m --interval 100ms";
    assert_eq!(
        run(&service, line).await.done(),
        "task run trn.1 is TimedOut\n"
    );
}

#[tokio::test]
async fn control_characters_are_shown_as_plain_text() {
    let service = empty().await;
    let request =
        json!({"name": "a\u{1b}[2J\nb\u{202e}", "execution": {"image": {"name": "i"}}}).to_string();
    for format in ["name", "wide", "json", "yaml"] {
        let mut command = runs(&service.url(), &["create", "-f", "-", "-o", format]);
        let created = ended_with_input(&mut command, &request).await.done();
        assert!(
            !created.chars().any(|c| c.is_control() && c != '\n'),
            "{created:?}"
        );
    }
    let listed = run(&service, "list").await.done();
    assert_eq!(listed.lines().count(), 5, "one line each: {listed:?}");
    assert!(!listed.contains('\u{202e}'));
}

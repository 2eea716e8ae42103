//! The flags of `podbeat runs`, and what they come to.

use std::time::Duration;

use podbeat::cli::Cli;
use podbeat_interface::command_line::Exit;
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::Ending;
use podbeat_laptop::runs::command::{self, Format, Invocation, RequestSource};
use podbeat_task_runs::model::{PageSize, SortField, TaskRunStatus};

fn parse(line: &str) -> Result<(Flags, Invocation), Exit> {
    let all = ["podbeat", "runs"].into_iter().chain(line.split(' '));
    podbeat::cli::parse(all.map(std::ffi::OsString::from)).map(|cli| match cli {
        Cli::Runs { flags, invocation } => (flags, *invocation),
        _ => panic!("not runs"),
    })
}

fn created(line: &str) -> serde_json::Value {
    let (_, invocation) = parse(line).expect(line);
    let command::Command::Create {
        from: RequestSource::Flags(request),
        ..
    } = invocation.command
    else {
        panic!("{line}");
    };
    serde_json::to_value(request).expect("JSON")
}

#[test]
fn a_run_from_flags() {
    let line = "create --name n --image localhost:5000/a/b:2.1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef --env A=1=2 --env B= --cpu-cores 4 --memory-gb 0.5 \
                --retry-limit 0 --acl x --acl y -- sh -c --help";
    assert_eq!(
        created(line),
        serde_json::json!({
            "name": "n", "acl": ["x", "y"],
            "execution": {
                "image": {"name": "localhost:5000/a/b", "tag": "2.1", "digest": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
                "command": "sh", "args": ["-c", "--help"], "retryLimit": 0,
                "environment": {"variables": {"A": "1=2", "B": ""}, "resources": {"cpuCores": 4, "memoryGb": 0.5}}
            }
        })
    );
    let least = created("create --image localhost:5000/a");
    assert_eq!(
        least,
        serde_json::json!({"execution": {"image": {"name": "localhost:5000/a"}}})
    );
}

#[test]
fn inputs_outputs_and_credentials_from_flags() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.display().to_string()
    };
    let registry = file(
        "registry",
        r#"{"username": "puller", "password": "hunter2"}"#,
    );
    let storage = file("storage", "accessKey: a\nsecretKey: hunter3\n");
    let line = format!(
        "create --image i --registry-credentials-file {registry} --hardware fpga --hardware gpu \
         --working-directory /work --input-mount path=/data/a,url=s3://b/a,type=File,mode=stream \
         --input path=/data/b,urn=urn:b,storage-provider=s3,credentials-file={storage} \
         --output-mount path=/out,url=s3://b/out,service-url=https://s,credentials-file={storage} \
         --system-files url=s3://b/system,credentials-file={storage} \
         --input-stream access-pattern=random,cache-size-gb=70"
    );
    let keys = serde_json::json!({"accessKey": "a", "secretKey": "hunter3"});
    assert_eq!(
        created(&line),
        serde_json::json!({"execution": {
            "image": {"name": "i", "credentials": {"username": "puller", "password": "hunter2"}},
            "workingDirectory": "/work",
            "inputs": [
                {"path": "/data/a", "url": "s3://b/a", "type": "File", "mode": "stream"},
                {"path": "/data/b", "urn": "urn:b", "storageProvider": "s3", "credentials": keys}],
            "outputs": [{"path": "/out", "url": "s3://b/out", "serviceUrl": "https://s", "credentials": keys}],
            "systemFiles": {"url": "s3://b/system", "credentials": keys},
            "environment": {"resources": {"hardware": ["fpga", "gpu"]},
                "inputStreamSettings": {"accessPattern": "random", "cacheSizeGB": 70}}
        }})
    );
}

#[test]
fn connection_flags_are_accepted_at_any_position() {
    for line in [
        "--service-url https://h --token-file /t list -o wide --no-headers",
        "list --token-file /t -o wide --service-url https://h --no-headers",
    ] {
        let (flags, invocation) = parse(line).expect(line);
        assert_eq!(flags.0.len(), 2, "{line}");
        assert!(invocation.format == Some(Format::Wide) && !invocation.headers);
    }
}

#[test]
fn lists_and_waits() {
    let (_, invocation) =
        parse("list --sort timecreated:desc --status RUNNING --page-size 7 --limit 3")
            .expect("right");
    let command::Command::List {
        query,
        limit: Some(3),
    } = invocation.command
    else {
        panic!("a list")
    };
    assert_eq!(query.sort, Some(SortField::TimeCreated.descending().into()));
    assert_eq!(query.status, Some(TaskRunStatus::Running));
    assert_eq!(query.page_size, PageSize::new(7));
    let (_, invocation) = parse("list --page-token x --page-size 7").expect("right");
    let command::Command::ListPage { query } = invocation.command else {
        panic!("a page")
    };
    assert_eq!(query.page_token.as_deref(), Some("x"));
    // An empty token requests the first page, with any sort order and filters.
    let (_, invocation) =
        parse("list --page-token= --sort name,status:DESC --names a").expect("right");
    let command::Command::ListPage { query } = invocation.command else {
        panic!("a page")
    };
    assert_eq!(query.page_token, None);
    let sort = query.sort.map(|sort| sort.to_string());
    assert_eq!(sort.as_deref(), Some("name asc,status desc"));
    let (_, invocation) =
        parse("wait a b --for completed,Odd --allow-unknown-status --timeout 0").expect("right");
    assert_eq!(invocation.notes.len(), 1, "{:?}", invocation.notes);
    let command::Command::Wait { runs, timeout, .. } = invocation.command else {
        panic!("a wait")
    };
    assert_eq!((runs.len(), timeout), (2, Duration::ZERO));
}

#[test]
fn errors_are_named_and_values_are_not_repeated() {
    for (line, expected) in [
        (
            "create --image i --env hunter2",
            "--env: must be NAME=VALUE",
        ),
        (
            "create -f hunter2 --image hunter2",
            "--filename cannot be used with --image <IMAGE>",
        ),
        ("create --name hunter2", "--image"),
        (
            "create --image i --input-mount pth=/hunter2",
            "--input-mount: unknown key; did you mean path?",
        ),
        (
            "create --image i --input hunter2",
            "--input-mount: must be KEY=VALUE, or several separated by commas; the keys are path, url",
        ),
        (
            "create --image i --output-mount path=/a,credentials=hunter2",
            "--output-mount: unknown key; did you mean credentials-file?",
        ),
        (
            "create --image i --system-files url=s3://b/a,hunter2=hunter2",
            "--system-files: unknown key; the keys are url, urn, storage-provider, credentials-file",
        ),
        (
            "create --image i --input-stream cache-size-gb=hunter2",
            "--input-stream: the value of cache-size-gb must be a whole number",
        ),
        (
            "create --image i --input-mount credentials-file=/nowhere/c",
            "cannot read the storage credentials from /nowhere/c",
        ),
        (
            "create --image i --registry-credentials-file /nowhere/c",
            "cannot read the registry credentials from /nowhere/c",
        ),
        ("create -f x --hardware hunter2", "cannot be used with"),
        ("list --sort hunter2", "--sort: must be name, status"),
        (
            "list --sort name:hunter2",
            "--sort: the direction of name must be asc or desc",
        ),
        (
            "list --sort name,status,name:desc",
            "--sort: must not contain name twice",
        ),
        (
            "list --page-token hunter2 --sort name",
            "--page-token cannot be used with --sort: the token contains the sort order",
        ),
        (
            "list --page-token hunter2 --status running",
            "--page-token cannot be used with --status",
        ),
        (
            "list --page-token hunter2 --limit 1",
            "--page-token cannot be used with --limit",
        ),
        ("list --page-token hunter2 -w", "--page-token"),
        (
            "list --page-size 1001",
            "--page-size: must be a whole number from 1 to 1000",
        ),
        (
            "create --image Registry/UPPER:::hunter2",
            "--image: the image's repository has upper-case letters",
        ),
        (
            "create --image a:::hunter2",
            "--image: the image's repository is malformed",
        ),
        (
            "create --image https://x/hunter2",
            "--image: the image's registry must be HOST",
        ),
        (
            "wait trn.1 --for Runing",
            "--for: unknown status \"Runing\"; did you mean \"Running\"? (--allow-unknown-status accepts it)",
        ),
        (
            "wait trn.1 --for Completed,fialed",
            "--for: unknown status \"fialed\"; did you mean \"Failed\"?",
        ),
        ("wait trn.1 --for edn", "did you mean \"end\"?"),
        (
            "list --status timed_out",
            "--status: unknown status \"timed_out\"; did you mean \"TimedOut\"?",
        ),
        (
            "list --status end",
            "--status: unknown status \"end\"; podbeat knows Pending, CheckedOut",
        ),
        (
            "list --status eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.hunter2",
            "--status: unknown status; podbeat knows Pending",
        ),
        ("list --limit 0", "--limit: must be a whole number above 0"),
        (
            "heartbeat trn.1 --job-retry-count hunter2",
            "--job-retry-count: must be a whole number",
        ),
        (
            "list -o hunter2",
            "--output: must be one of json, yaml, name, wide",
        ),
        ("get", "missing: <RUN>..."),
        ("wait trn.1", "missing: --for <STATUS>"),
        (
            "wait trn.1 --for Completed --timeout hunter2",
            "--timeout: must be a duration",
        ),
        (
            "wait trn.1 --for Completed --interval 1ms",
            "--interval: must be at least 100ms",
        ),
        (
            "heartbeat trn.1 --container main=hunter2",
            "--container: must be NAME=waiting",
        ),
        (
            "heartbeat trn.1 --nonce-file /nowhere/nonce",
            "cannot read the nonce from /nowhere/nonce",
        ),
        ("hunter2", "unknown command"),
        (
            "list --statsu=hunter2",
            "unknown flag --statsu; did you mean --status?",
        ),
    ] {
        let exit = parse(line).err().expect(line);
        assert_eq!(exit.failure, Some(Ending::Usage), "{line}");
        assert!(
            exit.text.contains(expected) && !exit.text.contains("hunter2"),
            "{line}: {}",
            exit.text
        );
    }
    let exit = parse("list --sort x").err().expect("wrong");
    assert!(
        exit.text.ends_with("see podbeat runs list --help\n"),
        "{}",
        exit.text
    );
}

//! The examples in deploy/examples: tasks that other controllers create, with podbeat by admission.
//! Those controllers don't run here. `platforms` does what their sources say that they do.

use std::collections::BTreeSet;

use podbeat_lab::service::Heartbeat;
use serde_json::{Value, json};

use super::admission::set;
use super::platforms;
use super::site::Site;
use super::statics::{self, Desk, deploy, files, read};
use crate::node::images::{CURL_IMAGE, import_curl};
use crate::scenarios::play::{LIMIT, Pod, expect};
use crate::scenarios::recording::by_pod;
use crate::{Error, ours};

/// The label that asks for podbeat.
pub(super) const INJECT: &str = "podbeat.dev/inject";
/// The annotation with the run's ID.
pub(super) const RUN: &str = "podbeat.dev/task-run-id";
/// The path of an annotation or label in a pointer.
const RUN_IN_POD: &str = "/metadata/annotations/podbeat.dev~1task-run-id";
const JOB_OF_POD: &str = "/metadata/labels/batch.kubernetes.io~1job-name";

/// A task that waits until the scenario writes its exit code.
const TOLD: &str = "trap 'exit 143' TERM; until [ -s /scratch/code ]; do sleep 0.1; done; exit $(cat /scratch/code)";

/// Every example names its run and asks for podbeat, and uses only annotations that exist.
pub(super) async fn annotations(_: &Desk) -> Result<Vec<String>, Error> {
    let policy = read(&deploy("admission/validating.yaml"))?;
    let known: BTreeSet<&str> = policy
        .split_once("- name: known")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list.split('"').skip(1).step_by(2).collect())
        .unwrap_or_default();
    expect(known.contains("task-run-id"), || {
        format!("the annotations that the policy knows: {known:?}")
    })?;
    let mut lines = Vec::new();
    for path in files(&deploy("examples"))? {
        let text = read(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut used: BTreeSet<&str> = text
            .split("podbeat.dev/")
            .skip(1)
            .map(|rest| {
                let end = rest.find(|letter: char| letter != '-' && !letter.is_ascii_lowercase());
                rest.split_at(end.unwrap_or(rest.len())).0
            })
            .collect();
        expect(used.remove("inject"), || {
            format!("{name} has no label {INJECT}")
        })?;
        expect(used.contains("task-run-id"), || {
            format!("{name} has no annotation {RUN}")
        })?;
        let unknown: Vec<&&str> = used.difference(&known).collect();
        expect(unknown.is_empty(), || {
            format!("{name} has unknown annotations podbeat.dev/…: {unknown:?}")
        })?;
        lines.push(format!("{name}: {used:?}"));
    }
    expect(lines.len() == 9, || {
        format!("expected nine examples: {lines:?}")
    })?;
    Ok(lines)
}

/// The whole scenario on the node.
pub(super) async fn played(site: &Site) -> Result<(), Error> {
    // The policies exist once in the cluster.
    let _alone = site.ground.policies.lock().await;
    super::manifests::namespace_objects(site).await?;
    let injects = site.manifest("admission/mutating.yaml", &[])?;
    let refuses = deploy("admission/validating.yaml").display().to_string();
    let policies = ["--filename", &injects, "--filename", &refuses];
    site.kubectl(&[&["apply"], &policies[..]].concat())
        .await?
        .well()?;
    let outcome = Box::pin(all(site)).await;
    site.kubectl(&[&["delete"], &policies[..]].concat())
        .await?
        .well()?;
    outcome
}

async fn all(site: &Site) -> Result<(), Error> {
    injects(site).await?;
    tokio::try_join!(
        retried(site),
        indexed(site),
        nightly(site),
        platforms::jobset(site),
        platforms::kueue(site),
        platforms::argo(site),
        platforms::tekton(site),
        platforms::airflow(site)
    )?;
    Ok(())
}

/// Waits until the policies apply: a pod of an example gets podbeat.
async fn injects(site: &Site) -> Result<(), Error> {
    let template = statics::template(&example(site, "job-with-retries.yaml", &[])?, "retried")?;
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
    set(
        &mut pod,
        "/spec",
        template.get("spec").cloned().unwrap_or_default(),
    );
    let mut metadata = template.get("metadata").cloned().unwrap_or_default();
    set(&mut metadata, "/name", json!("probe"));
    set(&mut pod, "/metadata", metadata);
    let file = site.file("probe.json", &pod.to_string())?;
    let create = [
        "create",
        "--dry-run=server",
        "--output=json",
        "--filename",
        &file,
    ];
    site.until(
        "podbeat in a pod that asks for it",
        // One policy may take effect before the other.
        async || Ok(site.quietly(&create).await.unwrap_or_default()),
        |made| {
            let made: Value = serde_json::from_str(made).unwrap_or_default();
            made.pointer("/spec/initContainers/0/name") == Some(&json!("podbeat"))
        },
    )
    .await?;
    Ok(())
}

/// The objects of an example, with the site's own namespace and images.
pub(super) fn example(site: &Site, name: &str, more: &[(&str, &str)]) -> Result<Vec<Value>, Error> {
    let path = site.manifest(&format!("examples/{name}"), more)?;
    statics::objects(&read(path.as_ref())?)
}

/// The first object of a kind.
pub(super) fn of_kind(objects: &[Value], kind: &str) -> Result<Value, Error> {
    let found = objects
        .iter()
        .find(|object| object.get("kind") == Some(&json!(kind)));
    found
        .cloned()
        .ok_or_else(|| Error::Unexpected(format!("no {kind} among {objects:#?}")))
}

/// Creates an object with kubectl.
pub(super) async fn create(site: &Site, name: &str, object: &Value) -> Result<(), Error> {
    let file = site.file(&format!("{name}.json"), &object.to_string())?;
    site.kubectl(&["create", "--validate=strict", "--filename", &file])
        .await?
        .well()?;
    Ok(())
}

/// Lets the task of a pod spec wait for its exit code.
pub(super) fn wait_for_code(spec: &mut Value) {
    let mount = json!([{"name": "scratch", "mountPath": "/scratch"}]);
    set(spec, "/containers/0/command", json!(["sh", "-c", TOLD]));
    set(spec, "/containers/0/volumeMounts", mount);
    set(
        spec,
        "/volumes",
        json!([{"name": "scratch", "emptyDir": {}}]),
    );
}

/// Writes the exit code of a task that waits for it.
pub(super) async fn end_with(site: &Site, pod: &Pod, code: i64) -> Result<(), Error> {
    site.play.until_told(pod, "main", "running").await?;
    let node = site.play.stage.node.lock().await;
    node.write_into(&pod.uid, "scratch", "code", &code.to_string())
}

/// The pod with the index `nth`, from 0, among those that are as wanted.
pub(super) async fn nth(
    site: &Site,
    what: &str,
    nth: usize,
    is: impl Fn(&Value) -> bool,
) -> Result<Pod, Error> {
    let what = format!("pod {nth} of {what}");
    let found = |seen: &[crate::scenarios::recording::Seen]| {
        let mut firsts = by_pod(seen).into_iter().filter_map(|(_, events)| {
            let first = events.first()?;
            is(first.pod()).then(|| Pod::of(first))
        });
        firsts.nth(nth)
    };
    let seen = site
        .play
        .recording
        .until_all(&what, LIMIT, |seen| found(seen).is_some())
        .await?;
    found(&seen).ok_or_else(|| Error::Unexpected(format!("{what} is gone again")))
}

/// The pod with the index `nth` of a Job.
pub(super) async fn nth_of_job(site: &Site, job: &str, number: usize) -> Result<Pod, Error> {
    let wanted = json!(job);
    nth(site, job, number, |pod| {
        pod.pointer(JOB_OF_POD) == Some(&wanted)
    })
    .await
}

/// Follows a pod to its end, and returns its one last heartbeat, with this exit code of `main`. A
/// task may have ended before this is called.
pub(super) async fn to_the_end(site: &Site, pod: &Pod, code: i64) -> Result<Heartbeat, Error> {
    site.play.until_final(pod).await?;
    let of_podbeat = site.play.until_podbeat_ended(pod).await?;
    let last = site.play.check(pod)?;
    expect(
        of_podbeat == 0 && last.exit_code("main") == Some(code),
        || format!("podbeat ended with {of_podbeat}; expected {code} of main: {last:?}"),
    )?;
    Ok(last)
}

/// Checks the run and the number of retries of a heartbeat.
pub(super) fn attempt(last: &Heartbeat, run: &str, retries: Option<u64>) -> Result<(), Error> {
    let told = last.body.get("jobRetryCount").and_then(Value::as_u64);
    expect(last.run_id == run && told == retries, || {
        format!("expected the run {run} with jobRetryCount {retries:?}: {last:?}")
    })
}

/// Checks the status of a run.
pub(super) async fn run_is(site: &Site, run: &str, expected: &str) -> Result<(), Error> {
    let status = site.play.service.status(run).await?;
    site.say(&format!("run {run}: {status:?}"));
    expect(status == Some(expected), || {
        format!("expected the run {run} to be {expected}: {status:?}")
    })
}

/// The first pod fails, the second one succeeds.
async fn retried(site: &Site) -> Result<(), Error> {
    let objects = example(
        site,
        "job-with-retries.yaml",
        &[("trn.1234", "trn.retried")],
    )?;
    let mut job = of_kind(&objects, "Job")?;
    if let Some(spec) = job.pointer_mut("/spec/template/spec") {
        wait_for_code(spec);
    }
    create(site, "retried", &job).await?;
    for (number, code) in [(0, 3), (1, 0)] {
        let pod = nth_of_job(site, "retried", number).await?;
        end_with(site, &pod, code).await?;
        let last = to_the_end(site, &pod, code).await?;
        attempt(&last, "trn.retried", u64::try_from(number).ok())?;
    }
    site.play.until_job_is("retried", "Complete").await?;
    run_is(site, "trn.retried", "Completed").await
}

/// Each index has its run. Index 1 fails once.
async fn indexed(site: &Site) -> Result<(), Error> {
    let objects = example(site, "indexed-job.yaml", &[("trn.1234-", "trn.part-")])?;
    let mut job = of_kind(&objects, "Job")?;
    let failures = "metadata.annotations['batch.kubernetes.io/job-index-failure-count']";
    let env = json!([{"name": "FAILURES", "valueFrom": {"fieldRef": {"fieldPath": failures}}}]);
    let fails_once = "sleep 2; [ $JOB_COMPLETION_INDEX != 1 ] || [ $FAILURES = 1 ] || exit 3";
    let main = "/spec/template/spec/containers/0";
    set(
        &mut job,
        &format!("{main}/command"),
        json!(["sh", "-c", fails_once]),
    );
    set(&mut job, &format!("{main}/env"), env);
    create(site, "indexed", &job).await?;
    let one = async |index: usize, number: usize, code: i64| {
        let (name, wanted) = (json!("indexed"), json!(index.to_string()));
        let label = "/metadata/labels/batch.kubernetes.io~1job-completion-index";
        let is = |pod: &Value| {
            pod.pointer(JOB_OF_POD) == Some(&name) && pod.pointer(label) == Some(&wanted)
        };
        let pod = nth(site, &format!("index {index}"), number, is).await?;
        let last = to_the_end(site, &pod, code).await?;
        attempt(
            &last,
            &format!("trn.part-{index}"),
            u64::try_from(number).ok(),
        )
    };
    tokio::try_join!(one(0, 0, 0), one(1, 0, 3), one(1, 1, 0), one(2, 0, 0))?;
    site.play.until_job_is("indexed", "Complete").await?;
    for index in 0..3 {
        run_is(site, &format!("trn.part-{index}"), "Completed").await?;
    }
    Ok(())
}

/// Each Job of the CronJob creates a run, and a Job that reports it. They are created by hand, because
/// the node has no controller of CronJobs: it would also start the CronJobs of other sites.
async fn nightly(site: &Site) -> Result<(), Error> {
    let root = site.ground.stage.root.clone();
    // It takes seconds, and would stop all other scenarios.
    tokio::task::spawn_blocking(move || import_curl(&root))
        .await
        .map_err(ours("creating the image with curl"))??;
    let image = format!("image: {CURL_IMAGE}\n");
    let more = [("image: curlimages/curl:8.19.0\n", image.as_str())];
    let file = site.manifest("examples/cronjob.yaml", &more)?;
    let apply = ["apply", "--validate=strict", "--filename", &file];
    site.kubectl(&apply).await?.well()?;
    let is = |pod: &Value| {
        let job = pod.pointer(JOB_OF_POD).and_then(Value::as_str);
        job.is_some_and(|job| job.starts_with("nightly-")) && pod.pointer(RUN_IN_POD).is_some()
    };
    let mut runs = BTreeSet::new();
    for (number, name) in ["first-night", "second-night"].into_iter().enumerate() {
        let by_hand = ["create", "job", name, "--from=cronjob/nightly"];
        site.kubectl(&by_hand).await?.well()?;
        site.play.until_job_is(name, "Complete").await?;
        let pod = nth(site, "the nightly Jobs", number, is).await?;
        let last = to_the_end(site, &pod, 0).await?;
        attempt(&last, &last.run_id, Some(0))?;
        run_is(site, &last.run_id, "Completed").await?;
        runs.insert(last.run_id);
    }
    expect(runs.len() == 2, || {
        format!("expected a run for each time: {runs:?}")
    })
}

/// Whether the API server knows a kind; otherwise says that it is not checked.
pub(super) async fn accepts(
    site: &Site,
    group: &str,
    name: &str,
    objects: &[Value],
    member: &str,
) -> Result<(), Error> {
    let known = site
        .quietly(&["api-resources", "--output=name", "--api-group", group])
        .await?;
    if known.is_empty() {
        site.say(&format!(
            "{name} is not checked against its definition: the API server has no kinds of {group} (--crds DIRECTORY)"
        ));
        return Ok(());
    }
    let dry_run = async |name: &str, objects: &[Value]| {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let file = site.file(name, &list.to_string())?;
        let create = ["create", "--dry-run=server", "--validate=strict"];
        site.kubectl(&[&create[..], &["--filename", &file]].concat())
            .await
    };
    let said = dry_run(&format!("{name}.json"), objects).await?;
    let warnings = said.stderr.clone();
    said.well()?;
    expect(warnings.is_empty(), || {
        format!("the API server warns of {name}: {warnings}")
    })?;
    // Otherwise the definition may accept anything.
    let mut wrong = objects.to_vec();
    let own = |object: &&mut Value| {
        let version = object.get("apiVersion").and_then(Value::as_str);
        version.is_some_and(|version| version.starts_with(group))
    };
    let Some(changed) = wrong.iter_mut().rfind(own) else {
        return Err(Error::Unexpected(format!(
            "{name} has no object of {group}"
        )));
    };
    set(changed, &format!("{member}/podbeatUnknown"), json!("x"));
    let refusal = dry_run("wrong.json", &wrong).await?.refused()?;
    expect(refusal.contains("podbeatUnknown"), || {
        format!("expected the refusal of an unknown member: {refusal}")
    })?;
    site.say(&format!(
        "the API server accepts {name} strictly, and refuses an unknown member {member}/podbeatUnknown"
    ));
    Ok(())
}

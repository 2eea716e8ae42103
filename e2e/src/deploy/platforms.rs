//! The examples for JobSet, Kueue, Argo Workflows, Tekton and Airflow. None of them runs here. Each function
//! does on a real node what the controller's source says that it does, with what the example says.

use podbeat_lab::service::Heartbeat;
use serde_json::{Value, json};

use super::admission::{names, set};
use super::examples::{
    accepts, attempt, create, end_with, example, nth, nth_of_job, of_kind, run_is, to_the_end,
    wait_for_code,
};
use super::site::Site;
use super::statics::read;
use crate::node::images::{PODBEAT, TASK};
use crate::runner::repository;
use crate::scenarios::play::{Pod, expect};
use crate::scenarios::recording::{Seen, state, status};
use crate::{Error, ours};

/// Copies members over those of an existing map.
fn add(object: &mut Value, path: &str, more: Value) {
    let mut all = object.pointer(path).cloned().unwrap_or(json!({}));
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    set(object, path, all);
}

/// JobSet creates a Job for each replica. After a failure it deletes all of them, and creates them
/// again with the next restart-attempt (pkg/controllers/jobset_controller.go, constructJob).
pub(super) async fn jobset(site: &Site) -> Result<(), Error> {
    let runs = [("trn.1234", "trn.leader"), ("trn.5678", "trn.worker")];
    let objects = example(site, "jobset.yaml", &runs)?;
    accepts(site, "jobset.x-k8s.io", "jobset.yaml", &objects, "/spec").await?;
    let jobset = of_kind(&objects, "JobSet")?;
    let replicated = jobset.pointer("/spec/replicatedJobs");
    let replicated = replicated.and_then(Value::as_array).into_iter().flatten();
    let replicated: Vec<&Value> = replicated.collect();
    let jobs = ["training-leader-0", "training-worker-0"];
    for restart in ["0", "1"] {
        for (one, name) in replicated.iter().zip(jobs) {
            let labels = json!({
                "jobset.sigs.k8s.io/jobset-name": "training",
                "jobset.sigs.k8s.io/replicatedjob-name": one.get("name"),
                "jobset.sigs.k8s.io/restart-attempt": restart,
            });
            let mut spec = one.pointer("/template/spec").cloned().unwrap_or_default();
            set(&mut spec, "/completionMode", json!("Indexed"));
            add(&mut spec, "/template/metadata/labels", labels.clone());
            add(&mut spec, "/template/metadata/annotations", labels.clone());
            if let Some(spec) = spec.pointer_mut("/template/spec") {
                wait_for_code(spec);
            }
            let job = json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec,
                             "metadata": {"name": name, "labels": labels}});
            create(site, &format!("{name}-{restart}"), &job).await?;
        }
        let nth = usize::from(restart == "1");
        let leader = nth_of_job(site, "training-leader-0", nth).await?;
        let worker = nth_of_job(site, "training-worker-0", nth).await?;
        if restart == "0" {
            site.play.until_told(&leader, "main", "running").await?;
            end_with(site, &worker, 3).await?;
            let last = to_the_end(site, &worker, 3).await?;
            attempt(&last, "trn.worker", Some(0))?;
            site.play
                .until_job_is("training-worker-0", "Failed")
                .await?;
            let delete = ["delete", "job", "--cascade=foreground"];
            site.kubectl(&[&delete[..], &jobs].concat()).await?.well()?;
            let last = site.play.until_final(&leader).await?;
            site.play.until_gone(&leader).await?;
            attempt(&last, "trn.leader", Some(0))?;
            run_is(site, "trn.leader", "FailedRestartable").await?;
            run_is(site, "trn.worker", "FailedRestartable").await?;
        } else {
            end_with(site, &leader, 0).await?;
            end_with(site, &worker, 0).await?;
            let (leader, worker) =
                tokio::try_join!(to_the_end(site, &leader, 0), to_the_end(site, &worker, 0))?;
            // podbeat counts only the pods of its own Job. The service accepts the other pod.
            attempt(&leader, "trn.leader", Some(0))?;
            attempt(&worker, "trn.worker", Some(0))?;
        }
    }
    run_is(site, "trn.leader", "Completed").await?;
    run_is(site, "trn.worker", "Completed").await
}

/// Kueue resumes the Job when it admits it, and suspends it when it preempts it
/// (pkg/controller/jobs/job/job_controller.go, RunWithPodSetsInfo and Stop).
pub(super) async fn kueue(site: &Site) -> Result<(), Error> {
    let objects = example(site, "kueue.yaml", &[("trn.1234", "trn.queued")])?;
    accepts(site, "kueue.x-k8s.io", "kueue.yaml", &objects, "/spec").await?;
    let mut job = of_kind(&objects, "Job")?;
    if let Some(spec) = job.pointer_mut("/spec/template/spec") {
        wait_for_code(spec);
    }
    create(site, "queued", &job).await?;
    let suspended = async || {
        let job = site.play.namespace.job("queued").await?;
        let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
        let is = |condition: &Value| {
            condition.get("type") == Some(&json!("Suspended"))
                && condition.get("status") == Some(&json!("True"))
        };
        Ok(conditions.is_some_and(|all| all.iter().any(is)))
    };
    site.until("a suspended Job", suspended, |is| *is).await?;
    let of_job = |seen: &Seen| {
        seen.pod()
            .pointer("/metadata/labels/batch.kubernetes.io~1job-name")
            == Some(&json!("queued"))
    };
    expect(!site.play.recording.seen().iter().any(of_job), || {
        "a suspended Job has a pod".to_owned()
    })?;
    site.play.namespace.suspend_job("queued", false).await?;
    let first = nth_of_job(site, "queued", 0).await?;
    site.play.until_told(&first, "main", "running").await?;
    site.play.namespace.suspend_job("queued", true).await?;
    let last = site.play.until_final(&first).await?;
    site.play.until_gone(&first).await?;
    attempt(&last, "trn.queued", Some(0))?;
    run_is(site, "trn.queued", "FailedRestartable").await?;
    site.play.namespace.suspend_job("queued", false).await?;
    let second = nth_of_job(site, "queued", 1).await?;
    end_with(site, &second, 0).await?;
    let last = to_the_end(site, &second, 0).await?;
    // The first pod is gone, so it does not count.
    attempt(&last, "trn.queued", Some(0))?;
    site.play.until_job_is("queued", "Complete").await?;
    run_is(site, "trn.queued", "Completed").await
}

/// Argo creates a pod for each try, with the containers `init`, `wait` and `main`
/// (workflow/controller/workflowpod.go, createWorkflowPod and addMetadata).
pub(super) async fn argo(site: &Site) -> Result<(), Error> {
    let objects = example(site, "argo-workflow.yaml", &[])?;
    let name = "argo-workflow.yaml";
    let member = "/spec/templates/0/container";
    accepts(site, "argoproj.io", name, &objects, member).await?;
    for (nth, object) in objects.iter().enumerate() {
        if object.get("kind") != Some(&json!("Workflow")) {
            create(site, &format!("argo-{nth}"), object).await?;
        }
    }
    let workflow = of_kind(&objects, "Workflow")?;
    for (retries, code) in [(0, 3), (1, 0)] {
        let pod = argo_pod(&workflow, retries, code);
        let uid = site.play.namespace.create_pod(&pod).await?;
        let name = pod.pointer("/metadata/name").and_then(Value::as_str);
        let pod = Pod {
            name: name.unwrap_or_default().to_owned(),
            uid,
        };
        let last = to_the_end(site, &pod, code).await?;
        attempt(&last, "trn.argo", u64::try_from(retries).ok())?;
        only_reports(&last, &["main"])?;
        has_podbeat_first(site, &pod, &["podbeat", "init"])?;
        let ended = ended(site, &pod, "wait")?;
        let heard = site.play.heard_at(&last).as_second();
        expect(heard < ended, || {
            format!("expected the last heartbeat before the end of wait: {heard}, {ended}")
        })?;
    }
    run_is(site, "trn.argo", "Completed").await
}

/// The pod of one try of the Workflow's only step.
fn argo_pod(workflow: &Value, retries: i64, code: i64) -> Value {
    let template = workflow.pointer("/spec/templates/0");
    let metadata = template.and_then(|template| template.get("metadata"));
    // Argo replaces the variables in the text of the whole template.
    let text = metadata.cloned().unwrap_or_default().to_string();
    let text = text
        .replace("{{inputs.parameters.run}}", "trn.argo")
        .replace("{{retries}}", &retries.to_string());
    let mut metadata: Value = serde_json::from_str(&text).unwrap_or_default();
    let labels = json!({"workflows.argoproj.io/workflow": "align", "workflows.argoproj.io/completed": "false"});
    let node = format!("align({retries})");
    let annotations = json!({"workflows.argoproj.io/node-name": node,
        "workflows.argoproj.io/node-id": format!("align-{retries}"),
        "kubectl.kubernetes.io/default-container": "main"});
    set(&mut metadata, "/name", json!(format!("align-{retries}")));
    add(&mut metadata, "/labels", labels);
    add(&mut metadata, "/annotations", annotations);
    let main = template.and_then(|template| template.get("container"));
    let mut main = main.cloned().unwrap_or_default();
    let security = main.get("securityContext").cloned();
    let mount = json!([{"name": "var-run-argo", "mountPath": "/var/run/argo"}]);
    // In place of argoexec, which tells `wait` in the same way that main has ended.
    let task = format!("sleep 3; echo {code} > /var/run/argo/exitcode; exit {code}");
    set(&mut main, "/name", json!("main"));
    set(&mut main, "/command", json!(["sh", "-c", task]));
    set(&mut main, "/volumeMounts", mount.clone());
    let executor = |name: &str, script: &str| {
        json!({"name": name, "image": TASK, "command": ["sh", "-c", script],
               "securityContext": security, "volumeMounts": mount})
    };
    let waits = "until [ -s /var/run/argo/exitcode ]; do sleep 0.1; done; sleep 4";
    json!({"metadata": metadata, "spec": {
        "restartPolicy": "Never",
        "serviceAccountName": workflow.pointer("/spec/serviceAccountName"),
        "securityContext": workflow.pointer("/spec/securityContext"),
        "initContainers": [executor("init", "true")],
        "containers": [executor("wait", waits), main],
        "volumes": [{"name": "var-run-argo", "emptyDir": {}}]}})
}

/// Tekton copies labels and annotations to the pod, runs each step as a container `step-NAME`, and
/// stops a sidecar by another image (pkg/pod/pod.go, Build; pkg/pod/entrypoint.go, StopSidecars).
pub(super) async fn tekton(site: &Site) -> Result<(), Error> {
    let runs = [("trn.1234", "trn.tekton")];
    let objects = example(site, "tekton-taskrun.yaml", &runs)?;
    // Its definition accepts any member in taskSpec.
    let member = "/spec/podTemplate";
    accepts(site, "tekton.dev", "tekton-taskrun.yaml", &objects, member).await?;
    let taskrun = of_kind(&objects, "TaskRun")?;
    let pod = tekton_pod(&taskrun);
    let uid = site.play.namespace.create_pod(&pod).await?;
    let pod = Pod {
        name: "align-pod".to_owned(),
        uid,
    };
    let seen = nth(site, "the TaskRun", 0, |other| {
        other.pointer("/metadata/uid") == Some(&json!(pod.uid))
    })
    .await?;
    expect(seen == pod, || format!("expected {pod:?}: {seen:?}"))?;
    let last = site.play.until_final(&pod).await?;
    only_reports(&last, &["step-fetch", "step-align"])?;
    attempt(&last, "trn.tekton", None)?;
    run_is(site, "trn.tekton", "Completed").await?;
    let runs = |pod: &Value| state(pod, "sidecar-proxy").is_some_and(|(name, _)| name == "running");
    let now = site.play.last_seen(&pod);
    expect(now.is_some_and(|seen| runs(seen.pod())), || {
        "expected the last heartbeat while the sidecar runs".to_owned()
    })?;
    // The nop image has no such program, so the sidecar ends.
    let nop = json!([{"op": "replace", "path": "/spec/containers/2/image", "value": PODBEAT}]);
    let patch = format!("--patch={nop}");
    let stop = ["patch", "pod", &pod.name, "--type=json", &patch];
    site.kubectl(&stop).await?.well()?;
    let code = site.play.until_podbeat_ended(&pod).await?;
    expect(code == 0, || format!("podbeat ended with {code}"))?;
    site.play.check(&pod)?;
    has_podbeat_first(site, &pod, &["podbeat", "prepare"])
}

/// The pod of a TaskRun.
fn tekton_pod(taskrun: &Value) -> Value {
    let mut metadata = json!({"name": "align-pod"});
    for member in ["labels", "annotations"] {
        let path = format!("/{member}");
        let own = taskrun.pointer(&format!("/metadata/{member}")).cloned();
        set(&mut metadata, &path, own.unwrap_or_default());
    }
    add(
        &mut metadata,
        "/labels",
        json!({"tekton.dev/taskRun": "align"}),
    );
    add(
        &mut metadata,
        "/annotations",
        json!({"tekton.dev/ready": "READY"}),
    );
    let steps = taskrun.pointer("/spec/taskSpec/steps");
    let steps = steps.and_then(Value::as_array).into_iter().flatten();
    let mount = json!([{"name": "tekton-internal-run-0", "mountPath": "/tekton/run"}]);
    let mut security = Value::Null;
    let mut containers = Vec::new();
    for (nth, step) in steps.enumerate() {
        let mut container = step.clone();
        let name = step.get("name").and_then(Value::as_str).unwrap_or_default();
        // In place of Tekton's entrypoint: each step waits for the one before.
        let script = step.pointer("/command/2").and_then(Value::as_str);
        let script = format!(
            "until [ {nth} = 0 ] || [ -e /tekton/run/{nth} ]; do sleep 0.1; done; ({}); echo > /tekton/run/{}",
            script.unwrap_or_default(),
            nth + 1
        );
        set(&mut container, "/name", json!(format!("step-{name}")));
        set(&mut container, "/command", json!(["sh", "-c", script]));
        set(&mut container, "/volumeMounts", mount.clone());
        security = step.get("securityContext").cloned().unwrap_or_default();
        containers.push(container);
    }
    let other = |name: &str, script: &str| {
        json!({"name": name, "image": TASK, "command": ["sh", "-c", script],
               "securityContext": security})
    };
    containers.push(other(
        "sidecar-proxy",
        "trap 'exit 0' TERM; while true; do sleep 0.1; done",
    ));
    json!({"metadata": metadata, "spec": {
        "restartPolicy": "Never",
        "serviceAccountName": taskrun.pointer("/spec/serviceAccountName"),
        "securityContext": taskrun.pointer("/spec/podTemplate/securityContext"),
        "activeDeadlineSeconds": 5400,
        "initContainers": [other("prepare", "true")],
        "containers": containers,
        "volumes": [{"name": "tekton-internal-run-0", "emptyDir": {}}]}})
}

/// Airflow creates the pod that its operator builds. `just examples` compares this file with the one
/// that the example's operator builds. With do_xcom_push, the pod has a sidecar that ends only after
/// Airflow read the result (airflow/providers/cncf/kubernetes/utils/xcom_sidecar.py).
pub(super) async fn airflow(site: &Site) -> Result<(), Error> {
    let built = read(&repository().join("e2e/fixtures/airflow-pod.json"))?;
    let built = built.replace("busybox:1.37", TASK);
    let mut pod: Value = serde_json::from_str(&built).map_err(ours("reading airflow-pod.json"))?;
    set(&mut pod, "/metadata/namespace", json!(site.namespace()));
    let security = pod.pointer("/spec/containers/0/securityContext").cloned();
    let script = "trap 'exit 0' INT; while true; do sleep 1; done;";
    let sidecar = json!({"name": "airflow-xcom-sidecar", "image": TASK, "command": ["sh", "-c", script],
                         "securityContext": security});
    if let Some(Value::Array(containers)) = pod.pointer_mut("/spec/containers") {
        containers.push(sidecar);
    }
    create(site, "airflow-pod", &pod).await?;
    let pod = site.pod_of("align").await?;
    let last = site.play.until_final(&pod).await?;
    only_reports(&last, &["base"])?;
    attempt(&last, "trn.airflow", Some(1))?;
    run_is(site, "trn.airflow", "Completed").await?;
    // As Airflow does after it read the result: on_finish_action is delete_pod.
    let delete = ["delete", "pod", "align", "--grace-period=2"];
    site.kubectl(&delete).await?.well()?;
    site.play.check(&pod)?;
    has_podbeat_first(site, &pod, &["podbeat"])
}

/// The last heartbeat reports these containers, and no others.
fn only_reports(last: &Heartbeat, expected: &[&str]) -> Result<(), Error> {
    expect(names(&last.body, "containerStatus") == expected, || {
        format!("expected the states of {expected:?}: {last:?}")
    })
}

/// The API server put podbeat before the pod's own init containers.
fn has_podbeat_first(site: &Site, pod: &Pod, expected: &[&str]) -> Result<(), Error> {
    let seen = site.play.last_seen(pod);
    let spec = seen.as_ref().and_then(|seen| seen.pod().get("spec"));
    let init = spec.map_or_else(Vec::new, |spec| names(spec, "initContainers"));
    expect(init == expected, || {
        format!("expected the init containers {expected:?}: {init:?}")
    })
}

/// When a container ended, in seconds.
fn ended(site: &Site, pod: &Pod, container: &str) -> Result<i64, Error> {
    let seen = site.play.last_seen(pod);
    let ended = seen.as_ref().and_then(|seen| {
        let status = status(seen.pod(), container)?;
        let at = status.pointer("/state/terminated/finishedAt")?.as_str()?;
        at.parse::<jiff::Timestamp>().ok()
    });
    ended
        .map(jiff::Timestamp::as_second)
        .ok_or_else(|| Error::Unexpected(format!("{container} has not ended: {seen:?}")))
}

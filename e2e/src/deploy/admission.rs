//! Injection: the API server adds podbeat to pods that ask for it, refuses pods that ask wrongly,
//! and leaves all others unchanged.

use serde_json::{Value, json};

use super::helm::{chart, image, nothing_is_left, objects};
use super::site::Site;
use super::statics;
use crate::node::images::TASK;
use crate::runner::{chain, repository};
use crate::scenarios::markers::told_by_marker;
use crate::scenarios::play::{Pod, expect};
use crate::{Error, io};

/// The label that asks for injection.
const INJECT: &str = "podbeat.dev/inject";
/// The annotation with the run's id.
const RUN: &str = "podbeat.dev/task-run-id";

/// A pod with this metadata and spec.
fn pod(name: &str, labels: &Value, annotations: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
           "metadata": {"name": name, "labels": labels, "annotations": annotations}})
}

/// The spec that the API server would give a pod.
async fn made_of(site: &Site, pod: &Value) -> Result<Value, Error> {
    let said = create(site, pod).await?.well()?;
    let made: Value =
        serde_json::from_str(&said).map_err(crate::ours("reading kubectl's output"))?;
    Ok(made.get("spec").cloned().unwrap_or_default())
}

async fn create(site: &Site, pod: &Value) -> Result<super::tools::Said, Error> {
    let file = site.file("pod.json", &pod.to_string())?;
    let arguments = [
        "--namespace",
        site.namespace(),
        "create",
        "--dry-run=server",
        "--output=json",
    ];
    let arguments: Vec<&str> = arguments.into_iter().chain(["--filename", &file]).collect();
    site.ground.tools.kubectl(&arguments).await
}

/// The names of the items in a list, such as a pod's containers.
pub(super) fn names<'a>(object: &'a Value, member: &str) -> Vec<&'a str> {
    let all = object
        .get(member)
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    all.filter_map(|one| one.get("name")?.as_str()).collect()
}

/// The pod spec of a manifest's Job, with the site's own values; and the same spec without podbeat.
fn of_manifest(site: &Site, name: &str, job: &str) -> Result<(Value, Value), Error> {
    let path = site.manifest(&format!("manifests/{name}"), &[])?;
    let text = std::fs::read_to_string(&path).map_err(io(format!("reading {path}")))?;
    let template = statics::template(&statics::objects(&text)?, job)?;
    let spec = template.get("spec").cloned().unwrap_or_default();
    let mut bare = spec.clone();
    if let Some(members) = bare.as_object_mut() {
        members.remove("initContainers");
        members.remove("volumes");
    }
    Ok((spec, bare))
}

/// The whole scenario.
pub(super) async fn injection(site: &Site) -> Result<(), Error> {
    // Another site must not see these policies, nor this one those of others.
    let _alone = site.ground.policies.lock().await;
    super::manifests::namespace_objects(site).await?;
    let (native, bare) = of_manifest(site, "job-native-sidecar.yaml", "my-task")?;
    let (plain, _) = of_manifest(site, "job-plain-sidecar.yaml", "my-task-plain")?;
    let (asks, names_run) = (json!({INJECT: "true"}), json!({RUN: "trn.1"}));
    let left_alone = [
        (
            "has podbeat as a native sidecar",
            pod("a", &asks, &names_run, &native),
        ),
        (
            "has podbeat as a plain sidecar",
            pod("a", &asks, &names_run, &plain),
        ),
        ("has no label", pod("a", &json!({}), &names_run, &bare)),
        (
            "has the label false",
            pod("a", &json!({INJECT: "false"}), &names_run, &bare),
        ),
    ];
    let mut before = Vec::new();
    for (_, pod) in &left_alone {
        before.push(made_of(site, pod).await?);
    }
    let there_before = objects(site, &[]).await?;

    let values = repository()
        .join("deploy/helm/podbeat/ci/admission-values.yaml")
        .display()
        .to_string();
    let (chart, image) = (chart(), image());
    let policies = [
        "podbeat-policies",
        &chart,
        "--values",
        &values,
        "--set",
        &image,
        "--wait",
    ];
    site.helm(&[&["install"], &policies[..]].concat())
        .await?
        .well()?;
    let asking = pod("a", &asks, &names_run, &bare);
    let injected = site
        .until(
            "podbeat in a pod that asks for it",
            // The policy that refuses pods may take effect before the one that injects podbeat.
            async || {
                Ok(made_of(site, &asking)
                    .await
                    .unwrap_or_else(|error| json!(chain(&error))))
            },
            |spec| names(spec, "initContainers") == ["podbeat"],
        )
        .await?;
    expect(Some(&injected) == before.first(), || {
        format!(
            "the injected container differs from the manifest: {injected:#} instead of {:#?}",
            before.first()
        )
    })?;
    site.say("a pod with the label gets exactly the container of the manifest (and of the chart and kustomize)");
    for ((what, pod), before) in left_alone.iter().zip(&before) {
        let after = made_of(site, pod).await?;
        expect(after == *before, || {
            format!("a pod that {what} was changed: {after:#} instead of {before:#}")
        })?;
        site.say(&format!("a pod that {what} is not changed"));
    }
    typed(site).await?;
    settings(site, &bare).await?;
    refusals(site, &bare).await?;
    shapes(site, &bare).await?;
    markers(site).await?;
    volumes(site, &bare, &native).await?;
    service_urls(site, &bare, &policies).await?;

    let (job, lone, (), ()) = tokio::try_join!(
        job(site, &bare),
        lone(site, &bare),
        indexed(site, &bare),
        marked(site, &bare)
    )?;
    let count = job.body.get("jobRetryCount");
    expect(count == Some(&json!(2)), || {
        format!("expected jobRetryCount 2: {job:?}")
    })?;
    expect(lone.run_id == "trn.lone", || {
        format!("expected the run trn.lone: {lone:?}")
    })?;

    site.kubectl(&["delete", "job", "--all", "--wait"])
        .await?
        .well()?;
    site.kubectl(&["delete", "pod", "--all", "--wait"])
        .await?
        .well()?;
    site.helm(&[
        "uninstall",
        "podbeat-policies",
        "--wait",
        "--timeout",
        "60s",
    ])
    .await?
    .well()?;
    nothing_is_left(site, &[], &there_before).await?;
    site.until(
        "an end of the injection",
        async || made_of(site, &asking).await,
        |spec| names(spec, "initContainers").is_empty(),
    )
    .await?;
    Ok(())
}

/// The API server finds no type errors in the expressions of the validating policies.
async fn typed(site: &Site) -> Result<(), Error> {
    for name in ["inject.podbeat.dev", "volumes.podbeat.dev"] {
        typed_policy(site, &format!("validatingadmissionpolicies/{name}")).await?;
    }
    Ok(())
}

async fn typed_policy(site: &Site, policy: &str) -> Result<(), Error> {
    let checked = site
        .until(
            "the check of the policy's types",
            async || {
                let text = site.quietly(&["get", policy, "--output=json"]).await?;
                serde_json::from_str::<Value>(&text)
                    .map_err(crate::ours("reading kubectl's output"))
            },
            |policy| policy.pointer("/status/observedGeneration").is_some(),
        )
        .await?;
    let warnings = checked.pointer("/status/typeChecking/expressionWarnings");
    expect(warnings.is_none(), || {
        format!("the policy's types: {warnings:#?}")
    })?;
    site.say(&format!("the expressions of {policy} have valid types"));
    Ok(())
}

/// Annotations become settings.
async fn settings(site: &Site, bare: &Value) -> Result<(), Error> {
    let annotations = json!({RUN: "trn.1", "podbeat.dev/interval": "3s", "podbeat.dev/max-status-age": "1m",
        "podbeat.dev/log": "debug", "podbeat.dev/token-secret": "of-this-run", "podbeat.dev/nonce-secret": "nonces",
        "podbeat.dev/job-retry-count": "4", "other.example.com/interval": "9s"});
    let spec = made_of(
        site,
        &pod("a", &json!({INJECT: "true"}), &annotations, bare),
    )
    .await?;
    let env = spec
        .pointer("/initContainers/0/env")
        .and_then(Value::as_array);
    let value = |name: &str| {
        let variable = env?
            .iter()
            .find(|variable| variable.get("name") == Some(&json!(name)))?;
        variable.get("value").and_then(Value::as_str)
    };
    for (name, expected) in [
        ("PODBEAT_INTERVAL", "3s"),
        ("PODBEAT_MAX_STATUS_AGE", "1m"),
        ("PODBEAT_LOG", "debug"),
        ("JOB_RETRY_COUNT", "4"),
        ("PODBEAT_NONCE_FILE", "/var/run/podbeat/nonce"),
    ] {
        expect(value(name) == Some(expected), || {
            format!("expected {name} to be {expected}: {env:?}")
        })?;
        site.say(&format!("by annotation: {name}={expected}"));
    }
    let sources = spec
        .pointer("/volumes/0/projected/sources")
        .cloned()
        .unwrap_or_default();
    let secrets: Vec<&str> = sources
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|source| source.pointer("/secret/name")?.as_str())
        .collect();
    expect(secrets == ["of-this-run", "nonces"], || {
        format!("the Secrets by annotation: {secrets:?}")
    })?;
    site.say(&format!("by annotation: the Secrets {secrets:?}"));
    Ok(())
}

/// A pod that asks wrongly is refused, with a message that says what is wrong.
async fn refusals(site: &Site, bare: &Value) -> Result<(), Error> {
    let asks = json!({INJECT: "true"});
    let unknown = json!({RUN: "trn.1", "podbeat.dev/intervall": "3s"});
    let elsewhere =
        json!({RUN: "trn.1", "podbeat.dev/service-url": "https://elsewhere.example.com"});
    let unmarked = json!({RUN: "trn.1", "podbeat.dev/exit-markers": "main, helper"});
    for (annotations, told) in [
        (json!({}), "set the annotation podbeat.dev/task-run-id"),
        (
            json!({RUN: ""}),
            "set the annotation podbeat.dev/task-run-id",
        ),
        (
            json!({RUN: "trn.1-{index}"}),
            "podbeat.dev/task-run-id has {index}, but this pod has no index",
        ),
        (unknown, "unknown setting of podbeat: podbeat.dev/intervall"),
        (
            elsewhere,
            "https://elsewhere.example.com, but podbeat must not send its token to this URL; allowed URLs: none",
        ),
        (
            unmarked,
            "podbeat.dev/exit-markers names helper: the pod has no container",
        ),
    ] {
        let refusal = create(site, &pod("a", &asks, &annotations, bare))
            .await?
            .refused()?;
        expect(refusal.contains(told), || {
            format!("expected {told:?}: {refusal}")
        })?;
        site.say(&format!("refused: {}", refusal.trim_end()));
    }
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "nameless"},
        "spec": {"template": {"metadata": {"labels": asks}, "spec": bare}}});
    let file = site.file("nameless.json", &job.to_string())?;
    site.kubectl(&["create", "--filename", &file])
        .await?
        .well()?;
    let of_job = "--field-selector=reason=FailedCreate,involvedObject.name=nameless";
    let events = site
        .until(
            "an event of the Job whose pods are refused",
            async || {
                site.quietly(&[
                    "get",
                    "events",
                    of_job,
                    "--output=jsonpath={.items[*].message}",
                ])
                .await
            },
            |messages| messages.contains("set the annotation podbeat.dev/task-run-id"),
        )
        .await?;
    site.say(&format!("event of the Job: {events}"));
    site.kubectl(&["delete", "job", "nameless"]).await?.well()?;
    Ok(())
}

/// Pods of other shapes also get podbeat, and keep their own containers and volumes.
async fn shapes(site: &Site, bare: &Value) -> Result<(), Error> {
    let mut furnished = bare.clone();
    let init = bare.pointer("/containers/0").cloned().unwrap_or_default();
    if let (Some(members), Value::Object(mut init)) = (furnished.as_object_mut(), init) {
        init.insert("name".to_owned(), json!("prepare"));
        members.insert("initContainers".to_owned(), json!([init]));
        members.insert(
            "volumes".to_owned(),
            json!([{"name": "data", "emptyDir": {}}]),
        );
        members.insert("serviceAccountName".to_owned(), json!("default"));
    }
    let mut tokenless = bare.clone();
    if let Some(members) = tokenless.as_object_mut() {
        members.insert("automountServiceAccountToken".to_owned(), json!(false));
        members.insert("serviceAccountName".to_owned(), json!("default"));
    }
    for (what, spec, init, volumes) in [
        (
            "init containers and volumes",
            &furnished,
            vec!["podbeat", "prepare"],
            vec!["podbeat", "podbeat-state", "data"],
        ),
        (
            "no token of its own",
            &tokenless,
            vec!["podbeat"],
            vec!["podbeat", "podbeat-state"],
        ),
    ] {
        let made = made_of(
            site,
            &pod("a", &json!({INJECT: "true"}), &json!({RUN: "trn.1"}), spec),
        )
        .await?;
        let mut now = names(&made, "volumes");
        // The service account's own volume, if there is one.
        now.retain(|name| !name.starts_with("kube-api-access-"));
        let all = (names(&made, "initContainers"), now);
        expect(all == (init.clone(), volumes.clone()), || {
            format!("a pod with {what}: {all:?}")
        })?;
        site.say(&format!(
            "a pod with {what} has init containers {init:?} and volumes {volumes:?}"
        ));
    }
    Ok(())
}

/// With the annotation, a pod gets the same as the manifest with exit markers.
async fn markers(site: &Site) -> Result<(), Error> {
    let (manifest, mut bare) =
        of_manifest(site, "job-with-exit-markers.yaml", "my-task-with-markers")?;
    let main = |spec: &Value| spec.pointer("/containers/0").cloned().unwrap_or_default();
    let command = main(&bare).get("args").cloned();
    let wrapped = main(&manifest);
    set(
        &mut bare,
        "/containers/0/command",
        command.unwrap_or_default(),
    );
    for member in ["args", "volumeMounts"] {
        if let Some(main) = bare
            .pointer_mut("/containers/0")
            .and_then(Value::as_object_mut)
        {
            main.remove(member);
        }
    }
    let asks = json!({INJECT: "true"});
    let annotations = json!({RUN: "trn.1", "podbeat.dev/exit-markers": " main"});
    let made = made_of(site, &pod("a", &asks, &annotations, &bare)).await?;
    let expected = made_of(
        site,
        &pod("a", &json!({}), &json!({RUN: "trn.1"}), &manifest),
    )
    .await?;
    let line = |container: &Value| {
        let words = ["command", "args"].map(|member| container.get(member)?.as_array().cloned());
        words
            .into_iter()
            .flatten()
            .flatten()
            .collect::<Vec<Value>>()
    };
    expect(line(&main(&made)) == line(&wrapped), || {
        format!(
            "expected main to run {:?}: {:#}",
            line(&wrapped),
            main(&made)
        )
    })?;
    // The rest is the same, except for the order of variables and mounts.
    let sorted = |spec: &Value| {
        let mut spec = spec.clone();
        set(&mut spec, "/containers/0/command", json!(null));
        set(&mut spec, "/containers/0/args", json!(null));
        for list in [
            "/initContainers/0/env",
            "/initContainers/0/volumeMounts",
            "/containers/0/volumeMounts",
        ] {
            if let Some(items) = spec.pointer_mut(list).and_then(Value::as_array_mut) {
                items.sort_by_key(Value::to_string);
            }
        }
        spec
    };
    expect(sorted(&made) == sorted(&expected), || {
        format!("by annotation: {made:#} instead of {expected:#}")
    })?;
    site.say("a pod whose annotation names main equals the manifest with exit markers");
    // Without a command, the policy can't see what the image runs.
    if let Some(main) = bare
        .pointer_mut("/containers/0")
        .and_then(Value::as_object_mut)
    {
        main.remove("command");
    }
    let refusal = create(site, &pod("a", &asks, &annotations, &bare))
        .await?
        .refused()?;
    expect(
        refusal.contains("podbeat.dev/exit-markers names main"),
        || format!("expected the refusal of a container without a command: {refusal}"),
    )?;
    site.say(&format!("refused: {}", refusal.trim_end()));
    Ok(())
}

/// Only podbeat can mount its volumes: neither the pod's other containers can, however podbeat was
/// added, nor ephemeral containers.
async fn volumes(site: &Site, bare: &Value, native: &Value) -> Result<(), Error> {
    let mount = |spec: &Value, volume: &str, list: &str| {
        let mut spec = spec.clone();
        let mounts = json!([{"name": volume, "mountPath": "/stolen"}]);
        set(&mut spec, &format!("{list}/volumeMounts"), mounts);
        spec
    };
    let (asks, run) = (json!({INJECT: "true"}), json!({RUN: "trn.1"}));
    let mut with_init = bare.clone();
    let mut init = bare.pointer("/containers/0").cloned().unwrap_or_default();
    set(&mut init, "/name", json!("prepare"));
    set(&mut with_init, "/initContainers", json!([init]));
    let marked = json!({RUN: "trn.1", "podbeat.dev/exit-markers": "main"});
    let intruders = |name: &str| format!("volumes of podbeat are mounted by {name}");
    for (what, pod, told) in [
        (
            "whose task mounts the token",
            pod("a", &asks, &run, &mount(bare, "podbeat", "/containers/0")),
            intruders("main"),
        ),
        (
            "that brings its own podbeat, and whose task mounts the journal",
            pod(
                "a",
                &json!({}),
                &run,
                &mount(native, "podbeat-state", "/containers/0"),
            ),
            intruders("main"),
        ),
        (
            "whose init container mounts the token",
            pod(
                "a",
                &asks,
                &run,
                &mount(&with_init, "podbeat", "/initContainers/0"),
            ),
            intruders("prepare"),
        ),
        (
            "whose init container can write to the directory of podbeat exec",
            pod(
                "a",
                &asks,
                &marked,
                &mount(&with_init, "podbeat-bin", "/initContainers/0"),
            ),
            "podbeat-bin is mounted by prepare without readOnly".to_owned(),
        ),
    ] {
        let refusal = create(site, &pod).await?.refused()?;
        expect(refusal.contains(&told), || {
            format!("expected the refusal of a pod {what}: {refusal}")
        })?;
        site.say(&format!("a pod {what} is refused"));
    }

    let mut spec = bare.clone();
    set(&mut spec, "/containers/0/command", json!(["sleep", "600"]));
    let debugged = pod("debugged", &asks, &json!({RUN: "trn.debugged"}), &spec);
    let file = site.file("debugged.json", &debugged.to_string())?;
    site.kubectl(&["create", "--filename", &file])
        .await?
        .well()?;
    let debugged = site.pod_of("debugged").await?;
    site.play.until_told(&debugged, "main", "running").await?;
    let security = bare.pointer("/containers/0/securityContext").cloned();
    let debug = async |name: &str, target: &str, mounts: Value| {
        let container = json!({"securityContext": security, "volumeMounts": mounts});
        let custom = site.file(&format!("{name}.json"), &container.to_string())?;
        let (custom, target, name) = (
            format!("--custom={custom}"),
            format!("--target={target}"),
            format!("--container={name}"),
        );
        let image = format!("--image={TASK}");
        let restricted = "--profile=restricted";
        let flags = [
            "debug", "debugged", restricted, &image, &name, &target, &custom, "--", "sleep", "1",
        ];
        site.kubectl(&flags).await
    };
    for (name, target, volume, told) in [
        ("token", "main", Some("podbeat"), intruders("token")),
        (
            "journal",
            "main",
            Some("podbeat-state"),
            intruders("journal"),
        ),
        (
            "processes",
            "podbeat",
            None,
            "the target of processes is podbeat".to_owned(),
        ),
    ] {
        let mounts = volume.map_or(
            json!([]),
            |volume| json!([{"name": volume, "mountPath": "/stolen"}]),
        );
        let refusal = debug(name, target, mounts).await?.refused()?;
        expect(refusal.contains(&told), || {
            format!("expected {told:?}: {refusal}")
        })?;
    }
    debug("shell", "main", json!([])).await?.well()?;
    site.say("kubectl debug can access the task, but nothing of podbeat");
    Ok(())
}

/// An annotation can send the token only to URLs that the chart allows.
async fn service_urls(site: &Site, bare: &Value, policies: &[&str]) -> Result<(), Error> {
    let url = site.play.service.url();
    let allowed = format!("admission.serviceUrls={{https://ica.example.com,{url}}}");
    site.helm(&[&["upgrade"], policies, &["--set", &allowed]].concat())
        .await?
        .well()?;
    let asks = |url: &str| {
        pod(
            "a",
            &json!({INJECT: "true"}),
            &json!({RUN: "trn.1", "podbeat.dev/service-url": url}),
            bare,
        )
    };
    let variable = |spec: &Value| {
        let env = spec
            .pointer("/initContainers/0/env")
            .and_then(Value::as_array)?;
        let found = env
            .iter()
            .find(|it| it.get("name") == Some(&json!("PODBEAT_SERVICE_URL")))?;
        found.get("value").cloned()
    };
    site.until(
        "an allowed URL",
        async || {
            Ok(made_of(site, &asks(&url))
                .await
                .unwrap_or_else(|error| json!(chain(&error))))
        },
        |spec| variable(spec) == Some(json!(url)),
    )
    .await?;
    for other in ["https://elsewhere.example.com", &format!("{url}/"), ""] {
        let refusal = create(site, &asks(other)).await?.refused()?;
        let told = format!("allowed URLs: https://ica.example.com, {url} ");
        expect(refusal.contains(&told), || {
            format!("expected {told:?}: {refusal}")
        })?;
        site.say(&format!("refused: {}", refusal.trim_end()));
    }
    Ok(())
}

/// Each pod of an Indexed Job reports its own run.
async fn indexed(site: &Site, bare: &Value) -> Result<(), Error> {
    let mut spec = bare.clone();
    set(
        &mut spec,
        "/containers/0/command",
        json!(["sh", "-c", "sleep 5; exit 0"]),
    );
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "indexed"}, "spec": {
        "backoffLimit": 0, "completionMode": "Indexed", "completions": 2, "parallelism": 2,
        "template": {"metadata": {"labels": {INJECT: "true"}, "annotations": {RUN: "trn.indexed-{index}"}}, "spec": spec}}});
    let file = site.file("indexed.json", &job.to_string())?;
    site.kubectl(&["create", "--filename", &file])
        .await?
        .well()?;
    site.each_index_has_its_run("indexed", "trn.indexed").await
}

/// A pod with exit markers is deleted.
async fn marked(site: &Site, bare: &Value) -> Result<(), Error> {
    let mut spec = bare.clone();
    let task = "trap 'exit 9' TERM; echo working; sleep 300 & wait";
    set(
        &mut spec,
        "/containers/0/command",
        json!(["sh", "-c", task]),
    );
    let annotations = json!({RUN: "trn.marked", "podbeat.dev/exit-markers": "main"});
    let marked = pod("marked", &json!({INJECT: "true"}), &annotations, &spec);
    let file = site.file("marked.json", &marked.to_string())?;
    site.kubectl(&["create", "--filename", &file])
        .await?
        .well()?;
    let marked = site.pod_of("marked").await?;
    site.play.until_told(&marked, "main", "running").await?;
    site.kubectl(&["delete", "pod", "marked", "--wait=false"])
        .await?
        .well()?;
    site.play.until_final(&marked).await?;
    site.play.until_gone(&marked).await?;
    told_by_marker(&site.play, &marked, 9).await
}

/// A Job that asks for injection runs to its end.
async fn job(site: &Site, bare: &Value) -> Result<podbeat_lab::service::Heartbeat, Error> {
    let mut spec = bare.clone();
    set(
        &mut spec,
        "/containers/0/command",
        json!(["sh", "-c", "echo working; sleep 5; exit 4"]),
    );
    let annotations = json!({RUN: "trn.injected", "podbeat.dev/interval": "2s", "podbeat.dev/job-retry-count": "2"});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "injected"}, "spec": {
        "backoffLimit": 0,
        "template": {"metadata": {"labels": {INJECT: "true"}, "annotations": annotations}, "spec": spec}}});
    let file = site.file("injected.json", &job.to_string())?;
    site.kubectl(&["create", "--filename", &file])
        .await?
        .well()?;
    let pod = site.pod_of("injected").await?;
    let last = site.to_the_end(&pod, 4).await?;
    site.play.until_job_is("injected", "Failed").await?;
    Ok(last)
}

/// A bare pod with an init container, without volumes and without its own token, also runs to its
/// end.
async fn lone(site: &Site, bare: &Value) -> Result<podbeat_lab::service::Heartbeat, Error> {
    let mut spec = bare.clone();
    set(
        &mut spec,
        "/containers/0/command",
        json!(["sh", "-c", "sleep 4; exit 0"]),
    );
    let security = spec.pointer("/containers/0/securityContext").cloned();
    let init = json!([{"name": "prepare", "image": TASK, "command": ["true"], "securityContext": security}]);
    set(&mut spec, "/initContainers", init);
    set(&mut spec, "/automountServiceAccountToken", json!(false));
    let lone = pod(
        "lone",
        &json!({INJECT: "true"}),
        &json!({RUN: "trn.lone"}),
        &spec,
    );
    let file = site.file("lone.json", &lone.to_string())?;
    site.kubectl(&["create", "--filename", &file])
        .await?
        .well()?;
    let lone: Pod = site.pod_of("lone").await?;
    site.to_the_end(&lone, 0).await
}

/// Sets a member of an existing object.
pub(super) fn set(object: &mut Value, path: &str, value: Value) {
    let (parent, member) = path.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        parent.insert(member.to_owned(), value);
    }
}

//! One fault each, of the Kubernetes API and of the deployed pod.

use podbeat_lab::pod::Sidecar;
use podbeat_lab::world::KUBE_TOKEN;
use serde_json::{Value, json};

use super::{POD, Settings, UID, check, pod, set, set_path, settings, world};
use crate::harness::unused_port;

const OF_THE_POD: [(&str, &str); 8] = [
    ("kubernetes.pod", "skipped"),
    ("kubernetes.uid", "skipped"),
    ("pod.container", "skipped"),
    ("pod.sidecar", "skipped"),
    ("pod.grace", "skipped"),
    ("pod.restart", "skipped"),
    ("pod.tasks", "skipped"),
    ("pod.retries", "skipped"),
];

const RIGHTS: [(&str, &str); 3] = [
    ("kubernetes.get", "skipped"),
    ("kubernetes.list", "skipped"),
    ("kubernetes.watch", "skipped"),
];

fn but<'id>(
    all: &[(&'id str, &'id str)],
    more: &[(&'id str, &'id str)],
) -> Vec<(&'id str, &'id str)> {
    let rest = all
        .iter()
        .filter(|(id, _)| !more.iter().any(|(other, _)| other == id));
    rest.chain(more).copied().collect()
}

/// The documents of the YAML after the first line of a remedy.
fn applied(remedy: &str) -> Vec<Value> {
    let (_, yaml) = remedy.split_once('\n').expect("a line, then YAML");
    yaml.split("---\n")
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"))
        })
        .collect()
}

#[tokio::test]
async fn a_verb_that_no_role_allows() {
    let world = world().await;
    let settings = settings(&world);
    for verb in ["watch", "list"] {
        world.kube.deny_verbs(&[verb]);
        let checked = check(&settings).await;
        let id = format!("kubernetes.{verb}");
        checked.differs_by(&[(&id, "failed")]);
        let seen = format!("service account lab/podbeat may not {verb} pod lab/my-task");
        assert_eq!(checked.seen(&id), seen);
        let documents = applied(&checked.remedy(&id));
        assert_eq!(documents[0]["kind"], "Role");
        assert_eq!(documents[0]["metadata"]["namespace"], "lab");
        assert_eq!(
            documents[0]["rules"][0]["verbs"],
            json!(["get", "list", "watch"])
        );
        assert_eq!(
            documents[1]["subjects"],
            json!([{"kind": "ServiceAccount", "name": "podbeat", "namespace": "lab"}])
        );
    }
    // Without get, check cannot look at the pod.
    world.kube.deny_verbs(&["get"]);
    let checked = check(&settings).await;
    checked.differs_by(&but(&OF_THE_POD, &[("kubernetes.get", "failed")]));
    assert_eq!(checked.seen("kubernetes.pod"), "because of kubernetes.get");
}

#[tokio::test]
async fn rights_are_checked_only_for_this_pod() {
    let world = world().await;
    let settings = settings(&world);
    check(&settings).await.differs_by(&[]);
    let seen = world.kube.seen();
    let count = |verb: &str| seen.iter().filter(|seen| seen.verb == verb).count();
    let counts = ["version", "who-am-i", "may-i", "get", "list", "watch"].map(count);
    assert_eq!(counts, [1, 1, 3, 1, 0, 0], "{seen:?}");
}

#[tokio::test]
async fn another_uid() {
    let world = world().await;
    let mut settings = settings(&world);
    settings.insert("POD_UID".to_owned(), "uid-of-another".to_owned());
    let checked = check(&settings).await;
    checked.differs_by(&[("kubernetes.uid", "failed")]);
    assert!(
        checked
            .seen("kubernetes.uid")
            .contains("POD_UID is uid-of-another")
    );
    assert!(
        checked
            .remedy("kubernetes.uid")
            .contains("fieldPath: metadata.uid")
    );
}

#[tokio::test]
async fn a_pod_that_is_not_there_from_a_laptop() {
    let world = world().await;
    let mut settings = settings(&world);
    for of_a_pod in [
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "PODBEAT_SERVICE_ACCOUNT_DIR",
        "POD_NAMESPACE",
        "POD_UID",
    ] {
        settings.remove(of_a_pod);
    }
    set_path(&mut settings, "KUBECONFIG", &world.path("kubeconfig"));
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    assert!(
        checked
            .seen("kubernetes.access")
            .starts_with("kubeconfig: https://")
    );
    assert!(checked.seen("kubernetes.uid").contains(UID));
    world.kube.delete("lab", POD);
    let checked = check(&settings).await;
    checked.differs_by(&but(&OF_THE_POD, &[("kubernetes.pod", "failed")]));
    assert_eq!(checked.seen("kubernetes.pod"), "pod lab/my-task not found");
    let remedy = checked.remedy("kubernetes.pod");
    assert!(
        remedy.contains("--pod-namespace") && remedy.contains("(--context)"),
        "{remedy}"
    );
}

async fn with_pod(change: impl FnOnce(&mut Value, &mut Settings)) -> super::Checked {
    let world = world().await;
    let mut settings = settings(&world);
    let mut pod = pod();
    change(&mut pod, &mut settings);
    world.kube.apply(pod);
    check(&settings).await
}

#[tokio::test]
async fn no_container_of_that_name() {
    let checked = with_pod(|_, settings| {
        settings.insert("PODBEAT_CONTAINER_NAME".to_owned(), "hb".to_owned());
    })
    .await;
    checked.differs_by(&[
        ("pod.container", "failed"),
        ("pod.sidecar", "skipped"),
        ("pod.restart", "skipped"),
        ("pod.tasks", "skipped"),
    ]);
    assert!(
        checked
            .seen("pod.container")
            .ends_with("no container hb; it has podbeat, main")
    );
    assert!(
        checked
            .remedy("pod.container")
            .contains("PODBEAT_CONTAINER_NAME")
    );
}

#[tokio::test]
async fn too_short_a_grace() {
    let checked = with_pod(|pod, _| pod["spec"]["terminationGracePeriodSeconds"] = json!(5)).await;
    checked.differs_by(&[("pod.grace", "failed")]);
    let remedy = checked.remedy("pod.grace");
    assert!(
        remedy.contains("terminationGracePeriodSeconds to at least 22")
            && remedy.contains("PODBEAT_TIMEOUT to 1s 600ms"),
        "{remedy}"
    );
    let checked = with_pod(|pod, _| pod["spec"]["terminationGracePeriodSeconds"] = json!(15)).await;
    checked.differs_by(&[("pod.grace", "warning")]);
}

#[tokio::test]
async fn sidecars_that_are_declared_differently() {
    let behind = with_pod(|pod, _| {
        let podbeat = pod["spec"]["initContainers"][0].clone();
        pod["spec"]["initContainers"] = json!([{"name": "fetch", "image": "x"}, podbeat]);
    })
    .await;
    behind.differs_by(&[("pod.sidecar", "warning")]);
    assert_eq!(
        behind.seen("pod.sidecar"),
        "native sidecar, but after fetch"
    );
    let ordinary =
        with_pod(|pod, _| pod["spec"]["initContainers"] = json!([{"name": "podbeat"}])).await;
    ordinary.differs_by(&[("pod.sidecar", "failed")]);
    assert!(
        ordinary
            .remedy("pod.sidecar")
            .contains("restartPolicy: Always")
    );
    let plain = with_pod(|pod, _| {
        *pod = podbeat_lab::pod::Pod::new(POD, UID)
            .sidecar(Sidecar::Plain)
            .policy("Always")
            .showing(&Value::Null);
    })
    .await;
    plain.differs_by(&[("pod.sidecar", "warning"), ("pod.restart", "warning")]);
}

#[tokio::test]
async fn a_pod_that_has_ended_is_a_warning() {
    let checked = with_pod(|pod, _| pod["status"]["phase"] = json!("Failed")).await;
    checked.differs_by(&[("kubernetes.pod", "warning")]);
    assert!(checked.remedy("kubernetes.pod").contains("podbeat reap"));
}

#[tokio::test]
async fn a_token_that_the_api_server_does_not_accept() {
    let world = world().await;
    let settings = settings(&world);
    world.kube.set_token("another");
    let checked = check(&settings).await;
    let expected = but(
        &[&OF_THE_POD[..], &RIGHTS[..]].concat(),
        &[
            ("kubernetes.api", "failed"),
            ("clock.kubernetes", "skipped"),
        ],
    );
    checked.differs_by(&expected);
    assert!(checked.seen("kubernetes.api").contains("answered 401"));
    assert!(
        checked
            .remedy("kubernetes.api")
            .contains("does not accept the token")
    );
    world.kube.set_token(KUBE_TOKEN);
    check(&settings).await.differs_by(&[]);
}

#[tokio::test]
async fn an_api_server_that_can_not_be_reached_or_trusted() {
    let world = world().await;
    let mut settings = settings(&world);
    let expected = but(
        &[&OF_THE_POD[..], &RIGHTS[..]].concat(),
        &[
            ("kubernetes.api", "failed"),
            ("clock.kubernetes", "skipped"),
        ],
    );
    let other = podbeat_lab::pki::Authority::new().expect("made");
    let dir = world.path("other-account");
    podbeat_lab::kube_api::KubeApi::write_service_account(&other, KUBE_TOKEN, &dir)
        .expect("written");
    set_path(&mut settings, "PODBEAT_SERVICE_ACCOUNT_DIR", &dir);
    let checked = check(&settings).await;
    checked.differs_by(&expected);
    assert!(
        checked
            .seen("kubernetes.api")
            .contains("not signed with the key of the CA of that name"),
        "{}",
        checked.seen("kubernetes.api")
    );
    assert!(
        checked
            .remedy("kubernetes.api")
            .contains("kube-root-ca.crt")
    );
    let (port, _socket) = unused_port();
    set(&mut settings, "KUBERNETES_SERVICE_PORT", port.to_string());
    let checked = check(&settings).await;
    checked.differs_by(&expected);
    assert!(checked.remedy("kubernetes.api").contains("NetworkPolicy"));
}

#[tokio::test]
async fn no_service_account_and_no_kubeconfig() {
    let world = world().await;
    let mut settings = settings(&world);
    let expected = but(
        &[&OF_THE_POD[..], &RIGHTS[..]].concat(),
        &[
            ("kubernetes.access", "failed"),
            ("kubernetes.api", "skipped"),
            ("clock.kubernetes", "skipped"),
        ],
    );
    set_path(
        &mut settings,
        "PODBEAT_SERVICE_ACCOUNT_DIR",
        &world.path("nowhere"),
    );
    let checked = check(&settings).await;
    checked.differs_by(&expected);
    assert!(
        checked
            .seen("kubernetes.access")
            .contains("nowhere/token: ")
    );
    assert!(
        checked
            .remedy("kubernetes.access")
            .contains("PODBEAT_SERVICE_ACCOUNT_DIR")
    );
    set_path(&mut settings, "KUBECONFIG", &world.path("nowhere"));
    let checked = check(&settings).await;
    checked.differs_by(&expected);
    assert!(checked.remedy("kubernetes.access").contains("--kubeconfig"));
}

#[tokio::test]
async fn errors_in_a_kubeconfig_show_none_of_its_content() {
    let world = world().await;
    let mut settings = settings(&world);
    set_path(&mut settings, "KUBECONFIG", &world.path("torn.kubeconfig"));
    for torn in [
        "users:\n- name: a\n  user: {token: hunter2, x: [\n",
        "users:\n- name: a\n  user: {token: [hunter2]}\n",
    ] {
        std::fs::write(world.path("torn.kubeconfig"), torn).expect("written");
        let checked = check(&settings).await;
        let seen = checked.seen("kubernetes.access");
        assert!(seen.contains("not valid (line 3"), "{seen}");
    }
}

#[tokio::test]
async fn a_credentials_program_blocks_nothing_and_its_output_is_not_shown() {
    let world = world().await;
    let mut settings = settings(&world);
    let kubeconfig = |script: &str| {
        let text = std::fs::read_to_string(world.path("kubeconfig")).expect("read");
        let mut kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
        kubeconfig["users"][0]["user"] = json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script],
            "interactiveMode": "Never"}});
        std::fs::write(world.path("exec.kubeconfig"), kubeconfig.to_string()).expect("written");
    };
    set_path(&mut settings, "KUBECONFIG", &world.path("exec.kubeconfig"));
    for (script, seen) in [
        (
            "echo token=hunter2; exit 1",
            "program for credentials failed",
        ),
        ("echo '{token: [hunter2'", "credentials can't be used"),
    ] {
        kubeconfig(script);
        let checked = check(&settings).await;
        let told = checked.seen("kubernetes.access");
        assert!(told.contains(seen), "{told}");
    }
    kubeconfig("exec sleep 60 > /dev/null 2>&1");
    let checked = super::run(&settings, &["-o", "json", "--timeout", "1s"]).await;
    assert!(
        checked
            .seen("kubernetes.access")
            .contains("no result within 1s"),
        "{checked:?}"
    );
    assert!(
        checked.took < std::time::Duration::from_secs(30),
        "{checked:?}"
    );
}

#[tokio::test]
async fn the_retry_count_of_a_job() {
    const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
    let world = world().await;
    let settings = settings(&world);
    assert!(
        check(&settings)
            .await
            .seen("pod.retries")
            .starts_with("none: ")
    );
    let of_job = |mut pod: Value, phase: &str| {
        pod["metadata"]["creationTimestamp"] = json!("2026-11-25T00:00:00Z");
        pod["metadata"]["labels"] = json!({CONTROLLER_UID: "j1"});
        pod["status"]["phase"] = json!(phase);
        pod
    };
    world.kube.apply(of_job(pod(), "Running"));
    let mut before = of_job(pod(), "Failed");
    before["metadata"]["name"] = json!("before");
    before["metadata"]["uid"] = json!("before");
    world.kube.apply(before.clone());
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    assert_eq!(
        checked.seen("pod.retries"),
        "1, the number of the Job's pods that failed before this one"
    );
    before["status"]["phase"] = json!("Running");
    world.kube.apply(before);
    let checked = check(&settings).await;
    checked.differs_by(&[("pod.retries", "warning")]);
    assert!(
        checked
            .remedy("pod.retries")
            .contains("completionMode: Indexed")
    );
    world
        .kube_faults
        .script("list 403 until-lifted")
        .expect("a rule");
    let checked = check(&settings).await;
    checked.differs_by(&[("pod.retries", "warning")]);
    assert!(checked.seen("pod.retries").contains("403"), "{checked:?}");
    let mut with_setting = settings.clone();
    set(&mut with_setting, "JOB_RETRY_COUNT", "3");
    let checked = check(&with_setting).await;
    assert_eq!(checked.seen("pod.retries"), "3, from JOB_RETRY_COUNT");
}

//! `podbeat check` without a fault, and its output formats.

use podbeat_lab::world::RUN;

use super::{ALL, check, run, settings, world};

#[tokio::test]
async fn all_checks_pass_and_nothing_is_changed() {
    let world = world().await;
    let mut settings = settings(&world);
    let renewed = settings.remove("PODBEAT_RENEWED_TOKEN_FILE").expect("set");
    let checked = check(&settings).await;
    checked.differs_by(&[("files.renewed-token", "skipped")]);
    let json = checked.json();
    let ids: Vec<&str> = json["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .map(|check| check["id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids, [&ALL[..], &["files.renewed-token"]].concat());
    settings.insert("PODBEAT_RENEWED_TOKEN_FILE".to_owned(), renewed);
    check(&settings).await.differs_by(&[]);

    assert!(
        world.service.heartbeats().is_empty(),
        "no heartbeat was sent"
    );
    for name in ["state", "markers", "renewed"] {
        let left = std::fs::read_dir(world.path(name)).expect("read").count();
        assert_eq!(left, 0, "files in {name}");
    }
    assert_eq!(world.kube.open_watches(), 0);
}

#[tokio::test]
async fn observations_are_reported() {
    let world = world().await;
    let checked = check(&settings(&world)).await;
    for (id, seen) in [
        ("service.dns", "localhost resolves to 127.0.0.1"),
        ("service.tcp", "127.0.0.1:"),
        (
            "service.tls",
            "TLS 1.3; certificate for 127.0.0.1, localhost, 0.0.0.0; issued by CN=podbeat lab; valid until 4096-01-01",
        ),
        ("token.expiry", "not a JWT"),
        ("kubernetes.access", "in-cluster: https://127.0.0.1:"),
        ("kubernetes.api", "Kubernetes v1.37.0"),
        (
            "kubernetes.watch",
            "service account lab/podbeat may watch pod lab/my-task",
        ),
        ("kubernetes.pod", "lab/my-task is Running on node-1"),
        ("pod.sidecar", "native sidecar, and the first"),
        ("pod.grace", "grace period 30s; timeout of one attempt 10s"),
        ("files.markers", "no exit marker yet"),
        ("clock.service", "agrees with"),
    ] {
        assert!(
            checked.seen(id).contains(seen),
            "{id}: {}",
            checked.seen(id)
        );
    }
}

#[tokio::test]
async fn the_table_has_a_line_for_each_check_and_the_remedies_below() {
    let world = world().await;
    let mut settings = settings(&world);
    let well = run(&settings, &[]).await;
    assert_eq!(well.code, 0, "{well:?}");
    let lines: Vec<&str> = well.out.lines().collect();
    assert_eq!(lines.len(), 1 + ALL.len() + 1 + 2, "{}", well.out);
    assert!(lines[0].starts_with("CHECK") && lines[0].ends_with("STATE     SEEN"));
    assert!(well.out.ends_with("\n26 checks: 26 ok\n"), "{}", well.out);

    settings.insert("TASK_RUN_ID".to_owned(), String::new());
    world.kube.deny(true);
    let ill = run(&settings, &[]).await;
    assert_eq!(ill.code, 1, "{ill:?}");
    let role = "\nkubernetes.get, kubernetes.list, kubernetes.watch:\nApply this Role and RoleBinding with kubectl apply --filename -:\n\
                apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n";
    assert!(ill.out.contains(role), "{}", ill.out);
    assert!(
        ill.out.contains("\nsettings.TASK_RUN_ID:\nSet TASK_RUN_ID"),
        "{}",
        ill.out
    );
}

#[tokio::test]
async fn settings_can_be_flags_and_a_wrong_command_line_is_64() {
    let world = world().await;
    let mut settings = settings(&world);
    settings.remove("TASK_RUN_ID");
    let flags = [
        "-o",
        "json",
        "--task-run-id",
        RUN,
        "--timeout",
        "20s",
        "--request-timeout",
        "5s",
    ];
    let checked = run(&settings, &flags).await;
    checked.differs_by(&[]);
    assert!(
        checked
            .seen("pod.grace")
            .ends_with("timeout of one attempt 5s")
    );
    for wrong in [
        &["--timeout", "soon-hunter2"][..],
        &["--timeout", "1h"],
        &["-o", "yaml-hunter2"],
        &["hunter2"],
    ] {
        let checked = run(&settings, wrong).await;
        assert_eq!((checked.code, checked.out.as_str()), (64, ""), "{wrong:?}");
    }
}

//! One fault each, on the way to the service and in the files that the settings name: the right
//! check finds it and suggests a fix, and all other checks pass.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, Zoned};
use podbeat_lab::pki::Authority;
use podbeat_lab::service::Options;
use podbeat_lab::world::RUN;

use super::{Checked, Settings, check, plain, set, set_path, settings, with_options, world};
use crate::harness::binary::{ended, podbeat};
use crate::harness::{jwt, knowing, unused_port};

/// The checks that depend on TLS.
pub(super) const BEHIND_TLS: [(&str, &str); 3] = [
    ("service.tls", "failed"),
    ("service.run", "skipped"),
    ("clock.service", "skipped"),
];

pub(super) fn says(checked: &Checked, id: &str, seen: &str, remedy: &str) {
    assert!(
        checked.seen(id).contains(seen),
        "{id}: {}",
        checked.seen(id)
    );
    assert!(
        checked.remedy(id).contains(remedy),
        "{id}: {}",
        checked.remedy(id)
    );
}

#[tokio::test]
async fn another_ca() {
    let world = world().await;
    let mut settings = settings(&world);
    let path = world.path("other-ca.crt");
    set_path(&mut settings, "PODBEAT_CA_FILE", &path);
    let issued = "unknown CA: the certificate is issued by CN=podbeat lab";
    // A CA with another name, and one with the same name, such as the service's CA before a new
    // setup.
    for (other, seen) in [
        (Authority::named("another CA"), issued.to_owned()),
        (
            Authority::new(),
            format!("{issued}, but not signed with the key"),
        ),
    ] {
        other.expect("made").write_to(&path).expect("written");
        let checked = check(&settings).await;
        checked.differs_by(&BEHIND_TLS);
        says(
            &checked,
            "service.tls",
            &seen,
            "set PODBEAT_CA_FILE to a PEM file",
        );
    }
}

#[tokio::test]
async fn a_certificate_for_another_name() {
    let elsewhere = ([127, 0, 0, 1].into(), "ica.lab.example".to_owned());
    let world = with_options(Options {
        place: Some(elsewhere),
        ..Options::default()
    })
    .await;
    let mut settings = settings(&world);
    let url = world.service.url().replace("ica.lab.example", "localhost");
    set(&mut settings, "PODBEAT_SERVICE_URL", url);
    let checked = check(&settings).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "name mismatch: the certificate is for 127.0.0.1, ica.lab.example, 0.0.0.0, not for localhost",
        "Use a host from the certificate in PODBEAT_SERVICE_URL",
    );
}

fn today() -> Date {
    Zoned::now().date()
}

async fn with_certificate(from: Date, until: Date) -> Checked {
    let world = with_options(Options {
        certificate_holds: Some((from, until)),
        ..Options::default()
    })
    .await;
    check(&settings(&world)).await
}

#[tokio::test]
async fn an_expired_certificate_and_one_that_is_not_valid_yet() {
    let checked = with_certificate(today() - 90.days(), today() - 2.days()).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "expired: the certificate was valid until",
        "must renew its certificate",
    );
    let checked = with_certificate(today() + 2.days(), today() + 90.days()).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "not yet valid: the certificate is valid from",
        "the clock of this node",
    );
}

#[tokio::test]
async fn a_certificate_near_its_end_is_a_warning() {
    let checked = with_certificate(today() - 80.days(), today() + 10.days()).await;
    checked.differs_by(&[("service.tls", "warning")]);
    says(
        &checked,
        "service.tls",
        "days",
        "should renew its certificate",
    );
}

#[tokio::test]
async fn all_errors_of_a_certificate_are_reported_together() {
    let world = with_options(Options {
        certificate_holds: Some((today() - 90.days(), today() - 2.days())),
        place: Some(([127, 0, 0, 1].into(), "ica.lab.example".to_owned())),
        ..Options::default()
    })
    .await;
    let mut settings = settings(&world);
    let url = world.service.url().replace("ica.lab.example", "localhost");
    set(&mut settings, "PODBEAT_SERVICE_URL", url);
    let checked = check(&settings).await;
    for seen in ["name mismatch", "expired"] {
        assert!(
            checked.seen("service.tls").contains(seen),
            "{}",
            checked.seen("service.tls")
        );
    }
}

#[tokio::test]
async fn plain_http_where_tls_was_expected() {
    let world = world().await;
    let mut settings = settings(&world);
    let plain = plain().await;
    set(
        &mut settings,
        "PODBEAT_SERVICE_URL",
        plain.url().replace("http://", "https://"),
    );
    let checked = check(&settings).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "not TLS",
        "Check the port in PODBEAT_SERVICE_URL.",
    );
    // On loopback, plain HTTP is allowed, and then all checks pass.
    set(&mut settings, "PODBEAT_SERVICE_URL", plain.url());
    check(&settings).await.differs_by(&[]);
}

#[tokio::test]
async fn plain_http_to_elsewhere_is_a_wrong_setting() {
    let world = world().await;
    let mut settings = settings(&world);
    set(
        &mut settings,
        "PODBEAT_SERVICE_URL",
        "http://ica.example.com",
    );
    let checked = check(&settings).await;
    checked.differs_by(&[
        ("settings.PODBEAT_SERVICE_URL", "failed"),
        ("service.dns", "skipped"),
        ("service.tcp", "skipped"),
        ("service.tls", "skipped"),
        ("service.run", "skipped"),
        ("clock.service", "skipped"),
    ]);
    assert!(
        checked
            .seen("settings.PODBEAT_SERVICE_URL")
            .contains("must be https")
    );
}

#[tokio::test]
async fn a_client_certificate_that_is_demanded() {
    let world = with_options(Options {
        mutual_tls: true,
        ..Options::default()
    })
    .await;
    let mut settings = settings(&world);
    let checked = check(&settings).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "requires a client certificate (CertificateRequired)",
        "Set PODBEAT_CLIENT_CERT_FILE and PODBEAT_CLIENT_KEY_FILE",
    );
    // A certificate of a CA that the service does not know.
    let stranger = Authority::new()
        .expect("made")
        .issue_client("podbeat", &[])
        .expect("issued");
    for (variable, name, pem) in [
        (
            "PODBEAT_CLIENT_CERT_FILE",
            "stranger.crt",
            &stranger.certificate,
        ),
        ("PODBEAT_CLIENT_KEY_FILE", "stranger.key", &stranger.key),
    ] {
        std::fs::write(world.path(name), pem).expect("written");
        set_path(&mut settings, variable, &world.path(name));
    }
    let checked = check(&settings).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "does not accept the client certificate",
        "from a CA that the",
    );
    for (variable, name) in [
        ("PODBEAT_CLIENT_CERT_FILE", "client.crt"),
        ("PODBEAT_CLIENT_KEY_FILE", "client.key"),
    ] {
        set_path(&mut settings, variable, &world.path(name));
    }
    check(&settings).await.differs_by(&[]);
}

#[tokio::test]
async fn a_port_on_which_nothing_listens() {
    let world = world().await;
    let mut settings = settings(&world);
    let (port, _socket) = unused_port();
    set(
        &mut settings,
        "PODBEAT_SERVICE_URL",
        format!("https://127.0.0.1:{port}"),
    );
    let checked = check(&settings).await;
    let mut expected = BEHIND_TLS.to_vec();
    expected[0].1 = "skipped";
    expected.push(("service.tcp", "failed"));
    checked.differs_by(&expected);
    says(
        &checked,
        "service.tcp",
        "refused",
        "nothing listens on that port",
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let world = world().await;
    let mut settings = settings(&world);
    set(
        &mut settings,
        "PODBEAT_SERVICE_URL",
        "https://podbeat.invalid",
    );
    let checked = check(&settings).await;
    let mut expected = BEHIND_TLS.to_vec();
    expected[0].1 = "skipped";
    expected.extend([("service.dns", "failed"), ("service.tcp", "skipped")]);
    checked.differs_by(&expected);
    says(
        &checked,
        "service.dns",
        "podbeat.invalid",
        "Check the host in PODBEAT_SERVICE_URL",
    );
}

#[tokio::test]
async fn tokens_that_are_expired_or_not_valid_yet_or_expire_soon() {
    let world = world().await;
    let settings = settings(&world);
    let now = Timestamp::now().as_second();
    for (claims, state, seen, remedy) in [
        (
            format!(r#"{{"exp":{}}}"#, now - 3600),
            "failed",
            "expired at",
            "PODBEAT_TOKEN_FILE",
        ),
        (
            format!(r#"{{"exp":{}}}"#, now + 300),
            "warning",
            "valid until",
            "PODBEAT_TOKEN_FILE",
        ),
        (
            format!(r#"{{"exp":{},"nbf":{}}}"#, now + 7200, now + 3600),
            "failed",
            "not valid before",
            "clock",
        ),
    ] {
        let token = jwt(&claims);
        world.service.set_tokens(&[&token]);
        world.write_token(&token).expect("written");
        let checked = check(&settings).await;
        checked.differs_by(&[("token.expiry", state)]);
        says(&checked, "token.expiry", seen, remedy);
        assert!(!checked.out.contains(&token));
    }
    let token = jwt(&format!(r#"{{"exp":{}}}"#, now + 7200));
    world.service.set_tokens(&[&token]);
    world.write_token(&token).expect("written");
    check(&settings).await.differs_by(&[]);
}

#[tokio::test]
async fn the_token_that_the_service_renewed_is_the_one_that_counts() {
    let world = world().await;
    let settings = settings(&world);
    let now = Timestamp::now().as_second();
    let (expired, renewed) = (
        jwt(&format!(r#"{{"exp":{}}}"#, now - 60)),
        jwt(&format!(r#"{{"exp":{}}}"#, now + 7200)),
    );
    world.service.set_tokens(&[&renewed]);
    world.write_token(&expired).expect("written");
    let journal = |run: &str| {
        let journal = serde_json::json!({
            "version": 1, "taskRunId": run, "podUid": super::UID,
            "renewedToken": {"token": renewed, "insteadOf": expired}});
        std::fs::write(world.path("state/journal.json"), journal.to_string()).expect("written");
    };
    journal(RUN);
    let checked = check(&settings).await;
    checked.differs_by(&[]);
    assert!(
        checked
            .seen("token.source")
            .contains("renewed by the service")
    );
    journal("trn.another");
    check(&settings)
        .await
        .differs_by(&[("token.expiry", "failed"), ("service.run", "failed")]);
}

#[tokio::test]
async fn a_missing_or_invalid_token() {
    let world = world().await;
    let mut settings = settings(&world);
    let expected = [
        ("token.source", "failed"),
        ("token.expiry", "skipped"),
        ("service.run", "skipped"),
    ];
    world.write_token("two lines of\nhunter2").expect("written");
    let checked = check(&settings).await;
    checked.differs_by(&expected);
    says(
        &checked,
        "token.source",
        "not valid in a header",
        "on one line",
    );
    set_path(&mut settings, "PODBEAT_TOKEN_FILE", &world.path("nowhere"));
    let checked = check(&settings).await;
    checked.differs_by(&expected);
    says(
        &checked,
        "token.source",
        "No such file",
        "Set PODBEAT_TOKEN_FILE to a file",
    );
}

#[tokio::test]
async fn the_services_answers_about_the_run() {
    let world = world().await;
    let settings = settings(&world);
    for (fault, seen, remedy) in [
        ("any 401", "answered 401", "does not accept the token"),
        ("any 403", "answered 403", "not for this run"),
        ("any 404", "answered 404", "does not exist"),
        ("any 503", "answered 503", "has a problem"),
        (
            "any redirect=https://elsewhere.example/",
            "answered 307",
            "does not send the token to another URL",
        ),
        (
            "any garbage",
            "answered 200",
            "not from the task-run service",
        ),
        ("any drop", "no complete answer", "too slow or broken"),
    ] {
        world.service_faults.inject(fault.parse().expect(fault));
        let checked = check(&settings).await;
        checked.differs_by(&[("service.run", "failed")]);
        says(&checked, "service.run", seen, remedy);
        world.service_faults.lift_all();
    }
}

#[tokio::test]
async fn a_token_that_the_service_does_not_know() {
    let world = world().await;
    let settings = settings(&world);
    world.service.set_tokens(&["another"]);
    let checked = check(&settings).await;
    checked.differs_by(&[("service.run", "failed")]);
    says(
        &checked,
        "service.run",
        "answered 401",
        "Write a new token to PODBEAT_TOKEN_FILE",
    );
}

#[tokio::test]
async fn a_run_that_is_not_there_and_one_that_has_ended() {
    let world = with_options(Options {
        runs: Some(BTreeSet::from(["trn.another".to_owned()])),
        ..Options::default()
    })
    .await;
    let mut settings = settings(&world);
    let checked = check(&settings).await;
    checked.differs_by(&[("service.run", "failed")]);
    says(&checked, "service.run", "answered 404", "Check TASK_RUN_ID");
    // At another path, the service does not answer.
    let url = world.service.url();
    set(&mut settings, "TASK_RUN_ID", "trn.another");
    check(&settings).await.differs_by(&[]);
    set(
        &mut settings,
        "PODBEAT_SERVICE_URL",
        format!("{url}/elsewhere"),
    );
    let checked = check(&settings).await;
    checked.differs_by(&[("service.run", "failed")]);
    set(&mut settings, "PODBEAT_SERVICE_URL", url);
    let abort = ended(
        podbeat()
            .args(["runs", "abort", "trn.another"])
            .envs(&settings),
    )
    .await;
    assert_eq!(abort.code, 0, "{abort:?}");
    let checked = check(&settings).await;
    checked.differs_by(&[("service.run", "warning")]);
    says(
        &checked,
        "service.run",
        "has already ended: Aborted",
        "Check that TASK_RUN_ID is the run of this pod.",
    );
}

#[tokio::test]
async fn clocks_that_differ() {
    let world = world().await;
    let settings = settings(&world);
    world.service.set_clock_ahead(30);
    let checked = check(&settings).await;
    checked.differs_by(&[("clock.service", "warning")]);
    says(
        &checked,
        "clock.service",
        "s behind the clock of the service",
        "NTP",
    );
    world.service.set_clock_ahead(0);
    world.kube.set_clock_ahead(-600);
    let checked = check(&settings).await;
    checked.differs_by(&[("clock.kubernetes", "failed")]);
    says(
        &checked,
        "clock.kubernetes",
        "s ahead of the clock of the API server",
        "NTP",
    );
}

#[tokio::test]
async fn directories_that_are_not_there() {
    let world = world().await;
    for (variable, id, remedy) in [
        (
            "PODBEAT_STATE_DIR",
            "files.state",
            "Mount a separate emptyDir there",
        ),
        (
            "PODBEAT_MARKER_DIR",
            "files.markers",
            "job-with-exit-markers.yaml",
        ),
        (
            "PODBEAT_RENEWED_TOKEN_FILE",
            "files.renewed-token",
            "Mount an emptyDir there",
        ),
    ] {
        let mut settings = settings(&world);
        set_path(&mut settings, variable, &world.path("nowhere/token"));
        let checked = check(&settings).await;
        checked.differs_by(&[(id, "failed")]);
        says(&checked, id, "nowhere", remedy);
    }
}

#[tokio::test]
async fn files_that_prevent_the_start_of_the_agent() {
    let world = world().await;
    let mut settings = settings(&world);
    std::fs::write(world.path("empty.crt"), "no certificate").expect("written");
    for (variable, name, seen) in [
        ("PODBEAT_CA_FILE", "nowhere.crt", "cannot read"),
        ("PODBEAT_CA_FILE", "empty.crt", "contains no certificate"),
    ] {
        set_path(&mut settings, variable, &world.path(name));
        let checked = check(&settings).await;
        checked.differs_by(&[
            ("settings.files", "failed"),
            ("service.tls", "skipped"),
            ("service.run", "skipped"),
            ("clock.service", "skipped"),
        ]);
        says(&checked, "settings.files", seen, "must be PEM files");
    }
    set_path(&mut settings, "PODBEAT_CA_FILE", &world.path("ca.crt"));
    set_path(&mut settings, "PODBEAT_NONCE_FILE", &world.path("nowhere"));
    let checked = check(&settings).await;
    checked.differs_by(&[("settings.files", "failed")]);
    says(
        &checked,
        "settings.files",
        "cannot read the nonce from",
        "PODBEAT_NONCE_FILE",
    );
}

#[tokio::test]
async fn missing_settings_do_not_prevent_other_checks() {
    let world = world().await;
    let mut settings = settings(&world);
    settings.remove("TASK_RUN_ID");
    set(&mut settings, "PODBEAT_INTERVAL", "soon");
    let checked = check(&settings).await;
    checked.differs_by(&[
        ("settings.TASK_RUN_ID", "failed"),
        ("settings.PODBEAT_INTERVAL", "failed"),
        ("service.run", "skipped"),
    ]);
    says(&checked, "settings.TASK_RUN_ID", "missing", "--task-run-id");
    assert_eq!(
        checked.seen("service.run"),
        "because of settings.TASK_RUN_ID"
    );

    // If nothing is set, check names every missing setting.
    let checked = check(&Settings::new()).await;
    assert_eq!(checked.code, 1);
    for variable in [
        "TASK_RUN_ID",
        "POD_NAME",
        "PODBEAT_SERVICE_URL",
        "PODBEAT_TOKEN_FILE",
    ] {
        assert_eq!(
            checked.check(&format!("settings.{variable}"))["state"],
            "failed"
        );
    }
}

#[tokio::test]
async fn an_unknown_variable_is_a_warning() {
    let world = world().await;
    let mut settings = settings(&world);
    set(&mut settings, "PODBEAT_TASK_CONTAINER", "hunter2");
    let checked = check(&settings).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    assert_eq!(checked.check("settings.unknown")["state"], "warning");
    let seen = "PODBEAT_TASK_CONTAINER (did you mean PODBEAT_TASK_CONTAINERS?)";
    says(&checked, "settings.unknown", seen, "configuration.md");
    assert!(!format!("{checked:?}").contains("hunter2"));
}

#[tokio::test]
async fn the_run_is_that_of_the_pods_index() {
    let world = with_options(knowing(["trn.9-4"])).await;
    let mut settings = settings(&world);
    set(&mut settings, "TASK_RUN_ID", "trn.9-{index}");
    let checked = check(&settings).await;
    checked.differs_by(&[
        ("settings.TASK_RUN_ID", "failed"),
        ("service.run", "skipped"),
    ]);
    let seen = "contains {index}, but JOB_COMPLETION_INDEX is not set";
    says(&checked, "settings.TASK_RUN_ID", seen, "TASK_RUN_ID");
    set(&mut settings, "JOB_COMPLETION_INDEX", "4");
    check(&settings).await.differs_by(&[]);
}

#[tokio::test]
async fn a_dry_run_is_reported() {
    let world = world().await;
    let mut settings = settings(&world);
    set(&mut settings, "PODBEAT_DRY_RUN", "true");
    let checked = check(&settings).await;
    checked.differs_by(&[("settings", "warning")]);
    for unset in ["PODBEAT_SERVICE_URL", "PODBEAT_TOKEN_FILE"] {
        settings.remove(unset);
    }
    let checked = check(&settings).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    assert_eq!(checked.check("service.run")["state"], "skipped");
}

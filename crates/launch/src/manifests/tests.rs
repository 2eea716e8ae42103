//! The objects in full, and their properties.

#![expect(
    clippy::needless_pass_by_value,
    reason = "values of json! are written in place"
)]

use insta::assert_json_snapshot;
use podbeat_task_runs::model::Execution;
use serde_json::{Value, json};

use super::*;

fn order(execution: Value) -> Order {
    Order {
        run: "trn.0123456789abcdef0123456789abcdef".to_owned(),
        tenant: "acme".to_owned(),
        attempt: 2,
        nonce: podbeat_task_runs::Secret::new("a nonce"),
        token: podbeat_task_runs::Secret::new("a token"),
        execution: serde_json::from_value::<Execution>(execution).expect("an execution"),
    }
}

fn made(execution: Value, settings: Value) -> Manifests {
    let mut settings = Settings::read(settings.to_string().as_bytes()).expect("settings");
    // The default has the version.
    if settings.podbeat.image == Settings::default().podbeat.image {
        settings.podbeat.image = "registry.example/podbeat:1".to_owned();
    }
    manifests(&order(execution), &settings).expect("manifests")
}

fn main_of(manifests: &Manifests) -> Value {
    let job = json!(manifests.job);
    job["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn everything_that_a_run_can_ask_for() {
    let execution = json!({
        "image": {"name": "registry.example:5000/align", "tag": "2.1", "digest": "sha256:0a", "credentials": {"username": "puller", "password": "hunter2"}},
        "command": "align", "args": ["--home", "$HOME", "$(TASK_RUN_ID)", "$$"], "workingDirectory": "/work",
        "environment": {
            "variables": {"KEY": "hunter3", "EMPTY": ""},
            "resources": {"type": "gpu", "size": "small", "tier": "economy", "hardware": ["a100"], "cpuCores": 1.5, "memoryGb": 4}
        }
    });
    let settings = json!({
        "instance": "prod", "namespace": "shared", "serviceUrl": "https://podbeat.example.com",
        "tenants": {"acme": {"namespace": "acme", "queue": "team-a"}}, "imagePullSecrets": ["mirror"],
        "podbeat": {"image": "mirror.example/podbeat@sha256:0b", "imagePullPolicy": "IfNotPresent", "resources": {"limits": {"memory": "64Mi"}}},
        "resources": {
            "types": {"gpu": {"nodeSelector": {"pool": "gpu"}, "runtimeClassName": "nvidia"}},
            "sizes": {"gpu/small": {"resources": {"memory": "1G"}}},
            "tiers": {"economy": {"priorityClassName": "low"}},
            "hardware": {"a100": {"resources": {"nvidia.com/gpu": "1"}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}}
        }
    });
    let all = made(execution, settings);
    assert_json_snapshot!("job_with_everything", all.job);
    assert_json_snapshot!("secret_with_everything", all.owned_secret("uid-of-the-job"));
}

#[test]
fn the_least_that_a_run_needs() {
    let all = made(
        json!({"image": {"name": "busybox"}, "command": "true"}),
        json!({}),
    );
    assert_json_snapshot!("job_with_the_least", all.job);
    assert_json_snapshot!("secret_with_the_least", all.secret);
}

#[test]
fn the_images_own_program_is_not_wrapped() {
    let all = made(
        json!({"image": {"name": "busybox"}, "args": ["a"]}),
        json!({}),
    );
    assert_json_snapshot!("job_without_a_command", all.job);
}

#[test]
fn the_digest_comes_before_the_tag() {
    let image = |image: Value| main_of(&made(json!({"image": image}), json!({})))["image"].clone();
    assert_eq!(image(json!({"name": "a"})), "a");
    assert_eq!(image(json!({"name": "a", "tag": "1"})), "a:1");
    assert_eq!(
        image(json!({"name": "a", "tag": "1", "digest": "sha256:0"})),
        "a@sha256:0"
    );
    assert_eq!(image(json!({"name": "a", "tag": "", "digest": ""})), "a");
}

#[test]
fn credentials_are_for_the_registry_of_the_image() {
    for (name, registry) in [
        ("busybox", "https://index.docker.io/v1/"),
        ("library/busybox", "https://index.docker.io/v1/"),
        ("ghcr.io/a/b", "ghcr.io"),
        ("localhost/a", "localhost"),
        ("host:5000/a", "host:5000"),
    ] {
        let image = json!({"name": name, "credentials": {"username": "u", "password": "p"}});
        let all = made(json!({"image": image}), json!({}));
        let data = all.secret.data.expect("data");
        let config: Value = serde_json::from_slice(&data[KEY_REGISTRY].0).expect("a configuration");
        assert_eq!(
            config,
            json!({"auths": {registry: {"username": "u", "password": "p", "auth": "dTpw"}}})
        );
    }
}

#[test]
fn names_are_valid_and_follow_from_run_and_attempt() {
    assert_eq!(name("trn.0a", 3), "trn-0a-3");
    let long = name(&"X.".repeat(100), u32::MAX);
    assert!(long.len() <= 63 && long.ends_with("-4294967295"), "{long}");
    assert!(
        long.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    );
}

#[test]
fn the_hash_is_of_the_run_and_not_of_the_operators_settings() {
    let execution = json!({"image": {"name": "a"}, "command": "b"});
    let one = order(execution.clone());
    let hash = spec_hash(&one);
    assert_eq!(hash.len(), 64);
    assert_eq!(hash, spec_hash(&order(execution)));
    let mut others = vec![order(json!({"image": {"name": "a"}, "command": "c"}))];
    others.push(Order {
        attempt: 3,
        ..one.clone()
    });
    others.push(Order {
        nonce: podbeat_task_runs::Secret::new("another"),
        ..one.clone()
    });
    for other in others {
        assert_ne!(hash, spec_hash(&other));
    }
    // A renewed token is no change.
    let renewed = Order {
        token: podbeat_task_runs::Secret::new("another"),
        ..one
    };
    assert_eq!(hash, spec_hash(&renewed));
}

#[test]
fn no_value_of_a_run_is_in_the_job() {
    let execution = json!({
        "image": {"name": "a", "credentials": {"username": "u", "password": "hunter2"}},
        "command": "c", "environment": {"variables": {"KEY": "hunter3"}}
    });
    let job = json!(made(execution, json!({})).job).to_string();
    for secret in ["hunter2", "hunter3", "a nonce", "a token"] {
        assert!(!job.contains(secret), "{secret}");
    }
}

#[test]
fn a_wrong_launch_file_is_an_error_and_no_crash() {
    let of = |settings: Value| {
        let settings = Settings::read(settings.to_string().as_bytes()).expect("settings");
        let execution =
            json!({"image": {"name": "a"}, "environment": {"resources": {"size": "s"}}});
        manifests(&order(execution), &settings)
            .expect_err("wrong")
            .to_string()
    };
    assert!(of(json!({})).contains("resources.size"));
    let sizes = json!({"s": {"tolerations": [3]}});
    assert_eq!(
        of(json!({"resources": {"sizes": sizes}})),
        "the launch file has a wrong value"
    );
    let sizes = json!({"s": {}});
    assert_eq!(
        of(json!({"resources": {"sizes": sizes}, "securityContext": []})),
        "the launch file has a wrong value"
    );
}

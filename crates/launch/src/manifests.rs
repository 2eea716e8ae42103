//! The objects of an attempt: a Secret and a Job. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, KeyToPath, LocalObjectReference, PodSpec, PodTemplateSpec,
    ResourceRequirements, Secret, SecretKeySelector, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use podbeat_kubernetes::why::DISRUPTION;
use podbeat_task_runs::model::{Credentials, Environment, Image};
use ring::digest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::order::Order;
use crate::settings::{Podbeat, Settings};

/// The label with [`Settings::instance`].
pub const SERVER: &str = "podbeat.dev/server";

/// The label with the run's ID.
pub const RUN: &str = "podbeat.dev/run";

/// The label with the number of the attempt.
pub const ATTEMPT: &str = "podbeat.dev/attempt";

/// The annotation with a hash of what the attempt executes.
pub const SPEC_HASH: &str = "podbeat.dev/spec-hash";

/// The annotation with the tenant.
const TENANT: &str = "podbeat.dev/tenant";

/// The label with the program that manages an object.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY`].
const MANAGER: &str = "podbeat-server";

/// The label that gives a Job to a local queue (Kueue's documentation, "Run a Kubernetes Job").
const QUEUE: &str = "kueue.x-k8s.io/queue-name";

/// The name of the task's container.
pub const MAIN: &str = "main";

/// The name of podbeat's container.
pub const PODBEAT: &str = "podbeat";

/// The container that copies podbeat for exit markers, and the volumes for them.
const INSTALL: &str = "podbeat-install";
const PROGRAM: &str = "podbeat-bin";
const MARKERS: &str = "podbeat-markers";

/// podbeat's containers and volumes, as the chart has them. tests/deploy.rs compares them.
const TEMPLATE: &str = include_str!("podbeat.json");

/// The setting for exit markers, which a task that is not wrapped does not have.
const MARKER_DIR: &str = "PODBEAT_MARKER_DIR";

/// The keys of the Secret.
const KEY_RUN: &str = "task-run-id";
const KEY_NONCE: &str = "nonce";
const KEY_TOKEN: &str = "token";
const KEY_REGISTRY: &str = ".dockerconfigjson";

/// The objects of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifests {
    /// The run's ID, the nonce and the token, the values of variables, and the registry's
    /// credentials. Its owner is the Job, as soon as that has a UID: [`Self::owned_secret`].
    pub secret: Secret,
    /// The Job.
    pub job: Job,
}

/// Why there are no objects.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run has no image.
    #[error("the run has no image")]
    NoImage,
    /// The operator's table does not contain what the run asks for, any more.
    #[error("{}", .0.join("; "))]
    Placement(Vec<String>),
    /// The operator's settings are not what a pod contains.
    #[error("the launch file has a wrong value")]
    Settings(#[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Template {
    init_containers: Vec<Container>,
    volumes: Vec<Volume>,
}

/// The name of all objects of an attempt. The API server refuses another object of that name, so an
/// attempt has at most one Job.
#[must_use]
pub fn name(run: &str, attempt: u32) -> String {
    /// A Job's name is a label of its pods, so it has at most 63 characters.
    const LONGEST_RUN: usize = 52;
    let safe = |char: char| match char.to_ascii_lowercase() {
        char @ ('a'..='z' | '0'..='9') => char,
        _ => '-',
    };
    let run: String = run.chars().take(LONGEST_RUN).map(safe).collect();
    format!("{}-{attempt}", run.trim_matches('-'))
}

/// The label selector of all objects of this server.
#[must_use]
pub fn selector(settings: &Settings) -> String {
    format!("{MANAGED_BY}={MANAGER},{SERVER}={}", settings.instance)
}

/// Whether an object is of this server. Others are never touched.
#[must_use]
pub fn is_ours(metadata: &ObjectMeta, settings: &Settings) -> bool {
    let label = |name: &str| metadata.labels.as_ref()?.get(name).map(String::as_str);
    label(MANAGED_BY) == Some(MANAGER) && label(SERVER) == Some(settings.instance.as_str())
}

/// A hash of what an attempt executes. It depends on the run, and not on the operator's settings, so
/// it stays the same when those change.
#[must_use]
pub fn spec_hash(order: &Order) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    let execution = serde_json::to_vec(&order.execution).unwrap_or_default();
    let number = order.attempt.to_string();
    // The nonce is random, so the hash says nothing about a short password.
    for part in [
        order.run.as_bytes(),
        number.as_bytes(),
        order.nonce.expose().as_bytes(),
        &execution,
    ] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut text = String::new();
    for byte in context.finish().as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The objects of an attempt.
///
/// # Errors
/// The run asks for something that is not in the operator's table any more, or the operator's
/// settings are wrong.
pub fn manifests(order: &Order, settings: &Settings) -> Result<Manifests, Error> {
    let execution = &order.execution;
    let image = execution.image.as_ref().ok_or(Error::NoImage)?;
    let name = name(&order.run, order.attempt);
    let namespace = settings.namespace_of(&order.tenant).to_owned();
    let labels = labels(order, settings, &name);
    let annotations = BTreeMap::from([
        (SPEC_HASH.to_owned(), spec_hash(order)),
        (TENANT.to_owned(), order.tenant.clone()),
    ]);
    let queue = settings.queue_of(&order.tenant);
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace),
        labels: Some(labels.clone()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    let mut job_metadata = metadata.clone();
    if let Some(queue) = queue {
        let labels = job_metadata.labels.get_or_insert_default();
        labels.insert(QUEUE.to_owned(), queue.to_owned());
    }
    let job = Job {
        metadata: job_metadata,
        spec: Some(JobSpec {
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            // If something disrupts the pod, the Job's status says so, also after the pod is gone.
            pod_failure_policy: Some(PodFailurePolicy {
                rules: vec![PodFailurePolicyRule {
                    action: "FailJob".to_owned(),
                    on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                        type_: DISRUPTION.to_owned(),
                        ..Default::default()
                    }]),
                    on_exit_codes: None,
                }],
            }),
            // Not two pods at once if Kueue suspends a Job and resumes it.
            pod_replacement_policy: Some("Failed".to_owned()),
            // Kueue resumes it.
            suspend: queue.map(|_| true),
            template: template(order, settings, labels, &name, image)?,
            ttl_seconds_after_finished: Some(settings.ttl_seconds_after_finished),
            ..JobSpec::default()
        }),
        status: None,
    };
    Ok(Manifests {
        secret: secret(order, metadata, image),
        job,
    })
}

impl Manifests {
    /// The Secret, with the Job as its owner: Kubernetes deletes it with the Job.
    #[must_use]
    pub fn owned_secret(&self, job_uid: &str) -> Secret {
        let mut secret = self.secret.clone();
        secret.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "batch/v1".to_owned(),
            kind: "Job".to_owned(),
            name: self.job.metadata.name.clone().unwrap_or_default(),
            uid: job_uid.to_owned(),
            ..OwnerReference::default()
        }]);
        secret
    }
}

fn labels(order: &Order, settings: &Settings, name: &str) -> BTreeMap<String, String> {
    let attempt = order.attempt.to_string();
    let all = [
        ("app.kubernetes.io/name", "podbeat-task"),
        ("app.kubernetes.io/instance", name),
        ("app.kubernetes.io/component", "task"),
        ("app.kubernetes.io/part-of", "podbeat"),
        (MANAGED_BY, MANAGER),
        (SERVER, &settings.instance),
        (RUN, &order.run),
        (ATTEMPT, &attempt),
    ];
    all.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn template(
    order: &Order,
    settings: &Settings,
    mut labels: BTreeMap<String, String>,
    name: &str,
    image: &Image,
) -> Result<PodTemplateSpec, Error> {
    // The chart's NetworkPolicy selects pods by it.
    labels.insert("podbeat.dev/inject".to_owned(), "true".to_owned());
    let annotations = BTreeMap::from([
        ("podbeat.dev/task-run-id".to_owned(), order.run.clone()),
        // Some webhooks add containers that never end.
        ("podbeat.dev/task-containers".to_owned(), MAIN.to_owned()),
    ]);
    let Template {
        mut init_containers,
        mut volumes,
    } = serde_json::from_str(TEMPLATE).map_err(Error::Settings)?;
    let is_wrapped = order.execution.command.is_some();
    if !is_wrapped {
        init_containers.retain(|container| container.name != INSTALL);
        volumes.retain(|volume| volume.name != PROGRAM && volume.name != MARKERS);
    }
    for container in &mut init_containers {
        adapt(container, &settings.podbeat)?;
    }
    for container in init_containers.iter_mut().filter(|it| it.name == PODBEAT) {
        let env = container.env.get_or_insert_default();
        if !is_wrapped {
            env.retain(|variable| variable.name != MARKER_DIR);
            let mounts = container.volume_mounts.get_or_insert_default();
            mounts.retain(|mount| mount.name != MARKERS);
        }
        env.push(variable("PODBEAT_NONCE_FILE", "/var/run/podbeat/nonce"));
        env.push(variable("JOB_RETRY_COUNT", &order.attempt.to_string()));
        if let Some(url) = &settings.service_url {
            env.push(variable("PODBEAT_SERVICE_URL", url));
        }
    }
    let secrets = volumes
        .iter_mut()
        .filter_map(|volume| volume.projected.as_mut()?.sources.as_mut())
        .flatten()
        .filter_map(|source| source.secret.as_mut());
    for secret in secrets {
        secret.name = name.to_owned();
        secret.items.get_or_insert_default().push(KeyToPath {
            key: KEY_NONCE.to_owned(),
            path: KEY_NONCE.to_owned(),
            ..KeyToPath::default()
        });
    }
    let resources = environment(order).resources.clone().unwrap_or_default();
    let placement = settings
        .resources
        .placement(&resources)
        .map_err(Error::Placement)?;
    let entry = placement.entry();
    let mut pull_secrets = settings.image_pull_secrets.clone();
    pull_secrets.extend(credentials(image).map(|_| name.to_owned()));
    let tolerations: Vec<Toleration> = entry
        .tolerations
        .iter()
        .map(|toleration| serde_json::from_value(toleration.clone()))
        .collect::<Result<_, _>>()
        .map_err(Error::Settings)?;
    let spec = PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(settings.podbeat.service_account_name.clone()),
        // podbeat has a token of its own, and the task needs none.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(settings.termination_grace_period_seconds),
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| {
            let reference = |name| LocalObjectReference { name };
            pull_secrets.into_iter().map(reference).collect()
        }),
        init_containers: Some(init_containers),
        containers: vec![task(order, settings, name, image, &entry.resources)?],
        volumes: Some(volumes),
        node_selector: (!entry.node_selector.is_empty()).then(|| entry.node_selector.clone()),
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        runtime_class_name: entry.runtime_class_name.clone(),
        priority_class_name: entry.priority_class_name.clone(),
        ..PodSpec::default()
    };
    Ok(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    })
}

/// The operator's settings for podbeat's containers.
fn adapt(container: &mut Container, podbeat: &Podbeat) -> Result<(), Error> {
    container.image = Some(podbeat.image.clone());
    container
        .image_pull_policy
        .clone_from(&podbeat.image_pull_policy);
    if let Some(resources) = &podbeat.resources {
        let resources = serde_json::from_value(resources.clone()).map_err(Error::Settings)?;
        container.resources = Some(resources);
    }
    Ok(())
}

fn task(
    order: &Order,
    settings: &Settings,
    name: &str,
    image: &Image,
    resources: &BTreeMap<String, String>,
) -> Result<Container, Error> {
    let execution = &order.execution;
    let security_context: SecurityContext = match &settings.security_context {
        Some(context) => serde_json::from_value(context.clone()).map_err(Error::Settings)?,
        None => restricted(),
    };
    let given: Vec<String> = execution
        .args
        .iter()
        .flatten()
        .map(|word| literal(word))
        .collect();
    let (command, args) = match &execution.command {
        Some(command) => {
            let wrapper = [
                "/opt/podbeat/podbeat",
                "exec",
                "--container-name",
                MAIN,
                "--marker-dir",
                "/markers",
                "--",
            ];
            let mut args = vec![literal(command)];
            args.extend(given);
            (Some(wrapper.map(str::to_owned).to_vec()), args)
        }
        None => (None, given),
    };
    let names = environment(order).variables.iter().flatten();
    let env: Vec<EnvVar> = names
        .enumerate()
        .map(|(number, (variable, _))| EnvVar {
            name: variable.clone(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: name.to_owned(),
                    key: variable_key(number),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
            value: None,
        })
        .collect();
    let mounts = [
        (PROGRAM, "/opt/podbeat", Some(true)),
        (MARKERS, "/markers", None),
    ];
    let mounts = mounts.map(|(name, path, read_only)| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    });
    let quantities: BTreeMap<String, Quantity> = resources
        .iter()
        .map(|(name, amount)| (name.clone(), Quantity(amount.clone())))
        .collect();
    Ok(Container {
        name: MAIN.to_owned(),
        image: Some(reference(image)),
        volume_mounts: command.is_some().then(|| mounts.to_vec()),
        command,
        args: (!args.is_empty()).then_some(args),
        env: (!env.is_empty()).then_some(env),
        working_dir: execution.working_directory.clone(),
        resources: (!quantities.is_empty()).then(|| ResourceRequirements {
            requests: Some(quantities.clone()),
            limits: Some(quantities),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security_context),
        ..Container::default()
    })
}

/// What the restricted profile of the Pod Security Standards requires. Images often have root as
/// their user, so this names another one.
fn restricted() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(65532),
        run_as_group: Some(65532),
        allow_privilege_escalation: Some(false),
        capabilities: Some(k8s_openapi::api::core::v1::Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Default::default()
        }),
        seccomp_profile: Some(k8s_openapi::api::core::v1::SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..Default::default()
        }),
        ..SecurityContext::default()
    }
}

fn secret(order: &Order, metadata: ObjectMeta, image: &Image) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let mut data = BTreeMap::from([
        (KEY_RUN.to_owned(), bytes(&order.run)),
        (KEY_NONCE.to_owned(), bytes(order.nonce.expose())),
        (KEY_TOKEN.to_owned(), bytes(order.token.expose())),
    ]);
    let values = environment(order).variables.iter().flatten();
    for (number, (_, value)) in values.enumerate() {
        data.insert(variable_key(number), bytes(value.expose()));
    }
    let registry = credentials(image).map(|credentials| {
        let text = docker_config(image, credentials).to_string();
        (KEY_REGISTRY.to_owned(), bytes(&text))
    });
    let kind = match registry {
        Some(_) => "kubernetes.io/dockerconfigjson",
        None => "Opaque",
    };
    data.extend(registry);
    Secret {
        metadata,
        data: Some(data),
        immutable: Some(true),
        type_: Some(kind.to_owned()),
        ..Secret::default()
    }
}

fn environment(order: &Order) -> &Environment {
    static NONE: Environment = Environment {
        input_stream_settings: None,
        resources: None,
        variables: None,
    };
    order.execution.environment.as_ref().unwrap_or(&NONE)
}

/// Variables can have names that a key of a Secret cannot have.
fn variable_key(number: usize) -> String {
    format!("variable-{number}")
}

fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

/// A word of a command line, so that Kubernetes changes nothing in it: it would replace `$(NAME)`,
/// and reads `$$` as `$` (Kubernetes' documentation, "Define a Command and Arguments for a
/// Container").
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

/// The image with its digest or its tag. The digest has precedence.
fn reference(image: &Image) -> String {
    let name = image.name.as_deref().unwrap_or_default();
    match (&image.digest, &image.tag) {
        (Some(digest), _) if !digest.is_empty() => format!("{name}@{digest}"),
        (_, Some(tag)) if !tag.is_empty() => format!("{name}:{tag}"),
        _ => name.to_owned(),
    }
}

/// The credentials for the image's registry, if there are any.
fn credentials(image: &Image) -> Option<&Credentials> {
    let credentials = image.credentials.as_ref()?;
    let is_given = credentials.username.is_some() || credentials.password.is_some();
    is_given.then_some(credentials)
}

/// The form of Docker's configuration file (Kubernetes' documentation, "Pull an Image from a Private
/// Registry").
fn docker_config(image: &Image, credentials: &Credentials) -> Value {
    let name = image.name.as_deref().unwrap_or_default();
    // As Docker decides whether a name begins with a registry.
    let registry = match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "https://index.docker.io/v1/",
    };
    let user = credentials.username.as_deref().unwrap_or_default();
    let password = credentials
        .password
        .as_ref()
        .map_or("", |password| password.expose());
    let auth = STANDARD.encode(format!("{user}:{password}"));
    json!({"auths": {registry: {"username": user, "password": password, "auth": auth}}})
}

#[cfg(test)]
mod tests;

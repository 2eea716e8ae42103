//! Pods by a label selector, for whoever looks after many of them at once. On kube's client, as the watch is.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::api::{ListParams, VersionMatch};
use kube::core::Request;
use podbeat_heartbeat::observation::JobPod;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::time::{Instant, timeout_at};

use super::answer;
use super::resource::{Pod, only, or_default, readable_time};
use super::retries::{COMPLETION_INDEX, Other, Tally, selector};
use super::watch::{self, Access};

/// The longest that the next pod of a page may take.
const REQUEST: Duration = Duration::from_secs(30);

/// Pods on a page: at 16 KB each, 1.6 MB. Of a page no more than one pod is in memory.
const PAGE: u32 = 100;

/// Pages, after which an API server that has ever another one is not believed any more: a million pods.
const MOST_PAGES: usize = 10_000;

/// The most that is read of one pod, in bytes of JSON: etcd takes 1.5 MiB of it, and JSON may need
/// six times as many for the same texts (each `<` is written as `\u003c`). It is more than what the
/// agent reads of its own pod: of all that may be in a cluster, nobody's pod may hide the others.
const LARGEST: usize = 12 << 20;

/// The annotation from which the manifests fill TASK_RUN_ID.
pub const TASK_RUN_ID: &str = "podbeat.dev/task-run-id";

/// The settings of podbeat's container that are read: the variable, and the flag that comes before it.
pub const SETTINGS: [(&str, &str); 8] = [
    ("TASK_RUN_ID", "task-run-id"),
    ("JOB_COMPLETION_INDEX", "job-completion-index"),
    ("JOB_RETRY_COUNT", "job-retry-count"),
    ("POD_HARDWARE_DETAILS", "pod-hardware-details"),
    ("PODBEAT_NONCE", "nonce"),
    ("PODBEAT_REPORT", "report"),
    ("PODBEAT_TASK_CONTAINERS", "task-containers"),
    ("PODBEAT_IGNORED_CONTAINERS", "ignored-containers"),
];

/// A pod, and what only those read who look at it from outside.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// What podbeat reads of any pod; nothing but its names if there is more of that than is kept.
    pub pod: Pod,
    /// Why there is nothing else in it.
    pub unread: Option<String>,
    /// `metadata.creationTimestamp`, in whole seconds.
    pub created_at: Option<Timestamp>,
    /// Whether the phase says that no container will run again; known of an unread pod, too.
    pub phase_is_terminal: bool,
    /// The UID of the object that controls the pod, such as a Job.
    pub controller: Option<String>,
    task_run_id: Option<String>,
    completion_index: Option<String>,
    containers: Vec<Container>,
}

/// A container, and which of [`SETTINGS`] it is given word for word. Those from ConfigMaps,
/// Secrets and fields have no value here.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Container {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "variables")]
    env: BTreeMap<String, Option<String>>,
    #[serde(deserialize_with = "arguments")]
    command: BTreeMap<&'static str, String>,
    #[serde(deserialize_with = "arguments")]
    args: BTreeMap<&'static str, String>,
}

/// A value may be a secret.
impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").field(&self.name).finish()
    }
}

impl Listed {
    /// Reads a pod as an API server lists it.
    ///
    /// # Errors
    /// It is no pod. One of which more would be kept than may be is none of these.
    pub fn read(json: &[u8]) -> serde_json::Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct More {
            #[serde(deserialize_with = "or_default")]
            metadata: Metadata,
            #[serde(deserialize_with = "or_default")]
            spec: Spec,
            #[serde(deserialize_with = "or_default")]
            status: Status,
        }

        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            phase: Option<String>,
        }

        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Metadata {
            name: Option<String>,
            namespace: Option<String>,
            uid: Option<String>,
            #[serde(deserialize_with = "controller")]
            owner_references: Option<String>,
            #[serde(deserialize_with = "readable_time")]
            creation_timestamp: Option<Timestamp>,
            #[serde(deserialize_with = "annotations")]
            annotations: BTreeMap<String, String>,
        }

        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            #[serde(deserialize_with = "containers")]
            containers: Vec<Container>,
            #[serde(deserialize_with = "containers")]
            init_containers: Vec<Container>,
        }

        // Read twice, so that the agent's own slice of a pod needn't grow.
        let mut more: More = serde_json::from_slice(json)?;
        let (pod, unread) = match serde_json::from_slice::<Pod>(json) {
            Ok(pod) => (pod, None),
            Err(error) => {
                let mut pod = Pod::default();
                pod.metadata.name = more.metadata.name;
                pod.metadata.namespace = more.metadata.namespace;
                pod.metadata.uid = more.metadata.uid;
                (pod, Some(error.to_string()))
            }
        };
        let mut containers = more.spec.containers;
        containers.extend(more.spec.init_containers);
        Ok(Self {
            pod,
            unread,
            created_at: more.metadata.creation_timestamp,
            phase_is_terminal: matches!(more.status.phase.as_deref(), Some("Succeeded" | "Failed")),
            controller: more.metadata.owner_references,
            task_run_id: more.metadata.annotations.remove(TASK_RUN_ID),
            completion_index: more.metadata.annotations.remove(COMPLETION_INDEX),
            containers,
        })
    }

    /// `namespace/name`.
    #[must_use]
    pub fn name(&self) -> String {
        let (namespace, name) = (&self.pod.metadata.namespace, &self.pod.metadata.name);
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", part(namespace), part(name))
    }

    /// Whether it has a container of that name.
    #[must_use]
    pub fn has_container(&self, name: &str) -> bool {
        self.containers.iter().any(|container| container.name == name)
    }

    /// The value of one of a container's [`SETTINGS`], by the variable's name, if the spec gives it
    /// word for word and it isn't empty. As podbeat reads it: the flag first.
    #[must_use]
    pub fn setting(&self, container: &str, variable: &str) -> Option<&str> {
        let container = self.containers.iter().find(|it| it.name == container)?;
        // The kubelet puts a variable's value in the place of $(NAME).
        let itself = |value: &str| {
            value
                .strip_prefix("$(")
                .and_then(|rest| rest.strip_suffix(')'))
                .is_some_and(|name| name == variable)
        };
        let flag = [&container.args, &container.command]
            .into_iter()
            .find_map(|flags| flags.get(variable))
            .filter(|value| !itself(value));
        let value = flag.or_else(|| container.env.get(variable)?.as_ref());
        value.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The run that the annotation names, unless it is empty.
    #[must_use]
    pub fn annotated_run(&self) -> Option<&str> {
        self.task_run_id.as_deref().filter(|run| !run.is_empty())
    }

    /// The index of an Indexed Job's pod, by the Job controller's annotation.
    #[must_use]
    pub fn annotated_index(&self) -> Option<&str> {
        self.completion_index.as_deref()
    }
}

fn annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    only(deserializer, &|name| {
        name == TASK_RUN_ID || name == COMPLETION_INDEX
    })
}

fn variables<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Variable {
        #[serde(deserialize_with = "or_default")]
        name: String,
        value: Option<String>,
    }

    let mut read = BTreeMap::new();
    each(deserializer, &mut |variable: Variable| {
        if SETTINGS.iter().any(|(name, _)| *name == variable.name) {
            // Of two of a name the later holds.
            read.insert(variable.name, variable.value);
        }
    })?;
    Ok(read)
}

/// The flags among a command's words, by the variables that they come before.
fn arguments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<&'static str, String>, D::Error> {
    let mut read = BTreeMap::new();
    let mut awaited = None;
    each(deserializer, &mut |word: Option<String>| {
        let word = word.unwrap_or_default();
        if let Some(variable) = awaited.take() {
            read.insert(variable, word);
            return;
        }
        let Some(text) = word.strip_prefix("--") else {
            return;
        };
        let (flag, value) = text
            .split_once('=')
            .map_or((text, None), |(flag, value)| (flag, Some(value)));
        let Some((variable, _)) = SETTINGS.iter().find(|(_, name)| *name == flag) else {
            return;
        };
        match value {
            Some(value) => {
                read.insert(*variable, value.to_owned());
            }
            None => awaited = Some(*variable),
        }
    })?;
    Ok(read)
}

/// The UID of the first owner that is the controller: the API server lets a pod have one.
fn controller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Owner {
        uid: Option<String>,
        controller: Option<bool>,
    }

    /// A UID has 36 bytes. Without an end, a few pods could fill reap's memory.
    const LONGEST: usize = 128;
    let mut found = None;
    each(deserializer, &mut |owner: Owner| {
        if found.is_none() && owner.controller == Some(true) {
            found = owner.uid.filter(|uid| (1..=LONGEST).contains(&uid.len()));
        }
    })?;
    Ok(found)
}

fn containers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Container>, D::Error> {
    /// As many as of a pod that podbeat reads.
    const MOST: usize = 1024;
    let mut first = Vec::new();
    each(deserializer, &mut |container| {
        if first.len() < MOST {
            first.push(container);
        }
    })?;
    Ok(first)
}

/// Hands on the items of a list, one by one; null means the same as absent.
fn each<'de, D, T>(deserializer: D, take: &mut dyn FnMut(T)) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<'take, T>(&'take mut dyn FnMut(T));

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<'_, T> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            while let Some(item) = list.next_element()? {
                (self.0)(item);
            }
            Ok(())
        }
    }

    deserializer.deserialize_any(List(take))
}

/// Where pods are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the namespace of the service account or of the context.
    Default,
    /// In this namespace.
    Namespace(String),
    /// In all of them.
    Everywhere,
}

/// Why pods could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client can't be set up.
    #[error(transparent)]
    Setup(#[from] watch::Error),
    /// The API server refused or failed.
    #[error("listing pods {place}: {hint}")]
    Api {
        /// Where.
        place: String,
        /// What to do about it.
        hint: &'static str,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An item of the list is longer than what is read of one.
    #[error("listing pods {place}: the API server sends more than {} MiB for one pod", LARGEST >> 20)]
    TooLarge {
        /// Where.
        place: String,
    },
    /// No answer in time.
    #[error(
        "listing pods {place}: no answer within {}",
        humantime::format_duration(REQUEST)
    )]
    Timeout {
        /// Where.
        place: String,
    },
    /// A list that would never end.
    #[error("listing pods {place}: given up after {MOST_PAGES} pages")]
    Endless {
        /// Where.
        place: String,
    },
}

impl Error {
    /// The HTTP status of the API server's refusal, where there is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::Setup(_) | Self::TooLarge { .. } | Self::Timeout { .. } | Self::Endless { .. } => None,
        }
    }
}

/// The pods of a cluster, over one client.
pub struct Pods {
    client: Client,
    /// Of pods whose namespace isn't named.
    namespace: String,
}

impl Pods {
    /// Sets the client up; sends nothing yet.
    ///
    /// # Errors
    /// The client can't be set up.
    pub async fn reach(access: &Access) -> Result<Self, Error> {
        let watch::Reached {
            client, namespace, ..
        } = watch::reach(access).await?;
        Ok(Self { client, namespace })
    }

    /// Hands on all pods that a label selector chooses, one by one; without one all pods.
    ///
    /// # Errors
    /// The API server refused, failed or didn't answer in time.
    pub async fn list(
        &self,
        place: &Where,
        labels: Option<&str>,
        mut each: impl FnMut(Listed) + Send,
    ) -> Result<(), Error> {
        let namespace = match place {
            Where::Default => Some(&self.namespace),
            Where::Namespace(name) => Some(name),
            Where::Everywhere => None,
        };
        let pods = Request::new(watch::pods_in(namespace.map(String::as_str)));
        let place = namespace.map_or_else(
            || "in all namespaces".to_owned(),
            |name| format!("in namespace {name}"),
        );
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = labels.map(str::to_owned);
        let progress = Progress::default();
        let mut take = |item: &[u8]| {
            progress.was_made();
            each(Listed::read(item)?);
            Ok(())
        };
        for _ in 0..MOST_PAGES {
            progress.was_made();
            let page = async {
                let request = pods.list(&params).map_err(kube::Error::BuildRequest)?;
                answer::list(&self.client, request, LARGEST, &mut take).await
            };
            let page = in_time(page, &place, &progress).await?;
            if page.continues.is_empty() {
                return Ok(());
            }
            params.continue_token = Some(page.continues);
        }
        Err(Error::Endless { place })
    }

    /// How many pods of the same Job failed before this one; `None` if that can't be known.
    ///
    /// # Errors
    /// The API server refused, failed or didn't answer in time.
    pub async fn failed_before(&self, namespace: &str, job: &JobPod) -> Result<Option<i32>, Error> {
        let count = retries(&self.client, namespace, job);
        in_time(count, &format!("in namespace {namespace}"), &Progress::default()).await
    }
}

/// When something last came of an answer. A page of large pods takes as long as it takes, and one that stands still ends.
struct Progress(Mutex<Instant>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Progress {
    fn was_made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn deadline(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) + REQUEST
    }
}

/// The answer to a list within its deadline.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, answer::Error>>,
    place: &str,
    progress: &Progress,
) -> Result<T, Error> {
    let place = place.to_owned();
    let mut answer = pin!(answer);
    let answer = loop {
        match timeout_at(progress.deadline(), &mut answer).await {
            Err(_) if Instant::now() < progress.deadline() => {}
            ended => break ended,
        }
    };
    match answer {
        Err(_) => Err(Error::Timeout { place }),
        Ok(answer) => answer.map_err(|error| match error {
            answer::Error::Kube(source) => Error::Api {
                place,
                hint: hint(&source),
                source: Box::new(source),
            },
            answer::Error::TooLarge(_) => Error::TooLarge { place },
        }),
    }
}

/// How many pods of the same Job failed before this one; `None` if that can't be known. It is one
/// list, of which one pod at a time is in memory.
pub(super) async fn retries(
    client: &Client,
    namespace: &str,
    job: &JobPod,
) -> Result<Option<i32>, answer::Error> {
    let mut params = ListParams::default().labels(&selector(job));
    if !job.resource_version.is_empty() {
        // Any cache that is no older than this pod may answer: ten thousand copies that start at once
        // must not reach etcd. It shows how the predecessors ended, because the Job controller makes
        // a pod only after it has seen that.
        params = params
            .at(&job.resource_version)
            .matching(VersionMatch::NotOlderThan);
    }
    let mut tally = Tally::new(job);
    let mut take = |item: &[u8]| {
        let other: Other = serde_json::from_slice(item)?;
        if tally.add(&other) {
            Ok(())
        } else {
            Err(serde_json::Error::custom("the rest need not be read"))
        }
    };
    let request = Request::new(watch::pods_in(Some(namespace))).list(&params);
    let request = request.map_err(|error| answer::Error::Kube(kube::Error::BuildRequest(error)))?;
    let listed = answer::list(client, request, answer::LARGEST, &mut take).await;
    match tally.count() {
        None => Ok(None),
        count => listed.map(|_| count),
    }
}

fn hint(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Api(status) => match status.code {
            400 | 422 => "is the label selector right?",
            401 => "the API server doesn't accept the token",
            403 => {
                "not allowed; the account needs a Role with list on pods (deploy/manifests/reap.yaml has one)"
            }
            404 => "is it a Kubernetes API?",
            410 => "the list expired while it was read; try again",
            _ => "the API server refused",
        },
        kube::Error::SerdeError(_) => "what the API server answers is no list of pods",
        _ => "the API server can't be reached or broke off",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(pod: &serde_json::Value) -> Listed {
        Listed::read(pod.to_string().as_bytes()).expect("a pod")
    }

    #[test]
    fn what_is_read_beside_the_agents_slice() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2026-11-24T00:00:00Z",
                         "annotations": {"a": "1", TASK_RUN_ID: "trn.1"}},
            "spec": {
                "containers": [{"name": "main", "env": [{"name": "TASK_RUN_ID", "value": "main's"}]}],
                "initContainers": [{"name": "podbeat", "env": [
                    {"name": "TASK_RUN_ID", "value": "first"}, {"name": "TASK_RUN_ID", "value": "hunter2"},
                    {"name": "JOB_RETRY_COUNT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "PODBEAT_NONCE", "value": ""}, {"name": "PASSWORD", "value": "hunter2"}]}, {"name": "bare"}]
            }
        });
        let listed = read(&pod);
        assert_eq!(listed.name(), "n/p");
        assert!(listed.created_at.is_some());
        assert_eq!(listed.setting("podbeat", "TASK_RUN_ID"), Some("hunter2"));
        assert_eq!(listed.setting("main", "TASK_RUN_ID"), Some("main's"));
        for unknown in ["JOB_RETRY_COUNT", "PODBEAT_NONCE", "PASSWORD", "NOWHERE"] {
            assert_eq!(listed.setting("podbeat", unknown), None);
        }
        assert_eq!(listed.annotated_run(), Some("trn.1"));
        assert!(listed.has_container("bare") && !listed.has_container("other"));
        assert_eq!(listed.pod.spec.init_containers.len(), 2);
        assert!(!format!("{listed:?}").contains("hunter2"), "{listed:?}");
        let nothing = read(&json!({"metadata": null, "spec": {"containers": null}}));
        assert_eq!((nothing.name().as_str(), nothing.annotated_run()), ("/", None));
    }

    #[test]
    fn flags_come_before_variables() {
        let of = |container: serde_json::Value| {
            let mut container = container;
            container["name"] = json!("podbeat");
            container["env"] = json!([{"name": "TASK_RUN_ID", "value": "env's"}]);
            read(&json!({"spec": {"containers": [container]}}))
        };
        for (words, run, tasks) in [
            (
                json!({"args": ["agent", "--task-run-id=flag's", "--task-containers", "main,b"]}),
                "flag's",
                Some("main,b"),
            ),
            (
                json!({"command": ["/podbeat", "--task-run-id", "flag's"]}),
                "flag's",
                None,
            ),
            (
                json!({"args": ["--task-run-id=$(TASK_RUN_ID)", "--task-containers="]}),
                "env's",
                None,
            ),
            (
                json!({"args": ["--task-run-id-of", "x", "task-run-id=x", null, "--task-containers"]}),
                "env's",
                None,
            ),
            (json!({"args": null, "command": []}), "env's", None),
        ] {
            let pod = of(words);
            assert_eq!(pod.setting("podbeat", "TASK_RUN_ID"), Some(run));
            assert_eq!(pod.setting("podbeat", "PODBEAT_TASK_CONTAINERS"), tasks);
        }
    }

    #[test]
    fn the_controller_alone_owns_a_pod() {
        let owned =
            |owners: serde_json::Value| read(&json!({"metadata": {"ownerReferences": owners}})).controller;
        let job = json!({"kind": "Job", "uid": "job", "controller": true});
        let other = json!({"kind": "ConfigMap", "uid": "other"});
        assert_eq!(owned(json!([other, job])).as_deref(), Some("job"));
        let long = json!([{"uid": "x".repeat(129), "controller": true}]);
        let unnamed = json!([{"controller": true}]);
        for none in [json!(null), json!([]), json!([other]), unnamed, long] {
            assert_eq!(owned(none), None);
        }
    }

    #[test]
    fn a_pod_of_which_too_much_would_be_kept_is_still_told_apart() {
        let message = "x".repeat(1 << 20);
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {TASK_RUN_ID: "trn.1"}},
            "spec": {"containers": [{"name": "podbeat"}]},
            "status": {"phase": "Failed", "message": message}
        });
        let listed = read(&pod);
        assert_eq!(
            (listed.name().as_str(), listed.annotated_run()),
            ("n/p", Some("trn.1"))
        );
        assert!(listed.has_container("podbeat") && listed.phase_is_terminal);
        assert_eq!(listed.pod.metadata.uid.as_deref(), Some("u"));
        assert!(listed.unread.is_some_and(|why| why.contains("512 KiB")));
    }
}

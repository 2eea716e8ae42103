//! Lists pods by a label selector, for commands that check many pods. Like the watch, this module
//! uses kube's client.

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

use super::access::{self, Access, pods_in, reach};
use super::answer;
use super::error::Error;
use super::resource::{Pod, only, or_default, readable_time};
use super::retries::{COMPLETION_INDEX, Other, Tally, selector};

/// Limit for the time until the next pod of a page arrives.
const REQUEST: Duration = Duration::from_secs(30);

/// Pods per page: 1.6 MB at 16 KB each. At most one pod of a page is in memory.
const PAGE: u32 = 100;

/// Limit for the pages of a list: a million pods.
const MOST_PAGES: usize = 10_000;

/// Limit for one pod, in bytes of JSON. etcd accepts 1.5 MiB of it, and JSON may need six times
/// that for the same texts (each `<` is written as `\u003c`). This is more than the agent reads of
/// its own pod, because no pod in a cluster may hide the others.
const LARGEST: usize = 12 << 20;

/// The annotation from which the manifests set TASK_RUN_ID.
pub const TASK_RUN_ID: &str = "podbeat.dev/task-run-id";

/// The settings of podbeat's container that are read: the variable, and the flag that has
/// precedence over it.
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

/// A pod, with additional fields for commands that look at it from outside.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The part of a pod that podbeat always reads. Only names and UID are set if the pod exceeds
    /// the limits.
    pub pod: Pod,
    /// Why the rest of the pod was not read.
    pub unread: Option<String>,
    /// `metadata.creationTimestamp`, in whole seconds.
    pub created_at: Option<Timestamp>,
    /// Whether the phase shows that no container will run again. Also set for an unread pod.
    pub phase_is_terminal: bool,
    /// The UID of the object that controls the pod, such as a Job.
    pub controller: Option<String>,
    task_run_id: Option<String>,
    completion_index: Option<String>,
    containers: Vec<Container>,
}

/// A container, and those of its [`SETTINGS`] that the spec gives literally. Values from
/// ConfigMaps, Secrets and fields are not available here.
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

/// Shows only the name, because a value may be a secret.
impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").field(&self.name).finish()
    }
}

impl Listed {
    /// Reads a pod from a list of the API server.
    ///
    /// # Errors
    /// The JSON is not a pod. A pod that exceeds the limits is not an error.
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

        // Parses the JSON twice, so that the agent's own slice of a pod stays small.
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

    /// Whether the pod has a container of that name.
    #[must_use]
    pub fn has_container(&self, name: &str) -> bool {
        self.containers
            .iter()
            .any(|container| container.name == name)
    }

    /// The value of one of a container's [`SETTINGS`], by the variable's name, if the spec gives it
    /// literally and it is not empty. As in podbeat, a flag has precedence.
    #[must_use]
    pub fn setting(&self, container: &str, variable: &str) -> Option<&str> {
        let container = self.containers.iter().find(|it| it.name == container)?;
        // The kubelet replaces $(NAME) with the variable's value.
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

    /// The run in the annotation, unless it is empty.
    #[must_use]
    pub fn annotated_run(&self) -> Option<&str> {
        self.task_run_id.as_deref().filter(|run| !run.is_empty())
    }

    /// The index of an Indexed Job's pod, from the Job controller's annotation.
    #[must_use]
    pub fn annotated_index(&self) -> Option<&str> {
        self.completion_index.as_deref()
    }
}

fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
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
            // Of two variables with the same name, the later one is used.
            read.insert(variable.name, variable.value);
        }
    })?;
    Ok(read)
}

/// The flags in a command, by the variables over which they have precedence.
fn arguments<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<&'static str, String>, D::Error> {
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

/// The UID of the controlling owner. The API server allows a pod only one.
fn controller<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Owner {
        uid: Option<String>,
        controller: Option<bool>,
    }

    /// A UID has 36 bytes. Without a limit, a few pods could fill reap's memory.
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
    /// The same limit as for podbeat's own pod.
    const MOST: usize = 1024;
    let mut first = Vec::new();
    each(deserializer, &mut |container| {
        if first.len() < MOST {
            first.push(container);
        }
    })?;
    Ok(first)
}

/// Passes the items of a list to `take`, one by one. Null means the same as absent.
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

/// Where to list pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// In the namespace of the service account or of the context.
    Default,
    /// In this namespace.
    Namespace(String),
    /// In all namespaces.
    Everywhere,
}

/// The pods of a cluster.
pub struct Pods {
    client: Client,
    /// The namespace for [`Where::Default`].
    namespace: String,
}

impl Pods {
    /// Creates a client without sending anything.
    ///
    /// # Errors
    /// The client can't be set up.
    pub async fn reach(access: &Access) -> Result<Self, Error> {
        let access::Reached {
            client, namespace, ..
        } = reach(access).await?;
        Ok(Self { client, namespace })
    }

    /// Passes all pods that match a label selector to `each`, one by one. Without a selector, all
    /// pods.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn list(
        &self,
        place: &Where,
        labels: Option<&str>,
        mut each: impl FnMut(Listed) + Send,
    ) -> Result<(), Error> {
        let namespace = match place {
            Where::Default => Some(self.namespace.as_str()),
            Where::Namespace(name) => Some(name.as_str()),
            Where::Everywhere => None,
        };
        let pods = Request::new(pods_in(namespace));
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
                let request = pods.list(&params)?;
                answer::list(&self.client, request, LARGEST, &mut take).await
            };
            let page = in_time(page, namespace, &progress).await?;
            if page.continues.is_empty() {
                return Ok(());
            }
            params.continue_token = Some(page.continues);
        }
        Err(Error::Endless {
            request: listing(namespace),
            pages: MOST_PAGES,
        })
    }

    /// Counts the pods of the same Job that failed before this one. `None` if the count is unknown.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn failed_before(&self, namespace: &str, job: &JobPod) -> Result<Option<i32>, Error> {
        let count = retries(&self.client, namespace, job);
        in_time(count, Some(namespace), &Progress::default()).await
    }
}

/// When data last arrived. A page of large pods may take any time, as long as it makes progress.
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

/// Waits for a list within its deadline.
async fn in_time<T>(
    answer: impl Future<Output = Result<T, answer::Error>>,
    namespace: Option<&str>,
    progress: &Progress,
) -> Result<T, Error> {
    let mut answer = pin!(answer);
    let answer = loop {
        match timeout_at(progress.deadline(), &mut answer).await {
            Err(_) if Instant::now() < progress.deadline() => {}
            ended => break ended,
        }
    };
    match answer {
        Err(_) => Err(Error::Timeout {
            request: listing(namespace),
            after: REQUEST,
        }),
        Ok(answer) => answer.map_err(|error| Error::of(listing(namespace), namespace, error)),
    }
}

/// The request, for an error message.
fn listing(namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("listing pods in namespace {namespace}"),
        None => "listing pods in all namespaces".to_owned(),
    }
}

/// Counts the pods of the same Job that failed before this one. `None` if the count is unknown.
/// This takes one list, with one pod in memory at a time.
pub(super) async fn retries(
    client: &Client,
    namespace: &str,
    job: &JobPod,
) -> Result<Option<i32>, answer::Error> {
    let mut params = ListParams::default().labels(&selector(job));
    if !job.resource_version.is_empty() {
        // Any cache that is at least as new as this pod may answer, because ten thousand copies
        // that start together must not reach etcd. Such a cache shows how the predecessors ended,
        // because the Job controller creates a pod only after it has seen that.
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
    let request = Request::new(pods_in(Some(namespace))).list(&params)?;
    let listed = answer::list(client, request, answer::LARGEST, &mut take).await;
    match tally.count() {
        None => Ok(None),
        count => listed.map(|_| count),
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
    fn the_additional_members_are_read() {
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
        assert_eq!(
            (nothing.name().as_str(), nothing.annotated_run()),
            ("/", None)
        );
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
        let owned = |owners: serde_json::Value| {
            read(&json!({"metadata": {"ownerReferences": owners}})).controller
        };
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
    fn a_pod_that_is_too_large_to_keep_is_still_identified() {
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

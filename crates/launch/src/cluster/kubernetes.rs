//! The requests to a real API server, with kube.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as KubernetesEvent, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, LogParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Config};
use podbeat_kubernetes::listed::Listed;

use super::{Answer, Change, Cluster, Failure, Found, SecretSeen};
use crate::manifests::{MAIN, selector};
use crate::seen::{JobSeen, PodSeen, owned};
use crate::settings::Settings;

/// The limit for one request.
const REQUEST: Duration = Duration::from_secs(15);

/// The limit for a list, which may have many pages.
const LIST: Duration = Duration::from_secs(120);

/// Objects in a page of a list.
const PAGE: u32 = 500;

/// The longest text of the API server that is kept, in characters.
const LONGEST: usize = 1024;

/// The lines of a log that are asked for.
const LOG_LINES: i64 = 200;

/// The rights that the server needs in each namespace: API group, resource, verbs.
pub const RIGHTS: &[(&str, &str, &[&str])] = &[
    (
        "batch",
        "jobs",
        &["create", "get", "list", "watch", "delete"],
    ),
    ("", "secrets", &["create", "get", "list", "delete"]),
    ("", "pods", &["list", "watch"]),
    ("", "pods/log", &["get"]),
    ("", "events", &["list"]),
];

/// A real cluster.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    settings: Settings,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").finish_non_exhaustive()
    }
}

/// Where the API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the cluster of this pod, with its service account.
    InCluster,
    /// As in this kubeconfig, or in the user's own one.
    Kubeconfig(Option<PathBuf>),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service account can't be used.
    #[error("cannot use the service account of this pod for the Kubernetes API")]
    InCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig can't be used.
    #[error("cannot use the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// The client can't be set up.
    #[error("cannot set up the client of the Kubernetes API")]
    Client(#[source] kube::Error),
}

impl Kubernetes {
    /// A client. Sends nothing.
    ///
    /// # Errors
    /// The service account or the kubeconfig can't be used.
    pub async fn new(place: &Place, settings: Settings) -> Result<Self, Error> {
        let config = match place {
            Place::InCluster => Config::incluster().map_err(Error::InCluster)?,
            Place::Kubeconfig(path) => {
                let options = KubeConfigOptions::default();
                let config = match path {
                    None => Config::from_kubeconfig(&options).await,
                    Some(path) => {
                        let file = Kubeconfig::read_from(path).map_err(Error::Kubeconfig)?;
                        Config::from_custom_kubeconfig(file, &options).await
                    }
                };
                config.map_err(Error::Kubeconfig)?
            }
        };
        let client = Client::try_from(config).map_err(Error::Client)?;
        Ok(Self { client, settings })
    }

    /// The rights that the server lacks, such as `create jobs in tasks`. It asks the API server for
    /// each (`SelfSubjectAccessReview`), and changes nothing.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn missing_rights(&self) -> Result<Vec<String>, Failure> {
        let reviews = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let mut missing = Vec::new();
        for namespace in self.settings.namespaces() {
            for (group, resource, verbs) in RIGHTS {
                for verb in *verbs {
                    let (resource, subresource) = match resource.split_once('/') {
                        Some((resource, subresource)) => (resource, Some(subresource)),
                        None => (*resource, None),
                    };
                    let asked = SelfSubjectAccessReview {
                        spec: SelfSubjectAccessReviewSpec {
                            resource_attributes: Some(ResourceAttributes {
                                namespace: Some(namespace.to_owned()),
                                group: Some((*group).to_owned()),
                                resource: Some(resource.to_owned()),
                                subresource: subresource.map(str::to_owned),
                                verb: Some((*verb).to_owned()),
                                ..ResourceAttributes::default()
                            }),
                            ..SelfSubjectAccessReviewSpec::default()
                        },
                        ..SelfSubjectAccessReview::default()
                    };
                    let params = PostParams::default();
                    let answer = within(REQUEST, reviews.create(&params, &asked)).await?;
                    if !answer.status.is_some_and(|status| status.allowed) {
                        let subresource = subresource.map(|name| format!("/{name}"));
                        let subresource = subresource.unwrap_or_default();
                        missing.push(format!("{verb} {resource}{subresource} in {namespace}"));
                    }
                }
            }
        }
        Ok(missing)
    }

    fn jobs(&self, namespace: &str) -> Api<Job> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn secrets_in(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Pods as JSON, of which podbeat's own parser reads the relevant part.
    fn pods_in(&self, namespace: &str) -> Api<DynamicObject> {
        let pods = ApiResource::erase::<Pod>(&());
        Api::namespaced_with(self.client.clone(), namespace, &pods)
    }

    fn found(&self, job: &Job) -> Found {
        match JobSeen::of(job, &self.settings) {
            Some(job) => Found::Ours(job),
            None => Found::Foreign,
        }
    }

    fn secret_seen(&self, metadata: &ObjectMeta) -> Option<SecretSeen> {
        let (run, attempt) = owned(metadata, &self.settings)?;
        let owner = metadata.owner_references.iter().flatten().next();
        Some(SecretSeen {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            run,
            attempt,
            owner: owner.map(|owner| owner.uid.clone()),
        })
    }

    fn watch_jobs(&self, namespace: String) -> BoxStream<'static, Change> {
        let settings = self.settings.clone();
        let read = move |job: Job| JobSeen::of(&job, &settings);
        let stream = watcher(self.jobs(&namespace), self.watched());
        let listed = move |jobs| Change::Listed {
            namespace: namespace.clone(),
            jobs: Some(jobs),
            pods: None,
        };
        changes(stream, read, (Change::Job, Change::JobGone), listed).boxed()
    }

    fn watch_pods(&self, namespace: String) -> BoxStream<'static, Change> {
        let settings = self.settings.clone();
        let read = move |pod: DynamicObject| pod_seen(&pod, &settings);
        let stream = watcher(self.pods_in(&namespace), self.watched());
        let listed = move |pods| Change::Listed {
            namespace: namespace.clone(),
            jobs: None,
            pods: Some(pods),
        };
        changes(stream, read, (Change::Pod, Change::PodGone), listed).boxed()
    }

    fn watched(&self) -> watcher::Config {
        watcher::Config::default()
            .labels(&selector(&self.settings))
            .page_size(PAGE)
    }
}

fn pod_seen(pod: &DynamicObject, settings: &Settings) -> Option<PodSeen> {
    let json = serde_json::to_vec(pod).ok()?;
    let listed = Listed::read(&json).ok()?;
    PodSeen::of(&pod.metadata, &listed, settings)
}

type ToChange<T> = fn(T) -> Change;

/// A watch as changes. After a new list, all of its objects come at once.
fn changes<K, T: Send + 'static>(
    stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    read: impl Fn(K) -> Option<T> + Send + 'static,
    (exists, gone): (ToChange<T>, ToChange<T>),
    listed: impl Fn(Vec<T>) -> Change + Send + 'static,
) -> impl Stream<Item = Change> + Send
where
    K: kube::Resource + Send + 'static,
{
    let mut list = Vec::new();
    let change = move |event| {
        let change = match event {
            Ok(watcher::Event::Init) => {
                list.clear();
                None
            }
            Ok(watcher::Event::InitApply(object)) => {
                list.extend(read(object));
                None
            }
            Ok(watcher::Event::InitDone) => Some(listed(std::mem::take(&mut list))),
            Ok(watcher::Event::Apply(object)) => read(object).map(exists),
            Ok(watcher::Event::Delete(object)) => read(object).map(gone),
            Err(error) => Some(Change::Failed(Failure::Unavailable {
                why: chain(&error),
                after: None,
            })),
        };
        std::future::ready(change)
    };
    stream.default_backoff().filter_map(change)
}

/// An error with its causes. Those of kube repeat their sources, so a cause that was said is left
/// out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text += ": ";
            text += &cause_text;
        }
        source = cause.source();
    }
    text.chars().take(LONGEST).collect()
}

/// What an error means.
fn failure(error: kube::Error) -> Failure {
    let status = match error {
        kube::Error::Api(status) => status,
        other => {
            return Failure::Unavailable {
                why: chain(&other),
                after: None,
            };
        }
    };
    let message: String = status.message.chars().take(LONGEST).collect();
    match status.code {
        409 if status.reason == "AlreadyExists" => Failure::Exists,
        409 => Failure::Changed,
        400 | 422 => Failure::Invalid(message),
        403 | 404 => Failure::Refused(message),
        _ => Failure::Unavailable {
            why: format!("{} {message}", status.code),
            after: status
                .details
                .map(|details| Duration::from_secs(details.retry_after_seconds.into()))
                .filter(|after| !after.is_zero()),
        },
    }
}

/// The answer to a request, within its limit.
async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(failure),
        Err(_) => Err(Failure::Unavailable {
            why: format!("no answer within {} s", limit.as_secs()),
            after: None,
        }),
    }
}

fn only(uid: &str) -> Option<Preconditions> {
    Some(Preconditions {
        resource_version: None,
        uid: Some(uid.to_owned()),
    })
}

/// Deletes an object with this UID. No error if it does not exist.
async fn delete<K>(api: &Api<K>, name: &str, params: &DeleteParams) -> Result<(), Failure>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let request = async {
        match api.delete(name, params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(drop),
        }
    };
    within(REQUEST, request).await
}

impl Cluster for Kubernetes {
    fn job<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Found> {
        async move {
            let jobs = self.jobs(namespace);
            let job = within(REQUEST, jobs.get_opt(name)).await?;
            Ok(job.map_or(Found::Nothing, |job| self.found(&job)))
        }
        .boxed()
    }

    fn pods<'a>(&'a self, namespace: &'a str, job_uid: &'a str) -> Answer<'a, Vec<PodSeen>> {
        async move {
            let of_job = format!("batch.kubernetes.io/controller-uid={job_uid}");
            let params = ListParams::default().labels(&of_job).limit(PAGE);
            let api = self.pods_in(namespace);
            let pods = within(REQUEST, api.list(&params)).await?;
            let seen = pods.items.iter();
            Ok(seen
                .filter_map(|pod| pod_seen(pod, &self.settings))
                .collect())
        }
        .boxed()
    }

    fn complaint<'a>(&'a self, namespace: &'a str, job_uid: &'a str) -> Answer<'a, Option<String>> {
        async move {
            let about = format!("involvedObject.uid={job_uid},type=Warning");
            let params = ListParams::default().fields(&about).limit(PAGE);
            let api = Api::<KubernetesEvent>::namespaced(self.client.clone(), namespace);
            let events = within(REQUEST, api.list(&params)).await?;
            let time = |event: &KubernetesEvent| {
                let last = event.last_timestamp.as_ref().map(|time| time.0);
                last.or_else(|| event.event_time.as_ref().map(|time| time.0))
            };
            let newest = events.items.into_iter().max_by_key(time);
            Ok(newest.map(|event| {
                let reason = event.reason.unwrap_or_default();
                let text = match event.message {
                    Some(message) => format!("{reason}: {message}"),
                    None => reason,
                };
                text.chars().take(LONGEST).collect()
            }))
        }
        .boxed()
    }

    fn create_job<'a>(&'a self, job: &'a Job) -> Answer<'a, JobSeen> {
        async move {
            let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
            let jobs = self.jobs(namespace);
            let job = within(REQUEST, jobs.create(&PostParams::default(), job)).await?;
            // A webhook may have removed the labels, and then it is not ours.
            JobSeen::of(&job, &self.settings).ok_or_else(|| {
                Failure::Refused("something removed the labels of podbeat-server".to_owned())
            })
        }
        .boxed()
    }

    fn create_secret<'a>(&'a self, secret: &'a Secret) -> Answer<'a, String> {
        async move {
            let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
            let secrets = self.secrets_in(namespace);
            let created = within(REQUEST, secrets.create(&PostParams::default(), secret)).await?;
            Ok(created.metadata.uid.unwrap_or_default())
        }
        .boxed()
    }

    fn secret<'a>(&'a self, namespace: &'a str, name: &'a str) -> Answer<'a, Option<SecretSeen>> {
        async move {
            let secrets = self.secrets_in(namespace);
            let secret = within(REQUEST, secrets.get_metadata_opt(name)).await?;
            Ok(secret.and_then(|secret| self.secret_seen(&secret.metadata)))
        }
        .boxed()
    }

    fn secrets<'a>(&'a self, namespace: &'a str) -> Answer<'a, Vec<SecretSeen>> {
        async move {
            let api = self.secrets_in(namespace);
            let mut params = ListParams::default()
                .labels(&selector(&self.settings))
                .limit(PAGE);
            let all = async {
                let mut seen = Vec::new();
                loop {
                    let page = api.list_metadata(&params).await?;
                    let secrets = page.items.iter();
                    seen.extend(secrets.filter_map(|it| self.secret_seen(&it.metadata)));
                    match page.metadata.continue_.filter(|token| !token.is_empty()) {
                        Some(token) => params.continue_token = Some(token),
                        None => return Ok(seen),
                    }
                }
            };
            within(LIST, all).await
        }
        .boxed()
    }

    fn delete_job<'a>(&'a self, namespace: &'a str, name: &'a str, uid: &'a str) -> Answer<'a, ()> {
        async move {
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                preconditions: only(uid),
                ..DeleteParams::default()
            };
            delete(&self.jobs(namespace), name, &params).await
        }
        .boxed()
    }

    fn delete_secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> Answer<'a, ()> {
        async move {
            let params = DeleteParams {
                preconditions: only(uid),
                ..DeleteParams::default()
            };
            delete(&self.secrets_in(namespace), name, &params).await
        }
        .boxed()
    }

    fn log_tail<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        bytes: usize,
    ) -> Answer<'a, Option<String>> {
        async move {
            let params = LogParams {
                container: Some(MAIN.to_owned()),
                tail_lines: Some(LOG_LINES),
                limit_bytes: i64::try_from(bytes).ok(),
                ..LogParams::default()
            };
            let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
            match within(REQUEST, pods.logs(pod, &params)).await {
                Ok(text) => Ok(Some(text)),
                // The container has not started, or the pod is gone.
                Err(Failure::Invalid(_) | Failure::Refused(_)) => Ok(None),
                Err(failure) => Err(failure),
            }
        }
        .boxed()
    }

    fn watch(&self) -> BoxStream<'static, Change> {
        let namespaces = self.settings.namespaces();
        let streams = namespaces.into_iter().flat_map(|namespace| {
            [
                self.watch_jobs(namespace.to_owned()),
                self.watch_pods(namespace.to_owned()),
            ]
        });
        stream::select_all(streams).boxed()
    }
}

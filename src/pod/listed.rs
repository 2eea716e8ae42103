//! Pods by a label selector, for whoever looks after many of them at once. On kube's client, as the watch is.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::time::timeout;

use super::resource::{Pod, or_default, readable_time};
use super::watch::{self, Access};

/// One page of a list.
const REQUEST: Duration = Duration::from_secs(30);

/// Pods on a page: at 16 KB each, 1.6 MB.
const PAGE: u32 = 100;

/// Pages, after which an API server that has ever another one is not believed any more: a million pods.
const MOST_PAGES: usize = 10_000;

/// A pod, and what only those read who look at it from outside.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// What podbeat reads of any pod.
    pub pod: Pod,
    /// `metadata.creationTimestamp`, in whole seconds.
    pub created_at: Option<Timestamp>,
    containers: Vec<Container>,
}

/// The variables that a container is given word for word. Those from ConfigMaps, Secrets and fields are elsewhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    env: Vec<Variable>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Variable {
    #[serde(deserialize_with = "or_default")]
    name: String,
    value: Option<String>,
}

/// A value may be a secret.
impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Variable").field(&self.name).finish()
    }
}

impl Listed {
    /// `namespace/name`.
    #[must_use]
    pub fn name(&self) -> String {
        let (namespace, name) = (&self.pod.metadata.namespace, &self.pod.metadata.name);
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", part(namespace), part(name))
    }

    /// The value of a container's variable, if the spec gives it word for word and it isn't empty.
    #[must_use]
    pub fn variable(&self, container: &str, name: &str) -> Option<&str> {
        let containers = self.containers.iter().filter(|it| it.name == container);
        let variable = containers
            .flat_map(|container| &container.env)
            // Of two of a name the later holds.
            .rfind(|variable| variable.name == name);
        variable?.value.as_deref().filter(|value| !value.is_empty())
    }

    /// The value of an annotation, unless it is empty.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let annotations: &BTreeMap<String, String> = self.pod.metadata.annotations.as_ref()?;
        annotations
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct More {
            #[serde(deserialize_with = "or_default")]
            metadata: Metadata,
            #[serde(deserialize_with = "or_default")]
            spec: Spec,
        }

        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Metadata {
            #[serde(deserialize_with = "readable_time")]
            creation_timestamp: Option<Timestamp>,
        }

        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Spec {
            #[serde(deserialize_with = "or_default")]
            containers: Vec<Container>,
            #[serde(deserialize_with = "or_default")]
            init_containers: Vec<Container>,
        }

        // Read twice, so that the agent's own slice of a pod needn't grow.
        let value = Value::deserialize(deserializer)?;
        let unreadable = serde::de::Error::custom;
        let pod = Pod::deserialize(&value).map_err(unreadable)?;
        let more = More::deserialize(&value).map_err(unreadable)?;
        let (mut containers, init) = (more.spec.containers, more.spec.init_containers);
        containers.extend(init);
        Ok(Self {
            pod,
            created_at: more.metadata.creation_timestamp,
            containers,
        })
    }
}

impl k8s_openapi::Resource for Listed {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = k8s_openapi::NamespaceResourceScope;
}

impl k8s_openapi::Metadata for Listed {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.pod.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.pod.metadata
    }
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
            Self::Setup(_) | Self::Timeout { .. } | Self::Endless { .. } => None,
        }
    }
}

/// All pods that a label selector chooses; without one all pods.
///
/// # Errors
/// The client can't be set up, or the API server refused, failed or didn't answer in time.
pub async fn list(access: &Access, place: &Where, labels: Option<&str>) -> Result<Vec<Listed>, Error> {
    let watch::Reached {
        client,
        namespace: default,
        ..
    } = watch::reach(access).await?;
    let (api, place): (Api<Listed>, String) = match place {
        Where::Default => (
            Api::namespaced(client, &default),
            format!("in namespace {default}"),
        ),
        Where::Namespace(name) => (Api::namespaced(client, name), format!("in namespace {name}")),
        Where::Everywhere => (Api::all(client), "in all namespaces".to_owned()),
    };
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = labels.map(str::to_owned);
    let mut pods = Vec::new();
    for _ in 0..MOST_PAGES {
        let answer = timeout(REQUEST, api.list(&params)).await;
        let page = answer
            .map_err(|_| Error::Timeout { place: place.clone() })?
            .map_err(|source| Error::Api {
                place: place.clone(),
                hint: hint(&source),
                source: Box::new(source),
            })?;
        pods.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            None => return Ok(pods),
            more => params.continue_token = more,
        }
    }
    Err(Error::Endless { place })
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
        _ => "the API server can't be reached or broke off",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_read_beside_the_agents_slice() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2026-11-24T00:00:00Z",
                         "annotations": {"a": "1", "empty": ""}},
            "spec": {
                "containers": [{"name": "main", "env": [{"name": "A", "value": "main's"}]}],
                "initContainers": [{"name": "podbeat", "env": [
                    {"name": "A", "value": "first"}, {"name": "A", "value": "hunter2"},
                    {"name": "FROM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "EMPTY", "value": ""}]}, {"name": "bare"}]
            }
        });
        let listed: Listed = serde_json::from_value(pod).expect("a pod");
        assert_eq!(listed.name(), "n/p");
        assert!(listed.created_at.is_some());
        assert_eq!(listed.variable("podbeat", "A"), Some("hunter2"));
        assert_eq!(listed.variable("main", "A"), Some("main's"));
        for unknown in ["FROM", "EMPTY", "NOWHERE"] {
            assert_eq!(listed.variable("podbeat", unknown), None);
        }
        assert_eq!(
            (listed.annotation("a"), listed.annotation("empty")),
            (Some("1"), None)
        );
        assert_eq!(listed.pod.spec.init_containers.len(), 2);
        assert!(!format!("{listed:?}").contains("hunter2"), "{listed:?}");
        let nothing: Listed =
            serde_json::from_value(json!({"metadata": null, "spec": {"containers": null}})).expect("a pod");
        assert_eq!(nothing.name(), "/");
    }
}

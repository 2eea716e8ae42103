//! The scenarios' operations on the API server: namespaces, rights, tokens, pods and their
//! statuses.

use std::time::Duration;

use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Error;
use crate::cluster::{get, kube_error};

/// One namespace, with the service account `podbeat`.
#[derive(Clone)]
pub struct Namespace {
    client: Client,
    /// The namespace's name.
    pub name: String,
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespace")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Namespace {
    /// Creates a namespace and its service account, without any rights.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create(client: Client, name: &str) -> Result<Self, Error> {
        let namespace = Self {
            client,
            name: name.to_owned(),
        };
        namespace
            .send(
                "POST",
                "/api/v1/namespaces",
                &json!({"metadata": {"name": name}}),
            )
            .await?;
        let account = json!({"metadata": {"name": "podbeat"}});
        namespace
            .send("POST", &namespace.core("serviceaccounts"), &account)
            .await?;
        Ok(namespace)
    }

    /// An existing namespace, with its current content.
    #[must_use]
    pub fn existing(client: Client, name: &str) -> Self {
        Self {
            client,
            name: name.to_owned(),
        }
    }

    /// Grants the service account get, list and watch of this one pod.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn grant(&self, pod: &str) -> Result<(), Error> {
        self.grant_pods(&format!("podbeat-{pod}"), &json!({"resourceNames": [pod]}))
            .await
    }

    /// Grants the service account only these verbs on this one pod.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn grant_only(&self, verbs: &[&str], pod: &str) -> Result<(), Error> {
        let to = json!({"resourceNames": [pod], "verbs": verbs});
        self.grant_pods(&format!("{}-{pod}", verbs.join("-")), &to)
            .await
    }

    /// Grants the service account get, list and watch of every pod of the namespace, because a Job
    /// generates its pods' names.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn grant_all(&self) -> Result<(), Error> {
        self.grant_pods("podbeat", &json!({})).await
    }

    async fn grant_pods(&self, name: &str, to: &Value) -> Result<(), Error> {
        let rbac = format!(
            "/apis/rbac.authorization.k8s.io/v1/namespaces/{}",
            self.name
        );
        let mut rule =
            json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]});
        if let (Some(rule), Some(to)) = (rule.as_object_mut(), to.as_object()) {
            rule.extend(to.clone());
        }
        let role = json!({"metadata": {"name": name}, "rules": [rule]});
        self.send("POST", &format!("{rbac}/roles"), &role).await?;
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "podbeat", "namespace": self.name}]});
        self.send("POST", &format!("{rbac}/rolebindings"), &binding)
            .await?;
        Ok(())
    }

    /// Creates an object of the core group, for example of the resource `secrets`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create_in(&self, resource: &str, object: &Value) -> Result<Value, Error> {
        self.send("POST", &self.core(resource), object).await
    }

    /// Creates a Job.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create_job(&self, job: &Value) -> Result<(), Error> {
        self.send("POST", &self.batch("jobs"), job).await?;
        Ok(())
    }

    /// Enforces the Pod Security level restricted.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn restrict(&self) -> Result<(), Error> {
        let labels =
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let path = format!("/api/v1/namespaces/{}", self.name);
        self.send("PATCH", &path, &labels).await?;
        Ok(())
    }

    /// The name of the first object of a resource, such as `pods` or `jobs`, with these labels.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn first(&self, resource: &str, labels: &str) -> Result<Option<String>, Error> {
        let path = match resource {
            "jobs" => self.batch(resource),
            _ => self.core(resource),
        };
        let encoded = labels.replace('=', "%3D");
        let list = self
            .read(&format!("{path}?labelSelector={encoded}"))
            .await?;
        let name = list.pointer("/items/0/metadata/name");
        Ok(name.and_then(Value::as_str).map(str::to_owned))
    }

    /// Deletes an object of the core group, such as `resourcequotas/NAME`.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete_in(&self, object: &str) -> Result<(), Error> {
        self.send("DELETE", &self.core(object), &json!({})).await?;
        Ok(())
    }

    /// An object of the core group, such as `secrets/NAME`.
    ///
    /// # Errors
    /// The API server refuses, or there is no such object.
    pub async fn object(&self, object: &str) -> Result<Value, Error> {
        self.read(&self.core(object)).await
    }

    /// Deletes a Job and its pods.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete_job(&self, name: &str) -> Result<(), Error> {
        let options = json!({"propagationPolicy": "Background"});
        let path = self.batch(&format!("jobs/{name}"));
        self.send("DELETE", &path, &options).await?;
        Ok(())
    }

    /// Suspends or resumes a Job.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn suspend_job(&self, name: &str, suspend: bool) -> Result<(), Error> {
        let path = self.batch(&format!("jobs/{name}"));
        self.send("PATCH", &path, &json!({"spec": {"suspend": suspend}}))
            .await?;
        Ok(())
    }

    /// A Job's current object.
    ///
    /// # Errors
    /// The API server refuses, or there is no such Job.
    pub async fn job(&self, name: &str) -> Result<Value, Error> {
        self.read(&self.batch(&format!("jobs/{name}"))).await
    }

    /// Requests a pod's eviction, as a drain does.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn evict(&self, pod: &str) -> Result<(), Error> {
        let eviction =
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
        self.send(
            "POST",
            &self.core(&format!("pods/{pod}/eviction")),
            &eviction,
        )
        .await?;
        Ok(())
    }

    /// Sets members of a pod, such as an annotation.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch_pod(&self, pod: &str, patch: &Value) -> Result<(), Error> {
        self.send("PATCH", &self.core(&format!("pods/{pod}")), patch)
            .await?;
        Ok(())
    }

    /// Requests the deletion of the namespace and its content.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete(&self) -> Result<(), Error> {
        let path = format!("/api/v1/namespaces/{}", self.name);
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
        self.send("DELETE", &path, &options).await?;
        Ok(())
    }

    /// Creates the objects of YAML documents, as `kubectl apply` would: Roles and RoleBindings.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn apply(&self, documents: &str) -> Result<(), Error> {
        for document in documents.split("---\n") {
            let kind = if document.contains("kind: RoleBinding\n") {
                "rolebindings"
            } else {
                "roles"
            };
            let path = format!(
                "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{kind}",
                self.name
            );
            self.send_as("POST", &path, "application/yaml", document.to_owned())
                .await?;
        }
        Ok(())
    }

    /// Requests a token of the service account.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn token(&self) -> Result<String, Error> {
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                             "spec": {"expirationSeconds": 3600}});
        let answer = self
            .send(
                "POST",
                &self.core("serviceaccounts/podbeat/token"),
                &request,
            )
            .await?;
        text(&answer, "/status/token")
    }

    /// Creates a pod and returns its UID.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn create_pod(&self, pod: &Value) -> Result<String, Error> {
        let created = self.send("POST", &self.core("pods"), pod).await?;
        text(&created, "/metadata/uid")
    }

    /// Sets a pod's status, as the kubelet does: through the status subresource.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn set_status(&self, pod: &str, status: &Value) -> Result<(), Error> {
        let path = self.core(&format!("pods/{pod}/status"));
        self.send("PATCH", &path, &json!({"status": status}))
            .await?;
        Ok(())
    }

    /// Requests a pod's deletion. 0 removes it at once, as the kubelet does in the end.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn delete_pod(&self, pod: &str, grace_seconds: u32) -> Result<(), Error> {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace_seconds});
        self.send("DELETE", &self.core(&format!("pods/{pod}")), &options)
            .await?;
        Ok(())
    }

    /// A pod's current object.
    ///
    /// # Errors
    /// The API server refuses, or there is no such pod.
    pub async fn pod(&self, pod: &str) -> Result<Value, Error> {
        self.read(&self.core(&format!("pods/{pod}"))).await
    }

    async fn read(&self, path: &str) -> Result<Value, Error> {
        self.client
            .request(get(path))
            .await
            .map_err(|error| kube_error(&format!("GET {path}"), error))
    }

    fn batch(&self, rest: &str) -> String {
        format!("/apis/batch/v1/namespaces/{}/{rest}", self.name)
    }

    fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.name)
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Error> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        self.send_as(method, path, kind, body.to_string()).await
    }

    async fn send_as(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: String,
    ) -> Result<Value, Error> {
        send_as(&self.client, method, path, kind, body).await
    }
}

/// Creates the priority level and the flow schema of a manifest. Returns the flow schema's UID once
/// the API server applies it to the requests of `asks` for the pods of `namespace`.
///
/// # Errors
/// The API server refuses, or doesn't apply the flow schema in time.
pub async fn apply_flow_schema(
    admin: &Client,
    documents: &str,
    asks: &Client,
    namespace: &str,
) -> Result<String, Error> {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut uid = String::new();
    for document in documents.split("\n---\n") {
        let kind = if document.contains("kind: FlowSchema\n") {
            "flowschemas"
        } else {
            "prioritylevelconfigurations"
        };
        let path = format!("/apis/flowcontrol.apiserver.k8s.io/v1/{kind}");
        let created = send_as(
            admin,
            "POST",
            &path,
            "application/yaml",
            document.to_owned(),
        )
        .await?;
        if kind == "flowschemas" {
            uid = text(&created, "/metadata/uid")?;
        }
    }
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let begun = Instant::now();
    loop {
        let found = flow_schema_of(asks, &pods).await?;
        if found == uid {
            return Ok(uid);
        }
        if begun.elapsed() > LIMIT {
            let what = format!("GET {pods} belongs to the flow schema {found}, not to {uid}");
            return Err(Error::Unexpected(what));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The UID of the flow schema that the API server applies to a GET, whatever the answer's status.
///
/// # Errors
/// There is no answer, or it doesn't name a flow schema.
pub async fn flow_schema_of(client: &Client, path: &str) -> Result<String, Error> {
    const HEADER: &str = "x-kubernetes-pf-flowschema-uid";
    let answer = client.send(get(path).map(Body::from)).await;
    let answer = answer.map_err(|error| kube_error(&format!("GET {path}"), error))?;
    let uid = answer
        .headers()
        .get(HEADER)
        .and_then(|uid| uid.to_str().ok());
    uid.map(str::to_owned)
        .ok_or_else(|| Error::Unexpected(format!("the answer to GET {path} names no flow schema")))
}

async fn send_as(
    client: &Client,
    method: &str,
    path: &str,
    kind: &str,
    body: String,
) -> Result<Value, Error> {
    let what = format!("{method} {path}");
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, kind)
        .body(body.into_bytes())
        .map_err(|error| kube_error(&what, error))?;
    client
        .request(request)
        .await
        .map_err(|error| kube_error(&what, error))
}

fn text(value: &Value, path: &str) -> Result<String, Error> {
    let text = value.pointer(path).and_then(Value::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| Error::Unexpected(format!("the API server's answer has no {path}: {value}")))
}

/// A pod to create, modeled after the first event of a capture. It has the same containers and
/// policies, without volumes and without what the API server and the kubelet set.
#[must_use]
pub fn pod_like(captured: &Value, name: &str) -> Value {
    let containers = |path: &str| -> Vec<Value> {
        let containers = captured
            .pointer(path)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let keep = ["name", "image", "restartPolicy"];
        let slim = |container: Value| -> Value {
            let members = container.as_object().cloned().unwrap_or_default();
            Value::Object(
                members
                    .into_iter()
                    .filter(|(member, _)| keep.contains(&member.as_str()))
                    .collect(),
            )
        };
        containers.into_iter().map(slim).collect()
    };
    json!({
        "metadata": {"name": name, "labels": {"app": "task"}},
        "spec": {
            "serviceAccountName": "podbeat",
            "nodeName": "e2e-node",
            "restartPolicy": captured.pointer("/spec/restartPolicy").cloned().unwrap_or_default(),
            "terminationGracePeriodSeconds":
                captured.pointer("/spec/terminationGracePeriodSeconds").cloned().unwrap_or_default(),
            "initContainers": containers("/spec/initContainers"),
            "containers": containers("/spec/containers"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_like_a_captured_one_keeps_what_matters() {
        let captured = json!({"metadata": {"uid": "u"}, "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 9,
            "initContainers": [{"name": "hb", "image": "i", "restartPolicy": "Always", "volumeMounts": []}],
            "containers": [{"name": "main", "image": "i", "env": []}], "volumes": []}});
        let pod = pod_like(&captured, "p");
        assert_eq!(
            pod.pointer("/spec/initContainers/0"),
            Some(&json!({"name": "hb", "image": "i", "restartPolicy": "Always"}))
        );
        assert_eq!(
            pod.pointer("/spec/containers/0"),
            Some(&json!({"name": "main", "image": "i"}))
        );
        assert_eq!(
            pod.pointer("/spec/terminationGracePeriodSeconds"),
            Some(&json!(9))
        );
        assert_eq!(pod.pointer("/metadata/uid"), None);
    }
}

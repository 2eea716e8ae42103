//! Single questions to the API server, each with its own deadline: its version, our account, our
//! rights, a pod.
//!
//! Like the watch, this module uses kube's client. It reads the responses itself, because it needs
//! their `Date`.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, DATE};
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use podbeat_files::trimmed;
use podbeat_heartbeat::observation::JobPod;
use podbeat_http_client::route::{self, Route};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::access::{Access, reach};
use super::error::{Error, Refusal};
use super::resource::{Pod, or_default};
use super::role::Account;
use super::{answer, listed};

/// The API server's version.
#[derive(Clone, Debug)]
pub struct Version {
    /// For example `v1.37.0`.
    pub git_version: String,
    /// The `Date` of the response, unchanged.
    pub date: Option<String>,
}

/// Asks questions to one API server.
#[derive(Clone)]
pub struct Questions {
    client: Client,
    route: Route,
    namespace: String,
    limit: Duration,
}

impl Questions {
    /// Creates a client without sending anything. Without a namespace, that of the kubeconfig is
    /// used. Each question may take `limit`.
    ///
    /// This function reads files, and may run the kubeconfig's credential plugin. Do not call it on
    /// a thread that must not wait.
    ///
    /// # Errors
    /// The kubeconfig, the address, the CA or the credentials can't be used.
    pub async fn new(
        access: &Access,
        namespace: Option<&str>,
        limit: Duration,
    ) -> Result<Self, Error> {
        let reached = reach(access).await?;
        Ok(Self {
            client: reached.client,
            route: reached.route,
            namespace: namespace.map_or(reached.namespace, str::to_owned),
            limit,
        })
    }

    /// The API server's URL, without secrets.
    #[must_use]
    pub fn server(&self) -> String {
        route::shown(self.route.url())
    }

    /// The way to the API server.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The namespace of the pods.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks for the API server's version.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn version(&self) -> Result<Version, Error> {
        const ASKED: &str = "getting the API server's version";
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Said {
            #[serde(deserialize_with = "or_default")]
            git_version: String,
        }
        let answer = self
            .ask(ASKED, Method::GET, "/version", None, answer::SMALL)
            .await?;
        let said: Said = answer.read(ASKED)?;
        Ok(Version {
            git_version: said.git_version,
            date: answer.date,
        })
    }

    /// Asks who we are (`SelfSubjectReview`, Kubernetes 1.28 and later).
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn account(&self) -> Result<Account, Error> {
        const ASKED: &str = "getting podbeat's user (SelfSubjectReview)";
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let said: Value = self
            .ask(ASKED, Method::POST, path, Some(&body), answer::SMALL)
            .await?
            .read(ASKED)?;
        let user = said
            .pointer("/status/userInfo/username")
            .and_then(Value::as_str)
            .ok_or_else(|| unreadable(ASKED))?;
        Ok(Account::named(user))
    }

    /// Asks whether we may use this verb on the pod of that name in the namespace
    /// (`SelfSubjectAccessReview`). A Role can be restricted to one pod with resourceNames.
    /// Kubernetes authorizes lists and watches with the field selector metadata.name for that name.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn may(&self, verb: &str, pod: &str) -> Result<bool, Error> {
        const ASKED: &str = "getting podbeat's permissions (SelfSubjectAccessReview)";
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": verb, "group": "", "version": "v1", "resource": "pods",
                "namespace": self.namespace, "name": pod}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let said: Value = self
            .ask(ASKED, Method::POST, path, Some(&body), answer::SMALL)
            .await?
            .read(ASKED)?;
        said.pointer("/status/allowed")
            .and_then(Value::as_bool)
            .ok_or_else(|| unreadable(ASKED))
    }

    /// Gets the pod of that name in the namespace. `None` if it does not exist.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn pod(&self, name: &str) -> Result<Option<Pod>, Error> {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}",
            encoded(&self.namespace),
            encoded(name)
        );
        const ASKED: &str = "getting the pod";
        match self
            .ask(ASKED, Method::GET, &path, None, answer::LARGEST)
            .await
        {
            Ok(answer) => answer.read(ASKED).map(Some),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts the pods of the same Job that failed before this one. `None` if the count is unknown.
    ///
    /// # Errors
    /// The API server refused, failed or did not respond in time.
    pub async fn retries(&self, job: &JobPod) -> Result<Option<i32>, Error> {
        const ASKED: &str = "listing the pods of the Job";
        match timeout(
            self.limit,
            listed::retries(&self.client, &self.namespace, job),
        )
        .await
        {
            Ok(count) => {
                count.map_err(|error| Error::of(ASKED.to_owned(), Some(&self.namespace), error))
            }
            Err(_) => Err(self.timeout(ASKED)),
        }
    }

    fn timeout(&self, asked: &'static str) -> Error {
        Error::Timeout {
            request: asked.to_owned(),
            after: self.limit,
        }
    }

    /// Sends one request. Returns a successful response of at most `most` bytes.
    async fn ask(
        &self,
        asked: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        most: usize,
    ) -> Result<Answer, Error> {
        let exchange = async {
            let body = body.map(Value::to_string).unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(ACCEPT, "application/json")
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body.into_bytes()))
                .map_err(kube::Error::HttpError);
            let failed = |error: kube::Error| {
                Error::of(asked.to_owned(), Some(&self.namespace), error.into())
            };
            let response = self
                .client
                .send(request.map_err(failed)?)
                .await
                .map_err(failed)?;
            let status = response.status().as_u16();
            let date = response.headers().get(DATE);
            let date = date.and_then(|date| date.to_str().ok()).map(str::to_owned);
            let is_good = (200..300).contains(&status);
            let most = if is_good { most } else { answer::SMALL };
            let body = answer::whole(&mut response.into_body(), most).await.ok();
            let answer = body.map(|body| Answer { body, date });
            if !is_good {
                // The status decides, even if the body can't be read.
                let said = answer.and_then(|answer| answer.read::<Value>(asked).ok());
                let message = said.as_ref().and_then(|said| said.get("message")?.as_str());
                return Err(Error::Refused {
                    request: asked.to_owned(),
                    namespace: Some(self.namespace.clone()),
                    refusal: Refusal {
                        status,
                        message: message.unwrap_or_default().to_owned(),
                        ..Refusal::default()
                    },
                });
            }
            answer.ok_or_else(|| unreadable(asked))
        };
        timeout(self.limit, exchange)
            .await
            .unwrap_or_else(|_| Err(self.timeout(asked)))
    }
}

/// A response with a status of 2xx.
struct Answer {
    body: Vec<u8>,
    date: Option<String>,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self, asked: &'static str) -> Result<T, Error> {
        serde_json::from_slice(trimmed::bytes(&self.body)).map_err(|_| unreadable(asked))
    }
}

/// The error contains no part of the response.
fn unreadable(asked: &'static str) -> Error {
    Error::Unreadable {
        request: asked.to_owned(),
        source: None,
    }
}

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

use super::resource::{Pod, or_default};
use super::role::Account;
use super::watch::{self, Access};
use super::{answer, listed};

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client can't be set up.
    #[error(transparent)]
    Setup(#[from] watch::Error),
    /// The API server refused the request.
    #[error("{asked}: the API server answered {status}{}", told(.message))]
    Refused {
        /// The question.
        asked: &'static str,
        /// The HTTP status.
        status: u16,
        /// The API server's explanation, if it was readable.
        message: String,
    },
    /// The response is not what Kubernetes sends.
    #[error("{asked}: the answer is not a Kubernetes API answer")]
    Unreadable {
        /// The question.
        asked: &'static str,
    },
    /// There was no connection, or it broke off.
    #[error("{asked}: the API server is unreachable, or the connection closed early")]
    Unreachable {
        /// The question.
        asked: &'static str,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// There was no response in time.
    #[error("{asked}: no answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// The question.
        asked: &'static str,
        /// The limit.
        after: Duration,
    },
}

fn told(message: &str) -> String {
    const LONGEST: usize = 300;
    match message.trim() {
        "" => String::new(),
        message => format!(": {}", message.chars().take(LONGEST).collect::<String>()),
    }
}

impl Error {
    /// The HTTP status of the API server's refusal, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Setup(_) | Self::Unreadable { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => {
                None
            }
        }
    }
}

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
    pub async fn new(access: &Access, namespace: Option<&str>, limit: Duration) -> Result<Self, Error> {
        let reached = watch::reach(access).await?;
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
            .ok_or(Error::Unreadable { asked: ASKED })?;
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
            .ok_or(Error::Unreadable { asked: ASKED })
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
        match self.ask(ASKED, Method::GET, &path, None, answer::LARGEST).await {
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
        let count = timeout(self.limit, listed::retries(&self.client, &self.namespace, job)).await;
        let count = count.map_err(|_| Error::Timeout {
            asked: ASKED,
            after: self.limit,
        })?;
        count.map_err(|error| match error {
            answer::Error::Kube(kube::Error::Api(status)) => Error::Refused {
                asked: ASKED,
                status: status.code,
                message: status.message,
            },
            answer::Error::Kube(kube::Error::SerdeError(_)) | answer::Error::TooLarge(_) => {
                Error::Unreadable { asked: ASKED }
            }
            answer::Error::Kube(source) => Error::Unreachable {
                asked: ASKED,
                source: Box::new(source),
            },
        })
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
            let unreachable = |source| match source {
                // There are no new credentials. The text of the error may contain a secret.
                #[cfg(feature = "kubeconfig")]
                source @ kube::Error::Auth(_) => Error::Setup(super::kubeconfig::setup(source).into()),
                source => Error::Unreachable {
                    asked,
                    source: Box::new(source),
                },
            };
            let response = self
                .client
                .send(request.map_err(unreachable)?)
                .await
                .map_err(unreachable)?;
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
                    asked,
                    status,
                    message: message.unwrap_or_default().to_owned(),
                });
            }
            answer.ok_or(Error::Unreadable { asked })
        };
        let limit = self.limit;
        timeout(limit, exchange)
            .await
            .unwrap_or(Err(Error::Timeout { asked, after: limit }))
    }
}

/// A response with a status of 2xx.
struct Answer {
    body: Vec<u8>,
    date: Option<String>,
}

impl Answer {
    fn read<T: DeserializeOwned>(&self, asked: &'static str) -> Result<T, Error> {
        serde_json::from_slice(trimmed::bytes(&self.body)).map_err(|_| Error::Unreadable { asked })
    }
}

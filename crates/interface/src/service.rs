//! How a command reaches the task-run service: the settings, the client and the token that they
//! produce, and the exit codes for the service's errors.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_heartbeat::answer::Answer;
use podbeat_http_client::route::{self, PlainHttp, Route};
use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::credentials::{Credentials, Source};
use podbeat_task_runs::error::{Error, Operation};
use podbeat_task_runs::model::{CreateTaskRunRequest, TaskRun, TaskRunStatus};
use url::Url;

use crate::environment::{Environment, Flags};
use crate::exit::Ending;
use crate::reader::{Errors, Reader};
use crate::setting::{
    ALLOW_HTTP, CA_FILE, CLIENT_CERT_FILE, CLIENT_KEY_FILE, REQUEST_TIMEOUT, SERVICE_SETTINGS,
    SERVICE_URL, TOKEN, TOKEN_FILE,
};

/// The checked settings with which a command reaches the task-run service.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// The service.
    pub service_url: ServiceUrl,
    /// Where the token comes from.
    pub token: Source,
    /// The CA certificates for the service. `None` for the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The certificate and the key for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The limit for one request, from 100 ms to 5 min.
    pub timeout: Duration,
}

/// The service's base URL and the route to it. The URL is https or allowed http, without
/// credentials, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl(Route);

impl ServiceUrl {
    /// The route to the service.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.0
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.url().fmt(f)
    }
}

impl ServiceConfig {
    /// Reads and checks the settings of `podbeat runs`.
    ///
    /// # Errors
    /// All missing or malformed settings together, by name. No error contains the value of a
    /// secret.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(SERVICE_SETTINGS, flags, environment);
        match Self::read(&mut read) {
            Some(config) => read.done(config),
            // The missing settings are among the faults.
            None => Err(read.errors()),
        }
    }

    /// How to reach the service. `None` if the URL or the token is missing or malformed.
    pub fn read(read: &mut Reader<'_, impl Environment>) -> Option<Self> {
        let (service_url, token) = (read.service_url(true), read.token(false));
        let (certificate, key) = read.identity();
        let timeout = read.get(&REQUEST_TIMEOUT);
        Some(Self {
            service_url: service_url?,
            token: token?,
            ca_file: read.optional(&CA_FILE),
            identity: certificate.zip(key),
            timeout,
        })
    }
}

impl<E: Environment> Reader<'_, E> {
    /// The base URL of the service and the route to it. `None` if it is missing or malformed.
    pub fn service_url(&mut self, required: bool) -> Option<ServiceUrl> {
        let allow_http = self.get(&ALLOW_HTTP);
        let url = self.required_if(
            required,
            &SERVICE_URL,
            "the base URL of the task-run service, such as https://ica.example.com",
            |text| service_url(&text, allow_http),
        )?;
        let plain_http = match allow_http {
            true => PlainHttp::Anywhere,
            false => PlainHttp::Loopback,
        };
        match self.proxies().route(url, plain_http) {
            Ok(route) => Some(ServiceUrl(route)),
            Err(error) => {
                let (variable, problem) = match error {
                    route::Error::Proxy { named_by, problem } => (named_by, problem.to_string()),
                    route::Error::NotAUrl => (SERVICE_URL.row.variable, error.to_string()),
                };
                self.fault_of(variable, problem);
                None
            }
        }
    }

    /// The certificate and the key for mutual TLS: both or neither.
    pub fn identity(&mut self) -> (Option<PathBuf>, Option<PathBuf>) {
        self.both_or_neither(&CLIENT_CERT_FILE, &CLIENT_KEY_FILE)
    }

    /// Where the bearer token comes from. `None` if no setting has it, or two settings conflict.
    pub fn token(&mut self, dry_run: bool) -> Option<Source> {
        let file = self.optional(&TOKEN_FILE);
        let given = self.is_set(&TOKEN);
        let inline = self.optional(&TOKEN);
        match (file, inline) {
            (Some(_), _) if given => {
                self.fault(
                    &TOKEN,
                    "conflicts with PODBEAT_TOKEN_FILE; unset one of them",
                );
                None
            }
            (Some(file), _) => Some(Source::File(file)),
            (None, Some(token)) => Some(Source::Inline(token)),
            (None, None) => {
                if !dry_run && !given {
                    self.fault(
                        &TOKEN_FILE,
                        "missing; set it to a file with the bearer token, or set PODBEAT_TOKEN",
                    );
                }
                None
            }
        }
    }
}

/// A base URL of the service.
///
/// # Errors
/// The reason why the URL is invalid. The reason never repeats the URL.
pub fn service_url(text: &str, allow_http: bool) -> Result<Url, String> {
    // A URL with credentials is a secret as a whole, so the error does not contain any of it.
    let has_credentials = text.split(['/', '?', '#']).any(|part| part.contains('@'));
    if has_credentials {
        return Err(NO_CREDENTIALS.to_owned());
    }
    let url: Url = text
        .parse()
        .map_err(|_| route::Error::NotAUrl.to_string())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_http || route::is_loopback(&url) => {}
        "http" => {
            return Err(format!(
                "must be https; http would send the token unencrypted{HTTP_IS_ALLOWED_BY}"
            ));
        }
        _ => return Err("must be an https URL".to_owned()),
    }
    Ok(url)
}

/// How to allow plain HTTP, for errors of settings.
pub const HTTP_IS_ALLOWED_BY: &str = " (PODBEAT_ALLOW_HTTP=true allows it)";

const NO_CREDENTIALS: &str =
    "contains credentials; remove the user and the password, and use PODBEAT_TOKEN_FILE";

/// The service and its credentials.
#[derive(Debug)]
pub struct Service {
    client: Client,
    credentials: Credentials,
    timeout: Duration,
}

impl Service {
    /// Sets up the client. It does not connect yet.
    ///
    /// # Errors
    /// A certificate or a key cannot be read.
    pub fn new(config: &ServiceConfig) -> Result<Self, Error> {
        let tls = Tls {
            ca_file: config.ca_file.clone(),
            identity: config.identity.clone(),
        };
        Ok(Self {
            client: Client::new(config.service_url.route().clone(), &tls, config.timeout)?,
            credentials: Credentials::new(config.token.clone(), None),
            timeout: config.timeout,
        })
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The time limit of one request.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The current token. Its file can change while a command runs.
    ///
    /// # Errors
    /// The file cannot be read, or has no token.
    pub fn token(&mut self) -> Result<Secret, Error> {
        Ok(self.credentials.token()?)
    }

    /// Gets the status of a run. `None` if the run has none.
    ///
    /// # Errors
    /// The errors of [`Client::status`] and [`Service::token`].
    pub async fn status(&mut self, run_id: &str) -> Result<Option<TaskRunStatus>, Error> {
        let token = self.token()?;
        self.client.status(run_id, &token, self.timeout).await
    }

    /// Gets a run without its secrets, within `limit` and the timeout of one request.
    ///
    /// # Errors
    /// The errors of [`Client::get`] and [`Service::token`].
    pub async fn get(&mut self, run_id: &str, limit: Duration) -> Result<TaskRun, Error> {
        let token = self.token()?;
        let mut found = self
            .client
            .get(run_id, &token, limit.min(self.timeout))
            .await?;
        found.redact();
        Ok(found)
    }

    /// Creates a run, and returns it without its secrets.
    ///
    /// # Errors
    /// The errors of [`Client::create`] and [`Service::token`].
    pub async fn create(&mut self, request: &CreateTaskRunRequest) -> Result<TaskRun, Error> {
        let token = self.token()?;
        let mut created = self.client.create(request, &token, self.timeout).await?;
        created.redact();
        Ok(created)
    }
}

/// What the result of a heartbeat's attempt means.
#[must_use]
pub fn answer(error: &Error) -> Answer {
    match error {
        Error::Status {
            status,
            retry_after,
            ..
        } => Answer::from_status(*status, *retry_after),
        // Heartbeats have no unreadable response: they are accepted by their status.
        Error::Ambiguous { .. } | Error::Unreadable { .. } | Error::Endless { .. } => {
            Answer::Ambiguous
        }
        Error::Token(_)
        | Error::Unfit { .. }
        | Error::Connect { .. }
        | Error::Setup(_)
        | Error::File { .. }
        | Error::NotInFile { .. } => Answer::NotSent,
    }
}

/// The ending of a process whose request failed with this error.
#[must_use]
pub fn ending(error: &Error) -> Ending {
    match error {
        Error::Setup(_) | Error::File { .. } | Error::NotInFile { .. } | Error::Token(_) => {
            Ending::Usage
        }
        Error::Unfit { .. } => Ending::Refused,
        Error::Connect { .. } | Error::Ambiguous { .. } => Ending::Unavailable,
        Error::Unreadable { .. } | Error::Endless { .. } => Ending::Misunderstood,
        Error::Status {
            status, operation, ..
        } => match (status, operation) {
            (401 | 403, _) => Ending::Denied,
            (
                404 | 410,
                Operation::Get { .. } | Operation::Abort { .. } | Operation::Heartbeat { .. },
            ) => Ending::NoSuchRun,
            (408 | 425 | 429 | 500..=599, _) => Ending::Unavailable,
            (_, _) => Ending::Refused,
        },
    }
}

//! How a command reaches the task-run service: the client and the token of the settings, and what the service's errors mean
//! for the process.

use std::time::Duration;

use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::credentials::{self, Credentials};
use podbeat_task_runs::error::{Error, Operation};
use podbeat_task_runs::model::TaskRunStatus;

use crate::config::{ServiceConfig, TokenSource};
use crate::exit::Ending;
#[cfg(feature = "laptop")]
use podbeat_task_runs::model::{CreateTaskRunRequest, TaskRun};

/// The service, and what opens it.
#[derive(Debug)]
pub struct Service {
    client: Client,
    credentials: Credentials,
    timeout: Duration,
}

impl Service {
    /// Sets the client up; connects to nothing yet.
    ///
    /// # Errors
    /// A certificate or key is unreadable.
    pub fn new(config: &ServiceConfig) -> Result<Self, Error> {
        let tls = Tls {
            ca_file: config.ca_file.clone(),
            identity: config.identity.clone(),
        };
        let source = match &config.token {
            TokenSource::File(path) => credentials::Source::File(path.clone()),
            TokenSource::Inline(token) => credentials::Source::Inline(token.clone()),
        };
        Ok(Self {
            client: Client::new(config.service_url.route().clone(), &tls, config.timeout)?,
            credentials: Credentials::new(source, None),
            timeout: config.timeout,
        })
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The longest that one request may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The token of the moment: its file may change while a command runs.
    ///
    /// # Errors
    /// The file is unreadable or holds no token.
    pub fn token(&mut self) -> Result<Secret, Error> {
        Ok(self.credentials.token()?)
    }

    /// Gets a run's status, if it has one.
    ///
    /// # Errors
    /// Those of [`Client::status`] and of [`Service::token`].
    pub async fn status(&mut self, run_id: &str) -> Result<Option<TaskRunStatus>, Error> {
        let token = self.token()?;
        self.client.status(run_id, &token, self.timeout).await
    }

    /// Gets a run, without its secrets, in `limit` or in less.
    ///
    /// # Errors
    /// Those of [`Client::get`] and of [`Service::token`].
    #[cfg(feature = "laptop")]
    pub async fn get(&mut self, run_id: &str, limit: Duration) -> Result<TaskRun, Error> {
        let token = self.token()?;
        let mut found = self.client.get(run_id, &token, limit.min(self.timeout)).await?;
        found.redact();
        Ok(found)
    }

    /// Creates a run, and tells of it without its secrets.
    ///
    /// # Errors
    /// Those of [`Client::create`] and of [`Service::token`].
    #[cfg(feature = "laptop")]
    pub async fn create(&mut self, request: &CreateTaskRunRequest) -> Result<TaskRun, Error> {
        let token = self.token()?;
        let mut created = self.client.create(request, &token, self.timeout).await?;
        created.redact();
        Ok(created)
    }
}

/// How the process ends with what became of a request.
#[must_use]
pub fn ending(error: &Error) -> Ending {
    match error {
        Error::Setup(_) | Error::File { .. } | Error::NotInFile { .. } | Error::Token(_) => Ending::Usage,
        Error::Unfit { .. } => Ending::Refused,
        Error::Connect { .. } | Error::Ambiguous { .. } => Ending::Unavailable,
        Error::Unreadable { .. } | Error::Endless { .. } => Ending::Misunderstood,
        Error::Status {
            status, operation, ..
        } => match (status, operation) {
            (401 | 403, _) => Ending::Denied,
            (404 | 410, Operation::Get { .. } | Operation::Abort { .. } | Operation::Heartbeat { .. }) => {
                Ending::NoSuchRun
            }
            (408 | 425 | 429 | 500..=599, _) => Ending::Unavailable,
            (_, _) => Ending::Refused,
        },
    }
}

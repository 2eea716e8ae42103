//! podbeat-server as a process that can be killed, and its clients.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::model::{CreateTaskRunRequest, TaskRun};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::table::Case;
use crate::cluster::spawn;
use crate::{Error, io, ours};

/// How long a request may take, and how long it is repeated while the server is away.
const REQUEST: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(60);

/// A server without tenants has no tokens.
static NO_TOKEN: LazyLock<Secret> = LazyLock::new(|| Secret::new(""));

/// A podbeat-server to start.
#[derive(Clone, Debug)]
pub struct Site {
    /// The program.
    pub program: PathBuf,
    /// The directory with `ca.crt`, `server.crt`, `server.key`, `server.kubeconfig` and
    /// `launch.json`. The data and the log are there, too.
    pub directory: PathBuf,
    /// The address and port.
    pub address: String,
    /// The base URL for agents.
    pub url: String,
    /// A running run without a heartbeat for this long is TimedOut.
    pub heartbeat_timeout: &'static str,
}

impl Site {
    /// A file of the server.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.file("server.log")
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.file(name).display().to_string();
        vec![
            ("PODBEAT_SERVER_LISTEN", self.address.clone()),
            ("PODBEAT_SERVER_URL", self.url.clone()),
            ("PODBEAT_SERVER_CERT_FILE", file("server.crt")),
            ("PODBEAT_SERVER_KEY_FILE", file("server.key")),
            ("PODBEAT_SERVER_DATA", file("podbeat.db")),
            ("PODBEAT_SERVER_LAUNCH_FILE", file("launch.json")),
            ("PODBEAT_SERVER_KUBECONFIG", file("server.kubeconfig")),
            (
                "PODBEAT_SERVER_HEARTBEAT_TIMEOUT",
                self.heartbeat_timeout.to_owned(),
            ),
            ("PODBEAT_SERVER_CREATES_PER_MINUTE", "1000000".to_owned()),
            ("PODBEAT_LOG_FORMAT", "text".to_owned()),
        ]
    }

    fn begin(&self) -> Result<Child, Error> {
        spawn(&self.program, &self.log(), |command| {
            command.env_clear().envs(self.settings());
        })
    }

    /// A new token for the user `e2e` of a tenant.
    async fn token(&self, tenant: &str) -> Result<Secret, Error> {
        let output = Command::new(&self.program)
            .args(["token", "create", "--tenant", tenant, "--user", "e2e"])
            .args(["--role", "user"])
            .env_clear()
            .envs(self.settings())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .await
            .map_err(io(format!("starting {}", self.program.display())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let token = text
            .split_whitespace()
            .find(|word| word.starts_with("pbt_"));
        token
            .map(Secret::new)
            .ok_or_else(|| Error::Unexpected(format!("podbeat-server printed no token: {text}")))
    }
}

/// A running podbeat-server.
pub struct Server {
    site: Site,
    child: Mutex<Child>,
    client: Client,
    /// The tokens of the tenants' user, by tenant.
    tokens: Vec<(&'static str, Secret)>,
    kills: AtomicU32,
}

impl Server {
    /// Creates tokens, starts the server, and waits until it answers.
    ///
    /// # Errors
    /// A program fails.
    pub async fn start(site: Site, tenants: &[&'static str]) -> Result<Self, Error> {
        let mut tokens = Vec::new();
        for tenant in tenants {
            tokens.push((*tenant, site.token(tenant).await?));
        }
        let tls = Tls {
            ca_file: Some(site.file("ca.crt")),
            identity: None,
        };
        let url = format!("https://{}", site.address);
        let route = url.parse().map_err(ours("reading the server's URL"))?;
        let client = Client::new(route, &tls, REQUEST).map_err(ours("creating a client"))?;
        let server = Self {
            child: Mutex::new(site.begin()?),
            site,
            client,
            tokens,
            kills: AtomicU32::new(0),
        };
        server.until_ready().await?;
        Ok(server)
    }

    /// Waits until the server answers.
    ///
    /// # Errors
    /// It does not answer in time.
    pub async fn until_ready(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let query = podbeat_task_runs::model::ListTaskRunsQuery::default();
        loop {
            let token = self.token("");
            match self.client.list(&query, token, REQUEST).await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > AWAY => {
                    return Err(Error::Program {
                        what: format!("podbeat-server is not ready: {error}"),
                        log: crate::tail(&self.site.log()),
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Ends the server with SIGKILL, and starts it again.
    ///
    /// # Errors
    /// It can't be ended or started.
    pub async fn kill_and_restart(&self) -> Result<(), Error> {
        self.kill().await?;
        self.restart().await
    }

    /// Ends the server with SIGKILL.
    ///
    /// # Errors
    /// It can't be ended.
    pub async fn kill(&self) -> Result<(), Error> {
        let mut child = self.child.lock().await;
        child.kill().await.map_err(io("ending podbeat-server"))?;
        self.kills.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Starts a server that was killed.
    ///
    /// # Errors
    /// It can't be started.
    pub async fn restart(&self) -> Result<(), Error> {
        *self.child.lock().await = self.site.begin()?;
        Ok(())
    }

    /// The client of the API.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How often it was killed.
    #[must_use]
    pub fn kills(&self) -> u32 {
        self.kills.load(Ordering::Relaxed)
    }

    /// The token of a tenant's user, or that of the first tenant.
    #[must_use]
    pub fn token(&self, tenant: &str) -> &Secret {
        let own = self.tokens.iter().find(|(of, _)| *of == tenant);
        let first = own.or_else(|| self.tokens.first());
        first.map_or(&NO_TOKEN, |(_, token)| token)
    }

    /// Creates the run of a case, once.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn create(&self, case: &Case) -> Result<TaskRun, Error> {
        let execution = serde_json::from_str(case.execution);
        let request = CreateTaskRunRequest {
            name: Some(case.name.to_owned()),
            execution: Some(execution.map_err(ours(format!("reading {}", case.execution)))?),
            ..CreateTaskRunRequest::default()
        };
        let token = self.token(case.tenant);
        let created = self.client.create(&request, token, REQUEST).await;
        created.map_err(ours(format!("creating {}", case.name)))
    }

    /// Gets a run, also while the server starts again.
    ///
    /// # Errors
    /// The server is away for too long, or refuses.
    pub async fn get(&self, case: &Case, id: &str) -> Result<TaskRun, Error> {
        let begun = Instant::now();
        loop {
            let token = self.token(case.tenant);
            match self.client.get(id, token, REQUEST).await {
                Ok(run) => return Ok(run),
                Err(error) if begun.elapsed() > AWAY => {
                    return Err(ours(format!("getting {}", case.name))(error));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Aborts a run. Returns whether the server answered that it is aborted.
    ///
    /// # Errors
    /// The server refuses.
    pub async fn abort(&self, case: &Case, id: &str) -> Result<bool, Error> {
        let token = self.token(case.tenant);
        match self.client.abort(id, token, REQUEST).await {
            Ok(_) => Ok(true),
            Err(podbeat_task_runs::error::Error::Status { status: 409, .. }) => Err(
                Error::Unexpected(format!("{} ended before it was aborted", case.name)),
            ),
            // Killed, or starting.
            Err(_) => Ok(false),
        }
    }
}

/// The path of podbeat-server, beside this program.
///
/// # Errors
/// The path of this program is not known.
pub fn beside() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(io("looking for this program"))?;
    Ok(own.with_file_name("podbeat-server"))
}

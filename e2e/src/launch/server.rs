//! podbeat-server as a process that can be killed, and its clients.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::model::{CreateTaskRunRequest, TaskRun};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ground::{Ground, NAMESPACE, PORT, QUOTA};
use super::table::Case;
use crate::cluster::spawn;
use crate::network::{TASK_RUNS_HOST, TASK_RUNS_SERVICE};
use crate::{Error, io, ours};

/// How long a request may take, and how long it is repeated while the server is away.
const REQUEST: Duration = Duration::from_secs(10);
const AWAY: Duration = Duration::from_secs(60);

/// A running podbeat-server.
pub struct Server {
    ground: Arc<Ground>,
    child: Mutex<Child>,
    client: Client,
    /// The tokens of the tenants' user.
    tokens: [(&'static str, Secret); 2],
    kills: AtomicU32,
}

impl Server {
    /// Creates tokens, starts the server, and waits until it answers.
    ///
    /// # Errors
    /// A program fails.
    pub async fn start(ground: &Arc<Ground>) -> Result<Self, Error> {
        let one = token(ground, NAMESPACE).await?;
        let other = token(ground, QUOTA).await?;
        let tls = Tls {
            ca_file: Some(ground.file("ca.crt")),
            identity: None,
        };
        let url = format!("https://{TASK_RUNS_SERVICE}:{PORT}");
        let route = url.parse().map_err(ours("reading the server's URL"))?;
        let client = Client::new(route, &tls, REQUEST).map_err(ours("creating a client"))?;
        let server = Self {
            child: Mutex::new(begin(ground)?),
            ground: Arc::clone(ground),
            client,
            tokens: [(NAMESPACE, one), (QUOTA, other)],
            kills: AtomicU32::new(0),
        };
        server.until_ready().await?;
        Ok(server)
    }

    async fn until_ready(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let query = podbeat_task_runs::model::ListTaskRunsQuery::default();
        loop {
            let token = self.token(NAMESPACE);
            match self.client.list(&query, token, REQUEST).await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > AWAY => {
                    return Err(Error::Program {
                        what: format!("podbeat-server is not ready: {error}"),
                        log: crate::tail(&self.ground.log()),
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
        let mut child = self.child.lock().await;
        child.kill().await.map_err(io("ending podbeat-server"))?;
        self.kills.fetch_add(1, Ordering::Relaxed);
        *child = begin(&self.ground)?;
        Ok(())
    }

    /// How often it was killed.
    #[must_use]
    pub fn kills(&self) -> u32 {
        self.kills.load(Ordering::Relaxed)
    }

    fn token(&self, tenant: &str) -> &Secret {
        let [(_, first), _] = &self.tokens;
        let own = self.tokens.iter().find(|(of, _)| *of == tenant);
        own.map_or(first, |(_, token)| token)
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

fn settings(ground: &Ground) -> Vec<(&'static str, String)> {
    let file = |name: &str| ground.file(name).display().to_string();
    vec![
        (
            "PODBEAT_SERVER_LISTEN",
            format!("{TASK_RUNS_SERVICE}:{PORT}"),
        ),
        (
            "PODBEAT_SERVER_URL",
            format!("https://{TASK_RUNS_HOST}:{PORT}"),
        ),
        ("PODBEAT_SERVER_CERT_FILE", file("server.crt")),
        ("PODBEAT_SERVER_KEY_FILE", file("server.key")),
        ("PODBEAT_SERVER_DATA", file("podbeat.db")),
        ("PODBEAT_SERVER_LAUNCH_FILE", file("launch.json")),
        ("PODBEAT_SERVER_KUBECONFIG", file("server.kubeconfig")),
        // Longer than the node is cut off, and than a restart.
        ("PODBEAT_SERVER_HEARTBEAT_TIMEOUT", "20s".to_owned()),
        ("PODBEAT_LOG_FORMAT", "text".to_owned()),
    ]
}

fn begin(ground: &Ground) -> Result<Child, Error> {
    spawn(&ground.server, &ground.log(), |command| {
        command.env_clear().envs(settings(ground));
    })
}

/// A new token for the user `e2e` of a tenant.
async fn token(ground: &Ground, tenant: &str) -> Result<Secret, Error> {
    let output = Command::new(&ground.server)
        .args(["token", "create", "--tenant", tenant, "--user", "e2e"])
        .args(["--role", "user"])
        .env_clear()
        .envs(settings(ground))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(io(format!("starting {}", ground.server.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let token = text
        .split_whitespace()
        .find(|word| word.starts_with("pbt_"));
    token
        .map(Secret::new)
        .ok_or_else(|| Error::Unexpected(format!("podbeat-server printed no token: {text}")))
}

/// The path of podbeat-server, beside this program.
///
/// # Errors
/// The path of this program is not known.
pub fn beside() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(io("looking for this program"))?;
    Ok(own.with_file_name("podbeat-server"))
}

/// The launch file of the server.
#[must_use]
pub fn launch_file() -> String {
    json!({
        "instance": "e2e",
        "namespace": NAMESPACE,
        "tenants": {QUOTA: {"namespace": QUOTA}},
        "podbeat": {"image": crate::node::images::PODBEAT},
        "serviceUrl": format!("https://{TASK_RUNS_HOST}:{PORT}"),
        "resources": {"sizes": {"small": {
            "resources": {"cpu": "50m", "memory": "32M"},
            "nodeSelector": {"kubernetes.io/hostname": crate::node::NODE}}}},
        "terminationGracePeriodSeconds": 5,
        "retries": {"backoffSeconds": 1, "maxBackoffSeconds": 4},
        "pending": {"imagePullSeconds": 8},
    })
    .to_string()
}

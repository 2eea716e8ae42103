//! The server as a process, and a client.
//! Never here: code that only one test needs.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// Long enough for anything on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The program.
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_podbeat-server");

/// A directory with a data file.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("d.db")
    }

    /// The program with these arguments and this data file.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(SERVER, arguments)
    }

    /// Another program that starts the server.
    pub(crate) fn command_of(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PODBEAT_SERVER_DATA", self.data())
            .env("PODBEAT_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        let output = tokio::time::timeout(LIMIT, output).await;
        output.expect("in time").expect("it ran")
    }

    /// Starts a server on a free port.
    pub(crate) async fn serve(&self, arguments: &[&str]) -> Server {
        let mut command = self.command(arguments);
        command.env("PODBEAT_SERVER_LISTEN", "127.0.0.1:0");
        Server::start(command).await
    }

    /// Creates a token.
    pub(crate) async fn token(&self, arguments: &[&str]) -> String {
        let output = self.run(&[&["token", "create"], arguments].concat()).await;
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().to_owned()
    }
}

/// A server that listens. It is killed when dropped.
pub(crate) struct Server {
    child: Child,
    lines: tokio::io::Lines<BufReader<ChildStderr>>,
    /// The lines of the log that were read.
    pub(crate) log: Vec<Value>,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut server = Self {
            child,
            lines,
            log: Vec::new(),
            url: String::new(),
        };
        let line = server.until("listening").await;
        line["url"]
            .as_str()
            .expect("a URL")
            .clone_into(&mut server.url);
        server
    }

    /// Reads the log until this message.
    pub(crate) async fn until(&mut self, message: &str) -> Value {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.expect("the log") {
                let parsed: Value =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                self.log.push(parsed.clone());
                if parsed["message"] == message {
                    return parsed;
                }
            }
            panic!("it ended before {message:?}: {:#?}", self.log);
        };
        let line = tokio::time::timeout(LIMIT, reading).await;
        line.unwrap_or_else(|_| panic!("no {message:?} in time"))
    }

    pub(crate) async fn ready(mut self) -> Self {
        self.until("ready").await;
        self
    }

    /// Waits until it is ready. If it ends before that, returns its exit code and why.
    pub(crate) async fn ready_or_ended(mut self) -> Result<Self, (Option<i32>, String)> {
        let reading = async {
            let mut why = String::new();
            while let Some(line) = self.lines.next_line().await.expect("the log") {
                if line.contains("\"message\":\"ready\"") {
                    return None;
                }
                if !line.starts_with('{') {
                    why += &line;
                }
            }
            let status = self.child.wait().await.expect("ended");
            Some((status.code(), why))
        };
        let ended = tokio::time::timeout(LIMIT, reading).await;
        match ended.expect("ready or ended in time") {
            None => Ok(self),
            Some(ended) => Err(ended),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", signal, &pid])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Waits for its end. Returns its exit code, standard output, and the whole log.
    pub(crate) async fn ended(mut self) -> (Option<i32>, String, Vec<Value>) {
        let mut text = String::new();
        let mut output = self.child.stdout.take().expect("its output");
        let ending = async {
            while let Some(line) = self.lines.next_line().await.expect("the log") {
                self.log.push(serde_json::from_str(&line).expect("JSON"));
            }
            output.read_to_string(&mut text).await.expect("text");
            self.child.wait().await.expect("ended")
        };
        let status = tokio::time::timeout(LIMIT, ending).await.expect("in time");
        (status.code(), text, self.log)
    }

    /// Stops it.
    pub(crate) async fn stop(self) -> (Option<i32>, String, Vec<Value>) {
        self.signal("TERM");
        self.ended().await
    }

    pub(crate) fn user(&self, token: &str) -> User {
        User {
            client: client(),
            url: self.url.clone(),
            token: token.to_owned(),
        }
    }
}

pub(crate) fn client() -> Client {
    // The provider is for the whole process; the first caller sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().timeout(LIMIT);
    client.build().expect("a client")
}

/// Somebody with a token.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) token: String,
}

impl User {
    pub(crate) fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        let url = format!("{}/v1/tasks/runs{rest}", self.url);
        self.client.request(method, url).bearer_auth(&self.token)
    }

    /// The answer's status and body.
    pub(crate) async fn ask(&self, request: RequestBuilder) -> (StatusCode, Value) {
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let body = response.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    /// Creates a run, and returns its ID.
    pub(crate) async fn create(&self, name: &str) -> String {
        let request = self.request(Method::POST, "").json(&json!({"name": name}));
        let (status, body) = self.ask(request).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["id"].as_str().expect("an ID").to_owned()
    }

    pub(crate) async fn get(&self, id: &str) -> (StatusCode, Value) {
        self.ask(self.request(Method::GET, &format!("/{id}"))).await
    }

    pub(crate) async fn beat(&self, id: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.request(Method::POST, &format!("/{id}:heartbeat"));
        self.ask(request.json(body)).await
    }

    pub(crate) async fn abort(&self, id: &str) -> (StatusCode, Value) {
        let request = self.request(Method::PUT, &format!("/{id}:abort"));
        self.ask(request).await
    }
}

/// The last heartbeat of a pod whose only container ended with this code.
pub(crate) fn last(code: i32) -> Value {
    json!({"lastHeartbeat": true, "jobRetryCount": 0, "podName": "p", "containerStatus": [
        {"name": "main", "state": {"terminated": {"exitCode": code}}}]})
}

/// A heartbeat of a pod whose only container runs.
pub(crate) fn running() -> Value {
    json!({"jobRetryCount": 0, "podName": "p", "containerStatus": [
        {"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]})
}

//! A scenario's observations: every event of its pods from the API server, and their containers'
//! logs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{AsyncBufReadExt, StreamExt};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::get;
use crate::{Error, io};

/// How often a directory is checked for new logs. kubelet removes logs with their pod.
const LOOK: Duration = Duration::from_millis(100);

/// One event of a watch, and when it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it arrived.
    pub at: Timestamp,
    /// `type` and `object`.
    pub event: Value,
}

impl Seen {
    /// The pod.
    #[must_use]
    pub fn pod(&self) -> &Value {
        self.event.get("object").unwrap_or(&Value::Null)
    }

    /// The pod's UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.pod()
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whether the pod was deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.event.get("type") == Some(&json!("DELETED"))
    }
}

/// Records the pods of a namespace until it is dropped.
#[derive(Debug)]
pub struct Recording {
    seen: watch::Receiver<Vec<Seen>>,
    watching: JoinHandle<()>,
    keeping: JoinHandle<()>,
    logs: PathBuf,
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.watching.abort();
        self.keeping.abort();
    }
}

impl Recording {
    /// Starts recording. kubelet writes logs to `pod_logs`; copies are kept in `logs`. Both must be
    /// on one file system.
    ///
    /// # Errors
    /// The directory can't be created.
    pub fn begin(
        client: Client,
        namespace: &str,
        pod_logs: PathBuf,
        logs: PathBuf,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(&logs).map_err(io(format!("creating {}", logs.display())))?;
        let (sender, seen) = watch::channel(Vec::new());
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let watching = tokio::spawn(async move { record(&client, &path, &sender).await });
        let keeping = tokio::spawn(keep_logs(pod_logs, format!("{namespace}_"), logs.clone()));
        Ok(Self {
            seen,
            watching,
            keeping,
            logs,
        })
    }

    /// All events so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits for an event that is as wanted, and returns it. Earlier events count, too.
    ///
    /// # Errors
    /// None arrives within `limit`.
    pub async fn until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, Error> {
        let all = self
            .until_all(what, limit, |seen| seen.iter().any(&wanted))
            .await?;
        let found = all.into_iter().find(|seen| wanted(seen));
        found.ok_or_else(|| Error::Unexpected(format!("{what} is gone again")))
    }

    /// Waits until the events so far are as wanted, and returns them.
    ///
    /// # Errors
    /// They are not as wanted within `limit`.
    pub async fn until_all(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&[Seen]) -> bool,
    ) -> Result<Vec<Seen>, Error> {
        let mut seen = self.seen.clone();
        let waited = seen.wait_for(|seen| wanted(seen));
        match tokio::time::timeout(limit, waited).await {
            Ok(Ok(seen)) => Ok(seen.clone()),
            Ok(Err(_)) | Err(_) => {
                let last = self.seen().last().map(|last| told(last.pod()));
                Err(Error::Unexpected(format!(
                    "timed out after {limit:?} while waiting for {what}; last seen: {last:?}"
                )))
            }
        }
    }

    /// A container's log in a pod, over all its runs: the time of each line by the runtime's clock,
    /// and the line.
    #[must_use]
    pub fn log(&self, uid: &str, container: &str) -> Vec<(Timestamp, String)> {
        read_log(&self.logs.join(uid).join(container))
    }
}

/// The lines of all logs in a directory, in the runtime's format: time, stream, whether the line is
/// complete, text.
fn read_log(directory: &Path) -> Vec<(Timestamp, String)> {
    let mut lines = Vec::new();
    for path in sorted(directory) {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        lines.extend(text.lines().filter_map(|line| {
            let mut parts = line.splitn(4, ' ');
            let at = parts.next()?.parse().ok()?;
            Some((at, parts.nth(2)?.to_owned()))
        }));
    }
    lines
}

/// Watches, and resumes after an outage of the API server.
async fn record(client: &Client, path: &str, to: &watch::Sender<Vec<Seen>>) {
    let mut version = "0".to_owned();
    loop {
        let request = get(&format!(
            "{path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        ));
        if let Ok(stream) = client.request_stream(request).await {
            let mut lines = stream.lines();
            while let Some(Ok(line)) = lines.next().await {
                let at = Timestamp::now();
                let Ok(event) = serde_json::from_str::<Value>(&line) else {
                    break;
                };
                let kind = event
                    .get("type")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                if kind == "ERROR" {
                    "0".clone_into(&mut version);
                    break;
                }
                let Some(now) = event
                    .pointer("/object/metadata/resourceVersion")
                    .and_then(Value::as_str)
                else {
                    break;
                };
                let known = now == version;
                now.clone_into(&mut version);
                if kind != "BOOKMARK" && !known {
                    to.send_modify(|seen| seen.push(Seen { at, event }));
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Links each log of the namespace's pods into our own directory, so that it survives its pod.
async fn keep_logs(pod_logs: PathBuf, prefix: String, logs: PathBuf) {
    loop {
        for pod in sorted(&pod_logs) {
            let name = pod
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some(uid) = name
                .strip_prefix(&prefix)
                .and_then(|rest| rest.rsplit('_').next())
            else {
                continue;
            };
            for log in sorted(&pod).iter().flat_map(|container| sorted(container)) {
                let container = log.parent().and_then(Path::file_name).unwrap_or_default();
                let kept = logs.join(uid).join(container);
                let kept_log = kept.join(log.file_name().unwrap_or_default());
                if !kept_log.exists() && std::fs::create_dir_all(&kept).is_ok() {
                    // If the log has just been removed, it was still empty.
                    let _ = std::fs::hard_link(&log, kept_log);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The state of one container in a pod: its name on the wire and its members.
#[must_use]
pub fn state<'a>(pod: &'a Value, container: &str) -> Option<(&'a str, &'a Value)> {
    let status = status(pod, container)?;
    let (name, members) = status.get("state")?.as_object()?.iter().next()?;
    Some((name, members))
}

/// The status of one container in a pod.
#[must_use]
pub fn status<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    statuses(pod).find(|status| status.get("name") == Some(&json!(container)))
}

/// The statuses of all containers, init containers first.
fn statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .filter_map(|member| pod.get("status")?.get(member)?.as_array())
        .flatten()
}

/// The exit code of a container that the pod shows as terminated.
#[must_use]
pub fn exit_code(pod: &Value, container: &str) -> Option<i64> {
    match state(pod, container)? {
        ("terminated", members) => members.get("exitCode")?.as_i64(),
        _ => None,
    }
}

/// A pod on one line.
#[must_use]
pub fn told(pod: &Value) -> String {
    let mut parts: Vec<String> = statuses(pod)
        .filter_map(|status| {
            let name = status.get("name")?.as_str()?;
            let (state, members) = status.get("state")?.as_object()?.iter().next()?;
            let detail = match state.as_str() {
                "terminated" => format!(
                    " {} ({})",
                    members.get("exitCode").unwrap_or(&Value::Null),
                    members.get("reason").and_then(Value::as_str).unwrap_or("-")
                ),
                "waiting" => format!(
                    " ({})",
                    members.get("reason").and_then(Value::as_str).unwrap_or("-")
                ),
                _ => String::new(),
            };
            let restarts = status
                .get("restartCount")
                .and_then(Value::as_i64)
                .unwrap_or_default();
            let restarts = if restarts > 0 {
                format!(", restart {restarts}")
            } else {
                String::new()
            };
            Some(format!("{name} {state}{detail}{restarts}"))
        })
        .collect();
    if parts.is_empty() {
        parts.push("no statuses".to_owned());
    }
    let phase = pod
        .pointer("/status/phase")
        .and_then(Value::as_str)
        .unwrap_or("-");
    let deletion = if pod.pointer("/metadata/deletionTimestamp").is_some() {
        ", being deleted"
    } else {
        ""
    };
    format!("{phase}{deletion}: {}", parts.join("; "))
}

/// Events by their pod's UID, in the order in which the pods first appeared.
#[must_use]
pub fn by_pod(seen: &[Seen]) -> Vec<(String, Vec<Seen>)> {
    let mut pods: Vec<(String, Vec<Seen>)> = Vec::new();
    for one in seen {
        match pods.iter_mut().find(|(uid, _)| uid == one.uid()) {
            Some((_, events)) => events.push(one.clone()),
            None => pods.push((one.uid().to_owned(), vec![one.clone()])),
        }
    }
    pods
}

/// A scenario's lines, and when each was printed.
#[derive(Debug, Default)]
pub struct Lines(Mutex<Vec<(Timestamp, String)>>);

impl Lines {
    /// Adds a line with the current time.
    pub fn push(&self, text: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((Timestamp::now(), text.to_owned()));
    }

    /// All lines.
    #[must_use]
    pub fn all(&self) -> Vec<(Timestamp, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_described_on_one_line() {
        let pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running",
            "initContainerStatuses": [{"name": "podbeat", "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 3, "reason": "Error"}}},
                                  {"name": "other", "state": {"waiting": {"reason": "ErrImagePull"}}}]}});
        assert_eq!(
            told(&pod),
            "Running, being deleted: podbeat running, restart 1; main terminated 3 (Error); other waiting (ErrImagePull)"
        );
        assert_eq!(exit_code(&pod, "main"), Some(3));
        assert_eq!(exit_code(&pod, "podbeat"), None);
        assert_eq!(
            state(&pod, "other").map(|(state, _)| state),
            Some("waiting")
        );
    }

    #[tokio::test]
    async fn a_log_is_kept_after_its_pod_is_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let (pods, kept) = (dir.path().join("pods"), dir.path().join("kept"));
        let log = pods.join("ns_task_uid-1/main");
        std::fs::create_dir_all(&log).expect("made");
        std::fs::write(
            log.join("0.log"),
            "2026-01-01T00:00:01.5Z stdout F hello there\n",
        )
        .expect("written");
        let keeping = tokio::spawn(keep_logs(pods.clone(), "ns_".to_owned(), kept.clone()));
        while !kept.join("uid-1/main/0.log").exists() {
            tokio::task::yield_now().await;
        }
        keeping.abort();
        std::fs::remove_dir_all(&pods).expect("removed");
        assert_eq!(
            read_log(&kept.join("uid-1/main")),
            [(
                "2026-01-01T00:00:01.5Z".parse().expect("a time"),
                "hello there".to_owned()
            )]
        );
    }
}

//! Sample pods with the structure of a real API server's pods.

use serde_json::{Value, json};

/// How podbeat's container is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sidecar {
    /// An init container with restartPolicy Always.
    Native,
    /// A regular container.
    Plain,
}

/// A pod in the namespace `lab` with one task container, `main`.
#[derive(Clone, Debug)]
pub struct Pod {
    name: String,
    uid: String,
    policy: &'static str,
    sidecar: Sidecar,
}

impl Pod {
    /// A pod with this name and UID, a native sidecar and restartPolicy Never.
    #[must_use]
    pub fn new(name: &str, uid: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            policy: "Never",
            sidecar: Sidecar::Native,
        }
    }

    /// Sets the restartPolicy.
    #[must_use]
    pub fn policy(self, policy: &'static str) -> Self {
        Self { policy, ..self }
    }

    /// Sets how podbeat is declared.
    #[must_use]
    pub fn sidecar(self, sidecar: Sidecar) -> Self {
        Self { sidecar, ..self }
    }

    /// The pod with this status of `main`, from [`waiting`], [`running`] or [`terminated`]. Null
    /// means no status yet.
    #[must_use]
    pub fn showing(&self, main: &Value) -> Value {
        let podbeat = json!({"name": "podbeat", "image": "podbeat:lab", "env": [{"name": "PODBEAT_TOKEN_FILE", "value": "/t"}]});
        let task = json!({"name": "main", "image": "task:lab"});
        let (init, regular) = match self.sidecar {
            Sidecar::Native => {
                let mut podbeat = podbeat;
                if let Some(members) = podbeat.as_object_mut() {
                    members.insert("restartPolicy".to_owned(), json!("Always"));
                }
                (json!([podbeat]), json!([task]))
            }
            Sidecar::Plain => (json!([]), json!([task, podbeat])),
        };
        let mut statuses = Vec::new();
        if let Some(members) = main.as_object() {
            let mut status = json!({"name": "main", "image": "task:lab", "imageID": "", "ready": false,
                                    "restartCount": 0, "lastState": {}});
            if let Some(status) = status.as_object_mut() {
                status.extend(members.clone());
            }
            statuses.push(status);
        }
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": self.name, "namespace": "lab", "uid": self.uid, "labels": {"app": "task"},
                "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1",
                                   "fieldsV1": {"f:status": {"f:phase": {}}}}]},
            "spec": {"restartPolicy": self.policy, "terminationGracePeriodSeconds": 30, "nodeName": "node-1",
                     "initContainers": init, "containers": regular},
            "status": {"phase": "Pending", "containerStatuses": statuses},
        })
    }
}

/// The status of a waiting container.
#[must_use]
pub fn waiting(reason: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason}}})
}

/// The status of a running container.
#[must_use]
pub fn running(started_at: &str) -> Value {
    json!({"ready": true, "started": true, "state": {"running": {"startedAt": started_at}}})
}

/// The status of a terminated container. `id` is the runtime's id of that execution.
#[must_use]
pub fn terminated(exit_code: i32, reason: &str, id: &str) -> Value {
    json!({"state": {"terminated": exit(exit_code, reason, id)}})
}

/// The same status after an earlier execution ended and the container restarted.
#[must_use]
pub fn restarted(mut status: Value, count: i32, last_exit: &Value) -> Value {
    if let Some(members) = status.as_object_mut() {
        members.insert("restartCount".to_owned(), json!(count));
        members.insert("lastState".to_owned(), json!({"terminated": last_exit}));
    }
    status
}

/// The terminated state of one execution of a container.
#[must_use]
pub fn exit(exit_code: i32, reason: &str, id: &str) -> Value {
    json!({"exitCode": exit_code, "reason": reason, "startedAt": "2026-01-01T00:00:01Z",
           "finishedAt": "2026-01-01T00:00:09Z", "containerID": format!("containerd://{id}")})
}

//! Pods to play with, shaped as a real API server shows them.

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
    /// A pod of this name and UID, with a native sidecar and restartPolicy Never.
    #[must_use]
    pub fn new(name: &str, uid: &str) -> Self {
        Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            policy: "Never",
            sidecar: Sidecar::Native,
        }
    }

    /// With another restartPolicy.
    #[must_use]
    pub fn policy(self, policy: &'static str) -> Self {
        Self { policy, ..self }
    }

    /// With podbeat declared otherwise.
    #[must_use]
    pub fn sidecar(self, sidecar: Sidecar) -> Self {
        Self { sidecar, ..self }
    }

    /// The pod with this status of `main`, as made by [`waiting`], [`running`] and [`terminated`]; null for none yet.
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

/// A status of a container that waits.
#[must_use]
pub fn waiting(reason: &str) -> Value {
    json!({"state": {"waiting": {"reason": reason}}})
}

/// A status of a container that runs.
#[must_use]
pub fn running(started_at: &str) -> Value {
    json!({"ready": true, "started": true, "state": {"running": {"startedAt": started_at}}})
}

/// A status of a container that ended; `id` is the runtime's id of that run.
#[must_use]
pub fn terminated(exit_code: i32, reason: &str, id: &str) -> Value {
    json!({"state": {"terminated": exit(exit_code, reason, id)}})
}

/// The same status after another run had ended.
#[must_use]
pub fn restarted(mut status: Value, count: i32, last_exit: &Value) -> Value {
    if let Some(members) = status.as_object_mut() {
        members.insert("restartCount".to_owned(), json!(count));
        members.insert("lastState".to_owned(), json!({"terminated": last_exit}));
    }
    status
}

/// How a run of a container ended.
#[must_use]
pub fn exit(exit_code: i32, reason: &str, id: &str) -> Value {
    json!({"exitCode": exit_code, "reason": reason, "startedAt": "2026-01-01T00:00:01Z",
           "finishedAt": "2026-01-01T00:00:09Z", "containerID": format!("containerd://{id}")})
}

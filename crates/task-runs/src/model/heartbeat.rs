//! A heartbeat, and the response to it. Times are RFC 3339 in UTC.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::Secret;
use super::super::secret::exposed;

/// One heartbeat of a task run (`HeartbeatTaskRunRequest`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatTaskRunRequest {
    /// The state of each container. Absent while no state is known. It is an array, although the
    /// name is singular.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<Vec<ContainerStatus>>,
    /// How many times the Job of this run was retried before this pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_retry_count: Option<i32>,
    /// `Some(true)` on the heartbeat that ends the run for this pod, absent on all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<bool>,
    /// The service's nonce, or an ID of this heartbeat that is the same in all attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Free text about the hardware on which the pod runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_hardware_details: Option<String>,
    /// `metadata.name` of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// `metadata.uid` of the pod.
    #[serde(rename = "podUID", skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

/// One container (`ContainerStatus`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The container's name in the pod's spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Absent while the API shows no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<ContainerState>,
}

impl ContainerStatus {
    /// How the container ended, if it did.
    #[must_use]
    pub fn terminated(&self) -> Option<&ContainerStateTerminated> {
        self.state.as_ref()?.terminated.as_ref()
    }

    /// The name on the wire of the state that is set. Of several, an end takes precedence, then a
    /// running container. `None` if no state is set.
    #[must_use]
    pub fn state_name(&self) -> Option<&'static str> {
        let state = self.state.as_ref()?;
        let members = [
            (state.terminated.is_some(), "terminated"),
            (state.running.is_some(), "running"),
            (state.waiting.is_some(), "waiting"),
        ];
        let mut set = members.into_iter().filter(|(is_set, _)| *is_set);
        set.next().map(|(_, name)| name)
    }
}

/// A container's state (`ContainerState`). Kubernetes and podbeat set exactly one member. The
/// contract also allows none and several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The container is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<ContainerStateRunning>,
    /// The container has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<ContainerStateTerminated>,
    /// The container has not started, or waits for its next run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ContainerStateWaiting>,
}

impl From<ContainerStateRunning> for ContainerState {
    fn from(running: ContainerStateRunning) -> Self {
        Self {
            running: Some(running),
            ..Self::default()
        }
    }
}

impl From<ContainerStateTerminated> for ContainerState {
    fn from(terminated: ContainerStateTerminated) -> Self {
        Self {
            terminated: Some(terminated),
            ..Self::default()
        }
    }
}

impl From<ContainerStateWaiting> for ContainerState {
    fn from(waiting: ContainerStateWaiting) -> Self {
        Self {
            waiting: Some(waiting),
            ..Self::default()
        }
    }
}

/// `ContainerStateRunning`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStateRunning {
    /// When the container started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// `ContainerStateTerminated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStateTerminated {
    /// The runtime's ID of the ended run.
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When the container ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The termination message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A reason such as `OOMKilled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The signal, if the runtime reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When the container started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// `ContainerStateWaiting`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStateWaiting {
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A reason such as `ImagePullBackOff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The response to a heartbeat (`TaskRunHeartbeat`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRunHeartbeat {
    /// A renewed bearer token, for the next request and later ones.
    #[serde(
        serialize_with = "exposed::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub jwt: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_the_contracts_name() {
        let time: Timestamp = "2026-11-24T01:52:44Z".parse().expect("a time");
        let request = HeartbeatTaskRunRequest {
            container_status: Some(vec![
                ContainerStatus {
                    name: Some("main".to_owned()),
                    state: Some(ContainerState::from(ContainerStateTerminated {
                        container_id: Some("containerd://1".to_owned()),
                        exit_code: Some(3),
                        finished_at: Some(time),
                        message: Some("m".to_owned()),
                        reason: Some("Error".to_owned()),
                        signal: Some(9),
                        started_at: Some(time),
                    })),
                },
                ContainerStatus {
                    name: Some("b".to_owned()),
                    state: Some(ContainerState::from(ContainerStateRunning {
                        started_at: Some(time),
                    })),
                },
                ContainerStatus {
                    name: Some("c".to_owned()),
                    state: Some(ContainerState::from(ContainerStateWaiting {
                        message: None,
                        reason: Some("PodInitializing".to_owned()),
                    })),
                },
            ]),
            job_retry_count: Some(1),
            last_heartbeat: Some(true),
            nonce: Some("n".to_owned()),
            pod_hardware_details: Some("node=n".to_owned()),
            pod_name: Some("p".to_owned()),
            pod_uid: Some("u".to_owned()),
        };
        assert_eq!(
            serde_json::to_string(&request).expect("json"),
            concat!(
                r#"{"containerStatus":[{"name":"main","state":{"terminated":{"containerID":"containerd://1","exitCode":3,"#,
                r#""finishedAt":"2026-11-24T01:52:44Z","message":"m","reason":"Error","signal":9,"startedAt":"2026-11-24T01:52:44Z"}}},"#,
                r#"{"name":"b","state":{"running":{"startedAt":"2026-11-24T01:52:44Z"}}},"#,
                r#"{"name":"c","state":{"waiting":{"reason":"PodInitializing"}}}],"jobRetryCount":1,"lastHeartbeat":true,"#,
                r#""nonce":"n","podHardwareDetails":"node=n","podName":"p","podUID":"u"}"#
            )
        );
    }

    #[test]
    fn what_is_absent_is_left_out() {
        assert_eq!(
            serde_json::to_string(&HeartbeatTaskRunRequest::default()).expect("json"),
            "{}"
        );
    }

    #[test]
    fn answers_may_carry_more_than_we_know() {
        let answer: TaskRunHeartbeat =
            serde_json::from_str(r#"{"jwt":"t","more":1}"#).expect("an answer");
        assert_eq!(
            answer.jwt.map(|jwt| jwt.expose().to_owned()).as_deref(),
            Some("t")
        );
    }
}

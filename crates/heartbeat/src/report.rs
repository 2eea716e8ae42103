//! From an observation to the heartbeat's members, in this one file.

use podbeat_task_runs::model::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HeartbeatTaskRunRequest,
};
use serde::{Deserialize, Serialize};

use crate::observation::{Container, Exit, Observation, Role, State};

/// Which containers are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Regular containers: the task's own.
    Task,
    /// Also init containers and other sidecars.
    All,
}

impl Report {
    /// The one with this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        let named = |report: &Self| report.name() == word;
        [Self::Task, Self::All].into_iter().find(named)
    }

    /// Its word in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::All => "all",
        }
    }

    /// Whether a container is reported.
    #[must_use]
    pub fn includes(self, role: Role) -> bool {
        match self {
            Self::All => true,
            Self::Task => role == Role::Task,
        }
    }
}

/// What every heartbeat says about this pod. Settings have priority over what the pod shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// `metadata.name`.
    pub pod_name: String,
    /// `metadata.uid`; outside a pod it is that of the first observation.
    pub pod_uid: Option<String>,
    /// How often the Job retried before this pod.
    pub job_retry_count: Option<i32>,
    /// Free text about the hardware.
    pub pod_hardware_details: Option<String>,
    /// Whether that text is not from the settings, so that a newer one replaces it.
    #[serde(skip)]
    pub hardware_is_learned: bool,
}

impl Identity {
    /// Adds what the settings omit and the pod shows. The pod shows more of its hardware later: the
    /// IDs of devices when their container starts, and their health while it runs.
    pub fn learn(&mut self, seen: &Observation) {
        if self.pod_uid.is_none() {
            self.pod_uid.clone_from(&seen.uid);
        }
        if self.job_retry_count.is_none() {
            self.job_retry_count = seen.job_retry_count;
        }
        if seen.hardware_details.is_some()
            && (self.hardware_is_learned || self.pod_hardware_details.is_none())
        {
            self.pod_hardware_details.clone_from(&seen.hardware_details);
            self.hardware_is_learned = true;
        }
    }

    /// Adds what is still missing and an earlier process of this pod knew.
    pub fn take_over(&mut self, earlier: Self) {
        self.pod_uid = self.pod_uid.take().or(earlier.pod_uid);
        self.job_retry_count = self.job_retry_count.or(earlier.job_retry_count);
        if self.pod_hardware_details.is_none() {
            self.pod_hardware_details = earlier.pod_hardware_details;
            self.hardware_is_learned = self.pod_hardware_details.is_some();
        }
    }

    /// A heartbeat of this pod. Without statuses it has no containerStatus.
    #[must_use]
    pub fn request(
        &self,
        nonce: String,
        statuses: Option<Vec<ContainerStatus>>,
    ) -> HeartbeatTaskRunRequest {
        HeartbeatTaskRunRequest {
            container_status: statuses,
            job_retry_count: self.job_retry_count,
            last_heartbeat: None,
            nonce: Some(nonce),
            pod_hardware_details: self.pod_hardware_details.clone(),
            pod_name: Some(self.pod_name.clone()),
            pod_uid: self.pod_uid.clone(),
        }
    }
}

/// The reported states of an observation, without containers that have no state yet.
#[must_use]
pub fn statuses(seen: &Observation, report: Report) -> Vec<ContainerStatus> {
    seen.containers
        .iter()
        .filter(|container| report.includes(container.role))
        .filter_map(|container| Some(status(container, container.state.as_ref()?)))
        .collect()
}

/// All texts of a heartbeat, which make most of its size.
pub fn texts(request: &HeartbeatTaskRunRequest) -> impl Iterator<Item = &String> {
    let own = [
        &request.nonce,
        &request.pod_hardware_details,
        &request.pod_name,
        &request.pod_uid,
    ];
    let statuses = request.container_status.iter().flatten();
    own.into_iter()
        .flatten()
        .chain(statuses.flat_map(texts_of_status))
}

fn texts_of_status(status: &ContainerStatus) -> impl Iterator<Item = &String> {
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let of_wait = waiting.map_or([&None; 2], |waiting| [&waiting.message, &waiting.reason]);
    let of_exit = status.terminated().map_or([&None; 3], |exit| {
        [&exit.message, &exit.reason, &exit.container_id]
    });
    let of_state = of_wait.into_iter().chain(of_exit);
    status.name.iter().chain(of_state.flatten())
}

/// One container in the given state.
#[must_use]
pub fn status(container: &Container, state: &State) -> ContainerStatus {
    ContainerStatus {
        name: Some(container.name.clone()),
        state: Some(wire_state(state)),
    }
}

/// A container with this exit.
#[must_use]
pub fn ended(name: &str, exit: &Exit) -> ContainerStatus {
    ContainerStatus {
        name: Some(name.to_owned()),
        state: Some(ContainerState::from(terminated(exit))),
    }
}

fn wire_state(state: &State) -> ContainerState {
    match state {
        State::Waiting { reason, message } => ContainerState::from(ContainerStateWaiting {
            message: message.clone(),
            reason: reason.clone(),
        }),
        State::Running { started_at } => ContainerState::from(ContainerStateRunning {
            started_at: *started_at,
        }),
        State::Terminated(exit) => ContainerState::from(terminated(exit)),
    }
}

fn terminated(exit: &Exit) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: exit.container_id.clone(),
        exit_code: exit.exit_code,
        finished_at: exit.finished_at,
        message: exit.message.clone(),
        reason: exit.reason.clone(),
        signal: exit.signal,
        started_at: exit.started_at,
    }
}

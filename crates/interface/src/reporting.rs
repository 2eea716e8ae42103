//! What podbeat reports about a pod, and how often: the settings that the agent and `podbeat
//! observe` share.

use std::time::Duration;

use podbeat_heartbeat::machine;
use podbeat_heartbeat::marker::ContainerName;
use podbeat_heartbeat::report::{Identity, Report};
use podbeat_kubernetes::tasks::Tasks;

use crate::environment::Environment;
use crate::reader::Reader;
use crate::setting::{CONTAINER_NAME, INTERVAL, JOB_RETRY_COUNT, MAX_STATUS_AGE, REPORT, TIMEOUT};

/// What podbeat reports about a pod, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// The time between heartbeats, from 100 ms to 1 h.
    pub interval: Duration,
    /// Which containers are reported.
    pub report: Report,
    /// podbeat's own container.
    pub container_name: ContainerName,
    /// The regular containers that are the task's; empty for all but those that are ignored.
    pub task_containers: Vec<ContainerName>,
    /// Regular containers that are not the task's.
    pub ignored_containers: Vec<ContainerName>,
    /// Sent as jobRetryCount; not negative.
    pub job_retry_count: Option<i32>,
    /// How long podbeat sends states without a new confirmation from the Kubernetes API. At least 1
    /// s.
    pub max_status_age: Duration,
}

impl Reporting {
    /// Reads these settings. A malformed setting gets its default.
    pub fn read(read: &mut Reader<'_, impl Environment>) -> Self {
        let (task_containers, ignored_containers) = read.task_containers();
        Self {
            interval: read.get(&INTERVAL),
            report: read.get(&REPORT),
            container_name: read.get(&CONTAINER_NAME),
            task_containers,
            ignored_containers,
            job_retry_count: read.optional(&JOB_RETRY_COUNT),
            max_status_age: read.get(&MAX_STATUS_AGE),
        }
    }

    /// Which regular containers belong to the task.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        Tasks::new(&self.task_containers, &self.ignored_containers)
    }

    /// What the core needs to report this pod, without nonce, journal and exit markers.
    #[must_use]
    pub fn settings(&self, pod_name: &str) -> machine::Settings {
        machine::Settings {
            identity: Identity {
                pod_name: pod_name.to_owned(),
                job_retry_count: self.job_retry_count,
                ..Identity::default()
            },
            nonce: None,
            interval: self.interval,
            timeout: TIMEOUT.default,
            report: self.report,
            max_status_age: self.max_status_age,
            journaled: false,
            markers: false,
        }
    }
}

//! What podbeat reports about a pod, and how often: the settings that the agent and `podbeat
//! observe` share.

use std::time::Duration;

use podbeat_heartbeat::machine;
use podbeat_heartbeat::report::{Identity, Report};
use podbeat_kubernetes::tasks::Tasks;

use crate::environment::Environment;
use crate::reader::{Reader, millis, secs};

/// The timeout of one attempt of the agent, unless `PODBEAT_TIMEOUT` sets another.
pub const DEFAULT_TIMEOUT: Duration = secs(10);

/// What podbeat reports about a pod, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporting {
    /// The time between heartbeats, from 100 ms to 1 h.
    pub interval: Duration,
    /// Which containers are reported.
    pub report: Report,
    /// podbeat's own container.
    pub container_name: String,
    /// The regular containers of the task. Empty for all except the ignored ones.
    pub task_containers: Vec<String>,
    /// The regular containers that do not belong to the task.
    pub ignored_containers: Vec<String>,
    /// Sent as jobRetryCount. Not negative.
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
            interval: read.duration("PODBEAT_INTERVAL", secs(30), millis(100), secs(3600)),
            report: read.report(),
            container_name: read.own_container(),
            task_containers,
            ignored_containers,
            job_retry_count: read.optional("JOB_RETRY_COUNT", |text| match text.parse::<i32>() {
                Ok(count) if count >= 0 => Ok(count),
                Ok(_) | Err(_) => Err("must be a whole number from 0 to 2147483647".to_owned()),
            }),
            max_status_age: read.duration(
                "PODBEAT_MAX_STATUS_AGE",
                secs(300),
                secs(1),
                Duration::MAX,
            ),
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
                pod_uid: None,
                job_retry_count: self.job_retry_count,
                pod_hardware_details: None,
            },
            nonce: None,
            interval: self.interval,
            timeout: DEFAULT_TIMEOUT,
            report: self.report,
            max_status_age: self.max_status_age,
            journaled: false,
            markers: false,
        }
    }
}

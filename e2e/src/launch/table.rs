//! The table: each run, what happens to it, and how it must end.

use std::ops::RangeInclusive;

use super::ground::{NAMESPACE, QUOTA};

/// What somebody does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Nothing,
    /// A user aborts it.
    Abort,
    /// A drain evicts its pod.
    Evict,
    /// Somebody deletes its Job.
    DeleteJob,
    /// A queue suspends its Job, and resumes it when the pod is gone.
    Suspend,
    /// A queue suspends its Job, and a user aborts it when the run shows that.
    SuspendAndAbort,
    /// Its podbeat stops sending, while the task goes on.
    Freeze,
    /// The same, and a user aborts it when its pod has ended and no last heartbeat came.
    FreezeAndAbort,
    /// An administrator removes the quota.
    LiftQuota,
}

/// One run.
#[derive(Debug)]
pub struct Case {
    /// The name.
    pub name: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// The tenant, which has the namespace of the same name.
    pub tenant: &'static str,
    /// The execution, as JSON.
    pub execution: &'static str,
    /// The answer contains this, and no run is created.
    pub refused: Option<&'static str>,
    /// What happens to it,
    pub act: Act,
    /// as soon as status, number of attempts and details contain this.
    pub when: &'static str,
    /// The final status.
    pub status: &'static str,
    /// The number of attempts.
    pub attempts: RangeInclusive<usize>,
    /// The details contain this.
    pub details: &'static str,
}

const BASE: Case = Case {
    name: "",
    shows: "",
    tenant: NAMESPACE,
    execution: "",
    refused: None,
    act: Act::Nothing,
    when: "",
    status: "Completed",
    attempts: 1..=1,
    details: "",
};

/// A shell script, without retries.
macro_rules! script {
    ($script:literal) => {
        concat!(
            r#"{"image":{"name":"localhost/task","tag":"e2e"},"command":"sh","args":["-c",""#,
            $script,
            r#""],"retryLimit":0,"environment":{"resources":{"memoryGb":0.05},"variables":{"WORD":"a $(b) \"c\""}}}"#
        )
    };
    ($script:literal, retries $limit:literal) => {
        concat!(
            r#"{"image":{"name":"localhost/task","tag":"e2e"},"command":"sh","args":["-c",""#,
            $script,
            r#""],"retryLimit":"#,
            $limit,
            "}"
        )
    };
}

/// All runs. They live at the same time.
pub const CASES: &[Case] = &[
    Case {
        name: "success",
        shows: "exit code 0",
        execution: script!("sleep 2; exit 0"),
        ..BASE
    },
    Case {
        name: "long-success",
        shows: "a task that goes on while the server is killed and the node is cut off",
        execution: script!("sleep 45; exit 0"),
        ..BASE
    },
    Case {
        name: "words",
        shows: "arguments and variables arrive unchanged",
        execution: script!(
            "x='$(WORD) $$'; [ ${#x} = 10 ] && [ \\\"$WORD\\\" = 'a $(b) \\\"c\\\"' ]"
        ),
        ..BASE
    },
    Case {
        name: "own-program",
        shows: "the image's own program, which is not wrapped",
        execution: r#"{"image":{"name":"localhost/task","tag":"e2e"},"args":["-c","sleep 1; exit 0"],"retryLimit":0}"#,
        ..BASE
    },
    Case {
        name: "exit-code",
        shows: "exit code 3 without retries",
        execution: script!("sleep 1; exit 3"),
        status: "Failed",
        details: "main ended with exit code 3",
        ..BASE
    },
    Case {
        name: "retries-to-success",
        shows: "two failed attempts, then exit code 0",
        execution: script!("case $HOSTNAME in *-2-?????) exit 0;; esac; exit 7", retries 3),
        attempts: 3..=3,
        ..BASE
    },
    Case {
        name: "retries-used-up",
        shows: "the retry limit",
        execution: script!("exit 7", retries 1),
        status: "Failed",
        attempts: 2..=2,
        details: "main ended with exit code 7",
        ..BASE
    },
    Case {
        name: "out-of-memory",
        shows: "Kubernetes' reason in the details",
        execution: r#"{"image":{"name":"localhost/task","tag":"e2e"},"args":["-c","exec tail /dev/zero"],"retryLimit":0,"environment":{"resources":{"memoryGb":0.05}}}"#,
        status: "Failed",
        details: "OOMKilled",
        ..BASE
    },
    Case {
        name: "no-such-program",
        shows: "a command that the image does not have",
        execution: r#"{"image":{"name":"localhost/task","tag":"e2e"},"command":"no-such-program","retryLimit":0}"#,
        status: "Failed",
        details: "exit code 127",
        ..BASE
    },
    Case {
        name: "invalid-image",
        shows: "a name that no image can have fails at once, in spite of retries",
        execution: r#"{"image":{"name":"localhost/TASK"},"command":"true","retryLimit":3}"#,
        status: "Failed",
        details: "InvalidImageName",
        ..BASE
    },
    Case {
        name: "no-image",
        shows: "an image that cannot be pulled fails after a time",
        execution: r#"{"image":{"name":"localhost:1/none"},"command":"true","retryLimit":3}"#,
        status: "Failed",
        details: "Image",
        ..BASE
    },
    Case {
        name: "unknown-size",
        shows: "a size that is not in the table",
        execution: r#"{"image":{"name":"a"},"environment":{"resources":{"size":"huge"}}}"#,
        refused: Some("it knows: small"),
        ..BASE
    },
    Case {
        name: "inputs",
        shows: "files that nobody would stage",
        execution: r#"{"image":{"name":"a"},"inputs":[{"path":"/a","url":"https://example.com/a"}]}"#,
        refused: Some("execution.inputs"),
        ..BASE
    },
    Case {
        name: "size",
        shows: "a size of the table: requests, limits and a node selector",
        execution: r#"{"image":{"name":"localhost/task","tag":"e2e"},"command":"true","retryLimit":0,"environment":{"resources":{"size":"small"}}}"#,
        ..BASE
    },
    Case {
        name: "abort-at-once",
        shows: "aborted while its Job is being created",
        execution: script!("sleep 600"),
        act: Act::Abort,
        status: "Aborted",
        attempts: 0..=1,
        details: "aborted by e2e",
        ..BASE
    },
    Case {
        name: "abort-unschedulable",
        shows: "no suitable node is shown, and never fails; aborted while it waits",
        execution: r#"{"image":{"name":"localhost/task","tag":"e2e"},"command":"true","environment":{"resources":{"cpuCores":10000}}}"#,
        act: Act::Abort,
        when: "Runnable (1) Unschedulable",
        status: "Aborted",
        ..BASE
    },
    Case {
        name: "abort-running",
        shows: "aborted while it runs: the agent is told, and the pod ends",
        execution: script!("trap 'exit 0' TERM; sleep 600 & wait"),
        act: Act::Abort,
        when: "Running",
        status: "Aborted",
        ..BASE
    },
    Case {
        name: "abort-suspended",
        shows: "aborted while its Job is suspended",
        execution: script!("sleep 600"),
        act: Act::SuspendAndAbort,
        when: "Runnable",
        status: "Aborted",
        ..BASE
    },
    Case {
        name: "abort-finalizing",
        shows: "aborted when its pod has ended, while the last heartbeat is missing",
        execution: script!("sleep 15; exit 5"),
        act: Act::FreezeAndAbort,
        when: "Running",
        status: "Aborted",
        ..BASE
    },
    Case {
        name: "abort-between-attempts",
        shows: "aborted while it waits for its next attempt",
        execution: script!("exit 5", retries 9),
        act: Act::Abort,
        when: "FailedRestartable",
        status: "Aborted",
        attempts: 1..=9,
        ..BASE
    },
    Case {
        name: "evicted",
        shows: "an eviction does not use up the retry limit",
        execution: script!("case $HOSTNAME in *-0-?????) sleep 600;; esac; exit 0"),
        act: Act::Evict,
        when: "Running",
        attempts: 2..=2,
        ..BASE
    },
    Case {
        name: "job-deleted",
        shows: "somebody deletes the Job: a failed attempt",
        execution: script!("case $HOSTNAME in *-0-?????) sleep 600;; esac; exit 0", retries 1),
        act: Act::DeleteJob,
        when: "Running",
        attempts: 2..=2,
        ..BASE
    },
    Case {
        name: "suspended",
        shows: "a suspended Job continues its attempt with another pod",
        execution: script!("[ -e /markers ] && sleep 12; exit 0"),
        act: Act::Suspend,
        when: "Running",
        ..BASE
    },
    Case {
        name: "silent",
        shows: "heartbeats stop while the task goes on",
        execution: script!("sleep 600"),
        act: Act::Freeze,
        when: "Running",
        status: "TimedOut",
        details: "no heartbeat for",
        ..BASE
    },
    Case {
        name: "quota",
        shows: "an exceeded quota waits, and is shown",
        tenant: QUOTA,
        execution: script!("exit 0"),
        act: Act::LiftQuota,
        when: "exceeded quota",
        ..BASE
    },
];

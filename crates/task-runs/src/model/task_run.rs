//! Task runs, as the service describes them.

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::Secret;
use super::super::secret::exposed;
use super::execution::{Execution, REDACTED, redact_location};
use super::{DateTime, Location, TaskRunStatus};

/// Defines a type with the members of [`TaskRunSummary`], in the order of the contract. The members
/// that only [`TaskRun`] has follow `description` and `id`.
macro_rules! task_run {
    ($(#[$doc:meta])* $name:ident { $($after_description:tt)* } { $($after_id:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            /// The entries of the access control list.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub acl: Option<Vec<String>>,
            /// Who created it.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub created_by: Option<String>,
            /// Free text.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub description: Option<String>,
            $($after_description)*
            /// Its address in the API.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub href: Option<String>,
            /// Its ID, for `get`, `abort` and `heartbeat`.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub id: Option<String>,
            $($after_id)*
            /// Who last changed it.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub modified_by: Option<String>,
            /// A display name.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub name: Option<String>,
            /// The size of the machine, as the service names it.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub size_of_resource: Option<String>,
            /// The status. The contract's default is [`TaskRunStatus::DEFAULT`].
            #[serde(skip_serializing_if = "Option::is_none")]
            pub status: Option<TaskRunStatus>,
            /// Free text about the status, of at most [`TaskRun::LONGEST_STATUS_DETAILS`]
            /// characters.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub status_details: Option<String>,
            /// The part of the tenant to which the run belongs.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub sub_tenant_id: Option<String>,
            /// The task version of this run.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub task_version_summary: Option<TaskVersionSummary>,
            /// The tenant to which the run belongs.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tenant_id: Option<String>,
            /// The tier of the machine, as the service names it.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tier_of_resource: Option<String>,
            /// When it was created.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub time_created: Option<DateTime>,
            /// When it was last changed.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub time_modified: Option<DateTime>,
            /// The type of the machine, as the service names it.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub type_of_resource: Option<String>,
            /// Its URN.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub urn: Option<String>,
        }
    };
}

task_run! {
    /// A task run (`TaskRun`).
    ///
    /// Unknown members are skipped. Absent members stay absent when the run is written again.
    ///
    /// ```
    /// use podbeat_task_runs::model::{TaskRun, TaskRunStatus};
    ///
    /// let text = r#"{"id": "trn.1", "status": "Running", "timeCreated": "2026-11-24T01:52:44Z"}"#;
    /// let run: TaskRun = serde_json::from_str(text)?;
    /// assert_eq!(run.status, Some(TaskRunStatus::Running));
    /// let created = run.time_created.as_ref().and_then(|time| time.timestamp());
    /// assert_eq!(created, Some("2026-11-24T01:52:44Z".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    TaskRun {
        /// What to run, and how.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub execution: Option<Execution>,
        /// The requested execution as JSON text. It contains the execution's secrets, so it is a
        /// secret itself.
        #[serde(
            serialize_with = "exposed::text",
            skip_serializing_if = "Option::is_none"
        )]
        pub execution_raw_json: Option<Secret>,
    } {
        /// Information about each attempt.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub logs: Option<Vec<TaskRunLogs>>,
    }
}

impl TaskRun {
    /// The maximum length of `status_details`, in characters.
    pub const LONGEST_STATUS_DETAILS: usize = 4096;

    /// Replaces every secret with `[redacted]`, so that the run can be shown as JSON. The original
    /// values are lost.
    pub fn redact(&mut self) {
        if let Some(execution) = &mut self.execution {
            execution.redact();
        }
        if let Some(raw) = &mut self.execution_raw_json {
            *raw = Secret::new(REDACTED);
        }
        for log in self.logs.iter_mut().flatten() {
            redact_location(&mut log.stdout);
            redact_location(&mut log.stderr);
        }
    }
}

task_run! {
    /// A task run without its execution, in a list and after an abort (`TaskRunSummary`).
    TaskRunSummary {} {}
}

/// The task version of a run (`TaskVersionSummary`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskVersionSummary {
    /// The entries of the access control list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<String>>,
    /// Who created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its address in the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// Its ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who last changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_by: Option<String>,
    /// The part of the tenant to which it belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_tenant_id: Option<String>,
    /// The tenant to which it belongs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_created: Option<DateTime>,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_modified: Option<DateTime>,
    /// Its URN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
    /// The version, of at most [`Self::LONGEST_VERSION`] characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl TaskVersionSummary {
    /// The maximum length of `description`, in characters.
    pub const LONGEST_DESCRIPTION: usize = 4096;

    /// The maximum length of `version`, in characters.
    pub const LONGEST_VERSION: usize = 255;
}

/// Information about one attempt of a run (`TaskRunLogs`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunLogs {
    /// When the attempt ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Details of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_details: Option<String>,
    /// When the attempt started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime>,
    /// Its standard error, or the location of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Location>,
    /// Its standard output, or the location of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Location>,
}

/// One page of task runs (`TaskRunSummaryPagedItems`). The tokens are opaque values for
/// [`ListTaskRunsQuery::page_token`].
///
/// [`ListTaskRunsQuery::page_token`]: super::ListTaskRunsQuery::page_token
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunSummaryPagedItems {
    /// Token of the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_page_token: Option<String>,
    /// Number of runs on this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_count: Option<i32>,
    /// The runs. More than 1000, the largest page size, make the page unreadable.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<TaskRunSummary>>,
    /// Token of the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_page_token: Option<String>,
    /// Token of the next page. Absent or empty on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// Token of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_page_token: Option<String>,
    /// Number of runs on all pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_item_count: Option<i64>,
    /// Number of pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_page_count: Option<i64>,
}

/// Reads at most [`PageSize::MOST`](super::PageSize::MOST) runs, the largest page that a query can
/// ask for. Without this limit, a hostile page of small items would use up the memory, because each
/// item takes hundreds of times the size of its text.
fn bounded<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<TaskRunSummary>>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Option<Vec<TaskRunSummary>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("at most 1000 task runs")
        }

        fn visit_none<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_seq(self)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(item) = items.next_element()? {
                if all.len() >= usize::from(super::PageSize::MOST) {
                    return Err(serde::de::Error::invalid_length(all.len() + 1, &self));
                }
                all.push(item);
            }
            Ok(Some(all))
        }
    }

    deserializer.deserialize_option(Bounded)
}

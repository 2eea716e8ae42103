//! What the service tells of task runs.

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::Secret;
use super::super::secret::exposed;
use super::execution::{Execution, REDACTED, redact_location};
use super::{DateTime, Location, TaskRunStatus};

/// A task run (`TaskRun`).
///
/// Whatever is new in it for this version of podbeat is skipped; what is absent stays absent when it is written again.
///
/// ```
/// use podbeat_task_runs::model::{TaskRun, TaskRunStatus};
///
/// let run: TaskRun = serde_json::from_str(r#"{"id": "trn.1", "status": "Running", "timeCreated": "2026-11-24T01:52:44Z"}"#)?;
/// assert_eq!(run.status, Some(TaskRunStatus::Running));
/// let created = run.time_created.as_ref().and_then(|time| time.timestamp());
/// assert_eq!(created, Some("2026-11-24T01:52:44Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRun {
    /// Who has access: entries of the access control list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<Vec<String>>,
    /// Who created it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is run, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// The execution as it was asked for, as JSON in a text: with its secrets, so it is one itself.
    #[serde(serialize_with = "exposed::text", skip_serializing_if = "Option::is_none")]
    pub execution_raw_json: Option<Secret>,
    /// Its address in the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub href: Option<String>,
    /// Its id: what `get`, `abort` and `heartbeat` ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What is known of each try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<Vec<TaskRunLogs>>,
    /// Who changed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_by: Option<String>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The size of the machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_of_resource: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskRunStatus>,
    /// Free text to the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_details: Option<String>,
    /// The part of the tenant that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_tenant_id: Option<String>,
    /// The version of the task that it is a run of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_version_summary: Option<TaskVersionSummary>,
    /// The tenant that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The tier of the machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier_of_resource: Option<String>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_created: Option<DateTime>,
    /// When it was changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_modified: Option<DateTime>,
    /// The kind of the machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_of_resource: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

impl TaskRun {
    /// Puts `[redacted]` in the place of every secret, so that it can be shown as JSON. What it was can't be had back.
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

/// A task run, in a list and after an abort (`TaskRunSummary`): without what is executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunSummary {
    /// Who has access: entries of the access control list.
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
    /// Its id: what `get`, `abort` and `heartbeat` ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who changed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_by: Option<String>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The size of the machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_of_resource: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskRunStatus>,
    /// Free text to the status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_details: Option<String>,
    /// The part of the tenant that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_tenant_id: Option<String>,
    /// The version of the task that it is a run of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_version_summary: Option<TaskVersionSummary>,
    /// The tenant that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The tier of the machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier_of_resource: Option<String>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_created: Option<DateTime>,
    /// When it was changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_modified: Option<DateTime>,
    /// The kind of the machine, by the service's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_of_resource: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
}

/// The version of a task that a run is one of (`TaskVersionSummary`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskVersionSummary {
    /// Who has access: entries of the access control list.
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
    /// Its id: what `get`, `abort` and `heartbeat` ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who changed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_by: Option<String>,
    /// The part of the tenant that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_tenant_id: Option<String>,
    /// The tenant that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_created: Option<DateTime>,
    /// When it was changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_modified: Option<DateTime>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urn: Option<String>,
    /// The version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What is known of one try of a run (`TaskRunLogs`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunLogs {
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// More of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_details: Option<String>,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<DateTime>,
    /// Its standard error, or where that lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Location>,
    /// Its standard output, or where that lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Location>,
}

/// One page of task runs (`TaskRunSummaryPagedItems`). Tokens are opaque: they are for [`ListTaskRunsQuery::page_token`].
///
/// [`ListTaskRunsQuery::page_token`]: super::ListTaskRunsQuery::page_token
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskRunSummaryPagedItems {
    /// Leads to the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_page_token: Option<String>,
    /// How many are on this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_count: Option<i32>,
    /// The runs. More than the 1000 that can be asked for make the page unreadable.
    #[serde(deserialize_with = "bounded", skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<TaskRunSummary>>,
    /// Leads to the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_page_token: Option<String>,
    /// Leads to the next page; absent or empty on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// Leads to the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_page_token: Option<String>,
    /// How many there are on all pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_item_count: Option<i64>,
    /// How many pages there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_page_count: Option<i64>,
}

/// No more than [`PageSize::MOST`](super::PageSize::MOST) can be asked for. The bound keeps a hostile page of small
/// items, each of which takes hundreds of times its text in memory, from taking all of it.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<TaskRunSummary>>, D::Error> {
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

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
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

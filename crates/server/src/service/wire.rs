//! Runs as the API shows them, and requests as the core understands them.

use std::fmt;

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use podbeat_launch::order::is_launched;
use podbeat_launch::settings::Settings;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    CreateTaskRunRequest, DateTime, Execution, HeartbeatTaskRunRequest, TaskRun, TaskRunLogs,
    TaskRunSummary,
};

use super::problem::Problem;
use crate::store::{Facts, Listed, StoredRun};
use podbeat_runs::{Heartbeat, Pod, Run};

/// In the ID of a run, all characters except RFC 3986's unreserved ones are encoded.
const ID: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The maximum number of entries of an access control list.
const ACL_ENTRIES: usize = 100;

/// The maximum length of an entry of an access control list, in characters.
const ACL_ENTRY: usize = 255;

/// An ID as a part of an address.
pub(crate) fn encoded(id: &str) -> impl fmt::Display {
    utf8_percent_encode(id, ID)
}

/// The address of a run in the API.
pub(super) fn href(url: &str, id: &str) -> String {
    format!("{url}/v1/tasks/runs/{}", encoded(id))
}

fn urn(id: &str) -> String {
    format!("urn:podbeat:task-run:{}", encoded(id))
}

/// The parts of a run that all its forms have.
struct Shown<'run> {
    facts: &'run Facts,
    status: podbeat_runs::Status,
    details: Option<&'run str>,
    modified_by: &'run str,
    modified: Timestamp,
    url: &'run str,
}

/// Both types have these members.
macro_rules! members {
    ($shown:expr, $type:ident { $($more:tt)* }) => {{
        let shown = $shown;
        let facts = shown.facts;
        $type {
            acl: facts.acl.clone(),
            created_by: Some(facts.created_by.clone()),
            description: facts.description.clone(),
            href: Some(href(shown.url, &facts.id)),
            id: Some(facts.id.clone()),
            modified_by: Some(shown.modified_by.to_owned()),
            name: facts.name.clone(),
            size_of_resource: facts.resource_size.clone(),
            status: Some(shown.status.wire()),
            status_details: shown.details.map(str::to_owned),
            sub_tenant_id: Some(facts.tenant.clone()),
            tenant_id: Some(facts.tenant.clone()),
            tier_of_resource: facts.resource_tier.clone(),
            time_created: Some(time(facts.created)),
            time_modified: Some(time(shown.modified)),
            type_of_resource: facts.resource_type.clone(),
            urn: Some(urn(&facts.id)),
            $($more)*
            ..$type::default()
        }
    }};
}

fn shown<'run>(run: &'run StoredRun, url: &'run str) -> Shown<'run> {
    Shown {
        facts: &run.facts,
        status: run.run.status(),
        details: run.run.details(),
        modified_by: &run.modified_by,
        modified: run.modified,
        url,
    }
}

/// `TaskRun`. `execution` is its execution without secrets, as JSON.
pub(super) fn task_run(run: &StoredRun, execution: Option<&str>, url: &str) -> TaskRun {
    let parsed = execution.and_then(|text| serde_json::from_str(text).ok());
    members!(
        shown(run, url),
        TaskRun {
            execution: parsed.map(|execution: Execution| with_count(execution, &run.run)),
            execution_raw_json: execution.map(Secret::new),
            logs: Some(logs(&run.run)),
        }
    )
}

fn with_count(mut execution: Execution, run: &Run) -> Execution {
    execution.retry_count = run
        .attempts()
        .last()
        .and_then(|attempt| i32::try_from(attempt.number).ok())
        .or(execution.retry_count);
    execution
}

fn logs(run: &Run) -> Vec<TaskRunLogs> {
    let log = |attempt: &podbeat_runs::Attempt| TaskRunLogs {
        end_time: attempt.ended.map(time),
        error: attempt.error.clone(),
        start_time: attempt.started.map(time),
        ..TaskRunLogs::default()
    };
    run.attempts().iter().map(log).collect()
}

/// `TaskRunSummary` of a single run.
pub(super) fn summary(run: &StoredRun, url: &str) -> TaskRunSummary {
    members!(shown(run, url), TaskRunSummary {})
}

/// `TaskRunSummary` in a list.
pub(super) fn listed(run: &Listed, url: &str) -> TaskRunSummary {
    let shown = Shown {
        facts: &run.facts,
        status: run.status,
        details: run.details.as_deref(),
        modified_by: &run.modified_by,
        modified: run.modified,
        url,
    };
    members!(shown, TaskRunSummary {})
}

fn time(time: Timestamp) -> DateTime {
    DateTime::from(time)
}

/// A valid request to create a run.
pub(super) struct Requested {
    pub(super) facts: Facts,
    pub(super) run: Run,
    /// The execution with its secrets, as JSON, and without them.
    pub(super) execution: Option<(String, String)>,
}

/// Checks a request to create a run.
pub(super) fn requested(
    request: CreateTaskRunRequest,
    facts: Facts,
    launch: Option<&Settings>,
) -> Result<Requested, Problem> {
    let mut problems = request.problems();
    let is_launched = launch.is_some() && is_launched(request.execution.as_ref());
    let cannot = match (launch, &request.execution) {
        (Some(settings), Some(execution)) if is_launched => {
            podbeat_launch::order::problems(execution, settings)
        }
        _ => Vec::new(),
    };
    let acl = request.acl.iter().flatten();
    if acl.clone().count() > ACL_ENTRIES {
        problems.push(format!("acl: at most {ACL_ENTRIES} entries"));
    }
    for entry in acl {
        if entry.chars().count() > ACL_ENTRY || entry.chars().any(char::is_control) {
            problems.push(format!(
                "acl: an entry must have at most {ACL_ENTRY} characters, and no control characters"
            ));
            break;
        }
    }
    if !problems.is_empty() {
        return Err(Problem::BadRequest {
            message: "the request violates the contract".to_owned(),
            details: problems,
        });
    }
    if !cannot.is_empty() {
        return Err(Problem::BadRequest {
            message: "this service cannot launch the run".to_owned(),
            details: cannot,
        });
    }
    let execution = request.execution.as_ref();
    let environment = execution.and_then(|execution| execution.environment.as_ref());
    let resources = environment.and_then(|environment| environment.resources.clone());
    let resources = resources.unwrap_or_default();
    let limit = execution.and_then(|execution| execution.retry_limit);
    let limit = limit.unwrap_or(Execution::DEFAULT_RETRY_LIMIT);
    // A valid limit is not negative.
    let limit = u32::try_from(limit).unwrap_or(0);
    let facts = Facts {
        name: request.name,
        description: request.description,
        acl: request.acl,
        resource_type: resources.r#type,
        resource_size: resources.size,
        resource_tier: resources.tier,
        ..facts
    };
    let execution = request.execution.map(|execution| {
        let mut public = execution.clone();
        public.redact();
        // Every member can be written as JSON.
        let json = |execution: &Execution| serde_json::to_string(execution).unwrap_or_default();
        (json(&execution), json(&public))
    });
    Ok(Requested {
        facts,
        run: match is_launched {
            true => Run::to_launch(limit),
            false => Run::new(limit),
        },
        execution,
    })
}

/// The maximum number of containers of a heartbeat that are kept.
const CONTAINERS: usize = 64;

/// The maximum length of a text of a heartbeat that is kept, in characters.
const LONGEST: usize = 4096;

/// The parts of a heartbeat that concern the run. Long texts are cut.
pub(super) fn heartbeat(
    request: HeartbeatTaskRunRequest,
    token_of: Option<u32>,
    trace_id: Option<String>,
) -> Heartbeat {
    let cut = |text: &mut Option<String>| {
        if let Some(text) = text
            && let Some((end, _)) = text.char_indices().nth(LONGEST)
        {
            text.truncate(end);
        }
    };
    let mut containers = request.container_status.unwrap_or_default();
    containers.truncate(CONTAINERS);
    for status in &mut containers {
        cut(&mut status.name);
        let Some(state) = &mut status.state else {
            continue;
        };
        if let Some(waiting) = &mut state.waiting {
            cut(&mut waiting.reason);
            cut(&mut waiting.message);
        }
        if let Some(exit) = &mut state.terminated {
            cut(&mut exit.reason);
            cut(&mut exit.message);
            cut(&mut exit.container_id);
        }
    }
    let (mut nonce, mut name, mut uid, mut hardware) = (
        request.nonce,
        request.pod_name,
        request.pod_uid,
        request.pod_hardware_details,
    );
    for text in [&mut nonce, &mut name, &mut uid, &mut hardware] {
        cut(text);
    }
    Heartbeat {
        token_of,
        // A negative count says nothing.
        retry_count: request
            .job_retry_count
            .and_then(|count| u32::try_from(count).ok()),
        nonce,
        last: request.last_heartbeat.unwrap_or_default(),
        pod: Pod {
            name,
            uid,
            hardware,
        },
        containers,
        trace_id,
    }
}

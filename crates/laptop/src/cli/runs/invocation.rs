//! From the flags of a subcommand to the command that podbeat runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ArgMatches;
use podbeat_interface::arguments;
use podbeat_interface::exit::with_causes;
use podbeat_interface::nearest::nearest;
use podbeat_interface::nonce;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    ContainerStatus, CreateTaskRunRequest, Environment, Execution, HeartbeatTaskRunRequest, Image,
    InputMountMappingWithCreds, ListTaskRunsQuery, MountMappingWithCreds, Number, PageSize,
    Resources, SortOrder, SystemFiles, TaskRunStatus,
};

use super::mapping::{INPUT, INPUT_STREAM, Keys, Mapping, OUTPUT, SYSTEM_FILES};
use super::subcommands::{ALLOW_UNKNOWN_STATUS, FILE, PAGE_TOKEN, RUN};
use super::values::{condition_words, known_statuses};
use crate::runs::command::{Command, Format, Invocation, RequestSource};
use crate::runs::credentials_file;
use crate::runs::wait_condition::WaitCondition;

/// The maximum length of a status in an error, in characters.
const LONGEST_STATUS: usize = 32;

/// Parses the flags of the subcommand with this name.
///
/// # Errors
/// A status is unknown, or a file that a flag names cannot be read.
pub(super) fn invocation(name: &str, matches: &ArgMatches) -> Result<Invocation, String> {
    let runs = || all(matches, RUN);
    let interval = || matches.get_one("interval").copied().unwrap_or_default();
    let mut notes = Vec::new();
    let command = match name {
        "create" => Command::Create {
            from: source(matches, || create_request(matches))?,
            dry_run: matches.get_flag("dry-run"),
        },
        "get" if !matches.get_flag("watch") => Command::Get { runs: runs() },
        "list" => {
            let query = query(matches);
            let statuses = query.status.as_slice();
            judge_unknown("status", &known_statuses(), statuses, matches, &mut notes)?;
            if matches.get_flag("watch") {
                Command::WatchList {
                    query,
                    interval: interval(),
                }
            } else if matches.contains_id(PAGE_TOKEN) {
                without_query(matches)?;
                Command::ListPage { query }
            } else {
                Command::List {
                    query,
                    limit: matches.get_one("limit").copied(),
                }
            }
        }
        "abort" => Command::Abort { runs: runs() },
        "heartbeat" => Command::Heartbeat {
            run: one(matches, RUN).unwrap_or_default(),
            from: source(matches, || heartbeat_request(matches))?,
        },
        "wait" => {
            let condition = matches.get_one::<(WaitCondition, Vec<TaskRunStatus>)>("for");
            let (condition, unknown) = condition.cloned().ok_or("missing: --for")?;
            judge_unknown("for", &condition_words(), &unknown, matches, &mut notes)?;
            Command::Wait {
                runs: runs(),
                condition,
                timeout: matches.get_one("timeout").copied().unwrap_or_default(),
                interval: interval(),
                quiet: matches.get_flag("quiet"),
            }
        }
        // `watch`, and `get --watch`.
        _ => Command::Watch {
            runs: runs(),
            is_get: name == "get",
            interval: interval(),
        },
    };
    let output = one(matches, arguments::OUTPUT);
    let format = Format::ALL
        .into_iter()
        .find_map(|(word, format)| (output.as_deref() == Some(word)).then_some(format));
    Ok(Invocation {
        command,
        format,
        headers: !matches.get_flag("no-headers"),
        notes,
    })
}

/// Checks that a page token comes without the flags that it replaces. An empty token requests the
/// first page, which needs these flags.
///
/// # Errors
/// A flag is present that the token replaces.
fn without_query(matches: &ArgMatches) -> Result<(), String> {
    if one(matches, PAGE_TOKEN).is_none_or(|token| token.is_empty()) {
        return Ok(());
    }
    let replaced = ["sort", "names", "status", "versions", "acls"];
    let mut given = replaced
        .into_iter()
        .filter(|flag| matches.contains_id(flag));
    match given.next() {
        Some(flag) => Err(format!(
            "--{PAGE_TOKEN} cannot be used with --{flag}: the token contains the sort order and the \
             filters of its list; omit --{flag}, or use --{PAGE_TOKEN} '' for the first page of a new list"
        )),
        None => Ok(()),
    }
}

/// The request's source: the file if the user named one, else the flags.
fn source<Request>(
    matches: &ArgMatches,
    of_flags: impl FnOnce() -> Result<Request, String>,
) -> Result<RequestSource<Request>, String> {
    Ok(match matches.get_one::<PathBuf>(FILE) {
        Some(path) => RequestSource::File(path.clone()),
        None => RequestSource::Flags(Box::new(of_flags()?)),
    })
}

/// Checks for statuses that this version of podbeat does not know. If the user allows them, because
/// the service may be newer, it adds a note.
///
/// # Errors
/// A status is unknown, and the user did not allow it.
fn judge_unknown(
    flag: &str,
    words: &[&str],
    statuses: &[TaskRunStatus],
    matches: &ArgMatches,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let unknown = statuses
        .iter()
        .filter(|status| matches!(status, TaskRunStatus::Unknown(_)));
    for unknown in unknown.map(TaskRunStatus::as_str) {
        // A text longer than any status may be something else, so podbeat does not repeat it.
        let shown = match unknown.chars().count() {
            0..=LONGEST_STATUS => format!(" {unknown:?}"),
            _ => String::new(),
        };
        if matches.get_flag(ALLOW_UNKNOWN_STATUS) {
            notes.push(format!("unknown status{shown}; using it unchanged"));
            continue;
        }
        let meant = match nearest(unknown, words) {
            Some(nearest) => format!("did you mean {nearest:?}?"),
            None => format!("podbeat knows {}", words.join(", ")),
        };
        return Err(format!(
            "--{flag}: unknown status{shown}; {meant} (--{ALLOW_UNKNOWN_STATUS} accepts it)"
        ));
    }
    Ok(())
}

fn one(matches: &ArgMatches, name: &str) -> Option<String> {
    matches.get_one::<String>(name).cloned()
}

fn all(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches
        .get_many::<String>(name)
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

/// `None` for an empty value, so that the request omits it.
fn unless_default<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

/// The storage credentials in the file of a mapping, if it has one.
fn storage_credentials(file: Option<&PathBuf>) -> Result<Option<BTreeMap<String, Secret>>, String> {
    let read = |path: &PathBuf| credentials_file::storage(path);
    file.map(read)
        .transpose()
        .map_err(|error| with_causes(&error))
}

/// The parts of the request from the flag of a mapping, each with its credentials.
fn mapped<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    flag: &Keys,
    set: impl Fn(&mut T, Option<BTreeMap<String, Secret>>),
) -> Result<Vec<T>, String> {
    let mappings = matches.get_many::<Mapping<T>>(flag.flag);
    let mappings = mappings.into_iter().flatten().map(|mapping| {
        let mut part = mapping.part.clone();
        set(
            &mut part,
            storage_credentials(mapping.credentials_file.as_ref())?,
        );
        Ok(part)
    });
    mappings.collect()
}

fn create_request(matches: &ArgMatches) -> Result<CreateTaskRunRequest, String> {
    let mut command = all(matches, "command").into_iter();
    let variables = matches.get_many::<(String, Secret)>("env");
    let resources = Resources {
        cpu_cores: matches.get_one::<Number>("cpu-cores").cloned(),
        memory_gb: matches.get_one::<Number>("memory-gb").cloned(),
        r#type: one(matches, "type"),
        size: one(matches, "size"),
        tier: one(matches, "tier"),
        hardware: unless_default(all(matches, "hardware")),
    };
    let environment = Environment {
        variables: unless_default(variables.into_iter().flatten().cloned().collect()),
        resources: unless_default(resources),
        input_stream_settings: matches.get_one(INPUT_STREAM.flag).cloned(),
    };
    let mut image = matches.get_one::<Image>("image").cloned();
    if let (Some(image), Some(path)) = (
        &mut image,
        matches.get_one::<PathBuf>("registry-credentials-file"),
    ) {
        let credentials = credentials_file::registry(path);
        image.credentials = Some(credentials.map_err(|error| with_causes(&error))?);
    }
    let inputs = mapped(
        matches,
        &INPUT,
        |input: &mut InputMountMappingWithCreds, credentials| input.credentials = credentials,
    )?;
    let outputs = mapped(
        matches,
        &OUTPUT,
        |output: &mut MountMappingWithCreds, credentials| output.credentials = credentials,
    )?;
    let mut system_files = mapped(
        matches,
        &SYSTEM_FILES,
        |files: &mut SystemFiles, credentials| files.credentials = credentials,
    )?;
    Ok(CreateTaskRunRequest {
        acl: unless_default(all(matches, "acl")),
        description: one(matches, "description"),
        name: one(matches, "name"),
        execution: Some(Execution {
            image,
            command: command.next(),
            args: unless_default(command.collect()),
            environment: unless_default(environment),
            inputs: unless_default(inputs),
            outputs: unless_default(outputs),
            system_files: system_files.pop(),
            working_directory: one(matches, "working-directory"),
            retry_limit: matches.get_one::<i32>("retry-limit").copied(),
            // The service counts retries. Only a file can set another count.
            retry_count: None,
        }),
    })
}

fn heartbeat_request(matches: &ArgMatches) -> Result<HeartbeatTaskRunRequest, String> {
    let nonce = match matches.get_one::<PathBuf>("nonce-file") {
        Some(path) => Some(nonce::read(path).map_err(|error| with_causes(&error))?),
        None => one(matches, "nonce"),
    };
    let containers = matches.get_many::<ContainerStatus>("container");
    Ok(HeartbeatTaskRunRequest {
        container_status: containers.map(|containers| containers.cloned().collect()),
        job_retry_count: matches.get_one::<i32>("job-retry-count").copied(),
        last_heartbeat: matches.get_flag("last").then_some(true),
        nonce,
        pod_hardware_details: None,
        pod_name: one(matches, "pod-name"),
        pod_uid: one(matches, "pod-uid"),
    })
}

fn query(matches: &ArgMatches) -> ListTaskRunsQuery {
    ListTaskRunsQuery {
        acls: one(matches, "acls"),
        names: one(matches, "names"),
        page_size: matches.get_one::<PageSize>("page-size").copied(),
        page_token: one(matches, PAGE_TOKEN).filter(|token| !token.is_empty()),
        sort: matches.get_one::<SortOrder>("sort").cloned(),
        status: matches.get_one::<TaskRunStatus>("status").cloned(),
        versions: one(matches, "versions"),
    }
}

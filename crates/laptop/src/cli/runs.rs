//! The flags of `podbeat runs`, and how they are parsed. They have kubectl's names where kubectl
//! has the same flag.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{
    PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser, ValueParser,
};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};
use podbeat_interface::arguments::{Wrong, flag, flags};
use podbeat_interface::environment::Flags;
use podbeat_interface::exit::with_causes;
use podbeat_interface::nearest::nearest;
use podbeat_interface::nonce;
use podbeat_interface::setting::{Row, SERVICE_SETTINGS};
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    ContainerStatus, CreateTaskRunRequest, Environment, Execution, HeartbeatTaskRunRequest, Image,
    ListTaskRunsQuery, Number, PageSize, Resources, Sort, SortField, TaskRunStatus,
};

use crate::profiles::PROFILE_SETTINGS;
use crate::runs::command::{self, Format, Invocation, RequestSource, container_status};
use crate::runs::image_reference;
use crate::runs::wait_condition::{END, WaitCondition, status};

/// The command's name.
pub const RUNS: &str = "runs";
/// The ID of each argument that is the ID of a run.
pub const RUN: &str = "run";

const CONNECTION: &str = "Connection";
const OUTPUT: &str = "Output";

/// The settings of `podbeat runs`, including those that choose a profile.
#[must_use]
pub fn settings() -> Vec<Row> {
    [SERVICE_SETTINGS, PROFILE_SETTINGS].concat()
}

/// The command `podbeat runs`, with its flags.
#[must_use]
pub fn command() -> Command {
    let after = "Examples:\n  \
         export PODBEAT_SERVICE_URL=https://ica.example.com PODBEAT_TOKEN_FILE=~/.config/podbeat/token\n  \
         podbeat runs list --status Running --sort timeCreated:desc -o wide\n  \
         run=$(podbeat runs create -f run.yaml -o name) && podbeat runs wait $run --for Completed --timeout 2h";
    Command::new(RUNS)
        .about("Create, get, list, abort, wait for and watch task runs, from a laptop")
        .after_help(after)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(settings().iter().map(|setting| flag(setting).global(true).help_heading(CONNECTION)))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FORMAT")
                .global(true)
                .help_heading(OUTPUT)
                .value_parser(PossibleValuesParser::new(Format::ALL.map(|(word, _)| word)))
                .help("Output format: json, yaml, name (only IDs) or wide (a table with more columns); none of them shows secrets"),
        )
        .arg(
            Arg::new("no-headers")
                .long("no-headers")
                .action(ArgAction::SetTrue)
                .global(true)
                .help_heading(OUTPUT)
                .help("Print tables without headers"),
        )
        .subcommand(create())
        .subcommand(get())
        .subcommand(list())
        .subcommand(abort())
        .subcommand(heartbeat())
        .subcommand(wait())
        .subcommand(watch())
}

fn create() -> Command {
    Command::new("create")
        .about("Create and launch task runs, from a file or from flags")
        .override_usage(
            "podbeat runs create -f FILE [OPTIONS]\n       podbeat runs create --image IMAGE [OPTIONS] [-- COMMAND [ARGS]...]",
        )
        .after_help(
            "A file contains one or more documents with requests of the contract (CreateTaskRunRequest). A member that the contract\n\
             does not define is an error. podbeat does not retry: if it is unclear whether the run was created, podbeat says so.\n\n\
             Examples:\n  \
             podbeat runs create -f run.yaml\n  \
             generate-run | podbeat runs create -f -\n  \
             podbeat runs create --name align --image registry.example.com/align:2.1 --env SAMPLE=7 --cpu-cores 4 -- align --threads 4\n  \
             podbeat runs create --image registry.example.com/align:2.1 --dry-run -o yaml > run.yaml",
        )
        .arg(file())
        .arg(text("name", "NAME", "Name of the run").conflicts_with("filename"))
        .arg(text("description", "TEXT", "Description of the run").conflicts_with("filename"))
        .arg(
            text("acl", "ENTRY", "Access control entry; can be repeated")
                .action(ArgAction::Append)
                .conflicts_with("filename"),
        )
        .arg(
            text("image", "IMAGE", "Container image, as [REGISTRY/]REPOSITORY[:TAG][@DIGEST]")
                .value_parser(ValueParser::from(image))
                .required_unless_present("filename")
                .conflicts_with("filename"),
        )
        .arg(
            text("env", "NAME=VALUE", "Environment variable; can be repeated")
                .action(ArgAction::Append)
                .value_parser(ValueParser::from(variable))
                .conflicts_with("filename"),
        )
        .arg(text("working-directory", "DIR", "Working directory of the command").conflicts_with("filename"))
        .arg(number("cpu-cores", "Number of CPU cores, such as 4 or 0.5"))
        .arg(number("memory-gb", "Memory in GB"))
        .arg(text("type", "TYPE", "Machine type, as the service names it").conflicts_with("filename"))
        .arg(text("size", "SIZE", "Machine size, as the service names it").conflicts_with("filename"))
        .arg(text("tier", "TIER", "Tier, as the service names it").conflicts_with("filename"))
        .arg(
            text("retry-limit", "COUNT", "Maximum number of retries")
                .value_parser(ValueParser::from(count))
                .conflicts_with("filename"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .help("Print the request without its secrets, and send nothing"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .last(true)
                .num_args(1..)
                .conflicts_with("filename")
                .help("Command and its arguments; default: the image's own"),
        )
}

fn get() -> Command {
    Command::new("get")
        .about("Show task runs")
        .after_help(
            "Examples:\n  \
             podbeat runs get trn.1\n  \
             podbeat runs get trn.1 trn.2 -o wide\n  \
             podbeat runs get trn.1 -o json | jq .logs\n  \
             podbeat runs get trn.1 -w",
        )
        .arg(runs())
        .arg(watches(
            "Show the runs again after each change, until all have ended",
        ))
        .arg(interval())
}

fn list() -> Command {
    let filter = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TEXT").help(help)
    };
    Command::new("list")
        .visible_alias("ls")
        .about("List task runs, from all pages")
        .after_help(
            "Examples:\n  \
             podbeat runs list -o wide\n  \
             podbeat runs list --status failed --sort timeModified:desc --limit 20\n  \
             podbeat runs list --status running -o name | xargs podbeat runs abort\n  \
             podbeat runs list --status failed -w",
        )
        .arg(
            watches("After the list, show each new or changed run, until Ctrl-C")
                .conflicts_with("limit"),
        )
        .arg(interval())
        .arg(
            Arg::new("sort")
                .long("sort")
                .visible_alias("sort-by")
                .value_name("FIELD[:desc]")
                .value_parser(SORT)
                .help("Sort by name, status, timeCreated or timeModified, in ascending order; with :desc in descending order"),
        )
        .arg(filter(
            "names",
            "Only runs with these names; sent to the service unchanged",
        ))
        .arg(
            Arg::new("status")
                .long("status")
                .value_name("STATUS")
                .value_parser(STATUS)
                .help("Only runs with this status; not case-sensitive"),
        )
        .arg(allow_unknown_status())
        .arg(filter(
            "versions",
            "Only runs of these task versions; sent to the service unchanged",
        ))
        .arg(filter(
            "acls",
            "Only runs with these access control entries; sent to the service unchanged",
        ))
        .arg(
            Arg::new("page-size")
                .long("page-size")
                .visible_alias("chunk-size")
                .value_name("COUNT")
                .value_parser(ValueParser::from(page_size))
                .help("Number of runs in each request, 1 to 1000; default: 1000"),
        )
        .arg(
            Arg::new("limit")
                .long("limit")
                .value_name("COUNT")
                .value_parser(ValueParser::from(limit))
                .help("Maximum number of runs to show; default: all"),
        )
}

fn abort() -> Command {
    Command::new("abort")
        .about("Abort task runs that are Pending or Running")
        .after_help("Examples:\n  podbeat runs abort trn.1 trn.2")
        .arg(runs())
}

fn heartbeat() -> Command {
    Command::new("heartbeat")
        .about("Send one heartbeat of a task run manually")
        .after_help(
            "If podbeat runs in the run's pod, it sends heartbeats by itself. Use this command to try out a service, or for a run whose\n\
             pod is gone. A heartbeat with --last ends the run.\n\n\
             Examples:\n  \
             podbeat runs heartbeat trn.1 --container main=running\n  \
             podbeat runs heartbeat trn.1 --nonce-file nonce --job-retry-count 1 --container main=terminated:137:OOMKilled --last\n  \
             podbeat runs heartbeat trn.1 -f heartbeat.json",
        )
        .arg(run())
        .arg(file())
        .arg(
            text("nonce", "NONCE", "Nonce that the service issued for this attempt; prefer a file")
                .conflicts_with_all(["filename", "nonce-file"]),
        )
        .arg(
            text("nonce-file", "FILE", "File with the nonce; default: a random nonce")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::FilePath)
                .conflicts_with("filename"),
        )
        .arg(
            text("job-retry-count", "COUNT", "Number of the Job's retries before this pod")
                .value_parser(ValueParser::from(count))
                .conflicts_with("filename"),
        )
        .arg(
            text(
                "container",
                "NAME=STATE",
                "Container state: NAME=waiting[:REASON], NAME=running or NAME=terminated:CODE[:REASON]; can be repeated",
            )
            .action(ArgAction::Append)
            .value_parser(ValueParser::from(|text: &str| container_status(text).map_err(Wrong)))
            .conflicts_with("filename"),
        )
        .arg(text("pod-name", "NAME", "Name of the pod").conflicts_with("filename"))
        .arg(text("pod-uid", "UID", "UID of the pod").conflicts_with("filename"))
        .arg(
            Arg::new("last")
                .long("last")
                .action(ArgAction::SetTrue)
                .conflicts_with("filename")
                .help("Send the last heartbeat, which ends the run"),
        )
}

fn wait() -> Command {
    Command::new("wait")
        .about("Wait until task runs have a status")
        .after_help(
            "If a run ends in another status, the command ends at once, with exit code 1. While the service is unavailable, podbeat\n\
             keeps waiting.\n\n\
             Examples:\n  \
             podbeat runs wait trn.1 --for Completed --timeout 2h\n  \
             podbeat runs wait trn.1 --for Completed,Failed\n  \
             podbeat runs wait trn.1 trn.2 --for end --timeout 1d",
        )
        .arg(runs())
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("STATUS")
                .required(true)
                .value_parser(WANTED)
                .help("Status to wait for, or several, comma-separated; not case-sensitive; end: any final status"),
        )
        .arg(allow_unknown_status())
        .arg(
            Arg::new("timeout")
                .long("timeout")
                .value_name("DURATION")
                .default_value("30s")
                .value_parser(ValueParser::from(duration))
                .help("Maximum time to wait, for all runs together; 0s checks once"),
        )
        .arg(interval())
        .arg(
            Arg::new("quiet")
                .short('q')
                .long("quiet")
                .action(ArgAction::SetTrue)
                .help("Do not show on a terminal what podbeat waits for"),
        )
}

fn watches(help: &'static str) -> Arg {
    Arg::new("watch")
        .short('w')
        .long("watch")
        .action(ArgAction::SetTrue)
        .help(help)
}

fn watch() -> Command {
    Command::new("watch")
        .about(
            "Show a task run, and again after each change, until it has ended; same as get --watch",
        )
        .after_help(
            "Examples:\n  \
             podbeat runs watch trn.1\n  \
             podbeat runs watch trn.1 -o json | jq -r .status",
        )
        .arg(run())
        .arg(interval())
}

fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn number(name: &'static str, help: &'static str) -> Arg {
    text(name, "COUNT", help)
        .value_parser(ValueParser::from(positive))
        .conflicts_with("filename")
}

fn file() -> Arg {
    Arg::new("filename")
        .short('f')
        .long("filename")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
        .help("File with the request, as JSON or YAML; - is standard input")
}

fn run() -> Arg {
    Arg::new(RUN)
        .value_name("RUN")
        .required(true)
        .help("ID of the run")
}

fn runs() -> Arg {
    run().num_args(1..).help("IDs of the runs")
}

fn interval() -> Arg {
    Arg::new("interval")
        .long("interval")
        .value_name("DURATION")
        .default_value("2s")
        .value_parser(ValueParser::from(|text: &str| {
            let interval = duration(text)?;
            let is_long_enough = interval >= Duration::from_millis(100);
            is_long_enough
                .then_some(interval)
                .ok_or(Wrong("must be at least 100ms"))
        }))
        .help("Time between two requests, ±10 %; at least 100ms")
}

fn duration(text: &str) -> Result<Duration, Wrong> {
    // Adding a longer duration to a clock would overflow.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    match text {
        "0" => Ok(Duration::ZERO),
        text => humantime::parse_duration(text)
            .ok()
            .filter(|duration| *duration <= LONGEST)
            .ok_or(Wrong("must be a duration such as 500ms, 30s or 2h")),
    }
}

fn page_size(text: &str) -> Result<PageSize, Wrong> {
    text.parse()
        .ok()
        .and_then(PageSize::new)
        .ok_or(Wrong("must be a whole number from 1 to 1000"))
}

fn count(text: &str) -> Result<i32, Wrong> {
    let count = text.parse().ok().filter(|count| *count >= 0);
    count.ok_or(Wrong("must be a whole number from 0 to 2147483647"))
}

fn limit(text: &str) -> Result<usize, Wrong> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or(Wrong("must be a whole number above 0"))
}

fn positive(text: &str) -> Result<Number, Wrong> {
    text.parse::<Number>()
        .ok()
        .filter(|number| number.as_f64().is_some_and(|value| value > 0.0))
        .ok_or(Wrong("must be a number above 0"))
}

fn variable(text: &str) -> Result<(String, Secret), Wrong> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Secret::new(value))),
        _ => Err(Wrong("must be NAME=VALUE (the value is not shown)")),
    }
}

/// Parses an image in the form `NAME[:TAG][@DIGEST]`.
fn image(text: &str) -> Result<Image, image_reference::Unfit> {
    let (name, tag, digest) = image_reference::parts(text);
    image_reference::check(text, None, None)?;
    Ok(Image {
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
        ..Image::new(name)
    })
}

/// Parses a value. Shells complete the usual values, but others are accepted, too.
#[derive(Clone)]
struct Usual<T> {
    words: fn() -> Vec<&'static str>,
    read: fn(&str) -> Result<T, &'static str>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Usual<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let read = self.read;
        StringValueParser::new()
            .try_map(move |text| read(&text).map_err(Wrong))
            .parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.words)().into_iter().map(PossibleValue::new)))
    }
}

fn known_statuses() -> Vec<&'static str> {
    static KNOWN: [TaskRunStatus; 10] = TaskRunStatus::KNOWN;
    KNOWN.iter().map(TaskRunStatus::as_str).collect()
}

fn condition_words() -> Vec<&'static str> {
    let mut words = known_statuses();
    words.push(END);
    words
}

/// A status. [`parse`] rejects an unknown one, unless the user allows it.
const STATUS: Usual<TaskRunStatus> = Usual {
    words: known_statuses,
    read: |text| Ok(status(text)),
};

/// The status to wait for.
const WANTED: Usual<(WaitCondition, Vec<TaskRunStatus>)> = Usual {
    words: condition_words,
    read: WaitCondition::parse,
};

/// The sort order: the field, optionally followed by a colon and the direction.
const SORT: Usual<Sort> = Usual {
    words: || SortField::ALL.map(SortField::as_str).into(),
    read: |text| {
        let (field, direction) = text.split_once(':').unwrap_or((text, "asc"));
        let known = SortField::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(field));
        match (known, direction) {
            (Some(field), "asc") => Ok(field.ascending()),
            (Some(field), "desc") => Ok(field.descending()),
            (Some(_) | None, _) => Err(
                "must be name, status, timeCreated or timeModified, optionally followed by :asc or :desc",
            ),
        }
    },
};

/// Parses the flags.
///
/// # Errors
/// The command is missing, a status is unknown, or a file that a flag names cannot be read.
pub fn parse(matches: &ArgMatches) -> Result<(Flags, Invocation), String> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err("missing command".to_owned());
    };
    let mut notes = Vec::new();
    let command = match name {
        "create" => command::Command::Create {
            from: match matches.get_one::<PathBuf>("filename") {
                Some(path) => RequestSource::File(path.clone()),
                None => RequestSource::Flags(Box::new(create_request(matches))),
            },
            dry_run: matches.get_flag("dry-run"),
        },
        "get" if matches.get_flag("watch") => command::Command::Watch {
            runs: all(matches, "run"),
            is_get: true,
            interval: matches.get_one("interval").copied().unwrap_or_default(),
        },
        "get" => command::Command::Get {
            runs: all(matches, "run"),
        },
        "list" => {
            let query = query(matches);
            let statuses = query.status.as_slice();
            judge_unknown("status", &known_statuses(), statuses, matches, &mut notes)?;
            match matches.get_flag("watch") {
                true => command::Command::WatchList {
                    query,
                    interval: matches.get_one("interval").copied().unwrap_or_default(),
                },
                false => command::Command::List {
                    query,
                    limit: matches.get_one("limit").copied(),
                },
            }
        }
        "abort" => command::Command::Abort {
            runs: all(matches, "run"),
        },
        "heartbeat" => command::Command::Heartbeat {
            run: one(matches, "run").unwrap_or_default(),
            from: match matches.get_one::<PathBuf>("filename") {
                Some(path) => RequestSource::File(path.clone()),
                None => RequestSource::Flags(Box::new(heartbeat_request(matches)?)),
            },
        },
        "wait" => {
            let condition = matches.get_one::<(WaitCondition, Vec<TaskRunStatus>)>("for");
            let (condition, unknown) = condition.cloned().ok_or("missing: --for")?;
            judge_unknown("for", &condition_words(), &unknown, matches, &mut notes)?;
            command::Command::Wait {
                runs: all(matches, "run"),
                condition,
                timeout: matches.get_one("timeout").copied().unwrap_or_default(),
                interval: matches.get_one("interval").copied().unwrap_or_default(),
                quiet: matches.get_flag("quiet"),
            }
        }
        _ => command::Command::Watch {
            runs: all(matches, "run"),
            is_get: false,
            interval: matches.get_one("interval").copied().unwrap_or_default(),
        },
    };
    let output = one(matches, "output");
    let format = Format::ALL
        .into_iter()
        .find_map(|(word, format)| (output.as_deref() == Some(word)).then_some(format));
    let invocation = Invocation {
        command,
        format,
        headers: !matches.get_flag("no-headers"),
        notes,
    };
    Ok((flags(matches, &settings()), invocation))
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

/// The maximum length of a status in an error, in characters.
const LONGEST_STATUS: usize = 32;

const ALLOW_UNKNOWN_STATUS: &str = "allow-unknown-status";

fn allow_unknown_status() -> Arg {
    Arg::new(ALLOW_UNKNOWN_STATUS)
        .long(ALLOW_UNKNOWN_STATUS)
        .action(ArgAction::SetTrue)
        .help("Accept a status that this version of podbeat does not know; a newer service may have it")
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

fn create_request(matches: &ArgMatches) -> CreateTaskRunRequest {
    let mut command = all(matches, "command").into_iter();
    let variables = matches.get_many::<(String, Secret)>("env");
    let resources = Resources {
        cpu_cores: matches.get_one::<Number>("cpu-cores").cloned(),
        memory_gb: matches.get_one::<Number>("memory-gb").cloned(),
        r#type: one(matches, "type"),
        size: one(matches, "size"),
        tier: one(matches, "tier"),
        hardware: None,
    };
    let environment = Environment {
        variables: unless_default(variables.into_iter().flatten().cloned().collect()),
        resources: unless_default(resources),
        input_stream_settings: None,
    };
    CreateTaskRunRequest {
        acl: unless_default(all(matches, "acl")),
        description: one(matches, "description"),
        name: one(matches, "name"),
        execution: Some(Execution {
            image: matches.get_one::<Image>("image").cloned(),
            command: command.next(),
            args: unless_default(command.collect()),
            environment: unless_default(environment),
            working_directory: one(matches, "working-directory"),
            retry_limit: matches.get_one::<i32>("retry-limit").copied(),
            ..Execution::default()
        }),
    }
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
        page_token: None,
        sort: matches.get_one::<Sort>("sort").copied(),
        status: matches.get_one::<TaskRunStatus>("status").cloned(),
        versions: one(matches, "versions"),
    }
}

//! The subcommands of `podbeat runs`, with their flags.

use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command, ValueHint, value_parser};
use podbeat_interface::arguments::Wrong;

use super::mapping::{self, INPUT, INPUT_STREAM, Keys, OUTPUT, SYSTEM_FILES};
use super::values::{
    SORT, STATUS, WANTED, count, duration, image, limit, page_size, pause, positive, variable,
};
use crate::runs::command::container_status;

/// The ID of each argument that is the ID of a run.
pub const RUN: &str = "run";

/// The ID and the long form of the flag for a file with a request.
pub(super) const FILE: &str = "filename";

/// The ID and the long form of the flag for one page of a list.
pub(super) const PAGE_TOKEN: &str = "page-token";

/// The ID and the long form of the flag that accepts unknown statuses.
pub(super) const ALLOW_UNKNOWN_STATUS: &str = "allow-unknown-status";

/// All subcommands, in the order of the help.
pub(super) fn all() -> [Command; 7] {
    [
        create(),
        get(),
        list(),
        abort(),
        heartbeat(),
        wait(),
        watch(),
    ]
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
             The file of the key credentials-file has the credentials for that storage: one object whose values are texts, in JSON or\n\
             YAML. The storage provider defines the names. To use a comma in a value, put the KEY=VALUE into double quotes:\n\
             --input-mount 'path=/data/a,\"url=s3://bucket/a,b\"'.\n\n\
             Examples:\n  \
             podbeat runs create -f run.yaml\n  \
             generate-run | podbeat runs create -f -\n  \
             podbeat runs create --name align --image registry.example.com/align:2.1 --env SAMPLE=7 --cpu-cores 4 -- align --threads 4\n  \
             podbeat runs create --image registry.example.com/align:2.1 --input-mount path=/data/a.bam,url=s3://bucket/a.bam --output-mount path=/data/out,url=s3://bucket/out\n  \
             podbeat runs create --image registry.example.com/align:2.1 --dry-run -o yaml > run.yaml",
        )
        .arg(file())
        .arg(member("name", "NAME", "Name of the run"))
        .arg(member("description", "TEXT", "Description of the run"))
        .arg(
            member("acl", "ENTRY", "Access control entry; can be repeated")
                .action(ArgAction::Append),
        )
        .arg(
            member("image", "IMAGE", "Container image, as [REGISTRY/]REPOSITORY[:TAG][@DIGEST]")
                .value_parser(ValueParser::from(image))
                .required_unless_present(FILE),
        )
        .arg(
            file_of("registry-credentials-file", "File with the credentials for the image's registry, as {\"username\": …, \"password\": …} in JSON or YAML"),
        )
        .arg(
            member("env", "NAME=VALUE", "Environment variable; can be repeated")
                .action(ArgAction::Append)
                .value_parser(ValueParser::from(variable)),
        )
        .arg(member("working-directory", "DIR", "Working directory of the command"))
        .arg(
            mapping(&INPUT, "Data that the run reads, such as path=/data/a,url=s3://bucket/a; can be repeated")
                .visible_alias("input")
                .action(ArgAction::Append)
                .value_parser(ValueParser::from(mapping::input)),
        )
        .arg(
            mapping(&OUTPUT, "Data that the run writes, such as path=/data/out,url=s3://bucket/out; can be repeated")
                .action(ArgAction::Append)
                .value_parser(ValueParser::from(mapping::output)),
        )
        .arg(
            mapping(&SYSTEM_FILES, "Where the service stores its own files of the run, such as url=s3://bucket/system")
                .value_parser(ValueParser::from(mapping::system_files)),
        )
        .arg(
            mapping(&INPUT_STREAM, "How inputs are streamed, such as access-pattern=random,cache-size-gb=100")
                .value_parser(ValueParser::from(mapping::input_stream)),
        )
        .arg(number("cpu-cores", "Number of CPU cores, such as 4 or 0.5"))
        .arg(number("memory-gb", "Memory in GB"))
        .arg(member("type", "TYPE", "Machine type, as the service names it"))
        .arg(member("size", "SIZE", "Machine size, as the service names it"))
        .arg(member("tier", "TIER", "Tier, as the service names it"))
        .arg(
            member("hardware", "NAME", "Additional hardware, as the service names it; can be repeated")
                .action(ArgAction::Append),
        )
        .arg(
            member("retry-limit", "COUNT", "Maximum number of retries")
                .value_parser(ValueParser::from(count)),
        )
        .arg(
            switch("dry-run", "Print the request without its secrets, and send nothing"),
        )
        .arg(
            Arg::new("command")
                .value_name("COMMAND")
                .last(true)
                .num_args(1..)
                .conflicts_with(FILE)
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
    Command::new("list")
        .visible_alias("ls")
        .about("List task runs, from all pages")
        .after_help(
            "Examples:\n  \
             podbeat runs list -o wide\n  \
             podbeat runs list --status failed --sort timeModified:desc --limit 20\n  \
             podbeat runs list --sort status,timeCreated:desc\n  \
             podbeat runs list --sort name --page-size 50 --page-token '' -o json | jq '.items[].id, .nextPageToken'\n  \
             podbeat runs list --status running -o name | xargs podbeat runs abort\n  \
             podbeat runs list --status failed -w",
        )
        .arg(
            watches("After the list, show each new or changed run, until Ctrl-C")
                .conflicts_with_all(["limit", PAGE_TOKEN]),
        )
        .arg(interval())
        .arg(
            value(
                "sort",
                "FIELD[:desc]",
                "Sort by name, status, timeCreated or timeModified, in ascending order; with :desc in descending order; several fields, comma-separated",
            )
            .visible_alias("sort-by")
            .value_parser(SORT),
        )
        .arg(value(
            "names",
            "TEXT",
            "Only runs with these names; sent to the service unchanged",
        ))
        .arg(
            value("status", "STATUS", "Only runs with this status; not case-sensitive")
                .value_parser(STATUS),
        )
        .arg(allow_unknown_status())
        .arg(value(
            "versions",
            "TEXT",
            "Only runs of these task versions; sent to the service unchanged",
        ))
        .arg(value(
            "acls",
            "TEXT",
            "Only runs with these access control entries; sent to the service unchanged",
        ))
        .arg(
            value(
                "page-size",
                "COUNT",
                "Number of runs in each request, 1 to 1000; default: 1000, with a page token the service's own",
            )
            .visible_alias("chunk-size")
            .value_parser(ValueParser::from(page_size)),
        )
        .arg(
            value(
                PAGE_TOKEN,
                "TOKEN",
                "Show one page: that of a token from an earlier page, or with '' the first. -o json and -o yaml also show the page's tokens. A token contains the sort order and the filters, so podbeat refuses it together with these flags",
            )
            .conflicts_with("limit"),
        )
        .arg(
            value("limit", "COUNT", "Maximum number of runs to show; default: all")
                .value_parser(ValueParser::from(limit)),
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
            member("nonce", "NONCE", "Nonce that the service issued for this attempt; prefer a file")
                .conflicts_with("nonce-file"),
        )
        .arg(
            file_of("nonce-file", "File with the nonce; default: a random nonce"),
        )
        .arg(
            member("job-retry-count", "COUNT", "Number of the Job's retries before this pod")
                .value_parser(ValueParser::from(count)),
        )
        .arg(
            member(
                "container",
                "NAME=STATE",
                "Container state: NAME=waiting[:REASON], NAME=running or NAME=terminated:CODE[:REASON]; can be repeated",
            )
            .action(ArgAction::Append)
            .value_parser(ValueParser::from(|text: &str| container_status(text).map_err(Wrong))),
        )
        .arg(member("pod-name", "NAME", "Name of the pod"))
        .arg(member("pod-uid", "UID", "UID of the pod"))
        .arg(
            switch("last", "Send the last heartbeat, which ends the run").conflicts_with(FILE),
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
            value(
                "for",
                "STATUS",
                "Status to wait for, or several, comma-separated; not case-sensitive; end: any final status",
            )
            .required(true)
            .value_parser(WANTED),
        )
        .arg(allow_unknown_status())
        .arg(
            value(
                "timeout",
                "DURATION",
                "Maximum time to wait, for all runs together; 0s checks once",
            )
            .default_value("30s")
            .value_parser(ValueParser::from(duration)),
        )
        .arg(interval())
        .arg(
            switch("quiet", "Do not show on a terminal what podbeat waits for").short('q'),
        )
}

fn watches(help: &'static str) -> Arg {
    switch("watch", help).short('w')
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

/// A flag with a value.
fn value(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(shown).help(help)
}

/// A flag without a value.
pub(super) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// A flag for one member of the request. A file contains the whole request instead.
fn member(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    value(name, shown, help).conflicts_with(FILE)
}

/// A flag for a file with one member of the request.
fn file_of(name: &'static str, help: &'static str) -> Arg {
    member(name, "FILE", help)
        .value_parser(value_parser!(PathBuf))
        .value_hint(ValueHint::FilePath)
}

/// A flag whose value is a list of keys with their values.
fn mapping(keys: &Keys, help: &str) -> Arg {
    Arg::new(keys.flag)
        .long(keys.flag)
        .value_name("KEY=VALUE,...")
        .help(format!("{help}. Keys: {}", keys.keys.join(", ")))
        .conflicts_with(FILE)
}

fn number(name: &'static str, help: &'static str) -> Arg {
    member(name, "COUNT", help).value_parser(ValueParser::from(positive))
}

fn file() -> Arg {
    value(
        FILE,
        "FILE",
        "File with the request, as JSON or YAML; - is standard input",
    )
    .short('f')
    .value_parser(value_parser!(PathBuf))
    .value_hint(ValueHint::FilePath)
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
    value(
        "interval",
        "DURATION",
        "Time between two requests, ±10 %; at least 100ms",
    )
    .default_value("2s")
    .value_parser(ValueParser::from(pause))
}

fn allow_unknown_status() -> Arg {
    switch(
        ALLOW_UNKNOWN_STATUS,
        "Accept a status that this version of podbeat does not know; a newer service may have it",
    )
}

//! Every message that podbeat-server logs at info and above. docs/server-reference.md lists them.

use std::net::SocketAddr;
use std::path::Path;

use podbeat_interface::messages;
use podbeat_interface::messages::{Field, Outage, Over, Seconds, Text, field};

/// The targets of messages. `PODBEAT_LOG` filters by them.
mod target {
    pub(super) const AUDIT: &str = "podbeat_server::audit";
    pub(super) const LAUNCH: &str = "podbeat_server::launch";
    pub(super) const SERVER: &str = "podbeat_server::server";
    pub(super) const STORE: &str = "podbeat_server::store";
    pub(super) const TLS: &str = "podbeat_server::tls";
}

messages! {
    /// The first line
    INFO SERVER Started "podbeat-server started" {
        version: &'a str,
        listen: SocketAddr,
        data: &'a Path,
    },

    /// Variables of the process begin with `PODBEAT_SERVER_`, but are not settings. The server
    /// ignores them. Correct their names, or remove them
    WARN SERVER UnknownVariables "ignoring unknown environment variables" {
        variables: Text<'a>,
    },

    /// The server accepts connections. Until `ready`, it answers 503
    INFO SERVER Listening "listening" {
        address: SocketAddr,
        url: &'a str,
    },

    /// The admin endpoint listens on the address of `PODBEAT_SERVER_ADMIN_LISTEN`
    INFO SERVER AdminListening "the admin endpoint is listening" {
        address: SocketAddr,
    },

    /// The server cannot listen on `PODBEAT_SERVER_ADMIN_LISTEN`
    ERROR SERVER CannotListen
        "cannot open the admin endpoint: probes and metrics are not available; set \
         PODBEAT_SERVER_ADMIN_LISTEN to a free port" {
        error: Text<'a>,
    },

    /// Another process has locked the data file. Two servers on one file would end each other's
    /// runs, so this one waits, and answers 503
    WARN SERVER DataFileInUse "another podbeat-server uses the data file; waiting for its end" {
        data: &'a Path,
    },

    /// The store has no token, so nobody can use the API yet. Create one with `command`
    WARN SERVER NoToken "there is no token; create one" {
        command: &'a str,
    },

    /// The server answers requests
    INFO SERVER Ready "ready" {
        live_runs: usize,
        seconds: Seconds,
    },

    /// The store fails. Clients get 503 and try again. Logged again each time the number of
    /// failures has doubled
    ERROR STORE StoreFailed "the store fails" {
        operation: &'a str,
        ..outage: &'a Outage<'a> { repeats, since, error },
    },

    /// The store works again
    INFO STORE StoreRecovered "the store works again" {
        ..over: &'a Over { failures, lasted_seconds },
    },

    /// Ended runs were removed, because they were too old or too many
    INFO STORE RunsRemoved "removed ended runs" {
        runs: u64,
    },

    /// The server created the Job of an attempt
    INFO LAUNCH JobCreated "created a Job" {
        run: &'a str,
        attempt: u32,
        namespace: &'a str,
        job: &'a str,
    },

    /// The Job of an attempt existed already: the server stopped before it noted the Job
    INFO LAUNCH JobFound "found the Job that an earlier request created" {
        run: &'a str,
        attempt: u32,
        namespace: &'a str,
        job: &'a str,
    },

    /// The server deleted the Job of an attempt that is over
    INFO LAUNCH JobDeleted "deleted a Job" {
        run: &'a str,
        namespace: &'a str,
        job: &'a str,
    },

    /// Requests to the API server fail. No run ends because of it, and the server tries again. Logged
    /// again each time the number of failures has doubled
    WARN LAUNCH ClusterFailed "the API server does not do what the server asks" {
        ?run: Option<&'a str>,
        operation: &'a str,
        ..outage: &'a Outage<'a> { repeats, since, error },
    },

    /// Requests to the API server succeed again
    INFO LAUNCH ClusterRecovered "the API server answers again" {
        ..over: &'a Over { failures, lasted_seconds },
    },

    /// The wall clock was set forward by `step_seconds`, or the machine was suspended. For a day, no
    /// run is removed because of its age. If the clock is wrong now, correct it: tokens of users may
    /// have expired. Timeouts do not depend on it
    WARN SERVER ClockSetForward
        "the clock was set forward; ended runs are not removed because of their age for a day" {
        step_seconds: Seconds,
    },

    /// The wall clock was set back by `step_seconds`. New runs seem to be older than others. Timeouts
    /// do not depend on it
    WARN SERVER ClockSetBack "the clock was set back; lists by time may be in a wrong order" {
        step_seconds: Seconds,
    },

    /// The certificate's files changed, and new connections get the new certificate
    INFO TLS CertificateReloaded "reloaded the certificate" {
        file: &'a Path,
    },

    /// The certificate's files changed, but cannot be used. New connections get the earlier
    /// certificate
    ERROR TLS CertificateUnusable "cannot reload the certificate; using the earlier one" {
        error: Text<'a>,
    },

    /// A user created a run
    INFO AUDIT RunCreated "run created" {
        run: &'a str,
        tenant: &'a str,
        user: &'a str,
        role: &'a str,
    },

    /// A user aborted a run
    INFO AUDIT RunAborted "run aborted" {
        run: &'a str,
        tenant: &'a str,
        user: &'a str,
        role: &'a str,
    },

    /// A run reached its final status
    INFO AUDIT RunEnded "run ended" {
        run: &'a str,
        tenant: &'a str,
        status: &'a str,
        ?details: Option<&'a str>,
    },

    /// A user signed in on the web page
    INFO AUDIT SignedIn "user signed in" {
        tenant: &'a str,
        user: &'a str,
        role: &'a str,
    },

    /// The server got SIGTERM or SIGINT. It finishes the requests in progress
    INFO SERVER Stopping "stopping",

    /// The last line
    INFO SERVER Stopped "stopped" {
        unfinished: bool,
    },
}

/// Every field of these messages, sorted by name.
pub const FIELDS: &[Field] = &[
    field("address", "address and port"),
    field("attempt", "the number of the attempt, from 0"),
    field("command", "the command to run"),
    field("data", "the data file"),
    field("details", "the details of the status"),
    field(
        "error",
        "what failed, on what, what to do about it, and the causes",
    ),
    field("failures", "the number of failures"),
    field("file", "the file"),
    field("job", "the name of the Job"),
    field("lasted_seconds", "from the first failure to this line"),
    field("listen", "PODBEAT_SERVER_LISTEN"),
    field("live_runs", "the number of runs that have not ended"),
    field("namespace", "the namespace of the Job"),
    field("operation", "the operation that failed"),
    field(
        "repeats",
        "the number of failures since `since`, including this one",
    ),
    field("role", "the role of the user's token: admin, user or read"),
    field("run", "the run's ID"),
    field("runs", "the number of runs"),
    field("seconds", "since the start of the process"),
    field("since", "the time of the first failure"),
    field("status", "the run's status"),
    field("step_seconds", "by how much the clock was set"),
    field("tenant", "the tenant; of a message about a run, the run's"),
    field(
        "unfinished",
        "whether requests were still in progress when the time to stop was over",
    ),
    field("url", "the base URL"),
    field("user", "the user"),
    field(
        "variables",
        "at most five names, each with the similar name of a setting if there is one, and the \
         number of the others",
    ),
    field("version", "podbeat-server's version"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_meaning_and_every_meaning_a_field() {
        let mut used: Vec<&str> = Message::ALL
            .iter()
            .flat_map(|message| message.fields)
            .map(|field| field.name)
            .collect();
        used.sort_unstable();
        used.dedup();
        let described: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(used, described);
    }
}

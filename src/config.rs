//! The settings: read once, validated together, typed.
//!
//! Each setting has a variable and a flag. The flag has priority. A value that is empty or white
//! space counts as unset. [`SETTINGS`] is the only table; the help texts and
//! `docs/configuration.md` are generated from it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use podbeat_files::trimmed;
use podbeat_heartbeat::marker::ContainerName;
use podbeat_heartbeat::report::Report;
use podbeat_interface::environment::{Environment, Flags};
use podbeat_interface::log::LogConfig;
use podbeat_interface::nonce::NonceSource;
use podbeat_interface::parse::printable;
use podbeat_interface::reader::{Errors, Fault, Reader};
use podbeat_interface::reporting::Reporting;
use podbeat_interface::service::{ServiceConfig, ServiceUrl};
pub use podbeat_interface::setting::SETTINGS;
use podbeat_interface::setting::{self, REQUEST_TIMEOUT, Row, SERVICE_SETTINGS, TIMEOUT};
use podbeat_interface::unknown::Unknown;
use podbeat_kubernetes::access::Access;
use podbeat_task_runs::credentials::Source;
use podbeat_task_runs::trace::{self, TraceParent};

use podbeat_interface::indexed;

/// Every setting of `podbeat exec`. The names are the agent's, the container is the command's own.
pub static EXEC_SETTINGS: &[Row] = &[
    setting::EXEC_CONTAINER_NAME.row,
    setting::MARKER_DIR
        .row
        .with_default("required")
        .with_meaning("directory (emptyDir) for the exit marker"),
];

/// The settings of `podbeat reap` beside [`SERVICE_SETTINGS`].
pub static REAP_SETTINGS: &[Row] = &[
    setting::POD_NAMESPACE
        .row
        .with_flag("namespace")
        .with_meaning("namespace of the pods"),
    setting::CONTAINER_NAME
        .row
        .with_meaning("name of podbeat's container in the pods"),
    setting::TASK_CONTAINERS.row.with_meaning(
        "names of the regular containers of the task, comma-separated; the pod's own setting and its annotation \
         podbeat.dev/task-containers take precedence",
    ),
    setting::IGNORED_CONTAINERS.row.with_meaning(
        "names of regular containers that do not belong to the task, comma-separated; the pod's own setting and its annotation \
         podbeat.dev/ignored-containers take precedence",
    ),
    setting::REPORT.row.with_meaning(
        "which containers to report; task: regular containers; all: also init containers and other sidecars; the pod's own \
         setting takes precedence",
    ),
    setting::NONCE_FILE
        .row
        .with_default("a nonce derived from the pod's UID")
        .with_meaning(
            "file with the nonce that the service issued for the run; the pod's own PODBEAT_NONCE takes precedence",
        ),
    setting::SERVICE_ACCOUNT_DIR.row,
    setting::KUBECONFIG.row,
    setting::KUBE_CONTEXT.row,
];

/// The agent's settings, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// The ID of the run. podbeat already replaced `{index}`.
    pub task_run_id: String,
    /// The pod's index in its Indexed Job.
    pub job_completion_index: Option<u32>,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace. `None`: use the kubeconfig's namespace.
    pub pod_namespace: Option<String>,
    /// The pod's UID. `None`: podbeat learns it from the pod.
    pub pod_uid: Option<String>,
    /// The containers to report, and the interval.
    pub reporting: Reporting,
    /// Sent as podHardwareDetails.
    pub pod_hardware_details: Option<String>,
    /// The service's URL. `None` only in a dry run.
    pub service_url: Option<ServiceUrl>,
    /// The token's source. `None` only in a dry run.
    pub token: Option<Source>,
    /// Root certificates for the service, which replace the system's.
    pub ca_file: Option<PathBuf>,
    /// For mutual TLS. Set only together with the key.
    pub client_cert_file: Option<PathBuf>,
    /// For mutual TLS. Set only together with the certificate.
    pub client_key_file: Option<PathBuf>,
    /// The nonce that the service issued.
    pub nonce: Option<NonceSource>,
    /// The limit for one attempt: 100 ms to 5 min.
    pub timeout: Duration,
    /// The directory of the journal.
    pub state_dir: Option<PathBuf>,
    /// The directory of exit markers.
    pub marker_dir: Option<PathBuf>,
    /// The file for a renewed token.
    pub renewed_token_file: Option<PathBuf>,
    /// The address of the admin endpoint.
    pub listen: Option<SocketAddr>,
    /// The time over which reconnects to the Kubernetes API are spread: at most 10 min.
    pub reconnect_spread: Duration,
    /// The log.
    pub log: LogConfig,
    /// The trace of the heartbeats.
    pub trace: Trace,
    /// Whether podbeat logs heartbeats instead of sending them.
    pub dry_run: bool,
    /// The connection to the Kubernetes API.
    pub kubernetes: Access,
    /// Variables with podbeat's prefix that are not settings.
    pub unknown: Option<Unknown>,
}

/// The settings of `podbeat exec`, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecConfig {
    /// The container in which the command runs.
    pub container_name: ContainerName,
    /// Directory of exit markers. Whether it is there is seen when it is used.
    pub marker_dir: PathBuf,
}

/// The settings of `podbeat reap`, validated.
#[derive(Clone, Debug)]
pub struct ReapConfig {
    /// The connection to the service.
    pub service: ServiceConfig,
    /// The pods' namespace. `None`: use the kubeconfig's namespace.
    pub namespace: Option<String>,
    /// The connection to the Kubernetes API.
    pub kubernetes: Access,
    /// Podbeat's container in the pods.
    pub container_name: ContainerName,
    /// The regular containers that are the task's; empty for all but those that are ignored.
    pub task_containers: Vec<ContainerName>,
    /// Regular containers that are not the task's.
    pub ignored_containers: Vec<ContainerName>,
    /// Which containers are reported.
    pub report: Report,
    /// The nonce that the service issued.
    pub nonce: Option<NonceSource>,
}

/// In which trace heartbeats are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// A new trace.
    New,
    /// The trace from the creator of the pod.
    GoOn(TraceParent),
    /// The given value is not valid. podbeat starts a new trace, as the standard requires; the run
    /// does not fail.
    Unfit(trace::Unfit),
}

impl Config {
    /// Reads and validates every setting.
    ///
    /// # Errors
    /// All missing or malformed settings together, by name. The error never contains a secret's
    /// value.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(SETTINGS, flags, environment);
        let config = Self::read(&mut read);
        read.done(config)
    }

    /// Reads every valid setting. An invalid setting gets its default or an empty value.
    fn read(read: &mut Reader<'_, impl Environment>) -> Self {
        let host = read.optional(&setting::KUBERNETES_SERVICE_HOST);
        let in_pod = host.is_some();
        let dry_run = read.get(&setting::DRY_RUN);

        let index = read.optional(&setting::JOB_COMPLETION_INDEX);
        let task_run_id = read.required_if(
            true,
            &setting::TASK_RUN_ID,
            "the ID of the run that this pod executes",
            |pattern| run_id(&pattern, index),
        );
        let pod_name = read.required(
            &setting::POD_NAME,
            "the pod's name, from the downward API (metadata.name)",
        );
        let pod_namespace = read.required_if(
            in_pod,
            &setting::POD_NAMESPACE,
            "the pod's namespace, from the downward API (metadata.namespace)",
            Ok,
        );
        let pod_uid = read.required_if(
            in_pod,
            &setting::POD_UID,
            "the pod's UID, from the downward API (metadata.uid)",
            Ok,
        );
        let service_url = read.service_url(!dry_run);
        let token = read.token(dry_run);
        let (client_cert_file, client_key_file) = read.identity();
        let kubernetes = read.kubernetes(host);
        Self {
            // Empty only if missing or malformed, and then there is a fault.
            task_run_id: task_run_id.unwrap_or_default(),
            job_completion_index: index,
            pod_name: pod_name.unwrap_or_default(),
            pod_namespace,
            pod_uid,
            reporting: Reporting::read(read),
            pod_hardware_details: read.optional(&setting::POD_HARDWARE_DETAILS),
            service_url,
            token,
            ca_file: read.optional(&setting::CA_FILE),
            client_cert_file,
            client_key_file,
            nonce: read.nonce(),
            timeout: read.get(&TIMEOUT),
            state_dir: read.optional(&setting::STATE_DIR),
            marker_dir: read.optional(&setting::MARKER_DIR),
            renewed_token_file: read.optional(&setting::RENEWED_TOKEN_FILE),
            listen: read.optional(&setting::LISTEN),
            reconnect_spread: read.get(&setting::RECONNECT_SPREAD),
            log: LogConfig::read(read, in_pod),
            trace: trace(read.optional(&setting::TRACEPARENT)),
            dry_run,
            kubernetes,
            unknown: read.unknown(),
        }
    }
}

/// The agent's valid settings, for `podbeat check`.
#[derive(Clone, Debug)]
pub struct Partial {
    /// The settings. A missing or malformed setting has its default or an empty value: an empty
    /// text or `None`.
    pub config: Config,
    /// All missing or malformed settings, in the order of the documentation.
    pub faults: Vec<Fault>,
    /// The current profile and its file, as text.
    #[cfg(feature = "laptop")]
    pub profile: Option<String>,
}

impl Partial {
    /// Reads and validates every setting of the agent.
    #[must_use]
    pub fn load(flags: &Flags, environment: &impl Environment) -> Self {
        let settings = check_settings();
        let mut read = Reader::new(&settings, flags, environment);
        let config = Config::read(&mut read);
        let Errors(faults) = read.errors();
        Self {
            config,
            faults,
            #[cfg(feature = "laptop")]
            profile: environment.profile(),
        }
    }

    /// Whether this setting has a fault.
    #[must_use]
    pub fn is_wrong(&self, setting: &Row) -> bool {
        self.faults
            .iter()
            .any(|fault| fault.variable == setting.variable)
    }
}

/// Every setting of `podbeat check`, which are the agent's. Its flag `--timeout` limits one check,
/// so the flag for the agent's timeout has the same name as in `podbeat runs`.
#[must_use]
pub fn check_settings() -> Vec<Row> {
    let flag = |setting: &Row| match setting.flag {
        flag if flag == TIMEOUT.row.flag => REQUEST_TIMEOUT.row.flag,
        flag => flag,
    };
    let settings = SETTINGS
        .iter()
        .map(|setting| setting.with_flag(flag(setting)));
    settings.collect()
}

impl ExecConfig {
    /// Reads and validates the settings of `podbeat exec`.
    ///
    /// # Errors
    /// All missing or malformed settings together, by name.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let mut read = Reader::new(EXEC_SETTINGS, flags, environment);
        let container_name = read.required(
            &setting::EXEC_CONTAINER_NAME,
            "the name of the container that runs the command",
        );
        let marker_dir = read.required(
            &setting::MARKER_DIR,
            "the directory (emptyDir) for the exit marker",
        );
        match (container_name, marker_dir) {
            (Some(container_name), Some(marker_dir)) => read.done(Self {
                container_name,
                marker_dir,
            }),
            // What is missing is among the faults.
            (_, _) => Err(read.errors()),
        }
    }
}

impl ReapConfig {
    /// Reads and validates the settings of `podbeat reap`.
    ///
    /// # Errors
    /// All missing or malformed settings together, by name. The error never contains a secret's
    /// value.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let settings = [SERVICE_SETTINGS, REAP_SETTINGS].concat();
        let mut read = Reader::new(&settings, flags, environment);
        let service = ServiceConfig::read(&mut read);
        let host = read.optional(&setting::KUBERNETES_SERVICE_HOST);
        let namespace = read.required_if(
            host.is_some(),
            &setting::POD_NAMESPACE,
            "the namespace of the pods, or this pod's namespace from the downward API (metadata.namespace)",
            Ok,
        );
        let kubernetes = read.kubernetes(host);
        let (container_name, report) = (
            read.get(&setting::CONTAINER_NAME),
            read.get(&setting::REPORT),
        );
        let (task_containers, ignored_containers) = read.task_containers();
        let nonce = read.optional(&setting::NONCE_FILE).map(NonceSource::File);
        match service {
            Some(service) => read.done(Self {
                service,
                namespace,
                kubernetes,
                container_name,
                task_containers,
                ignored_containers,
                report,
                nonce,
            }),
            // The faults contain the missing setting.
            None => Err(read.errors()),
        }
    }
}

fn trace(given: Option<OsString>) -> Trace {
    let Some(given) = given else {
        return Trace::New;
    };
    match given
        .to_str()
        .ok_or(trace::Unfit::Form)
        .and_then(|text| trimmed::text(text).parse())
    {
        Ok(parent) => Trace::GoOn(parent),
        Err(unfit) => Trace::Unfit(unfit),
    }
}

fn run_id(text: &str, index: Option<u32>) -> Result<String, String> {
    const LONGEST: usize = 256;
    let id = indexed::run_id(text, index).ok_or_else(|| {
        "contains {index}, but JOB_COMPLETION_INDEX is not set: only pods of an Indexed Job have an index, in the annotation \
         batch.kubernetes.io/job-completion-index"
            .to_owned()
    })?;
    if id.chars().count() > LONGEST {
        return Err(format!("must have at most {LONGEST} characters"));
    }
    printable(&id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use podbeat_http_client::route::Proxies;
    use podbeat_interface::parse::LogFormat;
    use podbeat_interface::setting::secs;

    use super::*;

    fn load(settings: &[(&str, &str)]) -> Result<Config, Errors> {
        let map: BTreeMap<String, String> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(&Flags::default(), &map)
    }

    const LEAST: [(&str, &str); 4] = [
        ("TASK_RUN_ID", "trn.1"),
        ("POD_NAME", "p"),
        ("PODBEAT_SERVICE_URL", "https://ica.example"),
        ("PODBEAT_TOKEN", "hunter2"),
    ];

    fn with(more: &[(&str, &str)]) -> Result<Config, Errors> {
        load(&[&LEAST, more].concat())
    }

    fn wrong(more: &[(&str, &str)]) -> String {
        with(more).expect_err("wrong settings").to_string()
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let config = with(&[]).expect("enough");
        let default = |variable: &str| {
            SETTINGS
                .iter()
                .find(|setting| setting.variable == variable)
                .expect("in the table")
                .default()
        };
        let duration =
            |variable: &str| humantime::parse_duration(&default(variable)).expect("a duration");
        assert_eq!(config.reporting.interval, duration("PODBEAT_INTERVAL"));
        assert_eq!(config.timeout, duration("PODBEAT_TIMEOUT"));
        assert_eq!(
            config.reporting.max_status_age,
            duration("PODBEAT_MAX_STATUS_AGE")
        );
        assert_eq!(
            config.reconnect_spread,
            duration("PODBEAT_RECONNECT_SPREAD")
        );
        assert_eq!(
            config.reporting.container_name.as_str(),
            default("PODBEAT_CONTAINER_NAME")
        );
        assert_eq!(config.reporting.report, Report::Task);
        assert_eq!(config.log.format, LogFormat::Text);
        assert_eq!(
            config.kubernetes,
            Access::Kubeconfig {
                path: None,
                context: None,
                proxies: Proxies::default(),
            }
        );
    }

    #[test]
    fn all_that_is_missing_in_a_pod_is_told_at_once() {
        let errors = load(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")])
            .expect_err("nothing is set")
            .to_string();
        for variable in [
            "TASK_RUN_ID",
            "POD_NAME",
            "POD_NAMESPACE",
            "POD_UID",
            "PODBEAT_SERVICE_URL",
            "PODBEAT_TOKEN_FILE",
        ] {
            assert!(
                errors.contains(&format!("\n  {variable} (--")),
                "{variable} in {errors}"
            );
        }
    }

    #[test]
    fn all_that_is_malformed_is_told_at_once_with_its_value() {
        let errors = wrong(&[
            ("PODBEAT_INTERVAL", "soon"),
            ("PODBEAT_TIMEOUT", "1h"),
            ("PODBEAT_REPORT", "some"),
            ("JOB_RETRY_COUNT", "-1"),
            ("PODBEAT_LISTEN", "8080"),
            ("PODBEAT_LOG", "loud"),
            ("PODBEAT_LOG_FORMAT", "xml"),
            ("PODBEAT_ALLOW_HTTP", "perhaps"),
            ("PODBEAT_CLIENT_KEY_FILE", "/k"),
            ("PODBEAT_CONTAINER_NAME", "Pod_Beat"),
        ]);
        for (variable, value) in [
            ("PODBEAT_INTERVAL", "\"soon\""),
            ("PODBEAT_TIMEOUT", "at most 5m"),
            ("PODBEAT_REPORT", "\"some\""),
            ("JOB_RETRY_COUNT", "\"-1\""),
            ("PODBEAT_LISTEN", "\"8080\""),
            ("PODBEAT_LOG", "\"loud\""),
            ("PODBEAT_LOG_FORMAT", "\"xml\""),
            ("PODBEAT_ALLOW_HTTP", "\"perhaps\""),
            ("PODBEAT_CLIENT_CERT_FILE", "missing"),
            ("PODBEAT_CONTAINER_NAME", "Pod_Beat"),
        ] {
            let line = errors
                .lines()
                .find(|line| line.contains(&format!("  {variable} (")));
            assert!(
                line.is_some_and(|line| line.contains(value)),
                "{variable}: {errors}"
            );
        }
        assert!(errors.starts_with("10 settings are"), "{errors}");
    }

    #[test]
    fn no_value_of_a_secret_is_shown() {
        for settings in [
            vec![("PODBEAT_TOKEN", "hunter2 hunter2")],
            vec![("PODBEAT_TOKEN_FILE", "/t")],
            vec![("PODBEAT_NONCE", "hunter2\u{7}")],
            vec![("PODBEAT_NONCE", "hunter2"), ("PODBEAT_NONCE_FILE", "/n")],
            vec![("PODBEAT_SERVICE_URL", "https://user:hunter2@h")],
            vec![("PODBEAT_SERVICE_URL", "https://hunter2@h/x?y")],
            vec![("PODBEAT_SERVICE_URL", "ftp:hunter2@h")],
        ] {
            let errors = with(&settings).expect_err("wrong");
            assert!(
                !format!("{errors} {errors:?}").contains("hunter2"),
                "{errors:?}"
            );
        }
        let config = with(&[("PODBEAT_NONCE", "hunter2")]).expect("right");
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_settings_of_exec_are_checked_all_together_too() {
        let exec = |settings: &[(&str, &str)]| {
            let map: BTreeMap<String, String> = settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            ExecConfig::load(&Flags::default(), &map)
        };
        let errors = exec(&[]).expect_err("nothing is set").to_string();
        assert!(
            errors.contains("PODBEAT_CONTAINER_NAME (--container-name): missing")
                && errors.contains("PODBEAT_MARKER_DIR (--marker-dir): missing"),
            "{errors}"
        );
        for name in ["../main", "a.b", "Main", "-a"] {
            let errors = exec(&[
                ("PODBEAT_CONTAINER_NAME", name),
                ("PODBEAT_MARKER_DIR", "/m"),
            ])
            .expect_err("no container's name")
            .to_string();
            assert!(errors.starts_with("one setting is"), "{errors}");
        }
        let config = exec(&[
            ("PODBEAT_CONTAINER_NAME", "main"),
            ("PODBEAT_MARKER_DIR", "/m"),
        ])
        .expect("right");
        assert_eq!(
            (config.container_name.as_str(), config.marker_dir),
            ("main", "/m".into())
        );
    }

    #[test]
    fn the_index_of_a_pod_takes_its_place_in_the_runs_id() {
        let run = |settings: &[(&str, &str)]| with(settings).map(|config| config.task_run_id);
        let pattern = ("TASK_RUN_ID", "trn.1234-{index}");
        let indexed = [pattern, ("JOB_COMPLETION_INDEX", "7")];
        assert_eq!(run(&indexed), Ok("trn.1234-7".to_owned()));
        // An index changes nothing if the ID has no `{index}`. The downward API supplies an empty
        // text for a missing annotation.
        assert_eq!(
            run(&[("JOB_COMPLETION_INDEX", "7")]),
            Ok("trn.1".to_owned())
        );
        assert_eq!(run(&[("JOB_COMPLETION_INDEX", "")]), Ok("trn.1".to_owned()));
        for none in [&[pattern][..], &[pattern, ("JOB_COMPLETION_INDEX", "")]] {
            let errors = wrong(none);
            assert!(
                errors.starts_with("one setting is")
                    && errors.contains("TASK_RUN_ID (--task-run-id): contains {index}")
                    && errors.contains("JOB_COMPLETION_INDEX is not set")
                    && errors.ends_with("the value is \"trn.1234-{index}\""),
                "{errors}"
            );
        }
        for index in ["-1", "1.5", "one", "4294967296"] {
            let errors = wrong(&[("JOB_COMPLETION_INDEX", index)]);
            assert!(
                errors.contains(
                    "JOB_COMPLETION_INDEX (--job-completion-index): must be a whole number"
                ),
                "{errors}"
            );
        }
        // The limit applies to the final ID, not to the pattern.
        let long = "r".repeat(250) + "{index}";
        let fits = [
            ("TASK_RUN_ID", long.as_str()),
            ("JOB_COMPLETION_INDEX", "123456"),
        ];
        assert_eq!(run(&fits).map(|run| run.len()), Ok(256));
        let too_long = [
            ("TASK_RUN_ID", long.as_str()),
            ("JOB_COMPLETION_INDEX", "1234567"),
        ];
        assert!(wrong(&too_long).contains("at most 256"));
    }

    #[test]
    fn a_log_filter_is_levels_and_targets_and_nothing_else() {
        for (text, shown) in [
            ("info", "info"),
            (" WARN ", "warn"),
            ("off", "off"),
            (" ", "info"),
            ("warn, podbeat::agent=Debug", "podbeat::agent=debug,warn"),
            ("hyper-util=trace", "hyper-util=trace"),
        ] {
            let filter = with(&[("PODBEAT_LOG", text)]).expect(text).log.filter;
            assert_eq!(filter.to_string(), shown, "{text}");
        }
        // The library accepts each of these.
        for text in [
            "loud",
            "3",
            "info,",
            "info,,warn",
            "podbeat=",
            "podbeat=5",
            "=info",
            "a b=info",
            "podbeat[{field}]=info",
            "podbeat==info",
        ] {
            assert!(
                wrong(&[("PODBEAT_LOG", text)]).contains("PODBEAT_LOG"),
                "{text}"
            );
        }
    }

    #[test]
    fn plain_http_is_for_loopback_or_by_leave() {
        for url in [
            "http://localhost:1",
            "http://a.localhost",
            "http://127.0.0.9:1/x",
            "http://[::1]:1",
        ] {
            with(&[("PODBEAT_SERVICE_URL", url)]).expect(url);
        }
        assert!(
            wrong(&[("PODBEAT_SERVICE_URL", "http://ica.example")]).contains("PODBEAT_ALLOW_HTTP")
        );
        with(&[
            ("PODBEAT_SERVICE_URL", "http://ica.example"),
            ("PODBEAT_ALLOW_HTTP", "true"),
        ])
        .expect("by leave");
    }

    #[test]
    fn a_dry_run_needs_neither_service_nor_token() {
        let config = load(&[
            ("TASK_RUN_ID", "r"),
            ("POD_NAME", "p"),
            ("PODBEAT_DRY_RUN", "1"),
        ])
        .expect("enough");
        assert!(config.dry_run && config.service_url.is_none() && config.token.is_none());
    }

    #[test]
    fn a_trace_is_gone_on_in_and_one_that_isnt_valid_is_no_error() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = |text: &str| with(&[("TRACEPARENT", text)]).expect("right").trace;
        assert_eq!(trace(""), Trace::New);
        assert_eq!(
            trace(&format!(" {given}\n")),
            Trace::GoOn(given.parse().expect("valid"))
        );
        assert_eq!(trace("none"), Trace::Unfit(trace::Unfit::Form));
        assert_eq!(
            trace(&given.replace("00-", "ff-")),
            Trace::Unfit(trace::Unfit::Version)
        );
    }

    #[test]
    fn no_color_is_any_text_but_an_empty_one() {
        let colours = |text: &str| with(&[("NO_COLOR", text)]).expect("right").log.colours;
        assert_eq!(
            [colours(""), colours("1"), colours("0")],
            [true, false, false]
        );
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_empty_is_unset() {
        let map: BTreeMap<String, String> = LEAST
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let flags = Flags(
            [
                ("PODBEAT_INTERVAL", "5s".into()),
                ("TASK_RUN_ID", "".into()),
            ]
            .into(),
        );
        let error = Config::load(&flags, &map)
            .expect_err("the run id is empty")
            .to_string();
        assert!(error.contains("TASK_RUN_ID"), "{error}");
        let flags = Flags([("PODBEAT_INTERVAL", "5s".into())].into());
        assert_eq!(
            Config::load(&flags, &map)
                .expect("right")
                .reporting
                .interval,
            secs(5)
        );
    }

    #[test]
    fn what_editors_put_around_a_value_is_no_part_of_it_and_alone_it_is_none() {
        let config = with(&[
            ("TASK_RUN_ID", "\u{feff}trn.1\r\n"),
            ("PODBEAT_NONCE", " issued-7\n"),
            ("PODBEAT_INTERVAL", "\u{feff}5s\n"),
        ])
        .expect("right");
        assert_eq!(
            (config.task_run_id.as_str(), config.reporting.interval),
            ("trn.1", secs(5))
        );
        assert!(
            matches!(config.nonce, Some(NonceSource::Inline(nonce)) if nonce.expose() == "issued-7")
        );
        for blank in ["\n", "\u{feff}\r\n", " "] {
            let error = with(&[("PODBEAT_TOKEN", blank)])
                .expect_err("no token")
                .to_string();
            assert!(error.contains("PODBEAT_TOKEN_FILE"), "{error}");
            assert!(
                with(&[("PODBEAT_NONCE", blank)])
                    .expect("right")
                    .nonce
                    .is_none()
            );
        }
    }

    #[test]
    fn in_a_pod_the_service_account_is_used_unless_a_kubeconfig_is_named() {
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
            ("POD_NAMESPACE", "n"),
            ("POD_UID", "u"),
        ];
        let config = with(&pod).expect("enough");
        assert_eq!(
            config.kubernetes,
            Access::InCluster {
                host: "10.96.0.1".to_owned(),
                port: 6443,
                service_account_dir: "/var/run/secrets/kubernetes.io/serviceaccount".into(),
                proxies: Proxies::default(),
            }
        );
        assert_eq!(config.log.format, LogFormat::Json);
        let named = with(&[&pod[..], &[("KUBECONFIG", "/k")]].concat()).expect("enough");
        assert_eq!(
            named.kubernetes,
            Access::Kubeconfig {
                path: Some("/k".into()),
                context: None,
                proxies: Proxies::default(),
            }
        );
    }

    #[test]
    #[cfg(unix)]
    fn what_isnt_utf8_is_an_error_and_no_crash() {
        use std::os::unix::ffi::OsStringExt;
        let map: BTreeMap<String, String> = LEAST
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let flags = Flags([("POD_NAME", OsString::from_vec(vec![0xff, b'x']))].into());
        let error = Config::load(&flags, &map)
            .expect_err("not UTF-8")
            .to_string();
        assert!(
            error.contains("POD_NAME (--pod-name): not valid UTF-8"),
            "{error}"
        );
    }
}

//! The settings of podbeat-server: each one defined once, read once, validated together.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podbeat_interface::environment::{Environment, Flags};
use podbeat_interface::log::LogConfig;
use podbeat_interface::parse;
use podbeat_interface::reader::{Errors, Reader};
use podbeat_interface::setting::{
    KUBERNETES_SERVICE_HOST, LOG, LOG_FORMAT, Raw, Row, Setting, Text, bounds, duration, path,
    secs, setting, switch, valued,
};
use podbeat_interface::unknown::Unknown;
use url::Url;

use podbeat_runs::Rules;

const DAY: u64 = 24 * 3600;

/// The address for a first try on a laptop.
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

const DATA_FILE: &str = "podbeat.db";

podbeat_interface::settings! {
    /// Every setting of podbeat-server, in the order of the documents, except those of the log.
    OWN:

    /// address and port of the API and the web page
    LISTEN: Setting<SocketAddr, SocketAddr> = valued(
        "PODBEAT_SERVER_LISTEN", "listen", LOOPBACK, "127.0.0.1:8080", Text(parse::address)
    );

    /// base URL at which clients and agents reach the service: https, or http for loopback or with
    /// PODBEAT_SERVER_ALLOW_HTTP; it can have a path, and the API is then below that path
    URL: Setting<String> = setting(
        "PODBEAT_SERVER_URL", "url", "the address of PODBEAT_SERVER_LISTEN", Text(parse::text)
    );

    /// certificate chain of the server (PEM); requires PODBEAT_SERVER_KEY_FILE; the server reads
    /// both files again when they change
    CERT_FILE: Setting<PathBuf> = path("PODBEAT_SERVER_CERT_FILE", "cert-file", "none: no TLS");

    /// private key of the certificate (PEM)
    KEY_FILE: Setting<PathBuf> = path("PODBEAT_SERVER_KEY_FILE", "key-file", "none");

    /// allow an address other than loopback without TLS, for example behind a proxy that ends TLS;
    /// tokens are then not encrypted on the way to this server
    ALLOW_HTTP: Setting<bool, bool> = switch("PODBEAT_SERVER_ALLOW_HTTP", "allow-http");

    /// SQLite file with all runs and tokens; only one server can use it
    DATA: Setting<PathBuf, &'static str> =
        valued("PODBEAT_SERVER_DATA", "data", DATA_FILE, DATA_FILE, Raw(parse::path));

    /// file with the keys that encrypt the secrets of runs and sign the tokens of agents; one key
    /// per line, and the first one encrypts and signs; the server creates it if it does not exist
    SECRETS_KEY_FILE: Setting<PathBuf> = path(
        "PODBEAT_SERVER_SECRETS_KEY_FILE", "secrets-key-file",
        "PODBEAT_SERVER_DATA with .key at its end"
    );

    /// address and port for /livez, /readyz and /metrics, without TLS or authentication
    ADMIN_LISTEN: Setting<SocketAddr> = setting(
        "PODBEAT_SERVER_ADMIN_LISTEN", "admin-listen", "off", Text(parse::address)
    );

    /// base URL of an OpenTelemetry collector (OTLP over HTTP), such as http://collector:4318; the
    /// server sends a span for each request whose traceparent has the sampled flag
    OTLP_ENDPOINT: Setting<String> = setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT", "otlp-endpoint", "none: no traces", Text(otlp_endpoint)
    );

    /// a running run without a heartbeat for this long becomes TimedOut; after a restart of the
    /// server, this time begins again
    HEARTBEAT_TIMEOUT: Setting<Duration, Duration> = duration(
        "PODBEAT_SERVER_HEARTBEAT_TIMEOUT", "heartbeat-timeout", secs(600),
        bounds(secs(1), secs(30 * DAY))
    );

    /// file that says how the server launches runs on Kubernetes (JSON; docs/launch.md); without it,
    /// the server creates no pods, and runs are for pods that others create
    LAUNCH_FILE: Setting<PathBuf> =
        path("PODBEAT_SERVER_LAUNCH_FILE", "launch-file", "none: the server launches no runs");

    /// kubeconfig of the cluster in which the server launches runs
    KUBECONFIG: Setting<PathBuf> = path(
        "PODBEAT_SERVER_KUBECONFIG", "kubeconfig",
        "in a pod its service account, elsewhere the user's kubeconfig"
    );

    /// how long a run that failed waits for its next attempt before it becomes Failed, if the server
    /// does not launch the run
    RETRY_WAIT: Setting<Duration, Duration> = duration(
        "PODBEAT_SERVER_RETRY_WAIT", "retry-wait", secs(900), bounds(secs(1), secs(30 * DAY))
    );

    /// lifetime of the tokens that the server issues to agents; an agent gets a new one after half
    /// of it
    TOKEN_LIFETIME: Setting<Duration, Duration> = duration(
        "PODBEAT_SERVER_TOKEN_LIFETIME", "token-lifetime", secs(DAY), bounds(secs(60), secs(30 * DAY))
    );

    /// maximum number of runs of a tenant that have not ended; a create above it gets 429
    LIVE_RUNS: Setting<u64, u64> = valued(
        "PODBEAT_SERVER_LIVE_RUNS", "live-runs", 100_000, "100000", Text(number)
    );

    /// maximum number of runs that a tenant creates in a minute; a create above it gets 429
    CREATES_PER_MINUTE: Setting<u64, u64> = valued(
        "PODBEAT_SERVER_CREATES_PER_MINUTE", "creates-per-minute", 6_000, "6000", Text(number)
    );

    /// how long ended runs are kept
    RETENTION: Setting<Duration, Duration> = duration(
        "PODBEAT_SERVER_RETENTION", "retention", secs(30 * DAY),
        bounds(secs(60), Duration::MAX)
    );

    /// maximum number of runs; above it, the oldest ended runs are removed
    RETAINED_RUNS: Setting<u64, u64> = valued(
        "PODBEAT_SERVER_RETAINED_RUNS", "retained-runs", 1_000_000, "1000000", Text(number)
    );
}

/// Every setting of podbeat-server, in the order of the documents.
#[must_use]
pub fn all() -> Vec<Row> {
    let log = [LOG.row, LOG_FORMAT.row];
    OWN.iter().copied().chain(log).collect()
}

/// The settings of the commands that only use the data file.
#[must_use]
pub fn of_data() -> Vec<Row> {
    vec![DATA.row]
}

/// A positive number. The largest is that of the database's integers.
fn number(text: &str) -> Result<u64, String> {
    const MOST: u64 = i64::MAX as u64;
    let number = text
        .parse()
        .ok()
        .filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| "must be a whole number, at least 1".to_owned())
}

/// An http or https URL without a query or a fragment. It may be the address of a collector in the
/// same cluster, so http is allowed for every host: spans have no secrets.
fn otlp_endpoint(text: &str) -> Result<String, String> {
    let url: Option<Url> = text.parse().ok();
    let is_good = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    match url.filter(is_good) {
        Some(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        None => Err("must be an http or https URL, such as http://collector:4318".to_owned()),
    }
}

/// The base URL of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// The URL, without a slash at its end.
    pub url: String,
    /// Its path, such as `/ica`. Empty if there is none.
    pub path: String,
    /// Whether it is https.
    pub is_secure: bool,
}

/// The settings, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address of the API and the web page.
    pub listen: SocketAddr,
    /// The base URL. `None`: the address on which the server listens, which the system may choose.
    pub url: Option<BaseUrl>,
    /// The certificate chain and its key. `None`: no TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The data file.
    pub data: PathBuf,
    /// The key file.
    pub secrets_key_file: PathBuf,
    /// The address of the probes and the metrics.
    pub admin_listen: Option<SocketAddr>,
    /// The launch file. `None`: the server launches no runs.
    pub launch_file: Option<PathBuf>,
    /// The kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// The collector of traces.
    pub otlp_endpoint: Option<String>,
    /// The rules of runs.
    pub rules: Rules,
    /// The lifetime of agents' tokens.
    pub token_lifetime: Duration,
    /// The maximum number of a tenant's runs that have not ended.
    pub live_runs: u64,
    /// The maximum number of runs that a tenant creates in a minute.
    pub creates_per_minute: u64,
    /// How long ended runs are kept.
    pub retention: Duration,
    /// The maximum number of runs.
    pub retained_runs: u64,
    /// The log.
    pub log: LogConfig,
    /// Variables with the server's prefix that are not settings.
    pub unknown: Option<Unknown>,
    /// Whether the server runs in a pod.
    pub in_pod: bool,
}

/// How long a run waits for the rest of the evidence after its attempt ended, if the server launched
/// it: longer than a heartbeat that is on its way.
const EVIDENCE_WAIT: Duration = Duration::from_secs(15);

impl Config {
    /// Reads and validates every setting.
    ///
    /// # Errors
    /// All malformed settings together, by name.
    pub fn load(flags: &Flags, environment: &impl Environment) -> Result<Self, Errors> {
        let settings = all();
        let mut read = Reader::new(&settings, flags, environment);
        let config = Self::read(&mut read, Unknown::of_server(environment, OWN));
        read.done(config)
    }

    fn read(read: &mut Reader<'_, impl Environment>, unknown: Option<Unknown>) -> Self {
        let in_pod = read.is_set(&KUBERNETES_SERVICE_HOST);
        let listen = read.get(&LISTEN);
        let allow_http = read.get(&ALLOW_HTTP);
        let (certificate, key) = read.both_or_neither(&CERT_FILE, &KEY_FILE);
        let identity = certificate.zip(key);
        if identity.is_none() && !listen.ip().is_loopback() && !allow_http {
            let problem = "other hosts can reach this address, and without a certificate tokens are \
                           not encrypted: set PODBEAT_SERVER_CERT_FILE and \
                           PODBEAT_SERVER_KEY_FILE, or PODBEAT_SERVER_ALLOW_HTTP if a proxy \
                           ends TLS";
            read.fault(&LISTEN, problem);
        }
        let data = read.optional(&DATA).unwrap_or_else(|| DATA_FILE.into());
        let key_file = read.optional(&SECRETS_KEY_FILE);
        Self {
            listen,
            url: read.optional_with(&URL, |text| base_url(&text, allow_http)),
            identity,
            secrets_key_file: key_file.unwrap_or_else(|| key_beside(&data)),
            data,
            admin_listen: read.optional(&ADMIN_LISTEN),
            launch_file: read.optional(&LAUNCH_FILE),
            kubeconfig: read.optional(&KUBECONFIG),
            otlp_endpoint: read.optional(&OTLP_ENDPOINT),
            rules: Rules {
                heartbeat_timeout: read.get(&HEARTBEAT_TIMEOUT),
                evidence_wait: EVIDENCE_WAIT,
                retry_wait: read.get(&RETRY_WAIT),
                ..Rules::DEFAULT
            },
            token_lifetime: read.get(&TOKEN_LIFETIME),
            live_runs: read.get(&LIVE_RUNS),
            creates_per_minute: read.get(&CREATES_PER_MINUTE),
            retention: read.get(&RETENTION),
            retained_runs: read.get(&RETAINED_RUNS),
            log: LogConfig::read(read, in_pod),
            unknown,
            in_pod,
        }
    }

    /// The base URL. `address` is where the server listens.
    #[must_use]
    pub fn base_url(&self, address: SocketAddr) -> BaseUrl {
        let is_secure = self.identity.is_some();
        let scheme = if is_secure { "https" } else { "http" };
        self.url.clone().unwrap_or_else(|| BaseUrl {
            url: format!("{scheme}://{address}"),
            path: String::new(),
            is_secure,
        })
    }
}

/// The data file's settings, for the commands that only use that.
///
/// # Errors
/// The setting is malformed.
pub fn data_file(flags: &Flags, environment: &impl Environment) -> Result<PathBuf, Errors> {
    let settings = of_data();
    let mut read = Reader::new(&settings, flags, environment);
    let data = read.optional(&DATA).unwrap_or_else(|| DATA_FILE.into());
    read.done(data)
}

fn key_beside(data: &Path) -> PathBuf {
    let mut path = data.as_os_str().to_owned();
    path.push(".key");
    path.into()
}

/// A base URL without credentials, query or fragment.
fn base_url(text: &str, allow_http: bool) -> Result<BaseUrl, String> {
    let url: Url = text
        .parse()
        .map_err(|_| "must be a URL, such as https://podbeat.example.com".to_owned())?;
    let host = url.host().ok_or("must have a host")?;
    let is_loopback = match host {
        url::Host::Domain(name) => name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback || allow_http => {}
        "http" => {
            return Err(
                "must be https, unless the host is loopback or PODBEAT_SERVER_ALLOW_HTTP is true"
                    .to_owned(),
            );
        }
        _ => return Err("must be an https URL".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user name or a password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not contain ? or #".to_owned());
    }
    Ok(BaseUrl {
        path: url.path().trim_end_matches('/').to_owned(),
        is_secure: url.scheme() == "https",
        url: url.as_str().trim_end_matches('/').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn load(settings: &[(&str, &str)]) -> Result<Config, Errors> {
        let map: BTreeMap<String, String> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load(&Flags::default(), &map)
    }

    fn problem(settings: &[(&str, &str)]) -> String {
        load(settings).expect_err("wrong").to_string()
    }

    #[test]
    fn without_settings_it_is_a_server_on_loopback() {
        let config = load(&[]).expect("right");
        assert_eq!(config.listen, LOOPBACK);
        assert_eq!(config.data, Path::new("podbeat.db"));
        assert_eq!(config.secrets_key_file, Path::new("podbeat.db.key"));
        let url = config.base_url("127.0.0.1:81".parse().expect("an address"));
        assert_eq!(
            (url.url.as_str(), url.is_secure),
            ("http://127.0.0.1:81", false)
        );
        assert_eq!((config.admin_listen, config.unknown), (None, None));
    }

    #[test]
    fn every_default_is_the_described_one() {
        let settings: Vec<(&str, String)> = OWN
            .iter()
            .filter(|row| row.kind == podbeat_interface::setting::Kind::Value)
            .map(|row| (row.variable, row.default().into_owned()))
            .filter(|(_, default)| !default.contains([' ', ':']) || default.contains("127"))
            .filter(|(_, default)| !matches!(default.as_str(), "none" | "off"))
            .collect();
        assert!(settings.len() >= 9, "{settings:?}");
        let given: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let (given, default) = (load(&given).expect("right"), load(&[]).expect("right"));
        assert_eq!(format!("{given:?}"), format!("{default:?}"));
    }

    #[test]
    fn all_faults_are_reported_at_once_by_name() {
        let text = problem(&[
            ("PODBEAT_SERVER_LISTEN", "nowhere"),
            ("PODBEAT_SERVER_URL", "https://user:hunter2@host"),
            ("PODBEAT_SERVER_KEY_FILE", "key.pem"),
            ("PODBEAT_SERVER_LIVE_RUNS", "0"),
            ("PODBEAT_SERVER_RETENTION", "1s"),
            ("PODBEAT_LOG", "loud"),
        ]);
        for name in [
            "6 settings are missing or invalid",
            "PODBEAT_SERVER_LISTEN (--listen)",
            "PODBEAT_SERVER_URL (--url): must not contain a user name",
            "PODBEAT_SERVER_CERT_FILE (--cert-file): missing",
            "PODBEAT_SERVER_LIVE_RUNS (--live-runs): must be a whole number",
            "PODBEAT_SERVER_RETENTION (--retention): must be at least 1m",
            "PODBEAT_LOG (--log)",
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn other_hosts_need_tls() {
        let listen = ("PODBEAT_SERVER_LISTEN", "0.0.0.0:8443");
        assert!(problem(&[listen]).contains("PODBEAT_SERVER_CERT_FILE"));
        let files = [
            listen,
            ("PODBEAT_SERVER_CERT_FILE", "c.pem"),
            ("PODBEAT_SERVER_KEY_FILE", "k.pem"),
        ];
        let config = load(&files).expect("right");
        assert!(config.base_url(config.listen).is_secure);
        let config = load(&[listen, ("PODBEAT_SERVER_ALLOW_HTTP", "true")]).expect("right");
        assert!(!config.base_url(config.listen).is_secure);
    }

    #[test]
    fn a_base_url_is_https_or_loopback_and_may_have_a_path() {
        let of = |text: &str| load(&[("PODBEAT_SERVER_URL", text)]).map(|config| config.url);
        let url = of("https://podbeat.example/ica/")
            .expect("right")
            .expect("a URL");
        assert_eq!(
            (url.url.as_str(), url.path.as_str(), url.is_secure),
            ("https://podbeat.example/ica", "/ica", true)
        );
        let url = of("http://localhost:81").expect("right").expect("a URL");
        assert_eq!(
            (url.url.as_str(), url.path.as_str()),
            ("http://localhost:81", "")
        );
        for wrong in [
            "podbeat",
            "http://podbeat.example",
            "ftp://localhost",
            "https://h?q",
            "https://h#f",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_that_are_no_settings_are_noticed() {
        let config = load(&[("PODBEAT_SERVER_LISTN", "x"), ("PODBEAT_TOKN", "x")]).expect("right");
        let unknown = config.unknown.expect("one").to_string();
        assert_eq!(
            unknown,
            "PODBEAT_SERVER_LISTN (did you mean PODBEAT_SERVER_LISTEN?)"
        );
    }
}

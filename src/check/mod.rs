//! `podbeat check`: checks the agent's prerequisites and suggests fixes. This module defines the
//! checks, their deadlines, results and remedies. It changes nothing: it sends no heartbeat, renews
//! no token, and leaves no file behind.

mod clock;
mod deployed;
mod files;
mod kubernetes;
mod service;
mod tls;
mod token;

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use podbeat_interface::certificate;
use podbeat_interface::exit::{Ending, with_causes};
use podbeat_interface::finding::{Finding, Findings};
use podbeat_interface::nonce::{self, NonceSource};
use podbeat_interface::reader::Fault;
use podbeat_interface::setting::{Row, SERVICE_URL, TOKEN, TOKEN_FILE};
use podbeat_task_runs::Secret;
use podbeat_task_runs::client::Tls;
use podbeat_task_runs::credentials::{Credentials, Source};

use self::tls::Means;
use crate::config::{Config, Partial};
use crate::journal;

const SETTINGS: &str = "settings";
#[cfg(feature = "laptop")]
const PROFILE: &str = "settings.profile";
const UNKNOWN: &str = "settings.unknown";
const FILES: &str = "settings.files";
const SOURCE: &str = "token.source";

/// One call of `podbeat check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The limit for one check. The whole command takes at most five times this limit: name,
    /// connection, TLS, response and run are consecutive, and all other checks run in parallel with
    /// them.
    pub timeout: Duration,
    /// JSON or YAML instead of a table.
    pub format: Option<Format>,
}

/// The output format for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, on one line.
    Json,
    /// The same as YAML.
    Yaml,
}

impl Format {
    /// All formats and their names.
    pub const ALL: [(&'static str, Self); 2] = [("json", Self::Json), ("yaml", Self::Yaml)];
}

/// Runs work that may wait for a disk, on another thread. Abandons the thread if the work does not
/// end in time.
async fn blocking<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let done = tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await;
    done.ok()?.ok()
}

fn in_words(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Formats an error with its last cause only. The causes in between only say that there is another
/// one.
fn told(error: &dyn std::error::Error) -> String {
    let mut last = None;
    let mut source = error.source();
    while let Some(cause) = source {
        last = Some(cause);
        source = cause.source();
    }
    last.map_or_else(|| error.to_string(), |last| format!("{error}: {last}"))
}

/// Makes all checks, independent ones in parallel, and writes the results to `out`.
pub async fn run(
    partial: &Partial,
    invocation: &Invocation,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Ending {
    // Installs ring for the whole process, including kube's client. An error means that it is
    // already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let findings = Findings::new(Box::pin(look(partial, invocation.timeout)).await);
    let text = match invocation.format {
        Some(Format::Json) => findings.json(),
        Some(Format::Yaml) => findings.yaml(),
        None => findings.table(),
    };
    let ending = if findings.ok {
        Ending::Done
    } else {
        Ending::Unmet
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(notes, "podbeat: cannot write to standard output: {error}");
            Ending::Unwritten
        }
        Ok(()) | Err(_) => ending,
    }
}

async fn look(partial: &Partial, limit: Duration) -> Vec<Finding> {
    let config = &partial.config;
    let service = async {
        let mut found = Vec::new();
        let (files, means) = settings_files(config, limit).await;
        let (source, token) = token_source(partial, limit).await;
        found.push(files);
        found.push(source);
        found.push(match &token {
            Some(token) => token::expiry(token, Timestamp::now()),
            None => Finding::because(token::EXPIRY, SOURCE),
        });
        found.extend(of_service(partial, token, means, limit).await);
        found
    };
    // These do not depend on each other.
    let (service, kubernetes, files) = tokio::join!(
        service,
        kubernetes::check(partial, limit),
        files::check(config, limit)
    );
    let mut found = settings(&partial.faults, config.dry_run);
    #[cfg(feature = "laptop")]
    if let Some(profile) = &partial.profile {
        found.push(Finding::ok(PROFILE, profile));
    }
    if let Some(unknown) = &config.unknown {
        let seen = format!("unknown environment variables: {unknown}");
        let remedy = "Correct or remove these variables in podbeat's container. podbeat ignores them. See \
                      docs/configuration.md for all settings.";
        found.push(Finding::warning(UNKNOWN, seen, remedy));
    }
    found.extend(service);
    found.extend(kubernetes);
    found.extend(files);
    found
}

fn settings(faults: &[Fault], dry_run: bool) -> Vec<Finding> {
    if faults.is_empty() {
        return vec![match dry_run {
            true => Finding::warning(
                SETTINGS,
                "podbeat sends nothing: PODBEAT_DRY_RUN is true",
                "To send heartbeats, unset PODBEAT_DRY_RUN.",
            ),
            false => Finding::ok(SETTINGS, "all settings are valid"),
        }];
    }
    let each = faults.iter().map(|fault| {
        let id = format!("{SETTINGS}.{}", fault.variable);
        let remedy = match fault.flag {
            "" => format!("Fix {}.", fault.variable),
            flag => format!(
                "Set {} in podbeat's container, or --{flag}. See docs/configuration.md for valid values. Until then, podbeat \
                 exits at once with code 64.",
                fault.variable
            ),
        };
        Finding::failed(&id, &fault.problem, remedy)
    });
    each.collect()
}

/// Checks the configured files that the agent reads at the start. It exits with 64 if one is
/// unusable.
async fn settings_files(config: &Config, limit: Duration) -> (Finding, Option<Means>) {
    let tls = tls_of(config);
    let nonce = match &config.nonce {
        Some(NonceSource::File(path)) => Some(path.clone()),
        Some(NonceSource::Inline(_)) | None => None,
    };
    let named: Vec<String> = [&tls.ca_file, &nonce]
        .into_iter()
        .flatten()
        .chain(
            tls.identity
                .iter()
                .flat_map(|(certificate, key)| [certificate, key]),
        )
        .map(|path| path.display().to_string())
        .collect();
    let read = blocking(limit, move || {
        (Means::load(&tls), nonce.as_deref().map(nonce::read))
    });
    let remedy = "Mount the files of PODBEAT_CA_FILE, PODBEAT_CLIENT_CERT_FILE, PODBEAT_CLIENT_KEY_FILE and PODBEAT_NONCE_FILE so that \
                  podbeat's user can read them. The first three must be PEM files. Otherwise podbeat exits at once with code 64.";
    let Some((means, nonce)) = read.await else {
        let seen = format!("reading {} did not finish in time", named.join(", "));
        return (Finding::failed(FILES, seen, remedy), None);
    };
    let (means, own) = match means {
        Ok((means, own)) => (means, own),
        Err(error) => return (Finding::failed(FILES, with_causes(&error), remedy), None),
    };
    if let Some(Err(error)) = nonce {
        return (
            Finding::failed(FILES, with_causes(&error), remedy),
            Some(means),
        );
    }
    let seen = match named.as_slice() {
        [] => "no files are set; podbeat uses the system's roots".to_owned(),
        named => format!("readable: {}", named.join(", ")),
    };
    let finding = own.and_then(|own| {
        let left = own.not_after.duration_since(Timestamp::now());
        let remedy = "Renew the client certificate, and restart podbeat to load it.";
        let seen = |what: &str| {
            format!(
                "the client certificate {} {what} {}",
                own.subject, own.not_after
            )
        };
        if left.is_negative() {
            Some(Finding::failed(FILES, seen("expired at"), remedy))
        } else if left < certificate::NEAR {
            Some(Finding::warning(FILES, seen("expires soon, at"), remedy))
        } else {
            None
        }
    });
    (
        finding.unwrap_or_else(|| Finding::ok(FILES, seen)),
        Some(means),
    )
}

fn tls_of(config: &Config) -> Tls {
    Tls {
        ca_file: config.ca_file.clone(),
        identity: config
            .client_cert_file
            .clone()
            .zip(config.client_key_file.clone()),
    }
}

/// Returns the token that the agent would send next: the last renewed token from the journal, else
/// the token of the settings.
async fn token_source(partial: &Partial, limit: Duration) -> (Finding, Option<Secret>) {
    let config = &partial.config;
    let Some(given) = &config.token else {
        let wrong = [&TOKEN_FILE.row, &TOKEN.row]
            .into_iter()
            .find(|setting| partial.is_wrong(setting));
        let finding = match wrong {
            Some(Row { variable, .. }) => {
                Finding::because(SOURCE, &format!("{SETTINGS}.{variable}"))
            }
            None => Finding::skipped(SOURCE, "no token is set; a dry run does not need one"),
        };
        return (finding, None);
    };
    let source = given.clone();
    let place = match given {
        Source::File(path) => path.display().to_string(),
        Source::Inline(_) => TOKEN.row.variable.to_owned(),
    };
    let journal = config.state_dir.as_ref().map(|dir| dir.join(journal::FILE));
    let (run, uid) = (config.task_run_id.clone(), config.pod_uid.clone());
    let read = blocking(limit, move || {
        let left = journal.and_then(|path| journal::read(&path).ok().flatten());
        let left = left.filter(|contents| contents.is_of(&run, uid.as_deref()));
        let renewed = left.and_then(|contents| contents.renewed_token);
        let mut credentials = Credentials::new(source, renewed);
        let token = credentials.token();
        (token, credentials.renewed().is_some())
    });
    match read.await {
        Some((Ok(token), false)) => {
            let seen = format!("{place} has a valid form");
            (Finding::ok(SOURCE, seen), Some(token))
        }
        Some((Ok(token), true)) => {
            let seen =
                format!("a token renewed by the service, from the journal, instead of {place}");
            (Finding::ok(SOURCE, seen), Some(token))
        }
        Some((Err(error), _)) => (
            Finding::failed(
                SOURCE,
                with_causes(&error),
                "Set PODBEAT_TOKEN_FILE to a file that podbeat's user can read, and that contains only the bearer token, on one line. In a \
                 cluster, this is the key token of the Secret podbeat-token; deploy/manifests/podbeat.yaml shows how to mount it.",
            ),
            None,
        ),
        None => (
            Finding::failed(
                SOURCE,
                format!("cannot read {place} within {}", in_words(limit)),
                "Check on the node whether the volume of this file responds.",
            ),
            None,
        ),
    }
}

async fn of_service(
    partial: &Partial,
    token: Option<Secret>,
    means: Option<Means>,
    limit: Duration,
) -> Vec<Finding> {
    let config = &partial.config;
    let Some(url) = &config.service_url else {
        // The URL itself, or the proxy.
        let is_of_the_way = |variable: &str| {
            variable == SERVICE_URL.row.variable
                || variable.to_ascii_lowercase().ends_with("_proxy")
        };
        let mut wrong = partial.faults.iter().map(|fault| fault.variable);
        return match wrong.find(|variable| is_of_the_way(variable)) {
            Some(variable) => service::none(&format!("because of settings.{variable}")),
            None => service::none("PODBEAT_SERVICE_URL is not set; a dry run does not need it"),
        };
    };
    let settings = service::Settings {
        url,
        tls: tls_of(config),
        token,
        run_id: Some(config.task_run_id.as_str()).filter(|id| !id.is_empty()),
    };
    service::check(settings, means, limit).await
}

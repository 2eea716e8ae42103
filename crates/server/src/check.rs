//! `podbeat-server check`: checks store, key, certificate and clock, and suggests fixes. It changes
//! nothing.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use podbeat_interface::certificate;
use podbeat_interface::finding::{Finding, Findings};
use podbeat_interface::reader::Errors;
use podbeat_interface::throttle::Chain;
use podbeat_launch::cluster::Kubernetes;
use podbeat_launch::settings::Settings;

use crate::data;
use crate::keys::Keys;
use crate::launching;
use crate::settings::Config;
use crate::store::{Inspection, Sqlite};
use crate::tls::Identity;

const SETTINGS: &str = "settings";
const UNKNOWN: &str = "settings.unknown";
const STORE: &str = "store";
const SPACE: &str = "store.space";
const TOKENS: &str = "store.tokens";
const KEY: &str = "key";
const CERTIFICATE: &str = "certificate";
const CLOCK: &str = "clock";
const LAUNCH: &str = "launch";
const RIGHTS: &str = "launch.rights";

/// Less free space than this is a warning, in bytes.
const LITTLE: u64 = 1 << 30;

/// By this much, the newest change in the store may be later than the clock.
const TOLERATED: SignedDuration = SignedDuration::from_secs(5);

/// No clock is right that shows an earlier time: this version did not exist then.
const RELEASED: &str = "2026-11-01T00:00:00Z";

/// Makes all checks.
pub async fn run(config: &Result<Config, Errors>, now: Timestamp) -> Findings {
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            let remedy = "Correct the settings. podbeat-server --help lists all of them.";
            let mut findings = vec![Finding::failed(SETTINGS, faults(errors), remedy)];
            let others = [
                STORE,
                SPACE,
                TOKENS,
                KEY,
                CERTIFICATE,
                CLOCK,
                LAUNCH,
                RIGHTS,
            ];
            findings.extend(others.map(|id| Finding::because(id, SETTINGS)));
            return Findings::new(findings);
        }
    };
    let mut findings = vec![
        Finding::ok(SETTINGS, "all settings are valid"),
        unknown(config),
    ];
    let known = data::known_keys(&config.data);
    let (store, inspection) = store(&config.data, &known);
    findings.push(store);
    findings.push(space(&config.data));
    findings.push(tokens(inspection.as_ref()));
    let has_runs = inspection.as_ref().is_some_and(|found| found.runs > 0);
    findings.push(key(&config.secrets_key_file, has_runs, &known));
    findings.push(own_certificate(config, now));
    findings.push(clock(inspection.as_ref(), now));
    findings.extend(launch(config).await);
    Findings::new(findings)
}

fn faults(errors: &Errors) -> String {
    let one =
        |fault: &podbeat_interface::reader::Fault| format!("{}: {}", fault.variable, fault.problem);
    let all: Vec<String> = errors.0.iter().map(one).collect();
    all.join("; ")
}

fn unknown(config: &Config) -> Finding {
    match &config.unknown {
        None => Finding::ok(
            UNKNOWN,
            "every variable with the prefix PODBEAT_SERVER_ is a setting",
        ),
        Some(unknown) => Finding::warning(
            UNKNOWN,
            format!("not settings: {unknown}"),
            "Correct the names of these environment variables, or remove them.",
        ),
    }
}

fn store(path: &Path, known: &[String]) -> (Finding, Option<Inspection>) {
    let shown = path.display();
    if data::was_emptied(path, known) {
        let seen = format!("{shown} is empty or does not exist, but was used before");
        let remedy = "Restore the data file from a backup. To begin without its runs and tokens, \
                      remove the lock file beside it.";
        return (Finding::failed(STORE, seen, remedy), None);
    }
    if !path.exists() {
        return match data::directory(path).is_dir() {
            true => {
                let seen = format!("{shown} does not exist yet; the server creates it");
                (Finding::ok(STORE, seen), None)
            }
            false => {
                let seen = format!("the directory of {shown} does not exist");
                let remedy = "Create the directory, or correct PODBEAT_SERVER_DATA.";
                (Finding::failed(STORE, seen, remedy), None)
            }
        };
    }
    match Sqlite::inspect(path) {
        Ok(None) => (Finding::ok(STORE, format!("{shown} is empty")), None),
        Ok(Some(found)) => match &found.damage {
            None => {
                let seen = format!("{shown} is undamaged; runs: {}", found.runs);
                (Finding::ok(STORE, seen), Some(found))
            }
            Some(damage) => {
                let remedy = "Stop the server, and restore the data file from a backup.";
                let seen = format!("{shown} is damaged: {damage}");
                (Finding::failed(STORE, seen, remedy), None)
            }
        },
        Err(error) => {
            let remedy = "Correct PODBEAT_SERVER_DATA or the permissions, or restore the file from a backup.";
            (
                Finding::failed(STORE, Chain(&error).to_string(), remedy),
                None,
            )
        }
    }
}

fn space(path: &Path) -> Finding {
    let Some(free) = data::disk_free(path) else {
        return Finding::skipped(SPACE, "the file system does not report its free space");
    };
    let seen = format!("{} MiB are free on the disk of the data file", free >> 20);
    match free < LITTLE {
        true => Finding::warning(
            SPACE,
            seen,
            "Enlarge the volume, or reduce PODBEAT_SERVER_RETENTION or PODBEAT_SERVER_RETAINED_RUNS. \
             With a full disk the server answers 503.",
        ),
        false => Finding::ok(SPACE, seen),
    }
}

fn tokens(inspection: Option<&Inspection>) -> Finding {
    match inspection.map(|found| found.tokens) {
        None => Finding::because(TOKENS, STORE),
        Some(0) => Finding::warning(
            TOKENS,
            "there is no token, so nobody can use the API",
            "Run podbeat-server token create.",
        ),
        Some(tokens) => Finding::ok(TOKENS, format!("tokens that are not revoked: {tokens}")),
    }
}

fn key(path: &Path, has_runs: bool, known: &[String]) -> Finding {
    use std::os::unix::fs::PermissionsExt;
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && !has_runs && known.is_empty() =>
        {
            return Finding::ok(
                KEY,
                format!("{shown} does not exist yet; the server creates it"),
            );
        }
        Err(error) => {
            let remedy = "Restore the key file from a backup, or correct PODBEAT_SERVER_SECRETS_KEY_FILE. Without the key, \
                          secrets of runs are unreadable, and agents need new tokens.";
            return Finding::failed(KEY, format!("cannot read {shown}: {error}"), remedy);
        }
    };
    match Keys::load(path) {
        Err(error) => {
            let remedy =
                "Correct the file. Each line is one key, as openssl rand -base64 32 prints it.";
            Finding::failed(KEY, Chain(&error).to_string(), remedy)
        }
        Ok(keys) if data::has_only_others(&keys.ids(), known) => {
            let remedy = "Add the earlier key to the file. Without it, secrets of runs are \
                          unreadable, and agents need new tokens.";
            let seen = format!("the data file was used with another key than those in {shown}");
            Finding::failed(KEY, seen, remedy)
        }
        Ok(_) if metadata.permissions().mode() & 0o007 != 0 => Finding::warning(
            KEY,
            format!("every user of this machine can read or change {shown}"),
            format!("Run chmod o-rwx {shown}, or set defaultMode of the Secret's volume."),
        ),
        Ok(keys) => Finding::ok(KEY, format!("{shown} is readable; keys: {}", keys.count())),
    }
}

fn own_certificate(config: &Config, now: Timestamp) -> Finding {
    let Some((certificate, key)) = &config.identity else {
        return Finding::skipped(CERTIFICATE, "PODBEAT_SERVER_CERT_FILE is not set: no TLS");
    };
    let identity = match Identity::load(certificate, key) {
        Ok(identity) => identity,
        Err(error) => {
            let remedy = "Correct PODBEAT_SERVER_CERT_FILE and PODBEAT_SERVER_KEY_FILE, or issue a new certificate.";
            return Finding::failed(CERTIFICATE, Chain(&error).to_string(), remedy);
        }
    };
    let Some(found) = identity.own().and_then(|own| certificate::read(&own)) else {
        return Finding::skipped(CERTIFICATE, "its dates cannot be read");
    };
    let renew = "Renew the certificate. The server reads it again without a restart.";
    let seen = format!(
        "{}, for {}, valid from {} to {}",
        found.subject,
        found.names.join(", "),
        found.not_before,
        found.not_after
    );
    let left = found.not_after.duration_since(now);
    if found.not_before > now || left <= SignedDuration::ZERO {
        return Finding::failed(CERTIFICATE, seen, renew);
    }
    match left < certificate::NEAR {
        true => Finding::warning(CERTIFICATE, seen, renew),
        false => Finding::ok(CERTIFICATE, seen),
    }
}

fn clock(inspection: Option<&Inspection>, now: Timestamp) -> Finding {
    let remedy = "Correct the clock of this node (check NTP). Otherwise tokens expire at the wrong time, and the list's order by \
                  time is wrong.";
    let released: Timestamp = RELEASED.parse().unwrap_or(Timestamp::MIN);
    if now < released {
        return Finding::failed(CLOCK, format!("the clock shows {now:.0}"), remedy);
    }
    let Some(newest) = inspection.and_then(|found| found.newest_change) else {
        return Finding::ok(CLOCK, format!("the clock shows {now:.0}"));
    };
    match newest.duration_since(now) > TOLERATED {
        true => Finding::failed(
            CLOCK,
            format!(
                "the clock shows {now:.0}, but a run changed at {newest:.0}: the clock was set back"
            ),
            remedy,
        ),
        false => Finding::ok(
            CLOCK,
            format!("the clock shows {now:.0}, later than every change of a run"),
        ),
    }
}

/// The launch file, and the server's rights in the cluster.
async fn launch(config: &Config) -> [Finding; 2] {
    let Some(path) = &config.launch_file else {
        let why = "PODBEAT_SERVER_LAUNCH_FILE is not set: the server launches no runs";
        return [LAUNCH, RIGHTS].map(|id| Finding::skipped(id, why));
    };
    let settings = match launching::load(path) {
        Ok(settings) => settings,
        Err(error) => {
            let remedy = "Correct the launch file. docs/launch.md lists its members.";
            return [
                Finding::failed(LAUNCH, Chain(&error).to_string(), remedy),
                Finding::because(RIGHTS, LAUNCH),
            ];
        }
    };
    let namespaces = settings.namespaces().join(", ");
    let seen = format!("{} is valid; namespaces: {namespaces}", path.display());
    [Finding::ok(LAUNCH, seen), rights(config, settings).await]
}

async fn rights(config: &Config, settings: Settings) -> Finding {
    let reachable = "Correct PODBEAT_SERVER_KUBECONFIG, or the service account of the pod.";
    let cluster = match Kubernetes::new(&launching::place(config), settings).await {
        Ok(cluster) => cluster,
        Err(error) => return Finding::failed(RIGHTS, Chain(&error).to_string(), reachable),
    };
    match cluster.missing_rights().await {
        Ok(missing) if missing.is_empty() => {
            Finding::ok(RIGHTS, "the server may do everything that launching needs")
        }
        Ok(missing) => {
            let seen = format!("the server may not {}", missing.join(", "));
            let remedy = "Grant these rights with a Role and a RoleBinding in each namespace, as the Helm chart does.";
            Finding::failed(RIGHTS, seen, remedy)
        }
        Err(error) => Finding::failed(RIGHTS, Chain(&error).to_string(), reachable),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt;
    use podbeat_interface::environment::Flags;
    use podbeat_interface::finding::State;
    use podbeat_lab::pki::Authority;

    use super::*;
    use crate::store::{Facts, Limits, NewRun, Store};
    use podbeat_runs::Run;

    const NOW: &str = "2027-01-01T00:00:00Z";

    fn checked(settings: &[(&str, &Path)]) -> BTreeMap<String, (State, String)> {
        let map: BTreeMap<String, String> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.display().to_string()))
            .collect();
        let config = Config::load(&Flags::default(), &map);
        let findings = run(&config, NOW.parse().expect("a time"))
            .now_or_never()
            .expect("only questions to a cluster wait");
        let checks = findings.checks.into_iter();
        checks
            .map(|check| (check.id, (check.state, check.seen)))
            .collect()
    }

    async fn store_with_a_run(path: &Path, modified: &str) {
        let store = Sqlite::open(path).expect("a store");
        let run = NewRun {
            facts: Facts {
                id: "trn.1".to_owned(),
                created: modified.parse().expect("a time"),
                ..Facts::default()
            },
            run: Run::new(0),
            execution: None,
            idempotency: None,
            limits: Limits {
                live: 9,
                creates: 9,
                since: Timestamp::UNIX_EPOCH,
            },
        };
        store.create(run).await.expect("stored");
    }

    #[tokio::test]
    async fn a_new_server_and_one_with_runs_are_checked() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("d.db");
        let found = checked(&[("PODBEAT_SERVER_DATA", &data)]);
        for (id, (state, seen)) in &found {
            assert!(
                matches!(state, State::Ok | State::Skipped | State::Warning),
                "{id}: {seen}"
            );
        }
        assert!(
            !data.exists() && !dir.path().join("d.db.key").exists(),
            "nothing was created"
        );

        store_with_a_run(&data, "2026-12-01T00:00:00Z").await;
        let found = checked(&[("PODBEAT_SERVER_DATA", &data)]);
        assert_eq!(
            found[KEY].0,
            State::Failed,
            "the key is lost: {}",
            found[KEY].1
        );
        assert_eq!(found[TOKENS].0, State::Warning);
        assert!(found[STORE].1.contains("runs: 1"));
        Keys::load(&dir.path().join("d.db.key")).expect("keys");
        assert_eq!(checked(&[("PODBEAT_SERVER_DATA", &data)])[KEY].0, State::Ok);
    }

    #[tokio::test]
    async fn each_fault_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("d.db");
        store_with_a_run(&data, "2027-01-02T00:00:00Z").await;
        let found = checked(&[("PODBEAT_SERVER_DATA", &data)]);
        assert_eq!(found[CLOCK].0, State::Failed, "{}", found[CLOCK].1);

        std::fs::write(&data, "hunter2 ".repeat(1000)).expect("written");
        let found = checked(&[("PODBEAT_SERVER_DATA", &data)]);
        assert_eq!(found[STORE].0, State::Failed, "{}", found[STORE].1);
        assert_eq!(found[TOKENS].0, State::Skipped);

        let nowhere = dir.path().join("no/d.db");
        assert_eq!(
            checked(&[("PODBEAT_SERVER_DATA", &nowhere)])[STORE].0,
            State::Failed
        );

        // A server used this data file with another key, and then it became empty.
        let used = dir.path().join("used.db");
        std::fs::write(dir.path().join("used.db.lock"), "0123456789abcdef\n").expect("written");
        Keys::load(&dir.path().join("used.db.key")).expect("keys");
        let found = checked(&[("PODBEAT_SERVER_DATA", &used)]);
        assert_eq!(found[STORE].0, State::Failed, "{}", found[STORE].1);
        assert_eq!(found[KEY].0, State::Failed, "{}", found[KEY].1);

        let key = dir.path().join("key");
        std::fs::write(&key, "hunter2").expect("written");
        let found = checked(&[
            ("PODBEAT_SERVER_DATA", &dir.path().join("new.db")),
            ("PODBEAT_SERVER_SECRETS_KEY_FILE", &key),
        ]);
        assert_eq!(found[KEY].0, State::Failed);
        assert!(!found[KEY].1.contains("hunter2"));

        let found = checked(&[("PODBEAT_SERVER_LISTEN", Path::new("nowhere"))]);
        assert_eq!(found[SETTINGS].0, State::Failed);
        assert!(found[SETTINGS].1.contains("PODBEAT_SERVER_LISTEN"));
        assert_eq!(found[STORE].0, State::Skipped);
    }

    #[test]
    fn a_wrong_launch_file_and_a_missing_kubeconfig_are_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, kubeconfig) = (dir.path().join("launch.json"), dir.path().join("none"));
        let checked = || {
            checked(&[
                ("PODBEAT_SERVER_DATA", &dir.path().join("d.db")),
                ("PODBEAT_SERVER_LAUNCH_FILE", &file),
                ("PODBEAT_SERVER_KUBECONFIG", &kubeconfig),
            ])
        };
        for (text, shown) in [
            (None, "cannot read the launch file"),
            (Some("{"), "EOF"),
            (Some(r#"{"namespace": "A"}"#), "namespace: must"),
        ] {
            if let Some(text) = text {
                std::fs::write(&file, text).expect("written");
            }
            let found = checked();
            assert_eq!(found[LAUNCH].0, State::Failed);
            assert!(found[LAUNCH].1.contains(shown), "{}", found[LAUNCH].1);
            assert_eq!(found[RIGHTS].0, State::Skipped);
        }
        std::fs::write(&file, "{}").expect("written");
        let found = checked();
        assert_eq!(found[LAUNCH].0, State::Ok);
        assert_eq!(found[RIGHTS].0, State::Failed, "{}", found[RIGHTS].1);
    }

    #[test]
    fn a_certificate_is_read_and_its_end_is_near_or_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let authority = Authority::new().expect("an authority");
        let of = |from: &str, until: &str| {
            let dates = Some((
                from.parse().expect("a date"),
                until.parse().expect("a date"),
            ));
            let issued = authority
                .issue_for(&["podbeat.example"], dates)
                .expect("issued");
            std::fs::write(&certificate, &issued.certificate).expect("written");
            std::fs::write(&key, &issued.key).expect("written");
            let files = [
                ("PODBEAT_SERVER_CERT_FILE", certificate.as_path()),
                ("PODBEAT_SERVER_KEY_FILE", key.as_path()),
                ("PODBEAT_SERVER_DATA", dir.path()),
            ];
            checked(&files)[CERTIFICATE].clone()
        };
        let (state, seen) = of("2026-12-01", "2027-03-01");
        assert_eq!(state, State::Ok, "{seen}");
        assert!(seen.contains("podbeat.example"), "{seen}");
        assert_eq!(of("2026-12-01", "2027-01-10").0, State::Warning);
        assert_eq!(of("2026-12-01", "2026-12-31").0, State::Failed);
        assert_eq!(of("2027-02-01", "2027-12-31").0, State::Failed);
        std::fs::write(&key, "").expect("written");
        let files = [
            ("PODBEAT_SERVER_CERT_FILE", certificate.as_path()),
            ("PODBEAT_SERVER_KEY_FILE", key.as_path()),
        ];
        assert_eq!(checked(&files)[CERTIFICATE].0, State::Failed);
    }
}

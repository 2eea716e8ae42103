//! The manifests that users copy, applied unchanged except for the values that users must set.

use std::path::PathBuf;

use super::site::{CA_FILE, Site};
use super::statics::values_of;
use crate::runner::repository;
use crate::scenarios::markers::told_by_marker;
use crate::scenarios::play::{TOKEN, expect};
use crate::{Error, io};

/// The placeholder for the user's URL in all of deploy/.
pub(super) const SOMEBODYS_URL: &str = "https://ica.example.com";

/// kubectl prints this warning itself about objects that Helm created. Another site's policies have
/// the same names.
const KUBECTLS_OWN: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Applies what a namespace needs once, with the site's service and token.
pub(super) async fn namespace_objects(site: &Site) -> Result<(), Error> {
    let ca = format!("  # PODBEAT_CA_FILE: {CA_FILE}");
    let own_ca = format!("  PODBEAT_CA_FILE: {CA_FILE}");
    let once = [
        (SOMEBODYS_URL, site.play.service.url()),
        ("put-the-bearer-token-here", TOKEN.to_owned()),
        (ca.as_str(), own_ca),
    ];
    let once: Vec<(&str, &str)> = once.iter().map(|(from, to)| (*from, to.as_str())).collect();
    let file = site.manifest("manifests/podbeat.yaml", &once)?;
    site.kubectl(&["apply", "--filename", &file])
        .await?
        .well()?;
    Ok(())
}

/// The Jobs with each kind of sidecar run to their end, and the service receives the results.
pub(super) async fn jobs(site: &Site) -> Result<(), Error> {
    namespace_objects(site).await?;
    let native = site.manifest(
        "manifests/job-native-sidecar.yaml",
        &[("trn.1234", "trn.native")],
    )?;
    let plain = site.manifest(
        "manifests/job-plain-sidecar.yaml",
        &[("trn.1234", "trn.plain")],
    )?;
    site.kubectl(&["apply", "--filename", &native, "--filename", &plain])
        .await?
        .well()?;
    let (native, plain) = tokio::try_join!(site.pod_of("my-task"), site.pod_of("my-task-plain"))?;
    tokio::try_join!(site.to_the_end(&native, 0), site.to_the_end(&plain, 0))?;
    tokio::try_join!(
        site.play.until_job_is("my-task", "Complete"),
        site.play.until_job_is("my-task-plain", "Complete")
    )?;
    indexed(site).await
}

/// As an Indexed Job, the manifest gives each pod its own run.
async fn indexed(site: &Site) -> Result<(), Error> {
    let more = [
        ("trn.1234\n", "trn.indexed-{index}\n"),
        (
            "name: my-task\n  namespace",
            "name: my-indexed-task\n  namespace",
        ),
        (
            "\nspec:\n",
            "\nspec:\n  completionMode: Indexed\n  completions: 2\n  parallelism: 2\n",
        ),
    ];
    let file = site.manifest("manifests/job-native-sidecar.yaml", &more)?;
    site.kubectl(&["apply", "--filename", &file])
        .await?
        .well()?;
    site.each_index_has_its_run("my-indexed-task", "trn.indexed")
        .await
}

/// The Job whose task writes an exit marker: after its pod is deleted, the marker provides the exit
/// that the API withholds.
pub(super) async fn markers(site: &Site) -> Result<(), Error> {
    namespace_objects(site).await?;
    let file = site.manifest("manifests/job-with-exit-markers.yaml", &[])?;
    site.kubectl(&["apply", "--filename", &file])
        .await?
        .well()?;
    let pod = site.pod_of("my-task-with-markers").await?;
    site.play.until_told(&pod, "main", "running").await?;
    site.kubectl(&["delete", "pod", &pod.name, "--wait=false"])
        .await?
        .well()?;
    site.play.until_final(&pod).await?;
    site.play.until_gone(&pod).await?;
    told_by_marker(&site.play, &pod, 9).await
}

/// A Job of the CronJob sends a last heartbeat that podbeat could not deliver. A second Job finds
/// nothing to do.
pub(super) async fn reap(site: &Site) -> Result<(), Error> {
    namespace_objects(site).await?;
    let refused = site.play.faults.script("heartbeat final 503 until-lifted");
    refused.map_err(|misread| Error::Unexpected(misread.to_string()))?;
    // So that podbeat gives up soon, and the Job does not retry: a later pod would supersede this one.
    let task = [
        ("trn.1234", "trn.reap"),
        ("backoffLimit: 3", "backoffLimit: 0"),
        ("sleep 10; exit 0", "sleep 2; exit 3"),
        (
            "terminationGracePeriodSeconds: 30",
            "terminationGracePeriodSeconds: 5",
        ),
    ];
    let task = site.manifest("manifests/job-native-sidecar.yaml", &task)?;
    let cron_job = site.manifest(
        "manifests/reap.yaml",
        &[("--older-than=2m", "--older-than=1s")],
    )?;
    site.kubectl(&["apply", "--filename", &cron_job, "--filename", &task])
        .await?
        .well()?;
    let pod = site.pod_of("my-task").await?;
    let code = site.play.until_podbeat_ended(&pod).await?;
    expect(code == 75, || {
        format!("expected podbeat to end with 75; it ended with {code}")
    })?;
    let has_failed = |seen: &serde_json::Value| {
        seen.pointer("/metadata/uid") == Some(&pod.uid.as_str().into())
            && seen.pointer("/status/phase") == Some(&"Failed".into())
    };
    site.play.until("the pod's phase", has_failed).await?;
    site.play.faults.lift_all();
    for nth in ["reap-1", "reap-2"] {
        site.kubectl(&["create", "job", nth, "--from=cronjob/podbeat-reap"])
            .await?
            .well()?;
        site.play.until_job_is(nth, "Complete").await?;
        let job = format!("job/{nth}");
        let said = site.kubectl(&["logs", &job]).await?.well()?;
        let wanted = match nth {
            "reap-1" => "sent the last heartbeat: main terminated with exit code 3",
            _ => "the service already knows how the run ended: FailedRestartable",
        };
        expect(said.contains(wanted), || {
            format!("expected {wanted:?} from {nth}: {said}")
        })?;
    }
    let last = site.play.check(&pod)?;
    let is_reapers = last.nonce() == format!("reap-{}", pod.uid);
    expect(is_reapers && last.exit_code("main") == Some(3), || {
        format!("expected the last heartbeat from reap: {last:?}")
    })
}

/// The API server accepts every object of deploy/ without a warning.
pub(super) async fn dry_run(site: &Site) -> Result<(), Error> {
    // Pods need the objects that they reference.
    namespace_objects(site).await?;
    site.kubectl(&["create", "serviceaccount", "tasks"])
        .await?
        .well()?;
    let mut taken = 0;
    for directory in ["manifests", "admission", "monitoring"] {
        for path in yaml_in(directory)? {
            let text = std::fs::read_to_string(&path)
                .map_err(io(format!("reading {}", path.display())))?;
            // The other files are rules in Prometheus's own format.
            if text.lines().any(|line| line.starts_with("apiVersion: ")) {
                take(site, ["--filename", &path.display().to_string()]).await?;
                taken += 1;
            }
        }
    }
    // The namespaces of the tenants in the values do not exist here.
    let here = "launch.tenants.genomics.namespace=tasks,launch.tenants.imaging.namespace=tasks";
    for (name, more) in [
        ("podbeat", [].as_slice()),
        ("podbeat-server", &["--set", here]),
    ] {
        let chart = repository().join("deploy/helm").join(name);
        let chart = chart.display().to_string();
        for values in values_of(name)? {
            let path = values.display().to_string();
            let arguments = ["template", name, &chart, "--values", &path];
            let arguments = [&arguments, more, &["--namespace", site.namespace()]].concat();
            let rendered = site.ground.tools.helm(&arguments).await?.well()?;
            let file = values.file_stem().unwrap_or_default().to_string_lossy();
            let file = site.file(&format!("{name}-{file}.rendered.yaml"), &rendered)?;
            take(site, ["--filename", &file]).await?;
            taken += 1;
        }
    }
    let overlay = repository().join("deploy/kustomize/example/overlay");
    take(site, ["--kustomize", &overlay.display().to_string()]).await?;
    site.say(&format!(
        "the API server accepts all {} without a warning",
        taken + 1
    ));
    Ok(())
}

/// The YAML files in a directory of deploy/.
fn yaml_in(directory: &str) -> Result<Vec<PathBuf>, Error> {
    let directory = repository().join("deploy").join(directory);
    let entries =
        std::fs::read_dir(&directory).map_err(io(format!("listing {}", directory.display())))?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    paths.sort();
    Ok(paths)
}

/// The API server accepts these objects without a warning.
async fn take(site: &Site, objects: [&str; 2]) -> Result<(), Error> {
    let apply = ["apply", "--dry-run=server", "--validate=strict"];
    let said = site.kubectl(&[&apply[..], &objects].concat()).await?;
    let warning = |line: &&str| !line.contains(KUBECTLS_OWN);
    let warnings: Vec<String> = said
        .stderr
        .lines()
        .filter(warning)
        .map(str::to_owned)
        .collect();
    said.well()?;
    expect(warnings.is_empty(), || {
        format!("the API server warns of {objects:?}: {warnings:?}")
    })
}

//! Checks of deploy/ that need no cluster: what helm and kubectl make of it, and what they refuse.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::tools::Tools;
use crate::runner::repository;
use crate::scenarios::play::expect;
use crate::{Error, io, ours};

/// The required values only.
const LEAST: &str = "service.url=https://ica.example.com";

/// Values that the chart must refuse, as helm's flags, and what the refusal must name.
const REFUSED: &[(&[&str], &str)] = &[
    (&[], "'/service/url'"),
    (
        &["--set", LEAST, "--set", "image.repository="],
        "'/image/repository'",
    ),
    (
        &["--set", LEAST, "--set", "image.repository=podbeat:1"],
        "'/image/repository'",
    ),
    (
        &["--set", LEAST, "--kube-version", "1.28"],
        "has no native sidecars",
    ),
    (
        &["--set", LEAST, "--kube-version", "v1.28.15-gke.1"],
        "has no native sidecars",
    ),
    (
        &[
            "--set",
            LEAST,
            "--kube-version",
            "1.28",
            "--set",
            "sidecar.native=false,flowSchema.enabled=true",
        ],
        "flowSchema.enabled needs",
    ),
    (
        &["--set", LEAST, "--set", "settings.log=loud"],
        "'/settings/log'",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "sidecar.extraEnv[0].name=POD_UID,sidecar.extraEnv[0].value=x",
        ],
        "sidecar.extraEnv names POD_UID",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "reap.extraEnv[0].name=POD_NAMESPACE,reap.extraEnv[0].value=x",
        ],
        "reap.extraEnv names POD_NAMESPACE",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "admission.serviceUrls={http://elsewhere.example.com}",
        ],
        "'/admission/serviceUrls/0'",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "prometheusRule.runbookUrl=docs/operations.md",
        ],
        "'/prometheusRule/runbookUrl'",
    ),
    (
        &[
            "--set",
            LEAST,
            "--set",
            "service.url=http://ica.example.com",
        ],
        "service.url is http",
    ),
    (
        &["--set", "service.url=ftp://ica.example.com"],
        "'/service/url'",
    ),
    (
        &["--set", "service.url=https://user:word@ica.example.com"],
        "'/service/url'",
    ),
    (
        &["--set", LEAST, "--set", "service.token=secret"],
        "'token' not allowed",
    ),
    (
        &["--set", LEAST, "--set", "nonsense=1"],
        "'nonsense' not allowed",
    ),
    (
        &["--set", LEAST, "--set", "settings.intervall=3s"],
        "'intervall' not allowed",
    ),
    (
        &["--set", LEAST, "--set", "settings.interval=soon"],
        "'/settings/interval'",
    ),
    (
        &["--set", LEAST, "--set", "settings.report=some"],
        "'/settings/report'",
    ),
    (
        &["--set", LEAST, "--set", "image.pullPolicy=Sometimes"],
        "'/image/pullPolicy'",
    ),
    (
        &["--set", LEAST, "--set", "image.digest=sha256:12"],
        "'/image/digest'",
    ),
    (
        &["--set", LEAST, "--set", "sidecar.admin.port=many"],
        "'/sidecar/admin/port'",
    ),
    (
        &["--set", LEAST, "--set", "sidecar.exitMarkers.dir=markers"],
        "'/sidecar/exitMarkers/dir'",
    ),
    (
        &["--set", LEAST, "--set-string", "admission.enabled=yes"],
        "'/admission/enabled'",
    ),
    (
        &["--set", LEAST, "--set", "rbac.serviceAccounts=trainer"],
        "'/rbac/serviceAccounts'",
    ),
    (
        &["--set", LEAST, "--set", "service.tokenSecret.name="],
        "'/service/tokenSecret/name'",
    ),
    (
        &["--set", LEAST, "--set", "example.enabled=true"],
        "example.taskRunId",
    ),
];

/// Values that the chart must accept.
const TAKEN: &[&[&str]] = &[
    &[],
    &["--kube-version", "1.29"],
    &["--kube-version", "1.29.0-gke.1"],
    &["--kube-version", "v1.31.4+k3s1"],
    &["--kube-version", "1.28", "--set", "sidecar.native=false"],
    &["--set", "image.repository=localhost:5000/team/podbeat"],
    &["--set", "settings.log=warn\\,podbeat::agent=Debug"],
];

/// The environment of the checks.
pub struct Desk {
    /// The programs.
    pub tools: Tools,
    /// A directory for files.
    pub directory: PathBuf,
    /// Whether generated files are rewritten instead of compared.
    pub write: bool,
}

pub(super) fn deploy(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}

/// The charts. Each one's name is also that of its release.
pub(super) const CHARTS: [&str; 2] = ["podbeat", "podbeat-server"];

fn chart() -> String {
    deploy("helm/podbeat").display().to_string()
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))
}

/// The files of values in a chart's ci/.
///
/// # Errors
/// There are none.
pub(super) fn values_of(chart: &str) -> Result<Vec<PathBuf>, Error> {
    let mut all = files(&deploy(&format!("helm/{chart}/ci")))?;
    all.retain(|path| path.to_string_lossy().ends_with("-values.yaml"));
    expect(!all.is_empty(), || {
        format!("{chart} has no files of values")
    })?;
    Ok(all)
}

/// All files under a directory.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    let entries =
        std::fs::read_dir(directory).map_err(io(format!("listing {}", directory.display())))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Copies a directory with its content.
///
/// # Errors
/// A file can't be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    for file in files(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        let parent = target.parent().unwrap_or(to);
        std::fs::create_dir_all(parent).map_err(io(format!("creating {}", parent.display())))?;
        std::fs::copy(&file, &target).map_err(io(format!("copying {}", file.display())))?;
    }
    Ok(())
}

/// The objects in YAML documents.
///
/// # Errors
/// A document can't be read.
pub fn objects(yaml: &str) -> Result<Vec<Value>, Error> {
    let documents = yaml.strip_prefix("---\n").unwrap_or(yaml).split("\n---\n");
    let parse = |document: &str| {
        serde_saphyr::from_str(document).map_err(ours(format!("reading a document: {document}")))
    };
    let all: Result<Vec<Value>, Error> = documents.map(parse).collect();
    Ok(all?.into_iter().filter(Value::is_object).collect())
}

/// The pod template of a Job among objects.
///
/// # Errors
/// There is no such Job.
pub fn template(objects: &[Value], job: &str) -> Result<Value, Error> {
    let is = |object: &&Value| {
        object.get("kind") == Some(&json!("Job"))
            && object.pointer("/metadata/name") == Some(&json!(job))
    };
    let found = objects
        .iter()
        .find(is)
        .and_then(|job| job.pointer("/spec/template"));
    found
        .cloned()
        .ok_or_else(|| Error::Unexpected(format!("there is no Job {job} among {objects:#?}")))
}

/// podbeat's container and volumes in a pod template, without the image, which differs.
fn sidecar(template: &Value, member: &str) -> Result<Value, Error> {
    let all = |member: &str| {
        let list = template
            .get("spec")
            .and_then(|spec| spec.get(member))
            .and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let is = |name: &str, one: &Value| one.get("name") == Some(&json!(name));
    let mut container = all(member)
        .into_iter()
        .find(|container| is("podbeat", container))
        .ok_or_else(|| Error::Unexpected(format!("podbeat isn't among {member} of {template}")))?;
    if let Some(container) = container.as_object_mut() {
        container.remove("image");
        container.remove("imagePullPolicy");
    }
    let ours = |volume: &Value| is("podbeat", volume) || is("podbeat-state", volume);
    let volumes: Vec<Value> = all("volumes").into_iter().filter(ours).collect();
    Ok(json!({"container": container, "volumes": volumes}))
}

impl Desk {
    pub(super) async fn rendered(&self, chart: &str, arguments: &[&str]) -> Result<String, Error> {
        let all: Vec<&str> = ["template", "podbeat", chart, "--namespace", "tasks"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.tools.helm(&all).await?.well()
    }
}

/// Runs `helm lint --strict` for each chart with each file of values.
pub(super) async fn lint(desk: &Desk) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for name in CHARTS {
        let chart = deploy(&format!("helm/{name}")).display().to_string();
        for values in values_of(name)? {
            let path = values.display().to_string();
            let arguments = ["lint", "--strict", &chart, "--values", &path];
            desk.tools.helm(&arguments).await?.well()?;
            let file = values.file_name().unwrap_or_default().display();
            said.push(format!("{name} with {file} is linted"));
        }
    }
    Ok(said)
}

/// The chart refuses wrong values, and names them.
pub(super) async fn schema(desk: &Desk) -> Result<Vec<String>, Error> {
    refuses(desk, &chart(), LEAST, TAKEN, REFUSED).await
}

/// A chart accepts some values together with the required ones, and refuses others with a text that
/// names them.
pub(super) async fn refuses(
    desk: &Desk,
    chart: &str,
    least: &str,
    taken: &[&[&str]],
    refused: &[(&[&str], &str)],
) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    // The refused values below must be refused for their own sake, so these must be accepted.
    for flags in taken {
        desk.rendered(chart, &[&["--set", least], *flags].concat())
            .await?;
        said.push(format!("{}: accepted", flags.join(" ")));
    }
    for (flags, named) in refused {
        let all: Vec<&str> = ["template", "podbeat", chart]
            .into_iter()
            .chain(flags.iter().copied())
            .collect();
        let refusal = desk.tools.helm(&all).await?.refused()?;
        let line = refusal.lines().find(|line| line.contains(named));
        let line = line.ok_or_else(|| {
            Error::Unexpected(format!(
                "expected the refusal of {flags:?} with {named}: {refusal}"
            ))
        })?;
        said.push(format!("{}: {line}", flags.join(" ")));
    }
    Ok(said)
}

/// The committed files equal the output of deploy/render.sh.
pub(super) async fn rendered(desk: &Desk) -> Result<Vec<String>, Error> {
    let script = deploy("render.sh").display().to_string();
    let to = if desk.write {
        deploy("")
    } else {
        desk.directory.join("rendered")
    };
    desk.tools
        .script(&[&script, &to.display().to_string()])
        .await?
        .well()?;
    if desk.write {
        return Ok(vec!["written again".to_owned()]);
    }
    let mut said = Vec::new();
    for file in files(&to)? {
        let name = file.strip_prefix(&to).unwrap_or(&file);
        let committed = read(&deploy("").join(name))?;
        let made = read(&file)?;
        let differ = committed
            .lines()
            .zip(made.lines())
            .find(|(one, other)| one != other);
        expect(committed == made, || {
            format!(
                "deploy/{} differs from the output of deploy/render.sh (PODBEAT_WRITE_DOCS=1 writes it again): {differ:?}",
                name.display()
            )
        })?;
        said.push(format!("{} equals the generated file", name.display()));
    }
    // A rendered file without a values file would never be compared.
    for file in files(&deploy("helm"))? {
        let name = file.strip_prefix(deploy("")).unwrap_or(&file);
        expect(
            !name.to_string_lossy().ends_with(".rendered.yaml") || to.join(name).exists(),
            || format!("nothing generates {}", name.display()),
        )?;
    }
    Ok(said)
}

/// podbeat's container and volumes are the same in the manifest, the chart, a parent chart and
/// kustomize. The same applies to the plain sidecar.
pub(super) async fn same(desk: &Desk) -> Result<Vec<String>, Error> {
    let parent = parent(desk).await?;
    let manifest = |name: &str| objects(&read(&deploy("manifests").join(name))?);
    let native = sidecar(
        &template(&manifest("job-native-sidecar.yaml")?, "my-task")?,
        "initContainers",
    )?;
    let plain = sidecar(
        &template(&manifest("job-plain-sidecar.yaml")?, "my-task-plain")?,
        "containers",
    )?;
    let ca = "service.ca.configMap=podbeat-ca,service.ca.optional=true";
    let example = "example.enabled=true,example.taskRunId=trn.1";
    let set = ["--set", LEAST, "--set", ca, "--set", example];
    let of_chart = objects(&desk.rendered(&chart(), &set).await?)?;
    let set: Vec<&str> = set
        .into_iter()
        .chain(["--set", "sidecar.native=false"])
        .collect();
    let plain_of_chart = objects(&desk.rendered(&chart(), &set).await?)?;
    let overlay = deploy("kustomize/example/overlay").display().to_string();
    let kustomized = desk.tools.kubectl(&["kustomize", &overlay]).await?.well()?;
    let kustomized = objects(&kustomized)?;
    let ways = [
        (
            "the chart",
            of_chart,
            "podbeat-example-1",
            "initContainers",
            &native,
        ),
        (
            "the chart, plain",
            plain_of_chart,
            "podbeat-example-1",
            "containers",
            &plain,
        ),
        (
            "a parent chart",
            parent,
            "parent-task",
            "initContainers",
            &native,
        ),
        ("kustomize", kustomized, "train", "initContainers", &native),
    ];
    let mut said = vec![of_launcher(desk).await?];
    for (way, objects, job, member, expected) in ways {
        let made = sidecar(&template(&objects, job)?, member)?;
        expect(made == *expected, || {
            format!("podbeat by {way} differs from the manifest: {made:#} instead of {expected:#}")
        })?;
        said.push(format!("{way}: podbeat equals the manifest"));
    }
    Ok(said)
}

/// The pods that podbeat-server launches have what the chart makes for exit markers.
async fn of_launcher(desk: &Desk) -> Result<String, Error> {
    let set = "service.url=https://ica.example.com,\
               service.ca.configMap=podbeat-ca,service.ca.optional=true,\
               sidecar.exitMarkers.enabled=true,example.enabled=true,example.taskRunId=trn.1";
    let chart = objects(&desk.rendered(&chart(), &["--set", set]).await?)?;
    let pod = template(&chart, "podbeat-example-1")?;
    let list = |from: &Value, member: &str| {
        let mut list = from.get(member).cloned().unwrap_or_default();
        for container in list.as_array_mut().into_iter().flatten() {
            // The chart's default, and Kubernetes' for an image with a tag.
            if let Some(container) = container.as_object_mut() {
                container.remove("imagePullPolicy");
            }
        }
        list
    };
    let file = repository().join("crates/launch/src/podbeat.json");
    let launched: Value =
        serde_json::from_str(&read(&file)?).map_err(ours("reading the launcher's template"))?;
    for member in ["initContainers", "volumes"] {
        let spec = pod.get("spec").cloned().unwrap_or_default();
        let (made, expected) = (list(&spec, member), list(&launched, member));
        expect(made == expected, || {
            format!(
                "{member} of the chart differ from the launcher's: {made:#} instead of {expected:#}"
            )
        })?;
    }
    Ok("the launcher: podbeat equals the chart's with exit markers".to_owned())
}

/// The objects of a chart that depends on podbeat's and includes its template in one line.
async fn parent(desk: &Desk) -> Result<Vec<Value>, Error> {
    let to = desk.directory.join("charts");
    copy_parent(&to)?;
    let parent = to.join("parent").display().to_string();
    desk.tools
        .helm(&["dependency", "update", &parent])
        .await?
        .well()?;
    let ca = "podbeat.service.ca.configMap=podbeat-ca,podbeat.service.ca.optional=true";
    let least = LEAST
        .split(',')
        .map(|value| format!("podbeat.{value}"))
        .collect::<Vec<_>>()
        .join(",");
    objects(
        &desk
            .rendered(&parent, &["--set", &least, "--set", ca])
            .await?,
    )
}

/// Copies the parent chart, and podbeat's chart next to it.
///
/// # Errors
/// A file can't be copied.
pub fn copy_parent(to: &Path) -> Result<(), Error> {
    copy(&deploy("helm/podbeat"), &to.join("podbeat"))?;
    copy(
        &repository().join("e2e/fixtures/parent-chart"),
        &to.join("parent"),
    )
}

/// The archive of each chart from `helm package` renders the same as the chart.
pub(super) async fn package(desk: &Desk) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for name in CHARTS {
        let chart = deploy(&format!("helm/{name}")).display().to_string();
        let to = desk.directory.join("packages").join(name);
        std::fs::create_dir_all(&to).map_err(io(format!("creating {}", to.display())))?;
        let destination = to.display().to_string();
        let arguments = ["package", &chart, "--destination", &destination];
        desk.tools.helm(&arguments).await?.well()?;
        let archives = files(&to)?;
        let [archive] = archives.as_slice() else {
            return Err(Error::Unexpected(format!(
                "expected one archive: {archives:?}"
            )));
        };
        let values = deploy(&format!("helm/{name}/ci/everything-values.yaml"));
        let values = values.display().to_string();
        let values = ["--values", values.as_str()];
        let packed = desk
            .rendered(&archive.display().to_string(), &values)
            .await?;
        expect(packed == desk.rendered(&chart, &values).await?, || {
            "the archive and the chart render differently".to_owned()
        })?;
        said.push(format!(
            "{} renders the same as the chart",
            archive.file_name().unwrap_or_default().display()
        ));
    }
    Ok(said)
}

/// The chart's dashboard names and draws the container's memory limit, and the alerts link to the
/// right pages.
pub(super) async fn values(desk: &Desk) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    for (flag, told, drawn) in [
        (
            "sidecar.resources.limits.memory=48Mi",
            "the container's limit is 48Mi.",
            json!(48 << 20),
        ),
        (
            "sidecar.resources.limits.memory=50000000",
            "the container's limit is 50000000.",
            json!(50_000_000),
        ),
        (
            "sidecar.resources.limits=null",
            "the container has no limit.",
            json!((1_u64 << 53) - 1),
        ),
    ] {
        let flags = [
            "--set",
            LEAST,
            "--set",
            "dashboard.enabled=true",
            "--set",
            flag,
        ];
        let objects = objects(&desk.rendered(&chart(), &flags).await?)?;
        let text = objects
            .iter()
            .find_map(|object| object.pointer("/data/podbeat.json")?.as_str())
            .ok_or_else(|| Error::Unexpected("the chart creates no dashboard".to_owned()))?;
        let dashboard: Value = serde_json::from_str(text).map_err(ours("reading the dashboard"))?;
        let panels = dashboard
            .get("panels")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let of_memory: Vec<&Value> = panels
            .filter(|panel| {
                let description = panel.get("description").and_then(Value::as_str);
                description.is_some_and(|description| description.starts_with("Resident memory"))
            })
            .collect();
        let holds = |panel: &&Value| {
            let description = panel
                .get("description")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let step = panel.pointer("/fieldConfig/defaults/thresholds/steps/1/value");
            description.ends_with(told) && step == Some(&drawn)
        };
        expect(of_memory.len() == 2 && of_memory.iter().all(holds), || {
            format!("expected {flag} as the dashboard's limit: {of_memory:#?}")
        })?;
        said.push(format!("{flag}: {told}"));
    }
    let url = "https://wiki.example.com/podbeat";
    let flag = format!("prometheusRule.enabled=true,prometheusRule.runbookUrl={url}");
    let rules = desk
        .rendered(&chart(), &["--set", LEAST, "--set", &flag])
        .await?;
    let urls: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .collect();
    expect(
        urls.len() > 10
            && urls
                .iter()
                .all(|found| found.starts_with(&format!("{url}#podbeat"))),
        || format!("expected links of the alerts to {url}: {urls:?}"),
    )?;
    said.push(format!("{} alerts link to {url}", urls.len()));
    Ok(said)
}

/// Runs the alerts' own tests and the other checks of deploy/monitoring/check.sh.
pub(super) async fn monitoring(desk: &Desk) -> Result<Vec<String>, Error> {
    let script = deploy("monitoring/check.sh").display().to_string();
    let said = desk.tools.script(&[&script]).await?.well()?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_is_compared_without_its_image() {
        let template = |image: &str, port: u16| {
            json!({"spec": {
                "initContainers": [{"name": "podbeat", "image": image, "ports": [port]}, {"name": "other"}],
                "volumes": [{"name": "podbeat"}, {"name": "data"}]}})
        };
        let one = sidecar(&template("a", 1), "initContainers").expect("there");
        assert_eq!(
            one,
            sidecar(&template("b", 1), "initContainers").expect("there")
        );
        assert_ne!(
            one,
            sidecar(&template("a", 2), "initContainers").expect("there")
        );
        assert!(sidecar(&template("a", 1), "containers").is_err());
    }

    #[test]
    fn documents_are_separated() {
        let yaml =
            "---\n# nothing\n---\nkind: Job\nmetadata: {name: one}\nspec: {template: {spec: {}}}\n";
        let all = objects(yaml).expect("YAML");
        assert_eq!(template(&all, "one").expect("there"), json!({"spec": {}}));
        assert!(template(&all, "two").is_err());
    }
}

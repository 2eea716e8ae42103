//! A namespace for deployments. It enforces the Pod Security level restricted, and has its own
//! task-run service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podbeat_lab::service::Heartbeat;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::tools::{Said, Tools};
use crate::api::Namespace;
use crate::node::images::{PODBEAT, TASK};
use crate::runner::repository;
use crate::scenarios::play::{LIMIT, Play, Pod, Stage, TOKEN, expect, received};
use crate::scenarios::recording::{Seen, state, status};
use crate::{Error, io};

/// The Secret with the service's token, under the key `token`.
pub const TOKEN_SECRET: &str = "podbeat-token";
/// The ConfigMap with the service's authority, under the key `ca.crt`.
pub const CA_CONFIG_MAP: &str = "podbeat-ca";
/// The path of that authority in podbeat's container.
pub const CA_FILE: &str = "/var/run/podbeat/ca.crt";

/// podbeat's memory in a pod, in bytes.
struct Memory {
    /// The peak memory of its control group.
    group: u64,
    /// The peak resident memory of its process.
    process: u64,
    /// The container's memory request.
    requested: u64,
    /// The container's memory limit.
    limit: u64,
}

/// The environment that all sites share.
pub struct Ground {
    /// The control plane and the node.
    pub stage: Arc<Stage>,
    /// The programs.
    pub tools: Tools,
    /// A scenario locks it as long as it has admission policies, which are for the whole cluster.
    pub policies: Mutex<()>,
}

/// One namespace.
pub struct Site {
    /// The shared environment.
    pub ground: Arc<Ground>,
    /// The namespace, its service, and the observations of its pods.
    pub play: Play,
    /// A directory for its files.
    pub directory: PathBuf,
}

impl Site {
    /// Creates a namespace that contains only what podbeat needs and no user deploys: the service's
    /// token and authority.
    ///
    /// # Errors
    /// kubectl fails, there is no free port, or Pod Security isn't enforced.
    pub async fn begin(ground: &Arc<Ground>, name: &str) -> Result<Self, Error> {
        let directory = ground.stage.root.join("sites").join(name);
        std::fs::create_dir_all(&directory)
            .map_err(io(format!("creating {}", directory.display())))?;
        let level = |mode: &str| {
            (
                format!("pod-security.kubernetes.io/{mode}"),
                json!("restricted"),
            )
        };
        let mut labels: serde_json::Map<String, Value> = ["enforce", "warn", "audit"]
            .map(level)
            .into_iter()
            .collect();
        labels.insert(
            "pod-security.kubernetes.io/enforce-version".to_owned(),
            json!("latest"),
        );
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let path = directory.join("namespace.json");
        std::fs::write(&path, namespace.to_string())
            .map_err(io(format!("writing {}", path.display())))?;
        let path = path.display().to_string();
        ground
            .tools
            .kubectl(&["create", "--filename", &path])
            .await?
            .well()?;
        let namespace = Namespace::existing(ground.stage.admin.clone(), name);
        let play = Play::on(&ground.stage, namespace).await?;
        let site = Self {
            ground: Arc::clone(ground),
            play,
            directory,
        };
        let token = format!("token={TOKEN}");
        site.quietly(&[
            "create",
            "secret",
            "generic",
            "--save-config",
            TOKEN_SECRET,
            "--from-literal",
            &token,
        ])
        .await?;
        let ca = site.file("ca.crt", &site.play.ca)?;
        let ca = format!("ca.crt={ca}");
        site.quietly(&[
            "create",
            "--save-config",
            "configmap",
            CA_CONFIG_MAP,
            "--from-file",
            &ca,
        ])
        .await?;
        site.enforces_pod_security().await?;
        Ok(site)
    }

    /// Checks that Pod Security refuses a privileged pod. Otherwise an accepted pod would prove
    /// nothing.
    async fn enforces_pod_security(&self) -> Result<(), Error> {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"}, "spec": {
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": TASK, "securityContext": {"privileged": true}}]}});
        let file = self.file("privileged.json", &pod.to_string())?;
        let said = self
            .kubectl_in(&["create", "--filename", &file])
            .await?
            .refused()?;
        expect(
            said.contains("violates PodSecurity \"restricted:latest\""),
            || format!("expected the refusal of a privileged pod by Pod Security: {said}"),
        )?;
        self.say("a privileged pod is refused: violates PodSecurity \"restricted:latest\"");
        Ok(())
    }

    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.play.namespace.name
    }

    /// Prints a line with the time.
    pub fn say(&self, text: &str) {
        self.play.say(text);
    }

    /// Runs kubectl in the namespace, and prints the command and its output.
    ///
    /// # Errors
    /// It can't be run.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Said, Error> {
        let said = self.kubectl_in(arguments).await?;
        self.tell(&said);
        Ok(said)
    }

    /// Runs kubectl in the namespace without printing, and returns its output.
    ///
    /// # Errors
    /// It can't be run, or fails.
    pub async fn quietly(&self, arguments: &[&str]) -> Result<String, Error> {
        self.kubectl_in(arguments).await?.well()
    }

    async fn kubectl_in(&self, arguments: &[&str]) -> Result<Said, Error> {
        let all: Vec<&str> = ["--namespace", self.namespace()]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.ground.tools.kubectl(&all).await
    }

    /// Runs helm in the namespace, and prints the command and its output.
    ///
    /// # Errors
    /// It can't be run.
    pub async fn helm(&self, arguments: &[&str]) -> Result<Said, Error> {
        let all: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(["--namespace", self.namespace()])
            .collect();
        let said = self.ground.tools.helm(&all).await?;
        self.tell(&said);
        Ok(said)
    }

    /// Prints the command as a user would type it, and its shortened output.
    fn tell(&self, said: &Said) {
        const MOST: usize = 12;
        let files = format!("{}/", self.directory.display());
        let checkout = format!("{}/", repository().display());
        let mut lines = vec![format!("$ {}", said.command)];
        let answer: Vec<&str> = said.stdout.lines().chain(said.stderr.lines()).collect();
        lines.extend(answer.iter().take(MOST).map(|line| format!("      {line}")));
        if answer.len() > MOST {
            lines.push(format!("      … {} more lines", answer.len() - MOST));
        }
        self.say(&lines.join("\n").replace(&files, "").replace(&checkout, ""));
    }

    /// Writes a file of the site, and returns its path.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn file(&self, name: &str, text: &str) -> Result<String, Error> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).map_err(io(format!("writing {}", path.display())))?;
        Ok(path.display().to_string())
    }

    /// Adapts a manifest as a user would: sets the namespace, service, token and images.
    ///
    /// # Errors
    /// The manifest can't be read, or lacks something that users must set.
    pub fn manifest(&self, name: &str, more: &[(&str, &str)]) -> Result<String, Error> {
        let path = repository().join("deploy").join(name);
        let mut text =
            std::fs::read_to_string(&path).map_err(io(format!("reading {}", path.display())))?;
        for (from, to) in more {
            expect(text.contains(from), || {
                format!("{} has no {from}", path.display())
            })?;
            text = text.replace(from, to);
        }
        let text = text
            .replace(
                "namespace: tasks\n",
                &format!("namespace: {}\n", self.namespace()),
            )
            .replace(&podbeat_published::image("podbeat"), PODBEAT)
            .replace("image: busybox:1.37\n", &format!("image: {TASK}\n"));
        self.file(&name.replace('/', "-"), &text)
    }

    /// The pod of the Job with this name, or the pod with this name.
    ///
    /// # Errors
    /// The pod doesn't appear in time.
    pub async fn pod_of(&self, job: &str) -> Result<Pod, Error> {
        let label = json!(job);
        let is = |pod: &Value| {
            pod.pointer("/metadata/labels/batch.kubernetes.io~1job-name") == Some(&label)
                || pod.pointer("/metadata/name") == Some(&label)
        };
        let seen = self.play.until(&format!("a pod of {job}"), is).await?;
        Ok(Pod::of(&seen))
    }

    /// Follows the two pods of an Indexed Job to their ends. The first reports the run `RUN-0`, the
    /// second `RUN-1`.
    ///
    /// # Errors
    /// A pod doesn't appear, or ends differently.
    pub async fn each_index_has_its_run(&self, job: &str, run: &str) -> Result<(), Error> {
        let one = async |index: usize| {
            let (job, wanted) = (json!(job), json!(index.to_string()));
            let is = |pod: &Value| {
                let label = |name: &str| {
                    pod.pointer(&format!("/metadata/labels/batch.kubernetes.io~1{name}"))
                };
                label("job-name") == Some(&job) && label("job-completion-index") == Some(&wanted)
            };
            let seen = self
                .play
                .until(&format!("the pod of {job} with index {index}"), is)
                .await?;
            let last = self.to_the_end(&Pod::of(&seen), 0).await?;
            expect(last.run_id == format!("{run}-{index}"), || {
                format!("expected the run {run}-{index}: {last:?}")
            })
        };
        tokio::try_join!(one(0), one(1))?;
        self.play.until_job_is(job, "Complete").await
    }

    /// Follows a pod to its end, and checks its heartbeats: one last heartbeat with the exit code
    /// of `main`, and none after it. Prints the memory use of podbeat's container, and checks that
    /// it is below half the limit.
    ///
    /// # Errors
    /// A check fails.
    pub async fn to_the_end(&self, pod: &Pod, exit_code: i64) -> Result<Heartbeat, Error> {
        let heartbeats = async {
            self.play.until_told(pod, "main", "running").await?;
            self.play.until_final(pod).await?;
            self.play.until_podbeat_ended(pod).await
        };
        let (code, memory) = tokio::join!(heartbeats, self.memory(pod));
        let code = code?;
        let last = self.play.check(pod)?;
        let told = last.exit_code("main");
        self.say(&format!(
            "{}: podbeat ended with {code}; {}",
            pod.name,
            received(&last)
        ));
        expect(told == Some(exit_code), || {
            format!("expected exit code {exit_code} in the last heartbeat: {last:?}")
        })?;
        let Memory {
            group,
            process,
            requested,
            limit,
        } = memory?;
        let mebibytes =
            |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20);
        self.say(&format!(
            "{}: peak memory of podbeat's container {}, of its process {}; request {}, limit {}",
            pod.name,
            mebibytes(group),
            mebibytes(process),
            mebibytes(requested),
            mebibytes(limit)
        ));
        expect(group.max(process) < limit / 2, || {
            format!(
                "podbeat used {group} bytes and its process {process}: more than half of the limit"
            )
        })?;
        Ok(last)
    }

    /// The last memory measurement of podbeat's container while it runs.
    async fn memory(&self, pod: &Pod) -> Result<Memory, Error> {
        let of_pod = |seen: &Seen| {
            seen.uid() == pod.uid
                && state(seen.pod(), "podbeat").is_some_and(|(name, _)| name == "running")
        };
        let seen = self
            .play
            .recording
            .until("podbeat running", LIMIT, of_pod)
            .await?;
        let id = status(seen.pod(), "podbeat").and_then(|status| {
            status
                .get("containerID")?
                .as_str()?
                .rsplit('/')
                .next()
                .map(str::to_owned)
        });
        let id =
            id.ok_or_else(|| Error::Unexpected("podbeat runs and has no containerID".to_owned()))?;
        let (requested, limit) = (
            quantity(seen.pod(), "requests")?,
            quantity(seen.pod(), "limits")?,
        );
        let mut last = Err(Error::Unexpected(
            "podbeat ended before it was measured".to_owned(),
        ));
        loop {
            match self.play.stage.node.lock().await.peak_memory(&id) {
                Ok((group, process)) => {
                    last = Ok(Memory {
                        group,
                        process,
                        requested,
                        limit,
                    });
                }
                // The group has no process yet, or no longer.
                Err(_) if last.is_err() && self.still_runs(pod) => {}
                Err(_) => return last,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn still_runs(&self, pod: &Pod) -> bool {
        let last = self.play.last_seen(pod);
        last.is_some_and(|seen| {
            state(seen.pod(), "podbeat").is_some_and(|(name, _)| name == "running")
        })
    }

    /// Repeats a question until the answer is as wanted.
    ///
    /// # Errors
    /// The answer isn't as wanted in time, or the question fails.
    pub async fn until<T: std::fmt::Debug>(
        &self,
        what: &str,
        ask: impl AsyncFn() -> Result<T, Error>,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T, Error> {
        const IN_TIME: Duration = Duration::from_secs(120);
        let begun = Instant::now();
        loop {
            let answer = ask().await?;
            if wanted(&answer) {
                return Ok(answer);
            }
            if begun.elapsed() > IN_TIME {
                return Err(Error::Unexpected(format!(
                    "timed out after {IN_TIME:?} while waiting for {what}: {answer:#?}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// The memory request or limit of podbeat's container, in bytes. deploy/ uses whole mebibytes.
fn quantity(pod: &Value, member: &str) -> Result<u64, Error> {
    let lists = ["initContainers", "containers"].map(|list| pod.get("spec")?.get(list)?.as_array());
    let mut containers = lists.into_iter().flatten().flatten();
    let podbeat = containers.find(|container| container.get("name") == Some(&json!("podbeat")));
    let text = podbeat.and_then(|container| {
        container
            .get("resources")?
            .get(member)?
            .get("memory")?
            .as_str()
    });
    let mebibytes = text.and_then(|text| text.strip_suffix("Mi")?.parse::<u64>().ok());
    mebibytes.map(|mebibytes| mebibytes << 20).ok_or_else(|| {
        Error::Unexpected(format!(
            "podbeat's container has no {member} of memory in MiB: {text:?}"
        ))
    })
}

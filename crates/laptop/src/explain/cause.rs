//! Why a run ended or does not start: the one or two sentences at the beginning of a verdict.
//!
//! They contain only what the Kubernetes API reported, with a short explanation of its reasons.

use podbeat_heartbeat::observation::Why;
use podbeat_kubernetes::tasks::{IGNORED_CONTAINERS, runs_on};
use podbeat_kubernetes::why::{DISRUPTION, READY, SCHEDULED, is_trouble};

use super::story::listed;

/// The maximum length of a message in a verdict, in characters.
const LONGEST: usize = 400;

/// The reason of the condition that the kubelet sets when it ends a pod itself, after the pod's
/// containers are dead.
const BY_KUBELET: &str = "TerminationByKubelet";

/// What is known about the cause.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// What the API reported about the pod, and about containers that prevent the task from
    /// starting.
    why: Vec<Why>,
    /// The task's containers.
    tasks: Vec<Task>,
    /// Whether any container ran, including podbeat's own.
    has_begun: bool,
    /// Whether the deletion of the pod began before the task was over.
    is_deleted: bool,
    /// Whether the task is over. Later reasons for the end of the pod did not end the task.
    is_over: bool,
    /// Whether `tasks` also contains containers that do not belong to the task.
    has_others: bool,
    /// Which containers delayed the last heartbeat, as text. Decided when the pod began to end, or
    /// when the task was over.
    kept_back: Option<Option<String>>,
}

/// A container of the task.
#[derive(Debug, Default)]
struct Task {
    name: String,
    has_run: bool,
    /// Why it cannot start.
    held_up: Option<Said>,
    exit: Option<(Option<i64>, Said)>,
}

/// A reason and its message.
#[derive(Clone, Debug, Default)]
struct Said {
    reason: String,
    message: String,
}

impl Said {
    fn new(reason: Option<&str>, message: Option<&str>) -> Self {
        Self {
            reason: reason.unwrap_or_default().to_owned(),
            message: message.unwrap_or_default().to_owned(),
        }
    }
}

impl Facts {
    /// The task is over.
    pub(super) fn over(&mut self) {
        self.is_over = true;
        self.kept_back.get_or_insert(None);
    }

    /// From now on, containers can end because podbeat or the pod is being stopped.
    pub(super) fn stopped(&mut self) {
        let now = self.runs_on();
        self.kept_back.get_or_insert(now);
    }

    /// The states of init containers and sidecars are reported, too, but are not marked as such.
    pub(super) fn with_others(&mut self) {
        self.has_others = true;
    }

    /// The task was not over, but continues.
    pub(super) fn goes_on(&mut self) {
        (self.is_over, self.is_deleted, self.kept_back) = (false, false, None);
    }

    /// A container has run.
    pub(super) fn begun(&mut self) {
        self.has_begun = true;
    }

    /// The pod is being deleted.
    pub(super) fn deleted(&mut self) {
        self.stopped();
        self.is_deleted |= !self.is_over;
    }

    /// Adds a reason.
    pub(super) fn add(&mut self, why: Why) {
        if self.counts(&why) && !self.why.contains(&why) {
            self.why.push(why);
        }
    }

    /// Replaces all reasons with the current ones.
    pub(super) fn replace(&mut self, why: &[Why]) {
        let counted: Vec<Why> = why.iter().filter(|why| self.counts(why)).cloned().collect();
        self.why = counted;
    }

    /// Whether a reason can explain the end. The kubelet sets its own reason only after all
    /// containers are dead. Other reasons that come after the end of the task, such as the drain of
    /// a node, do not explain it.
    fn counts(&self, why: &Why) -> bool {
        let is_kubelets = match why.condition.as_deref() {
            None => why.is_the_pods_own(),
            Some(DISRUPTION) => why.reason.as_deref() == Some(BY_KUBELET),
            Some(_) => false,
        };
        !self.is_over || is_kubelets || self.why.iter().any(|known| known.is_same_as(why))
    }

    pub(super) fn waits(&mut self, name: &str, reason: Option<&str>, message: Option<&str>) {
        let task = self.task(name);
        // If a container could not start and its pod is deleted, the kubelet shows PodInitializing
        // for it again. The earlier reason stays.
        if reason.is_some_and(is_trouble) {
            task.held_up = Some(Said::new(reason, message));
        }
    }

    pub(super) fn runs(&mut self, name: &str) {
        self.begun();
        let task = self.task(name);
        (task.has_run, task.held_up, task.exit) = (true, None, None);
    }

    pub(super) fn ended(
        &mut self,
        name: &str,
        exit_code: Option<i64>,
        reason: Option<&str>,
        message: Option<&str>,
    ) {
        let said = Said::new(reason, message);
        let task = self.task(name);
        let has_run = !is_no_run(&said.reason);
        if has_run {
            (task.has_run, task.held_up) = (true, None);
        }
        task.exit = Some((exit_code, said));
        self.has_begun |= has_run;
    }

    fn task(&mut self, name: &str) -> &mut Task {
        let at = self.tasks.iter().position(|task| task.name == name);
        let at = at.unwrap_or_else(|| {
            self.tasks.push(Task {
                name: name.to_owned(),
                ..Task::default()
            });
            self.tasks.len() - 1
        });
        // The index exists: it was found or just added.
        #[expect(clippy::indexing_slicing, reason = "see above")]
        &mut self.tasks[at]
    }

    /// Whether this container is known and never ran.
    pub(super) fn never_ran(&self, name: &str) -> bool {
        self.tasks
            .iter()
            .any(|task| task.name == name && !task.has_run)
    }

    /// The cause in one or more sentences. `None` if only the containers' exit codes explain the
    /// end.
    pub(super) fn cause(&self) -> Option<String> {
        let own = self.why.iter().find(|why| why.is_the_pods_own());
        let disruption = self.condition(DISRUPTION);
        let mut told = Vec::new();
        if let Some(why) = own {
            told.push(self.of_the_pod(why));
        }
        if let Some(why) = disruption
            && (own.is_none() || why.reason.as_deref() != Some(BY_KUBELET))
        {
            told.push(disrupted(why));
        }
        if told.is_empty() {
            told.extend(self.not_begun());
        }
        if told.is_empty()
            && let Some(why) = self.condition(READY)
        {
            let text = "The kubelet failed the pod although no container had failed; this happens when activeDeadlineSeconds is exceeded";
            told.push(sentence(text, why));
        }
        told.extend(self.tasks.iter().filter_map(end));
        told.extend(self.kept_back.clone().unwrap_or_else(|| self.runs_on()));
        if self.is_deleted && own.is_none() && disruption.is_none() {
            told.push("The pod was deleted.".to_owned());
        }
        (!told.is_empty()).then(|| told.join(" "))
    }

    /// A hint about containers that still run after the task ended, such as the proxy of a service
    /// mesh.
    fn runs_on(&self) -> Option<String> {
        let runs = |task: &&Task| task.has_run && task.exit.is_none();
        let (left, ended): (Vec<&Task>, Vec<&Task>) = self.tasks.iter().partition(runs);
        let is_known = left.iter().all(|task| runs_on(&task.name));
        // A container that waits will start, possibly again.
        let have_ended = ended
            .iter()
            .all(|task| task.exit.is_some() && task.held_up.is_none());
        if self.has_others || left.is_empty() || ended.is_empty() || !is_known || !have_ended {
            return None;
        }
        let names = |tasks: &[&Task]| {
            let names: Vec<String> = tasks.iter().map(|task| task.name.clone()).collect();
            listed(&names)
        };
        let (have, one) = if ended.len() == 1 {
            ("has", "")
        } else {
            ("have", "s")
        };
        Some(format!(
            "Container{one} {} {have} ended, but {} still runs. Such a container usually runs until its pod ends, and the last \
             heartbeat waits for it. If it is not part of the task, add it to PODBEAT_IGNORED_CONTAINERS or to the pod's annotation \
             {IGNORED_CONTAINERS}.",
            names(&ended),
            names(&left)
        ))
    }

    fn condition(&self, kind: &str) -> Option<&Why> {
        self.why
            .iter()
            .find(|why| why.condition.as_deref() == Some(kind))
    }

    /// The meaning of `status.reason` and `status.message`.
    fn of_the_pod(&self, why: &Why) -> String {
        let reason = why.reason.as_deref().unwrap_or_default();
        let text = match reason {
            "DeadlineExceeded" => "The pod ran longer than its activeDeadlineSeconds".to_owned(),
            "Evicted" => "The kubelet evicted the pod".to_owned(),
            "Preempting" | "Preempted" => {
                "The pod was preempted to make room for a more important pod".to_owned()
            }
            "NodeLost" => "The pod's node was lost".to_owned(),
            "Terminated" | "NodeShutdown" | "Shutdown" => {
                "The pod was terminated because its node was shutting down".to_owned()
            }
            _ if !self.has_begun => match reason.strip_prefix("OutOf") {
                Some(resource) => {
                    format!("The node rejected the pod because of insufficient {resource}")
                }
                None => "The pod was rejected before any of its containers ran".to_owned(),
            },
            _ => "Kubernetes reports a reason for the pod's state".to_owned(),
        };
        sentence(&text, why)
    }

    /// What prevents the task's containers from starting.
    fn not_begun(&self) -> Vec<String> {
        let none_has_run = !self.tasks.iter().any(|task| task.has_run);
        let one_has_not = self.tasks.is_empty() || self.tasks.iter().any(|task| !task.has_run);
        let others = self.why.iter().filter(|_| one_has_not);
        let mut others = others.filter_map(|why| Some((why, why.container.as_deref()?)));
        // An exit is more useful than an earlier reason for waiting.
        if let Some((why, name)) = others.clone().rfind(|(why, _)| why.exit_code.is_some()) {
            let code = why.exit_code.unwrap_or_default();
            let text = format!(
                "Init container {name} failed with exit code {code}, and the task's containers did not start"
            );
            return vec![sentence(&text, why)];
        }
        if let Some((why, name)) = others.next_back() {
            let problem = problem(why.reason.as_deref().unwrap_or_default());
            let text = format!("Container {name} prevents the task from starting: {problem}");
            return vec![sentence(&text, why)];
        }
        let held_up = self.tasks.iter().filter_map(|task| {
            let said = task.held_up.as_ref()?;
            // Between two runs, the end of the last run is more useful.
            let backs_off = said.reason == "CrashLoopBackOff";
            (!backs_off).then(|| {
                let text = format!(
                    "Container {} could not start: {}",
                    task.name,
                    problem(&said.reason)
                );
                with_details(&text, &said.reason, &said.message)
            })
        });
        let held_up: Vec<String> = held_up.collect();
        if !held_up.is_empty() || !none_has_run {
            return held_up;
        }
        let why = self.condition(SCHEDULED);
        why.map(|why| {
            let text = match why.reason.as_deref() {
                Some("Unschedulable") => "The scheduler cannot find a node for the pod",
                Some("SchedulingGated") => "The pod waits for its scheduling gates to be removed",
                _ => "The pod has no node yet",
            };
            sentence(text, why)
        })
        .into_iter()
        .collect()
    }
}

/// Whether a container with this exit reason never ran, or nobody knows whether it ran.
fn is_no_run(reason: &str) -> bool {
    matches!(
        reason,
        "StartError" | "ContainerCannotRun" | "ContainerStatusUnknown"
    )
}

fn disrupted(why: &Why) -> String {
    let text = match why.reason.as_deref() {
        Some("PreemptionByScheduler") => {
            "The pod was preempted to make room for a pod with higher priority"
        }
        Some("DeletionByTaintManager") => {
            "The pod was deleted because it does not tolerate a taint of its node"
        }
        Some("DeletionByDeviceTaintManager") => {
            "The pod was deleted because it does not tolerate a taint of a device that it uses"
        }
        Some("EvictionByEvictionAPI") => {
            "The pod was evicted through the Eviction API, for example by kubectl drain"
        }
        Some("DeletionByPodGC") => {
            "The pod garbage collector deleted the pod, for example because its node no longer exists"
        }
        Some(BY_KUBELET) => {
            "The kubelet terminated the pod because of node pressure, a critical pod, or a node shutdown"
        }
        _ => "The pod was disrupted",
    };
    sentence(text, why)
}

/// How a container ended, if the exit code does not explain everything.
fn end(task: &Task) -> Option<String> {
    let (code, said) = task.exit.as_ref()?;
    let name = &task.name;
    let text = match said.reason.as_str() {
        "OOMKilled" => format!("Container {name} was killed because it ran out of memory"),
        "StartError" | "ContainerCannotRun" => format!("Container {name} could not be started"),
        "ContainerStatusUnknown" => {
            let code = code.map_or_else(String::new, |code| {
                format!(": exit code {code} is not the container's own")
            });
            format!("The kubelet lost container {name}{code}")
        }
        _ => return None,
    };
    Some(with_details(&text, &said.reason, &said.message))
}

/// The problem of a container that waits for this reason.
fn problem(reason: &str) -> &'static str {
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "RegistryUnavailable"
        | "ImageInspectError"
        | "SignatureValidationFailed" => "its image cannot be pulled",
        "ErrImageNeverPull" => "its image is not on the node, and its imagePullPolicy is Never",
        "InvalidImageName" => "the name of its image is invalid",
        "CreateContainerConfigError" => {
            "its configuration is invalid, for example because a ConfigMap or Secret is missing"
        }
        "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => "the container runtime cannot create or start it",
        "CrashLoopBackOff" => "it fails repeatedly",
        _ => "it waits",
    }
}

fn sentence(text: &str, why: &Why) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    with_details(text, &part(&why.reason), &part(&why.message))
}

/// `Text (Reason: message).`
fn with_details(text: &str, reason: &str, message: &str) -> String {
    let message: Vec<&str> = message.split_whitespace().collect();
    let message = message.join(" ");
    let mut short: String = message
        .trim_end_matches('.')
        .chars()
        .take(LONGEST)
        .collect();
    if short.chars().count() == LONGEST {
        short.push('…');
    }
    let details: Vec<&str> = [reason, &short]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    let details = match details.as_slice() {
        [] => String::new(),
        parts => format!(" ({})", parts.join(": ")),
    };
    format!("{text}{details}.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(condition: Option<&str>, reason: &str, message: &str) -> Why {
        Why {
            condition: condition.map(str::to_owned),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
            ..Why::default()
        }
    }

    fn of(why: Why, facts: impl FnOnce(&mut Facts)) -> String {
        let mut all = Facts::default();
        facts(&mut all);
        all.add(why);
        all.cause().unwrap_or_default()
    }

    fn ran(facts: &mut Facts) {
        facts.runs("main");
        facts.ended("main", Some(0), Some("Completed"), None);
        facts.over();
    }

    #[test]
    fn a_proxy_that_outlives_the_task_is_named_with_a_suggestion() {
        let beside = |proxy: &str| {
            let mut facts = Facts::default();
            facts.runs("main");
            facts.runs(proxy);
            facts.ended("main", Some(0), Some("Completed"), None);
            facts
        };
        for proxy in [
            "istio-proxy",
            "linkerd-proxy",
            "cloud-sql-proxy",
            "vault-agent",
            "fluent-bit",
        ] {
            let expected = format!(
                "Container main has ended, but {proxy} still runs. Such a container usually runs until its pod ends, and the \
                 last heartbeat waits for it. If it is not part of the task, add it to PODBEAT_IGNORED_CONTAINERS or to the pod's \
                 annotation {IGNORED_CONTAINERS}."
            );
            assert_eq!(beside(proxy).cause().as_deref(), Some(expected.as_str()));
            // The hint stays when the pod is stopped and the proxy ends.
            let mut deleted = beside(proxy);
            deleted.deleted();
            deleted.ended(proxy, Some(0), None, None);
            deleted.over();
            assert_eq!(
                deleted.cause(),
                Some(format!("{expected} The pod was deleted."))
            );
        }
        assert_eq!(beside("helper").cause(), None);
        let nothing = |change: &dyn Fn(&mut Facts)| {
            let mut facts = beside("istio-proxy");
            change(&mut facts);
            assert_eq!(facts.cause(), None);
        };
        nothing(&|facts| facts.runs("main"));
        nothing(&|facts| facts.waits("main", Some("CrashLoopBackOff"), None));
        nothing(&|facts| facts.runs("second"));
        nothing(&|facts| facts.ended("istio-proxy", Some(0), None, None));
        // If the last heartbeat was due already, it does not wait for the proxy.
        nothing(&Facts::over);
        // The proxy may be a native sidecar.
        nothing(&Facts::with_others);
        let mut alone = Facts::default();
        alone.runs("istio-proxy");
        assert_eq!(alone.cause(), None);
    }

    #[test]
    fn what_the_kubelet_says_of_the_pod() {
        for (reason, message, expected) in [
            (
                "DeadlineExceeded",
                "Pod was active on the node longer than the specified deadline",
                "The pod ran longer than its activeDeadlineSeconds (DeadlineExceeded: Pod was active on the node longer than the \
                 specified deadline).",
            ),
            (
                "Evicted",
                "The node was low on resource: memory. ",
                "The kubelet evicted the pod (Evicted: The node was low on resource: memory).",
            ),
            (
                "Preempting",
                "Preempted in order to admit critical pod",
                "The pod was preempted to make room for a more important pod (Preempting: Preempted in order to admit critical pod).",
            ),
            (
                "Terminated",
                "",
                "The pod was terminated because its node was shutting down (Terminated).",
            ),
            ("NodeLost", "", "The pod's node was lost (NodeLost)."),
            (
                "Strange",
                "a\n b",
                "Kubernetes reports a reason for the pod's state (Strange: a b).",
            ),
        ] {
            assert_eq!(of(said(None, reason, message), ran), expected);
        }
        // Before any container ran, such a reason means that the node rejected the pod.
        for (reason, expected) in [
            (
                "OutOfmemory",
                "The node rejected the pod because of insufficient memory (OutOfmemory: m).",
            ),
            (
                "OutOfnvidia.com/gpu",
                "The node rejected the pod because of insufficient nvidia.com/gpu (OutOfnvidia.com/gpu: m).",
            ),
            (
                "UnexpectedAdmissionError",
                "The pod was rejected before any of its containers ran (UnexpectedAdmissionError: m).",
            ),
            (
                "DeadlineExceeded",
                "The pod ran longer than its activeDeadlineSeconds (DeadlineExceeded: m).",
            ),
        ] {
            assert_eq!(of(said(None, reason, "m"), |_| {}), expected);
        }
        let long = of(said(None, "Evicted", &"x".repeat(1000)), ran);
        assert!(
            long.ends_with("x…).") && long.chars().count() < LONGEST + 100,
            "{long}"
        );
    }

    #[test]
    fn what_ends_a_pod_from_outside() {
        for (reason, expected) in [
            (
                "PreemptionByScheduler",
                "The pod was preempted to make room for a pod with higher priority",
            ),
            (
                "DeletionByTaintManager",
                "The pod was deleted because it does not tolerate a taint of its node",
            ),
            (
                "EvictionByEvictionAPI",
                "The pod was evicted through the Eviction API",
            ),
            (
                "DeletionByPodGC",
                "The pod garbage collector deleted the pod",
            ),
            ("TerminationByKubelet", "The kubelet terminated the pod"),
            ("Strange", "The pod was disrupted"),
        ] {
            let told = of(said(Some(DISRUPTION), reason, "m"), |facts| {
                facts.runs("main");
                facts.deleted();
            });
            assert!(
                told.starts_with(expected) && told.ends_with(&format!("({reason}: m).")),
                "{told}"
            );
        }
        // The kubelet's own reason has the same content with more detail.
        let mut facts = Facts::default();
        ran(&mut facts);
        facts.add(said(Some(DISRUPTION), BY_KUBELET, ""));
        facts.add(said(None, "Evicted", ""));
        assert_eq!(
            facts.cause().as_deref(),
            Some("The kubelet evicted the pod (Evicted).")
        );
    }

    #[test]
    fn what_came_after_the_end_did_not_end_the_task() {
        let late = of(
            said(Some(DISRUPTION), "EvictionByEvictionAPI", "m"),
            |facts| {
                ran(facts);
                facts.deleted();
            },
        );
        assert_eq!(late, "");
        let mut facts = Facts::default();
        facts.runs("main");
        facts.deleted();
        facts.ended("main", Some(143), Some("Error"), None);
        facts.over();
        assert_eq!(facts.cause().as_deref(), Some("The pod was deleted."));
    }

    #[test]
    fn what_keeps_a_task_from_starting() {
        for (reason, expected) in [
            ("ErrImagePull", "its image cannot be pulled"),
            ("ImagePullBackOff", "its image cannot be pulled"),
            ("InvalidImageName", "the name of its image is invalid"),
            (
                "CreateContainerConfigError",
                "its configuration is invalid, for example because a ConfigMap or Secret is missing",
            ),
            (
                "CreateContainerError",
                "the container runtime cannot create or start it",
            ),
            (
                "RunContainerError",
                "the container runtime cannot create or start it",
            ),
            ("Strange", "it waits"),
        ] {
            let mut facts = Facts::default();
            facts.waits("main", Some("ContainerCreating"), None);
            assert_eq!((facts.cause(), facts.never_ran("main")), (None, true));
            facts.waits("main", Some(reason), Some("m"));
            facts.waits("main", Some("PodInitializing"), None);
            let told = format!("Container main could not start: {expected} ({reason}: m).");
            assert_eq!(facts.cause().as_ref(), Some(&told));
            facts.deleted();
            facts.ended("main", Some(137), Some("ContainerStatusUnknown"), None);
            let more = "The kubelet lost container main: exit code 137 is not the container's own (ContainerStatusUnknown). The pod was deleted.";
            assert_eq!(facts.cause(), Some(format!("{told} {more}")));
            facts.runs("main");
            assert_eq!(facts.cause().as_deref(), Some("The pod was deleted."));
        }
        let setup = |exit_code| Why {
            container: Some("setup".to_owned()),
            exit_code,
            ..said(None, "Error", "m")
        };
        let waits = |facts: &mut Facts| facts.waits("main", Some("PodInitializing"), None);
        assert_eq!(
            of(setup(Some(5)), waits),
            "Init container setup failed with exit code 5, and the task's containers did not start (Error: m)."
        );
        assert_eq!(
            of(setup(None), waits),
            "Container setup prevents the task from starting: it waits (Error: m)."
        );
        assert_eq!(
            of(setup(Some(5)), |facts| facts.runs("main")),
            "",
            "it was started again"
        );
        let unscheduled = said(Some(SCHEDULED), "Unschedulable", "0/3 nodes are available");
        assert_eq!(
            of(unscheduled.clone(), |_| {}),
            "The scheduler cannot find a node for the pod (Unschedulable: 0/3 nodes are available)."
        );
        assert_eq!(of(unscheduled, |facts| facts.runs("main")), "");
    }

    #[test]
    fn how_containers_end_that_did_not_end_by_themselves() {
        for (reason, expected) in [
            (
                "OOMKilled",
                "Container main was killed because it ran out of memory (OOMKilled).",
            ),
            (
                "StartError",
                "Container main could not be started (StartError).",
            ),
            (
                "ContainerCannotRun",
                "Container main could not be started (ContainerCannotRun).",
            ),
            ("Error", ""),
            ("Completed", ""),
        ] {
            let mut facts = Facts::default();
            facts.ended("main", Some(1), Some(reason), None);
            facts.over();
            assert_eq!(facts.cause().unwrap_or_default(), expected);
            // After the next run begins, that end does not count.
            facts.runs("main");
            assert_eq!(facts.cause(), None);
        }
        let failed = of(said(Some(READY), "PodFailed", ""), ran);
        assert_eq!(failed, "", "after the end");
        let failed = of(said(Some(READY), "PodFailed", ""), |facts| {
            facts.runs("main")
        });
        assert!(
            failed.starts_with("The kubelet failed the pod although no container had failed"),
            "{failed}"
        );
    }
}

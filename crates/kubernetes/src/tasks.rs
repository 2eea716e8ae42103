//! Decides which of a pod's regular containers belong to the task: by default, all except podbeat's
//! own. A setting or an annotation of the pod can select others, because a container such as a
//! service mesh proxy never ends and would delay the last heartbeat forever.

use std::borrow::Cow;

use podbeat_heartbeat::marker::ContainerName;

use super::resource::Pod;

/// The annotation with the names of the task containers, separated by commas. It has precedence
/// over the settings.
pub const TASK_CONTAINERS: &str = "podbeat.dev/task-containers";

/// The annotation with the names of containers that do not belong to the task, separated by commas.
/// It has precedence over the settings.
pub const IGNORED_CONTAINERS: &str = "podbeat.dev/ignored-containers";

/// Parts of the names of containers that are known to run as long as their pod.
const KNOWN_TO_RUN_ON: [&str; 14] = [
    "istio-proxy",
    "linkerd-proxy",
    "cloud-sql-proxy",
    "cloudsql-proxy",
    "vault-agent",
    "fluent-bit",
    "fluentd",
    "filebeat",
    "consul-dataplane",
    "envoy-sidecar",
    "kuma-sidecar",
    "daprd",
    "datadog-agent",
    "gke-gcsfuse-sidecar",
];

/// Selects the task containers among the regular containers. podbeat's own container is never one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tasks {
    /// All regular containers.
    #[default]
    All,
    /// The containers with these names.
    Only(Vec<String>),
    /// All regular containers except those with these names.
    AllBut(Vec<String>),
}

impl Tasks {
    /// Uses the settings: the task containers, or else the ignored containers.
    #[must_use]
    pub fn new(tasks: &[ContainerName], ignored: &[ContainerName]) -> Self {
        let texts = |names: &[ContainerName]| names.iter().map(ToString::to_string).collect();
        if !tasks.is_empty() {
            Self::Only(texts(tasks))
        } else if !ignored.is_empty() {
            Self::AllBut(texts(ignored))
        } else {
            Self::All
        }
    }

    /// Parses the settings as a pod's spec may contain them, as names separated by commas. `None`
    /// if neither contains a name.
    #[must_use]
    pub fn read(tasks: Option<&str>, ignored: Option<&str>) -> Option<Self> {
        let named = |text: Option<&str>| {
            let names = text?
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty());
            let names: Vec<String> = names.map(str::to_owned).collect();
            (!names.is_empty()).then_some(names)
        };
        named(tasks)
            .map(Self::Only)
            .or_else(|| named(ignored).map(Self::AllBut))
    }

    /// Returns the selection for this pod: its annotations, or else these settings. If no regular
    /// container would be left, all of them belong to the task.
    #[must_use]
    pub(super) fn in_force<'tasks>(
        &'tasks self,
        pod: &Pod,
        own_container: &str,
    ) -> Cow<'tasks, Self> {
        let chosen = Self::annotated(pod).map_or(Cow::Borrowed(self), Cow::Owned);
        let mut regular = pod
            .spec
            .containers
            .iter()
            .map(|container| container.name.as_str());
        if regular.any(|name| name != own_container && chosen.include(name)) {
            chosen
        } else {
            Cow::Owned(Self::All)
        }
    }

    pub(super) fn include(&self, container: &str) -> bool {
        let names = |names: &[String]| names.iter().any(|name| name == container);
        match self {
            Self::All => true,
            Self::Only(these) => names(these),
            Self::AllBut(those) => !names(those),
        }
    }

    /// Returns the names, in this pod's annotations or else in these settings, that no regular
    /// container of the pod has.
    #[must_use]
    pub fn strangers(&self, pod: &Pod) -> Vec<String> {
        let chosen = Self::annotated(pod).unwrap_or_else(|| self.clone());
        let (Self::Only(mut names) | Self::AllBut(mut names)) = chosen else {
            return Vec::new();
        };
        names.retain(|name| {
            !pod.spec
                .containers
                .iter()
                .any(|container| container.name == *name)
        });
        names
    }

    fn annotated(pod: &Pod) -> Option<Self> {
        let text = |annotation: &str| {
            let annotations = pod.metadata.annotations.as_ref()?;
            annotations.get(annotation).map(String::as_str)
        };
        Self::read(text(TASK_CONTAINERS), text(IGNORED_CONTAINERS))
    }
}

/// Whether a container of this name is known to run as long as its pod, so that it probably does
/// not belong to the task.
#[must_use]
pub fn runs_on(container: &str) -> bool {
    KNOWN_TO_RUN_ON
        .iter()
        .any(|known| container.contains(known))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use podbeat_heartbeat::observation::Role;

    fn pod(annotations: &Value) -> Pod {
        let pod = json!({
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "main"}, {"name": "istio-proxy"}, {"name": "podbeat"}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn tasks(pod: &Pod, settings: &Tasks) -> Vec<String> {
        let seen = crate::status::observe_with(pod, "podbeat", settings);
        let tasks = seen
            .containers
            .into_iter()
            .filter(|container| container.role == Role::Task);
        tasks.map(|container| container.name).collect()
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn settings_and_annotations_say_which_are_the_tasks() {
        let bare = pod(&json!({}));
        assert_eq!(tasks(&bare, &Tasks::All), ["main", "istio-proxy"]);
        assert_eq!(tasks(&bare, &Tasks::Only(list(&["main"]))), ["main"]);
        assert_eq!(
            tasks(&bare, &Tasks::AllBut(list(&["istio-proxy", "other"]))),
            ["main"]
        );
        for annotations in [
            json!({TASK_CONTAINERS: "main"}),
            json!({IGNORED_CONTAINERS: " istio-proxy ,,x"}),
            json!({TASK_CONTAINERS: "main", IGNORED_CONTAINERS: "main"}),
        ] {
            assert_eq!(
                tasks(&pod(&annotations), &Tasks::Only(list(&["istio-proxy"]))),
                ["main"]
            );
        }
        let nothing = json!({TASK_CONTAINERS: " , ", IGNORED_CONTAINERS: ""});
        assert_eq!(
            tasks(&pod(&nothing), &Tasks::Only(list(&["main"]))),
            ["main"]
        );
    }

    #[test]
    fn a_task_without_containers_is_no_task() {
        let bare = pod(&json!({}));
        for none in [
            Tasks::Only(list(&["mian"])),
            Tasks::Only(list(&["podbeat"])),
            Tasks::AllBut(list(&["main", "istio-proxy"])),
        ] {
            assert_eq!(tasks(&bare, &none), ["main", "istio-proxy"], "{none:?}");
        }
        assert_eq!(
            Tasks::Only(list(&["mian", "main"])).strangers(&bare),
            ["mian"]
        );
        assert_eq!(Tasks::AllBut(list(&["main"])).strangers(&bare), [""; 0]);
        let annotated = pod(&json!({IGNORED_CONTAINERS: "x"}));
        assert_eq!(Tasks::Only(list(&["mian"])).strangers(&annotated), ["x"]);
    }

    #[test]
    fn those_that_run_on_are_known_by_name() {
        for name in [
            "istio-proxy",
            "linkerd-proxy",
            "my-cloud-sql-proxy",
            "vault-agent",
            "fluent-bit",
        ] {
            assert!(runs_on(name), "{name}");
        }
        assert!(!runs_on("main") && !runs_on("proxy-tests"));
    }
}

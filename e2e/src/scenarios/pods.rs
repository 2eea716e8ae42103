//! The pods: a task, and podbeat as a native or a plain sidecar.

use serde_json::{Value, json};

use crate::node::images::{PODBEAT, TASK};

/// How podbeat's container is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An init container with restartPolicy Always, the first of the init containers.
    Native,
    /// A regular container, after the task's.
    Plain,
}

impl Kind {
    /// The word for it in scenario names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Plain => "plain",
        }
    }
}

/// One container of the task: its name and its shell script.
#[derive(Clone, Debug)]
pub struct Container {
    name: &'static str,
    script: String,
    more: Value,
}

impl Container {
    /// Runs a shell script.
    #[must_use]
    pub fn new(name: &'static str, script: &str) -> Self {
        Self {
            name,
            script: script.to_owned(),
            more: json!({}),
        }
    }

    /// Sets more members of the container.
    #[must_use]
    pub fn with(mut self, more: Value) -> Self {
        merge(&mut self.more, more);
        self
    }

    fn spec(&self, wrapped: bool) -> Value {
        let mut command = vec!["/bin/sh", "-c", &self.script];
        if wrapped {
            let wrapper = [
                "/opt/podbeat/podbeat",
                "exec",
                "--container-name",
                self.name,
                "--marker-dir",
                "/markers",
                "--",
            ];
            command.splice(0..0, wrapper);
        }
        let mut mounts = vec![json!({"name": "scratch", "mountPath": "/scratch"})];
        if wrapped {
            mounts.push(
                json!({"name": "podbeat-program", "mountPath": "/opt/podbeat", "readOnly": true}),
            );
            mounts.push(json!({"name": "podbeat-markers", "mountPath": "/markers"}));
        }
        let mut spec = json!({
            "name": self.name, "image": TASK, "imagePullPolicy": "IfNotPresent",
            "command": command, "volumeMounts": mounts,
        });
        merge(&mut spec, self.more.clone());
        spec
    }
}

/// The plan of a pod: the task's containers, and podbeat's options.
#[derive(Clone, Debug)]
pub struct Plan {
    kind: Kind,
    containers: Vec<Container>,
    init: Vec<Container>,
    markers: bool,
    restart_policy: &'static str,
    grace: u32,
    settings: Vec<(&'static str, String)>,
    volumes: Vec<(Value, Value)>,
    more: Value,
    own: Value,
}

impl Plan {
    /// One container `main` that runs a script and is never restarted, with a grace period of 30 s.
    #[must_use]
    pub fn new(kind: Kind, script: &str) -> Self {
        Self::of(kind, vec![Container::new("main", script)])
    }

    /// A pod with these containers.
    #[must_use]
    pub fn of(kind: Kind, containers: Vec<Container>) -> Self {
        Self {
            kind,
            containers,
            init: Vec::new(),
            markers: false,
            restart_policy: "Never",
            grace: 30,
            settings: Vec::new(),
            volumes: Vec::new(),
            more: json!({}),
            own: json!({}),
        }
    }

    /// Adds an init container that runs to its end before the task's containers start.
    #[must_use]
    pub fn init(mut self, container: Container) -> Self {
        self.init.push(container);
        self
    }

    /// Wraps the task's commands in `podbeat exec`, which writes exit markers.
    #[must_use]
    pub fn markers(mut self) -> Self {
        self.markers = true;
        self
    }

    /// Sets the pod's restart policy.
    #[must_use]
    pub fn restart(mut self, policy: &'static str) -> Self {
        self.restart_policy = policy;
        self
    }

    /// Sets the pod's grace period in seconds.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        self.grace = seconds;
        self
    }

    /// Sets a setting of podbeat.
    #[must_use]
    pub fn setting(mut self, variable: &'static str, value: &str) -> Self {
        self.settings.push((variable, value.to_owned()));
        self
    }

    /// Adds a volume to the pod, mounted in podbeat's container.
    #[must_use]
    pub fn volume(mut self, volume: &Value, mount: &Value) -> Self {
        self.volumes.push((volume.clone(), mount.clone()));
        self
    }

    /// Sets more members of the pod's spec.
    #[must_use]
    pub fn with(mut self, more: Value) -> Self {
        merge(&mut self.more, more);
        self
    }

    /// Sets more members of podbeat's own container.
    #[must_use]
    pub fn own(mut self, more: Value) -> Self {
        merge(&mut self.own, more);
        self
    }

    /// How podbeat's container is declared.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The pod's spec. `url` is the task-run service's URL.
    #[must_use]
    pub fn spec(&self, url: &str) -> Value {
        let podbeat = self.podbeat(url);
        let tasks = self
            .containers
            .iter()
            .map(|container| container.spec(self.markers));
        let mut init: Vec<Value> = Vec::new();
        if self.markers {
            init.push(json!({
                "name": "podbeat-install", "image": PODBEAT, "imagePullPolicy": "Never",
                "args": ["exec", "--install", "/opt/podbeat/podbeat"],
                "volumeMounts": [{"name": "podbeat-program", "mountPath": "/opt/podbeat"}],
            }));
        }
        init.extend(self.init.iter().map(|container| container.spec(false)));
        let mut containers: Vec<Value> = tasks.collect();
        match self.kind {
            Kind::Native => init.insert(0, podbeat),
            Kind::Plain => containers.push(podbeat),
        }
        let mut spec = json!({
            "serviceAccountName": "podbeat",
            "restartPolicy": self.restart_policy,
            "terminationGracePeriodSeconds": self.grace,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 65532,
                                "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": init,
            "containers": containers,
            "volumes": [
                {"name": "task-runs", "projected": {"sources": [
                    {"secret": {"name": "task-runs"}}, {"configMap": {"name": "task-runs-ca"}}]}},
                {"name": "podbeat-state", "emptyDir": {}},
                {"name": "podbeat-program", "emptyDir": {}},
                {"name": "podbeat-markers", "emptyDir": {}},
                {"name": "scratch", "emptyDir": {}},
            ],
        });
        if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
            volumes.extend(self.volumes.iter().map(|(volume, _)| volume.clone()));
        }
        merge(&mut spec, self.more.clone());
        spec
    }

    fn podbeat(&self, url: &str) -> Value {
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut env = vec![
            // Each pod is its own run, so that the service can distinguish them.
            field("TASK_RUN_ID", "metadata.name"),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
        ];
        let mut mounts = vec![
            json!({"name": "task-runs", "mountPath": "/var/run/task-runs", "readOnly": true}),
            json!({"name": "podbeat-state", "mountPath": "/var/lib/podbeat"}),
        ];
        mounts.extend(self.volumes.iter().map(|(_, mount)| mount.clone()));
        let mut settings = vec![
            ("PODBEAT_SERVICE_URL", url.to_owned()),
            ("PODBEAT_TOKEN_FILE", "/var/run/task-runs/token".to_owned()),
            ("PODBEAT_CA_FILE", "/var/run/task-runs/ca.crt".to_owned()),
            ("PODBEAT_STATE_DIR", "/var/lib/podbeat".to_owned()),
            ("PODBEAT_INTERVAL", "2s".to_owned()),
            ("PODBEAT_TIMEOUT", "2s".to_owned()),
        ];
        if self.markers {
            settings.push(("PODBEAT_MARKER_DIR", "/markers".to_owned()));
            mounts.push(
                json!({"name": "podbeat-markers", "mountPath": "/markers", "readOnly": true}),
            );
        }
        for (variable, value) in self.settings.iter().cloned() {
            settings.retain(|(known, _)| *known != variable);
            env.retain(|known| known.get("name") != Some(&json!(variable)));
            settings.push((variable, value));
        }
        env.extend(
            settings
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value})),
        );
        let mut podbeat = json!({
            "name": "podbeat", "image": PODBEAT, "imagePullPolicy": "Never", "env": env, "volumeMounts": mounts,
            "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
        });
        if self.kind == Kind::Native {
            merge(&mut podbeat, json!({"restartPolicy": "Always"}));
        }
        merge(&mut podbeat, self.own.clone());
        podbeat
    }
}

/// Sets members of an object, and of nested objects.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(spec: &Value, member: &str) -> Vec<String> {
        let all = spec[member].as_array().expect("a list");
        all.iter()
            .map(|one| one["name"].as_str().expect("a name").to_owned())
            .collect()
    }

    #[test]
    fn a_native_sidecar_is_the_first_init_container_and_a_plain_one_the_last_container() {
        let init = Container::new("setup", "true");
        let native = Plan::new(Kind::Native, "true")
            .init(init.clone())
            .markers()
            .spec("https://s");
        assert_eq!(
            names(&native, "initContainers"),
            ["podbeat", "podbeat-install", "setup"]
        );
        assert_eq!(names(&native, "containers"), ["main"]);
        assert_eq!(native["initContainers"][0]["restartPolicy"], "Always");
        let plain = Plan::new(Kind::Plain, "true").init(init).spec("https://s");
        assert_eq!(names(&plain, "initContainers"), ["setup"]);
        assert_eq!(names(&plain, "containers"), ["main", "podbeat"]);
        assert_eq!(plain["containers"][1].get("restartPolicy"), None);
    }

    #[test]
    fn a_setting_replaces_the_default() {
        let plan = Plan::new(Kind::Plain, "true")
            .setting("TASK_RUN_ID", "r")
            .setting("PODBEAT_INTERVAL", "9s");
        let spec = plan.spec("https://s");
        let env = spec["containers"][1]["env"].as_array().expect("a list");
        let values = |name: &str| -> Vec<&Value> {
            env.iter()
                .filter(|variable| variable["name"] == name)
                .map(|variable| &variable["value"])
                .collect()
        };
        assert_eq!(values("TASK_RUN_ID"), [&json!("r")]);
        assert_eq!(values("PODBEAT_INTERVAL"), [&json!("9s")]);
        assert_eq!(values("PODBEAT_SERVICE_URL"), [&json!("https://s")]);
    }

    #[test]
    fn only_the_tasks_command_gets_the_wrapper() {
        let spec = Plan::new(Kind::Native, "exit 3")
            .markers()
            .spec("https://s");
        let command = spec["containers"][0]["command"].as_array().expect("a list");
        assert_eq!(
            command[..3],
            [
                json!("/opt/podbeat/podbeat"),
                json!("exec"),
                json!("--container-name")
            ]
        );
        assert_eq!(command[command.len() - 1], json!("exit 3"));
        let podbeat = &spec["initContainers"][0];
        assert_eq!(podbeat.get("command"), None);
    }
}

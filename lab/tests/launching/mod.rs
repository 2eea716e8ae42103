//! podbeat-server's launcher against the stand-in Kubernetes API, with a stand-in node whose pods
//! have the real agent.

mod api;
mod killed;
mod runs;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use podbeat_lab::kube_api::{self, Kind};
use podbeat_lab::node::{Node, Program};
use podbeat_lab::service::{self, Launch};
use podbeat_lab::world::{TOKEN, World};
use podbeat_launch::launcher::{Deed, Observer};
use podbeat_launch::manifests;
use podbeat_launch::settings::Settings;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::harness;

/// The limit for a state.
const LIMIT: Duration = Duration::from_secs(45);

/// How often a state is looked for that nothing announces.
const AGAIN: Duration = Duration::from_millis(20);

/// The namespace of the runs.
const NAMESPACE: &str = "tasks";

/// A task that succeeds.
const SUCCEEDS: Program = Program::Exits(0, Duration::from_millis(200));

/// A task that fails.
const FAILS: Program = Program::Exits(3, Duration::from_millis(200));

/// What a launcher did.
#[derive(Clone, Default)]
struct Deeds(Arc<Mutex<Vec<String>>>);

impl Observer for Deeds {
    fn done(&self, deed: Deed<'_>) {
        self.0.lock().expect("deeds").push(format!("{deed:?}"));
    }
}

impl Deeds {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("deeds").clone()
    }
}

/// A service that launches runs, the stand-ins around it, and the data file.
struct Site {
    world: World,
    node: Node,
    deeds: Deeds,
    client: Client,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn start(programs: impl Fn(&str, u32) -> Program + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let deeds = Deeds::default();
        let settings = br#"{"retries": {"backoffSeconds": 0}, "terminationGracePeriodSeconds": 5,
            "resources": {"sizes": {"small": {"resources": {"cpu": "1"}},
                                    "large": {"resources": {"cpu": "16"}}}}}"#;
        let options = service::Options {
            data: Some(dir.path().join("runs.db")),
            launch: Some(Launch {
                settings: Settings::read(settings).expect("right settings"),
                kubeconfig: "".into(),
                observer: Arc::new(deeds.clone()),
            }),
            ..service::Options::with_token(TOKEN)
        };
        let kube = kube_api::Options {
            // All changes of a test, to be counted.
            history: 10_000,
            ..kube_api::Options::default()
        };
        let world = World::with(kube, options).await.expect("a world");
        let pem = std::fs::read(world.path("ca.crt")).expect("the CA");
        let client = harness::client()
            .tls_certs_only([Certificate::from_pem(&pem).expect("a certificate")])
            .pool_max_idle_per_host(0)
            .timeout(LIMIT)
            .build()
            .expect("a client");
        Self {
            node: world.node(Duration::ZERO, programs, ()).expect("a node"),
            world,
            deeds,
            client,
            _dir: dir,
        }
    }

    async fn ask(&self, method: &str, rest: &str, body: Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let url = format!("{}/v1/tasks/runs{rest}", self.world.service.url());
        let request = self.client.request(method, url).bearer_auth(TOKEN);
        let request = match body {
            Value::Null => request,
            body => request.json(&body),
        };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Creates a run and returns its ID.
    async fn create(&self) -> String {
        let execution = json!({"image": {"name": "busybox", "tag": "1.37"}, "command": "align",
                               "args": ["reads.fq"]});
        let (status, run) = self
            .ask("POST", "", json!({"name": "test", "execution": execution}))
            .await;
        assert_eq!(status, 201, "{run}");
        run["id"].as_str().expect("an ID").to_owned()
    }

    async fn get(&self, id: &str) -> Value {
        let (status, run) = self.ask("GET", &format!("/{id}"), Value::Null).await;
        assert_eq!(status, 200, "{run}");
        run
    }

    async fn abort(&self, id: &str) {
        let (status, run) = self.ask("PUT", &format!("/{id}:abort"), Value::Null).await;
        assert_eq!(status, 200, "{run}");
    }

    /// Waits until a run is as wanted, and returns it.
    async fn until(&self, id: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let run = self.get(id).await;
                if reached(&run) {
                    return run;
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        match tokio::time::timeout(LIMIT, wait).await {
            Ok(run) => run,
            Err(_) => panic!(
                "{what} not reached: {}\n{}",
                self.get(id).await,
                self.story()
            ),
        }
    }

    async fn until_status(&self, id: &str, status: &str) -> Value {
        self.until(id, status, |run| run["status"] == status).await
    }

    /// Waits until the cluster has none of the objects of a launcher.
    async fn until_nothing_is_left(&self) {
        let kube = &self.world.kube;
        let left = |kind| kube.all(kind).len();
        let is_empty = || [Kind::Job, Kind::Secret, Kind::Pod].map(left) == [0; 3];
        let reached = kube.wait_for("an empty cluster", LIMIT, |_| is_empty());
        if reached.await.is_err() {
            panic!("something is left\n{}", self.story());
        }
    }

    /// How many Jobs were created for an attempt.
    fn jobs_of(&self, id: &str, attempt: u32) -> usize {
        let name = manifests::name(id, attempt);
        let changes = self.world.kube.changes_since(0);
        let created = changes.iter().filter(|event| {
            event.kind == Kind::Job
                && event.change == "ADDED"
                && event.object["metadata"]["name"] == name.as_str()
        });
        created.count()
    }

    /// Checks what must be true after every test.
    fn check(&self) {
        assert_eq!(self.node.problems(), Vec::<String>::new());
        assert_eq!(self.world.service.violations(), Vec::<String>::new());
    }

    /// For a test that failed.
    fn story(&self) -> String {
        let changes = self.world.kube.changes_since(0);
        let changes: Vec<String> = changes
            .iter()
            .map(|event| {
                let status = &event.object["status"]["phase"];
                let (kind, name) = (event.kind.name(), &event.object["metadata"]["name"]);
                format!("{} {kind} {name} {status}", event.change)
            })
            .collect();
        format!(
            "{changes:#?}\n{:#?}\n{:#?}\n{:#?}",
            self.deeds.all(),
            self.node.problems(),
            self.world.service.heartbeats()
        )
    }
}

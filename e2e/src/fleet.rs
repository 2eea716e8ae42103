//! A fleet of real agents with a real kube-apiserver: the cost for the API server, and the effects
//! of outages of either side.
//!
//! This program replaces the kubelet: it patches the pods' statuses. The agents are in processes of
//! `podbeat-lab`, and the service is podbeat-server, behind a layer in this process that records
//! heartbeats. The API server's audit log shows each request and its time.

mod audit;
mod balancer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use audit::{Asked, Verb};
use balancer::Balancer;
use futures_util::{StreamExt, TryStreamExt, stream};
use kube::Client;
use podbeat_lab::fleet::agents::Plan;
use podbeat_lab::fleet::figures::{Figures, Limit};
use podbeat_lab::fleet::measure::{after_outage, end};
use podbeat_lab::fleet::process::{Usage, raise_file_limit, usage};
use podbeat_lab::fleet::scenario::{LAST, Member};
use podbeat_lab::fleet::service::{FleetService, write_ca};
use podbeat_lab::fleet::spread::{Spread, percentile};
use podbeat_lab::fleet::workers::Workers;
use podbeat_lab::kube_api::KubeApi;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Namespace, apply_flow_schema};
use crate::cluster::{Cluster, get, kube_error};
use crate::runner::{repository, say};
use crate::{Error, io};

/// The time limit for anything that works.
const LIMIT: Duration = Duration::from_secs(120);

/// How many pods are created or changed concurrently.
const AT_ONCE: usize = 16;

const NAMESPACE: &str = "fleet";

/// The time between two heartbeats, as in production.
const INTERVAL: Duration = Duration::from_secs(30);

/// The length of the time at rest, in which only the agents act. kube-apiserver sends one bookmark
/// to each watch in this time.
const REST: Duration = Duration::from_secs(60);

/// How long the API server stays down.
const DOWN: Duration = Duration::from_secs(5);

/// How long reconnects are recorded: longer than the widest spread.
const RECONNECT: Duration = Duration::from_secs(50);

/// The largest number of agents that use a load balancer to reach the API server; at most half of
/// the agents. The others connect directly.
const BALANCED: usize = 200;

/// The limit for news of a pod whose watch was dropped while the API server continued: for 95 of
/// 100 pods, in seconds.
const NEWS: f64 = 5.0;

/// The shortest allowed spread of reconnects, in seconds.
const SPREAD_OVER: f64 = 30.0;

/// The fleet's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of agents.
    pub agents: usize,
    /// The path of `podbeat-lab`.
    pub lab: PathBuf,
    /// The path of `podbeat-server`.
    pub server: PathBuf,
}

impl Options {
    /// The time over which the agents are started: 100 a second. So bookmarks, which come a minute
    /// after a watch began, leave most of each minute free.
    fn start_over(&self) -> Duration {
        Duration::from_millis(10) * u32::try_from(self.agents).unwrap_or(u32::MAX)
    }
}

/// Runs the fleet with a cluster that was started with [`audited`].
///
/// # Errors
/// Something can't be started, or an expected state is not reached.
pub async fn run(cluster: &mut Cluster, options: &Options) -> Result<Figures, Error> {
    let agents = options.agents;
    let mut figures = Figures::default();
    raise_file_limit()?;
    let mut fleet = Fleet::prepare(cluster, options, &mut figures).await?;

    // The events that a change causes in the API server's own watches, measured before the agents
    // start.
    let before_all = fleet.metrics(cluster).await?;
    fleet.step(0).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let own = (fleet.metrics(cluster).await?.events - before_all.events) / agents as f64;
    let idle = tokio::time::sleep(Duration::from_secs(5));
    let empty = apiserver(cluster)?;
    idle.await;
    let empty_later = apiserver(cluster)?;

    let opening = Instant::now();
    let mut workers = fleet.start(cluster, options).await?;
    fleet.service.listen_for_step(0, agents, LIMIT).await?;
    let watches = fleet
        .until_watched(cluster, agents, before_all.watches)
        .await?;
    figures.exactly("open watches", watches, agents);
    fleet.tell(&format!(
        "after {:.1} s, all agents watch their pods and have sent a heartbeat",
        opening.elapsed().as_secs_f64()
    ));

    // After the last watch began, and before the first bookmark, which comes a minute after the
    // first watch began.
    let before = fleet.metrics(cluster).await?;
    fleet.step(1).await?;
    fleet.service.listen_for_step(1, agents, LIMIT).await?;
    let events = (fleet.metrics(cluster).await?.events - before.events) / agents as f64 - own;
    let undisturbed = opening.elapsed() < Duration::from_secs(58);
    fleet.tell(&format!(
        "every pod changed once: {events:.4} events per pod to agents ({own:.2} to the API server itself){}",
        if undisturbed {
            ""
        } else {
            "; the figure includes bookmarks"
        }
    ));
    // The count can include bookmarks to the API server itself, or to agents if their start took
    // more than a minute.
    let more = if undisturbed {
        2.0 / agents as f64
    } else {
        0.5
    };
    figures.add(
        "events to agents per change",
        events,
        "",
        if events < 1.0 {
            Limit::AtLeast(1.0)
        } else {
            Limit::AtMost(1.0 + more)
        },
    );

    // As if a load balancer restarted, or its idle timeout expired.
    let dropped_at = fleet.drop_watches();
    let dropped_since = jiff::Timestamp::now();
    fleet.step(2).await?;
    fleet.service.listen_for_step(2, agents, LIMIT).await?;
    fleet.tell(&format!(
        "the watches of {} agents were dropped, and every pod changed",
        fleet.balanced()
    ));
    news(&mut figures, &fleet, dropped_at, dropped_since)?;
    fleet
        .until_watched(cluster, agents, before_all.watches)
        .await?;

    // The time at rest. The service is away, because heartbeats don't concern the API server.
    let used = apiserver(cluster)?;
    let (from, since) = (jiff::Timestamp::now(), Instant::now());
    let back = fleet.go_away()?;
    fleet.tell("the service is unavailable, and no pod changes for a minute");
    fleet
        .service
        .listen_until(back.saturating_sub(Duration::from_secs(8)))
        .await;
    let rested = since.elapsed();
    let (resting, until) = (apiserver(cluster)?, jiff::Timestamp::now());
    for step in 3..=5 {
        let begun = Instant::now();
        fleet.step(step).await?;
        // Two changes of a pod within a quarter of a second may be reported as one.
        tokio::time::sleep_until(begun + Duration::from_secs(1)).await;
    }
    fleet.tell("every pod changed three times while the service was unavailable");
    let asked = audit::read(&fleet.audit_log)?;
    cost(
        &mut figures,
        agents,
        &Costs {
            empty,
            empty_later,
            used,
            resting,
            rested,
        },
    );
    at_rest(&mut figures, agents, &asked, from, until);
    fleet.service.listen_until(back).await;
    fleet.tell("the service is back");

    let connections = workers.usage()?;
    figures.add(
        "connections and files per agent",
        connections.files as f64 / agents as f64,
        "",
        Limit::None,
    );
    figures.add(
        "memory per agent, in shared processes",
        connections.rss_kib as f64 / agents as f64,
        "KiB",
        Limit::None,
    );

    // The heartbeats that resume don't concern the API server, either.
    cluster.kill_apiserver().await?;
    let killed = jiff::Timestamp::now();
    fleet.tell("the API server is killed");
    fleet
        .service
        .listen_until(fleet.service.elapsed() + DOWN)
        .await;
    cluster.start_apiserver().await?;
    let restarted = Instant::now();
    fleet.tell("the API server is back");
    fleet.admin = cluster.admin().await?;
    fleet.step(6).await?;
    fleet.tell("every pod changed once before most agents were back");
    let listening = RECONNECT.saturating_sub(restarted.elapsed());
    fleet
        .service
        .listen_until(fleet.service.elapsed() + listening)
        .await;
    fleet.service.listen_for_step(6, agents, LIMIT).await?;
    fleet
        .until_watched(cluster, agents, before_all.watches)
        .await?;
    let asked = audit::read(&fleet.audit_log)?;
    reconnects(&mut figures, agents, &asked, killed)?;
    let returned = Spread::of(fleet.service.ledger.first_accepted_since(back), back, 30);
    after_outage(&fleet.service, &returned, &mut figures);

    for step in 7..=LAST {
        let begun = Instant::now();
        fleet.step(step).await?;
        tokio::time::sleep_until(begun + Duration::from_secs(1)).await;
        fleet.service.listen_for_step(step, agents, LIMIT).await?;
    }
    end(&mut fleet.service, &mut workers, agents, &mut figures).await?;
    fleet.tell("every run has ended");
    Ok(figures)
}

/// The API server flags for a fleet's cluster: an audit log of requests for pods.
///
/// # Errors
/// The policy can't be written.
pub fn audited(dir: &Path) -> Result<Vec<String>, Error> {
    let group = format!("system:serviceaccounts:{NAMESPACE}");
    let omitted = ["RequestReceived", "Panic"];
    crate::cluster::audited(dir, &omitted, ("userGroups", &group))
}

struct Fleet {
    admin: Client,
    namespace: String,
    service: FleetService,
    ca_file: PathBuf,
    service_account_dir: PathBuf,
    audit_log: PathBuf,
    balancer: Balancer,
    uids: Vec<String>,
    begun: Instant,
}

impl Fleet {
    /// Creates the namespace with its rights, podbeat's flow schema, the pods and the service.
    async fn prepare(
        cluster: &Cluster,
        options: &Options,
        figures: &mut Figures,
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let admin = cluster.admin().await?;
        let namespace = Namespace::create(admin.clone(), NAMESPACE).await?;
        namespace.grant_all().await?;
        let token = namespace.token().await?;
        let dir = cluster.path("fleet");
        KubeApi::write_service_account(&cluster.authority, &token, &dir)?;
        let podbeat = cluster.client_of(&token).await?;
        let manifest = repository().join("deploy/manifests/flowschema.yaml");
        let manifest = std::fs::read_to_string(&manifest)
            .map_err(io(format!("reading {}", manifest.display())))?;
        let manifest = manifest.replace("namespace: tasks", &format!("namespace: {NAMESPACE}"));
        apply_flow_schema(&admin, &manifest, &podbeat, NAMESPACE).await?;
        let (authority, files) = (&cluster.authority, dir.join("server"));
        let service =
            FleetService::start(authority, options.agents, &options.server, &files).await?;
        let mut fleet = Self {
            admin,
            namespace: NAMESPACE.to_owned(),
            service,
            ca_file: write_ca(&cluster.authority, &dir)?,
            service_account_dir: dir,
            audit_log: cluster.path("audit.jsonl"),
            balancer: Balancer::start(cluster.port).await?,
            uids: Vec::new(),
            begun,
        };
        let to = fleet.namespace();
        fleet.uids = stream::iter(0..options.agents)
            .map(|nth| {
                let to = to.clone();
                async move { to.create_pod(&pod(&Member { nth })).await }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let first = to.pod(&Member { nth: 0 }.pod()).await?;
        figures.add(
            "size of a pod as JSON",
            first.to_string().len() as f64 / 1024.0,
            "KiB",
            Limit::None,
        );
        fleet.tell(&format!("created {} pods", options.agents));
        Ok(fleet)
    }

    fn namespace(&self) -> Namespace {
        Namespace::existing(self.admin.clone(), &self.namespace)
    }

    fn tell(&self, text: &str) {
        say(&format!(
            "{:6.1}s  {text}",
            self.begun.elapsed().as_secs_f64()
        ));
    }

    /// Moves every pod to a step of its life.
    async fn step(&self, step: usize) -> Result<(), Error> {
        let to = self.namespace();
        stream::iter(0..self.uids.len())
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |nth| {
                let to = to.clone();
                async move {
                    let member = Member { nth };
                    let status = member.at(step).get("status").cloned().unwrap_or_default();
                    to.set_status(&member.pod(), &status).await
                }
            })
            .await
    }

    async fn start(&self, cluster: &Cluster, options: &Options) -> Result<Workers, Error> {
        let mut settings = self.service.settings(&self.ca_file, INTERVAL);
        settings.extend(
            [
                ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
                ("KUBERNETES_SERVICE_PORT", cluster.port.to_string()),
                (
                    "PODBEAT_SERVICE_ACCOUNT_DIR",
                    self.service_account_dir.display().to_string(),
                ),
                ("POD_NAMESPACE", self.namespace.clone()),
            ]
            .map(|(variable, value)| (variable.to_owned(), value)),
        );
        let plan = Plan {
            settings,
            agents: self
                .uids
                .iter()
                .enumerate()
                .map(|(nth, uid)| {
                    let mut settings = self.service.settings_of(nth, Some(uid));
                    if nth < self.balanced() {
                        let port = self.balancer.port.to_string();
                        settings.insert("KUBERNETES_SERVICE_PORT".to_owned(), port);
                    }
                    settings
                })
                .collect(),
            start_over_ms: u64::try_from(options.start_over().as_millis()).unwrap_or(u64::MAX),
        };
        Ok(Workers::start(&options.lab, &plan, 1 + self.uids.len() / 5000).await?)
    }

    /// The number of agents that use the load balancer: the first ones.
    fn balanced(&self) -> usize {
        BALANCED.min(self.uids.len() / 2)
    }

    /// Drops the balanced watches. Returns the time.
    fn drop_watches(&self) -> Duration {
        self.balancer.drop_all();
        self.service.elapsed()
    }

    fn go_away(&self) -> Result<Duration, Error> {
        self.service
            .go_away(REST + Duration::from_secs(8))
            .map_err(|error| Error::Unexpected(error.to_string()))
    }

    async fn metrics(&self, cluster: &Cluster) -> Result<Metrics, Error> {
        let text = cluster
            .admin()
            .await?
            .request_text(get("/metrics"))
            .await
            .map_err(|error| kube_error("asking for the API server's metrics", error))?;
        Ok(Metrics::read(&text))
    }

    /// Waits until each agent has an open watch. `own` is the number of the API server's own
    /// watches, which don't count.
    async fn until_watched(
        &mut self,
        cluster: &Cluster,
        agents: usize,
        own: usize,
    ) -> Result<usize, Error> {
        let begun = Instant::now();
        loop {
            let watches = self.metrics(cluster).await?.watches.saturating_sub(own);
            if watches >= agents || begun.elapsed() > LIMIT {
                return Ok(watches);
            }
            self.service
                .listen_until(self.service.elapsed() + Duration::from_millis(500))
                .await;
        }
    }
}

/// The API server's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Metrics {
    /// Events sent in watches of pods, including bookmarks.
    events: f64,
    /// Open watches of pods.
    watches: usize,
}

impl Metrics {
    fn read(text: &str) -> Self {
        let sum = |name: &str, labels: &[&str]| -> f64 {
            text.lines()
                .filter(|line| {
                    line.strip_prefix(name)
                        .is_some_and(|rest| rest.starts_with('{'))
                })
                .filter(|line| labels.iter().all(|label| line.contains(label)))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        let pods = "resource=\"pods\"";
        let open = sum("apiserver_longrunning_requests", &[pods, "verb=\"WATCH\""]);
        Self {
            events: sum("apiserver_watch_events_total", &[pods]),
            watches: format!("{open:.0}").parse().unwrap_or(0),
        }
    }
}

fn apiserver(cluster: &Cluster) -> Result<Usage, Error> {
    let pid = cluster
        .apiserver_pid()
        .ok_or_else(|| Error::Unexpected("the API server doesn't run".to_owned()))?;
    Ok(usage(pid)?)
}

struct Costs {
    /// Before the agents started, and 5 s later.
    empty: Usage,
    empty_later: Usage,
    /// At the start of the time at rest, and at its end.
    used: Usage,
    resting: Usage,
    rested: Duration,
}

fn cost(figures: &mut Figures, agents: usize, costs: &Costs) {
    let agents = agents as f64;
    let mut told = |name, value, unit| figures.add(name, value, unit, Limit::None);
    let mib = |usage: Usage| usage.rss_kib as f64 / 1024.0;
    told(
        "the API server's memory without agents",
        mib(costs.empty_later),
        "MiB",
    );
    told(
        "the API server's memory with them, at rest",
        mib(costs.resting),
        "MiB",
    );
    told(
        "its memory for a watch",
        (mib(costs.resting) - mib(costs.empty_later)).max(0.0) * 1024.0 / agents,
        "KiB",
    );
    let without = (costs.empty_later.cpu_seconds - costs.empty.cpu_seconds) / 5.0;
    let with = (costs.resting.cpu_seconds - costs.used.cpu_seconds) / costs.rested.as_secs_f64();
    told(
        "the API server's CPU without agents",
        without * 100.0,
        "% of 1",
    );
    told(
        "the API server's CPU with them, at rest",
        with * 100.0,
        "% of 1",
    );
    told(
        "its CPU for a watch",
        (with - without).max(0.0) * 1000.0 / agents,
        "ms/s",
    );
}

/// The requests in the time at rest, and how often watches are renewed.
fn at_rest(
    figures: &mut Figures,
    agents: usize,
    asked: &[Asked],
    from: jiff::Timestamp,
    until: jiff::Timestamp,
) {
    let minutes = until.duration_since(from).as_secs_f64() / 60.0;
    let resting = || asked.iter().filter(|one| (from..until).contains(&one.at));
    let seen = resting().count() as f64 / minutes / agents as f64;
    // Watches last minutes, so the renewal rate comes from the timeouts that they request.
    let lasting: Vec<f64> = asked.iter().filter_map(|one| one.timeout_seconds).collect();
    let renewals = 60.0 * lasting.len() as f64 / lasting.iter().sum::<f64>().max(1.0);
    let renewed =
        resting().filter(|one| one.verb == Verb::Watch).count() as f64 / minutes / agents as f64;
    figures.add(
        "requests a minute an agent, seen at rest",
        seen,
        "/min",
        Limit::None,
    );
    figures.add(
        "renewals of a watch a minute, as it asks",
        renewals,
        "/min",
        Limit::None,
    );
    figures.add(
        "requests a minute an agent, both",
        seen - renewed + renewals,
        "/min",
        Limit::AtMost(1.2),
    );
    let mut verbs: BTreeMap<&str, usize> = BTreeMap::new();
    for one in resting() {
        *verbs.entry(one.verb.name()).or_default() += 1;
    }
    figures.attach("requestsAtRest", json!(verbs));
}

/// How soon the service received news of the pods whose watches were dropped, and the requests to
/// the API server for it.
fn news(
    figures: &mut Figures,
    fleet: &Fleet,
    dropped_at: Duration,
    dropped_since: jiff::Timestamp,
) -> Result<(), Error> {
    let balanced = fleet.balanced();
    let ledger = &fleet.service.ledger;
    let mut waits: Vec<u32> = (0..balanced)
        .filter_map(|nth| ledger.accepted_at(nth, 2))
        .map(|at| u32::try_from(at.saturating_sub(dropped_at).as_millis()).unwrap_or(u32::MAX))
        .collect();
    figures.exactly(
        "received changes of pods with a dropped watch",
        waits.len(),
        balanced,
    );
    for (name, of_hundred, limit) in [
        (
            "from the drop to the change's heartbeat, median",
            50,
            Limit::None,
        ),
        (
            "from the drop to the change's heartbeat, p95",
            95,
            Limit::AtMost(NEWS),
        ),
        (
            "from the drop to the change's heartbeat, longest",
            100,
            Limit::None,
        ),
    ] {
        figures.add(
            name,
            f64::from(percentile(&mut waits, of_hundred)) / 1000.0,
            "s",
            limit,
        );
    }
    let asked = audit::read(&fleet.audit_log)?;
    let asked = asked.iter().filter(|one| one.at > dropped_since);
    let spread = Spread::of(
        asked.map(|one| one.at.duration_since(dropped_since).unsigned_abs()),
        Duration::ZERO,
        10,
    );
    let share = |count: u32| f64::from(count) / balanced as f64;
    figures.add(
        "requests for a dropped watch",
        share(spread.total()),
        "",
        Limit::None,
    );
    figures.add(
        "requests in the busiest second after the drop",
        share(spread.most()) * 100.0,
        "% of all",
        // An even spread over 3.9 s, plus four standard deviations for chance.
        Limit::AtMost((1.0 + 4.0 / (balanced as f64 / 3.9).sqrt()) / 3.9 * 100.0),
    );
    Ok(())
}

/// How the agents reconnected after the API server was killed.
fn reconnects(
    figures: &mut Figures,
    agents: usize,
    asked: &[Asked],
    killed: jiff::Timestamp,
) -> Result<(), Error> {
    // The first answered request. Before it, the API server is up, but not ready for all requests.
    let answered: Vec<&Asked> = asked.iter().filter(|one| one.at > killed).collect();
    let began = answered
        .iter()
        .map(|one| one.at)
        .min()
        .ok_or_else(|| Error::Unexpected("no agent came back to the API server".to_owned()))?;
    let since = |at: jiff::Timestamp| at.duration_since(began).unsigned_abs();
    let seconds = usize::try_from(RECONNECT.as_secs()).unwrap_or(50);
    let all = Spread::of(
        answered.iter().map(|one| since(one.at)),
        Duration::ZERO,
        seconds,
    );
    // Each agent is identified by its pod.
    let mut first: BTreeMap<&str, jiff::Timestamp> = BTreeMap::new();
    for one in &answered {
        first
            .entry(&one.pod)
            .and_modify(|at| *at = one.at.min(*at))
            .or_insert(one.at);
    }
    let firsts = Spread::of(first.values().map(|at| since(*at)), Duration::ZERO, seconds);
    let after_kill = |at: jiff::Timestamp| at.duration_since(killed).as_secs_f64();
    let last = first.values().max().map_or(0.0, |at| after_kill(*at));
    figures.exactly(
        "agents that came back to the API server",
        first.len(),
        agents,
    );
    figures.add(
        "reconnects are spread over",
        firsts.span,
        "s",
        // With few agents, the first and the last can be far from the ends of the spread by chance.
        Limit::AtLeast(SPREAD_OVER * (1.0 - 4.0 / agents as f64)),
    );
    figures.add(
        "reconnects in the busiest second",
        f64::from(firsts.most()) / agents as f64 * 100.0,
        "% of all",
        // Three times the value of an even spread over those 30 s, plus the effect of chance with
        // few agents.
        Limit::AtMost((3.0 + 4.0 / (agents as f64 / SPREAD_OVER).sqrt()) / SPREAD_OVER * 100.0),
    );
    figures.add(
        "from the kill to the last reconnect",
        last,
        "s",
        Limit::None,
    );
    figures.add(
        "requests for a reconnect",
        answered.len() as f64 / agents as f64,
        "",
        Limit::None,
    );
    figures.attach("reconnects", firsts.json());
    figures.attach("requestsOfReconnects", all.json());
    Ok(())
}

/// A pod to create, as large as a pod with some variables.
fn pod(member: &Member) -> Value {
    const VARIABLES: usize = 40;
    let mut pod = member.at(0);
    if let Some(object) = pod.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| matches!(name.as_str(), "name" | "labels"));
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("serviceAccountName".to_owned(), json!("podbeat"));
        spec.insert("automountServiceAccountToken".to_owned(), json!(false));
    }
    let environment: Vec<Value> = (0..VARIABLES)
        .map(|nth| json!({"name": format!("SETTING_{nth}"), "value": "v".repeat(100)}))
        .collect();
    if let Some(main) = pod
        .pointer_mut("/spec/containers/0")
        .and_then(Value::as_object_mut)
    {
        main.insert("env".to_owned(), Value::Array(environment));
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_servers_metrics_are_read() {
        let text = r#"# TYPE apiserver_watch_events_total counter
apiserver_watch_events_total{group="",resource="pods",version="v1"} 120
apiserver_watch_events_total{group="",resource="nodes",version="v1"} 7
apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="cluster",verb="WATCH",version="v1"} 1
apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="namespace",verb="WATCH",version="v1"} 50
"#;
        let wanted = Metrics {
            events: 120.0,
            watches: 51,
        };
        assert_eq!(Metrics::read(text), wanted);
    }

    #[test]
    fn a_pod_is_one_that_can_be_created() {
        let pod = pod(&Member { nth: 3 });
        assert_eq!(pod.pointer("/metadata/name"), Some(&json!("fleet-00003")));
        assert_eq!(pod.pointer("/metadata/uid"), None);
        assert_eq!(pod.pointer("/status"), None);
        assert_eq!(pod.pointer("/spec/containers/0/name"), Some(&json!("main")));
    }
}

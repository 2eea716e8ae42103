//! Tests with many copies on one API server that goes away and comes back, in virtual time and
//! without a socket.

use std::collections::BTreeMap;
use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream;
use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tower_service::Service;

use super::*;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How open watches end when the API server goes away.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// The connection is reset.
    Reset,
    /// The stream ends cleanly, as on a shutdown, or in the middle of a chunk. kube does not
    /// distinguish the two.
    End,
    /// The server reports 410 Gone.
    Gone,
}

/// What the API server does, in seconds since the start.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// When it goes away.
    away: f64,
    /// When it accepts connections again, and refuses all requests with this status.
    back: f64,
    refuses: u16,
    /// When it answers requests again.
    ready: f64,
    how: Break,
    /// The time between two bookmarks, if there are any.
    bookmarks: Option<f64>,
}

impl Plan {
    /// Nothing ever happens.
    const QUIET: Self = Self {
        away: f64::MAX,
        back: f64::MAX,
        refuses: 403,
        ready: f64::MAX,
        how: Break::Reset,
        bookmarks: None,
    };
}

/// A received request.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Came {
    /// In seconds since the start.
    at: f64,
    copy: usize,
    verb: &'static str,
    /// `None` if no connection was accepted.
    status: Option<u16>,
}

/// The API server, as one copy reaches it.
#[derive(Clone)]
struct Server {
    plan: Plan,
    copy: usize,
    start: Instant,
    came: Arc<Mutex<Vec<Came>>>,
}

type Lines = Pin<Box<dyn Stream<Item = std::io::Result<Frame<Bytes>>> + Send>>;
type Answer = Result<Response<StreamBody<Lines>>, std::io::Error>;

impl Service<Request<Body>> for Server {
    type Response = Response<StreamBody<Lines>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            sleep(Duration::from_millis(2)).await;
            server.answer(request.uri())
        })
    }
}

impl Server {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            copy: 0,
            start: Instant::now(),
            came: Arc::default(),
        }
    }

    /// A watch for one copy on this server.
    fn watched_by(&self, copy: usize) -> PodWatch {
        let service = Self {
            copy,
            ..self.clone()
        };
        PodWatch {
            access: Access::InCluster {
                host: String::new(),
                port: 0,
                service_account_dir: std::path::PathBuf::new(),
                proxies: podbeat_http_client::route::Proxies::default(),
            },
            client: Arc::new(Mutex::new(Client::new(service, "lab"))),
            namespace: "lab".to_owned(),
            name: "p".to_owned(),
            silence: SILENCE,
            spread: SPREAD,
            hurry: None,
        }
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().expect("no panic").clone()
    }

    fn answer(&self, uri: &http::Uri) -> Answer {
        let query: BTreeMap<&str, &str> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let verb = match (uri.path().ends_with("/p"), query.contains_key("watch")) {
            (true, _) => "get",
            (false, true) => "watch",
            (false, false) => "list",
        };
        let at = self.now();
        let plan = self.plan;
        let status = if at < plan.away || at >= plan.ready {
            Some(200)
        } else {
            (at >= plan.back).then_some(plan.refuses)
        };
        self.came.lock().expect("no panic").push(Came {
            at,
            copy: self.copy,
            verb,
            status,
        });
        let pod = json!({
            "metadata": {"name": "p", "namespace": "lab", "uid": "u1", "resourceVersion": "7"},
            "spec": {"containers": []}, "status": {},
        });
        let body = match (status, verb) {
            (None, _) => return Err(std::io::ErrorKind::ConnectionRefused.into()),
            (Some(200), "watch") => {
                let seconds: u64 = query
                    .get("timeoutSeconds")
                    .expect("a limit")
                    .parse()
                    .expect("seconds");
                let lines = self.watch(Instant::now() + secs(seconds));
                return Ok(Response::new(StreamBody::new(lines)));
            }
            (Some(200), "get") => pod,
            (Some(200), _) => json!({
                "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": [pod],
            }),
            (Some(code), _) => json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotYet",
                "message": "not yet", "code": code,
            }),
        };
        let lines: Lines = Box::pin(stream::once(ready(Ok(frame(&body)))));
        let mut response = Response::new(StreamBody::new(lines));
        *response.status_mut() =
            http::StatusCode::from_u16(status.unwrap_or(200)).expect("a status");
        Ok(response)
    }

    /// The events of an open watch until its time is over or the server goes away.
    fn watch(&self, until: Instant) -> Lines {
        let plan = self.plan;
        let breaks = (self.now() < plan.away && plan.away < 1e9)
            .then(|| self.start + Duration::from_secs_f64(plan.away));
        let first = plan
            .bookmarks
            .map(|every| Instant::now() + Duration::from_secs_f64(every));
        Box::pin(stream::unfold(Some(first), move |next| async move {
            let bookmark = next?;
            let at = |at: Option<Instant>| sleep_until(at.unwrap_or(until + secs(1)));
            tokio::select! {
                biased;
                () = at(breaks) => match plan.how {
                    Break::Reset => Some((Err(std::io::ErrorKind::ConnectionReset.into()), None)),
                    Break::End => None,
                    Break::Gone => {
                        let gone = json!({"type": "ERROR", "object": {
                            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "reason": "Expired", "message": "too old resource version", "code": 410}});
                        Some((Ok(frame(&gone)), None))
                    }
                },
                () = sleep_until(until) => None,
                () = at(bookmark) => {
                    let line = json!({"type": "BOOKMARK", "object": {
                        "kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}});
                    let next = plan.bookmarks.map(|every| Instant::now() + Duration::from_secs_f64(every));
                    Some((Ok(frame(&line)), Some(next)))
                }
            }
        }))
    }
}

fn frame(body: &serde_json::Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{body}\n")))
}

/// Runs the watch of one copy and keeps its sightings.
fn run(pod: PodWatch, seed: u64, seen: &mut JoinSet<Vec<PodEvent>>) {
    let (sender, mut pod_events) = mpsc::channel(1);
    seen.spawn(async move {
        let watching = pod.run(
            Some("u1".to_owned()),
            sender,
            fastrand::Rng::with_seed(seed),
            |_| {},
        );
        let keeping = async {
            let mut all = Vec::new();
            while let Some(pod_event) = pod_events.recv().await {
                all.push(pod_event);
            }
            all
        };
        tokio::join!(watching, keeping).1
    });
}

const COPIES: usize = 400;

/// The period of the early reconnects, in which each copy asks once, in seconds.
const EARLY: f64 = 4.0;

/// Returns when each copy's watch was open again after the outage, in order, and the most requests
/// in one second, during the early reconnects and after them.
async fn reconnects(plan: Plan) -> (Vec<f64>, [usize; 2]) {
    let server = Server::new(plan);
    let mut seen = JoinSet::new();
    for copy in 0..COPIES {
        run(server.watched_by(copy), 0xbea7 + copy as u64, &mut seen);
    }
    sleep_until(server.start + Duration::from_secs_f64(plan.ready) + secs(60)).await;
    let behind: Vec<Came> = server
        .came()
        .into_iter()
        .filter(|came| came.at > plan.away)
        .collect();
    let mut opened = BTreeMap::new();
    for came in behind
        .iter()
        .filter(|came| (came.verb, came.status) == ("watch", Some(200)))
    {
        opened.entry(came.copy).or_insert(came.at);
    }
    assert_eq!(opened.len(), COPIES, "each has come back: {plan:?}");
    // Counts only requests that reached the server. While it is away, the system refuses
    // connections at no cost.
    let mut opened: Vec<f64> = opened.into_values().collect();
    opened.sort_by(f64::total_cmp);
    let reached = behind.iter().filter(|came| came.status.is_some());
    let at: Vec<f64> = reached.map(|came| came.at).collect();
    let within = |from: f64| {
        at.iter()
            .filter(|&&at| from <= at && at < from + 1.0)
            .count()
    };
    let (early, later): (Vec<f64>, Vec<f64>) = at.iter().partition(|&&at| at < plan.away + EARLY);
    let busiest = |of: &[f64]| of.iter().map(|&at| within(at)).max().unwrap_or(0);
    (opened, [busiest(&early), busiest(&later)])
}

#[tokio::test(start_paused = true)]
async fn copies_come_back_spread_however_long_the_outage_was() {
    // The watches are 10 s old when the server goes away, so none ends by itself during the outage.
    let plan = |outage: f64, refusing: f64, refuses, how| Plan {
        away: 10.0,
        back: 10.0 + outage,
        refuses,
        ready: 10.0 + outage + refusing,
        how,
        bookmarks: None,
    };
    for plan in [
        plan(0.0, 0.0, 403, Break::Gone),
        plan(4.0, 0.0, 403, Break::Reset),
        plan(2.8, 5.0, 403, Break::End),
        plan(2.8, 5.0, 429, Break::Reset),
        plan(12.1, 5.0, 403, Break::End),
        plan(12.1, 20.0, 503, Break::Gone),
        plan(34.0, 5.0, 403, Break::End),
        plan(100.0, 10.0, 403, Break::Reset),
    ] {
        let (opened, [early_busiest, busiest]) = reconnects(plan).await;
        let (early, late) = (opened[COPIES / 50], opened[COPIES - COPIES / 50]);
        assert!(late - early >= 30.0, "{early:.1} to {late:.1} s: {plan:?}");
        // Each copy comes back within the spread, although it knows nothing of the others.
        let last = opened[COPIES - 1];
        assert!(
            last - plan.ready <= 36.0,
            "the last at {last:.1} s: {plan:?}"
        );
        // An even spread gives 11 copies in a second.
        assert!(
            busiest <= COPIES / 10,
            "{busiest} requests in a second: {plan:?}"
        );
        assert!(
            early_busiest <= COPIES * 2 / 5,
            "{early_busiest} requests in a second: {plan:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_dropped_by_an_api_server_that_answers_is_open_again_within_five_seconds() {
    for how in [Break::Reset, Break::End] {
        let plan = Plan {
            away: 10.0,
            back: 10.0,
            ready: 10.0,
            how,
            ..Plan::QUIET
        };
        let (opened, [busiest, _]) = reconnects(plan).await;
        let (median, p95) = (opened[COPIES / 2], opened[COPIES * 95 / 100]);
        assert!(
            median < 13.0 && p95 < 15.0,
            "{median:.1}, {p95:.1} s: {how:?}"
        );
        // If a load balancer dropped all of them, they do not all come at once either.
        assert!(
            opened[COPIES - COPIES / 50] - opened[COPIES / 50] > 3.0,
            "{how:?}"
        );
        assert!(
            busiest <= COPIES * 2 / 5,
            "{busiest} requests in a second: {how:?}"
        );
    }
}

/// Returns the requests of one copy after its watch broke, and its sightings from the start.
async fn one(
    plan: Plan,
    until: f64,
    hurry_at: Option<f64>,
) -> (Vec<Came>, Server, JoinSet<Vec<PodEvent>>) {
    let server = Server::new(plan);
    let (hurry, hurried) = watch::channel(false);
    let mut seen = JoinSet::new();
    run(server.watched_by(0).with_hurry(hurried), 7, &mut seen);
    if let Some(at) = hurry_at {
        sleep_until(server.start + Duration::from_secs_f64(at)).await;
        hurry.send_replace(true);
    }
    sleep_until(server.start + Duration::from_secs_f64(until)).await;
    let came = server.came().into_iter().filter(|came| came.at > plan.away);
    (came.collect(), server, seen)
}

#[tokio::test(start_paused = true)]
async fn an_urgent_update_ends_the_wait() {
    let plan = Plan {
        away: 10.0,
        back: 10.0,
        ready: 10.0,
        ..Plan::QUIET
    };
    let (calm, ..) = one(plan, 60.0, None).await;
    let came = calm.first().expect("a reconnect").at;
    assert!(came > 10.8, "this seed waits: {came}");
    let (hurried, ..) = one(plan, 60.0, Some(10.4)).await;
    let came = hurried.first().expect("a reconnect").at;
    assert!((10.4..10.5).contains(&came), "{came}");
    // Urgent before the watch broke off: no wait at all.
    let (hurried, ..) = one(plan, 60.0, Some(9.0)).await;
    let came = hurried.first().expect("a reconnect").at;
    assert!((10.0..10.1).contains(&came), "{came}");
}

#[tokio::test(start_paused = true)]
async fn an_urgent_update_is_requested_repeatedly_while_the_server_is_away() {
    let plan = Plan {
        away: 10.0,
        back: 14.0,
        ready: 15.0,
        ..Plan::QUIET
    };
    let (came, ..) = one(plan, 60.0, Some(11.0)).await;
    let open = came
        .iter()
        .find(|came| (came.verb, came.status) == ("watch", Some(200)));
    let tries = came.iter().filter(|came| came.at < 15.0).count();
    assert!(open.is_some_and(|open| open.at < 24.0), "{came:?}");
    assert!((3..20).contains(&tries), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_its_time_is_followed_by_another_at_once() {
    let (came, server, _seen) = one(Plan::QUIET, 2000.0, None).await;
    assert_eq!(came, []);
    let watches: Vec<f64> = server
        .came()
        .iter()
        .filter(|came| came.verb == "watch")
        .map(|came| came.at)
        .collect();
    assert!(watches.len() >= 7, "{watches:?}");
    for pair in watches.windows(2) {
        let lasted = pair[1] - pair[0];
        assert!((230.0..290.1).contains(&lasted), "{watches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_before_its_time_confirms_nothing() {
    let confirmed = async |how| {
        let plan = Plan {
            away: 10.0,
            // The server stays away, so nothing else confirms.
            back: 1e9,
            how,
            ..Plan::QUIET
        };
        let server = Server::new(plan);
        let (sender, mut pod_events) = mpsc::channel(8);
        let watching = server.watched_by(0).run(
            Some("u1".to_owned()),
            sender,
            fastrand::Rng::with_seed(7),
            |_| {},
        );
        let _ = timeout(secs(200), watching).await;
        assert!(matches!(pod_events.recv().await, Some(PodEvent::Seen(_))));
        pod_events.recv().await.is_some()
    };
    assert!(!confirmed(Break::End).await);
    assert!(!confirmed(Break::Reset).await);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_the_receiver_is_dropped() {
    let server = Server::new(Plan {
        away: 10.0,
        ..Plan::QUIET
    });
    let (sender, mut pod_events) = mpsc::channel(8);
    let pod = server.watched_by(0).with_spread(secs(100_000));
    let watching = tokio::spawn(pod.run(
        Some("u1".to_owned()),
        sender,
        fastrand::Rng::with_seed(7),
        |_| {},
    ));
    assert!(matches!(pod_events.recv().await, Some(PodEvent::Seen(_))));
    sleep(secs(20)).await;
    drop(pod_events);
    timeout(secs(1), watching)
        .await
        .expect("ended")
        .expect("no panic");
    assert!(
        server.came().iter().all(|came| came.at < 10.0),
        "{:?}",
        server.came()
    );
}

/// The requests per minute of one copy at rest, over a day.
async fn a_minute_at_rest(bookmarks: Option<f64>) -> f64 {
    let plan = Plan {
        bookmarks,
        ..Plan::QUIET
    };
    let (_, server, _seen) = one(plan, 86_400.0, None).await;
    server.came().len() as f64 / (24.0 * 60.0)
}

#[tokio::test(start_paused = true)]
async fn at_rest_only_the_next_watch_is_requested() {
    // The intervals of kube-apiserver, including the ends of their range: see `SILENCE`.
    for every in [59.0, 60.0, 61.25] {
        let requests = a_minute_at_rest(Some(every)).await;
        assert!(requests < 0.25, "{requests} a minute");
    }
    // kube-apiserver sends no bookmarks while no pod changes. The watch then checks the pod.
    let requests = a_minute_at_rest(None).await;
    assert!((0.5..1.1).contains(&requests), "{requests} a minute");
}

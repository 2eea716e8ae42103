//! Tests the stand-ins with clients other than podbeat: they must behave like the real services.

use std::time::Duration;

use podbeat_lab::kube_api::Options;
use podbeat_lab::pod::{Pod, running, waiting};
use podbeat_lab::service;
use podbeat_lab::world::{KUBE_TOKEN, RUN, TOKEN, World};
use reqwest::{Certificate, Client, Response};
use serde_json::{Value, json};

use crate::harness;

const LIMIT: Duration = Duration::from_secs(20);

fn client(world: &World) -> Client {
    let pem = std::fs::read(world.path("ca.crt")).expect("the CA");
    let root = Certificate::from_pem(&pem).expect("a certificate");
    // No pool: a request must not get a connection that a fault has broken.
    harness::client()
        .tls_certs_only([root])
        .pool_max_idle_per_host(0)
        .timeout(LIMIT)
        .build()
        .expect("a client")
}

async fn world() -> World {
    let options = Options {
        bookmarks: Duration::from_millis(50),
        ..Options::default()
    };
    World::with(options, service::Options::default())
        .await
        .expect("a world")
}

async fn kube(world: &World, rest: &str) -> Response {
    let url = format!("{}/api/v1/namespaces/lab/pods{rest}", world.kube.url());
    client(world)
        .get(url)
        .bearer_auth(KUBE_TOKEN)
        .send()
        .await
        .expect("an answer")
}

async fn body(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON"),
    )
}

/// Reads the next lines of a watch.
async fn lines(response: &mut Response, count: usize) -> Vec<Value> {
    let mut text = String::new();
    while text.lines().count() < count || !text.ends_with('\n') {
        let chunk = response
            .chunk()
            .await
            .expect("the stream goes on")
            .expect("more lines");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
    }
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .map(|line| line["type"].as_str().expect("a type"))
        .collect()
}

#[tokio::test]
async fn get_and_list_answer_as_the_real_one() {
    let world = world().await;
    world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
    world.kube.apply(Pod::new("q", "u2").showing(&Value::Null));
    let (status, pod) = body(kube(&world, "/p").await).await;
    assert_eq!((status, &pod["metadata"]["uid"]), (200, &json!("u1")));
    let (status, missing) = body(kube(&world, "/r").await).await;
    assert_eq!((status, &missing["reason"]), (404, &json!("NotFound")));
    let (_, list) = body(kube(&world, "?fieldSelector=metadata.name%3Dq").await).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["items"][0]["metadata"]["name"], "q");
    let (_, list) = body(
        kube(
            &world,
            "?fieldSelector=spec.nodeName%3D%3Dnode-1,metadata.namespace%3Dlab",
        )
        .await,
    )
    .await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
    let (status, refused) = body(kube(&world, "?fieldSelector=metadata.uid%3Du1").await).await;
    assert_eq!(
        (status, &refused["message"]),
        (400, &json!("field label not supported: metadata.uid"))
    );
}

#[tokio::test]
async fn a_wrong_token_is_401_and_no_role_403() {
    let world = world().await;
    let url = format!("{}/api/v1/namespaces/lab/pods/p", world.kube.url());
    let (status, refused) = body(
        client(&world)
            .get(&url)
            .bearer_auth("x")
            .send()
            .await
            .expect("an answer"),
    )
    .await;
    assert_eq!((status, &refused["reason"]), (401, &json!("Unauthorized")));
    world.kube.set_token("newer");
    assert_eq!(kube(&world, "/p").await.status(), 401);
    world.kube.set_token(KUBE_TOKEN);
    world.kube.deny(true);
    let (status, refused) = body(kube(&world, "/p").await).await;
    assert_eq!((status, &refused["reason"]), (403, &json!("Forbidden")));
}

#[tokio::test]
async fn the_scheme_and_switches_are_read_as_leniently_as_by_the_real_one() {
    let world = world().await;
    world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
    let ask = |query: &'static str, scheme: &'static str| {
        let url = format!("{}/api/v1/namespaces/lab/pods{query}", world.kube.url());
        let bearer = format!("{scheme} {KUBE_TOKEN}");
        client(&world)
            .get(url)
            .header("authorization", bearer)
            .send()
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert_eq!(
            ask("/p", scheme).await.expect("an answer").status(),
            200,
            "{scheme}"
        );
    }
    assert_eq!(ask("/p", "Basic").await.expect("an answer").status(), 401);
    for query in [
        "?watch=1",
        "?watch=true",
        "?watch=True",
        "?watch",
        "?watch=yes",
    ] {
        let mut watch = ask(query, "bearer").await.expect("an answer");
        assert_eq!(kinds(&lines(&mut watch, 1).await), ["ADDED"], "{query}");
    }
    for query in ["", "?watch=0", "?watch=False", "?watch=false&limit=1"] {
        let (_, list) = body(ask(query, "bearer").await.expect("an answer")).await;
        assert_eq!(list["kind"], "PodList", "{query}");
    }
}

#[tokio::test]
async fn a_watch_starts_continues_and_resumes() {
    let world = world().await;
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&Value::Null));
    world.kube.apply(Pod::new("q", "u2").showing(&Value::Null));
    let mut watch = kube(&world, "?watch=1&fieldSelector=metadata.name%3Dp").await;
    let first = lines(&mut watch, 1).await;
    assert_eq!(kinds(&first), ["ADDED"]);
    let version = first[0]["object"]["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    world.kube.apply(pod.showing(&waiting("X")));
    world.kube.apply(Pod::new("q", "u2").showing(&waiting("X")));
    world.kube.delete("lab", "p");
    assert_eq!(kinds(&lines(&mut watch, 2).await), ["MODIFIED", "DELETED"]);
    let resumed = format!("?watch=true&fieldSelector=metadata.name%3Dp&resourceVersion={version}");
    assert_eq!(
        kinds(&lines(&mut kube(&world, &resumed).await, 2).await),
        ["MODIFIED", "DELETED"]
    );
    world.kube.compact();
    let (status, expired) = body(kube(&world, &resumed).await).await;
    assert_eq!(
        (status, &expired["type"], &expired["object"]["code"]),
        (200, &json!("ERROR"), &json!(410))
    );
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_and_bookmarks_come_where_asked_for() {
    let world = world().await;
    world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
    let query = "?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let told = lines(&mut kube(&world, query).await, 3).await;
    assert_eq!(kinds(&told), ["ADDED", "BOOKMARK", "BOOKMARK"]);
    assert_eq!(
        told[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(told[2]["object"]["metadata"].get("annotations"), None);
    assert_eq!(
        kube(&world, "?watch=1&sendInitialEvents=true")
            .await
            .status(),
        422
    );
}

#[tokio::test]
async fn a_slow_watch_gets_an_error_and_no_gap() {
    let world = world().await;
    world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
    let mut watch = kube(&world, "?watch=1&resourceVersion=0").await;
    assert_eq!(kinds(&lines(&mut watch, 1).await), ["ADDED"]);
    // All at once, so that the watch can't send the events in between.
    for _ in 0..=Options::default().history {
        world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
    }
    let told = lines(&mut watch, 1).await;
    assert_eq!(kinds(&told), ["ERROR"]);
    assert_eq!(told[0]["object"]["code"], 410);
    assert_eq!(watch.chunk().await.expect("ended in order"), None);
}

#[tokio::test]
async fn a_bookmark_never_overtakes_an_event() {
    let options = Options {
        bookmarks: Duration::from_micros(10),
        history: 1000,
        ..Options::default()
    };
    let world = World::with(options, service::Options::default())
        .await
        .expect("a world");
    world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
    let mut watch = kube(
        &world,
        "?watch=1&resourceVersion=0&allowWatchBookmarks=true",
    )
    .await;
    for _ in 0..200 {
        world.kube.apply(Pod::new("p", "u1").showing(&Value::Null));
        tokio::task::yield_now().await;
    }
    world.kube.delete("lab", "p");
    let mut text = String::new();
    while !text.contains("DELETED") {
        let chunk = watch.chunk().await.expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk.expect("more lines")).expect("text"));
    }
    let told: Vec<Value> = text
        .lines()
        .map_while(|line| serde_json::from_str(line).ok())
        .collect();
    let of = |kind: &str| told.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((of("ADDED"), of("MODIFIED"), of("DELETED")), (1, 200, 1));
    assert!(of("BOOKMARK") > 0);
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up() {
    let world = world().await;
    let ended = kube(&world, "?watch=1&timeoutSeconds=1").await;
    assert_eq!(ended.bytes().await.expect("it ends properly").len(), 0);
}

#[tokio::test]
async fn faults_of_watches_affect_open_watches() {
    let world = world().await;
    let pod = Pod::new("p", "u1");
    world.kube.apply(pod.showing(&Value::Null));
    for (script, line) in [("watch gone", Some("ERROR")), ("watch end", None)] {
        let mut watch = kube(&world, "?watch=1").await;
        lines(&mut watch, 1).await;
        world.kube_faults.script(script).expect("a rule");
        if let Some(line) = line {
            assert_eq!(kinds(&lines(&mut watch, 1).await), [line]);
        }
        assert!(matches!(watch.chunk().await, Ok(None)), "{script}");
    }
    let mut watch = kube(&world, "?watch=1").await;
    lines(&mut watch, 1).await;
    world
        .kube_faults
        .script("watch cut after 2")
        .expect("a rule");
    world
        .kube
        .apply(pod.showing(&running("2026-01-01T00:00:00Z")));
    assert_eq!(kinds(&lines(&mut watch, 1).await), ["MODIFIED"]);
    assert!(watch.chunk().await.is_err(), "cut");
    world
        .kube
        .wait_for("no open watch", LIMIT, |kube| kube.open_watches() == 0)
        .await
        .expect("none");
}

async fn beat(world: &World, nonce: &str, last: bool) -> Result<(u16, Value), reqwest::Error> {
    let url = format!("{}/v1/tasks/runs/{RUN}:heartbeat", world.service.url());
    let request = client(world)
        .post(url)
        .bearer_auth(TOKEN)
        .header("content-type", "application/json");
    let answer = request
        .body(json!({"nonce": nonce, "lastHeartbeat": last}).to_string())
        .send()
        .await?;
    let status = answer.status().as_u16();
    Ok((
        status,
        serde_json::from_slice(&answer.bytes().await?).unwrap_or_default(),
    ))
}

#[tokio::test]
async fn the_service_accepts_heartbeats_and_one_final() {
    let world = world().await;
    assert_eq!(
        beat(&world, "1", false).await.expect("an answer"),
        (200, json!({}))
    );
    assert_eq!(beat(&world, "2", true).await.expect("an answer").0, 200);
    assert_eq!(
        beat(&world, "2", true).await.expect("an answer").0,
        200,
        "a retry of the final is the same final"
    );
    let (status, refused) = beat(&world, "3", false).await.expect("an answer");
    assert_eq!((status, &refused["code"]), (409, &json!("Conflict")));
    world.service.set_tokens(&["other"]);
    assert_eq!(beat(&world, "4", false).await.expect("an answer").0, 401);
    assert_eq!(world.service.accepted().len(), 3);
    assert_eq!(world.service.heartbeats().len(), 5);
    // Counted and found without a copy.
    let count = world.service.count(RUN);
    assert_eq!((count.received, count.accepted), (5, 3));
    assert_eq!(
        world.service.count("trn.unheard-of"),
        service::Count::default()
    );
    let accepted = world.service.accepted();
    let first = |since, nonce: &str| {
        world.service.first_accepted(RUN, since, |heartbeat| {
            nonce.is_empty() || heartbeat.nonce() == nonce
        })
    };
    assert_eq!(first(Duration::ZERO, ""), Some(accepted[0].at));
    assert_eq!(first(accepted[1].at, ""), Some(accepted[1].at));
    assert_eq!(
        first(Duration::ZERO, accepted[0].nonce()),
        Some(accepted[0].at)
    );
    assert_eq!(first(Duration::ZERO, "never sent"), None);
    assert_eq!(first(world.service.started().elapsed(), ""), None);
}

#[tokio::test]
async fn a_body_that_breaks_the_contract_is_400_and_remembered() {
    let world = world().await;
    let url = format!("{}/v1/tasks/runs/{RUN}:heartbeat", world.service.url());
    let request = client(&world)
        .post(url)
        .bearer_auth(TOKEN)
        .header("content-type", "application/json");
    let (status, refused) = body(
        request
            .body("{\"podUid\":\"u\"}")
            .send()
            .await
            .expect("an answer"),
    )
    .await;
    assert_eq!(status, 400);
    assert!(
        refused["details"][0]
            .as_str()
            .is_some_and(|detail| detail.contains("podUid")),
        "{refused}"
    );
    assert_eq!(world.service.violations().len(), 1);
}

#[tokio::test]
async fn each_fault_of_the_service_has_its_effect() {
    let world = world().await;
    let strike = |script: &'static str| {
        world.service_faults.script(script).expect("a rule");
        beat(&world, script, false)
    };
    assert_eq!(strike("heartbeat 503").await.expect("an answer").0, 503);
    assert_eq!(
        strike("heartbeat jwt=t0").await.expect("an answer"),
        (200, json!({"jwt": "t0"}))
    );
    assert_eq!(
        strike("heartbeat garbage").await.expect("an answer"),
        (200, Value::Null)
    );
    assert_eq!(
        strike("heartbeat giant").await.expect("an answer"),
        (200, Value::Null)
    );
    assert_eq!(
        strike("heartbeat delay=10ms").await.expect("an answer").0,
        200
    );
    for broken in ["heartbeat drop", "heartbeat lose", "any refuse"] {
        assert!(strike(broken).await.is_err(), "{broken}");
    }
    let received: Vec<(String, bool)> = world
        .service
        .heartbeats()
        .iter()
        .map(|heartbeat| (heartbeat.nonce().to_owned(), heartbeat.accepted))
        .collect();
    let received = |nonce: &str| {
        received
            .iter()
            .find(|(received, _)| received == nonce)
            .map(|(_, accepted)| *accepted)
    };
    assert_eq!(received("heartbeat drop"), Some(true), "processed");
    assert_eq!(received("heartbeat lose"), Some(false), "lost");
    assert_eq!(received("any refuse"), None, "never received");
    assert_eq!(received("heartbeat 503"), Some(false));
}

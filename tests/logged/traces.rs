//! The header `traceparent`, and its IDs in the log.

use std::collections::BTreeSet;

use podbeat_lab::pod::{Pod, Sidecar, running, terminated};
use podbeat_lab::world::World;
use podbeat_task_runs::trace::TraceParent;
use serde_json::Value;

use super::table;
use crate::harness::STARTED;
use crate::harness::binary::Podbeat;
use crate::harness::received::until_main_is;

/// A life: the headers that the service received, and podbeat's log.
async fn a_life(more: &[(&str, &str)]) -> (Vec<String>, Vec<Value>) {
    let world = World::start().await.expect("a world");
    world
        .service_faults
        .script("heartbeat 503 x2; heartbeat drop")
        .expect("rules");
    let pod = Pod::new("p", "u1").sidecar(Sidecar::Plain);
    world.kube.apply(pod.showing(&running(STARTED)));
    let settings = [more, &[("PODBEAT_LOG", "debug"), ("PODBEAT_TIMEOUT", "1s")]].concat();
    let podbeat = Podbeat::start(&world, "log", &settings);
    until_main_is(&world, "running").await;
    world
        .kube
        .apply(pod.showing(&terminated(0, "Completed", "c1")));
    let (code, lines) = podbeat.end_in_lines().await;
    assert_eq!(code, 0);
    table::check(&lines);
    let sent = world.service.heartbeats();
    let headers = sent
        .into_iter()
        .map(|heartbeat| heartbeat.traceparent.expect("each has one"));
    (headers.collect(), lines)
}

fn ids(lines: &[Value], message: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    lines
        .iter()
        .filter(|line| line["message"] == message)
        .map(|line| (text(&line["trace_id"]), text(&line["span_id"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_a_span_of_its_own_in_one_trace_and_the_log_names_them() {
    let (headers, lines) = a_life(&[]).await;
    let parents: Vec<TraceParent> = headers
        .iter()
        .map(|header| header.parse().expect("valid"))
        .collect();
    let spans: BTreeSet<String> = parents
        .iter()
        .map(|parent| parent.span_id.to_string())
        .collect();
    assert_eq!(spans.len(), parents.len(), "{headers:?}");
    let trace = lines[0]["trace_id"].as_str().expect("the trace");
    for parent in &parents {
        assert_eq!(parent.trace_id.to_string(), trace);
        assert!(!parent.sampled);
    }
    // At debug: each request, in order.
    let sent = ids(&lines, "sending a heartbeat");
    let wire: Vec<(String, String)> = parents
        .iter()
        .map(|parent| (parent.trace_id.to_string(), parent.span_id.to_string()))
        .collect();
    assert_eq!(sent, wire);
    // At info: every line about a request.
    for message in [
        "a heartbeat was not accepted",
        "the service accepted the first heartbeat of this process",
        "the service accepts heartbeats again",
        "the last heartbeat was accepted",
    ] {
        let named = ids(&lines, message);
        assert!(
            !named.is_empty() && named.iter().all(|ids| wire.contains(ids)),
            "{message}: {named:?}"
        );
    }
    assert_eq!(ids(&lines, "a heartbeat was not accepted")[0], wire[0]);
    assert_eq!(
        ids(
            &lines,
            "the service accepted the first heartbeat of this process"
        ),
        [wire[3].clone()]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_trace_is_continued_with_its_flags() {
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (headers, lines) = a_life(&[("TRACEPARENT", given)]).await;
    assert_eq!(lines[0]["traceparent"], given);
    assert_eq!(lines[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    for header in &headers {
        assert!(
            header.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && header.ends_with("-01"),
            "{header}"
        );
        assert!(
            !header.contains("b7ad6b7169203331"),
            "a span of its own: {header}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_have_two_traces() {
    let traces: Vec<Value> = [a_life(&[]).await, a_life(&[]).await]
        .map(|(_, lines)| lines[0]["trace_id"].clone())
        .into();
    assert_ne!(traces[0], traces[1]);
}

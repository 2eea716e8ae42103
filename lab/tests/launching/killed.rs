//! A server that is killed between two requests, and two servers with one data file.

use std::time::Duration;

use podbeat_lab::kube_api::KubeApi;
use podbeat_lab::node::Program;

use super::{AGAIN, Deeds, SUCCEEDS, Site};

/// The limit for the next request: shorter than the launcher's own limit of 15 s, after which it
/// repeats a request.
const NEXT: Duration = Duration::from_secs(10);

/// Kills the server at each request of a kind in turn, until a run has none left.
async fn each_is_killed(rule: &str) {
    for nth in 0..20 {
        if !is_killed(&format!("{rule} after {nth}")).await {
            assert!(nth > 0, "{rule} never applied");
            return;
        }
    }
    panic!("{rule}: too many requests for one run");
}

/// A run whose server is killed when the fault applies. Returns whether it did.
async fn is_killed(rule: &str) -> bool {
    let mut site = Site::start(|_, _| SUCCEEDS).await;
    site.world.kube_faults.script(rule).expect("a rule");
    let id = site.create().await;
    let faults = site.world.kube_faults.clone();
    // The launcher's last request about a run is for its Secret.
    let is_over = |kube: &KubeApi| {
        let seen = kube.seen();
        seen.iter()
            .any(|seen| seen.resource == "secrets" && matches!(seen.verb, "delete" | "get"))
    };
    let kube = &site.world.kube;
    kube.wait_for(rule, NEXT, |kube| faults.struck() > 0 || is_over(kube))
        .await
        .expect("in time");
    let is_killed = faults.struck() > 0;
    if is_killed {
        faults.lift_all();
        site.world.restart_service().await.expect("a second server");
    }
    let run = site.until_status(&id, "Completed").await;
    site.until_nothing_is_left().await;
    assert_eq!(run["execution"]["retryCount"], 0, "{rule}: {run}");
    assert_eq!(site.jobs_of(&id, 0), 1, "{rule}\n{}", site.story());
    assert_eq!(site.jobs_of(&id, 1), 0, "{rule}\n{}", site.story());
    site.check();
    is_killed
}

/// The objects exist, but the server never learns it.
#[tokio::test]
async fn a_server_is_killed_after_each_object_is_created() {
    each_is_killed("create hang").await;
}

#[tokio::test]
async fn a_server_is_killed_before_each_object_is_created() {
    each_is_killed("create hang-lost").await;
}

#[tokio::test]
async fn a_server_is_killed_after_each_object_is_deleted() {
    each_is_killed("delete hang").await;
}

#[tokio::test]
async fn a_server_is_killed_before_each_object_is_deleted() {
    each_is_killed("delete hang-lost").await;
}

#[tokio::test]
async fn a_server_is_killed_during_each_question() {
    each_is_killed("get hang").await;
    each_is_killed("list hang").await;
}

/// The server goes on after an answer that is lost, with the same Job.
#[tokio::test]
async fn a_lost_answer_creates_no_second_job() {
    let site = Site::start(|_, _| SUCCEEDS).await;
    let faults = &site.world.kube_faults;
    faults.script("create drop x2; delete drop").expect("rules");
    let id = site.create().await;
    let run = site.until_status(&id, "Completed").await;
    assert_eq!(run["execution"]["retryCount"], 0);
    site.until_nothing_is_left().await;
    assert_eq!([0, 1].map(|attempt| site.jobs_of(&id, attempt)), [1, 0]);
    assert_eq!(faults.struck(), 3, "{}", site.story());
    site.check();
}

#[tokio::test]
async fn a_second_server_with_the_same_data_file_waits() {
    let mut site = Site::start(|_, _| Program::Runs).await;
    let mut second = tokio::spawn(site.world.second_service());
    let early = tokio::time::timeout(AGAIN * 25, &mut second).await;
    assert!(
        early.is_err(),
        "the second server started next to the first one"
    );
    let id = site.create().await;
    site.until_status(&id, "Running").await;
    let created = |deeds: &Deeds| {
        let all = deeds.all();
        all.iter()
            .filter(|deed| deed.starts_with("Created"))
            .count()
    };
    assert_eq!(created(&site.deeds), 1, "{}", site.story());
    assert!(
        !second.is_finished(),
        "the second server started next to the first one"
    );
    // The first one ends, and the second one goes on with its run.
    site.world.service.kill().await;
    site.world.service = second.await.expect("no panic").expect("a second server");
    site.until_status(&id, "Running").await;
    site.abort(&id).await;
    site.until_nothing_is_left().await;
    assert_eq!([0, 1].map(|attempt| site.jobs_of(&id, attempt)), [1, 0]);
    assert_eq!(created(&site.deeds), 1, "{}", site.story());
    site.check();
}

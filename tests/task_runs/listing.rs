//! A list as a stream, page after page.

use futures_util::StreamExt;
use podbeat_task_runs::error::Error;
use podbeat_task_runs::model::{ListTaskRunsQuery, PageSize, TaskRunStatus};
use serde_json::{Value, json};

use crate::harness::LIMIT;
use crate::harness::server::{Answer, Received, Server, error, json_answer, token, told};

/// A page with these runs and this token for the next page.
fn page(ids: &[&str], next: Option<&str>) -> Answer {
    let runs: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
    json_answer(200, &json!({"items": runs, "nextPageToken": next}))
}

/// The page token of a request.
fn asked(received: &Received) -> Option<&str> {
    let query = received.path_and_query.split_once('?')?.1;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("pageToken="))
}

/// Everything that the stream yields: the IDs, and the error that ended it, if any.
async fn all(server: &Server, query: ListTaskRunsQuery) -> (Vec<String>, Option<Error>) {
    let mut runs = server.client().list_all(query, &token(), LIMIT);
    let (mut ids, mut failure) = (Vec::new(), None);
    while let Some(run) = runs.next().await {
        assert!(failure.is_none(), "nothing comes behind an error");
        match run {
            Ok(run) => ids.push(run.id.expect("an id")),
            Err(error) => failure = Some(error),
        }
    }
    (ids, failure)
}

#[tokio::test]
async fn no_page_one_page_many_pages() {
    let server = Server::start(|_| json_answer(200, &json!({}))).await;
    assert!(
        matches!(all(&server, ListTaskRunsQuery::default()).await, (ids, None) if ids.is_empty())
    );
    assert_eq!(server.received().len(), 1);

    // An empty token means that there is no next page.
    let server = Server::start(|_| page(&["a", "b"], Some(""))).await;
    assert!(
        matches!(all(&server, ListTaskRunsQuery::default()).await, (ids, None) if ids == ["a", "b"])
    );

    let server = Server::start(|received| match asked(received) {
        None => page(&["a", "b"], Some("second")),
        Some("second") => page(&[], Some("a third")),
        Some("a%20third") => page(&["c"], None),
        Some(other) => panic!("{other}"),
    })
    .await;
    let query = ListTaskRunsQuery {
        status: Some(TaskRunStatus::Failed),
        page_size: PageSize::new(2),
        ..ListTaskRunsQuery::default()
    };
    assert!(matches!(all(&server, query).await, (ids, None) if ids == ["a", "b", "c"]));
    let queries: Vec<String> = server
        .received()
        .into_iter()
        .map(|received| received.path_and_query)
        .collect();
    let base = "/ica/v1/tasks/runs?status=Failed&pageSize=2";
    assert_eq!(
        queries,
        [
            base.to_owned(),
            format!("{base}&pageToken=second"),
            format!("{base}&pageToken=a%20third")
        ]
    );
}

#[tokio::test]
async fn a_page_is_asked_for_when_it_is_reached_and_is_the_largest() {
    let server = Server::start(|_| page(&["a", "b"], Some("more"))).await;
    let mut runs = server
        .client()
        .list_all(ListTaskRunsQuery::default(), &token(), LIMIT);
    assert_eq!(server.received().len(), 0);
    for _ in 0..2 {
        runs.next().await.expect("a run").expect("a run");
    }
    assert_eq!(server.received().len(), 1);
    assert!(
        server.received()[0]
            .path_and_query
            .ends_with("?pageSize=1000")
    );
}

#[tokio::test]
async fn a_repeated_page_token_ends_the_list_with_an_error_after_the_runs() {
    let server = Server::start(|_| page(&["a"], Some("again"))).await;
    let (ids, failure) = all(&server, ListTaskRunsQuery::default()).await;
    assert_eq!(ids, ["a", "a"]);
    let failure = failure.expect("an error");
    assert!(
        matches!(failure, Error::Endless { pages: 2, .. }),
        "{failure:?}"
    );
    assert_eq!(
        told(&failure),
        "listing task runs: stopped after 2 pages: the service repeats a page token"
    );
}

#[tokio::test]
async fn an_error_in_the_middle_follows_the_earlier_runs() {
    let server = Server::start(|received| match asked(received) {
        None => page(&["a", "b"], Some("second")),
        Some(_) => error(500),
    })
    .await;
    let (ids, failure) = all(&server, ListTaskRunsQuery::default()).await;
    assert_eq!(ids, ["a", "b"]);
    assert!(matches!(failure, Some(Error::Status { status: 500, .. })));
}

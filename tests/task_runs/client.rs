//! The five operations against a server: what the client sends, and what it makes of every kind of
//! answer.

use std::time::Duration;

use podbeat_lab::contract::Contract;
use podbeat_task_runs::client::{Accepted, Client, Tls};
use podbeat_task_runs::error::{Error, Operation};
use podbeat_task_runs::model::{
    CreateTaskRunRequest, HeartbeatTaskRunRequest, ListTaskRunsQuery, PageSize, SortField,
    TaskRunStatus,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::contract::{definition, full};
use super::secrets;
use crate::harness::listener::{Listener, head};
use crate::harness::server::{
    Answer, Server, TOKEN, error, json_answer, raw, token, told, with_header,
};
use crate::harness::{LIMIT, unused_port};

const OPERATIONS: [&str; 5] = ["create", "get", "list", "abort", "heartbeat"];

/// Calls an operation by its name, and returns the answer as JSON.
async fn call(
    client: &Client,
    operation: &str,
    run_id: &str,
    timeout: Duration,
) -> Result<Value, Error> {
    let token = token();
    let json = |answer: serde_json::Result<Value>| answer.expect("json");
    Ok(match operation {
        "create" => json(serde_json::to_value(
            client.create(&secrets::request(), &token, timeout).await?,
        )),
        "get" => json(serde_json::to_value(
            client.get(run_id, &token, timeout).await?,
        )),
        "list" => json(serde_json::to_value(
            client
                .list(&ListTaskRunsQuery::default(), &token, timeout)
                .await?,
        )),
        "abort" => json(serde_json::to_value(
            client.abort(run_id, &token, timeout).await?,
        )),
        "heartbeat" => {
            let accepted = client
                .heartbeat(run_id, &HeartbeatTaskRunRequest::default(), &token, timeout)
                .await?;
            json!({"jwt": accepted.jwt.map(|jwt| jwt.expose().to_owned()), "unreadable": accepted.unreadable})
        }
        other => panic!("{other}"),
    })
}

/// How an error begins: the operation and its object.
fn doing(operation: &str) -> &'static str {
    match operation {
        "create" => "creating task run \"ü text\": ",
        "get" => "getting task run trn.1: ",
        "list" => "listing task runs: ",
        "abort" => "aborting task run trn.1: ",
        _ => "sending a heartbeat of task run trn.1: ",
    }
}

async fn failure(
    operation: &str,
    answers: impl Fn() -> Answer + Send + Sync + 'static,
) -> (Error, String) {
    let server = Server::start(move |_| answers()).await;
    let error = call(&server.client(), operation, "trn.1", LIMIT)
        .await
        .expect_err("no success");
    let told = told(&error);
    assert!(told.starts_with(doing(operation)), "{told}");
    (error, told)
}

#[tokio::test]
async fn each_operation_sends_the_contracts_request_and_reads_the_complete_answer() {
    let contract = Contract::load().expect("the contract");
    for (operation, schema, method, path, status) in [
        ("create", "TaskRun", "POST", "/ica/v1/tasks/runs", 201),
        ("get", "TaskRun", "GET", "/ica/v1/tasks/runs/trn.1", 200),
        (
            "list",
            "TaskRunSummaryPagedItems",
            "GET",
            "/ica/v1/tasks/runs",
            200,
        ),
        (
            "abort",
            "TaskRunSummary",
            "PUT",
            "/ica/v1/tasks/runs/trn.1:abort",
            200,
        ),
    ] {
        let answer = full(&contract, definition(&contract, schema));
        let whole = answer.clone();
        let server = Server::start(move |_| json_answer(status, &whole)).await;
        let read = call(&server.client(), operation, "trn.1", LIMIT)
            .await
            .expect("an answer");
        assert_eq!(read, answer);
        let [received] = &server.received()[..] else {
            panic!("one request");
        };
        assert_eq!(
            (received.method.as_str(), received.path_and_query.as_str()),
            (method, path)
        );
        assert_eq!(received.headers["authorization"], format!("Bearer {TOKEN}"));
        assert_eq!(received.headers["accept"], "application/json");
        if operation == "create" {
            assert_eq!(received.headers["content-type"], "application/json");
            let body: Value = serde_json::from_slice(&received.body).expect("json");
            assert_eq!(
                contract.check("CreateTaskRunRequest", &body),
                Vec::<String>::new()
            );
            assert_eq!(
                body,
                serde_json::to_value(secrets::request()).expect("json")
            );
        } else {
            assert_eq!(received.body, b"");
            assert_eq!(received.headers.get("content-type"), None);
        }
    }
    let server = Server::start(|_| json_answer(200, &json!({"jwt": "newer"}))).await;
    let read = call(&server.client(), "heartbeat", "trn.1", LIMIT)
        .await
        .expect("an answer");
    assert_eq!(read, json!({"jwt": "newer", "unreadable": null}));
    assert_eq!(
        server.received()[0].path_and_query,
        "/ica/v1/tasks/runs/trn.1:heartbeat"
    );
}

#[tokio::test]
async fn run_ids_and_queries_are_encoded() {
    let server = Server::start(|_| json_answer(200, &json!({}))).await;
    for operation in ["get", "abort", "heartbeat"] {
        call(&server.client(), operation, "a/../b?c=d#e%2F: ü", LIMIT)
            .await
            .expect("an answer");
    }
    let paths: Vec<String> = server
        .received()
        .into_iter()
        .map(|received| received.path_and_query)
        .collect();
    let path = "/ica/v1/tasks/runs/a%2F..%2Fb%3Fc%3Dd%23e%252F%3A%20%C3%BC";
    assert_eq!(
        paths,
        [
            path.to_owned(),
            format!("{path}:abort"),
            format!("{path}:heartbeat")
        ]
    );

    let text = |text: &str| Some(text.to_owned());
    let query = ListTaskRunsQuery {
        acls: text("a&b=c"),
        names: text("x y,ü"),
        page_size: PageSize::new(7),
        page_token: text("t+/="),
        sort: Some(SortField::TimeCreated.descending().into()),
        status: Some(TaskRunStatus::from("Paused & more")),
        versions: text(""),
    };
    server
        .client()
        .list(&query, &token(), LIMIT)
        .await
        .expect("a page");
    assert_eq!(
        server.received().last().expect("a request").path_and_query,
        "/ica/v1/tasks/runs?sort=timeCreated%20desc&names=x%20y%2C%C3%BC&status=Paused%20%26%20more&versions=&acls=a%26b%3Dc\
         &pageSize=7&pageToken=t%2B%2F%3D"
    );
}

#[tokio::test]
async fn a_run_id_that_would_lead_elsewhere_is_not_sent() {
    let server = Server::start(|_| json_answer(200, &json!({}))).await;
    for operation in ["get", "abort", "heartbeat"] {
        for run_id in ["", ".", ".."] {
            let error = call(&server.client(), operation, run_id, LIMIT)
                .await
                .expect_err("unfit");
            assert!(matches!(error, Error::Unfit { .. }), "{error}");
        }
    }
    assert_eq!(server.received().len(), 0);
}

#[tokio::test]
async fn a_request_that_violates_the_contract_is_not_sent() {
    let server = Server::start(|_| json_answer(201, &json!({}))).await;
    let request = CreateTaskRunRequest {
        name: Some("ü".repeat(256)),
        execution: Some(podbeat_task_runs::model::Execution {
            image: Some(podbeat_task_runs::model::Image::default()),
            ..Default::default()
        }),
        ..CreateTaskRunRequest::default()
    };
    let error = server
        .client()
        .create(&request, &token(), LIMIT)
        .await
        .expect_err("unfit");
    assert_eq!(
        told(&error),
        format!(
            "creating task run {:?}: not sent: name must have at most 255 characters; execution.image.name is missing",
            "ü".repeat(256)
        )
    );
    assert_eq!(server.received().len(), 0);
}

#[tokio::test]
async fn every_status_has_the_action_the_services_message_and_a_suggestion() {
    for operation in OPERATIONS {
        for status in [
            300_u16, 304, 307, 400, 401, 403, 404, 405, 408, 409, 410, 422, 425, 429, 500, 502,
            503, 599,
        ] {
            let (error, told) = failure(operation, move || error(status)).await;
            let Error::Status {
                status: received,
                response,
                retry_after: None,
                ..
            } = &error
            else {
                panic!("{error:?}");
            };
            assert_eq!(*received, status);
            if status == 304 {
                // 304 has no body.
                assert_eq!(*response, None);
                continue;
            }
            let response = response.as_ref().expect("readable");
            assert_eq!(response.details, Some(vec![json!({"a": 1}), json!("b")]));
            let said = format!(
                "the task-run service answered {status}: TheCode: the message (details: {{\"a\":1}}, \"b\")"
            );
            assert!(told.contains(&said), "{told}");
            let advice = match (operation, status) {
                (_, 300..=399) => "check the service's URL",
                (_, 401) => "check that the token belongs to this service and is still valid",
                (_, 403) => "the token lacks permission",
                ("abort", 400 | 409 | 422) => "only a Pending or Running run can be aborted",
                ("heartbeat", 400 | 409 | 422 | 408 | 425 | 429 | 500..) | (_, 405 | 409) => {
                    "(details: {\"a\":1}, \"b\")"
                }
                (_, 400 | 422) => "correct the request",
                ("create" | "list", 404 | 410) => "check the service's URL",
                (_, 404 | 410) => "check the run ID",
                _ => "try again later",
            };
            let end = told.rsplit("; ").next().expect("an end");
            assert!(end.contains(advice), "{operation} {status}: {told}");
        }
    }
}

#[tokio::test]
async fn the_time_of_the_next_attempt_is_reported() {
    // The service's clock differs from ours by years, so the client compares the service's dates
    // with each other.
    for (asked, date) in [
        ("90", "Wed, 21 Oct 2020 07:28:00 GMT"),
        (
            "Wed, 21 Oct 2020 07:29:30 GMT",
            "Wed, 21 Oct 2020 07:28:00 GMT",
        ),
        (
            "Wednesday, 21-Oct-20 07:29:30 GMT",
            "Wed, 21 Oct 2020 07:28:00 GMT",
        ),
        ("Wed Oct 21 07:29:30 2020", "Wed Oct 21 07:28:00 2020"),
    ] {
        let answer =
            move || with_header(with_header(error(503), "retry-after", asked), "date", date);
        let (error, told) = failure("list", answer).await;
        let wait = Duration::from_secs(90);
        assert!(
            matches!(error, Error::Status { retry_after: Some(told), .. } if told == wait),
            "{error:?}"
        );
        assert!(told.ends_with("try again in 1m 30s"), "{told}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(|_| json_answer(200, &json!({}))).await;
    let location = format!("{}/v1/tasks/runs/trn.1", elsewhere.url());
    for operation in OPERATIONS {
        let location = location.clone();
        let server = Server::start(move |_| with_header(raw(307, ""), "location", &location)).await;
        let error = call(&server.client(), operation, "trn.1", LIMIT)
            .await
            .expect_err("a redirect");
        assert!(
            matches!(
                error,
                Error::Status {
                    status: 307,
                    response: None,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(server.received().len(), 1);
    }
    assert_eq!(elsewhere.received().len(), 0, "the token must not travel");
}

#[tokio::test]
async fn error_bodies_that_are_no_error_response_still_have_a_status() {
    let giant = json!({"code": "a".repeat(100_000)}).to_string();
    for body in ["", "<html>oops", "[]", "null", "{\"code\": 5}", &giant] {
        for operation in OPERATIONS {
            let body = body.to_owned();
            let (error, told) = failure(operation, move || raw(500, body.clone())).await;
            assert!(
                matches!(
                    error,
                    Error::Status {
                        status: 500,
                        response: None,
                        ..
                    }
                ),
                "{error:?}"
            );
            assert!(told.contains("the task-run service answered 500"), "{told}");
        }
    }
}

#[tokio::test]
async fn our_secrets_are_redacted_in_the_services_texts() {
    let echo = |received: &crate::harness::server::Received| {
        let body = String::from_utf8_lossy(&received.body).into_owned();
        let authorization = received.headers["authorization"]
            .to_str()
            .expect("a text")
            .to_owned();
        json_answer(
            400,
            &json!({"code": TOKEN, "message": format!("{authorization} and {body}"), "details": [{TOKEN: body}]}),
        )
    };
    let server = Server::start(echo).await;
    for operation in OPERATIONS {
        let error = call(&server.client(), operation, "trn.1", LIMIT)
            .await
            .expect_err("refused");
        let told = format!("{} {error:?}", told(&error));
        assert!(told.contains("[redacted]"), "{told}");
        assert!(!told.contains(secrets::SECRET), "{told}");
    }
    assert!(
        server
            .received()
            .iter()
            .any(|received| String::from_utf8_lossy(&received.body).contains(secrets::SECRET))
    );
}

#[tokio::test]
async fn a_text_of_the_service_is_one_line_and_not_too_long() {
    let long = "x\n\u{1b}[31m".repeat(1000);
    let (_, told) = failure("get", move || {
        json_answer(500, &json!({"message": long.clone()}))
    })
    .await;
    assert!(
        told.len() < 500 && !told.chars().any(char::is_control),
        "{told}"
    );
}

#[tokio::test]
async fn an_unreadable_success_is_reported_as_a_success() {
    let bodies = [
        ("", "empty"),
        (" [] ", "not the contract's JSON"),
        (
            "<html>hunter2",
            "not the contract's JSON, at line 1 column 1",
        ),
        (r#"{"id": {"hunter2": 1}}"#, "not the contract's JSON"),
        (
            r#"{"items": "hunter2", "acl": "hunter2"}"#,
            "not the contract's JSON",
        ),
    ];
    for (body, problem) in bodies {
        for operation in ["create", "get", "list", "abort"] {
            if operation == "list" && body.contains("\"id\"") {
                continue;
            }
            let (error, told) = failure(operation, move || raw(200, body)).await;
            assert!(
                matches!(error, Error::Unreadable { status: 200, .. }),
                "{error:?}"
            );
            assert!(
                told.contains(problem) && !told.contains("hunter2"),
                "{told}"
            );
            assert_eq!(
                told.contains("the run was created"),
                operation == "create",
                "{told}"
            );
            assert_eq!(
                told.contains("the run was aborted"),
                operation == "abort",
                "{told}"
            );
        }
    }
    let server = Server::start(|_| raw(200, "<html>")).await;
    let accepted = call(&server.client(), "heartbeat", "trn.1", LIMIT)
        .await
        .expect("accepted");
    assert_eq!(accepted["unreadable"], json!("not the contract's JSON"));
}

#[tokio::test]
async fn an_endless_body_is_not_read_completely() {
    for (operation, bytes, exceeded) in [
        ("get", 8 << 20, "larger than 8 MiB"),
        (
            "list",
            64 << 20,
            "larger than 64 MiB; ask for smaller pages",
        ),
    ] {
        let (error, told) = failure(operation, move || raw(200, vec![b' '; bytes + 1])).await;
        assert!(matches!(error, Error::Unreadable { .. }), "{error:?}");
        assert!(told.ends_with(exceeded), "{told}");
    }
    let server = Server::start(|_| raw(200, vec![b' '; (64 << 10) + 1])).await;
    let accepted = call(&server.client(), "heartbeat", "trn.1", LIMIT)
        .await
        .expect("accepted");
    assert_eq!(accepted["unreadable"], json!("larger than 64 KiB"));
}

#[tokio::test]
async fn the_largest_page_that_is_likely_is_read() {
    // Every character of two descriptions is escaped, as some JSON writers do with all characters
    // outside ASCII.
    let description = r"\u00fc".repeat(4096);
    let run = format!(
        r#"{{"id":"trn.1","description":"{description}","taskVersionSummary":{{"description":"{description}"}},"acl":["{}"]}}"#,
        "t".repeat(12 * 1024)
    );
    let page = format!("{{\"items\":[{}]}}", vec![run; 1000].join(","));
    assert!(page.len() > 61_000_000);
    let server = Server::start(move |_| raw(200, page.clone())).await;
    let page = server
        .client()
        .list(&ListTaskRunsQuery::default(), &token(), LIMIT * 4)
        .await
        .expect("a page");
    assert_eq!(page.items.expect("runs").len(), 1000);
}

#[tokio::test]
async fn without_a_complete_answer_the_error_says_if_the_request_may_have_arrived() {
    for operation in OPERATIONS {
        let (error, told) = failure(operation, || Answer::Cut).await;
        assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
        let doubt = matches!(operation, "create" | "abort" | "heartbeat");
        assert_eq!(
            told.contains("may exist") || told.contains("may have arrived"),
            doubt,
            "{told}"
        );
    }
}

#[tokio::test]
async fn each_operation_has_its_own_deadline() {
    for operation in OPERATIONS {
        let server = Server::start(|_| Answer::Hang).await;
        let error = call(
            &server.client(),
            operation,
            "trn.1",
            Duration::from_millis(200),
        )
        .await
        .expect_err("too late");
        assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}");
        assert!(told(&error).ends_with("timed out after 200ms"), "{error}");
    }
}

#[tokio::test]
async fn without_a_listener_nothing_was_sent() {
    let (port, _socket) = unused_port();
    let url = format!("http://127.0.0.1:{port}").parse().expect("a URL");
    let client = Client::new(url, &Tls::default(), LIMIT).expect("a client");
    let error = client
        .get("trn.1", &token(), LIMIT)
        .await
        .expect_err("nobody listens");
    let Error::Connect { operation, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        *operation,
        Operation::Get {
            run_id: "trn.1".to_owned()
        }
    );
    assert!(
        told(&error).starts_with(
            "getting task run trn.1: cannot connect to the task-run service; check its URL"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_invalid_header_value_as_token_is_not_sent_and_not_shown() {
    let server = Server::start(|_| json_answer(200, &json!({}))).await;
    let token = podbeat_task_runs::Secret::new(format!("{TOKEN}\n"));
    let error = server
        .client()
        .get("trn.1", &token, LIMIT)
        .await
        .expect_err("unfit");
    assert!(matches!(error, Error::Token(_)), "{error:?}");
    told(&error);
    assert_eq!(server.received().len(), 0);
}

/// Heads that curl accepts. Each is followed by a body of two bytes.
#[tokio::test]
async fn a_response_with_an_odd_head_is_a_response() {
    let many: String = (0..500).map(|nth| format!("X-{nth}: {nth}\r\n")).collect();
    for odd in [
        many.as_str(),
        "X-Folded: one\r\n two\r\n",
        "X-Space : before the colon\r\n",
        "Set-Cookie: a=\u{1}b\r\n",
        "No colon at all\r\n",
        "X-\u{fc}: a name that is not ASCII\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{odd}Content-Length: 2\r\n\r\n{{}}");
        let listener = Listener::start(move |mut client| {
            let answer = answer.clone();
            async move {
                let _ = head(&mut client).await;
                let _ = client.write_all(answer.as_bytes()).await;
            }
        });
        let listener = listener.await;
        let url = format!("http://127.0.0.1:{}", listener.port)
            .parse()
            .expect("a URL");
        let client = Client::new(url, &Tls::default(), LIMIT).expect("a client");
        let accepted = client
            .heartbeat(
                "trn.1",
                &HeartbeatTaskRunRequest::default(),
                &token(),
                LIMIT,
            )
            .await;
        assert_eq!(accepted.expect(odd), Accepted::default(), "{odd:?}");
    }
}

/// How an answer ends before its head does.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Reset,
    Hangs,
}

/// A server that reads a whole request, and answers it with this text only.
async fn breaking_off(answer: &'static str, end: End) -> Listener {
    Listener::start(move |mut client| async move {
        let head = head(&mut client).await.expect("a request");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        let mut body = vec![0; length];
        client.read_exact(&mut body).await.expect("its body");
        client.write_all(answer.as_bytes()).await.expect("written");
        match end {
            End::Closed => {}
            End::Reset => {
                let at_once = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&client, at_once).expect("set");
            }
            End::Hangs => std::future::pending().await,
        }
    })
    .await
}

/// The service did what the request asked for, and its status line says so. Otherwise podbeat would
/// repeat an accepted heartbeat until its deadline.
#[tokio::test]
async fn after_a_2xx_the_rest_of_the_answer_may_be_cut_off() {
    for (answer, end) in [
        ("HTTP/1.1 200 OK\r\n", End::Closed),
        ("HTTP/1.1 200 OK\r\n", End::Reset),
        ("HTTP/1.1 200 OK\r\n", End::Hangs),
        ("HTTP/1.0 204\n", End::Closed),
        ("HTTP/1.1 202 Accepted\r\nContent-Le", End::Closed),
        (
            "HTTP/1.1 200 OK\r\nDate: now\r\n\0\u{1}\r\r\n\n",
            End::Closed,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
            End::Closed,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: odd\r\n\r\n{}",
            End::Hangs,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", End::Hangs),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX",
            End::Reset,
        ),
    ] {
        for operation in ["heartbeat", "create", "abort"] {
            let called = call_at(breaking_off(answer, end).await.port, operation).await;
            if operation == "heartbeat" {
                let accepted =
                    called.unwrap_or_else(|error| panic!("{answer:?} {end:?}: {error:?}"));
                assert_eq!(accepted["jwt"], Value::Null, "{answer:?}");
            } else {
                let error = called.expect_err("no run");
                assert!(
                    matches!(error, Error::Unreadable { .. }),
                    "{answer:?} {end:?}: {error:?}"
                );
            }
        }
    }
}

/// Without a complete status line, or with another status than 2xx, this is no answer: the client
/// sends the request again.
#[tokio::test]
async fn with_other_statuses_an_incomplete_head_is_no_answer() {
    for answer in [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 400 Bad Request\r\n",
        "HTTP/1.1 503 Unavailable\r\nRetry-After: 1",
        "HTTP/1.1 2000 OK\r\n",
        "SSH-2.0 200\r\n",
        "<html>\r\nHTTP/1.1 200 OK\r\n",
    ] {
        for end in [End::Closed, End::Reset] {
            for operation in ["heartbeat", "create", "abort", "get"] {
                let called = call_at(breaking_off(answer, end).await.port, operation).await;
                let error = called.expect_err("no answer");
                assert!(
                    matches!(error, Error::Ambiguous { .. }),
                    "{answer:?} {end:?}: {error:?}"
                );
            }
        }
    }
}

async fn call_at(port: u16, operation: &str) -> Result<Value, Error> {
    let url = format!("http://127.0.0.1:{port}").parse().expect("a URL");
    let client = Client::new(url, &Tls::default(), LIMIT).expect("a client");
    call(&client, operation, "trn.1", Duration::from_secs(1)).await
}

#[tokio::test]
async fn byte_order_marks_and_white_space_change_no_answer() {
    let heartbeat = async |body: &'static str| {
        let server = Server::start(move |_| raw(200, body)).await;
        call(&server.client(), "heartbeat", "trn.1", LIMIT)
            .await
            .expect("accepted")
    };
    let brought = |jwt: Value| json!({"jwt": jwt, "unreadable": null});
    for body in [
        "\u{feff}{\"jwt\": \"\u{feff}new\\n\"}\r\n",
        "\r\n\u{feff} {\"jwt\": \" new \"}",
    ] {
        assert_eq!(heartbeat(body).await, brought(json!("new")), "{body:?}");
    }
    assert_eq!(heartbeat("\u{feff}\r\n").await, brought(Value::Null));
    let server =
        Server::start(|_| raw(200, "\u{feff}{\"id\": \"trn.1\", \"status\": \"Running\"}")).await;
    let run = call(&server.client(), "get", "trn.1", LIMIT)
        .await
        .expect("a run");
    assert_eq!(run, json!({"id": "trn.1", "status": "Running"}));
    let status = server.client().status("trn.1", &token(), LIMIT).await;
    assert_eq!(status.expect("a run"), Some(TaskRunStatus::Running));
    let refused = || raw(404, "\u{feff}{\"code\": \"TheCode\"}\n");
    let (_, told) = failure("get", refused).await;
    assert!(told.contains("TheCode"), "{told}");
}

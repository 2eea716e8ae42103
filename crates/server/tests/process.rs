//! Start, stop, and what the server does while it can't serve.

use podbeat_lab::pki::Authority;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Place, Server, client, last, running};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

#[tokio::test]
async fn the_first_start_prints_a_token_that_works_and_later_starts_do_not() {
    let place = Place::new();
    let server = place.serve(&[]).await.ready().await;
    let url = server.url.clone();
    let (code, output, log) = server.stop().await;
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(output.contains(&format!("Web page: {url}/\n")), "{output}");
    let token = output
        .split_whitespace()
        .find(|word| word.starts_with("pbt_"));
    let token = token.expect("a token");
    assert_eq!(log.last().expect("a line")["message"], "stopped");
    assert!(!format!("{log:?}").contains(token), "the log has no token");

    let server = place.serve(&[]).await.ready().await;
    let admin = server.user(token);
    let id = admin.create("first").await;
    let (status, _) = admin.beat(&id, &running()).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = admin.beat(&id, &last(0)).await;
    assert_eq!(status, StatusCode::OK);
    let (code, output, log) = server.stop().await;
    assert_eq!((code, output.as_str()), (Some(0), ""));
    let of = |message: &str| {
        let found = log.iter().find(|line| line["message"] == message);
        found
            .unwrap_or_else(|| panic!("no {message}: {log:#?}"))
            .clone()
    };
    let created = of("run created");
    assert_eq!(
        (
            &created["run"],
            &created["user"],
            &created["role"],
            &created["target"]
        ),
        (
            &json!(id),
            &json!("admin"),
            &json!("admin"),
            &json!("podbeat_server::audit")
        )
    );
    assert_eq!(of("run ended")["status"], "Completed");

    let server = place.serve(&[]).await.ready().await;
    let (status, run) = server.user(token).get(&id).await;
    assert_eq!(
        (status, &run["status"]),
        (StatusCode::OK, &json!("Completed"))
    );
}

#[tokio::test]
async fn in_a_pod_the_output_has_no_token_and_the_log_says_how_to_create_one() {
    let place = Place::new();
    let mut command = place.command(&[]);
    command
        .env("PODBEAT_SERVER_LISTEN", "127.0.0.1:0")
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let mut server = Server::start(command).await;
    let line = server.until("there is no token; create one").await;
    assert!(
        line["command"]
            .as_str()
            .expect("text")
            .contains("token create")
    );
    let (code, output, _) = server.ready().await.stop().await;
    assert_eq!((code, output.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn a_second_server_waits_with_503_until_the_first_one_ends() {
    let place = Place::new();
    let first = place.serve(&[]).await.ready().await;
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let id = first.user(&token).create("n").await;

    let mut second = place.serve(&[]).await;
    second
        .until("another podbeat-server uses the data file; waiting for its end")
        .await;
    let user = second.user(&token);
    for request in [
        user.request(Method::GET, &format!("/{id}")),
        user.request(Method::POST, "/unknown:heartbeat")
            .json(&json!({})),
        user.request(Method::GET, ""),
    ] {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
    }
    first.kill().await;
    second.until("ready").await;
    let (status, run) = user.get(&id).await;
    assert_eq!(
        (status, &run["status"]),
        (StatusCode::OK, &json!("Pending"))
    );
    let (status, _) = user.get("unknown").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    second.signal("INT");
    assert_eq!(second.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_server_that_waits_can_be_stopped() {
    let place = Place::new();
    let _first = place.serve(&[]).await.ready().await;
    let mut second = place.serve(&[]).await;
    second
        .until("another podbeat-server uses the data file; waiting for its end")
        .await;
    assert_eq!(second.stop().await.0, Some(0));
}

#[tokio::test]
async fn a_client_with_the_authoritys_certificate_reaches_it_over_tls() {
    let place = Place::new();
    let authority = Authority::new().expect("an authority");
    let issued = authority.issue(&["127.0.0.1"]).expect("issued");
    let (certificate, key) = (place.path("c.pem"), place.path("k.pem"));
    std::fs::write(&certificate, &issued.certificate).expect("written");
    std::fs::write(&key, &issued.key).expect("written");
    let mut command = place.command(&[]);
    command
        .env("PODBEAT_SERVER_LISTEN", "127.0.0.1:0")
        .env("PODBEAT_SERVER_CERT_FILE", &certificate)
        .env("PODBEAT_SERVER_KEY_FILE", &key);
    let server = Server::start(command).await.ready().await;
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("a root");
    let mut user = server.user(&token);
    user.client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .build()
        .expect("a client");
    let id = user.create("over TLS").await;
    let (_, run) = user.get(&id).await;
    assert!(
        run["href"].as_str().expect("text").starts_with("https://"),
        "{run}"
    );
    assert!(
        client().get(&server.url).send().await.is_err(),
        "an unknown authority"
    );
}

#[tokio::test]
async fn what_prevents_a_start_is_named_with_what_to_do() {
    let place = Place::new();
    let told = async |arguments: &[&str]| {
        let output = place.run(arguments).await;
        let text = String::from_utf8(output.stderr).expect("text");
        let last = text.lines().last().unwrap_or_default().to_owned();
        (output.status.code(), last)
    };
    let (code, text) = told(&["--listen", "nowhere", "--retention", "1s"]).await;
    assert_eq!(code, Some(64));
    assert!(
        text.contains("PODBEAT_SERVER_RETENTION (--retention)"),
        "{text}"
    );

    let free = ["--listen", "127.0.0.1:0"];
    let with = |more: &[&'static str]| [&free[..], more].concat();
    std::fs::write(place.path("text"), "no database ".repeat(1000)).expect("written");
    std::fs::write(place.path("key"), "hunter2").expect("written");
    let (text_file, key_file) = (place.path("text"), place.path("key"));
    let (text_file, key_file) = (
        text_file.to_str().expect("text"),
        key_file.to_str().expect("text"),
    );
    let (code, text) = told(&[&free[..], &["--data", text_file]].concat()).await;
    assert_eq!(code, Some(66));
    assert!(
        text.contains("is not a data file of podbeat-server"),
        "{text}"
    );
    let (code, text) = told(&[&free[..], &["--secrets-key-file", key_file]].concat()).await;
    assert_eq!(code, Some(66));
    assert!(
        text.contains("line 1 of the key file") && !text.contains("hunter2"),
        "{text}"
    );
    let (code, text) = told(&with(&["--data", "/proc/no/d.db"])).await;
    assert_eq!(code, Some(66));
    assert!(text.contains("check that its directory exists"), "{text}");
    let (code, text) = told(&with(&["--cert-file", "/no.pem", "--key-file", "/no.pem"])).await;
    assert_eq!(code, Some(66));
    assert!(
        text.contains("cannot read the certificate /no.pem"),
        "{text}"
    );
    let (code, text) = told(&["--listen", "192.0.2.1:80", "--allow-http"]).await;
    assert_eq!(code, Some(69));
    assert!(text.contains("cannot listen on 192.0.2.1:80"), "{text}");
}

#[tokio::test]
async fn a_data_file_with_runs_needs_its_key() {
    let place = Place::new();
    let server = place.serve(&[]).await.ready().await;
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    server.user(&token).create("n").await;
    server.stop().await;
    std::fs::remove_file(place.path("d.db.key")).expect("removed");
    let output = place.run(&["--listen", "127.0.0.1:0"]).await;
    assert_eq!(output.status.code(), Some(66));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("restore it from a backup"), "{text}");
    assert!(!place.path("d.db.key").exists());
    let output = place.run(&["check", "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn probes_and_metrics_follow_the_server() {
    let place = Place::new();
    let first = place.serve(&[]).await.ready().await;
    let mut second = place.serve(&ADMIN).await;
    let line = second.until("the admin endpoint is listening").await;
    let address = line["address"].as_str().expect("an address");
    second
        .until("another podbeat-server uses the data file; waiting for its end")
        .await;
    let client = client();
    let see = async |path: &str| {
        let response = client.get(format!("http://{address}{path}")).send().await;
        let response = response.expect("an answer");
        (
            response.status().as_u16(),
            response.text().await.expect("text"),
        )
    };
    assert_eq!(see("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(
        see("/readyz").await,
        (503, "the server is starting\n".to_owned())
    );
    let (_, metrics) = see("/metrics").await;
    assert!(!metrics.contains("podbeat_server_runs{"), "{metrics}");
    first.stop().await;
    second.until("ready").await;
    assert_eq!(see("/readyz").await, (200, "ok\n".to_owned()));
    let token = place.token(&["--tenant", "t", "--user", "u"]).await;
    let user = second.user(&token);
    let id = user.create("n").await;
    user.beat(&id, &running()).await;
    user.get("unknown").await;
    let (_, metrics) = see("/metrics").await;
    for line in [
        "podbeat_server_requests_total{operation=\"create\",status=\"201\"} 1\n",
        "podbeat_server_requests_total{operation=\"heartbeat\",status=\"200\"} 1\n",
        "podbeat_server_requests_total{operation=\"get\",status=\"404\"} 1\n",
        "podbeat_server_runs{status=\"Running\"} 1\n",
        "podbeat_server_runs{status=\"Pending\"} 0\n",
        "podbeat_server_live_runs 1\n",
        "podbeat_server_store_queue 0\n",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

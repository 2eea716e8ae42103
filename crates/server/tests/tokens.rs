//! Tokens from the command line, and copies of the data file, beside a running server.

use reqwest::StatusCode;
use serde_json::Value;

use crate::harness::{LIMIT, Place};

#[tokio::test]
async fn a_token_is_accepted_at_once_and_refused_soon_after_its_revocation() {
    let place = Place::new();
    let server = place.serve(&[]).await.ready().await;
    let alice = place.token(&["--tenant", "a", "--user", "alice"]).await;
    let bob = place.token(&["--tenant", "b", "--user", "bob"]).await;
    let reader = place
        .token(&["--tenant", "a", "--user", "carol", "--role", "read"])
        .await;
    let id = server.user(&alice).create("n").await;
    assert_eq!(server.user(&bob).get(&id).await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.user(&reader).get(&id).await.0, StatusCode::OK);
    assert_eq!(
        server.user(&reader).abort(&id).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        server.user("pbt_forged").get(&id).await.0,
        StatusCode::UNAUTHORIZED
    );

    let listed = place.run(&["token", "list", "-o", "json"]).await;
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let of_alice = listed.as_array().expect("a list").iter();
    let of_alice = of_alice.clone().find(|token| token["user"] == "alice");
    let token_id = of_alice.expect("hers")["id"].as_str().expect("an ID");
    let revoked = place.run(&["token", "revoke", token_id]).await;
    assert!(revoked.status.success(), "{revoked:?}");
    let refused = async {
        while server.user(&alice).get(&id).await.0 != StatusCode::UNAUTHORIZED {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, refused).await.expect("in time");
    let again = place.run(&["token", "revoke", "unknown"]).await;
    assert_eq!(again.status.code(), Some(1));
}

#[tokio::test]
async fn a_copy_that_was_made_while_the_server_runs_is_a_data_file() {
    let place = Place::new();
    let server = place.serve(&[]).await.ready().await;
    let alice = place.token(&["--tenant", "a", "--user", "alice"]).await;
    let before = server.user(&alice).create("before").await;
    let copy = place.path("copy.db");
    let copied = place.run(&["backup", copy.to_str().expect("text")]).await;
    assert!(copied.status.success(), "{copied:?}");
    let after = server.user(&alice).create("after").await;
    let again = place.run(&["backup", copy.to_str().expect("text")]).await;
    assert_eq!(again.status.code(), Some(73), "the copy exists");
    server.stop().await;

    for file in ["d.db", "d.db-wal", "d.db-shm"] {
        let _ = std::fs::remove_file(place.path(file));
    }
    std::fs::rename(&copy, place.data()).expect("restored");
    let server = place.serve(&[]).await.ready().await;
    assert_eq!(server.user(&alice).get(&before).await.0, StatusCode::OK);
    assert_eq!(
        server.user(&alice).get(&after).await.0,
        StatusCode::NOT_FOUND
    );
}

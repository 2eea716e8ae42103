//! The query of a list, up to the first line end, then the content of a page token.
//!
//! Every link of an answer must be accepted. Pages have the same runs with each store, and each run
//! once, from either side, unless the client made the token itself.

#![no_main]

mod world;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use podbeat_server::keys::Keys;
use podbeat_runs::{Event, Moment, Rules, Run};
use podbeat_server::store::{Change, Created, Facts, Limits, Memory, NewRun, Sqlite, Store};
use serde_json::Value;

use world::{Answer, RUNS, RUNTIME, USERS, at, sent};

/// The number of runs.
const MANY: u64 = 24;

/// The links of a page.
const LINKS: [&str; 4] = [
    "firstPageToken",
    "prevPageToken",
    "nextPageToken",
    "lastPageToken",
];

/// The same runs with each store.
static ROUTERS: LazyLock<[Router; 2]> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let directory = tempfile::tempdir().expect("a directory");
        let sqlite = Sqlite::open(&directory.path().join("d")).expect("a file");
        // The file is open already, and so are the readers that the first lists need.
        let routers = [
            with_runs(Arc::new(Memory::default())).await,
            with_runs(Arc::new(sqlite)).await,
        ];
        std::mem::forget(directory);
        routers
    })
});

async fn with_runs(store: Arc<dyn Store>) -> Router {
    for number in 0..MANY {
        let created = at(number / 3);
        let facts = Facts {
            id: format!("trn.{number}"),
            tenant: ["t", "s"][usize::from(number % 5 == 0)].to_owned(),
            created_by: "user".to_owned(),
            name: (number % 4 != 0)
                .then(|| ["a", "b", "a,b", "é\u{1}"][number as usize % 4].to_owned()),
            acl: (number % 2 == 0)
                .then(|| vec!["tid:t".to_owned(), format!("uid:s/{}", number % 3)]),
            created,
            ..Facts::default()
        };
        let new = NewRun {
            facts,
            run: Run::new(0),
            execution: None,
            idempotency: None,
            limits: Limits {
                live: 1000,
                creates: 1000,
                since: created,
            },
        };
        let Created::New(run) = store.create(new).await.expect("stored") else {
            panic!("not created");
        };
        let event = match number % 3 {
            0 => continue,
            1 => Event::Abort {
                by: "user".to_owned(),
            },
            _ => Event::Heartbeat(Box::default()),
        };
        let (mut next, wall) = (run.run.clone(), at(number / 2));
        let rules = Rules {
            heartbeat_timeout: Duration::from_secs(600),
            evidence_wait: Duration::from_secs(60),
            retry_wait: Duration::from_secs(600),
            ..Rules::DEFAULT
        };
        next.apply(
            &event,
            Moment {
                wall,
                elapsed: Duration::ZERO,
            },
            &rules,
        )
        .expect("applied");
        let change = Change {
            number: run.number,
            id: run.facts.id,
            version: run.version,
            run: next,
            by: "user".to_owned(),
            at: wall,
            seen: None,
            timeline: Vec::new(),
        };
        store.change(change).await.expect("stored");
    }
    let keys = Keys::temporary().expect("keys");
    world::router(&Arc::new(world::service(store, keys).await))
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (query, token) = match text.split_once('\n') {
        Some((query, token)) => (query, Some(token)),
        None => (&*text, None),
    };
    let query = match token {
        Some(token) => format!("{query}&pageToken={}", URL_SAFE_NO_PAD.encode(token)),
        None => query.to_owned(),
    };
    let is_made = token.is_some() || query.contains("Token");
    let [memory, sqlite] = &*ROUTERS;
    RUNTIME.block_on(async {
        for viewer in [0, 3] {
            let (Some(one), Some(other)) = (
                asked(memory, viewer, &query).await,
                asked(sqlite, viewer, &query).await,
            ) else {
                return;
            };
            assert!([200, 400].contains(&one.status), "{}", one.text);
            assert_eq!(
                (one.status, other.status),
                (one.status, one.status),
                "{}",
                other.text
            );
            if one.status == 400 {
                continue;
            }
            for (router, answer) in [(memory, &one), (sqlite, &other)] {
                for link in LINKS {
                    follow(router, viewer, answer, link).await;
                }
            }
            if !is_made {
                assert_eq!(runs(&one), runs(&other), "{query}");
                assert_eq!(one.json["totalItemCount"], other.json["totalItemCount"]);
                let pages = walked(memory, viewer, &one, ["firstPageToken", "nextPageToken"]).await;
                assert_eq!(
                    pages.concat().len() as u64,
                    one.json["totalItemCount"].as_u64().unwrap_or_default()
                );
                for router in [memory, sqlite] {
                    let forward =
                        walked(router, viewer, &one, ["firstPageToken", "nextPageToken"]).await;
                    let mut backward =
                        walked(router, viewer, &one, ["lastPageToken", "prevPageToken"]).await;
                    backward.reverse();
                    assert_eq!((&forward, &backward), (&pages, &pages), "{query}");
                }
            }
        }
    });
});

/// The answer to a list. `None` if the query is none of HTTP's.
async fn asked(router: &Router, viewer: usize, query: &str) -> Option<Answer> {
    let uri: Uri = format!("{RUNS}?{query}").parse().ok()?;
    let request =
        Request::get(uri).header(header::AUTHORIZATION, format!("Bearer {}", USERS[viewer].2));
    let request = request.body(Body::empty()).ok()?;
    Some(sent(router, request).await)
}

/// The page behind a link, which must exist.
async fn follow(router: &Router, viewer: usize, answer: &Answer, link: &str) -> Option<Answer> {
    let token = answer.json[link].as_str()?;
    // Another size, so that there are few pages.
    let next = asked(router, viewer, &format!("pageSize=7&pageToken={token}")).await;
    let next = next.expect("a link is part of an address");
    assert_eq!(next.status, 200, "{link} {token}: {}", next.text);
    Some(next)
}

/// The runs of all pages, from one end to the other.
async fn walked(
    router: &Router,
    viewer: usize,
    answer: &Answer,
    [start, onward]: [&str; 2],
) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut page = follow(router, viewer, answer, start).await;
    while let Some(answer) = page {
        pages.push(runs(&answer));
        assert!(pages.len() as u64 <= MANY, "an endless list");
        page = follow(router, viewer, &answer, onward).await;
    }
    pages
}

/// The IDs of a page's runs.
fn runs(answer: &Answer) -> Vec<String> {
    let items = answer.json["items"].as_array().expect("items");
    let id = |item: &Value| item["id"].as_str().expect("an ID").to_owned();
    items.iter().map(id).collect()
}

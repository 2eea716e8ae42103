//! Requests to the API of podbeat-server, separated by lines with `%%`. Each has a line with method
//! and target, lines with headers, an empty line, and a body. `{run}` is the ID of a run, and `{user}`,
//! `{reader}`, `{stranger}`, `{admin}` and `{agent}` are valid tokens.
//!
//! No answer may be an internal error, or have another form than the contract's. No answer may
//! contain a secret, and no error a value of the body. A run that exists may never get 404.

#![no_main]

mod world;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use libfuzzer_sys::fuzz_target;
use podbeat_server::keys::Keys;
use podbeat_server::service::Caller;
use podbeat_server::store::{Memory, Role};
use serde_json::Value;

use world::{EXECUTION, RUNS, RUNTIME, USERS, sent};

/// No answer may contain this: it is the value of each secret.
const SECRET: &str = "s3cr3t-of-nobody";

/// No error may contain this: `{value}` in a body's value becomes it.
const VALUE: &str = "v4lue-of-somebody";

/// Members of an execution whose values are secrets.
const SECRETS: [&str; 3] = ["variables", "credentials", "password"];

/// The statuses of a service whose store works.
const STATUSES: [u16; 11] = [200, 201, 400, 401, 403, 404, 405, 406, 409, 413, 415];

fuzz_target!(|bytes: &[u8]| {
    RUNTIME.block_on(async {
        let world = World::new().await;
        let text = String::from_utf8_lossy(bytes);
        for request in text.split("\n%%\n").take(8) {
            world.play(request).await;
        }
        // Whatever was sent, the run is there.
        let target = format!("{RUNS}/{}", world.run);
        let get =
            Request::get(&target).header(header::AUTHORIZATION, format!("Bearer {}", USERS[0].2));
        let got = sent(&world.router, get.body(Body::empty()).expect("a request")).await;
        assert_eq!(got.status, 200, "{}", got.text);
        assert!(!got.text.contains(SECRET), "{}", got.text);
    });
});

struct World {
    router: Router,
    run: String,
    agent: String,
}

impl World {
    async fn new() -> Self {
        let keys = Keys::temporary().expect("keys");
        let service = world::service(Arc::new(Memory::default()), keys).await;
        let user = Caller::User {
            tenant: "t".to_owned(),
            user: "user".to_owned(),
            role: Role::User,
        };
        let mut body = serde_json::from_str(EXECUTION).expect("JSON");
        mark(&mut body, false);
        let request = serde_json::from_value(body).expect("a request");
        let run = service.create(&user, request, None).await.expect("created");
        let run = run.id.expect("an ID");
        let beat = serde_json::from_str(r#"{"podUID": "u", "podName": "p"}"#).expect("a heartbeat");
        let beat = service.heartbeat(&user, &run, beat, None).await;
        let agent = beat.expect("accepted").jwt.expect("a token");
        Self {
            router: world::router(&Arc::new(service)),
            run,
            agent: agent.expose().to_owned(),
        }
    }

    async fn play(&self, asked: &str) {
        let filled = |text: &str| self.filled(text);
        let Some((mut request, body)) = world::parsed(asked, filled) else {
            return;
        };
        let users = format!("Bearer {}", USERS[0].2);
        let is_users = request
            .headers()
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value == users.as_str());
        let body = match serde_json::from_str::<Value>(&body) {
            Ok(mut json) => {
                mark(&mut json, false);
                json.to_string()
            }
            Err(_) => body,
        };
        let path = request.uri().path().to_owned();
        let length = body.len();
        *request.body_mut() = Body::from(body);
        let answer = sent(&self.router, request).await;
        let (status, text) = (answer.status, &answer.text);
        assert!(
            STATUSES.contains(&status) || (status == 429 && path == RUNS),
            "{status} {text}"
        );
        let tokens = USERS.map(|(_, _, text, _)| text);
        let secrets = tokens.into_iter().chain([SECRET, &self.agent]);
        // The fuzzer knows these texts, too, and writes them where they are shown: into names.
        for secret in secrets.filter(|secret| !asked.contains(secret)) {
            assert!(!text.contains(secret), "{secret}: {text}");
            assert!(!format!("{:?}", answer.headers).contains(secret));
        }
        assert!(
            status < 400 || !text.contains(VALUE) || asked.contains(VALUE),
            "{text}"
        );
        assert!(
            text.len() <= (64 << 10) + 8 * length,
            "{} of {length} bytes",
            text.len()
        );
        let exists = is_users
            && path.strip_prefix(RUNS).is_some_and(|rest| {
                let verbs = ["", ":heartbeat", ":abort"];
                rest.is_empty()
                    || verbs
                        .iter()
                        .any(|verb| rest == format!("/{}{verb}", self.run))
            });
        assert!(!exists || status != 404, "{text}");
    }

    fn filled(&self, text: &str) -> String {
        let mut text = text
            .replace("{run}", &self.run)
            .replace("{agent}", &self.agent);
        for (user, _, token, _) in USERS {
            text = text.replace(&format!("{{{user}}}"), token);
        }
        text
    }
}

/// Replaces the values of secrets, and `{value}` in other values.
fn mark(json: &mut Value, is_secret: bool) {
    match json {
        Value::String(text) if is_secret => SECRET.clone_into(text),
        Value::String(text) => *text = text.replace("{value}", VALUE),
        Value::Array(items) => items.iter_mut().for_each(|item| mark(item, is_secret)),
        Value::Object(members) => {
            for (name, value) in members {
                // The name of a registry's user is shown.
                let is_secret =
                    name != "username" && (is_secret || SECRETS.contains(&name.as_str()));
                mark(value, is_secret);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

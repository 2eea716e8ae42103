//! Requests to the web page of podbeat-server, as those of the target `request`. `{run}` is the ID of a
//! run, `{cookie}` the cookie of a session, `{form}` the token of its forms, `{user}` a token, and
//! `{evil}` a text that must not become a part of a page.
//!
//! Only a form with its token and its cookie changes something, and only a session sees a run. No
//! answer leads to another site, has a secret, or is an internal error.

#![no_main]

mod world;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, header};
use libfuzzer_sys::fuzz_target;
use podbeat_server::api::Api;
use podbeat_server::keys::Keys;
use podbeat_server::page;
use podbeat_server::service::{Caller, Service};
use podbeat_server::store::{Memory, Role};
use tower::ServiceExt;

use world::{EXECUTION, RUNTIME, USERS};

/// No answer may contain this: it is the value of each secret.
const SECRET: &str = "s3cr3t-of-nobody";

/// The name of the run, which only a session sees. It must not become a part of a page.
const NAME: &str = "n4me-of-the-run\"'><i id=evil>";

/// The statuses of a page whose store works.
const STATUSES: [u16; 9] = [200, 303, 400, 401, 403, 404, 405, 409, 413];

fuzz_target!(|bytes: &[u8]| {
    RUNTIME.block_on(async {
        let world = World::new().await;
        let text = String::from_utf8_lossy(bytes);
        let mut may_end = false;
        for request in text.split("\n%%\n").take(8) {
            may_end |= world.play(request).await;
        }
        let status = world
            .service
            .get(&world.user, &world.run)
            .await
            .expect("the run")
            .status;
        let status = status.expect("a status").to_string();
        assert!(
            status == "Running" || may_end && status == "Aborted",
            "{status}"
        );
    });
});

struct World {
    service: Arc<Service>,
    router: Router,
    user: Caller,
    run: String,
    cookie: String,
    form: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl World {
    async fn new() -> Self {
        let keys = Keys::temporary().expect("keys");
        let service = Arc::new(world::service(Arc::new(Memory::default()), keys).await);
        let user = Caller::User {
            tenant: "t".to_owned(),
            user: "user".to_owned(),
            role: Role::User,
        };
        let execution = EXECUTION.replace("\"x\"", &format!("\"{SECRET}\""));
        let mut request: podbeat_task_runs::model::CreateTaskRunRequest =
            serde_json::from_str(&execution).expect("a request");
        request.name = Some(NAME.to_owned());
        let run = service.create(&user, request, None).await.expect("created");
        let run = run.id.expect("an ID");
        let beat = r#"{"podUID": "u", "podName": "p", "containerStatus": [{"name": "c", "state": {"running": {}}}]}"#;
        let beat = serde_json::from_str(beat).expect("a heartbeat");
        service
            .heartbeat(&user, &run, beat, None)
            .await
            .expect("accepted");
        let api = Arc::new(Api::new(""));
        api.serve(Arc::clone(&service));
        let router = page::router(api);
        let mut world = Self {
            service,
            router,
            user,
            run,
            cookie: String::new(),
            form: String::new(),
        };
        let form = Body::from(format!("token={}", USERS[0].2));
        let signed_in = world
            .sent(Request::post("/sign-in").body(form).expect("a request"))
            .await;
        let cookie = signed_in.headers[header::SET_COOKIE]
            .to_str()
            .expect("text");
        cookie
            .split(';')
            .next()
            .expect("a cookie")
            .clone_into(&mut world.cookie);
        let runs = Request::get("/").header(header::COOKIE, &world.cookie);
        let runs = world
            .sent(runs.body(Body::empty()).expect("a request"))
            .await;
        let (_, form) = runs
            .text
            .split_once("name=\"form\" value=\"")
            .expect("a form");
        form.split('"')
            .next()
            .expect("a token")
            .clone_into(&mut world.form);
        world
    }

    /// Sends a request. Returns whether it may have ended the run.
    async fn play(&self, text: &str) -> bool {
        let Some((mut request, body)) = world::parsed(text, |text| self.filled(text)) else {
            return false;
        };
        let body = self.filled(&body);
        let has = |header, wanted: &str| {
            let mut values = request.headers().get_all(header).iter();
            values.any(|value| String::from_utf8_lossy(value.as_bytes()).contains(wanted))
        };
        let has_session = has(header::COOKIE, &self.cookie);
        let may_change = has_session && body.contains(&self.form);
        *request.body_mut() = Body::from(body);
        let answer = self.sent(request).await;
        // The fuzzer knows these texts, too, and writes them where they are shown, such as into a search.
        let elsewhere = text.replace("token={user}", "");
        let is_shown = |secret: &str| elsewhere.contains(secret) || elsewhere.contains("{user}");
        for secret in [SECRET, USERS[0].2]
            .into_iter()
            .filter(|secret| !is_shown(secret))
        {
            assert!(!answer.text.contains(secret), "{secret}: {}", answer.text);
            assert!(!format!("{:?}", answer.headers).contains(secret));
        }
        if !has_session && !text.contains("n4me") {
            assert!(!answer.text.contains("n4me-of-the-run"), "{}", answer.text);
            assert!(
                ![404, 409].contains(&answer.status) || answer.text.is_empty(),
                "{}",
                answer.text
            );
        }
        may_change
    }

    fn filled(&self, text: &str) -> String {
        let pairs = [
            ("{run}", self.run.as_str()),
            ("{cookie}", &self.cookie),
            ("{form}", &self.form),
            ("{user}", USERS[0].2),
            ("{evil}", "%22%3E%3Ci%20id%3Devil%3E"),
        ];
        pairs
            .into_iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    async fn sent(&self, request: Request<Body>) -> Answer {
        let answer = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let (head, body) = answer.into_parts();
        let is_stream = head
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind == "text/event-stream");
        // A stream does not end.
        let body = match is_stream {
            true => Default::default(),
            false => to_bytes(body, 1 << 20)
                .await
                .expect("a body of at most 1 MiB"),
        };
        let answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(body.to_vec()).expect("text"),
        };
        let (status, text) = (answer.status, &answer.text);
        assert!(STATUSES.contains(&status), "{status} {text}");
        // A path without a page has an empty answer.
        if !(status == 404 && text.is_empty()) {
            assert!(
                answer.headers.contains_key(header::CONTENT_SECURITY_POLICY),
                "{status} {text}"
            );
        }
        assert!(!text.contains("<i id=evil>"), "{text}");
        if let Some(to) = answer.headers.get(header::LOCATION) {
            let to = to.as_bytes();
            assert!(
                to.starts_with(b"/") && !to.starts_with(b"//") && !to.starts_with(b"/\\"),
                "{to:?}"
            );
        }
        answer
    }
}

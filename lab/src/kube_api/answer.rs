//! Answers to requests, with the faults in force.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};

use super::Shared;
use super::objects::{Key, State, metadata, now};
use super::request::{Asked, Verb};
use crate::fault::{Place, RetryAfter, What};
use crate::serve::{self, Body, CutOff, Handler, Outcome, json as json_answer, whole};

/// The largest body of a request, in bytes, as in kube-apiserver.
const LARGEST_BODY: usize = 3 << 20;

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// The maximum number of objects that requests create. It is a quota of all namespaces.
const MOST_OBJECTS: usize = 20_000;

/// A created object's longest name (RFC 1123's subdomain).
const LONGEST_NAME: usize = 253;

pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "message": message, "reason": reason, "code": code})
}

pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Response<Body> {
    json_answer(code, &status(code, reason, message))
}

/// The refusal of a request about an object.
fn refused(code: u16, reason: &str, key: &Key, message: &str) -> Response<Body> {
    let mut status = status(code, reason, message);
    if let Some(members) = status.as_object_mut() {
        members.insert("details".to_owned(), details(key));
    }
    json_answer(code, &status)
}

fn details(key: &Key) -> Value {
    json!({"name": key.name, "group": key.kind.group(), "kind": key.kind.resource()})
}

impl Handler for Shared {
    fn refuses(&self) -> bool {
        self.faults.refuses(&[
            Place::Get,
            Place::List,
            Place::Watch,
            Place::Create,
            Place::Delete,
        ])
    }

    fn clock_ahead(&self) -> i64 {
        self.state().clock_ahead
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        let question = Question::read(head.method.as_str(), head.uri.path());
        let asked = Asked::read(&head.method, &head.uri, &head.headers);
        let (resource, verb, query, outcome) = match (question, asked) {
            (Some(question), _) => {
                let outcome = self.answer_question(question, &head.headers, body).await;
                ("", question.verb(), String::new(), outcome)
            }
            (None, Some(asked)) => {
                let outcome = self.answer(&asked, &head.headers, body).await;
                let resource = asked.kind.resource();
                (resource, asked.verb.name(), asked.raw_query, outcome)
            }
            (None, None) => {
                let message = "the server could not find the requested resource";
                return Ok(refusal(404, "NotFound", message));
            }
        };
        let answer = outcome.as_ref().ok();
        let status = answer.map(|response| response.status().as_u16());
        self.saw((resource, verb), &query, status);
        outcome
    }
}

/// The body of a request.
async fn received(body: Incoming) -> Result<Result<Bytes, Response<Body>>, CutOff> {
    let collected = Limited::new(body, LARGEST_BODY).collect();
    match tokio::time::timeout(BODY, collected).await {
        Ok(Ok(body)) => Ok(Ok(body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("limit is {LARGEST_BODY}");
            Ok(Err(refusal(413, "RequestEntityTooLarge", &message)))
        }
        Ok(Err(_)) | Err(_) => Err(CutOff),
    }
}

/// A question about the API server itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Version,
    WhoAmI,
    MayI,
}

impl Question {
    fn read(method: &str, path: &str) -> Option<Self> {
        match (method, path) {
            ("GET", "/version") => Some(Self::Version),
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews") => Some(Self::WhoAmI),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") => Some(Self::MayI),
            _ => None,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::WhoAmI => "who-am-i",
            Self::MayI => "may-i",
        }
    }
}

/// Applies a fault to any kind of request. `None` if the request is still to be answered. `giant`
/// is the size of a giant answer, in bytes.
async fn scripted(
    what: What,
    place: Place,
    giant: usize,
) -> Result<Option<Response<Body>>, CutOff> {
    Ok(Some(match what {
        What::Status(code, retry_after) => {
            let mut response = refusal(code, "Scripted", "scripted fault");
            if let Some(value) = retry_after.and_then(RetryAfter::header) {
                response
                    .headers_mut()
                    .insert(http::header::RETRY_AFTER, value);
            }
            response
        }
        What::Refuse | What::Drop | What::Lose | What::Cut => return Err(CutOff),
        What::Hang | What::HangLost => std::future::pending().await,
        What::Delay(delay) => {
            tokio::time::sleep(delay).await;
            return Ok(None);
        }
        What::Garbage => whole(200, "application/json", "{\"kind\": oops"),
        What::Giant => whole(200, "application/json", vec![b' '; giant]),
        What::Flood => serve::flood(match place {
            Place::List => "{\"metadata\":{},\"items\":[{\"metadata\":{\"annotations\":{\"a\":\"",
            Place::Watch => {
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"annotations\":{\"a\":\""
            }
            Place::Get | Place::Create | Place::Delete | Place::Heartbeat | Place::Any => {
                "{\"metadata\":{\"annotations\":{\"a\":\""
            }
        }),
        What::Redirect(url) => {
            let mut response = whole(307, "text/plain", "");
            if let Ok(url) = url.parse() {
                response.headers_mut().insert(http::header::LOCATION, url);
            }
            response
        }
        // These faults are for heartbeats and watches only.
        What::Jwt(_) | What::Gone | What::End | What::Silent => return Ok(None),
    }))
}

/// The user whom the token identifies.
const USER: &str = "system:serviceaccount:lab:podbeat";

impl Shared {
    async fn answer_question(
        self: &Arc<Self>,
        question: Question,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Outcome {
        if let Some(what) = self.faults.strike(Place::Any, false)
            && let Some(answer) = scripted(what, Place::Any, 8 << 20).await?
        {
            return Ok(answer);
        }
        if !self.is_known(headers) {
            return Ok(refusal(401, "Unauthorized", "Unauthorized"));
        }
        let body = match received(body).await? {
            Ok(body) => body,
            Err(refusal) => return Ok(refusal),
        };
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(match question {
            Question::Version => json_answer(
                200,
                &json!({"major": "1", "minor": "37", "gitVersion": "v1.37.0"}),
            ),
            Question::WhoAmI => json_answer(
                201,
                &json!({"kind": "SelfSubjectReview", "status": {"userInfo": {"username": USER}}}),
            ),
            Question::MayI => {
                let attribute = |name: &str| {
                    let asked = asked.pointer(&format!("/spec/resourceAttributes/{name}"))?;
                    asked.as_str().map(str::to_owned)
                };
                let verb = attribute("verb").unwrap_or_default();
                let state = self.state();
                // Like a Role for the pods of one namespace.
                let allowed = !state.denied
                    && !state.denied_verbs.contains(&verb)
                    && matches!(verb.as_str(), "get" | "list" | "watch")
                    && attribute("resource").as_deref() == Some("pods")
                    && attribute("namespace").as_deref() == Some("lab");
                let status = json!({"allowed": allowed, "reason": "scripted fault"});
                json_answer(
                    201,
                    &json!({"kind": "SelfSubjectAccessReview", "status": status}),
                )
            }
        })
    }

    /// Whether the token is accepted. The scheme may have any case, as for kube-apiserver (and in
    /// RFC 9110, 11.1): Python's client writes `bearer`.
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let header = headers.get(http::header::AUTHORIZATION);
        let mut words = header
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .split_ascii_whitespace();
        let is_bearer = words
            .next()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("Bearer"));
        is_bearer && words.next() == Some(self.state().options.token.as_str())
    }

    async fn answer(
        self: &Arc<Self>,
        asked: &Asked,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Outcome {
        let place = asked.verb.place();
        let fault = self.faults.strike(place, false);
        if fault.is_some() {
            // For callers that wait for it: the request may never be answered.
            self.changed();
        }
        // Reading has no effect, so for get, list and watch these are the same as a lost request.
        let after = match fault {
            Some(ref what @ (What::Drop | What::Hang)) if asked.verb.changes() => {
                Some(what.clone())
            }
            _ => None,
        };
        match fault {
            // These faults affect the open watch, so the request itself succeeds.
            Some(what @ (What::Gone | What::End | What::Silent)) => {
                return Ok(self.stream(asked, Vec::new(), 0, Some(what)));
            }
            Some(what) if after.is_none() => {
                if let Some(answer) = scripted(what, place, 2 << 20).await? {
                    return Ok(answer);
                }
            }
            Some(_) | None => {}
        }
        let answer = match self.refusal_of(asked, headers) {
            Some(refusal) => refusal,
            None => match asked.verb {
                Verb::Create | Verb::Delete => match received(body).await? {
                    Ok(body) => self.change(asked, &body),
                    Err(refusal) => refusal,
                },
                Verb::Get | Verb::List | Verb::Watch => self.show(asked),
            },
        };
        match after {
            Some(What::Hang) => pending().await,
            Some(_) => Err(CutOff),
            None => Ok(answer),
        }
    }

    /// Why a request is not allowed.
    fn refusal_of(&self, asked: &Asked, headers: &HeaderMap) -> Option<Response<Body>> {
        if !self.is_known(headers) {
            return Some(refusal(401, "Unauthorized", "Unauthorized"));
        }
        let verb = asked.verb.name();
        let state = self.state();
        let is_denied = state.denied || state.denied_verbs.contains(verb);
        is_denied.then(|| {
            let resource = asked.kind.resource();
            let message = format!(
                "{} {:?} is forbidden: User \"{USER}\" cannot {verb} resource {resource:?} in API \
                 group {:?} in the namespace {:?}",
                asked.kind.qualified(),
                asked.name.as_deref().unwrap_or_default(),
                asked.kind.group(),
                asked.namespace.as_deref().unwrap_or_default()
            );
            refusal(403, "Forbidden", &message)
        })
    }

    /// Answers get, list and watch.
    fn show(self: &Arc<Self>, asked: &Asked) -> Response<Body> {
        let selects = match asked.selector() {
            Ok(selects) => selects,
            Err(message) => return refusal(400, "BadRequest", &message),
        };
        if asked.verb == Verb::Watch {
            return self.watch(asked, selects);
        }
        let state = self.state();
        if let Some(name) = &asked.name {
            let key = asked.key(name);
            return match state.get(&key) {
                Some(object) if asked.only_metadata => json_answer(200, &only_metadata(object)),
                Some(object) => json_answer(200, object),
                None => missing(&key),
            };
        }
        // A page starts after the object whose index is in the token.
        let after: usize = asked.get("continue").parse().unwrap_or(0);
        let limit: usize = asked.get("limit").parse().unwrap_or(usize::MAX);
        let candidates = candidates(&state, asked);
        let mut chosen = candidates.filter(|object| selects(object)).skip(after);
        let items: Vec<&Value> = chosen.by_ref().take(limit).collect();
        let mut metadata = json!({"resourceVersion": state.version.to_string()});
        if chosen.next().is_some()
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.insert("continue".to_owned(), json!((after + limit).to_string()));
        }
        if asked.only_metadata {
            let items: Vec<Value> = items.into_iter().map(only_metadata).collect();
            let kind = "PartialObjectMetadataList";
            return json_answer(
                200,
                &json!({"kind": kind, "apiVersion": METADATA, "metadata": metadata, "items": items}),
            );
        }
        let (kind, version) = (
            format!("{}List", asked.kind.name()),
            asked.kind.api_version(),
        );
        json_answer(
            200,
            &json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}),
        )
    }

    /// Executes create and delete.
    fn change(&self, asked: &Asked, body: &[u8]) -> Response<Body> {
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return refusal(400, "BadRequest", "the body is not JSON");
        };
        let answer = match &asked.name {
            None => self.create(asked, body),
            Some(name) => self.delete_with(&asked.key(name), &body),
        };
        self.changed();
        answer
    }

    fn create(&self, asked: &Asked, mut object: Value) -> Response<Body> {
        let name = metadata(&object, "name").unwrap_or_default();
        let key = asked.key(name);
        let is_of_kind = object.get("kind").and_then(Value::as_str) == Some(key.kind.name());
        let namespace = metadata(&object, "namespace").unwrap_or(&key.namespace);
        if !is_of_kind || namespace != key.namespace {
            let message = "the object does not have the kind and the namespace of the request";
            return refusal(400, "BadRequest", message);
        }
        if key.name.is_empty() || key.name.len() > LONGEST_NAME {
            let message = format!("{} is invalid: metadata.name", key.kind.name());
            return refused(422, "Invalid", &key, &message);
        }
        let mut state = self.state();
        let resource = key.kind.qualified();
        if state.get(&key).is_some() {
            let message = format!("{resource} {:?} already exists", key.name);
            return refused(409, "AlreadyExists", &key, &message);
        }
        if state.count() >= MOST_OBJECTS {
            let message = format!("{resource} {:?} is forbidden: exceeded quota", key.name);
            return refused(403, "Forbidden", &key, &message);
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("uid");
            metadata.remove("resourceVersion");
            metadata.insert("namespace".to_owned(), json!(key.namespace));
            metadata.insert("creationTimestamp".to_owned(), json!(now()));
        }
        state.apply(object);
        match state.get(&key) {
            Some(object) => json_answer(201, object),
            None => missing(&key),
        }
    }

    /// Deletes an object, if it is the one with the UID in the request. All policies of propagation
    /// are in the background here.
    fn delete_with(&self, key: &Key, options: &Value) -> Response<Body> {
        let mut state = self.state();
        let Some(object) = state.get(key) else {
            return missing(key);
        };
        let uid = metadata(object, "uid").unwrap_or_default().to_owned();
        let wanted = options
            .pointer("/preconditions/uid")
            .and_then(Value::as_str);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != uid) {
            let message = format!(
                "Operation cannot be fulfilled on {} {:?}: the UID in the precondition ({wanted}) does \
                 not match the UID in record ({uid}). The object might have been deleted and then \
                 recreated",
                key.kind.qualified(),
                key.name
            );
            return refused(409, "Conflict", key, &message);
        }
        state.delete(key);
        match state.get(key) {
            // A pod that the kubelet still has to stop.
            Some(object) => json_answer(200, object),
            None => {
                let mut details = details(key);
                if let Some(details) = details.as_object_mut() {
                    details.insert("uid".to_owned(), json!(uid));
                }
                json_answer(
                    200,
                    &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                            "details": details}),
                )
            }
        }
    }
}

/// The API version of lists of metadata.
const METADATA: &str = "meta.k8s.io/v1";

fn only_metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": METADATA, "metadata": object.get("metadata")})
}

fn missing(key: &Key) -> Response<Body> {
    let message = format!("{} {:?} not found", key.kind.qualified(), key.name);
    refused(404, "NotFound", key, &message)
}

/// The objects among which a request selects.
pub(super) fn candidates<'state>(
    state: &'state State,
    asked: &Asked,
) -> impl Iterator<Item = &'state Value> + use<'state> {
    let one = asked.one();
    let all = one.is_none().then(|| state.all(asked.kind));
    let one = one.and_then(|key| state.get(&key));
    one.into_iter().chain(all.into_iter().flatten())
}

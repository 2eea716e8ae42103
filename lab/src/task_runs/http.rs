//! The five operations over HTTP: which one a request asks for, whether it is valid, and the
//! answer.
//!
//! Only this module knows the names on the wire. The contract defines the statuses 400, 401, 403,
//! 404 and 500. On the public page, every other status is unexpected (its status 0). All of them
//! have an `ErrorResponse`.

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use podbeat_server::api::head::{self, NoOperation};
pub(crate) use podbeat_server::api::head::{Operation, bearer, is_json};
use podbeat_task_runs::model::{InvalidSort, PageSize, SortOrder};
use serde_json::{Map, Value, json};

use super::list::{self, Page, Place, Query};
use super::run::{Run, Wanted};
use super::store::{Beat, Refusal};
use crate::serve::{Body, json as json_answer};

/// The actors in `createdBy`, `modifiedBy`, `tenantId` and `subTenantId`. The stand-in has no
/// users.
const CLIENT: &str = "lab-client";
const AGENT: &str = "lab-agent";
const TENANT: &str = "lab";

/// The schema of the operation's body, if it has one.
pub(crate) fn schema(operation: &Operation) -> Option<&'static str> {
    match operation {
        Operation::Create => Some("CreateTaskRunRequest"),
        Operation::Heartbeat(_) => Some("HeartbeatTaskRunRequest"),
        Operation::List | Operation::Get(_) | Operation::Abort(_) => None,
    }
}

/// Why a request is refused, as an `ErrorResponse`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    code: &'static str,
    message: String,
    details: Vec<String>,
    header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            details: Vec::new(),
            header: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn breaks_contract(details: &[String]) -> Self {
        /// The most violations that are listed. Each repeats the wrong value, which can be a
        /// megabyte.
        const MOST: usize = 20;
        const LONGEST: usize = 500;
        let shortened = |detail: &String| detail.chars().take(LONGEST).collect();
        Self {
            details: details.iter().take(MOST).map(shortened).collect(),
            ..Self::bad_request("the body violates the contract")
        }
    }

    pub(crate) fn unauthorized() -> Self {
        Self {
            header: Some((header::WWW_AUTHENTICATE, "Bearer")),
            ..Self::new(
                401,
                "Unauthorized",
                "the bearer token is missing, unknown or expired",
            )
        }
    }

    pub(crate) fn forbidden() -> Self {
        Self::new(
            403,
            "Forbidden",
            "this token is valid only for heartbeats of one run, and does not allow this request",
        )
    }

    pub(crate) fn too_slow() -> Self {
        Self::new(
            408,
            "RequestTimeout",
            "timed out while waiting for the body",
        )
    }

    pub(crate) fn too_large(most: usize) -> Self {
        Self::new(
            413,
            "ContentTooLarge",
            format!("the body is larger than {most} bytes"),
        )
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalServerError", message)
    }

    /// The answer with this problem.
    pub(crate) fn response(&self) -> ::http::Response<Body> {
        let mut response = json_answer(self.status, &self.body());
        if let Some((name, value)) = &self.header {
            response
                .headers_mut()
                .insert(name.clone(), HeaderValue::from_static(value));
        }
        response
    }

    fn body(&self) -> Value {
        json!({"code": self.code, "message": self.message, "details": self.details})
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match refusal {
            Refusal::Unknown => (404, "NotFound"),
            Refusal::Over(_)
            | Refusal::Fenced { .. }
            | Refusal::WrongNonce
            | Refusal::NotAbortable(_) => (409, "Conflict"),
            Refusal::Full => (503, "ServiceUnavailable"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

/// The operation of a request. `base` is the path before `/v1`.
pub(crate) fn route(base: &str, head: &Parts) -> Result<Operation, Problem> {
    Operation::of(base, &head.method, head.uri.path()).map_err(|error| {
        let (status, code, header) = match error {
            NoOperation::Unknown | NoOperation::Empty => (404, "NotFound", None),
            NoOperation::Method(allow) => (405, "MethodNotAllowed", Some((header::ALLOW, allow))),
            NoOperation::NotUtf8 => (400, "BadRequest", None),
        };
        Problem {
            header,
            ..Problem::new(status, code, error.to_string())
        }
    })
}

/// Checks that the client accepts JSON.
pub(crate) fn accepts_json(headers: &HeaderMap) -> Result<(), Problem> {
    match head::accepts_json(headers) {
        true => Ok(()),
        false => Err(Problem::new(
            406,
            "NotAcceptable",
            "answers are application/json, but Accept does not include it",
        )),
    }
}

/// The body as JSON. An absent body is an empty object, because neither a member nor the body is
/// required. A null is an absent body.
pub(crate) fn body(headers: &HeaderMap, raw: &[u8]) -> Result<Value, Problem> {
    if raw.is_empty() {
        return Ok(json!({}));
    }
    if !is_json(headers) {
        return Err(Problem::new(
            415,
            "UnsupportedMediaType",
            "the Content-Type must be application/json, text/json or application/*+json, in UTF-8",
        ));
    }
    let body: Value = serde_json::from_slice(raw)
        .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
    Ok(if body.is_null() { json!({}) } else { body })
}

/// Parses a list's query string.
pub(crate) fn query(query: Option<&str>) -> Result<Query, Problem> {
    let (mut sort, mut filter) = (None, list::Filter::default());
    let (mut size, mut token) = (None, None);
    let once = |name: &str, is_new: bool| {
        let twice = || Problem::bad_request(format!("the parameter {name} is given twice"));
        is_new.then_some(()).ok_or_else(twice)
    };
    for (name, value) in parameters(query.unwrap_or_default())? {
        let values = || {
            value
                .split(',')
                .map(str::trim)
                .filter(|value| !value.is_empty())
        };
        match name.as_str() {
            "names" => {
                filter.names.extend(values().map(str::to_owned));
                // The name itself can contain a comma.
                if value.contains(',') {
                    filter.names.push(value);
                }
            }
            "status" => filter.statuses.extend(values().map(str::to_owned)),
            "versions" => filter.versions.extend(values().map(str::to_owned)),
            "acls" => filter.acls.extend(values().map(str::to_owned)),
            "sort" => {
                once("sort", sort.is_none())?;
                sort = Some(self::sort(&value)?);
            }
            "pageSize" => {
                once("pageSize", size.is_none())?;
                size = Some(page_size(&value)?);
            }
            "pageToken" => {
                once("pageToken", token.is_none())?;
                token = Some(value);
            }
            _ => {
                let known = "sort, names, status, versions, acls, pageSize and pageToken";
                let name: String = name.chars().take(100).collect();
                return Err(Problem::bad_request(format!(
                    "unknown parameter {name:?}; known parameters: {known}"
                )));
            }
        }
    }
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Ok(Query {
            sort: sort.flatten(),
            filter,
            size: size.unwrap_or(PageSize::DEFAULT).get(),
            place: Place::First,
        });
    };
    let listed = Query::of_token(&token)
        .ok_or_else(|| Problem::bad_request("pageToken does not come from this service"))?;
    let is_other_sort = sort.is_some_and(|sort| sort != listed.sort);
    if is_other_sort || (filter != list::Filter::default() && filter != listed.filter) {
        return Err(Problem::bad_request(
            "pageToken belongs to a list with another sort or filter; omit sort and filters, or repeat the earlier ones",
        ));
    }
    Ok(Query {
        size: size.map_or(listed.size, PageSize::get),
        ..listed
    })
}

/// An empty text is no order.
fn sort(text: &str) -> Result<Option<SortOrder>, Problem> {
    match text.parse() {
        Ok(order) => Ok(Some(order)),
        Err(InvalidSort::Empty) => Ok(None),
        Err(error) => Err(Problem::bad_request(format!("sort: {error}"))),
    }
}

fn page_size(text: &str) -> Result<PageSize, Problem> {
    text.parse().ok().and_then(PageSize::new).ok_or_else(|| {
        let (least, most) = (PageSize::LEAST, PageSize::MOST);
        Problem::bad_request(format!("pageSize must be a number from {least} to {most}"))
    })
}

/// The parameters of a query string.
pub(crate) fn parameters(query: &str) -> Result<Vec<(String, String)>, Problem> {
    head::parameters(query).map_err(|_| Problem::bad_request("the query is not UTF-8"))
}

/// The requested run of a valid body. Credentials are removed: the stand-in runs nothing, so it
/// needs none, and what it doesn't keep it can't show.
pub(crate) fn wanted(body: &Value) -> Wanted {
    let text = |name| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut execution = body.get("execution").cloned();
    if let Some(execution) = &mut execution {
        drop_credentials(execution);
    }
    let acl = body.get("acl").and_then(Value::as_array);
    Wanted {
        name: text("name"),
        description: text("description"),
        acl: acl.map(|acl| {
            acl.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        }),
        execution,
    }
}

/// The contract has credentials in `image`, `systemFiles`, and each of `inputs` and `outputs`.
fn drop_credentials(execution: &mut Value) {
    let drop = |place: &mut Value| {
        if let Some(members) = place.as_object_mut() {
            members.remove("credentials");
        }
    };
    for name in ["image", "systemFiles"] {
        execution.get_mut(name).map(drop);
    }
    for name in ["inputs", "outputs"] {
        let mappings = execution.get_mut(name).and_then(Value::as_array_mut);
        mappings.into_iter().flatten().for_each(drop);
    }
}

/// The state of a container status: its name on the wire and its members. Of several, an end takes
/// precedence, then a running container. A null is no state.
pub(crate) fn container_state(status: &Value) -> Option<(&str, &Value)> {
    let states = status.get("state")?.as_object()?;
    let rank = |name: &str| match name {
        "terminated" => 0,
        "running" => 1,
        "waiting" => 2,
        _ => 3,
    };
    states
        .iter()
        .filter(|(_, members)| !members.is_null())
        .min_by_key(|(name, _)| rank(name))
        .map(|(name, members)| (name.as_str(), members))
}

/// The parts of a valid heartbeat that the store uses.
pub(crate) fn beat(body: &Value) -> Beat {
    let statuses = body.get("containerStatus").and_then(Value::as_array);
    let exit = |status: &Value| {
        let code = whole_number(status.pointer("/state/terminated/exitCode")?)?;
        let name = status
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or("a container");
        Some((name.to_owned(), code))
    };
    Beat {
        retry_count: body
            .get("jobRetryCount")
            .and_then(whole_number)
            .and_then(|count| i32::try_from(count).ok()),
        nonce: body.get("nonce").and_then(Value::as_str).map(str::to_owned),
        last: body.get("lastHeartbeat") == Some(&Value::Bool(true)),
        exits: statuses.into_iter().flatten().filter_map(exit).collect(),
    }
}

/// JSON allows integers to be written as 3.0.
#[allow(
    clippy::cast_possible_truncation,
    reason = "only whole numbers of 32 bits get there"
)]
pub(crate) fn whole_number(value: &Value) -> Option<i64> {
    let fraction = || {
        value
            .as_f64()
            .filter(|number| number.fract() == 0.0 && number.abs() <= f64::from(u32::MAX))
            .map(|number| number as i64)
    };
    value.as_i64().or_else(fraction)
}

/// `TaskRun`. `url` is the operations' URL with the base path.
pub(crate) fn task_run(run: &Run, url: &str) -> Value {
    let mut members = summary_members(run, url);
    if let Some(execution) = &run.execution {
        members.insert("executionRawJson".to_owned(), json!(execution.to_string()));
        members.insert("execution".to_owned(), execution.clone());
    }
    let logs: Vec<Value> = run
        .attempts
        .iter()
        .map(|attempt| {
            object([
                ("startTime", Some(json!(attempt.began))),
                ("endTime", attempt.ended.map(|ended| json!(ended))),
                ("error", attempt.error.as_ref().map(|error| json!(error))),
            ])
        })
        .collect();
    members.insert("logs".to_owned(), json!(logs));
    Value::Object(members)
}

/// `TaskRunSummary`.
pub(crate) fn summary(run: &Run, url: &str) -> Value {
    Value::Object(summary_members(run, url))
}

fn summary_members(run: &Run, url: &str) -> Map<String, Value> {
    let resource = |name| {
        let resources = run.execution.as_ref()?.pointer("/environment/resources")?;
        resources.get(name).cloned()
    };
    let path = percent_encoding::utf8_percent_encode(&run.id, ID);
    let modified_by = if run.modified_by_agent { AGENT } else { CLIENT };
    let members = object([
        ("id", Some(json!(run.id))),
        ("href", Some(json!(format!("{url}/v1/tasks/runs/{path}")))),
        ("urn", Some(json!(format!("urn:podbeat:task-run:{path}")))),
        ("name", run.name.as_ref().map(|name| json!(name))),
        (
            "description",
            run.description.as_ref().map(|text| json!(text)),
        ),
        ("status", Some(json!(run.status.word()))),
        (
            "statusDetails",
            run.details.as_ref().map(|text| json!(text)),
        ),
        ("typeOfResource", resource("type")),
        ("sizeOfResource", resource("size")),
        ("tierOfResource", resource("tier")),
        ("acl", run.acl.as_ref().map(|acl| json!(acl))),
        ("tenantId", Some(json!(TENANT))),
        ("subTenantId", Some(json!(TENANT))),
        ("createdBy", Some(json!(CLIENT))),
        ("timeCreated", Some(json!(run.created))),
        ("modifiedBy", Some(json!(modified_by))),
        ("timeModified", Some(json!(run.modified))),
    ]);
    match members {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// In a run id, all characters except RFC 3986's unreserved ones are encoded.
pub(crate) const ID: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `TaskRunSummaryPagedItems`.
pub(crate) fn paged_items(page: &Page, query: &Query, url: &str) -> Value {
    let token = |place: &Option<Place>| place.clone().map(|place| json!(query.token(place)));
    let items: Vec<Value> = page.runs.iter().map(|run| summary(run, url)).collect();
    object([
        ("itemCount", Some(json!(items.len()))),
        ("items", Some(json!(items))),
        ("firstPageToken", token(&page.first)),
        ("nextPageToken", token(&page.next)),
        ("prevPageToken", token(&page.previous)),
        ("lastPageToken", token(&page.last)),
        ("totalItemCount", Some(json!(page.total))),
        (
            "totalPageCount",
            Some(json!(page.total.div_ceil(usize::from(query.size.max(1))))),
        ),
    ])
}

/// `TaskRunHeartbeat`.
pub(crate) fn task_run_heartbeat(jwt: Option<&str>) -> Value {
    object([("jwt", jwt.map(|jwt| json!(jwt)))])
}

/// An object of the present members. The wire omits absent members and has no nulls.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, path: &str) -> Parts {
        let request = ::http::Request::builder().method(method).uri(path);
        request.body(()).expect("a request").into_parts().0
    }

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a value"))])
    }

    #[test]
    fn each_operation_has_its_path_and_method() {
        let id = || "a:b/c".to_owned();
        for (method, path, expected) in [
            ("POST", "/x/v1/tasks/runs", Operation::Create),
            ("GET", "/x/v1/tasks/runs?sort=name", Operation::List),
            ("GET", "/x/v1/tasks/runs/a:b%2Fc", Operation::Get(id())),
            (
                "GET",
                "/x/v1/tasks/runs/a%3Aabort",
                Operation::Get("a:abort".to_owned()),
            ),
            (
                "PUT",
                "/x/v1/tasks/runs/a%3Ab%2fc:abort",
                Operation::Abort(id()),
            ),
            (
                "POST",
                "/x/v1/tasks/runs/a:b%2Fc:heartbeat",
                Operation::Heartbeat(id()),
            ),
        ] {
            assert_eq!(
                route("/x", &head(method, path)),
                Ok(expected),
                "{method} {path}"
            );
        }
        for (method, path, status) in [
            ("GET", "/", 404),
            ("GET", "/v1/tasks/runs", 404),
            ("GET", "/x/v1/tasks/runsmore", 404),
            ("GET", "/x/v1/tasks/runs/", 404),
            ("GET", "/x/v1/tasks/runs/a/b", 404),
            ("POST", "/x/v1/tasks/runs/:heartbeat", 404),
            ("PUT", "/x/v1/tasks/runs", 405),
            ("GET", "/x/v1/tasks/runs/a:heartbeat", 405),
            ("POST", "/x/v1/tasks/runs/a:abort", 405),
            ("DELETE", "/x/v1/tasks/runs/a", 405),
            ("GET", "/x/v1/tasks/runs/%ff", 400),
        ] {
            let problem = route("/x", &head(method, path)).expect_err(path);
            assert_eq!(problem.status, status, "{method} {path}");
        }
    }

    #[test]
    fn json_is_accepted_with_every_content_type_of_the_contract() {
        for listed in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "text/json;charset=\"utf-8\"",
            "application/json-patch+json",
            "application/vnd.task+json",
        ] {
            assert!(is_json(&headers(header::CONTENT_TYPE, listed)), "{listed}");
        }
        for other in [
            "text/plain",
            "application/+json",
            "application/xml",
            "text/x+json",
            "application/json; charset=utf-16",
        ] {
            assert!(!is_json(&headers(header::CONTENT_TYPE, other)), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn the_accept_header_is_respected() {
        for taken in [
            "application/json",
            "*/*",
            "text/html, application/*;q=0.1",
            "*/*;q=0, application/json",
            "",
        ] {
            assert_eq!(
                accepts_json(&headers(header::ACCEPT, taken)),
                Ok(()),
                "{taken}"
            );
        }
        assert_eq!(accepts_json(&HeaderMap::new()), Ok(()));
        for refused in [
            "text/html",
            "application/json;q=0, */*",
            "application/xml, text/json",
        ] {
            let problem = accepts_json(&headers(header::ACCEPT, refused)).expect_err(refused);
            assert_eq!(problem.status, 406, "{refused}");
        }
    }

    #[test]
    fn a_query_is_read_completely_or_refused() {
        let asked = query(Some(
            "names=a,b+c&status=Running&acls=x&sort=timeCreated%20desc,name&pageSize=3",
        ))
        .expect("a query");
        assert_eq!(asked.filter.names, ["a", "b c", "a,b c"]);
        assert_eq!(asked.filter.statuses, ["Running"]);
        let sort = asked.sort.as_ref().map(SortOrder::to_string);
        assert_eq!(sort.as_deref(), Some("timeCreated desc,name asc"));
        assert_eq!(asked.size, 3);
        let colon = query(Some("sort=TIMECREATED:Desc,Name&pageSize=3")).expect("a query");
        assert_eq!(colon.sort, asked.sort);
        assert_eq!(query(Some("sort=")).expect("a query").sort, None);
        let token = asked.token(Place::Last);
        let again = query(Some(&format!(
            "pageToken={token}&sort=timeCreated+desc,name+asc"
        )))
        .expect("its page");
        assert_eq!(
            again,
            Query {
                place: Place::Last,
                ..asked
            }
        );
        let resized = query(Some(&format!("pageToken={token}&pageSize=7"))).expect("its page");
        assert_eq!(resized.size, 7);
        for refused in [
            "pageSize=0",
            "pageSize=1001",
            "pageSize=",
            "pageSize=1&pageSize=1",
            "pagesize=1",
            "sort=id",
            "sort=name up",
            "sort=name,name",
            "sort=name asc desc",
            "sort=name,",
            "names=%ff",
            "pageToken=nonsense",
            &format!("pageToken={token}&sort=name"),
            &format!("pageToken={token}&names=other"),
        ] {
            assert_eq!(
                query(Some(refused)).expect_err(refused).status,
                400,
                "{refused}"
            );
        }
    }

    #[test]
    fn credentials_are_not_kept() {
        let secret = json!({"password": "hunter2"});
        let body = json!({"execution": {
            "image": {"name": "i", "credentials": secret},
            "systemFiles": {"url": "u", "credentials": secret},
            "inputs": [{"path": "p", "credentials": secret}],
            "outputs": [{"path": "p", "credentials": secret}]}});
        let kept = wanted(&body).execution.expect("an execution");
        assert!(!kept.to_string().contains("hunter2"));
        assert_eq!(kept["inputs"], json!([{"path": "p"}]));
    }

    #[test]
    fn of_several_states_the_end_is_shown() {
        for (state, expected) in [
            (
                json!({"waiting": {}, "running": {}, "terminated": {}}),
                Some("terminated"),
            ),
            (
                json!({"waiting": {}, "running": {}, "terminated": null}),
                Some("running"),
            ),
            (json!({"waiting": {}, "running": null}), Some("waiting")),
            (json!({"running": null}), None),
            (json!({}), None),
            (Value::Null, None),
        ] {
            let status = json!({"name": "main", "state": state});
            let found = container_state(&status).map(|(name, _)| name);
            assert_eq!(found, expected, "{status}");
        }
    }

    #[test]
    fn whole_numbers_may_have_a_zero_fraction() {
        let told = beat(&json!({"jobRetryCount": 2.0, "containerStatus": [
            {"name": "a", "state": {"terminated": {"exitCode": 3.0}}}, {"name": "b", "state": {"running": {}}}, {}]}));
        assert_eq!(told.retry_count, Some(2));
        assert_eq!(told.exits, [("a".to_owned(), 3)]);
    }
}

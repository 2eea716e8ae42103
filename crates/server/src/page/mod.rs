//! The operator's web page: the runs, the life of each one, and abort. It is usable without scripts.
//! The modules: who may look (`access`), the visible data (`view`), its form (`html`, `text`,
//! `json`), the way from the service to it (`content`), and updates of open pages (`live`).
//!
//! Never here: a decision about a run, SQL, or a member of a run that `view` doesn't select. Which
//! runs a reader sees and may change is up to the service.

mod access;
mod content;
mod html;
mod json;
mod live;
mod refusal;
mod text;
mod view;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use axum::routing::any;

use self::access::{Cookie, FORM_TOKEN, Session};
use self::content::Subject;
use self::live::Streams;
use self::refusal::Refusal;
use self::view::{Reader, Wanted};
use crate::api::Api;
use crate::api::head::parameters;
use crate::service::{Caller, Problem, Service, encoded};
use crate::tokens;
use podbeat_runs::Status;

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");
const ICON: &str = include_str!("page.svg");

const HTML: &str = "text/html; charset=utf-8";

/// The maximum size of a form, in bytes: a token and an address are far smaller.
const FORM: usize = 4 << 10;

/// The maximum length of an address to go to after the sign-in, in bytes.
const NEXT: usize = 2 << 10;

/// The limit for the answer to a request, with the arrival of its form.
const ANSWER: Duration = Duration::from_secs(30);

/// The security headers of every answer: no content from elsewhere, nothing inline, nothing stored,
/// no framing. No header allows another origin to read the answer. The referrer policy lets browsers
/// send `Origin` with our forms, and nothing to other sites.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// A path of the page. A run's ID is in the query, because browsers interpret `.` and `..` in a path
/// as steps, even if encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Base,
    Css,
    Js,
    Icon,
    SignIn,
    SignOut,
    Runs,
    RunsLive,
    Run,
    RunLive,
    Abort,
    Heartbeat,
    Log,
}

impl Place {
    const ALL: [Self; 13] = [
        Self::Base,
        Self::Css,
        Self::Js,
        Self::Icon,
        Self::SignIn,
        Self::SignOut,
        Self::Runs,
        Self::RunsLive,
        Self::Run,
        Self::RunLive,
        Self::Abort,
        Self::Heartbeat,
        Self::Log,
    ];

    /// The path behind the base path.
    fn path(self) -> &'static str {
        match self {
            Self::Base => "",
            Self::Css => "/page.css",
            Self::Js => "/page.js",
            Self::Icon => "/page.svg",
            Self::SignIn => "/sign-in",
            Self::SignOut => "/sign-out",
            Self::Runs => "/",
            Self::RunsLive => "/live",
            Self::Run => "/run",
            Self::RunLive => "/run/live",
            Self::Abort => "/run/abort",
            Self::Heartbeat => "/run/heartbeat",
            Self::Log => "/run/log",
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::SignOut => "POST",
            Self::SignIn | Self::Abort => "GET, HEAD, POST",
            Self::Base
            | Self::Css
            | Self::Js
            | Self::Icon
            | Self::Runs
            | Self::RunsLive
            | Self::Run
            | Self::RunLive
            | Self::Heartbeat
            | Self::Log => "GET, HEAD",
        }
    }

    /// Whether it is a page for people that needs a session.
    fn is_page(self) -> bool {
        matches!(
            self,
            Self::Runs | Self::Run | Self::Abort | Self::Heartbeat | Self::Log
        )
    }

    /// The way from there to the list.
    fn up(self) -> &'static str {
        match self.path().matches('/').count() {
            0 | 1 => "",
            _ => "../",
        }
    }
}

/// The routes of the page, to be merged with those of the API.
pub fn router(api: Arc<Api>) -> Router {
    let base = api.base_path().to_owned();
    let page = Arc::new(Page {
        api,
        cookie: OnceLock::new(),
        streams: Streams::default(),
    });
    // The base path is a text, and not a pattern.
    let escaped = base.replace('{', "{{").replace('}', "}}");
    let mut router = Router::new().without_v07_checks();
    for place in Place::ALL {
        let path = format!("{escaped}{}", place.path());
        // Other paths can't be requested.
        if path.starts_with('/') {
            let answer = move |State(page): State<Arc<Page>>, request| async move {
                page.answer(place, request).await
            };
            router = router.route(&path, any(answer));
        }
    }
    router.with_state(page)
}

#[derive(Debug)]
struct Page {
    api: Arc<Api>,
    /// Set with the first request that needs it, because it depends on the service.
    cookie: OnceLock<Cookie>,
    streams: Streams,
}

/// A reader who is signed in.
struct Visit<'page> {
    service: &'page Arc<Service>,
    session: Session,
    caller: Caller,
    reader: Reader,
}

/// The fields of a form, or of the query of an address.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(text: &str) -> Result<Self, Refusal> {
        parameters(text).map(Self).map_err(|_| Refusal::Address)
    }

    fn of(head: &Parts) -> Result<Self, Refusal> {
        Self::parse(head.uri.query().unwrap_or_default())
    }

    async fn of_form(body: Body) -> Result<Self, Refusal> {
        let body = to_bytes(body, FORM).await.map_err(|_| Refusal::TooLarge)?;
        Self::parse(std::str::from_utf8(&body).map_err(|_| Refusal::Address)?)
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let values = self.0.iter().filter(move |(other, _)| other == name);
        values.map(|(_, value)| value.as_str())
    }

    /// The first value of a field. Empty if there is none.
    fn get(&self, name: &'static str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// The ID of a run.
    fn id(&self) -> Result<&str, Refusal> {
        match self.get("id") {
            "" => Err(Problem::NotFound.into()),
            id => Ok(id),
        }
    }

    /// The runs that the reader wants to see.
    fn wanted(&self) -> Result<Wanted, Refusal> {
        let search = self.get("search").trim();
        if search.chars().count() > html::SEARCH {
            return Err(Refusal::Address);
        }
        let words = self.all("status").filter(|word| !word.is_empty());
        let statuses = words.map(Status::named).collect::<Option<Vec<_>>>();
        let mut statuses = statuses.ok_or(Refusal::Address)?;
        statuses.sort_unstable();
        statuses.dedup();
        Ok(Wanted {
            search: search.to_owned(),
            statuses,
        })
    }
}

impl Page {
    async fn answer(&self, place: Place, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let answered = tokio::time::timeout(ANSWER, self.answered(place, &head, body)).await;
        let slow = || Problem::unavailable("the request took too long").into();
        let mut response = match answered.unwrap_or_else(|_| Err(slow())) {
            Ok(response) => response,
            Err(Refusal::SignedOut) => self.signed_out(place, &head),
            Err(refusal) => refusal.response(None, place.up()),
        };
        for (name, value) in HEADERS {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn answered(
        &self,
        place: Place,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        let allowed = place.methods();
        let is_allowed = allowed.split(", ").any(|method| head.method == method);
        if !is_allowed {
            return Err(Refusal::Method(allowed));
        }
        match place {
            Place::Css => return Ok(whole(StatusCode::OK, "text/css; charset=utf-8", CSS)),
            Place::Js => return Ok(whole(StatusCode::OK, "text/javascript; charset=utf-8", JS)),
            Place::Icon => return Ok(whole(StatusCode::OK, "image/svg+xml", ICON)),
            Place::Base => return Ok(self.see("/")),
            _ => {}
        }
        let starting = Problem::unavailable("the service is starting");
        let service = self.api.service().ok_or(starting)?;
        let is_change = head.method == Method::POST;
        let is_live = matches!(place, Place::RunsLive | Place::RunLive);
        if (is_change || is_live) && access::is_from_elsewhere(&head.headers, service.url()) {
            return Err(Refusal::Elsewhere);
        }
        if place == Place::SignIn {
            return match is_change {
                true => self.sign_in(service, &Fields::of_form(body).await?).await,
                false => {
                    let next = self.own_page(Fields::of(head)?.get("next"));
                    Ok(whole(StatusCode::OK, HTML, html::sign_in(&next, None)))
                }
            };
        }
        let visit = self.visit(service, head).await?;
        let answer = match is_change {
            true => self.changed(place, &visit, body).await,
            false => self.seen(place, &visit, head).await,
        };
        Ok(answer.unwrap_or_else(|refusal| refusal.response(Some(&visit.reader), place.up())))
    }

    fn cookie(&self, service: &Service) -> &Cookie {
        let base = self.api.base_path();
        self.cookie.get_or_init(|| Cookie::new(service.url(), base))
    }

    async fn visit<'page>(
        &self,
        service: &'page Arc<Service>,
        head: &Parts,
    ) -> Result<Visit<'page>, Refusal> {
        let session = Session::of(service, self.cookie(service), &head.headers).await?;
        let (session, caller) = session.ok_or(Refusal::SignedOut)?;
        let form_token = session.form_token(service);
        let reader = Reader::of(&caller, form_token).ok_or(Refusal::SignedOut)?;
        Ok(Visit {
            service,
            session,
            caller,
            reader,
        })
    }

    /// Leads to the sign-in, and from there to the page that was asked for.
    fn signed_out(&self, place: Place, head: &Parts) -> Response<Body> {
        let is_change = head.method == Method::POST;
        if !place.is_page() && place != Place::SignOut {
            return Refusal::SignedOut.response(None, place.up());
        }
        let own = head.uri.path_and_query().map_or("", |own| own.as_str());
        if access::is_link_from_elsewhere(&head.headers) && !is_change {
            return whole(StatusCode::OK, HTML, html::elsewhere(own, place.up()));
        }
        let next = if is_change { "" } else { own };
        match self.own_page(next) {
            next if next.is_empty() => self.see(Place::SignIn.path()),
            next => self.see(&format!("/sign-in?next={}", encoded(&next))),
        }
    }

    /// An address of a page for people. Empty if it is none, so that nobody is led elsewhere.
    fn own_page(&self, address: &str) -> String {
        let path = address.split('?').next().unwrap_or_default();
        let below = path.strip_prefix(self.api.base_path());
        let is_page = |place: &Place| place.is_page() && below == Some(place.path());
        let is_own = address.len() <= NEXT && Place::ALL.iter().any(is_page);
        match is_own && HeaderValue::from_str(address).is_ok() && address.is_ascii() {
            true => address.to_owned(),
            false => String::new(),
        }
    }

    /// Leads the browser to an address below the base path.
    fn see(&self, below: &str) -> Response<Body> {
        see(&format!("{}{below}", self.api.base_path()))
    }

    async fn sign_in(&self, service: &Service, fields: &Fields) -> Result<Response<Body>, Refusal> {
        let next = self.own_page(fields.get("next"));
        let token = fields.get("token").trim();
        let caller = match tokens::is_of_a_user(token) {
            true => service.caller_with(tokens::hash(token)).await,
            false => service.caller(token).await,
        };
        let problem = match caller {
            Ok(Caller::User { .. }) => {
                let session = Session::new(service, token);
                let cookie = self.cookie(service).of(&session);
                let cookie = cookie.ok_or(Refusal::Address)?;
                let mut response = match next.as_str() {
                    "" => self.see("/"),
                    next => see(next),
                };
                response.headers_mut().insert(header::SET_COOKIE, cookie);
                return Ok(response);
            }
            Ok(Caller::Agent(_)) => "This token is valid only for a run. Use the token of a user.",
            Err(Problem::Unauthorized) => "The token is unknown, expired or revoked.",
            Err(problem) => return Err(problem.into()),
        };
        let page = html::sign_in(&next, Some(problem));
        Ok(whole(StatusCode::UNAUTHORIZED, HTML, page))
    }

    /// Answers a form.
    async fn changed(
        &self,
        place: Place,
        visit: &Visit<'_>,
        body: Body,
    ) -> Result<Response<Body>, Refusal> {
        let fields = Fields::of_form(body).await?;
        let Visit {
            service, session, ..
        } = visit;
        if !session.has_form(service, fields.get(FORM_TOKEN)) {
            return Err(Refusal::Form);
        }
        if place == Place::SignOut {
            let mut response = self.see(Place::SignIn.path());
            if let Some(removal) = self.cookie(service).removal() {
                response.headers_mut().insert(header::SET_COOKIE, removal);
            }
            return Ok(response);
        }
        let id = fields.id()?;
        service.abort(&visit.caller, id).await?;
        Ok(self.see(&format!("/{}", html::run_href("", id))))
    }

    /// Answers a request that changes nothing.
    async fn seen(
        &self,
        place: Place,
        visit: &Visit<'_>,
        head: &Parts,
    ) -> Result<Response<Body>, Refusal> {
        let Visit {
            service,
            caller,
            reader,
            ..
        } = visit;
        let fields = Fields::of(head)?;
        let page = match place {
            Place::Run => {
                let run = content::run(service, caller, fields.id()?).await?;
                let execution = content::execution(service, caller, fields.id()?).await?;
                html::run(&run, execution.as_deref(), reader, service.now())
            }
            Place::Abort => {
                let detail = service.detail(caller, fields.id()?).await?;
                detail.may_change.clone()?;
                let run = view::Run::of(&detail, service.heartbeat_timeout());
                html::abort(&run, reader)
            }
            Place::Heartbeat => {
                let id = fields.id()?;
                let number = fields.get("number").parse();
                let number = number.map_err(|_| Refusal::NoHeartbeat)?;
                let beat = service.kept_heartbeat(caller, id, number).await?;
                let beat = beat.ok_or(Refusal::NoHeartbeat)?;
                let shown = view::Heartbeat::of(number, &beat);
                html::heartbeat(id, &shown, &json::readable(&beat.body), reader)
            }
            Place::Log => {
                let id = fields.id()?;
                let log = service.log(caller, id).await?;
                html::log(id, log.as_ref().map(view::Log::of).as_ref(), reader)
            }
            Place::RunLive => {
                let id = fields.id()?.to_owned();
                service.detail(caller, &id).await?;
                return self.live(visit, Subject::Run(id), head);
            }
            Place::RunsLive => return self.live(visit, Subject::Runs(fields.wanted()?), head),
            _ => {
                let token = Some(fields.get("page")).filter(|token| !token.is_empty());
                let overview = content::overview(service, caller, fields.wanted()?, token).await?;
                html::runs(&overview, token, reader, service.now())
            }
        };
        Ok(whole(StatusCode::OK, HTML, page))
    }

    fn live(
        &self,
        visit: &Visit<'_>,
        subject: Subject,
        head: &Parts,
    ) -> Result<Response<Body>, Refusal> {
        if head.method == Method::HEAD {
            return Ok(live::none());
        }
        let place = self.streams.place().ok_or(Refusal::Busy)?;
        let service = Arc::clone(visit.service);
        let reader = (visit.session.clone(), visit.caller.clone());
        let ending = self.api.ending();
        Ok(self.streams.open(service, reader, subject, place, ending))
    }
}

fn see(address: &str) -> Response<Body> {
    let mut response = whole(StatusCode::SEE_OTHER, HTML, "");
    if let Ok(address) = HeaderValue::from_str(address) {
        response.headers_mut().insert(header::LOCATION, address);
    }
    response
}

fn whole(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;

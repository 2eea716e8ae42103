//! The stand-in service's web page: its runs and their heartbeats, live. The modules: access
//! control (`access`), the visible data (`view`), its form (`html`, `text`), and updates of open
//! pages (`live`).
//! Never here: a decision about a run, anything that delays a heartbeat, a fault, or a member of a
//! run that `view` doesn't select.

mod access;
mod html;
mod live;
mod text;
pub(crate) mod view;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, header};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::Error;
use crate::serve::{Body, whole};
use crate::task_runs::http::parameters;
use crate::task_runs::received::Bounds;
use crate::task_runs::run::Status;
use access::Access;
use view::{Detail, Overview};

const CSS: &str = include_str!("page.css");
const JS: &str = include_str!("page.js");
const ICON: &str = include_str!("page.svg");

const HTML: &str = "text/html; charset=utf-8";

/// The bounds of the heartbeats that are kept for the page: enough of each run to see its recent
/// activity, for a fleet of thousands. An agent's body takes about 700 bytes with its overhead, so
/// 2,500 runs have 50 heartbeats each.
pub(crate) const BOUNDS: Bounds = Bounds {
    of_run: 50,
    all: 150_000,
    bytes: 128 << 20,
};

/// The security headers of every answer: no content from elsewhere, nothing inline, nothing stored,
/// no framing. No header allows another origin to read the answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
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

/// The page's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names under which it answers in addition to `localhost` and addresses, if it listens only on
    /// loopback. Any other name there was made to point to it by somebody else.
    pub hosts: BTreeSet<String>,
    /// The most pages that are updated live at once.
    pub streams: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: BTreeSet::new(),
            streams: 32,
        }
    }
}

/// The page's data source. Its methods don't wait, and delay a heartbeat only for the time of a
/// look.
pub(crate) trait Source: Send + Sync + 'static {
    /// The service's time.
    fn now(&self) -> Timestamp;
    /// Increases with every visible change, including timeouts.
    fn version(&self) -> u64;
    /// The newest runs with a status, or of all.
    fn overview(&self, status: Option<Status>) -> Overview;
    /// One run, if it is known.
    fn detail(&self, id: &str) -> Option<Detail>;
}

/// The subject of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The runs with a status, or all.
    Runs(Option<Status>),
    /// One run.
    Run(String),
}

/// A path of the page. A run's id is in the query, because browsers interpret `.` and `..` in a
/// path as steps, even if encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Base,
    Css,
    Js,
    Icon,
    Runs,
    RunsLive,
    Run,
    RunLive,
}

impl Place {
    /// The place of a path. `base` is the part before it.
    pub(crate) fn of(base: &str, path: &str) -> Option<Self> {
        Some(match path.strip_prefix(base)? {
            "" => Self::Base,
            "/" => Self::Runs,
            "/live" => Self::RunsLive,
            "/run" => Self::Run,
            "/run/live" => Self::RunLive,
            "/page.css" => Self::Css,
            "/page.js" => Self::Js,
            "/page.svg" => Self::Icon,
            _ => return None,
        })
    }
}

/// The page.
pub(crate) struct Page {
    base: String,
    access: Access,
    streams: Arc<Semaphore>,
}

impl Page {
    /// A page under `base`. `secret` signs its cookies: with the same secret, an existing cookie
    /// remains valid.
    pub(crate) fn new(options: Options, base: &str, secret: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            base: base.to_owned(),
            access: Access::new(options.hosts, base, secret)?,
            streams: Arc::new(Semaphore::new(options.streams)),
        })
    }

    /// Sets its address. Before that, it refuses all requests.
    pub(crate) fn served_at(&self, address: SocketAddr) {
        self.access.served_at(address);
    }

    /// The key in the printed URL, which gives a browser access.
    pub(crate) fn key(&self) -> &str {
        self.access.key()
    }

    /// Answers a request for one of its places.
    pub(crate) fn answer(
        &self,
        source: &Arc<impl Source>,
        place: Place,
        head: &Parts,
    ) -> Response<Body> {
        let mut response = self
            .answered(source, place, head)
            .unwrap_or_else(|refusal| refusal.response());
        for (name, value) in HEADERS {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn answered(
        &self,
        source: &Arc<impl Source>,
        place: Place,
        head: &Parts,
    ) -> Result<Response<Body>, Refusal> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(Refusal::Method);
        }
        if !self.access.is_asked_by_own_name(head) {
            return Err(Refusal::Host);
        }
        match place {
            Place::Css => return Ok(whole(200, "text/css; charset=utf-8", CSS)),
            Place::Js => return Ok(whole(200, "text/javascript; charset=utf-8", JS)),
            Place::Icon => return Ok(whole(200, "image/svg+xml", ICON)),
            Place::Base => return Ok(self.see_runs()),
            Place::Runs | Place::RunsLive | Place::Run | Place::RunLive => {}
        }
        let asked = parameters(head.uri.query().unwrap_or_default()).map_err(|_| Refusal::Query)?;
        let parameter = |name: &str| {
            let mut values = asked.iter().filter(|(other, _)| other == name);
            values.next().map(|(_, value)| value.as_str())
        };
        let now = source.now();
        if place == Place::Runs
            && let Some(key) = parameter("key")
        {
            let cookie = self.access.admit(key, now).ok_or(Refusal::Stranger)?;
            let mut response = self.see_runs();
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            return Ok(response);
        }
        if !self.access.knows(head, now) {
            return Err(Refusal::Stranger);
        }
        let subject = match place {
            Place::Run | Place::RunLive => {
                Subject::Run(parameter("id").ok_or(Refusal::NoRun)?.to_owned())
            }
            _ => match parameter("status") {
                None | Some("") => Subject::Runs(None),
                Some(word) => Subject::Runs(Some(status(word).ok_or(Refusal::Query)?)),
            },
        };
        let is_live = matches!(place, Place::RunsLive | Place::RunLive);
        if !is_live {
            let page = match &subject {
                Subject::Runs(status) => html::runs(&source.overview(*status), now),
                Subject::Run(id) => html::run(&source.detail(id).ok_or(Refusal::NoRun)?, now),
            };
            return Ok(whole(200, HTML, page));
        }
        if access::is_from_elsewhere(head) {
            return Err(Refusal::Elsewhere);
        }
        if let Subject::Run(id) = &subject {
            source.detail(id).ok_or(Refusal::NoRun)?;
        }
        if head.method == Method::HEAD {
            return Ok(live::none());
        }
        let permit = Arc::clone(&self.streams)
            .try_acquire_owned()
            .map_err(|_| Refusal::Busy)?;
        Ok(live::answer(Arc::clone(source), subject, permit))
    }

    /// Redirects the browser to the page without the query.
    fn see_runs(&self) -> Response<Body> {
        let mut response = whole(303, HTML, "");
        if let Ok(place) = HeaderValue::from_str(&format!("{}/", self.base)) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        response
    }
}

fn status(word: &str) -> Option<Status> {
    let mut all = Status::ALL.into_iter();
    all.find(|status| status.word().eq_ignore_ascii_case(word))
}

/// Why a request is refused. The answer explains to an admitted user what to do; it never reveals
/// which runs exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Method,
    Host,
    Stranger,
    Elsewhere,
    Query,
    NoRun,
    Busy,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        let (status, title, text) = match self {
            Self::Method => (
                405,
                "Method not allowed",
                "This page accepts only GET and HEAD.",
            ),
            Self::Host => (
                421,
                "Unknown host name",
                "This page accepts localhost and addresses as host. To add a name, use podbeat-lab service --page-host NAME.",
            ),
            Self::Stranger => (
                403,
                "This page needs its link",
                "podbeat-lab service prints the link on the line “page” when it starts. Open that link. It is new at each start.",
            ),
            Self::Elsewhere => (
                403,
                "Request from another site",
                "Only this page can request its live updates.",
            ),
            Self::Query => (
                400,
                "Invalid address",
                "The parameters are status, with a status of the contract, and id.",
            ),
            Self::NoRun => (
                404,
                "Run not found",
                "The run never existed, or it ended and was removed to make room for newer runs.",
            ),
            Self::Busy => (
                503,
                "Too many pages are open",
                "The number of live pages is limited. Close another page, or reload this page by hand.",
            ),
        };
        let mut response = whole(status, HTML, html::refusal(title, text));
        let headers = response.headers_mut();
        match self {
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::Busy => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::Host | Self::Stranger | Self::Elsewhere | Self::Query | Self::NoRun => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_pages_own_and_never_the_operations() {
        for (base, path, place) in [
            ("", "/", Some(Place::Runs)),
            ("", "/live", Some(Place::RunsLive)),
            ("", "/run", Some(Place::Run)),
            ("", "/run/live", Some(Place::RunLive)),
            ("", "/page.css", Some(Place::Css)),
            ("/ica", "/ica", Some(Place::Base)),
            ("/ica", "/ica/", Some(Place::Runs)),
            ("/ica", "/", None),
            ("/ica", "/icarus", None),
            ("", "/v1/tasks/runs", None),
            ("", "/v1/tasks/runs/run", None),
            ("", "/run/", None),
            ("", "//", None),
        ] {
            assert_eq!(Place::of(base, path), place, "{base} {path}");
        }
    }
}

//! The client of the task-run service: one connection kept alive, one request at a time, nothing retried.
//!
//! Retries, their waits and their meaning belong to the caller; this client says exactly what happened to one request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Identity, Url};

use super::Secret;
use super::error::{Error, RetryAfter, TimedOut};
use super::model::{ErrorResponse, HeartbeatTaskRunRequest, TaskRunHeartbeat};

/// The most that is read of an answer's body.
const LARGEST_ANSWER: usize = 64 * 1024;

/// A connection, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// Kept alive for longer than three default intervals, below the idle time-outs of common load balancers (240 s).
const IDLE: Duration = Duration::from_secs(100);

/// All but the unreserved characters of RFC 3986 is encoded in a run id.
const RUN_ID: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// How the service's certificate is checked, and ours shown.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Roots beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Our certificate chain and key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Speaks to one service. Cheap to clone: the clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// What an accepted heartbeat brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// A fresh token.
    pub jwt: Option<Secret>,
    /// Why the body could not be read, though the heartbeat was accepted.
    pub unreadable: Option<&'static str>,
}

impl Client {
    /// Sets the client up; connects to nothing yet. A path in `base` stays, with or without a slash at its end.
    ///
    /// # Errors
    /// A file of `tls` is unreadable or holds no certificate or key.
    pub fn new(base: Url, tls: &Tls) -> Result<Self, Error> {
        // The ring provider for the whole process, kube included; it is no error if that was done before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(crate::USER_AGENT)
            // A redirect must not carry the token away.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .tcp_keepalive(Duration::from_secs(60));
        if let Some(path) = &tls.ca_file {
            builder = builder.tls_certs_merge(certificates(path)?);
        }
        if let Some((certificate, key)) = &tls.identity {
            let mut pem = read("the client certificate", certificate)?;
            pem.push(b'\n');
            pem.extend(read("the client key", key)?);
            builder = builder.identity(Identity::from_pem(&pem).map_err(Error::Setup)?);
        }
        Ok(Self {
            http: builder.build().map_err(Error::Setup)?,
            base,
        })
    }

    /// Sends one heartbeat, once.
    ///
    /// # Errors
    /// [`Error::Connect`] if nothing was sent, [`Error::Ambiguous`] if it may have arrived, [`Error::Status`] for any
    /// answer but 2xx.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the heartbeat may have arrived.
    pub async fn heartbeat(
        &self,
        run_id: &str,
        request: &HeartbeatTaskRunRequest,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Accepted, Error> {
        let exchange = async {
            let body = serde_json::to_vec(request).map_err(|source| Error::Ambiguous(Box::new(source)))?;
            let mut response = self
                .http
                .post(self.run_url(run_id, "heartbeat"))
                .header(AUTHORIZATION, bearer(token)?)
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body)
                .send()
                .await
                .map_err(sorted)?;
            let status = response.status().as_u16();
            let retry_after = retry_after(response.headers());
            let body = read_body(&mut response).await;
            if (200..300).contains(&status) {
                return Ok(accepted(body));
            }
            // Whatever became of the body, the status is the answer.
            let response = body
                .ok()
                .and_then(|body| serde_json::from_slice::<ErrorResponse>(&body).ok());
            Err(Error::Status {
                status,
                response,
                retry_after,
            })
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Ambiguous(Box::new(TimedOut(timeout)))),
        }
    }

    /// `{base}/v1/tasks/runs/{runId}:{verb}`: the run id encoded, the colon as it is.
    fn run_url(&self, run_id: &str, verb: &str) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!(
            "{base}/v1/tasks/runs/{}:{verb}",
            utf8_percent_encode(run_id, RUN_ID)
        ));
        url
    }
}

fn bearer(token: &Secret) -> Result<HeaderValue, Error> {
    let unfit = |_| {
        Error::Token(super::credentials::Error::Renewed {
            problem: "not fit for a header",
        })
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(unfit)?;
    value.set_sensitive(true);
    Ok(value)
}

fn accepted(body: Result<Vec<u8>, &'static str>) -> Accepted {
    let body = match body {
        Ok(body) => body,
        Err(unreadable) => {
            return Accepted {
                jwt: None,
                unreadable: Some(unreadable),
            };
        }
    };
    if body.trim_ascii().is_empty() {
        return Accepted::default();
    }
    match serde_json::from_slice::<TaskRunHeartbeat>(&body) {
        Ok(answer) => Accepted {
            jwt: answer.jwt,
            unreadable: None,
        },
        Err(_) => Accepted {
            jwt: None,
            unreadable: Some("not the JSON that the contract names"),
        },
    }
}

/// Reads an answer's parts as if they had come from the service, for the fuzzer.
#[cfg(fuzzing)]
pub fn read_answer(retry_after_header: &[u8], body: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(retry_after_header) {
        headers.insert(RETRY_AFTER, value);
    }
    let response = serde_json::from_slice::<ErrorResponse>(body).ok();
    let error = Error::Status {
        status: 400,
        response,
        retry_after: retry_after(&headers),
    };
    let accepted = accepted(Ok(body.to_vec()));
    if let Some(token) = &accepted.jwt {
        let _ = super::credentials::expires_at(token);
        let _ = bearer(token);
    }
    let _ = (error.to_string(), format!("{accepted:?}"));
}

async fn read_body(response: &mut reqwest::Response) -> Result<Vec<u8>, &'static str> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST_ANSWER => return Err("larger than 64 KiB"),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => return Err("broken off"),
        }
    }
}

/// Before the connection stood, nothing can have arrived; after that, anything may have.
fn sorted(error: reqwest::Error) -> Error {
    let error = error.without_url();
    if error.is_connect() || error.is_builder() {
        Error::Connect(error)
    } else {
        Error::Ambiguous(Box::new(error))
    }
}

fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(RetryAfter::Delay(Duration::from_secs(seconds)));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    Some(RetryAfter::At(date))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File {
        what,
        path: path.to_owned(),
        source,
    })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, Error> {
    let pem = read("CA certificates", path)?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(Error::Setup)?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(base: &str, run_id: &str) -> String {
        let client = Client::new(base.parse().expect("a URL"), &Tls::default()).expect("a client");
        client.run_url(run_id, "heartbeat").to_string()
    }

    #[test]
    fn base_urls_with_and_without_path_or_slash() {
        let expected = "https://ica.example/v1/tasks/runs/trn.1:heartbeat";
        assert_eq!(url("https://ica.example", "trn.1"), expected);
        assert_eq!(url("https://ica.example/", "trn.1"), expected);
        let under = "https://ica.example/a/b/v1/tasks/runs/trn.1:heartbeat";
        assert_eq!(url("https://ica.example/a/b", "trn.1"), under);
        assert_eq!(url("https://ica.example/a/b/", "trn.1"), under);
        assert_eq!(
            url("https://ica.example:8443//", "r"),
            "https://ica.example:8443/v1/tasks/runs/r:heartbeat"
        );
    }

    #[test]
    fn the_run_id_is_encoded_and_the_colon_is_not() {
        let encoded = "https://h/v1/tasks/runs/a%2Fb%3Fc%23d%25%3A%20%C3%BC:heartbeat";
        assert_eq!(url("https://h", "a/b?c#d%: ü"), encoded);
        assert_eq!(url("https://h", ".."), "https://h/v1/tasks/runs/..:heartbeat");
    }

    #[test]
    fn retry_after_in_both_forms() {
        let header = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            retry_after(&headers)
        };
        assert_eq!(header("120"), Some(RetryAfter::Delay(Duration::from_secs(120))));
        let date = "2026-10-21T07:28:00Z".parse().expect("a time");
        assert_eq!(
            header("Wed, 21 Oct 2026 07:28:00 GMT"),
            Some(RetryAfter::At(date))
        );
        assert_eq!(header("soon"), None);
        assert_eq!(header("-1"), None);
    }
}

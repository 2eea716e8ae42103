//! Checks the connection to the task-run service step by step: name, connection, TLS, one response,
//! the run. It skips each step whose prerequisite failed, and sends the token only over a verified
//! connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use podbeat_http_client::head::Head;
use podbeat_http_client::route::{Route, Way as Kind};
use podbeat_http_client::{self as http_client, Resolver, Stream};
use podbeat_interface::exit::with_causes;
use podbeat_interface::service::ServiceUrl;
use podbeat_task_runs::Secret;
use podbeat_task_runs::client::{Client, Tls};
use podbeat_task_runs::error::Error;
use podbeat_task_runs::model::TaskRunStatus;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::clock::{self, Dated};
use super::tls::{self, Means, Peer};
use super::{blocking, in_words, told};
use podbeat_interface::finding::Finding;

const DNS: &str = "service.dns";
const TCP: &str = "service.tcp";
const RUN: &str = "service.run";
pub(super) const CLOCK: &str = "clock.service";
const STEPS: [&str; 5] = [DNS, TCP, tls::ID, RUN, CLOCK];

/// The maximum number of a name's addresses to try.
const ADDRESSES: usize = 8;

/// The settings for the checks of the service.
pub(super) struct Settings<'settings> {
    pub(super) url: &'settings ServiceUrl,
    pub(super) tls: Tls,
    /// `None` if there is no usable token; another check reports why.
    pub(super) token: Option<Secret>,
    /// `None` if it is unknown; another check reports why.
    pub(super) run_id: Option<&'settings str>,
}

/// Skips all steps, with the reason.
pub(super) fn none(why: &str) -> Vec<Finding> {
    STEPS.iter().map(|id| Finding::skipped(id, why)).collect()
}

/// Makes all steps until one fails.
pub(super) async fn check(
    settings: Settings<'_>,
    means: Option<Means>,
    limit: Duration,
) -> Vec<Finding> {
    let way = Way::new(settings.url);
    let mut found = Vec::new();
    let reached = way.walk(means, limit, &mut found).await;
    match reached {
        Reached::Nothing(because) => {
            found.push(Finding::because(RUN, because));
            found.push(Finding::because(CLOCK, because));
        }
        Reached::Service(stream, asked) => {
            let (answer, run) = match asked {
                // Only a response shows whether the service accepts the client certificate, or its
                // absence.
                Some(shows) => {
                    let answer = way.ask(stream, limit).await;
                    let alert = answer.as_ref().err().and_then(|broken| broken.alert);
                    let run = match alert {
                        Some(alert) => {
                            found.retain(|finding| finding.id != tls::ID);
                            found.push(tls::certificate_demanded(alert, shows));
                            Finding::because(RUN, tls::ID)
                        }
                        None => run(&settings, limit).await,
                    };
                    (answer, run)
                }
                None => tokio::join!(way.ask(stream, limit), run(&settings, limit)),
            };
            found.push(run);
            found.push(match answer {
                Ok(dated) => clock::compare(CLOCK, "the service", &dated),
                Err(broken) => Finding::skipped(CLOCK, broken.why),
            });
        }
    }
    let place = |finding: &Finding| STEPS.iter().position(|id| *id == finding.id);
    let mut ordered = Vec::new();
    for finding in found {
        let before = |other: &Finding| place(other) <= place(&finding);
        ordered.insert(ordered.partition_point(before), finding);
    }
    ordered
}

/// How far the steps got.
enum Reached {
    /// The check with this ID failed.
    Nothing(&'static str),
    /// Connected to the service. If it requested a client certificate, the second value says
    /// whether podbeat sends one.
    Service(Box<dyn Stream>, Option<bool>),
}

/// Why there was no response to the request without a token.
struct Broken {
    why: String,
    alert: Option<rustls::AlertDescription>,
}

struct Way<'url> {
    route: &'url Route,
}

impl<'url> Way<'url> {
    fn new(service: &'url ServiceUrl) -> Self {
        Self {
            route: service.route(),
        }
    }

    /// Makes the steps for name, connection and TLS.
    async fn walk(
        &self,
        means: Option<Means>,
        limit: Duration,
        found: &mut Vec<Finding>,
    ) -> Reached {
        let (finding, addresses) = self.resolve(limit).await;
        found.push(finding);
        let Some(addresses) = addresses else {
            found.push(Finding::because(TCP, DNS));
            found.push(Finding::because(tls::ID, DNS));
            return Reached::Nothing(DNS);
        };
        let (finding, stream) = self.connect(&addresses, limit).await;
        found.push(finding);
        let Some(stream) = stream else {
            found.push(Finding::because(tls::ID, TCP));
            return Reached::Nothing(TCP);
        };
        if self.route.is_encrypted() && means.is_none() {
            found.push(Finding::because(tls::ID, super::FILES));
            return Reached::Nothing(super::FILES);
        }
        let stays_here = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let passed =
            match timeout(limit, self.pass_the_proxy(means.as_ref(), Box::new(stream))).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(finding)) => {
                    found.push(*finding);
                    return Reached::Nothing(tls::ID);
                }
                Err(_) => {
                    found.push(no_end(limit));
                    return Reached::Nothing(tls::ID);
                }
            };
        let Some(means) = means.filter(|_| self.route.is_encrypted()) else {
            found.push(plain_http(stays_here && self.route.proxy().is_none()));
            return Reached::Service(passed, None);
        };
        let host = self.route.host();
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(error) => {
                found.push(Finding::failed(
                    tls::ID,
                    format!("TLS is not possible with the host {host}: {error}"),
                    "Check the host in PODBEAT_SERVICE_URL.",
                ));
                return Reached::Nothing(tls::ID);
            }
        };
        let Ok(handshake) = timeout(limit, means.shake_hands(passed, &name)).await else {
            found.push(no_end(limit));
            return Reached::Nothing(tls::ID);
        };
        let peer = Peer {
            host,
            name: &name,
            port: self.route.port(),
            shows_a_certificate: means.shows_a_certificate(),
            roots: means.roots(),
        };
        found.push(tls::judge(&handshake, &peer, Timestamp::now()));
        match handshake.stream {
            Ok(stream) => {
                let asked = handshake.asked.then(|| means.shows_a_certificate());
                Reached::Service(Box::new(stream), asked)
            }
            Err(_) => Reached::Nothing(tls::ID),
        }
    }

    /// Connects through the proxy, if there is one. Otherwise returns the same connection.
    async fn pass_the_proxy(
        &self,
        means: Option<&Means>,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, Box<Finding>> {
        let Some(proxy) = self.route.proxy() else {
            return Ok(stream);
        };
        let roots = means.map_or(&[][..], Means::roots);
        let encryption = match http_client::tls::to_proxy(self.route, roots) {
            Ok(encryption) => encryption,
            Err(unfit) => {
                return Err(Box::new(Finding::failed(
                    tls::ID,
                    with_causes(&unfit),
                    "podbeat verifies an https:// proxy with the system's roots and the CA certificates of PODBEAT_CA_FILE.",
                )));
            }
        };
        let passed = http_client::through(proxy, self.route, encryption.as_ref(), stream).await;
        passed.map_err(|error| {
            Box::new(Finding::failed(
                tls::ID,
                with_causes(&error),
                format!(
                    "{} sets this proxy. podbeat connects to hosts in NO_PROXY without it.",
                    proxy.named_by()
                ),
            ))
        })
    }

    fn by_proxy(&self) -> String {
        let proxy = self.route.proxy();
        proxy.map_or_else(String::new, |proxy| {
            format!("through the proxy {proxy} ({}): ", proxy.named_by())
        })
    }

    /// Why podbeat does not use the environment's proxy, as the last part of an observation.
    fn without_proxy(&self) -> String {
        let why = self.route.passed_over();
        why.map_or_else(String::new, |why| format!("; {why}"))
    }

    async fn resolve(&self, limit: Duration) -> (Finding, Option<Vec<SocketAddr>>) {
        let (host, port) = self.route.next_hop();
        let (by, without) = (self.by_proxy(), self.without_proxy());
        if let Ok(address) = host.parse() {
            let seen = format!("{by}{host} is an IP address{without}");
            return (
                Finding::ok(DNS, seen),
                Some(vec![SocketAddr::new(address, port)]),
            );
        }
        let begun = Instant::now();
        let remedy = match (self.route.proxy(), self.route.way()) {
            (Some(proxy), _) => format!("Check the host in {}.", proxy.named_by()),
            (None, Kind::Loopback) => {
                "Add the name to /etc/hosts, with 127.0.0.1 or ::1: podbeat uses plain HTTP only on this machine. For another machine, use \
                 https in PODBEAT_SERVICE_URL, or set PODBEAT_ALLOW_HTTP to true."
                    .to_owned()
            }
            (None, Kind::Direct | Kind::Proxy(_)) => {
                "Check the host in PODBEAT_SERVICE_URL, and whether it resolves elsewhere (`getent hosts` on the node or in another pod). \
                 In a pod, the cluster's DNS resolves names: a NetworkPolicy may block it (UDP and TCP port 53). Only a proxy \
                 (HTTPS_PROXY) may be able to resolve a name of another network."
                    .to_owned()
            }
        };
        // The C library resolves names on another thread, which podbeat abandons if it hangs.
        let looked_up = timeout(limit, http_client::addresses(self.route, &Resolver::System)).await;
        let mut all = match looked_up {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                let seen = format!("{by}{}", with_causes(&error));
                return (Finding::failed(DNS, seen, remedy), None);
            }
            Err(_) => {
                let seen = format!("{by}{host}: no DNS answer within {}", in_words(limit));
                return (Finding::failed(DNS, seen, remedy), None);
            }
        };
        let shown: Vec<String> = all
            .iter()
            .take(ADDRESSES)
            .map(|address| address.ip().to_string())
            .collect();
        let more = match all.len().saturating_sub(ADDRESSES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let took = begun.elapsed().as_millis();
        let seen = format!(
            "{by}{host} resolves to {}{more} ({took} ms){without}",
            shown.join(", ")
        );
        all.truncate(ADDRESSES);
        (Finding::ok(DNS, seen), Some(all))
    }

    /// Tries all addresses in parallel, and uses the first that is connected, in their order.
    async fn connect(
        &self,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> (Finding, Option<TcpStream>) {
        let tries = addresses.iter().map(|address| async move {
            let begun = Instant::now();
            let tried = timeout(limit, TcpStream::connect(address)).await;
            let tried = tried.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            (*address, begun.elapsed(), tried)
        });
        let mut connected = None;
        let mut failed = Vec::new();
        for (address, took, tried) in join_all(tries).await {
            match tried {
                Ok(stream) if connected.is_none() => connected = Some((address, took, stream)),
                Ok(_) => {}
                // Many machines have no IPv6.
                Err(error)
                    if error.kind() == io::ErrorKind::NetworkUnreachable && addresses.len() > 1 => {
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    failed.push(format!("{address}: no answer within {}", in_words(limit)));
                }
                Err(error) => failed.push(format!("{address}: {error}")),
            }
        }
        let by = self.by_proxy();
        let failures = failed.join("; ");
        let Some((address, took, stream)) = connected else {
            let failures = match failures.is_empty() {
                true => "network unreachable".to_owned(),
                false => failures,
            };
            let finding = Finding::failed(
                TCP,
                format!("{by}{failures}"),
                "If the connection was refused, nothing listens on that port: check the port in PODBEAT_SERVICE_URL, and whether the \
                 service runs. If there was no answer, a firewall or a NetworkPolicy drops the packets, or you need a proxy \
                 (HTTPS_PROXY).",
            );
            return (finding, None);
        };
        let seen = format!("{by}{address} ({} ms)", took.as_millis());
        let finding = match failed.is_empty() {
            true => Finding::ok(TCP, seen),
            false => Finding::warning(
                TCP,
                format!("{seen}; but {failures}"),
                "Some addresses of the host cannot be reached, which slows podbeat down. Ask the operator of the service to remove \
                 them from DNS or to repair them.",
            ),
        };
        (finding, Some(stream))
    }

    /// Sends one request without a token, for the date of the response. Any response is sufficient.
    async fn ask(&self, mut stream: Box<dyn Stream>, limit: Duration) -> Result<Dated, Broken> {
        let asked = Timestamp::now();
        match timeout(limit, Head::ask(&mut *stream, &self.request())).await {
            Ok(Ok(answer)) => Ok(Dated {
                date: answer.header("date").map(str::to_owned),
                asked,
                answered: Timestamp::now(),
            }),
            Ok(Err(error)) => Err(Broken {
                alert: tls::cause(&error).and_then(tls::alert),
                why: with_causes(&error),
            }),
            Err(_) => Err(Broken {
                alert: None,
                why: format!("no answer within {}", in_words(limit)),
            }),
        }
    }

    /// Builds that request. The contents of a URL are safe in a request's head.
    fn request(&self) -> Vec<u8> {
        let mut url = self.route.url().clone();
        url.set_path(&format!("{}/", url.path().trim_end_matches('/')));
        let proxy = self.route.proxy().filter(|_| !self.route.is_encrypted());
        let target = match proxy {
            Some(_) => url.as_str(),
            None => url.path(),
        };
        let host = url.host_str().unwrap_or_default();
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let mut request = format!(
            "HEAD {target} HTTP/1.1\r\nHost: {host}{port}\r\nUser-Agent: {}\r\nConnection: close\r\n",
            podbeat_http_client::USER_AGENT
        )
        .into_bytes();
        if let Some(proxy) = proxy {
            http_client::authorize(proxy, &mut request);
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

fn no_end(limit: Duration) -> Finding {
    Finding::failed(
        tls::ID,
        format!(
            "the TLS handshake did not finish within {}",
            in_words(limit)
        ),
        "Something accepts connections on that port, but does not respond. Check the port, and the proxies and firewalls on the path.",
    )
}

fn plain_http(stays_here: bool) -> Finding {
    if stays_here {
        return Finding::ok(tls::ID, "plain HTTP, on this machine only");
    }
    Finding::warning(
        tls::ID,
        "plain HTTP (PODBEAT_ALLOW_HTTP): podbeat sends the token and the states unencrypted",
        "If the service supports TLS, use https:// in PODBEAT_SERVICE_URL.",
    )
}

/// Gets the run, with the agent's own client.
async fn run(settings: &Settings<'_>, limit: Duration) -> Finding {
    let Some(token) = &settings.token else {
        return Finding::because(RUN, super::SOURCE);
    };
    let Some(run_id) = settings.run_id else {
        return Finding::because(RUN, "settings.TASK_RUN_ID");
    };
    let (route, tls) = (settings.url.route().clone(), settings.tls.clone());
    let client = blocking(limit, move || Client::new(route, &tls, limit)).await;
    let got = match client {
        Some(Ok(client)) => client.status(run_id, token, limit).await,
        Some(Err(error)) => Err(error),
        None => {
            let seen = format!("cannot read the TLS files within {}", in_words(limit));
            return Finding::failed(RUN, seen, "Check whether their volumes respond.");
        }
    };
    match got {
        Ok(status) => shown(status.as_ref()),
        Err(error) => Finding::failed(RUN, seen(&error), advice(&error)),
    }
}

fn shown(status: Option<&TaskRunStatus>) -> Finding {
    let Some(status) = status else {
        return Finding::ok(RUN, "the run exists; the service shows no status");
    };
    if status.is_over() {
        return Finding::warning(
            RUN,
            format!("the run has already ended: {status}"),
            "The service does not accept heartbeats of an ended run. Check that TASK_RUN_ID is the run of this pod. If the run was \
             aborted or timed out, there is nothing more to do for this pod.",
        );
    }
    Finding::ok(RUN, format!("the run is {status}"))
}

fn seen(error: &Error) -> String {
    let Error::Status {
        status, response, ..
    } = error
    else {
        return told(error);
    };
    // Without the client's own advice, because the remedy contains that.
    let said = response.iter().flat_map(|said| [&said.code, &said.message]);
    let said: String = said.flatten().map(|part| format!(": {part}")).collect();
    format!("the service answered {status}{said}")
}

fn advice(error: &Error) -> &'static str {
    match error {
        Error::Status {
            status, response, ..
        } => match status {
            300..=399 => {
                "The service redirects, and podbeat does not send the token to another URL. Check the scheme, the host and the path in \
                 PODBEAT_SERVICE_URL."
            }
            401 => {
                "The service does not accept the token. Check that the token is complete, and not from another environment. Write a new \
                 token to PODBEAT_TOKEN_FILE (in a cluster: to the Secret podbeat-token). podbeat reads the file again when it \
                 changes."
            }
            403 => {
                "The token is valid, but not for this run. It must belong to the run's tenant, and have permission to get the run and to \
                 send its heartbeats. If the token is only for heartbeats, ignore this result."
            }
            404 | 410 if response.is_some() => {
                "The run does not exist. Check TASK_RUN_ID (in a cluster: the pod's annotation podbeat.dev/task-run-id), and that the run \
                 belongs to the token's tenant and to this environment."
            }
            404 | 410 => {
                "This is not the service's own answer for a run that does not exist. Check the host and the path in PODBEAT_SERVICE_URL \
                 (without /v1/tasks/runs). If they are correct, check TASK_RUN_ID."
            }
            408 | 425 | 429 | 500..=599 => {
                "The service has a problem, or is overloaded. podbeat would retry. If the problem persists, contact the operator of the service."
            }
            _ => "Check that PODBEAT_SERVICE_URL is the URL of the task-run service.",
        },
        Error::Unreadable { .. } | Error::Endless { .. } => {
            "The answer is not from the task-run service. Check the host and the path in PODBEAT_SERVICE_URL."
        }
        Error::Unfit { .. } => "TASK_RUN_ID is not a valid run ID.",
        Error::Ambiguous { .. } => {
            "The connection works, but there was no complete answer: the service, or a proxy on the path, is too slow or broken. \
             The agent itself waits for an answer as long as PODBEAT_TIMEOUT."
        }
        Error::Connect { .. } => "See service.dns, service.tcp and service.tls.",
        Error::Setup(_) | Error::File { .. } | Error::NotInFile { .. } | Error::Token(_) => {
            "See settings.files and token.source."
        }
    }
}

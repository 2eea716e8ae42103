//! What podbeat's two HTTP clients have in common: the one for the service and the one for the API server.
//! Never here: roots, tokens, proxies, where a client goes.

use std::time::Duration;

use reqwest::ClientBuilder;

/// The most header fields that a response may have. hyper's default is 100, which proxies that add fields exceed. hyper sets memory aside
/// for so many while it reads a head: with 2000, each copy took 0.2 MiB more.
const MOST_FIELDS: usize = 512;

/// A client that makes one request at a time over a connection that is kept, follows no redirect, and tries nothing again on its own.
pub(crate) fn builder() -> ClientBuilder {
    // The ring provider for the whole process, kube included; it is no error if that was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new()
        .user_agent(crate::USER_AGENT)
        // A redirect must not carry the token away.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_max_idle_per_host(1)
        .tcp_keepalive(Duration::from_secs(60))
        // A response whose head is odd is a response, as it is for curl. Otherwise podbeat would repeat an accepted heartbeat until its
        // deadline, and then report that it was not delivered.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .http1_max_headers(MOST_FIELDS)
}

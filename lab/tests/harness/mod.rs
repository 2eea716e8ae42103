//! Shared code of the stand-ins' tests.
//! Never here: code that only one test needs.

use reqwest::ClientBuilder;

/// The token of the services with a page.
pub(crate) const TOKEN: &str = "a-token-7f3a";

/// A client that ignores proxies in the environment.
pub(crate) fn client() -> ClientBuilder {
    // The provider is for the whole process; the first caller sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new().no_proxy()
}

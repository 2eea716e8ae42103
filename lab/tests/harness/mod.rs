//! Shared code of the stand-ins' tests.
//! Never here: code that only one test needs.

use reqwest::ClientBuilder;

/// A client that ignores proxies in the environment.
pub(crate) fn client() -> ClientBuilder {
    // The provider is for the whole process; the first caller sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new().no_proxy()
}

//! What tests of the stand-ins share.
//! Never here: what one test alone needs.

use reqwest::ClientBuilder;

/// The token of the services that have a page.
pub(crate) const TOKEN: &str = "a-token-7f3a";

/// A client that goes straight to the stand-ins, whatever proxy the environment names.
pub(crate) fn client() -> ClientBuilder {
    // It holds for the whole process; the first caller sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new().no_proxy()
}

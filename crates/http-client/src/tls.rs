//! TLS settings of a client: its roots, and its own certificate.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::route::{Proxy, Route};

/// How the connections of a route are encrypted.
#[derive(Default)]
pub struct Encryption {
    /// `None` only if the destination uses plain HTTP.
    pub to_destination: Option<Arc<ClientConfig>>,
    /// The name in the destination's certificate, if it differs from the host.
    pub server_name: Option<String>,
    /// `None` only if no proxy uses TLS.
    pub to_proxy: Option<Arc<ClientConfig>>,
}

impl Encryption {
    /// Returns the encryption that a route needs. A proxy is verified with the system's roots and
    /// those of its destination. It does not get our client certificate.
    ///
    /// # Errors
    /// There are no roots for the proxy, or `to_destination` fails.
    pub fn new<E: From<Unfit>>(
        route: &Route,
        to_destination: impl FnOnce() -> Result<ClientConfig, E>,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, E> {
        let to_destination = match route.is_encrypted() {
            true => Some(Arc::new(to_destination()?)),
            false => None,
        };
        Ok(Self {
            to_destination,
            server_name: None,
            to_proxy: to_proxy(route, roots)?,
        })
    }
}

/// Returns the TLS settings for the proxy of a route, if the proxy uses TLS.
///
/// # Errors
/// There are no roots.
pub fn to_proxy(
    route: &Route,
    roots: &[CertificateDer<'static>],
) -> Result<Option<Arc<ClientConfig>>, Unfit> {
    if !route.proxy().is_some_and(Proxy::is_encrypted) {
        return Ok(None);
    }
    let provider = provider();
    let verifier = Verifier::new_with_extra_roots(roots.to_vec(), Arc::clone(&provider));
    let means = Means {
        verifier: Arc::new(verifier.map_err(Unfit::Roots)?),
        identity: None,
        provider,
    };
    Ok(Some(Arc::new(means.config()?)))
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The roots can't be used, or there are none.
    #[error(
        "no usable root certificates; check that the CA file contains CA certificates, \
         or that the system has root certificates"
    )]
    Roots(#[source] Error),
    /// The client's certificate and key can't be used.
    #[error("the client certificate and key cannot be used; check that they belong together")]
    Identity(#[source] Error),
    /// The client's key can't be used. ring signs with fewer kinds of keys than it verifies.
    #[error(
        "the client key cannot be used; it must be RSA of 2048 to 4096 bits, ECDSA on P-256 \
         or P-384, or Ed25519, not encrypted"
    )]
    Key,
}

/// Roots, and the client's certificate.
pub struct Means {
    /// Verifies the peer.
    pub verifier: Arc<dyn ServerCertVerifier>,
    /// The client certificate, sent if the peer asks for it.
    pub identity: Option<Arc<CertifiedKey>>,
    /// The cryptography.
    pub provider: Arc<CryptoProvider>,
}

impl Means {
    /// Uses these roots, or the system's if there are none.
    ///
    /// # Errors
    /// The roots, or the certificate and the key, can't be used.
    pub fn new(
        roots: Option<Vec<CertificateDer<'static>>>,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, Unfit> {
        let provider = provider();
        let verifier: Arc<dyn ServerCertVerifier> = match roots {
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate).map_err(Unfit::Roots)?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|error| Unfit::Roots(Error::General(error.to_string())))?
            }
            None => Arc::new(Verifier::new(Arc::clone(&provider)).map_err(Unfit::Roots)?),
        };
        let identity = match identity {
            Some((chain, key)) => {
                let key = provider.key_provider.load_private_key(key);
                let identity = CertifiedKey::new(chain, key.map_err(|_| Unfit::Key)?);
                match identity.keys_match() {
                    Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                        Some(Arc::new(identity))
                    }
                    Err(error) => return Err(Unfit::Identity(error)),
                }
            }
            None => None,
        };
        Ok(Self {
            verifier,
            identity,
            provider,
        })
    }

    /// Returns the configuration for rustls.
    ///
    /// # Errors
    /// The provider supports no safe version of TLS.
    pub fn config(self) -> Result<ClientConfig, Unfit> {
        let config = ClientConfig::builder_with_provider(self.provider)
            .with_safe_default_protocol_versions()
            .map_err(Unfit::Roots)?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier);
        Ok(speaking_http(match self.identity {
            Some(identity) => config.with_client_cert_resolver(Arc::new(Shows(identity))),
            None => config.with_no_client_auth(),
        }))
    }
}

/// Offers HTTP/1.1 in ALPN.
pub fn speaking_http(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

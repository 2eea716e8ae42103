//! The server's certificate, which is read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use podbeat_files::{regular_file, trimmed};
use tokio_rustls::rustls;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// Why the certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("cannot read {what} {}; check its path and permissions", path.display())]
    File {
        /// Which file.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file does not contain what it should.
    #[error("{} contains no {what} in PEM", path.display())]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The file's path.
        path: PathBuf,
    },
    /// The key is not usable, or not the certificate's.
    #[error(
        "cannot use the key {} with the certificate {}; check that they belong together",
        key.display(), certificate.display()
    )]
    Unusable {
        /// The certificate's path.
        certificate: PathBuf,
        /// The key's path.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate chain and its key.
#[derive(Debug)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// A file can't be read, or the key is not the certificate's.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let provider = Arc::new(ring::default_provider());
        let current = read(certificate, key, &provider)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            provider,
            current: RwLock::new(Arc::new(current)),
        })
    }

    /// Reads both files again. If there is another certificate, new connections get it. Returns
    /// whether there is.
    ///
    /// # Errors
    /// As for [`Self::load`]. The server continues with the earlier certificate.
    pub fn reload(&self) -> Result<bool, Error> {
        let fresh = read(&self.certificate, &self.key, &self.provider)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = current.cert != fresh.cert;
        *current = Arc::new(fresh);
        Ok(is_other)
    }

    /// The server's own certificate, in DER.
    #[must_use]
    pub fn own(&self) -> Option<Vec<u8>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.cert.first().map(|own| own.to_vec())
    }

    /// A configuration for TLS 1.2 and 1.3 with this certificate.
    ///
    /// # Errors
    /// The library does not support these versions with its algorithms.
    pub fn config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth();
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let file = |what, path: &Path| {
        let pem = regular_file::read(path, regular_file::PEM).map_err(|source| Error::File {
            what,
            path: path.to_owned(),
            source,
        })?;
        Ok(trimmed::pem(&pem))
    };
    let missing = |what, path: &Path| Error::Missing {
        what,
        path: path.to_owned(),
    };
    let chain = file("the certificate", certificate)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<_, _>>()
        .map_err(|_| missing("certificate", certificate))?;
    if chain.is_empty() {
        return Err(missing("certificate", certificate));
    }
    let key_pem = file("the key", key)?;
    let key_der = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|_| missing("unencrypted private key", key))?;
    CertifiedKey::from_der(chain, key_der, provider).map_err(|source| Error::Unusable {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use podbeat_lab::pki::Authority;

    use super::*;

    #[test]
    fn a_renewed_certificate_is_used_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        let authority = Authority::new().expect("an authority");
        let issue = || {
            let issued = authority.issue(&["localhost"]).expect("issued");
            std::fs::write(&certificate, &issued.certificate).expect("written");
            std::fs::write(&key, &issued.key).expect("written");
        };
        issue();
        let identity = Arc::new(Identity::load(&certificate, &key).expect("an identity"));
        let first = identity.own();
        assert!(identity.config().is_ok());
        assert!(!identity.reload().expect("the same"));
        issue();
        assert!(identity.reload().expect("another"));
        let second = identity.own();
        assert_ne!(first, second);
        let good = std::fs::read(&key).expect("read");
        for (text, expected) in [
            ("", "contains no unencrypted private key"),
            ("hunter2", "contains no unencrypted private key"),
            (
                &authority.issue(&["x"]).expect("issued").key,
                "belong together",
            ),
        ] {
            std::fs::write(&key, text).expect("written");
            let error = identity.reload().expect_err("refused").to_string();
            assert!(
                error.contains(expected) && !error.contains("hunter2"),
                "{error}"
            );
            assert_eq!(identity.own(), second);
        }
        std::fs::write(&key, good).expect("written");
        std::fs::write(&certificate, "").expect("written");
        assert!(matches!(identity.reload(), Err(Error::Missing { .. })));
        std::fs::remove_file(&certificate).expect("removed");
        assert!(matches!(identity.reload(), Err(Error::File { .. })));
    }
}

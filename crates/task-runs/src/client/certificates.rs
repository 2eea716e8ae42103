//! The certificates that the client reads from files.

use std::path::{Path, PathBuf};

use podbeat_files::{regular_file, trimmed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;

/// How to verify the service's certificate, and the client's own certificate.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// A PEM file with root certificates. They replace the system's roots, which are then not read;
    /// those would take a quarter of a megabyte in each copy.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain and its key: two PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Reads the roots of `ca_file`.
    ///
    /// # Errors
    /// The file can't be read, or contains no certificate.
    pub fn roots(&self) -> Result<Option<Vec<CertificateDer<'static>>>, Error> {
        let Some(path) = &self.ca_file else {
            return Ok(None);
        };
        certificates(&read("CA certificates", path)?, path).map(Some)
    }

    /// Reads the client's certificate chain and its key. Each may be in either file.
    ///
    /// # Errors
    /// A file can't be read, or there is no certificate or no unencrypted key in them.
    pub fn own(&self) -> Result<Option<Identity>, Error> {
        let Some((certificate, key)) = &self.identity else {
            return Ok(None);
        };
        let mut pem = read("the client certificate", certificate)?;
        pem.push(b'\n');
        pem.extend(read("the client key", key)?);
        let chain = certificates(&pem, certificate)?;
        let no_key = |_| Error::NotInFile {
            what: "unencrypted private key",
            path: key.to_owned(),
        };
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(no_key)?;
        Ok(Some((chain, key)))
    }
}

/// A certificate chain and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let pem = regular_file::read(path, regular_file::PEM).map_err(|source| Error::File {
        what,
        path: path.to_owned(),
        source,
    })?;
    Ok(trimmed::pem(&pem))
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let no_certificate = || Error::NotInFile {
        what: "certificate",
        path: path.to_owned(),
    };
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(no_certificate)
}

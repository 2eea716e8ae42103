//! A certificate authority, and the certificates that it issues.

use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::{Error, io};

/// A certificate authority that exists as long as its owner.
pub struct Authority {
    pem: String,
    certificate_der: rustls::pki_types::CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate and its key.
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: String,
    /// The private key, PEM.
    pub key: String,
    certificate_der: rustls::pki_types::CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    /// Creates an authority.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Self, Error> {
        Self::named("podbeat lab")
    }

    /// Creates an authority with another name.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn named(name: &str) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = named(name, &[]);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            certificate_der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes the authority's certificate to a file.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_to(&self, path: &Path) -> Result<(), Error> {
        std::fs::write(path, &self.pem).map_err(io(format!("writing {}", path.display())))
    }

    /// Issues a certificate for a server (and client) with these DNS names and IP addresses.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an IP address.
    pub fn issue(&self, names: &[&str]) -> Result<Identity, Error> {
        self.issue_for(names, None)
    }

    /// Issues a certificate that is valid from the first date to the second.
    ///
    /// # Errors
    /// A name is neither a DNS name nor an IP address.
    pub fn issue_for(
        &self,
        names: &[&str],
        holds: Option<(Date, Date)>,
    ) -> Result<Identity, Error> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names)?;
        if let Some((from, until)) = holds {
            let day = |date: Date| {
                let part = |part: i8| u8::try_from(part).unwrap_or(1);
                rcgen::date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
            };
            (params.not_before, params.not_after) = (day(from), day(until));
        }
        self.sign(params, &common_name, &[])
    }

    /// Issues a client certificate with this common name and these organizations. Kubernetes reads
    /// users and groups from them.
    ///
    /// # Errors
    /// The names can't be encoded.
    pub fn issue_client(
        &self,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<Identity, Error> {
        self.sign(CertificateParams::default(), common_name, organizations)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<Identity, Error> {
        params.distinguished_name = named(common_name, organizations);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            certificate_der: certificate.der().clone(),
            key_der: key.serialize_der(),
        })
    }
}

impl Identity {
    /// The certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// TLS settings for a server with this identity, with the ring provider. Clients need no
    /// certificate, unless `clients` names the authority that must have signed theirs.
    ///
    /// # Errors
    /// Certificate and key don't match, or the authority's certificate is not a valid root.
    pub fn server_config(&self, clients: Option<&Authority>) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate_der.clone())?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .map_err(|problem| rustls::Error::General(problem.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        Ok(Arc::new(builder.with_single_cert(
            vec![self.certificate_der.clone()],
            key,
        )?))
    }
}

fn named(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    // Here a distinguished name has one value per type: of several organizations, only the last one
    // remains.
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

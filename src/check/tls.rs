//! Makes one TLS handshake with the service, like its client, and records the certificates that the
//! service presents.
//!
//! The verifier's decision is final: if it rejects the chain, the handshake ends, and podbeat never
//! sends anything over that connection.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use podbeat_http_client as http_client;
use podbeat_http_client::Stream;
use podbeat_http_client::rejected::{ACCEPTED, Rejected};
use podbeat_http_client::tls::{Unfit, speaking_http};
use podbeat_task_runs::client::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error,
    ProtocolVersion, SignatureScheme,
};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::token::about;
use podbeat_interface::certificate::{self, Certificate};
use podbeat_interface::finding::Finding;

pub(super) const ID: &str = "service.tls";

/// The maximum number of a certificate's names to show.
const NAMES: usize = 6;

/// The result of a handshake.
pub(super) struct Handshake {
    /// The encrypted and verified connection, or the error.
    pub(super) stream: Result<TlsStream<Box<dyn Stream>>, io::Error>,
    /// The presented chain, with the service's own certificate first.
    presented: Vec<CertificateDer<'static>>,
    /// Whether the service requested a client certificate.
    pub(super) asked: bool,
}

/// A client's configuration for handshakes: its roots and its certificate.
pub(super) struct Means {
    clients: http_client::tls::Means,
    /// The roots from `PODBEAT_CA_FILE`.
    roots: Vec<CertificateDer<'static>>,
}

/// Why the configured files are not usable for TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    Files(#[from] podbeat_task_runs::error::Error),
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl Means {
    /// Reads the files.
    pub(super) fn load(tls: &Tls) -> Result<(Self, Option<Certificate>), Unusable> {
        let roots = tls.roots()?;
        let identity = tls.own()?;
        let first = identity.as_ref().and_then(|(chain, _)| chain.first());
        let own = first.and_then(|first| certificate::read(first));
        let means = Self {
            clients: http_client::tls::Means::new(roots.clone(), identity)?,
            roots: roots.unwrap_or_default(),
        };
        Ok((means, own))
    }

    pub(super) fn shows_a_certificate(&self) -> bool {
        self.clients.identity.is_some()
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Makes the handshake. Dropping the future closes the connection.
    pub(super) async fn shake_hands(
        &self,
        stream: Box<dyn Stream>,
        host: &ServerName<'static>,
    ) -> Handshake {
        let recorder = Arc::new(Recorder {
            real: Arc::clone(&self.clients.verifier),
            presented: Mutex::default(),
        });
        let shown = Arc::new(Shown {
            identity: self.clients.identity.clone(),
            asked: AtomicBool::new(false),
        });
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.clients.provider))
            .with_safe_default_protocol_versions();
        let stream = match config {
            Ok(config) => {
                let config = config
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::<Recorder>::clone(&recorder))
                    .with_client_cert_resolver(Arc::<Shown>::clone(&shown));
                let connector = TlsConnector::from(Arc::new(speaking_http(config)));
                connector.connect(host.clone(), stream).await
            }
            Err(error) => Err(io::Error::other(error)),
        };
        let presented = std::mem::take(
            &mut *recorder
                .presented
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        Handshake {
            stream,
            presented,
            asked: shown.asked.load(Ordering::Relaxed),
        }
    }
}

/// Records the presented chain, and returns the decision of the real verifier.
#[derive(Debug)]
struct Recorder {
    real: Arc<dyn ServerCertVerifier>,
    presented: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = std::iter::once(end_entity).chain(intermediates);
        let all = all
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        *self
            .presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = all;
        self.real
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.real
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.real
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.real.supported_verify_schemes()
    }
}

/// Presents the client certificate, if there is one, and records whether the server requested it.
/// In TLS 1.3, the handshake ends for the client before the server checks the client's certificate.
#[derive(Debug)]
struct Shown {
    identity: Option<Arc<CertifiedKey>>,
    asked: AtomicBool,
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.identity.clone()
    }

    /// Otherwise rustls would not call `resolve`.
    fn has_certs(&self) -> bool {
        true
    }
}

/// Finds rustls' error among the causes of an error.
pub(super) fn cause<'error>(
    error: &'error (dyn std::error::Error + 'static),
) -> Option<&'error Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        if let Some(rejected) = error.downcast_ref::<Rejected>() {
            return Some(&rejected.error);
        }
        // The source of an io::Error is the source of the wrapped error, not the wrapped error
        // itself.
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// The other side of the handshake.
pub(super) struct Peer<'peer> {
    pub(super) host: &'peer str,
    pub(super) name: &'peer ServerName<'static>,
    pub(super) port: u16,
    /// Whether the settings have a client certificate.
    pub(super) shows_a_certificate: bool,
    /// The roots from `PODBEAT_CA_FILE`.
    pub(super) roots: &'peer [CertificateDer<'static>],
}

/// Judges a handshake.
pub(super) fn judge(handshake: &Handshake, peer: &Peer<'_>, now: Timestamp) -> Finding {
    let read = handshake
        .presented
        .first()
        .and_then(|own| certificate::read(own));
    match &handshake.stream {
        Ok(stream) => {
            let version = match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
                _ => "TLS 1.3",
            };
            accepted(version, read.as_ref(), now)
        }
        Err(error) => refused(error, handshake, read.as_ref(), peer, now),
    }
}

fn accepted(version: &str, certificate: Option<&Certificate>, now: Timestamp) -> Finding {
    let Some(certificate) = certificate else {
        return Finding::ok(
            ID,
            format!("{version}; podbeat cannot read the certificate"),
        );
    };
    let left = certificate.not_after.duration_since(now);
    let seen = format!(
        "{version}; certificate for {}; issued by {}; valid until {}, for {}",
        listed(&certificate.names),
        certificate.issuer,
        certificate.not_after,
        about(left)
    );
    if left < certificate::NEAR {
        return Finding::warning(
            ID,
            seen,
            "The operator of the task-run service should renew its certificate. After it expires, podbeat cannot send heartbeats.",
        );
    }
    Finding::ok(ID, seen)
}

fn refused(
    error: &io::Error,
    handshake: &Handshake,
    certificate: Option<&Certificate>,
    peer: &Peer<'_>,
    now: Timestamp,
) -> Finding {
    let Peer { host, port, .. } = peer;
    let tls = cause(error);
    let rejected = tls.and_then(Rejected::new);
    if let Some(alert) = tls.and_then(alert).filter(|_| handshake.asked) {
        return certificate_demanded(alert, peer.shows_a_certificate);
    }
    if let (Some(Error::InvalidCertificate(verdict)), Some(certificate)) = (tls, certificate) {
        let mut seen = Vec::new();
        let mut remedies = Vec::new();
        let weak = || {
            let mut all = handshake.presented.iter().chain(peer.roots);
            all.find_map(|it| {
                let it = certificate::read(it)?;
                Some((it.subject, it.weak_key?))
            })
        };
        let (over, early) = (certificate.not_after < now, certificate.not_before > now);
        let unknown = match verdict {
            CertificateError::UnknownIssuer => Some(""),
            CertificateError::BadSignature => match weak() {
                Some((owner, key)) => {
                    seen.push(format!("the key of {owner} is not supported: {key}"));
                    remedies.push(format!(
                        "The operator of the task-run service must replace that key, and issue the certificate again, with {ACCEPTED}."
                    ));
                    None
                }
                // The roots contain a CA with that name.
                None => {
                    Some(", but not signed with the key of the CA of that name that podbeat has")
                }
            },
            _ => None,
        };
        if let Some(how) = unknown {
            let root = handshake
                .presented
                .last()
                .and_then(|last| certificate::read(last));
            let root = root.map_or_else(|| certificate.issuer.clone(), |root| root.issuer);
            seen.push(format!(
                "unknown CA: the certificate is issued by {}{how}",
                certificate.issuer
            ));
            remedies.push(format!(
                "If the service and the CA ({root}) are correct, set PODBEAT_CA_FILE to a PEM file with the CA's certificate (in a \
                 cluster: the ConfigMap podbeat-ca). It replaces the system's roots. If the file already contains this CA, the service \
                 does not send an intermediate certificate, or the CA has a new key."
            ));
        }
        let parsed = handshake
            .presented
            .first()
            .and_then(|own| ParsedCertificate::try_from(own).ok());
        if parsed.is_some_and(|parsed| verify_server_name(&parsed, peer.name).is_err()) {
            seen.push(format!(
                "name mismatch: the certificate is for {}, not for {host}",
                listed(&certificate.names)
            ));
            remedies.push(
                "Use a host from the certificate in PODBEAT_SERVICE_URL, or give the service a certificate for this host. Or another \
                 server answers there."
                    .to_owned(),
            );
        }
        if over || early {
            seen.push(match over {
                true => format!(
                    "expired: the certificate was valid until {}, {} ago",
                    certificate.not_after,
                    about(now.duration_since(certificate.not_after))
                ),
                false => format!(
                    "not yet valid: the certificate is valid from {}, in {}",
                    certificate.not_before,
                    about(certificate.not_before.duration_since(now))
                ),
            });
            remedies.push(
                "The operator of the task-run service must renew its certificate, unless the clock of this node is wrong (see \
                 clock.kubernetes)."
                    .to_owned(),
            );
        }
        if seen.is_empty() {
            let problem = rejected
                .as_ref()
                .map_or_else(|| verdict.to_string(), |it| it.problem.clone());
            seen.push(format!(
                "the certificate of {}, issued by {}, is rejected: {problem}",
                certificate.subject, certificate.issuer
            ));
            let remedy = rejected.map_or_else(
                || "give it a certificate for TLS servers (extendedKeyUsage serverAuth)".to_owned(),
                |it| it.remedy,
            );
            remedies.push(format!(
                "The operator of the task-run service must {remedy}."
            ));
        }
        return Finding::failed(ID, seen.join("; "), remedies.join("\n"));
    }
    if let Some(rejected) = rejected {
        let remedy = format!(
            "The operator of the task-run service must {}.",
            rejected.remedy
        );
        return Finding::failed(ID, rejected.problem, remedy);
    }
    match tls {
        Some(Error::InvalidMessage(_)) => Finding::failed(
            ID,
            format!("not TLS: port {port} of {host} uses another protocol, perhaps plain HTTP"),
            "Check the port in PODBEAT_SERVICE_URL. For a service with plain HTTP, use a URL with http://, and set \
             PODBEAT_ALLOW_HTTP=true unless the host is loopback. podbeat then sends the token unencrypted.",
        ),
        Some(error) => Finding::failed(
            ID,
            format!("the TLS handshake with {host} failed: {error}"),
            "Check that the service supports TLS 1.2 or 1.3, with a certificate for its name, and that nothing on the path breaks TLS.",
        ),
        None => Finding::failed(
            ID,
            format!("the TLS handshake with {host} broke off: {error}"),
            "Check the port and the scheme in PODBEAT_SERVICE_URL. A firewall, a proxy or a service mesh on the path may also close \
             connections.",
        ),
    }
}

/// Returns the alert with which a server rejects the client certificate, or requires one. Servers
/// use different alerts for this (RFC 8446, 6.2, names nine).
pub(super) fn alert(error: &Error) -> Option<AlertDescription> {
    match error {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

pub(super) fn certificate_demanded(alert: AlertDescription, shows_a_certificate: bool) -> Finding {
    if shows_a_certificate {
        return Finding::failed(
            ID,
            format!("the service does not accept the client certificate ({alert:?})"),
            "Set PODBEAT_CLIENT_CERT_FILE and PODBEAT_CLIENT_KEY_FILE to a valid certificate, with its chain, from a CA that the \
             service trusts, and to its key.",
        );
    }
    Finding::failed(
        ID,
        format!("the service requires a client certificate ({alert:?})"),
        "Set PODBEAT_CLIENT_CERT_FILE and PODBEAT_CLIENT_KEY_FILE to a certificate, with its chain, from a CA that the service \
         trusts, and to its key.",
    )
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no name".to_owned();
    }
    let shown = names
        .iter()
        .take(NAMES)
        .map(String::as_str)
        .collect::<Vec<_>>();
    let shown = shown.join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

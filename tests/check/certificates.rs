//! Certificates that ring or webpki reject: `check`, `runs` and the agent's log name the algorithm
//! or the problem, and a remedy.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use podbeat_lab::world::{TOKEN, World};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;

use super::faults::{BEHIND_TLS, says};
use super::{Settings, check, set, set_path, settings, world};
use crate::harness::binary::{ended, podbeat};
use crate::harness::listener::Listener;
use crate::harness::{repository, unused_port};

/// Name, problem and remedy of each certificate in tests/certificates that a server with rustls can
/// present.
const REJECTED: [(&str, &str, &str); 10] = [
    (
        "p521-ca",
        "signed with ECDSA with SHA-512, which is not supported",
        "issue the certificate again, with RSA of 2048 to 8192 bits, ECDSA on P-256 or P-384",
    ),
    (
        "p521-ca-sha256",
        "signed with ECDSA with SHA-256 by a key of the kind ECDSA on P-521, which is not supported",
        "issue the certificate again, with",
    ),
    (
        "p384-ca-sha512",
        "signed with ECDSA with SHA-512, which is not supported",
        "issue the certificate again, with",
    ),
    (
        "ed448-ca",
        "signed with Ed448, which is not supported",
        "issue the certificate again, with",
    ),
    (
        "sha1",
        "signed with RSA with SHA-1, which is not supported",
        "issue the certificate again, with",
    ),
    (
        "ca-as-server",
        "the server's certificate is a CA's (basicConstraints CA:TRUE)",
        "issue a certificate for the server with that CA, without CA:TRUE, and trust the CA",
    ),
    (
        "version-1",
        "is of X.509 version 1 or 2",
        "issue it again as version 3, with the server's names in subjectAltName",
    ),
    (
        "for-clients",
        "does not allow extended key usage for server authentication",
        "extendedKeyUsage serverAuth",
    ),
    (
        "other-names",
        "a CA of the chain may not issue certificates for this name (nameConstraints)",
        "issue it with a CA that may",
    ),
    (
        "critical",
        "has a critical extension that is not supported",
        "without marking it as critical",
    ),
];

fn file(name: &str) -> PathBuf {
    repository::root().join(format!("tests/certificates/{name}.pem"))
}

/// Presents a certificate without checking it.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesServerCert for Presents {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

async fn server(name: &str) -> Listener {
    let pem = std::fs::read(file(name)).expect("read");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(&pem).expect("a key");
    let key = provider
        .key_provider
        .load_private_key(key)
        .expect("a key for ring");
    let certificate = CertificateDer::from_pem_slice(&pem).expect("a certificate");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Presents(Arc::new(CertifiedKey::new(
            vec![certificate],
            key,
        )))));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Listener::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            acceptor.accept(stream).await.ok();
        }
    })
    .await
}

fn with(world: &World, port: u16, ca: &Path) -> Settings {
    let mut settings = settings(world);
    set(
        &mut settings,
        "PODBEAT_SERVICE_URL",
        format!("https://127.0.0.1:{port}"),
    );
    set_path(&mut settings, "PODBEAT_CA_FILE", ca);
    settings
}

/// The output of `runs get`.
async fn runs_get(port: u16, ca: &Path) -> String {
    let url = format!("https://127.0.0.1:{port}");
    let mut command = podbeat();
    command
        .args(["runs", "get", "trn.1", "--service-url", &url, "--ca-file"])
        .arg(ca)
        .env("PODBEAT_TOKEN", TOKEN);
    let ended = ended(&mut command).await;
    assert_ne!(ended.code, 0, "{ended:?}");
    ended.notes
}

#[tokio::test]
async fn each_is_named_with_a_remedy() {
    let world = world().await;
    for (name, problem, remedy) in REJECTED {
        let server = server(name).await;
        let ca = file(&format!("{name}-ca"));
        let checked = check(&with(&world, server.port, &ca)).await;
        checked.differs_by(&BEHIND_TLS);
        says(&checked, "service.tls", problem, remedy);
        let printed = runs_get(server.port, &ca).await;
        assert!(printed.contains(problem), "{name}: {printed}");
        // For a certificate for clients, runs prints the text of rustls, which has no remedy.
        assert!(
            name == "for-clients" || printed.contains(remedy),
            "{name}: {printed}"
        );
        assert!(!printed.contains("Context {"), "{name}: {printed}");
    }
}

#[tokio::test]
async fn a_key_that_is_too_short_is_not_reported_as_another_ca() {
    let world = world().await;
    let server = server("rsa-1024-ca").await;
    let ca = file("rsa-1024-ca-ca");
    let checked = check(&with(&world, server.port, &ca)).await;
    checked.differs_by(&BEHIND_TLS);
    says(
        &checked,
        "service.tls",
        "the key of CN=rsa-1024-ca CA is not supported: RSA of 1024 bits",
        "must replace that key",
    );
    let printed = runs_get(server.port, &ca).await;
    assert!(
        printed.contains("or with an RSA key of fewer than 2048 bits"),
        "{printed}"
    );
}

/// A server whose only key is on P-521 ends the handshake before it presents anything.
#[tokio::test]
async fn a_server_that_refuses_the_handshake() {
    let world = world().await;
    let server = Listener::start(|mut stream| async move {
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.ok();
        // alert, fatal, handshake_failure (RFC 8446, 6.2)
        stream
            .write_all(&[0x15, 0x03, 0x03, 0, 2, 2, 40])
            .await
            .ok();
        // Reads on, so that the connection is not reset before the client reads the alert.
        tokio::io::copy(&mut stream, &mut tokio::io::sink())
            .await
            .ok();
    })
    .await;
    refused_handshake(&world, server.port, &file("p521-server-ca")).await;
}

async fn refused_handshake(world: &World, port: u16, ca: &Path) {
    let (problem, remedy) = (
        "the server ended the TLS handshake (HandshakeFailure)",
        "give it a certificate whose key is accepted here",
    );
    let checked = check(&with(world, port, ca)).await;
    checked.differs_by(&BEHIND_TLS);
    says(&checked, "service.tls", problem, remedy);
    let printed = runs_get(port, ca).await;
    assert!(
        printed.contains(problem) && printed.contains("P-521"),
        "{printed}"
    );
}

/// Our own certificate is part of the settings.
#[tokio::test]
async fn a_client_certificate_with_a_key_that_ring_does_not_sign_with() {
    let world = world().await;
    let mut settings = settings(&world);
    for variable in ["PODBEAT_CLIENT_CERT_FILE", "PODBEAT_CLIENT_KEY_FILE"] {
        set_path(&mut settings, variable, &file("p521-server"));
    }
    let checked = check(&settings).await;
    let seen = checked.seen("settings.files");
    assert!(
        seen.contains("must be RSA of 2048 to 4096 bits, ECDSA on P-256 or P-384, or Ed25519"),
        "{seen}"
    );
}

/// OpenSSL itself presents all of them, and the one that no other server here can present.
#[tokio::test]
#[ignore = "needs openssl: just proxy-test"]
async fn real_openssl() {
    let world = world().await;
    for (name, problem, remedy) in REJECTED {
        let server = OpenSsl::start(name).await;
        let ca = file(&format!("{name}-ca"));
        let checked = check(&with(&world, server.port, &ca)).await;
        checked.differs_by(&BEHIND_TLS);
        says(&checked, "service.tls", problem, remedy);
    }
    let server = OpenSsl::start("p521-server").await;
    refused_handshake(&world, server.port, &file("p521-server-ca")).await;
}

struct OpenSsl {
    port: u16,
    _child: tokio::process::Child,
}

impl OpenSsl {
    async fn start(name: &str) -> Self {
        let (port, socket) = unused_port();
        drop(socket);
        let mut command = Command::new("openssl");
        command
            .args([
                "s_server",
                "-accept",
                &format!("127.0.0.1:{port}"),
                "-www",
                "-cert",
            ])
            .arg(file(name))
            // OpenSSL would otherwise refuse SHA-1 and short keys.
            .args(["-cipher", "DEFAULT@SECLEVEL=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .expect("openssl");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        while let Some(line) = lines.next_line().await.expect("read") {
            if line.starts_with("ACCEPT") {
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Self {
                    port,
                    _child: child,
                };
            }
        }
        panic!("openssl s_server ended");
    }
}

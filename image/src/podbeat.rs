//! The images that are published: a static program, and in podbeat's the web's root certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pem::{EncodeConfig, LineEnding, Pem};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::elf;
use crate::files::{self, Entry};
use crate::image::{self, Image};

/// A program that has an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The sidecar.
    Podbeat,
    /// The service.
    Server,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Podbeat, Self::Server];

    /// The name of the program and of its image.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Podbeat => "podbeat",
            Self::Server => "podbeat-server",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Podbeat => {
                "Reports the containers of a Kubernetes pod, and how they end, to the task-run service"
            }
            Self::Server => {
                "Serves the Task Runs API, and launches task runs on Kubernetes as Jobs with podbeat"
            }
        }
    }

    /// The licenses of the program, of the C library in it, and of the other files. The SBOM has
    /// those of each component.
    fn licenses(self) -> &'static str {
        match self {
            Self::Podbeat => concat!(
                env!("CARGO_PKG_LICENSE"),
                " AND CDLA-Permissive-2.0 AND LGPL-2.1-or-later"
            ),
            Self::Server => concat!(
                env!("CARGO_PKG_LICENSE"),
                " AND LGPL-2.1-or-later AND blessing"
            ),
        }
    }
}

/// Where podbeat's TLS looks for the system's root certificates first (openssl-probe, through
/// rustls-native-certs).
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why an image of podbeat can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary can't be read.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The binary can't run in this image.
    #[error("can't use {} in the image", path.display())]
    Binary {
        /// The path of the binary.
        path: PathBuf,
        /// The cause.
        #[source]
        source: elf::Error,
    },
    /// The binary is larger than its limit.
    #[error(transparent)]
    Size(#[from] image::Error),
}

/// The image of a program with this binary.
///
/// `created` is in seconds since 1970; `revision` is the commit that it was built from.
///
/// # Errors
/// The binary can't be read, isn't static, is for another machine, or has more than `limit` bytes.
pub fn image(
    of: Program,
    binary: &Path,
    tag: &str,
    created: u64,
    revision: Option<&str>,
    limit: Option<u64>,
) -> Result<Image, Error> {
    let program = std::fs::read(binary).map_err(files::host("reading", binary))?;
    let architecture = elf::check_static(&program).map_err(|source| Error::Binary {
        path: binary.to_owned(),
        source,
    })?;
    if let Some(limit) = limit {
        image::check_size("binary", program.len() as u64, limit)?;
    }
    let path = format!("/{}", of.name());
    let mut entries = vec![Entry::file(&path, 0o755, program)];
    if of == Program::Podbeat {
        entries.push(Entry::file(ROOTS, 0o644, roots()));
    }
    let mut image = Image::new(tag, architecture, entries);
    image.created = created;
    image.entrypoint = vec![path];
    image.labels = labels(of, &image::rfc3339(created)?, revision);
    Ok(image)
}

fn labels(of: Program, created: &str, revision: Option<&str>) -> BTreeMap<String, String> {
    let source = podbeat_published::source();
    let mut labels = BTreeMap::from([
        ("created", created),
        ("title", of.name()),
        ("description", of.description()),
        ("licenses", of.licenses()),
        ("source", &source),
        ("version", env!("CARGO_PKG_VERSION")),
    ]);
    labels.extend(revision.map(|revision| ("revision", revision)));
    labels
        .into_iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
        .collect()
}

/// The first line of the bundle. PEM readers skip it. The license requires that its text is
/// available.
const ABOUT_ROOTS: &str =
    "# Mozilla's roots for servers; CDLA-Permissive-2.0, https://cdla.dev/permissive-2-0/\n";

/// Mozilla's roots for servers, as a PEM bundle. Sorted, so that it doesn't depend on the crate's
/// order.
fn roots() -> String {
    let mut roots: Vec<&[u8]> = TLS_SERVER_ROOT_CERTS.iter().map(AsRef::as_ref).collect();
    roots.sort_unstable();
    let plain = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let mut bundle = ABOUT_ROOTS.to_owned();
    bundle.extend(
        roots
            .into_iter()
            .map(|der| pem::encode_config(&Pem::new("CERTIFICATE", der), plain)),
    );
    bundle
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;
    use crate::elf::tests::program;

    const DOCKERFILE: &str = include_str!("../../Dockerfile");

    fn binary(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn rustls_accepts_each_root() {
        let bundle = roots();
        let found: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let mut store = RootCertStore::empty();
        let (taken, passed_over) = store.add_parsable_certificates(found);
        assert_eq!((taken, passed_over), (TLS_SERVER_ROOT_CERTS.len(), 0));
        assert!(taken > 100);
    }

    #[test]
    fn a_binary_that_can_not_start_is_refused() {
        let dynamic = binary(&program(62, Some("/lib64/ld-linux-x86-64.so.2")));
        let refused =
            image(Program::Podbeat, dynamic.path(), "podbeat:1", 0, None, None).unwrap_err();
        assert!(matches!(
            refused,
            Error::Binary {
                source: elf::Error::Interpreter(_),
                ..
            }
        ));
    }

    #[test]
    fn a_binary_has_a_limit() {
        let small = binary(&program(62, None));
        assert!(
            image(
                Program::Podbeat,
                small.path(),
                "podbeat:1",
                0,
                None,
                Some(64)
            )
            .is_ok()
        );
        let refused = image(
            Program::Server,
            small.path(),
            "podbeat:1",
            0,
            None,
            Some(63),
        )
        .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the binary has 64 bytes; the limit is 63. Find out why it grew"
        );
    }

    #[test]
    fn the_dockerfile_is_equivalent() {
        let small = binary(&program(62, None));
        let image = image(
            Program::Podbeat,
            small.path(),
            "podbeat:1",
            0,
            Some("unknown"),
            None,
        )
        .unwrap();
        for (name, value) in &image.labels {
            let argument = match name.rsplit('.').next().unwrap() {
                "created" => "CREATED",
                "revision" => "REVISION",
                "version" => "VERSION",
                _ => {
                    assert!(
                        DOCKERFILE.contains(&format!("{name}=\"{value}\"")),
                        "{name}"
                    );
                    continue;
                }
            };
            assert!(
                DOCKERFILE.contains(&format!("{name}=\"${{{argument}}}\"")),
                "{name}"
            );
            assert!(
                DOCKERFILE.contains(&format!("\nARG {argument}={value}\n")),
                "{name}"
            );
        }
        let entrypoint = format!("\nENTRYPOINT {:?}\n", image.entrypoint);
        let user = format!("\nUSER {}\n", image.user);
        let rust = format!("RUST_IMAGE=rust:{}-slim-", env!("CARGO_PKG_RUST_VERSION"));
        for text in [entrypoint, user, rust] {
            assert!(DOCKERFILE.contains(&text), "{text}");
        }
    }
}

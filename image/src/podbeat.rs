//! podbeat's own image: the static binary, the roots of the web, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pem::{EncodeConfig, LineEnding, Pem};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::elf;
use crate::files::{self, Entry};
use crate::image::{self, Image};

/// Where podbeat's TLS looks for the system's roots first (openssl-probe, by way of rustls-native-certs).
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why podbeat's image can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binary can't be read.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The binary is not one that runs in this image.
    #[error("{} can't be in the image", path.display())]
    Binary {
        /// The binary.
        path: PathBuf,
        /// Why.
        #[source]
        source: elf::Error,
    },
    /// The binary is larger than is allowed.
    #[error(transparent)]
    Size(#[from] image::Error),
}

/// The image with this binary.
///
/// `created` is in seconds since 1970; `revision` is the commit that it was built from.
///
/// # Errors
/// The binary can't be read, isn't static, is for another machine, or has more than `limit` bytes.
pub fn image(
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
    let entries = vec![
        Entry::file("/podbeat", 0o755, program),
        Entry::file(ROOTS, 0o644, roots()),
    ];
    let mut image = Image::new(tag, architecture, entries);
    image.created = created;
    image.entrypoint = vec!["/podbeat".to_owned()];
    image.labels = labels(revision);
    Ok(image)
}

fn labels(revision: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("title", "podbeat"),
        (
            "description",
            "A sidecar that tells the task-run service how its pod lives and ends",
        ),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("version", env!("CARGO_PKG_VERSION")),
    ]);
    labels.extend(revision.map(|revision| ("revision", revision)));
    labels
        .into_iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value.to_owned()))
        .collect()
}

/// Mozilla's roots for servers, as a PEM bundle. Sorted, so that the crate's order is not ours.
fn roots() -> String {
    let mut roots: Vec<&[u8]> = TLS_SERVER_ROOT_CERTS.iter().map(AsRef::as_ref).collect();
    roots.sort_unstable();
    let plain = EncodeConfig::new().set_line_ending(LineEnding::LF);
    roots
        .into_iter()
        .map(|der| pem::encode_config(&Pem::new("CERTIFICATE", der), plain))
        .collect()
}

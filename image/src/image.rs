//! An image: its files, and how they are run. It is written as an archive of the OCI image layout,
//! with one layer.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::elf::Architecture;
use crate::files::{self, Entry, Tree};
use crate::layout::{self, Descriptor};

/// Why an image can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files are invalid, or can't be written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// The tag is not a valid image name.
    #[error("invalid image tag {0:?}; use NAME:VERSION in lowercase, such as podbeat:0.1.0")]
    Tag(String),
    /// The time is beyond the year 9999.
    #[error("invalid image time: {0} s after 1970")]
    Created(u64),
    /// A document of the layout can't be written as JSON.
    #[error("writing the image's {what} as JSON")]
    Json {
        /// The document.
        what: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The archive can't be packed.
    #[error("packing the image's {what}")]
    Pack {
        /// The part.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file is larger than its limit.
    #[error("the {what} has {size} bytes; the limit is {limit}. Find out why it grew")]
    TooLarge {
        /// The file.
        what: &'static str,
        /// Its size.
        size: u64,
        /// Its limit.
        limit: u64,
    },
}

/// A container image for Linux, with one layer. The same image always has the same bytes.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name for container runtimes, such as `podbeat:0.1.0`.
    pub tag: String,
    /// The machine for which it is.
    pub architecture: Architecture,
    /// The creation time of the image and of all its files, in seconds since 1970.
    pub created: u64,
    /// The user, as `UID:GID`.
    pub user: String,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Labels, which are also annotations of the manifest.
    pub labels: BTreeMap<String, String>,
    /// The files.
    pub entries: Vec<Entry>,
}

/// The sizes of a written image, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The layer's tar stream.
    pub unpacked: usize,
    /// The compressed layer, as a node pulls it.
    pub layer: usize,
    /// The whole archive.
    pub archive: usize,
}

impl Image {
    /// An image with these files, the user 65532, and no program to run.
    #[must_use]
    pub fn new(tag: impl Into<String>, architecture: Architecture, entries: Vec<Entry>) -> Self {
        Self {
            tag: tag.into(),
            architecture,
            created: 0,
            user: "65532:65532".to_owned(),
            entrypoint: Vec::new(),
            environment: BTreeMap::new(),
            labels: BTreeMap::new(),
            entries,
        }
    }

    /// Writes the files to a directory, which must be empty or must not exist yet.
    ///
    /// # Errors
    /// The entries are inconsistent, or the directory can't be written.
    pub fn write_rootfs(&self, directory: &Path) -> Result<(), Error> {
        Ok(Tree::new(&self.entries)?.unpack(self.created, directory)?)
    }

    /// Writes the archive, or nothing if it is larger than `limit` bytes. The complete file
    /// replaces an existing one atomically.
    ///
    /// # Errors
    /// The entries are inconsistent, the tag is malformed, or the archive is too large or can't be
    /// written.
    pub fn write_archive(&self, path: &Path, limit: Option<u64>) -> Result<Sizes, Error> {
        let (archive, sizes) = self.archive()?;
        if let Some(limit) = limit {
            check_size("archive", archive.len() as u64, limit)?;
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        std::fs::write(&partial, &archive).map_err(files::host("writing", &partial))?;
        std::fs::rename(&partial, path).map_err(files::host("putting the archive at", path))?;
        Ok(sizes)
    }

    fn archive(&self) -> Result<(Vec<u8>, Sizes), Error> {
        let name = Name::parse(&self.tag)?;
        let created = rfc3339(self.created)?;

        let mut unpacked = Vec::new();
        Tree::new(&self.entries)?.pack(self.created, &mut unpacked)?;
        let layer = compress(&unpacked).map_err(|source| Error::Pack {
            what: "layer",
            source,
        })?;

        let config = json(
            "configuration",
            &layout::Config {
                created: created.clone(),
                platform: self.architecture.into(),
                config: layout::Process {
                    user: &self.user,
                    env: self
                        .environment
                        .iter()
                        .map(|(name, value)| format!("{name}={value}"))
                        .collect(),
                    entrypoint: &self.entrypoint,
                    working_dir: "/",
                    labels: &self.labels,
                },
                rootfs: layout::RootFs {
                    kind: "layers",
                    diff_ids: [sha256(&unpacked)],
                },
                history: [layout::History {
                    created,
                    created_by: "podbeat-image",
                }],
            },
        )?;
        let manifest = json(
            "manifest",
            &layout::Manifest::new(
                descriptor(layout::CONFIG, &config),
                descriptor(layout::LAYER, &layer),
                &self.labels,
            ),
        )?;
        let index = json(
            "index",
            &layout::Index::new(Descriptor {
                platform: Some(self.architecture.into()),
                annotations: name.annotations(),
                ..descriptor(layout::MANIFEST, &manifest)
            }),
        )?;
        let marker = json("layout marker", &layout::Marker::V1)?;

        // The archive is a tar of the layout, so it is a file tree like a layer.
        let blob = |bytes: &Vec<u8>| {
            let path = format!("/blobs/{}", sha256(bytes).replace(':', "/"));
            Entry::file(path, 0o644, bytes.as_slice())
        };
        let sizes = (unpacked.len(), layer.len());
        let entries = [
            blob(&config),
            blob(&manifest),
            blob(&layer),
            Entry::file("/index.json", 0o644, index),
            Entry::file("/oci-layout", 0o644, marker),
        ];
        let mut archive = Vec::new();
        Tree::new(&entries)?.pack(self.created, &mut archive)?;
        let sizes = Sizes {
            unpacked: sizes.0,
            layer: sizes.1,
            archive: archive.len(),
        };
        Ok((archive, sizes))
    }
}

/// Formats seconds since 1970 as an OCI time.
pub(crate) fn rfc3339(seconds: u64) -> Result<String, Error> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map(|time| time.to_string())
        .ok_or(Error::Created(seconds))
}

/// Fails if a file is larger than its limit.
pub(crate) fn check_size(what: &'static str, size: u64, limit: u64) -> Result<(), Error> {
    if size > limit {
        return Err(Error::TooLarge { what, size, limit });
    }
    Ok(())
}

/// The parts of a tag.
struct Name<'a> {
    repository: String,
    version: &'a str,
}

impl<'a> Name<'a> {
    fn parse(tag: &'a str) -> Result<Self, Error> {
        let wrong = || Error::Tag(tag.to_owned());
        let (name, version) = tag.rsplit_once(':').ok_or_else(wrong)?;
        let plain = |text: &str, more: &str| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || more.contains(char))
        };
        if !plain(name, "._-/:") || name.contains(char::is_uppercase) || !plain(version, "._-") {
            return Err(wrong());
        }
        // If the first part contains a dot or a port, or is localhost, it is a host. A name without
        // a host is completed as podman and buildah do, because no registry is involved.
        let repository = match name.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => {
                name.to_owned()
            }
            Some(_) | None => format!("localhost/{name}"),
        };
        Ok(Self {
            repository,
            version,
        })
    }

    /// The annotations from which containerd, Docker and Podman take the image's name.
    fn annotations(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            (
                "io.containerd.image.name",
                format!("{}:{}", self.repository, self.version),
            ),
            ("org.opencontainers.image.ref.name", self.version.to_owned()),
        ])
    }
}

/// The header has no time and no file name, so the result depends only on the input.
fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(bytes)?;
    gzip.finish()
}

fn json(what: &'static str, document: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|source| Error::Json { what, source })
}

fn descriptor(media_type: &'static str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type,
        digest: sha256(bytes),
        size: bytes.len(),
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// The digest in OCI format: `sha256:` and 64 hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in digest(&SHA256, bytes).as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::*;

    fn image() -> Image {
        let entries = vec![
            Entry::file("/bin/tool", 0o755, "tool ".repeat(1000)),
            Entry::link("/bin/alias", "tool"),
            Entry::directory("/tmp", 0o1777),
        ];
        let mut image = Image::new("tool:1.2", Architecture::Arm64, entries);
        image.created = 1_700_000_000;
        image.entrypoint = vec!["/bin/tool".to_owned(), "--fast".to_owned()];
        image.environment = BTreeMap::from([("NAME".to_owned(), "value".to_owned())]);
        image.labels = BTreeMap::from([(
            "org.opencontainers.image.title".to_owned(),
            "tool".to_owned(),
        )]);
        image
    }

    /// The content of a tar. Checks that it contains nothing of the host.
    fn unpack(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 1_700_000_000)
            );
            assert_eq!(header.username().unwrap(), Some(""));
            let mode = header.mode().unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut contents = Vec::new();
            match entry.link_name().unwrap() {
                Some(target) => contents.extend(target.display().to_string().bytes()),
                None => drop(entry.read_to_end(&mut contents).unwrap()),
            }
            assert!(files.insert(name, (mode, contents)).is_none());
        }
        files
    }

    /// The blob of a descriptor. Checks its size and digest.
    fn blob<'a>(files: &'a BTreeMap<String, (u32, Vec<u8>)>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let (_, bytes) = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(sha256(bytes), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn the_layout_is_consistent() {
        let (archive, sizes) = image().archive().unwrap();
        assert_eq!(sizes.archive, archive.len());
        let files = unpack(&archive);
        assert_eq!(files["oci-layout"].1, br#"{"imageLayoutVersion":"1.0.0"}"#);
        let index: Value = serde_json::from_slice(&files["index.json"].1).unwrap();
        let found = &index["manifests"][0];
        assert_eq!(
            found["platform"],
            serde_json::json!({"architecture": "arm64", "os": "linux"})
        );
        assert_eq!(
            found["annotations"],
            serde_json::json!({
                "io.containerd.image.name": "localhost/tool:1.2",
                "org.opencontainers.image.ref.name": "1.2",
            })
        );

        let manifest: Value = serde_json::from_slice(blob(&files, found)).unwrap();
        assert_eq!(manifest["mediaType"], found["mediaType"]);
        assert_eq!(
            manifest["annotations"]["org.opencontainers.image.title"],
            "tool"
        );
        let layer = blob(&files, &manifest["layers"][0]);
        assert_eq!(sizes.layer, layer.len());
        let mut unpacked = Vec::new();
        GzDecoder::new(layer).read_to_end(&mut unpacked).unwrap();
        assert_eq!(sizes.unpacked, unpacked.len());

        let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
        assert_eq!(
            config,
            serde_json::json!({
                "created": "2023-11-14T22:13:20Z",
                "architecture": "arm64",
                "os": "linux",
                "config": {
                    "User": "65532:65532",
                    "Env": ["NAME=value"],
                    "Entrypoint": ["/bin/tool", "--fast"],
                    "WorkingDir": "/",
                    "Labels": {"org.opencontainers.image.title": "tool"},
                },
                "rootfs": {"type": "layers", "diff_ids": [sha256(&unpacked)]},
                "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "podbeat-image"}],
            })
        );

        let inside: Vec<_> = unpack(&unpacked)
            .into_iter()
            .map(|(name, (mode, contents))| (name, mode, contents.len()))
            .collect();
        let expected = [
            ("bin/", 0o755, 0),
            ("bin/alias", 0o777, 4),
            ("bin/tool", 0o755, 5000),
            ("tmp/", 0o1777, 0),
        ]
        .map(|(name, mode, length)| (name.to_owned(), mode, length));
        assert_eq!(inside, expected);
    }

    #[test]
    fn the_digest_is_sha256() {
        assert_eq!(
            sha256(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn the_same_entries_make_the_same_bytes() {
        let mut turned = image();
        turned.entries.reverse();
        let bytes = image().archive().unwrap().0;
        assert_eq!(bytes, turned.archive().unwrap().0);
        turned.created += 1;
        assert_ne!(bytes, turned.archive().unwrap().0);
    }

    #[test]
    fn an_archive_above_its_limit_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let sizes = image().write_archive(&path, None).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert_eq!(before.len(), sizes.archive);
        let mut larger = image();
        larger
            .labels
            .insert("long".to_owned(), "very ".repeat(1000));
        let refused = larger.write_archive(&path, Some(sizes.archive as u64));
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_without_a_host_are_local() {
        for (tag, name) in [
            ("podbeat:0.1.0", "localhost/podbeat:0.1.0"),
            ("me/podbeat:1", "localhost/me/podbeat:1"),
            ("localhost/podbeat:1", "localhost/podbeat:1"),
            (
                "registry.example.com:5000/a/podbeat:v1_x",
                "registry.example.com:5000/a/podbeat:v1_x",
            ),
        ] {
            let annotations = Name::parse(tag).unwrap().annotations();
            assert_eq!(annotations["io.containerd.image.name"], name);
        }
        for tag in [
            "podbeat",
            "podbeat:",
            ":1",
            "Podbeat:1",
            "podbeat:1 2",
            "pod@beat:1",
            "localhost:5000/podbeat",
        ] {
            assert!(matches!(Name::parse(tag), Err(Error::Tag(_))), "{tag}");
        }
    }

    #[test]
    fn a_time_beyond_the_year_9999_is_refused() {
        let mut image = image();
        image.created = u64::MAX;
        assert!(matches!(image.archive(), Err(Error::Created(u64::MAX))));
    }
}

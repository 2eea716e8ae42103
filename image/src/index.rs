//! The images of several architectures as one: their archives become one directory of the OCI image
//! layout, whose index has all their manifests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::files;
use crate::image::sha256;
use crate::layout::INDEX;

/// The largest file of an archive, in bytes. The images of podbeat are smaller than a tenth.
const LARGEST: u64 = 256 << 20;

/// Why the images can't be merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read or written.
    #[error(transparent)]
    Files(#[from] files::Error),
    /// An archive is not of the OCI image layout.
    #[error("{} is no archive of the OCI image layout: {problem}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// Two images are for the same platform.
    #[error("{} is for the same platform as another archive", .0.display())]
    Twice(PathBuf),
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: String,
    digest: String,
    size: u64,
    platform: Value,
}

/// Writes the directory, and returns the digest of its index. In a registry, the index has the same
/// digest. The directory must be empty or must not exist yet.
///
/// # Errors
/// An archive can't be read, or two are for the same platform, or the directory can't be written.
pub fn merge(archives: &[&Path], output: &Path) -> Result<String, Error> {
    let mut manifests: Vec<Value> = Vec::new();
    let mut all = BTreeMap::new();
    for path in archives {
        let mut files = unpacked(path)?;
        let wrong = |problem| Error::Archive {
            path: path.to_path_buf(),
            problem,
        };
        let index = files
            .remove("index.json")
            .ok_or_else(|| wrong("it has no index.json"))?;
        let index: Index =
            serde_json::from_slice(&index).map_err(|_| wrong("its index.json is malformed"))?;
        for Manifest {
            media_type,
            digest,
            size,
            platform,
        } in index.manifests
        {
            let is_twice = manifests
                .iter()
                .any(|other| other.get("platform") == Some(&platform));
            if is_twice {
                return Err(Error::Twice(path.to_path_buf()));
            }
            // Without the name of one architecture's archive.
            manifests.push(json!({"mediaType": media_type, "digest": digest, "size": size, "platform": platform}));
        }
        for (name, contents) in &files {
            let sum = name.strip_prefix("blobs/sha256/");
            if sum.is_some_and(|sum| sha256(contents).strip_prefix("sha256:") != Some(sum)) {
                return Err(wrong("a blob does not have the digest in its name"));
            }
        }
        all.append(&mut files);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
    })
    .to_string();
    let digest = sha256(index.as_bytes());
    all.insert("index.json".to_owned(), index.into_bytes());
    files::empty_directory(output)?;
    for (name, contents) in all {
        let path = output.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(files::host("making the directory", parent))?;
        }
        std::fs::write(&path, contents).map_err(files::host("writing", &path))?;
    }
    Ok(digest)
}

/// The files of an archive.
fn unpacked(path: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let file = File::open(path).map_err(files::host("reading", path))?;
    let mut archive = tar::Archive::new(file);
    let mut found = BTreeMap::new();
    let failed = |source: io::Error| Error::Files(files::host("reading", path)(source));
    for entry in archive.entries().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(failed)?.display().to_string();
        let is_known = matches!(name.as_str(), "index.json" | "oci-layout")
            || name
                .strip_prefix("blobs/sha256/")
                .is_some_and(|sum| sum.len() == 64 && sum.chars().all(|c| c.is_ascii_hexdigit()));
        if !is_known {
            return Err(Error::Archive {
                path: path.to_path_buf(),
                problem: "it has other files",
            });
        }
        let mut contents = Vec::new();
        entry
            .take(LARGEST)
            .read_to_end(&mut contents)
            .map_err(failed)?;
        found.insert(name, contents);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Architecture, Entry, Image};

    fn archive(directory: &Path, architecture: Architecture) -> PathBuf {
        let file = Entry::file("/tool", 0o755, format!("for {architecture}"));
        let path = directory.join(format!("{architecture}.tar"));
        let image = Image::new("tool:1", architecture, vec![file]);
        image.write_archive(&path, None).unwrap();
        path
    }

    #[test]
    fn both_platforms_are_in_one_index_and_all_blobs_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let amd64 = archive(directory.path(), Architecture::Amd64);
        let arm64 = archive(directory.path(), Architecture::Arm64);
        let to = directory.path().join("layout");
        let digest = merge(&[&amd64, &arm64], &to).unwrap();
        let index = std::fs::read(to.join("index.json")).unwrap();
        assert_eq!(sha256(&index), digest);
        let index: Value = serde_json::from_slice(&index).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        let platforms: Vec<_> = manifests
            .iter()
            .map(|manifest| manifest["platform"]["architecture"].as_str().unwrap())
            .collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        for manifest in manifests {
            let blob = |digest: &Value| {
                let digest = digest.as_str().unwrap().replace(':', "/");
                std::fs::read(to.join("blobs").join(digest)).unwrap()
            };
            let manifest: Value = serde_json::from_slice(&blob(&manifest["digest"])).unwrap();
            blob(&manifest["config"]["digest"]);
            blob(&manifest["layers"][0]["digest"]);
        }
        let again = merge(&[&amd64, &arm64], &to).unwrap_err();
        assert!(matches!(again, Error::Files(_)), "{again}");
        let other = directory.path().join("again");
        assert_eq!(merge(&[&amd64, &arm64], &other).unwrap(), digest);
    }

    #[test]
    fn one_platform_twice_and_damaged_archives_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let amd64 = archive(directory.path(), Architecture::Amd64);
        let to = directory.path().join("layout");
        let twice = merge(&[&amd64, &amd64], &to).unwrap_err();
        assert!(matches!(twice, Error::Twice(_)), "{twice}");
        let mut bytes = std::fs::read(&amd64).unwrap();
        let at = bytes
            .windows(9)
            .position(|window| window == b"\"rootfs\":")
            .unwrap();
        bytes[at + 1] = b'R';
        let damaged = directory.path().join("damaged.tar");
        std::fs::write(&damaged, bytes).unwrap();
        let error = merge(&[&damaged], &to).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("a blob does not have the digest"),
            "{error}"
        );
        assert!(!to.exists());
    }
}

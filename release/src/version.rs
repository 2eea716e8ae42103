//! Sets the version, or the registry, in every file that has it. Generated files are generated
//! afterwards (`just registry`, `just release`).

use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use crate::changelog;
use crate::names::{Published, files};

/// Why a version or a registry can't be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no version.
    #[error(
        "{0:?} is no version: use MAJOR.MINOR.PATCH, such as 1.2.3, or with a suffix 1.2.3-rc.1"
    )]
    Version(String),
    /// The version is not after the current one.
    #[error("version {to} is not after {from}, the version in Cargo.toml")]
    NotLater {
        /// The current version.
        from: String,
        /// The refused one.
        to: String,
    },
    /// The text is no registry.
    #[error(
        "{0:?} is no registry with an owner: use HOST/OWNER in lowercase, such as ghcr.io/podbeat"
    )]
    Registry(String),
    /// A file does not have what must be replaced.
    #[error("{} has no {what:?}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The text that was looked for.
        what: String,
    },
    /// The changelog can't be used.
    #[error(transparent)]
    Changelog(#[from] changelog::Error),
    /// A file can't be read or written.
    #[error("{doing} {}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Sets the version, and moves what is unreleased in the changelog to it.
///
/// # Errors
/// The version is invalid or not later, nothing is unreleased, or a file can't be changed. In all
/// but the last case, no file has changed.
pub fn set_version(root: &Path, version: &str, date: Date) -> Result<(), Error> {
    let now = Published::now();
    let invalid = || Error::Version(version.to_owned());
    let to = parsed(version).ok_or_else(invalid)?;
    if parsed(&now.version).is_some_and(|from| to <= from) {
        return Err(Error::NotLater {
            from: now.version,
            to: version.to_owned(),
        });
    }
    let changelog = root.join("CHANGELOG.md");
    let text = changelog::released(&read(&changelog)?, version, date)?;
    let (from, to) = (&now.version, version);
    let mut changes = vec![(changelog, text)];
    for (path, what) in [
        ("Cargo.toml", "\nversion = \"{}\"\n"),
        (
            "deploy/helm/podbeat/Chart.yaml",
            "\nversion: {}\nappVersion: {}\n",
        ),
        (
            "deploy/helm/podbeat-server/Chart.yaml",
            "\nversion: {}\nappVersion: {}\n",
        ),
        ("Dockerfile", "\nARG VERSION={}\n"),
    ] {
        let path = root.join(path);
        let text = read(&path)?;
        let (old, new) = (what.replace("{}", from), what.replace("{}", to));
        if !text.contains(&old) {
            return Err(Error::Missing {
                path,
                what: old.trim().to_owned(),
            });
        }
        changes.push((path, text.replacen(&old, &new, 1)));
    }
    for (path, text) in changes {
        write(&path, &text)?;
    }
    rename(
        root,
        &now,
        &Published {
            version: version.to_owned(),
            ..now.clone()
        },
    )
}

/// Sets the registry and the owner.
///
/// # Errors
/// The registry is invalid, or a file can't be changed.
pub fn set_registry(root: &Path, registry: &str) -> Result<(), Error> {
    let is_part = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:".contains(c))
    };
    let owner = registry.split_once('/').filter(|(host, owner)| {
        is_part(host) && is_part(owner) && host.contains(['.', ':']) && !owner.contains(':')
    });
    let Some((_, owner)) = owner else {
        return Err(Error::Registry(registry.to_owned()));
    };
    let now = Published::now();
    let to = Published {
        registry: registry.to_owned(),
        source: format!("https://github.com/{owner}/podbeat"),
        version: now.version.clone(),
    };
    rename(root, &now, &to)
}

fn rename(root: &Path, from: &Published, to: &Published) -> Result<(), Error> {
    let all = files(root).map_err(failed("reading the files below", root))?;
    for (path, text) in all {
        let renamed = from.renamed(&text, to);
        if renamed != text {
            write(&path, &renamed)?;
        }
    }
    Ok(())
}

/// A version's parts in their order: numbers, whether it has no suffix, and the parts of the suffix.
type Parsed = ([u64; 3], bool, Vec<(u64, String)>);

fn parsed(version: &str) -> Option<Parsed> {
    let (numbers, suffix) = match version.split_once('-') {
        Some((numbers, suffix)) => (numbers, Some(suffix)),
        None => (version, None),
    };
    let number = |text: &str| {
        let is_plain =
            text.chars().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u64>().ok().filter(|_| is_plain)
    };
    let mut parts = numbers.split('.').map(number);
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    if parts.next().is_some() {
        return None;
    }
    let mut suffixes = Vec::new();
    for part in suffix.into_iter().flat_map(|suffix| suffix.split('.')) {
        if part.is_empty() || !part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return None;
        }
        // Numbers come before words.
        suffixes.push(match number(part) {
            Some(number) => (number, String::new()),
            None => (u64::MAX, part.to_owned()),
        });
    }
    Some((numbers, suffix.is_none(), suffixes))
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(failed("reading", path))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(failed("writing", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File {
        doing,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_an_order() {
        let order = [
            "0.1.0",
            "0.1.1-alpha",
            "0.1.1-rc.2",
            "0.1.1-rc.10",
            "0.1.1",
            "0.2.0",
            "0.10.0",
            "1.0.0",
        ];
        for pair in order.windows(2) {
            assert!(
                parsed(pair[0]).unwrap() < parsed(pair[1]).unwrap(),
                "{pair:?}"
            );
        }
        for wrong in [
            "",
            "1",
            "1.2",
            "v1.2.3",
            "1.2.3.4",
            "1.2.x",
            "01.2.3",
            "1.2.3-",
            "1.2.3-a..b",
            "1.2.3 ",
            "-1.2.3",
            "+1.2.3",
        ] {
            assert!(parsed(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn only_a_host_with_an_owner_is_a_registry() {
        let nowhere = Path::new("/nowhere");
        for wrong in [
            "ghcr.io",
            "owner/podbeat",
            "ghcr.io/a/b",
            "ghcr.io/A",
            "https://ghcr.io/a",
            "ghcr.io/",
            "",
        ] {
            let refused = set_registry(nowhere, wrong).unwrap_err();
            assert!(
                matches!(refused, Error::Registry(_)),
                "{wrong:?}: {refused}"
            );
        }
    }

    #[test]
    fn an_earlier_version_changes_nothing() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let date = jiff::civil::date(2026, 12, 1);
        for wrong in [podbeat_published::VERSION, "0.0.1", "0.1.0-rc.1", "next"] {
            assert!(set_version(root, wrong, date).is_err(), "{wrong}");
        }
    }
}

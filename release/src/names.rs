//! The texts of the repository that name podbeat's images, charts or sources. Pure, except for
//! [`files`].

use std::io;
use std::path::{Path, PathBuf};

use podbeat_published::{CHARTS, IMAGES, REGISTRY, VERSION, source};

/// The files and directories with such texts.
const PLACES: [&str; 8] = [
    ".github",
    "CONTRIBUTING.md",
    "Dockerfile",
    "README.md",
    "SECURITY.md",
    "crates/launch/src/podbeat.json",
    "deploy",
    "docs",
];

/// Where and as what podbeat is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The registry and the owner, `HOST/OWNER`.
    pub registry: String,
    /// The address of the sources.
    pub source: String,
    /// The version.
    pub version: String,
}

impl Published {
    /// As the sources say now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            registry: REGISTRY.to_owned(),
            source: source(),
            version: VERSION.to_owned(),
        }
    }

    /// The text with other names.
    #[must_use]
    pub fn renamed(&self, text: &str, to: &Self) -> String {
        let mut text = text.to_owned();
        for (from, to) in self.versioned().iter().zip(to.versioned()) {
            text = text.replace(from, &to);
        }
        text.replace(&self.source, &to.source)
            .replace(&self.registry, &to.registry)
    }

    /// The forms in which texts have the version.
    fn versioned(&self) -> Vec<String> {
        let version = &self.version;
        let mut all = vec![format!("/v{version}/"), format!("--version {version}")];
        for image in IMAGES {
            all.push(format!("/{image}:{version}"));
            all.push(format!("{image}-{version}"));
        }
        all
    }
}

/// The texts with such names, with their paths, in order.
///
/// # Errors
/// A file or directory can't be read.
pub fn files(root: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = PLACES.iter().map(|place| root.join(place)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
            continue;
        }
        // Pictures have no names.
        if let Ok(text) = String::from_utf8(std::fs::read(&path)?) {
            found.push((path, text));
        }
    }
    found.sort();
    Ok(found)
}

/// The names in a text that are not those of this version.
#[must_use]
pub fn wrong<'text>(text: &'text str, published: &Published) -> Vec<&'text str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "._:/@-".contains(char);
    let words = text.split(|char| !is_part(char));
    let words = words.map(|word| word.trim_end_matches(['.', ':', '/']));
    words.filter(|word| !is_right(word, published)).collect()
}

fn is_right(word: &str, published: &Published) -> bool {
    let (scheme, rest) = match word.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, word),
    };
    let rest = rest.split_once('@').map_or(rest, |(name, _)| name);
    let (path, last) = rest.rsplit_once('/').unwrap_or(("", rest));
    let (name, tag) = match last.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (last, None),
    };
    let host = path.split('/').next().unwrap_or_default();
    let is_example = host == "localhost"
        || host.starts_with("localhost:")
        || host == "example.com"
        || host.ends_with(".example.com");
    let is_of = |version: &str| version == published.version;
    if let Some(version) = archive(last).filter(|_| !path.contains('/')) {
        return is_of(version);
    }
    match scheme {
        Some("https") if host == "github.com" && rest.split('/').nth(2) == Some("podbeat") => {
            let version = rest
                .split('/')
                .find_map(|part| part.strip_prefix('v'))
                .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()));
            (word == published.source || word.starts_with(&format!("{}/", published.source)))
                && version.is_none_or(is_of)
                && archive(last).is_none_or(is_of)
        }
        Some("oci") => {
            let charts = format!("{}/charts", published.registry);
            let is_chart = CHARTS.contains(&name) && tag.is_none_or(is_of);
            is_example || rest == charts || (is_chart && path == charts)
        }
        Some(_) => true,
        None if !IMAGES.contains(&name) || is_example => true,
        // A path in the repository, or an ordinary word.
        None if !host.contains(['.', ':']) => {
            !(path.is_empty()
                && tag.is_some_and(|tag| {
                    tag.starts_with(|c: char| c.is_ascii_digit()) && tag.contains('.')
                }))
        }
        None if host.starts_with('.') => true,
        None if word == published.registry => true,
        None => {
            let path = path.strip_suffix("/charts").unwrap_or(path);
            path == published.registry && tag.is_none_or(is_of)
        }
    }
}

/// The version in the name of a file that is published, such as `podbeat-1.2.3-linux-amd64.tar.gz`.
fn archive(name: &str) -> Option<&str> {
    let version = IMAGES
        .iter()
        .rev()
        .find_map(|image| name.strip_prefix(image)?.strip_prefix('-'))?;
    let (version, _) = ["-linux", "-macos", ".tgz"]
        .iter()
        .find_map(|end| version.split_once(end))?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    #[test]
    fn every_text_has_the_names_that_are_published() {
        let published = Published::now();
        let files = files(root()).unwrap();
        assert!(files.len() > 60, "only {} files", files.len());
        let count = |what: &str| {
            files
                .iter()
                .map(|(_, text)| text.matches(what).count())
                .sum::<usize>()
        };
        assert!(count(&published.registry) > 20);
        assert!(count(&published.source) > 2);
        for (path, text) in &files {
            let wrong = wrong(text, &published);
            assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
        }
    }

    #[test]
    fn other_names_are_found_and_those_of_examples_are_not() {
        let published = Published {
            registry: "r.example.org/o".to_owned(),
            source: "https://github.com/o/podbeat".to_owned(),
            version: "1.2.3".to_owned(),
        };
        for right in [
            "image: r.example.org/o/podbeat:1.2.3",
            "r.example.org/o/podbeat-server@sha256:00, and r.example.org/o/podbeat.",
            "oci://r.example.org/o/charts/podbeat --version 1",
            "https://github.com/o/podbeat/releases and https://github.com/other/thing",
            "deploy/helm/podbeat, ./podbeat, podbeat: a sidecar, /podbeat:755, podbeat:e2e",
            "registry.example.com/podbeat:7.0.0 localhost/podbeat:0.1.0 localhost:5000/podbeat:1",
            "oci://registry.example.com/charts/podbeat",
            "https://github.com/o/podbeat/releases/download/v1.2.3/podbeat-1.2.3-linux-amd64.tar.gz",
            "podbeat-server-1.2.3.tgz and podbeat-1.2.3-macos-arm64.tar.gz",
        ] {
            assert_eq!(wrong(right, &published), [""; 0], "{right}");
        }
        for (text, found) in [
            ("image: podbeat:1.2.3", "podbeat:1.2.3"),
            (
                "\"r.example.org/o/podbeat:1.2.2\"",
                "r.example.org/o/podbeat:1.2.2",
            ),
            (
                "r.example.org/p/podbeat-server",
                "r.example.org/p/podbeat-server",
            ),
            (
                "oci://r.example.org/o/podbeat",
                "oci://r.example.org/o/podbeat",
            ),
            (
                "oci://r.example.org/o/charts/podbeat:1.0.0",
                "oci://r.example.org/o/charts/podbeat:1.0.0",
            ),
            (
                "(https://github.com/p/podbeat/issues)",
                "https://github.com/p/podbeat/issues",
            ),
        ] {
            assert_eq!(wrong(text, &published), [found], "{text}");
        }
    }

    #[test]
    fn a_text_is_renamed_and_back() {
        let now = Published::now();
        let other = Published {
            registry: "r.example.org/o".to_owned(),
            source: "https://github.com/o/podbeat".to_owned(),
            version: "99.1.0-rc.1".to_owned(),
        };
        for (path, text) in files(root()).unwrap() {
            let renamed = now.renamed(&text, &other);
            let wrong = wrong(&renamed, &other);
            assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
            assert_eq!(other.renamed(&renamed, &now), text, "{}", path.display());
        }
    }
}

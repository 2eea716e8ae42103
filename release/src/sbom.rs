//! The components of a program, as a CycloneDX document (<https://cyclonedx.org/docs/1.6/json/>).
//! Pure. It has exactly the crates that `cargo tree` shows for the program, its features and its
//! target, and what the program itself says of the C library, the compiler and SQLite. Its bytes
//! depend only on these inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use podbeat_published::{VERSION, source};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::{Value, json};

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of `cargo tree` can't be read.
    #[error("can't read the line {0:?} of cargo tree --prefix depth")]
    Tree(String),
    /// A crate of the tree is unknown.
    #[error("cargo metadata does not have {name} {version}, which cargo tree shows")]
    Unknown {
        /// The crate's name.
        name: String,
        /// Its version.
        version: String,
    },
    /// The output of `cargo metadata` can't be read.
    #[error("can't read the output of cargo metadata")]
    Metadata(#[source] serde_json::Error),
    /// The program does not say what it was built with.
    #[error("the program does not name {0}: was its section .comment removed?")]
    Unnamed(&'static str),
    /// The time is beyond the year 9999.
    #[error("invalid time: {0} s after 1970")]
    Time(i64),
}

/// What the list is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `podbeat` or `podbeat-server`.
    pub name: &'a str,
    /// The target, such as `x86_64-unknown-linux-gnu`.
    pub target: &'a str,
    /// The program.
    pub binary: &'a [u8],
    /// The output of `cargo tree --edges normal,no-proc-macro --prefix depth` for the program.
    pub tree: &'a str,
    /// The output of `cargo metadata`.
    pub metadata: &'a str,
    /// Cargo.lock.
    pub lock: &'a str,
    /// The version of the crate with Mozilla's roots, if the list is of an image that has them.
    pub roots: Option<&'a str>,
    /// The time of the commit, in seconds since 1970.
    pub created: i64,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
}

/// A crate of the tree.
type Crate<'a> = (&'a str, &'a str);

/// The document.
///
/// # Errors
/// An input is not what it should be.
pub fn document(inputs: &Inputs<'_>) -> Result<Value, Error> {
    let metadata: Metadata = serde_json::from_str(inputs.metadata).map_err(Error::Metadata)?;
    let packages: HashMap<Crate<'_>, &Package> = metadata
        .packages
        .iter()
        .map(|package| ((package.name.as_str(), package.version.as_str()), package))
        .collect();
    let (root, edges) = edges(inputs.tree)?;
    let sums = checksums(inputs.lock);
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for (member, needs) in &edges {
        let unknown = || Error::Unknown {
            name: member.0.to_owned(),
            version: member.1.to_owned(),
        };
        let package = packages.get(member).ok_or_else(unknown)?;
        let mut needs: Vec<String> = needs.iter().map(reference).collect();
        if *member == root {
            let linked = linked(inputs)?;
            needs.extend(linked.iter().map(|(reference, _)| reference.clone()));
            components.extend(linked.into_iter().map(|(_, component)| component));
        } else {
            components.push(component(package, sums.get(member).copied()));
        }
        dependencies.push(json!({"ref": reference(member), "dependsOn": needs}));
    }
    components.sort_by_key(|component| component.get("bom-ref").map(Value::to_string));
    let created =
        Timestamp::from_second(inputs.created).map_err(|_| Error::Time(inputs.created))?;
    let sum = sha256(inputs.binary);
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(&[inputs.name, inputs.target, &sum]),
        "version": 1,
        "metadata": {
            "timestamp": created.to_string(),
            "tools": {"components": [{"type": "application", "name": "podbeat-release", "version": VERSION}]},
            "component": {
                "type": if inputs.roots.is_some() { "container" } else { "application" },
                "bom-ref": reference(&root),
                "name": inputs.name,
                "version": VERSION,
                "purl": own_purl(),
                "licenses": [{"expression": packages.get(&root).and_then(|own| own.license.as_deref()).unwrap_or("Apache-2.0")}],
                "hashes": [{"alg": "SHA-256", "content": sum}],
                "properties": [{"name": "podbeat:target", "value": inputs.target}],
                "externalReferences": [{"type": "vcs", "url": source()}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

/// The tree's root, and the direct dependencies of each of its crates.
fn edges(tree: &str) -> Result<(Crate<'_>, BTreeMap<Crate<'_>, BTreeSet<Crate<'_>>>), Error> {
    let mut edges: BTreeMap<Crate<'_>, BTreeSet<Crate<'_>>> = BTreeMap::new();
    let mut path: Vec<Crate<'_>> = Vec::new();
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        let wrong = || Error::Tree(line.to_owned());
        let digits = line.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (depth, rest) = line.split_at(digits);
        let depth: usize = depth.parse().map_err(|_| wrong())?;
        let mut words = rest.split(' ');
        let name = words.next().filter(|name| !name.is_empty());
        let version = words.next().and_then(|version| version.strip_prefix('v'));
        let member = name.zip(version).ok_or_else(wrong)?;
        if depth > path.len() || (depth == 0 && !path.is_empty()) {
            return Err(wrong());
        }
        path.truncate(depth);
        if let Some(parent) = path.last() {
            edges.entry(*parent).or_default().insert(member);
        }
        edges.entry(member).or_default();
        path.push(member);
    }
    let root = path.first().copied();
    root.map(|root| (root, edges))
        .ok_or_else(|| Error::Tree(String::new()))
}

/// The checksums of the crates in Cargo.lock.
fn checksums(lock: &str) -> HashMap<Crate<'_>, &str> {
    let value = |block: &'_ str, key: &str| -> Option<(usize, usize)> {
        let begin = block.find(&format!("\n{key} = \""))? + key.len() + 5;
        let length = block.get(begin..)?.find('"')?;
        Some((begin, begin + length))
    };
    let mut sums = HashMap::new();
    for block in lock.split("[[package]]").skip(1) {
        let part = |key| value(block, key).and_then(|(from, to)| block.get(from..to));
        if let (Some(name), Some(version), Some(sum)) =
            (part("name"), part("version"), part("checksum"))
        {
            sums.insert((name, version), sum);
        }
    }
    sums
}

fn component(package: &Package, sum: Option<&str>) -> Value {
    let Package {
        name,
        version,
        license,
        repository,
        source,
    } = package;
    // The old form of Cargo has a slash.
    let license = license.as_ref().map(|license| license.replace('/', " OR "));
    let purl = match source {
        Some(_) => format!("pkg:cargo/{name}@{version}"),
        None => format!("{}#{name}", own_purl()),
    };
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(&(name, version)),
        "name": name,
        "version": version,
        "scope": "required",
        "purl": purl,
    });
    let more = [
        (
            "licenses",
            license.map(|license| json!([{"expression": license}])),
        ),
        (
            "hashes",
            sum.map(|sum| json!([{"alg": "SHA-256", "content": sum}])),
        ),
        (
            "externalReferences",
            repository
                .as_ref()
                .map(|url| json!([{"type": "vcs", "url": url}])),
        ),
    ];
    if let Some(members) = component.as_object_mut() {
        let more = more.into_iter();
        members.extend(more.filter_map(|(name, value)| Some((name.to_owned(), value?))));
    }
    component
}

/// What a static program contains besides crates, from its own text, with the references.
fn linked(inputs: &Inputs<'_>) -> Result<Vec<(String, Value)>, Error> {
    let text = |before: &str, end: &[char], what| {
        between(inputs.binary, before, end).ok_or(Error::Unnamed(what))
    };
    let glibc = text(
        "GNU C Library (Debian GLIBC ",
        &[')'],
        "the C library of Debian",
    )?;
    let gcc = text("GCC: (Debian ", &[')'], "Debian's GCC")?;
    let rust = text("rustc version ", &[' '], "the Rust compiler")?;
    let arch = if inputs.target.starts_with("aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let deb = |name: &str, package: &str, version: &str, license: &str| {
        let purl = format!(
            "pkg:deb/debian/{package}@{}?arch={arch}&distro=bookworm",
            version.replace('+', "%2B")
        );
        (
            purl.clone(),
            json!({"type": "library", "bom-ref": purl, "name": name, "version": version,
            "scope": "required", "purl": purl, "licenses": [{"expression": license}]}),
        )
    };
    let mut all = vec![
        deb("glibc", "libc6-dev", &glibc, "LGPL-2.1-or-later"),
        deb(
            "libgcc",
            "libgcc-12-dev",
            &gcc,
            "GPL-3.0-or-later WITH GCC-exception-3.1",
        ),
    ];
    let std = format!("pkg:generic/rust-std@{rust}");
    all.push((
        std.clone(),
        json!({"type": "library", "bom-ref": std, "name": "rust-std", "version": rust,
        "scope": "required", "purl": std, "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "externalReferences": [{"type": "vcs", "url": "https://github.com/rust-lang/rust"}]}),
    ));
    if let Some(version) = sqlite(inputs) {
        let purl = format!("pkg:generic/sqlite@{version}");
        all.push((
            purl.clone(),
            json!({"type": "library", "bom-ref": purl, "name": "sqlite", "version": version,
            "scope": "required", "purl": purl, "licenses": [{"expression": "blessing"}],
            "externalReferences": [{"type": "website", "url": "https://sqlite.org"}]}),
        ));
    }
    if let Some(version) = inputs.roots {
        let purl = format!("pkg:cargo/webpki-root-certs@{version}");
        let reference = format!("{purl}#roots");
        all.push((reference.clone(), json!({"type": "data", "bom-ref": reference, "name": "ca-certificates.crt",
            "version": version, "scope": "required", "purl": purl, "licenses": [{"expression": "CDLA-Permissive-2.0"}],
            "description": "Mozilla's roots for servers, in /etc/ssl/certs"})));
    }
    Ok(all)
}

/// The version of SQLite, which the text of its source's identification follows or precedes in no
/// fixed distance: the only text of this form in a program with SQLite.
fn sqlite(inputs: &Inputs<'_>) -> Option<String> {
    if !inputs.tree.contains("libsqlite3-sys ") {
        return None;
    }
    let is_version = |text: &[u8]| {
        let mut parts = text.split(|byte| *byte == b'.');
        let digits =
            |part: &[u8]| !part.is_empty() && part.len() < 3 && part.iter().all(u8::is_ascii_digit);
        parts.next() == Some(b"3") && parts.clone().count() == 2 && parts.all(digits)
    };
    let found = inputs
        .binary
        .split(|byte| *byte == 0)
        .find(|text| is_version(text))?;
    String::from_utf8(found.to_vec()).ok()
}

/// The text after `before`, up to one of the characters.
fn between(binary: &[u8], before: &str, end: &[char]) -> Option<String> {
    let start = binary
        .windows(before.len())
        .position(|window| window == before.as_bytes())?;
    let rest = binary.get(start + before.len()..)?;
    let rest = rest.get(..rest.len().min(128))?;
    let text = String::from_utf8_lossy(rest);
    let length = text.find(end)?;
    text.get(..length).map(str::to_owned)
}

fn reference((name, version): &Crate<'_>) -> String {
    format!("{name}@{version}")
}

fn own_purl() -> String {
    let source = source();
    let path = source.trim_start_matches("https://github.com/");
    format!("pkg:github/{path}@v{VERSION}")
}

fn sha256(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A UUID (version 8) that depends only on these texts.
fn serial(parts: &[&str]) -> String {
    let sum = sha256(parts.join("\n").as_bytes());
    let part = |from: usize, to: usize| sum.get(from..to).unwrap_or_default().to_owned();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "0podbeat v0.1.0 (/a/checkout)\n1a v1.0.0\n2b v2.0.0+c\n1podbeat-files v0.1.0 (/a/checkout/crates/files)\n2a v1.0.0 (*)\n\n";
    const METADATA: &str = r#"{"packages": [
        {"name": "podbeat", "version": "0.1.0", "license": "Apache-2.0", "repository": null, "source": null},
        {"name": "podbeat-files", "version": "0.1.0", "license": "Apache-2.0", "repository": null, "source": null},
        {"name": "a", "version": "1.0.0", "license": "MIT/Apache-2.0", "repository": "https://example.com/a", "source": "registry"},
        {"name": "b", "version": "2.0.0+c", "license": null, "repository": null, "source": "registry"},
        {"name": "other", "version": "1.0.0", "license": "MIT", "repository": null, "source": "registry"}]}"#;
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"abcd\"\n\n[[package]]\nname = \"podbeat\"\nversion = \"0.1.0\"\ndependencies = [\n \"a\",\n]\n";
    const BINARY: &[u8] = b"\x7fELF\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable\0rustc version 1.95.0 (5 2026)\0GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\x003.54.1\x00";

    fn inputs() -> Inputs<'static> {
        Inputs {
            name: "podbeat",
            target: "aarch64-unknown-linux-gnu",
            binary: BINARY,
            tree: TREE,
            metadata: METADATA,
            lock: LOCK,
            roots: None,
            created: 1_700_000_000,
        }
    }

    fn names(document: &Value) -> Vec<&str> {
        let components = document["components"].as_array().unwrap();
        components
            .iter()
            .map(|component| component["bom-ref"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn it_has_exactly_what_the_program_contains() {
        let document = document(&inputs()).unwrap();
        assert_eq!(
            names(&document),
            [
                "a@1.0.0",
                "b@2.0.0+c",
                "pkg:deb/debian/libc6-dev@2.36-9%2Bdeb12u14?arch=arm64&distro=bookworm",
                "pkg:deb/debian/libgcc-12-dev@12.2.0-14%2Bdeb12u1?arch=arm64&distro=bookworm",
                "pkg:generic/rust-std@1.95.0",
                "podbeat-files@0.1.0",
            ]
        );
        let a = &document["components"][0];
        assert_eq!(a["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(a["hashes"][0]["content"], "abcd");
        assert_eq!(a["purl"], "pkg:cargo/a@1.0.0");
        let needs = &document["dependencies"];
        assert_eq!(
            needs[0],
            json!({"ref": "a@1.0.0", "dependsOn": ["b@2.0.0+c"]})
        );
        assert_eq!(needs[3]["ref"], "podbeat-files@0.1.0");
        assert_eq!(needs[3]["dependsOn"], json!(["a@1.0.0"]));
        assert_eq!(document["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
        assert!(
            !document.to_string().contains("checkout"),
            "a path of the host"
        );
    }

    #[test]
    fn sqlite_and_the_roots_are_components_where_they_are_contained() {
        let tree = format!("{TREE}1libsqlite3-sys v0.1.0\n");
        let metadata = METADATA.replace(
            "\"other\", \"version\": \"1.0.0\"",
            "\"libsqlite3-sys\", \"version\": \"0.1.0\"",
        );
        let all = Inputs {
            tree: &tree,
            metadata: &metadata,
            roots: Some("1.2.3"),
            ..inputs()
        };
        let document = document(&all).unwrap();
        let names = names(&document);
        assert!(names.contains(&"pkg:generic/sqlite@3.54.1"), "{names:?}");
        assert!(
            names.contains(&"pkg:cargo/webpki-root-certs@1.2.3#roots"),
            "{names:?}"
        );
        assert_eq!(document["metadata"]["component"]["type"], "container");
    }

    #[test]
    fn what_is_missing_is_named() {
        let stripped = Inputs {
            binary: b"\x7fELF",
            ..inputs()
        };
        let error = document(&stripped).unwrap_err();
        assert!(
            matches!(error, Error::Unnamed("the C library of Debian")),
            "{error}"
        );
        let unknown = Inputs {
            tree: "0podbeat v0.1.0\n1none v9.9.9\n",
            ..inputs()
        };
        let error = document(&unknown).unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error}");
        for tree in [
            "",
            "podbeat",
            "0podbeat",
            "0podbeat v1\n2a v1",
            "0podbeat v1\n0a v1",
        ] {
            let error = document(&Inputs { tree, ..inputs() }).unwrap_err();
            assert!(matches!(error, Error::Tree(_)), "{tree:?}: {error}");
        }
    }
}

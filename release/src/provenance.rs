//! Where an artefact was built from: the predicate of SLSA provenance v1
//! (<https://slsa.dev/spec/v1.0/provenance>). Pure.

use serde_json::{Value, json};

use podbeat_published::{VERSION, source};

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The commit.
    pub commit: String,
    /// The tag or branch, such as `refs/tags/v1.2.3`.
    pub reference: String,
    /// Who built it, as a URI.
    pub builder: String,
    /// The run of the builder, as a URI.
    pub invocation: String,
    /// SHA-256 of Cargo.lock, which has the digest of each crate.
    pub lock: String,
    /// The first line of `rustc -vV`.
    pub rustc: String,
}

/// The predicate.
#[must_use]
pub fn predicate(build: &Build) -> Value {
    let source = source();
    let Build {
        commit,
        reference,
        builder,
        invocation,
        lock,
        rustc,
    } = build;
    json!({
        "buildDefinition": {
            "buildType": format!("{source}/blob/v{VERSION}/release/build.sh"),
            "externalParameters": {"repository": source, "ref": reference, "version": VERSION},
            "internalParameters": {"rustc": rustc},
            "resolvedDependencies": [
                {"uri": format!("git+{source}@{reference}"), "digest": {"gitCommit": commit}},
                {"uri": format!("git+{source}@{reference}#Cargo.lock"), "digest": {"sha256": lock}},
            ],
        },
        "runDetails": {
            "builder": {"id": builder},
            "metadata": {"invocationId": invocation},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_commit_and_the_builder() {
        let predicate = predicate(&Build {
            commit: "c0ffee".to_owned(),
            reference: "refs/tags/v1".to_owned(),
            builder: "https://example.com/builder".to_owned(),
            invocation: "https://example.com/run/1".to_owned(),
            lock: "00".to_owned(),
            rustc: "rustc 1".to_owned(),
        });
        let at = |path: &str| predicate.pointer(path).and_then(Value::as_str);
        let first = "/buildDefinition/resolvedDependencies/0";
        assert_eq!(at(&format!("{first}/digest/gitCommit")), Some("c0ffee"));
        let uri = format!("git+{}@refs/tags/v1", source());
        assert_eq!(at(&format!("{first}/uri")), Some(uri.as_str()));
        assert_eq!(
            at("/runDetails/builder/id"),
            Some("https://example.com/builder")
        );
    }
}

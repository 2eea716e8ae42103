//! What is generated and committed.
//! Here lives how it is held against what it is made of, and written anew with `just docs`.
//! Never here: what it says.

use std::path::Path;

use podbeat::config::{Environment, ProcessEnvironment};

/// Fails unless the file, by its path in the repository, holds just this. With `PODBEAT_WRITE_DOCS` it is written first.
pub(crate) fn is_up_to_date(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if ProcessEnvironment.get("PODBEAT_WRITE_DOCS").is_some() {
        std::fs::write(&path, made).expect("written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "{file} is out of date: run `just docs` and commit it"
    );
}

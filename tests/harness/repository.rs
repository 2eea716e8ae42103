//! The repository's own files.

use std::path::{Path, PathBuf};

use podbeat_interface::environment::{Environment, ProcessEnvironment};

/// The text of a file, by its path in the repository.
pub(crate) fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source file of podbeat and of its crates.
pub(crate) fn sources() -> Vec<PathBuf> {
    let (mut found, mut directories) =
        (Vec::new(), vec![root().join("src"), root().join("crates")]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Fails unless the file, by its path in the repository, has exactly the generated content. With
/// `PODBEAT_WRITE_DOCS`, writes it first.
pub(crate) fn is_up_to_date(file: &str, made: &str) {
    if ProcessEnvironment.get("PODBEAT_WRITE_DOCS").is_some() {
        std::fs::write(root().join(file), made).expect("written");
    }
    assert!(
        read(file) == made,
        "{file} is out of date: run `just docs` and commit it"
    );
}

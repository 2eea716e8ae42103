//! docs/protocol.md promises; the tests that it names must be there.

use crate::harness::repository::read;

const PROTOCOL: &str = include_str!("../docs/protocol.md");

/// The links of a text to Rust files: the test's name and the file.
fn links(text: &str) -> Vec<(&str, &str)> {
    text.split('[')
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once("](../")?;
            let (file, _) = rest.split_once(')')?;
            file.ends_with(".rs").then_some((name, file))
        })
        .collect()
}

/// Whether a file has a test of that name: a function right behind a test attribute, or one inside `proptest!`.
fn has_test(source: &str, name: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let attributes = before
        .rsplit_once('}')
        .map_or(before, |(_, attributes)| attributes);
    attributes.contains("#[test]") || attributes.contains("#[tokio::test")
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    for guarantee in ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8"] {
        let row = PROTOCOL
            .lines()
            .find(|line| line.starts_with(&format!("| {guarantee} |")))
            .unwrap_or_else(|| panic!("{guarantee} has no row"));
        assert!(!links(row).is_empty(), "{guarantee} names no test");
    }
    for (name, file) in links(PROTOCOL) {
        assert!(has_test(&read(file), name), "there is no test {name} in {file}");
    }
}

#[test]
fn a_test_that_is_gone_is_missed() {
    let source = "#[test]\nfn here() {}\n\nfn helper() {}\n";
    assert!(has_test(source, "here"));
    assert!(!has_test(source, "helper"));
    assert!(!has_test(source, "gone"));
}

//! Checks that the tests which docs/protocol.md names for its guarantees exist. Each test program
//! with such tests contains this module, and checks its own list of tests.

use std::process::Command;

const PROTOCOL: &str = include_str!("../docs/protocol.md");

/// The packages whose test programs contain this module, and the folders of their tests.
const FOLDERS: [(&str, &str); 3] = [
    ("podbeat", "tests/"),
    ("podbeat-heartbeat", "crates/heartbeat/src/"),
    ("podbeat-task-runs", "crates/task-runs/src/"),
];

/// The links to Rust files in a text: the test's name and the file.
fn links(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('[').skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once("](../")?;
        let (file, _) = rest.split_once(')')?;
        file.ends_with(".rs").then_some((name, file))
    })
}

/// The tests of this program, with their modules.
fn own_tests() -> Vec<String> {
    let itself = std::env::current_exe().expect("a test program");
    let output = Command::new(itself)
        .args(["--list", "--format", "terse"])
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let tests = text.lines().filter_map(|line| line.strip_suffix(": test"));
    tests.map(str::to_owned).collect()
}

#[test]
fn every_guarantee_names_tests() {
    for guarantee in ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8"] {
        let row = PROTOCOL
            .lines()
            .find(|line| line.starts_with(&format!("| {guarantee} |")))
            .unwrap_or_else(|| panic!("{guarantee} has no row"));
        assert!(links(row).next().is_some(), "{guarantee} names no test");
    }
    for (name, file) in links(PROTOCOL) {
        let is_asked = FOLDERS.iter().any(|(_, folder)| file.starts_with(folder));
        assert!(is_asked, "no test program checks {name} in {file}");
    }
}

#[test]
fn every_named_test_exists() {
    let (_, folder) = FOLDERS
        .into_iter()
        .find(|(package, _)| *package == env!("CARGO_PKG_NAME"))
        .expect("a package with such tests");
    let tests = own_tests();
    let mut named = 0;
    for (name, file) in links(PROTOCOL) {
        let Some(file) = file.strip_prefix(folder) else {
            continue;
        };
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let (head, tail) = (
            format!("{}::", module.replace('/', "::")),
            format!("::{name}"),
        );
        let is_there = tests
            .iter()
            .any(|test| test.starts_with(&head) && test.ends_with(&tail));
        assert!(is_there, "test {name} does not exist in {folder}{file}");
        named += 1;
    }
    assert!(named > 0, "{folder} has such tests");
}

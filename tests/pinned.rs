//! The actions that CI runs and the image's base images cannot change under the same name: actions
//! are pinned by commit, images by digest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::harness::repository::root;

/// Directories without our own source.
const ELSEWHERE: &[&str] = &["target", ".git", "node_modules"];

fn files(directory: &Path, wanted: fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && !path.is_symlink() && !ELSEWHERE.contains(&name) {
            found.extend(files(&path, wanted));
        } else if path.is_file() && wanted(&path) {
            found.push(path);
        }
    }
    found
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_pinned_image(image: &str) -> bool {
    image
        .split_once("@sha256:")
        .is_some_and(|(name, digest)| !name.is_empty() && is_hex(digest, 64))
}

/// The value of a YAML key in this line, without quotes, and the comment after it.
fn value<'line>(line: &'line str, key: &str) -> Option<(&'line str, &'line str)> {
    let line = line.trim_start().trim_start_matches("- ").trim_start();
    let rest = line.strip_prefix(key)?.strip_prefix(':')?;
    let (value, comment) = rest.split_once(" #").unwrap_or((rest, ""));
    Some((value.trim().trim_matches(['"', '\'']), comment.trim()))
}

/// The lines of a workflow or action that name something that can change: an action by tag or
/// branch, or an image by tag. The comment after an action names the commit's version.
fn loose_in_workflow(text: &str) -> Vec<&str> {
    let is_loose = |line: &&str| {
        if let Some((action, version)) = value(line, "uses") {
            let by_commit = || {
                let commit = action.split_once('@').map_or("", |(_, commit)| commit);
                is_hex(commit, 40) && version.starts_with('v') && version.contains('.')
            };
            return match action.strip_prefix("docker://") {
                Some(image) => !is_pinned_image(image),
                None => !action.starts_with("./") && !by_commit(),
            };
        }
        let images = ["image", "container"]
            .iter()
            .filter_map(|key| value(line, key));
        images.map(|(image, _)| image).any(|image| {
            !image.is_empty() && !is_pinned_image(image.trim_start_matches("docker://"))
        })
    };
    text.lines().filter(is_loose).collect()
}

/// The images of a Dockerfile that are not pinned, with the default values of its arguments. Stages
/// and `scratch` do not count.
fn loose_in_dockerfile(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let mut arguments: BTreeMap<&str, String> = BTreeMap::new();
    let (mut stages, mut loose) = (vec!["scratch".to_owned()], Vec::new());
    let syntax = joined
        .lines()
        .filter_map(|line| line.strip_prefix("# syntax="));
    loose.extend(
        syntax
            .filter(|image| !is_pinned_image(image))
            .map(str::to_owned),
    );
    for line in joined.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(instruction) = words.first().map(|word| word.to_uppercase()) else {
            continue;
        };
        match (instruction.as_str(), &words[1..]) {
            ("ARG", [argument, ..]) => {
                let (name, default) = argument.split_once('=').unwrap_or((*argument, ""));
                arguments.insert(name, default.to_owned());
            }
            ("FROM", rest) => {
                let mut rest = rest.iter().filter(|word| !word.starts_with("--"));
                let mut image = (*rest.next().expect("an image")).to_owned();
                for (name, default) in &arguments {
                    let braced = format!("${{{name}}}");
                    image = image
                        .replace(&braced, default)
                        .replace(&format!("${name}"), default);
                }
                if !stages.contains(&image) && !is_pinned_image(&image) {
                    loose.push(image);
                }
                stages.extend(rest.nth(1).map(|stage| (*stage).to_owned()));
            }
            (_, rest) => {
                let sources = rest
                    .iter()
                    .flat_map(|word| word.split(','))
                    .filter_map(|word| word.trim_start_matches("--").strip_prefix("from="));
                let others = sources.filter(|image| {
                    let is_number = image.bytes().all(|byte| byte.is_ascii_digit());
                    !is_number
                        && !stages.iter().any(|stage| stage == image)
                        && !is_pinned_image(image)
                });
                loose.extend(others.map(str::to_owned));
            }
        }
    }
    loose
}

#[test]
fn no_action_and_no_image_of_a_workflow_can_change() {
    let is_yaml = |path: &Path| {
        path.extension()
            .is_some_and(|end| end == "yml" || end == "yaml")
    };
    let workflows = files(&root().join(".github"), is_yaml);
    assert!(workflows.len() > 1, "{workflows:?}");
    for path in workflows {
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.contains("uses:"), "{}", path.display());
        let loose = loose_in_workflow(&text);
        assert!(loose.is_empty(), "{}: {loose:#?}", path.display());
    }
}

#[test]
fn no_base_image_can_change() {
    let is_dockerfile = |path: &Path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let name = name.to_lowercase();
        name.contains("dockerfile") && !name.ends_with(".sh") || name.contains("containerfile")
    };
    let all = files(root(), is_dockerfile);
    assert!(all.contains(&root().join("Dockerfile")), "{all:?}");
    for path in all {
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(text.contains("FROM "), "{}", path.display());
        let loose = loose_in_dockerfile(&text);
        assert!(loose.is_empty(), "{}: {loose:?}", path.display());
    }
}

#[test]
fn what_can_change_is_found() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let digest = format!("sha256:{}", "ab".repeat(32));
    let loose = [
        "      - uses: actions/checkout@v4".to_owned(),
        "        uses: actions/checkout@main # v4.1.0".to_owned(),
        // It does not show the version.
        format!("      - uses: \"actions/checkout@{commit}\""),
        format!("      - uses: actions/checkout@{} # v4.1.0", &commit[..39]),
        "      - uses: docker://alpine:3".to_owned(),
        "    container: rust:1".to_owned(),
        "        image: postgres".to_owned(),
    ];
    let pinned = [
        format!("      - uses: actions/cache/restore@{commit} # v4.1.0"),
        "      - uses: ./.github/actions/ours".to_owned(),
        format!("      - uses: docker://alpine@{digest}"),
        "    container:".to_owned(),
        format!("      image: rust:1@{digest}"),
    ];
    let text = [&loose[..], &pinned].concat().join("\n");
    assert_eq!(loose_in_workflow(&text), loose);

    let text = format!(
        "# syntax=docker/dockerfile:1\nARG TAG=1\nARG WHOLE=rust:1@{digest}\nFROM --platform=linux/amd64 rust:${{TAG}} AS build\n\
         from $WHOLE AS other\nFROM build\nFROM scratch\nCOPY --from=build /a /a\nCOPY --from=0 /a /a\nCOPY --from=alpine:3 /b /b\n\
         RUN --mount=type=bind,from=busybox,target=/c true\nFROM rust:1@{digest}\n"
    );
    assert_eq!(
        loose_in_dockerfile(&text),
        ["docker/dockerfile:1", "rust:1", "alpine:3", "busybox"]
    );
}

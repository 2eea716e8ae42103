//! Checks rules that Cargo cannot: which code reads a clock, a file or the environment, which code
//! knows the wire's spelling, and which modules are pure. Cargo enforces the direction between
//! crates (see ARCHITECTURE.md).

use std::fs;
use std::path::Path;

use crate::harness::repository::{root, sources};

/// Words that files with these path prefixes must not contain, and the reason.
struct Rule {
    within: &'static [&'static str],
    /// Exceptions: files, and folders (with a slash at their end).
    but_not: &'static [&'static str],
    forbidden: &'static [&'static str],
    why: &'static str,
}

/// Every crate that a user runs.
const ALL: &[&str] = &["src/", "crates/"];

/// Files and modules that do no I/O.
const PURE: &[&str] = &[
    "crates/heartbeat/src/",
    "crates/http-client/src/rejected.rs",
    "crates/http-client/src/route.rs",
    "crates/interface/src/parse.rs",
    "crates/interface/src/setting.rs",
    "crates/interface/src/terminal.rs",
    "crates/kubernetes/src/resource.rs",
    "crates/kubernetes/src/retries.rs",
    "crates/kubernetes/src/role.rs",
    "crates/kubernetes/src/status.rs",
    "crates/kubernetes/src/tasks.rs",
    "crates/kubernetes/src/watch/reconnect.rs",
    "crates/kubernetes/src/why.rs",
    "crates/laptop/src/show/",
    "crates/launch/src/launcher/state.rs",
    "crates/launch/src/limiter.rs",
    "crates/launch/src/manifests.rs",
    "crates/launch/src/order.rs",
    "crates/launch/src/placement.rs",
    "crates/launch/src/queue.rs",
    "crates/launch/src/seen.rs",
    "crates/launch/src/settings.rs",
    "crates/server/src/page/html/",
    "crates/server/src/page/json.rs",
    "crates/server/src/page/text.rs",
    "crates/server/src/page/view.rs",
    "crates/server/src/received.rs",
    "crates/runs/src/",
    "crates/server/src/store/list.rs",
    "crates/task-runs/src/http_date.rs",
    "crates/task-runs/src/model",
    "crates/interface/src/certificate.rs",
    "src/check/clock.rs",
    "src/check/deployed.rs",
    "crates/interface/src/finding.rs",
    "src/check/token.rs",
    "crates/interface/src/indexed.rs",
    "src/reap/outcome.rs",
    "crates/reap/src/",
];

const RULES: &[Rule] = &[
    Rule {
        within: PURE,
        but_not: &[],
        forbidden: &["::now(", "Instant", "SystemTime"],
        why: "pure code takes the time as an argument",
    },
    Rule {
        within: PURE,
        but_not: &[],
        forbidden: &[
            "std::fs",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "std::thread",
            "std::process",
            "podbeat_files",
            "tokio::",
            "tracing::",
            "Rng::new(",
        ],
        why: "pure code does no I/O and gets random numbers as arguments",
    },
    Rule {
        within: ALL,
        but_not: &["crates/interface/src/environment.rs"],
        forbidden: &["env::var"],
        why: "the environment is read once, in crates/interface/src/environment.rs",
    },
    Rule {
        within: ALL,
        but_not: &["crates/files/"],
        forbidden: &[
            "fs::read(",
            "fs::read_to_string",
            "fs::write(",
            "File::open",
            "File::create",
            "tokio::fs",
        ],
        why: "files are read and replaced only in crates/files, without blocking and up to a limit",
    },
    Rule {
        within: ALL,
        but_not: &[
            "crates/task-runs/src/model",
            "crates/kubernetes/src/resource.rs",
        ],
        forbidden: &[
            "podUID",
            "containerID",
            "pageToken",
            "pageSize",
            "blockSizeMB",
            "cacheSizeGB",
        ],
        why: "only the API's model contains names of the wire format, and only the parsed slice of a pod those of Kubernetes",
    },
    Rule {
        within: ALL,
        // The log and the wrapper escape their texts themselves.
        but_not: &[
            "src/main.rs",
            "src/laptop.rs",
            "crates/interface/src/log.rs",
            "crates/server/src/main.rs",
            "src/exec/mod.rs",
        ],
        forbidden: &["io::stdout", "io::stderr"],
        why: "commands write through terminal::Inert, which main.rs wraps around both streams",
    },
    Rule {
        within: ALL,
        but_not: &[],
        forbidden: &["process::exit", "unbounded_channel"],
        why: "no abrupt exit and no unbounded queue",
    },
    Rule {
        within: &["src/exec/"],
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::telemetry",
            "podbeat_kubernetes",
            "podbeat_task_runs",
            "tokio::",
            "tracing::",
        ],
        why: "in the task's container, podbeat only runs a command",
    },
    Rule {
        within: &["src/agent/", "src/telemetry/"],
        but_not: &[],
        forbidden: &["crate::cli", "crate::exec", "podbeat_laptop"],
        why: "the agent is below the command line and does not depend on other commands",
    },
    Rule {
        within: &[
            "crates/laptop/src/explain/",
            "crates/laptop/src/observe/",
            "crates/laptop/src/runs/",
            "src/check/",
            "src/reap/",
        ],
        but_not: &[],
        forbidden: &["crate::agent", "crate::cli", "crate::telemetry", "clap::"],
        why: "a command depends neither on the agent nor on the definition of the command line",
    },
    Rule {
        within: &["crates/laptop/src/explain/", "src/check/"],
        but_not: &[],
        forbidden: &["HeartbeatTaskRunRequest"],
        why: "commands that only read send no heartbeat",
    },
    Rule {
        within: &[
            "crates/interface/src/environment.rs",
            "crates/interface/src/parse.rs",
            "crates/interface/src/reader.rs",
            "crates/interface/src/setting.rs",
            "src/config.rs",
        ],
        but_not: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "podbeat_heartbeat::machine",
            "podbeat_kubernetes::ask",
            "podbeat_kubernetes::watch::PodWatch",
            "podbeat_laptop",
            "podbeat_task_runs::client",
        ],
        why: "settings do not depend on their users",
    },
];

impl Rule {
    fn applies_to(&self, file: &str) -> bool {
        let begins = |part: &&str| file.starts_with(*part);
        self.within.iter().any(begins) && !self.but_not.iter().any(begins)
    }
}

fn breaches(file: &str, text: &str) -> Vec<String> {
    let code = code_only(text);
    let rules = RULES.iter().filter(|rule| rule.applies_to(file));
    rules
        .flat_map(|rule| {
            let found = rule.forbidden.iter().filter(|word| names(&code, word));
            found.map(move |word| format!("{file} names {word}: {}", rule.why))
        })
        .collect()
}

/// The code without comments and without items marked `#[cfg(test)]`. It keeps string literals,
/// because they contain the wire's spelling.
fn code_only(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("#[cfg(test)]") {
        let (before, behind) = rest.split_at(at);
        code.push_str(before);
        rest = behind.get(item(behind)..).unwrap_or_default();
    }
    code.push_str(rest);
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The length of the item at the start of the text, including its attributes. The item ends at `;`,
/// `,` or its closing brace.
fn item(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut tokens = Tokens(text, 0);
    while let Some((at, token)) = tokens.next() {
        match token {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                // The end of the enclosing item: a member without a comma after it.
                let Some(left) = depth.checked_sub(1) else {
                    return at;
                };
                depth = left;
                if token == '}' && depth == 0 {
                    return at + 1;
                }
            }
            ';' | ',' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The characters of code, except those in comments and quotes.
struct Tokens<'text>(&'text str, usize);

impl Tokens<'_> {
    fn next(&mut self) -> Option<(usize, char)> {
        loop {
            let rest = self.0.get(self.1..)?;
            let first = rest.chars().next()?;
            let skipped = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("r#\"") {
                rest.get(3..)?.find("\"#").map_or(rest.len(), |end| end + 5)
            } else if first == '"' {
                quoted(rest)
            } else if let Some(length) = character(rest) {
                length
            } else {
                let at = self.1;
                self.1 += first.len_utf8();
                return Some((at, first));
            };
            self.1 += skipped;
        }
    }
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of a character literal, such as `'{'`. `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let mut letters = inner.char_indices();
    let (_, first) = letters.next()?;
    let end = if first == '\\' {
        inner.get(2..)?.find('\'')? + 2
    } else {
        letters.next()?.0
    };
    (inner.get(end..)?.starts_with('\'')).then_some(end + 2)
}

/// Whether the code contains the word, and not as the end of a longer path segment. `use` groups
/// are expanded: `use crate::{a, b}` contains `crate::a` and `crate::b`.
fn names(code: &str, word: &str) -> bool {
    let stands_alone = |at: usize| {
        if word.starts_with(':') {
            return true;
        }
        let before = code.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
    };
    if code.match_indices(word).any(|(at, _)| stands_alone(at)) {
        return true;
    }
    let Some((head, tail)) = word.rsplit_once("::").filter(|(_, tail)| !tail.is_empty()) else {
        return false;
    };
    code.split(';')
        .filter_map(|statement| statement.split_once(&format!("{head}::{{")))
        .any(|(_, group)| {
            group
                .split([',', '{', '}'])
                .any(|item| item.trim().split("::").next() == Some(tail.trim_end_matches('(')))
        })
}

/// Whether the file is a module only for tests: its `mod` follows `#[cfg(test)]`, or it belongs to
/// the integration tests of a crate.
fn is_for_tests(file: &str) -> bool {
    [
        "/tests.rs",
        "/captured.rs",
        "/real_pods.rs",
        "/outage.rs",
        "/read_back.rs",
    ]
    .iter()
    .any(|name| file.ends_with(name))
        || file.starts_with("crates/heartbeat/src/simulation/")
        || (file.starts_with("crates/") && file.contains("/tests/"))
}

fn all_sources() -> Vec<(String, String)> {
    let named = |path: &Path| {
        let file = path.strip_prefix(root()).expect("in the repository");
        file.to_string_lossy().into_owned()
    };
    let all = sources().into_iter();
    all.map(|path| (named(&path), fs::read_to_string(&path).expect("readable")))
        .filter(|(file, _)| !is_for_tests(file))
        .collect()
}

#[test]
fn nothing_breaks_a_rule() {
    let files = all_sources();
    assert!(files.len() > 100, "the sources are found: {}", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|(file, text)| breaches(file, text))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_rule_is_about_files_that_exist() {
    let files = all_sources();
    for part in RULES
        .iter()
        .flat_map(|rule| rule.within.iter().chain(rule.but_not))
    {
        assert!(
            files.iter().any(|(file, _)| file.starts_with(part)),
            "{part}"
        );
    }
}

/// Plants each forbidden word in the middle of each file, after an item for tests.
#[test]
fn a_violation_in_the_middle_of_a_file_is_found() {
    let mut planted = 0;
    for (file, text) in all_sources() {
        let lines: Vec<&str> = text.lines().collect();
        let Some(place) = middle(&lines) else {
            continue;
        };
        let (before, behind) = lines.split_at(place);
        let (before, behind) = (before.join("\n"), behind.join("\n"));
        for rule in RULES.iter().filter(|rule| rule.applies_to(&file)) {
            for word in rule.forbidden {
                let test = "#[cfg(test)]\nfn only_a_test() { let brace = '{'; }";
                let breach =
                    format!("{before}\n{test}\nfn planted() {{ let it = {word}; }}\n{behind}");
                assert!(
                    breaches(&file, &breach)
                        .iter()
                        .any(|found| found.contains(word)),
                    "{file}:{place}: {word}"
                );
                planted += 1;
            }
        }
    }
    assert!(planted > 1000, "planted: {planted}");
}

/// The line nearest to the middle of a file that is above the file's tests and between two items.
fn middle(lines: &[&str]) -> Option<usize> {
    let begins = |line: &str| {
        ["fn ", "pub fn ", "impl"]
            .iter()
            .any(|word| line.starts_with(word))
    };
    let tests = lines.iter().position(|line| *line == "#[cfg(test)]");
    let tests = tests.unwrap_or(lines.len());
    let items = (0..lines.len()).filter(|at| *at <= tests && begins(lines[*at]));
    let mut place = items.min_by_key(|at| at.abs_diff(lines.len() / 2))?;
    // Attributes and comments belong to the item below them.
    let belongs = |line: &str| line.starts_with("#[") || line.starts_with("//");
    while place > 0 && belongs(lines[place - 1]) {
        place -= 1;
    }
    Some(place)
}

#[test]
fn allowed_code_is_not_reported() {
    for (file, text) in [
        (
            "crates/heartbeat/src/machine/mod.rs",
            "// tokio::time is for the shell\nuse crate::observation::Observation;",
        ),
        (
            "crates/heartbeat/src/machine/mod.rs",
            "struct A {\n    #[cfg(test)]\n    at: Instant,\n}\n#[cfg(test)]\nmod tests {\n    use tokio::time;\n}\nfn f() {}",
        ),
        (
            "crates/heartbeat/src/machine/mod.rs",
            "fn f() {\n    #[cfg(test)]\n    let at = \"{\".len() + Instant::now();\n}",
        ),
        (
            "src/check/files.rs",
            "let names = std::fs::read_dir(directory);",
        ),
        (
            "crates/task-runs/src/model/heartbeat.rs",
            "#[serde(rename = \"podUID\")]",
        ),
    ] {
        assert_eq!(breaches(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

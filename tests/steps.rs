//! What CI prints, whatever happens to its steps: `.ci/steps.sh`, with steps that take no time.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::LIMIT;
use crate::harness::repository::root;

struct Run {
    code: Option<i32>,
    out: String,
}

impl Run {
    /// The rows of the table: result and step.
    fn table(&self) -> Vec<(&str, &str)> {
        let lines = self
            .out
            .lines()
            .skip_while(|line| *line != " start  seconds  result  step");
        let rows = lines.skip(1).take_while(|line| !line.is_empty());
        rows.map(|line| (line[17..24].trim(), &line[25..]))
            .collect()
    }

    fn ends_with(&self, lines: &[&str]) {
        let all: Vec<&str> = self.out.lines().collect();
        assert!(all.ends_with(lines), "{}", self.out);
    }
}

/// Runs a script in this directory, with the functions for steps and its own cache.
fn bash(directory: &Path, cache: &Path, script: &str) -> Run {
    let steps = root().join(".ci");
    let script = format!(
        "set -euo pipefail; ln -sfn {} .ci; . .ci/steps.sh\n{script}",
        steps.display()
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory)
        .env("XDG_CACHE_HOME", cache)
        .output()
        .expect("bash runs");
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text")
            + &String::from_utf8_lossy(&output.stderr),
    }
}

fn run(script: &str) -> Run {
    let (directory, cache) = (directory(), directory());
    bash(directory.path(), cache.path(), script)
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_run_ends_with_a_table_and_the_counts_of_all_steps() {
    let run = run(r#"
        step "unit tests" echo "test result: ok. 3 passed; 1 failed; 0 ignored"
        beside "somebody's build" sh -c 'echo "20 passed, 0 failed"'
        step "nothing counted" echo "about 5 passed, 5 failed"
        joined "somebody's build"
    "#);
    assert_eq!(run.code, Some(0), "{}", run.out);
    assert_eq!(
        run.table(),
        [
            ("passed", "unit tests"),
            ("passed", "nothing counted"),
            (
                "passed",
                "somebody's build (in the background, waited for 0 s)"
            ),
            ("", "all of it"),
        ]
    );
    run.ends_with(&["", "23 passed, 1 failed"]);
}

#[test]
fn a_failed_step_ends_the_run_and_is_named_last_with_its_command() {
    let run = run(r#"
        step "one" true
        step "two words" sh -c 'echo "2 passed, 1 failed"; exit 3' "an argument"
        step "three" echo reached
    "#);
    assert_eq!(run.code, Some(1), "{}", run.out);
    assert!(!run.out.contains("reached"), "{}", run.out);
    assert_eq!(
        run.table(),
        [
            ("passed", "one"),
            ("failed", "two words"),
            ("", "all of it")
        ]
    );
    run.ends_with(&[
        "2 passed, 1 failed",
        "",
        "failed: two words",
        r#"to repeat it alone: sh -c echo\ \"2\ passed\,\ 1\ failed\"\;\ exit\ 3 an\ argument"#,
    ]);
}

#[test]
fn a_nightly_run_continues_after_failed_steps_and_names_all_of_them() {
    let run = run(r#"
        keep_going=1
        beside "built" sh -c 'echo "in the background"; exit 7'
        step "one" false
        joined "built"
        step "three" true
    "#);
    assert_eq!(run.code, Some(1), "{}", run.out);
    assert!(run.out.contains("in the background"), "{}", run.out);
    run.ends_with(&[
        "failed: one",
        "to repeat it alone: false",
        "",
        "failed: built (in the background, waited for 0 s)",
        r#"to repeat it alone: sh -c echo\ \"in\ the\ background\"\;\ exit\ 7"#,
    ]);
}

#[test]
fn a_failed_step_in_the_background_ends_the_run_where_it_is_joined() {
    let run = run(r#"
        beside "built" false
        joined "built"
        step "next" echo reached
    "#);
    assert_eq!(run.code, Some(1), "{}", run.out);
    assert!(!run.out.contains("reached"), "{}", run.out);
}

/// A step that was killed leaves no result to read.
#[test]
fn a_killed_step_in_the_background_has_failed() {
    let run = run(r#"
        beside "built" sh -c 'kill -KILL -- -$(ps -o pgid= $$ | tr -d " ")'
        joined "built"
    "#);
    assert_eq!(run.code, Some(1), "{}", run.out);
    assert_eq!(run.table()[0].0, "failed", "{}", run.out);
}

#[test]
fn background_steps_end_with_the_run() {
    let directory = directory();
    let run = bash(
        directory.path(),
        directory.path(),
        r#"
        beside "for ever" sh -c 'echo $$ >pid; exec sleep 1000'
        step "it runs" sh -c 'until [ -s pid ]; do sleep 0.01; done'
        step "broken" false
    "#,
    );
    assert_eq!(
        run.table(),
        [
            ("passed", "it runs"),
            ("failed", "broken"),
            ("ended", "for ever (in the background)"),
            ("", "all of it"),
        ]
    );
    let pid = std::fs::read_to_string(directory.path().join("pid")).expect("it ran");
    let stat = Path::new("/proc").join(pid.trim()).join("stat");
    let begun = Instant::now();
    // It is a zombie until its new parent waits for it.
    while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(begun.elapsed() < LIMIT, "it still runs: {}", run.out);
        std::thread::yield_now();
    }
}

/// A checkout with the lock files that share_target reads.
fn checkout(locked: &str) -> TempDir {
    let checkout = directory();
    std::fs::create_dir(checkout.path().join("fuzz")).expect("made");
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        std::fs::write(checkout.path().join(file), locked).expect("written");
    }
    let made = Command::new("sh")
        .args([
            "-c",
            "git init --quiet . && git add Cargo.lock && touch --date=2000-01-01 Cargo.lock",
        ])
        .current_dir(checkout.path())
        .status();
    assert!(made.expect("git runs").success());
    checkout
}

#[test]
fn checkouts_share_one_target_directory_for_each_lock_file() {
    let cache = directory();
    let share = |checkout: &TempDir| {
        bash(
            checkout.path(),
            cache.path(),
            "share_target; readlink target",
        )
    };
    let target = |run: &Run| run.out.lines().next().unwrap_or_default().to_owned();
    let first = checkout("one");
    let shared = target(&share(&first));
    assert!(Path::new(&shared).starts_with(cache.path()), "{shared}");
    assert_eq!(target(&share(&checkout("one"))), shared);

    // The files of a checkout are newer than the build output of another one.
    let modified =
        std::fs::metadata(first.path().join("Cargo.lock")).and_then(|file| file.modified());
    assert!(
        modified.expect("a time")
            >= std::fs::metadata(&shared)
                .and_then(|file| file.created())
                .expect("a time")
    );

    let other = target(&share(&checkout("other")));
    assert!(other != shared && Path::new(&other).exists(), "{other}");
    assert!(
        !Path::new(&shared).exists(),
        "of old lock files nothing is kept"
    );

    // The link is broken now, and share_target creates it again.
    assert_eq!(target(&share(&first)), shared);
}

#[test]
fn a_checkout_keeps_its_own_target_directory_and_so_does_a_second_run_at_the_same_time() {
    let cache = directory();
    let own = checkout("one");
    std::fs::create_dir(own.path().join("target")).expect("made");
    let run = bash(own.path(), cache.path(), "share_target; [ ! -L target ]");
    assert_eq!(run.code, Some(0), "{}", run.out);

    let (busy, second) = (checkout("one"), checkout("one"));
    let script = format!(
        "share_target; [ -L target ]; cd {}; share_target; [ ! -e target ]",
        second.path().display()
    );
    let run = bash(busy.path(), cache.path(), &script);
    assert_eq!(run.code, Some(0), "{}", run.out);
}

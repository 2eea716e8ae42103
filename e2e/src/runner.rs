//! The common parts of all programs: building what they need, entering the namespaces, printing,
//! and formatting errors.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use podbeat_lab::fleet::figures::Figures;

use crate::node::namespaces::{self, Stage};
use crate::{Error, node};

/// The repository from which this was built.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Prints a line. A closed standard output doesn't stop the program.
pub fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Runs the program in its own namespaces. `prepare` runs before, while the machine's network is
/// available. `resident` runs inside, with its root.
pub fn in_namespaces(
    arguments: &[OsString],
    prepare: impl FnOnce() -> Result<(), ExitCode>,
    resident: impl AsyncFnOnce(&Path) -> ExitCode,
) -> ExitCode {
    let failed = |error: Error| {
        say(&chain(&error));
        ExitCode::FAILURE
    };
    let stage = Stage::read();
    if stage == Stage::Init {
        return namespaces::init(arguments).unwrap_or_else(failed);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match stage {
        Stage::Resident(root) => runtime.block_on(resident(&root)),
        Stage::Outside | Stage::Init => {
            if let Err(code) = prepare() {
                return code;
            }
            let live = async {
                node::check()?;
                namespaces::live(arguments).await
            };
            runtime.block_on(live).unwrap_or_else(failed)
        }
    }
}

/// The directory with etcd and Kubernetes, built if necessary. The script reports what is missing.
///
/// # Errors
/// The script's exit code.
pub fn build() -> Result<PathBuf, ExitCode> {
    built("e2e/build.sh")
}

/// The directory with helm, helm-docs, promtool and the definitions of prometheus-operator's kinds,
/// built if necessary.
///
/// # Errors
/// The script's exit code.
pub fn build_tools() -> Result<PathBuf, ExitCode> {
    built("e2e/tools/build.sh")
}

fn built(script: &str) -> Result<PathBuf, ExitCode> {
    let script = repository().join(script);
    let output = Command::new("bash")
        .arg(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(PathBuf::from(
            String::from_utf8_lossy(&output.stdout).trim(),
        )),
        Ok(output) => Err(ExitCode::from(
            output
                .status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        )),
        Err(error) => {
            say(&format!("can't run {}: {error}", script.display()));
            Err(ExitCode::FAILURE)
        }
    }
}

/// One played scenario.
#[derive(Clone, Debug)]
pub struct Played {
    /// The name.
    pub name: String,
    /// The duration.
    pub took: Duration,
    /// Whether it passed.
    pub passed: bool,
}

/// All played scenarios.
#[derive(Clone, Debug, Default)]
pub struct Outcome(pub Vec<Played>);

impl FromIterator<Played> for Outcome {
    fn from_iter<T: IntoIterator<Item = Played>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

impl Outcome {
    /// Prints the verdicts with the failures last, one line about all, and the counts. It is a
    /// failure if nothing was played.
    #[must_use]
    pub fn tell(&self, about: &str) -> ExitCode {
        say("");
        let of = |passed: bool| self.0.iter().filter(move |one| one.passed == passed);
        for (verdict, passed) in [("PASS", true), ("FAIL", false)] {
            for one in of(passed) {
                say(&format!(
                    "{verdict} {:6.1} s  {}",
                    one.took.as_secs_f64(),
                    one.name
                ));
            }
        }
        let (passed, failed) = (of(true).count(), of(false).count());
        say(about);
        say(&format!("{passed} passed, {failed} failed"));
        if failed == 0 && passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Writes and prints a measurement, with the counts of its limits.
#[must_use]
pub fn report(figures: &Figures, output: &Path) -> ExitCode {
    if let Err(error) = figures.write(output) {
        return unmeasured(&error.into());
    }
    let (limits, kept) = figures.kept();
    say(&format!(
        "\n{}\nwritten to {}",
        figures.table(),
        output.display()
    ));
    say(&format!("{kept} passed, {} failed", limits - kept));
    if kept == limits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints why there is no measurement.
#[must_use]
pub fn unmeasured(error: &Error) -> ExitCode {
    say(&chain(error));
    say("0 passed, 1 failed");
    ExitCode::FAILURE
}

/// Formats an error with all its causes on one line.
#[must_use]
pub fn chain(error: &Error) -> String {
    podbeat_lab::chain(error)
}

/// The message about an unknown scenario. It lists the scenarios with their descriptions.
#[must_use]
pub fn no_such_scenario(asked: &str, all: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let all: Vec<String> = all
        .iter()
        .map(|(name, shows)| format!("  {}: {}", name.as_ref(), shows.as_ref()))
        .collect();
    format!(
        "unknown scenario {asked}; the scenarios are\n{}",
        all.join("\n")
    )
}

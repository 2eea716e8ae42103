//! What both programs do around their scenarios: build Kubernetes, say what happens, and put errors into words.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::Error;

/// The repository that this was built from.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// One line of output. Nobody reading it is no reason to stop.
pub fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The directory with etcd and Kubernetes, built if need be. The script says what is missing.
///
/// # Errors
/// The script's own exit code.
pub fn build() -> Result<PathBuf, ExitCode> {
    let script = repository().join("e2e/build.sh");
    let output = Command::new("bash")
        .arg(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
        }
        Ok(output) => Err(ExitCode::from(
            output
                .status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1),
        )),
        Err(error) => {
            say(&format!("{} can't be run: {error}", script.display()));
            Err(ExitCode::FAILURE)
        }
    }
}

/// An error with all its causes, on one line.
#[must_use]
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

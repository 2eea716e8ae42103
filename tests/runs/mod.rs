//! `podbeat runs` as a process, against the stand-in service and against a small server that
//! answers as a test requires.

mod completion;
mod flags;
mod manual;
mod operations;
mod pages;
mod profiles;
mod troubles;
mod waiting;

use tokio::process::Command;

use crate::harness::binary::podbeat;
use crate::harness::server::TOKEN;

/// `podbeat runs` with the service's URL and the token.
fn runs(url: &str, arguments: &[&str]) -> Command {
    let mut command = podbeat();
    command
        .env("PODBEAT_SERVICE_URL", url)
        .env("PODBEAT_TOKEN", TOKEN)
        .arg("runs")
        .args(arguments);
    command
}

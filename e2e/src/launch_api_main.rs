//! `launch-api [--server FILE] [--output FILE] ENDS STAYS`: many runs on a real kube-apiserver,
//! without a node. The exit code is 1 if a limit is exceeded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use podbeat_e2e::cluster::Cluster;
use podbeat_e2e::launch::crowd;
use podbeat_e2e::runner::{build, report, repository, say, unmeasured};
use podbeat_lab::interrupt::or_interrupted;

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut server = repository().join("target/debug/podbeat-server");
    let mut output = repository().join("target/fleet/launch.json");
    let mut numbers = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut path = || arguments.next().map(PathBuf::from).unwrap_or_default();
        match argument.as_str() {
            "--server" => server = path(),
            "--output" => output = path(),
            number => numbers.extend(number.parse::<usize>().ok()),
        }
    }
    let [ends, stays] = numbers.as_slice() else {
        say("usage: launch-api [--server FILE] [--output FILE] ENDS STAYS");
        return ExitCode::from(64);
    };
    or_interrupted(Box::pin(all(server, &output, (*ends, *stays))), say).await
}

async fn all(server: PathBuf, output: &Path, runs: (usize, usize)) -> ExitCode {
    let programs = match build() {
        Ok(programs) => programs,
        Err(code) => return code,
    };
    let cluster = match Cluster::start_with(&programs, crowd::audited).await {
        Ok(cluster) => cluster,
        Err(error) => return unmeasured(&error),
    };
    let figures = match Box::pin(crowd::run(cluster, server, runs)).await {
        Ok(figures) => figures,
        Err(error) => return unmeasured(&error),
    };
    report(&figures, output)
}

//! `fleet-api [--lab PATH] [--server PATH] [--output FILE] AGENTS`: a fleet with a real
//! kube-apiserver. The exit code is 1 if a limit is exceeded.

use std::path::PathBuf;
use std::process::ExitCode;

use podbeat_e2e::cluster::Cluster;
use podbeat_e2e::fleet::{self, Options};
use podbeat_e2e::runner::{build, chain, report, repository, say, unmeasured};
use podbeat_e2e::tail;
use podbeat_lab::interrupt::or_interrupted;

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = Options {
        agents: 0,
        lab: repository().join("target/debug/podbeat-lab"),
        server: repository().join("target/debug/podbeat-server"),
    };
    let mut output = repository().join("target/fleet/api.json");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut path = || arguments.next().map(PathBuf::from).unwrap_or_default();
        match argument.as_str() {
            "--lab" => options.lab = path(),
            "--server" => options.server = path(),
            "--output" => output = path(),
            number => options.agents = number.parse().unwrap_or(0),
        }
    }
    if options.agents == 0 {
        say("usage: fleet-api [--lab PATH] [--server PATH] [--output FILE] AGENTS");
        return ExitCode::from(64);
    }
    or_interrupted(Box::pin(all(&options, &output)), say).await
}

async fn all(options: &Options, output: &std::path::Path) -> ExitCode {
    let programs = match build() {
        Ok(programs) => programs,
        Err(code) => return code,
    };
    let mut cluster = match Cluster::start_with(&programs, fleet::audited).await {
        Ok(cluster) => cluster,
        Err(error) => return unmeasured(&error),
    };
    say(&format!(
        "{} agents, Kubernetes {}",
        options.agents,
        cluster
            .version()
            .await
            .unwrap_or_else(|error| chain(&error))
    ));
    let figures = match fleet::run(&mut cluster, options).await {
        Ok(figures) => figures,
        Err(error) => {
            say(&tail(&cluster.path("apiserver.log")));
            return unmeasured(&error);
        }
    };
    report(&figures, output)
}

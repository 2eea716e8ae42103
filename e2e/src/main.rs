//! `e2e-api --podbeat PATH --laptop PATH [SCENARIO…]`: the scenarios with a real kube-apiserver.
//! Without a scenario, it runs all of them.

use std::path::PathBuf;
use std::process::ExitCode;

use podbeat_e2e::api_scenarios::{self, ALL, Stage};
use podbeat_e2e::cluster::Cluster;
use podbeat_e2e::runner::{build, chain, repository, say};
use podbeat_e2e::tail;
use podbeat_lab::interrupt::or_interrupted;
use tokio::time::Instant;

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (mut podbeat, mut laptop) = (None, None);
    let mut chosen = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--podbeat" => podbeat = arguments.next().map(PathBuf::from),
            "--laptop" => laptop = arguments.next().map(PathBuf::from),
            name if ALL.iter().any(|(known, _)| *known == name) => chosen.push(argument),
            other => {
                let names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
                say(&format!(
                    "unknown scenario {other}; the scenarios are {}",
                    names.join(", ")
                ));
                return ExitCode::from(64);
            }
        }
    }
    let (Some(podbeat), Some(laptop)) = (podbeat, laptop) else {
        say(
            "--podbeat and --laptop are required: the two builds of podbeat. `just e2e-api` builds and passes them",
        );
        return ExitCode::from(64);
    };
    // Ctrl-C and SIGTERM drop the work, which ends everything that it started.
    or_interrupted(Box::pin(all(podbeat, laptop, &chosen)), say).await
}

async fn all(podbeat: PathBuf, laptop: PathBuf, chosen: &[String]) -> ExitCode {
    let programs = match build() {
        Ok(programs) => programs,
        Err(code) => return code,
    };
    let begun = Instant::now();
    let cluster = match Cluster::start(&programs).await {
        Ok(cluster) => cluster,
        Err(error) => {
            say(&format!("the cluster did not start: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let version = cluster
        .version()
        .await
        .unwrap_or_else(|error| chain(&error));
    say(&format!(
        "Kubernetes {version}, ready after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    let mut stage = Stage {
        cluster,
        podbeat,
        laptop,
        captures: repository().join("tests/captures"),
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, shows) in ALL {
        if !chosen.is_empty() && !chosen.iter().any(|chosen| chosen == name) {
            continue;
        }
        say(&format!("{name}: {shows}"));
        let begun = Instant::now();
        let outcome = api_scenarios::run(&mut stage, name).await;
        let took = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                say(&format!("  PASS in {took:.1} s"));
            }
            Err(error) => {
                failed += 1;
                say(&format!("  FAIL in {took:.1} s: {}", chain(&error)));
                say(&format!(
                    "  podbeat's log:\n{}",
                    tail(&stage.cluster.path(name).join("podbeat.log"))
                ));
            }
        }
    }
    say(&format!("Kubernetes {version}"));
    say(&format!("{passed} passed, {failed} failed"));
    if failed == 0 && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

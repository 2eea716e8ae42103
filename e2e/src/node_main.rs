//! `e2e [--image FILE] [--record DIR] [--facts] [SCENARIO…]`: whole pod lives on a real node.
//! Without a scenario, it runs all of them. `--facts` selects those that show every fact of
//! docs/kubernetes-facts.md.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use podbeat_e2e::runner::{build, chain, in_namespaces, no_such_scenario, repository, say};
use podbeat_e2e::scenarios;
use podbeat_e2e::scenarios::play::Stage;
use tokio::time::Instant;

fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let asked = match Asked::read(&arguments) {
        Ok(asked) => asked,
        Err(problem) => {
            say(&problem);
            return ExitCode::from(64);
        }
    };
    // Built now, while the network is still available.
    in_namespaces(
        &arguments,
        || build().map(drop),
        async |root| Box::pin(resident(root, &asked)).await,
    )
}

/// The command line's arguments.
struct Asked {
    image: PathBuf,
    record: Option<PathBuf>,
    scenarios: Vec<String>,
}

impl Asked {
    fn read(arguments: &[OsString]) -> Result<Self, String> {
        let mut asked = Self {
            image: repository().join("target/image/podbeat.tar"),
            record: None,
            scenarios: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut path = || {
                rest.next()
                    .map(PathBuf::from)
                    .ok_or("a path is missing at the end")
            };
            match argument.to_str().unwrap_or_default() {
                "--image" => asked.image = path()?,
                "--record" => asked.record = Some(path()?),
                "--facts" => asked.scenarios.extend(scenarios::FACTS.map(str::to_owned)),
                name if scenarios::is_known(name) => asked.scenarios.push(name.to_owned()),
                other => return Err(no_such_scenario(other, &scenarios::list())),
            }
        }
        Ok(asked)
    }
}

async fn resident(root: &Path, asked: &Asked) -> ExitCode {
    let programs = match build() {
        Ok(programs) => programs,
        Err(code) => return code,
    };
    let begun = Instant::now();
    let stage = match Stage::raise(root, &programs, &asked.image, asked.record.clone()).await {
        Ok(stage) => Arc::new(stage),
        Err(error) => {
            say(&format!("the node did not start: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    let version = stage.cluster.lock().await.version().await;
    let version = version.unwrap_or_else(|error| chain(&error));
    say(&format!(
        "Kubernetes {version}, node ready after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    let outcome = Box::pin(scenarios::play(&stage, &asked.scenarios)).await;
    outcome.tell(&format!(
        "Kubernetes {version}: {} scenarios in {:.0} s, including the start of the node",
        outcome.0.len(),
        begun.elapsed().as_secs_f64()
    ))
}

//! `e2e-launch [--image FILE] [--server FILE] [RUN…]`: podbeat-server launches runs on a real node.
//! Without a name, it plays the whole table. `--up [--server-image FILE]` installs both charts with
//! Helm, and leaves the node running. `--relay` passes connections from the machine's loopback to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use podbeat_e2e::deploy::tools::Tools;
use podbeat_e2e::launch::ground::Ground;
use podbeat_e2e::launch::table::CASES;
use podbeat_e2e::launch::up::{self, Up};
use podbeat_e2e::launch::{self, server};
use podbeat_e2e::runner::{
    Outcome, build, build_tools, chain, in_namespaces, no_such_scenario, repository, say,
};
use podbeat_e2e::scenarios::play::Stage;
use podbeat_e2e::{Error, node, tail};
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
    if asked.relays {
        return relay();
    }
    // Built now, while the network is still available.
    let prepare = || match asked.is_up {
        true => build().and_then(|_| build_tools()).map(drop),
        false => build().map(drop),
    };
    in_namespaces(&arguments, prepare, async |root| match asked.is_up {
        true => Box::pin(stay(root, &asked)).await,
        false => resident(root, &asked).await,
    })
}

fn relay() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = runtime.block_on(up::relay()) {
        say(&chain(&error));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Installs both charts, and keeps the node until the process ends.
async fn stay(root: &Path, asked: &Asked) -> ExitCode {
    let (programs, tools) = match (build(), build_tools()) {
        (Ok(programs), Ok(tools)) => (programs, tools),
        (Err(code), _) | (_, Err(code)) => return code,
    };
    let kept = async {
        let (cluster, _node) = node::raise(root, &programs, &asked.image).await?;
        let tools = Tools {
            kubernetes: programs.clone(),
            tools,
            home: root.join("home"),
            kubeconfig: Some(cluster.admin_kubeconfig()),
        };
        let up = Up::install(&cluster, tools, root, &asked.server_image).await?;
        let token = up.token().await?;
        up.explain(&cluster, &token)?;
        up.serve().await
    };
    match Box::pin(kept).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The command line's arguments.
struct Asked {
    image: PathBuf,
    server: Option<PathBuf>,
    server_image: PathBuf,
    is_up: bool,
    relays: bool,
    runs: Vec<String>,
}

impl Asked {
    fn read(arguments: &[OsString]) -> Result<Self, String> {
        let mut asked = Self {
            image: repository().join("target/image/podbeat.tar"),
            server: None,
            server_image: repository().join("target/image/podbeat-server.tar"),
            is_up: false,
            relays: false,
            runs: Vec::new(),
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
                "--server" => asked.server = Some(path()?),
                "--server-image" => asked.server_image = path()?,
                "--up" => asked.is_up = true,
                "--relay" => asked.relays = true,
                name if CASES.iter().any(|case| case.name == name) => {
                    asked.runs.push(name.to_owned());
                }
                other => {
                    let all: Vec<_> = CASES.iter().map(|case| (case.name, case.shows)).collect();
                    return Err(no_such_scenario(other, &all));
                }
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
    let ground = match Box::pin(set(root, &programs, asked)).await {
        Ok(ground) => Arc::new(ground),
        Err(error) => {
            say(&format!("the node did not start: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    say(&format!(
        "node ready after {:.1} s",
        begun.elapsed().as_secs_f64()
    ));
    let played = Box::pin(launch::play(&ground, &asked.runs)).await;
    let outcome = played.unwrap_or_else(|error| {
        say(&chain(&error));
        Outcome::default()
    });
    let passed = outcome.0.iter().all(|one| one.passed) && !outcome.0.is_empty();
    if !passed {
        say(&format!(
            "the end of podbeat-server's log:\n{}",
            tail(&ground.site.log())
        ));
    }
    outcome.tell(&format!(
        "runs launched by podbeat-server, in {:.0} s, including the start of the node",
        begun.elapsed().as_secs_f64()
    ))
}

async fn set(root: &Path, programs: &Path, asked: &Asked) -> Result<Ground, Error> {
    let stage = Stage::raise(root, programs, &asked.image, None).await?;
    let stage = Arc::new(stage);
    let server = match &asked.server {
        Some(server) => server.clone(),
        None => server::beside()?,
    };
    Ground::prepare(&stage, server).await
}

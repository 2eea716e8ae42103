//! `e2e-deploy [--image FILE] [--crds DIRECTORY] [--static|--live|--hold] [SCENARIO…]`: tests the
//! content of deploy/ with helm and kubectl. Without a scenario, it runs all of them. `--static` runs
//! those that need no node, `--live` runs the others, and `--hold` keeps a node for a developer.
//! `--crds` creates the definitions of a directory, too: of kinds that no Go module brings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use podbeat_e2e::Error;
use podbeat_e2e::deploy::site::Ground;
use podbeat_e2e::deploy::statics::Desk;
use podbeat_e2e::deploy::tools::Tools;
use podbeat_e2e::deploy::{self, hold};
use podbeat_e2e::runner::{
    Outcome, build, build_tools, chain, in_namespaces, no_such_scenario, repository, say,
};
use podbeat_e2e::scenarios::play::Stage;
use tokio::sync::Mutex;
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
    if asked.part == Part::Static {
        return statics(&asked);
    }
    // Built now, while the network is still available.
    let prepare = || build().and_then(|_| build_tools()).map(drop);
    let code = in_namespaces(&arguments, prepare, async |root| {
        resident(root, &asked).await
    });
    if asked.part == Part::Hold {
        hold::leave();
    }
    code
}

/// The part to run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All scenarios.
    All,
    /// The scenarios that need no node.
    Static,
    /// The scenarios that need a node.
    Live,
    /// No scenario: keep the node for a developer.
    Hold,
}

/// The command line's arguments.
struct Asked {
    image: PathBuf,
    crds: Option<PathBuf>,
    part: Part,
    scenarios: Vec<String>,
}

impl Asked {
    fn read(arguments: &[OsString]) -> Result<Self, String> {
        let mut asked = Self {
            image: repository().join("target/image/podbeat.tar"),
            crds: None,
            part: Part::All,
            scenarios: Vec::new(),
        };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.to_str().unwrap_or_default() {
                "--image" => {
                    let path = rest.next().ok_or("a path is missing at the end")?;
                    asked.image = PathBuf::from(path);
                }
                "--crds" => {
                    let path = rest.next().ok_or("a path is missing at the end")?;
                    asked.crds = Some(PathBuf::from(path));
                }
                "--static" => asked.part = Part::Static,
                "--live" => asked.part = Part::Live,
                "--hold" => asked.part = Part::Hold,
                name if deploy::is_known(name) => asked.scenarios.push(name.to_owned()),
                other => return Err(no_such_scenario(other, &deploy::list())),
            }
        }
        Ok(asked)
    }
}

/// The programs, without a cluster.
fn tools(home: PathBuf) -> Result<Tools, ExitCode> {
    Ok(Tools {
        kubernetes: build()?,
        tools: build_tools()?,
        home,
        kubeconfig: None,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is not part of podbeat, which reads its environment once"
)]
fn writes_docs() -> bool {
    std::env::var_os("PODBEAT_WRITE_DOCS").is_some()
}

fn statics(asked: &Asked) -> ExitCode {
    let temporary = match tempfile::Builder::new().prefix("podbeat-deploy-").tempdir() {
        Ok(temporary) => temporary,
        Err(error) => {
            say(&format!("no temporary directory: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let tools = match tools(temporary.path().join("home")) {
        Ok(tools) => tools,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(check(tools, temporary.path(), asked));
    outcome.tell("deploy/, without a cluster")
}

async fn check(tools: Tools, directory: &Path, asked: &Asked) -> Outcome {
    let desk = Desk {
        tools,
        directory: directory.to_owned(),
        write: writes_docs(),
    };
    deploy::check(&desk, &asked.scenarios).await
}

async fn resident(root: &Path, asked: &Asked) -> ExitCode {
    let begun = Instant::now();
    let tools = match tools(root.join("home")) {
        Ok(tools) => tools,
        Err(code) => return code,
    };
    let mut outcome = Outcome::default();
    if asked.part == Part::All {
        outcome = check(tools.clone(), root, asked).await;
    }
    let ground = match set(root, tools, asked).await {
        Ok(ground) => Arc::new(ground),
        Err(error) => {
            say(&format!("the node did not start: {}", chain(&error)));
            return ExitCode::FAILURE;
        }
    };
    if asked.part == Part::Hold {
        return match hold::hold(&ground).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&chain(&error));
                ExitCode::FAILURE
            }
        };
    }
    outcome
        .0
        .extend(deploy::prove(&ground, &asked.scenarios).await.0);
    let version = ground.stage.cluster.lock().await.version().await;
    let version = version.unwrap_or_else(|error| chain(&error));
    outcome.tell(&format!(
        "deploy/ on Kubernetes {version}: {} scenarios in {:.0} s, including the start of the node",
        outcome.0.len(),
        begun.elapsed().as_secs_f64()
    ))
}

/// Starts the node, and creates the definitions of kinds that deploy/ uses.
async fn set(root: &Path, mut tools: Tools, asked: &Asked) -> Result<Ground, Error> {
    let stage = Stage::raise(root, &tools.kubernetes, &asked.image, None).await?;
    tools.kubeconfig = Some(stage.cluster.lock().await.admin_kubeconfig());
    let own = tools.tools.join("crds");
    for kinds in [Some(&own), asked.crds.as_ref()].into_iter().flatten() {
        let kinds = kinds.display().to_string();
        // Server-side, because some definitions are too large for the annotation of a client-side
        // apply.
        let apply = ["apply", "--server-side", "--filename", &kinds];
        tools.kubectl(&apply).await?.well()?;
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "--filename",
            &kinds,
        ];
        tools.kubectl(&wait).await?.well()?;
    }
    Ok(Ground {
        stage: Arc::new(stage),
        tools,
        policies: Mutex::new(()),
    })
}

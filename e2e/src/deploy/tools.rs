//! The users' programs, run with a separate home directory and kubeconfig.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::{Error, io};

/// The time limit for one program. Each gets a much shorter limit for its own waits.
const LONGEST: Duration = Duration::from_secs(300);

/// The directories of the system's programs.
const PATH: &str = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin";

/// The programs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The directory with kubectl, which is part of the binary with all of Kubernetes.
    pub kubernetes: PathBuf,
    /// The directory with helm, helm-docs, promtool and `crds/`.
    pub tools: PathBuf,
    /// The home directory.
    pub home: PathBuf,
    /// The credentials and the cluster. `None` if there is no cluster.
    pub kubeconfig: Option<PathBuf>,
}

/// A program's output and exit status.
#[derive(Clone, Debug)]
pub struct Said {
    /// The command as a user would type it.
    pub command: String,
    /// The exit status.
    pub status: ExitStatus,
    /// The standard output.
    pub stdout: String,
    /// The standard error.
    pub stderr: String,
}

impl Said {
    /// The standard output, if the program succeeded.
    ///
    /// # Errors
    /// The program failed. The error contains all its output.
    pub fn well(self) -> Result<String, Error> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(Error::Program {
            what: format!("{} ended with {}", self.command, self.status),
            log: format!("{}{}", self.stdout, self.stderr)
                .trim_end()
                .to_owned(),
        })
    }

    /// The standard error, if the program failed.
    ///
    /// # Errors
    /// The program succeeded.
    pub fn refused(self) -> Result<String, Error> {
        if self.status.success() {
            return Err(Error::Unexpected(format!(
                "expected the refusal of {}; its output: {}{}",
                self.command, self.stdout, self.stderr
            )));
        }
        Ok(self.stderr)
    }
}

impl Tools {
    /// Runs helm.
    ///
    /// # Errors
    /// It can't be started, or doesn't end.
    pub async fn helm(&self, arguments: &[&str]) -> Result<Said, Error> {
        self.run(&self.tools.join("helm"), "helm", arguments).await
    }

    /// Runs kubectl.
    ///
    /// # Errors
    /// It can't be started, or doesn't end.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Said, Error> {
        let program = self.kubernetes.join("kubectl");
        self.run(&program, "kubectl", arguments).await
    }

    /// Runs a script. It finds the tools by the variables `HELM`, `KUBECTL`, `HELM_DOCS` and
    /// `PROMTOOL`.
    ///
    /// # Errors
    /// It can't be started, or doesn't end.
    pub async fn script(&self, arguments: &[&str]) -> Result<Said, Error> {
        self.run(Path::new("bash"), "bash", arguments).await
    }

    async fn run(&self, program: &Path, name: &str, arguments: &[&str]) -> Result<Said, Error> {
        std::fs::create_dir_all(&self.home)
            .map_err(io(format!("creating {}", self.home.display())))?;
        let command = format!("{name} {}", arguments.join(" "));
        let mut child = Command::new(program);
        child
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.home)
            .env("HELM", self.tools.join("helm"))
            .env("HELM_DOCS", self.tools.join("helm-docs"))
            .env("PROMTOOL", self.tools.join("promtool"))
            .env("KUBECTL", self.kubernetes.join("kubectl"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(kubeconfig) = &self.kubeconfig {
            child.env("KUBECONFIG", kubeconfig);
        }
        let output = tokio::time::timeout(LONGEST, child.output())
            .await
            .map_err(|_| Error::Unexpected(format!("{command} did not finish within {LONGEST:?}")))?
            .map_err(io(format!("running {command}")))?;
        Ok(Said {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

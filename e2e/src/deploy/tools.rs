//! The programs that users have, run as they run them: with a home directory and a kubeconfig of their own.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::{Error, io};

/// The longest that one of them may take; each is told to give up much earlier where it waits.
const LONGEST: Duration = Duration::from_secs(300);

/// Where programs of the system are.
const PATH: &str = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin";

/// The programs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The directory with kubectl, in the binary that holds all of Kubernetes.
    pub kubernetes: PathBuf,
    /// The directory with helm, helm-docs, promtool and `crds/`.
    pub tools: PathBuf,
    /// Their home directory.
    pub home: PathBuf,
    /// Whose rights they have, and where. There is no cluster without.
    pub kubeconfig: Option<PathBuf>,
}

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Said {
    /// The command, as one would type it.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Said {
    /// What it wrote to its standard output, if it ended well.
    ///
    /// # Errors
    /// It failed; the error holds all that it said.
    pub fn well(self) -> Result<String, Error> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(Error::Program {
            what: format!("{} ended with {}", self.command, self.status),
            log: format!("{}{}", self.stdout, self.stderr).trim_end().to_owned(),
        })
    }

    /// What it wrote to its standard error, if it failed.
    ///
    /// # Errors
    /// It ended well.
    pub fn refused(self) -> Result<String, Error> {
        if self.status.success() {
            return Err(Error::Unexpected(format!(
                "{} was to be refused, and said: {}{}",
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

    /// Runs a script, which finds the tools by the variables `HELM`, `KUBECTL`, `HELM_DOCS` and `PROMTOOL`.
    ///
    /// # Errors
    /// It can't be started, or doesn't end.
    pub async fn script(&self, arguments: &[&str]) -> Result<Said, Error> {
        self.run(Path::new("bash"), "bash", arguments).await
    }

    async fn run(&self, program: &Path, name: &str, arguments: &[&str]) -> Result<Said, Error> {
        std::fs::create_dir_all(&self.home).map_err(io(format!("making {}", self.home.display())))?;
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
            .map_err(|_| Error::Unexpected(format!("{command} isn't over after {LONGEST:?}")))?
            .map_err(io(format!("running {command}")))?;
        Ok(Said {
            command,
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

//! The measured subjects: podbeat and its peers, the paths of their programs, and their start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Running, Sample};
use crate::world::{Member, World};
use crate::{Error, io, repository};

/// The retry count that each heartbeat must contain.
pub const JOB_RETRY_COUNT: i64 = 2;

/// A way to do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// podbeat, as in its image.
    Podbeat,
    /// A Go program with client-go's informer and net/http.
    Go,
    /// A Python program with Kubernetes' Python client and libica.
    Python,
    /// A shell script with curl and jq.
    Shell,
}

impl Subject {
    /// All subjects, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Podbeat, Self::Go, Self::Python, Self::Shell];

    /// The name on the command line and in the JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Podbeat => "podbeat",
            Self::Go => "go",
            Self::Python => "python",
            Self::Shell => "shell",
        }
    }

    /// The title in the table.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Podbeat => "podbeat",
            Self::Go => "Go, client-go",
            Self::Python => "Python, kubernetes + libica",
            Self::Shell => "bash, curl + jq",
        }
    }

    /// The subject with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|subject| subject.name() == name)
    }
}

/// The programs that `bench/prepare.sh` built.
#[derive(Clone, Debug)]
pub struct Prepared {
    paths: BTreeMap<String, PathBuf>,
}

impl Prepared {
    /// Reads the file that `bench/prepare.sh` wrote, with a name and a path in each line.
    ///
    /// # Errors
    /// The file can't be read, usually because nothing was prepared.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(io(format!(
            "reading {}; run `bash bench/prepare.sh` first, which writes it",
            path.display()
        )))?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Ok(Self {
            paths: lines
                .map(|(name, path)| (name.to_owned(), path.into()))
                .collect(),
        })
    }

    fn path(&self, name: &str) -> Result<&Path, Error> {
        self.paths
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| Error::NotPrepared {
                name: name.to_owned(),
            })
    }

    /// Starts a subject in a pod. Its output is written to a file of the world.
    ///
    /// # Errors
    /// It isn't prepared, or can't be started.
    pub fn start(
        &self,
        subject: Subject,
        world: &World,
        member: &Member,
        interval: Duration,
    ) -> Result<Running, Error> {
        let program = self.path(subject.name())?;
        let mut environment = world.settings(member, interval);
        // In seconds, which all subjects can parse.
        let seconds = format!("{}s", interval.as_secs());
        environment.insert("PODBEAT_INTERVAL".to_owned(), seconds);
        environment.insert("JOB_RETRY_COUNT".to_owned(), JOB_RETRY_COUNT.to_string());
        environment.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        let peer = |rest: &str| repository().join("bench/peers").join(rest);
        let arguments = match subject {
            Subject::Podbeat => Vec::new(),
            Subject::Go => {
                // As in a Go sidecar's manifest: one CPU, and a memory limit that makes the garbage
                // collector work.
                environment.insert("GOMAXPROCS".to_owned(), "1".to_owned());
                environment.insert("GOMEMLIMIT".to_owned(), "32MiB".to_owned());
                Vec::new()
            }
            Subject::Python => vec![peer("python/agent.py")],
            Subject::Shell => vec![peer("shell/agent.sh")],
        };
        let log = world.path(&format!("{}-{}.log", subject.name(), member.pod()));
        Running::start(program, &arguments, &environment, &log)
    }

    /// The size of the subject's own files in bytes: the binary, the script, or the virtual
    /// environment with its packages.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn size(&self, subject: Subject) -> Result<u64, Error> {
        match subject {
            Subject::Podbeat | Subject::Go => size(self.path(subject.name())?),
            Subject::Python => size(self.path("python-packages")?),
            Subject::Shell => size(&repository().join("bench/peers/shell/agent.sh")),
        }
    }

    /// The size of podbeat's image in bytes, if it was built.
    #[must_use]
    pub fn image_size(&self) -> Option<u64> {
        size(self.paths.get("image")?).ok()
    }
}

/// Samples a subject: the process; for the shell, also all its descendants.
///
/// # Errors
/// It has ended.
pub fn look(subject: Subject, running: &Running) -> Result<Sample, Error> {
    match subject {
        Subject::Shell => running.sample_with_children(),
        Subject::Podbeat | Subject::Go | Subject::Python => running.sample(),
    }
}

/// The size of a file, or of all files in a directory, in bytes.
fn size(path: &Path) -> Result<u64, Error> {
    let reading = || io(format!("reading {}", path.display()));
    let metadata = fs::symlink_metadata(path).map_err(reading())?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path).map_err(reading())? {
        sum += size(&entry.map_err(reading())?.path())?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for subject in Subject::ALL {
            assert_eq!(Subject::named(subject.name()), Some(subject));
        }
        assert_eq!(Subject::named("cobol"), None);
    }

    #[test]
    fn an_unprepared_subject_is_reported() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("prepared");
        let missing = Prepared::read(&path).expect_err("no file").to_string();
        assert!(missing.contains("bench/prepare.sh"), "{missing}");
        fs::write(&path, format!("podbeat {}\n", path.display())).expect("written");
        let prepared = Prepared::read(&path).expect("a file");
        assert!(prepared.size(Subject::Podbeat).expect("a size") > 0);
        let missing = prepared
            .size(Subject::Go)
            .expect_err("not prepared")
            .to_string();
        assert!(missing.contains("go"), "{missing}");
    }

    #[test]
    fn the_size_of_a_directory_is_that_of_its_files() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("deep")).expect("made");
        fs::write(dir.path().join("deep/a"), "abc").expect("written");
        fs::write(dir.path().join("b"), "de").expect("written");
        assert_eq!(size(dir.path()).expect("a size"), 5);
    }
}

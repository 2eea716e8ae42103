//! Watch streams recorded from a real cluster, and their replay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::kube_api::KubeApi;
use crate::{Error, io};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When the event arrived, relative to the first event.
    pub at: Duration,
    /// The event: `type` and `object`.
    pub event: Value,
}

/// A recorded stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// The events, in order.
    pub steps: Vec<Step>,
}

impl Capture {
    /// The directory of the captures, `tests/captures`. Its README.md describes them.
    #[must_use]
    pub fn directory() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures")
    }

    /// The names of all streams of pods, such as `a-complete` and `e2e/fact-1`, in order.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn names() -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for below in ["", "e2e/"] {
            let directory = Self::directory().join(below);
            let reading = || io(format!("reading {}", directory.display()));
            for entry in std::fs::read_dir(&directory).map_err(reading())? {
                let file = entry.map_err(reading())?.file_name();
                let name = file
                    .to_str()
                    .and_then(|file| file.strip_prefix("watch-")?.strip_suffix(".jsonl"));
                // A stream that contains only an error shows no pod's life.
                if let Some(name) = name.filter(|name| !name.starts_with("error-event")) {
                    names.push(format!("{below}{name}"));
                }
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The stream with this name (see [`names`](Self::names)).
    ///
    /// # Errors
    /// The same as for [`load`](Self::load).
    pub fn named(name: &str) -> Result<Self, Error> {
        let (below, name) = name.rsplit_once('/').unwrap_or(("", name));
        Self::load(
            &Self::directory()
                .join(below)
                .join(format!("watch-{name}.jsonl")),
        )
    }

    /// Reads the stream `NAME.jsonl`. The arrival times come from `NAME.times.txt` in the same
    /// directory (`HH:MM:SS.mmm` at the start of each line; lines that begin with `>>>` are
    /// remarks). Without that file, they come from each event's own `at`, which
    /// `podbeat observe --record` writes. Without any times, the events are a second apart. An
    /// incomplete last line is ignored, because it means that the recorder was killed.
    ///
    /// # Errors
    /// The stream can't be read or isn't JSON.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))?;
        let times = std::fs::read_to_string(path.with_extension("times.txt")).unwrap_or_default();
        let times: Vec<Duration> = times.lines().filter_map(time_of_day).collect();
        let first = times.first().copied().unwrap_or_default();
        let mut steps: Vec<Step> = Vec::new();
        let mut began = None;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for (at, line) in whole
            .lines()
            .filter(|line| !line.trim().is_empty())
            .enumerate()
        {
            let event: Value = serde_json::from_str(line).map_err(|source| Error::Capture {
                path: path.display().to_string(),
                line: at + 1,
                source,
            })?;
            let spaced = Duration::from_secs(u64::try_from(at).unwrap_or_default());
            let said = event
                .get("at")
                .and_then(|at| at.as_str()?.parse::<jiff::Timestamp>().ok());
            let at = match (times.get(at), said) {
                (Some(time), _) => time.saturating_sub(first),
                (None, Some(said)) => {
                    let began = *began.get_or_insert(said);
                    Duration::try_from(said.duration_since(began)).unwrap_or_default()
                }
                (None, None) => spaced,
            };
            steps.push(Step { at, event });
        }
        Ok(Self { steps })
    }

    /// The pod in each step.
    pub fn pods(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.steps
            .iter()
            .filter_map(|step| step.event.get("object"))
    }

    /// The name of podbeat's container: `podbeat`, or `hb` in older streams.
    #[must_use]
    pub fn sidecar(&self) -> &'static str {
        let spec = self.pods().next().and_then(|pod| pod.get("spec"));
        let declared = |list: &str| {
            spec.and_then(|spec| spec.get(list)?.as_array())
                .into_iter()
                .flatten()
        };
        let is_podbeat =
            |container: &Value| container.get("name").and_then(Value::as_str) == Some("podbeat");
        let podbeat = declared("containers")
            .chain(declared("initContainers"))
            .any(is_podbeat);
        if podbeat { "podbeat" } else { "hb" }
    }

    /// The pod's UID.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.member("uid")
    }

    /// The pod's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.member("name")
    }

    /// The pod's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.member("namespace")
    }

    fn member(&self, name: &str) -> &str {
        let first = self.steps.first().map(|step| &step.event);
        first
            .and_then(|event| event.pointer(&format!("/object/metadata/{name}")))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Plays the stream into a stand-in, at `speed` times the recorded speed.
    pub async fn play(&self, api: &KubeApi, speed: u32) {
        let start = Instant::now();
        for step in &self.steps {
            tokio::time::sleep_until(start + step.at / speed.max(1)).await;
            api.replay(&step.event);
        }
    }
}

fn time_of_day(line: &str) -> Option<Duration> {
    let mut parts = line.split_whitespace().next()?.splitn(3, ':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    let (hours, minutes, seconds) = (part()?, part()?, part()?);
    Some(Duration::from_secs_f64(
        hours * 3600.0 + minutes * 60.0 + seconds,
    ))
}

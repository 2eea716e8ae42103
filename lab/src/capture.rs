//! Watch streams that were recorded from a real cluster, and their replay.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::kube_api::KubeApi;
use crate::{Error, io};

/// One event of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When it came, after the first.
    pub at: Duration,
    /// The event: `type` and `object`.
    pub event: Value,
}

/// A recorded stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Its events, in order.
    pub steps: Vec<Step>,
}

impl Capture {
    /// Reads `NAME.jsonl` and the arrival times in `NAME.times.txt` beside it (`HH:MM:SS.mmm` at each line's start;
    /// lines that begin with `>>>` are remarks). Without times, events come a second apart.
    ///
    /// # Errors
    /// The stream can't be read or isn't JSON.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(io(format!("reading {}", path.display())))?;
        let times = std::fs::read_to_string(path.with_extension("times.txt")).unwrap_or_default();
        let times: Vec<Duration> = times.lines().filter_map(time_of_day).collect();
        let first = times.first().copied().unwrap_or_default();
        let mut steps = Vec::new();
        for (at, line) in text.lines().filter(|line| !line.trim().is_empty()).enumerate() {
            let event = serde_json::from_str(line).map_err(|source| Error::Capture {
                path: path.display().to_string(),
                line: at + 1,
                source,
            })?;
            let spaced = Duration::from_secs(u64::try_from(at).unwrap_or_default());
            let at = times.get(at).map_or(spaced, |time| time.saturating_sub(first));
            steps.push(Step { at, event });
        }
        Ok(Self { steps })
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

    /// Plays the stream into a stand-in, `speed` times as fast as it was recorded.
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
    Some(Duration::from_secs_f64(hours * 3600.0 + minutes * 60.0 + seconds))
}

//! What podbeat-server itself knows of a fleet's runs at the end: by its API, by its metrics, and in
//! its data file after it stopped.

use std::collections::HashMap;
use std::path::Path;

use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use podbeat_runs::{Run, Status};
use podbeat_server::store::{Entry, Sqlite, Store};
use podbeat_task_runs::model::{QueryParameter, TaskRunSummaryPagedItems};
use serde_json::json;

use super::figures::{Figures, Limit};
use super::metrics::Metrics;
use super::scenario::{Member, RUNS, STEPS};
use super::server::Spent;
use super::upstream::Upstream;
use crate::{Error, io};

/// The number of faults that are described.
const EXAMPLES: usize = 20;

/// The status of a run whose pod ended.
fn wanted(member: &Member) -> Status {
    match member.fails() {
        true => Status::Failed,
        false => Status::Completed,
    }
}

/// The entry of a run's timeline for a step of its pod.
fn entry(member: &Member, step: usize) -> String {
    let status = member.status(step);
    let state = status.get("state").and_then(|state| state.as_object());
    let Some((kind, members)) = state.and_then(|state| state.iter().next()) else {
        return String::new();
    };
    match members.get("exitCode") {
        Some(code) => format!("container main {kind} with exit code {code}"),
        None => format!("container main {kind}"),
    }
}

/// The runs in the data file that are not as they must be.
#[derive(Debug, Default)]
struct Verdict {
    missing: usize,
    other_status: usize,
    other_attempts: usize,
    other_changes: usize,
    examples: Vec<String>,
}

impl Verdict {
    /// Judges one run by what the data file has of it.
    fn judge(&mut self, member: &Member, stored: Option<(&Run, &[Entry])>) {
        let Some((run, timeline)) = stored else {
            self.missing += 1;
            return self.describe(format!("{} has no run", member.pod()));
        };
        let (status, wanted) = (run.status(), wanted(member));
        if status != wanted {
            self.other_status += 1;
            self.describe(format!("{} is {status}, and not {wanted}", member.pod()));
        }
        let attempts = run.attempts().len();
        if attempts != 1 {
            self.other_attempts += 1;
            self.describe(format!("{} has {attempts} attempts", member.pod()));
        }
        let changes = timeline.iter().map(|entry| entry.text.as_str());
        let changes: Vec<&str> = changes
            .filter(|text| text.starts_with("container "))
            .collect();
        if !changes
            .iter()
            .copied()
            .eq((0..STEPS).map(|step| entry(member, step)))
        {
            self.other_changes += 1;
            self.describe(format!("{} has the changes {changes:?}", member.pod()));
        }
    }

    fn describe(&mut self, example: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }
}

/// Checks the statuses that the API and the metrics show. `runs` are the IDs by member.
pub(super) async fn check_api(
    upstream: &Upstream,
    metrics: &Metrics,
    runs: &[String],
    figures: &mut Figures,
) -> Result<(), Error> {
    let listed = list(upstream).await?;
    let is_other = |(nth, id): &(usize, &String)| {
        let wanted = wanted(&Member { nth: *nth });
        listed.get(*id).map(String::as_str) != Some(wanted.name())
    };
    let others = runs.iter().enumerate().filter(is_other).count();
    figures.exactly("runs in podbeat-server's list", listed.len(), runs.len());
    figures.exactly("listed with another status than their pod's end", others, 0);
    let members = || (0..runs.len()).map(|nth| Member { nth });
    for (name, status) in [
        (
            "Completed runs by podbeat-server's count",
            Status::Completed,
        ),
        ("Failed runs by podbeat-server's count", Status::Failed),
    ] {
        let ended = members().filter(|member| wanted(member) == status).count();
        let parameter = QueryParameter::Status.as_str();
        let query = format!("{parameter}={}", status.name());
        let counted = page(upstream, &query).await?.total_item_count;
        figures.exactly(name, count(counted.unwrap_or(0)), ended);
        let in_metrics = metrics.runs.get(status.name()).copied().unwrap_or(0);
        if u64::try_from(ended) != Ok(in_metrics) {
            figures.exactly(
                "runs with this status in its metrics",
                count(in_metrics),
                ended,
            );
        }
    }
    let live = metrics.live_runs.map_or(usize::MAX, count);
    figures.exactly("live runs in podbeat-server's metrics", live, 0);
    Ok(())
}

/// Checks the data file of a server that has stopped.
pub(super) async fn check_data(
    data: &Path,
    runs: &[String],
    figures: &mut Figures,
) -> Result<(), Error> {
    let store = Sqlite::open(data)?;
    let mut verdict = Verdict::default();
    for (nth, id) in runs.iter().enumerate() {
        let member = Member { nth };
        match store.run(id.clone()).await? {
            None => verdict.judge(&member, None),
            Some(stored) => {
                let timeline = store.timeline(stored.number).await?;
                verdict.judge(&member, Some((&stored.run, &timeline)));
            }
        }
    }
    figures.exactly("runs that are not in the data file", verdict.missing, 0);
    figures.exactly("stored with another status", verdict.other_status, 0);
    figures.exactly(
        "stored timelines without each change exactly once",
        verdict.other_changes,
        0,
    );
    figures.exactly(
        "runs without exactly one attempt",
        verdict.other_attempts,
        0,
    );
    figures.exactly("live runs in the data file", store.live().await?.len(), 0);
    if !verdict.examples.is_empty() {
        figures.attach("faults", json!(verdict.examples));
    }
    Ok(())
}

/// Reports what the server's processes used and answered.
pub(super) fn report(spent: &Spent, figures: &mut Figures) {
    let mut add = |name, value, unit, limit| figures.add(name, value, unit, limit);
    if spent.kills > 0 {
        add(
            "kills of podbeat-server",
            spent.kills as f64,
            "",
            Limit::None,
        );
        add(
            "start after a kill until podbeat-server is ready, longest",
            spent.restart_seconds,
            "s",
            Limit::None,
        );
    }
    add(
        "podbeat-server's largest memory (RSS)",
        spent.rss_kib as f64 / 1024.0,
        "MiB",
        Limit::None,
    );
    add(
        "podbeat-server's CPU time",
        spent.cpu_seconds,
        "s",
        Limit::None,
    );
    let sum = |class: char| -> u64 {
        let of_class = spent.requests.iter();
        let of_class = of_class.filter(|((_, status), _)| status.starts_with(class));
        of_class.map(|(_, count)| count).sum()
    };
    add(
        "podbeat-server's answers with 2xx",
        sum('2') as f64,
        "",
        Limit::None,
    );
    figures.exactly("podbeat-server's answers with 4xx", count(sum('4')), 0);
    figures.add(
        "podbeat-server's answers with 5xx",
        sum('5') as f64,
        "",
        Limit::None,
    );
    let requests = spent.requests.iter().map(|((operation, status), count)| {
        json!({"operation": operation, "status": status, "count": count})
    });
    figures.attach("requests", requests.collect());
}

fn count(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

async fn page(upstream: &Upstream, query: &str) -> Result<TaskRunSummaryPagedItems, Error> {
    let path = format!("{RUNS}?{query}");
    let what = || io(format!("listing the runs of podbeat-server with {query}"));
    let (status, body) = upstream
        .call("list", Method::GET, &path, Default::default())
        .await?;
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        return Err(what()(std::io::Error::other(format!("{status}: {text}"))));
    }
    serde_json::from_slice(&body).map_err(|error| what()(error.into()))
}

/// The status of each run by its ID, from all pages.
async fn list(upstream: &Upstream) -> Result<HashMap<String, String>, Error> {
    let mut statuses = HashMap::new();
    let first = format!("{}=1000", QueryParameter::PageSize);
    let mut query = first.clone();
    loop {
        let page = page(upstream, &query).await?;
        let before = statuses.len();
        for run in page.items.unwrap_or_default() {
            let status = run.status.map(|status| status.to_string());
            statuses.insert(run.id.unwrap_or_default(), status.unwrap_or_default());
        }
        let next = page.next_page_token.unwrap_or_default();
        // A page without new runs is the last one, whatever it says.
        if next.is_empty() || statuses.len() == before {
            return Ok(statuses);
        }
        let token = utf8_percent_encode(&next, NON_ALPHANUMERIC);
        query = format!("{first}&{}={token}", QueryParameter::PageToken);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use podbeat_runs::{Event, Heartbeat, Moment, Rules};

    use super::*;

    /// A run whose last heartbeat has this exit code.
    fn ended(code: i32) -> Run {
        let rules = Rules {
            heartbeat_timeout: Duration::from_secs(600),
            evidence_wait: Duration::ZERO,
            retry_wait: Duration::from_secs(900),
            ..Rules::DEFAULT
        };
        let now = Moment {
            wall: Timestamp::UNIX_EPOCH,
            elapsed: Duration::ZERO,
        };
        let status = json!({"name": "main", "state": {"terminated": {"exitCode": code}}});
        let heartbeat = Heartbeat {
            last: true,
            containers: vec![serde_json::from_value(status).expect("a status")],
            ..Heartbeat::default()
        };
        let mut run = Run::new(0);
        let event = Event::Heartbeat(Box::new(heartbeat));
        run.apply(&event, now, &rules).expect("accepted");
        run
    }

    fn timeline(texts: &[&str]) -> Vec<Entry> {
        let entry = |text: &&str| Entry {
            at: Timestamp::UNIX_EPOCH,
            text: (*text).to_owned(),
        };
        texts.iter().map(entry).collect()
    }

    const LIFE: [&str; 10] = [
        "attempt 0 began",
        "container main waiting",
        "container main running",
        "container main terminated with exit code 1",
        "container main waiting",
        "container main running",
        "container main terminated with exit code 1",
        "container main running",
        "container main terminated with exit code 0",
        "Completed",
    ];

    /// The faults of a run: missing, status, attempts, changes.
    fn faults(nth: usize, stored: Option<(&Run, &[Entry])>) -> [usize; 4] {
        let mut verdict = Verdict::default();
        verdict.judge(&Member { nth }, stored);
        let Verdict {
            missing,
            other_status,
            other_attempts,
            other_changes,
            ..
        } = verdict;
        [missing, other_status, other_attempts, other_changes]
    }

    #[test]
    fn a_whole_life_in_the_data_file_is_right() {
        assert_eq!(faults(0, Some((&ended(0), &timeline(&LIFE)))), [0, 0, 0, 0]);
    }

    #[test]
    fn a_missing_run_another_status_and_no_attempt_are_found() {
        let life = timeline(&LIFE);
        assert_eq!(faults(0, None), [1, 0, 0, 0]);
        assert_eq!(faults(0, Some((&ended(1), &life))), [0, 1, 0, 0]);
        assert_eq!(faults(0, Some((&Run::new(0), &life))), [0, 1, 1, 0]);
        // The pod of this member fails, and has another life.
        assert_eq!(faults(4, Some((&ended(0), &life))), [0, 1, 0, 1]);
    }

    #[test]
    fn a_lost_a_repeated_and_a_late_change_are_found() {
        let of = |texts: &[&str]| faults(0, Some((&ended(0), &timeline(texts))));
        let mut lost = LIFE.to_vec();
        lost.remove(4);
        assert_eq!(of(&lost), [0, 0, 0, 1]);
        let mut repeated = LIFE.to_vec();
        repeated.insert(3, LIFE[2]);
        assert_eq!(of(&repeated), [0, 0, 0, 1]);
        let mut late = LIFE.to_vec();
        late.swap(6, 7);
        assert_eq!(of(&late), [0, 0, 0, 1]);
    }
}

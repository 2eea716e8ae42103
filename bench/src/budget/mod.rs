//! Budgets: limits for podbeat's resource use, their measurement and evaluation.
//! Contains the limits of `bench/budget.json`, one module for each way to measure, and the table.
//! Never here: a limit in code, or a measurement that is skipped silently.

mod growth;
mod hostile;
mod memory;
mod sizes;
mod valgrind;
mod waking;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::peers::results::RATIOS;
use crate::process::Running;
use crate::world::{Member, World};
use crate::{Error, io};

/// How long a subject may take for anything that it does at once, such as its first heartbeat. Far
/// more than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a subject may take to end after SIGTERM.
const END: Duration = Duration::from_secs(30);

/// The measured programs and files.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The image's binary.
    pub program: PathBuf,
    /// The same code with function names. Only callgrind needs it.
    pub symbols: Option<PathBuf>,
    /// The image's archive.
    pub image: PathBuf,
    /// The arguments for both binaries.
    pub arguments: Vec<String>,
}

/// The options of the measurement.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these budgets, or all if empty.
    pub only: Vec<String>,
    /// A shorter measurement for development. Its figures prove nothing.
    pub quick: bool,
}

/// One budget of `bench/budget.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The measured value.
    pub what: String,
    /// The value's unit.
    pub unit: Unit,
    /// The largest allowed value, for values that are the same on every machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// The recorded values by processor architecture, for values that must not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<BTreeMap<String, f64>>,
    /// The allowed excess over the recorded value, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_percent: Option<f64>,
    /// The reason for the limit.
    pub why: String,
}

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// 1,048,576 bytes.
    MiB,
    /// 1,024 bytes.
    KiB,
    /// 1,000 bytes.
    #[serde(rename = "KB")]
    Kb,
    /// A number of things.
    #[serde(rename = "count")]
    Count,
    /// A fraction of a peer's value.
    #[serde(rename = "ratio")]
    Ratio,
}

/// All budgets, by name.
pub type Budgets = BTreeMap<String, Budget>;

/// The measured value of one budget: bytes, or a count.
pub type Measured = (&'static str, f64);

/// A way to measure, and its budgets.
struct Way {
    budgets: &'static [&'static str],
    /// The message during the measurement.
    doing: &'static str,
}

const MEMORY: Way = Way {
    budgets: &["rss", "peak"],
    doing: "measuring three copies at rest, after some heartbeats",
};
const CROWD: Way = Way {
    budgets: &["crowd"],
    doing: "measuring 200 copies on this machine",
};
const GROWTH: Way = Way {
    budgets: &["growth", "outages"],
    doing: "measuring thousands of heartbeats with outages",
};
const VALGRIND: Way = Way {
    budgets: &["instructions", "allocations"],
    doing: "measuring heartbeats under valgrind",
};
const WAKING: Way = Way {
    budgets: &["wake-ups", "bookmark", "idle", "steps"],
    doing: "measuring a copy at rest for 40 s",
};
const SIZES: Way = Way {
    budgets: &["binary", "image"],
    doing: "measuring files",
};
const HOSTILE: Way = Way {
    budgets: &["hostile"],
    doing: "measuring with pods, files and answers that can use a lot of memory, in a container's control group",
};
const REAP: Way = Way {
    budgets: &["reap"],
    doing: "measuring podbeat reap with many large pods, in a container's control group",
};
const WAYS: [Way; 8] = [
    SIZES, MEMORY, CROWD, WAKING, VALGRIND, GROWTH, HOSTILE, REAP,
];

/// Reads the budgets.
///
/// # Errors
/// The file can't be read or is invalid: for example, a budget is missing or has no limit.
pub fn read(path: &Path) -> Result<Budgets, Error> {
    let text =
        std::fs::read(path).map_err(io(format!("reading the budgets in {}", path.display())))?;
    let wrong = |problem: String| Error::Budgets {
        path: path.to_owned(),
        problem,
    };
    let budgets: Budgets =
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    for name in names() {
        let Some(budget) = budgets.get(name) else {
            return Err(wrong(format!("there is no budget {name:?}")));
        };
        if budget.limit.is_none() == budget.recorded.is_none() {
            return Err(wrong(format!(
                "{name:?} needs either a limit or a recorded value"
            )));
        }
        if budget.recorded.is_some() != budget.slack_percent.is_some() {
            return Err(wrong(format!(
                "{name:?}: a recorded value needs slack_percent, and a limit must not have it"
            )));
        }
    }
    // The file also has the budgets of the ratios to peers.
    let known = || names().chain(RATIOS.iter().map(|ratio| ratio.budget));
    match budgets
        .keys()
        .find(|name| !known().any(|known| known == *name))
    {
        Some(name) => Err(wrong(format!("no measurement exists for {name:?}"))),
        None => Ok(budgets),
    }
}

/// Records the measured values for this architecture, for budgets with recorded values.
///
/// # Errors
/// The file can't be written.
pub fn record(path: &Path, budgets: &Budgets, measured: &[Measured]) -> Result<(), Error> {
    let mut budgets = budgets.clone();
    for (name, figure) in measured {
        if let Some(budget) = budgets.get_mut(*name) {
            let in_unit = budget.unit.figure(*figure);
            if let Some(recorded) = &mut budget.recorded {
                recorded.insert(std::env::consts::ARCH.to_owned(), in_unit);
            }
        }
    }
    let writing = || format!("writing the budgets to {}", path.display());
    let mut text = serde_json::to_string_pretty(&budgets)
        .map_err(std::io::Error::other)
        .map_err(io(writing()))?;
    text.push('\n');
    std::fs::write(path, text).map_err(io(writing()))
}

/// The names of all budgets, in the order of their measurement.
pub fn names() -> impl Iterator<Item = &'static str> {
    WAYS.iter().flat_map(|way| way.budgets.iter().copied())
}

/// Measures the selected budgets. `tell` receives progress messages.
///
/// # Errors
/// A budget can't be measured.
pub async fn measure(
    subject: &Subject,
    options: &Options,
    tell: impl Fn(&str),
) -> Result<Vec<Measured>, Error> {
    let mut measured = Vec::new();
    for way in WAYS {
        let wanted =
            |name: &&str| options.only.is_empty() || options.only.iter().any(|only| only == name);
        if !way.budgets.iter().any(wanted) {
            continue;
        }
        tell(&format!("{}: {}", way.budgets.join(", "), way.doing));
        let figures = match way.budgets {
            budgets if budgets == SIZES.budgets => sizes::measure(subject)?,
            budgets if budgets == MEMORY.budgets => Box::pin(memory::measure(subject)).await?,
            budgets if budgets == CROWD.budgets => memory::crowd(subject).await?,
            budgets if budgets == WAKING.budgets => Box::pin(waking::measure(subject)).await?,
            budgets if budgets == VALGRIND.budgets => {
                Box::pin(valgrind::measure(subject, &tell)).await?
            }
            budgets if budgets == HOSTILE.budgets => {
                Box::pin(hostile::agent(subject, &tell)).await?
            }
            budgets if budgets == REAP.budgets => hostile::reaper(subject).await?,
            _ => growth::measure(subject, options.quick, &tell).await?,
        };
        measured.extend(figures.into_iter().filter(|(name, _)| wanted(name)));
    }
    Ok(measured)
}

/// The result of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The value is within the budget.
    Holds,
    /// The value is so far below the recorded one that it should be recorded again.
    Loose,
    /// The value exceeds the budget.
    Over,
    /// There is no recorded value for this architecture.
    NotRecorded,
}

impl Verdict {
    /// Whether the value is within the budget.
    #[must_use]
    pub fn holds(self) -> bool {
        matches!(self, Self::Holds | Self::Loose)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Holds => "within budget",
            Self::Loose => "within budget, far below: record it again",
            Self::Over => "OVER BUDGET",
            Self::NotRecorded => "NOT RECORDED for this architecture",
        }
    }
}

impl Unit {
    fn bytes(self) -> f64 {
        match self {
            Self::MiB => 1_048_576.0,
            Self::KiB => 1024.0,
            Self::Kb => 1000.0,
            Self::Count | Self::Ratio => 1.0,
        }
    }

    /// Bytes, or a count, in this unit, rounded to the shown digits.
    fn figure(self, figure: f64) -> f64 {
        (figure / self.bytes() * 100.0).round() / 100.0
    }

    fn show(self, figure: f64) -> String {
        match self {
            Self::MiB => format!("{figure:.2} MiB"),
            Self::KiB => format!("{figure:.1} KiB"),
            Self::Kb => format!("{figure:.1} KB"),
            Self::Count if figure.fract() == 0.0 || figure >= 10_000.0 => format!("{figure:.0}"),
            Self::Count => format!("{figure:.2}"),
            Self::Ratio => format!("{figure:.3}"),
        }
    }
}

impl Budget {
    /// The largest allowed value on this architecture, in its unit.
    fn most(&self) -> Option<f64> {
        let recorded = || self.recorded.as_ref()?.get(std::env::consts::ARCH);
        self.limit
            .or_else(|| Some(recorded()? * (1.0 + self.slack_percent? / 100.0)))
    }

    /// Compares a value (bytes, or a count) with the budget.
    #[must_use]
    pub fn judge(&self, measured: f64) -> Verdict {
        let Some(most) = self.most() else {
            return Verdict::NotRecorded;
        };
        let figure = measured / self.unit.bytes();
        if figure > most {
            return Verdict::Over;
        }
        let slack = self.slack_percent.unwrap_or_default() / 100.0;
        match &self.recorded {
            Some(_) if figure < most / (1.0 + slack) * (1.0 - slack) => Verdict::Loose,
            _ => Verdict::Holds,
        }
    }
}

/// A table of the values and limits, with a line for each budget.
#[must_use]
pub fn table(budgets: &Budgets, measured: &[Measured]) -> String {
    let lines = measured.iter().filter_map(|(name, figure)| {
        let budget = budgets.get(*name)?;
        let limit = budget
            .most()
            .map_or("–".to_owned(), |most| budget.unit.show(most));
        let measured = budget.unit.show(figure / budget.unit.bytes());
        Some([
            (*name).to_owned(),
            budget.what.clone(),
            measured,
            limit,
            budget.judge(*figure).text().to_owned(),
        ])
    });
    let mut rows = vec![["budget", "what", "measured", "limit", "verdict"].map(str::to_owned)];
    rows.extend(lines);
    let width = |column: fn(&[String; 5]) -> &String| {
        let widths = rows.iter().map(|row| column(row).chars().count());
        widths.max().unwrap_or_default()
    };
    let [a, b, c, d] = [
        width(|[cell, ..]| cell),
        width(|[_, cell, ..]| cell),
        width(|[_, _, cell, ..]| cell),
        width(|[_, _, _, cell, _]| cell),
    ];
    rows.iter().fold(
        String::new(),
        |mut text, [name, what, measured, limit, verdict]| {
            // Writing to a String doesn't fail.
            let _ = writeln!(
                text,
                "{name:a$}  {what:b$}  {measured:>c$}  {limit:>d$}  {verdict}"
            );
            text
        },
    )
}

impl Subject {
    /// Starts the image's binary for this pod.
    fn start(&self, world: &World, member: &Member, interval: Duration) -> Result<Running, Error> {
        let log = world.path(&format!("{}.log", member.pod()));
        Running::start(
            &self.program,
            &self.arguments,
            &world.settings(member, interval),
            &log,
        )
    }
}

/// The median. For an even number of values, the mean of the two in the middle.
#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and counts are far below 2^52"
)]
fn median(mut figures: Vec<u64>) -> f64 {
    figures.sort_unstable();
    let middle = figures.len() / 2;
    let at = |index: usize| figures.get(index).copied().unwrap_or_default() as f64;
    if figures.len() % 2 == 1 {
        at(middle)
    } else {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(figure: f64) -> Budget {
        Budget {
            what: "instructions".to_owned(),
            unit: Unit::Count,
            limit: None,
            recorded: Some(BTreeMap::from([(
                std::env::consts::ARCH.to_owned(),
                figure,
            )])),
            slack_percent: Some(5.0),
            why: String::new(),
        }
    }

    #[test]
    fn a_recorded_value_may_grow_only_by_its_slack() {
        let budget = recorded(1000.0);
        for (figure, verdict) in [
            (1000.0, Verdict::Holds),
            (1050.0, Verdict::Holds),
            (1051.0, Verdict::Over),
            (950.0, Verdict::Holds),
            (949.0, Verdict::Loose),
        ] {
            assert_eq!(budget.judge(figure), verdict, "{figure}");
        }
        let elsewhere = Budget {
            recorded: Some(BTreeMap::from([("elsewhere".to_owned(), 1.0)])),
            ..budget
        };
        assert_eq!(elsewhere.judge(0.0), Verdict::NotRecorded);
        assert!(!Verdict::NotRecorded.holds());
    }

    #[test]
    fn a_limit_is_in_its_unit() {
        let budget = Budget {
            unit: Unit::MiB,
            limit: Some(4.0),
            recorded: None,
            slack_percent: None,
            ..recorded(0.0)
        };
        assert_eq!(budget.judge(4_194_304.0), Verdict::Holds);
        assert_eq!(budget.judge(4_194_305.0), Verdict::Over);
        let budgets = Budgets::from([("rss".to_owned(), budget)]);
        let text = table(&budgets, &[("rss", 4_194_305.0)]);
        assert!(
            text.contains("rss") && text.contains("4.00 MiB") && text.contains("OVER BUDGET"),
            "{text}"
        );
    }

    #[test]
    fn the_committed_budgets_are_complete_and_written_as_they_are_read() {
        let path = crate::repository().join("bench/budget.json");
        let budgets = read(&path).expect("budgets");
        assert!(
            budgets.values().all(|budget| budget.why.len() > 40),
            "each has a reason"
        );
        let dir = tempfile::tempdir().expect("a directory");
        let copy = dir.path().join("budget.json");
        record(&copy, &budgets, &[]).expect("written");
        let text = |path: &Path| std::fs::read_to_string(path).expect("text");
        assert_eq!(text(&path), text(&copy));
        record(&copy, &budgets, &[("instructions", 7.0)]).expect("written");
        let anew = read(&copy).expect("budgets");
        assert_eq!(anew["instructions"].judge(7.0), Verdict::Holds);
        assert_eq!(anew["instructions"].judge(8.0), Verdict::Over);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3, 1, 2]), 2.0);
        assert_eq!(median(vec![4, 1, 2, 3]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}

//! The figures of all rounds and their evaluation: medians, spreads, ratios, the table and the
//! JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::machine::Machine;
use super::subject::Subject;

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Resident memory after some hundred heartbeats.
    Rss,
    /// Resident memory, with shared pages counted in parts.
    Pss,
    /// Private memory that was written.
    PrivateDirty,
    /// The peak of resident memory.
    Peak,
    /// Threads.
    Threads,
    /// CPU time of a thousand heartbeats without a change, one per second.
    CpuThousand,
    /// CPU time of an hour at rest, with the default interval.
    CpuHour,
    /// Wake-ups in that hour.
    WakeUpsHour,
    /// The time from exec to the first accepted heartbeat.
    FirstBeat,
    /// The median time from a change to the accepted heartbeat that shows it.
    ChangeP50,
    /// The 99th percentile of that time.
    ChangeP99,
    /// The size of the subject's own files.
    Files,
    /// The size of the image's archive.
    Image,
}

impl Metric {
    /// All metrics, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Rss,
        Self::Pss,
        Self::PrivateDirty,
        Self::Peak,
        Self::Threads,
        Self::CpuThousand,
        Self::CpuHour,
        Self::WakeUpsHour,
        Self::FirstBeat,
        Self::ChangeP50,
        Self::ChangeP99,
        Self::Files,
        Self::Image,
    ];

    /// The name in the JSON, with its unit.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rss => "rssBytes",
            Self::Pss => "pssBytes",
            Self::PrivateDirty => "privateDirtyBytes",
            Self::Peak => "peakRssBytes",
            Self::Threads => "threads",
            Self::CpuThousand => "cpuMsPerThousandHeartbeats",
            Self::CpuHour => "cpuMsPerIdleHour",
            Self::WakeUpsHour => "wakeUpsPerIdleHour",
            Self::FirstBeat => "firstHeartbeatMs",
            Self::ChangeP50 => "changeP50Ms",
            Self::ChangeP99 => "changeP99Ms",
            Self::Files => "ownFilesBytes",
            Self::Image => "imageBytes",
        }
    }

    /// The title in the table, with its unit.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Rss => "RSS, MiB",
            Self::Pss => "PSS, MiB",
            Self::PrivateDirty => "private dirty, MiB",
            Self::Peak => "peak RSS, MiB",
            Self::Threads => "threads",
            Self::CpuThousand => "CPU per 1,000 heartbeats, ms",
            Self::CpuHour => "CPU per idle hour, ms",
            Self::WakeUpsHour => "wake-ups per idle hour",
            Self::FirstBeat => "exec to first accepted heartbeat, ms",
            Self::ChangeP50 => "change to accepted heartbeat, p50, ms",
            Self::ChangeP99 => "change to accepted heartbeat, p99, ms",
            Self::Files => "own files, MiB",
            Self::Image => "image, MiB",
        }
    }

    /// A figure as in the table.
    #[must_use]
    pub fn show(self, figure: f64) -> String {
        let mib = figure / 1_048_576.0;
        match self {
            Self::Rss | Self::Pss | Self::Peak | Self::Files | Self::Image => format!("{mib:.2}"),
            Self::PrivateDirty => format!("{mib:.3}"),
            Self::Threads | Self::WakeUpsHour => format!("{figure:.0}"),
            Self::CpuThousand | Self::CpuHour => format!("{figure:.0}"),
            Self::FirstBeat => format!("{figure:.1}"),
            Self::ChangeP50 | Self::ChangeP99 => format!("{figure:.2}"),
        }
    }
}

/// The figures of one subject; for each metric, in the order of measurement.
pub type Figures = BTreeMap<Metric, Vec<f64>>;

/// All figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Results {
    figures: BTreeMap<Subject, Figures>,
}

/// The median of figures, the smallest and the largest one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest figure.
    pub least: f64,
    /// The largest figure.
    pub most: f64,
}

/// The percentile by nearest rank; `None` without figures.
#[must_use]
pub fn percentile(figures: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The median, the smallest and the largest figure; `None` without figures. For an even number of
/// figures, the median is the mean of the two in the middle.
#[must_use]
pub fn spread(figures: &[f64]) -> Option<Spread> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let median = if sorted.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(*sorted.get(middle - 1)?, upper)
    };
    Some(Spread {
        median,
        least: *sorted.first()?,
        most: *sorted.last()?,
    })
}

/// The limit for podbeat's figure as a fraction of a peer's, which is a budget of
/// `bench/budget.json`.
pub struct Ratio {
    /// The budget's name.
    pub budget: &'static str,
    /// The compared metric.
    pub metric: Metric,
    /// The peer.
    pub peer: Subject,
}

/// The ratios that CI checks.
pub const RATIOS: [Ratio; 4] = [
    Ratio {
        budget: "ratio-rss-python",
        metric: Metric::Rss,
        peer: Subject::Python,
    },
    Ratio {
        budget: "ratio-rss-go",
        metric: Metric::Rss,
        peer: Subject::Go,
    },
    Ratio {
        budget: "ratio-first-go",
        metric: Metric::FirstBeat,
        peer: Subject::Go,
    },
    Ratio {
        budget: "ratio-change-go",
        metric: Metric::ChangeP50,
        peer: Subject::Go,
    },
];

impl Results {
    /// Adds a figure.
    pub fn add(&mut self, subject: Subject, metric: Metric, figure: f64) {
        let figures = self.figures.entry(subject).or_default();
        figures.entry(metric).or_default().push(figure);
    }

    /// Adds all figures of another part of the run.
    pub fn extend(&mut self, other: Self) {
        for (subject, figures) in other.figures {
            for (metric, figures) in figures {
                for figure in figures {
                    self.add(subject, metric, figure);
                }
            }
        }
    }

    /// The median and spread, if the metric was measured.
    #[must_use]
    pub fn spread(&self, subject: Subject, metric: Metric) -> Option<Spread> {
        spread(self.figures.get(&subject)?.get(&metric)?)
    }

    /// podbeat's median as a fraction of another subject's, if both were measured.
    #[must_use]
    pub fn share(&self, metric: Metric, of: Subject) -> Option<f64> {
        let median = |subject| Some(self.spread(subject, metric)?.median);
        Some(median(Subject::Podbeat)? / median(of).filter(|whole| *whole > 0.0)?)
    }

    /// The ratios that CI checks, by their budget's name, if they were measured. They are ratios of
    /// medians, because one lucky or unlucky round of a subject says nothing about the other.
    #[must_use]
    pub fn ratios(&self) -> Vec<(&'static str, f64)> {
        let ratio = |ratio: &Ratio| Some((ratio.budget, self.share(ratio.metric, ratio.peer)?));
        RATIOS.iter().filter_map(ratio).collect()
    }

    /// The measured subjects, in the order of the table.
    #[must_use]
    pub fn subjects(&self) -> Vec<Subject> {
        self.figures.keys().copied().collect()
    }

    /// The number of figures of a metric.
    #[must_use]
    pub fn count(&self, subject: Subject, metric: Metric) -> usize {
        let figures = self
            .figures
            .get(&subject)
            .and_then(|figures| figures.get(&metric));
        figures.map_or(0, Vec::len)
    }

    /// The table, with a line for each metric. Each cell has the median, the smallest and the
    /// largest figure; for a peer, also the ratio to podbeat's figure.
    #[must_use]
    pub fn table(&self) -> Vec<Vec<String>> {
        let subjects = self.subjects();
        let mut head = vec!["median (lowest–highest) × podbeat's".to_owned()];
        head.extend(subjects.iter().map(|subject| subject.title().to_owned()));
        let mut rows = vec![head];
        for metric in Metric::ALL {
            let cells: Vec<Option<String>> = subjects
                .iter()
                .map(|subject| self.cell(*subject, metric))
                .collect();
            if cells.iter().any(Option::is_some) {
                let mut row = vec![metric.title().to_owned()];
                row.extend(cells.into_iter().map(|cell| cell.unwrap_or("–".to_owned())));
                rows.push(row);
            }
        }
        rows
    }

    fn cell(&self, subject: Subject, metric: Metric) -> Option<String> {
        let spread = self.spread(subject, metric)?;
        let [median, least, most] =
            [spread.median, spread.least, spread.most].map(|figure| metric.show(figure));
        // The wake-ups of ended children are unknown.
        let at_least = if subject == Subject::Shell && metric == Metric::WakeUpsHour {
            "≥ "
        } else {
            ""
        };
        let range = if least == most {
            String::new()
        } else {
            format!(" ({least}–{most})")
        };
        // A script needs the programs that it calls, and their sizes aren't counted.
        let is_comparable =
            subject != Subject::Podbeat && (subject != Subject::Shell || metric != Metric::Files);
        let times = match self.share(metric, subject) {
            Some(share) if is_comparable && share > 0.0 => format!(" ×{}", times(1.0 / share)),
            _ => String::new(),
        };
        Some(format!("{at_least}{median}{range}{times}"))
    }

    /// All results, for other programs.
    #[must_use]
    pub fn json(&self, machine: &Machine, how: &Value) -> Value {
        let subjects: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|(subject, figures)| {
                let metrics: serde_json::Map<String, Value> = figures
                    .iter()
                    .filter_map(|(metric, values)| {
                        let spread = spread(values)?;
                        let told = json!({"median": spread.median, "least": spread.least, "most": spread.most,
                                          "figures": values});
                        Some((metric.name().to_owned(), told))
                    })
                    .collect();
                (subject.name().to_owned(), Value::Object(metrics))
            })
            .collect();
        let ratios: serde_json::Map<String, Value> = self
            .ratios()
            .into_iter()
            .map(|(name, ratio)| (name.to_owned(), json!(ratio)))
            .collect();
        json!({"at": machine.at.to_string(), "machine": machine.json(), "how": how, "subjects": subjects, "ratios": ratios})
    }
}

/// A factor with its significant digits.
pub(super) fn times(factor: f64) -> String {
    if factor < 10.0 {
        format!("{factor:.1}")
    } else {
        format!("{factor:.0}")
    }
}

/// The rows as text, in columns.
#[must_use]
pub fn text(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", line.join("  ").trim_end())
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{self, Verdict};

    fn results() -> Results {
        let mut results = Results::default();
        for figure in [3.0, 1.0, 2.0] {
            results.add(Subject::Podbeat, Metric::Rss, figure * 1_048_576.0);
            results.add(Subject::Go, Metric::Rss, figure * 10.0 * 1_048_576.0);
        }
        results.add(Subject::Python, Metric::Rss, 60.0 * 1_048_576.0);
        results.add(Subject::Go, Metric::FirstBeat, 20.0);
        for (podbeat, go) in [(9.0, 1.0), (1.0, 4.0), (1.5, 3.0)] {
            results.add(Subject::Podbeat, Metric::ChangeP50, podbeat);
            results.add(Subject::Go, Metric::ChangeP50, go);
        }
        results
    }

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let figures: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&figures, 50), Some(100.0));
        assert_eq!(percentile(&figures, 99), Some(198.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn the_median_is_between_the_lowest_and_the_highest() {
        let told = spread(&[4.0, 1.0, 9.0, 2.0]).expect("figures");
        assert_eq!((told.median, told.least, told.most), (3.0, 1.0, 9.0));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn ratios_use_medians_and_only_measured_values() {
        let ratios = results().ratios();
        let names: Vec<&str> = ratios.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["ratio-rss-python", "ratio-rss-go", "ratio-change-go"]
        );
        let told: Vec<f64> = ratios.iter().map(|(_, ratio)| *ratio).collect();
        assert!(
            (told[0] - 1.0 / 30.0).abs() < 1e-9
                && (told[1] - 0.1).abs() < 1e-9
                && (told[2] - 0.5).abs() < 1e-9,
            "{told:?}"
        );
    }

    #[test]
    fn a_peer_itself_exceeds_the_limit_of_every_ratio() {
        let budgets =
            budget::read(&crate::repository().join("bench/budget.json")).expect("budgets");
        for ratio in RATIOS {
            let budget = budgets.get(ratio.budget).expect("a budget");
            assert_eq!(budget.judge(1.0), Verdict::Over, "{}", ratio.budget);
            assert_eq!(budget.judge(0.01), Verdict::Holds, "{}", ratio.budget);
        }
    }

    #[test]
    fn the_table_has_only_measured_values() {
        let text = text(&results().table());
        assert!(text.contains("RSS, MiB"), "{text}");
        assert!(
            text.contains("2.00 (1.00–3.00)  20.00 (10.00–30.00) ×10"),
            "{text}"
        );
        assert!(text.contains("60.00 ×30"), "{text}");
        assert!(!text.contains("PSS") && !text.contains("bash"), "{text}");
    }

    #[test]
    fn json_has_every_figure() {
        let json = results().json(&Machine::here(), &json!({"rounds": 3}));
        assert_eq!(
            json["subjects"]["go"]["rssBytes"]["figures"]
                .as_array()
                .map(Vec::len),
            Some(3)
        );
        assert_eq!(
            json["subjects"]["podbeat"]["rssBytes"]["median"],
            2.0 * 1_048_576.0
        );
        assert_eq!(json["how"]["rounds"], 3);
        assert!(json["ratios"]["ratio-rss-go"].is_number());
    }
}

//! The figures, their targets, and the page that shows them.

use std::path::Path;

use crate::Error;
use crate::peers::docs::{markdown, replace};
use crate::peers::machine::Machine;
use crate::peers::results::spread;

const BEGIN: &str = "<!-- The figures: written by `just server-bench --write-docs` -->";

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// At least this.
    AtLeast(f64),
    /// Less than this.
    Below(f64),
}

/// A measured value of several rounds. Its median is compared with the limit.
#[derive(Clone, Debug)]
pub struct Figure {
    name: String,
    unit: &'static str,
    rounds: Vec<f64>,
    limit: Option<Limit>,
}

impl Figure {
    /// A figure without a limit.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &'static str, rounds: Vec<f64>) -> Self {
        Self {
            name: name.into(),
            unit,
            rounds,
            limit: None,
        }
    }

    /// The same figure with a limit.
    #[must_use]
    pub fn with(self, limit: Limit) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// Whether the median is within the limit. `None` without a limit.
    #[must_use]
    pub fn is_met(&self) -> Option<bool> {
        let median = spread(&self.rounds).map(|spread| spread.median);
        self.limit.map(|limit| {
            median.is_some_and(|median| match limit {
                Limit::AtLeast(least) => median >= least,
                Limit::Below(most) => median < most,
            })
        })
    }

    fn cells(&self) -> Vec<String> {
        let unit = self.unit;
        let figure = spread(&self.rounds).map_or("not measured".to_owned(), |spread| {
            let median = format!("{} {unit}", shown(spread.median));
            match self.rounds.len() {
                1 => median,
                _ => format!("{median} ({}–{})", shown(spread.least), shown(spread.most)),
            }
        });
        let target = self.limit.map_or(String::new(), |limit| match limit {
            Limit::AtLeast(least) => format!("≥ {least} {unit}"),
            Limit::Below(most) => format!("< {most} {unit}"),
        });
        let met = self
            .is_met()
            .map_or("", |is_met| if is_met { "yes" } else { "no" });
        vec![self.name.clone(), figure, target, met.to_owned()]
    }
}

fn shown(figure: f64) -> String {
    match figure {
        ..10.0 => format!("{figure:.2}"),
        10.0..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// The table, with a head.
#[must_use]
pub fn table(figures: &[Figure]) -> Vec<Vec<String>> {
    let head = ["what", "median (lowest–highest)", "target", "met"].map(str::to_owned);
    let rows = figures.iter().map(Figure::cells);
    std::iter::once(head.to_vec()).chain(rows).collect()
}

/// Writes the table to `docs/server-performance.md` of a repository.
///
/// # Errors
/// The page can't be read or written, or has no markers for the figures.
pub fn write(
    repository: &Path,
    figures: &[Figure],
    machine: &Machine,
    rounds: usize,
) -> Result<(), Error> {
    let page = repository.join("docs/server-performance.md");
    let text = format!(
        "Measured on {} on {}. {rounds} rounds.\n\n{}",
        machine.at.strftime("%Y-%m-%d"),
        machine.told(),
        markdown(&table(figures)),
    );
    replace(&page, BEGIN, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_compared_with_the_limit() {
        let figure = |rounds: &[f64], limit| Figure::new("x", "ms", rounds.to_vec()).with(limit);
        assert_eq!(
            figure(&[1.0, 9.0, 2.0], Limit::Below(3.0)).is_met(),
            Some(true)
        );
        assert_eq!(figure(&[3.0], Limit::Below(3.0)).is_met(), Some(false));
        assert_eq!(figure(&[3.0], Limit::AtLeast(3.0)).is_met(), Some(true));
        assert_eq!(figure(&[2.9], Limit::AtLeast(3.0)).is_met(), Some(false));
        assert_eq!(figure(&[], Limit::Below(3.0)).is_met(), Some(false));
        assert_eq!(Figure::new("x", "ms", vec![1.0]).is_met(), None);
    }

    #[test]
    fn the_page_of_this_repository_gets_the_table() {
        let repository = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(repository.path().join("docs")).expect("made");
        let page = "docs/server-performance.md";
        std::fs::copy(crate::repository().join(page), repository.path().join(page))
            .expect("a page");
        let figures =
            [Figure::new("creates", "/s", vec![612.0, 700.5]).with(Limit::AtLeast(500.0))];
        write(repository.path(), &figures, &Machine::here(), 2).expect("written");
        let text = std::fs::read_to_string(repository.path().join(page)).expect("a page");
        assert!(
            text.contains("| creates | 656 /s (612–700) | ≥ 500 /s | yes |"),
            "{text}"
        );
    }
}

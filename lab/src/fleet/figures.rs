//! The measured figures: a table for people, JSON for programs, and the check of every limit. Pure,
//! except for writing the file.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Error, io};

/// A figure's limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// No limit: the figure is only reported.
    None,
    /// At most this value.
    AtMost(f64),
    /// At least this value.
    AtLeast(f64),
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The figure's name.
    pub name: &'static str,
    /// The measured value.
    pub value: f64,
    /// The value's unit.
    pub unit: &'static str,
    /// The limit.
    pub limit: Limit,
}

impl Figure {
    /// Whether the value is within its limit.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.limit {
            Limit::None => true,
            Limit::AtMost(most) => self.value <= most,
            Limit::AtLeast(least) => self.value >= least,
        }
    }
}

/// All figures of one measurement.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    all: Vec<Figure>,
    more: Map<String, Value>,
}

impl Figures {
    /// Adds a figure.
    pub fn add(&mut self, name: &'static str, value: f64, unit: &'static str, limit: Limit) {
        self.all.push(Figure {
            name,
            value,
            unit,
            limit,
        });
    }

    /// Adds a count that must equal `wanted`.
    pub fn exactly(&mut self, name: &'static str, value: usize, wanted: usize) {
        let limit = match value.cmp(&wanted) {
            std::cmp::Ordering::Less => Limit::AtLeast(wanted as f64),
            _ => Limit::AtMost(wanted as f64),
        };
        self.add(name, value as f64, "", limit);
    }

    /// Adds a value that appears only in the JSON.
    pub fn attach(&mut self, name: &str, value: Value) {
        self.more.insert(name.to_owned(), value);
    }

    /// The number of limits, and how many of them are met.
    #[must_use]
    pub fn kept(&self) -> (usize, usize) {
        let limited = || self.all.iter().filter(|figure| figure.limit != Limit::None);
        (
            limited().count(),
            limited().filter(|figure| figure.holds()).count(),
        )
    }

    /// The figures as a text table.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self
            .all
            .iter()
            .map(|figure| figure.name.chars().count())
            .max()
            .unwrap_or(0);
        let mut table = String::new();
        for figure in &self.all {
            let limit = match figure.limit {
                Limit::None => String::new(),
                Limit::AtMost(most) => format!("≤ {}", short(most)),
                Limit::AtLeast(least) => format!("≥ {}", short(least)),
            };
            let verdict = match figure.limit {
                Limit::None => "",
                _ if figure.holds() => "ok",
                _ => "FAILED",
            };
            let line = format!(
                "{:width$}  {:>10} {:<8} {limit:<10} {verdict}",
                figure.name,
                short(figure.value),
                figure.unit
            );
            let _ = writeln!(table, "{}", line.trim_end());
        }
        table
    }

    /// The figures as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let figures = self.all.iter().map(|figure| {
            let (most, least) = match figure.limit {
                Limit::None => (None, None),
                Limit::AtMost(most) => (Some(most), None),
                Limit::AtLeast(least) => (None, Some(least)),
            };
            json!({"name": figure.name, "value": figure.value, "unit": figure.unit, "atMost": most, "atLeast": least,
                   "holds": figure.holds()})
        });
        let mut all = self.more.clone();
        all.insert("figures".to_owned(), figures.collect());
        Value::Object(all)
    }

    /// Writes the JSON to a file, and creates its directory.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(io(format!("creating {}", dir.display())))?;
        }
        let text = format!("{:#}\n", self.json());
        std::fs::write(path, text).map_err(io(format!("writing {}", path.display())))
    }
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exceeded_limit_is_reported() {
        let mut figures = Figures::default();
        figures.add("told", 3.0, "ms", Limit::None);
        figures.add("kept", 1.2, "", Limit::AtMost(1.2));
        figures.exactly("exact", 7, 7);
        assert_eq!(figures.kept(), (2, 2));
        figures.add("passed", 1.2001, "", Limit::AtMost(1.2));
        figures.add("too little", 29.0, "s", Limit::AtLeast(30.0));
        figures.exactly("too few", 6, 7);
        figures.exactly("too many", 8, 7);
        figures.add("no number", f64::NAN, "", Limit::AtMost(1.0));
        assert_eq!(figures.kept(), (7, 2));
        assert_eq!(
            figures.table().matches("FAILED").count(),
            5,
            "{}",
            figures.table()
        );
        assert_eq!(
            figures.json().pointer("/figures/3/holds"),
            Some(&Value::Bool(false))
        );
    }
}

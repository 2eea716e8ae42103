//! The documentation page with the figures: a table between two marker lines, and a chart.

use std::fs;
use std::path::Path;

use super::chart;
use super::machine::Machine;
use super::measure::Plan;
use super::results::{Metric, Results};
use super::subject::Subject;
use crate::{Error, io};

const BEGIN: &str = "<!-- The figures: written by `just bench --write-docs` -->";
const END: &str = "<!-- The end of the figures -->";

/// Writes the table and the chart to `docs/performance.md` and `docs/performance.svg` of a
/// repository.
///
/// # Errors
/// A file can't be read or written, or the page has no markers for the figures.
pub fn write(
    repository: &Path,
    results: &Results,
    machine: &Machine,
    plan: &Plan,
) -> Result<(), Error> {
    let page = repository.join("docs/performance.md");
    replace(&page, BEGIN, &figures(results, machine, plan))?;
    let drawing = repository.join("docs/performance.svg");
    fs::write(&drawing, chart::svg(results)).map_err(io(format!("writing {}", drawing.display())))
}

/// Replaces the figures in a page, after the line `begin`.
///
/// # Errors
/// The page can't be read or written, or has no markers for the figures.
pub(crate) fn replace(page: &Path, begin: &'static str, figures: &str) -> Result<(), Error> {
    let text = fs::read_to_string(page).map_err(io(format!("reading {}", page.display())))?;
    let text = put(&text, begin, figures).ok_or_else(|| Error::NoPlace {
        path: page.to_owned(),
        begin,
        end: END,
    })?;
    fs::write(page, text).map_err(io(format!("writing {}", page.display())))
}

/// Inserts the figures between the two marker lines; `None` if the text has no such lines.
fn put(text: &str, begin: &str, figures: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n{figures}{END}{after}"))
}

fn figures(results: &Results, machine: &Machine, plan: &Plan) -> String {
    let date = machine.at.strftime("%Y-%m-%d");
    let starts = results.count(Subject::Podbeat, Metric::FirstBeat);
    let resting = if plan.resting > 0 {
        format!(
            "; at rest, {} copies of each over {} heartbeats",
            plan.resting, plan.resting_beats
        )
    } else {
        String::new()
    };
    format!(
        "Measured on {date} on {}. {} rounds; {starts} starts of each subject; per round, {} changes and {} heartbeats without a \
         change{resting}.\n\n{}\n![Bar chart: resident memory, time to the first heartbeat, time from a change to its heartbeat, and CPU \
         time of each subject](performance.svg)\n",
        machine.told(),
        plan.rounds,
        plan.changes,
        plan.beats,
        markdown(&results.table()),
    )
}

pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut rows = rows.iter();
    let head = rows.next().map(Vec::as_slice).unwrap_or_default();
    let rule: Vec<String> = head.iter().map(|_| "---".to_owned()).collect();
    let mut text = line(head) + &line(&rule);
    text.extend(rows.map(|row| line(row)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Results {
        let mut results = Results::default();
        results.add(Subject::Podbeat, Metric::Threads, 1.0);
        results.add(Subject::Go, Metric::Threads, 7.0);
        results
    }

    #[test]
    fn only_the_old_figures_are_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let put = put(&text, BEGIN, "new\n").expect("a place");
        assert_eq!(put, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(super::put("no place", BEGIN, "new"), None);
    }

    #[test]
    fn the_page_of_this_repository_has_the_marker_lines() {
        let repository = tempfile::tempdir().expect("a directory");
        let docs = repository.path().join("docs");
        fs::create_dir(&docs).expect("made");
        fs::copy(
            crate::repository().join("docs/performance.md"),
            docs.join("performance.md"),
        )
        .expect("a page");
        write(
            repository.path(),
            &measured(),
            &Machine::here(),
            &Plan::FULL,
        )
        .expect("written");
        let page = fs::read_to_string(docs.join("performance.md")).expect("a page");
        assert!(page.contains("| threads | 1 | 7 ×7.0 |"), "{page}");
        assert!(docs.join("performance.svg").exists());
    }
}

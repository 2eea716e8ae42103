//! Tables in kubectl's format: headers in capitals, columns three spaces apart, no lines.

use unicode_width::UnicodeWidthStr;

use podbeat_interface::terminal::one_line;

/// The content of an empty cell.
const NONE: &str = "<none>";

/// Spaces between two columns.
const GAP: usize = 3;

/// A table that is written in parts: a long list shows its first page while the next one loads.
/// Columns never become narrower.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Option<&'static [&'static str]>,
    widths: Vec<usize>,
}

impl Table {
    pub(crate) fn new(headers: &'static [&'static str], with_headers: bool) -> Self {
        Self {
            headers: with_headers.then_some(headers),
            widths: vec![0; headers.len()],
        }
    }

    /// These rows as text. The first call puts the headers above them.
    pub(crate) fn rows(&mut self, rows: &[Vec<String>]) -> String {
        let headers = self.headers.take();
        let headers: Option<Vec<String>> =
            headers.map(|headers| headers.iter().map(|&it| it.into()).collect());
        let lines = || headers.iter().chain(rows);
        for line in lines() {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.width());
            }
        }
        let mut text = String::new();
        for line in lines() {
            let last = line.len().saturating_sub(1);
            for (nth, (cell, width)) in line.iter().zip(&self.widths).enumerate() {
                text += cell;
                if nth < last {
                    let padding = width.saturating_sub(cell.width()) + GAP;
                    text.extend(std::iter::repeat_n(' ', padding));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Any text as the content of a cell: inert and on one line.
pub(crate) fn cell(text: Option<&str>) -> String {
    let text = text
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or(NONE);
    one_line(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: &[&str] = &["ID", "NAME", "AGE"];

    fn row(cells: [&str; 3]) -> Vec<String> {
        cells.iter().map(|text| cell(Some(text))).collect()
    }

    #[test]
    fn columns_stand_below_each_other_over_several_parts() {
        let mut table = Table::new(HEADERS, true);
        let first = table.rows(&[row(["a", "wide 表", "1s"]), row(["bbbb", "", "20m"])]);
        assert_eq!(
            first,
            "ID     NAME      AGE\na      wide 表   1s\nbbbb   <none>    20m\n"
        );
        assert_eq!(table.rows(&[row(["c", "d", "e"])]), "c      d         e\n");
        assert_eq!(table.rows(&[]), "");
        assert_eq!(
            Table::new(HEADERS, false).rows(&[row(["c", "d", "e"])]),
            "c   d   e\n"
        );
        assert_eq!(Table::new(HEADERS, true).rows(&[]), "ID   NAME   AGE\n");
    }

    #[test]
    fn control_characters_are_shown_without_effect() {
        assert_eq!(
            cell(Some("a\x1b[2Jb\nc\u{9b}1md\u{202e}e")),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}1md\u{fffd}e"
        );
        assert_eq!(cell(Some(" \t")), "<none>");
        assert_eq!(cell(None), "<none>");
    }
}

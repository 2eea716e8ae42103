//! The chart as SVG: four metrics with a bar for each subject, readable on light and dark
//! backgrounds.

use std::fmt::Write as _;

use super::results::{Metric, Results, times};
use super::subject::Subject;

/// The shown metrics with their titles and units.
const SHOWN: [(Metric, &str, &str); 4] = [
    (Metric::Rss, "Resident memory", "MiB"),
    (Metric::FirstBeat, "Exec to first accepted heartbeat", "ms"),
    (
        Metric::ChangeP50,
        "Change to accepted heartbeat, median",
        "ms",
    ),
    (Metric::CpuThousand, "CPU time of 1,000 heartbeats", "ms"),
];

const WIDTH: f64 = 720.0;
/// Where the bars begin. The names are to their left.
const LEFT: f64 = 206.0;
/// The longest bar. The figure is to its right.
const LONGEST: f64 = 380.0;
const BAR: f64 = 16.0;
const ROW: f64 = 22.0;
const HEADING: f64 = 30.0;
const GAP: f64 = 16.0;

/// Draws the measured metrics, and omits the others.
#[must_use]
pub fn svg(results: &Results) -> String {
    let mut drawn = String::new();
    let mut y = GAP;
    for (metric, title, unit) in SHOWN {
        let medians: Vec<(Subject, f64)> = results
            .subjects()
            .into_iter()
            .filter_map(|subject| Some((subject, results.spread(subject, metric)?.median)))
            .collect();
        let most = medians
            .iter()
            .map(|(_, median)| *median)
            .fold(0.0, f64::max);
        if most <= 0.0 {
            continue;
        }
        y += HEADING;
        // Writing to a String doesn't fail, here and below.
        let _ = writeln!(
            drawn,
            "<text class=\"title\" x=\"16\" y=\"{:.0}\">{title}, {unit}</text>",
            y - 10.0
        );
        for (subject, median) in medians {
            let length = (median / most * LONGEST).max(1.0);
            let class = if subject == Subject::Podbeat {
                "own"
            } else {
                "peer"
            };
            let middle = y + BAR - 4.0;
            let factor = match results.share(metric, subject) {
                Some(share) if subject != Subject::Podbeat && share > 0.0 => {
                    format!(" (×{})", times(1.0 / share))
                }
                _ => String::new(),
            };
            let _ = writeln!(
                drawn,
                "<text class=\"name\" x=\"{:.0}\" y=\"{middle:.0}\">{}</text>\
                 <rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{middle:.0}\">{}{factor}</text>",
                LEFT - 8.0,
                subject.title(),
                LEFT + length + 6.0,
                metric.show(median),
            );
            y += ROW;
        }
        y += GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" height=\"{y:.0}\" role=\"img\" \
         aria-label=\"podbeat compared with its peers; the table has the same figures\">\n\
         <style>\n\
         text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }}\n\
         .title {{ font-weight: 600 }}\n\
         .name {{ text-anchor: end }}\n\
         .own {{ fill: #1a7f37 }}\n\
         .peer {{ fill: #8c959f }}\n\
         @media (prefers-color-scheme: dark) {{\n\
         text {{ fill: #e6edf3 }}\n\
         .own {{ fill: #3fb950 }}\n\
         .peer {{ fill: #6e7681 }}\n\
         }}\n\
         </style>\n\
         {drawn}</svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_of_bars_match_their_figures() {
        let mut results = Results::default();
        results.add(Subject::Podbeat, Metric::FirstBeat, 5.0);
        results.add(Subject::Go, Metric::FirstBeat, 20.0);
        let svg = svg(&results);
        assert!(
            svg.contains("class=\"own\" x=\"206\" y=\"46\" width=\"95.0\""),
            "{svg}"
        );
        assert!(svg.contains("width=\"380.0\""), "{svg}");
        assert!(svg.contains("20.0 (×4.0)"), "{svg}");
        assert!(
            !svg.contains("Resident"),
            "metrics that were not measured: {svg}"
        );
        assert!(svg.contains("prefers-color-scheme: dark"), "{svg}");
    }
}

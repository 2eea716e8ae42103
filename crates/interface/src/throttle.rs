//! Limits the log lines about a repeated problem: podbeat logs it at once, then at increasing
//! intervals with a count, and when it is over.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::messages::{Cut, Outage, Over, Seconds, Since};

/// A failure within this time of the previous one belongs to the same problem, even if requests
/// succeeded in between. Otherwise one bad replica behind a load balancer would cause new log lines
/// all day.
const CALM: Duration = Duration::from_secs(10 * 60);

/// This many consecutive failures are an outage. podbeat logs an outage even if the problem has
/// been intermittent for a long time.
const OUTAGE: u64 = 4;

/// How many different kinds of failure in one problem podbeat logs at once.
const KINDS: usize = 8;

/// One problem, from its first failure on.
#[derive(Debug, Default)]
pub struct Throttle(Option<Row>);

#[derive(Debug)]
struct Row {
    since: Instant,
    since_wall: Timestamp,
    last: Instant,
    kinds: Vec<String>,
    failures: u64,
    told_at: u64,
    /// Failures since the last success.
    in_a_row: u64,
    told_in_a_row: u64,
    /// Whether podbeat logged a failure, but not yet that it is over.
    told: bool,
}

impl Throttle {
    /// Counts a failure. Returns a log line for the first failure and for the first of each kind in
    /// this problem. It also returns one each time the number of failures has doubled: the number
    /// since the start, or in an outage the number since the last success.
    pub fn failed<'error>(
        &mut self,
        kind: &str,
        error: &'error dyn fmt::Display,
    ) -> Option<Outage<'error>> {
        let now = Instant::now();
        let goes_on = self
            .0
            .take()
            .filter(|row| row.in_a_row > 0 || now.saturating_duration_since(row.last) <= CALM);
        let row = self.0.insert(goes_on.unwrap_or_else(|| Row::new(now)));
        row.last = now;
        row.failures += 1;
        row.in_a_row += 1;
        let new = row.kinds.len() < KINDS && !row.kinds.iter().any(|known| known == kind);
        if new {
            row.kinds.push(kind.to_owned());
        }
        let doubled = row.failures >= row.told_at.saturating_mul(2);
        let outage = row.in_a_row >= OUTAGE
            && row.in_a_row >= row.told_in_a_row.saturating_mul(2).max(OUTAGE);
        if !(new || doubled || outage) {
            return None;
        }
        row.told_at = row.failures;
        row.told_in_a_row = row.in_a_row;
        row.told = true;
        Some(Outage {
            repeats: row.failures,
            since: Since(row.since_wall),
            error,
        })
    }

    /// Ends the problem for now. Returns a log line if a failure was logged since the last such
    /// line.
    pub fn over(&mut self) -> Option<Over> {
        let row = self.0.as_mut()?;
        row.in_a_row = 0;
        row.told_in_a_row = 0;
        std::mem::take(&mut row.told).then(|| Over {
            failures: row.failures,
            lasted_seconds: Seconds(row.since.elapsed()),
        })
    }
}

impl Row {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            since_wall: Timestamp::now(),
            last: now,
            kinds: Vec::new(),
            failures: 0,
            told_at: 0,
            in_a_row: 0,
            told_in_a_row: 0,
            told: false,
        }
    }
}

/// The length limit for an error in a log line, in characters. A proxy may have answered with a
/// page of its own.
const LONGEST_ERROR: usize = 1024;

/// An error with all its sources, outermost first, for a log line. The Display of each error
/// contains only its own text.
#[derive(Debug)]
pub struct Chain<'error>(pub &'error dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        Cut::new(&text, LONGEST_ERROR).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const HEARTBEAT: Duration = Duration::from_secs(30);

    impl Throttle {
        /// Returns the number of failures if this one causes a log line.
        fn counted(&mut self, kind: &str) -> Option<u64> {
            self.failed(kind, &"an error").map(|outage| outage.repeats)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_is_told_in_few_lines_and_its_end_in_one() {
        let mut throttle = Throttle::default();
        let mut told = vec![];
        let begun = Since(Timestamp::now());
        for _ in 0..1000 {
            told.extend(throttle.failed("503", &"an error"));
            advance(HEARTBEAT).await;
        }
        let counts: Vec<u64> = told.iter().map(|told| told.repeats).collect();
        assert_eq!(counts, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert!(
            told.windows(2).all(|pair| pair[0].since == pair[1].since) && told[0].since >= begun
        );
        assert!(
            throttle.counted("refused").is_some(),
            "another kind is told at once"
        );
        assert_eq!(
            throttle.over(),
            Some(Over {
                failures: 1001,
                lasted_seconds: Seconds(HEARTBEAT * 1000)
            })
        );
        assert_eq!(throttle.over(), None);
    }

    /// One day with one failure in three heartbeats, alternating between two kinds.
    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_comes_and_goes_is_told_ever_more_rarely() {
        let mut throttle = Throttle::default();
        let (mut failed, mut over) = (0, 0);
        for nth in 0..2880 {
            match nth % 3 {
                0 => {
                    let kind = if nth % 2 == 0 { "503" } else { "no answer" };
                    failed += usize::from(throttle.counted(kind).is_some());
                }
                _ => over += usize::from(throttle.over().is_some()),
            }
            advance(HEARTBEAT).await;
        }
        assert_eq!(
            (failed, over),
            (10, 10),
            "1, 2, 4, … 512, and the end of each"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_are_never_the_same_fill_no_log() {
        let mut throttle = Throttle::default();
        let told = (0..1000)
            .filter(|nth| throttle.counted(&format!("request {nth}")).is_some())
            .count();
        assert_eq!(told, KINDS + 6, "8 kinds, then 16, 32, … 512");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_also_after_a_day_of_single_failures() {
        let mut throttle = Throttle::default();
        for _ in 0..1000 {
            throttle.counted("503");
            throttle.over();
            advance(HEARTBEAT).await;
        }
        let counts: Vec<u64> = (0..20).filter_map(|_| throttle.counted("503")).collect();
        assert_eq!(counts, [1004, 1008, 1016]);
        assert!(throttle.over().is_some());
    }

    #[test]
    fn an_error_is_told_with_its_sources_and_has_an_end() {
        #[derive(Debug, thiserror::Error)]
        #[error("one")]
        struct One(#[source] Two);
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Two(String);
        assert_eq!(Chain(&One(Two("two".to_owned()))).to_string(), "one: two");
        let long = Chain(&One(Two("ü".repeat(5000)))).to_string();
        assert!(long.ends_with("ü…") && long.chars().count() == LONGEST_ERROR + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_calm_is_a_new_trouble() {
        let mut throttle = Throttle::default();
        for _ in 0..3 {
            throttle.counted("503");
        }
        assert_eq!(throttle.over().map(|over| over.failures), Some(3));
        advance(CALM + HEARTBEAT).await;
        assert_eq!(throttle.counted("503"), Some(1));
        // Without a success in between, two failures are one problem, however far apart they are.
        advance(CALM * 2).await;
        assert_eq!(throttle.counted("503"), Some(2));
    }
}

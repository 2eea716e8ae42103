//! The age of something, in kubectl's format.

use jiff::{SignedDuration, Timestamp};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// The time from `then` to `now`, in at most two units. Longer times have fewer units. The rules
/// are those of kubectl's column AGE (`HumanDuration` in k8s.io/apimachinery/pkg/util/duration).
/// `then` can be up to two seconds in the future, because clocks differ.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = SignedDuration::as_secs(&now.duration_since(then));
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let two = |large: i64, of: &str, small: i64, and: &str| match seconds % large / small {
        0 => format!("{}{of}", seconds / large),
        rest => format!("{}{of}{rest}{and}", seconds / large),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(MINUTE, "m", 1, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(HOUR, "h", MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(DAY, "d", HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(YEAR, "y", DAY, "d"),
        _ => format!("{}y", seconds / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_the_coarser() {
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().expect("a time");
        let told = |seconds: i64| age(now - SignedDuration::from_secs(seconds), now);
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * MINUTE, "2m"),
            (9 * MINUTE + 59, "9m59s"),
            (10 * MINUTE + 59, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (7 * HOUR + 5 * MINUTE, "7h5m"),
            (8 * HOUR + 5 * MINUTE, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY + 3 * HOUR, "2d3h"),
            (8 * DAY + 3 * HOUR, "8d"),
            (2 * YEAR - 1, "729d"),
            (2 * YEAR + 40 * DAY, "2y40d"),
            (8 * YEAR + 40 * DAY, "8y"),
        ] {
            assert_eq!(told(seconds), expected, "{seconds}");
        }
    }
}

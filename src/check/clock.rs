//! Compares this machine's clock with another one, by the `Date` of a response. Pure.

use jiff::{SignedDuration, Timestamp};

use podbeat_interface::finding::Finding;

/// A difference from this value on is a warning. If this clock is ahead of the API server's,
/// podbeat loses that time from the grace period when its pod is deleted. Five seconds are a sixth
/// of Kubernetes' default.
const NOTABLE: SignedDuration = SignedDuration::from_secs(5);

/// A difference from this value on is a failure. Services that check a token's times usually
/// tolerate one minute.
const TOO_MUCH: SignedDuration = SignedDuration::from_secs(60);

/// The precision of a `Date`: it has whole seconds, and servers may reuse a value for up to a
/// second.
const COARSE: SignedDuration = SignedDuration::from_secs(2);

/// The `Date` of a response, and the times on this clock just before and after it was written.
#[derive(Clone, Debug)]
pub(super) struct Dated {
    pub(super) date: Option<String>,
    pub(super) asked: Timestamp,
    pub(super) answered: Timestamp,
}

/// Returns by how much this clock is ahead at least. The value is negative if it is behind, and
/// zero if the round trip and the whole seconds explain the difference.
fn ahead(date: Timestamp, asked: Timestamp, answered: Timestamp) -> SignedDuration {
    // The other clock showed a time from `date` to just before `date` + COARSE. This clock showed
    // one from `asked` to `answered`.
    let at_least_ahead = asked.duration_since(date) - COARSE;
    let at_least_behind = date.duration_since(answered);
    if at_least_ahead > SignedDuration::ZERO {
        at_least_ahead
    } else if at_least_behind > SignedDuration::ZERO {
        -at_least_behind
    } else {
        SignedDuration::ZERO
    }
}

/// Judges this clock by a response. `whose` names the other clock.
pub(super) fn compare(id: &str, whose: &str, answer: &Dated) -> Finding {
    let Some(text) = &answer.date else {
        return Finding::skipped(id, format!("{whose} sends no Date header"));
    };
    let Ok(date) = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()) else {
        return Finding::skipped(id, format!("the Date header of {whose} is invalid"));
    };
    let ahead = ahead(date, answer.asked, answer.answered);
    let seconds = ahead.abs().as_secs();
    let direction = if ahead.is_negative() {
        "behind"
    } else {
        "ahead of"
    };
    let seen = format!("this clock is {seconds} s {direction} the clock of {whose}");
    let remedy = "Correct the clock of this node (check NTP), or the other clock. Otherwise tokens and certificates appear to start \
                  and expire at the wrong time, and the grace period of a deletion appears to end too early.";
    match ahead.abs() {
        off if off >= TOO_MUCH => Finding::failed(id, seen, remedy),
        off if off >= NOTABLE => Finding::warning(id, seen, remedy),
        off if off.is_zero() => {
            Finding::ok(id, format!("this clock agrees with the clock of {whose}"))
        }
        _ => Finding::ok(id, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podbeat_interface::finding::State;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn compared(date: Option<&str>) -> Finding {
        let answer = Dated {
            date: date.map(str::to_owned),
            asked: at("2026-11-25T02:00:00.900Z"),
            answered: at("2026-11-25T02:00:03.100Z"),
        };
        compare("clock.service", "the service", &answer)
    }

    #[test]
    fn whole_seconds_and_the_round_trip_are_no_skew() {
        for second in ["59", "00", "01", "02", "03"] {
            let minute = if second == "59" { "01:59" } else { "02:00" };
            let found = compared(Some(&format!("Wed, 25 Nov 2026 {minute}:{second} GMT")));
            assert_eq!((found.state, found.remedy), (State::Ok, None), "{second}");
            assert!(
                found.seen.contains("agrees with"),
                "{second}: {}",
                found.seen
            );
        }
    }

    #[test]
    fn both_ways_and_by_how_much() {
        for (date, state, seen) in [
            ("02:00:06", State::Ok, "2 s behind"),
            ("02:00:09", State::Warning, "5 s behind"),
            ("02:01:00", State::Warning, "56 s behind"),
            ("02:01:04", State::Failed, "60 s behind"),
            ("01:59:53", State::Warning, "5 s ahead of"),
            ("01:58:00", State::Failed, "118 s ahead of"),
        ] {
            let found = compared(Some(&format!("Wed, 25 Nov 2026 {date} GMT")));
            assert_eq!(found.state, state, "{date}: {}", found.seen);
            assert!(found.seen.contains(seen), "{date}: {}", found.seen);
        }
    }

    #[test]
    fn no_date_is_no_verdict() {
        for date in [
            None,
            Some(""),
            Some("soon"),
            Some("Wed, 99 Nov 9999 99:99:99 GMT"),
        ] {
            assert_eq!(compared(date).state, State::Skipped, "{date:?}");
        }
        assert_eq!(
            compared(Some("Mon, 01 Jan 0001 00:00:00 GMT")).state,
            State::Failed
        );
    }
}

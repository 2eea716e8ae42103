//! Checks a bearer token without showing any part of it. Pure.

use jiff::{SignedDuration, Timestamp};
use podbeat_task_runs::Secret;
use podbeat_task_runs::credentials::{Times, times};

use podbeat_interface::finding::Finding;

/// A token that expires within this time should have been replaced already, by a person or a
/// controller.
const NEAR: SignedDuration = SignedDuration::from_mins(10);

pub(super) const EXPIRY: &str = "token.expiry";

/// Checks the times that the token contains.
pub(super) fn expiry(token: &Secret, now: Timestamp) -> Finding {
    let Some(Times {
        expires_at,
        not_before,
    }) = times(token)
    else {
        return Finding::ok(EXPIRY, "not a JWT; only the service knows when it expires");
    };
    let seconds = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at);
    let from = now.duration_since(not_before.unwrap_or(Timestamp::MIN));
    if let Some(at) = not_before.filter(|_| from.is_negative()) {
        return Finding::failed(
            EXPIRY,
            format!(
                "a JWT that is not valid before {}, in {}",
                seconds(at),
                about(-from)
            ),
            "Check the clock of this node (see clock.service). If it is correct, wait, or write a token to PODBEAT_TOKEN_FILE that is valid now.",
        );
    }
    let Some(at) = expires_at else {
        return Finding::ok(EXPIRY, "a JWT without an expiry time");
    };
    let left = at.duration_since(now);
    let renewed = "If the service renews tokens, it sends podbeat a new token while the old one is valid. Otherwise write a new token to \
                   PODBEAT_TOKEN_FILE (in a cluster: to the Secret). podbeat reads the file again when it changes.";
    if left <= SignedDuration::ZERO {
        return Finding::failed(
            EXPIRY,
            format!(
                "a JWT that expired at {}, {} ago",
                seconds(at),
                about(-left)
            ),
            format!("The service will reject it. {renewed}"),
        );
    }
    let seen = format!(
        "a JWT that is valid until {}, for {}",
        seconds(at),
        about(left)
    );
    if left < NEAR {
        return Finding::warning(EXPIRY, seen, renewed);
    }
    Finding::ok(EXPIRY, seen)
}

/// Formats a duration in one or two units.
pub(super) fn about(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (1, _, _) => "1 day".to_owned(),
        (_, _, _) => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;
    use podbeat_interface::finding::State;

    fn judged(claims: &str) -> Finding {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(claims);
        let token = Secret::new(format!("e30.{payload}.hunter2"));
        let found = expiry(
            &token,
            Timestamp::from_second(1_800_000_000).expect("a time"),
        );
        assert!(!format!("{found:?}").contains("hunter2"));
        found
    }

    #[test]
    fn a_jwt_is_held_against_the_clock() {
        for (claims, state, seen) in [
            (r#"{"exp":1800090000}"#, State::Ok, "for 1 day"),
            (r#"{"exp":1800000300}"#, State::Warning, "for 5 min"),
            (r#"{"exp":1800000000}"#, State::Failed, "0 s ago"),
            (r#"{"exp":1799990000}"#, State::Failed, "2 h 46 min ago"),
            (
                r#"{"exp":1800090000,"nbf":1799999999}"#,
                State::Ok,
                "valid until",
            ),
            (
                r#"{"exp":1800090000,"nbf":1800000060}"#,
                State::Failed,
                "in 1 min",
            ),
            (r#"{"exp":1e300}"#, State::Ok, "without an expiry time"),
            (r#"{"sub":"hunter2"}"#, State::Ok, "without an expiry time"),
            ("hunter2", State::Ok, "not a JWT"),
        ] {
            let found = judged(claims);
            assert_eq!(found.state, state, "{claims}: {}", found.seen);
            assert!(found.seen.contains(seen), "{claims}: {}", found.seen);
        }
    }
}

//! Decides how long the watch waits before its next request. The caller sleeps.
//!
//! There are two kinds of waits. Before its first watch was open, a copy has a trouble of its own
//! (a missing Role, a network that is not up yet), and retries with the usual backoff. After that,
//! whatever ended its watch may have ended ten thousand others in the same instant, and no copy can
//! know. So every reconnect is spread.
//!
//! Most broken watches are single ones that a load balancer or a proxy dropped, and they may miss
//! news. So the first reconnect is spread over a few seconds only. It resumes from the last
//! resourceVersion, which a cache of the API server can answer. If it fails, the API server is away
//! or has trouble, and later reconnects are spread widely.

use std::time::Duration;

use podbeat_heartbeat::backoff::Backoff;

use super::Error;

/// The default range over which reconnects are spread. It is more than 30 s, because the first and
/// the last of a few hundred copies do not draw exactly the ends of the range.
pub const SPREAD: Duration = Duration::from_secs(35);

/// The first reconnect uses this fraction of the range: 4 s of 35 s.
const FIRST: u32 = 9;

/// Draws the waits before requests to the API server.
#[derive(Debug)]
pub(super) struct Reconnect {
    spread: Duration,
    hurried: bool,
    backoff: Backoff,
    /// Whether the API server was unreachable, or a watch broke off, since its last useful answer.
    away: bool,
    /// Whether a watch was ever open.
    watched: bool,
    /// Whether a watch is open, or was open when it failed.
    is_open: bool,
    /// Whether the early reconnect was made since a watch was last open for long.
    tried: bool,
    /// Whether this copy has drawn its place in the spread since a watch was last open.
    placed: bool,
    /// Whether the token was rejected since a watch was last open.
    token_refused: bool,
}

impl Reconnect {
    pub(super) fn new(spread: Duration) -> Self {
        Self {
            spread,
            hurried: false,
            backoff: Backoff::default(),
            away: false,
            watched: false,
            is_open: false,
            tried: false,
            placed: false,
            token_refused: false,
        }
    }

    /// A watch is open, so any outage is over.
    pub(super) fn opened(&mut self) {
        self.watched = true;
        self.is_open = true;
        self.placed = false;
        self.token_refused = false;
    }

    /// The watch was open for long enough to forget earlier failures.
    pub(super) fn settled(&mut self) {
        self.backoff.reset();
        self.away = false;
        self.tried = false;
    }

    /// A useful answer, or 410, ends the outage backoff. A refusal does not, because an API server
    /// that has just started refuses all requests (403 until it knows the Roles, 429, 503), and all
    /// copies would reconnect together.
    pub(super) fn answered(&mut self) {
        self.is_open = false;
        if std::mem::take(&mut self.away) {
            self.backoff.reset();
        }
    }

    /// The wait after an answer that is not a failure but requires another request. It is short,
    /// even after an outage, because a copy that got such an answer has already waited for its
    /// turn.
    pub(super) fn after_answer(&mut self, rng: &mut fastrand::Rng) -> Duration {
        self.answered();
        self.backoff.after_failure(rng)
    }

    /// The wait after 410 Gone on an open watch. All other watches may have got it at the same
    /// time.
    pub(super) fn after_expiry(&mut self, rng: &mut fastrand::Rng) -> Duration {
        self.answered();
        let wait = self.backoff.after_failure(rng);
        self.spread(rng).max(wait)
    }

    /// The wait after a failure, in addition to the wait that the API server asked for.
    pub(super) fn after_failure(&mut self, failure: &Error, rng: &mut fastrand::Rng) -> Duration {
        let was_open = std::mem::take(&mut self.is_open);
        if was_open && failure.is_broken_off() && !std::mem::replace(&mut self.tried, true) {
            // Perhaps only this copy is affected. The API server has not been asked yet.
            return (self.spread / FIRST).mul_f64(rng.f64());
        }
        self.away |= failure.is_unreachable();
        let wait = self.backoff.after_failure(rng);
        // A token that was replaced during an open watch is read again and tried at once. That is
        // not an outage.
        let signs_in =
            failure.status() == Some(401) && !std::mem::replace(&mut self.token_refused, true);
        let wait = if signs_in {
            wait
        } else {
            self.spread(rng).max(wait)
        };
        failure.asked_wait() + wait
    }

    pub(super) fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// News has become urgent. From now on, only the backoff applies, from its beginning.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
        self.spread = Duration::ZERO;
        self.backoff.reset();
    }

    /// The first wait of an outage is drawn evenly from the whole range. Each later wait is the
    /// whole range: equal waits keep copies apart that are already spread, but newly drawn waits
    /// would bring some of them together. So copies come back at a constant rate, one thirty-fifth
    /// of them per second, whenever the outage ends.
    fn spread(&mut self, rng: &mut fastrand::Rng) -> Duration {
        if !self.watched {
            Duration::ZERO
        } else if std::mem::replace(&mut self.placed, true) {
            self.spread
        } else {
            self.away = true;
            self.spread.mul_f64(rng.f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;
    use crate::watch::REQUEST;
    use podbeat_heartbeat::backoff;

    fn refused(code: u16) -> Error {
        Error::Refused {
            request: "listing pod team-a/p".to_owned(),
            namespace: Some("team-a".to_owned()),
            refusal: Refusal {
                status: code,
                ..Refusal::default()
            },
        }
    }

    fn timed_out() -> Error {
        Error::Timeout {
            request: "watching pod team-a/p".to_owned(),
            after: REQUEST,
        }
    }

    /// The waits of a thousand copies, in order.
    fn draws(waits: impl Fn(&mut Reconnect, &mut fastrand::Rng) -> Duration) -> Vec<Duration> {
        let draw = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            waits(&mut Reconnect::new(SPREAD), &mut rng)
        };
        let mut waits: Vec<Duration> = (0..1000).map(draw).collect();
        waits.sort_unstable();
        waits
    }

    /// The longest of many waits after a long outage, for copies that have never watched.
    fn widest(waits: impl Fn(&mut Reconnect, &mut fastrand::Rng) -> Duration) -> Duration {
        let after_an_outage = |reconnect: &mut Reconnect, rng: &mut fastrand::Rng| {
            for _ in 0..20 {
                let _ = reconnect.after_failure(&timed_out(), rng);
            }
            waits(reconnect, rng)
        };
        *draws(after_an_outage).last().expect("waits")
    }

    #[test]
    fn an_answer_ends_the_waits_of_an_outage() {
        let still_away = widest(|reconnect, rng| reconnect.after_failure(&timed_out(), rng));
        assert!(still_away > backoff::CAP / 2 && still_away <= backoff::CAP);
        assert!(widest(Reconnect::after_answer) <= backoff::BASE, "410 Gone");
        let listed_then_broken = |reconnect: &mut Reconnect, rng: &mut fastrand::Rng| {
            reconnect.answered();
            reconnect.after_failure(&timed_out(), rng)
        };
        assert!(widest(listed_then_broken) <= backoff::BASE);
    }

    #[test]
    fn an_expired_history_is_listed_soon_after_an_outage_and_then_less_often() {
        let outage = |reconnect: &mut Reconnect, rng: &mut fastrand::Rng| {
            reconnect.opened();
            reconnect.settled();
            let _ = reconnect.after_expiry(rng);
            for _ in 0..10 {
                let _ = reconnect.after_failure(&refused(403), rng);
            }
        };
        let first = draws(|reconnect, rng| {
            outage(reconnect, rng);
            reconnect.after_answer(rng)
        });
        assert!(first[999] <= backoff::BASE);
        let tenth = draws(|reconnect, rng| {
            outage(reconnect, rng);
            for _ in 0..10 {
                let _ = reconnect.after_answer(rng);
                reconnect.answered();
            }
            reconnect.after_answer(rng)
        });
        assert!(tenth[999] > backoff::CAP / 2);
    }

    #[test]
    fn a_refusal_ends_no_outage() {
        for code in [403, 429, 503] {
            let then = widest(|reconnect, rng| reconnect.after_failure(&refused(code), rng));
            assert!(then > backoff::CAP / 2, "{code}: {then:?}");
        }
    }

    #[test]
    fn after_unhelpful_answers_requests_become_less_frequent() {
        let tenth = widest(|reconnect, rng| {
            for _ in 0..10 {
                let _ = reconnect.after_answer(rng);
            }
            reconnect.after_answer(rng)
        });
        assert!(tenth > backoff::CAP / 2);
    }

    /// Asserts that the waits, in order, are spread evenly over the whole range after a common
    /// delay.
    fn evenly_spread(waits: &[Duration], behind: Duration) {
        let tenths = waits
            .chunks(waits.len() / 10)
            .filter_map(|tenth| tenth.last());
        for (tenth, &wait) in (1_u32..=10).zip(tenths) {
            let due = behind + SPREAD * tenth / 10;
            assert!(
                wait.abs_diff(due) < SPREAD / 20,
                "tenth {tenth}: {wait:?}, not {due:?}"
            );
        }
    }

    #[test]
    fn a_watch_that_broke_is_opened_again_anywhere_in_the_spread() {
        for failure in [timed_out(), refused(403), refused(429), refused(503)] {
            let waits = draws(|reconnect, rng| {
                reconnect.opened();
                reconnect.after_failure(&failure, rng)
            });
            evenly_spread(&waits, Duration::ZERO);
        }
    }

    #[test]
    fn those_that_are_spread_stay_spread_while_the_outage_lasts() {
        let failures = [timed_out(), refused(403), refused(503), timed_out()];
        let waits = draws(|reconnect, rng| {
            reconnect.opened();
            let first = reconnect.after_failure(&timed_out(), rng);
            let rest = failures
                .iter()
                .map(|failure| reconnect.after_failure(failure, rng));
            first + rest.sum::<Duration>()
        });
        evenly_spread(&waits, SPREAD * 4);
    }

    #[test]
    fn an_open_watch_begins_anew() {
        let waits = draws(|reconnect, rng| {
            for _ in 0..10 {
                reconnect.opened();
                let _ = reconnect.after_failure(&timed_out(), rng);
            }
            reconnect.opened();
            reconnect.settled();
            reconnect.after_failure(&timed_out(), rng)
        });
        assert!(waits[99] < SPREAD / 5, "{:?}", waits[99]);
    }

    #[test]
    fn a_replaced_token_is_tried_at_once_and_once() {
        let waits = draws(|reconnect, rng| {
            reconnect.opened();
            reconnect.after_failure(&refused(401), rng)
        });
        assert!(waits[999] <= backoff::BASE);
        let waits = draws(|reconnect, rng| {
            reconnect.opened();
            let _ = reconnect.after_failure(&refused(401), rng);
            reconnect.after_failure(&refused(401), rng)
        });
        assert!(waits[900] > SPREAD * 4 / 5);
    }

    #[test]
    fn no_spread_before_the_first_watch_or_for_urgent_requests() {
        let starts = draws(|reconnect, rng| reconnect.after_failure(&refused(403), rng));
        assert!(starts[999] <= backoff::BASE);
        let hurried = draws(|reconnect, rng| {
            reconnect.opened();
            for _ in 0..10 {
                let _ = reconnect.after_failure(&timed_out(), rng);
            }
            reconnect.hurry();
            reconnect.after_failure(&timed_out(), rng)
        });
        assert!(hurried[999] <= backoff::BASE);
    }

    #[test]
    fn an_expired_history_may_be_expired_for_all_copies() {
        let waits = draws(|reconnect, rng| {
            reconnect.opened();
            reconnect.settled();
            reconnect.after_expiry(rng)
        });
        evenly_spread(&waits, Duration::ZERO);
    }

    fn broken_off() -> Error {
        Error::Unreachable {
            request: "watching pod team-a/p".to_owned(),
            source: Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
        }
    }

    #[test]
    fn the_first_reconnect_after_a_stable_watch_is_early() {
        let open = |reconnect: &mut Reconnect| {
            reconnect.opened();
            reconnect.settled();
        };
        let first = draws(|reconnect, rng| {
            open(reconnect);
            reconnect.after_failure(&broken_off(), rng)
        });
        assert!(
            first[950] < Duration::from_secs(5) && first[999] > SPREAD / 10,
            "{:?}",
            first[999]
        );
        for failure in [refused(403), refused(429), refused(503), timed_out()] {
            let answered_so = draws(|reconnect, rng| {
                open(reconnect);
                reconnect.after_failure(&failure, rng)
            });
            assert!(answered_so[500] > SPREAD / 3, "{failure}");
        }
        // The early reconnect failed, or its watch broke off soon.
        for reopens in [false, true] {
            let second = draws(|reconnect, rng| {
                open(reconnect);
                let _ = reconnect.after_failure(&broken_off(), rng);
                if reopens {
                    reconnect.opened();
                }
                reconnect.after_failure(&broken_off(), rng)
            });
            assert!(second[500] > SPREAD / 3, "{reopens}");
        }
        // After a watch that stayed open, there is an early reconnect again.
        let again = draws(|reconnect, rng| {
            open(reconnect);
            let _ = reconnect.after_failure(&broken_off(), rng);
            open(reconnect);
            reconnect.after_failure(&broken_off(), rng)
        });
        assert!(again[999] < Duration::from_secs(5));
    }
}

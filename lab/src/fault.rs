//! One fault language for both stand-ins, as text and as types.
//!
//! A rule is `PLACE [final] WHAT [retry-after=2s] [after N] [EXTENT]`, for example
//! `heartbeat 503 retry-after=2s x3`, `heartbeat final drop`, `watch gone`, `watch cut after 2`,
//! `any refuse for 3s`, `list 403 until-lifted`. Rules are separated by `;` or line ends. A rule
//! that could never take effect is an error that says why.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The requests that a fault affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// GET of one object.
    Get,
    /// LIST of objects.
    List,
    /// WATCH of objects.
    Watch,
    /// POST of an object.
    Create,
    /// DELETE of an object.
    Delete,
    /// A heartbeat.
    Heartbeat,
    /// All of these.
    Any,
}

/// The kind of fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Answers with this HTTP status, and optionally with Retry-After.
    Status(u16, Option<RetryAfter>),
    /// Closes the connection at once: a new one before its handshake, an existing one before the
    /// request is processed.
    Refuse,
    /// Processes the request, then closes the connection without an answer.
    Drop,
    /// Loses the request: closes the connection without processing it.
    Lose,
    /// Processes the request, and never answers.
    Hang,
    /// Loses the request, and never answers.
    HangLost,
    /// Delays the answer.
    Delay(Duration),
    /// Answers 200 with a body that isn't JSON. In an open watch, sends a line that isn't JSON.
    Garbage,
    /// Answers 200 with a body of more than 1 MiB.
    Giant,
    /// Answers 200 with an endless body of one object. In an open watch, sends an endless line.
    Flood,
    /// Answers 307 with this location.
    Redirect(String),
    /// Adds this token to the answer to an accepted heartbeat.
    Jwt(String),
    /// Sends an ERROR event with code 410 in the watch.
    Gone,
    /// Breaks the watch's connection.
    Cut,
    /// Ends the watch cleanly.
    End,
    /// Keeps the watch open, but sends nothing more.
    Silent,
}

/// The format of Retry-After.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// A number of seconds.
    Seconds(u64),
    /// A date this many seconds ahead.
    Date(u64),
}

/// How long a rule stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// For this many requests.
    Times(u32),
    /// For this long after its injection. With `after`, the time starts when those requests or
    /// events have passed.
    For(Duration),
    /// Until [`Faults::lift_all`].
    UntilLifted,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The requests that it affects.
    pub place: Place,
    /// Whether it affects only heartbeats with lastHeartbeat true.
    pub only_final: bool,
    /// The kind of fault.
    pub what: What,
    /// How many requests it skips first. For a fault of an open watch, how many events.
    pub after: Option<usize>,
    /// How long it stays in force.
    pub extent: Extent,
}

/// A rule that can't be read, or that could never take effect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid fault {rule:?} at {at:?}: {why}")]
pub struct Misread {
    rule: String,
    at: String,
    why: &'static str,
}

const FORM: &str =
    "a rule is PLACE [final] WHAT [retry-after=TIME] [after N] [xN|for TIME|until-lifted]";
const TWICE: &str = "specified twice";
const NEVER: &str = "the rule would never take effect";
const OF_HEARTBEATS: &str = "only a heartbeat can be final; use heartbeat or any";
const OF_WATCHES: &str = "only a watch can have this fault";
const OF_TOKENS: &str = "only the answer to a heartbeat can have a token";
const SECONDS: &str = "Retry-After must be in whole seconds";
const NO_HEADER: &str = "not a valid header value";

impl FromStr for Rule {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let wrong = |at: &str, why| Misread {
            rule: text.to_owned(),
            at: at.to_owned(),
            why,
        };
        let misread = |at: &str| wrong(at, FORM);
        let mut words = text.split_whitespace().peekable();
        let place = match words.next().unwrap_or_default() {
            "get" => Place::Get,
            "list" => Place::List,
            "watch" => Place::Watch,
            "create" => Place::Create,
            "delete" => Place::Delete,
            "heartbeat" => Place::Heartbeat,
            "any" => Place::Any,
            other => return Err(misread(other)),
        };
        let only_final = words.next_if_eq(&"final").is_some();
        if only_final && !matches!(place, Place::Heartbeat | Place::Any) {
            return Err(wrong("final", OF_HEARTBEATS));
        }
        let word = words.next().unwrap_or_default();
        let mut what = what(word).ok_or_else(|| misread(word))?;
        match &what {
            What::Gone | What::End | What::Silent if place != Place::Watch => {
                return Err(wrong(word, OF_WATCHES));
            }
            What::Jwt(_) if place != Place::Heartbeat => return Err(wrong(word, OF_TOKENS)),
            What::Redirect(url) if url.is_empty() || http::HeaderValue::from_str(url).is_err() => {
                return Err(wrong(word, NO_HEADER));
            }
            _ => {}
        }
        let (mut after, mut extent) = (None, None);
        while let Some(word) = words.next() {
            let duration = |text: &str| humantime::parse_duration(text).map_err(|_| misread(text));
            let bounded =
                |extent: &mut Option<Extent>, new, is_empty: bool| match extent.replace(new) {
                    Some(_) => Err(wrong(word, TWICE)),
                    None if is_empty => Err(wrong(word, NEVER)),
                    None => Ok(()),
                };
            if let Some(asked) = word.strip_prefix("retry-after=") {
                let What::Status(_, retry_after) = &mut what else {
                    return Err(misread(word));
                };
                let (time, is_date) = match asked.strip_prefix("date+") {
                    Some(ahead) => (duration(ahead)?, true),
                    None => (duration(asked)?, false),
                };
                if time.subsec_nanos() != 0 {
                    return Err(wrong(word, SECONDS));
                }
                let asked = match is_date {
                    true => RetryAfter::Date(time.as_secs()),
                    false => RetryAfter::Seconds(time.as_secs()),
                };
                if retry_after.replace(asked).is_some() {
                    return Err(wrong(word, TWICE));
                }
            } else if word == "after" {
                let count = words.next().unwrap_or_default();
                if after
                    .replace(count.parse().map_err(|_| misread(count))?)
                    .is_some()
                {
                    return Err(wrong(word, TWICE));
                }
            } else if word == "for" {
                let time = duration(words.next().unwrap_or_default())?;
                bounded(&mut extent, Extent::For(time), time.is_zero())?;
            } else if word == "until-lifted" {
                bounded(&mut extent, Extent::UntilLifted, false)?;
            } else if let Some(Ok(times)) = word.strip_prefix('x').map(str::parse) {
                bounded(&mut extent, Extent::Times(times), times == 0)?;
            } else {
                return Err(misread(word));
            }
        }
        Ok(Self {
            place,
            only_final,
            what,
            after,
            extent: extent.unwrap_or(Extent::Times(1)),
        })
    }
}

fn what(word: &str) -> Option<What> {
    let simple = match word {
        "refuse" => What::Refuse,
        "drop" => What::Drop,
        "lose" => What::Lose,
        "hang" => What::Hang,
        "hang-lost" => What::HangLost,
        "garbage" => What::Garbage,
        "giant" => What::Giant,
        "flood" => What::Flood,
        "gone" => What::Gone,
        "cut" => What::Cut,
        "end" => What::End,
        "silent" => What::Silent,
        _ => {
            return if let Some(delay) = word.strip_prefix("delay=") {
                humantime::parse_duration(delay).ok().map(What::Delay)
            } else if let Some(url) = word.strip_prefix("redirect=") {
                Some(What::Redirect(url.to_owned()))
            } else if let Some(token) = word.strip_prefix("jwt=") {
                Some(What::Jwt(token.to_owned()))
            } else {
                let status = word
                    .parse()
                    .ok()
                    .filter(|status| (300..600).contains(status))?;
                Some(What::Status(status, None))
            };
        }
    };
    Some(simple)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match self.place {
            Place::Get => "get",
            Place::List => "list",
            Place::Watch => "watch",
            Place::Create => "create",
            Place::Delete => "delete",
            Place::Heartbeat => "heartbeat",
            Place::Any => "any",
        };
        write!(
            f,
            "{place}{} {}",
            if self.only_final { " final" } else { "" },
            self.what
        )?;
        if let Some(after) = self.after {
            write!(f, " after {after}")?;
        }
        match self.extent {
            Extent::Times(times) => write!(f, " x{times}"),
            Extent::For(time) => write!(f, " for {}", compact(time)),
            Extent::UntilLifted => f.write_str(" until-lifted"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, None) => write!(f, "{status}"),
            Self::Status(status, Some(RetryAfter::Seconds(seconds))) => {
                write!(f, "{status} retry-after={seconds}s")
            }
            Self::Status(status, Some(RetryAfter::Date(seconds))) => {
                write!(f, "{status} retry-after=date+{seconds}s")
            }
            Self::Refuse => f.write_str("refuse"),
            Self::Drop => f.write_str("drop"),
            Self::Lose => f.write_str("lose"),
            Self::Hang => f.write_str("hang"),
            Self::HangLost => f.write_str("hang-lost"),
            Self::Delay(delay) => write!(f, "delay={}", compact(*delay)),
            Self::Garbage => f.write_str("garbage"),
            Self::Giant => f.write_str("giant"),
            Self::Flood => f.write_str("flood"),
            Self::Redirect(url) => write!(f, "redirect={url}"),
            Self::Jwt(token) => write!(f, "jwt={token}"),
            Self::Gone => f.write_str("gone"),
            Self::Cut => f.write_str("cut"),
            Self::End => f.write_str("end"),
            Self::Silent => f.write_str("silent"),
        }
    }
}

impl RetryAfter {
    /// The header's value.
    pub(crate) fn header(self) -> Option<http::HeaderValue> {
        let text = match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(ahead) => {
                let date = jiff::Timestamp::now()
                    .checked_add(Duration::from_secs(ahead))
                    .ok()?;
                jiff::fmt::rfc2822::DateTimePrinter::new()
                    .timestamp_to_rfc9110_string(&date)
                    .ok()?
            }
        };
        text.parse().ok()
    }
}

impl What {
    /// Whether it affects an open watch, and not only the watch's request.
    fn strikes_open_watches(&self) -> bool {
        matches!(
            self,
            Self::Gone | Self::Cut | Self::End | Self::Silent | Self::Garbage | Self::Flood
        )
    }
}

/// Formats a duration as one word.
fn compact(time: Duration) -> String {
    humantime::format_duration(time)
        .to_string()
        .replace(' ', "")
}

/// The faults in force. Clones share them.
#[derive(Clone, Debug)]
pub struct Faults {
    active: Arc<Mutex<Vec<Active>>>,
    /// Notifies open watches of a new rule.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    /// The requests that it skipped because of `after`.
    passed: usize,
    /// When it took effect, that is, after the skipped requests or events.
    since: Option<Instant>,
    struck: u32,
}

impl Active {
    /// Whether the rule is due after this many requests or events.
    fn is_due(&mut self, passed: usize) -> bool {
        let is_due = self.rule.after.is_none_or(|after| passed >= after);
        if is_due {
            self.since.get_or_insert_with(Instant::now);
        }
        is_due
    }

    fn holds(&self) -> bool {
        match self.rule.extent {
            Extent::Times(times) => self.struck < times,
            Extent::For(time) => self.since.is_none_or(|since| since.elapsed() < time),
            Extent::UntilLifted => true,
        }
    }

    fn strike(&mut self) -> What {
        self.struck = self.struck.saturating_add(1);
        self.rule.what.clone()
    }
}

impl Rule {
    /// Whether it counts the events of an open watch instead of requests.
    fn counts_events(&self) -> bool {
        self.place == Place::Watch && self.what.strikes_open_watches() && self.after.is_some()
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            active: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Faults {
    /// Puts one rule into force.
    pub fn inject(&self, rule: Rule) {
        // Without `after`, the rule is due at once.
        let since = rule.after.is_none().then(Instant::now);
        self.active().push(Active {
            rule,
            passed: 0,
            since,
            struck: 0,
        });
        self.changes.send_modify(|count| *count += 1);
    }

    /// Puts rules into force. They are separated by `;` or line ends.
    ///
    /// # Errors
    /// A rule can't be read. Then no rule is put into force.
    pub fn script(&self, text: &str) -> Result<(), Misread> {
        let rules: Vec<&str> = text
            .split([';', '\n'])
            .map(str::trim)
            .filter(|rule| !rule.is_empty())
            .collect();
        let rules = rules
            .into_iter()
            .map(str::parse)
            .collect::<Result<Vec<Rule>, Misread>>()?;
        rules.into_iter().for_each(|rule| self.inject(rule));
        Ok(())
    }

    /// Whether every rule affects only these places.
    #[must_use]
    pub fn lie_in(&self, places: &[Place]) -> bool {
        self.active()
            .iter()
            .all(|active| places.contains(&active.rule.place))
    }

    /// Ends all rules.
    pub fn lift_all(&self) {
        self.active().clear();
    }

    /// How often the rules since the last [`Faults::lift_all`] took effect.
    #[must_use]
    pub fn struck(&self) -> u32 {
        self.active().iter().map(|active| active.struck).sum()
    }

    /// The fault for a request, if a rule applies. [`Self::strike_watch`] handles the rules that
    /// count the events of a watch. A rule that isn't due yet counts the request, even if another
    /// rule applies to it.
    pub(crate) fn strike(&self, place: Place, is_final: bool) -> Option<What> {
        let mut what = None;
        for active in self.active().iter_mut() {
            let rule = &active.rule;
            let lies_here = rule.place == place || rule.place == Place::Any;
            if !lies_here || (rule.only_final && !is_final) || rule.counts_events() {
                continue;
            }
            if !active.is_due(active.passed) {
                active.passed += 1;
            } else if what.is_none() && active.holds() {
                what = Some(active.strike());
            }
        }
        what
    }

    /// The fault for an open watch that has sent `events` events, if a rule applies.
    pub(crate) fn strike_watch(&self, events: usize) -> Option<What> {
        let applies = |rule: &Rule| rule.place == Place::Watch && rule.what.strikes_open_watches();
        self.strike_first(applies, |_| events)
    }

    /// Whether a rule for any of these places refuses new connections. A new connection's request
    /// is not known yet, so a rule for last heartbeats closes the connection only at the request.
    pub(crate) fn refuses(&self, places: &[Place]) -> bool {
        let applies = |rule: &Rule| {
            let lies_here = rule.place == Place::Any || places.contains(&rule.place);
            rule.what == What::Refuse && lies_here && !rule.only_final
        };
        self.strike_first(applies, |active| active.passed).is_some()
    }

    /// The first rule that applies, is in force, and is due after `passed` requests or events.
    fn strike_first(
        &self,
        applies: impl Fn(&Rule) -> bool,
        passed: impl Fn(&Active) -> usize,
    ) -> Option<What> {
        self.active().iter_mut().find_map(|active| {
            let passed = passed(active);
            (applies(&active.rule) && active.holds() && active.is_due(passed))
                .then(|| active.strike())
        })
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn active(&self) -> MutexGuard<'_, Vec<Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_types_agree() {
        for text in [
            "heartbeat 503 x1",
            "heartbeat 503 retry-after=2s x3",
            "heartbeat 429 retry-after=date+2s for 1m",
            "heartbeat final drop x1",
            "heartbeat hang-lost x1",
            "heartbeat delay=500ms x2",
            "heartbeat redirect=https://elsewhere/ x1",
            "heartbeat jwt=t0 x1",
            "list 403 until-lifted",
            "watch cut after 2 x1",
            "watch silent for 3s",
            "watch gone x1",
            "any refuse for 3s",
            "get garbage x1",
            "create hang after 1 x1",
            "delete drop x1",
            "list flood x1",
            "heartbeat 503 after 1 x2",
            "any refuse after 3 for 2s",
        ] {
            let rule: Rule = text.parse().expect(text);
            assert_eq!(rule.to_string(), text);
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
        assert_eq!(
            "watch cut".parse::<Rule>().expect("once").extent,
            Extent::Times(1)
        );
    }

    #[test]
    fn an_invalid_rule_is_reported_with_its_position() {
        for (text, at) in [
            ("", ""),
            ("moon 503", "moon"),
            ("heartbeat 200", "200"),
            ("heartbeat 503 x", "x"),
            ("heartbeat drop retry-after=1s", "retry-after=1s"),
            ("watch cut after two", "two"),
            ("any refuse for ever", "ever"),
            // Rules that could never take effect, or not as written.
            ("list final 503", "final"),
            ("heartbeat gone", "gone"),
            ("any silent", "silent"),
            ("get end", "end"),
            ("watch jwt=t", "jwt=t"),
            ("any jwt=t", "jwt=t"),
            ("heartbeat redirect=", "redirect="),
            ("heartbeat 503 x0", "x0"),
            ("heartbeat 503 for 0s", "for"),
            ("heartbeat 503 x1 x2", "x2"),
            ("heartbeat 503 for 1s until-lifted", "until-lifted"),
            ("heartbeat 503 after 1 after 2", "after"),
            (
                "heartbeat 503 retry-after=1s retry-after=2s",
                "retry-after=2s",
            ),
            ("heartbeat 503 retry-after=500ms", "retry-after=500ms"),
            ("heartbeat 503 x4294967296", "x4294967296"),
        ] {
            assert_eq!(text.parse::<Rule>().expect_err(text).at, at, "{text}");
        }
        let faults = Faults::default();
        assert!(faults.script("heartbeat 503; nonsense").is_err());
        assert_eq!(faults.strike(Place::Heartbeat, false), None, "all or none");
    }

    #[test]
    fn a_rule_affects_only_its_requests_and_as_often_as_specified() {
        let faults = Faults::default();
        faults
            .script("heartbeat final 503 x2\nlist 403 until-lifted")
            .expect("rules");
        assert_eq!(faults.strike(Place::Heartbeat, false), None);
        for _ in 0..2 {
            assert_eq!(
                faults.strike(Place::Heartbeat, true),
                Some(What::Status(503, None))
            );
        }
        assert_eq!(faults.strike(Place::Heartbeat, true), None);
        assert!(faults.strike(Place::List, false).is_some());
        faults.lift_all();
        assert_eq!(faults.strike(Place::List, false), None);
    }

    /// Which of the first `looks` requests or events a rule affects.
    fn struck(rule: &Rule, looks: usize) -> Vec<usize> {
        let faults = Faults::default();
        faults.inject(rule.clone());
        let place = match rule.place {
            Place::Any => Place::Heartbeat,
            place => place,
        };
        let strikes = |nth: &usize| {
            let struck = if rule.counts_events() {
                faults.strike_watch(*nth)
            } else {
                faults.strike(place, true)
            };
            struck.is_some()
        };
        (0..looks).filter(strikes).collect()
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            failure_persistence: None, ..proptest::test_runner::Config::default()
        })]
        #[test]
        fn every_accepted_rule_takes_effect_as_specified(
            place in proptest::sample::select(vec![
                "get", "list", "watch", "create", "delete", "heartbeat", "any",
            ]),
            is_final in proptest::bool::ANY,
            what in proptest::sample::select(vec![
                "503", "429 retry-after=2s", "404 retry-after=date+3s", "refuse", "drop", "lose", "hang", "hang-lost", "delay=1ms",
                "garbage", "giant", "flood", "redirect=https://x/", "jwt=t", "gone", "cut", "end", "silent",
            ]),
            after in proptest::option::of(0_usize..4),
            extent in proptest::sample::select(vec!["", " x0", " x1", " x3", " for 0s", " for 1h", " until-lifted"]),
        ) {
            let only = if is_final { " final" } else { "" };
            let passes = after.map(|after| format!(" after {after}")).unwrap_or_default();
            let text = format!("{place}{only} {what}{passes}{extent}");
            let passed = after.unwrap_or(0);
            match text.parse::<Rule>() {
                Ok(rule) => {
                    let times = match rule.extent {
                        Extent::Times(times) => usize::try_from(times).expect("a few"),
                        Extent::For(_) | Extent::UntilLifted => 10 - passed,
                    };
                    let expected: Vec<usize> = (passed..passed + times).collect();
                    proptest::prop_assert_eq!(struck(&rule, 10), expected, "{}", text);
                }
                // All words here are known, so a rule is rejected only if it could never take
                // effect.
                Err(error) => proptest::prop_assert!(
                    [OF_HEARTBEATS, OF_WATCHES, OF_TOKENS, NEVER].contains(&error.why), "{}", error
                ),
            }
        }
    }

    #[test]
    fn requests_before_a_rule_is_due_are_counted_once() {
        let faults = Faults::default();
        faults
            .script("heartbeat 503 after 1 x2; heartbeat 400 after 2")
            .expect("rules");
        let told: Vec<String> = (0..5)
            .map(|_| {
                faults
                    .strike(Place::Heartbeat, false)
                    .map_or_else(String::new, |what| what.to_string())
            })
            .collect();
        assert_eq!(told, ["", "503", "503", "400", ""]);
        // A new connection's request is not known yet, so the rule doesn't count connections.
        let faults = Faults::default();
        faults
            .script("heartbeat refuse after 1; heartbeat final refuse")
            .expect("rules");
        assert!(!faults.refuses(&[Place::Heartbeat]));
        assert_eq!(faults.strike(Place::Heartbeat, false), None);
        assert!(faults.refuses(&[Place::Heartbeat]));
        assert!(!faults.refuses(&[Place::Heartbeat]));
        assert_eq!(faults.strike(Place::Heartbeat, true), Some(What::Refuse));
    }
}

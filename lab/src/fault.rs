//! One fault language for both stand-ins, as text and as types.
//!
//! A rule is `PLACE [final] WHAT [retry-after=2s] [after N] [EXTENT]`, for example `heartbeat 503 retry-after=2s x3`,
//! `heartbeat final drop`, `watch gone`, `watch cut after 2`, `any refuse for 3s`, `list 403 until-lifted`. Rules are
//! separated by `;` or line ends.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// GET of one pod.
    Get,
    /// LIST of pods.
    List,
    /// WATCH of pods.
    Watch,
    /// A heartbeat.
    Heartbeat,
    /// All of these.
    Any,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// This HTTP status is answered, perhaps with Retry-After.
    Status(u16, Option<RetryAfter>),
    /// The connection is closed at once: a new one before its handshake, an old one before the request is acted on.
    Refuse,
    /// The request is acted on, then the connection is closed without an answer.
    Drop,
    /// The request is lost: the connection is closed without it being acted on.
    Lose,
    /// The request is acted on, and never answered.
    Hang,
    /// The request is lost, and never answered.
    HangLost,
    /// The answer comes late.
    Delay(Duration),
    /// 200, with a body that isn't JSON; in an open watch, a line that isn't.
    Garbage,
    /// 200, with a body of more than 1 MiB.
    Giant,
    /// 200, with a body of one object that never ends; in an open watch, a line that never does.
    Flood,
    /// 307 to elsewhere.
    Redirect(String),
    /// An accepted heartbeat brings this token.
    Jwt(String),
    /// The watch brings an ERROR event with code 410.
    Gone,
    /// The watch's connection breaks.
    Cut,
    /// The watch ends in order.
    End,
    /// The watch stays open and brings nothing more.
    Silent,
}

/// How Retry-After is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// As seconds.
    Seconds(u64),
    /// As a date this far ahead.
    Date(u64),
}

/// How long a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// For so many requests.
    Times(u32),
    /// For so long from its injection on.
    For(Duration),
    /// Until [`Faults::lift_all`].
    UntilLifted,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub place: Place,
    /// Only a heartbeat with lastHeartbeat true.
    pub only_final: bool,
    /// What.
    pub what: What,
    /// For watches: after so many events of the stream.
    pub after: Option<usize>,
    /// How long.
    pub extent: Extent,
}

/// A rule that can't be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fault {rule:?} is not understood at {at:?}; a rule is PLACE [final] WHAT [after N] [xN|for TIME|until-lifted]"
)]
pub struct Misread {
    rule: String,
    at: String,
}

impl FromStr for Rule {
    type Err = Misread;

    fn from_str(text: &str) -> Result<Self, Misread> {
        let misread = |at: &str| Misread {
            rule: text.to_owned(),
            at: at.to_owned(),
        };
        let mut words = text.split_whitespace().peekable();
        let place = match words.next().unwrap_or_default() {
            "get" => Place::Get,
            "list" => Place::List,
            "watch" => Place::Watch,
            "heartbeat" => Place::Heartbeat,
            "any" => Place::Any,
            other => return Err(misread(other)),
        };
        let only_final = words.next_if_eq(&"final").is_some();
        let word = words.next().unwrap_or_default();
        let mut what = what(word).ok_or_else(|| misread(word))?;
        let mut after = None;
        let mut extent = Extent::Times(1);
        while let Some(word) = words.next() {
            let duration = |text: &str| humantime::parse_duration(text).map_err(|_| misread(text));
            if let Some(asked) = word.strip_prefix("retry-after=") {
                let What::Status(_, retry_after) = &mut what else {
                    return Err(misread(word));
                };
                *retry_after = Some(match asked.strip_prefix("date+") {
                    Some(ahead) => RetryAfter::Date(duration(ahead)?.as_secs()),
                    None => RetryAfter::Seconds(duration(asked)?.as_secs()),
                });
            } else if word == "after" {
                let count = words.next().unwrap_or_default();
                after = Some(count.parse().map_err(|_| misread(count))?);
            } else if word == "for" {
                extent = Extent::For(duration(words.next().unwrap_or_default())?);
            } else if word == "until-lifted" {
                extent = Extent::UntilLifted;
            } else if let Some(Ok(times)) = word.strip_prefix('x').map(str::parse) {
                extent = Extent::Times(times);
            } else {
                return Err(misread(word));
            }
        }
        Ok(Self {
            place,
            only_final,
            what,
            after,
            extent,
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
                let status = word.parse().ok().filter(|status| (300..600).contains(status))?;
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

impl What {
    /// What happens, without a token or a URL that comes with it.
    pub(crate) fn kind(&self) -> String {
        let text = self.to_string();
        match self {
            Self::Redirect(_) | Self::Jwt(_) => text.split('=').next().unwrap_or_default().to_owned(),
            _ => text,
        }
    }
}

/// A duration in one word.
fn compact(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

/// The faults in force. Clones share them.
#[derive(Clone, Debug)]
pub struct Faults {
    active: Arc<Mutex<Vec<Active>>>,
    /// Tells open watches that a rule came.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    since: Instant,
    struck: u32,
}

impl Active {
    fn holds(&self) -> bool {
        match self.rule.extent {
            Extent::Times(times) => self.struck < times,
            Extent::For(time) => self.since.elapsed() < time,
            Extent::UntilLifted => true,
        }
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
    /// Brings one rule into force.
    pub fn inject(&self, rule: Rule) {
        self.active().push(Active {
            rule,
            since: Instant::now(),
            struck: 0,
        });
        self.changes.send_modify(|count| *count += 1);
    }

    /// Brings rules into force, separated by `;` or line ends.
    ///
    /// # Errors
    /// A rule can't be read; then none comes into force.
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

    /// Ends all rules.
    pub fn lift_all(&self) {
        self.active().clear();
    }

    /// How often faults have struck, for rules still known.
    #[must_use]
    pub fn struck(&self) -> u32 {
        self.active().iter().map(|active| active.struck).sum()
    }

    /// The fault for a request, if one holds. Rules for later events of a watch are left to [`Self::strike_watch`].
    pub(crate) fn strike(&self, place: Place, is_final: bool) -> Option<What> {
        self.strike_if(|rule| {
            let lies_here = rule.place == place || rule.place == Place::Any;
            lies_here && (!rule.only_final || is_final) && rule.after.is_none()
        })
    }

    /// The fault for an open watch that has sent `events`, if one holds.
    pub(crate) fn strike_watch(&self, events: usize) -> Option<What> {
        self.strike_if(|rule| {
            let ends_a_stream = matches!(
                rule.what,
                What::Gone | What::Cut | What::End | What::Silent | What::Garbage | What::Flood
            );
            rule.place == Place::Watch && ends_a_stream && rule.after.is_none_or(|after| events >= after)
        })
    }

    /// Whether new connections are refused, by a rule for any of these places.
    pub(crate) fn refuses(&self, places: &[Place]) -> bool {
        let counts = |rule: &Rule| {
            rule.what == What::Refuse && (rule.place == Place::Any || places.contains(&rule.place))
        };
        self.strike_if(counts).is_some()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn strike_if(&self, applies: impl Fn(&Rule) -> bool) -> Option<What> {
        let mut active = self.active();
        let struck = active
            .iter_mut()
            .find(|active| active.holds() && applies(&active.rule))?;
        struck.struck += 1;
        Some(struck.rule.what.clone())
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
            "list flood x1",
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
    fn what_isnt_a_rule_is_told_where() {
        for (text, at) in [
            ("", ""),
            ("moon 503", "moon"),
            ("heartbeat 200", "200"),
            ("heartbeat 503 x", "x"),
            ("heartbeat drop retry-after=1s", "retry-after=1s"),
            ("watch cut after two", "two"),
            ("any refuse for ever", "ever"),
        ] {
            assert_eq!(text.parse::<Rule>().expect_err(text).at, at, "{text}");
        }
        let faults = Faults::default();
        assert!(faults.script("heartbeat 503; nonsense").is_err());
        assert_eq!(faults.strike(Place::Heartbeat, false), None, "all or none");
    }

    #[test]
    fn a_rule_strikes_where_and_as_often_as_it_says() {
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
}

//! The parsers of flag values.

use std::error::Error;
use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command};
use podbeat_interface::arguments::Wrong;
use podbeat_task_runs::Secret;
use podbeat_task_runs::model::{
    Image, InvalidSort, Number, PageSize, SortField, SortOrder, TaskRunStatus,
};

use crate::runs::image_reference;
use crate::runs::wait_condition::{END, WaitCondition, status};

pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    // Adding a longer duration to a clock would overflow.
    const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
    match text {
        "0" => Ok(Duration::ZERO),
        text => humantime::parse_duration(text)
            .ok()
            .filter(|duration| *duration <= LONGEST)
            .ok_or(Wrong("must be a duration such as 500ms, 30s or 2h")),
    }
}

/// Parses the time between two requests.
pub(super) fn pause(text: &str) -> Result<Duration, Wrong> {
    let pause = duration(text)?;
    let is_long_enough = pause >= Duration::from_millis(100);
    is_long_enough
        .then_some(pause)
        .ok_or(Wrong("must be at least 100ms"))
}

pub(super) fn page_size(text: &str) -> Result<PageSize, Wrong> {
    text.parse()
        .ok()
        .and_then(PageSize::new)
        .ok_or(Wrong("must be a whole number from 1 to 1000"))
}

pub(super) fn count(text: &str) -> Result<i32, Wrong> {
    let count = text.parse().ok().filter(|count| *count >= 0);
    count.ok_or(Wrong("must be a whole number from 0 to 2147483647"))
}

pub(super) fn limit(text: &str) -> Result<usize, Wrong> {
    let limit = text.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or(Wrong("must be a whole number above 0"))
}

pub(super) fn positive(text: &str) -> Result<Number, Wrong> {
    text.parse::<Number>()
        .ok()
        .filter(|number| number.as_f64().is_some_and(|value| value > 0.0))
        .ok_or(Wrong("must be a number above 0"))
}

pub(super) fn variable(text: &str) -> Result<(String, Secret), Wrong> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), Secret::new(value))),
        _ => Err(Wrong("must be NAME=VALUE (the value is not shown)")),
    }
}

/// Parses an image in the form `NAME[:TAG][@DIGEST]`.
pub(super) fn image(text: &str) -> Result<Image, image_reference::Unfit> {
    let (name, tag, digest) = image_reference::parts(text);
    image_reference::check(text, None, None)?;
    Ok(Image {
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
        ..Image::new(name)
    })
}

/// Parses a value. Shells complete the usual values, but others are accepted, too.
#[derive(Clone)]
pub(super) struct Usual<T, E> {
    words: fn() -> Vec<&'static str>,
    read: fn(&str) -> Result<T, E>,
}

impl<T, E> TypedValueParser for Usual<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Error + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let read = self.read;
        StringValueParser::new()
            .try_map(move |text| read(&text))
            .parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.words)().into_iter().map(PossibleValue::new)))
    }
}

pub(super) fn known_statuses() -> Vec<&'static str> {
    static KNOWN: [TaskRunStatus; 10] = TaskRunStatus::KNOWN;
    KNOWN.iter().map(TaskRunStatus::as_str).collect()
}

pub(super) fn condition_words() -> Vec<&'static str> {
    let mut words = known_statuses();
    words.push(END);
    words
}

/// A status. It may be unknown: only the other flags tell whether the user allows that.
pub(super) const STATUS: Usual<TaskRunStatus, Wrong> = Usual {
    words: known_statuses,
    read: |text| Ok(status(text)),
};

/// The status to wait for.
pub(super) const WANTED: Usual<(WaitCondition, Vec<TaskRunStatus>), Wrong> = Usual {
    words: condition_words,
    read: |text| WaitCondition::parse(text).map_err(Wrong),
};

/// The sort order. Shells complete the fields.
pub(super) const SORT: Usual<SortOrder, InvalidSort> = Usual {
    words: || SortField::ALL.map(SortField::as_str).into(),
    read: str::parse,
};

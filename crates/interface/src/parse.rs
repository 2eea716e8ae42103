//! Parsers of settings. Their errors say what is wrong. Only errors of settings that are not secret
//! repeat a part of the value.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use podbeat_heartbeat::marker::ContainerName;
use podbeat_heartbeat::report::Report;
use podbeat_task_runs::Secret;

use crate::setting::{Bounds, in_words};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

impl LogFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::Json, Self::Text];

    /// The format's name, as in the setting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

/// A path.
///
/// # Errors
/// Never.
pub fn path(value: OsString) -> Result<PathBuf, &'static str> {
    Ok(value.into())
}

/// A text with its surrounding white space.
pub(crate) fn utf8(value: OsString) -> Result<String, &'static str> {
    value.into_string().map_err(|_| NOT_UTF8)
}

pub(crate) const NOT_UTF8: &str = "not valid UTF-8";

/// Any text. The code that reads the setting checks more.
///
/// # Errors
/// Never.
pub fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn parsed<T: FromStr>(text: &str, problem: &str) -> Result<T, String> {
    text.parse().map_err(|_| problem.to_owned())
}

pub(crate) fn index(text: &str) -> Result<u32, String> {
    parsed(text, "must be a whole number")
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    parsed(text, "must be a port number")
}

/// An IP address and a port.
///
/// # Errors
/// The text is not one.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    parsed(
        text,
        "must be an address and port, such as 0.0.0.0:9808 or [::]:9808",
    )
}

pub(crate) fn count(text: &str) -> Result<i32, String> {
    const PROBLEM: &str = "must be a whole number from 0 to 2147483647";
    let count = parsed(text, PROBLEM)?;
    if count < 0 {
        return Err(PROBLEM.to_owned());
    }
    Ok(count)
}

pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

pub(crate) fn duration(text: &str, bounds: Bounds) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| "must be a duration such as 500ms, 30s or 2m".to_owned())?;
    if duration < bounds.least {
        return Err(format!("must be at least {}", in_words(bounds.least)));
    }
    if duration > bounds.most {
        return Err(format!("must be at most {}", in_words(bounds.most)));
    }
    Ok(duration)
}

pub(crate) fn report(text: &str) -> Result<Report, String> {
    Report::named(text).ok_or_else(|| "must be task or all".to_owned())
}

pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    let wanted = |format: &LogFormat| format.name() == text;
    let found = LogFormat::ALL.into_iter().find(wanted);
    found.ok_or_else(|| "must be json or text".to_owned())
}

pub(crate) fn header_text(text: &str) -> Result<Secret, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Secret::new(text));
    }
    Err(
        "not valid in a header: a token must have only visible ASCII characters, without spaces \
         (the value is not shown)"
            .to_owned(),
    )
}

pub(crate) fn nonce(text: &str) -> Result<Secret, String> {
    printable(text).map(Secret::new)
}

/// A text without control characters.
///
/// # Errors
/// The text has control characters.
pub fn printable(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("contains control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// A DNS subdomain (RFC 1123), as Kubernetes requires for names.
///
/// # Errors
/// The text is not one.
pub fn dns_name(text: &str) -> Result<String, String> {
    const LONGEST: usize = 253;
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() <= LONGEST && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(
        "must be a Kubernetes name (at most 253 lower-case letters, digits, '-' and '.')"
            .to_owned(),
    )
}

pub(crate) fn container_name(text: &str) -> Result<ContainerName, String> {
    ContainerName::new(text).ok_or_else(|| {
        "must be a container name (at most 63 lower-case letters, digits and '-')".to_owned()
    })
}

pub(crate) fn container_names(text: &str) -> Result<Vec<ContainerName>, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let parsed = |name| {
        ContainerName::new(name)
            .ok_or_else(|| format!("{} is not a valid container name", quoted(name)))
    };
    let names: Vec<ContainerName> = names.map(parsed).collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err("must be comma-separated names of containers".to_owned());
    }
    Ok(names)
}

/// A value as a message shows it: shortened, with escapes for what does not print.
pub(crate) fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let short: String = text.chars().take(MOST).collect();
    let more = if text.chars().count() > MOST {
        "…"
    } else {
        ""
    };
    format!("{short:?}{more}")
}

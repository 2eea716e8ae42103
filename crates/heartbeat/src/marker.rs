//! An exit marker: a small file in which the task's own wrapper reports how a container ended.
//!
//! `NAME.json` is written by `podbeat exec`; `NAME` is a bare exit code from any other wrapper.
//! NAME is the container's name. The members are named as in Kubernetes. Writer and reader share
//! this module, which uses neither files nor clocks.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest marker that podbeat reads, in bytes: a hundred times the usual size.
pub const LARGEST: usize = 4096;

/// The longest DNS label in Kubernetes (RFC 1123).
const LONGEST_NAME: usize = 63;

/// How a container ended, by its marker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// 0 to 255. A signal gives 128 plus its number, as container runtimes report it.
    pub exit_code: i32,
    /// The signal, 1 to 64, if a signal ended the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// A marker in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The container's name.
    pub container: String,
    /// Its content.
    pub marker: Marker,
    /// When the file was last written, in whole seconds. Replaces a missing `finished_at` in
    /// comparisons; podbeat never reports it.
    pub written_at: Timestamp,
}

/// Why a file is not a marker. The message does not repeat its content, which any program in the
/// pod may have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAMarker {
    /// The name is not a container's.
    #[error("its name is neither NAME nor NAME.json; name it after the container that ended")]
    Name,
    /// Longer than [`LARGEST`].
    #[error("it is larger than {LARGEST} bytes; write an exit code, or use `podbeat exec`")]
    TooLarge,
    /// Not a single number.
    #[error("it does not contain an exit code; write one number from 0 to 255")]
    Bare,
    /// Not the form that `podbeat exec` writes.
    #[error(
        "it is not the JSON of an exit marker (line {line}, column {column}); write it as `podbeat exec` does"
    )]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Not an exit code or signal of a process.
    #[error("its exitCode is not in 0 to 255, or its signal is not in 1 to 64")]
    OutOfRange,
}

impl Marker {
    /// The file's text, one line.
    #[must_use]
    pub fn print(&self) -> String {
        // Numbers and times under fixed keys: JSON can represent all of them.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads what [`Marker::print`] wrote. Times are cut to whole seconds, as in Kubernetes.
    ///
    /// # Errors
    /// The text is not a marker.
    pub fn parse(text: &[u8]) -> Result<Self, NotAMarker> {
        let marker: Self =
            serde_json::from_slice(text.trim_ascii()).map_err(|error| NotAMarker::Json {
                line: error.line(),
                column: error.column(),
            })?;
        Self {
            started_at: marker.started_at.map(whole_seconds),
            finished_at: marker.finished_at.map(whole_seconds),
            ..marker
        }
        .in_range()
    }

    /// Reads a bare exit code, as `echo $?` writes it.
    ///
    /// # Errors
    /// The text is not an exit code.
    pub fn parse_bare(text: &[u8]) -> Result<Self, NotAMarker> {
        let code = std::str::from_utf8(text.trim_ascii())
            .ok()
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|code| code.parse().ok())
            .ok_or(NotAMarker::Bare)?;
        Self {
            exit_code: code,
            signal: None,
            started_at: None,
            finished_at: None,
        }
        .in_range()
    }

    fn in_range(self) -> Result<Self, NotAMarker> {
        let code = (0..=255).contains(&self.exit_code);
        let signal = self.signal.is_none_or(|signal| (1..=64).contains(&signal));
        if code && signal {
            Ok(self)
        } else {
            Err(NotAMarker::OutOfRange)
        }
    }
}

impl Found {
    /// Reads a file of the directory. `text` has no byte order mark at its start. `None` if it is
    /// empty, because the task is still writing it.
    ///
    /// # Errors
    /// The file is not a marker.
    pub fn read(
        file_name: &str,
        text: &[u8],
        written_at: Timestamp,
    ) -> Result<Option<Self>, NotAMarker> {
        let container = container_of(file_name).ok_or(NotAMarker::Name)?;
        if text.len() > LARGEST {
            return Err(NotAMarker::TooLarge);
        }
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let marker = if file_name.ends_with(JSON) {
            Marker::parse(text)
        } else {
            Marker::parse_bare(text)
        };
        Ok(Some(Self {
            container: container.to_owned(),
            marker: marker?,
            written_at: whole_seconds(written_at),
        }))
    }

    /// When the container ended, for comparisons with Kubernetes' times.
    #[must_use]
    pub fn finished(&self) -> Timestamp {
        self.marker.finished_at.unwrap_or(self.written_at)
    }
}

const JSON: &str = ".json";

/// The file name of a container's marker.
#[must_use]
pub fn file_name(container: &str) -> String {
    format!("{container}{JSON}")
}

/// The container of a marker with this file name.
#[must_use]
pub fn container_of(file_name: &str) -> Option<&str> {
    let container = file_name.strip_suffix(JSON).unwrap_or(file_name);
    is_container_name(container).then_some(container)
}

/// The name of podbeat's own container, unless a setting says otherwise.
pub const PODBEAT: &str = "podbeat";

/// A valid container name in Kubernetes ([`is_container_name`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerName(Cow<'static, str>);

impl ContainerName {
    /// [`PODBEAT`].
    pub const PODBEAT: Self = Self(Cow::Borrowed(PODBEAT));

    /// `None` if the text is not a valid name.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        is_container_name(text).then(|| Self(Cow::Owned(text.to_owned())))
    }

    /// The name.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        match &self.0 {
            Cow::Borrowed(name) => name,
            Cow::Owned(name) => name.as_str(),
        }
    }
}

impl Deref for ContainerName {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for ContainerName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Whether this is a valid container name in Kubernetes: a DNS label. So it is never a path.
#[must_use]
pub fn is_container_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The time in whole seconds, as Kubernetes writes times.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn read(name: &str, text: &str) -> Result<Option<Found>, NotAMarker> {
        Found::read(name, text.as_bytes(), at("2026-01-01T00:00:09.9Z"))
    }

    #[test]
    fn a_marker_uses_the_names_of_kubernetes_and_is_read_back() {
        let marker = Marker {
            exit_code: 143,
            signal: Some(15),
            started_at: Some(at("2026-01-01T00:00:01Z")),
            finished_at: Some(at("2026-01-01T00:00:09Z")),
        };
        let text = marker.print();
        assert_eq!(
            text,
            "{\"exitCode\":143,\"signal\":15,\"startedAt\":\"2026-01-01T00:00:01Z\",\
             \"finishedAt\":\"2026-01-01T00:00:09Z\"}\n"
        );
        let found = read("main.json", &text)
            .expect("a marker")
            .expect("written");
        assert_eq!(
            (found.container.as_str(), found.finished()),
            ("main", at("2026-01-01T00:00:09Z"))
        );
        assert_eq!(found.marker, marker);
    }

    #[test]
    fn a_bare_code_has_no_other_members_and_uses_the_time_of_its_file() {
        for text in ["3", "3\n", " 3 \r\n", "003"] {
            let found = read("main", text).expect("a marker").expect("written");
            assert_eq!(
                (found.marker.exit_code, found.marker.finished_at),
                (3, None),
                "{text:?}"
            );
            assert_eq!(found.finished(), at("2026-01-01T00:00:09Z"));
        }
    }

    #[test]
    fn an_incomplete_marker_is_no_marker_and_no_error() {
        for (name, text) in [("main", ""), ("main", "\n"), ("main.json", "")] {
            assert_eq!(read(name, text), Ok(None));
        }
    }

    #[test]
    fn invalid_markers_are_refused_with_the_reason() {
        let long = "1".repeat(LARGEST + 1);
        for (name, text, expected) in [
            ("main", "-1", NotAMarker::Bare),
            ("main", "+1", NotAMarker::Bare),
            ("main", "1 2", NotAMarker::Bare),
            ("main", "0x1", NotAMarker::Bare),
            ("main", "99999999999", NotAMarker::Bare),
            ("main", "256", NotAMarker::OutOfRange),
            ("main", &long, NotAMarker::TooLarge),
            ("main.json", r#"{"exitCode":256}"#, NotAMarker::OutOfRange),
            (
                "main.json",
                r#"{"exitCode":1,"signal":0}"#,
                NotAMarker::OutOfRange,
            ),
            ("main.txt", "1", NotAMarker::Name),
            ("Main", "1", NotAMarker::Name),
            ("..", "1", NotAMarker::Name),
            (".main.json", "{}", NotAMarker::Name),
            ("", "1", NotAMarker::Name),
        ] {
            assert_eq!(read(name, text), Err(expected), "{name} {text:.20}");
        }
        for text in [
            "3",
            "{}",
            r#"{"exitCode":"3"}"#,
            r#"{"exitCode":3"#,
            r#"{"exitCode":3,"finishedAt":"soon"}"#,
        ] {
            assert!(
                matches!(read("main.json", text), Err(NotAMarker::Json { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_containers_name_is_a_dns_label() {
        for name in ["a", "main", "a-1", &"a".repeat(63)] {
            assert!(is_container_name(name), "{name}");
            assert_eq!(ContainerName::new(name).as_deref(), Some(name));
        }
        for name in [
            "",
            "-a",
            "a-",
            "a.b",
            "a/b",
            "..",
            "A",
            "ä",
            "a\0",
            &"a".repeat(64),
        ] {
            assert!(!is_container_name(name), "{name:?}");
            assert_eq!(ContainerName::new(name), None);
        }
        assert!(is_container_name(&ContainerName::PODBEAT));
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_make_it_panic(name in ".{0,70}", text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Found::read(&name, &text, Timestamp::UNIX_EPOCH);
            let _ = Found::read("main.json", &text, Timestamp::MAX);
            let _ = Found::read("main", &text, Timestamp::MIN);
        }
    }
}

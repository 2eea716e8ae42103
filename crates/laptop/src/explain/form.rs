//! Converts a file to text, and unwraps the lines of a log from the formats of container runtimes.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

/// The bytes as text. A log that was cut in the middle of a character is accepted, too.
pub(super) fn text(bytes: Vec<u8>) -> String {
    let units = |pair: fn([u8; 2]) -> u16| {
        let pairs = bytes
            .chunks_exact(2)
            .filter_map(|pair| pair.try_into().ok());
        char::decode_utf16(pairs.map(pair))
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    // PowerShell's `>` writes UTF-16. Without a byte order mark, the position of the zero byte of
    // an ASCII character shows the byte order.
    match bytes.as_slice() {
        [0xff, 0xfe, ..] | [1..=0x7f, 0, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] => units(u16::from_be_bytes),
        _ => String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// A hint if the bytes are compressed.
pub(super) fn compression(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x1f, 0x8b, ..] => Some("the input is compressed; use: zcat FILE | podbeat explain"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some("the input is compressed; use: zstdcat FILE | podbeat explain")
        }
        _ => None,
    }
}

/// A line of a container's log, as the runtime wrote it on the node.
struct Carried<'line> {
    at: &'line str,
    stream: &'line str,
    text: &'line str,
    /// Whether the line continues in the next line of the same stream.
    is_partial: bool,
}

/// Docker's json-file. The first line of podbeat's own log has a member `log`, too.
#[derive(Deserialize)]
struct Docker {
    log: String,
    stream: String,
    time: String,
}

/// The lines of a log. Lines in Docker's json-file format or the CRI's format are joined, and look
/// like the output of `kubectl logs --timestamps`; empty ones are omitted. Other lines are
/// unchanged.
pub(super) fn lines(text: &str) -> Vec<Cow<'_, str>> {
    let mut lines = Vec::new();
    let mut begun: Vec<(String, String)> = Vec::new();
    let mut take = |carried: Carried<'_>, lines: &mut Vec<Cow<'_, str>>| {
        let nth = begun
            .iter()
            .position(|(stream, _)| stream == carried.stream);
        let mut line = match nth {
            Some(nth) => begun.swap_remove(nth).1,
            None => format!("{} ", carried.at),
        };
        line += carried.text;
        if carried.is_partial {
            begun.push((carried.stream.to_owned(), line));
        } else if line.len() > carried.at.len() + 1 {
            lines.push(line.into());
        }
    };
    for line in text.lines() {
        let line = line.trim_start_matches('\u{feff}');
        if let Some(carried) = cri(line) {
            take(carried, &mut lines);
        } else if let Some(docker) = docker(line) {
            let whole = docker.log.strip_suffix('\n');
            let carried = Carried {
                at: &docker.time,
                stream: &docker.stream,
                text: whole.unwrap_or(&docker.log),
                is_partial: whole.is_none(),
            };
            take(carried, &mut lines);
        } else {
            lines.push(line.into());
        }
    }
    // The rest of these lines is in the next file, or was never written.
    lines.extend(begun.into_iter().map(|(_, line)| line.into()));
    lines
}

/// Parses `TIME STREAM TAGS TEXT`. The first tag is `P` for a part of a line, and `F` for the last
/// part or a complete line.
fn cri(line: &str) -> Option<Carried<'_>> {
    let mut parts = line.splitn(4, ' ');
    let (at, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let is_partial = match tags.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    at.parse::<Timestamp>().ok()?;
    matches!(stream, "stdout" | "stderr").then_some(Carried {
        at,
        stream,
        text: parts.next().unwrap_or_default(),
        is_partial,
    })
}

fn docker(line: &str) -> Option<Docker> {
    // This check avoids parsing most other lines.
    if !line.trim_start().starts_with('{') || !line.contains("\"log\"") {
        return None;
    }
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_the_same_text() {
        let said = "{\"a\": \"ü€😀\"}\r\nb";
        let of = |units: fn(u16) -> [u8; 2], mark: bool| {
            let mark = if mark { "\u{feff}" } else { "" };
            let units: Vec<u8> = mark
                .encode_utf16()
                .chain(said.encode_utf16())
                .flat_map(units)
                .collect();
            units
        };
        for bytes in [
            said.as_bytes().to_vec(),
            format!("\u{feff}{said}").into_bytes(),
            of(u16::to_le_bytes, true),
            of(u16::to_be_bytes, true),
            of(u16::to_le_bytes, false),
            of(u16::to_be_bytes, false),
        ] {
            assert_eq!(lines(&text(bytes)), ["{\"a\": \"ü€😀\"}", "b"]);
        }
        assert_eq!(text(Vec::new()), "");
        assert_eq!(text(b"\xff".to_vec()), "\u{fffd}");
        assert_eq!(
            text(b"\xff\xfea\0\x3d\xd8b".to_vec()).trim_start_matches('\u{feff}'),
            "a\u{fffd}"
        );
    }

    #[test]
    fn a_line_that_the_runtime_split_is_joined() {
        let cri = "2026-11-24T01:00:00.1Z stderr P {\"a\":\n\
                   2026-11-24T01:00:00.2Z stdout F epoch 1\n\
                   2026-11-24T01:00:00.3Z stderr P  \"b\n\
                   2026-11-24T01:00:00.4Z stderr F:x c\"}\n\
                   2026-11-24T01:00:00.5Z stderr F\n\
                   2026-11-24T01:00:00.6Z stderr P torn";
        let expected = [
            "2026-11-24T01:00:00.2Z epoch 1",
            "2026-11-24T01:00:00.1Z {\"a\": \"bc\"}",
            "2026-11-24T01:00:00.6Z torn",
        ];
        assert_eq!(lines(cri), expected);
        let docker: Vec<String> = [
            ("{\"a\":", "stderr", "2026-11-24T01:00:00.1Z"),
            ("epoch 1\n", "stdout", "2026-11-24T01:00:00.2Z"),
            (" \"b", "stderr", "2026-11-24T01:00:00.3Z"),
            ("c\"}\n", "stderr", "2026-11-24T01:00:00.4Z"),
            ("\n", "stderr", "2026-11-24T01:00:00.5Z"),
            ("torn", "stderr", "2026-11-24T01:00:00.6Z"),
        ]
        .iter()
        .map(|(log, stream, time)| {
            serde_json::json!({"log": log, "stream": stream, "time": time}).to_string()
        })
        .collect();
        assert_eq!(lines(&docker.join("\n")), expected);
    }

    #[test]
    fn other_lines_are_left_as_they_are() {
        for line in [
            "2026-11-24T01:00:00Z {\"message\": \"m\"}",
            "[pod/p/podbeat] 2026-11-24T01:00:00Z stderr F",
            "2026-11-24T01:00:00Z stderr X a",
            "yesterday stderr F a",
            "{\"log\": \"info\", \"message\": \"podbeat started\"}",
            "{\"message\": \"\\\"log\\\"\"}",
            "",
        ] {
            assert_eq!(lines(&format!("{line}\n")), [line]);
        }
    }
}

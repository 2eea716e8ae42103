//! Records the watch in a file: one event per line, as an API server sends it. The files in
//! `tests/captures` have the same format.
//!
//! Each line is `{"type": …, "object": …, "at": …}`: the type ADDED, MODIFIED or DELETED, the part
//! of the pod that podbeat reads, and the time of arrival. podbeat writes each line at once and in
//! one write. So only the last line can be incomplete, and only if the machine crashes or podbeat
//! is killed in the middle of a write. A reader ignores a last line without a line feed.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use jiff::Timestamp;
use podbeat_interface::terminal::escaped;
use podbeat_kubernetes::resource::Pod;
use podbeat_kubernetes::watch::PodEvent;
use serde_json::{Value, json};

use super::command;

/// Only the owner can read the file, because the termination messages of containers may not be
/// meant for others.
const MODE: u32 = 0o600;

/// A record that podbeat writes.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    /// The size of the complete lines in the file, in bytes.
    whole: u64,
    /// The pod in the last written line.
    last: Option<Value>,
}

impl Record {
    /// Creates the file. It overwrites an existing file only if the user allows it.
    ///
    /// # Errors
    /// The file exists, or cannot be created.
    pub(super) fn create(wanted: &command::Record) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).mode(MODE);
        if wanted.force {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        let file = options.open(&wanted.path)?;
        // An existing file keeps its mode when it is opened, so the mode is set here. A device or a
        // pipe keeps its mode.
        if wanted.force && file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        Ok(Self {
            file,
            whole: 0,
            last: None,
        })
    }

    /// Writes an event, if it is new.
    ///
    /// # Errors
    /// The file cannot be written, for example because the disk is full. podbeat then tries to
    /// truncate it to complete lines.
    pub(super) fn pod_event(&mut self, pod_event: &PodEvent, at: Timestamp) -> io::Result<()> {
        match pod_event {
            PodEvent::Seen(pod) => {
                let object = pod.to_object();
                let kind = match &self.last {
                    None => "ADDED",
                    // A list after an outage shows the known state again.
                    Some(last) if *last == object => return Ok(()),
                    Some(_) => "MODIFIED",
                };
                self.write(kind, object, None, at)
            }
            PodEvent::Gone(Some(pod)) => self.write("DELETED", Pod::to_object(pod), None, at),
            // The event of the deletion was missed. The pod's state at that time is unknown, so the
            // record has the last known state.
            PodEvent::Gone(None) => match self.last.take() {
                Some(last) => self.write("DELETED", last, Some(true), at),
                None => Ok(()),
            },
            PodEvent::Confirmed => Ok(()),
        }
    }

    fn write(
        &mut self,
        kind: &str,
        object: Value,
        final_state_unknown: Option<bool>,
        at: Timestamp,
    ) -> io::Result<()> {
        let mut event = json!({"type": kind, "at": format!("{at:.3}")});
        if let Some(members) = event.as_object_mut() {
            members.insert("object".to_owned(), object);
        }
        if let (Some(unknown), Some(members)) = (final_state_unknown, event.as_object_mut()) {
            members.insert("finalStateUnknown".to_owned(), unknown.into());
        }
        let line = escaped(&event.to_string()) + "\n";
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // Remove the incomplete line that a full disk left.
            let _ = self.file.set_len(self.whole);
            return Err(error);
        }
        self.whole += u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.last = event
            .as_object_mut()
            .and_then(|members| members.remove("object"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podbeat_lab::captured::Captured;

    fn wanted(path: &std::path::Path, force: bool) -> command::Record {
        command::Record {
            path: path.to_owned(),
            force,
        }
    }

    fn mode(path: &std::path::Path) -> u32 {
        std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777
    }

    #[test]
    fn an_existing_file_is_overwritten_only_with_force_and_is_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        drop(Record::create(&wanted(&path, false)).expect("made"));
        assert_eq!(mode(&path), 0o600);
        std::fs::write(&path, "something dear").expect("written");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        let refused = Record::create(&wanted(&path, false)).expect_err("it is there");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            std::fs::read_to_string(&path).expect("read"),
            "something dear"
        );
        drop(Record::create(&wanted(&path, true)).expect("made"));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn known_states_are_not_written_again_and_a_missed_end_is_marked() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("record");
        let mut record = Record::create(&wanted(&path, false)).expect("made");
        let at: Timestamp = "2026-11-25T10:00:00.5Z".parse().expect("a time");
        let running = || {
            PodEvent::Seen(Box::new(
                Captured::when("a-complete", "main", "running").pod(),
            ))
        };
        for pod_event in [
            PodEvent::Gone(None),
            running(),
            PodEvent::Confirmed,
            running(),
            PodEvent::Seen(Box::new(
                Captured::when("a-complete", "main", "terminated").pod(),
            )),
            PodEvent::Gone(None),
        ] {
            record.pod_event(&pod_event, at).expect("written");
        }
        let text = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let kinds: Vec<&str> = lines
            .iter()
            .map(|line| line["type"].as_str().expect("text"))
            .collect();
        assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED"]);
        assert_eq!(lines[2]["object"], lines[1]["object"]);
        assert_eq!(lines[2]["finalStateUnknown"], true);
        assert_eq!(lines[0]["at"], "2026-11-25T10:00:00.500Z");
    }
}

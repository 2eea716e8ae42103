//! A file in the directory of exit markers: its name up to the first line end, then its content.
//! Nothing may panic, no value may be out of range, and a printed marker must parse to the same
//! marker.

#![no_main]

mod drive;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use podbeat_heartbeat::machine::{Event, Machine};
use podbeat_heartbeat::marker::{Found, Marker, is_container_name};
use podbeat_kubernetes::status;

const POD: &str = r#"{"metadata":{"uid":"u1","deletionTimestamp":"2027-01-15T08:00:30Z"},
    "spec":{"initContainers":[{"name":"podbeat","restartPolicy":"Always"}],"containers":[{"name":"main"}]},
    "status":{"containerStatuses":[{"name":"main","state":{"running":{"startedAt":"2027-01-15T07:00:00Z"}}}]}}"#;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let name = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let text = parts.next().unwrap_or_default();
    let written_at = Timestamp::from_second(1_800_000_000).expect("in range");
    let Ok(Some(found)) = Found::read(&name, text, written_at) else {
        return;
    };
    assert!(is_container_name(&found.container) && (0..=255).contains(&found.marker.exit_code));
    assert_eq!(
        Marker::parse(found.marker.print().as_bytes()).as_ref(),
        Ok(&found.marker)
    );
    let pod = serde_json::from_str(POD).expect("a pod");
    let of_main = Found {
        container: "main".to_owned(),
        ..found.clone()
    };
    let events = vec![
        Event::Observed(status::observe(&pod, "podbeat")),
        Event::Gone(None),
        Event::Markers(vec![found, of_main]),
    ];
    drive::to_the_end(&mut Machine::new(drive::settings(), 1), events);
});

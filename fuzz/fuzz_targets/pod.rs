//! A pod's JSON with any content: neither reading it nor the machine's handling may panic.

#![no_main]

mod drive;

use libfuzzer_sys::fuzz_target;
use podbeat_heartbeat::machine::{Event, Machine};
use podbeat_kubernetes::resource::Pod;
use podbeat_kubernetes::status;

fuzz_target!(|bytes: &[u8]| {
    // A line end separates two pods, one after the other.
    let pods = bytes.splitn(2, |byte| *byte == b'\n');
    let events: Vec<Event> = pods
        .filter_map(|bytes| serde_json::from_slice::<Pod>(bytes).ok())
        .map(|pod| Event::Observed(status::observe(&pod, "podbeat")))
        .collect();
    if !events.is_empty() {
        drive::to_the_end(&mut Machine::new(drive::settings(), 1), events);
    }
});

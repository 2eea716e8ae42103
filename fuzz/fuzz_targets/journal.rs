//! A journal with any content: neither reading it nor continuing from it may panic.

#![no_main]

mod drive;

use libfuzzer_sys::fuzz_target;
use podbeat_heartbeat::machine::{Event, Machine};

fuzz_target!(|bytes: &[u8]| {
    if let Some(saved) = podbeat::agent::read_journal(bytes) {
        let mut machine = Machine::resume(drive::settings(), 1, saved, drive::at(0));
        drive::to_the_end(&mut machine, vec![Event::Confirmed, Event::Gone(None)]);
    }
});

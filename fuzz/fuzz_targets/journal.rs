//! A journal, whatever it holds: no panic in reading it, nor in going on from it.

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

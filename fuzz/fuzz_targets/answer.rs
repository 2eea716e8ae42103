//! An answer of the service: the Retry-After header up to the first line end, then the body.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let header = parts.next().unwrap_or_default();
    podbeat_task_runs::client::read_answer(header, parts.next().unwrap_or_default());
});

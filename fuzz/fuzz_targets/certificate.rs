//! A certificate that any server may present: reading it must not panic, and must stay within
//! bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use podbeat_interface::certificate;

fuzz_target!(|bytes: &[u8]| {
    if let Some(read) = certificate::read(bytes) {
        let longest = read.names.iter().map(|name| name.chars().count()).max();
        assert!(longest.unwrap_or_default() <= 80 && read.names.len() <= 1000);
        let _ = format!("{read:?} {}", read.not_after);
    }
});

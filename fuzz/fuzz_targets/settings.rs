//! Settings, one `NAME=value` per line: nothing may panic, and no output may contain a secret.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use podbeat::config::Config;
use podbeat_interface::environment::Flags;

fuzz_target!(|text: &str| {
    let mut settings: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // No message may contain this, whatever else is wrong.
    let secret = "s3cr3t-of-nobody";
    for variable in ["PODBEAT_TOKEN", "PODBEAT_NONCE"] {
        if let Some(value) = settings.get_mut(variable) {
            value.push_str(secret);
        }
    }
    let said = match Config::load(&Flags::default(), &settings) {
        Ok(config) => format!("{config:?}"),
        Err(errors) => format!("{errors} {errors:?}"),
    };
    assert!(!said.contains(secret), "{said}");
});

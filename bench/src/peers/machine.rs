//! The machine that figures come from, for whoever reads them elsewhere.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};

/// Where and when it is measured.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The moment.
    pub at: Timestamp,
    /// The processor's own name.
    pub processor: String,
    /// How many CPUs may be used.
    pub cpus: usize,
    /// Memory, in GiB.
    pub memory_gib: u64,
    /// The operating system's own name.
    pub system: String,
    /// The kernel's version, without what a distributor adds to it.
    pub kernel: String,
    /// The load of the last minute, when the measuring began: above nothing, others worked too.
    pub load: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let memory = value(&read("/proc/meminfo"), "MemTotal", ':');
        let kib: u64 = memory
            .split_whitespace()
            .next()
            .and_then(|kib| kib.parse().ok())
            .unwrap_or_default();
        let system = value(&read("/etc/os-release"), "PRETTY_NAME", '=');
        Self {
            at: Timestamp::now(),
            processor: value(&read("/proc/cpuinfo"), "model name", ':'),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1 << 20),
            system: system.trim_matches('"').to_owned(),
            kernel: version(&read("/proc/sys/kernel/osrelease")).to_owned(),
            load: read("/proc/loadavg")
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// As a sentence's end.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "{} CPUs ({}), {} GiB, {}, Linux {}; load at the start {}",
            self.cpus, self.processor, self.memory_gib, self.system, self.kernel, self.load
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "processor": self.processor, "cpus": self.cpus, "memoryGiB": self.memory_gib,
            "system": self.system, "kernel": self.kernel, "loadAtStart": self.load,
        })
    }
}

/// What a line says behind its name and the sign after it; nothing if there is none.
fn value(text: &str, name: &str, sign: char) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once(sign));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or(String::new(), |(_, value)| value.trim().to_owned())
}

/// Of a kernel's release the version.
fn version(release: &str) -> &str {
    release.trim().split('-').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known() {
        let machine = Machine::here();
        assert!(machine.cpus > 0 && machine.memory_gib > 0, "{machine:?}");
        assert!(
            !machine.kernel.is_empty() && !machine.load.is_empty(),
            "{machine:?}"
        );
    }

    #[test]
    fn a_kernel_is_told_by_its_version() {
        assert_eq!(version("6.1.0-28-cloud-amd64\n"), "6.1.0");
        assert_eq!(version("6.12.9\n"), "6.12.9");
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "model\t: 85\nmodel name\t: A CPU @ 2 GHz\n";
        assert_eq!(value(text, "model name", ':'), "A CPU @ 2 GHz");
        assert_eq!(value(text, "vendor", ':'), "");
    }
}

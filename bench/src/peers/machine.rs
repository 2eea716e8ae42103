//! The machine of the measurement, for readers of the figures.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};

/// The machine and the time of the measurement.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The time.
    pub at: Timestamp,
    /// The processor's name.
    pub processor: String,
    /// The number of available CPUs.
    pub cpus: usize,
    /// Memory, in GiB.
    pub memory_gib: u64,
    /// The operating system's name.
    pub system: String,
    /// The kernel's version, without a distributor's suffix.
    pub kernel: String,
    /// The load of the last minute at the start of the measurement. Above zero, other work was
    /// running.
    pub load: String,
}

impl Machine {
    /// This machine, now.
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

    /// A description for the end of a sentence.
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

/// The value in the line with this name, after the sign; empty if there is none.
fn value(text: &str, name: &str, sign: char) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once(sign));
    let found = lines.find(|(key, _)| key.trim() == name);
    found.map_or(String::new(), |(_, value)| value.trim().to_owned())
}

/// The version in a kernel's release.
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
    fn a_kernel_is_shown_by_its_version() {
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

//! The kernel's data about podbeat's own process: CPU time, memory and start time.

use std::path::Path;

use jiff::Timestamp;
use podbeat_files::regular_file::{KERNEL, read_text};

/// The process's CPU time, user and system, in seconds.
pub fn cpu_seconds() -> Option<f64> {
    let stat = told("/proc/self/stat")?;
    Some(seconds(field(&stat, 14)?.checked_add(field(&stat, 15)?)?))
}

/// The process's resident memory, in bytes.
pub fn resident_bytes() -> Option<u64> {
    let statm = told("/proc/self/statm")?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

/// When the process started, in seconds since 1970. The kernel reports the time since the machine's
/// boot, in hundredths of a second. Read it only once, so that it does not change with the wall
/// clock.
pub fn started_at() -> Option<f64> {
    let stat = told("/proc/self/stat")?;
    let uptime = told("/proc/uptime")?;
    let since_boot: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    let age = since_boot - seconds(field(&stat, 22)?);
    Some(Timestamp::now().as_duration().as_secs_f64() - age.max(0.0))
}

fn told(path: &str) -> Option<String> {
    read_text(Path::new(path), KERNEL).ok()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of a hundredth: exact for ninety thousand years"
)]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64
}

/// Returns a field of `/proc/self/stat`, counted from 1 as in proc(5). The second field is the
/// program's name in parentheses, which may itself contain spaces and parentheses.
fn field(stat: &str, number: usize) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name
        .split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 123456 1 2";
        assert_eq!(field(stat, 14), Some(250));
        assert_eq!(field(stat, 15), Some(50));
        assert_eq!(field(stat, 22), Some(123_456));
        assert_eq!(field(stat, 3), None, "a letter");
        assert_eq!(field(stat, 99), None);
        assert_eq!(field("torn", 14), None);
    }

    #[test]
    fn this_process_has_started_and_has_memory() {
        let started = started_at().expect("a start");
        let now = Timestamp::now().as_duration().as_secs_f64();
        assert!(
            started <= now && started > now - 24.0 * 3600.0,
            "{started} {now}"
        );
        assert!(resident_bytes().expect("memory") > 100_000);
        assert!(cpu_seconds().expect("time") >= 0.0);
    }
}

//! Facts about this host.

use std::fs;

/// The host's memory in bytes: all, and what is available now (*proc(5)*,
/// `/proc/meminfo`).
pub(crate) fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some((field(&text, "MemTotal:")?, field(&text, "MemAvailable:")?))
}

/// A field of `/proc/meminfo`, in bytes.
pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       24606508 kB\nMemAvailable:      12 kB\n";
        assert_eq!(field(text, "MemTotal:"), Some(24_606_508 * 1024));
        assert_eq!(field(text, "MemAvailable:"), Some(12 * 1024));
        assert_eq!(field(text, "SwapTotal:"), None);
        assert!(memory().is_some_and(|(total, free)| total >= free && free > 0));
    }
}

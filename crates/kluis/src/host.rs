//! Facts about this host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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

/// Whether there is this program: a path, or a name in a folder of PATH.
pub(crate) fn in_path(program: impl AsRef<Path>) -> bool {
    let program = program.as_ref();
    let is_one =
        |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if program.components().count() > 1 {
        return is_one(program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| is_one(&dir.join(program)))
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

//! How much memory this process may still lock.

/// Number of `CAP_IPC_LOCK`, which lifts the limit (`capabilities(7)`).
const CAP_IPC_LOCK: u32 = 14;

/// Bytes this process may still lock (`memfd_secret` counts as locked),
/// [`u64::MAX`] if there is no limit: `RLIMIT_MEMLOCK` less `VmLck`, or no limit
/// with `CAP_IPC_LOCK`. A snapshot: every thread of the process draws on it.
/// Where `/proc` cannot be read, nothing is taken to be locked yet.
pub fn available_lock_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    available(limit(), &status)
}

/// `RLIMIT_MEMLOCK` in bytes; [`u64::MAX`] for none.
fn limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes only the structure it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return 0;
    }
    if limit.rlim_cur == libc::RLIM_INFINITY { u64::MAX } else { limit.rlim_cur }
}

fn available(limit: u64, status: &str) -> u64 {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let capabilities = field("CapEff:").and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or(0);
    if limit == u64::MAX || capabilities >> CAP_IPC_LOCK & 1 == 1 {
        return u64::MAX;
    }
    let locked = field("VmLck:")
        .and_then(|v| v.strip_suffix("kB"))
        .and_then(|v| v.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024));
    limit.saturating_sub(locked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_less_what_is_locked() {
        let status = "Name:\tx\nVmLck:\t     16 kB\nCapEff:\t0000000000000000\n";
        assert_eq!(available(64 << 10, status), 48 << 10);
        assert_eq!(available(8 << 10, status), 0);
        assert_eq!(available(u64::MAX, status), u64::MAX);
        assert_eq!(available(64 << 10, ""), 64 << 10);
    }

    #[test]
    fn the_capability_lifts_the_limit() {
        assert_eq!(available(0, "VmLck:\t0 kB\nCapEff:\t0000000000004000\n"), u64::MAX);
        assert_eq!(available(0, "VmLck:\t0 kB\nCapEff:\t0000000000003fff\n"), 0);
    }
}

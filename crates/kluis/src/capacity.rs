//! Whether this host can honour a machine's memory and EPC. Both are taken only
//! when the guest touches them, so it is not a question of how much memory there
//! is, but of how much may be *reserved*.

use crate::units;
use rustix::process::{Resource, getrlimit};
use std::fs;

/// What Kluis takes beside the guest's memory and EPC, in bytes.
const OWN: u64 = 1 << 30;

/// What this host reserves for a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capacity {
    /// `RLIMIT_AS`, in bytes.
    address_space: Option<u64>,
    /// `RLIMIT_DATA`, in bytes: counts private writable memory, used or not.
    data: Option<u64>,
    /// What is left below `CommitLimit`, in bytes, where the kernel promises no
    /// more than it has (`vm.overcommit_memory` 2; *proc_sys_vm(5)*).
    commit: Option<u64>,
}

impl Capacity {
    /// Of this host, now.
    pub(crate) fn of_host() -> Self {
        Self {
            address_space: getrlimit(Resource::As).current,
            data: getrlimit(Resource::Data).current,
            commit: commit(
                &fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default(),
                &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
            ),
        }
    }

    /// Whether a machine with so many bytes of memory and EPC can be made.
    ///
    /// # Errors
    /// Why not, as the end of a sentence about the machine, with the remedy.
    pub(crate) fn check(&self, memory: u64, epc: u64) -> Result<(), String> {
        let needed = demand(memory, epc);
        let lacks = |limit: Option<u64>| limit.filter(|&limit| limit < needed);
        let too_much = |by: &str, remedy: &str| {
            Err(format!(
                "needs {} of address space ({} memory, {} EPC, and Kluis's own), but {by}: {remedy}, or take a smaller --size, or less with --memory and --epc",
                units::bytes(needed),
                units::bytes(memory),
                units::bytes(epc)
            ))
        };
        if let Some(limit) = lacks(self.address_space) {
            let by = format!("this process is limited to {}", units::bytes(limit));
            return too_much(&by, "`ulimit -v unlimited`");
        }
        if let Some(limit) = lacks(self.data) {
            let by = format!("this process's data is limited to {}", units::bytes(limit));
            return too_much(&by, "`ulimit -d unlimited`");
        }
        if let Some(left) = lacks(self.commit) {
            let by = format!(
                "this host promises no more than it has (vm.overcommit_memory=2), {} now",
                units::bytes(left)
            );
            return too_much(&by, "`sysctl vm.overcommit_memory=0` as root");
        }
        Ok(())
    }
}

/// What a machine reserves, in bytes. An EPC page has less than 64 bytes of
/// codes, versions and state beside its ciphertext.
fn demand(memory: u64, epc: u64) -> u64 {
    [epc, epc / 64, OWN].into_iter().fold(memory, u64::saturating_add)
}

/// Bytes that the kernel still promises, if it counts them.
fn commit(overcommit: &str, meminfo: &str) -> Option<u64> {
    if overcommit.trim() != "2" {
        return None;
    }
    let field = |name: &str| crate::host::field(meminfo, name);
    Some(field("CommitLimit:")?.saturating_sub(field("Committed_AS:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn each_limit_is_told_with_its_remedy() {
        let free = Capacity::default();
        assert_eq!(free.check(384 * GIB, 256 * GIB), Ok(()));
        assert!(free.check(u64::MAX, u64::MAX).is_ok(), "no overflow");
        let limit = Some(10 * GIB);
        for (capacity, word) in [
            (Capacity { address_space: limit, ..free }, "ulimit -v"),
            (Capacity { data: limit, ..free }, "ulimit -d"),
            (Capacity { commit: limit, ..free }, "vm.overcommit_memory"),
        ] {
            assert_eq!(capacity.check(4 * GIB, 28 << 20), Ok(()));
            // the EPC counts
            assert_eq!(capacity.check(4 * GIB, 4 * GIB), Ok(()));
            let why = capacity.check(4 * GIB, 5 * GIB).unwrap_err();
            for part in [word, "10 GiB", "4 GiB memory", "5 GiB EPC", "--epc"] {
                assert!(why.contains(part), "{part} is not in {why}");
            }
            assert_eq!(why.lines().count(), 1);
        }
    }

    #[test]
    fn promises_count_only_where_the_kernel_counts_them() {
        let meminfo = "MemTotal: 8 kB\nCommitLimit:      1000 kB\nCommitted_AS:      400 kB\n";
        assert_eq!(commit("2\n", meminfo), Some(600 << 10));
        assert_eq!(commit("0\n", meminfo), None);
        assert_eq!(commit("1\n", meminfo), None);
        assert_eq!(commit("2\n", "CommitLimit: 1 kB\nCommitted_AS: 2 kB\n"), Some(0));
        assert_eq!(commit("2\n", ""), None);
    }
}

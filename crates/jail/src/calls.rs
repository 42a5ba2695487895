//! Which system calls there are from now on.
//!
//! A list of what is allowed: the rest fails with EPERM, which no code here needs
//! to survive but all of it does. What starts programs, looks into other processes
//! or changes the kernel is not even refused: no code here ever asks for it, so who
//! does is an intruder, and the process ends.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use crate::JailError;

/// What a machine needs beyond its processors, memory, and open files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Opening and changing files: folders that are shared with the guest.
    pub files: bool,
    /// Sockets of the Internet: the guest's network.
    pub internet: bool,
    /// Connections to Unix sockets: the guest's vsock ports.
    pub unix: bool,
}

/// Memory, threads, time, signals to itself, and what is open.
const ALWAYS: &[i64] = &[
    // memory; with PROT_EXEC only as the rules below say
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_membarrier,
    // threads
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_arch_prctl,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    // time and chance
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_time,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getcwd,
    // signals
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // what is open
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_copy_file_range,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    // sockets that are open, and who connects to them
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // a socket's name is taken away at the end; Landlock says where
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// Files by name; Landlock says which.
const FILES: &[i64] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_name_to_handle_at,
    libc::SYS_getdents64,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_syncfs,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_flistxattr,
    libc::SYS_fremovexattr,
    libc::SYS_getxattr,
    libc::SYS_setxattr,
    libc::SYS_listxattr,
    libc::SYS_removexattr,
    libc::SYS_umask,
    libc::SYS_fchdir,
];

/// What only an intruder asks for.
const INTRUDERS: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_quotactl,
    libc::SYS_acct,
];

/// *ioctl(2)* requests: terminals, and how much there is to read.
const IOCTLS: &[u64] = &[
    libc::TCGETS,
    libc::TCSETS,
    libc::TCSETSW,
    libc::TCSETSF,
    libc::TIOCGWINSZ,
    libc::FIONREAD,
    libc::FIONBIO,
    // *TCGETS2*, *TCSETS2* and with waiting and flushing
    0x802c_542a,
    0x402c_542b,
    0x402c_542c,
    0x402c_542d,
];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Calls {
    /// Builds the wall around all threads of the process.
    ///
    /// # Errors
    /// [`JailError::Unsupported`] if the kernel has no seccomp; it refuses the filter.
    pub fn confine(self) -> Result<(), JailError> {
        let fail = |e: &dyn std::fmt::Display| JailError::Calls(e.to_string());
        let filters = [
            (plain(INTRUDERS), SeccompAction::Allow, SeccompAction::KillProcess),
            // glibc then uses clone, whose flags a filter can see
            (plain(&[libc::SYS_clone3]), SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32)),
            (self.allowed(), SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow),
        ];
        // All are asked, and the strictest answer wins.
        for (rules, otherwise, matched) in filters {
            let filter = SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64);
            let program: BpfProgram =
                filter.and_then(TryInto::try_into).map_err(|e: seccompiler::BackendError| fail(&e))?;
            apply_filter_all_threads(&program).map_err(|e| match &e {
                seccompiler::Error::Seccomp(reason) if reason.raw_os_error() == Some(libc::ENOSYS) => {
                    JailError::Unsupported
                }
                _ => fail(&e),
            })?;
        }
        Ok(())
    }

    fn allowed(self) -> Rules {
        let mut rules = plain(ALWAYS);
        // the filter before this one answers
        rules.extend(plain(&[libc::SYS_clone3]));
        if self.files {
            rules.extend(plain(FILES));
        }
        // no memory becomes executable that is not
        let executable = libc::PROT_EXEC as u64;
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![when(&[masked(2, executable, 0)])]);
        }
        // threads, not processes
        let thread = libc::CLONE_THREAD as u64;
        rules.insert(libc::SYS_clone, vec![when(&[masked(0, thread, thread)])]);
        // signals to itself; a kill is sent to a process, and so to others
        let me = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![when(&[equal(0, me)])]);
        rules.insert(libc::SYS_kill, vec![when(&[equal(0, me)])]);
        rules.insert(libc::SYS_ioctl, IOCTLS.iter().map(|&request| when(&[equal(1, request)])).collect());
        // a thread's name, and names of memory
        let names = [libc::PR_SET_NAME, libc::PR_GET_NAME, libc::PR_SET_VMA];
        rules.insert(libc::SYS_prctl, names.iter().map(|&what| when(&[equal(0, what as u64)])).collect());
        // limits may be read
        rules.insert(libc::SYS_prlimit64, vec![when(&[whole(2, 0)])]);
        let mut families = Vec::new();
        if self.internet {
            families.extend([libc::AF_INET, libc::AF_INET6]);
        }
        if self.unix {
            families.push(libc::AF_UNIX);
        }
        if !families.is_empty() {
            let of = |&family: &i32| when(&[equal(0, family as u64)]);
            rules.insert(libc::SYS_socket, families.iter().map(of).collect());
            rules.extend(plain(&[libc::SYS_connect, libc::SYS_bind, libc::SYS_listen]));
            rules.extend(plain(&[libc::SYS_sendmmsg, libc::SYS_recvmmsg]));
        }
        let pair = when(&[equal(0, libc::AF_UNIX as u64)]);
        rules.insert(libc::SYS_socketpair, vec![pair]);
        rules
    }
}

/// These calls, whatever their arguments.
fn plain(calls: &[i64]) -> Rules {
    calls.iter().map(|&call| (call, Vec::new())).collect()
}

/// A rule of at least one condition.
fn when(conditions: &[SeccompCondition]) -> SeccompRule {
    SeccompRule::new(conditions.to_vec()).expect("a rule has conditions")
}

fn condition(argument: u8, len: SeccompCmpArgLen, op: SeccompCmpOp, value: u64) -> SeccompCondition {
    SeccompCondition::new(argument, len, op, value).expect("an argument is one of six")
}

/// The low half of an argument is `value`: the kernel looks at no more of it.
fn equal(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The whole of an argument is `value`.
fn whole(argument: u8, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
}

/// An argument's bits under `mask` are `value`.
fn masked(argument: u8, mask: u64, value: u64) -> SeccompCondition {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)
}

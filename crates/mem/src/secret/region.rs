//! Pages of host memory for secrets.

use std::{
    fmt, io,
    ptr::NonNull,
    sync::atomic::{AtomicU8, Ordering},
};

/// Size and alignment of what a [`Region`] is made of, in bytes.
pub const PAGE: usize = 4096;

/// `memfd_secret(2)` on every architecture that has it.
const SYS_MEMFD_SECRET: libc::c_long = 447;

/// Why there is no memory for secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The size is zero after rounding, or beyond the address space.
    #[error(
        "{0} bytes of memory for secrets cannot be had; ask for at least 1 and less than the address space"
    )]
    Size(usize),
    /// The kernel refused the mapping.
    #[error(
        "cannot map {bytes} bytes of memory for secrets ({backend}): {source}; free memory, raise the limits (ulimit -v, ulimit -l) or use another back end"
    )]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// Back end tried.
        backend: Backend,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The thread that was to use the memory could not be started.
    #[error(
        "cannot start a thread on a stack for secrets: {0}; lower the number of threads or raise the limit (ulimit -u)"
    )]
    Thread(io::Error),
}

/// How a [`Region`]'s pages are kept from others; best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// `memfd_secret(2)`: out of the kernel's own reach.
    Secretmem,
    /// Anonymous memory, locked, left out of core files.
    Locked,
    /// Anonymous memory left out of core files; locking it was refused.
    Unlocked,
}

impl Backend {
    /// What is guaranteed, in one sentence for an operator.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Secretmem => {
                "memfd_secret: only this process's own loads and stores reach the pages; debuggers, \
                 /proc/PID/mem, core files, other processes (root included) and swap do not"
            }
            Self::Locked => {
                "locked memory: never in swap, core files or child processes; root and same-user \
                 debuggers can read it through ptrace or /proc/PID/mem"
            }
            Self::Unlocked => {
                "unlocked memory (the memlock limit forbids locking): never in core files or child \
                 processes; may reach swap; root and same-user debuggers can read it"
            }
        }
    }

    /// The short name: `secretmem`, `locked` or `unlocked`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secretmem => "secretmem",
            Self::Locked => "locked",
            Self::Unlocked => "unlocked",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Position in [`Backend`]'s order of the weakest that a region has been made with.
static WEAKEST: AtomicU8 = AtomicU8::new(Backend::Secretmem as u8);

/// The weakest back end that this process has kept secrets in so far.
pub fn weakest() -> Backend {
    match WEAKEST.load(Ordering::Relaxed) {
        0 => Backend::Secretmem,
        1 => Backend::Locked,
        _ => Backend::Unlocked,
    }
}

/// Page-aligned zeroed memory for secrets, wiped and given back when dropped.
///
/// Pages take host memory when first touched. The kernel may then find none
/// left, which ends the process (`SIGBUS`, or the OOM killer), as with any
/// memory that is not reserved beforehand.
///
/// Children of `fork` do not get it: one that touches it ends with `SIGSEGV`.
#[derive(Debug)]
pub struct Region {
    /// First byte of the mapping, guard included.
    map: NonNull<u8>,
    /// Bytes of inaccessible memory below.
    guard: usize,
    /// Usable bytes.
    len: usize,
    backend: Backend,
    /// The memory is accessible; until then there is nothing to wipe.
    open: bool,
}

// SAFETY: a region is plain memory with a stable address; all access is through
// raw pointers, whose users answer for races.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// At least `bytes`, rounded up to whole pages, on the best back end the
    /// host and the user's limits allow.
    ///
    /// # Errors
    /// [`SecretError`] if the size is impossible or no memory can be mapped.
    pub fn new(bytes: usize) -> Result<Self, SecretError> {
        Self::best(bytes, 0)
    }

    /// As [`Region::new`], with an inaccessible page below, for a stack.
    pub(super) fn guarded(bytes: usize) -> Result<Self, SecretError> {
        Self::best(bytes, PAGE)
    }

    fn best(bytes: usize, guard: usize) -> Result<Self, SecretError> {
        Self::map(bytes, guard, Backend::Secretmem)
            .or_else(|_| Self::map(bytes, guard, Backend::Locked))
            .or_else(|_| Self::map(bytes, guard, Backend::Unlocked))
    }

    /// As [`Region::new`], on this back end and no other.
    ///
    /// # Errors
    /// [`SecretError`] if the size is impossible or this back end refuses:
    /// `memfd_secret` is off or unknown to the kernel, or the memlock limit is
    /// reached.
    pub fn with_backend(bytes: usize, backend: Backend) -> Result<Self, SecretError> {
        Self::map(bytes, 0, backend)
    }

    fn map(bytes: usize, guard: usize, backend: Backend) -> Result<Self, SecretError> {
        let len = bytes
            .checked_next_multiple_of(PAGE)
            .filter(|len| *len > 0 && *len <= isize::MAX as usize - guard)
            .ok_or(SecretError::Size(bytes))?;
        let failed = |source| SecretError::Map { bytes, backend, source };
        let map = reserve(len + guard).map_err(failed)?;
        let mut region = Self { map, guard, len, backend, open: false };
        // From here on, dropping `region` unmaps.
        match backend {
            Backend::Secretmem => region.put_secretmem(),
            Backend::Locked => region.open().and_then(|()| region.lock()),
            Backend::Unlocked => region.open(),
        }
        .map_err(failed)?;
        region.open = true;
        for advice in [libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: advice on our own mapping that leaves its content alone.
            if unsafe { libc::madvise(region.as_ptr().cast(), len, advice) } != 0 {
                return Err(failed(io::Error::last_os_error()));
            }
        }
        WEAKEST.fetch_max(backend as u8, Ordering::Relaxed);
        Ok(region)
    }

    /// Lays secret memory over the reservation.
    fn put_secretmem(&self) -> io::Result<()> {
        // SAFETY: a system call that takes flags and returns a descriptor.
        let fd = unsafe { libc::syscall(SYS_MEMFD_SECRET, libc::O_CLOEXEC) } as libc::c_int;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is ours; the mapping replaces part of our own reservation.
        let done = unsafe {
            libc::ftruncate(fd, self.len as libc::off_t) == 0
                && libc::mmap(
                    self.as_ptr().cast(),
                    self.len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    fd,
                    0,
                ) != libc::MAP_FAILED
        };
        let result = if done { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: closes our descriptor once; the mapping keeps the memory.
        unsafe { libc::close(fd) };
        result
    }

    /// Makes the reservation accessible.
    fn open(&self) -> io::Result<()> {
        // SAFETY: changes protection of our own mapping.
        let ok = unsafe {
            libc::mprotect(self.as_ptr().cast(), self.len, libc::PROT_READ | libc::PROT_WRITE) == 0
        };
        if ok { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Locks pages as they are touched.
    fn lock(&self) -> io::Result<()> {
        // SAFETY: locks our own mapping.
        let ok = unsafe { libc::mlock2(self.as_ptr().cast(), self.len, libc::MLOCK_ONFAULT as _) == 0 };
        if ok { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// First byte.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: the guard is part of the mapping, so the sum stays inside it.
        unsafe { self.map.as_ptr().add(self.guard) }
    }

    /// Bytes; a multiple of [`PAGE`], never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// How the pages are kept from others.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Overwrites with zeros every page that takes memory; the others read as
    /// zero already.
    pub fn wipe(&self) {
        /// Pages asked about at once.
        const CHUNK: usize = 1024;
        let mut resident = [0u8; CHUNK];
        for first in (0..self.len).step_by(CHUNK * PAGE) {
            let pages = (self.len - first).div_ceil(PAGE).min(CHUNK);
            // SAFETY: `first` is inside the region.
            let base = unsafe { self.as_ptr().add(first) };
            // SAFETY: our own mapping; one byte is written per page.
            let known = unsafe { libc::mincore(base.cast(), pages * PAGE, resident.as_mut_ptr()) == 0 };
            // Swapped-out pages are not "in core"; only unlocked memory has any.
            let all = !known || self.backend == Backend::Unlocked;
            for (page, state) in resident.iter().enumerate().take(pages) {
                if all || state & 1 == 1 {
                    // SAFETY: a page inside the region; `rep movsb` from zeros.
                    unsafe { crate::raw::copy(ZERO.as_ptr(), base.add(page * PAGE), PAGE) };
                }
            }
        }
    }
}

static ZERO: [u8; PAGE] = [0; PAGE];

/// Address space without memory or access.
fn reserve(len: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(map.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.open {
            self.wipe();
        }
        // SAFETY: our own mapping, unmapped once; no borrow of it can be left.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.len + self.guard) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Backend; 3] = [Backend::Secretmem, Backend::Locked, Backend::Unlocked];

    /// The back ends this host allows; the last needs nothing.
    fn regions(bytes: usize) -> Vec<Region> {
        let regions: Vec<_> = ALL.iter().filter_map(|b| Region::with_backend(bytes, *b).ok()).collect();
        assert!(regions.iter().any(|r| r.backend() == Backend::Unlocked));
        regions
    }

    fn bytes(region: &Region) -> Vec<u8> {
        let mut out = vec![0xa5; region.len()];
        // SAFETY: both ranges have the region's length.
        unsafe { crate::raw::copy(region.as_ptr(), out.as_mut_ptr(), region.len()) };
        out
    }

    #[test]
    fn zeroed_aligned_and_wiped() {
        for region in regions(3 * PAGE - 5) {
            assert_eq!(region.len(), 3 * PAGE);
            assert_eq!(region.as_ptr() as usize % PAGE, 0);
            assert!(bytes(&region).iter().all(|b| *b == 0));
            // SAFETY: the last byte of the region.
            unsafe { region.as_ptr().add(3 * PAGE - 1).write_volatile(7) };
            assert_eq!(bytes(&region)[3 * PAGE - 1], 7);
            region.wipe();
            assert!(bytes(&region).iter().all(|b| *b == 0), "{}", region.backend());
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for size in [0, usize::MAX, isize::MAX as usize] {
            assert!(matches!(Region::new(size), Err(SecretError::Size(_) | SecretError::Map { .. })));
        }
        assert!(matches!(Region::new(0), Err(SecretError::Size(0))));
    }

    #[test]
    fn weakest_backend_is_remembered() {
        let _region = Region::with_backend(1, Backend::Unlocked).unwrap();
        assert_eq!(weakest(), Backend::Unlocked);
    }

    #[test]
    fn best_backend_first() {
        let best = regions(1).remove(0).backend();
        assert_eq!(Region::new(1).unwrap().backend(), best);
    }

    /// Through `/proc/self/mem` the kernel reads as a debugger does.
    #[test]
    fn debuggers_see_what_the_backend_says() {
        use std::os::unix::fs::FileExt;
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        for region in regions(PAGE) {
            // SAFETY: the first byte of the region.
            unsafe { region.as_ptr().write_volatile(0x5a) };
            let mut seen = [0u8; 1];
            let read = memory.read_at(&mut seen, region.as_ptr() as u64);
            match region.backend() {
                Backend::Secretmem => assert!(read.is_err(), "secret memory was read: {seen:?}"),
                _ => assert_eq!((read.unwrap(), seen), (1, [0x5a])),
            }
        }
    }

    #[test]
    fn left_out_of_core_files_and_children() {
        for region in regions(PAGE) {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            // The kernel may have joined the mapping with its neighbours.
            let holds = |line: &str| {
                let hex = |s| usize::from_str_radix(s, 16).ok();
                let (first, rest) = line.split_once('-')?;
                let range = hex(first)?..hex(rest.split(' ').next()?)?;
                Some(range.contains(&(region.as_ptr() as usize)))
            };
            let mut entry = maps.lines().skip_while(|l| holds(l) != Some(true));
            let flags = entry.find(|l| l.starts_with("VmFlags:")).unwrap();
            assert!(flags.contains(" dd") && flags.contains(" dc"), "{flags}");
            assert_eq!(flags.contains(" lo"), region.backend() != Backend::Unlocked, "{flags}");
        }
    }
}

//! Operating-system workloads: calls, processes, faults, switches.

use std::time::{Duration, Instant};

use crate::workload::{Body, Class, Failure, Workload, check};

const fn os(
    name: &'static str,
    iterations: u64,
    about: &'static str,
    run: fn(u64) -> Result<Duration, Failure>,
) -> Workload {
    Workload { name, class: Class::Os, about, iterations, body: Body::Native(run) }
}

/// The four workloads of this class.
pub const WORKLOADS: [Workload; 4] = [
    os("getppid", 100_000, "the cheapest system call, in a child", getppid),
    os("fork-wait", 200, "fork, exit and wait", fork_wait),
    os("page-fault", 25, "map 512 pages, write each, unmap", page_fault),
    os("pipe-ping-pong", 4_000, "one byte there and back between two processes", pipe_ping_pong),
];

/// Runs `work` in a child process, which ends with the status it returns.
/// Gives the child's process id.
fn spawn(work: impl FnOnce() -> u8) -> Result<libc::pid_t, Failure> {
    // SAFETY: this program has one thread, so the child may run any code; it
    // leaves by _exit, without unwinding into or flushing the parent's state.
    match unsafe { libc::fork() } {
        -1 => Err(Failure::last_os("fork")),
        0 => {
            let status = work();
            // SAFETY: always allowed.
            unsafe { libc::_exit(i32::from(status)) }
        }
        pid => Ok(pid),
    }
}

/// Waits for a child; its exit status, or 256 + signal.
fn wait(pid: libc::pid_t) -> Result<i32, Failure> {
    let mut status = 0;
    // SAFETY: status is a valid place for the result.
    if unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        return Err(Failure::last_os("waitpid"));
    }
    Ok(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 256 + libc::WTERMSIG(status) })
}

/// The child asks, so that the answer, our own id, is known beforehand.
fn getppid(iterations: u64) -> Result<Duration, Failure> {
    let (answer, report) = pipe()?;
    let parent = i64::from(std::process::id());
    let child = spawn(|| {
        let start = Instant::now();
        for _ in 0..iterations {
            // SAFETY: getppid has no arguments and no effects.
            if unsafe { libc::syscall(libc::SYS_getppid) } != parent {
                return 1;
            }
        }
        let time = (start.elapsed().as_nanos() as u64).to_ne_bytes();
        u8::from(!write_all(report.0, &time))
    })?;
    let status = wait(child)?;
    check(0, status)?;
    let mut time = [0; 8];
    if !read_all(answer.0, &mut time) {
        return Err(Failure::last_os("read"));
    }
    Ok(Duration::from_nanos(u64::from_ne_bytes(time)))
}

fn fork_wait(iterations: u64) -> Result<Duration, Failure> {
    let start = Instant::now();
    for i in 0..iterations {
        let status = (i % 251) as u8;
        check(i32::from(status), wait(spawn(|| status)?)?)?;
    }
    Ok(start.elapsed())
}

fn page_fault(iterations: u64) -> Result<Duration, Failure> {
    const PAGES: usize = 512;
    const PAGE: usize = 4096;
    let start = Instant::now();
    for _ in 0..iterations {
        // SAFETY: a fresh private anonymous mapping of ours alone. Its size is
        // that of one huge page, and it is advised against them.
        let sum = unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                PAGES * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if at == libc::MAP_FAILED {
                return Err(Failure::last_os("mmap"));
            }
            // Kernels without huge pages refuse the advice: as well.
            libc::madvise(at, PAGES * PAGE, libc::MADV_NOHUGEPAGE);
            let words = at.cast::<u64>();
            let mut sum = 0;
            for page in 0..PAGES {
                let word = words.add(page * PAGE / 8);
                word.write_volatile(page as u64);
                // The word is ours, its neighbour is fresh memory and zero.
                sum += word.read_volatile() + 1000 * word.add(1).read_volatile();
            }
            if libc::munmap(at, PAGES * PAGE) != 0 {
                return Err(Failure::last_os("munmap"));
            }
            sum
        };
        check((PAGES * (PAGES - 1) / 2) as u64, sum)?;
    }
    Ok(start.elapsed())
}

/// A file descriptor, closed when dropped.
struct Fd(i32);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is owned by this value.
        unsafe { libc::close(self.0) };
    }
}

/// A pipe: reading end, writing end.
fn pipe() -> Result<(Fd, Fd), Failure> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(Failure::last_os("pipe"));
    }
    Ok((Fd(ends[0]), Fd(ends[1])))
}

fn read_all(fd: i32, mut buffer: &mut [u8]) -> bool {
    while !buffer.is_empty() {
        // SAFETY: the pointer and length are those of `buffer`.
        let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(n) {
            Ok(n) if n > 0 => buffer = &mut buffer[n..],
            _ => return false,
        }
    }
    true
}

fn write_all(fd: i32, buffer: &[u8]) -> bool {
    // SAFETY: the pointer and length are those of `buffer`. Eight bytes at most
    // go into a pipe, in one piece (POSIX: up to PIPE_BUF).
    let n = unsafe { libc::write(fd, buffer.as_ptr().cast(), buffer.len()) };
    usize::try_from(n) == Ok(buffer.len())
}

fn pipe_ping_pong(iterations: u64) -> Result<Duration, Failure> {
    let (there_out, there_in) = pipe()?;
    let (back_out, back_in) = pipe()?;
    let child = spawn(|| {
        // The child's copy of the end it reads from must not keep it open.
        // SAFETY: a copy of this process's own; nothing here uses it again.
        unsafe { libc::close(there_in.0) };
        let mut byte = [0u8];
        for _ in 0..iterations {
            if !read_all(there_out.0, &mut byte) {
                return 1;
            }
            byte[0] = byte[0].wrapping_mul(5).wrapping_add(1);
            if !write_all(back_in.0, &byte) {
                return 2;
            }
        }
        byte[0]
    })?;
    // As ours: should the child end early, the read below must not wait for ever.
    drop(back_in);
    let mut byte = [0u8];
    let mut model = 0u8;
    let start = Instant::now();
    for _ in 0..iterations {
        if !write_all(there_in.0, &byte) {
            return Err(Failure::last_os("write"));
        }
        if !read_all(back_out.0, &mut byte) {
            return Err(Failure::last_os("read"));
        }
        model = model.wrapping_mul(5).wrapping_add(1);
        check(model, byte[0])?;
    }
    let time = start.elapsed();
    check(i32::from(model), wait(child)?)?;
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: fork wants no other thread of the harness at work on a lock.
    #[test]
    fn every_os_workload_gives_its_answer() {
        for w in WORKLOADS {
            w.run(3, None).unwrap_or_else(|e| panic!("{}: {e}", w.name));
        }
        let killed = spawn(|| {
            // SAFETY: ends this child.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            0
        });
        assert_eq!(wait(killed.unwrap()).unwrap(), 256 + libc::SIGKILL);
    }
}

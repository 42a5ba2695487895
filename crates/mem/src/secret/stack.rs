//! Threads whose stack is memory for secrets.
//!
//! The copies a compiled program makes of values (spilled registers, arguments,
//! temporaries) go to the stack of the thread. A processor that runs enclaves
//! therefore does so on such a stack.
//!
//! The thread itself is an ordinary one, which changes to the other stack by a
//! call: its thread-local storage and descriptor must stay in ordinary memory,
//! since the kernel's wake-up at the end of a thread is a shared futex, and
//! those refuse secret memory.

use std::{
    arch::naked_asm,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread::{Builder, JoinHandle},
};

use super::{
    region::{Backend, PAGE, Region, SecretError},
    scrub::scrub_registers,
};

/// Size of a secret stack unless told otherwise, in bytes.
pub const DEFAULT_STACK_BYTES: usize = 1 << 20;
/// Least size, in bytes.
const MIN_STACK_BYTES: usize = 16 * PAGE;

/// A stack in a [`Region`], with an inaccessible page below it: running out of
/// it ends the process with `SIGSEGV`, as on any thread.
///
/// On it, memory must not be handed to system calls that pin pages (`O_DIRECT`,
/// `vmsplice`, shared futexes): secret memory refuses them with `EFAULT`. Nor may
/// `fork` be called there: the child would have no stack.
#[derive(Debug)]
pub struct SecretStack(Region);

impl SecretStack {
    /// A stack of at least `bytes` (at least 64 KiB).
    ///
    /// # Errors
    /// [`SecretError`] if there is no memory.
    pub fn new(bytes: usize) -> Result<Self, SecretError> {
        Ok(Self(Region::guarded(bytes.max(MIN_STACK_BYTES))?))
    }

    /// How the stack is kept from others.
    pub fn backend(&self) -> Backend {
        self.0.backend()
    }

    /// Calls `f` on this stack, then clears the vector registers. A panic goes on
    /// in the caller. The stack's content stays until the next call or drop.
    pub fn call<T>(&mut self, f: impl FnOnce() -> T) -> T {
        let mut task = Task { f: Some(f), result: None };
        // SAFETY: one past the region, which is aligned to pages as a stack's
        // top has to be to 16 bytes.
        let top = unsafe { self.0.as_ptr().add(self.0.len()) };
        // SAFETY: `top` is the end of a stack that `&mut self` makes ours alone;
        // `enter` gets the task it was made for and does not unwind.
        unsafe { call_on((&raw mut task).cast(), enter_of(&task), top) };
        scrub_registers();
        match task.result {
            Some(Ok(value)) => value,
            Some(Err(panic)) => resume_unwind(panic),
            None => unreachable!("the call returns after setting the result"),
        }
    }
}

/// What is called and what came of it.
struct Task<F, T> {
    f: Option<F>,
    result: Option<std::thread::Result<T>>,
}

fn enter_of<F: FnOnce() -> T, T>(_: &Task<F, T>) -> unsafe extern "sysv64" fn(*mut c_void) {
    enter::<F, T>
}

/// # Safety
/// `task` points to a `Task<F, T>` that nobody else uses during the call.
unsafe extern "sysv64" fn enter<F: FnOnce() -> T, T>(task: *mut c_void) {
    // SAFETY: as the caller vouches.
    let task = unsafe { &mut *task.cast::<Task<F, T>>() };
    if let Some(f) = task.f.take() {
        task.result = Some(catch_unwind(AssertUnwindSafe(f)));
    }
}

/// Calls `f(arg)` with the stack pointer at `top`. The frame pointer leads back,
/// so that backtraces go on into the caller.
///
/// # Safety
/// `top` is the 16-byte aligned end of an unused stack; `f` may be called with
/// `arg` and does not unwind.
#[unsafe(naked)]
unsafe extern "sysv64" fn call_on(arg: *mut c_void, f: unsafe extern "sysv64" fn(*mut c_void), top: *mut u8) {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rsp",
        ".cfi_def_cfa_register rbp",
        "mov rsp, rdx",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        ".cfi_def_cfa rsp, 8",
        "ret",
        ".cfi_endproc",
    )
}

/// Starts a thread that runs `f` on a [`SecretStack`] of `stack_bytes`
/// ([`DEFAULT_STACK_BYTES`] suits a processor); the stack is wiped when it ends.
/// The result, or the panic, comes through the handle, in ordinary memory.
///
/// # Errors
/// [`SecretError`] if there is no memory or no thread to be had.
pub fn spawn_on_secret_stack<T, F>(name: &str, stack_bytes: usize, f: F) -> Result<JoinHandle<T>, SecretError>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let mut stack = SecretStack::new(stack_bytes)?;
    // A name with a NUL would make `Builder::spawn` panic.
    let name = name.replace('\0', " ");
    Builder::new().name(name).spawn(move || stack.call(f)).map_err(SecretError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    fn here() -> usize {
        let local = 0u8;
        black_box(&raw const local) as usize
    }

    #[test]
    fn runs_on_the_region_and_comes_back() {
        let mut stack = SecretStack::new(DEFAULT_STACK_BYTES).unwrap();
        let range = stack.0.as_ptr() as usize..stack.0.as_ptr() as usize + stack.0.len();
        let before = here();
        for i in 0..3u64 {
            let (at, value) = stack.call(|| (here(), i + 1));
            assert!(range.contains(&at));
            assert_eq!(value, i + 1);
        }
        assert!(!range.contains(&before) && !range.contains(&here()));
    }

    #[test]
    fn threads_give_results_names_and_panics() {
        let thread = spawn_on_secret_stack("cpu 0", DEFAULT_STACK_BYTES, || {
            let name = std::thread::current().name().map(str::to_owned);
            // Formatting, locking and thread-local storage work there.
            (name, format!("{:?}", std::sync::Mutex::new(vec![1])))
        })
        .unwrap();
        let (name, text) = thread.join().unwrap();
        assert_eq!(name.as_deref(), Some("cpu 0"));
        assert!(text.contains("[1]"));

        let thread = spawn_on_secret_stack("faulty", 0, || std::panic::panic_any("planted failure")).unwrap();
        assert_eq!(*thread.join().unwrap_err().downcast::<&str>().unwrap(), "planted failure");
    }

    #[test]
    fn backtraces_go_through() {
        let mut stack = SecretStack::new(DEFAULT_STACK_BYTES).unwrap();
        let trace = stack.call(|| std::backtrace::Backtrace::force_capture().to_string());
        assert!(trace.contains("backtraces_go_through"), "{trace}");
    }

    #[test]
    fn waiting_threads_wake_each_other() {
        let (send, receive) = std::sync::mpsc::channel::<u32>();
        let thread =
            spawn_on_secret_stack("waiter", 0, move || receive.iter().take(100).sum::<u32>()).unwrap();
        for i in 0..100 {
            send.send(i).unwrap();
        }
        assert_eq!(thread.join().unwrap(), 4950);
    }

    #[test]
    fn deep_frames_fit() {
        fn deep(n: u32) -> u32 {
            let frame = black_box([n; 64]);
            if n == 0 { 0 } else { deep(n - 1) + frame[63] - (n - 1) }
        }
        let mut stack = SecretStack::new(DEFAULT_STACK_BYTES).unwrap();
        assert_eq!(stack.call(|| deep(1000)), 1000);
    }
}

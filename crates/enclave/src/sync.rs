//! Locks for the threads that the host brings into the enclave.
//!
//! A thread that has to wait spins a little, then asks the host to let it sleep. Who owns
//! a lock, and who is to be woken, is decided inside: a host that wakes threads at will,
//! or never, makes them look in vain or wait for ever, and nothing else.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use enclave_abi::layout::MAX_THREADS;

use crate::host;
use crate::thread::thread_number;

/// Looks at a lock before a thread goes to sleep.
const SPINS: usize = 100;
const WORDS: usize = MAX_THREADS.div_ceil(64) as usize;

/// Threads that wait, by their numbers.
struct Waiters([AtomicU64; WORDS]);

impl Waiters {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn word(&self, thread: u32) -> (&AtomicU64, u64) {
        (&self.0[thread as usize / 64], 1 << (thread % 64))
    }

    fn add(&self, thread: u32) {
        let (word, bit) = self.word(thread);
        word.fetch_or(bit, SeqCst);
    }

    fn remove(&self, thread: u32) {
        let (word, bit) = self.word(thread);
        word.fetch_and(!bit, SeqCst);
    }

    fn contains(&self, thread: u32) -> bool {
        let (word, bit) = self.word(thread);
        word.load(SeqCst) & bit != 0
    }

    /// Takes one out and wakes it; false if there is none.
    fn wake_one(&self) -> bool {
        for (word, first) in self.0.iter().zip((0..).step_by(64)) {
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                let thread = bits.trailing_zeros();
                let bit = 1 << thread;
                if word.fetch_and(!bit, SeqCst) & bit != 0 {
                    host::wake(first + thread);
                    return true;
                }
                bits = word.load(SeqCst);
            }
        }
        false
    }

    /// Lets this thread sleep until `ready`; whoever makes it ready calls `wake_one`
    /// afterwards.
    fn wait(&self, mut ready: impl FnMut() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            core::hint::spin_loop();
        }
        let me = thread_number();
        loop {
            self.add(me);
            // after the addition: what becomes ready from here on finds it
            if ready() {
                return self.remove(me);
            }
            host::park(me);
            self.remove(me);
        }
    }
}

/// Data that one thread uses at a time.
pub struct Mutex<T: ?Sized> {
    locked: AtomicBool,
    waiters: Waiters,
    data: UnsafeCell<T>,
}

// SAFETY: a guard gives access to one thread at a time.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

impl<T> Mutex<T> {
    /// Data that nobody uses yet.
    pub const fn new(data: T) -> Self {
        Self { locked: AtomicBool::new(false), waiters: Waiters::new(), data: UnsafeCell::new(data) }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until nobody else uses the data.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.waiters.wait(|| self.acquire());
        MutexGuard { mutex: self }
    }

    /// The data, if nobody uses it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.acquire().then_some(MutexGuard { mutex: self })
    }

    fn acquire(&self) -> bool {
        self.locked.compare_exchange(false, true, SeqCst, SeqCst).is_ok()
    }
}

/// The use of a [`Mutex`]'s data, which ends when this is dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
}

// SAFETY: shared access to the guard is shared access to the data.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one.
        unsafe { &*self.mutex.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one.
        unsafe { &mut *self.mutex.data.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.locked.store(false, SeqCst);
        self.mutex.waiters.wake_one();
    }
}

/// A place to wait at until another thread has changed something under a [`Mutex`].
pub struct Condvar(Waiters);

impl Condvar {
    /// Nobody waits yet.
    #[allow(clippy::new_without_default, reason = "it stands in statics")]
    pub const fn new() -> Self {
        Self(Waiters::new())
    }

    /// Gives the data up, waits for a notification, and takes the data again.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let mutex = guard.mutex;
        let me = thread_number();
        // before the data is given up: no notification from here on is missed
        self.0.add(me);
        drop(guard);
        // only a notification takes the thread out
        while self.0.contains(me) {
            host::park(me);
        }
        mutex.lock()
    }

    /// Waits while `condition` holds.
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// Lets one thread go on, if any waits.
    pub fn notify_one(&self) {
        self.0.wake_one();
    }

    /// Lets all threads go on that wait now.
    pub fn notify_all(&self) {
        // as many as there may be: those that come to wait meanwhile are not kept from it
        for _ in 0..MAX_THREADS {
            if !self.0.wake_one() {
                break;
            }
        }
    }
}

/// A value that the first thread to need it makes.
pub struct OnceLock<T> {
    making: Mutex<()>,
    made: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written once, by the thread that holds the lock, before anybody reads it.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl<T: Send> Send for OnceLock<T> {}

impl<T> OnceLock<T> {
    /// No value yet.
    #[allow(clippy::new_without_default, reason = "it stands in statics")]
    pub const fn new() -> Self {
        Self {
            making: Mutex::new(()),
            made: AtomicBool::new(false),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// The value, if it was made.
    pub fn get(&self) -> Option<&T> {
        // SAFETY: written before `made` was set, and never again.
        self.made.load(SeqCst).then(|| unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// The value; `make` makes it if nobody has.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let _making = self.making.lock();
        // another thread may have been first
        if !self.made.load(SeqCst) {
            let value = make();
            // SAFETY: under the lock, and nobody reads before `made`.
            unsafe { (*self.value.get()).write(value) };
            self.made.store(true, SeqCst);
        }
        // SAFETY: made, as `get` has it.
        unsafe { (*self.value.get()).assume_init_ref() }
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        if *self.made.get_mut() {
            // SAFETY: made, and nobody refers to it any more.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

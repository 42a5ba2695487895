//! Threads that serve calls of an enclave that does not leave for them: see
//! [`enclave_abi::call::mailbox`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use enclave_abi::call::mailbox::{DONE, MAX, REQUESTED, STATE_SIZE, TAKEN};
use enclave_abi::call::{EXCHANGE_SIZE, Exchange, FAILED, Outcome};
use zerocopy::{FromBytes, IntoBytes};

use crate::enclave::{Options, in_a_call};

/// Bytes of a mailbox; messages beyond that leave the enclave.
pub(crate) const SIZE: usize = 16 << 10;
const WORDS: usize = SIZE / 8;
/// Words of the state and of the head.
const STATE: usize = STATE_SIZE as usize / 8;
const HEAD: usize = STATE + EXCHANGE_SIZE as usize / 8;
/// Looks around until a thread begins to sleep between them.
const AWAKE: usize = 20_000;
const NAP: Duration = Duration::from_micros(100);

/// Mailboxes, with threads that watch them until this is dropped.
pub(crate) struct Mailboxes {
    memory: Arc<Vec<AtomicU64>>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Mailboxes {
    /// As many mailboxes as threads.
    pub(crate) fn new(threads: usize, options: &Arc<Options>) -> Self {
        let count = threads.min(MAX as usize);
        let memory: Arc<Vec<_>> = Arc::new((0..count * WORDS).map(|_| AtomicU64::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count)
            .map(|_| {
                let (memory, stop, options) = (memory.clone(), stop.clone(), options.clone());
                thread::spawn(move || in_a_call(|| watch(&memory, &stop, &options)))
            })
            .collect();
        Self { memory, stop, threads }
    }

    /// Address of the first.
    pub(crate) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// Their number.
    pub(crate) fn count(&self) -> u64 {
        (self.memory.len() / WORDS) as u64
    }
}

impl Drop for Mailboxes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let me = thread::current().id();
        // one of them may be the last to have used the enclave
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != me) {
            // a function of the host's that panicked has said so itself
            let _ = thread.join();
        }
    }
}

fn watch(memory: &[AtomicU64], stop: &AtomicBool, options: &Options) {
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        idle += 1;
        for mailbox in memory.chunks_exact(WORDS) {
            let taken = mailbox[0].compare_exchange(REQUESTED, TAKEN, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                serve(mailbox, options);
                idle = 0;
            }
        }
        if idle < AWAKE { std::hint::spin_loop() } else { thread::sleep(NAP) }
    }
}

/// Does what a mailbox asks for.
fn serve(mailbox: &[AtomicU64], options: &Options) {
    let read = |from: &[AtomicU64], len: usize| -> Vec<u8> {
        let words = from.iter().take(len.div_ceil(8)).map(|word| word.load(Ordering::Relaxed));
        words.flat_map(u64::to_le_bytes).take(len).collect()
    };
    let capacity = (WORDS - HEAD) * 8;
    let head = read(&mailbox[STATE..HEAD], EXCHANGE_SIZE as usize);
    let head = Exchange::read_from_bytes(&head);
    let request =
        head.ok().filter(|head| head.code == Outcome::Ocall as u32 && head.length <= capacity as u64);
    let result = request.and_then(|head| {
        let arguments = read(&mailbox[HEAD..], head.length as usize);
        options.serve(head.function, &arguments).filter(|result| result.len() <= capacity)
    });
    let code = if result.is_some() { 0 } else { FAILED };
    let result = result.unwrap_or_default();
    let head = Exchange { code, length: result.len() as u64, ..Exchange::default() };
    for (word, bytes) in mailbox[HEAD..].iter().zip(result.chunks(8)) {
        let mut filled = [0; 8];
        filled[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_le_bytes(filled), Ordering::Relaxed);
    }
    for (word, bytes) in mailbox[STATE..HEAD].iter().zip(head.as_bytes().as_chunks().0) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    mailbox[0].store(DONE, Ordering::Release);
}

//! Mailboxes, by which an enclave calls without leaving: memory at an address of the host's
//! word, that the host may change at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use enclave_abi::call::mailbox::{DONE, FREE, MAX, REQUESTED, TAKEN};
use enclave_abi::call::{Command, Configuration, Exchange, FAILED, Outcome, function};
use enclave_host::Files;
use zerocopy::IntoBytes;

use super::{Random, Target, decode, number};
use crate::step;

/// Bytes of a mailbox.
const SIZE: u64 = 4096;

/// All that can be told of mailboxes, and all that can be written into one.
pub fn mailboxes(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    misplaced(files)?;
    changing(files, random, rounds)
}

impl Target {
    /// Tells the enclave where mailboxes are; what it says.
    fn tell(&mut self, mailboxes: u64, mailbox_count: u64, mailbox_size: u64) -> Option<Outcome> {
        let told = Configuration { sgx2: 0, mailboxes, mailbox_count, mailbox_size };
        self.call(function::CONFIGURE, told.as_bytes()).0
    }

    /// Has the enclave ask without leaving; if it leaves for that, whether what it was
    /// answered is what it says.
    fn asks(&mut self) -> Asked {
        let (outcome, message) = self.call(number::ASK_SWITCHLESS, b"\x02it");
        if outcome != Some(Outcome::Ocall) {
            let told: Option<Result<String, String>> = decode(&message);
            return if outcome == Some(Outcome::Done) && told.is_some() {
                Asked::Inside
            } else {
                Asked::Wrong
            };
        }
        self.put(Exchange { length: 5, ..Exchange::default() }, b"\x04fine");
        self.enter(Command::Return as u64);
        let expected = [&[0, 4][..], b"fine"].concat();
        if self.said() == (Some(Outcome::Done), expected) { Asked::Outside } else { Asked::Wrong }
    }
}

/// How the enclave has asked the host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// By a mailbox: it has an answer, or an error.
    Inside,
    /// By leaving: it has what it was given.
    Outside,
    /// Something else has come of it.
    Wrong,
}

/// Mailboxes in the enclave, across its ends, unaligned, too many, none.
fn misplaced(files: &Files) -> Result<(), String> {
    let memory = vec![0u64; 2 * SIZE as usize / 8];
    let good = memory.as_ptr() as u64;
    let mut held = true;
    let size = files.size();
    let wrong: [fn(u64, u64, u64) -> (u64, u64, u64); 7] = [
        |base, _, _| (base + 0x1000, 1, SIZE),
        |base, _, _| (base - 64, 2, SIZE),
        |base, size, _| (base + size - 8, 1, SIZE),
        |_, _, good| (good + 4, 1, SIZE),
        |_, _, _| (!7, MAX, SIZE),
        |_, _, good| (good, MAX + 1, SIZE),
        |_, _, good| (good, 1, 64),
    ];
    for wrong in wrong {
        let mut target = Target::untold(files)?;
        let (mailboxes, count, size) = wrong(target.base, size, good);
        held &= target.tell(mailboxes, count, size) == Some(Outcome::Done);
        held &= target.asks() == Asked::Outside && target.intact();
        // what was told stays told
        held &= target.tell(good, 2, SIZE) == Some(Outcome::NoFunction) && target.asks() == Asked::Outside;
    }
    held &= memory.iter().all(|&word| word == 0);
    step("mailboxes in the enclave, across its ends, unaligned, told twice: not used", held)
}

/// A mailbox whose state, head and message change all the time.
fn changing(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    let mut target = Target::untold(files)?;
    let mailbox: Arc<Vec<AtomicU64>> = Arc::new((0..SIZE / 8).map(|_| AtomicU64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let told = target.tell(mailbox.as_ptr() as u64, 1, SIZE);
    step("  it takes a mailbox", told == Some(Outcome::Done))?;
    let changer = thread::spawn({
        let (mailbox, stop, mut random) = (mailbox.clone(), stop.clone(), Random(random.next()));
        move || {
            while !stop.load(Ordering::Relaxed) {
                // now and then something that could be an answer
                let length =
                    [random.below(64), random.below(2 * SIZE), random.next(), !0][random.below(4) as usize];
                let code = [0, 0, FAILED.into(), random.next()][random.below(4) as usize];
                mailbox[1].store(code, Ordering::Relaxed);
                mailbox[2].store(length, Ordering::Relaxed);
                for word in &mailbox[9..9 + random.below(16) as usize] {
                    word.store(random.next(), Ordering::Relaxed);
                }
                // of states that are none the enclave waits for the next; an end has to come
                let state = [FREE, REQUESTED, TAKEN, DONE, DONE, random.next()][random.below(6) as usize];
                mailbox[0].store(state, Ordering::Release);
            }
        }
    });
    let (mut inside, mut outside, mut held) = (0, 0, true);
    for _ in 0..rounds {
        match target.asks() {
            Asked::Inside => inside += 1,
            Asked::Outside => outside += 1,
            Asked::Wrong => held = false,
        }
    }
    stop.store(true, Ordering::Relaxed);
    changer.join().map_err(|_| "the other thread failed")?;
    step(
        &format!(
            "a mailbox that changes at any time: {inside} answers or errors, {outside} calls by leaving instead"
        ),
        held && inside > 0,
    )?;
    step("  intact", target.intact())
}

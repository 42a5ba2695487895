//! Interrupts at every place, and what a host may do between.

use std::thread;

use check_interface::CheckClient;
use enclave_abi::call::{Command, Outcome};
use enclave_host::Files;

use super::{Random, Target, number};
use crate::{load, step};

/// Takes the signals, on a stack of its own: the one in RSP may be hostile.
extern "C" fn tick(_signal: libc::c_int) {}

/// Has SIGALRM come, and be survived.
fn prepare() -> Result<(), String> {
    let stack = Box::leak(vec![0u8; 1 << 16].into_boxed_slice());
    let alternative = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: memory that is never freed, and a handler that does nothing.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tick as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaltstack(&alternative, std::ptr::null_mut()) == 0
            && libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) == 0
    };
    if done { Ok(()) } else { Err("no signals".into()) }
}

/// An alarm after this time, then each `interval`, in microseconds; zero for none.
fn alarm(first: u64, interval: u64) {
    let time = |us: u64| libc::timeval { tv_sec: 0, tv_usec: us as libc::suseconds_t };
    let value = libc::itimerval { it_interval: time(interval), it_value: time(first) };
    // SAFETY: a structure in this frame.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &value, std::ptr::null_mut()) };
}

/// Interrupts a call at a random moment, and enters the thread anew, in every way, before
/// it is resumed: also while its stack is just being switched (*SmashEx*).
pub fn storm(files: &Files, random: &mut Random, rounds: u32) -> Result<(), String> {
    prepare()?;
    let mut target = Target::new(files)?;
    let aside = vec![0u64; 512];
    let mut held = true;
    for round in 0..rounds {
        let command = [Command::Exception, Command::Call, Command::Return][round as usize % 3] as u64;
        let nested = (command, aside.as_ptr() as u64, 4096 - 64);
        target.entry.after_aex(Some(nested));
        alarm(1 + random.below(60), 0);
        let data = [&[8][..], &random.next().to_le_bytes()].concat();
        let (outcome, message) = target.call(number::ECHO, &data);
        held &= outcome == Some(Outcome::Done) && message == data && target.entry.leaks().is_empty();
    }
    alarm(0, 0);
    target.entry.after_aex(None);
    let aexes = target.entry.aexes();
    // nothing was ever said to an entry between
    held &= aside.iter().all(|&word| word == 0);
    step(&format!("{aexes} entries between an interrupt and its resumption are refused"), held && aexes > 0)?;
    step("  intact", target.intact())
}

/// All threads inside, interrupted all the time.
pub fn threads(files: &Files) -> Result<(), String> {
    let enclave = load(files)?;
    alarm(50, 50);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let enclave = enclave.clone();
            thread::spawn(move || CheckClient(&*enclave).count(200).is_ok())
        })
        .collect();
    let done = workers.into_iter().map(|worker| worker.join().unwrap_or(false)).fold(true, |a, b| a && b);
    alarm(0, 0);
    let check = CheckClient(&*enclave);
    step("a storm of interrupts over all threads: no count is lost", done && check.count(0) == Ok(800))?;
    step("  intact", check.intact() == Ok(true))
}

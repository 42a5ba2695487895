//! A good host: what the runtime offers.

use std::sync::Arc;
use std::thread;

use check_interface::{CheckClient, NoQuotient, Raise};
use enclave_host::{Enclave, Error, Files};
use enclave_interface::{CallError, Caller};

use crate::{ENCLAVE, load, step};

/// As threads have it.
type Check = CheckClient<Shared>;

/// An enclave of several threads.
struct Shared(Arc<Enclave>);

impl Caller for Shared {
    type Error = Error;

    fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.call(function, arguments)
    }
}

/// All that needs no SGX2.
pub fn check(files: &Files) -> Result<(), String> {
    let enclave = load(files)?;
    let _ = ENCLAVE.set(enclave.clone());
    let check = CheckClient(&*enclave);
    step("a call", check.nothing().is_ok())?;
    for len in [0, 1, 7, 8, 9, 4096, 100_000] {
        let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
        step(&format!("{len} bytes go in and come back"), check.echo(&data) == Ok(data))?;
    }
    step("results", check.divide(6, -2) == Ok(Ok(-3)))?;
    step("errors of the interface", check.divide(6, 0) == Ok(Err(NoQuotient::ByZero)))?;
    step("errors of the interface differ", check.divide(i64::MIN, -1) == Ok(Err(NoQuotient::Overflow)))?;
    step("a call to the host", check.ask("it") == Ok(Ok("it is answered".into())))?;
    step("its result has the type's limits", check.percentage() == Ok(Ok(42)))?;
    step("4 KiB go to the host and come back", check.echo_by_host(10, &[7; 4096]) == Ok(10))?;
    step("calls without leaving, for which nobody waits", check.call_host_switchless(100) == Ok(100))?;
    switchless(files)?;
    step("calls in calls in calls", check.nest(2) == Ok(2))?;
    step("more calls in calls than threads", check.nest(20).is_ok_and(|n| n < 20))?;
    messages(files)?;
    state(&check)?;
    let algorithms = check.algorithms().unwrap_or_default();
    step(&format!("algorithms: {}", algorithms.join(", ")), algorithms.len() == 5)?;
    let leaf1 = check.cpuid(1).unwrap_or_default();
    step("CPUID tells the features of the build", leaf1[2] & 1 << 25 != 0 && leaf1[2] & 1 << 28 == 0)?;
    let [one, other] = check.random().unwrap_or_default();
    let again = check.random().unwrap_or_default();
    step("random numbers", one != other && ![one, other].iter().any(|r| again.contains(r) || *r == [0; 16]))?;
    step("the host's time", check.time().is_ok_and(|time| time.is_some_and(|t| t > 1_700_000_000)))?;
    step("a debug enclave prints", check.print("hello").is_ok())?;
    step("reports verify, changed ones do not", check.verify_own_report() == Ok((true, false)))?;
    let numbers = check.generator().unwrap_or_default();
    let different: std::collections::BTreeSet<_> = numbers.iter().collect();
    step("a generator for crates", different.len() == 37 && !different.contains(&0))?;
    step("keys of EGETKEY", check.keys() == Ok(true))?;
    threads(&enclave)?;
    step("#UD is handled inside", check.raise(Raise::HandledUndefined) == Ok(0x600d))?;
    step("#DE is handled inside", check.raise(Raise::HandledDivide) == Ok(0xd1))?;
    step("the enclave is intact", check.intact() == Ok(true))?;
    ends(files)
}

/// Threads of the host that wait for calls; fewer than there are callers.
fn switchless(files: &Files) -> Result<(), String> {
    let options = crate::options().switchless(2);
    let enclave = Arc::new(Enclave::load(files.clone(), options).map_err(|e| e.to_string())?);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let enclave = enclave.clone();
            thread::spawn(move || CheckClient(&*enclave).call_host_switchless(300) == Ok(300))
        })
        .collect();
    let done = threads.into_iter().map(|t| t.join().unwrap_or(false)).fold(true, |all, one| all && one);
    step("calls without leaving", done && CheckClient(&*enclave).percentage() == Ok(Ok(42)))
}

/// Messages that do not fit, and messages that are none.
fn messages(files: &Files) -> Result<(), String> {
    let limit = 24 << 20;
    let options = crate::options().message_limit(limit);
    let enclave = Enclave::load(files.clone(), options).map_err(|e| e.to_string())?;
    let check = CheckClient(&enclave);
    let large = vec![1; limit + 1];
    step("arguments beyond the limit", check.echo(&large) == Err(CallError::Call(Error::TooLarge)))?;
    // as many bytes as fit with their length
    step(
        "arguments beyond the heap",
        check.echo(&large[..limit - 4]) == Err(CallError::Call(Error::NoMemory)),
    )?;
    step("no such function", check.0.call(9999, &[]) == Err(Error::NoFunction))?;
    step("no such function of the runtime", check.0.call(u32::MAX, &[]) == Err(Error::NoFunction))?;
    step("arguments that are none", check.0.call(2, &[0xff; 3]) == Err(Error::BadArguments))?;
    step("arguments with more behind", check.0.call(0, &[0]) == Err(Error::BadArguments))?;
    step("and goes on", check.nothing().is_ok())
}

/// Registers and flags.
fn state(check: &CheckClient<&Enclave>) -> Result<(), String> {
    let state = check.state().map_err(|e| e.to_string())?;
    step(&format!("registers: {state:x?}"), crate::attack::is_clean(&state))
}

/// As many threads as the enclave has, and more.
fn threads(enclave: &Arc<Enclave>) -> Result<(), String> {
    let spawn = |n: u32, work: fn(&Check) -> bool| {
        let threads: Vec<_> = (0..n)
            .map(|_| {
                let check = CheckClient(Shared(enclave.clone()));
                thread::spawn(move || work(&check))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or(false)).fold(true, |all, one| all && one)
    };
    step("a value that all need is made once", spawn(4, |check| check.once(4) == Ok((1, true))))?;
    step("threads count under a lock", spawn(8, |check| check.count(500).is_ok()))?;
    step("and nothing was lost", CheckClient(&**enclave).count(0) == Ok(8 * 500))
}

/// What ends an enclave.
fn ends(files: &Files) -> Result<(), String> {
    for what in [Raise::Undefined, Raise::StackGuard, Raise::Panic] {
        let enclave = load(files)?;
        let check = CheckClient(&*enclave);
        let error = check.raise(what);
        println!("{what:?}: {error:?}");
        let expected = match (&error, what) {
            (Err(CallError::Call(Error::Fault { fault, .. })), Raise::Undefined) => fault.vector == 6,
            (Err(CallError::Call(Error::Fault { fault, .. })), Raise::StackGuard) => fault.vector == 14,
            (Err(CallError::Call(Error::Aborted(why))), Raise::Panic) => {
                why.as_ref().is_some_and(|why| why.contains("as asked"))
            }
            _ => false,
        };
        step(&format!("{what:?} is told"), expected)?;
        if what != Raise::StackGuard {
            step("it has ended for good", check.nothing() == Err(CallError::Call(Error::Aborted(None))))?;
        }
        enclave.reload().map_err(|e| e.to_string())?;
        step("loaded again, it works", check.nothing().is_ok())?;
    }
    Ok(())
}

/// What a production enclave tells of itself: nothing.
pub fn production(files: &Files) -> Result<(), String> {
    let load = || {
        let options = enclave_host::Options::new().print(|text| println!("printed: {text}"));
        Enclave::load(files.clone(), options).map_err(|e| e.to_string())
    };
    let enclave = load()?;
    let check = CheckClient(&enclave);
    step("it works", check.divide(6, 2) == Ok(Ok(3)))?;
    step("it prints nothing", check.print("hello").is_ok())?;
    step(
        "a panic is told without its message",
        check.raise(Raise::Panic) == Err(CallError::Call(Error::Aborted(None))),
    )?;
    let enclave = load()?;
    let fault = CheckClient(&enclave).raise(Raise::Undefined);
    step(
        "a fault without its place",
        matches!(fault, Err(CallError::Call(Error::Fault { reason: None, .. }))),
    )
}

/// Stays in the enclave until somebody ends it.
pub fn inside(files: &Files) -> Result<(), String> {
    let enclave = load(files)?;
    println!("inside");
    CheckClient(&*enclave).count(u32::MAX).map(drop).map_err(|e| e.to_string())
}

/// The EPC is lost while the enclave holds something: whoever starts this does that.
pub fn lost(files: &Files) -> Result<(), String> {
    let options = crate::options().on_loss(|| {
        println!("the enclave is lost; load it again");
        true
    });
    let enclave = Enclave::load(files.clone(), options).map_err(|e| e.to_string())?;
    let check = CheckClient(&enclave);
    step("it counts", check.count(5) == Ok(5))?;
    println!("holding");
    std::io::stdin().read_line(&mut String::new()).map_err(|e| e.to_string())?;
    let first = check.count(0);
    println!("then: {first:?}");
    step("the loss is told", matches!(first, Err(CallError::Call(Error::Lost { .. }))))?;
    println!("after that: {:?}", check.count(0));
    Ok(())
}

/// What takes SGX2: a heap that grows, page faults that the enclave is told of.
pub fn sgx2(files: &Files) -> Result<(), String> {
    let enclave = load(files)?;
    let check = CheckClient(&*enclave);
    step("the heap grows", check.fill_heap(8 << 20) == Ok(true))?;
    step("again, in what has grown", check.fill_heap(8 << 20) == Ok(true))?;
    step("to its limit", check.fill_heap(64 << 20) == Ok(false))?;
    step("and goes on", check.echo(&[1; 1000]) == Ok(vec![1; 1000]))?;
    step("#PF is handled inside, with its address", check.raise(Raise::HandledPageFault) == Ok(1))
}

/// Fills and reads the heap, beyond what the machine has of EPC: Linux swaps its pages.
pub fn fill(files: &Files, bytes: u64) -> Result<(), String> {
    let enclave = load(files)?;
    let check = CheckClient(&*enclave);
    step("the enclave has its secrets", check.intact() == Ok(true))?;
    step(&format!("{bytes} bytes of heap are what was written"), check.fill_heap(bytes) == Ok(true))?;
    step("once more", check.fill_heap(bytes) == Ok(true))?;
    step("and nothing else was lost", check.intact() == Ok(true))
}

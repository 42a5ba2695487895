//! Locked operations across a page boundary, against plain accesses of other
//! processors to one of the pages. RDI is the quadword whose halves lie in two
//! pages; the upper half is naturally aligned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Duration;

use arch::regs::gpr;
use archtest::{DATA, Ended, World, guest, sdm};
use cpu::Exit;
use cpu::shared::request;

/// The last four bytes of a page.
const SPLIT: u64 = DATA + 0xffc;
/// Where the processors with plain accesses are told to halt.
const DONE: u64 = DATA + 0x2000;
const ROUNDS: u64 = 300_000;

// RCX times. Both halves change together.
guest!(add, "31: lock add [rdi], rax", "dec ecx", "jnz 31b", "mov qword ptr [rsi], 1", "hlt");
guest!(
    exchange,
    "mov rbx, rax",
    "31: mov rdx, rbx",
    "xchg [rdi], rdx",
    "add rbx, rax",
    "dec ecx",
    "jnz 31b",
    "mov qword ptr [rsi], 1",
    "hlt"
);
guest!(
    compare_8,
    "mov r8, rax",
    "xor eax, eax",
    "xor edx, edx",
    "31: lea ebx, [rax + 1]",
    "mov r9d, ecx",
    "lea ecx, [rdx + 1]",
    "lock cmpxchg8b [rdi]",
    "mov ecx, r9d",
    "jnz 31b",
    "lea eax, [rax + 1]",
    "lea edx, [rdx + 1]",
    "dec ecx",
    "jnz 31b",
    "mov qword ptr [rsi], 1",
    "hlt"
);
guest!(
    exchange_add,
    "31: mov r10, rax",
    "lock xadd [rdi], r10",
    "dec ecx",
    "jnz 31b",
    "mov qword ptr [rsi], 1",
    "hlt"
);

// Of halves that only grow, together, the one that is read second is never
// behind. RBX counts when it is.
guest!(
    high_then_low,
    "xor ebx, ebx",
    "31: mov eax, [rdi + 4]",
    "mov edx, [rdi]",
    "cmp edx, eax",
    "adc ebx, 0",
    "cmp qword ptr [rsi], 0",
    "je 31b",
    "hlt"
);
guest!(
    low_then_high,
    "xor ebx, ebx",
    "31: mov eax, [rdi]",
    "mov edx, [rdi + 4]",
    "cmp edx, eax",
    "adc ebx, 0",
    "cmp qword ptr [rsi], 0",
    "je 31b",
    "hlt"
);
// Plain stores to the upper half, in units that the other processor's additions
// (of one) do not reach: none may be lost.
guest!(
    store,
    "xor ebx, ebx",
    "xor eax, eax",
    "31: mov edx, [rdi + 4]",
    "xor edx, eax",
    "shr edx, 20",
    "cmp edx, 1",
    "sbb ebx, -1",
    "add eax, 0x100000",
    "mov [rdi + 4], eax",
    "cmp qword ptr [rsi], 0",
    "je 31b",
    "hlt"
);
// Increments of a word of its own, and locked ones of the common word.
guest!(busy, "31: inc qword ptr [r8]", "lock add [rdi], rax", "dec ecx", "jnz 31b", "hlt");

fn world(codes: &[&[u8]], addend: u64, rounds: u64) -> World {
    let mut w = World::with_cpus(codes);
    for (id, engine) in w.engines.iter_mut().enumerate() {
        let regs = &mut engine.cpu.s.regs;
        regs.set(gpr::RDI, SPLIT);
        regs.set(gpr::RSI, DONE);
        regs.set(gpr::RAX, addend);
        regs.set(gpr::RCX, rounds);
        regs.set(gpr::R8, DONE + 64 * (id as u64 + 1));
    }
    w
}

/// One test at a time: the host's processors are for the guest's.
static HOST: Mutex<()> = Mutex::new(());

/// Runs every processor on a thread of its own until all have halted, asking
/// all of them for their attention as long as `disturb`.
fn run_all(w: &mut World, disturb: bool) {
    let _host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let over = AtomicBool::new(false);
    let start = Barrier::new(w.engines.len());
    let shared: Vec<_> = w.engines.iter().map(|e| e.cpu.shared.clone()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = w
            .engines
            .iter_mut()
            .map(|engine| {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..1_000_000 {
                        match World::run_engine(engine, 20_000) {
                            Ended::Halt => return,
                            Ended::Budget => std::thread::yield_now(),
                            other => panic!("{other:?}"),
                        }
                    }
                    panic!("a processor did not finish");
                })
            })
            .collect();
        if disturb {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    shared.iter().for_each(|one| one.request(request::EXIT | request::CODE));
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
        }
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok));
    });
}

#[test]
fn plain_loads_see_both_halves_or_neither() {
    sdm("vol. 3A, \"Bus Locking\": a locked operation is atomic whatever its alignment");
    let locked: [(&str, &[u8]); 3] = [("add", add()), ("xchg", exchange()), ("cmpxchg8b", compare_8())];
    for (name, code) in locked {
        let mut w = world(&[code, high_then_low(), low_then_high()], 0x1_0000_0001, ROUNDS);
        run_all(&mut w, false);
        assert_eq!(w.read64(SPLIT), ROUNDS << 32 | ROUNDS, "{name}");
        let torn = [1, 2].map(|id: usize| w.engines[id].cpu.s.regs.get(gpr::RBX));
        assert_eq!(torn, [0, 0], "{name}: torn values seen");
    }
}

#[test]
fn plain_stores_are_not_lost() {
    sdm("vol. 3A, \"Bus Locking\": no other processor's access falls into a locked operation");
    for code in [add(), exchange_add()] {
        let mut w = world(&[code, store()], 1 << 32, ROUNDS);
        run_all(&mut w, false);
        assert_eq!(w.engines[1].cpu.s.regs.get(gpr::RBX), 0, "stores were lost");
    }
}

#[test]
fn processors_that_all_lock_the_bus_all_advance() {
    const CPUS: u64 = 8;
    const EACH: u64 = 2_000;
    let mut w = world(&[busy(); CPUS as usize], 0x1_0000_0001, EACH);
    run_all(&mut w, true);
    assert_eq!(w.read64(SPLIT), ((CPUS * EACH) << 32) | (CPUS * EACH));
    for id in 1..=CPUS {
        assert_eq!(w.read64(DONE + 64 * id), EACH);
    }
}

#[test]
fn processors_that_wait_hold_nobody_up() {
    // The second has halted and waits, the third is not run at all.
    let mut w = world(&[add(), &[0xf4], &[0xf4]], 0x1_0000_0001, ROUNDS);
    let [first, second, _] = &mut w.engines[..] else { panic!("three processors") };
    assert_eq!(second.run(10), Exit::Idle);
    let waiting = second.cpu.shared.clone();
    let mask = second.cpu.wake_mask();
    std::thread::scope(|scope| {
        scope.spawn(|| waiting.wait(mask, None));
        assert_eq!(World::run_engine(first, 10 * ROUNDS), Ended::Halt);
        waiting.request(request::EXIT);
    });
    assert_eq!(w.read64(SPLIT), ROUNDS << 32 | ROUNDS);
}

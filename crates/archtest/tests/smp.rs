//! Several processors: atomics, memory ordering.

use arch::regs::gpr;
use archtest::{DATA, Ended, World, guest, sdm};

guest!(locked_add, "31: lock add qword ptr [rdi], 1", "dec ecx", "jnz 31b", "hlt");
guest!(exchange_add, "mov eax, 1", "2: mov rbx, 1", "lock xadd [rdi], rbx", "dec ecx", "jnz 2b", "hlt");
guest!(
    compare_exchange,
    "3: mov rax, [rdi]",
    "4: lea rbx, [rax + 1]",
    "lock cmpxchg [rdi], rbx",
    "jne 4b",
    "dec ecx",
    "jnz 3b",
    "hlt"
);
guest!(
    spin_lock,
    "5: mov eax, 1",
    "xchg [rdi + 64], eax",
    "test eax, eax",
    "jnz 5b",
    "inc qword ptr [rdi]",
    "mov dword ptr [rdi + 64], 0",
    "dec ecx",
    "jnz 5b",
    "hlt"
);
guest!(
    wide,
    "6: mov rax, [rdi]",
    "mov rdx, [rdi + 8]",
    "7: lea rbx, [rax + 1]",
    "lea rcx, [rdx + 1]",
    "lock cmpxchg16b [rdi]",
    "jne 7b",
    "dec esi",
    "jnz 6b",
    "hlt"
);

/// Runs all processors on threads of their own until each has halted.
fn run_all(w: &mut World) {
    std::thread::scope(|scope| {
        for engine in &mut w.engines {
            scope.spawn(move || {
                for _ in 0..100_000 {
                    match World::run_engine(engine, 20_000) {
                        Ended::Halt => return,
                        Ended::Budget => std::thread::yield_now(),
                        other => panic!("{other:?}"),
                    }
                }
                panic!("a processor did not finish");
            });
        }
    });
}

#[test]
fn locked_operations_lose_nothing() {
    sdm("vol. 3A §8.1.2.2: software-controlled bus locking");
    for code in [locked_add(), exchange_add(), compare_exchange(), spin_lock()] {
        // Inside a line, across lines, across pages.
        for offset in [0, 60, 0xffc] {
            if code == spin_lock() && offset == 0xffc {
                continue; // its plain INC needs a lock that covers it alone
            }
            let mut w = World::with_cpus(&[code; 4]);
            for engine in &mut w.engines {
                engine.cpu.s.regs.set(gpr::RDI, DATA + offset);
                engine.cpu.s.regs.set(gpr::RCX, 20_000);
            }
            run_all(&mut w);
            assert_eq!(w.read64(DATA + offset), 80_000);
        }
    }
}

#[test]
fn cmpxchg16b_is_one_operation() {
    sdm("vol. 2A, CMPXCHG16B");
    let mut w = World::with_cpus(&[wide(); 4]);
    for engine in &mut w.engines {
        engine.cpu.s.regs.set(gpr::RDI, DATA);
        engine.cpu.s.regs.set(gpr::RSI, 20_000);
    }
    run_all(&mut w);
    assert_eq!((w.read64(DATA), w.read64(DATA + 8)), (80_000, 80_000));
}

// Litmus tests. Both sides repeat the pattern on fresh cells and record what
// they saw; RDI walks the cells (128 bytes each), R8 the results.
guest!(
    mp_write,
    "31: mov qword ptr [rdi], 1",
    "mov qword ptr [rdi + 64], 1",
    "add rdi, 128",
    "dec ecx",
    "jnz 31b",
    "hlt"
);
guest!(
    mp_read,
    "31: mov rax, [rdi + 64]",
    "mov rbx, [rdi]",
    "mov [r8], rax",
    "mov [r8 + 8], rbx",
    "add rdi, 128",
    "add r8, 16",
    "dec ecx",
    "jnz 31b",
    "hlt"
);
guest!(
    sb_left,
    "31: mov qword ptr [rdi], 1",
    "mfence",
    "mov rax, [rdi + 64]",
    "mov [r8], rax",
    "add rdi, 128",
    "add r8, 16",
    "dec ecx",
    "jnz 31b",
    "hlt"
);
guest!(
    sb_right,
    "31: mov qword ptr [rdi + 64], 1",
    "mfence",
    "mov rax, [rdi]",
    "mov [r8 + 8], rax",
    "add rdi, 128",
    "add r8, 16",
    "dec ecx",
    "jnz 31b",
    "hlt"
);
guest!(
    lb_left,
    "31: mov rax, [rdi]",
    "mov qword ptr [rdi + 64], 1",
    "mov [r8], rax",
    "add rdi, 128",
    "add r8, 16",
    "dec ecx",
    "jnz 31b",
    "hlt"
);
guest!(
    lb_right,
    "31: mov rax, [rdi + 64]",
    "mov qword ptr [rdi], 1",
    "mov [r8 + 8], rax",
    "add rdi, 128",
    "add r8, 16",
    "dec ecx",
    "jnz 31b",
    "hlt"
);

const CELLS: u64 = 0x40_0000;
const RESULTS: u64 = 0x60_0000;
const ROUNDS: u64 = 16_000;

fn litmus(codes: &[&[u8]], forbidden: impl Fn(u64, u64) -> bool) {
    let mut w = World::with_cpus(codes);
    for engine in &mut w.engines {
        let regs = &mut engine.cpu.s.regs;
        regs.set(gpr::RDI, CELLS);
        regs.set(gpr::R8, RESULTS);
        regs.set(gpr::RCX, ROUNDS);
    }
    run_all(&mut w);
    for round in 0..ROUNDS {
        let at = RESULTS + 16 * round;
        let (a, b) = (w.read64(at), w.read64(at + 8));
        assert!(!forbidden(a, b), "round {round}: ({a}, {b})");
    }
}

#[test]
fn stores_are_seen_in_order() {
    sdm("vol. 3A §8.2.3.2: neither loads nor stores are reordered with like operations");
    litmus(&[mp_write(), mp_read()], |flag, data| flag == 1 && data == 0);
}

#[test]
fn fenced_stores_precede_loads() {
    sdm("vol. 3A §8.2.3.4 with MFENCE: not both loads may miss the other's store");
    litmus(&[sb_left(), sb_right()], |a, b| a == 0 && b == 0);
}

#[test]
fn stores_do_not_pass_earlier_loads() {
    sdm("vol. 3A §8.2.3.3");
    litmus(&[lb_left(), lb_right()], |a, b| a == 1 && b == 1);
}

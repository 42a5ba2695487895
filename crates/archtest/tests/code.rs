//! Self-modifying and cross-modifying code.

use std::sync::atomic::{AtomicBool, Ordering};

use arch::regs::gpr;
use archtest::{CODE, DATA, Ended, World, guest, sdm};

// Changes `mov eax, 1` three instructions ahead to `mov eax, 2`, in the same block.
guest!(ahead, "mov byte ptr [rip + 5f + 1], 2", "nop", "nop", "5: mov eax, 1", "hlt");
// A loop whose body rewrites its own immediate each time round.
guest!(
    counting,
    "xor ebx, ebx",
    "mov ecx, 1000",
    "6: mov eax, 0",
    "add rbx, rax",
    "inc dword ptr [rip + 6b + 1]",
    "dec ecx",
    "jnz 6b",
    "hlt"
);
// Calls a function at RDI until it returns 2.
guest!(call_until_two, "7: call rdi", "cmp eax, 2", "jne 7b", "hlt");
// Rewrites the function's immediate from another processor.
guest!(patcher, "mov ecx, 20000", "8: dec ecx", "jnz 8b", "mov byte ptr [rdi + 1], 2", "hlt");

#[test]
fn a_store_ahead_in_the_same_block_is_seen() {
    sdm("vol. 3A §8.1.3, §11.6: self-modifying code");
    let mut w = World::new(ahead());
    assert_eq!(w.run(100), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RAX), 2);
}

#[test]
fn a_loop_may_rewrite_itself() {
    sdm("vol. 3A §11.6");
    let mut w = World::new(counting());
    assert_eq!(w.run(100_000), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RBX), 999 * 1000 / 2);
}

#[test]
fn code_changed_through_another_address_is_seen() {
    sdm("vol. 3A §11.6: by physical address");
    let mut w = World::new(ahead());
    // The code's page also appears at DATA; the store goes there.
    w.write64(World::pte(DATA), CODE | 3);
    guest!(aliased, "mov byte ptr [rdi + 9], 2", "nop", "nop", "nop", "nop", "mov eax, 1", "hlt");
    w.write(CODE, aliased());
    w.cpu().s.regs.set(gpr::RDI, DATA);
    assert_eq!(w.run(100), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RAX), 2);
}

#[test]
fn a_device_write_to_code_is_seen() {
    sdm("vol. 3A §11.6: snooped writes");
    guest!(spin, "9: mov eax, 1", "cmp eax, 2", "jne 9b", "hlt");
    let mut w = World::new(spin());
    assert_eq!(w.run(1000), Ended::Budget);
    w.write(CODE + 1, &[2]);
    assert_eq!(w.run(1000), Ended::Halt);
}

#[test]
fn another_processors_write_to_code_is_seen() {
    sdm("vol. 3A §8.1.3: cross-modifying code");
    for _ in 0..20 {
        let mut w = World::with_cpus(&[call_until_two(), patcher()]);
        w.write(DATA, &[0xb8, 1, 0, 0, 0, 0xc3]); // mov eax, 1; ret
        for engine in &mut w.engines {
            engine.cpu.s.regs.set(gpr::RDI, DATA);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for engine in &mut w.engines {
                let done = &done;
                scope.spawn(move || {
                    // Far more than enough once the patch is there.
                    for _ in 0..20_000 {
                        if World::run_engine(engine, 10_000) == Ended::Halt {
                            return;
                        }
                    }
                    done.store(true, Ordering::SeqCst);
                });
            }
        });
        assert!(!done.load(Ordering::SeqCst), "the old code ran on");
    }
}

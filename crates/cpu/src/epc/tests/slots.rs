//! Pages that come and go, while fewer have plaintext than are in use.

use super::*;

/// Code that adds one to the first word of each heap page, RCX times.
fn increments() -> Vec<u8> {
    let mut code = vec![0x48, 0x89, 0xd6]; // outer: mov rsi, rdx
    code.extend([0xbf]); // mov edi, pages
    code.extend((HEAP_PAGES as u32).to_le_bytes());
    code.extend([0xf0, 0x48, 0xff, 0x06]); // inner: lock inc qword [rsi]
    code.extend([0x48, 0x81, 0xc6, 0, 0x10, 0, 0]); // add rsi, 4096
    code.extend([0xff, 0xcf, 0x75, 0xf1]); // dec edi; jnz inner
    code.extend([0xff, 0xc9, 0x75, 0xe5]); // dec ecx; jnz outer
    code.extend([0x0f, 0x0b]);
    code
}

#[test]
fn more_pages_than_slots_come_and_go() {
    let mut w = World::new(Model::xeon_8370c(), 1, 16);
    w.enter(&increments());
    w.cpu().s.regs.set(gpr::RCX, 50);
    w.cpu().s.regs.set(gpr::RDX, at(HEAP));
    assert_eq!(w.vector(), 6);
    for page in HEAP..HEAP + HEAP_PAGES {
        assert_eq!(w.content64(page, 0), 50, "page {page}");
    }
    let stats = w.package.dram.stats();
    assert!(stats.write_backs > 100, "{stats:?}");
}

/// Two processors in front of `rounds` rounds each, with 16 slots.
fn two_that_increment(rounds: u64) -> World {
    let mut w = World::new(Model::xeon_8370c(), 2, 16);
    w.put(CODE, 0, &increments());
    for processor in 0..2 {
        w.enter_at(processor, at(CODE), false);
        let regs = &mut w.engines[processor].cpu.s.regs;
        regs.set(gpr::RCX, rounds);
        regs.set(gpr::RDX, at(HEAP));
    }
    w
}

#[test]
fn processors_share_an_enclave_while_its_pages_come_and_go() {
    const ROUNDS: u64 = 200;
    let mut w = two_that_increment(ROUNDS);
    let engines = std::mem::take(&mut w.engines);
    std::thread::scope(|scope| {
        for mut engine in engines {
            scope.spawn(move || {
                // In slices: between them the processor counts as idle.
                for _ in 0..1_000_000 {
                    match engine.run(5000) {
                        Exit::Budget => {}
                        Exit::Idle => return,
                        other => panic!("{other:?}"),
                    }
                }
                panic!("no end");
            });
        }
    });
    for page in HEAP..HEAP + HEAP_PAGES {
        assert_eq!(w.content64(page, 0), 2 * ROUNDS, "page {page}");
    }
    assert!(w.package.dram.stats().write_backs > 100);
}

/// A processor that is idle between slices is not waited for: it must notice
/// by itself that slots have gone.
#[test]
fn slots_go_while_a_processor_is_idle() {
    const ROUNDS: u64 = 30;
    let mut w = two_that_increment(ROUNDS);
    let mut ends = [None; 2];
    for turn in 0..100_000 {
        let processor = turn % 2;
        let engine = &mut w.engines[processor];
        let slice = if processor == 0 { 37 } else { 1000 };
        if ends[processor].is_none() && engine.run(slice) == Exit::Idle {
            ends[processor] = Some(engine.cpu.s.rip - 1);
        }
    }
    assert_eq!(ends, [Some(handler(6)); 2]);
    for page in HEAP..HEAP + HEAP_PAGES {
        assert_eq!(w.content64(page, 0), 2 * ROUNDS, "page {page}");
    }
}

//! Blocks against the same instructions one at a time.

use std::sync::{Arc, Mutex};

use arch::descriptor::Attr;
use arch::regs::{Cr0, Efer, dr6, gpr, rflags};
use mem::Ram;

use crate::bus::NoBus;
use crate::{Cpu, Engine, Exit, Model, Shared};

const CODE: u64 = 0x4000;
const STACK: u64 = 0x8000;

/// A machine in 64-bit mode without paging, about to execute `code` and HLT.
fn engine(code: &[u8]) -> Engine {
    let ram = Ram::new(&[(0, 0x10000)]).unwrap();
    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    let mut cpu = Cpu::new(0, Arc::new(Model::xeon_8370c()), ram, Arc::new(NoBus::default()), shared);
    cpu.s.efer = Efer::LMA | Efer::LME;
    cpu.s.seg[1].attr = Attr::CODE64;
    cpu.s.seg[1].base = 0;
    cpu.s.cr0 = Cr0::PE | Cr0::NE | Cr0::ET;
    cpu.s.rip = CODE;
    cpu.s.regs.set(gpr::RSP, STACK);
    cpu.update_rights();
    assert!(cpu.ram.write(CODE, code));
    assert!(cpu.ram.write(CODE + code.len() as u64, &[0xf4]));
    Engine::new(cpu)
}

/// Registers, RIP, flags and the count of instructions when the machine halts.
fn result(engine: &mut Engine) -> ([u64; 16], u64, u64, u64) {
    for _ in 0..1000 {
        if engine.run(1000) == Exit::Idle {
            let s = &engine.cpu.s;
            let regs = std::array::from_fn(|n| s.regs.get(n));
            return (regs, s.rip, s.rflags() & !(rflags::RF | rflags::TF), engine.cpu.retired);
        }
    }
    panic!("does not halt");
}

/// The same in single steps: a breakpoint that nothing meets is set, which
/// makes the engine execute one instruction at a time.
fn in_steps(mut engine: Engine) -> ([u64; 16], u64, u64, u64) {
    engine.cpu.s.dr7 |= 1;
    engine.cpu.s.dr[0] = 0xf000;
    let result = result(&mut engine);
    assert_eq!(engine.cpu.s.dr6, dr6::FIXED, "the breakpoint was met");
    result
}

#[test]
fn a_comparison_and_its_branch_do_what_each_does_alone() {
    const VALUES: [u64; 7] = [0, 1, 0x7f, 0x80, 0x7fff_ffff, 0x8000_0000_0000_0000, u64::MAX];
    // cmp and test of rax and rbx, and of rax and an immediate, in three widths.
    let compares: [&[u8]; 12] = [
        &[0x38, 0xd8],
        &[0x39, 0xd8],
        &[0x48, 0x39, 0xd8],
        &[0x84, 0xd8],
        &[0x85, 0xd8],
        &[0x48, 0x85, 0xd8],
        &[0x3c, 0x7f],
        &[0x83, 0xf8, 0xff],
        &[0x48, 0x83, 0xf8, 0x01],
        &[0xa8, 0x80],
        &[0xf7, 0xc0, 0, 0, 0, 0x80],
        &[0x48, 0xf7, 0xc0, 0, 0, 0, 0x80],
    ];
    for compare in compares {
        for condition in 0..16u8 {
            // compare; jcc over "inc ecx"; inc edx
            let code = [compare, &[0x70 | condition, 2, 0xff, 0xc1, 0xff, 0xc2]].concat();
            for a in VALUES {
                for b in VALUES {
                    let machine = || {
                        let mut engine = engine(&code);
                        engine.cpu.s.regs.set(gpr::RAX, a);
                        engine.cpu.s.regs.set(gpr::RBX, b);
                        engine
                    };
                    assert_eq!(result(&mut machine()), in_steps(machine()), "{code:x?} {a:x} {b:x}");
                }
            }
        }
    }
}

#[test]
fn memory_is_reached_in_the_fast_way_as_in_the_full() {
    // Store, load, add to memory, compare with it, push, pop and call, each
    // twice: the first finds no translation, the second does.
    let code = [
        &[0xb9, 2, 0, 0, 0][..],   // mov ecx, 2
        &[0x48, 0x89, 0x03],       // top: mov [rbx], rax
        &[0x0f, 0xb6, 0x53, 0x01], // movzx edx, byte [rbx + 1]
        &[0x48, 0x01, 0x0c, 0xcb], // add [rbx + rcx * 8], rcx
        &[0x48, 0x03, 0x33],       // add rsi, [rbx]
        &[0x66, 0xff, 0x43, 0x02], // inc word [rbx + 2]
        &[0x50, 0x5f],             // push rax; pop rdi
        &[0xe8, 0x05, 0, 0, 0],    // call next
        &[0xff, 0xc9, 0x75, 0xe3], // dec ecx; jnz top
        &[0xf4],                   // hlt
        &[0x49, 0x01, 0xc0, 0xc3], // next: add r8, rax; ret
    ]
    .concat();
    let machine = || {
        let mut engine = engine(&code);
        engine.cpu.s.regs.set(gpr::RAX, 0x1122_3344_5566_7788);
        engine.cpu.s.regs.set(gpr::RBX, 0x9000);
        engine
    };
    let mut blocks = machine();
    let done = result(&mut blocks);
    assert_eq!(done, in_steps(machine()));
    assert_eq!(done.0[8], 0x2244_6688_aacc_ef10, "both turns called");
    let mut bytes = [0; 8];
    assert!(blocks.cpu.ram.read(0x9000, &mut bytes));
    assert_eq!(u64::from_le_bytes(bytes), 0x1122_3344_5567_7788);
}

#[test]
fn a_block_left_in_its_midst_has_counted_what_it_did() {
    // The store changes the last instruction of its own block, INC ECX, to INC EDX.
    let code = [
        0x31, 0xc9, 0x31, 0xd2, // xor ecx, ecx; xor edx, edx
        0xc6, 0x05, 0x01, 0, 0, 0, 0xc2, // mov byte [rip + 1], c2
        0xff, 0xc1, // inc ecx
    ];
    let mut engine = engine(&code);
    let (regs, _, _, retired) = result(&mut engine);
    assert_eq!((regs[gpr::RCX], regs[gpr::RDX], retired), (0, 1, 5));
}

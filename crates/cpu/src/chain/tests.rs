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
    ram.code().set_listeners(vec![shared.clone()]);
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
fn an_operation_and_its_branch_do_what_each_does_alone() {
    const VALUES: [u64; 5] = [1, 0x7f, 0x8000_0000, 0x8000_0000_0000_0000, u64::MAX];
    const MEMORY: u64 = 0x9000;
    let operations: [&[u8]; 32] = [
        // cmp and test of rax and rbx, and of rax and an immediate, in three widths
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
        // cmp and test with memory: [rsi + disp], [rsi + rdi * 8 + disp]
        &[0x3a, 0x06],
        &[0x39, 0x46, 0x08],
        &[0x48, 0x3b, 0x06],
        &[0x48, 0x3b, 0x44, 0xfe, 0x08],
        &[0x80, 0x3e, 0x7f],
        &[0x83, 0x7e, 0x08, 0xff],
        &[0x48, 0x83, 0x3c, 0xfe, 0x01],
        &[0x84, 0x06],
        &[0x48, 0x85, 0x06],
        &[0xf7, 0x44, 0xfe, 0x08, 0, 0, 0, 0x80],
        // add, sub, and, inc, dec
        &[0x00, 0xd8],
        &[0x01, 0xd8],
        &[0x48, 0x83, 0xc0, 0x01],
        &[0x29, 0xd8],
        &[0x48, 0x29, 0xd8],
        &[0x48, 0x83, 0xe8, 0x01],
        &[0x83, 0xe0, 0x80],
        &[0xff, 0xc0],
        &[0x48, 0xff, 0xc8],
        &[0xfe, 0xcc],
    ];
    for operation in operations {
        for condition in 0..16u8 {
            // twice, as the first finds no translation: operation; jcc over "inc ecx"; inc edx
            let once = [operation, &[0x70 | condition, 2, 0xff, 0xc1, 0xff, 0xc2]].concat();
            let code = once.repeat(2);
            for a in VALUES {
                for b in VALUES {
                    let machine = || {
                        let mut engine = engine(&code);
                        engine.cpu.s.regs.set(gpr::RAX, a);
                        engine.cpu.s.regs.set(gpr::RBX, b);
                        engine.cpu.s.regs.set(gpr::RSI, MEMORY);
                        for at in [0, 8] {
                            assert!(engine.cpu.ram.write(MEMORY + at, &b.to_le_bytes()));
                        }
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
fn a_move_and_what_follows_do_what_each_does_alone() {
    const VALUES: [u64; 5] = [0, 1, 0x7fff_ffff, 0x8000_0000_8000_0001, u64::MAX];
    // mov rax, rbx or mov eax, ebx; then one or two of these, with their flags seen or not.
    let operations: [&[u8]; 20] = [
        &[0x01, 0xc8],                   // add eax, ecx
        &[0x48, 0x29, 0xc8],             // sub rax, rcx
        &[0x48, 0x83, 0xe0, 0x7f],       // and rax, 0x7f
        &[0x83, 0xf0, 0xff],             // xor eax, -1
        &[0x48, 0x09, 0xc8],             // or rax, rcx
        &[0x48, 0x01, 0xc0],             // add rax, rax
        &[0x48, 0x39, 0xc8],             // cmp rax, rcx
        &[0x11, 0xc8],                   // adc eax, ecx
        &[0x48, 0x19, 0xc8],             // sbb rax, rcx
        &[0xc1, 0xe0, 0x05],             // shl eax, 5
        &[0x48, 0xc1, 0xe8, 0x07],       // shr rax, 7
        &[0xd1, 0xf8],                   // sar eax, 1
        &[0x48, 0xc1, 0xc8, 0x0d],       // ror rax, 13
        &[0xc1, 0xc0, 0x20],             // rol eax, 32
        &[0x48, 0xd1, 0xd0],             // rcl rax, 1
        &[0x48, 0xff, 0xc0],             // inc rax
        &[0xf7, 0xd8],                   // neg eax
        &[0x89, 0xc8],                   // mov eax, ecx
        &[0x48, 0x8d, 0x44, 0xc8, 0x05], // lea rax, [rax + rcx * 8 + 5]
        &[0x48, 0xf7, 0xe1],             // mul rcx
    ];
    for mov in [&[0x48, 0x89, 0xd8][..], &[0x89, 0xd8]] {
        for first in operations {
            for second in operations {
                // and then: pushfq; pop rdx; add ecx, eax
                let code = [mov, first, second, &[0x9c, 0x5a, 0x01, 0xc1]].concat();
                for b in VALUES {
                    for (c, flags) in [(3, 0), (u64::MAX, rflags::STATUS)] {
                        let machine = || {
                            let mut engine = engine(&code);
                            engine.cpu.s.regs.set(gpr::RAX, 0x1234_5678_9abc_def0);
                            engine.cpu.s.regs.set(gpr::RBX, b);
                            engine.cpu.s.regs.set(gpr::RCX, c);
                            engine.cpu.set_rflags(flags, rflags::STATUS);
                            engine
                        };
                        let steps = in_steps(machine());
                        assert_eq!(result(&mut machine()), steps, "{code:x?} {b:x} {c:x}");
                    }
                }
            }
        }
    }
}

#[test]
fn blocks_follow_one_another_as_single_steps_do() {
    // Indirect branches to three places in turn, calls to another page and back,
    // for more instructions than a chain has.
    let mut code = vec![0xf4; 0x1100];
    let mut put = |at: usize, bytes: &[u8]| code[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &[0xb9, 0, 1, 0, 0]); // mov ecx, 256
    put(0x05, &[0x89, 0xc8]); // top: mov eax, ecx
    put(0x07, &[0x31, 0xd2, 0xf7, 0xf3]); // xor edx, edx; div ebx (3)
    put(0x0b, &[0xff, 0x24, 0xd6]); // jmp [rsi + rdx * 8]
    put(0x20, &[0x49, 0xff, 0xc0, 0xe8, 0xd8, 0x0f, 0, 0]); // inc r8; call 0x1000
    put(0x28, &[0xeb, 0x1e]); // jmp 0x48
    put(0x30, &[0x49, 0xff, 0xc1, 0xe8, 0xc8, 0x0f, 0, 0]); // inc r9; call 0x1000
    put(0x38, &[0xeb, 0x0e]); // jmp 0x48
    put(0x40, &[0x49, 0xff, 0xc2]); // inc r10
    put(0x48, &[0xff, 0xc9, 0x75, 0xb9, 0xf4]); // dec ecx; jnz top; hlt
    put(0x1000, &[0x4d, 0x01, 0xc3, 0xeb, 0xfa]); // add r11, r8; jmp 0xfff
    put(0xfff, &[0xc3]); // ret, one byte before the page
    put(0x43, &[0x90, 0x90, 0x90, 0x90, 0x90]);
    let machine = || {
        let mut engine = engine(&code);
        engine.cpu.s.regs.set(gpr::RBX, 3);
        engine.cpu.s.regs.set(gpr::RSI, 0x9000);
        for (i, target) in [0x20, 0x30, 0x40].into_iter().enumerate() {
            assert!(engine.cpu.ram.write(0x9000 + i as u64 * 8, &(CODE + target).to_le_bytes()));
        }
        engine
    };
    let done = result(&mut machine());
    assert_eq!(done, in_steps(machine()));
    assert_eq!(done.0[8..11], [85, 86, 85]);
}

#[test]
fn code_that_a_loop_changes_is_executed_as_changed() {
    // In a block that is linked, in its own page, and in one of another page: each
    // turn of the loop adds to what the instructions add.
    let mut code = vec![0xf4; 0x1100];
    let mut put = |at: usize, bytes: &[u8]| code[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &[0xb9, 20, 0, 0, 0]); // mov ecx, 20
    put(0x05, &[0xeb, 0x19]); // top: jmp 0x20
    put(0x20, &[0x83, 0xc0, 0x00, 0xeb, 0x1b]); // add eax, 0; jmp 0x40
    put(0x40, &[0xe8, 0xbb, 0x0f, 0, 0]); // call 0x1000
    put(0x45, &[0xfe, 0x05, 0xd7, 0xff, 0xff, 0xff]); // inc byte [rip - 0x29]: at 0x22
    put(0x4b, &[0xfe, 0x05, 0xb1, 0x0f, 0, 0]); // inc byte [rip + 0xfb1]: at 0x1002
    put(0x51, &[0xff, 0xc9, 0x75, 0xb0, 0xf4]); // dec ecx; jnz top; hlt
    put(0x1000, &[0x83, 0xc2, 0x00, 0xc3]); // add edx, 0; ret
    let machine = || {
        let mut engine = engine(&code);
        engine.cpu.s.regs.set(gpr::RDX, 0);
        engine
    };
    let done = result(&mut machine());
    assert_eq!(done, in_steps(machine()));
    assert_eq!((done.0[gpr::RAX], done.0[gpr::RDX]), (190, 190));
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

//! Whole processors on a few pages of memory: events, privilege changes and
//! modes. The handler of every vector is HLT, so a run ends in the handler.

use std::sync::{Arc, Mutex};

use arch::descriptor::{Attr, Descriptor};
use arch::paging::pte;
use arch::regs::{Cr0, Cr4, Efer, gpr, rflags};
use mem::Ram;

use crate::bus::NoBus;
use crate::shared::request;
use crate::state::{Segment, TableRegister};
use crate::{Activity, Cpu, Engine, Exit, Model, Shared};

const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const HANDLERS: u64 = 0x8000;
const KERNEL: u64 = 0x10000;
const STACK: u64 = 0x20000;
const STACK0: u64 = 0x28000;
const STACK_IST1: u64 = 0x30000;
const USER: u64 = 0x20_0000;
const USER_STACK: u64 = 0x21_0000;
/// Mapped for user mode, read-only.
const READ_ONLY: u64 = 0x60_0000;
/// Not mapped.
const HOLE: u64 = 0x80_0000;

const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const CODE32: u16 = 0x1b;
const DATA3: u16 = 0x23;
const CODE3: u16 = 0x2b;
const TSS_SELECTOR: u16 = 0x30;
const GATE: u16 = 0x43;
const ABSENT: u16 = 0x50;

fn write64(ram: &Ram, at: u64, value: u64) {
    assert!(ram.write(at, &value.to_le_bytes()));
}

fn read64(ram: &Ram, at: u64) -> u64 {
    let mut bytes = [0; 8];
    assert!(ram.read(at, &mut bytes));
    u64::from_le_bytes(bytes)
}

fn gate(handler: u64, selector: u16, ist: u64, kind: u64, dpl: u64) -> [u64; 2] {
    let low = handler & 0xffff
        | u64::from(selector) << 16
        | ist << 32
        | kind << 40
        | dpl << 45
        | 1 << 47
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

fn set_gate(ram: &Ram, vector: u64, gate: [u64; 2]) {
    write64(ram, IDT + vector * 16, gate[0]);
    write64(ram, IDT + vector * 16 + 8, gate[1]);
}

fn handler(vector: u64) -> u64 {
    HANDLERS + vector * 16
}

fn bare(id: usize) -> Engine {
    let ram = Ram::new(&[(0, 16 << 20)]).unwrap();
    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    ram.code().set_listeners(vec![shared.clone()]);
    let model = Arc::new(Model::xeon_8370c());
    Engine::new(Cpu::new(id, model, ram, Arc::new(NoBus::default()), shared))
}

/// In 64-bit mode at CPL 0, about to execute `code` at [`KERNEL`].
fn kernel(code: &[u8]) -> Engine {
    let mut engine = bare(0);
    let cpu = &mut engine.cpu;
    let ram = cpu.ram.clone();
    let all = pte::P | pte::W | pte::U;
    write64(&ram, 0x1000, 0x2000 | all);
    write64(&ram, 0x2000, 0x3000 | all);
    write64(&ram, 0x3000, pte::P | pte::W | pte::PS);
    write64(&ram, 0x3008, USER | all | pte::PS);
    write64(&ram, 0x3010, 0x40_0000 | pte::P | pte::W | pte::PS | pte::NX);
    write64(&ram, 0x3018, READ_ONLY | pte::P | pte::U | pte::PS);

    let code_attr = |dpl: u32, size: u32| Attr(0x0080_9b00 | dpl << 13 | size);
    let descriptors = [
        (CODE0, code_attr(0, 1 << 21)),
        (DATA0, Attr(0x00c0_9300)),
        (CODE32, code_attr(3, 1 << 22)),
        (DATA3, Attr(0x00c0_f300)),
        (CODE3, code_attr(3, 1 << 21)),
        (ABSENT, Attr(0x00c0_1300)),
    ];
    for (selector, attr) in descriptors {
        write64(&ram, GDT + u64::from(selector & !7), Descriptor::new(0, 0xf_ffff, attr).0);
    }
    write64(&ram, GDT + 0x30, Descriptor::new(TSS as u32, 0x67, Attr(0x8900)).0);
    write64(&ram, TSS + 4, STACK0);
    write64(&ram, TSS + 36, STACK_IST1);
    for vector in 0..256 {
        let dpl = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
        set_gate(&ram, vector, gate(handler(vector), CODE0, 0, 14, dpl));
        ram.write(handler(vector), &[0xf4, 0xf4]);
    }
    ram.write(KERNEL, code);

    let s = &mut cpu.s;
    s.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::NE | Cr0::ET;
    s.cr4 = Cr4::PAE | Cr4::OSFXSR;
    s.cr3 = 0x1000;
    s.efer = Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE;
    s.gdtr = TableRegister { base: GDT, limit: 0x57 };
    s.idtr = TableRegister { base: IDT, limit: 0xfff };
    s.tr = Segment { selector: TSS_SELECTOR, attr: Attr::TSS_BUSY, limit: 0x67, base: TSS };
    s.rip = KERNEL;
    s.regs.set(gpr::RSP, STACK);
    cpu.set_segment_from_gdt(arch::regs::Seg::Ss, DATA0).unwrap();
    cpu.set_segment_from_gdt(arch::regs::Seg::Cs, CODE0).unwrap();
    cpu.s.msr.star = u64::from(CODE0) << 32 | u64::from(CODE32 & !3) << 48;
    cpu.flush_all();
    cpu.control_changed();
    engine
}

/// The same at CPL 3, at [`USER`].
fn user(code: &[u8]) -> Engine {
    let mut engine = kernel(&[]);
    let cpu = &mut engine.cpu;
    cpu.ram.write(USER, code);
    cpu.set_segment_from_gdt(arch::regs::Seg::Ss, DATA3).unwrap();
    cpu.set_segment_from_gdt(arch::regs::Seg::Cs, CODE3).unwrap();
    cpu.s.rip = USER;
    cpu.s.regs.set(gpr::RSP, USER_STACK);
    cpu.s.rflags |= rflags::IF;
    engine
}

/// Runs until HLT; the address of the HLT.
fn run(engine: &mut Engine) -> u64 {
    assert_eq!(engine.run(10_000), Exit::Idle);
    assert_eq!(engine.cpu.activity, Activity::Halted);
    engine.cpu.s.rip - 1
}

/// What the handler finds on its stack, from RSP up.
fn frame<const N: usize>(engine: &Engine) -> [u64; N] {
    let rsp = engine.cpu.s.regs.get(gpr::RSP);
    std::array::from_fn(|i| read64(&engine.cpu.ram, rsp + 8 * i as u64))
}

/// *SDM vol. 3A §6.14.2–6.14.4*: from user mode RSP comes from the TSS, SS is
/// null, five words and no error code.
#[test]
fn undefined_instruction_in_user_mode_switches_stacks() {
    let mut engine = user(&[0x0f, 0x0b]); // ud2
    assert_eq!(run(&mut engine), handler(6));
    let cpu = &engine.cpu;
    assert_eq!(cpu.s.cpl, 0);
    assert_eq!(cpu.s.regs.get(gpr::RSP), STACK0 - 40);
    let [rip, cs, flags, rsp, ss] = frame(&engine);
    assert_eq!((rip, cs as u16, rsp, ss as u16), (USER, CODE3, USER_STACK, DATA3));
    assert_eq!(flags, rflags::FIXED | rflags::IF | rflags::RF, "a fault pushes RF");
    assert_eq!(cpu.s.seg[2].selector, 0);
    assert_eq!(cpu.s.seg[1].selector, CODE0);
    assert_eq!(cpu.s.rflags & (rflags::IF | rflags::RF), 0, "an interrupt gate clears IF");
    assert_eq!(cpu.exceptions[6], 1);
}

/// *SDM vol. 3A §6.14.2*: in kernel mode the stack is aligned and SS:RSP pushed too.
#[test]
fn same_level_delivery_aligns_the_stack() {
    let mut engine = kernel(&[0x0f, 0x0b]);
    engine.cpu.s.regs.set(gpr::RSP, STACK - 3);
    assert_eq!(run(&mut engine), handler(6));
    assert_eq!(engine.cpu.s.regs.get(gpr::RSP), (STACK - 16) - 40);
    let [_, _, _, rsp, ss] = frame(&engine);
    assert_eq!((rsp, ss as u16), (STACK - 3, DATA0));
}

/// *SDM vol. 3A §6.14.5*: the interrupt stack table, also without a change of level.
#[test]
fn ist_is_used_at_every_level() {
    for mut engine in [kernel(&[0xcc]), user(&[0xcc])] {
        set_gate(&engine.cpu.ram, 3, gate(handler(3), CODE0, 1, 15, 3));
        assert_eq!(run(&mut engine), handler(3));
        assert_eq!(engine.cpu.s.regs.get(gpr::RSP), STACK_IST1 - 40);
        let [rip, ..] = frame::<5>(&engine);
        assert!(rip == KERNEL + 1 || rip == USER + 1, "INT3 is a trap: {rip:x}");
    }
}

/// *SDM vol. 3A §6.12.1.3*: a trap gate leaves IF.
#[test]
fn trap_gates_leave_if() {
    let mut engine = user(&[0xcc]);
    set_gate(&engine.cpu.ram, 3, gate(handler(3), CODE0, 0, 15, 3));
    run(&mut engine);
    assert_ne!(engine.cpu.s.rflags & rflags::IF, 0);
}

/// *SDM vol. 3A §6.13; vol. 2A INT n*: DPL of the gate, and the error code's
/// IDT bit; no EXT bit for a software interrupt.
#[test]
fn software_interrupts_respect_the_gates_dpl() {
    let mut engine = user(&[0xcd, 0x81]); // int 0x81
    assert_eq!(run(&mut engine), handler(13));
    let [error, rip, ..] = frame::<6>(&engine);
    assert_eq!((error, rip), (0x81 * 8 + 2, USER));
    let mut engine = user(&[0xcd, 0x80]);
    assert_eq!(run(&mut engine), handler(0x80));
    let [rip, ..] = frame::<5>(&engine);
    assert_eq!(rip, USER + 2);
}

/// *SDM vol. 3A table 6-5, §6.13*: a gate that is not present, for a benign
/// exception: `#NP` with vector, IDT and EXT.
#[test]
fn missing_gate_gives_np_with_ext() {
    let mut engine = user(&[0x0f, 0x0b]);
    set_gate(&engine.cpu.ram, 6, [gate(0, CODE0, 0, 14, 0)[0] & !(1 << 47), 0]);
    assert_eq!(run(&mut engine), handler(11));
    let [error, rip, ..] = frame::<6>(&engine);
    assert_eq!((error, rip), (6 * 8 + 3, USER));
}

/// *SDM vol. 3A §4.7*: error codes and CR2.
#[test]
fn page_faults_tell_what_was_tried() {
    // mov rax, [rbx]; mov [rbx], rax; jmp rbx
    let (read, write, fetch) = (&[0x48, 0x8b, 0x03], &[0x48, 0x89, 0x03], &[0xff, 0xe3]);
    let cases: [(&[u8], u64, u64); 7] = [
        (read, HOLE + 5, 0b00100),
        (write, HOLE + 8, 0b00110),
        (fetch, HOLE, 0b10100),
        (read, 0x1008, 0b00101),
        (write, 0x1008, 0b00111),
        (write, READ_ONLY + 16, 0b00111),
        (fetch, 0x40_0000, 0b10101),
    ];
    for (code, address, expected) in cases {
        let mut engine = user(code);
        engine.cpu.s.regs.set(gpr::RBX, address);
        assert_eq!(run(&mut engine), handler(14));
        assert_eq!(engine.cpu.s.cr2, address);
        let [error, rip, ..] = frame::<6>(&engine);
        assert_eq!(error, expected, "{address:x}");
        let at = if expected & 0b10000 != 0 { address } else { USER };
        assert_eq!(rip, at);
    }
    // A supervisor write to a read-only page with CR0.WP.
    let mut engine = kernel(write);
    engine.cpu.s.regs.set(gpr::RBX, READ_ONLY);
    assert_eq!(run(&mut engine), handler(14));
    assert_eq!(frame::<1>(&engine), [0b00011]);
}

/// *SDM vol. 3A §6.15, #DF; table 6-5*: a page fault while delivering a page
/// fault is a double fault, with CR2 of the second, on its own stack.
#[test]
fn fault_on_the_way_to_the_page_fault_handler_is_a_double_fault() {
    let mut engine = user(&[0x48, 0x8b, 0x03]);
    engine.cpu.s.regs.set(gpr::RBX, HOLE);
    write64(&engine.cpu.ram, TSS + 4, HOLE + 0x1000); // RSP0
    set_gate(&engine.cpu.ram, 8, gate(handler(8), CODE0, 1, 14, 0));
    assert_eq!(run(&mut engine), handler(8));
    let [error, rip, cs, _, rsp, _] = frame(&engine);
    assert_eq!((error, rip, cs as u16, rsp), (0, USER, CODE3, USER_STACK));
    assert_eq!(engine.cpu.s.cr2, HOLE + 0x1000 - 48, "the stack that was not there");
    assert_eq!((engine.cpu.exceptions[14], engine.cpu.exceptions[8]), (1, 1));
}

/// *Table 6-5*: contributory after contributory; benign first does not combine.
#[test]
fn contributory_faults_combine_and_benign_ones_do_not() {
    let mut engine = kernel(&[0xf6, 0xf1]); // div cl, with CL = 0: #DE
    set_gate(&engine.cpu.ram, 0, [0, 0]); // #GP
    assert_eq!(run(&mut engine), handler(8));
    let mut engine = kernel(&[0x0f, 0x0b]);
    set_gate(&engine.cpu.ram, 6, [0, 0]);
    assert_eq!(run(&mut engine), handler(13));
    assert_eq!(frame::<1>(&engine), [6 * 8 + 3]);
}

/// *SDM vol. 3A §6.15, #DF*: a third fault shuts the processor down, and the
/// state of the interrupted program is still there to be reported.
#[test]
fn triple_fault_is_shutdown() {
    let mut engine = user(&[0x0f, 0x0b]);
    engine.cpu.s.idtr.limit = 0;
    assert_eq!(engine.run(100), Exit::Shutdown);
    assert_eq!(engine.cpu.activity, Activity::Shutdown);
    let s = &engine.cpu.s;
    assert_eq!((s.rip, s.cpl, s.regs.get(gpr::RSP)), (USER, 3, USER_STACK));
    assert_eq!(s.seg[1].selector, CODE3);
    assert_eq!(engine.run(100), Exit::Shutdown);
}

/// *SDM vol. 2A IRET; vol. 3A §6.14.3*: to user mode and back by an exception.
#[test]
fn iretq_returns_to_user_mode() {
    let mut engine = kernel(&[0x48, 0xcf]);
    let cpu = &mut engine.cpu;
    cpu.ram.write(USER, &[0x0f, 0x0b]);
    let image = rflags::FIXED | rflags::IF | rflags::ZF | rflags::AC;
    let words = [USER, u64::from(CODE3), image, USER_STACK, u64::from(DATA3)];
    let rsp = STACK - 40;
    for (i, word) in words.into_iter().enumerate() {
        write64(&cpu.ram, rsp + 8 * i as u64, word);
    }
    cpu.s.regs.set(gpr::RSP, rsp);
    cpu.set_segment_from_gdt(arch::regs::Seg::Ds, DATA0).unwrap();
    cpu.nmi_blocked = true;
    assert_eq!(run(&mut engine), handler(6));
    let [rip, cs, flags, rsp, ss] = frame(&engine);
    assert_eq!((rip, cs as u16, rsp, ss as u16), (USER, CODE3, USER_STACK, DATA3));
    assert_eq!(flags, image | rflags::RF);
    assert_eq!(engine.cpu.s.seg[3].selector, 0, "DS of level 0 does not survive (§5.8.6)");
    assert!(!engine.cpu.nmi_blocked, "IRET ends the blocking of NMIs (§6.7.1)");
}

/// *SDM vol. 2A IRET*: what is refused, and that nothing changes then.
#[test]
fn iretq_refuses_bad_frames() {
    let good = [USER, u64::from(CODE3), rflags::FIXED, USER_STACK, u64::from(DATA3)];
    let cases: [(usize, u64, u64, u64); 7] = [
        (0, 1 << 47, 13, 0),                                   // RIP not canonical
        (1, 0, 13, 0),                                         // CS null
        (1, u64::from(DATA3), 13, u64::from(DATA3 & !3)),      // CS not code
        (1, 0x58 | 3, 13, 0x58),                               // beyond the GDT
        (4, 0, 13, 0),                                         // SS null at CPL 3
        (4, u64::from(DATA0), 13, u64::from(DATA0)),           // SS.RPL ≠ CPL
        (1, u64::from(CODE3 & !3), 13, u64::from(CODE3 & !3)), // RPL ≠ DPL
    ];
    for (which, value, vector, error) in cases {
        let mut engine = kernel(&[0x48, 0xcf]);
        let rsp = STACK - 40;
        let mut words = good;
        words[which] = value;
        for (i, word) in words.into_iter().enumerate() {
            write64(&engine.cpu.ram, rsp + 8 * i as u64, word);
        }
        engine.cpu.s.regs.set(gpr::RSP, rsp);
        assert_eq!(run(&mut engine), handler(vector), "word {which}: {value:x}");
        let [code, rip, cs, _, old, _] = frame(&engine);
        assert_eq!((code, rip, cs as u16, old), (error, KERNEL, CODE0, rsp), "word {which}: {value:x}");
    }
    let mut engine = kernel(&[0x48, 0xcf]);
    engine.cpu.s.rflags |= rflags::NT;
    assert_eq!(run(&mut engine), handler(13), "NT in IA-32e mode");
}

/// *SDM vol. 2A IRET; vol. 3A §5.2.1*: to a 32-bit program and back by INT 80H.
#[test]
fn iretq_enters_compatibility_mode() {
    let mut engine = kernel(&[0x48, 0xcf]);
    let cpu = &mut engine.cpu;
    cpu.ram.write(USER, &[0x40, 0x50, 0xcd, 0x80]); // inc eax; push eax; int 0x80
    let words = [USER, u64::from(CODE32), rflags::FIXED, USER_STACK | 0xffff << 32, u64::from(DATA3)];
    let rsp = STACK - 40;
    for (i, word) in words.into_iter().enumerate() {
        write64(&cpu.ram, rsp + 8 * i as u64, word);
    }
    cpu.s.regs.set(gpr::RSP, rsp);
    cpu.s.regs.set(gpr::RAX, 41);
    assert_eq!(run(&mut engine), handler(0x80));
    let [rip, cs, _, rsp, _] = frame(&engine);
    assert_eq!((rip, cs as u16, rsp), (USER + 4, CODE32, USER_STACK - 4));
    assert_eq!(read64(&engine.cpu.ram, USER_STACK - 4) as u32, 42);
    assert!(engine.cpu.s.long64());
}

/// *SDM vol. 3A §5.8.8; vol. 2B SYSCALL, SYSRET*: there and back.
#[test]
fn syscall_and_sysret_round_trip() {
    let mut engine = user(&[0x0f, 0x05, 0x0f, 0x0b]); // syscall; ud2
    let cpu = &mut engine.cpu;
    cpu.ram.write(KERNEL, &[0x49, 0x89, 0xc8, 0x48, 0x0f, 0x07]); // mov r8, rcx; sysretq
    cpu.s.msr.lstar = KERNEL;
    cpu.s.msr.sfmask = rflags::IF | rflags::DF;
    cpu.s.rflags |= rflags::DF;
    assert_eq!(run(&mut engine), handler(6));
    let [rip, cs, flags, rsp, ss] = frame(&engine);
    assert_eq!((rip, cs as u16, rsp, ss as u16), (USER + 2, CODE3, USER_STACK, DATA3));
    assert_eq!(flags & (rflags::IF | rflags::DF), rflags::IF | rflags::DF);
    let s = &engine.cpu.s;
    assert_eq!(s.regs.get(gpr::R8), USER + 2);
    assert_eq!(s.regs.get(gpr::R11) & (rflags::IF | rflags::DF), rflags::IF | rflags::DF);
}

/// *SDM vol. 2B SYSCALL*: RFLAGS is masked, CS and SS are flat, CPL is 0.
#[test]
fn syscall_masks_flags() {
    let mut engine = user(&[0x0f, 0x05]);
    engine.cpu.ram.write(KERNEL, &[0xf4]);
    engine.cpu.s.msr.lstar = KERNEL;
    engine.cpu.s.msr.sfmask = rflags::IF;
    assert_eq!(run(&mut engine), KERNEL);
    let s = &engine.cpu.s;
    assert_eq!((s.cpl, s.seg[1].selector, s.seg[2].selector), (0, CODE0, DATA0));
    assert_eq!(s.rflags & rflags::IF, 0);
    engine = user(&[0x0f, 0x05]);
    engine.cpu.s.efer.remove(Efer::SCE);
    assert_eq!(run(&mut engine), handler(6), "without EFER.SCE");
}

/// *SDM vol. 2B SYSRET*: a target that is not canonical faults in kernel mode, on Intel's processors.
#[test]
fn sysret_to_non_canonical_address_faults_at_level_0() {
    let mut engine = kernel(&[0x48, 0x0f, 0x07]);
    engine.cpu.s.regs.set(gpr::RCX, 1 << 47);
    assert_eq!(run(&mut engine), handler(13));
    let [error, rip, cs, _, rsp, _] = frame(&engine);
    assert_eq!((error, rip, cs as u16, rsp), (0, KERNEL, CODE0, STACK));
}

/// *SDM vol. 2B SYSENTER, SYSEXIT*.
#[test]
fn sysenter_and_sysexit_round_trip() {
    let mut engine = user(&[0x0f, 0x34, 0x0f, 0x0b]); // sysenter; ud2
    let cpu = &mut engine.cpu;
    // mov rcx, rbx; mov rdx, rsi; sysexitq
    cpu.ram.write(KERNEL, &[0x48, 0x89, 0xd9, 0x48, 0x89, 0xf2, 0x48, 0x0f, 0x35]);
    cpu.write_msr(arch::msr::SYSENTER_CS, u64::from(CODE0)).unwrap();
    cpu.write_msr(arch::msr::SYSENTER_ESP, STACK).unwrap();
    cpu.write_msr(arch::msr::SYSENTER_EIP, KERNEL).unwrap();
    cpu.s.regs.set(gpr::RBX, USER_STACK - 64);
    cpu.s.regs.set(gpr::RSI, USER + 2);
    assert_eq!(run(&mut engine), handler(6));
    let [rip, cs, flags, rsp, ss] = frame(&engine);
    assert_eq!((rip, rsp), (USER + 2, USER_STACK - 64));
    assert_eq!((cs as u16, ss as u16), ((CODE0 + 32) | 3, (CODE0 + 40) | 3));
    assert_eq!(flags & rflags::IF, 0, "SYSENTER clears IF and SYSEXIT leaves it");
}

/// *SDM vol. 3A §5.8.3.1, §5.8.5.1*: a call gate of 64-bit mode, and RETF to the outer level.
#[test]
fn call_gate_changes_level_and_retf_returns() {
    // call far [rbx]; ud2
    let mut engine = user(&[0xff, 0x1b, 0x0f, 0x0b]);
    let cpu = &mut engine.cpu;
    let [low, high] = gate(KERNEL, CODE0, 0, 12, 3);
    write64(&cpu.ram, GDT + u64::from(GATE & !7), low);
    write64(&cpu.ram, GDT + u64::from(GATE & !7) + 8, high);
    // mov r9, rsp; retfq
    cpu.ram.write(KERNEL, &[0x49, 0x89, 0xe1, 0x48, 0xcb]);
    cpu.ram.write(USER + 0x100, &[0, 0, 0, 0, GATE as u8, 0]);
    cpu.s.regs.set(gpr::RBX, USER + 0x100);
    assert_eq!(run(&mut engine), handler(6));
    assert_eq!(engine.cpu.s.regs.get(gpr::R9), STACK0 - 32);
    let [rip, cs, _, rsp, ss] = frame(&engine);
    assert_eq!((rip, cs as u16, rsp, ss as u16), (USER + 2, CODE3, USER_STACK, DATA3));
}

/// *SDM vol. 3B §17.3.1.4*: TF traps after the next instruction; the trap
/// clears it; INT n is not followed by one.
#[test]
fn single_step_traps_after_the_instruction() {
    let mut engine = user(&[0x90, 0x90]);
    engine.cpu.s.rflags |= rflags::TF;
    assert_eq!(run(&mut engine), handler(1));
    let [rip, _, flags, ..] = frame::<5>(&engine);
    assert_eq!(rip, USER + 1);
    assert_eq!(flags & (rflags::TF | rflags::RF), rflags::TF);
    assert_eq!(engine.cpu.s.dr6 & 0xf00f, 1 << 14);

    let mut engine = user(&[0xcd, 0x80]);
    engine.cpu.s.rflags |= rflags::TF;
    assert_eq!(run(&mut engine), handler(0x80));
    assert_eq!(engine.cpu.exceptions[1], 0);
    // SYSCALL with TF in SFMASK is not followed by a trap either.
    let mut engine = user(&[0x0f, 0x05]);
    engine.cpu.ram.write(KERNEL, &[0xf4]);
    engine.cpu.s.msr.lstar = KERNEL;
    engine.cpu.s.msr.sfmask = rflags::TF;
    engine.cpu.s.rflags |= rflags::TF;
    assert_eq!(run(&mut engine), KERNEL);
}

/// *SDM vol. 3B §17.2.4, §17.3.1.1, §17.3.1.2*: a code breakpoint is a fault
/// before, a data breakpoint a trap after the instruction.
#[test]
fn breakpoint_registers_trap() {
    let mut engine = user(&[0x90, 0x90]);
    engine.cpu.s.dr[1] = USER + 1;
    engine.cpu.s.dr7 |= 1 << 2;
    assert_eq!(run(&mut engine), handler(1));
    let [rip, _, flags, ..] = frame::<5>(&engine);
    assert_eq!((rip, flags & rflags::RF), (USER + 1, 0));
    assert_eq!(engine.cpu.s.dr6 & 0xf00f, 2);

    // mov [rbx], eax; nop, watched for writes by DR0, 4 bytes; armed by MOV DR7.
    let mut engine = kernel(&[0x0f, 0x23, 0xc3, 0x0f, 0x23, 0xf8, 0x89, 0x43, 0x02, 0x90]);
    engine.cpu.s.regs.set(gpr::RBX, 0x4000);
    engine.cpu.s.regs.set(gpr::RAX, 1 | 0b1101 << 16);
    assert_eq!(run(&mut engine), handler(1));
    let [rip, ..] = frame::<5>(&engine);
    assert_eq!(rip, KERNEL + 9);
    assert_eq!(engine.cpu.s.dr6 & 0xf00f, 1);
    assert_eq!(read64(&engine.cpu.ram, 0x4002) as u32, 1 | 0b1101 << 16);
}

/// *SDM vol. 3B §17.2.2, §17.2.4*: DR4 with CR4.DE, and general detect.
#[test]
fn debug_register_access_can_trap() {
    let mut engine = kernel(&[0x0f, 0x21, 0xe0]); // mov rax, dr4
    engine.cpu.s.cr4 |= Cr4::DE;
    assert_eq!(run(&mut engine), handler(6));
    let mut engine = kernel(&[0x0f, 0x21, 0xe0, 0xf4]);
    run(&mut engine);
    assert_eq!(engine.cpu.s.regs.get(gpr::RAX), arch::regs::dr6::FIXED);
    let mut engine = kernel(&[0x0f, 0x21, 0xf8]); // mov rax, dr7
    engine.cpu.s.dr7 |= arch::regs::dr7::GD;
    assert_eq!(run(&mut engine), handler(1));
    let [rip, ..] = frame::<5>(&engine);
    assert_eq!(rip, KERNEL, "general detect is a fault");
    assert_eq!(engine.cpu.s.dr6 & 0xf00f, 1 << 13);
    assert_eq!(engine.cpu.s.dr7 & arch::regs::dr7::GD, 0);
}

/// *SDM vol. 3A §6.8.1, §6.8.3*: STI and MOV SS hold interrupts off for one instruction.
#[test]
fn sti_takes_effect_after_the_next_instruction() {
    let mut engine = kernel(&[0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4]); // sti; inc eax; inc eax; hlt
    assert!(crate::apic::Apic::accepts_fixed(&enable_apic(&engine)));
    crate::shared::lock(&engine.cpu.shared.apic).accept(0x40, false);
    engine.cpu.update_apic();
    assert_eq!(run(&mut engine), handler(0x40));
    let [rip, ..] = frame::<5>(&engine);
    assert_eq!(rip, KERNEL + 3);
    assert_eq!(engine.cpu.s.regs.get(gpr::RAX), 1);
    assert_eq!(engine.cpu.shared.pending.load(std::sync::atomic::Ordering::SeqCst) & request::INTERRUPT, 0);
}

/// The same: the instruction in the shadow may close the window again, and one
/// more leaves it open for an instant.
#[test]
fn sti_before_cli_opens_no_window() {
    let pending = |code: &[u8]| {
        let mut engine = kernel(code);
        enable_apic(&engine);
        crate::shared::lock(&engine.cpu.shared.apic).accept(0x40, false);
        engine.cpu.update_apic();
        engine
    };
    // sti; cli; inc eax; hlt
    let mut closed = pending(&[0xfb, 0xfa, 0xff, 0xc0, 0xf4]);
    assert_eq!((run(&mut closed), closed.cpu.s.regs.get(gpr::RAX)), (KERNEL + 4, 1));
    // top: sti; nop; cli; jmp top
    let mut open = pending(&[0xfb, 0x90, 0xfa, 0xeb, 0xfb]);
    assert_eq!(run(&mut open), handler(0x40));
    assert_eq!(frame::<5>(&open)[0], KERNEL + 2);
    // The instruction in the shadow faults: its handler is entered first.
    let mut faults = pending(&[0xfb, 0x0f, 0x0b]);
    assert_eq!(run(&mut faults), handler(6));
    assert!(!faults.cpu.shadow);
}

fn enable_apic(engine: &Engine) -> crate::apic::Apic {
    let mut apic = crate::shared::lock(&engine.cpu.shared.apic);
    apic.write(0xf0, 0x1ff, 0);
    apic.clone()
}

/// *SDM vol. 3A §6.7.1, §8.4*: an NMI wakes a halted processor and blocks further ones.
#[test]
fn nmi_wakes_and_blocks() {
    let mut engine = kernel(&[0xf4, 0x0f, 0x0b]);
    assert_eq!(run(&mut engine), KERNEL);
    engine.cpu.shared.request(request::NMI);
    assert_eq!(run(&mut engine), handler(2));
    let [rip, ..] = frame::<5>(&engine);
    assert_eq!(rip, KERNEL + 1);
    assert!(engine.cpu.nmi_blocked);
    engine.cpu.shared.request(request::NMI);
    engine.cpu.activity = Activity::Active;
    assert_eq!(run(&mut engine), handler(2) + 1, "goes on in the handler");
    // IRETQ at the end of the handler lets the second in.
    engine.cpu.ram.write(handler(2) + 2, &[0x48, 0xcf]);
    engine.cpu.activity = Activity::Active;
    assert_eq!(run(&mut engine), handler(2));
}

/// *SDM vol. 3A §4.6, vol. 1 §3.3.7.1*: access through a non-canonical address.
#[test]
fn non_canonical_addresses_fault_by_segment() {
    let mut engine = user(&[0x48, 0x8b, 0x03]); // mov rax, [rbx]
    engine.cpu.s.regs.set(gpr::RBX, 1 << 47);
    assert_eq!(run(&mut engine), handler(13));
    let mut engine = user(&[0x50]); // push rax
    engine.cpu.s.regs.set(gpr::RSP, 1 << 48);
    assert_eq!(run(&mut engine), handler(12));
}

/// *SDM vol. 3A §5.6, vol. 2B MOV*: what segment registers accept.
#[test]
fn segment_loads_are_checked() {
    // mov ds, ax; hlt
    for (selector, fault) in [
        (0u16, None),
        (3, None),
        (DATA0, None),
        (ABSENT, Some(11)),
        (TSS_SELECTOR, Some(13)),
        (0x58, Some(13)),
    ] {
        let mut engine = kernel(&[0x8e, 0xd8, 0xf4]);
        engine.cpu.s.regs.set(gpr::RAX, u64::from(selector));
        let at = run(&mut engine);
        match fault {
            None => {
                assert_eq!(at, KERNEL + 2);
                assert_eq!(engine.cpu.s.seg[3].selector, selector);
            }
            Some(vector) => {
                assert_eq!(at, handler(vector));
                assert_eq!(frame::<1>(&engine), [u64::from(selector)]);
            }
        }
    }
    // At CPL 3 a level-0 segment is out of reach.
    let mut engine = user(&[0x8e, 0xd8]);
    engine.cpu.s.regs.set(gpr::RAX, u64::from(DATA0));
    assert_eq!(run(&mut engine), handler(13));
}

/// *SDM vol. 3A §2.5, §9.8.5; vol. 2B MOV—Move to/from Control Registers*.
#[test]
fn control_registers_refuse_reserved_bits_and_transitions() {
    // (instruction, RAX): mov crN, rax
    let cases: [(u8, u64); 8] = [
        (0xc0, 1 << 32),               // CR0 upper half
        (0xc0, 1 << 31),               // PG without PE
        (0xc0, 1 << 31 | 1 | 1 << 29), // NW without CD
        (0xc0, 1),                     // PG cleared in 64-bit mode
        (0xe0, 1 << 12 | 1 << 5),      // CR4.LA57 on a model without it
        (0xe0, 0),                     // PAE cleared
        (0xd8, 1 << 46),               // CR3 beyond MAXPHYADDR
        (0xd8, 1 << 63),               // bit 63 without PCIDE
    ];
    for (modrm, value) in cases {
        let mut engine = kernel(&[0x0f, 0x22, modrm, 0xf4]);
        engine.cpu.s.regs.set(gpr::RAX, value);
        assert_eq!(run(&mut engine), handler(13), "{modrm:x} {value:x}");
        assert_eq!(engine.cpu.s.cr3, 0x1000);
    }
    let mut engine = user(&[0x0f, 0x20, 0xc0]); // mov rax, cr0
    assert_eq!(run(&mut engine), handler(13));
    let mut engine = kernel(&[0x0f, 0x20, 0xc8]); // mov rax, cr1
    assert_eq!(run(&mut engine), handler(6));
    // PCIDs need CR3[11:0] = 0; then MOV CR3 with bit 63 keeps translations.
    let mut engine = kernel(&[0x0f, 0x22, 0xe0, 0x48, 0x89, 0xd8, 0x0f, 0x22, 0xd8, 0xf4]);
    engine.cpu.s.regs.set(gpr::RAX, (Cr4::PAE | Cr4::PCIDE).bits());
    engine.cpu.s.regs.set(gpr::RBX, 1 << 63 | 0x1005);
    assert_eq!(run(&mut engine), KERNEL + 9);
    assert_eq!(engine.cpu.s.cr3, 0x1005);
}

/// *SDM vol. 3A §4.10.4.1*: INVLPG and MOV CR3 make a changed entry count.
#[test]
fn translations_change_after_invlpg() {
    // mov rax, [rbx]; mov [rcx], rdx; invlpg [rbx]; mov rsi, [rbx]; hlt
    let code = [0x48, 0x8b, 0x03, 0x48, 0x89, 0x11, 0x0f, 0x01, 0x3b, 0x48, 0x8b, 0x33, 0xf4];
    let mut engine = kernel(&code);
    let cpu = &mut engine.cpu;
    write64(&cpu.ram, 0x3020, 0x40_0000 | pte::P | pte::W | pte::PS);
    write64(&cpu.ram, 0x40_0010, 1);
    write64(&cpu.ram, 0x60_0010, 2);
    cpu.s.regs.set(gpr::RBX, HOLE + 0x10);
    cpu.s.regs.set(gpr::RCX, 0x3020);
    cpu.s.regs.set(gpr::RDX, 0x60_0000 | pte::P | pte::W | pte::PS);
    assert_eq!(run(&mut engine), KERNEL + 12);
    let regs = &engine.cpu.s.regs;
    assert_eq!((regs.get(gpr::RAX), regs.get(gpr::RSI)), (1, 2));
}

/// Code behind a branch to another page, whose translation the loop changes by
/// INVLPG, by a change of address spaces and back, and by writing over the code.
#[test]
fn branches_between_pages_follow_translations_and_code() {
    const CALLED: u64 = HOLE; // mapped at 4 MiB or 6 MiB
    let code = [
        &[0xff, 0xd3][..],         // call rbx
        &[0xff, 0xd3],             // call rbx
        &[0x48, 0x89, 0x11],       // mov [rcx], rdx
        &[0x0f, 0x01, 0x3b],       // invlpg [rbx]
        &[0xff, 0xd3],             // call rbx
        &[0x0f, 0x22, 0xde],       // mov cr3, rsi
        &[0xff, 0xd3],             // call rbx
        &[0x41, 0xc6, 0x00, 0x10], // mov byte [r8], 0x10: add al, 0x10
        &[0xff, 0xd3],             // call rbx
        &[0x0f, 0x22, 0xdf],       // mov cr3, rdi
        &[0xff, 0xd3, 0xff, 0xd3], // call rbx; call rbx
        &[0xf4],                   // hlt
    ]
    .concat();
    let mut engine = kernel(&code);
    let cpu = &mut engine.cpu;
    let large = pte::P | pte::W | pte::PS;
    write64(&cpu.ram, 0x3010, 0x40_0000 | large);
    write64(&cpu.ram, 0x3020, 0x40_0000 | large);
    // Another address space, in which the same place is at 8 MiB.
    write64(&cpu.ram, 0xa000, 0xb000 | large & !pte::PS);
    write64(&cpu.ram, 0xb000, 0xc000 | large & !pte::PS);
    for (at, value) in [(0, 0), (8, USER), (16, 0x40_0000), (32, 0x80_0000)] {
        write64(&cpu.ram, 0xc000 + at, value | large);
    }
    // add al, n; ret
    for (page, n) in [(0x40_0000, 1), (0x60_0000, 2), (0x80_0000, 4)] {
        assert!(cpu.ram.write(page, &[0x04, n, 0xc3]));
    }
    cpu.s.regs.set(gpr::RBX, CALLED);
    cpu.s.regs.set(gpr::RCX, 0x3020);
    cpu.s.regs.set(gpr::RDX, 0x60_0000 | large);
    cpu.s.regs.set(gpr::RSI, 0xa000);
    cpu.s.regs.set(gpr::RDI, 0x1000);
    cpu.s.regs.set(gpr::R8, CALLED + 1);
    cpu.s.regs.set(gpr::RAX, 0);
    cpu.flush_all();
    assert_eq!(run(&mut engine), KERNEL + code.len() as u64 - 1);
    assert_eq!(engine.cpu.s.regs.get(gpr::RAX), 1 + 1 + 2 + 4 + 0x10 + 2 + 2);
}

/// *SDM vol. 1 §19.5*: IOPL and the I/O permission bit map.
#[test]
fn ports_need_permission() {
    let code = [0xec, 0x0f, 0x0b]; // in al, dx; ud2
    let mut engine = user(&code);
    engine.cpu.ram.write(TSS + 102, &[0xff, 0xff]);
    engine.cpu.s.regs.set(gpr::RDX, 0x60);
    assert_eq!(run(&mut engine), handler(13), "the map lies beyond the TSS's limit");
    for (bit, vector) in [(0u8, 6), (1, 13)] {
        let mut engine = user(&code);
        let cpu = &mut engine.cpu;
        cpu.s.tr.limit = 0x68 + 32;
        cpu.ram.write(TSS + 102, &0x68u16.to_le_bytes());
        cpu.ram.write(TSS + 0x68 + 0x60 / 8, &[bit]);
        cpu.s.regs.set(gpr::RDX, 0x60);
        assert_eq!(run(&mut engine), handler(vector));
    }
    let mut engine = user(&code);
    engine.cpu.s.rflags |= rflags::IOPL;
    assert_eq!(run(&mut engine), handler(6));
    assert_eq!(engine.cpu.s.regs.get(gpr::RAX), 0xff);
}

/// *SDM vol. 2B POPF*: IF and IOPL are privileged; RF is cleared.
#[test]
fn popf_in_user_mode_leaves_if_and_iopl() {
    let mut engine = user(&[0x50, 0x9d, 0x0f, 0x0b]); // push rax; popfq; ud2
    engine.cpu.s.regs.set(gpr::RAX, rflags::IOPL | rflags::ID | rflags::CF);
    run(&mut engine);
    let [_, _, flags, ..] = frame::<5>(&engine);
    assert_eq!(flags & !rflags::RF, rflags::FIXED | rflags::IF | rflags::ID | rflags::CF);
    let mut engine = user(&[0xfa]); // cli
    assert_eq!(run(&mut engine), handler(13));
}

/// *SDM vol. 2B SWAPGS, vol. 3A §5.6, vol. 2B RDFSBASE*.
#[test]
fn bases_are_swapped_and_checked() {
    let mut engine = kernel(&[0x0f, 0x01, 0xf8, 0xf4]);
    engine.cpu.s.msr.kernel_gs_base = 0x1234;
    engine.cpu.s.seg[5].base = 0x99;
    run(&mut engine);
    assert_eq!((engine.cpu.s.seg[5].base, engine.cpu.s.msr.kernel_gs_base), (0x1234, 0x99));
    let mut engine = user(&[0x0f, 0x01, 0xf8]);
    assert_eq!(run(&mut engine), handler(13));
    let code = [0xf3, 0x48, 0x0f, 0xae, 0xd0, 0x0f, 0x0b]; // wrfsbase rax; ud2
    let mut engine = user(&code);
    assert_eq!(run(&mut engine), handler(6), "without CR4.FSGSBASE");
    assert_eq!(frame::<1>(&engine), [USER]);
    let mut engine = user(&code);
    engine.cpu.s.cr4 |= Cr4::FSGSBASE;
    engine.cpu.s.regs.set(gpr::RAX, 1 << 47);
    assert_eq!(run(&mut engine), handler(13));
}

/// *SDM vol. 3A §8.4.3, §9.9, §9.8.5*: INIT, start-up at a page below 1 MiB,
/// real mode → protected mode → IA-32e mode, as kernels start their processors.
#[test]
fn start_up_leads_to_64_bit_mode() {
    let mut engine = bare(1);
    engine.cpu.reset();
    let ram = engine.cpu.ram.clone();
    assert_eq!(engine.cpu.activity, Activity::WaitForSipi);
    assert_eq!(engine.run(10), Exit::Idle);
    let all = pte::P | pte::W;
    write64(&ram, 0x1000, 0x2000 | all);
    write64(&ram, 0x2000, 0x3000 | all);
    write64(&ram, 0x3000, all | pte::PS);
    write64(&ram, GDT + 8, Descriptor::new(0, 0xf_ffff, Attr(0x00c0_9b00)).0);
    write64(&ram, GDT + 16, Descriptor::new(0, 0xf_ffff, Attr::DATA).0);
    write64(&ram, GDT + 24, Descriptor::new(0, 0xf_ffff, Attr::CODE64).0);
    ram.write(0x9100, &[0x1f, 0, 0x00, 0x50, 0, 0]);
    #[rustfmt::skip]
    let real = [
        0x8c, 0xc8,                               // mov ax, cs
        0x8e, 0xd8,                               // mov ds, ax
        0x66, 0x0f, 0x01, 0x16, 0x00, 0x01,       // lgdt [0x100], 32-bit base
        0x0f, 0x20, 0xc0,                         // mov eax, cr0
        0x0c, 0x01,                               // or al, 1
        0x0f, 0x22, 0xc0,                         // mov cr0, eax
        0x66, 0xea, 0x40, 0x90, 0, 0, 0x08, 0,    // jmp 0x08:0x9040
    ];
    ram.write(0x9000, &real);
    #[rustfmt::skip]
    let protected = [
        0x66, 0xb8, 0x10, 0x00,                   // mov ax, 0x10
        0x8e, 0xd8, 0x8e, 0xd0,                   // mov ds, ax; mov ss, ax
        0xb8, 0x20, 0, 0, 0, 0x0f, 0x22, 0xe0,    // mov eax, PAE; mov cr4, eax
        0xb8, 0, 0x10, 0, 0, 0x0f, 0x22, 0xd8,    // mov eax, 0x1000; mov cr3, eax
        0xb9, 0x80, 0, 0, 0xc0,                   // mov ecx, EFER
        0x31, 0xd2, 0xb8, 0, 1, 0, 0, 0x0f, 0x30, // xor edx, edx; mov eax, LME; wrmsr
        0xb8, 1, 0, 0, 0x80, 0x0f, 0x22, 0xc0,    // mov eax, PG | PE; mov cr0, eax
        0xea, 0x90, 0x90, 0, 0, 0x18, 0,          // jmp 0x18:0x9090
    ];
    ram.write(0x9040, &protected);
    ram.write(0x9090, &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xf4]); // mov rax, imm64; hlt
    let shared = engine.cpu.shared.clone();
    let peers: Arc<[Arc<Shared>]> = vec![shared].into();
    use crate::apic::{Delivery, Destination};
    let send = |mode, vector| {
        assert!(crate::shared::send(&peers, 0, Destination::Physical(1), mode, vector, false));
    };
    send(Delivery::Init, 0);
    assert_eq!(engine.run(10), Exit::Idle);
    send(Delivery::StartUp, 9);
    assert_eq!(run(&mut engine), 0x909a);
    let s = &engine.cpu.s;
    assert!(s.long64());
    assert_eq!(s.efer, Efer::LME | Efer::LMA);
    assert_eq!(s.regs.get(gpr::RAX), 0x0807_0605_0403_0201);
    // A second start-up interrupt is ignored.
    engine.cpu.start_up(1);
    assert_eq!(engine.cpu.activity, Activity::Halted);
    // INIT takes it back to waiting, registers as table 9-1 says.
    engine.cpu.shared.request(request::INIT);
    assert_eq!(engine.run(10), Exit::Idle);
    let s = &engine.cpu.s;
    assert_eq!(engine.cpu.activity, Activity::WaitForSipi);
    assert_eq!((s.cr0.bits(), s.cr4.bits(), s.efer.bits(), s.rip), (0x10, 0, 0, 0xfff0));
    assert_eq!(s.regs.get(gpr::RDX), u64::from(engine.cpu.model.signature));
}

/// *SDM vol. 3B §20.1.4*: the interrupt vector table of real mode.
#[test]
fn real_mode_interrupts_go_by_the_vector_table() {
    let mut engine = bare(0);
    let cpu = &mut engine.cpu;
    cpu.ram.write(0x20 * 4, &[0x34, 0x00, 0x00, 0x02]); // 0200:0034
    cpu.ram.write(0x2034, &[0xcf]); // iret
    cpu.ram.write(0x1000, &[0xcd, 0x20, 0xf4]); // int 0x20; hlt
    cpu.s.seg[1].selector = 0;
    cpu.s.seg[1].base = 0;
    cpu.s.rip = 0x1000;
    cpu.s.regs.set(gpr::RSP, 0x3000);
    cpu.s.rflags |= rflags::IF;
    assert_eq!(run(&mut engine), 0x1002);
    assert_eq!(engine.cpu.s.regs.get(gpr::RSP), 0x3000);
    assert_ne!(engine.cpu.s.rflags & rflags::IF, 0);
    let mut pushed = [0; 6];
    engine.cpu.ram.read(0x2ffa, &mut pushed);
    assert_eq!(pushed, [0x02, 0x10, 0, 0, 0x02, 0x02]);
}

/// *SDM vol. 3A §6.12.1*: a 32-bit gate of protected mode, with a stack switch and back.
#[test]
fn protected_mode_gates_switch_stacks() {
    let mut engine = bare(0);
    let cpu = &mut engine.cpu;
    let ram = cpu.ram.clone();
    for (selector, attr) in [(8, 0x00c0_9b00), (16, 0x00c0_9300), (24, 0x00c0_fb00), (32, 0x00c0_f300)] {
        write64(&ram, GDT + selector, Descriptor::new(0, 0xf_ffff, Attr(attr)).0);
    }
    write64(&ram, IDT + 0x80 * 8, 0x0000_ee00_0008_8000);
    ram.write(0x8000, &[0xcf]); // iretd
    ram.write(0x1000, &[0xcd, 0x80, 0xfa]); // int 0x80; cli: #GP
    write64(&ram, IDT + 13 * 8, 0x0000_8e00_0008_8010);
    ram.write(0x8010, &[0xf4]);
    ram.write(TSS + 4, &[0, 0, 2, 0, 16, 0]);
    cpu.s.cr0 |= Cr0::PE;
    cpu.s.gdtr = TableRegister { base: GDT, limit: 39 };
    cpu.s.idtr = TableRegister { base: IDT, limit: 0x7ff };
    cpu.s.tr = Segment { selector: 40, attr: Attr::TSS_BUSY, limit: 0x67, base: TSS };
    cpu.set_segment_from_gdt(arch::regs::Seg::Cs, 27).unwrap();
    cpu.set_segment_from_gdt(arch::regs::Seg::Ss, 35).unwrap();
    cpu.s.rip = 0x1000;
    cpu.s.regs.set(gpr::RSP, 0x3_0000);
    assert_eq!(run(&mut engine), 0x8010);
    let cpu = &engine.cpu;
    assert_eq!(cpu.s.regs.get(gpr::RSP), 0x2_0000 - 24);
    let mut words = [0; 24];
    cpu.ram.read(0x2_0000 - 24, &mut words);
    let word = |i: usize| u32::from_le_bytes(words[4 * i..4 * i + 4].try_into().unwrap());
    assert_eq!([word(0), word(1), word(2), word(4), word(5)], [0, 0x1002, 27, 0x3_0000, 35]);
    assert_eq!((cpu.s.cpl, cpu.s.seg[2].selector), (0, 16));
}

/// *SDM vol. 3A §10.5.4, §10.12*: the APIC by MMIO and by MSR, its timer, self-IPI and EOI.
#[test]
fn local_apic_is_reached_by_page_and_by_msr() {
    let mut engine = kernel(&[]);
    let cpu = &mut engine.cpu;
    let mut word = [0; 4];
    cpu.mmio_read(0xfee0_0030, &mut word);
    assert_eq!(u32::from_le_bytes(word) & 0xff, 0x15);
    cpu.mmio_write(0xfee0_00f0, &0x1ffu32.to_le_bytes());
    cpu.mmio_write(0xfee0_0320, &(0x40u32 | 2 << 17).to_le_bytes());
    assert_eq!(cpu.timer_deadline(), None);
    let soon = cpu.tsc() + 1_000_000;
    cpu.write_msr(arch::msr::TSC_DEADLINE, soon).unwrap();
    assert_eq!(cpu.timer_deadline(), Some(soon));
    assert!(!cpu.poll_timer());
    cpu.write_msr(arch::msr::TSC, soon).unwrap();
    assert!(cpu.timer_deadline().is_some_and(|at| at < soon), "the counter was set forward");
    assert!(cpu.poll_timer());
    assert_eq!(cpu.acknowledge_interrupt(), Some(0x40));
    assert_eq!(cpu.acknowledge_interrupt(), None);
    cpu.mmio_write(0xfee0_00b0, &[0; 4]);
    let base = cpu.read_msr(arch::msr::APIC_BASE).unwrap();
    assert!(cpu.read_msr(0x802).is_err(), "x2APIC registers in xAPIC mode");
    cpu.write_msr(arch::msr::APIC_BASE, base | 1 << 10).unwrap();
    assert_eq!(cpu.read_msr(0x802), Ok(0));
    cpu.write_msr(0x83f, 0x51).unwrap();
    cpu.write_cr8(5).unwrap();
    assert_eq!(cpu.acknowledge_interrupt(), None, "class 5 is masked");
    cpu.write_cr8(4).unwrap();
    assert_eq!(cpu.acknowledge_interrupt(), Some(0x51));
    cpu.mmio_read(0xfee0_0030, &mut word);
    assert_eq!(word, [0xff; 4], "the page is the bus's again");
}

/// *SDM vol. 3A §10.6*: a message reaches the processor it names, and no other.
#[test]
fn messages_go_to_the_processor_named() {
    let engines: Vec<Engine> = (0..3).map(bare).collect();
    let peers: Arc<[Arc<Shared>]> = engines.iter().map(|e| e.cpu.shared.clone()).collect();
    for engine in &engines {
        engine.cpu.shared.set_peers(&peers);
        enable_apic(engine);
    }
    assert!(crate::shared::deliver(&peers, 2, false, 0, 0x33, false));
    assert!(!crate::shared::deliver(&peers, 9, false, 0, 0x33, false));
    assert!(!crate::shared::deliver(&peers, 0, false, 3, 0x33, false), "reserved mode");
    let pending = |i: usize| peers[i].pending.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!([pending(0), pending(1), pending(2)], [0, 0, request::INTERRUPT]);
}

/// *SDM vol. 2A LAR, LSL; vol. 2B VERR*: what may be seen of a descriptor.
#[test]
fn descriptors_are_inspected_by_privilege() {
    // lar rbx, eax; setz cl; lsl rdx, eax; setz ch; verr ax; setz sil; ud2
    let code = [
        0x0f, 0x02, 0xd8, 0x0f, 0x94, 0xc1, 0x48, 0x0f, 0x03, 0xd0, 0x0f, 0x94, 0xc5, 0x0f, 0x00, 0xe0, 0x40,
        0x0f, 0x94, 0xc6, 0x0f, 0x0b,
    ];
    // Selector; visible to LAR and LSL, to VERR.
    for (selector, seen, readable) in [
        (DATA3, true, true),
        (CODE3, true, true),
        (DATA0, false, false),
        (TSS_SELECTOR, false, false),
        (0, false, false),
        (0x58, false, false),
    ] {
        let mut engine = user(&code);
        engine.cpu.s.regs.set(gpr::RAX, u64::from(selector));
        engine.cpu.s.regs.set(gpr::RBX, 7);
        assert_eq!(run(&mut engine), handler(6));
        let regs = &engine.cpu.s.regs;
        let flags = (regs.get(gpr::RCX) as u8, (regs.get(gpr::RCX) >> 8) as u8, regs.get(gpr::RSI) as u8);
        assert_eq!(flags, (u8::from(seen), u8::from(seen), u8::from(readable)), "{selector:x}");
        if selector == DATA3 {
            assert_eq!((regs.get(gpr::RBX), regs.get(gpr::RDX)), (0x00cf_f300, 0xffff_ffff));
        } else if !seen {
            assert_eq!(regs.get(gpr::RBX), 7);
        }
    }
}

/// *SDM vol. 2A LTR; vol. 3A §7.2.2, §7.2.3*: the busy bit, and a busy TSS is refused.
#[test]
fn ltr_marks_the_tss_busy() {
    let mut engine = kernel(&[0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xd8]); // ltr ax; ltr ax
    engine.cpu.s.regs.set(gpr::RAX, u64::from(TSS_SELECTOR));
    engine.cpu.s.tr = Segment::default();
    assert_eq!(run(&mut engine), handler(13));
    let [error, rip, ..] = frame::<6>(&engine);
    assert_eq!((error, rip), (u64::from(TSS_SELECTOR), KERNEL + 3));
    assert_eq!((engine.cpu.s.tr.base, engine.cpu.s.tr.attr), (TSS, Attr::TSS_BUSY));
    assert_eq!(read64(&engine.cpu.ram, GDT + 0x30) >> 40 & 0xff, 0x8b);
}

/// *SDM vol. 2B SGDT, SIDT; vol. 3A §2.5 (CR4.UMIP)*.
#[test]
fn table_registers_are_stored_unless_umip() {
    let code = [0x0f, 0x01, 0x03, 0x0f, 0x0b]; // sgdt [rbx]; ud2
    let mut engine = user(&code);
    engine.cpu.s.regs.set(gpr::RBX, USER + 0x800);
    assert_eq!(run(&mut engine), handler(6));
    let mut bytes = [0; 10];
    engine.cpu.ram.read(USER + 0x800, &mut bytes);
    assert_eq!(bytes, [0x57, 0, 0, 0x50, 0, 0, 0, 0, 0, 0]);
    let mut engine = user(&code);
    engine.cpu.s.cr4 |= Cr4::UMIP;
    assert_eq!(run(&mut engine), handler(13));
}

/// *SDM vol. 2A INVPCID*: types, reserved bits, PCIDs without CR4.PCIDE.
#[test]
fn invpcid_checks_its_descriptor() {
    let cases: [(u64, u64, u64, bool); 6] = [
        (0, 0, 0x1000, true),
        (0, 0, 1 << 47, false),
        (0, 1, 0, false),
        (1, 1 << 12, 0, false),
        (3, 0, 0, true),
        (4, 0, 0, false),
    ];
    for (kind, pcid, address, good) in cases {
        let mut engine = kernel(&[0x66, 0x0f, 0x38, 0x82, 0x03, 0xf4]); // invpcid rax, [rbx]
        write64(&engine.cpu.ram, 0x4000, pcid);
        write64(&engine.cpu.ram, 0x4008, address);
        engine.cpu.s.regs.set(gpr::RAX, kind);
        engine.cpu.s.regs.set(gpr::RBX, 0x4000);
        assert_eq!(
            run(&mut engine),
            if good { KERNEL + 5 } else { handler(13) },
            "{kind} {pcid} {address:x}"
        );
    }
}

/// *SDM vol. 2B RDRAND, RDTSCP; vol. 3A §2.5 (CR4.TSD)*.
#[test]
fn numbers_are_random_and_time_passes() {
    // rdrand rbx; rdrand rsi; rdtscp; hlt
    let mut engine = kernel(&[0x48, 0x0f, 0xc7, 0xf3, 0x48, 0x0f, 0xc7, 0xf6, 0x0f, 0x01, 0xf9, 0xf4]);
    engine.cpu.s.msr.tsc_aux = 77;
    engine.cpu.s.flags.set_all(rflags::STATUS);
    assert_eq!(run(&mut engine), KERNEL + 11);
    let s = &engine.cpu.s;
    assert_ne!(s.regs.get(gpr::RBX), s.regs.get(gpr::RSI));
    assert_eq!(s.flags.get(), rflags::CF);
    assert_eq!(s.regs.get(gpr::RCX), 77);
    let mut engine = user(&[0x0f, 0x31]);
    engine.cpu.s.cr4 |= Cr4::TSD;
    assert_eq!(run(&mut engine), handler(13));
}

/// *SDM vol. 2A INS*: REP INS fills memory and stops exactly at a page that faults.
#[test]
fn rep_ins_restarts_where_it_faulted() {
    let mut engine = kernel(&[0xf3, 0x6c, 0xf4]); // rep insb; hlt
    let regs = &mut engine.cpu.s.regs;
    regs.set(gpr::RDI, HOLE - 100);
    regs.set(gpr::RCX, 300);
    regs.set(gpr::RDX, 0x300);
    write64(&engine.cpu.ram, 0x3018, READ_ONLY | pte::P | pte::W | pte::PS);
    assert_eq!(run(&mut engine), handler(14));
    let regs = &engine.cpu.s.regs;
    assert_eq!((regs.get(gpr::RDI), regs.get(gpr::RCX)), (HOLE, 200));
    assert_eq!(engine.cpu.s.cr2, HOLE);
    let mut last = [0; 2];
    engine.cpu.ram.read(HOLE - 101, &mut last);
    assert_eq!(last, [0, 0xff]);
}

/// *SDM vol. 2B MONITOR, MWAIT*: CPL 0, and a changed line ends the wait at once.
#[test]
fn mwait_always_ends() {
    // monitor; mwait; hlt
    let mut engine = kernel(&[0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0xf4]);
    engine.cpu.s.regs.set(gpr::RAX, 0x4000);
    assert_eq!(run(&mut engine), KERNEL + 6);
    let mut engine = user(&[0x0f, 0x01, 0xc8]);
    assert_eq!(run(&mut engine), handler(6));
}

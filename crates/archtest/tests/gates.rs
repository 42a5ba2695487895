//! Gates outside IA-32e mode: calls, interrupts and traps between privilege
//! levels, and what of tasks and virtual-8086 mode is refused.

use arch::regs::{gpr, rflags};
use archtest::legacy::{gate, kind, sel};
use archtest::{CODE, DATA, Ended, STACK, STUBS, TSS, USER_STACK, World, guest16, guest32, sdm};
use cpu::mmu::walk::PagingMode::None as Off;

/// The gate's selector, RPL 3.
const GATE: u16 = sel::FREE | 3;

guest32!(call_gate, "push 0x33333333", "push 0x22222222", "push 0x11111111", ".byte 0xff, 0x1f", "hlt");
guest32!(jmp_gate, ".byte 0xff, 0x2f");
guest32!(round_trip, "push 7", "push 5", ".byte 0xff, 0x1f", "int3");
guest32!(add_and_return, "mov eax, [esp + 8]", "add eax, [esp + 12]", "retf 8");
guest16!(return16, "mov bp, sp", "mov ax, [bp + 4]", ".byte 0xca, 2, 0");
guest32!(push16_round_trip, ".byte 0x66, 0x6a, 0x55", ".byte 0xff, 0x1f", "int3");
guest32!(int_80, "int 0x80", "int3");
guest32!(iret, "iretd");
guest16!(iret16, "iret");
guest32!(into, "mov al, 127", "add al, 1", "into", "hlt");

fn call_at(w: &mut World, selector: u16) {
    w.write32(DATA, 0xdead_beef); // the offset of a gate's caller is ignored
    w.write32(DATA + 4, u32::from(selector));
    w.cpu().s.regs.set(gpr::RDI, DATA);
}

/// A user program that calls `target` through a gate; INT3 ends it.
fn user(code: &[u8], descriptor: u64) -> World {
    let mut w = World::legacy(code, Off);
    w.descriptor(sel::FREE, descriptor);
    w.gate32(3, gate(kind::INTERRUPT32, 3, sel::KERNEL_CS, STUBS + 48, 0));
    w.legacy_user();
    call_at(&mut w, GATE);
    w
}

#[test]
fn a_call_gate_switches_stacks_and_copies_parameters() {
    sdm("vol. 3A §5.8.5, figure 5-13: SS, ESP, parameters, CS, EIP");
    for count in [0, 1, 3, 31] {
        let target = STUBS + 200 * 16;
        let mut w = user(call_gate(), gate(kind::CALL32, 3, sel::KERNEL_CS | 3, target, count));
        assert_eq!(w.run(20), Ended::Vector(200), "{count} parameters");
        let n = count;
        assert_eq!(w.cpu().s.regs.get(gpr::RSP), STACK - 16 - 4 * n);
        assert_eq!(w.frame32(0), CODE as u32 + call_gate().len() as u32 - 1, "after the CALL");
        assert_eq!(w.frame32(1), u32::from(sel::USER_CS));
        for (i, value) in [0x1111_1111, 0x2222_2222, 0x3333_3333].into_iter().enumerate().take(n as usize) {
            assert_eq!(w.frame32(2 + i as u64), value);
        }
        assert_eq!(u64::from(w.frame32(2 + n)), USER_STACK - 12, "the old ESP");
        assert_eq!(w.frame32(3 + n), u32::from(sel::USER_DS));
        let s = &w.cpu().s;
        assert_eq!((s.cpl, s.seg[1].selector, s.seg[2].selector), (0, sel::KERNEL_CS, sel::KERNEL_DS));
    }
}

#[test]
fn a_far_return_goes_back_and_releases_both_stacks() {
    sdm("vol. 2B, RET, \"RETURN-OUTER-PRIVILEGE-LEVEL\"; vol. 3A §5.8.6");
    let mut w = user(round_trip(), gate(kind::CALL32, 3, sel::KERNEL_CS, CODE + 0x1000, 2));
    w.write(CODE + 0x1000, add_and_return());
    let fs = w.cpu().s.seg[3];
    w.cpu().s.seg[4] =
        cpu::state::Segment { attr: arch::descriptor::Attr::DATA, selector: sel::KERNEL_DS, ..fs };
    assert_eq!(w.run(20), Ended::Vector(3));
    assert_eq!(w.cpu().s.regs.get(gpr::RAX), 12);
    assert_eq!(w.frame32(1), u32::from(sel::USER_CS));
    assert_eq!(u64::from(w.frame32(3)), USER_STACK, "the caller's parameters are gone");
    assert_eq!(w.cpu().s.seg[4].selector, 0, "FS was of DPL 0: null for the outer level");
    assert_eq!(w.cpu().s.seg[3].selector, sel::USER_DS);
}

#[test]
fn sixteen_bit_gates_push_words() {
    sdm("vol. 3A §5.8.3: a 16-bit gate has a 16-bit offset and pushes words");
    let mut w = user(push16_round_trip(), gate(kind::CALL16, 3, sel::CODE16, 0x1_6100, 1));
    w.write64(TSS + 4, 0x8000 | u64::from(sel::DATA16) << 32);
    // What 16 bits hold of EIP and ESP leads back here.
    w.write(0, push16_round_trip());
    w.cpu().s.rip = 0;
    w.write(0x6100, return16());
    assert_eq!(w.run(20), Ended::Vector(3));
    assert_eq!(w.cpu().s.regs.get(gpr::RAX) & 0xffff, 0x55);
    assert_eq!(u64::from(w.frame32(3)) & 0xffff, USER_STACK & 0xffff, "16 bits of the old ESP");
}

#[test]
fn a_sixteen_bit_tss_has_stacks_too() {
    sdm("vol. 3A figure 7-10: SP0 at 2, SS0 at 4");
    let mut w = user(call_gate(), gate(kind::CALL32, 3, sel::KERNEL_CS, STUBS + 200 * 16, 0));
    w.cpu().s.tr.attr = arch::descriptor::Attr(0x8300);
    w.cpu().s.tr.limit = 43;
    w.write64(TSS, 0x8000 << 16 | u64::from(sel::DATA16) << 32);
    assert_eq!(w.run(20), Ended::Vector(200));
    assert_eq!(w.cpu().s.regs.get(gpr::RSP) & 0xffff, 0x7ff0);
    assert_eq!(w.cpu().s.seg[2].selector, sel::DATA16);
    assert_eq!(w.frame32(1), u32::from(sel::USER_CS));
}

#[test]
fn a_call_at_the_same_level_keeps_the_stack() {
    sdm("vol. 2A, CALL, \"SAME-PRIVILEGE\"; conforming code is called at the caller's level");
    let mut w = World::legacy(call_gate(), Off);
    w.descriptor(sel::FREE, gate(kind::CALL32, 0, sel::KERNEL_CS, STUBS + 200 * 16, 3));
    call_at(&mut w, sel::FREE);
    assert_eq!(w.run(20), Ended::Vector(200));
    assert_eq!(w.cpu().s.regs.get(gpr::RSP), STACK - 12 - 8);
    assert_eq!(w.frame32(1), u32::from(sel::KERNEL_CS));
    // A JMP pushes nothing.
    let mut w = World::legacy(jmp_gate(), Off);
    w.descriptor(sel::FREE, gate(kind::CALL32, 0, sel::KERNEL_CS, STUBS + 200 * 16, 3));
    call_at(&mut w, sel::FREE);
    assert_eq!(w.run(20), Ended::Vector(200));
    assert_eq!(w.cpu().s.regs.get(gpr::RSP), STACK);
}

#[test]
fn call_gates_check_what_the_sdm_lists() {
    sdm("vol. 2A, CALL, \"CALL-GATE\" and \"MORE-PRIVILEGE\", in their order");
    let gate_code = u32::from(sel::FREE);
    let target = STUBS + 200 * 16;
    let good = gate(kind::CALL32, 3, sel::KERNEL_CS, target, 0);
    let code = u32::from(sel::KERNEL_CS);
    let cases = [
        ("DPL below CPL", gate(kind::CALL32, 0, sel::KERNEL_CS, target, 0), 13, gate_code),
        ("not present", good & !(1 << 47), 11, gate_code),
        ("null target", gate(kind::CALL32, 3, 0, target, 0), 13, 0),
        ("beyond the table", gate(kind::CALL32, 3, 0x800, target, 0), 13, 0x800),
        ("data", gate(kind::CALL32, 3, sel::KERNEL_DS, target, 0), 13, u32::from(sel::KERNEL_DS)),
        ("beyond the limit", gate(kind::CALL32, 3, sel::CODE16, 0x1_0000, 0), 13, 0),
        ("an interrupt gate", gate(kind::INTERRUPT32, 3, sel::KERNEL_CS, target, 0), 13, gate_code),
    ];
    for (what, descriptor, vector, error) in cases {
        let mut w = user(call_gate(), descriptor);
        assert_eq!((w.run(20), w.frame32(0)), (Ended::Vector(vector), error), "{what}");
        assert_eq!(u64::from(w.frame32(1)), CODE + call_gate().len() as u64 - 3, "{what}: the CALL itself");
        assert_eq!(u64::from(w.frame32(4)), USER_STACK - 12, "{what}: the stack as before");
    }
    // A JMP may not go inward.
    let mut w = user(jmp_gate(), good);
    assert_eq!((w.run(20), w.frame32(0)), (Ended::Vector(13), code));
    // The inner stack; the fault itself is delivered on a good one of 16-bit gate vectors.
    for (what, ss, esp, vector, error) in [
        ("null SS", 0, STACK, 10, 0),
        ("SS of DPL 3", sel::USER_DS & !3, STACK, 10, u32::from(sel::USER_DS & !3)),
        ("SS beyond the table", 0x7f8, STACK, 10, 0x7f8),
        ("no room", sel::DATA16, 8, 12, u32::from(sel::DATA16)),
    ] {
        let mut w = user(call_gate(), good);
        w.write64(TSS + 4, esp | u64::from(ss) << 32);
        // Delivery at CPL 3, in conforming code, needs no other stack.
        w.segment(sel::FREE + 8, 0, 0xffff, 0x0040_9e00);
        for v in [10, 12, 13] {
            w.gate32(v, gate(kind::INTERRUPT32, 0, sel::FREE + 8, STUBS + u64::from(v) * 16, 0));
        }
        // HLT there is #GP in turn, at the same place.
        let _ = w.run(6);
        let stack = USER_STACK - 12;
        let at = |n: u64| w.read32(stack - 4 * n);
        assert_eq!(at(1) & 0x3000, 0, "{what}");
        assert_eq!(at(2), u32::from(sel::USER_CS), "{what}");
        assert_eq!(u64::from(at(3)), CODE + call_gate().len() as u64 - 3, "{what}");
        assert_eq!(at(4), error, "{what}");
        let handler = u64::from(w.read32(stack - 28));
        assert_eq!(handler, STUBS + vector * 16, "{what}: #{vector}");
    }
    // A TSS that ends before the stack pointer.
    let mut w = user(call_gate(), good);
    w.cpu().s.tr.limit = 8;
    assert_eq!(w.run(20), Ended::Shutdown, "#TS, and its delivery fails likewise");
}

#[test]
fn interrupts_come_in_and_go_back() {
    sdm("vol. 3A §6.12.1, figure 6-4; vol. 2A, IRET");
    for (gate_kind, wide) in
        [(kind::INTERRUPT32, true), (kind::INTERRUPT16, false), (kind::TRAP32, true), (kind::TRAP16, false)]
    {
        let mut w = user(int_80(), 0);
        let selector = if wide { sel::KERNEL_CS } else { sel::CODE16 };
        w.gate32(0x80, gate(gate_kind, 3, selector, 0x6100, 0));
        w.write(0x6100, if wide { iret() } else { iret16() });
        w.cpu().s.rflags |= rflags::IF;
        if !wide {
            // What a 16-bit frame holds of EIP and ESP leads back here.
            w.write(0, int_80());
            w.cpu().s.rip = 0;
        }
        assert_eq!(w.run(20), Ended::Vector(3), "{gate_kind}");
        let mask = if wide { u64::MAX } else { 0xffff };
        assert_eq!(u64::from(w.frame32(3)) & mask, USER_STACK & mask, "{gate_kind}");
        assert_eq!(u64::from(w.frame32(2)) & rflags::IF, rflags::IF, "{gate_kind}");
        assert_eq!(w.frame32(1), u32::from(sel::USER_CS));
    }
}

#[test]
fn trap_gates_leave_interrupts_on() {
    sdm("vol. 3A §6.12.1.2");
    for (gate_kind, expected) in [(kind::INTERRUPT32, 0), (kind::TRAP32, rflags::IF)] {
        let mut w = user(int_80(), 0);
        w.gate32(0x80, gate(gate_kind, 3, sel::KERNEL_CS, STUBS + 0x80 * 16, 0));
        w.cpu().s.rflags |= rflags::IF;
        assert_eq!(w.run(20), Ended::Vector(0x80));
        assert_eq!(w.cpu().s.rflags & rflags::IF, expected);
        assert_eq!(w.cpu().s.regs.get(gpr::RSP), STACK - 20);
    }
}

#[test]
fn into_is_a_trap_of_its_own() {
    sdm("vol. 2A, INTO");
    let mut w = World::legacy(into(), Off);
    assert_eq!(w.run(20), Ended::Vector(4));
    assert_eq!(u64::from(w.frame32(0)), CODE + into().len() as u64 - 1);
}

/// What is not implemented is refused with `#GP` and counted: `docs/cpu.md`.
#[test]
fn task_switches_are_refused_and_counted() {
    sdm("vol. 3A §7.3 has them; Kluis does not");
    let refused = |mut w: World, error: u32, at: u64| {
        assert_eq!(w.run(20), Ended::Vector(13));
        assert_eq!(w.frame32(0), error);
        assert_eq!(u64::from(w.frame32(1)), at);
        assert_eq!(w.cpu().unimplemented.len(), 1, "counted");
    };
    // A task gate of the IDT.
    let w = World::legacy(int_80(), Off);
    w.gate32(0x80, gate(kind::TASK, 3, sel::TSS, 0, 0));
    refused(w, 0x80 << 3 | 2, CODE);
    // A far JMP and CALL to a task gate and to a TSS.
    for (code, at) in [(jmp_gate(), 0), (call_gate(), call_gate().len() as u64 - 3)] {
        for descriptor in [gate(kind::TASK, 0, sel::TSS, 0, 0), 0x0000_8900_7800_0067, 0x0000_8100_7800_002b]
        {
            let mut w = World::legacy(code, Off);
            w.descriptor(sel::FREE, descriptor);
            call_at(&mut w, sel::FREE);
            refused(w, u32::from(sel::FREE), CODE + at);
        }
    }
    // IRET from a nested task.
    let mut w = World::legacy(iret(), Off);
    w.cpu().s.rflags |= rflags::NT;
    refused(w, 0, CODE);
}

#[test]
fn virtual_8086_mode_is_refused_and_counted() {
    sdm("vol. 3B §20.2.5: IRET with VM set in the image, at CPL 0; CPUID has no VME");
    let mut w = World::legacy(iret(), Off);
    let frame = [0x100, 0, (rflags::VM | rflags::FIXED) as u32, 0x8000, 0, 0, 0, 0, 0];
    let rsp = STACK - 4 * frame.len() as u64;
    for (at, word) in (rsp..).step_by(4).zip(frame) {
        w.write32(at, word);
    }
    w.cpu().s.regs.set(gpr::RSP, rsp);
    assert_eq!((w.run(20), w.frame32(0)), (Ended::Vector(13), 0));
    assert_eq!(u64::from(w.frame32(1)), CODE);
    assert_eq!(w.cpu().unimplemented.len(), 1);
    assert_eq!(w.cpu().cpuid(1, 0).edx & 2, 0, "VME");
    // From an outer level VM stays what it was: clear.
    let mut w = user(iret(), 0);
    let frame = [CODE as u32 + 0x40, u32::from(sel::USER_CS), (rflags::VM | rflags::FIXED) as u32];
    for (at, word) in (USER_STACK - 12..).step_by(4).zip(frame) {
        w.write32(at, word);
    }
    w.write(CODE + 0x40, &[0xcc]);
    w.cpu().s.regs.set(gpr::RSP, USER_STACK - 12);
    assert_eq!(w.run(20), Ended::Vector(3));
    assert_eq!(u64::from(w.frame32(2)) & rflags::VM, 0);
}

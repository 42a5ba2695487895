//! Segments outside 64-bit mode: limits, types, null selectors, conforming
//! code, and the instructions that inspect descriptors.

use arch::regs::{Seg, gpr, rflags};
use archtest::legacy::sel;
use archtest::{CODE, DATA, Ended, STACK, World, guest16, guest32, sdm};
use cpu::mmu::walk::PagingMode::None as Off;

guest32!(load_ds_read, "mov ds, ax", "mov ebx, [edi]", "hlt");
guest32!(load_ds_write, "mov ds, ax", "mov [edi], ebx", "hlt");
guest32!(load_ds, "mov ds, ax", "hlt");
guest32!(load_ss, "mov ss, ax", "hlt");
guest32!(cs_write, "mov cs:[edi], eax", "hlt");
guest32!(cs_read, "mov eax, cs:[edi]", "hlt");
guest32!(
    inspect,
    "lar ebx, ax",
    "pushfd",
    "lsl ecx, ax",
    "pushfd",
    "verr ax",
    "pushfd",
    "verw ax",
    "pushfd",
    "hlt"
);
guest32!(arpl, "arpl ax, bx", "pushfd", "hlt");
guest32!(far_jump, ".byte 0xff, 0x2f");
guest32!(halt, "hlt");
guest32!(nops, "nop", "nop", "nop", "nop", "hlt");
guest32!(wide_nops, "nop", "mov eax, 0x12345678", "hlt");

/// Attributes of descriptors: present, DPL 0, 32-bit, byte-granular.
mod attr {
    pub(super) const READ: u32 = 0x0040_9000;
    pub(super) const WRITE: u32 = 0x0040_9200;
    pub(super) const DOWN: u32 = 0x0040_9600;
    pub(super) const DOWN16: u32 = 0x0000_9600;
    pub(super) const EXECUTE: u32 = 0x0040_9800;
    pub(super) const CODE: u32 = 0x0040_9a00;
    pub(super) const CONFORMING: u32 = 0x0040_9e00;
    pub(super) const DPL3: u32 = 3 << 13;
    pub(super) const PRESENT: u32 = 1 << 15;
}

/// Runs `code` with EAX naming a segment at [`DATA`] and EDI an offset in it.
fn with_segment(code: &[u8], limit: u32, attributes: u32, offset: u64) -> (World, Ended) {
    let mut w = World::legacy(code, Off);
    w.segment(sel::FREE, DATA as u32, limit, attributes);
    w.cpu().s.regs.set(gpr::RAX, u64::from(sel::FREE));
    w.cpu().s.regs.set(gpr::RDI, offset);
    let ended = w.run(10);
    (w, ended)
}

#[test]
fn limits_hold_to_the_byte() {
    sdm(
        "vol. 3A §5.3: the effective limit is the last address allowed; expand-down: from limit + 1 to FFFFh or FFFFFFFFh",
    );
    for (attributes, limit, offset, good) in [
        (attr::WRITE, 0xff, 0xfc, true),
        (attr::WRITE, 0xff, 0xfd, false),
        (attr::WRITE, 0xff, 0x100, false),
        (attr::WRITE, 0xff, 0xffff_ffff, false),
        (attr::WRITE, 3, 0, true),
        (attr::WRITE, 2, 0, false),
        (attr::DOWN, 0xff, 0x100, true),
        (attr::DOWN, 0xff, 0xff, false),
        (attr::DOWN, 0xff, 0, false),
        (attr::DOWN, 0xff, 0xffff_fffc, true),
        (attr::DOWN, 0xff, 0xffff_fffd, false),
        (attr::DOWN16, 0xff, 0xfffc, true),
        (attr::DOWN16, 0xff, 0xfffd, false),
        (attr::DOWN16, 0xff, 0x1_0000, false),
    ] {
        for code in [load_ds_read(), load_ds_write()] {
            let (mut w, ended) = with_segment(code, limit, attributes, offset);
            let what = format!("{attributes:x} limit {limit:x} offset {offset:x}");
            assert_eq!(ended, if good { Ended::Halt } else { Ended::Vector(13) }, "{what}");
            if !good {
                assert_eq!(w.frame32(0), 0, "{what}: #GP(0)");
            }
        }
    }
}

#[test]
fn types_say_what_may_be_done() {
    sdm("vol. 3A §5.4.1, table 3-1");
    for (attributes, load, read, write) in [
        (attr::READ, true, true, false),
        (attr::WRITE, true, true, true),
        (attr::EXECUTE, false, false, false),
        (attr::CODE, true, true, false),
        (attr::CONFORMING, true, true, false),
        (0x0040_8200, false, false, false), // an LDT
    ] {
        let ends = |good: bool| if good { Ended::Halt } else { Ended::Vector(13) };
        let (mut w, ended) = with_segment(load_ds(), 0xff, attributes, 0);
        assert_eq!(ended, ends(load), "{attributes:x}");
        if !load {
            assert_eq!(w.frame32(0), u32::from(sel::FREE), "{attributes:x}: the selector");
        }
        assert_eq!(with_segment(load_ds_read(), 0xff, attributes, 0).1, ends(read), "{attributes:x}");
        assert_eq!(with_segment(load_ds_write(), 0xff, attributes, 0).1, ends(write), "{attributes:x}");
    }
    let mut w = World::legacy(cs_write(), Off);
    w.cpu().s.regs.set(gpr::RDI, DATA);
    assert_eq!(w.run(10), Ended::Vector(13), "code cannot be written");
    let mut w = World::legacy(cs_read(), Off);
    w.cpu().s.regs.set(gpr::RDI, DATA);
    assert_eq!(w.run(10), Ended::Halt);
    let mut w = World::legacy(cs_read(), Off);
    w.cpu().s.regs.set(gpr::RDI, DATA);
    w.cpu().s.seg[1].attr.0 &= !(1 << 9);
    assert_eq!(w.run(10), Ended::Vector(13), "execute-only code cannot be read");
}

#[test]
fn loading_checks_presence_and_table() {
    sdm("vol. 2B, MOV: #NP(selector); #SS(selector) for SS; #GP(selector) beyond the table; accessed bit");
    let (mut w, ended) = with_segment(load_ds(), 0xff, attr::WRITE & !attr::PRESENT, 0);
    assert_eq!((ended, w.frame32(0)), (Ended::Vector(11), u32::from(sel::FREE)));
    let (mut w, ended) = with_segment(load_ss(), 0xff, attr::WRITE & !attr::PRESENT, 0);
    assert_eq!((ended, w.frame32(0)), (Ended::Vector(12), u32::from(sel::FREE)));
    for bad in [attr::READ, attr::CODE, attr::WRITE | attr::DPL3] {
        let (mut w, ended) = with_segment(load_ss(), 0xff, bad, 0);
        assert_eq!((ended, w.frame32(0)), (Ended::Vector(13), u32::from(sel::FREE)), "{bad:x}");
    }
    for selector in [0x800u16, 0xfff8, sel::FREE | 4] {
        let mut w = World::legacy(load_ds(), Off);
        w.cpu().s.regs.set(gpr::RAX, u64::from(selector));
        assert_eq!((w.run(10), w.frame32(0)), (Ended::Vector(13), u32::from(selector)));
    }
    let (w, _) = with_segment(load_ds(), 0xff, attr::WRITE, 0);
    assert_eq!(w.read64(archtest::GDT + u64::from(sel::FREE)) >> 40 & 1, 1, "accessed");
}

#[test]
fn a_null_selector_loads_and_faults_when_used() {
    sdm("vol. 3A §3.4.2, §5.4.1");
    for null in 0..4 {
        for (code, expected) in
            [(load_ds(), Ended::Halt), (load_ds_read(), Ended::Vector(13)), (load_ss(), Ended::Vector(13))]
        {
            let mut w = World::legacy(code, Off);
            w.cpu().s.regs.set(gpr::RAX, null);
            w.cpu().s.regs.set(gpr::RDI, DATA);
            assert_eq!(w.run(10), expected);
            if expected != Ended::Halt {
                assert_eq!(w.frame32(0), 0);
            }
        }
    }
}

#[test]
fn the_ldt_is_a_table_of_its_own() {
    sdm("vol. 3A §3.5.1: TI of the selector");
    guest32!(through_ldt, "lldt cx", "mov ds, ax", "mov ebx, [edi]", "hlt");
    let mut w = World::legacy(through_ldt(), Off);
    w.segment(sel::FREE, 0x6000, 0x17, 0x8200);
    w.write64(
        0x6010,
        arch::descriptor::Descriptor::new(DATA as u32, 0xff, arch::descriptor::Attr(attr::WRITE)).0,
    );
    w.write32(DATA + 8, 77);
    w.cpu().s.regs.set(gpr::RAX, 0x10 | 4);
    w.cpu().s.regs.set(gpr::RCX, u64::from(sel::FREE));
    w.cpu().s.regs.set(gpr::RDI, 8);
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RBX), 77);
}

/// What LAR, LSL, VERR, VERW say: ZF of each, and the two values.
fn inspected(selector: u16, descriptor: u64, user: bool) -> ([bool; 4], u32, u32) {
    let mut w = World::legacy(inspect(), Off);
    if user {
        w.legacy_user();
        // HLT is #GP there; what was pushed is on the user's stack by then.
    }
    w.descriptor(sel::FREE, descriptor);
    w.cpu().s.regs.set(gpr::RAX, u64::from(selector));
    let top = w.cpu().s.regs.get(gpr::RSP);
    assert_eq!(w.run(20), if user { Ended::Vector(13) } else { Ended::Halt });
    let zf = |n: u64| u64::from(w.read32(top - 4 * n)) & rflags::ZF != 0;
    let flags = [zf(1), zf(2), zf(3), zf(4)];
    (flags, w.cpu().s.regs.get(gpr::RBX) as u32, w.cpu().s.regs.get(gpr::RCX) as u32)
}

#[test]
fn descriptors_are_inspected_by_type_and_privilege() {
    sdm("vol. 2A, LAR table 3-53, LSL table 3-56; vol. 2B, VERR/VERW");
    let of = |base: u32, limit: u32, attributes: u32| {
        arch::descriptor::Descriptor::new(base, limit, arch::descriptor::Attr(attributes)).0
    };
    let code_or_data = [
        (attr::READ, [true, true, true, false]),
        (attr::WRITE, [true, true, true, true]),
        (attr::EXECUTE, [true, true, false, false]),
        (attr::CODE, [true, true, true, false]),
        // The granularity makes 12345h pages of it.
        (attr::WRITE | 1 << 23, [true, true, true, true]),
    ];
    for (attributes, expected) in code_or_data {
        let (flags, rights, limit) = inspected(sel::FREE, of(0, 0x1_2345, attributes), false);
        assert_eq!(flags, expected, "{attributes:x}");
        assert_eq!(rights & 0x00f0_ff00, attributes);
        assert_eq!(limit, if attributes >> 23 & 1 != 0 { 0x1234_5fff } else { 0x1_2345 });
        // Of DPL 0, for CPL 3 or RPL 3: not visible.
        assert_eq!(inspected(sel::FREE, of(0, 9, attributes), true).0, [false; 4], "{attributes:x}");
        assert_eq!(inspected(sel::FREE | 3, of(0, 9, attributes), false).0, [false; 4], "{attributes:x}");
        let visible = inspected(sel::FREE, of(0, 9, attributes | attr::DPL3), true);
        assert_eq!(visible.0, expected, "{attributes:x} of DPL 3");
    }
    // "The segment is not a conforming code segment, and …"
    assert_eq!(inspected(sel::FREE, of(0, 9, attr::CONFORMING), true).0, [true, true, true, false]);
    // System types: LAR, LSL.
    let valid = [
        (1, true, true),
        (2, true, true),
        (3, true, true),
        (4, true, false),
        (5, true, false),
        (9, true, true),
        (11, true, true),
        (12, true, false),
    ];
    for kind in 0..16 {
        let (flags, rights, _) = inspected(sel::FREE, of(0, 9, 0x8000 | kind << 8), false);
        let (_, lar, lsl) = valid.into_iter().find(|v| v.0 == kind).unwrap_or((kind, false, false));
        assert_eq!(flags, [lar, lsl, false, false], "system type {kind}");
        if lar {
            assert_eq!(rights & 0xff00, 0x8000 | kind << 8);
        }
    }
    assert_eq!(inspected(0, 0, false).0, [false; 4], "null");
    assert_eq!(inspected(0x800, 0, false).0, [false; 4], "beyond the table");
}

#[test]
fn arpl_raises_the_rpl() {
    sdm("vol. 2A, ARPL");
    for dst in 0..4u64 {
        for src in 0..4u64 {
            let mut w = World::legacy(arpl(), Off);
            w.cpu().s.regs.set(gpr::RAX, 0x1230 | dst);
            w.cpu().s.regs.set(gpr::RBX, 0x4560 | src);
            assert_eq!(w.run(10), Ended::Halt);
            assert_eq!(w.cpu().s.regs.get(gpr::RAX), 0x1230 | dst.max(src));
            assert_eq!(u64::from(w.frame32(0)) & rflags::ZF != 0, dst < src);
        }
    }
}

#[test]
fn code_stops_at_the_limit() {
    sdm("vol. 3A §5.3: an instruction beyond the code segment's limit, or across it, is #GP(0)");
    for limit in 0..5u32 {
        let mut w = World::legacy(nops(), Off);
        // Decoded first through a flat segment: what is cached must not matter.
        assert_eq!(w.run(10), Ended::Halt);
        w.segment(sel::FREE, CODE as u32, limit, attr::CODE);
        w.cpu().set_segment_from_gdt(Seg::Cs, sel::FREE).unwrap();
        w.cpu().s.rip = 0;
        w.cpu().activity = cpu::Activity::Active;
        w.cpu().state_changed();
        let ended = w.run(10);
        if limit == 4 {
            assert_eq!(ended, Ended::Halt);
        } else {
            assert_eq!((ended, w.frame32(0)), (Ended::Vector(13), 0), "limit {limit}");
            assert_eq!(w.frame32(1), limit + 1);
        }
    }
    for limit in 0..7u32 {
        let mut w = World::legacy(wide_nops(), Off);
        w.segment(sel::FREE, CODE as u32, limit, attr::CODE);
        w.cpu().set_segment_from_gdt(Seg::Cs, sel::FREE).unwrap();
        w.cpu().s.rip = 0;
        w.cpu().state_changed();
        let ended = w.run(10);
        if limit == 6 {
            assert_eq!(ended, Ended::Halt);
        } else {
            assert_eq!((ended, w.frame32(0)), (Ended::Vector(13), 0), "limit {limit}");
            assert_eq!(w.frame32(1), if limit == 5 { 6 } else { 1 }, "limit {limit}");
        }
    }
}

#[test]
fn far_jumps_check_type_privilege_and_limit() {
    sdm("vol. 2A, JMP, \"CONFORMING-CODE-SEGMENT\", \"NONCONFORMING-CODE-SEGMENT\"");
    let target = |attributes: u32, selector: u16, offset: u32, user: bool| {
        let mut w = World::legacy(far_jump(), Off);
        w.segment(sel::FREE, CODE as u32, 0xffff, attributes);
        w.write(CODE + 0x100, halt());
        w.write32(DATA, offset);
        w.write32(DATA + 4, u32::from(selector));
        if user {
            w.legacy_user();
        }
        w.cpu().s.regs.set(gpr::RDI, DATA);
        let ended = w.run(10);
        (ended, w.frame32(0), w.cpu().s.seg[1].selector)
    };
    let bad = u32::from(sel::FREE);
    assert_eq!(target(attr::CODE, sel::FREE, 0x100, false).0, Ended::Halt);
    assert_eq!(
        target(attr::CODE | attr::DPL3, sel::FREE, 0x100, false),
        (Ended::Vector(13), bad, sel::KERNEL_CS)
    );
    assert_eq!(target(attr::CODE, sel::FREE | 3, 0x100, false), (Ended::Vector(13), bad, sel::KERNEL_CS));
    assert_eq!(target(attr::WRITE, sel::FREE, 0x100, false).0, Ended::Vector(13));
    assert_eq!(target(attr::CODE & !attr::PRESENT, sel::FREE, 0x100, false).0, Ended::Vector(11));
    assert_eq!(target(attr::CODE, sel::FREE, 0x1_0000, false), (Ended::Vector(13), 0, sel::KERNEL_CS));
    assert_eq!(target(attr::CODE, 0, 0x100, false), (Ended::Vector(13), 0, sel::KERNEL_CS));
    // Conforming code keeps the privilege level: HLT there is #GP at CPL 3.
    let mut w = World::legacy(far_jump(), Off);
    w.segment(sel::FREE, CODE as u32, 0xffff, attr::CONFORMING);
    w.write(CODE + 0x100, halt());
    w.write32(DATA, 0x100);
    w.write32(DATA + 4, u32::from(sel::FREE));
    w.legacy_user().cpu().s.regs.set(gpr::RDI, DATA);
    assert_eq!(w.run(10), Ended::Vector(13));
    assert_eq!((w.frame32(1), w.frame32(2)), (0x100, u32::from(sel::FREE) | 3));
    assert_eq!(target(attr::CODE, sel::FREE, 0x100, true).0, Ended::Vector(13));
}

#[test]
fn a_sixteen_bit_stack_wraps_at_64k() {
    sdm("vol. 3A §3.4.5, B flag; vol. 2B, PUSH: SP of 16 bits");
    guest32!(push_pop, "push 0x11223344", "pop ebx", "hlt");
    let mut w = World::legacy(push_pop(), Off);
    w.segment(sel::FREE, DATA as u32, 0xffff, 0x9200);
    w.cpu().set_segment_from_gdt(Seg::Ss, sel::FREE).unwrap();
    w.cpu().s.regs.set(gpr::RSP, 0x1234_0000);
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(w.cpu().s.regs.get(gpr::RBX), 0x1122_3344);
    assert_eq!(w.read32(DATA + 0xfffc), 0x1122_3344);
    assert_eq!(w.cpu().s.regs.get(gpr::RSP), 0x1234_0000);
    // With two bytes left it does not wrap inside the push.
    let mut w = World::legacy(push_pop(), Off);
    w.segment(sel::FREE, DATA as u32, 0xffff, 0x9200);
    w.cpu().set_segment_from_gdt(Seg::Ss, sel::FREE).unwrap();
    w.cpu().s.regs.set(gpr::RSP, 2);
    // #SS's own frame does not fit either: double and triple fault.
    assert_eq!(w.run(10), Ended::Shutdown);
}

#[test]
fn sixteen_bit_code_in_protected_mode() {
    sdm("vol. 3A §3.4.5, D flag; vol. 2A §2.1.1: prefixes 66H and 67H select the other size");
    guest16!(
        mixed,
        "mov ax, 0x1234",
        "mov ebx, 0x12345678",
        "mov cx, [si]",
        "mov edx, [esi]",
        "push eax",
        "push 5",
        "hlt"
    );
    let mut w = World::legacy(mixed(), Off);
    w.segment(sel::FREE, CODE as u32, 0xffff, 0x9a00);
    w.cpu().set_segment_from_gdt(Seg::Cs, sel::FREE).unwrap();
    w.cpu().s.rip = 0;
    w.write32(0x3000, 0xaabb_ccdd);
    w.write32(DATA, 0x1122_3344);
    let regs = &mut w.cpu().s.regs;
    regs.set(gpr::RSI, 0x20_3000);
    regs.set(gpr::RAX, 0);
    w.write32(DATA + 0x3000, 0x1122_3344);
    assert_eq!(w.run(20), Ended::Halt);
    let regs = w.cpu().s.regs;
    assert_eq!(regs.get(gpr::RAX), 0x1234);
    assert_eq!(regs.get(gpr::RBX), 0x1234_5678);
    assert_eq!(regs.get(gpr::RCX) & 0xffff, 0xccdd, "[si] is offset 3000h");
    assert_eq!(regs.get(gpr::RDX), 0x1122_3344, "[esi] is all of it");
    assert_eq!(regs.get(gpr::RSP), STACK - 6);
}

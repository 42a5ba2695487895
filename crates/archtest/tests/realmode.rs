//! Real-address mode: addresses, limits, interrupts, and the ways in and out.

use arch::regs::{Cr0, Seg, gpr, rflags};
use archtest::legacy::{REAL_CS, REAL_SS, sel};
use archtest::{DATA, Ended, GDT, World, guest16, guest32, sdm};

guest16!(read_word, "mov ax, [si]", "hlt");
guest16!(read_es, "mov es, bx", "mov ax, es:[si]", "hlt");
guest16!(int_33, "int 0x33", "hlt");
guest16!(int_and_iret, "int 0x33", "inc bx", "hlt");
guest16!(handler, "inc ax", "iret");
guest16!(divide, "xor cx, cx", "div cx", "hlt");
guest16!(far_call, ".byte 0x9a, 0x20, 0, 0, 0x18", "hlt");
guest16!(far_code, "mov ax, cs", ".byte 0xcb");
guest16!(jump_over_the_end, "jmp bx");
guest16!(nop, "nop");
guest16!(call_wraps, ".byte 0xe8, 0, 0", "pop ax", "hlt");

fn get(w: &mut World, n: usize) -> u64 {
    w.cpu().s.regs.get(n)
}

#[test]
fn addresses_are_segment_times_sixteen() {
    sdm("vol. 3B §20.1.1; A20 is never masked: FFFF:0010 is 100000h");
    for (segment, offset, la) in
        [(0x1234u16, 0x10u64, 0x1_2350u64), (0xffff, 0x10, 0x10_0000), (0xffff, 0xfffe, 0x10_ffee)]
    {
        let mut w = World::real(read_es());
        w.write(la, &[0x77, 0x66]);
        w.cpu().s.regs.set(gpr::RBX, u64::from(segment));
        w.cpu().s.regs.set(gpr::RSI, offset);
        assert_eq!(w.run(10), Ended::Halt);
        assert_eq!(get(&mut w, gpr::RAX), 0x6677, "{segment:x}:{offset:x}");
    }
}

#[test]
fn an_access_across_the_end_of_a_segment_is_gp() {
    sdm("vol. 3B §20.1.1: effective addresses above FFFFh; vol. 3A §5.3");
    for (offset, good) in [(0xfffe, true), (0xffff, false)] {
        let mut w = World::real(read_word());
        w.cpu().s.regs.set(gpr::RSI, offset);
        assert_eq!(w.run(10), if good { Ended::Halt } else { Ended::Vector(13) });
    }
    // No error code: IP, CS, FLAGS.
    let mut w = World::real(read_word());
    w.cpu().s.regs.set(gpr::RSI, 0xffff);
    w.run(10);
    assert_eq!((get(&mut w, gpr::RSP), w.frame16(0), w.frame16(1)), (0x1000 - 6, 0, REAL_CS));
}

#[test]
fn interrupts_go_by_the_vector_table() {
    sdm("vol. 3B §20.1.4");
    let mut w = World::real(int_33());
    w.cpu().s.rflags |= rflags::IF | rflags::AC;
    assert_eq!(w.run(10), Ended::Vector(0x33));
    assert_eq!((w.frame16(0), w.frame16(1)), (2, REAL_CS));
    assert_ne!(u64::from(w.frame16(2)) & rflags::IF, 0);
    assert_eq!(w.cpu().s.rflags & (rflags::IF | rflags::TF | rflags::AC), 0);
    // There and back; `INC` proves the return.
    let mut w = World::real(int_and_iret());
    w.write(0x1_8000, handler());
    w.write32(0x33 * 4, 0x1800_0000);
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!((get(&mut w, gpr::RAX), get(&mut w, gpr::RBX), get(&mut w, gpr::RSP)), (1, 1, 0x1000));
    // A fault returns to the instruction.
    let mut w = World::real(divide());
    assert_eq!(w.run(10), Ended::Vector(0));
    assert_eq!(w.frame16(0), 2);
    // LIDT may move the table; beyond its limit is #GP, whose own vector then decides.
    let mut w = World::real(int_33());
    w.cpu().s.idtr.limit = 0x33 * 4 + 2;
    assert_eq!(w.run(10), Ended::Vector(13));
    let mut w = World::real(int_33());
    w.cpu().s.idtr.limit = 0;
    assert_eq!(w.run(10), Ended::Shutdown);
}

#[test]
fn far_calls_push_two_words() {
    sdm("vol. 2A, CALL, real-address mode");
    let mut w = World::real(far_call());
    w.write(0x1_8020, far_code());
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!((get(&mut w, gpr::RAX), get(&mut w, gpr::RSP)), (0x1800, 0x1000));
    assert_eq!(w.cpu().s.seg[1].selector, REAL_CS);
}

#[test]
fn code_ends_at_64k() {
    sdm("vol. 3A §5.3: an instruction fetch beyond the limit is #GP(0)");
    let mut w = World::real(jump_over_the_end());
    w.write(0x1_0000 + 0xffff, nop());
    w.cpu().s.regs.set(gpr::RBX, 0xffff);
    assert_eq!(w.run(10), Ended::Vector(13));
    // IP as it is pushed has 16 bits.
    assert_eq!(w.frame16(0), 0);
    // The same in the middle of a page, and an instruction across the end.
    for (base, bytes, ip) in
        [(0x1080u16, &[0x90u8][..], 0u16), (0x1080, &[0xb8, 1, 2], 0xffff), (0x1000, &[0xb8, 1, 2], 0xffff)]
    {
        let mut w = World::real(jump_over_the_end());
        w.write(u64::from(base) << 4, jump_over_the_end());
        w.write((u64::from(base) << 4) + 0xffff, bytes);
        w.cpu().s.seg[1].selector = base;
        w.cpu().s.seg[1].base = u64::from(base) << 4;
        w.cpu().s.regs.set(gpr::RBX, 0xffff);
        w.cpu().state_changed();
        assert_eq!((w.run(10), w.frame16(0)), (Ended::Vector(13), ip), "{base:x}");
    }
}

#[test]
fn a_near_call_pushes_sixteen_bits() {
    sdm("vol. 2A, CALL; vol. 2B, PUSH");
    let mut w = World::real(call_wraps());
    w.cpu().s.regs.set(gpr::RSP, 0x1234_0000);
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(get(&mut w, gpr::RAX), 3);
    assert_eq!(get(&mut w, gpr::RSP), 0x1234_0000, "SP alone moves");
    assert_eq!(w.read32((u64::from(REAL_SS) << 4) + 0xfffe) & 0xffff, 3);
}

guest16!(
    unreal,
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    "mov fs, bx",
    "and al, 0xfe",
    "mov cr0, eax",
    "mov fs, cx",
    "mov edx, fs:[esi]",
    "hlt"
);

#[test]
fn limits_outlive_protected_mode() {
    sdm(
        "vol. 3A §9.9.2: the segment registers' hidden parts stay; real mode changes selector and base alone",
    );
    let mut w = World::real(unreal());
    w.write32(DATA + 0x20, 77);
    let regs = &mut w.cpu().s.regs;
    regs.set(gpr::RBX, u64::from(sel::KERNEL_DS));
    regs.set(gpr::RCX, 2);
    regs.set(gpr::RSI, DATA);
    assert_eq!(w.run(20), Ended::Halt);
    assert_eq!(get(&mut w, gpr::RDX), 77);
    assert!(!w.cpu().s.cr0.contains(Cr0::PE));
    assert_eq!(w.cpu().s.seg[Seg::Fs as usize].selector, 2);
}

guest16!(
    trampoline,
    "lgdt cs:[0x100]",
    "mov eax, cr0",
    "or al, 1",
    "mov cr0, eax",
    // A far jump to 0080:00018000, 32 bits wide.
    ".byte 0x66, 0xea",
    ".long 0x18000",
    ".word 0x80",
);
guest32!(
    protected,
    "mov ax, 0x88",
    "mov ds, ax",
    "mov ss, ax",
    "mov esp, 0x300000",
    "push 0x1234567",
    "pop ebx",
    "mov cl, [0x200000]",
    "hlt"
);

#[test]
fn a_trampoline_reaches_protected_mode() {
    sdm("vol. 3A §9.9.1: switching to protected mode, as start-up code of other processors does it");
    let mut w = World::real(trampoline());
    w.write(0x1_8000, protected());
    w.write(0x1_0100, &[0xff, 0x07]);
    w.write32(0x1_0102, GDT as u32);
    w.cpu().s.gdtr = cpu::state::TableRegister { base: 0, limit: 0 };
    w.write(DATA, &[9]);
    assert_eq!(w.run(30), Ended::Halt);
    assert_eq!((get(&mut w, gpr::RBX), get(&mut w, gpr::RCX)), (0x123_4567, 9));
    assert_eq!(w.cpu().s.seg[1].selector, sel::KERNEL_CS);
}

#[test]
fn protected_mode_instructions_do_not_exist() {
    sdm("vol. 2: #UD in real-address mode");
    guest16!(lldt, "lldt ax");
    guest16!(ltr, "ltr ax");
    guest16!(sldt, "sldt ax");
    guest16!(str_, "str ax");
    guest16!(lar, "lar ax, ax");
    guest16!(lsl, "lsl ax, ax");
    guest16!(verr, "verr ax");
    guest16!(arpl, "arpl ax, ax");
    for code in [lldt(), ltr(), sldt(), str_(), lar(), lsl(), verr(), arpl()] {
        assert_eq!(World::real(code).run(5), Ended::Vector(6), "{code:x?}");
    }
}

#[test]
fn instructions_of_old_do_what_they_did() {
    sdm("vol. 2: PUSHA, POPA, BOUND, ENTER, LEAVE, LES, XLAT, SALC, AAM, DAA");
    guest16!(
        pusha,
        "mov ax, 1",
        "mov cx, 2",
        "mov dx, 3",
        "mov bx, 4",
        "mov bp, 5",
        "mov si, 6",
        "mov di, 7",
        "pusha",
        "mov bp, sp",
        "mov ax, [bp + 6]",
        "mov [bp + 14], ax",
        "popa",
        "hlt"
    );
    let mut w = World::real(pusha());
    assert_eq!(w.run(30), Ended::Halt);
    assert_eq!(get(&mut w, gpr::RAX) & 0xffff, 0x1000, "SP as it was before, loaded as AX");
    assert_eq!((get(&mut w, gpr::RDI), get(&mut w, gpr::RSP)), (7, 0x1000));

    guest16!(bound, "bound ax, [si]", "hlt");
    for (index, good) in [(0xfffeu64, false), (0xffff, true), (5, true), (6, false)] {
        let mut w = World::real(bound());
        w.write(0x3000, &[0xff, 0xff, 5, 0]);
        w.cpu().s.regs.set(gpr::RAX, index);
        w.cpu().s.regs.set(gpr::RSI, 0x3000);
        assert_eq!(w.run(5), if good { Ended::Halt } else { Ended::Vector(5) }, "{index:x}");
    }

    guest16!(enter, "mov bp, 0x1000", "mov word ptr [bp - 2], 0x77", "enter 8, 2", "hlt");
    let mut w = World::real(enter());
    w.cpu().s.regs.set(gpr::RSP, 0x0800);
    let frame = u64::from(REAL_SS) << 4;
    w.write(frame + 0xffe, &[0x99, 0]);
    assert_eq!(w.run(5), Ended::Halt);
    assert_eq!((get(&mut w, gpr::RBP), get(&mut w, gpr::RSP)), (0x7fe, 0x800 - 6 - 8));
    assert_eq!(
        w.read64(frame + 0x7fa) & 0xffff_ffff_ffff,
        0x1000_0077_07fe,
        "BP, the display, the new frame"
    );

    guest16!(les, "les di, [si]", "mov al, es:[di]", "hlt");
    let mut w = World::real(les());
    w.write(0x3000, &[0x10, 0, 0x34, 0x12]);
    w.write(0x1_2350, &[0x5a]);
    w.cpu().s.regs.set(gpr::RSI, 0x3000);
    assert_eq!(w.run(5), Ended::Halt);
    assert_eq!(get(&mut w, gpr::RAX) & 0xff, 0x5a);

    guest16!(odd, "mov ax, 0x35", "add al, 0x47", "daa", "aam", "stc", ".byte 0xd6", "hlt");
    let mut w = World::real(odd());
    assert_eq!(w.run(10), Ended::Halt);
    assert_eq!(get(&mut w, gpr::RAX), 0x0dff, "82h / 10 = 13 in AH; SALC");
}

//! Tests of the FPU, on instructions decoded from bytes.

use std::sync::{Arc, Mutex};

use arch::Exception;
use arch::descriptor::Attr;
use arch::regs::{Cr0, Cr4, Efer, Xcr0, gpr, rflags};
use mem::Ram;

use super::native;
use super::stack::{C0, C1, C2, C3, ES, FLAGS, IE, INDEFINITE, PE, SF, UE, from_int};
use crate::bus::NoBus;
use crate::cache::Mode;
use crate::chain::{any, run_one};
use crate::decode::{Build, decode_one};
use crate::op::{Flow, Op};
use crate::state::X87;
use crate::{Cpu, Model, Shared};

mod soft;

/// Status: zero divide, overflow.
const ZE: u16 = 4;
const OE: u16 = 8;
/// What a fresh test machine reads and writes.
pub(crate) const DATA: u64 = 0x2000;
const BAD: u64 = 0x8000_0000_0000_0000;

/// A processor in 64-bit mode, paging off, everything enabled, after FNINIT.
pub(crate) fn machine() -> Cpu {
    let ram = Ram::new(&[(0, 0x10000)]).unwrap();
    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    let mut cpu = Cpu::new(0, Arc::new(Model::xeon_8370c()), ram, Arc::new(NoBus::default()), shared);
    cpu.s.efer = Efer::LMA | Efer::LME;
    cpu.s.seg[1].attr = Attr::CODE64;
    cpu.s.seg[1].base = 0;
    cpu.s.cr0 = Cr0::PE | Cr0::NE | Cr0::ET;
    cpu.s.cr4 = Cr4::OSFXSR | Cr4::OSXSAVE;
    cpu.s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
    cpu.s.x87 = X87::default();
    cpu.s.regs.set(gpr::RBX, DATA);
    cpu
}

fn op(cpu: &mut Cpu, code: &[u8], mode: Mode) -> Op {
    let op = decode_one(cpu, code, 0x123, mode);
    assert_eq!(usize::from(op.len), code.len(), "{code:x?}");
    op
}

/// Executes one instruction.
pub(crate) fn run(cpu: &mut Cpu, code: &[u8]) -> Result<Flow, Exception> {
    let mode = cpu.mode();
    let op = op(cpu, code, mode);
    run_one(cpu, &op)
}

fn ok(cpu: &mut Cpu, code: &[u8]) {
    assert_eq!(run(cpu, code), Ok(Flow::Next), "{code:x?}");
}

fn poke(cpu: &Cpu, bytes: &[u8]) {
    assert!(cpu.ram.write(DATA, bytes));
}

fn peek<const N: usize>(cpu: &Cpu) -> [u8; N] {
    let mut bytes = [0; N];
    assert!(cpu.ram.read(DATA, &mut bytes));
    bytes
}

fn fld64(cpu: &mut Cpu, value: f64) {
    poke(cpu, &value.to_le_bytes());
    ok(cpu, &[0xdd, 0x03]);
}

fn fstp64(cpu: &mut Cpu) -> f64 {
    ok(cpu, &[0xdd, 0x1b]);
    f64::from_le_bytes(peek(cpu))
}

/// Everything that is compared between two ways of doing an instruction.
fn image(cpu: &Cpu) -> ([u128; 8], u16, u16, u8, u64) {
    let x = &cpu.s.x87;
    (x.st, x.cw, x.sw, x.tag, cpu.s.rflags())
}

#[test]
fn arithmetic_and_memory_operands() {
    let mut cpu = machine();
    fld64(&mut cpu, 3.0);
    fld64(&mut cpu, 0.25);
    ok(&mut cpu, &[0xde, 0xc9]); // fmulp
    poke(&cpu, &7i16.to_le_bytes());
    ok(&mut cpu, &[0xde, 0x03]); // fiadd m16
    ok(&mut cpu, &[0xd9, 0xe0]); // fchs
    poke(&cpu, &2.0f32.to_le_bytes());
    ok(&mut cpu, &[0xd8, 0x3b]); // fdivr m32
    assert_eq!(fstp64(&mut cpu), 2.0 / -7.75);
    assert_eq!(cpu.s.x87.tag, 0);
    // The registers keep what was popped.
    assert_eq!(cpu.s.x87.fop, 0x51b, "DD /3 [rbx]");
    assert_eq!((cpu.s.x87.fip, cpu.s.x87.fdp), (0x123, DATA));
}

#[test]
fn subtraction_and_division_have_their_directions() {
    for (code, expect) in [
        ([0xd8, 0xe1], 10.0 - 4.0), // st0 = st0 - st1
        ([0xd8, 0xe9], 4.0 - 10.0), // fsubr
        ([0xd8, 0xf1], 10.0 / 4.0),
        ([0xd8, 0xf9], 4.0 / 10.0),
    ] {
        let mut cpu = machine();
        fld64(&mut cpu, 4.0);
        fld64(&mut cpu, 10.0);
        ok(&mut cpu, &code);
        assert_eq!(fstp64(&mut cpu), expect, "{code:x?}");
        assert_eq!(fstp64(&mut cpu), 4.0);
    }
    for (second, expect) in [(0xe0, 10.0 - 4.0), (0xe8, 4.0 - 10.0), (0xf0, 10.0 / 4.0), (0xf8, 4.0 / 10.0)] {
        let mut cpu = machine();
        fld64(&mut cpu, 4.0);
        fld64(&mut cpu, 0.0);
        fld64(&mut cpu, 10.0);
        ok(&mut cpu, &[0xdc, second | 2]); // st2 = st2 op st0, or reversed
        ok(&mut cpu, &[0xdd, 0xd8]);
        ok(&mut cpu, &[0xdd, 0xd8]);
        assert_eq!(fstp64(&mut cpu), expect, "dc {second:x}");
        let mut cpu = machine();
        fld64(&mut cpu, 4.0);
        fld64(&mut cpu, 10.0);
        ok(&mut cpu, &[0xde, second | 1]);
        assert_eq!(fstp64(&mut cpu), expect, "de {second:x}");
        assert_eq!(cpu.s.x87.tag, 0);
    }
}

#[test]
fn precision_and_rounding_control() {
    for (cw, significand) in [
        (0x37fu16, 0xaaaa_aaaa_aaaa_aaabu64), // 64 bits
        (0x27f, 0xaaaa_aaaa_aaaa_a800),       // 53
        (0x07f, 0xaaaa_ab00_0000_0000),       // 24
        (0xf7f, 0xaaaa_aaaa_aaaa_aaaa),       // towards zero
        (0x77f, 0xaaaa_aaaa_aaaa_aaaa),       // down
        (0xb7f, 0xaaaa_aaaa_aaaa_aaab),       // up
    ] {
        let mut cpu = machine();
        poke(&cpu, &cw.to_le_bytes());
        ok(&mut cpu, &[0xd9, 0x2b]);
        fld64(&mut cpu, 2.0);
        poke(&cpu, &3i32.to_le_bytes());
        ok(&mut cpu, &[0xda, 0x33]); // fidiv m32
        assert_eq!(cpu.s.x87.st[0] as u64, significand, "{cw:x}");
        assert_eq!(cpu.s.x87.sw & FLAGS, PE);
        // C1 says whether it was rounded up.
        assert_eq!(cpu.s.x87.sw & C1 != 0, significand as u8 == 0xab || cw == 0x07f, "{cw:x}");
    }
}

#[test]
fn stack_faults() {
    // Overflow, masked: the indefinite is loaded, C1 set.
    let mut cpu = machine();
    for _ in 0..8 {
        ok(&mut cpu, &[0xd9, 0xe8]);
    }
    assert_eq!((cpu.s.x87.tag, cpu.s.x87.sw), (0xff, 0));
    for code in [&[0xd9, 0xe8][..], &[0xd9, 0xc0], &[0xdd, 0x03], &[0xdf, 0x2b], &[0xdb, 0x2b]] {
        let mut cpu2 = machine();
        cpu2.s = cpu.s.clone();
        ok(&mut cpu2, code);
        assert_eq!(cpu2.s.x87.sw & (IE | SF | C1 | ES), IE | SF | C1, "{code:x?}");
        assert_eq!(cpu2.s.x87.st[0], INDEFINITE, "{code:x?}");
        assert_eq!(cpu2.s.x87.top(), 7);
    }
    // Underflow, masked: C1 clear.
    for code in [&[0xd8, 0xc1][..], &[0xd9, 0xc1], &[0xd9, 0xe0], &[0xd9, 0xfa], &[0xd9, 0xc9], &[0xda, 0xc1]]
    {
        let mut cpu = machine();
        cpu.s.x87.sw = C1;
        ok(&mut cpu, code);
        assert_eq!(cpu.s.x87.sw & (IE | SF | C1 | ES), IE | SF, "{code:x?}");
        assert_eq!(cpu.s.x87.st[0], INDEFINITE, "{code:x?}");
    }
    // Underflow on a store, masked: the indefinite reaches memory, and it pops.
    let mut cpu = machine();
    ok(&mut cpu, &[0xdb, 0x3b]); // fstp m80
    assert_eq!(peek::<10>(&cpu), [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff]);
    assert_eq!(cpu.s.x87.top(), 1);
}

#[test]
fn unmasked_exceptions_wait_for_the_next_waiting_instruction() {
    let mut cpu = machine();
    cpu.s.x87.set_cw(0x37b); // zero divide unmasked
    fld64(&mut cpu, 1.0);
    ok(&mut cpu, &[0xd9, 0xee]); // fldz
    let before = cpu.s.x87;
    ok(&mut cpu, &[0xd8, 0xf9]); // fdivr: st1 / st0
    let x = cpu.s.x87;
    assert_eq!(x.st, before.st, "operands are kept");
    assert_eq!(x.sw & (FLAGS | ES | 0x8000), ZE | ES | 0x8000);
    for code in [
        &[0x9b][..],
        &[0xd9, 0xd0],
        &[0xd9, 0xe8],
        &[0xdd, 0x03],
        &[0xd9, 0x2b],
        &[0xdd, 0x1b],
        &[0xd9, 0xf7],
    ] {
        assert_eq!(run(&mut cpu, code), Err(Exception::MF), "{code:x?}");
    }
    assert_eq!(image(&cpu), (x.st, x.cw, x.sw, x.tag, cpu.s.rflags()));
    // These do not wait.
    ok(&mut cpu, &[0xdf, 0xe0]);
    assert_eq!(cpu.s.regs.get(gpr::RAX) as u16, x.sw);
    ok(&mut cpu, &[0xd9, 0x3b]);
    ok(&mut cpu, &[0xdb, 0xe2]); // fnclex
    assert_eq!(cpu.s.x87.sw & 0x80ff, 0);
    ok(&mut cpu, &[0x9b]);
}

#[test]
fn unmasking_what_is_flagged_makes_it_pending() {
    let mut cpu = machine();
    fld64(&mut cpu, -1.0);
    ok(&mut cpu, &[0xd9, 0xfa]); // fsqrt
    assert_eq!((cpu.s.x87.st[0], cpu.s.x87.sw & (FLAGS | ES)), (INDEFINITE, IE));
    poke(&cpu, &0x37eu16.to_le_bytes());
    ok(&mut cpu, &[0xd9, 0x2b]);
    assert_ne!(cpu.s.x87.sw & ES, 0);
    assert_eq!(run(&mut cpu, &[0xd9, 0xd0]), Err(Exception::MF));
}

#[test]
fn unmasked_exceptions_suppress_stores_but_precision_does_not() {
    let mut cpu = machine();
    fld64(&mut cpu, 1e300);
    poke(&cpu, &[0x55; 8]);
    cpu.s.x87.set_cw(0x377); // overflow unmasked
    ok(&mut cpu, &[0xd9, 0x1b]); // fstp m32
    assert_eq!(peek::<8>(&cpu), [0x55; 8]);
    assert_eq!((cpu.s.x87.tag, cpu.s.x87.sw & (FLAGS & !PE | ES)), (0x80, OE | ES));

    let mut cpu = machine();
    fld64(&mut cpu, 0.1);
    cpu.s.x87.set_cw(0x35f); // precision unmasked
    ok(&mut cpu, &[0xd9, 0x1b]);
    assert_eq!(f32::from_le_bytes(peek(&cpu)), 0.1);
    assert_eq!((cpu.s.x87.tag, cpu.s.x87.sw & (FLAGS | ES)), (0, PE | ES));
    // A suppressed store faults all the same.
    let mut cpu = machine();
    cpu.s.x87.set_cw(0x37e);
    cpu.s.regs.set(gpr::RBX, BAD);
    assert_eq!(run(&mut cpu, &[0xdd, 0x1b]), Err(Exception::GP0));
    assert_eq!(cpu.s.x87.sw, 0);
}

#[test]
fn faulting_operands_leave_everything() {
    let mut cpu = machine();
    fld64(&mut cpu, 0.1);
    fld64(&mut cpu, 1e-310);
    let before = image(&cpu);
    cpu.s.regs.set(gpr::RBX, BAD);
    for code in [
        &[0xdb, 0x3b][..], // fstp m80
        &[0xdd, 0x1b],
        &[0xd9, 0x1b],
        &[0xdf, 0x33], // fbstp
        &[0xdf, 0x3b],
        &[0xdd, 0x0b], // fisttp
        &[0xdd, 0x03],
        &[0xd8, 0x03],
        &[0xd9, 0x33], // fnstenv
        &[0xdd, 0x33], // fnsave
        &[0xd9, 0x23],
        &[0xdd, 0x23],
        &[0xd9, 0x2b],
        &[0xd9, 0x3b],
        &[0xdd, 0x3b],
    ] {
        assert_eq!(run(&mut cpu, code), Err(Exception::GP0), "{code:x?}");
        assert_eq!(image(&cpu), before, "{code:x?}");
    }
}

#[test]
fn device_not_available() {
    for (cr0, fpu, wait) in [
        (Cr0::empty(), false, false),
        (Cr0::EM, true, false),
        (Cr0::TS, true, false),
        (Cr0::MP, false, false),
        (Cr0::MP | Cr0::TS, true, true),
    ] {
        let mut cpu = machine();
        cpu.s.cr0 |= cr0;
        let expect = |nm: bool| if nm { Err(Exception::NM) } else { Ok(Flow::Next) };
        assert_eq!(run(&mut cpu, &[0x9b]), expect(wait), "{cr0:?}");
        for code in [[0xd9, 0xe8], [0xd8, 0xc0], [0xdb, 0xe3], [0xdf, 0xe0], [0xd9, 0x33], [0xda, 0xc1]] {
            assert_eq!(run(&mut cpu, &code), expect(fpu), "{cr0:?} {code:x?}");
        }
    }
}

#[test]
fn environments_in_four_formats() {
    let mut cpu = machine();
    fld64(&mut cpu, 1.5); // R7 valid
    ok(&mut cpu, &[0xd9, 0xee]); // R6 zero
    fld64(&mut cpu, f64::INFINITY); // R5 special
    ok(&mut cpu, &[0xd9, 0x33]); // fnstenv m28
    let env = peek::<28>(&cpu);
    let field = |i: usize| u32::from_le_bytes(env[4 * i..4 * i + 4].try_into().unwrap());
    assert_eq!([field(0), field(1), field(2)], [0xffff_037f, 0xffff_2800, 0xffff_1bff]);
    assert_eq!([field(3), field(4), field(5)], [0x123, 0x503 << 16, DATA as u32]);
    // The 16-bit format, by operand size prefix.
    ok(&mut cpu, &[0x66, 0xd9, 0x33]);
    let env = peek::<14>(&cpu);
    let field = |i: usize| u16::from_le_bytes([env[2 * i], env[2 * i + 1]]);
    assert_eq!([field(0), field(1), field(2), field(3), field(5)], [0x37f, 0x2800, 0x1bff, 0x123, 0x2000]);

    // Real-address mode: linear addresses and the opcode.
    let mut cpu = machine();
    cpu.s.efer = Efer::empty();
    cpu.s.cr0 = Cr0::ET;
    cpu.s.seg[1].attr = Attr(0x9b00);
    cpu.s.seg[1].selector = 0xf000;
    cpu.s.seg[3].limit = 0xffff;
    cpu.s.regs.set(gpr::RBX, DATA);
    ok(&mut cpu, &[0xd9, 0x07]); // fld m32 [bx]
    ok(&mut cpu, &[0xd9, 0x37]);
    let env = peek::<14>(&cpu);
    let field = |i: usize| u16::from_le_bytes([env[2 * i], env[2 * i + 1]]);
    assert_eq!([field(3), field(4), field(5), field(6)], [0x0123, 0xf107, 0x2000, 0]);
    ok(&mut cpu, &[0x66, 0xd9, 0x37]);
    let env = peek::<28>(&cpu);
    let field = |i: usize| u32::from_le_bytes(env[4 * i..4 * i + 4].try_into().unwrap());
    assert_eq!([field(3), field(4), field(5), field(6)], [0xffff_0123, 0xf107, 0xffff_2000, 0]);
}

#[test]
fn save_and_restore_are_inverse() {
    for (save, restore) in
        [(&[0xdd, 0x33][..], &[0xdd, 0x23][..]), (&[0x66, 0xdd, 0x33], &[0x66, 0xdd, 0x23])]
    {
        let mut cpu = machine();
        for i in 0..5 {
            fld64(&mut cpu, f64::from(i) / 3.0);
        }
        ok(&mut cpu, &[0xdd, 0xc2]); // ffree st(2)
        cpu.s.x87.set_cw(0x27f);
        cpu.s.x87.sw |= C0 | C3 | PE;
        let before = cpu.s.x87;
        ok(&mut cpu, save);
        let x = cpu.s.x87;
        assert_eq!((x.cw, x.sw, x.tag, x.fip), (0x37f, 0, 0, 0));
        // FNINIT leaves the physical registers: ST(0) of TOP 3 is now ST(3).
        assert_eq!(x.st[3], before.st[0]);
        ok(&mut cpu, restore);
        let x = cpu.s.x87;
        assert_eq!((x.st, x.cw, x.sw, x.tag), (before.st, before.cw, before.sw, before.tag));
        assert_eq!(x.fip, before.fip);
    }
}

#[test]
fn environment_loads_keep_the_physical_registers() {
    let mut cpu = machine();
    fld64(&mut cpu, 1.5);
    ok(&mut cpu, &[0xd9, 0x33]);
    let mut env = peek::<28>(&cpu);
    env[5] = 0x30; // TOP = 6
    poke(&cpu, &env);
    let r7 = cpu.s.x87.st[0];
    ok(&mut cpu, &[0xd9, 0x23]);
    assert_eq!((cpu.s.x87.top(), cpu.s.x87.tag, cpu.s.x87.st[1]), (6, 0x80, r7));
}

#[test]
fn mmx_registers_are_the_physical_significands() {
    let mut cpu = machine();
    fld64(&mut cpu, 1.0); // R7
    fld64(&mut cpu, -2.5); // R6
    assert_eq!(cpu.s.x87.mm(7), 1 << 63);
    assert_eq!(cpu.s.x87.mm(6), 5 << 61);
    ok(&mut cpu, &[0xd9, 0xf7]); // fincstp moves no register
    assert_eq!(cpu.s.x87.mm(6), 5 << 61);
    // An MMX instruction sets TOP to 0, every tag, and the exponent to ones.
    poke(&cpu, &0x1122_3344_5566_7788u64.to_le_bytes());
    ok(&mut cpu, &[0x0f, 0x6f, 0x33]); // movq mm6, [rbx]
    let x = &cpu.s.x87;
    assert_eq!((x.top(), x.tag, x.st[6]), (0, 0xff, 0xffff_1122_3344_5566_7788));
    assert_eq!((x.mm(6), x.mm(7)), (0x1122_3344_5566_7788, 1 << 63));
    ok(&mut cpu, &[0x0f, 0x77]); // emms
    assert_eq!(cpu.s.x87.tag, 0);
}

#[test]
fn comparisons_set_flags() {
    for (a, b, flags, cc) in [
        (1.0, 2.0, rflags::CF, C0),
        (2.0, 1.0, 0, 0),
        (2.0, 2.0, rflags::ZF, C3),
        (f64::NAN, 2.0, rflags::ZF | rflags::PF | rflags::CF, C0 | C2 | C3),
    ] {
        let mut cpu = machine();
        fld64(&mut cpu, b);
        fld64(&mut cpu, a);
        cpu.s.flags.set_all(rflags::STATUS);
        ok(&mut cpu, &[0xdb, 0xe9]); // fucomi st1
        assert_eq!(cpu.s.flags.get(), flags);
        assert_eq!(cpu.s.x87.sw & FLAGS, 0);
        ok(&mut cpu, &[0xdd, 0xe1]); // fucom st1
        assert_eq!(cpu.s.x87.sw & (C0 | C2 | C3), cc);
        ok(&mut cpu, &[0xdf, 0xf1]); // fcomip
        assert_eq!(cpu.s.flags.get(), flags);
        assert_eq!(cpu.s.x87.sw & FLAGS, if a.is_nan() { IE } else { 0 });
        assert_eq!(cpu.s.x87.tag, 0x80);
        // Unmasked, the flags stay.
        if a.is_nan() {
            let mut cpu = machine();
            fld64(&mut cpu, a);
            cpu.s.x87.set_cw(0x37e);
            cpu.s.flags.set_all(rflags::OF);
            ok(&mut cpu, &[0xdf, 0xf0]);
            assert_eq!((cpu.s.flags.get(), cpu.s.x87.tag), (rflags::OF, 0x80));
        }
    }
}

#[test]
fn conditional_moves_follow_the_flags() {
    for flags in 0..64u64 {
        let bit = |n: u64, mask| if flags >> n & 1 != 0 { mask } else { 0 };
        let image = bit(0, rflags::CF) | bit(1, rflags::ZF) | bit(2, rflags::PF);
        let (c, z, p) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        for (code, moves) in [
            ([0xda, 0xc1], c),
            ([0xda, 0xc9], z),
            ([0xda, 0xd1], c || z),
            ([0xda, 0xd9], p),
            ([0xdb, 0xc1], !c),
            ([0xdb, 0xc9], !z),
            ([0xdb, 0xd1], !(c || z)),
            ([0xdb, 0xd9], !p),
        ] {
            let mut cpu = machine();
            fld64(&mut cpu, 1.0);
            fld64(&mut cpu, 2.0);
            cpu.s.flags.set_all(image);
            ok(&mut cpu, &code);
            assert_eq!(cpu.s.x87.st[0], from_int(if moves { 1 } else { 2 }), "{code:x?} {image:x}");
        }
    }
}

#[test]
fn decimal_and_integer_stores() {
    let mut cpu = machine();
    poke(&cpu, &[0x45, 0x23, 0x01, 0, 0, 0, 0, 0, 0, 0x80]);
    ok(&mut cpu, &[0xdf, 0x23]); // fbld
    assert_eq!(cpu.s.x87.st[0], from_int(-12345));
    poke(&cpu, &[0; 10]);
    ok(&mut cpu, &[0xdf, 0x33]); // fbstp
    assert_eq!(peek::<10>(&cpu), [0x45, 0x23, 0x01, 0, 0, 0, 0, 0, 0, 0x80]);
    for (value, rounded, truncated) in [(2.5, 2, 2), (3.5, 4, 3), (-2.7, -3, -2)] {
        fld64(&mut cpu, value);
        ok(&mut cpu, &[0xdf, 0x13]); // fist m16
        assert_eq!(i16::from_le_bytes(peek(&cpu)), rounded);
        ok(&mut cpu, &[0xdb, 0x0b]); // fisttp m32
        assert_eq!(i32::from_le_bytes(peek(&cpu)), i32::from(truncated as i16));
    }
    fld64(&mut cpu, 1e30);
    ok(&mut cpu, &[0xdf, 0x3b]); // fistp m64
    assert_eq!(i64::from_le_bytes(peek(&cpu)), i64::MIN);
    assert_eq!(cpu.s.x87.sw & FLAGS & !PE, IE);
}

#[test]
fn the_stack_turns_without_tags() {
    let mut cpu = machine();
    fld64(&mut cpu, 1.0);
    ok(&mut cpu, &[0xd9, 0xf6]);
    assert_eq!((cpu.s.x87.top(), cpu.s.x87.tag, cpu.s.x87.st[1]), (6, 0x80, from_int(1)));
    ok(&mut cpu, &[0xd9, 0xf7]);
    ok(&mut cpu, &[0xdf, 0xc0]); // ffreep
    assert_eq!((cpu.s.x87.top(), cpu.s.x87.tag), (0, 0));
}

/// Registers worth trying: every class there is.
fn specimen(seed: &mut u64) -> u128 {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    };
    let (kind, sign, bits) = (next() % 16, u128::from(next() & 1) << 79, next());
    let exponent = |e: u64| u128::from(e) << 64;
    sign | match kind {
        0 => 0,
        1 => exponent(0x7fff) | 1 << 63,
        2 => exponent(0x7fff) | 3 << 62 | u128::from(bits >> 2),
        3 => exponent(0x7fff) | 1 << 63 | u128::from(bits >> 2) | 1,
        4 => u128::from(bits >> 1),
        5 => u128::from(bits) & !(1 << 63) | exponent(next() % 0x7ffe + 1), // unnormal: unsupported
        6 => 1 << 63 | u128::from(bits),                                    // pseudo-denormal
        7 => exponent(next() % 200 + 1) | 1 << 63 | u128::from(bits),
        8 => exponent(0x7ffe - next() % 200) | 1 << 63 | u128::from(bits),
        9 => from_int(next() as i16 as i64),
        10 => from_int(next() as i32 as i64) & !(1 << 79),
        _ => exponent(0x3fff - 40 + next() % 80) | 1 << 63 | u128::from(bits),
    }
}

/// The ways that avoid loading the whole state give what the host gives when
/// it has the whole state: results, tags, flags, for every register and
/// memory form, with operands of all classes and random masks.
#[test]
fn short_cuts_agree_with_the_host() {
    let mut seed = 0x1234_5678_9abc_def1u64;
    let mut tried = 0;
    for first in 0xd8..=0xdfu8 {
        for second in 0..=255u8 {
            let code = [first, if second < 0xc0 { second & 0x38 | 3 } else { second }];
            if second < 0xc0 && second & 7 != 0 {
                continue;
            }
            for _ in 0..40 {
                let mut cpu = machine();
                let op = decode_one(&mut cpu, &code, 0, Mode::Bits64);
                let info = iced_x86::Decoder::new(64, &code, 0).decode();
                // Control instructions do without the host; so does FCMOV,
                // and needs the guest's flags.
                let Some(row) = crate::ops::row(info.mnemonic()) else { continue };
                let control = ["INIT", "CLEX", "CW", "SW", "ENV", "SAVE", "RSTOR", "FCMOV", "FENI"];
                if info.is_invalid() || control.iter().any(|part| row.sdm.contains(part)) {
                    continue;
                }
                for st in &mut cpu.s.x87.st {
                    *st = specimen(&mut seed);
                }
                cpu.s.x87.sw = (seed >> 20) as u16 & (0x3800 | C0 | C1 | C2 | C3);
                cpu.s.x87.tag = if seed >> 40 & 3 == 0 { (seed >> 30) as u8 } else { 0x7f };
                cpu.s.x87.tag = if seed >> 40 & 3 == 1 { 0xff } else { cpu.s.x87.tag };
                let masks = if seed >> 50 & 1 == 0 { FLAGS } else { (seed >> 51) as u16 & FLAGS };
                cpu.s.x87.set_cw(0x40 | masks | (seed >> 8) as u16 & 0xf00);
                poke(&cpu, &specimen(&mut seed).to_le_bytes());
                let mut other = machine();
                other.s = cpu.s.clone();
                poke(&other, &peek::<16>(&cpu));
                let mut host = self::op(&mut other, &code, Mode::Bits64);
                let frees = row.sdm.starts_with("FFREE") || row.sdm == "FNOP";
                if frees || matches!(row.sdm, "FINCSTP" | "FDECSTP") {
                    let mut build = Build {
                        insn: &info,
                        mode: Mode::Bits64,
                        cpu: &mut other,
                        op: host,
                        ends: false,
                        before: None,
                        silent: None,
                    };
                    native::prepare(&mut build, &code, 0, false, None).unwrap();
                    host = build.op;
                }
                let by_host = native::general(&mut other, &host);
                assert_eq!(run_one(&mut cpu, &op), by_host, "{code:x?}");
                // C0, C2 and C3 are undefined after most instructions.
                let compares = matches!(row.sdm, "FXAM" | "FTST" | "FPREM" | "FPREM1" | "FICOM/FICOMP")
                    || row.sdm.starts_with("FCOM/")
                    || row.sdm.starts_with("FUCOM/");
                let keep = if compares { u16::MAX } else { !(C0 | C2 | C3) };
                let keep = if frees { keep & !C1 } else { keep };
                let (mut a, mut b) = (image(&cpu), image(&other));
                a.2 &= keep;
                b.2 &= keep;
                assert_eq!(a, b, "{info} {code:x?} cw {:x}", cpu.s.x87.cw);
                assert_eq!(peek::<16>(&cpu), peek::<16>(&other), "{info}");
                tried += 1;
            }
        }
    }
    assert!(tried > 10_000, "{tried}");
}

#[test]
fn every_encoding_has_a_row_and_builds() {
    use iced_x86::{Code, CpuidFeature as F};
    let wanted = [F::FPU, F::FPU287, F::FPU387, F::FXSR, F::XSAVE, F::XSAVEOPT, F::XSAVEC];
    let mut built = 0;
    for code in Code::values() {
        let features = code.cpuid_features();
        let mine = features.iter().any(|f| wanted.contains(f));
        // XGETBV and XSETBV are system instructions.
        if !mine || matches!(code, Code::Xgetbv | Code::Xsetbv) {
            continue;
        }
        assert!(crate::ops::row(code.mnemonic()).is_some(), "{code:?}");
        let info = code.op_code();
        // WAIT before it is an instruction of its own to the decoder; these
        // three it decodes only if asked.
        if info.fwait() || matches!(code, Code::Fneni | Code::Fndisi | Code::Fnsetpm) {
            continue;
        }
        let mut bytes = Vec::new();
        if info.operand_size() == 16 {
            bytes.push(0x66);
        }
        if info.mandatory_prefix() == iced_x86::MandatoryPrefix::PNP
            || info.table() == iced_x86::OpCodeTableKind::T0F
        {
            bytes.extend((info.operand_size() == 64).then_some(0x48));
            bytes.push(0x0f);
        }
        let opcode = info.op_code();
        if info.op_code_len() == 2 {
            bytes.push((opcode >> 8) as u8);
        }
        bytes.push(opcode as u8);
        if info.group_index() >= 0 {
            bytes.push((info.group_index() as u8) << 3 | 3);
        }
        let mut cpu = machine();
        let decoded = iced_x86::Decoder::new(64, &bytes, 0).decode();
        assert_eq!(decoded.code(), code, "{bytes:x?}");
        let op = op(&mut cpu, &bytes, Mode::Bits64);
        assert!(!std::ptr::fn_addr_eq(op.run, any(crate::ops::undefined)), "{code:?}");
        assert!(!std::ptr::fn_addr_eq(op.run, any(crate::ops::unimplemented)), "{code:?}");
        built += 1;
    }
    assert!(built > 150, "{built}");
}

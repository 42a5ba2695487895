//! Tests of FXSAVE, XSAVE and their relatives.

use arch::descriptor::Attr;
use arch::regs::mxcsr;

use super::*;
use crate::exec::x87::tests::{DATA, machine, run};
use crate::state::{VectorReg, X87};
use crate::xstate::layout;

const FXSAVE: [u8; 3] = [0x0f, 0xae, 0x03];
const FXRSTOR: [u8; 3] = [0x0f, 0xae, 0x0b];
const XSAVE: [u8; 3] = [0x0f, 0xae, 0x23];
const XRSTOR: [u8; 3] = [0x0f, 0xae, 0x2b];
const XSAVEOPT: [u8; 3] = [0x0f, 0xae, 0x33];
const XSAVEC: [u8; 3] = [0x0f, 0xc7, 0x23];

fn asked(cpu: &mut Cpu, components: u32) {
    cpu.s.regs.set(gpr::RAX, components.into());
    cpu.s.regs.set(gpr::RDX, 0);
}

fn full() -> Cpu {
    let mut cpu = machine();
    for (i, reg) in cpu.s.vec.iter_mut().enumerate() {
        *reg = VectorReg(std::array::from_fn(|w| if w < 4 { (i * 8 + w + 1) as u64 } else { 0 }));
    }
    cpu.s.x87.st = std::array::from_fn(|i| 0x3fff_8000_0000_0000_0000 + i as u128);
    cpu.s.x87.tag = 0xff;
    cpu.s.x87.fip = 0x1234_5678_9abc;
    cpu.s.x87.fcs = 0x33;
    cpu.s.mxcsr = 0x1fa0;
    asked(&mut cpu, 7);
    cpu
}

fn area(cpu: &Cpu) -> [u8; 1024] {
    let mut bytes = [0; 1024];
    assert!(cpu.ram.read(DATA, &mut bytes));
    bytes
}

fn fill(cpu: &Cpu, bytes: &[u8]) {
    assert!(cpu.ram.write(DATA, bytes));
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn ok(cpu: &mut Cpu, code: &[u8]) {
    assert_eq!(run(cpu, code), Ok(Flow::Next), "{code:x?}");
}

#[test]
fn fxsave_is_the_documented_image() {
    let mut cpu = full();
    fill(&cpu, &[0xa5; 1024]);
    ok(&mut cpu, &FXSAVE);
    let bytes = area(&cpu);
    assert_eq!(word(&bytes, 0), 0x0000_00ff_0000_037f);
    assert_eq!(word(&bytes, 8), 0x5678_9abc, "32-bit FIP, FCS saved as zero");
    assert_eq!(word(&bytes, 24), 0xffff_0000_1fa0);
    assert_eq!(word(&bytes, 160 + 15 * 16), 15 * 8 + 1);
    assert_eq!(bytes[416..], [0xa5; 608], "what is not saved is not written");
    // With REX.W, 64-bit pointers.
    ok(&mut cpu, &[0x48, 0x0f, 0xae, 0x03]);
    assert_eq!(word(&area(&cpu), 8), 0x1234_5678_9abc);

    let mut other = machine();
    fill(&other, &area(&cpu));
    ok(&mut other, &[0x48, 0x0f, 0xae, 0x0b]);
    assert_eq!((other.s.x87.st, other.s.x87.fip, other.s.mxcsr), (cpu.s.x87.st, cpu.s.x87.fip, 0x1fa0));
    assert_eq!(other.s.vec[9].0[..4], [8 * 9 + 1, 8 * 9 + 2, 0, 0], "the upper halves stay");
}

#[test]
fn fxsave_checks() {
    let mut cpu = full();
    cpu.s.regs.set(gpr::RBX, DATA + 8);
    assert_eq!(run(&mut cpu, &FXSAVE), Err(Exception::GP0));
    assert_eq!(run(&mut cpu, &FXRSTOR), Err(Exception::GP0));
    cpu.s.regs.set(gpr::RBX, DATA);
    let mut bytes = [0; 512];
    bytes[26] = 1; // MXCSR bit 16
    fill(&cpu, &bytes);
    let before = cpu.s.x87.st;
    assert_eq!(run(&mut cpu, &FXRSTOR), Err(Exception::GP0));
    assert_eq!((cpu.s.mxcsr, cpu.s.x87.st), (0x1fa0, before));
    for bit in [Cr0::TS, Cr0::EM] {
        cpu.s.cr0 = Cr0::PE | bit;
        assert_eq!(run(&mut cpu, &FXSAVE), Err(Exception::NM));
        assert_eq!(run(&mut cpu, &FXRSTOR), Err(Exception::NM));
    }
}

#[test]
fn xsave_checks() {
    for code in [XSAVE, XRSTOR, XSAVEOPT, XSAVEC] {
        let mut cpu = full();
        cpu.s.regs.set(gpr::RBX, DATA + 32);
        assert_eq!(run(&mut cpu, &code), Err(Exception::GP0), "alignment");
        cpu.s.cr0 |= Cr0::TS;
        assert_eq!(run(&mut cpu, &code), Err(Exception::NM));
        cpu.s.cr4 -= Cr4::OSXSAVE;
        assert_eq!(run(&mut cpu, &code), Err(Exception::UD));
    }
}

#[test]
fn xsave_writes_what_is_asked_for() {
    let mut cpu = full();
    fill(&cpu, &[0; 1024]);
    asked(&mut cpu, 0xffff_fffc); // AVX, and what XCR0 does not have
    let mut bytes = [0xa5; 1024];
    bytes[512..576].fill(0);
    bytes[512] = 0xff; // a stale XSTATE_BV keeps the bits not asked for
    fill(&cpu, &bytes);
    ok(&mut cpu, &XSAVE);
    let found = area(&cpu);
    assert_eq!(word(&found, 512), 0xff);
    assert_eq!(found[..24], [0xa5; 24]);
    assert_eq!(word(&found, 24), 0xffff_0000_1fa0, "MXCSR goes with AVX too");
    assert_eq!(found[32..512], [0xa5; 480]);
    assert_eq!(word(&found, 576 + 3 * 16), 3 * 8 + 3);
    assert_eq!(found[832..], [0xa5; 192]);
}

#[test]
fn initial_components_are_left_out() {
    let mut cpu = full();
    cpu.s.vec.iter_mut().for_each(|reg| reg.0[2..].fill(0));
    let mut bytes = [0xa5; 1024];
    bytes[512..576].fill(0);
    // XSAVE writes them, but says that they are initial.
    fill(&cpu, &bytes);
    ok(&mut cpu, &XSAVE);
    assert_eq!((word(&area(&cpu), 512), word(&area(&cpu), 576)), (3, 0));
    // XSAVEOPT does not write them.
    fill(&cpu, &bytes);
    ok(&mut cpu, &XSAVEOPT);
    assert_eq!((word(&area(&cpu), 512), area(&cpu)[576]), (3, 0xa5));
    // XSAVEC neither; MXCSR alone makes SSE be saved.
    cpu.s.vec.iter_mut().for_each(|reg| reg.0.fill(0));
    cpu.s.x87 = X87::default();
    fill(&cpu, &bytes);
    ok(&mut cpu, &XSAVEC);
    let found = area(&cpu);
    assert_eq!((word(&found, 512), word(&found, 520)), (2, 7 | layout::COMPACTED));
    assert_eq!((found[0], word(&found, 24) as u32), (0xa5, 0x1fa0));
    cpu.s.mxcsr = mxcsr::RESET;
    fill(&cpu, &bytes);
    ok(&mut cpu, &XSAVEC);
    assert_eq!((word(&area(&cpu), 512), area(&cpu)[24]), (0, 0xa5));
}

#[test]
fn save_and_restore_are_inverse() {
    for save in [XSAVE, XSAVEOPT, XSAVEC] {
        let mut cpu = full();
        fill(&cpu, &[0; 1024]);
        ok(&mut cpu, &save);
        let mut other = machine();
        other.s.mxcsr = 0x9f80;
        fill(&other, &area(&cpu));
        asked(&mut other, 7);
        ok(&mut other, &XRSTOR);
        assert_eq!(other.s.vec[..16], cpu.s.vec[..16]);
        assert_eq!((other.s.x87.st, other.s.x87.tag, other.s.mxcsr), (cpu.s.x87.st, 0xff, 0x1fa0));
    }
}

#[test]
fn restore_initialises_what_is_absent() {
    // Standard format: MXCSR is loaded even if SSE is absent.
    let mut cpu = full();
    let mut bytes = [0; 1024];
    bytes[24..28].copy_from_slice(&0x9f80u32.to_le_bytes());
    fill(&cpu, &bytes);
    ok(&mut cpu, &XRSTOR);
    assert_eq!((cpu.s.mxcsr, cpu.s.x87.is_initial()), (0x9f80, true));
    assert!(cpu.s.vec[..16].iter().all(|reg| reg.0 == [0; 8]));
    assert_ne!(cpu.s.vec[16].0, [0; 8], "beyond AVX");
    // Compacted format: it is initialised with SSE.
    bytes[520..528].copy_from_slice(&(layout::COMPACTED | 7).to_le_bytes());
    fill(&cpu, &bytes);
    ok(&mut cpu, &XRSTOR);
    assert_eq!(cpu.s.mxcsr, mxcsr::RESET);
    // What is not asked for stays.
    let mut cpu = full();
    fill(&cpu, &bytes);
    asked(&mut cpu, 4);
    ok(&mut cpu, &XRSTOR);
    assert_eq!((cpu.s.vec[1].0[1], cpu.s.vec[1].0[2], cpu.s.mxcsr), (10, 0, 0x1fa0));
    assert_eq!(cpu.s.x87.tag, 0xff);
}

#[test]
fn header_rules() {
    let compacted = |bits: u64| layout::COMPACTED | bits;
    for (bv, comp, other, good) in [
        (7, 0, None, true),
        (8, 0, None, false),     // not in XCR0
        (7, 1, None, false),     // XCOMP_BV without bit 63
        (7, 0, Some(16), false), // bytes 16–23 count in both formats
        (7, 0, Some(24), true),  // the rest not in the standard one
        (3, compacted(7), None, true),
        (7, compacted(3), None, false),    // XSTATE_BV beyond XCOMP_BV
        (3, compacted(0x27), None, false), // XCOMP_BV beyond XCR0
        (3, compacted(7), Some(16), false),
        (3, compacted(7), Some(63), false),
        (layout::COMPACTED | 3, compacted(7), None, false),
    ] {
        let mut cpu = full();
        let mut bytes = [0; 1024];
        bytes[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        bytes[512..520].copy_from_slice(&u64::to_le_bytes(bv));
        bytes[520..528].copy_from_slice(&comp.to_le_bytes());
        if let Some(at) = other {
            bytes[512 + at] = 1;
        }
        fill(&cpu, &bytes);
        let before = cpu.s.vec;
        let expected = if good { Ok(Flow::Next) } else { Err(Exception::GP0) };
        assert_eq!(run(&mut cpu, &XRSTOR), expected, "{bv:x} {comp:x} {other:?}");
        assert_eq!(cpu.s.vec == before, !good);
    }
    // Reserved bits of MXCSR, where it is read.
    let mut cpu = full();
    let mut bytes = [0; 1024];
    bytes[27] = 1;
    fill(&cpu, &bytes);
    assert_eq!(run(&mut cpu, &XRSTOR), Err(Exception::GP0));
    asked(&mut cpu, 1);
    ok(&mut cpu, &XRSTOR);
}

#[test]
fn outside_64_bit_mode_eight_registers_exist() {
    let mut cpu = full();
    cpu.s.efer = arch::regs::Efer::empty();
    cpu.s.seg[1].attr = Attr(0x00c0_9b00);
    cpu.s.seg[3].attr = Attr::DATA;
    cpu.s.seg[3].limit = u32::MAX;
    fill(&cpu, &[0; 1024]);
    ok(&mut cpu, &XSAVE);
    let bytes = area(&cpu);
    assert_eq!((word(&bytes, 160 + 7 * 16), word(&bytes, 160 + 8 * 16)), (7 * 8 + 1, 0));
    assert_eq!((word(&bytes, 576 + 7 * 16), word(&bytes, 576 + 8 * 16)), (7 * 8 + 3, 0));
    let kept = cpu.s.vec[8];
    fill(&cpu, &[0; 512 + 64]);
    ok(&mut cpu, &XRSTOR);
    assert_eq!((cpu.s.vec[7].0, cpu.s.vec[8]), ([0; 8], kept));
    // The limit of the segment holds for every part.
    cpu.s.seg[3].limit = DATA as u32 + 700;
    cpu.s.vec[0].0[2] = 1;
    assert_eq!(run(&mut cpu, &XSAVE), Err(Exception::GP0));
    assert_eq!(word(&area(&cpu), 512), 0, "nothing was written");
}

#[test]
fn layout_is_consistent() {
    use layout::{COMPONENTS, compacted_offset, compacted_size, standard_size};
    let avx = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
    assert_eq!((standard_size(avx), compacted_size(avx)), (832, 832));
    assert_eq!(standard_size(Xcr0::all()), layout::MAX_SIZE);
    assert_eq!(compacted_size(Xcr0::all()), 576 + 256 + 64 + 512 + 1024);
    assert_eq!(compacted_offset(avx | Xcr0::ZMM_HI256, 6), Some(832));
    assert!(COMPONENTS.windows(2).all(|w| w[0].offset + w[0].size <= w[1].offset));
}

//! Rules that the differential tester cannot see or seldom meets: which bits
//! stay, what faults leave behind, which exceptions are reported.

use std::sync::{Arc, Mutex};

use arch::Exception;
use arch::paging::pf;
use arch::regs::{Cr0, Cr4, Efer, Xcr0, mxcsr};
use iced_x86::{
    Code, CpuidFeature as F, Decoder, DecoderOptions, Encoder, Instruction, MemoryOperand as Mem,
};
use iced_x86::{InstructionInfoFactory, OpAccess, OpKind, Register as R};
use mem::Ram;

use crate::bus::NoBus;
use crate::cache::Mode;
use crate::chain::{any, run_one};
use crate::decode::decode_one;
use crate::state::VectorReg;
use crate::{Cpu, Model, Shared, ops};

/// Where tests keep operands; the page after the next is not present.
const DATA: u64 = 0x8000;
const NOT_PRESENT: u64 = 0xa000;
const READ_ONLY: u64 = 0xb000;

/// A processor in 64-bit mode, paging on, everything enabled for vectors.
fn cpu() -> Cpu {
    let ram = Ram::new(&[(0, 0x10_0000)]).unwrap();
    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    let model = Arc::new(Model::xeon_8370c());
    let mut cpu = Cpu::new(0, model, ram, Arc::new(NoBus::default()), shared);
    // Identity-mapped: 4-level tables at 1000H to 4000H.
    for (at, entry) in [(0x1000u64, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x4003)] {
        assert!(cpu.ram.write(at, &entry.to_le_bytes()));
    }
    for page in 0..256u64 {
        let flags: u64 = match page << 12 {
            NOT_PRESENT => 0,
            READ_ONLY => 0x61,
            _ => 0x63,
        };
        assert!(cpu.ram.write(0x4000 + page * 8, &(page << 12 | flags).to_le_bytes()));
    }
    cpu.s.cr3 = 0x1000;
    cpu.s.cr0 = Cr0::PE | Cr0::PG | Cr0::WP | Cr0::NE;
    cpu.s.cr4 = Cr4::PAE | Cr4::OSFXSR | Cr4::OSXMMEXCPT | Cr4::OSXSAVE;
    cpu.s.xcr0 = Xcr0::X87 | Xcr0::SSE | Xcr0::AVX;
    cpu.s.efer = Efer::LME | Efer::LMA;
    cpu.s.seg[1].attr = arch::descriptor::Attr::CODE64;
    cpu.s.x87 = crate::state::X87::default();
    cpu.tlb.flush_all();
    cpu.update_rights();
    cpu
}

fn encode(insn: &Instruction) -> Vec<u8> {
    let mut encoder = Encoder::new(64);
    encoder.encode(insn, 0).unwrap_or_else(|e| panic!("{:?}: {e}", insn.code()));
    encoder.take_buffer()
}

/// Decodes and executes one instruction.
fn run_bytes(cpu: &mut Cpu, bytes: &[u8]) -> Result<(), Exception> {
    cpu.control_changed();
    let op = decode_one(cpu, bytes, 0, Mode::Bits64);
    run_one(cpu, &op).map(|_| ())
}

fn run(cpu: &mut Cpu, insn: Result<Instruction, iced_x86::IcedError>) -> Result<(), Exception> {
    let bytes = encode(&insn.unwrap());
    run_bytes(cpu, &bytes)
}

fn at(base: R) -> Mem {
    Mem::with_base(base)
}

fn ones() -> VectorReg {
    VectorReg([u64::MAX; 8])
}

fn doubles(a: f64, b: f64) -> VectorReg {
    VectorReg([a.to_bits(), b.to_bits(), 7, 8, 0, 0, 0, 0])
}

fn read(cpu: &Cpu, la: u64, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    assert!(cpu.ram.read(la, &mut bytes));
    bytes
}

/// Features whose instructions are this module's.
const OURS: &[F] = &[
    F::MMX,
    F::SSE,
    F::SSE2,
    F::SSE3,
    F::SSSE3,
    F::SSE4_1,
    F::SSE4_2,
    F::PCLMULQDQ,
    F::AES,
    F::AVX,
    F::AVX2,
    F::FMA,
    F::F16C,
    F::PREFETCHW,
];

/// An instruction of that code, its memory operand (or the register instead)
/// at `[rbx]`.
fn sample(code: Code, memory: bool) -> Option<Instruction> {
    let info = code.op_code();
    let mut insn = Instruction::default();
    insn.set_code(code);
    let mut has_memory = false;
    for i in 0..info.op_count() {
        let kind = format!("{:?}", info.op_kind(i));
        let register = |first: R, insn: &mut Instruction| {
            insn.set_op_kind(i, OpKind::Register);
            insn.set_op_register(i, first + i + 1);
        };
        let in_memory = kind.starts_with("mem") || kind.ends_with("or_mem") && memory;
        if in_memory {
            has_memory = true;
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_base(R::RBX);
            insn.set_memory_displ_size(0);
            if let Some(index) = kind.strip_prefix("mem_vsib") {
                insn.set_memory_index(if index.ends_with('x') { R::XMM9 } else { R::YMM9 });
            }
        } else if kind.starts_with("xmm") {
            register(R::XMM0, &mut insn);
        } else if kind.starts_with("ymm") {
            register(R::YMM0, &mut insn);
        } else if kind.starts_with("mm") {
            register(R::MM0, &mut insn);
        } else if kind.starts_with("r64") {
            register(R::R10, &mut insn);
        } else if kind.starts_with("r32") {
            register(R::R10D, &mut insn);
        } else if kind.starts_with("imm8") {
            insn.set_op_kind(i, OpKind::Immediate8);
            insn.set_immediate8(5);
        } else if kind == "seg_rDI" {
            insn.set_op_kind(i, OpKind::MemorySegRDI);
        } else {
            panic!("{code:?}: operand {kind}");
        }
    }
    (has_memory == memory).then_some(insn)
}

/// Every vector instruction of the model, in every form.
fn samples(model: &Model) -> Vec<Instruction> {
    let mut all = Vec::new();
    for code in Code::values() {
        let features = code.cpuid_features();
        let ours = features.iter().any(|f| OURS.contains(f)) && code.op_code().mode64();
        // FISTTP came with SSE3 but is an x87 instruction.
        let ours = ours && !features.contains(&F::FPU);
        if ours && features.iter().all(|&f| model.has(f)) && code.mnemonic() != iced_x86::Mnemonic::Crc32 {
            let forms: Vec<_> = [false, true].iter().filter_map(|&memory| sample(code, memory)).collect();
            assert!(!forms.is_empty(), "{code:?}");
            all.extend(forms);
        }
    }
    all
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) ^ *seed
}

fn randomize(cpu: &mut Cpu, seed: &mut u64) {
    for register in &mut cpu.s.vec[..16] {
        for word in &mut register.0[..4] {
            *word = random(seed);
        }
    }
    for register in &mut cpu.s.x87.st {
        *register = u128::from(random(seed)) | 0x4000 << 64;
    }
    for i in 0..16 {
        cpu.s.regs.set(i, random(seed));
    }
    cpu.s.regs.set(3, DATA);
    cpu.s.regs.set(7, DATA);
    for i in 0..8 {
        assert!(cpu.ram.write(DATA + i * 8, &random(seed).to_le_bytes()));
    }
}

#[test]
fn every_vector_instruction_of_the_model_has_a_row_and_builds() {
    let mut cpu = cpu();
    assert!(crate::thunk::host_missing(&cpu.model).is_empty(), "this host cannot run the tests");
    let model = cpu.model.clone();
    let mut missing = Vec::new();
    let all = samples(&model);
    for insn in &all {
        let bytes = encode(insn);
        let run = decode_one(&mut cpu, &bytes, 0, Mode::Bits64).run;
        if [any(ops::undefined), any(ops::unimplemented)].iter().any(|&none| std::ptr::fn_addr_eq(run, none))
        {
            missing.push(insn.code());
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(all.len() > 1100, "{}", all.len());
}

/// Executes every form on random operands and holds the change of state
/// against what iced-x86 knows of the instruction.
#[test]
fn instructions_change_their_destinations_only() {
    let mut cpu = cpu();
    let model = cpu.model.clone();
    let mut seed = 1;
    for insn in samples(&model) {
        let bytes = encode(&insn);
        let insn = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode();
        let code = insn.code();
        for _ in 0..4 {
            randomize(&mut cpu, &mut seed);
            if code == Code::Ldmxcsr_m32 || code == Code::VEX_Vldmxcsr_m32 {
                assert!(cpu.ram.write(DATA, &0x1fbfu32.to_le_bytes()));
            }
            if insn.memory_index().is_vector_register() {
                let quad = format!("{code:?}").contains("gatherq");
                let first = if quad { 8 } else { 0x10_0000_0008 };
                cpu.s.vec[9] = VectorReg([first, 0x20, 0x28, 0x30, 0, 0, 0, 0]);
            }
            let before = cpu.s.clone();
            let memory = read(&cpu, DATA, 64);
            let result = run_bytes(&mut cpu, &bytes);
            assert_eq!(result, Ok(()), "{insn}");
            let mut factory = InstructionInfoFactory::new();
            let info = factory.info(&insn);
            let mut written = [0usize; 16];
            let mut general = [false; 16];
            let mut mmx = [false; 8];
            let mut uses_mmx = false;
            for used in info.used_registers() {
                let writes = matches!(
                    used.access(),
                    OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
                );
                let (register, number) = (used.register(), used.register().number());
                uses_mmx |= register.is_mm();
                if writes && register.is_vector_register() {
                    written[number] = written[number].max(register.size());
                } else if writes && register.is_mm() {
                    mmx[number] = true;
                } else if writes && register.is_gpr() {
                    general[register.full_register().number()] = true;
                }
            }
            let vex = format!("{code:?}").starts_with("VEX");
            for n in 0..16 {
                let (old, new) = (before.vec[n].0, cpu.s.vec[n].0);
                if written[n] == 0 {
                    assert_eq!(old, new, "{insn}: XMM{n}");
                } else if !vex {
                    assert_eq!(old[2..], new[2..], "{insn}: bits 128 and up of XMM{n}");
                } else if !format!("{code:?}").contains("ymm") {
                    assert_eq!(new[2..], [0; 6], "{insn}: bits 128 and up of XMM{n}");
                }
                if !general[n] {
                    assert_eq!(before.regs.get(n), cpu.s.regs.get(n), "{insn}: register {n}");
                }
            }
            if uses_mmx && code != Code::Emms {
                assert_eq!(cpu.s.x87.tag, 0xff, "{insn}");
                for (n, &named) in mmx.iter().enumerate() {
                    if named {
                        assert_eq!(cpu.s.x87.st[n] >> 64, 0xffff, "{insn}: MM{n}");
                    } else {
                        assert_eq!(before.x87.st[n], cpu.s.x87.st[n], "{insn}: MM{n}");
                    }
                }
            } else if code != Code::Emms && insn.mnemonic() != iced_x86::Mnemonic::Cvtpi2ps {
                assert_eq!(before.x87.st, cpu.s.x87.st, "{insn}");
                assert_eq!(before.x87.tag, cpu.s.x87.tag, "{insn}");
            }
            let flags = before.flags.get() == cpu.s.flags.get() || insn.rflags_modified() != 0;
            assert!(flags, "{insn}: flags");
            let stores = (0..insn.op_count()).any(|n| {
                matches!(insn.op_kind(n), OpKind::Memory | OpKind::MemorySegRDI)
                    && !matches!(info.op_access(n), OpAccess::Read | OpAccess::NoMemAccess)
            });
            let size = insn.memory_size().size();
            let kept = if stores { size } else { 0 };
            assert_eq!(memory[kept..], read(&cpu, DATA, 64)[kept..], "{insn}: memory");
            cpu.s.x87.tag = 0;
            cpu.s.mxcsr = mxcsr::RESET;
        }
    }
}

#[test]
fn legacy_keeps_upper_bits_and_vex_clears_them() {
    let mut cpu = cpu();
    cpu.s.vec[1] = ones();
    cpu.s.vec[2] = doubles(1.5, 2.0);
    run(&mut cpu, Instruction::with2(Code::Addsd_xmm_xmmm64, R::XMM1, R::XMM2)).unwrap();
    assert_eq!(cpu.s.vec[1].0[1..], [u64::MAX; 7]);
    run(&mut cpu, Instruction::with2(Code::Movq_xmm_xmmm64, R::XMM1, R::XMM2)).unwrap();
    assert_eq!(cpu.s.vec[1].0[..3], [1.5f64.to_bits(), 0, u64::MAX]);
    cpu.s.vec[1] = VectorReg([9, 9, 9, 9, 0, 0, 0, 0]);
    run(&mut cpu, Instruction::with3(Code::VEX_Vaddsd_xmm_xmm_xmmm64, R::XMM1, R::XMM2, R::XMM2)).unwrap();
    assert_eq!(cpu.s.vec[1].0, [3f64.to_bits(), 2f64.to_bits(), 0, 0, 0, 0, 0, 0]);
    // The zero idioms have handlers of their own.
    cpu.s.vec[3] = ones();
    run(&mut cpu, Instruction::with2(Code::Pxor_xmm_xmmm128, R::XMM3, R::XMM3)).unwrap();
    assert_eq!(cpu.s.vec[3].0[..3], [0, 0, u64::MAX]);
    run(&mut cpu, Instruction::with3(Code::VEX_Vpxor_xmm_xmm_xmmm128, R::XMM3, R::XMM3, R::XMM3)).unwrap();
    assert_eq!(cpu.s.vec[3].0[..4], [0; 4]);
    cpu.s.vec[4] = VectorReg([1, 2, 3, 4, 0, 0, 0, 0]);
    run_bytes(&mut cpu, &[0xc5, 0xf8, 0x77]).unwrap(); // vzeroupper
    assert_eq!(cpu.s.vec[4].0, [1, 2, 0, 0, 0, 0, 0, 0]);
    run_bytes(&mut cpu, &[0xc5, 0xfc, 0x77]).unwrap(); // vzeroall
    assert_eq!(cpu.s.vec[4].0, [0; 8]);
}

#[test]
fn alignment_faults_where_the_sdm_says() {
    let mut cpu = cpu();
    cpu.s.regs.set(3, DATA + 8);
    let gp = Err(Exception::GP0);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movaps_xmm_xmmm128, R::XMM1, at(R::RBX))), gp);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movaps_xmmm128_xmm, at(R::RBX), R::XMM1)), gp);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Addps_xmm_xmmm128, R::XMM1, at(R::RBX))), gp);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Cvtpd2pi_mm_xmmm128, R::MM1, at(R::RBX))), gp);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movntdq_m128_xmm, at(R::RBX), R::XMM1)), gp);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::VEX_Vmovaps_xmm_xmmm128, R::XMM1, at(R::RBX))), gp);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movups_xmm_xmmm128, R::XMM1, at(R::RBX))), Ok(()));
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Cvtps2pd_xmm_xmmm64, R::XMM1, at(R::RBX))), Ok(()));
    let pcmp = Instruction::with3(Code::Pcmpistri_xmm_xmmm128_imm8, R::XMM1, at(R::RBX), 0u32);
    assert_eq!(run(&mut cpu, pcmp), Ok(()));
    let vadd = Instruction::with3(Code::VEX_Vaddps_xmm_xmm_xmmm128, R::XMM1, R::XMM1, at(R::RBX));
    assert_eq!(run(&mut cpu, vadd), Ok(()));
    cpu.s.regs.set(3, DATA + 16);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movaps_xmm_xmmm128, R::XMM1, at(R::RBX))), Ok(()));
    assert_eq!(run(&mut cpu, Instruction::with2(Code::VEX_Vmovdqa_ymm_ymmm256, R::YMM1, at(R::RBX))), gp);
    // Alignment comes before the page.
    cpu.s.regs.set(3, NOT_PRESENT + 8);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movaps_xmm_xmmm128, R::XMM1, at(R::RBX))), gp);
}

#[test]
fn page_faults_leave_everything_as_it_was() {
    let mut cpu = cpu();
    cpu.s.vec[1] = doubles(1.0, 2.0);
    let vec = cpu.s.vec[1];
    cpu.s.regs.set(3, NOT_PRESENT - 8);
    let fault = Err(Exception::pf(0));
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Movups_xmm_xmmm128, R::XMM1, at(R::RBX))), fault);
    assert_eq!(cpu.fault_addr, NOT_PRESENT);
    let vadd = Instruction::with3(Code::VEX_Vaddpd_ymm_ymm_ymmm256, R::YMM1, R::YMM1, at(R::RBX));
    assert_eq!(run(&mut cpu, vadd), fault);
    let before = read(&cpu, NOT_PRESENT - 8, 8);
    let store = Instruction::with2(Code::Movups_xmmm128_xmm, at(R::RBX), R::XMM1);
    assert_eq!(run(&mut cpu, store), Err(Exception::pf(pf::W)));
    assert_eq!(read(&cpu, NOT_PRESENT - 8, 8), before);
    assert_eq!(cpu.s.vec[1], vec);
    // Exactly the operand's size: the eight bytes before the page are fine.
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Cvtps2pd_xmm_xmmm64, R::XMM1, at(R::RBX))), Ok(()));
    let extract = Instruction::with3(Code::Pextrq_rm64_xmm_imm8, at(R::RBX), R::XMM1, 1u32);
    assert_eq!(run(&mut cpu, extract), Ok(()));
    // An MMX instruction that faults has not touched the x87 state.
    cpu.s.regs.set(3, NOT_PRESENT);
    cpu.s.x87.sw = 3 << 11;
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Paddb_mm_mmm64, R::MM1, at(R::RBX))), fault);
    assert_eq!((cpu.s.x87.sw, cpu.s.x87.tag), (3 << 11, 0));
    // A conversion to memory that cannot be stored has raised nothing.
    cpu.s.regs.set(3, READ_ONLY);
    cpu.s.vec[2] = VectorReg([0x3f80_0001_3f80_0001, 0, 0, 0, 0, 0, 0, 0]);
    let convert = Instruction::with3(Code::VEX_Vcvtps2ph_xmmm64_xmm_imm8, at(R::RBX), R::XMM2, 0u32);
    assert_eq!(run(&mut cpu, convert), Err(Exception::pf(pf::W | pf::P)));
    assert_eq!(cpu.s.mxcsr, mxcsr::RESET);
}

#[test]
fn operands_across_pages_are_whole() {
    let mut cpu = cpu();
    let la = DATA + 0x1000 - 8;
    let bytes: Vec<u8> = (1..=16).collect();
    assert!(cpu.ram.write(la, &bytes));
    cpu.s.regs.set(3, la);
    run(&mut cpu, Instruction::with2(Code::Movdqu_xmm_xmmm128, R::XMM1, at(R::RBX))).unwrap();
    assert_eq!(cpu.s.vec[1].0[0].to_le_bytes(), bytes[..8]);
    run(&mut cpu, Instruction::with3(Code::VEX_Vpaddb_xmm_xmm_xmmm128, R::XMM1, R::XMM1, at(R::RBX)))
        .unwrap();
    run(&mut cpu, Instruction::with2(Code::Movdqu_xmmm128_xmm, at(R::RBX), R::XMM1)).unwrap();
    let doubled: Vec<u8> = (1..=16).map(|b| 2 * b).collect();
    assert_eq!(read(&cpu, la, 16), doubled);
}

const IE: u32 = 1;
const DE: u32 = 2;
const ZE: u32 = 4;
const OE: u32 = 8;
const UE: u32 = 16;
const PE: u32 = 32;

/// MXCSR with these exceptions unmasked.
fn unmask(flags: u32) -> u32 {
    mxcsr::RESET & !(flags << 7)
}

#[test]
fn masked_exceptions_set_flags_and_round_as_asked() {
    let mut cpu = cpu();
    let div = || Instruction::with2(Code::Divpd_xmm_xmmm128, R::XMM1, R::XMM2);
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(1.0, 1.0), doubles(3.0, 0.0));
    run(&mut cpu, div()).unwrap();
    assert_eq!(cpu.s.mxcsr, mxcsr::RESET | PE | ZE);
    let nearest = cpu.s.vec[1].0[0];
    // The flags are sticky; rounding up gives the next number.
    cpu.s.mxcsr = mxcsr::RESET | 2 << 13 | IE;
    cpu.s.vec[1] = doubles(1.0, 1.0);
    run(&mut cpu, div()).unwrap();
    assert_eq!(cpu.s.vec[1].0[0], nearest + 1);
    assert_eq!(cpu.s.mxcsr, mxcsr::RESET | 2 << 13 | IE | PE | ZE);
    // DAZ: a denormal is zero, and no flag.
    cpu.s.mxcsr = mxcsr::RESET | mxcsr::DAZ;
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(5e-324, 0.0), doubles(1.0, 1.0));
    run(&mut cpu, div()).unwrap();
    assert_eq!((cpu.s.vec[1].0[0], cpu.s.mxcsr), (0, mxcsr::RESET | mxcsr::DAZ));
    // The host's own control is back.
    let third = std::hint::black_box(1.0f64) / std::hint::black_box(3.0);
    assert_eq!(third.to_bits(), nearest);
    assert!(std::hint::black_box(5e-324f64) > 0.0);
}

#[test]
fn unmasked_exceptions_are_reported_exactly() {
    let mut cpu = cpu();
    let xm = Err(Exception::XM);
    let div = || Instruction::with2(Code::Divpd_xmm_xmmm128, R::XMM1, R::XMM2);
    let mul = || Instruction::with2(Code::Mulpd_xmm_xmmm128, R::XMM1, R::XMM2);
    // A division by zero in one element keeps the other's PE from view.
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(1.0, 1.0), doubles(3.0, 0.0));
    let before = cpu.s.vec[1];
    cpu.s.mxcsr = unmask(ZE);
    assert_eq!(run(&mut cpu, div()), xm);
    assert_eq!((cpu.s.mxcsr, cpu.s.vec[1]), (unmask(ZE) | ZE, before));
    // Unmasked PE is found after computing: ZE of the other element shows, too.
    cpu.s.mxcsr = unmask(PE);
    assert_eq!(run(&mut cpu, div()), xm);
    assert_eq!((cpu.s.mxcsr, cpu.s.vec[1]), (unmask(PE) | PE | ZE, before));
    // Without OSXMMEXCPT it is an invalid opcode.
    cpu.s.cr4 -= Cr4::OSXMMEXCPT;
    assert_eq!(run(&mut cpu, div()), Err(Exception::UD));
    cpu.s.cr4 |= Cr4::OSXMMEXCPT;
    // Overflow comes with PE if digits are lost, in any element, whatever the range.
    for (factor, other, flags) in [(2.0, 1.0, OE), (1.1, 1.0, OE | PE), (2.0, 1.0 / 3.0, OE | PE)] {
        cpu.s.mxcsr = unmask(OE);
        (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(f64::MAX, other), doubles(factor, other));
        assert_eq!(run(&mut cpu, mul()), xm);
        assert_eq!(cpu.s.mxcsr, unmask(OE) | flags, "by {factor} and {other}");
    }
    // So does underflow: half the least denormal is tiny, but exact.
    for (least, flags) in [(1, UE), (3, UE), ((1 << 52) - 1, UE | PE)] {
        cpu.s.mxcsr = unmask(UE);
        let factor = if flags == UE { 0.5 } else { 0.3 };
        (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(f64::from_bits(least), 1.0), doubles(factor, 1.0));
        assert_eq!(run(&mut cpu, mul()), xm);
        assert_eq!(cpu.s.mxcsr & (UE | PE), flags);
    }
    // A conversion to halves has exact tiny results that FTZ does not reveal.
    cpu.s.vec[2].0 = [u64::from(2f32.powi(-24).to_bits()), 0, 0, 0, 0, 0, 0, 0];
    let halve = || Instruction::with3(Code::VEX_Vcvtps2ph_xmmm64_xmm_imm8, R::XMM1, R::XMM2, 0u32);
    cpu.s.mxcsr = unmask(UE) | mxcsr::FTZ;
    assert_eq!(run(&mut cpu, halve()), xm);
    assert_eq!(cpu.s.mxcsr, unmask(UE) | mxcsr::FTZ | UE);
    cpu.s.mxcsr = mxcsr::RESET | mxcsr::FTZ;
    assert_eq!(run(&mut cpu, halve()), Ok(()));
    assert_eq!((cpu.s.mxcsr, cpu.s.vec[1].0[0]), (mxcsr::RESET | mxcsr::FTZ, 1));
    // Tiny and exact: underflow only if unmasked, even if FTZ is set.
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(f64::MIN_POSITIVE, 1.0), doubles(0.5, 1.0));
    cpu.s.mxcsr = unmask(UE);
    assert_eq!(run(&mut cpu, mul()), xm);
    assert_eq!(cpu.s.mxcsr, unmask(UE) | UE);
    cpu.s.mxcsr = unmask(UE) | mxcsr::FTZ;
    assert_eq!(run(&mut cpu, mul()), xm);
    assert_eq!(cpu.s.mxcsr, unmask(UE) | mxcsr::FTZ | UE);
    cpu.s.mxcsr = mxcsr::RESET;
    assert_eq!(run(&mut cpu, mul()), Ok(()));
    assert_eq!((cpu.s.mxcsr, cpu.s.vec[1].0[0]), (mxcsr::RESET, f64::MIN_POSITIVE.to_bits() >> 1));
    // FTZ with underflow masked: zero, UE and PE.
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(f64::MIN_POSITIVE, 1.0), doubles(0.5, 1.0));
    cpu.s.mxcsr = mxcsr::RESET | mxcsr::FTZ;
    assert_eq!(run(&mut cpu, mul()), Ok(()));
    assert_eq!((cpu.s.mxcsr, cpu.s.vec[1].0[0]), (mxcsr::RESET | mxcsr::FTZ | UE | PE, 0));
    // A flag that is set already raises nothing by itself.
    cpu.s.mxcsr = unmask(DE) | DE;
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(1.0, 1.0), doubles(2.0, 4.0));
    assert_eq!(run(&mut cpu, mul()), Ok(()));
    // A memory operand is read once, and nothing is written.
    cpu.s.mxcsr = unmask(PE);
    cpu.s.regs.set(3, DATA);
    assert!(cpu.ram.write(DATA, &[0x55; 8]));
    cpu.s.vec[2] = VectorReg([0x3f80_0001_3f80_0001, 0, 0, 0, 0, 0, 0, 0]);
    let convert = Instruction::with3(Code::VEX_Vcvtps2ph_xmmm64_xmm_imm8, at(R::RBX), R::XMM2, 0u32);
    assert_eq!(run(&mut cpu, convert), xm);
    assert_eq!(read(&cpu, DATA, 8), [0x55; 8]);
    // Comparisons leave the flags alone, conversions the general register.
    cpu.s.mxcsr = unmask(IE);
    cpu.s.vec[1] = doubles(f64::NAN, 0.0);
    cpu.s.flags.set_all(0x895);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Comisd_xmm_xmmm64, R::XMM1, R::XMM1)), xm);
    assert_eq!(cpu.s.flags.get(), 0x895);
    cpu.s.regs.set(0, 77);
    assert_eq!(run(&mut cpu, Instruction::with2(Code::Cvtsd2si_r64_xmmm64, R::RAX, R::XMM1)), xm);
    assert_eq!((cpu.s.regs.get(0), cpu.s.mxcsr), (77, unmask(IE) | IE));
}

#[test]
fn results_in_flags_and_general_registers() {
    let mut cpu = cpu();
    (cpu.s.vec[1], cpu.s.vec[2]) = (doubles(1.0, 0.0), doubles(2.0, 0.0));
    let ucomisd = |a, b| Instruction::with2(Code::Ucomisd_xmm_xmmm64, a, b);
    cpu.s.flags.set_all(0x8d5);
    run(&mut cpu, ucomisd(R::XMM1, R::XMM2)).unwrap();
    assert_eq!(cpu.s.flags.get(), 1);
    run(&mut cpu, ucomisd(R::XMM1, R::XMM1)).unwrap();
    assert_eq!(cpu.s.flags.get(), 0x40);
    cpu.s.vec[2] = doubles(f64::NAN, 0.0);
    run(&mut cpu, ucomisd(R::XMM1, R::XMM2)).unwrap();
    assert_eq!((cpu.s.flags.get(), cpu.s.mxcsr), (0x45, mxcsr::RESET));
    // Greater, with inexact flags from before.
    run(&mut cpu, Instruction::with2(Code::Ptest_xmm_xmmm128, R::XMM1, R::XMM1)).unwrap();
    assert_eq!(cpu.s.flags.get(), 1);
    // 32-bit results clear the upper half, in any register.
    cpu.s.regs.set(12, u64::MAX);
    cpu.s.vec[3] = doubles(-1.0, 0.0);
    run(&mut cpu, Instruction::with2(Code::Cvttsd2si_r32_xmmm64, R::R12D, R::XMM3)).unwrap();
    assert_eq!(cpu.s.regs.get(12), 0xffff_ffff);
    run(&mut cpu, Instruction::with2(Code::Pmovmskb_r32_xmm, R::ESP, R::XMM3)).unwrap();
    assert_eq!(cpu.s.regs.get(4), 0xc0);
    cpu.s.regs.set(6, 0x1_0000_0005);
    run(&mut cpu, Instruction::with2(Code::Cvtsi2sd_xmm_rm32, R::XMM3, R::ESI)).unwrap();
    assert_eq!(cpu.s.vec[3].0[0], 5f64.to_bits());
    // String comparison: first 'c' in "abc", lengths in EAX and EDX.
    cpu.s.vec[4] = VectorReg([0x63, 0, 5, 0, 0, 0, 0, 0]);
    cpu.s.vec[5] = VectorReg([0x63_6362_6161, 0, 0, 0, 0, 0, 0, 0]);
    (0..3).for_each(|i| cpu.s.regs.set(i, [1, u64::MAX, 5][i]));
    run(&mut cpu, Instruction::with3(Code::Pcmpestri_xmm_xmmm128_imm8, R::XMM4, R::XMM5, 0u32)).unwrap();
    assert_eq!(cpu.s.regs.get(1), 3);
    assert_eq!(cpu.s.flags.get(), 0xc1, "CF match, ZF and SF short operands");
    cpu.s.vec[0] = ones();
    run(&mut cpu, Instruction::with3(Code::Pcmpestrm_xmm_xmmm128_imm8, R::XMM4, R::XMM5, 0u32)).unwrap();
    assert_eq!(cpu.s.vec[0].0[..3], [0b11000, 0, u64::MAX]);
}

#[test]
fn masked_elements_do_not_fault() {
    let mut cpu = cpu();
    let top = 1u64 << 63;
    // Eight bytes before a missing page, two elements inside, two beyond.
    cpu.s.regs.set(3, NOT_PRESENT - 8);
    assert!(cpu.ram.write(NOT_PRESENT - 8, &0x1111_2222_3333_4444u64.to_le_bytes()));
    cpu.s.vec[2] = VectorReg([top | 0x8000_0000, 0, 1, 1, 0, 0, 0, 0]);
    cpu.s.vec[1] = VectorReg([9, 9, 9, 9, 0, 0, 0, 0]);
    let load = Instruction::with3(Code::VEX_Vmaskmovps_xmm_xmm_m128, R::XMM1, R::XMM2, at(R::RBX));
    run(&mut cpu, load).unwrap();
    assert_eq!(cpu.s.vec[1].0, [0x1111_2222_3333_4444, 0, 0, 0, 0, 0, 0, 0]);
    let store =
        |data| Instruction::with3(Code::VEX_Vpmaskmovd_m128_xmm_xmm, at(R::RBX), R::XMM2, data).unwrap();
    cpu.s.vec[3] = VectorReg([0xaaaa_aaaa_bbbb_bbbb, 0, 0, 0, 0, 0, 0, 0]);
    cpu.s.vec[2].0[0] = top;
    run(&mut cpu, Ok(store(R::XMM3))).unwrap();
    assert_eq!(read(&cpu, NOT_PRESENT - 8, 8), 0xaaaa_aaaa_3333_4444u64.to_le_bytes());
    // One element beyond: nothing at all is written.
    cpu.s.vec[2].0 = [top | 0x8000_0000, top, 0, 0, 0, 0, 0, 0];
    let before = read(&cpu, NOT_PRESENT - 8, 8);
    assert_eq!(run(&mut cpu, Ok(store(R::XMM1))), Err(Exception::pf(pf::W)));
    assert_eq!(cpu.fault_addr, NOT_PRESENT + 4);
    assert_eq!(read(&cpu, NOT_PRESENT - 8, 8), before);
    // Bytes, at RDI.
    cpu.s.regs.set(7, NOT_PRESENT - 8);
    cpu.s.vec[2].0 = [0x80_0000_0000, 0, 0, 0, 0, 0, 0, 0];
    run_bytes(&mut cpu, &[0x66, 0x0f, 0xf7, 0xca]).unwrap(); // maskmovdqu xmm1, xmm2
    assert_eq!(read(&cpu, NOT_PRESENT - 4, 1), [0x22]);
}

#[test]
fn gathers_fault_element_by_element_and_resume() {
    let mut cpu = cpu();
    for i in 0..8u64 {
        assert!(cpu.ram.write(DATA + 8 * i, &(100 + i).to_le_bytes()));
    }
    cpu.s.regs.set(3, DATA);
    let far = (NOT_PRESENT - DATA) / 8;
    cpu.s.vec[9] = VectorReg([2, 1, far, 0u64.wrapping_sub(1), 0, 0, 0, 0]);
    cpu.s.vec[1] = VectorReg([1, 1, 1, 1, 0, 0, 0, 0]);
    cpu.s.vec[3] = VectorReg([u64::MAX, 0, u64::MAX, u64::MAX, 0, 0, 0, 0]);
    let memory = Mem::with_base_index_scale(R::RBX, R::YMM9, 8);
    let mut insn = Instruction::with3(Code::VEX_Vgatherqpd_ymm_vm64y_ymm, R::YMM1, memory, R::YMM3).unwrap();
    assert_eq!(run(&mut cpu, Ok(insn)), Err(Exception::pf(0)));
    assert_eq!(cpu.s.vec[1].0[..4], [102, 1, 1, 1]);
    assert_eq!(cpu.s.vec[3].0[..4], [0, 0, u64::MAX, u64::MAX]);
    cpu.s.vec[9].0[2] = 3;
    assert!(cpu.ram.write(DATA - 8, &55u64.to_le_bytes()));
    run(&mut cpu, Ok(insn)).unwrap();
    assert_eq!(cpu.s.vec[1].0, [102, 1, 103, 55, 0, 0, 0, 0]);
    assert_eq!(cpu.s.vec[3].0, [0; 8]);
    // Quadword indices, doubleword elements: four of them, the rest cleared.
    cpu.s.vec[3] = ones();
    cpu.s.vec[1] = VectorReg([9; 8]);
    let memory = Mem::with_base_index_scale(R::RBX, R::YMM9, 8);
    insn = Instruction::with3(Code::VEX_Vpgatherqd_xmm_vm64y_xmm, R::XMM1, memory, R::XMM3).unwrap();
    run(&mut cpu, Ok(insn)).unwrap();
    assert_eq!(cpu.s.vec[1].0, [101 << 32 | 102, 55 << 32 | 103, 0, 0, 0, 0, 0, 0]);
    // Registers that coincide are undefined.
    let bytes = encode(&insn);
    let mut same = bytes.clone();
    same[2] = same[2] & !0x78 | (!1u8 & 15) << 3; // vvvv = XMM1, the destination
    assert_eq!(run_bytes(&mut cpu, &same), Err(Exception::UD));
}

#[test]
fn mmx_aliases_the_x87_registers() {
    let mut cpu = cpu();
    // TOP is 5: ST(3) is R0.
    cpu.s.x87.sw = 5 << 11 | 0x4700;
    for i in 0..8u128 {
        cpu.s.x87.st[i as usize] = 0x3fff << 64 | ((i + 5) & 7);
    }
    run(&mut cpu, Instruction::with2(Code::Paddb_mm_mmm64, R::MM2, R::MM7)).unwrap();
    assert_eq!((cpu.s.x87.sw, cpu.s.x87.tag), (0x4700, 0xff));
    for i in 0..8u128 {
        let expected = if i == 2 { 0xffff << 64 | 9 } else { 0x3fff << 64 | i };
        assert_eq!(cpu.s.x87.st[i as usize], expected);
    }
    // Stores, too, with TOP away from zero.
    cpu.s.regs.set(3, DATA);
    cpu.s.x87.sw = 1 << 11;
    run(&mut cpu, Instruction::with2(Code::Movq_mmm64_mm, at(R::RBX), R::MM1)).unwrap();
    assert_eq!(read(&cpu, DATA, 8), 0u64.to_le_bytes());
    assert_eq!(cpu.s.x87.sw, 0);
    run_bytes(&mut cpu, &[0x0f, 0x77]).unwrap(); // emms
    assert_eq!(cpu.s.x87.tag, 0);
    // A pending x87 exception comes first.
    cpu.s.x87.sw = 0x80;
    let paddb = || Instruction::with2(Code::Paddb_mm_mmm64, R::MM2, R::MM7);
    assert_eq!(run(&mut cpu, paddb()), Err(Exception::MF));
    assert_eq!(
        run(&mut cpu, Instruction::with2(Code::Cvtpi2ps_xmm_mmm64, R::XMM1, R::MM7)),
        Err(Exception::MF)
    );
    // From memory, CVTPI2PD is no MMX instruction; CVTPI2PS is.
    let convert = || Instruction::with2(Code::Cvtpi2pd_xmm_mmm64, R::XMM1, at(R::RBX));
    assert_eq!(run(&mut cpu, convert()), Ok(()));
    let convert = Instruction::with2(Code::Cvtpi2ps_xmm_mmm64, R::XMM1, at(R::RBX));
    assert_eq!(run(&mut cpu, convert), Err(Exception::MF));
    assert_eq!(cpu.s.x87.sw, 0x80);
}

#[test]
fn gates_in_the_order_of_the_sdm() {
    let mut cpu = cpu();
    let sse = || Instruction::with2(Code::Addps_xmm_xmmm128, R::XMM1, R::XMM2);
    let mov = || Instruction::with2(Code::Movups_xmm_xmmm128, R::XMM1, R::XMM2);
    let avx = || Instruction::with3(Code::VEX_Vaddps_xmm_xmm_xmmm128, R::XMM1, R::XMM1, R::XMM2);
    let mmx = || Instruction::with2(Code::Paddb_mm_mmm64, R::MM1, R::MM2);
    let all = |cpu: &mut Cpu| [run(cpu, sse()), run(cpu, mov()), run(cpu, avx()), run(cpu, mmx())];
    let (ud, nm) = (Err(Exception::UD), Err(Exception::NM));
    assert_eq!(all(&mut cpu), [Ok(()); 4]);
    cpu.s.cr0 |= Cr0::TS;
    assert_eq!(all(&mut cpu), [nm; 4]);
    cpu.s.cr0 |= Cr0::EM;
    assert_eq!(all(&mut cpu), [ud, ud, nm, ud]);
    cpu.s.cr0 -= Cr0::EM | Cr0::TS;
    cpu.s.cr4 -= Cr4::OSFXSR;
    assert_eq!(all(&mut cpu), [ud, ud, Ok(()), Ok(())]);
    cpu.s.cr4 |= Cr4::OSFXSR;
    cpu.s.xcr0 -= Xcr0::AVX;
    assert_eq!(all(&mut cpu), [Ok(()), Ok(()), ud, Ok(())]);
    cpu.s.xcr0 |= Xcr0::AVX;
    cpu.s.cr4 -= Cr4::OSXSAVE;
    assert_eq!(all(&mut cpu), [Ok(()), Ok(()), ud, Ok(())]);
}

#[test]
fn mxcsr_is_loaded_whole_or_not_at_all() {
    let mut cpu = cpu();
    cpu.s.regs.set(3, DATA);
    let load = || Instruction::with1(Code::Ldmxcsr_m32, at(R::RBX));
    assert!(cpu.ram.write(DATA, &0xffffu32.to_le_bytes()));
    run(&mut cpu, load()).unwrap();
    assert_eq!(cpu.s.mxcsr, 0xffff);
    assert!(cpu.ram.write(DATA, &0x1_0000u32.to_le_bytes()));
    assert_eq!(run(&mut cpu, load()), Err(Exception::GP0));
    assert_eq!(cpu.s.mxcsr, 0xffff);
    run(&mut cpu, Instruction::with1(Code::VEX_Vstmxcsr_m32, at(R::RBX))).unwrap();
    assert_eq!(read(&cpu, DATA, 4), 0xffffu32.to_le_bytes());
}

#[test]
fn thirty_two_bit_code_uses_the_same_thunks() {
    let mut cpu = cpu();
    let flat = arch::descriptor::Attr::DATA;
    cpu.s.seg[1].attr = arch::descriptor::Attr(0x00c0_9b00);
    for seg in [3, 5] {
        cpu.s.seg[seg].attr = flat;
        cpu.s.seg[seg].limit = DATA as u32 + 31;
    }
    cpu.s.seg[5].base = 0x100;
    cpu.s.regs.set(3, 0xffff_ffff_0000_0000 | DATA);
    assert!(cpu.ram.write(DATA, &[1; 16]));
    assert!(cpu.ram.write(DATA + 0x100, &[2; 16]));
    let bits32 = |cpu: &mut Cpu, bytes: &[u8]| {
        cpu.control_changed();
        let op = decode_one(cpu, bytes, 0, Mode::Bits32);
        run_one(cpu, &op).map(|_| cpu.s.vec[1].0[0])
    };
    // paddb xmm1, [ebx]; the same of gs; vpaddb xmm1, xmm1, [DATA]
    assert_eq!(bits32(&mut cpu, &[0x66, 0x0f, 0xfc, 0x0b]), Ok(0x0101_0101_0101_0101));
    assert_eq!(bits32(&mut cpu, &[0x65, 0x66, 0x0f, 0xfc, 0x0b]), Ok(0x0303_0303_0303_0303));
    assert_eq!(bits32(&mut cpu, &[0xc5, 0xf1, 0xfc, 0x0d, 0, 0x80, 0, 0]), Ok(0x0404_0404_0404_0404));
    // movups xmm1, [ebx+17]: beyond the limit.
    assert_eq!(bits32(&mut cpu, &[0x0f, 0x10, 0x4b, 0x11]), Err(Exception::GP0));
    // Real-address mode has no VEX.
    cpu.s.cr0 -= Cr0::PE;
    assert_eq!(bits32(&mut cpu, &[0xc5, 0xf1, 0xfc, 0xc9]), Err(Exception::UD));
}

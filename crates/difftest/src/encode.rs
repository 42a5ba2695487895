//! Random encodings of a form: registers, addressing, prefixes, immediates.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, MemorySize, OpCodeOperandKind as K, OpKind, Register,
};

use crate::area;
use crate::place;
use crate::rng::Rng;

/// One encoded instruction.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The bytes as decoded.
    pub insn: Instruction,
}

/// An encoding of `code` for address `rip`, whose branches go to one of `targets`.
/// `None` if the random choice cannot be encoded: try again.
pub fn encode(rng: &mut Rng, code: Code, rip: u64, targets: [u64; 2]) -> Option<Encoded> {
    let info = code.op_code();
    let mut insn = Instruction::default();
    insn.set_code(code);
    let mut memory = false;
    for i in 0..info.op_count() {
        memory |= operand(rng, &mut insn, i, info.op_kind(i), targets)?;
    }
    if memory {
        // CS, DS, ES and SS are ignored in 64-bit mode.
        match rng.below(32) {
            0 | 1 => {
                insn.set_segment_prefix(Register::GS);
                // Absolute addresses were chosen for a base of zero.
                if matches!(insn.memory_base(), Register::None | Register::RIP)
                    && !insn.memory_index().is_gpr()
                {
                    insn.set_memory_displacement64(insn.memory_displacement64().wrapping_sub(area::GS_BASE));
                }
            }
            2 => insn.set_segment_prefix(rng.pick(&[Register::ES, Register::CS, Register::SS, Register::DS])),
            _ => {}
        }
    }
    if info.can_use_lock_prefix() && insn.op0_kind() == OpKind::Memory && rng.one_in(2) {
        insn.set_has_lock_prefix(true);
    }
    if code.is_string_instruction() {
        match rng.below(3) {
            0 => {}
            1 if info.can_use_rep_prefix() => insn.set_has_rep_prefix(true),
            _ if info.can_use_repne_prefix() => insn.set_has_repne_prefix(true),
            _ if info.can_use_rep_prefix() => insn.set_has_rep_prefix(true),
            _ => {}
        }
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&insn, rip).ok()?;
    let mut bytes = encoder.take_buffer();
    // A REX prefix that changes nothing, where none is (legacy encodings without other prefixes).
    let first = bytes[0];
    if rng.one_in(16)
        && code.encoding() == iced_x86::EncodingKind::Legacy
        && !(0x40..0x50).contains(&first)
        && !matches!(first, 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67)
        && !memory
        && insn.op_kinds().all(|k| !matches!(k, OpKind::NearBranch64))
        && (0..insn.op_count()).all(|i| !high_byte(insn.op_register(i)))
    {
        bytes.insert(0, 0x40);
    }
    let mut decoder = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE);
    let decoded = decoder.decode();
    (!decoded.is_invalid() && decoded.code() == code && decoded.len() == bytes.len() && bytes.len() <= 15)
        .then_some(Encoded { bytes, insn: decoded })
}

fn high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// Fills in operand `i`; says whether it is memory.
fn operand(rng: &mut Rng, insn: &mut Instruction, i: u32, kind: K, targets: [u64; 2]) -> Option<bool> {
    let set = |insn: &mut Instruction, register: Register| {
        insn.set_op_kind(i, OpKind::Register);
        insn.set_op_register(i, register);
        Some(false)
    };
    let number = rng.below(16) as u32;
    let r8 = |n: u32| match n {
        // AH–BH can be encoded only without REX; AL–R15B otherwise.
        16..20 => Register::AH + (n - 16),
        4..8 => Register::SPL + (n - 4),
        8..16 => Register::R8L + (n - 8),
        n => Register::AL + n,
    };
    let byte = rng.below(20) as u32;
    let reg = rng.below(5) < 2;
    match kind {
        K::r8_or_mem if reg => set(insn, r8(byte)),
        K::r16_or_mem if reg => set(insn, Register::AX + number),
        K::r32_or_mem if reg => set(insn, Register::EAX + number),
        K::r64_or_mem if reg => set(insn, Register::RAX + number),
        K::mm_or_mem if reg => set(insn, Register::MM0 + number % 8),
        K::xmm_or_mem if reg => set(insn, Register::XMM0 + number),
        K::ymm_or_mem if reg => set(insn, Register::YMM0 + number),
        K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
        | K::mm_or_mem
        | K::xmm_or_mem
        | K::ymm_or_mem
        | K::mem => {
            insn.set_op_kind(i, OpKind::Memory);
            addressing(rng, insn);
            Some(true)
        }
        K::mem_vsib32x | K::mem_vsib64x | K::mem_vsib32y | K::mem_vsib64y => {
            let first =
                if matches!(kind, K::mem_vsib32x | K::mem_vsib64x) { Register::XMM0 } else { Register::YMM0 };
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_base(Register::RAX + rng.below(16) as u32);
            insn.set_memory_index(first + number);
            insn.set_memory_index_scale(1 << rng.below(4));
            displacement(rng, insn, 8);
            Some(true)
        }
        K::mem_offs => {
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_displ_size(8);
            insn.set_memory_displacement64(place::address(rng, 8));
            Some(true)
        }
        K::r8_reg | K::r8_opcode => set(insn, r8(byte)),
        K::r16_reg | K::r16_rm | K::r16_opcode => set(insn, Register::AX + number),
        K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => set(insn, Register::EAX + number),
        K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => set(insn, Register::RAX + number),
        K::mm_reg | K::mm_rm => set(insn, Register::MM0 + number % 8),
        K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_is5 => set(insn, Register::XMM0 + number),
        K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => set(insn, Register::YMM0 + number),
        K::seg_reg => set(insn, Register::ES + number % 6),
        K::es => set(insn, Register::ES),
        K::cs => set(insn, Register::CS),
        K::ss => set(insn, Register::SS),
        K::ds => set(insn, Register::DS),
        K::fs => set(insn, Register::FS),
        K::gs => set(insn, Register::GS),
        K::al => set(insn, Register::AL),
        K::cl => set(insn, Register::CL),
        K::ax => set(insn, Register::AX),
        K::dx => set(insn, Register::DX),
        K::eax => set(insn, Register::EAX),
        K::rax => set(insn, Register::RAX),
        K::st0 => set(insn, Register::ST0),
        K::sti_opcode => set(insn, Register::ST0 + number % 8),
        K::br64_1 | K::br64_4 => {
            insn.set_op_kind(i, OpKind::NearBranch64);
            insn.set_near_branch64(targets[number as usize % 2]);
            Some(false)
        }
        K::imm8
        | K::imm16
        | K::imm32
        | K::imm64
        | K::imm8_const_1
        | K::imm8sex16
        | K::imm8sex32
        | K::imm8sex64
        | K::imm32sex64
        | K::imm4_m2z => {
            immediate(rng, insn, i, kind);
            Some(false)
        }
        K::seg_rSI | K::es_rDI | K::seg_rDI | K::seg_rBX_al => {
            implicit(rng, insn, i, kind);
            Some(true)
        }
        _ => None,
    }
}

fn immediate(rng: &mut Rng, insn: &mut Instruction, i: u32, kind: K) {
    let value = rng.integer();
    // The second 8-bit immediate of ENTER, EXTRQ and INSERTQ.
    let again = (0..i).any(|n| matches!(insn.op_kind(n), OpKind::Immediate8 | OpKind::Immediate16));
    let op_kind = match kind {
        K::imm8 | K::imm8_const_1 | K::imm4_m2z if again => OpKind::Immediate8_2nd,
        K::imm8 | K::imm8_const_1 | K::imm4_m2z => OpKind::Immediate8,
        K::imm8sex16 => OpKind::Immediate8to16,
        K::imm8sex32 => OpKind::Immediate8to32,
        K::imm8sex64 => OpKind::Immediate8to64,
        K::imm16 => OpKind::Immediate16,
        K::imm32 => OpKind::Immediate32,
        K::imm32sex64 => OpKind::Immediate32to64,
        _ => OpKind::Immediate64,
    };
    insn.set_op_kind(i, op_kind);
    match op_kind {
        OpKind::Immediate8_2nd => insn.set_immediate8_2nd(value as u8),
        OpKind::Immediate8 if kind == K::imm8_const_1 => insn.set_immediate8(1),
        OpKind::Immediate8 if kind == K::imm4_m2z => insn.set_immediate8(value as u8 & 15),
        OpKind::Immediate8 => insn.set_immediate8(value as u8),
        OpKind::Immediate8to16 => insn.set_immediate8to16(i16::from(value as i8)),
        OpKind::Immediate8to32 => insn.set_immediate8to32(i32::from(value as i8)),
        OpKind::Immediate8to64 => insn.set_immediate8to64(i64::from(value as i8)),
        OpKind::Immediate16 => insn.set_immediate16(value as u16),
        OpKind::Immediate32 => insn.set_immediate32(value as u32),
        OpKind::Immediate32to64 => insn.set_immediate32to64(i64::from(value as i32)),
        _ => insn.set_immediate64(value),
    }
}

fn implicit(rng: &mut Rng, insn: &mut Instruction, i: u32, kind: K) {
    // All implicit addresses of an instruction have one size.
    let earlier = (0..i).map(|n| insn.op_kind(n)).find_map(|k| match k {
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(true),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(false),
        _ => None,
    });
    let short = earlier.unwrap_or_else(|| rng.one_in(5));
    let op_kind = match (kind, short) {
        (K::seg_rSI, false) => OpKind::MemorySegRSI,
        (K::seg_rSI, true) => OpKind::MemorySegESI,
        (K::es_rDI, false) => OpKind::MemoryESRDI,
        (K::es_rDI, true) => OpKind::MemoryESEDI,
        (K::seg_rDI, false) => OpKind::MemorySegRDI,
        (K::seg_rDI, true) => OpKind::MemorySegEDI,
        _ => {
            // XLAT: DS:[rBX + AL].
            insn.set_memory_base(if short { Register::EBX } else { Register::RBX });
            insn.set_memory_index(Register::AL);
            OpKind::Memory
        }
    };
    insn.set_op_kind(i, op_kind);
}

/// A random way to address memory.
fn addressing(rng: &mut Rng, insn: &mut Instruction) {
    let (registers, wide) = if rng.one_in(8) { (Register::EAX, 4) } else { (Register::RAX, 8) };
    let base = registers + rng.below(16) as u32;
    // No encoding has RSP as index.
    let index = registers + [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15][rng.below(15) as usize];
    match rng.below(16) {
        0 | 1 => {
            insn.set_memory_base(Register::RIP);
            insn.set_memory_displ_size(8);
            insn.set_memory_displacement64(place::window(rng, 16));
        }
        2 => {
            // Absolute: below 2 GiB, so that it fits.
            insn.set_memory_displ_size(wide);
            insn.set_memory_displacement64(place::window(rng, 16));
        }
        3 | 4 => {
            insn.set_memory_index(index);
            insn.set_memory_index_scale(1 << rng.below(4));
            insn.set_memory_displ_size(wide);
            insn.set_memory_displacement64(rng.integer() as i32 as i64 as u64);
        }
        5..=9 => {
            insn.set_memory_base(base);
            insn.set_memory_index(index);
            insn.set_memory_index_scale(1 << rng.below(4));
            displacement(rng, insn, wide);
        }
        _ => {
            insn.set_memory_base(base);
            displacement(rng, insn, wide);
        }
    }
    if wide == 4 && insn.memory_displ_size() == 4 {
        insn.set_memory_displacement64(insn.memory_displacement64() & 0xffff_ffff);
    }
}

fn displacement(rng: &mut Rng, insn: &mut Instruction, wide: u32) {
    match rng.below(3) {
        0 => insn.set_memory_displ_size(0),
        1 => {
            insn.set_memory_displ_size(1);
            let value = rng.integer() as i8 as i64 as u64;
            insn.set_memory_displacement64(if wide == 4 { value & 0xffff_ffff } else { value });
        }
        _ => {
            insn.set_memory_displ_size(wide);
            insn.set_memory_displacement64(rng.integer() as i32 as i64 as u64);
        }
    }
}

/// Bytes of the memory operand, for placing it; instructions whose operand has
/// no size in iced-x86's tables get what they really touch.
pub fn memory_bytes(insn: &Instruction) -> u64 {
    match insn.memory_size() {
        MemorySize::Unknown => 8,
        MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte => 512,
        MemorySize::FpuState94 => 94,
        MemorySize::FpuState108 => 108,
        size => (size.size() as u64).max(1),
    }
}

const _: () = assert!(area::DATA < 1 << 31);

//! What may differ between processors, and is therefore not compared: the
//! written list of `docs/differences.md`, entry by entry. Nothing else is tolerated.

use arch::regs::rflags::{AF, CF, OF, PF, SF, STATUS, ZF};
use iced_x86::{Code, CpuidFeature, FlowControl, Instruction, MemorySize, Mnemonic as M, OpKind};

use crate::snapshot::{Outcome, Registers};

/// One accepted difference.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name, as in `docs/differences.md`.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All accepted differences.
pub const ENTRIES: &[Entry] = &[
    Entry { name: "undefined-flags", reason: "the SDM leaves these flags undefined after the instruction" },
    Entry { name: "shift-count", reason: "which flags a shift or rotate defines depends on its count" },
    Entry {
        name: "double-shift-16",
        reason: "SHLD and SHRD of 16 bits by more than 16 leave an undefined result",
    },
    Entry {
        name: "x87-pointers",
        reason: "FIP, FDP, FOP and their selectors are recorded differently by vendors",
    },
    Entry {
        name: "fxsave-reserved",
        reason: "MXCSR_MASK and the reserved bytes of FXSAVE's image depend on the model",
    },
    Entry {
        name: "kernel-half",
        reason: "Linux reports page faults above the user's half as protection violations",
    },
    Entry {
        name: "wide-fault-address",
        reason: "which byte of an operand of more than 8 bytes CR2 names is the model's choice",
    },
    Entry {
        name: "wide-alignment",
        reason: "whether #AC looks at operands of more than 8 bytes is the model's choice; not generated",
    },
    Entry {
        name: "maskmov-faults",
        reason: "whether bytes that MASKMOVQ and MASKMOVDQU leave alone are checked is the model's choice",
    },
    Entry {
        name: "cvtpi2ps-memory",
        reason: "AMD leaves the x87 state alone if CVTPI2PS has a memory operand; Intel switches to MMX",
    },
    Entry {
        name: "mmx-fault-state",
        reason: "whether an MMX instruction that faults has already switched to MMX is the model's choice",
    },
    Entry {
        name: "x87-undefined-codes",
        reason: "the SDM leaves these condition code bits undefined after the instruction",
    },
    Entry { name: "fcomi-codes", reason: "Intel clears C1 after FCOMI and its kin, AMD leaves it" },
    Entry {
        name: "fcomi-unmasked",
        reason: "Intel leaves ZF, PF and CF alone if FCOMI raises an unmasked #IA, AMD sets them",
    },
    Entry {
        name: "gather-faults",
        reason: "which elements a gather has done when it faults is the model's choice, as is #AC",
    },
    Entry {
        name: "call-target",
        reason: "AMD pushes before it looks whether the target of an indirect CALL is canonical, Intel after",
    },
    Entry { name: "movsxd-16", reason: "AMD reads four bytes for MOVSXD r16, m16, Intel two" },
    Entry {
        name: "dpp-steps",
        reason: "which of DPPS's and DPPD's steps still set flags when an earlier one raises an unmasked exception is the model's choice",
    },
    Entry {
        name: "cmps-order",
        reason: "which of CMPS's two operands is read first is the model's choice, if both fault",
    },
    Entry {
        name: "sha-alignment",
        reason: "AMD lets the memory operand of SHA instructions lie anywhere, Intel at multiples of 16",
    },
    Entry {
        name: "nop-0f0d",
        reason: "0F 0D with a register is reserved NOP on Intel, undefined on AMD; not tested",
    },
    Entry { name: "undocumented-fstpnce", reason: "FSTPNCE (D9 /3) is undocumented; not tested" },
];

/// Flags whose value after the instruction is undefined.
pub fn undefined_flags(insn: &Instruction, before: &Registers) -> u64 {
    use iced_x86::RflagsBits as R;
    let map = [(R::OF, OF), (R::SF, SF), (R::ZF, ZF), (R::AF, AF), (R::CF, CF), (R::PF, PF)];
    let listed = insn.rflags_undefined();
    let listed = map.iter().filter(|(bit, _)| listed & bit != 0).fold(0, |all, (_, flag)| all | flag);
    let Some((count, bits)) = shift_count(insn, before) else { return listed };
    if count == 0 {
        return 0;
    }
    let of = if count == 1 { 0 } else { OF };
    match insn.mnemonic() {
        M::Rol | M::Ror | M::Rcl | M::Rcr => of,
        M::Shl | M::Sal | M::Shr => of | AF | if count >= bits { CF } else { 0 },
        M::Sar => of | AF,
        _ if count > bits => STATUS,
        _ => of | AF,
    }
}

/// Masked count and operand width of a shift or rotate.
fn shift_count(insn: &Instruction, before: &Registers) -> Option<(u32, u32)> {
    let operand = match insn.mnemonic() {
        M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shl | M::Sal | M::Shr | M::Sar => 1,
        M::Shld | M::Shrd => 2,
        _ => return None,
    };
    let bytes = match insn.op0_kind() {
        OpKind::Register => insn.op0_register().size(),
        _ => insn.memory_size().size(),
    };
    let count = match insn.op_kind(operand) {
        OpKind::Register => before.gpr[1] as u32 & 0xff,
        _ => insn.immediate(operand) as u32,
    };
    Some((count & if bytes == 8 { 63 } else { 31 }, bytes as u32 * 8))
}

/// True if the destination is undefined, and so nothing can be compared.
pub fn undefined_result(insn: &Instruction, before: &Registers) -> bool {
    matches!(insn.mnemonic(), M::Shld | M::Shrd)
        && shift_count(insn, before).is_some_and(|(count, bits)| count > bits)
}

/// Bytes of the stored memory operand that are not compared, relative to it.
pub fn ignored_bytes(insn: &Instruction) -> impl Iterator<Item = u64> {
    let environment = matches!(insn.mnemonic(), M::Fstenv | M::Fnstenv | M::Fsave | M::Fnsave);
    let short = matches!(insn.memory_size(), MemorySize::FpuEnv14 | MemorySize::FpuState94);
    let ranges = match insn.mnemonic() {
        // x87-pointers
        _ if environment && short => [6..14, 0..0, 0..0],
        _ if environment => [12..28, 0..0, 0..0],
        // x87-pointers, fxsave-reserved
        M::Fxsave | M::Fxsave64 => [6..24, 28..32, 416..512],
        _ => [0..0, 0..0, 0..0],
    };
    ranges.into_iter().flatten()
}

/// Makes the host's outcome what it would be without Linux in between.
pub fn without_linux(outcome: &mut Outcome) {
    if let Some(fault) = &mut outcome.fault
        && fault.vector == 14
        && fault.address >= 0x7fff_ffff_f000
    {
        fault.error &= !1;
    }
}

/// Makes the two outcomes equal where they may differ; false if nothing of
/// them can be compared.
pub fn reconcile(
    insn: &Instruction,
    before: &Registers,
    operand: Option<u64>,
    host: &mut Outcome,
    kluis: &mut Outcome,
) -> bool {
    if undefined_result(insn, before) {
        return false;
    }
    let mnemonic = insn.mnemonic();
    // maskmov-faults
    if matches!(mnemonic, M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu)
        && (host.fault.is_some() || kluis.fault.is_some())
    {
        return false;
    }
    // gather-faults, movsxd-16
    if (insn.vsib().is_some() || insn.code() == Code::Movsxd_r16_rm16) && host.fault.is_some() {
        return false;
    }
    // call-target
    if insn.flow_control() == FlowControl::IndirectCall
        && host.fault.is_some_and(|f| f.vector != 13)
        && kluis.fault.is_some_and(|f| f.vector == 13)
    {
        return false;
    }
    // cmps-order
    let compares = matches!(
        insn.code(),
        Code::Cmpsb_m8_m8 | Code::Cmpsw_m16_m16 | Code::Cmpsd_m32_m32 | Code::Cmpsq_m64_m64
    );
    if compares && host.fault.is_some() && kluis.fault.is_some() {
        return false;
    }
    // sha-alignment
    let sha = insn.code().cpuid_features().contains(&CpuidFeature::SHA);
    if sha && operand.is_some_and(|at| at % 16 != 0) && kluis.fault.is_some_and(|f| f.vector == 13) {
        return false;
    }
    // wide-fault-address
    if let (Some(h), Some(k), Some(at)) = (&mut host.fault, &mut kluis.fault, operand) {
        let bytes = crate::encode::memory_bytes(insn);
        let inside = |address: u64| address.wrapping_sub(at) < bytes;
        if bytes > 8 && h.vector == 14 && k.vector == 14 && inside(h.address) && inside(k.address) {
            // Both name a byte in a page that may not be accessed, perhaps not the same page.
            (h.address, h.error) = (k.address, k.error);
        }
    }
    let mmx = |i| insn.op_kind(i) == OpKind::Register && insn.op_register(i).is_mm();
    let uses_mmx = (0..insn.op_count()).any(mmx);
    let x87 = |from: &Registers, to: &mut Registers| (to.sw, to.tag, to.st) = (from.sw, from.tag, from.st);
    // cvtpi2ps-memory
    if mnemonic == M::Cvtpi2ps && insn.op1_kind() == OpKind::Memory {
        if kluis.fault.is_some_and(|f| f.vector == 16) {
            return false;
        }
        x87(&host.regs, &mut kluis.regs);
    }
    // mmx-fault-state
    if uses_mmx && host.fault.is_some() && host.fault == kluis.fault {
        x87(&host.regs, &mut kluis.regs);
    }
    // x87-undefined-codes, fcomi-codes
    let codes = undefined_codes(insn);
    if host.fault.is_none() && codes != 0 {
        kluis.regs.sw = kluis.regs.sw & !codes | host.regs.sw & codes;
    }
    let both_simd = [host.fault, kluis.fault].iter().all(|f| f.is_some_and(|f| f.vector == 19));
    // dpp-steps
    if both_simd && matches!(mnemonic, M::Dpps | M::Dppd | M::Vdpps | M::Vdppd) {
        kluis.regs.mxcsr = host.regs.mxcsr;
    }
    // fcomi-unmasked
    if matches!(mnemonic, M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip)
        && before.cw & 1 == 0
        && host.regs.sw & 1 != 0
    {
        kluis.regs.rflags = host.regs.rflags;
    }
    true
}

const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;

/// Condition code bits of the x87 status word that the instruction leaves
/// undefined, by its description in *SDM vol. 2A*.
fn undefined_codes(insn: &Instruction) -> u16 {
    match insn.mnemonic() {
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => C1,
        M::Ffree | M::Ffreep => C0 | C1 | C2 | C3,
        M::Fsin | M::Fcos | M::Fsincos | M::Fptan => C0 | C3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_and_document_name_the_same_differences() {
        let document = include_str!("../../../docs/differences.md");
        let named = document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        let mut named: Vec<_> = named.collect();
        let mut listed: Vec<_> = ENTRIES.iter().map(|entry| entry.name).collect();
        named.sort_unstable();
        listed.sort_unstable();
        assert_eq!(named, listed);
    }

    #[test]
    fn shift_flags_depend_on_the_masked_count() {
        use iced_x86::{Decoder, DecoderOptions};
        let decode = |bytes: &[u8]| Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
        let undefined = |bytes: &[u8], cl: u64| {
            let mut before = Registers::default();
            before.gpr[1] = cl;
            undefined_flags(&decode(bytes), &before)
        };
        assert_eq!(undefined(&[0xd3, 0xe0], 32), 0); // shl eax, cl
        assert_eq!(undefined(&[0xd3, 0xe0], 1), AF);
        assert_eq!(undefined(&[0xd3, 0xe0], 2), AF | OF);
        assert_eq!(undefined(&[0xd2, 0xe0], 9), AF | OF | CF); // shl al, cl
        assert_eq!(undefined(&[0xd3, 0xc0], 5), OF); // rol eax, cl
        assert_eq!(undefined(&[0x48, 0xd3, 0xe0], 64), 0); // shl rax, cl
    }
}

//! Random states for an encoding: registers and memory such that the
//! instruction works on interesting operands, and touches nothing outside its
//! sandbox.

use arch::regs::rflags;
use cpu::ops::Group;
use iced_x86::{Code, FlowControl, Instruction, MemorySize, Mnemonic as M, OpKind, Register};

use crate::area::{self, DATA, GS_BASE, harmless};
use crate::encode::{Encoded, memory_bytes};
use crate::place;
use crate::rng::Rng;
use crate::snapshot::Registers;

/// An instruction with everything it works on.
#[derive(Clone, Debug)]
pub struct Case {
    /// Registers before it.
    pub regs: Registers,
    /// Memory to be written before it: address and bytes (only mapped pages take them).
    pub patches: Vec<(u64, Vec<u8>)>,
    /// Address of the explicit memory operand.
    pub operand: Option<u64>,
    /// Execute it in Kluis as under single-stepping.
    pub single: bool,
}

/// True for the groups that work on vector and x87 registers.
pub fn uses_fpu(group: Group) -> bool {
    matches!(group, Group::X87 | Group::Mmx | Group::Sse | Group::Avx | Group::Crypto | Group::State)
}

/// Vector and x87 registers; for groups that use none, something to be left alone.
pub fn fpu_state(rng: &mut Rng, regs: &mut Registers, group: Group) {
    for ymm in &mut regs.ymm {
        let mut bytes = [0; 32];
        rng.fill(&mut bytes);
        for (word, bytes) in ymm.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
    }
    for st in &mut regs.st {
        *st = rng.f80();
    }
    regs.mxcsr = 0x1f80;
    if rng.one_in(2) {
        regs.mxcsr |= rng.below(64) as u32;
    }
    regs.mxcsr |= (rng.below(4) as u32) << 13;
    regs.mxcsr |= if rng.one_in(4) { 1 << 6 } else { 0 } | if rng.one_in(4) { 1 << 15 } else { 0 };
    if rng.one_in(8) {
        regs.mxcsr &= !((rng.below(64) as u32) << 7);
    }
    regs.cw = 0x37f;
    if rng.one_in(2) {
        regs.cw = 0x7f | (rng.pick(&[0u16, 2, 3, 3]) << 8) | (rng.below(4) as u16) << 10;
    }
    if rng.one_in(8) {
        regs.cw &= !(rng.below(64) as u16);
    }
    regs.sw = (rng.below(8) as u16) << 11 | (rng.next() as u16 & 0x4700);
    if rng.one_in(3) {
        regs.sw |= rng.below(128) as u16;
    }
    // ES and B say whether an unmasked exception is pending; mostly none is.
    if group == Group::X87 && !rng.one_in(16) || !uses_fpu(group) {
        regs.sw &= !(!regs.cw & 0x3f);
    }
    if regs.sw & !regs.cw & 0x3f != 0 {
        regs.sw |= 0x8080;
    }
    regs.tag = match rng.below(4) {
        0 => 0xff,
        1 => 0,
        2 => rng.next() as u8,
        _ => rng.next() as u8 | rng.next() as u8 | 1 << (regs.sw >> 11 & 7),
    };
}

/// A state for the instruction, or `None` if the choice would reach outside
/// the sandbox: try again. `fpu` gives vector and x87 registers.
pub fn case(rng: &mut Rng, encoded: &Encoded, rip: u64, targets: [u64; 2], fpu: &Registers) -> Option<Case> {
    let insn = &encoded.insn;
    let mut maker = Maker { rng, insn, regs: *fpu, patches: Vec::new(), operand: None, targets };
    maker.regs.rip = rip;
    for gpr in &mut maker.regs.gpr {
        *gpr = maker.rng.integer();
    }
    maker.flags();
    maker.special_registers();
    maker.implicit_memory()?;
    maker.memory_operand()?;
    maker.branch_target()?;
    let single = maker.rng.one_in(2);
    Some(Case { regs: maker.regs, patches: maker.patches, operand: maker.operand, single })
}

struct Maker<'a> {
    rng: &'a mut Rng,
    insn: &'a Instruction,
    regs: Registers,
    patches: Vec<(u64, Vec<u8>)>,
    operand: Option<u64>,
    targets: [u64; 2],
}

impl Maker<'_> {
    fn flags(&mut self) {
        let mut flags = self.rng.next() & rflags::STATUS | rflags::FIXED;
        // Wide operands: see `differences`, wide-alignment.
        if self.rng.one_in(64) && memory_bytes(self.insn) <= 8 && self.insn.vsib().is_none() {
            flags |= rflags::AC;
        }
        if self.rng.one_in(16) {
            flags |= self.rng.next() & (rflags::ID | rflags::NT);
        }
        if self.rng.one_in(if self.insn.code().is_string_instruction() { 3 } else { 32 }) {
            flags |= rflags::DF;
        }
        self.regs.rflags = flags;
    }

    fn set(&mut self, register: Register, value: u64) {
        // Low parts of registers keep what is above them, as a probe.
        let slot = &mut self.regs.gpr[register.full_register().number()];
        *slot = match register.size() {
            8 => value,
            4 => *slot & !0xffff_ffff | value & 0xffff_ffff,
            2 => *slot & !0xffff | value & 0xffff,
            _ => *slot & !0xff | value & 0xff,
        };
    }

    fn get(&self, register: Register) -> u64 {
        let full = self.regs.gpr[register.full_register().number()];
        match register {
            Register::AH | Register::CH | Register::DH | Register::BH => full >> 8 & 0xff,
            _ => match register.size() {
                8 => full,
                4 => full & 0xffff_ffff,
                2 => full & 0xffff,
                _ => full & 0xff,
            },
        }
    }

    /// Operands that random registers would make dull.
    fn special_registers(&mut self) {
        let insn = self.insn;
        match insn.mnemonic() {
            // Quotients that fit.
            M::Div | M::Idiv if self.rng.below(4) != 0 => {
                let high = if insn.mnemonic() == M::Div {
                    self.rng.below(3)
                } else {
                    self.rng.pick(&[0, u64::MAX, 1])
                };
                self.regs.gpr[2] = high;
                self.regs.gpr[0] = self.rng.integer();
                let bytes = if insn.op0_kind() == OpKind::Register {
                    insn.op0_register().size()
                } else {
                    insn.memory_size().size()
                };
                if bytes == 1 {
                    self.regs.gpr[0] = self.regs.gpr[0] & !0xff00 | if high > 2 { 0xff00 } else { high << 8 };
                }
            }
            // Equal operands, half of the time.
            M::Cmpxchg if insn.op0_kind() == OpKind::Register && self.rng.one_in(2) => {
                self.regs.gpr[insn.op0_register().full_register().number()] = self.regs.gpr[0];
            }
            M::Pcmpestri | M::Pcmpestrm | M::Vpcmpestri | M::Vpcmpestrm if self.rng.below(4) != 0 => {
                self.regs.gpr[0] = self.rng.below(40).wrapping_sub(20);
                self.regs.gpr[2] = self.rng.below(40).wrapping_sub(20);
            }
            M::Bextr | M::Bzhi if self.rng.one_in(2) => {
                let register = insn.op2_register();
                if register != Register::None {
                    let control = self.rng.below(96) | self.rng.below(96) << 8;
                    self.set(register, control);
                }
            }
            _ => {}
        }
        if insn
            .op_kinds()
            .enumerate()
            .any(|(i, k)| k == OpKind::Register && insn.op_register(i as u32) == Register::CL)
            && self.rng.one_in(2)
        {
            let count = self.rng.below(70);
            self.set(Register::CL, count);
        }
    }

    fn stack(&mut self, register: Register) {
        let at = place::address(self.rng, 16);
        // A misaligned stack is rare.
        let at = if self.rng.one_in(4) { at } else { at & !7 };
        self.regs.gpr[register.number()] = at;
    }

    /// Stack, string and other implicit addresses.
    fn implicit_memory(&mut self) -> Option<()> {
        let insn = self.insn;
        let stack = insn.is_stack_instruction()
            || matches!(
                insn.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return
            );
        if stack {
            self.stack(Register::RSP);
            match insn.mnemonic() {
                M::Enter | M::Leave => self.stack(Register::RBP),
                M::Popf | M::Popfd | M::Popfq => {
                    // TF would trap in the tester's own code.
                    let mut image = self.rng.next() & !rflags::TF;
                    if self.rng.below(16) != 0 {
                        image &= !rflags::AC;
                    }
                    self.patch(self.regs.gpr[4], image.to_le_bytes().to_vec());
                }
                _ => {}
            }
        }
        for i in 0..insn.op_count() {
            let register = match insn.op_kind(i) {
                OpKind::MemorySegRSI => Register::RSI,
                OpKind::MemorySegESI => Register::ESI,
                OpKind::MemorySegRDI | OpKind::MemoryESRDI => Register::RDI,
                OpKind::MemorySegEDI | OpKind::MemoryESEDI => Register::EDI,
                _ => continue,
            };
            let bytes = memory_bytes(insn);
            let base = self.segment(i);
            // 32-bit addresses are not reached by sign.
            let at = if register.size() == 4 {
                place::window(self.rng, bytes)
            } else {
                place::address(self.rng, bytes)
            };
            self.set(register, at.wrapping_sub(base));
            if self.rng.one_in(3) {
                let fill = self.rng.next() as u8;
                let start = at.wrapping_sub(self.rng.below(300));
                self.patch(start, vec![fill; 600]);
            }
        }
        if insn.code().is_string_instruction() {
            let count = match self.rng.below(16) {
                0 => 0,
                1 => self.rng.below(4000),
                2 => self.rng.integer(),
                3 => 1,
                _ => self.rng.below(60),
            };
            let short = insn.op_kinds().any(|k| matches!(k, OpKind::MemorySegESI | OpKind::MemoryESEDI));
            let register = if short { Register::ECX } else { Register::RCX };
            self.set(register, count);
            // Some compare the accumulator with filled memory.
            if self.rng.one_in(3) {
                let byte = self.rng.next() & 0xff;
                self.regs.gpr[0] = byte * 0x0101_0101_0101_0101;
                let at = self.regs.gpr[7];
                self.patch(at.wrapping_sub(200), vec![byte as u8; 400]);
            }
        }
        Some(())
    }

    fn segment(&self, operand: u32) -> u64 {
        let kind = self.insn.op_kind(operand);
        let es = matches!(kind, OpKind::MemoryESRDI | OpKind::MemoryESEDI);
        if !es && self.insn.memory_segment() == Register::GS { GS_BASE } else { 0 }
    }

    /// Puts the memory operand where we want it.
    fn memory_operand(&mut self) -> Option<()> {
        let insn = self.insn;
        let Some(operand) = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory) else {
            return Some(());
        };
        let bytes = memory_bytes(insn);
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let scale = u64::from(insn.memory_index_scale());
        let target = place::address(self.rng, bytes).wrapping_sub(self.segment(operand));
        let disp = insn.memory_displacement64();
        if insn.mnemonic() == M::Lea && self.rng.one_in(2) {
            return Some(());
        }
        if insn.vsib().is_some() {
            return self.gather(base, index, target);
        }
        let bit_offset = self.limit_bit_offset();
        match (base, index) {
            (Register::None | Register::RIP | Register::EIP, Register::None) => {}
            (Register::None, index) => self.set(index, target.wrapping_sub(disp) / scale),
            (base, index) if base == index && index != Register::None => {
                self.set(base, target.wrapping_sub(disp) / (1 + scale));
            }
            (base, Register::None) => self.set(base, target.wrapping_sub(disp)),
            (base, index) => {
                let offset = self.get(index).wrapping_mul(scale).wrapping_add(disp);
                self.set(base, target.wrapping_sub(offset));
            }
        }
        // PUSH and POP with RSP in the address move it by a few bytes; what a
        // register holds twice may have gone elsewhere.
        let at = self.address(operand, 0)?;
        let at = match bit_offset {
            Some(register) => {
                let bits = insn.op0_kind() == OpKind::Memory;
                debug_assert!(bits);
                let size = register.size() as u32 * 8;
                let offset = (self.get(register) << (64 - size)) as i64 >> (64 - size);
                if !(-100_000..100_000).contains(&offset) {
                    return None;
                }
                if !harmless(at) {
                    return None;
                }
                at.wrapping_add((offset >> 3) as u64)
            }
            None => at,
        };
        if insn.mnemonic() != M::Lea && !(harmless(at) && harmless(at.wrapping_add(bytes))) {
            return None;
        }
        self.operand = Some(at);
        let mut image = vec![0; (bytes as usize).max(16)];
        self.image(&mut image);
        self.patch(at, image);
        Some(())
    }

    /// The bit offset register of BT m, r and its kin is kept small.
    fn limit_bit_offset(&mut self) -> Option<Register> {
        let insn = self.insn;
        let bit = matches!(insn.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
            && insn.op1_kind() == OpKind::Register;
        if !bit {
            return None;
        }
        let register = insn.op1_register();
        let offset = self.rng.below(20_000).wrapping_sub(10_000);
        let offset = if self.rng.one_in(2) { offset & 63 } else { offset };
        self.set(register, offset);
        Some(register)
    }

    fn gather(&mut self, base: Register, index: Register, target: u64) -> Option<()> {
        let insn = self.insn;
        let wide = insn.vsib() == Some(true);
        let scale = u64::from(insn.memory_index_scale());
        self.set(base, target.wrapping_sub(insn.memory_displacement64()));
        let spread = 0x600 / scale;
        let number = index.number();
        for word in &mut self.regs.ymm[number] {
            let mut offset = || self.rng.below(2 * spread).wrapping_sub(spread);
            *word = if wide { offset() } else { offset() & 0xffff_ffff | offset() << 32 };
        }
        let elements = if wide { 4 } else { 8 };
        for element in 0..elements {
            let at = self.address(1, element)?;
            if !(harmless(at) && harmless(at.wrapping_add(16))) {
                return None;
            }
        }
        Some(())
    }

    fn address(&self, operand: u32, element: usize) -> Option<u64> {
        self.insn.virtual_address(operand, element, |register, element, size| {
            Some(match register {
                Register::ES | Register::CS | Register::SS | Register::DS => 0,
                Register::GS => GS_BASE,
                r if r.is_gpr() => self.get(r),
                r if r.is_vector_register() => {
                    let words = &self.regs.ymm[r.number()];
                    match size {
                        4 => words[(element / 2) & 3] >> (32 * (element % 2)) & 0xffff_ffff,
                        _ => words[element & 3],
                    }
                }
                _ => return None,
            })
        })
    }

    /// Contents of the memory operand.
    fn image(&mut self, image: &mut [u8]) {
        let insn = self.insn;
        self.rng.fill(image);
        match insn.memory_size() {
            MemorySize::Float80 => image[..10].copy_from_slice(&self.rng.f80().to_le_bytes()[..10]),
            MemorySize::Float64 => image[..8].copy_from_slice(&self.rng.f64().to_le_bytes()),
            MemorySize::Float32 => image[..4].copy_from_slice(&self.rng.f32().to_le_bytes()),
            MemorySize::Bcd if self.rng.below(4) != 0 => {
                for digit in &mut image[..9] {
                    *digit = (self.rng.below(10) | self.rng.below(10) << 4) as u8;
                }
            }
            MemorySize::FpuEnv14
            | MemorySize::FpuState94
            | MemorySize::FpuEnv28
            | MemorySize::FpuState108 => {
                self.environment(image);
            }
            MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte => self.fx_image(image),
            _ => {}
        }
        match insn.mnemonic() {
            // Bit 17 is AMD's MXCSR.MM; bits 16 and above are reserved in the model.
            M::Ldmxcsr | M::Vldmxcsr => {
                let reserved = if self.rng.one_in(8) { 0x8001_0000 & self.rng.next() as u32 } else { 0 };
                let value = self.rng.next() as u32 & 0xffff | reserved;
                image[..4].copy_from_slice(&value.to_le_bytes());
            }
            M::Fldcw => {
                let value = self.rng.next() as u16 | 0x40;
                image[..2].copy_from_slice(&value.to_le_bytes());
            }
            M::Cmpxchg if self.rng.one_in(2) => image[..8].copy_from_slice(&self.regs.gpr[0].to_le_bytes()),
            M::Cmpxchg8b if self.rng.one_in(2) => {
                image[..4].copy_from_slice(&self.regs.gpr[0].to_le_bytes()[..4]);
                image[4..8].copy_from_slice(&self.regs.gpr[2].to_le_bytes()[..4]);
            }
            M::Cmpxchg16b if self.rng.one_in(2) => {
                image[..8].copy_from_slice(&self.regs.gpr[0].to_le_bytes());
                image[8..16].copy_from_slice(&self.regs.gpr[2].to_le_bytes());
            }
            _ => {}
        }
    }

    /// An x87 environment, and registers after it (*SDM vol. 1 §8.1.10*).
    fn environment(&mut self, image: &mut [u8]) {
        let long = matches!(self.insn.memory_size(), MemorySize::FpuEnv28 | MemorySize::FpuState108);
        let step = if long { 4 } else { 2 };
        let other = {
            let mut other = self.regs;
            fpu_state(self.rng, &mut other, Group::X87);
            other
        };
        let tags = self.rng.next() as u16;
        for (i, word) in [other.cw, other.sw, tags].into_iter().enumerate() {
            image[i * step..i * step + 2].copy_from_slice(&word.to_le_bytes());
        }
        let registers = &mut image[7 * step..];
        if registers.len() >= 80 {
            for (st, bytes) in other.st.iter().zip(registers.chunks_exact_mut(10)) {
                bytes.copy_from_slice(&st.to_le_bytes()[..10]);
            }
        }
    }

    fn fx_image(&mut self, image: &mut [u8]) {
        let mut other = self.regs;
        fpu_state(self.rng, &mut other, Group::Sse);
        image[..2].copy_from_slice(&other.cw.to_le_bytes());
        image[2..4].copy_from_slice(&other.sw.to_le_bytes());
        image[4] = other.tag;
        let reserved = if self.rng.one_in(16) { 1 << 31 } else { 0 };
        image[24..28].copy_from_slice(&(other.mxcsr | reserved).to_le_bytes());
        for (i, st) in other.st.iter().enumerate() {
            image[32 + 16 * i..42 + 16 * i].copy_from_slice(&st.to_le_bytes()[..10]);
        }
    }

    /// Indirect branches and returns go to an exit, or fault.
    fn branch_target(&mut self) -> Option<()> {
        let insn = self.insn;
        let target = match self.rng.below(24) {
            0 => place::not_canonical(self.rng),
            1 => DATA + self.rng.below(0x6000),
            n => self.targets[n as usize % 2],
        };
        match insn.flow_control() {
            FlowControl::Return => self.patch(self.regs.gpr[4], target.to_le_bytes().to_vec()),
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                if insn.op0_kind() == OpKind::Register {
                    self.set(insn.op0_register(), target);
                    // CALL RSP would push onto the code.
                    if insn.flow_control() == FlowControl::IndirectCall
                        && insn.op0_register() == Register::RSP
                    {
                        return None;
                    }
                } else {
                    let at = self.address(0, 0)?;
                    self.patch(at, target.to_le_bytes().to_vec());
                }
            }
            FlowControl::ConditionalBranch => self.count_register(),
            _ => {}
        }
        // Wherever the stack pointer ended up, what is pushed must stay inside.
        let rsp = self.regs.gpr[4];
        let stack = insn.is_stack_instruction()
            || matches!(
                insn.flow_control(),
                FlowControl::Call | FlowControl::IndirectCall | FlowControl::Return
            );
        (!stack || harmless(rsp)).then_some(())
    }

    /// Counts that make JRCXZ and LOOP decide either way.
    fn count_register(&mut self) {
        let code = self.insn.code();
        if self.rng.one_in(2) {
            return;
        }
        if code.is_jcx_short() {
            self.set(if code == Code::Jecxz_rel8_64 { Register::ECX } else { Register::RCX }, 0);
        } else if code.is_loop() || code.is_loopcc() {
            let value = self.rng.below(3);
            let register = self.rng.pick(&[Register::RCX, Register::ECX]);
            self.set(register, value);
        }
    }

    fn patch(&mut self, at: u64, bytes: Vec<u8>) {
        if (DATA.wrapping_sub(0x1000)..DATA + area::DATA_BYTES).contains(&at) {
            self.patches.push((at, bytes));
        }
    }
}

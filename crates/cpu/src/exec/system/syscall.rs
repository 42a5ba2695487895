//! SYSCALL, SYSRET, SYSENTER, SYSEXIT (*SDM vol. 3A §5.8.7, §5.8.8; vol. 2B*).

use arch::Exception;
use arch::paging::is_canonical;
use arch::regs::{Efer, dr6, gpr, rflags};
use iced_x86::{Code, Mnemonic as M};

use crate::Cpu;
use crate::chain::branch;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

/// RFLAGS bits that SYSRET takes from R11 (*SDM vol. 2B, SYSRET*).
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

impl Cpu {
    /// SYSCALL and SYSRET trap, as a single step, by the TF they leave, not by
    /// the one they found: the trap after SYSRET stands for that of SYSCALL.
    fn trace_by_new_tf(&mut self, before: bool) {
        let now = self.s.rflags & rflags::TF != 0;
        if before {
            self.traced = Some(now);
        } else if now {
            self.pending_db |= dr6::BS;
        }
    }
}

fn syscall(cpu: &mut Cpu, op: &Op) -> Ran {
    if !cpu.s.long64() || !cpu.s.efer.contains(Efer::SCE) {
        return Err(Exception::UD);
    }
    let traced = cpu.s.rflags & rflags::TF != 0;
    let image = cpu.s.rflags();
    cpu.s.regs.set(gpr::RCX, cpu.next_rip(op));
    cpu.s.regs.set(gpr::R11, image);
    cpu.s.rip = cpu.s.msr.lstar;
    let selector = (cpu.s.msr.star >> 32) as u16 & !3;
    cpu.set_flat_code(selector, 0, true);
    cpu.set_flat_stack(selector.wrapping_add(8), 0);
    cpu.s.cpl = 0;
    let mask = cpu.s.msr.sfmask | rflags::RF | rflags::VM;
    cpu.set_rflags(0, mask & !rflags::FIXED);
    cpu.trace_by_new_tf(traced);
    Ok(Flow::Jump)
}

fn sysret<const WIDE: bool>(cpu: &mut Cpu, _op: &Op) -> Ran {
    if !cpu.s.long64() || !cpu.s.efer.contains(Efer::SCE) {
        return Err(Exception::UD);
    }
    cpu.require_cpl0()?;
    let rcx = cpu.s.regs.get(gpr::RCX);
    // As Intel's processors do, before anything has changed.
    if WIDE && !is_canonical(rcx) {
        return Err(Exception::GP0);
    }
    let traced = cpu.s.rflags & rflags::TF != 0;
    let base = (cpu.s.msr.star >> 48) as u16;
    let code = if WIDE { base.wrapping_add(16) } else { base };
    cpu.s.rip = if WIDE { rcx } else { rcx & 0xffff_ffff };
    cpu.set_flat_code(code | 3, 3, WIDE);
    cpu.set_flat_stack(base.wrapping_add(8) | 3, 3);
    cpu.s.cpl = 3;
    let r11 = cpu.s.regs.get(gpr::R11);
    cpu.set_rflags(r11 & SYSRET_FLAGS, !0);
    cpu.trace_by_new_tf(traced);
    Ok(Flow::Jump)
}

fn sysenter(cpu: &mut Cpu, _op: &Op) -> Ran {
    let selector = cpu.s.msr.sysenter_cs as u16 & !3;
    if !cpu.protected() || selector == 0 {
        return Err(Exception::GP0);
    }
    let long = cpu.ia32e();
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.s.regs.set(gpr::RSP, cpu.s.msr.sysenter_esp & mask);
    cpu.s.rip = cpu.s.msr.sysenter_eip & mask;
    cpu.set_flat_code(selector, 0, long);
    cpu.set_flat_stack(selector.wrapping_add(8), 0);
    cpu.s.cpl = 0;
    cpu.set_rflags(0, rflags::VM | rflags::IF | rflags::RF);
    Ok(Flow::Jump)
}

fn sysexit<const WIDE: bool>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let selector = cpu.s.msr.sysenter_cs as u16 & !3;
    if !cpu.protected() || selector == 0 {
        return Err(Exception::GP0);
    }
    cpu.require_cpl0()?;
    let (rsp, rip) = (cpu.s.regs.get(gpr::RCX), cpu.s.regs.get(gpr::RDX));
    if WIDE && !(is_canonical(rsp) && is_canonical(rip)) {
        return Err(Exception::GP0);
    }
    let mask = if WIDE { u64::MAX } else { 0xffff_ffff };
    cpu.s.regs.set(gpr::RSP, rsp & mask);
    cpu.s.rip = rip & mask;
    let code = selector.wrapping_add(if WIDE { 32 } else { 16 });
    cpu.set_flat_code(code | 3, 3, WIDE);
    cpu.set_flat_stack(code.wrapping_add(8) | 3, 3);
    cpu.set_cpl(3);
    Ok(Flow::Jump)
}

fn sysret_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.code() == Code::Sysretq { Some(branch(sysret::<true>)) } else { Some(branch(sysret::<false>)) }
}

fn sysexit_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.code() == Code::Sysexitq {
        Some(branch(sysexit::<true>))
    } else {
        Some(branch(sysexit::<false>))
    }
}

const SYSRET: &str = "SYSRET—Return From Fast System Call";
const SYSEXIT: &str = "SYSEXIT—Fast Return from Fast System Call";

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build).ends()
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Syscall, "SYSCALL—Fast System Call", |_| Some(branch(syscall))).outside(),
    row(M::Sysret, SYSRET, sysret_build).gate(Gate::Cpl0),
    row(M::Sysretq, SYSRET, sysret_build).gate(Gate::Cpl0),
    row(M::Sysenter, "SYSENTER—Fast System Call", |_| Some(branch(sysenter))).outside(),
    row(M::Sysexit, SYSEXIT, sysexit_build).gate(Gate::Cpl0),
    row(M::Sysexitq, SYSEXIT, sysexit_build).gate(Gate::Cpl0),
];

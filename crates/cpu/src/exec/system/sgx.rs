//! ENCLS, ENCLU and ENCLV (*SDM vol. 3D, "SGX Instruction References"*): who may
//! execute them when. The leaves themselves are the `sgx` crate's.

use std::sync::Arc;

use arch::Exception;
use arch::regs::{Cr0, gpr, rflags};
use iced_x86::Mnemonic as M;
use sgx::leaf::Done;
use sgx::{EpcPage, Leaf, Package, Port};
use sgx_abi::{Encls, Enclu};

use crate::Cpu;
use crate::chain::any;
use crate::op::{Flow, Op};
use crate::ops::{Gate, Group, Row};
use crate::sgx_port::CpuPort;

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// Protected mode on a processor that has SGX, else `#UD`.
    fn require_sgx(&self) -> Result<Arc<Package>, Exception> {
        if !self.protected() || self.s.rflags & rflags::VM != 0 {
            return Err(Exception::UD);
        }
        self.sgx.as_ref().map(|sgx| sgx.package.clone()).ok_or(Exception::UD)
    }

    /// Paging, and outside 64-bit mode a data segment that does not expand
    /// down, else `#GP(0)`. IA32_FEATURE_CONTROL is locked with SGX enabled.
    fn require_flat(&self) -> Result<(), Exception> {
        let ds = &self.s.seg[arch::regs::Seg::Ds as usize];
        let ok = self.s.cr0.contains(Cr0::PG) && (self.s.long64() || !ds.attr.is_expand_down());
        if ok { Ok(()) } else { Err(Exception::GP0) }
    }
}

/// Goes on as the leaf says.
fn flow(done: Done) -> Flow {
    if done == Done::Jump { Flow::Jump } else { Flow::Next }
}

fn encls(cpu: &mut Cpu, op: &Op) -> Ran {
    let package = cpu.require_sgx()?;
    if cpu.s.cpl != 0 {
        return Err(Exception::UD);
    }
    cpu.require_flat()?;
    let (rip, next) = (cpu.this_rip(op), cpu.next_rip(op));
    let target = content_operand(cpu);
    let secs = initialized_operand(cpu);
    let mut port = CpuPort::new(cpu, rip, next);
    let done = sgx::encls::execute(&mut Leaf { port: &mut port, package: &package })?;
    if let Some(gpa) = target.filter(|_| !sgx::planted!(StaleCode)) {
        cpu.written(gpa, arch::paging::PAGE_SIZE);
    }
    if let Some(secs) = secs.filter(|_| done == Done::Success) {
        cpu.enclave_initialized(secs);
    }
    cpu.scrub();
    Ok(flow(done))
}

/// The SECS that EINIT is for.
fn initialized_operand(cpu: &mut Cpu) -> Option<EpcPage> {
    let einit = Encls::from_u32(cpu.s.regs.get(gpr::RAX) as u32) == Some(Encls::Einit);
    einit.then(|| epc_operand(cpu, gpr::RCX)).flatten().and_then(|gpa| cpu.epc_page(gpa))
}

/// The page whose content a leaf may replace: all such leaves name it in RCX.
fn content_operand(cpu: &mut Cpu) -> Option<u64> {
    let leaf = Encls::from_u32(cpu.s.regs.get(gpr::RAX) as u32)?;
    match leaf {
        Encls::Einit | Encls::Edbgrd | Encls::Eextend | Encls::Eblock | Encls::Etrack | Encls::Etrackc => {
            None
        }
        _ => epc_operand(cpu, gpr::RCX),
    }
}

/// Physical page of the operand in a register, if it is in the EPC. Faults are the
/// leaf's to find.
fn epc_operand(cpu: &mut Cpu, register: usize) -> Option<u64> {
    let offset = cpu.s.regs.get(register);
    let la = CpuPort::new(cpu, 0, 0).linear(offset, 1).ok()?;
    let gpa = cpu.debug_translate(la)?;
    cpu.epc_page(gpa).map(|_| gpa & arch::paging::PAGE_MASK)
}

fn enclu(cpu: &mut Cpu, op: &Op) -> Ran {
    let package = cpu.require_sgx()?;
    if cpu.s.cr0.contains(Cr0::TS) {
        return Err(Exception::NM);
    }
    if cpu.s.cpl != 3 {
        return Err(Exception::UD);
    }
    cpu.require_flat()?;
    let (rip, next) = (cpu.this_rip(op), cpu.next_rip(op));
    let leaf = Enclu::from_u32(cpu.s.regs.get(gpr::RAX) as u32);
    let traced = cpu.s.rflags & rflags::TF != 0;
    let target = match leaf {
        Some(Enclu::Eacceptcopy | Enclu::Egetkey) => epc_operand(cpu, gpr::RCX),
        Some(Enclu::Ereport) => epc_operand(cpu, gpr::RDX),
        _ => None,
    };
    let mut port = CpuPort::new(cpu, rip, next);
    let done = sgx::enclu::execute(&mut Leaf { port: &mut port, package: &package })?;
    if let Some(gpa) = target.filter(|_| !sgx::planted!(StaleCode)) {
        cpu.written(gpa, arch::paging::PAGE_SIZE);
    }
    if done == Done::Jump {
        cpu.crossed(leaf, traced);
    }
    cpu.scrub();
    Ok(flow(done))
}

impl Cpu {
    /// After EENTER, ERESUME or EEXIT: the single-step trap goes by what they
    /// leave, not by the TF they found (*SDM vol. 3D, "Single Step Debug"*).
    fn crossed(&mut self, leaf: Option<Enclu>, traced: bool) {
        let now = self.s.rflags & rflags::TF != 0;
        let pends = match leaf {
            Some(Enclu::Eexit) => now,
            // The leaf itself pends the trap of an opt-in entry.
            _ => false,
        };
        if traced {
            self.traced = Some(pends);
        } else if pends {
            self.pending_db |= arch::regs::dr6::BS;
        }
        if self.s.enclave.as_ref().is_some_and(|thread| !thread.debug_opt_in) {
            // An opt-out entry suppresses what is pending.
            self.pending_db = 0;
        }
        // Entering writes the SSA frame.
        let pages: Vec<_> = self.s.enclave.iter().flat_map(|t| t.ssa.iter().flatten().copied()).collect();
        pages.into_iter().for_each(|page| self.epc_written(page));
    }
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    // Whether the processor has SGX is not the model's to say: the handlers look.
    Row::new(mnemonic, sdm, Group::System, build).gate(Gate::Control).hint().ends()
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Encls, "ENCLS—Execute an Enclave System Function of Specified Leaf Number", |_| {
        Some(any(encls))
    }),
    row(M::Enclu, "ENCLU—Execute an Enclave User Function of Specified Leaf Number", |_| Some(any(enclu))),
    // No virtualisation: ENCLV is undefined.
    row(M::Enclv, "ENCLV—Execute an Enclave VMM Function of Specified Leaf Number", |_| None),
];

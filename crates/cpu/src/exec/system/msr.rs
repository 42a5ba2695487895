//! RDMSR, WRMSR and the time-stamp counter (*SDM vol. 2B; vol. 3B §17.17*).
//! The registers themselves are in [`crate::msr`].

use arch::Exception;
use arch::regs::{Cr4, gpr};
use iced_x86::Mnemonic as M;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// EDX:EAX.
    pub(super) fn edx_eax(&self) -> u64 {
        self.s.regs.get(gpr::RDX) << 32 | self.s.regs.get(gpr::RAX) & 0xffff_ffff
    }

    /// Sets EDX:EAX, clearing the upper halves.
    pub(super) fn set_edx_eax(&mut self, value: u64) {
        self.s.regs.set(gpr::RAX, value & 0xffff_ffff);
        self.s.regs.set(gpr::RDX, value >> 32);
    }

    fn check_tsd(&self) -> Result<(), Exception> {
        if self.s.cpl > 0 && self.s.cr4.contains(Cr4::TSD) { Err(Exception::GP0) } else { Ok(()) }
    }
}

fn rdmsr(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let value = cpu.read_msr(cpu.s.regs.get(gpr::RCX) as u32)?;
    cpu.set_edx_eax(value);
    Ok(Flow::Next)
}

fn wrmsr(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let value = cpu.edx_eax();
    cpu.write_msr(cpu.s.regs.get(gpr::RCX) as u32, value)?;
    Ok(Flow::Next)
}

fn rdtsc(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.check_tsd()?;
    let tsc = cpu.tsc();
    cpu.set_edx_eax(tsc);
    Ok(Flow::Next)
}

fn rdtscp(cpu: &mut Cpu, op: &Op) -> Ran {
    let flow = rdtsc(cpu, op)?;
    cpu.s.regs.set(gpr::RCX, cpu.s.msr.tsc_aux);
    Ok(flow)
}

fn rdpid(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.s.regs.write(op.dst, cpu.s.msr.tsc_aux);
    Ok(Flow::Next)
}

fn rdpid_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    Some(any(rdpid))
}

/// There is no performance counter: no value of ECX is valid.
fn rdpmc(_cpu: &mut Cpu, _op: &Op) -> Ran {
    Err(Exception::GP0)
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build)
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Rdmsr, "RDMSR—Read From Model Specific Register", |_| Some(any(rdmsr))).gate(Gate::Cpl0),
    row(M::Wrmsr, "WRMSR—Write to Model Specific Register", |_| Some(any(wrmsr))).gate(Gate::Cpl0).ends(),
    row(M::Rdtsc, "RDTSC—Read Time-Stamp Counter", |_| Some(any(rdtsc)))
        .gate(Gate::Control)
        .inside_with_sgx2(),
    row(M::Rdtscp, "RDTSCP—Read Time-Stamp Counter and Processor ID", |_| Some(any(rdtscp)))
        .gate(Gate::Control)
        .inside_with_sgx2(),
    row(M::Rdpid, "RDPID—Read Processor ID", rdpid_build),
    row(M::Rdpmc, "RDPMC—Read Performance-Monitoring Counters", |_| Some(any(rdpmc)))
        .gate(Gate::Control)
        .outside(),
];

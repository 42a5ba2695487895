//! CPUID, RDRAND, RDSEED, MONITOR, MWAIT (*SDM vol. 2*).

use std::sync::atomic::Ordering;
use std::time::Duration;

use arch::Exception;
use arch::regs::{gpr, rflags};
use iced_x86::Mnemonic as M;
use mem::raw::Width;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::exec::by_wide_width;
use crate::mmu::walk::Access;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};
use crate::shared::request;

type Ran = Result<Flow, Exception>;

/// Bytes MONITOR watches, as CPUID leaf 5 says.
pub(crate) const MONITOR_LINE: u64 = 64;
/// Time an MWAIT may take without any reason to end.
const MWAIT_LIMIT: Duration = Duration::from_micros(100);

/// Random bytes of the host's generator, fetched a few at a time.
pub(crate) struct Entropy {
    pool: [u8; 512],
    left: usize,
}

impl Default for Entropy {
    fn default() -> Self {
        Entropy { pool: [0; 512], left: 0 }
    }
}

impl Entropy {
    /// The next eight bytes; `None` if the host has none to give now.
    fn next(&mut self) -> Option<u64> {
        if self.left < 8 {
            getrandom::fill(&mut self.pool).ok()?;
            self.left = self.pool.len();
        }
        self.left -= 8;
        let bytes = self.pool.get_mut(self.left..self.left + 8)?;
        let value = u64::from_le_bytes(bytes.try_into().ok()?);
        // What was given out is not kept.
        bytes.fill(0);
        Some(value)
    }
}

/// A line that MONITOR watches, and what it held then.
pub(crate) struct Monitor {
    gpa: u64,
    bytes: [u8; MONITOR_LINE as usize],
}

/// RDRAND, RDSEED: CF says whether there was a number.
fn random<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = cpu.entropy.next();
    cpu.s.regs.write(op.dst, W::truncate(value.unwrap_or(0)));
    cpu.s.flags.set_all(if value.is_some() { rflags::CF } else { 0 });
    Ok(Flow::Next)
}

fn random_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    by_wide_width!(b.width(0), random)
}

fn cpuid(cpu: &mut Cpu, _op: &Op) -> Ran {
    let (leaf, subleaf) = (cpu.s.regs.get(gpr::RAX) as u32, cpu.s.regs.get(gpr::RCX) as u32);
    let out = cpu.cpuid(leaf, subleaf);
    for (register, value) in
        [(gpr::RAX, out.eax), (gpr::RBX, out.ebx), (gpr::RCX, out.ecx), (gpr::RDX, out.edx)]
    {
        cpu.s.regs.set(register, u64::from(value));
    }
    Ok(Flow::Next)
}

/// MONITOR and MWAIT: CPL 0, and not switched off by IA32_MISC_ENABLE.
fn require_monitor(cpu: &Cpu) -> Result<(), Exception> {
    let on = cpu.s.msr.misc_enable & crate::msr::MISC_ENABLE_MONITOR != 0;
    if cpu.s.cpl == 0 && on { Ok(()) } else { Err(Exception::UD) }
}

/// MONITOR: `aux` is the address size of rAX.
fn monitor(cpu: &mut Cpu, op: &Op) -> Ran {
    require_monitor(cpu)?;
    if cpu.s.regs.get(gpr::RCX) as u32 != 0 {
        return Err(Exception::GP0);
    }
    let offset = crate::truncate(op.aux, cpu.s.regs.get(gpr::RAX));
    let la = cpu.linear(op.ea, op.seg, offset, 1, false)?;
    cpu.check(la, 1, op.seg)?;
    let place = cpu.translate(la, Access::Read, cpu.rights())?;
    let gpa = place.gpa & !(MONITOR_LINE - 1);
    let mut bytes = [0; MONITOR_LINE as usize];
    // A device's memory is not watched: MWAIT then does not wait.
    cpu.monitor = cpu.ram.read(gpa, &mut bytes).then_some(Monitor { gpa, bytes });
    Ok(Flow::Next)
}

fn monitor_build(b: &mut Build<'_>) -> Option<Handler> {
    use crate::op::{EA_16, EA_32};
    use iced_x86::{Code, Register};
    let address = match b.insn.code() {
        Code::Monitorw => 2,
        Code::Monitord => 4,
        _ => 8,
    };
    let segment = match b.insn.segment_prefix() {
        Register::None => Register::DS,
        segment => segment,
    };
    b.segment(segment, address);
    b.op.aux = b.op.ea & (EA_16 | EA_32);
    b.op.ea &= !(EA_16 | EA_32);
    Some(any(monitor))
}

/// MWAIT: waits a short time, unless the line has changed since MONITOR; an
/// MWAIT may end for reasons of its own, and software looks again (*SDM vol. 3A §8.10.4*).
fn mwait(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_monitor(cpu)?;
    let extensions = cpu.s.regs.get(gpr::RCX) as u32;
    if extensions & !1 != 0 {
        return Err(Exception::GP0);
    }
    let Some(monitor) = cpu.monitor.take() else { return Ok(Flow::Next) };
    let mut now = [0; MONITOR_LINE as usize];
    if !cpu.ram.read(monitor.gpa, &mut now) || now != monitor.bytes {
        return Ok(Flow::Next);
    }
    let mut mask = cpu.wake_mask() | request::CODE;
    if extensions & 1 != 0 {
        // Interrupts end the wait even while masked.
        mask |= request::INTERRUPT | request::EXT_INT;
    }
    if cpu.shared.pending.load(Ordering::SeqCst) & mask == 0 {
        cpu.shared.wait(mask, Some(MWAIT_LIMIT));
    }
    Ok(Flow::Next)
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build)
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Cpuid, "CPUID—CPU Identification", |_| Some(any(cpuid))).outside(),
    row(M::Rdrand, "RDRAND—Read Random Number", random_build),
    row(M::Rdseed, "RDSEED—Read Random SEED", random_build),
    row(M::Monitor, "MONITOR—Set Up Monitor Address", monitor_build).gate(Gate::Control),
    row(M::Mwait, "MWAIT—Monitor Wait", |_| Some(any(mwait))).gate(Gate::Control).ends(),
];

//! IN, OUT, INS, OUTS (*SDM vol. 1 chapter 19*).

use arch::Exception;
use arch::regs::{Seg, dr7, gpr, rflags};
use iced_x86::{Mnemonic as M, Register};
use mem::raw::Width;

use super::by_width;
use crate::Cpu;
use crate::decode::Build;
use crate::op::{EA_16, EA_32, EA_LEGACY, Flow, Handler, Op, REP};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

/// Elements of a repeated INS or OUTS done before looking for interrupts.
const CHUNK: u64 = 64;

impl Cpu {
    /// Checks access to `n` ports from `port`: IOPL, else the I/O permission
    /// bit map (*SDM vol. 1 §19.5*).
    fn check_ports(&mut self, port: u16, n: u64) -> Result<(), Exception> {
        let iopl = (self.s.rflags >> 12 & 3) as u8;
        if !self.protected() || self.s.cpl <= iopl {
            return Ok(());
        }
        let gp = |_| Exception::GP0;
        if !self.has_wide_tss() {
            return Err(Exception::GP0);
        }
        // Beyond the limit is #GP(0); a page fault stays one.
        let inside = |cpu: &Cpu, at: u64, n: u64| {
            if at + n - 1 <= u64::from(cpu.s.tr.limit) { Ok(()) } else { Err(()) }
        };
        inside(self, 102, 2).map_err(gp)?;
        let map = u64::from(self.read_tss::<u16>(102)?);
        let at = map + u64::from(port / 8);
        // Always two bytes, so that no look-up crosses the end (§19.5.2).
        inside(self, at, 2).map_err(gp)?;
        let bits = self.read_tss::<u16>(at)? >> (port % 8);
        if u64::from(bits) & ((1 << n) - 1) != 0 { Err(Exception::GP0) } else { Ok(()) }
    }

    fn port_in<W: Width>(&mut self, port: u16) -> W {
        let mut data = [0; 8];
        self.bus.port_read(self.id, port, &mut data[..W::BYTES as usize]);
        W::truncate(u64::from_le_bytes(data))
    }

    fn port_out<W: Width>(&mut self, port: u16, value: W) {
        self.bus.port_write(self.id, port, &value.zext().to_le_bytes()[..W::BYTES as usize]);
    }
}

/// The port: an immediate, or DX where `misc` says so.
fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.misc != 0 { cpu.s.regs.get(gpr::RDX) as u16 } else { op.imm as u8 as u16 }
}

fn input<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let port = port(cpu, op);
    cpu.check_ports(port, W::BYTES)?;
    let value = cpu.port_in::<W>(port);
    cpu.s.regs.write(0, value);
    Ok(Flow::Next)
}

fn output<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let port = port(cpu, op);
    cpu.check_ports(port, W::BYTES)?;
    let value = cpu.s.regs.read::<W>(0);
    cpu.port_out(port, value);
    Ok(Flow::Next)
}

fn port_operand(b: &mut Build<'_>, n: u32) {
    if b.is_imm(n) {
        b.imm(n);
    } else {
        b.op.misc = 1;
    }
}

fn in_build(b: &mut Build<'_>) -> Option<Handler> {
    port_operand(b, 1);
    by_width!(b.width(0), input)
}

fn out_build(b: &mut Build<'_>) -> Option<Handler> {
    port_operand(b, 0);
    by_width!(b.width(1), output)
}

/// INS or OUTS; `aux` is the address size, as in [`super::string`].
trait PortString {
    const INDEX: usize;
    fn once<W: Width>(cpu: &mut Cpu, op: &Op, offset: u64, port: u16) -> Result<(), Exception>;
}

struct Ins;
impl PortString for Ins {
    const INDEX: usize = gpr::RDI;
    fn once<W: Width>(cpu: &mut Cpu, op: &Op, offset: u64, port: u16) -> Result<(), Exception> {
        const ES: u8 = Seg::Es as u8;
        let la = cpu.linear(op.ea & EA_LEGACY, ES, offset, W::BYTES, true)?;
        // A read of a port cannot be taken back: the store must not fault after it.
        cpu.probe_write(la, W::BYTES, ES)?;
        let value = cpu.port_in::<W>(port);
        cpu.store(la, value, ES)
    }
}

struct Outs;
impl PortString for Outs {
    const INDEX: usize = gpr::RSI;
    fn once<W: Width>(cpu: &mut Cpu, op: &Op, offset: u64, port: u16) -> Result<(), Exception> {
        let la = cpu.linear(op.ea, op.seg, offset, W::BYTES, false)?;
        let value = cpu.load::<W>(la, op.seg)?;
        cpu.port_out(port, value);
        Ok(())
    }
}

fn set_sized(cpu: &mut Cpu, size: u8, register: usize, value: u64) {
    let at = register as u8 * 8;
    match size {
        EA_16 => cpu.s.regs.write(at, value as u16),
        EA_32 => cpu.s.regs.write(at, value as u32),
        _ => cpu.s.regs.write(at, value),
    }
}

fn element<S: PortString, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception> {
    let port = cpu.s.regs.get(gpr::RDX) as u16;
    cpu.check_ports(port, W::BYTES)?;
    let offset = crate::truncate(op.aux, cpu.s.regs.get(S::INDEX));
    S::once::<W>(cpu, op, offset, port)?;
    let down = cpu.s.rflags & rflags::DF != 0;
    let next = if down { offset.wrapping_sub(W::BYTES) } else { offset.wrapping_add(W::BYTES) };
    set_sized(cpu, op.aux, S::INDEX, next);
    Ok(())
}

fn plain<S: PortString, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    element::<S, W>(cpu, op)?;
    Ok(Flow::Next)
}

fn repeated<S: PortString, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let mut left = crate::truncate(op.aux, cpu.s.regs.get(gpr::RCX));
    let mut chunk = if cpu.s.rflags & rflags::TF != 0 { 1 } else { CHUNK };
    while left != 0 {
        if chunk == 0 {
            cpu.s.rip = cpu.this_rip(op);
            if cpu.s.dr7 & dr7::ENABLES != 0 {
                // The rest of the instruction meets no instruction breakpoint
                // again (SDM vol. 3B §17.3.1.1).
                cpu.s.rflags |= rflags::RF;
            }
            return Ok(Flow::Jump);
        }
        element::<S, W>(cpu, op)?;
        left -= 1;
        set_sized(cpu, op.aux, gpr::RCX, left);
        chunk = if cpu.pending_db != 0 { 0 } else { chunk - 1 };
    }
    Ok(Flow::Next)
}

fn string<S: PortString>(b: &mut Build<'_>) -> Option<Handler> {
    let address = b.address_size();
    let segment = match b.insn.segment_prefix() {
        Register::None => Register::DS,
        segment => segment,
    };
    b.segment(segment, address);
    b.op.aux = b.op.ea & (EA_16 | EA_32);
    b.op.ea &= !(EA_16 | EA_32);
    let width = b.insn.memory_size().size();
    if b.insn.has_rep_prefix() || b.insn.has_repne_prefix() {
        b.op.misc = REP;
        return by_width!(width, repeated, S);
    }
    by_width!(width, plain, S)
}

const IN: &str = "IN—Input From Port";
const OUT: &str = "OUT—Output to Port";
const INS: &str = "INS/INSB/INSW/INSD—Input from Port to String";
const OUTS: &str = "OUTS/OUTSB/OUTSW/OUTSD—Output String to Port";

/// A device may answer an access with an interrupt: look at requests after it.
const fn io(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build).gate(Gate::Io).ends().outside()
}

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    io(M::In, IN, in_build),
    io(M::Out, OUT, out_build),
    io(M::Insb, INS, string::<Ins>),
    io(M::Insw, INS, string::<Ins>),
    io(M::Insd, INS, string::<Ins>),
    io(M::Outsb, OUTS, string::<Outs>),
    io(M::Outsw, OUTS, string::<Outs>),
    io(M::Outsd, OUTS, string::<Outs>),
];

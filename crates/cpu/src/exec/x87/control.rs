//! Control instructions: control and status word, environment, whole state
//! (*SDM vol. 1 §8.3.11 and figures 8-9 to 8-12*).

use arch::Exception;
use arch::regs::{Cr0, rflags};

use super::stack::FLAGS;
use super::{Ran, available, enter, waits};
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::state::X87;

/// The instruction waits for a pending exception (FSTCW for FNSTCW).
const WAITS: u8 = 1;

fn begin(cpu: &Cpu, op: &Op) -> Result<(), Exception> {
    available(cpu)?;
    if op.misc & WAITS != 0 { waits(cpu) } else { Ok(()) }
}

/// Builder for the handler of an instruction that does not wait, and of its
/// form with WAIT before it.
macro_rules! control {
    ($name:ident, $waiting:ident, $handler:expr) => {
        pub(super) fn $name(b: &mut Build<'_>) -> Option<Handler> {
            let _ = &b;
            Some(any($handler))
        }
        pub(super) fn $waiting(b: &mut Build<'_>) -> Option<Handler> {
            b.op.misc = WAITS;
            Some(any($handler))
        }
    };
}

/// WAIT: the only one that minds CR0.MP (*SDM vol. 3A §2.5*).
pub(super) fn wait(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(|cpu: &mut Cpu, _: &Op| {
        if cpu.s.cr0.contains(Cr0::MP | Cr0::TS) {
            return Err(Exception::NM);
        }
        waits(cpu)?;
        Ok(Flow::Next)
    }))
}

control!(fninit, finit, |cpu: &mut Cpu, op: &Op| {
    begin(cpu, op)?;
    cpu.s.x87.init();
    Ok(Flow::Next)
});

control!(fnclex, fclex, |cpu: &mut Cpu, op: &Op| {
    begin(cpu, op)?;
    cpu.s.x87.sw &= 0x7f00;
    Ok(Flow::Next)
});

// FNENI, FNDISI, FNSETPM: nothing since the 80387.
control!(obsolete, obsolete_waiting, |cpu: &mut Cpu, op: &Op| {
    begin(cpu, op)?;
    Ok(Flow::Next)
});

control!(fnstcw, fstcw, |cpu: &mut Cpu, op: &Op| {
    begin(cpu, op)?;
    let la = cpu.ea(op, 2, true)?;
    cpu.store::<u16>(la, cpu.s.x87.cw, op.seg)?;
    Ok(Flow::Next)
});

fn store_status_mem(cpu: &mut Cpu, op: &Op) -> Ran {
    begin(cpu, op)?;
    let la = cpu.ea(op, 2, true)?;
    cpu.store::<u16>(la, cpu.s.x87.sw, op.seg)?;
    Ok(Flow::Next)
}

fn store_status_ax(cpu: &mut Cpu, op: &Op) -> Ran {
    begin(cpu, op)?;
    let sw = cpu.s.x87.sw;
    cpu.s.regs.write::<u16>(0, sw);
    Ok(Flow::Next)
}

pub(super) fn fnstsw(b: &mut Build<'_>) -> Option<Handler> {
    Some(if b.is_mem(0) { any(store_status_mem) } else { any(store_status_ax) })
}

pub(super) fn fstsw(b: &mut Build<'_>) -> Option<Handler> {
    b.op.misc = WAITS;
    fnstsw(b)
}

pub(super) fn fldcw(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(|cpu: &mut Cpu, op: &Op| {
        enter(cpu)?;
        let la = cpu.ea(op, 2, false)?;
        let cw = cpu.load::<u16>(la, op.seg)?;
        cpu.s.x87.set_cw(cw);
        Ok(Flow::Next)
    }))
}

/// Formats of the environment.
#[derive(Clone, Copy)]
struct Format {
    /// 32-bit operand size.
    wide: bool,
    /// Real-address or virtual-8086 mode.
    real: bool,
}

impl Format {
    fn of(cpu: &Cpu, op: &Op) -> Format {
        let real = !cpu.s.cr0.contains(Cr0::PE) || cpu.s.rflags & rflags::VM != 0;
        Format { wide: matches!(op.dst, 28 | 108), real }
    }

    fn len(self) -> usize {
        if self.wide { 28 } else { 14 }
    }
}

/// The seven fields of an environment, in their order.
fn environment(x: &X87, format: Format) -> [u32; 7] {
    // FCS and FDS are saved as zero (`layout::FCS_FDS_DEPRECATED`), except
    // that the linear addresses of real mode are made from them.
    let (fip, fdp) = (x.fip as u32, x.fdp as u32);
    let fop = u32::from(x.fop & 0x7ff);
    let words = [u32::from(x.cw), u32::from(x.sw), u32::from(x.full_tags())].map(|w| w | 0xffff_0000);
    let [cw, sw, tags] = words;
    if format.real {
        let ip = (u32::from(x.fcs) << 4).wrapping_add(fip);
        let dp = (u32::from(x.fds) << 4).wrapping_add(fdp);
        // The 16-bit format has room for 4 more address bits, the 32-bit one for 16.
        let high = |address: u32| (address >> 16) << 12;
        return [
            cw,
            sw,
            tags,
            ip & 0xffff | 0xffff_0000,
            high(ip) | fop,
            dp & 0xffff | 0xffff_0000,
            high(dp),
        ];
    }
    let opcode = if format.wide { fop << 16 } else { 0 };
    [cw, sw, tags, fip, opcode, fdp, 0xffff_0000]
}

fn save_environment(x: &X87, format: Format, bytes: &mut [u8]) {
    for (i, field) in environment(x, format).into_iter().enumerate() {
        if format.wide {
            bytes[4 * i..4 * i + 4].copy_from_slice(&field.to_le_bytes());
        } else {
            bytes[2 * i..2 * i + 2].copy_from_slice(&(field as u16).to_le_bytes());
        }
    }
}

/// Loads an environment; the physical registers stay where they are.
fn load_environment(x: &mut X87, format: Format, bytes: &[u8]) {
    let field = |i: usize| {
        if format.wide {
            u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        } else {
            u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))
        }
    };
    let sw = field(1) as u16;
    x.set_top(sw >> 11 & 7);
    x.sw = sw;
    x.set_full_tags(field(2) as u16);
    x.set_cw(field(0) as u16);
    if format.real {
        let high = |value: u32| (value >> 12 & if format.wide { 0xffff } else { 0xf }) << 16;
        x.fip = u64::from(field(3) & 0xffff | high(field(4)));
        x.fdp = u64::from(field(5) & 0xffff | high(field(6)));
        (x.fcs, x.fds, x.fop) = (0, 0, field(4) as u16 & 0x7ff);
        return;
    }
    x.fip = u64::from(field(3));
    x.fdp = u64::from(field(5));
    (x.fcs, x.fds) = (field(4) as u16, field(6) as u16);
    // The 16-bit format has no opcode.
    x.fop = if format.wide { (field(4) >> 16) as u16 & 0x7ff } else { 0 };
}

/// FNSTENV: saves, then masks all exceptions.
fn store_environment(cpu: &mut Cpu, op: &Op) -> Ran {
    begin(cpu, op)?;
    let format = Format::of(cpu, op);
    let la = cpu.ea(op, format.len() as u64, true)?;
    let mut bytes = [0; 28];
    save_environment(&cpu.s.x87, format, &mut bytes);
    cpu.write_bytes(la, &bytes[..format.len()], op.seg)?;
    cpu.s.x87.set_cw(cpu.s.x87.cw | FLAGS);
    Ok(Flow::Next)
}

fn reload_environment(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let format = Format::of(cpu, op);
    let la = cpu.ea(op, format.len() as u64, false)?;
    let mut bytes = [0; 28];
    cpu.read_bytes(la, &mut bytes[..format.len()], op.seg)?;
    load_environment(&mut cpu.s.x87, format, &bytes);
    Ok(Flow::Next)
}

/// FNSAVE: saves everything, then FNINIT.
fn save(cpu: &mut Cpu, op: &Op) -> Ran {
    begin(cpu, op)?;
    let format = Format::of(cpu, op);
    let (env, len) = (format.len(), format.len() + 80);
    let la = cpu.ea(op, len as u64, true)?;
    let mut bytes = [0; 108];
    save_environment(&cpu.s.x87, format, &mut bytes);
    for (i, register) in bytes[env..len].chunks_exact_mut(10).enumerate() {
        register.copy_from_slice(&cpu.s.x87.bytes(i));
    }
    cpu.write_bytes(la, &bytes[..len], op.seg)?;
    cpu.s.x87.init();
    Ok(Flow::Next)
}

fn restore(cpu: &mut Cpu, op: &Op) -> Ran {
    enter(cpu)?;
    let format = Format::of(cpu, op);
    let (env, len) = (format.len(), format.len() + 80);
    let la = cpu.ea(op, len as u64, false)?;
    let mut bytes = [0; 108];
    cpu.read_bytes(la, &mut bytes[..len], op.seg)?;
    let x = &mut cpu.s.x87;
    load_environment(x, format, &bytes);
    for (st, register) in x.st.iter_mut().zip(bytes[env..len].as_chunks::<10>().0) {
        *st = super::stack::from_bytes(register);
    }
    Ok(Flow::Next)
}

fn sized(b: &mut Build<'_>, handler: Handler) -> Option<Handler> {
    b.op.dst = b.insn.memory_size().size() as u8;
    Some(handler)
}

pub(super) fn fnstenv(b: &mut Build<'_>) -> Option<Handler> {
    sized(b, any(store_environment))
}

pub(super) fn fstenv(b: &mut Build<'_>) -> Option<Handler> {
    b.op.misc = WAITS;
    sized(b, any(store_environment))
}

pub(super) fn fldenv(b: &mut Build<'_>) -> Option<Handler> {
    sized(b, any(reload_environment))
}

pub(super) fn fnsave(b: &mut Build<'_>) -> Option<Handler> {
    sized(b, any(save))
}

pub(super) fn fsave(b: &mut Build<'_>) -> Option<Handler> {
    b.op.misc = WAITS;
    sized(b, any(save))
}

pub(super) fn frstor(b: &mut Build<'_>) -> Option<Handler> {
    sized(b, any(restore))
}

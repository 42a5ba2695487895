//! The two ways in which handlers reach memory and branch targets.
//!
//! Handlers of frequent instructions are written once, for any [`Reach`], and
//! compiled for two: [`Fast`] takes 64-bit mode and a translation at hand for
//! granted and gives up otherwise, before anything has changed; [`Full`] is
//! then asked for the same instruction. So what is frequent neither spills
//! registers nor looks at the mode ([`crate::chain::reaching`]).

use arch::Exception;
use arch::paging::is_canonical;
use arch::regs::{Seg, gpr};
use mem::raw::Width;

use crate::Cpu;
use crate::op::Op;

const SS: u8 = Seg::Ss as u8;

/// A way to memory.
pub(crate) trait Reach {
    /// What is given where there is no way.
    type Fault;
    /// In 64-bit mode for certain.
    const LONG: bool;
    /// Linear address of the memory operand, for an access of `n` bytes.
    fn address(cpu: &Cpu, op: &Op, n: u64, write: bool) -> Result<u64, Self::Fault>;
    /// Loads; `seg` decides between `#SS` and `#GP`.
    fn load<W: Width>(cpu: &mut Cpu, la: u64, seg: u8) -> Result<W, Self::Fault>;
    /// Stores.
    fn store<W: Width>(cpu: &mut Cpu, la: u64, value: W, seg: u8) -> Result<(), Self::Fault>;
    /// Reads, changes and writes without a lock; gives the old value.
    fn update<W: Width>(
        cpu: &mut Cpu,
        la: u64,
        seg: u8,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Self::Fault>;
    /// Pushes.
    fn push<W: Width>(cpu: &mut Cpu, value: W) -> Result<(), Self::Fault>;
    /// Reads the top of the stack.
    fn top<W: Width>(cpu: &mut Cpu) -> Result<W, Self::Fault>;
    /// Takes `n` bytes off the stack.
    fn drop_stack(cpu: &mut Cpu, n: u64);
    /// An instruction pointer that may have to be truncated.
    fn ip(cpu: &Cpu, ip: u64) -> u64;
    /// Checks the target of a near branch.
    fn target(cpu: &Cpu, ip: u64) -> Result<u64, Self::Fault>;
}

/// Every way there is, with the exceptions at its end.
pub(crate) struct Full;

impl Reach for Full {
    type Fault = Exception;
    const LONG: bool = false;
    #[inline(always)]
    fn address(cpu: &Cpu, op: &Op, n: u64, write: bool) -> Result<u64, Exception> {
        cpu.ea(op, n, write)
    }
    #[inline(always)]
    fn load<W: Width>(cpu: &mut Cpu, la: u64, seg: u8) -> Result<W, Exception> {
        cpu.load(la, seg)
    }
    #[inline(always)]
    fn store<W: Width>(cpu: &mut Cpu, la: u64, value: W, seg: u8) -> Result<(), Exception> {
        cpu.store(la, value, seg)
    }
    #[inline(always)]
    fn update<W: Width>(
        cpu: &mut Cpu,
        la: u64,
        seg: u8,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Exception> {
        cpu.update::<W>(la, seg, change)
    }
    #[inline(always)]
    fn push<W: Width>(cpu: &mut Cpu, value: W) -> Result<(), Exception> {
        cpu.push(value)
    }
    #[inline(always)]
    fn top<W: Width>(cpu: &mut Cpu) -> Result<W, Exception> {
        cpu.peek(0)
    }
    #[inline(always)]
    fn drop_stack(cpu: &mut Cpu, n: u64) {
        cpu.drop_stack(n);
    }
    #[inline(always)]
    fn ip(cpu: &Cpu, ip: u64) -> u64 {
        cpu.wrap_ip(ip)
    }
    #[inline(always)]
    fn target(cpu: &Cpu, ip: u64) -> Result<u64, Exception> {
        cpu.near_target(ip)
    }
}

/// [`Fast`] does not lead there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Miss;

/// 64-bit mode, and translations at hand; the address has an index or a
/// segment base only if `GENERAL`.
pub(crate) struct Fast<const GENERAL: bool>;

impl<const GENERAL: bool> Reach for Fast<GENERAL> {
    type Fault = Miss;
    const LONG: bool = true;
    #[inline(always)]
    fn address(cpu: &Cpu, op: &Op, _n: u64, _write: bool) -> Result<u64, Miss> {
        if !GENERAL {
            return Ok(cpu.s.regs.read64(op.base).wrapping_add(op.disp));
        }
        match op.ea {
            0 => Ok(cpu.ea_offset(op)),
            // FS or GS, whose numbers differ in the last bit: no other has a base here.
            crate::op::EA_SEG => {
                let segment = &cpu.s.seg[Seg::Fs as usize | usize::from(op.seg & 1)];
                Ok(cpu.ea_offset(op).wrapping_add(segment.base))
            }
            _ => Err(Miss),
        }
    }
    #[inline(always)]
    fn load<W: Width>(cpu: &mut Cpu, la: u64, _seg: u8) -> Result<W, Miss> {
        let ptr = cpu.ram_read(la, W::BYTES).ok_or(Miss)?;
        // SAFETY: RAM, and the access does not leave its page.
        Ok(unsafe { W::load(ptr) })
    }
    #[inline(always)]
    fn store<W: Width>(cpu: &mut Cpu, la: u64, value: W, _seg: u8) -> Result<(), Miss> {
        let ptr = cpu.ram_write(la, W::BYTES).ok_or(Miss)?;
        // SAFETY: as in `load`, and no one has to be told.
        unsafe { W::store(ptr, value) };
        Ok(())
    }
    #[inline(always)]
    fn update<W: Width>(
        cpu: &mut Cpu,
        la: u64,
        _seg: u8,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Miss> {
        let ptr = cpu.ram_write(la, W::BYTES).ok_or(Miss)?;
        // SAFETY: as in `store`.
        unsafe {
            let old = W::load(ptr).zext();
            W::store(ptr, W::truncate(change(old)));
            Ok(old)
        }
    }
    #[inline(always)]
    fn push<W: Width>(cpu: &mut Cpu, value: W) -> Result<(), Miss> {
        let rsp = cpu.s.regs.get(gpr::RSP).wrapping_sub(W::BYTES);
        Self::store(cpu, rsp, value, SS)?;
        cpu.s.regs.set(gpr::RSP, rsp);
        Ok(())
    }
    #[inline(always)]
    fn top<W: Width>(cpu: &mut Cpu) -> Result<W, Miss> {
        Self::load(cpu, cpu.s.regs.get(gpr::RSP), SS)
    }
    #[inline(always)]
    fn drop_stack(cpu: &mut Cpu, n: u64) {
        cpu.s.regs.set(gpr::RSP, cpu.s.regs.get(gpr::RSP).wrapping_add(n));
    }
    #[inline(always)]
    fn ip(_cpu: &Cpu, ip: u64) -> u64 {
        ip
    }
    #[inline(always)]
    fn target(_cpu: &Cpu, ip: u64) -> Result<u64, Miss> {
        if is_canonical(ip) { Ok(ip) } else { Err(Miss) }
    }
}

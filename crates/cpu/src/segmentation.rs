//! Descriptor tables and the loading of segment registers (*SDM vol. 3A §3.4,
//! §3.5, §5.2–5.8*): what MOV, far transfers, IRET and event delivery share.

use arch::descriptor::{Attr, Descriptor, system_type};
use arch::paging::is_canonical;
use arch::regs::{Cr0, Efer, Seg};
use arch::{Exception, Vector};

use crate::Cpu;
use crate::state::Segment;

/// `#NP(selector)`.
pub(crate) fn not_present(selector: u16) -> Exception {
    Exception::new(Vector::SegmentNotPresent, u32::from(selector & !3))
}

/// `#GP(selector)`.
pub(crate) fn gp(selector: u16) -> Exception {
    Exception::gp(u32::from(selector & !3))
}

/// `#TS(selector)`.
pub(crate) fn invalid_tss(selector: u16) -> Exception {
    Exception::new(Vector::InvalidTss, u32::from(selector & !3))
}

/// `#SS(selector)`.
pub(crate) fn stack_fault(selector: u16) -> Exception {
    Exception::new(Vector::StackFault, u32::from(selector & !3))
}

/// True for the four null selectors.
pub(crate) fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// The hidden part that a descriptor gives, its accessed bit taken as set.
#[inline]
pub(crate) fn cached(selector: u16, descriptor: Descriptor) -> Segment {
    Segment {
        selector,
        attr: Attr(descriptor.attr().0 | 1 << 8),
        limit: descriptor.limit(),
        base: u64::from(descriptor.base()),
    }
}

/// What is asked of a stack segment, and how its absence is reported.
#[derive(Clone, Copy)]
pub(crate) struct StackRule {
    /// Privilege level that RPL and DPL must equal.
    pub(crate) cpl: u8,
    /// A null selector is allowed (64-bit mode, not CPL 3).
    pub(crate) null_ok: bool,
    /// Bad selectors are `#TS` (from a TSS), not `#GP`.
    pub(crate) from_tss: bool,
}

impl Cpu {
    /// True in IA-32e mode.
    #[inline(always)]
    pub(crate) fn ia32e(&self) -> bool {
        self.s.efer.contains(Efer::LMA)
    }

    /// True in protected mode, which IA-32e mode is a part of.
    #[inline(always)]
    pub(crate) fn protected(&self) -> bool {
        self.s.cr0.contains(Cr0::PE)
    }

    /// Linear addresses have 32 bits outside IA-32e mode.
    #[inline(always)]
    pub(crate) fn wrap_la(&self, la: u64) -> u64 {
        if self.ia32e() { la } else { la & 0xffff_ffff }
    }

    /// Linear address of the descriptor of `bytes` bytes that `selector`
    /// names; `None` if it lies beyond its table's limit.
    #[inline]
    pub(crate) fn descriptor_address(&self, selector: u16, bytes: u64) -> Option<u64> {
        let (base, limit) = if selector & 4 == 0 {
            (self.s.gdtr.base, u64::from(self.s.gdtr.limit))
        } else if self.s.ldtr.attr.present() {
            (self.s.ldtr.base, u64::from(self.s.ldtr.limit))
        } else {
            return None;
        };
        let offset = u64::from(selector & !7);
        (offset + bytes - 1 <= limit).then(|| self.wrap_la(base.wrapping_add(offset)))
    }

    /// Reads the eight-byte descriptor that `selector` names; `None` beyond the limit.
    #[inline]
    pub(crate) fn read_descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Exception> {
        match self.descriptor_address(selector, 8) {
            Some(la) => Ok(Some(Descriptor(self.read_system::<u64>(la)?))),
            None => Ok(None),
        }
    }

    /// Reads a system descriptor, which has sixteen bytes in IA-32e mode: the
    /// descriptor and bits 63:32 of its base or offset.
    pub(crate) fn read_system_descriptor(
        &mut self,
        selector: u16,
    ) -> Result<Option<(Descriptor, u64)>, Exception> {
        if !self.ia32e() {
            return Ok(self.read_descriptor(selector)?.map(|d| (d, 0)));
        }
        let Some(la) = self.descriptor_address(selector, 16) else { return Ok(None) };
        let low = self.read_system::<u64>(la)?;
        let high = self.read_system::<u64>(la.wrapping_add(8))?;
        Ok(Some((Descriptor(low), high)))
    }

    /// Sets the accessed bit of a code or data segment, if it is clear.
    #[inline]
    pub(crate) fn set_accessed(&mut self, selector: u16, descriptor: Descriptor) -> Result<(), Exception> {
        if descriptor.0 & 1 << 40 == 0
            && let Some(la) = self.descriptor_address(selector, 8)
        {
            self.set_bits_system(la.wrapping_add(4), 1 << 8)?;
        }
        Ok(())
    }

    /// Loads ES, SS, DS, FS or GS as MOV and POP do (*SDM vol. 2B, MOV*).
    pub(crate) fn load_segment(&mut self, seg: usize, selector: u16) -> Result<(), Exception> {
        if !self.protected() {
            // Real mode changes the base alone; limit and attributes stay.
            let segment = &mut self.s.seg[seg];
            segment.selector = selector;
            segment.base = u64::from(selector) << 4;
            return Ok(());
        }
        let loaded = if seg == Seg::Ss as usize {
            let rule =
                StackRule { cpl: self.s.cpl, null_ok: self.s.long64() && self.s.cpl < 3, from_tss: false };
            self.stack_segment(selector, rule)?
        } else {
            self.data_segment(selector)?
        };
        self.s.seg[seg] = loaded;
        Ok(())
    }

    /// The contents of a data segment register for `selector`.
    pub(crate) fn data_segment(&mut self, selector: u16) -> Result<Segment, Exception> {
        if is_null(selector) {
            return Ok(Segment { selector, ..Segment::default() });
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        let attr = descriptor.attr();
        if !attr.is_readable() {
            return Err(gp(selector));
        }
        let rpl = selector as u8 & 3;
        if !attr.is_conforming() && (rpl > attr.dpl() || self.s.cpl > attr.dpl()) {
            return Err(gp(selector));
        }
        if !attr.present() {
            return Err(not_present(selector));
        }
        self.set_accessed(selector, descriptor)?;
        Ok(cached(selector, descriptor))
    }

    /// The contents of SS for `selector`.
    pub(crate) fn stack_segment(&mut self, selector: u16, rule: StackRule) -> Result<Segment, Exception> {
        let bad = |selector: u16| if rule.from_tss { invalid_tss(selector) } else { gp(selector) };
        let rpl = selector as u8 & 3;
        if is_null(selector) {
            if rule.null_ok && rpl == rule.cpl {
                return Ok(Segment { selector, attr: null_stack(rule.cpl), ..Segment::default() });
            }
            return Err(bad(0));
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(bad(selector))?;
        let attr = descriptor.attr();
        if rpl != rule.cpl || !attr.is_writable() || attr.dpl() != rule.cpl {
            return Err(bad(selector));
        }
        if !attr.present() {
            return Err(stack_fault(selector));
        }
        self.set_accessed(selector, descriptor)?;
        Ok(cached(selector, descriptor))
    }

    /// Checks a code segment for a transfer with RIP `ip` and returns what CS
    /// becomes at privilege level `cpl`. The caller has checked type and privilege.
    pub(crate) fn code_segment(
        &mut self,
        selector: u16,
        descriptor: Descriptor,
        ip: u64,
        cpl: u8,
    ) -> Result<Segment, Exception> {
        let attr = descriptor.attr();
        if !attr.present() {
            return Err(not_present(selector));
        }
        if self.ia32e() && attr.long() {
            if attr.big() {
                return Err(gp(selector));
            }
            if !is_canonical(ip) {
                return Err(Exception::GP0);
            }
        } else if ip > u64::from(descriptor.limit()) {
            return Err(Exception::GP0);
        }
        self.set_accessed(selector, descriptor)?;
        Ok(cached(selector & !3 | u16::from(cpl), descriptor))
    }

    /// Makes `cpl` the privilege level, with all that depends on it.
    #[inline]
    pub(crate) fn set_cpl(&mut self, cpl: u8) {
        self.s.cpl = cpl;
        self.update_rights();
    }

    /// A flat code segment, as SYSCALL and its relatives load it without a descriptor.
    #[inline]
    pub(crate) fn set_flat_code(&mut self, selector: u16, dpl: u8, long: bool) {
        let size = if long { 1 << 21 } else { 1 << 22 };
        let attr = Attr(0x0080_9b00 | u32::from(dpl) << 13 | size);
        self.s.seg[Seg::Cs as usize] = Segment { selector, attr, limit: u32::MAX, base: 0 };
    }

    /// A flat stack segment, likewise.
    #[inline]
    pub(crate) fn set_flat_stack(&mut self, selector: u16, dpl: u8) {
        let attr = Attr(0x00c0_9300 | u32::from(dpl) << 13);
        self.s.seg[Seg::Ss as usize] = Segment { selector, attr, limit: u32::MAX, base: 0 };
    }

    /// After a return to an outer privilege level: data segments that it may
    /// not use become null (*SDM vol. 3A §5.8.6*).
    pub(crate) fn drop_inner_segments(&mut self) {
        let cpl = self.s.cpl;
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let segment = &mut self.s.seg[seg as usize];
            let attr = segment.attr;
            if attr.is_user() && !attr.is_conforming() && attr.dpl() < cpl {
                segment.selector = 0;
                segment.attr = Attr(0);
            }
        }
    }

    /// Reads bytes at offset `at` of the TSS; `#TS` with TR's selector beyond its limit.
    #[inline]
    pub(crate) fn read_tss<W: mem::raw::Width>(&mut self, at: u64) -> Result<W, Exception> {
        if !self.s.tr.attr.present() || at + W::BYTES - 1 > u64::from(self.s.tr.limit) {
            return Err(invalid_tss(self.s.tr.selector));
        }
        let la = self.wrap_la(self.s.tr.base.wrapping_add(at));
        self.read_system::<W>(la)
    }

    /// True if TR holds a 32- or 64-bit TSS, available or busy.
    pub(crate) fn has_wide_tss(&self) -> bool {
        self.s.tr.attr.kind() | 2 == system_type::TSS_BUSY
    }

    /// Loads a segment register from the GDT without privilege checks: for a
    /// board that starts a kernel with descriptors already in memory.
    ///
    /// # Errors
    /// What reading the descriptor would fault with; `#GP(selector)` beyond
    /// the table's limit.
    pub fn set_segment_from_gdt(&mut self, seg: Seg, selector: u16) -> Result<(), Exception> {
        let descriptor = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        self.s.seg[seg as usize] = cached(selector, descriptor);
        if seg == Seg::Cs {
            self.set_cpl(selector as u8 & 3);
        }
        Ok(())
    }
}

/// SS after a null selector of that RPL was loaded: not usable outside 64-bit
/// mode, but its DPL is the privilege level.
fn null_stack(cpl: u8) -> Attr {
    Attr(u32::from(cpl) << 13)
}

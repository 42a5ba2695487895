//! The XSAVE feature set's memory image (*SDM vol. 1 chapter 13*): where each
//! state component lies, and how [`State`] is written to and read from it.
//!
//! FXSAVE, XSAVE and their relatives, CPUID leaf 0DH and the SGX asynchronous
//! exit all use this one description.

use arch::regs::{Xcr0, mxcsr};

use crate::State;
use crate::state::{VectorReg, X87};

/// Offsets and sizes in bytes (*SDM vol. 1 §13.4, §13.5*).
pub mod layout {
    use arch::regs::Xcr0;

    /// Size of the legacy region, which is FXSAVE's image.
    pub const LEGACY_SIZE: usize = 512;
    /// Offset of MXCSR, followed by MXCSR_MASK.
    pub const MXCSR: usize = 24;
    /// Offset of ST(0), 16 bytes for each register.
    pub const ST: usize = 32;
    /// Offset of XMM0.
    pub const XMM: usize = 160;
    /// Offset of the XSAVE header: XSTATE_BV, XCOMP_BV, reserved.
    pub const HEADER: usize = LEGACY_SIZE;
    /// Size of the XSAVE header.
    pub const HEADER_SIZE: usize = 64;
    /// Offset of the extended region; in the compacted format, of its first component.
    pub const EXTENDED: usize = HEADER + HEADER_SIZE;
    /// Bit of XCOMP_BV that says "compacted".
    pub const COMPACTED: u64 = 1 << 63;

    /// A state component of the extended region.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Component {
        /// Its number: the bit in XCR0, the subleaf of CPUID leaf 0DH.
        pub number: u32,
        /// Its bit in XCR0.
        pub bit: Xcr0,
        /// Offset in the standard format.
        pub offset: usize,
        /// Size.
        pub size: usize,
        /// In the compacted format it is aligned to 64 bytes.
        pub aligned: bool,
    }

    const fn component(number: u32, bit: Xcr0, offset: usize, size: usize) -> Component {
        Component { number, bit, offset, size, aligned: false }
    }

    /// The components of the extended region that [`crate::State`] can hold,
    /// by number. A model has those that its CPUID enumerates.
    pub const COMPONENTS: [Component; 4] = [
        component(2, Xcr0::AVX, 576, 256),
        component(5, Xcr0::OPMASK, 1088, 64),
        component(6, Xcr0::ZMM_HI256, 1152, 512),
        component(7, Xcr0::HI16_ZMM, 1664, 1024),
    ];

    /// Size of the largest area.
    pub const MAX_SIZE: usize = 1664 + 1024;

    /// The component with that number, from 2.
    pub fn by_number(number: u32) -> Option<Component> {
        COMPONENTS.into_iter().find(|c| c.number == number)
    }

    /// Size of a standard-format area with these components: what CPUID leaf
    /// 0DH subleaf 0 gives in EBX for XCR0 and in ECX for all that is supported.
    pub fn standard_size(components: Xcr0) -> usize {
        COMPONENTS
            .iter()
            .filter(|c| components.contains(c.bit))
            .map(|c| c.offset + c.size)
            .fold(EXTENDED, usize::max)
    }

    /// Size of a compacted-format area with these components: what CPUID leaf
    /// 0DH subleaf 1 gives in EBX for XCR0 | IA32_XSS.
    pub fn compacted_size(components: Xcr0) -> usize {
        COMPONENTS
            .iter()
            .filter(|c| components.contains(c.bit))
            .fold(EXTENDED, |at, c| compacted_offset_from(at, c) + c.size)
    }

    /// Offset of component `number` in a compacted area with these components.
    pub fn compacted_offset(components: Xcr0, number: u32) -> Option<usize> {
        let mut at = EXTENDED;
        for c in COMPONENTS.iter().filter(|c| components.contains(c.bit)) {
            let offset = compacted_offset_from(at, c);
            if c.number == number {
                return Some(offset);
            }
            at = offset + c.size;
        }
        None
    }

    fn compacted_offset_from(at: usize, c: &Component) -> usize {
        if c.aligned { at.next_multiple_of(64) } else { at }
    }

    /// What each form of the x87 instruction and data pointers promises in
    /// CPUID leaf 7: FCS and FDS are saved as zero (EBX bit 13 = 1).
    pub const FCS_FDS_DEPRECATED: bool = true;
    /// FDP follows every instruction with a memory operand (CPUID leaf 7 EBX bit 6 = 0).
    pub const FDP_ON_EXCEPTIONS_ONLY: bool = false;
}

use layout::{COMPACTED, EXTENDED, HEADER, HEADER_SIZE, LEGACY_SIZE, MXCSR, ST, XMM};

/// How an area is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// XSAVE: standard format, every requested component.
    Standard,
    /// XSAVEOPT: standard format, without components in their initial state.
    Optimised,
    /// XSAVEC: compacted format, without components in their initial state.
    Compacted,
}

/// A header that XRSTOR refuses with `#GP(0)`, or an MXCSR with reserved bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadArea;

/// An XSAVE area being written: its bytes, and which of them are to reach memory.
#[derive(Clone, Debug)]
pub struct Area {
    bytes: [u8; layout::MAX_SIZE],
    spans: [(u16, u16); 12],
    used: usize,
}

impl Default for Area {
    fn default() -> Self {
        Area { bytes: [0; layout::MAX_SIZE], spans: [(0, 0); 12], used: 0 }
    }
}

impl Area {
    /// Adds a span; one that continues the last is joined with it.
    fn span(&mut self, offset: usize, len: usize) -> &mut [u8] {
        let last = self.used.wrapping_sub(1);
        match self.spans.get_mut(last) {
            Some(span) if usize::from(span.0 + span.1) == offset => span.1 += len as u16,
            _ => {
                self.spans[self.used] = (offset as u16, len as u16);
                self.used += 1;
            }
        }
        &mut self.bytes[offset..offset + len]
    }

    /// The pieces to be written: offset in the area, and bytes.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.spans[..self.used]
            .iter()
            .map(|&(at, n)| (u64::from(at), &self.bytes[usize::from(at)..usize::from(at) + usize::from(n)]))
    }
}

/// What XRSTOR will load, from a checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    load: Xcr0,
    init: Xcr0,
    requested: Xcr0,
    compacted: Option<Xcr0>,
}

impl Plan {
    /// Checks the header (*SDM vol. 1 §13.8*, `XRSTOR` in *vol. 2*) and
    /// decides which of the `requested` components (a subset of `xcr0`) are
    /// loaded and which are initialised.
    pub fn new(header: &[u8; HEADER_SIZE], requested: Xcr0, xcr0: Xcr0) -> Result<Plan, BadArea> {
        let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let (xstate_bv, xcomp_bv) = (word(0), word(8));
        let compacted = xcomp_bv & COMPACTED != 0;
        let listed = xcomp_bv & !COMPACTED;
        let bad = if compacted {
            listed & !xcr0.bits() != 0 || xstate_bv & !listed != 0 || header[16..].iter().any(|&b| b != 0)
        } else {
            xstate_bv & !xcr0.bits() != 0 || header[8..24].iter().any(|&b| b != 0)
        };
        if bad {
            return Err(BadArea);
        }
        let present = Xcr0::from_bits_retain(xstate_bv);
        Ok(Plan {
            load: requested & present,
            init: requested & !present,
            requested,
            compacted: compacted.then(|| Xcr0::from_bits_retain(listed)),
        })
    }

    /// The components of the extended region that are read, with their offsets in the area.
    pub fn extended(&self) -> impl Iterator<Item = (layout::Component, usize)> + use<> {
        let plan = *self;
        layout::COMPONENTS.into_iter().filter(move |c| plan.load.contains(c.bit)).filter_map(move |c| {
            let offset = match plan.compacted {
                Some(listed) => layout::compacted_offset(listed, c.number)?,
                None => c.offset,
            };
            Some((c, offset))
        })
    }

    /// True if MXCSR is read: with SSE or AVX in the standard format, as part
    /// of SSE in the compacted format.
    pub fn reads_mxcsr(&self) -> bool {
        match self.compacted {
            None => self.requested.intersects(Xcr0::SSE | Xcr0::AVX),
            Some(_) => self.load.contains(Xcr0::SSE),
        }
    }
}

impl X87 {
    /// Writes FCW to FDP and ST(0)–ST(7) as FXSAVE does (*SDM vol. 1 table
    /// 10-2*); with `wide`, 64-bit pointers instead of 32-bit ones and selectors.
    /// Bytes 24–31 (MXCSR) are left alone.
    pub fn save(&self, image: &mut [u8; XMM], wide: bool) {
        image[..2].copy_from_slice(&self.cw.to_le_bytes());
        image[2..4].copy_from_slice(&self.sw.to_le_bytes());
        image[4] = self.tag;
        image[5] = 0;
        image[6..8].copy_from_slice(&self.fop.to_le_bytes());
        // FCS and FDS are saved as zero: `layout::FCS_FDS_DEPRECATED`.
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        image[8..16].copy_from_slice(&(self.fip & mask).to_le_bytes());
        image[16..24].copy_from_slice(&(self.fdp & mask).to_le_bytes());
        for (i, st) in self.st.iter().enumerate() {
            image[ST + 16 * i..ST + 16 * i + 16].copy_from_slice(&(st & ((1 << 80) - 1)).to_le_bytes());
        }
    }

    /// Reads what [`X87::save`] writes.
    pub fn load(&mut self, image: &[u8; XMM], wide: bool) {
        let u16_at = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
        let u64_at = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap_or_default());
        self.sw = u16_at(2);
        self.set_cw(u16_at(0));
        self.tag = image[4];
        self.fop = u16_at(6) & 0x7ff;
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        (self.fip, self.fdp) = (u64_at(8) & mask, u64_at(16) & mask);
        (self.fcs, self.fds) = if wide { (0, 0) } else { (u16_at(12), u16_at(20)) };
        for (i, st) in self.st.iter_mut().enumerate() {
            let bytes = image[ST + 16 * i..ST + 16 * i + 16].try_into().unwrap_or_default();
            *st = u128::from_le_bytes(bytes) & ((1 << 80) - 1);
        }
    }

    /// True after FNINIT with clear registers: the initial configuration of
    /// *SDM vol. 1 §13.6*.
    pub fn is_initial(&self) -> bool {
        let pointers = self.fip | self.fdp | u64::from(self.fop);
        self.cw == 0x37f && self.sw == 0 && self.tag == 0 && pointers == 0 && self.st.iter().all(|&r| r == 0)
    }
}

/// Words of a vector register that a component holds.
fn words(number: u32) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    match number {
        2 => (0..16, 2..4),
        6 => (0..16, 4..8),
        _ => (16..32, 0..8),
    }
}

impl State {
    /// Vector registers that save and restore instructions see: 16, or 8 outside 64-bit mode.
    fn visible(&self) -> usize {
        if self.long64() { 16 } else { 8 }
    }

    /// XINUSE: the components that are not in their initial configuration
    /// (*SDM vol. 1 §13.6*).
    pub fn in_use(&self) -> Xcr0 {
        let any = |regs: std::ops::Range<usize>, words: std::ops::Range<usize>| {
            self.vec[regs].iter().any(|reg| reg.0[words.clone()].iter().any(|&w| w != 0))
        };
        let mut used = Xcr0::empty();
        used.set(Xcr0::X87, !self.x87.is_initial());
        used.set(Xcr0::SSE, any(0..16, 0..2));
        used.set(Xcr0::AVX, any(0..16, 2..4));
        used.set(Xcr0::OPMASK, self.opmask.iter().any(|&k| k != 0));
        used.set(Xcr0::ZMM_HI256, any(0..16, 4..8));
        used.set(Xcr0::HI16_ZMM, any(16..32, 0..8));
        used
    }

    /// Builds the XSAVE area of `components` (RFBM, a subset of XCR0) as
    /// `form` asks; `old_bv` is the XSTATE_BV found in memory, of which the
    /// standard format keeps the other bits. `wide` as for [`X87::save`].
    /// (*SDM vol. 1 §13.7, §13.9, §13.10*)
    pub fn xsave_area(&self, components: Xcr0, form: Form, old_bv: u64, wide: bool) -> Area {
        let mut area = Area::default();
        let in_use = self.in_use();
        let saved = match form {
            Form::Standard => components,
            Form::Optimised => components & in_use,
            // The compacted format takes MXCSR as part of SSE.
            Form::Compacted if self.mxcsr != mxcsr::RESET => components & (in_use | Xcr0::SSE),
            Form::Compacted => components & in_use,
        };
        let with_mxcsr = match form {
            Form::Compacted => saved.contains(Xcr0::SSE),
            _ => components.intersects(Xcr0::SSE | Xcr0::AVX),
        };
        let mut legacy = [0; XMM];
        if saved.contains(Xcr0::X87) {
            self.x87.save(&mut legacy, wide);
            area.span(0, MXCSR).copy_from_slice(&legacy[..MXCSR]);
        }
        if with_mxcsr {
            let span = area.span(MXCSR, 8);
            span[..4].copy_from_slice(&self.mxcsr.to_le_bytes());
            span[4..].copy_from_slice(&mxcsr::WRITABLE.to_le_bytes());
        }
        if saved.contains(Xcr0::X87) {
            area.span(ST, 128).copy_from_slice(&legacy[ST..]);
        }
        if saved.contains(Xcr0::SSE) {
            let n = self.visible();
            self.save_xmm(area.span(XMM, 16 * n));
        }
        let (xstate_bv, header) = match form {
            Form::Compacted => (saved.bits(), 16),
            _ => (old_bv & !components.bits() | (components & in_use).bits(), 8),
        };
        let header = area.span(HEADER, header);
        header[..8].copy_from_slice(&xstate_bv.to_le_bytes());
        if form == Form::Compacted {
            header[8..].copy_from_slice(&(components.bits() | COMPACTED).to_le_bytes());
        }
        for c in layout::COMPONENTS.iter().filter(|c| saved.contains(c.bit)) {
            let offset = match form {
                Form::Compacted => layout::compacted_offset(components, c.number).unwrap_or(c.offset),
                _ => c.offset,
            };
            self.save_component(c, &mut area, offset);
        }
        area
    }

    fn save_component(&self, c: &layout::Component, area: &mut Area, offset: usize) {
        if c.bit == Xcr0::OPMASK {
            let span = area.span(offset, c.size);
            for (bytes, k) in span.chunks_exact_mut(8).zip(&self.opmask) {
                bytes.copy_from_slice(&k.to_le_bytes());
            }
            return;
        }
        let (regs, range) = words(c.number);
        // Outside 64-bit mode the upper registers are not there to be saved.
        let count = if c.number == 7 { if self.long64() { 16 } else { 0 } } else { self.visible() };
        let span = area.span(offset, count * range.len() * 8);
        let values = self.vec[regs].iter().take(count).flat_map(|reg| reg.0[range.clone()].iter());
        for (bytes, value) in span.chunks_exact_mut(8).zip(values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Loads what `plan` says: `area` holds the legacy region and, at the
    /// offsets of [`Plan::extended`], the components. Fails, having changed
    /// nothing, if MXCSR is read and has reserved bits.
    pub fn xrstor_area(
        &mut self,
        plan: &Plan,
        area: &[u8; layout::MAX_SIZE],
        wide: bool,
    ) -> Result<(), BadArea> {
        let image = |at: usize| u32::from_le_bytes(area[at..at + 4].try_into().unwrap_or_default());
        if plan.reads_mxcsr() {
            self.set_mxcsr(image(MXCSR))?;
        } else if plan.compacted.is_some() && plan.init.contains(Xcr0::SSE) {
            self.mxcsr = mxcsr::RESET;
        }
        if plan.load.contains(Xcr0::X87) {
            let legacy = area.first_chunk().unwrap_or(&[0; XMM]);
            self.x87.load(legacy, wide);
        } else if plan.init.contains(Xcr0::X87) {
            self.x87 = X87::default();
        }
        let n = self.visible();
        if plan.load.contains(Xcr0::SSE) {
            self.load_xmm(&area[XMM..XMM + 16 * n]);
        } else if plan.init.contains(Xcr0::SSE) {
            self.vec[..n].iter_mut().for_each(|reg| reg.0[..2].fill(0));
        }
        for c in layout::COMPONENTS.iter().filter(|c| plan.init.contains(c.bit)) {
            self.load_component(c, &[0; 1024][..c.size]);
        }
        for (c, offset) in plan.extended() {
            if let Some(bytes) = area.get(offset..offset + c.size) {
                self.load_component(&c, bytes);
            }
        }
        Ok(())
    }

    fn load_component(&mut self, c: &layout::Component, bytes: &[u8]) {
        let mut values = bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
        if c.bit == Xcr0::OPMASK {
            self.opmask.iter_mut().zip(values).for_each(|(k, value)| *k = value);
            return;
        }
        let (regs, range) = words(c.number);
        let count = if c.number == 7 { if self.long64() { 16 } else { 0 } } else { self.visible() };
        for VectorReg(reg) in self.vec[regs].iter_mut().take(count) {
            for word in &mut reg[range.clone()] {
                *word = values.next().unwrap_or(0);
            }
        }
    }

    /// Loads MXCSR; fails if a reserved bit is set.
    pub fn set_mxcsr(&mut self, value: u32) -> Result<(), BadArea> {
        if value & !mxcsr::WRITABLE != 0 {
            return Err(BadArea);
        }
        self.mxcsr = value;
        Ok(())
    }

    fn save_xmm(&self, bytes: &mut [u8]) {
        for (i, bytes) in bytes.chunks_exact_mut(8).enumerate() {
            bytes.copy_from_slice(&self.vec[i / 2].0[i % 2].to_le_bytes());
        }
    }

    fn load_xmm(&mut self, bytes: &[u8]) {
        for (i, bytes) in bytes.chunks_exact(8).enumerate() {
            self.vec[i / 2].0[i % 2] = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
    }

    /// Builds FXSAVE's image: XMM registers only with `vectors` (CR4.OSFXSR).
    pub fn fxsave_area(&self, wide: bool, vectors: bool) -> Area {
        let mut area = Area::default();
        let mut legacy = [0; XMM];
        self.x87.save(&mut legacy, wide);
        legacy[MXCSR..MXCSR + 4].copy_from_slice(&self.mxcsr.to_le_bytes());
        legacy[MXCSR + 4..ST].copy_from_slice(&mxcsr::WRITABLE.to_le_bytes());
        area.span(0, XMM).copy_from_slice(&legacy);
        if vectors {
            let n = self.visible();
            self.save_xmm(area.span(XMM, 16 * n));
        }
        area
    }

    /// Loads FXSAVE's image; fails, having changed nothing, if MXCSR has reserved bits.
    pub fn fxrstor_area(
        &mut self,
        image: &[u8; LEGACY_SIZE],
        wide: bool,
        vectors: bool,
    ) -> Result<(), BadArea> {
        let value = u32::from_le_bytes(image[MXCSR..MXCSR + 4].try_into().unwrap_or_default());
        self.set_mxcsr(value)?;
        self.x87.load(image.first_chunk().unwrap_or(&[0; XMM]), wide);
        if vectors {
            let n = self.visible();
            self.load_xmm(&image[XMM..XMM + 16 * n]);
        }
        Ok(())
    }
}

const _: () = assert!(EXTENDED == 576);

//! A processor in a snapshot: a form of its own, apart from the live structure.
//!
//! Whoever adds a register to [`State`] or [`Msrs`] meets a compile error here.
//! Loading does as software would: control and model-specific registers are
//! written with the checks of MOV and WRMSR, in an order that no processor
//! refuses for a state that it can be in. What a snapshot has no need of is
//! left out: translations and decoded code are made anew, an armed MONITOR is
//! disarmed as by any other event.
//!
//! Registers of an enclave never get here: [`Cpu::save_state`] leaves it first.

use std::sync::atomic::Ordering;

use arch::descriptor::Attr;
use arch::paging::is_canonical;
use arch::regs::{Cr0, Cr4, Efer, Seg, Xcr0, dr6, dr7, rflags};
use arch::{Exception, msr as n};
use serde::{Deserialize, Serialize};

use crate::apic::ApicState;
use crate::exec::system::{is_xcr0, xcr0_allowed};
use crate::shared::{lock, request};
use crate::state::{Msrs, Segment, State, TableRegister, VectorReg, X87};
use crate::{Activity, Cpu};

/// A saved state that no processor of this model can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saved {0} of a processor cannot be; take a snapshot made by this version")]
pub struct StateError(pub &'static str);

type Loaded = Result<(), StateError>;

fn check(good: bool, name: &'static str) -> Loaded {
    if good { Ok(()) } else { Err(StateError(name)) }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentState {
    selector: u16,
    attr: u32,
    limit: u32,
    base: u64,
}

impl From<Segment> for SegmentState {
    fn from(Segment { selector, attr, limit, base }: Segment) -> Self {
        Self { selector, attr: attr.0, limit, base }
    }
}

impl SegmentState {
    fn load(&self) -> Result<Segment, StateError> {
        let &Self { selector, attr, limit, base } = self;
        check(attr & !Attr::MASK == 0 && is_canonical(base), "segment")?;
        Ok(Segment { selector, attr: Attr(attr), limit, base })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableState {
    base: u64,
    limit: u16,
}

impl From<TableRegister> for TableState {
    fn from(TableRegister { base, limit }: TableRegister) -> Self {
        Self { base, limit }
    }
}

impl TableState {
    fn load(&self) -> Result<TableRegister, StateError> {
        let &Self { base, limit } = self;
        check(is_canonical(base), "descriptor table")?;
        Ok(TableRegister { base, limit })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct X87State {
    /// Mantissa, and sign with exponent.
    st: [(u64, u16); 8],
    cw: u16,
    sw: u16,
    tag: u8,
    fop: u16,
    fip: u64,
    fdp: u64,
    fcs: u16,
    fds: u16,
}

impl X87State {
    fn of(x87: &X87) -> Self {
        let &X87 { st, cw, sw, tag, fop, fip, fdp, fcs, fds } = x87;
        let st = st.map(|r| (r as u64, (r >> 64) as u16));
        Self { st, cw, sw, tag, fop, fip, fdp, fcs, fds }
    }

    fn load(&self) -> X87 {
        let &Self { st, cw, sw, tag, fop, fip, fdp, fcs, fds } = self;
        let st = st.map(|(low, high)| u128::from(high) << 64 | u128::from(low));
        let mut x87 = X87 { st, cw, sw, tag, fop: fop & 0x7ff, fip, fdp, fcs, fds };
        // reserved bits, and what follows from others
        x87.set_cw(cw);
        x87
    }
}

/// [`MsrState`], and [`Msrs`] as it: each register once, by one name in both.
macro_rules! msr_state {
    ($($register:ident: $kind:ty,)*) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct MsrState {
            $($register: $kind,)*
        }

        impl From<&Msrs> for MsrState {
            fn from(&Msrs { $($register),* }: &Msrs) -> Self {
                Self { $($register),* }
            }
        }
    };
}

msr_state! {
    star: u64,
    lstar: u64,
    cstar: u64,
    sfmask: u64,
    kernel_gs_base: u64,
    sysenter_cs: u64,
    sysenter_esp: u64,
    sysenter_eip: u64,
    tsc_aux: u64,
    tsc_adjust: u64,
    pat: u64,
    misc_enable: u64,
    spec_ctrl: u64,
    mtrr_def_type: u64,
    mtrr_fixed: [u64; 11],
    mtrr_variable: [u64; 20],
    mcg_status: u64,
    mc0: [u64; 4],
    microcode: u64,
}

impl MsrState {
    /// Writes the registers by WRMSR, but for what the processor itself logs.
    fn load(&self, cpu: &mut Cpu) -> Result<(), Exception> {
        for (number, value) in [
            (n::STAR, self.star),
            (n::LSTAR, self.lstar),
            (n::CSTAR, self.cstar),
            (n::SFMASK, self.sfmask),
            (n::KERNEL_GS_BASE, self.kernel_gs_base),
            (n::SYSENTER_CS, self.sysenter_cs),
            (n::SYSENTER_ESP, self.sysenter_esp),
            (n::SYSENTER_EIP, self.sysenter_eip),
            (n::TSC_AUX, self.tsc_aux),
            (n::TSC_ADJUST, self.tsc_adjust),
            (n::PAT, self.pat),
            (n::MISC_ENABLE, self.misc_enable),
            (n::SPEC_CTRL, self.spec_ctrl),
            (n::MTRR_DEF_TYPE, self.mtrr_def_type),
            (n::MCG_STATUS, self.mcg_status),
            (n::MC0_CTL, self.mc0[0]),
            (n::BIOS_SIGN_ID, self.microcode),
        ] {
            cpu.write_msr(number, value)?;
        }
        let fixed = std::iter::once(n::MTRR_FIX64K_00000)
            .chain(n::MTRR_FIX16K_80000..=n::MTRR_FIX16K_A0000)
            .chain(n::MTRR_FIX4K_C0000..n::MTRR_FIX4K_C0000 + 8);
        for (number, value) in fixed.zip(self.mtrr_fixed).chain((n::MTRR_PHYSBASE0..).zip(self.mtrr_variable))
        {
            cpu.write_msr(number, value)?;
        }
        cpu.s.msr.mc0 = self.mc0;
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ActivityState {
    Active,
    Halted,
    WaitForSipi,
    Shutdown,
}

/// What a snapshot keeps of a processor and its local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuState {
    regs: [u64; 16],
    rip: u64,
    rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    segments: [SegmentState; 6],
    ldtr: SegmentState,
    tr: SegmentState,
    gdtr: TableState,
    idtr: TableState,
    cpl: u8,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    pdpte: [u64; 4],
    cr4: u64,
    efer: u64,
    xcr0: u64,
    dr: [u64; 4],
    dr6: u64,
    dr7: u64,
    mxcsr: u32,
    x87: X87State,
    vectors: [[u64; 8]; 32],
    opmask: [u64; 8],
    msrs: MsrState,
    activity: ActivityState,
    pending_db: u64,
    shadow: bool,
    nmi_blocked: bool,
    /// Requests that nobody would repeat: of [`EVENTS`].
    events: u32,
    sipi_vector: u8,
    apic: ApicState,
}

/// Events on their way to a processor, as bits of [`request`].
const EVENTS: u32 = request::NMI | request::INIT | request::SIPI | request::MACHINE_CHECK;

impl Cpu {
    /// The processor's state, for a snapshot; it stands at an instruction
    /// boundary. An enclave is left first, by an asynchronous exit as for an
    /// interrupt (*SDM vol. 3D, "Enclave Exiting Events"*), as before any
    /// transition that takes the EPC away: what is saved is the synthetic state,
    /// and the processor itself goes on from it.
    pub fn save_state(&mut self) -> CpuState {
        self.exit_for_interrupt(0);
        let State {
            regs,
            rip,
            flags: _,
            rflags: _,
            seg,
            ldtr,
            tr,
            gdtr,
            idtr,
            cpl,
            cr0,
            cr2,
            cr3,
            pdpte,
            cr4,
            efer,
            xcr0,
            dr,
            dr6,
            dr7,
            mxcsr,
            x87,
            vec,
            opmask,
            msr,
            enclave: _,
        } = &self.s;
        let activity = match self.activity {
            Activity::Active => ActivityState::Active,
            Activity::Halted => ActivityState::Halted,
            Activity::WaitForSipi => ActivityState::WaitForSipi,
            Activity::Shutdown => ActivityState::Shutdown,
        };
        CpuState {
            regs: std::array::from_fn(|number| regs.get(number)),
            rip: *rip,
            rflags: self.s.rflags(),
            segments: seg.map(SegmentState::from),
            ldtr: (*ldtr).into(),
            tr: (*tr).into(),
            gdtr: (*gdtr).into(),
            idtr: (*idtr).into(),
            cpl: *cpl,
            cr0: cr0.bits(),
            cr2: *cr2,
            cr3: *cr3,
            pdpte: *pdpte,
            cr4: cr4.bits(),
            efer: efer.bits(),
            xcr0: xcr0.bits(),
            dr: *dr,
            dr6: *dr6,
            dr7: *dr7,
            mxcsr: *mxcsr,
            x87: X87State::of(x87),
            vectors: vec.map(|reg| reg.0),
            opmask: *opmask,
            msrs: msr.into(),
            activity,
            pending_db: self.pending_db,
            shadow: self.shadow,
            nmi_blocked: self.nmi_blocked,
            events: self.shared.pending.load(Ordering::SeqCst) & EVENTS,
            sipi_vector: self.shared.sipi_vector.load(Ordering::SeqCst) as u8,
            apic: lock(&self.shared.apic).save(),
        }
    }

    /// Takes over a saved state; before the processor has executed anything.
    ///
    /// # Errors
    /// [`StateError`] if no processor of this model can be in that state; this
    /// one is then of no use any more.
    pub fn load_state(&mut self, state: &CpuState) -> Result<(), StateError> {
        self.s = State::reset();
        self.load_control(state)?;
        self.load_segments(state)?;
        self.load_extended(state)?;
        state.msrs.load(self).map_err(|_| StateError("model-specific register"))?;

        check(state.rflags & !rflags::WRITABLE == rflags::FIXED, "RFLAGS")?;
        self.set_rflags(state.rflags, !0);
        // past the last canonical address it may be, and faults there
        check(self.s.long64() || state.rip >> 32 == 0, "RIP")?;
        self.s.rip = state.rip;
        for (number, value) in state.regs.into_iter().enumerate() {
            self.s.regs.set(number, value);
        }
        self.s.cr2 = state.cr2;
        let traps = dr6::BD | dr6::BS | dr6::BT | 0xf;
        check(state.dr6 & !traps == dr6::FIXED, "DR6")?;
        check(state.dr7 & !DR7 == dr7::FIXED, "DR7")?;
        (self.s.dr, self.s.dr6, self.s.dr7) = (state.dr, state.dr6, state.dr7);

        self.activity = match state.activity {
            ActivityState::Active => Activity::Active,
            ActivityState::Halted => Activity::Halted,
            // INIT makes no other processor wait
            ActivityState::WaitForSipi if self.id != 0 => Activity::WaitForSipi,
            ActivityState::WaitForSipi | ActivityState::Shutdown => return Err(StateError("activity")),
        };
        check(state.pending_db & !traps == 0, "debug exception")?;
        self.pending_db = state.pending_db;
        (self.shadow, self.nmi_blocked) = (state.shadow, state.nmi_blocked);
        check(state.events & !EVENTS == 0, "events")?;
        self.shared.sipi_vector.store(u32::from(state.sipi_vector), Ordering::SeqCst);
        self.shared.request(state.events);
        lock(&self.shared.apic).load(&state.apic).map_err(StateError)?;
        self.state_changed();
        Ok(())
    }

    /// Control registers, in the order in which software enters the mode.
    fn load_control(&mut self, state: &CpuState) -> Loaded {
        let bad = |name| move |_: Exception| StateError(name);
        let lma = Efer::LMA.bits();
        self.write_msr(n::EFER, state.efer & !lma).map_err(bad("IA32_EFER"))?;
        let pcide = Cr4::PCIDE.bits();
        self.write_control(4, state.cr4 & !pcide).map_err(bad("CR4"))?;
        self.write_control(3, state.cr3 & !0xfff).map_err(bad("CR3"))?;
        self.write_control(0, state.cr0).map_err(bad("CR0"))?;
        self.write_control(4, state.cr4).map_err(bad("CR4"))?;
        self.write_control(3, state.cr3).map_err(bad("CR3"))?;
        check(self.s.cr0.bits() == state.cr0, "CR0")?;
        check(self.s.cr3 == state.cr3, "CR3")?;
        // what they were loaded with, not what memory has now
        check(state.pdpte.iter().all(|&entry| self.paging().is_pdpte(entry)), "PDPTE")?;
        self.s.pdpte = state.pdpte;
        check(self.s.efer.bits() == state.efer, "IA32_EFER")
    }

    /// Segments, and the privilege level that two of them tell.
    fn load_segments(&mut self, state: &CpuState) -> Loaded {
        for (to, from) in self.s.seg.iter_mut().zip(&state.segments) {
            *to = from.load()?;
        }
        (self.s.ldtr, self.s.tr) = (state.ldtr.load()?, state.tr.load()?);
        (self.s.gdtr, self.s.idtr) = (state.gdtr.load()?, state.idtr.load()?);
        let (cs, ss) = (self.s.seg[Seg::Cs as usize].attr, self.s.seg[Seg::Ss as usize].attr);
        let protected = self.s.cr0.contains(Cr0::PE);
        check(state.cpl <= if protected { 3 } else { 0 }, "CPL")?;
        if protected {
            check(ss.dpl() == state.cpl, "SS")?;
            let level = if cs.is_conforming() { cs.dpl() <= state.cpl } else { cs.dpl() == state.cpl };
            let wide = self.ia32e() && cs.long() && cs.big();
            check(cs.present() && cs.is_code() && level && !wide, "CS")?;
        }
        self.s.cpl = state.cpl;
        Ok(())
    }

    /// x87, vectors and masks: as much of them as the model has.
    fn load_extended(&mut self, state: &CpuState) -> Loaded {
        let xcr0 = Xcr0::from_bits_retain(state.xcr0);
        check(is_xcr0(&self.model, xcr0), "XCR0")?;
        self.s.xcr0 = xcr0;
        self.control_changed();
        self.s.x87 = state.x87.load();
        self.s.vec = state.vectors.map(VectorReg);
        self.s.opmask = state.opmask;
        check(xcr0_allowed(&self.model).contains(self.s.in_use()), "vector registers")?;
        self.s.set_mxcsr(state.mxcsr).map_err(|_| StateError("MXCSR"))
    }
}

/// DR7 without what is reserved as zero.
const DR7: u64 = 0xffff_23ff;

#[cfg(test)]
mod tests;

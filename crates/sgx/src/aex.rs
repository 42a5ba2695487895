//! The asynchronous exit: an event takes a logical processor out of its enclave
//! (*SDM vol. 3D, "Enclave Exiting Events"*).
//!
//! The state goes into the current SSA frame, whose pages were looked up when the
//! enclave was entered; the registers get synthetic values; then the event is
//! delivered as if it had happened at the AEP. Nothing in here can fail from the
//! outside's point of view: if the EPC is lost, the state is lost with it, and the
//! processor leaves all the same.

use arch::Vector;
use arch::regs::{gpr, mxcsr, rflags};
use sgx_abi::{Enclu, ExInfo, ExitInfo, ExitType, GprSgx, MiscSelect, PAGE_SIZE};
use zerocopy::IntoBytes;
use zeroize::{Zeroize, Zeroizing};

use crate::enclu::entry::{self, FS, GPR_OFFSET, GS, TCS_CSSA};
use crate::epcm::EpcPage;
use crate::package::Package;
use crate::port::Port;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An interrupt, an NMI or whatever else EXITINFO does not report.
    Interrupt,
    /// An exception that the processor raised.
    Hardware,
    /// An exception that an instruction asked for: INT3, INTO.
    Software,
}

/// An event that leaves the enclave.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its vector.
    pub vector: u8,
    /// Its kind.
    pub kind: Kind,
    /// Its error code, 0 if it has none.
    pub error: u32,
    /// The faulting linear address of a page fault.
    pub address: u64,
    /// RIP to go on at: what would be pushed outside an enclave.
    pub rip: u64,
    /// RFLAGS as they would be pushed outside an enclave, RF included.
    pub rflags: u64,
}

/// What system software may know of the event; everything else of it is in the
/// registers that the exit has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AexOutcome {
    /// Address of a page fault, its low 12 bits cleared.
    pub address: u64,
    /// Error code.
    pub error: u32,
    /// The EPC is lost, and with it the thread's state.
    pub lost: bool,
}

/// Offset of the XSAVE header in an XSAVE area.
pub(crate) const XSAVE_HEADER: usize = 512;
/// Room for an XSAVE area: the components of all models end below this.
pub(crate) const XSAVE_MAX: usize = PAGE_SIZE;
/// x87 control and status word after an exit by #MF, MXCSR after one by #XM (*SDM
/// vol. 3D, "GPR, x87 Synthetic States on Asynchronous Enclave Exit"*).
const FCW_MF: u16 = 0x037e;
const FSW_MF: u16 = 0x8081;
const MXCSR_XM: u32 = 0x1f01;
/// Flags that an exit clears; the others stay.
const CLEARED: u64 = rflags::STATUS | rflags::RF;

/// An XSAVE area on its way; wiped when dropped.
pub(crate) struct Image {
    bytes: Zeroizing<[u8; XSAVE_MAX]>,
    size: usize,
}

impl Image {
    /// An empty one of the size that components `xfrm` take.
    pub(crate) fn new(port: &dyn Port, xfrm: u64) -> Image {
        Image { bytes: Zeroizing::new([0; XSAVE_MAX]), size: port.xsave_size(xfrm).min(XSAVE_MAX) }
    }

    /// Its content.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    /// Reads it from the pages of an SSA frame.
    pub(crate) fn load(&mut self, package: &Package, pages: &[Option<EpcPage>]) -> Result<(), mee::Lost> {
        for (chunk, page) in self.bytes[..self.size].chunks_mut(PAGE_SIZE).zip(pages) {
            package.dram.read(page.ok_or(mee::Lost)?.0, 0, chunk)?;
        }
        Ok(())
    }

    fn store(&self, package: &Package, pages: &[Option<EpcPage>]) -> Result<(), mee::Lost> {
        for (chunk, page) in self.bytes().chunks(PAGE_SIZE).zip(pages) {
            package.dram.write(page.ok_or(mee::Lost)?.0, 0, chunk)?;
        }
        Ok(())
    }
}

/// The general registers of a frame by number.
pub(crate) fn registers(gpr: &GprSgx) -> [u64; 16] {
    [
        gpr.rax, gpr.rcx, gpr.rdx, gpr.rbx, gpr.rsp, gpr.rbp, gpr.rsi, gpr.rdi, gpr.r8, gpr.r9, gpr.r10,
        gpr.r11, gpr.r12, gpr.r13, gpr.r14, gpr.r15,
    ]
}

fn set_registers(gpr: &mut GprSgx, values: &[u64]) {
    let fields = [
        &mut gpr.rax,
        &mut gpr.rcx,
        &mut gpr.rdx,
        &mut gpr.rbx,
        &mut gpr.rsp,
        &mut gpr.rbp,
        &mut gpr.rsi,
        &mut gpr.rdi,
        &mut gpr.r8,
        &mut gpr.r9,
        &mut gpr.r10,
        &mut gpr.r11,
        &mut gpr.r12,
        &mut gpr.r13,
        &mut gpr.r14,
        &mut gpr.r15,
    ];
    for (field, value) in fields.into_iter().zip(values) {
        *field = *value;
    }
}

/// EXITINFO of an event: only the exceptions of *SDM vol. 3D, "EXITINFO.VECTOR"*
/// are told to the enclave; #PF and #GP only to one with MISCSELECT.EXINFO.
fn exit_info(event: &Event, miscselect: MiscSelect) -> ExitInfo {
    const ALWAYS: [Vector; 8] = [
        Vector::DivideError,
        Vector::Debug,
        Vector::Breakpoint,
        Vector::BoundRange,
        Vector::InvalidOpcode,
        Vector::X87,
        Vector::AlignmentCheck,
        Vector::Simd,
    ];
    let exit_type = match event.kind {
        Kind::Interrupt => return ExitInfo::NONE,
        Kind::Hardware => ExitType::Hardware,
        Kind::Software => ExitType::Software,
    };
    let reported = ALWAYS.iter().any(|&v| v as u8 == event.vector)
        || has_exinfo(event) && miscselect.contains(MiscSelect::EXINFO);
    let reported = reported || crate::planted!(ExitInfo);
    if reported { ExitInfo::new(event.vector, exit_type) } else { ExitInfo::NONE }
}

fn is(event: &Event, vector: Vector) -> bool {
    event.kind != Kind::Interrupt && event.vector == vector as u8
}

fn has_exinfo(event: &Event) -> bool {
    is(event, Vector::PageFault) || is(event, Vector::GeneralProtection)
}

/// Leaves the enclave that `port` executes, for `event`. Afterwards RIP, RFLAGS
/// and all registers are what the event's delivery shall find. Does nothing but
/// cut the address if the processor is not in enclave mode.
pub fn exit(port: &mut dyn Port, package: &Package, event: &Event) -> AexOutcome {
    let page_fault = is(event, Vector::PageFault);
    let inside = port.thread().is_some();
    let address = if page_fault && inside && !crate::planted!(ExitAddress) {
        event.address & !0xfff
    } else {
        event.address
    };
    if !inside {
        return AexOutcome { address, error: event.error, lost: false };
    }
    package.trace.exit(event.vector, event.kind == Kind::Interrupt);
    let saved = if package.is_lost() { Err(mee::Lost) } else { save(port, package, event) };
    // A frame that is lost cannot tell the host's stack: it is what it was at entry.
    let at_entry = port.thread().map_or([0; 2], |thread| thread.outside_stack);
    let (outside_stack, lost) = match saved {
        Ok(outside_stack) => (outside_stack, false),
        Err(mee::Lost) => (at_entry, true),
    };
    if lost {
        package.lose();
    }
    synthesize(port, package, event, outside_stack);
    AexOutcome { address, error: event.error, lost }
}

/// Saves the state in the current SSA frame and makes the next one current; gives
/// the host's RSP and RBP from the frame.
fn save(port: &dyn Port, package: &Package, event: &Event) -> Result<[u64; 2], mee::Lost> {
    let thread = port.thread().ok_or(mee::Lost)?;
    let long64 = port.control().long64;
    let gpr_page = thread.ssa.last().copied().flatten().ok_or(mee::Lost)?;
    let miscselect = MiscSelect::from_bits_retain(thread.miscselect);

    let mut image = Image::new(port, thread.xfrm);
    // XSAVE leaves alone what it does not define: the area keeps it.
    image.load(package, &thread.ssa)?;
    let size = image.size;
    port.xsave(thread.xfrm, &mut image.bytes[..size]);
    for (byte, enabled) in image.bytes[XSAVE_HEADER..].iter_mut().zip(thread.xfrm.to_le_bytes()) {
        *byte &= enabled;
    }
    image.bytes[XSAVE_HEADER + 8..XSAVE_HEADER + 24].fill(0);
    image.store(package, &thread.ssa)?;

    let mut frame: GprSgx = package.read(gpr_page, GPR_OFFSET)?;
    let outside_stack = [frame.ursp, frame.urbp];
    let mask = if long64 { u64::MAX } else { 0xffff_ffff };
    let mut values = Zeroizing::new([0; 16]);
    for (number, value) in values.iter_mut().enumerate() {
        *value = port.gpr(number) & mask;
    }
    set_registers(&mut frame, &values[..if long64 { 16 } else { 8 }]);
    frame.rip = event.rip & mask;
    frame.rflags = event.rflags & mask & !rflags::TF;
    frame.fsbase = port.segment(FS).base;
    frame.gsbase = port.segment(GS).base;
    frame.exitinfo = exit_info(event, miscselect);
    let written = package.write(gpr_page, GPR_OFFSET, &frame);
    frame.as_mut_bytes().zeroize();
    written?;

    if miscselect.contains(MiscSelect::EXINFO) && has_exinfo(event) {
        let maddr = if is(event, Vector::PageFault) { event.address } else { 0 };
        let info = ExInfo { maddr, errcd: event.error, reserved1: 0 };
        package.write(gpr_page, GPR_OFFSET - ExInfo::SIZE, &info)?;
    }
    let cssa: u32 = package.read(thread.tcs, TCS_CSSA)?;
    package.write(thread.tcs, TCS_CSSA, &cssa.wrapping_add(u32::from(!crate::planted!(ExitFrame))))?;
    Ok(outside_stack)
}

/// Leaves enclave mode with the synthetic state (*SDM vol. 3D, "Synthetic State on
/// Asynchronous Enclave Exit"*).
fn synthesize(port: &mut dyn Port, package: &Package, event: &Event, outside_stack: [u64; 2]) {
    let Some(xfrm) = port.thread().map(|thread| thread.xfrm) else { return };
    if !crate::planted!(ExitVectors) {
        initialize_extended(port, event, xfrm);
    }
    let long64 = port.control().long64;
    // TF comes back in `leave`
    port.set_rflags(event.rflags & if crate::planted!(ExitFlags) { u64::MAX } else { !CLEARED });
    let Some(thread) = entry::leave(port, package) else { return };
    for number in 0..if long64 { 16 } else { 8 } {
        let value = match number {
            gpr::RAX => u64::from(Enclu::Eresume as u32),
            gpr::RBX => thread.tcs_address,
            gpr::RCX => thread.aep,
            gpr::RSP => outside_stack[0],
            gpr::RBP => outside_stack[1],
            _ if crate::planted!(ExitRegisters) => continue,
            _ => 0,
        };
        port.set_gpr(number, value);
    }
    port.jump(if crate::planted!(ExitTarget) { event.rip } else { thread.aep });
}

/// Puts the extended state of the enclave into its initial state; #MF and #XM
/// leave the trace of themselves that their handlers need.
fn initialize_extended(port: &mut dyn Port, event: &Event, xfrm: u64) {
    port.xinit(xfrm);
    let (mf, xm) = (is(event, Vector::X87), is(event, Vector::Simd));
    if !mf && !xm {
        return;
    }
    // An image of the legacy region with just that one component in it.
    let mut image = Image::new(port, 3);
    let mxcsr = if xm { MXCSR_XM } else { mxcsr::RESET };
    image.bytes[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    if mf {
        image.bytes[..2].copy_from_slice(&FCW_MF.to_le_bytes());
        image.bytes[2..4].copy_from_slice(&FSW_MF.to_le_bytes());
    }
    image.bytes[XSAVE_HEADER] = if mf { 1 } else { 2 };
    // The image is valid, so there is nothing to refuse.
    let _ = port.xrstor(3, image.bytes());
}

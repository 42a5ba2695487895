//! What the SGX architecture asks of the logical processor that executes a
//! leaf, and of an event that leaves an enclave.

use arch::Exception;

use crate::epcm::EpcPage;
use crate::thread::Thread;

/// Why memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Fetches instructions.
    Fetch,
}

/// A segment register with its hidden part; `attr` as in a descriptor's bits
/// 40–55 ([`arch::descriptor::Attr`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Access rights.
    pub attr: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

/// Control state that entering an enclave looks at.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// IA32_EFER.LMA and CS.L: 64-bit mode.
    pub long64: bool,
    /// CR4.OSFXSR.
    pub osfxsr: bool,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// XCR0.
    pub xcr0: u64,
}

/// The logical processor.
///
/// Registers are numbered as in encodings (0 RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP,
/// 5 RBP, 6 RSI, 7 RDI, 8–15 R8–R15).
pub trait Port {
    /// A general register.
    fn gpr(&self, number: usize) -> u64;
    /// Sets a general register, all 64 bits.
    fn set_gpr(&mut self, number: usize, value: u64);
    /// Linear address of DS:`offset` for `len` bytes; `#GP(0)` outside DS or not canonical.
    fn linear(&self, offset: u64, len: u64) -> Result<u64, Exception>;
    /// Reads at a linear address as the instruction's own data access; up to a
    /// page. EPC pages read as the access control of the mode says.
    fn read(&mut self, la: u64, buf: &mut [u8]) -> Result<(), Exception>;
    /// Writes likewise; all or nothing.
    fn write(&mut self, la: u64, buf: &[u8]) -> Result<(), Exception>;
    /// Walks the page tables for `la`, with their faults and flags, but no EPCM
    /// check: the EPC page it leads to, or `None` if it is not in the EPC.
    fn resolve(&mut self, la: u64, access: Access) -> Result<Option<EpcPage>, Exception>;
    /// A page fault at `la` with P set; `sgx` sets the SGX bit.
    fn page_fault(&mut self, la: u64, access: Access, sgx: bool) -> Exception;
    /// The enclave thread, in enclave mode.
    fn thread(&self) -> Option<&Thread>;
    /// The same, to change it.
    fn thread_mut(&mut self) -> Option<&mut Thread>;
    /// Enters or leaves enclave mode: whatever that flushes is flushed; XCR0,
    /// TF and breakpoints are the caller's business.
    fn set_thread(&mut self, thread: Option<Box<Thread>>);
    /// Random bytes from the host's generator; false if it has none.
    fn random(&mut self, buf: &mut [u8]) -> bool;
    /// An unmasked event is pending (EINIT stops for it).
    fn event_pending(&self) -> bool;
    /// Control state.
    fn control(&self) -> Control;
    /// Sets XCR0, without the checks of XSETBV.
    fn set_xcr0(&mut self, value: u64);
    /// Segment register by number (0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS).
    fn segment(&self, number: usize) -> Segment;
    /// Loads FS (4) or GS (5) with its hidden part.
    fn set_segment(&mut self, number: usize, segment: Segment);
    /// RIP of the instruction.
    fn rip(&self) -> u64;
    /// RIP of the next instruction.
    fn next_rip(&self) -> u64;
    /// Continues at `rip`.
    fn jump(&mut self, rip: u64);
    /// RFLAGS, all of it.
    fn rflags(&self) -> u64;
    /// Sets RFLAGS, all of it.
    fn set_rflags(&mut self, value: u64);
    /// Pends a single-step `#DB` on the boundary after this instruction (opt-in entry with TF).
    fn pend_single_step(&mut self);
    /// Size of the XSAVE image (standard form) of components `xfrm`.
    fn xsave_size(&self, xfrm: u64) -> usize;
    /// Saves components `xfrm` in XSAVE's standard form to the [`Port::xsave_size`] bytes of `image`.
    fn xsave(&self, xfrm: u64, image: &mut [u8]);
    /// Restores components `xfrm` as XRSTOR does; `#GP(0)` for a bad image.
    fn xrstor(&mut self, xfrm: u64, image: &[u8]) -> Result<(), Exception>;
    /// Puts components `xfrm` into their initial state, MXCSR included.
    fn xinit(&mut self, xfrm: u64);
}

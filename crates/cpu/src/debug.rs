//! What a debugger outside the machine asks of a processor. The guest sees
//! none of it: breakpoints change no memory, watchpoints and steps use neither
//! its debug registers nor its trap flag.
//!
//! * **Breakpoints** are linear addresses. A block begins at each place that may
//!   be one, and no link or jump cache leads there: so [`crate::Engine`] looks
//!   them up by physical address each time, and asks here. Other blocks run
//!   as ever.
//! * **Watchpoints** make translations of their pages slow, as the guest's own do,
//!   and are looked at where those are.
//! * A **hit** asks for the processor ([`request::HOLD`]); [`Cpu::take_stop`]
//!   then tells why.
//!
//! An enclave that did not opt in to debugging is one step: inside there are no
//! breakpoints, no watchpoints on its own memory, and a step ends outside
//! (*SDM vol. 3D, "Enclave Code Debug and Profiling"*). What a debug enclave has in the EPC
//! is reached by the rules of EDBGRD and EDBGWR ([`sgx::debugger`]).

use arch::Exception;
use arch::paging::{PAGE_MASK, PAGE_SIZE};
use sgx::EpcPage;

use crate::Cpu;
use crate::shared::request;

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Reads.
    Reads,
    /// Writes.
    Writes,
    /// Both.
    Both,
}

/// A watchpoint: a range of linear addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// First byte.
    pub first: u64,
    /// Bytes.
    pub len: u64,
    /// Accesses.
    pub kind: Watched,
}

impl Watchpoint {
    fn last(&self) -> u64 {
        self.first.saturating_add(self.len.saturating_sub(1))
    }
}

/// Why a processor stopped for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The next instruction is at a breakpoint.
    Breakpoint,
    /// The last instruction made a watched access.
    Watchpoint(Watchpoint),
    /// The step is done.
    Step,
    /// A triple fault: the processor has shut down.
    Shutdown,
    /// EINIT has accepted the enclave with this SECS.
    Initialized(EpcPage),
}

/// A debugger's wishes, and what came of them.
#[derive(Debug)]
pub(crate) struct Debug {
    breakpoints: Vec<u64>,
    watchpoints: Vec<Watchpoint>,
    /// Offsets within pages at which blocks begin, a bit for each. More than there
    /// are breakpoints, so that taking one away and setting it again costs nothing.
    begins: Box<[u64; 64]>,
    step: bool,
    /// EINIT is one.
    initialized: bool,
    stop: Option<Stop>,
}

impl Debug {
    fn begins(&self, offset: u64) -> bool {
        self.begins[(offset >> 6 & 63) as usize] >> (offset & 63) & 1 != 0
    }
}

impl Cpu {
    /// Sets what a debugger wants to be told, in place of what was set before.
    /// Between two runs of the engine.
    pub fn set_debug(&mut self, breakpoints: &[u64], watchpoints: &[Watchpoint]) {
        if breakpoints.is_empty() && watchpoints.is_empty() {
            self.stale_code |=
                self.debug.take().is_some_and(|debug| debug.begins.iter().any(|&bits| bits != 0));
            self.flush_all();
            return;
        }
        let debug = self.debug();
        let before = debug.begins.clone();
        for la in breakpoints {
            debug.begins[(la >> 6 & 63) as usize] |= 1 << (la & 63);
        }
        let more = debug.begins != before;
        let watches = debug.watchpoints != watchpoints;
        debug.breakpoints = breakpoints.to_vec();
        debug.watchpoints = watchpoints.to_vec();
        self.stale_code |= more;
        if watches {
            self.flush_all();
        }
    }

    /// The next run of the engine is a step: it ends, with [`Stop::Step`], after
    /// an instruction that is not inside an enclave which is closed to debuggers.
    pub fn set_step(&mut self, step: bool) {
        if step || self.debug.is_some() {
            self.debug().step = step;
        }
    }

    /// Whether the processor stops after each EINIT that accepts an enclave, with
    /// [`Stop::Initialized`]. [`Cpu::set_debug`] of nothing ends it.
    pub fn set_stop_at_einit(&mut self, stop: bool) {
        self.debug().initialized = stop;
    }

    /// EINIT has accepted an enclave.
    pub(crate) fn enclave_initialized(&mut self, secs: EpcPage) {
        if self.debug.as_deref().is_some_and(|debug| debug.initialized) {
            self.debug_stop(Stop::Initialized(secs));
        }
    }

    /// Reads at a physical address as a debugger in system software does, within a page;
    /// false if it is not in the EPC. What no debugger may see reads ones.
    pub fn debug_read_epc(&self, gpa: u64, to: &mut [u8]) -> bool {
        let Some((sgx, page)) = self.sgx.as_ref().and_then(|sgx| Some((sgx, sgx.page(gpa)?))) else {
            return false;
        };
        sgx.package.debug_read(page, (gpa & !PAGE_MASK) as usize, to);
        true
    }

    /// Writes likewise. What no debugger may change stays.
    pub fn debug_write_epc(&mut self, gpa: u64, from: &[u8]) -> bool {
        let Some((sgx, page)) = self.sgx.as_ref().and_then(|sgx| Some((sgx, sgx.page(gpa)?))) else {
            return false;
        };
        sgx.package.debug_write(page, (gpa & !PAGE_MASK) as usize, from);
        // code may have been decoded from it
        self.written(gpa & PAGE_MASK, PAGE_SIZE);
        true
    }

    /// Why the processor stopped, once.
    pub fn take_stop(&mut self) -> Option<Stop> {
        self.debug.as_mut()?.stop.take()
    }

    /// The processor is inside an enclave whose registers and code are closed to
    /// debuggers.
    pub fn in_closed_enclave(&self) -> bool {
        self.s.enclave.as_deref().is_some_and(|thread| !thread.debug_opt_in)
    }

    fn debug(&mut self) -> &mut Debug {
        self.debug.get_or_insert_with(|| {
            Box::new(Debug {
                breakpoints: Vec::new(),
                watchpoints: Vec::new(),
                begins: Box::new([0; 64]),
                step: false,
                initialized: false,
                stop: None,
            })
        })
    }

    /// Stops for the debugger at the next boundary.
    pub(crate) fn debug_stop(&mut self, stop: Stop) {
        self.debug().stop.get_or_insert(stop);
        self.shared.request(request::HOLD);
        self.stop_block();
    }

    /// True if a block begins at that offset of every page, and is looked up
    /// each time.
    #[inline]
    pub(crate) fn block_begins(&self, offset: u64) -> bool {
        self.debug.as_deref().is_some_and(|debug| debug.begins(offset))
    }

    /// True if the debugger wants to stop before the instruction at `la`. A step
    /// leads on from there.
    pub(crate) fn at_breakpoint(&self, la: u64) -> bool {
        self.debug.as_deref().is_some_and(|debug| !debug.step && debug.breakpoints.contains(&la))
            && !self.in_closed_enclave()
    }

    /// Stops before the next instruction, which is then executed: the exception
    /// is not to be raised.
    pub(crate) fn stop_before(&mut self) -> Exception {
        self.debug_stop(Stop::Breakpoint);
        self.retry = true;
        Exception::DB
    }

    /// True if the next run is a step.
    #[inline]
    pub(crate) fn steps(&self) -> bool {
        self.debug.as_deref().is_some_and(|debug| debug.step)
    }

    /// The step is done.
    pub(crate) fn step_done(&mut self) {
        let debug = self.debug();
        debug.step = false;
        debug.stop.get_or_insert(Stop::Step);
    }

    /// True if a watchpoint of the debugger lies in the page of `la`.
    pub(crate) fn debugger_watches(&self, la: u64) -> bool {
        let page = la & PAGE_MASK;
        let touches = |w: &Watchpoint| w.first <= page | !PAGE_MASK && page <= w.last();
        self.debug.as_deref().is_some_and(|debug| debug.watchpoints.iter().any(touches))
            && !self.hides_breakpoint(la)
    }

    /// An access to `n` bytes at `la`, of a page whose translation is slow.
    pub(crate) fn debugger_sees(&mut self, la: u64, n: u64, write: bool) {
        let Some(debug) = self.debug.as_deref() else { return };
        let last = la.saturating_add(n.saturating_sub(1));
        let hit = debug.watchpoints.iter().copied().find(|w| {
            let kind = match w.kind {
                Watched::Reads => !write,
                Watched::Writes => write,
                Watched::Both => true,
            };
            kind && w.first <= last && la <= w.last()
        });
        if let Some(hit) = hit
            && !self.hides_breakpoint(la)
        {
            self.debug_stop(Stop::Watchpoint(hit));
        }
    }
}

//! The loop that runs blocks and attends to requests.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;

use arch::Exception;
use arch::regs::{dr6, dr7, rflags};

use crate::cache::{Block, BlockId, BlockRef, Cache, Kind, Mode, Source};
use crate::chain::{Chain, Left};
use crate::decode::{self, Decoded, Extent};
use crate::mmu::walk::Access;
use crate::op::Flow;
use crate::shared::request;
use crate::{Activity, Cpu};

/// Why [`Engine::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The budget of instructions is used up.
    Budget,
    /// Nothing to do until an interrupt: [`Activity::Halted`] or [`Activity::WaitForSipi`].
    Idle,
    /// A triple fault: the processor has shut down.
    Shutdown,
    /// Somebody asked for the processor ([`request::EXIT`], [`request::HOLD`]), or
    /// a debugger is to be told something ([`Cpu::take_stop`]).
    Requested,
}

/// A processor and its decoded code.
pub struct Engine {
    /// The processor.
    pub cpu: Cpu,
    cache: Cache,
    /// Bytes being decoded; wiped after enclave code.
    scratch: [u8; 0x1000 + decode::MAX_LEN],
    /// Keys the digests of enclave code.
    digests: RandomState,
}

/// Requests that are attended to whatever RFLAGS.IF says.
const UNMASKED: u32 = request::INIT
    | request::SIPI
    | request::CODE
    | request::EXIT
    | request::HOLD
    | request::BUS
    | request::EPC
    | request::MACHINE_CHECK;

impl Cpu {
    /// Requests that would be attended to now.
    #[inline(always)]
    fn attention(&self) -> u32 {
        match self.shared.pending.load(Ordering::Relaxed) {
            0 => 0,
            pending => pending & self.attention_mask(),
        }
    }

    fn attention_mask(&self) -> u32 {
        let mut mask = UNMASKED;
        if self.s.rflags & rflags::IF != 0 {
            mask |= request::INTERRUPT | request::EXT_INT;
        }
        if !self.nmi_blocked {
            mask |= request::NMI;
        }
        mask
    }

    /// Requests that end a wait, for [`crate::Shared::wait`].
    pub fn wake_mask(&self) -> u32 {
        let owner = request::EXIT | request::HOLD;
        match self.activity {
            Activity::WaitForSipi => request::INIT | request::SIPI | owner,
            Activity::Shutdown => request::INIT | request::NMI | owner,
            _ => {
                let mut mask = request::INIT | request::MACHINE_CHECK | owner;
                if self.s.rflags & rflags::IF != 0 {
                    mask |= request::INTERRUPT | request::EXT_INT;
                }
                if !self.nmi_blocked {
                    mask |= request::NMI;
                }
                mask
            }
        }
    }

    /// True if instructions must be executed one at a time.
    #[inline(always)]
    fn stepping(&self) -> bool {
        self.shadow
            || self.s.rflags & rflags::TF != 0
            || self.pending_db != 0
            || self.s.dr7 & dr7::ENABLES != 0
            || self.limited()
    }

    /// True if the engine has something to do before the next instruction.
    #[inline(always)]
    pub(crate) fn unsettled(&self) -> bool {
        self.stepping() || self.s.rflags & rflags::RF != 0 || self.activity != Activity::Active
    }

    /// Code outside 64-bit mode whose segment ends before 4 GiB: each
    /// instruction is checked against the limit (*SDM vol. 3A §5.3*).
    #[inline(always)]
    fn limited(&self) -> bool {
        !self.s.long64() && self.s.seg[1].limit != u32::MAX
    }

    /// Decoding mode of the current code segment.
    #[inline(always)]
    pub(crate) fn mode(&self) -> Mode {
        if self.s.long64() {
            Mode::Bits64
        } else if self.s.seg[1].attr.big() {
            Mode::Bits32
        } else {
            Mode::Bits16
        }
    }
}

impl Engine {
    /// An engine for a processor.
    pub fn new(cpu: Cpu) -> Self {
        Engine {
            cpu,
            cache: Cache::default(),
            scratch: [0; 0x1000 + decode::MAX_LEN],
            digests: RandomState::new(),
        }
    }

    /// Executes up to about `budget` instructions.
    pub fn run(&mut self, budget: u64) -> Exit {
        self.cpu.shared.set_idle(false);
        self.cpu.wake_epc();
        if std::mem::take(&mut self.cpu.stale_code) {
            self.forget_code();
        }
        let end = self.cpu.retired.saturating_add(budget);
        let exit = if self.cpu.steps() { self.debug_step(end) } else { self.run_until(end) };
        self.cpu.shared.retired.store(self.cpu.retired, Ordering::Relaxed);
        self.cpu.shared.set_idle(true);
        exit
    }

    fn run_until(&mut self, end: u64) -> Exit {
        let mut idle_turns = 0;
        loop {
            if self.cpu.attention() != 0
                && let Some(exit) = self.attend()
            {
                return exit;
            }
            match self.cpu.activity {
                Activity::Active => {}
                Activity::Shutdown => return Exit::Shutdown,
                Activity::Halted | Activity::WaitForSipi => return Exit::Idle,
            }
            if self.cpu.retired >= end {
                return Exit::Budget;
            }
            let before = self.cpu.retired;
            if self.cpu.stepping() {
                self.step();
            } else {
                // It holds off instruction breakpoints, of which there are none, and goes
                // with the first instruction that completes (SDM vol. 3B §17.3.1.1).
                let resumed = self.cpu.s.rflags & rflags::RF;
                self.cpu.s.rflags &= !rflags::RF;
                if let Err(exception) = self.blocks(end) {
                    if self.cpu.retired == before {
                        self.cpu.s.rflags |= resumed;
                    }
                    if !self.cpu.take_retry() {
                        self.cpu.raise(exception);
                    }
                }
            }
            // A handler that faults at once retires nothing: a turn without
            // progress counts against the budget all the same.
            if self.cpu.retired == before {
                idle_turns += 1;
                if idle_turns > end.saturating_sub(before) {
                    return Exit::Budget;
                }
            }
        }
    }

    /// Executes one instruction for the debugger, or a whole stay in an enclave that is
    /// closed to it. Interrupts wait, so that a step does not lead into their
    /// handlers, unless the processor does or the stay would have no end.
    fn debug_step(&mut self, end: u64) -> Exit {
        loop {
            let open = self.cpu.activity == Activity::Active && !self.cpu.in_closed_enclave();
            let shadow = self.cpu.shadow;
            self.cpu.shadow |= open;
            let exit = self.attend();
            self.cpu.shadow = shadow;
            if exit.is_some() {
                return Exit::Requested;
            }
            match self.cpu.activity {
                Activity::Active => {}
                Activity::Shutdown => return Exit::Shutdown,
                Activity::Halted | Activity::WaitForSipi => return Exit::Idle,
            }
            if open || self.cpu.in_closed_enclave() {
                self.step();
            }
            if !self.cpu.in_closed_enclave() {
                self.cpu.step_done();
                return Exit::Requested;
            }
            if self.cpu.retired >= end {
                return Exit::Budget;
            }
        }
    }

    /// Attends to requests in the order of *SDM vol. 3A table 6-2*.
    fn attend(&mut self) -> Option<Exit> {
        let cpu = &mut self.cpu;
        let shared = cpu.shared.clone();
        let take = |bit: u32| shared.pending.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
        if take(request::BUS) {
            shared.await_bus();
        }
        if take(request::CODE) {
            // The epoch first: what is announced later comes with a new request.
            let epoch = cpu.ram.code().epoch();
            for (page, granules) in shared.take_written() {
                self.cache.invalidate(page, granules, &mut cpu.jumps);
            }
            let code = cpu.ram.code().clone();
            cpu.tlb.slow_writes(|gpa| code.has_code(gpa >> 12));
            shared.set_seen(epoch);
        }
        if take(request::EPC) {
            cpu.attend_epc();
        }
        if take(request::EXIT | request::HOLD) {
            return Some(Exit::Requested);
        }
        if take(request::MACHINE_CHECK) && cpu.machine_check() {
            return None;
        }
        if take(request::INIT) {
            cpu.init();
            return None;
        }
        if shared.pending.load(Ordering::SeqCst) & request::SIPI != 0 && take(request::SIPI) {
            cpu.start_up(shared.sipi_vector.load(Ordering::SeqCst) as u8);
        }
        if cpu.activity == Activity::WaitForSipi || cpu.shadow || cpu.pending_db != 0 {
            return None;
        }
        if !cpu.nmi_blocked && take(request::NMI) {
            if cpu.activity == Activity::Shutdown {
                return None;
            }
            cpu.activity = Activity::Active;
            cpu.deliver_nmi();
            return None;
        }
        if cpu.s.rflags & rflags::IF != 0
            && cpu.activity != Activity::Shutdown
            && let Some(vector) = cpu.acknowledge_interrupt()
        {
            cpu.activity = Activity::Active;
            cpu.deliver_interrupt(vector);
        }
        None
    }

    /// Executes one instruction with everything that single-stepping,
    /// breakpoints and shadows ask for (*SDM vol. 3B §17.3*).
    fn step(&mut self) {
        let resumed = self.cpu.s.rflags & rflags::RF != 0;
        if self.cpu.pending_db != 0 && !self.cpu.shadow {
            self.cpu.raise(Exception::DB);
            return;
        }
        if !resumed && self.instruction_breakpoint() {
            self.cpu.raise(Exception::DB);
            return;
        }
        let (traced, shadow) = (self.cpu.s.rflags & rflags::TF != 0, self.cpu.shadow);
        let pending = self.cpu.pending_db;
        self.cpu.shadow = false;
        self.cpu.s.rflags &= !rflags::RF;
        let retired = self.cpu.retired;
        match self.one() {
            Ok(()) => {
                let traced = self.cpu.traced.take().unwrap_or(traced);
                if traced && self.cpu.retired != retired {
                    self.cpu.pending_db |= dr6::BS;
                }
                // An instruction under a shadow may not prolong it for ever.
                if shadow && self.cpu.shadow {
                    self.cpu.shadow = false;
                }
                if self.cpu.pending_db != 0 && !self.cpu.shadow {
                    self.cpu.raise(Exception::DB);
                }
            }
            Err(exception) => {
                if resumed {
                    self.cpu.s.rflags |= rflags::RF;
                }
                if self.cpu.take_retry() {
                    (self.cpu.shadow, self.cpu.pending_db) = (shadow, pending);
                    return;
                }
                self.cpu.raise(exception);
            }
        }
    }

    fn instruction_breakpoint(&mut self) -> bool {
        let cpu = &mut self.cpu;
        if cpu.s.dr7 & dr7::ENABLES == 0 {
            return false;
        }
        let la = cpu.s.rip.wrapping_add(cpu.s.seg[1].base);
        if cpu.hides_breakpoint(la) {
            return false;
        }
        let mut hit = 0;
        for i in 0..4 {
            let enabled = cpu.s.dr7 >> (2 * i) & 3 != 0;
            if enabled && cpu.s.dr7 >> (16 + 4 * i) & 3 == 0 && cpu.s.dr[i] == la {
                hit |= 1 << i;
            }
        }
        cpu.pending_db |= hit;
        hit != 0
    }

    /// One instruction.
    fn one(&mut self) -> Result<(), Exception> {
        let la = self.cpu.fetch_address()?;
        let (id, block) = self.find_slow(la, Kind { mode: self.cpu.mode(), single: true })?;
        let len = self.cache.block(id).map_or(0, |block| block.len as u64);
        if self.cpu.limited() && self.cpu.s.rip + len - 1 > u64::from(self.cpu.s.seg[1].limit) {
            return Err(Exception::GP0);
        }
        self.execute(block, 0).map(|_| ())
    }

    /// Runs blocks until something wants attention or `end` is reached.
    fn blocks(&mut self, end: u64) -> Result<(), Exception> {
        loop {
            let block = self.find()?;
            let settled = self.execute(block, end)?;
            let cpu = &self.cpu;
            if cpu.attention() != 0 || cpu.retired >= end {
                return Ok(());
            }
            if !settled && cpu.unsettled() {
                return Ok(());
            }
        }
    }

    /// Executes a block, and others after it before `end`. True if the last was
    /// left by nothing more than its last instruction, a near branch or none: only
    /// what does more asks for single steps or changes the activity.
    #[inline(always)]
    fn execute(&mut self, block: BlockRef, end: u64) -> Result<bool, Exception> {
        let cpu = &mut self.cpu;
        // SAFETY: the cache has just led to the block, and no block goes while
        // blocks are executed.
        unsafe {
            match cpu.run_chain(block, end) {
                Chain::Through => Ok(cpu.block.get().linkable),
                Chain::Left => left(cpu, cpu.block.get()).map(|()| false),
            }
        }
    }

    /// The block at RIP.
    #[inline]
    fn find(&mut self) -> Result<BlockRef, Exception> {
        let la = self.cpu.fetch_address()?;
        let kind = Kind { mode: self.cpu.mode(), single: false };
        match self.cpu.known_block(la, kind) {
            Some(block) => Ok(block),
            None => Ok(self.find_slow(la, kind)?.1),
        }
    }

    /// The block of that kind at `la`, by its physical address.
    #[inline(never)]
    fn find_slow(&mut self, la: u64, kind: Kind) -> Result<(BlockId, BlockRef), Exception> {
        let gpa = self.cpu.translate_fetch(la)?;
        if self.cpu.at_breakpoint(la) {
            return Err(self.cpu.stop_before());
        }
        let page = gpa >> 12;
        let confirmed = self.confirmed(page);
        if let Some((id, to)) = self.cache.find(gpa, kind) {
            let block = self.cache.block(id);
            let second = block.and_then(|b| b.second);
            let usable = match second {
                None => true,
                Some(second) => {
                    let next = self.cpu.translate_fetch(self.cpu.page_after(la))?;
                    next == second && self.confirmed(next >> 12)
                }
            };
            if usable && (confirmed || self.still_as_decoded(id)) {
                if confirmed {
                    self.enter_jump(id, to);
                }
                return Ok((id, to));
            }
            self.cache.remove(id, &mut self.cpu.jumps);
        }
        let (id, to) = self.decode(la, gpa, kind)?;
        if self.confirmed(page) {
            self.enter_jump(id, to);
        }
        Ok((id, to))
    }

    /// Enters a block into the jump cache; not one that must be looked at each
    /// time: for a debugger's breakpoint, or because it depends on another page.
    fn enter_jump(&mut self, id: BlockId, to: BlockRef) {
        let Some(block) = self.cache.block(id) else { return };
        if !block.kind.single && block.second.is_none() && !self.cpu.block_begins(block.gpa & 0xfff) {
            self.cpu.jumps.set(block.kind.key(block.gpa), to);
        }
    }

    /// True if no processor can write `page` without telling us.
    fn confirmed(&mut self, page: u64) -> bool {
        let Some(epoch) = self.cache.unconfirmed(page) else { return true };
        let all = self.cpu.shared.others().all(|peer| peer.has_seen(epoch));
        if all {
            self.cache.confirm(page);
        }
        all
    }

    fn still_as_decoded(&mut self, id: BlockId) -> bool {
        let Some(block) = self.cache.block(id) else { return false };
        let split = block.len.min((0x1000 - (block.gpa & 0xfff)) as usize);
        let (low, high) = self.scratch[..block.len].split_at_mut(split);
        let mut read = self.cpu.fetch_bytes(block.gpa, low);
        if let (false, Some(second)) = (high.is_empty(), block.second) {
            read = read.and_then(|()| self.cpu.fetch_bytes(second, high));
        }
        if read.is_err() {
            return false;
        }
        let now = &mut self.scratch[..block.len];
        match &block.source {
            Source::Bytes(bytes) => *now == **bytes,
            Source::Digest(digest) => {
                let same = self.digests.hash_one(&*now) == *digest;
                now.fill(0);
                same
            }
        }
    }

    /// Decodes the block at `gpa`.
    fn decode(&mut self, la: u64, gpa: u64, kind: Kind) -> Result<(BlockId, BlockRef), Exception> {
        if self.cpu.thunks.is_full() {
            self.forget_code();
            self.cpu.thunks.clear();
        }
        let offset = gpa & 0xfff;
        let enclave = self.cpu.epc_page(gpa).is_some();
        self.mark(gpa, (0x1000 - offset).min(decode::MAX_LEN as u64 * 16));
        let mut n = (0x1000 - offset) as usize;
        let read = self.cpu.fetch_bytes(gpa, &mut self.scratch[..n]);
        read.map_err(|_| self.cpu.lost_fetch(la))?;
        let mut second = None;
        let extent = Extent { single: kind.single, beyond: false, enclave };
        let decoded = decode::decode(&mut self.cpu, &self.scratch[..n], offset as u16, kind.mode, extent);
        let run = match decoded {
            Decoded::Run(run) => run,
            Decoded::Incomplete => {
                let next_la = self.cpu.page_after(la);
                let next = self.cpu.translate_fetch(next_la)?;
                self.mark(next, decode::MAX_LEN as u64);
                let read = self.cpu.fetch_bytes(next, &mut self.scratch[n..n + decode::MAX_LEN]);
                read.map_err(|_| self.cpu.lost_fetch(next_la))?;
                n += decode::MAX_LEN;
                second = Some(next);
                let bytes = &self.scratch[..n];
                let extent = Extent { beyond: true, ..extent };
                match decode::decode(&mut self.cpu, bytes, offset as u16, kind.mode, extent) {
                    Decoded::Run(run) => run,
                    Decoded::Incomplete => return Err(Exception::GP0),
                }
            }
        };
        let bytes = &mut self.scratch[..n];
        let source = if enclave {
            let digest = self.digests.hash_one(&bytes[..run.len]);
            bytes.fill(0);
            Source::Digest(digest)
        } else {
            Source::Bytes(bytes[..run.len].into())
        };
        Ok(self.cache.insert(Block::new(gpa, second, kind, source, run), &mut self.cpu.jumps))
    }

    /// Marks code *before* its bytes are read, and gives up this processor's
    /// own unnoticed writes to the page.
    fn mark(&mut self, gpa: u64, len: u64) {
        let (page, code) = (gpa >> 12, self.cpu.ram.code().clone());
        let epoch = match code.mark(page, mem::CodeMap::granules(gpa, len)) {
            Some(epoch) => {
                self.cpu.tlb.slow_writes(|gpa| gpa >> 12 == page);
                epoch
            }
            None => code.epoch(),
        };
        self.cache.set_unconfirmed(page, epoch);
    }

    /// True if bytes of code kept here contain `needle`.
    #[cfg(test)]
    pub(crate) fn keeps_bytes(&self, needle: &[u8]) -> bool {
        let contains = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        contains(&self.scratch) || self.cache.sources().any(contains)
    }

    /// Forgets all decoded code: for reset and for tests.
    pub fn forget_code(&mut self) {
        self.cpu.jumps.clear();
        self.cache = Cache::default();
    }
}

/// Brings RIP and the count of instructions up to date where a block was left.
#[cold]
#[inline(never)]
fn left(cpu: &mut Cpu, block: &Block) -> Result<(), Exception> {
    cpu.stop = false;
    let Left { off, ran } = cpu.left;
    let ops = block.ops.ops();
    let Some(at) = ops.iter().position(|op| op.off == off) else { return Ok(()) };
    cpu.retired += at as u64;
    match ran {
        Ok(flow) => {
            cpu.retired += 1;
            if flow == Flow::Next {
                cpu.s.rip = cpu.next_rip(&ops[at]);
            }
            Ok(())
        }
        Err(exception) => {
            cpu.s.rip = cpu.this_rip(&ops[at]);
            Err(exception)
        }
    }
}

impl Cpu {
    /// Linear address of the next instruction.
    #[inline(always)]
    fn fetch_address(&self) -> Result<u64, Exception> {
        if self.s.long64() {
            return Ok(self.s.rip);
        }
        let cs = &self.s.seg[1];
        if self.s.rip > u64::from(cs.limit) {
            return Err(Exception::GP0);
        }
        Ok(self.s.rip.wrapping_add(cs.base) & 0xffff_ffff)
    }

    /// Code bytes: of an EPC page, which the fetch was allowed to reach, its
    /// plaintext; where no RAM is, what the bus reads.
    ///
    /// # Errors
    /// The EPC is lost.
    fn fetch_bytes(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), mee::Lost> {
        if self.ram.read(gpa, bytes) {
            return Ok(());
        }
        bytes.fill(0xff);
        if let (Some(page), Some(sgx)) = (self.epc_page(gpa), &self.sgx) {
            sgx.package.dram.read(page.0, (gpa & 0xfff) as usize, bytes).inspect_err(|_| {
                sgx.package.lose();
                self.shared.request(request::EPC);
            })?;
        } else if gpa < crate::epc::ABORT_PAGE {
            for (i, byte) in bytes.iter_mut().enumerate() {
                self.bus.mmio_read(self.id, gpa + i as u64, std::slice::from_mut(byte));
            }
        }
        Ok(())
    }

    /// What a fetch at `la` from an EPC that is lost leads to.
    fn lost_fetch(&mut self, la: u64) -> Exception {
        let rights = self.rights();
        self.sgx_page_fault(la, Access::Fetch, rights)
    }

    /// True if an event that is not masked waits for the next boundary.
    pub(crate) fn event_pending(&self) -> bool {
        let events = request::INTERRUPT | request::EXT_INT | request::NMI | request::INIT;
        self.attention() & events != 0
    }
}

//! The part of a processor that other threads may touch: requests for its
//! attention, its inbox of code-map news, and the machine's bus.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use mem::CodeListener;

use crate::apic::{self, Apic, Config, Delivery, Destination, Ratio, Signal};

/// Reasons to leave the block loop; bits of [`Shared::pending`].
pub mod request {
    /// The local APIC may have an interrupt to deliver.
    pub const INTERRUPT: u32 = 1 << 0;
    /// A non-maskable interrupt.
    pub const NMI: u32 = 1 << 1;
    /// INIT.
    pub const INIT: u32 = 1 << 2;
    /// Start-up interrupt; its vector is in [`super::Shared::sipi_vector`].
    pub const SIPI: u32 = 1 << 3;
    /// Code was written or appeared: see to the inbox.
    pub const CODE: u32 = 1 << 4;
    /// The machine stops, and wants the processor back.
    pub const EXIT: u32 = 1 << 5;
    /// An interrupt from the external controller (ExtINT).
    pub const EXT_INT: u32 = 1 << 6;
    /// Another processor holds the bus: wait at this boundary until it lets go.
    pub const BUS: u32 = 1 << 7;
    /// Plaintext slots of the EPC are to be given back, or its content is lost.
    pub const EPC: u32 = 1 << 8;
    /// The memory of the EPC did not verify: a machine check.
    pub const MACHINE_CHECK: u32 = 1 << 9;
    /// The machine wants the processor back for a while, at this boundary.
    pub const HOLD: u32 = 1 << 10;
}

/// The shared part of one processor.
#[derive(Debug)]
pub struct Shared {
    /// Bits of [`request`].
    pub pending: AtomicU32,
    /// Vector of the start-up interrupt: the processor starts at `vector << 12`.
    pub sipi_vector: AtomicU32,
    /// Granules written, by page.
    written: Mutex<Vec<(u64, u32)>>,
    /// True while the processor waits and so executes nothing.
    idle: AtomicBool,
    /// True while the processor waits for the bus, between or before instructions.
    parked: AtomicBool,
    /// Code-map epoch up to which announcements have been dealt with.
    seen: AtomicU64,
    /// Eviction epoch of the EPC up to which this processor has answered.
    pub(crate) epc_seen: AtomicU64,
    /// Instructions retired, published now and then.
    pub retired: AtomicU64,
    /// The local APIC. Whoever changes it calls [`Shared::refresh`] before
    /// letting go; nobody holds two at a time.
    pub apic: Mutex<Apic>,
    wake: (Mutex<()>, Condvar),
    bus: Arc<Mutex<()>>,
    /// Who owns them keeps them: they do not keep each other.
    peers: OnceLock<Box<[Weak<Shared>]>>,
}

impl Shared {
    /// The shared part of a processor on a machine whose processors share `bus`.
    pub fn new(bus: Arc<Mutex<()>>) -> Self {
        Self {
            pending: AtomicU32::new(0),
            sipi_vector: AtomicU32::new(0),
            written: Mutex::default(),
            idle: AtomicBool::new(true),
            parked: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            epc_seen: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            // The processor that is made for this replaces it by its own.
            apic: Mutex::new(Apic::new(Config {
                id: 0,
                bsp: true,
                x2apic: true,
                tsc_deadline: true,
                eoi_suppression: false,
                maxphyaddr: 39,
                timer: Ratio { tsc: 1, bus: 1 },
            })),
            wake: Default::default(),
            bus,
            peers: OnceLock::new(),
        }
    }

    /// Names all processors of the machine, this one included, by number; once.
    pub fn set_peers(&self, peers: &[Arc<Shared>]) {
        let _ = self.peers.set(peers.iter().map(Arc::downgrade).collect());
    }

    fn weak_peers(&self) -> &[Weak<Shared>] {
        self.peers.get().map_or(&[], |peers| peers)
    }

    /// Number of processors of the machine.
    pub fn peer_count(&self) -> usize {
        self.weak_peers().len()
    }

    /// All processors of the machine, in order, but those that are gone already.
    pub fn peers(&self) -> impl Iterator<Item = Arc<Shared>> {
        self.weak_peers().iter().filter_map(Weak::upgrade)
    }

    /// Asks for attention, waking the processor if it waits.
    pub fn request(&self, bits: u32) {
        if self.pending.fetch_or(bits, Ordering::SeqCst) & bits != bits {
            let _guard = lock(&self.wake.0);
            self.wake.1.notify_all();
        }
    }

    /// Makes the requests [`request::INTERRUPT`] and [`request::EXT_INT`] say
    /// what the APIC, locked by the caller, has to deliver.
    pub fn refresh(&self, apic: &Apic) {
        for (bit, on) in [(request::INTERRUPT, apic.pending().is_some()), (request::EXT_INT, apic.extint())] {
            if on {
                self.request(bit);
            } else if self.pending.load(Ordering::SeqCst) & bit != 0 {
                self.pending.fetch_and(!bit, Ordering::SeqCst);
            }
        }
    }

    /// Drives the processor's INTR pin, LINT0 of its APIC: the output of the
    /// external interrupt controller.
    pub fn set_intr(&self, asserted: bool) {
        self.set_lint(0, asserted);
    }

    /// Drives the processor's NMI pin, LINT1 of its APIC.
    pub fn set_nmi(&self, asserted: bool) {
        self.set_lint(1, asserted);
    }

    fn set_lint(&self, pin: usize, asserted: bool) {
        let mut apic = lock(&self.apic);
        let signal = apic.set_lint(pin, asserted);
        self.refresh(&apic);
        drop(apic);
        self.signal(signal);
    }

    /// Passes on what a message asks of the processor core.
    fn signal(&self, signal: Option<Signal>) {
        match signal {
            Some(Signal::Nmi) => self.request(request::NMI),
            Some(Signal::Init) => self.request(request::INIT),
            Some(Signal::StartUp(vector)) => {
                self.sipi_vector.store(u32::from(vector), Ordering::SeqCst);
                self.request(request::SIPI);
            }
            // There is no system management mode; an ExtINT message has no
            // vector of its own, and the pin says the rest.
            Some(Signal::Smi | Signal::ExtInt) | None => {}
        }
    }

    /// Waits until some request in `mask` is pending, or for `timeout`.
    pub fn wait(&self, mask: u32, timeout: Option<Duration>) {
        self.idle.store(true, Ordering::SeqCst);
        let guard = lock(&self.wake.0);
        let idle = |_: &mut ()| self.pending.load(Ordering::SeqCst) & mask == 0;
        match timeout {
            Some(timeout) => drop(self.wake.1.wait_timeout_while(guard, timeout, idle)),
            None => drop(self.wake.1.wait_while(guard, idle)),
        }
        self.set_idle(false);
    }

    /// Says whether the processor executes; while it does not, it need not
    /// answer announcements.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
        // Either this processor sees a request that came before, or whoever
        // made it sees that this processor executes.
        fence(Ordering::SeqCst);
    }

    /// True once announcements up to `epoch` cannot be missed any more.
    pub(crate) fn has_seen(&self, epoch: u64) -> bool {
        self.seen.load(Ordering::SeqCst) >= epoch || self.idle.load(Ordering::SeqCst)
    }

    pub(crate) fn set_seen(&self, epoch: u64) {
        self.seen.fetch_max(epoch, Ordering::SeqCst);
    }

    /// True if the processor holds no EPC translation that left at `epoch`: see
    /// [`crate::epc`].
    pub(crate) fn epc_quiet(&self, epoch: u64) -> bool {
        // The epoch was raised before; see `set_idle`.
        fence(Ordering::SeqCst);
        self.epc_seen.load(Ordering::SeqCst) >= epoch || self.idle.load(Ordering::SeqCst)
    }

    pub(crate) fn take_written(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *lock(&self.written))
    }

    /// Locks the bus: until the guard is dropped no other processor executes
    /// anything. For locked accesses that no single host instruction performs.
    ///
    /// To be called before the instruction has looked at memory: while this
    /// processor waits for its turn, others have theirs.
    pub(crate) fn lock_bus(&self) -> MutexGuard<'_, ()> {
        let bus = self.take_bus();
        let others: Vec<_> = self.others().collect();
        for peer in &others {
            peer.request(request::BUS);
        }
        for peer in &others {
            let still = || peer.idle.load(Ordering::SeqCst) || peer.parked.load(Ordering::SeqCst);
            // A machine that is being stopped may have lost a processor's thread.
            while !still() && self.pending.load(Ordering::SeqCst) & request::EXIT == 0 {
                std::thread::yield_now();
            }
        }
        bus
    }

    /// Waits at an instruction boundary until nobody holds the bus.
    pub(crate) fn await_bus(&self) {
        drop(self.take_bus());
    }

    /// Waits for the bus; others may meanwhile take this processor as stopped.
    fn take_bus(&self) -> MutexGuard<'_, ()> {
        self.parked.store(true, Ordering::SeqCst);
        let bus = lock(&self.bus);
        // With the bus held: who takes it next finds this processor running.
        self.parked.store(false, Ordering::SeqCst);
        bus
    }

    /// All processors but this one.
    pub(crate) fn others(&self) -> impl Iterator<Item = Arc<Shared>> {
        self.peers().filter(|peer| !std::ptr::eq(Arc::as_ptr(peer), self))
    }
}

impl CodeListener for Shared {
    fn code_written(&self, page: u64, granules: u32) {
        lock(&self.written).push((page, granules));
        self.request(request::CODE);
    }
    fn code_appeared(&self, _page: u64) {
        self.request(request::CODE);
    }
}

/// The shared parts of a machine's `count` processors, known to each other.
pub fn processors(count: usize) -> Arc<[Arc<Shared>]> {
    let bus = Arc::new(Mutex::new(()));
    let all: Arc<[Arc<Shared>]> = (0..count).map(|_| Arc::new(Shared::new(bus.clone()))).collect();
    all.iter().for_each(|one| one.set_peers(&all));
    all
}

/// Delivers a message to every processor it is for; false if it was for none.
/// From any thread that holds no APIC.
pub fn send(
    peers: &[Arc<Shared>],
    source: u32,
    dest: Destination,
    mode: Delivery,
    vector: u8,
    level: bool,
) -> bool {
    let give = |peer: &Shared| {
        let mut apic = lock(&peer.apic);
        let signal = apic.deliver(mode, vector, level);
        peer.refresh(&apic);
        drop(apic);
        peer.signal(signal);
    };
    if mode == Delivery::LowestPriority {
        let candidates = peers.iter().enumerate().filter_map(|(i, peer)| {
            let apic = lock(&peer.apic);
            (apic.receives(source, dest) && apic.accepts_fixed()).then(|| (i, apic.ppr()))
        });
        let chosen = apic::lowest_priority(candidates.collect::<Vec<_>>());
        if let Some(peer) = chosen.and_then(|i| peers.get(i)) {
            give(peer);
        }
        return chosen.is_some();
    }
    let mut found = false;
    for peer in peers {
        if lock(&peer.apic).receives(source, dest) {
            found = true;
            give(peer);
        }
    }
    found
}

/// Delivers an MSI's or an I/O APIC's message: `dest` and `logical` as in
/// *SDM vol. 3A §10.11.1*, `mode` the three bits of the delivery mode
/// (*§10.11.2*), `level` if level-triggered. False if it was for no processor
/// or the mode is reserved. From any thread that holds no APIC.
pub fn deliver(peers: &[Arc<Shared>], dest: u8, logical: bool, mode: u8, vector: u8, level: bool) -> bool {
    let Some(mode) = Delivery::from_bits(u32::from(mode)) else { return false };
    // No APIC has this number: a device is never the sender that is left out.
    send(peers, u32::MAX, Destination::from_8bit(dest, logical), mode, vector, level)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these plain values usable.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Engine, Model, bus::NoBus};
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    #[test]
    fn nothing_keeps_the_processors_of_a_machine_that_is_gone() {
        let all = processors(3);
        assert_eq!((all[1].peer_count(), all[1].peers().count(), all[1].others().count()), (3, 3, 2));
        let one = Arc::downgrade(&all[0]);
        let last = all[2].clone();
        drop(all);
        assert!(one.upgrade().is_none());
        assert_eq!((last.peer_count(), last.peers().count(), last.others().count()), (3, 1, 0));
    }

    #[test]
    fn while_one_processor_holds_the_bus_no_other_executes() {
        let ram = mem::Ram::new(&[(0, 0x1_0000)]).unwrap();
        // Real mode: `inc word [0x2000 + 2 * id]; jmp` back.
        let shared = processors(3);
        let running = AtomicUsize::new(2);
        let count = |id: u64| {
            let mut word = [0; 2];
            assert!(ram.read(0x2000 + 2 * id, &mut word));
            u16::from_le_bytes(word)
        };
        let (mut alive, mut stopped) = (true, true);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for id in 1..3u8 {
                let at = 0x1000 * u64::from(id) + 0x2000;
                ram.write(at, &[0xff, 0x06, 2 * id, 0x20, 0xeb, 0xfa]);
                let model = Arc::new(Model::xeon_8370c());
                let bus = Arc::new(NoBus::default());
                let mut cpu =
                    Cpu::new(usize::from(id), model, ram.clone(), bus, shared[usize::from(id)].clone());
                cpu.s.seg[1].base = 0;
                cpu.s.rip = at;
                cpu.activity = crate::Activity::Active;
                let (stop, running) = (&stop, &running);
                scope.spawn(move || {
                    let mut engine = Engine::new(cpu);
                    while !stop.load(Ordering::SeqCst) {
                        engine.run(10_000);
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
            // Nothing asserted here: the others must be stopped in any case.
            let begin = Instant::now();
            let moves = |id| {
                let before = count(id);
                while count(id) == before && begin.elapsed() < Duration::from_secs(60) {
                    std::thread::yield_now();
                }
                count(id) != before
            };
            for _ in 0..20 {
                alive &= moves(1) && moves(2);
                let bus = shared[0].lock_bus();
                let before = (count(1), count(2));
                std::thread::sleep(Duration::from_millis(2));
                stopped &= (count(1), count(2)) == before;
                drop(bus);
            }
            stop.store(true, Ordering::SeqCst);
        });
        assert!(alive, "a processor did not go on");
        assert!(stopped, "a processor executed while the bus was held");
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }
}

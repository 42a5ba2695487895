//! The gate that processors pass between slices: closed, it holds them at an
//! instruction boundary, and with them device timers and guest time.
//!
//! * Each processor's thread comes by ([`Gate::pass`]) and stays while the gate
//!   is closed; meanwhile it does what the owner has for it ([`Paused::with_cpu`]),
//!   because a processor's registers, which may be an enclave's, never leave its
//!   thread's own memory.
//! * Threads of the host that act on devices do so inside [`Gate::work`], which
//!   waits while the gate is closed, or [`Gate::work_now`], which does not. So
//!   nothing but the owner changes a machine that is paused: not its RAM, not
//!   its devices.
//! * Guest time stands still from the last thread's arrival to the first one's
//!   departure. The RTC, which shows true time, is set anew then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cpu::Engine;
use cpu::debug::Stop;
use cpu::shared::request;

use crate::board::lock;
use crate::clock::GuestClock;

/// How long processors may take to come to a boundary. Only one that waits for
/// the host, such as for a reader of its console, takes more than moments.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a machine cannot be paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    /// There is nothing left to pause.
    #[error("the machine has ended")]
    Over,
    /// A processor's thread waits for something outside.
    #[error("processor {0} waits for the host, such as for a reader of its console: read it, then try again")]
    Busy(usize),
}

type Job = Box<dyn FnOnce(&mut Engine) + Send>;
type Tell = Box<dyn Fn() + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Parked,
    Gone,
}

struct Seat {
    place: Place,
    /// This processor is to stay whatever the others do.
    held: bool,
    job: Option<Job>,
}

struct State {
    pauses: usize,
    /// Host threads that act on devices.
    working: usize,
    /// Calls the debugger, if there is one.
    debugger: Option<Tell>,
    /// Processors that stopped for the debugger: all are held until it has come.
    stops: Vec<(usize, Stop)>,
    seats: Vec<Seat>,
    over: bool,
}

impl State {
    fn holds(&self, id: usize) -> bool {
        !self.over && (self.pauses > 0 || !self.stops.is_empty() || self.seats[id].held)
    }

    /// True if anybody is to stay.
    fn closed(&self) -> bool {
        self.pauses > 0 || !self.stops.is_empty() || self.seats.iter().any(|seat| seat.held)
    }

    /// A processor that still runs.
    fn outside(&self) -> Option<usize> {
        self.seats.iter().position(|seat| seat.place == Place::Outside)
    }
}

/// The gate of a machine.
pub(crate) struct Gate {
    /// A hint for passers-by: somebody is to stay.
    closed: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    clock: Arc<GuestClock>,
    cpus: Arc<[Arc<cpu::Shared>]>,
    on_open: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Gate {
    /// A gate that is closed, before anybody has passed it, and what keeps it so.
    pub(crate) fn new(clock: Arc<GuestClock>, cpus: Arc<[Arc<cpu::Shared>]>) -> (Arc<Self>, Paused) {
        clock.set_stopped(0);
        let seat = |_| Seat { place: Place::Outside, held: false, job: None };
        let seats = (0..cpus.len()).map(seat).collect();
        let state = State { pauses: 1, working: 0, debugger: None, stops: Vec::new(), seats, over: false };
        let gate = Arc::new(Self {
            closed: AtomicBool::new(true),
            state: Mutex::new(state),
            changed: Condvar::new(),
            clock,
            cpus,
            on_open: OnceLock::new(),
        });
        (gate.clone(), Paused { gate })
    }

    /// `f` is called whenever the machine goes on, with time running again.
    pub(crate) fn on_open(&self, f: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_open.set(Box::new(f));
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A processor's thread comes by between slices, and stays while it is held.
    pub(crate) fn pass(&self, id: usize, engine: &mut Engine) {
        if !self.closed.load(Ordering::SeqCst) {
            return;
        }
        let mut state = lock(&self.state);
        while state.holds(id) {
            if state.seats[id].place == Place::Outside {
                state.seats[id].place = Place::Parked;
                self.changed.notify_all();
            }
            if let Some(job) = state.seats[id].job.take() {
                self.changed.notify_all();
                drop(state);
                job(engine);
                state = lock(&self.state);
            } else {
                state = self.wait(state);
            }
        }
        state.seats[id].place = Place::Outside;
    }

    /// A processor's thread ends, in whatever way.
    pub(crate) fn gone(&self, id: usize) {
        let mut state = lock(&self.state);
        state.seats[id].place = Place::Gone;
        // whoever waits for its result is told that there is none
        state.seats[id].job = None;
        self.changed.notify_all();
    }

    /// The machine ends: nobody is held any more.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.over = true;
        state.seats.iter_mut().for_each(|seat| seat.job = None);
        self.changed.notify_all();
    }

    /// Acts on devices from a thread of the host: at once, or when the machine
    /// goes on; `None` if it has ended.
    pub(crate) fn work<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let mut state = lock(&self.state);
        while state.pauses > 0 && !state.over {
            state = self.wait(state);
        }
        self.do_work(state, work)
    }

    /// The same for threads that cannot wait: `None` too while the machine is
    /// paused. What is to happen all the same, [`Gate::on_open`] makes up for.
    pub(crate) fn work_now<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let state = lock(&self.state);
        if state.pauses > 0 {
            return None;
        }
        self.do_work(state, work)
    }

    fn do_work<R>(&self, mut state: MutexGuard<'_, State>, work: impl FnOnce() -> R) -> Option<R> {
        if state.over {
            return None;
        }
        state.working += 1;
        drop(state);
        let result = work();
        let mut state = lock(&self.state);
        state.working -= 1;
        if state.pauses > 0 {
            self.changed.notify_all();
        }
        Some(result)
    }

    /// Closes the gate and waits until everybody has come to rest.
    pub(crate) fn close(self: &Arc<Self>) -> Result<Paused, PauseError> {
        let mut state = lock(&self.state);
        state.pauses += 1;
        // from here on dropping it opens the gate again
        let paused = Paused { gate: self.clone() };
        self.closed.store(true, Ordering::SeqCst);
        self.cpus.iter().for_each(|cpu| cpu.request(request::HOLD));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outside = state.outside();
            let verdict = match outside {
                _ if state.over || state.seats.iter().any(|seat| seat.place == Place::Gone) => {
                    Err(PauseError::Over)
                }
                None if state.working == 0 => Ok(()),
                _ => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if !left.is_zero() {
                        let waited = self.changed.wait_timeout(state, left);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                        continue;
                    }
                    Err(PauseError::Busy(outside.unwrap_or(0)))
                }
            };
            if verdict.is_ok() {
                self.clock.stop();
            }
            drop(state);
            return verdict.map(|()| paused);
        }
    }

    /// Processor `id` stops for the debugger, and so do all others; false if
    /// there is none.
    pub(crate) fn stopped(&self, id: usize, stop: Stop) -> bool {
        let mut state = lock(&self.state);
        let Some(tell) = &state.debugger else { return false };
        tell();
        state.stops.push((id, stop));
        self.closed.store(true, Ordering::SeqCst);
        self.cpus.iter().for_each(|cpu| cpu.request(request::HOLD));
        true
    }

    /// A debugger comes; `tell` is called when a processor has stopped for it.
    pub(crate) fn attach(&self, tell: impl Fn() + Send + 'static) {
        lock(&self.state).debugger = Some(Box::new(tell));
    }

    /// The debugger goes.
    pub(crate) fn detach(&self) {
        let mut state = lock(&self.state);
        state.debugger = None;
        state.stops.clear();
        state.seats.iter_mut().for_each(|seat| seat.held = false);
        self.closed.store(state.closed(), Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// The processors that stopped for the debugger, which has the machine paused:
    /// they are not held for it any more.
    pub(crate) fn take_stops(&self) -> Vec<(usize, Stop)> {
        std::mem::take(&mut lock(&self.state).stops)
    }

    /// True if a processor has stopped for the debugger.
    pub(crate) fn has_stops(&self) -> bool {
        !lock(&self.state).stops.is_empty()
    }

    /// The processors that stay when the machine goes on.
    pub(crate) fn hold(&self, held: impl Fn(usize) -> bool) {
        for (id, seat) in lock(&self.state).seats.iter_mut().enumerate() {
            seat.held = held(id);
        }
    }

    fn open(&self) {
        let mut state = lock(&self.state);
        state.pauses -= 1;
        if state.pauses > 0 {
            return;
        }
        self.closed.store(state.closed(), Ordering::SeqCst);
        self.clock.go_on();
        self.changed.notify_all();
        drop(state);
        if let Some(f) = self.on_open.get() {
            f();
        }
    }
}

/// A machine that is paused: its processors stand at instruction boundaries,
/// its timers and guest time stand still. Dropping it lets the machine go on,
/// unless it was paused more than once.
pub struct Paused {
    gate: Arc<Gate>,
}

impl Paused {
    /// Runs `f` with processor `id`, in that processor's own thread; `None` if
    /// there is no such processor, or the machine ends. What `f` returns goes
    /// to ordinary memory: it must not hold registers of an enclave.
    pub fn with_cpu<R, F>(&self, id: usize, f: F) -> Option<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut Engine) -> R + Send + 'static,
    {
        let (give, take) = mpsc::sync_channel(1);
        let mut state = lock(&self.gate.state);
        loop {
            let over = state.over;
            let seat = state.seats.get_mut(id)?;
            if over || seat.place == Place::Gone {
                return None;
            }
            if seat.job.is_none() {
                seat.job = Some(Box::new(move |engine| drop(give.send(f(engine)))));
                break;
            }
            state = self.gate.wait(state);
        }
        self.gate.changed.notify_all();
        drop(state);
        take.recv().ok()
    }

    /// Number of processors.
    pub fn cpus(&self) -> usize {
        self.gate.cpus.len()
    }

    /// Guest time, in nanoseconds since the machine started.
    pub fn guest_ns(&self) -> u64 {
        devices::Clock::now_ns(&*self.gate.clock)
    }

    /// Sets guest time: it goes on from there.
    pub fn set_guest_ns(&self, ns: u64) {
        self.gate.clock.set_stopped(ns);
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.gate.open();
    }
}

//! The thread of a processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpu::debug::Stop;
use cpu::{Engine, Exit};

use crate::clock::GuestClock;
use crate::gate::Gate;
use crate::running::{End, Shared};

/// Instructions between looks at the timer.
const SLICE: u64 = 20_000;

/// Runs a processor until the machine stops.
pub(crate) fn run(
    engine: &mut Engine,
    machine: &Shared,
    gate: &Gate,
    clock: &Arc<GuestClock>,
    stop: &AtomicBool,
) {
    let id = engine.cpu.id;
    let mut told = false;
    loop {
        gate.pass(id, engine);
        if stop.load(Ordering::SeqCst) || !machine.is_on() {
            break;
        }
        let exit = engine.run(SLICE);
        if machine.strict && !engine.cpu.unimplemented.is_empty() {
            machine.end(End::Unimplemented(crate::report::unimplemented(&engine.cpu)));
            break;
        }
        match exit {
            Exit::Budget => {}
            Exit::Requested => {
                if let Some(stop) = engine.cpu.take_stop() {
                    gate.stopped(id, stop);
                }
                continue;
            }
            Exit::Shutdown => {
                // a debugger may look at it, once
                if !std::mem::replace(&mut told, true) && gate.stopped(id, Stop::Shutdown) {
                    continue;
                }
                machine.end(End::TripleFault(crate::report::state(&engine.cpu)));
                break;
            }
            Exit::Idle => {
                let timeout =
                    engine.cpu.timer_deadline().map(|tsc| Duration::from_nanos(clock.until_tsc(tsc)));
                if timeout != Some(Duration::ZERO) {
                    let shared = engine.cpu.shared.clone();
                    shared.wait(engine.cpu.wake_mask(), timeout);
                }
            }
        }
        engine.cpu.poll_timer();
    }
    machine.note_unimplemented(&engine.cpu);
}

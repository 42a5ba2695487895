//! One debugger's session, from its connection to its end.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStubBuilder, MultiThreadStopReason};

use super::LOOK;
use super::target::Debugged;
use crate::gate::Paused;
use crate::running::{Outcome, Running};

/// Bytes read from the debugger at once.
const PIECE: usize = 4096;
/// Events that may wait. A debugger that sends more than is looked at waits.
const WAITING: usize = 64;
/// How long a debugger may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a session waits for.
enum Event {
    Bytes(Vec<u8>),
    /// A processor may have stopped for the debugger.
    Look,
    /// The debugger is gone.
    Gone,
}

/// What comes next.
enum Next {
    Byte(u8),
    Look,
    Gone,
    /// The machine ended.
    Over(Outcome),
}

/// Serves one debugger to its end. With `paused` the machine stands already; `long` as
/// of [`Debugged::new`].
pub(super) fn run(stream: TcpStream, running: &Arc<Running>, paused: Option<Paused>, long: bool) {
    let Some(paused) = paused.or_else(|| running.pause().ok()) else { return };
    let (events_in, events) = mpsc::sync_channel(WAITING);
    let look = events_in.clone();
    // if it is full, the session is awake and looks anyway
    running.gate().attach(move || drop(look.try_send(Event::Look)));
    let mut target = Debugged::new(running.clone(), paused, long);
    let read = stream.try_clone().and_then(|reading| {
        stream.set_write_timeout(Some(PATIENCE))?;
        std::thread::Builder::new().name("gdb-read".into()).spawn(move || read(reading, &events_in))
    });
    if read.is_ok() {
        let closing = stream.try_clone();
        let mut events = Events { events, bytes: VecDeque::new() };
        if let Some(DisconnectReason::Kill) = converse(stream, &mut target, &mut events) {
            running.stop();
        }
        let _ = closing.and_then(|stream| stream.shutdown(Shutdown::Both));
    }
    target.leave();
}

fn read(mut stream: TcpStream, events: &SyncSender<Event>) {
    let mut piece = [0; PIECE];
    loop {
        let event = match stream.read(&mut piece) {
            Ok(n @ 1..) => Event::Bytes(piece[..n].to_vec()),
            Ok(0) | Err(_) => Event::Gone,
        };
        let last = matches!(event, Event::Gone);
        if events.send(event).is_err() || last {
            return;
        }
    }
}

struct Events {
    events: Receiver<Event>,
    bytes: VecDeque<u8>,
}

impl Events {
    fn next(&mut self, running: &Running) -> Next {
        loop {
            if let Some(byte) = self.bytes.pop_front() {
                return Next::Byte(byte);
            }
            match self.events.recv_timeout(LOOK) {
                Ok(Event::Bytes(bytes)) => self.bytes.extend(bytes),
                Ok(Event::Look) => return Next::Look,
                Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => return Next::Gone,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(outcome) = running.wait(Some(Duration::ZERO)) {
                        return Next::Over(outcome);
                    }
                }
            }
        }
    }
}

/// How gdb is told of the machine's end: as of a program's.
fn farewell(outcome: &Outcome) -> MultiThreadStopReason<u64> {
    match outcome {
        Outcome::PowerOff => MultiThreadStopReason::Exited(0),
        Outcome::Reset => MultiThreadStopReason::Exited(1),
        Outcome::DebugExit(status) => MultiThreadStopReason::Exited(((status << 1) | 1) as u8),
        Outcome::Stopped => MultiThreadStopReason::Terminated(Signal::SIGKILL),
        Outcome::TripleFault(_) => MultiThreadStopReason::Terminated(Signal::SIGSEGV),
        _ => MultiThreadStopReason::Terminated(Signal::SIGABRT),
    }
}

/// The conversation, until one of the two has had enough; `None` if the debugger
/// went without a word, or talked nonsense.
fn converse(stream: TcpStream, target: &mut Debugged, events: &mut Events) -> Option<DisconnectReason> {
    let running = target.running().clone();
    let mut gdb = GdbStubBuilder::new(stream).build().ok()?.run_state_machine(target).ok()?;
    loop {
        gdb = match gdb {
            GdbStubStateMachine::Idle(idle) => match events.next(&running) {
                Next::Byte(byte) => idle.incoming_data(target, byte).ok()?,
                Next::Look => GdbStubStateMachine::Idle(idle),
                Next::Gone | Next::Over(_) => return None,
            },
            GdbStubStateMachine::Running(run) if target.has_news() => {
                let reason = match target.stop() {
                    Ok(()) => target.news(),
                    Err(_) => Some(farewell(&running.wait(Some(Duration::ZERO))?)),
                };
                match reason {
                    Some(reason) => run.report_stop(target, reason).ok()?,
                    None => GdbStubStateMachine::Running(run),
                }
            }
            GdbStubStateMachine::Running(run) => match events.next(&running) {
                Next::Byte(byte) => run.incoming_data(target, byte).ok()?,
                Next::Look => GdbStubStateMachine::Running(run),
                Next::Gone => return None,
                Next::Over(outcome) => run.report_stop(target, farewell(&outcome)).ok()?,
            },
            GdbStubStateMachine::CtrlCInterrupt(interrupt) => {
                let reason = match target.stop() {
                    Ok(()) => target.news().unwrap_or(MultiThreadStopReason::Signal(Signal::SIGINT)),
                    Err(_) => farewell(&running.wait(Some(Duration::ZERO))?),
                };
                interrupt.interrupt_handled(target, Some(reason)).ok()?
            }
            GdbStubStateMachine::Disconnected(end) => return Some(end.get_reason()),
        };
    }
}

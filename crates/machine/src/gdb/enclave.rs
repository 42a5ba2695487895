//! When a debugger comes to an enclave: once EINIT has accepted it. Its address is known
//! then, nothing of it has run, and its threads can still be opted in.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use cpu::Engine;
use cpu::debug::Stop;
use sgx::EpcPage;
use sgx_abi::{AttributeFlags, Secs};

use super::LOOK;
use crate::gate::Paused;
use crate::running::Running;

/// An enclave that EINIT has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// MRENCLAVE.
    pub mrenclave: [u8; 32],
    /// First linear address.
    pub base: u64,
    /// Whether it is a debug enclave. Only then its threads were opted in to debugging.
    pub debug: bool,
}

/// Lets a machine that stands run until EINIT accepts an enclave that is `wanted`. The
/// machine stands again then, and the enclave's threads are opted in to debugging, as
/// debuggers do by EDBGWR. `None` if the machine ends before that.
pub fn await_enclave(
    running: &Arc<Running>,
    mut paused: Paused,
    wanted: impl Fn(&Initialized) -> bool,
) -> Option<(Paused, Initialized)> {
    let (tell, told) = mpsc::sync_channel(1);
    // if it is full, somebody looks anyway
    running.gate().attach(move || {
        let _ = tell.try_send(());
    });
    let stop_at_einit = |paused: &Paused, stop: bool| {
        let each = |id| paused.with_cpu(id, move |engine: &mut Engine| engine.cpu.set_stop_at_einit(stop));
        (0..paused.cpus()).try_for_each(each)
    };
    stop_at_einit(&paused, true)?;
    loop {
        drop(paused);
        while let Err(timeout) = told.recv_timeout(LOOK) {
            if timeout == RecvTimeoutError::Disconnected || running.wait(Some(Duration::ZERO)).is_some() {
                return None;
            }
        }
        paused = running.pause().ok()?;
        let stops = running.gate().take_stops();
        let found = stops.into_iter().find_map(|(_, stop)| match stop {
            Stop::Initialized(secs) => identity(running, secs).filter(&wanted).map(|found| (secs, found)),
            _ => None,
        });
        if let Some((secs, found)) = found {
            running.sgx().debug_opt_in(secs);
            stop_at_einit(&paused, false)?;
            running.gate().detach();
            return Some((paused, found));
        }
    }
}

fn identity(running: &Running, secs: EpcPage) -> Option<Initialized> {
    let Secs { mrenclave, baseaddr: base, attributes, .. } = running.sgx().read(secs, 0).ok()?;
    Some(Initialized { mrenclave, base, debug: attributes.flags.contains(AttributeFlags::DEBUG) })
}

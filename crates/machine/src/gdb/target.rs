//! What gdb can ask of a machine.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use cpu::Engine;
use cpu::debug::{Stop, Watched, Watchpoint};
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use mem::DmaBus;

use super::layout::Layout;
use super::{memory, monitor, regs};
use crate::gate::Paused;
use crate::running::Running;

/// Most breakpoints of each kind.
const MOST_BREAKPOINTS: usize = 1024;
/// Most watchpoints, and bytes of one.
const MOST_WATCHPOINTS: usize = 64;
const MOST_WATCHED: u64 = 1 << 20;
/// EFAULT, as gdb knows it.
const FAULT: u8 = 14;

/// The values of all registers, in the order of a layout.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Values {
    bytes: Vec<u8>,
    layout: Layout,
}

impl Registers for Values {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        let place = self.layout.place(self.layout.ip());
        let ip = place.and_then(|place| self.bytes.get(place)).unwrap_or_default();
        ip.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }
    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|&byte| write_byte(Some(byte)));
    }
    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

/// A register by gdb's number.
#[derive(Debug)]
pub(super) struct Number(usize);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        // how wide it is depends on the session's layout
        Some((Self(id), None))
    }
}

/// x86 with the registers of a [`Layout`]: 64 bits of address for either.
#[derive(Debug)]
pub(super) enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = Values;
    type BreakpointKind = usize;
    type RegId = Number;
}

/// What ends a session from this side.
#[derive(Debug)]
pub(super) enum Fatal {
    /// The machine has ended, or cannot be paused.
    Over,
}

/// A machine under a debugger.
pub(super) struct Debugged {
    running: Arc<Running>,
    /// What gdb was told of.
    layout: Layout,
    /// While gdb sees it as stopped.
    paused: Option<Paused>,
    software: BTreeSet<u64>,
    hardware: BTreeSet<u64>,
    watchpoints: Vec<Watchpoint>,
    /// Processors do not know of the latest break- and watchpoints.
    stale: bool,
    steps: BTreeSet<usize>,
    continues: BTreeSet<usize>,
    /// Only those named go on.
    others_stay: bool,
    /// Stops that gdb has not been told of.
    untold: Vec<(usize, Stop)>,
}

fn tid(cpu: usize) -> Tid {
    Tid::MIN.saturating_add(cpu)
}

impl Debugged {
    /// A machine that stands. Its boot processor's mode decides how gdb is told to see
    /// it, unless it is to be `long` at any rate.
    pub(super) fn new(running: Arc<Running>, paused: Paused, long: bool) -> Self {
        let layout = paused.with_cpu(0, |engine| Layout::of(&engine.cpu)).unwrap_or_default();
        Self {
            running,
            layout: if long { Layout::Long } else { layout },
            paused: Some(paused),
            software: BTreeSet::new(),
            hardware: BTreeSet::new(),
            watchpoints: Vec::new(),
            stale: true,
            steps: BTreeSet::new(),
            continues: BTreeSet::new(),
            others_stay: false,
            untold: Vec::new(),
        }
    }

    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    pub(super) fn paused(&self) -> Result<&Paused, Fatal> {
        self.paused.as_ref().ok_or(Fatal::Over)
    }

    pub(super) fn bus(&self) -> DmaBus {
        self.running.memory().clone()
    }

    /// Does something with a processor; an error to gdb if there is none.
    fn with<R: Send + 'static>(
        &self,
        tid: Tid,
        f: impl FnOnce(&mut Engine) -> R + Send + 'static,
    ) -> TargetResult<R, Self> {
        let paused = self.paused().map_err(TargetError::Fatal)?;
        paused.with_cpu(tid.get() - 1, f).ok_or(TargetError::NonFatal)
    }

    /// Stops everything.
    pub(super) fn stop(&mut self) -> Result<(), Fatal> {
        if self.paused.is_none() {
            self.paused = Some(self.running.pause().map_err(|_| Fatal::Over)?);
        }
        self.untold.extend(self.running.gate().take_stops());
        // a step that something else came before is not done any more
        self.each(|_| |engine: &mut Engine| engine.cpu.set_step(false))
    }

    /// Does something with each processor.
    fn each<F>(&self, f: impl Fn(usize) -> F) -> Result<(), Fatal>
    where
        F: FnOnce(&mut Engine) + Send + 'static,
    {
        let paused = self.paused()?;
        (0..paused.cpus()).try_for_each(|id| paused.with_cpu(id, f(id)).ok_or(Fatal::Over))
    }

    /// True if gdb is to be told of a stop.
    pub(super) fn has_news(&self) -> bool {
        !self.untold.is_empty() || self.running.gate().has_stops()
    }

    /// What gdb is to be told, once everything stands; `None` if it is void by now.
    pub(super) fn news(&mut self) -> Option<MultiThreadStopReason<u64>> {
        if self.untold.is_empty() {
            return None;
        }
        let (id, stop) = self.untold.remove(0);
        // those still at their breakpoints come upon them again
        self.untold.retain(|(_, stop)| matches!(stop, Stop::Watchpoint(_) | Stop::Shutdown));
        let tid = tid(id);
        Some(match stop {
            Stop::Breakpoint => {
                let hardware = self.hardware.clone();
                let at = move |engine: &mut Engine| {
                    let s = &engine.cpu.s;
                    let rip =
                        if s.long64() { s.rip } else { s.rip.wrapping_add(s.seg[1].base) & 0xffff_ffff };
                    hardware.contains(&rip)
                };
                match self.with(tid, at) {
                    Ok(true) => MultiThreadStopReason::HwBreak(tid),
                    _ => MultiThreadStopReason::SwBreak(tid),
                }
            }
            Stop::Watchpoint(watch) => {
                let kind = match watch.kind {
                    Watched::Reads => WatchKind::Read,
                    Watched::Writes => WatchKind::Write,
                    Watched::Both => WatchKind::ReadWrite,
                };
                MultiThreadStopReason::Watch { tid, kind, addr: watch.first }
            }
            // nobody asked for the latter in a session
            Stop::Step | Stop::Initialized(_) => {
                MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP }
            }
            Stop::Shutdown => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGSEGV },
        })
    }

    /// Leaves the machine as if no debugger had been there.
    pub(super) fn leave(mut self) {
        if self.paused.is_none() {
            self.paused = self.running.pause().ok();
        }
        let clean = |_| {
            |engine: &mut Engine| {
                engine.cpu.set_debug(&[], &[]);
                let _ = engine.cpu.take_stop();
            }
        };
        let _ = self.each(clean);
        self.running.gate().detach();
    }
}

impl Target for Debugged {
    type Arch = X86;
    type Error = Fatal;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Fatal> {
        BaseOps::MultiThread(self)
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debugged {
    fn read_registers(&mut self, values: &mut Values, tid: Tid) -> TargetResult<(), Self> {
        let layout = self.layout;
        let bytes = self.with(tid, move |engine| regs::read(&engine.cpu, layout))?;
        *values = Values { bytes, layout };
        Ok(())
    }

    fn write_registers(&mut self, values: &Values, tid: Tid) -> TargetResult<(), Self> {
        let (new, layout) = (values.bytes.clone(), self.layout);
        self.with(tid, move |engine| {
            let old = regs::read(&engine.cpu, layout);
            for number in 0..layout.registers().len() {
                let Some(place) = layout.place(number) else { return };
                // gdb sends them all when it changes one
                if let (Some(new), Some(old)) = (new.get(place.clone()), old.get(place))
                    && new != old
                {
                    regs::write(&mut engine.cpu, layout, number, new);
                }
            }
        })
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let (bus, len) = (self.bus(), data.len());
        let bytes = self.with(tid, move |engine| {
            let mut bytes = vec![0; len];
            let n = memory::read(&engine.cpu, &bus, start, &mut bytes);
            bytes.truncate(n);
            bytes
        })?;
        if bytes.is_empty() && len > 0 {
            return Err(TargetError::Errno(FAULT));
        }
        data[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let (bus, data) = (self.bus(), data.to_vec());
        let all = self.with(tid, move |engine| memory::write(&mut engine.cpu, &bus, start, &data))?;
        if all { Ok(()) } else { Err(TargetError::Errno(FAULT)) }
    }

    fn list_active_threads(&mut self, found: &mut dyn FnMut(Tid)) -> Result<(), Fatal> {
        (0..self.paused()?.cpus()).for_each(|id| found(tid(id)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Debugged {
    fn read_register(&mut self, tid: Tid, reg: Number, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let layout = self.layout;
        let place = layout.place(reg.0).ok_or(TargetError::NonFatal)?;
        let values = self.with(tid, move |engine| regs::read(&engine.cpu, layout))?;
        let value = values.get(place).ok_or(TargetError::NonFatal)?;
        buf.get_mut(..value.len()).ok_or(TargetError::NonFatal)?.copy_from_slice(value);
        Ok(value.len())
    }

    fn write_register(&mut self, tid: Tid, reg: Number, value: &[u8]) -> TargetResult<(), Self> {
        let (value, layout) = (value.to_vec(), self.layout);
        let done = self.with(tid, move |engine| regs::write(&mut engine.cpu, layout, reg.0, &value))?;
        if done { Ok(()) } else { Err(TargetError::NonFatal) }
    }
}

impl TargetDescriptionXmlOverride for Debugged {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let rest = usize::try_from(offset).ok().and_then(|offset| self.layout.xml().as_bytes().get(offset..));
        let rest = rest.unwrap_or_default();
        let n = rest.len().min(length).min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

impl ThreadExtraInfo for Debugged {
    fn thread_extra_info(&self, tid: Tid, buf: &mut [u8]) -> Result<usize, Fatal> {
        let about = self.paused()?.with_cpu(tid.get() - 1, |engine| monitor::activity(&engine.cpu));
        let about = about.unwrap_or("gone").as_bytes();
        let n = about.len().min(buf.len());
        buf[..n].copy_from_slice(&about[..n]);
        Ok(n)
    }
}

impl MultiThreadResume for Debugged {
    fn resume(&mut self) -> Result<(), Fatal> {
        if !self.untold.is_empty() {
            // gdb is told of that first
            return Ok(());
        }
        if std::mem::take(&mut self.stale) {
            let breakpoints: Arc<[u64]> = self.software.union(&self.hardware).copied().collect();
            let watchpoints: Arc<[Watchpoint]> = self.watchpoints.clone().into();
            self.each(|_| {
                let (breakpoints, watchpoints) = (breakpoints.clone(), watchpoints.clone());
                move |engine: &mut Engine| engine.cpu.set_debug(&breakpoints, &watchpoints)
            })?;
        }
        self.each(|id| {
            let step = self.steps.contains(&id);
            move |engine: &mut Engine| engine.cpu.set_step(step)
        })?;
        let goes = |id| !self.others_stay || self.steps.contains(&id) || self.continues.contains(&id);
        self.running.gate().hold(|id| !goes(id));
        self.paused = None;
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Fatal> {
        self.steps.clear();
        self.continues.clear();
        self.others_stay = false;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Fatal> {
        self.continues.insert(tid.get() - 1);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Debugged {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Fatal> {
        self.steps.insert(tid.get() - 1);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Debugged {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Fatal> {
        self.others_stay = true;
        Ok(())
    }
}

impl Breakpoints for Debugged {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

fn add(to: &mut BTreeSet<u64>, address: u64) -> bool {
    to.len() < MOST_BREAKPOINTS && {
        to.insert(address);
        true
    }
}

impl SwBreakpoint for Debugged {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.stale = true;
        Ok(add(&mut self.software, address))
    }
    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.stale = true;
        Ok(self.software.remove(&address))
    }
}

impl HwBreakpoint for Debugged {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.stale = true;
        Ok(add(&mut self.hardware, address))
    }
    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.stale = true;
        Ok(self.hardware.remove(&address))
    }
}

fn watchpoint(first: u64, len: u64, kind: WatchKind) -> Watchpoint {
    let kind = match kind {
        WatchKind::Write => Watched::Writes,
        WatchKind::Read => Watched::Reads,
        WatchKind::ReadWrite => Watched::Both,
    };
    Watchpoint { first, len, kind }
}

impl HwWatchpoint for Debugged {
    fn add_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if !(1..=MOST_WATCHED).contains(&len) || self.watchpoints.len() >= MOST_WATCHPOINTS {
            return Ok(false);
        }
        self.stale = true;
        self.watchpoints.push(watchpoint(address, len, kind));
        Ok(true)
    }
    fn remove_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        self.stale = true;
        let gone = watchpoint(address, len, kind);
        let at = self.watchpoints.iter().position(|watch| *watch == gone);
        at.map(|at| self.watchpoints.remove(at));
        Ok(at.is_some())
    }
}

impl MonitorCmd for Debugged {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Fatal> {
        let answer = monitor::answer(self, &String::from_utf8_lossy(command))?;
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}

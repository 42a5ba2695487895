//! The chips at fixed ports and addresses.

use super::fakes::{Board, Time};
use super::registers::registers;
use crate::input::Input;
use devices::i8042::I8042;
use devices::ioapic::{IoApic, PINS};
use devices::pic::Pic;
use devices::pit::{PORT_61, Pit};
use devices::pm::{AcpiPm, ResetControl};
use devices::port92::Port92;
use devices::qemu::{DebugExit, FwCfg, TestMemory, TestPorts};
use devices::rtc::Rtc;
use devices::serial::Serial;
use devices::{Clock, Device, IrqLine};
use std::sync::Arc;

/// Lets time pass and ticks a device as the board's timer thread does, which
/// sleeps until the deadline it is given: a deadline that stays in the past
/// would keep it busy for ever.
fn pass<D: Device>(
    time: &Time,
    device: &mut D,
    input: &mut Input<'_>,
    tick: fn(&mut D),
    deadline: fn(&D) -> Option<u64>,
) {
    match input.u8() {
        0 => time.set_wall(input.number() & ((1 << 40) - 1)),
        1 => time.advance(input.u64()),
        2 => time.advance(deadline(device).unwrap_or(0).saturating_sub(time.now_ns())),
        n => time.advance(u64::from(n) << (n & 31)),
    }
    tick(device);
    if let Some(at) = deadline(device) {
        let now = time.now_ns();
        assert!(at > now, "ticked at {now}, the deadline is {at}");
    }
}

pub(super) fn serial(data: &[u8]) {
    let mut input = Input::new(data);
    let mut device = Serial::new(Arc::new(Board), std::io::sink());
    registers(&mut device, &mut input, &[0, 1, 2, 3, 4, 5, 6, 7], |d, input| {
        let n = usize::from(input.u8());
        let bytes = input.bytes(n);
        let room = d.room();
        assert!(d.push(bytes) <= room);
    });
}

pub(super) fn rtc(data: &[u8]) {
    let mut input = Input::new(data);
    let time = Time::new();
    let mut device = Rtc::new(time.clone(), Arc::new(Board));
    registers(&mut device, &mut input, &[0, 1], |d, input| match input.u8() {
        0 => d.set_cmos(input.u8(), input.u8()),
        1 => d.resync(),
        _ => pass(&time, d, input, Rtc::tick, Rtc::deadline),
    });
}

pub(super) fn pit(data: &[u8]) {
    let mut input = Input::new(data);
    let time = Time::new();
    let mut device = Pit::new(time.clone(), Arc::new(Board));
    registers(&mut device, &mut input, &[0, 1, 2, 3, PORT_61], |d, input| {
        pass(&time, d, input, Pit::tick, Pit::deadline);
    });
}

pub(super) fn pic(data: &[u8]) {
    let mut input = Input::new(data);
    let mut device = Pic::new(Arc::new(Board));
    registers(&mut device, &mut input, &[0, 1, 0x80, 0x81, 0x4b0, 0x4b1], |d, input| match input.u8() {
        0..0x40 => {
            d.ack();
        }
        n => d.line(input.u8()).set(n & 1 != 0),
    });
}

pub(super) fn ioapic(data: &[u8]) {
    let mut input = Input::new(data);
    let mut device = IoApic::new(1, Arc::new(Board));
    registers(&mut device, &mut input, &[0, 0x10, 0x20, 0x40], |d, input| match input.u8() {
        0..0x40 => d.eoi(input.u8()),
        n => {
            let pin = input.u8();
            let wire = d.pin(pin);
            assert_eq!(wire.is_some(), pin < PINS);
            wire.inspect(|w| w.set(n & 1 != 0));
        }
    });
}

pub(super) fn pm(data: &[u8]) {
    let mut input = Input::new(data);
    let time = Time::new();
    let wide = input.u8() & 1 != 0;
    let mut device = AcpiPm::new(time.clone(), Arc::new(Board), Arc::new(Board), 5, wide);
    let mut reset = ResetControl::new(Arc::new(Board));
    registers(&mut device, &mut input, &[0, 2, 4, 8], |d, input| match input.u8() {
        0 => d.press_power_button(),
        1 => registers(&mut reset, &mut Input::new(input.bytes(8)), &[0], |_, _| {}),
        _ => pass(&time, d, input, AcpiPm::tick, AcpiPm::deadline),
    });
}

pub(super) fn i8042(data: &[u8]) {
    let mut input = Input::new(data);
    let mut device = I8042::new(Arc::new(Board));
    registers(&mut device, &mut input, &[0, 4], |_, _| {});
}

/// The devices of QEMU's own and port 92h, one after the other.
pub(super) fn qemu(data: &[u8]) {
    let mut input = Input::new(data);
    let mut part = || Input::new(input.bytes(data.len() / 5));
    let mut fw_cfg = FwCfg::new([(5, vec![4, 0])], [("etc/e820", vec![1; 40])]);
    registers(&mut fw_cfg, &mut part(), &[0, 1], |_, _| {});
    let mut test = TestPorts::new((0..24).map(|_| Arc::new(Board) as Arc<dyn IrqLine>));
    registers(&mut test, &mut part(), &[0, 3, 4, 8, 0x1f20, 0x1f2e, 0x1f37], |_, _| {});
    registers(&mut TestMemory::default(), &mut part(), &[0, 8, 0xfff8, 0xffff], |_, _| {});
    registers(&mut DebugExit::new(Arc::new(Board)), &mut part(), &[0, 3], |_, _| {});
    registers(&mut Port92::new(Arc::new(Board)), &mut part(), &[0], |_, _| {});
}

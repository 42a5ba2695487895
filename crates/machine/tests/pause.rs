//! A paused machine stands still: its processors, its timers, its time.

mod common;

use std::time::{Duration, Instant};

use common::{CODE, Kernel, start};
use machine::{PauseError, Running};

const NAP: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(60);
const COUNT: u64 = 0x20_0000;
const TSC: u64 = COUNT + 8;

/// Counts at [`COUNT`] and stores the time-stamp counter at [`TSC`], for ever.
const COUNTER: &[u8] = &[
    0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // inc qword [0x200000]
    0x0f, 0x31, // rdtsc
    0x48, 0xc1, 0xe2, 0x20, // shl rdx, 32
    0x48, 0x09, 0xd0, // or rax, rdx
    0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x20, 0x00, // mov [0x200008], rax
    0xeb, 0xe5, // jmp back
];

fn word(running: &Running, address: u64) -> u64 {
    u64::from_le_bytes(running.bus_read(address, 8).try_into().unwrap())
}

fn wait_for_more(running: &Running, than: u64) {
    let begin = Instant::now();
    while word(running, COUNT) <= than {
        assert!(begin.elapsed() < PATIENCE, "the processor does not go on");
        std::thread::yield_now();
    }
}

#[test]
fn processors_and_time_stand_still_and_go_on() {
    let kernel = Kernel::new("pause", COUNTER);
    let (running, paused) = start(kernel.config(1));
    let hz = cpu::Model::xeon_e_2288g().tsc_hz;
    std::thread::sleep(NAP);
    assert_eq!((word(&running, COUNT), paused.guest_ns()), (0, 0));
    assert_eq!(paused.with_cpu(0, |engine| engine.cpu.s.rip), Some(CODE));
    assert_eq!(paused.with_cpu(1, |_| ()), None);
    drop(paused);

    for round in 0..10 {
        wait_for_more(&running, word(&running, COUNT));
        let paused = running.pause().unwrap();
        let (count, ns) = (word(&running, COUNT), paused.guest_ns());
        // at a boundary: the stored time is of the past
        assert!(word(&running, TSC) <= (u128::from(ns) * u128::from(hz) / 1_000_000_000) as u64);
        let rip = paused.with_cpu(0, |engine| engine.cpu.s.rip).unwrap();
        assert!((CODE..CODE + COUNTER.len() as u64).contains(&rip), "{rip:#x}");
        // a second pause on top, which ends first
        let second = running.pause().unwrap();
        std::thread::sleep(NAP);
        drop(second);
        std::thread::sleep(NAP);
        assert_eq!((word(&running, COUNT), paused.guest_ns()), (count, ns), "round {round}");
        let before = Instant::now();
        drop(paused);
        wait_for_more(&running, count);
        let paused = running.pause().unwrap();
        let (passed, most) = (paused.guest_ns() - ns, before.elapsed().as_nanos() as u64);
        assert!(passed > 0 && passed <= most, "guest time went on by {passed} ns in {most}");
    }
}

#[test]
fn a_machine_can_be_stopped_while_it_is_paused() {
    let kernel = Kernel::new("pause-stop", COUNTER);
    let (running, paused) = start(kernel.config(2));
    drop(paused);
    wait_for_more(&running, 0);
    let paused = running.pause().unwrap();
    running.stop();
    assert_eq!(running.wait(Some(PATIENCE)), Some(machine::Outcome::Stopped));
    assert_eq!(paused.with_cpu(0, |_| ()), None);
    assert_eq!(running.pause().err(), Some(PauseError::Over));
}

#[test]
fn registers_given_in_a_pause_are_those_it_goes_on_with() {
    let kernel = Kernel::new("pause-set", COUNTER);
    let (running, paused) = start(kernel.config(1));
    paused.with_cpu(0, |engine| engine.cpu.s.regs.set(3, 42)).unwrap();
    paused.set_guest_ns(5_000_000_000);
    drop(paused);
    wait_for_more(&running, 0);
    let paused = running.pause().unwrap();
    assert_eq!(paused.with_cpu(0, |engine| engine.cpu.s.regs.get(3)), Some(42));
    assert!(paused.guest_ns() >= 5_000_000_000);
}

//! The timer (§10.5.4). The TSC ticks ten times a timer input clock.

use super::*;

const LVT: u32 = 0x320;
const INITIAL: u32 = 0x380;
const CURRENT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;
const BY_1: u32 = 0b1011;
const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 1 << 18;
const MASKED: u32 = 1 << 16;

fn timer(lvt: u32) -> Apic {
    let mut a = xapic(0);
    a.write(DIVIDE, BY_1, 0);
    a.write(LVT, lvt, 0);
    a
}

#[test]
fn one_shot() {
    let mut a = timer(0x40);
    assert_eq!(a.deadline(), None);
    a.write(INITIAL, 100, 5000);
    assert_eq!(a.deadline(), Some(6000));
    assert_eq!(a.read(CURRENT, 5000), 100);
    assert_eq!(a.read(CURRENT, 5009), 100);
    assert_eq!(a.read(CURRENT, 5010), 99);
    assert!(!a.expire(5999));
    assert_eq!((a.read(CURRENT, 5999), a.pending()), (1, None));
    assert!(a.expire(6000));
    assert_eq!((a.read(CURRENT, 6000), a.read(INITIAL, 6000)), (0, 100));
    assert_eq!(a.ack(), 0x40);
    assert_eq!(a.deadline(), None);
    assert!(!a.expire(u64::MAX));
}

#[test]
fn divisors() {
    // Figure 10-10
    let table = [2, 4, 8, 16, 32, 64, 128, 1];
    for (code, by) in table.iter().enumerate() {
        let code = code as u32;
        let mut a = timer(0x40);
        a.write(DIVIDE, code >> 2 << 3 | code & 3, 0);
        a.write(INITIAL, 7, 0);
        assert_eq!(a.deadline(), Some(7 * 10 * by));
        assert_eq!(a.read(CURRENT, 10 * by), 6);
    }
}

#[test]
fn periodic_without_drift() {
    let mut a = timer(0x40 | PERIODIC);
    a.write(INITIAL, 100, 0);
    assert_eq!(a.deadline(), Some(1000));
    assert!(a.expire(1007), "late");
    assert_eq!(a.deadline(), Some(2000), "but on time again");
    assert_eq!(a.read(CURRENT, 1007), 100);
    assert_eq!(a.read(CURRENT, 1010), 99);
    a.ack();
    a.write(0xb0, 0, 0);
    // Nine periods missed give one interrupt.
    assert!(a.expire(11_500));
    assert_eq!(a.deadline(), Some(12_000));
    assert_eq!(a.ack(), 0x40);
    assert_eq!(a.pending(), None);
    a.write(INITIAL, 0, 11_600);
    assert_eq!(a.deadline(), None, "0 stops it");
}

#[test]
fn odd_ratios_stay_exact() {
    let mut a = Apic::new(Config { timer: Ratio { tsc: 7, bus: 3 }, ..config(0) });
    a.write(0xf0, 0x1ff, 0);
    a.write(DIVIDE, BY_1, 0);
    a.write(LVT, 0x40 | PERIODIC, 0);
    a.write(INITIAL, 10, 0);
    for n in 1..1000u64 {
        let due = (n * 10 * 7).div_ceil(3);
        assert_eq!(a.deadline(), Some(due));
        assert!(!a.expire(due - 1));
        assert!(a.expire(due));
    }
}

#[test]
fn a_masked_timer_counts_in_silence() {
    let mut a = timer(0x40 | MASKED | PERIODIC);
    a.write(INITIAL, 100, 0);
    assert_eq!(a.deadline(), None);
    assert_eq!(a.read(CURRENT, 250), 75);
    assert_eq!(a.read(CURRENT, 1250), 75);
    a.write(LVT, 0x40 | PERIODIC, 1250);
    assert_eq!(a.pending(), None, "the expiry while masked is lost");
    assert_eq!(a.deadline(), Some(2000));

    let mut a = timer(0x40 | MASKED);
    a.write(INITIAL, 100, 0);
    a.write(LVT, 0x40, 1500);
    assert_eq!((a.deadline(), a.pending()), (None, None));
}

#[test]
fn changes_while_running() {
    // A new divisor scales what is left.
    let mut a = timer(0x40);
    a.write(INITIAL, 100, 0);
    a.write(DIVIDE, 0, 400);
    assert_eq!(a.read(CURRENT, 400), 60);
    assert_eq!(a.deadline(), Some(400 + 60 * 20));
    // Periodic to one-shot and back keeps counting.
    let mut a = timer(0x40 | PERIODIC);
    a.write(INITIAL, 100, 0);
    a.expire(1000);
    a.write(LVT, 0x41, 1300);
    assert_eq!((a.read(CURRENT, 1300), a.deadline()), (70, Some(2000)));
    a.write(LVT, 0x41 | PERIODIC, 1400);
    assert_eq!(a.deadline(), Some(2000));
    a.expire(2000);
    assert_eq!(a.deadline(), Some(3000));
    // With a divisor change, the first period is shorter.
    a.write(DIVIDE, 0, 2500);
    assert_eq!(a.deadline(), Some(2500 + 50 * 20));
    a.expire(3500);
    assert_eq!(a.deadline(), Some(3500 + 100 * 20));
    // A new initial count starts over.
    a.write(INITIAL, 7, 4000);
    assert_eq!(a.deadline(), Some(4000 + 7 * 20));
}

#[test]
fn tsc_deadline() {
    // §10.5.4.1
    let mut a = timer(0x40 | DEADLINE);
    a.wrmsr(0x6e0, 9000, 100).unwrap();
    assert_eq!((a.deadline(), a.rdmsr(0x6e0, 200)), (Some(9000), Ok(9000)));
    a.write(INITIAL, 5, 300);
    assert_eq!((a.read(INITIAL, 300), a.read(CURRENT, 300)), (0, 0), "ignored");
    assert!(!a.expire(8999));
    assert!(a.expire(9000));
    assert_eq!(a.ack(), 0x40);
    assert_eq!((a.deadline(), a.rdmsr(0x6e0, 9000)), (None, Ok(0)), "disarmed");
    a.write(0xb0, 0, 0);
    a.wrmsr(0x6e0, 50, 9001).unwrap();
    assert_eq!(a.pending(), Some(0x40), "a past deadline fires at once");
    a.ack();
    a.write(0xb0, 0, 0);
    a.wrmsr(0x6e0, 20_000, 9100).unwrap();
    a.wrmsr(0x6e0, 0, 9200).unwrap();
    assert_eq!(a.deadline(), None, "0 disarms");
}

#[test]
fn tsc_deadline_and_the_other_modes() {
    let mut a = timer(0x40);
    a.wrmsr(0x6e0, 9000, 0).unwrap();
    assert_eq!(a.rdmsr(0x6e0, 0), Ok(0), "ignored outside TSC-deadline mode");
    a.write(INITIAL, 100, 0);
    a.write(LVT, 0x40 | DEADLINE, 0);
    assert_eq!(a.deadline(), None, "the change disarms");
    a.wrmsr(0x6e0, 9000, 0).unwrap();
    a.write(LVT, 0x40, 0);
    assert_eq!((a.deadline(), a.rdmsr(0x6e0, 0)), (None, Ok(0)));
    // Masked: the deadline passes without an interrupt.
    let mut a = timer(0x40 | DEADLINE | MASKED);
    a.wrmsr(0x6e0, 9000, 0).unwrap();
    assert_eq!((a.deadline(), a.rdmsr(0x6e0, 9000)), (None, Ok(0)));
    assert_eq!(a.pending(), None);
    // Reserved mode.
    let mut a = timer(0x40 | DEADLINE | PERIODIC);
    a.write(INITIAL, 1, 0);
    assert_eq!(a.deadline(), None);
    assert!(!a.expire(u64::MAX));
}

#[test]
fn init_and_software_disable_stop_it() {
    let mut a = timer(0x40);
    a.write(INITIAL, 100, 0);
    a.write(0xf0, 0xff, 10);
    assert_eq!(a.deadline(), None);
    a.write(0xf0, 0x1ff, 20);
    a.write(LVT, 0x40, 30);
    assert_eq!(a.deadline(), Some(1000), "it has counted on");
    a.init();
    assert_eq!((a.deadline(), a.read(CURRENT, 40)), (None, 0));
}

#[test]
fn far_deadlines_saturate() {
    let mut a = Apic::new(Config { timer: Ratio { tsc: u32::MAX, bus: 1 }, ..config(0) });
    a.write(0xf0, 0x1ff, 0);
    a.write(DIVIDE, 0b1010, 0);
    a.write(LVT, 0x40 | PERIODIC, 0);
    a.write(INITIAL, u32::MAX, u64::MAX - 5);
    assert_eq!(a.deadline(), Some(u64::MAX));
}

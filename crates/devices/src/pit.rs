//! i8254 programmable interval timer and the PC's port 61h
//! (*Intel 8254 data sheet 231164*).
//!
//! Offsets from port 40h: 0–2 the counters, 3 the control word, 21h port 61h
//! (speaker gate, counter 2's OUT, refresh toggle). Counter 0's OUT is IRQ 0.
//!
//! Nothing counts here: a counter is the guest time at which it was loaded,
//! and its value is computed when somebody looks.
//!
//! | threat | guard |
//! |---|---|
//! | reload of 1 asks for a million interrupts a second | one edge per `tick`, and [`Pit::deadline`] is never closer than [`MIN_PERIOD_NS`] |
//! | guest time jumps by days | elapsed ticks are 64-bit remainders, no loops |

use crate::device::{Clock, Device, StateError, nanos, ticks};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Input clock in hertz.
pub const PIT_HZ: u64 = 1_193_182;

/// The shortest time between two interrupts the board is asked for, in
/// nanoseconds (20 kHz).
pub const MIN_PERIOD_NS: u64 = 50_000;

/// Offset of port 61h from port 40h.
pub const PORT_61: u64 = 0x21;

/// One counter as a snapshot keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterState {
    mode: u8,
    bcd: bool,
    /// 1 low byte only, 2 high byte only, 3 low then high.
    access: u8,
    gate: bool,
    /// Ticks in a period; 0 while nothing was loaded.
    reload: u32,
    /// Guest time at which counting began; none while it waits for a count or
    /// a trigger.
    start_ns: Option<u64>,
    /// Ticks already counted when the gate stopped the counter.
    frozen: Option<u64>,
    write_low: Option<u8>,
    read_high_next: bool,
    latched: Option<u16>,
    status: Option<u8>,
}

impl Default for CounterState {
    fn default() -> Self {
        Self {
            // low at rest, so that programming another counter gives no edge
            mode: 0,
            bcd: false,
            access: 3,
            gate: true,
            reload: 0,
            start_ns: None,
            frozen: None,
            write_low: None,
            read_high_next: false,
            latched: None,
            status: None,
        }
    }
}

impl CounterState {
    /// Ticks since loading, at `now`; none if not counting.
    fn elapsed(&self, now: u64) -> Option<u64> {
        self.frozen.or_else(|| self.start_ns.map(|s| ticks(now.saturating_sub(s), PIT_HZ)))
    }

    fn out(&self, now: u64) -> bool {
        let n = u64::from(self.reload.max(1));
        let Some(t) = self.elapsed(now) else {
            // all modes but 0 idle high
            return self.mode != 0;
        };
        match self.mode {
            0 => t > n,
            1 => t >= n,
            2 => !self.gate || t % n != n - 1,
            3 => !self.gate || t % n < n.div_ceil(2),
            _ => t != n,
        }
    }

    /// The counting element as a program reads it.
    fn count(&self, now: u64) -> u16 {
        let n = u64::from(self.reload.max(1));
        let wrap = if self.bcd { 10_000 } else { 0x1_0000 };
        let t = self.elapsed(now).unwrap_or(0);
        let value = match self.mode {
            2 => n - t % n,
            // counts down by two, twice a period
            3 => {
                let half = n.div_ceil(2);
                let t = t % n;
                let t = if t >= half { t - half } else { t };
                (n & !1).wrapping_sub(2 * t)
            }
            _ => (n + wrap - t % wrap) % wrap,
        } % wrap;
        if self.bcd { to_bcd(value) } else { value as u16 }
    }

    /// Ticks after which OUT next rises, counted from loading.
    fn next_rise(&self, t: u64) -> Option<u64> {
        let n = u64::from(self.reload.max(1));
        match self.mode {
            0 => (t <= n).then_some(n + 1),
            1 => (t < n).then_some(n),
            2 | 3 => (t / n + 1).checked_mul(n),
            _ => (t <= n).then_some(n + 1),
        }
    }

    fn load_count(&mut self, raw: u16, now: u64) {
        let count = if self.bcd { from_bcd(raw) } else { u32::from(raw) };
        let max = if self.bcd { 10_000 } else { 0x1_0000 };
        self.reload = if count == 0 { max } else { count };
        match self.mode {
            // hardware-triggered: wait for the gate
            1 | 5 => {}
            // the new count becomes valid at the end of the present period;
            // restarting at once differs by less than one period
            2 | 3 => {
                if self.gate {
                    self.start_ns = Some(now);
                }
            }
            _ => {
                self.start_ns = Some(now);
                self.frozen = (!self.gate).then_some(0);
            }
        }
    }

    fn set_gate(&mut self, gate: bool, now: u64) {
        if gate == self.gate {
            return;
        }
        match self.mode {
            0 | 4 => {
                if gate {
                    // continue from where it stood
                    if let Some(t) = self.frozen.take() {
                        self.start_ns = Some(now.saturating_sub(nanos(t, PIT_HZ)));
                    }
                } else if self.start_ns.is_some() {
                    self.frozen = self.elapsed(now);
                }
            }
            1 | 5 => {
                if gate && self.reload != 0 {
                    self.start_ns = Some(now);
                }
            }
            _ => {
                if gate && self.reload != 0 {
                    self.frozen = None;
                    self.start_ns = Some(now);
                } else if self.start_ns.is_some() {
                    self.frozen = self.elapsed(now);
                }
            }
        }
        self.gate = gate;
    }

    fn control(&mut self, word: u8) {
        self.access = word >> 4 & 3;
        let mode = word >> 1 & 7;
        self.mode = if mode > 5 { mode - 4 } else { mode };
        self.bcd = word & 1 != 0;
        self.start_ns = None;
        self.frozen = None;
        self.reload = 0;
        self.write_low = None;
        self.read_high_next = false;
        self.latched = None;
        self.status = None;
    }

    fn latch_count(&mut self, now: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.count(now));
        }
    }

    fn latch_status(&mut self, now: u64) {
        if self.status.is_none() {
            let null = self.reload == 0 || self.write_low.is_some();
            self.status = Some(
                u8::from(self.out(now)) << 7
                    | u8::from(null) << 6
                    | self.access << 4
                    | self.mode << 1
                    | u8::from(self.bcd),
            );
        }
    }

    fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let value = self.latched.unwrap_or_else(|| self.count(now));
        let [low, high] = value.to_le_bytes();
        let (byte, last) = match self.access {
            1 => (low, true),
            2 => (high, true),
            _ if self.read_high_next => (high, true),
            _ => (low, false),
        };
        self.read_high_next = !last;
        if last {
            self.latched = None;
        }
        byte
    }

    fn write(&mut self, byte: u8, now: u64) {
        match self.access {
            1 => self.load_count(u16::from(byte), now),
            2 => self.load_count(u16::from(byte) << 8, now),
            _ => match self.write_low.take() {
                None => {
                    self.write_low = Some(byte);
                    // mode 0: the first byte stops the counting
                    if self.mode == 0 {
                        self.start_ns = None;
                        self.frozen = None;
                    }
                }
                Some(low) => self.load_count(u16::from_le_bytes([low, byte]), now),
            },
        }
    }
}

fn to_bcd(v: u64) -> u16 {
    ((v % 10) | ((v / 10 % 10) << 4) | ((v / 100 % 10) << 8) | ((v / 1000 % 10) << 12)) as u16
}

fn from_bcd(v: u16) -> u32 {
    // digits above nine cannot be told from the data sheet; weigh them as they are
    (0..4).fold(0, |sum, d| sum + u32::from(v >> (4 * d) & 0xf) * 10u32.pow(d))
}

/// What a snapshot keeps of the PIT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitState {
    counters: [CounterState; 3],
    port61: u8,
    /// Up to here edges of counter 0 were delivered.
    seen_ns: u64,
}

/// The timer chip with port 61h.
pub struct Pit {
    clock: Arc<dyn Clock>,
    irq0: Arc<dyn IrqLine>,
    counters: [CounterState; 3],
    port61: u8,
    seen_ns: u64,
    irq_level: bool,
}

impl Pit {
    /// A PIT whose counter 0 drives `irq0`.
    pub fn new(clock: Arc<dyn Clock>, irq0: Arc<dyn IrqLine>) -> Self {
        let mut pit =
            Self { clock, irq0, counters: Default::default(), port61: 0, seen_ns: 0, irq_level: false };
        pit.reset();
        pit
    }

    /// Guest time, in nanoseconds, at which counter 0's OUT rises next.
    pub fn deadline(&self) -> Option<u64> {
        let c = &self.counters[0];
        let start = c.start_ns?;
        if c.frozen.is_some() {
            return None;
        }
        let t = ticks(self.seen_ns.saturating_sub(start), PIT_HZ);
        let due = start.checked_add(nanos(c.next_rise(t)?, PIT_HZ))?;
        Some(match c.mode {
            2 | 3 => due.max(self.seen_ns.saturating_add(MIN_PERIOD_NS)),
            _ => due,
        })
    }

    /// Delivers the edges due by now: at most one, however late the call, as
    /// an interrupt controller would merge them.
    pub fn tick(&mut self) {
        let now = self.clock.now_ns();
        let due = self.deadline().is_some_and(|d| d <= now);
        self.seen_ns = now;
        if due && self.irq_level {
            self.drive(false);
        }
        if due {
            self.drive(true);
        }
        self.drive(self.counters[0].out(now));
    }

    fn drive(&mut self, level: bool) {
        if level != self.irq_level {
            self.irq_level = level;
            self.irq0.set(level);
        }
    }

    fn control(&mut self, word: u8, now: u64) {
        if word >> 6 == 3 {
            // read-back: bits 5 and 4 are active low
            for (i, c) in self.counters.iter_mut().enumerate() {
                if word & 2 << i != 0 {
                    if word & 0x20 == 0 {
                        c.latch_count(now);
                    }
                    if word & 0x10 == 0 {
                        c.latch_status(now);
                    }
                }
            }
            return;
        }
        let c = &mut self.counters[usize::from(word >> 6)];
        if word & 0x30 == 0 {
            c.latch_count(now);
        } else {
            c.control(word);
        }
    }

    fn read_port61(&self, now: u64) -> u8 {
        // the refresh request toggles every 15.085 µs: counter 1 at 18 ticks
        let refresh = (ticks(now, PIT_HZ) / 18) & 1 != 0;
        self.port61 & 0xf | u8::from(refresh) << 4 | u8::from(self.counters[2].out(now)) << 5
    }
}

impl Device for Pit {
    type State = PitState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        let now = self.clock.now_ns();
        if let Some(first) = data.first_mut() {
            match offset {
                0..=2 => *first = self.counters[offset as usize].read(now),
                PORT_61 => *first = self.read_port61(now),
                _ => {} // the control word cannot be read
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        if offset > 3 && offset != PORT_61 {
            return;
        }
        // what was due under the old programming comes first
        self.tick();
        let now = self.clock.now_ns();
        match offset {
            0..=2 => self.counters[offset as usize].write(value, now),
            3 => self.control(value, now),
            _ => {
                self.port61 = value & 0xf;
                self.counters[2].set_gate(value & 1 != 0, now);
            }
        }
        self.seen_ns = now;
        self.drive(self.counters[0].out(now));
    }

    fn reset(&mut self) {
        self.counters = Default::default();
        self.counters[2].gate = false;
        self.port61 = 0;
        self.seen_ns = 0;
        // high by definition of the idle mode, but no edge: IRQ 0 rests
        self.irq_level = true;
        self.drive(false);
    }

    fn save(&self) -> PitState {
        PitState {
            counters: self.counters.clone(),
            port61: self.port61,
            // before anything is loaded no time matters
            seen_ns: if self.counters[0].start_ns.is_some() { self.seen_ns } else { 0 },
        }
    }

    fn load(&mut self, state: PitState) -> Result<(), StateError> {
        for c in &state.counters {
            if c.mode > 5 || !(1..=3).contains(&c.access) || c.reload > 0x1_0000 {
                return Err(StateError::new("pit", "counter", "has no valid mode or count"));
            }
        }
        self.counters = state.counters;
        self.port61 = state.port61 & 0xf;
        self.seen_ns = state.seen_ns;
        let level = self.counters[0].start_ns.is_some() && self.counters[0].out(self.clock.now_ns());
        self.irq_level = level;
        self.irq0.set(level);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestClock, TestLine, inb, outb};

    fn pit() -> (Pit, Arc<TestClock>, Arc<TestLine>) {
        let (clock, irq) = (TestClock::new(), TestLine::new());
        (Pit::new(clock.clone(), irq.clone()), clock, irq)
    }

    device_tests!(every_device, || {
        let (device, clock, _) = pit();
        Fixture {
            device,
            offsets: vec![0, 1, 2, 3, PORT_61],
            outside: vec![4, 0x20, 0x22, u64::MAX],
            disturb: Box::new(move |d, n| {
                clock.advance(n * 1_234_567);
                d.deadline();
                d.tick();
            }),
        }
    });

    #[test]
    fn periodic_mode_gives_one_edge_a_period() {
        for mode in [2u8, 3] {
            let (mut p, clock, irq) = pit();
            outb(&mut p, 3, 0x30 | mode << 1);
            outb(&mut p, 0, (11932 & 0xff) as u8);
            outb(&mut p, 0, (11932 >> 8) as u8);
            let base = irq.edges();
            for n in 1..=100u64 {
                let due = p.deadline().unwrap();
                clock.set(due);
                p.tick();
                assert_eq!(irq.edges() - base, n, "mode {mode}");
            }
            // 100 periods of 11932 ticks
            let took = clock.now_ns() - 5_000_000_000;
            assert_eq!(ticks(took, PIT_HZ), 1_193_200);
        }
    }

    #[test]
    fn one_shot_fires_once() {
        let (mut p, clock, irq) = pit();
        outb(&mut p, 3, 0x30);
        outb(&mut p, 0, 0x10);
        outb(&mut p, 0, 0);
        let base = irq.edges();
        clock.set(p.deadline().unwrap());
        p.tick();
        assert_eq!(irq.edges() - base, 1);
        assert_eq!(p.deadline(), None);
        clock.advance(1_000_000_000);
        p.tick();
        assert_eq!(irq.edges() - base, 1);
    }

    #[test]
    fn fast_reload_cannot_flood_the_board() {
        let (mut p, clock, _) = pit();
        outb(&mut p, 3, 0x14);
        outb(&mut p, 0, 1);
        let first = p.deadline().unwrap();
        clock.set(first);
        p.tick();
        assert!(p.deadline().unwrap() >= first + MIN_PERIOD_NS);
    }

    /// Linux' `pit_calibrate_tsc`: counter 2 in mode 0, poll OUT in port 61h.
    #[test]
    fn calibration_through_port_61() {
        let (mut p, clock, _) = pit();
        let gate = inb(&mut p, PORT_61) & !2 | 1;
        outb(&mut p, PORT_61, gate);
        outb(&mut p, 3, 0xb0);
        let latch = PIT_HZ / 20; // 50 ms
        outb(&mut p, 2, latch as u8);
        outb(&mut p, 2, (latch >> 8) as u8);
        let mut us = 0;
        while inb(&mut p, PORT_61) & 0x20 == 0 {
            clock.advance(10_000);
            us += 10;
            assert!(us < 60_000, "OUT never rises");
        }
        assert!((49_990..=50_030).contains(&us), "{us}");
    }

    /// Linux' `quick_pit_calibrate`: the high byte counts down.
    #[test]
    fn high_byte_counts_down() {
        let (mut p, clock, _) = pit();
        outb(&mut p, PORT_61, 1);
        outb(&mut p, 3, 0xb0);
        outb(&mut p, 2, 0xff);
        outb(&mut p, 2, 0xff);
        for expect in (0xf0..=0xffu8).rev() {
            inb(&mut p, 2);
            assert_eq!(inb(&mut p, 2), expect);
            clock.advance(nanos(256, PIT_HZ));
        }
    }

    #[test]
    fn gate_stops_mode_0_and_continues() {
        let (mut p, clock, _) = pit();
        outb(&mut p, PORT_61, 1);
        outb(&mut p, 3, 0xb0);
        outb(&mut p, 2, 0);
        outb(&mut p, 2, 0x10);
        clock.advance(nanos(0x100, PIT_HZ));
        outb(&mut p, PORT_61, 0);
        clock.advance(1_000_000_000);
        outb(&mut p, 3, 0x80);
        assert_eq!(u16::from_le_bytes([inb(&mut p, 2), inb(&mut p, 2)]), 0xf00);
        outb(&mut p, PORT_61, 1);
        clock.advance(nanos(0x100, PIT_HZ));
        outb(&mut p, 3, 0x80);
        let c = u16::from_le_bytes([inb(&mut p, 2), inb(&mut p, 2)]);
        assert!((0xdff..=0xe00).contains(&c), "{c:#x}");
    }

    #[test]
    fn read_back_gives_status_then_count() {
        let (mut p, clock, _) = pit();
        outb(&mut p, 3, 0x34);
        outb(&mut p, 3, 0xe2);
        assert_eq!(inb(&mut p, 0), 0xf4, "OUT high, null count, mode 2");
        outb(&mut p, 0, 0x34);
        outb(&mut p, 0, 0x12);
        outb(&mut p, 3, 0xc2); // count and status of counter 0
        clock.advance(nanos(16, PIT_HZ));
        assert_eq!(inb(&mut p, 0), 0xb4);
        assert_eq!((inb(&mut p, 0), inb(&mut p, 0)), (0x34, 0x12));
        assert_eq!(inb(&mut p, 0), 0x24, "the latch is gone");
    }

    #[test]
    fn bcd_counts_in_decimal() {
        let (mut p, clock, _) = pit();
        outb(&mut p, 3, 0x35);
        outb(&mut p, 0, 0);
        outb(&mut p, 0, 0x10); // 1000
        clock.advance(nanos(1, PIT_HZ));
        outb(&mut p, 3, 0);
        assert_eq!((inb(&mut p, 0), inb(&mut p, 0)), (0x99, 0x09));
    }
}

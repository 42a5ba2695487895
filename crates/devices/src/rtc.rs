//! MC146818 real-time clock with CMOS memory
//! (*Motorola MC146818A data sheet*), ports 70h (index) and 71h (data), IRQ 8.
//!
//! The date comes from the board's wall clock plus what the guest set it off
//! by; the century is in byte 32h, where the FADT says it is.
//!
//! | threat | guard |
//! |---|---|
//! | impossible dates (month 0, day 40, BCD digits above 9) | calendar arithmetic is total: it carries over and saturates |
//! | an 8 kHz periodic interrupt | a wire, one flag until register C is read; the deadline is none while the flag stands |
//! | guest sleeps for years | missed seconds are computed, not walked |

use crate::device::{Clock, Device, SECOND, StateError};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const SECONDS: usize = 0;
const SECONDS_ALARM: usize = 1;
const MINUTES: usize = 2;
const MINUTES_ALARM: usize = 3;
const HOURS: usize = 4;
const HOURS_ALARM: usize = 5;
const WEEKDAY: usize = 6;
const DAY: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const REG_A: usize = 10;
const REG_B: usize = 11;
const REG_C: usize = 12;
const REG_D: usize = 13;
/// Century byte; the FADT's CENTURY field names it.
pub const CENTURY: usize = 0x32;

const A_UIP: u8 = 0x80;
const A_DIVIDER: u8 = 0x70;
const A_DIVIDER_32K: u8 = 0x20;

const B_SET: u8 = 0x80;
const B_PIE: u8 = 0x40;
const B_BINARY: u8 = 4;
const B_24H: u8 = 2;

const C_IRQF: u8 = 0x80;
const C_PF: u8 = 0x40;
const C_AF: u8 = 0x20;
const C_UF: u8 = 0x10;

const D_VALID: u8 = 0x80;

/// UIP is high this long before an update, in nanoseconds.
const UIP_NS: u64 = 244_141;
const DAY_S: i64 = 86_400;
/// 9999-12-31 23:59:59.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a snapshot keeps of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    index: u8,
    ram: Vec<u8>,
    /// Seconds the guest's clock is ahead of the wall.
    offset_s: i64,
}

/// The clock chip.
pub struct Rtc {
    clock: Arc<dyn Clock>,
    irq: Arc<dyn IrqLine>,
    index: u8,
    ram: [u8; 128],
    offset_s: i64,
    /// The clock showed `base_s` (without offset) at guest time `base_ns`.
    base_s: i64,
    base_ns: u64,
    /// Flags of register C are up to date until here.
    seen_ns: u64,
}

impl Rtc {
    /// Number of consecutive ports.
    pub const PORTS: u64 = 2;

    /// A clock showing `clock`'s wall time, driving IRQ 8 through `irq`.
    pub fn new(clock: Arc<dyn Clock>, irq: Arc<dyn IrqLine>) -> Self {
        let mut rtc =
            Self { clock, irq, index: 0, ram: [0; 128], offset_s: 0, base_s: 0, base_ns: 0, seen_ns: 0 };
        rtc.reset();
        rtc
    }

    /// Sets a CMOS byte as firmware would leave it; the clock's own registers
    /// are not touched. Call again after a reset.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        let index = usize::from(index & 0x7f);
        if index > REG_D && index != CENTURY {
            self.ram[index] = value;
        }
    }

    /// Takes the wall time anew, after the machine was paused.
    pub fn resync(&mut self) {
        self.base_s = i64::try_from(self.clock.wall()).unwrap_or(LAST_SECOND);
        self.base_ns = self.clock.now_ns();
        self.seen_ns = self.base_ns;
    }

    /// Guest time, in nanoseconds, of the next interrupt that is enabled and
    /// not already pending.
    pub fn deadline(&self) -> Option<u64> {
        let enabled = self.ram[REG_B] & 0x70;
        // pending flags of enabled interrupts hold the wire already
        let wanted = enabled & !self.ram[REG_C];
        if enabled & self.ram[REG_C] != 0 {
            return None;
        }
        let mut due: Option<u64> = None;
        let mut add = |t: Option<u64>| {
            if let Some(t) = t {
                due = Some(due.map_or(t, |d| d.min(t)));
            }
        };
        if wanted & C_PF != 0 {
            add(self.period_ns().map(|p| {
                let since = self.seen_ns.saturating_sub(self.base_ns);
                self.base_ns.saturating_add((since / p + 1).saturating_mul(p))
            }));
        }
        if self.running() {
            let second = self.second_at(self.seen_ns);
            if wanted & C_UF != 0 {
                add(self.ns_of(second + 1));
            }
            if wanted & C_AF != 0 {
                add(self.seconds_to_alarm(second).and_then(|n| self.ns_of(second + n)));
            }
        }
        due
    }

    /// Brings the interrupt flags up to now. To be called at the deadline.
    pub fn tick(&mut self) {
        let now = self.clock.now_ns();
        let then = self.seen_ns;
        if now <= then {
            return;
        }
        let mut flags = 0;
        if let Some(p) = self.period_ns() {
            let n = |t: u64| t.saturating_sub(self.base_ns) / p;
            if n(now) > n(then) {
                flags |= C_PF;
            }
        }
        if self.running() {
            let (a, b) = (self.second_at(then), self.second_at(now));
            if b > a {
                flags |= C_UF;
                if self.seconds_to_alarm(a).is_some_and(|n| a + n <= b) {
                    flags |= C_AF;
                }
            }
        }
        self.seen_ns = now;
        self.ram[REG_C] |= flags;
        self.update_irq();
    }

    fn update_irq(&mut self) {
        let c = self.ram[REG_C] & 0x70;
        let irqf = c & self.ram[REG_B] != 0;
        self.ram[REG_C] = c | if irqf { C_IRQF } else { 0 };
        self.irq.set(irqf);
    }

    fn running(&self) -> bool {
        self.ram[REG_B] & B_SET == 0 && self.ram[REG_A] & A_DIVIDER == A_DIVIDER_32K
    }

    /// Period of the periodic interrupt (data sheet, table 5).
    fn period_ns(&self) -> Option<u64> {
        let rate = self.ram[REG_A] & 0xf;
        if rate == 0 || self.ram[REG_A] & A_DIVIDER != A_DIVIDER_32K {
            return None;
        }
        // rates 1 and 2 are those of 8 and 9 with this time base
        let rate = if rate < 3 { rate + 7 } else { rate };
        Some((SECOND << (rate - 1)) / 32_768)
    }

    /// What the clock shows at guest time `ns`, seconds since 1970.
    fn second_at(&self, ns: u64) -> i64 {
        let since = (ns.saturating_sub(self.base_ns) / SECOND) as i64;
        self.base_s.saturating_add(since).saturating_add(self.offset_s).clamp(0, LAST_SECOND)
    }

    /// Guest time at which the clock turns to `second`; it stands still at the
    /// last second it can show.
    fn ns_of(&self, second: i64) -> Option<u64> {
        if second > LAST_SECOND {
            return None;
        }
        let since = second.checked_sub(self.base_s.checked_add(self.offset_s)?)?;
        u64::try_from(since).ok()?.checked_mul(SECOND)?.checked_add(self.base_ns)
    }

    /// Seconds after `second` at which the alarm next matches, if it ever does.
    fn seconds_to_alarm(&self, second: i64) -> Option<i64> {
        let field = |i: usize| {
            let v = self.ram[i];
            // 11xxxxxx is "don't care"
            (v & 0xc0 != 0xc0).then(|| if i == HOURS_ALARM { self.decode_hour(v) } else { self.decode(v) })
        };
        let (h, m, s) = (field(HOURS_ALARM), field(MINUTES_ALARM), field(SECONDS_ALARM));
        let from = second.rem_euclid(DAY_S) + 1;
        let mut t = from;
        // hours, then minutes, then seconds are skipped in one step each
        while t < from + DAY_S {
            let tod = t % DAY_S;
            if h.is_some_and(|h| h != tod / 3600) {
                t += 3600 - tod % 3600;
            } else if m.is_some_and(|m| m != tod / 60 % 60) {
                t += 60 - tod % 60;
            } else if s.is_some_and(|s| s != tod % 60) {
                t += 1;
            } else {
                return Some(t - from + 1);
            }
        }
        None
    }

    fn encode(&self, v: i64) -> u8 {
        let v = v as u8;
        if self.ram[REG_B] & B_BINARY != 0 { v } else { ((v / 10) << 4) | (v % 10) }
    }

    fn decode(&self, v: u8) -> i64 {
        if self.ram[REG_B] & B_BINARY != 0 {
            i64::from(v)
        } else {
            i64::from(v >> 4) * 10 + i64::from(v & 0xf)
        }
    }

    fn encode_hour(&self, h: i64) -> u8 {
        if self.ram[REG_B] & B_24H != 0 {
            return self.encode(h);
        }
        let pm = if h >= 12 { 0x80 } else { 0 };
        self.encode(if h % 12 == 0 { 12 } else { h % 12 }) | pm
    }

    fn decode_hour(&self, v: u8) -> i64 {
        if self.ram[REG_B] & B_24H != 0 {
            return self.decode(v);
        }
        self.decode(v & 0x7f) % 12 + if v & 0x80 != 0 { 12 } else { 0 }
    }

    /// Writes the date of `second` into the time registers.
    fn show(&mut self, second: i64) {
        let (y, m, d) = civil(second.div_euclid(DAY_S));
        let tod = second.rem_euclid(DAY_S);
        self.ram[SECONDS] = self.encode(tod % 60);
        self.ram[MINUTES] = self.encode(tod / 60 % 60);
        self.ram[HOURS] = self.encode_hour(tod / 3600);
        self.ram[WEEKDAY] = self.encode((second.div_euclid(DAY_S) + 4).rem_euclid(7) + 1);
        self.ram[DAY] = self.encode(d);
        self.ram[MONTH] = self.encode(m);
        self.ram[YEAR] = self.encode(y % 100);
        // the century is BCD whatever register B says: firmware keeps it
        let century = (y / 100) as u8;
        self.ram[CENTURY] =
            if self.ram[REG_B] & B_BINARY != 0 { century } else { ((century / 10) << 4) | (century % 10) };
    }

    /// Takes the time registers as the date from now on.
    fn take_over(&mut self) {
        let now = self.clock.now_ns();
        let year = self.decode(self.ram[CENTURY]) * 100 + self.decode(self.ram[YEAR]);
        let days = days_from_civil(year, self.decode(self.ram[MONTH]), self.decode(self.ram[DAY]));
        let second = days
            .saturating_mul(DAY_S)
            .saturating_add(self.decode_hour(self.ram[HOURS]) * 3600)
            .saturating_add(self.decode(self.ram[MINUTES]) * 60)
            .saturating_add(self.decode(self.ram[SECONDS]))
            .clamp(0, LAST_SECOND);
        // the next update comes a second from now
        self.base_s = i64::try_from(self.clock.wall()).unwrap_or(LAST_SECOND);
        self.base_ns = now;
        self.seen_ns = now;
        self.offset_s = second - self.base_s;
    }

    /// Copies the running clock into the registers, unless it is stopped.
    fn refresh(&mut self) {
        if self.running() {
            self.show(self.second_at(self.clock.now_ns()));
        }
    }

    fn read_reg(&mut self, index: usize) -> u8 {
        self.tick();
        match index {
            0..=YEAR | CENTURY => {
                self.refresh();
                self.ram[index]
            }
            REG_A => {
                let phase = self.clock.now_ns().saturating_sub(self.base_ns) % SECOND;
                let uip = self.running() && phase >= SECOND - UIP_NS;
                self.ram[REG_A] & !A_UIP | if uip { A_UIP } else { 0 }
            }
            REG_C => {
                let c = std::mem::take(&mut self.ram[REG_C]);
                self.irq.set(false);
                c
            }
            REG_D => D_VALID,
            _ => self.ram[index],
        }
    }

    fn write_reg(&mut self, index: usize, value: u8) {
        self.tick();
        match index {
            SECONDS_ALARM | MINUTES_ALARM | HOURS_ALARM => self.ram[index] = value,
            0..=YEAR | CENTURY => {
                self.refresh();
                self.ram[index] = value;
                if self.running() {
                    self.take_over();
                }
            }
            REG_A => {
                self.refresh();
                let was = self.running();
                self.ram[REG_A] = value & !A_UIP;
                if self.running() && !was {
                    self.take_over();
                }
            }
            REG_B => {
                self.refresh();
                let was = self.running();
                // setting SET clears UIE (data sheet, register B)
                let clear = if value & B_SET != 0 { C_UF } else { 0 };
                self.ram[REG_B] = value & !clear;
                if self.running() && !was {
                    self.take_over();
                }
                self.update_irq();
            }
            REG_C | REG_D => {}
            _ => self.ram[index] = value,
        }
    }
}

/// Days since 1970 of a date in the Gregorian calendar; months and days out of
/// range carry over.
fn days_from_civil(y: i64, m: i64, d: i64) -> i64 {
    let y = y + (m - 1).div_euclid(12);
    let m = (m - 1).rem_euclid(12) + 1;
    let y = if m <= 2 { y - 1 } else { y };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// Year, month and day of a day since 1970.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    let y = yoe + era * 400 + i64::from(m <= 2);
    (y, m, doy - (153 * mp + 2) / 5 + 1)
}

impl Device for Rtc {
    type State = RtcState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if offset == 1
            && let Some(first) = data.first_mut()
        {
            *first = self.read_reg(usize::from(self.index & 0x7f));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.first()) {
            // bit 7 is the PC's NMI mask; it is kept, there is no NMI to mask
            (0, Some(&v)) => self.index = v,
            (1, Some(&v)) => self.write_reg(usize::from(self.index & 0x7f), v),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.index = 0;
        self.ram = [0; 128];
        self.ram[REG_A] = 0x26;
        self.ram[REG_B] = B_24H;
        self.offset_s = 0;
        self.resync();
        self.irq.set(false);
    }

    fn save(&self) -> RtcState {
        RtcState { index: self.index, ram: self.ram.to_vec(), offset_s: self.offset_s }
    }

    fn load(&mut self, state: RtcState) -> Result<(), StateError> {
        self.ram = state.ram.try_into().map_err(|_| StateError::new("rtc", "ram", "is not 128 bytes"))?;
        self.index = state.index;
        self.offset_s = state.offset_s.clamp(-LAST_SECOND, LAST_SECOND);
        self.resync();
        self.irq.set(self.ram[REG_C] & self.ram[REG_B] & (B_PIE | C_AF | C_UF) != 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestClock, TestLine, inb, outb};

    fn rtc() -> (Rtc, Arc<TestClock>, Arc<TestLine>) {
        let (clock, irq) = (TestClock::new(), TestLine::new());
        (Rtc::new(clock.clone(), irq.clone()), clock, irq)
    }

    device_tests!(every_device, || {
        let (device, clock, _) = rtc();
        Fixture {
            device,
            offsets: vec![0, 1],
            outside: vec![2, 3, 0x70, u64::MAX],
            disturb: Box::new(move |d, n| {
                clock.advance(n * 123_456_789);
                d.deadline();
                d.tick();
                // time registers are only copied out when read
                for i in [0u8, CENTURY as u8] {
                    outb(d, 0, i);
                    inb(d, 1);
                }
                outb(d, 0, 0);
            }),
        }
    });

    fn get(r: &mut Rtc, index: u8) -> u8 {
        outb(r, 0, index);
        inb(r, 1)
    }

    fn put(r: &mut Rtc, index: u8, value: u8) {
        outb(r, 0, index);
        outb(r, 1, value);
    }

    fn date(r: &mut Rtc) -> [u8; 8] {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map(|i| get(r, i))
    }

    #[test]
    fn shows_the_wall_clock_in_bcd_and_binary() {
        let (mut r, clock, _) = rtc();
        // 2024-02-29 23:59:50, a Thursday
        assert_eq!(date(&mut r), [0x20, 0x24, 2, 0x29, 0x23, 0x59, 0x50, 5]);
        clock.advance(10 * SECOND);
        assert_eq!(date(&mut r), [0x20, 0x24, 3, 1, 0, 0, 0, 6]);
        put(&mut r, 11, 6);
        assert_eq!(date(&mut r), [20, 24, 3, 1, 0, 0, 0, 6]);
        put(&mut r, 11, 4); // 12-hour: midnight is 12 AM
        assert_eq!(get(&mut r, 4), 12);
    }

    #[test]
    fn the_calendar_is_its_own_inverse() {
        for day in (-1_000..3_000_000).step_by(17) {
            let (y, m, d) = civil(day);
            assert_eq!(days_from_civil(y, m, d), day);
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(days_from_civil(2000, 2, 29) + 1, days_from_civil(2000, 3, 1));
    }

    #[test]
    fn the_guest_can_set_it() {
        let (mut r, clock, _) = rtc();
        put(&mut r, 11, 0x82);
        for (i, v) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x59)] {
            put(&mut r, i, v);
        }
        clock.advance(5 * SECOND);
        assert_eq!(get(&mut r, 0), 0x59, "SET stops the clock");
        put(&mut r, 11, 2);
        clock.advance(SECOND);
        assert_eq!(date(&mut r), [0x20, 0, 1, 1, 0, 0, 0, 7]);
    }

    #[test]
    fn update_in_progress_precedes_the_second() {
        let (mut r, clock, _) = rtc();
        assert_eq!(get(&mut r, 10) & 0x80, 0);
        clock.advance(SECOND - 100_000);
        assert_eq!(get(&mut r, 10) & 0x80, 0x80);
        let before = get(&mut r, 0);
        clock.advance(100_000);
        assert_eq!(get(&mut r, 10) & 0x80, 0);
        assert_eq!(get(&mut r, 0), before + 1);
    }

    #[test]
    fn update_interrupt_comes_each_second_until_read() {
        let (mut r, clock, irq) = rtc();
        put(&mut r, 11, 0x12);
        for _ in 0..3 {
            let due = r.deadline().unwrap();
            assert_eq!((due - 5 * SECOND) % SECOND, 0);
            clock.set(due);
            r.tick();
            assert!(irq.level());
            assert_eq!(r.deadline(), None);
            assert_eq!(get(&mut r, 12) & 0x90, 0x90);
            assert!(!irq.level());
        }
    }

    #[test]
    fn alarm_fires_at_its_time_and_wildcards_match() {
        let (mut r, clock, irq) = rtc();
        for (i, v) in [(5, 0), (3, 0), (1, 5)] {
            put(&mut r, i, v); // 00:00:05
        }
        put(&mut r, 11, 0x22);
        assert_eq!(r.deadline(), Some(20 * SECOND));
        clock.set(20 * SECOND);
        r.tick();
        assert!(irq.level());
        assert_eq!(get(&mut r, 12) & 0xa0, 0xa0);
        put(&mut r, 5, 0xff);
        put(&mut r, 3, 0xff);
        assert_eq!(r.deadline(), Some(80 * SECOND));
        put(&mut r, 1, 0x77); // never
        assert_eq!(r.deadline(), None);
    }

    #[test]
    fn periodic_interrupt_has_its_rate() {
        let (mut r, clock, irq) = rtc();
        put(&mut r, 10, 0x26);
        put(&mut r, 11, 0x42);
        for _ in 0..1024 {
            clock.set(r.deadline().unwrap());
            r.tick();
            assert!(irq.level());
            get(&mut r, 12);
        }
        let took = clock.now_ns() - 5 * SECOND;
        assert!(took.abs_diff(SECOND) < 1_000_000, "{took}");
    }

    #[test]
    fn cmos_keeps_what_is_written() {
        let (mut r, _, _) = rtc();
        put(&mut r, 0x40, 0xa5);
        assert_eq!(get(&mut r, 0x40), 0xa5);
        assert_eq!(get(&mut r, 0x40 | 0x80), 0xa5);
        assert_eq!(get(&mut r, 13), 0x80);
    }

    #[test]
    fn impossible_dates_do_not_panic() {
        let (mut r, _, _) = rtc();
        for b in [0x82, 0x86] {
            for v in [0, 0x1f, 0x7f, 0xff] {
                put(&mut r, 11, b);
                for i in [0, 2, 4, 6, 7, 8, 9, 0x32] {
                    put(&mut r, i, v);
                }
                put(&mut r, 11, b & 0x7f);
                date(&mut r);
            }
        }
    }

    #[test]
    fn at_the_end_of_time_there_is_no_deadline() {
        let (mut d, clock, _) = rtc();
        // 24 hours, binary, stopped; then 9999-12-31 23:59:59, running
        for (index, value) in
            [(0xb, 0x86), (0, 59), (2, 59), (4, 23), (7, 31), (8, 12), (9, 99), (0x32, 99), (0xb, 0x36)]
        {
            outb(&mut d, 0, index);
            outb(&mut d, 1, value);
        }
        clock.advance(3 * SECOND);
        d.tick();
        outb(&mut d, 0, 0xc);
        inb(&mut d, 1);
        assert_eq!(d.deadline(), None);
        outb(&mut d, 0, 0);
        assert_eq!(inb(&mut d, 1), 59);
    }
}

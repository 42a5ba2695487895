//! ACPI fixed hardware: PM1a event and control blocks, the PM timer
//! (*ACPI 6.4 §4.8.3*), and the reset register CF9h.
//!
//! The block is 12 ports, placed by the board and named in the FADT:
//!
//! | offset | register | FADT field |
//! |---|---|---|
//! | 0 | PM1 status, 2 bytes | PM1a_EVT_BLK, length 4 |
//! | 2 | PM1 enable, 2 bytes | |
//! | 4 | PM1 control, 2 bytes | PM1a_CNT_BLK, length 2 |
//! | 8 | PM timer, 4 bytes | PM_TMR_BLK, length 4 |
//!
//! There is no SMI command: SCI_EN reads as one from the start, which is what
//! an FADT without SMI_CMD promises.
//!
//! | threat | guard |
//! |---|---|
//! | the guest switches off again and again | reported each time; the board acts once |
//! | SCI storm | a wire that stays while a status bit is both set and enabled |

use crate::bytes::value;
use crate::device::{Clock, Device, PowerSink, StateError, nanos, ticks};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The PM timer's rate in hertz (*ACPI 6.4 §4.8.3.3*).
pub const PM_TIMER_HZ: u64 = 3_579_545;

/// Offset of PM1a_EVT_BLK in the block.
pub const PM1_EVENT: u16 = 0;
/// Offset of PM1a_CNT_BLK in the block.
pub const PM1_CONTROL: u16 = 4;
/// Offset of PM_TMR_BLK in the block.
pub const PM_TIMER: u16 = 8;

const STS_TMR: u16 = 1;
const STS_PWRBTN: u16 = 1 << 8;
/// Status bits that exist; each is cleared by writing one.
const STS_MASK: u16 = STS_TMR | 1 << 5 | STS_PWRBTN | 1 << 10 | 1 << 15;
/// Enable bits that exist: timer, global lock, power button, RTC.
const EN_MASK: u16 = STS_TMR | 1 << 5 | STS_PWRBTN | 1 << 10;

const CNT_SCI_EN: u16 = 1;
const CNT_SLP_EN: u16 = 1 << 13;
/// BM_RLD and SLP_TYP are kept; GBL_RLS and SLP_EN read as zero.
const CNT_MASK: u16 = 2 | 7 << 10;

/// What a snapshot keeps of the PM block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmState {
    status: u16,
    enable: u16,
    control: u16,
    /// Up to here the timer's carries were noted.
    seen_ns: u64,
}

/// ACPI PM1a and PM timer.
pub struct AcpiPm {
    clock: Arc<dyn Clock>,
    sci: Arc<dyn IrqLine>,
    power: Arc<dyn PowerSink>,
    s5: u8,
    timer_bits: u32,
    status: u16,
    enable: u16,
    control: u16,
    seen_ns: u64,
}

impl AcpiPm {
    /// Number of ports.
    pub const PORTS: u64 = 12;

    /// A PM block. `s5` is the SLP_TYP value the DSDT's `\_S5` names;
    /// `timer_32bit` is the FADT's TMR_VAL_EXT flag.
    pub fn new(
        clock: Arc<dyn Clock>,
        sci: Arc<dyn IrqLine>,
        power: Arc<dyn PowerSink>,
        s5: u8,
        timer_32bit: bool,
    ) -> Self {
        let seen_ns = clock.now_ns();
        Self {
            clock,
            sci,
            power,
            s5: s5 & 7,
            timer_bits: if timer_32bit { 32 } else { 24 },
            status: 0,
            enable: 0,
            control: CNT_SCI_EN,
            seen_ns,
        }
    }

    /// The user pressed the power button: an SCI if the guest enabled it.
    pub fn press_power_button(&mut self) {
        self.status |= STS_PWRBTN;
        self.update();
    }

    /// Guest time, in nanoseconds, of the next timer carry the guest wants to
    /// hear of.
    pub fn deadline(&self) -> Option<u64> {
        if self.enable & STS_TMR == 0 || self.status & STS_TMR != 0 {
            return None;
        }
        let half = 1u64 << (self.timer_bits - 1);
        let next = (ticks(self.seen_ns, PM_TIMER_HZ) / half).checked_add(1)?;
        Some(nanos(next.checked_mul(half)?, PM_TIMER_HZ))
    }

    /// Notes a carry of the timer due by now. To be called at the deadline.
    pub fn tick(&mut self) {
        let now = self.clock.now_ns();
        // TMR_STS is set whenever the most significant bit changes
        let half = 1u64 << (self.timer_bits - 1);
        let carry = |ns| ticks(ns, PM_TIMER_HZ) / half;
        if carry(now) != carry(self.seen_ns) {
            self.status |= STS_TMR;
        }
        self.seen_ns = now.max(self.seen_ns);
        self.update();
    }

    fn update(&mut self) {
        self.sci.set(self.status & self.enable != 0);
    }

    fn image(&mut self) -> [u8; 12] {
        self.tick();
        let timer = ticks(self.clock.now_ns(), PM_TIMER_HZ) & ((1u64 << self.timer_bits) - 1);
        let mut image = [0; 12];
        image[0..2].copy_from_slice(&self.status.to_le_bytes());
        image[2..4].copy_from_slice(&self.enable.to_le_bytes());
        image[4..6].copy_from_slice(&self.control.to_le_bytes());
        image[8..12].copy_from_slice(&(timer as u32).to_le_bytes());
        image
    }

    fn write_control(&mut self, v: u16, written: u16) {
        self.control = (self.control & !(written & CNT_MASK)) | (v & written & CNT_MASK) | CNT_SCI_EN;
        if v & written & CNT_SLP_EN != 0 && (self.control >> 10 & 7) as u8 == self.s5 {
            self.power.power_off();
        }
    }
}

impl Device for AcpiPm {
    type State = PmState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= Self::PORTS {
            data.fill(0xff);
            return;
        }
        let image = self.image();
        crate::bytes::read_image(&image, offset, data, 0xff);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= Self::PORTS || data.is_empty() {
            return;
        }
        self.tick();
        // gather what the access touches of each 16-bit register, so that a
        // byte or a double word works like a word
        let data = &data[..data.len().min(8)];
        let shift = 8 * (offset as u32);
        let bits = u128::from(value(data)) << shift;
        let mask = ((1u128 << (8 * data.len())) - 1) << shift;
        let reg = |n: u32| ((bits >> (16 * n)) as u16, (mask >> (16 * n)) as u16);
        let (v, m) = reg(0);
        self.status &= !(v & m & STS_MASK);
        let (v, m) = reg(1);
        self.enable = (self.enable & !m) | (v & m & EN_MASK);
        let (v, m) = reg(2);
        if m != 0 {
            self.write_control(v, m);
        }
        self.update();
    }

    fn reset(&mut self) {
        self.status = 0;
        self.enable = 0;
        self.control = CNT_SCI_EN;
        self.seen_ns = self.clock.now_ns();
        self.update();
    }

    fn save(&self) -> PmState {
        PmState { status: self.status, enable: self.enable, control: self.control, seen_ns: self.seen_ns }
    }

    fn load(&mut self, state: PmState) -> Result<(), StateError> {
        if state.status & !STS_MASK != 0 || state.enable & !EN_MASK != 0 {
            return Err(StateError::new("pm", "PM1 registers", "have reserved bits set"));
        }
        self.status = state.status;
        self.enable = state.enable;
        self.control = state.control & CNT_MASK | CNT_SCI_EN;
        self.seen_ns = state.seen_ns;
        self.update();
        Ok(())
    }
}

/// Reset control register, port CF9h (*Intel ICH9 data sheet §13.7.5*): the
/// FADT's RESET_REG, with RESET_VALUE 06h or 0Eh. One port, offset 0; it lies
/// inside the PCI configuration ports, which own one
/// ([`ConfigPorts`](crate::pci::ConfigPorts)).
pub struct ResetControl {
    power: Arc<dyn PowerSink>,
    value: u8,
}

impl ResetControl {
    /// A register that reports resets to `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { power, value: 0 }
    }
}

impl Device for ResetControl {
    type State = u8;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if offset == 0
            && let Some(first) = data.first_mut()
        {
            *first = self.value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset != 0 {
            return;
        }
        if let Some(&v) = data.first() {
            // RST_CPU going from 0 to 1 starts the reset; SYS_RST and
            // FULL_RST only choose its kind
            let rises = v & 4 != 0 && self.value & 4 == 0;
            self.value = v & 0x0e;
            if rises {
                self.power.reset();
            }
        }
    }

    fn reset(&mut self) {
        self.value = 0;
    }

    fn save(&self) -> u8 {
        self.value
    }

    fn load(&mut self, state: u8) -> Result<(), StateError> {
        self.value = state & 0x0e;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestClock, TestLine, TestPower, inb, outb, read, write};

    const S5: u8 = 5;

    fn pm(wide: bool) -> (AcpiPm, Arc<TestClock>, Arc<TestLine>, Arc<TestPower>) {
        let (clock, sci) = (TestClock::new(), TestLine::new());
        let power = Arc::new(TestPower::default());
        let pm = AcpiPm::new(clock.clone(), sci.clone(), power.clone(), S5, wide);
        (pm, clock, sci, power)
    }

    device_tests!(every_device, || {
        let (device, _, _, _) = pm(true);
        Fixture {
            device,
            offsets: (0..12).collect(),
            outside: vec![12, 0x600, u64::MAX],
            disturb: Box::new(|d, _| {
                d.press_power_button();
                d.deadline();
                d.tick();
            }),
        }
    });

    device_tests!(reset_register, || Fixture {
        device: ResetControl::new(Arc::new(TestPower::default())),
        offsets: vec![0],
        outside: vec![1, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn sleep_type_5_switches_off() {
        let (mut p, _, _, power) = pm(true);
        assert_eq!(read(&mut p, 4, 2) & 1, 1, "ACPI mode from the start");
        write(&mut p, 4, 2, 3 << 10 | 1 << 13);
        assert_eq!(power.counts(), (0, 0));
        // Linux writes the type first, then with SLP_EN
        write(&mut p, 4, 2, u64::from(S5) << 10 | 1);
        write(&mut p, 4, 2, u64::from(S5) << 10 | 1 << 13 | 1);
        assert_eq!(power.counts(), (1, 0));
        assert_eq!(read(&mut p, 4, 2) >> 13, 0, "SLP_EN is write-only");
    }

    #[test]
    fn byte_writes_switch_off_too() {
        let (mut p, _, _, power) = pm(true);
        outb(&mut p, 5, S5 << 2 | 0x20);
        assert_eq!(power.counts(), (1, 0));
    }

    #[test]
    fn power_button_raises_sci_until_acknowledged() {
        let (mut p, _, sci, _) = pm(true);
        p.press_power_button();
        assert!(!sci.level(), "not enabled yet");
        write(&mut p, 2, 2, 0x100);
        assert!(sci.level());
        assert_eq!(read(&mut p, 0, 2), 0x100);
        write(&mut p, 0, 2, 0x100);
        assert!(!sci.level());
        assert_eq!(read(&mut p, 0, 4), 0x100_0000);
    }

    #[test]
    fn timer_counts_at_its_rate_and_width() {
        for (wide, bits) in [(true, 32), (false, 24)] {
            let (mut p, clock, _, _) = pm(wide);
            let a = read(&mut p, 8, 4);
            clock.advance(1_000_000_000);
            let b = read(&mut p, 8, 4);
            assert_eq!(b.wrapping_sub(a) & ((1 << bits) - 1), PM_TIMER_HZ);
            clock.advance(100_000_000_000_000);
            assert!(read(&mut p, 8, 4) < 1 << bits);
        }
    }

    #[test]
    fn timer_carry_sets_status_at_the_deadline() {
        let (mut p, clock, sci, _) = pm(false);
        write(&mut p, 2, 2, 1);
        let due = p.deadline().unwrap();
        clock.set(due - 1000);
        p.tick();
        assert!(!sci.level());
        clock.set(due);
        p.tick();
        assert!(sci.level());
        assert_eq!(p.deadline(), None);
        write(&mut p, 0, 2, 1);
        assert!(!sci.level());
        // half a period of 24 bits: 2.34 s
        assert!((p.deadline().unwrap() - due).abs_diff(2_343_484_437) < 2000);
    }

    #[test]
    fn cf9_resets_on_the_rising_edge() {
        let power = Arc::new(TestPower::default());
        let mut r = ResetControl::new(power.clone());
        outb(&mut r, 0, 2);
        assert_eq!((inb(&mut r, 0), power.counts()), (2, (0, 0)));
        outb(&mut r, 0, 6);
        outb(&mut r, 0, 6);
        assert_eq!(power.counts(), (0, 1));
    }
}

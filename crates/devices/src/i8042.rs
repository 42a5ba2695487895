//! Keyboard controller without a keyboard (*IBM PC AT technical reference,
//! 8042 command set*): ports 60h and 64h, here offsets 0 and 4.
//!
//! It exists because resetting through it (command FEh) is what kernels fall
//! back to. It passes its self-test and says what a controller with nothing
//! plugged in says, so a driver gives up at once instead of waiting.
//!
//! | threat | guard |
//! |---|---|
//! | endless commands | one byte of output, no queue |

use crate::device::{Device, PowerSink, StateError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const DATA: u64 = 0;
const COMMAND: u64 = 4;

const STATUS_OBF: u8 = 1;
const STATUS_SYSTEM: u8 = 4;
const STATUS_COMMAND: u8 = 8;
const STATUS_UNLOCKED: u8 = 0x10;
const STATUS_TIMEOUT: u8 = 0x40;

/// What an unanswered byte to a device is answered with: "resend".
const NO_DEVICE: u8 = 0xfe;

/// What a snapshot keeps of the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct I8042State {
    /// Command byte: interrupts off, both ports disabled.
    control: u8,
    output: Option<u8>,
    timeout: bool,
    last_was_command: bool,
    self_tested: bool,
    output_port: u8,
    /// Command whose parameter the next write to port 60h is.
    expects: Option<u8>,
}

impl Default for I8042State {
    fn default() -> Self {
        Self {
            control: 0x30,
            output: None,
            timeout: false,
            last_was_command: false,
            self_tested: true,
            output_port: 0x03,
            expects: None,
        }
    }
}

/// The controller.
pub struct I8042 {
    power: Arc<dyn PowerSink>,
    s: I8042State,
}

impl I8042 {
    /// A controller that reports reset requests to `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { power, s: I8042State::default() }
    }

    fn status(&self) -> u8 {
        let s = &self.s;
        let bit = |on, mask| if on { mask } else { 0 };
        // the input buffer is always empty: commands are carried out at once
        STATUS_UNLOCKED
            | bit(s.output.is_some(), STATUS_OBF)
            | bit(s.self_tested, STATUS_SYSTEM)
            | bit(s.last_was_command, STATUS_COMMAND)
            | bit(s.timeout, STATUS_TIMEOUT)
    }

    fn answer(&mut self, byte: u8) {
        self.s.output = Some(byte);
        self.s.timeout = false;
    }

    fn no_device(&mut self) {
        self.s.output = Some(NO_DEVICE);
        self.s.timeout = true;
    }

    fn command(&mut self, command: u8) {
        self.s.last_was_command = true;
        self.s.expects = None;
        match command {
            0x20 => self.answer(self.s.control),
            0xaa => {
                self.s.self_tested = true;
                self.answer(0x55);
            }
            // keyboard interface: wires fine; second port: there is none, its
            // clock line is stuck low
            0xab => self.answer(0),
            0xa9 => self.answer(1),
            0xa7 => self.s.control |= 0x20,
            0xa8 => self.s.control &= !0x20,
            0xad => self.s.control |= 0x10,
            0xae => self.s.control &= !0x10,
            0xd0 => self.answer(self.s.output_port),
            0x60 | 0xd1..=0xd4 => self.s.expects = Some(command),
            // pulse output lines low; line 0 is the processor's reset
            0xf0..=0xff if command & 1 == 0 => self.power.reset(),
            _ => {}
        }
    }

    fn data(&mut self, byte: u8) {
        self.s.last_was_command = false;
        match self.s.expects.take() {
            Some(0x60) => {
                self.s.control = byte;
                self.s.self_tested = byte & 4 != 0 || self.s.self_tested;
            }
            Some(0xd1) => {
                self.s.output_port = byte;
                if byte & 1 == 0 {
                    self.power.reset();
                }
            }
            Some(0xd2 | 0xd3) => self.answer(byte),
            _ => self.no_device(),
        }
    }
}

impl Device for I8042 {
    type State = I8042State;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(first) = data.first_mut() {
            match offset {
                DATA => {
                    self.s.timeout = false;
                    *first = self.s.output.take().unwrap_or(0);
                }
                COMMAND => *first = self.status(),
                _ => {}
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.first()) {
            (DATA, Some(&v)) => self.data(v),
            (COMMAND, Some(&v)) => self.command(v),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.s = I8042State::default();
    }

    fn save(&self) -> I8042State {
        self.s.clone()
    }

    fn load(&mut self, state: I8042State) -> Result<(), StateError> {
        self.s = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestPower, inb, outb};

    fn kbc() -> (I8042, Arc<TestPower>) {
        let power = Arc::new(TestPower::default());
        (I8042::new(power.clone()), power)
    }

    device_tests!(every_device, || Fixture {
        device: kbc().0,
        offsets: vec![0, 4],
        outside: vec![1, 2, 3, 5, 0x64, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn reset_command_resets() {
        let (mut k, power) = kbc();
        assert_eq!(inb(&mut k, 4) & 2, 0, "input buffer empty, or Linux waits");
        outb(&mut k, 4, 0xfe);
        assert_eq!(power.counts(), (0, 1));
        outb(&mut k, 4, 0xff); // pulses nothing
        assert_eq!(power.counts(), (0, 1));
        outb(&mut k, 4, 0xd1);
        outb(&mut k, 0, 0xfe);
        assert_eq!(power.counts(), (0, 2));
    }

    #[test]
    fn self_test_passes_and_no_keyboard_answers() {
        let (mut k, _) = kbc();
        outb(&mut k, 4, 0xaa);
        assert_eq!(inb(&mut k, 4) & 1, 1);
        assert_eq!(inb(&mut k, 0), 0x55);
        assert_eq!(inb(&mut k, 4) & 1, 0);
        outb(&mut k, 0, 0xf2); // identify
        assert_eq!(inb(&mut k, 4) & 0x41, 0x41);
        assert_eq!(inb(&mut k, 0), 0xfe);
        assert_eq!(inb(&mut k, 4) & 0x41, 0);
        outb(&mut k, 4, 0x60);
        outb(&mut k, 0, 0x74);
        outb(&mut k, 4, 0x20);
        assert_eq!(inb(&mut k, 0), 0x74);
    }
}

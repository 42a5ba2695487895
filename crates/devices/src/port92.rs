//! System control port A, port 92h (*IBM PS/2 technical reference*; *Intel ICH9
//! data sheet §13.7.2*).
//!
//! | bit | what |
//! |---|---|
//! | 0 | written as one after a zero: reset |
//! | 1 | A20; address line 20 is never masked, the bit is only kept |
//!
//! | threat | guard |
//! |---|---|
//! | resets again and again | reported each time; the board acts once |

use crate::device::{Device, PowerSink, StateError};
use std::sync::Arc;

const FAST_INIT: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// The port.
pub struct Port92 {
    power: Arc<dyn PowerSink>,
    value: u8,
}

impl Port92 {
    /// A port that reports resets to `power`.
    pub fn new(power: Arc<dyn PowerSink>) -> Self {
        Self { power, value: A20 }
    }
}

impl Device for Port92 {
    type State = u8;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (0, Some(first)) = (offset, data.first_mut()) {
            *first = self.value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (0, Some(&v)) = (offset, data.first()) {
            let rises = v & !self.value & FAST_INIT != 0;
            self.value = v & (FAST_INIT | A20);
            if rises {
                self.power.reset();
            }
        }
    }

    fn reset(&mut self) {
        self.value = A20;
    }

    fn save(&self) -> u8 {
        self.value
    }

    fn load(&mut self, state: u8) -> Result<(), StateError> {
        if state & !(FAST_INIT | A20) != 0 {
            return Err(StateError::new("port 92h", "value", "has reserved bits set"));
        }
        self.value = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestPower, inb, outb};

    device_tests!(every_device, || Fixture {
        device: Port92::new(Arc::new(TestPower::default())),
        offsets: vec![0],
        outside: vec![1, 0x92, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn bit_0_resets_when_it_rises() {
        let power = Arc::new(TestPower::default());
        let mut port = Port92::new(power.clone());
        assert_eq!(inb(&mut port, 0), 2, "A20 is on");
        // as boot loaders turn A20 on
        let on = inb(&mut port, 0) | 2;
        outb(&mut port, 0, on & !1);
        assert_eq!(power.counts(), (0, 0));
        outb(&mut port, 0, 3);
        outb(&mut port, 0, 3);
        assert_eq!((power.counts(), inb(&mut port, 0)), ((0, 1), 3));
    }
}

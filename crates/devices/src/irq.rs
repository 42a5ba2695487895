//! Interrupt wires.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A level-triggered wire, for instance into an I/O APIC pin.
///
/// `true` means *asserted*, whatever voltage that is; the polarity bits of
/// interrupt controllers are stored but change nothing here.
pub trait IrqLine: Send + Sync {
    /// Asserts or releases the wire. Repeating the present level is allowed
    /// and means nothing.
    fn set(&self, level: bool);
}

/// A wire connected to nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoLine;

impl IrqLine for NoLine {
    fn set(&self, _level: bool) {}
}

/// Splits one wire into several outputs (IRQ 0 goes to the PIC and to pin 2 of
/// the I/O APIC).
pub struct FanOut(pub Vec<Arc<dyn IrqLine>>);

impl IrqLine for FanOut {
    fn set(&self, level: bool) {
        for line in &self.0 {
            line.set(level);
        }
    }
}

/// Joins up to 64 wires into one that is asserted while any input is: a
/// shared PCI interrupt pin.
pub struct WiredOr {
    inputs: AtomicU64,
    out: Arc<dyn IrqLine>,
}

impl WiredOr {
    /// A junction driving `out`.
    pub fn new(out: Arc<dyn IrqLine>) -> Arc<Self> {
        Arc::new(Self { inputs: AtomicU64::new(0), out })
    }

    /// Input number `index` (taken modulo 64; give each device its own).
    pub fn input(self: &Arc<Self>, index: u32) -> Arc<dyn IrqLine> {
        Arc::new(OrInput { or: Arc::clone(self), bit: 1u64.wrapping_shl(index) })
    }
}

struct OrInput {
    or: Arc<WiredOr>,
    bit: u64,
}

impl IrqLine for OrInput {
    fn set(&self, level: bool) {
        if level {
            self.or.inputs.fetch_or(self.bit, Ordering::SeqCst);
        } else {
            self.or.inputs.fetch_and(!self.bit, Ordering::SeqCst);
        }
        // Two inputs changing at once may report in either order. Drive the
        // output until what was driven is what the inputs say, so the last
        // word is right.
        loop {
            let before = self.or.inputs.load(Ordering::SeqCst);
            self.or.out.set(before != 0);
            if (self.or.inputs.load(Ordering::SeqCst) != 0) == (before != 0) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestLine;

    #[test]
    fn shared_wire_is_asserted_while_any_input_is() {
        let out = TestLine::new();
        let or = WiredOr::new(out.clone());
        let (a, b) = (or.input(0), or.input(1));
        a.set(true);
        b.set(true);
        a.set(false);
        assert!(out.level());
        b.set(false);
        assert!(!out.level());
    }

    #[test]
    fn fan_out_reaches_every_output() {
        let (x, y) = (TestLine::new(), TestLine::new());
        let fan = FanOut(vec![x.clone(), y.clone()]);
        fan.set(true);
        assert!(x.level() && y.level());
    }
}

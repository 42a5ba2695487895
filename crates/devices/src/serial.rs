//! 16550A UART (*National Semiconductor PC16550D data sheet*).
//!
//! Ports base+0 … base+7; COM1 is 3F8h with IRQ 4. Transmission is immediate:
//! a byte written goes to the sink at once, so the transmitter is always
//! empty. Receiving is a queue the host fills with [`Serial::push`].
//!
//! | threat | guard |
//! |---|---|
//! | guest floods the output | bytes go to the sink one by one; a failing sink loses them, counted, never blocks a retry loop |
//! | guest never reads its input | the queue is bounded; `push` takes no more than [`Serial::room`] |
//! | interrupt storm by toggling IER | a wire, not messages: setting it twice is one state |
//! | saved state with a huge queue | `load` refuses more than the bound |

use crate::device::{Device, StateError};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

/// Register offsets (data sheet, table II).
mod reg {
    /// RBR/THR; divisor low byte with DLAB.
    pub(super) const DATA: u64 = 0;
    /// Interrupt enable; divisor high byte with DLAB.
    pub(super) const IER: u64 = 1;
    /// IIR when read, FCR when written.
    pub(super) const IIR_FCR: u64 = 2;
    pub(super) const LCR: u64 = 3;
    pub(super) const MCR: u64 = 4;
    pub(super) const LSR: u64 = 5;
    pub(super) const MSR: u64 = 6;
    pub(super) const SCR: u64 = 7;
}

const IER_RDA: u8 = 1;
const IER_THRE: u8 = 2;
const IER_RLS: u8 = 4;
const IER_MSI: u8 = 8;

const IIR_NONE: u8 = 1;
const IIR_MSI: u8 = 0;
const IIR_THRE: u8 = 2;
const IIR_RDA: u8 = 4;
const IIR_RLS: u8 = 6;
const IIR_TIMEOUT: u8 = 0xc;
const IIR_FIFO: u8 = 0xc0;

const FCR_ENABLE: u8 = 1;
const FCR_CLEAR_RX: u8 = 2;

const LCR_DLAB: u8 = 0x80;

const MCR_LOOP: u8 = 0x10;
const MCR_OUT2: u8 = 8;

const LSR_DR: u8 = 1;
const LSR_OE: u8 = 2;
const LSR_ERRORS: u8 = 0x1e;
const LSR_THRE: u8 = 0x20;
const LSR_TEMT: u8 = 0x40;

/// The far end's lines as a modem that is there would hold them: DCD, DSR, CTS.
const MSR_LINES: u8 = 0xb0;

/// Input the host may have waiting; far more than the chip's 16 bytes, so that
/// a paste survives, still bounded.
const INPUT_CAPACITY: usize = 4096;
/// The chip's FIFO, which bounds what loopback can hold.
const FIFO: usize = 16;

/// What a snapshot keeps of a UART.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    divisor: u16,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    lsr_errors: u8,
    msr_delta: u8,
    scr: u8,
    thre_pending: bool,
    input: Vec<u8>,
}

impl Default for SerialState {
    fn default() -> Self {
        Self {
            divisor: 12, // 9600 baud
            ier: 0,
            fcr: 0,
            lcr: 3,
            mcr: 0,
            lsr_errors: 0,
            msr_delta: 0,
            scr: 0,
            thre_pending: false,
            input: Vec::new(),
        }
    }
}

/// A 16550A whose output goes to `W`.
pub struct Serial<W: Write + Send> {
    irq: Arc<dyn IrqLine>,
    out: W,
    lost: u64,
    s: SerialState,
    input: VecDeque<u8>,
}

impl<W: Write + Send> Serial<W> {
    /// Number of consecutive ports.
    pub const PORTS: u64 = 8;

    /// A UART on the wire `irq`, writing what the guest sends to `out`.
    pub fn new(irq: Arc<dyn IrqLine>, out: W) -> Self {
        Self { irq, out, lost: 0, s: SerialState::default(), input: VecDeque::new() }
    }

    /// How many bytes [`Serial::push`] would take now.
    pub fn room(&self) -> usize {
        INPUT_CAPACITY.saturating_sub(self.input.len())
    }

    /// Queues input for the guest; returns how many bytes were taken. In
    /// loopback mode the receiver is cut off and nothing is taken.
    pub fn push(&mut self, data: &[u8]) -> usize {
        if self.s.mcr & MCR_LOOP != 0 {
            return 0;
        }
        let n = data.len().min(self.room());
        self.input.extend(&data[..n]);
        self.update();
        n
    }

    /// Bytes of output the sink failed to take.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The sink of the guest's output.
    pub fn output(&self) -> &W {
        &self.out
    }

    fn fifo_enabled(&self) -> bool {
        self.s.fcr & FCR_ENABLE != 0
    }

    /// Bytes in the FIFO at which RDA is raised (FCR bits 7:6).
    fn trigger(&self) -> usize {
        if !self.fifo_enabled() {
            return 1;
        }
        [1, 4, 8, 14][usize::from(self.s.fcr >> 6)]
    }

    /// The pending source of highest priority (data sheet, table IV).
    fn source(&self) -> u8 {
        let s = &self.s;
        if s.ier & IER_RLS != 0 && s.lsr_errors != 0 {
            IIR_RLS
        } else if s.ier & IER_RDA != 0 && self.input.len() >= self.trigger() {
            IIR_RDA
        } else if s.ier & IER_RDA != 0 && !self.input.is_empty() {
            // Below the trigger level: the line is quiet by now, so it is the
            // character time-out.
            IIR_TIMEOUT
        } else if s.ier & IER_THRE != 0 && s.thre_pending {
            IIR_THRE
        } else if s.ier & IER_MSI != 0 && s.msr_delta != 0 {
            IIR_MSI
        } else {
            IIR_NONE
        }
    }

    fn update(&mut self) {
        // OUT2 gates the interrupt on a PC; in loopback mode it is disconnected.
        let gate = self.s.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2;
        self.irq.set(gate && self.source() != IIR_NONE);
    }

    fn modem_lines(&self) -> u8 {
        let m = self.s.mcr;
        if m & MCR_LOOP == 0 {
            return MSR_LINES;
        }
        // loopback: RTS→CTS, DTR→DSR, OUT1→RI, OUT2→DCD
        (m & 2) << 3 | (m & 1) << 5 | (m & 4) << 4 | (m & 8) << 4
    }

    fn write_mcr(&mut self, value: u8) {
        let before = self.modem_lines();
        self.s.mcr = value & 0x1f;
        let after = self.modem_lines();
        let changed = (before ^ after) >> 4;
        // RI reports only its trailing edge
        let ri_fell = before & !after & 0x40 != 0;
        self.s.msr_delta |= (changed & 0b1011) | if ri_fell { 4 } else { 0 };
    }

    fn transmit(&mut self, byte: u8) {
        if self.s.mcr & MCR_LOOP != 0 {
            let depth = if self.fifo_enabled() { FIFO } else { 1 };
            if self.input.len() < depth {
                self.input.push_back(byte);
            } else {
                self.s.lsr_errors |= LSR_OE;
            }
        } else if self.out.write_all(&[byte]).and_then(|()| self.out.flush()).is_err() {
            self.lost += 1;
        }
        self.s.thre_pending = true;
    }

    fn read_byte(&mut self, offset: u64) -> u8 {
        let dlab = self.s.lcr & LCR_DLAB != 0;
        match offset {
            reg::DATA if dlab => self.s.divisor as u8,
            reg::IER if dlab => (self.s.divisor >> 8) as u8,
            reg::DATA => self.input.pop_front().unwrap_or(0),
            reg::IER => self.s.ier,
            reg::IIR_FCR => {
                let source = self.source();
                if source == IIR_THRE {
                    self.s.thre_pending = false;
                }
                source | if self.fifo_enabled() { IIR_FIFO } else { 0 }
            }
            reg::LCR => self.s.lcr,
            reg::MCR => self.s.mcr,
            reg::LSR => {
                let errors = std::mem::take(&mut self.s.lsr_errors);
                let dr = if self.input.is_empty() { 0 } else { LSR_DR };
                LSR_THRE | LSR_TEMT | errors | dr
            }
            reg::MSR => self.modem_lines() | std::mem::take(&mut self.s.msr_delta),
            reg::SCR => self.s.scr,
            _ => 0xff,
        }
    }

    fn write_byte(&mut self, offset: u64, value: u8) {
        let dlab = self.s.lcr & LCR_DLAB != 0;
        match offset {
            reg::DATA if dlab => self.s.divisor = self.s.divisor & 0xff00 | u16::from(value),
            reg::IER if dlab => self.s.divisor = self.s.divisor & 0xff | u16::from(value) << 8,
            reg::DATA => self.transmit(value),
            reg::IER => {
                // Enabling THRE while the transmitter is empty raises it anew;
                // Linux tests for exactly that (UART_BUG_TXEN).
                if value & IER_THRE != 0 && self.s.ier & IER_THRE == 0 {
                    self.s.thre_pending = true;
                }
                self.s.ier = value & 0xf;
            }
            reg::IIR_FCR => {
                let toggled = (value ^ self.s.fcr) & FCR_ENABLE != 0;
                if toggled || value & FCR_CLEAR_RX != 0 {
                    self.input.clear();
                }
                // without bit 0 the other bits are not programmed
                self.s.fcr = if value & FCR_ENABLE != 0 { value & 0xc9 } else { 0 };
            }
            reg::LCR => self.s.lcr = value,
            reg::MCR => self.write_mcr(value),
            reg::SCR => self.s.scr = value,
            _ => {} // LSR and MSR are read-only
        }
    }
}

impl<W: Write + Send> Device for Serial<W> {
    type State = SerialState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if offset < Self::PORTS
            && let Some(first) = data.first_mut()
        {
            *first = self.read_byte(offset);
            self.update();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset < Self::PORTS
            && let Some(&first) = data.first()
        {
            self.write_byte(offset, first);
            self.update();
        }
    }

    fn reset(&mut self) {
        self.s = SerialState::default();
        self.input.clear();
        self.update();
    }

    fn save(&self) -> SerialState {
        SerialState { input: self.input.iter().copied().collect(), ..self.s.clone() }
    }

    fn load(&mut self, mut state: SerialState) -> Result<(), StateError> {
        if state.input.len() > INPUT_CAPACITY {
            return Err(StateError::new("serial", "input", "is longer than the queue"));
        }
        if state.lsr_errors & !LSR_ERRORS != 0 || state.mcr & !0x1f != 0 || state.ier & !0xf != 0 {
            return Err(StateError::new("serial", "registers", "have reserved bits set"));
        }
        self.input = std::mem::take(&mut state.input).into();
        self.s = state;
        self.update();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestLine, inb, outb};

    fn uart() -> (Serial<Vec<u8>>, Arc<TestLine>) {
        let irq = TestLine::new();
        (Serial::new(irq.clone(), Vec::new()), irq)
    }

    device_tests!(every_device, || Fixture {
        device: uart().0,
        offsets: (0..8).collect(),
        outside: vec![8, 9, 0x1000, u64::MAX],
        disturb: Box::new(|d, n| {
            d.push(&vec![n as u8; (n * 31 % 600) as usize]);
        }),
    });

    #[test]
    fn output_reaches_the_sink() {
        let (mut u, _) = uart();
        for b in *b"login: " {
            assert_eq!(inb(&mut u, 5) & 0x60, 0x60);
            outb(&mut u, 0, b);
        }
        assert_eq!(u.output(), b"login: ");
    }

    /// The steps of Linux' `autoconfig()` in drivers/tty/serial/8250/8250_port.c.
    #[test]
    fn linux_autoconfig_finds_a_16550a() {
        let (mut u, _) = uart();
        outb(&mut u, 1, 0);
        assert_eq!(inb(&mut u, 1) & 0xf, 0);
        outb(&mut u, 1, 0xf);
        assert_eq!(inb(&mut u, 1) & 0xf, 0xf);
        outb(&mut u, 1, 0);
        outb(&mut u, 4, 0x10 | 0xa); // loop, OUT2, RTS
        assert_eq!(inb(&mut u, 6) & 0xf0, 0x90);
        outb(&mut u, 4, 0);
        outb(&mut u, 2, 1);
        assert_eq!(inb(&mut u, 2) >> 6, 3);
        // no EFR behind DLAB, no 64-byte FIFO
        outb(&mut u, 2, 0);
        assert_eq!(inb(&mut u, 2) >> 6, 0);
        outb(&mut u, 7, 0x5a);
        assert_eq!(inb(&mut u, 7), 0x5a);
    }

    #[test]
    fn thre_interrupt_is_raised_and_cleared_by_iir() {
        let (mut u, irq) = uart();
        outb(&mut u, 4, 8);
        outb(&mut u, 1, 2);
        assert!(irq.level());
        assert_eq!(inb(&mut u, 2), 2);
        assert!(!irq.level());
        assert_eq!(inb(&mut u, 2), 1);
        outb(&mut u, 0, b'x');
        assert!(irq.level());
    }

    #[test]
    fn out2_gates_the_wire() {
        let (mut u, irq) = uart();
        outb(&mut u, 1, 2);
        assert!(!irq.level());
        outb(&mut u, 4, 8);
        assert!(irq.level());
    }

    #[test]
    fn input_raises_rda_below_trigger_as_timeout() {
        let (mut u, irq) = uart();
        outb(&mut u, 4, 8);
        outb(&mut u, 2, 0x81); // trigger at 8
        outb(&mut u, 1, 1);
        assert_eq!(u.push(b"abc"), 3);
        assert!(irq.level());
        assert_eq!(inb(&mut u, 2) & 0xf, 0xc);
        u.push(b"defgh");
        assert_eq!(inb(&mut u, 2) & 0xf, 4);
        let mut got = Vec::new();
        while inb(&mut u, 5) & 1 != 0 {
            got.push(inb(&mut u, 0));
        }
        assert_eq!(got, b"abcdefgh");
        assert!(!irq.level());
    }

    #[test]
    fn input_is_bounded() {
        let (mut u, _) = uart();
        assert_eq!(u.push(&[0; 10_000]), INPUT_CAPACITY);
        assert_eq!((u.room(), u.push(b"x")), (0, 0));
        inb(&mut u, 0);
        assert_eq!(u.room(), 1);
    }

    #[test]
    fn loopback_returns_what_is_sent_and_overruns() {
        let (mut u, _) = uart();
        outb(&mut u, 2, 1);
        outb(&mut u, 4, 0x10);
        for n in 0..17 {
            outb(&mut u, 0, n);
        }
        assert_eq!(inb(&mut u, 5) & 2, 2);
        assert_eq!(inb(&mut u, 5) & 2, 0, "reading LSR clears the overrun");
        for n in 0..16 {
            assert_eq!(inb(&mut u, 0), n);
        }
        assert!(u.output().is_empty());
    }

    #[test]
    fn divisor_hides_behind_dlab() {
        let (mut u, _) = uart();
        outb(&mut u, 3, 0x83);
        outb(&mut u, 0, 1);
        outb(&mut u, 1, 0);
        assert_eq!((inb(&mut u, 0), inb(&mut u, 1)), (1, 0));
        outb(&mut u, 3, 3);
        assert_eq!(inb(&mut u, 1), 0);
        assert!(u.output().is_empty());
    }

    #[test]
    fn oversized_state_is_refused() {
        let (mut u, _) = uart();
        let mut state = u.save();
        state.input = vec![0; INPUT_CAPACITY + 1];
        assert!(u.load(state).is_err());
    }
}

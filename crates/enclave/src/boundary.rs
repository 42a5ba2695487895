//! The host's memory. What lies there is the host's to change at any time.
//!
//! A [`Window`] is checked to lie outside the enclave, whole; its bytes are copied,
//! once, before anything looks at them.

use alloc::vec::Vec;

use enclave_abi::call::{EXCHANGE_SIZE, Exchange, Outcome};
use enclave_base::outside::{WORD, copy_in, copy_out, is_outside};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::thread;

/// Most bytes of a message.
const MAX_MESSAGE: u64 = 1 << 30;

/// An exchange of the host's and the memory for messages after it.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    exchange: u64,
    capacity: u64,
}

/// Bytes that were copied into the enclave.
pub(crate) struct Message {
    words: Vec<u64>,
    len: usize,
}

impl Message {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.words.as_bytes()[..self.len]
    }
}

/// Why a message could not be taken.
pub(crate) enum TakeError {
    /// It is announced to be longer than the window.
    TooLarge,
    /// There is no memory for it.
    NoMemory,
}

impl Window {
    /// A window at this address; `None` if any of it is in the enclave, or unaligned.
    pub(crate) fn new(exchange: u64, capacity: u64) -> Option<Self> {
        let aligned = exchange.is_multiple_of(WORD as u64) && capacity.is_multiple_of(WORD as u64);
        let size = EXCHANGE_SIZE + capacity.min(MAX_MESSAGE);
        let base = thread::base();
        let outside = is_outside(exchange, size, base, thread::layout().size);
        (aligned && capacity <= MAX_MESSAGE && outside).then_some(Self { exchange, capacity })
    }

    /// Copies the exchange in.
    pub(crate) fn exchange(self) -> Exchange {
        let mut words = [0; EXCHANGE_SIZE as usize / WORD];
        // SAFETY: `new` has checked the range; nothing of Rust's lies there.
        unsafe { copy_in(self.exchange, &mut words) };
        Exchange::read_from_bytes(words.as_bytes()).unwrap_or_default()
    }

    /// Copies the message in that an exchange announces.
    pub(crate) fn message(self, exchange: &Exchange) -> Result<Message, TakeError> {
        if exchange.length > self.capacity {
            return Err(TakeError::TooLarge);
        }
        let len = exchange.length as usize;
        let count = len.div_ceil(WORD);
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| TakeError::NoMemory)?;
        words.resize(count, 0);
        // SAFETY: the length is within the range that `new` has checked.
        unsafe { copy_in(self.exchange + EXCHANGE_SIZE, &mut words) };
        Ok(Message { words, len })
    }

    /// Copies a message out, then the exchange that announces it. A message that is
    /// larger than the window changes nothing.
    pub(crate) fn put(self, outcome: Outcome, function: u32, message: &[u8]) -> Result<(), TakeError> {
        if message.len() as u64 > self.capacity {
            return Err(TakeError::TooLarge);
        }
        let (whole, rest) = message.as_chunks::<WORD>();
        let to = self.exchange + EXCHANGE_SIZE;
        // SAFETY: the length is within the range that `new` has checked; the word that
        // the last bytes are filled up to is too, as the capacity is whole words.
        unsafe { copy_out(to, whole) };
        if !rest.is_empty() {
            let mut last = [0; WORD];
            last[..rest.len()].copy_from_slice(rest);
            // SAFETY: as above.
            unsafe { copy_out(to + (whole.len() * WORD) as u64, &[last]) };
        }
        let mut exchange = Exchange::new_zeroed();
        exchange.code = outcome as u32;
        exchange.function = function;
        exchange.length = message.len() as u64;
        // SAFETY: `new` has checked the range.
        unsafe { copy_out(self.exchange, exchange.as_bytes().as_chunks().0) };
        Ok(())
    }

    /// Bytes that a message may have.
    pub(crate) fn capacity(self) -> u64 {
        self.capacity
    }

    /// Says what happened, without a message.
    pub(crate) fn say(self, outcome: Outcome) {
        // an empty message fits
        let _ = self.put(outcome, 0, &[]);
    }
}

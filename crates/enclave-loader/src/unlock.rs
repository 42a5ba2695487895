//! What the loader answers: the key, then that pages were restricted; nothing else.
//!
//! ```text
//! LOCKED ──UNLOCK──▶ DECRYPTED ──ACCEPT──▶ OPEN      SGX2
//!    │ └────UNLOCK───────────────────────▶ OPEN      else
//!    └──────UNLOCK──▶ DAMAGED                        the key is right, a piece is not
//! ```

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use enclave_abi::Layout;
use enclave_abi::call::{EXCHANGE_SIZE, Exchange, Outcome, function};
use enclave_abi::encrypted::{KEY_SIZE, Payload, Unlock, Unlocked, unlock};
use enclave_base::cipher::Cipher;
use enclave_base::outside::{WORD, copy_in, copy_out, is_outside};
use enclave_base::{leaf, sealing};
use sgx_abi::{MiscSelect, PAGE_SIZE, PageType, SecinfoFlags};
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

use crate::{Aligned, sealed};

/// `LOCKED`, `DECRYPTED`, [`OPEN`] or `DAMAGED`. The entry code passes entries on
/// where it is [`OPEN`].
pub static STATE: AtomicU32 = AtomicU32::new(LOCKED);

/// As it was loaded.
const LOCKED: u32 = 0;
/// Decrypted; pages have rights that they are to lose.
const DECRYPTED: u32 = 1;
/// The payload runs.
pub const OPEN: u32 = 2;
/// Nothing will ever run.
const DAMAGED: u32 = 3;

const HEAD: usize = EXCHANGE_SIZE as usize;

unsafe extern "C" {
    /// The first byte of the loader.
    static __ehdr_start: u8;
    static ENCLAVE_LAYOUT: Layout;
    static ENCLAVE_PAYLOAD: Aligned;
}

/// What the tool has filled in; the compiler, which knows what stands there before, must
/// not look.
fn payload() -> Payload {
    // SAFETY: the program's static of that type.
    unsafe { (&raw const ENCLAVE_PAYLOAD.0).read_volatile() }
}

/// What the entry code calls, for one thread at a time.
pub extern "C" fn called(exchange: u64, capacity: u64) {
    let payload = payload();
    let base = &raw const __ehdr_start as u64 - payload.loader;
    let Some(host) = Host::new(exchange, capacity, base) else { return };
    let mut head = [0; HEAD / WORD];
    // SAFETY: `Host::new` has checked the range.
    unsafe { copy_in(host.exchange, &mut head) };
    let head = Exchange::read_from_bytes(head.as_bytes()).unwrap_or_default();
    let result = match (STATE.load(Ordering::Acquire), head.function) {
        (DAMAGED, _) => Err(Outcome::Damaged),
        (LOCKED, function::UNLOCK) => host.message(&head).and_then(|told| unlock(&told, &payload, base)),
        (DECRYPTED, function::ACCEPT) => {
            return host.say(accept(&payload, base).err().unwrap_or(Outcome::Done), &[]);
        }
        _ => Err(Outcome::Locked),
    };
    match result {
        Ok(unlocked) => host.say(Outcome::Done, unlocked.as_bytes()),
        Err(outcome) => host.say(outcome, &[]),
    }
}

/// Decrypts the payload, if the key is its.
fn unlock(told: &Unlock, payload: &Payload, base: u64) -> Result<Unlocked, Outcome> {
    let mut key = Zeroizing::new([0; KEY_SIZE]);
    match told.kind {
        unlock::KEY if told.key[KEY_SIZE..].iter().all(|&byte| byte == 0) => {
            key.copy_from_slice(&told.key[..KEY_SIZE]);
        }
        unlock::SEALED => key = sealed::open(&told.key, &payload.id).ok_or(Outcome::WrongKey)?,
        _ => return Err(Outcome::BadArguments),
    }
    let cipher = Cipher::new(&key, &payload.id);
    cipher.verify(payload).map_err(|_| Outcome::WrongKey)?;
    for (n, piece) in payload.pieces().iter().enumerate() {
        // SAFETY: pages of the enclave, by the word of who has the key; they are the
        // payload's, of which nothing runs yet.
        let bytes =
            unsafe { core::slice::from_raw_parts_mut((base + piece.offset) as *mut u8, piece.size as usize) };
        if cipher.decrypt(payload, n, bytes).is_err() {
            STATE.store(DAMAGED, Ordering::Release);
            return Err(Outcome::Damaged);
        }
    }
    let sealed = sealed::seal(&key, &payload.id);
    // what the processor says of itself weighs more than what the host does
    let restrict = told.restricts == 1 || sealing::own().miscselect.contains(MiscSelect::EXINFO);
    STATE.store(if restrict { DECRYPTED } else { OPEN }, Ordering::Release);
    Ok(Unlocked { restrict: restrict.into(), sealed })
}

/// Accepts that each page has just the rights which it is to have (EACCEPT).
fn accept(payload: &Payload, base: u64) -> Result<(), Outcome> {
    for piece in payload.pieces().iter().filter(|piece| piece.is_restricted()) {
        let flags = SecinfoFlags::new(PageType::Reg, piece.rights() | SecinfoFlags::PR);
        for page in (piece.offset..piece.end()).step_by(PAGE_SIZE) {
            leaf::accept(base + page, flags).map_err(|_| Outcome::NotRestricted)?;
        }
    }
    STATE.store(OPEN, Ordering::Release);
    Ok(())
}

/// Ends the thread, after a mistake.
pub fn stop() -> ! {
    // SAFETY: raises #UD, which nobody handles.
    unsafe { asm!("ud2", options(noreturn, nostack)) }
}

/// The host's memory for one message, checked to lie outside.
#[derive(Clone, Copy)]
struct Host {
    exchange: u64,
    capacity: u64,
}

impl Host {
    fn new(exchange: u64, capacity: u64, base: u64) -> Option<Self> {
        // SAFETY: the program's static of that type; volatile as in `payload`.
        let layout = unsafe { (&raw const ENCLAVE_LAYOUT).read_volatile() };
        let aligned = (exchange | capacity).is_multiple_of(WORD as u64);
        let size = EXCHANGE_SIZE.checked_add(capacity)?;
        (aligned && is_outside(exchange, size, base, layout.size)).then_some(Self { exchange, capacity })
    }

    /// Copies the only kind of message in that there is.
    fn message(self, head: &Exchange) -> Result<Zeroizing<Message>, Outcome> {
        const SIZE: u64 = size_of::<Unlock>() as u64;
        if head.length > self.capacity {
            return Err(Outcome::TooLarge);
        }
        if head.length != SIZE {
            return Err(Outcome::BadArguments);
        }
        let mut message = Zeroizing::new(Message([0; size_of::<Unlock>() / WORD]));
        // SAFETY: within the range that `new` has checked.
        unsafe { copy_in(self.exchange + EXCHANGE_SIZE, &mut message.0) };
        Ok(message)
    }

    /// Copies a result out, then the exchange that announces it.
    fn say(self, outcome: Outcome, message: &[u8]) {
        if message.len() as u64 > self.capacity {
            return self.say(Outcome::TooLarge, &[]);
        }
        // SAFETY: within the range that `new` has checked; the messages are whole words.
        unsafe { copy_out(self.exchange + EXCHANGE_SIZE, message.as_chunks().0) };
        let head = Exchange { code: outcome as u32, length: message.len() as u64, ..Exchange::default() };
        // SAFETY: as above.
        unsafe { copy_out(self.exchange, head.as_bytes().as_chunks().0) };
    }
}

/// An [`Unlock`], in words.
struct Message([u64; size_of::<Unlock>() / WORD]);

impl zeroize::Zeroize for Message {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl core::ops::Deref for Message {
    type Target = Unlock;

    fn deref(&self) -> &Unlock {
        Unlock::ref_from_bytes(self.0.as_bytes()).unwrap_or_else(|_| stop())
    }
}

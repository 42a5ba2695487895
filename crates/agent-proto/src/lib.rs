//! What Kluis on the host and its agent in the guest say to each other.
//!
//! Four virtio-console ports (*virtio 1.2 §5.3*) connect the two, told apart
//! by name: [`PORT_CONTROL`] carries frames both ways, the other three carry a
//! command's standard streams as they are, byte for byte.
//!
//! # A conversation
//!
//! ```text
//! guest                                host
//!   Hello{version}           ─────▶            all four ports are open in the guest
//!                            ◀─────  Mount{tag, target, read_only}, for each share
//!                            ◀─────  Exec{argv, env, cwd, tty}
//!                            ◀─────  bytes on kluis.stdin
//!   bytes on kluis.stdout    ─────▶
//!   bytes on kluis.stderr    ─────▶
//!                            ◀─────  StdinEof{total}
//!   Exit{status, stdout, stderr} ─▶            counts of all bytes of this command
//!                            ◀─────  Shutdown
//!   (powers off)
//! ```
//!
//! A virtio port has no end of file, so every stream's end is a byte count in
//! a control frame: `StdinEof` from the host, `Exit` from the guest. Ports are
//! not ordered among each other; whoever gets a count waits for the bytes.
//!
//! The host sends nothing before `Hello`: Linux drops what reaches a port that
//! no program has open. One command runs at a time; to start another, send
//! `StdinEof` for the last one (if not sent already), then `Exec`. Counts start
//! from zero with each `Exec`.
//!
//! A machine that starts from a snapshot has an agent that said `Hello` to another
//! host, and perhaps a command whose counts go on. Its host says `Resume` first and
//! waits for `Resumed`.
//!
//! # Frames
//!
//! A frame is the payload's length (u32, little-endian), a type (u8) and the
//! payload. No payload is longer than [`MAX_PAYLOAD`]; see [`Decoder`] for what
//! happens to those that claim to be. Either side may be hostile to the other:
//! no bytes make this crate panic or allocate more than a frame's size.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod frame;
mod message;
mod wire;

pub use frame::{Decoder, FrameError, HEADER_LEN, MAX_PAYLOAD};
pub use message::{Exec, ExitStatus, Mount, SEED_LEN, Stream, ToGuest, ToHost, Tty};
pub use wire::{EncodeError, Malformed};

/// Version of this protocol, said in [`ToHost::Hello`]. Both sides must agree.
pub const VERSION: u32 = 2;

/// Name of the port that carries frames both ways.
pub const PORT_CONTROL: &str = "kluis.control";
/// Name of the port that carries a command's standard input (or its
/// terminal's).
pub const PORT_STDIN: &str = "kluis.stdin";
/// Name of the port that carries a command's standard output (or its
/// terminal's).
pub const PORT_STDOUT: &str = "kluis.stdout";
/// Name of the port that carries a command's standard error; silent for a
/// command on a terminal.
pub const PORT_STDERR: &str = "kluis.stderr";

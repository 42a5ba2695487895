//! The socket device, its host a program that answers with what it hears.

use super::virtio::{Guest, step};
use crate::input::Input;
use devices::virtio::Vsock;
use devices::virtio::vsock::{BUFFER, HostSide, HostStream};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

/// The port at which somebody is.
const SERVICE: u32 = 7;
const GUEST: u64 = 3;

thread_local! {
    /// How many bytes the host's programs take before they are full.
    static ROOM: Cell<usize> = const { Cell::new(0) };
}

/// Sends back what it got; ends after the guest has.
#[derive(Default)]
struct Echo {
    bytes: VecDeque<u8>,
    ended: bool,
}

impl Read for Echo {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!buf.is_empty(), "a read of nothing would look like the end");
        match self.bytes.read(buf)? {
            0 if !self.ended => Err(ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}
impl Write for Echo {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        assert!(!self.ended, "bytes after the end");
        match ROOM.get().min(data.len()) {
            0 if ROOM.get() == 0 => Err(ErrorKind::WouldBlock.into()),
            0 => Err(ErrorKind::BrokenPipe.into()),
            n => {
                ROOM.set(ROOM.get() - n);
                self.bytes.extend(&data[..n]);
                assert!(self.bytes.len() <= 1 << 22);
                Ok(n)
            }
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl HostStream for Echo {
    fn finish(&mut self) {
        self.ended = true;
    }
}

struct Host;
impl HostSide for Host {
    fn connect(&mut self, port: u32) -> Option<Box<dyn HostStream>> {
        (port == SERVICE).then(|| Box::new(Echo::default()) as Box<dyn HostStream>)
    }
}

/// Runs the input; how many chains came back at most.
pub fn run(data: &[u8]) -> u16 {
    ROOM.set(BUFFER);
    let mut guest = Guest::new(Vsock::new(GUEST, Box::new(Host)));
    let function = guest.function();
    guest.run(&mut Input::new(data), |input| match input.u8() % 2 {
        0 => ROOM.set(usize::from(input.u16())),
        _ => {
            let port = u32::from(input.u8());
            let mut device = function.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            device.device_mut().connect(port, Box::new(Echo::default()));
            device.kick();
        }
    })
}

/// [`run`], its result ignored.
pub(crate) fn vsock(data: &[u8]) {
    run(data);
}

/// A packet from port 1 of the guest.
fn packet(op: u8, flags: u8, len: u8) -> Vec<u8> {
    let mut bytes = [GUEST.to_le_bytes(), 2u64.to_le_bytes()].concat();
    bytes.extend([1, 0, 0, 0, SERVICE as u8, 0, 0, 0, len, 0, 0, 0, 1, 0, op, 0, flags, 0, 0, 0]);
    bytes.extend([0, 0, 1, 0, 0, 0, 0, 0]);
    bytes
}

/// Inputs with whole conversations.
pub fn seeds() -> Vec<Vec<u8>> {
    use step::{DESCRIPTOR, HOST, KICK, NOTIFY, OFFER, POKE, SNAPSHOT, START};
    let mut seed = vec![START, 0, 0, 0, 0];
    // room for packets: queue 0, descriptors 0 to 9, written by the device
    for n in 0..10u8 {
        seed.extend([DESCRIPTOR, 0, n, 2, 0, 0x10 + n, 100, 0, OFFER, 0, n]);
    }
    seed.extend([HOST, 1, 9]);
    // request, data, credit, the guest's end, the end: at 4_0000h and following
    for (n, (op, flags, len)) in
        [(1, 0, 0), (5, 0, 8), (7, 0, 0), (4, 2, 0), (4, 3, 0)].into_iter().enumerate()
    {
        let n = n as u8;
        let bytes = packet(op, flags, len);
        // a number of three bytes: its length in the first
        seed.extend([POKE, 0xe0, 0, n, 4, 0, 44]);
        seed.extend(bytes);
        seed.extend([DESCRIPTOR, 1, n, 0, 0, n, 44 + len, 0, OFFER, 1, n, NOTIFY, 1]);
    }
    let mut all = vec![seed.clone()];
    seed.extend([HOST, 0, 0, 0, KICK, SNAPSHOT, 3, 0, 9, 1, KICK]);
    all.push(seed);
    all
}
